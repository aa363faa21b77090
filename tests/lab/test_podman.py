"""Podman of Debian: installed, used and purged on a real host, with and without our hooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from lab import hoststate, podman
from lab.machine import RECIPES, Machine
from lab.scenario import DONE, LEFT, Arrive, leftovers
from lab.scenario import same as compared

on_trixie = pytest.mark.parametrize("machine", [{"recipe": RECIPES["podman-trixie"]}], indirect=True, ids=["trixie"])


def same(m: Machine, before: dict[str, Any], keep: Sequence[str] = podman.KEPT, said: str = "") -> None:
    compared(m, before, keep=keep, changed=podman.CHANGED, said=said)


def lived(m: Machine, what: str = podman.MUCH, pinned: bool = True) -> dict[str, Any]:
    """The administrator's things, then Podman, installed and used. Returns the host as it was before."""
    podman.admin_things(m, pinned)
    before = m.snapshot()
    podman.install(m)
    podman.use(m, what)
    return before


@on_trixie
def test_purged_without_us(machine: Machine, arrive: Arrive) -> None:
    """Two containers; the data is kept, and named, until it is asked for."""
    before = lived(machine, podman.SOME, pinned=False)
    podman.purge(machine)
    arrive(machine)
    assert len(hoststate.compare(before, machine.snapshot(), keep=podman.KEPT)["left"]) > 30
    leftovers(machine, "verify", "podman", code=LEFT)
    said = leftovers(machine, "clean", "podman", "--yes", code=None)
    same(machine, before, [*podman.KEPT, *podman.DATA], said.out + said.err)
    assert said.code == DONE, said.out + said.err
    assert "Podman's storage (2 containers, 1 image, 1 volume): kept" in said.out, said.out
    assert "leftovers clean podman --data" in said.out
    leftovers(machine, "verify", "podman")
    assert machine.run("ls /var/lib/containers/storage/volumes").out == "vol1\n"
    said = leftovers(machine, "clean", "podman", "--data", "--yes")
    same(machine, before, said=said.out + said.err)
    leftovers(machine, "clean", "podman", "--yes")
