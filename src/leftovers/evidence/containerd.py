"""What a containerd and its shims have on disk: bundles, sandboxes, runc's states, sockets and fifos.

Layout: containerd core/runtime/v2/{bundle,binary,shim_manager}.go, internal/cri/server (sandboxes),
pkg/shim/util_unix.go (sockets), cmd/containerd-shim-runc-v2/process/{utils,init}.go (runc's directory); runc
libcontainer/container.go (state.json). Only a bundle's directory is one containerd's own. What lies below
/run/containerd is shared by all that root runs, so there an id must be known from elsewhere.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from leftovers.errors import Unreadable
from leftovers.evidence import bolt, files, json_text
from leftovers.evidence.files import note
from leftovers.evidence.json_text import mapping, number, strings, text
from leftovers.host import Host
from leftovers.model import Record

__all__ = [
    "BOOK",
    "has_content",
    "is_id",
    "is_unique",
    "read",
    "read_kept",
    "read_runc",
    "read_shared",
    "registered",
    "sockets",
]

TASKS = "io.containerd.runtime.v2.task"
CRI = "io.containerd.grpc.v1.cri"
# Since 2.0 sandboxes have a directory of this name too (plugins/cri, podsandbox controller).
CONTROLLER = "io.containerd.podsandbox.controller.v1.podsandbox"
RUN = "/run/containerd"
BOOK = "io.containerd.metadata.v1.bolt/meta.db"
LIMIT = 4 * files.MIB
NAME = 1024  # no image's reference is longer (distribution/reference: 255 and a tag or a digest)
# pkg/identifiers/validate.go; CRI's own are 64 hexadecimal digits (util.GenerateID).
ID = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*\Z")
UNIQUE = re.compile(r"[0-9a-f]{64}\Z")
CRI_NAMESPACE = "k8s.io"


def is_id(name: object) -> bool:
    return isinstance(name, str) and len(name) <= 76 and ID.match(name) is not None


def is_unique(id: str) -> bool:
    """Whether an id is one that CRI made: random, so that nobody else has the same."""
    return UNIQUE.match(id) is not None


def sockets(address: str, namespace: str, group: str) -> tuple[str, str]:
    """The names in /run/containerd/s of a shim's socket and of its debug socket (pkg/shim/util_unix.go,
    CreateSocketAddress): path.Join(address, namespace, group)[, "debug"]. `group` is the sandbox's id or the
    container's own."""
    path = "/".join((address.rstrip("/"), namespace, group))
    first, second = (hashlib.sha256(each.encode("utf-8", "surrogateescape")) for each in (path, f"{path}/debug"))
    return first.hexdigest(), second.hexdigest()


def has_content(host: Host, root: str) -> bool:
    """Whether there is anything in a containerd's --root that somebody fetched or made: blobs of images, file systems
    of containers (plugins/content/local, plugins/snapshots). Where that cannot be read, there is."""
    faults: list[str] = []
    blobs = "io.containerd.content.v1.content/blobs"
    for kind in files.directories(host, root, blobs, faults):
        if files.entries(host, root, f"{blobs}/{kind}", faults):
            return True
    for plugin in files.directories(host, root, "", faults):
        if plugin.startswith("io.containerd.snapshotter.v1."):
            for below in (f"{plugin}/snapshots", f"{plugin}/snapshotter/snapshots"):
                if files.entries(host, root, below, faults):
                    return True
    return bool(faults)


def blank(namespace: str, id: str) -> dict[str, Any]:
    """The facts of a container of which only the name is known."""
    facts: dict[str, Any] = {"namespace": namespace, "id": id, "bundle": "", "cgroup": "", "netns": "", "pid": 0}
    facts |= {"sandbox": "", "pod": "", "pod_namespace": "", "pod_uid": "", "shim": "", "socket": ""}
    return facts | {"image": "", "name": ""}


def read(host: Host, state: str, root: str, namespaces: tuple[str, ...] = ()) -> tuple[list[Record], list[str]]:
    """Records "container", named NAMESPACE/ID, of the bundles in a containerd's --state and of what it keeps in
    its --root. `namespaces` limits them where a daemon is shared; else they are all.

    Facts: namespace, id, bundle, cgroup (as the configuration asks for it), netns (path), pid, sandbox (its sandbox's
    id), pod, pod_namespace, pod_uid, shim (its file), socket; image and name (in the pod) where CRI has noted them.
    """
    faults: list[str] = []
    found: dict[tuple[str, str], dict[str, Any]] = {}

    def wanted(namespace: str) -> bool:
        return is_id(namespace) and (not namespaces or namespace in namespaces)

    for base in (state, root):
        for namespace in filter(wanted, files.directories(host, base, TASKS, faults)):
            for name in files.directories(host, base, f"{TASKS}/{namespace}", faults):
                # ".ID" is a bundle whose deletion was interrupted (core/runtime/v2/bundle.go, atomicDelete).
                id = name.removeprefix(".")
                if not is_id(id):
                    note(faults, f"{base}/{TASKS}/{namespace}", f"a container has the impossible id {ascii(id)[:80]}")
                    continue
                facts = found.setdefault((namespace, id), blank(namespace, id))
                if base == state and not facts["bundle"]:
                    facts.update(bundle(host, state, f"{TASKS}/{namespace}/{name}", faults))
        if not wanted(CRI_NAMESPACE):
            continue
        for place in (f"{CRI}/sandboxes", f"{CRI}/containers", CONTROLLER):
            for id in filter(is_unique, files.directories(host, base, place, faults)):
                facts = found.setdefault((CRI_NAMESPACE, id), blank(CRI_NAMESPACE, id))
                if place == f"{CRI}/sandboxes" and not facts["sandbox"]:
                    facts["sandbox"] = id
    names = sorted(found.items())
    return [Record("container", "/".join(name), "disk", facts) for name, facts in names], faults


def read_kept(host: Host, root: str, namespaces: tuple[str, ...], faults: list[str]) -> list[Record]:
    """Records "kept", named NAMESPACE/ID, of the containers and sandboxes that a containerd has something of in its
    --root, where nothing is taken away at a boot: they exist until somebody removes them. Facts: namespace, id."""
    found = {
        (namespace, name.removeprefix("."))
        for namespace in filter(is_id, files.directories(host, root, TASKS, faults))
        for name in files.directories(host, root, f"{TASKS}/{namespace}", faults)
    }
    for place in (f"{CRI}/sandboxes", f"{CRI}/containers", CONTROLLER):
        found |= {(CRI_NAMESPACE, id) for id in files.directories(host, root, place, faults)}
    wanted = (each for each in sorted(found) if is_id(each[1]) and (not namespaces or each[0] in namespaces))
    return [Record("kept", "/".join(each), "disk", {"namespace": each[0], "id": each[1]}) for each in wanted]


def registered(host: Host, root: str) -> set[tuple[str, str]]:
    """The containers and sandboxes (namespace, id) that a containerd has in its book, running or not (core/metadata/
    buckets.go: v1/NAMESPACE/containers/ID, and since 2.0 v1/NAMESPACE/sandboxes/ID). Raises Unreadable, also where it
    has none: it makes one at its start, so it has its --root at another place (config.toml)."""
    found = set()
    entries = bolt.read(host, root, BOOK)
    if entries is None:
        raise Unreadable(f"{root}/{BOOK}", "is not there")
    for path, _, _ in entries:
        if len(path) >= 4 and path[0] == b"v1" and path[2] in (b"containers", b"sandboxes"):
            found.add((path[1].decode(errors="replace"), path[3].decode(errors="replace")))
    return found


def bundle(host: Host, base: str, below: str, faults: list[str]) -> dict[str, Any]:
    """What the files of one bundle say."""
    facts: dict[str, Any] = {"bundle": f"{base}/{below}"}
    config = json_text.read(host, base, f"{below}/config.json", LIMIT, faults) or {}
    notes = mapping(config.get("annotations"))
    linux = mapping(config.get("linux"))
    facts["cgroup"] = text(linux.get("cgroupsPath"))
    for namespace in json_text.objects(linux.get("namespaces")):
        if namespace.get("type") == "network" and json_text.is_path(namespace.get("path")):
            facts["netns"] = namespace["path"]
    sandbox = notes.get("io.kubernetes.cri.sandbox-id")
    facts["sandbox"] = sandbox if is_id(sandbox) else ""
    for fact, key in (("pod", "name"), ("pod_namespace", "namespace"), ("pod_uid", "uid")):
        value = notes.get(f"io.kubernetes.cri.sandbox-{key}")
        facts[fact] = value if files.is_name(value) else ""
    for fact, key in (("image", "image-name"), ("name", "container-name")):
        facts[fact] = text(notes.get(f"io.kubernetes.cri.{key}"))[:NAME]
    facts["pid"] = pid(line(host, base, f"{below}/init.pid", faults))
    shim = line(host, base, f"{below}/shim-binary-path", faults)
    facts["shim"] = shim if json_text.is_path(shim) else ""
    started = json_text.read(host, base, f"{below}/bootstrap.json", LIMIT, faults) or {}
    socket = text(started.get("address")) or text(line(host, base, f"{below}/address", faults))
    facts["socket"] = socket.removeprefix("unix://")
    return facts


def line(host: Host, base: str, below: str, faults: list[str]) -> str:
    """The one line of a small file; "" when it is absent or no text."""
    try:
        return (files.read(host, base, below, files.MIB) or b"").decode().removesuffix("\n")
    except Unreadable as error:
        note(faults, error.what, error.cause)
    except UnicodeDecodeError:
        note(faults, f"{base}/{below}", "not valid UTF-8")
    return ""


def pid(said: str) -> int:
    return int(said) if said.isascii() and said.isdigit() and len(said) < 8 else 0


def read_runc(host: Host, directory: str = f"{RUN}/runc") -> tuple[list[Record], list[str]]:
    """Records "runc", named NAMESPACE/ID, of all containers whose state runc keeps there, whosever they are.

    Facts: namespace, id, path (of its directory), pid, start (clock ticks since boot, as in proc_pid_stat(5)), bundle
    (the directory that it was started with, "" if the state does not say), cgroups (directories), created (ISO 8601).
    """
    faults: list[str] = []
    records = []
    for namespace in filter(is_id, files.directories(host, directory, "", faults)):
        for id in filter(is_id, files.directories(host, directory, namespace, faults)):
            below = f"{namespace}/{id}"
            state = json_text.read(host, directory, f"{below}/state.json", LIMIT, faults) or {}
            if state and state.get("id") != id:
                note(faults, f"{directory}/{below}", "its state is of another container")
                state = {}
            labels = strings(mapping(state.get("config")).get("labels"))
            said = [each.removeprefix("bundle=") for each in labels if each.startswith("bundle=")]
            cgroups = mapping(state.get("cgroup_paths")).values()
            facts = {
                "namespace": namespace,
                "id": id,
                "path": f"{directory}/{below}",
                "pid": number(state.get("init_process_pid")),
                "start": number(state.get("init_process_start")),
                "bundle": said[0] if len(said) == 1 and json_text.is_path(said[0]) else "",
                "cgroups": [path for path in cgroups if json_text.is_path(path)],
                "created": text(state.get("created"))[:64],
            }
            records.append(Record("runc", below, "disk", facts))
    return records, faults


def read_shared(host: Host, directory: str = RUN) -> tuple[list[Record], list[str]]:
    """Records "socket" and "fifo" of what lies in the directories that all containerds of root share, named by path.

    Facts: of a socket its hash, of a directory of fifos (fifo/NUMBER) the ids that its entries are named for
    (pkg/cio/io_unix.go, NewFIFOSetInDir: ID-stdin, ID-stdout, ID-stderr).
    """
    faults: list[str] = []
    records = []
    for name, is_directory in files.entries(host, directory, "s", faults):
        if UNIQUE.match(name) and not is_directory:
            records.append(Record("socket", f"{directory}/s/{name}", "disk", {"hash": name}))
    for name in files.directories(host, directory, "fifo", faults):
        entries = [entry for entry, _ in files.entries(host, directory, f"fifo/{name}", faults)]
        ids = {entry.rpartition("-")[0] for entry in entries if entry.rpartition("-")[2] in FIFOS}
        records.append(Record("fifo", f"{directory}/fifo/{name}", "disk", {"ids": sorted(filter(is_id, ids))}))
    return records, faults


FIFOS = ("stdin", "stdout", "stderr")
