"""The face for package managers. Each of hooks/*.py calls main() with its event; a fault of ours is one line, and a
success to the one who called."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from leftovers import conf, moments, publisher, removal, report, saved, snaps, snapwatch, transaction, watcher
from leftovers.daemons import dpkg, snapd
from leftovers.errors import Fault, Refusal
from leftovers.host import Host
from leftovers.kinds.files import Tree
from leftovers.ledger import DIRECTORY as LEDGER
from leftovers.ledger import Ledger
from leftovers.model import Deadline
from leftovers.moments import Forecast, Scene, amount
from leftovers.products import NAMES, load
from leftovers.removal import Apt, Removal
from leftovers.transaction import Dpkg, Leaving
from leftovers.watcher import Watched

__all__ = ["VETO", "main"]

# The exit status by which a hook of ours says no; hooks/launch passes it on, and no other.
VETO = 10
# What `dpkg` may have to wait for a sweep, in seconds, besides the time that instances get to shut down.
SWEEP = 900.0
# dpkg's hook comes after these, and tells what a fault means: nobody wants to read it three times.
SILENT = ("apt-question", "apt-packages")


def main(event: str, arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> int:
    """Answer one event. Returns an exit status: 0, VETO for an intended refusal, or what the event wants (snapd keeps
    what a hook has said only if it fails)."""
    try:
        host = Host()
        settings, warnings = conf.read(host)
        if not settings.enabled:
            return 0
        scene = Scene(host, Ledger(host), settings, say)
        for warning in warnings if event in ("dpkg-pre", "maintainer-prerm", "snap-settle") else ():
            say(warning)
        return EVENTS[event](scene, arguments, environment) or 0
    except Veto as veto:
        say(f"refused: {veto}")
        return VETO
    except Fault as fault:
        if event not in SILENT:
            say(f"nothing is cleaned: {fault}; look with: leftovers scan")
    except Exception as error:
        if environment.get("LEFTOVERS_DEBUG"):
            raise
        said = f"{type(error).__name__}: {error}".replace("\n", " ")
        if event not in SILENT:
            say(f"nothing is cleaned: {event}: {said}; look with: leftovers scan")
    return 0


class Veto(Refusal):
    """What the administrator has configured to be refused."""


def say(text: str) -> None:
    try:
        os.write(1, f"leftovers: {report.printable(text)}\n".encode("utf-8", "backslashreplace"))
    except OSError:
        pass  # nobody reads: what is done is the same


# -- apt


def question(scene: Scene, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Before apt's "Do you want to continue?": what is at stake. stdin is apt's JSON message."""
    goes, comes = transaction.question(sys.stdin.read())
    holders, brought = product_of(scene), by_snapd(scene)
    for name in NAMES:
        product = load(name)
        packages = {
            package: mode
            for package, mode in goes
            if holders.get(package) == name or (package == transaction.SNAPD and name in brought)
        }
        if packages and not any(package in product.packages or package in product.successors for package in comes):
            mode = "sweep" if "purge" in packages.values() else scene.settings.on_remove
            text = at_stake(scene, name, mode)
            if text:
                scene.say(f"{', '.join(packages)}: {text}")
        elif not packages:
            for package in [package for package, _ in goes if package in product.packages]:
                moments.tell_metapackage(scene, package, name)


def at_stake(scene: Scene, name: str, mode: str) -> str:
    """What a removal of a product ends and keeps, for a person who is about to be asked."""
    view, title = moments.at_stake(scene, name), load(name).title
    parts = f"{amount(view.running, 'running instance')} and {amount(view.networks, 'network')} of {title}"
    if mode != "report":
        kept = f"; kept: {report.sized(view.kept)}" if view.kept else ""
        if view.deleted:
            kept = f"; its own purge deletes {report.sized(view.deleted)}{kept}"
        there = "".join(f"; {report.printable(each)}" for each in view.elsewhere[:2])
        if load(name).tenants and not (view.running or view.networks or kept):
            return ""  # all that is in it is told with those whose it is
        return f"this ends {parts}{kept}{there}" if load(name).instance_processes else ""
    return f"removed, not purged: {parts} go on without it" if view.running or view.networks else ""


def packages(scene: Scene, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """apt's DPkg::Pre-Install-Pkgs: the one place that knows what comes in exchange, and may refuse. stdin is its list;
    the argument is the pid of apt."""
    comes, goes = transaction.apt_list(sys.stdin.read())
    frontend = Watched(int(arguments[0]), watcher.start_time(scene.host, int(arguments[0])))
    holding = set(transaction.daemon_packages([load(name) for name in NAMES]))
    holders, brought = product_of(scene), by_snapd(scene)
    names = [package.partition(":")[0] for package in goes]
    replaced = {}
    for name in NAMES:
        going = [package for package in names if holders.get(package) == name]
        going += [transaction.SNAPD] if transaction.SNAPD in names and name in brought else []
        if not going:
            continue
        by = transaction.replacement(load(name), going, comes)
        if by:
            replaced[name] = by
        elif scene.settings.refuse_if_running and (set(going) & holding or name in brought):
            refuse_if_running(scene, name)
    removal.write_apt(scene.host, Apt(frontend, replaced))
    if scene.settings.arrivals:
        moments.arrive(scene, comes, named())


def apt_done(scene: Scene, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """apt's DPkg::Post-Invoke: all of its dpkg runs are over."""
    under_way = removal.read(scene.host)
    if under_way is None or under_way.owner in watcher.ancestors(scene.host, os.getpid()):
        finish(scene)
    elif not alive(scene.host, under_way.owner):
        forget(scene.host)  # of a run that was killed: who starts it again, begins anew


def refuse_if_running(scene: Scene, name: str, seen: Forecast | None = None) -> None:
    """Raises Veto."""
    seen = seen or moments.at_stake(scene, name)
    if seen.running:
        raise Veto(
            load(name).title,
            f"{amount(seen.running, 'instance')} {'runs' if seen.running == 1 else 'run'}, and "
            "/etc/leftovers/leftovers.conf says refuse_if_running = yes",
            "nothing was changed; stop them, or: sudo LEFTOVERS_SUSPEND=1 apt ...",
        )


def named() -> dict[str, str]:
    """By package that is known by name: its product."""
    return {package: name for name in NAMES for package in load(name).packages}


def product_of(scene: Scene) -> dict[str, str]:
    """By package that holds, or last held, a product's daemon: the product."""
    return {**scene.ledger.packages(), **transaction.daemon_packages([load(name) for name in NAMES])}


def by_snapd(scene: Scene) -> list[str]:
    """The products that snapd has: they go with its package."""
    try:
        here = snapd.snaps(scene.host)
    except Fault:
        return []
    return [name for name in NAMES if any(snap in here for snap in load(name).snaps)]


# -- dpkg


def dpkg_pre(scene: Scene, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """dpkg's pre-invoke. Nothing has happened yet, and perhaps nothing will."""
    run = transaction.dpkg_above(scene.host, environment)
    if run is None or run.simulates:
        return
    if not run.locked and not lock_is_free(scene.host):
        return  # this dpkg is about to be refused
    apt = removal.read_apt(scene.host, run.process.pid)
    if run.action in ("install", "unpack"):
        if apt is None and scene.settings.arrivals:
            moments.arrive(scene, transaction.arriving(run), named())
        return
    leaving = [
        each
        for each in transaction.leaving(run, scene.ledger.packages(), by_snapd(scene))
        if apt is None or each.product not in apt.replaced
    ]
    if not leaving:
        return
    if run.locked and apt is None and run.action == "remove":
        # A frontend, and nobody has told us what comes in exchange. In its later run of purge that will be there.
        leaving = [replace(each, purge=False) for each in leaving]
        scene = replace(scene, settings=replace(scene.settings, on_remove="report"))
    owner = owner_of(scene, run, apt)
    earlier = removal.read(scene.host)
    if earlier and earlier.owner == owner and all(done(earlier, each) for each in leaving):
        return  # apt's second dpkg, which purges what the first has removed
    if earlier and earlier.owner != owner:
        if alive(scene.host, earlier.owner):
            # It has the lock, or is about to get it; then this one will be refused.
            scene.say(f"another removal is under way (pid {earlier.owner.pid}): this one will not be cleaned up after")
            return
        forget(scene.host)  # a plan of another day must never be carried out
    try:
        under_way, forecasts = moments.before(scene, owner, leaving)
    except Fault as fault:
        names = dict.fromkeys(each.product for each in leaving)
        titles = " and ".join(load(name).title for name in names)
        if removal.tell_once(scene.host, owner):
            scene.say(f"{titles} will not be cleaned: {fault}; to finish, then: leftovers clean {' '.join(names)}")
        return
    standing = {name for name in forecasts if moments.stands(scene.host, load(name))}
    if scene.settings.refuse_if_running and apt is None:
        for name in standing:
            refuse_if_running(scene, name, forecasts[name])
    sweeping = [name for name in forecasts if under_way.going[name].sweep]
    if not sweeping:
        return
    save(scene, forecasts, sweeping)
    try:
        armed = arm(scene, run, owner, [each for each in leaving if each.daemon], sweeping)
    except OSError as error:
        scene.say(
            f"dpkg cannot be watched ({error.strerror or error}): instances are not asked, and what is left goes after"
        )
        return
    if not armed:
        unwatched(scene, run, owner, sweeping)


def done(earlier: Removal, each: Leaving) -> bool:
    if not each.daemon:
        return each.package in earlier.meta or each.product in earlier.going
    return each.product in earlier.going and earlier.going[each.product].swept


def owner_of(scene: Scene, run: Dpkg, apt: Apt | None) -> Watched:
    """Whose removal it is: the frontend's, which runs dpkg several times, or that of a dpkg of its own."""
    if apt is not None:
        return apt.process
    if run.locked:
        above = watcher.ancestors(scene.host, run.process.pid)[1:]
        return above[0] if above else run.process
    return run.process


def arm(scene: Scene, run: Dpkg, owner: Watched, leaving: Sequence[Leaving], sweeping: Sequence[str]) -> bool:
    """Be there when dpkg executes the packages' own prerm and postrm. False if that is not to be had here."""
    marks: dict[str, str] = {}
    for each in leaving:
        if each.product in sweeping:
            for script, word in (("prerm", "stop"), ("postrm", "commit")):
                for path in dpkg.scripts(scene.host, each.package, script):
                    marks[path] = f"{marks.get(path, word)} {each.product}"
    preload()

    def work(word: str) -> None:
        moment, *names = word.split(" ")
        for name in names:
            try:
                if moment == "stop":
                    moments.stop(scene, name, owner)
                else:
                    moments.commit(scene, name, limit=SWEEP - 60)
            except Fault as fault:
                scene.say(f"{load(name).title}: {fault}; it will be tried again when dpkg is done")
        with contextlib.suppress(Fault):
            if moment == watcher.OVER and ours():
                finish(scene)
            elif moment == watcher.ENDED and ours():
                for name in sweeping:
                    moments.note_started(scene, name, owner)

    def ours() -> bool:
        under_way = removal.read(scene.host)
        return under_way is not None and under_way.owner == owner

    limit = scene.settings.stop_timeout + SWEEP
    return watcher.arm(scene.host, run.process, owner, marks, work, limit, removal.ASK, ours)


def preload() -> None:
    """Import all that a sweep may need: Python itself may be removed while we wait."""
    import importlib
    import pkgutil

    import leftovers

    modules = [module.name for module in pkgutil.walk_packages(leftovers.__path__, "leftovers.")]
    others = ("encodings.idna", "http.client", "json", "nftables", "psutil", "pyroute2", "sqlite3", "yaml")
    for name in (*modules, *others):
        if not name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # what is missing now is told as unread, later
                importlib.import_module(name)


def unwatched(scene: Scene, run: Dpkg, owner: Watched, sweeping: Sequence[str]) -> None:
    """No fanotify here (an old kernel, a container without CAP_SYS_ADMIN). After `dpkg --remove` there is post-invoke;
    a purge deletes data before that, so this is the last moment, if dpkg will do it at all: it says so of packages that
    are named, without options that force it."""
    if run.action != "purge" or run.pending:
        return
    known = sorted(dpkg.states(run.names))
    if not known or not dpkg.would_do("purge", known):
        return
    if not run.locked and not lock_is_free(scene.host):
        return
    for name in sweeping:
        if moments.stands(scene.host, load(name)):
            moments.stop(scene, name, owner, alone=True)
            moments.commit(scene, name, force=True)
        else:
            moments.commit(scene, name)


def lock_is_free(host: Host) -> bool:
    """Whether dpkg will get its locks (fcntl's, on both files: dpkg lib/dpkg/dbmodify.c). It is only asked: a lock that
    we took, be it for a moment, could make another dpkg fail."""
    import fcntl
    import struct

    for name in ("lock-frontend", "lock"):
        try:
            with open(host.path(f"/var/lib/dpkg/{name}"), "r+b") as file:
                wanted = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                if struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_GETLK, wanted))[0] != fcntl.F_UNLCK:
                    return False
        except OSError:
            continue  # dpkg will make it, or say what is wrong with it
    return True


def dpkg_post(scene: Scene, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """dpkg's post-invoke: what the watcher could not do is done now; and without a frontend that will tell, told."""
    under_way = removal.read(scene.host)
    run = transaction.dpkg_above(scene.host, environment)
    if under_way is None or run is None:
        return
    apt = removal.read_apt(scene.host, run.process.pid)
    if under_way.owner != owner_of(scene, run, apt):
        return
    for name, going in under_way.going.items():
        try:
            if moments.stands(scene.host, load(name)):
                moments.note_started(scene, name, under_way.owner)
            elif going.sweep and moments.begun(going):
                moments.commit(scene, name)
        except Fault as fault:
            scene.say(f"{load(name).title}: {fault}; it will be tried again at the end")
    later = run.locked and run.action != "purge" and any(going.purge for going in under_way.going.values())
    if apt is None and not later:
        finish(scene)


# -- maintainer scripts of packagers


def prerm(scene: Scene, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """PRODUCT remove, in a packager's prerm, before the service is stopped."""
    name = arguments[0]
    package = environment.get("DPKG_MAINTSCRIPT_PACKAGE", "")
    run = transaction.dpkg_above(scene.host, environment)
    if name not in NAMES or run is None or int(environment.get("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT") or 1) > 1:
        return
    apt = removal.read_apt(scene.host, run.process.pid)
    if apt is not None and name in apt.replaced:
        return
    owner = owner_of(scene, run, apt)
    under_way = removal.read(scene.host)
    if under_way is None or under_way.owner != owner or name not in under_way.going:
        purge = transaction.is_purge(scene.host, package, run)
        under_way, forecasts = moments.before(scene, owner, [Leaving(package, name, purge, True)])
        if scene.settings.refuse_if_running:
            refuse_if_running(scene, name, forecasts[name])
        if under_way.going[name].sweep:
            save(scene, forecasts, [name])
    if under_way.going[name].sweep and scene.ledger.memory(name).stopped is None:
        moments.stop(scene, name, owner)


def postrm(scene: Scene, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """PRODUCT remove|purge, in a packager's postrm, before data is deleted. After a purge by a dpkg that has no hooks
    of ours (our package is gone, or they were taken out), nobody else will tell how it ended."""
    name, moment = arguments[0], arguments[1]
    run = transaction.dpkg_above(scene.host, environment)
    if name not in NAMES or run is None:
        return
    under_way = removal.read(scene.host)
    apt = removal.read_apt(scene.host, run.process.pid)
    if apt is not None and name in apt.replaced:
        return
    owner = owner_of(scene, run, apt)
    if under_way is None or under_way.owner != owner or name not in under_way.going:
        package = environment.get("DPKG_MAINTSCRIPT_PACKAGE", "")
        if moment != "purge":
            return  # its prerm has not been: a package that was never configured
        moments.before(scene, owner, [Leaving(package, name, True, True)])
        under_way = removal.read(scene.host)
    # Under a frontend that has not told us what comes in exchange, its postrm purge will show it.
    unsure = moment == "remove" and run.locked and apt is None
    if under_way is not None and under_way.going[name].sweep and not unsure:
        moments.commit(scene, name)
    if under_way is not None and not hooked(scene.host) and (moment == "purge" or not under_way.going[name].purge):
        finish(scene)


def postinst(scene: Scene, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """PRODUCT abort-remove, in a packager's postinst, after the service was started again."""
    if arguments[0] in NAMES:
        run = transaction.dpkg_above(scene.host, environment)
        apt = removal.read_apt(scene.host, run.process.pid) if run else None
        owner = owner_of(scene, run, apt) if run else None
        moments.tell_started(scene, arguments[0], moments.start_again(scene, arguments[0], owner))


def hooked(host: Host) -> bool:
    """Whether dpkg has our hooks, which will tell how it ended."""
    return host.exists("/etc/dpkg/dpkg.cfg.d/leftovers")


# -- snaps


def snap_guard(scene: Scene, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """UNIT: a service of a snap is about to be stopped, and still runs."""
    snaps.guard(scene, arguments[0])


def snap_remove(scene: Scene, arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """SNAP, in the remove hook of a snap that carries us: its services were stopped, its data is there."""
    return publisher.removed(scene, arguments[0], environment, preload)


def snap_settle(scene: Scene, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """/snap or /var/snap has changed, a guard has swept, or the host was booted."""
    snaps.settle(scene)


def snap_watch(scene: Scene, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Be there when snapd removes a snap whose services do not run. Returns when there is none."""

    def begin(snap: str, change: str) -> None:
        if not conf.read(scene.host)[0].enabled:
            return  # since we began
        try:
            snaps.begin(scene, snap, change)
        except Fault as fault:
            scene.say(f"{snap}: {fault}; it will be tried again when snapd is done")

    try:
        snapwatch.watch(scene.host, begin, 2 * snaps.LIMIT)
    except OSError as error:
        scene.say(f"snaps that do not run cannot be watched ({error.strerror or error}): what they leave goes after")
    finally:
        snapwatch.tell("READY=1")  # a unit that ends without is one that failed, and nothing here did


# -- common


def finish(scene: Scene) -> None:
    moments.finish(scene)
    purged = dpkg.status(["leftovers"]).get("leftovers", "not-installed") == "not-installed"
    forget(scene.host)
    if purged and (saved.is_copy() or not os.path.isdir(saved.MODULES)):
        # We were purged in the same run, and are its last witness.
        for directory in (removal.DIRECTORY, LEDGER):
            if not os.path.islink(scene.host.path(directory)):  # an administrator's
                Tree(Deadline(30)).remove(scene.host.path(directory))


def forget(host: Host) -> None:
    """What the hooks of a run have told each other, and the copy of ourselves."""
    for path in (removal.REMOVAL, removal.OWNER, removal.ASK, removal.TOLD):
        removal.forget(host, path)
    if removal.read_apt(host, os.getpid()) is None:  # else it is of the apt that we work for, and apt-done removes it
        removal.forget(host, removal.APT)
    saved.forget(host)


def alive(host: Host, process: Watched) -> bool:
    return watcher.start_time(host, process.pid) == process.start


def save(scene: Scene, forecasts: Mapping[str, Forecast], sweeping: Sequence[str]) -> None:
    """A copy of ourselves, for when our package or Python goes in the same run."""
    try:
        saved.save(scene.host, {name: forecasts[name].plan for name in sweeping})
    except Refusal as fault:
        scene.say(f"{fault}; if Python goes in the same run, nothing will be cleaned")


EVENTS: Mapping[str, Callable[[Scene, Sequence[str], Mapping[str, str]], int | None]] = {
    "apt-question": question,
    "apt-packages": packages,
    "apt-done": apt_done,
    "dpkg-pre": dpkg_pre,
    "dpkg-post": dpkg_post,
    "maintainer-prerm": prerm,
    "maintainer-postrm": postrm,
    "maintainer-postinst": postinst,
    "snap-guard": snap_guard,
    "snap-remove": snap_remove,
    "snap-settle": snap_settle,
    "snap-watch": snap_watch,
}
