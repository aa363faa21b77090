"""Routing rules on a real kernel. The rule of the table "local" is put back before the moved one goes."""

from __future__ import annotations

import struct

import pytest
from sandbox import private, sh
from things import act, look

from leftovers import netlink
from leftovers.kinds import rules
from leftovers.model import Object

FAMILIES = [("ip", "-4"), ("ip6", "-6")]
each_family = pytest.mark.parametrize(("family", "option"), FAMILIES, ids=[family for family, _ in FAMILIES])


def rule(option: str, *words: str) -> str:
    return sh("ip", option, "rule", *words)


def listed() -> dict[str, Object]:
    return look("rule")["rule"]


def moved(option: str, priority: str = "100") -> None:
    """As a network plugin moves it: first the new one, then the old one goes."""
    rule(option, "add", "pref", priority, "from", "all", "lookup", "local", "proto", "kernel")
    rule(option, "del", "pref", "0")


def add_anyway(family: str, priority: int, table: int) -> None:
    """Add a rule for all packets as a program does that does not ask for NLM_F_EXCL, as `ip rule` does."""
    body = rules.HEAD.pack(rules.FAMILIES[family], 0, 0, 0, 0, 0, 0, rules.LOOKUP, 0)
    body += netlink.attribute(rules.PRIORITY, struct.pack("=I", priority))
    body += netlink.attribute(rules.TABLE, struct.pack("=I", table))
    assert netlink.send(netlink.ROUTE, [netlink.Request(rules.NEWRULE, body, netlink.CREATE)]) == [0]


@private
def test_asking_changes_nothing() -> None:
    before = [rule(option, "show") for _, option in FAMILIES]
    assert [key for key in listed() if key.startswith("ip ")] == [
        "ip 0: from all lookup 255",
        "ip 32766: from all lookup 254",
        "ip 32767: from all lookup 253",
    ]
    assert [rule(option, "show") for _, option in FAMILIES] == before


@private
def test_facts() -> None:
    rule(
        "-4",
        "add",
        "not",
        "from",
        "10.0.0.0/8",
        "to",
        "10.1.2.3",
        "fwmark",
        "0x200/0xf00",
        "iif",
        "lo",
        "lookup",
        "2004",
    )
    rule("-6", "add", "pref", "7", "blackhole", "from", "fd00::/8", "proto", "80")
    found = listed()
    key = "ip 32765: not from 10.0.0.0/8 to 10.1.2.3/32 fwmark 0x200/0xf00 iif lo lookup 2004"
    facts = found[key].facts
    assert (facts["from"], facts["to"], facts["fwmark"], facts["fwmask"]) == ("10.0.0.0/8", "10.1.2.3/32", 0x200, 0xF00)
    assert (facts["iif"], facts["table"], facts["not"], facts["plain"]) == ("lo", 2004, True, False)
    facts = found["ip6 7: from fd00::/8 blackhole"].facts
    assert (facts["priority"], facts["action"], facts["protocol"]) == (7, "blackhole", 80)
    assert found["ip 0: from all lookup 255"].facts["plain"] is True


@each_family
@private
def test_bystanders_survive(family: str, option: str) -> None:
    """Of the same priority, the same table, the same mark; and one that is the same in all but its maker."""
    for mark in ("0x200/0xf00", "0x300/0xf00"):
        rule(option, "add", "pref", "9", "fwmark", mark, "lookup", "2005")
    rule(option, "add", "pref", "10", "fwmark", "0x200/0xf00", "lookup", "2004", "proto", "80")
    rule(option, "add", "pref", "109", "from", "all", "lookup", "main")
    before = rule(option, "show")
    for priority in ("9", "10", "11"):
        rule(option, "add", "pref", priority, "fwmark", "0x200/0xf00", "lookup", "2004")
    found = listed()
    asked = [obj for obj in found.values() if obj.facts["table"] == 2004 and obj.facts["protocol"] != 80]
    assert len(asked) == 3
    assert act("rule", asked) == {f"{family} 10: from all fwmark 0x200/0xf00 lookup 2004 #2": STANDS_BEFORE}
    rule(option, "del", "pref", "10", "proto", "80")
    assert act("rule", asked) == {}, "its number has changed, so it is another one: listed again, it goes"
    assert act("rule", [obj for obj in listed().values() if obj.facts["table"] == 2004]) == {}
    rule(option, "add", "pref", "10", "fwmark", "0x200/0xf00", "lookup", "2004", "proto", "80")
    assert rule(option, "show") == before


@each_family
@private
def test_one_that_suppresses_is_another(family: str, option: str) -> None:
    """As wg-quick adds it, and it is no way to the host's own addresses."""
    for words in (("suppress_prefixlength", "0"), ("suppress_prefixlength", "8")):
        rule(option, "add", "pref", "100", "lookup", "local", "proto", "kernel", *words)
    before = rule(option, "show")
    moved(option)
    found = listed()
    assert found[f"{family} 100: from all lookup 255 suppress_prefixlength 0"].facts["suppress"] == 0
    assert act("rule", [found[f"{family} 100: from all lookup 255"]]) == {
        f"{family} 100: from all lookup 255": STANDS_BEFORE
    }
    rule(option, "del", "pref", "100", "suppress_prefixlength", "8")
    assert act("rule", [found[f"{family} 100: from all lookup 255 suppress_prefixlength 0"]]) == {}
    assert act("rule", [found[f"{family} 100: from all lookup 255"]]) == {}
    assert "\n0:\tfrom all lookup local" in "\n" + rule(option, "show") and "suppress" in before


STANDS_BEFORE = "the kernel would take another rule for it that stands before it"


@each_family
@private
def test_one_that_says_more_is_not_hit(family: str, option: str) -> None:
    """The kernel removes the first rule that fits, and compares no more than the request names."""
    local = "10.0.0.0/8" if family == "ip" else "fd00::/8"
    rule(option, "add", "pref", "20", "from", local, "lookup", "2004")
    add_anyway(family, 20, 2004)
    before = rule(option, "show")
    found = listed()
    wide, narrow = (found[f"{family} 20: from {source} lookup 2004"] for source in ("all", local))
    assert act("rule", [wide]) == {f"{family} 20: from all lookup 2004": STANDS_BEFORE}
    assert rule(option, "show") == before
    assert act("rule", [wide, narrow]) == {}
    assert not [obj for obj in listed().values() if obj.facts["table"] == 2004]


@each_family
@private
def test_only_as_many_duplicates_as_asked_for(family: str, option: str) -> None:
    for _ in range(3):
        add_anyway(family, 20, 2004)
    found = {key: obj for key, obj in listed().items() if obj.facts["table"] == 2004}
    key = f"{family} 20: from all lookup 2004"
    assert list(found) == [key, f"{key} #2", f"{key} #3"]
    assert act("rule", [found[f"{key} #3"]]) == {}
    assert [key for key, obj in listed().items() if obj.facts["table"] == 2004] == [key, f"{key} #2"]
    assert act("rule", found.values()) == {}
    assert not [obj for obj in listed().values() if obj.facts["table"] == 2004]


@each_family
@private
def test_made_anew_is_not_taken_for_the_old_one(family: str, option: str) -> None:
    rule(option, "add", "pref", "9", "lookup", "2004", "proto", "80")
    (old,) = [obj for obj in listed().values() if obj.facts["table"] == 2004]
    rule(option, "del", "pref", "9")
    rule(option, "add", "pref", "9", "lookup", "2004", "proto", "boot")
    before = rule(option, "show")
    assert old.key in listed()
    assert act("rule", [old]) == {}
    assert rule(option, "show") == before


@private
def test_one_that_vanished_hinders_nobody() -> None:
    for priority in range(300):
        rule("-4", "add", "pref", str(1000 + priority), "lookup", "2004")
    asked = [obj for obj in listed().values() if obj.facts["table"] == 2004]
    assert len(asked) == 300
    rule("-4", "del", "pref", "1005")
    assert act("rule", asked) == {}
    assert len(listed()) == len(look("rule")["rule"]) == 5


@each_family
@private
def test_the_rule_of_the_table_local_is_put_back(family: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rule(option, "show")
    moved(option)
    sent: list[int] = []
    real = netlink.send

    def send(protocol: int, requests: list[netlink.Request]) -> list[int]:
        sent.extend(request.type for request in requests)
        return real(protocol, requests)

    monkeypatch.setattr(netlink, "send", send)
    assert act("rule", [listed()[f"{family} 100: from all lookup 255"]]) == {}
    assert sent == [rules.NEWRULE, rules.DELRULE], "the host is never without one"
    assert rule(option, "show") == before
    ping = ["ip", option, "route", "get", "127.0.0.1" if family == "ip" else "::1"]
    assert "dev lo" in sh(*ping)


@each_family
@private
def test_without_that_the_host_would_be_cut_off(family: str, option: str) -> None:
    """The control of the test above."""
    address = "127.0.0.1" if family == "ip" else "::1"
    moved(option)
    assert "dev lo" in sh("ip", option, "route", "get", address)
    rule(option, "del", "pref", "100")
    assert "dev lo" not in sh("ip", option, "route", "get", address, check=False)


@each_family
@private
def test_one_like_it_for_some_packets_does_not_do(family: str, option: str) -> None:
    before = rule(option, "show")
    moved(option)
    narrow = ("pref", "0", "from", "10.0.0.0/8" if family == "ip" else "fd00::/8", "lookup", "local", "proto", "kernel")
    rule(option, "add", *narrow)
    assert act("rule", [listed()[f"{family} 100: from all lookup 255"]]) == {}
    rule(option, "del", *narrow)
    assert rule(option, "show") == before


@each_family
@private
def test_one_that_is_there_already_is_no_obstacle(family: str, option: str) -> None:
    """The plugin's agent put it back itself, or it had never taken the old one away."""
    before = rule(option, "show")
    rule(option, "add", "pref", "100", "from", "all", "lookup", "local")
    assert act("rule", [listed()[f"{family} 100: from all lookup 255"]]) == {}
    assert rule(option, "show") == before


@each_family
@private
def test_what_an_administrator_moved_stays_moved(family: str, option: str) -> None:
    """With VRFs the table "local" is looked up after theirs (Documentation/networking/vrf.rst)."""
    moved(option, "32765")
    rule(option, "add", "pref", "32764", "lookup", "main", "suppress_prefixlength", "0")
    before = rule(option, "show")
    rule(option, "add", "pref", "100", "from", "all", "lookup", "local")
    assert act("rule", [listed()[f"{family} 100: from all lookup 255"]]) == {}
    assert rule(option, "show") == before


@each_family
@private
def test_where_it_cannot_be_put_back_the_moved_one_stays(
    family: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved(option)
    rule(option, "add", "pref", "9", "lookup", "2004")
    monkeypatch.setattr(rules, "restore", lambda family: "the rule cannot be put back")
    asked = [obj for obj in listed().values() if obj.facts["family"] == family and obj.facts["priority"] in (9, 100)]
    assert act("rule", asked) == {f"{family} 100: from all lookup 255": "the rule cannot be put back"}
    assert "100:\tfrom all lookup local" in rule(option, "show") and "2004" not in rule(option, "show")


@each_family
@private
def test_what_every_host_has_is_never_removed(family: str, option: str) -> None:
    before = rule(option, "show")
    asked = [obj for obj in listed().values() if obj.facts["family"] == family]
    assert set(act("rule", asked)) == {obj.key for obj in asked}
    assert rule(option, "show") == before
