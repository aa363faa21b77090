"""When a snap's own hook does nothing, and how it tells."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from leftovers import publisher, run
from leftovers.conf import Settings
from leftovers.daemons import journal, snapd
from leftovers.daemons.snapd import Change, Snap
from leftovers.errors import Refusal, Unreadable
from leftovers.host import Host
from leftovers.ledger import Ledger
from leftovers.moments import Scene

WHOLE = ("stop-snap-services", "run-hook", "clear-snap", "discard-snap")


def change(kind: str = "remove-snap", *, ready: bool = False, tasks: tuple[str, ...] = WHOLE) -> Change:
    return Change("1", kind, "", ready, ("microk8s",), tasks)


def test_a_product_by_its_snap(monkeypatch: pytest.MonkeyPatch) -> None:
    assert publisher.product_of("microk8s", {}) == "microk8s"
    for snap, environment in (("hello", {}), ("incus", {}), ("microk8s", {"SNAP_INSTANCE_KEY": "two"})):
        with pytest.raises(Refusal):
            publisher.product_of(snap, environment)
    monkeypatch.setattr(run, "SNAP", "/snap/hello/x1")
    with pytest.raises(Refusal, match="the hook of another snap"):
        publisher.product_of("microk8s", {})
    monkeypatch.setattr(run, "SNAP", "/snap/microk8s/x1")
    assert publisher.product_of("microk8s", {}) == "microk8s"


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ([change()], False),
        ([change(ready=True), change("refresh-snap"), change()], False),
        ([], True),
        ([change(ready=True)], True),
        ([change("refresh-snap")], True),
        ([change("disable-snap")], True),
        ([change(tasks=("clear-snap", "discard-snap"))], True),  # one revision among several
        (None, False),
    ],
    ids=["removal", "among others", "nothing", "over", "refresh", "disable", "revision", "nobody tells"],
)
def test_only_a_removal_that_snapd_is_at(
    monkeypatch: pytest.MonkeyPatch, changes: list[Change] | None, refused: bool
) -> None:
    def told(*_: object, **__: object) -> Sequence[Change]:
        if changes is None:
            raise Unreadable("/run/snapd.socket", "permission denied")
        return changes

    monkeypatch.setattr(snapd, "changes", told)
    if refused:
        with pytest.raises(Refusal, match="snapd is not removing it"):
            publisher.under_way(Host("/nonexistent"), "microk8s")
    else:
        publisher.under_way(Host("/nonexistent"), "microk8s")


@pytest.mark.parametrize("denied", ["", "mountinfo", "exe", "openat2"])
def test_who_may_not_look_removes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, denied: str) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/1").mkdir()
    (tmp_path / "proc/self/mountinfo").touch()
    (tmp_path / "proc/1/exe").symlink_to("/usr/lib/systemd/systemd")
    host = Host(str(tmp_path))
    if denied == "mountinfo":
        (tmp_path / "proc/self/mountinfo").unlink()
    elif denied == "exe":
        (tmp_path / "proc/1/exe").unlink()
    elif denied:

        def refused(*_: object) -> int:
            raise PermissionError(1, "Operation not permitted", "/proc")

        monkeypatch.setattr(publisher.syscalls, "openat2", refused)
    monkeypatch.setattr(publisher, "leave", lambda *_: False)
    monkeypatch.setattr(publisher, "SHARED", str(tmp_path))
    swept: list[str] = []
    monkeypatch.setattr(publisher, "sweep", lambda *_, **__: swept.append("swept") or [])
    said: list[str] = []
    assert publisher.removed(Scene(host, Ledger(host), Settings(), said.append), "microk8s", {}, lambda: None) == bool(
        denied
    )
    assert swept == ([] if denied else ["swept"])
    assert len(said) == bool(denied) and all("confinement does not let us look" in line for line in said)


@pytest.mark.parametrize("removed", [True, False])
def test_the_child_waits_for_snapd(monkeypatch: pytest.MonkeyPatch, removed: bool) -> None:
    """Until the snap is gone; and it gives up when the change has ended and the snap is there."""
    here = {"microk8s": Snap("microk8s", True, "1")}
    looks = iter([here, here, {} if removed else here])
    monkeypatch.setattr(snapd, "snaps", lambda *_, **__: next(looks))
    changes = iter([[change()], [change()], [change(ready=not removed)]])
    monkeypatch.setattr(snapd, "changes", lambda *_, **__: next(changes))
    monkeypatch.setattr(publisher.time, "sleep", lambda _: None)
    assert publisher.gone(Host("/nonexistent"), "microk8s") is removed
    assert next(looks, None) is None


def test_a_fault_is_told_and_is_no_success(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(publisher, "leave", lambda *_: True)
    host = Host(str(tmp_path))
    said: list[str] = []
    scene = Scene(host, Ledger(host), Settings(), said.append)

    def unexpected(*_: object) -> None:
        raise RuntimeError("a\nb")

    monkeypatch.setattr(publisher, "under_way", unexpected)
    assert publisher.removed(scene, "microk8s", {}, lambda: None) == 1
    assert publisher.removed(scene, "hello", {}, lambda: None) == 1
    assert said == [
        "microk8s: not all is cleaned: RuntimeError: a b",
        "not all is cleaned: hello: not a product that is known",
    ]


def test_the_journal(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    assert not journal.tell(host, "nobody listens")
    path = tmp_path / "run/systemd/journal/socket"
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        assert journal.tell(host, "gone \udcff")
        text = listener.recv(4096).decode()
    assert text == "MESSAGE=gone \\udcff\nPRIORITY=5\nSYSLOG_IDENTIFIER=leftovers\n"
