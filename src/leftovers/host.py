"""Where the machine is: every path that the code reads goes through a Host.

On a real host the root is "/"; a test points it at a tree of recorded files. Only files are under the root:
netlink, mounts and signals are always those of the namespaces that we run in.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from leftovers.errors import Unreadable

__all__ = ["Host"]

# Files of /proc, /sys and of products are read up to this many bytes: a hostile one cannot eat the memory.
LIMIT = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Host:
    """A machine whose file system stands at `root` (no trailing slash; "" is the real one)."""

    root: str = ""

    def path(self, path: str) -> str:
        """Where an absolute path of the host is to be found by us."""
        return self.root + path

    def read_bytes(self, path: str, limit: int = LIMIT) -> bytes:
        """The first `limit` bytes of a file. Raises OSError."""
        with open(self.path(path), "rb", buffering=0) as file:
            chunks: list[bytes] = []
            size = 0
            while size < limit and (chunk := file.read(min(1 << 20, limit - size))):
                chunks.append(chunk)
                size += len(chunk)
            return b"".join(chunks)

    def read(self, path: str, limit: int = LIMIT) -> str:
        """The same as text; undecodable bytes become surrogates, as os.fsdecode makes them. Raises OSError."""
        return os.fsdecode(self.read_bytes(path, limit))

    def listdir(self, path: str) -> list[str]:
        """Sorted names in a directory; an absent one is empty. Raises Unreadable for any other error."""
        try:
            return sorted(os.listdir(self.path(path)))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise Unreadable(path, error.strerror or str(error)) from error

    def exists(self, path: str) -> bool:
        """Whether a path is there, itself: a symlink is not followed, a dead FUSE mount counts as there."""
        try:
            os.lstat(self.path(path))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # ENOTCONN of a FUSE mount whose server died, EACCES: something is there
        return True

    def boot_id(self) -> str:
        """The kernel's name for this boot: what it tells apart does not survive a reboot (random(4))."""
        try:
            return self.read("/proc/sys/kernel/random/boot_id").strip()
        except OSError as error:
            raise Unreadable("/proc/sys/kernel/random/boot_id", error.strerror or str(error)) from error
