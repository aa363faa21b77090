"""Fixtures of the lab. A test that fails says what its host looked like."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.machine import LabError, Machine

TOP = Path(__file__).resolve().parents[2]
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome: Any = yield
    if outcome.get_result().failed:
        item.stash[FAILED] = True


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A host of the test's own. parametrize("machine", [{...}], indirect=True) gives Machine's arguments."""
    with Machine(**getattr(request, "param", {})) as m:
        yield m
        if request.node.stash.get(FAILED, False):
            print(m.report())


@pytest.fixture(scope="module")
def shared() -> Iterator[Machine]:
    """One host for all tests of a module: for those that put back what they change."""
    with Machine() as m:
        yield m


@pytest.fixture(scope="session")
def package() -> Path:
    """Our own Debian package, of the sources as they are now. make builds it only when a source is newer."""
    with open(TOP / "tests/lab/conftest.py") as lock:  # two test runs at once would build over each other
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            ["make", "--no-print-directory", "-C", str(TOP), "deb"],
            capture_output=True,
            text=True,
            check=False,
            env={k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))},
        )
    built = sorted((TOP / "dist").glob("leftovers_*_all.deb"))
    if done.returncode != 0 or not built:
        raise LabError(f"make deb: exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return built[-1]


@pytest.fixture
def arrive(package: Path) -> Callable[[Machine], None]:
    """Install leftovers in a host, when the test wants it there: a person may come before the purge, or after."""

    def install(m: Machine) -> None:
        m.put(package, f"/tmp/{package.name}")
        # Not --no-download: with it, apt 3.0 fails on a package that is a file ("Pathname ... is not absolute").
        m.run(["apt-get", "install", "-y", "-q", f"/tmp/{package.name}"])
        m.run(["rm", f"/tmp/{package.name}"])

    return install
