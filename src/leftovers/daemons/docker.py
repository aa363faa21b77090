"""What a living dockerd says about itself, and what it can be asked to do, over its API
(https://docs.docker.com/reference/api/engine). Paths are without a version: then it is the daemon's own newest.

A connection to /run/docker.sock may be one to systemd's docker.socket, and start a daemon that is dead: the caller has
made sure that a dockerd lives (`alive`). What its API does not tell, it has written down below its data-root (evidence/
docker_network.py, docker_store.py): records hold both, and are the API's where that says that a thing exists.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from leftovers.daemons import unix_http
from leftovers.errors import Unreadable
from leftovers.evidence import containerd, docker_network, docker_store, files
from leftovers.evidence.docker_settings import Settings
from leftovers.evidence.files import note
from leftovers.evidence.json_text import is_path, mapping, objects, strings, text
from leftovers.host import Host
from leftovers.model import Deadline, Object, Record

__all__ = ["PROGRAMS", "SOCKET", "alive", "read", "start", "stop"]

# Of docker.io, of docker-ce, and where a static binary goes.
PROGRAMS = ("/usr/sbin/dockerd", "/usr/bin/dockerd", "/usr/local/bin/dockerd")
SOCKET = "/run/docker.sock"
INFO, NETWORKS, CONTAINERS = "/info", "/networks", "/containers/json?all=1"
STATE = "swarm/docker-state.json"  # below the data-root of a member of a swarm (daemon/cluster/cluster.go)
STATES = {"running": "running", "paused": "running", "restarting": "running", "created": "created"}
BRIDGE_NAME = "com.docker.network.bridge.name"
DEFAULT_BRIDGE = "com.docker.network.bridge.default_bridge"

POLL = 0.25  # seconds between two looks at the daemon
LOOKS = 3  # so many looks may fail, one after the other
ANSWER = 15.0  # seconds for the answer to one request
SETTLE = 5.0  # seconds for which a container that was asked to stop must run before it counts as staying up


@dataclass(slots=True)
class Answer:
    """What the API said. The facts by id hold only what was said, or follows from it."""

    info: Mapping[str, Any] = field(default_factory=dict)
    networks: dict[str, dict[str, Any]] | None = None
    containers: dict[str, dict[str, Any]] | None = None
    missed: bool = False  # it did not say all of a container: not which pin is its own, nor what it publishes

    @property
    def whole(self) -> bool:
        return self.networks is not None and self.containers is not None


def alive(processes: Iterable[Object], programs: Sequence[str] = PROGRAMS) -> Object | None:
    """The process of a dockerd that is the host's own, by the file that it runs; None if there is none."""
    for process in processes:
        facts = process.facts
        exe = str(facts["exe"]).removesuffix(" (deleted)")
        if not facts["nested"] and facts["our_mnt"] and facts["uid"] == 0 and exe in programs:
            return process
    return None


def read(host: Host, settings: Settings, living: bool, seconds: float = 10.0) -> tuple[list[Record], list[str]]:
    """All that is known of Docker: of the API if the daemon lives and answers (source "api"), else, and what only its
    store has, of its disk (source "disk").

    Records, by id: "docker" (facts: evidence/docker_store.py), "docker-network" and "docker-endpoint"
    (evidence/docker_network.py; an endpoint is of the API if a container of the API's has it), and one "docker-info",
    named "docker". Its facts: root (the data-root, with UID.GID where users are remapped), exec_root, live_restore,
    answered (it listed its containers and networks), whole (these lists are complete, the API's or the store's, and so
    is what they say of each), swarm (it is a member of one), firewall, version.

    `seconds` is for all requests together. The data-root must not lie on a server that may be gone.
    """
    faults: list[str] = []
    answer = Answer()
    for socket in settings.sockets if living else ():
        answer = ask(host, socket, settings, Deadline(seconds), faults)
        if answer.info:
            break
    root = text(answer.info.get("DockerRootDir"))
    roots = [root] if root else docker_store.roots(host, settings.root)
    stored: list[Record] = []
    fine = False
    said: list[str] = []
    for each in roots:
        fine = fine or complete(host, each)
        for found, more in (docker_store.read(host, each), docker_network.read(host, each)):
            stored += found
            said += more
    faults += said
    records = docker_store.resolved(merged("docker", stored, answer.containers))
    records += merged("docker-network", stored, answer.networks)
    records += with_ends([each for each in stored if each.type == "docker-endpoint"], records)
    info = {
        "root": root or settings.root,
        "exec_root": settings.exec_root,
        "live_restore": answer.info.get("LiveRestoreEnabled", settings.live_restore) is True,
        "answered": answer.whole,
        "whole": not answer.missed if answer.whole else fine and not said,
        "swarm": in_swarm(answer.info) if answer.info else any(host.exists(f"{each}/{STATE}") for each in roots),
        "firewall": text(mapping(answer.info.get("FirewallBackend")).get("Driver")) or settings.firewall,
        "version": text(answer.info.get("ServerVersion")),
    }
    records.append(Record("docker-info", "docker", "api" if answer.info else "disk", info))
    return records, faults


def complete(host: Host, root: str) -> bool:
    """Whether there is a store at all: dockerd makes both of these when it is started. An empty directory may be one
    that the disk is not mounted on."""
    return host.exists(f"{root}/containers") and host.exists(f"{root}/{docker_network.FILE}")


def merged(type: str, stored: Iterable[Record], said: Mapping[str, Mapping[str, Any]] | None) -> list[Record]:
    """What the store and the API say of the same things. What the API does not list is there all the same."""
    found = {record.name: record for record in stored if record.type == type}
    for id, facts in (said or {}).items():
        blank = docker_network.blank_network(id) if type == "docker-network" else docker_store.blank(id)
        older = found[id].facts if id in found else blank
        whole = {**older, **facts}
        if "gateways" in facts:
            # The API tells those that were asked for, the store also those that were chosen.
            whole["gateways"] = sorted({*older["gateways"], *facts["gateways"]})
        found[id] = Record(type, id, "api", whole)
    return [record for _, record in sorted(found.items())]


def ask(host: Host, socket: str, settings: Settings, deadline: Deadline, faults: list[str]) -> Answer:
    """Ask the daemon at a socket. Empty if there is none, or if it is another one's: with another data-root."""
    answer = Answer()
    if not host.exists(socket):
        return answer
    try:
        info = get(host, socket, INFO, deadline, dict)
        root = info.get("DockerRootDir")
        if not is_path(root) or not same_root(host, root, settings.root):
            raise Unreadable(f"{socket} {INFO}", f"the daemon of another data-root, {ascii(root)[:200]}, answers")
        answer.info = info
        answer.networks = {
            id: network(id, said)
            for said in get_list(host, socket, NETWORKS, deadline)
            if docker_store.is_network(id := text(said.get("Id")))
        }
        listed = {
            id: container(id, said)
            for said in get_list(host, socket, CONTAINERS, deadline)
            if containerd.is_unique(id := text(said.get("Id")))
        }
        answer.containers = listed
        for id in list(listed):
            url = f"/containers/{id}/json"
            try:
                said = get(host, socket, url, deadline, dict)
            except Unreadable as error:
                if error.cause.startswith("HTTP status 404"):
                    del listed[id]  # it has gone since
                    continue
                note(faults, error.what, error.cause)
                answer.missed = True
                if deadline.passed():
                    break  # the store knows the others
                continue
            if said.get("Id") == id:
                listed[id] = docker_store.described(id, said, mapping(said.get("HostConfig")))
    except Unreadable as error:
        note(faults, error.what, error.cause)
    return answer


def get(host: Host, socket: str, url: str, deadline: Deadline, type: type) -> Any:
    """What the daemon answers, of this type. Raises Unreadable."""
    said = unix_http.get(host, socket, url, deadline)
    if not isinstance(said, type):
        raise Unreadable(f"{socket} {url}", "not an answer of its API")
    return said


def get_list(host: Host, socket: str, url: str, deadline: Deadline) -> list[Mapping[str, Any]]:
    """The objects of a list, all of them: who is left out would seem to be gone. Raises Unreadable."""
    said = get(host, socket, url, deadline, list)
    if not all(isinstance(each, dict) for each in said):
        raise Unreadable(f"{socket} {url}", "not a list of objects")
    return list(said)


def same_root(host: Host, answered: str, expected: str) -> bool:
    """dockerd says where its data-root really is, and with remapped users it is UID.GID in the one that was given."""
    real, wanted = (os.path.realpath(host.path(path)) for path in (answered, expected))
    return real == wanted or real in {os.path.realpath(host.path(path)) for path in docker_store.roots(host, expected)}


def network(id: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """A network of GET /networks."""
    options = mapping(said.get("Options"))
    driver, name = text(said.get("Driver")), text(options.get(BRIDGE_NAME)) or f"br-{id[:12]}"
    pools = objects(mapping(said.get("IPAM")).get("Config"))
    facts: dict[str, Any] = {
        "id": id,
        "name": text(said.get("Name")),
        "driver": docker_network.word(driver),
        "scope": docker_network.word(said.get("Scope")),
        "created": docker_store.time(said.get("Created")),
        "bridge": name if driver == "bridge" and docker_network.is_link(name) else "",
        "default": options.get(DEFAULT_BRIDGE) == "true",
        "subnets": docker_network.subnets(pool.get("Subnet") for pool in pools),
        "gateways": docker_network.addresses(pool.get("Gateway") for pool in pools),
        "internal": said.get("Internal") is True,
        "ingress": said.get("Ingress") is True,
    }
    if driver in docker_network.DUMMIES and docker_network.is_link(options.get("parent")):
        facts["parent"] = options["parent"]
    return facts


def container(id: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """What the list says of a container, for one that could not be inspected."""
    names = [name.strip("/") for name in strings(said.get("Names"))]  # "/other/alias" too, of a legacy link
    whole = docker_store.described(
        id,
        {"NetworkSettings": said.get("NetworkSettings"), "Config": {"Image": said.get("Image")}},
        mapping(said.get("HostConfig")),
    )
    told = ("id", "image", "networks", "endpoints", "ends", "network_mode", "host_network", "shares")
    facts = {key: whole[key] for key in told}
    facts["name"] = next((name for name in names if "/" not in name), "")
    return facts | {"state": STATES.get(text(said.get("State")), "stopped")}


def with_ends(stored: Iterable[Record], records: Iterable[Record]) -> list[Record]:
    """The endpoints that the store has, and those that containers have: a swarm's are not in the store."""
    found = {record.name: record for record in stored}
    for record in records:
        for end in record.facts["ends"] if record.type == "docker" else ():
            id = end["id"]
            older = found[id].facts if id in found else docker_network.blank_endpoint(id)
            said = {**end, "container": record.name, "sandbox": record.facts["sandbox_id"]}
            facts = {key: said.get(key) or value for key, value in older.items()}
            facts["name"] = older["name"] or record.facts["name"]
            found[id] = Record("docker-endpoint", id, record.source, facts)
    return [record for _, record in sorted(found.items())]


def in_swarm(info: Mapping[str, Any]) -> bool:
    return text(mapping(info.get("Swarm")).get("LocalNodeState")) not in ("", "inactive")


# -- verbs ------------------------------------------------------------------------------------------------------------


def stop(host: Host, records: Sequence[Record], deadline: Deadline, socket: str = SOCKET) -> dict[str, str]:
    """Ask running containers (of records "docker") to stop, all at once, and wait for them until the deadline. Nothing
    is ever forced. The daemon must be alive.

    Does nothing, and returns {}, unless live-restore is on: else the daemon stops all containers in good order when it
    is stopped itself, which the package's prerm does. One that is removed when it stops (--rm) could not be started
    again, and is left out.

    Each is sent its own stop signal (POST /containers/ID/kill), which POST /containers/ID/stop begins with. That would
    take a connection for each container, and kill it in the end or, with t=-1, wait without one. By its signal dockerd
    knows that it is a stop, for which no restart policy counts (daemon/kill.go, killWithSignal). A first process that
    has no handler for it does not hear it.

    Returns, by Record.name, why a container did not come down.
    """
    wanted = {record.name for record in records if record.type == "docker" and record.facts.get("state") == "running"}
    if not wanted:
        return {}
    try:
        info = get(host, socket, INFO, deadline.within(ANSWER), dict)
    except Unreadable as error:
        return dict.fromkeys(sorted(wanted), str(error))
    if info.get("LiveRestoreEnabled") is not True:
        return {}
    causes: dict[str, str] = {}
    waiting: set[str] = set()
    for id in sorted(wanted):
        try:
            said = get(host, socket, f"/containers/{id}/json", deadline.within(ANSWER), dict)
            if mapping(said.get("HostConfig")).get("AutoRemove") is not False or said.get("Id") != id:
                continue
            if mapping(said.get("State")).get("Running") is True:
                signal = quote(text(mapping(said.get("Config")).get("StopSignal")) or "SIGTERM", safe="")
                post(host, socket, f"/containers/{id}/kill?signal={signal}", deadline)
                waiting.add(id)
        except Unreadable as error:
            if not error.cause.startswith(("HTTP status 404", "HTTP status 409")):  # gone, or not running
                causes[id] = line(error.cause)
    seen, fault = watch(host, socket, deadline, lambda states: not any(running(states, id) for id in waiting))
    for id in waiting:
        if seen is None or running(seen, id):
            causes[id] = fault or f"not down in time: it is {(seen or {}).get(id, 'not known')}"
    return causes


def start(host: Host, names: Sequence[str], deadline: Deadline, socket: str = SOCKET) -> dict[str, str]:
    """Start containers (ids) that were asked to stop, and wait until they are up or the deadline is.

    One may only now be coming down: it counts as up when it runs after it was started here, or has run for SETTLE
    seconds. Returns, by id, why a container is not up.
    """
    causes: dict[str, str] = {}
    waiting = set(names)
    asked: set[str] = set()
    refused: dict[str, str] = {}
    since: dict[str, float] = {}

    def judge(states: Mapping[str, str]) -> bool:
        down = []
        for id in sorted(waiting):
            if id not in states:
                causes[id] = "there is no such container"
            elif running(states, id):
                if id not in asked and time.monotonic() - since.setdefault(id, time.monotonic()) < SETTLE:
                    continue
            elif id in asked:
                causes[id] = f"its start has ended, and it is {states[id]}"
            else:
                since.pop(id, None)
                down.append(id)
                continue
            waiting.discard(id)
        # One that has the network of another cannot be started before that: what is refused is asked for again, as long
        # as another one comes up.
        before = 0
        while down and len(down) != before:
            before = len(down)
            for id in list(down):
                try:
                    post(host, socket, f"/containers/{quote(id, safe='')}/start", deadline)
                    asked.add(id)
                    down.remove(id)
                except Unreadable as error:
                    if id not in refused or not deadline.passed():  # else it was only cut off
                        refused[id] = line(error.cause)
        if waiting == set(down):
            causes.update((id, refused[id]) for id in down)
            waiting.clear()
        return not waiting

    seen, fault = watch(host, socket, deadline, judge)
    for id in waiting:
        # What runs when the deadline comes is up as far as anybody can tell.
        if fault or not running(seen or {}, id):
            last = f"not up in time: it is {(seen or {}).get(id, 'not there')}"
            causes[id] = fault or (last if id in asked else refused.get(id, last))
    return causes


def watch(
    host: Host, socket: str, deadline: Deadline, done: Callable[[Mapping[str, str]], bool]
) -> tuple[Mapping[str, str] | None, str]:
    """Look at the states of all containers until `done` says so of them, or the deadline is. Returns the last ones,
    None if there was no look, and the fault if the looks after that failed."""
    states: dict[str, str] | None = None
    faults: list[str] = []
    while len(faults) < LOOKS and not ((states is not None or faults) and deadline.passed()):
        try:
            listed = get_list(host, socket, CONTAINERS, deadline.within(ANSWER))
            states = {text(each.get("Id")): line(text(each.get("State"))) for each in listed}
            faults.clear()
            if done(states):
                break
        except Unreadable as error:
            if states is not None and deadline.passed():
                break  # it was only cut off: what was seen before holds
            faults.append(str(error))
        time.sleep(min(POLL, deadline.left()))
    return states, "".join(faults[-1:])


def running(states: Mapping[str, str], id: str) -> bool:
    return STATES.get(states.get(id, "")) == "running"


def post(host: Host, socket: str, url: str, deadline: Deadline) -> None:
    # A body of more than seven bytes would be a host configuration, of old (container_routes.go, postContainersStart).
    unix_http.send(host, socket, "POST", url, {}, deadline.within(ANSWER))


def line(cause: str) -> str:
    """What the daemon said, as one line that can be printed."""
    return " ".join("".join(c if files.proper(c) or c == "/" else " " for c in cause).split())[:300]
