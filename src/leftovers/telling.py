"""What `explain` and `tree` have found, as text for people and as JSON for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from leftovers.explain import Answer, State, about
from leftovers.kinds import KINDS
from leftovers.model import Evidence, Instance, Object, Presence
from leftovers.products import load
from leftovers.relations import PAIRS, Step
from leftovers.report import Colour, label, printable, shortened
from leftovers.tree import Branch, Trunk

__all__ = ["answers_json", "answers_text", "tree_json", "tree_text"]

TITLES = {kind.name: kind.title for kind in KINDS}
# Of what depends on an object in one way so many are told in JSON, and the number of all.
MANY = 1000
ID = re.compile(r"[0-9a-f]{64}")
# What people look for comes first.
ORDER = tuple(dict.fromkeys(("process", "link", "netns", "cgroup", "mount", *TITLES)))
VERBS = {"is": "are", "has": "have"}
# (before an entry, before the last one, below an entry, below the last one)
UTF8 = ("├─ ", "└─ ", "│  ", "   ")
ASCII = ("|- ", "`- ", "|  ", "   ")


# -- explain ------------------------------------------------------------------------------------------------------


def answers_text(answers: Sequence[Answer], colour: Colour, verbose: bool) -> str:
    return "\n\n".join("\n".join(answer_lines(answer, colour, verbose)) for answer in answers)


def answer_lines(answer: Answer, colour: Colour, verbose: bool) -> list[str]:
    kind = answer.id.partition(":")[0]
    name = label(answer.object) if answer.object is not None else printable(answer.name)
    lines = [f"{kind} {name}: {printable(answer.what)}"]
    lines.append(f"  {colour.word(answer.state.value, 0)}{whose(answer)}: {printable(answer.why)}")
    lines += [f"    -> {printable(said.text)}" for said in answer.chain]
    shown = {said.text for said in answer.chain}
    for claim in answer.claims:
        said = [each for each in claim.evidence if each.text not in shown]
        if said or claim.product != answer.product:
            word = "proven" if claim.proven else "not proven"
            lines.append(f"  {claim.product} ({word}): {printable(claim.reason)}")
        lines += [f"    [{each.source}] {printable(each.text)}" for each in said]
    if answer.hints:
        lines.append("  what is known besides, and proves nothing")
        lines += [f"    [{each.source}] {printable(each.text)}" for each in answer.hints]
    lines += dependant_lines(answer.dependants, verbose)
    if verbose and answer.object is not None:
        for fact, value in sorted(answer.object.facts.items()):
            if value not in ("", 0, [], False, None):
                lines.append(f"    {fact}: {printable(json.dumps(value, ensure_ascii=False))[:160]}")
    lines.append(f"  to do: {to_do(answer)}")
    return lines


def whose(answer: Answer) -> str:
    """ ", Docker's (package docker.io)"; nothing for what is nobody's."""
    if not answer.product:
        return ""
    title = load(answer.product).title
    package = f" (package {answer.package})" if answer.package else " (no package has it)"
    if answer.package.startswith("snap "):
        package = ""
    return f", {printable(title)}'s{package}"


def to_do(answer: Answer) -> str:
    if answer.advice:
        return printable(answer.advice)
    if answer.state is State.UNKNOWN:
        return "leftovers leaves it alone"
    if answer.state is State.IN_USE:
        user = answer.instance if not answer.id.startswith("instance:") else None
        return "nothing, it is in use" + (f" by {printable(user.name)}" if user else "")
    return "nothing"


def dependant_lines(steps: Sequence[Step], verbose: bool) -> list[str]:
    groups: dict[tuple[str, str], list[str]] = {}
    for step in steps:
        groups.setdefault((step.text, step.object.kind), []).append(label(step.object))
    lines = ["  what depends on it"] if groups else []
    for (text, kind), names in groups.items():
        if verbose:
            lines += [f"    {kind} {name} {text}" for name in names]
        else:
            number = f"{len(names)} {TITLES[kind]}" if len(names) > 1 else kind
            lines.append(f"    {number} {shortened(names)} {plural(text) if len(names) > 1 else text}")
    return lines


def plural(text: str) -> str:
    """The same of several: "are a port of it"."""
    verb, _, rest = text.partition(" ")
    return f"{VERBS.get(verb) or verb.removesuffix('s')} {rest}"


def answers_json(asked: str, answers: Sequence[Answer]) -> list[dict[str, Any]]:
    return [
        {
            "asked": asked,
            "id": answer.id,
            "kind": answer.id.partition(":")[0],
            "name": answer.name,
            "what": answer.what,
            "state": answer.state.value,
            "why": answer.why,
            "product": answer.product,
            "package": answer.package,
            "instance": None if answer.instance is None else instance_json(answer.instance),
            "chain": evidence_json(answer.chain),
            "claims": [
                {
                    "product": claim.product,
                    "proven": claim.proven,
                    "role": claim.role.value,
                    "reason": claim.reason,
                    "evidence": evidence_json(claim.evidence),
                }
                for claim in answer.claims
            ],
            "hints": evidence_json(answer.hints),
            "dependants": [{"id": step.object.id, "text": step.text} for step in answer.dependants[:MANY]],
            "dependants_total": len(answer.dependants),
            "action": answer.action.verb.value if answer.action is not None else "",
            "advice": answer.advice,
        }
        for answer in answers
    ]


def evidence_json(said: Iterable[Evidence]) -> list[dict[str, str]]:
    return [{"source": each.source, "text": each.text} for each in said]


def instance_json(instance: Instance) -> dict[str, Any]:
    return {
        "product": instance.product,
        "id": instance.id,
        "name": instance.name,
        "image": instance.image,
        "created": instance.created,
        "state": instance.state,
        "evidence": {"source": instance.evidence.source, "text": instance.evidence.text},
    }


# -- tree ---------------------------------------------------------------------------------------------------------


def tree_text(trunks: Sequence[Trunk], utf8: bool, verbose: bool) -> str:
    lines: list[str] = []
    for trunk in trunks:
        title = load(trunk.name).title
        state = "installed" if trunk.presence is Presence.INSTALLED else "not installed"
        lines.append(f"{trunk.name}: {printable(title)}, {state}")
        entries = [(head(branch), content(branch, verbose)) for branch in trunk.branches]
        if trunk.shared:
            entries.append(("besides", besides(trunk, verbose)))
        lines += drawn(entries, UTF8 if utf8 else ASCII)
    return "\n".join(lines)


def drawn(entries: Sequence[tuple[str, Sequence[str]]], marks: tuple[str, str, str, str]) -> list[str]:
    lines = []
    for number, (text, below) in enumerate(entries):
        last = number == len(entries) - 1
        lines.append(marks[last] + text)
        lines += [marks[2 + last] + marks[place == len(below) - 1] + each for place, each in enumerate(below)]
    return lines


def head(branch: Branch) -> str:
    instance = branch.instance
    name = instance.name
    if len(instance.id) == 64 and name != instance.id[:12]:
        name += f" ({instance.id[:12]})"
    said = about(instance)
    return printable(name if said.startswith("nothing") else f"{name}: {said}")


def content(branch: Branch, verbose: bool) -> list[str]:
    """What is nobody's comes first of its kind: it must not be among those that are only counted."""
    kinds: dict[str, list[str]] = {}
    here = {(obj.facts["netns"], obj.facts["name"]) for obj in branch.objects if obj.kind == "link"}
    for obj in sorted(branch.objects, key=lambda obj: obj.id not in branch.others):
        if not verbose and inner(obj) and (obj.facts["peer_netns"], obj.facts["peer"]) in here:
            continue  # told with its other end
        name = shown(obj, verbose) + (" (nobody's that leftovers knows)" if obj.id in branch.others else "")
        kinds.setdefault(obj.kind, []).append(name)
    return listed(kinds, verbose)


def inner(obj: Object) -> bool:
    """Whether it is that end of a pair which is not the host's."""
    return obj.kind == "link" and obj.facts["type"] in PAIRS and not obj.facts["host"]


def besides(trunk: Trunk, verbose: bool) -> list[str]:
    kinds: dict[str, list[str]] = {}
    for claim in trunk.shared:
        kinds.setdefault(claim.object.kind, []).append(shown(claim.object, verbose))
    return listed(kinds, verbose)


def listed(kinds: Mapping[str, Sequence[str]], verbose: bool) -> list[str]:
    kinds = {kind: kinds[kind] for kind in ORDER if kind in kinds}
    if verbose:
        return [f"{kind} {name}" for kind, names in kinds.items() for name in names]
    return [f"{TITLES[kind]}: {shortened(names)}" for kind, names in kinds.items()]


def shown(obj: Object, verbose: bool) -> str:
    if obj.kind == "link" and obj.facts["peer"] and obj.facts["type"] in PAIRS:
        return printable(f"{obj.key if verbose else obj.facts['name']} -> {obj.facts['peer']}")
    if obj.kind == "link" and not verbose:
        return printable(str(obj.facts["name"]))
    return label(obj) if verbose else ID.sub(lambda match: f"{match[0][:12]}...", label(obj))


def tree_json(trunks: Sequence[Trunk]) -> list[dict[str, Any]]:
    """For each product its containers with the ids of their objects, and the ids of what it has besides."""
    return [
        {
            "product": trunk.name,
            "presence": trunk.presence.value,
            "instances": [
                {
                    **instance_json(branch.instance),
                    "objects": [obj.id for obj in branch.objects],
                    "unclaimed": sorted(branch.others),
                }
                for branch in trunk.branches
            ],
            "besides": [claim.object.id for claim in trunk.shared],
        }
        for trunk in trunks
    ]
