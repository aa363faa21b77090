"""What dockerd has written down of its networks: DATA-ROOT/network/files/local-kv.db (moby daemon/libnetwork/datastore,
internal/kvstore/boltdb). A key is docker/network/v1.0/TYPE/ID/, a value eight bytes of an index and JSON.

The types are libnetwork's own (network, endpoint, sandbox: network.go, endpoint.go, sandbox_store.go) and each driver's
(bridge, bridge-endpoint: bridge_store.go; macvlan/network, macvlan/endpoint and the same of ipvlan: *_store.go).
Networks of a swarm are not there, but for the bridge that each member has of its own, docker_gwbridge.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from leftovers.errors import Unreadable
from leftovers.evidence import bolt, containerd, docker_store, files, json_text
from leftovers.evidence.files import note
from leftovers.evidence.json_text import mapping, objects, text
from leftovers.host import Host
from leftovers.model import Record

__all__ = ["DUMMIES", "FILE", "addresses", "blank_endpoint", "blank_network", "is_link", "read", "subnets", "word"]

FILE = "network/files/local-kv.db"
BUCKET = b"libnetwork"
PREFIX = b"docker/network/v1.0/"
INDEX = 8
SUBNET = re.compile(r"[0-9a-fA-F:.]{2,45}/[0-9]{1,3}\Z")
WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,254}\Z")
# Drivers that keep records of their own below NAME/network and NAME/endpoint, and what they call a parent of their own.
DUMMIES = {"macvlan": "dm-", "ipvlan": "di-"}

# By type and id.
Store = dict[str, dict[str, dict[str, Any]]]


def blank_network(id: str) -> dict[str, Any]:
    """The facts of a network of which only the id is known."""
    facts: dict[str, Any] = {"id": id, "name": "", "driver": "", "scope": "", "created": "", "bridge": ""}
    facts |= {"default": False, "creator": 0, "subnets": [], "gateways": [], "parent": "", "parent_created": False}
    return facts | {"internal": False, "ingress": False}


def blank_endpoint(id: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"id": id, "name": "", "network": "", "sandbox": "", "container": "", "address": ""}
    return facts | {"address6": "", "source_name": "", "mac": ""}


def read(host: Host, root: str) -> tuple[list[Record], list[str]]:
    """Records "docker-network" and "docker-endpoint", named by id.

    Facts of a network: id, name, driver, scope, created, bridge (its link), default (it is the one called "bridge"),
    creator (of the bridge: 1 dockerd, 2 somebody else, 0 unknown; of the default one 2 also says that it was there when
    dockerd was started last), subnets, gateways, parent (of macvlan and ipvlan), parent_created (by dockerd), internal,
    ingress. Of an endpoint: id, name (its container's), network, sandbox, container (ids), address, address6,
    source_name (what the end in the container was called before it went there), mac. One that only its driver has
    written down, or none but its driver has any more, has no name and no sandbox.
    """
    faults: list[str] = []
    try:
        entries = bolt.read(host, root, FILE)
    except Unreadable as error:
        note(faults, error.what, error.cause)
        return [], faults
    store = sorted_out(entries or [], f"{root}/{FILE}", faults)
    networks = {id: network(id, said) for id, said in store.get("network", {}).items()}
    for id, said in store.get("bridge", {}).items():
        networks.setdefault(id, {**blank_network(id), "driver": "bridge"}).update(bridge(said))
    for driver in DUMMIES:
        for id, said in store.get(f"{driver}/network", {}).items():
            networks.setdefault(id, {**blank_network(id), "driver": driver}).update(parent(said))
    records = [Record("docker-network", id, "disk", facts) for id, facts in sorted(networks.items())]
    records += [Record("docker-endpoint", id, "disk", facts) for id, facts in sorted(endpoints(store).items())]
    return records, faults


def sorted_out(entries: list[bolt.Entry], what: str, faults: list[str]) -> Store:
    """The JSON objects whose key and own word agree on their id."""
    store: Store = {}
    for path, key, value in entries:
        if path != (BUCKET,) or not key.startswith(PREFIX) or len(value) <= INDEX:
            continue  # the parent of a type has no value
        type, _, id = key[len(PREFIX) :].decode("utf-8", "replace").removesuffix("/").rpartition("/")
        if type.startswith("endpoint/"):
            type, _, network = type.partition("/")
        elif type == "endpoint_count":
            continue  # as it was until 28
        else:
            network = ""
        try:
            said = json_text.load(value[INDEX:])
        except ValueError as error:
            note(faults, f"{what} {ascii(key.decode('utf-8', 'replace'))[:200]}", f"not JSON: {str(error)[:200]}")
            continue
        # A sandbox of a swarm's is called "ingress_sbox", and the like.
        if (docker_store.is_network(id) or type == "sandbox") and id in (said.get("id"), said.get("ID")):
            if network:
                said["nid"] = network
            store.setdefault(type, {})[id] = said
    return store


def network(id: str, said: Mapping[str, Any]) -> dict[str, Any]:
    pools = [pool for key in ("ipamV4Info", "ipamV6Info") for pool in inner_list(said.get(key))]
    data = [inner(pool.get("IPAMData")) for pool in pools]
    return blank_network(id) | {
        "name": text(said.get("name")),
        "driver": word(said.get("networkType")),
        "scope": word(said.get("scope")),
        "created": docker_store.time(said.get("created")),
        "subnets": subnets(pool.get("Pool") for pool in data),
        "gateways": addresses(pool.get("Gateway") for pool in data),
        "internal": said.get("internal") is True,
        "ingress": said.get("ingress") is True,
    }


def bridge(said: Mapping[str, Any]) -> dict[str, Any]:
    name, creator = said.get("BridgeName"), said.get("BridgeIfaceCreator")
    return {
        "bridge": name if is_link(name) else "",
        "default": said.get("DefaultBridge") is True,
        "creator": creator if creator in (1, 2) and type(creator) is int else 0,
    }


def parent(said: Mapping[str, Any]) -> dict[str, Any]:
    name = said.get("Parent")
    return {"parent": name if is_link(name) else "", "parent_created": said.get("CreatedSubIface") is True}


def endpoints(store: Store) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    containers = {id: text(said.get("Cid")) for id, said in store.get("sandbox", {}).items()}
    for type in ("bridge-endpoint", *(f"{driver}/endpoint" for driver in DUMMIES)):
        for id, said in store.get(type, {}).items():
            facts = {"source_name": said.get("SrcName"), "mac": said.get("MacAddress")}
            found[id] = endpoint(id, said.get("nid"), {**facts, "addr": said.get("Addr"), "addrv6": said.get("Addrv6")})
    for id, said in store.get("endpoint", {}).items():
        interface = mapping(said.get("ep_iface"))
        facts = endpoint(id, said.get("nid"), {**interface, "source_name": interface.get("srcName")})
        older = found.get(id, facts)
        merged = {key: value or older[key] for key, value in facts.items()}
        sandbox = text(said.get("sandbox"))
        container = containers.get(sandbox, "")
        found[id] = merged | {
            "name": text(said.get("name")),
            "sandbox": sandbox if files.is_name(sandbox) else "",
            "container": container if containerd.is_unique(container) else "",
        }
    return found


def endpoint(id: str, network: Any, said: Mapping[str, Any]) -> dict[str, Any]:
    link, mac = said.get("source_name"), text(said.get("mac")).lower()
    return blank_endpoint(id) | {
        "network": network if isinstance(network, str) and docker_store.is_network(network) else "",
        "address": docker_store.address(said.get("addr")),
        "address6": docker_store.address(said.get("addrv6")),
        "source_name": link if is_link(link) else "",
        "mac": mac if docker_store.MAC.match(mac) else "",
    }


def addresses(values: Iterable[Any]) -> list[str]:
    return sorted({found for value in values if (found := docker_store.address(value))})


def subnets(values: Iterable[Any]) -> list[str]:
    return sorted({found for value in values if SUBNET.match(found := text(value))})


def is_link(value: Any) -> bool:
    """Whether this can be a link's name (net/core/dev.c, dev_valid_name)."""
    return files.is_name(value) and len(value.encode()) < 16 and not any(c in ": " for c in value)


def word(value: Any) -> str:
    found = text(value)
    return found if WORD.match(found) else ""


def inner(value: Any) -> Mapping[str, Any]:
    """The JSON object in a string."""
    try:
        return json_text.load(value.encode() if isinstance(value, str) else b"")
    except ValueError:
        return {}


def inner_list(value: Any) -> list[Mapping[str, Any]]:
    """The objects of the JSON list in a string."""
    found = inner(f'{{"list": {value}}}') if isinstance(value, str) else {}
    return objects(found.get("list"))
