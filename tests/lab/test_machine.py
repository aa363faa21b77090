"""The lab's hosts: they are separate from the machine and from each other, and nothing of them stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.machine import LabError, Machine, cgroup_root, mirror

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://security.example.org/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://disabled.example.org/debian
Suites: bookworm
Components: main

Types: deb
# where it was once
URIs: http://mirror.example.org/debian
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
ONE_LINE = """\
# deb http://comment.example.org/debian bookworm main
deb-src http://source.example.org/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] https://other.example.org/linux/debian-like bookworm stable
deb [arch=amd64] http://line.example.org/debian/ bookworm main contrib  # ours
"""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("sources.list", ONE_LINE, "http://line.example.org/debian/"),
        ("sources.list.d/debian.sources", DEB822, "http://mirror.example.org/debian"),
        ("sources.list.d/a.list", ONE_LINE, "http://line.example.org/debian/"),
    ],
)
def test_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, expected: str) -> None:
    monkeypatch.delenv("LEFTOVERS_LAB_MIRROR", raising=False)
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / name).write_text(text)
    assert mirror(tmp_path) == expected


def test_no_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEFTOVERS_LAB_MIRROR", raising=False)
    with pytest.raises(LabError, match="LEFTOVERS_LAB_MIRROR"):
        mirror(tmp_path)


def test_commands(shared: Machine) -> None:
    done = shared.run("echo out; echo err >&2; exit 3", check=False)
    assert (done.out, done.err, done.code) == ("out\n", "err\n", 3)
    with pytest.raises(LabError, match="exit code 3"):
        shared.run("exit 3")
    assert shared.run(["cat"], input="given").out == "given"
    # a daemon that keeps the output open is not waited for
    began = time.monotonic()
    assert shared.run("sleep 60 & echo started").out == "started\n"
    assert time.monotonic() - began < 5
    with pytest.raises(LabError, match="still running after 0.3 s"):
        shared.run("echo so far; sleep 60", timeout=0.3)


def test_files(shared: Machine, tmp_path: Path) -> None:
    shared.write("/srv/new dir/a", "text\n")
    assert shared.read("/srv/new dir/a") == "text\n"
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/file").write_bytes(b"\0\1")
    shared.put(tmp_path / "tree", "/srv/tree")
    shared.put(tmp_path / "tree/sub/file", "/srv/one")
    assert shared.run("sha256sum </srv/one").out == shared.run("sha256sum </srv/tree/sub/file").out
    assert shared.run("stat -c %u:%g:%s /srv/one").out == "0:0:2\n"


def test_spawn(shared: Machine) -> None:
    process = shared.spawn(["sleep", "12345"])
    assert shared.run(["ps", "-o", "args=", "-p", str(process.pid)]).out == "sleep 12345\n"
    shared.run(["kill", str(process.pid)])
    process.outer.wait(5)


def test_is_separate() -> None:
    links, mounts = subprocess.check_output(["ip", "-br", "link"]), Path("/proc/self/mountinfo").read_text()
    with Machine() as one, Machine() as two:
        one.run("ip link add only1 type bridge; mount -t tmpfs t /mnt; nft add table inet only1")
        assert "only1" not in two.run("ip -br link; nft list tables").out
        assert subprocess.check_output(["ip", "-br", "link"]) == links
        assert Path("/proc/self/mountinfo").read_text() == mounts
        assert one.run("systemctl is-system-running").out == two.run("systemctl is-system-running").out == "running\n"
        directories = [one.directory, two.directory]
    assert not any(d.exists() or (cgroup_root() / d.name).exists() for d in directories)


@pytest.mark.full
def test_takes_its_loop_devices_along() -> None:
    listed = "losetup -n -O NAME,BACK-INO"
    before = subprocess.check_output(listed.split())
    with Machine(loop=True) as m:
        m.run("truncate -s 1M /srv/disk.img; losetup -f /srv/disk.img")
        assert subprocess.check_output(listed.split()) != before
    assert subprocess.check_output(listed.split()) == before


def test_does_not_enter_a_dead_host() -> None:
    with Machine() as m:
        os.kill(m.nspawn.pid, signal.SIGTERM)
        m.nspawn.wait(10)
        with pytest.raises(LabError, match="not running"):
            m.run("true")
        m.init = 1
        with pytest.raises(LabError, match="not running"):
            m.run("true")
        m.init = os.getpid()
        with pytest.raises(LabError, match="not running"):
            m.run("true")


def test_dies_with_its_tests() -> None:
    """A killed test run leaves no host behind, and the next one removes its directory."""
    program = (
        "import sys, time\nfrom lab.machine import Machine\n"
        "with Machine() as m:\n    print(m.nspawn.pid, m.init, m.directory, flush=True)\n    time.sleep(60)\n"
    )
    path = f"{Path(__file__).parents[1]}"
    run = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert run.stdout is not None
    nspawn, init, directory = run.stdout.readline().split()
    run.kill()
    run.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in (nspawn, init)):
        assert time.monotonic() < deadline, "the host outlived its tests"
        time.sleep(0.1)
    os.utime(directory, (0, 0))  # as if it were older than the reaper's patience
    with Machine():
        assert not Path(directory).exists()
