"""What a package manager is about to do, as far as it concerns the products that we know.

dpkg tells its hooks the action but no names (dpkg(1), --pre-invoke): these stand in its own arguments, or are what was
selected. What apt does besides, only apt knows: it gives a list to DPkg::Pre-Install-Pkgs (apt.conf(5)), which is kept
in /run until apt ends.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from leftovers import watcher
from leftovers.daemons import dpkg
from leftovers.host import Host
from leftovers.products import NAMES, Product, load
from leftovers.watcher import Watched

__all__ = [
    "SNAPD",
    "Arriving",
    "Dpkg",
    "Leaving",
    "apt_list",
    "arriving",
    "daemon_packages",
    "dpkg_above",
    "is_purge",
    "leaving",
    "question",
    "replacement",
]

# The package that other products come in.
SNAPD = "snapd"
# Reading the list of a package's files means to decompress it: a release upgrade may bring thousands.
LISTED = 20


@dataclass(frozen=True, slots=True)
class Dpkg:
    """The dpkg that runs our hook."""

    process: Watched
    arguments: tuple[str, ...]
    action: str
    locked: bool  # a frontend holds the lock for it: it has worked out dependencies, and will purge in a later run

    @property
    def pending(self) -> bool:
        """What is selected, not what is named; also bundled, as in -Pa."""
        return any(word == "--pending" or re.match("-[A-Za-z]*a", word) for word in self.arguments)

    @property
    def simulates(self) -> bool:
        return bool({"--simulate", "--dry-run", "--no-act"} & set(self.arguments))

    @property
    def names(self) -> list[str]:
        """What may be packages in its arguments, without architectures; a stray option's value is in there too."""
        return [word.partition(":")[0] for word in self.arguments if not word.startswith("-")]


@dataclass(frozen=True, slots=True)
class Leaving:
    """A package of a product that goes: whether for good, and whether it is the one that holds the daemon."""

    package: str
    product: str
    purge: bool
    daemon: bool


@dataclass(frozen=True, slots=True)
class Arriving:
    """A package that comes, the file it comes in, and its earlier version ("" when there is none)."""

    package: str
    version: str
    path: str
    earlier: str = ""


def dpkg_above(host: Host, environment: Mapping[str, str]) -> Dpkg | None:
    """The dpkg that we are a hook of: the nearest one among our ancestors."""
    for process in watcher.ancestors(host, os.getpid())[1:]:
        try:
            if host.read(f"/proc/{process.pid}/comm").strip() != "dpkg":
                continue
            argv = host.read(f"/proc/{process.pid}/cmdline").rstrip("\0").split("\0")
        except OSError:
            return None
        locked = bool(environment.get("DPKG_FRONTEND_LOCKED"))
        return Dpkg(process, tuple(argv[1:]), environment.get("DPKG_HOOK_ACTION", ""), locked)
    return None


def leaving(run: Dpkg, remembered: Mapping[str, str], snaps: Sequence[str] = ()) -> list[Leaving]:
    """The packages of products that this dpkg removes or purges, each daemon's package told by the files it owns.

    `remembered` is, by package, the product whose daemon it owned when it was last looked at: a package that is only
    there with its configuration owns no daemon any more. `snaps` are products that snapd has: its purge deletes them
    all. Raises ToolFault.

    In `dpkg --remove` of apt, a purge is one that is still wanted of the package (facts: package-managers, 4.3).
    """
    products = [load(name) for name in NAMES]
    holders = daemon_packages(products)
    named = {package: product.name for product in products for package in product.packages}
    concerned = {**named, **remembered, **holders}
    if snaps:
        concerned[SNAPD] = ""
    if not run.pending:
        concerned = {package: name for package, name in concerned.items() if package in run.names}
    found = []
    for package, state in dpkg.states(sorted(concerned)).items():
        if state.status == "not-installed" or package not in concerned:
            continue
        if run.pending and state.want not in ("purge", "deinstall"):
            continue
        purge = run.action == "purge" or (state.want == "purge" and (run.locked or run.pending))
        if run.pending and run.action == "purge" and state.want != "purge":
            continue
        if package == SNAPD:
            found += [Leaving(SNAPD, name, purge, True) for name in snaps]
            continue
        # What holds no daemon held it, if it is only half there and nobody else holds one now.
        rest = state.status in ("config-files", "half-installed") and concerned[package] not in holders.values()
        daemon = package in holders or rest
        if not daemon and state.status == "config-files":
            continue  # it may once have held one, and was replaced
        found.append(Leaving(package, concerned[package], purge, daemon))
    return found


def is_purge(host: Host, package: str, run: Dpkg) -> bool:
    """Whether a package whose prerm runs will be purged and not only removed. Under apt dpkg has been told to remove
    it, and only what is on the disk still says what is wanted (facts: package-managers, 2). Raises ToolFault."""
    state = dpkg.states([package]).get(package)
    if state is not None and state.want == "purge":
        return True
    if not run.locked:
        return False
    from debian.deb822 import Deb822

    try:
        paragraphs = host.read("/var/lib/dpkg/status").split("\n\n")
    except OSError:
        return False
    for text in paragraphs:
        if text.startswith(f"Package: {package}\n"):
            return str(Deb822(text).get("Status", "")).startswith("purge ")
    return False


def daemon_packages(products: Iterable[Product]) -> dict[str, str]:
    """By package that owns a daemon's file: the product. Of one that owns those of several (zabbly's incus-base has its
    own lxcfs), the first: companions come last. Raises ToolFault."""
    products = list(products)
    owners = dpkg.owners([path for product in products for path in product.daemons])
    found: dict[str, str] = {}
    for product in products:
        for package in (package for path in product.daemons for package in owners.get(path, ())):
            found.setdefault(package, product.name)
    return found


def apt_list(text: str) -> tuple[list[Arriving], list[str]]:
    """What apt says on stdin of DPkg::Pre-Install-Pkgs, version 3: packages that come, packages that go.

    A line is NAME OLD ARCH MULTIARCH DIRECTION NEW ARCH MULTIARCH ACTION, where the action is a file,
    **CONFIGURE** or **REMOVE**, and "-" stands for no version (apt-pkg/deb/dpkgpm.cc, SendPkgsInfo).
    """
    comes, goes = [], []
    for line in text.splitlines():
        words = line.split(" ", 8)
        if len(words) != 9:
            continue
        name, earlier, action = words[0], words[1], words[8]
        if action == "**REMOVE**":
            goes.append(name)
        elif action.startswith("/"):
            comes.append(Arriving(name, words[5], action, "" if earlier == "-" else earlier))
    return comes, goes


def arriving(run: Dpkg) -> list[Arriving]:
    """The packages in the .deb files of dpkg's arguments, of those that are readable."""
    found = []
    for path in run.arguments:
        if path.endswith(".deb") and not path.startswith("-"):
            fields = control(path)
            if fields.get("Package"):
                found.append(Arriving(fields["Package"], fields.get("Version", ""), path))
    return found


def control(path: str) -> dict[str, str]:
    """The control fields of a .deb file; none of one that cannot be read. Root was asked to install it: its fields
    are trusted as far as dpkg will trust them a moment later."""
    from debian.debfile import DebFile

    try:
        with DebFile(os.path.abspath(path)) as deb:
            return {str(name): str(value) for name, value in deb.debcontrol().items()}
    except Exception:  # debfile has no common base for what a malformed archive raises
        return {}


def ships(path: str, files: Sequence[str]) -> bool:
    """Whether a .deb file has one of these files (absolute paths) in it."""
    from debian.debfile import DebFile

    try:
        with DebFile(os.path.abspath(path)) as deb:
            names = {"/" + name.removeprefix(".").lstrip("/") for name in deb.data}
            return bool(names & set(files))
    except Exception:
        return False


def replacement(product: Product, goes: Sequence[str], comes: Sequence[Arriving]) -> str:
    """The package that comes in place of a product's packages that go; "" when there is none.

    It is one of the product's own or of its successors; or says so of itself (Provides:, or Replaces: with Conflicts:;
    Debian Policy 7.5, 7.6.2); or is new and brings a daemon's file, whatever it is called.
    """
    gone = {package.partition(":")[0] for package in goes}
    ours = {*product.packages, *product.successors, *gone}
    for package in comes:
        if package.package in product.successors and package.earlier:
            continue  # it was there before, beside the product
        if package.package in ours:  # also one that goes and comes again: apt may upgrade that way
            return package.package
        fields = control(package.path)
        provides = relations(fields.get("Provides", ""))
        replaces = relations(fields.get("Replaces", "")) & relations(fields.get("Conflicts", ""))
        if (provides | replaces) & ours:
            return package.package
    new = [package for package in reversed(comes) if not package.earlier][:LISTED]  # dependencies come first
    return next((package.package for package in new if ships(package.path, product.daemons)), "")


def relations(field: str) -> set[str]:
    """The names in a relationship field."""
    from debian.deb822 import PkgRelation

    return {str(each["name"]) for group in PkgRelation.parse_relations(field) for each in group} if field else set()


def question(text: str) -> tuple[list[tuple[str, str]], list[str]]:
    """What apt's JSON hook says before the question (apt's doc/json-hooks-protocol.md): the packages that go with
    their mode ("purge", "deinstall"), and the names of those that come. Raises ValueError."""
    read = json.loads(text)
    packages = read["params"]["packages"]
    goes, comes = [], []
    for each in packages:
        name, mode = str(each["name"]), str(each["mode"])
        if mode in ("purge", "deinstall"):
            goes.append((name, mode))
        elif mode in ("install", "upgrade", "downgrade", "reinstall"):
            comes.append(name)
    return goes, comes
