"""What snapd knows: which snaps there are, and what it is doing with them. It is asked over its socket (REST) if it
runs, and else its own state file is read: connecting to a socket that systemd holds for it would start it.

Shapes: snapd daemon/api_snaps.go (snapInfo), daemon/api_general.go (changeInfo), overlord/snapstate/snapmgr.go
(SnapState), overlord/state/{change,task}.go; seen on 2.68 and 2.77.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from leftovers.daemons import unix_http
from leftovers.errors import Unreadable
from leftovers.evidence.files import is_name
from leftovers.host import Host
from leftovers.model import Deadline

__all__ = ["EXE", "Change", "Snap", "changes", "snaps"]

# As distributions have it, and as it runs itself anew from its own snap (cmd/snapd, snapdtool.ExecInSnapdOrCoreSnap).
EXE = re.compile(r"(/usr/lib|/usr/libexec|(/var/lib/snapd)?/snap/(snapd|core)/[^/]+/usr/lib)/snapd/snapd\Z")
SOCKET = "/run/snapd.socket"
STATE = "/var/lib/snapd/state.json"
# A state file of a host with many snaps and changes is some MB.
LIMIT = 64 * 1024 * 1024
REMOVAL = "remove-snap"
# overlord/state/change.go, Status: a change that is not ready is one of the others.
READY = ("Done", "Undone", "Hold", "Error", "Wait")


@dataclass(frozen=True, slots=True)
class Snap:
    """A snap that snapd lists. `active` is false for one that is disabled, or whose removal failed half-way."""

    name: str
    active: bool
    revision: str
    revisions: int = 1  # how many of it are installed


@dataclass(frozen=True, slots=True)
class Change:
    """Something that snapd does or has done: `kind` as "remove-snap", `tasks` by their kinds."""

    id: str
    kind: str
    status: str
    ready: bool
    snaps: tuple[str, ...]
    tasks: tuple[str, ...]
    began: str = ""  # RFC 3339

    @property
    def removal(self) -> bool:
        return self.kind == REMOVAL

    @property
    def whole(self) -> bool:
        """Whether a removal is of the snap, not of one revision among several: then its data for all revisions goes,
        and its services stop or its hook would run (overlord/snapstate/snapstate.go, removeTasks)."""
        return self.removal and ("stop-snap-services" in self.tasks or "remove-profiles" in self.tasks)

    @property
    def keeps_data(self) -> bool:
        """Whether a removal saves a snapshot first, as it does without --purge."""
        return "save-snapshot" in self.tasks


def snaps(host: Host, *, running: bool, seconds: float = 5.0) -> dict[str, Snap]:
    """All installed snaps by name. `running` says that snapd's process lives. Raises Unreadable."""
    if running and host.exists(SOCKET):
        try:
            return {snap.name: snap for snap in map(snap_of_api, ask(host, "/v2/snaps?select=all", seconds)) if snap}
        except Unreadable:
            pass  # it may be restarting itself, as it does at its own refresh: what it wrote down says the same
    return {name: snap for name, data in section(state(host), "snaps").items() if (snap := snap_of_state(name, data))}


def changes(host: Host, snap: str, *, running: bool, seconds: float = 5.0) -> list[Change]:
    """What is done or was done with a snap, the latest last. Raises Unreadable."""
    if running and host.exists(SOCKET):
        try:
            found = [change_of_api(data) for data in ask(host, f"/v2/changes?select=all&for={snap}", seconds)]
            return in_order(change for change in found if change)
        except Unreadable:
            pass
    return of_state(state(host), snap)


def in_order(found: Iterable[Change]) -> list[Change]:
    return sorted(found, key=lambda change: (change.began, change.id.zfill(12)))


def ask(host: Host, url: str, seconds: float) -> list[Any]:
    answer = unix_http.get(host, SOCKET, url, Deadline(seconds))
    result = answer.get("result") if isinstance(answer, dict) else None
    if not isinstance(result, list):
        raise Unreadable(f"{SOCKET} {url}", "not an answer of snapd's API")
    return result


def snap_of_api(data: Any) -> Snap | None:
    """api_snaps.go, mapLocal: with select=all there is one entry for each revision."""
    if not isinstance(data, dict) or not is_name(data.get("name")):
        return None
    return Snap(str(data["name"]), data.get("status") == "active", str(data.get("revision", "")))


def change_of_api(data: Any) -> Change | None:
    if not isinstance(data, dict):
        return None
    extra = mapping(data.get("data"))
    tasks = tuple(str(task.get("kind")) for task in data.get("tasks") or () if isinstance(task, dict))
    return Change(
        str(data.get("id", "")),
        str(data.get("kind", "")),
        str(data.get("status", "")),
        data.get("ready") is True,
        names(extra.get("snap-names")),
        tasks,
        str(data.get("spawn-time", "")),
    )


def state(host: Host) -> Mapping[str, Any]:
    """What snapd wrote down; nothing where it never was. Raises Unreadable."""
    try:
        read = json.loads(host.read(STATE, LIMIT))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise Unreadable(STATE, str(error)) from error
    if not isinstance(read, dict):
        raise Unreadable(STATE, "not snapd's state")
    return read


def section(read: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return mapping((mapping(read.get("data")) if name == "snaps" else read).get(name))


def snap_of_state(name: str, data: Any) -> Snap | None:
    """snapmgr.go, SnapState: `sequence` holds the revisions (in an object since 2.62), `current` the one in use."""
    if not isinstance(data, dict) or not is_name(name):
        return None
    sequence = data.get("sequence")
    sequence = sequence if isinstance(sequence, list) else (data.get("revision-sequence") or ())
    return Snap(name, data.get("active") is True, str(data.get("current", "")), max(1, len(sequence)))


def of_state(read: Mapping[str, Any], snap: str) -> list[Change]:
    tasks = section(read, "tasks")
    found = []
    for id, data in section(read, "changes").items():
        if not isinstance(data, dict):
            continue
        extra = mapping(data.get("data"))
        if snap not in names(extra.get("snap-names")):
            continue
        own = [tasks[task] for task in data.get("task-ids") or () if isinstance(tasks.get(task), dict)]
        statuses = [int(task.get("status", 0) or 0) for task in own]
        found.append(
            Change(
                str(id),
                str(data.get("kind", "")),
                "Error" if 9 in statuses else "",
                bool(data.get("ready-time")) and str(data["ready-time"]) > "0001-01-02",
                names(extra.get("snap-names")),
                tuple(str(task.get("kind")) for task in own),
                str(data.get("spawn-time", "")),
            )
        )
    return in_order(found)


def names(value: Any) -> tuple[str, ...]:
    return tuple(str(name) for name in value if is_name(name)) if isinstance(value, list) else ()


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
