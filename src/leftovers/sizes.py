"""How much there is below some directories: for a person who is to decide whether that may go. A walk with an end."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable

from leftovers import syscalls
from leftovers.model import Deadline

__all__ = ["ENTRIES", "SECONDS", "of", "words"]

# A directory with more in it, or on a slower disk, is "more than" what was seen by then.
ENTRIES = 200_000
SECONDS = 2.0
DEPTH = 200
FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
RESOLVE = syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_BENEATH
UNITS = ("B", "kB", "MB", "GB", "TB")


def words(paths: Iterable[str]) -> str:
    """The same for people: "1.2 GB", "more than 3 GB"; "" if there is nothing to be seen."""
    size, whole = of(paths)
    if not size:
        return ""
    number, unit = float(size), 0
    while number >= 999.5 and unit < len(UNITS) - 1:
        number, unit = number / 1000, unit + 1
    text = f"{number:.1f}" if number < 9.95 and unit else f"{number:.0f}"
    return f"{'' if whole else 'more than '}{text} {UNITS[unit]}"


def of(paths: Iterable[str], entries: int = ENTRIES, seconds: float = SECONDS) -> tuple[int, bool]:
    """Bytes on the disk below these directories, and whether that is all. What is mounted below one is not counted,
    nor looked at: each directory is opened so that the kernel itself refuses to cross a mount. A file with several
    names counts once."""
    deadline = Deadline(seconds)
    total, left, whole = 0, entries, True
    seen: set[tuple[int, int]] = set()
    for path in paths:
        # Open directories, each with the names in it that are still to be looked at.
        stack: list[tuple[int, list[str]]] = []
        try:
            push(stack, os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
            while stack:
                directory, names = stack[-1]
                if not names:
                    os.close(stack.pop()[0])
                    continue
                left -= 1
                if left < 0 or deadline.passed():
                    return total, False
                name = names.pop()
                with contextlib.suppress(OSError):  # it vanished, or cannot be read
                    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        whole &= len(stack) < DEPTH
                        if len(stack) < DEPTH:
                            push(stack, syscalls.openat2(directory, name, FLAGS, RESOLVE))
                    elif status.st_nlink == 1 or (status.st_dev, status.st_ino) not in seen:
                        seen.add((status.st_dev, status.st_ino))
                        total += status.st_blocks * 512
        except OSError:
            continue
        finally:
            for directory, _ in stack:
                os.close(directory)
    return total, whole


def push(stack: list[tuple[int, list[str]]], directory: int) -> None:
    stack.append((directory, []))
    stack[-1] = (directory, os.listdir(directory))
