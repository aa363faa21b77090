"""Incus and LXD: a fork and its ancestor, whose leftovers have the same shapes under other names.

Sources, read in lxc/incus (stable-6.0, main), in canonical/lxd (5.0) and in Debian's packages of both; each rule names
its own. `product` makes a member's description from its Names and from what else is different.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from leftovers import claims
from leftovers.claims import Rule
from leftovers.model import Role
from leftovers.products.family import (
    belongings,
    elsewhere,
    files,
    firewall,
    instances,
    network,
    ovs,
    pools,
    processes,
    reading,
)
from leftovers.products.family.names import HELPER, HELPERS, MONITOR, MOUNTED, PAYLOAD, QEMU, ROOTFS, Names, rules
from leftovers.products.product import Directory, Product

__all__ = ["Names", "product"]


def mounts(names: Names) -> tuple[Rule, ...]:
    """What is mounted in its directory, and where it mounts besides. That directory may lie in the other: what is said
    of the inner one comes first."""
    found = [claims.mounted_at(names.directory, *MOUNTED, reason=f"a mount of {names.title}")]
    if names.mounted[0]:
        found.append(claims.mounted_at(names.mounted[0], *names.mounted[1], reason=f"a mount of {names.title}"))
    return tuple(found)


def reported(names: Names, reason: str) -> Rule:
    """What is the same for all who make it. Of a snap, which is mostly elsewhere, it is only told where that was."""
    rule = claims.reported(reason)
    return lambda obj, case: None if names.snap and not processes.trace(names, case) else rule(obj, case)


def product(names: Names, **different: Any) -> Product:
    """The description of a member. `different` has what Names has no word for: packages, accounts, successors ..."""
    directory, container = names.directory, "a container's process"
    return Product(
        name=names.name,
        title=names.title,
        units=names.units,
        directories=(
            *files.directories(names),
            Directory("/run/lxc", Role.LIVE, "liblxc (lxc/src/lxc/lxclock.c)"),
            *((Directory(f"{files.LOCKS}/var/snap", Role.LIVE, "the same"),) if names.snap else ()),
            *(() if names.snap else (Directory("/etc/dnsmasq.d", Role.SYSTEM, f"{names.package}'s postinst"),)),
            *(Directory(path, Role.ADMIN, "another product of liblxc") for path in names.others),
            *(Directory(path, Role.ADMIN, "another one of that name") for path in names.twins),
            *(Directory(f"{path}/networks", Role.ADMIN, "another one of that name") for path in names.twins),
        ),
        readers=tuple(
            partial(reader, names)
            for reader in (
                reading.read_api,
                reading.read_database,
                reading.read_disk,
                reading.read_kernel,
                reading.read_places,
                reading.read_programs,
            )
        ),
        places=partial(reading.places, names),
        elsewhere=partial(elsewhere.texts, names),
        relies=ovs.relied,
        instance_processes=("a container's init", "a virtual machine"),
        stop=partial(instances.stop, names),
        start=partial(instances.start, names),
        instances=partial(belongings.instances, names),
        rules={
            "unit": (claims.declared_unit(*names.units),),
            "process": (
                *rules(names, processes.monitor),
                claims.runs(*names.daemons, *names.helpers, reason=f"{names.possessive} daemon or a helper of it"),
                # driver_qemu.go; device/device_utils_disk.go (LXD 5.0: "-o source=...", and a virtfs-proxy-helper
                # beside it), tpm.go; OCI and per-instance lxcfs in Incus 7.x.
                claims.runs_with(("-readconfig", "-pidfile"), (names.run,), *QEMU, reason="a virtual machine", rank=1),
                claims.runs_with(
                    ("--shared-dir", "-o", "--path", "--socket-path", "--ctrl", "--tpmstate", "-p", "--pidfile"),
                    (f"{directory}/devices", f"{directory}/virtual-machines", names.run),
                    *HELPERS,
                    reason=HELPER,
                    rank=3,
                ),
                *rules(names, processes.helper_child),
                claims.child_of("a container's init", rank=1),
                claims.in_cgroup(container, rank=1),
                claims.rooted_below(directory, "/storage-pools", ROOTFS, container, rank=1),
                # device/disk.go and driver_lxc.go: what all have mounted, and the instance's part of shmounts.
                claims.given(*names.points, reason=container, rank=1),
                claims.shares_mounts(container, rank=1),
                *rules(names, processes.dnsmasq),
                claims.in_unit(f"started by one of {names.possessive} units", rank=3),
                *rules(names, processes.program, processes.tied_process),
            ),
            "cgroup": (
                claims.holds_proven(PAYLOAD, "a container's cgroup"),
                claims.holds_proven(MONITOR, "the cgroup of a container's monitor"),
                claims.unit_cgroup(*names.units),
                *rules(names, processes.empty_cgroup),
            ),
            "netns": (claims.netns_of_processes("an instance's network namespace"),),
            "mount": mounts(names),
            "nft": rules(names, firewall.nft_table),
            "xtables": rules(names, firewall.xtables_rule),
            # The pair first: each of its ends would prove the other an instance's.
            "link": rules(names, ovs.uplink_pair, *network.RULES),
            "ovs": rules(names, *ovs.RULES),
            "elsewhere": rules(names, elsewhere.told),
            "rbd": rules(names, elsewhere.mapped),
            "loop": (claims.backed_below(directory, "/disks", "the device of a storage pool"),),
            "pool": (claims.pool_on_loops(f"{directory}/disks", "a storage pool"), *rules(names, pools.group)),
            "apparmor": rules(names, firewall.apparmor),
            "file": rules(names, *files.RULES),
            "account": (reported(names, f"made by {names.possessive} package"),),
            "sysctl": (reported(names, f"{names.title} sets it; what stood before is not known"),),
        },
        holds={
            "link": rules(names, network.used_bridge),
            "xtables": rules(names, firewall.used_chain),
            "ovs": rules(names, ovs.used_switch),
        },
        **different,
    )
