"""Kubernetes of kubelet's package on Debian's containerd: a stand-in for the package and for what kubelet, kubeadm,
flannel and kube-proxy put on a host; containerd, its shims, runc, the containers and CNI's plugins are real. Beside it,
in the same containerd, a pod that its kubelet does not know, and a job in another namespace."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from lab import hoststate, microk8s, xtables
from lab.machine import RECIPES, Machine
from lab.microk8s import NODE, OTHER, WEB, attach, bridge, run_pod
from lab.scenario import CHANGED, KEPT, Arrive, leftovers

pytestmark = [
    pytest.mark.full,
    pytest.mark.parametrize("machine", [pytest.param({"recipe": RECIPES["snapd-trixie"]}, id="trixie")], indirect=True),
]

SOCKET = "/run/containerd/containerd.sock"
KUBELET = "/var/lib/kubelet"
PODS = (replace(WEB, network="cbr0"), NODE)
NETWORK = bridge("cbr0", "cni0", "10.244.0.0/24")
KEEP = (
    *KEPT,
    *xtables.EMPTY,
    r"file /root/kubelet\.deb$",
    r"file /opt/containerd(/(bin|lib))?$",  # containerd's
    r"file /var/lib/containerd/.*",  # containerd's images, and its own book of containers that it did not end itself
    r"file /etc/cni(/net\.d)?$",  # containerd watches it
    r"file /run/containerd/(runc|io\.containerd\.runtime\.v2\.task)/k8s\.io$",  # the namespace is in use
    r"(file|mount) /(run/snapd(/(ns|lock)(/[^/]*)?)?|var/lib/snapd/hostfs)$",
)
DATA = r"file /(etc/kubernetes|var/lib/etcd)(/.*)?$"

PACKAGE = r"""
mkdir -p /tmp/kubelet/DEBIAN /tmp/kubelet/usr/bin /tmp/kubelet/usr/lib/systemd/system
cat >/tmp/kubelet/DEBIAN/control <<'C'
Package: kubelet
Version: 1.34.1-1.1
Architecture: all
Maintainer: Nobody <nobody@example.invalid>
Description: made by a test
C
cat >/tmp/kubelet/usr/lib/systemd/system/kubelet.service <<'U'
[Service]
ExecStart=/usr/bin/kubelet -c "exec 9<> <(:); while :; do read -r -u 9; done"
KillMode=process
U
printf '#!/bin/sh\nset -e\nsystemctl daemon-reload\nsystemctl start kubelet\n' >/tmp/kubelet/DEBIAN/postinst
printf '#!/bin/sh\nset -e\nsystemctl stop kubelet\n' >/tmp/kubelet/DEBIAN/prerm
printf '#!/bin/sh\nset -e\nsystemctl daemon-reload\n' >/tmp/kubelet/DEBIAN/postrm
chmod 755 /tmp/kubelet/DEBIAN/p*
cp /bin/bash /tmp/kubelet/usr/bin/kubelet
dpkg-deb --root-owner-group -Znone -b /tmp/kubelet /root/kubelet.deb >/dev/null
rm -r /tmp/kubelet
dpkg -i /root/kubelet.deb
"""
# kubeadm's files, kubelet's mounts, flannel's link and rules, kube-proxy's rules.
CLUSTER = r"""
mkdir -p /etc/kubernetes/manifests /etc/kubernetes/pki /var/lib/etcd/member/snap /etc/cni/net.d /run/flannel
mkdir -p $KUBELET/{pki,plugins,plugins_registry,device-plugins,pod-resources,checkpoints}
printf 'kind: KubeletConfiguration\nstaticPodPath: /etc/kubernetes/manifests\n' >$KUBELET/config.yaml
echo 'KUBELET_KUBEADM_ARGS=""' >$KUBELET/kubeadm-flags.env
echo '{}' >$KUBELET/cpu_manager_state
for f in admin.conf kubelet.conf manifests/kube-apiserver.yaml pki/ca.key; do echo x >/etc/kubernetes/$f; done
printf '  - hostPath:\n      path: /var/lib/etcd\n    name: etcd-data\n' >/etc/kubernetes/manifests/etcd.yaml
echo cluster >/var/lib/etcd/member/snap/db
echo '{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [{"type": "flannel"}, {"type": "portmap"}]}' \
    >/etc/cni/net.d/10-flannel.conflist
printf 'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.0.1/24\n' >/run/flannel/subnet.env
ip link add flannel.1 type vxlan id 1 dstport 8472 dev br-lan local 10.77.0.1 nolearning
ip addr add 10.244.0.0/32 dev flannel.1
iptables-nft-restore --noflush <<'R'
*filter
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
-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m udp --dport 53 -j KUBE-SVC-TCOU7JCQXEZGVUNU
COMMIT
R
tmpfs() { mkdir -p "$1"; mount -t tmpfs -o size=1m tmpfs "$1"; echo secret >"$1/token"; }
bind() { mkdir -p "$2"; mount --bind "$1" "$2"; }
web=$KUBELET/pods/$WEB
tmpfs $web/volumes/kubernetes.io~projected/kube-api-access-7xk2p
tmpfs $web/volumes/kubernetes.io~empty-dir/cache
bind /srv/data $web/volume-subpaths/data/web/0
bind '/srv/with space' "$web/volume-subpaths/with space/web/1"
bind /srv/media $web/volumes/kubernetes.io~local-volume/media
bind /srv/remote $KUBELET/plugins/kubernetes.io/csi/nfs.csi.k8s.io/5555/globalmount
bind /srv/remote $web/volumes/kubernetes.io~csi/pvc-remote/mount
"""


def install(m: Machine) -> None:
    """The package, its cluster's things, and two pods: one with a network and volumes, one on the host's network."""
    m.run(PACKAGE)
    script = "set -x\n"
    for pod in PODS:
        logs = f"/var/log/pods/{pod.namespace}_{pod.name}_{pod.uid}/main"
        script += f"mkdir -p {KUBELET}/pods/{pod.uid}/containers/main {KUBELET}/pods/{pod.uid}/plugins\n"
        if pod.netns:
            script += f"ip netns add {pod.netns}\n{attach(pod, NETWORK, '/usr/lib/cni')}\n"
        script += run_pod(pod, SOCKET)
        script += f"mkdir -p {logs} /var/log/containers; echo log >{logs}/0.log\n"
        script += f"ln -s {logs}/0.log /var/log/containers/{pod.name}_{pod.namespace}_main-{pod.container}.log\n"
    m.run(f"KUBELET={KUBELET} WEB={WEB.uid}\n{CLUSTER}")
    m.run(script, timeout=300)


def lived(m: Machine) -> dict[str, Any]:
    microk8s.admin_things(m)
    before = m.snapshot()
    install(m)
    assert len(alive(m)) >= 10
    return before


def alive(m: Machine) -> list[str]:
    """What of it still runs, is mounted, or is in the network."""
    script = f"""
    for id in {" ".join(pod.sandbox for pod in PODS)}; do pgrep -f -- "-id $id " | sed 's/^/shim /'; done
    grep -lE '^0::/kubepods.*({"|".join(pod.uid for pod in PODS)})' /proc/[0-9]*/cgroup | sed 's/^/process /'
    cut -d' ' -f5 /proc/self/mountinfo | grep -F '{KUBELET}/' | sed 's/^/mount /'
    ip -o link | grep -E ' (cni0|flannel.1)[:@]' | sed 's/^/link /'
    ls /run/netns | grep -x {WEB.netns} | sed 's/^/netns /'
    iptables-nft-save | grep -E ':KUBE-|:FLANNEL-' | sed 's/^/rule /'
    """
    return m.run(f"set +e\n{script}\nexit 0").out.splitlines()


def same(m: Machine, before: dict[str, Any], said: str, *left: str) -> None:
    found = hoststate.compare(
        before,
        m.snapshot(),
        keep=[f"^{each}" for each in (*KEEP, *left)],
        changed=[f"^{each}" for each in (*CHANGED, r"file /var/lib/containerd/")],
        # Ours, which may still have been looking for snaps at first.
        lost=[r"^process python3 -IB /usr/share/leftovers/hooks/snap-watch"],
    )
    assert hoststate.count(found) == 0, f"\n{hoststate.render(found)}\n{said}"
    microk8s.answers(m)  # the pod that kubelet does not know, in the same namespace
    others = m.run("ctr -n k8s.io task ls -q; ctr -n default task ls -q").out.split()
    assert {OTHER.sandbox, OTHER.container} <= set(others)
    for path in microk8s.PRECIOUS:
        m.run(["test", "-s", path])


@pytest.mark.parametrize("command", ["apt-get purge -y -q", "dpkg -P"])
def test_a_purge(machine: Machine, arrive: Arrive, command: str) -> None:
    """Its pods go with their volumes, of which none is entered; the cluster's data are kept and named."""
    arrive(machine)
    before = lived(machine)
    done = machine.run(f"{command} kubelet 2>&1", timeout=200)
    print(done.out)
    assert re.search(r"(?m)^leftovers: Kubernetes: \d+ gone in ", done.out), done.out
    assert alive(machine) == []
    assert "/var/lib/etcd" in done.out and "/etc/kubernetes" in done.out
    same(machine, before, done.out, DATA)
    leftovers(machine, "verify", "kubernetes")
    said = leftovers(machine, "clean", "kubernetes", "--yes", "--data")
    same(machine, before, said.out)


def test_a_removal_leaves_the_pods_alone(machine: Machine, arrive: Arrive) -> None:
    """Until they are swept by hand; containerd, the landlord, stays."""
    arrive(machine)
    before = lived(machine)
    living = alive(machine)
    done = machine.run("apt-get remove -y -q kubelet 2>&1", timeout=200)
    assert alive(machine) == living and "leftovers clean kubernetes" in done.out, done.out
    said = leftovers(machine, "clean", "kubernetes", "--yes")
    assert alive(machine) == []
    said = leftovers(machine, "clean", "kubernetes", "--yes", "--data")
    same(machine, before, said.out)
