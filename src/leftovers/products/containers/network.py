"""Which links are a product's own: the pods' ends, and what CNI's plugins have once for the whole host."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

from leftovers.claims import Case, Finding
from leftovers.evidence import cni
from leftovers.model import Evidence, Object, Role
from leftovers.products.containers.firewall import CILIUM
from leftovers.products.containers.known import container_links, of, pod_links, trace
from leftovers.products.containers.names import Runtime
from leftovers.products.containers.rivals import rival, shared

DEVICE = "a {}'s network device"
# What each plugin has once for the host: name, type, whose.
SINGLE = {
    "vxlan.calico": ("vxlan", "calico"),
    "vxlan-v6.calico": ("vxlan", "calico"),
    "wireguard.cali": ("wireguard", "calico"),
    "wg-v6.cali": ("wireguard", "calico"),
    "bpfin.cali": ("veth", "calico"),
    "bpfout.cali": ("veth", "calico"),
    "cilium_host": ("veth", "cilium"),
    "cilium_net": ("veth", "cilium"),
    "cilium_vxlan": ("vxlan", "cilium"),
    "cilium_geneve": ("geneve", "cilium"),
    "cilium_wg0": ("wireguard", "cilium"),
    "lxc_health": ("veth", "cilium"),
    "kube-ipvs0": ("dummy", "kube"),
}
FLANNEL = re.compile(r"flannel(-v6)?\.[0-9]{1,8}\Z|flannel-wg(-v6)?\Z|flannel\.ipip\Z")
FLANNEL_TYPES = ("vxlan", "wireguard", "ipip")
CALI = re.compile(r"cali[0-9a-f]{11}\Z")
LXC = re.compile(r"lxc[0-9a-f]{12}\Z")
BWP = re.compile(r"bwp[0-9a-f]{12}\Z")


def lent(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A card of the host's that a pod was given (CNI's host-device): it goes home under the name that the plugin was
    told. Without it the kernel would give back a card under its name in there, and destroy what is none."""
    facts = obj.facts
    if facts["host"] or facts["type"] == "loopback" or not case.is_proven("netns", str(facts["netns"])):
        return None
    home = home_name(runtime, case, facts["netns"], obj.facts["name"])
    if facts["type"] and not home:
        return None  # the pod's own: it ends with its namespace
    said = Evidence("kernel", f"in the network namespace {facts['netns']} of a pod")
    return Finding("lent to a pod", (said,), role=Role.LENT, facts={"home_name": home} if home else {})


def home_name(runtime: Runtime, case: Case, netns: int, name: str) -> str:
    """What CNI's host-device was told to take for a pod's link of that name."""

    def make() -> dict[tuple[str, str], str]:
        return {
            (record.facts["netns"].rpartition("/")[2], record.facts["ifname"]): str(record.facts["devices"][0])
            for record, _ in of(runtime, case, "cni")
            if record.facts["devices"]
        }

    lent_to: dict[tuple[str, str], str] = case.cached("containers.devices", make)
    pins: dict[str, list[str]] = case.cached(
        "netns.pins", lambda: {each.key: each.facts["pins"] for each in case.objects("netns")}
    )
    ends = (pin.rpartition("/")[2] for pin in (pins.get(str(netns), ()) if lent_to else ()))
    return next((lent_to[end, name] for end in ends if (end, name) in lent_to), "")


def pod_link(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The host's end of a pod's veth: its other end is in a pod's network namespace. Where that is not to be seen, the
    name must be one that was computed for a pod of ours, and nobody else here may compute the same."""
    facts = obj.facts
    if not facts["host"] or facts["type"] != "veth":
        return None
    if facts["peer_netns"] and case.is_proven("netns", str(facts["peer_netns"])):
        said = Evidence(
            "kernel", f"its other end, {facts['peer'] or '?'}, is in the network namespace of a {runtime.unit}"
        )
        return Finding(DEVICE.format(runtime.unit), (said,))
    if facts["peer_netns"] and facts["peer_netns"] != facts["netns"]:
        return None  # somebody else's namespace: two clusters may have a pod of one name
    named = pod_links(runtime, case).get(obj.key) or container_links(runtime, case).get(obj.key)
    if named is not None:
        return shared(runtime, obj, case, "cni", DEVICE.format(runtime.unit), named, f"ip link delete {obj.key}")
    if LXC.match(obj.key) and obj.key in case.cached("containers.cilium", cni.cilium_links):
        computed = Evidence("kernel", "Cilium's name for one of its endpoints")
        return shared(runtime, obj, case, "cilium", DEVICE.format(runtime.unit), computed, f"ip link delete {obj.key}")
    if CALI.match(obj.key) and "calico" in runtime.brings and trace(runtime, case):
        doubt = Evidence("kernel", "named as Calico names them, for no pod that is known")
        return Finding(
            "perhaps a pod's network device", (doubt,), False, Role.ADMIN, advice=f"ip link delete {obj.key}"
        )
    return None


def shaper(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The link by which a container's traffic is shaped: its name is computed from a random id."""
    if obj.facts["type"] != "ifb" or not obj.facts["host"] or not BWP.match(obj.key):
        return None
    said = container_links(runtime, case).get(obj.key)
    return Finding("a pod's traffic shaper", (said,)) if said is not None else None


def single(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """What Calico, Cilium or kube-proxy have once for the whole host. tunl0 and its like are the kernel's."""
    type, what = SINGLE.get(obj.key, ("", ""))
    if not what or not obj.facts["host"] or obj.facts["type"] != type:
        return None
    said = Evidence("kernel", f"a {type} link with the name that only {what.capitalize()} gives")
    if obj.facts["master"]:
        return None  # a port of somebody's bridge
    return shared(runtime, obj, case, what, f"a link of {what.capitalize()}", said, f"ip link delete {obj.key}")


def flannel(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """Flannel's tunnel: its address begins the subnet that flannel wrote down, or it is in the pods' network
    (flannel pkg/backend/vxlan: EnsureIPv4)."""
    facts = obj.facts
    if (
        "flannel" not in runtime.brings
        or not facts["host"]
        or facts["type"] not in FLANNEL_TYPES
        or not FLANNEL.match(obj.key)
        or facts["master"]
    ):
        return None
    advice = f"ip link delete {obj.key}"
    inner = in_networks(facts["addresses"], pod_networks(runtime, case))
    if not trace(runtime, case):
        return None
    if not inner:
        said = Evidence("kernel", f"named as flannel names it, with the address {', '.join(facts['addresses']) or '-'}")
        return Finding("perhaps flannel's tunnel", (said,), proven=False, role=Role.ADMIN, advice=advice)
    return shared(
        runtime, obj, case, "flannel", "flannel's tunnel", Evidence("kernel", f"has its address {inner}"), advice
    )


def bridge(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A bridge that CNI's plugin made for containers of ours. The plugin takes one that is there, so it may be the
    administrator's: it must have an address that the plugin gave it, no other, and no port but our pods'. Nobody ever
    deletes it, and it is the same for all who use the same configuration."""
    facts = obj.facts
    if not facts["host"] or facts["type"] != "bridge":
        return None
    made = [record for record, _ in of(runtime, case, "cni") if obj.key in record.facts["bridges"]]
    if not made:
        return None
    said = Evidence(made[0].source, f"{made[0].name} asks for bridge {obj.key}")
    advice = f"ip link delete {obj.key}"
    reason = f"the bridge {obj.key} of a CNI network"
    gateways = {gateway for record in made for gateway in record.facts["gateways"]}
    own = gateways & set(facts["addresses"])
    strange = [each for each in facts["addresses"] if each not in gateways and not each.lower().startswith("fe80:")]
    foreign = [
        link.key
        for link in case.objects("link")
        if link.facts["host"] and link.facts["master"] == obj.key and not case.is_proven("link", link.key)
    ]
    if not own or strange:
        what = f"has the address {strange[0]}" if strange else "has no address that the plugin gave it"
        return Finding(reason, (said, Evidence("kernel", what)), proven=False, role=Role.ADMIN, advice=advice)
    if foreign:
        held = (Evidence("kernel", f"has the port {foreign[0]}, which is not the product's"), said)
        return Finding(f"{reason}, which somebody else uses too", held, role=Role.HELD, advice=advice)
    users = [
        record.name
        for record in case.records_of("cni")
        if record.source != "ledger" and obj.key in record.facts["bridges"] and record not in made
    ]
    if users:
        held = (Evidence("disk", f"{users[0]} asks for it too"), said)
        return Finding(f"{reason}, which somebody else uses too", held, role=Role.HELD, advice=advice)
    return Finding(reason, (said, Evidence("kernel", f"has the plugin's address {sorted(own)[0]}, and no other port")))


LINKS = (lent, pod_link, shaper, single, flannel, bridge)


# -- networks -------------------------------------------------------------------------------------------------------


def pod_networks(runtime: Runtime, case: Case) -> list[str]:
    """The networks of the product's pods: as its own firewall rules name them, else as it has them by default."""

    def make() -> list[str]:
        found = []
        for rule in case.objects("xtables"):
            if rule.facts.get("comment") and rule.facts["comment"] in runtime.comments:
                words = rule.facts["rule"].split()
                found += [words[number + 1] for number, word in enumerate(words[:-1]) if word in ("-s", "-d")]
        return [network for network in dict.fromkeys(found) if parsed(network)] or [runtime.pods]

    networks: list[str] = case.cached("containers.networks", make)
    return networks


def parsed(network: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        found = ipaddress.ip_network(network, strict=False)
    except ValueError:
        return None
    return found if found.prefixlen >= 8 else None  # more is no pods' network


def in_networks(addresses: Iterable[str], networks: Iterable[str]) -> str:
    """The first of these addresses or networks that lies in one of those; "" if none does."""
    outer = [network for network in map(parsed, networks) if network is not None]
    for address in addresses:
        inner = parsed(address)
        if inner is not None and any(
            inner.version == each.version and inner.subnet_of(each)  # type: ignore[arg-type]
            for each in outer
        ):
            return address
    return ""


# -- kinds that may not be there yet: routes, rules, addresses ------------------------------------------------------

# dataplane_defs.go: felix' own number; bird's has a name and a number of its own (rtnetlink(7), RTPROT_BIRD).
FELIX = ("80", "felix")
CALICO_ROUTES = (*FELIX, "12", "bird")


def route(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """Routes of the pods' network: those by a link of ours go with it; a blackhole has no link (felix route_mgr.go).
    And Cilium's way to its proxy, in a table of its own (cilium pkg/datapath/linux/linux_defaults, bpf/init.sh)."""
    facts = obj.facts
    if facts.get("dev") and case.is_proven("link", str(facts["dev"])):
        return Finding("a route to a pod", (Evidence("kernel", f"leads to {facts['dev']}"),))
    if (str(facts.get("table")), facts.get("type"), facts.get("dst"), facts.get("dev")) in TO_PROXY:
        said = Evidence("kernel", "local default dev lo table 2004, as Cilium has it")
        option = "-6 " if facts.get("family") == "ip6" else ""
        advice = f"ip {option}route delete local default dev lo table 2004"
        return shared(runtime, obj, case, "cilium", "a route of Cilium's", said, advice)
    # By a card of the host's or tunl0 a route of felix leads to another node's pods; bird's there may be anybody's.
    who, type = str(facts.get("protocol")), str(facts.get("type"))
    if who not in CALICO_ROUTES or not (type == "blackhole" or (type == "unicast" and who in FELIX)):
        return None
    inner = in_networks([str(facts.get("dst", ""))], pod_networks(runtime, case))
    if not inner:
        return None
    said = Evidence("kernel", f"{inner} is of the pods' network, protocol {facts['protocol']}")
    words = "blackhole " if type == "blackhole" else ""
    return shared(runtime, obj, case, "calico", "a route of Calico's", said, f"ip route delete {words}{inner}")


# What is in table 2004: (table, type, destination, link).
TO_PROXY = {("2004", "local", dst, "lo") for dst in ("default", "0.0.0.0/0", "::/0")}
# Cilium's rules of policy routing: priority, mark, mask and table (linux_defaults.go, pkg/proxy/routes.go,
# bpf/init.sh).
CILIUM_RULES = {
    *((9, 0x200, 0xF00, 2004), (10, 0xA00, 0xF00, 2005), (10, 0xB00, 0xF00, 2005)),
    *((1, 0xD00, 0xF00, 200), (1, 0xE00, 0xF00, 200), (1, 0xE00, 0xF00, 201)),
}
LOCAL = 255
# Where it moves the lookup of the table "local" to, from 0.
MOVED = 100


def policy(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """Cilium's rules of policy routing, each in all its words. In the tables 2004 and 2005 nobody else looks up by such
    a mark; a rule that is only like one is shown."""
    facts = obj.facts
    if facts.get("plain") and (facts.get("priority"), facts.get("table")) == (MOVED, LOCAL):
        return moved(runtime, obj, case)
    said = Evidence("kernel", f"priority {facts.get('priority')}, table {facts.get('table')}, as Cilium has it")
    option = "-6 " if facts.get("family") == "ip6" else ""
    advice = f"ip {option}rule delete priority {facts.get('priority')} lookup {facts.get('table')}"
    whole = all(facts.get(name, "") in ("", "all") for name in ("from", "to", "iif", "oif")) and not facts.get("not")
    words = tuple(facts.get(name) for name in ("priority", "fwmark", "fwmask", "table"))
    if whole and facts.get("action") == "lookup" and words in CILIUM_RULES:
        if facts["table"] in (2004, 2005) or trace_of_cilium(runtime, case):
            return shared(runtime, obj, case, "cilium", "a rule of Cilium's", said, advice)
        return None  # marks and tables of small numbers are many people's
    if encrypted(obj, case):
        said = Evidence("kernel", f"all that is not marked {facts['fwmark']:#x} goes by the table {facts['table']}")
        reason = "a rule of Calico's for its WireGuard"
        return shared(runtime, obj, case, "calico", reason, said, advice)
    if facts.get("table") in (2004, 2005) and trace_of_cilium(runtime, case) and not rival(runtime, case, "cilium"):
        return Finding("perhaps a rule of Cilium's", (said,), proven=False, advice=advice)
    return None


def encrypted(obj: Object, case: Case) -> bool:
    """Whether a rule is felix' for its link of WireGuard (wireguard/wireguard.go; wireguardRoutingRulePriority is 99,
    its table and the one bit of its mark are of ranges)."""
    facts = obj.facts
    link = "wg-v6.cali" if facts.get("family") == "ip6" else "wireguard.cali"
    whole = all(facts.get(name, "") in ("", "all") for name in ("from", "to", "iif", "oif"))
    return (
        whole
        and bool(facts.get("not"))
        and facts.get("priority") == 99
        and facts.get("action") == "lookup"
        and 1 <= facts["table"] <= 250
        and facts["fwmark"] == facts["fwmask"]
        and bin(facts["fwmark"]).count("1") == 1
        and case.is_proven("link", link)
    )


def moved(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The host's own lookup of the table "local", which Cilium takes from 0 to 100 to have its rules looked up before
    (bpf/init.sh, move_local_rules_af). The kind puts the one at 0 back before it takes this one away (kinds/rules.py);
    where that is there already, this one is not Cilium's doing alone, and harms nobody."""
    family = obj.facts.get("family")
    said = Evidence("kernel", f"from all lookup local is at {MOVED}, as Cilium has it, and not at 0")
    still = any(
        rule.facts.get("family") == family
        and rule.facts.get("plain")
        and (rule.facts.get("priority"), rule.facts.get("table")) == (0, LOCAL)
        for rule in case.objects("rule")
    )
    seen = trace_of_cilium(runtime, case)
    if still or not trace(runtime, case):
        return None
    option = "-6 " if family == "ip6" else ""
    advice = (
        f"ip {option}rule add from all lookup local priority 0 && ip {option}rule delete from all lookup local "
        f"priority {MOVED}"
    )
    reason = "the rule of the table local, moved by Cilium"
    if not seen:  # an administrator with VRFs moves it as well
        return Finding(f"perhaps {reason}", (said,), proven=False, role=Role.ADMIN, advice=advice)
    finding = shared(runtime, obj, case, "cilium", reason, said, advice)
    if finding is None or not finding.proven or finding.role is not Role.LIVE:
        return finding
    return Finding(finding.reason, (*finding.evidence, Evidence("kernel", seen)))


def trace_of_cilium(runtime: Runtime, case: Case) -> str:
    """What is proven the product's and can only be Cilium's: its plugin need not be the one that the product had."""
    for name, (_, what) in SINGLE.items():
        if what == "cilium" and case.is_proven("link", name):
            return f"the link {name} of Cilium's is {runtime.possessive}"
    for obj in case.proven("xtables"):
        if CILIUM.match(str(obj.facts.get("chain", ""))):
            return f"the chain {obj.facts['chain']} of Cilium's is {runtime.possessive}"
    for obj in case.proven("bpf"):
        if "/cilium" in str(obj.facts.get("path", "")):
            return f"{obj.facts['path']} of Cilium's is {runtime.possessive}"
    for obj in case.proven("rule"):
        if obj.facts.get("table") in (2004, 2005):
            return f"a rule with the table {obj.facts['table']} of Cilium's is {runtime.possessive}"
    return ""


def address(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """An address that the product gave the host, under a label of its own; and that which Calico gives the kernel's own
    end of all IPIP tunnels, a link that nobody can delete (felix dataplane/linux/ipip_mgr.go)."""
    facts = obj.facts
    if facts.get("dev") == "tunl0" and facts.get("prefixlen") == 32:
        inner = in_networks([str(facts["address"])], pod_networks(runtime, case))
        said = Evidence("kernel", f"{inner} is of the pods' network")
        advice = f"ip address delete {facts['address']}/32 dev tunl0"
        return shared(runtime, obj, case, "calico", "an address of Calico's", said, advice) if inner else None
    if not runtime.label or facts.get("label") != runtime.label:
        return None
    return Finding(f"an address that {runtime.title} gave the host", (Evidence("kernel", f"labelled {runtime.label}"),))


# --service-node-port-range, by default.
NODE_PORTS = range(30000, 32768)


def ipvs(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A virtual server of kube-proxy's. The table is the whole host's, so its address must stand on kube-ipvs0, which
    is proven, and on no other link, and its packets go on as kube-proxy alone sends them (pkg/proxy/ipvs/proxier.go,
    syncService; pkg/proxy/ipvs/util: the forwarding method is always Masq)."""
    facts = obj.facts
    dummy = next((link for link in case.proven("link") if link.key == "kube-ipvs0"), None)
    if dummy is None or not facts.get("address"):
        return None
    service = str(facts.get("service", ""))
    reason, advice = "a virtual server of kube-proxy's", f"ipvsadm -D {service}"
    if str(facts["address"]) not in dummy.facts["addresses"]:
        return node_port(runtime, obj, case)
    on = Evidence("kernel", f"{facts['address']} is an address of kube-ipvs0")
    doubt = ""
    if any(method != "Masq" for method in facts.get("forwards", ())):
        doubt = f"sends packets on by {', '.join(facts['forwards'])}, as kube-proxy does not"
    for link in case.objects("link"):
        if link.facts["host"] and link.key != dummy.key and facts["address"] in link.facts["addresses"]:
            doubt = f"{facts['address']} is an address of {link.key}, too"
    if doubt:
        return Finding(f"perhaps {reason}", (Evidence("kernel", doubt), on), proven=False, advice=advice)
    return shared(runtime, obj, case, "kube", reason, on, advice)


def node_port(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A node port's virtual server is on an address of the host's own, as a keepalived's. But it has the real servers
    of its service's other one, on kube-ipvs0: all of them pods, whose addresses nobody else would write down. Without
    any real server, or with another port than such have, it is only shown."""
    facts = obj.facts
    servers = set(facts.get("servers", ()))
    if not servers or not all(in_networks([place_of(each)], pod_networks(runtime, case)) for each in servers):
        return None
    reason, advice = "a node port of kube-proxy's", f"ipvsadm -D {facts.get('service', '')}"
    protocol = facts.get("protocol")
    known = {
        server
        for other in case.proven("ipvs")
        if other.facts["protocol"] == protocol
        for server in other.facts["servers"]
    }
    said = Evidence("kernel", f"leads to {sorted(servers)[0]}, in the pods' network")
    ours = servers <= known and facts.get("port") in NODE_PORTS and facts.get("forwards") == ["Masq"]
    if not ours:
        return Finding(f"perhaps {reason}", (said,), proven=False, role=Role.ADMIN, advice=advice)
    return shared(runtime, obj, case, "kube", reason, said, advice)


def place_of(server: str) -> str:
    """The address in "ADDRESS:PORT"."""
    return server.rpartition(":")[0].strip("[]")


LATER = {"route": (route,), "rule": (policy,), "address": (address,), "ipvs": (ipvs,)}
