"""A path that leads to another mount when it is used than when it was listed: who may write in a directory above a
mount point can rename it, and put a symlink or another mount point there."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import pytest
from sandbox import libc, private, sh
from test_mounts import hanging_fuse, mounts, parsed, points, tmpfs
from things import act

from leftovers import mountinfo, syscalls
from leftovers.kinds import mountpoint
from leftovers.kinds import mounts as kind

ELSEWHERE = "its path leads to something else by now"


def meanwhile(monkeypatch: pytest.MonkeyPatch, swap: Callable[[], None]) -> None:
    """Do this when the child has listed the mounts and before it touches one."""
    real = kind.leaves_first

    def late(going: Mapping[int, object], children: Mapping[int, Sequence[int]]) -> list[int]:
        swap()
        return real(going, children)

    monkeypatch.setattr(kind, "leaves_first", late)


def symlinked() -> None:
    if os.path.islink("/srv/incus/volumes"):
        return
    os.rename("/srv/incus/volumes", "/srv/incus/before")
    os.symlink("/srv/admin", "/srv/incus/volumes")


def test_a_symlink_above_the_mount_point_does_not_lead_to_another_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile(monkeypatch, symlinked)
    a_symlink_above()


@private
def a_symlink_above() -> None:
    tmpfs("/srv/admin/data")
    tmpfs("/srv/incus/volumes/data")
    tmpfs("/srv/incus/other")
    failed = act("mount", mounts("/srv/incus"))
    assert os.path.islink("/srv/incus/volumes") and os.path.isdir("/srv/incus/volumes/data")
    assert set(failed) == {"/srv/incus/volumes/data"}
    assert "Too many levels of symbolic links" in failed["/srv/incus/volumes/data"]
    assert {"/srv/admin/data", "/srv/incus/before/data"} <= points()
    assert "/srv/incus/other" not in points()
    # Where it is now it is found again.
    assert act("mount", mounts("/srv/incus")) == {}
    assert mounts("/srv/incus") == [] and "/srv/admin/data" in points()


@private
def test_the_path_alone_would_have_led_there() -> None:
    # The control: what umount2 makes of the path, though it is told to follow nothing.
    tmpfs("/srv/admin/data")
    tmpfs("/srv/incus/volumes/data")
    symlinked()
    syscalls.umount2("/srv/incus/volumes/data", syscalls.UMOUNT_NOFOLLOW)
    assert "/srv/admin/data" not in points() and "/srv/incus/before/data" in points()


def test_nor_is_another_mount_made_private(monkeypatch: pytest.MonkeyPatch) -> None:
    meanwhile(monkeypatch, symlinked)
    a_shared_one()


@private
def a_shared_one() -> None:
    for tree in ("/srv/admin/tree", "/srv/incus/volumes/tree"):
        tmpfs(tree)
        sh("mount", "--make-shared", tree)
        tmpfs(f"{tree}/sub")
    failed = act("mount", mounts("/srv/incus"))
    assert set(failed) == {"/srv/incus/volumes/tree", "/srv/incus/volumes/tree/sub"}
    found = {mount.point: mount.shared for mount in parsed()}
    assert found["/srv/admin/tree"] and "/srv/admin/tree/sub" in found
    assert found["/srv/incus/before/tree"] and "/srv/incus/before/tree/sub" in found


def exchanged() -> None:
    """In a namespace in which neither is a mount point: in this one the kernel would not let them be renamed."""
    script = "cd /srv/incus; umount -l data admin; mv data before; mv admin data"
    subprocess.run(["unshare", "-m", "--propagation", "private", "sh", "-ec", script], check=True)


SERVED = pytest.mark.parametrize("served", [False, True], ids=["local", "served"])


@contextmanager
def mounted(point: str, served: bool) -> Iterator[None]:
    """A mount whose server answers nothing (its root may not be asked for), or one without any."""
    if not served:
        tmpfs(point)
        yield
        return
    os.makedirs(point)
    server = hanging_fuse(point)
    yield
    server.kill()
    server.wait()


@SERVED
def test_another_mount_point_renamed_to_its_place(monkeypatch: pytest.MonkeyPatch, served: bool) -> None:
    meanwhile(monkeypatch, exchanged)
    renamed(served)


@private
def renamed(served: bool) -> None:
    tmpfs("/srv/incus/admin")
    open("/srv/incus/admin/precious", "w").close()
    with mounted("/srv/incus/data", served):
        going = [obj for obj in mounts("/srv/incus") if obj.facts["point"] == "/srv/incus/data"]
        assert act("mount", going) == {"/srv/incus/data": ELSEWHERE}
        assert os.path.exists("/srv/incus/data/precious"), "the administrator's, at the path that was the product's"
        assert {"/srv/incus/data", "/srv/incus/before"} <= points()


@SERVED
def test_a_mount_over_a_directory_above(monkeypatch: pytest.MonkeyPatch, served: bool) -> None:
    def cover() -> None:
        tmpfs("/srv/incus/volumes")
        tmpfs("/srv/incus/volumes/data")

    meanwhile(monkeypatch, cover)
    covered(served, 3)


@SERVED
def test_a_mount_over_it(monkeypatch: pytest.MonkeyPatch, served: bool) -> None:
    # mount(8) would ask for the directory's attributes.
    meanwhile(monkeypatch, lambda: libc("mount", b"tmpfs", b"/srv/incus/volumes/data", b"tmpfs", 0, None))
    covered(served, 2)


@private
def covered(served: bool, stay: int) -> None:
    with mounted("/srv/incus/volumes/data", served):
        assert act("mount", mounts("/srv/incus")) == {"/srv/incus/volumes/data": ELSEWHERE}
        assert len([mount for mount in parsed() if mountinfo.below(mount.point, "/srv/incus")]) == stay


@SERVED
def test_what_was_unmounted_meanwhile_is_no_failure(monkeypatch: pytest.MonkeyPatch, served: bool) -> None:
    meanwhile(monkeypatch, lambda: sh("umount", "-l", "/srv/incus/data") and None)
    unmounted(served)


@private
def unmounted(served: bool) -> None:
    tmpfs("/srv/incus/admin")
    with mounted("/srv/incus/data", served):
        going = [obj for obj in mounts("/srv/incus") if obj.facts["point"] == "/srv/incus/data"]
        assert act("mount", going) == {}
    assert {point for point in points() if mountinfo.below(point, "/srv/incus")} == {"/srv/incus/admin"}


@SERVED
def test_two_on_one_point_and_one_below(served: bool) -> None:
    stacked(served)


@private
def stacked(served: bool) -> None:
    tmpfs("/srv/admin")
    tmpfs("/srv/incus/a b")
    server = hanging_fuse("/srv/incus/a b") if served else None
    if not server:
        tmpfs("/srv/incus/a b")
    tmpfs("/srv/incus/c")
    tmpfs("/srv/incus/c/new\nline")
    assert act("mount", mounts("/srv/incus")) == {}
    assert mounts("/srv/incus") == [] and "/srv/admin" in points()
    if server:
        server.kill()
        server.wait()


def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def openat2(dirfd: int, path: str, flags: int, resolve: int) -> int:
        raise OSError(errno.EPERM, "openat2: Operation not permitted", path)

    monkeypatch.setattr(syscalls, "openat2", openat2)


def test_without_openat2_nothing_is_unmounted(monkeypatch: pytest.MonkeyPatch) -> None:
    refused(monkeypatch)
    without()


@private
def without() -> None:
    tmpfs("/srv/incus/a")
    assert "openat2: Operation not permitted" in act("mount", mounts("/srv/incus"))["/srv/incus/a"]
    assert "/srv/incus/a" in points()


@private
def test_a_directory_that_is_named_like_a_deleted_one() -> None:
    # mountinfo appends //deleted to a path: as a path, that would be another directory's.
    tmpfs("/srv/incus/a/deleted")
    tmpfs("/srv/incus/b")
    found = {mount.point: mount for mount in parsed()}
    gone = dataclasses.replace(found["/srv/incus/b"], point="/srv/incus/a//deleted")
    proc = os.open("/proc", os.O_PATH)
    os.chdir("/proc")
    for quiet in (False, True):
        with pytest.raises(mountpoint.Elsewhere):
            mountpoint.unmount(proc, gone, quiet=quiet)
    assert {"/srv/incus/a/deleted", "/srv/incus/b"} <= points()
