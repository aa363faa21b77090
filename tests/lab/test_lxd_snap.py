"""The lxd snap with real LXD in it (lab/lxd_snap.py): removed with snapd's own means, and by us; beside Incus and
Debian's LXD, of which nothing may go."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from lab import hoststate, lxd, lxd_snap, snap
from lab.machine import RECIPES, Machine
from lab.scenario import DONE, LATER, LEFT, REFUSED, Arrive, document, leftovers, same
from lab.scenario import KEPT as INCUS_KEPT
from lab.test_lxd import INCUS, LXD, POOL, Side
from lab.test_snap_triggers import CHANGED, OURS, idle, said, settled

pytestmark = [
    pytest.mark.full,
    pytest.mark.parametrize("machine", [{"recipe": RECIPES["lxd-snap-trixie"]}], indirect=True, ids=["trixie"]),
]
KEPT = (
    *INCUS_KEPT,
    *lxd.KEPT,
    r"file /root/snaps(/.*)?$",  # what was installed
    r"file /var/lib/snapd/sequence/lxd\.json$",  # snapd never removes it
    r"file /var/lib/snapd/seccomp/bpf/snap\.lxd\.|file /snap/bin/lxc$",  # nor, when its first try failed, these
    r"file /root/snap(/lxd(/.*)?)?$",  # what snapd makes for a person who runs a snap's command
)
# snap-confine's own, of whatever strict snap.
CONFINED = (r"(file|mount) /run/snapd(/(ns|lock)(/\.lock|/lxd\.lock)?)?$", r"file /var/lib/snapd/hostfs$")


def lived(m: Machine, confinement: str = "classic") -> dict[str, Any]:
    """The administrator's things, then LXD, installed and used. Returns the host as it was before LXD."""
    lxd_snap.admin_things(m)
    before = m.snapshot()
    lxd_snap.install(m, confinement)
    lxd_snap.use(m)
    return before


def clean(m: Machine, before: dict[str, Any], keep: Sequence[str] = KEPT) -> None:
    said = leftovers(m, "clean", "lxd-snap", "--yes", code=None)
    same(m, before, keep=keep, said=said.out + said.err)
    assert said.code == DONE, said.out + said.err
    leftovers(m, "verify", "lxd-snap")
    assert [o["id"] for o in document(m, "plan", "lxd-snap") if o["action"] != "keep"] == []
    leftovers(m, "clean", "lxd-snap", "--yes")


def bring_home(m: Machine) -> None:
    """The lent card came home, but nobody knows its name any more: a person gives it back."""
    m.run(
        "n=$(ip -o link | sed -n 's/^[0-9]*: \\([^@]*\\)@vethphys1:.*/\\1/p'); "
        '[ "$n" = vethphys0 ] || ip link set "$n" name vethphys0'
    )


def remove(m: Machine) -> int:
    return m.run("snap remove --purge lxd", check=False, timeout=300).code


def test_removed_in_good_order(machine: Machine, arrive: Arrive) -> None:
    """The snap's own stop shuts the instances down, and snapd says that all went well. Its firewall is there as before,
    and what liblxc has made."""
    before = lived(machine)
    assert remove(machine) == 0
    found = hoststate.compare(before, machine.snapshot(), keep=KEPT)
    assert {"nft", "cgroup", "file"} <= {line.split(" ")[0] for line in found["left"]}, found["left"]
    arrive(machine)
    leftovers(machine, "verify", code=LEFT)
    bring_home(machine)
    # Where a pool has its source outside, only LXD's database knew it; in good order nothing is mounted there any more.
    clean(machine, before, [*KEPT, POOL])
    leftovers(machine, "verify")


def test_removed_after_a_crash(machine: Machine, arrive: Arrive) -> None:
    """The snap's stop does nothing then, by its own note; snapd deletes through the mounts, and fails. We finish, and
    what snapd has left goes with its second try."""
    before = lived(machine)
    lxd_snap.crash(machine)
    assert remove(machine) == 1
    assert snap.changes(machine, "lxd")[-1]["status"] == "Error"
    arrive(machine)
    leftovers(machine, "verify", "lxd-snap", code=LEFT)
    leftovers(machine, "clean", "lxd-snap", "--yes", code=None)
    assert "/var/snap/lxd/" not in machine.read("/proc/self/mountinfo")
    assert remove(machine) == 0
    idle(machine)
    said = leftovers(machine, "clean", "lxd-snap", "--yes", code=None)
    bring_home(machine)
    found = hoststate.compare(before, machine.snapshot(), keep=[f"^{k}" for k in KEPT], changed=[r"^sysctl "])
    assert found["left"] == [], f"{found['left']}\n{said.out}"
    assert all(line.startswith("file /srv/data") for line in found["lost"]), "snapd's work"
    leftovers(machine, "verify")


def test_containers_that_outlive_a_strict_snap(machine: Machine, arrive: Arrive) -> None:
    """As in the field: what is mounted is in the snap's own namespace, so snapd sees nothing and its removal succeeds;
    what runs, runs on from a file system that is mounted nowhere any more."""
    m = machine
    before = lived(m, "devmode")
    assert "/var/snap/lxd/" not in m.read("/proc/self/mountinfo")
    lxd_snap.crash(m)
    assert remove(m) == 0 and "lxd" not in m.run("snap list").out
    assert m.run("pgrep -fc '^.lxc monitor. /var/snap/lxd/'").out == "11\n"  # one is the administrator's
    assert "-> /bin/lxd\n" in m.run("ls -l /proc/[0-9]*/exe").out
    arrive(m)
    leftovers(m, "verify", "lxd-snap", code=LEFT)
    leftovers(m, "clean", "lxd-snap", "--yes", code=None)
    bring_home(m)
    clean(m, before, [*KEPT, POOL, *CONFINED])
    assert m.run("cat /srv/data/file /srv/data/sub/file").out == "precious\nbelow\n"
    leftovers(m, "verify")


def test_all_that_lives_goes_while_snapd_still_has_it(machine: Machine, arrive: Arrive) -> None:
    """As a watcher does it before snapd deletes anything: then the removal succeeds, and reaches no user's file."""
    arrive(machine)
    before = lived(machine)
    used = machine.snapshot()
    leftovers(machine, "clean", "lxd-snap", "--yes", code=REFUSED)
    same(machine, used, keep=[r"file /var/lib/leftovers", LATER], changed=[rf"file {lxd_snap.DIRECTORY}/database/"])
    said = leftovers(machine, "clean", "lxd-snap", "--force", "--yes", code=None).out
    assert machine.run("test -e /var/snap/lxd/common/lxd/database && ls /srv/pool/containers").out == "c4\n", said
    state = machine.snapshot()["state"]
    assert not [point for point in state["mount"] if "/var/snap/lxd" in point], said
    assert remove(machine) == 0
    leftovers(machine, "clean", "lxd-snap", "--yes", code=None)
    same(machine, before, keep=[*KEPT, POOL], said=said)
    leftovers(machine, "verify")


@pytest.mark.parametrize("confinement", ["classic", "devmode"])
def test_snapd_removes_it_and_we_are_there(machine: Machine, arrive: Arrive, confinement: str) -> None:
    """The guard asks the instances to shut down, and sweeps before snapd deletes; the rest goes when snapd is done."""
    m = machine
    arrive(m)
    idle(m)
    before = lived(m, confinement)
    done = m.run("snap remove --purge lxd", check=False, timeout=300)
    told = settled(m, "lxd")
    assert done.code == 0, f"{done.err}\n{told}"
    assert "LXD (snap): asking 9 instances to shut down" in told, told
    same(m, before, keep=[*KEPT, *OURS, POOL, *CONFINED], changed=CHANGED, said=told)
    leftovers(m, "verify", "lxd-snap")
    assert m.run("cat /srv/data/file /srv/data/sub/file").out == "precious\nbelow\n"


def test_a_removal_that_snapd_takes_back(machine: Machine, arrive: Arrive) -> None:
    """snapd fails for a reason that is none of ours, after the instances were asked: the snap stays, and is told."""
    m = machine
    arrive(m)
    lxd_snap.admin_things(m)
    lxd_snap.install(m)
    lxd_snap.start_two(m, "10.88.0")
    # What somebody has open is in nobody's way; what cannot be deleted is.
    m.run("touch /var/snap/lxd/common/stone && chattr +i /var/snap/lxd/common/stone")
    assert remove(m) == 1
    m.run("chattr -i /var/snap/lxd/common/stone")
    idle(m, "leftovers-snaps.service")
    told = said(m)
    assert "asking 2 instances to shut down" in told
    assert "finish with: snap remove --purge lxd" in told, told
    assert remove(m) == 0
    assert "nothing is left" in settled(m, "lxd")


STOP_AND_START = """
import sys
sys.path.insert(0, "/usr/share/leftovers")
from leftovers.host import Host
from leftovers.model import Deadline
from leftovers.products import load
from leftovers.survey import survey
host, product = Host(), load("lxd-snap")
records = survey(host, [product], {}).records[product.name]
if sys.argv[1] == "stop":
    print(product.stop(host, records, Deadline(60)))
else:
    print(product.start(host, sys.argv[2:], Deadline(60)))
"""


@pytest.mark.parametrize("confinement", ["classic", "devmode"])
def test_instances_are_asked_over_its_socket(machine: Machine, arrive: Arrive, confinement: str) -> None:
    """As a watcher does it while the service still runs, and again when it did not come to the removal."""
    m = machine
    arrive(m)
    lxd_snap.admin_things(m)
    lxd_snap.install(m, confinement)
    lxd_snap.start_two(m, "10.88.0")

    def states() -> str:
        return m.run("/snap/bin/lxc list -f csv -c ns").out

    assert states() == "c1,RUNNING\nc2,RUNNING\n"
    assert m.run(["python3", "-I", "-c", STOP_AND_START, "stop"], timeout=90).out == "{}\n"
    assert states() == "c1,STOPPED\nc2,STOPPED\n"
    assert m.run(["python3", "-I", "-c", STOP_AND_START, "start", "c1", "c2"], timeout=90).out == "{}\n"
    assert states() == "c1,RUNNING\nc2,RUNNING\n"


@pytest.mark.parametrize(
    ("staying", "first"),
    [
        pytest.param(INCUS, True, id="incus-came-first"),
        pytest.param(INCUS, False, id="incus-came-later"),
        # Not later: both want a lxdbr0, and the second would have none.
        pytest.param(LXD, True, id="lxd-came-first"),
    ],
)
def test_beside_another(machine: Machine, arrive: Arrive, staying: Side, first: bool) -> None:
    """Containers of both, with the same names. The other's run on, reach each other, and new ones start."""
    m = machine
    lxd_snap.admin_things(m)
    going = Side("lxd", "LXD", "/snap/bin/lxc", (), "10.88.0")
    if first:
        staying.start(m)
    with_one = m.snapshot()
    lxd_snap.install(m)
    lxd_snap.start_two(m, going.net)
    if not first:
        staying.start(m)
    staying.works(m)
    running = staying.processes(m)
    assert len(running.splitlines()) == 4, running
    lxd_snap.crash(m)
    remove(m)
    arrive(m)
    said = leftovers(m, "clean", "lxd-snap", "--yes", code=None).out
    remove(m)
    said += leftovers(m, "clean", "lxd-snap", "--yes", code=None).out
    assert staying.processes(m) == running, said
    staying.works(m)
    assert not [o for o in document(m, "plan", staying.name) if o["action"] != "keep"]
    if first:
        shared = [r"cgroup /lxc\.pivot$"]
        if staying is LXD:
            shared.append(r"nft .*inet lxd")  # in one table with those of the other: they are told, and stay
            assert re.search("another one writes to", leftovers(m, "plan", "lxd-snap").out)
        same(m, with_one, keep=[*KEPT, LATER, *shared], said=said)
    m.run(f"{staying.client} -q launch bb again && {staying.client} -q delete -f again")
