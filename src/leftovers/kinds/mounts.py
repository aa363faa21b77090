"""Mounts: listed in every mount namespace in which somebody may have mounted on the host's own directories; undone
without undoing anybody else's.

A container's own world ends with its processes. But a service with PrivateTmp= holds copies of what was mounted here;
and a strict snap lives on a root of its own, with the host's /var/snap in it, and what it mounts there is to be seen
nowhere else (snapd cmd/snap-confine/mount-support.c). Such a namespace outlives its processes by a pin,
/run/snapd/ns/NAME.mnt (ns-support.c), so those that are pinned are looked into as well.
"""

from __future__ import annotations

import errno
import json
import os
import re
import select
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar

from leftovers import mountinfo, syscalls
from leftovers.host import Host
from leftovers.kinds import mountpoint
from leftovers.kinds.kind import Kind, Look
from leftovers.kinds.processes import namespace
from leftovers.model import Deadline, Listing, Object, Verb
from leftovers.mountinfo import Mount

__all__ = ["Mounts"]

NSFS_MNT = re.compile(r"mnt:\[(\d+)\]\Z")
# How long the kernel may take to tell what is mounted in a namespace, and one unmount to come back.
TELL, PATIENCE = 5.0, 5.0
HUNG = "the unmount did not come back in time: the file system's server may be dead"


class Mounts(Kind):
    """Facts of a mount:

    id, parent, point, root, majmin, fstype, source, options, shared, master (see mountinfo.Mount), ns (inode of
    its mount namespace), pid (a process through which that namespace is reached, 0 for ours and where there is none),
    pin (the path at which it is pinned, then), host (in ours), configured (the fstab or unit file that an administrator
    made for it, "" if none). In a namespace with another root only what stands on the host's own directories is listed,
    under the same path as here.
    Keys: the mount point in our namespace, NS/POINT in others; "#ID" follows when several are stacked.
    """

    name: ClassVar[str] = "mount"
    title: ClassVar[str] = "mounts"
    needs: ClassVar[tuple[str, ...]] = ("process",)
    settle: ClassVar[float] = 2.0

    def survey(self, look: Look) -> Listing:
        host = look.host
        home = namespace(host, "self", "mnt")
        own = mountinfo.parse(host.read_bytes("/proc/self/mountinfo"))
        objects = list(describe(host, own, home))
        faults = []
        top = mountinfo.covering(own, "/")
        done = {home}
        for process in look.objects("process"):
            ns, pid = process.facts["mntns"], process.facts["pid"]
            on_root = top is not None and process.facts.get("mount_root") == [top.majmin, top.root]
            if ns in done or not (on_root or ("mount_root" in process.facts and not process.facts["nested"])):
                continue
            done.add(ns)
            try:
                mounts = mountinfo.parse(host.read_bytes(f"/proc/{pid}/mountinfo"))
            except OSError:
                continue  # it has ended
            objects += describe(host, mounts if on_root else on_host(mounts, own), ns, pid=pid)
        for mount in own:
            match = NSFS_MNT.match(mount.root) if mount.fstype == "nsfs" else None
            if match is None or int(match[1]) in done:
                continue
            ns = int(match[1])
            done.add(ns)
            try:
                mounts = mountinfo.parse(pinned(host, own, mount.point, ns))
            except OSError as error:
                faults.append(f"mounts in the namespace that is pinned at {mount.point}: {error.strerror or error}")
                continue
            objects += describe(host, on_host(mounts, own), ns, pin=mount.point)
        return Listing(tuple(objects), tuple(faults))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        """Make what is to go private, then unmount it leaf by leaf, in a child process that may hang and be left."""
        failed: dict[str, str] = {}
        groups: dict[int, list[Object]] = {}
        for obj in objects:
            groups.setdefault(obj.facts["ns"], []).append(obj)
        # Our own namespace first: what propagates from it need not be done again in the others.
        for group in sorted(groups.values(), key=lambda group: not group[0].facts["host"]):
            failed.update(in_children(host, group, deadline))
        return failed


def describe(host: Host, mounts: Sequence[Mount], ns: int, *, pid: int = 0, pin: str = "") -> Iterator[Object]:
    fstab = fstab_points(host)
    ours = not pid and not pin
    seen: set[str] = set()
    for mount in mounts:
        key = mount.point if ours else f"{ns}{mount.point}"
        if key in seen:
            key = f"{key}#{mount.id}"
        seen.add(key)
        facts = {name: getattr(mount, name) for name in Mount.__slots__}
        facts.update(ns=ns, pid=pid, pin=pin, host=ours, configured=configured(host, fstab, mount.point))
        yield Object("mount", key, (ns, mount.id, mount.majmin, mount.root, mount.point), facts)


def on_host(mounts: Sequence[Mount], own: Sequence[Mount]) -> list[Mount]:
    """Of the mounts of a namespace, those that stand on a directory of the host that has the same path there as here:
    whose parent shows what the host has at its path, or stands on such a mount itself. All of the host that is to be
    seen at another place (/var/lib/snapd/hostfs) is no such directory."""
    top = mountinfo.place(own, "/")
    table = {mount.id: mount for mount in mounts}
    known: dict[int, bool] = {}
    shows: dict[int, bool] = {}

    def stands(mount: Mount) -> bool:
        chain = []
        answer = False
        while mount.id not in known:
            known[mount.id] = False  # also ends a circle: the top is its own parent
            chain.append(mount)
            parent = table.get(mount.parent)
            if parent is None or parent is mount or (parent.point != "/" and (parent.majmin, parent.root) == top):
                break
            if parent.id not in shows:  # many mounts have one parent
                shows[parent.id] = mountinfo.place(own, parent.point) == (parent.majmin, parent.root)
            if shows[parent.id]:
                answer = True
                break
            mount = parent
        else:
            answer = known[mount.id]
        known.update({each.id: answer for each in chain})
        return answer

    return [mount for mount in mounts if stands(mount)]


def reach(host: Host, pid: int, pin: str, ns: int) -> int:
    """A file descriptor of a mount namespace, by a process in it or by its pin. Raises OSError, ESTALE when that is
    another namespace by now."""
    path = f"/proc/{pid}/ns/mnt" if pid else pin
    fd = os.open(host.path(path), os.O_RDONLY | os.O_CLOEXEC | (0 if pid else os.O_NOFOLLOW | os.O_NONBLOCK))
    if os.fstat(fd).st_ino != ns:
        os.close(fd)
        raise OSError(errno.ESTALE, "it is another namespace by now", path)
    return fd


def pinned(host: Host, own: Sequence[Mount], pin: str, ns: int) -> bytes:
    """What is mounted in a namespace that only a pin is known of. A child asks: a namespace can only be entered.
    Raises OSError."""
    way = mountinfo.covering([mount for mount in own if mount.point != pin], pin)
    if way is None or mountinfo.served(way.fstype):
        raise OSError(errno.EREMOTE, "lies on a network or FUSE file system", pin)  # which may never answer
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            syscalls.die_with_parent(signal.SIGKILL)
            os.close(reader)
            proc = os.open(host.path("/proc"), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            syscalls.setns(reach(host, 0, pin, ns), syscalls.CLONE_NEWNS)
            # Ours, by its descriptor: in there may be none. It is of the namespace that we are in when it is opened.
            with open(writer, "wb") as out, open(at(proc, "self/mountinfo"), "rb") as said:
                out.write(said.read())
            status = 0
        except OSError as error:
            status = error.errno or 1
        finally:
            os._exit(status if status < 256 else 1)
    os.close(writer)
    deadline = Deadline(TELL)
    text = b""
    with open(reader, "rb", buffering=0) as said:
        poller = select.poll()
        poller.register(said, select.POLLIN | select.POLLHUP)
        while poller.poll(deadline.left() * 1000) and (chunk := said.read(1 << 20)):
            text += chunk
    code = reaped(child, deadline.within(1.0))
    if code is None:
        os.kill(child, signal.SIGKILL)
        reaped(child, Deadline(0.5))
        raise OSError(errno.ETIMEDOUT, "the kernel did not tell in time", pin)
    if code:
        raise OSError(code, os.strerror(code), pin)
    return text


def at(directory: int, path: str) -> int:
    """A file below an open directory. Raises OSError."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)


def fstab_points(host: Host) -> set[str]:
    """The mount points that fstab(5) names."""
    points: set[str] = set()
    try:
        text = host.read_bytes("/etc/fstab", 1 << 20)
    except OSError:
        return points
    for line in text.split(b"\n"):
        fields = line.split()
        if len(fields) >= 2 and not fields[0].startswith(b"#"):
            points.add(mountinfo.decode(fields[1]).rstrip("/") or "/")
    return points


def configured(host: Host, fstab: set[str], point: str) -> str:
    """The file in which an administrator asked for a mount at this point, or ""."""
    if point in fstab:
        return "/etc/fstab"
    # Only a unit that somebody wrote: those that systemd makes from mountinfo have no file.
    path = f"/etc/systemd/system/{unit_name(point)}"
    return path if host.exists(path) else ""


def unit_name(point: str) -> str:
    """The name of the unit for a mount point (systemd.unit(5), "string escaping for inclusion in unit names")."""
    if point == "/":
        return "-.mount"
    escaped = ""
    for number, char in enumerate(point.strip("/")):
        if char == "/":
            escaped += "-"
        elif (char.isascii() and char.isalnum()) or char in ":_" or (char == "." and number > 0):
            escaped += char
        else:
            escaped += "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))
    return f"{escaped}.mount"


def in_children(host: Host, group: Sequence[Object], deadline: Deadline) -> dict[str, str]:
    """Unmount one namespace's mounts in a child: it can enter that namespace, and when a dead server holds an
    unmount up for ever, only the child hangs. Another one then does the rest, and what hung is only detached: nobody
    waits for a server then but the kernel."""
    failed: dict[str, str] = {}
    todo = {obj.id: obj for obj in group}
    hung: dict[str, int] = {}
    while todo:
        said, at_work, child = in_child(host, list(todo.values()), hung, deadline)
        failed.update({id: cause for id, cause in said.items() if cause})
        todo = {id: obj for id, obj in todo.items() if id not in said}
        if deadline.passed() or not at_work:
            break
        if at_work in hung:
            failed[at_work] = HUNG
            del todo[at_work]
        hung[at_work] = child
    return failed | dict.fromkeys(todo, HUNG)


def in_child(
    host: Host, group: Sequence[Object], hung: Mapping[str, int], deadline: Deadline
) -> tuple[dict[str, str], str, int]:
    """One child's work: what it said of each mount that it is done with, which one it hung at, "" if it did not, and
    its pid if it has not even ended by SIGKILL, else 0. `hung`: where others did, and the same of them.

    The child writes lines of JSON: [object id, true] when it asks the kernel to undo a mount, [object id, false] when
    that came back, [object id, cause or ""] when it is done with it.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            # Killed with us, and without our files: a child that hangs must not hold a lock of ours.
            syscalls.die_with_parent(signal.SIGKILL)
            os.closerange(3, writer)
            os.closerange(writer + 1, os.sysconf("SC_OPEN_MAX"))

            def report(obj: Object, what: str | bool) -> None:
                os.write(writer, json.dumps([obj.id, what]).encode() + b"\n")

            unmount(host, group, hung, report)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    said, at_work = collect(reader, deadline)
    os.close(reader)
    if reaped(child, deadline.within(1.0 if not at_work else 0.0)) is None:
        os.kill(child, signal.SIGKILL)
        if reaped(child, Deadline(0.5)) is None:
            return said, at_work, child  # which nobody else is given as long as we do not wait for it
    return said, at_work, 0


def collect(reader: int, deadline: Deadline) -> tuple[dict[str, str], str]:
    """What the child said until it ended, one unmount did not come back, or the time was over."""
    text = b""
    at_work = ""
    said: dict[str, str] = {}
    poller = select.poll()
    poller.register(reader, select.POLLIN | select.POLLHUP)
    while poller.poll(deadline.within(PATIENCE).left() * 1000 if at_work else deadline.left() * 1000):
        chunk = os.read(reader, 1 << 16)
        if not chunk:
            return said, ""
        *lines, text = (text + chunk).split(b"\n")
        for id, what in map(json.loads, lines):
            at_work = id if what is True else ""
            if isinstance(what, str):
                said[id] = what
    return said, at_work


def reaped(child: int, deadline: Deadline) -> int | None:
    """A child's exit code, None when it has not ended by the deadline."""
    fd = os.pidfd_open(child)
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        if not poller.poll(deadline.left() * 1000):
            return None
    finally:
        os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def unmount(
    host: Host, group: Sequence[Object], hung: Mapping[str, int], report: Callable[[Object, str | bool], None]
) -> None:
    """In the child: enter the namespace of these mounts and undo them, children before parents.

    1. what is not there any more with the same identity is left out;
    2. a mount below which something else is mounted that stays, stays too;
    3. every mount from which one is unmounted is made private, if that one's peers are not to go as well:
       otherwise the kernel carries the unmount over to them (mount_namespaces(7), "propagation"), and that may be
       the tree that an administrator bound here, in this namespace or in another one;
    4. then umount2, and what is busy is left mounted: who uses it is the cause.

    Both by the very mount that was listed: see mountpoint.py.
    """
    # Before we enter: /proc in there may be another one, or none.
    proc = os.open(host.path("/proc"), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    first = group[0].facts
    home: list[Mount] = []  # whose turn was before: what is there now stays
    if not first["host"]:
        home = mountinfo.parse(host.read_bytes("/proc/self/mountinfo"))
        try:
            syscalls.setns(reach(host, first["pid"], first["pin"], first["ns"]), syscalls.CLONE_NEWNS)
        except OSError as error:
            for obj in group:
                report(obj, f"its mount namespace cannot be entered: {error.strerror or error}")
            return
    os.fchdir(proc)
    present = mountpoint.listed(proc)
    going: dict[int, Object] = {}
    for obj in group:
        mount = present.get(obj.facts["id"])
        if mount and (mount.majmin, mount.root, mount.point) == obj.identity[2:]:
            going[mount.id] = obj
        else:
            report(obj, "")
    children: dict[int, list[int]] = {}
    for mount in present.values():
        children.setdefault(mount.parent, []).append(mount.id)
    private: set[int] = set()
    for number in leaves_first(going, children):
        obj, mount = going[number], present[number]
        staying = [present[child] for child in children.get(number, []) if child in present]
        if staying:
            report(obj, f"{staying[0].point} is mounted below it and stays")
            continue
        parent = present.get(mount.parent)
        if parent and parent.id in going and parent.shared and parent.id not in private:
            try:
                report(obj, True)
                mountpoint.make_private(proc, parent)
                private.add(parent.id)
            except OSError as error:
                staying = [mount for mount in present.values() if mount.id not in going]
                if any(peer.shared == parent.shared for peer in (*staying, *home)):
                    report(obj, f"cannot make {parent.point} private: {error.strerror}")
                    continue
        cause = undo(proc, mount, partial(report, obj), hung.values(), detach=obj.id in hung)
        if not cause:
            del present[number]
        report(obj, cause)


def leaves_first(going: Mapping[int, Object], children: Mapping[int, Sequence[int]]) -> list[int]:
    """Mount ids so that each comes after all that is mounted below it. Last mounted first among siblings, since
    of two at the same point only the upper can be reached."""
    order: list[int] = []
    seen: set[int] = set()
    stack = [(number, False) for number in sorted(going)]
    while stack:
        number, left = stack.pop()
        if left:
            order.append(number)
        elif number not in seen and number in going:
            seen.add(number)
            stack.append((number, True))
            stack += [(child, False) for child in sorted(children.get(number, ())) if child != number]
    return order


def undo(
    proc: int, mount: Mount, tell: Callable[[bool], None], ours: Collection[int] = (), detach: bool = False
) -> str:
    """Unmount one mount that has nothing below it. Returns the cause of a failure, or "". `ours`: the pids of children
    that hung."""
    try:
        tell(True)
        mountpoint.unmount(proc, mount, syscalls.MNT_DETACH if detach else 0, quiet=detach)
        return ""
    except mountpoint.Elsewhere as error:
        return str(error.strerror)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return ""  # not a mount point any more
        if error.errno != errno.EBUSY and not mount.fstype.startswith("fuse"):
            return error.strerror or str(error)
    tell(False)
    found = holders(proc, mount)
    users = [user for pid, user in found.items() if pid not in ours]
    if users:
        return f"in use by {', '.join(users[:5])}"
    if not found and not mount.fstype.startswith("fuse"):
        return "in use by the kernel (a loop device, swap or an export on it)"
    try:
        # A FUSE mount whose server is dead has nothing to lose by being detached (lxc/lxcfs#204); nor has one that
        # only a child of ours holds, which hangs at a mount that was in it and never comes back.
        tell(True)
        mountpoint.unmount(proc, mount, syscalls.MNT_DETACH, quiet=True)
        return ""
    except OSError as error:
        return error.strerror or str(error)


def holders(proc: int, mount: Mount) -> dict[int, str]:
    """The pids and names of processes that keep a mount busy: by an open file (mnt_id in fdinfo), a working or a root
    directory. `proc` is the host's /proc, open. Nothing on the mount itself is asked."""
    found = {}
    for pid in sorted(names(proc, ".")):
        if not pid.isdigit():
            continue
        try:
            paths = [os.readlink(f"{pid}/{name}", dir_fd=proc) for name in ("cwd", "root", "exe")]
            name = read(proc, f"{pid}/comm", 64).strip()
            busy = any(mountinfo.below(path, mount.point) for path in paths) or any(
                f"mnt_id:\t{mount.id}\n" in read(proc, f"{pid}/fdinfo/{fd}", 4096)
                for fd in names(proc, f"{pid}/fdinfo")
            )
        except OSError:
            continue
        if busy:
            found[int(pid)] = f"pid {pid} ({name})"
    return found


def names(directory: int, path: str) -> list[str]:
    """What is in a directory below an open one. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.listdir(fd)
    finally:
        os.close(fd)


def read(directory: int, path: str, limit: int) -> str:
    """The beginning of a small file below an open directory. Raises OSError."""
    fd = at(directory, path)
    try:
        return os.fsdecode(os.read(fd, limit))
    finally:
        os.close(fd)
