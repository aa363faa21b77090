"""Whose is it? Incus' and LXD's rules on recorded objects: what no kernel here will give us, and the traps by name
(facts: incus-lxd-docker, sections 0 and 1). tests/kernel and tests/lab have what can be had for real."""

from __future__ import annotations

import re
from typing import Any

import pytest

from leftovers.claims import Case, attribute
from leftovers.model import Claim, Evidence, Object, Presence, Record, Role
from leftovers.products import load

EXE = "/usr/libexec/incus/incusd"
# The same host with LXD in Incus' place, and Incus in LXD's. What else differs has tests of its own.
LXD = {
    EXE: "/usr/bin/lxd",
    "/usr/bin/lxd": EXE,
    "/run/incus": "/var/log/lxd",
    "group incus-admin": "user _lxd",
    "guestapi": "devlxd",
    "incus": "lxd",
    "lxd": "incus",
    "Incus": "LXD",
    "LXD": "Incus",
}
INCUS_AGAIN = {other: word for word, other in LXD.items()}
LXD["10:66:6a:"] = "00:16:3e:"  # LXD has no range of its own


def translated(value: Any, words: dict[str, str]) -> Any:
    """A value with these words in all its strings, the longest first and each once."""
    if isinstance(value, str):
        pattern = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
        return re.sub(pattern, lambda match: words[match[0]], value) if words else value
    if isinstance(value, (list, tuple)):
        return type(value)(translated(each, words) for each in value)
    if isinstance(value, dict):
        return {key: translated(each, words) for key, each in value.items()}
    return value


class HostOf:
    """A host made of literal objects, told of Incus; `product` may be LXD all the same."""

    def __init__(self, product: str = "incus") -> None:
        self.product = load(product)
        self.words, self.back = ({}, {}) if product == "incus" else (LXD, INCUS_AGAIN)
        self.listed: dict[str, list[Object]] = {}
        self.records: list[Record] = []
        self.mount("/", "8:1", "/", "ext4")

    def add(self, kind: str, key: str, identity: tuple[Any, ...], /, **facts: Any) -> Object:
        obj = Object(kind, *translated((key, identity, facts), self.words))
        self.listed.setdefault(kind, []).append(obj)
        return obj

    def process(self, pid: int, exe: str, *argv: str, ppid: int = 1, **facts: Any) -> Object:
        known = {"cgroup": "/", "nested": False, "netns": 1, "mntns": 1, "pidns": 1, "uid": 0, "self": False, **facts}
        known = {"our_net": known["netns"] == 1, "our_mnt": known["mntns"] == 1, **known}
        return self.add("process", str(pid), (pid, 9), pid=pid, ppid=ppid, start=9, exe=exe, argv=list(argv), **known)

    def monitor(self, pid: int, name: str) -> Object:
        return self.process(
            pid, f"{EXE} (deleted)", f"[lxc monitor] /var/lib/incus/containers {name}", cgroup=f"/lxc.monitor.{name}"
        )

    def container(self, name: str, pid: int, netns: int = 77) -> Object:
        """A running container: its monitor, its init and its cgroups."""
        self.monitor(pid, name)
        for group in ("monitor", "payload"):
            self.cgroup(f"/lxc.{group}.{name}", populated=True)
        where = {"cgroup": f"/lxc.payload.{name}", "nested": True, "netns": netns, "mntns": pid}
        return self.process(pid + 1, "/bin/init", "init", ppid=pid, **where)

    def cgroup(self, path: str, populated: bool = False) -> Object:
        return self.add(
            "cgroup", path, (path, 1), path=path, directory=f"/sys/fs/cgroup{path}", hierarchy="", populated=populated
        )

    def link(self, name: str, type: str = "veth", netns: int = 1, **facts: Any) -> Object:
        known = {
            "address": "aa:aa:aa:aa:aa:aa", "addresses": [], "mtu": 1500, "master": "", "peer": "", "peer_netns": 0,
            "peer_index": 0, "peer_address": "", "vlan": 0, "up": True, "group": 0, "pid": 0, **facts,
        }  # fmt: skip
        number = len(self.listed.get("link", ())) + 1
        key = name if netns == 1 else f"{netns}/{name}"
        return self.add(
            "link",
            key,
            (netns, number, name),
            name=name,
            index=number,
            type=type,
            netns=netns,
            host=netns == 1,
            **known,
        )

    def mount(self, point: str, majmin: str = "0:50", root: str = "/", fstype: str = "tmpfs", **facts: Any) -> Object:
        known = {
            "options": "rw",
            "shared": 1,
            "master": 0,
            "source": fstype,
            "ns": 1,
            "pid": 0,
            "host": True,
            "configured": "",
            **facts,
        }
        number = len(self.listed.get("mount", ())) + 10
        return self.add(
            "mount",
            point,
            (1, number),
            id=number,
            parent=1,
            majmin=majmin,
            root=root,
            point=point,
            fstype=fstype,
            **known,
        )

    def table(self, name: str, *chains: str, family: str = "inet") -> Object:
        return self.add(
            "nft", f"{family} {name}", (family, name, 1), family=family, name=name, chains=list(chains), sets=[]
        )

    def record(self, type: str, name: str, source: str = "api", /, **facts: Any) -> None:
        name, facts = translated((name, facts), self.words)
        self.records.append(Record(type, name, source, facts))

    def places(self) -> tuple[str, ...]:
        found: tuple[str, ...] = translated(self.product.places(tuple(self.records)), self.back)
        return found

    def instance(self, name: str, source: str = "api", running: bool = True, disks: Any = (), **nic: Any) -> None:
        known = {"device": "eth0", "nictype": "bridged", "network": "", "parent": "", "host_name": "", "hwaddr": ""}
        self.record(
            "instance", name, source, running=running, nics=[{**known, **nic}] if nic else [], disks=list(disks)
        )

    def claims(self, elsewhere: dict[str, Claim] | None = None) -> dict[str, Claim]:
        listed = {kind: tuple(objects) for kind, objects in self.listed.items()}
        case = Case(self.product.name, Presence.ABSENT, listed, tuple(self.records), elsewhere or {})
        claims = attribute(case, self.product.rules, holds=self.product.holds)
        return {translated(id, self.back): claim for id, claim in claims.items()}

    def proven(self) -> set[str]:
        """What would be removed if the package is gone."""
        return {id for id, claim in self.claims().items() if claim.proven and claim.role in (Role.LIVE, Role.DATA)}


def been(host: HostOf) -> None:
    """Incus has been on this host: its package's group outlives a purge."""
    host.add("account", "group incus-admin", ("g",), type="group", name="incus-admin", line="incus-admin:x:989:")


@pytest.fixture(params=["incus", "lxd"])
def host(request: pytest.FixtureRequest) -> HostOf:
    return HostOf(request.param)


@pytest.fixture
def incus() -> HostOf:
    return HostOf("incus")


@pytest.fixture
def lxd() -> HostOf:
    return HostOf("lxd")


# -- processes ------------------------------------------------------------------------------------------------------


def test_trap_0_1_the_daemon_lives_on_with_its_file_deleted(host: HostOf) -> None:
    host.process(10, f"{EXE} (deleted)", EXE, "--group", "incus-admin", cgroup="/system.slice/incus.service")
    host.process(11, "/usr/bin/rsync", "rsync", "-a", cgroup="/system.slice/incus.service")
    host.process(12, "/usr/bin/rsync", "rsync", "-a", cgroup="/system.slice/incus.service-mine")
    host.add("unit", "incus.service", ("incus.service", "1"), unit="incus.service", load="not-found", active="active",
             sub="running", file="", cgroup="/system.slice/incus.service", pid=10)  # fmt: skip
    assert host.proven() == {"process:10", "process:11", "unit:incus.service"}


def test_arguments_prove_nothing(host: HostOf) -> None:
    host.process(10, "/usr/bin/sleep", "[lxc monitor] /var/lib/incus/containers c1")
    host.process(11, "/usr/bin/vim", EXE, "--group", "incus-admin")
    host.process(12, "/home/me/bin/incusd", EXE)
    host.process(13, "/usr/bin/less", "less", "/var/lib/incus/networks/incusbr0/dnsmasq.leases")
    host.process(14, "/usr/sbin/dnsmasq", "dnsmasq", "--conf-file=/etc/dnsmasq.conf", "--interface=incusbr0")
    host.process(15, "/usr/sbin/dnsmasq", "dnsmasq", "--conf-file=/var/lib/incus-old/networks/x/dnsmasq.raw")
    assert host.proven() == set()
    look_alike = host.claims()["process:10"]
    assert not look_alike.proven and look_alike.role is Role.ADMIN


def test_helpers_are_known_by_file_and_by_the_directory_in_their_arguments(host: HostOf) -> None:
    host.process(
        10,
        "/usr/sbin/dnsmasq",
        "dnsmasq",
        "--interface=incusbr0",
        "--dhcp-hostsfile=/var/lib/incus/networks/incusbr0/dnsmasq.hosts",
    )
    host.process(11, EXE, EXE, "forkproxy", "--", "1", "4")
    host.process(12, "/usr/bin/qemu-system-x86_64", "qemu", "-readconfig", "/run/incus/vm1/qemu.conf")
    host.process(13, "/usr/libexec/virtiofsd", "virtiofsd", "--socket-path=/var/lib/incus/devices/vm1/virtio-fs.x.sock")
    host.process(
        14, "/usr/bin/swtpm", "swtpm", "socket", "--ctrl", "type=unixio,path=/var/lib/incus/devices/vm1/tpm.sock"
    )
    host.process(15, "/usr/bin/qemu-system-x86_64", "qemu", "-readconfig", "/srv/vm/qemu.conf")
    assert host.proven() == {f"process:{pid}" for pid in range(10, 15)}


def test_virtual_machines_as_they_are_started(incus: HostOf, lxd: HostOf) -> None:
    """The arguments of Incus 6.0.4, as seen, and of LXD 5.0.2, as seen but for the proxy. virtiofsd serves from a
    sandbox with a pid namespace of its own: its second process is no container's init."""
    qemu, virtiofsd, inside = "/usr/bin/qemu-system-x86_64", "/usr/lib/qemu/virtiofsd", {"nested": True, "pidns": 5}
    started = {
        incus: ("/var/lib/incus", "/run/incus", "--shared-dir=/var/lib/incus/devices/v1/disk.data.mnt-data"),
        lxd: ("/var/lib/lxd", "/var/log/lxd", "-o source=/var/lib/lxd/devices/v1/disk.data.mnt-data"),
    }
    for host, (directory, run, shared) in started.items():
        host.words, host.back = {}, {}
        told = f"-S -name v1 -uuid 89322d8f -daemonize -readconfig {run}/v1/qemu.conf -pidfile {run}/v1/qemu.pid"
        tpm = f"socket --tpm2 --tpmstate dir={directory}/virtual-machines/v1/tpm.tpm --ctrl type=unixio,path=tpm.sock"
        host.process(10, qemu, qemu, *told.split())
        config = ["8:1", f"{directory}/storage-pools/default/virtual-machines/v1/config"]  # what LXD's serves
        host.process(11, virtiofsd, virtiofsd, "--fd=3", "--cache=never", *shared.split(), mntns=5, mount_root=config)
        host.process(12, virtiofsd, virtiofsd, "--fd=3", "--cache=never", *shared.split(), ppid=11, **inside)
        host.process(13, "/usr/bin/swtpm", "swtpm", *tpm.split())
        proxy = "/usr/lib/qemu/virtfs-proxy-helper"
        host.process(
            14, proxy, proxy, "--nodaemon", "--fd", "3", "--path", f"{directory}/devices/v1/disk.data.mnt-data"
        )
        host.process(24, proxy, proxy, "--nodaemon", "--fd", "3", "--path", "/srv/data")
        # The administrator's, and one with the same arguments in a container of another product.
        host.process(20, qemu, qemu, "-name", "v1", "-drive", f"file={directory}/x.img", "-pidfile", "/run/vm/qemu.pid")
        host.process(21, virtiofsd, virtiofsd, "--socket-path=/run/vm/fs.sock", "--shared-dir=/srv/data")
        host.process(22, virtiofsd, virtiofsd, "--socket-path=/run/vm/fs.sock", ppid=21, **inside)
        host.process(23, qemu, qemu, *told.split(), ppid=99, nested=True, pidns=6)
        assert host.proven() == {f"process:{pid}" for pid in range(10, 15)}
        reasons = [claim.reason for id, claim in host.claims().items() if id.startswith("process:")]
        assert sorted(reasons) == ["a helper of an instance"] * 4 + ["a virtual machine"]


def test_trap_1_an_incus_nested_in_a_container_has_the_same_titles(host: HostOf) -> None:
    inside = {"nested": True, "pidns": 5, "mntns": 6, "cgroup": "/lxc.payload.guest/system.slice/incus.service"}
    host.process(10, EXE, EXE, "--group", "incus-admin", **inside)
    host.process(11, EXE, "[lxc monitor] /var/lib/incus/containers c1", **inside)
    assert host.proven() == set()


def test_a_payload_whose_monitor_is_gone_is_known_by_its_root_file_system(host: HostOf) -> None:
    where = {"nested": True, "mntns": 6, "netns": 7, "cgroup": "/lxc.payload.c1"}
    host.process(
        10,
        "/init",
        "init",
        mount_root=["8:1", "/var/lib/incus/storage-pools/default/containers/c1/rootfs//deleted"],
        **where,
    )
    host.process(11, "/bin/sh", "sh", **where)
    host.cgroup("/lxc.payload.c1", populated=True)
    assert host.proven() == {"process:10", "process:11", "cgroup:/lxc.payload.c1"}


def test_a_file_server_of_the_administrator_s_in_a_pool(host: HostOf) -> None:
    """virtiofsd serves from a mount namespace whose root is the directory that it was given: here a custom volume."""
    virtiofsd, where = "/usr/libexec/virtiofsd", {"mntns": 6, "netns": 7}
    root = ["8:1", "/var/lib/incus/storage-pools/default/custom/default_share"]
    shared = f"--shared-dir={root[1]}"
    host.process(10, virtiofsd, virtiofsd, "--socket-path=/run/vm/fs.sock", shared, mount_root=root, **where)
    host.process(11, virtiofsd, virtiofsd, "--socket-path=/run/vm/fs.sock", shared, ppid=10, nested=True, **where)
    assert host.proven() == set()


def test_the_same_path_on_another_file_system_proves_nothing(host: HostOf) -> None:
    root = ["8:99", "/var/lib/incus/storage-pools/default/containers/c1/rootfs"]
    host.process(10, "/init", "init", nested=True, mntns=6, mount_root=root, cgroup="/lxc.payload.c1")
    beside = ["8:1", "/var/lib/incus/storage-pools-mine/c1"]
    host.process(11, "/init", "init", nested=True, mntns=7, mount_root=beside, cgroup="/lxc.payload.c2")
    assert host.proven() == set()


def test_a_payload_in_an_external_pool_is_known_by_what_incus_mounted_in_it(host: HostOf) -> None:
    host.mount("/var/lib/incus/guestapi", "0:54")
    elsewhere = ["8:1", "/srv/pool/containers/c4/rootfs"]
    host.process(10, "/init", "init", nested=True, mntns=6, mount_root=elsewhere, mount_points=[["0:54", "/dev/incus"]])
    # `docker run -v /:/host` has it too, at another place; and so would who mounts his own there.
    host.process(11, "/init", "sh", nested=True, mntns=7, mount_points=[["0:54", "/host/var/lib/incus/guestapi"]])
    host.process(12, "/init", "sh", nested=True, mntns=8, mount_points=[["0:99", "/dev/incus"]])
    assert {"process:10", "mount:/var/lib/incus/guestapi"} == host.proven()


# -- cgroups --------------------------------------------------------------------------------------------------------


def test_trap_1_cgroup_names_are_liblxc_s_and_shared_with_lxd_and_lxc(host: HostOf) -> None:
    host.container("c1", 10)
    host.process(30, "/usr/bin/lxd", "[lxc monitor] /var/lib/lxd/containers c1", cgroup="/lxc.monitor.c1-1")
    host.process(31, "/init", "init", ppid=30, nested=True, mntns=9, netns=9, cgroup="/lxc.payload.c1-1")
    for path in ("/lxc.monitor.c1-1", "/lxc.payload.c1-1"):
        host.cgroup(path, populated=True)
    host.cgroup("/lxc.pivot")
    host.cgroup("/lxc.payload.old")
    proven = host.proven()
    assert {"cgroup:/lxc.payload.c1", "cgroup:/lxc.monitor.c1"} <= proven
    assert not proven & {"cgroup:/lxc.payload.c1-1", "cgroup:/lxc.monitor.c1-1", "process:30", "process:31"}
    assert not proven & {"cgroup:/lxc.pivot", "cgroup:/lxc.payload.old"}, "LXD may need them"


def test_empty_cgroups_where_nobody_else_uses_liblxc(host: HostOf) -> None:
    for path in ("/lxc.pivot", "/lxc.payload.c1", "/lxc.monitor.web-1-1", "/lxc.payloads", "/lxc", "/admin.slice"):
        host.cgroup(path)
    host.cgroup("/lxc.payload.full", populated=True)
    host.process(50, "/usr/bin/sleep", "[lxc monitor] /var/lib/lxc c1")  # an administrator's joke: it has no container
    assert host.proven() == set(), "nothing says that Incus has ever been here"
    been(host)
    assert host.proven() == {"cgroup:/lxc.pivot", "cgroup:/lxc.payload.c1", "cgroup:/lxc.monitor.web-1-1"}


@pytest.mark.parametrize("cgroup", ["/lxc.monitor.web", "/user.slice/web.scope/lxc.monitor.web", "/lxc.monitor.web-1"])
def test_empty_cgroups_beside_a_container_of_lxc_s_own(host: HostOf, cgroup: str) -> None:
    been(host)
    host.process(50, "/opt/lxc/sbin/lxc-start", "[lxc monitor] /var/lib/lxc web", cgroup=cgroup)
    for path in ("/lxc.pivot", "/lxc.payload.old"):
        host.cgroup(path)
    assert host.proven() == set()
    assert {claim.role for id, claim in host.claims().items() if id.startswith("cgroup:")} == {Role.ADMIN}


def test_a_monitor_in_a_cgroup_of_systemd_s_is_known_by_its_container(host: HostOf) -> None:
    been(host)
    host.process(50, "/usr/local/bin/lxc-start", "[lxc monitor] /var/lib/lxc web", cgroup="/system.slice/lxc.service")
    host.process(51, "/init", "init", ppid=50, nested=True, mntns=9, netns=9, cgroup="/system.slice/lxc.service")
    host.cgroup("/lxc.pivot")
    assert host.proven() == set()


def test_a_number_at_the_end_may_be_of_the_name_or_of_a_clash(host: HostOf) -> None:
    host.add("file", "/usr/bin/lxc-start", ("x",), path="/usr/bin/lxc-start", type="file", hollow=False)
    host.instance("web-1")
    host.instance("db")
    for path in ("/lxc.payload.web-1", "/lxc.payload.db-2", "/lxc.payload.other-1"):
        host.cgroup(path)
    assert host.proven() == {"cgroup:/lxc.payload.web-1", "cgroup:/lxc.payload.db-2"}


# -- links ----------------------------------------------------------------------------------------------------------


def test_trap_0_5_a_name_of_incus_shape_proves_nothing(host: HostOf) -> None:
    # CNI's bridge plugin makes the same names: veth and eight hex digits.
    host.link("veth0a1b2c3d", peer="eth0", peer_netns=500, peer_address="0a:58:0a:00:00:02")
    host.link("vethdeadbeef", peer="veth0badcafe", peer_netns=1, peer_address="aa:bb:cc:dd:ee:ff")
    host.link("veth0badcafe", peer="vethdeadbeef", peer_netns=1, peer_address="aa:bb:cc:dd:ee:f0")
    host.link("tap12345678", "tun")
    host.link("mac12345678", "macvlan")
    assert host.claims() == {}


def test_trap_0_6_both_ends_back_in_the_host(incus: HostOf) -> None:
    incus.link("veth11111111", peer="veth22222222", peer_netns=1, peer_address="10:66:6a:01:02:03")
    incus.link(
        "veth22222222", peer="veth11111111", peer_netns=1, peer_address="aa:aa:aa:aa:aa:aa", address="10:66:6a:01:02:03"
    )
    assert incus.proven() == {"link:veth11111111", "link:veth22222222"}


def test_an_address_of_lxd_s_range_is_not_enough(host: HostOf) -> None:
    host.link("veth11111111", peer="veth22222222", peer_netns=1, peer_address="00:16:3e:01:02:03")
    assert host.claims() == {}


def test_trap_0_7_the_ports_of_a_bridge(host: HostOf) -> None:
    # Incus' port on the administrator's bridge goes, the bridge stays; the administrator's port on Incus' bridge stays.
    host.container("c5", 10, netns=77)
    host.instance("c5", parent="br-lan", host_name="veth24fe8c66", hwaddr="10:66:6a:00:00:05")
    host.link("br-lan", "bridge")
    host.link("veth24fe8c66", master="br-lan", peer="eth0", peer_netns=77, peer_address="10:66:6a:00:00:05")
    host.record(
        "network", "incusbr0", type="bridge", managed=True, config={"bridge.external_interfaces": "eth7, eth8/eth0/5"}
    )
    host.link("incusbr0", "bridge", address="10:66:6a:00:00:ff")
    host.link("eth7", "", master="incusbr0")
    host.link("vethdeadbeef", master="incusbr0", peer="veth0badcafe", peer_netns=1)
    claims = host.claims()
    assert {"link:veth24fe8c66", "link:incusbr0"} <= host.proven()
    for key in ("br-lan", "eth7", "vethdeadbeef"):
        assert claims[f"link:{key}"].role is Role.ADMIN, key
    assert "link:veth0badcafe" not in claims


def test_what_is_first_taken_for_the_administrator_s_may_still_be_proven(host: HostOf) -> None:
    # The bridge is proven at once, the container only through a mount, one round later; its device has an address of
    # somebody's own choice. Until then it looks like a port that the administrator put there.
    host.process(
        5, "/usr/sbin/dnsmasq", "dnsmasq", "--interface=lan0", "--conf-file=/var/lib/incus/networks/lan0/dnsmasq.raw"
    )
    host.link("lan0", "bridge")
    host.link("veth11111111", master="lan0", peer="eth0", peer_netns=77, peer_address="02:00:00:00:00:01")
    host.mount("/var/lib/incus/guestapi", "0:54")
    host.process(10, "/init", "init", nested=True, mntns=6, netns=77, mount_points=[["0:54", "/dev/incus"]])
    assert "link:veth11111111" in host.proven()


def test_trap_0_8_an_equal_index_in_another_namespace_is_not_the_peer(host: HostOf) -> None:
    host.container("c1", 10, netns=77)
    host.link("veth11111111", peer="eth0", peer_netns=77, peer_index=2, peer_address="10:66:6a:00:00:01")
    host.link("veth99999999", peer="eth0", peer_netns=88, peer_index=2, peer_address="0a:58:0a:00:00:02")
    assert host.proven() >= {"link:veth11111111"} and "link:veth99999999" not in host.proven()


def test_a_bridge_named_incusbr0_that_the_administrator_made(host: HostOf) -> None:
    host.link("incusbr0", "bridge", address="52:54:00:00:00:01", addresses=["192.0.2.1"])
    assert host.claims() == {}
    # Even with old words of Incus about a network of that name: a database that was left, a table in the kernel.
    host.record("network", "incusbr0", "database", type="bridge", managed=True, config={"ipv4.address": "10.0.0.1/24"})
    host.table("incus", "fwd.incusbr0")
    claim = host.claims()["link:incusbr0"]
    assert not claim.proven and claim.role is Role.ADMIN


@pytest.mark.parametrize("source", ["database", "disk", "ledger"])
def test_a_remembered_network_wants_two_marks_on_the_bridge(incus: HostOf, source: str) -> None:
    # LXD's lxdbr0 after lxd-to-incus, or an administrator's bridge with the address that a network once had.
    incus.record("network", "lan0", source, type="bridge", managed=True, config={"ipv4.address": "10.0.0.1/24"})
    incus.link("lan0", "bridge", address="00:16:3e:00:00:01", addresses=["10.0.0.1"])
    incus.record("network", "lan1", source, type="bridge", managed=True, config={"ipv4.address": "10.0.1.1/24"})
    incus.link("lan1", "bridge", address="10:66:6a:00:00:01", addresses=["10.0.1.1"])
    incus.record("network", "lan2", source, type="bridge", managed=True, config={"bridge.hwaddr": "52:54:00:00:00:02"})
    incus.link("lan2", "bridge", address="52:54:00:00:00:02")
    assert incus.proven() == {"link:lan1", "link:lan2"}


def test_a_bridge_is_known_by_the_dnsmasq_that_serves_it(host: HostOf) -> None:
    host.process(
        10, "/usr/sbin/dnsmasq", "dnsmasq", "--interface=lan0", "--conf-file=/var/lib/incus/networks/lan0/dnsmasq.raw"
    )
    host.link("lan0", "bridge")
    host.link("lan00", "bridge")
    assert host.proven() == {"process:10", "link:lan0"}


def test_an_unmanaged_bridge_that_the_api_lists_is_not_incus(host: HostOf) -> None:
    host.record("network", "br-lan", type="bridge", managed=False, config={})
    host.link("br-lan", "bridge")
    assert host.claims() == {}


def test_trap_1_the_parent_of_a_physical_network_is_the_administrator_s(host: HostOf) -> None:
    host.record("network", "up", type="physical", managed=True, config={"parent": "br-lan"})
    host.record("network", "card", type="physical", managed=True, config={"parent": "enp1s0"})
    host.link("br-lan", "bridge")
    host.link("enp1s0", "")
    # Incus names the administrator's own card as the device's host_name (seen on 6.0.4).
    host.instance("c1", nictype="physical", parent="enp1s0", host_name="enp1s0")
    host.instance("c2", network="card", nictype="", host_name="enp1s0")
    claims = host.claims()
    assert {claims[f"link:{key}"].role for key in ("br-lan", "enp1s0")} == {Role.ADMIN}
    assert host.proven() == set()


def test_a_virtual_card_that_was_lent_is_not_removed_by_its_host_name(host: HostOf) -> None:
    host.instance("c1", nictype="physical", parent="vethphys0", host_name="vethphys0", hwaddr="02:00:00:00:00:01")
    host.link(
        "vethphys0", peer="vethphys1", peer_netns=1, address="02:00:00:00:00:01", peer_address="02:00:00:00:00:02"
    )
    host.link("vethphys1", peer="vethphys0", peer_netns=1, peer_address="02:00:00:00:00:01")
    assert host.proven() == set()


def test_vlan_links_that_incus_created_and_that_it_did_not(host: HostOf) -> None:
    host.link("enp1s0", "")
    host.link("enp1s0.5", "vlan", peer="enp1s0", vlan=5)
    host.link("enp1s0.6", "vlan", peer="enp1s0", vlan=6)
    host.link("enp2s0.5", "vlan", peer="enp2s0", vlan=5)
    host.record(
        "network",
        "v5",
        type="macvlan",
        managed=True,
        config={"parent": "enp1s0", "vlan": "5", "volatile.last_state.created": "true"},
    )
    host.record(
        "network",
        "v6",
        type="macvlan",
        managed=True,
        config={"parent": "enp1s0", "vlan": "6", "volatile.last_state.created": "false"},
    )
    assert host.proven() == {"link:enp1s0.5"}


def test_tunnels_and_the_mtu_holder_of_a_bridge(host: HostOf) -> None:
    config = {"bridge.external_interfaces": "lan0-mine", "tunnel.tun.protocol": "vxlan", "tunnel.gre.protocol": "gre"}
    host.record("network", "lan0", type="bridge", managed=True, config=config)
    host.link("lan0", "bridge")
    for name, type in (("lan0-tun", "vxlan"), ("lan0-gre", "gretap"), ("lan0-mtu", "dummy")):
        host.link(name, type, master="lan0")
    host.link("lan0-mine", "vxlan", master="lan0")
    host.link("gre0", "gre")  # the fallback device that the kernel makes (lxc/incus#1741)
    host.link("lan0-other", "vxlan", master="br-lan")
    host.link("lan0-site2", "vxlan", master="lan0")  # of the administrator's, put there by hand
    assert host.proven() == {"link:lan0", "link:lan0-tun", "link:lan0-gre", "link:lan0-mtu"}


def test_the_ports_of_a_bridge_whose_configuration_was_purged(host: HostOf) -> None:
    """The holder of its MTU is known by that; a tunnel only by its name, and that is told."""
    host.record("network", "lan0", "api", type="bridge", managed=True, config={})
    host.link("lan0", "bridge", mtu=1400)
    host.link("lan0-mtu", "dummy", master="lan0", mtu=1400)
    host.link("lan0-west", "gretap", master="lan0", mtu=1400)
    host.record("network", "lan1", "api", type="bridge", managed=True, config={})
    host.link("lan1", "bridge")
    host.link("lan1-mtu", "dummy", master="lan1")  # that everything has: the administrator's
    host.link("eth7", "", master="lan1", up=False)  # up, it would hold the bridge
    claims = host.claims()
    assert host.proven() == {"link:lan0", "link:lan0-mtu", "link:lan1"}
    assert claims["link:lan0-west"].advice == "ip link delete lan0-west" and not claims["link:lan0-west"].proven
    assert claims["link:lan1-mtu"].role is Role.ADMIN and not claims["link:lan1-mtu"].proven
    assert claims["link:eth7"].role is Role.ADMIN and claims["link:eth7"].proven


def test_on_vlans_of_the_card(host: HostOf) -> None:
    """A macvlan that was made for a container goes with it; a link of the administrator's that was lent goes home, also
    when the container was told to give it an address (hwaddr=)."""
    host.container("c2", 10, netns=77)
    host.link("eth0", "", address="52:54:00:00:00:01")
    host.link("eth0.30", "vlan", peer="eth0", peer_netns=1, vlan=30, address="52:54:00:00:00:01")
    lent = {"index": 1, "link": "eth0.40", "name": "eth1", "hwaddr": "10:66:6a:00:00:40", "type": "phys"}
    made = {"index": 0, "link": "mac12345678", "name": "eth0", "hwaddr": "10:66:6a:00:00:30", "type": "phys"}
    host.record("lxc.conf", "c2", "disk", nics=[made, lent])
    inside = {"netns": 77, "peer_netns": 1, "pid": 11}
    host.link("eth0", "macvlan", address="10:66:6a:00:00:30", peer="eth0.30", **inside)
    host.link("eth1", "vlan", address="10:66:6a:00:00:40", peer="eth0", vlan=40, **inside)
    host.link("eth2", "macvlan", address="ce:00:00:00:00:50", peer="eth0.30", **inside)
    claims = host.claims()
    assert {id for id, claim in claims.items() if claim.role is Role.LENT} == {"link:77/eth1", "link:77/eth2"}
    assert claims["link:77/eth1"].object.facts["home_name"] == "eth0.40"


def test_a_stopped_instance_s_own_name_on_the_administrator_s_link(host: HostOf) -> None:
    host.instance("c6", source="database", running=False, host_name="myveth0", hwaddr="10:66:6a:00:00:06")
    host.link("myveth0", peer="other", peer_netns=1, peer_address="aa:bb:cc:dd:ee:ff")
    claim = host.claims()["link:myveth0"]
    assert not claim.proven and claim.role is Role.ADMIN


def test_a_tap_is_known_by_the_machine_that_holds_it(host: HostOf) -> None:
    host.process(12, "/usr/bin/qemu-system-x86_64", "qemu", "-readconfig", "/run/incus/vm1/qemu.conf")
    host.link("tap11111111", "tun", holder=12)
    host.link("tap22222222", "tun", holder=99)
    host.link("vnet0", "tun", holder=12, holders=[12, 99])  # somebody else has it, too
    assert host.proven() == {"process:12", "link:tap11111111"}


def test_a_macvtap_is_known_by_the_machine_that_holds_it_or_by_its_address(host: HostOf) -> None:
    host.process(12, "/usr/bin/qemu-system-x86_64", "qemu", "-readconfig", "/run/incus/vm1/qemu.conf")
    host.instance("vm2", source="database", running=False, nictype="macvlan", hwaddr="10:66:6a:00:00:02")
    host.link("mac11111111", "macvtap", holder=12)
    host.link("mac22222222", "macvtap", address="10:66:6a:00:00:02")
    host.link("mac33333333", "macvtap", holder=99, address="10:66:6a:00:00:02")  # moved over to the other product
    host.link("mac44444444", "macvtap", address="52:54:00:00:00:04")
    host.link("macvtap0", "macvtap", address="10:66:6a:00:00:02")
    assert host.proven() == {"process:12", "link:mac11111111", "link:mac22222222"}


def test_a_tap_without_its_machine(host: HostOf) -> None:
    """It is persistent. Only what was written down tells whose it is; on a network of Incus' a person is asked."""
    host.record("network", "lan0", type="bridge", managed=True)
    host.link("lan0", "bridge")
    for device, name in (("eth0", "tap11111111"), ("eth1", "tap22222222"), ("eth2", "mytap")):
        host.instance("vm1", source="database", running=False, device=device, host_name=name)
    host.link("tap11111111", "tun")
    host.link("tap22222222", "tun", holder=99)  # somebody has it
    host.link("mytap", "tun")  # a name that a person gave
    host.link("tap33333333", "tun", master="lan0")
    host.link("tap44444444", "tun")
    assert host.proven() == {"link:lan0", "link:tap11111111"}
    claims = host.claims()
    assert not claims["link:tap33333333"].proven
    assert claims["link:tap33333333"].advice == "ip link delete tap33333333"
    assert claims["link:tap33333333"].reason.startswith("named like")
    assert not {"link:tap22222222", "link:mytap", "link:tap44444444"} & {id for id in claims if claims[id].proven}


def test_hardware_in_a_container_goes_home(host: HostOf) -> None:
    host.container("c1", 10, netns=77)
    host.record(
        "lxc.conf", "c1", "disk", nics=[{"index": 0, "link": "enp3s0", "name": "eth0", "hwaddr": "", "type": "phys"}]
    )
    host.instance(
        "c1",
        nictype="physical",
        parent="enp3s0",
        last_state={"created": "false", "mtu": "9000", "hwaddr": "52:54:00:00:00:03"},
    )
    host.link("eth0", "", netns=77, pid=11)
    claim = host.claims()["link:77/eth0"]
    assert claim.role is Role.LENT and claim.proven
    assert claim.object.facts["home_name"] == "enp3s0"
    assert (claim.object.facts["home_mtu"], claim.object.facts["home_address"]) == (9000, "52:54:00:00:00:03")


def test_a_virtual_card_goes_home_although_nobody_remembers_its_name(host: HostOf) -> None:
    host.container("c1", 10, netns=77)
    host.link("vethphys1", peer="eth0", peer_netns=77, peer_address="02:00:00:00:00:01")
    host.link("eth0", netns=77, pid=11, address="02:00:00:00:00:01", peer="vethphys1", peer_netns=1)
    host.link("veth11111111", peer="eth1", peer_netns=77, peer_address="10:66:6a:00:00:01")
    host.link("eth1", netns=77, pid=11, address="10:66:6a:00:00:01", peer="veth11111111", peer_netns=1)
    claims = host.claims()
    assert claims["link:77/eth0"].role is Role.LENT and claims["link:77/eth0"].object.facts["home_name"] == ""
    assert "link:77/eth1" not in claims and "link:vethphys1" not in claims
    assert claims["link:veth11111111"].role is Role.LIVE


def test_a_vlan_link_that_incus_made_for_a_container_goes_with_it(host: HostOf) -> None:
    host.container("c1", 10, netns=77)
    host.record(
        "lxc.conf", "c1", "disk", nics=[{"index": 0, "link": "enp3s0.5", "name": "eth0", "hwaddr": "", "type": "phys"}]
    )
    host.instance("c1", nictype="physical", parent="enp3s0", vlan="5", last_state={"created": "true"})
    host.link("eth0", "vlan", netns=77, pid=11)
    assert "link:77/eth0" not in host.claims()


def test_links_that_a_container_made_itself_are_nobody_s_business(host: HostOf) -> None:
    host.container("c1", 10, netns=77)
    host.link("docker0", "bridge", netns=77, pid=11)
    host.link("veth1234567", "veth", netns=77, pid=11)
    assert not any(id.startswith("link:") for id in host.claims())


def test_lxc_s_bridge_has_a_hardware_address_of_incus_range(incus: HostOf) -> None:
    been(incus)
    incus.table("incus", "fwd.lxcbr0", "fwd.net1")
    incus.link("lxcbr0", "bridge", address="10:66:6a:00:00:00")
    incus.link("net1", "bridge", address="10:66:6a:00:00:01")
    assert incus.proven() == {"nft:inet incus", "link:net1"}


# -- who else uses it -----------------------------------------------------------------------------------------------


def on_a_bridge(host: HostOf) -> None:
    """net1 with a container's veth on it, and somebody's port p0 that nobody has yet."""
    host.container("c1", 10, netns=77)
    host.record("network", "net1", "api", type="bridge", managed=True, config={"bridge.external_interfaces": "eth1"})
    host.link("net1", "bridge")
    host.link("veth11111111", peer="eth0", peer_netns=77, peer_address="00:16:3e:00:00:01", master="net1")
    host.add("netns", "1", (1,), inode=1, host=True, processes=[10], pins=[])
    host.add("netns", "77", (77,), inode=77, host=False, processes=[11], pins=[])
    host.add("netns", "88", (88,), inode=88, host=False, processes=[50], pins=[])
    host.add("netns", "99", (99,), inode=99, host=False, processes=[], pins=["/run/netns/mine"])
    host.process(50, "/usr/bin/sleep", "sleep", netns=88, nested=True)


USERS: dict[str, tuple[str, dict[str, Any]]] = {
    "a container": ("veth", {"peer": "eth0", "peer_netns": 88}),
    "a pinned namespace": ("veth", {"peer": "eth0", "peer_netns": 99}),
    "a guest": ("tun", {"holder": 50}),
    "a guest beside its own process": ("tun", {"holder": 10, "holders": [10, 50]}),
    "a card": ("", {}),
}
NOBODY: dict[str, tuple[str, dict[str, Any]]] = {
    "its own container": ("veth", {"peer": "eth1", "peer_netns": 77, "peer_address": "00:16:3e:00:00:02"}),
    "an unknown namespace": ("veth", {"peer": "", "peer_netns": 111}),
    "its own process": ("tun", {"holder": 10}),
    "two of its own processes": ("tun", {"holder": 10, "holders": [10, 11]}),
    "no guest": ("tun", {"holder": 0}),
    "a card that is down": ("", {"up": False}),
}


@pytest.mark.parametrize("user", USERS)
def test_a_bridge_that_somebody_else_is_on_is_held(host: HostOf, user: str) -> None:
    on_a_bridge(host)
    assert "link:net1" in host.proven()
    type, facts = USERS[user]
    host.link("p0", type, master="net1", **facts)
    claim = host.claims()["link:net1"]
    assert claim.role is Role.HELD and "p0 is a port of it" in claim.evidence[0].text
    assert claim.advice.startswith("ip link set p0 nomaster && leftovers clean ")
    assert "link:veth11111111" in host.proven(), "what rests on the bridge still does"


def test_who_is_about_to_go_too_does_not_hold_a_bridge(host: HostOf) -> None:
    on_a_bridge(host)
    port = host.link("p0", "veth", master="net1", peer="eth0", peer_netns=88)
    claim = Claim("another", port, Role.LIVE, True, "", (Evidence("kernel", ""),))
    assert host.claims({port.id: claim})["link:net1"].role is Role.LIVE


@pytest.mark.parametrize("type", ["vlan", "macvlan", "macsec", "vxlan", "ipvlan", "something-new"])
def test_whatever_stands_on_a_bridge_holds_it_up_or_down(host: HostOf, type: str) -> None:
    on_a_bridge(host)
    host.link("q 0", type, peer="net1", peer_netns=1, up=False, master="another")
    claim = host.claims()["link:net1"]
    assert claim.role is Role.HELD and claim.advice.startswith("ip link delete 'q 0' && leftovers clean ")


@pytest.mark.parametrize("type", ["veth", "netkit", "vxcan"])
def test_the_other_end_of_a_pair_does_not_stand_on_it(host: HostOf, type: str) -> None:
    on_a_bridge(host)
    host.link("q0", type, peer="net1", peer_netns=1)
    assert host.claims()["link:net1"].role is Role.LIVE


@pytest.mark.parametrize(("netns", "role"), [(77, Role.LIVE), (88, Role.HELD)])
def test_a_macvlan_on_a_bridge_would_go_with_it(host: HostOf, netns: int, role: Role) -> None:
    on_a_bridge(host)
    host.link("eth2", "macvlan", netns=netns, pid=11, peer="net1", peer_netns=1, address="00:16:3e:00:00:05")
    assert host.claims()["link:net1"].role is role


@pytest.mark.parametrize("user", NOBODY)
def test_a_port_that_leads_to_nobody_does_not_hold_a_bridge(host: HostOf, user: str) -> None:
    on_a_bridge(host)
    type, facts = NOBODY[user]
    host.link("p0", type, master="net1", **facts)
    host.link("eth1", "", master="net1")
    assert host.claims()["link:net1"].role is Role.LIVE


# -- firewall -------------------------------------------------------------------------------------------------------


def test_trap_1_the_table_stays_empty_for_ever(host: HostOf) -> None:
    host.table("incus")
    host.table("incus", "in.c1.eth0", "fwd.c1.eth0", family="bridge")
    host.table("incus", "egress.netprio.c1.eth0", family="netdev")
    host.table("incusadmin")
    host.table("admin", "fwd.incusbr0")
    assert host.proven() == set(), "nothing says that Incus has ever been here"
    been(host)
    assert host.proven() == {"nft:inet incus", "nft:bridge incus", "nft:netdev incus"}


def test_a_table_of_that_name_with_chains_of_somebody_else(host: HostOf) -> None:
    been(host)
    host.table("incus", "fwd.incusbr0", "my_chain")
    claim = host.claims()["nft:inet incus"]
    assert not claim.proven and "my_chain" in claim.evidence[0].text


def rule(host: HostOf, key: str, **facts: Any) -> None:
    known = {
        "family": "ip",
        "backend": "nft",
        "table": "filter",
        "chain": "FORWARD",
        "rule": key,
        "comment": "",
        "target": "ACCEPT",
        "interfaces": [],
        "macs": [],
    }
    host.add("xtables", key, (key,), **{**known, **facts})


def test_rules_are_known_by_their_exact_comment(host: HostOf) -> None:
    rule(host, "1", comment="generated for Incus network incusbr0")
    rule(host, "2", comment="generated for Incus network-forward incusbr0")
    rule(host, "3", comment="generated for Incus container c1 (eth0)", family="ip6", backend="legacy")
    rule(host, "4", comment="generated for LXD network lxdbr0")
    rule(host, "5", comment="not generated for Incus network incusbr0")
    rule(host, "6", comment="", interfaces=["incusbr0"])
    rule(host, "7", comment="generated for Incus network incusbr0 by hand")
    rule(host, "8", comment="generated for Incus container web (eth0), and mine")
    rule(host, "9", comment="generated for Incus container proj_c1 (eth0) rpfilter")
    assert host.proven() == {"xtables:1", "xtables:2", "xtables:3", "xtables:9"}


def test_a_chain_is_known_by_the_rules_that_jump_to_it_or_by_its_network(host: HostOf) -> None:
    commented = "generated for Incus network net1"
    rule(host, "jump", target="incus_nic_net1", comment=commented)
    rule(host, "in", chain="incus_nic_net1", target="DROP")
    rule(host, "chain", chain="incus_nic_net1", target="", user=True)
    rule(host, "other table", chain="incus_nic_net1", target="", user=True, table="nat")
    rule(host, "other backend", chain="incus_nic_net1", target="", user=True, backend="legacy")
    rule(host, "known", chain="incus_acl_net2", target="", user=True)
    rule(host, "admin", chain="incus_nic_admin", target="", user=True)
    rule(host, "admin's jump", target="incus_nic_admin")
    host.record("network", "net2", "database", type="bridge", managed=True, config={})
    assert host.proven() == {"xtables:jump", "xtables:in", "xtables:chain", "xtables:known"}
    claims = host.claims()
    for key in ("admin", "admin's jump", "other table", "other backend"):
        assert claims[f"xtables:{key}"].role is Role.ADMIN and claims[f"xtables:{key}"].advice


def test_a_chain_that_somebody_else_s_rule_jumps_to_is_held(host: HostOf) -> None:
    rule(host, "jump", target="incus_nic_net1", comment="generated for Incus network net1")
    rule(host, "his", target="incus_nic_net1", chain="INPUT")
    rule(host, "chain", chain="incus_nic_net1", target="", user=True)
    claims = host.claims()
    assert claims["xtables:chain"].role is Role.HELD and claims["xtables:his"].role is Role.ADMIN
    assert translated(claims["xtables:chain"].advice, host.back).startswith("iptables-nft -t filter -D INPUT his && ")


def test_bridge_rules_have_no_comment_and_are_known_by_the_link(host: HostOf) -> None:
    host.container("c1", 10, netns=77)
    host.link("veth11111111", peer="eth0", peer_netns=77, peer_address="10:66:6a:00:00:01")
    rule(host, "a", family="bridge", interfaces=["veth11111111"])
    rule(host, "b", family="bridge", interfaces=["vethadmin"])
    assert "xtables:a" in host.proven() and "xtables:b" not in host.proven()


def test_bridge_rules_of_a_device_that_is_gone_are_known_by_the_address_in_one_of_them(host: HostOf) -> None:
    host.instance("c1", "ledger", running=False, hwaddr="00:16:3e:00:00:01")
    family = {"family": "bridge", "chain": "INPUT", "target": "DROP"}
    rule(host, "address", **family, interfaces=["veth11111111"], macs=["00:16:3e:00:00:01"])
    rule(host, "interface", **family, interfaces=["veth11111111"])
    rule(host, "name", **family, interfaces=["vethmine"], macs=["00:16:3e:00:00:01"])
    rule(host, "unknown", **family, interfaces=["veth22222222"], macs=["52:54:00:00:00:01"])
    host.link("veth44444444", peer="veth55555555", peer_netns=1)
    rule(host, "there", **family, interfaces=["veth44444444"], macs=["00:16:3e:00:00:01"])
    assert host.proven() == {"xtables:address", "xtables:interface"}


def test_the_range_that_all_give_proves_nothing(host: HostOf) -> None:
    rule(host, "a", family="bridge", interfaces=["veth33333333"], macs=["00:16:3e:00:00:99"])
    assert host.claims() == {}
    been(host)
    assert not host.claims()["xtables:a"].proven and host.claims()["xtables:a"].advice


def test_a_range_of_its_own_tells_too(incus: HostOf) -> None:
    rule(incus, "a", family="bridge", interfaces=["veth11111111"], macs=["10:66:6a:00:00:01"])
    assert incus.proven() == {"xtables:a"}


# -- mounts, loops, pools, profiles, files --------------------------------------------------------------------------


def test_mounts_where_incus_mounts_and_others(host: HostOf) -> None:
    for point in ("shmounts", "guestapi", "devices/c1/disk.data.mnt", "storage-pools/default"):
        host.mount(f"/var/lib/incus/{point}")
    host.mount("/var/lib/incus/storage-pools/fast", configured="/etc/fstab")
    host.mount("/var/lib/incus/mine")
    host.mount("/var/lib/incus-backup/shmounts")
    host.mount("/srv/with space")
    claims = host.claims()
    assert {translated(claims[id].object.key, host.back).rpartition("/")[2] for id in host.proven()} == {
        "shmounts",
        "guestapi",
        "disk.data.mnt",
        "default",
    }
    assert claims["mount:/var/lib/incus/storage-pools/fast"].role is Role.ADMIN
    assert not claims["mount:/var/lib/incus/mine"].proven
    assert len(claims) == 6


def loop(host: HostOf, number: int, file: str, here: bool = True) -> None:
    facts = {"device": f"/dev/loop{number}", "majmin": f"7:{number}", "backing_file": file, "here": here, "holders": []}
    host.add("loop", f"loop{number}", (f"loop{number}", 1), **facts)


def pool(host: HostOf, type: str, name: str, *devices: str, **facts: Any) -> None:
    known = {"guid": "1", "devices": list(devices), "backing": [], "tags": [], "volumes": {}, **facts}
    host.add("pool", f"{type} {name}", (name,), type=type, name=name, **known)


def test_loop_devices_and_the_pools_on_them(host: HostOf) -> None:
    loop(host, 3, "/var/lib/incus/disks/default.img")
    loop(host, 4, "/var/lib/incus-disks/mine.img")
    pool(host, "lvm", "vg", "/dev/loop3")
    pool(host, "zfs", "mixed", "/dev/loop3", "/dev/sdc")
    pool(host, "zfs", "tank", "/dev/sdb")
    # A pool that Incus was only given a dataset of (zfs.pool_name=tank/incus) is the administrator's.
    host.record("pool", "given", driver="zfs", source="tank/incus", config={"zfs.pool_name": "tank/incus"})
    assert host.proven() == {"loop:loop3", "pool:lvm vg"}


def test_a_loop_device_of_an_incus_in_a_container_has_a_file_of_the_same_name(host: HostOf) -> None:
    loop(host, 3, "/var/lib/incus/disks/default.img", here=False)
    theirs = "/var/lib/incus/disks/theirs.img"
    pool(host, "zfs", "theirs", theirs, backing=[theirs])
    assert host.proven() == set()
    # The file was deleted by the purge, but its file system is mounted here: then it is ours.
    host.mount("/var/lib/incus/storage-pools/default", "0:60", fstype="btrfs", source="/dev/loop3")
    host.mount("/var/lib/incus/storage-pools/z/containers/c1", "0:61", fstype="zfs", source="theirs/containers/c1")
    assert {"loop:loop3", "pool:zfs theirs"} <= host.proven()


def test_a_volume_group_whose_file_a_purge_has_deleted(host: HostOf) -> None:
    """Its volume is mounted where Incus mounts: that proves the group, and the group its loop device."""
    file = "/var/lib/incus/disks/fast.img"
    loop(host, 3, file, here=False)
    pool(host, "lvm", "fast", "/dev/loop3", backing=[file], volumes={"253:4": "containers_c1"}, tags=["incus_pool"])
    claim = host.claims()["pool:lvm fast"]
    assert host.proven() == set() and not claim.proven and claim.advice == "vgchange -an fast"
    host.mount("/var/lib/incus/storage-pools/fast/containers/c1", "253:4", fstype="ext4", source="/dev/mapper/x")
    assert {"pool:lvm fast", "loop:loop3"} <= host.proven()


def test_a_volume_group_that_was_there_before_stays(host: HostOf) -> None:
    """Whatever of it is mounted; with a disk of Incus' and one that is not, too."""
    image = f"images_{'0a' * 32}"
    volumes = {"253:1": "data", "253:2": "containers_c1", "253:3": "containers_mine", "253:4": image}
    pool(host, "lvm", "admin", "/dev/sdb", tags=["incus_pool"], volumes=volumes)
    pool(host, "lvm", "half", "/dev/loop3", "/dev/sdc", backing=["/var/lib/incus/disks/a.img"], volumes={"253:9": "v"})
    pool(host, "lvm", "other", "/dev/sdd", volumes={"253:8": "containers_c1"})
    host.mount("/var/lib/incus/storage-pools/p/containers/c1", "253:2", fstype="ext4", source="/dev/mapper/x")
    host.mount("/var/lib/incus/storage-pools/half/containers/v", "253:9", fstype="ext4", source="/dev/mapper/v")
    claims = host.claims()
    assert not [id for id in host.proven() if id.startswith("pool:")]
    assert claims["pool:lvm admin"].role is claims["pool:lvm half"].role is Role.ADMIN
    mark = f"{host.product.name}_pool"
    assert claims["pool:lvm admin"].advice == (
        f"lvs admin; lvremove admin/containers_c1; lvremove admin/{image}; vgchange --deltag {mark} admin"
    )
    assert "pool:lvm other" not in claims


def profiles(host: HostOf, *names: str) -> None:
    for name in names:
        host.add("apparmor", f"profile {name}", (name,), type="profile", name=name, mode="enforce", processes=[])


def namespace(host: HostOf, name: str, *pids: int) -> None:
    host.add("apparmor", f"namespace {name}", (name,), type="namespace", name=name, processes=list(pids))


def test_apparmor_names_say_nothing_where_incus_has_never_been(host: HostOf) -> None:
    profiles(host, "incus-c1_</var/lib/incus>")
    namespace(host, "incus-c1_<var-lib-incus>")
    assert host.claims() == {}


def test_a_policy_namespace_whose_name_two_directories_have(host: HostOf) -> None:
    been(host)
    profiles(host, "incus-mine_</var/lib-incus>", "incus-c1_</var/lib/incus>", "incus-c1_</var/lib-incus>")
    for name in ("mine", "c1", "gone"):
        namespace(host, f"incus-{name}_<var-lib-incus>")
    ours = {id for id in host.proven() if "namespace" in id}
    assert ours == {
        "apparmor:namespace incus-c1_<var-lib-incus>",
        "apparmor:namespace incus-gone_<var-lib-incus>",
    }
    # One of its containers lives in there: then it is its own, whatever else is called so.
    host.container("late", 500)
    profiles(host, "incus-late_</var/lib-incus>")
    namespace(host, "incus-late_<var-lib-incus>", 501)
    assert "apparmor:namespace incus-late_<var-lib-incus>" in host.proven()


def test_apparmor_names_that_incus_makes(host: HostOf) -> None:
    been(host)
    for made in ("incus-c1", "incus_dnsmasq-incusbr0", "incus_forkproxy-web_c1", "incus-my_proj_c1"):
        name = f"{made}_</var/lib/incus>" + ("//child" if "proj" in made else "")
        host.add("apparmor", f"profile {name}", (name,), type="profile", name=name, mode="enforce", processes=[])
    host.add("apparmor", "namespace n", ("n",), type="namespace", name="incus-c1_<var-lib-incus>", processes=[])
    wanted = {id for id in host.proven() if id.startswith("apparmor:")}
    assert len(wanted) == 5
    for name in ("lxd-c1_</var/lib/lxd>", "incus-c1_</srv/other>", "docker-default", "incusd", "/usr/bin/lxc-start"):
        host.add("apparmor", f"profile {name}", (name,), type="profile", name=name, mode="enforce", processes=[])
    assert {id for id in host.proven() if id.startswith("apparmor:")} == wanted


def file(host: HostOf, path: str, type: str = "directory", **facts: Any) -> None:
    host.add(
        "file",
        path,
        (path, type, 1),
        path=path,
        type=type,
        **{"target": "", "mounted": False, "mounts": [], "hollow": False, "entries": [], **facts},
    )


def test_directories_and_what_only_looks_like_them(incus: HostOf) -> None:
    for path in (
        "/var/lib/incus",
        "/var/log/incus",
        "/var/cache/incus",
        "/run/incus",
        "/var/lib/incus-backup",
        "/etc/dnsmasq.d",
    ):
        file(incus, path)
    file(incus, "/run/lxc", hollow=True)
    assert incus.proven() == {
        f"file:{path}" for path in ("/var/lib/incus", "/var/log/incus", "/var/cache/incus", "/run/incus", "/run/lxc")
    }
    file(incus, "/usr/bin/lxc-start", "file")
    assert "file:/run/lxc" not in incus.proven(), "LXC uses it"


def test_a_directory_with_its_database_was_never_purged(host: HostOf) -> None:
    # Incus from a source that we do not know: what a purge would have deleted is there, so there was none.
    file(host, "/var/lib/incus", entries=["containers", "database", "networks"])
    assert host.claims()["file:/var/lib/incus"].role is Role.EXTERNAL


def test_volumes_at_the_administrator_s_place(host: HostOf) -> None:
    host.record("pool", "pool2", "kernel", driver="dir", source="/srv/pool", inode=1)
    host.record("pool", "written", "database", driver="dir", source="/srv/other", config={})
    host.record("pool", "default", driver="dir", source="/var/lib/incus/storage-pools/default", config={})
    host.instance("c1", disks=[{"device": "data", "source": "/srv/data", "path": "/mnt", "pool": ""}])
    paths = host.places()
    assert "/srv/pool/containers" in paths and "/srv/data" in paths
    assert not any(path.startswith("/var/lib/incus") for path in paths)
    for path in ("/srv/pool", "/srv/pool/containers", "/srv/data", "/srv/other", "/srv/other/images"):
        file(host, path)
    claims = host.claims()
    assert claims["file:/srv/pool/containers"].role is Role.EXTERNAL and claims["file:/srv/pool/containers"].proven
    for path in ("/srv/pool", "/srv/data", "/srv/other", "/srv/other/images"):
        assert claims[f"file:{path}"].role is Role.ADMIN, path
    assert not claims["file:/srv/other/images"].proven, "a path that is only written down"


@pytest.mark.parametrize("source", ["/", "/srv/../etc", "relative", "/var/lib/incus/x", "/dev/sdb", ""])
def test_a_hostile_or_odd_source_points_nowhere(host: HostOf, source: str) -> None:
    host.record("pool", "p", "database", driver="dir", source=source, config={})
    for path in host.places():
        file(host, path)
    assert host.proven() == set()
    assert not [claim for claim in host.claims().values() if claim.role is Role.EXTERNAL]


def test_a_network_namespace_that_somebody_else_is_in(host: HostOf) -> None:
    host.container("c1", 10, netns=77)
    host.container("c2", 20, netns=88)
    host.process(50, "/usr/bin/tcpdump", "tcpdump", netns=88)
    host.add("netns", "77", (77,), inode=77, host=False, processes=[11], pins=[])
    host.add("netns", "88", (88,), inode=88, host=False, processes=[21, 50], pins=[])
    host.add("netns", "1", (1,), inode=1, host=True, processes=[10, 20], pins=[])
    claims = host.claims()
    assert claims["netns:77"].role is Role.LIVE and "netns:1" not in claims
    assert claims["netns:88"].role is Role.HELD and claims["netns:88"].advice == "end pid 50"
    assert "process:50" not in claims


def test_every_finding_has_evidence(host: HostOf) -> None:
    host.container("c1", 10)
    host.mount("/var/lib/incus/shmounts")
    file(host, "/var/lib/incus")
    host.table("incus")
    claims = host.claims()
    assert claims and all(claim.reason and claim.evidence for claim in claims.values())
