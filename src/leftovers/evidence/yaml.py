"""YAML of strangers: no aliases, no tags, no types but those of JSON, and an end to size, depth and time.

Only PyYAML's parser is used. What it reports is put together here, so that no constructor (dates, merge keys,
numbers of a million digits, classes) ever sees the text.
"""

from __future__ import annotations

import re
from typing import Any

from leftovers.model import Deadline

__all__ = ["load"]

EVENTS = 1_000_000
DEPTH = 64
SECONDS = 5.0
WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "true": True, "false": False}
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")


def load(data: bytes) -> Any:
    """The one document in `data` as dict, list, str, int, bool and None; a mapping's keys are strings.

    Raises ValueError with a cause of one line.
    """
    try:
        import yaml
    except ImportError:
        raise ValueError("PyYAML is missing (apt install python3-yaml)") from None
    try:
        return assemble(data.decode(), yaml)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "malformed"
        raise ValueError(f"not valid YAML: {problem}") from None
    except UnicodeDecodeError:
        raise ValueError("not valid UTF-8") from None


def assemble(text: str, yaml: Any) -> Any:
    """Put the parser's events together, with a stack of our own instead of recursion."""
    deadline = Deadline(SECONDS)
    stack: list[list[Any]] = [[]]
    events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    for number, event in enumerate(events):
        if number >= EVENTS or (number % 1024 == 0 and deadline.passed()):
            raise ValueError("too large")
        # Ten aliases of aliases are a billion nodes; no product writes any.
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise ValueError("it has an anchor or alias")
        if getattr(event, "tag", None) is not None:
            raise ValueError("it has a tag")
        if isinstance(event, yaml.ScalarEvent):
            stack[-1].append(scalar(event.value, event.implicit[0]))
        elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            if len(stack) > DEPTH:
                raise ValueError("too deep")
            stack.append([])
        elif isinstance(event, yaml.SequenceEndEvent):
            items = stack.pop()
            stack[-1].append(items)
        elif isinstance(event, yaml.MappingEndEvent):
            items = stack.pop()
            stack[-1].append(mapping(items))
    if len(stack[0]) != 1:
        raise ValueError("not one document")
    return stack[0][0]


def scalar(value: str, plain: bool) -> str | int | bool | None:
    """A quoted scalar is a string. Of the plain ones only what Go's yaml writes without quotes gets a type."""
    if not plain:
        return value
    if value in WORDS:
        return WORDS[value]
    return int(value) if INTEGER.fullmatch(value) else value


def mapping(items: list[Any]) -> dict[str, Any]:
    """Keys and values in turn as a dict. Raises ValueError for a key that is no string, or is there twice."""
    keys = items[::2]
    if not all(isinstance(key, str) for key in keys):
        raise ValueError("a key is not a string")
    result = dict(zip(keys, items[1::2], strict=True))
    if len(result) != len(keys):
        raise ValueError("a key is there twice")
    return result
