"""Whose is this? All that is known about one object: facts, claims, evidence, and what would be done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leftovers.model import Action, Claim, Object
from leftovers.plan import decide
from leftovers.survey import Survey

__all__ = ["Answer", "explain"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of one object. Without claims nobody that leftovers knows has a word about it."""

    object: Object
    claims: Sequence[Claim]
    action: Action | None


def explain(survey: Survey, asked: str) -> list[Answer]:
    """Every object that somebody may mean by `asked`: an id (link:incusbr0), a key, a path, a pid, a unit."""
    found = []
    for objects in survey.listed.values():
        for obj in objects:
            if asked in names(obj):
                claims: Mapping[str, Claim] = survey.claims.get(obj.id, {})
                action = next(iter(decide(claims, survey.presence, False)), None)
                found.append(Answer(obj, tuple(claims.values()), action))
    return found


def names(obj: Object) -> set[str]:
    said = {obj.id, obj.key, f"{obj.kind} {obj.key}"}
    for fact in ("point", "path", "directory", "device", "backing_file", "unit", "name"):
        value = obj.facts.get(fact)
        if isinstance(value, str) and value:
            said.add(value)
    return said
