"""IP sets on a real kernel; those of somebody else, and those that are in use, stay."""

from __future__ import annotations

import pytest
from sandbox import private, sh
from things import act, look

from leftovers import netlink
from leftovers.kinds import ipsets
from leftovers.model import Object

IN_USE = "in use: a rule, or another set, refers to it"


def listed() -> dict[str, Object]:
    return look("ipset")["ipset"]


def create(name: str, *words: str) -> None:
    sh("ipset", "create", name, *(words or ("hash:ip",)))


@private
def test_asking_changes_nothing() -> None:
    assert listed() == {}
    assert sh("ipset", "list") == ""


def test_an_absent_module_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """To ask would load it. This machine's kernel has it built in."""
    monkeypatch.setattr(ipsets, "in_kernel", lambda host: False)
    monkeypatch.setattr(netlink, "dump", None)
    assert listed() == {}


@private
def test_facts() -> None:
    create("four", "hash:net", "family", "inet", "maxelem", "1000", "timeout", "60")
    create("six", "hash:ip", "family", "inet6")
    create("ports", "bitmap:port", "range", "1-100")
    create("sets", "list:set")
    sh("ipset", "add", "four", "10.0.0.0/8")
    sh("ipset", "add", "sets", "six")
    sh("iptables-legacy", "-A", "INPUT", "-m", "set", "--match-set", "four", "src", "-j", "ACCEPT")
    facts = {key: obj.facts for key, obj in listed().items()}
    assert facts["four"] == {
        "name": "four",
        "type": "hash:net",
        "family": "inet",
        "references": 1,
        "size": 1,
        "timeout": 60,
        "maxelem": 1000,
    }
    assert (facts["six"]["family"], facts["six"]["references"]) == ("inet6", 1)
    assert (facts["ports"]["type"], facts["ports"]["family"], facts["ports"]["maxelem"]) == ("bitmap:port", "", 0)
    assert (facts["sets"]["type"], facts["sets"]["size"]) == ("list:set", 1)


@private
def test_bystanders_survive_and_the_members_are_not_read() -> None:
    create("admin")
    sh("ipset", "add", "admin", "10.0.0.1")
    create("cali40mine", "hash:net")
    before = sh("ipset", "save")
    lines = "".join(f"create cali40s{i} hash:net\nadd cali40s{i} 10.{i % 250}.0.0/16\n" for i in range(500))
    lines += "create cali40big hash:ip\n"
    lines += "".join(f"add cali40big 10.{i // 62500}.{i // 250 % 250}.{i % 250}\n" for i in range(50000))
    sh("ipset", "restore", stdin=lines)
    found = listed()
    assert found["cali40big"].facts["size"] == 50000
    assert sum(map(len, ipsets.heads())) < 300_000
    asked = [obj for key, obj in found.items() if key.startswith("cali40") and key != "cali40mine"]
    assert len(asked) == 501
    assert act("ipset", asked) == {}
    assert sh("ipset", "save") == before


@private
def test_its_identity_stays_while_it_grows() -> None:
    create("grows", "hash:ip", "hashsize", "64")
    old = listed()["grows"]
    sh("ipset", "restore", stdin="".join(f"add grows 10.0.{i // 250}.{i % 250}\n" for i in range(5000)))
    sh("iptables-legacy", "-A", "INPUT", "-m", "set", "--match-set", "grows", "src", "-j", "ACCEPT")
    assert listed()["grows"].identity == old.identity


@private
def test_a_set_made_anew_is_not_taken_for_the_old_one() -> None:
    """A hash is known by its seed."""
    create("cali40s")
    old = listed()["cali40s"]
    sh("ipset", "destroy", "cali40s")
    create("cali40s")
    assert listed()["cali40s"].facts == old.facts
    assert act("ipset", [old]) == {}
    assert "cali40s" in listed()


@pytest.mark.parametrize("tool", ["iptables-legacy", "iptables-nft"])
@private
def test_one_that_is_in_use_stays_and_hinders_nobody(tool: str) -> None:
    for name in ("used", "member", "free"):
        create(name)
    create("sets", "list:set")
    sh("ipset", "add", "sets", "member")
    sh(tool, "-A", "INPUT", "-m", "set", "--match-set", "used", "src", "-j", "ACCEPT")
    found = listed()
    assert act("ipset", [found[name] for name in ("used", "member", "free")]) == {"used": IN_USE, "member": IN_USE}
    assert set(listed()) == {"used", "member", "sets"}
    sh(tool, "-D", "INPUT", "1")
    assert act("ipset", [found[name] for name in ("used", "member", "sets")]) == {}
    assert listed() == {}


@private
def test_one_that_vanished_hinders_nobody() -> None:
    for name in ("one", "two", "three"):
        create(name)
    found = listed()
    sh("ipset", "destroy", "two")
    assert act("ipset", found.values()) == {}
    assert listed() == {}


@private
def test_one_that_vanishes_while_we_remove(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two", "three"):
        create(name)
    found = listed()
    real = netlink.send

    def late(protocol: int, requests: list[netlink.Request]) -> list[int]:
        sh("ipset", "destroy", "two")
        return real(protocol, requests)

    monkeypatch.setattr(netlink, "send", late)
    assert act("ipset", found.values()) == {}
    assert listed() == {}
