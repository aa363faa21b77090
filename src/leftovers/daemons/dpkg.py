"""What dpkg knows, asked from dpkg-query: it alone merges the journal of a run that is under way.

python-debian reads the status file, which is stale in the middle of a transaction (facts: package-managers, 2).
"""

from __future__ import annotations

from collections.abc import Sequence

from leftovers.errors import ToolMissing
from leftovers.run import run

__all__ = ["owners", "status"]


def status(packages: Sequence[str]) -> dict[str, str]:
    """The state of each package that dpkg has heard of: installed, config-files, half-installed ... (dpkg-query(1),
    db:Status-Status). Raises ToolFault; a host without dpkg has none."""
    try:
        said = run(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\\n", "--", *packages], success=(0, 1))
    except ToolMissing:
        return {}
    return dict(line.split(" ", 1) for line in said.out.splitlines() if " " in line)


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
