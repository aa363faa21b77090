"""Incus: what its packages leave, and what proves that a thing is Incus' own.

Sources, read in lxc/incus (stable-6.0, main) and in Debian's incus 6.0.4 and 7.0.2 packages; each rule names its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from leftovers import claims
from leftovers.claims import Case, Finding, real_exe
from leftovers.kinds.kind import Look
from leftovers.model import Evidence, Object, Presence, Record, Role
from leftovers.mountinfo import below, host_path
from leftovers.products.product import Directory, Product

DIRECTORY = "/var/lib/incus"
RUN = "/run/incus"
DAEMONS = ("/usr/libexec/incus/incusd", "/usr/lib/incus/incusd", "/usr/bin/incusd", "/opt/incus/bin/incusd")
USER_DAEMONS = ("/usr/libexec/incus/incus-user", "/usr/lib/incus/incus-user", "/opt/incus/bin/incus-user")
UNITS = (
    "incus.service",
    "incus.socket",
    "incus-startup.service",
    "incus-user.service",
    "incus-user.socket",
    "incus-lxcfs.service",
)
# Where Incus mounts in its directory (internal/server/sys/fs.go, storage/drivers, device/disk.go).
MOUNTED = ("shmounts", "guestapi", "devlxd", "devices", "storage-pools", "containers", "virtual-machines")
# internal/server/network/network_utils.go, RandomDevName and MACDevName.
TRANSIENT = re.compile(r"(veth|tap|mac)[0-9a-f]{8}\Z|(inc|ipvl)[0-9a-f]{10}\Z")
# The range that belongs to Zabbly, Incus' maintainers: nothing else hands out addresses from it. Before 6.0.1 it was
# 00:16:3e, which LXD, LXC and Xen use too, and which therefore only counts beside other proof.
OUI = "10:66:6a:"
SHARED_OUI = "00:16:3e:"
CHAIN = re.compile(
    r"(fwd|in|out|pstrt|prert|acl|aclin|aclout|aclfwd|fwdprert|fwdout|fwdpstrt|egress\.netprio)(\.(?P<of>.*))?\Z"
)
NETWORK_CHAIN = re.compile(r"(fwd|in|out|pstrt)\.(?P<network>[^.]+)\Z")
COMMENT = re.compile(
    r"generated for Incus (network|network-forward|network-load-balancer|container|instance) (?P<of>.+)"
)
# lxc/src/lxc/cgroups/cgroup.h; a number follows when the name was taken, and "-1" may also be of the name itself.
PAYLOAD = r"/lxc\.payload\.[^/]+\Z"
MONITOR = r"/lxc\.monitor\.[^/]+\Z"
CLASH = re.compile(r"-[0-9]{1,3}\Z")


# -- reading --------------------------------------------------------------------------------------------------------


def read_api(look: Look) -> tuple[list[Record], list[str]]:
    """Ask the daemon, if it lives: connecting to a socket that systemd holds for a dead one would start it."""
    from leftovers.daemons import incus

    if not any(is_daemon(process) for process in look.objects("process")):
        return [], []
    if not look.host.exists(f"{DIRECTORY}/unix.socket"):
        return [], []  # deleted with its directory: the daemon lives, but nobody can ask it any more
    return incus.read(look.host, f"{DIRECTORY}/unix.socket", 10.0)


def read_database(look: Look) -> tuple[list[Record], list[str]]:
    from leftovers.evidence import incus_database

    return incus_database.read(look.host, f"{DIRECTORY}/database/global/db.bin")


def read_disk(look: Look) -> tuple[list[Record], list[str]]:
    from leftovers.evidence import incus_backup, incus_directory

    records, faults = incus_directory.read(look.host, DIRECTORY, RUN)
    more, more_faults = incus_backup.read(look.host, DIRECTORY)
    return records + more, faults + more_faults


def read_kernel(look: Look) -> tuple[list[Record], list[str]]:
    """Pools that are still mounted tell their source: the bind mount of a directory elsewhere
    (storage/drivers/driver_dir.go, Mount)."""
    mounts = Case("incus", Presence.ABSENT, look.listed).mounts()
    records = []
    for mount in mounts:
        parent, _, name = mount.point.rpartition("/")
        if parent == f"{DIRECTORY}/storage-pools":
            source = host_path(mounts, mount.majmin, mount.root, avoid=DIRECTORY)
            if source and source != "/":
                driver = "dir" if mount.fstype not in ("btrfs", "zfs") else mount.fstype
                records.append(Record("pool", name, "kernel", {"driver": driver, "source": source, "config": {}}))
    return records, []


def is_daemon(process: Object) -> bool:
    """The main daemon: not one of its fork* helpers, and not a monitor, which is a fork of it with another title."""
    argv = process.facts["argv"]
    return (
        not process.facts["nested"]
        and real_exe(process) in DAEMONS
        and bool(argv)
        and argv[0].startswith("/")
        and not (len(argv) > 1 and argv[1].startswith(("fork", "callhook")))
    )


def nics(case: Case) -> Iterator[tuple[Record, dict[str, Any]]]:
    """Every network device of every instance that any source knows."""
    for record in case.records_of("instance"):
        for nic in record.facts.get("nics", ()):
            yield record, nic


def lxc_nics(case: Case) -> Iterator[tuple[Record, dict[str, Any]]]:
    """The same, from the configuration that liblxc was started with: it outlives a purge, in /run."""
    for record in case.records_of("lxc.conf"):
        for nic in record.facts.get("nics", ()):
            yield record, nic


def made(case: Case, nic: dict[str, Any]) -> bool:
    """Whether the link in a device's host_name is one that Incus made. Of a passed-through card (nictype=physical,
    sriov, or a network of such a type) that name is the administrator's own card's (seen on 6.0.4)."""
    networks = [record for record in case.records_of("network") if record.name == nic.get("network")]
    parents = {nic.get("parent")} | {record.facts.get("config", {}).get("parent") for record in networks}
    name = nic.get("host_name", "")
    if any(parent and (name == parent or name.startswith(f"{parent}.")) for parent in parents):
        return False
    types = {nic.get("nictype")} | {record.facts.get("type") for record in networks}
    # A physical network on a bridge gives its instances a veth of their own (Incus 7, nic_physical.go).
    return "sriov" not in types and nic.get("nictype") != "physical"


def addresses(case: Case) -> set[str]:
    """The hardware addresses of all instances' devices."""

    def make() -> set[str]:
        return {nic["hwaddr"].lower() for source in (nics, lxc_nics) for _, nic in source(case) if nic.get("hwaddr")}

    found: set[str] = case.cached("incus.addresses", make)
    return found


def external_pools(records: tuple[Record, ...]) -> dict[str, str]:
    """Pools whose files lie where the administrator wanted them: source directory to pool name."""
    found = {}
    for record in records:
        source = record.facts.get("source", "") if record.type == "pool" else ""
        if record.type == "pool" and record.facts.get("driver") in ("dir", "btrfs") and source.startswith("/"):
            elsewhere = not below(source, DIRECTORY) and not source.startswith("/dev/")
            if elsewhere and source.strip("/") and ".." not in source.split("/"):
                found[source.rstrip("/")] = record.name
    return found


# What a pool's own directory holds; a dir pool is refused on a directory that is not empty, so these are Incus' by
# birth (storage/drivers/driver_dir.go Create; drivers/volume.go, BaseDirectories).
VOLUMES = (
    "buckets",
    "containers",
    "containers-snapshots",
    "custom",
    "custom-snapshots",
    "images",
    "virtual-machines",
    "virtual-machines-snapshots",
)


def places(records: tuple[Record, ...]) -> tuple[str, ...]:
    paths = []
    for source in external_pools(records):
        paths += [source, *(f"{source}/{name}" for name in VOLUMES)]
    for record in records:
        for disk in record.facts.get("disks", ()) if record.type == "instance" else ():
            source = str(disk.get("source", ""))
            if source.startswith("/") and not disk.get("pool") and ".." not in source.split("/"):
                paths.append(source.rstrip("/") or "/")
    return tuple(paths)


# -- processes, cgroups, units --------------------------------------------------------------------------------------


def monitor(obj: Object, case: Case) -> Finding | None:
    """A container's monitor: a fork of incusd that liblxc gave another title. It is killed before its container:
    seeing that end, it would move the container's links back into the host, where nobody takes them away."""
    argv = obj.facts["argv"]
    if obj.facts["nested"] or real_exe(obj) not in DAEMONS or not argv or not argv[0].startswith("[lxc monitor] "):
        return None
    said = (Evidence("kernel", f"runs {obj.facts['exe']}"), Evidence("kernel", f"title {argv[0][:120]!r}"))
    return Finding("a container's monitor", said, facts={"abrupt": True})


def tied_process(obj: Object, case: Case) -> Finding | None:
    """Looks like a monitor, but nothing proves it: it is shown and left alone."""
    title = " ".join(obj.facts["argv"])
    if obj.facts["nested"] or not title.startswith(f"[lxc monitor] {DIRECTORY}/"):
        return None
    said = (Evidence("kernel", f"arguments {title[:120]!r}"), Evidence("kernel", f"runs {obj.facts['exe']}"))
    reason = "has the arguments of a container's monitor, but runs another program"
    return Finding(reason, said, proven=False, role=Role.ADMIN, advice=f"kill {obj.key}")


def named_for(path: str) -> tuple[str, ...]:
    """The instances that a cgroup of liblxc may be named for, the likelier first; none for another cgroup."""
    if not re.match(PAYLOAD, path) and not re.match(MONITOR, path):
        return ()
    name = path.split(".", 2)[2]
    return tuple(dict.fromkeys((name, CLASH.sub("", name))))


def empty_cgroup(obj: Object, case: Case) -> Finding | None:
    """A cgroup without processes that is named for an instance which Incus knows, or, where no other product of
    liblxc is to be seen on the host, for any (lxc/src/lxc/cgroups/cgroup.h; lxc.pivot has no instance's name)."""
    path = obj.facts["path"]
    if obj.facts["populated"] or obj.facts["hierarchy"]:
        return None
    if not named_for(path) and path != "/lxc.pivot":
        return None
    known = {record.name: record.source for type in ("instance", "lxc.conf") for record in case.records_of(type)}
    for name in named_for(path):
        if name in known:
            return Finding("an instance's cgroup, empty", (Evidence(known[name], f"knows an instance {name}"),))
    other = other_liblxc(case)
    if other:
        doubt = Evidence("kernel", f"{other}: the name is liblxc's, not Incus' alone")
        return Finding("an empty cgroup of liblxc", (doubt,), proven=False, advice=f"rmdir {obj.facts['directory']}")
    alone = Evidence("kernel", "no other product of liblxc runs or is installed")
    said = (Evidence("kernel", "has no process, and a name that liblxc gives"), alone)
    return Finding("an instance's cgroup, empty", said)


def other_liblxc(case: Case) -> str:
    """Who else on this host uses liblxc: a monitor of another lxcpath, or a daemon's file. "" if nobody."""

    def make() -> str:
        for process in case.objects("process"):
            title = " ".join(process.facts["argv"])
            if title.startswith("[lxc monitor] ") and not title.startswith(f"[lxc monitor] {DIRECTORY}/"):
                return f"pid {process.key} is {title[:80]!r}"
        for file in case.objects("file"):
            if file.key in OTHERS:
                return f"{file.key} is there"
        return ""

    found: str = case.cached("incus.other_liblxc", make)
    return found


OTHERS = ("/usr/bin/lxc-start", "/usr/bin/lxd", "/usr/sbin/lxd", "/usr/libexec/lxd/lxd", "/snap/lxd/current")


# -- network --------------------------------------------------------------------------------------------------------


def bridge(obj: Object, case: Case) -> Finding | None:
    """A managed network's bridge. Incus refuses to create one under a name that is taken
    (network/driver_bridge.go, Create), so its own word is proof; a name that is only remembered wants an
    address of Incus' on the bridge beside it, since an administrator may have made one of that name since."""
    if obj.facts["type"] != "bridge" or not obj.facts["host"]:
        return None
    name = obj.key
    for process in case.proven("process"):
        if f"--interface={name}" in process.facts["argv"]:
            return Finding(
                "a managed network's bridge", (Evidence("kernel", f"dnsmasq (pid {process.key}) serves it"),)
            )
    mac = obj.facts["address"]
    named: list[Evidence] = []
    for record in case.records_of("network"):
        if record.name != name or not record.facts.get("managed") or record.facts.get("type") != "bridge":
            continue
        said = Evidence(record.source, f"network {name} is a managed bridge")
        if record.source == "api":
            return Finding("a managed network's bridge", (said,))
        own = set(record.facts.get("addresses", ())) | {
            str(record.facts.get("config", {}).get(key, "")).partition("/")[0]
            for key in ("ipv4.address", "ipv6.address")
        }
        shared = own & set(obj.facts["addresses"])
        if shared:
            return Finding("a managed network's bridge", (said, Evidence("kernel", f"has its address {min(shared)}")))
        named.append(said)
    for table in case.proven("nft"):
        if any((match := NETWORK_CHAIN.match(chain)) and match["network"] == name for chain in table.facts["chains"]):
            named.append(Evidence("kernel", f"nft table {table.key} has chains for network {name}"))
    for rule in case.proven("xtables"):
        match = COMMENT.match(rule.facts.get("comment", ""))
        if match and match[1] == "network" and match["of"] == name:
            named.append(Evidence("kernel", f"firewall rule {rule.facts['comment']!r}"))
            break
    if not named:
        return None
    if mac.startswith((OUI, SHARED_OUI)):
        named.append(Evidence("kernel", f"its address {mac} is one that Incus gives"))
        return Finding("a managed network's bridge", tuple(named))
    return Finding(
        "named like a network of Incus, but with nothing of Incus' on it",
        (*named, Evidence("kernel", f"its address is {mac}")),
        proven=False,
        role=Role.ADMIN,
        advice=f"ip link delete {name}",
    )


def bridge_child(obj: Object, case: Case) -> Finding | None:
    """Tunnels and the mtu holder of a managed bridge (network/driver_bridge.go, deleteChildren), not what its
    configuration names as somebody else's (bridge.external_interfaces)."""
    master = obj.facts["master"]
    if not obj.facts["host"] or obj.facts["type"] not in ("vxlan", "gretap", "dummy") or not master:
        return None
    if not case.is_proven("link", master) or not obj.key.startswith(f"{master}-") or obj.key in external(case, master):
        return None
    said = Evidence("kernel", f"a {obj.facts['type']} port of {master} with a name made from it")
    return Finding("a tunnel of a managed network", (said,))


def external(case: Case, network: str) -> set[str]:
    names = set()
    for record in case.records_of("network"):
        if record.name == network:
            value = str(record.facts.get("config", {}).get("bridge.external_interfaces", ""))
            names |= {piece.strip().partition("/")[0] for piece in value.split(",")}
    return names


def vlan(obj: Object, case: Case) -> Finding | None:
    """A VLAN child that Incus created on the administrator's link: its own note says so
    (device/nic_physical.go: volatile.NAME.last_state.created; network_utils.go, GetHostDevice)."""
    if obj.facts["type"] != "vlan" or not obj.facts["host"]:
        return None
    for name, source, parent, number, created in vlan_notes(case):
        if created == "true" and parent == obj.facts["peer"] and str(number) == str(obj.facts["vlan"]):
            return Finding("a VLAN link that Incus created", (Evidence(source, f"{name}: created on {parent}"),))
    return None


def vlan_notes(case: Case) -> Iterator[tuple[str, str, Any, Any, Any]]:
    """Devices and networks that may have a VLAN link: whose, source, parent, VLAN id, whether Incus created it."""
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


def veth(obj: Object, case: Case) -> Finding | None:
    """A veth of an instance. The end in the host has a name that says nothing; the other end has the address that
    Incus gave the instance, and lives in the instance's network namespace or, after a messy stop, in the host
    again (lxc/src/lxc/network.c, lxc_restore_phys_nics_to_netns)."""
    facts = obj.facts
    if facts["type"] != "veth" or not facts["host"] or not facts["peer"]:
        return None
    reason = "an instance's network device"
    mac = facts["peer_address"].lower()
    given = mac in addresses(case)
    named = [
        Evidence(record.source, f"{record.name} {nic.get('device')}: host_name {obj.key}")
        for record, nic in nics(case)
        if nic.get("host_name") == obj.key and made(case, nic)
    ]
    whose = "which Incus gave an instance" if given else "from the range that Incus gives addresses from"
    address = Evidence("disk" if given else "kernel", f"its other end has the address {mac}, {whose}")
    pid = case.resident("netns", facts["peer_netns"])
    if pid is not None and not lent(case, f"{facts['peer_netns']}/{facts['peer']}"):
        inside = Evidence("kernel", f"its other end is in the network namespace of pid {pid}")
        if given or mac.startswith((OUI, SHARED_OUI)):
            return Finding(reason, (inside, address, *named))
        if named or case.is_proven("link", facts["master"]):
            return Finding(reason, (inside, Evidence("kernel", f"a port of {facts['master']}"), *named))
        return None
    if facts["peer_netns"] != facts["netns"]:
        return None
    if case.is_proven("link", facts["peer"]):
        return Finding(reason, (Evidence("kernel", f"the other end of {facts['peer']}"),))
    stranded = Evidence("kernel", f"both ends, {obj.key} and {facts['peer']}, are in the host, and no instance has one")
    pair = TRANSIENT.match(facts["peer"]) and (TRANSIENT.match(obj.key) or named)
    if pair and (given or mac.startswith(OUI)):
        return Finding(reason, (stranded, address, *named))
    if named:
        reason = "has a name that Incus gave to a device, but nothing else of it"
        advice = f"ip link delete {obj.key}"
        return Finding(reason, tuple(named), proven=False, role=Role.ADMIN, advice=advice)
    return None


def lent(case: Case, key: str) -> bool:
    claim = case.claims.get(f"link:{key}")
    return claim is not None and claim.role is Role.LENT


def running_nic(obj: Object, case: Case) -> Finding | None:
    """Any device on the host's side that the living daemon names for a running instance: veth, tap, macvlan."""
    if not obj.facts["host"] or obj.facts["type"] not in ("veth", "tun", "macvlan", "macvtap"):
        return None
    for record, nic in nics(case):
        live = record.source == "api" and record.facts.get("running")
        if live and nic.get("host_name") == obj.key and made(case, nic):
            said = Evidence("api", f"{record.name} {nic.get('device')}: host_name {obj.key}, running")
            return Finding("an instance's network device", (said,))
    return None


def stranded(obj: Object, case: Case) -> Finding | None:
    """A macvlan or ipvlan of an instance that its monitor moved back into the host."""
    facts = obj.facts
    if not facts["host"] or facts["type"] not in ("macvlan", "ipvlan") or not TRANSIENT.match(obj.key):
        return None
    mac = facts["address"].lower()
    if mac not in addresses(case) and not mac.startswith(OUI):
        return None
    said = (Evidence("kernel", f"a {facts['type']} with a device's name and the address {mac}, which Incus gave"),)
    return Finding("an instance's network device", said)


def tap(obj: Object, case: Case) -> Finding | None:
    """A tap that a proven process holds open: a virtual machine's."""
    holder = obj.facts.get("holder", 0)
    if obj.facts["type"] != "tun" or not holder or not case.is_proven("process", str(holder)):
        return None
    return Finding("a virtual machine's network device", (Evidence("kernel", f"held open by pid {holder}"),))


def lent_link(obj: Object, case: Case) -> Finding | None:
    """A link of the administrator's that was given to a container (nictype=physical): it goes home before the
    container's namespace ends. A virtual one would be destroyed with it."""
    facts = obj.facts
    if facts["host"] or facts["type"] == "loopback":
        return None
    pid = case.resident("netns", facts["netns"])
    if pid is None:
        return None
    instance = instance_of(case, pid)
    home = ""
    given = ""
    for record, nic in lxc_nics(case):
        if record.name == instance and nic.get("name") == facts["name"]:
            home, given = nic.get("link", ""), (nic.get("hwaddr") or "").lower()
    state: dict[str, Any] = {}
    for record, nic in nics(case):
        if record.name == instance and nic.get("nictype") == "physical" and is_home(nic, home):
            state = nic.get("last_state") or {}
    if home and state.get("created") == "true":
        return None  # a VLAN link that Incus made for this: it goes with the namespace
    mac = facts["address"].lower()
    mine = TRANSIENT.match(home) and (mac == given or mac.startswith((OUI, SHARED_OUI)))
    if facts["type"] and (not home or mine):
        return None
    said = [Evidence("kernel", f"{facts['type'] or 'hardware'} in the network namespace of pid {pid}")]
    if home:
        said.append(Evidence("disk", f"{RUN}/{instance}/lxc.conf: was {home} on the host"))
    back = {
        "home_name": home or facts["name"],
        "home_mtu": int(state["mtu"]) if str(state.get("mtu", "")).isdigit() else 0,
        "home_address": str(state.get("hwaddr", "")),
    }
    return Finding("a link of the host's that a container was given", tuple(said), role=Role.LENT, facts=back)


def is_home(nic: dict[str, Any], home: str) -> bool:
    """Whether a device's parent, or the VLAN link on it, has this name (network_utils.go, GetHostDevice)."""
    parent, number = nic.get("parent", ""), nic.get("vlan", "")
    return home in (parent, f"{parent}.{number}", f"incus-vlan-{number}")


def instance_of(case: Case, pid: str) -> str:
    """The instance that a container's process belongs to, by its cgroup; "" if liblxc's configuration knows none."""
    process = case.process(int(pid))
    top = "/" + process.facts["cgroup"].strip("/").partition("/")[0] if process else ""
    known = {record.name for record in case.records_of("lxc.conf")}
    return next((name for name in named_for(top) if name in known), "")


def parent(obj: Object, case: Case) -> Finding | None:
    """The administrator's bridge or network card that instances or networks are connected to."""
    if not obj.facts["host"]:
        return None
    for record, nic in nics(case):
        if nic.get("parent") == obj.key:
            said = Evidence(record.source, f"parent of {record.name} {nic.get('device')} ({nic.get('nictype')})")
            return Finding("the administrator's, an instance was connected to it", (said,), role=Role.ADMIN)
    for record in case.records_of("network"):
        config = record.facts.get("config", {})
        if record.facts.get("managed") and config.get("parent") == obj.key:
            said = Evidence(record.source, f"parent of network {record.name} ({record.facts.get('type')})")
            return Finding("the administrator's, a network was connected to it", (said,), role=Role.ADMIN)
    return None


def foreign_port(obj: Object, case: Case) -> Finding | None:
    """A port of a managed bridge that Incus did not make: it loses its bridge and stays."""
    master = obj.facts["master"]
    if not obj.facts["host"] or not master or not case.is_proven("link", master):
        return None
    said = [Evidence("kernel", f"a port of {master}")]
    if obj.key in external(case, master):
        said.append(Evidence("database", f"bridge.external_interfaces of {master}"))
    return Finding("the administrator's, a port of a managed bridge", tuple(said), role=Role.ADMIN)


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


# -- files ----------------------------------------------------------------------------------------------------------

DIRECTORIES = (
    Directory(DIRECTORY, Role.DATA, "incus-base's postrm purge deletes it (Debian incus 6.0.4, 7.0.2)"),
    Directory("/var/cache/incus", Role.DATA, "incus-base's postrm purge deletes it (Debian incus 6.0.4, 7.0.2)"),
    Directory("/var/log/incus", Role.DATA, "incus-base's postrm purge deletes it (Debian incus 6.0.4, 7.0.2)"),
    Directory(RUN, Role.LIVE, "incusd makes it (internal/server/sys/os.go, RunDir)"),
    Directory(f"/run/lxc/lock{DIRECTORY}", Role.LIVE, "liblxc's locks for that directory (lxc/src/lxc/lxclock.c)"),
)


def directory(obj: Object, case: Case) -> Finding | None:
    for declared in DIRECTORIES:
        if obj.key == declared.path:
            reason = "a directory of Incus" if obj.facts["type"] == "directory" else f"a {obj.facts['type']} of Incus"
            return Finding(reason, (Evidence("package", declared.source),), role=declared.role)
    return None


def lock_parents(obj: Object, case: Case) -> Finding | None:
    """liblxc makes /run/lxc/lock/LXCPATH with all its parents; other lxcpaths live beside it."""
    if obj.key != "/run/lxc" or not obj.facts["hollow"] or other_liblxc(case):
        return None
    said = (
        Evidence("disk", "holds directories and no file"),
        Evidence("kernel", "no other product of liblxc runs or is installed"),
    )
    return Finding("liblxc's lock directory, empty", said, facts={"only_hollow": True})


def dnsmasq_directory(obj: Object, case: Case) -> Finding | None:
    if obj.key != "/etc/dnsmasq.d" or not obj.facts["empty"]:
        return None
    said = (Evidence("package", "incus-base's postinst makes it if it is not there, and nothing removes it"),)
    return Finding("an empty directory that Incus may have made", said, role=Role.SYSTEM, advice="rmdir /etc/dnsmasq.d")


def volumes(obj: Object, case: Case) -> Finding | None:
    """Volumes in a pool whose source lies outside, and that source itself."""
    for source, pool in case.cached("incus.pools", lambda: external_pools(case.records)).items():
        said = next(
            Evidence(record.source, f"pool {pool} has its source at {source}")
            for record in case.records_of("pool")
            if record.name == pool and str(record.facts.get("source", "")).rstrip("/") == source
        )
        if obj.key == source:
            return Finding("the source of a pool, the administrator's directory", (said,), role=Role.ADMIN)
        if obj.facts["type"] == "directory" and obj.key in {f"{source}/{name}" for name in VOLUMES}:
            return Finding(f"volumes of pool {pool}", (said,), role=Role.EXTERNAL)
    return None


def disk_source(obj: Object, case: Case) -> Finding | None:
    for record in case.records_of("instance"):
        for disk in record.facts.get("disks", ()):
            if str(disk.get("source", "")).rstrip("/") == obj.key and not disk.get("pool"):
                said = Evidence(record.source, f"{record.name} {disk.get('device')}: mounted at {disk.get('path')}")
                reason = "the administrator's directory, an instance had it"
                return Finding(reason, (said,), role=Role.ADMIN)
    return None


PRODUCT = Product(
    name="incus",
    title="Incus",
    packages=("incus-base", "incus"),
    daemons=DAEMONS,
    units=UNITS,
    directories=(
        *DIRECTORIES,
        Directory("/run/lxc", Role.LIVE, "liblxc (lxc/src/lxc/lxclock.c)"),
        Directory("/etc/dnsmasq.d", Role.SYSTEM, "incus-base's postinst"),
        *(Directory(path, Role.ADMIN, "another product of liblxc") for path in OTHERS),
    ),
    accounts=("group incus", "group incus-admin", "user incus", "subuid root", "subgid root"),
    sysctls=(
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
        "fs.inotify.max_user_instances=1024",
    ),
    readers=(read_api, read_database, read_disk, read_kernel),
    places=places,
    companions=("lxcfs",),
    rules={
        "unit": (claims.declared_unit(*UNITS),),
        "process": (
            monitor,
            claims.runs(*DAEMONS, *USER_DAEMONS, reason="Incus' daemon or a helper of it"),
            claims.child_of("a container's init", rank=1),
            claims.in_cgroup("a container's process", rank=1),
            claims.rooted_below(f"{DIRECTORY}/storage-pools", "a container's process", rank=1),
            claims.sees_mount("a container's process", rank=1),
            claims.shares_mounts("a container's process", rank=1),
            claims.runs_on(
                (f"{DIRECTORY}/networks",), "dnsmasq", reason="the DHCP and DNS server of a network", rank=3
            ),
            claims.runs_on(
                (DIRECTORY, RUN),
                "qemu-system-x86_64", "qemu-system-aarch64", "qemu-system-arm", "qemu-system-ppc64",
                "qemu-system-riscv64", "qemu-system-s390x",
                reason="a virtual machine", rank=1,
            ),
            claims.runs_on(
                (DIRECTORY, RUN), "virtiofsd", "virtfs-proxy-helper", "swtpm", "lxcfs", "minio", "nbdkit", "qemu-nbd",
                reason="a helper of an instance", rank=3,
            ),
            claims.in_unit("started by one of Incus' units", rank=3),
            tied_process,
        ),
        "cgroup": (
            claims.holds_proven(PAYLOAD, "a container's cgroup"),
            claims.holds_proven(MONITOR, "the cgroup of a container's monitor"),
            empty_cgroup,
        ),
        "netns": (claims.netns_of_processes("a container's network namespace"),),
        "mount": (claims.mounted_at(DIRECTORY, *MOUNTED, reason="a mount of Incus"),),
        "nft": (nft_table,),
        "xtables": (xtables_rule,),
        "link": (lent_link, bridge, bridge_child, vlan, running_nic, veth, stranded, tap, parent, foreign_port),
        "loop": (claims.backed_below(f"{DIRECTORY}/disks", "the device of a storage pool"),),
        "pool": (claims.pool_on_loops(f"{DIRECTORY}/disks", "a storage pool"),),
        "apparmor": (apparmor,),
        "file": (directory, volumes, lock_parents, dnsmasq_directory, disk_source),
        "account": (claims.reported("made by Incus' package"),),
        "sysctl": (claims.reported("Incus sets it; what stood before is not known"),),
    },
)  # fmt: skip
