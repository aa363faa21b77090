"""systemd units that are up or have failed, also those whose unit file is long gone ("not-found active")."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from typing import ClassVar

from leftovers.errors import Fault, ToolTimeout
from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.kinds.processes import kill_groups
from leftovers.model import Deadline, Listing, Object, Verb
from leftovers.run import run

__all__ = ["Units"]

PROPERTIES = ("Id", "LoadState", "ActiveState", "SubState", "FragmentPath", "ControlGroup", "InvocationID", "MainPID")
# A daemon that is asked to stop gets this long; systemd's own limit may be ten minutes (incus-startup.service).
STOP = 20.0


class Units(Kind):
    """Facts of a unit: unit, load, active, sub, file, stands (whether that file is there; systemd may not have noticed
    that it went), cgroup, pid. Only units that are not inactive are listed: those that a product declared, and those
    that are active though systemd finds no file for them.
    `group`, when a product put it there, is the unit's cgroup as [path, directory, inode]: all in it are ended at once
    before it is stopped, for they would not heed to be asked."""

    name: ClassVar[str] = "unit"
    title: ClassVar[str] = "units"
    settle: ClassVar[float] = 5.0

    def survey(self, look: Look) -> Listing:
        if not look.host.exists("/run/systemd/system") or look.host.root:
            return Listing()  # sd_booted(3): another init
        try:
            listed = json.loads(run(["systemctl", "list-units", "--all", "--full", "--output=json"]).out or "[]")
            names = [
                unit["unit"]
                for unit in listed
                if unit["active"] != "inactive"
                and (unit["load"] == "not-found" or matches(unit["unit"], look.scope.units))
            ]
            shown = run(["systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", *names]).out if names else ""
        except (Fault, ValueError, KeyError) as error:
            return Listing(faults=(f"units: systemctl did not tell: {error}",))
        return Listing(tuple(describe(look.host, block) for block in shown.split("\n\n") if block.strip()))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        """One stop for all, sockets first so that no connection starts a daemon again; then forget failures."""
        names = sorted((obj.facts["unit"] for obj in objects), key=lambda name: (name.endswith(".service"), name))
        failed: dict[str, str] = {}
        kill_groups(host, objects)
        try:
            run(["systemctl", "stop", "--", *names], timeout=deadline.within(STOP).left())
        except ToolTimeout:
            pass  # what it did not end in time, the processes' turn ends; the next look tells
        except Fault as error:
            failed = {obj.id: str(error) for obj in objects}
        try:
            # Fails for units that are not loaded any more, which is what is wanted.
            run(["systemctl", "reset-failed", "--", *names], success=(0, 1, 5))
        except Fault as error:
            failed = {obj.id: str(error) for obj in objects}
        return failed


def matches(unit: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(unit, pattern) for pattern in patterns)


def describe(host: Host, block: str) -> Object:
    """One unit from a block of `systemctl show`."""
    said = dict(line.split("=", 1) for line in block.strip().split("\n") if "=" in line)
    name = said.get("Id", "")
    facts = {
        "unit": name,
        "load": said.get("LoadState", ""),
        "active": said.get("ActiveState", ""),
        "sub": said.get("SubState", ""),
        "file": said.get("FragmentPath", ""),
        "stands": bool(said.get("FragmentPath")) and host.exists(said["FragmentPath"]),
        "cgroup": said.get("ControlGroup", ""),
        "pid": int(said.get("MainPID", "0") or 0),
    }
    return Object("unit", name, (name, said.get("InvocationID", "")), facts)
