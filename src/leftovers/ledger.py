"""What was seen and done, on disk: evidence outlives the product, and a killed run is finished by running again.

/var/lib/leftovers (mode 0700): lock, and for each product NAME.json (evidence; see docs/ledger.md), NAME.log (one
JSON document a line: what was done) and arrivals/NAME.json (what stood before it came); for all of them packages and
snaps (which were here). Evidence is replaced
atomically and flushed to the disk before anything is removed; the log is flushed after each batch.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leftovers.errors import Refusal, Unreadable
from leftovers.host import Host
from leftovers.model import Claim, Deadline, Evidence, Object, Outcome, Presence, Record, Role

__all__ = ["DIRECTORY", "Ledger", "Memory", "Run", "Stopped"]

DIRECTORY = "/var/lib/leftovers"
ARRIVALS = "arrivals"
FORMAT = "1.0"
# Facts that a container can make as big as it likes, and that are read anew at each look.
BULKY = ("argv", "mount_devices", "mount_points", "entries")


@dataclass(frozen=True, slots=True)
class Run:
    """A clean that was begun. It stays in the ledger until it has come to its end."""

    started: str
    data: bool
    force: bool


@dataclass(frozen=True, slots=True)
class Stopped:
    """Instances that we have asked to shut down, for a removal that may not come to pass: when and in which boot, and
    whose removal it is (pid and start time of the package manager)."""

    names: tuple[str, ...]
    time: str
    boot_id: str
    owner: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Memory:
    """What the ledger holds for one product. `claims` are those of `boot_id`, by object id."""

    product: str
    boot_id: str = ""
    recorded: str = ""
    presence: str = ""
    claims: Mapping[str, Claim] = field(default_factory=dict)
    records: tuple[Record, ...] = ()
    run: Run | None = None
    been: bool = False  # something was proven the product's once: it has been on this host
    stopped: Stopped | None = None


class Ledger:
    """The state directory of one host. `place` is where it is, for who cannot write where it belongs."""

    def __init__(self, host: Host, place: str = DIRECTORY) -> None:
        self.host = host
        self.place = place
        self.directory = host.path(place)

    # -- reading

    def products(self) -> list[str]:
        """The products that the ledger knows something of."""
        return [name.removesuffix(".json") for name in self.host.listdir(self.place) if name.endswith(".json")]

    def memory(self, product: str) -> Memory:
        """What is known of a product; nothing known is an empty Memory. Raises Unreadable."""
        path = f"{self.place}/{product}.json"
        try:
            text = self.host.read(path)
        except FileNotFoundError:
            return Memory(product)
        except OSError as error:
            raise Unreadable(path, error.strerror or str(error)) from error
        try:
            return load(product, json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            advice = f"move it away and run again: mv {path} {path}.bad"
            raise Unreadable(path, f"is not a ledger: {error!r}", advice) from error

    def packages(self) -> dict[str, str]:
        """By package that owned a product's daemon when it was last looked at: the product. A package that is only
        there with its configuration owns no such file any more."""
        try:
            lines = self.host.read(f"{self.place}/packages").splitlines()
        except OSError:
            return {}
        return dict(line.split(" ", 1) for line in lines if line.count(" ") == 1)

    def snaps(self) -> frozenset[str]:
        """The snaps of products that were installed when we last looked: one that is not any more was removed since."""
        try:
            return frozenset(self.host.read(f"{DIRECTORY}/snaps").split())
        except OSError:
            return frozenset()

    def arrivals(self, product: str) -> dict[str, Any] | None:
        """What stood before a product last came to this host, as arrival() wrote it; None where nothing is written.
        Raises Unreadable."""
        path = f"{self.place}/{ARRIVALS}/{product}.json"
        try:
            document = json.loads(self.host.read(path))
            version = str(document["format_version"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unreadable(path, error.strerror or str(error)) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            advice = f"move it away and run again: mv {path} {path}.bad"
            raise Unreadable(path, f"is not a record of an arrival: {error!r}", advice) from error
        if version.partition(".")[0] != FORMAT.partition(".")[0]:
            raise Unreadable(path, f"format_version {version} is not one that this leftovers can read")
        return dict(document)

    # -- writing

    @contextlib.contextmanager
    def locked(self, wait: float = 0.0) -> Iterator[None]:
        """Hold the ledger alone, and wait for it for some seconds. Raises Refusal when another leftovers is at work, or
        the directory cannot be made."""
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            os.chmod(self.directory, 0o700)
            fd = os.open(f"{self.directory}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            cause = f"evidence cannot be written: {error.strerror}"
            raise Refusal(self.place, cause, "nothing was removed; make it writable and run again") from error
        try:
            deadline = Deadline(wait)
            while not alone(fd):
                if deadline.passed():
                    pid = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "?"
                    raise Refusal("the ledger", f"another leftovers (pid {pid}) is at work", f"wait for pid {pid}")
                time.sleep(0.1)
            with contextlib.suppress(OSError):  # a full disk: what matters is the lock
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            yield
        finally:
            os.close(fd)

    def record(
        self,
        product: str,
        boot_id: str,
        presence: Presence,
        claims: Mapping[str, Claim],
        records: Sequence[Record],
        run: Run | None,
    ) -> Memory:
        """Write what was seen. What an earlier look of the same boot saw stays in, since the product may have lost
        the evidence meanwhile; newer words replace older ones. Raises Refusal when it cannot be written."""
        old = self.memory(product)
        proven = {id: claim for id, claim in claims.items() if claim.proven}
        if old.boot_id == boot_id:
            proven = {**old.claims, **proven}
        fresh = [record for record in records if record.source != "ledger"]
        # A pool that the kernel showed is more than one that is only written down: the one does not replace the other.
        seen = {(record.type, record.name, "inode" in record.facts) for record in fresh}
        kept = [record for record in old.records if (record.type, record.name, "inode" in record.facts) not in seen]
        been = old.been or bool(proven)
        memory = Memory(product, boot_id, now(), presence.value, proven, (*fresh, *kept), run, been, old.stopped)
        self.write(memory)
        return memory

    def write(self, memory: Memory) -> None:
        """Replace a product's evidence: all of it or nothing. Raises Refusal."""
        self.replace(f"{memory.product}.json", json.dumps(dump(memory), indent=1, sort_keys=True).encode())

    def replace(self, name: str, text: bytes) -> None:
        path = f"{self.directory}/{name}"
        try:
            fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                write_all(fd, text)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(f"{path}.new", path)
            self.flush_directory()
        except OSError as error:
            cause = f"evidence cannot be written: {error.strerror}"
            raise Refusal(path, cause, "nothing was removed; make room and run again") from error

    def arrival(self, product: str, document: Mapping[str, Any]) -> None:
        """Write down what stood before a product came (arrival.observe() makes the document), in place of what was
        written when it came before. The caller holds the lock. Raises Refusal."""
        directory = f"{self.directory}/{ARRIVALS}"
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            os.chmod(directory, 0o700)
            self.replace(f"{ARRIVALS}/{product}.json", json.dumps(document, indent=1, sort_keys=True).encode())
            self.flush_directory(ARRIVALS)
        except OSError as error:
            raise Refusal(directory, f"an arrival cannot be written: {error.strerror}") from error

    def remember_packages(self, packages: Mapping[str, str]) -> None:
        """Add to what packages() tells. Raises Refusal."""
        known = self.packages()
        now_known = {**known, **packages}
        if now_known != known:
            lines = [f"{package} {product}\n" for package, product in sorted(now_known.items())]
            self.replace("packages", "".join(lines).encode())

    def remember_snaps(self, names: Iterable[str]) -> None:
        """What snaps() tells from now on. The caller holds the lock. Raises Refusal."""
        wanted = frozenset(names)
        if wanted != self.snaps():
            self.replace("snaps", "".join(f"{name}\n" for name in sorted(wanted)).encode())

    def log(self, product: str, event: str, **facts: Any) -> None:
        """Append one line to a product's log and flush it. A log that cannot be written stops nothing: what was
        done is told on the terminal too."""
        self.append(product, [{"time": now(), "event": event, **facts}])

    def outcomes(self, product: str, outcomes: Sequence[Outcome]) -> None:
        """Append what became of a batch of actions."""
        lines = [
            {
                "time": now(),
                "event": "outcome",
                "verb": outcome.action.verb.value,
                "id": outcome.action.id,
                "identity": list(outcome.action.object.identity),
                "result": outcome.result.value,
                "detail": outcome.detail,
            }
            for outcome in outcomes
            if outcome.action.product == product
        ]
        if lines:
            self.append(product, lines)

    def append(self, product: str, lines: Sequence[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in lines).encode()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(f"{self.directory}/{product}.log", flags, 0o600)
            try:
                write_all(fd, text)
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError:
            pass

    def flush_directory(self, below: str = "") -> None:
        fd = os.open(f"{self.directory}/{below}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def alone(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_all(fd: int, text: bytes) -> None:
    while text:
        text = text[os.write(fd, text) :]


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def dump(memory: Memory) -> dict[str, Any]:
    """A Memory as the JSON document that docs/ledger.md describes."""
    return {
        "format_version": FORMAT,
        "product": memory.product,
        "boot_id": memory.boot_id,
        "recorded": memory.recorded,
        "presence": memory.presence,
        "been": memory.been,
        "stopped": {
            "names": list(memory.stopped.names),
            "time": memory.stopped.time,
            "boot_id": memory.stopped.boot_id,
            "owner": list(memory.stopped.owner),
        }
        if memory.stopped
        else None,
        "run": {"started": memory.run.started, "data": memory.run.data, "force": memory.run.force}
        if memory.run
        else None,
        "objects": [
            {
                "kind": claim.object.kind,
                "key": claim.object.key,
                "identity": list(claim.object.identity),
                "facts": {name: value for name, value in claim.object.facts.items() if name not in BULKY},
                "role": claim.role.value,
                "rank": claim.rank,
                "reason": claim.reason,
                "advice": claim.advice,
                "evidence": [{"source": said.source, "text": said.text} for said in claim.evidence],
            }
            for claim in memory.claims.values()
        ],
        "records": [
            {"type": record.type, "name": record.name, "source": record.source, "facts": dict(record.facts)}
            for record in memory.records
        ],
    }


def load(product: str, document: Mapping[str, Any]) -> Memory:
    """The inverse of dump(). Raises ValueError, KeyError or TypeError for anything else."""
    version = str(document["format_version"])
    if version.partition(".")[0] != FORMAT.partition(".")[0]:
        raise ValueError(f"format_version {version} is not one that this leftovers can read")
    when = f"ledger, {document['recorded']}"
    claims = {}
    for entry in document["objects"]:
        obj = Object(entry["kind"], entry["key"], tuple(entry["identity"]), dict(entry["facts"]))
        evidence = tuple(
            Evidence(
                said["source"] if said["source"].startswith("ledger") else f"{when}: {said['source']}", said["text"]
            )
            for said in entry["evidence"]
        )
        claims[obj.id] = Claim(
            product, obj, Role(entry["role"]), True, entry["reason"], evidence, int(entry["rank"]), entry["advice"]
        )
    records = tuple(
        Record(entry["type"], entry["name"], "ledger", dict(entry["facts"])) for entry in document["records"]
    )
    run = document["run"]
    return Memory(
        product,
        str(document["boot_id"]),
        str(document["recorded"]),
        str(document["presence"]),
        claims,
        records,
        Run(run["started"], bool(run["data"]), bool(run["force"])) if run else None,
        bool(document.get("been")),
        load_stopped(document.get("stopped")),
    )


def load_stopped(document: Mapping[str, Any] | None) -> Stopped | None:
    if not document:
        return None
    pid, start = document["owner"]
    names = tuple(str(name) for name in document["names"])
    return Stopped(names, str(document["time"]), str(document["boot_id"]), (int(pid), int(start)))
