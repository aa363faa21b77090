"""The one way to run another program: absolute path, fixed environment, no stdin, a deadline."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from leftovers.errors import ToolFault, ToolMissing, ToolTimeout

__all__ = ["Completed", "ENVIRONMENT", "SNAP", "find", "run"]

# Where a Debian system keeps its tools. PATH is never consulted: it comes from outside.
DIRECTORIES = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
# Where we run out of a snap (snap/): that very revision. It may carry what the host has not.
SNAP = (re.match(r"(?:/var/lib/snapd)?/snap/[^/]+/[^/]+(?=/)", os.path.abspath(__file__)) or [""])[0]
ENVIRONMENT = {"PATH": ":".join(DIRECTORIES), "LC_ALL": "C.UTF-8", "HOME": "/root", "SYSTEMD_PAGER": ""}


@dataclass(frozen=True, slots=True)
class Completed:
    """How a program ended and what it said, as text (undecodable bytes as surrogates)."""

    code: int
    out: str
    err: str


def find(name: str) -> str | None:
    """The absolute path of a system tool, or None when it is not installed. What the host has comes before what our
    snap carries: that fits its kernel, and its libraries."""
    for top in ("", SNAP) if SNAP else ("",):
        for directory in DIRECTORIES:
            path = f"{top}{directory}/{name}"
            if os.access(path, os.X_OK):
                return path
    return None


def environment_of(path: str) -> dict[str, str]:
    """What a program is given; one that our snap carries has its libraries, and iptables its extensions, there."""
    if not SNAP or not path.startswith(f"{SNAP}/"):
        return ENVIRONMENT
    libraries = f"{SNAP}/usr/lib/{sys.implementation._multiarch}"
    return {**ENVIRONMENT, "LD_LIBRARY_PATH": libraries, "XTABLES_LIBDIR": f"{libraries}/xtables"}


def run(
    argv: Sequence[str],
    *,
    stdin: str = "",
    timeout: float = 30.0,
    success: Sequence[int] = (0,),
    package: str = "",
    suspended: bool = False,
) -> Completed:
    """Run a system tool and return what it said.

    argv[0] is a bare tool name, looked up in the system directories. `stdin` is handed to it. It gets
    `timeout` seconds and is then killed with its whole process group. `package` names what to install when it
    is missing. `suspended` keeps our own hooks out of a package manager that is run.
    Raises ToolMissing, ToolTimeout, and ToolFault for an exit status that is not in `success`.
    """
    path = find(argv[0])
    if path is None:
        raise ToolMissing(argv[0], "not installed", f"apt install {package or argv[0]}")
    process = subprocess.Popen(
        [path, *argv[1:]],
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environment_of(path), "LEFTOVERS_SUSPEND": "1"} if suspended else environment_of(path),
        cwd="/",
        text=True,
        errors="surrogateescape",
        start_new_session=True,
    )
    try:
        out, err = process.communicate(stdin or None, timeout=timeout)
    except subprocess.TimeoutExpired:
        kill_group(process)
        raise ToolTimeout(shlex.join(argv), f"did not end within {timeout:.0f} s") from None
    except BaseException:
        kill_group(process)
        raise
    if process.returncode not in success:
        said = next((line.strip() for line in err.splitlines() if line.strip()), f"exit status {process.returncode}")
        raise ToolFault(shlex.join(argv)[:200], said)
    return Completed(process.returncode, out, err)


def kill_group(process: subprocess.Popen[str]) -> None:
    """SIGKILL to a program started by run() and all it started itself; reaps it without waiting for ever."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    try:
        process.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        pass  # in uninterruptible sleep: the kernel reaps it when it can
