"""Programs of BPF that are attached to links and to the root cgroup, as the kernel tells them; and how those are taken
off that hang there by themselves. One that hangs on a bpf_link ends with the last name of that (kinds/bpf.py).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from leftovers import netlink, syscalls
from leftovers.model import Object

__all__ = ["attached", "detach"]

# linux/bpf.h, enum bpf_attach_type: of a cgroup; and of a link (tcx, Linux 6.6).
CGROUP = {
    0: "cgroup_inet_ingress",
    1: "cgroup_inet_egress",
    2: "cgroup_inet_sock_create",
    3: "cgroup_sock_ops",
    6: "cgroup_device",
    8: "cgroup_inet4_bind",
    9: "cgroup_inet6_bind",
    10: "cgroup_inet4_connect",
    11: "cgroup_inet6_connect",
    12: "cgroup_inet4_post_bind",
    13: "cgroup_inet6_post_bind",
    14: "cgroup_udp4_sendmsg",
    15: "cgroup_udp6_sendmsg",
    18: "cgroup_sysctl",
    19: "cgroup_udp4_recvmsg",
    20: "cgroup_udp6_recvmsg",
    21: "cgroup_getsockopt",
    22: "cgroup_setsockopt",
    29: "cgroup_inet4_getpeername",
    30: "cgroup_inet6_getpeername",
    31: "cgroup_inet4_getsockname",
    32: "cgroup_inet6_getsockname",
    34: "cgroup_inet_sock_release",
}
TCX = {46: "tcx/ingress", 47: "tcx/egress"}
# linux/rtnetlink.h: struct tcmsg (family, ifindex, handle, parent, info), linux/pkt_sched.h, linux/pkt_cls.h
GETLINK, GETQDISC, DELFILTER, GETFILTER = 18, 38, 45, 46
LINK, TC = struct.Struct("=BBHiII"), struct.Struct("=B3xiIII")
KIND, OPTIONS, BPF_ID = 1, 2, 11
IFNAME, XDP = 3, 43
# IFLA_XDP_*_PROG_ID, with the word of ip-link(8) for it: `xdp off` only ends the mode that the driver has by default.
MODES = {5: "xdpdrv", 6: "xdpgeneric", 7: "xdpoffload"}
CLSACT = 0xFFFF0000
PARENTS = {0xFFFFFFF2: "clsact/ingress", 0xFFFFFFF3: "clsact/egress"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program is attached: in words ("tc eth0 clsact/ingress", "xdpdrv eth0", "cgroup /sys/fs/cgroup TYPE"),
    and in numbers, as far as it can be taken off there."""

    at: str
    id: int
    dev: str = ""
    cgroup: str = ""
    type: int = -1
    filter: tuple[int, ...] = ()


def attached(patterns: Sequence[str], cgroup: str) -> Iterator[Object]:
    """Attached programs with such names. Raises OSError."""
    known: dict[int, tuple[str, list[int]]] = {}
    count: dict[str, int] = {}
    for place in (*at_links(), *(at_cgroup(cgroup) if cgroup else ())):
        if place.id not in known:
            known[place.id] = told(place.id)
        name, maps = known[place.id]
        if not name or not any(fnmatchcase(name, pattern) for pattern in patterns):
            continue
        key = f"{place.at} {name}"
        count[key] = number = count.get(key, 0) + 1
        facts: dict[str, Any] = {"path": "", "name": name, "what": "attachment", "id": place.id, "map_type": 0}
        facts.update(mount="", attach=place.at, dev=place.dev, maps=maps, cgroup=place.cgroup)
        facts.update(type=place.type, filter=list(place.filter))
        key = f"{key} #{number}" if number > 1 else key
        yield Object("bpf", key, (place.at, name, place.id, *place.filter), facts)


def told(id: int) -> tuple[str, list[int]]:
    """A program's name, which the kernel cuts at 15 characters, and the ids of the maps that it uses."""
    try:
        fd = syscalls.bpf_prog_by_id(id)
    except OSError:
        return "", []  # gone as we looked
    try:
        return syscalls.bpf_prog_info(fd)
    except OSError:
        return "", []
    finally:
        os.close(fd)


def at_cgroup(point: str) -> Iterator[Place]:
    fd = os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for type, name in CGROUP.items():
            for id in queried(fd, type):
                yield Place(f"cgroup {point} {name}", id, cgroup=point, type=type)
    finally:
        os.close(fd)


def queried(target: int, type: int) -> list[int]:
    """The ids of what is attached; none where the kernel knows no such place, or does not tell us (seccomp, lockdown, a
    container)."""
    try:
        return syscalls.bpf_prog_query(target, type)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENODEV):
            return []
        raise


def at_links() -> Iterator[Place]:
    names: dict[int, str] = {}
    for body in netlink.dump(netlink.ROUTE, netlink.Request(GETLINK, LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0, 0))):
        index = LINK.unpack_from(body)[3]
        found = netlink.attributes(body, LINK.size)
        names[index] = name = netlink.text(found, IFNAME)
        xdp = netlink.attributes(found.get(XDP, b""))
        for which, mode in MODES.items():
            if id := netlink.number(xdp, which):
                yield Place(f"{mode} {name}", id, name)
    for index, name in names.items():
        for type, where in TCX.items():
            for id in queried(index, type):
                yield Place(f"tc {name} {where}", id, name)
    for body in netlink.dump(netlink.ROUTE, netlink.Request(GETQDISC, TC.pack(0, 0, 0, 0, 0))):
        _, index, handle, _, _ = TC.unpack_from(body)
        if handle == CLSACT and index in names:
            yield from filters(index, names[index])


def filters(index: int, name: str) -> Iterator[Place]:
    """The programs in filters of a link's clsact."""
    for parent, where in PARENTS.items():
        for body in netlink.dump(netlink.ROUTE, netlink.Request(GETFILTER, TC.pack(0, index, 0, parent, 0))):
            _, _, handle, of, info = TC.unpack_from(body)
            found = netlink.attributes(body, TC.size)
            id = netlink.number(netlink.attributes(found.get(OPTIONS, b"")), BPF_ID)
            if netlink.text(found, KIND) == "bpf" and id and of == parent:
                yield Place(f"tc {name} {where} pref {info >> 16}", id, name, filter=(index, handle, parent, info))


def detach(obj: Object) -> str:
    """Take a program off from where it hangs by itself. Returns the cause of a failure, or ""."""
    ways: tuple[tuple[bool, Callable[[Object], None]], ...] = (
        (bool(obj.facts["cgroup"]), from_cgroup),
        (bool(obj.facts["filter"]), from_link),
    )
    way = next((way for fits, way in ways if fits), None)
    if way is None:
        return "is not taken off a link on which others may have put it since"
    try:
        way(obj)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            return error.strerror or str(error)
    return ""


def from_cgroup(obj: Object) -> None:
    """If it is still there. Where a cgroup takes one program only, the kernel removes that, whichever it is by then, so
    it is asked just before. One that hangs on a bpf_link is not found: no failure, for that ends with its pin."""
    fd = os.open(obj.facts["cgroup"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if obj.facts["id"] in queried(fd, obj.facts["type"]):
            program = syscalls.bpf_prog_by_id(obj.facts["id"])
            try:
                syscalls.bpf_prog_detach(fd, program, obj.facts["type"])
            finally:
                os.close(program)
    finally:
        os.close(fd)


def from_link(obj: Object) -> None:
    """The filter, by all that tells it from others, if it still holds the program. The qdisc stays: it does nothing."""
    index, handle, parent, info = obj.facts["filter"]
    present = [place for place in filters(index, obj.facts["dev"]) if place.filter == (index, handle, parent, info)]
    if not any(place.id == obj.facts["id"] for place in present):
        return
    body = TC.pack(0, index, handle, parent, info) + netlink.attribute(KIND, b"bpf\0")
    (code,) = netlink.send(netlink.ROUTE, [netlink.Request(DELFILTER, body)])
    if code:
        raise OSError(code, os.strerror(code))
