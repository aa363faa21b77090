"""Podman and what it is made of: libpod, containers/storage, conmon, netavark.

There is no daemon: a monitor (conmon) keeps each container alive, and goes on when the package is gone. What is
Podman's own is known by the ids of its containers, which are random; what it shares with buildah and CRI-O (the store,
netavark's table and state) is its own while nobody else is to be seen there.
"""

from __future__ import annotations

from leftovers import claims
from leftovers.products.libpod import instances, network, processes, storage, users
from leftovers.products.libpod.names import MADE, PROGRAMS, UNITS
from leftovers.products.libpod.reading import readers
from leftovers.products.product import Product

__all__ = ["PODMAN_PRODUCT"]

PODMAN_PRODUCT = Product(
    name="podman",
    title="Podman",
    packages=("podman",),
    daemons=PROGRAMS,
    units=(*UNITS, *MADE),
    directories=storage.directories(),
    readers=(*readers, users.read_users),
    places=storage.places,
    rules={
        "unit": (claims.declared_unit(*UNITS), processes.unit),
        "process": (*processes.PROCESSES, users.kept_process),
        "cgroup": (processes.cgroup,),
        "netns": (processes.netns,),
        "mount": (storage.mount,),
        "link": network.LINKS,
        "nft": (network.table,),
        "xtables": (network.rule,),
        "apparmor": (network.profile,),
        "file": (*storage.FILES, users.kept),
    },
    recall=frozenset({"process", "link", "mount", "cgroup"}),
    instance_processes=(processes.MONITOR,),
    instances=instances.instances,
    orphans=instances.ORPHANS,
)
