"""Which links and firewall rules are Podman's own: what netavark has set up for its containers.

containers/netavark src/network/{bridge,core_utils}.rs, src/firewall/{nft,iptables,varktables/*}.rs. netavark has users
besides Podman, buildah while it builds; all of root's have one state directory, one nft table and the same chains.
"""

from __future__ import annotations

import ipaddress
import re
from shlex import quote

from leftovers.claims import Case, Finding
from leftovers.evidence import libpod
from leftovers.model import Evidence, Object, Record, Role
from leftovers.products.libpod.known import rival, trace

OWN_ACCORD = ("fe80::/10", "169.254.0.0/16")  # addresses that the kernel, or who configures every link, adds
BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
# src/firewall/nft.rs; and src/firewall/varktables/types.rs, the chains of a network by a hash of 13 digits.
TABLE = "inet netavark"
NFT_CHAINS = re.compile(r"NETAVARK-(HOSTPORT-(DNAT|SETMARK)|ISOLATION-[123])\Z|nv_[0-9a-f]{8}_.+")
CHAINS = re.compile(
    r"NETAVARK(_FORWARD|_INPUT|-HOSTPORT-(DNAT|SETMARK|MASQ)|_ISOLATION_[123]|-ISOLATION-[123]|(-DN)?-[0-9A-F]{13,16})\Z"
)


def bridges(case: Case) -> dict[str, tuple[Record, list[str]]]:
    """The bridges that netavark makes for Podman's networks, with the subnets of each: those of configurations, the
    one of the network that is there without any, and those that netavark wrote down. One whose mode is unmanaged is
    the administrator's."""

    def make() -> dict[str, tuple[Record, list[str]]]:
        found: dict[str, tuple[Record, list[str]]] = {}
        named = [record for record in case.records_of("podman-network") if record.source != "ledger"]
        named += [record for record in case.records_of("podman-network") if record.source == "ledger"]
        for record in named:
            if record.facts["driver"] == "bridge" and record.facts["bridge"]:
                found.setdefault(record.facts["bridge"], (record, list(record.facts["subnets"])))
        for record in case.records_of("netavark"):
            if record.facts["bridge"]:
                known = found.setdefault(record.facts["bridge"], (record, []))
                known[1].extend(record.facts["subnets"])
        if not any(record.name == libpod.DEFAULT["name"] for record in named):
            facts = {"path": "", "managed": True, **libpod.DEFAULT}
            default = Record("podman-network", str(libpod.DEFAULT["name"]), "disk", facts)
            known = found.setdefault(str(libpod.DEFAULT["bridge"]), (default, []))
            known[1].extend(libpod.DEFAULT["subnets"])
        return found

    table: dict[str, tuple[Record, list[str]]] = case.cached("libpod.bridges", make)
    return table


def within(addresses: list[str], subnets: list[str]) -> str:
    """The first of these addresses that lies in one of those networks; "" if none does."""
    for address in addresses:
        for subnet in subnets:
            try:
                if ipaddress.ip_address(address) in ipaddress.ip_network(subnet, strict=False):
                    return address
            except ValueError:
                continue
    return ""


def on_network(case: Case, name: str) -> str:
    """The address that a bridge of the host has in the network of Podman's whose bridge it is; "" for any other."""
    record, subnets = bridges(case).get(name, (None, []))
    if record is None or record.facts.get("managed") is False:
        return ""
    link = next((link for link in case.objects("link") if link.facts["host"] and link.key == name), None)
    return within(link.facts["addresses"], subnets) if link is not None and link.facts["type"] == "bridge" else ""


def bridge(obj: Object, case: Case) -> Finding | None:
    """A bridge of one of Podman's networks: it has the name of one, and as the kernel tells it an address of that
    network, or a container of Podman's on it."""
    facts = obj.facts
    if not facts["host"] or facts["type"] != "bridge" or obj.key not in bridges(case) or not trace(case):
        return None
    record, subnets = bridges(case)[obj.key]
    if record.facts.get("managed") is False:
        theirs = Evidence(record.source, f"{record.facts['path']} has it, and its mode is unmanaged")
        return Finding("the administrator's bridge, which containers are on", (theirs,), role=Role.ADMIN)
    ports = [link for link in case.objects("link") if link.facts["host"] and link.facts["master"] == obj.key]
    own = [link.key for link in ports if case.is_proven("link", link.key)]
    address = within(facts["addresses"], subnets)
    if not own and not address:
        return None
    where = record.facts.get("path") or (
        "it is the network that Podman always has" if record.type == "podman-network" else "netavark wrote it down"
    )
    said = (
        Evidence(record.source, f"the bridge of network {record.facts.get('name') or record.name[:12]}: {where}"),
        Evidence("kernel", f"its port {own[0]} is a container's" if own else f"has the address {address} of it"),
    )
    foreign = next((link.key for link in ports if link.key not in own), "")
    if foreign:
        held = (Evidence("kernel", f"has the port {foreign}, which is not Podman's"), *said)
        advice = f"ip link set {quote(foreign)} nomaster && leftovers clean podman"
        return Finding("a network's bridge, which somebody else uses too", held, role=Role.HELD, advice=advice)
    strange = next((each for each in facts["addresses"] if not within([each], [*subnets, *OWN_ACCORD])), "")
    if strange:
        # netavark takes a bridge that is there already (src/network/bridge.rs).
        held = (Evidence("kernel", f"has the address {strange}, which is of no network of Podman's"), *said)
        advice = f"ip link delete {quote(obj.key)}"
        return Finding("a network's bridge, which may have been there before", held, role=Role.HELD, advice=advice)
    return Finding("a network's bridge", said)


def veth(obj: Object, case: Case) -> Finding | None:
    """The host's end of a container's veth: its other end is in a container's network namespace."""
    facts = obj.facts
    if not facts["host"] or facts["type"] != "veth" or not facts["peer_netns"] or facts["peer_netns"] == facts["netns"]:
        return None
    if not case.is_proven("netns", str(facts["peer_netns"])):
        return None
    said = Evidence("kernel", f"its other end, {facts['peer'] or '?'}, is in the network namespace of a container")
    return Finding("a container's network device", (said,))


def lent(obj: Object, case: Case) -> Finding | None:
    """A card of the host's that a container was given (`--network=host-device`-like plugins): it goes home."""
    facts = obj.facts
    if facts["host"] or facts["type"] or not case.is_proven("netns", str(facts["netns"])):
        return None
    said = Evidence("kernel", f"in the network namespace {facts['netns']} of a container")
    return Finding("lent to a container", (said,), role=Role.LENT)


LINKS = (lent, veth, bridge)


def shared(obj: Object, case: Case, reason: str, said: Evidence, advice: str, **more: object) -> Finding | None:
    """A finding about what all of netavark's users share."""
    been = trace(case)
    if not been:
        return None
    other = rival(case)
    if other:
        users = (Evidence("kernel", other), said)
        earlier = case.recalled.get(obj.id)
        own = earlier is not None and earlier.proven and earlier.role is not Role.ADMIN
        role = Role.HELD if own else Role.ADMIN
        return Finding(f"{reason}, which somebody else may use", users, role=role, advice=advice)
    alone = Evidence("kernel", f"nobody else here uses netavark, and {been}")
    return Finding(reason, (said, alone), **more)  # type: ignore[arg-type]


def table(obj: Object, case: Case) -> Finding | None:
    """netavark's nft table, by its name and a chain in it that nobody else names so."""
    chain = next((name for name in obj.facts["chains"] if NFT_CHAINS.match(name)), "")
    if obj.key != TABLE or not chain:
        return None
    said = Evidence("kernel", f"has the chain {chain}")
    return shared(obj, case, "netavark's nft table", said, f"nft delete table {TABLE}")


def rule(obj: Object, case: Case) -> Finding | None:
    """netavark's chains, what is in them, and the jumps to them."""
    facts = obj.facts
    if facts["family"] not in ("ip", "ip6"):
        return None
    tool = "iptables" if facts["family"] == "ip" else "ip6tables"
    if CHAINS.match(facts["chain"]):
        said = Evidence("kernel", f"chain {facts['chain']}")
    elif facts["chain"] in BUILT_IN and CHAINS.match(facts.get("target", "")):
        said = Evidence("kernel", f"leads to {facts['target']}")
    else:
        return None
    words = f"-X {facts['chain']}" if facts.get("user") else f"-D {facts['chain']} {facts.get('rule', '')}"
    return shared(obj, case, "a rule or chain of netavark's", said, f"{tool} -t {facts['table']} {words}")


PROFILE = re.compile(r"containers-default-[0-9][0-9A-Za-z.+~-]*\Z")


def profile(obj: Object, case: Case) -> Finding | None:
    """The AppArmor profile of containers (containers/common pkg/apparmor): buildah's and CRI-O's have the same."""
    if obj.facts["type"] != "profile" or not PROFILE.match(obj.facts["name"]) or obj.facts["namespace"]:
        return None
    advice = "leftovers clean podman"
    for pid in obj.facts["processes"]:
        if not case.is_proven("process", str(pid)):
            said = Evidence("kernel", f"confines pid {pid}, which is not Podman's")
            return Finding("the profile of containers, somebody else's too", (said,), role=Role.HELD, advice=advice)
    said = Evidence("kernel", "the name that containers/common gives it")
    return shared(obj, case, "the profile of its containers", said, advice)
