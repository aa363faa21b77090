"""The debhelper add-on: a sample package is built with it, and its scripts are run in every way that dpkg runs them.

No throwaway host is needed: the scripts that run are copies, in which every path leads into the test's directory.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ADDON = Path(__file__).resolve().parents[2] / "debian/debhelper"
SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"

# Packagers' own code may well say set -u. Each part of the script logs its name, so the log has the order.
SCRIPT = """\
#!/bin/sh
set -eu

echo "{name}: before" >>"$LOG"

#DEBHELPER#

echo "{name}: after" >>"$LOG"
"""

SAMPLE = {
    "control": """\
        Source: samplectr
        Section: admin
        Priority: optional
        Maintainer: Nobody <nobody@example.invalid>
        Build-Depends: debhelper-compat (= 13)@BUILD_DEPENDS@
        Standards-Version: 4.6.2
        Rules-Requires-Root: no

        Package: samplectr
        Architecture: all
        Depends: ${misc:Depends}
        Pre-Depends: ${misc:Pre-Depends}
        Recommends: leftovers
        Description: sample container product

        Package: samplectr-client
        Architecture: all
        Depends: ${misc:Depends}
        Description: package of the same source that is no product's daemon
        """,
    "rules": "#!/usr/bin/make -f\n%:\n\tdh $@@WITH@\n",
    "changelog": """\
        samplectr (1.0) unstable; urgency=medium

          * Sample.

         -- Nobody <nobody@example.invalid>  Fri, 20 Nov 2026 00:00:00 +0000
        """,
    "source/format": "3.0 (native)\n",
    "samplectr.leftovers": """\
        # the products of this package

        sample
        sample-two
        """,
    # Both: dh_installinit and dh_installsystemd each add code that stops it.
    "samplectr.service": """\
        [Service]
        ExecStart=/bin/true
        [Install]
        WantedBy=multi-user.target
        """,
    "samplectr.user.service": """\
        [Service]
        ExecStart=/bin/true
        [Install]
        WantedBy=default.target
        """,
    "samplectr.init": "#!/bin/sh\nexit 0\n",
    "samplectr.maintscript": "rm_conffile /etc/samplectr.old 0.9~ samplectr\n",
}


def write_source(top: Path, with_: str = "", build_depends: str = "", **files: str) -> Path:
    """The sample's source. files: more of debian/, a dot of the name written as two underscores."""
    for name, text in (SAMPLE | {name.replace("__", "."): text for name, text in files.items()}).items():
        path = top / "debian" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = re.sub("^ {8}", "", text, flags=re.MULTILINE)
        path.write_text(text.replace("@WITH@", with_).replace("@BUILD_DEPENDS@", build_depends))
    (top / "debian/rules").chmod(0o755)
    return top


def environment(tmp: Path) -> dict[str, str]:
    """What makes debhelper find the add-on in our sources, where it is not laid out as it is installed."""
    sequence = tmp / "perl/Debian/Debhelper/Sequence"
    if not sequence.exists():
        sequence.mkdir(parents=True)
        (sequence / "leftovers.pm").symlink_to(ADDON / "leftovers.pm")
        (tmp / "bin").mkdir()
        (tmp / "bin/dh_leftovers").symlink_to(ADDON / "dh_leftovers")
    return {
        "PATH": f"{tmp / 'bin'}:{SYSTEM}",
        "PERL5LIB": str(tmp / "perl"),
        "DH_AUTOSCRIPTDIR": str(ADDON),
        "HOME": str(tmp),
        "LC_ALL": "C.UTF-8",
    }


def run(argv: list[str], cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)


@dataclass
class Built:
    scripts: Path  # the control directory of samplectr's .deb
    client: Path
    output: str


def build(tmp: Path, with_: str = "", build_depends: str = "", **files: str) -> Built:
    source = write_source(tmp / "source", with_, build_depends, **files)
    done = run(["dpkg-buildpackage", "-b", "-d", "-us", "-uc"], source, environment(tmp))
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    for package in ("samplectr", "samplectr-client"):
        subprocess.run(["dpkg-deb", "-e", tmp / f"{package}_1.0_all.deb", tmp / package], check=True)
    return Built(tmp / "samplectr", tmp / "samplectr-client", output)


@pytest.fixture(
    scope="module",
    params=["with", "build-depends", "build-depends-indep", "no scripts of its own"],
)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sample, with each way to ask for the add-on."""
    tmp = tmp_path_factory.mktemp("built")
    own = {"samplectr__prerm": SCRIPT.format(name="prerm"), "samplectr__postrm": SCRIPT.format(name="postrm")}
    if request.param == "with":
        return build(tmp, with_=" --with leftovers", **own)
    if request.param == "build-depends":
        return build(tmp, build_depends=", dh-sequence-leftovers", **own)
    if request.param == "build-depends-indep":
        return build(tmp, build_depends="\nBuild-Depends-Indep: dh-sequence-leftovers", **own)
    return build(tmp, with_=" --with leftovers")


def order(script: str, *parts: str) -> list[str]:
    """The parts in the order in which they stand in the script; each must stand there once."""
    for part in parts:
        assert script.count(part) == 1, f"{part!r} is there {script.count(part)} times\n{script}"
    return sorted(parts, key=script.index)


def test_prerm_calls_us_before_anything_is_stopped(built: Built) -> None:
    script = (built.scripts / "prerm").read_text()
    parts = (
        "/usr/share/leftovers/hooks/maintainer prerm 'sample' ",
        "/usr/share/leftovers/hooks/maintainer prerm 'sample-two' ",
        "deb-systemd-invoke stop 'samplectr.service'",
        "invoke-rc.d --skip-systemd-native samplectr stop",
        "dpkg-maintscript-helper rm_conffile",
    )
    assert order(script, *parts) == list(parts)


def test_postrm_calls_us_before_what_debhelper_undoes_later(built: Built) -> None:
    script = (built.scripts / "postrm").read_text()
    # Each snippet has two calls: ours, and the saved copy's.
    parts = (
        "update-rc.d samplectr remove",
        "dpkg-maintscript-helper rm_conffile",
        "/usr/share/leftovers/hooks/maintainer postrm 'sample' ",
        "/usr/share/leftovers/hooks/maintainer postrm 'sample-two' ",
        "deb-systemd-helper --user purge 'samplectr.service'",
        "systemctl --system daemon-reload",
        "deb-systemd-helper purge 'samplectr.service'",
    )
    assert order(script, *parts) == list(parts)


def test_only_the_packages_that_say_so(built: Built) -> None:
    assert not (built.client / "prerm").exists() and not (built.client / "postrm").exists()
    assert not (built.client / "postinst").exists()
    assert "leftovers" not in (built.scripts / "preinst").read_text()


def test_postinst_calls_us_after_the_service_is_started(built: Built) -> None:
    script = (built.scripts / "postinst").read_text()
    parts = (
        "deb-systemd-invoke $_dh_action 'samplectr.service'",
        "/usr/share/leftovers/hooks/maintainer postinst 'sample' ",
        "/usr/share/leftovers/hooks/maintainer postinst 'sample-two' ",
    )
    assert order(script, *parts) == list(parts)


def test_scripts_are_valid_and_nobody_is_warned(built: Built) -> None:
    for script in ("prerm", "postrm", "postinst"):
        text = (built.scripts / script).read_text()
        assert "#DEBHELPER#" not in text and "#PRODUCT#" not in text
        subprocess.run(["sh", "-n", built.scripts / script], check=True)
    assert "dh_leftovers: warning" not in built.output


@dataclass
class Ran:
    status: int
    log: list[str]


Execute = Callable[..., Ran]


@pytest.fixture
def execute(built: Built, tmp_path: Path) -> Execute:
    """execute(script, arguments): run it beside stubs that log how they were called.

    maintainer, saved: what the launcher in the package and the copy in /run do, in sh; None: there is none.
    """
    log = tmp_path / "log"
    stubs = tmp_path / "stubs"
    system = tmp_path / "run/systemd/system"
    launchers = {
        "maintainer": tmp_path / "usr/share/leftovers/hooks/maintainer",
        "saved": tmp_path / "run/leftovers/saved/hooks/maintainer",
    }
    commands = ("deb-systemd-invoke", "deb-systemd-helper", "systemctl", "invoke-rc.d", "update-rc.d")
    files = [stubs / command for command in (*commands, "dpkg-maintscript-helper")]
    files += [tmp_path / "etc/init.d/samplectr", tmp_path / "usr/bin/deb-systemd-helper"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f'#!/bin/sh\necho "{file.name} $1" >>"$LOG"\n')
        file.chmod(0o755)
    system.mkdir(parents=True)

    def execute(
        script: str,
        arguments: str,
        maintainer: str | None = "exit 0",
        saved: str | None = None,
        mode: int = 0o755,
        **env: str,
    ) -> Ran:
        for name, body in (("maintainer", maintainer), ("saved", saved)):
            launcher = launchers[name]
            launcher.unlink(missing_ok=True)
            if body is not None:
                launcher.parent.mkdir(parents=True, exist_ok=True)
                launcher.write_text(f'#!/bin/sh\necho "{name} $*" >>"$LOG"\n{body}\n')
                launcher.chmod(mode)
        text, moved = re.subn(r"(?<![\w.])/(?=(?:usr|run|etc)/)", f"{tmp_path}/", (built.scripts / script).read_text())
        # The rest are the shell and /dev/null: nothing of the host that the tests run on is reached.
        assert moved and set(re.findall(r"(?<![\w.])/[\w.-]+", text)) <= {"/bin", "/dev", f"/{tmp_path.parts[1]}"}
        copy = tmp_path / script
        copy.write_text(text)
        copy.chmod(0o755)
        log.write_text("")
        # dpkg always sets DPKG_ROOT, and the code of newer debhelpers relies on it.
        env = {"PATH": f"{stubs}:/usr/bin:/bin", "LOG": str(log), "DPKG_ROOT": ""} | env
        done = run([str(copy), *arguments.split()], tmp_path, env)
        return Ran(done.returncode, log.read_text().splitlines())

    return execute


ANY = pytest.mark.parametrize(
    "launcher",
    [
        {"maintainer": "exit 0"},
        {"maintainer": "exit 1"},
        {"maintainer": "exit 2"},
        {"maintainer": "exit 127"},
        {"maintainer": "kill -9 $$"},
        {"maintainer": "exit 10"},
        {"maintainer": "exit 0", "mode": 0o644},
        {"maintainer": None},
        {"maintainer": None, "saved": "exit 1"},
        {"maintainer": "exit 0", "saved": "exit 1"},
    ],
    ids=lambda launcher: ",".join(f"{k}={v}" for k, v in launcher.items()),
)


def callers(ran: Ran) -> list[str]:
    """Our launcher's calls."""
    return [line for line in ran.log if line.startswith(("maintainer ", "saved "))]


@ANY
def test_prerm_remove(execute: Execute, launcher: dict[str, Any]) -> None:
    ran = execute("prerm", "remove", **launcher)
    others = [line for line in ran.log if line not in callers(ran)]
    if launcher["maintainer"] is None or "mode" in launcher:
        products = ("sample", "sample-two") if launcher.get("saved") else ()
        called = [f"saved prerm {product} remove" for product in products]
    elif launcher["maintainer"] == "exit 10":
        # The veto: nothing was stopped, and what comes after was not begun.
        called = ["maintainer prerm sample remove"]
        assert ran.status == 10 and others in ([], ["prerm: before"])
        return
    else:
        called = ["maintainer prerm sample remove", "maintainer prerm sample-two remove"]
    assert ran.status == 0
    assert callers(ran) == called
    stops = ["deb-systemd-invoke stop", "invoke-rc.d --skip-systemd-native", "dpkg-maintscript-helper rm_conffile"]
    assert others in (stops, ["prerm: before", *stops, "prerm: after"])
    if called:
        assert ran.log.index(called[-1]) < ran.log.index(stops[0])


@ANY
def test_postinst_abort_remove(execute: Execute, launcher: dict[str, Any]) -> None:
    ran = execute("postinst", "abort-remove", **launcher)
    if launcher["maintainer"] is not None and "mode" not in launcher:
        name = "maintainer"
    else:
        name = "saved" if launcher.get("saved") else None
    assert ran.status == 0
    products = ("sample", "sample-two") if name else ()
    assert callers(ran) == [f"{name} postinst {product} abort-remove" for product in products]
    if name:
        started = [line for line in ran.log if line.startswith("deb-systemd-invoke")]
        assert started and ran.log.index(callers(ran)[0]) > ran.log.index(started[-1])


@ANY
@pytest.mark.parametrize("action", ["remove", "purge"])
def test_postrm(execute: Execute, launcher: dict[str, Any], action: str) -> None:
    ran = execute("postrm", action, **launcher)
    if launcher["maintainer"] is not None and "mode" not in launcher:
        name = "maintainer"
    else:
        name = "saved" if launcher.get("saved") else None
    assert ran.status == 0
    products = ("sample", "sample-two") if name else ()
    assert callers(ran) == [f"{name} postrm {product} {action}" for product in products]
    last = "systemctl --system" if action == "remove" else "deb-systemd-helper purge"
    assert last in ran.log
    if name:
        assert ran.log.index(callers(ran)[-1]) < ran.log.index(last)


# Every other call that dpkg makes, with its arguments (Debian policy 6.5).
@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("prerm", "remove in-favour another 1"),
        ("prerm", "upgrade 2"),
        ("prerm", "failed-upgrade 1 2"),
        ("prerm", "deconfigure in-favour another 1"),
        ("prerm", "deconfigure in-favour another 1 removing third 2"),
        ("postrm", "upgrade 2"),
        ("postrm", "failed-upgrade 1 2"),
        ("postrm", "disappear another 1"),
        ("postrm", "abort-install"),
        ("postrm", "abort-install 1 2"),
        ("postrm", "abort-upgrade 1 2"),
        ("postinst", "configure"),
        ("postinst", "configure 1"),
        ("postinst", "abort-upgrade 2"),
        ("postinst", "abort-deconfigure in-favour another 1"),
    ],
)
def test_what_is_no_removal(execute: Execute, script: str, arguments: str) -> None:
    ran = execute(script, arguments, maintainer="exit 10", saved="exit 10")
    assert ran.status == 0 and not callers(ran)


@pytest.mark.parametrize(("script", "arguments"), [("prerm", "remove"), ("postrm", "remove"), ("postrm", "purge")])
def test_another_root_is_not_this_host(execute: Execute, script: str, arguments: str) -> None:
    ran = execute(script, arguments, maintainer="exit 10", saved="exit 10", DPKG_ROOT="/mnt/target")
    assert ran.status == 0 and not callers(ran)


def dh_leftovers(tmp: Path, *argv: str, **files: str) -> subprocess.CompletedProcess[str]:
    """The command alone, in the sample's source."""
    source = write_source(tmp / "source", **files)
    return run(["dh_leftovers", *argv], source, environment(tmp))


def added(tmp: Path) -> dict[str, list[str]]:
    """For each package the products in the code that is added to its prerm and postrm."""
    debian = tmp / "source/debian"
    products: dict[str, list[str]] = {}
    for prerm in sorted(debian.glob(".debhelper/generated/*/prerm.service")):
        package = prerm.parent.name
        products[package] = re.findall(r"share/leftovers/hooks/maintainer prerm '(.*?)'", prerm.read_text())
        postrm = (debian / f"{package}.postrm.debhelper").read_text()
        assert re.findall(r"share/leftovers/hooks/maintainer postrm '(.*?)'", postrm) == products[package]
    return products


def test_products_come_from_the_file_and_from_the_option(tmp_path: Path) -> None:
    done = dh_leftovers(tmp_path, "-psamplectr", "--product=other", "--product=sample")
    assert done.returncode == 0, done.stderr
    assert added(tmp_path) == {"samplectr": ["other", "sample", "sample-two"]}


def test_the_option_holds_for_all_packages_that_are_acted_on(tmp_path: Path) -> None:
    done = dh_leftovers(tmp_path, "--product=sample", samplectr__leftovers="# none yet\n")
    assert done.returncode == 0, done.stderr
    assert added(tmp_path) == {"samplectr": ["sample"], "samplectr-client": ["sample"]}


@pytest.mark.parametrize("argv", [["-n"], ["-psamplectr-client"], ["--no-act"]])
def test_nothing_is_added(tmp_path: Path, argv: list[str]) -> None:
    done = dh_leftovers(tmp_path, *argv)
    assert done.returncode == 0, done.stderr
    assert added(tmp_path) == {}


@pytest.mark.parametrize(
    "word",
    ["Sample", "sam_ple", "sample other", "sample # why", "-x", "../sample", "'; rm -r /; '", "$(id)", "a\u0301"],
)
def test_a_word_that_is_no_product(tmp_path: Path, word: str) -> None:
    done = dh_leftovers(tmp_path, samplectr__leftovers=f"sample\n{word}\n")
    assert done.returncode != 0
    assert "samplectr.leftovers: " in done.stderr and "is not the name of a product" in done.stderr
    assert added(tmp_path) == {}


@pytest.mark.parametrize("argv", [["--product=/x"], ["--product", "a b"], ["--product=sample\n"]])
def test_an_option_that_is_no_product(tmp_path: Path, argv: list[str]) -> None:
    done = dh_leftovers(tmp_path, "-psamplectr", *argv)
    assert done.returncode != 0 and "is not the name of a product" in done.stderr
    assert added(tmp_path) == {}


TOO_EARLY = {
    "postrm": [
        "rm -rf /var/lib/sample",
        "rm -f -r /var/lib/sample",
        "rm -Rf --one-file-system /var/lib/sample || true",
        "\t[ -d /var/lib/sample ] && rm --recursive /var/lib/sample",
        "rm \\\n  -rf \\\n  /var/lib/sample",
    ],
    "prerm": [
        "systemctl stop samplectr.service",
        "systemctl --quiet disable --now samplectr.service",
        "deb-systemd-invoke stop samplectr.service || true",
        "\tinvoke-rc.d samplectr stop",
        "service samplectr stop || exit $?",
    ],
}
HARMLESS = {
    "postrm": [
        "# rm -rf /var/lib/sample",
        "rm -f /etc/sample-r.conf; ls -r",
        "rm --force /run/sample.pid",
        "dpkg-maintscript-helper rm_conffile /etc/x -- -r",
        "ucf --confirm -r",
    ],
    "prerm": [
        "# systemctl stop samplectr.service",
        "systemctl is-active samplectr.service; echo stop",
        "systemctl try-restart samplectr.service",
        "deb-systemd-helper stop-updates",
    ],
}


@pytest.mark.parametrize(("script", "line"), [(s, line) for s in TOO_EARLY for line in TOO_EARLY[s]])
def test_code_that_stands_too_early_is_told(tmp_path: Path, script: str, line: str) -> None:
    head, token = "#!/bin/sh\nset -e\n", "#DEBHELPER#\n"
    early = dh_leftovers(tmp_path / "early", **{f"samplectr__{script}": f"{head}{line}\n{token}"})
    assert early.returncode == 0 and "stands before #DEBHELPER#" in early.stderr
    late = dh_leftovers(tmp_path / "late", **{f"samplectr__{script}": f"{head}{token}{line}\n"})
    assert late.returncode == 0 and late.stderr == ""


@pytest.mark.parametrize(("script", "line"), [(s, line) for s in HARMLESS for line in HARMLESS[s]])
def test_harmless_code_is_not_told(tmp_path: Path, script: str, line: str) -> None:
    done = dh_leftovers(tmp_path, **{f"samplectr__{script}": f"#!/bin/sh\n{line}\n#DEBHELPER#\n"})
    assert done.returncode == 0 and done.stderr == ""


def test_a_script_without_a_place_for_the_code_is_told(tmp_path: Path) -> None:
    done = dh_leftovers(tmp_path, samplectr__postrm="#!/bin/sh\nexit 0\n")
    assert done.returncode == 0 and "postrm has no #DEBHELPER#" in done.stderr
