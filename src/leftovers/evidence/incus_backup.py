"""backup.yaml: what Incus writes into every instance's volume, so that the instance can be recovered from it.

Incus does not write it for every change of a volatile key (internal/server/instance/drivers, UpdateBackupFile); in
6.0.4 it has the host_name of each nic after `incus start`.
"""

from __future__ import annotations

from leftovers.errors import Unreadable
from leftovers.evidence import files, incus_records, yaml
from leftovers.evidence.files import note
from leftovers.host import Host
from leftovers.model import Deadline, Record

__all__ = ["read"]

LIMIT = 16 * files.MIB  # it holds every snapshot's configuration too
SECONDS = 60.0
TYPES = {"containers": "container", "virtual-machines": "virtual-machine"}


def read(host: Host, directory: str) -> tuple[list[Record], list[str]]:
    """The instances, and the pools they are in, of <directory>/storage-pools/*/{containers,virtual-machines}/*.

    A volume that is not mounted (a stopped instance on zfs, btrfs or LVM) shows no backup.yaml: that is no fault.
    """
    base = f"{directory}/storage-pools"
    deadline = Deadline(SECONDS)
    records: list[Record] = []
    faults: list[str] = []
    pools: set[str] = set()
    for pool in files.directories(host, base, "", faults):
        for kind in TYPES:
            for volume in files.directories(host, base, f"{pool}/{kind}", faults):
                if deadline.passed():
                    note(faults, base, f"not all read within {SECONDS:.0f} s")
                    return records, faults
                for record in volume_records(host, base, pool, kind, volume, faults):
                    if record.type != "pool":
                        records.append(record)
                    elif record.name not in pools:  # each volume tells of its pool: once is enough
                        pools.add(record.name)
                        records.append(record)
    return records, faults


def volume_records(host: Host, base: str, pool: str, kind: str, volume: str, faults: list[str]) -> list[Record]:
    """The instance and the pool of one volume."""
    below = f"{pool}/{kind}/{volume}/backup.yaml"
    path = f"{base}/{below}"
    try:
        data = files.read(host, base, below, LIMIT)
        if data is None:
            return []
        document = yaml.load(data)
    except Unreadable as error:
        note(faults, error.what, error.cause)
        return []
    except ValueError as error:
        note(faults, path, str(error))
        return []
    if not isinstance(document, dict):
        note(faults, path, "not a mapping")
        return []
    # "container" is also a virtual machine's key; LXD 6 writes "instance" (internal/server/backup/config).
    instance = document.get("container") or document.get("instance")
    if not isinstance(instance, dict):
        note(faults, path, "no instance in it")
        return []
    found = [incus_records.instance("disk", path, {**instance, "type": TYPES[kind]}, faults)]
    if isinstance(document.get("pool"), dict):
        found.append(incus_records.pool("disk", path, document["pool"], faults))
    expected = {"instance": volume, "pool": pool}
    records = []
    for record in found:
        if record is not None and record.name != expected[record.type]:
            # A copied volume, or one that its own content wrote: not what stands here.
            note(faults, path, f"is of {record.type} {record.name[:80]}, not {expected[record.type]}")
        elif record is not None:
            records.append(record)
    return records
