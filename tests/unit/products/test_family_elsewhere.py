"""What other machines have of a member of the family: clusters, OVN, Ceph. From records as the readers make them."""

from __future__ import annotations

from typing import Any

import pytest

from leftovers.claims import Case, attribute
from leftovers.model import Claim, Object, Presence, Record, Role
from leftovers.plan import decide
from leftovers.products import load

OVN = Record(
    "network", "ovn1", "database", {"type": "ovn", "managed": True, "number": 7, "config": {"network": "uplink"}}
)
CEPH = Record(
    "pool", "remote", "database", {"driver": "ceph", "source": "ignored", "config": {"ceph.osd.pool_name": "p$(x)"}}
)
CLUSTER = Record("cluster", "b", "api", {"members": ["a", "b"]})


def claims(
    *records: Record, name: str = "incus", presence: Presence = Presence.ABSENT, **listed: Any
) -> dict[str, Claim]:
    product = load(name)
    texts = product.elsewhere(records)
    objects = tuple(Object("elsewhere", text, (text,), {"text": text}) for text in texts)
    case = Case(name, presence, {"elsewhere": objects, **listed}, records)
    return attribute(case, {kind: product.rules[kind] for kind in ("elsewhere", "rbd", "ovs")}, product.recall)


@pytest.mark.parametrize(("name", "client"), [("incus", "incus"), ("lxd", "lxc")])
def test_a_cluster_counts_this_host_in(name: str, client: str) -> None:
    # One thing only: its networks and pools are the others' too.
    ((id, claim),) = claims(CLUSTER, OVN, CEPH, name=name).items()
    assert id.endswith("cluster of a, b")
    assert claim.role is Role.SYSTEM and claim.advice == f"on another member: {client} cluster remove b --force"
    (claim,) = claims(CLUSTER, name=name, presence=Presence.INSTALLED).values()
    assert claim.advice == f"first: {client} cluster remove b"


def test_a_member_that_does_not_know_itself() -> None:
    (claim,) = claims(Record("cluster", "", "database", {"members": ["a", "b"]})).values()
    assert claim.advice.endswith("cluster remove MEMBER --force")


def test_names_are_no_commands() -> None:
    (claim,) = claims(Record("cluster", "b;reboot", "api", {"members": ["a", "b;reboot"]})).values()
    assert "remove 'b;reboot' --force" in claim.advice
    (claim,) = claims(CEPH).values()
    assert "'p$(x)'" in claim.advice


def test_an_ovn_network() -> None:
    (claim,) = claims(OVN).values()
    assert claim.object.key == "OVN network ovn1"
    assert "lr-del incus-net7-lr" in claim.advice and "destroy Port_Group incus_net7" in claim.advice
    numberless = Record("network", "ovn1", "api", {"type": "ovn", "managed": True, "number": 0, "config": {}})
    (claim,) = claims(numberless).values()
    assert "ovn-nbctl show" in claim.advice
    (claim,) = claims(numberless, OVN).values()
    assert "incus-net7-lr" in claim.advice, "a later source may know more"
    earlier = Record("network", "ovn1", "ledger", {**OVN.facts, "number": 3})
    (claim,) = claims(OVN, earlier).values()
    assert "incus-net7-lr" in claim.advice, "numbers begin anew with each installation"
    (claim,) = claims(OVN, presence=Presence.INSTALLED).values()
    assert claim.advice == "first: incus network delete ovn1 --project default"


def test_it_is_only_told() -> None:
    found = claims(OVN, CEPH)
    assert len(found) == 2
    for claim in found.values():
        (action,) = decide({"incus": claim}, {"incus": Presence.ABSENT}, data=True)
        assert (action.verb.value, action.counts) == ("keep", False)


def test_pools_on_this_host_are_not_elsewhere() -> None:
    assert not claims(*(Record("pool", "p", "api", {"driver": d}) for d in ("dir", "btrfs", "lvm", "zfs")))


def image(device: str, pool: str, name: str) -> Object:
    return Object("rbd", device, (device,), {"device": device, "pool": pool, "image": name})


def test_mapped_images() -> None:
    listed = (
        image("/dev/rbd0", "p$(x)", "container_c1"),
        image("/dev/rbd1", "p$(x)", "database"),
        image("/dev/rbd2", "other", "container_c1"),
    )
    found = claims(CEPH, rbd=listed)
    assert [id for id in found if id.startswith("rbd:")] == ["rbd:/dev/rbd0"]
    claim = found["rbd:/dev/rbd0"]
    assert not claim.proven and claim.advice == "rbd unmap /dev/rbd0"
    (action,) = decide({"incus": claim}, {"incus": Presence.ABSENT}, data=True)
    assert (action.verb.value, action.counts) == ("keep", True)


def bridge(name: str, mapped: list[str] | None = None, **facts: Any) -> Object:
    said = {"what": "bridge", "name": name, "ports": [], "mapped": mapped or [], "address": "", "addresses": []}
    return Object("ovs", f"bridge {name}", ("bridge", name), {**said, **facts})


def port(bridge: str, name: str, here: bool = False, iface_id: str = "", type: str = "") -> Object:
    said = {"what": "port", "name": name, "bridge": bridge, "type": type, "iface_id": iface_id, "here": here}
    return Object("ovs", f"port {bridge} {name}", ("port", name), said)


def test_the_way_out_of_ovn() -> None:
    found = claims(OVN, ovs=(bridge("incusovn3", ["uplink"]), bridge("lxdovn3", ["uplink"]), bridge("br0", ["uplink"])))
    assert [id for id, claim in found.items() if id.startswith("ovs:") and claim.proven] == ["ovs:bridge incusovn3"]
    # A name alone, on a host where nothing says that Incus was there, is anybody's.
    assert not claims(ovs=(bridge("incusovn3", ["uplink"]),), process=(), account=())


def test_ports_that_lost_their_link() -> None:
    nic = {"device": "eth0", "nictype": "bridged", "parent": "ovs0", "host_name": "veth01234567"}
    known = Record("instance", "c1", "ledger", {"nics": [nic]})
    wished = Record("instance", "c2", "ledger", {"nics": [{**nic, "host_name": "uplink0"}]})
    listed = (
        port("ovs0", "veth01234567"),
        port("ovs9", "veth01234567"),
        port("ovs0", "uplink0"),
        port("ovs0", "vethabad1dea"),
        port("br-int", "veth89abcdef", iface_id="incus-net7-instance-0-eth0"),
        port("br-int", "veth11111111", iface_id="lxd-net7-instance-0-eth0"),
        port("ovs0", "internal0", type="internal"),
    )
    found = claims(known, wished, ovs=listed)
    assert set(found) == {"ovs:port ovs0 veth01234567", "ovs:port br-int veth89abcdef"}
    # A link of that name which nothing proves an instance's is somebody else's by now.
    assert not claims(known, ovs=(port("ovs0", "veth01234567", here=True),))


def test_a_bridge_of_the_switch_wants_the_proof_that_any_bridge_wants() -> None:
    config = {"bridge.driver": "openvswitch", "ipv4.address": "10.97.0.1/24"}
    facts = {"type": "bridge", "managed": True, "config": config, "addresses": ["10.97.0.1"]}
    own = bridge("switched", address="10:66:6a:00:00:01", addresses=["10.97.0.1"])
    remembered = Record("network", "switched", "database", facts)
    assert claims(remembered, ovs=(own,))["ovs:bridge switched"].proven
    bare = claims(remembered, ovs=(bridge("switched", address="02:00:00:00:00:01"),))["ovs:bridge switched"]
    assert not bare.proven and bare.advice == "ovs-vsctl del-br switched"
    native = Record("network", "switched", "database", {**facts, "config": {"ipv4.address": "10.97.0.1/24"}})
    assert not claims(native, ovs=(own,)), "that network's bridge is one of the kernel's"


def link(name: str, type: str = "", **facts: Any) -> Object:
    said = {
        "host": True,
        "type": type,
        "up": True,
        "master": "",
        "peer": "",
        "peer_netns": 0,
        "netns": 1,
        "addresses": [],
    }
    return Object("link", name, (1, name), {**said, **facts})


@pytest.mark.parametrize(
    ("foreign", "links", "held"),
    [
        (port("switched", "mgmt0", here=True, type="internal"), (), True),
        (port("switched", "tun0", type="vxlan"), (), True),
        (port("switched", "eth1", here=True), (link("eth1"),), True),
        (port("switched", "vnet0", here=True), (link("vnet0", "tun", holder=99),), True),
        (port("switched", "eth1", here=True), (link("eth1", up=False),), False),
        (port("switched", "told0", here=True), (link("told0"),), False),
        (port("switched", "patch-x", type="patch"), (), False),
        (port("other", "eth1", here=True), (link("eth1"),), False),
        (port("switched", "switched-t", here=True), (link("switched-t", "gretap"),), False),
    ],
)
def test_a_bridge_that_somebody_else_is_on(foreign: Object, links: tuple[Object, ...], held: bool) -> None:
    config = {"bridge.driver": "openvswitch", "ipv4.address": "10.97.0.1/24", "bridge.external_interfaces": "told0"}
    facts = {"type": "bridge", "managed": True, "config": config, "addresses": ["10.97.0.1"]}
    records = (Record("network", "switched", "api", facts),)
    own = bridge("switched", address="10:66:6a:00:00:01", addresses=["10.97.0.1"])
    product = load("incus")
    case = Case("incus", Presence.ABSENT, {"ovs": (own, foreign), "link": links, "process": (), "netns": ()}, records)
    claim = attribute(case, {"ovs": product.rules["ovs"]}, product.recall, product.holds)["ovs:bridge switched"]
    assert claim.proven and claim.role is (Role.HELD if held else Role.LIVE)
    if held:
        assert claim.advice == f"ovs-vsctl del-port switched {foreign.facts['name']} && leftovers clean incus"


def test_records_speak_of_a_switch() -> None:
    relies = load("incus").relies
    assert relies((OVN,)) == ("ovs",) and relies((CEPH, CLUSTER)) == ()
    assert relies((Record("network", "n", "api", {"config": {"bridge.driver": "openvswitch"}}),)) == ("ovs",)
