"""Mounts as the kernel tells them in /proc/PID/mountinfo (proc_pid_mountinfo(5)), and paths in terms of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Mount", "below", "covering", "host_path", "parse", "place", "served"]

# File systems that another machine serves.
REMOTE = ("nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "glusterfs", "lustre", "virtiofs", "autofs")
# The kernel escapes space, tab, newline, backslash and "#" as \ooo (fs/proc_namespace.c, mangle()).
ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo. `root` is the path within the file system that is mounted at `point`.

    `shared` and `master` are peer group numbers, 0 for none.
    """

    id: int
    parent: int
    majmin: str
    root: str
    point: str
    options: str
    shared: int
    master: int
    fstype: str
    source: str


def parse(text: bytes) -> list[Mount]:
    """All mounts of a mountinfo file, in its order. A line that is not understood is left out."""
    mounts = []
    # Not splitlines(): only a newline ends a line here, and names may hold \r or U+2028.
    for line in text.split(b"\n"):
        left, dash, right = line.partition(b" - ")
        fields, kind = left.split(b" "), right.split(b" ")
        if not dash or len(fields) < 6 or len(kind) < 2:
            continue
        groups = dict(field.split(b":", 1) for field in fields[6:] if b":" in field)
        try:
            mounts.append(
                Mount(
                    id=int(fields[0]),
                    parent=int(fields[1]),
                    majmin=os.fsdecode(fields[2]),
                    root=decode(fields[3]),
                    point=decode(fields[4]),
                    options=os.fsdecode(fields[5]),
                    shared=int(groups.get(b"shared", b"0")),
                    master=int(groups.get(b"master", b"0")),
                    fstype=os.fsdecode(kind[0]),
                    source=decode(kind[1]),
                )
            )
        except ValueError:
            continue
    return mounts


def decode(field: bytes) -> str:
    return os.fsdecode(ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field))


def below(path: str, directory: str) -> bool:
    """Whether a path is a directory or lies in it, by components: /a/bc is not below /a/b, and nothing is below ""."""
    return path == directory or (directory != "" and path.startswith(directory.rstrip("/") + "/"))


def covering(mounts: Iterable[Mount], path: str) -> Mount | None:
    """The mount that a path lies on: the deepest mount point above it, the last mounted if several."""
    best: Mount | None = None
    for mount in mounts:
        if below(path, mount.point) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def place(mounts: Sequence[Mount], path: str) -> tuple[str, str] | None:
    """Where a path of the host lies on its file system: (major:minor, path from that file system's root)."""
    mount = covering(mounts, path)
    if mount is None:
        return None
    rest = path[len(mount.point.rstrip("/")) :]
    return mount.majmin, (mount.root.rstrip("/") + rest).rstrip("/") or "/"


def host_path(mounts: Sequence[Mount], majmin: str, root: str, avoid: str = "") -> str | None:
    """The inverse of place(): a path of the host at which a piece of a file system is to be seen, or None.

    Mounts at or below `avoid` do not count: asked for the source of a bind mount, the mount itself is no answer.
    Nor does a path on which something else is mounted. The shallowest wins: that is where an administrator knows it.
    """
    best: str | None = None
    for mount in mounts:
        if mount.majmin != majmin or not below(root, mount.root) or (avoid and below(mount.point, avoid)):
            continue
        path = (mount.point.rstrip("/") + root[len(mount.root.rstrip("/")) :].rstrip("/")) or "/"
        if (best is None or len(path) < len(best)) and place(mounts, path) == (majmin, root.rstrip("/") or "/"):
            best = path
    return best


def served(fstype: str) -> bool:
    """Whether another process or machine serves such a file system, and may never answer."""
    return fstype in REMOTE or fstype.startswith("fuse")
