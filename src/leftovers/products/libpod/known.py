"""Whose container is it: the ids that are proven Podman's, and what follows from them."""

from __future__ import annotations

import re

from leftovers.claims import Case, real_exe
from leftovers.evidence import libpod
from leftovers.model import Evidence, Object, Record
from leftovers.mountinfo import below
from leftovers.products.libpod.names import CGROUP, GRAPH, SHARERS

OWN_SLICE = re.compile(r"/user\.slice/user-[1-9][0-9]*\.slice/")

__all__ = ["containers", "id_below", "layers", "pins", "pods", "rival", "runtimes", "scope", "sharer", "title", "trace"]


def containers(case: Case) -> dict[str, Evidence]:
    """The ids of Podman's own containers (random: nobody else has the same), and what says so. What the store has of
    CRI-O's is never Podman's."""

    def make() -> dict[str, Evidence]:
        strange = {record.name for record in case.records_of("stored") if record.facts["by"] == "crio"}
        found: dict[str, Evidence] = {}
        for record in case.records_of("podman"):
            said = f"Podman has the container {record.facts['name'] or record.name[:12]}"
            found.setdefault(record.name, Evidence(record.source, said))
        for record in case.records_of("conmon"):
            if not record.facts["uid"]:
                found.setdefault(record.facts["id"], Evidence(record.source, f"conmon {record.name} looks after it"))
        for record in case.records_of("persist"):
            found.setdefault(record.name, Evidence(record.source, f"{record.facts['path']} is there"))
        for record in case.records_of("stored"):
            if record.facts["by"] == "podman":
                found.setdefault(record.name, Evidence(record.source, "containers.json has it, with libpod's metadata"))
        return {id: said for id, said in found.items() if id not in strange}

    ids: dict[str, Evidence] = case.cached("libpod.ids", make)
    return ids


def title(case: Case, id: str) -> str:
    """What people call a container."""
    names: dict[str, str] = case.cached(
        "libpod.names",
        lambda: {record.name: record.facts["name"] for record in case.records_of("podman") if record.facts["name"]},
    )
    return names.get(id, id[:12])


def pods(case: Case) -> dict[str, Evidence]:
    """The ids of Podman's pods."""

    def make() -> dict[str, Evidence]:
        found = {}
        for record in case.records_of("podman-pod"):
            said = f"Podman has the pod {record.facts['name'] or record.name[:12]}"
            found[record.name] = Evidence(record.source, said)
        return found

    ids: dict[str, Evidence] = case.cached("libpod.pods", make)
    return ids


def layers(case: Case) -> dict[str, str]:
    """The layers that are the file systems of Podman's containers, with the container of each."""

    def make() -> dict[str, str]:
        ids = containers(case)
        found = {}
        for record in case.records_of("stored"):
            if record.name in ids and record.facts["layer"]:
                found[record.facts["layer"]] = record.name
        told = [(record.name, record.facts["mount"]) for record in case.records_of("podman")]
        told += [(record.facts["id"], record.facts["rootfs"]) for record in case.records_of("runtime")]
        for id, path in told:
            words = path.split("/")
            if id in ids and len(words) > 2 and words[-1] == "merged" and libpod.is_id(words[-2]):
                found.setdefault(words[-2], id)
        return found

    table: dict[str, str] = case.cached("libpod.layers", make)
    return table


def pins(case: Case) -> dict[str, str]:
    """The pins of network namespaces that Podman's containers have, or had: their names are random."""

    def make() -> dict[str, str]:
        ids = containers(case)
        return {
            record.facts["netns"]: record.name
            for record in case.records_of("podman")
            if record.name in ids and libpod.is_pin(record.facts["netns"])
        }

    table: dict[str, str] = case.cached("libpod.pins", make)
    return table


def runtimes(case: Case) -> dict[str, Record]:
    """What crun and runc keep of containers, whosever these are, by path, at this look."""
    table: dict[str, Record] = case.cached(
        "libpod.runtimes",
        lambda: {record.name: record for record in case.records_of("runtime") if record.source != "ledger"},
    )
    return table


def scope(path: str) -> str:
    """The id of the container that a cgroup, or one above it, is named for; "" if none is. Users other than root can
    make cgroups of any name below their own."""
    if OWN_SLICE.match(path):
        return ""
    for name in reversed(path.split("/")):
        match = CGROUP.match(name)
        if match:
            return match["id"]
    return ""


def id_below(case: Case, path: str) -> tuple[str, str]:
    """For a path in a graph root: the id of Podman's container whose it is, "" if of none, and the path in there;
    ("", "") for any other path."""
    path = path.removesuffix("//deleted").removesuffix(" (deleted)")
    for graph in case.cached("libpod.graphs", lambda: case.at(GRAPH)):
        if not below(path, graph) or path == graph:
            continue
        inner = path[len(graph) :].strip("/")
        words = inner.split("/")
        if len(words) < 2:
            return "", inner
        if words[0].endswith("-containers"):
            return (words[1] if words[1] in containers(case) else ""), inner
        return layers(case).get(words[1], ""), inner
    return "", ""


def trace(case: Case) -> str:
    """What says that Podman has been on this host. "" if nothing does."""
    if case.been:
        return "the ledger knows it on this host"
    record: Record | None = next(case.records_of("podman-db"), None)
    if record is not None:
        return f"{record.name} is there"
    return next((said.text for said in containers(case).values()), "")


def rival(case: Case) -> str:
    """Who else is using, right now, what is Podman's and others' by the same name; "" if nobody is to be seen."""

    def make() -> list[Object]:
        return [
            process
            for process in case.objects("process")
            if not process.facts["nested"]
            and process.facts["our_net"]
            and process.facts["uid"] == 0
            and real_exe(process).rpartition("/")[2] in ("buildah", "crio")
        ]

    for process in case.cached("libpod.rivals", make):
        return f"pid {process.key} runs {process.facts['exe']}"
    return ""


def sharer(case: Case) -> str:
    """Who else may have something in the store; "" if nobody is to be seen."""
    for record in case.records_of("stored"):
        if record.facts["by"] == "crio" and record.source != "ledger":
            return f"container {record.name[:12]} in it is CRI-O's"
    found = next((file.key for file in case.objects("file") if file.key in SHARERS), "")
    return rival(case) or (f"{found} is there" if found else "")
