"""A snap that carries our hook and code, on a host that has nothing of ours: what is left of it when it is removed."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lab import hoststate, incus, microk8s, publisher, snap
from lab.machine import RECIPES, Machine
from lab.microk8s import COMMON, PRECIOUS
from lab.scenario import Arrive
from lab.test_snaplab import CONTAINERS, SHIMS, intact, kinds, notes
from lab.xtables import EMPTY

TRIXIE = pytest.param({"recipe": RECIPES["snapd-trixie"]}, id="trixie")
SID = pytest.param({"recipe": RECIPES["snapd-sid"]}, id="sid")
on_trixie = pytest.mark.parametrize("machine", [TRIXIE], indirect=True)
on_sid = pytest.mark.parametrize("machine", [SID], indirect=True)
# setns(2) into a mount namespace wants CAP_SYS_CHROOT, as confinement by AppArmor would want a rule.
DROPPED = """
export LD_LIBRARY_PATH=$(echo "$SNAP"/usr/lib/*-linux-gnu)
exec "$SNAP/bin/setpriv" --bounding-set -sys_chroot --inh-caps -sys_chroot """
# What a snapshot of snapd has of the data (overlord/snapshotstate/backend).
NAMES = """
import sys, tarfile, zipfile
with zipfile.ZipFile(sys.argv[1]).open("archive.tgz") as archive:
    print("\\n".join(tarfile.open(fileobj=archive, mode="r|gz").getnames()))
"""
# What stays, and why.
KEPT = (
    "file /root/snaps/",
    r"file /var/lib/snapd/sequence/microk8s\.json$",  # snapd does not delete it (overlord/snapstate/handlers.go)
    r"file /opt/containerd(/bin|/lib)?$",  # every containerd makes it as it starts, and there is another one
    *EMPTY,
    r"file /var/lib/leftovers(/.*)?$",  # see gone()
)
# What snapd makes for the first strict snap of a host.
STRICT = (r"(file|mount) /run/snapd(/(lock|ns)(/.*)?)?$", r"file /var/lib/snapd/hostfs$")
# Set by MicroK8s' scripts; what they were before, nobody can tell.
CHANGED = ("file /root/snaps/", r"sysctl ")
WENT = r"MicroK8s: [1-9]\d* gone in [\d.]+ s \("


def lived(m: Machine, confinement: str = "classic", hook: str = "") -> dict[str, Any]:
    """The administrator's things, then MicroK8s with our hook, installed and used."""
    microk8s.admin_things(m)
    before = m.snapshot()
    publisher.bring(m)
    hooks = {"meta/hooks/remove": hook} if hook else publisher.HOOK
    microk8s.install(m, hooks, confinement, publisher.PART)
    m.run(f"rm -r {publisher.SOURCES}")
    microk8s.use(m)
    return before


def over(m: Machine) -> None:
    """Wait until the hook's child has done what was to be done after snapd."""
    m.run("for i in $(seq 600); do pgrep -f [s]nap-remove.py >/dev/null || exit 0; sleep 0.1; done; exit 1", timeout=90)


def told(m: Machine) -> str:
    """What the hook has told in the journal."""
    return m.run("journalctl -q -o cat -t leftovers").out


def log(m: Machine) -> str:
    """What snapd has kept of the hook."""
    tasks = snap.changes(m, "microk8s")[-1]["tasks"]
    (hook,) = [task for task in tasks if task["kind"] == "run-hook"]
    assert hook["status"] == "Done"
    return "\n".join(hook.get("log") or ())


def gone(m: Machine, before: dict[str, Any], *more: str) -> None:
    """Nothing of the snap is left but what is named, and nothing of others is lost."""
    over(m)
    said = told(m)
    difference = hoststate.compare(before, m.snapshot(), keep=[*KEPT, *more], changed=list(CHANGED))
    assert hoststate.count(difference) == 0, f"\n{hoststate.render(difference)}\n{said}"
    assert intact(m) == list(PRECIOUS), said
    microk8s.answers(m)
    assert notes(m) == ""
    # The administrator's containerd lives, and has what all users of CNI share. If that counts as left it was told,
    # also to snapd, and is known for later.
    left = re.findall(r"(?m)^left: (.*)", said)
    assert all("somebody else" in line or "/var/log/" in line for line in left), said
    assert bool(re.search(WENT, log(m))) == bool(left)
    known = m.run("ls /var/lib/leftovers", check=False).out.split()
    assert known == (["lock", "microk8s.json", "microk8s.log"] if left else [])


@on_trixie
def test_purged(machine: Machine) -> None:
    before = lived(machine)
    assert microk8s.remove(machine, "--purge") == 0, told(machine)
    gone(machine, before)
    # before and after snapd's own removal
    assert len(re.findall(f"(?m)^{WENT}", told(machine))) == 2, told(machine)


@pytest.mark.full
@on_trixie
def test_purged_alone(machine: Machine) -> None:
    """Nobody else uses containers: nothing is left, and nothing of ours."""
    incus.admin_things(machine)
    microk8s.make_image(machine)
    machine.run(
        "systemctl disable -q --now containerd.service; mkdir -p /srv/data/deep '/srv/with space' /srv/{media,remote}"
    )
    machine.run("mkdir /srv/away; cp -a /usr/bin/containerd* /srv/away")
    before = machine.snapshot()
    publisher.bring(machine)
    microk8s.install(machine, publisher.HOOK, tree=publisher.PART)
    machine.run(f"rm -r {publisher.SOURCES}; rm /usr/bin/containerd*")
    microk8s.use(machine)
    assert microk8s.remove(machine, "--purge") == 0, told(machine)
    over(machine)
    machine.run("mv /srv/away/* /usr/bin/; cp -a /usr/bin/containerd* /srv/away")
    said = told(machine)
    assert len(re.findall(f"(?m)^{WENT}.*; nothing is left$", said)) == 2, said
    kept = [pattern for pattern in KEPT if "leftovers" not in pattern and "/opt/containerd" not in pattern]
    kept += [r"file /root/snap$"]  # snap run makes it for whoever runs something
    difference = hoststate.compare(before, machine.snapshot(), keep=kept, changed=list(CHANGED))
    assert hoststate.count(difference) == 0, f"\n{hoststate.render(difference)}\n{said}"
    assert log(machine) == ""


@pytest.mark.full
@on_sid
def test_purged_by_a_newer_snapd(machine: Machine) -> None:
    """It refuses a removal while anything is mounted in the snap's directories."""
    before = lived(machine)
    assert microk8s.remove(machine, "--purge") == 0, told(machine)
    gone(machine, before)


@pytest.mark.full
@on_trixie
def test_devmode_purged(machine: Machine) -> None:
    """What a strict snap is where AppArmor is not: its hook goes over to the host."""
    before = lived(machine, "devmode")
    assert microk8s.remove(machine, "--purge") == 0, told(machine)
    gone(machine, before, *STRICT)


@pytest.mark.full
@on_trixie
def test_removed_with_a_snapshot(machine: Machine) -> None:
    """The hook comes before snapd saves the data: all of it is in the snapshot, and what was mounted there is not."""
    before = lived(machine)
    machine.write(f"{COMMON}/var/lib/kubelet/of the user", "data")
    # without what is mounted in there
    script = f"mount --bind {COMMON} /mnt && cd /mnt && find . -type f"
    had = machine.run(["unshare", "-m", "sh", "-c", script]).out.splitlines()
    assert len(had) > 20
    assert microk8s.remove(machine) == 0, told(machine)
    archive = machine.run("echo /var/lib/snapd/snapshots/*_microk8s_*.zip").out.strip()
    saved = machine.run(["python3", "-I", "-c", NAMES, archive]).out.splitlines()
    assert [path for path in had if f"common/{path[2:]}" not in saved] == []
    gone(machine, before, "file /var/lib/snapd/snapshots")


@pytest.mark.full
@on_trixie
def test_confined(machine: Machine) -> None:
    """A hook that may not leave its mount namespace ends what runs and unmounts there, and tells what it could not do.
    (The lab's snaps lie on FUSE, so it does not read what is in its namespace to the end.)"""
    before = lived(machine, "devmode", publisher.HOOK["meta/hooks/remove"].replace("exec ", DROPPED))
    assert microk8s.remove(machine, "--purge") == 0, told(machine)
    over(machine)
    assert notes(machine) == ""
    said = told(machine)
    assert len(re.findall(f"(?m)^{WENT}", said)) == 1 and "NOT ALL could be read" in said, said
    for text in (said, log(machine)):
        assert "left: netns:" in text and "not read: /var/snap/microk8s/common" in text, text
    assert machine.run("ls /dev/shm/snap.microk8s.leftovers-*/").out.split() == [
        "lock",
        "microk8s.json",
        "microk8s.log",
    ]
    assert machine.run("ls /var/lib/leftovers", check=False).code != 0
    difference = hoststate.compare(before, machine.snapshot(), keep=[*KEPT, *STRICT], changed=list(CHANGED))
    left = kinds(difference["left"])
    assert difference["lost"] == difference["changed"] == [], difference
    assert left["link"] == 5 and not {"process", "cgroup", "mntns", "pidns", "disk"} & left.keys(), left
    assert intact(machine) == list(PRECIOUS)
    microk8s.answers(machine)


@pytest.mark.full
@on_trixie
def test_stays(machine: Machine) -> None:
    """A refresh does not run the hook, and whoever runs it by hand ends nothing."""
    lived(machine)
    alive = machine.run(SHIMS).out, machine.run(CONTAINERS).out
    assert len(alive[0].split()) == len(microk8s.PODS)
    publisher.bring(machine)
    microk8s.install(machine, publisher.HOOK, tree=publisher.PART)
    assert snap.revision(machine, "microk8s") == "x2"
    assert told(machine) == ""
    said = machine.run("snap run --hook=remove microk8s", check=False)
    assert said.code == 1 and "snapd is not removing it (snap remove microk8s)" in said.out, said.out
    assert said.out.removeprefix("leftovers: ") == told(machine)
    said = machine.run("/snap/microk8s/current/usr/share/leftovers/hooks/snap-remove lxd", check=False)
    assert said.code == 1 and "this is the hook of another snap" in said.out
    assert (machine.run(SHIMS).out, machine.run(CONTAINERS).out) == alive
    assert intact(machine) == list(PRECIOUS)
    assert machine.run("ls -d /var/lib/leftovers", check=False).code != 0


@pytest.mark.full
@on_trixie
def test_with_our_package(machine: Machine, arrive: Arrive) -> None:
    """The hook leaves it to the leftovers of the host."""
    arrive(machine)
    before = lived(machine)
    assert microk8s.remove(machine, "--purge") == 0, told(machine)
    assert "leftovers-after-microk8s" not in machine.run("journalctl -q -o cat").out
    machine.run(
        """
        for i in $(seq 600); do
            state=$(systemctl is-active leftovers-snaps.service || :)
            [ -e /run/leftovers/snap-microk8s.json ] || [ "$state" = activating ] || exit 0
            sleep 0.1
        done
        exit 1
        """
    )
    machine.run("leftovers clean microk8s --yes", check=False)
    keep = [*KEPT, r"file /run/leftovers", r"(process|cgroup|unit) .*leftovers-(watch|snaps)"]
    difference = hoststate.compare(before, machine.snapshot(), keep=keep, changed=list(CHANGED))
    assert hoststate.count(difference) == 0, f"\n{hoststate.render(difference)}\n{told(machine)}"
    assert intact(machine) == list(PRECIOUS)
    microk8s.answers(machine)
