"""Images of a Ceph cluster that the kernel has mapped to a block device: listed, and reported with `rbd unmap`.

Only tried on recorded data: it takes a Ceph cluster to map one. The layout is that of the kernel's
Documentation/ABI/testing/sysfs-bus-rbd.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb

__all__ = ["CephImages"]

DEVICES = "/sys/bus/rbd/devices"


class CephImages(Kind):
    """Facts: device (/dev/rbdN), pool, image. Never unmapped: that waits for the cluster, and there may be none."""

    name: ClassVar[str] = "rbd"
    title: ClassVar[str] = "mapped Ceph images"
    verbs: ClassVar[tuple[Verb, ...]] = ()

    def survey(self, look: Look) -> Listing:
        objects = []
        for number in look.host.listdir(DEVICES):
            try:
                said = [look.host.read(f"{DEVICES}/{number}/{name}", 4096).strip() for name in ("pool", "name")]
                unique = look.host.read(f"{DEVICES}/{number}/client_id", 4096).strip()
            except OSError:
                continue  # unmapped as we looked
            device = f"/dev/rbd{number}"
            facts = {"device": device, "pool": said[0], "image": said[1]}
            objects.append(Object("rbd", device, (device, *said, unique), facts))
        return Listing(tuple(objects))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        return {obj.id: "images of other machines are never unmapped" for obj in objects}
