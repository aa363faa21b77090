"""Directories, sockets and symlinks that products declare; trees go without ever crossing a mount."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from leftovers import syscalls
from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb
from leftovers.mountinfo import below, served

__all__ = ["Files"]

TYPES = {
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFSOCK: "socket",
    stat.S_IFREG: "file",
    stat.S_IFIFO: "fifo",
}
RESOLVE = syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_BENEATH
SYMLINKS = 40  # as many as the kernel follows (path_resolution(7))
# A tree is looked through for anything but directories up to this many entries.
HOLLOW_LIMIT = 1000
NAMES = 200
# Directories open at once while a tree is removed.
DEPTH = 200


# What a file system has at its top for itself (e2fsck(8), mklost+found(8)).
KEPT = frozenset(("lost+found",))


class Files(Kind):
    """Facts of a file: path, type, target (of a symlink), mounted (it is a mount point), mounts (mount points below
    it), hollow (a directory tree with no file in it), entries (names in a directory, the first NAMES of them).

    type is "remote" for what lies on a network or FUSE file system: nothing else is known of that.
    What a product may put there: `only_hollow` limits the removal to directories, nothing that is a file goes;
    `contents` empties a directory that is a mount point, but for lost+found; `strict` refuses a path that leads through
    a symlink; `owners` ([first, last] of ids) leaves every directory of anybody else's as it is: who owns a directory
    may delete what is in it, and where a user can put things, those of others may have been put.
    """

    name: ClassVar[str] = "file"
    title: ClassVar[str] = "directories, sockets and files"
    needs: ClassVar[tuple[str, ...]] = ("mount",)
    settle: ClassVar[float] = 0.0
    limit: ClassVar[float] = 3600.0  # a disk with millions of files takes its time
    lasting: ClassVar[bool] = True

    def survey(self, look: Look) -> Listing:
        mounts = {mount.facts["point"]: mount.facts for mount in look.objects("mount") if mount.facts["host"]}
        points = list(mounts)
        objects = []
        faults = []
        for path in sorted(set(look.scope.directories)):
            if leads_to_remote(look.host, mounts, path):
                # Not even looked at: a server that is gone would hold us up for ever.
                facts = {"path": path, "type": "remote", "target": "", "mounted": path in points, "mounts": []}
                objects.append(Object("file", path, (path, "remote", 0), {**facts, "hollow": False, "entries": []}))
                continue
            try:
                status = os.lstat(look.host.path(path))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                # ENOTCONN: a FUSE mount whose server is dead stands there. The mount is listed; so is this.
                if error.errno != errno.ENOTCONN:
                    faults.append(f"{path}: {error.strerror}")
                continue
            objects.append(describe(look.host, path, status, points))
        return Listing(tuple(objects), tuple(faults))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        failed = {}
        # Inner ones first, so that a directory that holds another is seen as it will be.
        for obj in sorted(objects, key=lambda obj: obj.facts["path"], reverse=True):
            tree = Tree(deadline, bool(obj.facts.get("only_hollow")), obj.facts.get("owners"))
            if obj.facts["type"] == "remote":
                failed[obj.id] = "lies on a network or FUSE file system"
            elif obj.facts["mounted"] and not obj.facts.get("contents"):
                failed[obj.id] = "is a mount point: nothing is deleted behind it"
            elif cause := tree.remove(
                host.path(obj.facts["path"]), obj.facts["mounted"], strict=bool(obj.facts.get("strict"))
            ):
                failed[obj.id] = cause
        return failed


def remote(mounts: Mapping[str, Mapping[str, Any]], path: str) -> bool:
    """Whether a path lies on a file system that another process or machine serves."""
    while path not in mounts and path != "/":
        path = path.rpartition("/")[0] or "/"
    return served(str(mounts.get(path, {}).get("fstype", "")))


def leads_to_remote(host: Host, mounts: Mapping[str, Mapping[str, Any]], path: str) -> bool:
    """The same for where a path leads through symlinks, found out without touching such a file system."""
    done, todo = "", path.split("/")
    for _ in range(SYMLINKS):
        while todo:
            name, *todo = todo
            if name in ("", "."):
                continue
            done = done.rpartition("/")[0] if name == ".." else f"{done}/{name}"
            if remote(mounts, done or "/"):
                return True
            try:
                target = os.readlink(host.path(done)) if todo else ""
            except OSError:
                continue  # no symlink, or not there
            if target:
                done, todo = ("" if target.startswith("/") else done.rpartition("/")[0]), target.split("/") + todo
                break
        else:
            return False
    return True


def describe(host: Host, path: str, status: os.stat_result, points: Sequence[str]) -> Object:
    kind = TYPES.get(stat.S_IFMT(status.st_mode), "other")
    facts: dict[str, Any] = {
        "path": path,
        "type": kind,
        "target": os.readlink(host.path(path)) if kind == "symlink" else "",
        "mounted": path in points,
        "mounts": sorted(point for point in points if below(point, path) and point != path),
        "hollow": kind == "directory" and hollow(host.path(path)),
        "entries": entries_of(host.path(path)) if kind == "directory" else [],
    }
    # Not st_dev: the number of a disk may differ at the next boot, and this identity is to outlive it.
    return Object("file", path, (path, kind, status.st_ino), facts)


def entries_of(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in itertools.islice(entries, NAMES))
    except OSError:
        return []


def hollow(path: str) -> bool:
    """Whether a tree holds directories only (within HOLLOW_LIMIT entries)."""
    stack = [path]
    for _ in range(HOLLOW_LIMIT):
        if not stack:
            return True
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        return False
                    stack.append(entry.path)
        except OSError:
            return False
    return False


class Tree:
    """Removes a directory tree as root, where containers may have put anything.

    Every directory is entered by openat2 with RESOLVE_NO_XDEV, so the kernel itself refuses to cross a mount, a
    bind mount of the same file system included; no symlink is followed; what is a mount point cannot be unlinked
    (EBUSY). There is no window between a check and the act.
    """

    def __init__(
        self, deadline: Deadline, only_directories: bool = False, owners: Sequence[Sequence[int]] | None = None
    ) -> None:
        self.deadline = deadline
        self.only_directories = only_directories
        self.owners = owners
        self.causes: list[str] = []

    def remove(self, path: str, contents_only: bool = False, strict: bool = False) -> str:
        """Remove what stands at `path`; of a directory that is a mount point itself only what is in it.
        Returns the cause of a failure, or "". Unless `strict`, symlinks among the parents are the administrator's
        wish (/var/lib on another disk); elsewhere anybody may have put them there."""
        parent, name = os.path.split(path.rstrip("/"))
        try:
            fd = open_parent(parent, strict)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{path}: {error.strerror}"
        try:
            if not self.owned(os.fstat(fd)) and not self.owned(there := os.lstat(name, dir_fd=fd)):
                # Whose directory this is in may have been another's when it was listed.
                self.causes.append(f"{path}: is of uid {there.st_uid}, and left alone")
            elif contents_only:
                # RESOLVE_NO_XDEV counts from here, so this one mount is entered and none below it.
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                self.empty(os.open(name, flags, dir_fd=fd), path, KEPT)
            elif (inner := self.take(fd, name, path)) is not None:
                self.empty(inner, path)
                self.rmdir(fd, name, path)
        except FileNotFoundError:
            pass
        except OSError as error:
            self.fail(path, error)
        finally:
            os.close(fd)
        if not self.causes:
            return ""
        more = f" (and {len(self.causes) - 1} more)" if len(self.causes) > 1 else ""
        return self.causes[0] + more

    def owned(self, status: os.stat_result) -> bool:
        return self.owners is None or any(first <= status.st_uid <= last for first, last in self.owners)

    def empty(self, top: int, path: str, kept: frozenset[str] = frozenset()) -> None:
        """Remove all entries of an open directory but those of these names, and close it."""
        stack = [Frame(top, "", path, [name for name in names(top) if name not in kept])]
        moved = 0
        while stack:
            frame = stack[-1]
            if self.deadline.passed():
                self.causes.append(f"{frame.path}: out of time")
                for frame in stack:
                    os.close(frame.fd)
                return
            if not frame.names:
                os.close(frame.fd)
                stack.pop()
                if stack:
                    self.rmdir(stack[-1].fd, frame.name, frame.path)
                continue
            name = frame.names.pop()
            if len(stack) > DEPTH:
                # A container can nest directories deeper than we may have files open: hang them higher first.
                moved += 1
                with contextlib.suppress(OSError):
                    os.rename(name, f".leftovers-{moved}", src_dir_fd=frame.fd, dst_dir_fd=stack[0].fd)
                    stack[0].names.append(f".leftovers-{moved}")
                    continue
            inner = self.take(frame.fd, name, f"{frame.path}/{name}")
            if inner is not None:
                stack.append(Frame(inner, name, f"{frame.path}/{name}", names(inner)))

    def take(self, directory: int, name: str, path: str) -> int | None:
        """Unlink an entry; if it is a directory, return it open instead."""
        try:
            if not self.only_directories:
                try:
                    os.unlink(name, dir_fd=directory)
                    return None
                except IsADirectoryError:
                    pass
            fd = syscalls.openat2(directory, name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, RESOLVE)
            status = os.fstat(fd)
            if self.owned(status):
                return fd
            os.close(fd)
            self.causes.append(f"{path}: is of uid {status.st_uid}, and left alone")
            return None
        except FileNotFoundError:
            return None
        except OSError as error:
            self.fail(path, error)
            return None

    def rmdir(self, directory: int, name: str, path: str) -> None:
        try:
            os.rmdir(name, dir_fd=directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or not self.causes:  # else its cause was told further down
                self.fail(path, error)

    def fail(self, path: str, error: OSError) -> None:
        if error.errno in (errno.EXDEV, errno.EBUSY):
            self.causes.append(f"{path}: a mount is in the way: it is left alone")
        else:
            self.causes.append(f"{path}: {error.strerror}")


def open_parent(path: str, strict: bool) -> int:
    """A directory, only to reach what is in it. Raises OSError, ELOOP for a symlink on a strict way."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    if not strict:
        return os.open(path, flags)
    root = os.open("/", flags)
    try:
        return syscalls.openat2(root, path, flags, syscalls.RESOLVE_NO_SYMLINKS)
    finally:
        os.close(root)


@dataclass(slots=True)
class Frame:
    """A directory that is being emptied: open, its name in its parent, its path for messages, what is left in it."""

    fd: int
    name: str
    path: str
    names: list[str]


def names(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        return [entry.name for entry in entries]
