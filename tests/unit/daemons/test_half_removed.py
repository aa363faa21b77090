"""A snap that was disabled, and one that is half removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from leftovers.daemons.half_removed import half_removed
from leftovers.daemons.snapd import Change, Snap
from leftovers.host import Host

SNAP = Snap("microk8s", False, "x1")


def change(kind: str, status: str = "", ready: bool = True) -> Change:
    return Change("8", kind, status, ready, ("microk8s",), ("run-hook", "clear-snap"))


FAILED = change("remove-snap", "Error")


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ([FAILED], True),
        ([change("install-snap"), FAILED], True),
        ([FAILED, change("enable-snap", "Error")], True),
        ([FAILED, change("service-control")], True),
        # A person has got over it, and disabled it later.
        ([FAILED, change("enable-snap"), change("disable-snap")], False),
        ([FAILED, change("install-snap")], False),
        ([change("remove-snap", "Error", ready=False)], False),
        ([change("disable-snap")], False),
        ([], False),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_what_snapd_still_tells(changes: list[Change], failed: bool, there: bool, tmp_path: Path) -> None:
    if there:
        (tmp_path / "var/snap/microk8s/x1").mkdir(parents=True)
    forgotten = not changes
    assert bool(half_removed(Host(str(tmp_path)), SNAP, changes)) is (failed or (forgotten and not there))


def test_of_another_revision_there_may_be_data(tmp_path: Path) -> None:
    (tmp_path / "var/snap/microk8s/x2").mkdir(parents=True)
    assert "/var/snap/microk8s/x1 is gone" in half_removed(Host(str(tmp_path)), SNAP, [])
