"""The tests of our code with each release's own Python and libraries: what users have, not what this machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.machine import RECIPES, Machine

TOP = Path(__file__).resolve().parents[2]
RELEASES = [pytest.param({"recipe": RECIPES[f"tests-{suite}"]}, id=suite) for suite in ("bookworm", "trixie", "sid")]


@pytest.mark.full
@pytest.mark.parametrize("machine", RELEASES, indirect=True)
def test_unit_and_conformance(machine: Machine) -> None:
    for path in TOP.iterdir():
        if path.name not in (".git", ".cache", ".venv", "dist", ".pytest_cache", ".ruff_cache", ".mypy_cache"):
            machine.put(path, f"/srv/leftovers/{path.name}")
    done = machine.run(
        "cd /srv/leftovers && python3 -m pytest -q -p no:cacheprovider tests/unit tests/conformance 2>&1",
        check=False,
        timeout=600,
    )
    assert done.code == 0, done.out[-6000:]
    assert " passed" in done.out and " skipped" not in done.out, done.out[-2000:]
