"""What a kubelet of the package leaves on the host's containerd goes, on real objects; what another tool has in the
same namespace, and the administrator's files behind volumes, stay."""

from __future__ import annotations

import json
import os
import subprocess

import containerd_like as like
import pytest
from containerd_like import MINE, Containerd, Pod, bind, tmpfs
from incus_like import overlay, write
from sandbox import private, sh
from test_clean import assert_same, leftovers, plan, settled

from leftovers.evidence import containerd
from unit.evidence.bolt_file import Writer

KUBELET = "/var/lib/kubelet"
KUBEADM = Containerd(
    "/run/containerd/containerd.sock",
    "/run/containerd",
    "/run/lab/b/containerd-shim-runc-v2",
    "/system.slice/containerd.service",
    "cbr0",
)
WEB = Pod(KUBEADM, "web")
PROXY = Pod(KUBEADM, "kube-proxy", "pid")
RULES = """*filter
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:FLANNEL-FWD - [0:0]
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-TCOU7JCQXEZGVUNU - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
COMMIT
"""
DATA = ("/etc/kubernetes", "/var/lib/etcd")
# Empty directories of its landlord's, which stays, and of all who have pods.
LANDLORD = (
    *("/run/containerd/io.containerd.runtime.v2.task", "/run/containerd/io.containerd.runtime.v2.task/k8s.io"),
    *("/run/containerd/io.containerd.grpc.v1.cri", "/run/containerd/io.containerd.grpc.v1.cri/sandboxes"),
    *("/run/containerd/runc/k8s.io", "/run/containerd/runc", "/run/containerd/s", "/run/containerd/fifo"),
    *("/run/containerd", "/etc/cni", "/etc/cni/net.d"),
)
PLACES = (*like.PLACES, *DATA)


def look() -> dict[str, list[str]]:
    files = [
        path
        for path in sh("find", *PLACES, check=False).splitlines()
        if not path.startswith(DATA) and path not in LANDLORD
    ]
    return {**settled(), "files": sorted(files), "netns": sorted(sh("ip", "netns", "list").splitlines())}


def prepare() -> None:
    like.prepare()
    os.makedirs("/run/lab/b", exist_ok=True)
    overlay("/usr/local")
    write("/usr/local/bin/containerd")  # it stays installed
    os.makedirs(f"/sys/fs/cgroup{KUBEADM.service}", exist_ok=True)


def kubernetes() -> list[subprocess.Popen[bytes]]:
    """kubeadm's files, two pods, volumes of which two are the administrator's directories, and a cluster's rules."""
    write(f"{KUBELET}/config.yaml", "kind: KubeletConfiguration\nstaticPodPath: /etc/kubernetes/manifests\n")
    write(f"{KUBELET}/kubeadm-flags.env", "KUBELET_KUBEADM_ARGS=\n")
    for name in ("admin.conf", "kubelet.conf", "pki/ca.key", "manifests/kube-apiserver.yaml"):
        write(f"/etc/kubernetes/{name}")
    write("/etc/kubernetes/manifests/etcd.yaml", "  - hostPath:\n      path: /var/lib/etcd\n    name: etcd-data\n")
    write("/var/lib/etcd/member/snap/db", "a cluster")
    write("/etc/cni/net.d/10-flannel.conflist", json.dumps({"name": "cbr0", "plugins": [{"type": "flannel"}]}))
    for pod in (WEB, PROXY):
        os.makedirs(f"{KUBELET}/pods/{pod.uid}/containers/main")
    shims = [like.start(pod) for pod in (WEB, PROXY)]
    sh("ip", "link", "add", "vethweb", "type", "veth", "peer", "name", "eth0", "netns", str(like.pid_of(WEB)))
    pod = f"{KUBELET}/pods/{WEB.uid}"
    tmpfs(f"{pod}/volumes/kubernetes.io~projected/kube-api-access")
    bind("/srv/data", f"{pod}/volume-subpaths/data/web/0")
    bind("/srv/with space", f"{pod}/volumes/kubernetes.io~local-volume/with space")
    bind("/srv/remote", f"{KUBELET}/plugins/kubernetes.io/csi/nfs.csi.k8s.io/{'5' * 64}/globalmount")
    sh("iptables-nft-restore", "--noflush", stdin=RULES)
    write(f"/var/log/pods/default_web_{WEB.uid}/web/0.log")
    return shims


def clean(capsys: pytest.CaptureFixture[str], *how: str) -> str:
    capsys.readouterr()
    done = leftovers("clean", "kubernetes", "--yes", *how)
    said = capsys.readouterr()
    assert done == 0, said
    return said.out


@private
def test_a_host_after_it_is_what_it_was_before_but_for_the_cluster_s_data(capsys: pytest.CaptureFixture[str]) -> None:
    prepare()
    bystanders = like.admin(KUBEADM.address)
    before = look()
    kubernetes()
    said = clean(capsys)
    assert_same(look(), before)
    assert all(process.poll() is None for process in bystanders.values()), said
    assert all(path in said for path in DATA) and os.path.exists("/var/lib/etcd/member/snap/db"), said
    assert os.path.exists("/srv/data/file") and os.path.exists("/srv/with space/f")
    assert leftovers("verify", "kubernetes") == 0, capsys.readouterr().out
    clean(capsys, "--data")
    assert not any(map(os.path.exists, DATA))
    assert_same(look(), before)


@private
def test_beside_a_pod_that_its_kubelet_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    """One of crictl's in the same namespace of the same containerd."""
    prepare()
    bystanders = {**like.admin(KUBEADM.address), "shim": like.start(MINE)}
    sh("ip", "link", "add", "veth00000001", "type", "veth", "peer", "name", "eth0", "netns", str(like.pid_of(MINE)))
    before = look()
    kubernetes()
    found = plan(capsys, product="kubernetes")
    assert found[f"process:{like.pid_of(WEB)}"]["action"] == "remove"
    clean(capsys)
    now = look()
    for what in ("processes", "netns", "links", "cgroups", "mounts"):
        assert now[what] == before[what], what
    assert all(process.poll() is None for process in bystanders.values())
    assert sh("cat", f"/proc/{like.pid_of(MINE)}/comm").strip() == "sleep"
    chains = sh("iptables-nft", "-t", "nat", "-S")
    assert MINE.chain("CNI-DN-") in chains and WEB.chain("CNI-DN-") not in chains
    assert "CNI-HOSTPORT-DNAT" in chains, "his ports go through it"


@private
def test_beside_k3s_only_what_is_surely_its_own_goes(capsys: pytest.CaptureFixture[str]) -> None:
    """Both have /var/lib/kubelet and the same chains: nothing tells any more whose these are."""
    prepare()
    kubernetes()
    write("/usr/local/bin/k3s")
    before = look()
    leftovers("clean", "kubernetes", "--yes")
    assert "/usr/local/bin/k3s is there" in capsys.readouterr().out
    assert_same(look(), before)


@private
def test_orphans_of_pods_that_are_gone_beside_some_that_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    """containerd was killed between CNI's answer and its own record, or its pods' processes were killed with the shims
    while it was away: pins, pairs, leases, results and chains stay, and it knows nothing of them."""
    prepare()
    overlay("/usr/bin")
    write("/usr/bin/kubelet")  # it stays, too
    kubernetes()
    flags = 'KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///run/containerd/containerd.sock"\n'
    with open(f"{KUBELET}/kubeadm-flags.env", "w") as settings:
        settings.write(flags)
    book = f"/var/lib/containerd/{containerd.BOOK}"
    write(book)
    with open(book, "wb") as file:
        file.write(Writer().file({b"v1": {}}))
    others = like.admin(KUBEADM.address)
    write("/var/lib/cni/networks/cbr0/10.1.64.9", f"{WEB.sandbox}\r\neth0")  # its second address
    before = look()
    lost = [abandon(number) for number in range(3)]
    capsys.readouterr()
    leftovers("scan", "--orphans", "--older-than", "0", "kubernetes", "--json")
    found = {item["id"]: item["action"] for item in json.loads(capsys.readouterr().out)["objects"]}
    wanted = {id for each in lost for id in each}
    assert set(found) == wanted and set(found.values()) == {"remove"}
    assert leftovers("clean", "--orphans", "--older-than", "0", "--yes", "kubernetes") == 0, capsys.readouterr().out
    assert_same(look(), before)
    assert all(process.poll() is None for process in others.values())
    assert sh("cat", f"/proc/{like.pid_of(WEB)}/comm").strip() == "sleep"
    capsys.readouterr()
    assert leftovers("clean", "--orphans", "--older-than", "0", "--yes", "kubernetes") == 0
    assert_same(look(), before)


def abandon(number: int) -> set[str]:
    """What a pod leaves of which nothing else is left. Returns the ids of its objects."""
    pod = Pod(KUBEADM, f"lost-{number}")
    sh("ip", "netns", "add", pod.pin)
    inode = os.stat(f"/run/netns/{pod.pin}").st_ino
    link, address = f"vethlost{number}", f"10.1.64.{20 + number}"
    sh("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", pod.pin)
    like.published(pod)
    write("/var/lib/cni/networks/cbr0/10.1.64.2", f"{WEB.sandbox}\r\neth0")  # the address that it gives to all
    path = f"/var/lib/cni/results/cbr0-{pod.sandbox}-eth0"
    with open(path) as file:
        entry = json.load(file)
    entry["cniArgs"] = [
        ["K8S_POD_NAMESPACE", "default"],
        ["K8S_POD_NAME", pod.name],
        ["K8S_POD_INFRA_CONTAINER_ID", pod.sandbox],
        ["K8S_POD_UID", pod.uid],
    ]
    entry["result"] = {"interfaces": [{"name": link}]}
    with open(path, "w") as file:
        json.dump(entry, file)
    lease = f"/var/lib/cni/networks/cbr0/{address}"
    write(lease, f"{pod.sandbox}\r\neth0")
    rules = [
        line
        for line in sh("iptables-nft-save", "-t", "nat").splitlines()
        if pod.chain("CNI-") in line or pod.chain("CNI-DN-") in line
    ]
    said = {f"xtables:ip nft nat {line}" for line in rules if line.startswith("-A")}
    said |= {f"xtables:ip nft nat -N {pod.chain(prefix)}" for prefix in ("CNI-", "CNI-DN-")}
    return {f"netns:{inode}", f"link:{link}", f"file:{path}", f"file:{lease}", *said}
