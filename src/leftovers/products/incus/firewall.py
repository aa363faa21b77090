"""Which firewall tables and rules, and which AppArmor profiles, are Incus' own."""

from __future__ import annotations

import re

from leftovers.claims import Case, Finding
from leftovers.model import Evidence, Object, Role
from leftovers.products.incus.names import CHAIN, COMMENT, DIRECTORY, SETS
from leftovers.products.incus.processes import trace

# A rule for all interfaces but one, in either of the forms in which ebtables writes it.
NEGATED = re.compile(r"! (-i|-o|--logical|--in|--out)|(-i|-o|--logical-in|--logical-out|--\w+-interface) !")


def nft_table(obj: Object, case: Case) -> Finding | None:
    """Incus' tables (firewall/drivers/drivers_nftables.go: nftablesNamespace). The name is its namespace; that
    nothing but Incus writes there is seen by the chains."""
    if obj.facts["name"] != "incus" or obj.facts["family"] not in ("inet", "bridge", "netdev"):
        return None
    foreign = [chain for chain in obj.facts["chains"] if not CHAIN.match(chain)]
    foreign += [name for name in obj.facts["sets"] if not SETS.match(name)]
    been = trace(case)
    if foreign or not been:
        doubt = (
            f"has what Incus does not make: {', '.join(foreign[:5])}" if foreign else "nothing else of Incus is here"
        )
        reason = "a table with Incus' name" + (", and things of somebody else" if foreign else "")
        advice = f"nft delete table {obj.key}"
        # Somebody else's table that only has the name is not Incus'; one with chains of both is.
        mixed = been and any(CHAIN.match(chain) for chain in obj.facts["chains"])
        role = Role.LIVE if mixed else Role.ADMIN
        return Finding(reason, (Evidence("kernel", doubt),), proven=False, role=role, advice=advice)
    count = len(obj.facts["chains"])
    state = f"{count} chains, all named as Incus names them" if count else "empty, as Incus leaves it"
    return Finding("Incus' firewall table", (Evidence("kernel", state), Evidence("kernel", been)))


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
        return bridge_rule(obj, case)
    return None


def bridge_rule(obj: Object, case: Case) -> Finding | None:
    """A rule for an instance's own device: as the one link that it is about, and not as what it excepts."""
    names = obj.facts.get("interfaces", ())
    if len(set(names)) != 1 or NEGATED.search(obj.facts["rule"]):
        return None
    link = next((link for link in case.proven("link") if link.key == names[0]), None)
    if link is None or link.facts["type"] not in ("veth", "tun"):
        return None
    return Finding("a bridge rule of Incus", (Evidence("kernel", f"for {link.key}, an instance's device"),))


def apparmor(obj: Object, case: Case) -> Finding | None:
    """Profiles and namespaces whose names Incus makes from its directory (internal/server/apparmor/apparmor.go)."""
    name = obj.facts["name"]
    profile = re.match(r"incus[-_].*_<" + re.escape(DIRECTORY) + r">(//.*)?\Z", name)
    namespace = re.match(r"incus[-_].*_<" + re.escape(DIRECTORY.strip("/").replace("/", "-")) + r">\Z", name)
    if not profile and not namespace:
        return None
    return Finding("an AppArmor profile of Incus", (Evidence("kernel", f"named for {DIRECTORY}"),))
