"""A managed network's bridge goes with its product, but not from under somebody else who is on it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import incus_like
import pytest
from incus_like import INCUS, LXD, MEMBERS, Member
from sandbox import private, sh
from test_clean import assert_same, leftovers, settled
from things import until

BRIDGE = INCUS.bridge


def ports(bridge: str) -> set[str]:
    lines = sh("ip", "-o", "link", "show", "master", bridge).splitlines()
    return {line.split()[1].strip(":").partition("@")[0] for line in lines}


def links() -> str:
    return sh("ip", "-o", "link")


def left(capsys: pytest.CaptureFixture[str], name: str) -> dict[str, dict[str, str]]:
    capsys.readouterr()
    assert leftovers("verify", name, "--json") == 3
    return {item["id"]: item for item in json.loads(capsys.readouterr().out)["objects"] if item["counts"]}


@pytest.mark.parametrize("going", MEMBERS, ids=lambda of: of.name)
@private
def test_another_member_s_container_plugged_in_by_hand(going: Member, capsys: pytest.CaptureFixture[str]) -> None:
    staying = next(member for member in MEMBERS if member is not going)
    incus_like.prepare(LXD)
    incus_like.admin(staying)
    os.makedirs("/srv/pool/x")
    incus_like.incus(2, purged=False, of=staying)
    before = settled()
    incus_like.incus(2, purged=False, of=going, first=11)
    pid = incus_like.container("c5", 5, going.bridge, staying)
    with_it = settled()
    incus_like.purge(going)

    assert leftovers("clean", going.name, "--yes") == 0, capsys.readouterr().out
    assert ports(going.bridge) == {"veth00000005"} and os.path.exists(f"/proc/{pid}")
    assert list(left(capsys, going.name)) == [f"link:{going.bridge}"]
    held = left(capsys, going.name)[f"link:{going.bridge}"]
    assert held["advice"] == f"ip link set veth00000005 nomaster && leftovers clean {going.name}"
    assert "its other end is in the network namespace of pid " in held["evidence"][0]["text"]
    # All evidence but the ledger's is gone by now. Nothing changes while the container runs, then the bridge goes.
    assert leftovers("clean", going.name, "--yes") == 0
    assert ports(going.bridge) == {"veth00000005"}
    assert leftovers("verify", staying.name) == 0
    assert left(capsys, going.name)[f"link:{going.bridge}"] == held
    sh("ip", "link", "set", "veth00000005", "nomaster")
    assert left(capsys, going.name)[f"link:{going.bridge}"]["reason"] == "a managed network's bridge"
    assert leftovers("clean", going.name, "--yes") == 0
    assert leftovers("verify", going.name) == 0
    now = settled()
    gone = set(with_it["links"]) - set(now["links"])
    assert going.bridge in gone and "veth00000005" not in gone
    assert set(before["links"]) <= set(now["links"])


@pytest.mark.parametrize("named", [("incus", "lxd"), ("lxd", "incus")])
@pytest.mark.parametrize("bridge", MEMBERS, ids=lambda of: f"on-{of.bridge}")
@private
def test_both_are_purged(bridge: Member, named: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    """Who is on it goes too, in the same run."""
    incus_like.prepare(LXD)
    incus_like.admin()
    os.makedirs("/srv/pool/x")
    other = next(member for member in MEMBERS if member is not bridge)
    incus_like.incus(1, purged=False, of=bridge)
    incus_like.incus(1, purged=False, of=other, first=11)
    incus_like.container("c5", 5, bridge.bridge, other)
    for member in MEMBERS:
        incus_like.purge(member)
    assert leftovers("clean", *named, "--yes") == 0, capsys.readouterr().out
    assert not [name for name in (INCUS.bridge, LXD.bridge, "veth00000005") if name in links()]
    assert leftovers("verify") == 0, capsys.readouterr().out


def tap() -> None:
    incus_like.spawn(
        incus_like.copy("/run/lab/fake/guest"),
        ["guest"],
        "import fcntl, struct, time\n"
        "fd = open('/dev/net/tun', 'r+b', buffering=0)\n"
        "fcntl.ioctl(fd, 0x400454CA, struct.pack('16sH14x', b'vnet0', 0x1002))\n"
        "time.sleep(1000)\n",
    )
    until(lambda: "vnet0" in links())
    sh("ip", "link", "set", "vnet0", "master", BRIDGE)


def in_a_namespace() -> None:
    os.makedirs("/run/netns", exist_ok=True)
    sh("ip", "netns", "add", "mine")
    sh("ip", "link", "add", "vnet0", "type", "veth", "peer", "name", "eth0", "netns", "mine")
    sh("ip", "link", "set", "vnet0", "master", BRIDGE, "up")


def in_the_host() -> None:
    sh("ip", "link", "add", "vnet0", "type", "veth", "peer", "name", "uplink")
    sh("ip", "address", "add", "192.0.2.1/24", "dev", "uplink")
    sh("ip", "link", "set", "vnet0", "master", BRIDGE)


def card() -> None:
    sh("ip", "link", "add", "vnet0", "type", "ifb")
    sh("ip", "link", "set", "vnet0", "master", BRIDGE, "up")


def macvlan() -> None:
    sh("ip", "link", "set", BRIDGE, "up")
    sh("ip", "link", "add", "link", BRIDGE, "name", "vnet0", "type", "macvlan")
    sh("ip", "link", "set", "vnet0", "up")


def macvlan_down() -> None:
    sh("ip", "link", "add", "link", BRIDGE, "name", "vnet0", "type", "macvlan")


def vlan_down() -> None:
    """Where this kernel has VLANs, which those of build machines may not."""
    sh("ip", "link", "add", "link", BRIDGE, "name", "vnet0", "type", "vlan", "id", "5", check=False)
    if "vnet0" not in links():
        macvlan_down()


def macvlan_on_two() -> None:
    """A port of the administrator's bridge that stands on the product's."""
    macvlan_down()
    sh("ip", "link", "set", "vnet0", "master", "br-lan")


def tunnel() -> None:
    """Named as one of the network's own: it is no port, and would go with the bridge."""
    sh("ip", "link", "add", f"{BRIDGE}-vnet0", "type", "vxlan", "id", "42", "dstport", "4789", "dev", BRIDGE)


def macvlan_elsewhere() -> None:
    os.makedirs("/run/netns", exist_ok=True)
    sh("ip", "netns", "add", "mine")
    sh("ip", "link", "add", "link", BRIDGE, "name", "vnet0", "netns", "mine", "type", "macvlan")


@pytest.mark.parametrize(
    "plug",
    [
        tap,
        in_a_namespace,
        in_the_host,
        card,
        macvlan,
        macvlan_down,
        vlan_down,
        macvlan_on_two,
        tunnel,
        macvlan_elsewhere,
    ],
)
@private
def test_whoever_is_on_it_keeps_it(plug: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    os.makedirs("/srv/pool/x")
    incus_like.incus(2, purged=False)
    plug()
    incus_like.purge()
    assert leftovers("clean", "incus", "--yes") == 0, capsys.readouterr().out
    assert f"{BRIDGE}:" in links() and "veth00000001" not in links()
    where = ("-n", "mine") if plug is macvlan_elsewhere else ()
    assert "vnet0" in sh("ip", *where, "-o", "link")
    held = left(capsys, "incus")
    assert list(held) == [f"link:{BRIDGE}"] and "vnet0" in held[f"link:{BRIDGE}"]["evidence"][0]["text"]
    name = f"{BRIDGE}-vnet0" if plug is tunnel else "vnet0"
    if plug in (macvlan, macvlan_down, macvlan_on_two, tunnel):
        assert held[f"link:{BRIDGE}"]["advice"] == f"ip link delete {name} && leftovers clean incus"
    sh("ip", *where, "link", "delete", name)
    assert leftovers("clean", "incus", "--yes") == 0
    assert f"{BRIDGE}:" not in links()
    assert leftovers("verify", "incus") == 0


@private
def test_what_leads_to_nobody_does_not(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    os.makedirs("/srv/pool/x")
    sh("ip", "link", "add", "vnet0", "type", "veth", "peer", "name", "vnet1")
    sh("ip", "link", "set", "vnet1", "up")
    sh("ip", "link", "set", "vnet0", "up")
    sh("ip", "tuntap", "add", "vnet2", "mode", "tap")
    sh("ip", "link", "add", "vnet3", "type", "ifb")
    before = settled()
    incus_like.incus(2, purged=False)
    for name in ("vnet0", "vnet2", "vnet3"):
        sh("ip", "link", "set", name, "master", BRIDGE)
    # A tunnel of the network's, of which nothing is written down any more.
    sh("ip", "link", "add", f"{BRIDGE}-t1", "type", "vxlan", "id", "42", "dstport", "4789", "dev", "lo")
    sh("ip", "link", "set", f"{BRIDGE}-t1", "master", BRIDGE, "up")
    incus_like.purge()
    assert leftovers("clean", "incus", "--yes") == 0, capsys.readouterr().out
    assert f"{BRIDGE}:" not in links()
    sh("ip", "link", "delete", f"{BRIDGE}-t1")
    assert_same(settled(), before)
    assert leftovers("verify", "incus") == 0
