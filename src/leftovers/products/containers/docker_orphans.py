"""What of an installed Docker's no container has: dockerd was killed between a creation and its record, or a shim's
container was taken away behind its back.

That a container is gone is only said where its daemon answered or all of its store could be read, and of things that
name their container: its id, its address, its layer, its sandbox. A build has such things without a container: what a
process stands on is in use by it. Nothing here is about a swarm's own namespaces, or about volumes.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace

from leftovers.claims import Case, Finding, Rule, real_exe
from leftovers.evidence import containerd
from leftovers.model import Evidence, Object
from leftovers.products.containers.docker import BRIDGE, DNAT, HAIRPIN, PIN
from leftovers.products.containers.names import Runtime, Tied, rules
from leftovers.products.containers.network import in_networks
from leftovers.products.containers.processes import SCOPE
from leftovers.products.containers.rivals import shim_argv

__all__ = ["orphans"]

ID = re.compile(r"[0-9a-f]{64}")
# A container's file system: by its own id in containerd's image store, by a layer's with a graph driver.
LAYER = re.compile(
    r"/(?P<driver>overlay2|fuse-overlayfs|btrfs/subvolumes|zfs/graph)/(?P<layer>[0-9a-f]{64})(/merged)?\Z"
)
OWN = re.compile(r"/(?:rootfs/[a-z0-9-]+/(?P<one>[0-9a-f]{64})|containers/(?P<two>[0-9a-f]{64})/mounts/.+)\Z")
ACCEPTED = re.compile(
    r"-d (?P<to>[0-9a-fA-F.:]+)/(?:32|128) ! -i \S+ (?:-o \S+ -p (?P<proto>tcp|udp|sctp) -m (?:tcp|udp|sctp)"
    r" --dport (?P<port>[0-9]+) -j ACCEPT|-j DROP)\Z"
)
TICKS = os.sysconf("SC_CLK_TCK")


def there(case: Case) -> dict[str, Evidence] | None:
    """The containers that exist, running or not, by id. None where that cannot be told: something could not be read, a
    dockerd lives and does not answer, or more than one live: their containers and rules look the same."""

    def make() -> dict[str, Evidence] | None:
        infos = [record for record in case.records_of("docker-info") if record.source != "ledger"]
        alive = [process for process in case.objects("process") if is_daemon(process)]
        if alive:
            # What lies in a store that it does not use is of an older day.
            infos = [record for record in infos if record.facts["answered"]]
        if not infos or not all(record.facts["whole"] for record in infos) or len(alive) > 1:
            return None
        return {
            record.name: Evidence(record.source, f"container {record.facts['name'] or record.name[:12]}")
            for record in case.records_of("docker")
            if record.source != "ledger"
        }

    found: dict[str, Evidence] | None = case.cached("docker.there", make)
    return found


def is_daemon(process: Object) -> bool:
    """Whether that is a dockerd of root's on the host. Helpers of it run the same file, under other names."""
    facts = process.facts
    names = [real_exe(process).rpartition("/")[2], *(each.rpartition("/")[2] for each in facts["argv"][:1])]
    return names == ["dockerd", "dockerd"] and facts["uid"] == 0 and not facts["nested"]


def gone(case: Case, id: str, *said: Evidence, start: int = 0) -> Finding | None:
    """The finding that a container is gone; None if it is there, or nobody can tell."""
    known = there(case)
    if known is None or not containerd.is_unique(id) or id in known or id in plugins(case):
        return None
    source = next(record.source for record in case.records_of("docker-info") if record.source != "ledger")
    all_of_them = Evidence(source, f"Docker has {len(known)} containers, and no {id[:12]}")
    facts = {"age": age(case, start)} if start else {}
    return Finding(f"its container {id[:12]} is gone", (all_of_them, *said), facts=facts)


def plugins(case: Case) -> set[str]:
    """The ids of what dockerd has in its other namespace: it does not list them among its containers."""

    def make() -> set[str]:
        types = ("container", "shim", "runc")
        records = (record for type in types for record in case.records_of(type))
        return {str(record.facts["id"]) for record in records if record.facts["namespace"] != "moby"}

    found: set[str] = case.cached("docker.plugins", make)
    return found


def age(case: Case, start: int) -> float:
    """For how long a process has lived at least, in seconds: so much later another one began."""
    last: int = case.cached("docker.last", lambda: max(each.facts["start"] for each in case.objects("process")))
    return max(0.0, (last - start) / TICKS)


# -- processes ------------------------------------------------------------------------------------------------------


def process(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A shim, or a container's process."""
    id = container_of(runtime, obj, case)
    return gone(case, id, start=obj.facts["start"]) if id else None


def container_of(runtime: Runtime, obj: Object, case: Case) -> str:
    """The id of the container that a process is of, "" if that is not to be told: by its shim, or by its cgroup."""
    told = shim_argv(obj)
    if told:
        return told["id"] if told["namespace"] == runtime.namespaces[0] and not obj.facts["nested"] else ""
    path = obj.facts["cgroup"]
    while path and path != "/":
        match = SCOPE.match(path.rpartition("/")[2])
        if match and match["by"] in (None, "docker") and case.is_proven("cgroup", path):
            return match["id"]
        path = path.rpartition("/")[0]
    parent = case.process(obj.facts["ppid"])
    return container_of(runtime, parent, case) if parent is not None and shim_argv(parent) else ""


def proxy(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A docker-proxy that passes on to an address that no container has."""
    argv = obj.facts["argv"]
    if not argv or argv[0].rpartition("/")[2] != "docker-proxy":
        return None
    told = dict(zip(argv[1:], argv[2:]))  # noqa: B905 - the last has no value
    outer = ("at", str(told.get("-proto")), str(told.get("-host-port")))
    finding = unused(case, str(told.get("-container-ip", "")), outer)
    return replace(finding, facts={"age": age(case, obj.facts["start"])}) if finding is not None else None


# A port as ("at", protocol, port of the host), ("to", protocol, port of the container).
Port = tuple[str, str, str]


def unused(case: Case, address: str, port: Port | None = None) -> Finding | None:
    """The finding that no container that exists has an address, or had it when it last ran, with that port."""
    known = there(case)
    if known is None or not address:
        return None
    subnets = [str(each) for record in case.records_of("docker-network") for each in record.facts["subnets"]]
    if subnets and not in_networks([address], subnets):
        return None  # of no container's: somebody has his own rule there
    user = addresses(case).get(address)
    if user is not None and (not user or port is None or port in user):
        return None
    which = f"the address {address}" + (f" and publishes port {port[2]}" if port and user else "")
    source = next(record.source for record in case.records_of("docker-info") if record.source != "ledger")
    said = Evidence(source, f"none of Docker's {len(known)} containers has {which}")
    return Finding(f"the container with the address {address} is gone", (said,))


def addresses(case: Case) -> dict[str, set[Port]]:
    """The addresses that a container has, or may have: nobody knows whose an endpoint is. One that does not run keeps
    the word of that which it had, also when another has it by now: of it, the ports that it publishes."""

    def make() -> dict[str, set[Port]]:
        known = there(case) or {}
        runs: set[str] = set()
        ports: dict[str, set[Port]] = {}
        for record in case.records_of("docker"):
            if record.source == "ledger":
                continue
            if record.facts["state"] == "running":
                runs.add(record.name)
            for each in record.facts["ports"]:
                both = {("at", each["proto"], str(each["port"])), ("to", each["proto"], str(each["inner"]))}
                ports.setdefault(record.name, set()).update(both)
        found: dict[str, set[Port]] = {}
        for record in case.records_of("docker-endpoint"):
            owner = str(record.facts["container"])
            if record.source == "ledger" or (owner and owner not in known):
                continue
            for address in filter(None, (record.facts["address"], record.facts["address6"])):
                if not owner or owner in runs:
                    found[address] = set()
                elif found.get(address, {None}):
                    found.setdefault(address, {("", "", "")}).update(ports.get(owner, set()))
        return found

    found: dict[str, set[Port]] = case.cached("docker.addresses", make)
    return found


# -- namespaces, links, mounts, cgroups -----------------------------------------------------------------------------


def netns(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A network namespace that is pinned for no container, or that only such have that are gone."""
    known = there(case)
    if known is None or obj.facts["host"]:
        return None
    ids = set()
    for pid in obj.facts["processes"]:
        inner = case.process(pid)
        id = container_of(runtime, inner, case) if inner is not None else ""
        if not id or id in known:
            return None
        ids.add(id)
    pins = [str(pin) for pin in obj.facts["pins"]]
    names = {pin.rpartition("/")[2] for pin in pins}
    if any(not PIN.match(name) for name in names) or names & sandboxes(case):
        return None
    if ids:
        return gone(case, sorted(ids)[0])
    if not pins:
        return None
    said = Evidence("kernel", f"no process is in it, and none of Docker's {len(known)} containers has {pins[0]}")
    return Finding("its container is gone", (said,))


def sandboxes(case: Case) -> set[str]:
    """The names of the pins that containers have, or that somebody whom nobody knows may have."""

    def make() -> set[str]:
        known = there(case) or {}
        found = set()
        for record in case.records_of("docker"):
            if record.source != "ledger":
                found |= {str(record.facts["sandbox"]).rpartition("/")[2], str(record.facts["sandbox_id"])[:12]}
        for record in case.records_of("docker-endpoint"):
            owner = record.facts["container"]
            if record.source != "ledger" and (owner in known):
                found.add(str(record.facts["sandbox"])[:12])
        return found - {""}

    found: set[str] = case.cached("docker.sandboxes", make)
    return found


def link(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The host's end of a pair whose other end is in such a namespace, or never left the host's; and the bridge of a
    network that is gone."""
    known = there(case)
    if known is None or not obj.facts["host"]:
        return None
    if obj.facts["type"] == "bridge":
        return bridge(obj, case)
    if obj.facts["type"] != "veth":
        return None
    if obj.facts["peer_netns"] == obj.facts["netns"]:
        for record in case.records_of("docker-endpoint"):
            owner = str(record.facts["container"])
            if record.source == "ledger" or record.facts["source_name"] not in (obj.key, obj.facts["peer"]):
                continue
            if owner in known or (not owner and record.facts["sandbox"]):
                return None  # its container is only being made
        said = Evidence("kernel", f"its other end, {obj.facts['peer']}, is here, too")
        return Finding("it never came into a container", (said,))
    inner = next((each for each in case.proven("netns") if each.key == str(obj.facts["peer_netns"])), None)
    return netns(runtime, inner, case) if inner is not None else None


def bridge(obj: Object, case: Case) -> Finding | None:
    """Networks of a swarm's come and go with its leader's word, so only an answer tells; and only of a name that none
    but dockerd gives."""
    match = BRIDGE.match(obj.key)
    infos = [record for record in case.records_of("docker-info") if record.source != "ledger"]
    if match is None or not all(record.facts["answered"] for record in infos):
        return None
    for record in case.records_of("docker-network"):
        if record.source != "ledger" and (record.facts["bridge"] == obj.key or record.name.startswith(match["id"])):
            return None
    if any(each.facts["master"] == obj.key for each in case.objects("link") if each.facts["host"]):
        return None
    said = Evidence("api", f"Docker has no network {match['id']}, and it has no port")
    return Finding(f"its network {match['id']} is gone", (said,))


def mount(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A container's file system or a part of it. A copy in another namespace goes with who has that."""
    point = str(obj.facts["point"])
    if not obj.facts["host"] or obj.facts["fstype"] == "nsfs":
        return None
    match = OWN.search(point)
    if match:
        return gone(case, match["one"] or match["two"])
    match = LAYER.search(point)
    owners = {
        str(record.facts["container"])
        for record in case.records_of("docker-layer")
        if match and record.source != "ledger" and record.name == match["layer"]
    }
    return gone(case, owners.pop()) if len(owners) == 1 else None


def cgroup(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    match = SCOPE.match(str(obj.facts["path"]).rpartition("/")[2])
    return gone(case, match["id"]) if match and match["by"] in (None, "docker") else None


# -- files and rules ------------------------------------------------------------------------------------------------


def file(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """runc's state of a container, and the socket of its shim."""
    top, _, name = obj.key.rpartition("/")
    if top.rpartition("/")[0] == runtime.runc and containerd.is_unique(name):
        return gone(case, name)
    if top == runtime.netns:
        # What is mounted there is looked at as a network namespace.
        known = there(case)
        if known is None or obj.facts["type"] != "file" or obj.facts["mounted"] or name in sandboxes(case):
            return None
        return Finding("nothing is pinned there", (Evidence("kernel", f"nothing is mounted at {obj.key}"),))
    return gone(case, sockets(runtime, case).get(name, "")) if top == "/run/containerd/s" else None


def sockets(runtime: Runtime, case: Case) -> dict[str, str]:
    """By the name of a socket, the container whose shim has it."""

    def make() -> dict[str, str]:
        ids = {record.facts["id"] for type in ("container", "shim", "runc") for record in case.records_of(type)}
        places = (runtime.address, *(address for address, _, _ in runtime.daemons))
        return {
            name: str(id)
            for id in ids
            for address in places
            for name in containerd.sockets(address, runtime.namespaces[0], str(id))
        }

    found: dict[str, str] = case.cached("docker.sockets", make)
    return found


def rule(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A rule for an address that no container has any more: of a published port, or to keep others out."""
    text = str(obj.facts.get("rule", ""))
    dnat = DNAT.match(text) if obj.facts["chain"] == "DOCKER" else None
    if dnat:
        return unused(case, dnat["to"], ("at", dnat["proto"], dnat["outer"]))
    hairpin = HAIRPIN.match(text)
    if hairpin:
        return unused(case, hairpin["one"], ("to", hairpin["proto"], hairpin["port"]))
    own = obj.facts["chain"] == "DOCKER" or (obj.facts["chain"], obj.facts["table"]) == ("PREROUTING", "raw")
    match = ACCEPTED.match(text) if own else None
    if match is None or match["to"].startswith("127."):
        return None
    return unused(case, match["to"], ("to", match["proto"], match["port"]) if match["port"] else None)


RULES: dict[str, tuple[Tied, ...]] = {
    "process": (process, proxy),
    "cgroup": (cgroup,),
    "netns": (netns,),
    "link": (link,),
    "mount": (mount,),
    "file": (file,),
    "xtables": (rule,),
}


def orphans(runtime: Runtime) -> dict[str, tuple[Rule, ...]]:
    return {kind: rules(runtime, *some) for kind, some in RULES.items()}
