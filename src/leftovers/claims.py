"""Whose is it? Rules that tie an object to a product by evidence, and the rounds in which they are asked.

A rule looks at one object and at what is already proven, and returns a Finding or None. Proof spreads along
relations (a monitor's child, that child's cgroup, all processes in that cgroup, the network namespace they live in,
the veth that leads there), so the rules are asked again until nothing new is proven.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from shlex import quote
from typing import Any

from leftovers.model import Claim, Evidence, Object, Presence, Record, Role
from leftovers.mountinfo import Mount, below, place

__all__ = ["Case", "Finding", "Rule", "attribute"]

# More rounds than any chain of relations is long; each round must prove something new, so it ends earlier.
ROUNDS = 12
# Between a claim's reason and why its object is held all the same.
HELD = "; held: "


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule's answer. `facts` is added to the object's own, for the kind that will act on it."""

    reason: str
    evidence: tuple[Evidence, ...]
    proven: bool = True
    role: Role = Role.LIVE
    rank: int = 0
    advice: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Case:
    """All that a product's rules may look at. `elsewhere` holds what products asked before take with them."""

    product: str
    presence: Presence
    listed: Mapping[str, tuple[Object, ...]]
    records: tuple[Record, ...] = ()
    elsewhere: Mapping[str, Claim] = field(default_factory=dict)
    # What the ledger holds for objects that are still exactly what they were.
    recalled: Mapping[str, Claim] = field(default_factory=dict)
    been: bool = False  # the ledger says that the product has been on this host
    # In a deep look, what the sources said when all had been listed. What came while it was listed is in here, and what
    # went is in `records`: who says that nobody has a thing must look at both.
    later: tuple[Record, ...] = ()
    claims: dict[str, Claim] = field(default_factory=dict)
    # Proven objects by kind, kept beside `claims` because rules ask for them all the time.
    _proven: dict[str, dict[str, Object]] = field(default_factory=dict)
    _cache: dict[str, Any] = field(default_factory=dict)
    # Where proven processes live: (cgroup | mntns | netns, value) to one pid. Asked for every object on the host,
    # so a search through all processes each time would cost the square of a thousand containers.
    _lives: dict[tuple[str, str | int], str] = field(default_factory=dict)

    def objects(self, kind: str) -> tuple[Object, ...]:
        return self.listed.get(kind, ())

    def proven(self, kind: str) -> Iterable[Object]:
        """The objects of a kind that are already proven this product's own."""
        return self._proven.get(kind, {}).values()

    def is_proven(self, kind: str, key: str) -> bool:
        return key in self._proven.get(kind, {})

    def add(self, claim: Claim) -> None:
        self.claims[claim.object.id] = claim
        if claim.proven and claim.role in (Role.LIVE, Role.DATA):
            self._proven.setdefault(claim.object.kind, {})[claim.object.key] = claim.object
            if claim.object.kind == "process":
                self.locate(claim.object)

    def locate(self, process: Object) -> None:
        path = process.facts["cgroup"]
        while path and path != "/":
            self._lives.setdefault(("cgroup", path), process.key)
            path = path.rpartition("/")[0]
        if process.facts["nested"]:
            # Never our own: a container may have been given the host's network.
            for name, ours in (("mntns", "our_mnt"), ("netns", "our_net")):
                if not process.facts[ours]:
                    self._lives.setdefault((name, process.facts[name]), process.key)

    def resident(self, place: str, value: str | int) -> str | None:
        """The pid of a proven process in (or below) a cgroup, or of a proven container's process in a mount or
        network namespace ("cgroup", "mntns", "netns"); None if there is none."""
        return self._lives.get((place, value))

    def records_of(self, type: str) -> Iterator[Record]:
        def make() -> dict[str, list[Record]]:
            found: dict[str, list[Record]] = {}
            for record in self.records:
                found.setdefault(record.type, []).append(record)
            return found

        # Asked for nearly every object on the host.
        table: dict[str, list[Record]] = self.cached("records", make)
        return iter(table.get(type, ()))

    def at(self, directory: str) -> tuple[str, ...]:
        """A product's directory, and where else it is: behind a symlink, or where a daemon was told to have it
        (records of type "place")."""
        others = (str(record.facts.get("path", "")) for record in self.records_of("place") if record.name == directory)
        return tuple(dict.fromkeys((directory, *filter(None, others))))

    def cached(self, name: str, make: Callable[[], Any]) -> Any:
        """A value that does not change while rules are asked, made once."""
        if name not in self._cache:
            self._cache[name] = make()
        return self._cache[name]

    def mounts(self) -> list[Mount]:
        """Our own namespace's mounts, as mountinfo has them."""

        def make() -> list[Mount]:
            slots = Mount.__slots__
            return [
                Mount(**{name: mount.facts[name] for name in slots})
                for mount in self.objects("mount")
                if mount.facts["host"]
            ]

        mounts: list[Mount] = self.cached("mounts", make)
        return mounts

    def place(self, path: str) -> tuple[str, str] | None:
        """Where a path of the host lies on its file system, as mountinfo.place() tells it."""
        table: dict[str, list[Mount]] = self.cached("mount points", lambda: by_point(self.mounts()))
        point = path
        while point not in table and point not in ("", "/"):
            point = point.rpartition("/")[0] or "/"
        return place(table.get(point, []), path)

    def process(self, pid: int) -> Object | None:
        table: dict[int, Object] = self.cached(
            "processes", lambda: {obj.facts["pid"]: obj for obj in self.objects("process")}
        )
        return table.get(pid)


def by_point(mounts: Iterable[Mount]) -> dict[str, list[Mount]]:
    table: dict[str, list[Mount]] = {}
    for mount in mounts:
        table.setdefault(mount.point.rstrip("/") or "/", []).append(mount)
    return table


Rule = Callable[[Object, Case], Finding | None]


def attribute(
    case: Case,
    rules: Mapping[str, Sequence[Rule]],
    recall: Collection[str] = (),
    holds: Mapping[str, Sequence[Rule]] | None = None,
    orphans: Mapping[str, Sequence[Rule]] | None = None,
) -> dict[str, Claim]:
    """Ask a product's rules about every object until nothing new is proven. Returns its claims by object id.

    What the ledger recalls of the kinds in `recall` counts as proof from the start. `holds` are asked at the end, when
    all that can be proven is, about each object that would go: what they find keeps it from going. `orphans` are asked
    last, while the product is installed, about what is its own: what they find says that no container has it.
    """
    for recalled in case.recalled.values():
        claim = released(recalled)
        if claim.object.kind in recall and claim.role in (Role.LIVE, Role.LENT):
            case.add(claim)
    open_objects = [obj for kind in rules for obj in case.objects(kind) if obj.id not in case.claims]
    for _ in range(ROUNDS):
        left = []
        news = 0
        for obj in open_objects:
            finding = ask(obj, case, rules[obj.kind])
            if finding is None:
                left.append(obj)
                continue
            claim = Claim(
                product=case.product,
                object=replace(obj, facts={**obj.facts, **finding.facts}) if finding.facts else obj,
                role=finding.role,
                proven=finding.proven,
                reason=finding.reason,
                evidence=finding.evidence,
                rank=finding.rank,
                advice=finding.advice,
            )
            if finding.proven and finding.role not in (Role.ADMIN, Role.HELD):
                case.add(claim)
                news += 1
            else:
                # "Not proven", "somebody else's" and "somebody else's too" are only said as long as no later round
                # proves otherwise: of those who hold it, some may turn out to be the product's own.
                case.claims[obj.id] = claim
                left.append(obj)
        open_objects = left
        if not news:
            break
    for id, claim in case.claims.items():
        if claim.proven and claim.role is Role.LIVE:
            held = ask(claim.object, case, (holds or {}).get(claim.object.kind, ()))
            if held is not None:
                said = (*held.evidence[:1], *claim.evidence)
                reason = f"{claim.reason}{HELD}{held.reason}"
                case.claims[id] = replace(claim, role=Role.HELD, reason=reason, evidence=said, advice=held.advice)
    for id, claim in case.claims.items() if case.presence is Presence.INSTALLED else ():
        # Of what is only perhaps its own a rule may say as much: it stays, but who looks for orphans hears of it.
        if claim.role is Role.LIVE or not claim.proven:
            alone = ask(claim.object, case, (orphans or {}).get(claim.object.kind, ()))
            if alone is not None and alone.proven is claim.proven:
                said = (*alone.evidence, *claim.evidence)
                age, other = float(alone.facts.get("age", 0.0)), str(alone.facts.get("collector", ""))
                case.claims[id] = replace(claim, orphan=alone.reason, age=age, collector=other, evidence=said)
    for id, claim in case.claims.items():
        # Before a namespace ends, the administrator's links that were lent into it go home: it would take them along.
        space = case.claims.get(f"netns:{claim.object.facts.get('netns')}") if claim.role is Role.LENT else None
        if space is not None and space.orphan:
            case.claims[id] = replace(claim, orphan=space.orphan, age=space.age, collector=space.collector)
    return case.claims


def released(claim: Claim) -> Claim:
    """A claim as it was before its object was held: whoever held it may be gone, and that is asked anew."""
    if claim.role is not Role.HELD or HELD not in claim.reason:
        return claim
    reason = claim.reason.partition(HELD)[0]
    return replace(claim, role=Role.LIVE, reason=reason, evidence=claim.evidence[1:], advice="")


def ask(obj: Object, case: Case, rules: Sequence[Rule]) -> Finding | None:
    """The first finding that proves something, else the first that does not."""
    tied = None
    for rule in rules:
        finding = rule(obj, case)
        if finding is not None:
            if finding.proven:
                return finding
            tied = tied or finding
    return tied


# -- the vocabulary: rules that are the same for many products ------------------------------------------------------


def real_exe(process: Object) -> str:
    """The file that a process runs, also when that was deleted or replaced."""
    exe: str = process.facts["exe"]
    return exe.removesuffix(" (deleted)")


def runs(*exes: str, reason: str, rank: int = 0) -> Rule:
    """A process of the host that runs one of these files. In another pid namespace the same path is another file
    (a product nested in a container), so it proves nothing there."""

    def rule(obj: Object, case: Case) -> Finding | None:
        if obj.facts["nested"] or real_exe(obj) not in exes:
            return None
        return Finding(reason, (Evidence("kernel", f"runs {obj.facts['exe']}"),), rank=rank)

    return rule


def runs_with(options: Sequence[str], directories: Sequence[str], *names: str, reason: str, rank: int = 0) -> Rule:
    """A process of the host whose file has one of these names and that was given a path in a product's directory by
    one of these options, as its next argument or in one piece with it ("--ctrl type=unixio,path=..."). Arguments
    alone prove nothing, anybody can write them; nor does a path in any other option, which may be only read."""

    def rule(obj: Object, case: Case) -> Finding | None:
        if obj.facts["nested"] or real_exe(obj).rpartition("/")[2] not in names:
            return None
        argv = obj.facts["argv"]
        for number, argument in enumerate(argv[1:], 1):
            option = next(
                (option for option in options if argument == option or argument.startswith(f"{option}=")), None
            )
            if option is None:
                continue
            value = argument.partition("=")[2] or (argv[number + 1] if number + 1 < len(argv) else "")
            for piece in (value, *re.split(r"[=,]", value)):
                if any(below(piece, directory) for directory in directories):
                    given = f"{option} {value}"
                    said = (Evidence("kernel", f"runs {obj.facts['exe']}"), Evidence("kernel", f"given {given[:200]}"))
                    return Finding(reason, said, rank=rank)
        return None

    return rule


def child_of(reason: str, rank: int = 0) -> Rule:
    """The first process of a pid namespace, whose parent on the host is proven: a container's init."""

    def rule(obj: Object, case: Case) -> Finding | None:
        parent = case.process(obj.facts["ppid"])
        if not obj.facts["nested"] or parent is None or parent.facts["nested"]:
            return None
        if not case.is_proven("process", parent.key):
            return None
        title = " ".join(parent.facts["argv"])[:120]
        return Finding(reason, (Evidence("kernel", f"child of pid {parent.key}, {title}"),), rank=rank)

    return rule


def in_unit(reason: str, rank: int = 0) -> Rule:
    """A process in the cgroup of a proven unit: systemd started it, or something that systemd started."""

    def rule(obj: Object, case: Case) -> Finding | None:
        for unit in case.proven("unit"):
            group = unit.facts["cgroup"]
            if group and group != "/" and below(obj.facts["cgroup"], group):
                return Finding(reason, (Evidence("kernel", f"in the cgroup of {unit.key}"),), rank=rank)
        return None

    return rule


def in_cgroup(reason: str, rank: int = 0) -> Rule:
    """A process in or below a proven cgroup."""

    def rule(obj: Object, case: Case) -> Finding | None:
        path = obj.facts["cgroup"]
        while path and path != "/":
            if case.is_proven("cgroup", path):
                return Finding(reason, (Evidence("kernel", f"in cgroup {path}"),), rank=rank)
            path = path.rpartition("/")[0]
        return None

    return rule


def rooted_below(directory: str, inner: str, form: str, reason: str, rank: int = 0) -> Rule:
    """A process whose root file system lies in the product's directory, below `inner` in it and there in a place of
    this form, a regular expression: anybody's file server may have another directory of it for its root. Compared by
    file system and path there, as the kernel tells them, so it still holds when that was deleted ("//deleted")."""

    def rule(obj: Object, case: Case) -> Finding | None:
        root: list[str] = obj.facts.get("mount_root") or []
        for path in case.at(directory) if root else ():
            here = case.place(path + inner)
            there = root[1].removesuffix("//deleted")
            if here is None or root[0] != here[0] or not below(there, here[1]):
                continue
            if re.match(form, there.removeprefix(here[1].rstrip("/"))):
                return Finding(reason, (Evidence("kernel", f"its root directory is {root[1]}"),), rank=rank)
        return None

    return rule


def shares_mounts(reason: str, rank: int = 0) -> Rule:
    """A process in the mount namespace of a proven one, in a pid namespace that is not the host's."""

    def rule(obj: Object, case: Case) -> Finding | None:
        other = case.resident("mntns", obj.facts["mntns"]) if obj.facts["nested"] else None
        if other is None:
            return None
        return Finding(reason, (Evidence("kernel", f"in the mount namespace of pid {other}"),), rank=rank)

    return rule


def given(*points: str, reason: str, rank: int = 0) -> Rule:
    """A process of a container that was given a proven mount of the product, at a place where only the product
    puts it. The place counts: a container of somebody else may have all of the host's root mounted somewhere
    (`docker run -v /:/host`), and the product's mounts in it."""

    def rule(obj: Object, case: Case) -> Finding | None:
        if not obj.facts["nested"]:
            return None
        seen = {majmin: point for majmin, point in obj.facts.get("mount_points", ()) if point in points}
        for mount in case.proven("mount") if seen else ():
            if mount.facts["majmin"] in seen and mount.facts["fstype"] == "tmpfs":
                said = f"has {mount.facts['point']} mounted at {seen[mount.facts['majmin']]}"
                return Finding(reason, (Evidence("kernel", said),), rank=rank)
        return None

    return rule


def declared_unit(*names: str) -> Rule:
    """One of the product's own units. One that has a file while the product is gone is the administrator's."""

    def rule(obj: Object, case: Case) -> Finding | None:
        if obj.key not in names or obj.facts.get("stands"):
            return None
        state = f"{obj.facts['load']}, {obj.facts['active']} ({obj.facts['sub']})"
        return Finding("a unit of the package", (Evidence("systemd", f"{obj.key} is {state}"),))

    return rule


def unit_cgroup(*names: str) -> Rule:
    """The cgroup of one of the product's own units. systemd forgets it with the unit, if it has no file any more and
    its processes have not ended yet: then it stays, empty."""
    paths = {f"/system.slice/{name}": name for name in names}

    def rule(obj: Object, case: Case) -> Finding | None:
        name = paths.get(obj.facts["path"])
        if name is None or obj.facts["hierarchy"]:
            return None
        if any(unit.key == name and unit.facts.get("stands") for unit in case.objects("unit")):
            return None
        for process in case.objects("process"):
            if below(process.facts["cgroup"], obj.facts["path"]) and not case.is_proven("process", process.key):
                return None
        said = Evidence("kernel", f"is named for {name}, and holds nobody else's process")
        return Finding("the cgroup of a unit", (said,), facts={"only_empty": True})

    return rule


def holds_proven(pattern: str, reason: str) -> Rule:
    """A cgroup with such a name in which a proven process lives."""
    regex = re.compile(pattern)

    def rule(obj: Object, case: Case) -> Finding | None:
        path = obj.facts["path"]
        pid = case.resident("cgroup", path) if regex.match(path) and not obj.facts["hierarchy"] else None
        if pid is None:
            return None
        return Finding(reason, (Evidence("kernel", f"holds pid {pid}"),))

    return rule


def mounted_at(directory: str, *places: str, reason: str) -> Rule:
    """A mount where the product mounts: at or below one of these names in its directory."""

    def rule(obj: Object, case: Case) -> Finding | None:
        point = obj.facts["point"].removesuffix("//deleted")
        path = next((path for path in case.at(directory) if below(point, path)), None)
        if path is None:
            return None
        if obj.facts["configured"]:
            said = (Evidence("disk", f"{obj.facts['configured']} asks for a mount there"),)
            return Finding("a mount that the administrator configured", said, role=Role.ADMIN)
        said = (Evidence("kernel", f"mounted at {point} ({obj.facts['fstype']}, {obj.facts['source']})"),)
        if any(below(point, f"{path}/{name}") for name in places):
            return Finding(reason, said)
        return Finding(
            f"mounted below {path}, but not where the product mounts anything",
            said,
            proven=False,
            advice=f"umount {quote(point)}",
        )

    return rule


def backed_below(directory: str, inner: str, reason: str) -> Rule:
    """A loop device whose file lies in the product's directory. The name of the file is not enough: a container's
    own Incus calls its file the same. Either the path leads to that file here too, or it is mounted here."""

    def rule(obj: Object, case: Case) -> Finding | None:
        file, device = obj.facts["backing_file"], obj.facts["device"]
        if not any(below(file, f"{path}{inner}") for path in case.at(directory)):
            return None
        said = Evidence("kernel", f"backed by {file}")
        if obj.facts["here"]:
            return Finding(reason, (said,))
        for mount in case.proven("mount"):
            if mount.facts["source"] == device or mount.facts["majmin"] == obj.facts["majmin"]:
                return Finding(reason, (said, Evidence("kernel", f"mounted at {mount.facts['point']}")))
        for pool in case.proven("pool"):
            if device in pool.facts["devices"]:
                return Finding(reason, (said, Evidence("kernel", f"{pool.key} stands on it")))
        doubt = "a file of that name, but not one that is here: a container's own, or deleted and not mounted"
        return Finding(doubt, (said,), proven=False, role=Role.ADMIN, advice=f"losetup -d {quote(device)}")

    return rule


def pool_on_loops(directory: str, reason: str) -> Rule:
    """A zpool or volume group that stands on proven loop devices and nothing else, or on files with names in the
    product's directory, if something of it is also mounted where the product mounts: pools are the whole machine's,
    and a container's own product calls its files the same."""

    def rule(obj: Object, case: Case) -> Finding | None:
        loops = {loop.facts["device"] for loop in case.proven("loop")}
        devices, files = obj.facts["devices"], obj.facts["backing"]
        if not devices:
            return None
        said = [Evidence("kernel", f"stands on {', '.join(devices)} and nothing else")]
        if all(device in loops for device in devices):
            return Finding(reason, tuple(said))
        if len(files) < len(devices) or not all(below(file, directory) for file in files):
            return None
        mount = mount_of_pool(obj, case)
        if mount is None:
            return None
        said.append(Evidence("kernel", f"{mount.facts['source']} is mounted at {mount.facts['point']}"))
        return Finding(reason, tuple(said))

    return rule


def mount_of_pool(pool: Object, case: Case) -> Object | None:
    """A proven mount of a dataset or a volume of a pool; None if there is none."""
    for mount in case.proven("mount"):
        # zfs(8) mounts a dataset by its name; a volume of LVM is a device.
        dataset = mount.facts["fstype"] == "zfs" and below(mount.facts["source"], pool.facts["name"])
        if dataset or mount.facts["majmin"] in pool.facts["volumes"]:
            return mount
    return None


def netns_of_processes(reason: str) -> Rule:
    """A network namespace of proven containers, by a process of theirs that lives in it, or by the ledger after that
    has ended. If somebody else's process is in it, or a pin holds it, it cannot end."""

    def rule(obj: Object, case: Case) -> Finding | None:
        resident = case.resident("netns", obj.facts["inode"])
        recalled = case.recalled.get(obj.id)
        if obj.facts["host"] or (resident is None and recalled is None):
            return None
        said = [Evidence("kernel", f"network namespace of pid {resident}")] if resident else []
        said += recalled.evidence[:1] if recalled and not resident else ()
        foreign = [pid for pid in obj.facts["processes"] if not case.is_proven("process", str(pid))]
        if not foreign and not obj.facts["pins"]:
            return Finding(reason, tuple(said))
        for pid in foreign:
            process = case.process(pid)
            name = real_exe(process) if process else "?"
            said.append(Evidence("kernel", f"also used by pid {pid} ({name}), which is not the product's"))
        said += [Evidence("kernel", f"pinned at {pin}, which is not the product's") for pin in obj.facts["pins"]]
        return Finding(
            f"{reason} that somebody else uses too",
            tuple(said[-2:] if len(said) > 2 else said),
            role=Role.HELD,
            advice=f"end pid {foreign[0]}" if foreign else f"umount {quote(obj.facts['pins'][0])}",
        )

    return rule


def reported(reason: str) -> Rule:
    """An account or a setting that the product's package makes: what stood before is not known."""

    def rule(obj: Object, case: Case) -> Finding | None:
        text = obj.facts.get("line") or f"{obj.key} = {obj.facts.get('value', '')}"
        return Finding(reason, (Evidence("disk" if obj.kind == "account" else "kernel", text),), role=Role.SYSTEM)

    return rule
