"""k3s and rke2, which have one socket and one --state: a line in what each wrote for its containerd tells them apart,
and beside each other the files that their shims run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_microk8s_rules import OTHER, SANDBOX, UID, Machine

from leftovers.host import Host
from leftovers.kinds.kind import Look
from leftovers.model import Object, Role, Scope
from leftovers.products import load
from leftovers.products.containers import rancher, reading

SOCKET = "/run/k3s/containerd/containerd.sock"
STATE = "/run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io"
DATA = {name: f"/var/lib/rancher/{name}" for name in ("k3s", "rke2")}
NAMES = ("k3s", "rke2")
INODE = 7  # as the literal files have it


def runtime_of(name: str) -> Any:
    """The Runtime that a product's first reader is bound to."""
    return load(name).readers[0].args[0]  # type: ignore[attr-defined]


class Rancher(Machine):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.product = load(name)
        self.data = DATA[name]
        self.shim_file = f"{self.data}/data/abc123/bin/containerd-shim-runc-v2"

    def grounds(self, by: str = "") -> None:
        for marker in runtime_of(self.name).markers:
            path = marker.directory
            self.record("ground", path, "disk", path=path, inode=INODE, file=marker.file)
            self.record("used", path, "disk", by=by, inode=INODE, entries=[])

    def sandbox(self, pid: int, id: str, exe: str, known: bool = True) -> None:
        self.process(pid, exe, exe, "-namespace", "k8s.io", "-id", id, "-address", SOCKET, cgroup="/system.slice/x")
        group = f"/kubepods/besteffort/pod{UID}/{id}"
        self.process(pid + 1, "/pause", "/pause", ppid=pid, cgroup=group, nested=True, netns=60 + pid, mntns=pid + 1)
        self.cgroup(group, populated=True)
        if known:
            facts = {"start": 9, "bundle": f"{STATE}/{id}", "namespace": "k8s.io", "id": id, "address": SOCKET}
            self.record("shim", str(pid), "kernel", **facts)


@pytest.fixture(params=NAMES)
def host(request: pytest.FixtureRequest) -> Rancher:
    return Rancher(request.param)


def files(host: Rancher, been: bool = False) -> dict[str, Role]:
    found = host.ask(been=been)
    return {id[5:]: claim.role for id, claim in found.items() if id.startswith("file:") and claim.proven}


def test_a_pod_and_a_service(host: Rancher) -> None:
    host.grounds()
    host.sandbox(10, SANDBOX, host.shim_file)
    unit = {"k3s": "k3s.service", "rke2": "rke2-agent.service"}[host.name]
    host.process(20, f"{host.data}/data/abc123/bin/{host.name}", host.name, cgroup=f"/system.slice/{unit}")
    host.process(21, "/usr/bin/bash", "bash", cgroup=f"/system.slice/{unit}.d-mine")
    group = f"cgroup:/kubepods/besteffort/pod{UID}/{SANDBOX}"
    assert host.gone() == {"process:10", "process:11", "process:20", group}


def test_of_two_the_shim_s_file_tells(host: Rancher) -> None:
    """Both are there: whose --state it is, nobody can say."""
    other = next(name for name in NAMES if name != host.name)
    host.grounds(by=f"{DATA[other]} is there")
    host.sandbox(10, SANDBOX, host.shim_file, known=False)
    host.sandbox(30, OTHER, f"{DATA[other]}/data/def456/bin/containerd-shim-runc-v2", known=False)
    host.mount(f"{STATE}/{SANDBOX}/rootfs", fstype="overlay")
    host.mount(f"{STATE}/{OTHER}/rootfs", fstype="overlay")
    found = host.gone()
    assert {"process:10", "process:11"} <= found and not {"process:30", "process:31"} & found
    assert not {id for id in found if id.startswith("mount:")}


def test_its_data_are_kept_and_its_programs_go(host: Rancher) -> None:
    host.grounds()
    for part in ("", "/agent", "/data", "/server", "/storage"):
        host.file(f"{host.data}{part}")
    host.file(f"/etc/rancher/{host.name}")
    host.file("/run/k3s", entries=("containerd",))
    host.file("/var/lib/kubelet", entries=("pods", "plugins_registry"))
    host.file(f"{host.data}-backup")
    assert files(host) == {
        host.data: Role.EXTERNAL,
        f"{host.data}/agent": Role.DATA,
        f"{host.data}/data": Role.DATA,
        f"{host.data}/server": Role.EXTERNAL,
        f"{host.data}/storage": Role.EXTERNAL,
        f"/etc/rancher/{host.name}": Role.EXTERNAL,
        "/run/k3s": Role.LIVE,
        "/var/lib/kubelet": Role.DATA,
    }


def test_what_is_not_its_own_in_kubelet_s_directory_keeps_it(host: Rancher) -> None:
    host.grounds()
    host.file(host.data)
    host.file("/var/lib/kubelet", entries=("pods", "config.yaml"))  # kubeadm's
    host.file("/run/k3s", entries=("containerd", "mine"))
    assert set(files(host)) == {host.data}


def test_symlinks_by_where_they_lead(host: Rancher) -> None:
    runtime = runtime_of(host.name)
    unit = next(path for path, *_ in runtime.marked if path.endswith(".service"))
    name = unit.rpartition("/")[2]
    wants = "/etc/systemd/system/multi-user.target.wants"
    host.file(f"{wants}/{name}", "symlink", target=unit)
    host.file("/usr/local/bin/kubectl", "symlink", target=runtime.executables[0].rpartition("/")[2])
    host.file("/usr/local/bin/crictl", "symlink", target="/opt/tools/crictl")
    assert files(host) == {f"{wants}/{name}": Role.DATA, "/usr/local/bin/kubectl": Role.DATA}
    host.file(f"{wants}/{name}", "symlink", target=f"/srv/{name}")


def test_kube_router_s_chains_go_with_it() -> None:
    host = Rancher("k3s")
    host.grounds()
    host.file(host.data)
    host.file(f"{host.data}/agent")
    mine = host.xtables("KUBE-ROUTER-MINE", table="filter")
    own: list[Object] = [
        host.xtables("KUBE-ROUTER-INPUT", table="filter"),
        host.xtables("KUBE-NWPLCY-DEFAULT", table="filter"),
        host.xtables("KUBE-POD-FW-TCOU7JCQXEZGVUNU", table="filter"),
        host.xtables("INPUT", "-j KUBE-ROUTER-INPUT", "KUBE-ROUTER-INPUT", "kube-router netpol - X", table="filter"),
    ]
    gone = host.gone()
    assert {each.id for each in own} <= gone and mine.id not in gone


# -- what is read ---------------------------------------------------------------------------------------------------


def written(root: Path, name: str, data: str = "") -> None:
    path = root / (data or DATA[name])[1:] / "agent/etc/containerd"
    path.mkdir(parents=True)
    text = f"# File generated by {name}. DO NOT EDIT. Use config.toml.tmpl instead.\nversion = 2\n"
    (path / "config.toml").write_text(text)


def bundle(root: Path, id: str) -> None:
    path = root / STATE[1:] / id
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"annotations": {"io.kubernetes.cri.sandbox-uid": UID}}))


def read(root: Path, name: str) -> set[str]:
    look = Look(Host(str(root)), Scope(), {"process": (), "mount": ()})
    records, faults = reading.read_disk(runtime_of(name), look)
    assert faults == []
    return {record.name for record in records if record.type == "container"}


@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_whose_line_is_there(tmp_path: Path, name: str) -> None:
    other = next(each for each in NAMES if each != name)
    bundle(tmp_path, SANDBOX)
    assert read(tmp_path, name) == set()
    written(tmp_path, name)
    assert read(tmp_path, name) == {f"k8s.io/{SANDBOX}"} and read(tmp_path, other) == set()
    written(tmp_path, other)
    assert read(tmp_path, name) == set() == read(tmp_path, other), "of both, nobody can say"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("etc/rancher/k3s/config.yaml", 'write-kubeconfig-mode: "0644"\ndata-dir: "/srv/k3s"\n'),
        (
            "etc/systemd/system/k3s.service",
            "ExecStart=/usr/local/bin/k3s \\\n    server \\\n\t'--data-dir' \\\n\t'/srv/k3s' \\\n",
        ),
        ("etc/systemd/system/k3s.service", "ExecStart=/usr/local/bin/k3s server --data-dir=/srv/k3s\n"),
        ("etc/systemd/system/k3s.service.env", "K3S_DATA_DIR='/srv/k3s'\n"),
    ],
)
def test_a_data_directory_of_its_own(tmp_path: Path, path: str, text: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    bundle(tmp_path, SANDBOX)
    assert read(tmp_path, "k3s") == set(), "it has never been there"
    written(tmp_path, "k3s", "/srv/k3s")
    assert read(tmp_path, "k3s") == {f"k8s.io/{SANDBOX}"}


@pytest.mark.parametrize("word", ["/", "/srv", "srv/k3s", "/srv/../etc", "", "'"])
def test_no_directory_that_cannot_be_one(tmp_path: Path, word: str) -> None:
    (tmp_path / "etc/rancher/k3s").mkdir(parents=True)
    (tmp_path / "etc/rancher/k3s/config.yaml").write_text(f"data-dir: {word}\n")
    for data in ("srv", "etc", "."):
        written(tmp_path, "k3s", f"/{data}")
    assert rancher.told(DATA["k3s"], "/etc/rancher/k3s", (), Host(str(tmp_path))) == []


HASH = "0" * 64


@pytest.mark.parametrize(
    ("name", "its", "mine"),
    [
        ("data", (HASH, "current", ".lock"), "photos"),
        ("data", ("v1.32.0-rke2r1-4a4a4a4a4a4a",), "v1"),
        ("storage", ("pvc-99999999-0000-0000-0000-000000000000_default_www",), "films"),
        ("server", ("cred", "db", "tls", "token"), "www"),
    ],
)
def test_in_another_place_an_administrator_may_have_a_directory_of_that_name(
    name: str, its: tuple[str, ...], mine: str
) -> None:
    path = f"/mnt/disk/{name}"
    for entries, own in ((its, True), ((*its, mine), False), ((), False), ((mine,), False)):
        host = Rancher("k3s")
        host.record("place", DATA["k3s"], "disk", path="/mnt/disk", why="k3s was told to have its data there")
        host.file(path, entries=entries)
        claim = host.ask().get(f"file:{path}")
        assert claim is not None and claim.proven is own, entries
        assert own or (claim.role is Role.ADMIN and claim.advice), entries


def test_in_another_place_only_its_parts_are_its_own() -> None:
    host = Rancher("k3s")
    host.record("place", DATA["k3s"], "disk", path="/srv/k3s", why="k3s was told to have its data there")
    for part in ("", "/agent", "/server", "/mine"):
        host.file(f"/srv/k3s{part}", entries=("tls",))
    assert files(host) == {"/srv/k3s/agent": Role.DATA, "/srv/k3s/server": Role.EXTERNAL}
