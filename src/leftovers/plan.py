"""From what was found to what is to be done: a pure function, and the one table of policy (design: "Policy")."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from leftovers.kinds import KINDS
from leftovers.model import Action, Claim, Plan, Presence, Role, Verb
from leftovers.survey import Survey

__all__ = ["TOO_YOUNG", "UNPURGED", "decide", "orphans", "plan", "settled"]

ORDER = {kind.name: number for number, kind in enumerate(KINDS)}
# Why data stays that the package's own purge will remove.
UNPURGED = ", the package is removed but not purged"
# Why an orphan stays that may be a container in the making.
TOO_YOUNG = ", and too young to tell"
# What others are only connected with: nothing of theirs is in it.
KNOWN = ("link", "nft", "xtables", "ovs")
# What can be said of a role by presence of the package. What is not named here is kept.
REMOVES = {
    (Role.LIVE, Presence.REMOVED),
    (Role.LIVE, Presence.ABSENT),
    (Role.DATA, Presence.ABSENT),
}


def plan(survey: Survey, products: Sequence[str], *, data: bool = False, force: bool = False) -> Plan:
    """Decide about every object that some product has a word about.

    data   also what policy keeps: data of a package that is removed but not purged, volumes at other places
    force  treat an installed product of these as if its package were removed
    """
    presence = {
        name: Presence.REMOVED if force and name in products and present is Presence.INSTALLED else present
        for name, present in survey.presence.items()
    }
    actions = [
        action
        for claims in survey.claims.values()
        for action in decide(settled(claims, presence, survey.tenants, products), presence, data)
        if action.product in products
    ]
    return ordered(survey, products, actions)


def orphans(survey: Survey, products: Sequence[str], old: Callable[[Claim], bool]) -> Plan:
    """What of installed products belongs to no container that exists, from a deep look. What is not `old` enough may
    be in the making, and stays; so does what somebody else has a word about."""
    actions = []
    for claims in survey.claims.values():
        left = settled(claims, survey.presence, survey.tenants, products)
        for claim in left.values():
            if not claim.orphan or claim.product not in products:
                continue
            others = [other for other in left.values() if other is not claim and other.role is not Role.ADMIN]
            verb = Verb.RETURN if claim.role is Role.LENT else Verb.REMOVE
            reason = f"{claim.reason}: {claim.orphan}"
            if others:
                verb, reason = Verb.KEEP, f"{reason}; {others[0].product} says: {others[0].reason}"
            elif claim.collector:
                verb, reason = Verb.KEEP, f"{reason}; left to {claim.collector}, which lives and collects such things"
            elif not old(claim):
                verb, reason = Verb.KEEP, f"{reason}{TOO_YOUNG}"
            elif not claim.proven:
                verb, reason = Verb.KEEP, f"not proven: {reason}"
            advice = claim.advice if verb is Verb.KEEP else ""
            actions.append(Action(verb, claim.object, claim.product, reason, claim.evidence, claim.rank, advice))
    return ordered(survey, products, actions)


def ordered(survey: Survey, products: Sequence[str], actions: Iterable[Action]) -> Plan:
    found = sorted(actions, key=lambda action: (action.product in survey.last, *order(action)))
    return Plan(tuple(products), tuple(found), survey.faults)


def settled(
    claims: Mapping[str, Claim],
    presence: Mapping[str, Presence],
    tenants: Mapping[str, Sequence[str]],
    products: Sequence[str],
) -> Mapping[str, Claim]:
    """The claims on an object without those that are only made for somebody else: a daemon claims all that is in it,
    and its tenants what of that is theirs. A tenant that stays keeps his own, and of a daemon that stays goes what is
    a tenant's who goes; when both go it does not matter whose word it is, if only one of those asked for has it."""
    for landlord, names in tenants.items():
        own = [name for name in names if name in claims and claims[name].proven and claims[name].role is not Role.ADMIN]
        if landlord not in claims or not own:
            continue
        stays = any(presence[name] is Presence.INSTALLED for name in (landlord, *own))
        drop = [landlord] if stays or any(name in products for name in own) else own
        claims = {name: claim for name, claim in claims.items() if name not in drop}
    return claims


def decide(claims: Mapping[str, Claim], presence: Mapping[str, Presence], data: bool) -> Iterable[Action]:
    """One action for an object, of all the claims on it. Where products disagree, it stays. Who only knows a thing as
    somebody else's (a bridge that his container is on) does not speak for the one whose it is."""
    if not claims:
        return []
    owned = [claim for claim in claims.values() if claim.proven and claim.role is not Role.ADMIN]
    known = [claim for claim in claims.values() if claim.role is Role.ADMIN]
    if len(owned) == 1 and len(owned) + len(known) == len(claims):
        return [against(owned[0], known, presence, data)]
    actions = [action_for(claim, presence[claim.product], data) for claim in claims.values()]
    keeping = [action for action in actions if action.verb is Verb.KEEP]
    return [keeping[0] if keeping else actions[0]]


def against(owned: Claim, known: Sequence[Claim], presence: Mapping[str, Presence], data: bool) -> Action:
    """What is to be done with the one owner's object that others know as somebody else's. It stays, and counts, if one
    of these is installed, for he may live with it; and what is no part of the network stays anyhow: of a file system, a
    process or a mount that word may say that somebody uses it, or has his own in it."""
    action = action_for(owned, presence[owned.product], data)
    if action.verb is not Verb.REMOVE:
        return action
    for claim in known:
        if owned.object.kind not in KNOWN or presence[claim.product] is Presence.INSTALLED:
            reason = f"{action.reason}; {claim.product} says: {claim.reason}"
            advice = owned.advice or claim.advice or f"leftovers clean {owned.product}"
            return replace(action, verb=Verb.KEEP, reason=reason, advice=advice, counts=True)
    return action


def action_for(claim: Claim, present: Presence, data: bool) -> Action:
    verb, reason, advice, counts = Verb.KEEP, claim.reason, claim.advice, False
    again = f"leftovers clean {claim.product} --data"
    if not claim.proven:
        counts = claim.role is not Role.ADMIN
        reason = f"not proven: {claim.reason}"
    elif claim.role is Role.HELD:
        counts = present is not Presence.INSTALLED
    elif claim.role is Role.LENT:
        verb = Verb.RETURN if present is not Presence.INSTALLED else Verb.KEEP
    elif (claim.role, present) in REMOVES:
        verb = Verb.REMOVE
    elif claim.role in (Role.DATA, Role.EXTERNAL) and present is not Presence.INSTALLED:
        if data:
            verb = Verb.REMOVE
        else:
            why = UNPURGED if claim.role is Role.DATA else ""
            reason = f"{claim.reason}: kept{why}"
            advice = again
    elif claim.role in (Role.LIVE, Role.DATA, Role.EXTERNAL):
        reason = f"{claim.reason}: in use, {claim.product} is installed"
    return Action(verb, claim.object, claim.product, reason, claim.evidence, claim.rank, advice, counts)


def order(action: Action) -> tuple[int, int, int, str]:
    """What is given back comes first, then kind by kind, then rank by rank; ties are stable for people."""
    return (action.verb is not Verb.RETURN, ORDER[action.object.kind], action.rank, action.object.key)
