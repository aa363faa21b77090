"""What the hooks of one run tell each other, and the line that a person reads at its end."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from leftovers import removal, report
from leftovers.errors import Refusal
from leftovers.host import Host
from leftovers.model import Action, Object, Verb
from leftovers.removal import Apt, Going, Removal
from leftovers.watcher import Watched, start_time

ME = Watched(os.getpid(), start_time(Host(), os.getpid()))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "run").mkdir()
    (tmp_path / "proc").symlink_to("/proc")
    return Host(str(tmp_path))


def test_what_is_written_is_read(host: Host) -> None:
    going = Going(("incus-base",), True, True, 10, 3, True, {"link": 2}, 1.5)
    under_way = Removal(ME, {"incus": going}, {"incus": "incus"})
    assert removal.read(host) is None
    removal.write(host, under_way)
    assert removal.read(host) == under_way
    assert os.stat(host.path(removal.DIRECTORY)).st_mode & 0o777 == 0o700
    assert os.stat(host.path(removal.REMOVAL)).st_mode & 0o777 == 0o600
    removal.forget(host, removal.REMOVAL)
    removal.forget(host, removal.REMOVAL)
    assert removal.read(host) is None


def test_only_the_apt_that_we_descend_from_counts(host: Host) -> None:
    assert removal.read_apt(host, os.getpid()) is None
    removal.write_apt(host, Apt(ME, {"incus": "my-incus"}))
    assert removal.read_apt(host, os.getpid()) == Apt(ME, {"incus": "my-incus"})
    for other in (replace(ME, start=ME.start + 1), replace(ME, pid=2**22 + 1)):
        removal.write_apt(host, Apt(other, {"incus": "my-incus"}))
        assert removal.read_apt(host, os.getpid()) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"owner": 3}', '{"owner": {"pid": 1, "start": 1}, "going": {"x": {}}, "meta": {}}']
)
def test_what_is_no_record_is_none(host: Host, text: str) -> None:
    removal.write(host, Removal(ME))
    Path(host.path(removal.REMOVAL)).write_text(text)
    Path(host.path(removal.APT)).write_text(text)
    assert removal.read(host) is None and removal.read_apt(host, os.getpid()) is None


def test_somebody_elses_directory_is_not_believed(host: Host) -> None:
    removal.write(host, Removal(ME))
    os.chown(host.path(removal.DIRECTORY), 1, 1)
    assert removal.read(host) is None


def test_what_cannot_be_written_is_refused(host: Host) -> None:
    Path(host.path(removal.DIRECTORY)).write_text("a file is in the way")
    with pytest.raises(Refusal):
        removal.write(host, Removal(ME))


def keep(path: str, data: bool) -> Action:
    advice = "leftovers clean incus --data" if data else ""
    return Action(Verb.KEEP, Object("file", path, (1,)), "incus", "volumes of pool p: kept", (), advice=advice)


def test_one_line_tells_how_it_went() -> None:
    line = report.removal_line("Incus", "incus", {"link": 2, "process": 1}, 1.25, [keep("/srv/a\n", True)], [])
    assert line == (
        "Incus: 3 gone in 1.2 s (2 links, 1 processes); kept: /srv/a\\x0a (volumes of pool p; "
        "they go with: leftovers clean incus --data); nothing is left"
    )
    many = [keep(f"/srv/pool/{name}", True) for name in "abc"] + [keep("/etc/x", False)]
    left = [replace(keep("/x", False), verb=Verb.REMOVE)]
    line = report.removal_line("Incus", "incus", {}, 0.0, many, left)
    assert "kept: /srv/pool (3 directories)" in line and "1 more stays on purpose" in line
    assert line.endswith("; 1 LEFT: leftovers verify incus") and "\n" not in line


@pytest.mark.parametrize(
    ("paths", "text"),
    [
        (["/a/b/c"], "/a/b/c"),
        (["/a/b/c", "/a/b/d"], "/a/b/c, /a/b/d"),
        (["/a/b/c", "/a/b/d", "/a/b/e/f"], "/a/b (3 directories)"),
        (["/a/b", "/c/d", "/e/f"], "/a/b, /c/d, /e/f"),
        (["/a/b", "/a/c", "/a/d"], "/a/b, /a/c, /a/d"),
    ],
)
def test_places_in_a_few_words(paths: list[str], text: str) -> None:
    assert report.places(paths) == text
