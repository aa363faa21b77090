"""Routes on a real kernel: only what is asked for is listed, bystanders survive."""

from __future__ import annotations

import pytest
from sandbox import private, sh
from things import act, look, until

from leftovers import netlink
from leftovers.kinds import routes
from leftovers.kinds.routes import Wanted, wanted
from leftovers.model import Object, Scope

ASKED = ("protocol 80", "table 2004")


def listed(*asked: str) -> dict[str, Object]:
    return look("route", scope=Scope(routes=asked or ASKED))["route"]


def all_routes() -> str:
    return sh("ip", "-4", "route", "show", "table", "all") + sh("ip", "-6", "route", "show", "table", "all")


def links() -> None:
    for name, address in (("br0", 9), ("br1", 8)):
        sh("ip", "link", "add", name, "type", "bridge")
        sh("ip", "link", "set", name, "addrgenmode", "none", "up")
        sh("ip", "address", "add", f"10.{address}.0.1/24", "dev", name)
        sh("ip", "address", "add", f"fd0{address}::1/64", "dev", name, "nodad")


def product() -> None:
    sh("ip", "route", "add", "10.1.0.0/24", "via", "10.9.0.2", "proto", "80")
    sh("ip", "route", "add", "blackhole", "10.1.1.0/26", "proto", "80")
    sh("ip", "route", "add", "10.1.2.3", "dev", "br0", "scope", "link", "proto", "80", "metric", "7")
    sh("ip", "route", "add", "10.1.4.0/24", "proto", "80", "nexthop", "via", "10.9.0.2", "nexthop", "via", "10.8.0.2")
    sh("ip", "route", "add", "local", "default", "dev", "lo", "table", "2004")
    for option in ("via fd09::2", "dev br0 metric 9"):
        sh("ip", "route", "add", "fd01::/64", *option.split(), "proto", "80")
    sh("ip", "route", "add", "blackhole", "fd02::/64", "proto", "80")
    sh("ip", "route", "add", "fd04::/64", "proto", "80", "nexthop", "via", "fd09::2", "nexthop", "via", "fd08::2")
    sh("ip", "-6", "route", "add", "local", "default", "dev", "lo", "table", "2004")


def bystanders() -> None:
    """The same prefixes by another maker, in another table, with another metric."""
    sh("ip", "route", "add", "10.1.0.0/24", "via", "10.9.0.2", "proto", "bird", "metric", "5")
    sh("ip", "route", "add", "10.1.0.0/24", "via", "10.9.0.2", "table", "77")
    sh("ip", "route", "add", "blackhole", "10.1.1.0/26", "proto", "static", "metric", "6")
    sh("ip", "route", "add", "10.1.2.3", "dev", "br1", "scope", "link", "proto", "static", "metric", "6")
    sh("ip", "route", "add", "local", "default", "dev", "lo", "table", "2005")
    sh("ip", "route", "add", "fd01::/64", "via", "fd09::2", "proto", "static", "metric", "5")
    sh("ip", "route", "add", "blackhole", "fd02::/64", "proto", "static", "metric", "6")
    sh("ip", "route", "add", "default", "via", "10.8.0.2")


@private
def test_nothing_is_asked_that_nobody_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "dump", None)
    assert look("route")["route"] == {}


@private
def test_bystanders_survive() -> None:
    links()
    bystanders()
    before = all_routes()
    product()
    found = listed()
    assert len(found) == 10, list(found)
    assert act("route", found.values()) == {}
    assert all_routes() == before
    assert listed() == {}


@private
def test_facts() -> None:
    links()
    product()
    found = listed()
    assert found["ip table 254 10.1.0.0/24"].facts == {
        "family": "ip",
        "dst": "10.1.0.0/24",
        "table": 254,
        "protocol": 80,
        "type": "unicast",
        "dev": "br0",
        "gateway": "10.9.0.2",
        "hops": ["br0 10.9.0.2"],
        "metric": 0,
        "tos": 0,
        "src": "",
    }
    black = found["ip table 254 10.1.1.0/26"].facts
    assert (black["type"], black["dev"], black["hops"]) == ("blackhole", "", [])
    assert found["ip table 254 10.1.4.0/24"].facts["hops"] == ["br0 10.9.0.2", "br1 10.8.0.2"]
    assert found["ip table 2004 default"].facts["type"] == "local"
    assert found["ip table 254 10.1.2.3/32 metric 7"].facts["dev"] == "br0"
    assert found["ip6 table 254 fd01::/64 metric 1024"].facts["gateway"] == "fd09::2"
    assert sorted(found["ip6 table 254 fd04::/64 metric 1024"].facts["hops"]) == ["br0 fd09::2", "br1 fd08::2"]
    assert found["ip6 table 2004 default metric 1024"].facts["table"] == 2004


@private
def test_questions_are_joined() -> None:
    links()
    product()
    sh("ip", "route", "add", "blackhole", "10.3.0.0/26", "proto", "bird")
    sh("ip", "route", "add", "10.3.1.0/26", "via", "10.9.0.2", "proto", "bird")
    assert list(listed("protocol 12 type blackhole")) == ["ip table 254 10.3.0.0/26"]
    assert list(listed("protocol 12 type blackhole", "protocol 12")) == [
        "ip table 254 10.3.0.0/26",
        "ip table 254 10.3.1.0/26",
    ], "what answers two questions is one object"
    assert listed("table 4711") == {}, "no such table is no fault"


@private
def test_made_anew_is_not_taken_for_the_old_one() -> None:
    links()
    for new, old in (("via 10.8.0.2", "via 10.9.0.2"), ("via 10.9.0.2 mtu 1400", "via 10.9.0.2")):
        sh("ip", "route", "add", "10.1.0.0/24", *old.split(), "proto", "80")
        found = listed()
        sh("ip", "route", "replace", "10.1.0.0/24", *new.split(), "proto", "80")
        before = all_routes()
        assert list(listed()) == list(found)
        assert act("route", found.values()) == {}
        assert all_routes() == before
        assert act("route", listed().values()) == {}


@private
def test_a_link_that_goes_down_makes_no_other_route() -> None:
    links()
    sh("ip", "link", "add", "v0", "type", "veth", "peer", "v1")
    sh("ip", "link", "set", "v1", "up")
    sh("ip", "link", "set", "v0", "up")
    sh("ip", "route", "add", "10.1.0.0/24", "dev", "v0", "proto", "80")
    found = listed()
    sh("ip", "link", "set", "v1", "down")
    until(lambda: "linkdown" in sh("ip", "route"))  # the kernel tells it a moment later
    assert [obj.identity for obj in listed().values()] == [obj.identity for obj in found.values()]
    assert act("route", found.values()) == {}
    assert listed() == {}


@private
def test_one_with_a_nexthop_of_its_own() -> None:
    links()
    sh("ip", "nexthop", "add", "id", "7", "via", "10.9.0.2", "dev", "br0")
    sh("ip", "route", "add", "10.1.0.0/24", "nhid", "7", "proto", "80")
    sh("ip", "nexthop", "add", "id", "8", "via", "fd09::2", "dev", "br0")
    sh("ip", "-6", "route", "add", "fd01::/64", "nhid", "8", "proto", "80")
    found = listed()
    assert [obj.facts["gateway"] for obj in found.values()] == ["10.9.0.2", "fd09::2"]
    assert act("route", found.values()) == {}
    assert listed() == {}
    assert "id 7" in sh("ip", "nexthop")


@private
def test_one_that_vanished_hinders_nobody() -> None:
    links()
    product()
    found = listed()
    sh("ip", "route", "del", "10.1.0.0/24", "proto", "80")
    assert act("route", found.values()) == {}
    assert listed() == {}


def many() -> None:
    lines = "".join(
        f"route add blackhole 10.{100 + i // 62500}.{i // 250 % 250}.{i % 250} proto bird\n" for i in range(50000)
    )
    sh("ip", "-batch", "-", stdin=lines)


@pytest.mark.parametrize("filters", [True, False], ids=["strict", "old"])
@private
def test_of_many_only_what_is_asked_for_comes_from_the_kernel(filters: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel before 4.20 answers with all, and we choose; both must come to the same."""
    links()
    product()
    many()
    found = []
    real = netlink.dump

    def dump(protocol: int, request: netlink.Request, *, strict: bool = False) -> list[bytes]:
        said = real(protocol, request, strict=strict and filters)
        found.extend(said)
        return said

    monkeypatch.setattr(netlink, "dump", dump)
    assert len(listed()) == 10
    assert (len(found) < 100) == filters
    assert act("route", listed().values()) == {}
    assert listed() == {}
    assert len(listed("protocol 12")) == 50000


def test_words() -> None:
    assert wanted("protocol 12 type blackhole") == Wanted(protocol=12, type=6)
    assert wanted("table 2004") == Wanted(table=2004)
    for text in ("", "protocol", "protocol bird", "type none", "via 10.0.0.1"):
        with pytest.raises(ValueError):
            wanted(text)
    assert routes.saying(bytes(12)) == bytes(8)
