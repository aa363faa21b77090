"""The settings: what the file says, and that a hook's grep and the parser never disagree about the kill switch."""

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import fields
from itertools import product
from pathlib import Path

import pytest

from leftovers import conf
from leftovers.conf import PATH, Settings
from leftovers.host import Host

TOP = Path(__file__).parents[2]
GREP = "^[[:space:]]*enabled[[:space:]]*=[[:space:]]*no"


def write(root: Path, data: bytes) -> Host:
    file = root / PATH[1:]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return Host(str(root))


def said(text: str) -> tuple[Settings, list[str]]:
    return conf.parse(text.encode())


def grep(path: str, locale: str = "C") -> bool:
    """What a hook does: 0 is found; 1 and 2 (cannot be read) are not."""
    command = ["grep", "-qs", GREP, path]
    return subprocess.run(command, env={"PATH": os.environ["PATH"], "LC_ALL": locale}, check=False).returncode == 0


def test_an_absent_file_is_the_defaults_and_nothing_is_said(tmp_path: Path) -> None:
    assert conf.read(Host(str(tmp_path))) == (Settings(), [])
    assert Settings() == Settings(True, "report", 30, False, True)


def test_every_key() -> None:
    text = """\
# a comment

enabled = no
  on_remove=sweep\t# a trailing comment
\tstop_timeout\t=\t600\r
refuse_if_running = yes#close
arrivals = no
"""
    assert said(text) == (Settings(False, "sweep", 600, True, False), [])


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("on_remove = delete", "on_remove is not report or sweep, ignored: 'delete'"),
        ("on_remove =", "on_remove is not report or sweep, ignored: ''"),
        ("on_remove", "not a line of key = value: 'on_remove'"),
        ("stop_timeout = 601", "stop_timeout is not a number of seconds from 0 to 600, ignored: '601'"),
        ("stop_timeout = -1", "stop_timeout is not a number of seconds from 0 to 600, ignored: '-1'"),
        ("stop_timeout = 1.5", "stop_timeout is not a number of seconds from 0 to 600, ignored: '1.5'"),
        ("stop_timeout = ٣", "stop_timeout is not a number of seconds from 0 to 600, ignored: '\\u0663'"),
        ("stop_timeout = 1_0", "stop_timeout is not a number of seconds from 0 to 600, ignored: '1_0'"),
        ("refuse_if_running = Yes", "refuse_if_running is not yes or no, ignored: 'Yes'"),
        ("enabled = No", "enabled is not yes or no, ignored: 'No'"),
        ("enabled = off", "enabled is not yes or no, ignored: 'off'"),
        ("Enabled = no", "unknown key 'Enabled'"),
        ("[leftovers]", "not a line of key = value: '[leftovers]'"),
        ("= yes", "unknown key ''"),
        ("x\x1b[2J = 1", "unknown key 'x\\x1b[2J'"),
        ("a" * 50 + " = 1", f"unknown key '{'a' * 40}...'"),
    ],
)
def test_what_is_not_understood_is_told_with_its_line_and_the_default_stands(line: str, cause: str) -> None:
    assert said(f"\n{line}\n") == (Settings(), [f"{PATH}:2: {cause}"])


def test_the_bounds_of_the_timeout() -> None:
    assert [said(f"stop_timeout = {n}")[0].stop_timeout for n in ("0", "007", "600")] == [0, 7, 600]


def test_a_key_that_is_set_twice() -> None:
    cause = "was set to something else above"
    assert said("stop_timeout = 5\nstop_timeout = 6\n") == (
        Settings(stop_timeout=6),
        [f"{PATH}:2: stop_timeout {cause}: this counts"],
    )
    assert said("enabled = no\nenabled = yes\n") == (
        Settings(enabled=False),
        [f"{PATH}:2: enabled {cause}: no counts"],
    )
    assert said("enabled = yes\nenabled = no\nenabled = no\n") == (Settings(enabled=False), [])
    assert said("stop_timeout = x\nstop_timeout = 5\nstop_timeout = 5\n")[0] == Settings(stop_timeout=5)


def test_a_bad_line_spoils_no_good_one() -> None:
    settings, warnings = said("nonsense\nstop_timeout = 5\non_remove = x\narrivals = no\n")
    assert settings == Settings(stop_timeout=5, arrivals=False) and len(warnings) == 2


@pytest.mark.parametrize(
    "data", [b"\xff\xfe = \xff", b"\x00" * 100, bytes(range(256)) * 9, b"\xef\xbb\xbfenabled = no"]
)
def test_rubbish_is_told_in_a_line_that_can_be_printed(data: bytes) -> None:
    for line in conf.parse(data)[1]:
        assert line.isascii() and line.isprintable()


def test_rubbish_without_end_is_not_told_without_end() -> None:
    _, warnings = said("x\n" * 1000)
    assert len(warnings) == conf.WARNINGS + 1 and warnings[-1] == f"{PATH}: and 980 more lines that were not understood"


def test_at_most_64_kib_are_read(tmp_path: Path) -> None:
    filler = b"#" * (conf.LIMIT - len(b"\nstop_timeout = 60"))
    whole = write(tmp_path, filler + b"\nstop_timeout = 60")
    assert conf.read(whole) == (Settings(stop_timeout=60), [])
    cut = write(tmp_path, filler + b"\nstop_timeout = 600\nenabled = no\n")
    assert conf.read(cut) == (Settings(), [f"{PATH}: larger than 64 KiB: the rest was not read"])


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink(path, path)])
def test_what_is_no_file_is_told_and_not_waited_for(tmp_path: Path, make: Callable[[str], None]) -> None:
    host = write(tmp_path, b"")
    os.unlink(host.path(PATH))
    make(host.path(PATH))
    settings, (warning,) = conf.read(host)
    assert settings == Settings() and warning.startswith(f"{PATH}: ") and "defaults are in effect" in warning


def lines() -> list[bytes]:
    """Lines that set the switch in every spelling, and lines that only look like it."""
    spellings = product(
        (b"", b" ", b"\t", b"\v", b"\f", b"\r", b"#", b"# ", b"x", b"\xc2\xa0", b"\xff", b"\0", b"\xef\xbb\xbf"),
        (b"enabled", b"Enabled", b"ENABLED", b"enable", b"disabled", b"en abled", b"enabled#", b'"enabled"'),
        (b"=", b" = ", b"\t=\t", b"\r=\v\f", b"==", b":", b" ", b"", b"= #", b"# =", b"=\0", b"=\xe2\x80\x83"),
        (b"no", b"No", b"NO", b"yes", b"n", b"", b"none", b"no # x", b"no\r", b"no#", b'"no"', b"yes no", b"no\xff"),
    )
    return [b"".join(parts) for parts in spellings]


def test_the_parser_agrees_with_the_grep_of_the_hooks(tmp_path: Path) -> None:
    # One file would say it of any of its lines only; one grep for each would take minutes: -c of numbered files does.
    table = lines()
    for number, line in enumerate(table):
        (tmp_path / f"{number}").write_bytes(b"# settings\n" + line + b"\narrivals = yes\n")
    names = "\0".join(str(number) for number in range(len(table)))
    found = subprocess.run(
        ["xargs", "-0", "grep", "-ls", GREP],
        input=names,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    disabled = {int(name) for name in found.stdout.split()}
    assert 50 < len(disabled) < len(table) / 2
    for number, line in enumerate(table):
        settings, _ = conf.parse(b"# settings\n" + line + b"\narrivals = yes\n")
        assert settings.enabled is (number not in disabled), line


@pytest.mark.parametrize(
    ("data", "enabled"),
    [
        (b"", True),
        (b"enabled = no", False),
        (b"enabled = no\r\n", False),
        (b"\r\nenabled = no # for now\r\n", False),
        (b"enabled = yes\r\n", True),
        (b"arrivals = no\n", True),
        (b"# enabled = no\n", True),
        (b"enabled = yes # enabled = no\n", True),
        (b"enabled = yes\nenabled = no\nenabled = yes\n", False),
        (b"enabled = nope\n", False),
        (b"enabled\n= no\n", True),
        (b"enabled =\nno\n", True),
        (b"x\renabled = no\n", True),
        (b"ENABLED = NO\n", True),
    ],
)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_the_kill_switch(tmp_path: Path, data: bytes, enabled: bool, locale: str) -> None:
    host = write(tmp_path, data)
    assert conf.read(host)[0].enabled is enabled
    assert grep(host.path(PATH), locale) is not enabled


def test_the_file_that_is_shipped_says_the_defaults() -> None:
    text = (TOP / "debian/leftovers.conf").read_text()
    assert said(text) == (Settings(), [])
    # Each setting stands there, commented out, with its default.
    settings, warnings = said(re.sub(r"(?m)^#(?=\w+ = )", "", text))
    assert (settings, warnings) == (Settings(), [])
    assert set(re.findall(r"(?m)^#(\w+) = ", text)) == {field.name for field in fields(Settings)} == set(conf.KEYS)
    assert "debian/leftovers.conf etc/leftovers" in (TOP / "debian/leftovers.install").read_text().split("\n")


def test_the_manual_names_every_setting_with_its_default() -> None:
    text = (TOP / "docs/man/leftovers.conf.5").read_text()
    said = {
        item.partition(" ")[0]: re.findall(r"^The default is\n\.Cm (\S+) \.$", item, re.MULTILINE)
        for item in text.partition(".Sh SETTINGS")[2].partition(".Sh ")[0].split(".It Cm ")[1:]
    }
    shown = {True: "yes", False: "no"}
    assert said == {
        field.name: [shown[field.default] if isinstance(field.default, bool) else str(field.default)]
        for field in fields(Settings)
    }
    assert "docs/man/leftovers.conf.5" in (TOP / "debian/leftovers.manpages").read_text().split()
