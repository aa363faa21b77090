"""Mounts: listed in every mount namespace that stands on the host's root; undone without undoing anybody else's."""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

from leftovers import mountinfo, syscalls
from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.kinds.processes import namespace
from leftovers.model import Deadline, Listing, Object, Verb
from leftovers.mountinfo import Mount

__all__ = ["Mounts"]

EBUSY, EINVAL, ENOENT = 16, 22, 2


class Mounts(Kind):
    """Facts of a mount:

    id, parent, point, root, majmin, fstype, source, options, shared, master (see mountinfo.Mount), ns (inode of
    its mount namespace), pid (a process through which that namespace is reached, 0 for ours), host (in ours),
    configured (the fstab or unit file that an administrator made for it, "" if none), sees (inode numbers are not
    stable for these: the host path where the mounted directory is to be seen otherwise, "" if nowhere).
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
        objects = list(describe(host, own, home, 0))
        top = mountinfo.covering(own, "/")
        done = {home}
        for process in look.objects("process"):
            ns, pid = process.facts["mntns"], process.facts["pid"]
            # A namespace with another root is a container's own world and ends with its processes. Those on our
            # root (services with PrivateTmp=, `unshare -m`) hold copies of what was mounted here.
            if ns in done or not top or process.facts.get("mount_root") != [top.majmin, top.root]:
                continue
            done.add(ns)
            try:
                mounts = mountinfo.parse(host.read_bytes(f"/proc/{pid}/mountinfo"))
            except OSError:
                continue  # it has ended
            objects += describe(host, mounts, ns, pid)
        return Listing(tuple(objects))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        """Make what is to go private, then unmount it leaf by leaf, in a child process that may hang and be left."""
        failed: dict[str, str] = {}
        groups: dict[int, list[Object]] = {}
        for obj in objects:
            groups.setdefault(obj.facts["ns"], []).append(obj)
        # Our own namespace first: what propagates from it need not be done again in the others.
        for group in sorted(groups.values(), key=lambda group: not group[0].facts["host"]):
            failed.update(in_child(host, group, deadline))
        return failed


def describe(host: Host, mounts: Sequence[Mount], ns: int, pid: int) -> Iterator[Object]:
    fstab = fstab_points(host)
    seen: set[str] = set()
    for mount in mounts:
        key = mount.point if not pid else f"{ns}{mount.point}"
        if key in seen:
            key = f"{key}#{mount.id}"
        seen.add(key)
        facts = {name: getattr(mount, name) for name in Mount.__slots__}
        facts.update(ns=ns, pid=pid, host=not pid, configured=configured(host, fstab, mount.point))
        yield Object("mount", key, (ns, mount.id, mount.majmin, mount.root, mount.point), facts)


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


def in_child(host: Host, group: Sequence[Object], deadline: Deadline) -> dict[str, str]:
    """Unmount one namespace's mounts in a child: it can enter that namespace, and when a dead server holds an
    unmount up for ever, only the child hangs.

    The child writes a line of JSON for each mount that it is done with: [object id, cause or ""].
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

            def report(obj: Object, cause: str) -> None:
                os.write(writer, json.dumps([obj.id, cause]).encode() + b"\n")

            unmount(host, group, report)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    said = collect(reader, deadline)
    os.close(reader)
    if not reaped(child, deadline.within(1.0)):
        os.kill(child, signal.SIGKILL)
        reaped(child, Deadline(0.5))
    cause = "the unmount did not come back in time: the file system's server may be dead"
    return {obj.id: said.get(obj.id, cause) for obj in group if said.get(obj.id, cause)}


def collect(reader: int, deadline: Deadline) -> dict[str, str]:
    """What the child said until it ended or the time was over."""
    text = b""
    poller = select.poll()
    poller.register(reader, select.POLLIN | select.POLLHUP)
    while poller.poll(deadline.left() * 1000):
        chunk = os.read(reader, 1 << 16)
        if not chunk:
            break
        text += chunk
    return dict(json.loads(line) for line in text.split(b"\n")[:-1])


def reaped(child: int, deadline: Deadline) -> bool:
    fd = os.pidfd_open(child)
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        if not poller.poll(deadline.left() * 1000):
            return False
    finally:
        os.close(fd)
    os.waitpid(child, 0)
    return True


def unmount(host: Host, group: Sequence[Object], report: Callable[[Object, str], None]) -> None:
    """In the child: enter the namespace of these mounts and undo them, children before parents.

    1. what is not there any more with the same identity is left out;
    2. a mount below which something else is mounted that stays, stays too;
    3. every mount from which one is unmounted is made private, if that one's peers are not to go as well:
       otherwise the kernel carries the unmount over to them (mount_namespaces(7), "propagation"), and that may be
       the tree that an administrator bound here;
    4. then umount2, and what is busy is left mounted: who uses it is the cause.
    """
    if not group[0].facts["host"]:
        fd = os.open(host.path(f"/proc/{group[0].facts['pid']}/ns/mnt"), os.O_RDONLY)
        if os.fstat(fd).st_ino != group[0].facts["ns"]:
            return
        syscalls.setns(fd, syscalls.CLONE_NEWNS)
    present = {mount.id: mount for mount in mountinfo.parse(host.read_bytes("/proc/thread-self/mountinfo"))}
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
                make_private(parent, present)
                private.add(parent.id)
            except OSError as error:
                if any(peer.shared == parent.shared for peer in present.values() if peer.id not in going):
                    report(obj, f"cannot make {parent.point} private: {error.strerror}")
                    continue
        cause = undo(host, mount)
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


def make_private(mount: Mount, present: Mapping[int, Mount]) -> None:
    """Take one mount out of its peer group. Raises OSError also when something is mounted over its root, since
    the path would then lead to that."""
    if any(other.point == mount.point and other.parent == mount.id for other in present.values()):
        raise OSError(EBUSY, "something is mounted over it", mount.point)
    syscalls.mount_propagation(mount.point, syscalls.MS_PRIVATE)


def undo(host: Host, mount: Mount) -> str:
    """Unmount one mount that has nothing below it. Returns the cause of a failure, or ""."""
    try:
        syscalls.umount2(mount.point, syscalls.UMOUNT_NOFOLLOW)
        return ""
    except OSError as error:
        if error.errno in (EINVAL, ENOENT):
            return ""  # not a mount point any more
        if error.errno != EBUSY and not mount.fstype.startswith("fuse"):
            return error.strerror or str(error)
    users = holders(host, mount)
    if users:
        return f"in use by {', '.join(users[:5])}"
    if not mount.fstype.startswith("fuse"):
        return "in use by the kernel (a loop device, swap or an export on it)"
    try:
        # A FUSE mount whose server is dead has nothing to lose by being detached (lxc/lxcfs#204).
        syscalls.umount2(mount.point, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        return ""
    except OSError as error:
        return error.strerror or str(error)


def holders(host: Host, mount: Mount) -> list[str]:
    """Processes that keep a mount busy: by an open file (mnt_id in fdinfo), a working or a root directory."""
    found = []
    for pid in host.listdir("/proc"):
        if not pid.isdigit():
            continue
        try:
            paths = [os.readlink(host.path(f"/proc/{pid}/{name}")) for name in ("cwd", "root", "exe")]
            name = host.read(f"/proc/{pid}/comm", 64).strip()
            busy = any(mountinfo.below(path, mount.point) for path in paths) or any(
                f"mnt_id:\t{mount.id}\n" in host.read(f"/proc/{pid}/fdinfo/{fd}", 4096)
                for fd in host.listdir(f"/proc/{pid}/fdinfo")
            )
        except (OSError, ValueError):
            continue
        if busy:
            found.append(f"pid {pid} ({name})")
    return found
