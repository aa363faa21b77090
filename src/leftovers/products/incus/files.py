"""Which directories are Incus' own, and which of them are only known to it."""

from __future__ import annotations

from leftovers.claims import Case, Finding
from leftovers.model import Evidence, Object, Role
from leftovers.products.incus.names import DIRECTORY, RUN
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
    for declared in DIRECTORIES:
        if obj.key == declared.path:
            reason = "a directory of Incus" if obj.facts["type"] == "directory" else f"a {obj.facts['type']} of Incus"
            if obj.key == DIRECTORY and "database" in obj.facts["entries"]:
                # A purge deletes the database first of all. Whoever has one either did not purge, or has an Incus
                # that did not come from a package.
                said = Evidence("disk", f"{DIRECTORY}/database is there: no purge of the package has been here")
                return Finding("Incus' data, with its database", (said,), role=Role.EXTERNAL)
            return Finding(reason, (Evidence("package", declared.source),), role=declared.role)
    return None


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
    """Volumes in a pool whose source lies outside, and that source itself."""
    for source, pool in case.cached("incus.pools", lambda: external_pools(case.records)).items():
        said = next(
            Evidence(record.source, f"pool {pool} has its source at {source}")
            for record in case.records_of("pool")
            if record.name == pool and str(record.facts.get("source", "")).rstrip("/") == source
        )
        if obj.key == source:
            return Finding("the source of a pool, the administrator's directory", (said,), role=Role.ADMIN)
        if obj.facts["type"] == "directory" and obj.key in {f"{source}/{name}" for name in VOLUMES}:
            return Finding(f"volumes of pool {pool}", (said,), role=Role.EXTERNAL)
    return None


def disk_source(obj: Object, case: Case) -> Finding | None:
    for record in case.records_of("instance"):
        for disk in record.facts.get("disks", ()):
            if str(disk.get("source", "")).rstrip("/") == obj.key and not disk.get("pool"):
                said = Evidence(record.source, f"{record.name} {disk.get('device')}: mounted at {disk.get('path')}")
                reason = "the administrator's directory, an instance had it"
                return Finding(reason, (said,), role=Role.ADMIN)
    return None
