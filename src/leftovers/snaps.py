"""The removal of a snap, as snapd goes about it. It tells nobody; we hear of it by what it does:

guard      it stops a service: a unit of ours is stopped before, while the service still runs (docs/triggers.md)
watch      it reads the snap's description: who is about to remove a snap whose services do not run does that, too
hook       it runs the snap's own remove hook, after the services were stopped
settle     its change has ended, or /snap and /var/snap have changed, or the host was booted

The first three come before anything is deleted, and do the same: record, ask the instances, sweep. Data is left to
snapd, which may yet save a snapshot of it. The last does the rest, tells how it ended, and knows a removal that nobody
heard of by what was there before.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

from leftovers import moments, removal
from leftovers.daemons import snapd
from leftovers.errors import Fault, Refusal
from leftovers.host import Host
from leftovers.model import Presence
from leftovers.moments import Scene
from leftovers.products import NAMES, load
from leftovers.removal import Going
from leftovers.run import run
from leftovers.watcher import Watched, start_time

__all__ = ["LIMIT", "SETTLE", "begin", "guard", "product_of", "settle"]

# What snapd may have to wait for a sweep, in seconds, besides the time that instances get to shut down.
LIMIT = 600.0
# How long the end of a change is waited for, in seconds: a snapshot of a big snap takes its time.
CHANGE = 1500.0
PAUSE = 0.5
SETTLE, WATCH = "leftovers-snaps.service", "leftovers-watch.service"
# A file for each guard that is up (hooks/snap-guard).
GUARDS = f"{removal.DIRECTORY}/guards"
NOBODY = Watched(0, 0)


def product_of(snap: str) -> str:
    """The product that a snap is; "" for any other."""
    return next((name for name in NAMES if snap in load(name).snaps), "")


def known() -> dict[str, str]:
    """By snap that is a product: the product."""
    return {snap: name for name in NAMES for snap in load(name).snaps}


def guard(scene: Scene, unit: str) -> None:
    """A service of a snap is about to be stopped, for whatever reason."""
    snap = snap_of(unit)
    change = snapd.removing(scene.host, snap) if product_of(snap) else None
    if change is not None:
        hold(scene.host, snap)
        # The sweep stops all services: one that is stopped for that must not wait for it.
        begin(scene, snap, change.id, wait=False)


def hold(host: Host, snap: str) -> None:
    """Have the watch hold snapd from here on, until the sweep is done: that ends the services themselves, and then
    snapd waits for their guards no more."""
    for unit in host.listdir(GUARDS):
        if snap_of(unit) == snap:
            with contextlib.suppress(OSError):
                os.unlink(host.path(f"{GUARDS}/{unit}"))
    with contextlib.suppress(Fault):
        run(["systemctl", "reload-or-restart", WATCH], timeout=60, success=(0, 1, 5))


def snap_of(unit: str) -> str:
    """The snap whose service a unit is (snapd snap/info.go, ServiceName: snap.NAME.APP.service)."""
    found = re.match(r"snap\.([a-z0-9-]+)\.[A-Za-z0-9-]+\.service\Z", unit)
    return found[1] if found else ""


def begin(scene: Scene, snap: str, change: str, *, stop: bool = True, wait: bool = True, limit: float = LIMIT) -> None:
    """A snap is being removed: once for each of snapd's changes its instances are asked to shut down (`stop`), and what
    lives is swept; what is data stays. Who comes second waits until the instances were asked, for after that his
    service may go, and, who is to `wait`, for the end of the sweep; what one who was killed has not swept is swept.
    Raises Fault."""
    # Nobody comes after us: another snap's removal, or a person's clean, is waited for.
    scene = replace(scene, patience=limit)
    name = product_of(snap)
    with turn(scene.host, snap, "asking"):
        going = removal.read_snap(scene.host, snap)
        if going is None or going.packages != (change,):
            seen = moments.record(scene, name)
            going = Going((change,), True, False, seen.running, seen.networks)
            removal.write_snap(scene.host, snap, going)
            with scene.ledger.locked(scene.patience):
                scene.ledger.remember_snaps({*scene.ledger.snaps(), snap})
            if stop:
                try:
                    moments.stop(scene, name, snapd_process(scene.host))
                except Fault as fault:
                    scene.say(f"{load(name).title}: its instances are not asked to shut down: {fault}")
    with turn(scene.host, snap, "sweeping", wait=wait) as mine:
        going = removal.read_snap(scene.host, snap) or going
        if not mine or going.swept:
            return
        try:
            swept = moments.sweep_now(scene, [name], force=True, limit=limit)
            removal.write_snap(scene.host, snap, replace(moments.counted(going, name, swept), swept=True))
            left = [action for action in swept[0].after.doing() if action.product == name]
            if left:
                scene.say(f"{load(name).title}: {moments.amount(len(left), 'object')} could not be removed so far")
        finally:
            later()


@contextlib.contextmanager
def turn(host: Host, snap: str, what: str, *, wait: bool = True) -> Iterator[bool]:
    """One after the other; or, not to `wait`, whether nobody else is at it. Raises Refusal."""
    path = f"{removal.DIRECTORY}/snap-{snap}.{what}"
    try:
        os.makedirs(host.path(removal.DIRECTORY), mode=0o700, exist_ok=True)
        fd = os.open(host.path(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Refusal(path, f"cannot be written: {error.strerror}", "make room in /run") from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def snapd_process(host: Host) -> Watched:
    """snapd itself: whose removal this is, for as long as it runs."""
    for name in host.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                if snapd.EXE.match(os.readlink(host.path(f"/proc/{name}/exe")).removesuffix(" (deleted)")):
                    return Watched(int(name), start_time(host, int(name)))
    return NOBODY


def later() -> None:
    """Have settle() run on its own, in time: whoever called us must not wait for the end of what he is doing."""
    with contextlib.suppress(Fault):  # no systemd, or our package is not there: a snap carries us
        run(["systemctl", "start", "--no-block", SETTLE], success=(0, 1, 5))


def settle(scene: Scene) -> None:
    """What has become of the snaps that were here when we last looked, once snapd is at nothing with any of them.
    Whatever begins meanwhile is waited for, too: nobody would call again."""
    names = known()
    until = time.monotonic() + CHANGE
    while True:
        wait(scene.host, names, until)
        listed = snapd.snaps(scene.host)
        settle_once(scene, names, frozenset(names) & frozenset(listed))
        if snapd.snaps(scene.host).keys() == listed.keys() and snapd.busy(scene.host).isdisjoint(names):
            return
        if time.monotonic() > until:
            return


def settle_once(scene: Scene, names: Mapping[str, str], here: frozenset[str]) -> None:
    still = set(here)
    before = scene.ledger.snaps()
    for snap in sorted(before | here):
        name = names.get(snap)
        if name is None or at_it(scene.host, snap):
            still |= {snap} & before
            continue
        going = removal.read_snap(scene.host, snap)
        try:
            if snap not in here:
                gone(scene, snap, name, going)
            elif going is not None or scene.ledger.memory(name).stopped is not None:
                stayed(scene, snap, name, going)
            removal.write_snap(scene.host, snap, None)
        except Fault as fault:
            still.add(snap)  # to be tried again at the next boot
            scene.say(f"{load(name).title}: not all was cleaned: {fault}; finish with: leftovers clean {name}")
    if still != scene.ledger.snaps():
        with scene.ledger.locked(scene.patience):
            scene.ledger.remember_snaps(still)


def wait(host: Host, names: Mapping[str, str], until: float) -> None:
    """Until snapd is at no snap that is a product, be it that one is installed again, nor dpkg at snapd. Raises
    Unreadable."""
    while time.monotonic() < until:
        other = removal.read(host)
        dpkg = other is not None and start_time(host, other.owner.pid) == other.owner.start
        if not dpkg and snapd.busy(host).isdisjoint(names):
            return
        time.sleep(PAUSE)


def at_it(host: Host, snap: str) -> str:
    """What snapd does with a snap at this moment; "" for nothing. Raises Unreadable."""
    return f"snapd is at {snap} again" if snap in snapd.busy(host) else ""


def gone(scene: Scene, snap: str, name: str, going: Going | None) -> None:
    """snapd has it no more: what it left goes, data outside its directories too. But only if somebody has seen it being
    removed: that nothing is to be seen of it may also be a disk that is missing."""
    removed = [change for change in snapd.changes(scene.host, snap) if change.whole and change.ready]
    if going is None and not (removed and not removed[-1].status):
        scene.say(f"{load(name).title}: snapd has no {snap} any more, and nothing tells why: leftovers scan {name}")
        return

    def hindered() -> str:
        try:
            return at_it(scene.host, snap) or (f"{snap} is installed" if snap in snapd.snaps(scene.host) else "")
        except Fault as fault:
            return str(fault)

    moments.last_sweep(scene, {name: going or Going((), True, True)}, [name], hindered)


def stayed(scene: Scene, snap: str, name: str, going: Going | None) -> None:
    """Its removal failed. snapd 2.77 takes it back as a whole: it runs again, and so do its instances. Older ones leave
    it disabled, without its services: that is finished by removing it again."""
    present, because = moments.presence_of(scene, name)
    if present is Presence.INSTALLED:
        stopped = scene.ledger.memory(name).stopped
        # That removal is over, though snapd, whose it was, lives on.
        owner = Watched(*stopped.owner) if stopped else None
        moments.tell_started(scene, name, moments.start_again(scene, name, owner))
    elif going is not None:
        report, _ = moments.sweep_now(scene, [name])
        left = [action for action in report.after.left() if action.product == name]
        title = load(name).title
        lives = f"{moments.amount(len(left), 'object')} of it are left (leftovers verify {name})" if left else ""
        scene.say(f"{title}: {because}; {lives or 'nothing of it lives'}; finish with: snap remove --purge {snap}")
