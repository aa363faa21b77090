"""Loop devices that have a file behind them. They are the machine's: no namespace keeps them apart."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from leftovers.errors import Unreadable
from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Identity, Listing, Object, Verb
from leftovers.syscalls import LOOP_CLR_FD

__all__ = ["LoopDevices"]

LOOP_GET_STATUS64 = 0x4C05  # linux/loop.h; the answer begins with the file's device and inode
LOOP_INFO64 = 232
BLKGETDISKSEQ = 0x80081280  # _IOR(0x12, 128, __u64), linux/fs.h, since 5.15
DELETED = " (deleted)"


class LoopDevices(Kind):
    """One object for each /sys/block/loopN that has a backing file."""

    name = "loop"
    title = "loop devices"

    def survey(self, look: Look) -> Listing:
        """Key "loopN"; facts device, backing_file, deleted, here, autoclear, offset, majmin, holders.

        Identity ("loopN", diskseq): the kernel counts every attaching and detaching there (since 5.15); before,
        ("loopN", backing file, offset). No device with autoclear is opened: its last close detaches it.

        backing_file is the path as seen from our own root. The kernel cannot show one of more than a page, and
        shows a file in a mount namespace or tree that we do not reach by its path there: it says what the file was
        called. `here` says that the path leads to that very file for us too; without it the device may be that of a
        container which calls a file of its own so.
        """
        objects, faults = [], []
        for name in look.host.listdir("/sys/block"):
            if not name.startswith("loop"):
                continue
            try:
                object = device(look.host, name)
            except (OSError, Unreadable) as error:
                faults.append(f"loop device {name}: {getattr(error, 'strerror', None) or error}")
            else:
                objects += [object] if object else []
        return Listing(tuple(objects), tuple(faults))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        """Detach. One that is in use only gets autoclear and goes with its last user (loop(4), LOOP_CLR_FD)."""
        causes: dict[str, str] = {}
        for object in objects:
            try:
                detach(host, object)
            except OSError as error:
                causes[object.id] = explained(host, object, error)
        return causes


def device(host: Host, name: str) -> Object | None:
    """A loop device from sysfs; None when no file is behind it. Raises OSError, Unreadable."""
    base = f"/sys/block/{name}"
    try:
        shown = host.read(f"{base}/loop/backing_file").removesuffix("\n")
        offset = int(attribute(host, f"{base}/loop/offset") or 0)
        autoclear = attribute(host, f"{base}/loop/autoclear") == "1"
    except OSError as error:
        # ENOENT: the directory "loop" is there while a file is. ENXIO, EINVAL: detached as we read.
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENXIO, errno.EINVAL, errno.ENODEV):
            return None
        raise
    # A file may really be called "x (deleted)"; the kernel adds the same to the path of an unlinked one (d_path).
    deleted = shown.endswith(DELETED) and not host.exists(shown)
    facts: dict[str, Any] = {
        "device": f"/dev/{name}",
        "backing_file": shown.removesuffix(DELETED) if deleted else shown,
        "deleted": deleted,
        "here": False,
        "autoclear": autoclear,
        "offset": offset,
        "majmin": attribute(host, f"{base}/dev"),
        "holders": holders(host, name),
    }
    facts["here"] = not (deleted or autoclear) and leads_here(host, facts)
    return Object("loop", name, identity(host, name, shown, offset), facts)


def leads_here(host: Host, facts: Mapping[str, Any]) -> bool:
    """Whether the backing file's path leads to that file in our own mount namespace, by device and inode."""
    path = host.path(facts["device"])
    try:
        if not is_node(os.lstat(path), facts["majmin"]):
            return False
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            if not is_node(os.fstat(fd), facts["majmin"]):
                return False
            device, inode = struct.unpack_from("=QQ", fcntl.ioctl(fd, LOOP_GET_STATUS64, bytes(LOOP_INFO64)))
        finally:
            os.close(fd)
        info = os.stat(host.path(facts["backing_file"]), follow_symlinks=False)
    except OSError:
        return False
    # linux/kdev_t.h, new_encode_dev
    number = os.minor(info.st_dev) & 0xFF | os.major(info.st_dev) << 8 | (os.minor(info.st_dev) & ~0xFF) << 12
    return (device, inode) == (number, info.st_ino)


def identity(host: Host, name: str, backing_file: str, offset: int) -> Identity:
    """What tells this attachment from the next one of the same device."""
    diskseq = attribute(host, f"/sys/block/{name}/diskseq")
    return (name, int(diskseq)) if diskseq else (name, backing_file, offset)


def attribute(host: Host, path: str) -> str:
    """A one-line file of sysfs; "" when this kernel does not have it. Raises OSError."""
    try:
        return host.read(path).strip()
    except FileNotFoundError:
        return ""


def holders(host: Host, name: str) -> list[str]:
    """The block devices (dm-0, md1) that stand on a loop device or on a partition of it."""
    names = host.listdir(f"/sys/block/{name}/holders")
    for part in host.listdir(f"/sys/block/{name}"):
        if part.startswith(f"{name}p"):
            names += host.listdir(f"/sys/block/{name}/{part}/holders")
    return sorted(set(names))


def detach(host: Host, object: Object) -> None:
    """Detach the file that was listed, and no other. Raises OSError."""
    try:
        fd = open_node(host.path(str(object.facts["device"])), object)
    except OSError:
        if identity_now(host, object) != object.identity:
            return  # detached meanwhile, and on some kernels the whole device is gone with it
        raise
    try:
        # While we hold it open nobody else's losetup can take the device over: a clear of a device that is
        # open elsewhere only marks it. So what is read now is what is detached.
        if identity_open(host, fd, object) == object.identity:
            fcntl.ioctl(fd, LOOP_CLR_FD)
    except OSError as error:
        if error.errno != errno.ENXIO:  # nothing is attached any more
            raise
    finally:
        os.close(fd)


def open_node(path: str, object: Object) -> int:
    """Open the node of a device, and no other: to open one of another number could make the kernel make that device.

    Raises OSError.
    """
    if is_node(os.lstat(path), object.facts["majmin"]):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        if is_node(os.fstat(fd), object.facts["majmin"]):
            return fd
        os.close(fd)
    raise OSError(errno.ENXIO, "is not the node of this device", path)


def is_node(info: os.stat_result, majmin: str) -> bool:
    """Whether what was looked at is the block device of that number."""
    return stat.S_ISBLK(info.st_mode) and majmin == f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"


def identity_open(host: Host, fd: int, object: Object) -> Identity:
    """The identity of a device that we hold open. Raises OSError."""
    name = str(object.identity[0])
    if len(object.identity) == 2:
        try:
            answer = fcntl.ioctl(fd, BLKGETDISKSEQ, bytes(8))
            return (name, int(struct.unpack("=Q", answer)[0]))
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EINVAL):
                raise
    return identity_now(host, object)


def identity_now(host: Host, object: Object) -> Identity:
    """The identity in sysfs; empty when nothing is attached. Raises OSError."""
    now = device(host, str(object.identity[0]))
    return now.identity if now else ()


def explained(host: Host, object: Object, error: OSError) -> str:
    """The cause of a failure, with the node's name where that is what is wrong."""
    path = str(object.facts["device"])
    if error.errno == errno.ENOENT:
        major, minor = str(object.facts["majmin"]).split(":")
        return f"{path}: no such device node here (mknod {path} b {major} {minor}; losetup -d {path})"
    return f"{path}: {error.strerror or error}"
