"""Loop devices on a real kernel. They are the machine's, in a sandbox too: only those made here are touched."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sandbox import private, sh

from leftovers.host import Host
from leftovers.kinds.kind import Look
from leftovers.kinds.loops import LoopDevices
from leftovers.model import Deadline, Object, Verb

Attach = Callable[[str], str]


def backing(device: str) -> str:
    """What stands behind a device now; "" is nothing."""
    try:
        return Path(f"/sys/block/{device.removeprefix('/dev/')}/loop/backing_file").read_text().strip()
    except OSError:
        return ""


@pytest.fixture
def attach(tmp_path: Path) -> Iterator[Attach]:
    """Attach a new file of a name; whatever becomes of the test, its own files are detached."""

    def attach(name: str) -> str:
        path = tmp_path / name
        with open(path, "wb") as file:
            file.truncate(16 << 20)
        return sh("losetup", "--find", "--show", str(path)).strip()

    yield attach
    for device in Path("/sys/block").glob("loop*"):
        if str(tmp_path) in backing(device.name):
            subprocess.run(["losetup", "-d", f"/dev/{device.name}"], check=False)


def survey(tmp_path: Path) -> dict[str, Object]:
    listing = LoopDevices().survey(Look(Host()))
    assert listing.faults == ()
    mine = [object for object in listing.objects if str(tmp_path) in object.facts["backing_file"]]
    return {os.path.basename(object.facts["backing_file"]): object for object in mine}


def act(*objects: Object) -> dict[str, str]:
    return dict(LoopDevices().act(Host(), Verb.REMOVE, objects, Deadline(10)))


def gone(device: str, seconds: float = 3.0) -> bool:
    end = time.monotonic() + seconds
    while backing(device) and time.monotonic() < end:
        time.sleep(0.02)
    return not backing(device)


def test_facts(attach: Attach, tmp_path: Path) -> None:
    device = attach("pool.img")
    object = survey(tmp_path)["pool.img"]
    name = device.removeprefix("/dev/")
    info = os.stat(device)
    assert object.facts == {
        "device": device,
        "backing_file": str(tmp_path / "pool.img"),
        "deleted": False,
        "here": True,
        "autoclear": False,
        "offset": 0,
        "majmin": f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}",
        "holders": [],
    }
    assert object.key == name
    assert object.identity == (name, int(Path(f"/sys/block/{name}/diskseq").read_text()))


def test_a_path_that_leads_to_another_file_here(attach: Attach, tmp_path: Path) -> None:
    """As the path of a container's file does, which the kernel shows as the container sees it."""
    attach("pool.img")
    os.rename(tmp_path / "pool.img", tmp_path / "moved.img")
    (tmp_path / "pool.img").write_bytes(b"")
    found = survey(tmp_path)
    assert found["moved.img"].facts["here"] is True
    with open(tmp_path / "other", "wb") as file:
        file.truncate(1 << 20)
    os.replace(tmp_path / "other", tmp_path / "moved.img")
    assert not any(object.facts["here"] for object in survey(tmp_path).values())


def test_unlinked_files_are_told_from_odd_names(attach: Attach, tmp_path: Path) -> None:
    attach("unlinked.img")
    attach("odd (deleted)")
    os.unlink(tmp_path / "unlinked.img")
    objects = survey(tmp_path)
    assert objects["unlinked.img"].facts["deleted"] is True
    assert objects["odd (deleted)"].facts["deleted"] is False


def test_a_bystander_survives(attach: Attach, tmp_path: Path) -> None:
    mine, theirs, unlinked = attach("mine.img"), attach("theirs.img"), attach("unlinked.img")
    os.unlink(tmp_path / "unlinked.img")
    objects = survey(tmp_path)
    assert act(objects["mine.img"], objects["unlinked.img"]) == {}
    assert gone(mine)
    assert gone(unlinked)
    assert backing(theirs) == str(tmp_path / "theirs.img")
    assert set(survey(tmp_path)) == {"theirs.img"}


def test_a_device_used_anew_is_left_alone(attach: Attach, tmp_path: Path) -> None:
    device = attach("old.img")
    old = survey(tmp_path)["old.img"]
    sh("losetup", "-d", device)
    assert gone(device)
    with open(tmp_path / "new.img", "wb") as file:
        file.truncate(16 << 20)
    sh("losetup", device, str(tmp_path / "new.img"))
    assert act(old) == {}
    assert not gone(device, 0.3)
    assert backing(device) == str(tmp_path / "new.img")
    # The very same file on the same device is another attachment, too.
    new = survey(tmp_path)["new.img"]
    sh("losetup", "-d", device)
    assert gone(device)
    sh("losetup", device, str(tmp_path / "new.img"))
    assert act(new) == {}
    assert backing(device) == str(tmp_path / "new.img")


def test_one_that_vanished_is_no_failure(attach: Attach, tmp_path: Path) -> None:
    device = attach("mine.img")
    object = survey(tmp_path)["mine.img"]
    sh("losetup", "-d", device)
    assert gone(device)
    assert act(object) == {}


def test_one_in_use_is_listed_until_its_last_user_goes(attach: Attach, tmp_path: Path) -> None:
    device = attach("mine.img")
    object = survey(tmp_path)["mine.img"]
    fd = os.open(device, os.O_RDONLY)
    try:
        assert act(object) == {}
        after = survey(tmp_path)["mine.img"]
        assert (after.identity, after.facts["autoclear"]) == (object.identity, True)
    finally:
        os.close(fd)
    assert gone(device)
    assert "mine.img" not in survey(tmp_path)


def test_a_missing_node_is_named(attach: Attach, tmp_path: Path) -> None:
    device = attach("mine.img")

    @private
    def without_dev() -> None:
        sh("mount", "--make-rprivate", "/")
        sh("mount", "-t", "tmpfs", "tmpfs", "/dev")
        object = survey(tmp_path)["mine.img"]
        major, minor = object.facts["majmin"].split(":")
        assert act(object) == {
            object.id: f"{device}: no such device node here (mknod {device} b {major} {minor}; losetup -d {device})"
        }
        # A node of that name that is another device (here a loop device that does not exist) is not even opened.
        sh("mknod", device, "b", "7", "200")
        assert act(object) == {object.id: f"{device}: is not the node of this device"}
        assert not os.path.exists("/sys/block/loop200")

    without_dev()
    assert backing(device) == str(tmp_path / "mine.img")


def test_asking_opens_no_device(attach: Attach, tmp_path: Path) -> None:
    """A device with autoclear goes with its last close: a survey that opened it could be that last user."""
    device = attach("mine.img")
    with open(device, "rb"):
        sh("losetup", "-d", device)
        for _ in range(3):
            assert survey(tmp_path)["mine.img"].facts["autoclear"] is True
    assert gone(device)
