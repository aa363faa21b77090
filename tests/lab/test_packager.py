"""A package whose maintainers have added our snippets, on a host where dpkg and apt have no hooks of ours."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import incus
from lab.machine import Machine, base
from lab.scenario import KEPT, same

Arrive = Callable[[Machine], None]
TOP = Path(__file__).resolve().parents[2]
VOLUMES = r"file /srv/pool/"


def with_snippets(m: Machine, tmp: Path) -> Path:
    """Debian's incus-base of the host's archive as its maintainers would build it with dh_leftovers: its snippets are
    where debhelper puts them (test_debhelper.py shows that), first in prerm and postrm, last in postinst."""
    (archive,) = (base(m.recipe) / "var/cache/apt/archives").glob("incus-base_*.deb")
    root = tmp / "root"
    subprocess.run(["dpkg-deb", "-R", archive, root], check=True)
    control = root / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*$", r"\g<0>+leftovers1", control.read_text()))
    for script in ("prerm", "postrm", "postinst"):
        path = root / "DEBIAN" / script
        text = path.read_text() if path.exists() else "#!/bin/sh\nset -e\n"
        snippet = (TOP / f"debian/debhelper/{script}-leftovers").read_text().replace("#PRODUCT#", "incus")
        if script == "postinst":
            text = re.sub(r"\nexit 0\s*\Z", "\n", text) + snippet
        else:
            head, found, rest = text.partition("\nset -e\n")
            assert found, text
            text = head + found + snippet + rest
        path.write_text(text)
        path.chmod(0o755)
    made = tmp / "incus-base.deb"
    subprocess.run(["dpkg-deb", "-Zxz", "-z1", "-b", root, made], check=True, stdout=subprocess.DEVNULL)
    return made


@pytest.fixture
def used(machine: Machine, arrive: Arrive, tmp_path: Path) -> Callable[[], dict[str, object]]:
    """A host with such an Incus in use."""

    def make() -> dict[str, object]:
        arrive(machine)
        machine.run("rm /etc/dpkg/dpkg.cfg.d/leftovers /etc/apt/apt.conf.d/50leftovers")
        incus.admin_things(machine)
        before = machine.snapshot()
        incus.install(machine)
        machine.put(with_snippets(machine, tmp_path), "/tmp/i.deb")
        machine.run("dpkg -i /tmp/i.deb; rm /tmp/i.deb")
        incus.use(machine)
        return before

    return make


@pytest.mark.parametrize("command", ["apt-get purge -y", pytest.param("dpkg -P", marks=pytest.mark.full)])
def test_a_purge(machine: Machine, used: Callable[[], dict[str, object]], command: str) -> None:
    before = used()
    done = machine.run(f"{command} {' '.join(incus.PACKAGES)} 2>&1", timeout=200)
    assert re.search(r"(?m)^leftovers: Incus: asking 9 instances to shut down", done.out), done.out
    assert len(re.findall(r"(?m)^leftovers: Incus: \d+ gone in .*nothing is left\r?$", done.out)) == 1, done.out
    assert machine.run(["ls", "/srv/pool/containers"]).out == "c4\n"
    # Nobody had our package clean after lxcfs, which has no snippet of ours.
    machine.run(["leftovers", "clean", "lxcfs", "--yes"])
    same(machine, before, keep=[*KEPT, VOLUMES], said=done.out)


def inits(m: Machine) -> dict[str, str]:
    return dict(
        line.split(" ", 1)
        for line in m.run("incus list --all-projects -f csv -c nps | sort | tr , ' '").out.splitlines()
    )


@pytest.mark.full
def test_a_removal_that_is_refused_and_one_that_fails(machine: Machine, used: Callable[[], dict[str, object]]) -> None:
    used()
    running = inits(machine)
    machine.write("/etc/leftovers/leftovers.conf", "refuse_if_running = yes\n")
    done = machine.run("dpkg -P incus-base 2>&1", check=False)
    assert done.code != 0 and "leftovers: refused: Incus: 10 instances run" in done.out, done.out
    assert inits(machine) == running
    assert machine.run("dpkg-query -W -f '${db:Status-Status}' incus-base").out == "installed"

    # Its own prerm fails after ours has asked: postinst abort-remove starts again what was running.
    machine.write("/etc/leftovers/leftovers.conf", "\n")
    machine.run("sed -i -e '/^exit 0$/d' -e '$a exit 7' /var/lib/dpkg/info/incus-base.prerm")
    done = machine.run("dpkg -P incus-base 2>&1", check=False, timeout=200)
    assert done.code != 0 and "9 instances that had been asked to shut down run again" in done.out, done.out
    again = inits(machine)
    assert set(again) == set(running) and all("RUNNING" in state for name, state in again.items() if name != "stopped")
    assert again["eph"] == running["eph"]


@pytest.mark.full
def test_a_plain_removal(machine: Machine, used: Callable[[], dict[str, object]]) -> None:
    used()
    monitors = machine.run("pgrep -f '^.lxc monitor'").out
    done = machine.run("apt-get remove -y incus-base 2>&1")
    assert re.search(r"(?m)^leftovers: Incus is removed, not purged: 10 instances still run", done.out), done.out
    assert machine.run("pgrep -f '^.lxc monitor'").out == monitors
