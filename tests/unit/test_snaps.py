"""What has become of a snap, as far as it can be decided without one."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leftovers import moments, removal, snaps
from leftovers.conf import Settings
from leftovers.daemons import snapd
from leftovers.host import Host
from leftovers.ledger import Ledger, Stopped
from leftovers.model import Presence
from leftovers.moments import Scene
from leftovers.removal import Going
from leftovers.watcher import Watched

REMOVED = {"kind": "remove-snap", "data": {"snap-names": ["microk8s"]}, "task-ids": ["1"], "ready-time": "2026-11-21"}
GOING = Going(("7",), True, False)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def scene(tmp_path: Path, told: list[str]) -> Scene:
    (tmp_path / "usr/lib/snapd").mkdir(parents=True)
    (tmp_path / "usr/lib/snapd/snapd").touch()
    (tmp_path / "var/lib/snapd").mkdir(parents=True)
    host = Host(str(tmp_path))
    made = Scene(host, Ledger(host), Settings(), told.append)
    with made.ledger.locked():
        made.ledger.remember_snaps(["microk8s"])
    return made


def says(scene: Scene, installed: dict[str, Any], change: dict[str, Any] | None = None, status: int = 4) -> None:
    state = {
        "data": {"snaps": installed},
        "changes": {"7": change} if change else {},
        "tasks": {"1": {"kind": "run-hook", "status": status}},
    }
    Path(scene.host.path(snapd.STATE)).write_text(json.dumps(state))


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(moments, "last_sweep", lambda scene, going, names, hindered: found.extend(names))
    return found


def test_a_snap_that_was_removed(scene: Scene, swept: list[str]) -> None:
    """A guard has seen it; or snapd still knows of it, though the host was booted since."""
    says(scene, {})
    removal.write_snap(scene.host, "microk8s", GOING)
    snaps.settle(scene)
    assert swept == ["microk8s"]
    assert scene.ledger.snaps() == frozenset() and removal.read_snap(scene.host, "microk8s") is None
    with scene.ledger.locked():
        scene.ledger.remember_snaps(["microk8s"])
    says(scene, {}, REMOVED)
    snaps.settle(scene)
    assert swept == ["microk8s"] * 2


@pytest.mark.parametrize("why", ["nothing tells", "it failed", "no state", "no snaps in it"])
def test_a_snap_that_is_not_to_be_seen(scene: Scene, swept: list[str], told: list[str], why: str) -> None:
    """Its disk may be missing: nothing of it is touched."""
    if why == "it failed":
        says(scene, {}, REMOVED, 9)
    elif why == "no snaps in it":
        Path(scene.host.path(snapd.STATE)).write_text("{}")
    elif why == "nothing tells":
        says(scene, {})
    with contextlib.suppress(snapd.Unreadable):
        snaps.settle(scene)
    assert swept == []
    if why in ("nothing tells", "it failed"):
        assert told == ["MicroK8s: snapd has no microk8s any more, and nothing tells why: leftovers scan microk8s"]
        snaps.settle(scene)
        assert len(told) == 1, "once"
    else:
        assert scene.ledger.snaps() == {"microk8s"}, "it may come back"


def test_installed_again_while_it_is_swept(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    hindered: list[str] = []

    def last_sweep(scene: Scene, going: object, names: list[str], asked: Any) -> None:
        hindered.append(asked())
        says(scene, {}, {**REMOVED, "kind": "install-snap", "ready-time": ""})
        hindered.append(asked())
        says(scene, {"microk8s": {"active": True, "current": "x1"}})
        hindered.append(asked())

    monkeypatch.setattr(moments, "last_sweep", last_sweep)
    says(scene, {}, REMOVED)
    snaps.settle(scene)
    assert hindered == ["", "snapd is at microk8s again", "microk8s is installed"]
    assert scene.ledger.snaps() == {"microk8s"}


def test_one_that_snapd_took_back(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its instances are started again at once, though snapd, whose removal it was, lives on."""
    monkeypatch.setattr(moments, "presence_of", lambda *_: (Presence.INSTALLED, "snapd has it"))
    owners: list[Watched | None] = []
    monkeypatch.setattr(moments, "start_again", lambda scene, name, owner: owners.append(owner) or 0)
    with scene.ledger.locked():
        stopped = Stopped(("c1",), "now", "boot", (117, 5))
        scene.ledger.write(replace(scene.ledger.memory("microk8s"), stopped=stopped))
    removal.write_snap(scene.host, "microk8s", GOING)
    says(scene, {"microk8s": {"active": True, "current": "x1"}}, REMOVED, 9)
    snaps.settle(scene)
    assert owners == [Watched(117, 5)]
    assert removal.read_snap(scene.host, "microk8s") is None


def test_who_is_at_work_is_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another snap's instances are being asked, or a person cleans: nobody comes after a guard."""
    waited: list[float] = []

    @contextlib.contextmanager
    def locked(self: Ledger, wait: float = 0.0) -> Iterator[None]:
        waited.append(wait)
        yield

    monkeypatch.setattr(Ledger, "locked", locked)
    monkeypatch.setattr(snaps, "later", lambda: None)
    forecast = moments.Forecast(1, 1, (), None)  # type: ignore[arg-type]
    monkeypatch.setattr(moments, "record", lambda scene, name: waited.append(scene.patience) or forecast)
    monkeypatch.setattr(moments, "stop", lambda scene, *_: waited.append(scene.patience))

    def sweep_now(scene: Scene, *_: object, **__: object) -> Any:
        waited.append(scene.patience)
        raise snapd.Unreadable("it", "ends here")

    monkeypatch.setattr(moments, "sweep_now", sweep_now)
    with pytest.raises(snapd.Unreadable):
        snaps.begin(scene, "microk8s", "7", limit=600)
    assert waited == [600] * 4


@pytest.mark.parametrize(
    ("unit", "snap"),
    [
        ("snap.microk8s.daemon-containerd.service", "microk8s"),
        ("snap.lxd.daemon.service", "lxd"),
        ("snap.microk8s_two.daemon-containerd.service", ""),
        ("snap.microk8s.daemon-containerd.socket", ""),
        ("docker.service", ""),
        ("snap.a.b.service\n", ""),
    ],
)
def test_whose_service_it_is(unit: str, snap: str) -> None:
    assert snaps.snap_of(unit) == snap
