"""What Podman has written down, what its monitors show of themselves, and where else its storage is."""

from __future__ import annotations

import os
import re

from leftovers.claims import real_exe
from leftovers.errors import Unreadable
from leftovers.evidence import files, libpod
from leftovers.kinds.files import leads_to_remote
from leftovers.kinds.kind import Look
from leftovers.model import Object, Record
from leftovers.products.libpod.names import GRAPH, NETWORKS, RUNTIMES, STATE, STORAGE_CONF, SYSCTLS, TMP

__all__ = ["Answer", "conmon_argv", "held_fifo", "readers"]

Answer = tuple[list[Record], list[str]]
GRAPHROOT = re.compile(r'(?m)^\s*graphroot\s*=\s*["\']([^"\']+)["\']')
DESCRIPTORS = 256  # of one process


def remote(look: Look, path: str) -> bool:
    mounts = {mount.facts["point"]: mount.facts for mount in look.objects("mount") if mount.facts["host"]}
    return leads_to_remote(look.host, mounts, f"{path}/.")


def graphs(look: Look) -> list[str]:
    """Where the graph root is: where it always is, and where storage.conf says."""
    told = ""
    try:
        base, name = os.path.split(STORAGE_CONF)
        text = (files.read(look.host, base, name, files.MIB) or b"").decode()
        match = GRAPHROOT.search(text)
        told = match[1] if match else ""
    except (OSError, Unreadable, UnicodeDecodeError):
        pass
    sane = told.startswith("/") and os.path.normpath(told) == told and told.count("/") >= 2
    return list(dict.fromkeys((GRAPH, *([told] if sane and files.proper(told.replace("/", "")) else []))))


def read_places(look: Look) -> Answer:
    """Records "place" of where the graph root is besides its usual place: by storage.conf, or behind a symlink."""
    records = []
    for path in graphs(look):
        found = [path] if path != GRAPH else []
        if not remote(look, path):
            real = os.path.realpath(look.host.path(path)).removeprefix(look.host.root)
            found += [real] if real not in (path, GRAPH) and look.host.exists(path) else []
        records += [Record("place", GRAPH, "disk", {"path": each, "why": f"{path} leads there"}) for each in found]
    return records, []


def read_store(look: Look) -> Answer:
    records: list[Record] = []
    faults: list[str] = []
    for path in graphs(look):
        if remote(look, path):
            faults.append(f"{path}: not read, it is on a network or FUSE file system")
            nothing = {"whole": False, "images": 0, "volumes": 0, "secrets": 0}
            records.append(Record("podman-store", path, "disk", nothing))  # who is in it, and is no orphan, is unknown
            continue
        real = os.path.realpath(look.host.path(path)).removeprefix(look.host.root) or path
        for found, said in (libpod.read_database(look.host, real), libpod.read_store(look.host, real)):
            records += found
            faults += said
    return records, faults


def read_runtimes(look: Look) -> Answer:
    records, faults = libpod.read_persistent(look.host, TMP)
    for directory in RUNTIMES:
        found, said = libpod.read_states(look.host, directory)
        records += found
        faults += said
    return records, faults


def read_networks(look: Look) -> Answer:
    records, faults = libpod.read_networks(look.host, NETWORKS)
    found, said = libpod.read_firewall(look.host, f"{STATE}/firewall")
    records += found
    for name, is_directory in files.entries(look.host, SYSCTLS, "", faults):
        if re.fullmatch(r"10-netavark-.+\.conf", name) and not is_directory:
            path = f"{SYSCTLS}/{name}"
            records.append(Record("sysctl-file", path, "disk", {"path": path}))
    return records, faults + said


def conmon_argv(process: Object) -> dict[str, str]:
    """What a conmon was told (conmon.c, opt_entries): the container's id, its bundle, the directory of exit files; {}
    for any other process. Anybody may call himself so."""
    argv = process.facts["argv"][1:]
    found: dict[str, str] = {}
    for option, value in zip(argv, argv[1:]):  # noqa: B905 - the last has no value
        name = {"-c": "id", "--cid": "id", "-b": "bundle", "--bundle": "bundle", "--exit-dir": "exit"}.get(option)
        if name:
            found.setdefault(name, value)
    return found if len(found) == 3 and libpod.is_id(found["id"]) else {}


def held_fifo(look: Look, process: Object, id: str, graph: str) -> str:
    """A file in the directory of that container that a process holds open, as the kernel tells it; "" if none. (conmon
    src/ctrl.c: the fifos ctl and winsz; that of an exec session is one directory deeper.)"""
    form = re.compile(rf"{re.escape(graph)}/[a-z]+-containers/{id}/userdata/([0-9a-f]{{64}}/)?(ctl|winsz)\Z")
    directory = look.host.path(f"/proc/{process.key}/fd")
    try:
        for name in sorted(os.listdir(directory))[:DESCRIPTORS]:
            path = os.readlink(f"{directory}/{name}").removesuffix(" (deleted)")
            if form.match(path):
                return path
    except OSError:
        pass
    return ""


def read_copies(look: Look) -> Answer:
    """Records "copies", by inode, of the mount namespaces of other user namespaces: what was mounted here when one was
    made is to be seen in it, and only its end undoes that (mount_namespaces(7), "locked"). Facts: pid, uid."""
    records = {}
    home = user_namespace(look, "self")
    uids = {process.facts["pid"]: process.facts["uid"] for process in look.objects("process")}
    for mount in look.objects("mount"):
        ns, pid = mount.facts["ns"], mount.facts["pid"]
        if mount.facts["host"] or not pid or ns in records:
            continue
        other = user_namespace(look, pid)
        if home and other and other != home:
            records[ns] = Record("copies", str(ns), "kernel", {"pid": pid, "uid": uids.get(pid, -1)})
    return list(records.values()), []


def user_namespace(look: Look, pid: int | str) -> str:
    try:
        return os.readlink(look.host.path(f"/proc/{pid}/ns/user"))
    except OSError:
        return ""


def read_conmons(look: Look) -> Answer:
    """Records "conmon", by pid, of the monitors of root's containers. Facts: id, start, exit, held (the open file that
    proves it), uid."""
    tops = graphs(look)
    tops += [os.path.realpath(look.host.path(path)).removeprefix(look.host.root) for path in tops]
    records = []
    for process in look.objects("process"):
        facts = process.facts
        if facts["nested"] or facts["uid"] or not facts["our_mnt"]:
            continue
        if real_exe(process).rpartition("/")[2] != "conmon":
            continue
        told = conmon_argv(process)
        if not told or told["exit"] != f"{TMP}/exits":
            continue
        held = next((path for top in dict.fromkeys(tops) if (path := held_fifo(look, process, told["id"], top))), "")
        if held:
            said = {"id": told["id"], "start": facts["start"], "exit": told["exit"], "held": held, "uid": 0}
            records.append(Record("conmon", process.key, "kernel", said))
    return records, []


readers = (read_places, read_store, read_copies, read_conmons, read_runtimes, read_networks)
