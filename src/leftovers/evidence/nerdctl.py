"""What nerdctl has written down, below its --data-root: a store for each containerd, named for its socket.

Layout, of version 2: containerd/nerdctl pkg/clientutil/client.go (DataStore), pkg/labels/labels.go (StateDir),
pkg/ocihook/state, pkg/netutil/networkstore, pkg/namestore, pkg/dnsutil/hostsstore, pkg/mountutil/volumestore,
pkg/ocihook/ocihook.go (portReserverPidFilePath), pkg/netutil/{netutil,store}.go.

A container has its directory from its creation until `nerdctl rm`, whatever its network. On the networks host and none,
and while it is stopped, it has no meta.json, no result of CNI and no lease: that says nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any

from leftovers.evidence import cni, containerd, files, json_text
from leftovers.evidence.json_text import mapping, text
from leftovers.host import Host
from leftovers.model import Record

__all__ = ["DATA", "RUN", "read", "read_networks", "read_reservers", "store"]

DATA = "/var/lib/nerdctl"
RUN = "/run/nerdctl"
NETWORKS = "/etc/cni/net.d"
HASH = re.compile(r"[0-9a-f]{8}\Z")
LIMIT = 4 * files.MIB
PLACES = ("containers", "names", "etchosts", "volumes")


def store(address: str) -> str:
    """The name of the store for a containerd, of the path of its socket with no symlink in it (getAddrHash)."""
    return hashlib.sha256(address.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def read(host: Host, address: str, directory: str = DATA) -> tuple[list[Record], list[str]]:
    """Records "nerdctl", named NAMESPACE/ID, of the containers that it has in the containerd at this socket, "volume",
    named by path, of all volumes, and "store", named by path, of each store.

    Facts of a container: namespace, id, name, path (of its directory), hosts (of its hosts file's), networks, started
    (ISO 8601, "" if it never was). Of a volume: namespace, volume. Of a store: own (whether it is of that socket),
    namespaces (of containerd, that it has anything of), ids (of its containers).
    """
    faults: list[str] = []
    records = []
    for hash in filter(HASH.match, files.directories(host, directory, "", faults)):
        spaces = {
            namespace
            for place in PLACES
            for namespace in filter(containerd.is_id, files.directories(host, directory, f"{hash}/{place}", faults))
        }
        ids = {
            id
            for namespace in spaces
            for id in files.directories(host, directory, f"{hash}/containers/{namespace}", faults)
        }
        facts: dict[str, Any] = {"own": hash == store(address), "namespaces": sorted(spaces), "ids": sorted(ids)}
        records.append(Record("store", f"{directory}/{hash}", "disk", facts))
        for namespace in filter(containerd.is_id, files.directories(host, directory, f"{hash}/volumes", faults)):
            for volume in files.directories(host, directory, f"{hash}/volumes/{namespace}", faults):
                path = f"{directory}/{hash}/volumes/{namespace}/{volume}"
                records.append(Record("volume", path, "disk", {"namespace": namespace, "volume": volume}))
        if hash != store(address):
            continue
        names = read_names(host, f"{directory}/{hash}", faults)
        for namespace in filter(containerd.is_id, files.directories(host, directory, f"{hash}/containers", faults)):
            below = f"{hash}/containers/{namespace}"
            for id in filter(containerd.is_unique, files.directories(host, directory, below, faults)):
                facts = {
                    "namespace": namespace,
                    "id": id,
                    "name": names.get((namespace, id), ""),
                    "path": f"{directory}/{below}/{id}",
                    **described(host, f"{directory}/{hash}", namespace, id, faults),
                }
                records.append(Record("nerdctl", f"{namespace}/{id}", "disk", facts))
    return records, faults


def read_names(host: Host, base: str, faults: list[str]) -> dict[tuple[str, str], str]:
    """The names of containers by namespace and id: a file for each name, that holds the id (namestore.go)."""
    found = {}
    for namespace in filter(containerd.is_id, files.directories(host, base, "names", faults)):
        for name, is_directory in files.entries(host, base, f"names/{namespace}", faults):
            id = "" if is_directory else containerd.line(host, base, f"names/{namespace}/{name}", faults)
            if containerd.is_unique(id):
                found[namespace, id] = name
    return found


def described(host: Host, base: str, namespace: str, id: str, faults: list[str]) -> dict[str, Any]:
    lived = json_text.read(host, base, f"containers/{namespace}/{id}/lifecycle.json", LIMIT, faults) or {}
    meta = json_text.read(host, base, f"etchosts/{namespace}/{id}/meta.json", LIMIT, faults) or {}
    started = text(lived.get("started_at"))[:64]
    return {
        "hosts": f"{base}/etchosts/{namespace}/{id}",
        "networks": sorted(name for name in mapping(meta.get("Networks")) if text(name)),
        "started": "" if started.startswith("0001-") else started,  # Go's zero time
    }


def read_reservers(host: Host, starts: Mapping[str, int], directory: str = RUN) -> tuple[list[Record], list[str]]:
    """Records "reserver", named by path, of the processes that hold containers' published ports open. `starts`: of each
    process that lives (in clock ticks since boot). Facts: namespace, id, pid, late (seconds from that process' start to
    the writing down of its pid)."""
    faults: list[str] = []
    records = []
    booted, ticks = boot_time(host), os.sysconf("SC_CLK_TCK")
    for namespace in filter(containerd.is_id, files.directories(host, directory, "", faults)):
        for id in filter(containerd.is_unique, files.directories(host, directory, namespace, faults)):
            below = f"{namespace}/{id}/port-reserver.pid"
            pid = containerd.pid(containerd.line(host, directory, below, faults))
            try:
                written = os.lstat(host.path(f"{directory}/{below}")).st_mtime
            except OSError:
                continue
            if str(pid) not in starts:
                continue
            late = round(written - booted - starts[str(pid)] / ticks)
            facts = {"namespace": namespace, "id": id, "pid": pid, "late": late}
            records.append(Record("reserver", f"{directory}/{below}", "disk", facts))
    return records, faults


def boot_time(host: Host) -> int:
    """When the host was booted, in seconds since 1970 (proc_stat(5))."""
    try:
        lines = host.read("/proc/stat").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("btime ")), 0)


def read_networks(host: Host, directory: str = NETWORKS) -> tuple[list[Record], list[str]]:
    """Records "conflist" of its networks in the subdirectories for single namespaces, which CNI does not look into
    (store.go, getConfigPathForNetworkName), and "nerdctl place", named by path, of these and of its locks."""
    faults: list[str] = []
    records = []
    for namespace in filter(containerd.is_id, files.directories(host, directory, "", faults)):
        found, said = cni.read_conf(host, f"{directory}/{namespace}")
        own = [record for record in found if record.facts["nerdctl"]]
        records += own
        faults += said
        records.append(Record("nerdctl place", f"{directory}/{namespace}", "disk", {"networks": len(own)}))
    for name in LOCKS:
        try:
            size = os.lstat(host.path(f"{directory}/{name}")).st_size
        except OSError:
            continue
        records.append(Record("nerdctl place", f"{directory}/{name}", "disk", {"size": size}))
    return records, faults


# pkg/netutil/store.go, pkg/ocihook/ocihook.go.
LOCKS = (".nerdctl.lock", ".cni-concurrency.lock")
