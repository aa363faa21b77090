"""The configuration that Incus hands to liblxc: /run/incus/<instance>/lxc.conf, there while the container runs. LXD's
lies beside the logs, /var/log/lxd/<instance>/lxc.conf: it outlives the container, and goes with a purge.

It is the only thing on disk that names a running container's links: for Incus a nic is liblxc's type "phys", whose
link is the veth end that was moved into the container, and which liblxc moves back (Incus driver_lxc.go initLXC).
"""

from __future__ import annotations

import os
import re
from typing import Any

from leftovers.errors import Unreadable
from leftovers.evidence import files
from leftovers.evidence.files import note
from leftovers.host import Host
from leftovers.model import Record

__all__ = ["read"]

LIMIT = files.MIB
NICS = 1024
NET = re.compile(r"lxc\.net\.([0-9]{1,5})\.(type|link|name|hwaddr)")


def read(host: Host, path: str, base: str = "") -> tuple[list[Record], list[str]]:
    """The "lxc.conf" Record of one file; its name is the directory's, which is <project>_<instance>.

    Only `base`, by default the file's directory, may be reached by symlinks. Facts: nics (index, link, name,
    hwaddr, type), rootfs (without liblxc's "dir:" prefix), path.
    """
    faults: list[str] = []
    base = base or os.path.dirname(path)
    name = os.path.basename(os.path.dirname(path))
    if not files.is_name(name):
        note(faults, path, "not in a directory of an instance's name")
        return [], faults
    try:
        data = files.read(host, base, os.path.relpath(path, base), LIMIT)
    except Unreadable as error:
        note(faults, error.what, error.cause)
        return [], faults
    if data is None:
        return [], faults
    try:
        return [Record("lxc.conf", name, "disk", {**parse(data.decode()), "path": path})], faults
    except ValueError as error:
        note(faults, path, "not valid UTF-8" if isinstance(error, UnicodeDecodeError) else str(error))
        return [], faults


def parse(text: str) -> dict[str, Any]:
    """nics and rootfs of a configuration (lxc.container.conf(5)); includes are not followed. Raises ValueError."""
    nics: dict[int, dict[str, Any]] = {}
    rootfs = ""
    for line in text.split("\n"):
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or key.startswith("#"):
            continue
        if match := NET.fullmatch(key):
            index = int(match[1])
            nics.setdefault(index, {"index": index, "link": "", "name": "", "hwaddr": "", "type": ""})
            nics[index][match[2]] = value
            if len(nics) > NICS:
                raise ValueError(f"more than {NICS} links")
        elif key == "lxc.rootfs.path":
            rootfs = value.removeprefix("dir:")
    return {"nics": [nics[index] for index in sorted(nics)], "rootfs": rootfs}
