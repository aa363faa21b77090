"""LXD, the snap: what is its own in the family.

A product of its own beside Debian's LXD, and not another layout of that: both may be on one host (`lxd.migrate` moves
from the one to the other), each with its daemon, its data and its removal; to clean up after one says nothing of the
other. They call themselves the same in firewalls: what only has that word may be either's (Names.twins).

It brings its own lxcfs, dnsmasq, QEMU and Open vSwitch, which nobody else uses: they go with it. Sources, in
canonical/lxd-pkg-snap: snapcraft.yaml, snapcraft/commands/{daemon.start,daemon.stop,daemon.activate},
snapcraft/hooks/remove, shmounts/setup-shmounts.c.
"""

from __future__ import annotations

from leftovers.products.family import Names, product

COMMON = "/var/snap/lxd/common"
NAMES = Names(
    name="lxd-snap",
    title="LXD (snap)",
    directory=f"{COMMON}/lxd",
    run=f"{COMMON}/lxd/logs",
    own=(
        ("/var/snap/lxd", True, "snapd deletes it with the snap (overlord/snapstate/backend/snapdata.go)"),
        ("/tmp/snap-private-tmp/snap.lxd", True, "snap-confine makes it (cmd/snap-confine/mount-support.c)"),
        ("/run/sysctl.d/zz-lxd.conf", False, "snapcraft/hooks/remove deletes it"),
        (
            "/run/systemd/system/snap.lxd.daemon.service.d/lxd-shutdown.conf",
            False,
            "snapcraft/hooks/remove deletes it",
        ),
    ),
    daemons=(),
    helpers=(),
    units=(
        "snap.lxd.daemon.service",
        "snap.lxd.daemon.unix.socket",
        "snap.lxd.user-daemon.service",
        "snap.lxd.user-daemon.unix.socket",
        "snap.lxd.activate.service",
        "snap.lxd.workaround.service",
    ),
    variable="LXD_DIR",
    points=("/dev/lxd", "/dev/.lxd-mounts"),
    ouis=(),
    host_names="lxd",
    accounts=(),
    others=(
        # Not /usr/sbin/lxd: in Ubuntu that is what installs the snap (lxd-installer).
        *("/usr/bin/lxc-start", "/usr/bin/lxd", "/usr/libexec/lxd/lxd"),
        *("/usr/libexec/incus/incusd", "/usr/lib/incus/incusd", "/usr/bin/incusd", "/opt/incus/bin/incusd"),
    ),
    client="lxc",
    package="lxd",
    word="lxd",
    twins=("/var/lib/lxd",),
    snap="lxd",
    mounted=(COMMON, ("ns", "shmounts", "var/lib/lxcfs")),
)
PRODUCT = product(
    NAMES,
    packages=(),
    snaps=("lxd",),
    accounts=("group lxd", "user lxd"),
    sysctls=(
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
        "fs.inotify.max_user_instances=1024",
    ),
)
