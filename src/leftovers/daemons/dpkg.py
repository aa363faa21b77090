"""What dpkg knows, asked from dpkg-query: it alone merges the journal of a run that is under way.

python-debian reads the status file, which is stale in the middle of a transaction (facts: package-managers, 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leftovers.daemons import prerm
from leftovers.errors import ToolMissing
from leftovers.host import Host
from leftovers.run import run

__all__ = ["INFO", "State", "owners", "scripts", "states", "status", "stops", "would_do"]

INFO = "/var/lib/dpkg/info"
# invoke-rc.d(8): what it says is not for us to guess.
POLICY = "/usr/sbin/policy-rc.d"


@dataclass(frozen=True, slots=True)
class State:
    """What dpkg has of a package: what is wanted of it (install, deinstall, purge ...) and what it is."""

    want: str
    status: str


def states(packages: Sequence[str]) -> dict[str, State]:
    """Each package that dpkg has heard of (dpkg-query(1), db:Status-Want, db:Status-Status); of one that is there for
    several architectures, the most that any of them is. Raises ToolFault; a host without dpkg has none."""
    if not packages:
        return {}
    shown = "${Package} ${db:Status-Want} ${db:Status-Status}\\n"
    try:
        said = run(["dpkg-query", "-W", "-f", shown, "--", *packages], success=(0, 1))
    except ToolMissing:
        return {}
    found: dict[str, State] = {}
    for line in said.out.splitlines():
        words = line.split(" ")
        if len(words) == 3 and (words[0] not in found or found[words[0]].status != "installed"):
            found[words[0]] = State(words[1], words[2])
    return found


def status(packages: Sequence[str]) -> dict[str, str]:
    """What each package that dpkg has heard of is: installed, config-files, half-installed ... Raises ToolFault."""
    return {package: state.status for package, state in states(packages).items()}


def owners(paths: Sequence[str]) -> dict[str, list[str]]:
    """The packages that own each of these files, by path; a file that nobody owns is left out. Raises ToolFault."""
    try:
        said = run(["dpkg-query", "-S", "--", *paths], success=(0, 1))
    except ToolMissing:
        return {}
    found: dict[str, list[str]] = {}
    for line in said.out.splitlines():
        names, _, path = line.rpartition(": ")
        if path in paths and not names.startswith("diversion "):
            found[path] = [name.strip().partition(":")[0] for name in names.split(",")]
    return found


def scripts(host: Host, package: str, script: str) -> list[str]:
    """Where dpkg has a maintainer script, also of a package that may be there for several architectures
    (info/PACKAGE:ARCH.SCRIPT)."""
    others = [name for name in host.listdir(INFO) if name.startswith(f"{package}:") and name.endswith(f".{script}")]
    return [f"{INFO}/{package}.{script}", *(f"{INFO}/{name}" for name in others)]


def stops(host: Host, package: str, unit: str) -> bool:
    """Whether the prerm of a package, called to remove it, stops a unit that is up (`deb-systemd-invoke stop` of
    debhelper, or `systemctl`)."""
    tools = ("systemctl",) if host.exists(POLICY) else ("systemctl", "deb-systemd-invoke")
    for path in scripts(host, package, "prerm"):
        try:
            text = host.read(path)
        except (OSError, ValueError):
            continue
        if prerm.stops(host, text, unit, tools):
            return True
    return False


def would_do(action: str, packages: Sequence[str]) -> bool:
    """Whether dpkg, asked to `remove` or `purge` these packages, would (dpkg(1), --no-act). Raises ToolFault.

    The hooks of a dpkg older than 1.22.7 run for that, too: the caller's own must tell (LEFTOVERS_SUSPEND is set)."""
    said = run(["dpkg", "--no-act", f"--{action}", "--", *packages], success=(0, 1, 2), suspended=True)
    return said.code == 0
