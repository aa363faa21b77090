"""CRI-O, of its own packages (cri-o/packaging; it is in no archive of Debian's): what is its own.

Its monitors are Podman's (conmon) and go on without it, and so is its store; its networks are CNI's. Its containers are
those that containers.json has with its metadata, or that a monitor with its arguments holds the fifos of; their ids are
random. What is named for one of these is its own. Of the store nothing is deleted: Podman and buildah have it, too.
"""

from __future__ import annotations

from leftovers import claims
from leftovers.products.containers import firewall, network
from leftovers.products.containers.names import rules
from leftovers.products.crio import storage
from leftovers.products.crio.instances import instances
from leftovers.products.crio.names import PROGRAMS, RUNTIME, UNITS
from leftovers.products.crio.ports import profile, rule, table
from leftovers.products.crio.processes import MONITOR, PROCESSES, cgroup, netns
from leftovers.products.crio.reading import READERS, places
from leftovers.products.product import Product

__all__ = ["PRODUCT"]

PRODUCT = Product(
    name="crio",
    title="CRI-O",
    packages=("cri-o",),
    daemons=PROGRAMS,
    units=UNITS,
    directories=storage.directories(),
    nft_tables=("inet cni_plugins_masquerade", "ip cni_hostport", "ip6 cni_hostport"),
    readers=READERS,
    places=places,
    rules={
        "unit": (claims.declared_unit(*UNITS),),
        "process": PROCESSES,
        "cgroup": (cgroup, claims.unit_cgroup(UNITS[0])),
        "netns": (netns,),
        "mount": (storage.mount,),
        "link": rules(RUNTIME, *network.LINKS),
        "xtables": (rule, *rules(RUNTIME, *firewall.XTABLES)),
        "nft": (table, *rules(RUNTIME, firewall.table)),
        "nftrule": rules(RUNTIME, firewall.nft_rule),
        "apparmor": (profile,),
        "file": storage.FILES,
    },
    recall=frozenset({"process", "mount"}),
    instance_processes=(MONITOR,),
    instances=instances,
)
