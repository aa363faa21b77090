"""What a report tells a person to type does what it says and nothing else, whatever things are called."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

import pytest

from leftovers.claims import Case, Finding, backed_below, mounted_at, netns_of_processes
from leftovers.model import Claim, Evidence, Object, Presence, Record, Role
from leftovers.products.family import files as directories
from leftovers.products.family import firewall, network, processes
from leftovers.products.incus import NAMES

EVIL = "x$(reboot)`reboot` ;reboot #'\"\\"
LINK: dict[str, Any] = {
    "host": True, "netns": 1, "type": "bridge", "master": "", "address": "", "addresses": [], "peer": "",
    "peer_netns": 0, "peer_address": "", "up": True, "vlan": 0, "mtu": 1500,
}  # fmt: skip
RULE: dict[str, Any] = {
    "family": "ip", "backend": "nft", "table": "filter", "chain": "incus_nic_x", "target": "", "comment": "",
    "rule": r'-s 10.0.0.1/32 -m comment --comment "x$(reboot)`reboot` ;reboot #\'\"\\" -j ACCEPT',
}  # fmt: skip


def obj(kind: str, key: str = EVIL, **facts: Any) -> Object:
    return Object(kind, key, (key,), facts)


def case(*objects: Object, records: tuple[Record, ...] = (), been: bool = True) -> Case:
    listed: dict[str, tuple[Object, ...]] = {}
    for each in objects:
        listed[each.kind] = (*listed.get(each.kind, ()), each)
    return Case("incus", Presence.ABSENT, listed, records, been=been)


def proven(of: Case, what: Object) -> Case:
    of.add(Claim("incus", what, Role.LIVE, True, "", (Evidence("kernel", ""),)))
    return of


def network_of(name: str, **config: str) -> Record:
    return Record("network", name, "database", {"managed": True, "type": "bridge", "config": config})


def a_bridge() -> Finding | None:
    return network.bridge(NAMES, obj("link", **LINK), case(records=(network_of(EVIL),)))


def a_switch() -> Finding | None:
    records = (network_of(EVIL, **{"bridge.driver": "openvswitch"}),)
    return network.managed_bridge(NAMES, EVIL, LINK, case(records=records), driver="openvswitch")


def a_tunnel() -> Finding | None:
    bridge = obj("link", "br", **LINK)
    tunnel = obj("link", f"br-{EVIL}", **{**LINK, "type": "vxlan", "master": "br"})
    return network.bridge_child(NAMES, tunnel, proven(case(), bridge))


def a_vlan() -> Finding | None:
    config = {"parent": "eth0", "vlan": "5", "volatile.last_state.created": "true"}
    vlan = obj("link", **{**LINK, "type": "vlan", "peer": "eth0", "vlan": 5})
    return network.vlan(NAMES, vlan, case(records=(network_of("n", **config),)))


def a_port() -> Finding | None:
    bridge = obj("link", "br", **LINK)
    return network.used_bridge(NAMES, bridge, case(bridge, obj("link", **{**LINK, "type": "", "master": "br"})))


def on_a_bridge() -> Finding | None:
    bridge = obj("link", "br", **LINK)
    above = obj("link", **{**LINK, "type": "vlan", "peer": "br", "peer_netns": 1})
    return network.used_bridge(NAMES, bridge, case(bridge, above))


def a_rule() -> Finding | None:
    return firewall.chain(NAMES, obj("xtables", **RULE), case())


def a_chain() -> Finding | None:
    chain = obj("xtables", **{**RULE, "chain": f"incus_{EVIL}", "user": True})
    return Finding("", (), advice=firewall.command(chain))


def a_jump() -> Finding | None:
    chain = obj("xtables", "chain", **{**RULE, "chain": "c", "user": True})
    rule = obj("xtables", **{**RULE, "chain": "FORWARD", "target": "c"})
    return firewall.used_chain(NAMES, chain, case(chain, rule))


def a_directory() -> Finding | None:
    record = Record("pool", "p", "database", {"driver": "dir", "source": f"/{EVIL}", "config": {"source": f"/{EVIL}"}})
    volume = obj("file", f"/{EVIL}/containers", type="directory")
    return directories.volumes(NAMES, volume, case(records=(record,)))


def a_mount() -> Finding | None:
    mount = obj("mount", point=f"/var/lib/incus/{EVIL}", configured="", fstype="ext4", source="")
    return mounted_at("/var/lib/incus", reason="")(mount, case())


def a_loop() -> Finding | None:
    loop = obj("loop", backing_file="/var/lib/incus/disks/x", device=f"/dev/{EVIL}", here=False, majmin="7:1")
    return backed_below("/var/lib/incus", "/disks", "")(loop, case())


def a_pin() -> Finding | None:
    space = obj("netns", inode=5, host=False, processes=[], pins=[f"/run/netns/{EVIL}"])
    of = case()
    of.recalled = {space.id: Claim("incus", space, Role.LIVE, True, "", (Evidence("ledger", ""),))}
    return netns_of_processes("")(space, of)


def a_container() -> Finding | None:
    path = f"/lxc.payload.{EVIL}"
    inside = obj("process", "7", nested=True, cgroup=path, pid=7, ppid=1, argv=["init"])
    group = obj("cgroup", path, path=path, directory=f"/sys/fs/cgroup{path}")
    return processes.unknown_container(NAMES, group, case(inside))


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (a_bridge, ["ip", "link", "delete", EVIL]),
        (a_switch, ["ovs-vsctl", "del-br", EVIL]),
        (a_tunnel, ["ip", "link", "delete", f"br-{EVIL}"]),
        (a_vlan, ["ip", "link", "delete", EVIL]),
        (a_port, ["ip", "link", "set", EVIL, "nomaster", "&&", "leftovers", "clean", "incus"]),
        (on_a_bridge, ["ip", "link", "delete", EVIL, "&&", "leftovers", "clean", "incus"]),
        (
            a_rule,
            ["iptables-nft", "-t", "filter", "-D", "incus_nic_x", "-s", "10.0.0.1/32"]
            + ["-m", "comment", "--comment", EVIL, "-j", "ACCEPT"],
        ),
        (
            a_chain,
            ["iptables-nft", "-t", "filter", "-F", f"incus_{EVIL}", "&&"]
            + ["iptables-nft", "-t", "filter", "-X", f"incus_{EVIL}"],
        ),
        (
            a_jump,
            ["iptables-nft", "-t", "filter", "-D", "FORWARD", "-s", "10.0.0.1/32"]
            + ["-m", "comment", "--comment", EVIL, "-j", "ACCEPT", "&&", "leftovers", "clean", "incus"],
        ),
        (a_directory, ["rm", "-r", f"/{EVIL}/containers"]),
        (a_mount, ["umount", f"/var/lib/incus/{EVIL}"]),
        (a_loop, ["losetup", "-d", f"/dev/{EVIL}"]),
        (a_pin, ["umount", f"/run/netns/{EVIL}"]),
        (a_container, ["echo", "1", ">", f"/sys/fs/cgroup/lxc.payload.{EVIL}/cgroup.kill"]),
    ],
)
def test_a_name_is_one_word_to_a_shell(told: Callable[[], Finding | None], wanted: list[str]) -> None:
    finding = told()
    assert finding is not None
    assert shlex.split(finding.advice) == wanted
    # And literal: nothing in it would be expanded. Single quotes are all that shlex puts around a word.
    assert shlex.join(wanted).replace("'&&'", "&&").replace("'>'", ">") == finding.advice
