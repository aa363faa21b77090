"""MicroK8s on a throwaway host: a stand-in of hand-made parts under MicroK8s' real names, with real containerd, shims
and runc, much used; and beside it an administrator's own containerd, and things of the same shape.

What is real: snapd, the snap's services and their cgroups, containerd, its shims, runc, the containers, their
namespaces, mounts and cgroups, the CNI plugins bridge, host-local and portmap of the Debian package and the chains and
leases that they make. What is made by hand, as its source says: what kubelet mounts and logs (KUBELITE), what calico
and kube-proxy put into the kernel, what MicroK8s' scripts put on the host. Where a name comes from, its function says.
CRI is off: a container that CRI did not make would stop its restart.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

from lab import incus, snap
from lab.machine import Machine

COMMON = "/var/snap/microk8s/common"
CURRENT = "/var/snap/microk8s/current"
SOCKET = f"{COMMON}/run/containerd.sock"
KUBELET = f"{COMMON}/var/lib/kubelet"
SERVICES = ("snap.microk8s.daemon-containerd.service", "snap.microk8s.daemon-kubelite.service")
IMAGE = "docker.io/library/bb:latest"

# -- names that follow from others ----------------------------------------------------------------------------------


def cali(pod: Pod) -> str:
    """Calico's name of the host's end (libcalico-go, workload_endpoint_default.go)."""
    return "cali" + hashlib.sha1(f"{pod.namespace}.{pod.name}".encode()).hexdigest()[:11]


def cni_chain(prefix: str, network: str, container: str) -> str:
    """`CNI-` of the masquerade, `CNI-DN-` of a published port (plugins, pkg/utils/utils.go, portmap_iptables.go)."""
    return (prefix + hashlib.sha512((network + container).encode()).hexdigest())[:28]


def shim_socket(address: str, namespace: str, group: str) -> str:
    """The file below /run/containerd/s (containerd, pkg/shim/util_unix.go)."""
    return hashlib.sha256(f"{address}/{namespace}/{group}".encode()).hexdigest()


# -- pods ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pod:
    name: str
    program: str  # of its container; the sandbox runs /pause
    namespace: str = "kube-system"
    address: str = ""  # none: the host's network
    network: str = "k8s-pod-network"
    port: int = 0  # published on the host
    mounts: tuple[tuple[str, str], ...] = ()

    def hash(self, what: str) -> str:
        return hashlib.sha256(f"{self.namespace}/{self.name} {what}".encode()).hexdigest()

    def uuid(self, what: str) -> str:
        text = self.hash(what)
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:32]))

    @property
    def uid(self) -> str:
        return self.uuid("uid")

    @property
    def sandbox(self) -> str:
        return self.hash("sandbox")

    @property
    def container(self) -> str:
        return self.hash("container")

    @property
    def netns(self) -> str:
        return f"cni-{self.uuid('netns')}" if self.address else ""

    @property
    def directory(self) -> str:
        return f"{KUBELET}/pods/{self.uid}"


COREDNS = Pod("coredns-7745f9f87f-b6xqt", "/coredns -conf /etc/coredns/Corefile", address="10.1.64.2")
CONTROLLERS = Pod("calico-kube-controllers-5947598c79-9rkzm", "/usr/bin/kube-controllers", address="10.1.64.3")
NODE = Pod("calico-node-x2jvl", "/usr/local/bin/runsvdir -P /etc/service/enabled")
WEB = Pod(
    "web-0",
    "/bin/httpd -f -p 80 -h /data",
    "default",
    "10.1.65.2",
    "microk8s-flannel-network",
    8081,
    (("/srv/data", "/data"), ("/srv/with space", "/space")),
)
PODS = (COREDNS, CONTROLLERS, NODE, WEB)
# The administrator's, in a containerd of their own: one as a Kubernetes would name it.
OTHER = Pod("other-0", "/bin/httpd -f -p 80 -h /etc/www", "default", "10.88.5.2", "admin-net", 8088)
JOB = Pod("job", "/bin/sleep 1000020", "default")

# What kubelet mounts: type, source (of a bind: the administrator's), and where; of the sandboxes, what CRI mounts.
MOUNTS = (
    ("tmpfs", "tmpfs", f"{COREDNS.directory}/volumes/kubernetes.io~projected/kube-api-access-7xk2p"),
    ("tmpfs", "tmpfs", f"{CONTROLLERS.directory}/volumes/kubernetes.io~projected/kube-api-access-m4q9c"),
    ("tmpfs", "tmpfs", f"{WEB.directory}/volumes/kubernetes.io~secret/token"),
    ("tmpfs", "tmpfs", f"{WEB.directory}/volumes/kubernetes.io~empty-dir/cache"),
    ("bind", "/srv/data", f"{WEB.directory}/volume-subpaths/data/web/0"),
    ("bind", "/srv/with space", f"{WEB.directory}/volume-subpaths/with space/web/1"),
    ("bind", "/srv/media", f"{WEB.directory}/volumes/kubernetes.io~local-volume/media"),
    ("bind", "/srv/remote", f"{KUBELET}/plugins/kubernetes.io/csi/nfs.csi.k8s.io/{'5' * 64}/globalmount"),
    ("bind", "/srv/remote", f"{WEB.directory}/volumes/kubernetes.io~csi/pvc-remote/mount"),
    *(("tmpfs", "shm", f"{COMMON}/run/containerd/io.containerd.grpc.v1.cri/sandboxes/{p.sandbox}/shm") for p in PODS),
)
# What is lost when a removal of a directory tree goes through a mount.
PRECIOUS = ("/srv/data/file", "/srv/data/deep/file", "/srv/with space/f", "/srv/media/film", "/srv/remote/share")

# -- the snap --------------------------------------------------------------------------------------------------------

META = """version: v1.32.9
confinement: {confinement}
apps:
  daemon-containerd:
    command: run-containerd-with-args
    daemon: simple
    stop-mode: sigterm
  daemon-kubelite:
    command: run-kubelite-with-args
    daemon: simple
  ctr:
    command: microk8s-ctr.wrapper
"""
RUN_CONTAINERD = """#!/bin/bash
set -eu
export PATH="/snap/microk8s/current/bin:$PATH"
mkdir -p "$SNAP_COMMON/var/lib/containerd" "$SNAP_COMMON/run/containerd"
exec "$SNAP/bin/containerd" --config "$SNAP_DATA/args/containerd.toml" --root "$SNAP_COMMON/var/lib/containerd" \
    --state "$SNAP_COMMON/run/containerd" --address "$SNAP_COMMON/run/containerd.sock"
"""
CTR = """#!/bin/bash
exec "$SNAP/bin/ctr" --address "$SNAP_COMMON/run/containerd.sock" --namespace k8s.io "$@"
"""
# The part of kubelet that matters here: it makes what is listed, and makes it again, as long as it lives.
KUBELITE = r"""#!/bin/bash
set -u
here=$SNAP_COMMON/var/lib/kubelet
mkdir -p "$here"
host=
[ ! -d /var/lib/snapd/hostfs/srv ] || host=/var/lib/snapd/hostfs
exec 9<> <(:)
while :; do
    if [ -e "$here/lab-mounts" ]; then
        while IFS='|' read -r type from to; do
            ! grep -qF " ${to// /\\040} " /proc/self/mountinfo || continue
            mkdir -p "$to"
            case $type in
                bind) mount --bind "$host$from" "$to" ;;
                *) mount -t "$type" -o size=1m "$from" "$to" && echo secret >"$to/token" ;;
            esac
        done <"$here/lab-mounts"
        : >"$here/lab-mounted"
    fi
    read -r -t 0.3 -u 9
done
"""
RUN_KUBELITE = '#!/bin/bash\nexec /bin/bash "$SNAP/kubelite" --root-dir="$SNAP_COMMON/var/lib/kubelet"\n'
INSTALL = r"""#!/bin/bash
set -eu
mkdir -p "$SNAP_DATA/args/cni-network" "$SNAP_DATA/opt/cni/bin" "$SNAP_DATA/var/lib/calico" "$SNAP_DATA/var/lock"
cp "$SNAP"/opt/cni/bin/* "$SNAP_DATA/opt/cni/bin/"
echo '--address ${SNAP_COMMON}/run/containerd.sock' >"$SNAP_DATA/args/containerd"
echo '--root-dir=${SNAP_COMMON}/var/lib/kubelet' >"$SNAP_DATA/args/kubelet"
cat >"$SNAP_DATA/args/cni-network/cni.yaml" <<'Y'
kind: DaemonSet
Y
cat >"$SNAP_DATA/args/cni-network/10-calico.conflist" <<'J'
{"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": [{"type": "calico"}, {"type": "portmap"}]}
J
cat >"$SNAP_DATA/args/containerd.toml" <<T
version = 2
oom_score = 0
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "$SNAP_DATA/opt/cni/bin"
  conf_dir = "$SNAP_DATA/args/cni-network"
T
"""
TREE = """
mkdir -p bin opt/cni/bin
cp /usr/bin/{containerd,containerd-shim-runc-v2,ctr} /usr/sbin/runc bin/
cp /usr/lib/cni/{bridge,host-local,loopback,portmap} opt/cni/bin/
"""


def build(m: Machine, hooks: Mapping[str, str] | None = None, confinement: str = "classic", tree: str = "") -> str:
    """`hooks`: more files of the snap, as meta/hooks/remove, with their content. `tree`: a script for its tree."""
    files = {
        "run-containerd-with-args": RUN_CONTAINERD,
        "run-kubelite-with-args": RUN_KUBELITE,
        "microk8s-ctr.wrapper": CTR,
        "kubelite": KUBELITE,
        "meta/hooks/install": INSTALL,
    }
    return snap.build(m, "microk8s", META.format(confinement=confinement), {**files, **(hooks or {})}, TREE + tree)


def install(m: Machine, hooks: Mapping[str, str] | None = None, confinement: str = "classic", tree: str = "") -> None:
    snap.install(m, build(m, hooks, confinement, tree), f"--{confinement}")
    m.run(f"for i in $(seq 600); do ctr --address {SOCKET} version >/dev/null 2>&1 && exit; sleep 0.1; done; exit 1")


# -- its use ---------------------------------------------------------------------------------------------------------

# An image with programs that wait for a signal and are called what the real ones are.
PROGRAMS = ("pause", "coredns", "usr/bin/kube-controllers", "usr/local/bin/runsvdir")
MAKE_IMAGE = (
    r"""
mkdir -p /var/tmp/img/rootfs/bin /var/tmp/img/rootfs/usr/bin /var/tmp/img/rootfs/usr/local/bin
cd /var/tmp/img/rootfs
mkdir -p proc sys dev etc/www tmp data space var
echo hello >etc/www/index.html
cp /bin/busybox bin/busybox
for a in sh sleep httpd ip cat; do ln -s busybox bin/$a; done
for p in """
    + " ".join(PROGRAMS)
    + r"""; do base64 -d <<<"$WAIT" >$p; chmod 755 $p; done
cd ..
tar -C rootfs -cf layer.tar .
layer=$(sha256sum layer.tar | cut -d' ' -f1)
printf '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$layer" >config.json
printf '[{"Config":"config.json","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$IMAGE" >manifest.json
tar -cf /root/snaps/bb.tar manifest.json config.json layer.tar
rm -r /var/tmp/img
"""
)


def waiting() -> str:
    """A program of x86-64 that does pause(2) for ever: its name is its file's, and it needs no library."""
    code = b"\xb8\x22\x00\x00\x00\x0f\x05\xeb\xf7"  # mov $34,%eax; syscall; jmp back
    size = 64 + 56 + len(code)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    head += struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, size, size, 0x1000)
    return base64.b64encode(head + code).decode()


# libcni in few words, with real plugins: runs a network's plugins, and writes down what it did.
CNI = r"""
import base64, json, os, subprocess, sys
directory, config, container, netns, pod, namespace, port = sys.argv[1:]
network = json.loads(config)
mappings = [{"hostPort": int(port), "containerPort": 80, "protocol": "tcp"}] if int(port) else []
arguments = [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", namespace], ["K8S_POD_NAME", pod],
             ["K8S_POD_INFRA_CONTAINER_ID", container]]
environment = {**os.environ, "CNI_COMMAND": "ADD", "CNI_CONTAINERID": container, "CNI_NETNS": netns,
               "CNI_IFNAME": "eth0", "CNI_PATH": directory, "CNI_ARGS": ";".join("=".join(a) for a in arguments)}
result = network.pop("given", None)
for plugin in network["plugins"]:
    if plugin["type"] == "calico":
        continue  # done by hand
    given = {"name": network["name"], "cniVersion": network["cniVersion"], **plugin}
    if plugin.get("capabilities"):
        given["runtimeConfig"] = {"portMappings": mappings}
    if result:
        given["prevResult"] = result
    done = subprocess.run([f"{directory}/{plugin['type']}"], input=json.dumps(given), env=environment,
                          capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{plugin['type']}: {done.stdout}{done.stderr}")
    result = json.loads(done.stdout)
os.makedirs("/var/lib/cni/results", exist_ok=True)
def cache(name, interface, config, result, capabilities):
    entry = {"kind": "cniCacheV1", "containerId": container, "config": base64.b64encode(config.encode()).decode(),
             "ifName": interface, "networkName": name, "netns": netns, "cniArgs": arguments,
             "capabilityArgs": capabilities, "result": result}
    with open(f"/var/lib/cni/results/{name}-{container}-{interface}", "w") as file:
        json.dump(entry, file)
cache(network["name"], "eth0", json.dumps(network), result, {"portMappings": mappings} if mappings else {})
loopback = {"name": "cni-loopback", "cniVersion": "0.3.1", "plugins": [{"type": "loopback"}]}
lo = {"cniVersion": "0.3.1", "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": netns}],
      "ips": [{"version": "4", "interface": 0, "address": "127.0.0.1/8"}], "dns": {}}
cache("cni-loopback", "lo", json.dumps(loopback), lo, {})
"""


def bridge(network: str, name: str, subnet: str) -> dict[str, object]:
    ranges = {"type": "host-local", "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]}
    plugins = [
        {
            "type": "bridge",
            "bridge": name,
            "isGateway": True,
            "ipMasq": True,
            "ipMasqBackend": "iptables",
            "ipam": ranges,
        },
        {"type": "portmap", "backend": "iptables", "capabilities": {"portMappings": True}, "snat": True},
    ]
    return {"name": network, "cniVersion": "0.3.1", "plugins": plugins}


def calico(pod: Pod) -> dict[str, object]:
    portmap = {"type": "portmap", "backend": "iptables", "capabilities": {"portMappings": True}, "snat": True}
    ips = [{"version": "4", "address": f"{pod.address}/32"}]
    result = {"cniVersion": "0.3.1", "interfaces": [{"name": cali(pod)}], "ips": ips, "dns": {}}
    plugins = [{"type": "calico", "datastore_type": "kubernetes", "ipam": {"type": "calico-ipam"}}, portmap]
    return {"name": pod.network, "cniVersion": "0.3.1", "plugins": plugins, "given": result}


def attach(pod: Pod, config: dict[str, object], directory: str) -> str:
    """The command that gives the pod's network namespace its network."""
    words = [directory, json.dumps(config), pod.sandbox, f"/var/run/netns/{pod.netns}", pod.name, pod.namespace]
    return shlex.join(["python3", "-I", "-c", CNI, *words, str(pod.port)])


def run_pod(pod: Pod, address: str, namespace: str = "k8s.io", host: str = "") -> str:
    """The commands that start its sandbox and its container: with one shim, as CRI does it, by the annotation. `host`:
    where containerd sees the host's root."""
    ctr = f"ctr --address {address} --namespace {namespace}"
    group = f"--annotation io.kubernetes.cri.sandbox-id={pod.sandbox}"
    group += f" --annotation io.kubernetes.cri.sandbox-name={pod.name}"
    group += f" --annotation io.kubernetes.cri.sandbox-namespace={pod.namespace}"
    group += f" --annotation io.kubernetes.cri.sandbox-uid={pod.uid}"
    network = "--with-ns network:" + (f"/var/run/netns/{pod.netns}" if pod.netns else "/proc/1/ns/net")
    cgroup = f"--cgroup /kubepods/besteffort/pod{pod.uid}"
    mounts = " ".join(
        shlex.quote(f"--mount=type=bind,src={host}{source},dst={target},options=rbind:rw")
        for source, target in pod.mounts
    )
    # no shares: a host of the lab has no cgroup controllers
    run = f"{ctr} run --detach --null-io --cpu-shares 0 {group} {network}"
    return f"""
{run} {cgroup}/{pod.sandbox} --annotation io.kubernetes.cri.container-type=sandbox {IMAGE} {pod.sandbox} /pause
{run} {cgroup}/{pod.container} --annotation io.kubernetes.cri.container-type=container {mounts} \\
    {IMAGE} {pod.container} {pod.program}
"""


def veth(pod: Pod) -> str:
    """Calico's: addresses of /32, one end in the pod, the other with a computed name and a route to the pod."""
    return f"""
ip link add {cali(pod)} type veth peer name eth0 netns {pod.netns}
ip -n {pod.netns} link set lo up
ip -n {pod.netns} addr add {pod.address}/32 dev eth0
ip -n {pod.netns} link set eth0 up
ip link set {cali(pod)} address ee:ee:ee:ee:ee:ee up
ip route add {pod.address}/32 dev {cali(pod)} scope link
"""


# Felix' and kube-proxy's rules, the scripts' of MicroK8s, kubelet's.
RULES = """*filter
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-SERVICES - [0:0]
:cali-FORWARD - [0:0]
:cali-INPUT - [0:0]
:cali-fw-CALI - [0:0]
:cali-from-wl-dispatch - [0:0]
-A INPUT -m comment --comment "cali:Cz_u1IQiXIMmKD4c" -j cali-INPUT
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -s 10.1.0.0/16 -m comment --comment "generated for MicroK8s pods" -j ACCEPT
-A FORWARD -d 10.1.0.0/16 -m comment --comment "generated for MicroK8s pods" -j ACCEPT
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-FIREWALL '!' -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" -j RETURN
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A cali-FORWARD -i cali+ -m comment --comment "cali:8ZoYfO5HKXWbB3pk" -j cali-from-wl-dispatch
-A cali-from-wl-dispatch -i LINK -m comment --comment "cali:fEzjxuGQ2mAV6gb5" -g cali-fw-CALI
-A cali-fw-CALI -m comment --comment "cali:dQyO_lWPMXDdVRdL" -m set --match-set cali40all-ipam-pools dst -j RETURN
COMMIT
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-ZP3FB6NMPNCO4VBJ - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-TCOU7JCQXEZGVUNU - [0:0]
:cali-POSTROUTING - [0:0]
:cali-nat-outgoing - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark '!' --mark 0x4000/0x4000 -j RETURN
-A KUBE-SERVICES -d 10.152.183.10/32 -p udp -m comment --comment "kube-system/kube-dns:dns cluster IP" -m udp \
--dport 53 -j KUBE-SVC-TCOU7JCQXEZGVUNU
-A KUBE-SVC-TCOU7JCQXEZGVUNU -m comment --comment "kube-system/kube-dns:dns -> 10.1.64.2:53" \
-j KUBE-SEP-ZP3FB6NMPNCO4VBJ
-A KUBE-SEP-ZP3FB6NMPNCO4VBJ -p udp -m comment --comment "kube-system/kube-dns:dns" -m udp -j DNAT \
--to-destination 10.1.64.2:53
-A cali-POSTROUTING -m comment --comment "cali:Z-c7XtVd2Bq7s_hA" -j cali-nat-outgoing
-A cali-nat-outgoing -m comment --comment "cali:flqWnvo8yq4ULQLa" -m set --match-set cali40masq-ipam-pools src \
-m set '!' --match-set cali40all-ipam-pools dst -j MASQUERADE
COMMIT
*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:cali-PREROUTING - [0:0]
-A PREROUTING -m comment --comment "cali:6gwbT8clXdHdC1b1" -j cali-PREROUTING
COMMIT
""".replace("'!'", "!").replace("\\\n", "")

USE = r"""
set -x
# -- what MicroK8s' scripts put on the host
for pair in /var/lib/kubelet:$COMMON/var/lib/kubelet /var/lib/calico:$CURRENT/var/lib/calico \
    /etc/cni/net.d:$CURRENT/args/cni-network /opt/cni/bin:$CURRENT/opt/cni/bin; do
    mkdir -p "$(dirname "${pair%%:*}")"
    [ ! -e "${pair%%:*}" ]
    ln -s "${pair#*:}" "${pair%%:*}"
done
printf 'fs.inotify.max_user_instances=1024\nfs.inotify.max_user_watches=1048576\n' >/etc/sysctl.d/10-microk8s.conf
mkdir -p /etc/systemd/system/snap.microk8s.daemon-kubelite.service.d /etc/apparmor.d
printf '[Service]\nDelegate=yes\n' >/etc/systemd/system/snap.microk8s.daemon-kubelite.service.d/delegate.conf
cat >/etc/apparmor.d/cri-containerd.apparmor.d <<'A'
#include <tunables/global>
profile cri-containerd.apparmor.d flags=(attach_disconnected,mediate_deleted) {
  signal (receive) peer=snap.microk8s.daemon-kubelite,
  signal (receive) peer=snap.microk8s.daemon-containerd,
}
A
systemctl daemon-reload
ip addr add 10.0.1.1/32 dev lo label lo:microk8s
echo 10.0.1.1 >$CURRENT/var/lock/host-access-enabled
echo lab >$CURRENT/var/lib/calico/nodename
mkdir -p /run/calico /run/flannel /var/log/calico/cni
printf 'FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.65.1/24\n' >/run/flannel/subnet.env
echo log >/var/log/calico/cni/cni.log

# -- calico's links, routes and sets
ip link add vxlan.calico type vxlan id 4096 dstport 4789 dev br-lan local 10.77.0.1 nolearning
ip addr add 10.1.64.0/32 dev vxlan.calico
ip link set vxlan.calico up
ip route add 10.1.128.0/26 via 10.1.128.0 dev vxlan.calico onlink proto 80
ip route add blackhole 10.1.64.0/26 proto 80
ipset create cali40all-ipam-pools hash:net
ipset add cali40all-ipam-pools 10.1.0.0/16
ipset create cali40masq-ipam-pools hash:net
ipset add cali40masq-ipam-pools 10.1.0.0/16
ipset create cali40s:uUhAdIkRYZ2TxQfU3kM1xFq hash:net

# -- kubelet's
mkdir -p $COMMON/var/lib/kubelet/{device-plugins,plugins_registry,pod-resources,checkpoints}
echo '{}' >$COMMON/var/lib/kubelet/cpu_manager_state
"""


def use(m: Machine, hung: bool = False) -> None:
    """After admin_things. `hung`: also a FUSE mount in a pod whose server does not answer: who asks for its attributes
    waits."""
    m.run(f"ctr --address {SOCKET} --namespace k8s.io images import /root/snaps/bb.tar >/dev/null")
    m.run(f"COMMON={COMMON} CURRENT={CURRENT}\n{USE}")
    confined = m.run(["test", "-e", "/run/snapd/ns/microk8s.mnt"], check=False).code == 0
    host = "/var/lib/snapd/hostfs" if confined else ""
    script = "set -x\n"
    for pod in PODS:
        if pod.netns:
            script += f"ip netns add {pod.netns}\n"
    for pod in (COREDNS, CONTROLLERS):
        # one with a published port: portmap chains stand for any network
        script += veth(pod) + attach(replace(pod, port=9153 if pod == COREDNS else 0), calico(pod), PLUGINS) + "\n"
    script += attach(WEB, bridge(WEB.network, "cni0", "10.1.65.0/24"), PLUGINS) + "\n"
    for pod in PODS:
        logs = f"/var/log/pods/{pod.namespace}_{pod.name}_{pod.uid}/main"
        script += run_pod(pod, SOCKET, host=host)
        script += f"mkdir -p {logs} /var/log/containers; echo log >{logs}/0.log\n"
        script += f"ln -s {logs}/0.log /var/log/containers/{pod.name}_{pod.namespace}_main-{pod.container}.log\n"
        script += f"mkdir -p {pod.directory}/containers/main {pod.directory}/plugins\n"
        script += f"echo 127.0.0.1 localhost >{pod.directory}/etc-hosts\n"
    m.run(script, timeout=300)
    rules = RULES.replace("LINK", cali(COREDNS)).replace("CALI", cali(COREDNS))
    m.run(["iptables-nft-restore", "--noflush"], input=rules)
    listed = "".join(f"{kind}|{source}|{target}\n" for kind, source, target in MOUNTS)
    m.write(f"{KUBELET}/lab-mounts.new", listed)
    m.run(
        f"""
        mv {KUBELET}/lab-mounts.new {KUBELET}/lab-mounts
        for i in $(seq 600); do [ {KUBELET}/lab-mounted -nt {KUBELET}/lab-mounts ] && break; sleep 0.1; done
        [ -e {KUBELET}/lab-mounted ]
        """
    )
    if hung:
        hang(m)


PLUGINS = f"{CURRENT}/opt/cni/bin"
HUNG = f"{NODE.directory}/volumes/kubernetes.io~csi/pvc-hung/mount"


def hang(m: Machine) -> None:
    m.run(
        f"""
        mkdir -p {HUNG} /var/tmp/fuse
        mksquashfs /var/tmp/fuse /root/snaps/fuse.img -quiet -no-progress >/dev/null
        systemd-run -q --unit=lab-fuse squashfuse -f /root/snaps/fuse.img {HUNG}
        for i in $(seq 100); do grep -qF " {HUNG} " /proc/self/mountinfo && break; sleep 0.05; done
        systemctl kill -s STOP lab-fuse
        """
    )


def remove(m: Machine, *how: str) -> int:
    """snapd's own removal; its exit code."""
    return m.run(["snap", "remove", *how, "microk8s"], check=False, timeout=300).code


# -- the administrator's ---------------------------------------------------------------------------------------------

BYSTANDER = """version: "1"
confinement: classic
apps:
  daemon:
    command: run
    daemon: simple
"""
BYSTANDER_RUN = "#!/bin/bash\necho data >$SNAP_COMMON/file; exec /bin/bash -c 'while :; do sleep 1000; done'\n"
LOOKALIKES = r"""
set -x
mkdir -p /srv/media /srv/remote /var/snap/microk8s-backup/common /srv/kubelet/pods
echo film >/srv/media/film
echo share >/srv/remote/share
echo copy >/var/snap/microk8s-backup/common/db
# Calico's, CNI's and MicroK8s' names and words, and nothing of theirs.
ip netns add cni-0badcafe-1111-2222-3333-444455556666
ip link add cali0badcafe000 type veth peer name vethcaliadmin
ip link set cali0badcafe000 up
ip link add br-cali0 type bridge
iptables-nft -N CNI-0badcafe0badcafe0badcafe
iptables-nft -A CNI-0badcafe0badcafe0badcafe -p tcp --dport 16443 -j RETURN
iptables-nft -A INPUT -j CNI-0badcafe0badcafe0badcafe
iptables-nft -A FORWARD -s 10.1.0.0/16 -m comment --comment "admin: MicroK8s pods may go out" -j ACCEPT
iptables-nft -A FORWARD -i cali+ -m comment --comment "admin: pods" -j ACCEPT
nft -f - <<'N'
table inet microk8s {
    chain KUBE-SERVICES {
        ip daddr 10.152.183.0/24 counter accept comment "generated for MicroK8s pods, by the administrator"
    }
}
N
ipset create cali-admin hash:net
ipset add cali-admin 10.1.2.0/24
ip route add blackhole 10.1.200.0/26 proto static
systemd-run -q --unit=admin-pause bash -c 'exec -a /pause sleep 1000021'
systemd-run -q --unit=admin-shim bash -c \
    'exec -a /snap/microk8s/x1/bin/containerd-shim-runc-v2 sleep 1000022'
# The administrator's containerd, Debian's package, with a pod as a Kubernetes makes them, and a job.
systemctl start containerd.service
ctr --namespace k8s.io images import /root/snaps/bb.tar >/dev/null
ctr --namespace default images import /root/snaps/bb.tar >/dev/null
"""


def make_image(m: Machine) -> None:
    m.run(f"mkdir -p /root/snaps\nWAIT={waiting()} IMAGE={IMAGE}\n{MAKE_IMAGE}")


def admin_things(m: Machine) -> None:
    incus.admin_things(m)
    make_image(m)
    script = LOOKALIKES + f"ip netns add {OTHER.netns}\n"
    script += attach(OTHER, bridge(OTHER.network, "cni-admin", "10.88.5.0/24"), "/usr/lib/cni") + "\n"
    script += run_pod(OTHER, "/run/containerd/containerd.sock")
    script += run_pod(JOB, "/run/containerd/containerd.sock", "default")
    m.run(script, timeout=300)
    snap.install(m, snap.build(m, "bystander", BYSTANDER, {"run": BYSTANDER_RUN}), "--classic")
    answers(m)


def answers(m: Machine) -> None:
    """The administrator's published port, asked from another network namespace."""
    ask = "ip netns exec admin busybox wget -q -O- http://10.77.0.1:8088/"
    assert m.run(f"for i in $(seq 50); do {ask} && exit; sleep 0.1; done; exit 1").out == "hello\n"
