"""containerd's packages: all of its socket is its own, whatever it is called; but the place may be another's, and so
may the name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_microk8s_rules import Machine

from leftovers.claims import Case, attribute
from leftovers.evidence import containerd
from leftovers.host import Host
from leftovers.kinds.kind import Look
from leftovers.model import Object, Presence, Role, Scope
from leftovers.products import load
from leftovers.products.containerd import PRODUCT, RUNTIME
from leftovers.products.containers import reading
from leftovers.survey import presence

ADDRESS = "/run/containerd/containerd.sock"
STATE = "/run/containerd"
TASKS = f"{STATE}/io.containerd.runtime.v2.task"
SHIM = "/usr/bin/containerd-shim-runc-v2"


class Containerd(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.product = load("containerd")

    def container(self, pid: int, id: str, namespace: str = "mine", address: str = ADDRESS) -> None:
        bundle = f"{TASKS}/{namespace}/{id}"
        said = {"namespace": namespace, "id": id, "address": address}
        argv = ("-namespace", namespace, "-id", id, "-address", address)
        self.process(pid, SHIM, SHIM, *argv, cgroup="/system.slice/somewhere.service")
        if address == ADDRESS:
            self.record("shim", str(pid), "kernel", start=9, bundle=bundle, **said)
            facts = {**containerd.blank(namespace, id), "bundle": bundle, "cgroup": f"/{namespace}/{id}"}
            self.record("container", f"{namespace}/{id}", "disk", **facts)
        where = {"cgroup": f"/{namespace}/{id}", "nested": True, "netns": pid, "mntns": pid}
        self.process(pid + 1, "/app", "app", ppid=pid, **where)
        self.cgroup(f"/{namespace}/{id}", populated=True)
        self.netns(pid, [pid + 1], [])


@pytest.fixture
def host() -> Containerd:
    return Containerd()


def test_containers_of_all_namespaces_and_with_a_person_s_names(host: Containerd) -> None:
    host.container(10, "web")
    host.container(20, "a" * 64, "k8s.io")
    host.container(30, "web", "other", "/run/k3s/containerd/containerd.sock")
    host.link("veth12345678", peer="eth0", peer_netns=10)
    host.link("veth30303030", peer="eth0", peer_netns=30)
    assert host.gone() == {
        *("process:10", "process:11", "process:20", "process:21", "netns:10", "netns:20", "link:veth12345678"),
        *("cgroup:/mine/web", f"cgroup:/k8s.io/{'a' * 64}"),
    }


def test_names_that_a_person_chose_count_while_nobody_else_has_a_containerd(host: Containerd) -> None:
    """ctr calls a container of his NAMESPACE-ID where it asks CNI for its network."""
    host.container(10, "web")
    path = host.result("mine-web", links=["veth1"], network="mine")
    host.record("fifo", f"{STATE}/fifo/123", "disk", ids=["web"])
    host.file(path, "file")
    host.file(f"{STATE}/fifo/123")
    assert {f"file:{path}", f"file:{STATE}/fifo/123"} <= host.gone()
    host.process(40, "/var/lib/rancher/k3s/data/x/bin/containerd", "containerd", "-a", "/run/k3s/containerd.sock")
    assert not {f"file:{path}", f"file:{STATE}/fifo/123"} & host.gone()


@pytest.mark.parametrize(
    ("exe", "argv", "takes"),
    [
        ("/usr/bin/containerd (deleted)", (), False),
        ("/opt/bin/containerd", (), True),
        ("/opt/bin/containerd", ("--address", "/run/my/containerd.sock"), False),
        ("/snap/k8s/10/bin/containerd", ("--config", "/etc/containerd/config.toml"), True),
        ("/snap/microk8s/10/bin/containerd", ("--address", "/var/snap/microk8s/common/run/containerd.sock"), False),
        ("/var/lib/rancher/k3s/data/x/bin/containerd", ("-c", "/var/lib/rancher/k3s/agent/etc/c.toml"), False),
    ],
)
def test_who_else_has_his_containerd_there(tmp_path: Path, exe: str, argv: tuple[str, ...], takes: bool) -> None:
    host = Containerd()
    host.process(5, exe, "containerd", *argv)
    look = Look(Host(str(tmp_path)), Scope(), {kind: tuple(objects) for kind, objects in host.listed.items()})
    found = [record for record in reading.read_places(RUNTIME, look)[0] if record.type == "usurper"]
    assert bool(found) is takes


def test_at_another_s_place_nothing_is_its_own(host: Containerd) -> None:
    host.container(10, "web")
    host.record("usurper", "5", "kernel", why="pid 5 runs /snap/k8s/10/bin/containerd")
    for path in (STATE, ADDRESS, TASKS, f"{TASKS}/mine", "/run/nri", "/var/lib/containerd"):
        host.file(path, entries=("x",) if path == TASKS else ())
    assert not {id for id in host.gone(been=True) if id.startswith(("file:", "process:10"))}


def test_its_directories(host: Containerd) -> None:
    host.container(10, "web")
    host.file(ADDRESS, "socket")
    host.file(f"{TASKS}/mine", entries=("web",))
    host.file(TASKS, entries=("mine",))
    host.file("/etc/cni/net.d", hollow=True)
    host.file("/etc/cni", hollow=True, entries=("net.d",))
    claims, gone = host.ask(), host.gone()
    assert {f"file:{path}" for path in (ADDRESS, TASKS, f"{TASKS}/mine", "/etc/cni/net.d", "/etc/cni")} <= gone
    assert claims[f"file:{TASKS}"].object.facts["only_hollow"], "a tenant who stays may have his in it"


def test_configurations_of_cni_stay(host: Containerd) -> None:
    host.container(10, "web")
    host.file("/etc/cni/net.d", entries=("10-mine.conflist",))
    assert "file:/etc/cni/net.d" not in host.gone()


@pytest.mark.parametrize(("content", "role"), [(True, Role.EXTERNAL), (False, Role.DATA)])
def test_images_are_data_that_no_purge_takes(host: Containerd, content: bool, role: Role) -> None:
    host.record("images", "/var/lib/containerd", "disk", content=content, inode=7)
    host.file("/var/lib/containerd", entries=("io.containerd.content.v1.content", "io.containerd.metadata.v1.bolt"))
    assert host.ask()["file:/var/lib/containerd"].role is role


@pytest.mark.parametrize(
    ("path", "has"),
    [
        ("io.containerd.content.v1.content/blobs/sha256/abc", True),
        ("io.containerd.content.v1.content/ingest/x", False),
        ("io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs", True),
        ("io.containerd.snapshotter.v1.overlayfs/metadata.db", False),
        ("io.containerd.metadata.v1.bolt/meta.db", False),
    ],
)
def test_what_counts_as_content(tmp_path: Path, path: str, has: bool) -> None:
    file = tmp_path / "var/lib/containerd" / path
    file.parent.mkdir(parents=True)
    file.write_text("")
    assert containerd.has_content(Host(str(tmp_path)), "/var/lib/containerd") is has


def test_another_product_s_own_containerd_is_not_this_one(tmp_path: Path, host: Containerd) -> None:
    """k3s, and dockerd where the host has none, run a program of that name."""
    for pid, exe in ((5, "/var/lib/rancher/k3s/data/x/bin/containerd"), (6, "/opt/containerd")):
        host.process(pid, exe, "containerd")
    listed: dict[str, Any] = {kind: tuple(objects) for kind, objects in host.listed.items()}
    assert presence(Host(str(tmp_path)), PRODUCT, listed)[0] is Presence.ABSENT
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/containerd").write_text("")
    assert presence(Host(str(tmp_path)), PRODUCT, listed)[0] is Presence.INSTALLED


def test_where_it_has_never_been_names_say_nothing(host: Containerd) -> None:
    for path in ("/run/containerd", "/run/containerd/s", "/etc/cni", "/etc/cni/net.d", "/run/nri"):
        host.file(path, hollow=True)
    host.process(5, "/usr/bin/sleep", "containerd")
    claims = attribute(
        Case("containerd", Presence.ABSENT, {kind: tuple(some) for kind, some in host.listed.items()}), PRODUCT.rules
    )
    assert not [claim for claim in claims.values() if claim.proven], claims


def test_objects(host: Containerd) -> None:
    """Every rule is asked about every kind of object without a fault."""
    host.add("apparmor", "x", ("x",), type="profile", name="cri-containerd.apparmor.d", processes=[])
    assert isinstance(host.ask(), dict) and all(isinstance(each, Object) for each in host.listed["apparmor"])
