"""Being there when a program is executed: dpkg waits while we work (fanotify(7), FAN_OPEN_EXEC_PERM).

A guard holds the marks and does nothing else; a worker, forked from it, does what takes time. The guard answers the
kernel when the worker is done, or when its time is up; when the guard dies, the kernel answers for it. So the one who
waits never waits for longer than `limit`, whatever becomes of us. Both were forked from a process that has everything
imported, and go on when Python is removed from the disk under them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from leftovers import syscalls
from leftovers.host import Host

__all__ = ["ENDED", "OVER", "Watched", "ancestors", "arm", "start_time"]

# What the worker is told besides the words of the marks: the step has ended; all is over, or somebody has asked.
ENDED = "ended"
OVER = "over"
# How long an ended process' aftermath may take, in seconds.
AFTERMATH = 600.0
# How often a guard whose step has ended looks whether it is still needed, in seconds.
PAUSE = 2.0
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
    step: Watched,
    owner: Watched,
    marks: Mapping[str, str],
    work: Callable[[str], None],
    limit: float,
    ask: str,
    needed: Callable[[], bool],
) -> bool:
    """Call `work(word)` in a process of its own whenever a descendant of `owner` executes one of the files of `marks`
    (path to word), `work("ended")` when `step` has ended, and `work("over")` when `owner` has, or when something is
    written to the FIFO `ask`; then be gone. Where there is only one process both are the same, and it is "over".

    The executing process waits until `work` returns, `limit` seconds at most. Between the end of the step and of the
    owner the watcher stays for as long as it is `needed`. Returns once the marks are set; False when this kernel or
    container has no fanotify, and then nothing is armed. Raises OSError for anything else, as for a process that is
    gone.
    """
    fds: list[int] = []
    words: dict[tuple[int, int], str] = {}
    try:
        try:
            fan = syscalls.fanotify_init()
            fds.append(fan)
            for path, word in marks.items():
                with contextlib.suppress(FileNotFoundError):  # a package need not have every script
                    found = os.stat(host.path(path))
                    syscalls.fanotify_mark(fan, host.path(path), syscalls.FAN_OPEN_EXEC_PERM)
                    words[found.st_dev, found.st_ino] = word
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.EACCES):
                return False
            raise
        for process in (step, owner):
            fds.append(os.pidfd_open(process.pid))
            if start_time(host, process.pid) != process.start:
                raise ProcessLookupError(errno.ESRCH, "the package manager has ended")
        fifo = host.path(ask)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fifo)
        os.mkfifo(fifo, 0o600)
        fds.append(os.open(fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        if os.fork() == 0:
            guard_process(Guard(host, owner, fan, fds[1], fds[2], fds[3], words, limit, needed), work)
    finally:
        for fd in fds:
            os.close(fd)
    return True


@dataclass(frozen=True, slots=True)
class Guard:
    """What a guard holds: descriptors of the marks, of the step, of the owner, of the FIFO."""

    host: Host
    owner: Watched
    fan: int
    step_fd: int
    owner_fd: int
    ask: int
    words: Mapping[tuple[int, int], str]
    limit: float
    needed: Callable[[], bool]


def guard_process(guard: Guard, work: Callable[[str], None]) -> None:
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
            for fd in (guard.fan, guard.step_fd, guard.owner_fd, guard.ask):
                os.close(fd)
            ours.close()
            worker_process(theirs, work)
        theirs.close()
        watch(guard, ours)
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


def watch(guard: Guard, worker: socket.socket) -> None:
    """Hold the marks until it is all over."""
    waiting: int | None = None  # the file whose executor waits for the worker
    until = 0.0
    ended = over = False
    sent = done = 0  # an answer that comes after its time was up is not one to the next order
    poll = select.poll()
    for fd in (guard.fan, guard.step_fd, guard.owner_fd, guard.ask, worker.fileno()):
        poll.register(fd, select.POLLIN)

    def order(word: str) -> None:
        nonlocal sent
        worker.send(word.encode())
        sent += 1

    while True:
        patience = None
        if waiting is not None or over:
            patience = max(0.0, until - time.monotonic())
        elif ended:
            patience = PAUSE
        ready = {fd for fd, _ in poll.poll(None if patience is None else patience * 1000)}
        if worker.fileno() in ready:
            if not worker.recv(256):
                return  # the worker died: the kernel lets go who waits
            done += 1
        if waiting is not None and (done == sent or time.monotonic() >= until):
            answer(guard.fan, waiting)
            waiting = None
        elif over:
            if done == sent or time.monotonic() >= until:
                return
        elif ended and done == sent and not guard.needed():
            return
        if guard.fan in ready:
            with contextlib.suppress(BlockingIOError):
                for file, pid in syscalls.fanotify_read(guard.fan):
                    found = os.fstat(file)
                    word = guard.words.get((found.st_dev, found.st_ino), "")
                    if waiting is None and word and guard.owner in ancestors(guard.host, pid):
                        waiting, until = file, time.monotonic() + guard.limit
                        order(word)
                    else:
                        answer(guard.fan, file)
        if guard.ask in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(guard.ask, 4096)
            order(OVER)
        if guard.step_fd in ready and not ended:
            # What the worker is doing for one who waited no more is done first.
            ended = True
            poll.unregister(guard.step_fd)
            if waiting is not None:
                answer(guard.fan, waiting)
                waiting = None
            order(ENDED)
        if guard.owner_fd in ready and not over:
            over, until = True, time.monotonic() + AFTERMATH + guard.limit
            poll.unregister(guard.owner_fd)
            order(OVER)


def answer(fan: int, file: int) -> None:
    with contextlib.suppress(OSError):
        syscalls.fanotify_allow(fan, file)
    os.close(file)
