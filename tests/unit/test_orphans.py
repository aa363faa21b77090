"""What is too young is looked at twice, and only what is the same object both times is an orphan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from leftovers import orphans
from leftovers.host import Host
from leftovers.ledger import Ledger
from leftovers.model import Claim, Evidence, Object, Presence, Role, Scope, Verb
from leftovers.orphans import Search
from leftovers.survey import Survey


def orphan(key: str, identity: int = 1, age: float = 0.0) -> Claim:
    obj = Object("link", key, (4026531840, identity, key))
    return Claim("docker", obj, Role.LIVE, True, "its veth", (Evidence("kernel", "seen"),), orphan="gone", age=age)


@dataclass
class World:
    """What is to be seen at each look; time passes only while somebody sleeps, and a second in each look."""

    looks: list[list[Claim]]
    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def survey(self, host: object, products: object, memory: object, *, deep: bool = False) -> Survey:
        assert deep
        self.now += 1.0
        claims = {claim.object.id: {"docker": claim} for claim in self.looks.pop(0)}
        return Survey("boot", Scope(), {}, claims, {"docker": Presence.INSTALLED}, {}, {}, ())

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


def search(monkeypatch: pytest.MonkeyPatch, *looks: Sequence[Claim], age: float = 60.0) -> tuple[Search, World]:
    world = World([list(look) for look in looks])
    monkeypatch.setattr(orphans, "survey", world.survey)
    monkeypatch.setattr(orphans, "remember", lambda ledger, products: {})
    monkeypatch.setattr(orphans.time, "monotonic", world.monotonic)
    host = Host("/nowhere")
    return Search(host, Ledger(host), [], ["docker"], age, world.sleep), world


def gone(found: object) -> list[str]:
    return [action.object.key for action in found.doing()]  # type: ignore[attr-defined]


def test_nothing_found_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    looking, world = search(monkeypatch, [])
    _, found = looking.find()
    assert found.actions == () and world.slept == []


def test_what_is_proven_old_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    looking, world = search(monkeypatch, [orphan("v", age=61.0)])
    assert gone(looking.find()[1]) == ["v"] and world.slept == []


def test_what_may_be_young_must_be_there_at_both_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[int, float]] = []
    looking, world = search(
        monkeypatch, [orphan("v"), orphan("made"), orphan("old", age=99.0)], [orphan("v"), orphan("new"), orphan("old")]
    )
    _, found = looking.find(lambda number, seconds: said.append((number, seconds)))
    # "old" shows its age no more, but was seen before; "made" has got its container; "new" came meanwhile.
    assert gone(found) == ["old", "v"]
    assert [action.object.key for action in found.keeping()] == ["new"]
    assert said == [(2, 60.0)] and world.slept == [60.0]


def test_an_object_that_was_made_again_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    looking, _ = search(monkeypatch, [orphan("v", 1)], [orphan("v", 2)])
    assert gone(looking.find()[1]) == []


def test_what_was_none_in_between_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    looking, world = search(monkeypatch, [orphan("v")], [], [orphan("v")])
    looking.find()
    world.sleep(100.0)
    assert gone(looking.look()[1]) == []


def test_a_proven_age_that_is_too_low_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    looking, world = search(monkeypatch, [orphan("v", age=59.0)], [orphan("v", age=120.0)])
    _, found = looking.find()
    assert gone(found) == ["v"] and len(world.slept) == 1
    assert all(action.verb is Verb.REMOVE for action in found.actions)


def test_no_age_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    looking, world = search(monkeypatch, [orphan("v")], age=0.0)
    assert gone(looking.find()[1]) == ["v"] and world.slept == []


def test_the_claim_of_another_kind_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = replace(orphan("healthy"), orphan="")
    looking, _ = search(monkeypatch, [orphan("v", age=61.0), healthy])
    _, found = looking.find()
    assert [action.object.key for action in found.actions] == ["v"]


def test_what_is_an_orphan_only_when_it_is_swept_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon dies while we sweep, say, and all that it had seems to be old and nobody's."""
    looking, _ = search(
        monkeypatch, [orphan("v", age=99.0)], [orphan("v", age=99.0), orphan("new", age=99.0), orphan("w", 2, age=99.0)]
    )
    _, found = looking.find()
    agreed = {(action.id, action.object.identity) for action in found.doing()} | {("link:w", (4026531840, 1, "w"))}
    _, later = looking.again(agreed)
    assert gone(later) == ["v"]
    assert [action.object.key for action in later.left()] == ["new", "v", "w"]
    assert all("found only now" in action.reason for action in later.keeping())
