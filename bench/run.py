"""How long our batch removals take, beside the ways of published clean-up scripts and beside the kernel's floor.

All ways are measured in the same run, in private namespaces (tests/kernel/sandbox.py), each on its own freshly made
objects, and each is timed until the last object is gone. What counts are the ratios: the seconds depend on the machine.

    rival   one program per link (`ip link delete`), mount (`umount`) or cgroup (`rmdir`, after a `kill -9` of what is
            in its cgroup.procs); for processes what k3s-killall.sh does: one `ps` per process to find its children,
            then `kill -9`
    floor   the cheapest way that the kernel offers: one link group with `ip -batch`, one umount2(MNT_DETACH) of the
            top, one cgroup.kill, a bare kill(2) per process. It checks nothing: no identity, no mount propagation.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests/kernel")]

from hooks import cost as hook_cost  # noqa: E402 - beside this file
from sandbox import private, sh  # noqa: E402
from whose import cost as whose_cost  # noqa: E402

from leftovers import syscalls  # noqa: E402
from leftovers.host import Host  # noqa: E402
from leftovers.kinds.cgroups import Cgroups  # noqa: E402
from leftovers.kinds.kind import Kind, Look  # noqa: E402
from leftovers.kinds.links import Links  # noqa: E402
from leftovers.kinds.mounts import Mounts  # noqa: E402
from leftovers.kinds.processes import Processes  # noqa: E402
from leftovers.model import Deadline, Object, Verb  # noqa: E402

SIZES = (100, 1000)
REPEATS = 5
# A way that has used this many seconds is not started again: the whole is to take about three minutes.
BUDGET = 3.0

TREE = "/srv/bench"
GROUP = "/sys/fs/cgroup/bench"
SLEEP = "/bin/sleep"
# Written after what k3s-killall.sh does with the pids of the shims.
KILL_TREE = """
tree() {
    for pid in "$@"; do
        echo "$pid"
        for child in $(ps -e -o ppid= -o pid= | sed 's/^ *//; s/  */\t/g' | grep -w "^$pid" | cut -f2); do
            tree "$child"
        done
    done
}
kill -9 $(tree "$@")
"""


def survey(kind: Kind) -> tuple[Object, ...]:
    """What a kind lists in the sandbox, which has no other namespaces in it."""
    host = Host()
    listed: dict[str, tuple[Object, ...]] = {"netns": (), "process": (), "mount": ()}
    if "mount" in kind.needs:
        listed["mount"] = Mounts().survey(Look(host, listed=listed)).objects
    return kind.survey(Look(host, listed=listed)).objects


class Subject(ABC):
    """One kind of object: how to make many, and three ways to be rid of them. Each way acts and returns nothing."""

    name: str
    kind: Kind

    @abstractmethod
    def build(self, size: int) -> None:
        """Make the objects."""

    @abstractmethod
    def mine(self, obj: Object) -> bool:
        """Whether build() made this object."""

    @abstractmethod
    def rival(self) -> None:
        """Remove them as published scripts do."""

    @abstractmethod
    def floor(self) -> None:
        """Remove them by the cheapest way that the kernel has."""

    def settle(self) -> None:  # noqa: B027 - most need nothing
        """Wait until the objects are gone, where a way returns earlier than that."""

    def clear(self) -> None:  # noqa: B027 - most need nothing
        """Remove what no way is asked to remove."""

    def objects(self) -> list[Object]:
        return [obj for obj in survey(self.kind) if self.mine(obj)]


class LinkSubject(Subject):
    """Veth pairs, one end of each on a bridge."""

    name: str = "links"
    kind: Kind = Links()

    def build(self, size: int) -> None:
        self.names = [f"b{number}" for number in range(size)]
        lines = ["link add bench0 type bridge", "link set bench0 up"]
        for name in self.names:
            lines += [f"link add {name} type veth peer name p{name}", f"link set {name} master bench0 up"]
        sh("ip", "-batch", "-", stdin="\n".join(lines))

    def mine(self, obj: Object) -> bool:
        return obj.key in set(self.names)

    def rival(self) -> None:
        for name in self.names:
            sh("ip", "link", "delete", name)

    def floor(self) -> None:
        lines = [f"link set {name} group 4711" for name in self.names] + ["link delete group 4711"]
        sh("ip", "-batch", "-", stdin="\n".join(lines))

    def clear(self) -> None:
        sh("ip", "link", "delete", "bench0")


class MountSubject(Subject):
    """File systems below one that is mounted itself."""

    name: str = "mounts"
    kind: Kind = Mounts()

    def build(self, size: int) -> None:
        os.makedirs(TREE, exist_ok=True)
        sh("mount", "-t", "tmpfs", "tmpfs", TREE)
        self.points = [f"{TREE}/{number}" for number in range(size - 1)]
        for point in self.points:
            os.mkdir(point)
        script = 'cd "$1"; shift; for point; do mount -n -i -t tmpfs tmpfs "$point"; done'
        sh("sh", "-euc", script, "sh", TREE, *self.points)

    def mine(self, obj: Object) -> bool:
        return str(obj.facts["point"]).startswith(TREE)

    def rival(self) -> None:
        for point in [*self.points, TREE]:
            sh("umount", point)

    def floor(self) -> None:
        syscalls.umount2(TREE, syscalls.MNT_DETACH)


class ProcessSubject(Subject):
    """Sleepers, children of a process that reaps them as init does."""

    name: str = "processes"
    kind: Kind = Processes()

    def build(self, size: int) -> None:
        read, write = os.pipe()
        self.nurse = os.fork()
        if self.nurse == 0:
            try:
                os.close(read)
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)
                pids = [self.sleeper(number) for number in range(size)]
                os.write(write, json.dumps(pids).encode() + b"\n")
                signal.pause()
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as file:
            self.pids: list[int] = json.loads(file.readline())
        self.fds = [os.pidfd_open(pid) for pid in self.pids]

    def sleeper(self, number: int) -> int:
        return os.posix_spawn(SLEEP, ["sleep", "100000"], {})

    def mine(self, obj: Object) -> bool:
        return obj.facts["pid"] in set(self.pids)

    def rival(self) -> None:
        sh("sh", "-c", KILL_TREE, "sh", *map(str, self.pids))

    def floor(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)

    def settle(self) -> None:
        for fd in self.fds:
            if not select.select([fd], [], [], 60)[0]:
                raise AssertionError("a process did not end")

    def clear(self) -> None:
        for fd in self.fds:
            os.close(fd)
        os.kill(self.nurse, signal.SIGKILL)
        os.waitpid(self.nurse, 0)


class CgroupSubject(ProcessSubject):
    """The same, each in a cgroup of its own; the cgroups are to go as well."""

    name: str = "cgroups"
    kind: Kind = Cgroups()

    def build(self, size: int) -> None:
        os.mkdir(GROUP)
        super().build(size)

    def sleeper(self, number: int) -> int:
        os.mkdir(f"{GROUP}/{number}")
        pid = super().sleeper(number)
        Path(f"{GROUP}/{number}/cgroup.procs").write_text(str(pid))
        return pid

    def mine(self, obj: Object) -> bool:
        return str(obj.facts["directory"]).startswith(GROUP)

    def rival(self) -> None:
        script = 'for group; do while read -r pid; do kill -9 "$pid"; done < "$group/cgroup.procs"; done'
        groups = [f"{GROUP}/{number}" for number in range(len(self.pids))]
        sh("sh", "-c", script, "sh", *groups)
        self.empty()
        for group in [*groups, GROUP]:
            sh("rmdir", group)

    def floor(self) -> None:
        Path(f"{GROUP}/cgroup.kill").write_text("1")
        self.empty()
        for number in range(len(self.pids)):
            os.rmdir(f"{GROUP}/{number}")
        os.rmdir(GROUP)

    def empty(self) -> None:
        """A cgroup can be removed once its processes are reaped."""
        self.settle()
        while "populated 1" in Path(f"{GROUP}/cgroup.events").read_text():
            time.sleep(0.001)


SUBJECTS = {subject.name: subject for subject in (LinkSubject(), MountSubject(), ProcessSubject(), CgroupSubject())}


def once(subject: Subject, way: str, size: int) -> tuple[float, float]:
    """Build, remove in one way, check that all is gone. Returns the seconds of the removal and of our survey."""
    subject.build(size)
    objects: list[Object] = []
    start = time.perf_counter()
    if way == "ours":
        objects = subject.objects()
    looked = time.perf_counter() - start
    start = time.perf_counter()
    if way == "ours":
        assert len(objects) >= size, f"{subject.name}: {len(objects)} listed of {size}"
        failed = subject.kind.act(Host(), Verb.REMOVE, objects, Deadline(120))
        assert not failed, f"{subject.name}: {next(iter(failed.items()))} and {len(failed) - 1} more"
    elif way == "rival":
        subject.rival()
    else:
        subject.floor()
    subject.settle()
    took = time.perf_counter() - start
    left = subject.objects()
    assert not left, f"{subject.name}, {way}: {len(left)} left"
    subject.clear()
    return took, looked


def measure(subject: Subject, size: int) -> dict[str, Any]:
    """All ways in turns, so that a slow minute of the machine hits all of them."""
    once(subject, "ours", 2)  # what Python imports on first use is in the start-up costs
    took: dict[str, list[float]] = {"ours": [], "rival": [], "floor": []}
    looked: list[float] = []
    for _ in range(REPEATS):
        for way, seconds in took.items():
            if sum(seconds) < BUDGET:
                removal, look = once(subject, way, size)
                seconds.append(removal)
                if way == "ours":
                    looked.append(look)
    result: dict[str, Any] = {way: statistics.median(seconds) for way, seconds in took.items()}
    result["survey"] = statistics.median(looked)
    result["runs"] = {way: len(seconds) for way, seconds in took.items()}
    return {"name": subject.name, "size": size, **result, **ratios(result)}


def ratios(result: dict[str, Any]) -> dict[str, float]:
    return {f"ours:{other}": result["ours"] / result[other] for other in ("rival", "floor")}


def startup() -> list[dict[str, Any]]:
    """A whole process, started to do next to nothing; isolated as the installed command is."""
    command = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); from leftovers.cli import main; sys.exit(main())"
    commands = {
        "python3 -c pass": ["-c", "pass"],
        "leftovers --version": ["-c", command, "--version"],
        "leftovers scan": ["-c", command, "scan"],
    }
    results: list[dict[str, Any]] = []
    for name, arguments in commands.items():
        seconds = []
        for _ in range(2 * REPEATS + 1):
            start = time.perf_counter()
            done = subprocess.run([sys.executable, "-I", *arguments], capture_output=True, text=True, check=False)
            seconds.append(time.perf_counter() - start)
        # The first run byte-compiles.
        result: dict[str, Any] = {"name": name, "seconds": statistics.median(seconds[1:]), "status": done.returncode}
        result["ratio"] = result["seconds"] / results[0]["seconds"] if results else 1.0
        results.append(result)
    return results


def sandboxed(function: Callable[[], Any]) -> Any:
    """Run a function in a sandbox and bring its result out of it."""
    with tempfile.TemporaryFile("w+") as file:

        def bench() -> None:
            json.dump(function(), file)
            file.flush()

        private(bench)()
        file.seek(0)
        return json.load(file)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns, the first one left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    return "\n".join(lines)


def report(
    removals: Sequence[dict[str, Any]],
    starts: Sequence[dict[str, Any]],
    hooks: Sequence[dict[str, Any]],
    whose: Sequence[dict[str, Any]],
) -> str:
    rows = [["removal of", "N", "ours s", "rival s", "floor s", "ours:rival", "ours:floor", "survey s", "runs"]]
    for row in removals:
        rows.append(
            [
                row["name"], str(row["size"]), *(f"{row[key]:.4f}" for key in ("ours", "rival", "floor")),
                *(f"{row[key]:.3g}" for key in ("ours:rival", "ours:floor")), f"{row['survey']:.4f}",
                "/".join(str(runs) for runs in row["runs"].values()),
            ]
        )  # fmt: skip
    starting = [["start of", "s", "ratio", "exit"]]
    for row in starts:
        starting.append([row["name"], f"{row['seconds']:.4f}", f"{row['ratio']:.2f}", str(row["status"])])
    hooking = [["hook, nothing concerned", "ours ms", "empty ms", "ours:empty"]]
    for row in hooks:
        hooking.append([row["name"], *(f"{row[key]:.2f}" for key in ("ours", "empty", "ratio"))])
    telling = [["whose is it, with N containers", "100, s", "1000, s", "one's share, 1000:100"]]
    for row in whose:
        telling.append([row["name"], *(f"{row[key]:.3f}" for key in ("100", "1000")), f"{row['share']:.2f}"])
    return f"{table(rows)}\n\n{table(starting)}\n\n{table(hooking)}\n\n{table(telling)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("subject", nargs="*", help=f"what to measure: {', '.join(SUBJECTS)} (default: all)")
    arguments = parser.parse_args()
    unknown = set(arguments.subject) - set(SUBJECTS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        parser.error("needs root, for namespaces")
    removals = []
    for name in arguments.subject or SUBJECTS:
        for size in SIZES:
            print(f"{name}, {size} ...", file=sys.stderr, flush=True)
            removals.append(sandboxed(lambda name=name, size=size: measure(SUBJECTS[name], size)))  # type: ignore[misc]
    starts = sandboxed(startup)
    hooks = hook_cost()
    whose = whose_cost()
    if arguments.json:
        document = {"format_version": "1.0", "removals": removals, "starts": starts, "hooks": hooks, "whose": whose}
        print(json.dumps(document, indent=2))
    else:
        print(report(removals, starts, hooks, whose))
    return 0


if __name__ == "__main__":
    sys.exit(main())
