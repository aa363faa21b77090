"""Incus, and LXD, with their xtables firewall driver, on iptables-nft and on iptables-legacy."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lab import hoststate, incus, lxd, xtables
from lab.machine import RECIPES, Machine
from lab.scenario import KEPT, LEFT, Arrive, clean, document, leftovers, same

KEEP = [*KEPT, *xtables.EMPTY]
UNREAD = 1
BACKENDS = ["nft", pytest.param("legacy", marks=pytest.mark.full)]
# The administrator adds these while Incus runs, beside its own: it removes whatever has its comment in it.
BY_HAND = """
for t in iptables ip6tables; do
    $t -A FORWARD -i incusbr0 -m comment --comment "generated for Incus network incusbr0 by hand" -j ACCEPT
done
"""


def lived(m: Machine, backend: str) -> dict[str, Any]:
    """The administrator's things and firewall, then Incus, installed and used. Returns the host before Incus."""
    incus.admin_things(m)
    m.run(xtables.ADMIN.replace("BACKEND", backend) + BY_HAND)
    before = m.snapshot()
    m.run(BY_HAND.replace("-A", "-D"))
    xtables.hide(m, "nft")
    incus.install(m)
    incus.use(m)
    m.run(xtables.USE, timeout=180)
    m.run(BY_HAND)
    xtables.show(m, "nft")
    assert rules(m, backend, "Incus") > 100
    return before


def rules(m: Machine, backend: str, title: str) -> int:
    """How many rules with a comment of Incus' there are; and some about its devices on bridges."""
    assert re.search(r"-i veth[0-9a-f]{8} -j DROP", m.run("ebtables-save").out.replace("vethdeadbeef", ""))
    saved = m.run(f"iptables-{backend}-save; ip6tables-{backend}-save").out
    return sum(f'"generated for {title} ' in line for line in saved.splitlines())


@pytest.mark.parametrize("backend", BACKENDS)
def test_purged_with_the_hooks(machine: Machine, arrive: Arrive, backend: str) -> None:
    arrive(machine)
    before = lived(machine, backend)
    said = machine.run(f"apt-get purge -y -q {' '.join(incus.PACKAGES)} 2>&1", timeout=300).out
    same(machine, before, keep=[*KEEP, r"file /srv/pool/"], said=said)
    leftovers(machine, "verify")


@pytest.mark.full
@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_purged_without_us(machine: Machine, arrive: Arrive, backend: str) -> None:
    before = lived(machine, backend)
    incus.purge(machine)
    assert rules(machine, backend, "Incus") > 100
    arrive(machine)
    leftovers(machine, "verify", code=LEFT)
    going = {o["id"] for o in document(machine, "plan", "incus") if o["action"] == "remove"}
    for start in (f"ip {backend} filter", f"ip {backend} nat", f"ip6 {backend} filter", "bridge nft filter"):
        assert [id for id in going if id.startswith(f"xtables:{start} ")], start
    clean(machine, before, keep=KEEP)
    leftovers(machine, "verify")


@pytest.mark.full
@pytest.mark.parametrize(
    ("backend", "gone"), [("nft", ("nft", "legacy")), ("legacy", ("legacy",))], ids=["both-gone", "legacy-gone"]
)
def test_without_iptables(machine: Machine, arrive: Arrive, backend: str, gone: tuple[str, ...]) -> None:
    """Rules that no tool can read are not forgotten: what to install is told, and a later clean takes them, also those
    on bridges, whose links are gone by then."""
    before = lived(machine, backend)
    incus.purge(machine)
    arrive(machine)
    programs = [f"xtables-{name}-multi" for name in gone]
    xtables.hide(machine, *programs)
    said = leftovers(machine, "clean", "incus", "--yes", code=UNREAD)
    assert re.search(rf"unread +iptables rules \({backend}\): .*\(apt install iptables\)", said.out), said.out
    assert "(apt install iptables)" in leftovers(machine, "verify", code=UNREAD).out
    xtables.show(machine, *programs)
    found = hoststate.compare(before, machine.snapshot(), keep=[f"^{k}" for k in KEEP])
    assert {line.split()[0] for line in found["left"]} <= {"xtables", "nft"}, found["left"]
    leftovers(machine, "verify", "incus", code=LEFT)
    clean(machine, before, keep=KEEP)


@pytest.mark.full
def test_without_iptables_under_the_hooks(machine: Machine, arrive: Arrive) -> None:
    arrive(machine)
    before = lived(machine, "nft")
    xtables.hide(machine, "xtables-nft-multi")
    said = machine.run(f"apt-get purge -y -q {' '.join(incus.PACKAGES)} 2>&1", timeout=300).out
    assert re.search(r"leftovers: Incus: .*; NOT ALL could be read: leftovers scan incus", said), said
    assert "(apt install iptables)" in leftovers(machine, "scan", "incus", code=UNREAD).out
    xtables.show(machine, "xtables-nft-multi")
    leftovers(machine, "verify", "incus", code=LEFT)
    leftovers(machine, "clean", "incus", "--yes")
    same(machine, before, keep=[*KEEP, r"file /srv/pool/"], said=said)
    leftovers(machine, "verify")


@pytest.mark.full
def test_a_chain_that_somebody_else_uses(machine: Machine, arrive: Arrive) -> None:
    """It stays, and says which rule is to go first."""
    before = lived(machine, "nft")
    rule = "FORWARD -i br-lan -j incus_acl_net2"
    machine.run(f"iptables -A {rule}")
    incus.purge(machine)
    arrive(machine)
    leftovers(machine, "clean", "incus", "--yes")
    assert f"-A {rule}" in machine.run("iptables -S").out
    kept = [
        o
        for o in document(machine, "verify", "incus", code=LEFT)
        if o["id"] == "xtables:ip nft filter -N incus_acl_net2"
    ]
    assert kept and kept[0]["advice"] == f"iptables-nft -t filter -D {rule} && leftovers clean incus"
    machine.run(["sh", "-ec", kept[0]["advice"] + " --yes"])
    clean(machine, before, keep=KEEP)


@pytest.mark.full
@pytest.mark.parametrize("machine", [{"recipe": RECIPES["lxd-trixie"]}], indirect=True, ids=["trixie"])
@pytest.mark.parametrize("hooks", [True, False], ids=["hooks", "without-us"])
def test_lxd(machine: Machine, arrive: Arrive, hooks: bool) -> None:
    if hooks:
        arrive(machine)
    lxd.admin_things(machine)
    machine.run(xtables.of_lxd(xtables.ADMIN).replace("BACKEND", "nft"))
    before = machine.snapshot()
    xtables.hide(machine, "nft")
    lxd.install(machine)
    lxd.use(machine)
    machine.run(xtables.of_lxd(xtables.USE), timeout=180)
    xtables.show(machine, "nft")
    assert rules(machine, "nft", "LXD") > 100
    keep = [*lxd.KEPT, *xtables.EMPTY, r"file /srv/pool/"]
    if hooks:
        said = machine.run(f"apt-get purge -y -q {' '.join(lxd.PACKAGES)} 2>&1", timeout=300).out
    else:
        lxd.purge(machine)
        arrive(machine)
        said = leftovers(machine, "clean", "lxd", "--yes").out
        # The lent card came home, but Debian's purge deletes the file that knew its name.
        machine.run(
            "ip link set \"$(ip -o link | sed -n 's/^[0-9]*: \\(back[0-9]*\\)@vethphys1:.*/\\1/p')\" name vethphys0"
        )
    same(machine, before, keep=keep, said=said)
    leftovers(machine, "verify")
