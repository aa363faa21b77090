"""The facts: every object on the host, what products wrote down, and whose each object is. Changes nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from leftovers.claims import Case, attribute
from leftovers.daemons import dpkg, snapd
from leftovers.daemons.half_removed import half_removed
from leftovers.errors import Fault, Unreadable
from leftovers.host import Host
from leftovers.kinds import Kind, Look, survey_order
from leftovers.ledger import Memory
from leftovers.model import Claim, Instance, Listing, Object, Presence, Record, Role, Scope
from leftovers.mountinfo import below, place
from leftovers.products import NAMES, Product, load
from leftovers.run import SNAP

__all__ = ["Survey", "presence", "relist", "survey"]


@dataclass(frozen=True, slots=True)
class Survey:
    """One look at the host.

    listed     every object, by kind
    claims     by object id, then by product
    presence   how much of each product is installed
    because    what says so
    records    what each product has written down
    faults     what could not be read: with any of these, the rest may not be the whole
    last       products that others of these live with: theirs goes when all else has gone
    tenants    by product, those that have containers in its daemon
    instances  by product, its containers; only of a deep look
    """

    boot_id: str
    scope: Scope
    listed: Mapping[str, tuple[Object, ...]]
    claims: Mapping[str, Mapping[str, Claim]]
    presence: Mapping[str, Presence]
    because: Mapping[str, str]
    records: Mapping[str, tuple[Record, ...]]
    faults: tuple[str, ...]
    last: frozenset[str] = frozenset()
    tenants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    instances: Mapping[str, tuple[Instance, ...]] = field(default_factory=dict)


def survey(host: Host, products: Sequence[Product], memory: Mapping[str, Memory], *, deep: bool = False) -> Survey:
    """Look at the whole host on behalf of some products. `memory` is what the ledger holds for each of them. A deep
    look also asks for their containers, and what of an installed one belongs to none."""
    kinds = survey_order()
    listed: dict[str, tuple[Object, ...]] = {}
    faults: list[str] = []
    records: dict[str, tuple[Record, ...]] = {}
    # Units need no records, and are listed first.
    scope = Scope(units=tuple(unit for product in products for unit in product.units))
    asked = False
    for kind in kinds:
        # Records tell where else to look; reading them needs to know which processes live and what is mounted.
        if not asked and {"process", "mount"} <= listed.keys():
            records, scope, said = ask(Look(host, scope, listed), products, memory)
            faults += said
            asked = True
        listing = listed_by(kind, Look(host, scope, listed))
        listed[kind.name] = listing.objects
        faults += listing.faults
    present = {product.name: presence(host, product, listed) for product in products}
    asks = [product for product in products if deep and product.orphans]
    later, _, said = ask(Look(host, scope, listed), asks, {})
    faults += said
    boot_id = host.boot_id()
    claims: dict[str, dict[str, Claim]] = {}
    instances: dict[str, tuple[Instance, ...]] = {}
    for product in products:
        case = Case(
            product.name,
            present[product.name][0],
            listed,
            records[product.name],
            elsewhere=leaving(claims, {name: found for name, (found, _) in present.items()}),
            recalled=remembered(memory.get(product.name), listed, boot_id),
            been=product.name in memory and memory[product.name].been,
            later=later.get(product.name, ()),
        )
        orphans = product.orphans if deep else {}
        claims[product.name] = attribute(case, product.rules, product.recall, product.holds, orphans)
        if deep and product.instances is not None:
            instances[product.name] = tuple(product.instances(case))
    return Survey(
        boot_id,
        scope,
        listed,
        by_object(claims),
        {name: found for name, (found, _) in present.items()},
        {name: because for name, (_, because) in present.items()},
        records,
        tuple(dict.fromkeys(faults)),
        frozenset(companion for product in products for companion in product.companions),
        {product.name: product.tenants for product in products if product.tenants},
        instances,
    )


def leaving(claims: Mapping[str, Mapping[str, Claim]], present: Mapping[str, Presence]) -> dict[str, Claim]:
    """What is about to go with the products asked so far: what is proven their own. Of one that is installed nothing
    goes; and what it gives back, is held or only known to it stays."""
    return {
        id: claim
        for name, own in claims.items()
        for id, claim in own.items()
        if claim.proven and claim.role in (Role.LIVE, Role.DATA) and present[name] is not Presence.INSTALLED
    }


def ask(
    look: Look, products: Sequence[Product], memory: Mapping[str, Memory]
) -> tuple[dict[str, tuple[Record, ...]], Scope, list[str]]:
    """What the products wrote down, and where that says to look. The ledger's memory comes last: it is oldest."""
    records: dict[str, tuple[Record, ...]] = {}
    faults: list[str] = []
    for product in products:
        found: list[Record] = []
        for reader in product.readers:
            try:
                read, said = reader(look)
            except Fault as fault:
                read, said = [], [str(fault)]
            found += read
            faults += said
        if product.name in memory:
            # What the living daemon does not say of other machines is not so any more.
            answered = any(record.source == "api" for record in found)
            found += [r for r in memory[product.name].records if not (answered and product.elsewhere((r,)))]
        records[product.name] = tuple(found)
    scope = Scope(
        units=tuple(unit for product in products for unit in product.units),
        directories=tuple(directory.path for product in products for directory in product.directories)
        + tuple(path for product in products for path in product.places(records[product.name])),
        accounts=tuple(account for product in products for account in product.accounts),
        sysctls=tuple(sysctl for product in products for sysctl in product.sysctls),
        routes=tuple(text for product in products for text in product.routes),
        addresses=tuple(name for product in products for name in product.addresses),
        nft_tables=tuple(table for product in products for table in product.nft_tables),
        bpf=tuple(pattern for product in products for pattern in product.bpf),
        elsewhere=tuple(text for product in products for text in product.elsewhere(records[product.name])),
        relied=tuple(kind for product in products for kind in product.relies(records[product.name])),
    )
    return records, scope, faults


def listed_by(kind: Kind, look: Look) -> Listing:
    try:
        return kind.survey(look)
    except Exception as error:
        # One kind that cannot be listed is a fault of the survey; all others are still worth telling.
        return Listing(faults=(f"{kind.title}: {type(error).__name__}: {error}",))


def relist(host: Host, kind: Kind, scope: Scope) -> Listing:
    """One kind again, with those that it needs. A fault of any of them is raised: what cannot be listed cannot be
    said to be gone. Raises Unreadable."""
    listed: dict[str, tuple[Object, ...]] = {}
    listing = Listing()
    needed = {kind.name}
    for other in reversed(survey_order()):
        if other.name in needed:
            needed |= set(other.needs)
    for other in survey_order():
        if other.name in needed:
            listing = listed_by(other, Look(host, scope, listed))
            listed[other.name] = listing.objects
            if other is kind:
                break
    if listing.faults and not listing.objects:
        raise Unreadable(kind.title, listing.faults[0])
    return listing


def presence(host: Host, product: Product, listed: Mapping[str, tuple[Object, ...]]) -> tuple[Presence, str]:
    """How much of a product is installed, and what says so: of a snap, snapd. Else its daemon's file is there (however
    it came), a daemon of that name runs from a file that is there, on the host or in a container that was given the
    product's directory, or dpkg says so of the package that owns it."""
    if any(SNAP.split("/")[-2:-1] == [name] for name in product.snaps) and host.exists(SNAP):
        # In its own remove hook, which a confined snap cannot ask snapd about.
        return Presence.INSTALLED, f"we run out of {SNAP}"
    if product.snaps:
        return snap_presence(host, product, listed)
    for path in product.daemons:
        if host.exists(path):
            return Presence.INSTALLED, f"{path} is there"
    names = {path.rpartition("/")[2] for path in product.daemons}
    others = {path for name in NAMES if name != product.name for path in load(name).daemons}
    for process in listed["process"]:
        exe = process.facts["exe"]
        # Wrapped programs are called .NAME-wrapped (Nix). Anybody may call a program of his so; only root can run
        # the product.
        name = exe.rpartition("/")[2].removeprefix(".").removesuffix("-wrapped")
        if name not in names or exe in others or process.facts["uid"] != 0 or product.common:
            continue  # `others`: two products may have a program of one name
        if snapped(exe, product) or not stands(host, process):
            continue
        if not process.facts["nested"] or shares_directory(process, product, listed):
            return Presence.INSTALLED, f"pid {process.key} runs {exe}"
    if host.root:
        return Presence.ABSENT, ""
    states = dpkg.status(product.packages)
    if "installed" in states.values():
        # A metapackage may have such a name, and the daemon's file may have been lost: what counts is whose it is.
        owners = {package for names in dpkg.owners(product.daemons).values() for package in names}
        states.update(dpkg.status([*owners]) if owners else {})
        for package in owners:
            if states.get(package) == "installed":
                return Presence.INSTALLED, f"dpkg has {package} installed"
    for package, state in states.items():
        if state not in ("not-installed", "installed"):
            return Presence.REMOVED, f"dpkg has {package} as {state}"
    return Presence.ABSENT, ""


def snapped(exe: str, product: Product) -> bool:
    """Whether a file is that of another product's snap."""
    return any(
        below(exe, f"{place}/{snap}")
        for name in NAMES
        if name != product.name
        for snap in load(name).snaps
        for place in ("/snap", "/var/lib/snapd/snap")
    )


def stands(host: Host, process: Object) -> bool:
    """Whether the file that a process of the host runs is there, for us or for itself. Of one in a snap that is not
    mounted any more the kernel tells a path that is nowhere."""
    exe = process.facts["exe"]
    return process.facts["nested"] or host.exists(exe) or host.exists(f"/proc/{process.key}/root{exe}")


def snap_presence(host: Host, product: Product, listed: Mapping[str, tuple[Object, ...]]) -> tuple[Presence, str]:
    """How much of a snap there is. One that is disabled counts as installed, unless its last removal failed: then its
    services are gone, snapd has the rest, and only another removal takes that. Where snapd cannot be asked it counts as
    installed, and nothing of it goes."""
    try:
        known = snapd.snaps(host)
    except Unreadable as fault:
        return Presence.INSTALLED, f"for all that is known: {fault}"
    there = any(host.exists(path) for path in snapd.PROGRAMS)
    for name in product.snaps:
        snap = known.get(name)
        if snap is not None and not there:
            return Presence.REMOVED, f"snapd is not there any more, and {snapd.STATE} still has {name}"
        if snap is not None and snap.active:
            return Presence.INSTALLED, f"snapd has {name}"
        if snap is not None:
            failed = half_removed(host, snap, snapd.changes(host, name))
            if failed:
                return Presence.REMOVED, failed
            return Presence.INSTALLED, f"snapd has {name}, disabled"
        image = next((mount for mount in listed.get("mount", ()) if image_of(name, mount)), None)
        if image is not None:
            return Presence.INSTALLED, f"snapd has no {name}, but its image is mounted at {image.facts['point']}"
    return Presence.ABSENT, ""


def image_of(name: str, mount: Object) -> bool:
    """Whether a mount of the host is a revision of a snap. snapd unmounts it before it forgets the snap."""
    return bool(mount.facts["host"]) and bool(re.match(rf"/snap/{re.escape(name)}/x?[0-9]+\Z", mount.facts["point"]))


def shares_directory(process: Object, product: Product, listed: Mapping[str, tuple[Object, ...]]) -> bool:
    """Whether a container's process has the host's own directory of the product: it stands on the host's root, or
    has something mounted at that place that is of the same file system."""
    mounts = Case(product.name, Presence.ABSENT, listed).mounts()
    root = place(mounts, "/")
    here = {directory.path: place(mounts, directory.path) for directory in product.directories}
    for other in listed["process"]:
        if other.facts["mntns"] != process.facts["mntns"]:
            continue
        if other.facts.get("mount_root") == list(root or ()) or other.facts["our_mnt"]:
            return True
        for majmin, point in other.facts.get("mount_points", ()):
            found = here.get(point)
            if found and found[0] == majmin:
                return True
    return False


def remembered(memory: Memory | None, listed: Mapping[str, tuple[Object, ...]], boot_id: str) -> dict[str, Claim]:
    """The ledger's claims for objects that are still exactly what they were: same boot, same identity."""
    if memory is None or memory.boot_id != boot_id:
        return {}
    found = {}
    for objects in listed.values():
        for obj in objects:
            claim = memory.claims.get(obj.id)
            if claim is not None and claim.object.identity == obj.identity:
                found[obj.id] = replace(claim, object=replace(obj, facts={**claim.object.facts, **obj.facts}))
    return found


def by_object(claims: Mapping[str, Mapping[str, Claim]]) -> dict[str, dict[str, Claim]]:
    found: dict[str, dict[str, Claim]] = {}
    for product, own in claims.items():
        for id, claim in own.items():
            found.setdefault(id, {})[product] = claim
    return found
