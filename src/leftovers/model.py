"""The nouns that every room shares: what was found, whose it is, what is to be done, what became of it.

Everything here is plain, frozen and JSON-able: the ledger writes it, `--json` prints it, tests compare it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

__all__ = [
    "Action",
    "Claim",
    "Deadline",
    "Evidence",
    "Identity",
    "Instance",
    "Listing",
    "Object",
    "Outcome",
    "Plan",
    "Presence",
    "Record",
    "Result",
    "Role",
    "Scope",
    "Verb",
]

# An identity is made by a kind and only ever compared: (pid, starttime), (netns inode, ifindex, name), mount id ...
Identity = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Object:
    """One thing on the host, as its kind listed it.

    `key` names it within its kind (what a person types after "kind:"); `identity` is stronger than that name
    and is compared just before acting, so that a recreated object is never taken for the old one.
    `facts` is what the kind read about it: JSON types only.
    """

    kind: str
    key: str
    identity: Identity
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.key}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One piece of proof: where it was read (kernel, api, database, disk, dpkg, ledger) and what it says."""

    source: str
    text: str


class Verb(str, Enum):
    """What is to be done with an object."""

    REMOVE = "remove"
    RETURN = "return"  # give back to the host what was lent to the product: a network card in a container
    KEEP = "keep"


class Role(str, Enum):
    """What an object is to its product; plan.py's table says what follows from it."""

    LIVE = "live"  # runs or stands in the kernel: processes, links, mounts, rules; and the files of /run
    DATA = "data"  # what the package's own purge deletes
    EXTERNAL = "external"  # data that no purge of the package deletes: at a place that the administrator chose
    HELD = "held"  # as LIVE, but somebody else uses it: it stays, and counts as left
    LENT = "lent"  # the administrator's, given to the product for a while
    ADMIN = "admin"  # the administrator's, only connected with the product
    SYSTEM = "system"  # settings of the host whose earlier value nobody knows


@dataclass(frozen=True, slots=True)
class Claim:
    """A product's word about an object, and what it rests on.

    An unproven claim never removes anything: it is a reason to show the object and say why it stays.
    `rank` orders objects of one kind that must go one after the other (lower first). `advice` is the command by
    which a person would remove or undo what stays. `orphan` says, of an installed product's object, why no container
    that exists can have it; `age` is how old it is proven to be then, in seconds (0: unknown), and `collector` who
    lives that collects such things himself.
    """

    product: str
    object: Object
    role: Role
    proven: bool
    reason: str
    evidence: tuple[Evidence, ...]
    rank: int = 0
    advice: str = ""
    orphan: str = ""
    age: float = 0.0
    collector: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """A container, a pod or a virtual machine of a product's, for who asks whose a thing is.

    id       as the product tells it from others; name: as people do
    image    "" where nobody has written it down; so is `created`, an ISO 8601 text
    state    "running", "stopped", "created" or ""
    ties     ids of objects on the host that are directly its own: its first process, its cgroup, its namespace's pin
    """

    product: str
    id: str
    name: str
    evidence: Evidence
    image: str = ""
    created: str = ""
    state: str = ""
    ties: tuple[str, ...] = ()


class Presence(str, Enum):
    """How much of a product's package is on the host."""

    INSTALLED = "installed"
    REMOVED = "removed"  # dpkg keeps its configuration (config-files), or stopped half-way
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Record:
    """What a product has written down about itself: an instance, a network, a pool.

    Readers return these from the API, the database, the disk and the ledger alike; `source` tells which.
    """

    type: str
    name: str
    source: str
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)


@dataclass(frozen=True, slots=True)
class Scope:
    """What the products that are asked about have declared, so that a kind knows where to look."""

    units: tuple[str, ...] = ()  # unit names, or fnmatch patterns
    directories: tuple[str, ...] = ()  # absolute paths of directories, sockets, symlinks
    accounts: tuple[str, ...] = ()  # users and groups
    sysctls: tuple[str, ...] = ()  # dotted names
    routes: tuple[str, ...] = ()  # "protocol 80", "table 2004", "protocol 12 type blackhole"
    addresses: tuple[str, ...] = ()  # links (fnmatch patterns) of which every address counts
    nft_tables: tuple[str, ...] = ()  # "FAMILY NAME" of tables that are shared, whose rules count one by one
    bpf: tuple[str, ...] = ()  # fnmatch patterns of pins' paths, and of programs' names
    elsewhere: tuple[str, ...] = ()  # what their records say of other machines
    relied: tuple[str, ...] = ()  # kinds that their records speak of: not to be able to list these is a fault


@dataclass(frozen=True, slots=True)
class Listing:
    """What a kind found, and what it could not read (one line each)."""

    objects: tuple[Object, ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Action:
    """One line of a plan."""

    verb: Verb
    object: Object
    product: str
    reason: str
    evidence: tuple[Evidence, ...]
    rank: int = 0
    advice: str = ""
    counts: bool = False

    @property
    def id(self) -> str:
        return self.object.id


@dataclass(frozen=True, slots=True)
class Plan:
    """An ordered list of actions; `faults` is what could not be read, so the plan may not be the whole."""

    products: tuple[str, ...]
    actions: tuple[Action, ...]
    faults: tuple[str, ...] = ()

    def doing(self) -> tuple[Action, ...]:
        """The actions that change the host, in order."""
        return tuple(a for a in self.actions if a.verb is not Verb.KEEP)

    def keeping(self) -> tuple[Action, ...]:
        return tuple(a for a in self.actions if a.verb is Verb.KEEP)

    def left(self) -> tuple[Action, ...]:
        """What `verify` calls left: all that would be removed, and what stays though it counts."""
        return tuple(a for a in self.actions if a.verb is not Verb.KEEP or a.counts)


class Result(str, Enum):
    """What became of an action."""

    DONE = "done"
    GONE = "gone"  # it had vanished by itself, which is what was wanted
    CHANGED = "changed"  # another object has its name now: left alone
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an action: `detail` is the cause of a failure; `seconds` how long its batch took."""

    action: Action
    result: Result
    detail: str = ""
    seconds: float = 0.0


class Deadline:
    """A point in time that every wait below it respects. Seconds, monotonic."""

    __slots__ = ("_end",)

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - time.monotonic())

    def passed(self) -> bool:
        return self.left() <= 0.0

    def within(self, seconds: float) -> Deadline:
        """A deadline of its own that does not outlive this one."""
        return Deadline(min(seconds, self.left()))
