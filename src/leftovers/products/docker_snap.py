"""Docker, the snap: what is its own among the products of containerd.

A product of its own beside Docker's packages, which have the same names for all that is in the kernel. dockerd starts
its containerd itself, so there is no socket, no state and no pin that it would share with another. Sources:
canonical/docker-snap bin/dockerd-wrapper, snap/hooks; moby daemon/internal/libcontainerd/supervisor (containerd's
directories), daemon/libnetwork/osl (pins). The group docker is made by administrators.

What it has in the firewall and its bridges are called as any dockerd's: they go while nobody else can have made them,
or by the ids of networks that its containers were in. Networks that no container was in are only shown.
"""

from __future__ import annotations

from leftovers.model import Role
from leftovers.products.containers import Runtime, product
from leftovers.products.containers.docker import mounts

STORE = "/var/snap/docker/common/var-lib-docker"
RUN = "/run/snap.docker"
RUNTIME = Runtime(
    name="docker-snap",
    title="Docker (snap)",
    directory="/var/snap/docker",
    beside=(RUN,),
    address=f"{RUN}/containerd/containerd.sock",
    state=f"{RUN}/containerd/daemon",
    root=f"{STORE}/containerd/daemon",
    kubelet="",
    programs="/snap/docker",
    services=r"/system\.slice/snap\.docker\.[A-Za-z0-9-]+\.service(?=/|\Z)",
    own=(
        ("/var/snap/docker", Role.DATA, "snapd deletes it with the snap (overlord/snapstate/backend/snapdata.go)"),
        (RUN, Role.LIVE, "bin/dockerd-wrapper makes it"),
        ("/tmp/snap-private-tmp/snap.docker", Role.DATA, "snap-confine makes it (cmd/snap-confine/mount-support.c)"),
    ),
    conf="",
    brings=("docker", "containerd"),
    mounts=mounts(STORE),
    netns=f"{RUN}/netns",
    runc=f"{RUN}/runtime-runc",
    cgroups=("/docker", "/system.slice/docker"),
    profile=("docker-default", "docker"),
    store=STORE,
)
PRODUCT = product(
    RUNTIME,
    packages=(),
    snaps=("docker",),
    units=("snap.docker.dockerd.service", "snap.docker.nvidia-container-toolkit.service"),
    sysctls=("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"),
)
