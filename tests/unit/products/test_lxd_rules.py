"""Where LXD differs from Incus: no range of hardware addresses of its own, no directory in /run, another trace of the
package. What it has in common is tested for both in test_incus_rules.py. And what one member of the family must not
take for its own when it is another's."""

from __future__ import annotations

import pytest
from test_incus_rules import HostOf, file, rule

from leftovers.model import Role
from leftovers.products import load
from leftovers.transaction import Arriving, replacement


class Plain(HostOf):
    """A host that is told of LXD."""

    def __init__(self, product: str = "lxd") -> None:
        super().__init__(product)
        self.words, self.back = {}, {}


@pytest.fixture
def host() -> Plain:
    return Plain()


def been(host: HostOf) -> None:
    host.add("account", "user _lxd", ("u",), type="user", name="_lxd", line="_lxd:x:101:102::/var/lib/lxd/:/bin/false")


def served(host: HostOf, network: str, directory: str = "/var/lib/lxd", pid: int = 5) -> None:
    conf = f"--conf-file={directory}/networks/{network}/dnsmasq.raw"
    host.process(pid, "/usr/sbin/dnsmasq", "dnsmasq", f"--interface={network}", conf)


def test_a_stranded_pair_is_known_by_a_bridge_of_lxd_s_and_not_by_its_address_alone(host: Plain) -> None:
    served(host, "lxdbr0")
    host.link("lxdbr0", "bridge", address="00:16:3e:00:00:ff")
    host.link("br-lan", "bridge", address="00:16:3e:00:00:fe")
    for number, master in ((1, "lxdbr0"), (2, "br-lan")):
        pair = f"veth{number}1111111", f"veth{number}2222222"
        mac = f"00:16:3e:00:00:0{number}"
        host.link(pair[0], master=master, peer=pair[1], peer_netns=1, peer_address=mac)
        host.link(pair[1], peer=pair[0], peer_netns=1, peer_address="aa:aa:aa:aa:aa:aa", address=mac)
    # LXC's own, that an administrator plugged into LXD's bridge: another shape.
    host.link("vethXyZ123", master="lxdbr0", peer="eth9", peer_netns=1, peer_address="00:16:3e:00:00:09")
    assert host.proven() == {"process:5", "link:lxdbr0", "link:veth11111111", "link:veth12222222"}


def test_a_stranded_pair_with_an_address_that_lxd_gave(host: Plain) -> None:
    host.instance("c1", source="database", running=False, hwaddr="00:16:3e:00:00:01")
    host.link("veth11111111", peer="veth12222222", peer_netns=1, peer_address="00:16:3e:00:00:01", master="br-lan")
    host.link("veth12222222", peer="veth11111111", peer_netns=1, address="00:16:3e:00:00:01")
    assert host.proven() == {"link:veth11111111", "link:veth12222222"}


def test_a_bridge_wants_lxd_s_firewall_beside_an_address_of_the_shared_range(host: Plain) -> None:
    been(host)
    host.record("network", "lan0", "ledger", type="bridge", managed=True, config={"ipv4.address": "10.0.0.1/24"})
    host.link("lan0", "bridge", address="00:16:3e:00:00:01", addresses=["10.0.0.1"])
    assert "link:lan0" not in host.proven()
    host.table("lxd", "fwd.lan0", "in.lan0")
    assert "link:lan0" in host.proven()


def test_names_made_from_an_address(host: Plain) -> None:
    host.container("c1", 10, netns=77)
    host.process(30, "/usr/bin/lxd (deleted)", "[lxc monitor] /var/lib/lxd/containers c2", cgroup="/lxc.monitor.c2")
    host.process(31, "/init", "init", ppid=30, nested=True, netns=88, mntns=9, cgroup="/lxc.payload.c2")
    host.link("lxd00163e0001", peer="eth0", peer_netns=88, peer_address="00:16:3e:00:00:01")
    host.link("lxd0016aabbccddee", peer="eth1", peer_netns=88, peer_address="00:16:3e:00:00:02")
    host.link("lxd00163eaabb", peer="eth2", peer_netns=77, peer_address="00:16:3e:00:00:03")
    assert {id for id in host.proven() if id.startswith("link:")} == {"link:lxd00163e0001"}


def test_a_group_that_cloud_images_have_is_no_trace_of_lxd(host: Plain) -> None:
    host.add("account", "group lxd", ("g",), type="group", name="lxd", line="lxd:x:110:ubuntu")
    host.add("account", "subuid root", ("s",), type="subuid", name="root", line="root:100000:65536")
    host.add("sysctl", "net.ipv4.ip_forward", ("i",), name="net.ipv4.ip_forward", value="1")
    host.table("lxd")
    host.cgroup("/lxc.pivot")
    assert not host.proven() & {"nft:inet lxd", "cgroup:/lxc.pivot"}
    been(host)
    assert host.proven() == {"nft:inet lxd", "cgroup:/lxc.pivot"}


def test_directories(host: Plain) -> None:
    for path in ("/var/lib/lxd", "/var/log/lxd", "/var/cache/lxd", "/var/lib/lxd-backup", "/var/lib/incus", "/run/lxd"):
        file(host, path)
    file(host, "/run/lxc/lock/var/lib/lxd")
    file(host, "/run/lxc/lock/var/lib/incus")
    wanted = {"/var/lib/lxd", "/var/log/lxd", "/var/cache/lxd", "/run/lxc/lock/var/lib/lxd"}
    assert host.proven() == {f"file:{path}" for path in wanted}


@pytest.mark.parametrize("name", ["incus-base", "incus", "lxd-client"])
def test_incus_comes_in_lxd_s_place_and_not_the_other_way(name: str) -> None:
    comes = [Arriving(name, "1", "/nowhere")]
    assert replacement(load("lxd"), ["lxd"], comes) == (name if name.startswith("incus") else "")
    assert replacement(load("incus"), ["incus-base", "incus"], [Arriving("lxd", "1", "/nowhere")]) == ""


# -- the other's ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("product", "rival", "title"), [("lxd", "incus", "Incus"), ("incus", "lxd", "LXD")])
@pytest.mark.parametrize("mark", ["dnsmasq", "nft", "xtables"])
def test_a_network_that_another_member_took_over(product: str, rival: str, title: str, mark: str) -> None:
    host = Plain(product)
    config = {"volatile.bridge.hwaddr": "00:16:3e:00:00:01", "ipv4.address": "10.0.0.1/24"}
    host.record("network", "lxdbr0", "ledger", type="bridge", managed=True, config=config)
    host.link("lxdbr0", "bridge", address="00:16:3e:00:00:01", addresses=["10.0.0.1"])
    assert "link:lxdbr0" in host.proven(), "so it is without the other"
    if mark == "dnsmasq":
        served(host, "lxdbr0", f"/var/lib/{rival}")
    elif mark == "nft":
        host.table(rival, "fwd.lxdbr0")
    else:
        rule(host, "1", comment=f"generated for {title} network lxdbr0")
    claim = host.claims()["link:lxdbr0"]
    assert claim.role is Role.ADMIN and "another product" in claim.reason
    # Who answers for it himself is believed.
    served(host, "lxdbr0", f"/var/lib/{product}", pid=6)
    assert "link:lxdbr0" in host.proven()


@pytest.mark.parametrize("product", ["lxd", "incus"])
def test_nothing_of_the_other_s_running_container_is_ours(product: str) -> None:
    host = Plain(product)
    rival, exe = ("incus", "/usr/libexec/incus/incusd") if product == "lxd" else ("lxd", "/usr/bin/lxd")
    host.process(30, exe, f"[lxc monitor] /var/lib/{rival}/containers c1", cgroup="/lxc.monitor.c1")
    root = ["8:1", f"/var/lib/{rival}/storage-pools/default/containers/c1/rootfs"]
    where = {"nested": True, "netns": 88, "mntns": 9, "mount_root": root, "cgroup": "/lxc.payload.c1"}
    host.process(31, "/init", "init", ppid=30, **where)
    for path in ("/lxc.monitor.c1", "/lxc.payload.c1"):
        host.cgroup(path, populated=True)
    host.cgroup("/lxc.pivot")
    host.add("netns", "88", (88,), inode=88, host=False, processes=[31], pins=[])
    # Both know a c1, with a device of the same name and address: lxd-to-incus has copied it.
    host.instance("c1", "ledger", host_name="veth11111111", hwaddr="00:16:3e:00:00:01")
    host.link("lxdbr0", "bridge", address="00:16:3e:00:00:ff")
    host.link("veth11111111", master="lxdbr0", peer="eth0", peer_netns=88, peer_address="00:16:3e:00:00:01")
    host.mount(f"/var/lib/{rival}/shmounts")
    name = f"{rival}-c1_</var/lib/{rival}>"
    host.add("apparmor", f"profile {name}", (name,), type="profile", name=name, mode="enforce", processes=[])
    host.table(rival, "fwd.lxdbr0")
    rule(host, "1", comment=f"generated for {'LXD' if rival == 'lxd' else 'Incus'} container c1 (eth0)")
    file(host, f"/run/lxc/lock/var/lib/{rival}")
    file(host, "/run/lxc", hollow=True)
    assert host.proven() == set()
    assert all(claim.role is Role.ADMIN for claim in host.claims().values()), "and nothing of it counts as left"
