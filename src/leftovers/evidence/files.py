"""The way to files that others wrote: nothing below a trusted directory is followed, run as a device, or waited for.

A container can write into some of the directories that we read, so a path there may be a symlink to /etc/shadow,
a FIFO that never answers, a device whose open alone does something (a watchdog), or a terabyte of holes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

from leftovers.errors import Unreadable
from leftovers.host import Host
from leftovers.syscalls import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

__all__ = ["Entry", "directories", "entries", "is_name", "note", "proper", "read"]

ENTRIES = 65536  # names read of one directory
FAULTS = 100  # lines that a reader says about what it could not read
MIB = 1024 * 1024

# A name in a directory, and whether it is itself a directory.
Entry = tuple[str, bool]


def is_name(name: object) -> bool:
    """Whether this is a name that a product could have given: one path component, printable, decodable."""
    return isinstance(name, str) and name not in ("", ".", "..") and len(name) < 256 and proper(name)


def proper(name: str) -> bool:
    """No slash, no control character, no surrogate (an undecodable byte, see Host.read)."""
    return not any(c == "/" or c < " " or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" for c in name)


def note(faults: list[str], what: str, cause: str) -> None:
    """Add one line to `faults`. A directory full of rubbish does not make a report without end."""
    if len(faults) < FAULTS:
        faults.append(str(Unreadable(what, cause)))
    elif len(faults) == FAULTS:
        faults.append(str(Unreadable(what, "and more that could not be read")))


@contextmanager
def reached(host: Host, base: str, below: str) -> Iterator[int]:
    """A path-only descriptor of `below` in the directory `base`; only `base` itself may be reached by symlinks.

    Raises OSError: FileNotFoundError when there is none, ELOOP for a symlink in the way.
    """
    top = os.open(host.path(base), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = openat2(top, below or ".", os.O_PATH, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
    finally:
        os.close(top)
    try:
        yield fd
    finally:
        os.close(fd)


def reopen(fd: int, path: str, flags: int) -> int:
    """Open what a path-only descriptor stands for, now that its type is known. Raises Unreadable."""
    try:
        return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:  # not as FileNotFoundError: the file is there, it is /proc that is not
        raise Unreadable(path, error.strerror or str(error)) from error


def read(host: Host, base: str, below: str, limit: int) -> bytes | None:
    """The whole of a regular file; None when it is absent. Raises Unreadable, also for more than `limit` bytes.

    A file is never cut: half a YAML text can be valid, and mean something else.
    """
    path = f"{base.rstrip('/')}/{below}"
    try:
        with reached(host, base, below) as fd:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Unreadable(path, "not a regular file")
            return contents(fd, path, limit)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unreadable(path, error.strerror or str(error)) from error


def contents(fd: int, path: str, limit: int) -> bytes:
    """What a path-only descriptor of a regular file holds. Raises Unreadable, OSError."""
    with open(reopen(fd, path, os.O_RDONLY), "rb", buffering=0) as file:
        chunks: list[bytes] = []
        size = 0
        while chunk := file.read(MIB):
            size += len(chunk)
            if size > limit:
                raise Unreadable(path, f"larger than {limit // MIB} MiB")
            chunks.append(chunk)
    return b"".join(chunks)


def entries(host: Host, base: str, below: str, faults: list[str]) -> list[Entry]:
    """Sorted entries of a directory that have a proper name; none of an absent one. Faults go to `faults`."""
    path = f"{base}/{below}" if below else base
    found: list[Entry] = []
    try:
        with reached(host, base, below) as fd:
            directory = reopen(fd, path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with os.scandir(directory) as scan:
                for entry in islice(scan, ENTRIES):
                    if proper(entry.name):
                        found.append((entry.name, entry.is_dir(follow_symlinks=False)))
                    else:
                        note(faults, path, f"has an entry with an impossible name {ascii(entry.name)[:80]}")
                if next(scan, None) is not None:
                    note(faults, path, f"more than {ENTRIES} entries")
        finally:
            os.close(directory)
    except FileNotFoundError:
        return []
    except Unreadable as error:
        note(faults, error.what, error.cause)
    except OSError as error:
        note(faults, path, error.strerror or str(error))
    return sorted(found)


def directories(host: Host, base: str, below: str, faults: list[str]) -> list[str]:
    """Names of the real directories in a directory: a symlink to one is none."""
    return [name for name, is_directory in entries(host, base, below, faults) if is_directory]
