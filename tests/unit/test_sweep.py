"""The engine with kinds of its own: identities, batches, second tries, faults. No host is touched."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import pytest

import leftovers.sweep as engine
from leftovers.errors import Unreadable
from leftovers.host import Host
from leftovers.kinds import Kind, Look
from leftovers.model import Action, Deadline, Evidence, Listing, Object, Outcome, Plan, Result, Scope, Verb

PROOF = (Evidence("kernel", "seen"),)


class World(Kind):
    """A kind whose objects are a dict; acting on one removes it after as many tries as the test says."""

    name: ClassVar[str] = "thing"
    title: ClassVar[str] = "things"
    settle: ClassVar[float] = 0.2

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.tries: dict[str, int] = {}
        self.causes: dict[str, str] = {}
        self.acted: list[list[str]] = []
        self.broken = False

    def survey(self, look: Look) -> Listing:
        return Listing(tuple(self.objects.values()))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        self.acted.append([obj.key for obj in objects])
        for obj in objects:
            self.tries[obj.key] = self.tries.get(obj.key, 1) - 1
            if self.tries[obj.key] <= 0 and obj.id not in self.causes:
                del self.objects[obj.key]
        return self.causes

    def put(self, key: str, number: int = 1) -> Object:
        self.objects[key] = Object("thing", key, (key, number), {"fresh": number})
        return self.objects[key]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(engine, "KINDS", (world,))

    def relist(host: Host, kind: Kind, scope: Scope) -> Listing:
        if world.broken:
            raise Unreadable("things", "gone blind")
        return kind.survey(Look(host, scope))

    monkeypatch.setattr(engine, "relist", relist)
    return world


def action(obj: Object, rank: int = 0, verb: Verb = Verb.REMOVE) -> Action:
    return Action(verb, obj, "incus", "because", PROOF, rank)


def sweep(*actions: Action, noted: list[Outcome] | None = None) -> dict[str, Outcome]:
    noted = [] if noted is None else noted
    plan = Plan(("incus",), tuple(actions))
    outcomes = engine.sweep(Host(), plan, Scope(), Deadline(5), note=noted.extend)
    assert noted == outcomes, "the ledger is told of everything"
    return {outcome.action.object.key: outcome for outcome in outcomes}


def test_all_of_a_rank_in_one_batch_and_ranks_one_after_the_other(world: World) -> None:
    a, b, c = world.put("a"), world.put("b"), world.put("c")
    done = sweep(action(a), action(b), action(c, rank=1))
    assert world.acted == [["a", "b"], ["c"]]
    assert {outcome.result for outcome in done.values()} == {Result.DONE}


class Spaces(World):
    name: ClassVar[str] = "netns"


@pytest.mark.parametrize("fails", [True, False])
def test_a_namespace_stays_while_what_was_lent_into_it_does(
    world: World, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    spaces = Spaces()
    monkeypatch.setattr(engine, "KINDS", (world, spaces))
    for key in ("88", "99"):
        spaces.objects[key] = Object("netns", key, (int(key),), {})
    card = world.objects["card"] = Object("thing", "card", ("card", 1), {"netns": 88})
    world.causes = {card.id: "cannot be given back"} if fails else {}
    done = sweep(action(card, verb=Verb.RETURN), *map(action, spaces.objects.values()))
    assert done["99"].result is Result.DONE
    assert done["88"].result is (Result.FAILED if fails else Result.DONE) and ("88" in spaces.objects) is fails


def test_removed_means_listed_again_and_not_there(world: World) -> None:
    world.tries["a"] = 99  # says that it did it, and did not
    assert sweep(action(world.put("a")))["a"].result is Result.FAILED
    assert len(world.acted) == 2, "one more try"


def test_what_the_kernel_releases_late_is_tried_again(world: World) -> None:
    world.tries["a"] = 2
    assert sweep(action(world.put("a")))["a"].result is Result.DONE


def test_what_vanished_by_itself_is_no_failure(world: World) -> None:
    gone = Object("thing", "gone", ("gone", 1))
    assert sweep(action(gone), action(world.put("a")))["gone"].result is Result.GONE
    assert world.acted == [["a"]]


def test_another_object_of_that_name_is_left_alone(world: World) -> None:
    old = world.put("a", 1)
    world.put("a", 2)
    assert sweep(action(old))["a"].result is Result.CHANGED
    assert world.acted == [] and "a" in world.objects


def test_one_failure_does_not_stop_the_others_and_is_not_waited_for(world: World) -> None:
    a, b = world.put("a"), world.put("b")
    world.causes["thing:a"] = "busy"
    done = sweep(action(a), action(b))
    assert (done["a"].result, done["a"].detail) == (Result.FAILED, "busy")
    assert done["b"].result is Result.DONE


def test_what_is_kept_is_never_acted_on(world: World) -> None:
    assert sweep(action(world.put("a"), verb=Verb.KEEP)) == {}
    assert world.acted == [] and "a" in world.objects


def test_the_kind_sees_fresh_facts_and_what_the_product_added(world: World) -> None:
    seen: list[Object] = []
    old = Object("thing", "a", ("a", 1), {"fresh": 0, "home_name": "eth0"})
    world.put("a", 1)
    original = world.act

    def act(host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        seen.extend(objects)
        return original(host, verb, objects, deadline)

    world.act = act  # type: ignore[method-assign]
    sweep(action(old))
    assert seen[0].facts == {"fresh": 1, "home_name": "eth0"}


def test_a_kind_that_cannot_be_listed_fails_its_actions_and_says_so(world: World) -> None:
    a = world.put("a")
    world.broken = True
    done = sweep(action(a))
    assert done["a"].result is Result.FAILED and "gone blind" in done["a"].detail
    assert world.acted == [], "what cannot be looked at is not acted on"
