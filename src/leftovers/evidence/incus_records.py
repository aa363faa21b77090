"""From what Incus says about itself (the REST API's shapes) to Records, the same for every source.

API, backup.yaml and database differ in where a thing stands; devices and config are string maps in all three
(Incus shared/api/{instance,network,storage_pool}.go). Nothing here trusts a type or a name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from leftovers.evidence.files import is_name, note
from leftovers.model import Record

__all__ = ["cluster", "instance", "instance_name", "instance_parts", "network", "pool"]

DEFAULT = "default"
TEXT = 65536  # no value that names a thing of the host is longer
NO_NIC = {"device": "", "nictype": "", "network": "", "parent": "", "vlan": "", "host_name": "", "hwaddr": ""}
RUNNING = ("Running", "Ready", "Frozen", "Freezing", "Thawed")  # it has processes (Incus shared/api/status_code.go)


def instance_name(project: str, name: str) -> str:
    """How an instance is called in paths, cgroups and profiles (Incus internal/server/project/project.go Instance)."""
    return name if project == DEFAULT else f"{project}_{name}"


def instance_parts(name: str) -> tuple[str, str]:
    """Project and instance of such a name: an instance's own name has no "_" (project.go InstanceParts)."""
    project, _, instance = name.rpartition("_")
    return project or DEFAULT, instance


def instance(
    source: str, what: str, data: Mapping[str, Any], faults: list[str], running: bool | None = None
) -> Record | None:
    """An instance as api.Instance has it: name, project, type, ephemeral, expanded_config, expanded_devices.

    `what` names the file or socket in `faults`. None when it has no name that Incus could have given.
    """
    name, project = data.get("name"), data.get("project") or DEFAULT
    if not is_name(name) or not is_name(project) or "_" in str(name):
        note(faults, what, f"an instance has the impossible name {ascii(name)[:80]} in project {ascii(project)[:80]}")
        return None
    config = strings(data.get("expanded_config"))
    devices = {key: strings(value) for key, value in items(data.get("expanded_devices")) if proper_device(key)}
    of_type = {
        wanted: sorted(device for device, keys in devices.items() if keys.get("type") == wanted)
        for wanted in ("nic", "disk", "proxy")
    }
    disks = ({"device": device, **pick(devices[device], "source", "path", "pool")} for device in of_type["disk"])
    facts = {
        "project": text(project),
        "instance": text(name),
        "type": "virtual-machine" if data.get("type") == "virtual-machine" else "container",
        "running": running,
        "ephemeral": data.get("ephemeral") in (True, 1, "true"),
        "uuid": config.get("volatile.uuid", ""),
        "image": config.get("image.description") or config.get("volatile.base_image", "")[:12],
        "created": text(data.get("created_at")),
        "nics": [nic(device, devices[device], config) for device in of_type["nic"]],
        "disks": list(disks),
        "proxies": of_type["proxy"],
    }
    return Record("instance", instance_name(text(project), text(name)), source, facts)


def nic(device: str, keys: Mapping[str, str], config: Mapping[str, str]) -> dict[str, Any]:
    """A nic device with what Incus remembers of it in volatile.<device>.* (internal/server/device/device_common.go)."""
    volatile = f"volatile.{device}."
    state = volatile + "last_state."
    recorded, wished = config.get(volatile + "host_name", ""), keys.get("host_name", "")
    return {
        **NO_NIC,
        "device": device,
        **pick(keys, "nictype", "network", "parent", "vlan"),
        "host_name": recorded or wished,
        # A name that was only wished for may be somebody else's link. A recorded one is a link that Incus made or,
        # for a physical nic, the host's own card, lent to the instance: last_state has what it was like before.
        "host_name_from": "volatile" if recorded else "device" if wished else "",
        "hwaddr": config.get(volatile + "hwaddr") or keys.get("hwaddr", ""),
        "last_state": {key[len(state) :]: value for key, value in sorted(config.items()) if key.startswith(state)},
    }


def network(source: str, what: str, data: Mapping[str, Any], faults: list[str]) -> Record | None:
    """A network as api.Network has it: name, project, type, managed, status, config.

    The daemon lists the host's own links too, with managed=false and types such as "loopback".
    """
    if not is_name(data.get("name")):
        note(faults, what, f"a network has the impossible name {ascii(data.get('name'))[:80]}")
        return None
    config = strings(data.get("config"))
    facts = {
        "project": text(data.get("project")) or DEFAULT,
        "type": text(data.get("type")),
        "managed": data.get("managed") is True,
        # Its number in the database, which the API does not tell (0): it is in the names of what OVN has of it.
        "number": data["number"] if isinstance(data.get("number"), int) else 0,
        "status": text(data.get("status")),
        "config": config,
        # An OVN network's address is its router's, and stands on no link of this host.
        "addresses": addresses(config) if data.get("type") == "bridge" else [],
    }
    return Record("network", text(data["name"]), source, facts)


def addresses(config: Mapping[str, str]) -> list[str]:
    """The bridge's own addresses, without prefix length; "none" and "auto" are none."""
    found = (address(config.get(key, "").partition("/")[0]) for key in ("ipv4.address", "ipv6.address"))
    return [each for each in found if each]


def address(value: str) -> str:
    """An address in its usual spelling, or nothing."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        return ""


def cluster(source: str, own: object, members: list[object]) -> list[Record]:
    """This host's name in a cluster, and those of all members; none where there is nobody else."""
    names = sorted({text(name) for name in members if is_name(name)})
    if len(members) < 2:
        return []
    return [Record("cluster", text(own), source, {"members": names})]


def pool(source: str, what: str, data: Mapping[str, Any], faults: list[str]) -> Record | None:
    """A storage pool as api.StoragePool has it: name, driver, status, config."""
    if not is_name(data.get("name")):
        note(faults, what, f"a storage pool has the impossible name {ascii(data.get('name'))[:80]}")
        return None
    config = strings(data.get("config"))
    facts = {
        "driver": text(data.get("driver")),
        "source": config.get("source", ""),
        "status": text(data.get("status")),
        "config": config,
    }
    return Record("pool", text(data["name"]), source, facts)


def proper_device(name: object) -> bool:
    # A device may have a slash in its name: it is escaped in paths, and only ever compared here.
    return isinstance(name, str) and 0 < len(name) < 256 and name.isprintable()


def pick(keys: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: keys.get(name, "") for name in names}


def items(value: object) -> list[tuple[Any, Any]]:
    """What a mapping holds; nothing when it is none."""
    return list(value.items()) if isinstance(value, dict) else []


def strings(value: object) -> dict[str, str]:
    """A string map as Go would have it: everything else in it is left out."""
    return {
        text(key): text(each)
        for key, each in items(value)
        if isinstance(key, str) and isinstance(each, (str, int)) and not isinstance(each, bool)
    }


def text(value: object) -> str:
    """A string that can be printed and encoded: a lone surrogate ("\\ud800" in JSON) becomes "?"."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return ""
    return str(value)[:TEXT].encode("utf-8", "replace").decode()
