"""Being there when snapd removes a snap none of whose services run: one that is disabled, or stopped. No unit is
stopped then, and milliseconds later snapd deletes data through whatever is mounted there. But first it reads the snap's
description, /snap/NAME/REVISION/meta/snap.yaml, and waits for us before it gets it (fanotify(7), FAN_OPEN_PERM): seen
on 2.68 and 2.77, when the change is in its state already, and again at clear-snap (overlord/snapstate/handlers.go).

It lives only while there is such a snap. If it dies or hangs (systemd's watchdog then ends it), the kernel lets snapd
go on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from leftovers import snaps, syscalls
from leftovers.daemons import snapd
from leftovers.errors import Fault
from leftovers.host import Host

__all__ = ["tell", "unguarded", "watch"]

# How often it is looked whether there is still something to watch, and the watchdog is told, in seconds.
TURN = 60.0


def unguarded(host: Host) -> dict[str, str]:
    """By the path of its description: the snaps of products that are installed, and no guard of theirs is up. Raises
    Unreadable."""
    found = {}
    for name, snap in snapd.snaps(host).items():
        if not guarded(host, name) and snaps.product_of(name):
            for revision in snap.revisions:
                found[f"/snap/{name}/{revision}/meta/snap.yaml"] = name
    return found


def guarded(host: Host, name: str) -> bool:
    """Whether a guard of a snap's services is up. Raises Unreadable."""
    return any(snaps.snap_of(unit) == name for unit in host.listdir(snaps.GUARDS))


@dataclass
class Work:
    """A sweep that is under way: the process that does it, until when it is waited for, and who waits."""

    pidfd: int
    until: float
    waiting: list[int] = field(default_factory=list)


@dataclass
class Watch:
    """What is watched, by file, and what is being done, by snap."""

    host: Host
    fan: int
    begin: Callable[[str, str], None]
    limit: float
    marked: dict[tuple[int, int], str] = field(default_factory=dict)
    works: dict[str, Work] = field(default_factory=dict)

    def mark(self) -> bool:
        """Mark what is to be watched now. False when there is nothing. Raises Unreadable, OSError."""
        wanted = unguarded(self.host)
        for path, name in wanted.items():
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # its image is not mounted: it is going
                found = os.stat(self.host.path(path))
                syscalls.fanotify_mark(self.fan, self.host.path(path), syscalls.FAN_OPEN_PERM)
                self.marked[found.st_dev, found.st_ino] = name
        self.marked = {key: name for key, name in self.marked.items() if name in wanted.values()}
        return bool(wanted)

    def events(self) -> None:
        """Let go at once whoever is not snapd at a removal; for that one, have it begun, and let him wait."""
        with contextlib.suppress(BlockingIOError):
            for file, pid in syscalls.fanotify_read(self.fan):
                found = os.fstat(file)
                snap = self.marked.get((found.st_dev, found.st_ino), "")
                change = self.removal(snap, pid) if snap else ""
                if not change:
                    self.answer(file)
                    continue
                if snap not in self.works:
                    self.works[snap] = Work(self.start(snap, change, file), time.monotonic() + self.limit)
                self.works[snap].waiting.append(file)

    def removal(self, snap: str, pid: int) -> str:
        """The change by which snapd, if it is snapd, is removing that snap without that a guard will tell; else ""."""
        try:
            if guarded(self.host, snap):
                return ""
            if not snapd.EXE.match(os.readlink(self.host.path(f"/proc/{pid}/exe")).removesuffix(" (deleted)")):
                return ""
            change = snapd.removing(self.host, snap)
        except (OSError, Fault):
            return ""
        return change.id if change else ""

    def start(self, snap: str, change: str, file: int) -> int:
        """Begin, in a process of its own. Returns a pidfd."""
        pid = os.fork()
        if pid == 0:
            try:
                # Who holds these is asked: if the watch dies, the kernel is to answer.
                for fd in (self.fan, file, *(each for work in self.works.values() for each in work.waiting)):
                    os.close(fd)
                self.begin(snap, change)
            finally:
                os._exit(0)
        return os.pidfd_open(pid)

    def ended(self, snap: str) -> None:
        """That process is done, or has had its time: who waits for it goes on."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        work = self.works.pop(snap)
        os.close(work.pidfd)
        for file in work.waiting:
            self.answer(file)

    def answer(self, file: int) -> None:
        with contextlib.suppress(OSError):
            syscalls.fanotify_allow(self.fan, file)
        os.close(file)


def watch(host: Host, begin: Callable[[str, str], None], limit: float) -> None:
    """Call `begin(snap, change)` in a process of its own when snapd is about to remove a snap of a product that no
    guard is up for; it waits until that returns, `limit` seconds at most. SIGHUP has it look what is to be watched.
    Returns when there is no such snap (any more). Raises Unreadable; OSError when this kernel or container has no
    fanotify."""
    called, caller = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGHUP, lambda *_: None)
    signal.set_wakeup_fd(caller)
    fan = syscalls.fanotify_init()
    held = Watch(host, fan, begin, limit)
    needed = held.mark()
    tell("READY=1")  # who waits for that goes on now
    looked = time.monotonic()
    while needed or held.works:
        poll = select.poll()
        for fd in (fan, called, *(work.pidfd for work in held.works.values())):
            poll.register(fd, select.POLLIN)
        until = min([looked + TURN, *(work.until for work in held.works.values())])
        ready = {fd for fd, _ in poll.poll(max(0.0, until - time.monotonic()) * 1000)}
        if fan in ready:
            held.events()
        for snap, work in list(held.works.items()):
            if work.pidfd in ready or time.monotonic() >= work.until:
                held.ended(snap)
        if called in ready or time.monotonic() >= looked + TURN:
            with contextlib.suppress(BlockingIOError):
                os.read(called, 4096)
            tell("WATCHDOG=1")
            looked = time.monotonic()
            needed = held.mark()


def tell(text: str) -> None:
    """sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(text.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
