"""Orphans made for real, beside fifty healthy containers: all of them are named, and nothing else; then they go.

What is an orphan is told without our code: it is there now, was not when only the healthy ones were, and no container
has come since (lab/orphans.py).
"""

from __future__ import annotations

import re

import pytest

from lab import orphans
from lab.docker import ON_SID, ON_TRIXIE
from lab.machine import Machine
from lab.scenario import Arrive, document, leftovers

SCAN = ("scan", "--orphans", "--older-than", "2")
BOTH = pytest.mark.parametrize("machine", [ON_TRIXIE, ON_SID], indirect=True, ids=["trixie", "sid"])


def plain(id: str) -> str:
    """A mount is to be seen in the mount namespaces of services, too, and may be so under its path there."""
    return re.sub(r"#\d+\Z", "", re.sub(r"^mount:\d+(?=/)", "mount:", id))


def named(m: Machine) -> tuple[set[str], dict[str, str]]:
    """What is to go, and what is only told, with the command that would take it."""
    found = document(m, *SCAN)
    assert {each["action"] for each in found} <= {"remove", "keep"}, found
    kept = {each["id"]: each["advice"] for each in found if each["action"] == "keep"}
    return {plain(each["id"]) for each in found} - set(kept), kept


def kinds(ids: set[str]) -> set[str]:
    return {id.partition(":")[0] for id in ids}


@pytest.mark.full
@BOTH
def test_all_and_only_them(machine: Machine, arrive: Arrive, request: pytest.FixtureRequest) -> None:
    m = machine
    arrive(m)
    orphans.live(m)
    orphans.answer(m)
    healthy, before = orphans.look(m), orphans.state(m)
    assert len(before.splitlines()) == 50
    assert named(m) == (set(), {})

    # A container that was never started and then lost; a container that is lost while it runs.
    orphans.crash(m, "pair", remove=False)
    orphans.lose(m, "half")
    m.run("docker run -d --name lost -p 8096:80 bb httpd -f -p 80 -h /www >/dev/null")
    orphans.lose(m, "lost")
    for when in ("pair", "port", "bundle", "task", "runc", "pin"):
        orphans.crash(m, when)
    orphans.kill(m)
    orphans.pin(m)
    assert orphans.state(m) == before, "the healthy containers are as they were"
    made = orphans.look(m)
    # What was made before it was a port has nothing of Docker's but names: it is told, and stays.
    loose = orphans.loose(m)
    expected = orphans.added(healthy, made) - loose
    assert kinds(expected) >= {"link", "netns", "process", "mount", "cgroup", "file"}, orphans.described(expected)
    assert set(healthy) <= set(made)

    found, told = named(m)
    assert set(told) == loose
    assert found == expected, (
        f"missed: {orphans.described(expected - found)}\nhealthy: {orphans.described(found - expected)}"
    )
    assert orphans.look(m) == made, "a scan changes nothing"
    m.run(orphans.DOWN)
    # The store of a dead dockerd lacks some that live: it may be of an older day, and then all would seem to be gone.
    found, _ = named(m)
    assert found == set(), orphans.described(found)
    m.run(orphans.UP)

    leftovers(m, "clean", "--orphans", "--yes", "--older-than", "2")
    assert set(orphans.look(m)) == set(healthy) | loose
    for advice in {*told.values()} if told else ():
        m.run(advice, check=False)  # the other end goes with the one
    assert set(orphans.look(m)) == set(healthy)
    assert orphans.state(m) == before
    orphans.answer(m)
    assert named(m) == (set(), {})
    leftovers(m, "clean", "--orphans", "--yes", "--older-than", "2")
    m.run("systemctl restart docker")
    assert orphans.state(m) == before
    m.run("docker run -d --name half -p 8090:80 bb httpd -f -p 80 -h /www >/dev/null")
    orphans.answer(m, [8090, *orphans.PORTS])
    leftovers(m, "verify")


@pytest.mark.full
@BOTH
def test_none_of_those_that_come_and_go(machine: Machine, arrive: Arrive) -> None:
    """Beside a true orphan, for which every scan waits and looks again."""
    m = machine
    arrive(m)
    orphans.install(m)
    m.run("docker run -d --name web -p 8001:80 bb httpd -f -p 80 -h /www >/dev/null")
    healthy = orphans.look(m)
    orphans.pin(m)
    expected = orphans.added(healthy, orphans.look(m))
    m.write("/srv/busy.sh", orphans.BUSY)
    m.run("systemd-run -q --unit=busy bash /srv/busy.sh")
    for age in ("30", "3", "3"):
        found = document(m, "scan", "--orphans", "--older-than", age)
        assert {plain(each["id"]) for each in found if each["action"] == "remove"} == expected, found
        assert all(each["reason"].endswith("too young to tell") for each in found if each["action"] == "keep"), found
    rounds = [m.read(path).count("round\n") for path in orphans.LOOPS]
    assert min(rounds) >= 5, rounds
    leftovers(m, "clean", "--orphans", "--yes", "--older-than", "3")
    assert not any("rror" in line for path in orphans.LOOPS for line in m.read(path).splitlines())
    m.run("systemctl stop busy")
    orphans.answer(m, [8001])


@pytest.mark.full
@BOTH
def test_a_daemon_that_does_not_answer_may_be_making_them(machine: Machine, arrive: Arrive) -> None:
    m = machine
    arrive(m)
    orphans.install(m)
    orphans.pin(m)
    orphans.crash(m, "port")
    assert named(m)[0]
    m.run("kill -STOP $(cat /run/docker.pid)")
    said = leftovers(m, *SCAN, code=None).out
    assert "0 to remove, 0 kept" in said and "no answer in time" in said, said
    m.run("kill -CONT $(cat /run/docker.pid)")
    assert named(m)[0]
    m.run("docker rm -f half 2>/dev/null || :")
