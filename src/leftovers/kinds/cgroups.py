"""Control groups, in the one hierarchy of version 2 and in those of version 1; ended by cgroup.kill and rmdir."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb

__all__ = ["Cgroups"]

FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# How long to look again for a group to empty after its processes were killed, in seconds.
POLL = (0.005, 0.01, 0.02, 0.05, 0.1)


class Cgroups(Kind):
    """Facts of a cgroup:

    path (from the root of its hierarchy), directory (where that is mounted), hierarchy ("" for version 2, the
    controllers of a version 1 hierarchy), populated (has a living process in or below it; None in version 1).
    Keys: the path, HIERARCHY:PATH in version 1.
    `only_empty`, when a product put it there, means that no process in it may be killed.
    """

    name: ClassVar[str] = "cgroup"
    title: ClassVar[str] = "cgroups"
    needs: ClassVar[tuple[str, ...]] = ("mount",)
    settle: ClassVar[float] = 5.0

    def survey(self, look: Look) -> Listing:
        objects: list[Object] = []
        seen: set[str] = set()
        for mount in look.objects("mount"):
            facts = mount.facts
            if not facts["host"] or facts["fstype"] not in ("cgroup", "cgroup2") or facts["root"] != "/":
                continue
            if facts["majmin"] in seen:
                continue  # the same hierarchy mounted twice
            seen.add(facts["majmin"])
            hierarchy = "" if facts["fstype"] == "cgroup2" else facts["point"].rsplit("/", 1)[1]
            objects += groups(look.host, facts["point"], hierarchy)
        return Listing(tuple(objects))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        """Kill all groups first, then wait for each: they empty side by side."""
        failed: dict[str, str] = {}
        own = own_group(host)
        todo = []
        for obj in objects:
            if obj.facts["path"] == "/" or (own + "/").startswith(obj.facts["path"] + "/"):
                failed[obj.id] = "holds this command itself"
            elif cause := kill(host, obj):
                failed[obj.id] = cause
            else:
                todo.append(obj)
        for obj in todo:
            if cause := remove(host, obj, deadline):
                failed[obj.id] = cause
        return failed


def groups(host: Host, point: str, hierarchy: str) -> Iterator[Object]:
    """Every cgroup below a hierarchy's mount point."""
    stack = [""]
    while stack:
        path = stack.pop()
        directory = host.path(point + path)
        try:
            with os.scandir(directory) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            inode = os.stat(directory).st_ino
        except OSError:
            continue  # it was removed meanwhile
        stack += [f"{path}/{name}" for name in reversed(names)]
        if path:
            key = f"{hierarchy}:{path}" if hierarchy else path
            facts = {
                "path": path,
                "directory": point + path,
                "hierarchy": hierarchy,
                "populated": None if hierarchy else populated(host, point + path),
            }
            yield Object("cgroup", key, (key, inode), facts)


def populated(host: Host, directory: str) -> bool:
    try:
        return "populated 1" in host.read(f"{directory}/cgroup.events", 4096)
    except OSError:
        return False


def own_group(host: Host) -> str:
    from leftovers.kinds.processes import cgroup_of

    return cgroup_of(host, os.getpid())


def kill(host: Host, obj: Object) -> str:
    """SIGKILL to every process in and below a group, also to those that are being forked (cgroup v2, cgroup.kill,
    Linux 5.14). Returns the cause of a failure, or ""."""
    if not obj.facts["populated"]:
        return ""
    if obj.facts.get("only_empty"):
        return "has a process by now"
    try:
        fd = os.open(host.path(f"{obj.facts['directory']}/cgroup.kill"), os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""  # gone, or an older kernel: then rmdir says that it is busy
    except OSError as error:
        return f"cgroup.kill: {error.strerror}"
    try:
        os.write(fd, b"1")
    except OSError as error:
        return "" if error.errno == errno.ENODEV else f"cgroup.kill: {error.strerror}"
    finally:
        os.close(fd)
    return ""


def rmdir_all(top: str) -> str:
    """rmdir of a group and of all below it, leaves first. Returns the cause of a failure, or "".

    By open directories, not by paths: a container may nest its groups deeper than a path may be long.
    """
    try:
        stack = [(os.open(os.path.dirname(top), FLAGS), os.path.basename(top), os.open(top, FLAGS))]
    except FileNotFoundError:
        return ""
    cause = ""
    try:
        skip: set[int] = set()  # inodes of groups that do not go
        while stack:
            parent, name, fd = stack[-1]
            with os.scandir(fd) as entries:
                inner = next((e.name for e in entries if e.is_dir(follow_symlinks=False) and e.inode() not in skip), "")
            if inner:
                stack.append((fd, inner, os.open(inner, FLAGS, dir_fd=fd)))
                continue
            try:
                os.rmdir(name, dir_fd=parent)
            except FileNotFoundError:
                pass
            except OSError as error:
                cause = error.strerror or str(error)
                skip.add(os.fstat(fd).st_ino)
            stack.pop()
            os.close(fd)
            if not stack:
                os.close(parent)
    except OSError as error:
        cause = error.strerror or str(error)
    finally:
        for number, (parent, _, fd) in enumerate(stack):
            os.close(fd)
            if number == 0:
                os.close(parent)
    return cause


def remove(host: Host, obj: Object, deadline: Deadline) -> str:
    """rmdir of a group and of those below it, leaves first; waits while its processes are being reaped."""
    top = host.path(obj.facts["directory"])
    pauses = iter(POLL)
    while True:
        cause = rmdir_all(top)
        if not cause or deadline.passed():
            return cause
        time.sleep(min(next(pauses, POLL[-1]), deadline.left()))
