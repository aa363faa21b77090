"""Which firewall rules, tables and sets, and which AppArmor profile, are a product's own."""

from __future__ import annotations

import re

from leftovers.claims import Case, Finding
from leftovers.model import Evidence, Object, Role
from leftovers.products.containers.known import Chain, chains, containers, trace
from leftovers.products.containers.names import Runtime
from leftovers.products.containers.rivals import held, shared

BUILT_IN = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
# The comments of CNI's plugins: name: "NET" id: "ID" (pkg/ip/ipmasq_iptables_linux.go), with "dnat " before it
# (plugins/meta/portmap/portmap_iptables.go).
COMMENT = re.compile(r'(?:dnat )?name: "(?P<network>[^"]+)" id: "(?P<id>[^"]+)"\Z')
MASQUERADE_NOTE = re.compile(
    r"[0-9a-f]{16}-[0-9a-f]{16}, net: (?P<network>.+?), if: (?P<ifname>.+?), id: (?P<id>\S+)\Z"
)
# pkg/kubelet/kubelet_network_linux.go, pkg/proxy/{iptables,ipvs}/proxier.go.
KUBE = re.compile(
    r"KUBE-(MARK-MASQ|MARK-DROP|POSTROUTING|FIREWALL|IPTABLES-HINT|KUBELET-CANARY|PROXY-CANARY|SERVICES"
    r"|EXTERNAL-SERVICES|NODEPORTS|NODE-PORT|LOAD-BALANCER|FIRE-WALL|FORWARD|PROXY-FIREWALL|IPVS-FILTER"
    r"|IPVS-OUT-FILTER|SOURCE-RANGES-FIREWALL|(SVC|SVL|SEP|FW|XLB|EXT)-[A-Z2-7]{16}"
    # kube-router's pkg/controllers/netpol, which k3s has in it.
    r"|ROUTER-(INPUT|OUTPUT|FORWARD|SERVICES)|POD-FW-[A-Z2-7]{16}|NWPLCY-([A-Z2-7]{16}|DEFAULT))\Z"
)
# What their rules in the built-in chains say. Those of kubelet, and of marks, say nothing.
KUBE_NOTES = re.compile(
    r"kubernetes .*|handle hairpin .*|flush .*|block incoming localnet connections|ipvs access filter"
    r"|kube-proxy firewall rules|kube-router netpol - .*|"
)
# felix/rules/rulesdefs/rulesdefs.go: all its rules have such a comment, also its jumps in the built-in chains.
CALI = re.compile(r"(cali-[A-Za-z0-9_.-]+|califw-.+|calitw-.+|califh-.+|calith-.+|calipi-.+|calipo-.+)\Z")
CALI_NOTE = re.compile(r"cali:[A-Za-z0-9_-]{16}\Z")
CILIUM = re.compile(
    r"(OLD_)?CILIUM_(INPUT|OUTPUT|FORWARD|OUTPUT_raw|POST_nat|OUTPUT_nat|PRE_nat|POST_mangle|PRE_mangle|PRE_raw)\Z"
)
CILIUM_NOTE = re.compile(r"cilium-feeder: .+\Z")
FLANNEL = re.compile(r"FLANNEL-(POSTRTG|FWD)\Z")
FLANNEL_NOTE = re.compile(r"flanneld (masq|forward)\Z")
# Of portmap and firewall. CNI-ADMIN holds an administrator's rules, CNI-ISOLATION-* are about any bridges.
PORTMAP = re.compile(r"CNI-HOSTPORT-(DNAT|SNAT|SETMARK|MASQ)\Z|CNI-FORWARD\Z")
# Of firewall, for each address: what goes there as an answer, and what comes from there.
PASSED = re.compile(
    r"(?:-d (?P<to>[0-9a-fA-F.:]+)/(?:32|128) -m conntrack --ctstate RELATED,ESTABLISHED"
    r"|-s (?P<from>[0-9a-fA-F.:]+)/(?:32|128)) -j ACCEPT\Z"
)
# moby daemon/libnetwork/drivers/bridge/{setup_ip_tables_linux,internal/iptabler/*}.go, iptables/firewalld_linux.go.
# DOCKER-USER is the administrator's.
DOCKER = re.compile(r"DOCKER(-(FORWARD|BRIDGE|CT|INTERNAL|INGRESS|ISOLATION-STAGE-[12]))?\Z")
USER_CHAIN = "DOCKER-USER"
# plugins/meta/firewall/{iptables,ingresspolicy}.go: what keeps the networks of different bridges apart, and the chain
# that is made for the administrator.
APART = re.compile(r"CNI-ISOLATION-STAGE-[12]\Z")
APART_NOTE = re.compile(r"CNI firewall plugin rules \(ingressPolicy: [a-z|-]+\)\Z")
OVERRIDES = "CNI-ADMIN"
PORTMAP_NOTES = re.compile(r"CNI portfwd requiring masquerade|CNI portfwd masquerade mark|CNI firewall plugin rules|")
FAMILIES = (
    ("kube", KUBE, KUBE_NOTES, "of kube-proxy's or kubelet's"),
    ("calico", CALI, CALI_NOTE, "of Calico's"),
    ("cilium", CILIUM, CILIUM_NOTE, "of Cilium's"),
    ("flannel", FLANNEL, FLANNEL_NOTE, "of flannel's"),
    ("cni", PORTMAP, PORTMAP_NOTES, "of CNI's published ports"),
    ("docker", DOCKER, re.compile(""), "of Docker's"),
)
# Whole tables of nft: name, families, who, and a name among their chains and sets that nobody else gives.
TABLES = {
    "kube-proxy": (
        ("ip", "ip6"),
        "kube",
        re.compile(r"mark-for-masquerade|service-endpoints-check|cluster-ips(-check)?"),
    ),
    "calico": (("ip", "ip6"), "calico", re.compile(r"(filter-|nat-|mangle-|raw-)?cali.*")),
    "calico-arp": (("arp",), "calico", re.compile(r".*")),
    "flannel-ipv4": (("ip",), "flannel", re.compile(r"postrtg|forward")),
    "flannel-ipv6": (("ip6",), "flannel", re.compile(r"postrtg|forward")),
    "cni_plugins_masquerade": (("inet",), "cni", re.compile(r"masq_checks")),
    "docker-bridges": (("ip", "ip6"), "docker", re.compile(r"filter-forward.*|nat-.*|raw-.*|.+__.+")),
    "cni_hostport": (("ip", "ip6"), "cni", re.compile(r"hostports|masquerading|input|output|prerouting")),
}
CALI_SETS = re.compile(r"cali[46]0.+|cali[46]t.+|felix-[46]-.+")
KUBE_SETS = re.compile(
    r"KUBE-(6-)?(LOOP-BACK|CLUSTER-IP|EXTERNAL-IP(-LOCAL)?|LOAD-BALANCER(-LOCAL|-FW|-SOURCE-IP|-SOURCE-CIDR)?"
    r"|NODE-PORT-(LOCAL-)?(TCP|UDP|SCTP(-HASH)?)|HEALTH-CHECK-NODE-PORT|IPVS-IPS|(SRC|DST)-[A-Z2-7]{16})\Z"
)


# -- iptables -------------------------------------------------------------------------------------------------------


def own_rule(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A rule that the product's own scripts made, in a built-in chain: its comment is a sentence of theirs, and the
    network in it the pods'."""
    comment = obj.facts.get("comment", "")
    if not comment or comment not in runtime.comments or obj.facts["chain"] not in BUILT_IN:
        return None
    return Finding(f"a firewall rule of {runtime.title}", (Evidence("kernel", f"comment {comment!r}"),))


def container_rule(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """What CNI's plugins have for one container: its chains, by their computed names, what is in them, and the rules
    that lead there, whose comment has its id."""
    if obj.facts["family"] not in ("ip", "ip6") or obj.facts["table"] != "nat":
        return None
    table: dict[str, Chain] = chains(runtime, case)
    own = table.get(obj.facts["chain"])
    if own is not None:
        return Finding("a rule or chain of a pod's network", (own.evidence,))
    match = COMMENT.match(obj.facts.get("comment", ""))
    if match is None or match["id"] not in containers(runtime, case) or obj.facts["target"] not in table:
        return None
    said = Evidence("kernel", f"leads to {obj.facts['target']}, and names container {match['id'][:12]}")
    return Finding("a rule of a pod's network", (said, containers(runtime, case)[match["id"]]))


def address_rule(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """What CNI's firewall plugin lets through to and from a container's address, in a chain that all users of CNI have
    (plugins/meta/firewall/iptables.go, getRuleParams). Addresses are given again: nobody else may have it by now."""
    if obj.facts["table"] != "filter" or obj.facts["chain"] != "CNI-FORWARD" or obj.facts.get("comment"):
        return None
    match = PASSED.match(obj.facts.get("rule", ""))
    if match is None:
        return None

    def make() -> dict[str, Evidence]:
        found: dict[str, Evidence] = {}
        others = set()
        ids = containers(runtime, case)
        for record in case.records_of("cni"):
            own = record.facts["id"] in ids
            for each in record.facts["addresses"]:
                address = each.partition("/")[0]
                if not own and record.source != "ledger":
                    others.add(address)
                elif own and "firewall" in record.facts["plugins"]:
                    found[address] = Evidence(record.source, f"{record.name} has {address}")
        return {address: said for address, said in found.items() if address not in others}

    table: dict[str, Evidence] = case.cached("containers.addresses", make)
    said = table.get(match["to"] or match["from"])
    return Finding("a rule of a pod's network", (Evidence("kernel", obj.facts["rule"]), said)) if said else None


def shared_rule(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The chains that all products of a sort have, what is in them, and the jumps to them that their makers wrote."""
    if obj.facts["family"] not in ("ip", "ip6"):
        return None
    chain, target = obj.facts["chain"], obj.facts.get("target", "")
    for what, names, notes, whose in FAMILIES:
        if what not in runtime.brings:
            continue
        if names.match(chain):
            said = Evidence("kernel", f"chain {chain}")
            if what == "cni" and trace(runtime, case) and (strange := strangers(runtime, case, obj)):
                users = (Evidence("kernel", strange), said)
                advice = f"iptables -t {obj.facts['table']} -S {chain}"
                role = held(case, obj)
                return Finding(f"a rule or chain {whose}, in use by somebody else", users, role=role, advice=advice)
        elif names.match(target) and chain in BUILT_IN and notes.fullmatch(obj.facts.get("comment", "")):
            said = Evidence("kernel", f"{obj.facts['comment'] or 'no comment'}, leads to {target}")
        elif what == "calico" and chain in BUILT_IN and CALI_NOTE.match(obj.facts.get("comment", "")):
            said = Evidence("kernel", f"comment {obj.facts['comment']!r}")
        else:
            continue
        tool = "iptables" if obj.facts["family"] == "ip" else "ip6tables"
        # Portmap's chains may have got a rule of somebody else's since: these go when they are empty.
        more = {"only_empty": True} if what == "cni" and obj.facts.get("user") else {}
        words = f"-X {chain}" if obj.facts.get("user") else f"-D {chain} {obj.facts.get('rule', '')}"
        advice = f"{tool} -t {obj.facts['table']} {words}"
        return shared(runtime, obj, case, what, f"a rule or chain {whose}", said, advice, facts=more)
    return None


def strangers(runtime: Runtime, case: Case, obj: Object) -> str:
    """A rule in a chain of portmap's that leads to another's container: the chains are his too. "" if none does."""

    def make() -> dict[tuple[str, str, str], str]:
        found = {}
        for rule in case.objects("xtables"):
            match = COMMENT.match(rule.facts.get("comment", ""))
            if match and match["id"] not in containers(runtime, case) and PORTMAP.match(rule.facts["chain"]):
                place = rule.facts["family"], rule.facts["backend"], rule.facts["table"]
                found[place] = f"a rule of {rule.facts['chain']} is for container {match['id'][:12]}"
        return found

    table: dict[tuple[str, str, str], str] = case.cached("containers.strangers", make)
    return table.get((obj.facts["family"], obj.facts["backend"], obj.facts["table"]), "")


def user_chain(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """DOCKER-USER, which dockerd makes for the administrator, and the jump to it: what is in it is his. Empty, or with
    nothing in it but the RETURN that dockerd wrote there once, it says nothing."""
    facts = obj.facts
    if "docker" not in runtime.brings or not trace(runtime, case) or facts["table"] != "filter":
        return None
    if USER_CHAIN not in (facts["chain"], facts.get("target", "")):
        return None
    place = facts["family"], facts["backend"], facts["table"]
    inner = [
        rule.facts["rule"]
        for rule in case.objects("xtables")
        if rule.facts["chain"] == USER_CHAIN
        and rule.facts.get("rule")
        and (rule.facts["family"], rule.facts["backend"], rule.facts["table"]) == place
    ]
    tool = "iptables" if facts["family"] == "ip" else "ip6tables"
    said = Evidence("kernel", f"{USER_CHAIN} holds {', '.join(inner[:2]) or 'nothing'}")
    advice = f"{tool} -S {USER_CHAIN}"
    if [rule for rule in inner if rule != "-j RETURN"]:
        return Finding("the administrator's rules for Docker", (said,), role=Role.ADMIN, advice=advice)
    return shared(runtime, obj, case, "docker", "an empty chain of Docker's, or a jump to it", said, advice)


def apart(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """What CNI's firewall plugin has to keep bridges apart, and leaves for ever: a rule about a bridge of the product's
    is its own; the chains, and the rules that lead there and back, go when nobody else's is in them."""
    facts, target = obj.facts, obj.facts.get("target", "")
    if "cni" not in runtime.brings or facts["table"] != "filter" or facts["family"] not in ("ip", "ip6"):
        return None
    inner = APART.match(facts["chain"]) is not None
    if not inner and not (facts["chain"] == "FORWARD" and APART.match(target)):
        return None
    if not facts.get("user") and not APART_NOTE.match(facts.get("comment", "")):
        return None
    said = Evidence("kernel", f"in chain {facts['chain']}" if inner else f"leads to {target}")
    own = own_bridges(runtime, case)
    links = set(facts.get("interfaces", ()))
    if links:
        bridges = sorted(links & own.keys())
        return Finding("keeps a bridge apart", (own[bridges[0]], said)) if links == set(bridges) else None
    tool = "iptables" if facts["family"] == "ip" else "ip6tables"
    advice = f"{tool} -S {facts['chain']}"
    place = facts["family"], facts["backend"]
    for rule in case.objects("xtables"):
        strange = sorted(set(rule.facts.get("interfaces", ())) - own.keys())
        same = (rule.facts["family"], rule.facts["backend"]) == place and APART.match(rule.facts["chain"])
        if strange and same and trace(runtime, case):
            user = Evidence("kernel", f"a rule of {rule.facts['chain']} is about {strange[0]}")
            reason = "keeps bridges apart, also somebody else's"
            return Finding(reason, (user, said), role=held(case, obj), advice=advice)
    more = {"only_empty": True} if facts.get("user") else {}
    return shared(runtime, obj, case, "cni", "keeps CNI's bridges apart", said, advice, facts=more)


def own_bridges(runtime: Runtime, case: Case) -> dict[str, Evidence]:
    """The bridges of the product's networks, also those that are gone already."""
    found = {
        link.key: Evidence("kernel", f"{link.key} is a bridge of {runtime.title}")
        for link in case.proven("link")
        if link.facts["type"] == "bridge"
    }
    there = {link.key for link in case.objects("link")}
    for record in case.records_of("conflist") if "nerdctl" in runtime.brings else ():
        for name in record.facts["bridges"] if record.facts.get("nerdctl") else ():
            if name not in there:
                found.setdefault(name, Evidence(record.source, f"{record.name} asks for {name}"))
    return found


def overrides(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The chain that CNI's firewall plugin makes for the administrator: what is in it is his. Empty it says nothing."""
    facts = obj.facts
    if "cni" not in runtime.brings or facts["table"] != "filter" or facts["chain"] != OVERRIDES:
        return None
    place = facts["family"], facts["backend"], facts["table"]
    inner = [
        rule.facts["rule"]
        for rule in case.objects("xtables")
        if rule.facts["chain"] == OVERRIDES
        and rule.facts.get("rule")
        and (rule.facts["family"], rule.facts["backend"], rule.facts["table"]) == place
    ]
    tool = "iptables" if facts["family"] == "ip" else "ip6tables"
    said, advice = (
        Evidence("kernel", f"{OVERRIDES} holds {', '.join(inner[:2]) or 'nothing'}"),
        f"{tool} -S {OVERRIDES}",
    )
    if inner:
        if not trace(runtime, case):
            return None
        return Finding("the administrator's rules for CNI", (said,), role=Role.ADMIN, advice=advice)
    more = {"only_empty": True}
    return shared(runtime, obj, case, "cni", "an empty chain of CNI's", said, advice, facts=more)


XTABLES = (own_rule, container_rule, address_rule, shared_rule, user_chain, apart, overrides)


# -- nft ------------------------------------------------------------------------------------------------------------


def table(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A whole table that one program owns: its name, and something in it that only that program makes."""
    families, what, marks = TABLES.get(obj.facts["name"], ((), "", re.compile("")))
    if obj.facts["family"] not in families or what not in runtime.brings or not trace(runtime, case):
        return None
    inner = [name for name in (*obj.facts["chains"], *obj.facts["sets"]) if marks.fullmatch(name)]
    advice = f"nft delete table {obj.key}"
    if not inner and obj.facts["chains"]:
        doubt = Evidence("kernel", f"has nothing that {what.capitalize()} makes")
        return Finding("a table with a known name", (doubt,), proven=False, role=Role.ADMIN, advice=advice)
    said = Evidence("kernel", f"has {inner[0]}" if inner else "is empty")
    return shared(runtime, obj, case, what, f"the table {obj.key}", said, advice)


def nft_rule(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A rule for one container in a table that all users of CNI share (pkg/ip/ipmasq_nftables_linux.go; portmap: its
    comment is the container's id)."""
    place = (obj.facts.get("family"), obj.facts.get("table"))
    comment = str(obj.facts.get("comment") or "")
    if place == ("inet", "cni_plugins_masquerade"):
        match = MASQUERADE_NOTE.match(comment)
        id = match["id"] if match else ""
    elif place in (("ip", "cni_hostport"), ("ip6", "cni_hostport")):
        id = comment
    else:
        return None
    said = containers(runtime, case).get(id)
    return Finding("a rule of a pod's network", (Evidence("kernel", f"comment {comment!r}"), said)) if said else None


# -- sets, programs, profiles ---------------------------------------------------------------------------------------


def ipset(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """Sets of Calico's (felix/ipsets/ipset_defs.go) and of kube-proxy's (pkg/proxy/ipvs/ipset.go)."""
    name = str(obj.facts.get("name", obj.key))
    what = "calico" if CALI_SETS.fullmatch(name) else "kube" if KUBE_SETS.fullmatch(name) else ""
    if not what:
        return None
    said = Evidence("kernel", f"set {name}")
    return shared(runtime, obj, case, what, f"a set of {what.capitalize()}'s", said, f"ipset destroy {name}")


# Where each pins its own (felix/bpf/bpfdefs/defs.go; cilium pkg/bpf, pkg/defaults), and how it names its programs.
PINS = (
    ("cilium", re.compile(r"/sys/fs/bpf/(cilium(/.*)?|tc/globals/cilium_[^/]+)\Z"), ("cil_",)),
    (
        "calico",
        re.compile(r"/sys/fs/bpf/(calico(/.*)?|tc/globals/(cali|calico|xdp_cali)_[^/]+)\Z"),
        ("cali_", "xdp_cali"),
    ),
)
PROG_ARRAY = 3  # BPF_MAP_TYPE_PROG_ARRAY


def pinned_by(path: str) -> str:
    return next((what for what, form, _ in PINS if form.match(path)), "")


def bpf(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """What Calico and Cilium pin in the file system of BPF. The maps through which their programs call each other stay
    as long as one that we cannot take off a card of the host's may need them: who unpins those loses the host's traffic
    (kinds/bpf.py)."""
    facts = obj.facts
    if facts.get("what") == "attachment":
        return attachment(runtime, obj, case)
    path = str(facts.get("path") or "")
    what = pinned_by(path)
    if not what:
        return None
    said = Evidence("kernel", f"pinned at {path}")
    reason, advice = f"a BPF object of {what.capitalize()}'s", f"rm {path}"
    finding = shared(runtime, obj, case, what, reason, said, advice)
    if finding is None or finding.role is not Role.LIVE or facts.get("map_type") != PROG_ARRAY:
        return finding
    for other in case.objects("bpf"):
        if facts["id"] in other.facts.get("maps", ()) and not ends(other, case):
            doubt = Evidence(
                "kernel", f"{other.facts['name']}, attached to {other.facts['attach']}, may call through it"
            )
            return Finding(reason, (doubt, said), proven=False, advice=f"{advice}, once that is not attached any more")
    return finding


def ends(obj: Object, case: Case) -> bool:
    """Whether an attached program goes: by itself, with its network link, or with its pinned link of BPF."""
    return (
        linked(obj, case)
        or case.is_proven("bpf", obj.key)
        or (bool(obj.facts["dev"]) and case.is_proven("link", obj.facts["dev"]))
    )


def linked(obj: Object, case: Case) -> bool:
    """Whether a program hangs on a link of BPF that is pinned as the product's."""
    return any(
        pin.facts["what"] == "link" and pin.facts["program"] == obj.facts["id"] and pinned_by(pin.facts["path"])
        for pin in case.proven("bpf")
    )


def attachment(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A program that Calico or Cilium attached to a card of the host's or to its root cgroup, where it works on when
    they are gone (socket LB: cilium pkg/socketlb). Anybody may give such a name, and it is cut at 15 characters: proven
    it is by a map that it uses, which is the very one that is pinned as Calico's or Cilium's."""
    facts = obj.facts
    name, place = str(facts["name"]), str(facts["attach"])
    if linked(obj, case) or (facts["dev"] and case.is_proven("link", str(facts["dev"]))):
        return None  # it goes with that
    pins = {
        pin.facts["id"]: pin
        for pin in case.objects("bpf")
        if pin.facts["what"] == "map" and pinned_by(pin.facts["path"])
    }
    pin = next((pins[id] for id in facts["maps"] if id in pins), None)
    named = next((what for what, _, names in PINS if name.startswith(names)), "")
    what = pinned_by(pin.facts["path"]) if pin else named
    if what not in runtime.brings or not trace(runtime, case):
        return None
    reason, said = f"a program of {what.capitalize()}'s", Evidence("kernel", f"{name} is attached to {place}")
    advice = detaching(obj)
    if pin is None:
        return Finding(f"perhaps {reason}", (said,), proven=False, role=Role.ADMIN, advice=advice)
    used = Evidence("kernel", f"{name} is attached to {place}, and uses the map that is pinned at {pin.facts['path']}")
    finding = shared(runtime, obj, case, what, reason, used, advice)
    if finding is None or finding.role is not Role.LIVE or facts["cgroup"] or facts["filter"]:
        return finding
    # Of XDP or tcx, and not by a link that is pinned: others may have theirs in the same place by now.
    return Finding(f"{reason} on {facts['dev']}", (used,), proven=False, advice=advice)


def detaching(obj: Object) -> str:
    """The command by which an attached program is taken off."""
    facts = obj.facts
    if facts["cgroup"]:
        return f"bpftool cgroup detach {facts['cgroup']} {str(facts['attach']).rpartition(' ')[2]} id {facts['id']}"
    if facts["filter"]:
        _, handle, _, info = facts["filter"]
        where = "ingress" if "/ingress" in facts["attach"] else "egress"
        return f"tc filter delete dev {facts['dev']} {where} pref {info >> 16} handle {handle:#x} bpf"
    if str(facts["attach"]).startswith("xdp"):
        return f"ip link set dev {facts['dev']} {str(facts['attach']).split()[0]} off"
    return f"bpftool net show dev {facts['dev']}; bpftool link show; bpftool link detach id LINK"


def profile(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The profile of all containerds' containers: its name is the same for all of them, and who unloads it under
    somebody else's containers leaves these unconfined."""
    name, what = runtime.profile
    if obj.facts["type"] != "profile" or obj.facts["name"] != name or not trace(runtime, case):
        return None
    advice = f"apparmor_parser -R /etc/apparmor.d/{name}"
    for pid in obj.facts["processes"]:
        if not case.is_proven("process", str(pid)):
            said = Evidence("kernel", f"confines pid {pid}, which is not the product's")
            return Finding("the profile of containers, somebody else's too", (said,), role=Role.ADMIN, advice=advice)
    said = Evidence("kernel", "the name that all give it")
    return shared(runtime, obj, case, what, "the profile of its containers", said, advice)


LATER = {"ipset": (ipset,), "nftrule": (nft_rule,), "bpf": (bpf,)}
