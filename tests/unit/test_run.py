"""The one way to run another program."""

import time
from pathlib import Path

import pytest

import leftovers.run
from leftovers.errors import ToolFault, ToolMissing, ToolTimeout
from leftovers.run import run


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(leftovers.run, "DIRECTORIES", (str(tmp_path),))
    path = tmp_path / "tool"
    path.touch(mode=0o755)
    return path


def test_arguments_and_input_arrive_as_they_are(tool: Path) -> None:
    tool.write_text('#!/bin/sh\nprintf "%s|" "$@"; cat\n')
    assert run(["tool", "a b", "$(id)", "c\nd"], stdin="in").out == "a b|$(id)|c\nd|in"


def test_the_environment_is_ours(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/evil.so")
    monkeypatch.setenv("PATH", "/evil")
    tool.write_text("#!/bin/sh\n/usr/bin/env\n")
    said = run(["tool"]).out
    assert "evil" not in said and "LC_ALL=C.UTF-8" in said


def test_a_missing_tool_names_its_package(tool: Path) -> None:
    with pytest.raises(ToolMissing, match="apt install nftables"):
        run(["nft"], package="nftables")


def test_a_failure_tells_the_first_line_of_stderr(tool: Path) -> None:
    tool.write_text("#!/bin/sh\necho >&2; echo no such thing >&2; echo more >&2; exit 3\n")
    with pytest.raises(ToolFault, match="no such thing"):
        run(["tool"])
    assert run(["tool"], success=(3,)).code == 3


def test_a_deadline_ends_the_tool_and_what_it_started(tool: Path) -> None:
    tool.write_text("#!/bin/sh\nsleep 60 &\nsleep 60\n")
    began = time.monotonic()
    with pytest.raises(ToolTimeout, match="did not end"):
        run(["tool"], timeout=0.3)
    assert time.monotonic() - began < 5


def test_output_that_is_not_utf8(tool: Path) -> None:
    tool.write_text("#!/bin/sh\nprintf 'a\\377b'\n")
    assert run(["tool"]).out == "a\udcffb"


def test_a_tool_of_our_snap_is_the_second_choice(tool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where we run out of a snap: the host's comes first, and what only the snap has is given its libraries."""
    tool.write_text("#!/bin/sh\nset | grep -e ^LD_ -e ^XTABLES; echo host\n")
    carried = tmp_path / f"snap{tmp_path}"
    carried.mkdir(parents=True)
    for name in ("tool", "other"):
        (carried / name).write_text("#!/bin/sh\necho $LD_LIBRARY_PATH; echo $XTABLES_LIBDIR\n")
        (carried / name).chmod(0o755)
    with pytest.raises(ToolMissing):
        run(["other"])
    monkeypatch.setattr(leftovers.run, "SNAP", str(tmp_path / "snap"))
    assert run(["tool"]).out == "host\n"
    libraries, extensions = run(["other"]).out.split()
    assert libraries.startswith(f"{tmp_path}/snap/usr/lib/") and extensions == f"{libraries}/xtables"
