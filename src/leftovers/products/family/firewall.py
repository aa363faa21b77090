"""Which firewall tables and rules, and which AppArmor profiles, are a member's own."""

from __future__ import annotations

import re

from leftovers.claims import Case, Finding
from leftovers.model import Evidence, Object, Role
from leftovers.products.family.names import CHAIN, SETS, Names
from leftovers.products.family.processes import trace

# A rule for all interfaces but one, in either of the forms in which ebtables writes it.
NEGATED = re.compile(r"! (-i|-o|--logical|--in|--out)|(-i|-o|--logical-in|--logical-out|--\w+-interface) !")


def nft_table(names: Names, obj: Object, case: Case) -> Finding | None:
    """Its tables (firewall/drivers/drivers_nftables.go: nftablesNamespace). The name is its namespace; that
    nothing else writes there is seen by the chains."""
    if obj.facts["name"] != names.name or obj.facts["family"] not in ("inet", "bridge", "netdev"):
        return None
    foreign = [chain for chain in obj.facts["chains"] if not CHAIN.match(chain)]
    foreign += [name for name in obj.facts["sets"] if not SETS.match(name)]
    been = trace(names, case)
    if foreign or not been:
        doubt = (
            f"has what {names.title} does not make: {', '.join(foreign[:5])}"
            if foreign
            else f"nothing else of {names.title} is here"
        )
        reason = f"a table with {names.possessive} name" + (", and things of somebody else" if foreign else "")
        advice = f"nft delete table {obj.key}"
        # Somebody else's table that only has the name is not the product's; one with chains of both is.
        mixed = been and any(CHAIN.match(chain) for chain in obj.facts["chains"])
        role = Role.LIVE if mixed else Role.ADMIN
        return Finding(reason, (Evidence("kernel", doubt),), proven=False, role=role, advice=advice)
    count = len(obj.facts["chains"])
    state = f"{count} chains, all named as {names.title} names them" if count else f"empty, as {names.title} leaves it"
    return Finding(f"{names.possessive} firewall table", (Evidence("kernel", state), Evidence("kernel", been)))


def xtables_rule(names: Names, obj: Object, case: Case) -> Finding | None:
    """Rules that the xtables driver wrote (Incus stable-6.0, LXD 5.0: firewall/drivers/drivers_xtables.go): each has
    its comment, and the chains are named for it; ebtables has no comments, but the names of the product's own links."""
    comment = obj.facts.get("comment", "")
    if names.comment.match(comment):
        return Finding(f"a firewall rule of {names.title}", (Evidence("kernel", f"comment {comment!r}"),))
    for word in ("chain", "target"):
        match = re.fullmatch(rf"{names.name}_(?:nic|acl)_(.+)", obj.facts.get(word, ""))
        if match:
            said = Evidence("kernel", f"{word} {match[0]}, for network {match[1]}")
            known = any(record.name == match[1] for record in case.records_of("network"))
            reason = f"a firewall rule or chain of {names.title}"
            return Finding(reason, (said,), proven=known or case.is_proven("link", match[1]))
    if obj.facts["family"] == "bridge":
        return bridge_rule(names, obj, case)
    return None


def bridge_rule(names: Names, obj: Object, case: Case) -> Finding | None:
    """A rule for an instance's own device: as the one link that it is about, and not as what it excepts."""
    interfaces = obj.facts.get("interfaces", ())
    if len(set(interfaces)) != 1 or NEGATED.search(obj.facts["rule"]):
        return None
    link = next((link for link in case.proven("link") if link.key == interfaces[0]), None)
    if link is None or link.facts["type"] not in ("veth", "tun"):
        return None
    return Finding(f"a bridge rule of {names.title}", (Evidence("kernel", f"for {link.key}, an instance's device"),))


def apparmor(names: Names, obj: Object, case: Case) -> Finding | None:
    """Profiles and policy namespaces, whose names are made from an instance's (or a device's, a network's) and the
    directory: internal/server/apparmor/apparmor.go, profileName; instance.go, InstanceNamespaceName. Where it has never
    been, a name says nothing.

    In a namespace's name the directory has dashes for slashes, so that of another directory can be the same: the
    instance's profile, loaded with it, tells; or a process that lives in there."""
    kind, name = obj.facts["type"], obj.facts["name"]
    directory = names.directory if kind == "profile" else dashed(names.directory)
    match = re.match(rf"(?P<stem>{names.name}[-_].*_)<{re.escape(directory)}>(//.*)?\Z", name)
    been = trace(names, case) if match else ""
    if not match or not been:
        return None
    said = [Evidence("kernel", f"named for {names.directory}"), Evidence("kernel", been)]
    if kind == "namespace":
        twins = [
            profile.facts["name"]
            for profile in case.objects("apparmor")
            if profile.facts["type"] == "profile"
            and profile.facts["name"].startswith(f"{match['stem']}<")
            # Of those for other directories only that of which the namespace may be.
            and dashed(profile.facts["name"].removeprefix(f"{match['stem']}<").removesuffix(">")) == directory
        ]
        inside = next((pid for pid in obj.facts["processes"] if case.is_proven("process", str(pid))), None)
        if inside is not None:
            said[1] = Evidence("kernel", f"pid {inside} lives in it")
        elif f"{match['stem']}<{names.directory}>" in twins:
            said[1] = Evidence("kernel", f"made with profile {match['stem']}<{names.directory}>")
        elif twins:
            said = [Evidence("kernel", f"as likely that of profile {twins[0]}")]
            reason = f"a policy namespace with a name that {names.title} would give, too"
            advice = f"rmdir '/sys/kernel/security/apparmor/policy/namespaces/{name}'"
            return Finding(reason, tuple(said), proven=False, role=Role.ADMIN, advice=advice)
    return Finding(f"an AppArmor {'profile' if kind == 'profile' else 'namespace'} of {names.title}", tuple(said))


def dashed(directory: str) -> str:
    """A directory as it stands in a namespace's name."""
    return directory.strip("/").replace("/", "-")
