"""Which firewall tables and rules, and which AppArmor profiles, are Incus' own."""

from __future__ import annotations

import re

from leftovers.claims import Case, Finding
from leftovers.model import Evidence, Object
from leftovers.products.incus.names import CHAIN, COMMENT, DIRECTORY


def nft_table(obj: Object, case: Case) -> Finding | None:
    """Incus' tables (firewall/drivers/drivers_nftables.go: nftablesNamespace). The name is its namespace; that
    nothing but Incus writes there is seen by the chains."""
    if obj.facts["name"] != "incus" or obj.facts["family"] not in ("inet", "bridge", "netdev", "ip", "ip6"):
        return None
    foreign = [chain for chain in obj.facts["chains"] if not CHAIN.match(chain)]
    if foreign:
        said = (Evidence("kernel", f"has chains that Incus does not make: {', '.join(foreign[:5])}"),)
        advice = f"nft delete table {obj.key}"
        return Finding("Incus' table with chains of somebody else", said, proven=False, advice=advice)
    count = len(obj.facts["chains"])
    state = f"{count} chains, all named as Incus names them" if count else "empty, as Incus leaves it"
    return Finding("Incus' firewall table", (Evidence("kernel", state),))


def xtables_rule(obj: Object, case: Case) -> Finding | None:
    """Rules that Incus' xtables driver wrote (stable-6.0, firewall/drivers/drivers_xtables.go): each has its
    comment, and the chains are named for it; ebtables has no comments, but the names of Incus' own links."""
    comment = obj.facts.get("comment", "")
    if COMMENT.match(comment):
        return Finding("a firewall rule of Incus", (Evidence("kernel", f"comment {comment!r}"),))
    for word in ("chain", "target"):
        match = re.fullmatch(r"incus_(?:nic|acl)_(.+)", obj.facts.get(word, ""))
        if match:
            said = Evidence("kernel", f"{word} {match[0]}, for network {match[1]}")
            known = any(record.name == match[1] for record in case.records_of("network"))
            reason = "a firewall rule or chain of Incus"
            return Finding(reason, (said,), proven=known or case.is_proven("link", match[1]))
    if obj.facts["family"] == "bridge":
        for name in obj.facts.get("interfaces", ()):
            if case.is_proven("link", name):
                return Finding("a bridge rule of Incus", (Evidence("kernel", f"for {name}, an instance's device"),))
    return None


def apparmor(obj: Object, case: Case) -> Finding | None:
    """Profiles and namespaces whose names Incus makes from its directory (internal/server/apparmor/apparmor.go)."""
    name = obj.facts["name"]
    profile = re.match(r"incus[-_].*_<" + re.escape(DIRECTORY) + r">(//.*)?\Z", name)
    namespace = re.match(r"incus[-_].*_<" + re.escape(DIRECTORY.strip("/").replace("/", "-")) + r">\Z", name)
    if not profile and not namespace:
        return None
    return Finding("an AppArmor profile of Incus", (Evidence("kernel", f"named for {DIRECTORY}"),))
