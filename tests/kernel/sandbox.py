"""A machine of its own for one test: private mount, net, pid, ipc, uts and cgroup namespaces.

`@private` runs the test's body as pid 1 of new namespaces, in a fork: real links, mounts, rules, cgroups and
processes, and none of them the machine's. As on a systemd host "/" is shared (within the sandbox only),
/proc, /sys and the cgroup2 tree are fresh. When the body returns, the kernel takes all of it away.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000


def sh(*argv: str, stdin: str | None = None, check: bool = True) -> str:
    """Run a tool in the sandbox and return its stdout; the test fails with its stderr."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(argv)}: {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def cgroup2() -> str:
    """Where the machine's cgroup2 hierarchy is mounted."""
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            if right.split()[0] == "cgroup2":
                return left.split()[4]
    raise AssertionError("this machine has no cgroup2 mounted: kernel tests need one")


def libc(call: str, *args: Any) -> None:
    if getattr(LIBC, call)(*args) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def enter() -> None:
    """Make the calling process (already pid 1 of a new pid namespace) at home in its sandbox."""
    libc("mount", None, b"/", None, ctypes.c_ulong(0x4000 | 1 << 18), None)  # rprivate: nothing leaks out
    libc("mount", None, b"/", None, ctypes.c_ulong(0x4000 | 1 << 20), None)  # rshared, as systemd has it
    sh("mount", "-t", "proc", "proc", "/proc")
    sh("mount", "-t", "sysfs", "sysfs", "/sys")
    sh("mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    for directory in ("/run", "/srv", "/mnt"):
        sh("mount", "-t", "tmpfs", "tmpfs", directory)
    sh("ip", "link", "set", "lo", "up")


def private(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test function in a sandbox. Needs root. Its fixtures are made outside, before the fork."""

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        group = f"{cgroup2()}/leftovers-test-{os.getpid()}-{test.__name__}"[:240]
        os.makedirs(group, exist_ok=True)
        with tempfile.TemporaryFile("w+") as report:
            outer = os.fork()
            if outer == 0:
                status = 99
                try:
                    with open(f"{group}/cgroup.procs", "w") as file:
                        file.write(str(os.getpid()))
                    flags = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
                    libc("unshare", flags)
                    inner = os.fork()
                    if inner == 0:
                        try:
                            enter()
                            test(*args, **kwargs)
                            status = 0
                        except BaseException:
                            traceback.print_exc(file=report)
                            report.flush()
                            status = 1
                        finally:
                            sys.stdout.flush()
                            os._exit(status)
                    status = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
                except BaseException:
                    traceback.print_exc(file=report)
                    report.flush()
                finally:
                    os._exit(status if 0 <= status < 256 else 98)
            status = os.waitstatus_to_exitcode(os.waitpid(outer, 0)[1])
            for path, _, _ in os.walk(group, topdown=False):
                try:
                    os.rmdir(path)
                except OSError:
                    pass
            report.seek(0)
            said = report.read()
            assert status == 0, f"in the sandbox: exit {status}\n{said}"

    return wrapper
