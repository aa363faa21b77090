"""Kubernetes of kubelet's package, as kubeadm sets it up, on the host's containerd: a tenant in its namespace k8s.io.

Its containers are those of the pods that its kubelet has a directory for; what crictl or another tool has made in the
same namespace is not its own. Its directories are called as any kubelet's (k3s, rke2, a snap): they are its own by what
kubeadm wrote into them, where nobody else is who would have one. The plugins in /opt/cni/bin are another package's.
Sources: kubernetes cmd/kubeadm/app/{constants,phases/{kubelet,etcd},cmd/phases/reset}, pkg/kubelet/config; the packages
kubelet and kubeadm of pkgs.k8s.io, whose purge deletes no data.
"""

from __future__ import annotations

import re
from dataclasses import replace

from leftovers.claims import Case, Finding
from leftovers.errors import Unreadable
from leftovers.evidence import files
from leftovers.kinds.kind import Look
from leftovers.model import Evidence, Object, Record, Role
from leftovers.products.containers import Marker, Runtime, product
from leftovers.products.containers.names import KUBELET_NAMES, rules
from leftovers.products.containers.orphans import orphans
from leftovers.products.containers.processes import SHIM
from leftovers.products.containers.reading import Answer, places
from leftovers.products.containers.rivals import shared

KUBELET = "/var/lib/kubelet"
CONFIG = f"{KUBELET}/config.yaml"
KUBELETS = ("/usr/bin/kubelet",)
CALICO = "/etc/cni/net.d/calico-kubeconfig"


def read_endpoint(look: Look) -> Answer:
    """Record "cri" of the socket that kubelet is told to ask for containers: kubeadm writes it into one of these
    (cmd/kubeadm/app/phases/kubelet/{flags,config}.go). Facts: endpoint."""
    for name in ("instance-config.yaml", "kubeadm-flags.env", "config.yaml"):
        try:
            text = (files.read(look.host, KUBELET, name, files.MIB) or b"").decode()
        except (Unreadable, UnicodeDecodeError):
            continue
        match = re.search(
            r"(?:containerRuntimeEndpoint: \"?|--container-runtime-endpoint=)(?:unix://)?(/[^\s\"]+)", text
        )
        if match:
            path = match[1].removeprefix("/var") if match[1].startswith("/var/run/") else match[1]
            return [Record("cri", "kubelet", "disk", {"endpoint": path})], []
    return [], []


RUNTIME = Runtime(
    name="kubernetes",
    title="Kubernetes",
    directory=KUBELETS[0],  # all else is by the markers
    address="/run/containerd/containerd.sock",
    state="/run/containerd",
    root="/var/lib/containerd",
    shares=True,
    known="pod",
    reads=read_endpoint,
    namespaces=("k8s.io",),
    kubelet=KUBELET,
    programs="",
    executables=KUBELETS,
    services=r"/system\.slice/kubelet\.service(?=/|\Z)",
    own=(),
    markers=(
        Marker(
            directory=KUBELET,
            file=CONFIG,
            form="kind: KubeletConfiguration",
            sort="kube",
            names=KUBELET_NAMES + r"|(instance-)?config\.yaml|kubeadm-flags\.env",
            whole=True,
            role=Role.DATA,
            source="pkg/kubelet/config/defaults.go; cmd/kubeadm/app/phases/kubelet",
        ),
        Marker(
            directory="/etc/kubernetes",
            file=CONFIG,
            form="staticPodPath: {}/manifests",
            sort="kube",
            names=r"(super-)?admin\.conf|(bootstrap-)?kubelet\.conf|controller-manager\.conf|scheduler\.conf"
            r"|manifests|pki|tmp",
            whole=True,
            role=Role.EXTERNAL,
            source="cmd/kubeadm/app/constants/constants.go",
        ),
        Marker(
            directory="/var/lib/etcd",
            file="/etc/kubernetes/manifests/etcd.yaml",
            form="path: {}",
            sort="etcd",
            names="member",
            whole=True,
            role=Role.EXTERNAL,
            source="cmd/kubeadm/app/phases/etcd/local.go",
        ),
    ),
    parents=("/etc/cni/net.d", "/etc/cni"),
    conf="",
    brings=("kube", "calico", "cilium", "flannel", "cni"),
    pods="10.244.0.0/16",  # as kubeadm's documentation and flannel's manifest have it
)


def calico(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """What Calico's installer puts beside its configuration, which names it (cni-plugin/pkg/install/install.go)."""
    if obj.key != CALICO or obj.facts["type"] != "file":
        return None
    for record in case.records_of("conflist"):
        if "calico" in record.facts["plugins"] and CALICO in record.facts["paths"]:
            said, reason = Evidence(record.source, f"{record.name} names it"), "of Calico's CNI configuration"
            return shared(runtime, obj, case, "calico", reason, said, f"rm {obj.key}", role=Role.DATA)
    return None


_FAMILY = product(
    RUNTIME,
    packages=("kubelet",),
    daemons=KUBELETS,
    common=True,  # rke2 has a kubelet of its own
    units=("kubelet.service",),
    sysctls=("net.ipv4.ip_forward=1",),
    companions=("containerd",),
    instance_processes=(SHIM,),
    orphans=orphans(RUNTIME),
)
PRODUCT = replace(
    _FAMILY,
    places=lambda records: (*places(RUNTIME, records), CALICO),
    rules={**_FAMILY.rules, "file": (*rules(RUNTIME, calico), *_FAMILY.rules["file"])},
)
