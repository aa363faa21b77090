"""Where CRI-O has its things (cri-o pkg/config/{config,config_unix}.go; cri-o/packaging templates/latest/cri-o)."""

from __future__ import annotations

import re

from leftovers.products.containers.names import Runtime
from leftovers.products.libpod.names import GRAPH, RUN, RUNTIMES

__all__ = ["GRAPH", "RUN", "RUNTIME", "RUNTIMES"]

PROGRAMS = ("/usr/bin/crio", "/usr/local/bin/crio")
UNITS = ("crio.service", "crio-wipe.service")
STATE = "/run/crio"  # the socket, its version, and what conmon writes when a container has ended
LIB = "/var/lib/crio"
# What it makes there: whether the last shutdown was a clean one, and its version (pkg/config, CrioCleanShutdownFile).
KEPT = re.compile(r"clean\.shutdown(\.supported)?|version")
EXITS = (f"{STATE}/exits", f"/var{STATE}/exits")
CONMONS = ("conmon", "crio-conmon")  # the second is the package's own
CONMONRS = ("conmonrs", "crio-conmonrs")
# internal/config/cgmgr: systemd's names, and those without it.
CGROUP = re.compile(r"crio-(?P<monitor>conmon-)?(?P<id>[0-9a-f]{64})(?:\.scope)?\Z")
# internal/config/nsmgr/nsmgr_linux.go: TYPEns/UUID in namespaces_dir, and nothing before the UUID.
PINS = tuple(f"/run/{type}ns" for type in ("net", "ipc", "uts", "user", "pid"))
PIN = re.compile(r"/run/(?:net|ipc|uts|user|pid)ns/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
# contrib/cni: its package's configurations, which are the administrator's as all conffiles are.
CONFLISTS = re.compile(r"/etc/cni/net\.d/(10-crio-bridge|11-crio-ipv4-bridge|99-loopback)\.conflist\Z")
NETWORKS = ("crio", "loopback")
# Who else has a store at the same place.
SHARERS = (
    *("/usr/bin/podman", "/usr/local/bin/podman", "/usr/bin/buildah", "/usr/local/bin/buildah"),
    *(f"{GRAPH}/db.sql", f"{GRAPH}/libpod"),
)
PROFILE = "crio-default"  # internal/config/apparmor/apparmor_linux.go
# What is asked of the rules that all users of CNI have.
RUNTIME = Runtime(
    name="crio",
    title="CRI-O",
    directory=STATE,
    address=f"{STATE}/crio.sock",
    state=STATE,
    root=LIB,
    kubelet="",
    programs="",
    executables=PROGRAMS,
    services=r"(?!)",
    own=(),
    conf="",
    brings=("cni",),
)
