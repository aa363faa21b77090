"""Small real programs of BPF, and the places where a network plugin attaches such: a cgroup, tc, tcx, XDP."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

from sandbox import sh

from leftovers import syscalls

MAP_CREATE, PROG_LOAD, OBJ_PIN, PROG_ATTACH, LINK_CREATE = 0, 5, 6, 8, 28
ARRAY, PROG_ARRAY = 2, 3
# Type of the program, expected attach type, what it answers: "go on".
CONNECT4, SCHED, XDP, TCX_INGRESS = (18, 10, 1), (3, 0, -1), (6, 37, 2), (3, 46, -1)
MULTI = 2  # BPF_F_ALLOW_MULTI


def call(command: int, attributes: bytes) -> int:
    number = syscalls.SYS_BPF.get(os.uname().machine, 280)
    got: int = syscalls.libc.syscall(number, command, ctypes.c_char_p(attributes), len(attributes))
    if got < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command}): {os.strerror(ctypes.get_errno())}")
    return got


def make_map(type: int = ARRAY) -> int:
    return call(MAP_CREATE, struct.pack("=IIIII", type, 4, 4, 1, 0))


def make_program(kind: tuple[int, int, int] = XDP, name: str = "cil_x", *, uses: int = -1) -> int:
    """Load one that answers at once; `uses` is a map (its file descriptor) that it has in its text."""
    type, expected, answer = kind
    text = struct.pack("<BBhi", 0xB7, 0, 0, answer) + struct.pack("<BBhi", 0x95, 0, 0, 0)  # r0 = answer; exit
    if uses >= 0:
        text = struct.pack("<BBhi", 0x18, 0x11, 0, uses) + bytes(8) + text  # r1 = the map
    code, license = ctypes.create_string_buffer(text), ctypes.create_string_buffer(b"GPL")
    where = ctypes.addressof(code), ctypes.addressof(license)
    head = (type, len(text) // 8, *where, 0, 0, 0, 0, 0, name.encode(), 0, expected)
    return call(PROG_LOAD, struct.pack("=IIQQIIQII16sII", *head))


def pin(fd: int, path: str | Path) -> None:
    name = ctypes.create_string_buffer(os.fsencode(path))
    call(OBJ_PIN, struct.pack("=QII", ctypes.addressof(name), fd, 0))
    os.close(fd)


def link(program: int, target: int, type: int, flags: int = 0) -> int:
    """Attach by a link of BPF, which holds until the last of its names and descriptors is gone."""
    made = call(LINK_CREATE, struct.pack("=IIII", program, target, type, flags))
    os.close(program)
    return made


def at_cgroup(program: int, path: str, flags: int = 0, type: int = 10) -> None:
    """Attach as it was done before there were links."""
    fd = os.open(path, os.O_RDONLY)
    call(PROG_ATTACH, struct.pack("=IIII", fd, program, type, flags))
    os.close(fd)
    os.close(program)


def at_tc(program: int, dev: str, way: str = "ingress", *words: str) -> None:
    """Attach by a filter, as tc does."""
    path = f"/sys/fs/bpf/for_tc_{program}"
    pin(program, path)
    sh("tc", "qdisc", "replace", "dev", dev, "clsact")
    sh("tc", "filter", "add", "dev", dev, way, *words, "bpf", "da", "object-pinned", path)
    os.unlink(path)


def index(dev: str) -> int:
    return int(Path(f"/sys/class/net/{dev}/ifindex").read_text())
