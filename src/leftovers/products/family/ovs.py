"""Which bridges and ports of Open vSwitch are a member's own."""

from __future__ import annotations

import re
import shlex
from typing import Any

from leftovers.claims import Case, Finding
from leftovers.model import Evidence, Object, Record, Role
from leftovers.products.family.names import Names
from leftovers.products.family.network import external, managed_bridge, user_of
from leftovers.products.family.processes import trace
from leftovers.products.family.reading import made, nics_by


def bridge(names: Names, obj: Object, case: Case) -> Finding | None:
    """A managed network with bridge.driver=openvswitch, or the bridge between OVN and a network that it goes out by."""
    if obj.facts["what"] != "bridge":
        return None
    name = str(obj.facts["name"])
    if re.fullmatch(rf"{names.called}ovn[0-9]+", name):
        return uplink(names, name, obj.facts, case)
    return managed_bridge(names, name, obj.facts, case, driver="openvswitch")


def uplink(names: Names, name: str, facts: Any, case: Case) -> Finding | None:
    """By which OVN's networks go out on this host (network/driver_ovn.go, uplinkPortBridgeVars and
    startUplinkPortPhysical). A card of the administrator's on it is only let go of."""
    said = [Evidence("disk", f"ovn-bridge-mappings: {each}:{name}") for each in facts["mapped"][:1]]
    for record in case.records_of("network"):
        way = str(record.facts.get("config", {}).get("network") or "")
        if record.facts.get("type") == "ovn" and way in facts["mapped"]:
            said.append(Evidence(record.source, f"network {record.name} goes out by {way}"))
            return Finding("the way out of OVN networks", tuple(said))
    for each in facts["mapped"]:
        if case.is_proven("link", each):
            said.append(Evidence("kernel", f"{each} is the bridge of a network of {names.title}"))
            return Finding("the way out of OVN networks", tuple(said))
    if not trace(names, case):
        return None
    said.append(Evidence("disk", f"Open vSwitch has {name}, with {', '.join(facts['ports'][:5]) or 'no port'}"))
    return Finding(
        "named like the way out of OVN networks", tuple(said), False, advice=f"ovs-vsctl del-br {shlex.quote(name)}"
    )


def port(names: Names, obj: Object, case: Case) -> Finding | None:
    """An instance's device on anybody's bridge: its link is ours, or gone. What the switch remembers of it then is an
    error for ever (network/network_utils_bridge.go, AttachInterface; device/nic_ovn.go for the iface-id)."""
    facts = obj.facts
    if facts["what"] != "port" or facts["type"]:
        return None
    name = str(facts["name"])
    if facts["here"] and not case.is_proven("link", name):
        return None
    state = f"its link is {names.possessive}" if facts["here"] else "its link is gone"
    said = [Evidence("kernel", state)]
    if re.match(rf"{names.called}-net[0-9]+-instance-", facts["iface_id"]):
        said.append(Evidence("disk", f"OVN knows it as {facts['iface_id'][:120]}"))
        return Finding("an instance's port", tuple(said))
    for record, nic in nics_by(case, "host_name", name):
        on = (nic.get("parent"), nic.get("network"), way_of(case, str(nic.get("network") or "")))
        # A name that a person chose (host_name=) may be somebody else's by now.
        if made(case, nic) and facts["bridge"] in on and (facts["here"] or names.transient.match(name)):
            said.append(Evidence(record.source, f"{record.name} {nic.get('device')}: host_name {name}"))
            return Finding("an instance's port", tuple(said))
    return Finding(f"a port for a link of {names.title}", tuple(said)) if facts["here"] else None


def way_of(case: Case, network: str) -> str:
    """The bridge that a physical network leads to."""
    records = (record for record in case.records_of("network") if record.name == network)
    return next((str(record.facts.get("config", {}).get("parent") or "") for record in records), "")


def used_switch(names: Names, obj: Object, case: Case) -> Finding | None:
    """A bridge that somebody else has a port on: with it all its ports go, and a port of the switch's own kind
    ("internal", a tunnel) ends. Not OVN's patches, nor what the network was told to take."""
    if obj.facts["what"] != "bridge":
        return None
    name = str(obj.facts["name"])
    links = {link.key: link for link in case.objects("link") if link.facts["host"]}
    told = external(case, name) | parents(names, name, case)
    for port in case.objects("ovs"):
        if port.facts["what"] != "port" or port.facts["bridge"] != name or port.facts["type"] == "patch":
            continue
        own, link = str(port.facts["name"]), links.get(str(port.facts["name"]))
        if case.is_proven("ovs", port.key) or case.is_proven("link", own) or own in told:
            continue
        if own.startswith(f"{name}-") and link is not None and link.facts["type"] in ("vxlan", "gretap", "dummy"):
            continue  # a tunnel of the network's
        if port.facts["type"]:
            user = f"{port.facts['type']}, the switch's own"
        else:
            user = user_of(link, case) if link is not None and link.id not in case.elsewhere else ""
        if user:
            said = (Evidence("disk", f"{own} is a port of it: {user}"),)
            free = f"ovs-vsctl del-port {shlex.quote(name)} {shlex.quote(own)} && leftovers clean {names.name}"
            return Finding("somebody else is on it", said, advice=free)
    return None


def parents(names: Names, bridge: str, case: Case) -> set[str]:
    """The cards that OVN's way out of this name was made for."""
    if not re.fullmatch(rf"{names.called}ovn[0-9]+", bridge):
        return set()
    found = set()
    for record in case.records_of("network"):
        config = record.facts.get("config", {})
        if record.facts.get("type") == "physical" and config.get("parent"):
            found |= {str(config["parent"]), f"{config['parent']}.{config.get('vlan')}"}
    return found


def relied(records: tuple[Record, ...]) -> tuple[str, ...]:
    """Whether records speak of a switch."""
    for record in records:
        driver = record.facts.get("config", {}).get("bridge.driver") if record.type == "network" else ""
        if driver == "openvswitch" or (record.type == "network" and record.facts.get("type") == "ovn"):
            return ("ovs",)
    return ()


def uplink_pair(names: Names, obj: Object, case: Case) -> Finding | None:
    """The pair between such a bridge and a bridge of the kernel's (driver_ovn.go, startUplinkPortBridgeNative)."""
    match = re.fullmatch(rf"({names.called}ovn[0-9]+)([ab])", obj.key)
    if match is None or obj.facts["type"] != "veth" or not obj.facts["host"]:
        return None
    other = match[1] + ("b" if match[2] == "a" else "a")
    if obj.facts["peer"] != other:
        return None
    if case.is_proven("ovs", f"bridge {match[1]}") or case.is_proven("link", other):
        return Finding("the way out of OVN networks", (Evidence("disk", f"leads to {match[1]}"),))
    said = Evidence("kernel", f"named for {match[1]}, of which too little is known")
    advice = f"ip link delete {obj.key}"
    return Finding("named like the way out of OVN networks", (said,), False, Role.ADMIN, advice=advice)


RULES = (bridge, port)
