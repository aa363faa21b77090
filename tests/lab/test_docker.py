"""Docker of Debian: installed, used and purged on a real host, then compared with the host before.

Whether anything is left, lost or changed is hoststate.py's to say, which shares no code with leftovers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from lab import docker, hoststate
from lab.docker import ON_SID, ON_TRIXIE
from lab.machine import Machine
from lab.scenario import CHANGED as INCUS_CHANGED
from lab.scenario import DONE, LEFT, Arrive, document, leftovers
from lab.test_triggers import lines, say

ALL = " ".join(docker.PACKAGES)
# What may stay on the host, and why.
KEPT = (
    r"account group docker$",  # somebody may have come to use it
    r"file /(etc(/apt/apt\.conf\.d/50|/dpkg/dpkg\.cfg\.d/|/)|(run|var/lib|var/cache)/)leftovers(/.*)?$",  # our own
    r"(file /etc/systemd/system/multi-user\.target\.wants/|unit )leftovers-snaps\.(path|service)$",
    r"file /run/runit(/supervise)?$",
    r"file /root/\.docker(/.*)?$",  # of the command `docker`, a person's
    r"xtables .* -P FORWARD DROP$",
)
CHANGED = (*INCUS_CHANGED, r".*FORWARD.*policy.*")


def same(
    m: Machine, before: dict[str, Any], said: str = "", left: Sequence[str] = (), changed: Sequence[str] = CHANGED
) -> None:
    """Nothing is left but what is documented, nothing of the administrator's is lost or changed."""
    found = hoststate.compare(
        before,
        m.snapshot(),
        keep=[f"^{each}" for each in (*KEPT, *left)],
        changed=[f"^{each}" for each in changed],
    )
    assert hoststate.count(found) == 0, f"\n{hoststate.render(found)}\n{said}"


def lived(m: Machine, config: str = "") -> dict[str, Any]:
    """The administrator's things, then Docker, installed and used. Returns the host as it was before Docker."""
    docker.admin_things(m)
    before = m.snapshot()
    docker.install(m, config=config)
    docker.use(m)
    return before


@pytest.mark.parametrize("machine", [ON_TRIXIE], indirect=True)
def test_apt_purge(machine: Machine, arrive: Arrive) -> None:
    arrive(machine)
    before = lived(machine)
    said = say(machine, f"apt-get purge -y -q {ALL}")
    print(said)
    same(machine, before, said)
    leftovers(machine, "verify")
