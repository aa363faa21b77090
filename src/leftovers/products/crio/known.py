"""Whose container is it: the ids that are proven CRI-O's, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable

from leftovers.claims import Case, real_exe
from leftovers.model import Evidence, Object, Record
from leftovers.mountinfo import below
from leftovers.products.crio.names import CGROUP, GRAPH, PROGRAMS, RUN, SHARERS
from leftovers.products.libpod.known import OWN_SLICE

__all__ = ["canonical", "conmons", "containers", "id_below", "pins", "scope", "sharer", "usurper"]


def containers(case: Case) -> dict[str, Evidence]:
    """The ids of CRI-O's own containers and sandboxes (random: nobody else has the same), and what says so."""

    def make() -> dict[str, Evidence]:
        # What the ledger remembers, and the store has with another's metadata by now, is not believed.
        strange = {each.name for each in case.records_of("stored") if each.facts["by"] == "podman"}
        found: dict[str, Evidence] = {}
        for record in case.records_of("container"):
            found.setdefault(record.name, Evidence(record.source, record.facts["why"]))
        return {id: said for id, said in found.items() if id not in strange}

    ids: dict[str, Evidence] = case.cached("crio.ids", make)
    return ids


def conmons(case: Case) -> dict[str, Record]:
    return case.cached(  # type: ignore[no-any-return]
        "crio.conmons",
        lambda: {record.name: record for record in case.records_of("conmon") if record.source != "ledger"},
    )


def scope(path: str) -> tuple[str, bool]:
    """The id of the container that a cgroup, or one above it, is named for, "" if none is; and whether it is that of
    the container's monitor. Users other than root can make cgroups of any name below their own."""
    for name in () if OWN_SLICE.match(path) else reversed(path.split("/")):
        match = CGROUP.match(name)
        if match:
            return match["id"], bool(match["monitor"])
    return "", False


def layers(case: Case) -> dict[str, str]:
    """The layers that are the file systems of CRI-O's containers, with the container of each."""

    def make() -> dict[str, str]:
        others = {each.facts["layer"] for each in case.records_of("stored") if each.facts["by"] != "crio"}
        return {
            record.facts["layer"]: record.name
            for record in case.records_of("container")
            if record.facts["layer"] and record.name in containers(case) and record.facts["layer"] not in others
        }

    table: dict[str, str] = case.cached("crio.layers", make)
    return table


def id_below(case: Case, path: str) -> tuple[str, str]:
    """For a path in the graph root or the run root: the id of CRI-O's container whose it is, "" if of none, and the
    path in there; ("", "") for any other path."""
    path = path.removesuffix("//deleted").removesuffix(" (deleted)")
    for top in case.cached("crio.tops", lambda: (*case.at(GRAPH), RUN)):
        if not below(path, top) or path == top:
            continue
        inner = path[len(top) :].strip("/")
        words = inner.split("/")
        if len(words) < 2:
            return "", inner
        if words[0].endswith("-containers"):
            return (words[1] if words[1] in containers(case) else ""), inner
        return (layers(case).get(words[1], "") if words[2:] == ["merged"] else ""), inner
    return "", ""


def pins(case: Case) -> dict[str, str]:
    """The pins of namespaces that config.json of CRI-O's containers, and CNI's results for them, name: a random UUID,
    which nobody gives again."""

    def make() -> dict[str, str]:
        found = {}
        for record in case.records_of("container"):
            if record.name in containers(case):
                found.update(dict.fromkeys(record.facts["pins"], record.name))
        for record in case.records_of("cni"):
            if record.facts["id"] in containers(case):
                found.setdefault(canonical(record.facts["netns"]), record.facts["id"])
        return found

    table: dict[str, str] = case.cached("crio.pins", make)
    return table


def canonical(path: str) -> str:
    """/var/run is a symlink to /run: CRI-O names the one, and the kernel the other."""
    return path.removeprefix("/var") if path.startswith("/var/run/") else path


def named(case: Case, *names: str) -> Iterable[Object]:
    """Processes of the host's root that run files of these names."""
    return (
        process
        for process in case.objects("process")
        if not process.facts["nested"] and not process.facts["uid"] and real_exe(process).rpartition("/")[2] in names
    )


def usurper(case: Case) -> str:
    """Another CRI-O, that is of no package: what has one name for all of them may be its. "" if none is to be seen."""

    def make() -> str:
        others = (process for process in named(case, "crio") if real_exe(process) not in PROGRAMS)
        return next((f"pid {process.key} runs {process.facts['exe']}" for process in others), "")

    found: str = case.cached("crio.usurper", make)
    return found


def sharer(case: Case) -> str:
    """Who else may have something in the store; "" if nobody is to be seen."""

    def make() -> str:
        for record in case.records_of("stored"):
            if record.name not in containers(case) and record.source != "ledger":
                return f"container {record.name[:12]} in it is not CRI-O's"
        for record in case.records_of("store"):
            if not record.facts["whole"] and record.source != "ledger":
                return f"who else has something in {record.name} could not be read"
        for process in named(case, "podman", "buildah", "skopeo"):
            return f"pid {process.key} runs {process.facts['exe']}"
        there = next((file.key for file in case.objects("file") if file.key in SHARERS), "")
        return usurper(case) or (f"{there} is there" if there else "")

    found: str = case.cached("crio.sharer", make)
    return found
