"""How things are told: text for people, one JSON document for programs. Nothing here knows what to do."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from leftovers import sizes
from leftovers.kinds import KINDS
from leftovers.model import Action, Object, Outcome, Plan, Presence, Result, Verb

__all__ = ["FORMAT", "Bar", "Colour", "document", "plan_text", "printable", "summary"]

FORMAT = "1.1"  # 1.1: answers (explain), tree
TITLES = {kind.name: kind.title for kind in KINDS}
# Names of a group are shown up to this many characters unless everything is asked for.
SHOWN = 72
COLOURS = {"remove": "31", "return": "36", "keep": "32", "failed": "31;1", "changed": "33", "unread": "33;1"}
COLOURS |= {"in use": "32", "kept": "32", "orphaned": "31", "left over": "31", "unknown": "33"}


class Colour:
    """Colours the leading word, on a terminal that wants it (no-color.org)."""

    def __init__(self, when: str, stream: TextIO) -> None:
        wanted = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("NO_COLOR")
        self.on = when == "always" or (when == "auto" and wanted)

    def word(self, word: str, width: int = 7) -> str:
        padded = word.ljust(width)
        return f"\x1b[{COLOURS[word]}m{padded}\x1b[0m" if self.on and word in COLOURS else padded


class Bar:
    """A progress bar on a terminal, once something takes long; otherwise silent."""

    def __init__(self, stream: TextIO, patience: float = 0.7) -> None:
        self.stream = stream
        self.since = time.monotonic() + patience
        self.shown = False

    def __call__(self, title: str, done: int, total: int) -> None:
        if not self.stream.isatty() or (time.monotonic() < self.since and not self.shown):
            return
        self.shown = True
        width = 24
        filled = width * done // max(1, total)
        line = f"\r[{'#' * filled}{' ' * (width - filled)}] {done}/{total} {title}"
        self.stream.write(line.ljust(78) if title else "\r".ljust(79) + "\r")
        self.stream.flush()


def printable(text: str) -> str:
    """A name as it may be shown: containers choose names, and a terminal obeys escape sequences."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def label(obj: Object) -> str:
    """What a person calls an object."""
    if obj.kind == "process":
        argv = obj.facts.get("argv") or [obj.facts.get("exe", "")]
        title = str(argv[0])
        # A title that a program gave itself says most at its end: "[lxc monitor] /var/lib/incus/containers NAME".
        name = title.rpartition(" ")[2] if title.startswith("[") else os.path.basename(title)
        return printable(f"{obj.key} {name[:40]}")
    return printable(obj.key)


def plan_text(plan: Plan, presence: Mapping[str, Presence], colour: Colour, everything: bool = False) -> str:
    """A plan for people: what goes in groups, what stays one by one with its reason."""
    lines: list[str] = []
    for product in plan.products:
        actions = [action for action in plan.actions if action.product == product]
        if not actions:
            continue
        lines.append(f"{product}: {said_of(presence[product])}")
        lines += grouped([action for action in actions if action.verb is not Verb.KEEP], colour, everything)
        lines += grouped([action for action in actions if action.verb is Verb.KEEP], colour, everything)
    lines += [f"{colour.word('unread')} {printable(fault)}" for fault in plan.faults]
    return "\n".join(lines)


def said_of(presence: Presence) -> str:
    return {
        Presence.INSTALLED: "installed",
        Presence.REMOVED: "removed, not purged: its data stays unless --data is given",
        Presence.ABSENT: "not installed",
    }[presence]


def grouped(actions: Sequence[Action], colour: Colour, everything: bool) -> list[str]:
    """One line for each verb, kind and reason; each object by itself when everything is asked for. What is kept
    alone is told with its evidence: that is what a person wants to judge."""
    groups: dict[tuple[str, str, str, str], list[Action]] = {}
    for action in actions:
        groups.setdefault((action.verb.value, action.object.kind, action.reason, action.advice), []).append(action)
    lines = []
    for (verb, kind, reason, advice), group in groups.items():
        by_hand = f" -> {printable(advice)}" if advice else ""
        if everything:
            for action in group:
                lines.append(f"  {colour.word(verb)} {kind} {label(action.object)}: {reason}{by_hand}")
                lines += [f"            [{said.source}] {printable(said.text)}" for said in action.evidence]
            continue
        names = shortened([label(action.object) for action in group])
        if verb == Verb.KEEP.value and len(group) == 1:
            reason += f" ({printable('; '.join(said.text for said in group[0].evidence[:2]))})"
        if advice.endswith("--data") and kind == "file":
            names += f", {size}" if (size := sizes.words(action.object.key for action in group)) else ""
        lines.append(f"  {colour.word(verb)} {len(group):4} {TITLES[kind]}: {names}: {reason}{by_hand}")
    return lines


def shortened(names: Sequence[str]) -> str:
    """As many names as fit, at least one, and how many more there are."""
    shown = 1
    while shown < len(names) and len(", ".join(names[: shown + 1])) <= SHOWN:
        shown += 1
    more = f" and {len(names) - shown} more" if shown < len(names) else ""
    return ", ".join(names[:shown]) + more


def summary(plan: Plan) -> str:
    """One line of counts."""
    removing = sum(action.verb is Verb.REMOVE for action in plan.actions)
    returning = sum(action.verb is Verb.RETURN for action in plan.actions)
    left = sum(action.counts for action in plan.keeping())
    text = f"{removing} to remove"
    if returning:
        text += f", {returning} to give back"
    text += f", {len(plan.keeping())} kept"
    return text + (f" ({left} of them left over)" if left else "")


def removal_line(
    title: str,
    name: str,
    gone: Mapping[str, int],
    seconds: float,
    kept: Sequence[Action],
    left: Sequence[Action],
    unread: int = 0,
) -> str:
    """How a removal ended, in one line: what went by kind, what stays and why, what could not be removed."""
    kinds = ", ".join(f"{number} {TITLES[kind]}" for kind, number in gone.items())
    text = f"{title}: {sum(gone.values())} gone in {seconds:.1f} s" + (f" ({kinds})" if kinds else "")
    data = [action for action in kept if action.advice.endswith("--data")]
    if data:
        paths = sized([action.object.key for action in data])
        text += f"; kept: {paths} ({data[0].reason.partition(':')[0]}; they go with: leftovers clean {name} --data)"
    remote = [action for action in kept if action.object.kind == "elsewhere"]
    for action in remote[:2]:
        advice = f" ({printable(action.advice)})" if action.advice else ""
        text += f"; {label(action.object)}: {printable(action.reason)}{advice}"
    others = len(kept) - len(data) - len(remote[:2])
    if others:
        text += f"; {others} more stay{'s' if others == 1 else ''} on purpose (leftovers scan {name})"
    if left:
        text += f"; {len(left)} LEFT: leftovers verify {name}"
    elif not unread:
        text += "; nothing is left"
    return text + (f"; NOT ALL could be read: leftovers scan {name}" if unread else "")


def sized(paths: Sequence[str]) -> str:
    """Where data is that stays, and how much."""
    size = sizes.words(path for path in paths if path.startswith("/"))
    return places(paths) + (f", {size}" if size else "")


def places(paths: Sequence[str]) -> str:
    """Where these paths are, in a few words: of many in one directory, that directory."""
    if len(paths) > 2:
        common = os.path.commonpath(paths)
        if common.count("/") > 1:
            return f"{printable(common)} ({len(paths)} directories)"
    return shortened([printable(path) for path in paths])


def outcome_text(outcomes: Sequence[Outcome], colour: Colour) -> str:
    """What did not go as planned, a line each."""
    lines = []
    for outcome in outcomes:
        if outcome.result in (Result.FAILED, Result.CHANGED):
            name = f"{outcome.action.object.kind} {label(outcome.action.object)}"
            lines.append(f"{colour.word(outcome.result.value)} {name}: {printable(outcome.detail)}")
    return "\n".join(lines)


def document(
    command: str,
    plan: Plan,
    presence: Mapping[str, Presence],
    outcomes: Sequence[Outcome] = (),
    left: Plan | None = None,
    more: Mapping[str, Any] | None = None,
) -> str:
    """The one JSON document of a command. `more` is what only this command has to tell."""
    results = {outcome.action.id: outcome for outcome in outcomes}
    body: dict[str, Any] = {
        "format_version": FORMAT,
        "command": command,
        "complete": not plan.faults,
        "products": [{"name": name, "presence": presence[name].value} for name in plan.products],
        "objects": [entry(action, results.get(action.id)) for action in plan.actions],
        "faults": list(plan.faults),
        "summary": {
            "remove": sum(action.verb is Verb.REMOVE for action in plan.actions),
            "return": sum(action.verb is Verb.RETURN for action in plan.actions),
            "keep": len(plan.keeping()),
            "left": len(plan.left() if left is None else left.left()),
        },
    }
    if left is not None:
        body["left"] = [entry(action, None) for action in left.left()]
    return json.dumps({**body, **(more or {})}, indent=1)


def entry(action: Action, outcome: Outcome | None) -> dict[str, Any]:
    said: dict[str, Any] = {
        "id": action.id,
        "kind": action.object.kind,
        "name": action.object.key,
        "product": action.product,
        "action": action.verb.value,
        "counts": action.verb is not Verb.KEEP or action.counts,
        "reason": action.reason,
        "advice": action.advice,
        "evidence": [{"source": evidence.source, "text": evidence.text} for evidence in action.evidence],
    }
    if outcome is not None:
        said["result"] = outcome.result.value
        said["detail"] = outcome.detail
    return said


def utf8() -> bool:
    """Whether the locale has more than ASCII (locale(7): which variable counts)."""
    names = (os.environ.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG"))
    return next(filter(None, names), "").lower().replace("-", "").endswith("utf8")


def to_stdout(text: str) -> None:
    """Data goes to stdout; names that are not UTF-8 go as escapes instead of failing. A reader that went away
    (`| head`), a full disk, a stdout that is closed decide nothing: what was begun goes on, unread."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text.encode("utf-8", "backslashreplace").decode() + ("" if text.endswith("\n") else "\n"))
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
