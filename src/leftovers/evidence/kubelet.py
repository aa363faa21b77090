"""What a kubelet has in its directory: the pods that it looks after, and what of theirs is mounted there by name.

Layout: kubernetes pkg/kubelet/config/defaults.go, pkg/volume/util/subpath/subpath_linux.go. Names are listed and no
volume is entered: one may be a server's that does not answer any more.
"""

from __future__ import annotations

import re

from leftovers.evidence import files
from leftovers.evidence.files import note
from leftovers.host import Host
from leftovers.model import Record

__all__ = ["is_uid", "read"]

# A pod's uid is a UUID; that of a static pod is a hash without dashes (kubelet/config/common.go).
UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z|[0-9a-f]{32}\Z")


def is_uid(name: object) -> bool:
    return isinstance(name, str) and UID.match(name) is not None


def read(host: Host, root: str) -> tuple[list[Record], list[str]]:
    """Records "pod", named by uid. Facts: path, volumes (TYPE/NAME), subpaths (VOLUME/CONTAINER), plugins,
    containers."""
    faults: list[str] = []
    records = []
    for uid in files.directories(host, root, "pods", faults):
        if not is_uid(uid):
            note(faults, f"{root}/pods", f"a pod has the impossible uid {ascii(uid)[:80]}")
            continue
        below = f"pods/{uid}"
        facts = {
            "path": f"{root}/{below}",
            "volumes": nested(host, root, f"{below}/volumes", faults),
            "subpaths": nested(host, root, f"{below}/volume-subpaths", faults),
            "plugins": files.directories(host, root, f"{below}/plugins", faults),
            "containers": files.directories(host, root, f"{below}/containers", faults),
        }
        records.append(Record("pod", uid, "disk", facts))
    return records, faults


def nested(host: Host, root: str, below: str, faults: list[str]) -> list[str]:
    """OUTER/INNER of the directories in the directories of a directory."""
    return [
        f"{outer}/{inner}"
        for outer in files.directories(host, root, below, faults)
        for inner in files.directories(host, root, f"{below}/{outer}", faults)
    ]
