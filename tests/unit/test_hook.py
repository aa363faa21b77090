"""The face for package managers: what it makes of a fault, and of a lock."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from leftovers import conf, hook
from leftovers.errors import Refusal, Unreadable
from leftovers.hook import VETO, Veto, lock_is_free, main
from leftovers.host import Host
from leftovers.moments import Scene


def raising(error: Exception) -> Mapping[str, object]:
    def event(scene: Scene, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        raise error

    return {"dpkg-pre": event, "apt-question": event}


@pytest.mark.parametrize(
    "error",
    [
        Unreadable("x\n\x1b[31m", "y"),
        Refusal("x", "y\nz"),
        OSError(28, "No space left"),
        RuntimeError("a\nb"),
        KeyError(),
    ],
)
def test_a_fault_is_one_line_and_a_success(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception
) -> None:
    monkeypatch.setattr(hook, "EVENTS", raising(error))
    assert main("dpkg-pre", [], {}) == 0
    said = capfd.readouterr()
    assert said.err == "" and said.out.startswith("leftovers: nothing is cleaned: ") and said.out.count("\n") == 1
    assert "\x1b" not in said.out and "leftovers scan" in said.out
    assert main("apt-question", [], {}) == 0  # dpkg's hook will say it
    assert capfd.readouterr().out == ""


def test_a_refusal_is_one_line_and_a_status(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(hook, "EVENTS", raising(Veto("Incus", "2 instances run", "stop them")))
    assert main("dpkg-pre", [], {}) == VETO
    assert capfd.readouterr().out == "leftovers: refused: Incus: 2 instances run (stop them)\n"


def test_switched_off_it_does_nothing(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(hook, "EVENTS", raising(Veto("Incus", "2 instances run")))
    monkeypatch.setattr(conf, "read", lambda host: (conf.Settings(enabled=False), ["a warning"]))
    assert main("dpkg-pre", [], {}) == 0
    assert capfd.readouterr().out == ""


def test_a_lock_is_asked_for_and_not_taken(tmp_path: Path) -> None:
    directory = tmp_path / "var/lib/dpkg"
    directory.mkdir(parents=True)
    host = Host(str(tmp_path))
    assert lock_is_free(host)
    for name in ("lock", "lock-frontend"):
        (directory / name).touch()
    assert lock_is_free(host)
    for name in ("lock", "lock-frontend"):
        # An fcntl lock is a process': only another one sees it.
        take = f"import fcntl, sys; f = open({str(directory / name)!r}, 'r+'); fcntl.lockf(f, fcntl.LOCK_EX)"
        code = f"{take}; print(flush=True); sys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout and holder.stdout.readline() == b"\n"
            assert not lock_is_free(host)
            with open(directory / name, "r+") as file, pytest.raises(OSError):
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            holder.kill()
    assert lock_is_free(host)
    with open(directory / "lock", "r+") as file:
        assert lock_is_free(host)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody is in the way: the question took nothing
        assert os.path.exists(directory / "lock")
