"""What kernel tests look at and act with: a look at the sandbox, and one kind's act on named objects."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from leftovers.host import Host
from leftovers.kinds import Look, survey_order
from leftovers.model import Deadline, Object, Scope, Verb

HOST = Host()


def look(*kinds: str, scope: Scope = Scope()) -> dict[str, dict[str, Object]]:  # noqa: B008 - frozen
    """All objects of these kinds (and of those they need), by kind and key. A fault fails the test."""
    wanted = set(kinds)
    order = survey_order()
    for kind in reversed(order):
        if kind.name in wanted:
            wanted |= set(kind.needs)
    listed: dict[str, tuple[Object, ...]] = {}
    for kind in order:
        if kind.name in wanted:
            listing = kind.survey(Look(HOST, scope, listed))
            assert listing.faults == (), listing.faults
            listed[kind.name] = listing.objects
    return {name: {obj.key: obj for obj in objects} for name, objects in listed.items()}


def act(kind: str, objects: Iterable[Object], verb: Verb = Verb.REMOVE, seconds: float = 20.0) -> Mapping[str, str]:
    """One kind's act, returning the causes of failures by object key."""
    chosen = next(other for other in survey_order() if other.name == kind)
    return {
        id.partition(":")[2]: cause for id, cause in chosen.act(HOST, verb, list(objects), Deadline(seconds)).items()
    }


def until(true: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for the kernel; the test fails when it does not come."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


def sleeper(*argv: str, exe: str = "", cgroup: str = "") -> subprocess.Popen[bytes]:
    """A process that sleeps, under these arguments, from this file, in this cgroup; it has begun when we return."""

    def enter() -> None:
        if cgroup:
            with open(f"/sys/fs/cgroup{cgroup}/cgroup.procs", "w") as file:
                file.write(str(os.getpid()))

    command: Sequence[str] = argv or ("sleep", "1000")
    process = subprocess.Popen(command, executable=exe or "/bin/sleep", preexec_fn=enter, stdin=subprocess.DEVNULL)
    wanted = os.path.realpath(exe or "/bin/sleep")
    until(lambda: os.readlink(f"/proc/{process.pid}/exe").removesuffix(" (deleted)") == wanted)
    return process
