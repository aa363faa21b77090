"""Incus: what its packages leave, and what proves that a thing is Incus' own.

Sources, read in lxc/incus (stable-6.0, main) and in Debian's incus 6.0.4 and 7.0.2 packages; each rule names its own.
"""

from __future__ import annotations

from leftovers import claims
from leftovers.model import Role
from leftovers.products.incus import files, firewall, instances, network, processes, reading
from leftovers.products.incus.names import (
    DAEMONS,
    DIRECTORY,
    HELPERS,
    MONITOR,
    MOUNTED,
    PAYLOAD,
    QEMU,
    RUN,
    UNITS,
    USER_DAEMONS,
)
from leftovers.products.product import Directory, Product

PRODUCT = Product(
    name="incus",
    title="Incus",
    packages=("incus-base", "incus"),
    daemons=DAEMONS,
    units=UNITS,
    directories=(
        *files.DIRECTORIES,
        Directory("/run/lxc", Role.LIVE, "liblxc (lxc/src/lxc/lxclock.c)"),
        Directory("/etc/dnsmasq.d", Role.SYSTEM, "incus-base's postinst"),
        *(Directory(path, Role.ADMIN, "another product of liblxc") for path in processes.OTHERS),
    ),
    accounts=("group incus", "group incus-admin", "user incus", "subuid root", "subgid root"),
    sysctls=(
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
        "fs.inotify.max_user_instances=1024",
    ),
    readers=(reading.read_api, reading.read_database, reading.read_disk, reading.read_kernel, reading.read_places),
    places=reading.places,
    instance_processes=("a container's init", "a virtual machine"),
    companions=("lxcfs",),
    stop=instances.stop,
    start=instances.start,
    rules={
        "unit": (claims.declared_unit(*UNITS),),
        "process": (
            processes.monitor,
            claims.runs(*DAEMONS, *USER_DAEMONS, reason="Incus' daemon or a helper of it"),
            claims.child_of("a container's init", rank=1),
            claims.in_cgroup("a container's process", rank=1),
            claims.rooted_below(DIRECTORY, "/storage-pools", "a container's process", rank=1),
            # device/disk.go and driver_lxc.go: guestapi and the instance's part of shmounts.
            claims.given("/dev/incus", "/dev/.incus-mounts", reason="a container's process", rank=1),
            claims.shares_mounts("a container's process", rank=1),
            processes.dnsmasq,
            # driver_qemu.go; device/disk.go, tpm.go; OCI and per-instance lxcfs in 7.x.
            claims.runs_with(("-readconfig", "-pidfile"), (RUN,), *QEMU, reason="a virtual machine", rank=1),
            claims.runs_with(
                ("--shared-dir", "--socket-path", "--ctrl", "--tpmstate", "-p", "--pidfile"),
                (f"{DIRECTORY}/devices", f"{DIRECTORY}/virtual-machines", RUN),
                *HELPERS,
                reason="a helper of an instance",
                rank=3,
            ),
            claims.in_unit("started by one of Incus' units", rank=3),
            processes.tied_process,
        ),
        "cgroup": (
            claims.holds_proven(PAYLOAD, "a container's cgroup"),
            claims.holds_proven(MONITOR, "the cgroup of a container's monitor"),
            processes.empty_cgroup,
        ),
        "netns": (claims.netns_of_processes("a container's network namespace"),),
        "mount": (claims.mounted_at(DIRECTORY, *MOUNTED, reason="a mount of Incus"),),
        "nft": (firewall.nft_table,),
        "xtables": (firewall.xtables_rule,),
        "link": network.RULES,
        "loop": (claims.backed_below(DIRECTORY, "/disks", "the device of a storage pool"),),
        "pool": (claims.pool_on_loops(f"{DIRECTORY}/disks", "a storage pool"),),
        "apparmor": (firewall.apparmor,),
        "file": files.RULES,
        "account": (claims.reported("made by Incus' package"),),
        "sysctl": (claims.reported("Incus sets it; what stood before is not known"),),
    },
)  # fmt: skip
