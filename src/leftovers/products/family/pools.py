"""Volume groups of LVM that a member has used: those that stay."""

from __future__ import annotations

import re

from leftovers.claims import Case, Finding, mount_of_pool
from leftovers.model import Evidence, Object, Role
from leftovers.mountinfo import below
from leftovers.products.family.names import Names

# An image is named for its hash (storage/drivers/driver_lvm_utils.go, lvmFullVolumeName).
IMAGE = re.compile(r"images_[0-9a-f]{64}\Z")


def group(names: Names, obj: Object, case: Case) -> Finding | None:
    """A group that was there before, and was given for a pool (source=GROUP): it is the administrator's, and what the
    pool has in it is data. The daemon marks each group that it uses (driver_lvm.go, lvmVgPoolMarker)."""
    if obj.facts["type"] != "lvm":
        return None
    name, mark = obj.facts["name"], f"{names.called}_pool"
    marked = mark in obj.facts["tags"]
    mount = mount_of_pool(obj, case)
    said = [Evidence("disk", f"has the tag {mark}")] if marked else []
    if mount is not None:
        said.append(Evidence("kernel", f"{mount.facts['source']} is mounted at {mount.facts['point']}"))
    if not said:
        return None
    files = obj.facts["backing"]
    if files and len(files) == len(obj.facts["devices"]) and all(below(file, names.directory) for file in files):
        reason = f"perhaps a storage pool of {names.title}, or that of one in a container"
        advice = f"vgchange -an {name}"
        return Finding(reason, tuple(said), proven=False, role=Role.ADMIN, advice=advice)
    volumes = obj.facts["volumes"]
    own = {volumes[mount.facts["majmin"]]} if mount is not None and mount.facts["majmin"] in volumes else set()
    # Two dashes for one: snapshots have a single one (lvmFullVolumeName).
    instances = {record.name.replace("-", "--") for record in case.records_of("instance")}
    wanted = {f"{type}_{instance}" for type in ("containers", "virtual-machines") for instance in instances}
    own |= {volume for volume in volumes.values() if volume in wanted or IMAGE.match(volume)}
    commands = [f"lvs {name}", *(f"lvremove {name}/{volume}" for volume in sorted(own))]
    if marked:
        commands.append(f"vgchange --deltag {mark} {name}")
    return Finding(
        f"the administrator's volume group, {names.title} has volumes in it",
        tuple(said),
        role=Role.ADMIN,
        advice="; ".join(commands),
    )
