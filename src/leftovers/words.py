"""What an object is, in words: one sentence of its kind's facts. It knows kinds, and no product."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from leftovers.model import Object

__all__ = ["count", "what"]

# rtnetlink's words for what people call otherwise.
LINKS = {
    "": "a network card",
    "veth": "one end of a veth pair",
    "netkit": "one end of a netkit pair",
    "bridge": "a bridge",
    "vlan": "a VLAN",
    "macvlan": "a macvlan",
    "ipvlan": "an ipvlan",
    "macvtap": "a macvtap",
    "tun": "a tun or tap",
    "vxlan": "a VXLAN tunnel",
    "geneve": "a Geneve tunnel",
    "ipip": "an IPIP tunnel",
    "wireguard": "a WireGuard tunnel",
    "dummy": "a dummy link",
    "ifb": "an ifb (it takes traffic to be shaped)",
    "loopback": "the loopback",
    "openvswitch": "a port of Open vSwitch' own",
}
UNSEEN = "is in a network namespace that no process and no pin on this host shows"


def count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def listed(names: list[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def what(obj: Object) -> str:
    """What an object is: "one end of a veth pair, up, a port of bridge docker0"."""
    say = WORDS.get(obj.kind)
    return say(obj.facts) if say else f"one of the {obj.kind}s"


def link(facts: Mapping[str, object]) -> str:
    type = str(facts["type"])
    said = [LINKS.get(type, f"a link of type {type}"), "up" if facts["up"] else "down"]
    if facts.get("vlan"):
        said[0] += f" (id {facts['vlan']})"
    said.append("in the host's network namespace" if facts["host"] else f"in network namespace {facts['netns']}")
    if facts.get("addresses"):
        said.append(listed([str(address) for address in strings(facts["addresses"])]))
    if facts.get("master"):
        said.append(f"a port of {facts['master']}")
    if type not in ("veth", "netkit") and facts.get("peer"):
        said.append(f"on {facts['peer']}")
    elif type in ("veth", "netkit") and facts.get("peer"):
        said.append(f"its other end is {facts['peer']}")
    elif type in ("veth", "netkit") and facts.get("peer_index"):
        seen = "is in another network namespace" if facts.get("peer_netns") or not facts["host"] else UNSEEN
        said.append(f"its other end {seen}")
    return ", ".join(said)


def strings(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, (list, tuple)) else []


def netns(facts: Mapping[str, object]) -> str:
    said = ["the host's own network namespace" if facts["host"] else "a network namespace"]
    said.append(count(len(strings(facts["processes"])), "process", "processes"))
    pins = strings(facts["pins"])
    said.append(f"pinned at {listed(pins)}" if pins else "not pinned")
    return ", ".join(said)


def process(facts: Mapping[str, object]) -> str:
    argv = " ".join(strings(facts["argv"]))[:160]
    said = [f"a process that runs {facts['exe']}"]
    if argv and argv != facts["exe"]:
        said.append(f"as {argv}")
    said.append(f"uid {facts['uid']}")
    if facts["nested"]:
        said.append("in a pid namespace of its own: a container's, or a sandbox'")
    return ", ".join(said)


def mount(facts: Mapping[str, object]) -> str:
    type, root = str(facts["fstype"]), str(facts["root"])
    if type == "nsfs":
        said = [f"a mount that pins a namespace ({root})"]
    elif root not in ("/", ""):
        said = [f"a bind mount of {root.removesuffix('//deleted')} of a {type} file system ({facts['source']})"]
        if root.endswith("//deleted"):
            said.append("which was deleted")
    else:
        said = [f"a mounted {type} file system ({facts['source']})"]
    said.append(f"at {facts['point']}")
    if not facts["host"]:
        said.append(f"in mount namespace {facts['ns']}")
    if facts.get("configured"):
        said.append(f"{facts['configured']} asks for it")
    return ", ".join(said)


def cgroup(facts: Mapping[str, object]) -> str:
    said = [f"a cgroup of hierarchy {facts['hierarchy']}" if facts["hierarchy"] else "a cgroup"]
    if facts["populated"] is not None:
        said.append("with processes in it" if facts["populated"] else "without processes")
    return ", ".join(said)


def loop(facts: Mapping[str, object]) -> str:
    said = [f"a loop device on {facts['backing_file']}"]
    if facts["deleted"]:
        said.append("which was deleted")
    elif not facts["here"]:
        said.append("which is not known to be the file of that name here")
    return ", ".join(said)


def xtables(facts: Mapping[str, object]) -> str:
    where = f"{facts['table']} table of {'ip6tables' if facts['family'] == 'ip6' else 'iptables'} ({facts['backend']})"
    if facts["family"] == "bridge":
        where = f"{facts['table']} table of ebtables ({facts['backend']})"
    if facts.get("user"):
        rules, jumps = int(str(facts["rules"])), int(str(facts["references"]))
        return f"a chain in the {where}, {count(rules, 'rule')}, {count(jumps, 'jump')} to it"
    said = f"a rule of chain {facts['chain']} in the {where}"
    return said + (f", with the comment {facts['comment']!r}" if facts.get("comment") else "")


def nft(facts: Mapping[str, object]) -> str:
    chains, sets = strings(facts["chains"]), strings(facts["sets"])
    said = f"an nft table, {count(len(chains), 'chain')}"
    said += f" ({listed(chains)})" if chains else ""
    return said + (f", {count(len(sets), 'set')} ({listed(sets)})" if sets else "")


def nftrule(facts: Mapping[str, object]) -> str:
    said = f"a rule of chain {facts['chain']} in nft table {facts['family']} {facts['table']}"
    return said + (f": {facts['text']}" if facts["text"] else "")


def ipset(facts: Mapping[str, object]) -> str:
    members, uses = int(str(facts["size"])), int(str(facts["references"]))
    return f"an IP set ({facts['type']}), {count(members, 'member')}, {count(uses, 'reference')} to it"


def route(facts: Mapping[str, object]) -> str:
    said = f"{'a route' if facts['type'] == 'unicast' else 'a ' + str(facts['type']) + ' route'} to {facts['dst']}"
    if facts["gateway"]:
        said += f" by {facts['gateway']}"
    if facts["dev"]:
        said += f" through {facts['dev']}"
    return f"{said}, in table {facts['table']}, made by protocol {facts['protocol']}"


def address(facts: Mapping[str, object]) -> str:
    label = f", labelled {facts['label']}" if facts["label"] not in ("", facts["dev"]) else ""
    return f"an address on {facts['dev']}{label}"


def rule(facts: Mapping[str, object]) -> str:
    where = f" table {facts['table']}" if facts["action"] == "lookup" else ""
    return f"a routing rule at priority {facts['priority']}: {facts['action']}{where}, from {facts['from']}"


def unit(facts: Mapping[str, object]) -> str:
    file = str(facts["file"])
    state = f"a systemd unit, {facts['active']} ({facts['sub']})"
    if facts["stands"]:
        return f"{state}, {file}"
    return f"{state}, without a file" + (f" ({file} is gone)" if file else "")


def file(facts: Mapping[str, object]) -> str:
    type = str(facts["type"])
    said = f"an {type}" if type == "other" else f"a {type}"
    if type == "remote":
        return "a path on a network or FUSE file system, which was not looked at"
    if type == "symlink":
        said += f" to {facts['target']}"
    if facts["mounted"]:
        said += ", a mount point"
    if type == "directory" and facts.get("hollow"):
        said += ", with no file in it"
    return said


def bpf(facts: Mapping[str, object]) -> str:
    if facts["what"] == "attachment":
        return f"an attached BPF program ({facts['attach']})"
    return f"a pinned BPF object ({facts['what']})"


def ipvs(facts: Mapping[str, object]) -> str:
    servers = strings(facts["servers"])
    return f"a virtual server of IPVS, to {listed(servers)}" if servers else "a virtual server of IPVS, to nobody"


def apparmor(facts: Mapping[str, object]) -> str:
    users = count(len(strings(facts["processes"])), "process", "processes")
    return f"an AppArmor {facts['type']}, {users}"


def pool(facts: Mapping[str, object]) -> str:
    type = "a zpool" if facts["type"] == "zfs" else "a volume group of LVM"
    return f"{type} on {listed(strings(facts['devices']))}"


def ovs(facts: Mapping[str, object]) -> str:
    if facts["what"] == "bridge":
        return f"a bridge of Open vSwitch, {count(len(strings(facts['ports'])), 'port')}"
    return f"a port of {facts['bridge']}, in Open vSwitch"


WORDS: Mapping[str, Callable[[Mapping[str, object]], str]] = {
    "link": link,
    "netns": netns,
    "process": process,
    "mount": mount,
    "cgroup": cgroup,
    "loop": loop,
    "xtables": xtables,
    "nft": nft,
    "nftrule": nftrule,
    "ipset": ipset,
    "route": route,
    "address": address,
    "rule": rule,
    "unit": unit,
    "file": file,
    "bpf": bpf,
    "ipvs": ipvs,
    "apparmor": apparmor,
    "pool": pool,
    "ovs": ovs,
    "rbd": lambda facts: f"an image of Ceph's pool {facts['pool']}, mapped here",
    "account": lambda facts: f"a line of /etc for a {facts['type']}",
    "sysctl": lambda facts: f"a kernel setting, {facts['value']} now",
    "elsewhere": lambda facts: "something on other machines",
}
