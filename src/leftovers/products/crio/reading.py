"""What CRI-O has written down of its containers, and what its monitors show of themselves."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import Any

from leftovers.claims import real_exe
from leftovers.evidence import containerd, json_text, libpod
from leftovers.evidence.json_text import mapping, objects, text
from leftovers.kinds.kind import Look
from leftovers.model import Record
from leftovers.products.containers import reading as shared
from leftovers.products.crio.known import canonical
from leftovers.products.crio.names import CONFLISTS, CONMONS, EXITS, NETWORKS, PIN, RUN, RUNTIME, RUNTIMES
from leftovers.products.libpod.reading import Answer, conmon_argv, graphs, held_fifo, read_copies, read_places, remote

LIMIT = libpod.LIMIT


def read_store(look: Look) -> Answer:
    """Records "stored" of all that is in the store, whosever it is, and one "store", by path, of each graph root, with
    the fact whole: all of it could be read."""
    return look.once("crio.store", lambda: from_store(look))


def from_store(look: Look) -> Answer:
    records: list[Record] = []
    faults: list[str] = []
    for path in graphs(look):
        if remote(look, path):
            faults.append(f"{path}: not read, it is on a network or FUSE file system")
            records.append(Record("store", path, "disk", {"whole": False}))
            continue
        real = os.path.realpath(look.host.path(path)).removeprefix(look.host.root) or path
        found, said = libpod.read_store(look.host, real)
        records += [replace(each, facts={**each.facts, "graph": real}) for each in found if each.type == "stored"]
        records.append(Record("store", real, "disk", {"whole": not said}))
        faults += said
    return records, faults


def read_conmons(look: Look) -> Answer:
    """Records "conmon", by pid, of the monitors of CRI-O's containers: given its directory for exit files, and holding
    a fifo in the container's bundle open, which only root can open (internal/oci/runtime_oci.go; Podman's are in the
    graph root). Facts: id, start, exit, held."""
    records = []
    for process in look.objects("process"):
        facts = process.facts
        if facts["nested"] or facts["uid"] or not facts["our_mnt"]:
            continue
        if real_exe(process).rpartition("/")[2] not in CONMONS:
            continue
        told = conmon_argv(process)
        if not told or told["exit"] not in EXITS:
            continue
        held = held_fifo(look, process, told["id"], RUN)
        if held:
            said = {"id": told["id"], "start": facts["start"], "exit": told["exit"], "held": held}
            records.append(Record("conmon", process.key, "kernel", said))
    return records, []


def read_containers(look: Look) -> Answer:
    """Records "container", by id, of CRI-O's: those that containers.json has with its metadata, and those that a
    monitor of its looks after. Facts as of a containerd's (evidence/containerd.py), and `why`, `name`, `layer`,
    `driver`, `pins` (of namespaces, from its config.json)."""
    stored, _ = read_store(look)
    faults: list[str] = []
    by = {each.name: each.facts["by"] for each in stored if each.type == "stored"}
    others = {id for id, who in by.items() if who == "podman"}
    own = {each.name: each.facts for each in stored if by.get(each.name) == "crio"}
    why = dict.fromkeys(own, "containers.json has it, with CRI-O's metadata")
    for conmon in read_conmons(look)[0]:
        id = conmon.facts["id"]
        if id not in others:
            own.setdefault(id, {"name": "", "layer": "", "driver": "overlay", "graph": ""})
            why.setdefault(id, f"conmon {conmon.name} looks after it")
    records = []
    for id, facts in own.items():
        spec: dict[str, Any] = {}
        for base in filter(None, (RUN, facts["graph"])):
            below = f"{facts['driver']}-containers/{id}/userdata/config.json"
            spec = spec or (None if remote(look, base) else json_text.read(look.host, base, below, LIMIT, faults)) or {}
        said = {"why": why[id], "name": facts["name"], "layer": facts["layer"], "driver": facts["driver"]}
        records.append(Record("container", id, "disk", {**containerd.blank("", id), **described(spec), **said}))
    return records, faults


def described(spec: dict[str, Any]) -> dict[str, Any]:
    """What a container's config.json says (the runtime's specification; pkg/annotations of CRI-O)."""
    linux, notes = mapping(spec.get("linux")), mapping(spec.get("annotations"))
    spaces = [(text(each.get("type")), canonical(text(each.get("path")))) for each in objects(linux.get("namespaces"))]
    sandbox = notes.get("io.kubernetes.cri-o.SandboxID")
    return {
        "pins": sorted({path for _, path in spaces if PIN.match(path)}),
        "sandbox": sandbox if libpod.is_id(sandbox) else "",
        "pod": text(notes.get("io.kubernetes.pod.name"))[:253],
        "pod_namespace": text(notes.get("io.kubernetes.pod.namespace"))[:253],
    }


def read_runtimes(look: Look) -> Answer:
    """Records "runtime" of what crun and runc keep, whosever it is."""
    records: list[Record] = []
    faults: list[str] = []
    for directory in RUNTIMES:
        found, said = libpod.read_states(look.host, directory)
        records += found
        faults += said
    return records, faults


def read_cni(look: Look) -> Answer:
    """What CNI's plugins wrote down, whosever it is. The package's own configurations tell of nobody else."""
    records, faults = shared.read_cni(RUNTIME, look)
    return [
        replace(each, facts={**each.facts, "within": True})
        if each.type == "conflist" and CONFLISTS.match(each.name) and each.facts["network"] in NETWORKS
        else each
        for each in records
    ], faults


def places(records: tuple[Record, ...]) -> tuple[str, ...]:
    """What of the host's files the records point to."""
    found = list(shared.places(RUNTIME, records))
    for record in records:
        if record.type in ("runtime", "place"):
            found.append(str(record.facts["path"]))
        elif record.type == "container":
            found += [f"{RUN}/{record.facts['driver']}-containers/{record.name}", *record.facts["pins"]]
    return tuple(path for path in dict.fromkeys(found) if path.startswith("/"))


READERS = (read_places, read_store, read_conmons, read_containers, read_copies, read_runtimes, read_cni) + tuple(
    partial(each, RUNTIME) for each in (shared.read_places, shared.read_grounds)
)
