"""Which processes, cgroups and network namespaces are CRI-O's own: its monitors and their containers."""

from __future__ import annotations

from leftovers.claims import Case, Finding, real_exe
from leftovers.model import Evidence, Object, Record, Role
from leftovers.mountinfo import below
from leftovers.products.containers.known import runs_own
from leftovers.products.crio.known import conmons, containers, id_below, pins, scope
from leftovers.products.crio.names import CONMONRS, CONMONS, PIN, RUN, RUNTIME
from leftovers.products.libpod.processes import CONTAINERS, MONITORS

__all__ = ["CONTAINER", "MONITOR", "PROCESSES", "cgroup", "netns"]

CONTAINER, MONITOR = "a container's process", "a container's monitor"


def daemon(obj: Object, case: Case) -> Finding | None:
    if obj.facts["self"] or not runs_own(RUNTIME, case, obj):
        return None
    return Finding("the daemon", (Evidence("kernel", f"runs {obj.facts['exe']}"),), rank=MONITORS)


def monitor(obj: Object, case: Case) -> Finding | None:
    """A conmon of CRI-O's: it was given CRI-O's directory for exit files and holds a fifo in the bundle of a container
    open; or it is in the cgroup that CRI-O made for the monitor of a container that is its own."""
    facts = obj.facts
    if facts["nested"] or facts["uid"]:
        return None
    record, (id, for_monitor) = conmons(case).get(obj.key), scope(facts["cgroup"])
    said: tuple[Evidence, ...] = ()
    if record is not None and record.facts["start"] == facts["start"] and record.facts["id"] in containers(case):
        said = (
            Evidence("kernel", f"holds {record.facts['held']} open"),
            Evidence("kernel", f"given --exit-dir {record.facts['exit']}"),
        )
    elif for_monitor and id in containers(case) and real_exe(obj).rpartition("/")[2] in CONMONS:
        said = (Evidence("kernel", f"in cgroup {facts['cgroup']}"), containers(case)[id])
    # Asked to end, it would first end its container, and wait for that.
    return Finding(MONITOR, said, rank=MONITORS, facts={"abrupt": True}) if said else None


def of_pod(obj: Object, case: Case) -> Finding | None:
    """The monitor of a whole pod (containers/conmon-rs, runtime_type "pod"): known by its arguments only."""
    if obj.facts["nested"] or obj.facts["uid"] or real_exe(obj).rpartition("/")[2] not in CONMONRS:
        return None
    if not any(below(each, RUN) and id_below(case, each)[0] for each in obj.facts["argv"][1:]):
        return None
    said = Evidence("kernel", f"runs {obj.facts['exe']} with a path of a container's")
    return Finding("perhaps a pod's monitor", (said,), proven=False, role=Role.ADMIN, advice=f"kill {obj.key}")


def child(obj: Object, case: Case) -> Finding | None:
    """A container's first process. It may be in the host's pid namespace (hostPID)."""
    parent = case.process(obj.facts["ppid"])
    if parent is None or real_exe(parent).rpartition("/")[2] not in CONMONS:
        return None
    claim = case.claims.get(parent.id)
    if claim is None or not claim.proven or claim.reason != MONITOR:
        return None
    said = Evidence("kernel", f"child of pid {parent.key}, a container's monitor")
    return Finding(CONTAINER, (said,), rank=CONTAINERS, facts=abrupt(case, obj))


def started(obj: Object, case: Case) -> Finding | None:
    """A container's first process whose monitor has ended: the runtime wrote down which it is, and for what."""

    def make() -> dict[tuple[int, int], Record]:
        return {
            (record.facts["pid"], record.facts["start"]): record
            for record in case.records_of("runtime")
            if record.facts["pid"] and record.facts["start"]
        }

    record = case.cached("crio.started", make).get((obj.facts["pid"], obj.facts["start"]))
    if record is None or record.facts["id"] not in containers(case):
        return None
    if id_below(case, record.facts["bundle"])[0] != record.facts["id"]:
        return None
    said = Evidence(record.source, f"{record.name} says that it was started in {record.facts['bundle']}")
    return Finding(CONTAINER, (said,), rank=CONTAINERS, facts=abrupt(case, obj))


def rooted(obj: Object, case: Case) -> Finding | None:
    """A process whose root file system is what is mounted for a container of CRI-O's."""
    root = obj.facts.get("mount_root")
    if not root:
        return None

    def make() -> dict[tuple[str, str], str]:
        return {
            (mount.majmin, mount.root): mount.point
            for mount in case.mounts()
            if mount.point.endswith("/merged") and id_below(case, mount.point)[0]
        }

    point = case.cached("crio.roots", make).get((root[0], root[1]))
    if point is None:
        return None
    said = Evidence("kernel", f"its root file system is mounted at {point}")
    return Finding(CONTAINER, (said,), rank=CONTAINERS, facts=abrupt(case, obj))


def inside(obj: Object, case: Case) -> Finding | None:
    """A process in a container's cgroup. (Who moved his shell there has moved it into the container.)"""
    id, for_monitor = scope(obj.facts["cgroup"])
    if for_monitor or id not in containers(case):
        return None
    said = Evidence("kernel", f"in the cgroup of container {id[:12]}")
    return Finding(CONTAINER, (said, containers(case)[id]), rank=CONTAINERS, facts=abrupt(case, obj))


def abrupt(case: Case, obj: Object) -> dict[str, object]:
    """How a container's process is ended: not asked, and with all that is in its container's own cgroup."""

    def make() -> dict[str, list[object]]:
        return {
            group.key: [group.key, group.facts["directory"], group.identity[1]]
            for group in case.objects("cgroup")
            if not group.facts["hierarchy"]
            and scope(group.key.rpartition("/")[2])[0] in containers(case)
            and not scope(group.key)[1]
            and scope(group.key)[0]
        }

    groups = case.cached("crio.groups", make)
    path = obj.facts["cgroup"]
    while path and path != "/":
        if path in groups:
            return {"abrupt": True, "group": groups[path]}
        path = path.rpartition("/")[0]
    return {"abrupt": True}


PROCESSES = (daemon, monitor, child, started, rooted, inside, of_pod)


def cgroup(obj: Object, case: Case) -> Finding | None:
    """A container's or its monitor's cgroup, named for its id, and what is below it. The pod's own is kubelet's."""
    id, _ = scope(obj.facts["path"])
    if id not in containers(case):
        return None
    last = scope(obj.facts["path"].rpartition("/")[2])[0]
    named = Evidence("kernel", f"is named for {id[:12]}") if last else Evidence("kernel", "is in its cgroup")
    return Finding("a container's cgroup", (named, containers(case)[id]))


def netns(obj: Object, case: Case) -> Finding | None:
    """A pod's network namespace: a container's process is in it, or config.json or CNI's result of a container of
    CRI-O's names its pin. The name alone, a UUID, says nothing."""
    if obj.facts["host"]:
        return None
    said, reason = None, "a pod's network namespace"
    own = [pin for pin in obj.facts["pins"] if pin in pins(case)]
    if own:
        id = pins(case)[own[0]]
        said = Evidence(containers(case)[id].source, f"{own[0]} is that of container {id[:12]}")
    for pid in obj.facts["processes"] if said is None else ():
        claim = case.claims.get(f"process:{pid}")
        if claim is not None and claim.proven and claim.reason == CONTAINER:
            said = Evidence("kernel", f"network namespace of pid {pid}, a container's")
            break
    recalled = case.recalled.get(obj.id)
    if said is None and recalled is not None:
        said = recalled.evidence[0]  # of the same namespace, whose processes have ended
    if said is None:
        return None
    foreign = [pid for pid in obj.facts["processes"] if not case.is_proven("process", str(pid))]
    strange = [pin for pin in obj.facts["pins"] if not PIN.match(pin)]
    if foreign:
        process = case.process(foreign[0])
        other = f"also used by pid {foreign[0]} ({real_exe(process) if process else '?'}), which is not CRI-O's"
        held = (Evidence("kernel", other), said)
        return Finding(f"{reason} that somebody else uses too", held, role=Role.HELD, advice=f"end pid {foreign[0]}")
    if strange:
        held = (Evidence("kernel", f"pinned at {strange[0]}, which is not CRI-O's"), said)
        return Finding(f"{reason} that somebody else holds", held, role=Role.HELD, advice=f"umount {strange[0]}")
    return Finding(reason, (said,))
