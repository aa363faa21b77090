"""Where Podman has its things (containers/common pkg/config/default.go, containers/storage types/options.go)."""

from __future__ import annotations

import re

GRAPH = "/var/lib/containers/storage"  # the graph root: containers, images, volumes, db.sql
CACHE = "/var/lib/containers/cache"
NAMES = "/var/cache/containers"  # short names of images that somebody has chosen
RUN = "/run/containers/storage"  # the run root
TMP = "/run/libpod"
NETWORKS = "/etc/containers/networks"  # netavark's configurations
STATE = "/run/containers/networks"  # what netavark and aardvark-dns have set up
NETNS = "/run/netns"
RUNTIMES = ("/run/crun", "/run/runc")
LOCKS = ("/run/lock/netavark.lock", "/etc/containers/networks/netavark.lock", "/dev/shm/libpod_lock")
SYSCTLS = "/run/sysctl.d"
PODMAN = "/usr/bin/podman"
PROGRAMS = (PODMAN, "/usr/local/bin/podman")  # the second is of no package: podman-static, or one's own
NETAVARK = "/usr/lib/podman/netavark"
# The lock on CNI's configurations, which Podman before 5 takes to see whether there are any.
CNI = ("/etc/cni/net.d/cni.lock", "/etc/cni/net.d", "/etc/cni")
STORAGE_CONF = "/etc/containers/storage.conf"
# Who else has a store at the same place, by default.
SHARERS = ("/usr/bin/buildah", "/usr/bin/crio", "/usr/local/bin/crio", "/usr/local/bin/buildah")
CGROUP = re.compile(r"libpod-(?:conmon-|payload-)?(?P<id>[0-9a-f]{64})(?:\.scope)?\Z")
POD_SLICE = re.compile(r"machine-libpod_pod_(?P<id>[0-9a-f]{64})\.slice\Z")
UNITS = (
    *("podman.socket", "podman.service", "podman-restart.service", "podman-clean-transient.service"),
    *("podman-auto-update.timer", "podman-auto-update.service"),
)
# Units that Podman has systemd make: one timer and one service for each container with a health check (libpod/
# healthcheck_linux.go), one slice for each pod.
HEX = "[0-9a-f]"
MADE = (f"{HEX * 64}*.timer", f"{HEX * 64}*.service", f"machine-libpod_pod_{HEX * 64}.slice")
