"""What CRI-O itself has in the firewall, besides CNI's plugins: the ports of its pods (internal/hostport)."""

from __future__ import annotations

import re

from leftovers.claims import Case, Finding
from leftovers.model import Evidence, Object, Role
from leftovers.products.containers import rivals
from leftovers.products.containers.known import trace
from leftovers.products.crio.known import usurper
from leftovers.products.crio.names import PROFILE, RUNTIME

__all__ = ["profile", "rule", "table"]

# hostport_nftables.go; hostport_iptables.go: the first two nobody else has, the others a kubelet before 1.24, too.
TABLES = ("ip crio-hostports", "ip6 crio-hostports")
SETS = {"hostports", "hostipports", "hairpins"}
CHAINS = re.compile(r"CRIO-(HOSTPORTS-MASQ|MASQ-[A-Z2-7]{16})\Z")
KUBE = re.compile(r"KUBE-(HOSTPORTS|HP-[A-Z2-7]{16})\Z")
NOTES = ("kube hostport portals", "kube hostport masquerading")
BUILT_IN = ("PREROUTING", "OUTPUT", "POSTROUTING")


def ours(reason: str, said: Evidence, advice: str, case: Case) -> Finding | None:
    """A finding about what only a CRI-O makes."""
    been, other = trace(RUNTIME, case), usurper(case)
    if not been:
        return None
    if other:
        users = (Evidence("kernel", other), said)
        return Finding(f"{reason}, or another CRI-O's", users, role=Role.ADMIN, advice=advice)
    return Finding(reason, (said, Evidence("kernel", f"nobody else makes it, and {been}")))


def table(obj: Object, case: Case) -> Finding | None:
    """CRI-O's nft table, by its name and a set that it has in there."""
    if obj.key not in TABLES or not SETS & {*obj.facts["sets"], *obj.facts["chains"]}:
        return None
    return ours("CRI-O's nft table", Evidence("kernel", f"table {obj.key}"), f"nft delete table {obj.key}", case)


def rule(obj: Object, case: Case) -> Finding | None:
    """CRI-O's chains for the ports of pods, what is in them, and the jumps to them."""
    facts = obj.facts
    chain, target = facts["chain"], facts.get("target", "")
    if facts["family"] not in ("ip", "ip6") or facts["table"] != "nat":
        return None
    noted = chain in BUILT_IN and facts.get("comment") in NOTES
    if not (CHAINS.match(chain) or KUBE.match(chain) or (noted and (CHAINS.match(target) or KUBE.match(target)))):
        return None
    tool = "iptables" if facts["family"] == "ip" else "ip6tables"
    words = f"-X {chain}" if facts.get("user") else f"-D {chain} {facts.get('rule', '')}"
    advice, reason = f"{tool} -t nat {words}", "a rule or chain for the ports of pods"
    if CHAINS.match(chain) or CHAINS.match(target):
        return ours(reason, Evidence("kernel", f"chain {chain}"), advice, case)
    return rivals.shared(RUNTIME, obj, case, "cni", reason, Evidence("kernel", f"chain {chain}"), advice)


def profile(obj: Object, case: Case) -> Finding | None:
    """The AppArmor profile that CRI-O loads for its containers."""
    if obj.facts["type"] != "profile" or obj.facts["name"] != PROFILE or obj.facts["namespace"]:
        return None
    for pid in obj.facts["processes"]:
        if not case.is_proven("process", str(pid)):
            said = Evidence("kernel", f"confines pid {pid}, which is not CRI-O's")
            advice = "leftovers clean crio"
            return Finding("the profile of containers, somebody else's too", (said,), role=Role.ADMIN, advice=advice)
    said = Evidence("kernel", "the name that CRI-O gives it")
    return ours(
        "the profile of its containers", said, f"printf {PROFILE} > /sys/kernel/security/apparmor/.remove", case
    )
