"""A removal that is under way: what the hooks of one transaction tell each other, in /run.

A transaction is many processes of ours: before apt's question, before dpkg, while dpkg waits, after dpkg, after apt.
What they must know of each other is here, and is worth nothing once the transaction is over. What must outlast it
(evidence, instances that we have stopped) is the ledger's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leftovers.errors import Refusal
from leftovers.host import Host
from leftovers.watcher import Watched, ancestors

__all__ = [
    "APT",
    "ASK",
    "DIRECTORY",
    "REMOVAL",
    "Apt",
    "Going",
    "Removal",
    "forget",
    "read",
    "read_apt",
    "read_snap",
    "tell_once",
    "write",
    "write_apt",
    "write_snap",
]

DIRECTORY = "/run/leftovers"
APT = f"{DIRECTORY}/apt.json"
ASK = f"{DIRECTORY}/ask"
OWNER = f"{DIRECTORY}/owner"  # "PID START", for hooks written in sh
TOLD = f"{DIRECTORY}/told"  # the same, of who was told already that nothing will be cleaned
REMOVAL = f"{DIRECTORY}/removal.json"


@dataclass(frozen=True, slots=True)
class Going:
    """One product in it.

    packages  those of its packages that go
    sweep     whether it is to be swept: its package is purged, or is removed and the configuration says so
    purge     whether a package of it is purged
    running   instances that ran when we were first told
    networks  networks that it had
    swept     whether its commit has been
    gone      what was removed so far: by kind, how many
    seconds   what that took
    states    by package, what dpkg had it as when we were first told: one that is still that has not begun to go
    again     instances that were started again, and nobody was told yet
    trusted   whether its own prerm was left to shut its instances down
    """

    packages: tuple[str, ...]
    sweep: bool
    purge: bool
    running: int = 0
    networks: int = 0
    swept: bool = False
    gone: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    states: Mapping[str, str] = field(default_factory=dict)
    again: int = 0
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Removal:
    """All products in it, of one run of `owner`: the frontend, or a dpkg without one. `meta` are packages that go and
    hold no daemon, with the product each is of."""

    owner: Watched
    going: Mapping[str, Going] = field(default_factory=dict)
    meta: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Apt:
    """What apt said of its transaction.

    process   the apt, or whatever frontend it is
    replaced  by product, the package that comes in its place
    """

    process: Watched
    replaced: Mapping[str, str] = field(default_factory=dict)


def read(host: Host) -> Removal | None:
    """The removal that is under way, or was not finished; None when there is none, or it cannot be read."""
    document = load(host, REMOVAL)
    try:
        owner = Watched(int(document["owner"]["pid"]), int(document["owner"]["start"]))
        going = {
            str(name): Going(**{**each, "packages": tuple(each["packages"])})
            for name, each in document["going"].items()
        }
        return Removal(owner, going, {str(name): str(product) for name, product in document["meta"].items()})
    except (TypeError, KeyError, AttributeError, ValueError):
        return None


def write(host: Host, removal: Removal) -> None:
    """Raises Refusal."""
    save(host, OWNER, f"{removal.owner.pid} {removal.owner.start}\n")
    save(host, REMOVAL, json.dumps(dataclasses.asdict(removal)))


def read_snap(host: Host, snap: str) -> Going | None:
    """What was done so far in a snap's removal, whose change is the one word of `packages`; None when nothing was."""
    try:
        each = load(host, f"{DIRECTORY}/snap-{snap}.json")
        return Going(**{**each, "packages": tuple(each["packages"])})
    except (TypeError, KeyError):
        return None


def write_snap(host: Host, snap: str, going: Going | None) -> None:
    """The same, written; None ends it. Raises Refusal."""
    path = f"{DIRECTORY}/snap-{snap}.json"
    if going is None:
        forget(host, path)
    else:
        save(host, path, json.dumps(dataclasses.asdict(going)))


def read_apt(host: Host, pid: int) -> Apt | None:
    """What the apt said that `pid` descends from; None when none did."""
    document = load(host, APT)
    try:
        process = Watched(int(document["process"]["pid"]), int(document["process"]["start"]))
        apt = Apt(process, {str(name): str(by) for name, by in document["replaced"].items()})
    except (TypeError, KeyError, AttributeError, ValueError):
        return None
    return apt if process in ancestors(host, pid) else None


def write_apt(host: Host, apt: Apt) -> None:
    """Raises Refusal."""
    save(host, APT, json.dumps(dataclasses.asdict(apt)))


def tell_once(host: Host, owner: Watched) -> bool:
    """Whether this run has still to be told: its dpkg comes several times, and a fault is one line."""
    text = f"{owner.pid} {owner.start}\n"
    try:
        if host.read(TOLD) == text:
            return False
        save(host, TOLD, text)
    except (OSError, Refusal):
        with contextlib.suppress(Refusal):
            save(host, TOLD, text)
    return True


def forget(host: Host, path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(host.path(path))


def load(host: Host, path: str) -> dict[str, Any]:
    try:
        directory = os.stat(host.path(DIRECTORY), follow_symlinks=False)
        if directory.st_uid != os.geteuid() or not stat.S_ISDIR(directory.st_mode):
            return {}  # somebody else's word
        document = json.loads(host.read(path))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def save(host: Host, path: str, text: str) -> None:
    try:
        os.makedirs(host.path(DIRECTORY), mode=0o700, exist_ok=True)
        os.chmod(host.path(DIRECTORY), 0o700)
        new = host.path(f"{path}.new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "w") as file:
            file.write(text)
        os.replace(new, host.path(path))
    except OSError as error:
        raise Refusal(path, f"cannot be written: {error.strerror}", "make room in /run") from error
