"""Mapped Ceph images, from a tree as Documentation/ABI/testing/sysfs-bus-rbd of the kernel describes it."""

from __future__ import annotations

import pathlib

from leftovers.host import Host
from leftovers.kinds.kind import Look
from leftovers.kinds.rbd import CephImages


def test_images(tmp_path: pathlib.Path) -> None:
    for number, pool, image in (("0", "incus", "container_c1"), ("12", "office", "files")):
        directory = tmp_path / "sys/bus/rbd/devices" / number
        directory.mkdir(parents=True)
        for name, value in (("pool", pool), ("name", image), ("client_id", "client4123")):
            (directory / name).write_text(f"{value}\n")
    (tmp_path / "sys/bus/rbd/devices/3").mkdir()  # as it goes
    found = {obj.key: obj.facts for obj in CephImages().survey(Look(Host(str(tmp_path)))).objects}
    assert found == {
        "/dev/rbd0": {"device": "/dev/rbd0", "pool": "incus", "image": "container_c1"},
        "/dev/rbd12": {"device": "/dev/rbd12", "pool": "office", "image": "files"},
    }


def test_none(tmp_path: pathlib.Path) -> None:
    assert CephImages().survey(Look(Host(str(tmp_path)))).objects == ()
