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
from leftovers.model import Object, Role

TASKS = "io.containerd.runtime.v2.task"


@dataclass(frozen=True)
class Runtime:
    """
    name, title  as Product has them
    directory    below which all that follows lies, and nothing of anybody else's
    address      containerd's socket, as its shims were given it
    state, root  containerd's --state and --root
    namespaces   its namespaces of that containerd; none: all, the daemon is the product's own
    kubelet      kubelet's --root-dir
    programs     the directory of its own programs
    services     a regular expression: the cgroups of its own services
    own          its directories and files, with what Directory wants to know
    marked       files that are only its own while their text has a word of it: path, the word, role, whose word that is
    symlinks     what it puts in shared places, if nothing is there: each its own while it leads into `directory`
    conf         where its CNI configurations are
    comments     the comments of firewall rules that nobody else writes
    parents      directories in shared places that it makes for one of its own, and that go when they hold nothing else
    ufw          the links on which it has ufw allow all
    label        of an address that it gives the host
    pods         the pods' network, unless a record or a firewall rule tells another
    accounts     what its package adds and nothing else does: it tells that it has been here
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
    marked: tuple[tuple[str, str, Role, str], ...] = ()
    symlinks: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()
    ufw: tuple[str, ...] = ()
    label: str = ""
    pods: str = ""
    accounts: tuple[str, ...] = ()

    @cached_property
    def possessive(self) -> str:
        return f"{self.title}'" if self.title.endswith("s") else f"{self.title}'s"


Tied = Callable[[Runtime, Object, Case], Finding | None]


def rules(runtime: Runtime, *functions: Tied) -> tuple[Rule, ...]:
    """Rules of the family as those of one product."""
    return tuple(partial(function, runtime) for function in functions)
