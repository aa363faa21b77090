"""What a member has written down, from the best source that still answers, and what can be read from it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from leftovers.claims import Case, real_exe
from leftovers.host import Host
from leftovers.kinds.files import leads_to_remote, remote
from leftovers.kinds.kind import Look
from leftovers.model import Object, Presence, Record
from leftovers.mountinfo import below, host_path
from leftovers.products.family.names import DIRECTORIES, Names


def read_api(names: Names, look: Look) -> tuple[list[Record], list[str]]:
    """Ask the daemon, if it lives: connecting to a socket that systemd holds for a dead one would start it."""
    from leftovers.daemons import incus

    if not any(is_daemon(names, process) for process in look.objects("process")):
        return [], []
    if not look.host.exists(names.socket):
        return [], []  # deleted with its directory: the daemon lives, but nobody can ask it any more
    return incus.read(look.host, names.socket, 10.0)


def read_database(names: Names, look: Look) -> tuple[list[Record], list[str]]:
    from leftovers.evidence import incus_database

    return incus_database.read(look.host, f"{names.directory}/database/global/db.bin")


def read_disk(names: Names, look: Look) -> tuple[list[Record], list[str]]:
    from leftovers.evidence import incus_backup, incus_directory

    for mount in Case(names.name, Presence.ABSENT, look.listed).mounts():
        if re.match(rf"{re.escape(names.directory)}/devices/[^/]+/(disk\.|lxcfs\Z)", mount.point):
            continue  # what an instance has mounted, or its own lxcfs (Incus 7): nothing is read there
        if below(mount.point, names.directory) and remote({mount.point: {"fstype": mount.fstype}}, mount.point):
            # A server that is gone would hold us up for ever.
            return [], [f"{mount.point}: not read, it is a {mount.fstype} file system"]
    records, faults = incus_directory.read(look.host, names.directory, names.run)
    more, more_faults = incus_backup.read(look.host, names.directory)
    return records + more, faults + more_faults


def read_kernel(names: Names, look: Look) -> tuple[list[Record], list[str]]:
    """Where pools have their sources, as the kernel tells it: the bind mount of a directory elsewhere
    (storage/drivers/driver_dir.go, Mount), and the root file system of a running container. The inode goes with it,
    so that a path which somebody else has put there later is not taken for the source."""
    case = Case(names.name, Presence.ABSENT, look.listed)
    sources: dict[str, str] = {}
    for mount in case.mounts():
        parent, _, name = mount.point.rpartition("/")
        if parent == f"{names.directory}/storage-pools":
            source = host_path(case.mounts(), mount.majmin, mount.root, avoid=names.directory)
            if source:
                sources[source] = name
    for process in case.objects("process"):
        parent_process = case.process(process.facts["ppid"])
        # All members' pools look the same inside: only the init of a monitor of ours tells.
        if parent_process is None or parent_process.facts["nested"] or not names.is_daemon(real_exe(parent_process)):
            continue
        majmin, root = (process.facts.get("mount_root") or ["", ""])[:2]
        match = re.fullmatch(r"(/.+)/containers/[^/]+/rootfs", root)
        source = host_path(case.mounts(), majmin, match[1], avoid=names.directory) if match else None
        if source and not below(source, names.directory):
            sources.setdefault(source, source)
    records = []
    mounts = {mount.facts["point"]: mount.facts for mount in look.objects("mount") if mount.facts["host"]}
    for source, name in sources.items():
        # A server that hangs, or is gone, would hold us up.
        inode = 0 if leads_to_remote(look.host, mounts, source) else pool_inode(look.host, source)
        if inode:
            records.append(Record("pool", name, "kernel", {"driver": "dir", "source": source, "inode": inode}))
    return records, []


def pool_inode(host: Host, source: str) -> int:
    """The inode of a pool's source, if it looks like one: they make all of these directories when it makes the
    pool (older versions had no buckets), and an administrator's own directory would hardly have them. 0 if not."""
    try:
        names = set(os.listdir(host.path(source)))
        inode = os.stat(host.path(source), follow_symlinks=False).st_ino
    except OSError:
        return 0
    return inode if len(names & set(VOLUMES)) >= len(VOLUMES) - 2 else 0


def read_programs(names: Names, look: Look) -> tuple[list[Record], list[str]]:
    """What runs of its snap, after that was unmounted."""
    from leftovers.evidence import snap_program

    return (snap_program.read(look.host, names.snap, look.objects("process")) if names.snap else []), []


def read_places(names: Names, look: Look) -> tuple[list[Record], list[str]]:
    """Where else the directory is: behind a symlink, or where a daemon was told to have it (INCUS_DIR, LXD_DIR;
    internal/util/paths.go). Only root's daemon on the host itself is believed, for whoever may run its file may tell it
    anything; and no daemon of a snap, which always tells it the same place (snapcraft/commands/daemon.start)."""
    places = {}
    if os.path.islink(look.host.path(names.directory)):
        target = os.path.realpath(look.host.path(names.directory)).removeprefix(look.host.root)
        places[target] = f"{names.directory} is a symlink to it"
    for process in look.objects("process") if not names.snap else ():
        argv, facts = process.facts["argv"] or [""], process.facts
        daemon = names.is_daemon(real_exe(process)) and not argv[0].startswith("[")
        if not facts["nested"] and facts["uid"] == 0 and facts["our_mnt"] and daemon:
            places.update(dict.fromkeys(told(names, look.host, process), f"{names.variable} of pid {process.key}"))
    return [
        Record("place", names.directory, "kernel", {"path": path, "why": why})
        for path, why in places.items()
        if path != names.directory
        and path.startswith("/")
        and ".." not in path.split("/")
        and path.strip("/")
        and not stranger(names, look, path)
    ], []


def stranger(names: Names, look: Look, path: str) -> str:
    """Whose directory of another product a place is, or is in, or is above; "" if it is nobody's."""
    mounts = {mount.facts["point"]: mount.facts for mount in look.objects("mount") if mount.facts["host"]}
    for other in DIRECTORIES:
        if below(names.directory, other):
            continue
        real = other
        if not leads_to_remote(look.host, mounts, other):
            real = os.path.realpath(look.host.path(other)).removeprefix(look.host.root)
        if any(below(path, each) or below(each, path) for each in (other, real)):
            return other
    return ""


def told(names: Names, host: Host, process: Object) -> list[str]:
    """Where a process was told to have the directory, in its environment."""
    word = f"{names.variable}=".encode()
    try:
        environment = host.read_bytes(f"/proc/{process.key}/environ", 1 << 20).split(b"\0")
    except OSError:
        return []
    return [os.fsdecode(entry[len(word) :]).rstrip("/") for entry in environment if entry.startswith(word)]


def is_daemon(names: Names, process: Object) -> bool:
    """The main daemon: not one of its fork* helpers, and not a monitor, which is a fork of it with another title. LXD's
    daemon is a command too (`lxd init`): who is the daemon has options and nothing else. zabbly's is found by PATH: its
    first argument is no path."""
    argv, exe = process.facts["argv"], real_exe(process)
    return (
        not process.facts["nested"]
        and process.facts["uid"] == 0
        and names.is_daemon(exe)
        and bool(argv)
        and (argv[0].startswith("/") or argv[0] == exe.rpartition("/")[2])
        and all(argument.startswith("-") for argument in argv[1:2])
    )


def nics(case: Case) -> Iterator[tuple[Record, dict[str, Any]]]:
    """Every network device of every instance that any source knows."""
    for record in case.records_of("instance"):
        for nic in record.facts.get("nics", ()):
            yield record, nic


def nics_by(case: Case, key: str, value: str) -> list[tuple[Record, dict[str, Any]]]:
    """The network devices with this value of a key (host_name, parent), by a table: a host may have a thousand links
    and as many devices."""

    def make() -> dict[str, list[tuple[Record, dict[str, Any]]]]:
        table: dict[str, list[tuple[Record, dict[str, Any]]]] = {}
        for record, nic in nics(case):
            table.setdefault(str(nic.get(key) or ""), []).append((record, nic))
        return table

    table: dict[str, list[tuple[Record, dict[str, Any]]]] = case.cached(f"family.nics.{key}", make)
    return table.get(value, []) if value else []


def of_instance(case: Case, type: str, name: str) -> list[dict[str, Any]]:
    """The network devices of one instance, as records of one type ("instance", "lxc.conf") have them."""

    def make() -> dict[str, list[dict[str, Any]]]:
        table: dict[str, list[dict[str, Any]]] = {}
        for record in case.records_of(type):
            table.setdefault(record.name, []).extend(record.facts.get("nics", ()))
        return table

    table: dict[str, list[dict[str, Any]]] = case.cached(f"family.of.{type}", make)
    return table.get(name, []) if name else []


def lxc_nics(case: Case) -> Iterator[tuple[Record, dict[str, Any]]]:
    """The same, from the configuration that liblxc was started with: it outlives a purge, in /run."""
    for record in case.records_of("lxc.conf"):
        for nic in record.facts.get("nics", ()):
            yield record, nic


def made(case: Case, nic: dict[str, Any]) -> bool:
    """Whether the link in a device's host_name is one that was made for it. Of a passed-through card (nictype=physical,
    sriov, or a network of such a type) that name is the administrator's own card's (seen on 6.0.4)."""
    networks = [record for record in case.records_of("network") if record.name == nic.get("network")]
    parents = {nic.get("parent")} | {record.facts.get("config", {}).get("parent") for record in networks}
    name = nic.get("host_name", "")
    if any(parent and (name == parent or name.startswith(f"{parent}.")) for parent in parents):
        return False
    types = {nic.get("nictype")} | {record.facts.get("type") for record in networks}
    # A physical network on a bridge gives its instances a veth of their own (Incus 7, nic_physical.go).
    return "sriov" not in types and nic.get("nictype") != "physical"


def addresses(case: Case) -> set[str]:
    """The hardware addresses of all instances' devices."""

    def make() -> set[str]:
        return {nic["hwaddr"].lower() for source in (nics, lxc_nics) for _, nic in source(case) if nic.get("hwaddr")}

    found: set[str] = case.cached("family.addresses", make)
    return found


def external_pools(names: Names, records: tuple[Record, ...]) -> dict[str, tuple[Record, int]]:
    """Pools whose files lie where the administrator wanted them: source directory to its record and, where that was
    seen in the kernel, its inode (else 0)."""
    found: dict[str, tuple[Record, int]] = {}
    for record in records:
        source = record.facts.get("source", "") if record.type == "pool" else ""
        if record.type == "pool" and record.facts.get("driver") in ("dir", "btrfs") and source.startswith("/"):
            elsewhere = not below(source, names.directory) and not source.startswith("/dev/")
            if elsewhere and source.strip("/") and ".." not in source.split("/"):
                inode = int(record.facts.get("inode", 0))
                if inode or source.rstrip("/") not in found:
                    found[source.rstrip("/")] = record, inode
    return found


# What a pool's own directory holds; a dir pool is refused on a directory that is not empty, so these are the product's
# by birth (storage/drivers/driver_dir.go Create; drivers/volume.go, BaseDirectories).
VOLUMES = (
    "buckets",
    "containers",
    "containers-snapshots",
    "custom",
    "custom-snapshots",
    "images",
    "virtual-machines",
    "virtual-machines-snapshots",
)


def places(names: Names, records: tuple[Record, ...]) -> tuple[str, ...]:
    paths = [str(record.facts["path"]) for record in records if record.type == "place"]
    for source in external_pools(names, records):
        paths += [source, *(f"{source}/{name}" for name in VOLUMES)]
    for record in records:
        for disk in record.facts.get("disks", ()) if record.type == "instance" else ():
            source = str(disk.get("source", ""))
            if source.startswith("/") and not disk.get("pool") and ".." not in source.split("/"):
                paths.append(source.rstrip("/") or "/")
    return tuple(paths)
