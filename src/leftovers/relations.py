"""What hangs together on a host: from an object towards those that it lives for, and back to what lives by it.

`leads` is the way to an owner: a veth's other end, the network namespace that this is in, the processes and the pins
that keep that alive, the cgroup of a process, its parent. Each step is one that the kernel tells; a name or an age is
none. What only stands beside (the bridge that a link is a port of) leads nowhere: a port on somebody's bridge need not
be his. `dependants` is the other direction, and has these besides: whatever would notice if the object went.

Pure: it looks at nothing but what was listed, knows kinds and no product. All is looked up in tables that are made once
from one walk over all objects, so that a thousand containers cost a thousand times one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from leftovers.model import Object
from leftovers.mountinfo import below

__all__ = ["PAIRS", "Relations", "Step", "called", "parents", "pinned_netns"]

T = TypeVar("T")
# Links whose other end is a link, too (rtnetlink kinds).
PAIRS = ("veth", "netkit")


@dataclass(frozen=True, slots=True)
class Step:
    """Another object, and what makes it one that this leads to or that depends on it: a piece of a sentence."""

    object: Object
    text: str


Table = Mapping[T, Sequence[Object]]


def called(process: Object) -> str:
    """A process as people name it: its pid, and what it calls itself, else the file that it runs."""
    argv = process.facts.get("argv") or [process.facts.get("exe", "")]
    title = str(argv[0])
    # A title that a program gave itself says most at its end: "[lxc monitor] /var/lib/incus/containers NAME".
    name = title.rpartition(" ")[2] if title.startswith("[") else title.rpartition("/")[2]
    return f"{process.key} ({name[:40]})"


class Relations:
    """The relations between all objects of one look at a host."""

    def __init__(self, listed: Mapping[str, Sequence[Object]]) -> None:
        self.listed = listed
        self.by_id = {obj.id: obj for objects in listed.values() for obj in objects}

    def of(self, kind: str) -> Sequence[Object]:
        return self.listed.get(kind, ())

    # -- tables ------------------------------------------------------------------------------------------------

    @cached_property
    def links(self) -> dict[tuple[int, str], Object]:
        return {(link.facts["netns"], link.facts["name"]): link for link in self.of("link")}

    @cached_property
    def links_in(self) -> Table[int]:
        return table(self.of("link"), lambda link: [link.facts["netns"]])

    @cached_property
    def ports(self) -> Table[tuple[int, str]]:
        return table(self.of("link"), lambda link: [(link.facts["netns"], link.facts["master"])])

    @cached_property
    def upper(self) -> Table[tuple[int, str]]:
        """Links that stand on another one: VLANs, macvlans, tunnels; in whatever namespace."""
        return table(
            (link for link in self.of("link") if link.facts["type"] not in PAIRS and link.facts["peer"]),
            lambda link: [(link.facts["peer_netns"], link.facts["peer"])],
        )

    @cached_property
    def named_by(self) -> Table[str]:
        """Firewall rules, routes and addresses by the link that they name: of the host's namespace, as all of these."""
        found: dict[str, list[Object]] = {}
        for rule in self.of("xtables"):
            for name in dict.fromkeys(rule.facts.get("interfaces", ())):
                found.setdefault(name, []).append(rule)
        for kind in ("route", "address"):
            for obj in self.of(kind):
                found.setdefault(str(obj.facts.get("dev", "")), []).append(obj)
        for rule in self.of("rule"):
            for name in dict.fromkeys((str(rule.facts.get("iif", "")), str(rule.facts.get("oif", "")))):
                found.setdefault(name, []).append(rule)
        for attachment in self.of("bpf"):
            found.setdefault(str(attachment.facts.get("dev", "")), []).append(attachment)
        return found

    @cached_property
    def children(self) -> Table[int]:
        return table(self.of("process"), lambda process: [process.facts["ppid"]])

    @cached_property
    def residents(self) -> Table[str]:
        """Processes by their cgroup, and by all above that."""
        return table(self.of("process"), lambda process: parents(process.facts["cgroup"]))

    @cached_property
    def groups_in(self) -> Table[str]:
        return table(
            (group for group in self.of("cgroup") if not group.facts["hierarchy"] and group.facts["path"] != "/"),
            lambda group: [group.facts["path"].rpartition("/")[0] or "/"],
        )

    @cached_property
    def opened(self) -> Table[int]:
        """Taps by the processes that have them open."""
        return table(self.of("link"), lambda link: link.facts.get("holders", ()))

    @cached_property
    def pins(self) -> dict[str, Object]:
        """The mounts of our own namespace by where they are; of several the last, which is what one sees, and of a pin
        that is mounted twice (ip-netns(8)) the first."""
        found: dict[str, Object] = {}
        for mount in self.of("mount"):
            point = mount.facts["point"]
            if mount.facts["host"] and not (point in found and pinned_netns(mount) == pinned_netns(found[point]) != 0):
                found[point] = mount
        return found

    @cached_property
    def mounted_on(self) -> Table[tuple[int, int]]:
        return table(
            (mount for mount in self.of("mount") if mount.facts["parent"] != mount.facts["id"]),
            lambda mount: [(mount.facts["ns"], mount.facts["parent"])],
        )

    @cached_property
    def mounts_of(self) -> Table[str]:
        """Mounts of our own namespace by file system (major:minor)."""
        return table((m for m in self.of("mount") if m.facts["host"]), lambda mount: [mount.facts["majmin"]])

    @cached_property
    def mounted_from(self) -> Table[str]:
        """Mounts of a device, by its path."""
        return table(self.of("mount"), lambda mount: [mount.facts["source"]])

    @cached_property
    def rooted(self) -> Table[tuple[str, str]]:
        """Processes by what they have for a root: the first of each mount namespace."""
        return table(
            (process for process in self.of("process") if process.facts.get("mount_root")),
            lambda process: [(process.facts["mount_root"][0], process.facts["mount_root"][1])],
        )

    @cached_property
    def in_mntns(self) -> Table[int]:
        return table(self.of("process"), lambda process: [process.facts["mntns"]])

    @cached_property
    def chains(self) -> Table[tuple[str, str, str, str]]:
        """Rules of iptables by the chain that they stand in."""
        return table((r for r in self.of("xtables") if "rule" in r.facts), lambda rule: [chain_of(rule)])

    @cached_property
    def jumps(self) -> Table[tuple[str, str, str, str]]:
        """Rules of iptables by the chain that they lead to."""
        return table(
            (r for r in self.of("xtables") if r.facts.get("target")),
            lambda rule: [(*chain_of(rule)[:3], str(rule.facts["target"]))],
        )

    @cached_property
    def sets(self) -> Table[str]:
        """Rules of iptables by the IP sets that they ask."""
        return table(self.of("xtables"), lambda rule: asked_sets(str(rule.facts.get("rule", ""))))

    @cached_property
    def rules_in(self) -> Table[str]:
        return table(self.of("nftrule"), lambda rule: [f"{rule.facts['family']} {rule.facts['table']}"])

    @cached_property
    def in_table(self) -> Table[int]:
        """Routes and routing rules by table."""
        both = (*self.of("route"), *self.of("rule"))
        return table(both, lambda obj: [obj.facts["table"]] if obj.facts.get("table") else ())

    # -- the way to an owner -----------------------------------------------------------------------------------

    def leads(self, obj: Object) -> list[Step]:
        """What an object lives for, the surest first."""
        lead = LEADS.get(obj.kind)
        return list(lead(self, obj)) if lead else []

    def link_leads(self, obj: Object) -> Iterator[Step]:
        facts = obj.facts
        if not facts["host"]:
            text = f"{facts['name']} is in network namespace {facts['netns']}"
            yield from self.step("netns", str(facts["netns"]), text)
        for pid in facts.get("holders", ()):
            process = self.by_id.get(f"process:{pid}")
            if process is not None:
                yield Step(process, f"pid {called(process)} has {facts['name']} open")
        peer = self.links.get((facts["peer_netns"], facts["peer"])) if facts["type"] in PAIRS else None
        if peer is not None and not peer.facts["host"] and peer.facts["netns"] != facts["netns"]:
            yield Step(peer, f"its other end is {facts['peer']}")

    def netns_leads(self, obj: Object) -> Iterator[Step]:
        if obj.facts["host"]:
            return
        for pid in obj.facts["processes"]:
            process = self.by_id.get(f"process:{pid}")
            if process is not None:
                yield Step(process, f"pid {called(process)} lives in network namespace {obj.key}")
        for pin in obj.facts["pins"]:
            if pin in self.pins:
                yield Step(self.pins[pin], f"network namespace {obj.key} is pinned at {pin}")

    def process_leads(self, obj: Object) -> Iterator[Step]:
        path = obj.facts["cgroup"]
        if path and path != "/":
            yield from self.step("cgroup", path, f"pid {called(obj)} is in cgroup {path}")
        parent = self.by_id.get(f"process:{obj.facts['ppid']}")
        if parent is not None and parent.facts["pid"] != 1:
            yield Step(parent, f"pid {called(obj)} is a child of pid {called(parent)}")

    def cgroup_leads(self, obj: Object) -> Iterator[Step]:
        above = str(obj.facts["path"]).rpartition("/")[0]
        if above and not obj.facts["hierarchy"]:
            yield from self.step("cgroup", above, f"that is in cgroup {above}")

    def mount_leads(self, obj: Object) -> Iterator[Step]:
        facts = obj.facts
        pinned = pinned_netns(obj)
        if pinned:
            yield from self.step("netns", str(pinned), f"it pins network namespace {pinned}")
        if facts["pid"]:
            process = self.by_id.get(f"process:{facts['pid']}")
            if process is not None:
                yield Step(process, f"it is in the mount namespace of pid {called(process)}")
        if facts["pin"] and facts["pin"] in self.pins:
            yield Step(self.pins[facts["pin"]], f"it is in the mount namespace that is pinned at {facts['pin']}")

    def through_link(self, obj: Object) -> Iterator[Step]:
        """Of the host's namespace: a route, an address or a rule goes with the link that it names."""
        facts = obj.facts
        names = facts.get("interfaces") or [facts.get("dev"), facts.get("iif"), facts.get("oif")]
        for name in dict.fromkeys(filter(None, names)):
            link = self.host_link(str(name))
            if link is not None:
                yield Step(link, f"it names link {name}" if "dev" not in facts else f"it is on link {name}")

    def step(self, kind: str, key: str, text: str) -> Iterator[Step]:
        found = self.by_id.get(f"{kind}:{key}")
        if found is not None:
            yield Step(found, text)

    def host_link(self, name: str) -> Object | None:
        found = self.by_id.get(f"link:{name}")
        return found if found is not None and found.facts["host"] else None

    def way(self, obj: Object, ends: Mapping[str, T]) -> tuple[list[Step], T] | None:
        """The shortest way from an object to one of `ends` (by object id), and that end; None if there is none."""
        if obj.id in ends:
            return [], ends[obj.id]
        before: dict[str, tuple[str, Step]] = {}
        line = [obj]
        seen = {obj.id}
        for here in line:
            for step in self.leads(here):
                id = step.object.id
                if id in seen:
                    continue
                seen.add(id)
                before[id] = here.id, step
                if id in ends:
                    steps = []
                    while id != obj.id:
                        id, step = before[id]
                        steps.append(step)
                    return steps[::-1], ends[step_id(steps[0])]
                line.append(step.object)
        return None

    def trail(self, obj: Object) -> list[Step]:
        """The first way that leads anywhere, to its end, for what leads to nobody who is known. It ends at a cgroup:
        what is above that holds half the host."""
        steps: list[Step] = []
        seen = {obj.id}
        while obj.kind != "cgroup":
            step = next((step for step in self.leads(obj) if step.object.id not in seen), None)
            if step is None:
                break
            steps.append(step)
            obj = step.object
            seen.add(obj.id)
        return steps

    def shares(self, ends: Mapping[str, T]) -> dict[str, T]:
        """For every object that leads to one of `ends` the nearest of these, by object id: `way` for all at once."""
        back: dict[str, list[Object]] = {}
        for objects in self.listed.values():
            for obj in objects:
                for step in self.leads(obj):
                    back.setdefault(step.object.id, []).append(obj)
        found = {id: end for id, end in ends.items() if id in self.by_id}
        line = list(found)
        for id in line:
            for obj in back.get(id, ()):
                if obj.id not in found:
                    found[obj.id] = found[id]
                    line.append(obj.id)
        return found

    # -- what lives by it --------------------------------------------------------------------------------------

    def dependants(self, obj: Object) -> list[Step]:
        """What depends on an object, each once."""
        depend = DEPENDANTS.get(obj.kind)
        steps = {step.object.id: step for step in (depend(self, obj) if depend else ())}
        steps.pop(obj.id, None)
        return list(steps.values())

    def link_dependants(self, obj: Object) -> Iterator[Step]:
        facts = obj.facts
        place = (facts["netns"], facts["name"])
        for port in self.ports.get(place, ()):
            yield Step(port, "is a port of it")
        for link in self.upper.get(place, ()):
            yield Step(link, "stands on it")
        peer = self.links.get((facts["peer_netns"], facts["peer"])) if facts["type"] in PAIRS else None
        if peer is not None:
            yield Step(peer, "is its other end and goes with it")
        if facts["host"]:
            for named in self.named_by.get(facts["name"], ()):
                yield Step(named, "names it" if named.kind in ("xtables", "rule") else "is on it")

    def netns_dependants(self, obj: Object) -> Iterator[Step]:
        if obj.facts["host"]:
            return
        for pid in obj.facts["processes"]:
            yield from self.step("process", str(pid), "lives in it")
        for pin in obj.facts["pins"]:
            if pin in self.pins:
                yield Step(self.pins[pin], "pins it")
        for link in self.links_in.get(obj.facts["inode"], ()):
            if link.facts["type"] != "loopback":
                yield Step(link, "is in it")

    def process_dependants(self, obj: Object) -> Iterator[Step]:
        for child in self.children.get(obj.facts["pid"], ()):
            yield Step(child, "is a child of it")
        for tap in self.opened.get(obj.facts["pid"], ()):
            yield Step(tap, "is held open by it")
        netns = self.by_id.get(f"netns:{obj.facts['netns']}")
        if netns is not None and not netns.facts["host"] and netns.facts["processes"] == [obj.facts["pid"]]:
            yield Step(netns, "has no other process")

    def cgroup_dependants(self, obj: Object) -> Iterator[Step]:
        if obj.facts["hierarchy"]:
            return
        for process in self.residents.get(obj.facts["path"], ()):
            yield Step(process, "is in it" if process.facts["cgroup"] == obj.facts["path"] else "is below it")
        for group in self.groups_in.get(obj.facts["path"], ()):
            yield Step(group, "is in it")

    def unit_dependants(self, obj: Object) -> Iterator[Step]:
        if obj.facts["cgroup"] not in ("", "/"):
            for process in self.residents.get(obj.facts["cgroup"], ()):
                yield Step(process, "runs in it")

    def mount_dependants(self, obj: Object) -> Iterator[Step]:
        facts = obj.facts
        line = [(facts["ns"], facts["id"])]
        for place in line:
            for mount in self.mounted_on.get(place, ()):
                yield Step(mount, "is mounted on it" if place == line[0] else "is mounted below it")
                line.append((mount.facts["ns"], mount.facts["id"]))
        for process in self.rooted.get((facts["majmin"], facts["root"]), ()) if facts["point"] != "/" else ():
            yield Step(process, "has it for its root")
        if facts["host"] and facts["point"] != "/":
            for mount in self.mounts_of.get(facts["majmin"], ()):
                if below(mount.facts["root"], facts["root"]):
                    yield Step(mount, "shows the same file system, or a part of it")
            for loop in self.of("loop"):
                if below(str(loop.facts["backing_file"]), facts["point"]):
                    yield Step(loop, "has its file there")

    def loop_dependants(self, obj: Object) -> Iterator[Step]:
        device = str(obj.facts["device"])
        for mount in (*self.mounted_from.get(device, ()), *self.mounts_of.get(obj.facts["majmin"], ())):
            yield Step(mount, "is mounted from it")
        for pool in self.of("pool"):
            if device in pool.facts["devices"]:
                yield Step(pool, "stands on it")

    def xtables_dependants(self, obj: Object) -> Iterator[Step]:
        if obj.facts.get("user"):
            chain = chain_of(obj)
            for rule in self.jumps.get(chain, ()):
                yield Step(rule, "leads to it")
            for rule in self.chains.get(chain, ()):
                yield Step(rule, "is in it")

    def ipset_dependants(self, obj: Object) -> Iterator[Step]:
        for rule in self.sets.get(obj.key, ()):
            yield Step(rule, "asks it")

    def nft_dependants(self, obj: Object) -> Iterator[Step]:
        for rule in self.rules_in.get(obj.key, ()):
            yield Step(rule, "is in it")

    def table_dependants(self, obj: Object) -> Iterator[Step]:
        """Of a route, who looks up its table; of a rule, what is in the table. Those that every host has hold what
        every host has."""
        number = obj.facts.get("table", 0)
        for other in self.in_table.get(number, ()) if number not in (0, 253, 254, 255) else ():
            if other.kind != obj.kind:
                yield Step(other, "looks up its table" if other.kind == "rule" else "is in its table")

    def file_dependants(self, obj: Object) -> Iterator[Step]:
        for point in obj.facts.get("mounts", ()):
            if point in self.pins:
                yield Step(self.pins[point], "is mounted below it")
        if obj.facts.get("mounted") and obj.facts["path"] in self.pins:
            yield Step(self.pins[obj.facts["path"]], "is mounted there")
        for loop in self.of("loop"):
            if below(str(loop.facts["backing_file"]), obj.facts["path"]):
                yield Step(loop, "has its file there")

    def apparmor_dependants(self, obj: Object) -> Iterator[Step]:
        for pid in obj.facts.get("processes", ()):
            yield from self.step("process", str(pid), "is confined by it")

    def ovs_dependants(self, obj: Object) -> Iterator[Step]:
        for port in self.of("ovs"):
            if obj.facts["what"] == "bridge" and port.facts["what"] == "port" and port.facts["bridge"] == obj.key[7:]:
                yield Step(port, "is a port of it")


def table(objects: Iterable[Object], keys: Callable[[Object], Iterable[T]]) -> dict[T, list[Object]]:
    found: dict[T, list[Object]] = {}
    for obj in objects:
        for key in keys(obj):
            found.setdefault(key, []).append(obj)
    return found


def parents(path: str) -> Iterator[str]:
    """A cgroup's path and all above it but the root."""
    while path and path != "/":
        yield path
        path = path.rpartition("/")[0]


def chain_of(rule: Object) -> tuple[str, str, str, str]:
    facts = rule.facts
    return str(facts["family"]), str(facts["backend"]), str(facts["table"]), str(facts["chain"])


def asked_sets(rule: str) -> list[str]:
    words = rule.split()
    return [after for word, after in zip(words, words[1:]) if word == "--match-set"]  # noqa: B905 - the last has none


def pinned_netns(mount: Object) -> int:
    """The network namespace that a mount pins, 0 if it pins none (nsfs(5): "net:[INODE]")."""
    root = str(mount.facts["root"])
    if mount.facts["fstype"] != "nsfs" or not root.startswith("net:[") or not root[5:-1].isdigit():
        return 0
    return int(root[5:-1])


def step_id(step: Step) -> str:
    return step.object.id


Walk = Callable[[Relations, Object], Iterator[Step]]
LEADS: Mapping[str, Walk] = {
    "link": Relations.link_leads,
    "netns": Relations.netns_leads,
    "process": Relations.process_leads,
    "cgroup": Relations.cgroup_leads,
    "mount": Relations.mount_leads,
    "route": Relations.through_link,
    "address": Relations.through_link,
    "xtables": Relations.through_link,
    "rule": Relations.through_link,
}
DEPENDANTS: Mapping[str, Walk] = {
    "link": Relations.link_dependants,
    "netns": Relations.netns_dependants,
    "process": Relations.process_dependants,
    "cgroup": Relations.cgroup_dependants,
    "unit": Relations.unit_dependants,
    "mount": Relations.mount_dependants,
    "loop": Relations.loop_dependants,
    "xtables": Relations.xtables_dependants,
    "ipset": Relations.ipset_dependants,
    "nft": Relations.nft_dependants,
    "route": Relations.table_dependants,
    "rule": Relations.table_dependants,
    "file": Relations.file_dependants,
    "apparmor": Relations.apparmor_dependants,
    "ovs": Relations.ovs_dependants,
}
