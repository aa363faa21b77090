"""What MicroK8s leaves, and what another containerd has, made by hand in a sandbox: the same kinds of object, names and
relations as on a real host (tests/lab has a stand-in with a real containerd, runc and plugins).

/var, /etc and /opt are overlaid, so nothing of the machine's own is written to; /run and /srv are the sandbox's.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass

from incus_like import copy, overlay, write
from sandbox import sh
from things import until

from leftovers.kinds import KINDS

COMMON = "/var/snap/microk8s/common"
KUBELET = f"{COMMON}/var/lib/kubelet"
SERVICE = "/system.slice/snap.microk8s.daemon-containerd.service"

# A shim: lives in its bundle, and has one child, the first process of a pid namespace (or, with "host", of none), which
# has another in a cgroup of its own. Arguments: what to unshare besides, the two cgroups, the file for the pids.
SHIM = """
import ctypes, os, sys, time
what, first, second, pid_file = sys.argv[1:5]
libc = ctypes.CDLL(None)
def into(group):
    with open(f"/sys/fs/cgroup{group}/cgroup.procs", "w") as file:
        file.write("0")
if "pid" in what:
    assert libc.unshare(0x20000000) == 0
ready, wake = os.pipe()
child = os.fork()
if child == 0:
    into(first)
    assert libc.unshare(0x20000 | (0x40000000 if "net" in what else 0)) == 0
    libc.mount(None, b"/", None, 0x4000 | (1 << 18), None)
    inner = os.fork()
    if inner == 0:
        into(second)
        os.write(wake, b"1")
        os.execv("/bin/sleep", ["app", "1000"])
    os.execv("/bin/sleep", ["/pause", "1000"])
os.read(ready, 1)
with open(pid_file + ".new", "w") as file:
    file.write(str(child))
os.rename(pid_file + ".new", pid_file)
time.sleep(1000)
"""


@dataclass(frozen=True)
class Containerd:
    address: str
    state: str
    exe: str
    service: str
    network: str


MICROK8S = Containerd(
    f"{COMMON}/run/containerd.sock",
    f"{COMMON}/run/containerd",
    "/run/lab/a/containerd-shim-spin-v2",
    SERVICE,
    "k8s-pod-network",
)
OTHER = Containerd(
    "/run/containerd/containerd.sock",
    "/run/containerd",
    "/run/lab/b/containerd-shim-runc-v2",
    "/system.slice/containerd.service",
    "admin-net",
)


@dataclass(frozen=True)
class Pod:
    of: Containerd
    name: str
    what: str = "pid net"

    def hash(self, word: str) -> str:
        return hashlib.sha256(f"{self.of.address} {self.name} {word}".encode()).hexdigest()

    def uuid(self, word: str) -> str:
        text = self.hash(word)
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:32]))

    @property
    def sandbox(self) -> str:
        return self.hash("sandbox")

    @property
    def uid(self) -> str:
        return self.uuid("uid")

    @property
    def pin(self) -> str:
        return f"cni-{self.uuid('netns')}"

    @property
    def cgroup(self) -> str:
        return f"/kubepods/besteffort/pod{self.uid}"

    @property
    def link(self) -> str:
        return "cali" + hashlib.sha1(f"default.{self.name}".encode()).hexdigest()[:11]

    @property
    def pid_file(self) -> str:
        return f"/run/lab/{self.sandbox}.pid"

    def chain(self, prefix: str) -> str:
        return (prefix + hashlib.sha512((self.of.network + self.sandbox).encode()).hexdigest())[:28]

    def bundle(self, id: str) -> str:
        return f"{self.of.state}/io.containerd.runtime.v2.task/k8s.io/{id}"


WEB = Pod(MICROK8S, "web-0")
NODE = Pod(MICROK8S, "calico-node", "pid")
CSI = Pod(MICROK8S, "csi", "host")
MINE = Pod(OTHER, "web-0")  # of the same name, in another cluster


def prepare() -> None:
    for directory in ("/var", "/etc", "/opt"):
        overlay(directory)
    for path in (
        "/var/lib/cni",
        "/var/snap",
        "/var/lib/leftovers",
        "/etc/cni",
        "/opt/cni",
        "/var/log/pods",
        "/var/lib/kubelet",
    ):
        shutil.rmtree(path, ignore_errors=True)
    for path in ("/run/lab", "/srv/data", "/srv/with space", "/srv/remote", "/etc/sysctl.d", "/etc/systemd/system"):
        os.makedirs(path, exist_ok=True)
    for path in ("/srv/data/file", "/srv/with space/f", "/srv/remote/share", "/var/snap/microk8s-backup/db"):
        write(path)
    for table, chains in (
        ("filter", "INPUT FORWARD OUTPUT"),
        ("nat", "PREROUTING POSTROUTING OUTPUT"),
        ("mangle", "PREROUTING"),
    ):
        for chain in chains.split():
            sh("iptables-nft", "-t", table, "-A", chain, "-s", "192.0.2.1/32", "-j", "RETURN")


def spawn(exe: str, cwd: str, cgroup: str, argv: list[str], program: str) -> subprocess.Popen[bytes]:
    def enter() -> None:
        with open(f"/sys/fs/cgroup{cgroup}/cgroup.procs", "w") as file:
            file.write("0")

    os.makedirs(f"/sys/fs/cgroup{cgroup}", exist_ok=True)
    return subprocess.Popen(
        [exe, "-S", "-c", program, *argv],
        executable=copy(exe) if not os.path.exists(exe) else exe,
        cwd=cwd,
        env={"PYTHONHOME": "/usr", "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        preexec_fn=enter,
    )


def tmpfs(point: str, source: str = "tmpfs") -> None:
    os.makedirs(point, exist_ok=True)
    sh("mount", "-t", "tmpfs", source, point)


def bind(source: str, point: str) -> None:
    os.makedirs(point, exist_ok=True)
    sh("mount", "--bind", source, point)


def start(pod: Pod) -> subprocess.Popen[bytes]:
    """A pod: its bundles, its shim, a sandbox and a container, its network namespace and its link, and what CNI's
    plugins, runc and the shim keep of it in the directories that are everybody's."""
    inner = pod.hash("container")
    for id in (pod.sandbox, inner):
        os.makedirs(f"/sys/fs/cgroup{pod.cgroup}/{id}")
        notes = {
            "sandbox-id": pod.sandbox,
            "sandbox-name": pod.name,
            "sandbox-namespace": "default",
            "sandbox-uid": pod.uid,
        }
        linux = {"cgroupsPath": f"{pod.cgroup}/{id}"}
        config = {"annotations": {f"io.kubernetes.cri.{key}": value for key, value in notes.items()}, "linux": linux}
        write(f"{pod.bundle(id)}/config.json", json.dumps(config))
        tmpfs(f"{pod.bundle(id)}/rootfs")
        write(f"/run/containerd/runc/k8s.io/{id}/state.json", json.dumps({"id": id}))
        write(f"/run/containerd/fifo/{id[:9]}/{id}-stdout")
    tmpfs(f"{pod.of.state}/io.containerd.grpc.v1.cri/sandboxes/{pod.sandbox}/shm", "shm")
    shim = spawn(
        pod.of.exe,
        pod.bundle(pod.sandbox),
        pod.of.service,
        [
            pod.what,
            f"{pod.cgroup}/{pod.sandbox}",
            f"{pod.cgroup}/{inner}",
            pod.pid_file,
            "-namespace",
            "k8s.io",
            "-id",
            pod.sandbox,
            "-address",
            pod.of.address,
        ],
        SHIM,
    )
    until(lambda: os.path.exists(pod.pid_file))
    pid = pid_of(pod)
    until(lambda: os.readlink(f"/proc/{pid}/exe").endswith("sleep"))
    write(f"/run/containerd/s/{hashlib.sha256(f'{pod.of.address}/k8s.io/{pod.sandbox}'.encode()).hexdigest()}")
    if "net" in pod.what:
        sh("ip", "netns", "attach", pod.pin, str(pid))
        published(pod)
    return shim


def pid_of(pod: Pod) -> int:
    with open(pod.pid_file) as file:
        return int(file.read())


def published(pod: Pod) -> None:
    """What CNI's plugins make for a pod with a published port."""
    result = {
        "kind": "cniCacheV1",
        "containerId": pod.sandbox,
        "networkName": pod.of.network,
        "ifName": "eth0",
        "netns": f"/var/run/netns/{pod.pin}",
        "config": "",
        "result": {},
    }
    write(f"/var/lib/cni/results/{pod.of.network}-{pod.sandbox}-eth0", json.dumps(result))
    write(f"/var/lib/cni/networks/{pod.of.network}/10.1.64.2", f"{pod.sandbox}\r\neth0")
    write(f"/var/lib/cni/networks/{pod.of.network}/lock", "")
    own, ports = pod.chain("CNI-"), pod.chain("CNI-DN-")
    note = f'name: "{pod.of.network}" id: "{pod.sandbox}"'.replace('"', '\\"')
    # Not in the restore: to declare a chain there empties it.
    sh("iptables-nft", "-t", "nat", "-N", "CNI-HOSTPORT-DNAT", check=False)
    sh(
        "iptables-nft-restore",
        "--noflush",
        stdin=f"""*nat
:{own} - [0:0]
:{ports} - [0:0]
-A {own} -d 10.1.64.0/24 -j ACCEPT
-A {ports} -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.1.64.2:80
-A POSTROUTING -s 10.1.64.2/32 -m comment --comment "{note}" -j {own}
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat {note}" -j {ports}
COMMIT
""",
    )
    if "CNI-HOSTPORT-DNAT" not in sh("iptables-nft", "-t", "nat", "-S", "PREROUTING"):
        sh(
            "iptables-nft",
            "-t",
            "nat",
            "-A",
            "PREROUTING",
            "-m",
            "addrtype",
            "--dst-type",
            "LOCAL",
            "-j",
            "CNI-HOSTPORT-DNAT",
        )


RULES = """*filter
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:cali-FORWARD - [0:0]
:cali-from-wl-dispatch - [0:0]
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -s 10.1.0.0/16 -m comment --comment "generated for MicroK8s pods" -j ACCEPT
-A FORWARD -d 10.1.0.0/16 -m comment --comment "generated for MicroK8s pods" -j ACCEPT
-A cali-FORWARD -i cali+ -m comment --comment "cali:8ZoYfO5HKXWbB3pk" -j cali-from-wl-dispatch
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-TCOU7JCQXEZGVUNU - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.152.183.10/32 -p udp -m comment --comment "kube-system/kube-dns:dns" -j KUBE-SVC-TCOU7JCQXEZGVUNU
COMMIT
"""


def microk8s() -> list[subprocess.Popen[bytes]]:
    """All of it: pods, volumes, dataplane, what its scripts put on the host."""
    shims = [start(pod) for pod in (WEB, NODE, CSI)]
    os.makedirs(f"/sys/fs/cgroup{SERVICE.replace('containerd', 'kubelite')}", exist_ok=True)
    # The end of a pod's network has been set up, and then two volumes are the administrator's directories.
    sh("ip", "link", "add", WEB.link, "type", "veth", "peer", "name", "eth0", "netns", str(pid_of(WEB)))
    sh("ip", "link", "add", "vxlan.calico", "type", "vxlan", "id", "4096", "dstport", "4789")
    pod = f"{KUBELET}/pods/{WEB.uid}"
    tmpfs(f"{pod}/volumes/kubernetes.io~projected/kube-api-access")
    bind("/srv/data", f"{pod}/volume-subpaths/data/web/0")
    bind("/srv/with space", f"{pod}/volume-subpaths/with space/web/1")
    bind("/srv/remote", f"{KUBELET}/plugins/kubernetes.io/csi/nfs.csi.k8s.io/{'5' * 64}/globalmount")
    sh("iptables-nft-restore", "--noflush", stdin=RULES)
    # Only where there are kinds for these.
    if "route" in {kind.name for kind in KINDS}:
        sh("ip", "route", "add", "blackhole", "10.1.64.0/26", "proto", "80")
    if "address" in {kind.name for kind in KINDS}:
        sh("ip", "address", "add", "10.0.1.1/32", "dev", "lo", "label", "lo:microk8s")
    sh(
        "nft",
        "-f",
        "-",
        stdin="table ip kube-proxy {\n chain mark-for-masquerade {\n }\n}\ntable arp calico-arp {\n}\n",
    )
    for path, target in (
        ("/var/lib/kubelet", KUBELET),
        ("/etc/cni/net.d", "/var/snap/microk8s/current/args/cni-network"),
    ):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(target, path)
    write("/etc/sysctl.d/10-microk8s.conf", "fs.aio-max-nr=1048576\n")
    write("/etc/systemd/system/snap.microk8s.daemon-kubelite.service.d/delegate.conf", "[Service]\nDelegate=yes\n")
    write("/etc/apparmor.d/cri-containerd.apparmor.d", "signal (receive) peer=snap.microk8s.daemon-kubelite,\n")
    write(f"/var/log/pods/default_web-0_{WEB.uid}/web/0.log")
    write("/run/calico/ipam.lock")
    return shims


def admin(address: str = MICROK8S.address) -> dict[str, subprocess.Popen[bytes]]:
    """The administrator's: links, namespaces, rules and processes with names and words of MicroK8s', or of who has this
    socket."""
    sh("ip", "netns", "add", "cni-0badcafe-1111-2222-3333-444455556666")
    sh("ip", "link", "add", "cali0badcafe000", "type", "veth", "peer", "name", "vethcaliadmin")
    sh("ip", "link", "add", "br-cali0", "type", "bridge")
    sh("ip", "route", "add", "blackhole", "10.1.200.0/26", "proto", "static")
    sh("ip", "address", "add", "10.0.1.2/32", "dev", "lo", "label", "lo:mine")
    sh("iptables-nft", "-t", "nat", "-N", "CNI-0badcafe0badcafe0badcafe")
    for words in (("-i", "cali+", "admin: pods"), ("-s", "10.1.0.0/16", "admin: MicroK8s pods may go out")):
        sh("iptables-nft", "-A", "FORWARD", *words[:2], "-m", "comment", "--comment", words[2], "-j", "ACCEPT")
    sh("nft", "-f", "-", stdin="table inet microk8s {\n chain KUBE-SERVICES {\n counter\n }\n}\n")
    for slice in ("admin.slice", "system.slice"):
        os.makedirs(f"/sys/fs/cgroup/{slice}", exist_ok=True)
    fake = ["-namespace", "k8s.io", "-id", "0" * 64, "-address", address]
    sleep = "import time; time.sleep(1000)"
    return {
        "arguments": spawn("/run/lab/c/containerd-shim-runc-v2", "/srv", "/admin.slice", fake, sleep),
        "pause": spawn("/run/lab/c/pause", "/srv", "/admin.slice", ["/pause"], sleep),
    }


PLACES = (
    "/var/snap",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/var/log/pods",
    "/run/containerd",
    "/run/netns",
    "/run/calico",
    "/etc/cni",
    "/opt/cni",
    "/etc/sysctl.d",
    "/etc/systemd/system",
    "/etc/apparmor.d",
    "/srv",
)


def files() -> list[str]:
    return sorted(sh("find", *PLACES, check=False).splitlines())
