"""Loop devices in a recorded /sys; no device is touched here."""

from __future__ import annotations

from pathlib import Path

import pytest

from leftovers.host import Host
from leftovers.kinds.kind import Look
from leftovers.kinds.loops import LoopDevices
from leftovers.model import Deadline, Object, Verb


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def loop(root: Path, name: str, backing: str, diskseq: str = "12", autoclear: str = "0") -> None:
    base = f"/sys/block/{name}"
    write(root, {
        f"{base}/loop/backing_file": f"{backing}\n",
        f"{base}/loop/autoclear": f"{autoclear}\n",
        f"{base}/loop/offset": "0\n",
        f"{base}/dev": f"7:{name.removeprefix('loop')}\n",
    })  # fmt: skip
    if diskseq:
        write(root, {f"{base}/diskseq": f"{diskseq}\n"})


def survey(root: Path) -> dict[str, Object]:
    listing = LoopDevices().survey(Look(Host(str(root))))
    assert listing.faults == ()
    return {object.key: object for object in listing.objects}


def test_facts(tmp_path: Path) -> None:
    loop(tmp_path, "loop3", "/var/lib/incus/disks/a b.img (deleted)", autoclear="1")
    (tmp_path / "sys/block/loop3/holders/dm-1").mkdir(parents=True)
    (tmp_path / "sys/block/loop3/loop3p1/holders/dm-0").mkdir(parents=True)
    (tmp_path / "sys/block/loop4").mkdir()
    write(tmp_path, {"/sys/block/vda/loop/backing_file": "/x\n"})
    objects = survey(tmp_path)
    assert list(objects) == ["loop3"]
    assert objects["loop3"].identity == ("loop3", 12)
    assert objects["loop3"].facts == {
        "device": "/dev/loop3",
        "backing_file": "/var/lib/incus/disks/a b.img",
        "deleted": True,
        "here": False,
        "autoclear": True,
        "offset": 0,
        "majmin": "7:3",
        "holders": ["dm-0", "dm-1"],
    }


def test_a_file_may_be_called_deleted(tmp_path: Path) -> None:
    loop(tmp_path, "loop0", "/srv/x (deleted)")
    write(tmp_path, {"/srv/x (deleted)": ""})
    facts = survey(tmp_path)["loop0"].facts
    assert (facts["backing_file"], facts["deleted"]) == ("/srv/x (deleted)", False)


def test_kernels_without_diskseq(tmp_path: Path) -> None:
    loop(tmp_path, "loop0", "/srv/x", diskseq="")
    assert survey(tmp_path)["loop0"].identity == ("loop0", "/srv/x", 0)


def test_no_loop_devices(tmp_path: Path) -> None:
    assert survey(tmp_path) == {}


@pytest.mark.parametrize("then", ["gone", "another"])
def test_what_had_vanished_is_no_failure(then: str, tmp_path: Path) -> None:
    loop(tmp_path, "loop0", "/srv/x")
    object = survey(tmp_path)["loop0"]
    if then == "gone":
        (tmp_path / "sys/block/loop0/loop/backing_file").unlink()
    else:
        loop(tmp_path, "loop0", "/srv/x", diskseq="13")
    assert LoopDevices().act(Host(str(tmp_path)), Verb.REMOVE, [object], Deadline(1)) == {}


def test_a_missing_node_is_named(tmp_path: Path) -> None:
    loop(tmp_path, "loop0", "/srv/x")
    object = survey(tmp_path)["loop0"]
    assert LoopDevices().act(Host(str(tmp_path)), Verb.REMOVE, [object], Deadline(1)) == {
        "loop:loop0": "/dev/loop0: no such device node here (mknod /dev/loop0 b 7 0; losetup -d /dev/loop0)"
    }


def test_a_file_in_place_of_the_node_is_not_taken_for_it(tmp_path: Path) -> None:
    loop(tmp_path, "loop0", "/srv/x")
    write(tmp_path, {"/dev/loop0": ""})
    object = survey(tmp_path)["loop0"]
    assert LoopDevices().act(Host(str(tmp_path)), Verb.REMOVE, [object], Deadline(1)) == {
        "loop:loop0": "/dev/loop0: is not the node of this device"
    }
