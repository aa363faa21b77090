"""What a package manager is about to do, from what it says."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from leftovers import transaction
from leftovers.daemons import dpkg
from leftovers.daemons.dpkg import State
from leftovers.host import Host
from leftovers.products import load
from leftovers.transaction import Arriving, Dpkg, Leaving, apt_list, leaving, question, replacement
from leftovers.watcher import Watched

ME = Watched(1, 1)


def dpkg_run(arguments: str, action: str, locked: bool = False) -> Dpkg:
    return Dpkg(ME, tuple(arguments.split()), action, locked)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> dict[str, State]:
    """Packages that dpkg has; incusd is incus-base's while that is installed."""
    has: dict[str, State] = {}

    def states(packages: Sequence[str]) -> dict[str, State]:
        return {package: has[package] for package in packages if package in has}

    def owners(paths: Sequence[str]) -> dict[str, list[str]]:
        holder = [name for name in ("incus-base", "my-incus") if name in has and has[name].status == "installed"]
        return {"/usr/libexec/incus/incusd": holder} if holder else {}

    monkeypatch.setattr(dpkg, "states", states)
    monkeypatch.setattr(dpkg, "owners", owners)
    return has


# facts/package-managers.md, 4.3 and 2: what each command looks like from a hook
CASES = [
    ("--status-fd 15 --no-triggers --remove incus-base:all", "remove", True, "purge", "installed", True),
    ("--status-fd 15 --no-triggers --remove incus-base", "remove", True, "deinstall", "installed", False),
    ("-P incus-base", "purge", False, "install", "installed", True),
    ("-P incus-base:amd64", "purge", False, "install", "installed", True),
    ("-r incus-base", "remove", False, "install", "installed", False),
    ("-r incus-base", "remove", False, "purge", "installed", False),  # selected once, by a purge that failed
    ("--remove --pending", "remove", False, "purge", "installed", True),
    ("--remove --pending", "remove", False, "deinstall", "installed", False),
    ("--status-fd 15 --purge --pending", "purge", True, "purge", "config-files", True),
    ("--purge -a", "purge", False, "purge", "config-files", True),
]


@pytest.mark.parametrize(("arguments", "action", "locked", "want", "status", "purge"), CASES)
def test_what_goes(
    world: dict[str, State], arguments: str, action: str, locked: bool, want: str, status: str, purge: bool
) -> None:
    world["incus-base"] = State(want, status)
    assert leaving(dpkg_run(arguments, action, locked), {}) == [Leaving("incus-base", "incus", purge, True)]


@pytest.mark.parametrize(
    ("arguments", "action"), [("-P less", "purge"), ("--remove --pending", "remove"), ("--purge -a", "purge")]
)
def test_what_is_not_named_or_selected_stays(world: dict[str, State], arguments: str, action: str) -> None:
    world["incus-base"] = State("install", "installed")
    world["less"] = State("purge", "installed")
    assert leaving(dpkg_run(arguments, action), {}) == []


def test_a_metapackage_holds_no_daemon(world: dict[str, State]) -> None:
    world["incus"] = State("purge", "installed")
    world["incus-base"] = State("install", "installed")
    assert leaving(dpkg_run("--remove incus", "remove", True), {}) == [Leaving("incus", "incus", True, False)]


def test_a_package_of_another_name_is_known_by_its_files_and_then_by_memory(world: dict[str, State]) -> None:
    world["my-incus"] = State("purge", "installed")
    run = dpkg_run("--remove my-incus", "remove", True)
    assert leaving(run, {}) == [Leaving("my-incus", "incus", True, True)]
    world["my-incus"] = State("purge", "config-files")
    assert leaving(dpkg_run("-P my-incus", "purge"), {}) == []
    assert leaving(dpkg_run("-P my-incus", "purge"), {"my-incus": "incus"}) == [
        Leaving("my-incus", "incus", True, True)
    ]


def test_apt_tells_what_comes_and_what_goes() -> None:
    text = (
        "ctrt 2.0 all none > - - none **REMOVE**\n"
        "brk - - none < 1.0 all none /var/cache/apt/archives/brk_1.0 all.deb\n"
        "brk - - none < 1.0 all none **CONFIGURE**\n"
        "lib 1 amd64 same < 2 amd64 same /x/lib_2.deb\n"
        "nonsense\n"
    )
    assert apt_list(text) == (
        [Arriving("brk", "1.0", "/var/cache/apt/archives/brk_1.0 all.deb"), Arriving("lib", "2", "/x/lib_2.deb", "1")],
        ["ctrt"],
    )


def test_apts_question() -> None:
    packages = [
        {"name": "incus-base", "mode": "purge"},
        {"name": "x", "mode": "install"},
        {"name": "y", "mode": "keep"},
    ]
    text = json.dumps({"jsonrpc": "2.0", "method": "m", "params": {"command": "purge", "packages": packages}})
    assert question(text) == ([("incus-base", "purge")], ["x"])


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"params": 3}', '{"params": {"packages": 3}}'])
def test_a_question_that_is_none(text: str) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        question(text)


def deb(directory: Path, name: str, fields: Mapping[str, str], files: Sequence[str] = ()) -> Arriving:
    """A real package."""
    root = directory / name
    (root / "DEBIAN").mkdir(parents=True)
    control = {"Package": name, "Version": "1", "Architecture": "all", "Maintainer": "x <x@x>", "Description": "x"}
    (root / "DEBIAN/control").write_text("".join(f"{k}: {v}\n" for k, v in {**control, **fields}.items()))
    for file in files:
        (root / file.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (root / file.lstrip("/")).write_text("x")
    path = directory / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zxz", "-b", root, path], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(root)
    return Arriving(name, "1", str(path))


@pytest.mark.parametrize(
    ("name", "fields", "files", "replaces"),
    [
        ("incus", {}, [], True),  # one of the product's own names
        ("my-incus", {"Provides": "incus-base (= 1)"}, [], True),
        ("my-incus", {"Replaces": "incus-base", "Conflicts": "incus-base, x"}, [], True),
        ("my-incus", {"Replaces": "incus-base"}, [], False),  # takes over files, and lives beside it
        ("my-incus", {"Conflicts": "incus-base"}, [], False),
        ("anything", {}, ["/usr/libexec/incus/incusd"], True),
        ("anything", {}, ["/usr/libexec/incus/incusd.conf"], False),
        ("old-name", {"Provides": "virt"}, [], False),
    ],
)
def test_what_comes_in_its_place(
    tmp_path: Path, name: str, fields: Mapping[str, str], files: Sequence[str], replaces: bool
) -> None:
    comes = [deb(tmp_path, "bystander", {"Depends": "incus-base"}), deb(tmp_path, name, fields, files)]
    assert replacement(load("incus"), ["incus-base"], comes) == (name if replaces else "")


def test_a_package_that_only_goes_is_no_replacement(tmp_path: Path) -> None:
    assert replacement(load("incus"), ["incus-base", "incus"], [Arriving("incus", "1", "/nowhere")]) == ""
    (tmp_path / "broken.deb").write_bytes(b"!<arch>\nnothing")
    assert replacement(load("incus"), ["incus-base"], [Arriving("x", "1", str(tmp_path / "broken.deb"))]) == ""


def test_a_purge_under_apt_is_told_by_what_is_on_the_disk(world: dict[str, State], tmp_path: Path) -> None:
    status = tmp_path / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    host = Host(str(tmp_path))
    world["incus-base"] = State("deinstall", "half-configured")
    for want in ("purge", "deinstall"):
        status.write_text(
            "Package: a\nStatus: purge ok installed\n\n"
            f"Package: incus-base\nPriority: optional\nStatus: {want} ok installed\nVersion: 1\n"
        )
        locked = dpkg_run("--remove incus-base", "", True)
        assert transaction.is_purge(host, "incus-base", locked) == (want == "purge")
        assert not transaction.is_purge(host, "incus-base", dpkg_run("-r incus-base", ""))
    world["incus-base"] = State("purge", "half-configured")
    assert transaction.is_purge(host, "incus-base", dpkg_run("-P incus-base", ""))
