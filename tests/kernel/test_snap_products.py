"""The other snaps on real objects: what is left of the docker snap, of Canonical's k8s snap and of the lxd snap goes;
of another dockerd, another containerd and another program of the same name everything stays."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess

import containerd_like as like
import incus_like
import pytest
from containerd_like import Containerd, Pod, bind, tmpfs
from incus_like import write
from sandbox import private, sh
from test_clean import assert_same, leftovers, plan, settled
from test_containerd_like import look
from things import until

STORE = "/var/snap/docker/common/var-lib-docker"
RUN = "/run/snap.docker"
NETWORK = "1234567890ab" + "c" * 52


def prepare() -> None:
    """A host without a containerd of its own, whatever the machine has."""
    like.prepare()
    for directory in ("/usr/bin", "/usr/sbin"):
        incus_like.overlay(directory)
    for path in ("/usr/bin/containerd", "/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/bin/kubelet"):
        if os.path.lexists(path):
            os.unlink(path)
    for path in ("/var/lib/containerd", "/etc/containerd", "/etc/kubernetes", "/var/lib/docker"):
        shutil.rmtree(path, ignore_errors=True)


def admin() -> dict[str, subprocess.Popen[bytes]]:
    """The administrator's things, but for a process with the arguments of a shim: it may be another containerd's, and
    then what all containerds share is his too."""
    bystanders = like.admin()
    shim = bystanders.pop("arguments")
    shim.kill()
    shim.wait()
    return bystanders


def seen() -> dict[str, list[str]]:
    places = ["/var/lib/containerd", "/etc/containerd", "/etc/kubernetes", "/run/docker", RUN]
    return {**look(), "more files": sorted(sh("find", *places, check=False).splitlines())}


def clean(capsys: pytest.CaptureFixture[str], name: str, code: int = 0) -> str:
    capsys.readouterr()
    done = leftovers("clean", name, "--yes")
    said = capsys.readouterr()
    assert done == code, said
    return said.out


# -- docker ---------------------------------------------------------------------------------------------------------


def container(name: str, run: str, address: str, exe: str, service: str) -> tuple[subprocess.Popen[bytes], int]:
    """A container of a dockerd's: its bundle, shim and process, a pinned network namespace, the shim's socket."""
    id = hashlib.sha256(f"{address} {name}".encode()).hexdigest()
    state = f"{run}/containerd/daemon/io.containerd.runtime.v2.task/moby/{id}"
    write(f"{state}/config.json", json.dumps({"linux": {"cgroupsPath": f"/docker/{id}"}}))
    tmpfs(f"{state}/rootfs")
    os.makedirs(f"/sys/fs/cgroup/docker/{id}/inner")
    write(f"{run}/runtime-runc/moby/{id}/state.json", json.dumps({"id": id}))
    pid_file = f"/run/lab/{id}.pid"
    words = ["pid net", f"/docker/{id}", f"/docker/{id}/inner", pid_file]
    shim = like.spawn(exe, state, service, [*words, "-namespace", "moby", "-id", id, "-address", address], like.SHIM)
    until(lambda: os.path.exists(pid_file))
    with open(pid_file) as file:
        pid = int(file.read())
    until(lambda: os.readlink(f"/proc/{pid}/exe").endswith("sleep"))
    write(f"/run/containerd/s/{hashlib.sha256(f'{address}/moby/{id}'.encode()).hexdigest()}")
    write(f"{run}/netns/{id[:12]}", "")
    sh("mount", "--bind", f"/proc/{pid}/ns/net", f"{run}/netns/{id[:12]}")
    sh("ip", "link", "add", f"veth{id[:7]}", "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    return shim, pid


RULES = """*filter
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-USER -j RETURN
COMMIT
*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
COMMIT
"""


def docker() -> None:
    """The docker snap, removed while dockerd could not stop its container: as with live-restore."""
    service = "/system.slice/snap.docker.dockerd.service"
    address = f"{RUN}/containerd/containerd.sock"
    _, pid = container("web", RUN, address, "/run/lab/snap/containerd-shim-runc-v2", service)
    id = hashlib.sha256(f"{address} web".encode()).hexdigest()
    sh("ip", "link", "add", "docker0", "type", "bridge")
    sh("ip", "link", "add", "br-1234567890ab", "type", "bridge")
    sh("ip", "link", "set", f"veth{id[:7]}", "master", "br-1234567890ab")
    settings = {"Networks": {"net": {"NetworkID": NETWORK}}}
    config = {"ID": id, "Name": "/web", "NetworkSettings": settings}
    write(f"{STORE}/containers/{id}/config.v2.json", json.dumps(config))
    tmpfs(f"{STORE}/containers/{id}/mounts/shm", "shm")
    tmpfs(f"{STORE}/overlay2/{id}/merged", "overlay")
    bind("/srv/data", f"{STORE}/volumes/with blank/_data")
    write(f"{RUN}/netns/default", "")
    sh("mount", "--bind", "/proc/self/ns/net", f"{RUN}/netns/default")
    write(f"{RUN}/docker.pid")
    sh("iptables-nft-restore", "--noflush", stdin=RULES)


@private
def test_docker_goes_and_the_administrator_s_files_behind_its_volumes_stay(
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepare()
    bystanders = admin()
    sh("ip", "link", "add", "br-0badcafe0bad", "type", "bridge")
    sh("iptables-nft", "-A", "FORWARD", "-i", "docker0", "-o", "eth9", "-j", "ACCEPT")
    before = seen()
    docker()
    said = clean(capsys, "docker-snap")
    assert_same(seen(), before)
    assert os.path.exists("/srv/data/file") and all(each.poll() is None for each in bystanders.values()), said
    assert leftovers("verify", "docker-snap") == 0, capsys.readouterr().out
    assert "0 to remove" in clean(capsys, "docker-snap")


@private
def test_docker_beside_another_dockerd(capsys: pytest.CaptureFixture[str]) -> None:
    prepare()
    other = "/run/docker"
    shim, pid = container("web", other, f"{other}/containerd/containerd.sock", "/run/lab/b/shim", "/system.slice/x")
    dockerd = like.spawn("/run/lab/b/dockerd", "/srv", "/system.slice/x", [], "import time; time.sleep(1000)")
    sh("ip", "link", "add", "br-0badcafe0bad", "type", "bridge")
    tmpfs("/var/lib/docker/overlay2/x/merged")
    before = seen()
    docker()
    rules = sh("iptables-nft-save")
    clean(capsys, "docker-snap")
    # Of what all dockerds call the same it may have made any.
    assert [line for line in sh("iptables-nft-save").splitlines() if "DOCKER" in line] == [
        line for line in rules.splitlines() if "DOCKER" in line
    ]
    sh("ip", "link", "delete", "docker0")
    now = seen()
    for what in ("processes", "netns", "links", "cgroups", "mounts", "files", "more files"):
        assert_same({what: now[what]}, {what: before[what]})
    assert shim.poll() is None and dockerd.poll() is None and os.path.exists(f"/proc/{pid}")
    assert os.path.exists("/srv/data/file")


# -- k8s ------------------------------------------------------------------------------------------------------------

K8S = Containerd(
    "/run/containerd/containerd.sock",
    "/run/containerd",
    "/run/lab/k/containerd-shim-runc-v2",
    "/system.slice/snap.k8s.containerd.service",
    "cilium",
)
POD = Pod(K8S, "web-0")
COMMON = "/var/snap/k8s/common"
KUBELET = "/var/lib/kubelet"


def k8s() -> subprocess.Popen[bytes]:
    """The k8s snap in the host's own places, with a pod."""
    for name, path in (
        ("socket-path", "/run/containerd"),
        ("root-dir", "/var/lib/containerd"),
        ("config-dir", "/etc/containerd"),
        ("cni-bin-dir", "/opt/cni/bin"),
    ):
        write(f"{COMMON}/lock/containerd-{name}", path)
    write(f"{COMMON}/lock/.containerd-base-dir", "/")
    write(f"{COMMON}/args/kubelet", f'--kubeconfig="/etc/kubernetes/kubelet.conf"\n--root-dir="{KUBELET}"\n')
    shim = like.start(POD)
    write("/run/containerd/containerd.sock.ttrpc")
    tmpfs("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/7/fs")
    write("/var/lib/containerd/io.containerd.metadata.v1.bolt/meta.db")
    for path in (
        "/etc/containerd/config.toml",
        "/etc/containerd/conf.d/x",
        "/etc/kubernetes/pki/ca.crt",
        "/opt/cni/bin/cni",
    ):
        write(path)
    os.symlink("cni", "/opt/cni/bin/bridge")
    write("/etc/kubernetes/kubelet.conf")
    tmpfs(f"{KUBELET}/pods/{POD.uid}/volumes/kubernetes.io~projected/token")
    bind("/srv/with space", f"{KUBELET}/pods/{POD.uid}/volume-subpaths/with space/web/1")
    bind("/srv/remote", f"{KUBELET}/plugins/kubernetes.io/csi/nfs.csi.k8s.io/{'5' * 64}/globalmount")
    write("/etc/cni/net.d/05-cilium.conflist", json.dumps({"name": "cilium", "plugins": [{"type": "cilium-cni"}]}))
    sh("ip", "link", "add", "cilium_host", "type", "veth", "peer", "name", "cilium_net")
    sh("iptables-nft", "-N", "CILIUM_FORWARD")
    sh(
        "iptables-nft",
        "-A",
        "FORWARD",
        "-m",
        "comment",
        "--comment",
        "cilium-feeder: CILIUM_FORWARD",
        "-j",
        "CILIUM_FORWARD",
    )
    write(
        "/etc/sysctl.d/100-k8s.conf",
        "# Generated by the k8s snap for system tuning.\nfs.inotify.max_user_instances=1024\n",
    )
    write("/etc/systemd/system/snap.k8s.containerd.service.d/containerd-defaults.conf", "[Service]\nDelegate=yes\n")
    return shim


@private
def test_k8s_goes_from_the_host_s_own_places(capsys: pytest.CaptureFixture[str]) -> None:
    prepare()
    bystanders = admin()
    write("/etc/sysctl.d/20-k8s.conf", "vm.swappiness=1\n")
    os.makedirs("/etc/systemd/system", exist_ok=True)
    shutil.rmtree("/etc/cni", ignore_errors=True)
    shutil.rmtree("/opt/cni", ignore_errors=True)
    before = seen()
    k8s()
    said = clean(capsys, "k8s")
    assert_same(seen(), before)
    assert os.path.exists("/srv/with space/f") and os.path.exists("/srv/remote/share"), said
    assert all(each.poll() is None for each in bystanders.values())
    assert leftovers("verify", "k8s") == 0, capsys.readouterr().out
    assert "0 to remove" in clean(capsys, "k8s")


@private
def test_plugins_of_the_administrator_s_stay_where_k8s_has_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    prepare()
    admin()
    k8s()
    write("/opt/cni/bin/portmap", "from the tarball")
    clean(capsys, "k8s")
    assert os.listdir("/opt/cni/bin") == ["portmap"]
    assert not os.path.exists("/var/snap/k8s")


@private
def test_k8s_goes_when_only_the_ledger_knows_its_places(capsys: pytest.CaptureFixture[str]) -> None:
    prepare()
    admin()
    shutil.rmtree("/etc/cni", ignore_errors=True)
    shutil.rmtree("/opt/cni", ignore_errors=True)
    os.makedirs("/etc/systemd/system", exist_ok=True)
    before = seen()
    k8s()
    assert leftovers("record", "k8s") == 0
    shutil.rmtree("/var/snap/k8s")
    # One of them is another's by now.
    shutil.rmtree("/etc/containerd")
    write("/etc/containerd-new/config.toml")
    os.rename("/etc/containerd-new", "/etc/containerd")
    clean(capsys, "k8s")
    assert os.path.exists("/etc/containerd/config.toml")
    shutil.rmtree("/etc/containerd")
    assert_same(seen(), before)


@private
def test_k8s_beside_another_containerd_in_the_same_places(capsys: pytest.CaptureFixture[str]) -> None:
    prepare()
    k8s()
    daemon = like.spawn("/run/lab/b/containerd", "/srv", "/system.slice/x", [], "import time; time.sleep(1000)")
    kubelet = like.spawn("/run/lab/b/kubelet", "/srv", "/system.slice/x", [], "import time; time.sleep(1000)")
    before = seen()
    found = plan(capsys, product="k8s")
    assert found["file:/var/lib/containerd"]["action"] == found["file:/etc/kubernetes"]["action"] == "keep"
    clean(capsys, "k8s")
    now = seen()
    places = ("/var/lib/containerd", "/etc/containerd", "/etc/kubernetes", "/opt/cni", "/var/lib/kubelet", "/etc/cni")
    for what in ("mounts", "files", "more files"):
        lost = [line for line in before[what] if line.startswith(places) and line not in now[what]]
        assert not lost, (what, lost)
    assert os.path.exists("/run/containerd/containerd.sock.ttrpc") and os.path.ismount(
        f"{KUBELET}/pods/{POD.uid}/volumes/kubernetes.io~projected/token"
    )
    assert daemon.poll() is None and kubelet.poll() is None


# -- lxd ------------------------------------------------------------------------------------------------------------


def unmounted(name: str, snap: str, argv: list[str], program: str) -> subprocess.Popen[bytes]:
    """A process that runs bin/lxd of a file system that is then unmounted, with snapd's word in its environment."""
    point = f"/run/lab/{name}"
    tmpfs(point)
    exe = incus_like.copy(f"{point}/bin/lxd")
    environment = {"PYTHONHOME": "/usr", "PATH": "/usr/bin:/bin", **({"SNAP": snap} if snap else {})}
    process = subprocess.Popen(
        [argv[0], "-S", "-c", program, *argv[1:]], executable=exe, env=environment, stdin=subprocess.DEVNULL, cwd="/"
    )
    until(lambda: os.readlink(f"/proc/{process.pid}/exe") == exe)
    sh("umount", "-l", point)
    assert os.readlink(f"/proc/{process.pid}/exe") == "/bin/lxd"
    return process


@private
def test_lxd_s_containers_outlive_their_snap(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare(incus_like.LXD)
    shutil.rmtree("/var/snap", ignore_errors=True)
    directory = "/var/snap/lxd/common/lxd"
    title = f"[lxc monitor] {directory}/containers"
    sleep = "import time; time.sleep(1000)"
    incus_like.admin()
    bystanders = [
        unmounted("a", "", [f"{title} c1"], sleep),
        unmounted("b", "/snap/lxd-mine/x1", [f"{title} c1"], sleep),
        incus_like.spawn(incus_like.copy("/run/lab/c/bin/sleeper"), [f"{title} c1"]),
    ]
    os.makedirs("/srv/pool/x")
    before = settled()
    tmpfs(f"{directory}/devlxd")
    monitor = incus_like.MONITOR.replace("/dev/incus", "/dev/lxd").replace(
        "/var/lib/incus/guestapi", f"{directory}/devlxd"
    )
    pid_file = "/run/lab/c1.pid"
    process = unmounted("snap", "/snap/lxd/x1", [f"{title} c1", "c1", pid_file], monitor)
    until(lambda: os.path.exists(pid_file))
    with open(pid_file) as file:
        pid = int(file.read())
    with open(f"{pid_file}.go", "w"):
        pass
    until(lambda: os.readlink(f"/proc/{pid}/exe").endswith("sleep"))
    server = incus_like.copy("/run/lab/d/dnsmasq")
    hosts = f"--dhcp-hostsfile={directory}/networks/lxdbr0/dnsmasq.hosts"
    incus_like.spawn(server, ["dnsmasq", "--interface=lxdbr0", hosts])
    sh("ip", "link", "add", "lxdbr0", "address", "00:16:3e:00:00:ff", "type", "bridge")
    sh("nft", "-f", "-", stdin="table inet lxd {\n chain fwd.lxdbr0 {\n }\n}\n")
    tmpfs("/var/snap/lxd/common/shmounts")
    assert leftovers("clean", "lxd", "--yes") == 0, capsys.readouterr().out
    assert process.poll() is None and os.path.exists(f"/proc/{pid}"), "Debian's LXD is another product"
    assert "inet lxd" in sh("nft", "list", "tables")
    assert leftovers("clean", "lxd-snap", "--yes") == 0, capsys.readouterr().out
    assert_same(settled(), before)
    assert all(each.poll() is None for each in bystanders)
    assert not os.path.exists("/var/snap/lxd")
