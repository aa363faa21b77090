"""Which directories are Incus' own, and which of them are only known to it."""

from __future__ import annotations

from leftovers.claims import Case, Finding, Rule
from leftovers.model import Evidence, Object, Role
from leftovers.products.incus.names import DIRECTORY, LAYOUT, RUN
from leftovers.products.incus.processes import other_liblxc
from leftovers.products.incus.reading import VOLUMES, external_pools
from leftovers.products.product import Directory

DIRECTORIES = (
    Directory(DIRECTORY, Role.DATA, "incus-base's postrm purge deletes it (Debian incus 6.0.4, 7.0.2)"),
    Directory("/var/cache/incus", Role.DATA, "incus-base's postrm purge deletes it (Debian incus 6.0.4, 7.0.2)"),
    Directory("/var/log/incus", Role.DATA, "incus-base's postrm purge deletes it (Debian incus 6.0.4, 7.0.2)"),
    Directory(RUN, Role.LIVE, "incusd makes it (internal/server/sys/os.go, RunDir)"),
    Directory(f"/run/lxc/lock{DIRECTORY}", Role.LIVE, "liblxc's locks for that directory (lxc/src/lxc/lxclock.c)"),
)


def directory(obj: Object, case: Case) -> Finding | None:
    declared = next((declared for declared in DIRECTORIES if declared.path == obj.key), None)
    if declared is None:
        return None
    package = Evidence("package", declared.source)
    if obj.facts["type"] == "remote":
        reason = "a directory of Incus on a network or FUSE file system"
        return Finding(reason, (package,), proven=False, advice=f"rm -r {obj.key}")
    if obj.facts["mounted"] and not case.is_proven("mount", obj.key):
        return on_a_mount(obj, case, package)
    if obj.key == DIRECTORY and "database" in obj.facts["entries"]:
        # A purge deletes the database first of all. Whoever has one either did not purge, or has an Incus that did
        # not come from a package.
        said = Evidence("disk", f"{DIRECTORY}/database is there: no purge of the package has been here")
        return Finding("Incus' data, with its database", (said,), role=Role.EXTERNAL)
    reason = "a directory of Incus" if obj.facts["type"] == "directory" else f"a {obj.facts['type']} of Incus"
    return Finding(reason, (package,), role=declared.role)


def on_a_mount(obj: Object, case: Case, package: Evidence) -> Finding:
    """A directory of Incus that the administrator has mounted something on. Nothing is deleted behind a mount, but
    for one that the host's configuration asks for: then it is the disk that he gave to Incus."""
    configured = next(
        (mount.facts["configured"] for mount in case.objects("mount") if mount.facts["host"] and mount.key == obj.key),
        "",
    )
    if configured:
        said = (package, Evidence("disk", f"{configured} asks for a mount there"))
        reason = "a directory of Incus, on a disk of its own"
        return Finding(reason, said, role=Role.EXTERNAL, facts={"contents": True})
    said = (package, Evidence("kernel", "something is mounted there, and not by Incus"))
    return Finding("a directory of Incus behind a mount", said, proven=False, advice=f"umount {obj.key}")


def elsewhere(obj: Object, case: Case) -> Finding | None:
    """Incus' directory at another place: behind a symlink, or named by INCUS_DIR. No purge deletes it."""
    record = next((record for record in case.records_of("place") if record.facts["path"] == obj.key), None)
    if record is None or obj.facts["type"] != "directory":
        return None
    said = (Evidence(record.source, str(record.facts["why"])),)
    own = set(obj.facts["entries"]) <= LAYOUT and obj.key.count("/") >= 2 and not obj.facts["mounted"]
    if own:
        return Finding("Incus' directory, at another place", said, role=Role.EXTERNAL, facts={"strict": True})
    return Finding("Incus' directory, at another place, with other things in it", said, role=Role.ADMIN)


def lock_parents(obj: Object, case: Case) -> Finding | None:
    """liblxc makes /run/lxc/lock/LXCPATH with all its parents; other lxcpaths live beside it."""
    if obj.key != "/run/lxc" or not obj.facts["hollow"] or other_liblxc(case):
        return None
    said = (
        Evidence("disk", "holds directories and no file"),
        Evidence("kernel", "no other product of liblxc runs or is installed"),
    )
    return Finding("liblxc's lock directory, empty", said, facts={"only_hollow": True})


def dnsmasq_directory(obj: Object, case: Case) -> Finding | None:
    if obj.key != "/etc/dnsmasq.d" or obj.facts["type"] != "directory" or obj.facts["entries"]:
        return None
    said = (Evidence("package", "incus-base's postinst makes it if it is not there, and nothing removes it"),)
    return Finding("an empty directory that Incus may have made", said, role=Role.SYSTEM, advice="rmdir /etc/dnsmasq.d")


def volumes(obj: Object, case: Case) -> Finding | None:
    """Volumes in a pool whose source lies outside, and that source itself. A path that is only written down proves
    nothing about what stands there now: the source must be the very directory that the kernel had shown."""
    for source, (record, inode) in case.cached("incus.pools", lambda: external_pools(case.records)).items():
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
        return Finding(reason, (said,), proven=False, role=Role.ADMIN, advice=f"rm -r {obj.key}")
    return None


def disk_source(obj: Object, case: Case) -> Finding | None:
    for record in case.records_of("instance"):
        for disk in record.facts.get("disks", ()):
            if str(disk.get("source", "")).rstrip("/") == obj.key and not disk.get("pool"):
                said = Evidence(record.source, f"{record.name} {disk.get('device')}: mounted at {disk.get('path')}")
                reason = "the administrator's directory, an instance had it"
                return Finding(reason, (said,), role=Role.ADMIN)
    return None


RULES: tuple[Rule, ...] = (directory, elsewhere, volumes, lock_parents, dnsmasq_directory, disk_source)
