"""Old words and names that are like Incus' beside things that the administrator has made since."""

from __future__ import annotations

import pytest
from test_incus_rules import HostOf

from leftovers.kinds.xtables import objects_of, parse
from leftovers.model import Role


@pytest.fixture
def host() -> HostOf:
    return HostOf()


def removable(host: HostOf, id: str) -> bool:
    """Whether clean would remove it, where the package is gone."""
    claim = host.claims().get(id)
    return claim is not None and claim.proven and claim.role in (Role.LIVE, Role.DATA)


def vlan(host: HostOf, source: str) -> None:
    """enp1s0.5, and words about a network that created it."""
    config = {"parent": "enp1s0", "vlan": "5", "volatile.last_state.created": "true"}
    host.link("enp1s0", "")
    host.link("enp1s0.5", "vlan", peer="enp1s0", vlan=5)
    host.record("network", "v5", source, type="macvlan", managed=True, config=config)


def test_a_vlan_link_that_incus_created_before_some_reboot(host: HostOf) -> None:
    # No VLAN link outlives a reboot: the one that is there today may be the administrator's, with the same name.
    vlan(host, "ledger")
    assert not removable(host, "link:enp1s0.5")


def test_a_vlan_link_that_the_daemon_says_it_created(host: HostOf) -> None:
    vlan(host, "api")
    assert removable(host, "link:enp1s0.5")


def test_a_tunnel_with_a_name_of_incus_shape_that_its_network_does_not_have(host: HostOf) -> None:
    config = {"tunnel.site1.protocol": "vxlan"}
    host.record("network", "incusbr0", type="bridge", managed=True, config=config)
    host.link("incusbr0", "bridge")
    for name in ("incusbr0-site1", "incusbr0-site2"):
        host.link(name, "vxlan", master="incusbr0")
    assert removable(host, "link:incusbr0-site1")
    assert not removable(host, "link:incusbr0-site2")


@pytest.mark.parametrize(
    "match",
    ["! -i incusbr0 -o br-lan", "-i br-lan ! -o incusbr0", "! -i veth11111111", "-i ! veth11111111 -o br-lan"],
)
def test_a_bridge_rule_for_everything_but_incus(host: HostOf, match: str) -> None:
    host.container("c1", 10, netns=77)
    host.record("network", "incusbr0", type="bridge", managed=True, config={})
    host.link("incusbr0", "bridge")
    host.link("veth11111111", peer="eth0", peer_netns=77, peer_address="10:66:6a:00:00:01")
    saved = parse(f"*filter\n-A FORWARD {match} -j DROP\n-A FORWARD -i veth11111111 -j ACCEPT\n", "bridge")
    everybody, incus = objects_of(("bridge", "nft"), saved)
    host.listed["xtables"] = [everybody, incus]
    assert removable(host, "link:veth11111111") and removable(host, incus.id)
    assert not removable(host, everybody.id)
