"""What is asked of a host about one path, besides what was listed: where it leads, whether it is there, whose it is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leftovers.daemons import dpkg
from leftovers.errors import Fault
from leftovers.host import Host
from leftovers.kinds.files import leads_to_remote

__all__ = ["HostWays", "Ways"]

LONGEST, PATH = 255, 4095  # NAME_MAX, PATH_MAX (limits.h)


class Ways:
    """Of no host: nothing is there, and nobody owns anything."""

    def real(self, path: str) -> str:
        """Where a path leads to through symlinks; "" where that is not asked, since a server might never answer."""
        return path

    def exists(self, path: str) -> bool:
        return False

    def owners(self, paths: Sequence[str]) -> Mapping[str, Sequence[str]]:
        """The packages that own each of these paths; a path that nobody owns is left out."""
        return {}


@dataclass
class HostWays(Ways):
    """Of a real host; `mounts` are the facts of its mounts, by mount point."""

    host: Host
    mounts: Mapping[str, Mapping[str, Any]]

    def real(self, path: str) -> str:
        if leads_to_remote(self.host, self.mounts, f"{path}/."):
            return ""
        try:
            return os.path.realpath(self.host.path(path)).removeprefix(self.host.root) or "/"
        except OSError:
            return ""  # not even root may look there (/proc/PID/root of a process that it may not trace)

    def exists(self, path: str) -> bool:
        if any(len(os.fsencode(name)) > LONGEST for name in path.split("/")) or len(os.fsencode(path)) > PATH:
            return False  # Host.exists takes what cannot be told for there
        return not leads_to_remote(self.host, self.mounts, path) and self.host.exists(path)

    def owners(self, paths: Sequence[str]) -> Mapping[str, Sequence[str]]:
        # dpkg-query takes what looks like a pattern for one; a name with a newline would be two lines of its answer.
        plain = [path for path in paths if path.startswith("/") and path.isprintable() and not set(path) & set("*?[\\")]
        if not plain or self.host.root:
            return {}
        try:
            return dpkg.owners(plain)
        except Fault:
            return {}
