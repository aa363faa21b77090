"""What dockerd has besides its containers: bridges and other links of networks, rules, the policy of FORWARD, volumes.

The name of a bridge says little: Podman and nerdctl have such as well, and a user may have Docker use one of his own.
What tells is dockerd's own word for each network (evidence/docker_network.py), and where that is gone, its own chains.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from leftovers.claims import Case, Finding
from leftovers.model import Evidence, Object, Role
from leftovers.products.containers.known import located, trace
from leftovers.products.containers.names import Runtime
from leftovers.products.containers.network import in_networks
from leftovers.products.containers.rivals import shared

__all__ = ["FILES", "LINKS", "XTABLES", "mounts"]

BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
# What dockerd has once for the host.
BRIDGES = ("docker0", "docker_gwbridge")
# bridge_linux.go, parseNetworkOptions: the first digits of the network's id.
BRIDGE = re.compile(r"br-(?P<id>[0-9a-f]{12})\Z")
# osl/namespace_linux.go, GenerateKey: of a sandbox' id. A swarm's are called otherwise.
PIN = re.compile(r"[0-9a-f]{12}\Z")
# Both ends of an endpoint's pair, until the one is moved and renamed (bridge_linux.go, CreateEndpoint; vethLen).
VETH = re.compile(r"veth[0-9a-f]{7}\Z")
# macvlan_network.go, ipvlan_network.go: getDummyName.
DUMMY = re.compile(r"d[mi]-[0-9a-f]{10,13}\Z")
# BridgeIfaceCreator (bridge_store.go).
DOCKERD, SOMEBODY = 1, 2
# What only dockerd writes, in its own chains, for each bridge it has a network on (up to 27; from 28 on).
MENTIONS = {
    ("nat", "DOCKER"): r"-i (\S+) -j RETURN",
    ("filter", "DOCKER-ISOLATION-STAGE-2"): r"-o (\S+) -j DROP",
    ("filter", "DOCKER-BRIDGE"): r"-o (\S+) -j DOCKER",
    ("filter", "DOCKER-FORWARD"): r"-i (\S+) -j ACCEPT",
}


def mounts(store: str) -> tuple[tuple[str, str, str], ...]:
    """Where it mounts in its --data-root: daemon/daemon_linux.go, getCleanPatterns; graph drivers;
    volume/local/local_unix.go; daemon/snapshotter/mount.go."""
    # --userns-remap has it all once more, below UID.GID.
    inner = r"([0-9]{1,10}\.[0-9]{1,10}/)?"
    return (
        (
            store,
            rf"{inner}(overlay2|fuse-overlayfs|btrfs/subvolumes|zfs/graph|rootfs/[a-z0-9-]+)/[0-9a-z-]+(/.*)?\Z",
            "a container's file system",
        ),
        (store, rf"{inner}containers/[0-9a-f]{{64}}/mounts/.+", "a container's shared memory, or a secret of it"),
        (store, rf"{inner}(plugins/[0-9a-f]{{64}}|buildkit/executor/[^/]+|tmp/[^/]+)(/.*)?\Z", "a mount of dockerd's"),
        (store, rf"{inner}volumes/[^/]+/_data\Z", "a volume"),
    )


# -- links ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bridge:
    """A bridge with a network of dockerd's on it: whether it made that itself, and whose word that is."""

    own: bool
    evidence: Evidence
    subnets: tuple[str, ...] = ()


def bridges(runtime: Runtime, case: Case) -> dict[str, Bridge]:
    """By name, the bridges that dockerd has networks on: as it has written down, and as its own chains say."""

    def make() -> dict[str, Bridge]:
        found: dict[str, Bridge] = {}
        links = {link.key: link for link in case.objects("link") if link.facts["host"]}
        for record in case.records_of("docker-network"):
            facts, name = record.facts, str(record.facts["bridge"])
            match = BRIDGE.match(name)
            if record.source == "ledger" and not match and name not in BRIDGES:
                # It may be gone, and another have that name by now.
                earlier = case.recalled.get(links[name].id) if name in links else None
                if earlier is None or not earlier.proven:
                    continue
            # docker0 is called somebody's, if it was there when dockerd was started last.
            own = facts["creator"] != SOMEBODY or (facts["default"] and name == BRIDGES[0])
            who = "made" if own else "was told to use"
            said = Evidence(record.source, f"Docker {who} it for its network {facts['name'] or facts['id'][:12]}")
            if name:
                found.setdefault(name, Bridge(own, said, tuple(facts["subnets"])))
        for rule in case.objects("xtables"):
            form = MENTIONS.get((rule.facts["table"], rule.facts["chain"]))
            match = re.fullmatch(form, rule.facts.get("rule", "")) if form else None
            if match and BRIDGE.match(match[1]):
                said = Evidence("kernel", f"dockerd has a rule for it in {rule.facts['chain']}: {match[0]}")
                found.setdefault(match[1], Bridge(True, said))
        for table in case.objects("nft"):
            for chain in table.facts.get("chains", ()) if table.facts.get("name") == "docker-bridges" else ():
                name = str(chain).rpartition("__")[2]
                if BRIDGE.match(name):
                    said = Evidence("kernel", f"dockerd has a chain for it: {chain}")
                    found.setdefault(name, Bridge(True, said))
        return found

    table: dict[str, Bridge] = case.cached("docker.bridges", make)
    return table


def bridge(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A bridge of dockerd's. One of the administrator's that has a network of Docker's on it is his; so is a network of
    which nobody says any more who made it, but for the names that only dockerd gives."""
    facts = obj.facts
    if "docker" not in runtime.brings or not facts["host"] or facts["type"] != "bridge":
        return None
    match = BRIDGE.match(obj.key)
    known = bridges(runtime, case).get(obj.key)
    if (known is None and obj.key not in BRIDGES and not match) or not trace(runtime, case):
        return None
    advice = f"ip link delete {obj.key}"
    if known and not known.own:
        return Finding("the administrator's bridge, with a network of Docker's", (known.evidence,), role=Role.ADMIN)
    ports = [link for link in case.objects("link") if link.facts["host"] and link.facts["master"] == obj.key]
    foreign = [link.key for link in ports if not case.is_proven("link", link.key)]
    said = known.evidence if known else None
    for record in case.records_of("docker"):
        if match and any(network.startswith(match["id"]) for network in record.facts["networks"]):
            said = Evidence(record.source, f"container {record.facts['name'] or record.name[:12]} is in that network")
    reason = "a bridge of Docker's"
    # dockerd's chains are the same for all who run one, so they say whose it is only where there is no other.
    by_chain = known is not None and said is known.evidence and said.source == "kernel"
    if match and (said is None or by_chain) and len(ports) > len(foreign):
        by_chain = False
        said = Evidence("kernel", f"its port {next(link.key for link in ports if link.key not in foreign)} is ours")
    if match and said is None:
        doubt = Evidence("kernel", "named for the id of a network, as others name theirs")
        return Finding("perhaps a bridge of Docker's", (doubt,), False, Role.ADMIN, advice=advice)
    if foreign:
        held = (Evidence("kernel", f"has the port {foreign[0]}, which is not the product's"),)
        return Finding(f"{reason}, which somebody else uses too", held, role=Role.HELD, advice=advice)
    if not match and known and known.subnets:
        strange = [each for each in facts["addresses"] if not in_networks([each], (*known.subnets, "fe80::/10"))]
        own = [each for each in facts["addresses"] if in_networks([each], known.subnets)]
        if strange:
            other = Evidence("kernel", f"has the address {strange[0]}, which is not that network's")
            return Finding(f"{reason}, which somebody else uses too", (other,), role=Role.HELD, advice=advice)
        if not own and known.evidence.source != "api" and obj.key not in BRIDGES:
            # An older word of a name that people give: it may be another bridge by now.
            doubt = Evidence("kernel", "has no address of that network")
            return Finding(f"perhaps {reason}", (doubt, known.evidence), False, Role.ADMIN, advice=advice)
    if said is not None and obj.key not in BRIDGES and not by_chain:
        return Finding(reason, (said,))
    named = said or Evidence("kernel", "the name that only dockerd gives")
    return shared(runtime, obj, case, "docker", reason, named, advice)


def stranded(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """An end of a pair whose other end is in the host's namespace too: dockerd was killed after it made them, before it
    moved the one and wrote that down. One that it has written down is its own; else both are called as dockerd calls
    them, one is a port of a bridge that dockerd made, and the other is as it was made: nobody uses it."""
    facts = obj.facts
    if "docker" not in runtime.brings or not facts["host"] or facts["type"] != "veth" or not VETH.match(obj.key):
        return None
    peer, inner = str(facts["peer"]), facts["peer_netns"]
    if not peer or inner != facts["netns"] or not VETH.match(peer) or not trace(runtime, case):
        return None
    reason = "an end of a container's network device, that never came into a container"
    names: dict[str, Evidence] = case.cached(
        "docker.sources",
        lambda: {
            str(record.facts["source_name"]): Evidence(record.source, f"Docker's endpoint {record.name[:12]} names it")
            for record in case.records_of("docker-endpoint")
            if record.facts["source_name"]
        },
    )
    if obj.key in names or peer in names:
        return Finding(reason, (names.get(obj.key) or names[peer],))
    ends = [link for link in case.objects("link") if link.facts["host"] and link.key in (obj.key, peer)]
    for link, other in zip(ends, reversed(ends)):  # noqa: B905 - as many
        known = bridges(runtime, case).get(link.facts["master"])
        used = other.facts["up"] or other.facts["master"] or other.facts["addresses"]
        if known and known.own and not used:
            said = (
                f"{link.key} is a port of {link.facts['master']}, both are named as dockerd does, {other.key} is down"
            )
            return Finding(reason, (Evidence("kernel", said), known.evidence))
    if len(ends) == 2 and not any(end.facts["up"] or end.facts["master"] or end.facts["addresses"] for end in ends):
        # It was killed before that.
        doubt = Evidence("kernel", f"both it and {peer} are named as dockerd does, and nobody uses them")
        advice = f"ip link delete {obj.key}"
        return Finding(f"perhaps {reason}", (doubt,), proven=False, role=Role.ADMIN, advice=advice)
    return None


def unreachable(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The host's end of a pair whose other end is in a namespace that nobody lives in and no pin leads to: somebody has
    it open still. dockerd takes a pair away by its inner end, which it did not find when it came back and the container
    had ended meanwhile. It made the bridge of which this is a port, and so it calls its ports."""
    facts = obj.facts
    if "docker" not in runtime.brings or not facts["host"] or facts["type"] != "veth" or not VETH.match(obj.key):
        return None
    known = bridges(runtime, case).get(facts["master"])
    if facts["peer_netns"] or not facts["peer_index"] or known is None or not known.own or not trace(runtime, case):
        return None
    if any(not each.lower().startswith("fe80:") for each in facts["addresses"]):
        return None
    said = Evidence("kernel", f"a port of {facts['master']}, named as dockerd does; nobody lives where it leads to")
    return Finding("a container's network device, whose other end is out of reach", (said, known.evidence))


def parent(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The link that dockerd made for a macvlan or ipvlan network to stand on: a dummy, or a VLAN of a card."""
    facts = obj.facts
    if "docker" not in runtime.brings or not facts["host"] or facts["type"] not in ("dummy", "vlan"):
        return None
    advice = f"ip link delete {obj.key}"
    known = DUMMY.match(obj.key) if facts["type"] == "dummy" else None
    for record in case.records_of("docker-network"):
        said = record.facts
        if said["parent"] != obj.key or not said["parent_created"]:
            continue
        earlier = case.recalled.get(obj.id)
        if record.source == "ledger" and not known and (earlier is None or not earlier.proven):
            continue
        reason = f"made for a {said['driver']} network of Docker's"
        evidence = Evidence(record.source, f"Docker made it for its network {said['name'] or said['id'][:12]}")
        user = foreign_user(obj, case)
        if user:
            held = (Evidence("kernel", user), evidence)
            return Finding(f"{reason}, which somebody else uses too", held, role=Role.HELD, advice=advice)
        return Finding(reason, (evidence,))
    if known and trace(runtime, case):
        doubt = Evidence("kernel", "named as dockerd names such, for no network that is known")
        return Finding("perhaps made for a network of Docker's", (doubt,), False, Role.ADMIN, advice=advice)
    return None


def foreign_user(obj: Object, case: Case) -> str:
    """Who else uses a link that others may stand on; "" if nobody is to be seen."""
    strange = [each for each in obj.facts["addresses"] if not each.lower().startswith("fe80:")]
    if strange:
        return f"it has the address {strange[0]}"
    if obj.facts["master"]:
        return f"it is a port of {obj.facts['master']}"
    for link in case.objects("link"):
        stands = link.facts["type"] not in ("veth", "") and link.facts["peer_index"] == obj.facts["index"]
        if not stands or (link.facts["host"] and link.facts["peer"] != obj.key):
            continue
        inside = not link.facts["host"] and case.is_proven("netns", str(link.facts["netns"]))
        if link.facts["peer_netns"] in (0, obj.facts["netns"]) and not inside and link.key != obj.key:
            return f"{link.key} stands on it"
    return ""


def pin(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A file on which dockerd pins the network namespace of a container (osl/namespace_linux.go)."""
    top, _, name = obj.key.rpartition("/")
    if not runtime.netns or top not in located(runtime, case, runtime.netns) or not PIN.match(name):
        return None
    return Finding("where a container's network was pinned", (Evidence("disk", f"it is in {top}"),))


FILES = (pin,)
LINKS = (bridge, stranded, unreachable, parent)


# -- iptables -------------------------------------------------------------------------------------------------------

ADDRESS = r"[0-9a-fA-F.:]+"
# What dockerd has for each bridge in the built-in chains, without a comment (setup_ip_tables_linux.go; up to 27 all of
# them, from 28 on the first three and the last).
FOR_BRIDGE = (
    rf"-s {ADDRESS}/[0-9]+ ! -o {{0}} -j (MASQUERADE|SNAT --to-source {ADDRESS})",
    r"-o {0} -m addrtype --src-type LOCAL -j MASQUERADE",
    rf"-d {ADDRESS}/(32|128) ! -i {{0}} -j DROP",
    r"-o {0} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    r"-i {0} ! -o {0} -j ACCEPT",
    r"-i {0} -o {0} -j (ACCEPT|DROP)",
    r"-o {0} -j DOCKER",
)
# For a port that is published (port_mapping_linux.go): of a container that asks for itself, and what would come to it
# from outside by the loopback's address.
HAIRPIN = re.compile(
    rf"-s (?P<one>{ADDRESS})/(?:32|128) -d (?P<two>{ADDRESS})/(?:32|128)"
    r" -p (?P<proto>tcp|udp|sctp) -m (?:tcp|udp|sctp) --dport (?P<port>[0-9]+) -j MASQUERADE\Z"
)
LOOPBACK = re.compile(
    r"-d (?P<host>127\.[0-9.]+)/32 ! -i lo -p (?P<proto>tcp|udp|sctp) -m (?:tcp|udp|sctp)"
    r" --dport (?P<port>[0-9]+) -j DROP\Z"
)
DNAT = re.compile(
    rf"(?:-d (?P<host>{ADDRESS})/(?:32|128) )?(?:! -i \S+ )?-p (?P<proto>tcp|udp|sctp) -m (?:tcp|udp|sctp)"
    rf" --dport (?P<outer>[0-9]+) -j DNAT --to-destination \[?(?P<to>{ADDRESS}?)\]?:(?P<port>[0-9]+)\Z"
)


def bridge_rule(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A rule of dockerd's about one of its bridges, to the letter: one with a word more is a person's. About a bridge
    of the administrator's he may have written the very same himself."""
    rule = str(obj.facts.get("rule", ""))
    if "docker" not in runtime.brings or obj.facts["chain"] not in BUILT_IN or not rule:
        return None
    for name in dict.fromkeys(re.findall(r"-[io] (\S+)", rule)):
        if not any(re.fullmatch(form.format(re.escape(name)), rule) for form in FOR_BRIDGE):
            continue
        known = bridges(runtime, case).get(name)
        link = next((link for link in case.proven("link") if link.key == name), None)
        if link is not None and link.facts["type"] == "bridge":
            said = Evidence("kernel", f"as dockerd writes it for {name}, a bridge of {runtime.title}")
            return Finding("a rule of Docker's", (said,))
        here = any(link.key == name and link.facts["host"] for link in case.objects("link"))
        if known and known.own and not here:
            said = Evidence("kernel", f"as dockerd writes it for {name}, which is gone")
            return Finding("a rule of Docker's", (said, known.evidence))
        if known and not known.own:
            address = rule.split()[1].partition("/")[0]
            end = endpoints(case).get(address)
            if end is not None and rule.endswith(f"! -i {name} -j DROP"):
                return Finding("a rule of Docker's", (end,))
            said = Evidence("kernel", f"as dockerd writes it for {name}, and an administrator may")
            return Finding(
                "perhaps a rule of Docker's", (said, known.evidence), False, Role.ADMIN, advice=deletion(obj)
            )
    return None


def endpoints(case: Case) -> dict[str, Evidence]:
    """By address, the endpoints of dockerd's networks."""

    def make() -> dict[str, Evidence]:
        found = {}
        for record in case.records_of("docker-endpoint"):
            for address in filter(None, (record.facts["address"], record.facts["address6"])):
                who = record.facts["name"] or record.name[:12]
                found[str(address)] = Evidence(record.source, f"{address} is the address of Docker's container {who}")
        return found

    table: dict[str, Evidence] = case.cached("docker.endpoints", make)
    return table


def port_rule(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A rule of dockerd's for a published port, in the built-in chains: dockerd has such a port written down, or its
    own chain has the rule that leads there."""
    rule = str(obj.facts.get("rule", ""))
    if "docker" not in runtime.brings or obj.facts["chain"] not in BUILT_IN or obj.facts.get("comment"):
        return None
    hairpin, loopback = HAIRPIN.match(rule), LOOPBACK.match(rule)
    if hairpin and hairpin["one"] == hairpin["two"] and obj.facts["chain"] == "POSTROUTING":
        wanted = ("to", hairpin["proto"], hairpin["one"], hairpin["port"])
    elif loopback and obj.facts["table"] == "raw":
        wanted = ("at", loopback["proto"], loopback["host"], loopback["port"])
    else:
        return None
    if not trace(runtime, case):
        return None
    said = published(case).get(wanted)
    if said is None and hairpin:
        said = endpoints(case).get(hairpin["one"])
    reason = "a rule for a published port of Docker's"
    if said is not None and said.source == "kernel":
        return shared(runtime, obj, case, "docker", reason, said, deletion(obj))  # its chains are any dockerd's
    if said is not None:
        return Finding(reason, (said,))
    doubt = Evidence("kernel", "as dockerd writes it, for no port that is known")
    return Finding("perhaps a rule of Docker's", (doubt,), False, Role.ADMIN, advice=deletion(obj))


def published(case: Case) -> dict[tuple[str, str, str, str], Evidence]:
    """The ports that are published: ("at", protocol, the host's address, port) and ("to", protocol, the container's
    address, port)."""

    def make() -> dict[tuple[str, str, str, str], Evidence]:
        found = {}
        for record in case.records_of("docker"):
            for each in record.facts.get("ports", ()):
                said = Evidence(record.source, f"container {record.facts['name'] or record.name[:12]} publishes it")
                found["at", each["proto"], each["host"], str(each["port"])] = said
        for rule in case.objects("xtables"):
            match = DNAT.match(rule.facts.get("rule", "")) if rule.facts["chain"] == "DOCKER" else None
            if match:
                said = Evidence("kernel", f"chain DOCKER has: {match[0]}")
                found.setdefault(("at", match["proto"], match["host"] or "0.0.0.0", match["outer"]), said)
                found.setdefault(("to", match["proto"], match["to"], match["port"]), said)
        return found

    table: dict[tuple[str, str, str, str], Evidence] = case.cached("docker.published", make)
    return table


def deletion(obj: Object) -> str:
    """What a person types to take a rule away."""
    tool = "iptables" if obj.facts["family"] == "ip" else "ip6tables"
    return f"{tool}-{obj.facts['backend']} -t {obj.facts['table']} -D {obj.facts['chain']} {obj.facts['rule']}"


def policy(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The policy of FORWARD: where dockerd switches forwarding on, it has all dropped that nobody accepts
    (setup_ip_forwarding.go), and nobody takes that back. Whether it was so before, or others rely on it by now, cannot
    be told."""
    facts = obj.facts
    if "docker" not in runtime.brings or facts.get("policy") != "DROP" or not trace(runtime, case):
        return None
    if (facts["table"], facts["chain"]) != ("filter", "FORWARD") or facts["family"] not in ("ip", "ip6"):
        return None
    tool = "iptables" if facts["family"] == "ip" else "ip6tables"
    said = Evidence("kernel", f"{obj.key.partition(' filter ')[2]}: what no rule accepts is not passed on")
    reason = f"{runtime.title} sets it when it switches forwarding on; what stood before is not known"
    return Finding(reason, (said,), role=Role.SYSTEM, advice=f"{tool}-{facts['backend']} -P FORWARD ACCEPT")


XTABLES = (bridge_rule, port_rule, policy)
