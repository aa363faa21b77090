"""Files of strangers: no symlink, no FIFO, no device, no end without a limit."""

from __future__ import annotations

import os
import pathlib

import pytest

from leftovers.errors import Unreadable
from leftovers.evidence import files
from leftovers.host import Host


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "d/sub/file").write_bytes(b"text")
    return Host(str(tmp_path))


def test_read(host: Host) -> None:
    assert files.read(host, "/d", "sub/file", 100) == b"text"
    assert files.read(host, "/d", "sub/none", 100) is None
    assert files.read(host, "/none", "sub", 100) is None
    assert files.read(host, "/d", "sub/file/below-a-file", 100) is None


def test_read_is_whole_or_not_at_all(host: Host) -> None:
    assert files.read(host, "/d", "sub/file", 4) == b"text"
    with pytest.raises(Unreadable, match="larger than"):
        files.read(host, "/d", "sub/file", 3)


def test_only_the_base_may_be_a_symlink(host: Host) -> None:
    os.symlink("d", host.path("/base"))
    os.symlink("sub", host.path("/d/link"))
    os.symlink("file", host.path("/d/sub/link"))
    assert files.read(host, "/base", "sub/file", 100) == b"text"
    for below in ("link/file", "sub/link", "../d/sub/file", "sub/../../d/sub/file"):
        with pytest.raises(Unreadable):
            files.read(host, "/d", below, 100)
    faults: list[str] = []
    assert files.directories(host, "/d", "", faults) == ["sub"] and not faults
    assert files.entries(host, "/d", "link", faults) == [] and len(faults) == 1


def test_not_a_regular_file(host: Host) -> None:
    os.mkfifo(host.path("/d/fifo"))
    for below in ("fifo", "sub"):
        with pytest.raises(Unreadable, match="not a regular file"):
            files.read(host, "/d", below, 100)
    faults: list[str] = []
    assert files.entries(host, "/d", "fifo", faults) == []
    assert faults == ["/d/fifo: Not a directory"]


def test_entries(host: Host) -> None:
    faults: list[str] = []
    with open(os.path.join(os.fsencode(host.path("/d")), b"bad\xff\nname"), "wb"):
        pass
    os.symlink("/", host.path("/d/link"))
    assert files.entries(host, "/d", "", faults) == [("link", False), ("sub", True)]
    assert len(faults) == 1 and faults[0].startswith("/d: has an entry with an impossible name 'bad\\udcff\\nname'")


def test_entries_have_an_end(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ENTRIES", 3)
    for number in range(5):
        os.mkdir(host.path(f"/d/sub/{number}"))
    faults: list[str] = []
    assert len(files.entries(host, "/d", "sub", faults)) == 3
    assert faults == ["/d/sub: more than 3 entries"]


def test_faults_have_an_end() -> None:
    faults: list[str] = []
    for number in range(1000):
        files.note(faults, f"file\n{number}", "cause")
    assert len(faults) == files.FAULTS + 1
    assert faults[0] == "file\\n0: cause" and faults[-1].endswith("and more that could not be read")


def test_is_name() -> None:
    assert all(map(files.is_name, ("c1", "incusbr0", "my.pool", "a b", "Ä")))
    assert not any(map(files.is_name, ("", ".", "..", "a/b", "a\nb", "a\0", "a\udcff", "x" * 256, None, 1, ["c1"])))
