"""What of an installed Docker belongs to no container: each beside what is like it and is somebody's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from test_microk8s_rules import Machine

from leftovers.claims import Case, attribute
from leftovers.evidence import containerd, docker_network, docker_store
from leftovers.host import Host
from leftovers.kinds.kind import Look
from leftovers.model import Object, Presence, Scope
from leftovers.products import load
from leftovers.products.containers.docker_orphans import read_layers

SOCKET = "/run/containerd/containerd.sock"
TASKS = "/run/containerd/io.containerd.runtime.v2.task/moby"
SHIM = "/usr/bin/containerd-shim-runc-v2"
DOCKERD = "/usr/sbin/dockerd"
HERE, GONE, OTHER = "a" * 64, "b" * 64, "c" * 64
NETWORK = "1234567890ab" + "c" * 52
PROXY = ("-proto", "tcp", "-host-ip", "0.0.0.0", "-host-port", "8080", "-container-ip")


class Docker(Machine):
    """A host on which Docker runs and has one container."""

    def __init__(self, **info: Any) -> None:
        super().__init__()
        self.product = load("docker")
        self.process(5, DOCKERD, DOCKERD, "-H", "fd://")
        self.info = {"answered": True, "whole": True, "swarm": False, **info}
        self.network("docker0", NETWORK)
        self.exists(HERE)

    def network(self, bridge: str, id: str, creator: int = 1) -> None:
        facts = {**docker_network.blank_network(id), "driver": "bridge", "bridge": bridge, "creator": creator}
        self.record("docker-network", id, "api", **facts)
        self.link(bridge, "bridge")

    def exists(self, id: str, **facts: Any) -> None:
        self.record("docker", id, "api", **{**docker_store.blank(id), "name": id[:4], "state": "running", **facts})

    def endpoint(self, id: str, **facts: Any) -> None:
        self.record("docker-endpoint", id, "disk", **{**docker_network.blank_endpoint(id), **facts})

    def shim(self, pid: int, id: str = GONE, address: str = SOCKET, namespace: str = "moby", exe: str = SHIM) -> Object:
        bundle = f"{TASKS}/{id}"
        facts = {"start": 9, "bundle": bundle, "namespace": namespace, "id": id, "address": address}
        self.record("shim", str(pid), "kernel", **facts)
        return self.process(pid, exe, exe, "-namespace", namespace, "-id", id, "-address", address)

    def runs(self, pid: int, id: str, netns: int = 77) -> None:
        """A container that runs, whether Docker has it or not."""
        self.shim(pid, id)
        group = f"/system.slice/docker-{id}.scope"
        known = {**containerd.blank("moby", id), "bundle": f"{TASKS}/{id}"}
        self.record("container", f"moby/{id}", "disk", **known)
        where = {"cgroup": group, "nested": True, "netns": netns, "mntns": pid, "pidns": pid}
        self.process(pid + 1, "/app", "app", ppid=pid, mount_root=[f"0:{pid}", "/"], mount_points=[], **where)
        self.cgroup(group, populated=True)

    def case(self, presence: Presence = Presence.INSTALLED) -> Case:
        listed = {kind: tuple(objects) for kind, objects in self.listed.items()}
        records = list(self.records)
        if self.info:
            self.records = []
            self.record("docker-info", "docker", "api", **self.info)
            records += self.records
            self.records = records[:-1]
        return Case("docker", presence, listed, tuple(records), been=True)

    def orphans(self) -> dict[str, str]:
        """Why, by id; of what is not proven Docker's with a question mark."""
        product = self.product
        found = attribute(self.case(), product.rules, product.recall, product.holds, product.orphans)
        return {id: claim.orphan + "?" * (not claim.proven) for id, claim in found.items() if claim.orphan}

    def names(self) -> set[str]:
        return set(self.orphans())


@pytest.fixture
def host() -> Docker:
    return Docker()


# -- what a container has -------------------------------------------------------------------------------------------


def full(host: Docker, id: str, pid: int, netns: int) -> set[str]:
    """All that hangs on a running container."""
    host.runs(pid, id, netns)
    name = f"{netns:012x}"
    host.netns(netns, [pid + 1], [f"/run/docker/netns/{name}"])
    host.link(f"veth{netns:07x}", peer="eth0", peer_netns=netns, master="docker0")
    host.mount(f"/var/lib/docker/overlay2/{netns:064x}/merged", f"0:{pid}", fstype="overlay")
    host.mount(f"/var/lib/docker/containers/{id}/mounts/shm", f"0:{pid + 5}")
    return {
        *(f"process:{pid}", f"process:{pid + 1}", f"cgroup:/system.slice/docker-{id}.scope", f"netns:{netns}"),
        *(f"link:veth{netns:07x}", f"mount:/var/lib/docker/overlay2/{netns:064x}/merged"),
        f"mount:/var/lib/docker/containers/{id}/mounts/shm",
    }


def test_all_of_a_container_that_dockerd_does_not_know(host: Docker) -> None:
    full(host, HERE, 10, 70)
    lost = full(host, GONE, 20, 71)
    assert host.names() == lost
    assert set(host.orphans().values()) == {f"its container {GONE[:12]} is gone"}


@pytest.mark.parametrize(
    "info",
    [
        {"answered": False, "whole": False},
        {"answered": False, "whole": True},  # it lives, and what looks half-made it may be making
        {"answered": True, "whole": False},
        {},
    ],
)
def test_where_nobody_tells_which_there_are_nothing_is_an_orphan(info: dict[str, bool]) -> None:
    host = Docker()
    host.info = info
    full(host, GONE, 20, 71)
    host.link("veth0000001", peer="veth0000002", peer_netns=1, master="docker0")
    host.link("veth0000002", peer="veth0000001", peer_netns=1, up=False)
    assert host.names() == set()


def test_a_dead_daemon_s_store_tells(host: Docker) -> None:
    host.listed["process"] = []
    host.info = {"answered": False, "whole": True}
    lost = full(host, GONE, 20, 71)
    assert host.names() == lost


def test_beside_another_dockerd_nothing_can_be_told(host: Docker) -> None:
    full(host, GONE, 20, 71)
    host.process(6, "/usr/bin/dockerd", "/usr/bin/dockerd", "--data-root=/srv/docker")
    assert host.names() == set()


def test_a_user_s_dockerd_a_container_s_and_dockerd_s_own_helpers_are_no_other(host: Docker) -> None:
    lost = full(host, GONE, 20, 71)
    host.process(6, "/usr/bin/dockerd", "dockerd", uid=1000)
    host.process(7, "/usr/bin/dockerd", "dockerd", nested=True, netns=70, mntns=7)
    host.process(8, DOCKERD, "libnetwork-setkey", "-exec-root=/var/run/docker", HERE)
    assert host.names() == lost


def test_the_ledger_s_word_of_a_container_is_none(host: Docker) -> None:
    lost = full(host, GONE, 20, 71)
    host.record("docker", GONE, "ledger", **docker_store.blank(GONE))
    assert host.names() == lost


# -- processes, cgroups, namespaces ---------------------------------------------------------------------------------


def test_a_docker_in_a_container_has_containers_of_its_own(host: Docker) -> None:
    """Only the outermost is the host's."""
    host.runs(10, HERE, 70)
    inner = f"/system.slice/docker-{HERE}.scope/docker/{OTHER}"
    host.process(30, "/app", "app", ppid=11, cgroup=inner, nested=True, netns=88, mntns=30, pidns=30)
    host.cgroup(inner, populated=True)
    host.netns(88, [30], [])
    assert host.names() == set()


def test_plugins_are_no_containers(host: Docker) -> None:
    host.shim(20, GONE, namespace="plugins.moby")
    assert host.names() == set()


def test_a_namespace_that_anybody_else_is_in_stays(host: Docker) -> None:
    lost = full(host, GONE, 20, 71)
    host.process(40, "/usr/sbin/tcpdump", "tcpdump", netns=71)
    host.listed["netns"] = []
    host.netns(71, [21, 40], ["/run/docker/netns/000000000047"])
    assert host.names() == lost - {"netns:71", "link:veth0000047"}


def test_pins(host: Docker) -> None:
    host.exists(OTHER, sandbox="/run/docker/netns/aaaaaaaaaaaa", state="stopped")
    host.endpoint("e" * 64, sandbox="d" * 64, container=HERE)
    host.endpoint("f" * 64, sandbox="f" * 64, container="ingress-sbox")
    for number, name in enumerate(("aaaaaaaaaaaa", "d" * 12, "f" * 12, "ingress_sbox", "1-0123456789", "eeeeeeeeeeee")):
        host.netns(80 + number, [], [f"/run/docker/netns/{name}"])
    host.netns(90, [], ["/run/docker/netns/eeeeeeeeeee1", "/run/netns/mine"])
    host.netns(91, [], ["/run/netns/eeeeeeeeeee2"])
    assert host.orphans() == {"netns:85": "it is the network of no container"}


def test_what_a_build_lives_in_is_in_use(host: Docker) -> None:
    """BuildKit's containers are neither dockerd's nor a shim's: dockerd runs runc itself."""
    where = {"cgroup": "/system.slice/docker.service/buildkit", "nested": True, "netns": 92, "mntns": 50, "pidns": 50}
    layer = f"/var/lib/docker/overlay2/{'9' * 64}/merged"
    host.process(50, "/bin/make", "make", ppid=5, mount_root=["0:99", "/"], mount_points=[], **where)
    host.netns(92, [50], ["/run/docker/netns/bbbbbbbbbbbb"])
    host.link("veth9999999", peer="eth0", peer_netns=92, master="docker0")
    host.mount(layer, "0:99", fstype="overlay")
    host.record("docker-layer", GONE, "disk", layer="9" * 64, old=True)
    assert host.names() == set()


# -- links ----------------------------------------------------------------------------------------------------------


def pair(host: Docker, one: str, other: str, **facts: Any) -> set[str]:
    host.link(one, peer=other, peer_netns=1, **{"master": "docker0", "up": False, **facts})
    host.link(other, peer=one, peer_netns=1, up=False)
    return {f"link:{one}", f"link:{other}"}


def test_a_pair_that_never_came_into_a_container(host: Docker) -> None:
    lost = pair(host, "vetha000001", "vetha000002")
    lost |= pair(host, "vetha000003", "vetha000004")
    lost |= pair(host, "vetha000005", "vetha000006", up=True)
    host.endpoint("1" * 64, source_name="vetha000004")  # only its driver has it written down
    host.endpoint("2" * 64, source_name="vetha000006", sandbox="5" * 64, container=GONE)
    # dockerd waits for runc
    pair(host, "vetha000007", "vetha000008")
    host.endpoint("3" * 64, source_name="vetha000008", sandbox="6" * 64, container=HERE)
    pair(host, "vetha000009", "vetha00000a")
    host.endpoint("4" * 64, source_name="vetha00000a", sandbox="7" * 64)
    assert host.names() == lost


def test_pairs_of_the_administrator_s(host: Docker) -> None:
    host.network("br-lan", "9" * 64, creator=2)  # his bridge, that Docker was told to use
    host.link("br-mine", "bridge")
    pair(host, "vethb000001", "vethb000002", master="br-lan")
    pair(host, "vethb000003", "vethb000004", master="br-mine")
    pair(host, "veth5", "vethb000006")
    pair(host, "vethb0000007", "vethb0000008")
    host.link("vethb000009", peer="vethb00000a", peer_netns=1, master="docker0")
    host.link("vethb00000a", peer="vethb000009", peer_netns=1, up=True, addresses=["172.17.9.9"])
    host.netns(95, [], ["/run/netns/mine"])
    host.link("vethb00000b", peer="eth0", peer_netns=95, master="docker0")
    assert host.names() == set()


def test_a_pair_that_was_never_a_port_is_only_told(host: Docker) -> None:
    lost = pair(host, "vetha000001", "vetha000002", master="")
    assert host.orphans() == dict.fromkeys(lost, "it never came into a container?")


def test_the_other_end_is_where_nobody_is(host: Docker) -> None:
    host.network("br-lan", "9" * 64, creator=2)
    host.link("vetha000001", peer_index=2, master="docker0", addresses=["fe80::1"])
    host.link("vetha000002", peer_index=2, master="br-lan")
    host.link("vetha000003", peer_index=2)
    host.link("vethmine", peer_index=2, master="docker0")
    host.link("vetha000004", peer_index=2, master="docker0", addresses=["172.17.9.9"])
    assert host.orphans() == {"link:vetha000001": "no container has its other end"}


def test_the_bridge_of_a_network_that_is_gone(host: Docker) -> None:
    host.network("br-abcdefabcdef", "abcdefabcdef" + "0" * 52)
    host.link("br-0123456789ab", "bridge")
    host.link("br-9123456789ab", "bridge")
    host.link("myveth", peer="x", peer_netns=1, master="br-9123456789ab")
    for name in ("br-0123456789ab", "br-9123456789ab", "br-abcdefabcdef"):
        host.xtables("DOCKER-ISOLATION-STAGE-2", f"-o {name} -j DROP", "DROP", table="filter")
    assert host.names() == {"link:br-0123456789ab"}


# -- published ports ------------------------------------------------------------------------------------------------


def rules(host: Docker, address: str) -> set[str]:
    made = [
        host.xtables(
            "DOCKER", f"! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination {address}:80", "DNAT"
        ),
        host.xtables(
            *("DOCKER", f"-d {address}/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT", "ACCEPT"),
            table="filter",
        ),
        host.xtables(
            "POSTROUTING", f"-s {address}/32 -d {address}/32 -p tcp -m tcp --dport 80 -j MASQUERADE", "MASQUERADE"
        ),
        host.xtables("PREROUTING", f"-d {address}/32 ! -i docker0 -j DROP", "DROP", table="raw"),
    ]
    host.process(int(address.rpartition(".")[2]), "/usr/sbin/docker-proxy", "docker-proxy", *PROXY, address, "-x")
    host.listed["process"][-1].facts["argv"][-1:] = ["-container-port", "80"]
    return {*(each.id for each in made), f"process:{address.rpartition('.')[2]}"}


def test_proxies_and_rules_of_addresses_that_no_container_has(host: Docker) -> None:
    ends = [{"address": "172.17.0.51", "address6": ""}]
    host.exists(OTHER, ends=ends)
    rules(host, "172.17.0.51")
    rules(host, "172.17.0.52")
    host.endpoint("1" * 64, address="172.17.0.52", container=HERE)
    rules(host, "172.17.0.53")
    host.endpoint("2" * 64, address="172.17.0.53")  # a build's, perhaps
    lost = rules(host, "172.17.0.54") | rules(host, "172.17.0.55")
    host.endpoint("3" * 64, address="172.17.0.55", sandbox="4" * 64, container=GONE)
    assert host.names() == lost


def test_an_address_that_was_given_again_is_in_use(host: Docker) -> None:
    rules(host, "172.17.0.51")
    host.endpoint("1" * 64, address="172.17.0.51", container=GONE)
    host.endpoint("2" * 64, address="172.17.0.51", container=HERE)
    assert host.names() == set()


def test_rules_may_be_others_of_the_same_words_while_dockerd_is_busy(host: Docker) -> None:
    lost = rules(host, "172.17.0.54")
    host.record("docker-change", "/var/lib/docker", "disk", number=7)
    host.record("docker-change", "/srv/docker", "disk", number=3)
    assert host.names() == lost
    host.record("docker-change", "/var/lib/docker", "disk", number=8)
    assert host.names() == {"process:54"}


def test_a_swarm_s_ports_are_no_container_s() -> None:
    host = Docker(swarm=True)
    rules(host, "172.18.0.2")
    assert host.names() == set()


def test_rules_of_the_administrator_s(host: Docker) -> None:
    host.xtables("DOCKER-USER", "-s 172.17.0.99/32 -j DROP", "DROP", table="filter")
    host.xtables("POSTROUTING", "-s 10.0.0.9/32 -d 10.0.0.9/32 -p tcp -m tcp --dport 80 -j MASQUERADE", "MASQUERADE")
    host.xtables("PREROUTING", "-d 10.0.0.9/32 ! -i eth0 -j DROP", "DROP", table="raw")
    host.xtables("DOCKER", "-i docker0 -j RETURN", "RETURN")
    host.process(60, "/srv/docker-proxy", "docker-proxy", *PROXY, "10.0.0.9", "-container-port", "80")
    assert host.names() == set()


# -- mounts, files --------------------------------------------------------------------------------------------------


def test_layers(host: Docker) -> None:
    """Of nobody who runs, by the store's own word; and then only of one that is older than the daemon."""
    host.exists(OTHER, layer="1" * 64, state="stopped")
    for digit, id, old in (("1", OTHER, True), ("2", GONE, True), ("3", GONE, False), ("5", HERE, True)):
        host.record("docker-layer", id, "disk", layer=digit * 64, old=old)
    for digit in "12345":
        host.mount(f"/var/lib/docker/overlay2/{digit * 64}/merged", f"0:9{digit}", fstype="overlay")
    assert host.names() == {f"mount:/var/lib/docker/overlay2/{'2' * 64}/merged"}


def test_files(host: Docker) -> None:
    for id in (HERE, GONE):
        path = f"/run/docker/runtime-runc/moby/{id}"
        facts = {"namespace": "moby", "id": id, "path": path, "pid": 3, "start": 3, "bundle": f"{TASKS}/{id}"}
        host.record("runc", f"moby/{id}", "disk", cgroups=[], **facts)
        host.file(path)
    host.file("/run/docker/netns/cccccccccccc", "file")  # dockerd's to collect
    assert host.names() == {f"file:/run/docker/runtime-runc/moby/{GONE}"}


def test_the_layers_of_no_container_are_read(tmp_path: Path) -> None:
    root = tmp_path / "var/lib/docker"
    for id, layer in ((HERE, "1"), (GONE, "2"), (OTHER, "3")):
        directory = root / "image/overlay2/layerdb/mounts" / id
        directory.mkdir(parents=True)
        (directory / "mount-id").write_text(layer * 64)
    (root / "containers" / HERE).mkdir(parents=True)
    os.utime(root / "image/overlay2/layerdb/mounts" / GONE, (1000, 1000))
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu 1 2 3\nbtime 100000\n")
    (tmp_path / "etc/docker").mkdir(parents=True)
    host = Docker()
    listed = {"process": (host.listed["process"][0],), "mount": tuple(host.listed["mount"])}
    records, faults = read_layers(Look(Host(str(tmp_path)), Scope(), listed))
    assert faults == [] and records.pop().facts == {"number": 0}
    assert {record.name: record.facts for record in records} == {
        GONE: {"layer": "2" * 64, "old": True},
        OTHER: {"layer": "3" * 64, "old": False},
    }
    records, _ = read_layers(Look(Host(str(tmp_path)), Scope(), {**listed, "process": ()}))
    assert [record.facts["old"] for record in records[:-1]] == [True, True]


def test_what_came_and_what_went_while_all_was_listed(host: Docker) -> None:
    """A container that was asked for too early is there when it is asked for again; and one that has gone since was."""
    full(host, GONE, 20, 71)
    case = host.case()
    host.exists(GONE, ends=[{"address": "172.17.0.51", "address6": ""}])
    rules(host, "172.17.0.51")
    after = host.case()
    for before, later in ((case.records, after.records), (after.records, case.records)):
        known = Case("docker", Presence.INSTALLED, after.listed, before, been=True, later=later)
        found = attribute(known, host.product.rules, host.product.recall, host.product.holds, host.product.orphans)
        assert [id for id, claim in found.items() if claim.orphan] == []
