"""Pins in a bpffs of the sandbox's own, of real maps, programs and links."""

from __future__ import annotations

import os
from pathlib import Path

import programs
import pytest
from programs import make_map, make_program, pin
from sandbox import private, sh
from things import act, look

from leftovers import syscalls
from leftovers.kinds import bpf
from leftovers.model import Object, Scope

ROOT = Path("/sys/fs/bpf")
ASKED = ("/sys/fs/bpf/cilium", "/sys/fs/bpf/tc/globals/cilium_*", "/run/cilium/bpffs")
ATTACH_XDP = 37


def make_link(name: str) -> int:
    sh("ip", "link", "add", name, "type", "veth", "peer", f"{name}p")
    return programs.link(make_program(), programs.index(name), ATTACH_XDP, 2)


def listed(*asked: str) -> dict[str, Object]:
    return look("bpf", scope=Scope(bpf=asked or ASKED))["bpf"]


def tree(top: Path = ROOT) -> list[str]:
    return sorted(str(path) for path in top.rglob("*"))


def mounted(point: Path = ROOT) -> None:
    point.mkdir(parents=True, exist_ok=True)
    sh("mount", "-t", "bpf", "bpf", str(point))


def bystanders() -> None:
    for directory in ("tc/globals", "cilium2", "admin"):
        (ROOT / directory).mkdir(parents=True)
    for path in ("tc/globals/mine", "tc/globals/xcilium_x", "cilium2/map", "admin/cilium_x"):
        pin(make_map(), ROOT / path)


def product() -> None:
    (ROOT / "cilium/devices/eth0").mkdir(parents=True)
    pin(make_map(), ROOT / "tc/globals/cilium_lxc")
    pin(make_map(bpf.PROG_ARRAY), ROOT / "tc/globals/cilium_calls_1")
    pin(make_program(), ROOT / "cilium/prog")
    pin(make_link("eth0"), ROOT / "cilium/devices/eth0/xdp")
    (ROOT / "cilium/latest").symlink_to("devices")


@private
def test_bystanders_survive() -> None:
    mounted()
    bystanders()
    before = tree()
    product()
    assert "prog/xdp" in sh("ip", "link", "show", "eth0")
    found = listed()
    assert act("bpf", found.values()) == {}
    assert tree() == before
    assert "prog/xdp" not in sh("ip", "link", "show", "eth0"), "a link's pin is what holds it"


@private
def test_facts() -> None:
    mounted()
    bystanders()
    product()
    found = listed()
    assert {key.removeprefix("/sys/fs/bpf/"): obj.facts["what"] for key, obj in found.items()} == {
        "cilium": "directory",
        "cilium/devices": "directory",
        "cilium/devices/eth0": "directory",
        "cilium/devices/eth0/xdp": "link",
        "cilium/latest": "symlink",
        "cilium/prog": "program",
        "tc/globals/cilium_calls_1": "map",
        "tc/globals/cilium_lxc": "map",
    }
    calls = found["/sys/fs/bpf/tc/globals/cilium_calls_1"].facts
    assert (calls["map_type"], calls["mount"], calls["name"]) == (bpf.PROG_ARRAY, "/sys/fs/bpf", "cilium_calls_1")
    assert calls["id"] > 0 and calls["id"] != found["/sys/fs/bpf/tc/globals/cilium_lxc"].facts["id"]


@pytest.mark.parametrize("backward", [False, True])
@private
def test_the_order(backward: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attachments end before what they need is gone; maps of programs go last."""
    mounted()
    bystanders()
    product()
    gone: list[str] = []
    real = bpf.unpin
    monkeypatch.setattr(bpf, "unpin", lambda obj: gone.append(obj.facts["path"]) or real(obj))
    assert act("bpf", sorted(listed().values(), key=lambda obj: obj.key, reverse=backward)) == {}
    assert [path.removeprefix("/sys/fs/bpf/") for path in gone] == [
        "cilium/devices/eth0/xdp",
        "cilium/prog",
        "cilium/latest",
        "tc/globals/cilium_lxc",
        "tc/globals/cilium_calls_1",
        "cilium/devices/eth0",
        "cilium/devices",
        "cilium",
    ]


@private
def test_made_anew_is_not_taken_for_the_old_one() -> None:
    mounted()
    bystanders()
    product()
    old = listed()["/sys/fs/bpf/tc/globals/cilium_lxc"]
    os.unlink(old.key)
    pin(make_map(), old.key)
    assert listed()[old.key].identity != old.identity
    assert act("bpf", [old]) == {}
    assert os.path.exists(old.key)


@private
def test_a_directory_that_holds_something_else_stays() -> None:
    mounted()
    bystanders()
    product()
    found = listed()
    pin(make_map(), ROOT / "cilium/late")
    assert act("bpf", found.values()) == {"/sys/fs/bpf/cilium": "is not empty: what is in it stays"}
    assert tree(ROOT / "cilium") == ["/sys/fs/bpf/cilium/late"]


@private
def test_one_that_vanished_hinders_nobody() -> None:
    mounted()
    bystanders()
    product()
    found = listed()
    for name in ("xdp", ""):
        path = ROOT / "cilium/devices/eth0" / name
        path.unlink() if name else path.rmdir()
    assert act("bpf", found.values()) == {}
    assert listed() == {}


@private
def test_no_mount_is_entered_and_no_symlink_followed() -> None:
    """What is mounted within a bpffs is another one, and is listed as that; a way that became a symlink is no way."""
    mounted()
    bystanders()
    product()
    (ROOT / "cilium/inner").mkdir()
    mounted(ROOT / "cilium/inner")
    pin(make_map(), ROOT / "cilium/inner/map")
    found = listed("/sys/fs/bpf/cilium")
    assert found["/sys/fs/bpf/cilium/inner/map"].facts["mount"] == "/sys/fs/bpf/cilium/inner"
    assert found["/sys/fs/bpf/cilium/prog"].facts["mount"] == "/sys/fs/bpf"
    assert "/sys/fs/bpf/cilium/inner" not in found
    outer = found["/sys/fs/bpf/cilium"]
    assert act("bpf", [outer]) == {outer.key: "is not empty: what is in it stays"}
    assert os.path.exists(ROOT / "cilium/inner/map")
    xdp = found["/sys/fs/bpf/cilium/devices/eth0/xdp"]
    os.rename(ROOT / "cilium/devices", ROOT / "admin/devices")
    (ROOT / "cilium/devices").symlink_to("/sys/fs/bpf/admin/devices")
    assert "Too many levels of symbolic links" in act("bpf", [xdp])[xdp.key]
    assert os.path.exists(ROOT / "admin/devices/eth0/xdp")


@private
def test_another_bpffs() -> None:
    mounted(Path("/run/cilium/bpffs"))
    pin(make_map(), "/run/cilium/bpffs/map")
    Path("/run/cilium/file").write_text("no bpffs")
    found = listed()
    assert list(found) == ["/run/cilium/bpffs/map"]
    assert act("bpf", found.values()) == {}
    assert listed() == {} and os.path.exists("/run/cilium/file")


@private
def test_nothing_is_looked_at_that_nobody_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    mounted()
    bystanders()
    monkeypatch.setattr(bpf, "pins", None)
    assert look("bpf")["bpf"] == {}


@private
def test_what_the_kernel_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bpf(2) (seccomp, lockdown) a pin is a name, and can go all the same."""
    mounted()
    bystanders()
    before = tree()
    product()

    def refused(path: str) -> int:
        raise OSError(1, "Operation not permitted", path)

    monkeypatch.setattr(syscalls, "bpf_obj_get", refused)
    found = listed()
    assert {obj.facts["what"] for obj in found.values()} == {"pin", "directory", "symlink"}
    assert act("bpf", found.values()) == {}
    assert tree() == before
