"""Which processes, cgroups and network namespaces are a product's own: its shims, and their containers."""

from __future__ import annotations

import re

from leftovers.claims import Case, Finding, real_exe
from leftovers.model import Evidence, Object, Record, Role
from leftovers.mountinfo import below
from leftovers.products.containers.known import (
    addresses,
    containers,
    holds,
    in_bundle,
    located,
    of,
    pod_uids,
    relative,
    runs_own,
    unmounted,
    usurper,
)
from leftovers.products.containers.names import Runtime
from leftovers.products.containers.rivals import shared, shim_argv

CONTAINER, SHIM, DAEMON = "a container's process", "a container's shim", "a program of the product"
# In which order they are ended: who would start something again, the containers, who looks after them.
DAEMONS, CONTAINERS, SHIMS = 0, 1, 2
# internal/cri/server/podsandbox/helpers_linux.go, getCgroupsPath; pkg/kubelet/cm/cgroup_manager_linux.go.
SCOPE = re.compile(r"(?:(?P<by>[A-Za-z0-9.-]+)-)?(?P<id>[0-9a-f]{64})(?:\.scope)?\Z")
# Who calls the scopes of his containers so (moby daemon/oci_linux.go; cri-o internal/config/cgmgr; podman libpod).
STRANGERS = ("docker", "crio", "crio-conmon", "libpod", "libpod-conmon", "libpod-payload")
POD = re.compile(r"(?:kubepods(?:-burstable|-besteffort)?-)?pod(?P<uid>[0-9a-f_-]{32,36})(?:\.slice)?\Z")
PARENTS = re.compile(r"/kubepods(\.slice)?(/(kubepods-)?(burstable|besteffort)(\.slice)?)?\Z")
# pkg/netns/netns_linux.go: a random UUID, in the host's directory or below the daemon's --state.
PIN = re.compile(r"cni-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
NETNS = "/run/netns"


def shim(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A shim of this very containerd. It was given its socket, which anybody may write into his arguments, and stands
    in a bundle of its --state, or runs a file of the product's. Never by the name of its file: there are many
    (containerd-shim-spin-v2), and all containerds have the same."""
    told = shim_argv(obj)
    if obj.facts["nested"] or obj.facts["uid"] != 0 or told.get("address") not in addresses(runtime, case):
        return None
    if (runtime.namespaces and told["namespace"] not in runtime.namespaces) or (runtime.lets and usurper(case)):
        return None
    said = [Evidence("kernel", f"given -address {told['address']}")]
    for record in case.records_of("shim"):
        if record.name == obj.key and record.facts["start"] == obj.facts["start"]:
            said.append(Evidence("kernel", f"stands in {record.facts['bundle']}"))
            return Finding(SHIM, tuple(said), rank=SHIMS)
    if runs_own(runtime, case, obj) or unmounted(obj, case):
        said.append(Evidence("kernel", f"runs {obj.facts['exe']}"))
        return Finding(SHIM, tuple(said), rank=SHIMS)
    if runtime.shares or not located(runtime, case, runtime.state):
        return None  # where anybody has his socket, these arguments are everybody's
    doubt = Evidence("kernel", f"runs {obj.facts['exe']}, and does not stand in a bundle of {runtime.title}")
    reason = "has the arguments of a shim, but nothing else of one"
    return Finding(reason, (doubt,), proven=False, role=Role.ADMIN, advice=f"kill {obj.key}")


def program(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """Its daemons and whatever else it runs from its own directory of programs. We may be one of these: in its own
    remove hook."""
    if obj.facts["nested"] or obj.facts["self"]:
        return None
    if runs_own(runtime, case, obj):
        return Finding(DAEMON, (Evidence("kernel", f"runs {obj.facts['exe']}"),), rank=DAEMONS)
    inner = unmounted(obj, case)
    if not inner:
        return None
    said = Evidence("kernel", f"runs {inner} of a file system that is not mounted any more")
    told = Evidence("kernel", f"its environment says that it was {runtime.programs}")
    return Finding(DAEMON, (said, told), rank=DAEMONS)


def service(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A process in the cgroup of one of its services; what survives the service's stop is still there
    (KillMode=process). An administrator's shell or tool has no business there."""
    match = re.match(runtime.services, obj.facts["cgroup"])
    if match is None or obj.facts["self"]:
        return None
    said = Evidence("kernel", f"in cgroup {match[0]}")
    reason = CONTAINER if obj.facts["nested"] else f"started by a service of {runtime.title}"
    return Finding(reason, (said,), rank=CONTAINERS if obj.facts["nested"] else DAEMONS)


def child(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A container's first process: a shim has no other children. It may be in the host's pid namespace (hostPID)."""
    parent = case.process(obj.facts["ppid"])
    if parent is None or parent.facts["nested"] or not case.is_proven("process", parent.key):
        return None
    if shim_argv(parent).get("address") not in addresses(runtime, case):
        return None
    said = Evidence("kernel", f"child of pid {parent.key}, the shim of {shim_argv(parent)['id'][:12]}")
    return Finding(CONTAINER, (said,), rank=CONTAINERS, facts=abrupt(runtime, case, obj))


def runs(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A container's first process whose shim has ended: runc wrote down which it is, and for which bundle."""

    def make() -> dict[tuple[int, int], Record]:
        return {(record.facts["pid"], record.facts["start"]): record for record in case.records_of("runc")}

    record = case.cached("containers.runc", make).get((obj.facts["pid"], obj.facts["start"]))
    if record is None or in_bundle(runtime, case, record.facts["bundle"]) != record.facts["id"]:
        return None
    said = Evidence(record.source, f"runc started it in {record.facts['bundle']}")
    return Finding(CONTAINER, (said,), rank=CONTAINERS, facts=abrupt(runtime, case, obj))


def rooted(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A process whose root file system is what is mounted in a bundle of the product's."""
    root = obj.facts.get("mount_root")
    if not root:
        return None

    def make() -> dict[tuple[str, str], str]:
        return {
            (mount.majmin, mount.root): mount.point
            for mount in case.mounts()
            if mount.point.endswith("/rootfs") and in_bundle(runtime, case, mount.point.removesuffix("/rootfs"))
        }

    point = case.cached("containers.roots", make).get((root[0], root[1]))
    if point is None:
        return None
    said = Evidence("kernel", f"its root file system is mounted at {point}")
    return Finding(CONTAINER, (said,), rank=CONTAINERS, facts=abrupt(runtime, case, obj))


def inside(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A process in or below a container's cgroup. That of the service in which the daemon runs is no container's."""
    path = obj.facts["cgroup"]
    while path and path != "/":
        if case.is_proven("cgroup", path) and not re.match(runtime.services, path):
            said = Evidence("kernel", f"in cgroup {path}")
            return Finding(CONTAINER, (said,), rank=CONTAINERS, facts=abrupt(runtime, case, obj))
        path = path.rpartition("/")[0]
    return None


def tied(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """What is started from a directory of the product's, but not by it: it is shown."""
    if obj.facts["nested"] or not holds(runtime, case, real_exe(obj)):
        return None
    said = Evidence("kernel", f"runs {obj.facts['exe']}")
    return Finding(f"runs a file in {runtime.possessive} directory", (said,), False, advice=f"kill {obj.key}")


def abrupt(runtime: Runtime, case: Case, obj: Object) -> dict[str, object]:
    """How a container's process is ended: not asked, and with all that is in its container's own cgroup, if that is
    named for an id of ours."""

    def make() -> dict[str, list[object]]:
        found: dict[str, list[object]] = {}
        for group in case.objects("cgroup"):
            id = scope(runtime, group.key)
            if id and not group.facts["hierarchy"] and id in containers(runtime, case):
                found[group.key] = [group.key, group.facts["directory"], group.identity[1]]
        return found

    groups = case.cached("containers.groups", make)
    path = obj.facts["cgroup"]
    while path and path != "/":
        if path in groups:
            return {"abrupt": True, "group": groups[path]}
        path = path.rpartition("/")[0]
    return {"abrupt": True}


PROCESSES = (shim, program, child, runs, rooted, inside, service, tied)


# -- cgroups --------------------------------------------------------------------------------------------------------


def container_cgroup(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A container's cgroup: named for an id of ours, or the one that a bundle of ours asks for, named for its id."""
    if obj.facts["hierarchy"]:
        return None
    said = containers(runtime, case).get(scope(runtime, obj.facts["path"]))
    if said is None:
        asked: dict[str, str] = case.cached("containers.cgroups", lambda: wanted(case))
        if asked.get(obj.facts["path"]) is None:
            return None
        said = Evidence("disk", f"{asked[obj.facts['path']]} asks for it")
    return Finding("a container's cgroup", (said,))


def scope(runtime: Runtime, path: str) -> str:
    """The id of the container that a cgroup is named for, "" for any other, and for one with another engine's name."""
    match = SCOPE.match(path.rpartition("/")[2])
    strange = match and match["by"] in STRANGERS and not (match["by"] == "docker" and "docker" in runtime.brings)
    return match["id"] if match and not strange else ""


def wanted(case: Case) -> dict[str, str]:
    """The cgroups that the present bundles of the product ask for, each named for its container."""
    return {
        record.facts["cgroup"]: f"{record.facts['bundle']}/config.json"
        for record in case.records_of("container")
        if record.source == "disk"
        and record.facts["cgroup"].startswith("/")
        and record.facts["cgroup"].count("/") > 1
        and record.facts["cgroup"].rpartition("/")[2] == record.facts["id"]
    }


def pod_cgroup(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A pod's cgroup, around those of its containers; only kubelet gives such names."""
    match = POD.match(obj.facts["path"].rpartition("/")[2])
    if match is None or obj.facts["hierarchy"]:
        return None
    uid = match["uid"].replace("_", "-")
    said = pod_uids(runtime, case).get(uid)
    if said is None:
        inner = next((each for each in case.proven("cgroup") if parent(each.key) == obj.facts["path"]), None)
        if inner is None:
            return abandoned(runtime, obj, case)
        said = Evidence("kernel", f"{inner.key} is in it")
    return Finding("a pod's cgroup", (said,), facts={"only_empty": True})


def parent(path: str) -> str:
    return path.rpartition("/")[0]


def abandoned(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The cgroup of a pod that nobody remembers."""
    if obj.facts["populated"] or not PARENTS.match(parent(obj.facts["path"])):
        return None
    said = Evidence("kernel", f"{obj.key} is empty")
    advice = f"rmdir {obj.facts['directory']}"
    return shared(runtime, obj, case, "kube", "a pod's cgroup", said, advice, facts={"only_empty": True})


def parent_cgroup(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """What kubelet makes above all pods, and ctr above the containers of a namespace, when all in it is its own."""
    if obj.facts["hierarchy"]:
        return None
    path = obj.facts["path"]
    asked = {parent(each) for each in case.cached("containers.cgroups", lambda: wanted(case))}
    by_ctr = path in asked and path.strip("/") in {record.facts["namespace"] for record in case.records_of("container")}
    own = path in runtime.cgroups
    if not PARENTS.match(path) and not by_ctr and not own:
        return None
    for other in case.objects("cgroup"):
        inner = other.key != path and below(other.key, path) and not PARENTS.match(other.key)
        if inner and not case.is_proven("cgroup", other.key):
            return None
    for process in case.objects("process"):
        if below(process.facts["cgroup"], path) and not case.is_proven("process", process.key):
            return None
    said = Evidence("kernel", f"holds nothing that is not {runtime.possessive}")
    advice = f"rmdir {obj.facts['directory']}"
    what = "docker" if own else "containerd" if by_ctr else "kube"
    reason = "the cgroup above the containers" if by_ctr or own else "the cgroup of all pods"
    return shared(runtime, obj, case, what, reason, said, advice, facts={"only_empty": True})


def service_cgroup(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The cgroup of a service, which stays while a shim is in it, and which systemd forgets with the unit."""
    path = obj.facts["path"]
    match = re.match(runtime.services, path)
    if match is None or match[0].rstrip("/") != path or obj.facts["hierarchy"]:
        return None
    for process in case.objects("process"):
        if below(process.facts["cgroup"], path) and not case.is_proven("process", process.key):
            return None
    said = Evidence("kernel", "is named for a service, and holds nobody else's process")
    return Finding("the cgroup of a service", (said,), facts={"only_empty": True})


CGROUPS = (container_cgroup, pod_cgroup, parent_cgroup, service_cgroup)


# -- network namespaces ---------------------------------------------------------------------------------------------


def netns(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A pod's network namespace: a container's process is in it, or a pin of containerd's form that a bundle or a CNI
    result of a container of ours names. All products of CNI call their pins so: the name itself says nothing."""
    if obj.facts["host"]:
        return None
    said = None
    for pid in obj.facts["processes"]:
        process = case.process(pid)
        if process is not None and case.is_proven("process", str(pid)) and is_container(case, process):
            said = Evidence("kernel", f"network namespace of pid {pid}, a container's")
            break
    named = named_pins(runtime, case)
    recalled = case.recalled.get(obj.id)
    if said is None and recalled is not None:
        said = recalled.evidence[0]  # of the same namespace, whose processes have ended
    pins = [canonical(pin) for pin in obj.facts["pins"]]
    own = [pin for pin in pins if pin in named]
    placed = [pin for pin in pins if in_own_place(runtime, case, pin)]
    if said is None and own:
        said = named[own[0]]
    if said is None and placed:
        said = Evidence("kernel", f"pinned at {placed[0]}")
    if said is None:
        return None
    reason = f"a {runtime.unit}'s network namespace"
    foreign = [pid for pid in obj.facts["processes"] if not case.is_proven("process", str(pid))]
    strange = [
        pin
        for pin in pins
        if pin not in placed and not (PIN.match(pin.rpartition("/")[2]) and ours_by_place(runtime, case, pin))
    ]
    if foreign:
        process = case.process(foreign[0])
        other = f"also used by pid {foreign[0]} ({real_exe(process) if process else '?'}), which is not the product's"
        held = (Evidence("kernel", other), said)
        return Finding(f"{reason} that somebody else uses too", held, role=Role.HELD, advice=f"end pid {foreign[0]}")
    if strange:
        held = (Evidence("kernel", f"pinned at {strange[0]}, which is not the product's"), said)
        return Finding(f"{reason} that somebody else holds", held, role=Role.HELD, advice=f"umount {strange[0]}")
    return Finding(reason, (said,))


def is_container(case: Case, process: Object) -> bool:
    claim = case.claims.get(process.id)
    return claim is not None and claim.rank == CONTAINERS


def canonical(path: str) -> str:
    """/var/run is a symlink to /run; containerd names the one, and the kernel the other."""
    return path.removeprefix("/var") if path.startswith("/var/run/") else path


def in_own_place(runtime: Runtime, case: Case, pin: str) -> bool:
    """Whether a pin is in a directory in which only the product has pins."""
    return bool(runtime.netns) and bool(relative(runtime, case, pin, runtime.netns))


def ours_by_place(runtime: Runtime, case: Case, pin: str) -> bool:
    return parent(pin) == NETNS or relative(runtime, case, pin, f"{runtime.state}/netns") is not None


def named_pins(runtime: Runtime, case: Case) -> dict[str, Evidence]:
    """The pins that the present bundles of the product, and the present results of its containers, name."""

    def make() -> dict[str, Evidence]:
        found: dict[str, Evidence] = {}
        for record in case.records_of("container"):
            if record.source == "disk" and PIN.match(record.facts["netns"].rpartition("/")[2]):
                found[canonical(record.facts["netns"])] = Evidence("disk", f"{record.facts['bundle']} names it")
        for record, said in of(runtime, case, "cni"):
            # The name is random, so an older word of it is as good: nobody gives it again.
            if PIN.match(record.facts["netns"].rpartition("/")[2]):
                pin = canonical(record.facts["netns"])
                found.setdefault(pin, Evidence(record.source, f"container {record.facts['id'][:12]}: {said.text}"))
        return found

    pins: dict[str, Evidence] = case.cached("containers.pins", make)
    return pins


RULES = {"process": PROCESSES, "cgroup": CGROUPS, "netns": (netns,)}
