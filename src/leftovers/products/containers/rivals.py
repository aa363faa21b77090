"""Who else on this host may be a user of what all Kubernetes, CNI and containerd share by name.

Nothing in the name of such a thing says whose it is: KUBE-SERVICES is any kube-proxy's. So it is a product's when it
has been here and nobody else can have made it: no process, no file and no container of anybody else's is to be seen.
"""

from __future__ import annotations

from leftovers.claims import Case, Finding, real_exe
from leftovers.evidence import containerd
from leftovers.model import Evidence, Object, Record, Role
from leftovers.products.containers.known import addresses, containers, holds, trace
from leftovers.products.containers.names import Runtime

__all__ = ["FILES", "held", "is_shim", "made_for", "rival", "shared", "shim_argv"]

# The programs of each, by the names of their files; "kube" may use all of the others.
PROGRAMS = {
    "kube": frozenset(
        ("kubelet", "kubelite", "kube-proxy", "hyperkube", "k3s", "k3s-server", "k3s-agent", "rke2", "k0s", "k8sd")
    ),
    "calico": frozenset(("calico-node", "calico-felix", "felix")),
    "cilium": frozenset(("cilium-agent", "cilium-agent-real")),
    "flannel": frozenset(("flanneld",)),
    "cni": frozenset(("crio", "nerdctl")),
    "nerdctl": frozenset(("nerdctl",)),
    "etcd": frozenset(("etcd",)),
    "rancher": frozenset(("k3s", "k3s-server", "k3s-agent", "rke2")),
    "containerd": frozenset(("containerd",)),
    "docker": frozenset(("dockerd", "podman")),
}
# Where another one has its program or its data. /etc/kubernetes and /opt/cni may be there for other reasons.
FILES = {
    "kube": (
        *("/usr/bin/kubelet", "/usr/local/bin/kubelet", "/usr/local/bin/k3s", "/opt/bin/k3s", "/usr/local/bin/rke2"),
        *("/opt/rke2/bin/rke2", "/usr/bin/rke2", "/usr/local/bin/k0s", "/var/lib/k0s"),
        *("/var/lib/rancher/k3s", "/var/lib/rancher/rke2"),
        *("/snap/k8s/current", "/snap/kubelet/current", "/snap/microk8s/current", "/etc/kubernetes/kubelet.conf"),
    ),
    "calico": ("/usr/bin/calico-felix", "/etc/calico/felix.cfg"),
    "cilium": (),
    "flannel": ("/usr/bin/flanneld", "/usr/sbin/flanneld"),
    "cni": ("/usr/bin/crio", "/usr/local/bin/crio"),
    "nerdctl": ("/usr/local/bin/nerdctl", "/usr/bin/nerdctl"),
    "etcd": ("/usr/bin/etcd", "/usr/local/bin/etcd"),
    "rancher": (
        *("/usr/local/bin/k3s", "/opt/bin/k3s", "/var/lib/rancher/k3s"),
        *("/usr/local/bin/rke2", "/opt/rke2/bin/rke2", "/usr/bin/rke2", "/var/lib/rancher/rke2"),
    ),
    "containerd": ("/usr/bin/containerd", "/usr/local/bin/containerd"),
    "docker": ("/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd", "/snap/docker/current"),
}
# What each of these may have been made by besides its own program.
USERS = {
    "kube": ("kube",),
    "calico": ("kube", "calico"),
    "cilium": ("kube", "cilium"),
    "flannel": ("kube", "flannel"),
    "cni": ("kube", "cni"),
    "nerdctl": ("nerdctl",),
    "etcd": ("etcd",),
    "rancher": ("rancher",),
    "containerd": ("kube", "cni", "containerd"),
    "docker": ("docker",),
}
KUBELET = "/var/lib/kubelet"


def shim_argv(process: Object) -> dict[str, str]:
    """What a shim was told, by option (core/runtime/v2/binary.go; "-namespace NS -id ID -address SOCKET"): {} for any
    other process. Anybody may call himself so."""
    argv = process.facts["argv"][1:]
    found: dict[str, str] = {}
    for option, value in zip(argv, argv[1:]):  # noqa: B905 - the last has no value
        if option in ("-namespace", "-id", "-address"):
            found.setdefault(option[1:], value)
    return found if len(found) == 3 and containerd.is_id(found["id"]) else {}


def is_shim(process: Object) -> bool:
    return bool(shim_argv(process))


def rival(runtime: Runtime, case: Case, what: str) -> str:
    """Who else may have made, or may use, things of a sort ("kube", "calico", "cilium", "flannel", "cni",
    "containerd"). "" if nobody is to be seen."""

    def suspects() -> list[tuple[str, str]]:
        names = {name for each in USERS[what] for name in PROGRAMS[each]}
        found = []
        for process in case.objects("process"):
            if process.facts["nested"] and not process.facts["our_net"]:
                continue  # in a container, with a network of its own
            if what == "docker" and process.facts["uid"] != 0:
                continue  # a user's own Podman or Docker has nothing in the host's network
            name = real_exe(process).rpartition("/")[2]
            other = shim_argv(process).get("address", runtime.address) not in addresses(runtime, case)
            if name in names or (other and what in ("cni", "containerd") and network_of_cni(process)):
                found.append((process.key, f"pid {process.key} runs {process.facts['exe']}"))
        return found

    listed: list[tuple[str, str]] = case.cached(f"containers.suspects.{what}", suspects)
    for key, said in listed:
        if not case.is_proven("process", key):
            return said
    written: str = case.cached(f"containers.files.{what}", lambda: rival_file(runtime, case, what))
    return written


def network_of_cni(shim: Object) -> bool:
    """Docker's containers have no network of CNI's."""
    return shim_argv(shim)["namespace"] != "moby"


def rival_file(runtime: Runtime, case: Case, what: str) -> str:
    """What else on the disk says that somebody else is a user."""
    paths = {path for each in USERS[what] for path in FILES[each]}
    for file in case.objects("file"):
        if file.key in paths and not below_any(file.key, runtime) and not holds(runtime, case, file.key):
            return f"{file.key} is there"
        if file.key == KUBELET and file.facts["type"] == "directory" and "pods" in file.facts["entries"]:
            if holds(runtime, case, KUBELET):
                continue
            return f"{KUBELET} is another kubelet's"
    if what not in ("cni", "containerd") or "cni" not in runtime.brings:
        return ""
    ids = containers(runtime, case)
    for type in ("cni", "lease", "scratch"):
        for record in case.records_of(type):
            if record.source != "ledger" and record.facts["id"] not in ids:
                return f"{record.name} is of another container"
    # An administrator's is there for those who have containers in a shared containerd: no sign of anybody else.
    for record in case.records_of("conflist") if not runtime.lets else ():
        ours = holds(runtime, case, record.name) or any(holds(runtime, case, path) for path in record.facts["paths"])
        # Whose Cilium's is, is asked for itself; nerdctl's say so.
        ours = ours or any(what in runtime.brings for what in made_for(record))
        if record.source != "ledger" and not ours and not record.facts.get("within"):
            return f"{record.name} is another's configuration"
    return ""


# The plugins of those who have one configuration for the whole host.
PLUGINS = {"cilium-cni": "cilium", "calico": "calico", "flannel": "flannel"}


def made_for(record: Record) -> list[str]:
    """Of which sorts a CNI configuration is, by what is in it."""
    found = [PLUGINS[plugin] for plugin in record.facts.get("plugins", ()) if plugin in PLUGINS]
    return [*found, "nerdctl"] if record.facts.get("nerdctl") else found


def below_any(path: str, runtime: Runtime) -> bool:
    """Whether that is the product's own program."""
    return runtime.is_program(path)


def held(case: Case, obj: Object) -> Role:
    """What a thing is that somebody else uses: held by him if it once was known to be the product's, else his."""
    earlier = case.recalled.get(obj.id)
    own = earlier is not None and earlier.proven and earlier.role is not Role.ADMIN
    return Role.HELD if own else Role.ADMIN


def shared(
    runtime: Runtime, obj: Object, case: Case, what: str, reason: str, said: Evidence, advice: str, **more: object
) -> Finding | None:
    """A finding about a thing that all of a sort share. Where somebody else may be its user or its maker it is his, or,
    if it once was known to be the product's, held by him. It is nobody's where the product has never been."""
    been = trace(runtime, case) if what in runtime.brings else ""
    if not been:
        return None
    other = rival(runtime, case, what)
    if other:
        user = Evidence("kernel" if other.startswith("pid ") else "disk", other)
        role = held(case, obj)
        return Finding(f"{reason}, which somebody else may use", (user, said), role=role, advice=advice)
    alone = Evidence("kernel", f"nobody else here can have made it, and {been}")
    return Finding(reason, (said, alone), **more)  # type: ignore[arg-type]
