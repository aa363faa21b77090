"""containerd, of Debian (containerd) and of Docker's own packages (containerd.io): the landlord of its namespaces.

All that is of its socket is its own, but what is a tenant's is settled with him (plan.settled). Its directories in
/run are where all containerds of root have theirs. Sources: containerd defaults/defaults_unix.go, cmd/containerd,
plugins/*, containerd.service; Debian containerd 1.7.24 and 2.1.9.
"""

from __future__ import annotations

from leftovers.model import Role
from leftovers.products.containers import Runtime, product
from leftovers.products.containers.names import TASKS
from leftovers.products.containers.orphans import landlords
from leftovers.products.containers.processes import SHIM

STATE = "/run/containerd"
ROOT = "/var/lib/containerd"
DAEMONS = ("/usr/bin/containerd", "/usr/local/bin/containerd")
MADE = (
    *("containerd.sock", "containerd.sock.ttrpc", "debug.sock", "io.containerd.grpc.v1.cri"),
    *("io.containerd.runtime.v1.linux", "io.containerd.sandbox.controller.v1.shim"),
    "io.containerd.podsandbox.controller.v1.podsandbox",
)
STARTED = "containerd makes it at its start (cmd/containerd/server)"
RUNTIME = Runtime(
    name="containerd",
    title="containerd",
    directory=ROOT,
    address=f"{STATE}/containerd.sock",
    state=STATE,
    root=ROOT,
    shares=True,
    kubelet="",
    programs="",
    executables=DAEMONS,
    services=r"/system\.slice/containerd\.service(?=/|\Z)",
    own=(
        (ROOT, Role.EXTERNAL, "no purge of containerd or containerd.io deletes it"),
        *((f"{STATE}/{name}", Role.LIVE, STARTED) for name in (*MADE, TASKS)),
    ),
    conf="",
    brings=("containerd", "cni"),
    netns="",
)
PRODUCT = product(
    RUNTIME,
    packages=("containerd", "containerd.io"),
    daemons=DAEMONS,
    common=True,
    units=("containerd.service",),
    tenants=("docker", "nerdctl", "kubernetes"),
    instance_processes=(SHIM,),
    orphans=landlords(RUNTIME),
)
