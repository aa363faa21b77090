"""The docker snap: its containers by its own directories, what is in the kernel by the ids of its networks, and what
any dockerd calls the same only where no other can have made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_microk8s_rules import Machine

from leftovers.evidence import containerd, docker_store
from leftovers.host import Host
from leftovers.kinds.kind import Look
from leftovers.model import Object, Role, Scope
from leftovers.products import load
from leftovers.products.containers import reading
from leftovers.products.docker_snap import RUN, RUNTIME, STORE

SOCKET = f"{RUN}/containerd/containerd.sock"
TASKS = f"{RUN}/containerd/daemon/io.containerd.runtime.v2.task/moby"
ID, OTHER = "a" * 64, "b" * 64
NETWORK, STRANGE = "1234567890ab" + "c" * 52, "0badcafe0bad" + "d" * 52
SERVICE = "/system.slice/snap.docker.dockerd.service"
SHIM = "/snap/docker/3000/bin/containerd-shim-runc-v2"


class Docker(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.product = load("docker-snap")

    def container(self, pid: int = 10, id: str = ID, netns: int = 77, networks: tuple[str, ...] = (NETWORK,)) -> None:
        self.process(pid, SHIM, SHIM, "-namespace", "moby", "-id", id, "-address", SOCKET)
        facts = {**containerd.blank("moby", id), "bundle": f"{TASKS}/{id}", "cgroup": f"/docker/{id}"}
        self.record("container", f"moby/{id}", "disk", **facts)
        self.record("docker", id, "disk", id=id, name="web", networks=list(networks), sandbox=f"{RUN}/netns/12345")
        self.process(pid + 1, "/app", "app", ppid=pid, cgroup=f"/docker/{id}", nested=True, netns=netns, mntns=pid + 1)
        self.cgroup(f"/docker/{id}", populated=True)
        self.netns(netns, [pid + 1], [f"{RUN}/netns/1234567890ab"])

    def rule(self, chain: str, rule: str, table: str = "filter", target: str = "") -> Object:
        return self.xtables(chain, rule, target or rule.rpartition(" ")[2], table=table)


@pytest.fixture
def host() -> Docker:
    return Docker()


def test_a_container_and_all_that_hangs_on_it(host: Docker) -> None:
    host.container()
    host.cgroup("/docker", populated=True)
    host.process(20, "/snap/docker/3000/bin/docker-proxy", "docker-proxy", "-proto", "tcp")
    host.link("vetha1b2c3d", peer="eth0", peer_netns=77, master="br-1234567890ab")
    host.link("br-1234567890ab", "bridge", addresses=["172.18.0.1"])
    assert host.gone() == {
        *("process:10", "process:11", "process:20", f"cgroup:/docker/{ID}", "cgroup:/docker", "netns:77"),
        *("link:vetha1b2c3d", "link:br-1234567890ab"),
    }


def test_a_user_s_own_podman_has_nothing_in_the_host_s_network(host: Docker) -> None:
    """What keeps his namespaces runs for as long as he has containers, in the host's network namespace."""
    host.container()
    host.link("docker0", "bridge", addresses=["172.17.0.1"])
    host.process(30, "/usr/bin/podman", "podman", uid=1000)
    host.process(31, "/usr/bin/dockerd", "dockerd", uid=1000)
    assert "link:docker0" in host.gone(been=True)
    host.process(32, "/usr/bin/podman", "podman", "system", "service")
    assert "link:docker0" not in host.gone(been=True), "root's may"


def test_another_docker_keeps_all_that_is_called_the_same(host: Docker) -> None:
    host.container()
    host.cgroup("/docker", populated=True)
    # Debian's, with a container of its own.
    host.process(30, "/usr/sbin/dockerd", "dockerd")
    shim = "/usr/bin/containerd-shim-runc-v2"
    host.process(31, shim, shim, "-namespace", "moby", "-id", OTHER, "-address", "/run/containerd/containerd.sock")
    host.process(32, "/app", "app", ppid=31, cgroup=f"/docker/{OTHER}", nested=True, netns=88, mntns=32)
    host.process(33, "/usr/bin/docker-proxy", "docker-proxy", "-proto", "tcp")
    host.cgroup(f"/docker/{OTHER}", populated=True)
    host.netns(88, [32], ["/run/docker/netns/ba0badcafe00"])
    host.link("veth0badcaf", peer="eth0", peer_netns=88, master="docker0")
    host.link("docker0", "bridge", addresses=["172.17.0.1"])
    host.link("br-0badcafe0bad", "bridge")
    for chain in ("DOCKER", "DOCKER-FORWARD", "DOCKER-USER"):
        host.xtables(chain, table="filter")
    host.rule("FORWARD", "-j DOCKER-FORWARD")
    host.rule("POSTROUTING", "-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE", "nat")
    host.add("apparmor", "docker-default", ("d",), type="profile", name="docker-default", processes=[32])
    host.table("docker-bridges", "filter-forward", family="ip")
    for path in ("/run/docker", "/var/lib/docker"):
        host.file(path)
    assert host.gone() == {"process:10", "process:11", f"cgroup:/docker/{ID}", "netns:77"}


def test_alone_on_the_host_its_firewall_goes_and_the_administrator_s_rules_stay(host: Docker) -> None:
    host.container()
    host.link("docker0", "bridge", addresses=["172.17.0.1"])
    for chain in ("DOCKER", "DOCKER-FORWARD", "DOCKER-ISOLATION-STAGE-1", "DOCKER-USER", "DOCKER-MINE"):
        host.xtables(chain, table="filter")
    jump = host.rule("FORWARD", "-j DOCKER-FORWARD")
    masquerade = host.rule("POSTROUTING", "-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE", "nat")
    mine = [
        host.rule("DOCKER-USER", "-s 10.0.0.0/8 -j DROP"),
        host.rule("FORWARD", "-j DOCKER-USER"),
        host.rule("FORWARD", "-i docker0 -o eth0 -j ACCEPT"),
        host.xtables("FORWARD", "-j DOCKER", "DOCKER", "admin: to docker", table="filter"),
        host.rule("POSTROUTING", "-s 10.0.0.0/8 ! -o eth0 -j MASQUERADE", "nat"),
    ]
    gone = host.gone()
    assert {"link:docker0", jump.id, masquerade.id} <= gone
    assert not gone & {each.id for each in mine}
    assert {id for id in gone if "-N DOCKER" in id} == {
        f"xtables:ip nft filter -N {chain}" for chain in ("DOCKER", "DOCKER-FORWARD", "DOCKER-ISOLATION-STAGE-1")
    }
    assert host.ask()[mine[0].id].role is Role.ADMIN


def test_the_chain_for_the_administrator_goes_while_it_is_empty(host: Docker) -> None:
    host.container()
    chain = host.xtables("DOCKER-USER", table="filter")
    jump = host.rule("FORWARD", "-j DOCKER-USER")
    back = host.rule("DOCKER-USER", "-j RETURN")
    assert {chain.id, jump.id, back.id} <= host.gone()


def test_bridges_with_the_names_of_networks(host: Docker) -> None:
    host.container()
    host.link("br-1234567890ab", "bridge")
    host.link("br-0badcafe0bad", "bridge")  # Podman's and nerdctl's have such names
    host.link("br-lan", "bridge")
    claims = host.ask()
    assert "link:br-1234567890ab" in host.gone()
    assert not claims["link:br-0badcafe0bad"].proven and "ip link delete" in claims["link:br-0badcafe0bad"].advice
    assert "link:br-lan" not in claims


def test_a_bridge_with_somebody_s_port_stays(host: Docker) -> None:
    host.container()
    host.link("docker0", "bridge")
    host.link("vnet0", "tun", master="docker0")
    assert host.ask()["link:docker0"].role is Role.HELD


def test_where_it_never_was_names_say_nothing(host: Docker) -> None:
    host.link("docker0", "bridge")
    host.xtables("DOCKER", table="filter")
    host.table("docker-bridges", "filter-forward", family="ip")
    # And it has brought no Kubernetes.
    host.xtables("KUBE-SERVICES", table="nat")
    host.link("cali0badcafe000")
    assert host.ask() == {}
    host.file("/var/snap/docker")
    assert not {"xtables:ip nft nat -N KUBE-SERVICES", "link:cali0badcafe000"} & set(host.ask())


@pytest.mark.parametrize(
    ("point", "goes"),
    [
        (f"{STORE}/overlay2/{ID}/merged", True),
        (f"{STORE}/rootfs/overlayfs/{ID}", True),
        (f"{STORE}/containers/{ID}/mounts/shm", True),
        (f"{STORE}/volumes/with blank/_data", True),
        (f"{TASKS}/{ID}/rootfs", True),
        (STORE, False),
        (f"{STORE}/volumes", False),
        (f"{STORE}-mine/overlay2/{ID}/merged", False),
        ("/var/lib/docker/overlay2/x/merged", False),
        ("/var/snap/docker/common/disk", False),
    ],
)
def test_mounts(host: Docker, point: str, goes: bool) -> None:
    host.mount(point, "0:99", "/x", "overlay")
    assert (f"mount:{point}" in host.gone()) is goes


def test_a_directory_that_is_mounted_on_itself_and_a_disk_of_the_administrator_s(host: Docker) -> None:
    host.mount(f"{STORE}/overlay2", "8:1", f"{STORE}/overlay2", "ext4")
    host.mount(f"{STORE}/btrfs", "8:17", "/", "btrfs")
    host.mount(f"{STORE}/plugins", "8:1", "/srv/plugins", "ext4")
    assert host.gone() == {f"mount:{STORE}/overlay2"}


def test_a_mount_that_the_administrator_configured_stays(host: Docker) -> None:
    host.mount(STORE, "8:17", "/", "ext4", configured="/etc/fstab")
    assert host.gone() == set() and host.ask()[f"mount:{STORE}"].role is Role.ADMIN


def test_the_pin_of_the_host_s_own_network(host: Docker) -> None:
    host.add("netns", "1", (1,), inode=1, host=True, processes=[], pins=[f"{RUN}/netns/default"])
    host.mount(f"{RUN}/netns/default", "0:4", "net:[1]", "nsfs")
    host.mount(f"{RUN}/netns/mine", "0:4", "net:[1]", "nsfs")
    assert host.gone() == {f"mount:{RUN}/netns/default"}
    other = Docker()
    other.add("netns", "1", (1,), inode=1, host=True, processes=[], pins=[])
    other.mount(f"{RUN}/netns/default", "0:4", "net:[5]", "nsfs")
    assert other.gone() == set(), "to undo a namespace's pin is another kind's"


def test_pins_without_a_process(host: Docker) -> None:
    host.netns(90, [], [f"{RUN}/netns/ingress_sbox"])
    host.netns(91, [], ["/run/docker/netns/ingress_sbox"])
    host.netns(92, [], [f"{RUN}/netns/0123456789ab", "/run/netns/mine"])
    assert host.gone() == {"netns:90"}
    assert host.ask()["netns:92"].role is Role.HELD


def test_what_runs_of_it_when_it_is_not_mounted_any_more(host: Docker) -> None:
    host.process(40, "/bin/dockerd", "dockerd")
    host.process(41, "/bin/dockerd", "dockerd")
    host.record("program", "40", "kernel", start=9, exe="/bin/dockerd")
    host.record("program", "41", "kernel", start=8, exe="/bin/dockerd")  # of another process that had this pid
    assert host.gone() == {"process:40"}


def test_data_that_the_administrator_has_elsewhere(host: Docker, tmp_path: Path) -> None:
    argv = ("dockerd", "--data-root=/srv/docker", "--data-root=/srv/../etc", "--data-root=/", "--group=docker")
    processes = (
        host.process(40, "/snap/docker/3000/bin/dockerd", *argv, cgroup=SERVICE),
        host.process(41, "/usr/sbin/dockerd", "dockerd", "--data-root=/srv/other"),
    )
    look = Look(Host(str(tmp_path)), Scope(), {"process": processes, "mount": ()})
    records, _ = reading.read_places(RUNTIME, look)
    assert [record.facts["path"] for record in records] == ["/srv/docker"]
    host.records += records
    host.mount(f"/srv/docker/overlay2/{ID}/merged", fstype="overlay")
    host.mount(f"/srv/other/overlay2/{ID}/merged", fstype="overlay")
    host.file("/srv/docker", entries=("containers", "overlay2", "volumes"))
    assert host.gone() == {"process:40", f"mount:/srv/docker/overlay2/{ID}/merged"}
    assert host.ask()["file:/srv/docker"].role is Role.EXTERNAL
    host.listed["file"] = []
    host.file("/srv/docker", entries=("containers", "mine"))
    assert host.ask()["file:/srv/docker"].role is Role.ADMIN


def test_a_place_that_is_only_remembered_may_be_another_dockerd_s_by_now(host: Docker) -> None:
    host.record("place", STORE, "ledger", path="/srv/docker", why="pid 5 was given it")
    host.mount(f"/srv/docker/overlay2/{ID}/merged", fstype="overlay")
    host.file("/srv/docker", entries=("containers", "overlay2"))
    assert host.gone() == {f"mount:/srv/docker/overlay2/{ID}/merged"}
    assert host.ask()["file:/srv/docker"].role is Role.EXTERNAL
    host.process(41, "/usr/sbin/dockerd", "dockerd", "--data-root=/srv/docker")
    assert host.ask() == {}


@pytest.mark.parametrize(
    ("exe", "facts"),
    [
        ("dockerd", {"uid": 1000}),
        ("dockerd", {"cgroup": "/user.slice/user-0.slice/session-1.scope"}),
        ("docker-proxy", {}),
        ("dockerd", {"mntns": 5}),
    ],
)
def test_nobody_else_says_where_its_data_is(host: Docker, tmp_path: Path, exe: str, facts: dict[str, Any]) -> None:
    known = {"cgroup": SERVICE, **facts}
    host.process(40, f"/snap/docker/3000/bin/{exe}", exe, "--data-root=/srv/docker", **known)
    told(host, tmp_path)
    mount = host.mount(f"/srv/docker/overlay2/{ID}/merged", fstype="overlay")
    host.file("/srv/docker", entries=("containers", "overlay2"))
    assert not {mount.id, "file:/srv/docker"} & set(host.ask())


@pytest.mark.parametrize("sign", ["process", "file"])
@pytest.mark.parametrize(
    ("place", "his"), [("/var/lib/docker", ""), ("/srv/docker", "/srv/docker"), ("/srv/all", "/srv/all/docker")]
)
def test_the_data_of_another_dockerd_are_never_its(
    host: Docker, tmp_path: Path, place: str, his: str, sign: str
) -> None:
    host.process(40, "/snap/docker/3000/bin/dockerd", "dockerd", f"--data-root={place}", cgroup=SERVICE)
    if sign == "process":
        host.process(41, "/usr/sbin/dockerd", "dockerd", *([f"--data-root={his}"] if his else []))
    else:
        host.file("/usr/bin/dockerd", "file")
        (tmp_path / "etc/docker").mkdir(parents=True)
        (tmp_path / "etc/docker/daemon.json").write_text(json.dumps({"data-root": his}))
    told(host, tmp_path)
    where = his or place
    points = [f"{where}/overlay2/{ID}/merged", f"{where}/volumes/db/_data"]
    for point in points:
        host.mount(point, fstype="overlay")
    host.file(place, entries=("containers", "overlay2"))
    claims = host.ask()
    assert not {*(f"mount:{point}" for point in points), f"file:{place}"} & set(claims)


def told(host: Docker, tmp_path: Path) -> None:
    """What readers say of this host's places."""
    look = Look(Host(str(tmp_path)), Scope(), {"process": tuple(host.listed["process"]), "mount": ()})
    host.records += reading.read_places(RUNTIME, look)[0]


def config(root: Path, id: str, **said: Any) -> None:
    path = root / f"containers/{id}/config.v2.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(said))


def test_the_store(tmp_path: Path) -> None:
    networks = {"net": {"NetworkID": NETWORK}, "odd": {"NetworkID": "../x"}, "none": None}
    settings = {"Networks": networks, "SandboxKey": f"{RUN}/netns/1234567890ab"}
    config(tmp_path / "d", ID, ID=ID, Name="/web", NetworkSettings=settings)
    config(tmp_path / "d", OTHER, ID=ID)
    (tmp_path / "d/containers/mine").mkdir()
    records, faults = docker_store.read(Host(str(tmp_path)), "/d")
    assert [record.name for record in records] == [ID] and faults == []
    facts = {name: records[0].facts[name] for name in ("id", "name", "networks", "sandbox")}
    assert facts == {"id": ID, "name": "web", "networks": [NETWORK], "sandbox": f"{RUN}/netns/1234567890ab"}


def test_a_hostile_store(tmp_path: Path) -> None:
    for number, text in enumerate(("{", "[]", '{"ID": 7}', '{"ID": "x", "NetworkSettings": []}')):
        path = tmp_path / f"d/containers/{str(number) * 64}/config.v2.json"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    (tmp_path / f"d/containers/{'e' * 64}").symlink_to("/")
    records, _ = docker_store.read(Host(str(tmp_path)), "/d")
    assert records == []
