"""Labelled addresses on a real kernel; what stands beside them survives."""

from __future__ import annotations

from pathlib import Path

from sandbox import private, sh
from things import act, look

from leftovers.model import Object, Scope


def listed(*devices: str) -> dict[str, Object]:
    return look("address", scope=Scope(addresses=devices))["address"]


def shown() -> str:
    return sh("ip", "-brief", "address")


def links() -> None:
    sh("ip", "link", "add", "br0", "type", "bridge")
    sh("ip", "link", "set", "br0", "addrgenmode", "none", "up")
    sh("ip", "address", "add", "10.9.0.1/24", "dev", "br0")
    sh("ip", "address", "add", "fd09::1/64", "dev", "br0", "nodad")


def promote(name: str, value: str) -> None:
    Path(f"/proc/sys/net/ipv4/conf/{name}/promote_secondaries").write_text(value)


@private
def test_labelled_ones_are_listed_and_go() -> None:
    links()
    sh("ip", "address", "add", "10.0.2.1/32", "dev", "lo", "label", "lo:admin")
    before = shown()
    assert list(listed()) == ["lo 10.0.2.1/32"]
    sh("ip", "address", "add", "10.0.1.1/32", "dev", "lo", "label", "lo:product")
    sh("ip", "address", "add", "10.0.3.1", "peer", "10.0.3.2/30", "dev", "lo", "label", "lo:product")
    found = {key: obj for key, obj in listed().items() if obj.facts["label"] == "lo:product"}
    assert list(found) == ["lo 10.0.1.1/32", "lo 10.0.3.1/30 peer 10.0.3.2"]
    assert found["lo 10.0.1.1/32"].facts == {
        "family": "ip",
        "dev": "lo",
        "index": 1,
        "address": "10.0.1.1",
        "prefixlen": 32,
        "peer": "",
        "label": "lo:product",
        "scope": "global",
        "secondary": False,
    }
    assert act("address", found.values()) == {}
    assert shown() == before


@private
def test_all_of_a_link_that_is_asked_for() -> None:
    links()
    sh("ip", "link", "add", "br1", "type", "bridge")
    before = shown()
    sh("ip", "address", "add", "10.5.0.1/32", "dev", "br1")
    sh("ip", "address", "add", "fd05::1/128", "dev", "br1", "nodad")
    assert listed() == {}
    found = listed("br[1-9]")
    assert list(found) == ["br1 10.5.0.1/32", "br1 fd05::1/128"]
    assert act("address", found.values()) == {}
    assert shown() == before


@private
def test_made_anew_is_not_taken_for_the_old_one() -> None:
    sh("ip", "address", "add", "10.0.1.1/32", "dev", "lo", "label", "lo:product")
    found = listed()
    sh("ip", "address", "del", "10.0.1.1/32", "dev", "lo")
    sh("ip", "address", "add", "10.0.1.1/32", "dev", "lo", "label", "lo:admin")
    before = shown()
    assert list(listed()) == list(found)
    assert act("address", found.values()) == {}
    assert shown() == before


@private
def test_what_would_go_with_it_keeps_it() -> None:
    """The kernel removes a subnet's later addresses with its first one, unless they are promoted."""
    links()
    promote("all", "0")
    promote("br0", "0")
    sh("ip", "address", "add", "10.7.0.1/24", "dev", "br0", "label", "br0:product")
    sh("ip", "address", "add", "10.7.0.2/24", "dev", "br0")
    sh("ip", "address", "add", "10.7.0.3/24", "dev", "br0", "label", "br0:product")
    before = shown()
    found = listed()
    first, last = found["br0 10.7.0.1/24"], found["br0 10.7.0.3/24"]
    assert (first.facts["secondary"], last.facts["secondary"]) == (False, True)
    assert act("address", [first]) == {"br0 10.7.0.1/24": "10.7.0.2/24 is secondary to it and would go with it"}
    assert shown() == before
    assert act("address", [first, last]) == {"br0 10.7.0.1/24": "10.7.0.2/24 is secondary to it and would go with it"}
    promote("br0", "1")
    assert act("address", [first]) == {}
    assert "10.7.0.2/24" in shown() and "10.7.0.1" not in shown()


@private
def test_the_tool_would_have_taken_it() -> None:
    """The control of the test above."""
    links()
    promote("all", "0")
    promote("br0", "0")
    sh("ip", "address", "add", "10.7.0.1/24", "dev", "br0", "label", "br0:product")
    sh("ip", "address", "add", "10.7.0.2/24", "dev", "br0")
    sh("ip", "address", "del", "10.7.0.1/24", "dev", "br0")
    assert "10.7.0.2" not in shown()


@private
def test_secondaries_of_the_batch_are_no_obstacle() -> None:
    links()
    promote("all", "0")
    promote("br0", "0")
    before = shown()
    for number in range(1, 5):
        sh("ip", "address", "add", f"10.7.0.{number}/24", "dev", "br0", "label", "br0:product")
    assert act("address", listed().values()) == {}
    assert shown() == before


@private
def test_one_that_vanished_hinders_nobody() -> None:
    for number in range(1, 4):
        sh("ip", "address", "add", f"10.0.1.{number}/32", "dev", "lo", "label", "lo:product")
    found = listed()
    sh("ip", "address", "del", "10.0.1.2/32", "dev", "lo")
    assert act("address", found.values()) == {}
    assert listed() == {}
