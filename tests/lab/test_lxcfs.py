"""lxcfs, which Incus, LXD and LXC share: it goes with the last of them, and last; dead or stopped, it hangs nobody."""

from __future__ import annotations

import pytest

from lab import incus, lxd, neighbours
from lab.machine import RECIPES, Machine
from lab.scenario import CHANGED as OF_ANY
from lab.scenario import KEPT, LATER, LEFT, Arrive, document, leftovers, same

on_neighbours = pytest.mark.parametrize(
    "machine", [{"recipe": RECIPES["neighbours-trixie"]}], indirect=True, ids=["trixie"]
)
# A bridge that has once been up has an address of its own. Parents of locks are LXC's too, which is installed.
OF_BRIDGE = r"(address|route) .*fe80:.* dev lxcbr0\b"
KEEP = [*KEPT, *lxd.KEPT, LATER, r"cgroup /lxc\.pivot$", OF_BRIDGE, r"file /run/lxc/lock(/var(/lib)?)?$"]
CHANGED = [*OF_ANY, r"link lxcbr0: tso_max_size"]
# What LXC's containers leave when they are stopped, and their files.
OF_LXC = (r"file /var/lib/lxc/", r"file /(run|var/log)/lxc(/.*)?$", r"account sub[ug]id root", r"file /etc/sub[ug]id-?")
USE_INCUS = "incus admin init --minimal\n" + incus.IMAGE + "incus -q launch bb c1\n"
USE_LXD = "lxd init --auto\n" + lxd.IMAGE + "lxc -q launch bb c1\n"


def server(m: Machine) -> str:
    return m.run("pgrep -x lxcfs").out.strip()


def without_incus(m: Machine, *packages: str) -> str:
    """apt's purge, with our hooks if they are there."""
    return m.run(["apt-get", "purge", "-y", "-q", "incus-base", "incus-client", *packages], timeout=300).out


def squash(m: Machine) -> str:
    """A FUSE file system of the administrator's own. Returns its server's pid."""
    m.run("mkdir -p /srv/sq /srv/sqdir && echo x >/srv/sqdir/f && mksquashfs /srv/sqdir /srv/sq.img -quiet >/dev/null")
    m.run("systemd-run -q --unit=admin-squash squashfuse -f /srv/sq.img /srv/sq")
    m.run("for i in $(seq 100); do grep -q ' /srv/sq fuse' /proc/mounts && break; sleep 0.05; done; cat /srv/sq/f")
    return m.run("pgrep -x squashfuse").out.strip()


@pytest.mark.full
@on_neighbours
@pytest.mark.parametrize("hooks", [True, False], ids=["hooks", "without-us"])
def test_it_stays_for_lxc(machine: Machine, arrive: Arrive, hooks: bool) -> None:
    if hooks:
        arrive(machine)
    before = machine.snapshot()
    neighbours.lxcfs(machine)
    neighbours.lxc(machine)
    machine.run(["apt-get", "install", "-y", "-q", "--no-download", "incus-base", "incus-client"])
    machine.run(USE_INCUS, timeout=180)
    pid = server(machine)
    said = without_incus(machine, "lxcfs")
    if not hooks:
        arrive(machine)
        said += leftovers(machine, "clean", "incus", "--yes").out
    assert server(machine) == pid, said
    neighbours.lxc_works(machine)
    # Who uses it is told, for a person to judge; it is not left over.
    scanned = leftovers(machine, "scan", "lxcfs").out
    for name in ("c1", "c2", "c3"):
        assert f"lxc.payload.{name}" in leftovers(machine, "scan", "lxcfs", "--verbose").out, scanned
    assert "containers of somebody else use lxcfs" in scanned
    leftovers(machine, "verify")
    leftovers(machine, "clean", "lxcfs", "--yes")
    assert server(machine) == pid
    for name in ("c1", "c2"):
        machine.run(["lxc-stop", "-k", "-n", name])
    leftovers(machine, "clean", "lxcfs", "--yes")
    assert server(machine) == pid, "c3 still runs"
    machine.run(["lxc-stop", "-k", "-n", "c3"])
    leftovers(machine, "verify", "lxcfs", code=LEFT)
    said = leftovers(machine, "clean", "lxcfs", "--yes").out
    same(machine, before, keep=[*KEEP, *OF_LXC], changed=CHANGED, said=said)
    leftovers(machine, "verify")


@pytest.mark.full
@on_neighbours
def test_it_stays_for_what_lxd_left(machine: Machine, arrive: Arrive) -> None:
    """LXD is removed and its container runs on: for a clean of Incus it is somebody else's."""
    before = machine.snapshot()
    neighbours.lxcfs(machine)
    machine.run(["apt-get", "install", "-y", "-q", "--no-download", "--no-install-recommends", *lxd.PACKAGES])
    machine.run(USE_LXD, timeout=180)
    machine.run(["apt-get", "install", "-y", "-q", "--no-download", "incus-base", "incus-client"])
    machine.run(USE_INCUS, timeout=180)
    # Not purged: that would take the container's mounts with the directories that they are on (rmdir(2) of what is a
    # mount point in another namespace).
    machine.run(["apt-get", "remove", "-y", "-q", "lxd", "lxd-client"])
    without_incus(machine, "lxcfs")
    arrive(machine)
    pid = server(machine)
    leftovers(machine, "clean", "incus", "--yes")
    assert server(machine) == pid
    init = machine.run("pgrep -P $(pgrep -f '^.lxc monitor. /var/lib/lxd/containers c1')").out.strip()
    assert "MemTotal" in machine.run(f"nsenter -t {init} -m -r cat /proc/meminfo").out
    order = [o["product"] for o in document(machine, "plan", "lxd") if o["action"] == "remove"]
    assert order == sorted(order, key="lxcfs".__eq__) and {"lxd", "lxcfs"} == set(order), "lxcfs is the last"
    said = leftovers(machine, "clean", "lxd", "--yes", "--data").out
    machine.run(["apt-get", "purge", "-y", "-q", "lxd"])
    same(machine, before, keep=KEEP, changed=CHANGED, said=said)
    leftovers(machine, "verify")


@pytest.mark.full
@on_neighbours
@pytest.mark.parametrize("installed", [True, False], ids=["installed", "purged"])
def test_a_dead_server(machine: Machine, arrive: Arrive, installed: bool) -> None:
    """Its mount answers "Transport endpoint is not connected". With the package on the host that is the package's
    affair; without it, it is left over. The administrator's own dead mount is his."""
    before = machine.snapshot()
    neighbours.lxcfs(machine)
    neighbours.lxc(machine)
    machine.run("mkdir -p /srv/sq")
    machine.run(f"kill -KILL {squash(machine)}")
    # Nobody takes the dead mount away, as it is where lxcfs was not started by systemd.
    unit = "[Service]\nRestart=no\nExecStopPost=\n"
    machine.write("/run/systemd/system/lxcfs.service.d/dead.conf", unit)
    machine.run("systemctl daemon-reload")
    if not installed:
        machine.run(["apt-get", "purge", "-y", "-q", "lxcfs"])
    arrive(machine)
    machine.run(f"kill -KILL {server(machine)}; sleep 0.3")
    for path in ("/var/lib/lxcfs/proc", "/srv/sq"):
        assert "not connected" in machine.run(["ls", path], check=False).err
    assert "not connected" in machine.run("lxc-attach -n c1 -- cat /proc/meminfo 2>&1 || :").out
    dead = machine.run("grep -E ' (/srv/sq|/var/lib/lxcfs) fuse' /proc/mounts").out
    assert len(dead.splitlines()) == 2
    leftovers(machine, "scan")
    if installed:
        leftovers(machine, "clean", "incus", "lxd", "--yes", code=None)
        assert machine.run("grep -E ' (/srv/sq|/var/lib/lxcfs) fuse' /proc/mounts").out == dead
        leftovers(machine, "verify")
        return
    leftovers(machine, "verify", "lxcfs", code=LEFT)
    leftovers(machine, "clean", "lxcfs", "--yes")
    assert (
        machine.run("grep -E ' (/srv/sq|/var/lib/lxcfs) fuse' /proc/mounts").out
        == dead.splitlines(True)["lxcfs" in dead.splitlines()[0]]
    )
    machine.run(["test", "!", "-e", "/var/lib/lxcfs"])
    leftovers(machine, "verify")
    machine.run("for n in c1 c2 c3; do lxc-stop -k -n $n; done; umount /srv/sq; rm -r /srv/sq*")
    machine.run("systemctl reset-failed admin-squash lxcfs 2>/dev/null || :")
    same(machine, before, keep=[*KEEP, *OF_LXC], changed=CHANGED)


@pytest.mark.full
@on_neighbours
@pytest.mark.parametrize("hooks", [True, False], ids=["hooks", "without-us"])
def test_a_stopped_server(machine: Machine, arrive: Arrive, hooks: bool) -> None:
    """Whoever reads of it hangs: its containers' processes, and never we."""
    before = machine.snapshot()
    neighbours.without_condition(machine)
    admins = squash(machine)
    if hooks:
        arrive(machine)
    machine.run(["apt-get", "install", "-y", "-q", "--no-download", "--no-install-recommends", *incus.PACKAGES])
    machine.run(
        USE_INCUS
        + """
        incus -q config device add c1 sq disk source=/srv/sq path=/mnt/sq
        incus exec c1 -- sh -c 'while :; do cat /proc/meminfo /mnt/sq/f >/dev/null; done' </dev/null >/dev/null 2>&1 &
        sleep 0.5
        """,
        timeout=180,
    )
    stop = f"kill -STOP {server(machine)} {admins}; sleep 0.3"
    if hooks:
        machine.run(stop)
        # lxcfs stays installed: with it dpkg would hang, which looks at the directory /var/lib/lxcfs that it owns.
        said = without_incus(machine)
        assert machine.run(f"ps -o stat= {server(machine)}").out.startswith("T"), said
        machine.run(f"kill -CONT {server(machine)}")
        machine.run(["apt-get", "purge", "-y", "-q", "lxcfs"])
    else:
        without_incus(machine, "lxcfs")
        machine.run(stop)
        arrive(machine)
        leftovers(machine, "scan")
        leftovers(machine, "verify", code=LEFT)
        said = leftovers(machine, "clean", "incus", "--yes").out
    leftovers(machine, "verify")
    assert machine.run(f"ps -o stat= {admins}").out.startswith("T")
    assert " /srv/sq fuse" in machine.read("/proc/mounts")
    machine.run(f"kill -CONT {admins}; cat /srv/sq/f; systemctl stop admin-squash; umount -l /srv/sq || :")
    machine.run("rm -r /srv/sq*")
    machine.run("systemctl reset-failed admin-squash || :")
    same(machine, before, keep=KEEP, changed=CHANGED, said=said)
