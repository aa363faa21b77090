"""Whoever executes a marked file waits for us, as long as we let it and never longer. Real fanotify, processes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from leftovers import watcher
from leftovers.host import Host
from leftovers.watcher import Watched, ancestors, arm, start_time

HOST = Host()


class Manager:
    """Stands for dpkg: runs a marked script when it is told to, notes when, and ends when it is told to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("prerm", "postrm"):
            script = directory / f"p.{name}"
            script.write_text(f'#!/bin/sh\necho "{name}" >>{directory}/log\n')
            script.chmod(0o755)
        self.process = subprocess.Popen(["sh"], stdin=subprocess.PIPE, text=True, bufsize=1, start_new_session=True)
        self.watched = Watched(self.process.pid, start_time(HOST, self.process.pid))

    def say(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")

    def execute(self, name: str) -> None:
        self.say(f"{self.directory}/p.{name}")

    def log(self) -> list[str]:
        path = self.directory / "log"
        return path.read_text().split() if path.exists() else []

    def wait_for(self, *lines: str, seconds: float = 5.0) -> None:
        until = time.monotonic() + seconds
        while self.log() != list(lines):
            assert time.monotonic() < until, f"{self.log()} is not {list(lines)}"
            time.sleep(0.01)

    def arm(self, work: Callable[[str], None], limit: float = 5.0, owner: Watched | None = None) -> bool:
        marks = {f"{self.directory}/p.{name}": name for name in ("prerm", "postrm", "absent")}
        needed = (self.directory / "needed").exists
        return arm(HOST, self.watched, owner or self.watched, marks, work, limit, f"{self.directory}/ask", needed)

    def work(self, seconds: float = 0.0) -> Callable[[str], None]:
        def write(word: str) -> None:
            time.sleep(seconds)
            with open(self.directory / "log", "a") as log:
                log.write(f"[{word}]\n")

        return write


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()
    made.process.stdin and made.process.stdin.close()


def test_work_comes_before_what_is_executed(manager: Manager) -> None:
    assert manager.arm(manager.work(0.2))
    manager.execute("prerm")
    manager.wait_for("[prerm]", "prerm")
    manager.execute("postrm")
    manager.wait_for("[prerm]", "prerm", "[postrm]", "postrm")
    manager.say("exit")
    manager.process.wait()
    manager.wait_for("[prerm]", "prerm", "[postrm]", "postrm", "[ended]", "[over]")


def test_nobody_else_is_held(manager: Manager) -> None:
    """An administrator who runs the same script, and whoever only reads it."""
    assert manager.arm(manager.work(60), limit=60)
    began = time.monotonic()
    subprocess.run([f"{manager.directory}/p.prerm"], check=True)
    manager.say(f"cat {manager.directory}/p.prerm >/dev/null; echo read >>{manager.directory}/log")
    manager.wait_for("prerm", "read")
    manager.execute("postrm")  # this one waits, and meanwhile the bystander does not
    time.sleep(0.1)
    subprocess.run([f"{manager.directory}/p.prerm"], check=True)
    assert manager.log() == ["prerm", "read", "prerm"]
    assert time.monotonic() - began < 5


def test_a_limit_is_a_limit(manager: Manager) -> None:
    assert manager.arm(manager.work(1.0), limit=0.2)
    began = time.monotonic()
    manager.execute("prerm")
    manager.wait_for("prerm", seconds=0.9)
    assert time.monotonic() - began > 0.15
    # What comes late is not taken for the end of what comes next.
    manager.execute("postrm")
    manager.wait_for("prerm", "postrm", seconds=0.9)
    manager.wait_for("prerm", "postrm", "[prerm]", "[postrm]")


def children(pid: int) -> list[int]:
    """The processes of the watcher: it was forked by us, and its worker by it."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and watcher.stat(HOST, int(name))[0] == pid:
            found += [int(name), *children(int(name))]
    return found


@pytest.mark.parametrize("which", ["guard", "worker", "both"])
def test_killed_it_holds_nobody(manager: Manager, which: str) -> None:
    earlier = set(children(os.getpid()))
    assert manager.arm(manager.work(60), limit=60)
    until = time.monotonic() + 5
    while len(new := [pid for pid in children(os.getpid()) if pid not in earlier]) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    guard, worker = new
    manager.execute("prerm")
    time.sleep(0.2)
    assert manager.log() == []
    for pid in {"guard": [guard], "worker": [worker], "both": [guard, worker]}[which]:
        os.kill(pid, signal.SIGKILL)
    manager.wait_for("prerm")
    if which == "guard":
        os.kill(worker, signal.SIGKILL)


def test_work_that_fails_holds_nobody_and_is_no_end(manager: Manager) -> None:
    def work(word: str) -> None:
        if word == "prerm":
            raise OSError("no")
        manager.work()(word)

    assert manager.arm(work)
    manager.execute("prerm")
    manager.wait_for("prerm")
    manager.execute("postrm")
    manager.wait_for("prerm", "[postrm]", "postrm")


def test_the_aftermath_waits_for_what_is_under_way(manager: Manager) -> None:
    """Ctrl-C: the one who waited is dead, and so is the manager; the work is finished before the aftermath."""
    assert manager.arm(manager.work(0.5))
    manager.execute("prerm")
    time.sleep(0.1)
    os.killpg(manager.process.pid, signal.SIGKILL)
    manager.process.wait()
    manager.wait_for("[prerm]", "[ended]", "[over]")


def test_another_process_of_that_number_is_not_watched(manager: Manager) -> None:
    for other in (Watched(manager.watched.pid, manager.watched.start + 1), Watched(2**22 + 1, 1)):
        with pytest.raises(OSError):
            manager.arm(manager.work(), owner=other)
    manager.execute("prerm")
    manager.wait_for("prerm")


def test_between_the_step_and_the_end_of_its_owner(manager: Manager) -> None:
    """apt runs dpkg twice: the watcher that was armed for the first is there for the second as long as it is needed."""
    (manager.directory / "needed").touch()
    with subprocess.Popen(["sleep", "60"]) as step:
        marks = {f"{manager.directory}/p.postrm": "postrm"}
        needed = (manager.directory / "needed").exists
        ask = f"{manager.directory}/ask"
        first = Watched(step.pid, start_time(HOST, step.pid))
        assert arm(HOST, first, manager.watched, marks, manager.work(), 5.0, ask, needed)
        step.kill()
    manager.wait_for("[ended]")
    time.sleep(watcher.PAUSE + 0.5)
    manager.execute("postrm")
    manager.wait_for("[ended]", "[postrm]", "postrm")
    # Asked, by a hook that has no Python any more.
    subprocess.run(["timeout", "2", "sh", "-c", f"echo over >{ask}"], check=True)
    manager.wait_for("[ended]", "[postrm]", "postrm", "[over]")
    (manager.directory / "needed").unlink()
    time.sleep(watcher.PAUSE + 0.5)
    manager.execute("postrm")
    manager.wait_for("[ended]", "[postrm]", "postrm", "[over]", "postrm")
    assert subprocess.run(["timeout", "1", "sh", "-c", f"echo over >{ask}"], check=False).returncode == 124


def test_without_fanotify_nothing_is_armed(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> int:
        raise PermissionError(1, "fanotify_init")

    monkeypatch.setattr(watcher.syscalls, "fanotify_init", refused)
    assert not manager.arm(manager.work())


def test_ancestors_are_told_by_number_and_start() -> None:
    found = ancestors(HOST, os.getpid())
    assert found[0] == Watched(os.getpid(), start_time(HOST, os.getpid()))
    assert found[1].pid == os.getppid() and found[-1].pid == 1
    assert ancestors(HOST, 2**22 + 1) == []
