"""What snapd wrote down: its state file as 2.68 and 2.77 had it (tests/lab/data, cut to one snap)."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from leftovers.daemons import snapd
from leftovers.errors import Unreadable
from leftovers.host import Host
from leftovers.model import Object, Presence
from leftovers.products.product import Product
from leftovers.survey import snap_presence

DATA = pathlib.Path(__file__).parents[2] / "lab/data"
GUARDED, READ = "while a guard of the service stops, in `snap ", "while the description is read, in `snap "
FAILED = "after `snap remove --purge bystander` failed"
VERSIONS = ["2.68", "2.77"]


@pytest.fixture(params=VERSIONS)
def states(request: pytest.FixtureRequest) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((DATA / f"snapd-{request.param}.json").read_text())
    return read


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    (tmp_path / "var/lib/snapd").mkdir(parents=True)
    (tmp_path / "usr/lib/snapd").mkdir(parents=True)
    (tmp_path / "usr/lib/snapd/snapd").touch()
    return Host(str(tmp_path))


def wrote(host: Host, state: Any) -> None:
    pathlib.Path(host.path(snapd.STATE)).write_text(json.dumps(state))


def test_a_removal_under_way(host: Host, states: dict[str, Any]) -> None:
    whole = ("remove bystander`", "remove --purge bystander`")
    for key in (*(GUARDED + each for each in whole), READ + "remove --purge bystander` of a disabled one"):
        wrote(host, states[key])
        change = snapd.removing(host, "bystander")
        assert change is not None and change.removal and change.whole and not change.ready, key
        assert change.snaps == ("bystander",)
        assert snapd.removing(host, "other") is None
        assert snapd.snaps(host)["bystander"].active is key.startswith(GUARDED), "snapd says so until it is unlinked"


def test_what_is_no_removal(host: Host, states: dict[str, Any]) -> None:
    """Nor one of a revision among several, of which nothing stops, nor what is over or is taken back."""
    others = ("restart bystander`", "disable bystander`", "install (a refresh)`")
    keys = [
        *(GUARDED + each for each in others),
        READ + "remove --revision=x1 bystander`",
        FAILED,
        "removed",
        "installed",
    ]
    for key in keys:
        wrote(host, states[key])
        assert snapd.removing(host, "bystander") is None, key
    assert [change.kind for change in snapd.changes(host, "bystander")] == ["install-snap"]
    going = states[GUARDED + "remove bystander`"]
    for status, name in ((5, "Abort"), (6, "Undo"), (9, "Error")):
        next(iter(going["tasks"].values()))["status"] = status
        wrote(host, going)
        assert snapd.removing(host, "bystander") is None, name
        assert snapd.changes(host, "bystander")[-1].status == name


def test_the_revisions_of_a_snap(host: Host, states: dict[str, Any]) -> None:
    wrote(host, states["installed"])
    assert snapd.snaps(host) == {"bystander": snapd.Snap("bystander", True, "x1", ("x1",))}
    wrote(host, states[READ + "remove --revision=x1 bystander`"])
    assert snapd.snaps(host) == {"bystander": snapd.Snap("bystander", True, "x2", ("x1", "x2"))}


PRODUCT = Product(name="m", title="M", packages=(), snaps=("bystander",))


def presence(host: Host, *mounts: Object) -> Presence:
    return snap_presence(host, PRODUCT, {"mount": mounts})[0]


def test_how_much_there_is_of_a_snap(host: Host, states: dict[str, Any], request: pytest.FixtureRequest) -> None:
    failed = Presence.REMOVED if "2.68" in request.node.name else Presence.INSTALLED  # 2.77 takes it back as a whole
    for key, expected in (
        ("installed", Presence.INSTALLED),
        ("disabled", Presence.INSTALLED),
        (GUARDED + "remove --purge bystander`", Presence.INSTALLED),
        (FAILED, failed),
        ("removed", Presence.ABSENT),
    ):
        wrote(host, states[key])
        assert presence(host) is expected, key
    image = Object("mount", "1", (), {"host": True, "point": "/snap/bystander/x3"})
    other = Object("mount", "2", (), {"host": True, "point": "/snap/bystander/x3/lib"})
    assert presence(host, other) is Presence.ABSENT
    assert presence(host, other, image) is Presence.INSTALLED, "whatever it is that snapd does not know"
    wrote(host, states["installed"])
    pathlib.Path(host.path("/usr/lib/snapd/snapd")).unlink()
    assert presence(host) is Presence.REMOVED, "snapd's package is removed, and not purged"


def test_a_removal_that_failed_is_not_the_last_word(host: Host, states: dict[str, Any]) -> None:
    """It was disabled by an administrator since, or is being removed again."""
    state = states[FAILED]
    state["data"]["snaps"]["bystander"]["active"] = False
    wrote(host, state)
    assert presence(host) is Presence.REMOVED
    ((id, change),) = state["changes"].items()
    again = {**change, "id": "998", "task-ids": ["9980"], "spawn-time": "2026-12-01T00:00:00Z"}
    tasks = {**state["tasks"], "9980": {"id": "9980", "kind": "auto-disconnect", "status": 3}}
    wrote(host, {**state, "changes": {id: change, "998": {**again, "ready-time": ""}}, "tasks": tasks})
    assert presence(host) is Presence.INSTALLED
    tasks["9980"] = {"id": "9980", "kind": "unlink-snap", "status": 4}
    for kind, expected in (("disable-snap", Presence.INSTALLED), ("service-control", Presence.REMOVED)):
        wrote(host, {**state, "changes": {id: change, "998": {**again, "kind": kind}}, "tasks": tasks})
        assert presence(host) is expected


@pytest.mark.parametrize("text", ["", "[]", "{", '{"data": 3}', '{"data": {"snaps": []}, "changes": 1}', "[" * 100000])
def test_a_state_that_is_none(host: Host, text: str) -> None:
    pathlib.Path(host.path(snapd.STATE)).write_text(text)
    try:
        assert snapd.snaps(host) == {} and snapd.changes(host, "x") == []
        assert text.startswith('{"data": {')
    except Unreadable as error:
        assert snapd.STATE in str(error)


@pytest.mark.parametrize(
    "change",
    [3, {"data": 1}, {"data": {"snap-names": ["x"]}, "task-ids": 3, "kind": []}, {"data": {"snap-names": ["x"]}}],
)
def test_a_change_that_is_none(host: Host, change: Any) -> None:
    wrote(host, {"changes": {"1": change}, "tasks": [], "data": {"snaps": {"x": {"sequence": 3}, "../y": {}}}})
    assert snapd.removing(host, "x") is None
    assert set(snapd.snaps(host)) <= {"x"}


@pytest.mark.parametrize(
    ("exe", "known"),
    [
        ("/usr/lib/snapd/snapd", True),
        ("/usr/libexec/snapd/snapd", True),
        ("/snap/snapd/23545/usr/lib/snapd/snapd", True),
        ("/snap/core/17200/usr/lib/snapd/snapd", True),
        ("/snap/other/1/usr/lib/snapd/snapd", False),
        ("/usr/lib/snapd/snapd-fips", False),
        ("/srv/usr/lib/snapd/snapd", False),
    ],
)
def test_which_process_it_is(exe: str, known: bool) -> None:
    assert bool(snapd.EXE.match(exe)) is known


def test_what_snapd_is_at(host: Host, states: dict[str, Any]) -> None:
    for key, busy in (("installed", set()), (GUARDED + "install (a refresh)`", {"bystander"}), ("removed", set())):
        wrote(host, states[key])
        assert snapd.busy(host) == busy, key


def test_one_of_two_fails(host: Host, states: dict[str, Any]) -> None:
    """Each snap of a change has tasks of its own: what becomes of one says nothing of the other."""
    state = states[GUARDED + "remove --purge bystander other`"]
    wrote(host, state)
    both = {snap: snapd.removing(host, snap) for snap in ("bystander", "other")}
    assert all(change and change.snaps == ("bystander", "other") for change in both.values())
    for kind in ("stop-snap-services", "discard-snap", "run-hook"):
        clear = [task for task in state["tasks"].values() if task["kind"] == kind]
        theirs = next(task for task in clear if snapd.whose(task, state["tasks"]) == "other")
        theirs["status"] = 9
        wrote(host, state)
        assert snapd.removing(host, "bystander") is not None and snapd.removing(host, "other") is None, kind
        theirs["status"] = 0


def test_a_state_that_is_not_there(host: Host) -> None:
    """A disk that is not mounted is no removal of all snaps; where snapd is not, there are none."""
    with pytest.raises(Unreadable, match="snapd is there, and has no state"):
        snapd.snaps(host)
    assert presence(host) is Presence.INSTALLED
    pathlib.Path(host.path("/usr/lib/snapd/snapd")).unlink()
    assert snapd.snaps(host) == {} and presence(host) is Presence.ABSENT
