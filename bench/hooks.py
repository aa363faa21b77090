"""What our hooks cost a transaction that concerns no known product, beside a hook that does nothing.

dpkg runs its hooks six to eight times in a run of apt. Here a shell called `dpkg` does, with the arguments that apt
gives to dpkg, for the hooks read what they need from there.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

HOOKS = Path(__file__).resolve().parents[1] / "hooks"
REPEATS = 5
TIMES = 40
LIST = "VERSION 3\nAPT::Architecture=amd64\n" + "A::B=c\n" * 300 + "\n"
PACKAGES = "".join(f"library{n} 1.0 amd64 same < 1.1 amd64 same /var/cache/apt/archives/l{n}.deb\n" for n in range(50))

# name, DPKG_HOOK_ACTION, the command for a hook (%s: its path), the arguments of dpkg
CASES = (
    ("dpkg pre-invoke, configure", "configure", "%s/dpkg-step pre", "--configure --pending"),
    ("dpkg pre-invoke, unpack under apt", "unpack", "%s/dpkg-step pre", "--unpack /var/cache/apt/archives/less.deb"),
    ("dpkg pre-invoke, remove", "remove", "%s/dpkg-step pre", "--no-triggers --remove less nano vim"),
    ("dpkg post-invoke, remove", "remove", "%s/dpkg-step post", "--no-triggers --remove less nano vim"),
    ("dpkg pre-invoke, purge --pending", "purge", "%s/dpkg-step pre", "--purge --pending"),
    ("apt Pre-Install-Pkgs, 50 packages", "", "%s/apt-packages", ""),
    ("apt Post-Invoke", "", "%s/apt-done", ""),
)


def cost() -> list[dict[str, Any]]:
    """Milliseconds for one call of each hook and of an empty one, and their ratio."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "dpkg").symlink_to("/bin/sh")
        (directory / "list").write_text(LIST + PACKAGES)
        empty = directory / "empty"
        empty.mkdir()
        for hook in ("dpkg-step", "apt-packages", "apt-done"):
            (empty / hook).write_text("#!/bin/sh\nexit 0\n")
            (empty / hook).chmod(0o755)
        for title, action, command, arguments in CASES:
            times = {}
            for way, path in (("ours", HOOKS), ("empty", empty)):
                seconds = [run(directory, command % path, action, arguments) for _ in range(REPEATS + 1)]
                times[way] = statistics.median(seconds[1:]) / TIMES * 1000
            rows.append({"name": title, **times, "ratio": times["ours"] / times["empty"]})
    return rows


def run(directory: Path, command: str, action: str, arguments: str) -> float:
    """Seconds for TIMES calls of a hook, each as dpkg makes it: through `sh -c`."""
    hook = command.split()[0]
    line = f"if [ -x {hook} ]; then {command} || [ $? -ne 10 ]; fi"
    loop = f'n={TIMES}; while [ $n -gt 0 ]; do n=$((n-1)); sh -c "$LINE" 9<"$LIST"; done'
    # sh -c SCRIPT $0 $1 ...: what a dpkg has in its arguments.
    argv = [str(directory / "dpkg"), "-c", loop, "dpkg", *arguments.split()]
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LINE": line, "LIST": str(directory / "list"),
        "DPKG_HOOK_ACTION": action, "DPKG_FRONTEND_LOCKED": "true", "APT_HOOK_INFO_FD": "9",
    }  # fmt: skip
    began = time.perf_counter()
    subprocess.run(argv, env={**os.environ, **environment}, check=True)
    return time.perf_counter() - began
