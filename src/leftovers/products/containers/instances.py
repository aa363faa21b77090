"""A containerd's containers, for who asks whose a thing is: each pod once, with the containers that are in it.

A container is known by its bundle, by its shim, by runc's state or by dockerd's record of it; where CRI made it for a
pod, all of these are grouped by the pod's sandbox. What the ledger remembers of containers is none: they are gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from leftovers.claims import Case
from leftovers.evidence import cni
from leftovers.model import Evidence, Instance, Record
from leftovers.products.containers.known import chains, in_bundle
from leftovers.products.containers.names import Runtime
from leftovers.products.containers.processes import POD

__all__ = ["instances"]

# The namespace in which dockerd has its containers (moby daemon/config/config.go, DefaultContainersNamespace).
MOBY = "moby"
# What dockerd says of a container (moby container/state.go, StateString), in our words.
STATES = {"running": "running", "paused": "running", "restarting": "running", "removing": "running"}
STATES |= {"exited": "stopped", "dead": "stopped", "created": "created"}


@dataclass
class Group:
    """One container, or the sandbox of a pod with the containers in it."""

    namespace: str
    id: str
    ids: dict[str, None] = field(default_factory=dict)  # of its containers, in the order in which they were met
    pod: str = ""
    uid: str = ""
    docker: Record | None = None
    name: str = ""
    rests: str = ""  # what it is while it does not run
    image: str = ""
    created: str = ""
    said: Evidence | None = None
    pids: dict[int, None] = field(default_factory=dict)
    shims: dict[str, None] = field(default_factory=dict)
    pins: dict[str, None] = field(default_factory=dict)
    directories: dict[str, None] = field(default_factory=dict)
    ties: dict[str, None] = field(default_factory=dict)

    def say(self, evidence: Evidence) -> None:
        self.said = self.said or evidence


def instances(runtime: Runtime, case: Case) -> list[Instance]:
    """Product.instances of a product with a containerd."""
    groups = grouped(runtime, case)
    by_id = {id: group for group in groups for id in group.ids}
    # As ctr and nerdctl call a container when they ask CNI's plugins for its network.
    by_id |= {f"{group.namespace}-{id}": group for group in groups for id in group.ids}
    for group in groups:
        tie_processes(case, group)
    tie_netns(case, groups)
    tie_named(case, groups, by_id)
    tie_networks(runtime, case, by_id)
    return [described(case, group) for group in groups]


def grouped(runtime: Runtime, case: Case) -> list[Group]:
    found: dict[tuple[str, str], Group] = {}
    # Of a container in a pod its sandbox is told by its bundle; of a shim and of runc's state only the id is.
    sandboxes = {
        (record.facts["namespace"], record.facts["id"]): record.facts["sandbox"]
        for record in present(case, "container")
        if record.facts["sandbox"]
    }

    def of(namespace: str, id: str) -> Group:
        key = namespace, sandboxes.get((namespace, id), id)
        group = found.setdefault(key, Group(*key))
        group.ids.setdefault(id)
        return group

    for record in present(case, "container"):
        facts = record.facts
        group = of(facts["namespace"], facts["id"])
        if facts["pod"]:
            group.pod = f"{facts['pod_namespace']}/{facts['pod']}"
            group.uid = facts["pod_uid"]
        sandbox = facts["id"] == group.id
        group.image = group.image if sandbox and len(group.ids) > 1 else facts.get("image", "") or group.image
        group.say(Evidence(record.source, f"has a bundle or a directory in {runtime.state}"))
        note(group, pid=facts["pid"], pin=facts["netns"])
        if facts["bundle"]:
            group.directories.setdefault(facts["bundle"])
    for record in present(case, "shim"):
        if case.is_proven("process", record.name):
            group = of(record.facts["namespace"], record.facts["id"])
            group.shims.setdefault(record.name)
            group.say(Evidence(record.source, f"pid {record.name} is its shim"))
    for record in present(case, "runc"):
        facts = record.facts
        if facts["bundle"] and in_bundle(runtime, case, facts["bundle"]) == facts["id"]:
            group = of(facts["namespace"], facts["id"])
            process = case.process(facts["pid"])
            if process is not None and process.facts["start"] == facts["start"]:
                note(group, pid=facts["pid"])
            group.created = group.created or facts.get("created", "")
            group.directories.update(dict.fromkeys(facts["cgroups"]))
            group.say(Evidence(record.source, f"runc runs it in {facts['bundle']}"))
    for record in present(case, "docker"):
        group = of(MOBY, record.facts["id"])
        if group.docker is None:
            group.docker = record
            note(group, pid=record.facts.get("pid", 0), pin=record.facts["sandbox"])
            group.name = str(record.facts.get("name", ""))
            group.rests = STATES.get(str(record.facts.get("state", "")), "stopped")
            group.said = Evidence(record.source, f"dockerd has it as {group.name or group.id[:12]}")
    for record in present(case, "nerdctl"):
        group = of(record.facts["namespace"], record.facts["id"])
        group.name = record.facts["name"]
        group.rests = "stopped" if record.facts["started"] else "created"
        group.said = Evidence(record.source, f"{record.facts['path']} is there")
    return list(found.values())


def present(case: Case, type: str) -> Iterator[Record]:
    return (record for record in case.records_of(type) if record.source != "ledger")


def note(group: Group, pid: int = 0, pin: str = "") -> None:
    if pid:
        group.pids.setdefault(pid)
    if pin:
        group.pins.setdefault(f"/run/{pin.removeprefix('/var/run/')}" if pin.startswith("/var/run/") else pin)


def tie_processes(case: Case, group: Group) -> None:
    """Its shims, its first processes, and the cgroups of these that are the product's. A pid that is only written down
    may be another process' by now: it must be proven by something else."""
    group.ties.update((f"process:{pid}", None) for pid in group.shims)
    for pid in group.pids:
        process = case.process(pid)
        if process is None or not case.is_proven("process", str(pid)):
            continue
        group.ties.setdefault(process.id)
        if case.is_proven("cgroup", process.facts["cgroup"]):
            group.ties.setdefault(f"cgroup:{process.facts['cgroup']}")


def tie_netns(case: Case, groups: Iterable[Group]) -> None:
    """The network namespace that is pinned for it; else that of its first process, unless it is pinned for another one
    (`docker run --network container:OTHER`) or the host's."""
    pinned = {pin: netns for netns in case.objects("netns") for pin in netns.facts["pins"]}
    taken: set[str] = set()
    for group in groups:
        for pin in group.pins:
            if pin in pinned and not pinned[pin].facts["host"]:
                taken.add(pinned[pin].id)
                group.ties.setdefault(pinned[pin].id)
                group.ties.setdefault(f"mount:{pin}")
                if case.is_proven("file", pin):
                    group.ties.setdefault(f"file:{pin}")  # what it is mounted on
    for group in groups:
        for pid in group.pids if not group.pins else ():
            process = case.process(pid)
            if process is not None and process.id in group.ties and not process.facts["our_net"]:
                id = f"netns:{process.facts['netns']}"
                if id not in taken:
                    group.ties.setdefault(id)


def tie_named(case: Case, groups: Iterable[Group], by_id: dict[str, Group]) -> None:
    """What is the product's, and has the container's id in its path: cgroups, mounts, files."""
    names: dict[str, Group] = dict(by_id)
    for group in groups:
        if group.uid:
            names.setdefault(group.uid, group)
        if group.docker is not None and group.docker.facts.get("layer"):
            names.setdefault(str(group.docker.facts["layer"]), group)
    paths = {path: group for group in groups for path in group.directories}
    for kind, fact in (("cgroup", "path"), ("mount", "point"), ("file", "path")):
        for obj in case.proven(kind):
            path = str(obj.facts[fact])
            owner = paths.get(str(obj.facts.get("directory", "")))
            for part in () if owner else path.split("/"):
                owner = owner or names.get(part) or (names.get(name_in(part)) if kind == "cgroup" else None)
            if owner is not None:
                owner.ties.setdefault(obj.id)
    for path, group in paths.items():
        if case.is_proven("mount", f"{path}/rootfs"):
            group.ties.setdefault(f"mount:{path}/rootfs")


def name_in(part: str) -> str:
    """The id of a container, or the uid of a pod, that a cgroup is named for: docker-ID.scope, cri-containerd-ID.scope,
    kubepods-besteffort-podUID.slice."""
    pod = POD.match(part)
    if pod:
        return pod["uid"].replace("_", "-")
    return part.removesuffix(".scope").rpartition("-")[2]


def tie_networks(runtime: Runtime, case: Case, by_id: dict[str, Group]) -> None:
    """What CNI's plugins made for it: links and chains by names that follow from its own, leases and results."""
    for type in ("cni", "lease", "scratch", "log"):
        for record in present(case, type):
            group = by_id.get(record.facts["id"])
            if group is None:
                continue
            if case.is_proven("file", record.name):
                group.ties.setdefault(f"file:{record.name}")
            if type == "cni":
                names = [name for name in record.facts["links"] if name not in record.facts["bridges"]]
                if record.facts["pod"]:
                    names.append(cni.calico_link(record.facts["pod_namespace"], record.facts["pod"]))
                for name in names:
                    if case.is_proven("link", name):
                        group.ties.setdefault(f"link:{name}")
    named = chains(runtime, case)
    for rule in case.proven("xtables"):
        for name in (rule.facts["chain"], rule.facts.get("target", "")):
            group = by_id.get(named[name].id) if name in named else None
            if group is not None:
                group.ties.setdefault(rule.id)


def described(case: Case, group: Group) -> Instance:
    docker = group.docker.facts if group.docker is not None else {}
    alive = any(f"process:{pid}" in group.ties for pid in group.pids) or (not group.pids and bool(group.shims))
    there = {id for id in group.ties if is_there(case, id)}
    return Instance(
        product=case.product,
        id=group.id,
        name=group.pod or group.name or (group.id if len(group.id) < 64 else group.id[:12]),
        evidence=group.said or Evidence("disk", "has a directory"),
        image=str(docker.get("image", "")) or group.image,
        created=str(docker.get("created", "")) or group.created,
        state="running" if alive else group.rests,
        ties=tuple(id for id in group.ties if id in there),
    )


def is_there(case: Case, id: str) -> bool:
    ids: set[str] = case.cached(
        "containers.ids of all", lambda: {obj.id for objects in case.listed.values() for obj in objects}
    )
    return id in ids
