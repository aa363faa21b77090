"""What the end of a removal makes of what dpkg says: a removal that was refused ends in nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from leftovers import moments, removal
from leftovers.conf import Settings
from leftovers.daemons import dpkg
from leftovers.host import Host
from leftovers.ledger import Ledger
from leftovers.moments import Scene
from leftovers.removal import Going, Removal
from leftovers.watcher import Watched


@pytest.mark.parametrize(
    ("now", "sweep", "swept", "done"),
    [
        # `dpkg -P` of a package that is only there with its configuration, and the lock was held: nothing has begun.
        ("config-files", True, False, []),
        ("config-files", False, False, []),
        ("not-installed", True, False, ["sweep"]),
        ("not-installed", False, False, ["tell"]),
        # Its own postrm failed after our commit: it is what it was, and what is left is ours to finish.
        ("config-files", True, True, ["sweep"]),
    ],
)
def test_what_dpkg_has_not_begun_is_not_finished(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, now: str, sweep: bool, swept: bool, done: Sequence[str]
) -> None:
    (tmp_path / "run").mkdir()
    host = Host(str(tmp_path))
    going = Going(("incus-base",), sweep, True, swept=swept, states={"incus-base": "config-files"})
    removal.write(host, Removal(Watched(os.getpid(), 1), {"incus": going}))
    states = {"incus-base": now} if now != "not-installed" else {}
    monkeypatch.setattr(dpkg, "status", lambda packages: states)
    did: list[str] = []
    monkeypatch.setattr(moments, "last_sweep", lambda *_: did.append("sweep"))
    monkeypatch.setattr(moments, "tell_removed", lambda *_: did.append("tell"))
    said: list[str] = []
    moments.finish(Scene(host, Ledger(host), Settings(), said.append))
    assert did == list(done) and said == []
    assert removal.read(host) is None
