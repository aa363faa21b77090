"""Mounts in namespaces that are on another root, or that only a pin holds, as a strict snap's (/run/snapd/ns)."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable

import pytest
from sandbox import private, sh
from test_mounts import points, tmpfs
from things import HOST, act, look, until

from leftovers import mountinfo, syscalls
from leftovers.kinds import mounts as kind
from leftovers.model import Object

PIN = "/run/snapd/ns/product.mnt"
# A root of its own with the host's /usr and /srv in it, as snap-confine makes one. No /proc.
PIVOT = """
mount -t tmpfs tmpfs /mnt
cd /mnt
mkdir usr srv old
for d in bin lib lib64; do ln -s usr/$d $d; done
mount --bind /usr usr
mount --bind /srv srv
mkdir srv/hostfs
mount --rbind / srv/hostfs
pivot_root . old
"""


def pin(script: str, propagation: str = "slave", path: str = PIN) -> None:
    """Run a script in a mount namespace that then only a pin holds."""
    os.makedirs("/run/snapd/ns", exist_ok=True)
    if "/run/snapd/ns" not in points():
        sh("mount", "--bind", "/run/snapd/ns", "/run/snapd/ns")
        sh("mount", "--make-private", "/run/snapd/ns")  # else the pin would be in what it pins
    open(path, "w").close()
    for cpu in os.sched_getaffinity(0):
        # A namespace can be pinned in an older one only (fs/namespace.c, mnt_ns_loop), and since 6.18 which one is
        # older is told by numbers that each processor gives by itself: on that of our own it is true.
        said = sh(
            *("taskset", "-c", str(cpu), "unshare", f"--mount={path}", f"--propagation={propagation}"),
            *("sh", "-e", "-c", f"{script}\necho done"),
            check=False,
        )
        if said.endswith("done\n"):
            return
    raise AssertionError("no namespace could be pinned")


def inside(path: str = PIN) -> set[str]:
    """The mount points in a pinned namespace."""
    with open(path) as namespace:
        child = subprocess.Popen(["sleep", "1000"], preexec_fn=lambda: syscalls.setns(namespace.fileno(), 0))
    until(lambda: os.readlink(f"/proc/{child.pid}/exe").endswith("sleep"))
    with open(f"/proc/{child.pid}/mountinfo", "rb") as file:
        found = {mount.point for mount in mountinfo.parse(file.read())}
    child.kill()
    child.wait()
    return found


def elsewhere(directory: str) -> list[Object]:
    """What is listed below a directory in other namespaces than ours."""
    found = look("mount")["mount"].values()
    return [obj for obj in found if not obj.facts["host"] and mountinfo.below(obj.facts["point"], directory)]


def paths(objects: Iterable[Object]) -> set[str]:
    return {obj.facts["point"] for obj in objects}


@private
def test_what_only_a_pin_holds_is_found_and_goes() -> None:
    tmpfs("/srv/admin")
    os.makedirs("/srv/incus/with space")
    os.makedirs("/srv/mine")
    pin("mount -t tmpfs tmpfs '/srv/incus/with space'; mount -t tmpfs tmpfs /srv/mine")
    assert "/srv/incus/with space" not in points()
    found = elsewhere("/srv/incus")
    assert paths(found) == {"/srv/incus/with space"}
    assert [(obj.facts["pin"], obj.facts["pid"]) for obj in found] == [(PIN, 0)]
    assert act("mount", found) == {}
    assert elsewhere("/srv/incus") == []
    assert {"/srv/mine", "/srv/admin"} <= inside() and "/srv/incus/with space" not in inside()
    assert {"/srv/admin", PIN} <= points()


@private
def test_on_a_root_of_its_own_only_what_stands_on_the_host_s_directories_counts() -> None:
    os.makedirs("/srv/incus/volume")
    os.makedirs("/srv/incus/outer")
    pin(
        PIVOT
        + "mount -t tmpfs tmpfs /srv/incus/volume; mount -t tmpfs tmpfs /srv/incus/outer\n"
        + "mkdir /srv/incus/outer/inner; mount -t tmpfs tmpfs /srv/incus/outer/inner\n"
        # The same names on its own root are another world.
        + "mkdir -p /var/incus /run/incus; mount -t tmpfs tmpfs /run/incus; mount -t tmpfs tmpfs /var/incus"
    )
    found = elsewhere("/")
    mounted = {"/srv/incus/volume", "/srv/incus/outer", "/srv/incus/outer/inner"}
    assert paths(found) == {"/srv/hostfs", *mounted}
    assert act("mount", [obj for obj in found if obj.facts["point"] in mounted]) == {}
    assert paths(elsewhere("/")) == {"/srv/hostfs"}
    assert {"/run/incus", "/var/incus", "/srv", "/usr"} <= inside()
    assert "/srv" in points()


@private
def test_a_process_that_is_there_leads_to_it_as_well() -> None:
    os.makedirs("/srv/incus/volume")
    script = PIVOT + "mount -t tmpfs tmpfs /srv/incus/volume; exec /bin/sleep 1000"
    service = subprocess.Popen(["unshare", "-m", "--propagation", "slave", "sh", "-e", "-c", script])
    until(lambda: os.readlink(f"/proc/{service.pid}/exe").endswith("sleep"))
    found = elsewhere("/srv/incus")
    assert paths(found) == {"/srv/incus/volume"}
    assert [(obj.facts["pin"], obj.facts["pid"]) for obj in found] == [("", service.pid)]
    assert act("mount", found) == {}
    assert elsewhere("/srv/incus") == [] and service.poll() is None


def shared_disk() -> None:
    """In a pinned namespace, a product's recursive bind of an administrator's tree, which is its peer."""
    tmpfs("/srv/admin")
    sh("mount", "--make-shared", "/srv/admin")
    tmpfs("/srv/admin/sub")
    open("/srv/admin/sub/precious", "w").close()
    os.makedirs("/srv/incus/disk")
    pin("mount --make-private /srv; mount --rbind /srv/admin /srv/incus/disk", "unchanged")
    assert "/srv/incus/disk" not in points()
    assert {"/srv/incus/disk", "/srv/incus/disk/sub"} <= inside()


@private
def test_no_unmount_is_carried_over_from_a_pinned_namespace() -> None:
    shared_disk()
    found = elsewhere("/srv/incus")
    assert paths(found) == {"/srv/incus/disk", "/srv/incus/disk/sub"}
    assert act("mount", found) == {}
    assert elsewhere("/srv/incus") == []
    assert {"/srv/admin", "/srv/admin/sub"} <= points() & inside()
    assert os.path.exists("/srv/admin/sub/precious")


@private
def test_the_plain_way_would_have_carried_it_over() -> None:
    # The control of the test above.
    shared_disk()
    sh("nsenter", f"--mount={PIN}", "umount", "/srv/incus/disk/sub")
    assert "/srv/admin/sub" not in points()


@private
def test_a_tree_with_an_outside_peer_that_cannot_be_made_private_is_not_risked() -> None:
    tmpfs("/srv/admin")
    sh("mount", "--make-shared", "/srv/admin")
    os.makedirs("/srv/incus/disk")
    # Its only peer is in our namespace.
    pin("mount --make-private /srv; mount --bind /srv/admin /srv/incus/disk; umount /srv/admin", "unchanged")
    tmpfs("/srv/admin")  # over the root of both: it was carried over, and would be back
    found = elsewhere("/srv/incus")
    assert len(found) == 2
    assert len(act("mount", found)) == 2
    with open("/proc/self/mountinfo") as file:
        assert file.read().count(" /srv/admin ") == 2


@private
def test_a_pin_that_leads_to_another_namespace_by_now() -> None:
    os.makedirs("/srv/incus/volume")
    pin("mount -t tmpfs tmpfs /srv/incus/volume")
    found = elsewhere("/srv/incus")
    with open(PIN) as kept:  # else its number would be given again
        sh("umount", "-l", PIN)
        pin("mount -t tmpfs tmpfs /srv/incus/volume")
        assert "another namespace" in act("mount", found)[found[0].key]
        assert not kept.closed
    assert "/srv/incus/volume" in inside()


@private
def test_a_pin_behind_a_file_system_that_may_not_answer_is_told_and_not_opened() -> None:
    own = mountinfo.parse(b"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / /far rw - nfs4 x rw\n")
    with pytest.raises(OSError, match="network or FUSE"):
        kind.pinned(HOST, own, "/far/pin", 4026531840)


def stuck(monkeypatch: pytest.MonkeyPatch, point: str, flags: int) -> None:
    """An unmount that does not come back, as that of a server that is gone, unless it is made with these flags."""
    real = syscalls.umount2

    def umount2(path: str, given: int = 0) -> None:
        directory, _, name = path.rpartition("/")  # it is below /proc, where we are then
        if f"{os.readlink(directory)}/{name}" == point and not given & flags:
            signal.pause()
        real(path, given)

    monkeypatch.setattr(kind, "PATIENCE", 0.3)
    monkeypatch.setattr(syscalls, "umount2", umount2)


@pytest.mark.parametrize("flags", [syscalls.MNT_DETACH, 0], ids=["detached", "never"])
def test_an_unmount_that_hangs_does_not_hinder_the_others(monkeypatch: pytest.MonkeyPatch, flags: int) -> None:
    stuck(monkeypatch, "/srv/incus/a b/5", flags)
    hangs(bool(flags))


@private
def hangs(detached: bool) -> None:
    for number in range(10):
        tmpfs(f"/srv/incus/a b/{number}")
    tmpfs("/srv/incus/a b")  # over them: the first to go
    sh("umount", "/srv/incus/a b")
    tmpfs("/srv/incus-admin")
    failed = act("mount", [obj for obj in look("mount")["mount"].values() if below(obj)], seconds=20)
    assert set(failed) == (set() if detached else {"/srv/incus/a b/5"})
    assert all(cause == kind.HUNG for cause in failed.values())
    left = {point for point in points() if mountinfo.below(point, "/srv/incus")}
    assert left == set(failed)
    assert "/srv/incus-admin" in points()


def test_what_a_hung_child_stands_in_goes_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    # One that waits for a server in the kernel does not end by SIGKILL, and has the mount above open.
    stuck(monkeypatch, "/srv/incus/outer/5", syscalls.MNT_DETACH)
    monkeypatch.setattr(os, "kill", lambda pid, number: None)
    holds()


@private
def holds() -> None:
    tmpfs("/srv/incus/outer")
    tmpfs("/srv/incus/outer/5")
    tmpfs("/srv/incus/used")
    process = subprocess.Popen(["sleep", "1000"], cwd="/srv/incus/used")
    failed = act("mount", [obj for obj in look("mount")["mount"].values() if below(obj)], seconds=20)
    assert failed == {"/srv/incus/used": f"in use by pid {process.pid} (sleep)"}
    assert {point for point in points() if mountinfo.below(point, "/srv/incus")} == {"/srv/incus/used"}


def below(obj: Object) -> bool:
    return mountinfo.below(obj.facts["point"], "/srv/incus")
