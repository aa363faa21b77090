"""CRI-O's pods, for who asks whose a thing is: each sandbox with the containers in it."""

from __future__ import annotations

from leftovers.claims import Case
from leftovers.model import Instance
from leftovers.products.crio.known import conmons, containers, id_below, pins, scope
from leftovers.products.crio.processes import CONTAINER

__all__ = ["instances"]


def instances(case: Case) -> list[Instance]:
    """All sandboxes that there are at this look; a container whose sandbox is not known is one by itself."""
    records = {each.name: each for each in case.records_of("container") if each.source != "ledger"}
    top = {id: each.facts["sandbox"] for id, each in records.items() if each.facts["sandbox"] in records.keys() - {id}}
    ties: dict[str, list[str]] = {}

    def tie(id: str, object: str) -> None:
        ties.setdefault(top.get(id, id), []).append(object)

    runs = set()
    for process in case.proven("process"):
        record = conmons(case).get(process.key)
        id = record.facts["id"] if record is not None else scope(process.facts["cgroup"])[0]
        if id:
            tie(id, process.id)
            claim = case.claims[process.id]
            runs |= {top.get(id, id)} if claim.reason == CONTAINER else set()
    for group in case.proven("cgroup"):
        tie(scope(group.key)[0], group.id)
    for mount in case.proven("mount"):
        tie(id_below(case, mount.facts["point"])[0] or pins(case).get(mount.facts["point"], ""), mount.id)
    for space in case.proven("netns"):
        tie(next((pins(case)[path] for path in space.facts["pins"] if path in pins(case)), ""), space.id)
    found = []
    for id, each in records.items():
        if id not in containers(case) or id in top:
            continue
        pod = "/".join(filter(None, (each.facts["pod_namespace"], each.facts["pod"])))
        name = pod or each.facts["name"] or id[:12]
        state = "running" if id in runs else ""
        own = tuple(dict.fromkeys(ties.get(id, ())))
        found.append(Instance(case.product, id, name, containers(case)[id], state=state, ties=own))
    return found
