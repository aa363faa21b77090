"""Incus' and LXD's leftovers, made by hand in a sandbox: the same kinds of object, names and relations as on the real
host (tests/lab has the real thing). Fast enough to be made anew for every kill point.

/usr/libexec, /usr/bin (for LXD) and /var are overlaid, so nothing of the machine's own is written to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from sandbox import sh
from things import until


@dataclass(frozen=True)
class Member:
    """A member of the family, as far as it differs."""

    name: str
    daemon: str
    guest: str
    point: str
    run: str
    mac: str
    account: str

    @property
    def directory(self) -> str:
        return f"/var/lib/{self.name}"

    @property
    def bridge(self) -> str:
        return f"{self.name}br0"


INCUS = Member(
    "incus", "/usr/libexec/incus/incusd", "guestapi", "/dev/incus", "/run/incus", "10:66:6a:00:00:", "group incus-admin"
)
LXD = Member("lxd", "/usr/bin/lxd", "devlxd", "/dev/lxd", "/var/log/lxd", "00:16:3e:00:00:", "user _lxd")
MEMBERS = (INCUS, LXD)
DIRECTORY = INCUS.directory
INCUSD = INCUS.daemon
MAC = INCUS.mac

# What a monitor does here: makes namespaces and puts an init into them, which lives in the payload's cgroup.
MONITOR = """
import ctypes, os, sys, time
name, pid_file = sys.argv[1:3]
def into(group):
    os.makedirs(f"/sys/fs/cgroup/{group}", exist_ok=True)
    with open(f"/sys/fs/cgroup/{group}/cgroup.procs", "w") as file:
        file.write("0")
into(f"lxc.monitor.{name}")
libc = ctypes.CDLL(None)
assert libc.unshare(0x20000000 | 0x40000000 | 0x20000) == 0
child = os.fork()
if child == 0:
    libc.mount(None, b"/", None, 0x4000 | (1 << 18), None)
    assert libc.mount(b"none", b"/dev", b"tmpfs", 0, None) == 0
    os.mkdir("/dev/incus")
    assert libc.mount(b"/var/lib/incus/guestapi", b"/dev/incus", None, 0x1000, None) == 0
    into(f"lxc.payload.{name}")
    while not os.path.exists(pid_file + ".go"):
        time.sleep(0.005)
    os.execv("/bin/sleep", ["init", "1000"])
with open(pid_file + ".new", "w") as file:
    file.write(str(child))
os.rename(pid_file + ".new", pid_file)
time.sleep(1000)
"""


def overlay(directory: str) -> None:
    name = directory.strip("/").replace("/", "-")
    for part in ("upper", "work"):
        os.makedirs(f"/run/overlay/{name}/{part}")
    options = f"lowerdir={directory},upperdir=/run/overlay/{name}/upper,workdir=/run/overlay/{name}/work"
    sh("mount", "-t", "overlay", "overlay", "-o", options, directory)


def prepare(of: Member = INCUS) -> None:
    """A host on which nothing of the family is: what it would write to may be written to."""
    overlay("/var")
    overlay("/usr/libexec")
    if of is LXD:
        overlay("/usr/bin")
    os.makedirs("/run/lab")
    for path in ("/run/netns", "/var/lib/leftovers"):
        shutil.rmtree(path, ignore_errors=True)
    for member in MEMBERS:
        for place in ("lib", "log", "cache"):
            shutil.rmtree(f"/var/{place}/{member.name}", ignore_errors=True)


def been(of: Member = INCUS) -> None:
    """The trace that the package leaves on a host for ever: its group, or user."""
    kind, name = of.account.split()
    path, line = (
        ("/etc/group", f"{name}:x:989:") if kind == "group" else ("/etc/passwd", f"{name}:x:989:989::/:/bin/false")
    )
    with open(path) as file:
        write(f"/run/lab/{kind}", f"{file.read()}{line}\n")
    sh("mount", "--bind", f"/run/lab/{kind}", path)


def spawn(exe: str, argv: Sequence[str], program: str = "import time; time.sleep(1000)") -> subprocess.Popen[bytes]:
    """A process with any name and arguments: a copy of the Python interpreter that runs `program`."""
    environment = {"PYTHONHOME": "/usr", "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(
        [argv[0], "-S", "-c", program, *argv[1:]], executable=exe, env=environment, stdin=subprocess.DEVNULL
    )
    until(lambda: os.readlink(f"/proc/{process.pid}/exe").removesuffix(" (deleted)") == exe)
    return process


def copy(path: str) -> str:
    """A program of its own at a path."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    shutil.copy(os.path.realpath("/usr/bin/python3"), path)
    return path


def write(path: str, text: str = "x\n") -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def tmpfs(point: str) -> None:
    os.makedirs(point, exist_ok=True)
    sh("mount", "-t", "tmpfs", "-o", "mode=711", "tmpfs", point)


def container(name: str, number: int, bridge: str = "", of: Member = INCUS) -> int:
    """One container: monitor, init in namespaces of its own, a veth on a bridge. Returns the init's pid."""
    pid_file = f"/run/lab/{name}.pid"
    monitor = MONITOR.replace("/dev/incus", of.point).replace(f"{DIRECTORY}/guestapi", f"{of.directory}/{of.guest}")
    spawn(of.daemon, [f"[lxc monitor] {of.directory}/containers {name}", name, pid_file], monitor)
    until(lambda: os.path.exists(pid_file))
    with open(pid_file) as file:
        pid = int(file.read())
    host = f"veth{number:08x}"
    mac = f"{of.mac}{number:02x}"
    sh("ip", "link", "add", host, "type", "veth", "peer", "name", "eth0", "address", mac, "netns", str(pid))
    sh("ip", "link", "set", host, "master", bridge or of.bridge, "up")
    with open(pid_file + ".go", "w"):
        pass
    until(lambda: os.readlink(f"/proc/{pid}/exe").endswith("sleep"))
    write(
        f"{of.run}/{name}/lxc.conf",
        f"lxc.net.0.type = phys\nlxc.net.0.name = eth0\nlxc.net.0.link = vethffff{number:04x}\n"
        f"lxc.net.0.hwaddr = {mac}\n"
        f"lxc.rootfs.path = dir:{of.directory}/storage-pools/default/containers/{name}/rootfs\n",
    )
    os.makedirs(f"{of.directory}/devices/{name}", exist_ok=True)
    return pid


def admin(of: Member = INCUS) -> dict[str, subprocess.Popen[bytes]]:
    """The administrator's things, next to everything that Incus has: all of it must be there in the end."""
    sh("ip", "link", "add", "br-lan", "type", "bridge")
    sh("ip", "link", "set", "br-lan", "up")
    sh("ip", "link", "add", "vethdeadbeef", "type", "veth", "peer", "name", "veth0badcafe")
    sh(
        "nft",
        "-f",
        "-",
        stdin="table inet admin {\n chain c {\n counter\n }\n}\n"
        f"table ip {of.name}admin {{\n chain c {{\n }}\n}}\n",
    )
    tmpfs("/srv/admin")
    sh("mount", "--make-shared", "/srv/admin")
    tmpfs("/srv/admin/sub")
    for path in ("/srv/admin/file", "/srv/admin/sub/precious", "/srv/pool/mine", f"{of.directory}-backup/kept"):
        write(path)
    os.makedirs("/sys/fs/cgroup/admin.slice", exist_ok=True)
    return {
        "look-alike": spawn(copy("/run/lab/fake/sleeper"), [f"[lxc monitor] {of.directory}/containers c1"]),
        "dnsmasq": spawn(copy("/run/lab/fake/dnsmasq"), ["dnsmasq", "--interface=br-lan", "--conf-file=/etc/lan"]),
        "sleeper": spawn(copy(f"/run/lab/fake/{of.name}-agent"), [of.daemon, "--group", of.name]),
    }


def volumes() -> None:
    """What a pool's source holds from its making on."""
    for name in ("buckets", "containers", "containers-snapshots", "custom", "custom-snapshots", "images"):
        os.makedirs(f"/srv/pool/{name}", exist_ok=True)
    for name in ("virtual-machines", "virtual-machines-snapshots"):
        os.makedirs(f"/srv/pool/{name}", exist_ok=True)
    write("/srv/pool/containers/c1/rootfs/etc/hostname")


def incus(containers: int = 2, *, purged: bool = True, of: Member = INCUS, first: int = 1) -> None:
    """Incus or LXD as a purge leaves it (or as it stands, with `purged` false): processes, links, mounts, files."""
    copy(of.daemon)
    os.makedirs(f"{of.directory}/containers")
    for name in ("shmounts", of.guest):
        tmpfs(f"{of.directory}/{name}")
    os.makedirs(f"{of.directory}/storage-pools/pool2")
    sh("mount", "--bind", "/srv/pool", f"{of.directory}/storage-pools/pool2")
    spawn(of.daemon, [of.daemon, "--group", of.name])
    server = copy(f"/usr/libexec/lab/{of.name}/dnsmasq")
    os.makedirs(f"{of.directory}/networks/{of.bridge}")
    hosts = f"--dhcp-hostsfile={of.directory}/networks/{of.bridge}/dnsmasq.hosts"
    spawn(server, ["dnsmasq", f"--interface={of.bridge}", hosts])
    sh("ip", "link", "add", of.bridge, "address", f"{of.mac}ff", "type", "bridge")
    sh("ip", "link", "set", of.bridge, "up")
    chains = "".join(f"chain {name}.{of.bridge} {{\n}}\n" for name in ("pstrt", "fwd", "in", "out"))
    sh("nft", "-f", "-", stdin=f"table inet {of.name} {{\n{chains}}}\n")
    for number in range(first, first + containers):
        container(f"c{number}", number, "br-lan" if number == first + 1 else "", of)
    disk = f"{of.directory}/devices/c{first}/disk.data.mnt"
    os.makedirs(disk)
    sh("mount", "--rbind", "/srv/admin", disk)
    os.makedirs("/sys/fs/cgroup/lxc.pivot", exist_ok=True)
    os.makedirs(f"/run/lxc/lock{of.directory}")
    write(f"/var/log/{of.name}/c{first}/lxc.log")
    if purged:
        purge(of)
    else:
        write(f"/var/cache/{of.name}/resources/x")


def purge(of: Member = INCUS) -> None:
    """What Debian's purge takes away under it."""
    os.unlink(of.daemon)
    shutil.rmtree(f"/var/log/{of.name}")


def state() -> dict[str, list[str]]:
    """What is on the host, as tools tell it that share nothing with us: for comparing before and after."""
    with open("/proc/self/mountinfo") as file:
        mounts = sorted(line.split()[4] for line in file)
    links = sorted(line.split(":")[1].split("@")[0].strip() for line in sh("ip", "-o", "link").splitlines())
    masters = [
        line.split()[1].strip(":").split("@")[0]
        for line in sh("ip", "-o", "link").splitlines()
        if "master br-lan" in line
    ]
    names = [f"/var/{place}/{member.name}" for member in MEMBERS for place in ("lib", "log", "cache")]
    names += ["/srv", "/run/incus", "/run/lxc", "/var/lib/incus-backup", "/var/lib/lxd-backup"]
    files = sh("find", *names, check=False).splitlines()
    return {
        "mounts": mounts,
        "links": links,
        "ports of br-lan": sorted(masters),
        "nft": sh("nft", "list", "ruleset").splitlines(),
        "processes": sorted(sh("ps", "-ww", "-eo", "stat=,args=").splitlines()),
        "cgroups": sorted(sh("find", "/sys/fs/cgroup", "-mindepth", "1", "-type", "d").splitlines()),
        "files": sorted(files),
    }


def quiet(found: dict[str, list[str]]) -> dict[str, list[str]]:
    """Without what a look itself brings (ps), what has ended and waits for its parent, and this test's own."""
    living = [line.split(None, 1) for line in found["processes"] if not line.startswith("Z")]
    names = sorted(args for _, args in living if not args.startswith("ps -ww") and "pytest" not in args)
    return {**found, "processes": names}
