"""Incus, of Debian (6.0.4, 7.0.2) and of zabbly: what is its own in the family."""

from __future__ import annotations

from leftovers.products.family import Names, product

PURGED = "incus-base's postrm purge deletes it (Debian incus 6.0.4, 7.0.2; zabbly)"
NAMES = Names(
    name="incus",
    title="Incus",
    directory="/var/lib/incus",
    run="/run/incus",
    own=(
        ("/var/lib/incus", True, PURGED),
        ("/var/cache/incus", True, PURGED),
        ("/var/log/incus", True, PURGED),
        ("/run/incus", False, "incusd makes it (internal/server/sys/os.go, RunDir)"),
    ),
    daemons=("/usr/libexec/incus/incusd", "/usr/lib/incus/incusd", "/usr/bin/incusd", "/opt/incus/bin/incusd"),
    helpers=("/usr/libexec/incus/incus-user", "/usr/lib/incus/incus-user", "/opt/incus/bin/incus-user"),
    units=(
        "incus.service",
        "incus.socket",
        "incus-startup.service",
        "incus-user.service",
        "incus-user.socket",
    ),
    variable="INCUS_DIR",
    points=("/dev/incus", "/dev/.incus-mounts"),
    # The range that belongs to Zabbly, the maintainers of Incus and LXC; since 6.0.1, before that only the shared one.
    ouis=("10:66:6a:",),
    host_names="inc",
    accounts=("group incus-admin",),
    others=("/usr/bin/lxc-start", "/usr/bin/lxd", "/usr/sbin/lxd", "/usr/libexec/lxd/lxd", "/snap/lxd/current"),
    client="incus",
    package="incus-base",
)
PRODUCT = product(
    NAMES,
    daemons=NAMES.daemons,
    packages=("incus-base", "incus"),
    companions=("incus-lxcfs", "lxcfs"),
    # Debian's since 7.0.2 and zabbly's prerm stop it: then `incusd shutdown` heeds boot.host_shutdown_timeout, _action
    # and boot.stop.priority, and notes who ran (cmd/incusd/instances.go, instancesShutdown).
    enders=("incus-startup.service", "incus.service"),
    accounts=("group incus", "group incus-admin", "user incus", "subuid root", "subgid root"),
    sysctls=(
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
        "fs.inotify.max_user_instances=1024",
    ),
)
