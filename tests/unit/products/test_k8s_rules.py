"""Canonical's k8s snap, which uses the host's own places: they are its own by the files that it wrote down, where
nobody else has a containerd or a kubelet; and else nothing in them is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from test_microk8s_rules import OTHER, SANDBOX, UID, Machine

from leftovers.evidence import containerd
from leftovers.host import Host
from leftovers.kinds.kind import Look
from leftovers.model import Object, Record, Role, Scope
from leftovers.products import load
from leftovers.products.containers import reading
from leftovers.products.k8s import COMMON, RUNTIME

SOCKET = "/run/containerd/containerd.sock"
TASKS = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"
SHIM = "/snap/k8s/2000/bin/containerd-shim-runc-v2"
PLACES = tuple(marker.directory for marker in RUNTIME.markers)
INODE = 7  # as the literal files have it


class K8s(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.product = load("k8s")

    def grounds(self, by: str = "", base: str = "", source: str = "disk", inode: int = INODE) -> None:
        """What its files prove, and who else is there."""
        for marker in RUNTIME.markers:
            path = base + marker.directory
            self.record("ground", marker.directory, source, path=path, inode=INODE, file=marker.file)
            self.record("used", path, "disk", by=by, inode=inode, entries=[])

    def sandbox(self, pid: int = 10, id: str = SANDBOX, exe: str = SHIM, address: str = SOCKET) -> None:
        self.process(pid, exe, exe, "-namespace", "k8s.io", "-id", id, "-address", address, cgroup="/system.slice/x")
        cgroup = f"/kubepods.slice/cri-containerd-{id}.scope"
        self.process(pid + 1, "/pause", "/pause", ppid=pid, cgroup=cgroup, nested=True, netns=70 + pid, mntns=pid)
        self.cgroup(cgroup, populated=True)

    def known(self, pid: int = 10, id: str = SANDBOX) -> None:
        facts = {"start": 9, "bundle": f"{TASKS}/{id}", "namespace": "k8s.io", "id": id, "address": SOCKET}
        self.record("shim", str(pid), "kernel", **facts)


@pytest.fixture
def host() -> K8s:
    return K8s()


def of(host: K8s, kind: str) -> set[str]:
    return {id.partition(":")[2] for id in host.gone() if id.startswith(f"{kind}:")}


# -- what is in the host's own places -------------------------------------------------------------------------------


def furnished(host: K8s, base: str = "") -> dict[str, Object]:
    """What it makes in them."""
    files = {
        "/run/containerd": ("directory", ("containerd.sock", "io.containerd.runtime.v2.task", "s"), ""),
        "/run/containerd/containerd.sock": ("socket", (), ""),
        "/run/containerd/io.containerd.runtime.v2.task": ("directory", ("k8s.io",), ""),
        "/var/lib/containerd": ("directory", ("io.containerd.content.v1.content", "tmpmounts"), ""),
        "/etc/containerd": ("directory", ("conf.d", "config.toml", "hosts.d"), ""),
        "/opt/cni": ("directory", ("bin",), ""),
        "/opt/cni/bin": ("directory", ("bridge", "cni"), ""),
        "/opt/cni/bin/cni": ("file", (), ""),
        "/opt/cni/bin/bridge": ("symlink", (), "cni"),
        "/var/lib/kubelet": ("directory", ("pods", "plugins", "cpu_manager_state"), ""),
        "/etc/kubernetes": ("directory", ("admin.conf", "kubelet.conf", "pki"), ""),
    }
    return {
        path: host.file(base + path, type, entries, target=target) for path, (type, entries, target) in files.items()
    }


def test_alone_its_places_go(host: K8s) -> None:
    host.grounds()
    furnished(host)
    wanted = {
        *("/run/containerd/containerd.sock", "/run/containerd/io.containerd.runtime.v2.task", "/var/lib/containerd"),
        *("/etc/containerd", "/opt/cni", "/opt/cni/bin", "/opt/cni/bin/cni", "/opt/cni/bin/bridge"),
        *("/var/lib/kubelet", "/etc/kubernetes"),
    }
    assert of(host, "file") == wanted
    live = {id for id, claim in host.ask().items() if claim.proven and claim.role is Role.LIVE}
    assert live == {"file:/run/containerd/containerd.sock", "file:/run/containerd/io.containerd.runtime.v2.task"}


def test_beside_another_containerd_or_kubelet_nothing_in_them_is_its_own(host: K8s) -> None:
    host.grounds(by="pid 30 runs /usr/bin/containerd")
    furnished(host)
    host.mount(f"{TASKS}/{OTHER}/rootfs", fstype="overlay")
    host.mount(f"/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~secret/token")
    host.file("/var/snap/k8s")
    assert of(host, "file") == {"/var/snap/k8s"} and of(host, "mount") == set()
    claims = host.ask()
    for path in PLACES:
        claim = claims[f"file:{path}"]
        assert not claim.proven and claim.role is Role.ADMIN and claim.advice == f"ls -A {path}"


def test_without_its_word_names_prove_nothing(host: K8s) -> None:
    furnished(host)
    host.sandbox(exe="/usr/bin/containerd-shim-runc-v2")
    host.mount(f"{TASKS}/{OTHER}/rootfs", fstype="overlay")
    assert host.gone() == set()


def test_what_the_administrator_has_in_them_stays(host: K8s) -> None:
    host.grounds()
    host.file("/etc/containerd", entries=("config.toml", "certs.d"))
    host.file("/opt/cni/bin", entries=("bridge", "cni", "mine"))
    host.file("/opt/cni/bin/mine", "file")
    host.file("/opt/cni/bin/bridge", "symlink", target="/srv/bridge")
    host.file("/opt/cni/bin/cni", "file")
    host.file("/var/lib/kubelet", entries=("pods", "seccomp"))
    host.file("/etc/kubernetes", entries=("pki", "manifests"))
    host.file("/var/lib/containerd", mounted=True, entries=("io.containerd.content.v1.content",))
    assert of(host, "file") == {"/opt/cni/bin/cni"}
    assert "seccomp" in host.ask()["file:/var/lib/kubelet"].evidence[1].text


def test_an_administrator_s_plugins_of_the_same_names_stay(host: K8s) -> None:
    host.grounds()
    names = ("bandwidth", "bridge", "cilium-cni", "cni", "portmap", "vlan")
    host.file("/opt/cni/bin", entries=names)
    for name in ("bridge", "portmap", "cni", "cilium-cni"):
        host.file(f"/opt/cni/bin/{name}", "file")
    host.file("/opt/cni/bin/bandwidth", "symlink", target="cni")
    host.file("/opt/cni/bin/vlan", "symlink", target="bridge")
    assert of(host, "file") == {f"/opt/cni/bin/{name}" for name in ("bandwidth", "cni", "cilium-cni")}


def test_what_only_the_ledger_remembers_must_be_the_very_directory(host: K8s) -> None:
    host.grounds(source="ledger")
    furnished(host)
    assert "/etc/containerd" in of(host, "file")
    other = K8s()
    other.grounds(source="ledger", inode=99)
    furnished(other)
    assert of(other, "file") == set()


def test_when_the_files_are_gone_with_the_snap_its_places_are_shown(host: K8s) -> None:
    for path in PLACES:
        host.record("used", path, "disk", by="", inode=INODE, entries=[])
    furnished(host)
    assert host.ask() == {}, "it has never been here"
    host.file("/etc/sysctl.d/100-k8s.conf", "file")
    host.record("marked", "/etc/sysctl.d/100-k8s.conf", "disk", word="x", inode=INODE, digest="")
    claims = host.ask()
    assert of(host, "file") == {"/etc/sysctl.d/100-k8s.conf"}
    for path in ("/var/lib/containerd", "/etc/containerd", "/var/lib/kubelet", "/etc/kubernetes"):
        assert not claims[f"file:{path}"].proven and claims[f"file:{path}"].advice == f"rm -r {path}"


def test_below_another_base(host: K8s) -> None:
    base = "/srv/k8s"
    host.grounds(base=base)
    furnished(host, base)
    address = f"{base}{SOCKET}"
    host.sandbox(address=address)
    host.sandbox(30, OTHER, "/usr/bin/containerd-shim-runc-v2")  # another's, at the usual place
    host.mount(f"{base}{TASKS}/{SANDBOX}/rootfs", fstype="overlay")
    host.mount(f"{TASKS}/{OTHER}/rootfs", fstype="overlay")
    assert of(host, "mount") == {f"{base}{TASKS}/{SANDBOX}/rootfs"}
    assert of(host, "process") == {"10", "11"}
    assert f"{base}/var/lib/containerd" in of(host, "file")


# -- its containers -------------------------------------------------------------------------------------------------


def test_a_pod_by_its_shim_s_own_file_beside_another_containerd_at_the_same_socket(host: K8s) -> None:
    host.grounds(by="/usr/bin/containerd is there")
    host.sandbox()
    host.known()
    host.sandbox(30, OTHER, "/usr/bin/containerd-shim-runc-v2")
    for id in (SANDBOX, OTHER):
        for name in containerd.sockets(SOCKET, "k8s.io", id)[:1]:
            host.record("socket", f"/run/containerd/s/{name}", "disk", hash=name)
            host.file(f"/run/containerd/s/{name}", "socket")
        host.file(f"/run/containerd/runc/k8s.io/{id}")
        host.record(
            "runc", f"k8s.io/{id}", "disk", id=id, path=f"/run/containerd/runc/k8s.io/{id}", bundle="", pid=0, start=0
        )
    assert of(host, "process") == {"10", "11"}
    assert of(host, "cgroup") == {f"/kubepods.slice/cri-containerd-{SANDBOX}.scope"}
    mine = containerd.sockets(SOCKET, "k8s.io", SANDBOX)[0]
    assert of(host, "file") == {f"/run/containerd/s/{mine}", f"/run/containerd/runc/k8s.io/{SANDBOX}"}


def test_cilium_s_things_go_where_no_other_cilium_is(host: K8s) -> None:
    host.file("/var/snap/k8s")
    conf = {"network": "cilium", "plugins": ["cilium-cni"], "bridges": [], "devices": [], "paths": []}
    host.record("conflist", "/etc/cni/net.d/05-cilium.conflist", "disk", **conf)
    host.record("conflist", "/etc/cni/net.d/10-mine.conflist", "disk", **{**conf, "plugins": ["bridge"]})
    for name in ("05-cilium.conflist", "10-mine.conflist", "10-calico.conflist.cilium_bak"):
        host.file(f"/etc/cni/net.d/{name}", "file")
    host.link("cilium_host", peer="cilium_net", peer_netns=1)
    host.link("cilium_vxlan", "vxlan")
    host.mount("/run/cilium/cgroupv2", fstype="cgroup2")
    chain = host.xtables("CILIUM_FORWARD", table="filter")
    wanted = {"file:/etc/cni/net.d/05-cilium.conflist", "mount:/run/cilium/cgroupv2", chain.id}
    wanted |= {"link:cilium_host", "link:cilium_vxlan", "file:/var/snap/k8s"}
    # It brought no Calico.
    host.xtables("cali-FORWARD", table="filter")
    host.link("vxlan.calico", "vxlan")
    assert host.gone() == wanted
    host.process(60, "/usr/bin/cilium-agent", "cilium-agent")
    assert host.gone() == {"file:/var/snap/k8s"}


def test_its_files_in_shared_directories(host: K8s) -> None:
    for path in ("/etc/sysctl.d/100-k8s.conf", "/etc/sysctl.d/20-k8s.conf"):
        host.file(path, "file")
    host.record("marked", "/etc/sysctl.d/100-k8s.conf", "disk", word="x", inode=INODE, digest="")
    assert of(host, "file") == {"/etc/sysctl.d/100-k8s.conf"}


# -- what proves a place --------------------------------------------------------------------------------------------


def root(tmp_path: Path, base: str | None = None) -> Host:
    """A host on which the snap wrote down what it does."""
    host = Host(str(tmp_path))
    texts = {marker.file: (base or "") + marker.directory for marker in RUNTIME.markers if marker.form == "{}"}
    texts[f"{COMMON}/args/kubelet"] = '--kubeconfig="/etc/kubernetes/kubelet.conf"\n--root-dir="/var/lib/kubelet"\n'
    if base is not None:
        texts[RUNTIME.base] = base or "/"
    for path, text in texts.items():
        os.makedirs(os.path.dirname(host.path(path)), exist_ok=True)
        Path(host.path(path)).write_text(text)
    for marker in RUNTIME.markers:
        Path(f"{tmp_path}{base or ''}{marker.directory}").mkdir(parents=True, exist_ok=True)
    return host


def read(host: Host, *processes: Object) -> dict[str, Record]:
    look = Look(host, Scope(), {"process": processes, "mount": ()})
    found = reading.read_grounds(RUNTIME, look)[0]
    used = {record.name: record.facts["by"] for record in found if record.type == "used"}
    return {each.name: each for each in found if each.type == "ground" and not used[each.facts["path"]]}


def process(exe: str, *argv: str, **facts: Any) -> Object:
    known = {
        "pid": 5,
        "exe": exe,
        "argv": [exe, *argv],
        "nested": False,
        "uid": 0,
        "mntns": 1,
        "our_mnt": True,
        "start": 9,
    }
    known |= {"cgroup": "/", **facts}
    return Object("process", "5", (5, 9), known)


def test_the_files_name_the_places(tmp_path: Path) -> None:
    assert set(read(root(tmp_path))) == set(PLACES)


def test_another_base_must_be_told_by_both(tmp_path: Path) -> None:
    host = root(tmp_path, "/srv/k8s")
    found = read(host)
    assert found["/run/containerd"].facts["path"] == "/srv/k8s/run/containerd"
    Path(host.path(RUNTIME.base)).write_text("/srv/other")
    assert set(read(host)) == {"/var/lib/kubelet", "/etc/kubernetes"}


@pytest.mark.parametrize(
    "text", ["/", "", "/run/containerd\n/etc", "/run/../run/containerd", "/run", "\xff", "/run/containerd/"]
)
def test_a_file_that_names_another_place_proves_nothing(tmp_path: Path, text: str) -> None:
    host = root(tmp_path)
    Path(host.path(f"{COMMON}/lock/containerd-socket-path")).write_text(text, encoding="latin-1")
    assert "/run/containerd" not in read(host)


@pytest.mark.parametrize(
    ("found", "lost"),
    [
        (process("/usr/bin/containerd"), {"/run/containerd", "/var/lib/containerd", "/etc/containerd"}),
        (process("/usr/bin/sleep", "-namespace", "moby", "-id", "x", "-address", SOCKET), set(PLACES)),
        (process("/usr/bin/kubelet"), set(PLACES)),
        (process("/snap/k8s/2000/bin/containerd"), set()),
        (process("/snap/microk8s/1/bin/containerd"), set()),
        (process("/usr/bin/containerd", nested=True), set()),
        (process("/home/me/kubelet", uid=1000), set()),
        (
            process(
                "/snap/k8s/2000/bin/containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", "x", "-address", SOCKET
            ),
            set(),
        ),
    ],
    ids=["containerd", "shim", "kubelet", "own", "microk8s", "nested", "user", "own-shim"],
)
def test_who_else_may_be_a_user(tmp_path: Path, found: Object, lost: set[str]) -> None:
    assert set(PLACES) - set(read(root(tmp_path), found)) == lost


def test_another_s_program_on_the_disk(tmp_path: Path) -> None:
    host = root(tmp_path)
    for path in ("/usr/bin/containerd", "/etc/kubernetes/kubelet.conf", "/snap/microk8s/current"):
        os.makedirs(os.path.dirname(host.path(path)), exist_ok=True)
        Path(host.path(path)).touch()
    assert set(read(host)) == {"/opt/cni/bin", "/var/lib/kubelet", "/etc/kubernetes"}


def test_a_place_behind_a_symlink_is_somebody_s(tmp_path: Path) -> None:
    host = root(tmp_path)
    os.rmdir(host.path("/opt/cni/bin"))
    os.makedirs(host.path("/var/snap/microk8s/current/opt/cni/bin"))
    os.symlink(host.path("/var/snap/microk8s/current/opt/cni/bin"), host.path("/opt/cni/bin"))
    assert set(PLACES) - set(read(host)) == {"/opt/cni/bin"}
