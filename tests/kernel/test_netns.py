"""Network namespaces that are pinned, as CNI's runtimes pin them: hundreds go at once, the others stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from sandbox import private, sh
from things import act, look

from leftovers import syscalls
from leftovers.kinds import netns
from leftovers.model import Object

PINS = Path("/run/netns")


def pin(*names: str) -> None:
    sh("ip", "-batch", "-", stdin="".join(f"netns add {name}\n" for name in names))


def pinned() -> dict[str, Object]:
    """Those that have a pin, by the name of its first."""
    return {os.path.basename(obj.facts["pins"][0]): obj for obj in look("netns")["netns"].values() if obj.facts["pins"]}


def mounts() -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " nsfs " in line]


@private
def test_hundreds_go_at_once_and_the_others_stay() -> None:
    """`ip netns` binds /run/netns on itself and shares it, so each pin is mounted twice."""
    pin("admin", "cni-admin")
    before = mounts()
    names = [f"cni-{number:08x}-0000-0000-0000-000000000000" for number in range(300)]
    pin(*names)
    found = pinned()
    assert len(found) == 302
    assert len(mounts()) > len(names)
    assert act("netns", [found[name] for name in names]) == {}
    assert mounts() == before
    assert sorted(os.listdir(PINS)) == ["admin", "cni-admin"]
    assert set(pinned()) == {"admin", "cni-admin"}


@private
def test_a_pin_that_is_mounted_twice_at_one_place() -> None:
    pin("cni-1", "admin")
    sh("mount", "--bind", str(PINS / "cni-1"), str(PINS / "cni-1"))
    assert act("netns", [pinned()["cni-1"]]) == {}
    assert os.listdir(PINS) == ["admin"]
    assert set(pinned()) == {"admin"}


@private
def test_pins_that_vanished_are_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    pin("cni-1", "cni-2", "cni-3", "admin")
    found = pinned()
    sh("ip", "netns", "delete", "cni-1")
    sh("umount", str(PINS / "cni-2"))  # its file stays
    real = syscalls.umount2

    def late(path: str, flags: int = 0) -> None:
        if path.endswith("cni-3"):
            real(path, flags)
        real(path, flags)

    monkeypatch.setattr(syscalls, "umount2", late)
    asked = [found[name] for name in ("cni-1", "cni-2", "cni-3")]
    assert act("netns", asked) == {}
    assert set(pinned()) == {"admin"}
    assert sorted(os.listdir(PINS)) == ["admin", "cni-2"]


@private
def test_another_one_under_the_same_name_stays() -> None:
    """A namespace, a file of somebody's, one with the same number in another file system, and a symlink to a pin."""
    pin("cni-1", "cni-2", "cni-3", "admin")
    found = pinned()
    for name in ("cni-1", "cni-2", "cni-3"):
        sh("ip", "netns", "delete", name)
    pin("cni-1")
    (PINS / "cni-2").write_text("mine")
    (PINS / "cni-3").symlink_to(PINS / "admin")
    before = mounts()
    assert act("netns", [found[name] for name in ("cni-1", "cni-2", "cni-3")]) == {}
    assert mounts() == before
    assert (PINS / "cni-2").read_text() == "mine" and (PINS / "cni-3").is_symlink()
    number = os.stat(PINS / "cni-2").st_ino
    assert netns.unpin(str(PINS / "cni-2"), number) == ""
    assert (PINS / "cni-2").read_text() == "mine"


@private
def test_the_file_below_a_pin_is_only_removed_when_it_is_empty() -> None:
    Path("/srv/file").write_text("mine")
    pin("cni-1")
    sh("mount", "--bind", str(PINS / "cni-1"), "/srv/file")
    (obj,) = pinned().values()
    assert obj.facts["pins"] == ["/run/netns/cni-1", "/srv/file"]
    assert act("netns", [obj]) == {}
    assert Path("/srv/file").read_text() == "mine"
    assert pinned() == {} and os.listdir(PINS) == []
