"""snapd removes MicroK8s, which knows nothing of us: our package is on the host, and nothing else is done."""

from __future__ import annotations

from typing import Any

import pytest

from lab import hoststate, microk8s
from lab.machine import RECIPES, Machine
from lab.microk8s import PRECIOUS
from lab.scenario import Arrive

TRIXIE = pytest.param({"recipe": RECIPES["snapd-trixie"]}, id="trixie")
SID = pytest.param({"recipe": RECIPES["snapd-sid"]}, id="sid")
on_trixie = pytest.mark.parametrize("machine", [TRIXIE], indirect=True)
on_both = pytest.mark.parametrize("machine", [TRIXIE, SID], indirect=True)
# What stays, and why.
KEPT = (
    "file /root/snaps/",
    r"file /var/lib/snapd/snapshots",  # a plain removal saves one
    r"file /(run|var/lib|var/cache)/leftovers(/.*)?$",
    "file /var/lib/snapd/sequence/microk8s.json",  # snapd's own memory
    r"(unit|cgroup|process) .*leftovers-(watch|guard|snaps)",
)
# Set by MicroK8s' scripts; what they were before, and who needs them now, nobody can tell.
CHANGED = ("file /root/snaps/", r"sysctl ", r"process .*leftovers-watch")


def lived(m: Machine, arrive: Arrive, **how: Any) -> dict[str, Any]:
    """The administrator's things and our package, then MicroK8s, installed and used. Returns the host as it was before
    MicroK8s."""
    microk8s.admin_things(m)
    arrive(m)
    before = m.snapshot()
    microk8s.install(m, **how)
    microk8s.use(m)
    return before


def settled(m: Machine) -> str:
    """Wait until our service has done the rest. Returns what our units have said."""
    m.run(
        """
        for i in $(seq 600); do
            [ "$(systemctl is-active leftovers-snaps.service)" = inactive ] &&
                [ ! -e /run/leftovers/snap-microk8s.json ] && ! grep -qs microk8s /var/lib/leftovers/snaps && exit
            sleep 0.1
        done
        systemctl status leftovers-snaps.service; exit 1
        """
    )
    return said(m)


def said(m: Machine) -> str:
    return m.run("journalctl -q -o cat -u 'leftovers-*' --no-pager").out


def whole(m: Machine, before: dict[str, Any], told: str = "") -> None:
    """The host as it was: nothing left, nothing of the administrator's lost or changed, the pods' volumes intact."""
    found = hoststate.compare(before, m.snapshot(), keep=list(KEPT), changed=list(CHANGED))
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
