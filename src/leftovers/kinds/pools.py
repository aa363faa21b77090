"""Storage pools that keep a loop device or a file busy: zpools and active LVM volume groups.

LVM is tried in the lab's guest (tests/lab/test_guest.py). Of ZFS there was no kernel: the output of zpool in the tests
was put together after zpool-list(8) and print_list_stats() in OpenZFS's cmd/zpool/zpool_main.c.

They are exported and deactivated, never destroyed: what is in them is data.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leftovers.errors import ToolFault
from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb
from leftovers.run import find, run

__all__ = ["StoragePools"]

LOOP = re.compile(r"(/dev/loop\d+)(?:p\d+)?")


class StoragePools(Kind):
    """One object for each imported zpool and for each volume group with an active volume.

    A group without one holds nothing in the kernel: it is deactivated, which is all that is ever done to it.
    """

    name = "pool"
    title = "pools on loop devices and files"
    needs = ("loop",)
    settle = 10.0

    def survey(self, look: Look) -> Listing:
        """Keys "zfs NAME", "lvm NAME"; identity (type, name, guid); facts type, name, guid, devices, backing, tags,
        volumes.

        devices are the paths of vdevs or physical volumes; backing the files that are vdevs themselves or stand
        behind a loop device among them, one for each such device. tags are those of a volume group; volumes its
        active ones, {"MAJOR:MINOR": name}.
        """
        loops = {str(loop.facts["device"]): str(loop.facts["backing_file"]) for loop in look.objects("loop")}
        objects: list[Object] = []
        faults: list[str] = []
        for pools in (zpools, volume_groups):
            try:
                objects += (described(look.host, pool, loops) for pool in pools(look.host))
            except ToolFault as fault:
                faults.append(f"storage pools: {fault}")
        return Listing(tuple(objects), tuple(faults))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        causes: dict[str, str] = {}
        for object in objects:
            type, name, guid = (str(part) for part in object.identity)
            if deadline.passed():
                causes[object.id] = "no time left"
                continue
            try:
                present = zpools(host) if type == "zfs" else volume_groups(host)
                if not any(pool.name == name and pool.guid == guid for pool in present):
                    continue
                # zpool takes a name only, so that the guid is compared as late as can be. Of two groups of one name
                # LVM would not know which is meant.
                lvm = ["vgchange", "--activate", "n", "--select", f"vg_uuid={guid}"]
                run(["zpool", "export", name] if type == "zfs" else lvm, timeout=max(1.0, deadline.left()))
            except ToolFault as fault:
                causes[object.id] = fault.cause
        return causes


@dataclass(frozen=True, slots=True)
class Pool:
    type: str
    name: str
    guid: str
    devices: list[str]
    tags: list[str] = field(default_factory=list)
    volumes: dict[str, str] = field(default_factory=dict)


def described(host: Host, pool: Pool, loops: Mapping[str, str]) -> Object:
    facts = {
        "type": pool.type,
        "name": pool.name,
        "guid": pool.guid,
        "devices": pool.devices,
        "backing": list(backing(host, pool.devices, loops)),
        "tags": pool.tags,
        "volumes": pool.volumes,
    }
    return Object("pool", f"{pool.type} {pool.name}", (pool.type, pool.name, pool.guid), facts)


def backing(host: Host, devices: Sequence[str], loops: Mapping[str, str]) -> Iterator[str]:
    """The files under a pool: those of loop devices or their partitions, and files that are vdevs themselves."""
    for device in devices:
        # /dev/disk/by-id/... of a loop device leads to it. A recorded tree has no devices to lead to.
        real = device if host.root else os.path.realpath(device)
        loop = LOOP.fullmatch(real)
        if loop:
            if loop[1] in loops:
                yield loops[loop[1]]
        elif not device.startswith("/dev/"):
            yield device


def zpools(host: Host) -> Iterator[Pool]:
    """Imported zpools; none without the kernel module, which `zpool` would load. Raises ToolFault."""
    if not (host.exists("/sys/module/zfs") or host.exists("/proc/spl")) or find("zpool") is None:
        return
    vdevs = vdevs_by_pool(run(["zpool", "list", "-v", "-H", "-P"]).out)
    for line in run(["zpool", "list", "-H", "-o", "name,guid"]).out.splitlines():
        name, tab, guid = line.partition("\t")
        if tab:
            yield Pool("zfs", name, guid.strip(), vdevs.get(name, []))


def vdevs_by_pool(text: str) -> dict[str, list[str]]:
    """The paths in `zpool list -v -H -P`: a pool's line starts with its name, those of its vdevs with a tab.

    Lines that are no path are mirrors, raidz and the headings of logs, caches and spares.
    """
    pools: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        fields = line.split("\t")
        path = next((field for field in fields if field.strip()), "").strip()
        if path.startswith("/"):
            pools.setdefault(name, []).append(path)
        elif not line.startswith(("\t", " ")) and len(fields) > 2:
            name = path
    return pools


def volume_groups(host: Host) -> Iterator[Pool]:
    """Volume groups with active volumes; none without device-mapper. Raises ToolFault.

    What is active the kernel says: a volume's dm uuid is "LVM-", the uuid of its group and its own. So vgs, which
    reads every disk, runs only where there is one; with --readonly it takes no lock and writes nothing (lvm(8)).
    """
    active = active_volumes(host)
    if not active or find("vgs") is None:
        return
    fields = "vg_name,vg_uuid,pv_name,vg_tags"
    said = run(["vgs", "--readonly", "--reportformat", "json", "-o", fields], timeout=60.0).out
    groups: dict[str, Pool] = {}
    for row in rows(said):
        name, uuid = str(row["vg_name"]), str(row["vg_uuid"])
        tags = [tag for tag in str(row.get("vg_tags", "")).split(",") if tag]
        volumes = active.get(uuid.replace("-", ""), {})
        groups.setdefault(uuid, Pool("lvm", name, uuid, [], tags, volumes)).devices.append(str(row["pv_name"]))
    yield from (group for group in groups.values() if group.volumes)


def rows(said: str) -> list[dict[str, Any]]:
    """The rows of an LVM report, one for each group and physical volume. Raises ToolFault."""
    try:
        return [row for report in json.loads(said)["report"] for row in report["vg"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ToolFault("vgs", f"said something else than a report: {error}") from error


def active_volumes(host: Host) -> dict[str, dict[str, str]]:
    """Active volumes by the uuid of their group without its dashes: {"MAJOR:MINOR": name}. A thin pool has hidden ones,
    too. In a device's name a dash is doubled, and a single one divides group and volume (lvm(8), dm_build_dm_name)."""
    groups: dict[str, dict[str, str]] = {}
    for device in host.listdir("/sys/block"):
        if device.startswith("dm-"):
            try:
                uuid = host.read(f"/sys/block/{device}/dm/uuid").strip()
                name = host.read(f"/sys/block/{device}/dm/name").strip()
                number = host.read(f"/sys/block/{device}/dev").strip()
            except OSError:
                continue  # removed as we looked
            if uuid.startswith("LVM-"):
                volume = re.split(r"(?<!-)(?:--)*-(?!-)", name, maxsplit=1)[-1].replace("--", "-")
                groups.setdefault(uuid[4:36], {})[number] = volume
    return groups
