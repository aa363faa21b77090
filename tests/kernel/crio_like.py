"""What CRI-O leaves, made by hand in a sandbox, and beside it a container of Podman's in the same store. Layout: cri-o
internal/{oci/runtime_oci,storage/runtime,config/nsmgr,config/cgmgr}, containers/storage containers.go."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from typing import Any

import containerd_like as like
from containerd_like import spawn, tmpfs
from incus_like import write
from sandbox import sh
from things import until

GRAPH, RUN = "/var/lib/containers/storage", "/run/containers/storage"
SLEEP = "import time; time.sleep(1000)"
# A conmon: holds a fifo open, and has a child in namespaces and a cgroup of its own, which has another.
CONMON = """
import ctypes, os, sys, time
fifo, group, pid_file = sys.argv[1:4]
if fifo != "-":
    os.mkfifo(fifo)
    os.open(fifo, os.O_RDWR)
libc = ctypes.CDLL(None)
assert libc.unshare(0x20000000) == 0
child = os.fork()
if child == 0:
    with open(f"/sys/fs/cgroup{group}/cgroup.procs", "w") as file:
        file.write("0")
    assert libc.unshare(0x20000 | 0x40000000 | 0x8000000) == 0
    libc.mount(None, b"/", None, 0x4000 | (1 << 18), None)
    os.execv("/bin/sh", ["app", "-c", "sleep 1000 & exec sleep 1001"])
with open(pid_file + ".new", "w") as file:
    file.write(str(child))
os.rename(pid_file + ".new", pid_file)
time.sleep(1000)
"""


@dataclass(frozen=True)
class Container:
    name: str
    crio: bool = True

    def hash(self, word: str) -> str:
        return hashlib.sha256(f"{self.crio} {self.name} {word}".encode()).hexdigest()

    @property
    def id(self) -> str:
        return self.hash("id")

    @property
    def sandbox(self) -> str:
        return self.hash("sandbox")

    @property
    def layer(self) -> str:
        return self.hash("layer")

    @property
    def uuid(self) -> str:
        text = self.hash("uuid")
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:32]))

    @property
    def exe(self) -> str:
        return "/run/lab/crio/crio-conmon" if self.crio else "/run/lab/podman/conmon"

    @property
    def bundle(self) -> str:
        return f"{RUN if self.crio else GRAPH}/overlay-containers/{self.id}/userdata"

    @property
    def cgroups(self) -> tuple[str, str]:
        top = "/kubepods/besteffort/podx" if self.crio else "/machine.slice"
        by = "crio" if self.crio else "libpod"
        return f"{top}/{by}-conmon-{self.id}.scope", f"{top}/{by}-{self.id}.scope"

    @property
    def link(self) -> str:
        return f"veth{self.id[:8]}"

    @property
    def pin(self) -> str:
        return f"/run/netns/{self.uuid}"

    @property
    def pid_file(self) -> str:
        return f"/run/lab/{self.id}.pid"

    @property
    def chain(self) -> str:
        return ("CNI-" + hashlib.sha512(("crio" + self.sandbox).encode()).hexdigest())[:28]


WEB, DB = Container("web"), Container("db")
MINE = Container("mine", crio=False)


def store(*containers: Container) -> None:
    """containers.json, whole each time."""
    entries: list[dict[str, Any]] = []
    for each in containers:
        pod = {"pod-name": each.name, "pod-id": each.sandbox} if each.crio else {"image-id": "x"}
        said = {**pod, "name": f"k8s_{each.name}"}
        entries.append({"id": each.id, "layer": each.layer, "metadata": json.dumps(said)})
        if each.crio:
            entries.append({"id": each.sandbox, "layer": each.hash("pause"), "metadata": json.dumps(said)})
    write(f"{GRAPH}/overlay-containers/containers.json", json.dumps(entries))


def pid_of(container: Container) -> int:
    with open(container.pid_file) as file:
        return int(file.read())


def start(container: Container) -> subprocess.Popen[bytes]:
    for group in container.cgroups:
        os.makedirs(f"/sys/fs/cgroup{group}")
    os.makedirs(container.bundle)
    exits = "/var/run/crio/exits" if container.crio else "/run/libpod/exits"
    told = ["-b", container.bundle, "-c", container.id, "--exit-dir", exits, "-u", container.id]
    argv = [f"{container.bundle}/ctl", container.cgroups[1], container.pid_file, *told]
    monitor = spawn(container.exe, "/", container.cgroups[0], argv, CONMON)
    until(lambda: os.path.exists(container.pid_file))
    pid = pid_of(container)
    until(lambda: os.readlink(f"/proc/{pid}/exe").endswith("sleep"))
    tmpfs(f"{GRAPH}/overlay/{container.layer}/merged")
    write(f"{GRAPH}/overlay/{container.layer}/diff/file", "written in the container")
    if container.crio:
        pinned(container)
        network(container)
    return monitor


def pinned(container: Container) -> None:
    """Its shared memory, its namespaces as pinns has them, and the configuration that names them."""
    tmpfs(f"{RUN}/overlay-containers/{container.sandbox}/userdata/shm", "shm")
    spaces = []
    for type, word in (("net", "network"), ("ipc", "ipc")):
        path = f"/run/{type}ns/{container.uuid}"
        write(path, "")
        sh("mount", "--bind", f"/proc/{pid_of(container)}/ns/{type}", path)
        spaces.append({"type": word, "path": f"/var{path}"})
    notes = {"io.kubernetes.cri-o.SandboxID": container.sandbox}
    notes |= {"io.kubernetes.pod.name": container.name, "io.kubernetes.pod.namespace": "default"}
    spec = json.dumps({"linux": {"namespaces": spaces}, "annotations": notes})
    for id in (container.id, container.sandbox):
        write(f"{RUN}/overlay-containers/{id}/userdata/config.json", spec)


def network(container: Container) -> None:
    """What CNI's plugins made for it."""
    own = f"10.85.0.{2 + (container == DB)}"
    if "cni0" not in sh("ip", "-o", "link"):
        sh("ip", "link", "add", "cni0", "type", "bridge")
        sh("ip", "link", "set", "cni0", "addrgenmode", "none", "up")
        sh("ip", "address", "add", "10.85.0.1/16", "dev", "cni0")
    pid = str(pid_of(container))
    sh("ip", "link", "add", container.link, "type", "veth", "peer", "eth0", "netns", pid)
    sh("ip", "link", "set", container.link, "master", "cni0", "addrgenmode", "none", "up")
    entry = like_result(container, own)
    write(f"/var/lib/cni/results/crio-{container.sandbox}-eth0", json.dumps(entry))
    write(f"/var/lib/cni/networks/crio/{own}", f"{container.sandbox}\r\neth0")
    write("/var/lib/cni/networks/crio/lock", "")
    note = f'name: \\"crio\\" id: \\"{container.sandbox}\\"'
    rules = f'-A POSTROUTING -s {own}/32 -m comment --comment "{note}" -j {container.chain}'
    text = f"*nat\n:{container.chain} - [0:0]\n-A {container.chain} -d 10.85.0.0/16 -j ACCEPT\n{rules}\nCOMMIT\n"
    sh("iptables-nft-restore", "--noflush", stdin=text)


def like_result(container: Container, address: str) -> dict[str, Any]:

    plugins = [{"type": "bridge", "bridge": "cni0"}]
    config = json.dumps({"name": "crio", "plugins": plugins})
    ips = [{"interface": 2, "address": f"{address}/16", "gateway": "10.85.0.1"}]
    return {
        "kind": "cniCacheV1",
        "containerId": container.sandbox,
        "networkName": "crio",
        "ifName": "eth0",
        "netns": f"/var{container.pin}",
        "config": base64.b64encode(config.encode()).decode(),
        "result": {"interfaces": [{"name": "cni0"}, {"name": container.link}], "ips": ips},
    }


def crio(*others: Container) -> list[subprocess.Popen[bytes]]:
    store(WEB, DB, *others)
    for name in ("exits/x", "version", "crio.sock"):
        write(f"/run/crio/{name}")
    write("/var/lib/crio/clean.shutdown", "")
    return [start(WEB), start(DB)]


def admin() -> dict[str, subprocess.Popen[bytes]]:
    """Podman's container, and the administrator's: a process with the arguments of CRI-O's conmon for a container of
    its, but no fifo; a namespace with such a pin; a link and a chain of such names."""
    store(MINE)
    write("/etc/crio/crio.conf", "[crio]\n")
    sh("ip", "netns", "add", "0badcafe-1111-2222-3333-444455556666")
    sh("ip", "link", "add", "veth0badcafe", "type", "veth", "peer", "name", "vethadmin")
    sh("iptables-nft", "-t", "nat", "-N", "CNI-0badcafe0badcafe0badcafe")
    os.makedirs(f"{RUN}/overlay-containers")
    fake = ["-b", WEB.bundle, "-c", WEB.id, "--exit-dir", "/var/run/crio/exits"]
    return {
        "arguments": spawn("/run/lab/fake/crio-conmon", "/srv", "/admin.slice", fake, SLEEP),
        "podman": start(MINE),
    }


def prepare() -> None:
    like.prepare()
    for path in ("/var/lib/containers", "/var/lib/crio", "/etc/crio"):
        sh("rm", "-rf", path)  # of the overlays above /var and /etc
    os.makedirs("/sys/fs/cgroup/kubepods/besteffort/podx")  # kubelet's
