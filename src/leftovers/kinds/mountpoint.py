"""One mount, by the place where it was listed, and no other one.

umount2(2) and mount(2) take a path, and a path leads elsewhere when a directory in it was renamed and a symlink put in
its place; UMOUNT_NOFOLLOW is about the last name only. So the directory that the mount point is in is opened without
following any symlink, what is mounted in it there is compared by its number, and the path that the kernel gets then is
"self/fd/N/NAME" below /proc: from the open directory on.

`proc` is always the host's /proc, open; it is to be the working directory too (the calling process has entered another
mount namespace, where none may be). No file of the mount's own is asked, and for a mount that a server serves not even
its root is looked up: nfs(5) and 9p ask the server when a path ends there (fs/namei.c, complete_walk()), where umount2
does not (LOOKUP_MOUNTPOINT).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from leftovers import mountinfo, syscalls
from leftovers.mountinfo import Mount

__all__ = ["Elsewhere", "make_private", "unmount"]

MNT_ID = re.compile(rb"^mnt_id:\s*(\d+)$", re.MULTILINE)


class Elsewhere(OSError):
    """The mount is there, but its path does not lead to it. strerror says why."""

    def __init__(self, mount: Mount, why: str) -> None:
        super().__init__(errno.ESTALE, why, mount.point)


def unmount(proc: int, mount: Mount, flags: int = 0, quiet: bool = False) -> None:
    """umount2(2); nothing, when the mount is not there any more. Raises OSError, Elsewhere.

    `quiet`: its server is known not to answer, whatever its type says.
    """
    try:
        with place(mount) as (directory, name):
            if quiet or mountinfo.served(mount.fstype):
                is_listed(proc, mount, directory, name)
            else:
                with exactly(proc, mount, directory, name):
                    pass  # held open, it would be in use
            syscalls.umount2(f"self/fd/{directory}/{name}", flags | syscalls.UMOUNT_NOFOLLOW)
    except Elsewhere:
        if standing(proc, mount):
            raise


def make_private(proc: int, mount: Mount) -> None:
    """Take one mount out of its peer group. Raises OSError, Elsewhere also when something is mounted over its root,
    since the path would then lead to that."""
    with place(mount) as (directory, name), exactly(proc, mount, directory, name) as root:
        syscalls.mount_propagation(f"self/fd/{root}", syscalls.MS_PRIVATE)


@contextmanager
def place(mount: Mount) -> Iterator[tuple[int, str]]:
    """The directory that a mount point is in, open, and its name in there. Raises Elsewhere."""
    parent, _, name = mount.point.rpartition("/")
    if not name:
        raise Elsewhere(mount, "it is the root of all")
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        directory = syscalls.openat2(syscalls.AT_FDCWD, parent or "/", flags, syscalls.RESOLVE_NO_SYMLINKS)
    except OSError as error:
        raise Elsewhere(mount, f"its path cannot be followed: {error.strerror}") from error
    try:
        yield directory, name
    finally:
        os.close(directory)


@contextmanager
def exactly(proc: int, mount: Mount, directory: int, name: str) -> Iterator[int]:
    """The root of a mount, open as a path only: neither read nor asked. Raises Elsewhere."""
    flags = os.O_PATH | os.O_NOFOLLOW
    try:
        root = syscalls.openat2(directory, name, flags, syscalls.RESOLVE_NO_SYMLINKS)
    except OSError as error:
        raise Elsewhere(mount, f"its path cannot be followed: {error.strerror}") from error
    try:
        if mount_of(proc, root) != mount.id:
            raise Elsewhere(mount, "its path leads to something else by now")
        yield root
    finally:
        os.close(root)


def is_listed(proc: int, mount: Mount, directory: int, name: str) -> None:
    """The same by what the kernel tells of it now, without touching the mount: it stands on this directory's mount,
    at this directory's name, and has nothing over it. Slower with many mounts. Raises Elsewhere."""
    table = listed(proc)
    now = lowest = table.get(mount.id, mount)
    # Of several on one point, each stands on the root of the one before.
    while (under := table.get(lowest.parent)) and under.point == now.point and under is not lowest:
        lowest = under
    path = f"{os.readlink(f'self/fd/{directory}', dir_fd=proc).rstrip('/')}/{name}"
    over = any(other.parent == now.id and other.point == now.point for other in table.values())
    if mount.id not in table or over or path != now.point or mount_of(proc, directory) != lowest.parent:
        raise Elsewhere(mount, "its path leads to something else by now")


def standing(proc: int, mount: Mount) -> bool:
    """Whether it is mounted still, wherever that is."""
    now = listed(proc).get(mount.id)
    return now is not None and (now.majmin, now.root) == (mount.majmin, mount.root)


def listed(proc: int) -> dict[int, Mount]:
    """What is mounted in the namespace that we are in, by number. Raises OSError."""
    with open(os.open("self/mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc), "rb") as told:
        return {mount.id: mount for mount in mountinfo.parse(told.read())}


def mount_of(proc: int, fd: int) -> int:
    """The number of the mount that an open file is on (proc_pid_fdinfo(5)), 0 if it is not told. Raises OSError."""
    told = os.open(f"self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        match = MNT_ID.search(os.read(told, 4096))
    finally:
        os.close(told)
    return int(match[1]) if match else 0
