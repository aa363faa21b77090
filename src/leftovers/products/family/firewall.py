"""Which firewall tables and rules, and which AppArmor profiles, are a member's own."""

from __future__ import annotations

import re
import shlex

from leftovers.claims import Case, Finding
from leftovers.kinds.xtables import tokens
from leftovers.model import Evidence, Object, Role
from leftovers.products.family.names import CHAIN, SETS, SHARED_OUI, Names
from leftovers.products.family.processes import trace, twin
from leftovers.products.family.reading import addresses

TOOLS = {"ip": "iptables", "ip6": "ip6tables", "bridge": "ebtables"}
# A rule for all interfaces but one, in either of the forms in which ebtables writes it.
NEGATED = re.compile(r"! (-i|-o|--logical|--in|--out)|(-i|-o|--logical-in|--logical-out|--\w+-interface) !")


def nft_table(names: Names, obj: Object, case: Case) -> Finding | None:
    """Its tables (firewall/drivers/drivers_nftables.go: nftablesNamespace). The name is its namespace; that
    nothing else writes there is seen by the chains."""
    if obj.facts["name"] != names.called or obj.facts["family"] not in ("inet", "bridge", "netdev"):
        return None
    foreign = [chain for chain in obj.facts["chains"] if not CHAIN.match(chain)]
    foreign += [name for name in obj.facts["sets"] if not SETS.match(name)]
    been, other = trace(names, case), twin(names, case)
    if other and not been:
        return None
    if foreign or not been:
        doubt = (
            f"has what {names.title} does not make: {', '.join(foreign[:5])}"
            if foreign
            else f"nothing else of {names.title} is here"
        )
        reason = f"a table with {names.possessive} name" + (", and things of somebody else" if foreign else "")
        advice = shlex.join(["nft", "delete", "table", obj.facts["family"], obj.facts["name"]])
        # Somebody else's table that only has the name is not the product's; one with chains of both is.
        mixed = been and any(CHAIN.match(chain) for chain in obj.facts["chains"])
        role = Role.LIVE if mixed else Role.ADMIN
        return Finding(reason, (Evidence("kernel", doubt),), proven=False, role=role, advice=advice)
    if other:
        reason = f"a table with {names.possessive} name, that another one writes to as well"
        advice = shlex.join(["nft", "list", "table", obj.facts["family"], obj.facts["name"]])
        return Finding(reason, (Evidence("kernel", other),), proven=False, role=Role.ADMIN, advice=advice)
    count = len(obj.facts["chains"])
    state = f"{count} chains, all named as {names.title} names them" if count else f"empty, as {names.title} leaves it"
    return Finding(f"{names.possessive} firewall table", (Evidence("kernel", state), Evidence("kernel", been)))


def xtables_rule(names: Names, obj: Object, case: Case) -> Finding | None:
    """Rules that the xtables driver wrote (Incus stable-6.0, LXD 5.0: firewall/drivers/drivers_xtables.go): each has
    its comment, but for those in its own chains, and those of ebtables, which has no comments."""
    comment = obj.facts.get("comment", "")
    match = names.comment.match(comment)
    if match:
        said = Evidence("kernel", f"comment {comment!r}")
        other = twin(names, case)
        if not other or is_for(case, obj, match["of"]):
            return Finding(f"a firewall rule of {names.title}", (said,))
        if not trace(names, case):
            return None
        reason = f"a firewall rule of {names.title}, or of another one"
        return Finding(reason, (said, Evidence("kernel", other)), proven=False, role=Role.ADMIN, advice=command(obj))
    if obj.facts["family"] == "bridge":
        return bridge_rule(names, obj, case)
    return chain(names, obj, case) or jump(names, obj, case)


def is_for(case: Case, rule: Object, network: str | None) -> bool:
    """Whether a rule is for a network, or a device of an instance, that is proven the product's."""
    return any(case.is_proven("link", name) for name in {network or "", *rule.facts.get("interfaces", ())} - {""})


def chain(names: Names, obj: Object, case: Case) -> Finding | None:
    """A chain that is named for a network, or a rule in it: the daemon's own jumps to it have its comment."""
    match = names.chain.match(obj.facts["chain"])
    if match is None:
        return None
    said = [Evidence("kernel", f"chain {match[0]}, for network {match['of']}")]
    reason = f"a firewall chain of {names.title}" if obj.facts.get("user") else f"a firewall rule of {names.title}"
    commented = [rule for rule in jumps_to(case, obj) if names.comment.match(rule.facts["comment"])]
    record = next((record for record in case.records_of("network") if record.name == match["of"]), None)
    other = twin(names, case)
    if commented and not other:
        said.append(Evidence("kernel", f"used by a rule with the comment {commented[0].facts['comment']!r}"))
    elif case.is_proven("link", match["of"]):
        said.append(Evidence("kernel", f"{match['of']} is a network of {names.title}"))
    elif record is not None and not other:
        said.append(Evidence(record.source, f"knows a network {match['of']}"))
    else:
        reason = f"named like {reason}, but for no network that it knows"
        return Finding(reason, tuple(said), proven=False, role=Role.ADMIN, advice=command(obj))
    return Finding(reason, tuple(said))


def used_chain(names: Names, obj: Object, case: Case) -> Finding | None:
    """A chain to which somebody else's rule jumps: it cannot go before that rule."""
    for rule in jumps_to(case, obj) if obj.facts.get("user") else ():
        if not case.is_proven("xtables", rule.key):
            said = (Evidence("kernel", f"-A {rule.facts['chain']} {rule.facts['rule']}"),)
            advice = f"{command(rule)} && leftovers clean {names.name}"
            return Finding("somebody else's rule jumps to it", said, advice=advice)
    return None


def jump(names: Names, obj: Object, case: Case) -> Finding | None:
    """Somebody else's rule that uses a chain of the product's."""
    match = names.chain.match(obj.facts.get("target", ""))
    if match is None:
        return None
    said = (Evidence("kernel", f"jumps to chain {match[0]}, and has no comment of {names.possessive}"),)
    reason = f"somebody else's rule, with a chain that is named as {names.title} names them"
    return Finding(reason, said, role=Role.ADMIN, advice=command(obj))


def jumps_to(case: Case, of: Object) -> list[Object]:
    """The rules of the same table that jump to an object's chain: looked up, for a host may have ten thousand rules."""

    def make() -> dict[tuple[str, ...], list[Object]]:
        table: dict[tuple[str, ...], list[Object]] = {}
        for rule in case.objects("xtables"):
            if rule.facts.get("target"):
                table.setdefault((*within(rule), rule.facts["target"]), []).append(rule)
        return table

    table: dict[tuple[str, ...], list[Object]] = case.cached("family.jumps", make)
    return table.get((*within(of), of.facts["chain"]), [])


def within(obj: Object) -> tuple[str, str, str]:
    return obj.facts["family"], obj.facts["backend"], obj.facts["table"]


def command(obj: Object) -> str:
    """What a person types to remove a rule or a chain."""
    family, backend, table = within(obj)
    tool = [f"{TOOLS[family]}-{backend}", "-t", table]
    chain = obj.facts["chain"]
    if obj.facts.get("user"):
        return f"{shlex.join([*tool, '-F', chain])} && {shlex.join([*tool, '-X', chain])}"
    return shlex.join([*tool, "-D", chain, *tokens(obj.facts["rule"])])


def bridge_rule(names: Names, obj: Object, case: Case) -> Finding | None:
    """A rule for an instance's own device: as the one link that it is about, and not as what it excepts. Where that
    link is gone already (its rules go only by the daemon's hand), the hardware address in one of the rules for it tells
    whose it was."""
    interface = about(obj)
    if not interface:
        return None
    reason = f"a bridge rule of {names.title}"
    link = next((link for link in case.proven("link") if link.key == interface), None)
    if link is not None and link.facts["type"] in ("veth", "tun"):
        return Finding(reason, (Evidence("kernel", f"for {interface}, an instance's device"),))
    if link is not None or not names.transient.match(interface) or here(case, interface):
        return None
    gone = Evidence("kernel", f"for {interface}, which is gone, and was named as {names.title} names devices")
    macs = dict.fromkeys(mac for rule in rules_about(case, interface) for mac in rule.facts["macs"])
    for mac in macs:
        if mac in addresses(case):
            return Finding(reason, (gone, Evidence("disk", f"for {mac}, which {names.title} gave an instance")))
        if mac.startswith(names.ouis):
            said = Evidence("kernel", f"for {mac}, from a range that {names.title} gives")
            return Finding(reason, (gone, said))
        if mac.startswith(SHARED_OUI) and trace(names, case):
            said = Evidence("kernel", f"for {mac}, from a range that others give too")
            return Finding(f"perhaps {reason}", (gone, said), proven=False, advice=command(obj))
    return None


def about(rule: Object) -> str:
    """The one link that an ebtables rule is about; "" if there is none."""
    interfaces = set(rule.facts.get("interfaces", ()))
    return interfaces.pop() if len(interfaces) == 1 and not NEGATED.search(rule.facts["rule"]) else ""


def here(case: Case, name: str) -> bool:
    names: set[str] = case.cached("family.links", lambda: {link.key for link in case.objects("link")})
    return name in names


def rules_about(case: Case, interface: str) -> list[Object]:
    def make() -> dict[str, list[Object]]:
        table: dict[str, list[Object]] = {}
        for rule in case.objects("xtables"):
            if rule.facts["family"] == "bridge":
                table.setdefault(about(rule) if "rule" in rule.facts else "", []).append(rule)
        return table

    table: dict[str, list[Object]] = case.cached("family.bridge_rules", make)
    return table.get(interface, [])


def apparmor(names: Names, obj: Object, case: Case) -> Finding | None:
    """Profiles and policy namespaces, whose names are made from an instance's (or a device's, a network's) and the
    directory: internal/server/apparmor/apparmor.go, profileName; instance.go, InstanceNamespaceName. Where it has never
    been, a name says nothing.

    In a namespace's name the directory has dashes for slashes, so that of another directory can be the same: the
    instance's profile, loaded with it, tells; or a process that lives in there."""
    kind, name = obj.facts["type"], obj.facts["name"]
    directory = names.directory if kind == "profile" else dashed(names.directory)
    match = re.match(rf"(?P<stem>{names.called}[-_].*_)<{re.escape(directory)}>(//.*)?\Z", name)
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
