"""Podman of Debian: installed, used and purged on a real host, with and without our hooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from lab import hoststate, incus, podman
from lab.machine import RECIPES, Machine
from lab.scenario import CHANGED as INCUS_CHANGED
from lab.scenario import DONE, LEFT, REFUSED, Arrive, document, leftovers
from lab.scenario import KEPT as INCUS_KEPT
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


@pytest.mark.full
@pytest.mark.parametrize(
    "machine",
    [
        pytest.param({"recipe": RECIPES["podman-trixie"]}, id="trixie"),
        pytest.param({"recipe": RECIPES["podman-bookworm"]}, id="bookworm"),
    ],
    indirect=True,
)
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
    machine.run("test -d /var/lib/containers/storage/volumes/vol1/_data")
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
    # Her namespaces have locked copies of what was mounted for root's containers when they were made.
    leftovers(m, "verify", "podman")
    alice_answers(m)
    leftovers(m, "clean", "podman", "--yes")
    said = leftovers(m, "clean", "podman", "--data", "--yes")
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


FORGET = """
import json, sqlite3
root = "/var/lib/containers/storage"
db = sqlite3.connect(f"{root}/db.sql")
(id,) = db.execute("SELECT ID FROM ContainerConfig WHERE Name = 'gone'").fetchone()
for table, column in (("ContainerConfig", "ID"), ("ContainerState", "ID"), ("IDNamespace", "ID")):
    db.execute(f"DELETE FROM {table} WHERE {column} = ?", (id,))
db.commit()
path = f"{root}/overlay-containers/containers.json"
entries = json.load(open(path))
json.dump([entry for entry in entries if entry["id"] != id], open(path, "w"))
print(id)
"""


@pytest.mark.full
@on_trixie
def test_orphans(machine: Machine, arrive: Arrive) -> None:
    """Podman's records were lost of a container that runs, as by a crash: all that is its own is named, and goes;
    what any other container has stays, also of one that does not run, and one whose monitor was killed."""
    m = machine
    arrive(m)
    lived(m)
    leftovers(m, "scan", "--orphans", "--older-than", "1", "--exit-code", "podman")
    m.run("kill -9 $(podman inspect -f '{{.State.ConmonPid}}' hosted)")
    used = m.snapshot()
    m.run(f"podman run -d --name gone --network n1 -p 8090:80 {podman.SERVE}")
    id = m.run(["python3", "-c", FORGET]).out.strip()
    found = [o for o in document(m, "scan", "--orphans", "--older-than", "1", "podman") if o["action"] == "remove"]
    kinds = sorted(o["kind"] for o in found)
    assert set(kinds) == {"process", "cgroup", "netns", "link", "mount", "file"}, found
    assert kinds.count("process") == 2 and kinds.count("link") == 1 and kinds.count("netns") == 1
    said = leftovers(m, "clean", "--orphans", "--older-than", "1", "--yes", "podman")
    left = [r"nft ", rf"file /(run|var/lib)/(containers|libpod)/.*({id}|/overlay/)", r"file /var/lib/containers/"]
    same(m, used, [*podman.KEPT, *left, r"(mount|file) .*/overlay/"], said.out)
    leftovers(m, "scan", "--orphans", "--older-than", "1", "--exit-code", "podman")
    assert m.run("podman ps -q | wc -l").out == m.run("podman ps -aq --filter status=running | wc -l").out
    m.run("podman exec c2 nslookup volumes && podman exec volumes wget -T 5 -qO- http://c2/")


@pytest.mark.full
@pytest.mark.parametrize("machine", [{"recipe": RECIPES["podman+incus-trixie"]}], indirect=True, ids=["trixie"])
def test_as_a_bystander(machine: Machine, arrive: Arrive) -> None:
    """Incus is purged, with two containers, beside Podman with many: these run on and answer. Then Podman is."""
    m = machine
    arrive(m)
    podman.admin_things(m)
    podman.install(m)
    podman.use(m)
    with_podman = m.snapshot()
    incus.install(m)
    m.run(f"incus admin init --minimal\n{incus.IMAGE}", timeout=180)
    m.run("incus -q launch bb i1; incus -q launch bb i2")
    done = m.run(f"apt-get purge -y -q {' '.join(incus.PACKAGES)} 2>&1", timeout=300)
    keep = [*podman.KEPT, *INCUS_KEPT, r"cgroup /lxc\.pivot$"]
    compared(m, with_podman, keep=keep, changed=[*podman.CHANGED, *INCUS_CHANGED], said=done.out)
    m.run("podman exec c2 nslookup volumes && podman exec volumes wget -T 5 -qO- http://c2/")
    assert not [o for o in document(m, "plan", "podman", "incus") if o["action"] != "keep"]
