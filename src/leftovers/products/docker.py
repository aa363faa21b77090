"""Docker, of Debian (docker.io) and of Docker's own packages (docker-ce): what is its own on a host.

It is a tenant of the host's containerd, in the namespaces moby and plugins.moby, and has a containerd of its own where
there is none. Sources: moby daemon/ (container, network, volume, libnetwork, internal/libcontainerd/supervisor),
contrib/init/systemd, contrib/nuke-graph-directory.sh; Debian docker.io 26.1.5 and 28.5.2, its prerm and postrm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leftovers.daemons import docker as daemon
from leftovers.evidence import docker_purge
from leftovers.host import Host
from leftovers.model import Deadline, Record, Role
from leftovers.products.containers import Runtime, product
from leftovers.products.containers.docker import mounts
from leftovers.products.containers.docker_orphans import orphans, read_layers
from leftovers.products.containers.names import TASKS
from leftovers.products.containers.processes import SHIM

STORE = "/var/lib/docker"
RUN = "/run/docker"
DAEMONS = ("/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd")
NAMESPACES = ("moby", "plugins.moby")
LANDLORD = ("/run/containerd", "/var/lib/containerd")
SPACES = "only dockerd has these namespaces (daemon/config/config.go)"
RUNTIME = Runtime(
    name="docker",
    title="Docker",
    directory=STORE,
    beside=(RUN,),
    address="/run/containerd/containerd.sock",
    state="/run/containerd",
    root="/var/lib/containerd",
    shares=True,
    namespaces=NAMESPACES,
    # daemon/internal/libcontainerd/supervisor/remote_daemon.go; the second where --exec-root is by its other name.
    daemons=(
        (f"{RUN}/containerd/containerd.sock", f"{RUN}/containerd/daemon", f"{STORE}/containerd/daemon"),
        (f"/var{RUN}/containerd/containerd.sock", f"{RUN}/containerd/daemon", f"{STORE}/containerd/daemon"),
    ),
    kubelet="",
    programs="",
    executables=(
        *DAEMONS,
        *("/usr/bin/docker-proxy", "/usr/sbin/docker-proxy", "/usr/libexec/docker/docker-proxy"),
        "/usr/local/bin/docker-proxy",
    ),
    services=r"/system\.slice/docker\.service(?=/|\Z)",
    own=(
        (STORE, Role.EXTERNAL, "docker.io's postrm purge deletes it in trixie, asks in sid; docker-ce's keeps it"),
        (RUN, Role.LIVE, "dockerd's --exec-root"),
        ("/run/docker.sock", Role.LIVE, "docker.socket makes it"),
        ("/run/docker.pid", Role.LIVE, "dockerd's --pidfile"),
        *((f"{base}/{TASKS}/{namespace}", Role.LIVE, SPACES) for base in LANDLORD for namespace in NAMESPACES),
        ("/etc/docker/key.json", Role.DATA, "dockerd makes it up to version 23 (daemon/trustkey.go)"),
    ),
    parents=("/etc/docker",),
    conf="",
    brings=("docker",),
    mounts=mounts(STORE),
    netns=f"{RUN}/netns",
    runc=f"{RUN}/runtime-runc",
    cgroups=("/docker", "/system.slice/docker"),
    profile=("docker-default", "docker"),
    store=STORE,
)


def stop(host: Host, records: Sequence[Record], deadline: Deadline) -> Mapping[str, str]:
    """Those of records "instance", which there are with live-restore: else the daemon stops all when it is stopped."""
    facts = {"state": "running"}
    return daemon.stop(host, [Record("docker", each.name, each.source, facts) for each in records], deadline)


PRODUCT = product(
    RUNTIME,
    packages=("docker.io", "docker-ce"),
    daemons=DAEMONS,
    units=("docker.service", "docker.socket"),
    accounts=("group docker",),
    sysctls=("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"),
    companions=("containerd",),
    deletes=docker_purge.deletes,
    stop=stop,
    start=daemon.start,
    instance_processes=(SHIM,),
    readers=(read_layers,),
    orphans=orphans(RUNTIME),
)
