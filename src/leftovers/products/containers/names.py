"""What tells one product of containerd from another: where its containerd and its kubelet have their things.

Rules and readers of this family take one of these descriptions first (`rules` binds it), and rest on nothing that two
containerds share: the names of shims, containers, links, chains and sets are the same for all, and so are the
directories /run/containerd, /run/netns and /var/lib/cni. What ties a thing to one of them is the socket that its shims
were given, a path in its own directories as the kernel tells it, or the id of a container that these have shown to be
its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

from leftovers.claims import Case, Finding, Rule
from leftovers.host import Host
from leftovers.kinds.kind import Look
from leftovers.model import Object, Record, Role
from leftovers.mountinfo import below

# What a product may have brought to a host, of that which all share by name.
KUBERNETES = ("kube", "calico", "cilium", "flannel", "cni", "containerd")
TASKS = "io.containerd.runtime.v2.task"
# What a kubelet makes in its directory (kubernetes pkg/kubelet/config/defaults.go, pkg/kubelet/kubelet.go).
KUBELET_NAMES = (
    r"pods|plugins|plugins_registry|device-plugins|pod-resources|checkpoints|pki|image_manager|usernamespaces"
    r"|(cpu_manager|memory_manager|dra_manager|allocated_pods|actuated_pods)_state"
)


@dataclass(frozen=True)
class Marker:
    """A directory that anybody may have, and what proves it the product's: a file of its own names it, and nobody else
    who would have one there is on the host.

    directory  where it mostly is
    file, form the file, and how a line of it names the directory; with the form "{}" its whole text does. More forms
               are lines of their own
    sort       who else may have one there ("containerd", "kube", "cni")
    names      a regular expression: what the product makes in it
    whole      whether the directory goes with all that is in it, when that is nothing but these; else one by one
    role       of what is in it
    source     whose word that is
    files      of these names those that are files; the others are its own only as symlinks to the first of them. ():
               whatever they are
    """

    directory: str
    file: str
    form: str
    sort: str
    names: str
    whole: bool
    role: Role
    source: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Runtime:
    """
    name, title  as Product has them
    directory    its own: nothing of anybody else's is below it
    address      containerd's socket, as its shims were given it
    state, root  containerd's --state and --root
    namespaces   its namespaces of that containerd; none: all, the daemon is the product's own
    kubelet      kubelet's --root-dir; "" if it has none
    programs     the directory of its own programs, "" if it has none
    services     a regular expression: the cgroups of its own services
    own          its directories and files, with what Directory wants to know
    marked       files that are only its own while their text has a word of it, or has no lines but some of these: path,
                 the word or the lines, role, whose word that is
    symlinks     what it puts in shared places, if nothing is there: each its own while it leads into `directory`
    conf         where its CNI configurations are, "" if it has none but in the shared place
    comments     the comments of firewall rules that nobody else writes
    parents      directories in shared places that it makes for one of its own, and that go when they hold nothing else
    ufw          the links on which it has ufw allow all
    label        of an address that it gives the host
    pods         the pods' network, unless a record or a firewall rule tells another
    accounts     what its package adds and nothing else does: it tells that it has been here
    beside       more directories that are its own
    markers      those that are its own only by a proof
    base         a file that says below which directory those of a containerd lie, if not below /
    brings       what of KUBERNETES it may have brought, and "docker"
    mounts       where else it mounts: a directory, a regular expression of what is below that, the reason
    netns        a directory in which only it pins network namespaces
    runc         where its shims have runc keep its states
    cgroups      above its containers, if they are not kubelet's
    profile      of its containers, and who else has one of that name
    store        dockerd's --data-root, "" if it has none
    executables  its own programs in shared places
    daemons      more containerds, that nobody else has: address, --state and --root of each
    shares       whether that containerd is another product's, or the host's: then only what is of `namespaces` in it
                 is its own; without any, all that is of its socket
    known        the type of the records that tell which containers of a shared containerd are its own, where others
                 have theirs in the same namespaces: "nerdctl" (by id), or "pod" (by the uid of their pod)
    reads        what reads more of its records, before those of containers are
    told         what its configuration says of where else `directory` is
    """

    name: str
    title: str
    directory: str
    address: str
    state: str
    root: str
    kubelet: str
    programs: str
    services: str
    own: tuple[tuple[str, Role, str], ...]
    conf: str
    namespaces: tuple[str, ...] = ()
    marked: tuple[tuple[str, str | tuple[str, ...], Role, str], ...] = ()
    symlinks: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()
    ufw: tuple[str, ...] = ()
    label: str = ""
    pods: str = ""
    accounts: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    markers: tuple[Marker, ...] = ()
    base: str = ""
    brings: tuple[str, ...] = KUBERNETES
    mounts: tuple[tuple[str, str, str], ...] = ()
    netns: str = ""
    runc: str = "/run/containerd/runc"
    cgroups: tuple[str, ...] = ()
    profile: tuple[str, str] = ("cri-containerd.apparmor.d", "containerd")
    store: str = ""
    executables: tuple[str, ...] = ()
    daemons: tuple[tuple[str, str, str], ...] = ()
    shares: bool = False
    known: str = ""
    reads: Callable[[Look], tuple[list[Record], list[str]]] | None = None
    told: Callable[[Host], list[str]] | None = None

    @property
    def lets(self) -> bool:
        """Whether it is a shared containerd itself, and not one who has his containers in it."""
        return self.shares and not self.namespaces and not self.known

    @cached_property
    def share(self) -> tuple[str, ...]:
        """What of a shared containerd's directories is its own: its tasks, and of Kubernetes what CRI keeps there."""
        if not self.shares or self.known:
            return ()
        places = [f"{TASKS}/{namespace}" for namespace in self.namespaces] or [TASKS]
        if "k8s.io" in self.namespaces or not self.namespaces:
            places += ["io.containerd.grpc.v1.cri", "io.containerd.podsandbox.controller.v1.podsandbox"]
        return tuple(f"{base}/{place}" for base in (self.state, self.root) for place in places)

    def is_program(self, path: str) -> bool:
        """Whether a path is that of one of its own programs."""
        return path in self.executables or (bool(self.programs) and below(path, self.programs))

    @property
    def states(self) -> tuple[str, ...]:
        """--state of all its containerds."""
        return (self.state, *(state for _, state, _ in self.daemons))

    @property
    def roots(self) -> tuple[str, ...]:
        """--root of all its containerds."""
        return (self.root, *(root for _, _, root in self.daemons))

    @property
    def unit(self) -> str:
        """What people call the thing that has a network of its own."""
        return "pod" if "kube" in self.brings else "container"

    @cached_property
    def possessive(self) -> str:
        return f"{self.title}'" if self.title.endswith("s") else f"{self.title}'s"


Tied = Callable[[Runtime, Object, Case], Finding | None]


def rules(runtime: Runtime, *functions: Tied) -> tuple[Rule, ...]:
    """Rules of the family as those of one product."""
    return tuple(partial(function, runtime) for function in functions)
