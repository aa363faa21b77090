"""One run: record, sweep, look again. Whoever starts it (a person, a resume, later a hook) has decided before."""

from __future__ import annotations

import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from leftovers.errors import Fault, Refusal
from leftovers.host import Host
from leftovers.ledger import Ledger, Memory, Run, now
from leftovers.model import Deadline, Outcome, Plan, Presence
from leftovers.plan import plan
from leftovers.products import Product
from leftovers.survey import Survey
from leftovers.sweep import Progress, sweep
from leftovers.verify import look_again

__all__ = ["LIMIT", "Report", "carry_out", "decided", "remember", "write_down"]

# What one removal sets free may only then be seen: a cgroup's late child, a mount under a mount.
ROUNDS = 3
# A whole run, in seconds.
LIMIT = 3900.0


@dataclass(frozen=True, slots=True)
class Report:
    """How a run ended: what was done, and the plan that a last look still makes (its left() is what is left)."""

    outcomes: tuple[Outcome, ...]
    after: Plan
    survey: Survey


def remember(ledger: Ledger, products: Sequence[Product]) -> dict[str, Memory]:
    """What the ledger holds for these products. Raises Unreadable."""
    return {product.name: ledger.memory(product.name) for product in products}


def decided(
    products: Sequence[Product], seen: Survey, named: Sequence[str], *, data: bool = False, force: bool = False
) -> Plan:
    """The plan for the products that were named, and for their companions as far as those are gone themselves. One that
    others have containers in lives for itself as well: a pod of its own may have been left running on purpose."""
    asked = {name for product in products if product.name in named for name in product.companions}
    companions = {product.name for product in products if product.name in asked and not product.tenants}
    names = [
        product.name
        for product in products
        if product.name in named
        or (product.name in companions and seen.presence[product.name] is not Presence.INSTALLED)
    ]
    return plan(seen, names, data=data, force=force)


def carry_out(
    host: Host,
    ledger: Ledger,
    products: Sequence[Product],
    seen: Survey,
    todo: Plan,
    run: Run,
    *,
    progress: Progress = lambda title, done, total: None,
    limit: float = LIMIT,
    hindered: Callable[[], str] = lambda: "",
    look: Callable[[], tuple[Survey, Plan]] | None = None,
) -> Report:
    """Carry out a plan that was made from `seen`, under the ledger's lock.

    Evidence is on the disk before the first removal. Raises Refusal when it cannot be written: nothing was removed.
    It ends after `limit` seconds, whatever is left; and when `hindered`, which is asked before each batch, says why.
    `look` looks again where the plan is not one for all that is left (orphans).
    """
    open_many_files()
    names = todo.products
    everyone, products = products, [product for product in products if product.name in names]
    memory = write_down(ledger, products, seen, run)
    for name in names:
        ledger.log(name, "begin", data=run.data, force=run.force, objects=len(todo.doing()))
    outcomes: dict[str, Outcome] = {}
    deadline = Deadline(limit)
    for _ in range(ROUNDS):

        def note(batch: Sequence[Outcome]) -> None:
            for name in names:
                ledger.outcomes(name, batch)

        for outcome in sweep(host, todo, seen.scope, deadline, note=note, progress=progress, hindered=hindered):
            outcomes[outcome.action.id] = outcome
        tried = {action.id: action.object.identity for action in todo.doing()}
        seen, todo = look() if look else again(host, ledger, everyone, memory, names, run)
        if all(tried.get(action.id) == action.object.identity for action in todo.doing()) or deadline.passed():
            break
        if hindered():
            break
        try:
            memory = write_down(ledger, products, seen, run)
        except Refusal as fault:
            # Something was removed already: this is a fault of the run, and what is left is told.
            todo = replace(todo, faults=(*todo.faults, str(fault)))
            break
    finish(ledger, products, memory, todo, todo if look else plan(seen, names, data=True, force=run.force), bool(look))
    return Report(tuple(outcomes.values()), todo, seen)


def again(
    host: Host,
    ledger: Ledger,
    everyone: Sequence[Product],
    memory: Mapping[str, Memory],
    names: Sequence[str],
    run: Run,
) -> tuple[Survey, Plan]:
    """Another look. Those that are only asked whose a thing is are remembered as the ledger has them."""
    known = {**remember(ledger, [product for product in everyone if product.name not in memory]), **memory}
    return look_again(host, everyone, known, names, data=run.data, force=run.force)


def open_many_files() -> None:
    """Raise our limit of open files: trees and cgroups are walked by open directories, and a container may have made
    them deep."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass  # fs.nr_open was set below it: what is too deep then fails by itself, and nothing else does


def write_down(ledger: Ledger, products: Sequence[Product], seen: Survey, run: Run | None) -> dict[str, Memory]:
    """Everything that the survey proved goes to the disk. Raises Refusal."""
    memory = {}
    for product in products:
        claims = {id: own[product.name] for id, own in seen.claims.items() if product.name in own}
        present = seen.presence[product.name]
        memory[product.name] = ledger.record(
            product.name, seen.boot_id, present, claims, seen.records[product.name], run
        )
    return memory


def finish(
    ledger: Ledger,
    products: Sequence[Product],
    memory: Mapping[str, Memory],
    after: Plan,
    possible: Plan,
    stays: bool = False,
) -> None:
    """The run has come to its end. What is left keeps its evidence, and so does what could still be asked for
    (`possible`: volumes that go with --data), or cannot be read (rules, while iptables is not installed). Where there
    is nothing, old names could only mislead a later look, unless the product `stays`. What other machines have stays
    known: nothing on this one will tell it again."""
    for product in products:
        held = memory[product.name]
        left = [action for action in after.left() if action.product == product.name]
        ledger.log(product.name, "end", left=[action.id for action in left])
        try:
            if stays or left or after.faults or any(action.product == product.name for action in possible.doing()):
                ledger.write(replace(held, run=None))
            else:
                known = tuple(record for record in held.records if product.elsewhere((record,)))
                ledger.write(Memory(product.name, held.boot_id, now(), held.presence, records=known, been=held.been))
        except Fault:
            pass  # the disk filled up meanwhile: the run stays open, and a resume finds nothing to do
