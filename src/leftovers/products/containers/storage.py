"""Which mounts and files are a product's own. Below kubelet's directory lies what is the administrator's: volumes are
unmounted and never entered, and nothing is deleted behind a mount."""

from __future__ import annotations

import fnmatch
import re

from leftovers.claims import Case, Finding, real_exe
from leftovers.evidence import containerd, ufw
from leftovers.model import Evidence, Object, Presence, Role
from leftovers.mountinfo import Mount, below, place
from leftovers.products.containers.known import (
    addresses,
    containers,
    holds,
    in_bundle,
    kept,
    located,
    members,
    only_one,
    pod_uids,
    relative,
    trace,
    usurper,
)
from leftovers.products.containers.names import TASKS, Runtime
from leftovers.products.containers.reading import LOGS
from leftovers.products.containers.rivals import FILES, held, made_for, rival, shared
from leftovers.products.product import Directory

UID = r"([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})"
# Where each mounts, in its own directory (containerd core/runtime/v2/bundle.go, internal/cri/server/helpers.go;
# kubernetes pkg/volume/util/subpath/subpath_linux.go, pkg/volume/csi/csi_attacher.go).
STATE = re.compile(
    r"io\.containerd\.runtime\.v2\.task/[^/]+/[^/]+/rootfs(/.*)?\Z"
    r"|io\.containerd\.grpc\.v1\.cri/(sandboxes|containers)/[0-9a-f]{64}/.+"
    r"|io\.containerd\.podsandbox\.controller\.v1\.podsandbox/[0-9a-f]{64}/.+"
)
ROOT = re.compile(r"tmpmounts/.+|io\.containerd\.snapshotter\.v1\.[^/]+/(snapshotter/)?snapshots/[0-9]+(/.*)?\Z")
KUBELET = re.compile(
    rf"pods/{UID}/(volumes/[^/]+/[^/]+|volume-subpaths/[^/]+/[^/]+/[^/]+|volumeDevices/[^/]+/[^/]+|plugins/[^/]+)(/.*)?\Z"
    r"|plugins/kubernetes\.io/[^/]+/.+|plugins/[^/]+/.+"
)
# /run/containerd and what is in it, as all containerds of root have it.
RUN = ("/run/containerd/s", "/run/containerd/fifo", "/run/containerd/runc", "/run/containerd")
# containerd plugins/opt (io.containerd.internal.v1.opt): made at each start, wherever --root and --state are.
OPT = ("/opt/containerd/bin", "/opt/containerd/lib", "/opt/containerd")
CNI = ("/var/lib/cni/results", "/var/lib/cni/flannel", "/var/lib/cni/networks", "/var/lib/cni")
PLUGINS = (
    ("/run/calico", "calico", Role.LIVE),
    ("/var/log/calico", "calico", Role.DATA),
    ("/run/flannel", "flannel", Role.LIVE),
    ("/run/cilium", "cilium", Role.LIVE),
    ("/var/lib/cilium", "cilium", Role.DATA),
)
# Where Cilium mounts cgroup2 anew for its programs (cilium pkg/cgroups/cgroups_linux.go, defaultCgroupRoot).
CGROUPS = "/run/cilium/cgroupv2"


def mount(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A mount in a place where containerd or kubelet mount, in whichever namespace on the host's root. One that the
    host's configuration asks for is the administrator's, and so is one at a directory that they only have things in."""
    point, facts = obj.facts["point"], obj.facts
    if point == CGROUPS and facts["fstype"] == "cgroup2":
        told = Evidence("kernel", f"mounted at {point}")
        return shared(runtime, obj, case, "cilium", "a mount of Cilium's", told, f"umount {point}")
    if not holds(runtime, case, point) or (facts["fstype"] == "nsfs" and not host_pin(runtime, obj, case)):
        return None
    said = (Evidence("kernel", f"mounted at {point} ({facts['fstype']}, {facts['source']})"),)
    if facts["configured"]:
        asked = (Evidence("disk", f"{facts['configured']} asks for a mount there"),)
        return Finding("a mount that the administrator configured", asked, role=Role.ADMIN)
    for directory, form, reason in (
        *((state, STATE, "a container's file system") for state in runtime.states),
        *((root, ROOT, "a mount of containerd's") for root in runtime.roots),
        (runtime.kubelet, KUBELET, "a pod's volume"),
        (runtime.netns, re.compile("default"), "the host's network, as dockerd has it"),
        *((directory, re.compile(form), reason) for directory, form, reason in runtime.mounts),
    ):
        inner = relative(runtime, case, point, directory)
        if inner is not None and form.match(inner):
            return Finding(reason, said)
    if runtime.store and relative(runtime, case, point, runtime.store) is not None and on_itself(obj, case):
        return Finding("a directory of dockerd's, mounted on itself", said)
    if any(relative(runtime, case, point, each.directory) is not None for each in runtime.markers):
        # Of the directory only what has the names of its makers is the product's.
        return None
    reason = f"mounted below {runtime.directory}, but not where {runtime.title} mounts anything"
    return Finding(reason, said, proven=False, role=Role.ADMIN, advice=f"umount {point}")


def on_itself(obj: Object, case: Case) -> bool:
    """Whether a directory is mounted on itself, as dockerd's drivers do it to make it private (moby/sys/mount,
    MakePrivate): what is mounted is what would be there without the mount. An administrator's disk is not."""
    facts = obj.facts
    slots = Mount.__slots__
    others = [
        Mount(**{name: other.facts[name] for name in slots})
        for other in case.objects("mount")
        if other.facts["ns"] == facts["ns"] and not below(other.facts["point"], facts["point"])
    ]
    return place(others, facts["point"]) == (facts["majmin"], facts["root"])


def host_pin(runtime: Runtime, obj: Object, case: Case) -> bool:
    """Whether that is dockerd's pin of the host's own network namespace, which no removal of a namespace undoes (moby
    libnetwork/osl/namespace_linux.go)."""
    inner = relative(runtime, case, obj.facts["point"], runtime.netns) if runtime.netns else None
    if inner != "default":
        return False
    host = next((f"net:[{each.facts['inode']}]" for each in case.objects("netns") if each.facts["host"]), "")
    return bool(obj.facts["root"] == host)


# -- files ----------------------------------------------------------------------------------------------------------


def directories(runtime: Runtime) -> tuple[Directory, ...]:
    """What is to be looked at: its own; what it may share; and what would tell of somebody else."""
    shared_by = "all products of containerd or CNI have it"
    return (
        *(Directory(path, role, source) for path, role, source in runtime.own),
        *(Directory(path, role, source) for path, _, role, source in runtime.marked if "*" not in path),
        *(Directory(each.directory, each.role, each.source) for each in runtime.markers),
        *(
            Directory(path, Role.DATA, "made if nothing is there (snap/hooks/install, configure)")
            for path in runtime.symlinks
        ),
        *(Directory(path, Role.DATA, "made for what is in it") for path in runtime.parents),
        *(Directory(path, Role.LIVE, shared_by) for path in (*RUN, *CNI)),
        *(Directory(path, Role.DATA, shared_by) for path in ((*CONF, *NRI) if runtime.lets else ())),
        *(Directory(path, Role.DATA, shared_by) for path in (*OPT, *LOGS)),
        *(Directory(path, role, f"{what}'s own directory") for path, what, role in PLUGINS),
        *(
            Directory(path, Role.ADMIN, "what ufw was told (wrappers/run-kubelite-with-args)")
            for path in (ufw.FILES if runtime.ufw else ())
        ),
        *(
            Directory(path, Role.ADMIN, "another user of what is shared")
            for each in FILES.values()
            for path in each
            if not runtime.is_program(path)
        ),
    )


def tasks(runtime: Runtime) -> tuple[str, ...]:
    """Where a shared containerd has its containers, by namespace."""
    return tuple(f"{base}/{TASKS}" for base in (runtime.state, runtime.root)) if runtime.lets else ()


def namespace(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The directory of a namespace in it."""
    top, _, name = obj.key.rpartition("/")
    if top not in tasks(runtime) or obj.facts["type"] != "directory" or usurper(case):
        return None
    for record in case.records_of("container"):
        if record.facts["namespace"] == name:
            return Finding("the containers of a namespace", (Evidence(record.source, f"has {record.name}"),))
    return None


def own(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A directory or file that is the product's by its name alone: nobody else has one there."""
    declared = next((each for each in runtime.own if each[0] == obj.key), None)
    if declared is None:
        return None
    path, role, source = declared
    package = Evidence("package", source)
    if runtime.lets and (other := usurper(case)):
        user = Evidence("disk" if other.startswith("/") else "kernel", other)
        return Finding(f"where {runtime.title} has its own, and somebody else", (user,), role=held(case, obj))
    if role is Role.EXTERNAL:
        return store_of(runtime, obj, case, package)
    if obj.facts["type"] == "remote":
        reason = f"a directory of {runtime.title} on a network or FUSE file system"
        return Finding(reason, (package,), proven=False, advice=f"rm -r {path}")
    if obj.facts["mounted"] and not case.is_proven("mount", path):
        said = (package, Evidence("kernel", f"something is mounted there, and not by {runtime.title}"))
        reason = f"a directory of {runtime.title} behind a mount"
        return Finding(reason, said, proven=False, role=Role.ADMIN, advice=f"umount {path}")
    if obj.facts["type"] == "symlink":
        said = (package, Evidence("disk", f"leads to {obj.facts['target']}"))
        reason = f"the administrator's symlink for {runtime.title}"
        return Finding(reason, said, role=Role.ADMIN)
    if obj.facts["type"] == "socket" and strange_listener(runtime, obj, case):
        user = Evidence("kernel", f"somebody waits for connections to {path}, and {runtime.title} does not run")
        reason = f"a socket of {runtime.title}'s, or of who has taken its place"
        return Finding(reason, (user, package), role=Role.HELD, advice=f"ss -xlp src {path}")
    for record in case.records_of("listener"):
        if PLUGIN.match(record.name.removeprefix(path)) and below(record.name, path) and record.source != "ledger":
            user = Evidence("kernel", f"somebody waits for connections to {record.name}")
            reason = f"a {obj.facts['type']} of {runtime.title}, with the socket of a plugin that is somebody else's"
            return Finding(reason, (user, package), role=Role.HELD, advice=f"ss -xlp src {record.name}")
    # In /tmp anybody may have made the way there.
    facts = {"strict": True} if path.startswith("/tmp/") else {}
    if obj.key in tasks(runtime):
        facts = {"only_hollow": True}  # somebody who stays may have his in it
    return Finding(f"a {obj.facts['type']} of {runtime.title}", (package,), role=role, facts=facts)


# Where daemons of others wait for dockerd (moby pkg/plugins/discovery_unix.go); its own plugins' are below their ids.
PLUGIN = re.compile(r"/plugins/(?![0-9a-f]{64}/).+\.sock\Z")


def strange_listener(runtime: Runtime, obj: Object, case: Case) -> bool:
    """Whether somebody else serves a socket by now: a proxy, a Podman that others take for Docker."""
    if not any(each.name == obj.key and each.source != "ledger" for each in case.records_of("listener")):
        return False
    own = any(real_exe(process) in runtime.executables for process in case.proven("process"))
    return not own and not any(True for _ in case.proven("unit"))


# What ext4 has at the top of a disk (kinds/files.py leaves it there).
OF_DISK = "lost+found"


def store_of(runtime: Runtime, obj: Object, case: Case, package: Evidence) -> Finding | None:
    """The data of a product whose package's purge may leave it. On a disk of its own what is in it goes, and the
    directory stays; there, and behind a symlink, it must have nothing in it that the product does not make."""
    facts, reason = obj.facts, f"{runtime.possessive} data"
    if facts["type"] == "remote":
        return Finding(f"{reason} on a network or FUSE file system", (package,), False, advice=f"rm -r {obj.key}")
    if facts["type"] == "symlink":
        said = (package, Evidence("disk", f"leads to {facts['target']}"))
        return Finding(f"the administrator's symlink for {runtime.possessive} data", said, role=Role.ADMIN)
    if facts["type"] != "directory":
        return None
    disk = [OF_DISK] if facts["mounted"] else []
    names = [name for name in facts["entries"] if name not in disk]
    if facts["mounted"] and not names:
        return None  # the administrator's disk, with nothing on it
    strange = next((name for name in names if not STORE.fullmatch(name)), "")
    if facts["mounted"] and strange:
        said = (package, Evidence("disk", f"has {strange} in it, which {runtime.title} does not make"))
        return Finding(f"{reason}, and other things", said, role=Role.ADMIN, advice=f"ls -A {obj.key}")
    if facts["hollow"] and not facts["mounted"]:
        # docker.io's postrm deletes what is in it.
        said = (package, Evidence("disk", "has no file in it"))
        return Finding(f"{runtime.possessive} directory, with nothing in it", said, role=Role.DATA)
    for record in case.records_of("images"):
        same = record.name == obj.key and record.source != "ledger" and record.facts["inode"] == obj.identity[2]
        if same and not record.facts["content"] and not strange and not facts["mounted"]:
            said = (package, Evidence("disk", "has no image and no container's file system in it"))
            return Finding(f"{runtime.possessive} directory, with nothing in it", said, role=Role.DATA)
    return Finding(reason, (package,), role=Role.EXTERNAL, facts={"contents": True})


def marked(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A file in a shared place whose text says, at this look, that it is the product's."""
    for path, word, role, source in runtime.marked:
        if not fnmatch.fnmatchcase(obj.key, path) or obj.facts["type"] != "file":
            continue
        for record in case.records_of("marked"):
            if record.name == obj.key and record.source != "ledger" and record.facts["inode"] == obj.identity[2]:
                had = f"has {word!r} in it" if isinstance(word, str) else f"has nothing in it but lines of {source}"
                said = (Evidence("disk", had), Evidence("package", source))
                return Finding(f"a file of {runtime.title}", said, role=role)
        if not trace(runtime, case):
            return None
        reason = f"a file with a name of {runtime.title}, but not its text"
        lacks = f"has no {word!r} in it" if isinstance(word, str) else "has other lines in it than the product writes"
        doubt = (Evidence("disk", lacks),)
        return Finding(reason, doubt, False, Role.ADMIN, advice=f"rm {obj.key}")
    return None


def symlink(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A symlink in a shared place that leads into the product's directory. Its name alone is any Kubernetes'."""
    if obj.key not in runtime.symlinks or obj.facts["type"] != "symlink":
        return None
    if not holds(runtime, case, obj.facts["target"]) or "/.." in obj.facts["target"]:
        return None
    said = Evidence("disk", f"leads to {obj.facts['target']}")
    return Finding(f"a symlink of {runtime.title}", (said,), role=Role.DATA)


def of_container(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """What CNI's plugins, runc and shims keep of one container, and what is kept of one pod's logs: each is named for
    an id of ours, in a directory that is everybody's."""
    table = case.cached("containers.of", lambda: named_files(runtime, case))
    said = table.get(obj.key)
    if said is None:
        return None
    role = Role.DATA if obj.key.startswith(f"{LOGS[0].rpartition('/')[0]}/") else Role.LIVE
    return Finding("what is kept of a container", (said,), role=role)


def of_member(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """What a shared containerd has of one of the product's containers, in directories named for it."""
    if not runtime.known or obj.facts["type"] != "directory":
        return None

    def make() -> dict[str, str]:
        return {path: id for namespace, id in members(runtime, case) for path in kept(runtime, namespace, id)}

    id = case.cached("containers.kept", make).get(obj.key)
    if id is None:
        return None
    said = Evidence("disk", f"is named for {id[:12]}, a container of {runtime.title}")
    return Finding("what containerd keeps of a container", (said,))


def named_files(runtime: Runtime, case: Case) -> dict[str, Evidence]:
    """All such files that were read at this look, and the proof."""
    ids, uids = containers(runtime, case), pod_uids(runtime, case)
    found: dict[str, Evidence] = {}
    hashes: dict[str, Evidence] = {}
    groups = {(runtime.namespaces or ("k8s.io",))[0]: set(ids)} if runtime.kubelet else {}
    for type in ("container", "shim"):
        for record in case.records_of(type):
            names = {record.facts["id"], record.facts.get("sandbox", "")} - {""}
            groups.setdefault(record.facts["namespace"], set()).update(names)
    for namespace, names in groups.items():
        for id in names:
            for address in addresses(runtime, case):
                for each in containerd.sockets(address, namespace, id):
                    hashes[each] = Evidence("disk", f"computed from {address}, {namespace} and {id[:12]}")
    # Those that a person named, while no other containerd is to be seen.
    alone = only_one(runtime, case)
    named = {each.facts["id"]: Evidence(each.source, each.name) for each in case.records_of("container")}
    for record in case.records:
        facts = record.facts
        if record.source == "ledger":
            continue
        if record.type in ("cni", "lease", "scratch") and facts["id"] in ids:
            found[record.name] = ids[facts["id"]]
        elif record.type == "log":
            said = ids.get(facts["id"]) or uids.get(facts["uid"])
            if said:
                found[record.name] = said
        elif record.type == "runc":
            ours = in_bundle(runtime, case, facts["bundle"]) == facts["id"]
            if ours or facts["id"] in ids:
                said = ids.get(facts["id"]) or Evidence("disk", f"started in {facts['bundle']}")
                found[facts["path"]] = said
        elif record.type == "socket" and facts["hash"] in hashes:
            found[record.name] = hashes[facts["hash"]]
        elif record.type == "fifo" and facts["ids"]:
            mine = {id: ids.get(id) or (named.get(id) if alone else None) for id in facts["ids"]}
            if all(mine.values()):
                found[record.name] = mine[facts["ids"][0]] or Evidence("disk", "")
    return found


def shared_directory(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A directory that is everybody's, in which nothing is left but the product's: it goes empty. The plugins' own
    counters and locks go with the last lease."""
    path, facts = obj.key, obj.facts
    # A tenant's own network is his; the rest is his landlord's, or who else's.
    if runtime.shares and (usurper(case) if runtime.lets else "cni" not in runtime.brings):
        return None
    network = path.rpartition("/")[0] == "/var/lib/cni/networks"
    namespace = path.rpartition("/")[0] == "/run/containerd/runc"
    if path not in (*RUN, *OPT, *CNI, *LOGS) and not network and not namespace:
        if re.match(r"/var/lib/cni/networks/[^/]+/(lock|last_reserved_ip\.[0-9])\Z", path):
            directory = next((each for each in case.objects("file") if each.key == path.rpartition("/")[0]), None)
            if directory is not None and left_over(case, directory) == []:
                said = Evidence("disk", f"nothing else is left in {directory.key}")
                return Finding("what is kept of a network", (said,), facts={"strict": True})
        return None
    if facts["type"] != "directory" or facts["mounted"] or left_over(case, obj):
        return None
    what = "containerd" if path in OPT or path.startswith("/run/containerd") else "kube" if path in LOGS else "cni"
    said = Evidence("disk", f"holds nothing that is not {runtime.possessive}")
    if network and any(case.is_proven("file", f"{path}/{name}") for name in facts["entries"]):
        # The name may be another's too, who makes it again for his next lease.
        return Finding("the leases of a network, all gone", (said,), facts={"only_hollow": True})
    # As what is in it: that of a pod's logs stays until the product's data goes.
    more: dict[str, object] = {
        "facts": {"only_hollow": True},
        "role": Role.DATA if path in (*OPT, *LOGS) else Role.LIVE,
    }
    return shared(runtime, obj, case, what, "a directory of containers, empty", said, f"rmdir {path}", **more)


# containerd's CRI makes it at each start (containerd internal/cri/server/cni_conf_syncer.go, newCNINetConfSyncer).
CONF = ("/etc/cni/net.d", "/etc/cni")


def empty_conf(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The directory of CNI's configurations, with none in it."""
    if not runtime.lets or obj.key not in CONF or obj.facts["type"] != "directory" or obj.facts["mounted"]:
        return None
    if not obj.facts["hollow"] or usurper(case):
        return None
    said = Evidence("disk", "containerd makes it, and there is no file in it")
    more: dict[str, object] = {"facts": {"only_hollow": True}, "role": Role.DATA}
    return shared(runtime, obj, case, "cni", "a directory for CNI, empty", said, f"rmdir {obj.key}", **more)


# Of containerd's NRI, since 2.0 (containerd/nri pkg/adaptation, DefaultSocketPath): of all containerds.
NRI = ("/run/nri/nri.sock", "/run/nri")


def nri(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    if not runtime.lets or obj.key not in NRI or usurper(case):
        return None
    directory = obj.key == NRI[1]
    if obj.facts["type"] != ("directory" if directory else "socket") or (directory and left_over(case, obj)):
        return None
    said = Evidence("disk", "containerd makes it for its plugins")
    more: dict[str, object] = {"facts": {"only_hollow": True} if directory else {}}
    return shared(runtime, obj, case, "containerd", "of containerd's plugins", said, f"rm -d {obj.key}", **more)


def left_over(case: Case, directory: Object) -> list[str]:
    """What stays in a directory when all that is proven goes. Its counters and locks do not count."""
    if len(directory.facts["entries"]) >= 200:
        return [f"{directory.key}/..."]  # kinds/files.py lists no more
    claims = [f"{directory.key}/{name}" for name in directory.facts["entries"]]
    return [
        path
        for path in claims
        if not case.is_proven("file", path) and not re.search(r"/(lock|last_reserved_ip\.[0-9])\Z", path)
    ]


def parent(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A directory in a shared place that was made for something of the product's, while it holds that and nothing
    else. One that is empty already may be anybody's."""
    entries = obj.facts["entries"]
    if obj.key not in runtime.parents or obj.facts["type"] != "directory" or obj.facts["mounted"] or not entries:
        return None
    if not all(case.is_proven("file", f"{obj.key}/{name}") for name in entries):
        return None
    if runtime.shares and any(file.key in FILES["containerd"] for file in case.objects("file")):
        return (
            None  # containerd watches it, and has no CRI any more when it goes (internal/cri/server/cni_conf_syncer.go)
        )
    said = Evidence("disk", f"holds {', '.join(entries[:3])}, and nothing else")
    return Finding(f"a directory made for {runtime.title}", (said,), role=Role.DATA, facts={"only_hollow": True})


def plugin_directory(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """What Calico, flannel or Cilium have once for the whole host."""
    for path, what, role in PLUGINS:
        if path == obj.key and obj.facts["type"] == "directory" and not obj.facts["mounted"]:
            said = Evidence("disk", f"{what}'s own directory")
            return shared(
                runtime, obj, case, what, f"a directory of {what.capitalize()}'s", said, f"rm -r {path}", role=role
            )
    return None


def conflist(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A CNI configuration in the shared directory that names the product's own files."""
    for record in case.records_of("conflist"):
        if record.name != obj.key or record.source == "ledger" or record.facts.get("within"):
            continue
        named = next((path for path in record.facts["paths"] if holds(runtime, case, path)), "")
        if named:
            said = Evidence("disk", f"names {named}")
            return Finding(f"a CNI configuration of {runtime.title}", (said,), role=Role.DATA)
        for what in made_for(record):
            if what == "nerdctl" and what in runtime.brings:
                wrote = Evidence("disk", f"its nerdctlID is the one of network {record.facts['network']}")
                return Finding("a network of nerdctl's", (wrote,), role=Role.DATA)
            if what != "nerdctl":
                said = Evidence("disk", f"is of {what.capitalize()}'s plugin")
                reason = f"a CNI configuration of {what.capitalize()}'s"
                return shared(runtime, obj, case, what, reason, said, f"rm {obj.key}", role=Role.DATA)
    return None


def firewall(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """What ufw was told of the product's links. Its scripts say these very words, and so does its documentation to
    administrators: it is shown, and who wants to can take it back."""
    rules = [
        record
        for record in case.records_of("ufw")
        if record.name == obj.key and record.source != "ledger" and not record.facts["remark"]
    ]
    been = trace(runtime, case)
    if not rules or not been:
        return None
    words = list(dict.fromkeys(f"{record.facts['direction']} on {record.facts['link']}" for record in rules))
    other = rival(runtime, case, "calico")
    said = Evidence("disk", other or f"allows {', '.join(words)}, and {been}")
    advice = "; ".join(f"ufw delete allow {each}" for each in words)
    role = Role.ADMIN if other or case.presence is Presence.INSTALLED else Role.LIVE
    return Finding(f"rules of ufw for links of {runtime.title}", (said,), proven=False, role=role, advice=advice)


def ground(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A directory that anybody may have and a marker proves the product's, or one thing in it. With what only the
    product makes in it, it goes as it is; what else is in it is the administrator's."""
    for marker in runtime.markers:
        for where in located(runtime, case, marker.directory):
            said = Evidence("disk", f"{marker.file} names {where}, and nobody else here has one")
            if obj.key == where and obj.facts["type"] == "directory" and marker.whole and not obj.facts["mounted"]:
                strange = [name for name in obj.facts["entries"] if not re.fullmatch(marker.names, name)]
                if len(obj.facts["entries"]) >= 200:
                    strange.append("...")
                if not strange:
                    return Finding(f"a directory of {runtime.title}", (said,), role=marker.role)
                doubt = Evidence("disk", f"has {', '.join(strange[:3])} in it, which {runtime.title} does not make")
                reason = f"a directory of {runtime.title}, and things of somebody else's in it"
                return Finding(reason, (said, doubt), False, Role.ADMIN, advice=f"ls -A {obj.key}")
            name = obj.key.rpartition("/")[2]
            if obj.key == f"{where}/{name}" and re.fullmatch(marker.names, name):
                top = case.claims.get(f"file:{where}")
                if marker.whole and top is not None and top.proven and top.role is marker.role:
                    return None  # it goes, or stays, with that
                if obj.facts["type"] == "symlink" and "/" in obj.facts["target"]:
                    return None  # the product's lead to what is beside them
                link = obj.facts["type"] == "symlink" and obj.facts["target"] == (*marker.files, "")[0]
                if marker.files and name not in marker.files and not link:
                    return None  # a plugin that an administrator has put there (containernetworking/plugins)
                return Finding(f"of {runtime.title}", (said,), role=marker.role)
        for record in case.records_of("used"):
            if record.source == "ledger" or record.name != obj.key or not record.facts["by"]:
                continue
            if any(
                each.name == marker.directory and each.facts["path"] == obj.key for each in case.records_of("ground")
            ):
                doubt = Evidence("kernel" if record.facts["by"].startswith("pid ") else "disk", record.facts["by"])
                reason = f"a directory that {runtime.title} used, and somebody else may"
                return Finding(reason, (doubt,), False, Role.ADMIN, advice=f"ls -A {obj.key}")
    return unmarked(runtime, obj, case)


def unmarked(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """Such a directory when the file that named it is gone, with the product's data: it looks like the product's, and
    is shown."""
    for marker in runtime.markers:
        entries = obj.facts["entries"]
        if marker.directory != obj.key or obj.facts["type"] != "directory" or not entries:
            continue
        alone = any(each.name == obj.key and not each.facts["by"] for each in case.records_of("used"))
        if not alone or located(runtime, case, marker.directory) or not trace(runtime, case):
            continue
        if all(re.fullmatch(marker.names, name) for name in entries):
            doubt = Evidence("disk", f"nothing says any more whose it is; it has {', '.join(entries[:3])} in it")
            reason = f"perhaps a directory of {runtime.title}"
            return Finding(reason, (doubt,), False, Role.ADMIN, advice=f"rm -r {obj.key}")
    return None


# What dockerd makes in its --data-root (moby daemon/daemon.go, NewDaemon).
# And what the scripts of Debian's package put there, and what containerd makes in its --root.
STORE = re.compile(
    r"buildkit|builder|containerd|containers|engine-id|image|network|overlay2|plugins|rootfs|runtimes|swarm|tmp|volumes"
    r"|fuse-overlayfs|btrfs|zfs|vfs|trust|key\.json|[0-9]{1,10}\.[0-9]{1,10}|nuke-graph-directory\.sh|\.purge_sentinel"
    r"|io\.containerd\.[a-z0-9.-]+|tmpmounts|opt"
)


def store(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """dockerd's data at a place that the administrator chose (`snap set docker data-root=`): snapd deletes nothing
    there."""
    record = next((each for each in case.records_of("place") if each.facts["path"] == obj.key), None)
    if record is None or record.name != runtime.store or obj.facts["type"] != "directory":
        return None
    if obj.key not in located(runtime, case, runtime.store):
        return None  # another dockerd may have it by now
    said = (Evidence(record.source, str(record.facts["why"])),)
    reason = f"{runtime.possessive} data, at another place"
    entries = [name for name in obj.facts["entries"] if name != OF_DISK or not obj.facts["mounted"]]
    if entries and all(STORE.fullmatch(name) for name in entries):
        return Finding(reason, said, role=Role.EXTERNAL, facts={"strict": True, "contents": True})
    return Finding(f"{reason}, and other things", said, role=Role.ADMIN)


RULES = (
    *(
        own,
        namespace,
        store,
        ground,
        marked,
        symlink,
        of_container,
        of_member,
        conflist,
        plugin_directory,
        parent,
        shared_directory,
    ),
    *(firewall, empty_conf, nri),
)
