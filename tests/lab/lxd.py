"""LXD on a throwaway host: the scenario of Incus (lab/incus.py) with LXD's names."""

from __future__ import annotations

import re

from lab import incus
from lab.machine import Machine

PACKAGES = ("lxd", "lxd-client", "lxcfs")
# The same things of the administrator's, with names of LXD's shape.
ADMIN = incus.ADMIN.replace("Incus", "LXD").replace("incus", "lxd")
IMAGE = incus.IMAGE.replace("incus -q", "lxc -q")
USE = (
    incus.USE.replace("incus admin init --minimal", "lxd init --auto")
    .replace("snapshot create", "snapshot")
    .replace("incus -q", "lxc -q")
)
assert not re.search(r"\bincus\b", USE + ADMIN)

# What `use` leaves running, as LXD names it on the host.
RUNNING = incus.RUNNING
# What may stay on the host, and why.
KEPT = (
    r"account (group lxd|passwd _lxd)$",  # accounts and ranges: something else may have come to use them
    r"account sub[ug]id (_lxd|root)( #\d)?$",
    r"file /etc/dnsmasq\.d$",  # an empty directory that lxd's postinst makes, of dnsmasq's
    r"file /run/runit(/supervise)?$",  # of runit-helper, run by postinst; gone at the next boot
    r"file /run/adduser$",  # adduser's lock
    r"file /root/\.config(/lxc(/.*)?)?$",  # what the command `lxc` keeps for a person
    r"file /(etc(/apt/apt\.conf\.d/50|/dpkg/dpkg\.cfg\.d/|/)|(run|var/lib|var/cache)/)leftovers(/.*)?$",  # our own
)


def admin_things(m: Machine) -> None:
    m.run(ADMIN)


def install(m: Machine) -> None:
    m.write("/run/systemd/system/lxcfs.service.d/lab.conf", "[Unit]\nConditionVirtualization=\n")
    m.run(["apt-get", "install", "-y", "-q", "--no-download", "--no-install-recommends", *PACKAGES])


def use(m: Machine) -> None:
    m.run(USE, timeout=180)


def purge(m: Machine) -> None:
    """Debian's own: our hooks, if they are there, keep still."""
    m.run(["env", "LEFTOVERS_SUSPEND=1", "apt-get", "purge", "-y", "-q", *PACKAGES], timeout=300)


def kill_daemon(m: Machine) -> None:
    """Kill lxd as if it had crashed, and keep systemd from starting it again. Containers and dnsmasq go on."""
    m.write("/run/systemd/system/lxd.service.d/lab.conf", "[Service]\nRestart=no\n")
    m.run(
        """
        systemctl daemon-reload
        systemctl kill --kill-whom=main -s KILL lxd.service
        systemctl stop lxd.socket
        for i in $(seq 50); do systemctl -q is-active lxd.service || break; sleep 0.1; done
        """
    )
