"""What Podman and its libraries write down: containers, pods, volumes, networks, and what runs.

Layout: containers/podman libpod/{sqlite_state,sqlite_state_internal,container,container_config,options}.go (db.sql in
the graph root); containers/storage containers.go (containers.json; CRI-O's and buildah's are in it too); containers/
common libnetwork/netavark/config.go (NETWORK.json); netavark src/firewall/state.rs (firewall/{networks,ports}); crun
src/libcrun/status.c (RUN/ID/status); runc libcontainer/container.go (RUN/ID/state.json). Only what is in db.sql is
Podman's by that word alone: a state of crun's or a layer of the store may be of any user of these.
"""

from __future__ import annotations

import re
from typing import Any

from leftovers.errors import Unreadable
from leftovers.evidence import bolt, files, incus_database, json_text
from leftovers.evidence.files import note
from leftovers.evidence.json_text import mapping, number, objects, strings, text
from leftovers.host import Host
from leftovers.model import Record

__all__ = [
    *("DEFAULT", "SCHEMA", "is_id", "is_pin", "read_database", "read_firewall", "read_networks", "read_persistent"),
    *("read_states", "read_store"),
]

LIMIT = 16 * files.MIB
ID = re.compile(r"[0-9a-f]{64}\Z")
# containers/common pkg/netns/netns_linux.go, NewNSAtWithName: 16 random bytes.
PIN = re.compile(r"netns-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
# libpod/define/containerstate.go.
STATES = {1: "created", 2: "created", 3: "running", 4: "stopped", 5: "running", 6: "stopped", 8: "running"}
SCHEMA = {
    "ContainerConfig": ("ID", "Name", "JSON"),
    "ContainerState": ("ID", "State", "JSON"),
    "PodConfig": ("ID", "Name"),
    "VolumeConfig": ("Name", "JSON"),
}
# The network that Podman has without being told (common pkg/config/default.go, libnetwork/netavark/network.go).
DEFAULT = {"name": "podman", "bridge": "podman0", "subnets": ["10.88.0.0/16"]}


def is_id(value: object) -> bool:
    return isinstance(value, str) and ID.match(value) is not None


def is_pin(path: str) -> bool:
    """Whether a path's last component is a name that containers/common gives to network namespaces."""
    return PIN.match(path.rpartition("/")[2]) is not None


def document(value: Any) -> dict[str, Any]:
    """A column's JSON object; {} for anything else."""
    try:
        return json_text.load(value if isinstance(value, bytes) else str(value).encode())
    except ValueError:
        return {}


def read_database(host: Host, graph: str) -> tuple[list[Record], list[str]]:
    """What is in GRAPH/db.sql, and in GRAPH/libpod/bolt_state.db, which Podman had before 4.8 and then goes on with:
    records "podman" (containers, by id), "podman-pod" (by id), "podman-volume" (by name)
    and one "podman-db" (by path of the file; facts: whole, store: the graph root that it was read in).

    Facts of a container: id, name, image, created, state, pid, conmon (pid), pod, infra (of a pod), netns (path),
    mount (its file system), static (its directory), networks, addresses, network_of (whose network it is in), cgroup
    (its parent), health (unit). Of a pod: id, name. Of a volume: path, device, options, type, driver.
    """
    records, faults = read_sqlite(host, graph)
    found, said = read_bolt(host, graph)
    return records + found, faults + said


def read_sqlite(host: Host, graph: str) -> tuple[list[Record], list[str]]:
    faults: list[str] = []
    path = f"{graph}/db.sql"
    tables = incus_database.load(host, path, SCHEMA, faults)
    if tables is None:
        return [], faults
    states = {row["ID"]: row for row in tables["ContainerState"]}
    records = []
    for row in tables["ContainerConfig"]:
        if not is_id(row["ID"]):
            note(faults, path, f"a container has the impossible id {ascii(row['ID'])[:80]}")
            continue
        state = states.get(row["ID"]) or {}
        # The column has what it was when it was made (seen on 5.4.2): what it is now is in the JSON.
        config, now = document(row["JSON"]), {"state": state.get("State"), **document(state.get("JSON", ""))}
        records.append(Record("podman", row["ID"], "disk", container(row["ID"], row["Name"], config, now)))
    for row in tables["PodConfig"]:
        if is_id(row["ID"]):
            facts = {"id": row["ID"], "name": text(row["Name"])}
            records.append(Record("podman-pod", row["ID"], "disk", facts))
    for row in tables["VolumeConfig"]:
        if files.is_name(row["Name"]):
            records.append(Record("podman-volume", row["Name"], "disk", volume(document(row["JSON"]))))
    records.append(Record("podman-db", path, "disk", {"whole": not faults, "store": graph}))
    return records, faults


def read_bolt(host: Host, graph: str) -> tuple[list[Record], list[str]]:
    """libpod/boltdb_state_internal.go: a bucket for each container below "ctr" and for each pod below "pod", with what
    SQLite has in columns as values, and for each volume below "vol"."""
    below, path = "libpod/bolt_state.db", f"{graph}/libpod/bolt_state.db"
    faults: list[str] = []
    try:
        entries = bolt.read(host, graph, below)
    except Unreadable as error:
        note(faults, error.what, error.cause)
        return [], faults
    if entries is None:
        return [], faults
    found: dict[tuple[str, str], dict[str, bytes]] = {}
    for buckets, key, value in entries:
        if len(buckets) == 2:
            place = tuple(each.decode("utf-8", "replace") for each in buckets)
            found.setdefault((place[0], place[1]), {})[key.decode("utf-8", "replace")] = value
    records = []
    for (kind, name), values in found.items():
        config = document(values.get("config", b""))
        if kind == "ctr" and is_id(name):
            now = document(values.get("state", b""))
            # The path of its namespace has a key of its own.
            pin = values.get("netns", b"").decode("utf-8", "replace")
            now = {**now, "netns": pin or now.get("netns")}
            records.append(Record("podman", name, "disk", container(name, config.get("name"), config, now)))
        elif kind == "pod" and is_id(name):
            records.append(Record("podman-pod", name, "disk", {"id": name, "name": text(config.get("name"))}))
        elif kind == "vol" and files.is_name(name):
            records.append(Record("podman-volume", name, "disk", volume(config)))
        elif kind in ("ctr", "pod"):
            note(faults, path, f"a {kind} has the impossible id {ascii(name)[:80]}")
    records.append(Record("podman-db", path, "disk", {"whole": not faults, "store": graph}))
    return records, faults


def container(id: str, name: Any, config: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    networks = mapping(config.get("newNetworks")) or {name: {} for name in strings(config.get("networks"))}
    addresses = []
    for status in mapping(now.get("networkStatus")).values():
        for interface in mapping(mapping(status).get("interfaces")).values():
            for each in objects(mapping(interface).get("subnets")):
                addresses.append(text(each.get("ipnet")).partition("/")[0])
    return {
        "id": id,
        "name": text(name),
        "image": text(config.get("rootfsImageName")) or text(config.get("rootfsImageID")),
        "created": text(config.get("createdTime")),
        # The column of 5.4.2 has what it was when it was made: what it is now is in the JSON.
        "state": STATES.get(number(now.get("state")), ""),
        "pid": number(now.get("pid")),
        "conmon": number(now.get("conmonPid")),
        "pod": config["pod"] if is_id(config.get("pod")) else "",
        "infra": config.get("pause") is True,
        "netns": now["netns"] if json_text.is_path(now.get("netns")) else "",
        "mount": now["mountPoint"] if json_text.is_path(now.get("mountPoint")) else "",
        "static": config["staticDir"] if json_text.is_path(config.get("staticDir")) else "",
        "networks": sorted(filter(None, map(text, networks))),
        "addresses": sorted(filter(None, addresses)),
        "network_of": config["netNsCtr"] if is_id(config.get("netNsCtr")) else "",
        "cgroup": text(config.get("cgroupParent")),
        "health": text(now.get("hcUnitName")),
    }


def volume(config: dict[str, Any]) -> dict[str, Any]:
    options = mapping(config.get("volumeOptions"))
    return {
        "path": config["mountPoint"] if json_text.is_path(config.get("mountPoint")) else "",
        "device": text(options.get("device")),
        "options": text(options.get("o")),
        "type": text(options.get("type")),
        "driver": text(config.get("volumeDriver")),
    }


def listed(host: Host, base: str, below: str, faults: list[str]) -> list[Any] | None:
    """The objects in a file that is one JSON list; [] where it is absent, None for a fault."""
    try:
        data = files.read(host, base, below, LIMIT)
        read = {"": []} if data is None else json_text.load(b'{"":' + data + b"}")
        value = read.get("")
        if len(read) == 1 and isinstance(value, list) and all(isinstance(each, dict) for each in value):
            return value
        note(faults, f"{base}/{below}", "not a list of JSON objects")
    except Unreadable as error:
        note(faults, error.what, error.cause)
    except ValueError as error:
        note(faults, f"{base}/{below}", f"not JSON: {str(error)[:200]}")
    return None


def read_store(host: Host, graph: str) -> tuple[list[Record], list[str]]:
    """What containers/storage has in a graph root, whosever it is: records "stored", by id of the container (facts:
    id, name, layer, by: "podman", "crio" or "", which is buildah's), and one "podman-store", by path, if the graph root
    is there (facts: whole, images, volumes, secrets: how many)."""
    faults: list[str] = []
    records = []
    entries = files.entries(host, graph, "", faults)
    if not entries:
        return [], faults
    # The driver's name is part of its directories' names; those of another driver are of another time.
    drivers = [name.removesuffix("-containers") for name, is_dir in entries if is_dir and name.endswith("-containers")]
    images = 0
    for driver in drivers:
        for name in ("containers.json", "volatile-containers.json"):
            for entry in listed(host, graph, f"{driver}-containers/{name}", faults) or ():
                if not is_id(entry.get("id")):
                    continue
                said = document(entry.get("metadata", ""))
                # storage's RuntimeContainerMetadata of CRI-O has "pod-id" (cri-o internal/storage/runtime.go), libpod's
                # has not (libpod/storage.go); buildah writes none.
                by = "crio" if "pod-id" in said else "podman" if said.get("image-id") or said.get("name") else ""
                facts = {
                    "id": entry["id"],
                    "name": text(said.get("name")),
                    "layer": entry["layer"] if is_id(entry.get("layer")) else "",
                    "driver": driver,
                    "by": by,
                }
                records.append(Record("stored", entry["id"], "disk", facts))
        for image in listed(host, graph, f"{driver}-images/images.json", faults) or ():
            names = strings(image.get("names"))
            # Podman makes that one itself, for its pods.
            images += not names or not all(name.startswith("localhost/podman-pause:") for name in names)
    volumes = files.directories(host, graph, "volumes", faults)
    secrets = [name for name, _ in files.entries(host, graph, "secrets", faults)]
    facts = {"whole": not faults, "images": images, "volumes": len(volumes), "secrets": len(secrets)}
    records.append(Record("podman-store", graph, "disk", facts))
    return records, faults


def read_persistent(host: Host, tmp: str) -> tuple[list[Record], list[str]]:
    """Records "persist", by id, of what libpod keeps of containers in its tmpdir (libpod/oci_conmon_common.go,
    --persist-dir): it is Podman's alone."""
    faults: list[str] = []
    names = files.directories(host, tmp, "persist", faults)
    return [
        Record("persist", id, "disk", {"id": id, "path": f"{tmp}/persist/{id}"}) for id in names if is_id(id)
    ], faults


def read_networks(host: Host, directory: str) -> tuple[list[Record], list[str]]:
    """Records "podman-network", by name, of the configurations of netavark in a directory. Facts: id, name, driver,
    bridge (its link), managed (Podman makes and removes that), subnets, gateways, path."""
    faults: list[str] = []
    records = []
    for name, is_directory in files.entries(host, directory, "", faults):
        said = (
            None if is_directory or not name.endswith(".json") else json_text.read(host, directory, name, LIMIT, faults)
        )
        if not said or text(said.get("name")) != name.removesuffix(".json"):
            continue
        subnets = objects(said.get("subnets"))
        facts = {
            "id": said["id"] if is_id(said.get("id")) else "",
            "name": said["name"],
            "driver": text(said.get("driver")) or "bridge",
            "bridge": text(said.get("network_interface")),
            # containers/common libnetwork/types/const.go, ModeOption
            "managed": text(mapping(said.get("options")).get("mode")) in ("", "managed"),
            "subnets": [text(each.get("subnet")) for each in subnets if text(each.get("subnet"))],
            "gateways": [text(each.get("gateway")) for each in subnets if text(each.get("gateway"))],
            "path": f"{directory}/{name}",
        }
        records.append(Record("podman-network", said["name"], "disk", facts))
    return records, faults


def read_firewall(host: Host, directory: str) -> tuple[list[Record], list[str]]:
    """Records "netavark" of what netavark has set up, by network id: facts: id, bridge, subnets, hash (in the names of
    its chains with iptables); and "port", by path: facts: id (of the container), network."""
    faults: list[str] = []
    records = []
    for name, is_directory in files.entries(host, directory, "networks", faults):
        said = None if is_directory else json_text.read(host, directory, f"networks/{name}", LIMIT, faults)
        if said and is_id(name) and said.get("network_id") == name:
            facts = {
                "id": name,
                "bridge": text(said.get("bridge_name")),
                "subnets": strings(said.get("subnets")),
                "hash": text(said.get("network_hash_name")),
            }
            records.append(Record("netavark", name, "disk", facts))
    for name, is_directory in files.entries(host, directory, "ports", faults):
        network, _, id = name.partition("_")
        if not is_directory and is_id(network) and is_id(id):
            path = f"{directory}/ports/{name}"
            records.append(Record("port", path, "disk", {"id": id, "network": network}))
    return records, faults


def read_states(host: Host, directory: str) -> tuple[list[Record], list[str]]:
    """Records "runtime", by path, of the containers that crun (status) or runc (state.json) has in its directory,
    whosever they are. Facts: id, pid, start (clock ticks since boot), bundle, rootfs, path."""
    faults: list[str] = []
    records = []
    for id in filter(is_id, files.directories(host, directory, "", faults)):
        said = json_text.read(host, directory, f"{id}/status", LIMIT, faults)
        if said is not None:
            pid, start, bundle = said.get("pid"), said.get("process-start-time"), said.get("bundle")
            rootfs = said.get("rootfs")
        else:
            said = json_text.read(host, directory, f"{id}/state.json", LIMIT, faults) or {}
            labels = [each for each in strings(mapping(said.get("config")).get("labels")) if each.startswith("bundle=")]
            pid, start = said.get("init_process_pid"), said.get("init_process_start")
            bundle = labels[0].removeprefix("bundle=") if len(labels) == 1 else ""
            rootfs = mapping(said.get("config")).get("rootfs")
        facts = {
            "id": id,
            "pid": number(pid),
            "start": number(start),
            "bundle": bundle if json_text.is_path(bundle) else "",
            "rootfs": rootfs if json_text.is_path(rootfs) else "",
            "path": f"{directory}/{id}",
        }
        records.append(Record("runtime", f"{directory}/{id}", "disk", facts))
    return records, faults
