"""Network namespaces: those that processes are in, and those that are pinned by a bind mount."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from leftovers import syscalls
from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.kinds.processes import namespace
from leftovers.model import Deadline, Listing, Object, Verb

__all__ = ["NetworkNamespaces"]

NSFS_NET = re.compile(r"net:\[(\d+)\]\Z")


class NetworkNamespaces(Kind):
    """Facts of a netns: inode, host (the one we run in), processes (pids), pins (paths of nsfs bind mounts).

    It ends when its last process and its last pin are gone; so REMOVE only undoes pins.
    """

    name: ClassVar[str] = "netns"
    title: ClassVar[str] = "network namespaces"
    needs: ClassVar[tuple[str, ...]] = ("process", "mount")
    # Destroying a namespace is the kernel's own work queue (net/core/net_namespace.c, cleanup_net).
    settle: ClassVar[float] = 10.0

    def survey(self, look: Look) -> Listing:
        home = namespace(look.host, "self", "net")
        found: dict[int, dict[str, Any]] = {}

        def entry(inode: int) -> dict[str, Any]:
            return found.setdefault(inode, {"inode": inode, "host": inode == home, "processes": [], "pins": []})

        entry(home)
        for process in look.objects("process"):
            entry(process.facts["netns"])["processes"].append(process.facts["pid"])
        for mount in look.objects("mount"):
            match = NSFS_NET.match(mount.facts["root"])
            if mount.facts["fstype"] == "nsfs" and match:
                pins = entry(int(match[1]))["pins"]
                # `ip netns` binds /run/netns on itself, so the same pin is mounted twice.
                if mount.facts["point"] not in pins:
                    pins.append(mount.facts["point"])
        return Listing(tuple(Object("netns", str(inode), (inode,), facts) for inode, facts in sorted(found.items())))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        failed = {}
        for obj in objects:
            if obj.facts["host"]:
                failed[obj.id] = "is the host's own"
                continue
            for pin in obj.facts["pins"]:
                if cause := unpin(pin, obj.facts["inode"]):
                    failed[obj.id] = f"{pin}: {cause}"
        return failed


def unpin(pin: str, inode: int) -> str:
    """Undo every mount of one namespace at a path, then remove the empty file that it was mounted on (ip-netns(8)).
    What is at that path by now and is not the namespace stays, and is no failure: it is not what was asked for.
    Returns the cause of a failure, or ""."""
    try:
        undone = False
        nsfs = os.stat("/proc/self/ns/net").st_dev  # numbers of other files may be the same
        while ((status := os.stat(pin, follow_symlinks=False)).st_dev, status.st_ino) == (nsfs, inode):
            try:
                syscalls.umount2(pin, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise  # EINVAL: somebody else undid it as we looked
            undone = True
        if undone and stat.S_ISREG(status.st_mode) and not status.st_size:
            os.unlink(pin)
    except FileNotFoundError:
        pass
    except OSError as error:
        return error.strerror or str(error)
    return ""
