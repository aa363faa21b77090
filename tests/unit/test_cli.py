"""The command line before it looks at anything."""

import subprocess
import sys
from pathlib import Path

import pytest

from leftovers import cli
from leftovers.errors import Fault, Refusal

SOURCE = Path(__file__).parents[2] / "src"


def run(*argv: str, code: str = "") -> subprocess.CompletedProcess[str]:
    program = code or "import sys; from leftovers.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(SOURCE)!r}); {program}", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["nonsense"],
        ["plan"],
        ["clean"],
        ["record"],
        ["explain"],
        ["plan", "windows"],
        ["tree", "windows"],
        ["pl", "incus"],
        ["scan", "--ex"],
        ["clean", "--orphans", "--data"],
        ["clean", "--orphans", "--force", "incus"],
        ["scan", "--orphans", "--older-than", "-1"],
        ["scan", "--orphans", "--older-than", "soon"],
        ["scan", "--orphans", "--older-than", "nan"],
    ],
)
def test_usage(argv: list[str]) -> None:
    assert run(*argv).returncode == 2


def test_an_unknown_product_is_told_which_there_are() -> None:
    assert "choose from incus" in run("plan", "docker2").stderr


def test_help_begins_with_what_people_do() -> None:
    said = run("--help").stdout
    assert "leftovers clean incus" in said and "exit status" in said
    for command in ("scan", "plan", "clean", "verify", "explain", "tree", "resume", "record"):
        assert run(command, "--help").returncode == 0


def test_options_may_stand_before_and_after_the_command() -> None:
    before = cli.parser().parse_args(["--json", "plan", "incus"])
    after = cli.parser().parse_args(["plan", "incus", "--json"])
    assert before.json is after.json is True


def test_nothing_heavy_is_imported_for_help_and_version() -> None:
    code = (
        "from leftovers.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "heavy = {'pyroute2', 'psutil', 'nftables', 'yaml', 'sqlite3', 'ctypes', 'json'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    code = code.replace("\n", "\n")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(SOURCE)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_somebody_who_is_not_root_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert cli.main(["scan"]) == 4
    assert "sudo leftovers scan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (Fault("link eth0", "is busy", "ip link"), 1, "leftovers: link eth0: is busy (ip link)\n"),
        (Refusal("clean", "no"), 4, "leftovers: clean: no\n"),
        (Fault("two\nlines", "x"), 1, "leftovers: two\\nlines: x\n"),
        (KeyboardInterrupt(), 130, "leftovers: interrupted\n"),
        (ValueError("odd\nthing"), 1, "leftovers: ValueError: odd thing (leftovers --debug scan ... shows where)\n"),
    ],
)
def test_a_fault_is_one_line_and_a_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, said: str
) -> None:
    def scan(arguments: object) -> int:
        raise error

    from leftovers import commands

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(commands, "scan", scan)
    assert cli.main(["scan"]) == status
    assert capsys.readouterr().err == said


def test_a_traceback_reaches_the_user_with_debug_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from leftovers import commands

    def scan(arguments: object) -> int:
        raise ValueError("odd")

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(commands, "scan", scan)
    with pytest.raises(ValueError, match="odd"):
        cli.main(["--debug", "scan"])
