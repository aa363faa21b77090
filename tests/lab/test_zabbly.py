"""Incus in zabbly's layout: installed, used and purged on a real host, with and without our hooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab import hoststate, incus, zabbly
from lab.machine import Machine
from lab.scenario import LATER, LEFT, REFUSED, Arrive, document, leftovers, same
from lab.scenario import clean as clean_up
from lab.test_triggers import POOL, STOPPING, SUMMARY, lines, pool_is_whole, say

ALL = " ".join(zabbly.PACKAGES)
ITSELF = r"^leftovers: Incus: its own package asks 10 instances to shut down, each for as long as it may take$"
RECORDS = r"file /var/lib/leftovers"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return zabbly.build(Machine(), tmp_path_factory.mktemp("zabbly"))


def lived(m: Machine, packages: list[Path]) -> dict[str, Any]:
    """The administrator's things, then Incus, installed and used. Returns the host as it was before Incus."""
    incus.admin_things(m)
    before = m.snapshot()
    zabbly.install(m, packages)
    zabbly.use(m)
    return before


def clean(m: Machine, before: dict[str, Any], *keep: str) -> None:
    clean_up(m, before, keep=[*zabbly.KEPT, *keep])


@pytest.mark.parametrize("command", ["apt-get purge -y -q", pytest.param("dpkg -P", marks=pytest.mark.full)])
def test_purged_with_the_hooks(machine: Machine, arrive: Arrive, packages: list[Path], command: str) -> None:
    """Its prerm ends the instances, and its lxcfs last; what then is left is ours, and the pool's volumes are kept."""
    arrive(machine)
    before = lived(machine, packages)
    said = say(machine, f"{command} {ALL}")
    same(machine, before, keep=[*zabbly.KEPT, POOL], said=said)
    pool_is_whole(machine)
    assert len(lines(said, ITSELF)) == 1 and lines(said, STOPPING) == [], said
    assert len(lines(said, SUMMARY)) == 1 and len(lines(said)) <= 4, said
    leftovers(machine, "verify")
    assert machine.run("ls -A /run/leftovers").out == ""


@pytest.mark.full
def test_purged_without_us(machine: Machine, arrive: Arrive, packages: list[Path]) -> None:
    before = lived(machine, packages)
    zabbly.purge(machine)
    arrive(machine)
    left = hoststate.compare(before, machine.snapshot(), keep=zabbly.KEPT)["left"]
    assert "nft table inet incus" in left and "file /run/incus" in left
    leftovers(machine, "verify", code=LEFT)
    clean(machine, before, POOL)  # nothing on the host says any more whose these volumes are
    leftovers(machine, "verify")


@pytest.mark.full
def test_recorded_before(machine: Machine, arrive: Arrive, packages: list[Path]) -> None:
    arrive(machine)
    before = lived(machine, packages)
    used = machine.snapshot()
    leftovers(machine, "record", "incus")
    same(machine, used, keep=[RECORDS, LATER], changed=())
    zabbly.purge(machine)
    clean(machine, before, POOL)
    leftovers(machine, "clean", "incus", "--yes", "--data")
    same(machine, before, keep=zabbly.KEPT)


@pytest.mark.full
@pytest.mark.parametrize("command", ["apt-get purge -y -q", "dpkg -P"])
def test_its_plain_rm_meets_nothing_of_the_administrator_s(
    machine: Machine, arrive: Arrive, packages: list[Path], command: str
) -> None:
    """The daemon was killed, so nothing unmounts what instances had of the administrator's, and the package's postrm
    is `rm -Rf` across all file systems. All is unmounted before it runs."""
    arrive(machine)
    before = lived(machine, packages)
    incus.kill_daemon(machine)
    said = say(machine, f"{command} {ALL}")
    same(machine, before, keep=[*zabbly.KEPT, POOL], said=said)
    pool_is_whole(machine)
    assert machine.read("/srv/data/file") == "precious\n"
    assert len(lines(said, SUMMARY)) == 1 and lines(said, ITSELF) == [], said
    leftovers(machine, "verify")


@pytest.mark.full
def test_what_that_rm_does_without_us(machine: Machine, arrive: Arrive, packages: list[Path]) -> None:
    """The damage that the test above shows averted: else it would show nothing."""
    lived(machine, packages)
    incus.kill_daemon(machine)
    zabbly.purge(machine)
    assert machine.run("ls -A /srv/pool").out == ""
    arrive(machine)
    leftovers(machine, "clean", "incus", "--yes", code=None)
    leftovers(machine, "verify", "incus-lxcfs")


@pytest.mark.full
def test_its_lxcfs_is_killed_and_nobody_unmounts_it(machine: Machine, arrive: Arrive, packages: list[Path]) -> None:
    """Its prerm then stops nothing that is left: process, mount and directory are ours to remove, at the end."""
    incus.admin_things(machine)
    before = machine.snapshot()
    zabbly.install(machine, packages)
    machine.run("incus admin init --minimal\n" + incus.IMAGE + "incus -q launch bb c1", timeout=180)
    incus.kill_daemon(machine)
    # A daemon of systemd's no more: what `systemctl disable --now` does not know it does not stop.
    machine.run(
        """
        systemctl kill -s KILL incus-lxcfs.service; systemctl stop incus-lxcfs.service || :
        umount -l /var/lib/incus-lxcfs 2>/dev/null || :
        LD_LIBRARY_PATH=/opt/incus/lib setsid /opt/incus/bin/lxcfs /var/lib/incus-lxcfs </dev/null >/dev/null 2>&1 &
        for i in $(seq 100); do
            grep -q ' /var/lib/incus-lxcfs .*fuse.lxcfs' /proc/self/mountinfo && exit
            sleep 0.1
        done
        exit 1
        """
    )
    zabbly.purge(machine)
    machine.run("pgrep -x lxcfs && grep -q ' /var/lib/incus-lxcfs .*fuse.lxcfs' /proc/self/mountinfo")
    arrive(machine)
    planned = [o for o in document(machine, "plan", "incus") if o["action"] == "remove"]
    assert {o["kind"] for o in planned if o["product"] == "incus-lxcfs"} >= {"process", "mount", "file"}, planned
    assert [o["product"] for o in planned if o["kind"] == "process"][-1] == "incus-lxcfs", "the last process to go"
    clean(machine, before)
    leftovers(machine, "verify")


# A container of somebody else's, who has Debian's lxcfs mounted in a root of his own.
OTHER = """
mkdir -p /srv/other/bin /srv/other/old /srv/other/proc
cp /bin/busybox /srv/other/bin/
touch /srv/other/uptime
cat >/srv/other.sh <<'S'
mount --bind /srv/other /srv/other
mount --bind /var/lib/lxcfs/proc/uptime /srv/other/uptime
cd /srv/other
pivot_root . old
exec /bin/busybox sh -c '/bin/busybox umount -l /old; exec /bin/busybox sleep 1000020'
S
systemd-run -q --unit=admin-other unshare --mount --propagation private sh -e /srv/other.sh
for i in $(seq 100); do pgrep -x -f '/bin/busybox sleep 1000020' && exit; sleep 0.1; done
exit 1
"""


@pytest.mark.full
@pytest.mark.parametrize("hooks", [True, False], ids=["hooks", "without-us"])
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "running"])
def test_debian_s_lxcfs_beside_it(
    machine: Machine, arrive: Arrive, packages: list[Path], hooks: bool, killed: bool
) -> None:
    """Used by somebody else's container: the same process still answers in there when zabbly's is gone."""
    m = machine
    if hooks:
        arrive(m)
    incus.admin_things(m)
    m.write("/run/systemd/system/lxcfs.service.d/lab.conf", "[Unit]\nConditionVirtualization=\n")
    # Both would lock /run/lxcfs.pid.
    m.write(
        "/etc/systemd/system/lxcfs.service.d/pid.conf",
        "[Service]\nExecStart=\nExecStart=/usr/bin/lxcfs -p /run/debian-lxcfs.pid /var/lib/lxcfs\n",
    )
    m.run("apt-get install -y -q --no-download lxcfs; systemctl start lxcfs")
    pid = m.run(OTHER).out.strip()
    server = m.run("systemctl show -P MainPID lxcfs.service").out.strip()
    before = m.snapshot()
    zabbly.install(m, packages)
    m.run("incus admin init --minimal\n" + incus.IMAGE + "incus -q launch bb c1", timeout=180)
    if killed:
        incus.kill_daemon(m)
    said = ""
    if hooks:
        said = say(m, f"apt-get purge -y -q {ALL}")
    else:
        zabbly.purge(m)
        arrive(m)
        said = leftovers(m, "clean", "incus", "--yes").out
    same(m, before, keep=zabbly.KEPT, said=said)
    assert m.run("systemctl show -P MainPID lxcfs.service").out.strip() == server
    assert float(m.run(f"cat /proc/{pid}/root/uptime").out.split()[0]) >= 0
    leftovers(m, "verify")


@pytest.mark.full
def test_refused_while_installed(machine: Machine, arrive: Arrive, packages: list[Path]) -> None:
    lived(machine, packages)
    arrive(machine)
    used = machine.snapshot()
    for product in ("incus", "incus-lxcfs"):
        for arguments in (["--yes"], ["--yes", "--data"]):
            leftovers(machine, "clean", product, *arguments, code=REFUSED)
    leftovers(machine, "verify")
    same(machine, used, keep=[RECORDS, LATER], changed=())


@pytest.mark.full
def test_what_was_before_it_came_is_written_down(machine: Machine, arrive: Arrive, packages: list[Path]) -> None:
    """Of Incus, not of the lxcfs in the same package; and once, for an upgrade is no arrival."""
    arrive(machine)
    zabbly.install(machine, packages)
    record = "/var/lib/leftovers/arrivals/incus.json"
    first = machine.read(record)
    assert '"incus-base"' in first
    assert machine.run("ls /var/lib/leftovers/arrivals").out == "incus.json\n"
    zabbly.install(machine, packages)
    assert machine.read(record) == first
