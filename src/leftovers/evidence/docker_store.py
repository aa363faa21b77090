"""What dockerd has written down of its containers, below its --data-root. CONTAINER/config.v2.json and hostconfig.json
(moby daemon/container/container.go, toDisk) are there while the container is, running or not; what they say of a
process or a sandbox is of the last run, and where the daemon was killed it may be older than what really is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from leftovers.errors import Unreadable
from leftovers.evidence import containerd, files, json_text
from leftovers.evidence.files import note
from leftovers.evidence.json_text import mapping, number, objects, text
from leftovers.host import Host
from leftovers.model import Record

__all__ = [
    "MAC",
    "address",
    "blank",
    "described",
    "is_network",
    "layer",
    "read",
    "resolved",
    "roots",
    "run_path",
    "time",
]

LIMIT = 16 * files.MIB
TIME = re.compile(r"[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]{1,9})?(Z|[+-][0-9:]{5})\Z")
NEVER = "0001-01-01T00:00:00Z"  # Go's time.Time{}
PORT = re.compile(r"([0-9]{1,5})/(tcp|udp|sctp)\Z")
MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")
ADDRESS = re.compile(r"[0-9a-fA-F:.]{2,45}\Z")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\Z")
SWARM = re.compile(r"[0-9a-z]{25}\Z")
OWNER = re.compile(r"[0-9]{1,10}\.[0-9]{1,10}\Z")


def read(host: Host, root: str) -> tuple[list[Record], list[str]]:
    """Records "docker", named by id. Facts as `described` has them, and layer."""
    faults: list[str] = []
    records = []
    for id in filter(containerd.is_unique, files.directories(host, root, "containers", faults)):
        said = json_text.read(host, root, f"containers/{id}/config.v2.json", LIMIT, faults) or {}
        if said.get("ID") != id:
            continue
        settings = json_text.read(host, root, f"containers/{id}/hostconfig.json", LIMIT, faults) or {}
        facts = described(id, said, settings)
        facts["layer"] = layer(host, root, facts["driver"], id, faults)
        records.append(Record("docker", id, "disk", facts))
    return resolved(records), faults


def described(id: str, said: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a container by config.v2.json and hostconfig.json, or by `inspect`, which has the same shape.

    Facts: id, name, image (as it was asked for), created, state ("running" | "stopped" | "created"; paused and
    restarting ones run), pid (0: none), auto_remove, driver (of storage), networks (ids of those that it is in),
    endpoints (ids), ends (what is known of these: id, network, address, address6, mac), sandbox_id, sandbox (the pin
    of its network namespace: run_path), network_mode, host_network, shares (the id of the container whose network it
    has), ports (published: proto, host, port, inner).
    """
    network = mapping(said.get("NetworkSettings"))
    state = mapping(said.get("State"))
    joined = [mapping(each) for each in list(mapping(network.get("Networks")).values())[: json_text.STRINGS]]
    ends = [end(each) for each in joined if containerd.is_unique(text(each.get("EndpointID")))]
    mode = text(settings.get("NetworkMode"))
    sandbox, sandbox_id = network.get("SandboxKey"), text(network.get("SandboxID"))
    shared = mode.removeprefix("container:")
    driver = text(said.get("Driver"))
    return {
        "id": id,
        "name": text(said.get("Name")).strip("/"),
        "image": text(mapping(said.get("Config")).get("Image")),
        "created": time(said.get("Created")),
        "state": state_of(state),
        "pid": number(state.get("Pid")),
        "auto_remove": settings.get("AutoRemove") is True,
        "driver": driver if NAME.match(driver) else "",
        "networks": sorted({id for each in joined if is_network(id := text(each.get("NetworkID")))}),
        "endpoints": sorted({each["id"] for each in ends}),
        "ends": sorted(ends, key=lambda each: str(each["id"])),
        "sandbox_id": sandbox_id if containerd.is_unique(sandbox_id) else "",
        "sandbox": run_path(sandbox),
        "network_mode": mode,
        "host_network": mode == "host",
        "shares": shared if shared != mode and containerd.is_unique(shared) else "",
        "ports": ports(mapping(network.get("Ports"))),
    }


def blank(id: str) -> dict[str, Any]:
    """The facts of a container of which only the id is known."""
    return described(id, {}, {}) | {"state": "", "layer": ""}


def end(said: Mapping[str, Any]) -> dict[str, str]:
    network, mac = text(said.get("NetworkID")), text(said.get("MacAddress")).lower()
    return {
        "id": text(said.get("EndpointID")),
        "network": network if is_network(network) else "",
        "address": address(said.get("IPAddress")),
        "address6": address(said.get("GlobalIPv6Address")),
        "mac": mac if MAC.match(mac) else "",
    }


def address(value: Any) -> str:
    """An address without its prefix's length; "" for anything else."""
    found = text(value).partition("/")[0]
    return found if ADDRESS.match(found) else ""


def is_network(id: str) -> bool:
    """Whether this is the id of a network: random, and a swarm's is shorter (moby/swarmkit identity.NewID)."""
    return containerd.is_unique(id) or SWARM.match(id) is not None


def state_of(state: Mapping[str, Any]) -> str:
    """As container/state.go, State, says it, in fewer words."""
    if state.get("Running") is True or state.get("Restarting") is True:
        return "running"
    started = state.get("StartedAt")
    return "created" if started == NEVER and state.get("Dead") is not True else "stopped"


def time(value: Any) -> str:
    """A point in time as Go writes it (RFC 3339); "" for anything else."""
    return value if isinstance(value, str) and TIME.match(value) and value != NEVER else ""


def run_path(value: Any) -> str:
    """A path in /run as the kernel tells it: dockerd says /var/run, which Debian has as a symlink. "" if it is none."""
    if not json_text.is_path(value):
        return ""
    path = str(value)
    return path.removeprefix("/var") if path.startswith("/var/run/") else path


def ports(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What is published: {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}."""
    found = []
    for inner, places in list(said.items())[: json_text.STRINGS]:
        match = PORT.match(inner)
        for place in objects(places) if match else ():
            host, outer = text(place.get("HostIp")), text(place.get("HostPort"))
            if match and (not host or ADDRESS.match(host)) and outer.isascii() and outer.isdigit() and len(outer) < 6:
                found.append({"proto": match[2], "host": host, "port": int(outer), "inner": int(match[1])})
    return sorted(found, key=lambda each: (each["proto"], each["port"], each["host"], each["inner"]))


def resolved(records: list[Record]) -> list[Record]:
    """The same, where `host_network` also says so of those who have the network of another one that has the host's."""
    known = {record.name: record for record in records}
    made = []
    for record in records:
        seen: set[str] = set()
        other = record
        while other.facts["shares"] in known and other.name not in seen:
            seen.add(other.name)
            other = known[other.facts["shares"]]
        facts = {**record.facts, "host_network": other.facts["host_network"]}
        made.append(Record(record.type, record.name, record.source, facts))
    return made


def layer(host: Host, root: str, driver: str, id: str, faults: list[str]) -> str:
    """The directory below ROOT/DRIVER that is a container's file system (moby daemon/internal/layer/filestore.go,
    getMountDirectory); "" if there is none: in containerd's image store it is named for the container."""
    below = f"image/{driver}/layerdb/mounts/{id}/mount-id"
    try:
        said = (files.read(host, root, below, files.MIB) or b"").decode("ascii", "replace") if driver else ""
    except Unreadable as error:
        note(faults, error.what, error.cause)
        return ""
    return said if containerd.is_unique(said) else ""


def roots(host: Host, root: str) -> list[str]:
    """A data-root, and those in it that dockerd has made for --userns-remap, UID.GID (daemon/daemon_unix.go,
    setupDaemonRoot): one that has this has its whole store there."""
    faults: list[str] = []
    return [root, *(f"{root}/{name}" for name in files.directories(host, root, "", faults) if OWNER.match(name))]
