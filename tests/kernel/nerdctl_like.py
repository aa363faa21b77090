"""What nerdctl 2 leaves, made by hand in a sandbox, and beside it a container of ctr's in the same namespace of one
containerd. Layout: containerd/nerdctl v2 pkg/{clientutil,store,namestore,netutil,ocihook}, pkg/dnsutil/hostsstore,
pkg/mountutil/volumestore; the plugins' as containernetworking/plugins 1.x has it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from typing import Any

import containerd_like as like
from containerd_like import OTHER, SHIM, spawn, tmpfs
from incus_like import copy, overlay, write
from sandbox import sh
from things import until

STORE = "/var/lib/nerdctl/1935db59"  # of /run/containerd/containerd.sock
NETWORKS = "/etc/cni/net.d"
SLEEP = "import time; time.sleep(1000)"


@dataclass(frozen=True)
class Container:
    name: str
    network: str = "bridge"  # "host" and "none" have nothing of CNI's
    address: str = "10.4.0.2"
    namespace: str = "default"
    port: int = 0
    own: bool = True  # nerdctl's; else ctr's

    @property
    def id(self) -> str:
        return hashlib.sha256(f"{self.namespace} {self.name}".encode()).hexdigest()

    @property
    def full(self) -> str:
        """As CNI knows it."""
        return f"{self.namespace}-{self.id}"

    @property
    def cgroup(self) -> str:
        return f"/system.slice/nerdctl-{self.id}.scope" if self.own else f"/{self.namespace}/{self.id}"

    @property
    def bundle(self) -> str:
        return f"/run/containerd/io.containerd.runtime.v2.task/{self.namespace}/{self.id}"

    @property
    def link(self) -> str:
        return f"veth{self.id[:8]}"

    @property
    def pid_file(self) -> str:
        return f"/run/lab/{self.id}.pid"

    def chain(self, prefix: str) -> str:
        return (prefix + hashlib.sha512((self.network + self.full).encode()).hexdigest())[:28]


WEB = Container("web", port=8080)
DB = Container("db", "back", "10.4.1.2", "k8s.io")  # in a namespace that is mostly Kubernetes'
AGENT = Container("agent", "host")
BATCH = Container("batch", "none")
ALL = (WEB, DB, AGENT, BATCH)
JOB = Container("job", "none", own=False)


def network_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def bridge(name: str) -> str:
    return "nerdctl0" if name == "bridge" else f"br-{network_id(name)[:12]}"


def conflist(name: str, subnet: str, nerdctl: bool = True) -> dict[str, Any]:
    gateway = f"{subnet}.1"
    ipam = {"ranges": [[{"gateway": gateway, "subnet": f"{subnet}.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    plugins = [
        {
            "type": "bridge",
            "bridge": bridge(name) if nerdctl else f"cni-{name}",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {**ipam, "type": "host-local"},
            "capabilities": {},
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall", "ingressPolicy": "same-bridge"},
        {"type": "tuning"},
    ]
    known = {"nerdctlID": network_id(name), "nerdctlLabels": {}} if nerdctl else {}
    return {"cniVersion": "1.0.0", "name": name, **known, "plugins": plugins}


def networks() -> None:
    """The default network, one of the namespace k8s.io, and one that no container was ever in."""
    for name, subnet, path in (
        ("bridge", "10.4.0", "nerdctl-bridge"),
        ("back", "10.4.1", "k8s.io/nerdctl-back"),
        ("spare", "10.4.2", "default/nerdctl-spare"),
    ):
        write(f"{NETWORKS}/{path}.conflist", json.dumps(conflist(name, subnet), indent=2))
        if name != "spare":
            make_bridge(bridge(name), f"{subnet}.1")
    for lock in (".nerdctl.lock", ".cni-concurrency.lock"):
        write(f"{NETWORKS}/{lock}", "")


def make_bridge(name: str, gateway: str) -> None:
    sh("ip", "link", "add", name, "type", "bridge")
    sh("ip", "link", "set", name, "addrgenmode", "none", "up")
    sh("ip", "address", "add", f"{gateway}/24", "dev", name)
    isolate(name)


APART = 'comment --comment "CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)"'
POLICY = 'comment --comment "CNI firewall plugin rules (ingressPolicy: same-bridge)"'


def isolate(name: str) -> None:
    """What the firewall plugin makes with the first container on a bridge, and never takes away."""
    if "CNI-FORWARD" not in sh("iptables-nft", "-S"):
        restore(
            f"""*filter
:CNI-ADMIN - [0:0]
:CNI-FORWARD - [0:0]
:CNI-ISOLATION-STAGE-1 - [0:0]
:CNI-ISOLATION-STAGE-2 - [0:0]
-A FORWARD -m {APART} -j CNI-ISOLATION-STAGE-1
-A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD
-A CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j CNI-ADMIN
-A CNI-ISOLATION-STAGE-1 -m {APART} -j RETURN
-A CNI-ISOLATION-STAGE-2 -m {APART} -j RETURN
COMMIT
"""
        )
    restore(
        f"""*filter
-I CNI-ISOLATION-STAGE-1 -i {name} ! -o {name} -m {POLICY} -j CNI-ISOLATION-STAGE-2
-I CNI-ISOLATION-STAGE-2 -o {name} -m {APART} -j DROP
COMMIT
"""
    )


def restore(text: str) -> None:
    sh("iptables-nft-restore", "--noflush", stdin=text)


def start(container: Container) -> subprocess.Popen[bytes]:
    """A container that runs: its bundle, shim and first process; nerdctl's also in its store and on its network."""
    os.makedirs(f"/sys/fs/cgroup{container.cgroup}")
    write(f"{container.bundle}/config.json", json.dumps({"linux": {"cgroupsPath": container.cgroup}}))
    tmpfs(f"{container.bundle}/rootfs")
    state = {"id": container.id, "config": {"labels": [f"bundle={container.bundle}"]}}
    write(f"/run/containerd/runc/{container.namespace}/{container.id}/state.json", json.dumps(state))
    socket = hashlib.sha256(f"{OTHER.address}/{container.namespace}/{container.id}".encode()).hexdigest()
    write(f"/run/containerd/s/{socket}")
    what = "pid" if container.network == "host" else "pid net"
    told = ["-namespace", container.namespace, "-id", container.id, "-address", OTHER.address]
    argv = [what, container.cgroup, container.cgroup, container.pid_file, *told]
    shim = spawn(OTHER.exe, container.bundle, OTHER.service, argv, SHIM)
    until(lambda: os.path.exists(container.pid_file))
    until(lambda: os.readlink(f"/proc/{pid_of(container)}/exe").endswith("sleep"))
    if container.own:
        store(container)
        if container.network not in ("host", "none"):
            connect(container)
    return shim


def pid_of(container: Container) -> int:
    with open(container.pid_file) as file:
        return int(file.read())


def store(container: Container) -> None:
    base = f"{STORE}/containers/{container.namespace}/{container.id}"
    write(f"{base}/lifecycle.json", json.dumps({"started_at": "2026-11-21T12:00:00Z", "create_error": False}))
    for name in ("log-config.json", "network-config.json", "hostname", "resolv.conf", "oci-hook.createRuntime.log"):
        write(f"{base}/{name}", "{}")
    write(f"{STORE}/names/{container.namespace}/{container.name}", container.id)
    write(f"{STORE}/etchosts/{container.namespace}/{container.id}/hosts", "127.0.0.1 localhost\n")


def connect(container: Container) -> None:
    """What CNI's plugins made for it, and what nerdctl's hook kept of that."""
    name, full, own = container.network, container.full, container.address
    gateway = own.rpartition(".")[0] + ".1"
    sh("ip", "link", "add", container.link, "type", "veth", "peer", "eth0", "netns", str(pid_of(container)))
    sh("ip", "link", "set", container.link, "master", bridge(name), "addrgenmode", "none", "up")
    netns = f"/proc/{pid_of(container)}/ns/net"
    result = {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": bridge(name)}, {"name": container.link}, {"name": "eth0", "sandbox": netns}],
        "ips": [{"interface": 2, "address": f"{own}/24", "gateway": gateway}],
    }
    config = json.dumps(conflist(name, own.rpartition(".")[0]))
    entry = {
        "kind": "cniCacheV1",
        "containerId": full,
        "config": base64.b64encode(config.encode()).decode(),
        "ifName": "eth0",
        "networkName": name,
        "netns": netns,
        "cniArgs": [["IgnoreUnknown", "1"], ["NERDCTL_CNI_DHCP_HOSTNAME", container.name]],
        "result": result,
    }
    write(f"/var/lib/cni/results/{name}-{full}-eth0", json.dumps(entry))
    write(f"/var/lib/cni/networks/{name}/{own}", f"{full}\r\neth0")
    write(f"/var/lib/cni/networks/{name}/lock", "")
    write(f"/var/lib/cni/networks/{name}/last_reserved_ip.0", own)
    meta = {"ID": container.id, "Networks": {name: result}, "Hostname": container.name, "Name": container.name}
    write(f"{STORE}/etchosts/{container.namespace}/{container.id}/meta.json", json.dumps(meta))
    masquerade, ports = container.chain("CNI-"), container.chain("CNI-DN-")
    note = f'name: \\"{name}\\" id: \\"{full}\\"'
    restore(
        f"""*nat
:{masquerade} - [0:0]
-A {masquerade} -d {own}/24 -m comment --comment "{note}" -j ACCEPT
-A POSTROUTING -s {own}/32 -m comment --comment "{note}" -j {masquerade}
COMMIT
*filter
-A CNI-FORWARD -d {own}/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A CNI-FORWARD -s {own}/32 -j ACCEPT
COMMIT
"""
    )
    if container.port:
        restore(
            f"""*nat
:CNI-HOSTPORT-DNAT - [0:0]
:{ports} - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A {ports} -p tcp -m tcp --dport {container.port} -j DNAT --to-destination {own}:80
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat {note}" -j {ports}
COMMIT
"""
        )
        hold(container)


def hold(container: Container) -> None:
    """The process that holds its ports, as the hook starts it."""
    holder = subprocess.Popen(["sleep", "infinity"], stdin=subprocess.DEVNULL)
    write(f"/run/nerdctl/{container.namespace}/{container.id}/port-reserver.pid", str(holder.pid))


def nerdctl() -> list[subprocess.Popen[bytes]]:
    """All of it, with a volume that holds somebody's data."""
    networks()
    shims = [start(container) for container in ALL]
    write(f"{STORE}/volumes/default/data/volume.json", '{\n    "labels": {}\n}')
    write(f"{STORE}/volumes/default/data/_data/file", "data")
    return shims


def other_cni() -> None:
    """The administrator's network of CNI's, with its bridge, its lease and its rules, and a copy of nerdctl's
    configuration under another name."""
    write(f"{NETWORKS}/87-podman-bridge.conflist", json.dumps(conflist("podman", "10.88.0", nerdctl=False)))
    # A copy of nerdctl's, with its id, but another name.
    write(f"{NETWORKS}/nerdctl-copy.conflist", json.dumps({**conflist("other", "10.5.0"), "name": "copy"}))
    sh("ip", "link", "add", bridge("other"), "type", "bridge")
    sh("ip", "link", "add", "cni-podman", "type", "bridge")
    sh("ip", "address", "add", "10.88.0.1/24", "dev", "cni-podman")
    write("/var/lib/cni/networks/podman/10.88.0.2", f"{'e' * 64}\r\neth0")
    isolate("cni-podman")


def admin() -> dict[str, subprocess.Popen[bytes]]:
    """The administrator's: a bridge and a rule of nerdctl's words, processes of such, and a container of ctr's."""
    restore('*filter\n-A FORWARD -i nerdctl0 -m comment --comment "mine" -j ACCEPT\nCOMMIT\n')
    sh("ip", "link", "add", "br-0badcafe0bad", "type", "bridge")
    os.makedirs("/sys/fs/cgroup/admin.slice", exist_ok=True)
    fake = ["-namespace", "default", "-id", WEB.id, "-address", OTHER.address]
    return {
        "arguments": spawn("/run/lab/c/containerd-shim-runc-v2", "/srv", "/admin.slice", fake, SLEEP),
        "sleep": subprocess.Popen(["sleep", "infinity"], stdin=subprocess.DEVNULL),
        "job": start(JOB),
    }


def prepare() -> None:
    like.prepare()
    for path in ("/var/lib/nerdctl", "/run/nerdctl"):
        assert not os.path.exists(path)
    copy(OTHER.exe)
    # The containerd in which all of this is stays installed.
    overlay("/usr/local")
    write("/usr/local/bin/containerd")
