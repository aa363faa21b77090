"""A member's instances, and what on the host is directly one of theirs (Product.instances)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from leftovers.claims import Case
from leftovers.model import Evidence, Instance, Object, Record
from leftovers.products.family.names import Names
from leftovers.products.family.reading import made

__all__ = ["instances"]

# Where in the member's directory the name of an instance stands (internal/server/storage/drivers/volume.go,
# internal/util/paths.go): below these, or below a pool.
PLACES = r"(?:devices|shmounts|containers|virtual-machines|storage-pools/[^/]+/(?:containers|virtual-machines))"


def instances(names: Names, case: Case) -> list[Instance]:
    """All that the best source has, and whoever's monitor runs. The ledger's memory of one that is gone is none."""
    records: dict[str, Record] = {}
    for record in case.records_of("instance"):
        if record.source != "ledger":
            records.setdefault(record.name, record)  # the best source comes first
    # Ties by name, in the order in which they are met.
    ties: dict[str, dict[str, None]] = {name: {} for name in records}
    said = {name: Evidence(record.source, f"has an instance {name}") for name, record in records.items()}
    running = set()
    for name, process in first_processes(names, case):
        said.setdefault(name, Evidence("kernel", f"pid {process.key} runs it"))
        ties.setdefault(name, {})[process.id] = None
        running.add(name)
        path = process.facts["cgroup"]
        if path != "/" and path.count("/") == 1 and case.is_proven("cgroup", path):
            ties[name].setdefault(f"cgroup:{path}")
    for name, obj in (*helpers(names, case), *places(names, case), *links(case, records)):
        if name in ties:
            ties[name].setdefault(obj.id)
    for name in ties:
        for path in (f"/lxc.payload.{name}", f"/lxc.monitor.{name}"):
            if case.is_proven("cgroup", path):
                ties[name].setdefault(f"cgroup:{path}")
        profile = f"profile {names.called}-{name}_<{names.directory}>"
        if case.is_proven("apparmor", profile):
            ties[name].setdefault(f"apparmor:{profile}")
    return [described(case, name, records.get(name), said[name], tuple(ties[name]), name in running) for name in ties]


def described(
    case: Case, name: str, record: Record | None, said: Evidence, ties: tuple[str, ...], runs: bool
) -> Instance:
    facts = record.facts if record is not None else {}
    state = "running" if runs else "stopped" if facts.get("running") is False else ""
    created = str(facts.get("created", ""))
    return Instance(
        product=case.product,
        id=name,
        name=name,
        evidence=said,
        image=str(facts.get("image", "")),
        created="" if created.startswith("0001-") else created,
        state=state,
        ties=ties,
    )


def first_processes(names: Names, case: Case) -> Iterator[tuple[str, Object]]:
    """Monitors with their containers' inits, and machines: whose each is stands in a title or an argument that only
    this process could have given itself, since it is proven by its file."""
    monitors: dict[int, str] = {}
    for process in case.proven("process"):
        argv = process.facts["argv"] or [""]
        if argv[0].startswith("[lxc monitor] ") and not process.facts["nested"]:
            monitors[process.facts["pid"]] = argv[0].rpartition(" ")[2]
            yield monitors[process.facts["pid"]], process
        elif "qemu" in argv[0] and not process.facts["nested"]:
            for path in argv:
                match = re.match(rf"{re.escape(names.run)}/([^/]+)/qemu\.(conf|pid)\Z", path)
                if match:
                    yield match[1], process
                    break
    for process in case.proven("process"):
        if process.facts["nested"] and process.facts["ppid"] in monitors:
            yield monitors[process.facts["ppid"]], process


def helpers(names: Names, case: Case) -> Iterator[tuple[str, Object]]:
    """What it has a process file of: forkproxy, virtiofsd, swtpm (evidence/incus_directory.py). The pid may be another
    helper's by now: it must have the arguments that were written down, or the instance's directory among its own."""
    for record in case.records_of("helper"):
        match = re.match(rf"(?:{re.escape(names.directory)}/devices|{re.escape(names.run)})/([^/]+)/", record.name)
        process = case.process(record.facts["pid"]) if match and record.source != "ledger" else None
        if match is None or process is None or not case.is_proven("process", process.key):
            continue
        told, argv = list(record.facts["args"]), process.facts["argv"][1:]
        while told and not told[-1]:
            told.pop()  # the kernel's word of a process has no empty ones at its end
        if (told and argv == told) or any(f"/{match[1]}/" in argument for argument in argv):
            yield match[1], process


def places(names: Names, case: Case) -> Iterator[tuple[str, Object]]:
    for kind, fact in (("mount", "point"), ("file", "path")):
        for obj in case.proven(kind):
            for directory in case.at(names.directory):
                match = re.match(rf"{re.escape(directory)}/{PLACES}/([^/]+)(/|\Z)", str(obj.facts[fact]))
                if match:
                    yield match[1], obj


def links(case: Case, records: dict[str, Record]) -> Iterator[tuple[str, Object]]:
    """The host's ends of its network devices."""
    proven = {link.facts["name"]: link for link in case.proven("link") if link.facts["host"]}
    for name, record in records.items():
        for nic in record.facts.get("nics", ()):
            link = proven.get(nic.get("host_name") or "")
            if link is not None and nic.get("host_name_from") != "device" and made(case, nic):
                yield name, link
