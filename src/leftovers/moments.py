"""The three moments of a removal, and what comes after it. Whoever calls (dpkg's hooks, a maintainer script, a guard
unit) has worked out what goes; nothing here knows who called.

before     writes the evidence down; changes nothing on the host
stop       asks the instances to shut down, which can be undone
commit     sweeps: the removal can no longer fail
finish     the removal is over: what its own scripts left is swept, and told in one line; or it did not come to pass,
           and what was stopped is started again
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from leftovers import arrival, removal, report
from leftovers.clean import LIMIT, Report, carry_out, decided, remember, write_down
from leftovers.conf import Settings
from leftovers.daemons import dpkg, snapd
from leftovers.errors import Fault
from leftovers.host import Host
from leftovers.kinds.kind import Look
from leftovers.kinds.units import Units
from leftovers.ledger import Ledger, Run, Stopped, now
from leftovers.model import Deadline, Plan, Presence, Record, Result, Role, Scope
from leftovers.plan import UNPURGED, plan
from leftovers.products import Product, load, with_companions
from leftovers.removal import Going, Removal
from leftovers.survey import Survey, survey
from leftovers.transaction import Arriving, Leaving
from leftovers.watcher import Watched, start_time

__all__ = [
    *("Forecast", "Scene", "amount", "arrive", "at_stake", "before", "begun", "commit", "finish", "forecast"),
    *("PATIENCE", "counted", "last_sweep", "note_started", "presence_of", "record", "stands", "start_again", "stop"),
    *("sweep_now", "tell_metapackage", "tell_started"),
]

# Another leftovers (a person's, or the watcher's) may be at work for a while: how long a hook waits for it, in seconds.
PATIENCE = 20.0
# Starting again what was stopped, in seconds: all instances together.
START = 120.0


@dataclass(frozen=True, slots=True)
class Scene:
    """Where this happens. `say` tells a person one line. `patience`: how long another leftovers is waited for, in
    seconds."""

    host: Host
    ledger: Ledger
    settings: Settings
    say: Callable[[str], None]
    patience: float = PATIENCE


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a purge would end: running instances, networks, and what would be kept, by name; what other machines have of
    it; and what of its data the package's own purge deletes."""

    running: int
    networks: int
    kept: tuple[str, ...]
    plan: Plan
    elsewhere: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()


def stands(host: Host, product: Product) -> bool:
    """Whether the product's daemon is on the disk, or snapd is and has its snap: its removal has not begun, or was
    undone, or it was replaced. Raises Unreadable."""
    if product.snaps:
        return any(host.exists(path) for path in snapd.PROGRAMS) and any(
            name in snapd.snaps(host) for name in product.snaps
        )
    return any(host.exists(path) for path in product.daemons)


def forecast(host: Host, product: Product, seen: Survey, *, purge: bool = True) -> Forecast:
    """What is at stake, were the product purged (or only removed) now."""
    running = sum(
        claim.proven and claim.object.kind == "process" and claim.reason in product.instance_processes
        for own in seen.claims.values()
        for claim in own.values()
        # What runs in a tenant's name is told with him.
        if claim.product == product.name and not any(name in own for name in product.tenants)
    )
    records = seen.records[product.name]
    networks = {record.name for record in records if record.type == "network" and record.facts.get("managed")}
    then = Presence.ABSENT if purge else Presence.REMOVED
    gone = replace(seen, presence={**seen.presence, product.name: then})
    after = plan(gone, [product.name])
    # What its own purge removes is no data that is kept.
    own = {directory.path for directory in product.directories if directory.role is Role.DATA}
    data = [action.object.key for action in after.keeping() if action.advice.endswith("--data")]
    deleted = tuple(path for path in product.deletes(host) if path in data) if purge else ()
    kept = tuple(path for path in data if path not in own and path not in deleted)
    elsewhere = tuple(
        f"{action.object.key}: {action.reason}" for action in after.keeping() if action.object.kind == "elsewhere"
    )
    return Forecast(running, len(networks), kept, after, elsewhere, deleted)


def at_stake(scene: Scene, name: str) -> Forecast:
    """The same, from a survey of its own. Raises Unreadable."""
    products = with_companions([name])
    return forecast(scene.host, load(name), survey(scene.host, products, remember(scene.ledger, products)))


def before(scene: Scene, owner: Watched, leaving: Sequence[Leaving]) -> tuple[Removal, dict[str, Forecast]]:
    """Survey the products of these packages, and write down what is theirs and that they are about to go. Changes
    nothing on the host but our own records. Raises Refusal when these cannot be written, Unreadable."""
    names = list(dict.fromkeys(each.product for each in leaving if each.daemon))
    earlier = removal.read(scene.host)
    if earlier is None or earlier.owner != owner:
        earlier = Removal(owner)
    going = dict(earlier.going)
    forecasts = {}
    with scene.ledger.locked(scene.patience):
        products = with_companions(names)
        memory = remember(scene.ledger, products)
        seen = survey(scene.host, products, memory)
        for product in products:
            write_down(scene.ledger, [product], seen, memory[product.name].run)
        held = {each.package: each.product for each in leaving if each.daemon and not load(each.product).snaps}
        held = {package: name for package, name in held.items() if stands(scene.host, load(name))}
        scene.ledger.remember_packages(held)
        for name in names:
            packages = tuple(each.package for each in leaving if each.product == name and each.daemon)
            purge = any(each.purge for each in leaving if each.product == name and each.daemon)
            forecasts[name] = forecast(scene.host, load(name), seen, purge=purge)
            known = going.get(name) or Going(
                packages,
                False,
                False,
                forecasts[name].running,
                forecasts[name].networks,
                states=dpkg.status(packages),
            )
            sweep = purge or scene.settings.on_remove == "sweep" or known.sweep
            going[name] = replace(known, packages=packages, purge=purge or known.purge, sweep=sweep)
    meta = {each.package: each.product for each in leaving if not each.daemon and each.product not in going}
    now_going = Removal(owner, going, {**earlier.meta, **meta})
    removal.write(scene.host, now_going)
    return now_going, forecasts


def record(scene: Scene, name: str) -> Forecast:
    """Survey one product and write down what is its own. Returns what is at stake. Raises Fault."""
    with scene.ledger.locked(scene.patience):
        products = with_companions([name])
        memory = remember(scene.ledger, products)
        seen = survey(scene.host, products, memory)
        for product in products:
            write_down(scene.ledger, [product], seen, memory[product.name].run)
    return forecast(scene.host, load(name), seen)


def presence_of(scene: Scene, name: str) -> tuple[Presence, str]:
    """How much there is of a product, and what says so. Raises Fault."""
    seen = survey(scene.host, [load(name)], {})
    return seen.presence[name], seen.because[name]


def stop(scene: Scene, name: str, owner: Watched, *, alone: bool = False) -> None:
    """Ask the instances of a product that run now to shut down, all at once, and wait for them; but not where the
    package's own prerm, which comes next, will do that. `alone`: it will find nothing to do it with. Raises Fault."""
    product = load(name)
    seconds = scene.settings.stop_timeout
    if product.stop is None or seconds <= 0:
        return
    with scene.ledger.locked(scene.patience):
        memory = scene.ledger.memory(name)
        # A look of its own: since `before` the administrator may have stopped some, and started others.
        seen = survey(scene.host, [product], {})
        asked = running(seen.records[name])
        if not asked:
            return
        if not alone and ends_them(scene, product):
            all_of_them = {record.name for record in seen.records[name] if record.facts.get("running") is True}
            number = amount(len(all_of_them), "instance")
            scene.say(f"{product.title}: its own package asks {number} to shut down, each for as long as it may take")
            keep(scene, lambda each, other: replace(each, trusted=each.trusted or other == name))
            return
        # On the disk before the first of them is asked: if we die, whoever comes next can start them again.
        names = tuple(record.name for record in asked)
        stopped = Stopped(names, now(), seen.boot_id, (owner.pid, owner.start))
        scene.ledger.write(replace(memory, stopped=stopped))
        scene.say(f"{product.title}: asking {amount(len(asked), 'instance')} to shut down, {seconds:.0f} s at most")
        causes = product.stop(scene.host, asked, Deadline(seconds))
        scene.ledger.log(name, "stopped", asked=[record.name for record in asked], not_down=dict(causes))
    if causes:
        some = ", ".join(report.printable(each) for each in list(causes)[:5])
        scene.say(f"{product.title}: {len(causes)} did not come down, and will be killed: {some}")


def ends_them(scene: Scene, product: Product) -> bool:
    """Whether the prerm of a package that goes shuts the instances down itself. We would only have them wait twice, and
    take those for lost that are allowed more time than we have."""
    under_way = removal.read(scene.host)
    going = under_way.going.get(product.name) if under_way else None
    if going is None or not product.enders:
        return False
    listed = Units().survey(Look(scene.host, Scope(units=product.enders))).objects
    up = {unit.key for unit in listed if unit.facts["active"] == "active"}
    return up.issuperset(product.enders) and any(
        dpkg.stops(scene.host, package, product.enders[0]) for package in going.packages
    )


def running(records: Iterable[Record]) -> list[Record]:
    """The instances that can be asked and started again: an ephemeral one would be deleted when it stops."""
    found: dict[str, Record] = {}
    for record in records:
        if record.type == "instance" and record.facts.get("running") is True and not record.facts.get("ephemeral"):
            found.setdefault(record.name, record)
    return list(found.values())


def begun(going: Going) -> bool:
    """Whether dpkg has done anything with its packages: a removal that was refused must end in nothing."""
    return going.swept or dpkg.status(going.packages) != dict(going.states)


def commit(scene: Scene, name: str, *, force: bool = False, limit: float = LIMIT) -> None:
    """Sweep a product whose removal can no longer fail. Nothing happens while it stands: then it was replaced, or its
    removal was undone. `force` is for a caller who knows that it is about to go and has no later moment.
    Raises Fault, and then a later moment may try again."""
    under_way = removal.read(scene.host)
    if under_way is None or name not in under_way.going or under_way.going[name].swept:
        return
    if stands(scene.host, load(name)) and not force:
        return
    if under_way.going[name].trusted:
        with contextlib.suppress(Fault):  # its daemon may have ended as it should
            ask_after_all(scene, name)
    swept = sweep_now(scene, [name], force=force, limit=limit)
    keep(scene, lambda each, other: replace(counted(each, other, swept), swept=each.swept or other == name))


def ask_after_all(scene: Scene, name: str) -> None:
    """Ask the instances that still run to shut down, though the package's own prerm was to do that: it did not, and its
    daemon still answers. There is no way back, so nothing is written down for one. Raises Fault."""
    product = load(name)
    seconds = scene.settings.stop_timeout
    if product.stop is None or seconds <= 0:
        return
    with scene.ledger.locked(scene.patience):
        seen = survey(scene.host, [product], {})
        asked = [record for record in running(seen.records[name]) if record.source == "api"]
        if not asked:
            return
        number = amount(len(asked), "instance")
        scene.say(f"{product.title}: its own package left {number} running: asking, {seconds:.0f} s at most")
        causes = product.stop(scene.host, asked, Deadline(seconds))
        scene.ledger.log(name, "stopped", asked=[record.name for record in asked], not_down=dict(causes))


def sweep_now(
    scene: Scene,
    names: Sequence[str],
    *,
    force: bool = False,
    limit: float = LIMIT,
    hindered: Callable[[], str] = lambda: "",
) -> tuple[Report, float]:
    """Survey, plan, carry out within so many seconds, and while nothing hinders. Returns how it ended, and the seconds
    it took."""
    began = time.monotonic()
    with scene.ledger.locked(scene.patience):
        products = with_companions(names)
        memory = remember(scene.ledger, products)
        for name in names:
            if memory[name].stopped and not force:
                # There is no way back any more.
                scene.ledger.write(replace(memory[name], stopped=None))
        seen = survey(scene.host, products, remember(scene.ledger, products))
        todo = decided(products, seen, names, force=force)
        run = Run(now(), False, force)
        done = carry_out(scene.host, scene.ledger, products, seen, todo, run, limit=limit, hindered=hindered)
    return done, time.monotonic() - began


def counted(going: Going, name: str, swept: tuple[Report, float]) -> Going:
    """The same, with what this sweep has removed of it."""
    done, seconds = swept
    gone = dict(going.gone)
    for outcome in done.outcomes:
        if outcome.action.product == name and outcome.result in (Result.DONE, Result.GONE):
            gone[outcome.action.object.kind] = gone.get(outcome.action.object.kind, 0) + 1
    return replace(going, gone=gone, seconds=going.seconds + seconds)


def keep(scene: Scene, change: Callable[[Going, str], Going]) -> None:
    """Change what is known of each product that goes."""
    under_way = removal.read(scene.host)
    if under_way is not None:
        going = {name: change(each, name) for name, each in under_way.going.items()}
        removal.write(scene.host, replace(under_way, going=going))


def start_again(scene: Scene, name: str, owner: Watched | None) -> int:
    """Start again what `owner` (None: whoever it was, and is no more) had us stop of a product that stands after all.
    Returns how many run again; those that do not are told, once. Raises Fault."""
    product = load(name)
    if product.start is None or not stands(scene.host, product):
        return 0  # before the lock is made: our own package may have been purged
    with scene.ledger.locked(scene.patience):
        memory = scene.ledger.memory(name)
        stopped = memory.stopped
        if stopped is None:
            return 0
        by = Watched(*stopped.owner)
        if by != owner and stopped.boot_id == scene.host.boot_id() and start_time(scene.host, by.pid) == by.start:
            return 0  # that removal is under way
        if stopped.boot_id != scene.host.boot_id():
            scene.ledger.write(replace(memory, stopped=None))
            some = ", ".join(report.printable(each) for each in stopped.names[:5])
            number = amount(len(stopped.names), "instance")
            scene.say(f"{product.title}: a removal had asked {number} to shut down ({stopped.time}), and ended: {some}")
            return 0
        causes = product.start(scene.host, stopped.names, Deadline(START))
        up = len(stopped.names) - len(causes)
        scene.ledger.write(replace(memory, stopped=None))
        scene.ledger.log(name, "started", asked=list(stopped.names), not_up=dict(causes))
    for each, cause in list(causes.items())[:5]:
        scene.say(f"{product.title}: {report.printable(each)} was not started: {report.printable(cause)}")
    return up


def note_started(scene: Scene, name: str, owner: Watched) -> None:
    """The same, and finish() will tell: nobody may be there to read it now. Raises Fault."""
    up = start_again(scene, name, owner)
    if up:
        keep(scene, lambda going, other: replace(going, again=going.again + (up if other == name else 0)))


def tell_started(scene: Scene, name: str, up: int) -> None:
    if up:
        scene.say(
            f"{load(name).title} was not removed: {amount(up, 'instance')} that had been asked to shut down "
            f"{'runs' if up == 1 else 'run'} again"
        )


def finish(scene: Scene) -> None:
    """The removal is over. Tells how it went, one line for each product; its record in /run goes."""
    under_way = removal.read(scene.host)
    if under_way is None:
        return
    going = under_way.going
    swept: list[str] = []
    left: list[str] = []
    for name in going:
        if stands(scene.host, load(name)):
            with telling(scene, name):
                up = start_again(scene, name, under_way.owner)
                # Read anew: while we waited for the ledger, the watcher may have done it.
                fresh = removal.read(scene.host) or under_way
                tell_started(scene, name, up + fresh.going[name].again if name in fresh.going else up)
        elif begun(going[name]):
            (swept if going[name].sweep else left).append(name)
    if swept:
        with telling(scene, *swept):
            last_sweep(scene, going, swept)
    if left:
        with telling(scene, *left):
            tell_removed(scene, left)
    for package, name in under_way.meta.items():
        with telling(scene, name):
            tell_metapackage(scene, package, name)
    removal.forget(scene.host, removal.REMOVAL)


@contextlib.contextmanager
def telling(scene: Scene, *names: str) -> Iterator[None]:
    """A fault with some products is a line of its own: the others are still to be finished."""
    try:
        yield
    except Fault as fault:
        titles = " and ".join(load(name).title for name in names)
        scene.say(f"{titles}: not all was cleaned: {fault}; finish with: leftovers clean {' '.join(names)}")


def last_sweep(
    scene: Scene, going: Mapping[str, Going], names: Sequence[str], hindered: Callable[[], str] = lambda: ""
) -> None:
    """What the packages' own scripts have left, all products together: one may have been in use by another."""
    swept = sweep_now(scene, names, hindered=hindered)
    with scene.ledger.locked(scene.patience):
        gone = {snap for name in names for snap in load(name).snaps}
        scene.ledger.remember_snaps(scene.ledger.snaps() - gone)
    after = swept[0].after
    told = 0
    for name in names:
        total = counted(going[name], name, swept)
        left = [action for action in after.left() if action.product == name]
        kept = [action for action in after.keeping() if action.product == name and not action.counts]
        if going[name].purge:
            # In a postrm purge: what is about to be removed by the script that we were called from is not kept.
            kept = [action for action in kept if not action.reason.endswith(UNPURGED)]
        if total.gone or kept or left or (name == names[-1] and not told):
            told += 1
            title = load(name).title
            scene.say(report.removal_line(title, name, total.gone, total.seconds, kept, left, len(after.faults)))


def tell_removed(scene: Scene, names: Sequence[str]) -> None:
    """A plain removal leaves what runs: how much that is, and the command that ends it."""
    products = with_companions(names)
    seen = survey(scene.host, products, remember(scene.ledger, products))
    for name in names:
        product = load(name)
        todo = decided(products, seen, [name])
        alive = forecast(scene.host, product, seen).running
        doing = [action for action in todo.doing() if action.product == name]
        if doing:
            runs = f"{amount(alive, 'instance')} still {'runs' if alive == 1 else 'run'}, " if alive else ""
            scene.say(
                f"{product.title} is removed, not purged: {runs}{len(doing)} objects of it are left; "
                f"sweep them with: leftovers clean {name}"
            )


def tell_metapackage(scene: Scene, package: str, name: str) -> None:
    """Somebody asked for the removal of a product and named a package that only depends on it."""
    product = load(name)
    holders = sorted({each for names in dpkg.owners(product.daemons).values() for each in names})
    if holders and package not in holders:
        scene.say(
            f"{package} is a metapackage: {product.title} itself is in {holders[0]}, which stays as it is; "
            f"to remove it too: apt purge {holders[0]}"
        )


def arrive(scene: Scene, comes: Iterable[Arriving], product_of: Mapping[str, str]) -> None:
    """Write down what stands before a product comes to this host."""
    for each in comes:
        if each.package in product_of and not each.earlier:
            name = product_of[each.package]
            with scene.ledger.locked(scene.patience):
                arrival.note(scene.host, scene.ledger, load(name), each.package, each.version)


def amount(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
