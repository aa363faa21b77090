"""What leads to what, and what lives by what: on literal objects, with those beside them that lead nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from leftovers.model import Object
from leftovers.relations import Relations, called

HOME = 1
CGROUP = "/system.slice/docker-aa.scope"


class Things:
    """A host made of literal objects."""

    def __init__(self) -> None:
        self.listed: dict[str, list[Object]] = {}

    def add(self, kind: str, key: str, /, **facts: Any) -> Object:
        obj = Object(kind, key, (key,), facts)
        self.listed.setdefault(kind, []).append(obj)
        return obj

    def link(self, name: str, type: str = "veth", netns: int = HOME, **facts: Any) -> Object:
        known = {
            "index": len(self.listed.get("link", ())) + 2, "up": True, "address": "", "addresses": [], "mtu": 1500,
            "group": 0, "master": "", "peer": "", "peer_index": 0, "peer_netns": 0, "vlan": 0, "pid": 0, **facts,
        }  # fmt: skip
        key = name if netns == HOME else f"{netns}/{name}"
        return self.add("link", key, name=name, type=type, netns=netns, host=netns == HOME, **known)

    def netns(self, inode: int, *processes: int, pins: tuple[str, ...] = ()) -> Object:
        facts = {"inode": inode, "host": inode == HOME, "processes": list(processes), "pins": list(pins)}
        return self.add("netns", str(inode), **facts)

    def process(
        self, pid: int, *argv: str, ppid: int = 1, cgroup: str = "/", netns: int = HOME, **facts: Any
    ) -> Object:
        known = {
            "start": 9, "exe": argv[0] if argv else "/bin/sleep", "uid": 0, "pidns": 1, "mntns": 1, "nested": False,
            "our_net": netns == HOME, "our_mnt": True, "self": False, **facts,
        }  # fmt: skip
        return self.add("process", str(pid), pid=pid, ppid=ppid, argv=list(argv), cgroup=cgroup, netns=netns, **known)

    def cgroup(self, path: str, hierarchy: str = "") -> Object:
        key = f"{hierarchy}:{path}" if hierarchy else path
        facts = {"path": path, "directory": f"/sys/fs/cgroup{path}", "hierarchy": hierarchy, "populated": True}
        return self.add("cgroup", key, **facts)

    def mount(self, point: str, root: str = "/", fstype: str = "tmpfs", ns: int = HOME, **facts: Any) -> Object:
        known = {
            "id": 100 + len(self.listed.get("mount", ())), "parent": 1, "majmin": "0:50", "source": fstype,
            "options": "rw", "shared": 0, "master": 0, "pid": 0, "pin": "", "configured": "", **facts,
        }  # fmt: skip
        key = point if ns == HOME else f"{ns}{point}"
        return self.add("mount", key, point=point, root=root, fstype=fstype, ns=ns, host=ns == HOME, **known)

    def pair(self, name: str, inside: str, netns: int) -> tuple[Object, Object]:
        """A veth pair from the host into a network namespace."""
        outer = self.link(name, peer=inside, peer_netns=netns, peer_index=2)
        return outer, self.link(inside, netns=netns, peer=name, peer_netns=HOME, peer_index=3, address="aa")

    def container(self, number: int = 1, netns: int = 77, pins: tuple[str, ...] = ()) -> str:
        """A running container with a network of its own; the id of its cgroup."""
        group = f"/system.slice/docker-{number}.scope"
        self.cgroup(group)
        self.process(1000 + number, "nginx", cgroup=group, netns=netns, nested=True)
        self.netns(netns, 1000 + number, pins=pins)
        for pin in pins:
            self.mount(pin, f"net:[{netns}]", "nsfs")
        self.pair(f"veth{number}", "eth0", netns)
        return f"cgroup:{group}"

    def relations(self) -> Relations:
        return Relations(self.listed)


@pytest.fixture
def host() -> Things:
    things = Things()
    things.netns(HOME, 1)
    things.process(1, "/sbin/init", ppid=0, cgroup="/init.scope")
    things.cgroup("/")
    things.cgroup("/system.slice")
    return things


def way(host: Things, obj: Object, *ends: str) -> list[str]:
    found = host.relations().way(obj, {end: end for end in ends})
    return [f"{step.object.id} {step.text}" for step in found[0]] if found else []


def test_a_veth_is_tied_through_its_other_end_the_namespace_the_process_and_its_cgroup(host: Things) -> None:
    end = host.container()
    (link,) = [link for link in host.listed["link"] if link.key == "veth1"]
    assert way(host, link, end) == [
        "link:77/eth0 its other end is eth0",
        "netns:77 eth0 is in network namespace 77",
        "process:1001 pid 1001 (nginx) lives in network namespace 77",
        f"{end} pid 1001 (nginx) is in cgroup /system.slice/docker-1.scope",
    ]


def test_the_host_s_end_is_not_what_the_other_lives_for(host: Things) -> None:
    host.container()
    (inner,) = [link for link in host.listed["link"] if link.key == "77/eth0"]
    assert [step.object.id for step in host.relations().leads(inner)] == ["netns:77"]


def test_and_through_a_pin_where_no_process_lives(host: Things) -> None:
    host.netns(88, pins=("/run/netns/cni-1",))
    pin = host.mount("/run/netns/cni-1", "net:[88]", "nsfs")
    link, _ = host.pair("veth8", "eth0", 88)
    assert way(host, link, pin.id)[-1] == f"{pin.id} network namespace 88 is pinned at /run/netns/cni-1"
    assert way(host, pin, "netns:88") == ["netns:88 it pins network namespace 88"]


def test_a_name_an_age_and_a_neighbour_lead_nowhere(host: Things) -> None:
    end = host.container()
    bridge = host.link("docker0", "bridge")
    port = host.link("vethdead", master="docker0", peer="vethbeef", peer_netns=HOME)
    other = host.link("vethbeef", peer="vethdead", peer_netns=HOME)
    lost = host.link("veth1a", peer_index=2)
    tap = host.link("tap0", "tun", holders=[], master="docker0")
    for obj in (bridge, port, other, lost, tap):
        assert way(host, obj, end, bridge.id) in ([], None) or obj is bridge
        assert host.relations().leads(obj) == []


def test_who_only_entered_a_container_s_network_namespace_is_not_its_own(host: Things) -> None:
    end = host.container()
    spy = host.process(3000, "tcpdump", netns=77, cgroup="/user.slice")
    host.cgroup("/user.slice")
    host.listed["netns"][-1].facts["processes"].append(3000)
    assert way(host, spy, end) == []
    assert way(host, host.listed["netns"][-1], end), "its own process still leads there"


def test_a_process_leads_to_its_cgroup_and_to_its_parent_but_not_to_init(host: Things) -> None:
    shim = host.process(50, "/usr/bin/containerd-shim-runc-v2", cgroup="/system.slice/x.service")
    child = host.process(51, "app", ppid=50)
    assert way(host, child, "process:50") == ["process:50 pid 51 (app) is a child of pid 50 (containerd-shim-runc-v2)"]
    assert host.relations().leads(shim) == []
    nested = host.process(52, "app", cgroup="/system.slice/x/y")
    host.cgroup("/system.slice/x")
    host.cgroup("/system.slice/x/y")
    assert way(host, nested, "cgroup:/system.slice/x")[-1] == "cgroup:/system.slice/x that is in cgroup /system.slice/x"


def test_a_tap_leads_to_who_has_it_open_and_a_macvlan_to_its_namespace(host: Things) -> None:
    host.process(60, "/usr/bin/qemu-system-x86_64")
    tap = host.link("tap0", "tun", holders=[60])
    assert way(host, tap, "process:60") == ["process:60 pid 60 (qemu-system-x86_64) has tap0 open"]
    host.link("br-lan", "bridge")
    host.netns(99)
    macvlan = host.link("eth0", "macvlan", netns=99, peer="br-lan", peer_netns=HOME)
    assert way(host, macvlan, "link:br-lan") == []
    assert way(host, macvlan, "netns:99") == ["netns:99 eth0 is in network namespace 99"]


def test_routes_addresses_and_rules_lead_to_the_link_that_they_name(host: Things) -> None:
    end = host.container()
    route = host.add("route", "ip table 254 10.1.1.2/32", dev="veth1", table=254, type="unicast")
    rule = host.add(
        "xtables", "-A F -i veth1", family="ip", backend="nft", table="filter", chain="F", target="ACCEPT",
        rule="-i veth1 -j ACCEPT", comment="", interfaces=["veth1"], macs=[],
    )  # fmt: skip
    assert way(host, route, end)[0] == "link:veth1 it is on link veth1"
    assert way(host, rule, end)[0] == "link:veth1 it names link veth1"
    wild = Object("xtables", "w", ("w",), {**rule.facts, "interfaces": ["veth+"]})
    assert host.relations().leads(wild) == []
    # Of a link in another namespace the host's rules know nothing.
    inside = Object("xtables", "i", ("i",), {**rule.facts, "interfaces": ["eth0"]})
    assert host.relations().leads(inside) == []


def test_the_host_s_own_namespace_and_pids_that_are_gone_lead_nowhere(host: Things) -> None:
    assert host.relations().leads(host.listed["netns"][0]) == []
    gone = host.netns(66, 4242, pins=("/run/netns/gone",))
    assert host.relations().leads(gone) == []


def test_a_circle_ends() -> None:
    things = Things()
    things.process(10, "a", ppid=11)
    things.process(11, "b", ppid=10)
    relations = things.relations()
    assert relations.way(things.listed["process"][0], {"cgroup:/x": 1}) is None
    assert [step.object.key for step in relations.trail(things.listed["process"][0])] == ["11"]


def test_the_trail_of_what_leads_to_nobody_ends_at_a_cgroup(host: Things) -> None:
    host.container()
    (link,) = [link for link in host.listed["link"] if link.key == "veth1"]
    kinds = [step.object.kind for step in host.relations().trail(link)]
    assert kinds == ["link", "netns", "process", "cgroup"]


def test_shares_are_the_ways_of_all_at_once(host: Things) -> None:
    ends = {host.container(number, 70 + number): number for number in range(1, 6)}
    host.link("vethdead", peer="vethbeef", peer_netns=HOME)
    relations = host.relations()
    shares = relations.shares(ends)
    for objects in host.listed.values():
        for obj in objects:
            found = relations.way(obj, ends)
            assert shares.get(obj.id) == (found[1] if found else None), obj.id
    assert {shares[f"link:veth{number}"] for number in range(1, 6)} == set(range(1, 6))
    assert "link:vethdead" not in shares and "netns:1" not in shares


# -- what lives by it ---------------------------------------------------------------------------------------------


def depends(host: Things, obj: Object) -> dict[str, str]:
    return {step.object.id: step.text for step in host.relations().dependants(obj)}


def test_a_bridge_has_ports_and_what_is_named_for_it(host: Things) -> None:
    bridge = host.link("br0", "bridge")
    host.link("veth1", master="br0")
    host.link("veth2", master="br0", netns=77)  # the master of another namespace's link is there
    host.link("br0.7", "vlan", peer="br0", peer_netns=HOME)
    host.link("eth0", "macvlan", netns=77, peer="br0", peer_netns=HOME)
    host.add("route", "r", dev="br0", table=254)
    host.add("xtables", "x", family="ip", backend="nft", table="nat", chain="P", interfaces=["br0"], target="")
    assert depends(host, bridge) == {
        "link:veth1": "is a port of it",
        "link:br0.7": "stands on it",
        "link:77/eth0": "stands on it",
        "route:r": "is on it",
        "xtables:x": "names it",
    }


def test_a_namespace_has_links_processes_and_pins(host: Things) -> None:
    host.container(pins=("/run/docker/netns/1",))
    netns = host.listed["netns"][-1]
    host.link("lo", "loopback", netns=77)
    assert depends(host, netns) == {
        "process:1001": "lives in it",
        "mount:/run/docker/netns/1": "pins it",
        "link:77/eth0": "is in it",
    }
    assert depends(host, host.listed["netns"][0]) == {}, "by the host's own everything lives"


def test_below_a_mount_are_mounts_and_who_stands_on_it(host: Things) -> None:
    top = host.mount("/x", id=10, majmin="0:60")
    host.mount("/x/a", id=11, parent=10)
    host.mount("/x/a/b", id=12, parent=11)
    host.mount("/y", id=13, majmin="0:60", root="/part")
    host.mount("/x/a", id=11, parent=10, ns=5)  # of another namespace: other numbers
    host.process(70, "app", mount_root=["0:60", "/"])
    host.add("loop", "loop1", device="/dev/loop1", backing_file="/x/disk", majmin="7:1", here=True)
    assert depends(host, top) == {
        "mount:/x/a": "is mounted on it",
        "mount:/x/a/b": "is mounted below it",
        "mount:/y": "shows the same file system, or a part of it",
        "process:70": "has it for its root",
        "loop:loop1": "has its file there",
    }


def test_a_chain_has_rules_and_jumps_and_a_set_is_asked(host: Things) -> None:
    where = {"family": "ip", "backend": "nft", "table": "filter"}
    chain = host.add("xtables", "n", **where, chain="C", user=True, references=1, rules=1)
    host.add("xtables", "in", **where, chain="C", rule="-m set --match-set s src -j RETURN", target="RETURN")
    host.add("xtables", "jump", **where, chain="INPUT", rule="-j C", target="C", interfaces=[])
    host.add("xtables", "other", **{**where, "table": "nat"}, chain="C", rule="-j C", target="C")
    sets = host.add("ipset", "s", name="s")
    host.add("ipset", "s2", name="s2")
    assert depends(host, chain) == {"xtables:jump": "leads to it", "xtables:in": "is in it"}
    assert depends(host, sets) == {"xtables:in": "asks it"}


def test_a_loop_device_a_cgroup_a_unit_and_a_process(host: Things) -> None:
    loop = host.add("loop", "loop3", device="/dev/loop3", backing_file="/x", majmin="7:3", here=True)
    host.mount("/mnt/a", source="/dev/loop3", majmin="7:3")
    host.add("pool", "lvm g", devices=["/dev/loop3"])
    assert depends(host, loop) == {"mount:/mnt/a": "is mounted from it", "pool:lvm g": "stands on it"}
    group, inner = host.cgroup("/a"), host.cgroup("/a/b")
    first = host.process(80, "x", cgroup="/a/b", netns=55)
    host.process(81, "y", ppid=80)
    host.netns(55, 80)
    host.link("tap1", "tun", holders=[80])
    assert depends(host, group) == {"process:80": "is below it", inner.id: "is in it"}
    unit = host.add("unit", "a.service", cgroup="/a")
    assert depends(host, unit) == {"process:80": "runs in it"}
    assert depends(host, first) == {
        "process:81": "is a child of it",
        "link:tap1": "is held open by it",
        "netns:55": "has no other process",
    }


def test_a_table_of_routes_of_one_s_own(host: Things) -> None:
    route = host.add("route", "r", dev="x", table=100)
    rule = host.add("rule", "p", table=100, iif="", oif="")
    main = host.add("rule", "m", table=254, iif="", oif="")
    host.add("route", "r2", dev="x", table=254)
    assert depends(host, route) == {"rule:p": "looks up its table"}
    assert depends(host, rule) == {"route:r": "is in its table"}
    assert depends(host, main) == {}


def test_a_title_that_a_process_gave_itself() -> None:
    things = Things()
    assert called(things.process(5, "[lxc monitor] /var/lib/incus/containers c1")) == "5 (c1)"
    assert called(things.process(6, "/usr/sbin/nginx", "-g")) == "6 (nginx)"
    assert called(Object("process", "7", (7,), {"argv": [], "exe": "/bin/x"})) == "7 (x)"
