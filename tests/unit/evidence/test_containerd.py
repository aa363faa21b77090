"""What a containerd has on disk: as it is, and as somebody would like us to read it."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import pytest
from bolt_file import Writer

from leftovers.errors import Unreadable
from leftovers.evidence import containerd
from leftovers.host import Host
from leftovers.model import Record

STATE, ROOT = "/var/snap/microk8s/common/run/containerd", "/var/snap/microk8s/common/var/lib/containerd"
SANDBOX, INNER = "5" * 64, "c" * 64
POD = {
    "io.kubernetes.cri.container-type": "sandbox",
    "io.kubernetes.cri.sandbox-id": SANDBOX,
    "io.kubernetes.cri.sandbox-name": "web-0",
    "io.kubernetes.cri.sandbox-namespace": "default",
    "io.kubernetes.cri.sandbox-uid": "11111111-2222-3333-4444-555555555555",
    "io.kubernetes.cri.image-name": "docker.io/library/nginx:1.27",
    "io.kubernetes.cri.container-name": "nginx",
}
CONFIG = {
    "ociVersion": "1.1.0",
    "annotations": POD,
    "linux": {
        "cgroupsPath": f"/kubepods/besteffort/pod1/{SANDBOX}",
        "namespaces": [{"type": "pid"}, {"type": "network", "path": "/var/run/netns/cni-1"}],
    },
}


class Disk:
    def __init__(self, root: pathlib.Path) -> None:
        self.root, self.host = root, Host(str(root))

    def write(self, path: str, content: Any = "") -> pathlib.Path:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            target.write_text(content if isinstance(content, str) else json.dumps(content))
        return target

    def directory(self, path: str) -> pathlib.Path:
        target = self.root / path.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        return target

    def bundle(self, id: str, config: Any, namespace: str = "k8s.io") -> str:
        path = f"{STATE}/{containerd.TASKS}/{namespace}/{id}"
        self.write(f"{path}/config.json", config)
        return path

    def read(self, *namespaces: str) -> tuple[dict[str, Record], list[str]]:
        records, faults = containerd.read(self.host, STATE, ROOT, namespaces)
        assert {record.type for record in records} <= {"container"}
        return {record.name: record for record in records}, faults


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Disk:
    return Disk(tmp_path)


def test_a_bundle_as_it_is(disk: Disk) -> None:
    path = disk.bundle(SANDBOX, CONFIG)
    disk.write(f"{path}/init.pid", "4711")
    disk.write(f"{path}/shim-binary-path", "/snap/microk8s/7000/bin/containerd-shim-runc-v2")
    disk.write(f"{path}/bootstrap.json", {"version": 3, "address": "unix:///run/containerd/s/ab", "protocol": "ttrpc"})
    disk.directory(f"{path}/rootfs")
    os.mkfifo(disk.root / path.lstrip("/") / "log")
    (disk.root / path.lstrip("/") / "work").symlink_to(f"{ROOT}/{containerd.TASKS}/k8s.io/{SANDBOX}")
    disk.directory(f"{ROOT}/{containerd.TASKS}/k8s.io/{INNER}")
    disk.directory(f"{STATE}/{containerd.CRI}/sandboxes/{'d' * 64}/shm")
    records, faults = disk.read()
    assert faults == [] and set(records) == {f"k8s.io/{each}" for each in (SANDBOX, INNER, "d" * 64)}
    assert records[f"k8s.io/{SANDBOX}"].facts == {
        "namespace": "k8s.io",
        "id": SANDBOX,
        "bundle": path,
        "cgroup": f"/kubepods/besteffort/pod1/{SANDBOX}",
        "netns": "/var/run/netns/cni-1",
        "pid": 4711,
        "sandbox": SANDBOX,
        "pod": "web-0",
        "pod_namespace": "default",
        "pod_uid": POD["io.kubernetes.cri.sandbox-uid"],
        "shim": "/snap/microk8s/7000/bin/containerd-shim-runc-v2",
        "socket": "/run/containerd/s/ab",
        "image": "docker.io/library/nginx:1.27",
        "name": "nginx",
    }
    assert records[f"k8s.io/{INNER}"].facts["bundle"] == ""
    assert records[f"k8s.io/{'d' * 64}"].facts["sandbox"] == "d" * 64


def test_an_older_shim_s_address_and_an_interrupted_deletion(disk: Disk) -> None:
    path = disk.bundle("job", {}, "default")
    disk.write(f"{path}/address", "unix:///run/containerd/s/cd\n")
    disk.directory(f"{STATE}/{containerd.TASKS}/default/.{SANDBOX}")
    records, faults = disk.read()
    assert faults == [] and records["default/job"].facts["socket"] == "/run/containerd/s/cd"
    assert records[f"default/{SANDBOX}"].facts["bundle"].endswith(f"/.{SANDBOX}")


def test_only_some_namespaces_of_a_daemon_that_is_shared(disk: Disk) -> None:
    disk.bundle("a", {}, "moby")
    disk.bundle("b", {}, "k8s.io")
    disk.directory(f"{STATE}/{containerd.CRI}/sandboxes/{SANDBOX}")
    assert set(disk.read("k8s.io")[0]) == {"k8s.io/b", f"k8s.io/{SANDBOX}"}
    assert set(disk.read("moby")[0]) == {"moby/a"}


def test_no_containerd_at_all(disk: Disk) -> None:
    assert disk.read() == ({}, [])
    assert containerd.read_runc(disk.host) == ([], []) and containerd.read_shared(disk.host) == ([], [])


@pytest.mark.parametrize(
    "config",
    [
        *("", "{", "[]", "null", "[" * 100000, '{"linux": 3}', b"\xff\xfe{}"),
        {"annotations": {"io.kubernetes.cri.sandbox-id": "../../etc", "io.kubernetes.cri.sandbox-name": "a/b"}},
        {"annotations": [], "linux": {"namespaces": {"type": "network"}, "cgroupsPath": ["/"]}},
        {"linux": {"namespaces": [{"type": "network", "path": "/run/netns/../x"}, {"type": "network", "path": 3}, 4]}},
        {"linux": {"namespaces": [{"type": "network", "path": "netns\n"}], "cgroupsPath": "/a\nb"}},
    ],
    ids=range(11),
)
def test_a_configuration_that_lies(disk: Disk, config: Any) -> None:
    disk.bundle("job", config)
    records, _ = disk.read()
    facts = records["k8s.io/job"].facts
    assert {facts[name] for name in ("cgroup", "netns", "sandbox", "pod", "pod_namespace", "pod_uid")} == {""}


def test_names_that_lie(disk: Disk) -> None:
    tasks = f"{STATE}/{containerd.TASKS}/k8s.io"
    for name in ("a b", "a\nb", "-rf", "..a", "é", "x" * 77, "ok"):
        disk.directory(f"{tasks}/{name}")
    os.mkdir(os.fsencode(disk.root / tasks.lstrip("/")) + b"/\xff")
    disk.directory(f"{STATE}/{containerd.TASKS}/bad namespace/a")
    disk.write(f"{STATE}/{containerd.TASKS}/k8s.io/file")
    (disk.root / tasks.lstrip("/") / "link").symlink_to("ok")
    records, faults = disk.read()
    assert set(records) == {"k8s.io/ok"} and len(faults) == 7
    assert not any("\n" in fault for fault in faults)


def test_files_that_are_none(disk: Disk) -> None:
    path = disk.bundle("job", {})
    here = disk.root / path.lstrip("/")
    (here / "config.json").unlink()
    (here / "config.json").symlink_to("/etc/passwd")
    os.mkfifo(here / "init.pid")
    (here / "bootstrap.json").mkdir()
    with open(here / "shim-binary-path", "wb") as file:
        file.truncate(1 << 40)
    records, faults = disk.read()
    assert records["k8s.io/job"].facts["pid"] == 0 and len(faults) == 4


@pytest.mark.parametrize("said", ["-1", "0x10", "99999999", "1 2", "٣", "1\n\n"])
def test_a_pid_that_is_none(disk: Disk, said: str) -> None:
    path = disk.bundle("job", {})
    disk.write(f"{path}/init.pid", said)
    assert disk.read()[0]["k8s.io/job"].facts["pid"] == 0


# -- what all share --------------------------------------------------------------------------------------------------


def runc(disk: Disk) -> dict[str, dict[str, Any]]:
    return {record.name: dict(record.facts) for record in containerd.read_runc(disk.host)[0]}


def test_runc_s_state(disk: Disk) -> None:
    state = {
        "id": SANDBOX,
        "init_process_pid": 4711,
        "init_process_start": 123456,
        "config": {"labels": [f"bundle={STATE}/{containerd.TASKS}/k8s.io/{SANDBOX}"]},
        "cgroup_paths": {"": "/sys/fs/cgroup/kubepods/x", "pids": 3},
        "created": "2026-11-20T10:00:00.5Z",
    }
    disk.write(f"/run/containerd/runc/k8s.io/{SANDBOX}/state.json", state)
    assert runc(disk)[f"k8s.io/{SANDBOX}"] == {
        "namespace": "k8s.io",
        "id": SANDBOX,
        "path": f"/run/containerd/runc/k8s.io/{SANDBOX}",
        "pid": 4711,
        "start": 123456,
        "bundle": f"{STATE}/{containerd.TASKS}/k8s.io/{SANDBOX}",
        "cgroups": ["/sys/fs/cgroup/kubepods/x"],
        "created": "2026-11-20T10:00:00.5Z",
    }


@pytest.mark.parametrize(
    "state",
    [
        {"id": INNER, "init_process_pid": 1, "init_process_start": 1, "config": {"labels": ["bundle=/x"]}},
        {
            "id": SANDBOX,
            "init_process_pid": True,
            "init_process_start": -1,
            "config": {"labels": ["bundle=/x", "bundle=/y"]},
        },
        {"id": SANDBOX, "init_process_pid": "7", "init_process_start": 1e9, "config": {"labels": ["bundle=/x/../y"]}},
        {"id": SANDBOX, "config": {"labels": "bundle=/x"}, "cgroup_paths": []},
    ],
    ids=["another's", "two", "strings", "none"],
)
def test_a_state_that_lies(disk: Disk, state: Any) -> None:
    disk.write(f"/run/containerd/runc/k8s.io/{SANDBOX}/state.json", state)
    facts = runc(disk)[f"k8s.io/{SANDBOX}"]
    assert (facts["pid"], facts["start"], facts["bundle"]) == (0, 0, "")


def test_sockets_and_fifos(disk: Disk) -> None:
    disk.write(f"/run/containerd/s/{'a' * 64}")
    disk.write("/run/containerd/s/mine")
    disk.directory(f"/run/containerd/s/{'b' * 64}")
    disk.write(f"/run/containerd/fifo/123/{SANDBOX}-stdout")
    disk.write("/run/containerd/fifo/123/a-b-stdin")
    disk.write("/run/containerd/fifo/4/notes.txt")
    found = {record.name: record.facts for record in containerd.read_shared(disk.host)[0]}
    assert found == {
        f"/run/containerd/s/{'a' * 64}": {"hash": "a" * 64},
        "/run/containerd/fifo/123": {"ids": [SANDBOX, "a-b"]},
        "/run/containerd/fifo/4": {"ids": []},
    }


def test_the_name_of_a_socket() -> None:
    # sha256 of "/run/containerd/containerd.sock/moby/x", as sha256sum(1) tells it.
    own, debug = containerd.sockets("/run/containerd/containerd.sock", "moby", "x")
    assert (
        own == "48cf8273f84e0587b7f5a942cdea2c76b0ee5b664b2e396e851b93596d391e54" and debug != own and len(debug) == 64
    )


def test_its_book_of_containers_and_sandboxes(tmp_path: pathlib.Path) -> None:
    host = Host(str(tmp_path))
    with pytest.raises(Unreadable):  # it has none there
        containerd.registered(host, ROOT)
    made = {b"createdat": b"x"}
    tree = {
        b"v1": {
            b"k8s.io": {b"containers": {b"c1": made}, b"sandboxes": {b"s1": made}, b"images": {b"i1": made}},
            b"default": {b"containers": {b"job": {**made, b"labels": {b"a": b"b"}}}},
        }
    }
    path = pathlib.Path(host.path(f"{ROOT}/io.containerd.metadata.v1.bolt/meta.db"))
    path.parent.mkdir(parents=True)
    path.write_bytes(Writer().file(tree))
    assert containerd.registered(host, ROOT) == {("k8s.io", "c1"), ("k8s.io", "s1"), ("default", "job")}
    path.write_bytes(b"x" * 9000)
    with pytest.raises(Unreadable):
        containerd.registered(host, ROOT)


def test_what_it_keeps_through_a_boot(tmp_path: pathlib.Path) -> None:
    host = Host(str(tmp_path))
    tasks, sandboxes = "io.containerd.runtime.v2.task", "io.containerd.grpc.v1.cri/sandboxes"
    for path in (f"{tasks}/k8s.io/{'a' * 64}", f"{tasks}/default/.job", f"{sandboxes}/{'b' * 64}"):
        pathlib.Path(host.path(f"{ROOT}/{path}")).mkdir(parents=True)
    faults: list[str] = []
    found = containerd.read_kept(host, ROOT, (), faults)
    assert {record.name for record in found} == {f"k8s.io/{'a' * 64}", "default/job", f"k8s.io/{'b' * 64}"}
    assert {each.name for each in containerd.read_kept(host, ROOT, ("default",), faults)} == {"default/job"}
    assert faults == []
