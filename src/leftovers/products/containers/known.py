"""Whose container is it: the ids that are proven one product's, their pods, and what is computed from both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from leftovers.claims import Case
from leftovers.evidence import cni, containerd
from leftovers.model import Evidence, Record, Role
from leftovers.mountinfo import below
from leftovers.products.containers.names import TASKS, Runtime

__all__ = ["Chain", "chains", "container_links", "containers", "holds", "pod_links", "pod_uids", "relative", "trace"]


def holds(runtime: Runtime, case: Case, path: str) -> bool:
    """Whether a path lies in the product's own directory, or where that is by a symlink."""
    return any(below(path.removesuffix("//deleted"), place) for place in case.at(runtime.directory))


def relative(runtime: Runtime, case: Case, path: str, directory: str) -> str | None:
    """A path from a directory below the product's own, wherever that is: "" for the directory itself, None for
    anything else."""
    path = path.removesuffix("//deleted").removesuffix(" (deleted)")
    for place in case.at(runtime.directory):
        base = place + directory.removeprefix(runtime.directory)
        if below(path, base):
            return path[len(base) :].strip("/")
    return None


def containers(runtime: Runtime, case: Case) -> dict[str, Evidence]:
    """The ids of the product's own containers, and what says so. An id that CRI made is nobody else's; one that a
    person chose may be, so it only counts where its namespace and daemon are told with it."""

    def make() -> dict[str, Evidence]:
        found: dict[str, Evidence] = {}
        for record in case.records_of("container"):
            if containerd.is_unique(record.facts["id"]):
                found.setdefault(record.facts["id"], Evidence(record.source, f"a container of {runtime.address}"))
        for record in case.records_of("shim"):
            if containerd.is_unique(record.facts["id"]):
                found.setdefault(record.facts["id"], Evidence(record.source, f"pid {record.name} is its shim"))
        for record in case.records_of("runc"):
            id = record.facts["id"]
            if containerd.is_unique(id) and in_bundle(runtime, case, record.facts["bundle"]) == id:
                found.setdefault(id, Evidence(record.source, f"runc runs it in {record.facts['bundle']}"))
        for record in case.records_of("cni"):
            path = next((path for path in record.facts["paths"] if holds(runtime, case, path)), "")
            if path and containerd.is_unique(record.facts["id"]):
                found.setdefault(record.facts["id"], Evidence(record.source, f"its network was made with {path}"))
        return found

    ids: dict[str, Evidence] = case.cached("containers.ids", make)
    return ids


def in_bundle(runtime: Runtime, case: Case, path: str) -> str:
    """The id of the container whose bundle a path is; "" if it is none of the product's."""
    inner = relative(runtime, case, path, f"{runtime.state}/{TASKS}") if path else None
    words = (inner or "").split("/")
    if len(words) != 2 or (runtime.namespaces and words[0] not in runtime.namespaces):
        return ""
    return words[1].removeprefix(".")


def of(runtime: Runtime, case: Case, type: str) -> Iterator[tuple[Record, Evidence]]:
    """The records of a type that are of a container of the product."""
    ids = containers(runtime, case)
    return ((record, ids[record.facts["id"]]) for record in case.records_of(type) if record.facts["id"] in ids)


def pod_uids(runtime: Runtime, case: Case) -> dict[str, Evidence]:
    """The uids of the product's pods."""

    def make() -> dict[str, Evidence]:
        found = {}
        for record in case.records_of("pod"):
            found[record.name] = Evidence(record.source, f"a pod of {runtime.kubelet}")
        for record in case.records_of("container"):
            if record.facts["pod_uid"]:
                said = f"the pod of container {record.facts['id'][:12]} of {runtime.address}"
                found.setdefault(record.facts["pod_uid"], Evidence(record.source, said))
        for record, _ in of(runtime, case, "log"):
            # A container's log is a link into its pod's: the last word of a pod whose bundles are gone.
            if record.facts["uid"]:
                said = f"{record.name} leads into its logs"
                found.setdefault(record.facts["uid"], Evidence(record.source, said))
        return found

    uids: dict[str, Evidence] = case.cached("containers.pods", make)
    return uids


def pods(runtime: Runtime, case: Case) -> set[tuple[str, str]]:
    """The product's pods as (namespace, name)."""
    records = list(case.records_of("container"))
    records += [record for record, _ in of(runtime, case, "cni")]
    return {
        (record.facts["pod_namespace"], record.facts["pod"])
        for record in records
        if record.facts["pod_namespace"] and record.facts["pod"]
    }


def pod_links(runtime: Runtime, case: Case) -> dict[str, Evidence]:
    """The names that Calico gives the links of the product's pods."""

    def make() -> dict[str, Evidence]:
        return {
            cni.calico_link(namespace, name): Evidence("disk", f"Calico's name for pod {namespace}/{name}")
            for namespace, name in pods(runtime, case)
        }

    links: dict[str, Evidence] = case.cached("containers.pod_links", make)
    return links


def container_links(runtime: Runtime, case: Case) -> dict[str, Evidence]:
    """The names of links that CNI's plugins made for the product's containers. Names are given again: these hold
    what a result says as long as nobody else's container has it."""

    def make() -> dict[str, Evidence]:
        found: dict[str, Evidence] = {}
        for record, _ in of(runtime, case, "cni"):
            id, network = record.facts["id"], record.facts["network"]
            for name in record.facts["links"]:
                if name not in record.facts["bridges"]:
                    found[name] = Evidence(record.source, f"{record.name} has it")
            if "bandwidth" in record.facts["plugins"]:
                found[cni.ifb(network, id)] = Evidence(record.source, f"computed from {network} and {id[:12]}")
        return found

    links: dict[str, Evidence] = case.cached("containers.links", make)
    return links


@dataclass(frozen=True)
class Chain:
    """A chain of one container, and what it was computed from."""

    id: str
    network: str
    evidence: Evidence


def networks(case: Case) -> set[str]:
    """All CNI networks that anybody has written down: which of them a container was in need not be known to compute."""
    names = {str(record.facts["network"]) for type in ("cni", "lease", "conflist") for record in case.records_of(type)}
    return names - {"", "cni-loopback"}


def chains(runtime: Runtime, case: Case) -> dict[str, Chain]:
    """The chains that CNI's plugins make for the product's containers, by name."""

    def make() -> dict[str, Chain]:
        found = {}
        for id in containers(runtime, case):
            for network in networks(case):
                for prefix in ("CNI-", "CNI-DN-", "CNI-SN-"):
                    said = Evidence("disk", f"computed from network {network} and container {id[:12]}")
                    found[cni.chain(prefix, network, id)] = Chain(id, network, said)
        return found

    made: dict[str, Chain] = case.cached("containers.chains", make)
    return made


def trace(runtime: Runtime, case: Case) -> str:
    """What says that the product has been on this host. "" if nothing does."""
    if case.been:
        return "the ledger knows it on this host"
    account = next((f"{obj.id} is there" for obj in case.objects("account") if obj.key in runtime.accounts), "")
    if account:
        return account
    own = (Role.LIVE, Role.DATA, Role.EXTERNAL)
    claims = (claim for claim in case.claims.values() if claim.proven and claim.role in own)
    return next((f"{claim.object.id} is {runtime.possessive}" for claim in claims), "")
