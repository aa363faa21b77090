"""IP addresses that stand on a link of the host's besides its own: listed over rtnetlink, removed many at once."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_interface
from typing import Any, ClassVar

from leftovers import netlink
from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.kinds.rules import FAMILIES, has_ipv6
from leftovers.model import Deadline, Listing, Object, Verb

__all__ = ["Addresses"]

DELADDR, GETADDR = 21, 22
HEAD = struct.Struct("=BBBBI")  # linux/if_addr.h, struct ifaddrmsg: family, prefixlen, flags, scope, index
ADDRESS, LOCAL, LABEL = 1, 2, 3
SECONDARY = 1
SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}


class Addresses(Kind):
    """Those that have a label of their own ("eth0:1", ip-address(8); IPv4 only), and all that stand on the links that
    the scope names, for links that outlive their product. The others go with their link.

    Facts: family (ip, ip6), dev, index (of the link), address, prefixlen, peer (the other end's address, "" if none),
    label, scope (global, link, host), secondary. Keys "DEV ADDRESS/PREFIXLEN".
    """

    name: ClassVar[str] = "address"
    title: ClassVar[str] = "addresses"

    def survey(self, look: Look) -> Listing:
        objects: list[Object] = []
        faults = []
        for family in FAMILIES:
            try:
                found = listed(look.host, family)
            except OSError as error:
                faults.append(f"addresses of {family}: {error.strerror or error}")
                continue
            objects += (
                obj
                for obj in found
                if obj.facts["label"] not in ("", obj.facts["dev"])
                or any(fnmatchcase(str(obj.facts["dev"]), name) for name in look.scope.addresses)
            )
        return Listing(tuple(objects), tuple(faults))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        causes: dict[str, str] = {}
        for family in FAMILIES:
            asked = {obj.id: obj for obj in objects if obj.facts["family"] == family}
            if not asked:
                continue
            try:
                present = listed(host, family)
                going = [obj for obj in present if obj.id in asked and obj.identity == asked[obj.id].identity]
                for obj in list(going):
                    others = secondaries(host, obj, [other for other in present if other.id not in asked])
                    if others:
                        causes[obj.id] = f"{others[0]} is secondary to it and would go with it"
                        going.remove(obj)
                said = netlink.send(netlink.ROUTE, [netlink.Request(DELADDR, request(obj)) for obj in going])
            except OSError as error:
                causes.update({id: error.strerror or str(error) for id in asked})
                continue
            for obj, code in zip(going, said, strict=True):
                if code not in (0, errno.EADDRNOTAVAIL, errno.ENODEV):
                    causes[obj.id] = os.strerror(code)
        return causes


def listed(host: Host, family: str) -> list[Object]:
    """Every address of the host's. Raises OSError."""
    if family == "ip6" and not has_ipv6(host):
        return []
    number = FAMILIES[family]
    names = dict(socket.if_nameindex())
    objects = {}
    for body in netlink.dump(netlink.ROUTE, netlink.Request(GETADDR, HEAD.pack(number, 0, 0, 0, 0))):
        if len(body) < HEAD.size or body[0] != number:
            continue
        _, length, flags, scope, index = HEAD.unpack_from(body)
        found = netlink.attributes(body, HEAD.size)
        own = found.get(LOCAL, found.get(ADDRESS, b""))
        if len(own) != (4 if number == socket.AF_INET else 16) or index not in names:
            continue
        facts: dict[str, Any] = {
            "family": family,
            "dev": names[index],
            "index": index,
            "address": socket.inet_ntop(number, own),
            "prefixlen": length,
            "peer": socket.inet_ntop(number, found[ADDRESS]) if found.get(ADDRESS, own) != own else "",
            "label": netlink.text(found, LABEL),
            "scope": SCOPES.get(scope, str(scope)),
            "secondary": family == "ip" and bool(flags & SECONDARY),
        }
        key = f"{facts['dev']} {facts['address']}/{length}" + (f" peer {facts['peer']}" if facts["peer"] else "")
        objects[key] = Object("address", key, (index, key, str(facts["label"])), facts)
    return list(objects.values())


def secondaries(host: Host, obj: Object, staying: Sequence[Object]) -> list[str]:
    """Addresses that the kernel would take along: those of the same subnet that came later, unless the link has them
    promoted (Documentation/networking/ip-sysctl.rst, promote_secondaries)."""
    if obj.facts["family"] != "ip" or obj.facts["secondary"]:
        return []
    for name in ("all", str(obj.facts["dev"])):
        try:
            if host.read(f"/proc/sys/net/ipv4/conf/{name}/promote_secondaries", 16).strip() != "0":
                return []
        except OSError:
            continue
    return [
        f"{other.facts['address']}/{other.facts['prefixlen']}"
        for other in staying
        if other.facts["index"] == obj.facts["index"] and other.facts["secondary"] and network(other) == network(obj)
    ]


def network(obj: Object) -> object:
    """The subnet that an address stands in; of one with a peer, the peer's."""
    return ip_interface(f"{obj.facts['peer'] or obj.facts['address']}/{obj.facts['prefixlen']}").network


def request(obj: Object) -> bytes:
    """What the kernel compares: the link, the address, its peer and prefix, and the label (inet_rtm_deladdr)."""
    facts = obj.facts
    number = FAMILIES[facts["family"]]
    own = socket.inet_pton(number, facts["address"])
    peer = socket.inet_pton(number, facts["peer"]) if facts["peer"] else own
    body = HEAD.pack(number, facts["prefixlen"], 0, 0, facts["index"])
    body += netlink.attribute(LOCAL, own) + netlink.attribute(ADDRESS, peer)
    return body + (netlink.attribute(LABEL, os.fsencode(facts["label"]) + b"\0") if facts["label"] else b"")
