"""Execute a plan, batch by batch. Never stops at the first error; a wait has an end."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from leftovers.errors import Fault
from leftovers.host import Host
from leftovers.kinds import KINDS, Kind
from leftovers.model import Action, Deadline, Identity, Object, Outcome, Plan, Result, Scope, Verb
from leftovers.survey import relist

__all__ = ["batches", "sweep"]

# Pauses between looks at whether the kernel has let go, in seconds; the last one repeats.
PAUSES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
Progress = Callable[[str, int, int], None]
STUCK = "what was lent into it could not be given back"


def batches(plan: Plan) -> list[tuple[Verb, str, tuple[Action, ...]]]:
    """A plan's doing, cut where the verb, the kind or the rank changes. The plan's order is kept."""
    cut = itertools.groupby(plan.doing(), key=lambda action: (action.verb, action.object.kind, action.rank))
    return [(verb, kind, tuple(group)) for (verb, kind, _), group in cut]


def sweep(
    host: Host,
    plan: Plan,
    scope: Scope,
    deadline: Deadline,
    *,
    note: Callable[[Sequence[Outcome]], None],
    progress: Progress = lambda title, done, total: None,
    hindered: Callable[[], str] = lambda: "",
) -> list[Outcome]:
    """Do all of a plan. `note` is told the outcomes of each batch as it ends (the ledger). Before each `hindered` is
    asked: a reason ends it, and nothing more is done."""
    kinds = {kind.name: kind for kind in KINDS}
    todo = batches(plan)
    total = sum(len(actions) for _, _, actions in todo)
    outcomes: list[Outcome] = []
    stuck: set[str] = set()
    for verb, name, actions in todo:
        progress(kinds[name].title, len(outcomes), total)
        why = hindered()
        # A namespace takes along what was lent into it and did not come home.
        held = [action for action in actions if name == "netns" and action.object.key in stuck and not why]
        rest = [action for action in actions if action not in held]
        done = [Outcome(action, Result.FAILED, STUCK, 0.0) for action in held]
        if why:
            done += [Outcome(action, Result.CHANGED, why, 0.0) for action in rest]
        elif rest:
            done += do(host, kinds[name], verb, rest, scope, deadline.within(kinds[name].limit))
        if verb is Verb.RETURN:
            stuck |= {str(each.action.object.facts.get("netns")) for each in done if each.result is Result.FAILED}
        note(done)
        outcomes += done
    progress("", total, total)
    return outcomes


def do(
    host: Host, kind: Kind, verb: Verb, actions: Sequence[Action], scope: Scope, deadline: Deadline
) -> list[Outcome]:
    """One batch: check the identities, act, look again until nothing of it is left; act once more on what is."""
    began = time.monotonic()
    results: dict[str, tuple[Result, str]] = {}
    try:
        present = {obj.id: obj for obj in relist(host, kind, scope).objects}
        left: dict[str, Object] = {}
        for action in actions:
            found = present.get(action.id)
            if found is None:
                results[action.id] = (Result.GONE, "")
            elif found.identity != action.object.identity:
                results[action.id] = (Result.CHANGED, "something else has that name now")
            else:
                # Fresh facts, and what only the product could tell (where a link belongs, what may go of a tree).
                left[action.id] = replace(found, facts={**action.object.facts, **found.facts})
        causes: dict[str, str] = {}
        for attempt in (1, 2):
            if not left:
                break
            causes = dict(kind.act(host, verb, list(left.values()), deadline))
            wait = deadline.within(kind.settle / 2 if attempt == 1 else kind.settle)
            left = settle(host, kind, scope, left, wait, causes)
        for id in (action.id for action in actions if action.id not in results):
            if id in left:
                results[id] = (Result.FAILED, causes.get(id) or "still there")
            else:
                results[id] = (Result.DONE, "")
    except Exception as error:
        # Whatever went wrong with one batch, the next one is still to be done (a library's errors have no common base).
        said = str(error) if isinstance(error, Fault) else f"{type(error).__name__}: {error}"
        for action in actions:
            results.setdefault(action.id, (Result.FAILED, said))
    seconds = time.monotonic() - began
    return [Outcome(action, *results[action.id], seconds) for action in actions]


def settle(
    host: Host, kind: Kind, scope: Scope, wanted: dict[str, Object], deadline: Deadline, causes: dict[str, str]
) -> dict[str, Object]:
    """Look again until the objects are gone; what failed for a reason is not waited for. Returns those left."""
    for pause in itertools.chain(PAUSES, itertools.repeat(PAUSES[-1])):
        time.sleep(min(pause, deadline.left()))
        present: dict[str, Identity] = {obj.id: obj.identity for obj in relist(host, kind, scope).objects}
        left = {id: obj for id, obj in wanted.items() if present.get(id) == obj.identity}
        if not left or deadline.passed() or all(id in causes for id in left):
            break
    return left
