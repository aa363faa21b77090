"""BPF: what is pinned in the host's bpffs, and programs that are attached to links and to the root cgroup.

A pin is removed by its name, as a file; where it is that of a link (bpf_link), the attachment ends with it. A program
that hangs by itself in a filter of tc or at the cgroup is taken off there (kinds/bpf_attached.py); one of XDP is only
reported. So links go first, then attachments, then programs, then maps; last those maps through which programs call
each other (prog_array): the kernel empties one whose last pin is gone, even if a program that is still attached needs
it, and then drops what that was to pass on (kernel/bpf/arraymap.c, prog_array_map_clear).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from leftovers import syscalls
from leftovers.host import Host
from leftovers.kinds.bpf_attached import attached, detach
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb
from leftovers.mountinfo import below

__all__ = ["BpfObjects"]

# How many names are looked at in one bpffs.
LIMIT = 100_000
# In the fdinfo of a BPF object (kernel/bpf/syscall.c, bpf_*_show_fdinfo): the first of these tells what it is. A
# link has prog_id as well.
IDS = {"link_id": "link", "map_id": "map", "prog_id": "program"}
PROG_ARRAY = 3  # BPF_MAP_TYPE_PROG_ARRAY
ORDER = ("link", "attachment", "program", "symlink", "pin", "map")
BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV


class BpfObjects(Kind):
    """Listed is what the scope asks for: patterns of paths ("/sys/fs/bpf/tc/globals/x_*": pins, and all below a
    directory of that name) and of programs' names ("x_*": attachments).

    Facts of a pin: path, name, what (link, program, map; directory, symlink; "pin" if the kernel does not tell),
    id (of the object), map_type (a number, 0 if none), program (the id of a link's), mount (the bpffs), attach "".
    Facts of an attachment: name (of the program), what "attachment", id (of the program), maps (the ids of those that
    it uses), attach (where: "tc eth0 clsact/ingress pref 1", "tc eth0 tcx/ingress", "xdpdrv eth0", "cgroup
    /sys/fs/cgroup cgroup_inet4_connect"), dev (the link), cgroup, type, filter (by which it is taken off), path "".
    Keys: the path; "ATTACH NAME" of an attachment.
    """

    name: ClassVar[str] = "bpf"
    title: ClassVar[str] = "BPF objects"
    needs: ClassVar[tuple[str, ...]] = ("mount",)

    def survey(self, look: Look) -> Listing:
        paths = [pattern for pattern in look.scope.bpf if pattern.startswith("/")]
        names = [pattern for pattern in look.scope.bpf if not pattern.startswith("/")]
        objects: dict[str, Object] = {}
        faults: list[str] = []
        for mount in look.objects("mount") if paths else ():
            if mount.facts["fstype"] == "bpf" and mount.facts["host"] and not look.host.root:
                point = str(mount.facts["point"])
                objects.update((obj.key, obj) for obj in pins(point, paths, faults))
        if names and not look.host.root:
            try:
                objects.update((obj.key, obj) for obj in attached(names, cgroup2(look)))
            except OSError as error:
                faults.append(f"BPF programs: {error.strerror or error}")
        return Listing(tuple(objects.values()), tuple(faults))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        causes: dict[str, str] = {}
        stuck = ""
        for obj in sorted(objects, key=place):
            if obj.facts["what"] == "attachment":
                cause = detach(obj)
                stuck = stuck or (obj.key if cause else "")
            elif stuck and obj.facts["map_type"] == PROG_ARRAY:
                cause = f"{stuck} may need it"
            else:
                cause = unpin(obj)
            if cause:
                causes[obj.id] = cause
        return causes


def place(obj: Object) -> tuple[int, int]:
    """Its place in the order of removal; directories come last, the deepest first."""
    what = str(obj.facts["what"])
    if what == "directory":
        return len(ORDER) + 1, -str(obj.facts["path"]).count("/")
    if obj.facts["map_type"] == PROG_ARRAY:
        return len(ORDER), 0
    return ORDER.index(what) if what in ORDER else 0, 0


def pins(point: str, patterns: Sequence[str], faults: list[str]) -> Iterator[Object]:
    """What is asked for in one bpffs. Nothing is followed, and no other mount is entered."""
    seen = 0
    parts = point.split("/")
    above = ["/".join(parts[:number]) for number in range(2, len(parts) + 1)]
    stack = [(point, any(fnmatchcase(path, pattern) for path in above for pattern in patterns))]
    device = None
    while stack:
        directory, taken = stack.pop()
        if not taken and not any(may_hold(directory, pattern) for pattern in patterns):
            continue
        try:
            with os.scandir(directory) as entries:
                device = os.stat(directory, follow_symlinks=False).st_dev if device is None else device
                found = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            faults.append(f"{directory}: {error.strerror or error}")
            continue
        for entry in found:
            if "." in entry.name:
                continue  # the kernel's own: nobody else can use the dot (kernel/bpf/inode.c, bpf_lookup)
            seen += 1
            if seen > LIMIT:
                faults.append(f"{point}: more than {LIMIT} names, not all were looked at")
                return
            try:
                status = os.stat(entry.path, follow_symlinks=False)
            except OSError:
                continue  # gone as we looked
            if status.st_dev != device:
                continue
            asked = taken or any(fnmatchcase(entry.path, pattern) for pattern in patterns)
            if stat.S_ISDIR(status.st_mode):
                stack.append((entry.path, asked))
            if asked:
                yield pin(point, entry.path, status)


def may_hold(directory: str, pattern: str) -> bool:
    """Whether something in a directory may fit a pattern: as many components of it do."""
    parts, wanted = directory.split("/"), pattern.split("/")
    return len(parts) < len(wanted) and all(map(fnmatchcase, parts, wanted))


def pin(point: str, path: str, status: os.stat_result) -> Object:
    facts: dict[str, Any] = {
        "path": path,
        "name": path.rpartition("/")[2],
        "what": "pin",
        "id": 0,
        "map_type": 0,
        "program": 0,
        "mount": point,
        "attach": "",
    }
    if stat.S_ISDIR(status.st_mode):
        facts["what"] = "directory"
    elif stat.S_ISLNK(status.st_mode):
        facts["what"] = "symlink"
    elif stat.S_ISREG(status.st_mode):
        facts.update(told(path))
    return Object("bpf", path, (path, status.st_dev, status.st_ino, str(facts["what"]), int(facts["id"])), facts)


def told(path: str) -> dict[str, Any]:
    """What the kernel tells of a pinned object: to have it open changes nothing about it."""
    try:
        fd = syscalls.bpf_obj_get(path)
    except OSError:
        return {}
    try:
        with open(f"/proc/self/fdinfo/{fd}") as file:
            said = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    except (OSError, ValueError):
        return {}
    finally:
        os.close(fd)
    for name, what in IDS.items():
        if said.get(name, "").isdigit():
            map_type, program = said.get("map_type", "0"), said.get("prog_id", "0")
            facts = {"what": what, "id": int(said[name]), "map_type": int(map_type) if map_type.isdigit() else 0}
            return {**facts, "program": int(program) if what == "link" and program.isdigit() else 0}
    return {}


def unpin(obj: Object) -> str:
    """Remove one name in a bpffs, if it is still that object's. Returns the cause of a failure, or ""."""
    path, point = str(obj.facts["path"]), str(obj.facts["mount"])
    if not below(path, point) or path == point:
        return "is not in its bpffs"
    try:
        top = os.open(point, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            inner = os.path.dirname(path[len(point.rstrip("/")) + 1 :]) or "."
            parent = syscalls.openat2(top, inner, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, BENEATH)
        finally:
            os.close(top)
        try:
            name = os.path.basename(path)
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if (status.st_dev, status.st_ino) != obj.identity[1:3]:
                return ""  # something else has that name now
            if obj.facts["what"] == "directory":
                os.rmdir(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)
        finally:
            os.close(parent)
    except FileNotFoundError:
        return ""
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            return "is not empty: what is in it stays"
        return error.strerror or str(error)
    return ""


def cgroup2(look: Look) -> str:
    """Where the cgroup2 hierarchy is mounted, or ""."""
    points = [
        str(mount.facts["point"])
        for mount in look.objects("mount")
        if mount.facts["host"] and mount.facts["fstype"] == "cgroup2" and mount.facts["root"] == "/"
    ]
    return min(points, key=len, default="")
