"""Which mounts, directories and files are CRI-O's own. The store is Podman's and buildah's, too: of what is in it
nothing is ever deleted here, not even CRI-O's own containers; it is told."""

from __future__ import annotations

import re

from leftovers.claims import Case, Finding
from leftovers.model import Evidence, Object, Presence, Record, Role
from leftovers.products.containers import storage as shared
from leftovers.products.containers.known import trace
from leftovers.products.containers.names import rules
from leftovers.products.containers.storage import on_itself
from leftovers.products.crio.known import containers, id_below, pins, sharer, usurper
from leftovers.products.crio.names import GRAPH, KEPT, LIB, PINS, RUN, RUNTIME, RUNTIMES, SHARERS, STATE
from leftovers.products.libpod.storage import DRIVER
from leftovers.products.product import Directory

__all__ = ["FILES", "directories", "mount"]

# What lies in the run root for one container.
BUNDLE = re.compile(rf"{RUN}/[a-z]+-containers/(?P<id>[0-9a-f]{{64}})\Z")


def directories() -> tuple[Directory, ...]:
    """What is to be looked at: its own, what it shares, and what would tell of somebody else."""
    return (
        Directory(STATE, Role.LIVE, "crio.conf(5): listen, container_exits_dir, version_file"),
        Directory(LIB, Role.DATA, "crio.conf(5): clean_shutdown_file; dpkg leaves it while something is in it"),
        Directory(GRAPH, Role.ADMIN, "the store of all users of containers/storage"),
        Directory(RUN, Role.LIVE, "the run root of the store"),
        Directory("/run/containers", Role.LIVE, "made for the run root"),
        *(Directory(path, Role.LIVE, "what runs, by the runtime") for path in RUNTIMES),
        *(Directory(path, Role.LIVE, "pins of namespaces (pinns)") for path in PINS),
        *(Directory(path, Role.ADMIN, "another user of the store") for path in SHARERS),
        *shared.directories(RUNTIME),
    )


# -- mounts ---------------------------------------------------------------------------------------------------------


def mount(obj: Object, case: Case) -> Finding | None:
    """What CRI-O mounts: a container's file system and shared memory, and pins of namespaces that are no network's."""
    point = obj.facts["point"].removesuffix("//deleted")
    said = Evidence("kernel", f"mounted at {point} ({obj.facts['fstype']}, {obj.facts['source']})")
    if obj.facts["fstype"] == "nsfs":
        if not obj.facts["host"] or obj.facts["root"].startswith("net:") or point not in pins(case):
            return None
        return Finding("a pod's namespace", (said, containers(case)[pins(case)[point]]))
    id, inner = id_below(case, point)
    if not inner or not (id or DRIVER.match(inner)):
        return None
    if obj.facts["configured"]:
        asked = (Evidence("disk", f"{obj.facts['configured']} asks for a mount there"),)
        return Finding("a mount that the administrator configured", asked, role=Role.ADMIN)
    if not obj.facts["host"]:
        copies: dict[str, Record] = case.cached(
            "crio.copies", lambda: {each.name: each for each in case.records_of("copies") if each.source != "ledger"}
        )
        if str(obj.facts["ns"]) in copies:
            facts = copies[str(obj.facts["ns"])].facts
            where = Evidence("kernel", f"in the namespaces of pid {facts['pid']}, of uid {facts['uid']}")
            reason = "a copy in a user's own namespaces, which goes with these or with its directory"
            return Finding(reason, (where, said), role=Role.ADMIN)
    if id:
        what = "the file system" if inner.endswith("/merged") else "a mount"
        return Finding(f"{what} of a container", (said, containers(case)[id]))
    if not on_itself(obj, case) or not trace(RUNTIME, case):
        return None
    reason, other = "a directory of the store, mounted on itself", sharer(case)
    if other:
        users = (Evidence("disk", other), said)
        role = Role.ADMIN if case.presence is Presence.INSTALLED else Role.HELD
        return Finding(f"{reason}, which others may use", users, role=role, advice=f"umount {point}")
    return Finding(reason, (said,))


# -- files ----------------------------------------------------------------------------------------------------------


def own(obj: Object, case: Case) -> Finding | None:
    """What is in /run/crio, and the two marks in /var/lib/crio."""
    facts = obj.facts
    if obj.key not in (STATE, LIB) or facts["type"] != "directory":
        return None
    advice = f"ls -A {obj.key}"
    if facts["mounted"]:
        there = Evidence("kernel", "something is mounted there")
        return Finding("CRI-O's directory", (there,), proven=False, role=Role.ADMIN, advice=advice)
    other = usurper(case)
    if other:
        return Finding("the directory of another CRI-O", (Evidence("kernel", other),), role=Role.ADMIN, advice=advice)
    if obj.key == STATE:
        return Finding("CRI-O's state", (Evidence("package", "only CRI-O makes it"),), facts={"strict": True})
    strange = [name for name in facts["entries"] if not KEPT.fullmatch(name)]
    if strange:
        doubt = Evidence("disk", f"has {', '.join(strange[:3])} in it, which CRI-O does not make")
        return Finding("CRI-O's directory, and other things", (doubt,), proven=False, role=Role.ADMIN, advice=advice)
    said = Evidence("disk", "holds nothing but what CRI-O writes about its last shutdown")
    return Finding("CRI-O's directory", (said,), role=Role.DATA, facts={"strict": True})


def of_container(obj: Object, case: Case) -> Finding | None:
    """What is kept of one container that runs: its bundle in the run root, and what crun or runc has of it."""
    match = BUNDLE.match(obj.key)
    id = match["id"] if match else ""
    if obj.key.rpartition("/")[0] in RUNTIMES:
        id = obj.key.rpartition("/")[2]
    if id not in containers(case) or obj.facts["type"] != "directory":
        return None
    return Finding("what is kept of a container that runs", (containers(case)[id],), facts={"strict": True})


def pin(obj: Object, case: Case) -> Finding | None:
    """The empty file on which a namespace was mounted; that of a network goes with its namespace."""
    if obj.key not in pins(case) or obj.facts["type"] not in ("file", "other") or obj.key.startswith(f"{PINS[0]}/"):
        return None
    if obj.facts["mounted"] and not any(each.facts["point"] == obj.key for each in case.proven("mount")):
        return None
    said = containers(case)[pins(case)[obj.key]]
    return Finding("where a pod's namespace was pinned", (said,), facts={"strict": True, "mounted": False})


def store(obj: Object, case: Case) -> Finding | None:
    """The store, with CRI-O's containers and images in it: it stays, whoever else has something in it."""
    if obj.key not in case.at(GRAPH) or obj.facts["type"] != "directory":
        return None
    stored = [each for each in case.records_of("stored") if each.source != "ledger"]
    own = sum(1 for each in stored if each.name in containers(case) and each.facts.get("graph", GRAPH) == obj.key)
    if not own and not trace(RUNTIME, case):
        return None
    other = sharer(case)
    said = Evidence("disk", other or f"containers.json has {own} of CRI-O's, and nobody else's")
    reason = f"the store of images and containers, with {own} of CRI-O's"
    advice = "podman ps --external --all" if other else f"rm -r {obj.key}"
    return Finding(reason, (said,), role=Role.ADMIN, advice=advice)


def run_root(obj: Object, case: Case) -> Finding | None:
    """The run root: which layers are mounted, and how often, whoever uses them."""
    if obj.key != RUN or obj.facts["type"] != "directory" or obj.facts["mounted"] or not trace(RUNTIME, case):
        return None
    other = sharer(case)
    if other:
        users = (Evidence("disk", other),)
        reason = "the run root of the store, somebody else's too"
        return Finding(reason, users, role=Role.ADMIN, advice=f"ls -A {obj.key}")
    return Finding("the run root of the store", (Evidence("disk", "nobody else here uses it"),))


def parent(obj: Object, case: Case) -> Finding | None:
    """A directory that is made for what is in it, when all of that is CRI-O's and goes."""
    facts = obj.facts
    if obj.key not in ("/run/containers", *RUNTIMES, *PINS) or facts["type"] != "directory" or facts["mounted"]:
        return None
    spaces = {path for space in case.proven("netns") for path in space.facts["pins"]}
    inner = [f"{obj.key}/{name}" for name in facts["entries"]]
    if not inner or not all(path in spaces or case.is_proven("file", path) for path in inner):
        return None
    said = Evidence("disk", "holds nothing that is not CRI-O's")
    return Finding("a directory that is made for what is in it", (said,), facts={"only_hollow": True})


FILES = (
    *(own, of_container, pin, store, run_root, parent),
    *rules(RUNTIME, shared.of_container, shared.shared_directory),
)
