"""Products, their containers, and what of the host each of these has; and what a product has besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from leftovers.explain import Explainer, owner_of
from leftovers.model import Claim, Instance, Object, Presence, Role
from leftovers.plan import settled

__all__ = ["Branch", "Trunk", "grown"]

# What hangs on a container whoever made it: it ends with it. Of other kinds only what is proven counts.
HANGS = ("process", "link", "netns", "cgroup")


@dataclass
class Branch:
    """A container and its objects, in the order of their kinds; `others` are those of them that nobody has proven."""

    instance: Instance
    objects: list[Object] = field(default_factory=list)
    others: set[str] = field(default_factory=set)


@dataclass
class Trunk:
    """A product, its containers, and what is proven its own and no container's."""

    name: str
    presence: Presence
    branches: list[Branch] = field(default_factory=list)
    shared: list[Claim] = field(default_factory=list)


def grown(explainer: Explainer, names: Sequence[str]) -> list[Trunk]:
    """The trees of those of these products that have anything on the host, from a deep look."""
    survey = explainer.survey
    trunks = {name: Trunk(name, survey.presence[name]) for name in survey.presence if name in names}
    branches = {
        (instance.product, instance.id): Branch(instance)
        for instance in explainer.instances
        if instance.product in trunks
    }
    shares = explainer.relations.shares(explainer.ties)
    for objects in survey.listed.values():
        for obj in objects:
            claims = settled(survey.claims.get(obj.id, {}), survey.presence, survey.tenants, tuple(survey.presence))
            owner = owner_of(claims) or (None if claims else explainer.goes_with(obj)[0])
            instance = shares.get(obj.id)
            if obj.kind == "link" and obj.facts["type"] == "loopback":
                continue
            branch = branches.get((instance.product, instance.id)) if instance is not None else None
            if branch is not None and instance is not None:
                own = owner is not None and owner.product == instance.product
                if own or obj.kind in HANGS:
                    branch.objects.append(obj)
                    if not own and obj.kind == "link" and obj.facts["host"]:
                        branch.others.add(obj.id)
                    continue
            if owner is not None and owner.product in trunks and owner.role not in (Role.SYSTEM, Role.ADMIN):
                trunks[owner.product].shared.append(owner)
    for branch in branches.values():
        trunks[branch.instance.product].branches.append(branch)
    return [trunk for trunk in trunks.values() if trunk.branches or trunk.shared]
