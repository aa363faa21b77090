"""Which directories are a member's own, and which of them are only known to it."""

from __future__ import annotations

from shlex import quote

from leftovers.claims import Case, Finding
from leftovers.model import Evidence, Object, Role
from leftovers.products.family.names import LAYOUT, Named, Names
from leftovers.products.family.processes import other_liblxc
from leftovers.products.family.reading import VOLUMES, external_pools
from leftovers.products.product import Directory

LOCKS = "/run/lxc/lock"


def directories(names: Names) -> tuple[Directory, ...]:
    """What the product declares on disk of its own."""
    # Of a snap all that is named for its data: nobody else has a path there.
    lock = f"{LOCKS}/var/snap/{names.snap}" if names.snap else f"{LOCKS}{names.directory}"
    return (
        *(Directory(path, Role.DATA if data else Role.LIVE, source) for path, data, source in names.own),
        Directory(lock, Role.LIVE, "liblxc's locks for that directory (lxc/src/lxc/lxclock.c)"),
    )


def directory(names: Names, obj: Object, case: Case) -> Finding | None:
    declared = next((declared for declared in directories(names) if declared.path == obj.key), None)
    if declared is None:
        return None
    package = Evidence("package", declared.source)
    if obj.facts["type"] == "remote":
        reason = f"a directory of {names.title} on a network or FUSE file system"
        return Finding(reason, (package,), proven=False, advice=f"rm -r {quote(obj.key)}")
    if obj.facts["mounted"] and not case.is_proven("mount", obj.key):
        return on_a_mount(names, obj, case, package)
    if obj.key == names.directory and "database" in obj.facts["entries"]:
        # A purge deletes the database first of all. Whoever has one either did not purge, or has a daemon that
        # did not come from a package.
        said = Evidence("disk", f"{names.directory}/database is there: no purge of the package has been here")
        return Finding(f"{names.possessive} data, with its database", (said,), role=Role.EXTERNAL)
    reason = f"a {obj.facts['type']} of {names.title}"
    return Finding(reason, (package,), role=declared.role)


def on_a_mount(names: Names, obj: Object, case: Case, package: Evidence) -> Finding:
    """A directory of the product's that the administrator has mounted something on. Nothing is deleted behind a mount,
    but for one that the host's configuration asks for: then it is the disk that he gave to the product."""
    configured = next(
        (mount.facts["configured"] for mount in case.objects("mount") if mount.facts["host"] and mount.key == obj.key),
        "",
    )
    if configured:
        said = (package, Evidence("disk", f"{configured} asks for a mount there"))
        reason = f"a directory of {names.title}, on a disk of its own"
        return Finding(reason, said, role=Role.EXTERNAL, facts={"contents": True})
    said = (package, Evidence("kernel", f"something is mounted there, and not by {names.title}"))
    return Finding(
        f"a directory of {names.title} behind a mount", said, proven=False, advice=f"umount {quote(obj.key)}"
    )


def elsewhere(names: Names, obj: Object, case: Case) -> Finding | None:
    """The data directory at another place: behind a symlink, or named by INCUS_DIR or LXD_DIR. No purge deletes it."""
    record = next((record for record in case.records_of("place") if record.facts["path"] == obj.key), None)
    if record is None or obj.facts["type"] != "directory":
        return None
    said = (Evidence(record.source, str(record.facts["why"])),)
    own = set(obj.facts["entries"]) <= LAYOUT and obj.key.count("/") >= 2 and not obj.facts["mounted"]
    if own:
        return Finding(
            f"{names.possessive} directory, at another place", said, role=Role.EXTERNAL, facts={"strict": True}
        )
    return Finding(f"{names.possessive} directory, at another place, with other things in it", said, role=Role.ADMIN)


def lock_parents(names: Names, obj: Object, case: Case) -> Finding | None:
    """liblxc makes /run/lxc/lock/LXCPATH with all its parents; other lxcpaths live beside it."""
    if obj.key == f"{LOCKS}/var/snap" and names.snap and set(obj.facts["entries"]) == {names.snap}:
        held = Evidence("disk", f"holds {names.snap}, and nothing else")
        return Finding("liblxc's lock directory, for snaps", (held,), facts={"only_hollow": True})
    if obj.key != "/run/lxc" or not obj.facts["hollow"] or other_liblxc(names, case):
        return None
    said = (
        Evidence("disk", "holds directories and no file"),
        Evidence("kernel", "no other product of liblxc runs or is installed"),
    )
    return Finding("liblxc's lock directory, empty", said, facts={"only_hollow": True})


def dnsmasq_directory(names: Names, obj: Object, case: Case) -> Finding | None:
    if names.snap or obj.key != "/etc/dnsmasq.d" or obj.facts["type"] != "directory" or obj.facts["entries"]:
        return None
    said = (Evidence("package", f"{names.package}'s postinst makes it if it is not there, and nothing removes it"),)
    return Finding(
        f"an empty directory that {names.title} may have made", said, role=Role.SYSTEM, advice="rmdir /etc/dnsmasq.d"
    )


def volumes(names: Names, obj: Object, case: Case) -> Finding | None:
    """Volumes in a pool whose source lies outside, and that source itself. A path that is only written down proves
    nothing about what stands there now: the source must be the very directory that the kernel had shown."""
    for source, (record, inode) in case.cached("family.pools", lambda: external_pools(names, case.records)).items():
        if obj.key != source and obj.key not in {f"{source}/{name}" for name in VOLUMES}:
            continue
        said = Evidence(record.source, f"pool {record.name} has its source at {source}")
        if obj.key == source:
            return Finding("the source of a pool, the administrator's directory", (said,), role=Role.ADMIN)
        if obj.facts["type"] != "directory":
            return None
        now = next((file.identity[2] for file in case.objects("file") if file.key == source), 0)
        if inode and now == inode:
            reason = f"volumes of pool {record.name}"
            return Finding(reason, (said,), role=Role.EXTERNAL, facts={"strict": True})
        reason = f"perhaps volumes of pool {record.name}"
        return Finding(reason, (said,), proven=False, role=Role.ADMIN, advice=f"rm -r {quote(obj.key)}")
    return None


def disk_source(names: Names, obj: Object, case: Case) -> Finding | None:
    for record in case.records_of("instance"):
        for disk in record.facts.get("disks", ()):
            if str(disk.get("source", "")).rstrip("/") == obj.key and not disk.get("pool"):
                said = Evidence(record.source, f"{record.name} {disk.get('device')}: mounted at {disk.get('path')}")
                reason = "the administrator's directory, an instance had it"
                return Finding(reason, (said,), role=Role.ADMIN)
    return None


RULES: tuple[Named, ...] = (directory, elsewhere, volumes, lock_parents, dnsmasq_directory, disk_source)
