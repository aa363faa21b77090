"""Incus' names: where its things are and what they are called."""

from __future__ import annotations

import re

DIRECTORY = "/var/lib/incus"
RUN = "/run/incus"
DAEMONS = ("/usr/libexec/incus/incusd", "/usr/lib/incus/incusd", "/usr/bin/incusd", "/opt/incus/bin/incusd")
USER_DAEMONS = ("/usr/libexec/incus/incus-user", "/usr/lib/incus/incus-user", "/opt/incus/bin/incus-user")
UNITS = (
    "incus.service",
    "incus.socket",
    "incus-startup.service",
    "incus-user.service",
    "incus-user.socket",
    "incus-lxcfs.service",
)
# Where Incus mounts in its directory (internal/server/sys/fs.go, storage/drivers, device/disk.go).
MOUNTED = ("shmounts", "guestapi", "devlxd", "devices", "storage-pools", "containers", "virtual-machines")
# internal/server/network/network_utils.go, RandomDevName and MACDevName.
TRANSIENT = re.compile(r"(veth|tap|mac)[0-9a-f]{8}\Z|(inc|ipvl)[0-9a-f]{10}\Z")
# The range that belongs to Zabbly, Incus' maintainers: nothing else hands out addresses from it. Before 6.0.1 it was
# 00:16:3e, which LXD, LXC and Xen use too, and which therefore only counts beside other proof.
OUI = "10:66:6a:"
SHARED_OUI = "00:16:3e:"
CHAIN = re.compile(r"(fwd|in|out|pstrt|prert|acl|aclin|aclout|aclfwd|fwdprert|fwdout|fwdpstrt|egress\.netprio)\..+\Z")
NETWORK_CHAIN = re.compile(r"(fwd|in|out|pstrt)\.(?P<network>.+)\Z")
COMMENT = re.compile(
    r"generated for Incus (network|network-forward|network-load-balancer|container|instance) (?P<of>.+)"
)
# lxc/src/lxc/cgroups/cgroup.h; a number follows when the name was taken, and "-1" may also be of the name itself.
PAYLOAD = r"/lxc\.payload\.[^/]+\Z"
MONITOR = r"/lxc\.monitor\.[^/]+\Z"
CLASH = re.compile(r"-[0-9]{1,3}\Z")
QEMU = tuple(f"qemu-system-{arch}" for arch in ("x86_64", "aarch64", "arm", "ppc64", "riscv64", "s390x"))
HELPERS = ("virtiofsd", "swtpm", "lxcfs")
# What a network's own tables and sets are called (drivers_nftables_templates.go); a name always follows the dot.
SETS = re.compile(r"bridges\Z|.+_(ipv4|ipv6|eth)\Z")
# What Incus makes in its directory (internal/server/sys/fs.go).
LAYOUT = frozenset(
    (
        *("backups", "containers", "containers-snapshots", "database", "devices", "disks", "guestapi", "images"),
        *("logs", "networks", "security", "shmounts", "storage-pools", "virtual-machines"),
        *("virtual-machines-snapshots", "server.crt", "server.key", "server.ca", "cluster.crt", "cluster.key"),
        *("unix.socket", "unix.socket.user"),
    )
)
