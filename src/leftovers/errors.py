"""Faults that a person is told about in one line: the object, the cause, the next command."""

from __future__ import annotations

__all__ = ["Fault", "Refusal", "ToolFault", "ToolMissing", "ToolTimeout", "Unreadable"]


class Fault(Exception):
    """Something went wrong with one object.

    `what` names the object, `cause` says why, `advice` is the next command (or empty).
    """

    def __init__(self, what: str, cause: str, advice: str = "") -> None:
        super().__init__(what, cause, advice)
        self.what = what
        self.cause = cause
        self.advice = advice

    def __str__(self) -> str:
        tail = f" ({self.advice})" if self.advice else ""
        # A name may hold a newline; an error stays one line.
        return f"{self.what}: {self.cause}{tail}".replace("\n", "\\n")


class Refusal(Fault):
    """A guard said no before anything was changed (exit code 4)."""


class Unreadable(Fault):
    """A source of facts could not be read: what was found is not the whole (exit code 1)."""


class ToolFault(Fault):
    """A system tool failed; `cause` holds the first line that it wrote to stderr."""


class ToolMissing(ToolFault):
    """A system tool is not installed."""


class ToolTimeout(ToolFault):
    """A system tool did not end within its deadline and was killed."""
