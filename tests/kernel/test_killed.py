"""SIGKILL at every point at which a clean changes something, then `resume`: the end is always the same clean host.

A point is a call that changes the host or the ledger: a signal, an unmount, a netlink or nft request, a file that is
removed, written, renamed or flushed. They are counted in a run that is let alone; then the run is repeated and
killed at the first point, the second, and so on, each time on a host made anew.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import signal
import struct
import subprocess
from collections.abc import Callable
from typing import Any

import incus_like
import pytest
from sandbox import private
from test_clean import assert_same, settled

from leftovers import syscalls
from leftovers.cli import main

# os functions that change something. Reading and opening are no points.
CALLS = ("unlink", "rmdir", "rename", "replace", "fsync", "makedirs", "write", "ftruncate", "pwrite")


class Points:
    """Counts the points of a process and of its children, and kills them all at one of them."""

    def __init__(self, kill_at: int = -1) -> None:
        self.shared = mmap.mmap(-1, 8)
        self.kill_at = kill_at
        self.main = os.getpid()

    def reach(self) -> None:
        number = self.count()
        self.shared[:8] = struct.pack("q", number + 1)
        if number == self.kill_at:
            os.kill(self.main, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    def count(self) -> int:
        return int(struct.unpack("q", self.shared[:8])[0])

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.reach()
            return function(*args, **kwargs)

        return wrapped

    def install(self) -> None:
        """In the process that is to be killed, and in no other."""
        from pyroute2 import IPRoute

        for name in CALLS:
            setattr(os, name, self.wrap(getattr(os, name)))
        for name in ("umount2", "mount_propagation"):
            setattr(syscalls, name, self.wrap(getattr(syscalls, name)))
        signal.pidfd_send_signal = self.wrap(signal.pidfd_send_signal)
        IPRoute.link = self.wrap(IPRoute.link)
        subprocess.Popen = self.wrap(subprocess.Popen)  # type: ignore[misc, assignment]
        import nftables

        nftables.Nftables.json_cmd = self.wrap(nftables.Nftables.json_cmd)


def run(*argv: str) -> tuple[int, str]:
    """The command in this process: its status and what it said."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = main(list(argv))
    return status, out.getvalue()


def killed_clean(points: Points) -> int:
    """`leftovers clean` in a process of its own that dies where the points say. Returns how it ended."""
    child = os.fork()
    if child == 0:
        points.main = os.getpid()
        points.install()
        status, _ = run("clean", "incus", "--yes")
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def one(kill_at: int, report: mmap.mmap) -> None:
    incus_like.prepare()
    bystanders = incus_like.admin()
    before = settled()
    incus_like.incus(2)
    standing = settled()
    points = Points(kill_at)
    status = killed_clean(points)
    report[:8] = struct.pack("q", points.count())
    if kill_at < 0 or status == 0:
        # A run may be some points shorter than the one that was counted: it waits for the kernel more or less often.
        assert status == 0 and (kill_at < 0 or points.count() <= kill_at)
    else:
        assert status == -signal.SIGKILL
        resumed, said = run("resume")
        assert resumed == 0, said
        if "nothing to resume" in said:
            # Killed before the ledger had the run: then nothing had been removed either.
            if settled()["files"] == standing["files"]:
                assert_same(settled(), standing)
            assert run("clean", "incus", "--yes")[0] == 0
    assert run("verify", "incus")[0] == 0
    assert_same(settled(), before)
    assert all(process.poll() is None for process in bystanders.values())
    assert run("resume")[1].strip() == "nothing to resume"


def at(kill_at: int) -> int:
    """One host, one kill. Returns how many points were passed."""
    report = mmap.mmap(-1, 8)
    private(one)(kill_at, report)
    return int(struct.unpack("q", report[:8])[0])


def test_killed_at_points_over_the_whole_run() -> None:
    total = at(-1)
    assert total > 60, "the harness sees what is done"
    for number in range(0, total, max(1, total // 24)):
        at(number)


@pytest.mark.full
def test_killed_at_every_point() -> None:
    for number in range(at(-1)):
        at(number)
