"""What a member leaves on other machines: a cluster that counts this host in, routers of OVN, volumes in Ceph.

Nothing of it can be removed from here once the daemon is gone, and what belongs to a cluster goes on serving the
others: it is told, with the command that a person may want.
"""

from __future__ import annotations

import re
import shlex

from leftovers.claims import Case, Finding
from leftovers.model import Evidence, Object, Presence, Record, Role
from leftovers.products.family.names import Names
from leftovers.products.family.processes import other_liblxc

# Drivers whose volumes are not on this host's disks (storage/drivers/load.go of Incus 7, LXD 5.0 and 6).
REMOTE = ("ceph", "cephfs", "cephobject", "linstor", "truenas", "lvmcluster", "powerflex", "pure", "alletra")
# Those whose volumes are images of RADOS block devices.
CEPH = "ceph"
IMAGES = "^(zombie_)?(container|virtual-machine|custom|image)_"


def texts(names: Names, records: tuple[Record, ...]) -> tuple[str, ...]:
    """What is to be listed: Scope.elsewhere."""
    return tuple(stated(names, records))


def told(names: Names, obj: Object, case: Case) -> Finding | None:
    """One of these."""
    return stated(names, case.records, case.presence is Presence.INSTALLED).get(obj.facts["text"])


def stated(names: Names, records: tuple[Record, ...], installed: bool = False) -> dict[str, Finding]:
    """Each thing on other machines, in a person's words, and what is said of it. While the product is installed, its
    own commands are better than any other."""
    clusters = [record for record in records if record.type == "cluster"]
    if clusters:
        # Networks and pools are the cluster's: they do not end with one member.
        return member(names, clusters[0], installed)
    found: dict[str, Finding] = {}
    numbered: dict[str, object] = {}
    for record in records:
        if record.type == "network" and record.facts.get("managed") and record.facts.get("type") == "ovn":
            text = f"OVN network {title(record)}"
            # Of the best source; one that does not tell its number says less than a later one that does.
            if text not in found or (record.facts.get("number") and not numbered.get(text)):
                found[text], numbered[text] = network(names, record, installed), record.facts.get("number")
        elif record.type == "pool" and record.facts.get("driver") in REMOTE:
            found.setdefault(f"storage pool {record.name} ({record.facts['driver']})", pool(record))
    return found


def member(names: Names, record: Record, installed: bool) -> dict[str, Finding]:
    members = [str(name) for name in record.facts.get("members", ())]
    own = record.name if record.name in members else ""
    wanted = f"{names.client} cluster remove {shlex.quote(own) if own else 'MEMBER'}"
    advice = f"first: {wanted}" if installed else f"on another member: {wanted} --force"
    reason = f"counts this host as its member {own}" if own else "counts this host as a member"
    said = Evidence(record.source, f"members {', '.join(members)[:200]}")
    finding = Finding(reason, (said,), role=Role.SYSTEM, advice=advice)
    return {f"{names.title} cluster of {', '.join(members)[:200]}": finding}


def title(record: Record) -> str:
    project = str(record.facts.get("project") or "default")
    return record.name if project == "default" else f"{project}/{record.name}"


def network(names: Names, record: Record, installed: bool) -> Finding:
    """All that OVN has of a network by names that no other network shares (network/driver_ovn.go, getNetworkPrefix,
    getRouterName, getExtSwitchName, ensureNetworkPortGroup; network/ovn/ovn_nb_actions.go, ovnExtIDIncusSwitch)."""
    said = Evidence(record.source, f"network {title(record)} is of type ovn")
    number = int(record.facts.get("number") or 0)
    if installed:
        project = shlex.quote(str(record.facts.get("project") or "default"))
        advice = f"first: {names.client} network delete {shlex.quote(record.name)} --project {project}"
    elif number > 0:
        advice = without(names.called, number)
    else:
        advice = f"ovn-nbctl show (look for {names.called}-netN-lr)"
    return Finding(
        "its router and switches are in the OVN database that it used", (said,), role=Role.SYSTEM, advice=advice
    )


def without(name: str, number: int) -> str:
    """The command that takes a network out of OVN's database."""
    prefix, group = f"{name}-net{number}", f"{name}_net{number}"
    switches = [f"lr-del {prefix}-lr", f"ls-del {prefix}-ls-ext", f"ls-del {prefix}-ls-int"]
    # Afterwards: the router's ports refer to the group until they are gone.
    groups = [f"destroy HA_Chassis_Group {prefix}", f"destroy Port_Group {group}"]
    groups += [f"destroy Address_Set {group}_routes_ip{version}" for version in (4, 6)]
    return (
        f"ovn-nbctl --if-exists {' -- --if-exists '.join(switches)}; "
        f"ovn-nbctl --if-exists {' -- --if-exists '.join(groups)}; for t in DHCP_Options DNS; do ovn-nbctl --bare "
        f"--columns=_uuid find $t external_ids:{name}_switch={prefix}-ls-int | xargs -r ovn-nbctl destroy $t; done"
    )


def pool(record: Record) -> Finding:
    driver, name = str(record.facts["driver"]), osd_pool(record)
    said = Evidence(record.source, f"pool {record.name}: driver {driver}, source {record.facts.get('source') or '?'}")
    advice = f"rbd ls {shlex.quote(name)} | grep -E {shlex.quote(IMAGES)}" if driver == CEPH and name else ""
    reason = "its volumes are not on this host, and stay: they may be another's by now"
    return Finding(reason, (said,), role=Role.SYSTEM, advice=advice)


def osd_pool(record: Record) -> str:
    """What Ceph calls a pool (storage/drivers/driver_ceph.go, FillConfig)."""
    config = record.facts.get("config", {})
    return str(config.get("ceph.osd.pool_name") or record.facts.get("source") or "")


def mapped(names: Names, obj: Object, case: Case) -> Finding | None:
    """An image of a pool of ours that the kernel still has as a device (storage/drivers/driver_ceph_utils.go,
    getRBDVolumeName). It is told and not unmapped: another client of the pool may have mapped it here."""
    for record in case.records_of("pool"):
        if record.facts.get("driver") == CEPH and osd_pool(record) == obj.facts["pool"]:
            if not re.match(IMAGES, obj.facts["image"]):
                continue
            said = Evidence(record.source, f"pool {record.name} has its volumes in {obj.facts['pool']}")
            image = Evidence("kernel", f"{obj.key} is {obj.facts['pool']}/{obj.facts['image']}")
            advice = f"rbd unmap {obj.key}"
            # lxd-to-incus leaves them in use, under the same names.
            role = Role.ADMIN if other_liblxc(names, case) else Role.LIVE
            reason = f"a volume of {names.title} that is mapped here"
            return Finding(reason, (image, said), False, role, advice=advice)
    return None
