"""What administrators do with a host beside Incus, or with Incus itself: their own disks and links at its places,
their own programs with its paths, a second one of it. All of that is theirs."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
from pathlib import Path

import incus_like
import pytest
from sandbox import private, sh
from test_clean import assert_same, leftovers, settled
from test_hostile_containers import init_of_c1, kill_the_daemon_and_all_monitors
from things import act, look, until

PYTHON = {"PYTHONHOME": "/usr", "PATH": "/usr/bin:/bin"}
SLEEP = "import time; time.sleep(1000)"
SOURCE = str(Path(__file__).parents[2] / "src")


def mount_points() -> list[str]:
    with open("/proc/self/mountinfo") as file:
        return [line.split()[4] for line in file]


def links() -> str:
    return sh("ip", "-o", "link")


def runs(pid: int, exe: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)") == exe
    except OSError:
        return False


# -- places ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["/var/lib/incus", "/var/log/incus"])
@private
def test_nothing_behind_a_mount_of_the_administrator_s_is_deleted(
    point: str, capsys: pytest.CaptureFixture[str]
) -> None:
    incus_like.prepare()
    incus_like.admin()
    if point != incus_like.DIRECTORY:
        incus_like.incus(1)
    os.makedirs(point)
    sh("mount", "--bind", "/srv/admin", point)
    for option in ((), ("--data",)):
        leftovers("clean", "incus", "--yes", *option)
        assert point in capsys.readouterr().out
        assert os.path.exists("/srv/admin/file") and os.path.exists(f"{point}/file"), option
        assert os.path.exists("/srv/admin/sub/precious")
    assert "incusbr0" not in links(), "all else is gone"
    assert leftovers("verify", "incus") == 3
    assert point in capsys.readouterr().out
    sh("umount", point)
    assert leftovers("clean", "incus", "--yes") == 0, capsys.readouterr().out
    assert os.path.exists("/srv/admin/file") and not os.path.exists(point)


@private
def test_a_data_directory_that_is_a_symlink_loses_its_mounts_and_keeps_its_data(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The kernel names what is mounted below by the target, not by /var/lib/incus.
    incus_like.prepare()
    incus_like.admin()
    before = settled()
    os.makedirs("/srv/incusdata")
    os.symlink("/srv/incusdata", "/var/lib/incus")
    incus_like.incus(1)
    incus_like.write("/srv/incusdata/storage-pools/default/containers/c1/rootfs/etc/hostname")
    assert any(point.startswith("/srv/incusdata/") for point in mount_points())
    leftovers("clean", "incus", "--yes")
    said = capsys.readouterr().out
    assert not [point for point in mount_points() if point.startswith("/srv/incusdata/")], said
    assert os.path.exists("/srv/incusdata/storage-pools/default/containers/c1/rootfs/etc/hostname"), said
    leftovers("scan", "incus")
    assert "/srv/incusdata" in said + capsys.readouterr().out
    assert leftovers("clean", "incus", "--yes", "--data") == 0, capsys.readouterr().out
    assert_same(settled(), before)


@private
def test_a_mount_in_fstab_whose_path_ends_in_a_slash_is_the_administrator_s(
    capsys: pytest.CaptureFixture[str],
) -> None:
    point = "/var/lib/incus/storage-pools/big"
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1)
    incus_like.overlay("/etc")
    incus_like.tmpfs(point)
    incus_like.write(f"{point}/mine")
    with open("/etc/fstab", "a") as file:
        file.write(f"tmpfs {point}/ tmpfs defaults 0 0\n")
    leftovers("clean", "incus", "--yes")
    assert os.path.ismount(point) and os.path.exists(f"{point}/mine"), capsys.readouterr().out


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs FUSE")
@pytest.mark.parametrize("source", ["/srv/nfs", "/srv/link/data"])
@private
def test_a_source_on_a_file_system_whose_server_does_not_answer_holds_nothing_up(source: str) -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1)
    os.makedirs("/srv/nfs")
    os.symlink("/srv/nfs", "/srv/link")
    server = os.open("/dev/fuse", os.O_RDWR)  # nobody reads from it
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"nfs", b"/srv/nfs", b"fuse", 0, options) == 0, os.strerror(ctypes.get_errno())
    incus_like.write(
        "/var/lib/incus/storage-pools/p/containers/c1/backup.yaml",
        "container:\n  name: c1\n  project: default\n  expanded_devices:\n    data:\n      type: disk\n"
        f"      path: /data\n      source: {source}\npool:\n  name: p\n  driver: dir\n",
    )
    child = os.fork()
    if child == 0:
        os._exit(leftovers("clean", "incus", "--yes"))
    try:
        until(lambda: os.waitpid(child, os.WNOHANG)[0] == child, 12.0)
    except AssertionError:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        os.close(server)  # aborts the connection: who waits for it goes on
    assert "/srv/nfs" in mount_points(), "it is the administrator's"
    assert "incusbr0" not in links()


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs FUSE")
@pytest.mark.parametrize("place", ["lxcfs", "disk.data.mnt-data"])
@private
def test_what_an_instance_has_mounted_hides_nothing_that_is_written_down(place: str) -> None:
    """A lxcfs of its own (Incus 7) or a directory of a server's, in the middle of Incus' own: nobody answers there."""
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1)
    point = f"/var/lib/incus/devices/c1/{place}"
    os.makedirs(point)
    server = os.open("/dev/fuse", os.O_RDWR)  # nobody reads from it
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"lxcfs", point.encode(), b"fuse.lxcfs", 0, options) == 0, os.strerror(ctypes.get_errno())
    child = os.fork()
    if child == 0:
        os._exit(leftovers("record", "incus") or leftovers("clean", "incus", "--yes"))
    try:
        until(lambda: os.waitpid(child, os.WNOHANG) == (child, 0), 12.0)
    except AssertionError:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        os.close(server)
    assert point not in mount_points() and "incusbr0" not in links()


# -- the firewall ---------------------------------------------------------------------------------------------------


@private
def test_a_table_named_incus_where_incus_never_was(capsys: pytest.CaptureFixture[str]) -> None:
    # The administrator's own chain has a name that Incus gives too; his set and his hook it never makes.
    incus_like.prepare()
    table = (
        "table inet incus {\n set allowed {\n type ipv4_addr\n }\n"
        " chain in {\n type filter hook input priority 0;\n ip saddr @allowed accept\n }\n}\n"
    )
    sh("nft", "-f", "-", stdin=table)
    before = sh("nft", "list", "ruleset")
    leftovers("clean", "incus", "--yes")
    assert sh("nft", "list", "ruleset") == before, capsys.readouterr().out


@private
def test_bridge_rules_for_everything_but_incus_bridge_are_the_administrator_s(
    capsys: pytest.CaptureFixture[str],
) -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1)
    for match in (("-i", "!", "incusbr0"), ("-o", "!", "veth00000001")):
        sh("ebtables-nft", "-A", "FORWARD", *match, "-j", "DROP")
    before = sh("ebtables-nft", "-L", "FORWARD")
    assert before.count("DROP") == 2
    assert leftovers("clean", "incus", "--yes") == 0, capsys.readouterr().out
    assert sh("ebtables-nft", "-L", "FORWARD") == before, capsys.readouterr().out


# -- processes ------------------------------------------------------------------------------------------------------


@private
def test_a_dnsmasq_of_the_administrator_s_may_read_a_file_of_incus(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1)
    hosts = "--addn-hosts=/var/lib/incus/networks/incusbr0/dnsmasq.hosts"
    server = incus_like.spawn(incus_like.copy("/run/lab/own/dnsmasq"), ["dnsmasq", "--interface=br-lan", hosts])
    leftovers("clean", "incus", "--yes")
    said = capsys.readouterr().out
    assert server.poll() is None and "br-lan" in links(), said
    assert "incusbr0" not in links(), said


@private
def test_a_virtual_machine_of_the_administrator_s_may_use_an_image_of_incus(
    capsys: pytest.CaptureFixture[str],
) -> None:
    incus_like.prepare()
    incus_like.admin()
    programs = {
        "qemu-system-x86_64": ["qemu", "-name", "guest=own", "-drive", "file=/var/lib/incus/images/a.iso,media=cdrom"],
        "virtiofsd": ["virtiofsd", "--shared-dir=/var/lib/incus/storage-pools/default/custom/share"],
    }
    running = {name: incus_like.spawn(incus_like.copy(f"/run/lab/own/{name}"), argv) for name, argv in programs.items()}
    leftovers("clean", "incus", "--yes")
    said = capsys.readouterr().out
    assert {name: process.poll() for name, process in running.items()} == dict.fromkeys(running), said


@private
def test_an_lxcfs_that_is_mounted_somewhere_else_is_not_incus(capsys: pytest.CaptureFixture[str]) -> None:
    # As Kubernetes' add-ons run it: the package's file, a place of their own.
    incus_like.prepare()
    incus_like.admin()
    incus_like.overlay("/usr/bin")
    exe = incus_like.copy("/usr/bin/lxcfs")
    server = incus_like.spawn(exe, ["lxcfs", "/srv/k8s/lxcfs"])
    os.unlink(exe)
    leftovers("clean", "incus", "--yes")
    assert server.poll() is None, capsys.readouterr().out


@private
def test_a_container_in_the_host_s_network_makes_no_link_of_the_host_incus(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # raw.lxc with lxc.net.0.type=none. The address is of the range that Xen, LXC and LXD use too.
    incus_like.prepare()
    incus_like.admin()
    sh("ip", "link", "add", "vm-a", "type", "veth", "peer", "name", "vm-b", "address", "00:16:3e:01:02:03")
    before = settled()
    incus_like.incus(1)
    subprocess.Popen(["nsenter", "-t", init_of_c1(), "-m", "-p", "sleep", "999"])
    until(lambda: sh("pgrep", "-fx", "sleep 999", check=False) != "")
    leftovers("clean", "incus", "--yes")
    assert "vm-a" in links(), capsys.readouterr().out
    assert settled()["links"] == before["links"]


@private
def test_more_processes_than_files_that_may_be_open(capsys: pytest.CaptureFixture[str]) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
    bystander = subprocess.Popen(["sleep", "997"])
    going = [subprocess.Popen(["sleep", "996"]) for _ in range(1300)]
    wanted = [obj for obj in look("process")["process"].values() if obj.facts["argv"] == ["sleep", "996"]]
    assert len(wanted) == len(going)
    failed = act("process", wanted)
    until(lambda: sum(process.poll() is None for process in going) <= len(failed))
    assert bystander.poll() is None


# -- other Incus ----------------------------------------------------------------------------------------------------


@private
def test_a_second_daemon_s_directory_is_named_and_kept(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.copy(incus_like.INCUSD)
    incus_like.write("/srv/incus2/database/local.db")
    argv = ["incusd", "-S", "-c", SLEEP]
    daemon = subprocess.Popen(argv, executable=incus_like.INCUSD, env={**PYTHON, "INCUS_DIR": "/srv/incus2"})
    until(lambda: runs(daemon.pid, incus_like.INCUSD))
    os.unlink(incus_like.INCUSD)
    leftovers("clean", "incus", "--yes")
    assert "/srv/incus2" in capsys.readouterr().out
    assert os.path.exists("/srv/incus2/database/local.db")


@pytest.mark.parametrize("given", ["the directory", "the whole tree"])
@private
def test_an_incus_in_a_container_of_somebody_else_s_that_has_the_host_s_directory_is_in_use(
    given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # As `docker run --privileged -v /var/lib/incus:/var/lib/incus` runs it: its daemon has a pid namespace of its
    # own, and its containers' root file systems lie below the host's /var/lib/incus.
    rootfs = f"{incus_like.DIRECTORY}/storage-pools/default/containers/c1/rootfs"
    incus_like.prepare()
    incus_like.admin()
    os.makedirs(rootfs)
    incus_like.write(f"{incus_like.DIRECTORY}/database/local.db")
    exe = incus_like.copy("/run/lab/image/incusd")
    incus_like.write(
        "/run/lab/container.py",
        f"""
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
def monitor():
    assert libc.unshare(0x20000000) == 0
    if os.fork() == 0:
        init()
def init():
    assert libc.unshare(0x20000) == 0
    assert libc.mount(None, b"/", None, 0x4000 | (1 << 18), None) == 0
    assert libc.mount(b"{rootfs}", b"{rootfs}", None, 0x1000, None) == 0
    os.mkdir("{rootfs}/old")
    os.chdir("{rootfs}")
    assert libc.syscall(155, b".", b"old") == 0, os.strerror(ctypes.get_errno())  # pivot_root
    open("/up", "w").close()
if os.fork() == 0:
    monitor()
time.sleep(1000)
""",
    )
    bind = f"mount --bind {incus_like.DIRECTORY} {incus_like.DIRECTORY} && " if given == "the directory" else ""
    command = f"{bind}exec {exe} -S /run/lab/container.py"
    subprocess.Popen(["unshare", "--mount", "--pid", "--fork", "sh", "-c", command], env=PYTHON)
    until(lambda: os.path.exists(f"{rootfs}/up"))
    before = settled()
    assert leftovers("clean", "incus", "--yes") in (0, 4), capsys.readouterr().out
    assert_same(settled(), before)
    assert leftovers("clean", "incus", "--yes", "--data") == 4, capsys.readouterr().out
    assert_same(settled(), before)


@private
def test_a_user_s_own_incusd_blocks_nothing_and_lives_on(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1)
    exe = incus_like.copy("/run/lab/home/incusd")
    os.chmod(exe, 0o755)
    program = subprocess.Popen([exe, "-S", "-c", SLEEP], user=65534, env=PYTHON)
    until(lambda: runs(program.pid, exe))
    assert leftovers("clean", "incus", "--yes") == 0, capsys.readouterr()
    assert program.poll() is None
    assert "incusbr0" not in links() and "br-lan" in links()


@private
def test_a_daemon_behind_a_wrapper_is_an_installed_product(capsys: pytest.CaptureFixture[str]) -> None:
    # As NixOS builds it: incusd is a script that starts .incusd-wrapped.
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1)
    kill_the_daemon_and_all_monitors()
    incus_like.write("/var/lib/incus/database/global/db.bin")
    exe = incus_like.copy("/run/lab/nix/store/abc-incus/bin/.incusd-wrapped")
    daemon = incus_like.spawn(exe, ["/nix/store/abc-incus/bin/incusd", "--group", "incus-admin"])
    before = settled()
    assert leftovers("clean", "incus", "--yes") == 4, capsys.readouterr().out
    assert daemon.poll() is None
    assert_same(settled(), before)


# -- where the output goes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["a reader that went away", "a full disk", "closed"])
@private
def test_a_clean_that_nobody_can_read_does_all_or_nothing(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    before = settled()
    incus_like.incus(1)
    standing = settled()
    read, write = os.pipe()
    os.close(read)
    full = os.open("/dev/full", os.O_WRONLY)
    done = subprocess.run(
        ["sh", "-c", f"exec /usr/bin/python3 -m leftovers clean incus --yes -v {'>&-' if output == 'closed' else ''}"],
        stdout=full if output == "a full disk" else write,
        stderr=subprocess.PIPE,
        env={"PYTHONPATH": SOURCE, "PATH": os.environ["PATH"]},
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr and done.returncode in (0, 1), done
    # Who pipes it into `head` wants it done; who has no place for its words may be told so first.
    if output == "a reader that went away" or done.returncode == 0 or leftovers("verify", "incus") == 0:
        assert leftovers("verify", "incus") == 0, (done, capsys.readouterr().out)
        assert_same(settled(), before)
    else:
        assert done.stderr
        assert_same(settled(), standing)
