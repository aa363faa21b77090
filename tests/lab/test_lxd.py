"""LXD of Debian: installed, used and purged on a real host, with and without our hooks; and beside Incus."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from lab import hoststate, incus, lxd
from lab.machine import RECIPES, Machine
from lab.scenario import DONE, LATER, LEFT, REFUSED, Arrive, document, leftovers, same
from lab.scenario import KEPT as INCUS_KEPT

HOSTS = [
    pytest.param({"recipe": RECIPES["lxd-trixie"]}, id="trixie"),
    pytest.param({"recipe": RECIPES["lxd-bookworm"]}, id="bookworm", marks=pytest.mark.full),
]
on_debian = pytest.mark.parametrize("machine", HOSTS, indirect=True)
on_trixie = pytest.mark.parametrize("machine", HOSTS[:1], indirect=True)
POOL = r"file /srv/pool/"
SUMMARY = r"(?m)^leftovers: LXD: [1-9]\d* gone in [\d.]+ s \(.*; nothing is left$"


def lived(m: Machine) -> dict[str, Any]:
    """The administrator's things, then LXD, installed and used. Returns the host as it was before LXD."""
    lxd.admin_things(m)
    before = m.snapshot()
    lxd.install(m)
    lxd.use(m)
    return before


def clean(m: Machine, before: dict[str, Any], keep: Sequence[str] = lxd.KEPT) -> None:
    said = leftovers(m, "clean", "lxd", "--yes", code=None)
    same(m, before, keep=keep, said=said.out + said.err)
    assert said.code == DONE, said.out + said.err
    leftovers(m, "verify", "lxd")
    assert [o["id"] for o in document(m, "plan", "lxd") if o["action"] != "keep"] == []
    leftovers(m, "clean", "lxd", "--yes")


def bring_home(m: Machine) -> None:
    """The lent card came home, but Debian's purge deletes the file that knew its name: a person gives it back."""
    m.run("ip link set \"$(ip -o link | sed -n 's/^[0-9]*: \\(back[0-9]*\\)@vethphys1:.*/\\1/p')\" name vethphys0")


@pytest.mark.full
@on_debian
def test_purged_without_us(machine: Machine, arrive: Arrive) -> None:
    before = lived(machine)
    lxd.purge(machine)
    assert machine.run(["ls", "-A", "/srv/pool"]).out == "", "Debian's postrm empties it through the mount"
    arrive(machine)
    purged = machine.snapshot()
    assert len(hoststate.compare(before, purged, keep=lxd.KEPT)["left"]) > 150
    leftovers(machine, "verify", code=LEFT)
    leftovers(machine, "verify", "lxd", code=LEFT)
    planned = document(machine, "plan", "lxd")
    assert {"process", "link", "mount", "cgroup", "nft"} <= {o["kind"] for o in planned if o["action"] == "remove"}
    assert [o["product"] for o in document(machine, "explain", "lxdbr0")] == ["lxd"]
    others = [o["id"] for o in document(machine, "plan", "incus") if o["product"] == "incus" and o["action"] != "keep"]
    assert others == []
    same(machine, purged, keep=lxd.KEPT, changed=())  # looking changes nothing

    leftovers(machine, "clean", "lxd", "--yes", code=None)
    bring_home(machine)
    clean(machine, before)
    leftovers(machine, "verify")


@pytest.mark.full
@on_trixie
def test_recorded_before(machine: Machine, arrive: Arrive) -> None:
    arrive(machine)
    before = lived(machine)
    used = machine.snapshot()
    leftovers(machine, "record", "lxd")
    same(machine, used, keep=[r"file /var/lib/leftovers", LATER], changed=())
    lxd.purge(machine)
    clean(machine, before)


@pytest.mark.full
@on_trixie
def test_daemon_killed(machine: Machine, arrive: Arrive) -> None:
    before = lived(machine)
    lxd.kill_daemon(machine)
    lxd.purge(machine)
    arrive(machine)
    leftovers(machine, "clean", "lxd", "--yes", code=None)
    bring_home(machine)
    clean(machine, before)


@on_debian
@pytest.mark.parametrize("command", ["apt-get purge -y -q", pytest.param("dpkg -P", marks=pytest.mark.full)])
def test_purged_with_the_hooks(machine: Machine, arrive: Arrive, command: str) -> None:
    """Nine instances, one of them in a project, are asked to shut down while LXD can still do it; the tenth is
    ephemeral, and would be deleted."""
    arrive(machine)
    before = lived(machine)
    done = machine.run(f"{command} {' '.join(lxd.PACKAGES)} 2>&1", timeout=300)
    assert "Traceback" not in done.out, done.out
    same(machine, before, keep=[*lxd.KEPT, POOL], said=done.out)
    assert machine.run("ls /srv/pool/containers").out == "c4\n"
    assert len(re.findall(r"(?m)^leftovers: LXD: asking 9 instances to shut down", done.out)) == 1, done.out
    assert len(re.findall(SUMMARY, done.out)) == 1, done.out
    leftovers(machine, "verify")


@pytest.mark.full
@on_trixie
def test_refused_while_installed(machine: Machine, arrive: Arrive) -> None:
    lived(machine)
    arrive(machine)
    used = machine.snapshot()
    for arguments in (["--yes"], ["--yes", "--data"]):
        leftovers(machine, "clean", "lxd", *arguments, code=REFUSED)
    leftovers(machine, "verify")
    same(machine, used, keep=[r"file /var/lib/leftovers", LATER], changed=())


# -- beside Incus ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """A member of the family with two containers on its own bridge, which answer on port 80."""

    name: str
    title: str
    client: str
    packages: tuple[str, ...]
    net: str

    def start(self, m: Machine) -> None:
        {"incus": incus, "lxd": lxd}[self.name].install(m)  # type: ignore[attr-defined]
        init, image = (
            ("incus admin init --minimal", incus.IMAGE) if self.name == "incus" else ("lxd init --auto", lxd.IMAGE)
        )
        m.run(f"{init}\n{image}", timeout=180)
        m.run(f"{self.client} -q network set {self.name}br0 ipv4.address={self.net}.1/24 ipv6.address=none")
        for number in (1, 2):
            # Both have a c1: liblxc gives the cgroups of the second another name.
            m.run(
                f"""
                {self.client} -q launch bb c{number}
                {self.client} exec c{number} -- sh -c 'busybox ifconfig eth0 {self.net}.1{number} up &&
                    mkdir -p /www && echo {self.name} c{number} >/www/index.html && httpd -h /www'
                """
            )

    def processes(self, m: Machine) -> str:
        """The inits and monitors of its containers, by pid and start."""
        return m.run(
            f"for p in $(pgrep -f '^.lxc monitor. /var/lib/{self.name}/'); do"
            " readlink /proc/$p/exe | grep -q /sleep && continue;"
            " for q in $p $(pgrep -P $p); do cut -d' ' -f1,22 /proc/$q/stat; done; done | sort"
        ).out

    def works(self, m: Machine) -> None:
        """From the host, between the containers, and what lxcfs shows them."""
        for number in (1, 2):
            said = m.run(f"busybox wget -T 5 -qO- http://{self.net}.1{number}/").out
            assert said == f"{self.name} c{number}\n"
            other = 3 - number
            inside = f"busybox wget -T 5 -qO- http://{self.net}.1{other}/ && cat /proc/uptime /proc/meminfo >/dev/null"
            said = m.run(f"{self.client} exec c{number} -- sh -c '{inside}'").out
            assert said == f"{self.name} c{other}\n"


INCUS = Side("incus", "Incus", "incus", ("incus-base", "incus-client"), "10.55.0")
LXD = Side("lxd", "LXD", "lxc", ("lxd", "lxd-client"), "10.66.0")


@pytest.mark.parametrize("machine", [{"recipe": RECIPES["incus+lxd-trixie"]}], indirect=True, ids=["trixie"])
@pytest.mark.parametrize("hooks", [True, pytest.param(False, marks=pytest.mark.full)], ids=["hooks", "without-us"])
@pytest.mark.parametrize(("going", "staying"), [(INCUS, LXD), (LXD, INCUS)], ids=["incus-goes", "lxd-goes"])
def test_beside_each_other(machine: Machine, arrive: Arrive, going: Side, staying: Side, hooks: bool) -> None:
    """One is purged, then the other. What the first leaves to the second is whole, and works."""
    m, keep = machine, [*INCUS_KEPT, *lxd.KEPT]
    if hooks:
        arrive(m)
    lxd.admin_things(m)
    before = m.snapshot()
    staying.start(m)
    with_one = m.snapshot()
    going.start(m)
    staying.works(m)
    going.works(m)
    running = staying.processes(m)
    assert len(running.splitlines()) == 4, running

    def purge(side: Side, *more: str) -> str:
        said = m.run(f"apt-get purge -y -q {' '.join((*side.packages, *more))} 2>&1", timeout=300).out
        if not hooks:
            if m.run("dpkg-query -s leftovers", check=False).code != 0:
                arrive(m)
            said += leftovers(m, "clean", side.name, "--yes").out
        leftovers(m, "verify", side.name)
        return said

    said = purge(going)
    assert staying.processes(m) == running, said
    # Whoever came first may need it: it goes with the last.
    same(m, with_one, keep=[*keep, LATER, r"cgroup /lxc\.pivot$"], said=said)
    staying.works(m)
    m.run(f"{staying.client} -q launch bb again && {staying.client} -q delete -f again")
    leftovers(m, "verify")
    assert not [o for o in document(m, "plan", staying.name) if o["action"] != "keep"]
    said = purge(staying, "lxcfs")
    leftovers(m, "clean", "lxcfs", "--yes")
    same(m, before, keep=keep, said=said)
    leftovers(m, "verify")


@pytest.mark.full
@pytest.mark.parametrize("machine", [{"recipe": RECIPES["incus+lxd-trixie"]}], indirect=True, ids=["trixie"])
def test_both_in_one_run(machine: Machine, arrive: Arrive) -> None:
    """What either would leave to the other goes too."""
    arrive(machine)
    lxd.admin_things(machine)
    before = machine.snapshot()
    INCUS.start(machine)
    LXD.start(machine)
    packages = " ".join((*INCUS.packages, *LXD.packages, "lxcfs"))
    said = machine.run(f"apt-get purge -y -q {packages} 2>&1", timeout=300).out
    same(machine, before, keep=[*INCUS_KEPT, *lxd.KEPT], said=said)
    leftovers(machine, "verify")


@pytest.mark.full
@pytest.mark.parametrize("machine", [{"recipe": RECIPES["incus+lxd-trixie"]}], indirect=True, ids=["trixie"])
def test_incus_in_place_of_lxd(machine: Machine, arrive: Arrive) -> None:
    """A replacement is no removal: LXD's containers run on, for lxd-to-incus or for a later clean."""
    arrive(machine)
    LXD.start(machine)
    running = LXD.processes(machine)
    options = "-y -q --no-download --no-install-recommends"
    said = machine.run(f"apt-get install {options} incus-base incus-client lxd- lxd-client- 2>&1", timeout=300).out
    assert LXD.processes(machine) == running and len(running.splitlines()) == 4, said
    assert not re.search(r"(?m)^leftovers: LXD: .*(gone|asking)", said), said
    assert "lxdbr0" in machine.run("ip -br link").out
    for number in (1, 2):
        got = machine.run(f"busybox wget -T 5 -qO- http://{LXD.net}.1{number}/").out
        assert got == f"lxd c{number}\n"
