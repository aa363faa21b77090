"""Incus 7 of Debian sid, whose prerm stops Incus itself: installed, used and purged, with and without our hooks."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lab import hoststate, incus, incus7
from lab.machine import RECIPES, Machine
from lab.scenario import DELETE, DONE, KEPT, LATER, LEFT, REFUSED, Arrive, clean, document, leftovers, same
from lab.test_triggers import POOL, STOPPING, SUMMARY, alive, lines, purged, say, setting

pytestmark = pytest.mark.parametrize("machine", [{"recipe": RECIPES["incus-sid"]}], indirect=True, ids=["sid"])
ALL = " ".join(incus.PACKAGES)
ITSELF = r"^leftovers: Incus: its own package asks \d+ instances? to shut down, each for as long as it may take$"


def lived(m: Machine) -> dict[str, Any]:
    """The administrator's things, then Incus 7, installed and used. Returns the host as it was before Incus."""
    incus7.admin_things(m)
    before = m.snapshot()
    incus.install(m)
    incus7.use(m)
    return before


def ports(m: Machine) -> set[str]:
    """The ports of the administrator's bridge."""
    return set(m.run("ls /sys/class/net/br-lan/brif").out.split())


def bring_home(m: Machine) -> None:
    """Lent cards came home, but the file that knew their names was deleted: a person gives them back."""
    for card, peer in (("vethphys0", "vethphys1"), ("vethphys2", "vethphys3")):
        m.run(f"ip link set \"$(ip -o link | sed -n 's/^[0-9]*: \\(back[0-9]*\\)@{peer}:.*/\\1/p')\" name {card}")


@pytest.mark.parametrize("command", ["apt-get purge -y -q", pytest.param("dpkg -P", marks=pytest.mark.full)])
def test_purged_with_the_hooks(machine: Machine, arrive: Arrive, command: str) -> None:
    """Incus ends its instances, and we what it leaves; the pool's volumes are kept. The bridge that a network of type
    physical has for its parent keeps its other ports."""
    arrive(machine)
    incus7.admin_things(machine)
    own_ports = ports(machine)
    before = machine.snapshot()
    incus.install(machine)
    incus7.use(machine)
    seen = leftovers(machine, "explain", name_of(machine, "phy")).out
    assert re.search(r"(?m)^ *link .*Incus", seen) or "incus" in seen, seen
    assert len(ports(machine) - own_ports) == 2  # of c5 and phy
    said = say(machine, f"{command} {ALL}")
    purged(machine, before, said)
    assert len(lines(said, ITSELF)) == 1 and lines(said, STOPPING) == [], said
    assert ports(machine) == own_ports


def name_of(m: Machine, instance: str) -> str:
    """The host's end of an instance's eth0, as Incus has it written down."""
    return m.run(["incus", "config", "get", instance, "volatile.eth0.host_name"]).out.strip()


@pytest.mark.full
def test_purged_without_us(machine: Machine, arrive: Arrive) -> None:
    before = lived(machine)
    incus.purge(machine)
    machine.run("test -e /srv/pool/containers/c4/rootfs/bin/busybox")  # its shutdown unmounts the pool
    arrive(machine)
    assert {"nft table inet incus", "file /run/incus", "cgroup /lxc.pivot"} <= set(
        hoststate.compare(before, machine.snapshot(), keep=KEPT)["left"]
    )
    leftovers(machine, "verify", code=LEFT)
    clean(machine, before, keep=[*KEPT, POOL])  # nothing on the host says any more whose these volumes are
    leftovers(machine, "verify")


@pytest.mark.full
def test_recorded_before(machine: Machine, arrive: Arrive) -> None:
    arrive(machine)
    before = lived(machine)
    used = machine.snapshot()
    leftovers(machine, "record", "incus")
    same(machine, used, keep=[r"file /var/lib/leftovers", LATER], changed=())
    incus.purge(machine)
    clean(machine, before, keep=[*KEPT, POOL])
    leftovers(machine, "clean", "incus", "--yes", "--data")
    same(machine, before)


@pytest.mark.full
@pytest.mark.parametrize("hooks", [True, False], ids=["hooks", "without-us"])
def test_daemon_killed(machine: Machine, arrive: Arrive, hooks: bool) -> None:
    """Then the package's prerm ends nothing, and all that lives is ours: the veth on the bridge among it."""
    if hooks:
        arrive(machine)
    before = lived(machine)
    own_ports = ports(machine)
    veth = name_of(machine, "phy")
    assert veth in own_ports
    incus.kill_daemon(machine)
    if hooks:
        said = say(machine, f"apt-get purge -y -q {ALL}")
        assert lines(said, ITSELF) == [] and len(lines(said, SUMMARY)) == 1, said
        same(machine, before, keep=[*KEPT, POOL], said=said)
        assert machine.run("ls /srv/pool/containers").out == "c4\n"
    else:
        incus.purge(machine)
        assert veth in ports(machine)
        arrive(machine)
        planned = {o["id"]: o["action"] for o in document(machine, "plan", "incus")}
        assert planned[f"link:{veth}"] == "remove" and planned.get("link:br-lan", "keep") == "keep"
        leftovers(machine, "clean", "incus", "--yes", code=None)
        clean(machine, before)
    assert ports(machine) == own_ports - {veth, *names(own_ports, machine)}
    leftovers(machine, "verify")


def names(candidates: set[str], m: Machine) -> set[str]:
    """Those of these links that are no more."""
    return candidates - set(m.run("ls /sys/class/net").out.split())


@pytest.mark.full
def test_data_deleted_by_hand(machine: Machine, arrive: Arrive) -> None:
    before = lived(machine)
    incus.kill_daemon(machine)
    incus.purge(machine)
    machine.run("umount -l /var/lib/incus/devices\n" + DELETE)
    arrive(machine)
    leftovers(machine, "clean", "incus", "--yes", code=None)
    bring_home(machine)
    clean(machine, before)


@pytest.mark.full
@pytest.mark.parametrize("delay", [0.5, 1.0, 1.6])
def test_killed_and_resumed(machine: Machine, arrive: Arrive, delay: float) -> None:
    before = lived(machine)
    incus.kill_daemon(machine)
    incus.purge(machine)
    arrive(machine)
    machine.run(f"timeout -s KILL {delay} leftovers clean incus --yes || :")
    said = leftovers(machine, "resume", code=None)
    if "nothing to resume" in said.out:  # killed before the first change was written down, or done
        said = leftovers(machine, "clean", "incus", "--yes")
    assert said.code == DONE, said.out + said.err
    same(machine, before, said=said.out)
    leftovers(machine, "verify")


@pytest.mark.full
def test_refused_while_installed(machine: Machine, arrive: Arrive) -> None:
    lived(machine)
    arrive(machine)
    used = machine.snapshot()
    for arguments in (["--yes"], ["--yes", "--data"]):
        leftovers(machine, "clean", "incus", *arguments, code=REFUSED)
    assert [o["id"] for o in document(machine, "plan", "incus") if o["action"] != "keep"] == []
    leftovers(machine, "verify")
    same(machine, used, keep=[r"file /var/lib/leftovers", LATER], changed=())


def instances(m: Machine) -> None:
    """Incus with one that takes longer than we would wait, and one that does not hear at all."""
    incus.install(m)
    m.run("incus admin init --minimal\n" + incus.INITS.replace("trap 'echo", "trap 'sleep 4; echo"), timeout=180)
    m.run(
        """
        mkdir -m 777 /srv/trace
        incus -q init inits slow -c raw.lxc=lxc.init.cmd=/sbin/polite
        incus -q config device add slow trace disk source=/srv/trace path=/mnt/trace
        incus -q init inits deaf -c raw.lxc=lxc.init.cmd=/sbin/deaf -c boot.host_shutdown_timeout=2
        incus -q start slow deaf
        """
    )


@pytest.mark.full
def test_each_has_the_time_that_the_administrator_gave_it(machine: Machine, arrive: Arrive) -> None:
    """Not ours, which is shorter for one and longer for another; and nobody is told that one will be killed that is
    not, or waits twice."""
    arrive(machine)
    setting(machine, "stop_timeout = 1")
    instances(machine)
    said = say(machine, f"apt-get purge -y -q {ALL}")
    assert machine.read("/srv/trace/log") == "down slow\n", said
    assert len(lines(said, ITSELF)) == 1 and "did not come down" not in said, said
    assert len(lines(said, SUMMARY)) == 1, said
    leftovers(machine, "verify")


@pytest.mark.full
def test_policy_that_forbids_to_stop(machine: Machine, arrive: Arrive) -> None:
    """Where a policy keeps Debian's prerm from stopping anything (invoke-rc.d(8)), we ask."""
    arrive(machine)
    machine.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")
    machine.run("chmod 755 /usr/sbin/policy-rc.d; systemctl start lxcfs 2>/dev/null || :")
    incus.install(machine)
    machine.run("systemctl start lxcfs incus.socket incus-startup incus; incus admin init --minimal\n" + incus.IMAGE)
    machine.run("incus -q launch bb c1; incus -q launch bb c2")
    said = say(machine, f"apt-get purge -y -q {ALL}")
    assert len(lines(said, STOPPING)) == 1 and lines(said, ITSELF) == [], said
    assert len(lines(said, SUMMARY)) == 1, said
    leftovers(machine, "verify")


@pytest.mark.full
def test_its_own_prerm_fails(machine: Machine, arrive: Arrive) -> None:
    """After it has stopped all: Incus starts again what it has stopped, and nothing else happens."""
    arrive(machine)
    incus.install(machine)
    machine.run("incus admin init --minimal\n" + incus.IMAGE, timeout=180)
    machine.run("incus -q launch bb c1; incus -q launch bb eph --ephemeral")
    machine.run("echo 'exit 1' >>/var/lib/dpkg/info/incus-base.prerm")
    running = alive(machine)
    said = say(machine, "dpkg -P incus-base", code=1)
    assert len(lines(said)) == 1 and len(lines(said, ITSELF)) == 1, said
    machine.run(
        "for i in $(seq 100); do [ $(incus list -f csv -c s | grep -c RUNNING) = 2 ] && exit; sleep 0.1; done; exit 1"
    )
    assert len(alive(machine).splitlines()) == len(running.splitlines())
    assert machine.run("ls -A /run/leftovers").out == ""
    machine.run("sed -i '$d' /var/lib/dpkg/info/incus-base.prerm")
    assert len(lines(say(machine, f"dpkg -P {ALL}"), SUMMARY)) == 1
    leftovers(machine, "verify")
