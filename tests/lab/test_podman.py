"""Podman of Debian: installed, used and purged on a real host, with and without our hooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from lab import hoststate, podman
from lab.machine import RECIPES, Machine
from lab.scenario import DONE, LEFT, REFUSED, Arrive, document, leftovers
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


def clean(m: Machine, before: dict[str, Any]) -> None:
    """`clean` leaves the host as it was but for the data, and `clean --data` as it was."""
    said = leftovers(m, "clean", "podman", "--yes", code=None)
    same(m, before, [*podman.KEPT, *podman.DATA], said.out + said.err)
    assert said.code == DONE, said.out + said.err
    leftovers(m, "verify", "podman")
    said = leftovers(m, "clean", "podman", "--data", "--yes")
    same(m, before, said=said.out + said.err)
    assert [o["id"] for o in document(m, "plan", "podman") if o["action"] != "keep"] == []


@pytest.mark.full
@on_trixie
def test_much_purged_without_us(machine: Machine, arrive: Arrive) -> None:
    """Host, none and the administrator's network, pods, volumes by options, secrets, health checks, user namespaces;
    beside things of the administrator's of the same names."""
    before = lived(machine)
    podman.purge(machine)
    arrive(machine)
    purged = machine.snapshot()
    assert len(hoststate.compare(before, purged, keep=podman.KEPT)["left"]) > 100
    assert [o["product"] for o in document(machine, "explain", "podman1")] == ["podman"]
    same(machine, purged)  # looking changes nothing
    clean(machine, before)


@pytest.mark.full
@on_trixie
def test_purged_with_the_hooks(machine: Machine, arrive: Arrive) -> None:
    arrive(machine)
    before = lived(machine)
    done = machine.run(f"apt-get purge -y -q {' '.join(podman.PACKAGES)} 2>&1", timeout=300)
    assert "Traceback" not in done.out, done.out
    same(machine, before, [*podman.KEPT, *podman.DATA], said=done.out)
    leftovers(machine, "verify")
    leftovers(machine, "clean", "podman", "--data", "--yes")
    same(machine, before)


@pytest.mark.full
@on_trixie
def test_refused_while_installed(machine: Machine, arrive: Arrive) -> None:
    lived(machine)
    arrive(machine)
    used = machine.snapshot()
    leftovers(machine, "clean", "podman", "--yes", code=REFUSED)
    leftovers(machine, "clean", "podman", "--yes", "--data", code=REFUSED)
    leftovers(machine, "verify")
    same(machine, used)


def alices(m: Machine) -> str:
    """What alice runs, by pid and start; at least one monitor and one server."""
    script = (
        "for p in $(pgrep -x 'conmon|httpd|pasta.*|aardvark-dns|rootlessport'); do"
        ' grep -q "user-$(id -u alice)" /proc/$p/cgroup && cut -d" " -f1,2,22 /proc/$p/stat; done | sort'
    )
    return m.run(script).out


def alice_answers(m: Machine) -> None:
    for port in (9090, 9091):
        assert m.run(f"busybox wget -T 5 -qO- http://127.0.0.1:{port}/").out == "hello\n"


@pytest.mark.full
@on_trixie
def test_a_users_containers(machine: Machine, arrive: Arrive) -> None:
    """They survive a purge and a clean, are named, and go when they are asked for by name; with their data only then,
    and nothing of anybody else's that is among it."""
    m = machine
    arrive(m)
    podman.admin_things(m)
    m.run("useradd -m -s /bin/bash alice")
    before = m.snapshot()
    podman.install(m)
    podman.use(m, podman.SOME + podman.ROOTLESS)
    alice_answers(m)
    running = alices(m)
    assert running.count("(httpd)") == 2 and running.count("(conmon)") == 2, running
    leftovers(m, "clean", "podman@alice", "--yes", code=REFUSED)
    shown = {o["id"]: o for o in document(m, "plan", "podman")}["file:/home/alice/.local/share/containers/storage"]
    assert (shown["action"], shown["reason"]) == ("keep", "alice's own containers (rootless, 2 running)")
    done = m.run(f"apt-get purge -y -q {' '.join(podman.PACKAGES)} 2>&1", timeout=300)
    assert alices(m) == running, done.out
    alice_answers(m)
    said = leftovers(m, "clean", "podman", "--data", "--yes")
    print(done.out, said.out)
    assert alices(m) == running
    alice_answers(m)
    assert "alice's own containers (rootless, 2 running)" in said.out and "leftovers clean podman@alice" in said.out
    # Something of root's that alice has moved in among her volumes, and a way out of her home.
    m.run(
        """
        mkdir -p /home/alice/root/of && echo precious >/home/alice/root/of/file && chown alice: /home/alice/root
        mv /home/alice/root /home/alice/.local/share/containers/storage/volumes/
        ln -s /srv /home/alice/.local/share/containers/storage/volumes/away
        """
    )
    leftovers(m, "verify", "podman@alice", code=LEFT)
    said = leftovers(m, "clean", "podman@alice", "--yes")
    assert alices(m) == "", said.out
    assert m.run("pgrep -cu alice -x 'catatonit|pasta.*|aardvark-dns'", check=False).out == "0\n"
    leftovers(m, "verify", "podman@alice")
    assert m.run("test -e /home/alice/.local/share/containers/storage/db.sql", check=False).code == 0
    said = leftovers(m, "clean", "podman@alice", "--data", "--yes", code=1)
    assert "is of uid 0, and left alone" in said.out + said.err
    assert m.run("cd /home/alice/.local/share/containers/storage && find . -type f").out == "./volumes/root/of/file\n"
    m.run("rm -r /home/alice/.local/share/containers/storage/volumes/root/of")
    leftovers(m, "clean", "podman@alice", "--data", "--yes")
    m.run("loginctl disable-linger alice; while test -e /run/user/$(id -u alice); do sleep 0.1; done")
    same(m, before, [*podman.KEPT, *podman.SESSION])
