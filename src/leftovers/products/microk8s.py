"""MicroK8s, a snap: what is its own among the products of containerd. Classic and strict have the same paths.

Sources, in canonical/microk8s: microk8s-resources/{default-args,wrappers}, snap/hooks, snap/snapcraft.yaml.
Its group `microk8s` is made by administrators, so it says nothing.
"""

from __future__ import annotations

from leftovers.model import Role
from leftovers.products.containers import Runtime, product

COMMON = "/var/snap/microk8s/common"
CURRENT = "/var/snap/microk8s/current"
SERVICES = (
    *(
        "containerd",
        "kubelite",
        "apiserver-kicker",
        "apiserver-proxy",
        "cluster-agent",
        "k8s-dqlite",
        "etcd",
        "flanneld",
    ),
)
DROP_IN = "/etc/systemd/system/snap.microk8s.daemon-kubelite.service.d"
SCRIPT = "wrappers/run-kubelite-with-args makes it"
# It appends single lines, and administrators may do so too.
SETTINGS = ("fs.inotify.max_user_instances=1024", "fs.inotify.max_user_watches=1048576", "fs.aio-max-nr=1048576")
RUNTIME = Runtime(
    name="microk8s",
    title="MicroK8s",
    directory="/var/snap/microk8s",
    address=f"{COMMON}/run/containerd.sock",
    state=f"{COMMON}/run/containerd",
    root=f"{COMMON}/var/lib/containerd",
    kubelet=f"{COMMON}/var/lib/kubelet",
    programs="/snap/microk8s",
    services=r"/system\.slice/snap\.microk8s\.[A-Za-z0-9-]+\.service(?=/|\Z)",
    own=(
        ("/var/snap/microk8s", Role.DATA, "snapd deletes it with the snap (overlord/snapstate/backend/snapdata.go)"),
        ("/tmp/snap-private-tmp/snap.microk8s", Role.DATA, "/tmp of a strict one (snapd cmd/snap-confine)"),
    ),
    marked=(
        ("/etc/sysctl.d/10-microk8s.conf", SETTINGS, Role.DATA, "actions/common/utils.sh, increase_sysctl_parameter"),
        ("/etc/apparmor.d/cri-containerd.apparmor.d", "peer=snap.microk8s.", Role.DATA, "run-containerd-with-args"),
        (f"{DROP_IN}/delegate.conf", "Delegate=yes", Role.DATA, SCRIPT),
    ),
    symlinks=("/var/lib/kubelet", "/var/lib/calico", "/etc/cni/net.d", "/opt/cni/bin"),
    parents=(DROP_IN, "/etc/cni", "/opt/cni"),
    conf=f"{CURRENT}/args/cni-network",
    comments=("generated for MicroK8s pods",),
    ufw=("vxlan.calico", "cali+"),
    label="lo:microk8s",
    pods="10.1.0.0/16",
    accounts=("group snap_microk8s", "user snap_microk8s"),
)
PRODUCT = product(
    RUNTIME,
    packages=(),
    snaps=("microk8s",),
    units=tuple(f"snap.microk8s.daemon-{service}.service" for service in SERVICES),
    accounts=("group snap_microk8s", "user snap_microk8s"),
    sysctls=("net.ipv4.conf.all.forwarding=1", "net.ipv6.conf.all.forwarding=1", "fs.inotify.max_user_instances=1024"),
)
