"""lxcfs is for everybody: it goes only when its package is gone and nobody has it mounted any more."""

from __future__ import annotations

from typing import Any

import pytest

from leftovers.claims import Case, attribute
from leftovers.model import Claim, Evidence, Object, Presence, Role
from leftovers.products import load

LXCFS = load("lxcfs")
HOME = ["8:1", "/"]


def mount(point: str, majmin: str, fstype: str, root: str = "/") -> Object:
    where = {"majmin": majmin, "root": root, "point": point, "fstype": fstype, "source": fstype, "host": True}
    rest = {"id": 1, "parent": 0, "options": "", "shared": 1, "master": 0, "ns": 1, "pid": 0, "configured": ""}
    return Object("mount", point, (point,), {**where, **rest})


def process(pid: int, exe: str, **facts: Any) -> Object:
    known = {"pid": pid, "ppid": 1, "exe": exe, "argv": [exe], "nested": False, "cgroup": "/", "netns": 1, "mntns": 1}
    return Object("process", str(pid), (pid, 1), {**known, **facts})


SERVER = process(10, "/usr/bin/lxcfs (deleted)", argv=["lxcfs", "/var/lib/lxcfs"])


def claims(
    *processes: Object, elsewhere: dict[str, Claim] | None = None, server: tuple[Object, ...] = (SERVER,)
) -> dict[str, Claim]:
    listed = {
        "mount": (mount("/", "8:1", "ext4"), mount("/var/lib/lxcfs", "0:77", "fuse.lxcfs")),
        "process": (*server, *processes),
        "unit": (
            Object(
                "unit",
                "lxcfs.service",
                ("u",),
                {"load": "not-found", "active": "active", "sub": "running", "cgroup": ""},
            ),
        ),
        "file": (
            Object("file", "/var/lib/lxcfs", ("f",), {"type": "directory", "entries": [], "mounted": True}),
            Object("file", "/run/lxcfs.pid", ("p",), {"type": "file", "entries": [], "mounted": False}),
        ),
    }
    return attribute(Case("lxcfs", Presence.ABSENT, listed, (), elsewhere or {}), LXCFS.rules)


def user(pid: int = 20, root: list[str] | None = None) -> Object:
    return process(pid, "/init", nested=True, mount_root=root or ["8:1", "/srv/rootfs"], mount_devices=["0:77", "8:1"])


def test_it_goes_when_nobody_uses_it() -> None:
    found = claims()
    assert set(found) == {"mount:/var/lib/lxcfs", "process:10", "unit:lxcfs.service", "file:/var/lib/lxcfs"}
    assert {claim.role for claim in found.values()} == {Role.LIVE}


def test_it_stays_for_a_container_of_somebody_else() -> None:
    found = claims(user())
    assert {claim.role for claim in found.values()} == {Role.ADMIN}
    assert any("pid 20" in said.text for said in found["process:10"].evidence)


def test_where_its_server_has_ended_nobody_s_view_of_it_is_lost() -> None:
    found = claims(user(), server=())
    assert found["mount:/var/lib/lxcfs"].role is Role.LIVE and "ended" in found["mount:/var/lib/lxcfs"].reason
    assert found["file:/run/lxcfs.pid"].role is Role.LIVE


@pytest.mark.parametrize("exe", ["/usr/local/bin/lxcfs", "/opt/other/lxcfs"])
def test_a_server_of_another_path_serves_it_too(exe: str) -> None:
    found = claims(user(), server=(process(10, exe, argv=["lxcfs", "/var/lib/lxcfs"]),))
    assert found["mount:/var/lib/lxcfs"].role is Role.ADMIN and "file:/run/lxcfs.pid" not in found


def test_a_server_at_another_place_or_in_a_container_does_not_serve_it() -> None:
    others = (
        process(10, "/usr/bin/lxcfs", argv=["lxcfs", "/srv/mine"]),
        process(11, "/usr/bin/lxcfs", argv=["lxcfs", "/var/lib/lxcfs"], nested=True),
    )
    assert claims(user(), server=others)["mount:/var/lib/lxcfs"].role is Role.LIVE


def test_a_container_that_is_about_to_go_is_no_user() -> None:
    going = user()
    claim = Claim("incus", going, Role.LIVE, True, "", (Evidence("kernel", ""),))
    assert {claim.role for claim in claims(going, elsewhere={going.id: claim}).values()} == {Role.LIVE}


@pytest.mark.parametrize("exe", ["/usr/lib/systemd/systemd-logind", "/usr/sbin/named"])
def test_a_service_with_a_copy_of_the_host_s_mounts_is_no_user(exe: str) -> None:
    service = process(30, exe, mount_root=HOME, mount_devices=["0:77", "8:1"])
    assert {claim.role for claim in claims(service).values()} == {Role.LIVE}
