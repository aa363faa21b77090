"""Incus goes from a host on which others have containers and bridges of their own: LXC and libvirt."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lab import incus, lxd, neighbours
from lab.machine import RECIPES, Machine
from lab.scenario import KEPT, LATER, LEFT, Arrive, document, leftovers, same
from lab.test_lxd import INCUS, LXD

on_neighbours = pytest.mark.parametrize(
    "machine", [{"recipe": RECIPES["neighbours-trixie"]}], indirect=True, ids=["trixie"]
)
# lxcfs is LXC's too, and stays.
PACKAGES = ("incus-base", "incus-client")
# Whoever came first made lxc.pivot, and LXC may need it.
KEEP = [*KEPT, LATER, r"cgroup /lxc\.pivot$"]
DELETE = "rm -rf --one-file-system /var/lib/incus /var/log/incus /run/incus /run/lxc/lock/var/lib/incus || :"

USE = (
    "incus admin init --minimal\n"
    + incus.IMAGE
    + r"""
# c1 and c2 have the names of LXC's: their cgroups get a number.
incus -q launch bb c1
incus -q launch bb c2 -c security.privileged=true
for parent in lxcbr0 virbr0; do
    incus -q init bb on-$parent
    incus -q config device add on-$parent eth0 nic nictype=bridged parent=$parent
    incus -q start on-$parent
done
incus -q network create net2 ipv4.address=10.99.0.1/24 ipv6.address=none
incus -q launch bb c5 --network net2
"""
)


def lived(m: Machine) -> dict[str, Any]:
    """LXC and libvirt, then Incus. Returns the host as it was before Incus."""
    neighbours.lxcfs(m)
    neighbours.lxc(m)
    neighbours.libvirt(m)
    neighbours.lxc_works(m)
    before = m.snapshot()
    m.run(["apt-get", "install", "-y", "-q", "--no-download", "--no-install-recommends", *PACKAGES])
    m.run(USE, timeout=180)
    links = m.run("ip -br link show master lxcbr0; ip -br link show master virbr0").out
    assert len(links.splitlines()) == 4 + 2, links
    assert len(m.run("ls -d /sys/fs/cgroup/lxc.payload.c1 /sys/fs/cgroup/lxc.payload.c1-1").out.split()) == 2
    return before


def claimed(m: Machine) -> str:
    """What a clean would remove or give back, as text."""
    return "\n".join(
        f"{o['id']} {o['evidence']}" for o in document(m, "scan") if o["action"] != "keep" and o["product"] != "lxcfs"
    )


def theirs(m: Machine) -> list[str]:
    """What nobody may claim: LXC's monitors and all in its containers, by pid; links, cgroups."""
    inits = m.run("for n in c1 c2 c3; do lxc-info -n $n -p -H; done").out.split()
    pids = m.run(f"for p in {' '.join(inits)}; do echo $p; awk '{{print $4}}' /proc/$p/stat; pgrep -P $p; done").out
    links = m.run("ip -o link | sed -n 's/^[0-9]*: \\([^:@]*\\)[:@].*/\\1/p'").out.split()
    mine = [link for link in links if re.fullmatch(r"lxcbr0|virbr0|vnet0|veth[0-9A-Za-z]{6}", link)]
    assert len(inits) == 3 and len(mine) == 6, mine
    return [
        *(f"process:{pid}" for pid in pids.split()),
        *(f"link:{link}" for link in mine),
        *(f"cgroup:/lxc.{kind}.{name}" for kind in ("payload", "monitor") for name in ("c1", "c2", "c3")),
        "cgroup:/lxc.pivot",
    ]


def unclaimed(m: Machine) -> None:
    going = claimed(m)
    for id in theirs(m):
        assert not re.search(rf"(?m)^{re.escape(id)} ", going), f"{id}\n{going}"
    assert not re.search(r"(?m)^(xtables:|nft:\w+ (lxc|filter|nat|mangle)\b)", going), going


@on_neighbours
def test_purged_with_the_hooks(machine: Machine, arrive: Arrive) -> None:
    arrive(machine)
    before = lived(machine)
    said = machine.run(f"apt-get purge -y -q {' '.join(PACKAGES)} 2>&1", timeout=300).out
    same(machine, before, keep=KEEP, said=said)
    neighbours.lxc_works(machine)
    unclaimed(machine)
    leftovers(machine, "verify")


@pytest.mark.full
@on_neighbours
def test_purged_without_us(machine: Machine, arrive: Arrive) -> None:
    before = lived(machine)
    machine.run(["apt-get", "purge", "-y", "-q", *PACKAGES], timeout=300)
    arrive(machine)
    leftovers(machine, "verify", "incus", code=LEFT)
    unclaimed(machine)
    # The pids of monitors and cgroups are all that is left to tell them apart.
    machine.run(DELETE)
    unclaimed(machine)
    said = leftovers(machine, "clean", "incus", "--yes", code=None).out
    same(machine, before, keep=KEEP, said=said)
    neighbours.lxc_works(machine)
    unclaimed(machine)
    leftovers(machine, "verify")


@pytest.mark.full
@on_neighbours
def test_without_incus(machine: Machine, arrive: Arrive) -> None:
    """LXC and libvirt on a host that never had Incus, or had it once: the account of a purge is there."""
    neighbours.lxcfs(machine)
    neighbours.lxc(machine)
    neighbours.libvirt(machine)
    neighbours.lxc_works(machine)
    arrive(machine)
    before = machine.snapshot()
    for _ in range(2):
        assert claimed(machine) == ""
        for arguments in (("incus", "lxd"), ("incus", "lxd", "lxcfs")):
            leftovers(machine, "clean", *arguments, "--yes", "--data", code=None)
        same(machine, before, keep=[r"file /var/lib/leftovers", LATER, r"account group incus-admin"], changed=())
        neighbours.lxc_works(machine)
        machine.run("getent group incus-admin || groupadd --system incus-admin")


@pytest.mark.full
@pytest.mark.parametrize("machine", [{"recipe": RECIPES["incus+lxd-trixie"]}], indirect=True, ids=["trixie"])
@pytest.mark.parametrize("hooks", [True, False], ids=["hooks", "without-us"])
def test_a_bridge_that_another_s_container_is_on(machine: Machine, arrive: Arrive, hooks: bool) -> None:
    """Incus' container was plugged into LXD's bridge by hand. The bridge stays for as long as it is."""
    m = machine
    if hooks:
        arrive(m)
    INCUS.start(m)
    before = m.snapshot()
    LXD.start(m)
    m.run(
        """
        incus -q init bb guest
        incus -q config device add guest eth0 nic nictype=bridged parent=lxdbr0
        incus -q start guest
        incus exec guest -- sh -c 'busybox ifconfig eth0 10.66.0.99 up && mkdir /www && echo guest >/www/index.html &&
            httpd -h /www'
        """
    )
    assert m.run("busybox wget -T 5 -qO- http://10.66.0.99/").out == "guest\n"
    said = m.run("apt-get purge -y -q lxd lxd-client 2>&1", timeout=300).out
    if hooks:
        assert re.search(r"leftovers: LXD: .*; 1 LEFT: leftovers verify lxd", said), said
    else:
        arrive(m)
        leftovers(m, "clean", "lxd", "--yes")
    assert m.run("busybox wget -T 5 -qO- http://10.66.0.99/").out == "guest\n"
    assert len(m.run("ip -o link show master lxdbr0").out.splitlines()) == 1
    (held,) = (o for o in document(m, "verify", code=LEFT) if o["counts"])
    assert held["id"] == "link:lxdbr0" and held["advice"].endswith(" nomaster && leftovers clean lxd")
    leftovers(m, "clean", "lxd", "--yes")
    assert m.run("busybox wget -T 5 -qO- http://10.66.0.99/").out == "guest\n"
    m.run("incus -q delete -f guest")
    said = leftovers(m, "clean", "lxd", "--yes").out
    # Incus leaves these of an instance that it deleted.
    of_guest = r"file /(run/incus|var/log/incus|var/lib/incus/security/apparmor/profiles)/(incus-)?guest(/|$)"
    same(m, before, keep=[*KEEP, *lxd.KEPT, of_guest], said=said)
    leftovers(m, "verify")
