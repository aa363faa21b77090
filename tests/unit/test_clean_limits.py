"""What a run does before it touches anything."""

import resource

import pytest

from leftovers.clean import open_many_files


@pytest.mark.parametrize("error", [ValueError("not allowed to raise maximum limit"), PermissionError(1, "no")])
def test_a_limit_that_cannot_be_raised_stops_nothing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    asked = []

    def refuse(number: int, limits: tuple[int, int]) -> None:
        asked.append(limits)
        raise error

    monkeypatch.setattr(resource, "setrlimit", refuse)
    open_many_files()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert asked == [(hard, hard)]
