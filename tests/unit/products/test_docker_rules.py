"""Docker's packages: what is its own by its store, its daemon's word and its chains, each beside a look-alike that must
survive; and what of an installed one belongs to no container."""

from __future__ import annotations

from typing import Any

import pytest
from test_microk8s_rules import Machine

from leftovers.claims import Case, attribute
from leftovers.evidence import containerd, docker_network, docker_store
from leftovers.model import Claim, Object, Presence, Role
from leftovers.plan import settled
from leftovers.products import NAMES, load, with_companions

ADDRESS = "/run/containerd/containerd.sock"
TASKS = "/run/containerd/io.containerd.runtime.v2.task"
ID, GONE = "a" * 64, "b" * 64
NETWORK, OTHER = "1234567890ab" + "c" * 52, "0badcafe0bad" + "d" * 52
SHIM = "/usr/bin/containerd-shim-runc-v2"
PIN = "/run/docker/netns"


class Docker(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.product = load("docker")
        self.presence = Presence.ABSENT

    def shim(self, pid: int, id: str = ID, address: str = ADDRESS, namespace: str = "moby", exe: str = SHIM) -> Object:
        bundle = f"{TASKS}/{namespace}/{id}"
        said = {"namespace": namespace, "id": id, "address": address}
        if namespace == "moby":
            self.record("shim", str(pid), "kernel", start=9, bundle=bundle, **said)
        cgroup = "/system.slice/containerd.service"
        return self.process(pid, exe, exe, "-namespace", namespace, "-id", id, "-address", address, cgroup=cgroup)

    def container(
        self, pid: int = 10, id: str = ID, netns: int = 77, sandbox: str = "111111111111", **facts: Any
    ) -> None:
        """A running container; what Docker says of it is `docker`'s."""
        group = f"/system.slice/docker-{id}.scope"
        self.shim(pid, id)
        self.record(
            "container",
            f"moby/{id}",
            "disk",
            **{**containerd.blank("moby", id), "bundle": f"{TASKS}/moby/{id}", "cgroup": f"system.slice:docker:{id}"},
        )
        self.process(pid + 1, "/app", "app", ppid=pid, cgroup=group, nested=True, netns=netns, mntns=pid + 1)
        self.cgroup(group, populated=True)
        self.netns(netns, [pid + 1], [f"{PIN}/{sandbox}"])

    def docker(self, id: str = ID, source: str = "api", **facts: Any) -> None:
        known = {**docker_store.blank(id), "name": "web", "state": "running", "sandbox": f"{PIN}/111111111111"}
        self.record("docker", id, source, **{**known, **facts})

    def network(self, bridge: str, source: str = "disk", id: str = NETWORK, **facts: Any) -> None:
        known = {**docker_network.blank_network(id), "driver": "bridge", "bridge": bridge, "name": "net", "creator": 1}
        self.record("docker-network", id, source, **{**known, **facts})

    def endpoint(self, address: str, owner: str = ID, source: str = "api", **facts: Any) -> None:
        id = address.replace(".", "").ljust(64, "0")
        known = {**docker_network.blank_endpoint(id), "address": address, "container": owner}
        self.record("docker-endpoint", id, source, **{**known, **facts})

    def info(self, whole: bool = True, answered: bool = True) -> None:
        self.record("docker-info", "docker", "api", whole=whole, answered=answered, swarm=False)

    def rule(self, chain: str, rule: str, table: str = "filter") -> Object:
        return self.xtables(chain, rule, rule.rpartition(" ")[2], table=table)


@pytest.fixture
def host() -> Docker:
    return Docker()


# -- processes and what hangs on them -------------------------------------------------------------------------------


def test_a_container_and_all_that_hangs_on_it(host: Docker) -> None:
    host.container()
    host.process(20, "/usr/sbin/dockerd (deleted)", "dockerd", cgroup="/system.slice/docker.service")
    host.process(21, "/usr/sbin/docker-proxy", "docker-proxy", "-container-ip", "172.17.0.2", ppid=20)
    host.link("vetha1b2c3d", peer="eth0", peer_netns=77, master="docker0")
    host.link("docker0", "bridge", addresses=["172.17.0.1"])
    host.mount(f"/var/lib/docker/overlay2/{ID}/merged", fstype="overlay")
    host.mount("/var/lib/docker/volumes/bound/_data", root="/srv/bound")
    assert host.gone() == {
        *("process:10", "process:11", "process:20", "process:21", f"cgroup:/system.slice/docker-{ID}.scope"),
        *("netns:77", "link:vetha1b2c3d", "link:docker0"),
        *(f"mount:/var/lib/docker/overlay2/{ID}/merged", "mount:/var/lib/docker/volumes/bound/_data"),
    }


def test_who_shares_the_containerd_keeps_his(host: Docker) -> None:
    host.container()
    host.shim(30, "web", namespace="default")
    host.shim(31, GONE, namespace="k8s.io")
    host.process(32, "/app", "app", ppid=31, cgroup=f"/kubepods/besteffort/pod1/{GONE}", nested=True, netns=88, mntns=9)
    host.process(33, "/usr/bin/containerd", "containerd", cgroup="/system.slice/containerd.service")
    host.netns(88, [32], ["/run/netns/cni-aaaaaaaa-1111-2222-3333-444444444444"])
    host.link("veth12345678", peer="eth0", peer_netns=88, master="cni0")
    host.mount(f"{TASKS}/k8s.io/{GONE}/rootfs", fstype="overlay")
    for path in ("/run/containerd", "/run/containerd/s", "/run/containerd/containerd.sock", TASKS, f"{TASKS}/k8s.io"):
        host.file(path)
    host.file(f"{TASKS}/moby", entries=(ID,))
    assert host.gone() == {
        *("process:10", "process:11", f"cgroup:/system.slice/docker-{ID}.scope", "netns:77", f"file:{TASKS}/moby"),
    }


def test_programs_count_by_their_files_and_for_root(host: Docker) -> None:
    for pid, exe in enumerate(
        ("/usr/bin/sleep", "/opt/dockerd", "/usr/lib/systemd/systemd", "/usr/bin/containerd"), 20
    ):
        host.process(pid, exe, "/usr/sbin/dockerd")
    host.process(30, "/usr/bin/dockerd", "dockerd", uid=1000)  # rootless, a user's own
    host.process(31, "/usr/bin/dockerd", "dockerd", nested=True, netns=5, mntns=5)  # in a container
    assert host.ask(been=True) == {}


def test_its_own_containerd(host: Docker) -> None:
    """Where the host has none, dockerd starts one: its shims are given another socket."""
    for pid, place in ((10, "/run/docker"), (12, "/var/run/docker")):
        id = str(pid) * 32
        argv = ("-namespace", "moby", "-id", id, "-address", f"{place}/containerd/containerd.sock")
        host.process(pid, SHIM, SHIM, *argv, cgroup="/x")
        bundle = f"/run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/{id}"
        host.record("shim", str(pid), "kernel", start=9, bundle=bundle, namespace="moby", id=id, address=argv[5])
    assert host.gone() == {"process:10", "process:12"}


# -- bridges and other links ----------------------------------------------------------------------------------------


def test_bridges_by_dockerd_s_word(host: Docker) -> None:
    host.file("/run/docker")
    host.network("mybr0")
    host.network("br-lan", id=OTHER, creator=2)
    host.network("docker0", id="e" * 64, creator=2, default=True)
    for name in ("mybr0", "br-lan", "docker0", "br-0badcafe0001", "br-mine"):
        host.link(name, "bridge")
    claims = host.ask()
    assert host.gone() == {"file:/run/docker", "link:mybr0", "link:docker0"}
    assert claims["link:br-lan"].role is Role.ADMIN
    assert not claims["link:br-0badcafe0001"].proven and "link:br-mine" not in claims


def test_an_older_word_of_a_bridge_with_a_user_s_name_does_not_count(host: Docker) -> None:
    """It was deleted, and the administrator has made one of that name since."""
    host.file("/run/docker")
    host.network("mybr0", "ledger")
    host.network("br-1234567890ab", "ledger", id="f" * 64)
    bridge = host.link("mybr0", "bridge")
    host.link("br-1234567890ab", "bridge")
    assert host.gone() == {"file:/run/docker", "link:br-1234567890ab"}
    earlier = {bridge.id: Claim("docker", bridge, Role.LIVE, True, "a bridge of Docker's", ())}
    listed = {kind: tuple(objects) for kind, objects in host.listed.items()}
    case = Case("docker", Presence.ABSENT, listed, tuple(host.records), recalled=earlier)
    assert attribute(case, host.product.rules, host.product.recall)["link:mybr0"].proven


def test_bridges_by_dockerd_s_own_chains(host: Docker) -> None:
    """Its store is gone with the purge; the name must still be one that only a network's id makes."""
    host.file("/run/docker")
    for name in ("br-1234567890ab", "br-lan", "br-0badcafe0bad"):
        host.link(name, "bridge")
    host.rule("DOCKER-ISOLATION-STAGE-2", "-o br-1234567890ab -j DROP")
    host.rule("DOCKER-ISOLATION-STAGE-2", "-o br-lan -j DROP")
    host.rule("FORWARD", "-o br-0badcafe0bad -j DROP")
    gone = host.gone()
    assert "link:br-1234567890ab" in gone and not {"link:br-lan", "link:br-0badcafe0bad"} & gone


def test_a_bridge_with_somebody_s_port_stays(host: Docker) -> None:
    host.file("/run/docker")
    host.network("mybr0")
    host.link("mybr0", "bridge")
    host.link("vnet0", "tun", master="mybr0")
    assert host.ask()["link:mybr0"].role is Role.HELD


def test_a_pair_that_never_came_into_a_container(host: Docker) -> None:
    host.file("/run/docker")
    host.network("mybr0")
    host.network("br-lan", id=OTHER, creator=2)
    host.endpoint("10.0.0.2", source_name="veth7777777")
    for name, peer, master in (
        ("veth1111111", "veth2222222", "mybr0"),  # a port of a bridge of Docker's
        ("veth3333333", "veth4444444", "br-lan"),  # the administrator's
        ("veth5555555", "uplink", "mybr0"),
        ("veth6666666", "veth7777777", ""),  # written down
        ("vethadmin00", "veth8888888", "mybr0"),
    ):
        host.link(name, peer=peer, peer_netns=1, master=master)
        host.link(peer, peer=name, peer_netns=1, up=False)
    host.link("veth9999999", peer="vetha999999", peer_netns=1, master="mybr0")
    host.link("vetha999999", peer="veth9999999", peer_netns=1)  # up, as dockerd has it only in a container
    host.link("mybr0", "bridge")
    assert {id for id in host.gone() if "veth" in id} == {
        *("link:veth1111111", "link:veth2222222", "link:veth6666666", "link:veth7777777"),
    }


def test_parents_that_dockerd_made(host: Docker) -> None:
    host.file("/run/docker")
    macvlan = {"driver": "macvlan"}
    host.network("", id="1" * 64, parent="dm-111111111111", parent_created=True, **macvlan)
    host.network("", id="2" * 64, parent="eth0.50", parent_created=True, **macvlan)
    host.network("", id="3" * 64, parent="eth0.60", parent_created=False, **macvlan)
    host.network("", id="4" * 64, parent="eth0.70", parent_created=True, **macvlan)
    host.link("dm-111111111111", "dummy")
    host.link("dm-999999999999", "dummy")
    host.link("eth0.50", "vlan")
    host.link("eth0.60", "vlan")
    host.link("eth0.70", "vlan", addresses=["192.0.2.1"])
    claims = host.ask()
    assert host.gone() == {"file:/run/docker", "link:dm-111111111111", "link:eth0.50"}
    assert "link:eth0.60" not in claims and not claims["link:dm-999999999999"].proven
    assert claims["link:eth0.70"].role is Role.HELD


# -- the firewall ---------------------------------------------------------------------------------------------------


def test_rules_for_its_bridges_and_the_administrator_s(host: Docker) -> None:
    host.file("/run/docker")
    host.network("docker0", default=True)
    host.network("br-lan", id=OTHER, creator=2)
    host.link("docker0", "bridge")
    host.link("br-lan", "bridge")
    host.endpoint("10.77.0.2")
    own = [
        host.rule("POSTROUTING", "-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE", "nat"),
        host.rule("FORWARD", "-i docker0 ! -o docker0 -j ACCEPT"),
        host.rule("FORWARD", "-o br-lan -j DOCKER"),
        host.rule("PREROUTING", "-d 172.17.0.2/32 ! -i docker0 -j DROP", "raw"),
        host.rule("PREROUTING", "-d 10.77.0.2/32 ! -i br-lan -j DROP", "raw"),
    ]
    shown = [
        host.rule("POSTROUTING", "-s 10.77.0.0/24 ! -o br-lan -j MASQUERADE", "nat"),
        host.rule("FORWARD", "-i br-lan ! -o br-lan -j ACCEPT"),
    ]
    mine = [
        host.rule("FORWARD", "-i docker0 -o eth0 -j ACCEPT"),
        host.rule("FORWARD", "-i docker0 -p tcp -j ACCEPT"),
        host.rule("POSTROUTING", "-s 172.17.0.0/16 ! -o eth0 -j MASQUERADE", "nat"),
        host.xtables("FORWARD", "-i docker0 ! -o docker0 -j ACCEPT", "ACCEPT", "mine", table="filter"),
    ]
    # As the kernel saves it a comment is part of the rule.
    mine[-1].facts["rule"] = '-i docker0 ! -o docker0 -m comment --comment "mine" -j ACCEPT'  # type: ignore[index]
    claims, gone = host.ask(), host.gone()
    assert {each.id for each in own} <= gone
    assert all(not claims[each.id].proven and "-D " in claims[each.id].advice for each in shown)
    assert not {each.id for each in mine} & set(claims)


def test_rules_for_published_ports(host: Docker) -> None:
    host.file("/run/docker")
    host.docker(source="disk", ports=[{"proto": "tcp", "host": "127.0.0.1", "port": 8443, "inner": 443}])
    host.rule("DOCKER", "! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80", "nat")
    hairpin = "-s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport {} -j MASQUERADE"
    loopback = "-d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport {} -j DROP"
    own = [host.rule("POSTROUTING", hairpin.format(80), "nat"), host.rule("PREROUTING", loopback.format(8443), "raw")]
    shown = [host.rule("POSTROUTING", hairpin.format(81), "nat"), host.rule("PREROUTING", loopback.format(22), "raw")]
    mine = host.rule("POSTROUTING", "-s 172.17.0.2/32 -d 172.17.0.9/32 -p tcp -m tcp --dport 80 -j MASQUERADE", "nat")
    claims = host.ask()
    assert {each.id for each in own} <= host.gone()
    assert all(not claims[each.id].proven for each in shown) and mine.id not in claims


def test_the_policy_of_forward_is_told_with_its_command(host: Docker) -> None:
    facts = {"family": "ip", "backend": "nft", "table": "filter", "chain": "FORWARD", "policy": "DROP"}
    host.add("xtables", "ip nft filter -P FORWARD DROP", ("ip", "nft", "filter", "-P FORWARD DROP", 1), **facts)
    host.add("xtables", "ip nft filter -P INPUT DROP", ("x",), **{**facts, "chain": "INPUT"})
    assert host.ask() == {}, "where Docker has never been"
    host.file("/run/docker")
    claims = host.ask()
    claim = claims["xtables:ip nft filter -P FORWARD DROP"]
    assert claim.role is Role.SYSTEM and claim.advice == "iptables-nft -P FORWARD ACCEPT"
    assert "xtables:ip nft filter -P INPUT DROP" not in claims


# -- data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "role"),
    [
        ({"entries": ("overlay2", "volumes")}, Role.EXTERNAL),
        ({"hollow": True}, Role.DATA),  # what docker.io's postrm leaves
        ({"entries": ("overlay2", "volumes"), "mounted": True}, Role.EXTERNAL),
        ({"entries": ("overlay2", "photos"), "mounted": True}, Role.ADMIN),
        ({"entries": ("lost+found", "overlay2", "volumes"), "mounted": True}, Role.EXTERNAL),
        ({"type": "symlink", "target": "/srv/docker"}, Role.ADMIN),
    ],
)
def test_its_data(host: Docker, facts: dict[str, Any], role: Role) -> None:
    host.file("/var/lib/docker", **facts)
    assert host.ask()["file:/var/lib/docker"].role is role


@pytest.mark.parametrize("entries", [(), ("lost+found",)])
def test_a_disk_that_has_been_emptied_is_the_administrator_s(host: Docker, entries: tuple[str, ...]) -> None:
    host.file("/var/lib/docker", entries=entries, mounted=True)
    assert "file:/var/lib/docker" not in host.ask()


def test_its_data_at_another_place(host: Docker) -> None:
    host.record("place", "/var/lib/docker", "disk", path="/srv/big", why="/etc/docker/daemon.json says so")
    host.record("place", "/var/lib/docker", "ledger", path="/srv/mixed", why="pid 5 was told so")
    host.file("/srv/big", entries=("containers", "overlay2", "volumes"))
    host.file("/srv/mixed", entries=("containers", "photos"))
    host.mount("/srv/big/overlay2/x/merged", fstype="overlay")
    claims = host.ask()
    assert claims["file:/srv/big"].role is Role.EXTERNAL and claims["file:/srv/mixed"].role is Role.ADMIN
    assert "mount:/srv/big/overlay2/x/merged" in host.gone()


# -- tenants --------------------------------------------------------------------------------------------------------


def test_docker_comes_before_its_landlord() -> None:
    assert NAMES.index("docker") < NAMES.index("containerd")
    assert [product.name for product in with_companions(["docker"])] == ["docker", *tenants(), "containerd"]
    assert "docker" in {product.name for product in with_companions(["containerd"])}


def tenants() -> list[str]:
    return [name for name in load("containerd").tenants if name != "docker"]


def test_of_a_containerd_that_stays_goes_what_is_docker_s(host: Docker) -> None:
    host.container()
    claims = {"docker": host.ask()["process:10"]}
    claims["containerd"] = claims["docker"]
    there = {"docker": Presence.ABSENT, "containerd": Presence.INSTALLED}
    assert set(settled(claims, there, {"containerd": ("docker",)}, ["docker"])) == {"docker"}
