"""Hooks in bad company: no fanotify and a dpkg that refuses, a person at the ledger, another root, closed streams, an
administrator who is faster. One small Incus for all that must change nothing; its purge comes last."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lab import incus
from lab.conftest import FAILED
from lab.machine import Machine
from lab.scenario import Arrive
from lab.test_triggers import ALL, CONF, NO_FANOTIFY, STOPPING, build, lines, say, setting, small

LIVES = (
    "for d in /sys/fs/cgroup/lxc.payload.*; do "
    'p=$(head -n 1 $d/cgroup.procs); echo "${d##*/} $p $(cut -d " " -f 22 /proc/$p/stat)"; done; pidof incusd | wc -w'
)


@pytest.fixture(scope="module")
def host(package: object) -> Iterator[Machine]:
    with Machine() as m:
        yield m


@pytest.fixture
def m(host: Machine, arrive: Arrive, request: pytest.FixtureRequest) -> Iterator[Machine]:
    """With our package first, then Incus: two containers that hear, one that is deaf, and an ephemeral one."""
    if host.run("test -d /var/lib/incus", check=False).code != 0:
        arrive(host)
        setting(host, "stop_timeout = 3")
        small(host, "c1", "c2")
        host.run(incus.INITS)
        host.run(
            "incus -q launch inits deaf -c raw.lxc=lxc.init.cmd=/sbin/deaf; incus -q launch bb eph --ephemeral",
            timeout=60,
        )
    yield host
    if request.node.stash.get(FAILED, False):
        print(host.report())


def lives(m: Machine) -> str:
    return m.run(LIVES).out


def test_without_fanotify_what_dpkg_refuses_stops_nothing(m: Machine) -> None:
    before = lives(m)
    m.run(f"dpkg -i {build(m, 'needs-incus', 'incus-base')}")
    for command in ("dpkg -P incus-base", "dpkg --purge --pending", "dpkg -Pa"):
        said = say(m, f"echo incus-base purge | dpkg --set-selections; {NO_FANOTIFY} {command}", code=1)
        assert "dependency problems" in said and lines(said, STOPPING) == [], said
        assert lives(m) == before, command
    # A metapackage that is only half there holds nothing.
    m.run("echo incus-base install | dpkg --set-selections; dpkg -P needs-incus")
    m.run(f"dpkg --unpack {build(m, 'incus', 'incus-base', '9')}")
    say(m, f"{NO_FANOTIFY} dpkg -P incus")
    assert lives(m) == before


def test_a_person_who_thinks_holds_nobody_up(m: Machine) -> None:
    """`leftovers clean` asks, and is not answered; then somebody holds the ledger for good, and dpkg still ends."""
    before = lives(m)
    m.run(f"dpkg -i {build(m, 'needs-incus', 'incus-base')}")
    person = m.spawn("sleep 1000 | script -qfc 'leftovers clean incus --force' /root/asked >/dev/null 2>&1")
    until = time.monotonic() + 20
    while "Do this?" not in m.run("cat /root/asked", check=False).out and time.monotonic() < until:
        time.sleep(0.2)
    began = time.monotonic()
    said = say(m, "dpkg -P incus-base", code=1)
    assert time.monotonic() - began < 10 and "another leftovers" not in said, said
    m.run(f"kill -9 {person.pid} || :; pkill -9 -f '[l]eftovers clean' || :; pkill -f 'sleep [1]000$' || :")

    holder = m.spawn("flock /var/lib/leftovers/lock sleep 300")
    time.sleep(0.3)
    began = time.monotonic()
    said = say(m, "dpkg -P incus-base", code=1)
    assert time.monotonic() - began < 60, said
    assert len(lines(said)) == 1 and "leftovers clean incus" in said, said
    m.run(f"kill -9 {holder.pid}; pkill -f 'sleep [3]00'; dpkg -P needs-incus")
    m.run("echo incus-base install | dpkg --set-selections")
    assert lives(m) == before


def test_another_root_of_apt_is_another_host(m: Machine) -> None:
    before = lives(m)
    setting(m, "refuse_if_running = yes")
    m.run("mkdir -p /x/var/lib; cp -a /var/lib/dpkg /x/var/lib/; ls /run/leftovers >/root/run")
    options = "-o Dir::State::status=/x/var/lib/dpkg/status -o Dpkg::Options::=--root=/x"
    said = m.run(f"apt-get {options} -y purge incus-base 2>&1", check=False).out
    assert lines(said) == [], said
    assert lives(m) == before and m.run("ls /run/leftovers | diff - /root/run").out == ""
    m.run(f"rm -rf /x; sed -i '/^refuse_if_running/d' {CONF}")


def test_what_the_administrator_did_meanwhile(m: Machine) -> None:
    """Between dpkg's pre-invoke and its prerm he stops one instance and starts another."""
    m.run("incus -q init bb c3")
    slow = build(m, "aaa")
    m.run(f"dpkg -i {slow}")
    m.write(
        "/var/lib/dpkg/info/aaa.prerm",
        "#!/bin/sh\nincus -q stop c1\nincus -q start c3\n",
    )
    m.run("chmod +x /var/lib/dpkg/info/aaa.prerm; cp -p /var/lib/dpkg/info/incus-base.prerm /root/")
    m.write("/var/lib/dpkg/info/incus-base.prerm", "#!/bin/sh\nexit 7\n")
    said = say(m, "dpkg -P aaa incus-base", code=1)
    m.run("cp -p /root/incus-base.prerm /var/lib/dpkg/info/; echo incus-base install | dpkg --set-selections")
    assert lines(said, r"asking 3 instances") and lines(said, r"3 instances that had been asked .* run again"), said
    states = m.run("incus list -f csv -c ns | sort").out.split()
    assert states == ["c1,STOPPED", "c2,RUNNING", "c3,RUNNING", "deaf,RUNNING", "eph,RUNNING"]
    m.run("incus -q start c1")


def test_closed_streams(m: Machine) -> None:
    """Nobody hears us, and the work is done. The last: it is a purge. (Debian's own postrm minds, and fails; what dpkg
    has then removed is swept all the same.)"""
    done = m.run(f"bash -c 'dpkg -P {ALL} <&- >&-'", timeout=120, check=False)
    assert "/hooks/" not in done.err and "leftovers" not in done.err, done.err
    assert m.run("pgrep -af 'lxc monitor|incusd|dnsmasq --keep'", check=False).out == ""
    said = say(m, f"dpkg -P {ALL}; dpkg -i {build(m, 'other')}; apt-get purge -y other")
    assert m.run("leftovers verify; ls -A /run/leftovers").out.startswith("clean"), said
    assert len(lines(said)) <= 2
