"""Sets of addresses for iptables (ipset(8)): listed by their heads, destroyed many at once, over nfnetlink.

The members are never read: a set may have a million. No tool is needed, and `ipset list -t` would tell no more.
The messages are those of linux/netfilter/ipset/ip_set.h.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from leftovers import netlink
from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb

__all__ = ["IpSets", "described"]

SUBSYSTEM = 6 << 8  # NFNL_SUBSYS_IPSET
DESTROY, LIST = 3, 7
PROTOCOL, SETNAME, TYPENAME, REVISION, FAMILY, FLAGS, DATA = 1, 2, 3, 4, 5, 6, 7
FLAG_LIST_HEADER = 1 << 2
# In the head of a set, in DATA (enum IPSET_ATTR_*, "create-only specific attributes").
TIMEOUT, HASHSIZE, MAXELEM, ELEMENTS, REFERENCES, MEMSIZE = 6, 18, 19, 24, 25, 26
# What changes while it is the same set.
CHANGING = frozenset((HASHSIZE, ELEMENTS, REFERENCES, MEMSIZE))
VERSION = netlink.attribute(PROTOCOL, b"\x06")  # kernels that know 7 still take 6
FAMILIES = {2: "inet", 10: "inet6"}
BUSY = 4100  # IPSET_ERR_BUSY, of the error numbers that ipset has for itself (from 4096)


class IpSets(Kind):
    """Key NAME; facts name, type (hash:ip, ...), family (inet, inet6, or ""), references (of rules and of other
    sets), size (how many members), timeout, maxelem (0 where its type has none).

    Identity: what of its head never changes. Of a hash that includes its seed, which is random (IPSET_ATTR_INITVAL,
    Linux 5.12 and an `ipset` that asks for it); where there is none, a set that was made anew with the same head
    cannot be told from the old one.
    """

    name: ClassVar[str] = "ipset"
    title: ClassVar[str] = "IP sets"

    def survey(self, look: Look) -> Listing:
        if not in_kernel(look.host):
            return Listing()
        try:
            return Listing(tuple(described(heads())))
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                return Listing()  # not in this kernel (net/netfilter/nfnetlink.c: no such subsystem)
            return Listing(faults=(f"IP sets: {error.strerror or error}",))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        """Sets of sets first: they hold the others. The kernel destroys by name only, so what has the name is looked
        at once more."""
        try:
            present = {obj.id: obj.identity for obj in described(heads())}
            order = [obj for obj in objects if present.get(obj.id) == obj.identity]
            order.sort(key=lambda obj: not str(obj.facts["type"]).startswith("list:"))
            said = netlink.send(netlink.NETFILTER, [destroy(str(obj.facts["name"])) for obj in order])
        except OSError as error:
            return {obj.id: error.strerror or str(error) for obj in objects}
        return {obj.id: cause(code) for obj, code in zip(order, said, strict=True) if code not in (0, errno.ENOENT)}


def heads() -> list[bytes]:
    """What the kernel says of all sets, without their members. Raises OSError."""
    body = netlink.NFNETLINK.pack(0, 0, 0) + VERSION + netlink.attribute(FLAGS, FLAG_LIST_HEADER.to_bytes(4, "big"))
    return netlink.dump(netlink.NETFILTER, netlink.Request(SUBSYSTEM | LIST, body))


def destroy(name: str) -> netlink.Request:
    body = netlink.NFNETLINK.pack(0, 0, 0) + VERSION + netlink.attribute(SETNAME, os.fsencode(name) + b"\0")
    return netlink.Request(SUBSYSTEM | DESTROY, body)


def cause(code: int) -> str:
    if code == BUSY:
        return "in use: a rule, or another set, refers to it"
    return os.strerror(code) if code < 4096 else f"ipset's error {code}"


def in_kernel(host: Host) -> bool:
    """Whether the running kernel has ip_set: to ask an absent one would load it (net/netfilter/nfnetlink.c). It has a
    parameter, max_sets, so it is in /sys/module when it is built in, too; but a container may have no /sys/module. A
    kernel without modules (no /proc/modules) loads none."""
    if host.exists("/sys/module/ip_set") or not host.exists("/proc/modules"):
        return True
    try:
        return any(line.startswith("ip_set ") for line in host.read("/proc/modules").split("\n"))
    except OSError:
        return False


def described(said: Sequence[bytes]) -> Iterator[Object]:
    """The sets in what IPSET_CMD_LIST answered. A large set's head comes once, though its members come in parts."""
    seen = set()
    for body in said:
        found = netlink.attributes(body, netlink.NFNETLINK.size)
        name = netlink.text(found, SETNAME)
        if not name or name in seen:
            continue
        seen.add(name)
        head = netlink.attributes(found.get(DATA, b""))
        family = int.from_bytes(found.get(FAMILY, b""), "big")
        facts = {
            "name": name,
            "type": netlink.text(found, TYPENAME),
            "family": FAMILIES.get(family, ""),
            "references": int.from_bytes(head.get(REFERENCES, b""), "big"),
            "size": int.from_bytes(head.get(ELEMENTS, b""), "big"),
            "timeout": int.from_bytes(head.get(TIMEOUT, b""), "big"),
            "maxelem": int.from_bytes(head.get(MAXELEM, b""), "big"),
        }
        revision = int.from_bytes(found.get(REVISION, b""), "big")
        fixed = " ".join(f"{type}={value.hex()}" for type, value in sorted(head.items()) if type not in CHANGING)
        yield Object("ipset", name, (name, str(facts["type"]), family, revision, fixed), facts)
