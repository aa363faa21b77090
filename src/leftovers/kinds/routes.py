"""Routes (ip-route(8)), of IPv4 and IPv6: those that a product asks for, removed many at once over rtnetlink.

A host that speaks BGP may have a hundred thousand. So only what somebody asks for is listed, and the kernel leaves out
the rest where it can (NETLINK_GET_STRICT_CHK).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from leftovers import netlink
from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.kinds.rules import FAMILIES, has_ipv6, prefix
from leftovers.model import Deadline, Listing, Object, Verb

__all__ = ["Routes", "Wanted", "wanted"]

DELROUTE, GETROUTE = 25, 26
# linux/rtnetlink.h: struct rtmsg (family, dst_len, src_len, tos, table, protocol, scope, type, flags)
HEAD = struct.Struct("=BBBBBBBBI")
DST, SRC, OIF, GATEWAY, PRIORITY, MULTIPATH, TABLE, VIA, NH_ID = 1, 2, 4, 5, 6, 9, 15, 18, 30
# Of an IPv6 route, what tells how it was used of late.
USE = frozenset((12, 17))  # RTA_CACHEINFO, RTA_MFC_STATS
CLONED = 0x200  # RTM_F_CLONED: an answer of the cache, and no route
TYPES = {
    1: "unicast",
    2: "local",
    3: "broadcast",
    4: "anycast",
    5: "multicast",
    6: "blackhole",
    7: "unreachable",
    8: "prohibit",
    9: "throw",
    10: "nat",
}
NUMBERS = {name: number for number, name in TYPES.items()}
NEXTHOP = struct.Struct("=HBBi")  # struct rtnexthop: len, flags, hops, ifindex
NONE: Mapping[int, str] = {}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to list; 0 is "any"."""

    protocol: int = 0
    table: int = 0
    type: int = 0

    def takes(self, body: bytes) -> bool:
        """Whether a route, as the kernel tells it, is one of these."""
        _, _, _, _, table, protocol, _, type, flags = HEAD.unpack_from(body)
        if flags & CLONED or (self.protocol and protocol != self.protocol) or (self.type and type != self.type):
            return False
        return not self.table or netlink.number(netlink.attributes(body, HEAD.size), TABLE, table) == self.table


def wanted(text: str) -> Wanted:
    """What a product asks for: "protocol 80", "table 2004", "protocol 12 type blackhole". Raises ValueError."""
    words = text.split()
    said = dict(zip(words[::2], words[1::2], strict=True))
    if not said or set(said) - {"protocol", "table", "type"}:
        raise ValueError(f"{text!r} is no question for routes")
    try:
        return Wanted(
            int(said.get("protocol", 0)), int(said.get("table", 0)), NUMBERS[said["type"]] if "type" in said else 0
        )
    except KeyError as error:
        raise ValueError(f"{text!r}: no type of routes is called {error}") from error


class Routes(Kind):
    """Facts: family (ip, ip6), dst (a prefix; "default"), table, protocol (who made it, a number: linux/rtnetlink.h,
    RTPROT_*), type (unicast, blackhole, ...), dev and gateway (of the first hop, "" if none), hops (all of them, as
    "DEV GATEWAY"; an IPv6 blackhole has lo), metric, tos, src (a prefix, of IPv6).

    Only those are listed that the scope asks for. Keys "FAMILY table N DST metric N"; the identity is all that the
    kernel says of a route: one that was made anew and is the same in everything is the same.
    """

    name: ClassVar[str] = "route"
    title: ClassVar[str] = "routes"

    def survey(self, look: Look) -> Listing:
        objects: list[Object] = []
        faults = []
        asked = [wanted(text) for text in dict.fromkeys(look.scope.routes)]
        for family in FAMILIES if asked else ():
            try:
                objects += (obj for obj, _ in listed(look.host, family, asked))
            except OSError as error:
                faults.append(f"routes of {family}: {error.strerror or error}")
        return Listing(tuple(objects), tuple(faults))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        """What the kernel tells of a route goes back to it whole, as a request to remove it (as `ip route flush`
        does), so nothing is hit that differs in anything."""
        causes: dict[str, str] = {}
        for family in FAMILIES:
            going = {obj.identity: obj for obj in objects if obj.facts["family"] == family}
            if not going:
                continue
            asked = {Wanted(int(obj.facts["protocol"]), int(obj.facts["table"])) for obj in going.values()}
            try:
                found = [
                    (going[obj.identity], body)
                    for obj, body in listed(host, family, sorted(asked, key=lambda each: (each.table, each.protocol)))
                    if obj.identity in going
                ]
                said = netlink.send(netlink.ROUTE, [netlink.Request(DELROUTE, request(body)) for _, body in found])
            except OSError as error:
                causes.update({obj.id: error.strerror or str(error) for obj in going.values()})
                continue
            for (obj, _), code in zip(found, said, strict=True):
                if code not in (0, errno.ESRCH):
                    causes[obj.id] = os.strerror(code)
        return causes


def listed(host: Host, family: str, asked: Sequence[Wanted]) -> Iterator[tuple[Object, bytes]]:
    """The routes that are asked for, and how the kernel tells them. Raises OSError."""
    if family == "ip6" and not has_ipv6(host):
        return
    names: Mapping[int, str] = NONE
    count: dict[str, int] = {}
    seen: set[bytes] = set()
    for one in asked:
        for body in dump(FAMILIES[family], one):
            if len(body) < HEAD.size or body[0] != FAMILIES[family] or not one.takes(body):
                continue
            facts = facts_of(family, body, names)
            if facts["hops"] and names is NONE:
                names = dict(socket.if_nameindex())
                facts = facts_of(family, body, names)
            said = saying(body)
            if said in seen:
                continue  # two questions have it for an answer
            seen.add(said)
            key = f"{family} table {facts['table']} {facts['dst']}"
            key += f" metric {facts['metric']}" if facts["metric"] else ""
            key += f" tos {facts['tos']}" if facts["tos"] else ""
            key += f" from {facts['src']}" if facts["src"] else ""
            count[key] = n = count.get(key, 0) + 1
            yield Object("route", f"{key} #{n}" if n > 1 else key, (family, said.hex()), facts), body


def dump(number: int, one: Wanted) -> list[bytes]:
    """What the kernel answers. Raises OSError."""
    table = one.table if one.table < 256 else 0
    body = HEAD.pack(number, 0, 0, 0, table, one.protocol, 0, one.type, 0)
    if one.table:
        body += netlink.attribute(TABLE, struct.pack("=I", one.table))
    try:
        return netlink.dump(netlink.ROUTE, netlink.Request(GETROUTE, body), strict=True)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
            return []  # no such table, no such family
        raise


def saying(body: bytes) -> bytes:
    """What a route says that does not change while it is the same: without its flags (is a link up) and its use."""
    found = netlink.attributes(body, HEAD.size)
    rest = b"".join(netlink.attribute(type, found[type]) for type in sorted(found) if type not in (*USE, MULTIPATH))
    hops = b"".join(struct.pack("=Bi", weight, index) + rest for index, weight, rest in nexthops(found))
    return body[: HEAD.size - 4] + rest + hops


def nexthops(found: Mapping[int, bytes]) -> Iterator[tuple[int, int, bytes]]:
    """The hops of a route with several: link, weight, attributes."""
    data = found.get(MULTIPATH, b"")
    at = 0
    while at + NEXTHOP.size <= len(data):
        length, _, weight, index = NEXTHOP.unpack_from(data, at)
        if length < NEXTHOP.size:
            return
        yield index, weight, data[at + NEXTHOP.size : at + length]
        at += (length + 3) & ~3


def facts_of(family: str, body: bytes, names: Mapping[int, str]) -> dict[str, Any]:
    _, dst_len, src_len, tos, table, protocol, _, type, _ = HEAD.unpack_from(body)
    found = netlink.attributes(body, HEAD.size)
    several = [(index, netlink.attributes(rest)) for index, _, rest in nexthops(found)]
    if not several and (OIF in found or GATEWAY in found or VIA in found):
        several = [(netlink.number(found, OIF), found)]
    hops = [(names.get(index, str(index)) if index else "", gateway(family, rest)) for index, rest in several]
    return {
        "family": family,
        "dst": prefix(family, found.get(DST), dst_len) or "default",
        "table": netlink.number(found, TABLE, table),
        "protocol": protocol,
        "type": TYPES.get(type, str(type)),
        "dev": hops[0][0] if hops else "",
        "gateway": hops[0][1] if hops else "",
        "hops": [" ".join(filter(None, hop)) for hop in hops],
        "metric": netlink.number(found, PRIORITY),
        "tos": tos,
        "src": prefix(family, found.get(SRC), src_len),
    }


def gateway(family: str, found: Mapping[int, bytes]) -> str:
    """The address of a hop; RTA_VIA holds one of the other family, after its number."""
    if VIA in found:
        number = int.from_bytes(found[VIA][:2], "little" if struct.pack("=H", 1)[0] else "big")
        return address(number, found[VIA][2:])
    return address(FAMILIES[family], found.get(GATEWAY, b""))


def address(number: int, data: bytes) -> str:
    try:
        return socket.inet_ntop(number, data)
    except (OSError, ValueError):
        return ""


def request(body: bytes) -> bytes:
    """A route as it is to be removed. With a nexthop that is an object of its own (ip-nexthop(8)) the kernel tells
    what that says, too, and does not take both."""
    found = netlink.attributes(body, HEAD.size)
    without = {OIF, GATEWAY, VIA, MULTIPATH, *USE} if NH_ID in found else USE
    kept = (netlink.attribute(type, value) for type, value in found.items() if type not in without)
    return body[: HEAD.size] + b"".join(kept)
