"""What the end of a removal makes of what dpkg says: a removal that was refused ends in nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from leftovers import moments, removal
from leftovers.clean import Report
from leftovers.conf import Settings
from leftovers.daemons import dpkg
from leftovers.host import Host
from leftovers.ledger import Ledger
from leftovers.model import Plan, Record, Scope
from leftovers.moments import Scene
from leftovers.products import load
from leftovers.removal import Going, Removal
from leftovers.survey import Survey
from leftovers.watcher import Watched


@pytest.mark.parametrize(
    ("now", "sweep", "swept", "done"),
    [
        # `dpkg -P` of a package that is only there with its configuration, and the lock was held: nothing has begun.
        ("config-files", True, False, []),
        ("config-files", False, False, []),
        ("not-installed", True, False, ["sweep"]),
        ("not-installed", False, False, ["tell"]),
        # Its own postrm failed after our commit: it is what it was, and what is left is ours to finish.
        ("config-files", True, True, ["sweep"]),
    ],
)
def test_what_dpkg_has_not_begun_is_not_finished(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, now: str, sweep: bool, swept: bool, done: Sequence[str]
) -> None:
    (tmp_path / "run").mkdir()
    host = Host(str(tmp_path))
    going = Going(("incus-base",), sweep, True, swept=swept, states={"incus-base": "config-files"})
    removal.write(host, Removal(Watched(os.getpid(), 1), {"incus": going}))
    states = {"incus-base": now} if now != "not-installed" else {}
    monkeypatch.setattr(dpkg, "status", lambda packages: states)
    did: list[str] = []
    monkeypatch.setattr(moments, "last_sweep", lambda *_: did.append("sweep"))
    monkeypatch.setattr(moments, "tell_removed", lambda *_: did.append("tell"))
    said: list[str] = []
    moments.finish(Scene(host, Ledger(host), Settings(), said.append))
    assert did == list(done) and said == []
    assert removal.read(host) is None


class Daemon:
    """Incus as `moments` sees it: who runs, who is asked, and the sweep after that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *runs: Record) -> None:
        (tmp_path / "run").mkdir()
        self.runs = runs
        self.did: list[object] = []
        self.said: list[str] = []
        self.scene = Scene(Host(str(tmp_path)), Ledger(Host(str(tmp_path))), Settings(), self.said.append)
        removal.write(self.scene.host, Removal(Watched(1, 1), {"incus": Going(("incus-base",), True, True)}))
        product = replace(load("incus"), stop=self.stop)
        monkeypatch.setattr(moments, "load", lambda name: product)
        monkeypatch.setattr(moments, "survey", self.survey)
        monkeypatch.setattr(moments, "sweep_now", self.sweep)

    def survey(self, *_: object) -> Survey:
        return Survey("boot", Scope(), {}, {}, {}, {}, {"incus": self.runs}, ())

    def stop(self, host: Host, records: Sequence[Record], deadline: object) -> dict[str, str]:
        self.did.append([record.name for record in records])
        return {}

    def sweep(self, *_: object, **__: object) -> tuple[Report, float]:
        self.did.append("sweep")
        return Report((), Plan(("incus",), ()), self.survey()), 0.0


def instance(name: str, source: str = "api", running: bool = True) -> Record:
    return Record("instance", name, source, {"running": running})


RUNS = (instance("c1"), instance("c2", running=False), instance("c3", "disk"))


def test_whom_its_own_prerm_left_running_is_asked_before_the_sweep(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    incus = Daemon(monkeypatch, tmp_path, *RUNS)
    monkeypatch.setattr(moments, "ends_them", lambda *_: True)
    moments.stop(incus.scene, "incus", Watched(1, 1))
    assert incus.did == [] and "its own package asks 2 instances" in incus.said[0]
    # c1 is up still, and the daemon answers; of c3 only a file says so.
    moments.commit(incus.scene, "incus")
    assert incus.did == [["c1"], "sweep"]
    assert "its own package left 1 instance running" in incus.said[1]


def test_when_its_own_prerm_has_done_it_nobody_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    incus = Daemon(monkeypatch, tmp_path, *RUNS)
    monkeypatch.setattr(moments, "ends_them", lambda *_: True)
    moments.stop(incus.scene, "incus", Watched(1, 1))
    incus.runs = (instance("c1", running=False), instance("c3", "disk"))
    moments.commit(incus.scene, "incus")
    assert incus.did == ["sweep"]


def test_who_was_asked_once_is_not_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    incus = Daemon(monkeypatch, tmp_path, *RUNS)
    monkeypatch.setattr(moments, "ends_them", lambda *_: False)
    moments.stop(incus.scene, "incus", Watched(1, 1))
    assert incus.did == [["c1", "c3"]]
    moments.commit(incus.scene, "incus")
    assert incus.did == [["c1", "c3"], "sweep"]
