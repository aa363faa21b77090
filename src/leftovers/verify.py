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
    host: Host, products: Sequence[Product], memory: Mapping[str, Memory], *, data: bool, force: bool
) -> tuple[Survey, Plan]:
    """A new survey and a new plan for the same products: what is left is the plan's left()."""
    seen = survey(host, products, memory)
    return seen, plan(seen, [product.name for product in products], data=data, force=force)
