"""Containers choose their arguments, names, processes and links: none of that makes a thing of the administrator's
Incus', and none of it hides what is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import containerd_like
import incus_like
import pytest
from sandbox import private, sh
from test_clean import assert_same, leftovers, plan, settled
from things import until

SOURCE = str(Path(__file__).parents[2] / "src")
# What a container's init does in incus_like.MONITOR once it is in its namespaces and its cgroup.
INIT = 'os.execv("/bin/sleep", ["init", "1000"])'
SLEEP = "import time\ntime.sleep(1000)\n"
# The first thread ends and another goes on: the process is a zombie that lives.
ZOMBIE_LEADER = """
import ctypes, threading, time
threading.Thread(target=lambda: time.sleep(1000)).start()
ctypes.CDLL(None).syscall(60, 0)
"""
CHROOTED = """
import os, time
os.makedirs("/mnt/root")
os.chroot("/mnt/root")
time.sleep(1000)
"""
# A hundred processes with a megabyte of arguments each (the limit of all arguments is a part of the stack's).
MUCH_TO_SAY = """
import os, resource, sys, time
if len(sys.argv) == 1:
    resource.setrlimit(resource.RLIMIT_STACK, (64 << 20, 64 << 20))
    os.execv("/usr/bin/python3", ["init", __file__, *["ab"] * 300000])
for _ in range(100):
    if os.fork() == 0:
        time.sleep(1000)
os.mkdir("/run/lab/said")
time.sleep(1000)
"""
ESCAPES = b"\xff\x1b[2J"
ODD_CGROUP = f"""
import os, time
os.makedirs(b"/sys/fs/cgroup/lxc.payload.c9/" + {ESCAPES!r})
time.sleep(1000)
"""


def payload(name: str, program: str, arguments: Sequence[bytes] = ()) -> int:
    """A container without a network device, whose init is this Python program. Returns the init's pid."""
    assert INIT in incus_like.MONITOR
    pid_file, script = f"/run/lab/{name}.pid", f"/run/lab/{name}.py"
    incus_like.write(script, f"open('/run/lab/{name}.up', 'w').close()\n{program}")
    incus_like.write(f"{pid_file}.go")
    argv = [b"init", script.encode(), *arguments]
    monitor = incus_like.MONITOR.replace(INIT, f'os.execv("/usr/bin/python3", {argv!r})')
    title = f"[lxc monitor] {incus_like.DIRECTORY}/containers {name}"
    incus_like.spawn(incus_like.INCUSD, [title, name, pid_file], monitor)
    until(lambda: os.path.exists(pid_file) and os.path.exists(f"/run/lab/{name}.up"))
    with open(pid_file) as file:
        return int(file.read())


def purge() -> None:
    """What incus_like.incus() leaves out while it is not `purged`: the daemon's file goes while it runs."""
    os.unlink(incus_like.INCUSD)


def init_of_c1() -> str:
    """The pid of the init of incus_like's first container."""
    return sh("pgrep", "-fx", "init 1000").split()[0]


def inside(pid: str, *argv: str) -> None:
    """What a container does to its own links."""
    sh("nsenter", "-t", pid, "-n", *argv)


def kill_the_daemon_and_all_monitors() -> None:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/exe").startswith(incus_like.INCUSD):
                os.kill(int(pid), signal.SIGKILL)
        except OSError:
            pass  # a kernel thread, or gone


def threads(pid: int) -> list[str]:
    """The threads of a process that live: a zombie that nobody has reaped keeps its first one listed."""
    found = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] not in "ZX":
                    found.append(thread)
    except OSError:
        pass
    return found


@private
def test_an_argument_in_a_container_does_not_make_the_administrator_s_bridge_incus(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # A bridge is known by the dnsmasq that serves it, and that by its arguments; a container can write the same ones.
    incus_like.prepare()
    bystanders = incus_like.admin()
    before = settled()
    incus_like.incus(1, purged=False)
    payload("c9", SLEEP, [b"--interface=br-lan"])
    purge()
    assert leftovers("clean", "incus", "--yes") == 0, capsys.readouterr().out
    assert_same(settled(), before)
    assert all(process.poll() is None for process in bystanders.values())


@private
def test_a_link_whose_name_is_not_utf_8_stops_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    before = settled()
    incus_like.incus(1)
    rename: list[bytes] = [b"nsenter", b"-t", init_of_c1().encode(), b"-n", b"ip", b"link", b"set", b"eth0"]
    subprocess.run([*rename, b"name", b"\xff\xfe0"], check=True)
    assert plan(capsys)["link:veth00000001"]["action"] == "remove"
    for command, status in (("scan", 0), ("verify", 3), ("record", 0)):
        assert leftovers(command, "incus") == status, capsys.readouterr()
    assert leftovers("clean", "incus", "--yes") == 0, capsys.readouterr()
    assert leftovers("verify", "incus") == 0, capsys.readouterr()
    assert_same(settled(), before)


@private
def test_escape_sequences_in_arguments_and_cgroups_reach_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    before = settled()
    incus_like.incus(1, purged=False)
    pid = payload("c9", ODD_CGROUP, [ESCAPES + b"\n--x"])
    purge()
    for command in (("explain", str(pid)), ("scan", "incus", "-v"), ("clean", "incus", "--yes", "-v")):
        assert leftovers(*command) == 0, capsys.readouterr()
        assert "\x1b" not in "".join(capsys.readouterr())
    assert_same(settled(), before)


@private
def test_a_process_whose_first_thread_has_ended_is_not_taken_for_dead(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1, purged=False)
    pid = payload("c9", ZOMBIE_LEADER)
    until(lambda: sh("ps", "-o", "stat=", "-p", str(pid)).startswith("Z") and len(threads(pid)) == 1)
    purge()
    leftovers("clean", "incus", "--yes")
    status = leftovers("verify", "incus")
    assert not threads(pid) or status == 3, capsys.readouterr().out
    assert os.path.exists("/srv/admin/file")


@private
def test_an_orphan_that_changed_its_root_is_not_called_clean(capsys: pytest.CaptureFixture[str]) -> None:
    # Nothing ties it to Incus any more: its root is a directory of its own, its parent is gone. Its cgroup is there.
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1, purged=False)
    pid = payload("c9", CHROOTED)
    until(lambda: os.readlink(f"/proc/{pid}/root") == "/mnt/root")
    purge()
    kill_the_daemon_and_all_monitors()
    assert threads(pid), "it lives on"
    leftovers("clean", "incus", "--yes")
    capsys.readouterr()
    status = leftovers("verify", "incus")
    said = capsys.readouterr().out
    assert not threads(pid) or (status == 3 and "lxc.payload.c9" in said), said
    assert os.path.exists("/srv/admin/file")


RECORD = f"""
import sys
sys.path.insert(0, {SOURCE!r})
from leftovers.cli import main
status = main(["record", "incus"])
print(open("/proc/self/status").read())
sys.exit(status)
"""


@private
def test_megabytes_of_arguments_fill_neither_the_memory_nor_the_ledger(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    before = settled()
    incus_like.incus(1, purged=False)
    payload("c9", MUCH_TO_SAY)
    until(lambda: os.path.exists("/run/lab/said"), 20.0)
    purge()
    # A program of its own: what a child of ours ever had in memory includes what we have.
    run = subprocess.run([sys.executable, "-c", RECORD], capture_output=True, text=True, check=True)
    peak = int(run.stdout.rpartition("VmHWM:")[2].split()[0])
    assert peak < 300_000, f"{peak} kB of memory"
    size = os.path.getsize("/var/lib/leftovers/incus.json")
    assert size < 10_000_000, f"{size} bytes of ledger"
    assert leftovers("clean", "incus", "--yes") == 0, capsys.readouterr().out
    time.sleep(0.2)  # a hundred processes end
    assert_same(settled(), before)


def lend_a_card() -> str:
    """The administrator's phys0, whose other end is switch0, in c1 as its eth1. Returns the pid of c1's init."""
    pid = init_of_c1()
    sh("ip", "link", "set", "phys0", "netns", pid)
    inside(pid, "ip", "link", "set", "phys0", "name", "eth1")
    with open("/run/incus/c1/lxc.conf", "a") as file:
        file.write("lxc.net.1.type = phys\nlxc.net.1.name = eth1\nlxc.net.1.link = phys0\n")
    return pid


@private
def test_a_container_that_swaps_the_names_of_its_links_gets_no_wrong_one_home(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # By name the administrator's card would be destroyed with the container, and Incus' veth come home instead.
    incus_like.prepare()
    incus_like.admin()
    sh("ip", "link", "add", "phys0", "type", "veth", "peer", "name", "switch0")
    before = settled()
    incus_like.incus(1)
    pid = lend_a_card()
    for old, new in (("eth0", "swap0"), ("eth1", "eth0"), ("swap0", "eth1")):
        inside(pid, "ip", "link", "set", old, "name", new)
    assert leftovers("clean", "incus", "--yes") == 0, capsys.readouterr().out
    assert_same(settled(), before)


@private
def test_a_lent_card_that_a_container_disguises_as_one_of_incus_survives(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    sh("ip", "link", "add", "phys0", "type", "veth", "peer", "name", "switch0")
    incus_like.incus(1)
    pid = lend_a_card()
    inside(pid, "ip", "link", "set", "eth1", "name", "wan0")
    inside(pid, "ip", "link", "set", "wan0", "address", "10:66:6a:01:02:03")
    leftovers("clean", "incus", "--yes")
    said = capsys.readouterr().out
    # The two ends of a veth live and die together, so the end that stayed tells of the one that was lent.
    assert "switch0" in sh("ip", "-o", "link"), said
    assert "veth00000001" not in sh("ip", "-o", "link"), said


# In a mount namespace and a root of its own, but in the host's pid namespace (hostPID, `--pid=host`): goes to a
# directory there, and runs a file there with the arguments of a shim. Arguments: directory, file, what of the host is
# there too, the shim's own.
ELSEWHERE = """
import ctypes, os, sys
cwd, exe, shared = sys.argv[1:4]
libc = ctypes.CDLL(None)
assert libc.unshare(0x20000) == 0
libc.mount(None, b"/", None, 0x4000 | (1 << 18), None)
root = b"/mnt"
assert libc.mount(b"none", root, b"tmpfs", 0, None) == 0
for path in ("/usr", "/lib", "/lib64", *filter(None, shared.split(":"))):
    if os.path.islink(path):
        os.symlink(os.readlink(path), "/mnt" + path)
    elif os.path.isdir(path):
        os.makedirs("/mnt" + path)
        assert libc.mount(path.encode(), root + path.encode(), None, 0x1000 | 0x4000, None) == 0
os.makedirs("/mnt" + cwd, exist_ok=True)
os.makedirs("/mnt" + os.path.dirname(exe), exist_ok=True)
if not os.path.exists("/mnt" + exe):
    os.system(f"cp -L /usr/bin/python3 /mnt{exe}")
os.chdir("/mnt")
assert libc.mount(b".", b"/", None, 0x2000, None) == 0
os.chroot(".")
os.chdir(cwd)
os.execv(exe, [exe, "-S", "-c", "import time; time.sleep(1000)", *sys.argv[4:]])
"""
SHIM = "/snap/microk8s/7000/bin/containerd-shim-runc-v2"


def elsewhere(id: str, shared: str, exe: str = SHIM, cgroup: str = "/pod") -> subprocess.Popen[bytes]:
    """Such a process, with the words of the shim of MicroK8s' container `id`, in that's bundle."""
    bundle = f"{containerd_like.MICROK8S.state}/io.containerd.runtime.v2.task/k8s.io/{id}"
    words = ["-namespace", "k8s.io", "-id", id, "-address", containerd_like.MICROK8S.address]
    start = incus_like.copy("/run/lab/start") if not os.path.exists("/run/lab/start") else "/run/lab/start"
    process = containerd_like.spawn(start, "/", cgroup, [bundle, exe, shared, *words], ELSEWHERE)
    until(lambda: os.readlink(f"/proc/{process.pid}/exe") == exe)
    assert os.readlink(f"/proc/{process.pid}/cwd").endswith(bundle)
    return process


def victim(id: str) -> subprocess.Popen[bytes]:
    """A container of Docker's."""
    incus_like.write(f"/run/containerd/runc/moby/{id}/state.json", f'{{"id": "{id}"}}')
    where = f"/system.slice/docker-{id}.scope"
    return containerd_like.spawn("/run/lab/app", "/", where, [], "import time; time.sleep(1000)")


@pytest.mark.parametrize("exe", [SHIM, "/usr/bin/sleeper"])
@private
def test_a_pod_that_plays_another_container_s_shim_condemns_nobody(
    exe: str, capsys: pytest.CaptureFixture[str]
) -> None:
    id = "b" * 64
    containerd_like.prepare()
    incus_like.overlay("/usr/bin")
    incus_like.copy("/usr/bin/sleeper")
    containerd_like.microk8s()
    docker, attacker = victim(id), elsewhere(id, "", exe)
    shim = plan(capsys, product="microk8s").get(f"process:{attacker.pid}")
    assert shim is None or shim["action"] == "keep"
    leftovers("clean", "microk8s", "--yes")
    said = capsys.readouterr().out
    assert docker.poll() is None and attacker.poll() is None, said
    assert os.path.exists(f"/run/containerd/runc/moby/{id}/state.json"), said
    assert os.path.exists(f"/sys/fs/cgroup/system.slice/docker-{id}.scope"), said
    assert not os.path.exists("/var/snap/microk8s"), "of MicroK8s all went"


@pytest.mark.parametrize("deleted", [False, True])
@private
def test_shims_of_a_strict_snap_are_known_in_their_own_mount_namespace(
    deleted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    containerd_like.prepare()
    incus_like.overlay("/usr/bin")
    exe = incus_like.copy("/usr/bin/sleeper")
    os.makedirs("/var/snap/microk8s")
    shim, other = elsewhere("c" * 64, "/var/snap", exe), elsewhere("d" * 64, "", exe)
    if deleted:
        shutil.rmtree("/var/snap/microk8s/common")
    found = plan(capsys, product="microk8s")
    assert found[f"process:{shim.pid}"]["action"] == "remove"
    assert found[f"process:{other.pid}"]["action"] == "keep"
