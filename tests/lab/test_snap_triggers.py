"""snapd removes MicroK8s, which knows nothing of us: our package is on the host, and nothing else is done."""

from __future__ import annotations

from typing import Any

import pytest

from lab import hoststate, microk8s, snap
from lab.machine import RECIPES, Machine
from lab.microk8s import COMMON, PODS, PRECIOUS, SOCKET
from lab.scenario import Arrive
from lab.test_microk8s import KEEP, SNAPS

TRIXIE = pytest.param({"recipe": RECIPES["snapd-trixie"]}, id="trixie")
SID = pytest.param({"recipe": RECIPES["snapd-sid"]}, id="sid")
on_trixie = pytest.mark.parametrize("machine", [TRIXIE], indirect=True)
on_both = pytest.mark.parametrize("machine", [TRIXIE, SID], indirect=True)
# What stays besides, and why.
OURS = (
    r"file /var/lib/snapd/snapshots",  # a plain removal saves one
    r"(unit|cgroup|process) .*leftovers-(watch|guard|snaps)",
)
CHANGED = (r"sysctl ", r"process .*leftovers-watch")  # set by MicroK8s; what they were before nobody can tell
SHIMS = f"pgrep -f -- 'containerd-shim-runc-v2 -namespace .* -address {SOCKET}$' | sort"


def lived(m: Machine, arrive: Arrive, **how: Any) -> dict[str, Any]:
    """The administrator's things and our package, then MicroK8s, installed and used. Returns the host as it was before
    MicroK8s."""
    microk8s.admin_things(m)
    arrive(m)
    idle(m)
    before = m.snapshot()
    microk8s.install(m, **how)
    microk8s.use(m)
    return before


def idle(m: Machine, *ours: str) -> None:
    """Wait until our services have nothing to do; the watch is one of them if there is no snap of a product."""
    names = " ".join(ours or ("leftovers-snaps.service", "leftovers-watch.service"))
    m.run(
        f"""
        for i in $(seq 600); do
            systemctl show -p ActiveState -p Job {names} | grep -Eqv '^(ActiveState=(inactive|failed)|Job=|)$' || exit 0
            sleep 0.1
        done
        systemctl show -p Id -p ActiveState -p Job {names}; exit 1
        """
    )


def settled(m: Machine, name: str = "microk8s") -> str:
    """Wait until our service has done the rest. Returns what our units have said."""
    m.run(
        f"""
        for i in $(seq 600); do
            [ ! -e /run/leftovers/snap-{name}.json ] && ! grep -qs {name} /var/lib/leftovers/snaps && exit
            sleep 0.1
        done
        systemctl status leftovers-snaps.service; exit 1
        """
    )
    idle(m)
    return said(m)


def said(m: Machine) -> str:
    return m.run("journalctl -q -o cat -u 'leftovers-*' --no-pager").out


def whole(m: Machine, before: dict[str, Any], told: str = "") -> None:
    """The host as it was: nothing left, nothing of the administrator's lost or changed, the pods' volumes intact."""
    found = hoststate.compare(before, m.snapshot(), keep=[*KEEP, *OURS], changed=[*CHANGED, SNAPS])
    assert hoststate.count(found) == 0, f"\n{hoststate.render(found)}\n{told}"
    assert intact(m) == list(PRECIOUS)
    microk8s.answers(m)


def intact(m: Machine) -> list[str]:
    return [path for path in PRECIOUS if m.run(["test", "-e", path], check=False).code == 0]


@on_trixie
def test_removed(machine: Machine, arrive: Arrive) -> None:
    before = lived(machine, arrive)
    done = machine.run("snap remove --purge microk8s", check=False, timeout=300)
    assert done.code == 0, f"{done.err}\n{said(machine)}"
    assert "microk8s" not in machine.run("snap list").out
    told = settled(machine)
    whole(machine, before, told)
    assert "MicroK8s: " in told and "nothing is left" in told, told


@pytest.mark.full
@on_both
def test_removed_and_saved(machine: Machine, arrive: Arrive) -> None:
    """Without --purge snapd saves a snapshot first: what is data was there for it, and no volume is in it."""
    before = lived(machine, arrive)
    machine.run(f"echo kept >{COMMON}/note; echo kept >/var/snap/microk8s/current/args/note")
    machine.run("snap remove microk8s", timeout=300)
    told = settled(machine)
    names = saved(machine)
    assert {"note", "args/note", "args/cni-network/10-calico.conflist", "var/lib/kubelet/cpu_manager_state"} <= names
    assert not [name for name in names if name.rpartition("/")[2] in ("film", "share", "f")], "through a mount"
    whole(machine, before, told)


def saved(m: Machine) -> set[str]:
    """The files in the snapshots of MicroK8s, without where they were."""
    script = r"""
import io, re, sys, tarfile, zipfile
with zipfile.ZipFile(sys.argv[1]) as file:
    with tarfile.open(fileobj=io.BytesIO(file.read("archive.tgz"))) as tar:
        print("\n".join(re.sub(r"^(common|x?[0-9]+)/", "", name) for name in tar.getnames()))
"""
    (path,) = m.run("ls /var/lib/snapd/snapshots/*microk8s*.zip").out.split()
    return set(m.run(["python3", "-I", "-c", script, path]).out.splitlines())


@pytest.mark.full
@on_both
@pytest.mark.parametrize("how", ["snap disable microk8s", "snap stop --disable microk8s"])
def test_removed_when_it_does_not_run(machine: Machine, arrive: Arrive, how: str) -> None:
    """No service is stopped then. Its containers live on until it is removed."""
    before = lived(machine, arrive)
    shims = machine.run(SHIMS).out
    machine.run(how)
    assert machine.run(SHIMS).out == shims and len(shims.split()) == len(PODS)
    done = machine.run("snap remove --purge microk8s", check=False, timeout=300)
    assert done.code == 0, f"{done.err}\n{said(machine)}"
    whole(machine, before, settled(machine))


@pytest.mark.full
@on_both
def test_devmode(machine: Machine, arrive: Arrive) -> None:
    """As a strict snap it has its mounts in a namespace of its own."""
    before = lived(machine, arrive, confinement="devmode")
    machine.run("snap remove --purge microk8s", timeout=300)
    whole(machine, before, settled(machine))


@pytest.mark.full
@on_trixie
def test_what_is_no_removal(machine: Machine, arrive: Arrive) -> None:
    """A refresh, a restart, disable and enable, and the removal of one revision among several: nothing is touched."""
    lived(machine, arrive)
    used = machine.snapshot()
    shims = machine.run(SHIMS).out
    assert len(shims.split()) == len(PODS)
    for how in (
        "snap restart microk8s",
        "snap disable microk8s; snap enable microk8s",
        "systemctl restart snap.microk8s.daemon-containerd",
    ):
        machine.run(how)
        assert machine.run(SHIMS).out == shims, how
    microk8s.install(machine)
    assert snap.revision(machine, "microk8s") == "x2" and machine.run(SHIMS).out == shims
    machine.run("snap remove --revision=x1 microk8s")
    assert machine.run(SHIMS).out == shims and intact(machine) == list(PRECIOUS)
    after = machine.snapshot()
    for kind in ("mount", "netns", "link", "xtables", "ipset", "cgroup"):
        lost = set(used["state"][kind]) - set(after["state"][kind])
        assert not [each for each in lost if "/snap/microk8s/x1" not in each], kind
    assert "gone" not in said(machine)
    machine.run("snap remove --purge microk8s", timeout=300)
    assert "nothing is left" in settled(machine)
    assert intact(machine) == list(PRECIOUS)


@pytest.mark.full
@on_trixie
@pytest.mark.parametrize("command", ["apt-get -y purge snapd", "dpkg -P snapd"])
def test_snapd_is_purged(machine: Machine, arrive: Arrive, command: str) -> None:
    """Its own postrm deletes the data of all snaps, through whatever is mounted there."""
    lived(machine, arrive)
    done = machine.run(command, check=False, timeout=300)
    assert done.code == 0, done.out + done.err
    assert "MicroK8s: " in done.out and "nothing is left" in done.out, done.out
    assert intact(machine) == list(PRECIOUS)
    assert machine.run(SHIMS).out == ""
    assert not [p for p in machine.snapshot()["state"]["mount"] if "microk8s/" in p]
    microk8s.answers(machine)
    machine.run("leftovers verify microk8s")


@pytest.mark.full
@on_trixie
def test_snapd_is_removed(machine: Machine, arrive: Arrive) -> None:
    """Not purged, it leaves the snaps with their data; their containers live on and are told of."""
    lived(machine, arrive)
    shims = machine.run(SHIMS).out
    done = machine.run("apt-get -y remove snapd", timeout=300)
    assert "sweep them with: leftovers clean microk8s" in done.out, done.out
    assert machine.run(SHIMS).out == shims and intact(machine) == list(PRECIOUS)
    machine.run("leftovers clean microk8s --yes", timeout=120)
    assert machine.run(SHIMS).out == "" and intact(machine) == list(PRECIOUS)
    assert machine.run(f"test -d {COMMON}", check=False).code == 0, "data stays until it is purged"
    machine.run("apt-get -y purge snapd", timeout=300)
    machine.run("leftovers verify microk8s")
    microk8s.answers(machine)


@pytest.mark.full
@on_both
def test_every_guard_is_killed(machine: Machine, arrive: Arrive) -> None:
    """Who reads the snap's description last waits for one who was not."""
    before = lived(machine, arrive)
    machine.run("systemd-run -q --unit=killer bash -c 'while :; do pkill -9 -f hooks/snap-guard[.]py; done'")
    done = machine.run("snap remove --purge microk8s", check=False, timeout=300)
    machine.run("systemctl stop killer; systemctl reset-failed killer || true")
    assert done.code == 0, f"{done.err}\n{said(machine)}"
    told = settled(machine)
    assert "the hook snap-guard failed" in told
    whole(machine, before, told)


@pytest.mark.full
@pytest.mark.parametrize(
    "machine", [pytest.param({"recipe": RECIPES["snapd-trixie"], "disk": True}, id="trixie")], indirect=True
)
def test_interrupted_and_booted(machine: Machine, arrive: Arrive) -> None:
    """The host goes down when snapd is done, and we are not: the rest is done at the next boot."""
    lived(machine, arrive)
    machine.run(
        "systemctl mask --runtime leftovers-snaps.service leftovers-snaps.path; systemctl stop leftovers-snaps.path"
    )
    machine.run("snap remove --purge microk8s", timeout=300)
    assert machine.run("test -e /etc/sysctl.d/10-microk8s.conf -a -L /var/lib/kubelet").code == 0
    assert machine.read("/var/lib/leftovers/snaps") == "microk8s\n"
    machine.halt()
    with Machine(machine.recipe, disk=True, of=machine.root) as again:
        told = settled(again)
        assert "MicroK8s: " in told and "nothing is left" in told, told
        for path in ("/etc/sysctl.d/10-microk8s.conf", "/var/lib/kubelet", "/etc/cni/net.d", "/var/log/pods"):
            assert again.run(f"test -e {path} -o -L {path}", check=False).code == 1, path
        assert intact(again) == list(PRECIOUS)
        again.run("leftovers verify microk8s")


@pytest.mark.full
@on_trixie
def test_two_at_once(machine: Machine, arrive: Arrive) -> None:
    """A person sweeps by force while snapd removes: one of them does it, neither breaks."""
    before = lived(machine, arrive)
    machine.run("snap stop microk8s; systemd-run -q --unit=person leftovers clean microk8s --force --yes; sleep 0.4")
    done = machine.run("snap remove --purge microk8s", check=False, timeout=300)
    assert done.code == 0, f"{done.err}\n{said(machine)}"
    whole(machine, before, settled(machine))


@pytest.mark.full
@on_trixie
def test_a_mount_that_hangs(machine: Machine, arrive: Arrive) -> None:
    """Its server has stopped. Nobody asks it anything, and snapd does not wait for it either."""
    microk8s.admin_things(machine)
    arrive(machine)
    microk8s.install(machine)
    microk8s.use(machine, hung=True)
    done = machine.run("snap remove --purge microk8s", check=False, timeout=300)
    assert done.code == 0, f"{done.err}\n{said(machine)}"
    settled(machine)
    assert microk8s.HUNG not in machine.run("cat /proc/self/mountinfo").out
    assert intact(machine) == list(PRECIOUS)
    microk8s.answers(machine)


@pytest.mark.full
@on_both
def test_a_sweep_that_takes_long(machine: Machine, arrive: Arrive) -> None:
    """It has ended the services, so snapd has nothing to wait for any more, and is not done itself."""
    before = lived(machine, arrive)
    machine.run(
        """
        systemd-run -q --unit=brake bash -c '
            pid=$(systemctl show -P MainPID snap.microk8s.daemon-containerd)
            until [ ! -e /proc/$pid/exe ]; do :; done
            pkill -STOP -f hooks/snap-guard[.]py
            sleep 8
            pkill -CONT -f hooks/snap-guard[.]py'
        """
    )
    done = machine.run("snap remove --purge microk8s", check=False, timeout=300)
    assert done.code == 0, f"{done.err}\n{said(machine)}"
    machine.run("systemctl reset-failed brake || true")
    whole(machine, before, settled(machine))
