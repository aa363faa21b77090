"""What a product is to us: a description. It removes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from leftovers.claims import Case, Rule
from leftovers.host import Host
from leftovers.kinds.kind import Look
from leftovers.model import Deadline, Instance, Record, Role

__all__ = ["Directory", "Product", "Reader"]

# Reads what a product wrote down; returns records and one line for each source that could not be read.
Reader = Callable[[Look], tuple[list[Record], list[str]]]


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory (or socket, or file) of a product: what it is for, and whose word says so."""

    path: str
    role: Role
    source: str


@dataclass(frozen=True, slots=True)
class Product:
    """
    name        what people type
    title       what people read
    packages    the packages that can hold its daemon; none if it is a snap
    daemons     the daemon's file, in all layouts: the product is installed while one of them exists
    uninstall   the command that removes it, where it is in no package and no snap
    common      whether other products have a daemon of that name, too: one that runs from another file says nothing
    snaps       the snaps that are the product: it is installed while snapd has one of them
    units       its systemd units (names or fnmatch patterns)
    directories what it declares on disk
    accounts    "TYPE NAME" of users, groups and id ranges that its packages add (only ever reported)
    sysctls     "NAME=VALUE" that it sets for the whole host (only ever reported)
    routes      which routes to look at: "protocol 80", "table 2004", "protocol 12 type blackhole"; no others are listed
    addresses   links (fnmatch patterns) that stay when it goes, whose addresses are to be looked at
    nft_tables  "FAMILY NAME" of tables that it shares with others: their rules are looked at one by one
    bpf         patterns of the paths that it pins BPF objects at, and of the names of its programs
    readers     sources of records, the best first
    places      what of the host's files its records point to: paths to be looked at besides `directories`
    elsewhere   what its records say of other machines: one line each (only ever reported)
    relies      the kinds that its records speak of: not to be able to list these is a fault
    deletes     the data that its package's own purge is about to delete, as it stands; we neither keep nor delete it
    rules       by kind: what proves an object its own
    holds       by kind: rules that are asked last, about what would go: who else uses it. What they find something
                about stays, as HELD, with their reason after that of the claim and their first evidence before its
    successors  packages of another name that take its place: their coming makes a removal a replacement
    instance_processes  the reasons of those rules for processes of which each running instance has one
    companions  products that only live for others; looked at together with this one
    tenants     products that have containers of their own in this one's daemon: they are looked at with it, and their
                word about a thing goes before its own (plan.settled)
    instances   its containers, pods or virtual machines, asked when all its claims are made
    orphans     by kind: rules that are asked, while the product is installed, about what is proven its own: a finding
                says that no container that exists, running or not, has it, with the fact `age` (seconds) where a
                lowest age is proven. None where that cannot be told
    recall      kinds whose proof stands once it was given, for as long as the object is the same: the ledger's word
                counts for these. Of other kinds somebody else may since have become a user
    stop        asks what runs, of these records, to shut down cleanly, all at once and never by force, and waits until
                the deadline. Returns by Record.name why something did not come down. It leaves out what could not
                be started again. The product's daemon must be alive
    enders      units: stopping the first, while all are up, shuts instances down in good order, as each is configured.
                Where a package's own prerm stops it, nobody else asks them
    start       starts again what `stop` had asked, by Record.name; also what is only now coming down. Returns by that
                name why something is not up
    """

    name: str
    title: str
    packages: tuple[str, ...]
    daemons: tuple[str, ...] = ()
    common: bool = False
    snaps: tuple[str, ...] = ()
    uninstall: str = ""
    units: tuple[str, ...] = ()
    directories: tuple[Directory, ...] = ()
    accounts: tuple[str, ...] = ()
    sysctls: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    nft_tables: tuple[str, ...] = ()
    bpf: tuple[str, ...] = ()
    readers: tuple[Reader, ...] = ()
    places: Callable[[tuple[Record, ...]], tuple[str, ...]] = lambda records: ()
    elsewhere: Callable[[tuple[Record, ...]], tuple[str, ...]] = lambda records: ()
    relies: Callable[[tuple[Record, ...]], tuple[str, ...]] = lambda records: ()
    deletes: Callable[[Host], tuple[str, ...]] = lambda host: ()
    rules: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    holds: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    successors: tuple[str, ...] = ()
    instance_processes: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    instances: Callable[[Case], Sequence[Instance]] | None = None
    orphans: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)
    recall: frozenset[str] = frozenset({"process", "link", "mount", "cgroup", "loop", "pool", "xtables", "ovs"})
    stop: Callable[[Host, Sequence[Record], Deadline], Mapping[str, str]] | None = None
    enders: tuple[str, ...] = ()
    start: Callable[[Host, Sequence[str], Deadline], Mapping[str, str]] | None = None
