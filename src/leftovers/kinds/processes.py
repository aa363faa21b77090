"""Processes: who runs, from which file, in which cgroup and namespaces; ended through pidfds."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Mapping, Sequence
from typing import ClassVar

from leftovers import mountinfo
from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb

__all__ = ["Processes"]

# What a process may need to end by itself once it is asked to. Those of a container are not asked: the init of
# a pid namespace ignores SIGTERM that it did not ask for (pid_namespaces(7)).
GRACE = 1.0
NAMESPACES = ("pid", "mnt", "net")
# Bytes of arguments that are read of a process of the host, and of one in a container.
ARGUMENTS, NESTED_ARGUMENTS = 65536, 4096
# Processes that are signalled together: a pidfd is an open file, and a thousand may be all that we may have.
CHUNK = 256


class Processes(Kind):
    """Facts of a process:

    pid, ppid, start (clock ticks since boot), exe (as the kernel says it, with " (deleted)"), argv, uid,
    cgroup (path in cgroup2, "" if none), pidns, mntns, netns (inodes), nested (in another pid namespace than
    ours), our_net, our_mnt (in the same network or mount namespace as we), self (this process or one of its
    ancestors).
    The first process of each foreign mount namespace also has mount_root (what is mounted at its "/": [major:minor,
    path in that file system]), mount_devices (major:minor of all that is mounted there) and mount_points
    ([major:minor, mount point] of what is mounted in our namespace too): how a container's processes are tied to its
    root file system and to what it was given.
    `abrupt`, when a product put it there, means that it is not asked first. `group`, likewise, is the cgroup of its
    container, as [path, directory, inode]: all in it are ended at once, also who is being forked.
    """

    name: ClassVar[str] = "process"
    title: ClassVar[str] = "processes"
    settle: ClassVar[float] = 5.0

    def survey(self, look: Look) -> Listing:
        import psutil

        host = look.host
        psutil.PROCFS_PATH = host.path("/proc")
        home = {name: namespace(host, "self", name) for name in NAMESPACES}
        seen_mntns = {home["mnt"]}
        above = ancestors(host)
        ours = {mount.majmin for mount in mountinfo.parse(host.read_bytes("/proc/self/mountinfo"))}
        objects = []
        for process in psutil.process_iter(["pid", "ppid", "uids"]):
            info = process.info
            pid = info["pid"]
            try:
                where = living(host, pid)
                exe = os.readlink(host.path(f"/proc/{where}/exe"))
                start = start_time(host, pid)
                inodes = {name: namespace(host, where, name) for name in NAMESPACES}
            except OSError:
                continue  # a kernel thread or a zombie has no file; others are gone by now
            nested = inodes["pid"] != home["pid"]
            facts: dict[str, object] = {
                "pid": pid,
                "ppid": info["ppid"] or 0,
                "start": start,
                "exe": exe,
                "argv": arguments_of(host, where, NESTED_ARGUMENTS if nested else ARGUMENTS),
                "uid": info["uids"].real if info["uids"] else -1,
                "cgroup": cgroup_of(host, pid),
                "pidns": inodes["pid"],
                "mntns": inodes["mnt"],
                "netns": inodes["net"],
                "nested": nested,
                "our_net": inodes["net"] == home["net"],
                "our_mnt": inodes["mnt"] == home["mnt"],
                "self": pid in above,
            }
            if inodes["mnt"] not in seen_mntns:
                seen_mntns.add(inodes["mnt"])
                facts.update(mounts_of(host, where, ours))
            objects.append(Object("process", str(pid), (pid, start), facts))
        return Listing(tuple(objects))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        """SIGTERM to those of the host, SIGKILL to those in containers, and to all that still live after GRACE."""
        failed: dict[str, str] = {}
        kill_groups(host, objects)
        todo = list(objects)
        while todo:
            failed.update(end(host, todo[:CHUNK], deadline))
            todo = todo[CHUNK:]
        return failed


def kill_groups(host: Host, objects: Sequence[Object]) -> None:
    """SIGKILL to all in and below each of these processes' own cgroups (cgroup.kill, Linux 5.14). Who forks faster than
    he is listed ends with the rest. Each process is signalled by itself as well: older kernels have no such file."""
    home = cgroup_of(host, os.getpid()) + "/"
    groups: dict[tuple[str, str, int], bool] = {}
    for obj in objects:
        if obj.facts.get("group"):
            path, directory, inode = group = tuple(obj.facts["group"])
            safe = not obj.facts.get("self") and obj.facts.get("pid") != 1 and not home.startswith(f"{path}/")
            groups[group] = groups.get(group, True) and safe
    for (_, directory, inode), safe in groups.items():
        if not safe:
            continue
        with contextlib.suppress(OSError):
            fd = os.open(host.path(directory), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if os.fstat(fd).st_ino == inode:
                    kill = os.open("cgroup.kill", os.O_WRONLY | os.O_CLOEXEC, dir_fd=fd)
                    try:
                        os.write(kill, b"1")
                    finally:
                        os.close(kill)
            finally:
                os.close(fd)


def end(host: Host, objects: Sequence[Object], deadline: Deadline) -> dict[str, str]:
    """End these processes; returns the causes of failures."""
    failed: dict[str, str] = {}
    fds: dict[int, Object] = {}
    try:
        for obj in objects:
            if obj.facts["self"] or obj.facts["pid"] == 1:
                failed[obj.id] = "is this command's own process or an ancestor of it"
                continue
            try:
                fd = hold(host, obj)
            except OSError as error:
                failed[obj.id] = error.strerror or str(error)
                continue
            if fd is not None:
                fds[fd] = obj
        for fd, obj in fds.items():
            abrupt = obj.facts["nested"] or obj.facts.get("abrupt")
            failed.update(send(fd, obj, signal.SIGKILL if abrupt else signal.SIGTERM))
        alive = wait(set(fds), deadline.within(GRACE))
        for fd in alive:
            failed.update(send(fd, fds[fd], signal.SIGKILL))
        wait(alive, deadline)
    finally:
        for fd in fds:
            os.close(fd)
    return failed


def hold(host: Host, obj: Object) -> int | None:
    """A pidfd of the process that was listed, or None if it is gone (or its pid is another's by now).

    The start time is read after the pidfd is open: what is then signalled is what was looked at (pidfd_open(2)).
    Raises OSError for any other reason than that it is gone.
    """
    pid = obj.facts["pid"]
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        same = start_time(host, pid) == obj.facts["start"]
    except OSError:
        same = False
    if not same:
        os.close(fd)
        return None
    return fd


def send(fd: int, obj: Object, number: signal.Signals) -> dict[str, str]:
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        pass
    except OSError as error:
        return {obj.id: error.strerror or str(error)}
    return {}


def wait(fds: set[int], deadline: Deadline) -> set[int]:
    """Wait until all have ended; returns the pidfds of those that have not by the deadline."""
    alive = set(fds)
    poller = select.poll()
    for fd in alive:
        poller.register(fd, select.POLLIN)
    while alive:
        for fd, _ in poller.poll(deadline.left() * 1000):
            poller.unregister(fd)
            alive.discard(fd)
        if deadline.passed():
            break
    return alive


def start_time(host: Host, pid: int | str) -> int:
    """Field 22 of /proc/PID/stat (proc_pid_stat(5)): with the pid it names a process for a whole boot.

    Raises OSError when there is none.
    """
    stat = host.read_bytes(f"/proc/{pid}/stat", 4096)
    # The second field is the name in parentheses and may itself hold parentheses and blanks.
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def namespace(host: Host, pid: int | str, name: str) -> int:
    """The inode that names a process' namespace (namespaces(7)). Raises OSError."""
    link = os.readlink(host.path(f"/proc/{pid}/ns/{name}"))
    return int(link.partition("[")[2].rstrip("]"))


def cgroup_of(host: Host, pid: int) -> str:
    """A process' path in the cgroup2 hierarchy; "" without one."""
    try:
        text = host.read(f"/proc/{pid}/cgroup", 65536)
    except OSError:
        return ""
    for line in text.split("\n"):
        if line.startswith("0::"):
            return line[3:].removesuffix(" (deleted)")
    return ""


def living(host: Host, pid: int) -> str:
    """Where in /proc a process can be looked at: at itself, or at one of its threads when the first has ended and
    others go on (it is then a zombie that lives). Raises OSError when there is none."""
    try:
        os.readlink(host.path(f"/proc/{pid}/exe"))
        return str(pid)
    except FileNotFoundError:
        for thread in os.listdir(host.path(f"/proc/{pid}/task")):
            try:
                os.readlink(host.path(f"/proc/{pid}/task/{thread}/exe"))
                return f"{pid}/task/{thread}"
            except OSError:
                continue
        raise


def arguments_of(host: Host, where: str, limit: int) -> list[str]:
    """A process' arguments, the first `limit` bytes. Not psutil's: it cuts a title that a process gave itself at its
    blanks, and a container may give itself megabytes of them."""
    try:
        text = host.read_bytes(f"/proc/{where}/cmdline", limit)
    except OSError:
        return []
    return [os.fsdecode(argument) for argument in text.rstrip(b"\0").split(b"\0")] if text else []


def ancestors(host: Host) -> set[int]:
    """Our own pid and those of the processes that wait for us: a shell, sudo, dpkg, snapd."""
    pids = set()
    pid = os.getpid()
    while pid > 0 and pid not in pids:
        pids.add(pid)
        try:
            stat = host.read_bytes(f"/proc/{pid}/stat", 4096)
        except OSError:
            break
        pid = int(stat[stat.rindex(b")") + 2 :].split()[1])
    return pids


def mounts_of(host: Host, where: str, ours: set[str]) -> dict[str, object]:
    try:
        mounts = mountinfo.parse(host.read_bytes(f"/proc/{where}/mountinfo"))
    except OSError:
        return {}
    root = mountinfo.covering(mounts, "/")
    return {
        "mount_root": [root.majmin, root.root] if root else [],
        "mount_devices": sorted({mount.majmin for mount in mounts}),
        "mount_points": [[mount.majmin, mount.point] for mount in mounts if mount.majmin in ours],
    }
