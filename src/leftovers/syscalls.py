"""Thin wrappers of the system calls that Python 3.10 has no name for. Each raises OSError with its path.

Nothing is decided here. Flags are spelled as in the kernel's headers.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

__all__ = [
    "bpf_obj_get",
    "bpf_prog_by_id",
    "bpf_prog_detach",
    "bpf_prog_info",
    "bpf_prog_query",
    "die_with_parent",
    "fanotify_allow",
    "fanotify_init",
    "fanotify_mark",
    "fanotify_read",
    "mount_propagation",
    "openat2",
    "pidfd_getfd",
    "setns",
    "tun_netns",
    "umount2",
]

libc = ctypes.CDLL(None, use_errno=True)

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
SYS_OPENAT2 = 437  # the same number on every architecture: it came after the tables were joined (5.6)
SYS_PIDFD_GETFD = 438  # likewise (5.6)
LOOP_CLR_FD = 0x4C01
TUNGETDEVNETNS = 0x54E3  # include/uapi/linux/if_tun.h
PR_SET_PDEATHSIG = 1
# bpf(2): its number on each architecture (asm/unistd.h; 280 is the generic one), and some of its commands.
SYS_BPF = {"x86_64": 321, "i686": 357, "armv7l": 386, "ppc64le": 361, "s390x": 351}
BPF_OBJ_GET, BPF_PROG_DETACH, BPF_PROG_GET_FD_BY_ID, BPF_OBJ_GET_INFO_BY_FD, BPF_PROG_QUERY = 7, 9, 13, 15, 16
# More programs than one place takes (BPF_CGROUP_MAX_PROGS, BPF_MPROG_MAX), more maps than one program (MAX_USED_MAPS).
PLENTY = 64
# include/uapi/linux/fanotify.h
FAN_CLOEXEC = 0x1
FAN_NONBLOCK = 0x2
FAN_CLASS_CONTENT = 0x4
FAN_MARK_ADD = 0x1
FAN_OPEN_PERM = 0x10000
FAN_OPEN_EXEC_PERM = 0x40000
FAN_ALLOW = 0x1
AT_FDCWD = -100
EVENT = struct.Struct("=IBBHQii")  # event_len, vers, reserved, metadata_len, mask, fd, pid


def oserror(call: str, path: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}", path)


def umount2(path: str, flags: int = 0) -> None:
    """umount2(2). Raises OSError."""
    if libc.umount2(os.fsencode(path), flags) < 0:
        raise oserror("umount2", path)


def mount_propagation(path: str, flags: int) -> None:
    """mount(2) that only changes a mount's propagation: flags such as MS_PRIVATE | MS_REC. Raises OSError."""
    if libc.mount(None, os.fsencode(path), None, ctypes.c_ulong(flags), None) < 0:
        raise oserror("mount", path)


def setns(fd: int, nstype: int) -> None:
    """setns(2) for the calling thread. Raises OSError."""
    if libc.setns(fd, nstype) < 0:
        raise oserror("setns", f"fd {fd}")


def die_with_parent(number: int) -> None:
    """prctl(2), PR_SET_PDEATHSIG: get a signal when the thread that forked us ends. Raises OSError."""
    if libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0) < 0:
        raise oserror("prctl", "PR_SET_PDEATHSIG")


def openat2(dirfd: int, path: str, flags: int, resolve: int) -> int:
    """openat2(2), for what open(2) cannot refuse: crossing a mount (RESOLVE_NO_XDEV), following a symlink.

    Returns a file descriptor. Raises OSError; EXDEV says that a mount is in the way, bind mounts included.
    """
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    fd: int = libc.syscall(
        ctypes.c_long(SYS_OPENAT2), ctypes.c_int(dirfd), ctypes.c_char_p(os.fsencode(path)),
        ctypes.c_char_p(how), ctypes.c_size_t(len(how)),
    )  # fmt: skip
    if fd < 0:
        raise oserror("openat2", path)
    return fd


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2): a copy of another process' file descriptor. Raises OSError."""
    copy: int = libc.syscall(
        ctypes.c_long(SYS_PIDFD_GETFD), ctypes.c_int(pidfd), ctypes.c_int(fd), ctypes.c_uint(0)
    )  # fmt: skip
    if copy < 0:
        raise oserror("pidfd_getfd", f"fd {fd}")
    return copy


def tun_netns(fd: int) -> int:
    """A file descriptor of the network namespace of the device that an open /dev/net/tun is for (drivers/net/tun.c,
    TUNGETDEVNETNS, Linux 5.2). Raises OSError."""
    return fcntl.ioctl(fd, TUNGETDEVNETNS)


def bpf(command: int, attributes: ctypes.Array[ctypes.c_char], about: str) -> int:
    """bpf(2); the kernel may write its answer into the attributes. Raises OSError."""
    number = SYS_BPF.get(os.uname().machine, 280)
    said: int = libc.syscall(
        ctypes.c_long(number), ctypes.c_int(command), attributes, ctypes.c_uint(len(attributes))
    )  # fmt: skip
    if said < 0:
        raise oserror("bpf", about)
    return said


def packed(form: str, *values: int | bytes) -> ctypes.Array[ctypes.c_char]:
    data = struct.pack(form, *values)
    return ctypes.create_string_buffer(data, len(data))


def bpf_obj_get(path: str) -> int:
    """bpf(2), BPF_OBJ_GET: what is pinned at a path in a bpffs. Returns a file descriptor. Raises OSError."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    return bpf(BPF_OBJ_GET, packed("=QII", ctypes.addressof(name), 0, 0), path)


def bpf_prog_query(target: int, type: int) -> list[int]:
    """bpf(2), BPF_PROG_QUERY: the ids of the programs attached to a cgroup (its file descriptor) or a link (its index),
    none of which are those above it. Raises OSError."""
    ids = (ctypes.c_uint32 * PLENTY)()
    # Whole: newer kernels write at the end of it (query.revision), however much was handed over.
    attributes = packed("=IIIIQIIQQQQ", target, type, 0, 0, ctypes.addressof(ids), PLENTY, 0, 0, 0, 0, 0)
    bpf(BPF_PROG_QUERY, attributes, f"attach type {type}")
    count: int = struct.unpack_from("=I", attributes.raw, 24)[0]
    return list(ids[:count])


def bpf_prog_by_id(id: int) -> int:
    """bpf(2), BPF_PROG_GET_FD_BY_ID. Returns a file descriptor. Raises OSError."""
    return bpf(BPF_PROG_GET_FD_BY_ID, packed("=III", id, 0, 0), f"program {id}")


def bpf_prog_info(fd: int) -> tuple[str, list[int]]:
    """bpf(2), BPF_OBJ_GET_INFO_BY_FD of a program (struct bpf_prog_info): its name, the ids of its maps. Raises
    OSError."""
    ids = (ctypes.c_uint32 * PLENTY)()
    info = packed("=52xIQ16s", PLENTY, ctypes.addressof(ids), b"")
    bpf(BPF_OBJ_GET_INFO_BY_FD, packed("=IIQ", fd, len(info), ctypes.addressof(info)), f"fd {fd}")
    count, _, name = struct.unpack("=52xIQ16s", info.raw)
    return name.partition(b"\0")[0].decode(errors="replace"), list(ids[:count])


def bpf_prog_detach(target: int, program: int, type: int) -> None:
    """bpf(2), BPF_PROG_DETACH: take a program off a cgroup, both by their file descriptors. Raises OSError; ENOENT if
    it does not hang there by itself."""
    bpf(BPF_PROG_DETACH, packed("=IIII", target, program, type, 0), f"attach type {type}")


def fanotify_init() -> int:
    """fanotify_init(2) for permission events. Returns a file descriptor that does not block. Raises OSError."""
    flags = FAN_CLASS_CONTENT | FAN_CLOEXEC | FAN_NONBLOCK
    fd: int = libc.fanotify_init(ctypes.c_uint(flags), ctypes.c_uint(os.O_RDONLY | os.O_LARGEFILE | os.O_CLOEXEC))
    if fd < 0:
        raise oserror("fanotify_init", "fanotify")
    return fd


def fanotify_mark(fd: int, path: str, mask: int) -> None:
    """fanotify_mark(2): whoever opens this file waits for an answer (FAN_OPEN_PERM), or only who executes it
    (FAN_OPEN_EXEC_PERM, Linux 5.0). Raises OSError."""
    flags = ctypes.c_uint(FAN_MARK_ADD)
    if (
        libc.fanotify_mark(ctypes.c_int(fd), flags, ctypes.c_uint64(mask), ctypes.c_int(AT_FDCWD), os.fsencode(path))
        < 0
    ):
        raise oserror("fanotify_mark", path)


def fanotify_read(fd: int) -> list[tuple[int, int]]:
    """The events that wait: a descriptor of the file, which is the caller's to answer for and to close, and the pid of
    who opens it. Raises OSError; BlockingIOError when there are none."""
    data = os.read(fd, 64 * EVENT.size)
    events = []
    at = 0
    while at + EVENT.size <= len(data):
        length, _, _, _, _, file, pid = EVENT.unpack_from(data, at)
        if file >= 0:
            events.append((file, pid))
        at += max(length, EVENT.size)
    return events


def fanotify_allow(fd: int, file: int) -> None:
    """Let the one who waits go on. Raises OSError."""
    os.write(fd, struct.pack("=iI", file, FAN_ALLOW))
