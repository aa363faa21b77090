"""What of an installed product belongs to no container any more: a daemon crashed, or was killed half-way.

A container in the making looks the same for a moment. So what is not proven to be old is looked at twice, and must be
an orphan both times, as the very same object.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from leftovers.clean import remember
from leftovers.host import Host
from leftovers.ledger import Ledger
from leftovers.model import Claim, Identity, Plan, Verb
from leftovers.plan import TOO_YOUNG, orphans
from leftovers.products import Product
from leftovers.survey import Survey, survey

__all__ = ["Search"]


@dataclass(slots=True)
class Search:
    """A search for orphans older than `age` seconds. `sleep` waits so many seconds."""

    host: Host
    ledger: Ledger
    products: Sequence[Product]
    names: Sequence[str]
    age: float
    sleep: Callable[[float], None] = time.sleep
    first: dict[tuple[str, Identity], float] = field(default_factory=dict)

    def old(self, claim: Claim) -> bool:
        since = self.first.get((claim.object.id, claim.object.identity))
        return claim.age >= self.age or (since is not None and time.monotonic() - since >= self.age)

    def look(self) -> tuple[Survey, Plan]:
        """One look. What it finds for the first time is remembered with the time. Raises Unreadable."""
        began = time.monotonic()
        seen = survey(self.host, self.products, remember(self.ledger, self.products), deep=True)
        found = orphans(seen, self.names, self.old)
        # An object was there when it was listed, some time in this look: so it is as old as its end.
        ended = max(began, time.monotonic())
        now = {(action.id, action.object.identity) for action in found.actions}
        self.first = {key: self.first.get(key, ended) for key in now}
        return seen, found

    def again(self, agreed: Collection[tuple[str, Identity]]) -> tuple[Survey, Plan]:
        """Another look, for what was agreed upon: what is an orphan only now stays until somebody has been asked."""
        seen, found = self.look()
        actions = tuple(
            each
            if each.verb is Verb.KEEP or (each.id, each.object.identity) in agreed
            else replace(each, verb=Verb.KEEP, reason=f"{each.reason}, found only now", counts=True)
            for each in found.actions
        )
        return seen, replace(found, actions=actions)

    def find(self, waits: Callable[[int, float], None] = lambda number, seconds: None) -> tuple[Survey, Plan]:
        """Look, and look again where something may be too young; `waits` is told how many, and for how many seconds."""
        seen, found = self.look()
        young = sum(action.reason.endswith(TOO_YOUNG) for action in found.keeping())
        if not young:
            return seen, found
        seconds = max(0.0, max(self.first.values()) + self.age - time.monotonic())
        waits(young, seconds)
        self.sleep(seconds)
        return self.look()
