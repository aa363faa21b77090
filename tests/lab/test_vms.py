"""Virtual machines of Incus: real QEMU, virtiofsd and swtpm as Incus starts them (how: vms.py), beside those of the
administrator."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from lab import incus, vms
from lab.machine import RECIPES, Machine
from lab.scenario import KEPT, LEFT, Arrive, clean, document, leftovers, same
from lab.test_triggers import POOL, SUMMARY, lines, say, setting

HOST = {"recipe": RECIPES["vms-trixie"]}


def lived(m: Machine) -> dict[str, Any]:
    """The administrator's things, then Incus with virtual machines. Returns the host as it was before Incus."""
    vms.emulate(m)
    incus.admin_things(m)
    vms.admin_things(m)
    before = m.snapshot()
    incus.install(m)
    vms.use(m)
    return before


def purge(m: Machine) -> None:
    """Debian's own. A machine's directories are mounted on the host itself, and postrm (`rm --one-file-system -Rf
    /var/lib/incus`) reaches those of the administrator's that are on the same file system: here they are put back."""
    saved = m.run("tar -C /srv/data --one-file-system -c . | base64 -w 0").out
    incus.purge(m)
    assert m.run("ls -A /srv/data").out == "sub\n"  # a mount
    m.run("base64 -d | tar -C /srv/data -xp", input=saved)


@pytest.mark.full
@pytest.mark.parametrize("machine", [HOST], indirect=True)
def test_purged_without_us(machine: Machine, arrive: Arrive) -> None:
    before = lived(machine)
    purge(machine)
    arrive(machine)
    leftovers(machine, "verify", "incus", code=LEFT)
    planned = [o for o in document(machine, "plan", "incus") if o["action"] == "remove"]
    reasons = [o["reason"] for o in planned if o["kind"] == "process" and o["product"] == "incus"]
    # A virtiofsd is two processes, of which one is in a pid namespace: it is no instance.
    assert {reason: reasons.count(reason) for reason in reasons} == {
        "Incus' daemon or a helper of it": 1,
        "a virtual machine": len(vms.RUNNING),
        "a helper of an instance": 6 + 2,
        "the DHCP and DNS server of a network": 2,
    }
    clean(machine, before)


@pytest.mark.full
@pytest.mark.parametrize("machine", [HOST], indirect=True)
def test_powered_down(machine: Machine, arrive: Arrive) -> None:
    """A purge with our hooks: who hears the power button comes down by itself, and saves what it has not saved yet."""
    arrive(machine)
    setting(machine, "stop_timeout = 6")
    before = lived(machine)
    until(lambda: written(machine) == (False, True))
    said = say(machine, f"apt-get purge -y -q {' '.join(incus.PACKAGES)}")
    assert len(lines(said, r"^leftovers: incus-base: this ends 3 running instances and 2 networks of Incus")) == 1, said
    assert len(lines(said, r"^leftovers: Incus: asking 3 instances to shut down, 6 s at most$")) == 1, said
    late = lines(said, r"^leftovers: Incus: 2 did not come down, and will be killed: ")
    assert len(late) == 1 and set(re.findall(r"\b\w*v\d\b", late[0])) == {"v2", "proj_v3"}, said
    assert len(lines(said, SUMMARY)) == 1, said
    same(machine, before, keep=[*KEPT, POOL], said=said)
    assert written(machine) == (True, True)
    leftovers(machine, "verify")


def written(m: Machine) -> tuple[bool, bool]:
    """Whether v1 has written its first sector to the second, when it went down, and to the third, when it came up."""
    disk = base64.b64decode(m.run("head -c 1536 /srv/pool/virtual-machines/v1/root.img | base64 -w 0").out)
    assert disk[510:512] == b"\x55\xaa"
    return disk[512:1024] == disk[:512], disk[1024:] == disk[:512]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.full
@pytest.mark.parametrize("machine", [HOST], indirect=True)
def test_all_in_disorder(machine: Machine, arrive: Arrive) -> None:
    """incusd crashed, one machine was killed, of another the directory in /run was deleted, and then Incus was purged:
    what tells them is on record, or with the kernel."""
    arrive(machine)
    before = lived(machine)
    leftovers(machine, "record", "incus")
    incus.kill_daemon(machine)
    machine.run('kill -KILL "$(cat /run/incus/v2/qemu.pid)"; rm -r /run/incus/v1 /run/incus/proj_v3')
    purge(machine)
    taps = set(re.findall(r"\btap[0-9a-f]{8}\b", machine.run("ip -o link show type tun").out))
    assert len(taps) == 4 + 2  # that of v2 outlived it
    clean(machine, before)
