"""Kinds of host objects: one file each. They know no product.

This is the closed list, in the order in which a sweep goes through them (facts: "Safe order", all runtimes):
what could bring something back goes first, what others stand on goes last.
"""

from __future__ import annotations

from leftovers.kinds.accounts import Accounts
from leftovers.kinds.addresses import Addresses
from leftovers.kinds.apparmor import AppArmor
from leftovers.kinds.bpf import BpfObjects
from leftovers.kinds.cgroups import Cgroups
from leftovers.kinds.elsewhere import Elsewhere
from leftovers.kinds.files import Files
from leftovers.kinds.ipsets import IpSets
from leftovers.kinds.ipvs import VirtualServers
from leftovers.kinds.kind import Kind, Look
from leftovers.kinds.links import Links
from leftovers.kinds.loops import LoopDevices
from leftovers.kinds.mounts import Mounts
from leftovers.kinds.netns import NetworkNamespaces
from leftovers.kinds.nft import NftTables
from leftovers.kinds.nft_rules import NftRules
from leftovers.kinds.ovs import OpenVSwitch
from leftovers.kinds.pools import StoragePools
from leftovers.kinds.processes import Processes
from leftovers.kinds.rbd import CephImages
from leftovers.kinds.routes import Routes
from leftovers.kinds.rules import RoutingRules
from leftovers.kinds.sysctls import Sysctls
from leftovers.kinds.units import Units
from leftovers.kinds.xtables import XtablesRules

__all__ = ["KINDS", "Kind", "Look", "survey_order"]

KINDS: tuple[Kind, ...] = (
    Units(),
    Processes(),
    XtablesRules(),
    NftRules(),
    NftTables(),
    IpSets(),
    VirtualServers(),
    OpenVSwitch(),
    BpfObjects(),
    RoutingRules(),
    Routes(),
    Addresses(),
    Links(),
    NetworkNamespaces(),
    Mounts(),
    CephImages(),
    StoragePools(),
    LoopDevices(),
    AppArmor(),
    Cgroups(),
    Files(),
    Accounts(),
    Sysctls(),
    Elsewhere(),
)


def survey_order() -> list[Kind]:
    """The kinds so that each comes after those that it needs."""
    order: list[Kind] = []
    names = {kind.name: kind for kind in KINDS}

    def visit(kind: Kind) -> None:
        if kind not in order:
            for name in kind.needs:
                visit(names[name])
            order.append(kind)

    for kind in KINDS:
        visit(kind)
    return order
