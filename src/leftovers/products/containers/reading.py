"""What the product has written down, what its shims show of themselves, and where else its directory is."""

from __future__ import annotations

import hashlib
import os

from leftovers.claims import Case
from leftovers.errors import Unreadable
from leftovers.evidence import cni, containerd, files, kubelet, ufw
from leftovers.host import Host
from leftovers.kinds.files import leads_to_remote
from leftovers.kinds.kind import Look
from leftovers.model import Presence, Record
from leftovers.mountinfo import below
from leftovers.products.containers.known import containers, pod_uids
from leftovers.products.containers.names import TASKS, Runtime
from leftovers.products.containers.rivals import shim_argv

__all__ = ["LOGS", "places", "read_cni", "read_disk", "read_logs", "read_marked", "read_places", "read_shared"]

Answer = tuple[list[Record], list[str]]
SHARED_CONF = "/etc/cni/net.d"
LOGS = ("/var/log/pods", "/var/log/containers")
LIMIT = files.MIB


def remote(look: Look, path: str) -> bool:
    """Whether a path lies on a server that may be gone: then asking would hold us up for ever."""
    mounts = {mount.facts["point"]: mount.facts for mount in look.objects("mount") if mount.facts["host"]}
    return leads_to_remote(look.host, mounts, f"{path}/.")


def read_disk(runtime: Runtime, look: Look) -> Answer:
    """Its containers and pods."""
    records: list[Record] = []
    faults: list[str] = []
    for path in (runtime.state, runtime.root, runtime.kubelet):
        if remote(look, path):
            return [], [f"{path}: not read, it is on a network or FUSE file system"]
    for found, said in (
        containerd.read(look.host, runtime.state, runtime.root, runtime.namespaces),
        kubelet.read(look.host, runtime.kubelet),
    ):
        records += found
        faults += said
    return records, faults


def read_shims(runtime: Runtime, look: Look) -> Answer:
    """Records "shim", named by pid, of the shims of this containerd: they were given its socket, and stand in a bundle
    of its --state (core/runtime/v2/binary.go: WorkDir). The kernel tells that directory after it was deleted, too."""
    case = Case(runtime.name, Presence.ABSENT, look.listed, tuple(read_places(runtime, look)[0]))
    records = []
    for process in look.objects("process"):
        told = shim_argv(process)
        if process.facts["nested"] or process.facts["uid"] != 0 or told.get("address") != runtime.address:
            continue
        if runtime.namespaces and told["namespace"] not in runtime.namespaces:
            continue
        try:
            cwd = os.readlink(look.host.path(f"/proc/{process.key}/cwd")).removesuffix(" (deleted)")
        except OSError:
            continue
        bundles = {
            f"{place}{runtime.state.removeprefix(runtime.directory)}/{TASKS}/{told['namespace']}/{told['id']}"
            for place in case.at(runtime.directory)
        }
        if cwd in bundles:
            facts = {"start": process.facts["start"], "bundle": cwd, **told}
            records.append(Record("shim", process.key, "kernel", facts))
    return records, []


def read_shared(runtime: Runtime, look: Look) -> Answer:
    """What lies in /run/containerd, whosever it is."""
    records, faults = containerd.read_runc(look.host)
    more, said = containerd.read_shared(look.host)
    return records + more, faults + said


def read_cni(runtime: Runtime, look: Look) -> Answer:
    """What CNI's plugins wrote down, whosever it is. The shared directory of configurations may be a symlink into the
    product's own (`within`)."""
    records: list[Record] = []
    faults: list[str] = []
    for found, said in (
        cni.read_results(look.host),
        cni.read_leases(look.host),
        cni.read_scratch(look.host),
        cni.read_conf(look.host, runtime.conf),
    ):
        records += found
        faults += said
    if not remote(look, SHARED_CONF):
        target = os.path.realpath(look.host.path(SHARED_CONF)).removeprefix(look.host.root)
        case = Case(runtime.name, Presence.ABSENT, look.listed, tuple(read_places(runtime, look)[0]))
        within = any(below(target, place) for place in case.at(runtime.directory))
        found, said = cni.read_conf(look.host, SHARED_CONF)
        records += [Record(each.type, each.name, each.source, {**each.facts, "within": within}) for each in found]
        faults += said
    return records, faults


def read_marked(runtime: Runtime, look: Look) -> Answer:
    """Records "marked", named by path, of the files that are the product's own while their text says so. Facts: word,
    inode, digest (of the text: who has changed it since has made it his)."""
    records = []
    faults: list[str] = []
    for path, word, _, _ in runtime.marked:
        base, name = os.path.split(path)
        try:
            text = files.read(look.host, base, name, LIMIT)
            inode = os.lstat(look.host.path(path)).st_ino
        except (OSError, Unreadable):
            continue  # not there, or no file: nothing of the product's
        if text is not None and word.encode() in text:
            facts = {"word": word, "inode": inode, "digest": hashlib.sha256(text).hexdigest()}
            records.append(Record("marked", path, "disk", facts))
    return records, faults


def read_ufw(runtime: Runtime, look: Look) -> Answer:
    """What ufw was told of the product's links, by whomever."""
    records, faults = ufw.read(look.host) if runtime.ufw else ([], [])
    return [record for record in records if record.facts["link"] in runtime.ufw], faults


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
    if remote(look, runtime.directory):
        return [], []
    real = real_path(look.host, runtime.directory)
    if real == runtime.directory or real.count("/") < 2:
        return [], []
    return [Record("place", runtime.directory, "kernel", {"path": real, "why": f"{runtime.directory} leads to it"})], []


def real_path(host: Host, path: str) -> str:
    return os.path.realpath(host.path(path)).removeprefix(host.root)


def places(runtime: Runtime, records: tuple[Record, ...]) -> tuple[str, ...]:
    """What of the host's files is to be looked at: all that is named for a container or a pod of the product."""
    case = Case(runtime.name, Presence.ABSENT, {}, records)
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
        elif record.type == "log" and (record.facts["id"] in ids or record.facts["uid"] in uids):
            found.append(record.name)
        elif record.type == "runc":
            found += [record.facts["path"], os.path.dirname(record.facts["path"])]
        elif record.type in ("fifo", "socket") or (record.type == "conflist" and below(record.name, SHARED_CONF)):
            found.append(record.name)
    return tuple(dict.fromkeys(found))
