"""Which links are a member's own, which are the administrator's, and which were only lent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from shlex import quote
from typing import Any

from leftovers.claims import Case, Finding, real_exe
from leftovers.model import Evidence, Object, Record, Role
from leftovers.products.family.names import LXCBR0, NETWORK_CHAIN, SHARED_OUI, Named, Names
from leftovers.products.family.processes import named_for, serves
from leftovers.products.family.reading import addresses, made, nics, nics_by, of_instance

DEFAULT_MTU = 1500
# Types whose peer is their other end; that of any other type is the link below it.
PAIRS = ("veth", "netkit", "vxcan")


def bridge(names: Names, obj: Object, case: Case) -> Finding | None:
    """A managed network's bridge, of the kernel's."""
    if obj.facts["type"] != "bridge" or not obj.facts["host"]:
        return None
    return managed_bridge(names, obj.key, obj.facts, case)


def managed_bridge(
    names: Names, name: str, facts: Mapping[str, Any], case: Case, driver: str = "native"
) -> Finding | None:
    """A managed network's bridge, of the kernel's or of Open vSwitch's (bridge.driver). The daemon refuses to create
    one under a name that is taken (network/driver_bridge.go, Create), so its own word is proof, and so is its server on
    it. A name that is only remembered is not: an administrator, or another member, may have made one of that name
    since, and lxd-to-incus takes networks over as they are. It wants more that only this one gives."""
    mac = str(facts["address"]).lower()
    reason = "a managed network's bridge"
    for process in case.proven("process"):
        if serves(process)[1] == name:
            return Finding(reason, (Evidence("kernel", f"dnsmasq (pid {process.key}) serves it"),))
    kernel = firewall_names(names, case, name)
    remembered = [
        record
        for record in case.records_of("network")
        if record.name == name
        and record.facts.get("managed")
        and record.facts.get("type") == "bridge"
        and (record.facts.get("config", {}).get("bridge.driver") or "native") == driver
    ]
    named = [Evidence(record.source, f"network {name} is a managed bridge") for record in remembered]
    if any(record.source == "api" for record in remembered):
        return Finding(reason, tuple(named))
    rival = rival_network(names, case, name)
    if rival is not None:
        other = "the network of another product of the family, by now"
        return Finding(other, (*kernel[:1], *named[:1], rival), role=Role.ADMIN) if kernel or named else None
    shared = sorted({address for record in remembered for address in addresses_of(record)} & set(facts["addresses"]))
    own = mac in {hwaddr for record in remembered for hwaddr in hwaddrs_of(record)}
    marks = [Evidence("kernel", f"has its address {address}") for address in shared[:1]]
    ranged = mac.startswith(names.ouis) and mac != LXCBR0
    if ranged or own or (kernel and mac.startswith(SHARED_OUI)):
        marks.append(Evidence("kernel", f"its hardware address {mac} is one that {names.title} gives"))
    if (kernel and marks) or own or (named and len(marks) == 2):
        return Finding(reason, (*kernel[:1], *named[:1], *marks))
    if not kernel and not named:
        return None
    return Finding(
        f"named like a network of {names.title}, but with too little of {names.possessive} on it",
        (*kernel[:1], *named[:1], Evidence("kernel", f"its hardware address is {mac}")),
        proven=False,
        role=Role.ADMIN,
        advice=f"ip link delete {quote(name)}" if driver == "native" else f"ovs-vsctl del-br {quote(name)}",
    )


def rival_network(names: Names, case: Case, network: str) -> Evidence | None:
    """What says that a network of that name is another member's: its server, or its firewall."""
    for process in case.objects("process"):
        directory, served = serves(process)
        if served == network and directory not in case.at(names.directory):
            return Evidence("kernel", f"dnsmasq (pid {process.key}) serves {directory}/networks/{network}")
    for table in case.objects("nft"):
        if table.facts["name"] in names.rivals:
            matches = (NETWORK_CHAIN.match(chain) for chain in table.facts["chains"])
            if any(match and match["network"] == network for match in matches):
                return Evidence("kernel", f"nft table {table.key} has chains for network {network}")
    for rule in case.objects("xtables"):
        comment = rule.facts.get("comment", "")
        if comment in {f"generated for {title} network {network}" for title in names.rivals.values()}:
            return Evidence("kernel", f"firewall rule {comment!r}")
    for file in case.objects("file"):
        if file.key in {f"{directory}/networks" for directory in names.twins} and network in file.facts["entries"]:
            return Evidence("disk", f"{file.key}/{network} is there")
    return None


def firewall_names(names: Names, case: Case, network: str) -> list[Evidence]:
    """What the product's own firewall rules, written since the boot, say of a network of that name."""
    found = []
    for table in case.proven("nft"):
        matches = (NETWORK_CHAIN.match(chain) for chain in table.facts["chains"])
        if any(match and match["network"] == network for match in matches):
            found.append(Evidence("kernel", f"nft table {table.key} has chains for network {network}"))
    for rule in case.proven("xtables"):
        match = names.comment.match(rule.facts.get("comment", ""))
        if match and match["kind"] == "network" and match["of"] == network:
            found.append(Evidence("kernel", f"firewall rule {rule.facts['comment']!r}"))
            break
    return found


def addresses_of(network: Record) -> set[str]:
    """The addresses that a network's bridge was given."""
    config = network.facts.get("config", {})
    own = {str(config.get(key, "")).partition("/")[0] for key in ("ipv4.address", "ipv6.address")}
    return (own | set(network.facts.get("addresses", ()))) - {"", "none", "auto"}


def hwaddrs_of(network: Record) -> set[str]:
    """The hardware addresses that a network's bridge was given, by a person or by the daemon."""
    config = network.facts.get("config", {})
    return {str(value).lower() for key, value in config.items() if key.endswith("hwaddr") and value}


def bridge_child(names: Names, obj: Object, case: Case) -> Finding | None:
    """Tunnels and the mtu holder of a managed bridge (network/driver_bridge.go, deleteChildren), not what its
    configuration names as somebody else's (bridge.external_interfaces)."""
    master = obj.facts["master"]
    if not obj.facts["host"] or obj.facts["type"] not in ("vxlan", "gretap", "dummy") or not master:
        return None
    if not case.is_proven("link", master) or not obj.key.startswith(f"{master}-") or obj.key in external(case, master):
        return None
    rest = obj.key.removeprefix(f"{master}-")
    said = Evidence("kernel", f"a {obj.facts['type']} port of {master} with a name made from it")
    bridge = next(link for link in case.proven("link") if link.key == master)
    mtu = bridge.facts["mtu"]
    if rest == "mtu" and obj.facts["type"] == "dummy" and obj.facts["mtu"] == mtu != DEFAULT_MTU:
        # The kernel gives a bridge the smallest MTU of its ports: this one is there to keep that of bridge.mtu.
        also = Evidence("kernel", f"has its MTU, {mtu}")
        return Finding("holds the MTU of a managed network", (said, also))
    for record in case.records_of("network"):
        config = record.facts.get("config", {}) if record.name == master else {}
        wanted = f"tunnel.{rest}.protocol" in config or (rest == "mtu" and obj.facts["type"] == "dummy")
        if config and wanted:
            return Finding("a tunnel of a managed network", (said, Evidence(record.source, f"network {master} has it")))
    reason = "named like a tunnel of a managed network"
    return Finding(reason, (said,), proven=False, role=Role.ADMIN, advice=f"ip link delete {quote(obj.key)}")


def external(case: Case, network: str) -> set[str]:
    names = set()
    for record in case.records_of("network"):
        if record.name == network:
            value = str(record.facts.get("config", {}).get("bridge.external_interfaces", ""))
            names |= {piece.strip().partition("/")[0] for piece in value.split(",")}
    return names


def vlan(names: Names, obj: Object, case: Case) -> Finding | None:
    """A VLAN child that the daemon created on the administrator's link: its own note says so
    (device/nic_physical.go: volatile.NAME.last_state.created; network_utils.go, GetHostDevice)."""
    if obj.facts["type"] != "vlan" or not obj.facts["host"]:
        return None
    for name, source, parent, number, created in vlan_notes(case):
        if created == "true" and parent == obj.facts["peer"] and str(number) == str(obj.facts["vlan"]):
            said = (Evidence(source, f"{name}: created on {parent}"),)
            # Only the living daemon's note is of now: the same link may be the administrator's since.
            live = source == "api"
            role, advice = (Role.LIVE, "") if live else (Role.ADMIN, f"ip link delete {quote(obj.key)}")
            return Finding(f"a VLAN link that {names.title} created", said, proven=live, role=role, advice=advice)
    return None


def vlan_notes(case: Case) -> Iterator[tuple[str, str, Any, Any, Any]]:
    """Devices and networks that may have a VLAN link: whose, source, parent, VLAN id, created or not."""
    for record, nic in nics(case):
        state = nic.get("last_state") or {}
        yield (
            f"{record.name} {nic.get('device')}",
            record.source,
            nic.get("parent"),
            nic.get("vlan"),
            state.get("created"),
        )
    for record in case.records_of("network"):
        config = record.facts.get("config", {})
        created = config.get("volatile.last_state.created")
        yield f"network {record.name}", record.source, config.get("parent"), config.get("vlan"), created


def veth(names: Names, obj: Object, case: Case) -> Finding | None:
    """A veth of an instance. The end in the host has a name that says nothing; the other end has the address that
    the instance was given, and lives in the instance's network namespace or, after a messy stop, in the host
    again (lxc/src/lxc/network.c, lxc_restore_phys_nics_to_netns)."""
    facts = obj.facts
    if facts["type"] != "veth" or not facts["host"] or not facts["peer"]:
        return None
    reason = "an instance's network device"
    mac = facts["peer_address"].lower()
    given = mac in addresses(case)
    named = [
        Evidence(record.source, f"{record.name} {nic.get('device')}: host_name {obj.key}")
        for record, nic in nics_by(case, "host_name", obj.key)
        if made(case, nic)
    ]
    whose = f"which {names.title} gave an instance" if given else f"from a range that {names.title} gives"
    address = Evidence("disk" if given else "kernel", f"its other end has the address {mac}, {whose}")
    pid = case.resident("netns", facts["peer_netns"])
    if pid is not None and not lent(case, f"{facts['peer_netns']}/{facts['peer']}"):
        inside = Evidence("kernel", f"its other end is in the network namespace of pid {pid}")
        ours = names.transient.match(obj.key) or named or case.is_proven("link", facts["master"])
        if ours and (given or mac.startswith((*names.ouis, SHARED_OUI))):
            return Finding(reason, (inside, address, *named))
        if named or case.is_proven("link", facts["master"]):
            return Finding(reason, (inside, Evidence("kernel", f"a port of {facts['master']}"), *named))
        return None
    if facts["peer_netns"] != facts["netns"]:
        return None
    if case.is_proven("link", facts["peer"]):
        return Finding(reason, (Evidence("kernel", f"the other end of {facts['peer']}"),))
    stranded = Evidence("kernel", f"both ends, {obj.key} and {facts['peer']}, are in the host, and no instance has one")
    pair = names.transient.match(facts["peer"]) and (names.transient.match(obj.key) or named)
    if pair and (given or mac.startswith(names.ouis)):
        return Finding(reason, (stranded, address, *named))
    if pair and mac.startswith(SHARED_OUI) and case.is_proven("link", facts["master"]):
        return Finding(reason, (stranded, address, Evidence("kernel", f"a port of {facts['master']}")))
    if named:
        reason = f"has a name that {names.title} gave to a device, but nothing else of it"
        advice = f"ip link delete {quote(obj.key)}"
        return Finding(reason, tuple(named), proven=False, role=Role.ADMIN, advice=advice)
    return None


def lent(case: Case, key: str) -> bool:
    claim = case.claims.get(f"link:{key}")
    return claim is not None and claim.role is Role.LENT


def running_nic(names: Names, obj: Object, case: Case) -> Finding | None:
    """Any device on the host's side that the living daemon names for a running instance: veth, tap, macvlan."""
    if not obj.facts["host"] or obj.facts["type"] not in ("veth", "tun", "macvlan", "macvtap"):
        return None
    for record, nic in nics_by(case, "host_name", obj.key):
        if record.source == "api" and record.facts.get("running") and made(case, nic):
            said = Evidence("api", f"{record.name} {nic.get('device')}: host_name {obj.key}, running")
            return Finding("an instance's network device", (said,))
    return None


def stranded(names: Names, obj: Object, case: Case) -> Finding | None:
    """A macvlan or ipvlan of an instance that its monitor moved back into the host, or a virtual machine's macvtap,
    which has been there all the time (device/nic_macvlan.go). Whoever holds that open decides (tap): lxd-to-incus moves
    machines over with their addresses."""
    facts = obj.facts
    if facts.get("holder"):
        return None
    if not facts["host"] or facts["type"] not in ("macvlan", "macvtap", "ipvlan") or not names.transient.match(obj.key):
        return None
    mac = facts["address"].lower()
    if mac not in addresses(case) and not mac.startswith(names.ouis):
        return None
    said = (
        Evidence("kernel", f"a {facts['type']} with a device's name and the address {mac}, which {names.title} gave"),
    )
    return Finding("an instance's network device", said)


def tap(names: Names, obj: Object, case: Case) -> Finding | None:
    """A tap or macvtap that proven processes hold open, and nobody else: a virtual machine's."""
    pids = holders(obj)
    if obj.facts["type"] not in ("tun", "macvtap") or not pids:
        return None
    if not all(case.is_proven("process", str(pid)) for pid in pids):
        return None
    said = Evidence("kernel", f"held open by pid {', '.join(map(str, pids))}")
    return Finding("a virtual machine's network device", (said,))


def holders(link: Object) -> list[int]:
    """The processes that have a tap or macvtap open: there may be several, and one speaks for none of the others."""
    one = link.facts.get("holder", 0)
    return list(link.facts.get("holders") or ([one] if one else []))


def stranded_tap(names: Names, obj: Object, case: Case) -> Finding | None:
    """A tap of a virtual machine that has ended without its daemon: it is persistent and outlives QEMU, and nothing
    on it tells whose it is but its random name (internal/server/ip/tuntap.go; device_utils_network.go,
    networkCreateTap)."""
    facts = obj.facts
    if facts["type"] != "tun" or not facts["host"] or facts.get("holder") or not names.transient.match(obj.key):
        return None
    for record, nic in nics_by(case, "host_name", obj.key):
        if made(case, nic):
            said = (
                Evidence(record.source, f"{record.name} {nic.get('device')}: host_name {obj.key}, a random name"),
                Evidence("kernel", "a tap that no process holds open"),
            )
            return Finding("a virtual machine's network device, without its machine", said)
    if not case.is_proven("link", facts["master"]):
        return None
    port = Evidence("kernel", f"a port of {facts['master']} that no process holds open")
    reason = f"named like a virtual machine's network device, on a network of {names.title}"
    return Finding(reason, (port,), proven=False, role=Role.ADMIN, advice=f"ip link delete {quote(obj.key)}")


def lent_link(names: Names, obj: Object, case: Case) -> Finding | None:
    """A link of the administrator's that was given to a container (nictype=physical): it goes home before the
    container's namespace ends. A virtual one would be destroyed with it."""
    facts = obj.facts
    if facts["host"] or facts["type"] == "loopback":
        return None
    pid = case.resident("netns", facts["netns"])
    if pid is None:
        return None
    instance = instance_of(case, pid)
    home = given = ""
    for nic in of_instance(case, "lxc.conf", instance):
        if nic.get("name") == facts["name"]:
            home, given = nic.get("link", ""), (nic.get("hwaddr") or "").lower()
    state: dict[str, Any] = {}
    for nic in of_instance(case, "instance", instance):
        if nic.get("nictype") == "physical" and is_home(names, nic, home):
            state = nic.get("last_state") or {}
    if home and state.get("created") == "true":
        return None  # a VLAN link that was made for this: it goes with the namespace
    mac = facts["address"].lower()
    own = mac == given or mac in addresses(case) or mac.startswith((*names.ouis, SHARED_OUI))
    # What it makes of these for a container, its note has told above; any other may have been given an address too.
    own = own and facts["type"] != "vlan"
    if facts["type"]:
        came = from_host(obj, case)
        if own and (came is None or made_peer(names, came, case)):
            return None
        if not home and (came is None or case.is_proven("link", came.facts["master"])):
            return None
    if facts["type"] and (names.transient.match(home) or own):
        # A container may rename its links: this one is not the one that the file means.
        home = the_only_one(names, obj, case, instance)
    said = [Evidence("kernel", f"{facts['type'] or 'hardware'} in the network namespace of pid {pid}")]
    if home:
        said.append(Evidence("disk", f"{names.run}/{instance}/lxc.conf: was {home} on the host"))
    elif facts["type"]:
        said.append(
            Evidence("kernel", f"{facts['peer']} in the host belongs to it, and its address is not {names.possessive}")
        )
    back = {
        "home_name": home,
        "home_mtu": int(state["mtu"]) if str(state.get("mtu", "")).isdigit() else 0,
        "home_address": str(state.get("hwaddr", "")),
    }
    return Finding("a link of the host's that a container was given", tuple(said), role=Role.LENT, facts=back)


def the_only_one(names: Names, obj: Object, case: Case, instance: str) -> str:
    """The name of the one card that an instance was given, if this is the one link in there that came from the host
    and was not made for it; else "", since a wrong name is worse than none."""
    cards = {nic.get("link", "") for nic in of_instance(case, "lxc.conf", instance)}
    cards = {link for link in cards if link and not names.transient.match(link)}
    others = [
        link
        for link in case.objects("link")
        if link.facts["netns"] == obj.facts["netns"]
        and (came := from_host(link, case)) is not None
        and not made_peer(names, came, case)
    ]
    return cards.pop() if len(cards) == 1 and [link.id for link in others] == [obj.id] else ""


def from_host(obj: Object, case: Case) -> Object | None:
    """The link of the host that a virtual link in a container belongs to: its other end, or the one below it. A
    container cannot arrange that by itself; what it made itself belongs to nothing in the host."""
    host_links: dict[str, Object] = case.cached(
        "family.host_links", lambda: {link.key: link for link in case.objects("link") if link.facts["host"]}
    )
    peer = host_links.get(obj.facts["peer"])
    return peer if peer is not None and obj.facts["peer_netns"] == peer.facts["netns"] else None


def made_peer(names: Names, link: Object, case: Case) -> bool:
    """Whether a link of the host may be the end that was made for a device, by name or by the bridge it is on."""
    named = any(made(case, nic) for _, nic in nics_by(case, "host_name", link.key))
    on_ours = case.is_proven("link", link.facts["master"]) or link.facts["type"] in ("bridge", "vlan", "")
    return bool(names.transient.match(link.key)) or named or on_ours or bool(nics_by(case, "parent", link.key))


def is_home(names: Names, nic: dict[str, Any], home: str) -> bool:
    """Whether a device's parent, or the VLAN link on it, has this name (network_utils.go, GetHostDevice)."""
    parent, number = nic.get("parent", ""), nic.get("vlan", "")
    return home in (parent, f"{parent}.{number}", f"{names.called}-vlan-{number}")


def instance_of(case: Case, pid: str) -> str:
    """The instance that a container's process belongs to, by its cgroup; "" if liblxc's configuration knows none."""
    process = case.process(int(pid))
    top = "/" + process.facts["cgroup"].strip("/").partition("/")[0] if process else ""
    known: set[str] = case.cached("family.configured", lambda: {record.name for record in case.records_of("lxc.conf")})
    return next((name for name in named_for(top) if name in known), "")


def parent(names: Names, obj: Object, case: Case) -> Finding | None:
    """The administrator's bridge or network card that instances or networks are connected to."""
    if not obj.facts["host"]:
        return None
    for record, nic in nics_by(case, "parent", obj.key):
        said = Evidence(record.source, f"parent of {record.name} {nic.get('device')} ({nic.get('nictype')})")
        return Finding("the administrator's, an instance was connected to it", (said,), role=Role.ADMIN)
    for record in case.records_of("network"):
        config = record.facts.get("config", {})
        if record.facts.get("managed") and config.get("parent") == obj.key:
            said = Evidence(record.source, f"parent of network {record.name} ({record.facts.get('type')})")
            return Finding("the administrator's, a network was connected to it", (said,), role=Role.ADMIN)
    return None


def foreign_port(names: Names, obj: Object, case: Case) -> Finding | None:
    """A port of a managed bridge that the daemon did not make: it loses its bridge and stays."""
    master = obj.facts["master"]
    if not obj.facts["host"] or not master or not case.is_proven("link", master):
        return None
    if stranded_tap(names, obj, case) or bridge_child(names, obj, case):
        return None  # which say better why it stays
    said = [Evidence("kernel", f"a port of {master}")]
    if obj.key in external(case, master):
        said.append(Evidence("database", f"bridge.external_interfaces of {master}"))
    return Finding("the administrator's, a port of a managed bridge", tuple(said), role=Role.ADMIN)


def used_bridge(names: Names, obj: Object, case: Case) -> Finding | None:
    """A managed network's bridge that somebody else uses: another product's container was plugged into it by hand, or
    a guest's tap, or a card; or somebody has a VLAN, a macvlan or the like on it, up or down, which would go with it.
    What the network itself was told to take (bridge.external_interfaces) does not hold it, nor does a port at whose
    other end nobody is."""
    if obj.facts["type"] != "bridge":
        return None
    told = external(case, obj.key)
    for link in on_bridges(case).get((obj.facts["netns"], obj.key), ()):
        if case.is_proven("link", link.key) or link.id in case.elsewhere or link.key in told:
            continue
        port = not stands_on(link, obj)
        if port and link.key.startswith(f"{obj.key}-") and link.facts["type"] in ("vxlan", "gretap", "dummy"):
            continue  # a tunnel, of which no record is left
        user = f"a {link.facts['type']} in the host" if link.facts["host"] and not port else user_of(link, case)
        if user:
            said = (Evidence("kernel", f"{link.key} is {'a port of' if port else 'on'} it: {user}"),)
            free = f"ip link set {quote(link.key)} nomaster && " if port else ""
            if not port and link.facts["host"]:
                free = f"ip link delete {quote(link.key)} && "
            return Finding("somebody else is on it", said, advice=f"{free}leftovers clean {names.name}")
    return None


def on_bridges(case: Case) -> dict[tuple[int, str], list[Object]]:
    """By a link of the host: its ports, and the links that stand on it, in whatever namespace."""

    def make() -> dict[tuple[int, str], list[Object]]:
        table: dict[tuple[int, str], list[Object]] = {}
        for link in case.objects("link"):
            facts = link.facts
            if facts["host"] and facts["master"]:
                table.setdefault((facts["netns"], facts["master"]), []).append(link)
            if facts["type"] not in PAIRS and facts["peer"]:
                table.setdefault((facts["peer_netns"], facts["peer"]), []).append(link)
        return table

    found: dict[tuple[int, str], list[Object]] = case.cached("family.on_bridges", make)
    return found


def stands_on(link: Object, below: Object) -> bool:
    """Whether a link has another one for its lower link: a VLAN, a macvlan, a macsec, a tunnel."""
    facts = link.facts
    lower = (facts["peer_netns"], facts["peer"])
    return facts["type"] not in PAIRS and lower == (below.facts["netns"], below.key)


def user_of(link: Object, case: Case) -> str:
    """Who uses a link that is on a bridge, for a person; "" if nobody is to be seen, or only what is the product's."""
    facts = link.facts
    if facts["type"] == "tun":
        others = (pid for pid in holders(link) if not case.is_proven("process", str(pid)))
        return next((f"held open by pid {pid}" for pid in others), "")
    if not facts["host"]:
        return lives_in(facts["netns"], "it", case)
    if facts["type"] != "veth":
        return f"{facts['type'] or 'hardware'}, and up" if facts["up"] else ""
    if facts["peer_netns"] != facts["netns"]:
        return lives_in(facts["peer_netns"], "its other end", case)
    peer = next((link for link in case.objects("link") if link.facts["host"] and link.key == facts["peer"]), None)
    given = [address for address in peer.facts["addresses"] if not address.startswith("fe80:")] if peer else []
    return f"its other end {facts['peer']} is used in the host" if given or (peer and peer.facts["master"]) else ""


def lives_in(netns: int, what: str, case: Case) -> str:
    for space in case.objects("netns"):
        if space.facts["inode"] != netns:
            continue
        for pid in space.facts["processes"]:
            if not case.is_proven("process", str(pid)):
                process = case.process(pid)
                name = real_exe(process) if process else "?"
                return f"{what} is in the network namespace of pid {pid} ({name})"
        for pin in space.facts["pins"]:
            return f"{what} is in the network namespace {pin}"
    return ""


RULES: tuple[Named, ...] = (
    lent_link,
    bridge,
    bridge_child,
    vlan,
    running_nic,
    veth,
    stranded,
    tap,
    stranded_tap,
    parent,
    foreign_port,
)
