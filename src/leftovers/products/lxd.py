"""LXD, of Debian (5.0.2 in bookworm and trixie): what is its own in the family.

It has no range of hardware addresses of its own, and no directory in /run: what liblxc was started with lies beside the
logs, and goes with a purge. Its daemon's file is its client for administrators too (`lxd init`).
"""

from __future__ import annotations

from leftovers.products.family import Names, product

PURGED = "lxd's postrm purge deletes it (Debian lxd 5.0.2)"
NAMES = Names(
    name="lxd",
    title="LXD",
    directory="/var/lib/lxd",
    run="/var/log/lxd",
    own=(
        ("/var/lib/lxd", True, PURGED),
        ("/var/log/lxd", True, PURGED),
        ("/var/cache/lxd", True, "lxd makes it, and no purge deletes it (Debian lxd 5.0.2)"),
    ),
    daemons=("/usr/bin/lxd", "/usr/sbin/lxd", "/usr/libexec/lxd/lxd"),
    helpers=("/usr/bin/lxd-user",),
    units=("lxd.service", "lxd.socket", "lxd-containers.service"),
    variable="LXD_DIR",
    points=("/dev/lxd", "/dev/.lxd-mounts"),
    ouis=(),
    host_names="lxd",
    # Not the group lxd: cloud images have it without LXD.
    accounts=("user _lxd",),
    others=(
        *("/usr/bin/lxc-start", "/snap/lxd/current"),
        *("/usr/libexec/incus/incusd", "/usr/lib/incus/incusd", "/usr/bin/incusd", "/opt/incus/bin/incusd"),
    ),
    client="lxc",
    package="lxd",
    twins=("/var/snap/lxd/common/lxd",),
)
PRODUCT = product(
    NAMES,
    daemons=NAMES.daemons,
    packages=("lxd",),
    companions=("lxcfs",),
    accounts=("group lxd", "user _lxd", "subuid _lxd", "subgid _lxd", "subuid root", "subgid root"),
    sysctls=(
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
        "fs.inotify.max_user_instances=1024",
    ),
    # lxd-to-incus moves instances and networks over as they are; the Incus packages then take LXD's place.
    successors=("incus-base", "incus"),
)
