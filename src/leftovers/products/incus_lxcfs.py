"""The lxcfs that comes with zabbly's Incus: in the same package as the daemon, at places of its own.

It goes with that package, the last of all; Debian's lxcfs beside it is another product (zabbly/incus: systemd/
incus-lxcfs.service, debian/incus-base.prerm and .postrm).
"""

from __future__ import annotations

from leftovers.products.lxcfs import product

PRODUCT = product(
    "/opt/incus/bin/lxcfs",
    "/var/lib/incus-lxcfs",
    "incus-lxcfs.service",
    name="incus-lxcfs",
    title="Incus' lxcfs",
    packages=(),  # incus-base is Incus'
)
