"""What a living Incus or LXD says about itself, and what it can be asked to do, over its REST API (doc/rest-api.yaml).

LXD 5.0 knows all-projects=true for instances, but not for networks, and in bookworm not for operations (API extension
operations_get_query_all_projects): it then answers for the default project alone. Networks of other projects are OVN's,
and have no bridge; operations are asked for project by project.

The caller has made sure that the daemon's process lives: a connection to a socket of systemd's would start it.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from leftovers.daemons import unix_http
from leftovers.errors import Unreadable
from leftovers.evidence import incus_records
from leftovers.evidence.files import note
from leftovers.host import Host
from leftovers.model import Deadline, Record

__all__ = ["read", "start", "stop"]

SOCKET = "/var/lib/incus/unix.socket"
CLUSTER = "/1.0/cluster"
MEMBERS = "/1.0/cluster/members"
INSTANCES = "/1.0/instances?recursion=1&all-projects=true"
OPERATIONS = "/1.0/operations?recursion=1&all-projects=true"
OPERATIONS_OF = "/1.0/operations?recursion=1&project="
EVERYWHERE = "operations_get_query_all_projects"  # the API extension without which OPERATIONS has one project's only

POLL = 0.25  # seconds between two looks at the daemon; more, if it is slow
SLOW = 1.0  # but not more than this: an operation is forgotten 5 s after its end, and its error with it
LOOKS = 3  # so many looks may fail, one after the other
STATE = 3.0  # seconds for the state of an OVN network, for which the daemon asks OVN
ANSWER = 10.0  # seconds for the answer to one request: it only begins what was asked for
SETTLE = 5.0  # seconds for which an instance that was asked to shut down must run before it counts as staying up
# What operations on instances are called (internal/server/db/operationtype/operation_type.go, Description).
DOING = {"Stopping instance": "stop", "Starting instance": "start", "Restarting instance": "start"}
BUSY = "Instance is busy running a"  # internal/server/instance/operationlock/operationlock.go, Create
PASSING = ("Starting", "Stopping", "Aborting")  # it will have another status soon

Name = tuple[str, str]  # project, and instance within it
Make = Callable[[str, str, Mapping[str, Any], list[str]], Record | None]


def read(host: Host, socket: str = SOCKET, seconds: float = 10.0) -> tuple[list[Record], list[str]]:
    """The daemon's networks (the host's own links among them, managed=false), pools and instances, and its cluster.

    `seconds` is for all the requests together. Of a cluster, only the instances that are located here.
    """
    faults: list[str] = []
    records: list[Record] = []
    if not host.exists(socket):
        return records, faults
    deadline = Deadline(seconds)
    here = ""

    def ask(url: str) -> Any:
        return metadata(unix_http.get(host, socket, url, deadline), f"{socket} {url}")

    def make_instance(source: str, what: str, data: Mapping[str, Any], faults: list[str]) -> Record | None:
        if data.get("location") not in (None, "", "none", here):
            return None
        return incus_records.instance(source, what, data, faults, running(data.get("status")))

    try:
        here = member_name(ask(CLUSTER))
        if here:
            records += incus_records.cluster("api", here, member_names(ask(MEMBERS)))
    except Unreadable as error:
        note(faults, error.what, error.cause)
    sources: tuple[tuple[str, Make], ...] = (
        ("/1.0/networks?recursion=1&all-projects=true", incus_records.network),
        ("/1.0/storage-pools?recursion=1", incus_records.pool),
        (INSTANCES, make_instance),
    )
    for url, make in sources:
        try:
            answer = objects(ask(url), f"{socket} {url}")
            made = [make("api", f"{socket} {url}", data, faults) for data in answer]
        except Unreadable as error:
            note(faults, error.what, error.cause)
        else:
            records += [record for record in made if record is not None]
    numbered = [with_number(host, socket, record, deadline.within(STATE)) for record in records]
    return numbered, faults


def stop(host: Host, instances: Sequence[Record], deadline: Deadline, socket: str = SOCKET) -> dict[str, str]:
    """Ask instances (records of type "instance") to shut down cleanly, all at once, and wait for them until the
    deadline. Nothing is ever forced.

    Returns, by Record.name, why an instance did not come down; one that is stopped already, or is not there, is down.
    An instance that did not may still come down at any later time, and Incus refuses to change its configuration
    until it has, or incusd was started anew (seen on 6.0.4: the lock of a shutdown that timed out is not released).
    A frozen one is not asked: it cannot hear, and because of that lock it could not even be thawed any more.
    """
    names = {incus_records.instance_parts(record.name): record.name for record in instances}

    def judge(seen: Seen, name: Name, asked: Asked) -> Step | str:
        status = seen.statuses.get(name, "Stopped")
        if name in seen.doing["start"]:
            return Step.WAIT  # what is being started is said to be stopped (driver_lxc.go, statusCode)
        if status == "Stopped":
            return Step.DONE
        if seen.under_way(name, asked, "stop") or status in PASSING:
            return Step.WAIT
        if asked.refused:
            return asked.refused
        error = seen.errors.get(asked.operation, "")
        if asked.operation and BUSY not in error:
            return error or f"its shutdown has ended, and it is {status}"
        return "it is frozen, and cannot shut down" if status in ("Frozen", "Freezing") else Step.ASK

    def body() -> dict[str, Any]:
        # A timeout of 0 would kill it (cmd/incusd/instance_state.go, doInstanceStatePut).
        return {"action": "stop", "timeout": max(1, math.ceil(deadline.left())), "force": False}

    causes, late = bring(host, socket, names, judge, body, deadline)
    causes |= {name: f"not down in time: it is {status}" for name, status in late.items()}
    return {names[name]: cause for name, cause in causes.items()}


def start(host: Host, instances: Sequence[Name], deadline: Deadline, socket: str = SOCKET) -> dict[str, str]:
    """Start instances (project, name) that were asked to shut down, and wait until they are up or the deadline is.

    A shutdown may still be under way: then the instance is waited for, and started when it is down. It counts as up
    when it runs after it was started here, or has run for SETTLE seconds without an operation that stops it: one that
    does not hear the request runs on.

    Returns, by "PROJECT/NAME", why an instance is not up.
    """
    running_since: dict[Name, float] = {}

    def judge(seen: Seen, name: Name, asked: Asked) -> Step | str:
        status = seen.statuses.get(name, "")
        error = seen.errors.get(asked.operation, "")
        if status not in incus_records.RUNNING or name in seen.doing["stop"]:
            running_since.pop(name, None)
        if not status:
            return "there is no such instance"
        if seen.under_way(name, asked, "start") or name in seen.doing["stop"]:
            return Step.WAIT
        if status in incus_records.RUNNING:
            since = running_since.setdefault(name, time.monotonic())
            return Step.DONE if asked.operation or time.monotonic() - since >= SETTLE else Step.WAIT
        if status != "Stopped":
            return Step.WAIT  # Error among them: the monitor of one that comes down may be too slow to answer
        if asked.refused:
            return asked.refused
        if asked.operation and BUSY not in error:
            return error or "its start has ended, and it is stopped"
        return Step.ASK

    causes, late = bring(host, socket, instances, judge, lambda: {"action": "start"}, deadline)
    # What runs when the deadline comes, and nothing stops it, is up as far as anybody can tell.
    causes |= {name: f"not up in time: it is {status}" for name, status in late.items() if name not in running_since}
    return {"/".join(name): cause for name, cause in causes.items()}


class Step(Enum):
    """What comes next for an instance; if it is none of these, it is a cause (str) and the instance has failed."""

    ASK = "ask"
    WAIT = "wait"
    DONE = "done"


@dataclass(slots=True)
class Asked:
    """What became of what was asked for one instance."""

    operation: str = ""  # the id of the operation that began
    refused: str = ""  # why none began


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the daemon."""

    statuses: dict[Name, str] = field(default_factory=dict)  # of every instance
    running: set[str] = field(default_factory=set)  # the ids of operations under way
    errors: dict[str, str] = field(default_factory=dict)  # why operations failed, by id
    doing: dict[str, set[Name]] = field(default_factory=lambda: {"stop": set(), "start": set()})

    def under_way(self, name: Name, asked: Asked, what: str) -> bool:
        """Whether our operation runs, or somebody else's of the same sort: one of ours whose answer was lost, too."""
        return asked.operation in self.running or name in self.doing[what]


def bring(
    host: Host,
    socket: str,
    names: Iterable[Name],
    judge: Callable[[Seen, Name, Asked], Step | str],
    body: Callable[[], dict[str, Any]],
    deadline: Deadline,
) -> tuple[dict[Name, str], dict[Name, str]]:
    """Look at all instances, ask where `judge` says so, and again, until each is done or has failed.

    A request only begins an operation, so all of them run at once; a look is two requests for all instances.
    Returns the causes of those that failed, and the last status of those for which there was no more time.
    """
    waiting = {name: Asked() for name in names}
    projects = {project for project, _ in waiting} - {incus_records.DEFAULT}
    urls = [OPERATIONS]
    if projects and not extended(host, socket, EVERYWHERE, deadline):
        urls += [OPERATIONS_OF + quote(project, safe="", errors="replace") for project in sorted(projects)]
    causes: dict[Name, str] = {}
    faults: list[str] = []  # of the looks since the last one that succeeded
    seen: Seen | None = None
    while waiting and len(faults) < LOOKS and not ((seen or faults) and deadline.passed()):
        pause = POLL
        began = time.monotonic()
        try:
            seen = look(host, socket, urls, deadline)
            pause = max(POLL, min(time.monotonic() - began, SLOW))
            faults.clear()
        except Unreadable as error:
            if seen and deadline.passed():
                break  # it was only cut off: what was seen before holds
            faults.append(str(error))
        else:
            for name, asked in list(waiting.items()):
                step = judge(seen, name, asked)
                if step is Step.ASK and not deadline.passed():
                    waiting[name] = ask(host, socket, name, body(), deadline)
                elif step is Step.DONE:
                    del waiting[name]
                elif isinstance(step, str):
                    del waiting[name]
                    causes[name] = step
        if waiting:
            time.sleep(min(pause, deadline.left()))
    if faults or seen is None:
        return causes | dict.fromkeys(waiting, "".join(faults[-1:])), {}
    return causes, {name: seen.statuses.get(name, "not there") for name in waiting}


def extended(host: Host, socket: str, extension: str, deadline: Deadline) -> bool:
    """Whether the API has an extension. Yes, if it does not say: then it is of today."""
    try:
        server = metadata(unix_http.get(host, socket, "/1.0", deadline), f"{socket} /1.0")
    except Unreadable:
        return True
    known = server.get("api_extensions") if isinstance(server, dict) else None
    return not isinstance(known, list) or extension in known


def look(host: Host, socket: str, urls: Sequence[str], deadline: Deadline) -> Seen:
    """All instances, and the operations at these addresses. Raises Unreadable."""
    seen = Seen()
    # The operations first: what one of them has done is then to be seen in the statuses.
    found: list[tuple[str, dict[str, Any]]] = []
    for url in urls:
        what = f"{socket} {url}"
        by_status = metadata(unix_http.get(host, socket, url, deadline), what)
        if by_status is None and url is not OPERATIONS:
            continue  # a project without any (Go's nil map)
        if not isinstance(by_status, dict):
            raise Unreadable(what, "not an object of lists")
        found += [(what, operation) for group in by_status.values() for operation in objects(group, what)]
    for what, operation in found:
        id, code, description = operation.get("id"), operation.get("status_code"), operation.get("description")
        if not isinstance(id, str) or not isinstance(code, int):
            raise Unreadable(what, "an operation without id or status_code")
        if code >= 200:  # shared/api/status_code.go, IsFinal
            seen.errors[id] = line(operation.get("err"))
        else:
            seen.running.add(id)
            if isinstance(description, str) and description in DOING:
                seen.doing[DOING[description]].update(instances_of(operation))
    what = f"{socket} {INSTANCES}"
    for instance in objects(metadata(unix_http.get(host, socket, INSTANCES, deadline), what), what):
        name, project, status = (instance.get(key) for key in ("name", "project", "status"))
        if not isinstance(name, str) or not isinstance(project, str) or not isinstance(status, str) or not status:
            raise Unreadable(what, "an instance without name, project or status")
        seen.statuses[project, name] = line(status)
    return seen


def instances_of(operation: Mapping[str, Any]) -> Iterable[Name]:
    """The instances that an operation is about: "/1.0/instances/NAME?project=PROJECT", without project in the default
    one (internal/server/operations/operations.go, Render)."""
    resources = operation.get("resources")
    urls = resources.get("instances") if isinstance(resources, dict) else None
    for url in urls if isinstance(urls, list) else ():
        if isinstance(url, str) and url.startswith("/1.0/instances/"):
            path, _, query = url.partition("?")
            yield parse_qs(query).get("project", [incus_records.DEFAULT])[0], unquote(path[len("/1.0/instances/") :])


def ask(host: Host, socket: str, name: Name, body: dict[str, Any], deadline: Deadline) -> Asked:
    """Ask for another state of an instance (PUT /1.0/instances/NAME/state)."""
    project, instance = (quote(part, safe="", errors="replace") for part in name)
    url = f"/1.0/instances/{instance}/state?project={project}"
    try:
        answer = unix_http.send(host, socket, "PUT", url, body, deadline.within(ANSWER))
    except Unreadable as error:
        return Asked(refused=line(error.cause))
    operation = answer.get("metadata") if isinstance(answer, dict) and answer.get("type") == "async" else None
    id = operation.get("id") if isinstance(operation, dict) else None
    return Asked(operation=id) if isinstance(id, str) and id else Asked(refused="not an answer of its API")


def line(value: object) -> str:
    """What the daemon said, as one line that can be printed; "" if it is no string."""
    return " ".join(incus_records.text(value).split())[:300]


def metadata(answer: object, what: str) -> Any:
    """What a synchronous answer carries (shared/api/response.go). Raises Unreadable for any other answer."""
    if not isinstance(answer, dict) or answer.get("type") != "sync":
        raise Unreadable(what, "not an answer of its API")
    return answer.get("metadata")


def objects(answer: object, what: str) -> list[dict[str, Any]]:
    """A list of JSON objects. Raises Unreadable for anything else."""
    if not isinstance(answer, list) or not all(isinstance(data, dict) for data in answer):
        raise Unreadable(what, "not a list of objects")
    return answer


def with_number(host: Host, socket: str, record: Record, deadline: Deadline) -> Record:
    """An OVN network with its number in the database, by the name of its router ("incus-net2-lr"): its state has that
    (cmd/incusd/networks.go, networkStateGet). Not every version tells it, and OVN may not answer: then without it."""
    if record.type != "network" or record.facts.get("type") != "ovn":
        return record
    project = quote(str(record.facts["project"]), safe="", errors="replace")
    url = f"/1.0/networks/{quote(record.name, safe='', errors='replace')}/state?project={project}"
    try:
        state = metadata(unix_http.get(host, socket, url, deadline), url)
    except Unreadable:
        return record
    ovn = state.get("ovn") if isinstance(state, dict) else None
    router = ovn.get("logical_router") if isinstance(ovn, dict) else None
    match = re.fullmatch(r"[a-z]+-net([1-9][0-9]{0,9})-lr", router) if isinstance(router, str) else None
    return replace(record, facts={**record.facts, "number": int(match[1])}) if match else record


def member_name(said: Any) -> str:
    """What this host is called in its cluster, as in an instance's `location`; "" without a cluster (shared/api/
    cluster.go). Raises Unreadable."""
    if isinstance(said, dict) and said.get("enabled") is False:
        return ""
    name = said.get("server_name") if isinstance(said, dict) else None
    if not isinstance(name, str) or not name:
        raise Unreadable(CLUSTER, "does not say which member of the cluster this is")
    return name


def member_names(urls: Any) -> list[object]:
    """The members of a cluster, each told as its URL (cmd/incusd/api_cluster.go, clusterNodesGet). Raises
    Unreadable."""
    if not isinstance(urls, list):
        raise Unreadable(MEMBERS, "not a list of members")
    return [str(url).rpartition("/")[2] for url in urls]


def running(status: object) -> bool | None:
    """Whether an instance of this status has processes; None for one that is on its way, or in error."""
    if status in incus_records.RUNNING:
        return True
    return False if status == "Stopped" else None
