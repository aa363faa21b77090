"""Incus' process files: dnsmasq.pid, proxy.<device>, virtio-fs.<device>.pid and so on.

A YAML mapping with name, args, apparmor and pid (Incus shared/subprocess/proc.go Save), or, for forkfile.pid
and qemu.pid, a bare number. The pid may long be another process's: whoever uses it compares name and args first.
"""

from __future__ import annotations

import os
from typing import Any

from leftovers.errors import Unreadable
from leftovers.evidence import files, yaml
from leftovers.evidence.files import note
from leftovers.host import Host
from leftovers.model import Record

__all__ = ["read"]

LIMIT = files.MIB
PID_MAX = 1 << 22  # proc(5): no pid is larger on any architecture
ARGS = 4096


def read(host: Host, path: str, base: str = "") -> tuple[list[Record], list[str]]:
    """The "helper" that one process file names. Record.name is the path.

    Only `base`, by default the file's directory, may be reached by symlinks. Facts: pid, name, args, apparmor;
    a bare number has an empty name and no args.
    """
    faults: list[str] = []
    base = base or os.path.dirname(path)
    try:
        data = files.read(host, base, os.path.relpath(path, base), LIMIT)
        if data is None:
            return [], []
        return [Record("helper", path, "disk", parse(data))], faults
    except Unreadable as error:
        note(faults, error.what, error.cause)
    except ValueError as error:
        note(faults, path, str(error))
    return [], faults


def parse(data: bytes) -> dict[str, Any]:
    """The facts of a process file's text. Raises ValueError."""
    document = yaml.load(data)
    if not isinstance(document, dict):
        document = {"pid": document, "name": "", "args": []}
    pid, name, args = document.get("pid"), document.get("name"), document.get("args")
    if type(pid) is not int or not 0 < pid <= PID_MAX:
        raise ValueError("no pid in it")
    if args is None:
        args = []  # Go writes a nil slice as [], an older one may have written null
    if not isinstance(name, str) or not isinstance(args, list) or len(args) > ARGS:
        raise ValueError("no name and args in it")
    if not all(isinstance(arg, str) or type(arg) is int for arg in args):
        raise ValueError("its args are not strings")
    apparmor = document.get("apparmor")
    return {
        "pid": pid,
        "name": name,
        "args": [str(arg) for arg in args],
        "apparmor": apparmor if isinstance(apparmor, str) else "",
    }
