"""MicroK8s as snapd leaves it, and clean by hand: after a removal that failed or that left what it could not see."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from lab import hoststate, microk8s, snap, xtables
from lab.machine import RECIPES, Completed, Machine
from lab.microk8s import COMMON, HUNG, NODE, PODS, PRECIOUS, SOCKET
from lab.scenario import CHANGED, DONE, KEPT, LEFT, REFUSED, Arrive, document, leftovers
from lab.test_snaplab import intact, notes

TRIXIE = pytest.param({"recipe": RECIPES["snapd-trixie"]}, id="trixie")
SID = pytest.param({"recipe": RECIPES["snapd-sid"]}, id="sid")
on_trixie = pytest.mark.parametrize("machine", [TRIXIE], indirect=True)
on_sid = pytest.mark.parametrize("machine", [SID], indirect=True)
on_both = pytest.mark.parametrize("machine", [TRIXIE, SID], indirect=True)
SNAPS = r"file /root/snaps/"
# What may stay on the host, and why.
KEEP = (
    *KEPT,
    *xtables.EMPTY,
    SNAPS,  # the lab's
    r"file /opt/containerd(/(bin|lib))?$",  # empty; the administrator's containerd may have its tools there
    r"file /var/lib/snapd/sequence/microk8s\.json$",  # snapd's memory of any snap that ever was
    r"file /var/lib/snapd/seccomp/bpf/snap\.microk8s\..*",  # made again by snapd as its removal failed
    r"(file|mount) /(run/snapd(/(ns|lock)(/[^/]*)?)?|var/lib/snapd/hostfs)$",  # snapd's own, with the first strict snap
)
LOST = r"file (/srv/(data|media|remote|with space)|/mnt/bound)/"
FINISH = "finish with: snap remove --purge microk8s\n"


def lived(m: Machine, **how: Any) -> dict[str, Any]:
    """The administrator's things, then MicroK8s, installed and used. Returns the host as it was before MicroK8s."""
    hung = how.pop("hung", False)
    microk8s.admin_things(m)
    before = m.snapshot()
    microk8s.install(m, **how)
    microk8s.use(m, hung=hung)
    return before


def same(m: Machine, before: dict[str, Any], said: Completed | None = None, lost: Sequence[str] = ()) -> None:
    """Nothing is left, and nothing of the administrator's is lost or changed."""
    found = hoststate.compare(
        before,
        m.snapshot(),
        keep=[f"^{k}" for k in KEEP],
        changed=[f"^{c}" for c in (*CHANGED, SNAPS)],
        lost=[f"^{each}" for each in lost],
    )
    text = said.out + said.err if said else ""
    assert hoststate.count(found) == 0, f"\n{hoststate.render(found)}\n{text}"
    microk8s.answers(m)


def alive(m: Machine) -> list[str]:
    """What of MicroK8s still runs, is mounted, or is in the network."""
    script = f"""
    pgrep -f -- '-address {SOCKET}$' | sed 's/^/shim /'
    grep -l '^0::/kubepods.*{PODS[0].uid}' /proc/[0-9]*/cgroup | sed 's/^/process /'
    cat /proc/[0-9]*/mountinfo | grep -F ' {COMMON}/' | cut -d' ' -f5 | sort -u | sed 's/^/mount /'
    ip -o link | grep -E 'vxlan.calico|{microk8s.cali(PODS[0])}|cni0[:@]' | sed 's/^/link /'
    ls /run/netns | grep -x {PODS[0].netns} | sed 's/^/netns /'
    iptables-nft-save | grep -E ':cali-|:KUBE-' | sed 's/^/rule /'
    ipset list -n | grep '^cali40' | sed 's/^/set /'
    """
    return m.run(f"set +e\n{script}\nexit 0").out.splitlines()


def files(m: Machine) -> set[str]:
    """Every file that a snapshot of the snap's data would have, with its content; nothing of what is mounted there."""
    find = "find . -type f -print0 | xargs -0 sha256sum; find . -type l -printf '%l %p\\n'"
    view = f"mount --bind / /mnt; cd /mnt/var/snap/microk8s; {find}"
    return set(m.run(["unshare", "-m", "bash", "-e", "-c", view]).out.splitlines())


def by_hand(m: Machine, arrive: Arrive) -> None:
    """Our package comes, and nothing of it does anything by itself (that is test_snap_triggers.py's)."""
    arrive(m)
    m.write("/etc/leftovers/leftovers.conf", "enabled = no\n")
    m.run("systemctl stop leftovers-snaps.path leftovers-snaps.service leftovers-watch.service")


def finished(m: Machine) -> Completed:
    """snapd's removal, and what is data after it."""
    assert microk8s.remove(m, "--purge") == 0
    assert notes(m) == ""
    return leftovers(m, "clean", "microk8s", "--yes")


@on_trixie
def test_removed_without_us(machine: Machine, arrive: Arrive) -> None:
    """snapd 2.68 stopped half-way: we take what lives, snapd then takes the snap, and what is data outside it goes."""
    before = lived(machine)
    assert microk8s.remove(machine, "--purge") == 1
    assert notes(machine) == "disabled,classic" and intact(machine) == []
    by_hand(machine, arrive)
    removed = machine.snapshot()
    assert len(alive(machine)) > 40
    leftovers(machine, "verify", "microk8s", code=LEFT)
    planned = document(machine, "plan", "microk8s")
    wanted = {"process", "mount", "link", "netns", "xtables", "ipset", "route", "address", "cgroup", "file"}
    assert wanted <= {o["kind"] for o in planned if o["action"] == "remove"}
    found = hoststate.compare(removed, machine.snapshot(), keep=[r"^file /(run|var/lib)/leftovers"])
    assert hoststate.count(found) == 0, hoststate.render(found)  # looking changes nothing

    said = leftovers(machine, "clean", "microk8s", "--yes")
    assert said.out.endswith(FINISH), said.out
    assert alive(machine) == []
    microk8s.answers(machine)
    same(machine, before, finished(machine), lost=[LOST])
    leftovers(machine, "verify", "microk8s")
    assert FINISH not in leftovers(machine, "clean", "microk8s", "--yes").out


@pytest.mark.full
@on_both
def test_disabled_by_the_administrator(machine: Machine, arrive: Arrive) -> None:
    """Then it is installed, and its containers are to live."""
    lived(machine)
    by_hand(machine, arrive)
    machine.run("snap disable microk8s")
    living = alive(machine)
    assert len(living) > 40
    for arguments in (["--yes"], ["--yes", "--data"]):
        said = leftovers(machine, "clean", "microk8s", *arguments, code=REFUSED)
        assert "snapd has microk8s, disabled" in said.err and "snap remove --purge microk8s" in said.err
    assert alive(machine) == living and intact(machine) == list(PRECIOUS)
    leftovers(machine, "verify", "microk8s")


FORGET = """
systemctl stop snapd.socket snapd.service
python3 -I - <<'P'
import json
path = "/var/lib/snapd/state.json"
state = json.load(open(path))
state["changes"], state["tasks"] = {}, {}
json.dump(state, open(path, "w"))
P
systemctl start snapd.socket snapd.service
snap changes 2>&1 || true
"""


@pytest.mark.full
@on_trixie
def test_a_removal_that_failed_long_ago(machine: Machine, arrive: Arrive) -> None:
    """snapd forgets its changes after a day; that the data of the snap's revision is gone still tells."""
    lived(machine)
    assert microk8s.remove(machine, "--purge") == 1
    assert "Remove" not in machine.run(FORGET).out
    by_hand(machine, arrive)
    assert len(alive(machine)) > 40
    said = leftovers(machine, "clean", "microk8s", "--yes")
    assert said.out.endswith(FINISH), said.out
    assert alive(machine) == []
    finished(machine)
    leftovers(machine, "verify", "microk8s")
    microk8s.answers(machine)


@pytest.mark.full
@on_sid
def test_a_removal_that_was_undone(machine: Machine, arrive: Arrive) -> None:
    """snapd 2.77 takes back a removal that cannot end, and the snap runs: clean leaves it alone until it is stopped."""
    before = lived(machine)
    assert microk8s.remove(machine, "--purge") == 1
    assert notes(machine) == "classic"
    by_hand(machine, arrive)
    living = alive(machine)
    said = leftovers(machine, "clean", "microk8s", "--yes", code=REFUSED)
    assert "snap remove --purge microk8s, or snap stop microk8s && leftovers clean microk8s --force" in said.err
    said = leftovers(machine, "clean", "microk8s", "--yes", "--force", code=REFUSED)
    assert re.search(r"its service snap\.microk8s\.\S+ runs \(snap stop microk8s && leftovers clean", said.err)
    assert alive(machine) == living

    machine.run("snap stop microk8s")
    said = leftovers(machine, "clean", "microk8s", "--yes", "--force")
    assert said.out.endswith(FINISH), said.out
    assert alive(machine) == [] and intact(machine) == list(PRECIOUS)
    same(machine, before, finished(machine))


@pytest.mark.full
@on_both
@pytest.mark.parametrize("confinement", ["classic", "devmode"])
def test_forced_while_it_is_installed(machine: Machine, arrive: Arrive, confinement: str) -> None:
    """What is taken while snapd still has the snap is nothing that snapd would save, and nothing that its services do
    not make again; and then its removal succeeds, with the administrator's files there."""
    before = lived(machine, confinement=confinement)
    by_hand(machine, arrive)
    machine.run("snap stop microk8s")
    data = files(machine)
    planned = document(machine, "plan", "microk8s", "--force")
    for item in planned:
        if item["action"] != "keep" and item["kind"] == "file":
            path = item["id"].partition(":")[2]
            assert path.startswith(("/run/", "/var/lib/cni/")), path
    # snapd 2.77 of the lab gives a snap in devmode no mount namespace of its own.
    if machine.run(["test", "-e", "/run/snapd/ns/microk8s.mnt"], check=False).code == 0:
        assert confinement == "devmode"
        pinned = [o["id"] for o in planned if o["kind"] == "mount" and o["action"] == "remove"]
        assert len(pinned) > 10 and not any(id.startswith("mount:/") for id in pinned), "in the snap's namespace only"
    leftovers(machine, "clean", "microk8s", "--yes", "--force")
    assert alive(machine) == []
    assert files(machine) == data and intact(machine) == list(PRECIOUS)
    # It is still a whole snap: its services start, containers can be run.
    machine.run("snap start microk8s")
    machine.run(
        f"for i in $(seq 600); do ctr --address {SOCKET} version >/dev/null 2>&1 && exit; sleep 0.1; done; exit 1"
    )
    machine.run(
        f"ctr --address {SOCKET} -n k8s.io run --rm --null-io --cpu-shares 0 --cgroup /kubepods/again "
        f"{microk8s.IMAGE} again /bin/sleep 0"
    )
    machine.run("snap stop microk8s")
    leftovers(machine, "clean", "microk8s", "--yes", "--force")
    same(machine, before, finished(machine))
    assert intact(machine) == list(PRECIOUS)


@pytest.mark.full
@on_trixie
def test_devmode_removed_without_us(machine: Machine, arrive: Arrive) -> None:
    """Strict in the field: snapd's removal succeeds, shims and containers run on. The kernel took their mounts away, in
    whichever namespace they were, as snapd deleted what they were mounted on (fs/namei.c, detach_mounts)."""
    before = lived(machine, confinement="devmode")
    assert microk8s.remove(machine, "--purge") == 0
    by_hand(machine, arrive)
    assert {line.split()[0] for line in alive(machine)} == {"shim", "process", "link", "netns", "rule", "set"}
    same(machine, before, leftovers(machine, "clean", "microk8s", "--yes"))
    assert intact(machine) == list(PRECIOUS)
    leftovers(machine, "verify", "microk8s")


@pytest.mark.full
@on_trixie
def test_a_hung_volume(machine: Machine, arrive: Arrive) -> None:
    """A FUSE server in a pod that does not answer holds nothing up; nor does a process that waits for it for ever."""
    before = lived(machine, hung=True)
    by_hand(machine, arrive)
    machine.run("snap stop microk8s")
    group = f"/sys/fs/cgroup/kubepods/besteffort/pod{NODE.uid}/{NODE.container}/cgroup.procs"
    waiting = machine.spawn(["bash", "-c", f"echo $$ >{group}; exec stat '{HUNG}'"])
    said = leftovers(machine, "clean", "microk8s", "--yes", "--force", code=None)
    assert said.code == DONE, said.out + said.err
    assert alive(machine) == []
    assert waiting.outer.wait(10) != 0
    machine.run("systemctl kill -s KILL lab-fuse; systemctl reset-failed lab-fuse || true")
    machine.run("rm -rf /var/tmp/fuse /root/snaps/fuse.img")
    same(machine, before, finished(machine))
    assert intact(machine) == list(PRECIOUS)


@pytest.mark.full
@on_trixie
def test_recorded_before(machine: Machine, arrive: Arrive) -> None:
    """What snapd deletes before it fails is known from the ledger; and ufw's rules are told with their command."""
    before = lived(machine)
    by_hand(machine, arrive)
    rule = "### tuple ### allow any any 0.0.0.0/0 any 0.0.0.0/0 in_vxlan.calico\n"
    machine.write("/etc/ufw/user.rules", rule)
    leftovers(machine, "record", "microk8s")
    assert microk8s.remove(machine, "--purge") == 1
    leftovers(machine, "clean", "microk8s", "--yes")
    finished(machine)
    assert "ufw delete allow in on vxlan.calico" in leftovers(machine, "verify", "microk8s", code=LEFT).out
    machine.run("rm -r /etc/ufw")
    same(machine, before, lost=[LOST])
    leftovers(machine, "verify", "microk8s")


@pytest.mark.full
@on_trixie
def test_of_several_revisions(machine: Machine, arrive: Arrive) -> None:
    """Shims of an older revision outlive its refresh, and are MicroK8s' all the same."""
    before = lived(machine)
    microk8s.install(machine)
    assert snap.revision(machine, "microk8s") == "x2"
    assert microk8s.remove(machine, "--purge") == 1
    by_hand(machine, arrive)
    leftovers(machine, "clean", "microk8s", "--yes")
    assert alive(machine) == []
    same(machine, before, finished(machine), lost=[LOST])
