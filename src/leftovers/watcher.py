"""Being there when a program is executed: dpkg waits while we work (fanotify(7), FAN_OPEN_EXEC_PERM).

A guard holds the marks and does nothing else; a worker, forked from it, does what takes time. The guard answers the
kernel when the worker is done, or when its time is up; when the guard dies, the kernel answers for it. So the one who
waits never waits for longer than `limit`, whatever becomes of us. Both were forked from a process that has everything
imported, and go on when Python is removed from the disk under them.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from leftovers import syscalls
from leftovers.host import Host

__all__ = ["Watched", "ancestors", "arm", "start_time"]

# Told to the worker when the watched process has ended.
ENDED = "ended"
# How long an ended process' aftermath may take, in seconds.
AFTERMATH = 600.0
# How far up a process' ancestry is looked for another one.
GENERATIONS = 32


@dataclass(frozen=True, slots=True)
class Watched:
    """A process by number and start time (clock ticks since boot: proc(5), stat, field 22)."""

    pid: int
    start: int


def start_time(host: Host, pid: int) -> int:
    """When a process started; 0 when there is none."""
    return stat(host, pid)[1]


def ancestors(host: Host, pid: int) -> list[Watched]:
    """A process and its parents, nearest first, as far as they can be seen."""
    found: list[Watched] = []
    while pid > 0 and len(found) < GENERATIONS:
        parent, start = stat(host, pid)
        if not start:
            break
        found.append(Watched(pid, start))
        pid = parent
    return found


def stat(host: Host, pid: int) -> tuple[int, int]:
    """Parent and start time of a process."""
    try:
        fields = host.read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return int(fields[1]), int(fields[19])
    except (OSError, ValueError, IndexError):
        return 0, 0


def arm(
    host: Host,
    watched: Watched,
    marks: Mapping[str, str],
    work: Callable[[str], None],
    limit: float,
) -> bool:
    """Call `work(word)` in a process of its own whenever the watched process or a child of it executes one of the
    files of `marks` (path to word), and `work("ended")` when it has ended; then be gone.

    The executing process waits until `work` returns, `limit` seconds at most. Returns once the marks are set;
    False when this kernel or container has no fanotify, or the process is gone, and then nothing is armed.
    """
    try:
        fan = syscalls.fanotify_init()
    except OSError:
        return False
    try:
        pidfd = os.pidfd_open(watched.pid)
    except OSError:
        os.close(fan)
        return False
    try:
        words: dict[tuple[int, int], str] = {}
        for path, word in marks.items():
            try:
                found = os.stat(host.path(path))
                syscalls.fanotify_exec_mark(fan, host.path(path))
                words[found.st_dev, found.st_ino] = word
            except FileNotFoundError:
                continue  # a package need not have every script
            except OSError:
                return False
        if start_time(host, watched.pid) != watched.start:
            return False
        if os.fork() == 0:
            guard_process(host, watched, fan, pidfd, words, work, limit)
    finally:
        os.close(fan)
        os.close(pidfd)
    return True


def guard_process(
    host: Host,
    watched: Watched,
    fan: int,
    pidfd: int,
    words: Mapping[tuple[int, int], str],
    work: Callable[[str], None],
    limit: float,
) -> None:
    """The guard's life, in the child of a fork. Never returns."""
    try:
        os.setsid()  # Ctrl-C and a terminal that goes away are for the package manager to answer
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.chdir("/")
        for fd in (0, 2):  # stdout stays: while dpkg waits, a person is told for what
            os.dup2(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), fd)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            os.close(fan)
            os.close(pidfd)
            ours.close()
            worker_process(theirs, work)
        theirs.close()
        guard(host, watched, fan, pidfd, words, ours, limit)
    finally:
        os._exit(0)


def worker_process(orders: socket.socket, work: Callable[[str], None]) -> None:
    """Do what the guard says, one thing after the other; end when it ends. Never returns."""
    try:
        while word := orders.recv(256):
            with contextlib.suppress(Exception):
                work(word.decode())
            orders.send(b"done")
    finally:
        os._exit(0)


def guard(
    host: Host,
    watched: Watched,
    fan: int,
    pidfd: int,
    words: Mapping[tuple[int, int], str],
    worker: socket.socket,
    limit: float,
) -> None:
    """Hold the marks until the watched process ends, and its aftermath is over."""
    waiting: int | None = None  # the file whose executor waits for the worker
    until = 0.0
    ended = False
    sent = done = 0  # an answer that comes after its time was up is not one to the next order
    poll = select.poll()
    for fd in (fan, pidfd, worker.fileno()):
        poll.register(fd, select.POLLIN)
    while True:
        patience = max(0.0, until - time.monotonic()) * 1000 if waiting is not None or ended else None
        ready = {fd for fd, _ in poll.poll(patience)}
        if worker.fileno() in ready:
            if not worker.recv(256):
                return  # the worker died: the kernel lets go who waits
            done += 1
        if waiting is not None and (done == sent or time.monotonic() >= until):
            answer(fan, waiting)
            waiting = None
        elif ended and (done == sent or time.monotonic() >= until):
            return
        if fan in ready:
            with contextlib.suppress(BlockingIOError):
                for file, pid in syscalls.fanotify_read(fan):
                    found = os.fstat(file)
                    word = words.get((found.st_dev, found.st_ino), "")
                    if waiting is None and word and watched in ancestors(host, pid):
                        waiting, until = file, time.monotonic() + limit
                        worker.send(word.encode())
                        sent += 1
                    else:
                        answer(fan, file)
        if pidfd in ready and not ended:
            # What the worker is doing for one who waited no more is done first.
            ended, until = True, time.monotonic() + AFTERMATH
            if waiting is not None:
                answer(fan, waiting)
                waiting = None
                until += limit
            poll.unregister(pidfd)
            worker.send(ENDED.encode())
            sent += 1


def answer(fan: int, file: int) -> None:
    with contextlib.suppress(OSError):
        syscalls.fanotify_allow(fan, file)
    os.close(file)
