"""What of a Docker that stays installed belongs to no container any more: dockerd was killed half-way, or lost one.

A thing is a container's by an id in it, or by what leads there: a process by its shim or its cgroup, a namespace by its
pin and who lives in it, a link by its other end, a proxy and a rule by the address and dockerd's own word whose that
is. It is an orphan when that container is known and dockerd does not know it; or, where dockerd alone makes such and
writes down for whom, when it is nobody's. What lives for a build is neither: BuildKit's containers are not dockerd's.

No age is told of anything. A container that is being removed looks as if it had been gone for long, one that is being
made as if it were not there: each is looked at twice (orphans.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from leftovers.claims import Case, Finding, real_exe
from leftovers.errors import Unreadable
from leftovers.evidence import bolt, containerd, docker_network, docker_settings, docker_store, files
from leftovers.host import Host
from leftovers.kinds.files import leads_to_remote
from leftovers.kinds.kind import Look
from leftovers.model import Evidence, Object, Record
from leftovers.products.containers.docker import ADDRESS, BRIDGE, DNAT, HAIRPIN, PIN, VETH
from leftovers.products.containers.known import containers, in_bundle, relative
from leftovers.products.containers.names import Runtime, rules
from leftovers.products.containers.network import in_networks
from leftovers.products.containers.processes import SCOPE, canonical, in_own_place
from leftovers.products.containers.rivals import is_shim, shim_argv

__all__ = ["orphans", "read_layers"]

# Below the data-root: what is mounted for one container, by its id (daemon/container_operations_unix.go; with
# containerd's image store daemon/snapshotter/mount.go), and by that of its layer.
OF_CONTAINER = re.compile(r"(?:containers|rootfs/[a-z0-9-]+)/(?P<id>[0-9a-f]{64})(?:/mounts/.+)?\Z")
OF_LAYER = re.compile(r"(?P<driver>overlay2|fuse-overlayfs)/(?P<layer>[0-9a-f]{64})/merged\Z")
# For a published port, in dockerd's own chain (port_mapping_linux.go), and against who comes by another way (28: raw).
ACCEPT = re.compile(
    rf"-d (?P<to>{ADDRESS})/(?:32|128) ! -i \S+ -o \S+ -p (?P<proto>tcp|udp|sctp) -m (?:tcp|udp|sctp)"
    r" --dport (?P<port>[0-9]+) -j ACCEPT\Z"
)
DIRECT = re.compile(rf"-d (?P<to>{ADDRESS})/(?:32|128) ! -i \S+ -j DROP\Z")
DRIVERS = ("overlay2", "fuse-overlayfs")
# btime is in whole seconds, and the clock may have been set since the boot.
SLACK = 5.0
PROXY = "docker-proxy"
# Its own arguments (cmd/docker-proxy/main_linux.go).
PROXY_OPTIONS = ("-proto", "-host-ip", "-host-port", "-container-ip", "-container-port")


# -- who is there ---------------------------------------------------------------------------------------------------


def existing(case: Case) -> frozenset[str] | None:
    """The ids of all containers that there are, running or not. None where that cannot be told: the daemon lives and
    does not answer (what looks half-made it may be making), its store could not be read, or there is another dockerd,
    whose containers look the same."""

    def make() -> frozenset[str] | None:
        infos = now(case, "docker-info")
        alive = daemons(case.objects("process"))
        if alive and any(info.facts["answered"] for info in infos):
            # What lies in a store that it does not use is of an older day.
            infos = [info for info in infos if info.facts["answered"]]
        if not infos or not all(info.facts["whole"] for info in infos) or len(alive) > 1:
            return None
        if alive and not all(info.facts["answered"] for info in infos):
            return None
        return frozenset(record.name for record in now(case, "docker"))

    found: frozenset[str] | None = case.cached("docker.existing", make)
    return found


def daemons(processes: Iterable[Object]) -> list[Object]:
    """All dockerds of root's on the host. Helpers of theirs run the same file under other names."""
    return [
        process
        for process in processes
        if real_exe(process).rpartition("/")[2] == "dockerd"
        and [each.rpartition("/")[2] for each in process.facts["argv"][:1]] == ["dockerd"]
        and process.facts["uid"] == 0
        and not process.facts["nested"]
    ]


def now(case: Case, type: str) -> list[Record]:
    """What is said at this look, before and after all was listed; not what once was."""

    def make() -> list[Record]:
        return [r for r in (*case.records_of(type), *case.later) if r.type == type and r.source != "ledger"]

    found: list[Record] = case.cached(f"docker.now.{type}", make)
    return found


def is_gone(case: Case, id: str) -> bool:
    ids = existing(case)
    return ids is not None and containerd.is_unique(id) and id not in ids and id not in plugins(case)


def plugins(case: Case) -> frozenset[str]:
    """The ids of what dockerd has in its other namespace: it does not list them among its containers."""

    def make() -> frozenset[str]:
        types = ("container", "shim", "runc")
        records = (record for type in types for record in case.records_of(type))
        return frozenset(str(record.facts["id"]) for record in records if record.facts["namespace"] != "moby")

    found: frozenset[str] = case.cached("docker.plugins", make)
    return found


def gone(id: str) -> Finding:
    return Finding(f"its container {id[:12]} is gone", (Evidence("api", f"dockerd has no container {id[:12]}"),))


def read_layers(look: Look) -> tuple[list[Record], list[str]]:
    """Records "docker-layer", named by id, of the layers that stand in the store for no container. Facts: layer (as of
    a record "docker"), old (it is from before any living dockerd was started, and so no build's)."""
    alive = daemons(look.objects("process"))
    settings, _ = docker_settings.read(look.host, alive[0].facts["argv"] if alive else ())
    mounts = {mount.facts["point"]: mount.facts for mount in look.objects("mount") if mount.facts["host"]}
    if leads_to_remote(look.host, mounts, f"{settings.root}/."):
        return [], []  # who reads the containers has said so
    answers = [layers_of(look.host, root, alive) for root in docker_store.roots(look.host, settings.root)]
    records = [record for found, _ in answers for record in found]
    records += written(look.host, docker_store.roots(look.host, settings.root))
    return records, [fault for _, said in answers for fault in said]


def written(host: Host, roots: Iterable[str]) -> list[Record]:
    """Records "docker-change", named by data-root, with the number of the last transaction in the store of networks."""
    records = []
    for root in roots:
        with suppress(Unreadable):
            known = bolt.metas(files.read(host, root, docker_network.FILE, bolt.LIMIT) or b"")
            facts = {"number": max((meta.number for meta in known), default=0)}
            records.append(Record("docker-change", root, "disk", facts))
    return records


def layers_of(host: Host, root: str, alive: Iterable[Object]) -> tuple[list[Record], list[str]]:
    faults: list[str] = []
    records = []
    born = [started(host, process) for process in alive]
    there = set(files.directories(host, root, "containers", faults))
    for driver in DRIVERS:
        base = f"image/{driver}/layerdb/mounts"
        for id in filter(containerd.is_unique, files.directories(host, root, base, faults)):
            if id in there:
                continue
            try:
                changed = os.lstat(host.path(f"{root}/{base}/{id}")).st_mtime
            except OSError:
                continue
            layer = docker_store.layer(host, root, driver, id, faults)
            old = all(0 < changed < since - SLACK for since in born)
            records.append(Record("docker-layer", id, "disk", {"layer": layer, "old": old}))
    return records, faults


def started(host: Host, process: Object) -> float:
    """When a process was started, in seconds since the epoch; 0 where that cannot be told."""
    try:
        lines = host.read("/proc/stat").splitlines()
        boot = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
    except (OSError, StopIteration, ValueError):
        return 0.0
    return boot + float(process.facts["start"]) / os.sysconf("SC_CLK_TCK")


# -- processes, cgroups ---------------------------------------------------------------------------------------------


def cgroup_id(runtime: Runtime, case: Case, path: str) -> str:
    """The container whose cgroup this is, or is below: the outermost, for a container may have a Docker in it."""
    for name in path.strip("/").split("/"):
        match = SCOPE.match(name)
        if match:
            own = match["by"] in (None, "docker") and match["id"] in containers(runtime, case)
            return match["id"] if own else ""
    return ""


def container_id(runtime: Runtime, case: Case, process: Object) -> str:
    """The container of which a process is, or whose shim it is; "" if it is no container's, or that is not to be seen.
    Plugins are no containers."""
    if is_shim(process):
        told = shim_argv(process)
        return told["id"] if told["namespace"] == runtime.namespaces[0] else ""
    id = cgroup_id(runtime, case, process.facts["cgroup"])
    parent = case.process(process.facts["ppid"])
    if not id and parent is not None and is_shim(parent) and case.is_proven("process", parent.key):
        id = container_id(runtime, case, parent)
    if not id:
        running: dict[tuple[int, int], str] = case.cached(
            "docker.runc",
            lambda: {
                (record.facts["pid"], record.facts["start"]): record.facts["bundle"]
                for record in case.records_of("runc")
            },
        )
        bundle = running.get((process.facts["pid"], process.facts["start"]), "")
        id = in_bundle(runtime, case, bundle) if bundle else ""
    return id


def process(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A shim, and what runs in its container, also where that was only half made."""
    id = container_id(runtime, case, obj)
    return gone(id) if is_gone(case, id) else None


def proxy(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """Who passes a published port on. dockerd ends it with its container, or takes it with itself (Pdeathsig); but 26
    starts it anew for a sandbox that it finds written down, and keeps it when the container is removed that never
    ran."""
    if obj.facts["nested"] or real_exe(obj).rpartition("/")[2] != PROXY:
        return None
    argv = obj.facts["argv"][1:]
    told = {name: value for name, value in zip(argv, argv[1:]) if name in PROXY_OPTIONS}  # noqa: B905 - the last
    if len(told) != len(PROXY_OPTIONS):
        return None
    return port(case, told["-proto"], told["-container-ip"], told["-container-port"], told["-host-port"])


def cgroup(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    id = cgroup_id(runtime, case, obj.facts["path"])
    return gone(id) if is_gone(case, id) else None


# -- network namespaces, links --------------------------------------------------------------------------------------


def sandboxes(case: Case) -> Mapping[str, str]:
    """By the name of its pin, whose each sandbox is that somebody knows: "" if it is not known to be one's that is
    gone."""

    def make() -> dict[str, str]:
        found = {}
        for record in now(case, "docker-endpoint"):
            if record.facts["sandbox"]:
                id = str(record.facts["container"])
                found[record.facts["sandbox"][:12]] = id if is_gone(case, id) else ""
        for record in now(case, "docker"):
            for path in filter(None, (record.facts["sandbox"], record.facts.get("sandbox_id", ""))):
                found[str(path).rpartition("/")[2][:12]] = ""
        return found

    table: dict[str, str] = case.cached("docker.sandboxes", make)
    return table


def netns(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A container's network namespace: all who live in it are of one that is gone, and its pin is no sandbox of one
    that is there."""
    facts = obj.facts
    if facts["host"] or existing(case) is None:
        return None
    said = []
    for pin in map(canonical, facts["pins"]):
        name = pin.rpartition("/")[2]
        if not in_own_place(runtime, case, pin) or not PIN.match(name) or sandboxes(case).get(name, "-") == "":
            return None
        owner = sandboxes(case).get(name, "")
        said.append(Evidence("api", f"{pin} is of container {owner[:12]}" if owner else f"{pin} is of no container"))
    ids = set()
    for pid in facts["processes"]:
        other = case.process(pid)
        id = container_id(runtime, case, other) if other and case.is_proven("process", str(pid)) else ""
        if not is_gone(case, id):
            return None
        ids.add(id)
    for id in ids:
        return Finding(gone(id).reason, (*gone(id).evidence, *said))
    return Finding("it is the network of no container", tuple(said)) if said else None


def link(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The host's end of a container's veth, or an end of one that never came into a container."""
    facts = obj.facts
    if not facts["host"] or existing(case) is None:
        return None
    if facts["type"] == "bridge":
        return bridge(obj, case)
    if facts["type"] != "veth":
        return None
    if facts["peer_netns"] == facts["netns"]:
        return stranded(obj, case)
    if not facts["peer_netns"]:
        # As it is proven (docker.py): nobody lives where the other end is, and no pin leads there.
        said = Evidence("kernel", "its other end is where no process lives, and no pin leads to")
        return Finding("no container has its other end", (said,)) if VETH.match(obj.key) else None
    # Asked when all that can be proven is.
    proven_ones = case.cached("docker.netns", lambda: {each.facts["inode"]: each for each in case.proven("netns")})
    other = proven_ones.get(facts["peer_netns"])
    return netns(runtime, other, case) if other is not None else None


def bridge(obj: Object, case: Case) -> Finding | None:
    """The bridge of a network that is gone, of a name that only dockerd computes, with no port. The networks of a swarm
    come and go by its leader's word: there only an answer tells."""
    match = BRIDGE.match(obj.key)
    if match is None or not all(record.facts["answered"] for record in now(case, "docker-info")):
        return None
    for record in now(case, "docker-network"):
        if record.facts["bridge"] == obj.key or record.name.startswith(match["id"]):
            return None
    if any(each.facts["master"] == obj.key for each in case.objects("link") if each.facts["host"]):
        return None
    said = Evidence("api", f"dockerd has no network {match['id']}, and it has no port")
    return Finding(f"its network {match['id']} is gone", (said,))


def stranded(obj: Object, case: Case) -> Finding | None:
    """Both ends are in the host's namespace, as dockerd makes them. Up to 27 it moves the one only when runc has made
    the container, which may take long; but it has written down for which sandbox by then."""
    names = {obj.key, str(obj.facts["peer"])}
    for record in now(case, "docker-endpoint"):
        if record.facts["source_name"] not in names:
            continue
        id = str(record.facts["container"])
        if id or record.facts["sandbox"]:
            return gone(id) if is_gone(case, id) else None
        said = Evidence(
            record.source, f"dockerd has it written down for its endpoint {record.name[:12]}, in no sandbox"
        )
        return Finding("it never came into a container", (said,))
    said = Evidence("kernel", f"its other end, {obj.facts['peer']}, is in the host's namespace too")
    unknown = Evidence("disk", "dockerd has it not written down")
    # One that was no port yet is only perhaps dockerd's.
    return Finding("it never came into a container", (said, unknown), proven=case.is_proven("link", obj.key))


# -- published ports ------------------------------------------------------------------------------------------------


def users(case: Case) -> Mapping[str, list[str]]:
    """By address, the ids of the containers whose it is, as far as they are there; "" for whose is not known."""

    def make() -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}

        def add(facts: Mapping[str, Any], id: str) -> None:
            for address in filter(None, (facts.get("address", ""), facts.get("address6", ""))):
                found.setdefault(str(address), []).append(id)

        for record in now(case, "docker-endpoint"):
            id = str(record.facts["container"])
            add(record.facts, id if containerd.is_unique(id) else "")
        for record in now(case, "docker"):
            for end in record.facts.get("ends", ()):
                add(end, record.name)
        return found

    table: dict[str, list[str]] = case.cached("docker.users", make)
    return table


def port(case: Case, proto: str, address: str, inner: str, outer: str = "") -> Finding | None:
    """What dockerd has for a published port of a container with this address: nobody there has the address or
    publishes the port. A swarm's ports are no container's."""
    if existing(case) is None or any(record.facts.get("swarm") for record in now(case, "docker-info")):
        return None
    outside: set[tuple[str, str]] = case.cached(
        "docker.outside",
        lambda: {(each["proto"], str(each["port"])) for r in now(case, "docker") for each in r.facts["ports"]},
    )
    if (proto, outer) in outside:
        return None
    subnets = [str(each) for record in now(case, "docker-network") for each in record.facts["subnets"]]
    if subnets and not in_networks([address], subnets):
        return None  # of no container's: somebody has his own rule there
    owners = users(case).get(address, [])
    if any(not is_gone(case, id) for id in owners):
        return None
    where = f"{address}:{inner}" if inner else address
    if owners:
        said = Evidence("disk", f"{where} was container {owners[0][:12]}")
        return Finding(gone(owners[0]).reason, (*gone(owners[0]).evidence, said))
    return Finding("no container has its address", (Evidence("api", f"no container has the address {address}"),))


def changed(case: Case) -> bool:
    """Whether dockerd has written about its networks while all was listed. A container may have come and gone again
    then, and the next one with that address has the very same rules: a second look does not tell them apart."""
    return len({(record.name, record.facts["number"]) for record in now(case, "docker-change")}) > len(
        {record.name for record in now(case, "docker-change")}
    )


def rule(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A rule for one container's address, in the words that dockerd writes."""
    facts = obj.facts
    text, place = str(facts.get("rule", "")), (facts["table"], facts["chain"])
    if not text or facts.get("comment") or changed(case):
        return None
    if place == ("nat", "DOCKER") and (match := DNAT.match(text)):
        return port(case, match["proto"], match["to"], match["port"], match["outer"])
    if place == ("filter", "DOCKER") and (match := ACCEPT.match(text)):
        return port(case, match["proto"], match["to"], match["port"])
    if place == ("nat", "POSTROUTING") and (match := HAIRPIN.match(text)) and match["one"] == match["two"]:
        return port(case, match["proto"], match["one"], match["port"])
    if place == ("raw", "PREROUTING") and (match := DIRECT.match(text)):
        return port(case, "", match["to"], "")
    return None


# -- mounts, files --------------------------------------------------------------------------------------------------


def mount(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A mount that is named for a container, or the file system of one: by who runs in it, by the layer's own word."""
    point, facts = obj.facts["point"], obj.facts
    if existing(case) is None:
        return None
    id = in_bundle(runtime, case, point.removesuffix("/rootfs")) if point.endswith("/rootfs") else ""
    if id:
        return gone(id) if is_gone(case, id) else None
    inner = relative(runtime, case, point, runtime.store) or ""
    match = OF_CONTAINER.match(inner)
    if match:
        return gone(match["id"]) if is_gone(case, match["id"]) else None
    match = OF_LAYER.match(inner)
    used = case.cached("docker.layers", lambda: {record.facts.get("layer") for record in now(case, "docker")})
    if match is None or match["layer"] in used:
        return None
    lives = rooted(case).get(facts["majmin"], [])
    ids = [container_id(runtime, case, process) if case.is_proven("process", process.key) else "" for process in lives]
    if any(not is_gone(case, id) for id in ids):
        return None
    # Nobody in it: it may be mounted for a build, but for none that began before the daemon did.
    layers = [record for record in now(case, "docker-layer") if record.facts["layer"] == match["layer"]]
    if layers and all(record.facts["old"] for record in layers):
        ids += [record.name for record in layers if is_gone(case, record.name)]
    return gone(ids[0]) if ids else None


def rooted(case: Case) -> dict[str, list[Object]]:
    """Who lives in each file system, by its device."""

    def make() -> dict[str, list[Object]]:
        found: dict[str, list[Object]] = {}
        for process in case.objects("process"):
            for majmin in (process.facts.get("mount_root") or ())[:1]:
                found.setdefault(majmin, []).append(process)
        return found

    table: dict[str, list[Object]] = case.cached("docker.rooted", make)
    return table


def file(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """What runc keeps of a container: it stays where the shim was killed. The empty files that namespaces were pinned
    on are dockerd's to collect, once in a minute (libnetwork/osl/namespace_linux.go, removeUnusedPaths)."""
    for record in now(case, "runc"):
        if record.facts["path"] == obj.key and in_bundle(runtime, case, record.facts["bundle"]) == record.facts["id"]:
            return gone(record.facts["id"]) if is_gone(case, record.facts["id"]) else None
    return None


KINDS = {
    "process": (process, proxy),
    "cgroup": (cgroup,),
    "netns": (netns,),
    "link": (link,),
    "xtables": (rule,),
    "mount": (mount,),
    "file": (file,),
}


def orphans(runtime: Runtime) -> dict[str, Any]:
    """The rules, as Product.orphans has them."""
    return {kind: rules(runtime, *some) for kind, some in KINDS.items()}
