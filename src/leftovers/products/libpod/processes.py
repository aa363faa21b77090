"""Which processes, units, cgroups and network namespaces are Podman's own: its monitors and their containers."""

from __future__ import annotations

import re

from leftovers.claims import Case, Finding, real_exe
from leftovers.evidence import libpod
from leftovers.model import Evidence, Object, Record, Role
from leftovers.mountinfo import below
from leftovers.products.libpod.known import containers, id_below, pins, pods, rival, scope, title, trace
from leftovers.products.libpod.names import GRAPH, NETNS, POD_SLICE, PROGRAMS, STATE
from leftovers.products.libpod.network import on_network

CONTAINER, MONITOR = "a container's process", "a container's monitor"
# Who would start something again, then the containers: a monitor that outlives its container has Podman clean up after
# it, and Podman starts it again if it is to be.
MONITORS, CONTAINERS = 0, 1


def conmons(case: Case) -> dict[str, Record]:
    return case.cached(  # type: ignore[no-any-return]
        "libpod.conmons",
        lambda: {record.name: record for record in case.records_of("conmon") if record.source != "ledger"},
    )


def monitor(obj: Object, case: Case) -> Finding | None:
    """A conmon of Podman's: it was given Podman's directory for exit files (CRI-O gives its own), and holds a fifo in
    the directory of a container of that id in the store open, which only root can open."""
    record = conmons(case).get(obj.key)
    if record is None or record.facts["start"] != obj.facts["start"] or record.facts["uid"]:
        return None
    if record.facts["id"] not in containers(case):
        return None
    said = Evidence("kernel", f"holds {record.facts['held']} open")
    told = Evidence("kernel", f"given --exit-dir {record.facts['exit']}")
    # Asked to end, it would first end its container, and wait for that.
    return Finding(MONITOR, (said, told), rank=MONITORS, facts={"abrupt": True})


def child(obj: Object, case: Case) -> Finding | None:
    """A container's first process. It may be in the host's pid namespace (--pid=host)."""
    parent = case.process(obj.facts["ppid"])
    if parent is None or parent.key not in conmons(case) or not case.is_proven("process", parent.key):
        return None
    id = conmons(case)[parent.key].facts["id"]
    said = Evidence("kernel", f"child of pid {parent.key}, the monitor of {title(case, id)}")
    return Finding(CONTAINER, (said,), rank=CONTAINERS, facts=abrupt(case, obj))


def started(obj: Object, case: Case) -> Finding | None:
    """A container's first process whose monitor has ended: the runtime wrote down which it is, and for what."""

    def make() -> dict[tuple[int, int], Record]:
        return {
            (record.facts["pid"], record.facts["start"]): record
            for record in case.records_of("runtime")
            if record.facts["pid"] and record.facts["start"]
        }

    record = case.cached("libpod.started", make).get((obj.facts["pid"], obj.facts["start"]))
    if record is None or id_below(case, record.facts["bundle"])[0] != record.facts["id"]:
        return None
    said = Evidence(record.source, f"{record.name} says that it was started in {record.facts['bundle']}")
    return Finding(CONTAINER, (said,), rank=CONTAINERS, facts=abrupt(case, obj))


def rooted(obj: Object, case: Case) -> Finding | None:
    """A process whose root file system is what is mounted for a container of Podman's."""
    root = obj.facts.get("mount_root")
    if not root:
        return None

    def make() -> dict[tuple[str, str], str]:
        return {
            (mount.majmin, mount.root): mount.point
            for mount in case.mounts()
            if mount.point.endswith("/merged") and id_below(case, mount.point)[0]
        }

    point = case.cached("libpod.roots", make).get((root[0], root[1]))
    if point is None:
        return None
    said = Evidence("kernel", f"its root file system is mounted at {point}")
    return Finding(CONTAINER, (said,), rank=CONTAINERS, facts=abrupt(case, obj))


def inside(obj: Object, case: Case) -> Finding | None:
    """A process in a container's cgroup. (Who moved his shell there has moved it into the container.)"""
    id = scope(obj.facts["cgroup"])
    if id not in containers(case) or "libpod-conmon-" in obj.facts["cgroup"]:
        return None
    said = Evidence("kernel", f"in the cgroup of container {title(case, id)}")
    return Finding(CONTAINER, (said,), rank=CONTAINERS, facts=abrupt(case, obj))


def names(obj: Object, case: Case) -> Finding | None:
    """The name server of Podman's networks (containers/aardvark-dns): all of root's netavark have the same one."""
    argv = obj.facts["argv"]
    if obj.facts["nested"] or obj.facts["uid"] or real_exe(obj).rpartition("/")[2] != "aardvark-dns":
        return None
    if not obj.facts["our_net"] or not any(below(each, f"{STATE}/aardvark-dns") for each in argv[1:]):
        return None
    said = (Evidence("kernel", f"runs {obj.facts['exe']}"), Evidence("kernel", f"given {STATE}/aardvark-dns"))
    other = rival(case)
    if other:
        users = (Evidence("kernel", other), *said)
        return Finding("the name server of networks, somebody else's too", users, role=Role.HELD)
    return Finding("the name server of its networks", said, rank=MONITORS)


def client(obj: Object, case: Case) -> Finding | None:
    """A podman of root's that still runs: its API, or one that somebody waits in."""
    if obj.facts["nested"] or obj.facts["uid"] or obj.facts["self"] or real_exe(obj) not in PROGRAMS:
        return None
    return Finding("a program of Podman", (Evidence("kernel", f"runs {obj.facts['exe']}"),), rank=MONITORS)


def abrupt(case: Case, obj: Object) -> dict[str, object]:
    """How a container's process is ended: not asked, and with all that is in its container's own cgroup."""

    def make() -> dict[str, list[object]]:
        return {
            group.key: [group.key, group.facts["directory"], group.identity[1]]
            for group in case.objects("cgroup")
            if not group.facts["hierarchy"]
            and scope(group.key) in containers(case)
            and scope(group.key.rpartition("/")[2])
            and "libpod-conmon-" not in group.key
        }

    groups = case.cached("libpod.groups", make)
    path = obj.facts["cgroup"]
    while path and path != "/":
        if path in groups:
            return {"abrupt": True, "group": groups[path]}
        path = path.rpartition("/")[0]
    return {"abrupt": True}


PROCESSES = (monitor, child, started, rooted, inside, names, client)


# -- units and cgroups ----------------------------------------------------------------------------------------------

MADE = re.compile(r"(?P<id>[0-9a-f]{64})(-[0-9a-f]+)?\.(timer|service)\Z")


def unit(obj: Object, case: Case) -> Finding | None:
    """What Podman had systemd make for one container or pod: it is named for its id. A timer left alone would go on
    starting a podman that is not there."""
    match = MADE.match(obj.key)
    if match and match["id"] in containers(case) and not obj.facts["file"].startswith("/etc/"):
        said = (Evidence("systemd", f"{obj.key} is {obj.facts['active']}"), containers(case)[match["id"]])
        return Finding("a container's health check", said)
    match = POD_SLICE.match(obj.key)
    if match is None or match["id"] not in pods(case):
        return None
    said = (Evidence("systemd", f"{obj.key} is {obj.facts['active']}"), pods(case)[match["id"]])
    for group in case.objects("cgroup"):
        if group.key == obj.facts["cgroup"] and not group.facts["hierarchy"]:
            return Finding(
                "a pod's slice", said, facts={"group": [group.key, group.facts["directory"], group.identity[1]]}
            )
    return Finding("a pod's slice", said)


def cgroup(obj: Object, case: Case) -> Finding | None:
    """A container's or its monitor's cgroup, named for its id; or a pod's, with all in it."""
    name, id = obj.facts["path"].rpartition("/")[2], scope(obj.facts["path"])
    if id in containers(case):
        # What is below it goes with it.
        named = Evidence("kernel", f"is named for {id[:12]}") if scope(name) else Evidence("kernel", "is in its cgroup")
        return Finding("a container's cgroup", (named, containers(case)[id]))
    match = POD_SLICE.match(name)
    pod = match["id"] if match else name if obj.facts["path"] == f"/libpod_parent/{name}" else ""
    if pod in pods(case):
        named = Evidence("kernel", f"is named for the pod {pod[:12]}")
        return Finding("a pod's cgroup", (named, pods(case)[pod]), facts={"only_empty": True})
    if obj.facts["path"] not in ("/libpod_parent", "/libpod_parent/conmon") or not trace(case):
        return None
    for process in case.objects("process"):
        if below(process.facts["cgroup"], obj.facts["path"]) and not case.is_proven("process", process.key):
            return None
    only = Evidence("kernel", "has the name that only libpod gives, and holds nobody else's process")
    return Finding("the cgroup above the containers", (only,), facts={"only_empty": True})


# -- network namespaces ---------------------------------------------------------------------------------------------


def netns(obj: Object, case: Case) -> Finding | None:
    """A container's network namespace: a proven container's process is in it, or db.sql names its pin, or the pin has
    the name that Podman's library gives and a veth leads from it to a bridge of Podman's."""
    if obj.facts["host"]:
        return None
    said, reason = None, "a container's network namespace"
    own = [pin for pin in obj.facts["pins"] if pin in pins(case)]
    if own:
        id = pins(case)[own[0]]
        said = Evidence(containers(case)[id].source, f"{own[0]} is that of container {title(case, id)}")
    if said is None:
        for pid in obj.facts["processes"]:
            claim = case.claims.get(f"process:{pid}")
            if claim is not None and claim.proven and claim.rank == CONTAINERS:
                said = Evidence("kernel", f"network namespace of pid {pid}, a container's")
                break
    recalled = case.recalled.get(obj.id)
    if said is None and recalled is not None:
        said = recalled.evidence[0]  # of the same namespace, whose processes have ended
    if said is None and any(of_form(pin) for pin in obj.facts["pins"]) and not rival(case):
        for link in case.objects("link"):
            if (
                link.facts["host"]
                and link.facts["type"] == "veth"
                and link.facts["peer_netns"] == obj.facts["inode"]
                and on_network(case, link.facts["master"])
            ):
                said = Evidence("kernel", f"a veth leads from it to {link.facts['master']}, the bridge of a network")
    if said is None:
        return None
    foreign = [pid for pid in obj.facts["processes"] if not case.is_proven("process", str(pid))]
    strange = [pin for pin in obj.facts["pins"] if not of_form(pin)]
    if foreign:
        process = case.process(foreign[0])
        other = f"also used by pid {foreign[0]} ({real_exe(process) if process else '?'}), which is not Podman's"
        held = (Evidence("kernel", other), said)
        return Finding(f"{reason} that somebody else uses too", held, role=Role.HELD, advice=f"end pid {foreign[0]}")
    if strange:
        held = (Evidence("kernel", f"pinned at {strange[0]}, which is not Podman's"), said)
        return Finding(f"{reason} that somebody else holds", held, role=Role.HELD, advice=f"umount {strange[0]}")
    return Finding(reason, (said,))


def of_form(pin: str) -> bool:
    return pin.rpartition("/")[0] == NETNS and libpod.is_pin(pin)


__all__ = ["CONTAINERS", "GRAPH", "PROCESSES", "cgroup", "netns", "unit"]
