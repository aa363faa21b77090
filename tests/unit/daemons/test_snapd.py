"""What snapd says, over its socket and in its state file: as 2.68 and 2.77 wrote it (tests/lab/data)."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from leftovers.daemons import snapd
from leftovers.errors import Unreadable
from leftovers.host import Host
from leftovers.model import Presence
from leftovers.products.product import Product
from leftovers.survey import snap_presence

DATA = pathlib.Path(__file__).parents[2] / "lab/data"
FAILED = "after `snap remove --purge microk8s` failed, GET /v2/changes, /v2/snaps, and data.snaps of state.json"
DISABLED = "a disabled snap, GET /v2/snaps?select=all, and data.snaps of state.json"
PURGING = "while a guard of the service stops, in `snap remove --purge bystander`"
REMOVING = "while a guard of the service stops, in `snap remove bystander`"
VERSIONS = ["2.68", "2.77"]


def sample(version: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((DATA / f"snapd-{version}.json").read_text())
    return read


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/snapd.socket").touch()
    (tmp_path / "var/lib/snapd").mkdir(parents=True)
    return Host(str(tmp_path))


def answer(monkeypatch: pytest.MonkeyPatch, said: dict[str, Any]) -> None:
    def get(host: Host, path: str, url: str, *_: object) -> Any:
        return {"type": "sync", "result": said["changes" if "/v2/changes" in url else "snaps"]}

    monkeypatch.setattr(snapd.unix_http, "get", get)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_removal_under_way(host: Host, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    for name, keeps in ((REMOVING, True), (PURGING, False)):
        answer(monkeypatch, sample(version)[name])
        change = snapd.changes(host, "bystander", running=True)[-1]
        assert change.removal and change.whole and not change.ready and change.snaps == ("bystander",)
        assert change.keeps_data is keeps
        assert snapd.snaps(host, running=True)["bystander"].active, "snapd says so until it is unlinked"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("what", ["snap restart", "snap disable"])
def test_what_is_no_removal(host: Host, monkeypatch: pytest.MonkeyPatch, version: str, what: str) -> None:
    answer(monkeypatch, sample(version)[f"while a guard of the service stops, in `{what} bystander`"])
    assert not any(change.removal or change.whole for change in snapd.changes(host, "bystander", running=True))


PRODUCT = Product(name="m", title="M", packages=(), snaps=("microk8s",))


def presence(host: Host, running: bool) -> Presence:
    process = type("P", (), {"facts": {"nested": False, "exe": "/usr/lib/snapd/snapd"}})
    return snap_presence(host, PRODUCT, {"process": (process(),) if running else ()})[0]  # type: ignore[dict-item]


def test_how_much_there_is_of_a_snap(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    failed, disabled = sample("2.68")[FAILED], sample("2.68")[DISABLED]["snaps"][0]
    pathlib.Path(host.path("/var/snap/microk8s/x1")).mkdir(parents=True)
    cases: list[tuple[list[Any], list[Any], Presence]] = [
        ([], [], Presence.ABSENT),
        (sample("2.68")["installed, GET /v2/snaps"], [], Presence.INSTALLED),
        (failed["snaps"], failed["changes"], Presence.REMOVED),
        ([{**disabled, "name": "microk8s"}], [], Presence.INSTALLED),
        # Its removal failed once, and it was installed again since: then that is not the last word on it.
        (failed["snaps"], [{**failed["changes"][0], "ready": False}], Presence.INSTALLED),
    ]
    for snaps, changes, expected in cases:
        answer(monkeypatch, {"snaps": snaps, "changes": changes})
        assert presence(host, running=True) is expected


def test_when_snapd_does_not_run(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own file tells, and nobody is called: systemd would start it."""
    monkeypatch.setattr(snapd.unix_http, "get", lambda *_: pytest.fail("it was started"))
    assert presence(host, running=False) is Presence.ABSENT
    path = pathlib.Path(host.path(snapd.STATE))
    state = sample("2.68")[FAILED]["state.json data.snaps"]
    path.write_text(json.dumps({"data": {"snaps": {"microk8s": state}}, "changes": {}, "tasks": {}}))
    assert presence(host, running=False) is Presence.REMOVED, "the data of its revision is gone"
    pathlib.Path(host.path("/var/snap/microk8s/x1")).mkdir(parents=True)
    assert presence(host, running=False) is Presence.INSTALLED, "disabled, as far as anybody can tell"
    change = {"kind": "remove-snap", "data": {"snap-names": ["microk8s"]}, "task-ids": ["1", "2"]}
    change |= {"spawn-time": "2026-11-21T07:46:56Z", "ready-time": "2026-11-21T07:46:59Z"}
    tasks = {"1": {"kind": "stop-snap-services", "status": 9}, "2": {"kind": "clear-snap", "status": 4}}
    path.write_text(json.dumps({"data": {"snaps": {"microk8s": state}}, "changes": {"8": change}, "tasks": tasks}))
    assert presence(host, running=False) is Presence.REMOVED
    assert presence(Host("/nonexistent"), running=False) is Presence.ABSENT


@pytest.mark.parametrize("text", ["", "[]", "{", '{"data": 3}', '{"data": {"snaps": []}, "changes": 1}', "[" * 100000])
def test_a_state_that_is_none(host: Host, text: str) -> None:
    pathlib.Path(host.path(snapd.STATE)).write_text(text)
    try:
        assert snapd.snaps(host, running=False) == {} and snapd.changes(host, "x", running=False) == []
    except Unreadable as error:
        assert snapd.STATE in str(error)


@pytest.mark.parametrize("said", [None, [], {"result": 3}, {"result": [1, {}, {"name": "../x"}]}])
def test_an_answer_that_is_none(host: Host, monkeypatch: pytest.MonkeyPatch, said: Any) -> None:
    monkeypatch.setattr(snapd.unix_http, "get", lambda *_: said)
    assert snapd.snaps(host, running=True) == {}


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
