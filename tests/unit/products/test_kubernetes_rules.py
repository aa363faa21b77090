"""Kubernetes of kubelet's package on the host's containerd: its pods are those that its kubelet knows, among what
others have in the same namespace; its directories are its own by what kubeadm wrote into them, where no other kubelet
is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_microk8s_rules import OTHER, OTHER_UID, SANDBOX, UID, Machine

from leftovers.evidence import containerd
from leftovers.host import Host
from leftovers.kinds.kind import Look
from leftovers.model import Object, Role, Scope
from leftovers.products import load
from leftovers.products.containers import reading
from leftovers.products.kubernetes import CALICO, KUBELET, RUNTIME

SOCKET = "/run/containerd/containerd.sock"
TASKS = "/run/containerd/io.containerd.runtime.v2.task"
SHIM = "/usr/bin/containerd-shim-runc-v2"
NETWORKS = "/etc/cni/net.d"
INODE = 7  # as the literal files have it


class Kubernetes(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.product = load("kubernetes")

    def grounds(self, by: str = "", source: str = "disk") -> None:
        """What kubeadm's files prove, and who else is there."""
        for marker in RUNTIME.markers:
            path = marker.directory
            self.record("ground", path, source, path=path, inode=INODE, file=marker.file)
            self.record("used", path, "disk", by=by if marker.sort == "kube" else "", inode=INODE, entries=[])

    def running(
        self, pid: int, id: str, uid: str, namespace: str = "k8s.io", netns: int = 77, own: bool = True
    ) -> None:
        """A pod's sandbox; `own`: whether kubelet knows it."""
        self.process(pid, SHIM, SHIM, "-namespace", namespace, "-id", id, "-address", SOCKET)
        group = f"/kubepods/besteffort/pod{uid}/{id}" if uid else f"/{namespace}/{id}"
        self.process(pid + 1, "/pause", "/pause", ppid=pid, cgroup=group, nested=True, netns=netns, mntns=pid + 1)
        self.cgroup(group, populated=True)
        pin = f"/run/netns/cni-{id[:8]}-1111-2222-3333-444444444444"
        self.netns(netns, [pid + 1], [pin])
        if own:
            bundle = f"{TASKS}/{namespace}/{id}"
            known = {"bundle": bundle, "cgroup": group, "netns": f"/var{pin}", "sandbox": id, "pod_uid": uid}
            self.record("container", f"{namespace}/{id}", "disk", **{**containerd.blank(namespace, id), **known})
            facts = {"start": 9, "bundle": bundle, "namespace": namespace, "id": id, "address": SOCKET}
            self.record("shim", str(pid), "kernel", **facts)
            self.record("pod", uid, "disk", path=f"{KUBELET}/pods/{uid}", volumes=[], subpaths=[], plugins=[])

    def conflist(self, name: str, *plugins: str, paths: tuple[str, ...] = (), nerdctl: str = "") -> Object:
        path = f"{NETWORKS}/{name}"
        facts = {"network": "x", "plugins": list(plugins), "bridges": [], "devices": [], "paths": list(paths)}
        self.record("conflist", path, "disk", **facts, nerdctl=nerdctl, gateways=[], within=False)
        return self.file(path, "file")


@pytest.fixture
def host() -> Kubernetes:
    return Kubernetes()


def files(host: Kubernetes, been: bool = False) -> dict[str, Role]:
    found = host.ask(been=been)
    return {id[5:]: claim.role for id, claim in found.items() if id.startswith("file:") and claim.proven}


# -- its pods -------------------------------------------------------------------------------------------------------


def test_its_pods_among_others_in_the_same_containerd(host: Kubernetes) -> None:
    host.grounds()
    host.running(10, SANDBOX, UID)
    host.running(20, OTHER, OTHER_UID, netns=88, own=False)  # crictl's: kubelet has no directory for it
    host.running(30, "e" * 64, "", "moby", 99, own=False)
    host.running(40, "f" * 64, "", "k8s.io", 100, own=False)  # ctr's, or nerdctl's
    host.link("veth00000001", peer="eth0", peer_netns=77)
    host.link("veth00000002", peer="eth0", peer_netns=88)
    group = f"/kubepods/besteffort/pod{UID}/{SANDBOX}"
    assert host.gone() == {"process:10", "process:11", f"cgroup:{group}", "netns:77", "link:veth00000001"}
    assert not {"process:20", "process:30", "process:40"} & host.ask().keys(), "these are the landlord's"


def test_mounts_of_its_pods_and_volumes(host: Kubernetes) -> None:
    host.grounds()
    host.running(10, SANDBOX, UID)
    own = (
        f"{TASKS}/k8s.io/{SANDBOX}/rootfs",
        f"/run/containerd/io.containerd.grpc.v1.cri/sandboxes/{SANDBOX}/shm",
        f"{KUBELET}/pods/{UID}/volumes/kubernetes.io~projected/kube-api-access",
        f"{KUBELET}/pods/{OTHER_UID}/volume-subpaths/data/web/0",
        f"{KUBELET}/plugins/kubernetes.io/csi/nfs.csi.k8s.io/{'5' * 64}/globalmount",
    )
    others = (
        f"{TASKS}/k8s.io/{OTHER}/rootfs",
        f"{TASKS}/moby/{SANDBOX}/rootfs",
        f"/run/containerd/io.containerd.grpc.v1.cri/sandboxes/{OTHER}/shm",
        "/var/lib/containerd/tmpmounts/containerd-mount1",
        "/var/lib/kubelet-backup/pods/x",
        KUBELET,
    )
    for point in (*own, *others):
        host.mount(point)
    assert {id[6:] for id in host.gone() if id.startswith("mount:")} == set(own)


def test_what_containerd_keeps_of_its_pods(host: Kubernetes) -> None:
    host.running(10, SANDBOX, UID)
    for id in (SANDBOX, OTHER):
        host.file(f"{TASKS}/k8s.io/{id}", entries=("rootfs",))
        host.file(f"/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{id}")
        host.result(id)
        host.file(f"/var/lib/cni/results/k8s-pod-network-{id}-eth0", "file")
    host.file(f"{TASKS}/moby/{SANDBOX}")
    assert set(files(host)) == {
        *(f"{TASKS}/k8s.io/{SANDBOX}", f"/var/lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{SANDBOX}"),
        f"/var/lib/cni/results/k8s-pod-network-{SANDBOX}-eth0",
    }


def test_kubelet_itself_and_what_it_started(host: Kubernetes) -> None:
    host.process(60, "/usr/bin/kubelet", "/usr/bin/kubelet", cgroup="/system.slice/kubelet.service")
    host.process(61, "/usr/bin/mount.nfs", "mount.nfs", cgroup="/system.slice/kubelet.service")
    host.process(62, "/usr/local/bin/kubelet", "kubelet")
    user = host.process(63, "/usr/bin/kubelet", "kubelet")
    user.facts["uid"] = 1000  # type: ignore[index]
    host.process(64, "/usr/bin/bash", "bash", cgroup="/system.slice/kubelet.service.d-mine")
    assert host.gone() == {"process:60", "process:61"}


# -- what it read: only the pods that kubelet knows -----------------------------------------------------------------


def bundle(tmp_path: Path, namespace: str, id: str, uid: str = "") -> None:
    directory = tmp_path / f"run/containerd/io.containerd.runtime.v2.task/{namespace}/{id}"
    directory.mkdir(parents=True)
    notes = {"io.kubernetes.cri.sandbox-uid": uid, "io.kubernetes.cri.sandbox-id": id} if uid else {}
    (directory / "config.json").write_text(json.dumps({"annotations": notes}))


def test_containers_are_read_of_the_pods_that_kubelet_knows(tmp_path: Path) -> None:
    for name in ("pods", "plugins"):
        (tmp_path / f"var/lib/kubelet/{name}/{UID if name == 'pods' else 'x'}").mkdir(parents=True)
    (tmp_path / "var/lib/kubelet/config.yaml").write_text(
        "apiVersion: v1beta1\nkind: KubeletConfiguration\nstaticPodPath: /etc/kubernetes/manifests\n"
    )
    bundle(tmp_path, "k8s.io", SANDBOX, UID)
    bundle(tmp_path, "k8s.io", OTHER, OTHER_UID)
    bundle(tmp_path, "k8s.io", "e" * 64)
    bundle(tmp_path, "moby", "f" * 64, UID)
    look = Look(Host(str(tmp_path)), Scope(), {"process": (), "mount": ()})
    records, faults = reading.read_disk(RUNTIME, look)
    assert faults == []
    assert {record.name for record in records if record.type == "container"} == {f"k8s.io/{SANDBOX}"}


@pytest.mark.parametrize(
    "path", ["/usr/local/bin/k3s", "/var/lib/rancher/rke2", "/snap/k8s/current", "/usr/local/bin/kubelet"]
)
def test_beside_another_kubelet_its_directory_is_nobody_s(tmp_path: Path, path: str) -> None:
    (tmp_path / f"var/lib/kubelet/pods/{UID}").mkdir(parents=True)
    (tmp_path / "var/lib/kubelet/config.yaml").write_text("kind: KubeletConfiguration\n")
    bundle(tmp_path, "k8s.io", SANDBOX, UID)
    look = Look(Host(str(tmp_path)), Scope(), {"process": (), "mount": ()})
    assert {"container", "pod"} <= {each.type for each in reading.read_disk(RUNTIME, look)[0]}
    (tmp_path / path[1:]).mkdir(parents=True)
    look = Look(Host(str(tmp_path)), Scope(), {"process": (), "mount": ()})
    assert not {"container", "pod"} & {each.type for each in reading.read_disk(RUNTIME, look)[0]}


def test_behind_a_symlink_it_is_another_s(tmp_path: Path) -> None:
    (tmp_path / "var/snap/microk8s/common/var/lib/kubelet/pods").mkdir(parents=True)
    (tmp_path / "var/snap/microk8s/common/var/lib/kubelet/config.yaml").write_text("kind: KubeletConfiguration\n")
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/kubelet").symlink_to("/var/snap/microk8s/common/var/lib/kubelet")
    look = Look(Host(str(tmp_path)), Scope(), {"process": (), "mount": ()})
    assert [each for each in reading.read_grounds(RUNTIME, look)[0] if each.type == "ground"] == []


# -- files ----------------------------------------------------------------------------------------------------------


def furnish(host: Kubernetes) -> None:
    host.file(KUBELET, entries=("config.yaml", "kubeadm-flags.env", "pki", "pods", "cpu_manager_state"))
    host.file("/etc/kubernetes", entries=("admin.conf", "super-admin.conf", "kubelet.conf", "manifests", "pki"))
    host.file("/var/lib/etcd", entries=("member",))


def test_kubelet_s_directory_goes_and_the_cluster_s_data_are_kept(host: Kubernetes) -> None:
    host.grounds()
    furnish(host)
    assert files(host) == {KUBELET: Role.DATA, "/etc/kubernetes": Role.EXTERNAL, "/var/lib/etcd": Role.EXTERNAL}


def test_beside_another_kubelet_they_are_told(host: Kubernetes) -> None:
    host.grounds(by="/usr/local/bin/k3s is there")
    furnish(host)
    assert files(host) == {"/var/lib/etcd": Role.EXTERNAL}
    assert host.ask()[f"file:{KUBELET}"].role is Role.ADMIN


def test_what_the_administrator_has_in_them_stays(host: Kubernetes) -> None:
    host.grounds()
    host.file(KUBELET, entries=("config.yaml", "seccomp"))
    host.file("/etc/kubernetes", entries=("pki", "audit-policy.yaml"))
    host.file("/var/lib/etcd", entries=("default", "member"))  # Debian's etcd has "default"
    assert files(host) == {}
    assert all(host.ask()[f"file:{path}"].role is Role.ADMIN for path in (KUBELET, "/etc/kubernetes", "/var/lib/etcd"))


def test_without_kubeadm_s_word_they_are_nobody_s(host: Kubernetes) -> None:
    furnish(host)
    host.file("/opt/cni/bin", entries=("bridge",))
    host.file("/opt/cni/bin/bridge", "file")
    assert host.ask() == {}


def test_configurations_of_its_plugins_by_what_is_in_them(host: Kubernetes) -> None:
    host.grounds()
    furnish(host)
    host.conflist("10-flannel.conflist", "flannel", "portmap")
    host.conflist("10-calico.conflist", "calico", "bandwidth", paths=(CALICO,))
    host.conflist("99-bridge.conflist", "bridge", "portmap")
    host.file(CALICO, "file")
    found = files(host)
    assert {path for path in found if path.startswith("/etc/cni")} == {
        *(f"{NETWORKS}/10-flannel.conflist", f"{NETWORKS}/10-calico.conflist", CALICO)
    }


def test_they_stay_with_another_kubernetes(host: Kubernetes) -> None:
    host.grounds()
    furnish(host)
    host.conflist("10-flannel.conflist", "flannel", "portmap")
    host.conflist("10-calico.conflist", "calico", paths=(CALICO,))
    host.file(CALICO, "file")
    host.file("/usr/local/bin/rke2", "file")
    assert not {path for path, role in files(host).items() if path.startswith("/etc/cni") and role is not Role.ADMIN}


# -- what a cluster has once for the host ---------------------------------------------------------------------------


def cluster(host: Kubernetes) -> set[str]:
    made = [
        host.xtables("KUBE-SERVICES"),
        host.xtables("KUBE-FIREWALL", table="filter"),
        host.xtables("INPUT", "-j KUBE-FIREWALL", "KUBE-FIREWALL", table="filter"),
        host.xtables("cali-FORWARD", table="filter"),
        host.link("flannel.1", "vxlan", addresses=["10.244.1.0"]),
        host.link("kube-ipvs0", "dummy"),
    ]
    return {each.id for each in made}


def test_the_cluster_s_own_goes_where_no_other_is(host: Kubernetes) -> None:
    made = cluster(host)
    assert not made & host.gone(), "it has never been here"
    host.grounds()
    furnish(host)
    mine = host.xtables("INPUT", "-s 10.0.0.0/8 -j ACCEPT", "ACCEPT", "mine: KUBE-FIREWALL", table="filter")
    gone = host.gone()
    assert made <= gone and mine.id not in gone


@pytest.mark.parametrize("rival", ["/usr/local/bin/k3s", "/snap/microk8s/current", "/usr/local/bin/kubelet"])
def test_and_stays_where_another_one_is(host: Kubernetes, rival: str) -> None:
    host.grounds()
    furnish(host)
    made = cluster(host)
    host.file(rival, "file")
    assert not made & host.gone()


def test_its_own_program_is_no_rival(host: Kubernetes) -> None:
    host.grounds()
    furnish(host)
    made = cluster(host)
    host.file("/usr/bin/kubelet", "file")
    host.file("/etc/kubernetes/kubelet.conf", "file")
    host.process(60, "/usr/bin/kubelet", "/usr/bin/kubelet", cgroup="/system.slice/kubelet.service")
    host.process(70, "/usr/local/bin/kube-proxy", "kube-proxy", nested=True, netns=5, mntns=5, our_net=False)
    assert made <= host.gone()


def test_a_rival_in_a_network_of_his_own_says_nothing_and_one_on_the_host_s_does(host: Kubernetes) -> None:
    host.grounds()
    furnish(host)
    made = cluster(host)
    facts: dict[str, Any] = {"nested": True, "mntns": 5}
    host.process(70, "/usr/local/bin/kube-proxy", "kube-proxy", **facts, our_net=True)
    assert not made & host.gone()


def test_cni_s_directory_stays_with_a_containerd_that_watches_it(host: Kubernetes) -> None:
    host.grounds()
    furnish(host)
    host.conflist("10-flannel.conflist", "flannel")
    host.file(NETWORKS, entries=("10-flannel.conflist",))
    assert NETWORKS in files(host)
    host.file("/usr/bin/containerd", "file")
    assert NETWORKS not in files(host)
