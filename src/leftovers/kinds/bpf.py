"""BPF: what is pinned in the host's bpffs, and programs that are attached to links and cgroups.

A pin is removed by its name, as a file. An attachment is only reported: that of a tc filter or of a program of a
cgroup is taken back by what says where it hangs, and it may stand between others. But where the pin is that of a link
(bpf_link), the attachment ends with it. So these go first, then programs, then maps; last those maps through which
programs call each other (prog_array): the kernel empties one whose last pin is gone, even if a program that is still
attached needs it, and then drops what that was to pass on (kernel/bpf/arraymap.c, prog_array_map_clear).
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar

from leftovers import syscalls
from leftovers.errors import ToolFault
from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb
from leftovers.mountinfo import below
from leftovers.run import find, run

__all__ = ["BpfObjects", "attachments"]

# How many names are looked at in one bpffs.
LIMIT = 100_000
# In the fdinfo of a BPF object (kernel/bpf/syscall.c, bpf_*_show_fdinfo): the first of these tells what it is. A
# link has prog_id as well.
IDS = {"link_id": "link", "map_id": "map", "prog_id": "program"}
PROG_ARRAY = 3  # BPF_MAP_TYPE_PROG_ARRAY
ORDER = ("link", "program", "symlink", "pin", "map")
BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_XDEV


class BpfObjects(Kind):
    """Listed is what the scope asks for: patterns of paths ("/sys/fs/bpf/tc/globals/x_*": pins, and all below a
    directory of that name) and of programs' names ("x_*": attachments, if bpftool is installed).

    Facts of a pin: path, name, what (link, program, map; directory, symlink; "pin" if the kernel does not tell),
    id (of the object), map_type (a number, 0 if none), mount (the bpffs), attach "".
    Facts of an attachment: name (of the program), what "attachment", id (of the program), attach (where: "tc eth0
    clsact/ingress", "xdp eth0", "cgroup /sys/fs/cgroup cgroup_inet4_connect"), path "".
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
        if names and not look.host.root and find("bpftool"):
            try:
                objects.update((obj.key, obj) for obj in attached(names, cgroup2(look)))
            except ToolFault as fault:
                faults.append(f"BPF programs: {fault}")
        return Listing(tuple(objects.values()), tuple(faults))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        causes = {}
        for obj in sorted(objects, key=place):
            if obj.facts["what"] == "attachment":
                causes[obj.id] = "an attached program is not taken off"
            elif cause := unpin(obj):
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
            map_type = said.get("map_type", "0")
            return {"what": what, "id": int(said[name]), "map_type": int(map_type) if map_type.isdigit() else 0}
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


def attached(patterns: Sequence[str], cgroup: str) -> Iterator[Object]:
    """Attached programs with such names. Raises ToolFault."""
    programs = {
        int(entry["id"]): str(entry.get("name", ""))
        for entry in said(run(["bpftool", "-j", "prog", "show"]).out)
        if isinstance(entry.get("id"), int)
    }
    if not any(fnmatchcase(name, pattern) for name in programs.values() for pattern in patterns):
        return
    for argv in (["net", "show"], ["cgroup", "tree", cgroup]):
        if all(argv):
            yield from attachments(run(["bpftool", "-j", *argv]).out, programs, patterns)


def said(text: str) -> list[dict[str, Any]]:
    """What bpftool printed: a list of objects. Raises ToolFault."""
    try:
        found = json.loads(text) if text.strip() else []
    except (ValueError, RecursionError) as error:
        raise ToolFault("bpftool", f"said something that is not JSON: {error}") from error
    return many(found)


def attachments(text: str, programs: Mapping[int, str], patterns: Sequence[str]) -> Iterator[Object]:
    """The programs with such names in what `bpftool -j net show` or `bpftool -j cgroup tree` printed. The names there
    are of the filters, if they are any: a program's own is known by its id. Raises ToolFault."""
    for entry in said(text):
        for at, program in where(entry):
            number = program.get("prog_id", program.get("id", 0))
            name = programs.get(number, "") if isinstance(number, int) else ""
            if any(fnmatchcase(name, pattern) for pattern in patterns):
                facts = {"path": "", "name": name, "what": "attachment", "id": number, "map_type": 0}
                facts.update(mount="", attach=at)
                yield Object("bpf", f"{at} {name}", (at, name, number), facts)


def where(entry: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where each program of an entry is attached, in words."""
    for how in ("xdp", "tc"):
        for program in many(entry.get(how)):
            words = (how, str(program.get("devname", "")), str(program.get("kind", "")))
            yield " ".join(filter(None, words)), program
    for program in many(entry.get("programs")):
        yield f"cgroup {entry.get('cgroup', '')} {program.get('attach_type', '')}", program


def many(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
