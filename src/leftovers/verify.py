"""Is it gone? The survey again, with the same eyes; what it still finds is what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leftovers.host import Host
from leftovers.ledger import Memory
from leftovers.model import Plan
from leftovers.plan import plan
from leftovers.products import Product
from leftovers.survey import Survey, survey

__all__ = ["look_again"]


def look_again(
    host: Host,
    products: Sequence[Product],
    memory: Mapping[str, Memory],
    names: Sequence[str],
    *,
    data: bool,
    force: bool,
) -> tuple[Survey, Plan]:
    """A new survey of the same products, and a new plan for those of these names: what is left is its left()."""
    seen = survey(host, products, memory)
    return seen, plan(seen, names, data=data, force=force)
