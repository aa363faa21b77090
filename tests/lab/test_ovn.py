"""Open vSwitch and OVN: real switches, with Incus' bridges and instances on them, beside the administrator's own.

The machine's kernel has no Open vSwitch, so all bridges have the switch's own datapath (datapath_type=netdev): Incus
asks for the kernel's, and while it waits for the bridge to appear, a unit of the lab gives it the other.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from lab import hoststate, incus
from lab.machine import RECIPES, Machine
from lab.scenario import CHANGED, KEPT, LEFT, Arrive, clean, document, leftovers, same

pytestmark = [
    pytest.mark.full,
    pytest.mark.parametrize("machine", [{"recipe": RECIPES["ovn-trixie"]}], indirect=True),
]

# A switch of the administrator's, with a port that is a link, one whose link is gone, and one that another tool told
# OVN about; and a bridge that OVN knows as the way to his own network.
ADMIN = """
ovs-vsctl set open_vswitch . external_ids:ovn-bridge-datapath-type=netdev \
    external_ids:ovn-remote=unix:/run/ovn/ovnsb_db.sock external_ids:ovn-encap-type=geneve \
    external_ids:ovn-encap-ip=127.0.0.1 external_ids:ovn-bridge-mappings=offices:ovs1
ip link add vethovs0 type veth peer name vethovs1
ip link add veth0a0b0c0d type veth peer name vethovs3
ovs-vsctl add-br ovs0 -- set bridge ovs0 datapath_type=netdev -- add-port ovs0 vethovs0 -- \
    add-port ovs0 veth0a0b0c0d -- set interface veth0a0b0c0d external_ids:iface-id=incus-network-of-mine
ovs-vsctl --no-wait add-port ovs0 vethabad1dea
ovs-vsctl add-br ovs1 -- set bridge ovs1 datapath_type=netdev
ovn-nbctl ls-add office
for i in $(seq 100); do [ -e /sys/class/net/br-int ] && break; sleep 0.1; done
sleep 1
"""

USE = (
    """
systemd-run -q --unit=lab-netdev sh -c \
    'while :; do for b in $(ovs-vsctl list-br); do ovs-vsctl get bridge $b datapath_type | grep -q netdev ||
        ovs-vsctl set bridge $b datapath_type=netdev; done; sleep 0.05; done'
incus admin init --minimal
incus config set network.ovn.northbound_connection unix:/run/ovn/ovnnb_db.sock
incus -q network create uplink ipv4.address=10.96.0.1/24 ipv6.address=none ipv4.dhcp.ranges=10.96.0.50-10.96.0.99 \
    ipv4.ovn.ranges=10.96.0.100-10.96.0.150
incus -q network create ovn1 --type=ovn network=uplink ipv6.address=none
incus -q network create switched bridge.driver=openvswitch ipv4.address=10.97.0.1/24 ipv6.address=none
"""
    + incus.IMAGE
    + """
incus -q launch bb o1 --network ovn1
incus -q launch bb s1 --network switched
incus -q init bb b1
incus -q config device add b1 eth0 nic nictype=bridged parent=ovs0
incus -q start b1
systemctl stop lab-netdev
"""
)
DATABASE = r"ovn "  # OVN's: on another machine, as a rule


def lived(m: Machine) -> dict[str, Any]:
    incus.admin_things(m)
    m.run(ADMIN, timeout=60)
    before = m.snapshot()
    incus.install(m)
    m.run(USE, timeout=240)
    return before


def advised(m: Machine) -> None:
    """Do what a person is told to do about OVN's database."""
    (said,) = [o for o in document(m, "scan", "incus") if o["kind"] == "elsewhere"]
    assert said["name"] == "OVN network ovn1"
    assert re.match(r"ovn-nbctl --if-exists lr-del incus-net[1-9]", said["advice"])
    m.run(said["advice"])


def test_purged_without_us(machine: Machine, arrive: Arrive) -> None:
    """Without a record from before, the number of the network in OVN's database is not known any more."""
    before = lived(machine)
    incus.purge(machine)
    arrive(machine)
    planned = {o["id"] for o in document(machine, "plan", "incus") if o["action"] == "remove"}
    assert {"ovs:bridge switched", "ovs:bridge incusovn2"} - planned == set(), planned
    clean(machine, before, keep=[*KEPT, DATABASE])


def test_recorded_before(machine: Machine, arrive: Arrive) -> None:
    arrive(machine)
    before = lived(machine)
    leftovers(machine, "record", "incus")
    incus.purge(machine)
    clean(machine, before, keep=[*KEPT, DATABASE])
    advised(machine)
    same(machine, before, keep=KEPT)


def test_purged_with_the_hooks(machine: Machine, arrive: Arrive) -> None:
    arrive(machine)
    before = lived(machine)
    done = machine.run(["apt-get", "purge", "-y", "-q", *incus.PACKAGES], timeout=300)
    same(machine, before, keep=[*KEPT, DATABASE], said=done.out + done.err)
    assert re.search(r"(?m)^leftovers: Incus: .*; OVN network ovn1: .*ovn-nbctl --if-exists lr-del incus-net", done.out)
    advised(machine)
    same(machine, before, keep=KEPT)


def test_a_switch_that_somebody_else_is_on(machine: Machine, arrive: Arrive) -> None:
    """The administrator put a port of his own on Incus' bridge: it stays, and goes when he has left it. Then the switch
    is stopped: its database is not the host's word that nothing is there."""
    before = lived(machine)
    machine.run(
        """
        ovs-vsctl add-port switched mgmt0 -- set interface mgmt0 type=internal
        ip addr add 10.97.0.9/24 dev mgmt0; ip link set mgmt0 up
        """
    )
    mine = machine.run("ip -br addr show dev mgmt0").out
    arrive(machine)
    leftovers(machine, "record", "incus")
    incus.purge(machine)
    leftovers(machine, "clean", "incus", "--yes")
    assert machine.run("ip -br addr show dev mgmt0").out == mine
    (held,) = [o for o in document(machine, "verify", "incus", code=LEFT) if o["counts"]]
    assert held["id"] == "ovs:bridge switched" and "mgmt0" in held["evidence"][0]["text"]

    machine.run("systemctl stop openvswitch-switch")
    said = leftovers(machine, "verify", "incus", code=None)
    assert said.code != 0 and "Open vSwitch does not run" in said.out + said.err, said.out
    machine.run("systemctl start openvswitch-switch")
    assert held["advice"].startswith("ovs-vsctl del-port switched mgmt0 && ")
    machine.run(held["advice"].partition(" && ")[0])
    said = leftovers(machine, "clean", "incus", "--yes")
    control = r"^(file|unix u_str) (/var)?/run/openvswitch/ovs[^ ]*\.ctl$"  # the switch was started anew
    keep = [*(f"^{kept}" for kept in (*KEPT, DATABASE)), control]
    again = [*(f"^{change}" for change in CHANGED), r"^process ovs(-vswitchd|db-server) "]
    found = hoststate.compare(before, machine.snapshot(), keep=keep, changed=again, lost=[control])
    assert hoststate.count(found) == 0, f"\n{hoststate.render(found)}\n{said.out}"
    leftovers(machine, "verify", "incus")
