"""JSON that others wrote: an object or nothing, and values only when they are of the type that was asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from leftovers.errors import Unreadable
from leftovers.evidence import files
from leftovers.evidence.files import note
from leftovers.host import Host

__all__ = ["is_path", "load", "mapping", "number", "objects", "paths", "read", "strings", "text"]

# Strings that are taken from one document.
STRINGS = 1000
LONGEST = 4096


def load(data: bytes) -> dict[str, Any]:
    """The object in a JSON text. Raises ValueError."""
    try:
        document = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document


def read(host: Host, base: str, below: str, limit: int, faults: list[str]) -> dict[str, Any] | None:
    """The object in a file; None when it is absent, or for a fault, which is noted."""
    path = f"{base}/{below}"
    try:
        data = files.read(host, base, below, limit)
        return None if data is None else load(data)
    except Unreadable as error:
        note(faults, error.what, error.cause)
    except ValueError as error:
        note(faults, path, f"not JSON: {str(error)[:200]}")
    return None


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects in a list."""
    return [each for each in value[:STRINGS] if isinstance(each, dict)] if isinstance(value, list) else []


def strings(value: Any) -> list[str]:
    """The texts in a list."""
    return [text(each) for each in value[:STRINGS] if text(each)] if isinstance(value, list) else []


def text(value: Any) -> str:
    """A string without control characters and undecodable bytes; else ""."""
    if not isinstance(value, str) or len(value) > LONGEST:
        return ""
    return value if files.proper(value.replace("/", "")) else ""


def number(value: Any) -> int:
    """A count or a pid; 0 for anything else."""
    return value if type(value) is int and 0 < value < 1 << 63 else 0


def is_path(value: Any) -> bool:
    """An absolute path that is written as the kernel would write it."""
    return (
        isinstance(value, str) and value.startswith("/") and text(value) == value and os.path.normpath(value) == value
    )


def paths(document: Any) -> list[str]:
    """All absolute paths among the strings of a document, at any depth."""
    found: list[str] = []
    todo = [document]
    while todo and len(found) < STRINGS:
        value = todo.pop()
        if isinstance(value, dict):
            todo += value.values()
        elif isinstance(value, list):
            todo += value
        elif is_path(value):
            found.append(value)
    return sorted(set(found))
