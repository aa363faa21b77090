"""Whose container is it: the ids that are proven one product's, their pods, and what is computed from both."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from leftovers.claims import Case, real_exe
from leftovers.evidence import cni, containerd
from leftovers.model import Evidence, Object, Record, Role
from leftovers.mountinfo import below
from leftovers.products.containers.names import TASKS, Runtime

__all__ = [
    *(
        "Chain",
        "addresses",
        "chains",
        "container_links",
        "containers",
        "data_roots",
        "grounds",
        "holds",
        "kept",
        "located",
        "members",
        "pod_links",
    ),
    *("pod_uids", "relative", "runs_own", "trace", "unmounted"),
]


def grounds(runtime: Runtime, case: Case) -> dict[str, tuple[str, ...]]:
    """The directories that are the product's own, each with the places where it is now: its own by name, with what
    symlinks make of them, and those that a marker proves. One that only the ledger remembers must be the very
    directory; and none is the product's where somebody else may use it by now."""

    def make() -> dict[str, tuple[str, ...]]:
        found = {path: case.at(path) for path in (runtime.directory, *runtime.beside, *runtime.share)}
        if runtime.store:
            found[runtime.store] = stores(runtime, case)
        used = {record.name: record for record in case.records_of("used") if record.source != "ledger"}
        for record in case.records_of("ground"):
            now = used.get(record.facts["path"])
            same = record.source != "ledger" or (now is not None and now.facts["inode"] == record.facts["inode"])
            if same and now is not None and not now.facts["by"]:
                found.setdefault(record.name, (str(record.facts["path"]),))
        return found

    places: dict[str, tuple[str, ...]] = case.cached("containers.grounds", make)
    return places


DOCKER = "/var/lib/docker"
SNAP_DOCKER = "/var/snap/docker"
DOCKERD = ("/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd")


def stores(runtime: Runtime, case: Case) -> tuple[str, ...]:
    """Where dockerd has its data: where it always is, and where it was told to have it. With another dockerd here, that
    counts only while it is told, and never where that one has its own: an administrator's place may have become its."""
    if runtime.store == DOCKER:
        # The snap never has its own where this dockerd is told to have it.
        dirs = [str(record.facts["path"]) for record in case.records_of("place") if record.name == runtime.store]
        return tuple(dict.fromkeys((runtime.store, *(path for path in dirs if not below(path, SNAP_DOCKER)))))
    others = [
        process
        for process in case.objects("process")
        if not process.facts["nested"]
        and real_exe(process).rpartition("/")[2] == "dockerd"
        and not runs_own(runtime, case, process)
    ]
    told = [record for record in case.records_of("place") if record.name == runtime.store]
    paths = [str(record.facts["path"]) for record in told]
    if others or any(file.key in DOCKERD for file in case.objects("file")):
        his = [DOCKER, *(path for process in others for path in data_roots(process))]
        his += [str(record.facts["path"]) for record in case.records_of("rival store")]
        live = [str(record.facts["path"]) for record in told if record.source != "ledger"]
        paths = [path for path in live if not any(below(path, each) or below(each, path) for each in his)]
    return tuple(dict.fromkeys((runtime.store, *paths)))


def data_roots(process: Object) -> list[str]:
    """Where a dockerd was told to have its data, in its arguments."""
    argv = process.facts["argv"]
    told = [argument.removeprefix("--data-root=") for argument in argv[1:] if argument.startswith("--data-root=")]
    return [path for path in told if path.startswith("/") and os.path.normpath(path) == path and path.count("/") >= 2]


def located(runtime: Runtime, case: Case, path: str) -> tuple[str, ...]:
    """Where something of the product's is; () if that is nobody's by a proof. Of a containerd that it shares that is
    where everybody has his: whoever asks looks for its namespaces there."""
    if runtime.shares and path and (below(path, runtime.state) or below(path, runtime.root)):
        return () if runtime.lets and usurper(case) else (path,)
    table = grounds(runtime, case)
    ground = max((each for each in table if below(path, each)), key=len, default="")
    return tuple(place + path.removeprefix(ground) for place in table[ground]) if path and ground else ()


def usurper(case: Case) -> str:
    """Who else has his containerd where a shared one always is; "" if nobody is to be seen."""
    return next((str(each.facts["why"]) for each in case.records_of("usurper") if each.source != "ledger"), "")


def addresses(runtime: Runtime, case: Case) -> tuple[str, ...]:
    """containerd's socket, as shims may have been given it. Without a proof of its directory another's shims may have
    the same."""
    own = (runtime.address, *(address for address, _, _ in runtime.daemons))
    return tuple(dict.fromkeys(path for each in own for path in (*located(runtime, case, each), each)))


def holds(runtime: Runtime, case: Case, path: str) -> bool:
    """Whether a path lies in a directory of the product's own, or where that is by a symlink."""
    path = path.removesuffix("//deleted")
    places = (place for each in grounds(runtime, case).values() for place in each)
    return any(below(path, place) for place in places) or of_member(runtime, case, path)


# Where CRI keeps what it has of a sandbox or a container, by id.
CRI = (
    *("io.containerd.grpc.v1.cri/sandboxes", "io.containerd.grpc.v1.cri/containers"),
    "io.containerd.podsandbox.controller.v1.podsandbox",
)


def members(runtime: Runtime, case: Case) -> frozenset[tuple[str, str]]:
    """The containers (namespace, id) of a shared containerd that are the product's own by its own records."""

    def make() -> frozenset[tuple[str, str]]:
        types = ("container", "shim", "nerdctl") if runtime.known else ()
        return frozenset(
            (record.facts["namespace"], record.facts["id"]) for type in types for record in case.records_of(type)
        )

    found: frozenset[tuple[str, str]] = case.cached("containers.members", make)
    return found


def kept(runtime: Runtime, namespace: str, id: str) -> tuple[str, ...]:
    """What a shared containerd has of one container, as directories named for it."""
    inner = [f"{TASKS}/{namespace}/{id}", f"{TASKS}/{namespace}/.{id}"]
    inner += [f"{place}/{id}" for place in CRI] if namespace == "k8s.io" else []
    return tuple(f"{base}/{each}" for base in (runtime.state, runtime.root) for each in inner)


def of_member(runtime: Runtime, case: Case, path: str) -> bool:
    """Whether a path lies in what a shared containerd has of one of the product's containers."""
    for base in (runtime.state, runtime.root) if runtime.known else ():
        if not below(path, base):
            continue
        words = path[len(base) :].strip("/").split("/")
        if words[0] == TASKS and len(words) > 2:
            return (words[1], words[2].removeprefix(".")) in members(runtime, case)
        for place in CRI:
            depth = place.count("/") + 1
            if "/".join(words[:depth]) == place and len(words) > depth:
                return ("k8s.io", words[depth]) in members(runtime, case)
    return False


def relative(runtime: Runtime, case: Case, path: str, directory: str) -> str | None:
    """A path from a directory of the product's own, wherever that is: "" for the directory itself, None for anything
    else."""
    path = path.removesuffix("//deleted").removesuffix(" (deleted)")
    for base in located(runtime, case, directory):
        if below(path, base):
            return path[len(base) :].strip("/")
    return None


def unmounted(process: Object, case: Case) -> str:
    """The file in the product's snap that a process runs, if the snap is not mounted any more; else ""."""
    table: dict[str, Record] = case.cached(
        "containers.programs",
        lambda: {record.name: record for record in case.records_of("program") if record.source != "ledger"},
    )
    record = table.get(process.key)
    return str(record.facts["exe"]) if record and record.facts["start"] == process.facts["start"] else ""


def runs_own(runtime: Runtime, case: Case, process: Object) -> bool:
    """Whether a process runs a file of the product's snap (reading.is_own): in another mount namespace than the host's
    a path alone says nothing."""
    exe = real_exe(process)
    if process.facts["nested"] or not (runtime.is_program(exe) or elsewhere(runtime, case, exe)):
        return False
    if exe in runtime.executables and process.facts["uid"] != 0:
        return False  # a user may run the same for himself
    table: dict[str, Record] = case.cached(
        "containers.own",
        lambda: {record.name: record for record in case.records_of("own") if record.source != "ledger"},
    )
    record = table.get(process.key)
    return bool(process.facts["our_mnt"]) or (record is not None and record.facts["start"] == process.facts["start"])


def elsewhere(runtime: Runtime, case: Case, exe: str) -> bool:
    """Whether a file is one of the programs in the product's directory, where that is at another place."""
    if not runtime.programs or not below(runtime.programs, runtime.directory):
        return False
    inner = runtime.programs.removeprefix(runtime.directory)
    return any(below(exe, f"{place}{inner}") for place in case.at(runtime.directory))


def containers(runtime: Runtime, case: Case) -> dict[str, Evidence]:
    """The ids of the product's own containers, and what says so. An id that CRI made is nobody else's; one that a
    person chose may be, so it only counts where its namespace and daemon are told with it."""

    def make() -> dict[str, Evidence]:
        found: dict[str, Evidence] = {}

        def add(record: Record, text: str) -> None:
            id = record.facts["id"]
            if containerd.is_unique(id):
                found.setdefault(id, Evidence(record.source, text))

        for record in case.records_of("container"):
            add(record, f"a container of {runtime.address}")
        for record in case.records_of(runtime.known) if runtime.known == "nerdctl" else ():
            add(record, f"{record.facts['path']} is there")
        for record in case.records_of("shim"):
            add(record, f"pid {record.name} is its shim")
        for record in case.records_of("runc"):
            if in_bundle(runtime, case, record.facts["bundle"]) == record.facts["id"]:
                add(record, f"runc runs it in {record.facts['bundle']}")
        alone = only_one(runtime, case)
        for type in ("container", "shim", *(["nerdctl"] if runtime.known == "nerdctl" else [])):
            for record in case.records_of(type):
                # As ctr and nerdctl call it when they ask CNI's plugins for its network.
                whole = f"{record.facts['namespace']}-{record.facts['id']}"
                if containerd.is_unique(record.facts["id"]) or alone:
                    found.setdefault(whole, Evidence(record.source, f"{record.name} of {runtime.address}"))
        for record in case.records_of("adrift"):
            if record.source != "ledger":
                found.setdefault(record.name, Evidence(record.source, record.facts["why"]))
        for record in case.records_of("cni"):
            path = next((path for path in record.facts["paths"] if holds(runtime, case, path)), "")
            if path and containerd.is_unique(record.facts["id"]):
                found.setdefault(record.facts["id"], Evidence(record.source, f"its network was made with {path}"))
        return found

    ids: dict[str, Evidence] = case.cached("containers.ids", make)
    return ids


def only_one(runtime: Runtime, case: Case) -> bool:
    """Whether no other containerd is to be seen, nor a shim of one: an id that a person chose is then of this one."""

    def make() -> bool:
        for process in case.objects("process"):
            name, argv = real_exe(process).rpartition("/")[2], process.facts["argv"]
            if name == "containerd" and not process.facts["nested"] and not runs_own(runtime, case, process):
                return False
            if "-namespace" in argv and "-address" in argv and runtime.address not in argv:
                return False
        return not usurper(case)

    alone: bool = case.cached("containers.only_one", make)
    return alone


def in_bundle(runtime: Runtime, case: Case, path: str) -> str:
    """The id of the container whose bundle a path is; "" if it is none of the product's."""
    for state in runtime.states if path else ():
        words = (relative(runtime, case, path, f"{state}/{TASKS}") or "").split("/")
        if len(words) == 2 and (not runtime.namespaces or words[0] in runtime.namespaces):
            id = words[1].removeprefix(".")
            return id if not runtime.known or (words[0], id) in members(runtime, case) else ""
    return ""


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
