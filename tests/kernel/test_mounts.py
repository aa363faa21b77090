"""Real mounts, and the ways in which published cleaners destroyed what was below or behind them."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from sandbox import private, sh
from things import act, look, until

from leftovers import mountinfo
from leftovers.model import Object


def parsed() -> list[mountinfo.Mount]:
    with open("/proc/self/mountinfo", "rb") as file:
        return mountinfo.parse(file.read())


def points() -> set[str]:
    return {mount.point for mount in parsed()}


def mounts(directory: str) -> list[Object]:
    return [obj for obj in look("mount")["mount"].values() if mountinfo.below(obj.facts["point"], directory)]


def tmpfs(point: str) -> None:
    os.makedirs(point, exist_ok=True)
    sh("mount", "-t", "tmpfs", "tmpfs", point)


@private
def test_a_batch_of_mounts_goes_and_a_sibling_with_the_same_prefix_stays() -> None:
    for number in range(100):
        tmpfs(f"/srv/incus/{number}")
    tmpfs("/srv/incus/7/deeper/still")
    tmpfs("/srv/incus-backup/x")
    assert len(mounts("/srv/incus")) == 101
    assert act("mount", mounts("/srv/incus")) == {}
    assert mounts("/srv/incus") == []
    assert "/srv/incus-backup/x" in points()


@private
def test_the_submounts_of_an_admin_s_shared_tree_survive_its_recursive_bind() -> None:
    # `umount B/sub`, and `umount -l B`, take A/sub away when B is a shared recursive bind of A.
    tmpfs("/srv/admin")
    sh("mount", "--make-shared", "/srv/admin")
    tmpfs("/srv/admin/sub")
    tmpfs("/srv/admin/sub/subsub")
    open("/srv/admin/sub/precious", "w").close()
    os.makedirs("/srv/incus/disk")
    sh("mount", "--rbind", "/srv/admin", "/srv/incus/disk")
    assert {"/srv/incus/disk/sub", "/srv/incus/disk/sub/subsub"} <= points()
    assert act("mount", mounts("/srv/incus")) == {}
    assert mounts("/srv/incus") == []
    assert {"/srv/admin", "/srv/admin/sub", "/srv/admin/sub/subsub"} <= points()
    assert os.path.exists("/srv/admin/sub/precious")


@private
def test_published_ways_would_have_lost_the_submounts() -> None:
    # The control: without it, the test above could pass on a kernel where nothing propagates.
    tmpfs("/srv/admin")
    sh("mount", "--make-shared", "/srv/admin")
    tmpfs("/srv/admin/sub")
    os.makedirs("/srv/incus/disk")
    sh("mount", "--rbind", "/srv/admin", "/srv/incus/disk")
    sh("umount", "-l", "/srv/incus/disk")
    assert "/srv/admin/sub" not in points()


@private
def test_a_mount_below_which_a_kept_one_stands_stays_too() -> None:
    tmpfs("/srv/incus/pool")
    tmpfs("/srv/incus/pool/kept")
    going = [obj for obj in mounts("/srv/incus") if obj.facts["point"] == "/srv/incus/pool"]
    assert "/srv/incus/pool/kept is mounted below it" in act("mount", going)["/srv/incus/pool"]
    assert {"/srv/incus/pool", "/srv/incus/pool/kept"} <= points()


@private
def test_names_with_blanks_newlines_and_backslashes() -> None:
    names = [
        "with space",
        "with\nnewline",
        "with\ttab",
        "back\\slash",
        "\\040",
        "h#sh",
        "uml\u00e4ut",
        b"\xff".decode("utf-8", "surrogateescape"),
    ]
    for name in names:
        tmpfs(f"/srv/incus/{name}")
    tmpfs("/srv/other/with space")
    assert {f"/srv/incus/{name}" for name in names} <= points()
    assert act("mount", mounts("/srv/incus")) == {}
    assert mounts("/srv/incus") == []
    assert "/srv/other/with space" in points()


@private
def test_two_mounts_on_one_point() -> None:
    tmpfs("/srv/incus/a")
    tmpfs("/srv/incus/a")
    assert len(mounts("/srv/incus")) == 2
    assert act("mount", mounts("/srv/incus")) == {}
    assert mounts("/srv/incus") == []


@private
def test_a_mount_over_a_shared_one_with_an_admin_s_peer_is_not_risked() -> None:
    tmpfs("/srv/admin")
    sh("mount", "--make-shared", "/srv/admin")
    os.makedirs("/srv/incus/disk")
    sh("mount", "--bind", "/srv/admin", "/srv/incus/disk")
    tmpfs("/srv/admin")  # over its root, and so over /srv/incus/disk as well
    assert [mount.point for mount in parsed()].count("/srv/incus/disk") == 2
    assert len(act("mount", mounts("/srv/incus"))) == 2
    assert sorted(mount.point for mount in parsed()).count("/srv/admin") == 2


@private
def test_a_mount_in_use_stays_and_its_user_is_named() -> None:
    tmpfs("/srv/incus/a")
    process = subprocess.Popen(["sleep", "1000"], cwd="/srv/incus/a")
    causes = act("mount", mounts("/srv/incus"))
    assert f"pid {process.pid} (sleep)" in causes["/srv/incus/a"]
    assert "/srv/incus/a" in points() and process.poll() is None
    process.kill()
    process.wait()
    assert act("mount", mounts("/srv/incus")) == {}


@private
def test_a_mount_that_was_replaced_meanwhile_is_left_alone() -> None:
    tmpfs("/srv/incus/a")
    old = mounts("/srv/incus")
    sh("umount", "/srv/incus/a")
    tmpfs("/srv/incus/b")  # takes the mount's number
    tmpfs("/srv/incus/a")
    assert act("mount", old) == {}
    assert {"/srv/incus/a", "/srv/incus/b"} <= points()


@private
def test_copies_in_the_mount_namespaces_of_services_go_too() -> None:
    tmpfs("/srv/admin")
    sh("mount", "--make-shared", "/srv/admin")
    tmpfs("/srv/admin/sub")
    os.makedirs("/srv/incus/disk")
    sh("mount", "--rbind", "/srv/admin", "/srv/incus/disk")
    service = subprocess.Popen(["unshare", "-m", "--propagation", "unchanged", "sleep", "1000"])
    until(lambda: os.readlink(f"/proc/{service.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"))
    until(lambda: os.readlink(f"/proc/{service.pid}/exe").endswith("sleep"))
    assert len(mounts("/srv/incus")) == 4
    assert act("mount", mounts("/srv/incus")) == {}
    assert mounts("/srv/incus") == []
    with open(f"/proc/{service.pid}/mountinfo", "rb") as file:
        inside = {mount.point for mount in mountinfo.parse(file.read())}
    assert {"/srv/admin", "/srv/admin/sub"} <= inside, "the admin's tree in the service's namespace"
    assert not any(mountinfo.below(point, "/srv/incus") for point in inside)


@private
def test_a_container_s_own_mounts_are_not_listed() -> None:
    tmpfs("/srv/root")
    for name in ("usr", "old", "var/lib/incus"):
        os.makedirs(f"/srv/root/{name}")
    for name in ("bin", "lib", "lib64"):
        os.symlink(f"usr/{name}", f"/srv/root/{name}")
    sh("mount", "--bind", "/usr", "/srv/root/usr")
    pivot = "mount --make-rprivate / && cd /srv/root && pivot_root . old && exec /bin/sleep 1000"
    container = subprocess.Popen(["unshare", "-m", "sh", "-c", pivot])
    until(lambda: os.readlink(f"/proc/{container.pid}/exe").endswith("sleep"))
    assert not [obj for obj in look("mount")["mount"].values() if not obj.facts["host"]]


@private
def test_trap_3_a_dead_fuse_server_does_not_hang_the_run() -> None:
    if not os.path.exists("/dev/fuse"):
        raise AssertionError("this machine has no /dev/fuse")
    os.makedirs("/srv/incus/fuse")
    server = hanging_fuse("/srv/incus/fuse")
    tmpfs("/srv/incus/other")
    began = time.monotonic()
    act("mount", mounts("/srv/incus"), seconds=3.0)
    assert time.monotonic() - began < 6.0
    assert "/srv/incus/other" not in points() or "/srv/incus/fuse" in points()
    server.send_signal(signal.SIGKILL)
    server.wait()
    act("mount", mounts("/srv/incus"), seconds=5.0)
    assert mounts("/srv/incus") == [], "a dead FUSE mount"


def hanging_fuse(point: str) -> subprocess.Popen[bytes]:
    """A FUSE mount whose server never answers: it opens the device, mounts, and sleeps."""
    program = (
        "import ctypes, os, time\n"
        "fd = os.open('/dev/fuse', os.O_RDWR)\n"
        f"data = f'fd={{fd}},rootmode=40000,user_id=0,group_id=0'.encode()\n"
        "libc = ctypes.CDLL(None)\n"
        f"assert libc.mount(b'dead', {os.fsencode(point)!r}, b'fuse.lxcfs', 0, data) == 0\n"
        "time.sleep(1000)\n"
    )
    server = subprocess.Popen(["/usr/bin/python3", "-c", program])
    until(lambda: point in points())
    return server
