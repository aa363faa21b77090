"""What Incus has written down, from the best source that still answers, and what can be read from it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from leftovers.claims import Case, real_exe
from leftovers.host import Host
from leftovers.kinds.files import remote
from leftovers.kinds.kind import Look
from leftovers.model import Object, Presence, Record
from leftovers.mountinfo import below, host_path
from leftovers.products.incus.names import DAEMONS, DIRECTORY, RUN


def read_api(look: Look) -> tuple[list[Record], list[str]]:
    """Ask the daemon, if it lives: connecting to a socket that systemd holds for a dead one would start it."""
    from leftovers.daemons import incus

    if not any(is_daemon(process) for process in look.objects("process")):
        return [], []
    if not look.host.exists(f"{DIRECTORY}/unix.socket"):
        return [], []  # deleted with its directory: the daemon lives, but nobody can ask it any more
    return incus.read(look.host, f"{DIRECTORY}/unix.socket", 10.0)


def read_database(look: Look) -> tuple[list[Record], list[str]]:
    from leftovers.evidence import incus_database

    return incus_database.read(look.host, f"{DIRECTORY}/database/global/db.bin")


def read_disk(look: Look) -> tuple[list[Record], list[str]]:
    from leftovers.evidence import incus_backup, incus_directory

    for mount in Case("incus", Presence.ABSENT, look.listed).mounts():
        if below(mount.point, DIRECTORY) and remote({mount.point: {"fstype": mount.fstype}}, mount.point):
            # A server that is gone would hold us up for ever.
            return [], [f"{mount.point}: not read, it is a {mount.fstype} file system"]
    records, faults = incus_directory.read(look.host, DIRECTORY, RUN)
    more, more_faults = incus_backup.read(look.host, DIRECTORY)
    return records + more, faults + more_faults


def read_kernel(look: Look) -> tuple[list[Record], list[str]]:
    """Where pools have their sources, as the kernel tells it: the bind mount of a directory elsewhere
    (storage/drivers/driver_dir.go, Mount), and the root file system of a running container. The inode goes with it,
    so that a path which somebody else has put there later is not taken for the source."""
    case = Case("incus", Presence.ABSENT, look.listed)
    sources: dict[str, str] = {}
    for mount in case.mounts():
        parent, _, name = mount.point.rpartition("/")
        if parent == f"{DIRECTORY}/storage-pools":
            source = host_path(case.mounts(), mount.majmin, mount.root, avoid=DIRECTORY)
            if source:
                sources[source] = name
    for process in case.objects("process"):
        parent_process = case.process(process.facts["ppid"])
        # LXD's pools look the same inside: only the init of a monitor of ours tells.
        if parent_process is None or parent_process.facts["nested"] or real_exe(parent_process) not in DAEMONS:
            continue
        majmin, root = (process.facts.get("mount_root") or ["", ""])[:2]
        match = re.fullmatch(r"(/.+)/containers/[^/]+/rootfs", root)
        source = host_path(case.mounts(), majmin, match[1], avoid=DIRECTORY) if match else None
        if source and not below(source, DIRECTORY):
            sources.setdefault(source, source)
    records = []
    for source, name in sources.items():
        inode = pool_inode(look.host, source)
        if inode:
            records.append(Record("pool", name, "kernel", {"driver": "dir", "source": source, "inode": inode}))
    return records, []


def pool_inode(host: Host, source: str) -> int:
    """The inode of a pool's source, if it looks like one: Incus makes all of these directories when it makes the
    pool (older versions had no buckets), and an administrator's own directory would hardly have them. 0 if not."""
    try:
        names = set(os.listdir(host.path(source)))
        inode = os.stat(host.path(source), follow_symlinks=False).st_ino
    except OSError:
        return 0
    return inode if len(names & set(VOLUMES)) >= len(VOLUMES) - 2 else 0


def read_places(look: Look) -> tuple[list[Record], list[str]]:
    """Where else Incus' directory is: behind a symlink, or where a daemon was told to have it (INCUS_DIR,
    internal/util/paths.go)."""
    places = {}
    if os.path.islink(look.host.path(DIRECTORY)):
        places[os.path.realpath(look.host.path(DIRECTORY))] = f"{DIRECTORY} is a symlink to it"
    for process in look.objects("process"):
        argv = process.facts["argv"] or [""]
        if not process.facts["nested"] and real_exe(process) in DAEMONS and not argv[0].startswith("["):
            places.update(dict.fromkeys(told(look.host, process), f"INCUS_DIR of pid {process.key}"))
    return [
        Record("place", DIRECTORY, "kernel", {"path": path, "why": why})
        for path, why in places.items()
        if path != DIRECTORY and path.startswith("/") and ".." not in path.split("/") and path.strip("/")
    ], []


def told(host: Host, process: Object) -> list[str]:
    """A process' INCUS_DIR, from its environment."""
    try:
        environment = host.read_bytes(f"/proc/{process.key}/environ", 1 << 20).split(b"\0")
    except OSError:
        return []
    return [os.fsdecode(entry[10:]).rstrip("/") for entry in environment if entry.startswith(b"INCUS_DIR=")]


def is_daemon(process: Object) -> bool:
    """The main daemon: not one of its fork* helpers, and not a monitor, which is a fork of it with another title."""
    argv = process.facts["argv"]
    return (
        not process.facts["nested"]
        and real_exe(process) in DAEMONS
        and bool(argv)
        and argv[0].startswith("/")
        and not (len(argv) > 1 and argv[1].startswith(("fork", "callhook")))
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

    table: dict[str, list[tuple[Record, dict[str, Any]]]] = case.cached(f"incus.nics.{key}", make)
    return table.get(value, []) if value else []


def of_instance(case: Case, type: str, name: str) -> list[dict[str, Any]]:
    """The network devices of one instance, as records of one type ("instance", "lxc.conf") have them."""

    def make() -> dict[str, list[dict[str, Any]]]:
        table: dict[str, list[dict[str, Any]]] = {}
        for record in case.records_of(type):
            table.setdefault(record.name, []).extend(record.facts.get("nics", ()))
        return table

    table: dict[str, list[dict[str, Any]]] = case.cached(f"incus.of.{type}", make)
    return table.get(name, []) if name else []


def lxc_nics(case: Case) -> Iterator[tuple[Record, dict[str, Any]]]:
    """The same, from the configuration that liblxc was started with: it outlives a purge, in /run."""
    for record in case.records_of("lxc.conf"):
        for nic in record.facts.get("nics", ()):
            yield record, nic


def made(case: Case, nic: dict[str, Any]) -> bool:
    """Whether the link in a device's host_name is one that Incus made. Of a passed-through card (nictype=physical,
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

    found: set[str] = case.cached("incus.addresses", make)
    return found


def external_pools(records: tuple[Record, ...]) -> dict[str, tuple[Record, int]]:
    """Pools whose files lie where the administrator wanted them: source directory to its record and, where that was
    seen in the kernel, its inode (else 0)."""
    found: dict[str, tuple[Record, int]] = {}
    for record in records:
        source = record.facts.get("source", "") if record.type == "pool" else ""
        if record.type == "pool" and record.facts.get("driver") in ("dir", "btrfs") and source.startswith("/"):
            elsewhere = not below(source, DIRECTORY) and not source.startswith("/dev/")
            if elsewhere and source.strip("/") and ".." not in source.split("/"):
                inode = int(record.facts.get("inode", 0))
                if inode or source.rstrip("/") not in found:
                    found[source.rstrip("/")] = record, inode
    return found


# What a pool's own directory holds; a dir pool is refused on a directory that is not empty, so these are Incus' by
# birth (storage/drivers/driver_dir.go Create; drivers/volume.go, BaseDirectories).
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


def places(records: tuple[Record, ...]) -> tuple[str, ...]:
    paths = [str(record.facts["path"]) for record in records if record.type == "place"]
    for source in external_pools(records):
        paths += [source, *(f"{source}/{name}" for name in VOLUMES)]
    for record in records:
        for disk in record.facts.get("disks", ()) if record.type == "instance" else ():
            source = str(disk.get("source", ""))
            if source.startswith("/") and not disk.get("pool") and ".." not in source.split("/"):
                paths.append(source.rstrip("/") or "/")
    return tuple(paths)
