"""A snap's own remove hook, where the publisher has put our code into the snap (docs/publishers.md).

snapd runs it after it has stopped the services and before it saves and deletes the data; it waits ten minutes, ignores
how it ended, and keeps what it said only if it failed (overlord/hookstate/hooks.go, hookmgr.go). A classic snap's hook
is in the host's namespaces. A strict one's has a mount namespace of its own: it goes over to the host's where it may.
What belongs to nobody once the snap is gone (its symlinks in /etc and /var/lib, its logs) goes after that, by a child
that waits for it. Where our package is on the host, all of this is left to that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from leftovers import moments, report, run, snaps, syscalls
from leftovers.daemons import journal, snapd
from leftovers.errors import Fault, Refusal, ToolFault, Unreadable
from leftovers.host import Host
from leftovers.kinds.files import Tree
from leftovers.kinds.processes import namespace
from leftovers.ledger import DIRECTORY, Ledger
from leftovers.model import Action, Deadline, Result
from leftovers.moments import Scene
from leftovers.plan import UNPURGED
from leftovers.products import load

__all__ = ["removed"]

# snapd kills a hook after ten minutes. What all that we do may take, in seconds, and when the kernel ends us.
LIMIT, END = 540.0, 580
# What the last look and the report may take of it.
RESERVE = 60.0
# How long the child waits until snapd has removed the snap: it may have much to save, and to delete.
PATIENCE = 3600.0
# Where a confined snap may write besides its own directories, and others can read (interfaces/apparmor/template.go).
SHARED, CONFINED = "/dev/shm", "snap.{}.leftovers-"
# Our package on the host: it may be newer than we, and it comes back to the rest by itself.
HOSTS = "/usr/share/leftovers/hooks/snap-remove.py"


def removed(scene: Scene, snap: str, environment: Mapping[str, str], preload: Callable[[], None]) -> int:
    """The hook of the snap `snap`: sweep all that lives of its product, and touch no file that snapd still saves.
    Returns 1 if something is left, or went wrong: then snapd keeps what was said in the change's log."""
    began = time.monotonic()
    signal.alarm(END)
    scene = replace(scene, say=told_twice(scene))
    try:
        name = product_of(snap, environment)
        outside = leave(scene.host, preload)
        fresh = not scene.host.exists(DIRECTORY)
        if outside:
            change = under_way(scene.host, snap)
            if not run.SNAP:
                # The host's own: a guard has mostly done it before, and what is left is told by another unit of ours.
                snaps.begin(scene, snap, change or "hook", stop=False, limit=LIMIT - RESERVE)
                return 0
            if scene.host.exists(HOSTS) and leave_it_to_the_host(snap):
                return 0
        else:
            may_look(scene.host)
            # A new one: anybody may write there, and what is in a ledger is believed.
            place = tempfile.mkdtemp(prefix=CONFINED.format(snap), dir=SHARED)
            scene = replace(scene, ledger=Ledger(scene.host, place))
        left = sweep(scene, name, LIMIT - (time.monotonic() - began))
        if outside and not scene.host.exists(HOSTS):
            in_background(lambda: afterwards(scene, name, snap, fresh))
        elif not outside and not left:
            Tree(Deadline(30)).remove(scene.ledger.directory)
        return 1 if left else 0
    except Fault as fault:
        scene.say(f"not all is cleaned: {fault}")
    except Exception as error:
        said = f"{type(error).__name__}: {error}".replace("\n", " ")
        scene.say(f"{snap}: not all is cleaned: {said}")
    finally:
        signal.alarm(0)
    return 1


def told_twice(scene: Scene) -> Callable[[str], None]:
    """To snapd, and to the journal: of a hook that ended well snapd keeps nothing."""

    def say(text: str) -> None:
        scene.say(text)
        journal.tell(scene.host, report.printable(text))

    return say


def product_of(snap: str, environment: Mapping[str, str]) -> str:
    """The product that a snap is. Only its own: a hook that names another snap would end that one's containers.
    Raises Refusal."""
    if run.SNAP and run.SNAP.split("/")[-2] != snap:
        raise Refusal(snap, f"this is the hook of another snap: {run.SNAP}")
    if environment.get("SNAP_INSTANCE_KEY"):
        raise Refusal(snap, "a parallel installation: its paths are not known")
    name = snaps.product_of(snap)
    if not name:
        raise Refusal(snap, "not a product that is known")
    return name


def leave(host: Host, preload: Callable[[], None]) -> bool:
    """Go over to the host's mount namespace; False where we may not. Everything that may be imported is by then: of
    another libc than the host's, or out of a file system that is not there any more when the snap is gone."""
    preload()
    try:
        if namespace(host, "self", "mnt") != namespace(host, 1, "mnt"):
            fd = os.open(host.path("/proc/1/ns/mnt"), os.O_RDONLY | os.O_CLOEXEC)
            try:
                syscalls.setns(fd, syscalls.CLONE_NEWNS)
            finally:
                os.close(fd)
    except OSError:
        return False
    return True


def may_look(host: Host) -> None:
    """Who cannot see the others would take what is everybody's for his own, so then nothing is done. Raises Refusal."""
    try:
        host.read_bytes("/proc/self/mountinfo")
        os.readlink(host.path("/proc/1/exe"))
        os.close(syscalls.openat2(-1, host.path("/proc"), os.O_PATH | os.O_CLOEXEC, 0))
    except OSError as error:
        said = f"the snap's confinement does not let us look at the host ({error.filename}: {error.strerror})"
        raise Refusal("nothing is removed", said, 'docs/publishers.md, "Strict snaps"') from error


def under_way(host: Host, snap: str) -> str:
    """The change by which snapd removes it; "" if that cannot be read. Who calls the hook of a snap that stays must not
    lose his containers. Raises Refusal."""
    try:
        change = snapd.removing(host, snap)
    except Unreadable:
        return ""  # nothing speaks against it: only snapd calls hooks
    if change is None:
        raise Refusal(snap, "snapd is not removing it", f"snap remove {snap}")
    return change.id


def leave_it_to_the_host(snap: str) -> bool:
    """Let the host's own leftovers do it. False if it cannot."""
    try:
        said = run.run(["python3", "-IB", HOSTS, snap], timeout=LIMIT, success=(0, 1)).out
    except ToolFault:
        return False
    with contextlib.suppress(OSError):
        os.write(1, said.encode("utf-8", "backslashreplace"))
    return True


def sweep(scene: Scene, name: str, limit: float, *, gone: bool = False) -> Sequence[Action]:
    """Sweep within so many seconds, and tell. `gone`: snapd has the snap no more. Returns what is left."""
    done, seconds = moments.sweep_now(scene, [name], force=not gone, limit=max(1.0, limit - RESERVE))
    went = Counter(
        outcome.action.object.kind for outcome in done.outcomes if outcome.result in (Result.DONE, Result.GONE)
    )
    left = [action for action in done.after.left() if action.product == name]
    kept = [action for action in done.after.keeping() if action.product == name and not action.counts]
    # What snapd is about to delete, or the child, is not kept.
    kept = [action for action in kept if not action.reason.endswith(UNPURGED)]
    if went or left or not gone:
        scene.say(report.removal_line(load(name).title, name, went, seconds, kept, left, len(done.after.faults)))
    for action in left:
        outcome = next((each.detail for each in done.outcomes if each.action.id == action.id), "")
        scene.say(f"left: {action.id}: {outcome or action.reason}" + (f" -> {action.advice}" if action.advice else ""))
    for fault in done.after.faults:
        scene.say(f"not read: {fault}")
    return left


# -- when the snap is gone --------------------------------------------------------------------------------------------


def in_background(work: Callable[[], None]) -> None:
    """`work`, in a process that snapd does not wait for: of its own session, and with nothing of ours open."""
    if os.fork() != 0:
        return
    status = 1
    try:
        os.setsid()
        nothing = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(nothing, fd)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        work()
        status = 0
    finally:
        os._exit(status)


def afterwards(scene: Scene, name: str, snap: str, fresh: bool) -> None:
    """Wait until the snap is gone, and sweep what nobody needs any more. `fresh`: before us there was no ledger, and
    where nothing is left to be told there is none after us."""
    try:
        move(snap)
        if not gone(scene.host, snap):
            return
        left = sweep(scene, name, LIMIT, gone=True)
        possible = moments.at_stake(scene, name).plan
        if (
            fresh
            and not left
            and not possible.faults
            and not any(a.advice.endswith("--data") for a in possible.actions)
        ):
            Tree(Deadline(30)).remove(scene.host.path(DIRECTORY))
    except Fault as fault:
        scene.say(f"not all is cleaned: {fault}")
    except Exception as error:
        scene.say(f"{snap}: not all is cleaned: {type(error).__name__}: {error}")


def move(snap: str) -> None:
    """Out of the hook's cgroup, whose processes snapd may end (snap remove --terminate), into a scope of our own."""
    manager = "org.freedesktop.systemd1"
    call = ["busctl", "call", manager, f"/{manager.replace('.', '/')}", f"{manager}.Manager", "StartTransientUnit"]
    unit = [
        "ssa(sv)a(sa(sv))",
        f"leftovers-after-{snap}.scope",
        "replace",
        "1",
        "PIDs",
        "au",
        "1",
        str(os.getpid()),
        "0",
    ]
    try:
        run.run([*call, *unit])
    except ToolFault:
        pass  # another init; the hook's cgroup is as good as any


def gone(host: Host, snap: str) -> bool:
    """Wait until snapd has the snap no more. False if it keeps it. What it has written down is read: its socket would
    start it again, and it writes down each step."""
    deadline = Deadline(PATIENCE)
    while not deadline.passed():
        if snap not in snapd.snaps(host):
            return True
        if snapd.removing(host, snap) is None:
            return False
        time.sleep(0.5)
    return False
