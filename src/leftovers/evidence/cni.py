"""What CNI's library and plugins write down: results, leases, configurations; and the names that they compute.

All containerds of a host, CRI-O and podman share these directories: only the container's id, or the configuration that
names its runtime's files, says whose an entry is. Sources: containernetworking/cni libcni/api.go (cacheAdd), SPEC.md;
containernetworking/plugins pkg/utils/utils.go, plugins/meta/{portmap,bandwidth}, plugins/ipam/host-local/backend/disk;
projectcalico/calico workload_endpoint_default.go; cilium pkg/datapath/connector.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import Any

from leftovers.errors import Unreadable
from leftovers.evidence import containerd, files, json_text
from leftovers.evidence.files import note
from leftovers.evidence.json_text import mapping, objects, strings, text
from leftovers.host import Host
from leftovers.model import Record

__all__ = ["calico_link", "chain", "cilium_links", "ifb", "read_conf", "read_leases", "read_results", "read_scratch"]

DIRECTORY = "/var/lib/cni"
LIMIT = 4 * files.MIB
CONFIGURATIONS = (".conf", ".conflist", ".json")  # libcni/conf.go, ConfFiles
ADDRESS = re.compile(r"[0-9a-fA-F.:]{2,45}(/[0-9]{1,3})?\Z")
# libcni/api.go: any of these; nerdctl gives NAMESPACE-ID, each of which may have 76 (containerd pkg/identifiers).
CONTAINER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,159}\Z")


# -- names that are computed ----------------------------------------------------------------------------------------


def digest(network: str, id: str) -> str:
    return hashlib.sha512((network + id).encode("utf-8", "surrogateescape")).hexdigest()


def chain(prefix: str, network: str, id: str) -> str:
    """The chain of one container: "CNI-" for masquerading, "CNI-DN-" (before 0.8 also "CNI-SN-") for published ports
    (pkg/utils/utils.go, MustFormatChainNameWithPrefix)."""
    return f"{prefix}{digest(network, id)}"[:28]


def ifb(network: str, id: str) -> str:
    """The link by which the bandwidth plugin shapes one container's traffic."""
    return f"bwp{digest(network, id)}"[:15]


def calico_link(namespace: str, pod: str, prefix: str = "cali") -> str:
    """The host's end of a pod's veth (VethNameForWorkload)."""
    return prefix + hashlib.sha1(f"{namespace}.{pod}".encode()).hexdigest()[:11]


def cilium_links() -> frozenset[str]:
    """The names that Cilium gives the host's ends of all endpoints that there can be (Endpoint2IfName)."""
    return frozenset("lxc" + hashlib.sha256(str(number).encode()).hexdigest()[:12] for number in range(1 << 16))


# -- what is written down -------------------------------------------------------------------------------------------


def is_container(id: object) -> bool:
    return isinstance(id, str) and CONTAINER.match(id) is not None


def read_results(host: Host, directory: str = DIRECTORY) -> tuple[list[Record], list[str]]:
    """Records "cni" of all results, whosever they are, named by path.

    Facts: id, network, ifname, netns (path), pod, pod_namespace, pod_uid, sandbox (the id, if CRI made it), links (of
    the host's namespace), addresses, gateways,
    and of the configuration: plugins (types), bridges, devices (host-device's), paths (all that it names).
    """
    faults: list[str] = []
    records = []
    for name, is_directory in files.entries(host, directory, "results", faults):
        entry = None if is_directory else json_text.read(host, directory, f"results/{name}", LIMIT, faults)
        if entry is None:
            continue
        id, network, interface = entry.get("containerId"), text(entry.get("networkName")), text(entry.get("ifName"))
        if entry.get("kind") != "cniCacheV1" or not is_container(id) or not network or not interface:
            continue  # before 0.8 the result stood there alone: it does not say whose it is
        if name != f"{network}-{id}-{interface}":
            note(faults, f"{directory}/results/{name}", "is named for another container")
            continue
        given = entry.get("cniArgs")
        pairs = [strings(pair) for pair in given] if isinstance(given, list) else []
        arguments = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
        facts = {
            "id": id,
            "network": network,
            "ifname": interface,
            "netns": entry["netns"] if json_text.is_path(entry.get("netns")) else "",
            "pod": arguments.get("K8S_POD_NAME", ""),
            "pod_namespace": arguments.get("K8S_POD_NAMESPACE", ""),
            "pod_uid": arguments.get("K8S_POD_UID", ""),
            "sandbox": arguments.get("K8S_POD_INFRA_CONTAINER_ID", ""),
            **result(mapping(entry.get("result"))),
            **configuration(entry.get("config")),
        }
        records.append(Record("cni", f"{directory}/results/{name}", "disk", facts))
    return records, faults


def result(said: Any) -> dict[str, Any]:
    interfaces = objects(said.get("interfaces"))
    ips = objects(said.get("ips"))
    return {
        "links": [text(each.get("name")) for each in interfaces if not each.get("sandbox") and text(each.get("name"))],
        "addresses": [value for each in ips if ADDRESS.match(value := text(each.get("address")))],
        "gateways": [value for each in ips if ADDRESS.match(value := text(each.get("gateway")))],
    }


def configuration(encoded: Any) -> dict[str, Any]:
    """What the configuration in a result says; it is a JSON text in base64 (Go's []byte)."""
    try:
        return described(json_text.load(base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else b""))
    except (ValueError, binascii.Error):
        return described({})


def described(document: dict[str, Any]) -> dict[str, Any]:
    plugins = objects(document.get("plugins")) or [document]
    bridges = [text(each.get("bridge")) or "cni0" for each in plugins if each.get("type") == "bridge"]
    # flannel delegates to bridge (flannel-io/cni-plugin flannel_linux.go).
    delegates = [mapping(each.get("delegate")) for each in plugins if each.get("type") == "flannel"]
    bridges += [text(each.get("bridge")) or "cni0" for each in delegates]
    return {
        "plugins": [text(each.get("type")) for each in plugins if text(each.get("type"))],
        "bridges": sorted(set(bridges)),
        "devices": [text(each.get("device")) for each in plugins if each.get("type") == "host-device"],
        "paths": json_text.paths(document),
    }


def read_leases(host: Host, directory: str = f"{DIRECTORY}/networks") -> tuple[list[Record], list[str]]:
    """Records "lease" of host-local's addresses, whosever they are, named by path. Facts: id, ifname, network, address.

    A file is named for its address and holds the id and, since 0.8, the interface in a second line (backend.go)."""
    faults: list[str] = []
    records = []
    for network in files.directories(host, directory, "", faults):
        for name, is_directory in files.entries(host, directory, network, faults):
            if is_directory or not ADDRESS.match(name):
                continue  # lock, last_reserved_ip.0
            path = f"{directory}/{network}/{name}"
            try:
                lines = (files.read(host, directory, f"{network}/{name}", files.MIB) or b"").decode().split("\n")
            except Unreadable as error:
                note(faults, error.what, error.cause)
                continue
            except UnicodeDecodeError:
                lines = []
            words = [line.removesuffix("\r") for line in lines]
            if not words or not is_container(words[0]) or len(words) > 3:
                note(faults, path, "no lease of a container")
                continue
            ifname = words[1] if len(words) > 1 and files.is_name(words[1]) else ""
            facts = {"id": words[0], "ifname": ifname, "network": network, "address": name}
            records.append(Record("lease", path, "disk", facts))
    return records, faults


def read_scratch(host: Host, directory: str = f"{DIRECTORY}/flannel") -> tuple[list[Record], list[str]]:
    """Records "scratch" of what flannel's plugin keeps of each container, named by path. Facts: id."""
    faults: list[str] = []
    names = [name for name, is_directory in files.entries(host, directory, "", faults) if not is_directory]
    return [
        Record("scratch", f"{directory}/{name}", "disk", {"id": name}) for name in names if containerd.is_id(name)
    ], faults


def read_conf(host: Host, directory: str) -> tuple[list[Record], list[str]]:
    """Records "conflist" of the configurations in a directory, named by path; those that are no JSON have no network.
    `directory` itself may be a symlink. Facts: network, plugins, bridges, devices, paths, gateways (of host-local's
    ranges), nerdctl (its id of the network, "" if it did not write it)."""
    faults: list[str] = []
    records = []
    for name, is_directory in files.entries(host, directory, "", faults):
        if not is_directory and name.endswith(CONFIGURATIONS):
            document = json_text.read(host, directory, name, LIMIT, faults) or {}
            facts = {"network": text(document.get("name")), **described(document), "nerdctl": of_nerdctl(document)}
            records.append(Record("conflist", f"{directory}/{name}", "disk", facts | {"gateways": gateways(document)}))
    return records, faults


def gateways(document: dict[str, Any]) -> list[str]:
    found = []
    for plugin in objects(document.get("plugins")) or [document]:
        ipam = mapping(plugin.get("ipam"))
        ranges = ipam.get("ranges")
        some = ranges[:RANGES] if isinstance(ranges, list) else []
        for each in (ipam, *(one for inner in some for one in objects(inner))):
            if ADDRESS.match(gateway := text(each.get("gateway"))):
                found.append(gateway)
    return sorted(set(found))


RANGES = 100


def of_nerdctl(document: dict[str, Any]) -> str:
    """nerdctl's id of a network, which it computes from its name (containerd/nerdctl pkg/netutil/netutil.go,
    networkID). Who copies such a file for himself gives it another name, or no id."""
    name, id = text(document.get("name")), text(document.get("nerdctlID"))
    return id if name and id == hashlib.sha256(name.encode()).hexdigest() else ""
