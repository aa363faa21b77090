"""What the product has written down, what its shims show of themselves, and where else its directory is."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import time
from dataclasses import replace

from leftovers.claims import Case, real_exe
from leftovers.daemons import docker
from leftovers.errors import Unreadable
from leftovers.evidence import (
    cni,
    containerd,
    docker_network,
    docker_settings,
    docker_store,
    files,
    json_text,
    kubelet,
    snap_program,
    ufw,
)
from leftovers.host import Host
from leftovers.kinds.files import leads_to_remote
from leftovers.kinds.kind import Look
from leftovers.model import Object, Presence, Record
from leftovers.mountinfo import below, place
from leftovers.products.containers.known import addresses, containers, data_roots, holds, kept, located, pod_uids
from leftovers.products.containers.names import TASKS, Marker, Runtime
from leftovers.products.containers.rivals import FILES, PROGRAMS, USERS, shim_argv

__all__ = ["LOGS", "places", "read_cni", "read_disk", "read_logs", "read_marked", "read_places", "read_shared"]

Answer = tuple[list[Record], list[str]]
SHARED_CONF = "/etc/cni/net.d"
LOGS = ("/var/log/pods", "/var/log/containers")
# Of Docker's packages; the snap has its own.
DAEMON_JSON = "/etc/docker/daemon.json"
LIMIT = files.MIB
ENTRIES = 200


def remote(look: Look, path: str) -> bool:
    """Whether a path lies on a server that may be gone: then asking would hold us up for ever."""
    mounts = {mount.facts["point"]: mount.facts for mount in look.objects("mount") if mount.facts["host"]}
    return leads_to_remote(look.host, mounts, f"{path}/.")


def read_disk(runtime: Runtime, look: Look) -> Answer:
    """Its containers and pods."""
    return look.once(("disk", runtime.name), lambda: from_disk(runtime, look))


def from_disk(runtime: Runtime, look: Look) -> Answer:
    records, faults = runtime.reads(look) if runtime.reads else ([], [])
    case = first_look(runtime, look)
    # By the first name of each, wherever symlinks lead from there: readers follow those of a base.
    pairs = [
        (state, root)
        for one, other in zip(runtime.states, runtime.roots)  # noqa: B905 - as many
        for state in located(runtime, case, one)[:1]
        for root in located(runtime, case, other)[:1]
    ]
    kubelets = located(runtime, case, runtime.kubelet)[:1]
    stores = {real_path(look.host, path): path for path in reversed(located(runtime, case, runtime.store))}.values()
    for path in (*(path for pair in pairs for path in pair), *kubelets, *stores):
        if remote(look, path):
            return [], [f"{path}: not read, it is on a network or FUSE file system"]
    answers = [containerd.read(look.host, state, root, runtime.namespaces) for state, root in pairs]
    answers += [kubelet.read(look.host, path) for path in kubelets]
    answers += [read_store(runtime, look, store) for store in stores]
    for found, said in answers:
        records += found
        faults += said
    more: list[Record] = []
    if runtime.known or runtime.lets:
        more = [each for _, root in pairs for each in containerd.read_kept(look.host, root, runtime.namespaces, faults)]
        more += adrift(runtime, look, [*records, *more]) if not faults else []
        whole = not faults and all(has_book(look, root) for _, root in pairs)
        more.append(Record("whole", runtime.name, "disk", {"whole": whole}))
    return admitted(runtime, doubted(runtime, look, records)) + more, faults


# An id as nerdctl tells it to CNI.
FULL = re.compile(r"(?P<namespace>.+)-(?P<id>[0-9a-f]{64})\Z")


def adrift(runtime: Runtime, look: Look, records: list[Record]) -> list[Record]:
    """Records "adrift", named by id, of what CNI's plugins have for containers that exist no more, running or not, and
    that were the product's by what is written down: nerdctl's by its network, a pod's by CRI's arguments, where kubelet
    has this containerd and no other Kubernetes is here. Without a pod's uid they are no pod's: Podman before 4.0 has
    the same for containers of its own (cri-o/ocicni, buildCNIRuntimeConf), but for that. Facts: why, age (seconds since
    that was written)."""
    if not runtime.known:
        return []
    there = {each.facts["id"] for each in records if each.type in ("kept", "nerdctl")}
    # Those of nerdctl's in another containerd are in networks of the same names.
    there |= {id for each in records if each.type == "store" for id in each.facts["ids"]}
    bundles = [each.facts for each in records if each.type == "container" and each.facts["bundle"]]
    there |= {facts[name] for facts in bundles for name in ("id", "sandbox")}
    # Its shim's, or what else was told to look after it (conmon -c ID).
    there |= {word for process in look.objects("process") for word in process.facts["argv"]}
    runc = look.once(("runc", runtime.runc), lambda: containerd.read_runc(look.host, runtime.runc))[0]
    there |= {each.facts["id"] for each in runc}
    results = look.once("cni results", lambda: cni.read_results(look.host))[0]
    leases = look.once("cni leases", lambda: cni.read_leases(look.host))[0]
    if runtime.known == "nerdctl":
        conf = look.once("cni conf", lambda: cni.read_conf(look.host, SHARED_CONF))[0]
        own = {each.facts["network"] for each in conf if each.facts["nerdctl"]}
        own |= {each.facts["network"] for each in records if each.type == "conflist"}
    elif not any(each.type == "cri" and each.facts["endpoint"] == runtime.address for each in records) or other_kube(
        runtime, look
    ):
        return []
    found = {}
    for record in (*results, *leases):
        id, network = record.facts["id"], record.facts["network"]
        full = FULL.match(id)
        names: list[str] = []
        if runtime.known == "nerdctl" and full and network in own and full["id"] not in there:
            why, names = f"{record.name} is of nerdctl's network {network}", [id, full["id"]]
        elif runtime.known == "pod" and record.type == "cni" and id not in there and of_pod(record):
            pod = f"{record.facts['pod_namespace']}/{record.facts['pod']}"
            why, names = f"{record.name} is of CRI's pod {pod}", [id]
        for name in names:
            found[name] = Record("adrift", name, "disk", {"why": why, "age": age_of(look, record.name)})
    try:
        # Asked last, for it may be long: one that has just been made, or is stopped, may have nothing else.
        booked = {id for root in runtime.roots for _, id in containerd.registered(look.host, root)} if found else set()
    except Unreadable:
        return []
    if not all(has_book(look, root) for root in runtime.roots):
        return []
    return [record for record in found.values() if record.name not in booked and record.name[-64:] not in booked]


def has_book(look: Look, root: str) -> bool:
    """Whether a containerd has its book of containers in this --root, for all that is to be seen. An administrator may
    have told it another one (config.toml), and what lies here is of an older day: who lives has his book open."""
    path = f"{root}/{containerd.BOOK}"
    if not look.host.exists(path):
        return False
    open_ones = [book for process in look.objects("process") for book in books(look.host, process)]
    return not open_ones or real_path(look.host, path) in open_ones


def books(host: Host, process: Object) -> list[str]:
    """The books of containers that a containerd of the host's has open."""
    name = real_exe(process).rpartition("/")[2]
    if name != "containerd" or process.facts["nested"] or process.facts["uid"] != 0:
        return []
    found = []
    base = host.path(f"/proc/{process.key}/fd")
    try:
        for fd in os.listdir(base):
            found.append(os.readlink(f"{base}/{fd}"))
    except OSError:
        pass  # it has just ended, or closed one
    return [path for path in found if path.endswith(f"/{containerd.BOOK}")]


def of_pod(result: Record) -> bool:
    """Whether CRI made it, for a pod."""
    return bool(result.facts["sandbox"] == result.facts["id"]) and kubelet.is_uid(result.facts["pod_uid"])


def other_kube(runtime: Runtime, look: Look) -> bool:
    """Whether anybody else is to be seen who has pods with networks of CNI's. What runs in a container has somebody
    above it who does not."""
    names = PROGRAMS["kube"] | {"crio", "cri-dockerd"}
    for process in look.objects("process"):
        exe = real_exe(process)
        if not process.facts["nested"] and exe.rpartition("/")[2] in names and not runtime.is_program(exe):
            return True
    grounds = tuple(each.directory for each in runtime.markers)
    paths = (path for path in (*FILES["kube"], *FILES["cni"]) if not runtime.is_program(path))
    return any(look.host.exists(path) for path in paths if not any(below(path, each) for each in grounds))


def age_of(look: Look, path: str) -> float:
    """For how long a file has been there as it is, in seconds."""
    try:
        return max(0.0, time.time() - os.lstat(look.host.path(path)).st_mtime)
    except OSError:
        return 0.0


def doubted(runtime: Runtime, look: Look, records: list[Record]) -> list[Record]:
    """The records, where dockerd's store is the whole truth only if it has all containers that live. A dead dockerd was
    perhaps told another one by its unit (Debian: DOCKER_OPTS in /etc/default/docker), and this one is of an older day.
    """
    infos = [each for each in records if each.type == "docker-info"]
    known = {each.name for each in records if each.type == "docker"}
    if not infos or any(each.facts["answered"] for each in infos):
        return records
    told = (shim_argv(each) for each in look.objects("process") if not each.facts["nested"] and not each.facts["uid"])
    if all(each["id"] in known for each in told if each and each["namespace"] == runtime.namespaces[0]):
        return records
    rest = [each for each in records if each.type != "docker-info"]
    return rest + [replace(each, facts={**each.facts, "whole": False}) for each in infos]


def admitted(runtime: Runtime, records: list[Record]) -> list[Record]:
    """The records without those of containers that others have in the same namespaces."""
    if not runtime.known:
        return records
    ids = {(each.facts["namespace"], each.facts["id"]) for each in records if each.type == "nerdctl"}
    uids = {each.name for each in records if each.type == "pod"}
    return [
        each
        for each in records
        if each.type != "container"
        or (each.facts["namespace"], each.facts["id"]) in ids
        or each.facts["pod_uid"] in uids
    ]


def first_look(runtime: Runtime, look: Look) -> Case:
    """What is known before any record of a container is read: the places."""

    def make() -> Case:
        known = (*read_places(runtime, look)[0], *read_grounds(runtime, look)[0])
        return Case(runtime.name, Presence.ABSENT, look.listed, known)

    return look.once(("first", runtime.name), make)


def read_shims(runtime: Runtime, look: Look) -> Answer:
    """Records "shim", named by pid, of the shims of this containerd: they were given its socket, and stand in a bundle
    of its --state (core/runtime/v2/binary.go: WorkDir). The kernel tells that directory after it was deleted, too."""
    case = first_look(runtime, look)
    states = tuple(path for state in runtime.states for path in located(runtime, case, state))
    sockets = addresses(runtime, case)
    known = read_disk(runtime, look)[0] if runtime.known else []
    ids = {(each.facts["namespace"], each.facts["id"]) for each in known if each.type in ("container", "nerdctl")}
    records = []
    for process in look.objects("process"):
        told = shim_argv(process)
        if process.facts["nested"] or process.facts["uid"] != 0 or told.get("address") not in sockets:
            continue
        if runtime.namespaces and told["namespace"] not in runtime.namespaces:
            continue
        if runtime.known and (told["namespace"], told["id"]) not in ids:
            continue
        inner = f"/{TASKS}/{told['namespace']}/{told['id']}"
        # By its own file too where its directory is not proven its own, for somebody else may be a user of that.
        tops = states or ((runtime.state,) if is_own(runtime, look, process) else ())
        bundle = stands_in(case, look.host, process, tuple(f"{top}{inner}" for top in tops))
        if bundle:
            facts = {"start": process.facts["start"], "bundle": bundle, **told}
            records.append(Record("shim", process.key, "kernel", facts))
    return records, []


def stands_in(case: Case, host: Host, process: Object, directories: tuple[str, ...]) -> str:
    """Which of these directories of the host is a process' own, "" if none is. In a mount namespace of its own, as a
    strict snap has one, the same path may be anything: there what counts is the file system, and the place on it."""
    if process.facts["our_mnt"]:
        try:
            path = os.readlink(host.path(f"/proc/{process.key}/cwd")).removesuffix(" (deleted)")
        except OSError:
            path = ""
        return path if path in directories else ""
    found = snap_program.lies(host, process, "cwd") if directories else None
    wanted = (found[0].majmin, found[1].removesuffix("//deleted")) if found else None
    return next((path for path in directories if wanted and case.place(path) == wanted), "")


def is_own(runtime: Runtime, look: Look, process: Object) -> bool:
    """Whether a process runs a file of the product's snap, and not what a container has at such a path. Only the host's
    root can mount a squashfs: a revision that the host has not any more may still be mounted for an older process."""
    exe = real_exe(process)
    if process.facts["nested"] or not runtime.is_program(exe):
        return False
    found = None if process.facts["our_mnt"] else snap_program.lies(look.host, process, "exe")
    if found is None:
        return bool(process.facts["our_mnt"])
    mounts = Case(runtime.name, Presence.ABSENT, look.listed).mounts()
    image = found[0].fstype == "squashfs" and found[0].root == "/" and below(found[0].point, runtime.programs or "-")
    return image or place(mounts, exe) == (found[0].majmin, found[1].removesuffix("//deleted"))


def read_shared(runtime: Runtime, look: Look) -> Answer:
    """What lies in /run/containerd, whosever it is."""
    records, faults = look.once(("runc", runtime.runc), lambda: containerd.read_runc(look.host, runtime.runc))
    more, said = look.once("containerd", lambda: containerd.read_shared(look.host))
    return records + more, faults + said


def read_cni(runtime: Runtime, look: Look) -> Answer:
    """What CNI's plugins wrote down, whosever it is. The shared directory of configurations may be a symlink into the
    product's own (`within`)."""
    records: list[Record] = []
    faults: list[str] = []
    for found, said in (
        look.once("cni results", lambda: cni.read_results(look.host)),
        look.once("cni leases", lambda: cni.read_leases(look.host)),
        look.once("cni scratch", lambda: cni.read_scratch(look.host)),
        *([cni.read_conf(look.host, runtime.conf)] if runtime.conf else []),
    ):
        records += found
        faults += said
    if not remote(look, SHARED_CONF):
        target = os.path.realpath(look.host.path(SHARED_CONF)).removeprefix(look.host.root)
        within = holds(runtime, first_look(runtime, look), target)
        found, said = look.once("cni conf", lambda: cni.read_conf(look.host, SHARED_CONF))
        records += [Record(each.type, each.name, each.source, {**each.facts, "within": within}) for each in found]
        faults += said
    return records, faults


def read_marked(runtime: Runtime, look: Look) -> Answer:
    """Records "marked", named by path, of the files that are the product's own while their text says so. Facts: word,
    inode, digest (of the text: who has changed it since has made it his)."""
    records = []
    faults: list[str] = []
    for pattern, word, _, _ in runtime.marked:
        base, form = os.path.split(pattern)
        names = [form]
        if "*" in form:
            names = [name for name, _ in files.entries(look.host, base, "", faults) if fnmatch.fnmatchcase(name, form)]
        for name in names:
            path = f"{base}/{name}"
            try:
                text = files.read(look.host, base, name, LIMIT)
                inode = os.lstat(look.host.path(path)).st_ino
            except (OSError, Unreadable):
                continue  # not there, or no file: nothing of the product's
            if text is not None and says(text, word):
                facts = {
                    "word": word if isinstance(word, str) else word[0],
                    "inode": inode,
                    "digest": hashlib.sha256(text).hexdigest(),
                }
                records.append(Record("marked", path, "disk", facts))
    return records, faults


def says(text: bytes, word: str | tuple[str, ...]) -> bool:
    """Whether a text has this word, or has lines, and none but these."""
    if isinstance(word, str):
        return word.encode() in text
    lines = set(text.split(b"\n")) - {b""}
    return bool(lines) and lines <= {line.encode() for line in word}


def read_ufw(runtime: Runtime, look: Look) -> Answer:
    """What ufw was told of the product's links, by whomever."""
    records, faults = ufw.read(look.host) if runtime.ufw else ([], [])
    return [record for record in records if record.facts["link"] in runtime.ufw], faults


def read_programs(runtime: Runtime, look: Look) -> Answer:
    """What runs of its snap, after that was unmounted; and records "own", named by pid, of what runs of it in a mount
    namespace of its own."""
    snap = snap_of(runtime)
    records = snap_program.read(look.host, snap, look.objects("process")) if snap else []
    for process in look.objects("process"):
        if not process.facts["our_mnt"] and is_own(runtime, look, process):
            records.append(Record("own", process.key, "kernel", {"start": process.facts["start"]}))
    return records, []


def snap_of(runtime: Runtime) -> str:
    """The snap that the product is, "" if it is none."""
    return runtime.programs.removeprefix("/snap/")


def read_grounds(runtime: Runtime, look: Look) -> Answer:
    """Records "ground" of the directories that a marker names, named for where they mostly are (facts: path, inode),
    and for each of these, and for where they mostly are, a record "used", named by path, with who else may have
    something there at this look (facts: by, "" for nobody; inode; entries)."""
    records: list[Record] = []
    for marker in runtime.markers:
        named = named_by(runtime, look, marker)
        if named and not remote(look, named) and real_path(look.host, named) != named:
            named = ""  # behind a symlink: MicroK8s makes such ones, and administrators
        for path in dict.fromkeys((named or marker.directory, marker.directory)):
            try:
                inode = os.lstat(look.host.path(path)).st_ino
            except OSError:
                inode = 0
            if path == named:
                facts = {"path": path, "inode": inode, "file": marker.file}
                records.append(Record("ground", marker.directory, "disk", facts))
            # Below the product's own directory nobody else has anything.
            own = any(below(path, each) for each in (runtime.directory, *runtime.beside))
            by = "" if own else user_of(runtime, look, marker)
            entries = (
                sorted(name for name, _ in files.entries(look.host, path, "", [])) if not remote(look, path) else []
            )
            records.append(Record("used", path, "disk", {"by": by, "inode": inode, "entries": entries[:ENTRIES]}))
    return records, []


def named_by(runtime: Runtime, look: Look, marker: Marker) -> str:
    """The directory that a marker's file names, if that is where the product has one; else ""."""
    host, text = look.host, text_of(look.host, marker.file)
    for record in read_places(runtime, look)[0] if not text and below(marker.file, runtime.directory) else ():
        if record.name == runtime.directory:
            text = text or text_of(host, record.facts["path"] + marker.file.removeprefix(runtime.directory))
    if marker.form == "{}":
        base = (text_of(host, runtime.base) or "/") if runtime.base else "/"
        wanted = base.rstrip("/") + marker.directory
        sane = base.startswith("/") and os.path.normpath(base) == base and "\n" not in base
        return wanted if sane and text == wanted else ""
    lines = {line.strip() for line in text.split("\n")}
    return marker.directory if lines & set(marker.form.format(marker.directory).split("\n")) else ""


def text_of(host: Host, path: str) -> str:
    base, name = os.path.split(path)
    try:
        return (files.read(host, base, name, LIMIT) or b"").decode()
    except (OSError, Unreadable, UnicodeDecodeError):
        return ""


# These have directories of their own for all that a marker may name.
ELSEWHERE = ("/snap/microk8s", "/snap/docker")


def user_of(runtime: Runtime, look: Look, marker: Marker) -> str:
    """Who else on this host may have something in a directory of that sort; "" if nobody is to be seen. A place where
    the product is not alone is not its own."""
    names = {name for each in USERS[marker.sort] for name in PROGRAMS[each]}
    for process in look.objects("process"):
        exe, told = real_exe(process), shim_argv(process)
        if process.facts["nested"] or process.facts["uid"] != 0:
            continue
        if is_own(runtime, look, process) or re.match(runtime.services, process.facts["cgroup"]):
            continue  # a shim of another name (containerd-shim-spin-v2) that its containerd started
        if told:
            # In a containerd that is everybody's anybody has containers.
            other = told["address"] == runtime.address and not runtime.shares
        else:
            other = exe.rpartition("/")[2] in names and not any(below(exe, path) for path in ELSEWHERE)
        if other and not snap_program.read(look.host, snap_of(runtime), [process]):
            return f"pid {process.key} runs {process.facts['exe']}"
    for path in sorted({path for each in USERS[marker.sort] for path in FILES[each]}):
        # What only lies in such a directory is what is asked about.
        grounds = (*(each.directory for each in runtime.markers), runtime.directory)
        own = any(below(path, each) for each in grounds) or runtime.is_program(path)
        if not own and not any(below(path, each) for each in ELSEWHERE) and look.host.exists(path):
            return f"{path} is there"
    return ""


def read_logs(runtime: Runtime, look: Look) -> Answer:
    """Records "log", named by path, of what kubelets keep of pods: NAMESPACE_NAME_UID directories in one place, links
    NAME_NAMESPACE_CONTAINER-ID.log into them in the other (kubernetes pkg/kubelet/kuberuntime/helpers.go and
    legacy.go). Facts: uid, id. Of a link the uid is that of the directory into which it leads."""
    records = []
    faults: list[str] = []
    for name, _ in files.entries(look.host, LOGS[0], "", faults):
        uid = name.rpartition("_")[2]
        if kubelet.is_uid(uid):
            records.append(Record("log", f"{LOGS[0]}/{name}", "disk", {"uid": uid, "id": ""}))
    for name, _ in files.entries(look.host, LOGS[1], "", faults):
        id = name.removesuffix(".log").rpartition("-")[2]
        if containerd.is_unique(id):
            try:
                words = os.readlink(look.host.path(f"{LOGS[1]}/{name}")).removeprefix(f"{LOGS[0]}/").split("/")
            except OSError:
                words = []
            uid = words[0].rpartition("_")[2] if len(words) == 3 and ".." not in words else ""
            facts = {"uid": uid if kubelet.is_uid(uid) else "", "id": id}
            records.append(Record("log", f"{LOGS[1]}/{name}", "disk", facts))
    return records, faults


def read_places(runtime: Runtime, look: Look) -> Answer:
    """Where else the directory is: behind a symlink of the administrator's, who has a bigger disk."""
    records = []
    for path in (runtime.directory, *runtime.beside):
        real = path if remote(look, path) else real_path(look.host, path)
        if real != path and real.count("/") >= 2:
            records.append(Record("place", path, "kernel", {"path": real, "why": f"{path} leads to it"}))
    for path in runtime.told(look.host) if runtime.told else ():
        if path != runtime.directory:
            facts = {"path": path, "why": f"{runtime.title} was told to have its data there"}
            records.append(Record("place", runtime.directory, "disk", facts))
    if runtime.lets:
        records += [Record("usurper", who, "kernel", {"why": why}) for who, why in usurpers(runtime, look)]
        inside = {"content": containerd.has_content(look.host, runtime.root), "inode": inode_of(look, runtime.root)}
        records.append(Record("images", runtime.root, "disk", inside))
    if runtime.store and runtime.executables:
        return records + told_places(runtime, look), []
    for process in look.objects("process") if runtime.store else ():
        # Anybody may run a program of the snap with such an argument.
        daemon = real_exe(process).rpartition("/")[2] == "dockerd" and re.match(
            runtime.services, process.facts["cgroup"]
        )
        if process.facts["uid"] != 0 or not daemon or not is_own(runtime, look, process):
            continue
        for path in data_roots(process):
            if path != runtime.store:
                facts = {"path": path, "why": f"pid {process.key} was given --data-root={path}"}
                records.append(Record("place", runtime.store, "kernel", facts))
    if runtime.store:
        conf = json_text.read(look.host, *os.path.split(DAEMON_JSON), LIMIT, []) or {}
        if json_text.is_path(conf.get("data-root")):
            records.append(Record("rival store", DAEMON_JSON, "disk", {"path": conf["data-root"].rstrip("/")}))
    return records, []


# Whose containerd has a socket of its own, by its configuration or its arguments.
PRIVATE = ("/snap", "/var/snap", "/var/lib/rancher", "/run/k3s", "/run/docker", "/var/run/docker", "/run/snap.docker")


def usurpers(runtime: Runtime, look: Look) -> list[tuple[str, str]]:
    """Who else has his containerd at a shared one's address: another program of that name, unless it was told another
    place; and the snap k8s, which puts its own there."""
    found = []
    for process in look.objects("process"):
        exe, argv = real_exe(process), process.facts["argv"]
        if exe.rpartition("/")[2] != "containerd" or process.facts["nested"] or process.facts["uid"] != 0:
            continue
        words = [word.partition("=")[2] or word for word in argv[1:]]
        if is_own(runtime, look, process) or any(below(word, path) for word in words for path in PRIVATE):
            continue
        told = next((word for word in words if word.endswith(".sock")), runtime.address)
        if told == runtime.address:
            found.append((process.key, f"pid {process.key} runs {exe}"))
    if look.host.exists("/snap/k8s/current"):
        found.append(("k8s", "/snap/k8s/current is there"))
    return found


LISTENS = 0x10000  # net/unix/af_unix.c, unix_seq_show: __SO_ACCEPTCON


def read_listeners(runtime: Runtime, look: Look) -> Answer:
    """Records "listener", named by path, of those of its sockets, and in those of its directories that are in /run, on
    which somebody waits, whoever that is."""
    paths = {path for path, *_ in runtime.own if path.endswith(".sock")}
    try:
        lines = look.host.read("/proc/net/unix").splitlines() if paths or runtime.beside else []
    except OSError:
        return [], []
    found = {}
    for line in lines:
        words = line.split(None, 7)
        if len(words) == 8 and re.match(r"[0-9A-F]{8}\Z", words[3]) and int(words[3], 16) & LISTENS:
            path = docker_store.run_path(words[7])
            if path in paths or any(below(path, each) for each in runtime.beside):
                found[path] = Record("listener", path, "kernel", {})
    return list(found.values()), []


def inode_of(look: Look, path: str) -> int:
    try:
        return os.lstat(look.host.path(path)).st_ino
    except OSError:
        return 0


def told_places(runtime: Runtime, look: Look) -> list[Record]:
    """Where a dockerd of a package is told to have its data and what is in /run: daemon.json, its arguments."""
    records = []
    for settings, source, why in settings_of(runtime, look):
        for usual, path in ((runtime.store, settings.root), (runtime.beside[0], settings.exec_root)):
            real = path if remote(look, path) else real_path(look.host, path)
            for each in dict.fromkeys((path.rstrip("/"), real)):
                if each != usual and each.count("/") >= 2 and not below(usual, each):
                    records.append(Record("place", usual, source, {"path": each, "why": f"{each}: {why}"}))
    return records


def settings_of(runtime: Runtime, look: Look) -> list[tuple[docker_settings.Settings, str, str]]:
    """How each dockerd of a package is to run, and whose word that is: those that live come first."""
    found = []
    for process in look.objects("process"):
        if real_exe(process).rpartition("/")[2] == "dockerd" and is_own(runtime, look, process):
            said, _ = docker_settings.read(look.host, process.facts["argv"])
            found.append((said, "kernel", f"pid {process.key} was told so"))
    said, _ = docker_settings.read(look.host)
    return [*found, (said, "disk", f"{docker_settings.DAEMON_JSON} says so")]


def read_store(runtime: Runtime, look: Look, store: str) -> Answer:
    """What is known of the dockerd that has its data there: of itself if it lives, else from that. With live-restore
    its containers outlive it, and are asked to stop themselves (records "instance"); else it stops them all."""
    if not runtime.executables:
        found = [each(look.host, path) for path in docker_store.roots(look.host, store) for each in STORES]
        return [record for records, _ in found for record in records], [fault for _, said in found for fault in said]
    options = settings_of(runtime, look)
    real = real_path(look.host, store)
    own = [each for each, source, _ in options if source == "kernel" and real_path(look.host, each.root) == real]
    settings = own[0] if own else replace(options[-1][0], root=store)
    if not own and not look.host.exists(store):
        return [], []
    records, faults = docker.read(look.host, settings, bool(own))
    pins = files.entries(look.host, runtime.netns, "", [])
    records += [Record("pin", f"{runtime.netns}/{name}", "disk", {}) for name, inner in pins if not inner]
    for record in list(records):
        facts = record.facts
        if record.type == "docker-network" and facts["driver"] in NETWORKS and not facts["default"]:
            records.append(Record("network", facts["name"] or record.name[:12], record.source, {"managed": True}))
        elif record.type == "docker" and own and settings.live_restore:
            running = {"running": facts["state"] == "running", "ephemeral": facts["auto_remove"]}
            records.append(Record("instance", record.name, record.source, running))
    return records, faults


STORES = (docker_store.read, docker_network.read)
NETWORKS = ("bridge", "macvlan", "ipvlan", "overlay")


def entries_of(runtime: Runtime, record: Record) -> list[str]:
    """What of a marked directory's is to be looked at one by one: what the product makes in it."""
    found = []
    for marker in runtime.markers:
        if record.name.endswith(marker.directory):
            names = (name for name in record.facts["entries"] if re.fullmatch(marker.names, name))
            found += [f"{record.name}/{name}" for name in names]
    return found


def real_path(host: Host, path: str) -> str:
    return os.path.realpath(host.path(path)).removeprefix(host.root)


def places(runtime: Runtime, records: tuple[Record, ...]) -> tuple[str, ...]:
    """What of the host's files is to be looked at: all that is named for a container or a pod of the product."""
    case = Case(runtime.name, Presence.ABSENT, {}, records)
    is_id = containerd.is_id
    ids, uids = containers(runtime, case), pod_uids(runtime, case)
    found: list[str] = []
    for record in records:
        if record.source == "ledger" and record.type != "container":
            continue
        if record.type in ("cni", "lease", "scratch") and record.facts["id"] in ids:
            found.append(record.name)
            if record.type == "lease":
                directory = os.path.dirname(record.name)
                found += [directory, f"{directory}/lock", *(f"{directory}/last_reserved_ip.{n}" for n in range(4))]
        elif record.type == "place" and record.name in (runtime.store, *runtime.beside):
            found.append(record.facts["path"])
        elif record.type == "pin":
            found.append(record.name)
        elif record.type == "container" and runtime.lets and is_id(record.facts["namespace"]):
            found += [f"{base}/{TASKS}/{record.facts['namespace']}" for base in (runtime.state, runtime.root)]
        elif record.type == "marked" or (
            record.type == "log" and (record.facts["id"] in ids or record.facts["uid"] in uids)
        ):
            found.append(record.name)
        elif record.type in ("container", "nerdctl") and runtime.known:
            found += kept(runtime, record.facts["namespace"], record.facts["id"])
        elif record.type == "used":
            found += [record.name, *entries_of(runtime, record)]
        elif record.type == "runc":
            found += [record.facts["path"], os.path.dirname(record.facts["path"])]
        elif record.type in ("fifo", "socket") or (record.type == "conflist" and below(record.name, SHARED_CONF)):
            found.append(record.name)
    return tuple(dict.fromkeys(found))
