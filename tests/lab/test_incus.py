"""Incus of Debian: installed, used and purged on a real host, then cleaned up after; and compared with the host before.

Whether anything is left, lost or changed is hoststate.py's to say, which shares no code with leftovers.
"""

from __future__ import annotations

import json

import pytest

from lab import hoststate, incus
from lab.machine import Machine
from lab.scenario import (
    DELETE,
    DONE,
    KEPT,
    LATER,
    LEFT,
    REFUSED,
    Arrive,
    clean,
    document,
    leftovers,
    lived,
    same,
)


def test_purged_without_us(machine: Machine, arrive: Arrive) -> None:
    before = lived(machine)
    incus.purge(machine)
    # Debian's damage, before us: its postrm removes the pool's content through the mount that is still there.
    assert machine.run(["ls", "-A", "/srv/pool"]).out == ""
    arrive(machine)
    purged = machine.snapshot()
    # That much is there to be cleaned (279 with the scenario as it was first measured).
    assert len(hoststate.compare(before, purged, keep=KEPT)["left"]) > 200

    leftovers(machine, "verify", code=LEFT)
    leftovers(machine, "verify", "incus", code=LEFT)
    leftovers(machine, "scan")
    leftovers(machine, "scan", "incus", "--exit-code", code=LEFT)
    planned = document(machine, "plan", "incus")
    assert {"process", "link", "mount", "cgroup"} <= {o["kind"] for o in planned if o["action"] == "remove"}
    assert [o["product"] for o in document(machine, "explain", "incusbr0")] == ["incus"]
    same(machine, purged, keep=KEPT, changed=())  # looking changes nothing

    clean(machine, before)
    leftovers(machine, "verify")


def test_recorded_before(machine: Machine, arrive: Arrive) -> None:
    arrive(machine)
    before = lived(machine)
    used = machine.snapshot()
    leftovers(machine, "record", "incus")
    same(machine, used, keep=[r"file /var/lib/leftovers", LATER], changed=())
    incus.purge(machine)
    clean(machine, before)


def test_daemon_killed(machine: Machine, arrive: Arrive) -> None:
    before = lived(machine)
    incus.kill_daemon(machine)
    incus.purge(machine)
    arrive(machine)
    clean(machine, before)


def bring_home(m: Machine) -> None:
    """The lent card came home, but the file that knew its name was deleted by hand: a person gives it back."""
    m.run("ip link set \"$(ip -o link | sed -n 's/^[0-9]*: \\(back[0-9]*\\)@vethphys1:.*/\\1/p')\" name vethphys0")


def test_data_deleted_by_hand(machine: Machine, arrive: Arrive) -> None:
    before = lived(machine)
    incus.purge(machine)
    machine.run(DELETE)
    arrive(machine)
    leftovers(machine, "clean", "incus", "--yes", code=None)
    bring_home(machine)
    clean(machine, before)


def strand(m: Machine) -> list[str]:
    """Kill containers, and monitors of others, as an impatient administrator does. A monitor gives the network card of
    a killed container back to the host, and nobody removes the pair: these names are returned. (A killed monitor takes
    its container with it, and the pair goes with the namespace. c8 has the administrator's card: it is left alone.)"""
    names = "ip -o link show type veth | sed 's/^[0-9]*: //; s/[@:].*//' | sort"
    earlier = set(m.run(names).out.split())
    m.run(
        r"""
        for c in c1 c3 c5; do
            pkill -KILL -P "$(pgrep -f "^\[lxc monitor\] /var/lib/incus/containers $c\$" | tail -n 1)"
        done
        sleep 1
        systemctl kill -s KILL incus.service 2>/dev/null || :
        pkill -KILL -f '^\[lxc monitor\] /var/lib/incus/containers (c[2-7]|eph|proj_p1)$'
        sleep 0.5
        """
    )
    return sorted(set(m.run(names).out.split()) - earlier)


@pytest.mark.full
def test_stranded_links_recorded_before(machine: Machine, arrive: Arrive) -> None:
    arrive(machine)
    before = lived(machine)
    leftovers(machine, "record", "incus")
    incus.purge(machine)
    assert strand(machine) != []
    machine.run(DELETE)
    clean(machine, before)


@pytest.mark.full
def test_stranded_links(machine: Machine, arrive: Arrive) -> None:
    """Without a record, and with all evidence gone, a link may stay; then it is named, and nothing else stays."""
    before = lived(machine)
    incus.purge(machine)
    stranded = strand(machine)
    assert stranded != []
    machine.run(DELETE)
    arrive(machine)
    said = leftovers(machine, "clean", "incus", "--yes", code=None)
    bring_home(machine)
    here = machine.run("ls /sys/class/net").out.split()
    unproven = [name for name in stranded if name in here]
    named = {o["id"] for o in document(machine, "verify", "incus", code=LEFT if unproven else DONE)}
    assert {f"link:{name}" for name in unproven} <= named
    same(machine, before, keep=[*KEPT, *(rf"(link|address|route) .*\b{name}\b" for name in unproven)], said=said.out)


def test_refused_while_installed(machine: Machine, arrive: Arrive) -> None:
    lived(machine)
    arrive(machine)
    used = machine.snapshot()
    for arguments in (["--yes"], ["--yes", "--data"]):
        leftovers(machine, "clean", "incus", *arguments, code=REFUSED)
    assert [o["id"] for o in document(machine, "plan", "incus") if o["action"] != "keep"] == []
    leftovers(machine, "verify")
    # the processes' numbers are compared too
    same(machine, used, keep=[r"file /var/lib/leftovers", LATER], changed=())


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "unrecorded"])
def test_volumes_survive(machine: Machine, arrive: Arrive, recorded: bool) -> None:
    """A careful administrator unmounts the pool before the purge: what is in it is data that only --data removes."""
    before = lived(machine)
    if recorded:
        arrive(machine)
        leftovers(machine, "record", "incus")
    machine.run("echo mine >/srv/pool/notes; umount /var/lib/incus/storage-pools/pool2")
    incus.purge(machine)
    assert machine.run(["ls", "/srv/pool/containers"]).out == "c4\n"
    arrive(machine)

    said = leftovers(machine, "clean", "incus", "--yes")
    same(machine, before, keep=[*KEPT, r"file /srv/pool/"], said=said.out)
    assert machine.run(["ls", "/srv/pool/containers"]).out == "c4\n"
    kept = [o for o in document(machine, "scan", "incus") if o["action"] == "keep" and "/srv/pool" in json.dumps(o)]
    assert kept != [] and "/srv/pool" in leftovers(machine, "scan", "incus").out

    said = leftovers(machine, "clean", "incus", "--yes", "--data")
    same(machine, before, keep=[*KEPT, r"file /srv/pool/notes$"], said=said.out)
    assert machine.read("/srv/pool/notes") == "mine\n"


def test_bystander_without_incus(machine: Machine, arrive: Arrive) -> None:
    """Names of Incus' on a host that never had it are the administrator's."""
    incus.admin_things(machine)
    machine.run(
        """
        ip link add incusbr0 type bridge
        ip addr add 10.200.0.1/24 dev incusbr0
        ip link set incusbr0 up
        ip link add veth0a1b2c3d type veth peer name eth0c1
        ip link set veth0a1b2c3d master incusbr0
        mkdir -p /sys/fs/cgroup/lxc.monitor.c1
        """
    )
    arrive(machine)
    before = machine.snapshot()
    assert [o["id"] for o in document(machine, "plan", "incus") if o["action"] != "keep"] == []
    leftovers(machine, "clean", "incus", "--yes")
    leftovers(machine, "clean", "incus", "--yes", "--data")
    leftovers(machine, "verify")
    same(machine, before, keep=[r"file /var/lib/leftovers"], changed=())


def test_administrator_inside(machine: Machine, arrive: Arrive) -> None:
    """A process that the administrator started in a container's network namespace is not the container's."""
    before = lived(machine)
    machine.run(
        """
        init=$(incus -q query /1.0/instances/c1/state | sed -n 's/.*"pid": *\\([0-9]*\\).*/\\1/p')
        systemd-run -q --unit=admin-inside nsenter -t "$init" -n sleep 1000010
        sleep 0.2
        """
    )
    pid = machine.run("pgrep -x -f 'sleep 1000010'").out.strip()
    incus.purge(machine)
    arrive(machine)
    said = leftovers(machine, "clean", "incus", "--yes", code=None)
    assert machine.run("pgrep -x -f 'sleep 1000010'").out.strip() == pid
    inside = (r"process sleep 1000010 ", r"(unit|cgroup) .*admin-inside", r"netns \[net of sleep\]$")
    same(machine, before, keep=[*KEPT, *inside], said=said.out)
    # it holds a namespace of Incus', and a person is told so
    assert f"pid {pid}" in said.out


@pytest.mark.full
@pytest.mark.parametrize("delay", [0.3, 0.5, 0.8, 1.2, 2.0])
def test_killed_and_resumed(machine: Machine, arrive: Arrive, delay: float) -> None:
    """A clean that is killed at any point is finished by another."""
    before = lived(machine)
    incus.purge(machine)
    arrive(machine)
    machine.run(f"timeout -s KILL {delay} leftovers clean incus --yes || :")
    said = leftovers(machine, "resume")
    if "nothing to resume" in said.out:  # killed before the first change was written down, or done
        said = leftovers(machine, "clean", "incus", "--yes")
    same(machine, before, said=said.out)
    leftovers(machine, "verify")


@pytest.mark.full
def test_removed_not_purged(machine: Machine, arrive: Arrive) -> None:
    """`apt remove` keeps data: a clean then removes what lives, and --data the rest."""
    before = lived(machine)
    machine.run(["apt-get", "remove", "-y", "-q", *incus.PACKAGES])
    arrive(machine)
    conffiles = [*KEPT, r"file /etc/", r"file /srv/pool/"]
    said = leftovers(machine, "clean", "incus", "--yes")
    same(machine, before, keep=[*conffiles, r"file /var/(lib|cache|log)/(incus|runit)"], said=said.out)
    assert machine.run(["ls", "/srv/pool/containers"]).out == "c4\n"
    machine.run(["test", "-e", "/var/lib/incus/database/global/db.bin"])
    leftovers(machine, "clean", "incus", "--yes", "--data")
    incus.purge(machine)
    same(machine, before)


@pytest.mark.parametrize("machine", [{"loop": True}], indirect=True)
def test_a_btrfs_pool_on_a_loop_device(machine: Machine, arrive: Arrive) -> None:
    """The pool's mount and its loop device go; the administrator's loop device stays."""
    incus.admin_things(machine)
    machine.run("truncate -s 200M /srv/disk.img; losetup -f /srv/disk.img")
    before = machine.snapshot()
    incus.install(machine)
    machine.run("incus admin init --minimal\n" + incus.IMAGE)
    machine.run("incus -q storage create fast btrfs size=256MiB; incus -q launch bb b1 --storage fast", timeout=180)
    assert "disks/fast.img" in machine.run("losetup --list --noheadings --output BACK-FILE").out
    incus.purge(machine)
    arrive(machine)
    kinds = {o["kind"] for o in document(machine, "plan", "incus") if o["action"] == "remove"}
    assert {"loop", "mount"} <= kinds
    clean(machine, before)
