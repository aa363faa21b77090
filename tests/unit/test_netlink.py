"""Netlink messages: what is cut off or says a wrong length is no reason to fail, or to go on for ever."""

from __future__ import annotations

import struct

import pytest

from leftovers import netlink
from leftovers.kinds import ipsets, routes, rules
from leftovers.kinds.routes import Wanted


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", {}),
        (b"\5\0\1\0x", {1: b"x"}),
        (b"\5\0\1\0x\0\0\0\6\0\2\0yz\0\0", {1: b"x", 2: b"yz"}),
        (b"\5\0\1\x80x\0\0\0", {1: b"x"}),  # NLA_F_NESTED is no part of its type
        (b"\xff\xff\1\0x", {1: b"x"}),
        (b"\0\0\1\0x", {}),
        (b"\3\0\1\0x", {}),
        (b"\4\0\1", {}),
    ],
)
def test_attributes(data: bytes, found: dict[int, bytes]) -> None:
    assert netlink.attributes(data) == found


def test_what_is_packed_is_read_again() -> None:
    data = netlink.attribute(7, b"abc") + netlink.attribute(8, b"") + netlink.attribute(9, struct.pack("=I", 70_000))
    found = netlink.attributes(data)
    assert found[7] == b"abc" and found[8] == b"" and netlink.number(found, 9) == 70_000
    assert netlink.number(found, 10, 4) == 4 and netlink.text({1: b"a\0b"}, 1) == "a"


@pytest.mark.parametrize("data", [b"", b"\x10\0\0\0", b"\0" * 16, b"\xff" * 15])
def test_messages_that_are_none(data: bytes) -> None:
    assert list(netlink.messages(data)) == []


def test_hops_that_say_a_wrong_length() -> None:
    hop = routes.NEXTHOP.pack(8, 0, 0, 3)
    assert [index for index, _, _ in routes.nexthops({routes.MULTIPATH: hop + hop})] == [3, 3]
    assert list(routes.nexthops({routes.MULTIPATH: routes.NEXTHOP.pack(0, 0, 0, 3)})) == []
    assert list(routes.nexthops({routes.MULTIPATH: hop[:5]})) == []


def test_odd_routes() -> None:
    head = routes.HEAD.pack(2, 32, 0, 0, 254, 80, 0, 250, 0)
    body = head + netlink.attribute(routes.DST, b"xy") + netlink.attribute(routes.GATEWAY, b"z")
    facts = routes.facts_of("ip", body, {})
    assert (facts["dst"], facts["type"], facts["gateway"]) == ("default", "250", "")
    via = head + netlink.attribute(routes.VIA, struct.pack("=H", 10) + bytes(15) + b"\1")
    assert routes.facts_of("ip", via, {})["gateway"] == "::1"
    assert routes.facts_of("ip", head + netlink.attribute(routes.VIA, b"\x63\0x"), {})["gateway"] == ""
    assert not Wanted(protocol=80).takes(routes.HEAD.pack(2, 32, 0, 0, 254, 80, 0, 1, routes.CLONED))
    # A table above 255 is in an attribute, and the header says 252 (RT_TABLE_COMPAT).
    table = netlink.attribute(routes.TABLE, struct.pack("=I", 2004))
    compat = routes.HEAD.pack(2, 32, 0, 0, 252, 80, 0, 1, 0)
    assert Wanted(table=2004).takes(compat + table) and not Wanted(table=252).takes(compat + table)


def test_odd_rules() -> None:
    rule = rules.Rule("ip", rules.HEAD.pack(2, 9, 0, 0, 255, 0, 0, 99, 0) + netlink.attribute(rules.DST, b"x"))
    facts = rules.facts_of(rule)
    assert (facts["to"], facts["action"], facts["plain"], facts["priority"]) == ("all", "99", False, 0)
    for extra in ((rules.FWMARK, struct.pack("=I", 1)), (22, b"\6"), (99, b"x"), (14, bytes(4)), (13, bytes(4))):
        head = rules.HEAD.pack(2, 0, 0, 0, 255, 0, 0, rules.LOOKUP, 0)
        assert not rules.Rule("ip", head + netlink.attribute(*extra)).plain()
        nothing = netlink.attribute(extra[0], (b"\xff" if extra[0] in rules.SUPPRESS else b"\0") * 4)
        assert rules.Rule("ip", head + nothing).plain()


def test_odd_sets() -> None:
    """A set's members may come in parts, each with its head; a name may be any bytes."""
    head = netlink.NFNETLINK.pack(2, 0, 0)
    name = netlink.attribute(ipsets.SETNAME, b"a\xff\n\0")
    first = head + name + netlink.attribute(ipsets.DATA, netlink.attribute(ipsets.ELEMENTS, b"\0\0\0\7"))
    objects = list(ipsets.described([first, head + name, head, b"", b"xy"]))
    assert [obj.key for obj in objects] == ["a\udcff\n"]
    assert objects[0].facts["size"] == 7 and objects[0].facts["type"] == ""
