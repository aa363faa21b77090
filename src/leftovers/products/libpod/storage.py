"""Which mounts, directories and files are Podman's own. Debian's purge of podman deletes no data (its packages have no
postrm that would): what is in the graph root is kept, and named, until somebody asks for it."""

from __future__ import annotations

import re

from leftovers.claims import Case, Finding
from leftovers.evidence import libpod
from leftovers.model import Evidence, Object, Presence, Record, Role
from leftovers.mountinfo import below
from leftovers.products.containers.storage import on_itself
from leftovers.products.libpod.known import containers, id_below, rival, runtimes, sharer, trace
from leftovers.products.libpod.names import (
    CACHE,
    CNI,
    GRAPH,
    LOCKS,
    NAMES,
    NETAVARK,
    NETNS,
    NETWORKS,
    RUN,
    RUNTIMES,
    SHARERS,
    STATE,
    TMP,
)
from leftovers.products.product import Directory

# -- mounts ---------------------------------------------------------------------------------------------------------

VOLUME = re.compile(r"volumes/[^/]+/_data\Z")
DRIVER = re.compile(r"(overlay|btrfs|vfs|zfs|zfs/graph)\Z")
IMAGE = re.compile(r"overlay/[0-9a-f]{64}/(merged|mapped/.+)\Z")


def mount(obj: Object, case: Case) -> Finding | None:
    """What Podman and containers/storage mount in the graph root: the file system, the shared memory and the secrets of
    a container, a volume, and the driver's directory on itself."""
    point = obj.facts["point"].removesuffix("//deleted")
    if point == NETNS:
        return netns_directory(obj, case)
    id, inner = id_below(case, point)
    for run in (RUN,):
        words = point.removeprefix(f"{run}/").split("/")
        if below(point, run) and len(words) > 2 and words[0].endswith("-containers"):
            id, inner = (words[1] if words[1] in containers(case) else ""), "/".join(words)
    if not inner or obj.facts["fstype"] == "nsfs":
        return None
    if obj.facts["configured"]:
        asked = (Evidence("disk", f"{obj.facts['configured']} asks for a mount there"),)
        return Finding("a mount that the administrator configured", asked, role=Role.ADMIN)
    said = Evidence("kernel", f"mounted at {point} ({obj.facts['fstype']}, {obj.facts['source']})")
    copies: dict[str, Record] = case.cached(
        "libpod.copies",
        lambda: {record.name: record for record in case.records_of("copies") if record.source != "ledger"},
    )
    if not obj.facts["host"] and str(obj.facts["ns"]) in copies:
        facts = copies[str(obj.facts["ns"])].facts
        where = Evidence("kernel", f"in the namespaces of pid {facts['pid']}, of uid {facts['uid']}")
        reason = "a copy in a user's own namespaces, which goes with these or with its directory"
        return Finding(reason, (where, said), role=Role.ADMIN)
    if id:
        what = "the file system" if inner.endswith("/merged") else "a mount"
        return Finding(f"{what} of a container", (said, containers(case)[id]))
    if VOLUME.match(inner):
        return volume(inner.split("/")[1], said, case)
    reason = "a directory of the store, mounted on itself" if DRIVER.match(inner) else "the file system of an image"
    if (DRIVER.match(inner) and on_itself(obj, case)) or (IMAGE.match(inner) and obj.facts["fstype"] == "overlay"):
        other = sharer(case)
        if other:
            users = (Evidence("disk", other), said)
            role = Role.ADMIN if case.presence is Presence.INSTALLED else Role.HELD
            return Finding(f"{reason}, which others may use", users, role=role, advice=f"umount {point}")
        return Finding(reason, (said,)) if trace(case) else None
    if trace(case):
        reason = f"mounted below {GRAPH}, but not where Podman mounts anything"
        return Finding(reason, (said,), proven=False, role=Role.ADMIN, advice=f"umount {point}")
    return None


def volume(name: str, said: Evidence, case: Case) -> Finding | None:
    """A volume that Podman mounts: with a device, a type or a driver (libpod/volume_internal.go, needsMount). What is
    mounted on any other is the administrator's, who has a bigger disk."""
    for record in case.records_of("podman-volume"):
        facts = record.facts
        if record.name == name and (facts["device"] or facts["type"] or facts["driver"] not in ("", "local")):
            what = facts["device"] or facts["type"] or facts["driver"]
            return Finding("a volume", (said, Evidence(record.source, f"Podman has the volume {name} of {what}")))
    reason = "mounted on a volume, and not known to be Podman's"
    return Finding(reason, (said,), proven=False, role=Role.ADMIN) if trace(case) else None


def netns_directory(obj: Object, case: Case) -> Finding | None:
    """The directory of pins, mounted on itself for the first of them (containers/common pkg/netns, as ip-netns(8) does
    it): of no use when no pin is left, and made again with the next."""
    entries = next((file.facts["entries"] for file in case.objects("file") if file.key == NETNS), None)
    if entries is None or not on_itself(obj, case) or not trace(case) or rival(case):
        return None
    own = {pin for netns in case.proven("netns") for pin in netns.facts["pins"]}
    if any(f"{NETNS}/{name}" not in own for name in entries):
        return None
    said = Evidence("kernel", "mounted on itself, and holds nothing that is not Podman's")
    return Finding("the directory of network namespaces", (said,))


# -- files ----------------------------------------------------------------------------------------------------------


def directories() -> tuple[Directory, ...]:
    """What is to be looked at: its own, what it shares, and what would tell of somebody else."""
    return (
        Directory(GRAPH, Role.EXTERNAL, "the graph root (containers-storage.conf(5)); no package deletes it"),
        Directory(CACHE, Role.EXTERNAL, "where layers have been seen (containers/image pkg/blobinfocache)"),
        Directory(NAMES, Role.DATA, "short names of images (containers/image pkg/sysregistriesv2)"),
        Directory("/var/lib/containers", Role.EXTERNAL, "made for the graph root"),
        Directory(NETWORKS, Role.EXTERNAL, "podman-network-create(1) writes there"),
        Directory(TMP, Role.LIVE, "libpod's tmpdir"),
        Directory(RUN, Role.LIVE, "the run root (containers-storage.conf(5))"),
        Directory(STATE, Role.LIVE, "what netavark has set up"),
        Directory("/run/containers", Role.LIVE, "made for the run root"),
        Directory("/run/podman", Role.LIVE, "the socket of the API (podman.socket)"),
        Directory("/run/podman/podman.sock", Role.LIVE, "the socket of the API (podman.socket)"),
        *(Directory(path, Role.LIVE, "libpod's and netavark's locks") for path in LOCKS),
        *(Directory(path, Role.DATA, "containers/common libnetwork/cni/network.go") for path in CNI),
        *(Directory(path, Role.LIVE, "what runs, by the runtime") for path in RUNTIMES),
        *(Directory(f"{path}/.cache", Role.LIVE, "crun's seccomp programs") for path in RUNTIMES[:1]),
        Directory(NETNS, Role.LIVE, "pins of network namespaces, everybody's"),
        *(Directory(path, Role.ADMIN, "another user of what is shared") for path in (*SHARERS, NETAVARK)),
    )


def places(records: tuple[Record, ...]) -> tuple[str, ...]:
    """What of the host's files the records point to."""
    found = []
    for record in records:
        if record.type in ("place", "podman-network", "runtime", "sysctl-file", "rootless"):
            found.append(str(record.facts["path"]))
    return tuple(path for path in dict.fromkeys(found) if path.startswith("/"))


OWN = {TMP: "libpod's state", **dict.fromkeys(LOCKS, "a lock of Podman's")}
SHARED = {RUN: "the run root of the store", STATE: "netavark's state"}


def stranger(case: Case) -> str:
    """A container in the store that is not Podman's, mounted or not (`buildah mount` needs no process)."""
    there = sharer(case)  # Podman's own builds leave the same when they are killed
    for record in case.records_of("stored") if there else ():
        if record.source != "ledger" and record.name not in containers(case):
            return f"container {record.name[:12]} in the store is none of Podman's, and {there}"
    return ""


def has_lived(case: Case) -> bool:
    """Whether libpod has run since the host was started: only root could have made this directory."""
    return any(file.key == TMP for file in case.objects("file"))


def own(obj: Object, case: Case) -> Finding | None:
    """What nobody else makes."""
    if obj.key in OWN and not obj.facts["mounted"] and obj.facts["type"] in ("directory", "file"):
        said = Evidence("package", "only Podman makes it")
        if obj.key.startswith("/dev/shm/") and (obj.facts["type"] != "file" or not (trace(case) or has_lived(case))):
            return None  # anybody may put something there
        return Finding(OWN[obj.key], (said,), facts={"strict": True})
    if obj.key not in SHARED or obj.facts["type"] != "directory" or not trace(case):
        return None
    said = Evidence("kernel", f"nobody else here uses it, and {trace(case)}")
    other = rival(case) or (stranger(case) if obj.key == RUN else "")
    if other:
        users = (Evidence("kernel", other),)
        return Finding(f"{SHARED[obj.key]}, somebody else's too", users, role=Role.ADMIN, advice=f"ls -A {obj.key}")
    return Finding(SHARED[obj.key], (said,))


def api(obj: Object, case: Case) -> Finding | None:
    """Podman's socket, and the directory that it has with netavark's proxy while that is installed."""
    if obj.key == "/run/podman/podman.sock" and obj.facts["type"] == "socket" and trace(case):
        return Finding("the socket of its API", (Evidence("package", "podman.socket makes it"),))
    if obj.key != "/run/podman" or obj.facts["type"] != "directory" or obj.facts["mounted"] or not trace(case):
        return None
    if any(file.key == NETAVARK for file in case.objects("file")):
        return None
    if not set(obj.facts["entries"]) <= {"podman.sock", "nv-proxy.sock", "nv-proxy.lease"}:
        return None
    said = Evidence("disk", "holds only what podman.socket and netavark's proxy make there, and that is not installed")
    return Finding("the directory of its sockets", (said,))


def cni_lock(obj: Object, case: Case) -> Finding | None:
    """An empty lock beside CNI's configurations: only containers/common makes one of this name."""
    if obj.key != CNI[0] or obj.facts["type"] != "file" or not trace(case) or sharer(case):
        return None
    said = Evidence("disk", "the name that containers/common gives")
    return Finding("a lock of Podman's", (said,), role=Role.DATA, facts={"strict": True})


def of_container(obj: Object, case: Case) -> Finding | None:
    """What crun or runc keep of one container."""
    record = runtimes(case).get(obj.key)
    if record is None or record.facts["id"] not in containers(case):
        return None
    return Finding("what the runtime keeps of a container", (containers(case)[record.facts["id"]],))


def settings(obj: Object, case: Case) -> Finding | None:
    """What netavark tells systemd of a bridge (src/network/sysctl.rs), so that networkd does not undo it."""
    for record in case.records_of("sysctl-file"):
        if record.facts["path"] == obj.key and obj.facts["type"] == "file" and not rival(case):
            return Finding("settings of a bridge of netavark's", (Evidence("disk", "the name that netavark gives"),))
    return None


def network(obj: Object, case: Case) -> Finding | None:
    """A network that somebody had Podman make: it is configuration, and goes with the data."""
    for record in case.records_of("podman-network"):
        if record.facts["path"] == obj.key and record.source != "ledger" and obj.facts["type"] == "file":
            said = Evidence("disk", f"netavark's configuration of the network {record.name}")
            other = sharer(case)
            if other:
                users = (Evidence("disk", other), said)
                return Finding("a network, which others may use", users, role=Role.ADMIN, advice=f"rm {obj.key}")
            return Finding("a network of Podman's", (said,), role=Role.EXTERNAL, facts={"strict": True})
    return None


# What containers/storage and libpod make in a graph root.
STORE = re.compile(
    r"(overlay|vfs|btrfs|zfs)(-(containers|images|layers|locks))?|libpod|volumes|secrets|networks|artifacts|mounts|tmp|cache"
    r"|db\.sql(-wal|-shm|-journal)?|(storage|userns)\.lock|defaultNetworkBackend|\.(bolt-.*|has-mount-program)"
)


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def graph(obj: Object, case: Case) -> Finding | None:
    """The graph root: where it always is, or where the administrator has it, and db.sql in it says so."""
    if obj.key not in case.at(GRAPH):
        return None
    stores = {record.name: record for record in case.records_of("podman-store") if record.source != "ledger"}
    databases = {record.facts["store"] for record in case.records_of("podman-db") if record.source != "ledger"}
    store = stores.get(obj.key)
    advice = f"rm -r {obj.key}"
    if obj.facts["type"] == "remote":
        far = Evidence("kernel", "it is on a network or FUSE file system")
        return Finding("Podman's storage, on a server", (far,), proven=False, advice=advice)
    if obj.facts["type"] == "symlink":
        said = Evidence("disk", f"leads to {obj.facts['target']}")
        return Finding("the administrator's symlink for Podman's storage", (said,), role=Role.ADMIN)
    if obj.facts["type"] != "directory" or store is None:
        return None
    if obj.key not in databases and not any(case.records_of("persist")) and not (case.been and obj.key == GRAPH):
        said = Evidence("disk", "has no database of Podman's in it")
        reason = "a store of images, perhaps Podman's"
        return Finding(reason, (said,), proven=False, role=Role.ADMIN, advice=advice) if trace(case) else None
    strange = [name for name in obj.facts["entries"] if not STORE.fullmatch(name)]
    if obj.key != GRAPH and strange:
        doubt = Evidence("disk", f"has {', '.join(strange[:3])} in it, which Podman does not make")
        reason = "Podman's storage, and things of somebody else's in it"
        return Finding(reason, (doubt,), proven=False, role=Role.ADMIN, advice=f"ls -A {obj.key}")
    held = sum(1 for record in case.records_of("podman") if record.source != "ledger" and not record.facts["infra"])
    other = sharer(case)
    amounts = (
        counted(held, "container"),
        counted(store.facts["images"], "image"),
        counted(store.facts["volumes"], "volume"),
    )
    said = Evidence("disk", f"{obj.key} has {', '.join(amounts)}")
    reason = f"Podman's storage ({', '.join(amounts)})"
    if other:
        users = (Evidence("disk", other), said)
        return Finding(f"{reason}, which others may use", users, role=Role.ADMIN, advice=advice)
    facts = {"contents": True} if obj.facts["mounted"] and not case.is_proven("mount", obj.key) else {}
    return Finding(reason, (said,), role=Role.DATA if is_empty(case, store) else Role.EXTERNAL, facts=facts)


def is_empty(case: Case, store: Record) -> bool:
    """Whether nothing in a store is worth keeping."""
    stored = any(record.source != "ledger" for record in case.records_of("stored"))
    kept = any(record.source != "ledger" for type in ("podman", "podman-volume") for record in case.records_of(type))
    return bool(store.facts["whole"]) and not (
        stored or kept or store.facts["images"] or store.facts["volumes"] or store.facts["secrets"]
    )


ALIASES = ("short-name-aliases.conf", "short-name-aliases.conf.lock")


def parent(obj: Object, case: Case) -> Finding | None:
    """A directory that is made for what is in it, when that is Podman's and goes; and the cache beside the store, with
    the store."""
    facts = obj.facts
    if facts["type"] != "directory" or not trace(case):
        return None
    claims = {claim.object.key: claim for claim in case.claims.values() if claim.object.kind == "file" and claim.proven}
    if obj.key == CACHE:
        store = claims.get(GRAPH)
        if store is None or store.role not in (Role.DATA, Role.EXTERNAL):
            return None
        said = Evidence("disk", "the cache beside the store")
        return Finding("what is known of layers", (said,), role=store.role)
    if obj.key == NAMES:
        if sharer(case) or facts["mounted"] or not set(facts["entries"]) <= set(ALIASES):
            return None
        said = Evidence("disk", "holds nothing but what short names of images mean, and nobody else here uses it")
        return Finding("a cache of names", (said,), role=Role.DATA)
    netns = obj.key == NETNS
    if obj.key in CNI and not facts["entries"]:
        return None
    if obj.key not in CNI and obj.key not in (
        "/var/lib/containers",
        NETWORKS,
        "/run/containers",
        NETNS,
        *RUNTIMES,
        f"{RUNTIMES[0]}/.cache",
    ):
        return None
    if facts["mounted"] and not (netns and any(m.facts["point"] == NETNS for m in case.proven("mount"))):
        return None
    if obj.key == f"{RUNTIMES[0]}/.cache":
        top = next((file for file in case.objects("file") if file.key == RUNTIMES[0]), None)
        inner = [name for name in top.facts["entries"] if name != ".cache"] if top else [""]
        if not inner or not all(f"{RUNTIMES[0]}/{name}" in claims for name in inner):
            return None
        return Finding("what the runtime keeps for its containers", (Evidence("disk", "nobody else has one there"),))
    roles = {Role.LIVE}
    pinned = {pin for each in case.proven("netns") for pin in each.facts["pins"]}
    for name in facts["entries"]:
        path = f"{obj.key}/{name}"
        if netns and path in pinned:
            continue
        claim = claims.get(path)
        if claim is None or claim.role not in (Role.LIVE, Role.DATA, Role.EXTERNAL):
            return None
        roles.add(claim.role)
    if not facts["entries"] and (obj.key in (NETNS, *RUNTIMES) and not case.been):
        return None  # empty already: it may be anybody's
    role = next(role for role in (Role.EXTERNAL, Role.DATA, Role.LIVE) if role in roles)
    said = Evidence("disk", "holds nothing that is not Podman's")
    more = {"only_hollow": True, **({"mounted": False} if netns else {})}
    return Finding("a directory that is made for what is in it", (said,), role=role, facts=more)


FILES = (own, api, cni_lock, of_container, settings, network, graph, parent)
__all__ = ["FILES", "directories", "libpod", "mount", "places"]
