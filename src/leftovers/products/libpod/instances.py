"""Podman's containers, for who asks whose a thing is; and what of Podman's no container has."""

from __future__ import annotations

import os
import time

from leftovers.claims import Case, Finding, real_exe
from leftovers.evidence import libpod
from leftovers.model import Evidence, Instance, Object, Record
from leftovers.mountinfo import below
from leftovers.products.libpod.known import id_below, runtimes, scope
from leftovers.products.libpod.names import GRAPH
from leftovers.products.libpod.processes import conmons
from leftovers.products.libpod.reading import conmon_argv


def instances(case: Case) -> list[Instance]:
    """All containers that Podman's database has at this look."""
    spaces = {pin: space.id for space in case.objects("netns") for pin in space.facts["pins"]}
    ties: dict[str, list[str]] = {}
    for conmon in case.records_of("conmon"):
        if case.is_proven("process", conmon.name) and conmon.source != "ledger":
            ties.setdefault(conmon.facts["id"], []).append(f"process:{conmon.name}")
    for group in case.proven("cgroup"):
        ties.setdefault(scope(group.key), []).append(group.id)
    for mount in case.proven("mount"):
        ties.setdefault(id_below(case, mount.facts["point"])[0], []).append(mount.id)
    found = []
    for record in current(case):
        facts = record.facts
        own = ties.get(record.name, [])
        if facts["pid"] and case.is_proven("process", str(facts["pid"])) and lives(case, facts["pid"], record.name):
            own.append(f"process:{facts['pid']}")
        if facts["netns"] in spaces:
            own.append(spaces[facts["netns"]])
        said = Evidence(record.source, f"Podman has the container {facts['name']}")
        found.append(
            Instance(
                *(case.product, record.name, facts["name"] or record.name[:12], said),
                image=facts["image"],
                created=facts["created"],
                state=facts["state"],
                ties=tuple(dict.fromkeys(own)),
            )
        )
    return found


def lives(case: Case, pid: int, id: str) -> bool:
    """Whether a pid is of that container, as the kernel tells it: db.sql may have it of a container that has ended, and
    it be another one's by now."""
    process = case.process(pid)
    if process is None or scope(process.facts["cgroup"]) not in ("", id):
        return False
    parent = conmons(case).get(str(process.facts["ppid"]))
    return parent.facts["id"] == id if parent is not None else bool(scope(process.facts["cgroup"]))


def current(case: Case) -> list[Record]:
    return [record for record in case.records_of("podman") if record.source == "disk"]


def existing(case: Case) -> set[str] | None:
    """The ids of all containers that there are; None if that cannot be told."""

    def make() -> set[str] | None:
        database = [record for record in case.records_of("podman-db") if record.source == "disk"]
        stores = [record for record in case.records_of("podman-store") if record.source == "disk"]
        if not database or not all(record.facts["whole"] for record in (*database, *stores)):
            return None
        if not {store.name for store in stores} <= {record.facts["store"] for record in database}:
            return None
        return {record.name for record in (*current(case), *stored(case))}

    ids: set[str] | None = case.cached("libpod.existing", make)
    return ids


def stored(case: Case) -> list[Record]:
    """What the store still has: a container in the making is there before db.sql has it."""
    return [record for record in case.records_of("stored") if record.source == "disk"]


def gone(case: Case, id: str, **facts: float) -> Finding | None:
    """That a container is no more; None if it is, or that cannot be told."""
    ids = existing(case)
    if ids is None or not id or id in ids or elsewhere(case, id):
        return None
    said = Evidence("disk", f"neither Podman's database nor containers.json has {id[:12]}")
    return Finding(f"its container {id[:12]} is gone", (said,), facts=facts)


def elsewhere(case: Case, id: str) -> bool:
    """Whether a container is one of another graph root (`podman --root`), whose database nobody has read: the state in
    /run is the same for all of them. Its monitor or its bundle tells."""

    def make() -> set[str]:
        known = {record.name for record in case.records_of("conmon") if record.source != "ledger"}
        monitors = [each for each in case.objects("process") if real_exe(each).rpartition("/")[2] == "conmon"]
        given = [conmon_argv(each) for each in monitors if each.key not in known and not each.facts["uid"]]
        found = {each["id"] for each in given if each}
        for record in case.records_of("runtime"):
            bundle = record.facts["bundle"]
            if record.source == "disk" and bundle and not any(below(bundle, graph) for graph in case.at(GRAPH)):
                found.add(record.facts["id"])
        return found

    ids: set[str] = case.cached("libpod.elsewhere", make)
    return id in ids


def process(obj: Object, case: Case) -> Finding | None:
    age = {"age": seconds} if (seconds := age_of(obj)) else {}
    record = conmons(case).get(obj.key)
    if record is not None and record.facts["start"] == obj.facts["start"]:
        return gone(case, record.facts["id"], **age)
    id = scope(obj.facts["cgroup"])
    if id:
        return gone(case, id, **age)
    record = conmons(case).get(str(obj.facts["ppid"]))
    return gone(case, record.facts["id"], **age) if record is not None else None


def age_of(process: Object) -> float:
    """The seconds since a process started."""
    started = float(process.facts["start"]) / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)


def cgroup(obj: Object, case: Case) -> Finding | None:
    return gone(case, scope(obj.facts["path"]))


def mount(obj: Object, case: Case) -> Finding | None:
    # A layer of no container's may be an image that somebody mounted.
    return gone(case, id_below(case, obj.facts["point"])[0])


def file(obj: Object, case: Case) -> Finding | None:
    record = runtimes(case).get(obj.key)
    return gone(case, record.facts["id"]) if record is not None else None


def netns(obj: Object, case: Case) -> Finding | None:
    """A namespace that no container in db.sql names, and in which nobody lives but processes of those that are gone."""
    if existing(case) is None:
        return None
    for pid in obj.facts["processes"]:
        inside = case.process(pid)
        if inside is None or not case.is_proven("process", inside.key) or process(inside, case) is None:
            return None
    named = {record.facts["netns"] for record in current(case)}
    if not obj.facts["pins"] or any(pin in named or not libpod.is_pin(pin) for pin in obj.facts["pins"]):
        return None
    said = Evidence("disk", f"Podman has no container with {obj.facts['pins'][0]}, and nobody who is lives in it")
    return Finding("no container has it", (said,))


def link(obj: Object, case: Case) -> Finding | None:
    """A veth into such a namespace."""
    if obj.facts["type"] != "veth" or not obj.facts["peer_netns"]:
        return None
    space = next((each for each in case.proven("netns") if each.facts["inode"] == obj.facts["peer_netns"]), None)
    return netns(space, case) if space is not None else None


ORPHANS = {
    "process": (process,),
    "cgroup": (cgroup,),
    "mount": (mount,),
    "file": (file,),
    "netns": (netns,),
    "link": (link,),
}
__all__ = ["ORPHANS", "instances"]
