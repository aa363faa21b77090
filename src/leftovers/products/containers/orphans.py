"""What of an installed product's no container has, where CNI's plugins made it: for pods, for nerdctl, and of a
containerd itself.

Which containers exist, running or stopped, is told by the bundles and by what CRI keeps of each sandbox in containerd's
--root until it is removed, by nerdctl's store, by shims that live and by runc's states; only where all of that could be
read (reading.adrift). Where the agent of a network plugin lives that collects what is its own, it is left to it: Calico
and Cilium hold addresses elsewhere, too. kubelet removes what is left of pods that it knows, so nothing of these is
here.
"""

from __future__ import annotations

import os

from leftovers.claims import Case, Finding, Rule, real_exe
from leftovers.evidence import containerd
from leftovers.model import Evidence, Object, Record
from leftovers.products.containers.firewall import COMMENT, MASQUERADE_NOTE
from leftovers.products.containers.known import CRI, chains, relative
from leftovers.products.containers.names import Runtime, Tied, rules
from leftovers.products.containers.processes import canonical
from leftovers.products.containers.rivals import shim_argv

__all__ = ["landlords", "orphans"]

# Who collects what, by the plugin in the network's configuration.
AGENTS = {
    "calico": ("calico-node", "calico-felix", "felix"),
    "cilium-cni": ("cilium-agent", "cilium-agent-real"),
    "flannel": ("flanneld",),
}
TICKS = os.sysconf("SC_CLK_TCK")


def gone(case: Case, id: str, said: Evidence, record: Record | None = None) -> Finding | None:
    """The finding that a container is gone; None if it is there, or nobody can tell: before all was listed, or when it
    had been."""
    lost = by_name(case, "adrift").get(id)
    still: set[str] = case.cached("orphans.still", lambda: {each.name for each in case.later if each.type == "adrift"})
    if lost is None or id not in still:
        return None
    facts: dict[str, object] = {"age": lost.facts["age"]}
    plugins = record.facts["plugins"] if record is not None else networks(case).get(id, ())
    agent = next((agent for plugin in plugins for agent in AGENTS.get(plugin, ()) if agent in running(case)), "")
    if agent:
        facts["collector"] = agent
    why = Evidence(lost.source, lost.facts["why"])
    return Finding(f"its container {id[-64:][:12]} is gone", (said, why), facts=facts)


def networks(case: Case) -> dict[str, tuple[str, ...]]:
    """The plugins of each container's network, by id."""
    found: dict[str, tuple[str, ...]] = case.cached(
        "orphans.plugins",
        lambda: {record.facts["id"]: tuple(record.facts["plugins"]) for record in present(case, "cni")},
    )
    return found


def running(case: Case) -> frozenset[str]:
    """The names of all programs that run, in containers, too: agents are pods."""
    found: frozenset[str] = case.cached(
        "orphans.running", lambda: frozenset(real_exe(each).rpartition("/")[2] for each in case.objects("process"))
    )
    return found


def present(case: Case, type: str) -> list[Record]:
    found: list[Record] = case.cached(
        f"orphans.present.{type}", lambda: [each for each in case.records_of(type) if each.source != "ledger"]
    )
    return found


def ever(case: Case, type: str) -> list[Record]:
    """What was there before all was listed, or when it had been."""
    found: list[Record] = case.cached(
        f"orphans.ever.{type}", lambda: [*present(case, type), *(each for each in case.later if each.type == type)]
    )
    return found


def by_name(case: Case, type: str) -> dict[str, Record]:
    found: dict[str, Record] = case.cached(
        f"orphans.names.{type}", lambda: {record.name: record for record in present(case, type)}
    )
    return found


def netns(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A pin that a result of CNI's names, of a namespace that nobody is in."""
    if obj.facts["processes"]:
        return None
    pins: dict[str, Record] = case.cached(
        "orphans.pins", lambda: {canonical(record.facts["netns"]): record for record in present(case, "cni")}
    )
    return named(case, next((pins[pin] for pin in map(canonical, obj.facts["pins"]) if pin in pins), None))


def named(case: Case, record: Record | None) -> Finding | None:
    if record is None:
        return None
    return gone(case, record.facts["id"], Evidence(record.source, f"{record.name} names it"), record)


def link(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The host's end of a pair that a result names, whose other end is in such a namespace or is not to be seen. Names
    are given again, and Calico's are computed of the pod's: all that a result names it for must be gone."""

    def make() -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for each in present(case, "cni"):
            for name in each.facts["links"]:
                if name not in each.facts["bridges"]:
                    found.setdefault(name, []).append(each)
        return found

    spaces: dict[str, Object] = case.cached(
        "orphans.spaces", lambda: {each.key: each for each in case.objects("netns")}
    )
    inner = spaces.get(str(obj.facts["peer_netns"])) if obj.facts["peer_netns"] else None
    if inner is not None:
        return None if inner.facts["host"] else netns(runtime, inner, case)
    findings = [named(case, record) for record in case.cached("orphans.links", make).get(obj.key, ())]
    return findings[0] if findings and all(findings) else None


def file(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A result, a lease, or what flannel's plugin keeps."""
    for type in ("cni", "lease", "scratch"):
        record = by_name(case, type).get(obj.key)
        if record is not None:
            return gone(case, record.facts["id"], Evidence(record.source, f"{obj.key} is of it"))
    return None


def rule(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A chain of one container, what is in it, and what leads there."""
    own = chains(runtime, case).get(obj.facts["chain"]) or chains(runtime, case).get(obj.facts.get("target", ""))
    match = COMMENT.match(obj.facts.get("comment", ""))
    id = own.id if own is not None else match["id"] if match else ""
    return gone(case, id, Evidence("kernel", f"is for container {id[-64:][:12]}")) if id else None


def nft_rule(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    comment = str(obj.facts.get("comment") or "")
    match = MASQUERADE_NOTE.match(comment)
    id = match["id"] if match else comment
    return gone(case, id, Evidence("kernel", f"comment {comment!r}")) if id else None


def holder(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The process that holds a container's ports open (products/nerdctl.py)."""
    for record in present(case, "reserver"):
        if record.facts["pid"] == obj.facts["pid"]:
            return gone(case, record.facts["id"], Evidence(record.source, f"{record.name} names it"))
    return None


RULES: dict[str, tuple[Tied, ...]] = {
    "netns": (netns,),
    "link": (link,),
    "file": (file,),
    "xtables": (rule,),
    "nftrule": (nft_rule,),
    "process": (holder,),
}


def orphans(runtime: Runtime) -> dict[str, tuple[Rule, ...]]:
    return {kind: rules(runtime, *some) for kind, some in RULES.items()}


# -- of a containerd ------------------------------------------------------------------------------------------------


def whole(case: Case) -> bool:
    """Whether all that it has on its disk could be read."""
    said = ever(case, "whole")
    return len(said) > 1 and all(record.facts["whole"] for record in said)


def shim(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A shim without a task: the bundle that it stands in is not there any more, and containerd finds its tasks by
    their bundles (core/runtime/v2/shim_load.go). All containers of a pod have one, named for its sandbox: that may have
    died, and its bundle be gone, while the others run."""
    told = shim_argv(obj)
    if not told or not whole(case):
        return None
    socket = containerd.sockets(told["address"], told["namespace"], told["id"])[0]
    for facts in (record.facts for record in ever(case, "container")):
        own = facts["namespace"] == told["namespace"] and told["id"] in (facts["id"], facts["sandbox"])
        if facts["bundle"] and (own or facts["socket"].rpartition("/")[2] == socket):
            return None
    said = Evidence("disk", f"containerd has no bundle of {told['namespace']}/{told['id'][:12]}")
    last: int = case.cached("orphans.last", lambda: max(each.facts["start"] for each in case.objects("process")))
    return Finding("it has no task any more", (said,), facts={"age": max(0.0, (last - obj.facts["start"]) / TICKS)})


def sandbox(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """What CRI mounted for a sandbox that it does not have any more: neither its bundle nor its directory in --root is
    there (internal/cri/server/sandbox_remove.go)."""
    for place in CRI if whole(case) else ():
        inner = relative(runtime, case, obj.facts["point"], f"{runtime.state}/{place}")
        id = (inner or "").partition("/")[0]
        if not id:
            continue
        if any(
            id in (each.facts["id"], each.facts["sandbox"]) and each.facts["bundle"] for each in ever(case, "container")
        ):
            return None
        kept = [each for each in ever(case, "kept") if each.facts["id"] == id]
        if kept or id in {shim_argv(process).get("id") for process in case.objects("process")}:
            return None
        said = Evidence("disk", f"containerd has neither a bundle nor a directory of sandbox {id[:12]}")
        return Finding(f"its sandbox {id[:12]} is gone", (said,))
    return None


LANDLORDS: dict[str, tuple[Tied, ...]] = {"process": (shim,), "mount": (sandbox,)}


def landlords(runtime: Runtime) -> dict[str, tuple[Rule, ...]]:
    return {kind: rules(runtime, *some) for kind, some in LANDLORDS.items()}
