"""Routing rules (ip-rule(8)), of IPv4 and IPv6: listed over rtnetlink, removed many at once.

Every host has one that looks up the table "local" before all others, at priority 0; without it nothing that is sent to
an address of the host's own arrives. A network plugin may move it to a later place, to look up tables of its own
first (cilium, bpf/init.sh: from 0 to 100). Who removes the moved one must first put it back.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from leftovers import netlink
from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb

__all__ = ["FAMILIES", "RoutingRules", "has_ipv6", "prefix"]

NEWRULE, DELRULE, GETRULE = 32, 33, 34
# linux/fib_rules.h: struct fib_rule_hdr (family, dst_len, src_len, tos, table, res1, res2, action, flags)
HEAD = struct.Struct("=BBBBBBBBI")
DST, SRC, IIFNAME, PRIORITY, FWMARK, TABLE, FWMASK, OIFNAME, PROTOCOL = 1, 2, 3, 6, 10, 15, 16, 17, 21
SUPPRESS = (13, 14)  # FRA_SUPPRESS_IFGROUP, FRA_SUPPRESS_PREFIXLEN: all ones when they are off
ACTIONS = {1: "lookup", 2: "goto", 3: "nop", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
LOOKUP = 1
LOCAL = 255
INVERT = 2  # FIB_RULE_INVERT ("not"), of the flags
KERNEL = 2  # RTPROT_KERNEL
FAMILIES = {"ip": socket.AF_INET, "ip6": socket.AF_INET6}
# The attributes that the kernel compares when it is asked to remove a rule (net/core/fib_rules.c, rule_find); of those
# it may compare besides, a rule that is told apart by nothing else is not removed.
COMPARED = frozenset((DST, SRC, IIFNAME, FWMARK, 11, 12, *SUPPRESS, FWMASK, OIFNAME, 19, 20, PROTOCOL, 22, 23, 24))
# What every network namespace begins with (net/ipv4/fib_rules.c, net/ipv6/fib6_rules.c): priority and table.
FIRST = frozenset(((0, LOCAL), (32766, 254), (32767, 253)))


@dataclass(frozen=True, eq=False)
class Rule:
    """A rule as the kernel told it: all of its header and attributes, so that it can be handed back as a whole. Two
    that say the same are two."""

    family: str
    body: bytes

    @cached_property
    def head(self) -> tuple[int, ...]:
        return HEAD.unpack_from(self.body)

    @cached_property
    def attributes(self) -> dict[int, bytes]:
        return netlink.attributes(self.body, HEAD.size)

    @cached_property
    def priority(self) -> int:
        return netlink.number(self.attributes, PRIORITY)

    @cached_property
    def table(self) -> int:
        return netlink.number(self.attributes, TABLE, self.head[4])

    def plain(self) -> bool:
        """Whether it says nothing but "look up a table": for all packets."""
        _, dst, src, tos, _, _, _, action, flags = self.head
        if action != LOOKUP or dst or src or tos or flags & INVERT:
            return False
        return all(
            off(type, value) for type, value in self.attributes.items() if type not in (PRIORITY, TABLE, PROTOCOL)
        )


class RoutingRules(Kind):
    """Facts: family (ip, ip6), priority, from, to (prefixes, "all" for every address), tos, iif, oif, fwmark, fwmask,
    not (whether it is inverted), table, suppress (suppress_prefixlength, -1 if none), action (lookup, goto, nop,
    blackhole, unreachable, prohibit), protocol (who made it, a number: linux/rtnetlink.h, RTPROT_*), plain (it looks
    up its table for every packet).

    Keys as `ip rule` prints them: "FAMILY PRIORITY: from ..."; of equal ones the second is "#2". There is nothing
    stronger to know one by, so the identity is all that it says.
    """

    name: ClassVar[str] = "rule"
    title: ClassVar[str] = "routing rules"

    def survey(self, look: Look) -> Listing:
        objects: list[Object] = []
        faults = []
        for family in FAMILIES:
            try:
                objects += (obj for obj, _ in named(listed(look.host, family)))
            except OSError as error:
                faults.append(f"routing rules of {family}: {error.strerror or error}")
        return Listing(tuple(objects), tuple(faults))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        causes: dict[str, str] = {}
        for family in FAMILIES:
            wanted = {obj.id: obj for obj in objects if obj.facts["family"] == family}
            if wanted:
                try:
                    causes.update(remove(host, family, wanted))
                except OSError as error:
                    causes.update({id: error.strerror or str(error) for id in wanted})
        return causes


def has_ipv6(host: Host) -> bool:
    """Whether IPv6 is in the kernel and on: what is not there is not asked for."""
    return host.exists("/proc/net/if_inet6")


def listed(host: Host, family: str) -> list[Rule]:
    """The rules in the kernel's order. Raises OSError."""
    if family == "ip6" and not has_ipv6(host):
        return []
    number = FAMILIES[family]
    try:
        said = netlink.dump(netlink.ROUTE, netlink.Request(GETRULE, HEAD.pack(number, *[0] * 8)))
    except OSError as error:
        if error.errno in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
            return []  # a kernel without them (CONFIG_IP_MULTIPLE_TABLES)
        raise
    return [Rule(family, body) for body in said if len(body) >= HEAD.size and body[0] == number]


def named(rules: Sequence[Rule]) -> Iterator[tuple[Object, Rule]]:
    count: dict[str, int] = {}
    for rule in rules:
        facts = facts_of(rule)
        said = words(facts)
        count[said] = n = count.get(said, 0) + 1
        key = f"{said} #{n}" if n > 1 else said
        rest = sorted(rule.attributes.items())
        identity = (said, rule.head[7], rule.head[8] & INVERT, n, " ".join(f"{k}={v.hex()}" for k, v in rest))
        yield Object("rule", key, identity, facts), rule


def facts_of(rule: Rule) -> dict[str, Any]:
    _, dst_len, src_len, tos, _, _, _, action, flags = rule.head
    found = rule.attributes
    return {
        "family": rule.family,
        "priority": rule.priority,
        "from": prefix(rule.family, found.get(SRC), src_len) or "all",
        "to": prefix(rule.family, found.get(DST), dst_len) or "all",
        "tos": tos,
        "iif": netlink.text(found, IIFNAME),
        "oif": netlink.text(found, OIFNAME),
        "fwmark": netlink.number(found, FWMARK),
        "fwmask": netlink.number(found, FWMASK),
        "not": bool(flags & INVERT),
        "table": rule.table,
        "suppress": struct.unpack("=i", found.get(SUPPRESS[1], b"").rjust(4, b"\xff")[:4])[0],
        "action": ACTIONS.get(action, str(action)),
        "protocol": netlink.number(found, PROTOCOL),
        "plain": rule.plain(),
    }


def prefix(family: str, address: bytes | None, length: int) -> str:
    """An address and its prefix length as text, "" for none."""
    number = FAMILIES[family]
    if address is None or len(address) != (4 if number == socket.AF_INET else 16):
        return ""
    return f"{socket.inet_ntop(number, address)}/{length}"


def words(facts: Mapping[str, Any]) -> str:
    """As `ip rule` prints it, tables by number."""
    said = [facts["family"], f"{facts['priority']}:", *(["not"] if facts["not"] else ()), "from", facts["from"]]
    said += ["to", facts["to"]] if facts["to"] != "all" else ()
    said += ["tos", hex(facts["tos"])] if facts["tos"] else ()
    if facts["fwmark"] or facts["fwmask"]:
        said += ["fwmark", f"{facts['fwmark']:#x}/{facts['fwmask']:#x}"]
    for name in ("iif", "oif"):
        said += [name, facts[name]] if facts[name] else ()
    said += ["lookup", str(facts["table"])] if facts["action"] == "lookup" else [facts["action"]]
    said += ["suppress_prefixlength", str(facts["suppress"])] if facts["suppress"] >= 0 else ()
    return " ".join(said)


def remove(host: Host, family: str, wanted: Mapping[str, Object]) -> dict[str, str]:
    """Remove rules of a family. Returns causes by object id. Raises OSError."""
    causes: dict[str, str] = {}
    rules = listed(host, family)
    going: dict[Rule, Object] = {}
    for obj, rule in named(rules):
        if obj.id not in wanted or obj.identity != wanted[obj.id].identity:
            continue
        if rule.plain() and (rule.priority, rule.table) in FIRST:
            causes[obj.id] = "every host has it: without it nothing is routed"
        else:
            going[rule] = obj
    # The kernel removes the first rule that fits the request: what the request leaves out it does not compare.
    staying: dict[int, list[Rule]] = {}
    for rule in rules:
        if rule in going and not any(fits(rule, other) for other in staying.get(rule.priority, ())):
            continue
        if rule in going:
            causes[going.pop(rule).id] = "the kernel would take another rule for it that stands before it"
        staying.setdefault(rule.priority, []).append(rule)
    if any(map(local, going)) and not any(local(rule) for group in staying.values() for rule in group):
        cause = restore(family)
        if cause:
            causes.update({obj.id: cause for rule, obj in going.items() if local(rule)})
            going = {rule: obj for rule, obj in going.items() if not local(rule)}
    said = netlink.send(netlink.ROUTE, [netlink.Request(DELRULE, request(rule)) for rule in going])
    for obj, code in zip(going.values(), said, strict=True):
        if code not in (0, errno.ENOENT):
            causes[obj.id] = os.strerror(code)
    return causes


def local(rule: Rule) -> bool:
    """Whether a rule looks up the table "local" for every packet."""
    return rule.table == LOCAL and rule.plain()


def restore(family: str) -> str:
    """Put the rule of the table "local" back at priority 0, as a network namespace begins with it. Returns the cause of
    a failure, or ""."""
    body = HEAD.pack(FAMILIES[family], 0, 0, 0, LOCAL, 0, 0, LOOKUP, 0)
    body += netlink.attribute(PRIORITY, bytes(4)) + netlink.attribute(TABLE, struct.pack("=I", LOCAL))
    body += netlink.attribute(PROTOCOL, bytes((KERNEL,)))
    # Not NLM_F_EXCL: the kernel would take any rule that looks up that table at priority 0 for the same (rule_exists).
    (code,) = netlink.send(netlink.ROUTE, [netlink.Request(NEWRULE, body, netlink.CREATE)])
    if not code:
        return ""
    return f"the rule 0: from all lookup local cannot be put back: {os.strerror(code)}"


def request(rule: Rule) -> bytes:
    """All that the kernel told of a rule; its priority also when that is 0, which it leaves out."""
    head = list(rule.head)
    head[8] &= INVERT
    body = HEAD.pack(*head) + rule.body[HEAD.size :]
    return body if PRIORITY in rule.attributes else body + netlink.attribute(PRIORITY, bytes(4))


def off(type: int, value: bytes) -> bool:
    """Whether an attribute says nothing. Of the suppressors, 0 does say something."""
    return value == b"\xff" * 4 if type in SUPPRESS else not any(value)


def fits(rule: Rule, other: Rule) -> bool:
    """Whether the kernel, asked to remove the one, would take the other, which says something else: what is 0 or not
    named in the request is not compared (net/core/fib_rules.c, rule_find)."""
    if rule.body == other.body:
        return False  # no matter which of the two it is
    if rule.priority != other.priority or rule.table != other.table or rule.head[7] != other.head[7]:
        return False
    if any(mine and mine != theirs for mine, theirs in zip(rule.head[1:4], other.head[1:4], strict=True)):
        return False
    theirs = other.attributes
    return all(
        off(type, value) or theirs.get(type) == value for type, value in rule.attributes.items() if type in COMPARED
    )
