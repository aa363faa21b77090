"""zabbly's packages: a lxcfs beside the daemon in one of them, a daemon without a path, units that nobody forgot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leftovers import survey, transaction
from leftovers.claims import Case, attribute
from leftovers.daemons import dpkg
from leftovers.host import Host
from leftovers.model import Claim, Object, Presence, Role
from leftovers.products import NAMES, load
from leftovers.products.family.reading import is_daemon
from leftovers.products.incus import NAMES as INCUS


def process(pid: int, exe: str, *argv: str, **facts: Any) -> Object:
    known = {"pid": pid, "ppid": 1, "exe": exe, "argv": [*argv], "nested": False, "cgroup": "/", "netns": 1, "mntns": 1}
    return Object("process", str(pid), (pid, 1), {**known, "uid": 0, "lxc": "", **facts})


def unit(name: str, *, stands: bool) -> Object:
    facts = {"unit": name, "load": "loaded", "active": "failed", "sub": "failed", "cgroup": "", "stands": stands}
    return Object("unit", name, (name, "1"), facts)


def cgroup(path: str) -> Object:
    facts = {"path": path, "directory": f"/sys/fs/cgroup{path}", "hierarchy": "", "populated": False}
    return Object("cgroup", path, (path,), facts)


def claims(product: str, **listed: tuple[Object, ...]) -> dict[str, Claim]:
    return attribute(Case(product, Presence.ABSENT, {"mount": (), **listed}, ()), load(product).rules)


def test_a_package_with_two_daemons_is_the_first_product_s(monkeypatch: pytest.MonkeyPatch) -> None:
    owned = {
        "/opt/incus/bin/incusd": ["incus-base"],
        "/opt/incus/bin/lxcfs": ["incus-base"],
        "/usr/bin/lxcfs": ["lxcfs"],
    }
    monkeypatch.setattr(dpkg, "owners", lambda paths: owned)
    found = transaction.daemon_packages([load(name) for name in NAMES])
    assert found == {"incus-base": "incus", "lxcfs": "lxcfs"}


@pytest.mark.parametrize(
    ("exe", "installed"),
    [
        ("/usr/bin/lxcfs", "lxcfs"),
        ("/opt/incus/bin/lxcfs", "incus-lxcfs"),
        ("/usr/local/bin/lxcfs", "lxcfs incus-lxcfs"),
    ],
)
def test_one_lxcfs_that_runs_is_not_the_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, exe: str, installed: str
) -> None:
    Path(f"{tmp_path}{exe}").parent.mkdir(parents=True)
    Path(f"{tmp_path}{exe}").touch()
    runs = {"process": (process(9, exe, exe),), "mount": ()}
    found = [
        name
        for name in ("lxcfs", "incus-lxcfs")
        if survey.presence(Host(str(tmp_path)), load(name), runs)[0] is Presence.INSTALLED
    ]
    assert found == installed.split()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["incusd", "--group", "incus-admin"], True),
        (["/opt/incus/bin/incusd", "--group", "incus-admin"], True),
        (["/opt/incus/bin/incusd"], True),
        (["incusd", "forkproxy", "--"], False),
        (["/proc/9/exe", "forknet", "dhcp"], False),
        (["[lxc monitor] /var/lib/incus/containers c1"], False),
        ([], False),
    ],
)
def test_who_is_the_daemon(argv: list[str], expected: bool) -> None:
    assert is_daemon(INCUS, process(9, "/opt/incus/bin/incusd", *argv)) is expected
    assert not is_daemon(INCUS, process(9, "/usr/bin/sleep", *argv))


@pytest.mark.parametrize(("product", "name"), [("incus", "incus.service"), ("incus-lxcfs", "incus-lxcfs.service")])
def test_a_unit_whose_file_is_gone_goes_with_its_cgroup(product: str, name: str) -> None:
    group, other = cgroup(f"/system.slice/{name}"), cgroup(f"/system.slice/my-{name}")
    found = claims(product, unit=(unit(name, stands=False), unit(f"my-{name}", stands=False)), cgroup=(group, other))
    assert set(found) == {f"unit:{name}", group.id} and {claim.role for claim in found.values()} == {Role.LIVE}
    assert found[group.id].object.facts["only_empty"]
    # systemd may have forgotten it
    assert set(claims(product, cgroup=(group, other))) == {group.id}


@pytest.mark.parametrize("product", ["incus", "incus-lxcfs", "lxcfs"])
def test_a_unit_that_has_a_file_is_the_administrator_s(product: str) -> None:
    units = tuple(unit(name, stands=True) for name in load(product).units)
    groups = tuple(cgroup(f"/system.slice/{name}") for name in load(product).units)
    assert claims(product, unit=units, cgroup=groups) == {}


def test_somebody_else_s_process_keeps_the_cgroup() -> None:
    group = cgroup("/system.slice/incus.service")
    sleeper = process(9, "/usr/bin/sleep", "sleep", cgroup=group.key)
    assert claims("incus", cgroup=(group,), process=(sleeper,)) == {}
    child = process(9, "/usr/bin/sleep", "sleep", cgroup=f"{group.key}/mine")
    assert claims("incus", cgroup=(group,), process=(child,)) == {}
