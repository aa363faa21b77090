"""Whoever is snapd, at the removal of a snap that no guard is up for, waits for us when he reads its description. Real
fanotify, processes and files; the files of snapd and of the snap are made by hand, below a root of their own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from leftovers import snapwatch
from leftovers.daemons import snapd
from leftovers.host import Host

REMOVAL: dict[str, Any] = {
    "changes": {"7": {"kind": "remove-snap", "data": {"snap-names": ["microk8s"]}, "task-ids": ["1"]}},
    "tasks": {"1": {"kind": "run-hook", "status": 3}},
}
INSTALLED = {"microk8s": {"active": False, "current": "x1"}, "other": {"active": True, "current": "x1"}}


class Snapd:
    """The root of a host, a program that is taken for snapd, and a watch in a process of its own."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.host, self.watch = root, Host(str(root)), 0
        for path in ("snap/microk8s/x1/meta", "snap/other/x1/meta", "var/lib/snapd", "run/leftovers/guards", "bin"):
            (root / path).mkdir(parents=True)
        (root / "proc").symlink_to("/proc")
        self.description = root / "snap/microk8s/x1/meta/snap.yaml"
        for path in (self.description, root / "snap/other/x1/meta/snap.yaml"):
            path.write_text("name: x\n")
        self.program = root / "bin/snapd"
        shutil.copy(os.path.realpath("/bin/cat"), self.program)
        patch.setattr(snapd, "EXE", re.compile(re.escape(str(self.program)) + r"\Z"))
        self.says({})

    def says(self, state: dict[str, Any], installed: dict[str, Any] = INSTALLED) -> None:
        new = self.root / "var/lib/snapd/state.json.new"
        new.write_text(json.dumps({"data": {"snaps": installed}, **state}))
        new.rename(self.root / "var/lib/snapd/state.json")

    def watched(self, begin: Callable[[str, str], None], limit: float = 20.0) -> None:
        ready, told = os.pipe()
        self.watch = os.fork()
        if self.watch == 0:
            snapwatch.tell = lambda text: os.write(told, text.encode())  # type: ignore[assignment]
            with contextlib.suppress(BaseException):
                snapwatch.watch(self.host, begin, limit)
            os._exit(0)
        os.close(told)
        assert os.read(ready, 7) == b"READY=1"
        os.close(ready)

    def note(self, seconds: float = 0.0) -> Callable[[str, str], None]:
        def write(snap: str, change: str) -> None:
            time.sleep(seconds)
            with open(self.root / "log", "a") as log:
                log.write(f"{snap} {change}\n")

        return write

    def log(self) -> str:
        path = self.root / "log"
        return path.read_text() if path.exists() else ""

    def read(self, program: str = "", path: Path | None = None) -> float:
        """Reads the description. Returns how long that took, in seconds."""
        began = time.monotonic()
        subprocess.run([program or self.program, path or self.description], stdout=subprocess.DEVNULL, check=True)
        return time.monotonic() - began

    def ended(self, seconds: float = 10.0) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if os.waitpid(self.watch, os.WNOHANG)[0]:
                self.watch = 0
                return True
            time.sleep(0.01)
        return False


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Snapd]:
    one = Snapd(tmp_path, monkeypatch)
    yield one
    if one.watch:
        os.kill(one.watch, signal.SIGKILL)
        os.waitpid(one.watch, 0)


def test_snapd_waits_while_it_removes(made: Snapd) -> None:
    made.watched(made.note(0.5))
    made.says(REMOVAL)
    made.read()
    assert made.log() == "microk8s 7\n", "it was done before snapd had its answer"
    made.read()
    assert made.log() == "microk8s 7\n" * 2, "who is asked again knows what he has done"


@pytest.mark.parametrize("what", ["another reader", "no removal", "another snap's", "one revision", "taken back"])
def test_others_do_not_wait(made: Snapd, what: str) -> None:
    made.watched(made.note())
    task = REMOVAL["tasks"]["1"]
    change = REMOVAL["changes"]["7"]
    states: dict[str, Any] = {
        "no removal": {"changes": {"7": {**change, "kind": "refresh-snap"}}, "tasks": REMOVAL["tasks"]},
        "another snap's": {"changes": {"7": {**change, "data": {"snap-names": ["other"]}}}, "tasks": REMOVAL["tasks"]},
        "one revision": {**REMOVAL, "tasks": {"1": {**task, "kind": "clear-snap"}}},
        "taken back": {**REMOVAL, "tasks": {"1": {**task, "status": 6}}},
    }
    made.says(states.get(what, REMOVAL))
    made.read("/bin/cat" if what == "another reader" else "")
    assert made.log() == ""
    made.says(REMOVAL)
    made.read()
    assert made.log() == "microk8s 7\n", "and it is still there"


def test_others_do_not_wait_while_it_works(made: Snapd) -> None:
    made.watched(made.note(30))
    made.says(REMOVAL)
    waiting = subprocess.Popen([made.program, made.description], stdout=subprocess.DEVNULL)
    time.sleep(0.3)
    made.read("/bin/cat")
    assert waiting.poll() is None, "snapd waits, and nobody else"
    os.kill(made.watch, signal.SIGKILL)
    assert waiting.wait(10) == 0, "the kernel answers for the dead"


def test_snapd_waits_for_so_long_and_not_longer(made: Snapd) -> None:
    made.watched(made.note(60), limit=0.5)
    made.says(REMOVAL)
    assert 0.4 < made.read() < 20
    assert made.log() == ""


def test_a_guard_that_is_up_tells_it(made: Snapd) -> None:
    made.watched(made.note())
    (made.root / "run/leftovers/guards/snap.microk8s.daemon-containerd.service").touch()
    made.says(REMOVAL)
    made.read()
    assert made.log() == ""


def test_it_ends_when_there_is_nothing_to_watch(made: Snapd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapwatch, "TURN", 0.1)
    made.watched(made.note())
    time.sleep(0.3)
    assert os.waitpid(made.watch, os.WNOHANG)[0] == 0, "there is still one"
    made.says({}, {"other": INSTALLED["other"]})
    assert made.ended()
    made.watched(made.note())
    assert made.ended(), "at once"


def test_a_state_that_cannot_be_read_ends_it(made: Snapd) -> None:
    """Nobody may wait for one who does not know what is going on."""
    made.watched(made.note())
    (made.root / "var/lib/snapd/state.json").write_text("{")
    made.read()
    assert made.log() == ""


def test_one_that_comes_later_is_watched_too(made: Snapd) -> None:
    """Another snap of a product loses its guard while the watch is there: it is told to look again."""
    (made.root / "snap/lxd/x1/meta").mkdir(parents=True)
    path = made.root / "snap/lxd/x1/meta/snap.yaml"
    path.write_text("name: lxd\n")
    made.watched(made.note(1.0))
    both = {**INSTALLED, "lxd": {"active": True, "current": "x1"}}
    made.says({}, both)
    os.kill(made.watch, signal.SIGHUP)
    time.sleep(0.3)
    change = {"kind": "remove-snap", "data": {"snap-names": ["lxd"]}, "task-ids": ["1"]}
    made.says({**REMOVAL, "changes": {**REMOVAL["changes"], "8": change}}, both)
    # Both at once: each waits for its own.
    first = subprocess.Popen([made.program, made.description], stdout=subprocess.DEVNULL)
    time.sleep(0.3)
    assert made.read(path=path) < 2.5
    assert first.wait(10) == 0
    assert sorted(made.log().splitlines()) == ["lxd 8", "microk8s 7"]
