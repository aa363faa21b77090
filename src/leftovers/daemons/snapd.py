"""What snapd knows: which snaps there are, and what it is doing with them. Its own state file is read. That is on the
disk before a task of a change runs, and whenever snapd lets go of its lock (overlord/state/state.go, Unlock). Its API
does not answer as long as it holds the lock, which may be while it waits for us; and to connect to its socket may start
it.

Shapes: snapd overlord/snapstate/snapmgr.go (SnapState), overlord/state/{change,task}.go; seen on 2.68 and 2.77.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from leftovers.errors import Unreadable
from leftovers.evidence.files import is_name
from leftovers.host import Host

__all__ = ["EXE", "PROGRAMS", "STATE", "Change", "Snap", "busy", "changes", "removing", "snaps"]

# As distributions have it, and as it runs itself anew from its own snap (cmd/snapd, snapdtool.ExecInSnapdOrCoreSnap).
EXE = re.compile(r"(/usr/lib|/usr/libexec|(/var/lib/snapd)?/snap/(snapd|core)/[^/]+/usr/lib)/snapd/snapd\Z")
# Where distributions have it; the snap of it is nothing without.
PROGRAMS = ("/usr/lib/snapd/snapd", "/usr/libexec/snapd/snapd")
STATE = "/var/lib/snapd/state.json"
# A state file of a host with many snaps and changes is some MB.
LIMIT = 64 * 1024 * 1024
REMOVAL = "remove-snap"
# Of these a removal of a whole snap has at least one, whatever its services do; that of one revision among several has
# none (overlord/snapstate/snapstate.go, removeTasks; seen on 2.68 and 2.77).
WHOLE = frozenset({"run-hook", "auto-disconnect", "stop-snap-services", "remove-profiles"})
# overlord/state/task.go: what is taken back, or about to be, and what went wrong.
BACK = {5: "Abort", 6: "Undo", 7: "Undoing", 8: "Undone", 9: "Error"}


@dataclass(frozen=True, slots=True)
class Snap:
    """A snap that snapd lists. `active` is false for one that is disabled, or whose removal failed half-way."""

    name: str
    active: bool
    revision: str
    revisions: tuple[str, ...] = ()  # all that are installed


@dataclass(frozen=True, slots=True)
class Change:
    """Something that snapd does or has done: `kind` as "remove-snap", `tasks` by their kinds. `status` is one of BACK,
    or "" for what went well so far."""

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
        """Whether a removal is of the snap, not of one revision among several: then its data for all revisions goes."""
        return self.removal and not WHOLE.isdisjoint(self.tasks)


def snaps(host: Host) -> dict[str, Snap]:
    """All installed snaps by name. Raises Unreadable."""
    found = (snap_of(name, data) for name, data in mapping(mapping(state(host).get("data")).get("snaps")).items())
    return {snap.name: snap for snap in found if snap}


def changes(host: Host, snap: str) -> list[Change]:
    """What is done or was done with a snap, the latest last. Raises Unreadable."""
    read = state(host)
    tasks = mapping(read.get("tasks"))
    found = (change_of(id, data, tasks, snap) for id, data in mapping(read.get("changes")).items())
    return sorted(
        (change for change in found if change and snap in change.snaps),
        key=lambda change: (change.began, change.id.zfill(12)),
    )


def busy(host: Host) -> set[str]:
    """The snaps that snapd is at, whatever it does with them. Raises Unreadable."""
    read = state(host)
    found = (change_of(id, data, {}, "") for id, data in mapping(read.get("changes")).items())
    return {snap for change in found if change and not change.ready for snap in change.snaps}


def removing(host: Host, snap: str) -> Change | None:
    """The removal of a whole snap that snapd is at, and does not take back. Raises Unreadable."""
    return next((each for each in changes(host, snap) if each.whole and not each.ready and not each.status), None)


def state(host: Host) -> Mapping[str, Any]:
    """What snapd wrote down; nothing where it is not. Raises Unreadable, also if it is there and its state is not: who
    took that for no snaps would take all that they have for left over (a disk that was not mounted)."""
    try:
        read = json.loads(host.read(STATE, LIMIT))
    except (FileNotFoundError, NotADirectoryError) as error:
        if any(host.exists(path) for path in PROGRAMS):
            raise Unreadable(STATE, "snapd is there, and has no state") from error
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise Unreadable(STATE, str(error)) from error
    if not isinstance(read, dict) or not isinstance(read.get("data"), dict):
        raise Unreadable(STATE, "not snapd's state")
    return read


def snap_of(name: str, data: Any) -> Snap | None:
    """snapmgr.go, SnapState: the revisions are in `sequence`, or since 2.62 in `revision-sequence`."""
    if not isinstance(data, dict) or not is_name(name):
        return None
    sequence = data.get("sequence")
    sequence = sequence if isinstance(sequence, list) else data.get("revision-sequence")
    found = [mapping(mapping(each).get("snap") or each).get("revision") for each in sequence or ()]
    current = str(data.get("current", ""))
    revisions = tuple(str(revision) for revision in found if is_name(revision)) or (current,)
    return Snap(name, data.get("active") is True, current, revisions)


def change_of(id: str, data: Any, tasks: Mapping[str, Any], snap: str) -> Change | None:
    """What a change is to one of its snaps: each has tasks of its own, and goes on when another one's fail
    (overlord/snapstate/snapstate.go, RemoveMany)."""
    if not isinstance(data, dict):
        return None
    ids = data.get("task-ids")
    own = [mapping(tasks.get(task)) for task in (ids if isinstance(ids, list) else ()) if isinstance(task, str)]
    concerned = names(mapping(data.get("data")).get("snap-names"))
    if len(concerned) > 1:
        own = [task for task in own if whose(task, tasks) in ("", snap)]
    numbers = [number for task in own if isinstance(number := task.get("status"), int) and number in BACK]
    return Change(
        str(id),
        str(data.get("kind", "")),
        BACK[max(numbers)] if numbers else "",
        str(data.get("ready-time") or "") > "0001-01-02",
        concerned,
        tuple(str(task.get("kind")) for task in own),
        str(data.get("spawn-time", "")),
    )


def whose(task: Mapping[str, Any], tasks: Mapping[str, Any]) -> str:
    """The snap that a task is about; "" if it does not say. Some only name the task that does."""
    data = mapping(task.get("data"))
    if "snap-setup-task" in data:
        data = mapping(mapping(tasks.get(str(data["snap-setup-task"]))).get("data"))
    setup = mapping(data.get("snap-setup"))
    name, key = mapping(setup.get("side-info")).get("name"), setup.get("instance-key")
    if is_name(name):
        return f"{name}_{key}" if key else str(name)
    return str(mapping(data.get("hook-setup")).get("snap") or "")


def names(value: Any) -> tuple[str, ...]:
    return tuple(str(name) for name in value if is_name(name)) if isinstance(value, list) else ()


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
