"""Programs of a snap that is not mounted any more. What still runs of it has a path that says nothing: the kernel tells
it from the top of the squashfs, "/bin/lxd", as if it were the host's own file (seen with snapd 2.68, whose mount units
unmount lazily).

Two things together tell whose it was: the mount that the process runs from is in its mount namespace no more, which
nobody arranges by writing arguments; and its environment, as snapd's `snap run` made it, names the snap
(snapd snap/snapenv/snapenv.go).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from leftovers import mountinfo
from leftovers.host import Host
from leftovers.model import Object, Record
from leftovers.mountinfo import Mount

__all__ = ["lies", "read"]

LIMIT = 1 << 20


def read(host: Host, snap: str, processes: Iterable[Object]) -> list[Record]:
    """Records "program", named by pid, of processes of the host that run from that snap's unmounted file system. Facts:
    start, exe (from the top of it). Of any user: LXD's forkproxy gives up root."""
    wanted = re.compile(rf"SNAP=(/var/lib/snapd)?/snap/{re.escape(snap)}/[^/]+\Z".encode())
    tables: dict[int, set[str]] = {}
    records = []
    for process in processes:
        facts = process.facts
        if facts["nested"]:
            continue
        try:
            environment = host.read_bytes(f"/proc/{process.key}/environ", LIMIT).split(b"\0")
            if not any(map(wanted.match, environment)):
                continue
            mount = mount_of(host.path(f"/proc/{process.key}/exe"))
            if facts["mntns"] not in tables:
                text = host.read_bytes(f"/proc/{process.key}/mountinfo")
                tables[facts["mntns"]] = {line.split(b" ", 1)[0].decode() for line in text.splitlines()}
        except OSError:
            continue  # it has ended
        if mount and mount not in tables[facts["mntns"]]:
            records.append(Record("program", process.key, "kernel", {"start": facts["start"], "exe": facts["exe"]}))
    return records


def mount_of(path: str) -> str:
    """The number of the mount that a file is on (proc_pid_fdinfo(5)), of which no server is asked. Raises OSError."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}") as file:
            return next((line.split()[1] for line in file if line.startswith("mnt_id:")), "")
    finally:
        os.close(fd)


def lies(host: Host, process: Object, link: str) -> tuple[Mount, str] | None:
    """The mount on which a process has its file ("exe") or its directory ("cwd"), and where that is on the mount's file
    system, as mountinfo.place() tells it. The path alone is told from the top of the process' own mount namespace,
    where a container has whatever it likes at any path. None if it has ended, or the mount is in its namespace no
    more."""
    where = host.path(f"/proc/{process.key}/{link}")
    try:
        path = os.readlink(where).removesuffix(" (deleted)")
        number = mount_of(where)
        mounts = mountinfo.parse(host.read_bytes(f"/proc/{process.key}/mountinfo"))
    except OSError:
        return None
    mount = next((each for each in mounts if str(each.id) == number), None)
    found = mountinfo.place([mount], path) if mount else None
    return (mount, found[1]) if mount and found else None
