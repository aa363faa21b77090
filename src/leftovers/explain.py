"""Whose is this? All that is known about one object: what it is, whose it is and by what chain of evidence, whether it
is in use, what depends on it, and what to do. What cannot be known is said to be unknown, and never guessed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from fnmatch import fnmatchcase
from functools import cached_property

from leftovers.model import Action, Claim, Evidence, Instance, Object, Presence, Role, Verb
from leftovers.mountinfo import Mount, below, covering
from leftovers.plan import decide, settled
from leftovers.products import NAMES, load
from leftovers.relations import PAIRS, Relations, Step, called, parents, pinned_netns
from leftovers.survey import Survey
from leftovers.ways import Ways
from leftovers.words import what

__all__ = ["Answer", "Explainer", "State", "one_by_one"]

# A container may be called by the beginning of its id; shorter ones are too likely to be something else.
PREFIX = 6
# Of links that only other network namespaces have under a name, so many are told.
EIGHT = 8
# Where systemd finds units (systemd.unit(5)), the ones that count first.
UNITS = ("/etc/systemd/system", "/run/systemd/system", "/run/systemd/transient", "/usr/lib/systemd/system")
UNIT_TYPES = (".service", ".scope", ".socket", ".slice", ".mount", ".timer", ".path", ".target")
SNAPD = Evidence("snapd", "snapd names the services of a snap so")


class State(str, Enum):
    """What an object is good for, now."""

    IN_USE = "in use"  # its product is installed, and lives with it
    ORPHANED = "orphaned"  # its product is installed, but no container that exists has it
    LEFT = "left over"  # its product is gone
    KEPT = "kept"  # stays on purpose, whatever becomes of the product
    UNKNOWN = "unknown"  # nobody that leftovers knows has proven a claim on it


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of one thing.

    id, name     as other commands print it; what: in words
    object       None for a path, a unit or an instance that is no listed object
    product      whose it is by a proof, "" if nobody's; known_to: who only knows it
    package      of that product, as dpkg has it
    instance     the container that it leads to, which need not be the product's own
    chain        from the object to its owner, one piece of evidence after the other
    state, why
    dependants   what would notice if it went
    hints        facts that say something of an owner without proving one
    """

    id: str
    name: str
    what: str
    state: State
    why: str
    object: Object | None = None
    claims: tuple[Claim, ...] = ()
    action: Action | None = None
    product: str = ""
    package: str = ""
    instance: Instance | None = None
    chain: tuple[Evidence, ...] = ()
    dependants: tuple[Step, ...] = ()
    hints: tuple[Evidence, ...] = ()
    advice: str = ""


@dataclass
class Explainer:
    """Answers questions about one look at the host."""

    survey: Survey
    ways: Ways = field(default_factory=Ways)

    @cached_property
    def relations(self) -> Relations:
        return Relations(self.survey.listed)

    @cached_property
    def instances(self) -> list[Instance]:
        """Each once: what a daemon has of its tenants' containers is told as theirs."""
        return one_by_one(self.survey)

    @cached_property
    def ties(self) -> dict[str, Instance]:
        found: dict[str, Instance] = {}
        for instance in self.instances:
            for id in instance.ties:
                found.setdefault(id, instance)
        return found

    @cached_property
    def mounts(self) -> list[Mount]:
        slots = Mount.__slots__
        return [Mount(**{name: m.facts[name] for name in slots}) for m in self.relations.pins.values()]

    # -- what is meant ------------------------------------------------------------------------------------------

    def explain(self, asked: str) -> list[Answer]:
        """Every thing that somebody may mean by `asked`; nothing if there is none."""
        answers = [self.of_file(obj) if obj.kind == "file" else self.of(obj) for obj in self.meant(asked)]
        answers += [self.of_instance(instance) for instance in self.called_so(asked)]
        if not answers and asked.startswith("/"):
            answers += self.of_path(asked)
        elif not answers:
            answers += self.of_unit(asked.removeprefix("unit:"))
        return answers

    def meant(self, asked: str) -> list[Object]:
        spoken = names(asked)
        if asked.startswith("/"):
            spoken |= self.names_of_path(asked)
        found = {
            obj.id: obj
            for objects in self.survey.listed.values()
            for obj in objects
            if spoken & own_names(obj) and (obj.id in spoken or not self.is_pinned_twice(obj))
        }
        if not found:
            found = {obj.id: obj for obj in self.inside(asked)}
        if not found:
            found = {obj.id: obj for obj in self.survey.listed.get("nft", ()) if holds_chain(obj, asked)}
        return list(found.values())

    def is_pinned_twice(self, obj: Object) -> bool:
        """Whether a mount is the second of one pin, as `ip netns` makes them (ip-netns(8))."""
        first = self.relations.pins.get(obj.facts["point"]) if obj.kind == "mount" and obj.facts["host"] else None
        return first is not None and first is not obj and pinned_netns(obj) == pinned_netns(first) != 0

    def names_of_path(self, asked: str) -> set[str]:
        """What else a path is called: where it leads to, the process or the link that a directory is about."""
        path = asked.rstrip("/") or "/"
        words = path.split("/")
        found = {path}
        if words[1] == "proc" and len(words) >= 3 and words[2].isdigit():
            return {f"process:{words[2]}"}
        if words[1:4] == ["sys", "class", "net"] and len(words) >= 5:
            return {f"link:{words[4]}"}
        real = self.ways.real(path)
        found |= {real} if real else set()
        for each in list(found):
            pin = self.relations.pins.get(each)
            if pin is not None and str(pin.facts["root"]).startswith("net:["):
                found.add(f"netns:{pin.facts['root'][5:-1]}")
        return found

    def inside(self, asked: str) -> Iterator[Object]:
        """A link of another network namespace: by its name alone, if the host has none of that name, or after the
        name of the container that it is in."""
        where, _, name = asked.removeprefix("link:").rpartition("/")
        owners = {instance.id for instance in self.called_so(where)} if where else set()
        number = 0
        for link in self.survey.listed.get("link", ()):
            if link.facts["host"] or link.facts["name"] != name or name == "lo":
                continue
            if where:
                way = self.relations.way(link, self.ties)
                if way is None or way[1].id not in owners:
                    continue
            number += 1
            if number > EIGHT:
                return
            yield link

    def called_so(self, asked: str) -> list[Instance]:
        """The containers of a name or an id; of the beginning of an id, if there is one only."""
        kind, colon, rest = asked.partition(":")
        if colon and kind in ("container", "instance", "pod"):
            asked = rest
        found = [each for each in self.instances if asked in (each.id, each.name, f"{each.product}/{each.name}")]
        if not found and len(asked) >= PREFIX and (colon or not asked.isdigit() or len(asked) >= 12):
            found = [each for each in self.instances if each.id.startswith(asked)]
            found = found if len(found) == 1 else []
        return found

    # -- answers ------------------------------------------------------------------------------------------------

    def of(self, obj: Object) -> Answer:
        present = self.survey.presence
        claims = self.survey.claims.get(obj.id, {})
        ours = settled(claims, present, self.survey.tenants, tuple(present))
        action = next(iter(decide(ours, present, False)), None)
        owner = owner_of(ours)
        if owner is None and not ours:
            owner, action = self.goes_with(obj)
        if owner is None and not ours and obj.kind == "unit":
            owner, action = self.declared(obj)
        instance, steps = self.belongs(obj)
        chain = [Evidence("kernel", step.text) for step in steps]
        if instance is not None:
            chain.append(Evidence(instance.evidence.source, says(instance)))
        elif owner is not None:
            chain = list(owner.evidence) or chain
        product = owner.product if owner is not None else ""
        hints = tuple(self.hints(obj, steps, instance)) if owner is None else ()
        package = self.package(product or (instance.product if instance else ""))
        state, why = state_of(owner, action, ours, present)
        if owner is None and is_host_s(obj):
            state, why, hints = State.KEPT, "it is the host's own", ()
        return Answer(
            obj.id,
            obj.key,
            what(obj),
            state,
            why,
            obj,
            tuple(ours.values()),
            action,
            product,
            package,
            instance,
            tuple(chain),
            tuple(self.relations.dependants(obj)),
            hints,
            advice_for(state, product, action),
        )

    def belongs(self, obj: Object) -> tuple[Instance | None, list[Step]]:
        """The container that an object leads to, and how. A product's own word may have said so already of the object
        itself: then the kernel is asked all the same, for the way to one of the container's processes."""
        way = self.relations.way(obj, self.ties)
        if way is None:
            return None, self.relations.trail(obj)
        steps, instance = way
        if obj.kind in ("link", "netns", "mount"):
            living = {id: instance for id in instance.ties if id.startswith("process:")}
            further = self.relations.way(obj, living)
            steps = further[0] if further else steps
        return instance, steps

    def goes_with(self, obj: Object) -> tuple[Claim | None, Action | None]:
        """What is proven of another object that this one ends with, whoever made it: the other end of a pair, the
        network namespace of a virtual link, the cgroup that a cgroup is in."""
        facts = obj.facts
        others: list[Object | None] = []
        by_id = self.relations.by_id
        if obj.kind == "link" and not facts["host"] and facts["type"]:
            if facts["type"] in PAIRS:
                others.append(self.relations.links.get((facts["peer_netns"], facts["peer"])))
            others.append(by_id.get(f"netns:{facts['netns']}"))
        elif obj.kind == "cgroup" and not facts["hierarchy"]:
            others = [by_id.get(f"cgroup:{path}") for path in list(parents(facts["path"]))[1:]]
        elif obj.kind == "mount" and facts["host"]:
            others = [by_id.get(f"netns:{pinned_netns(obj)}")]  # it is unpinned, to end
        elif obj.kind == "netns" and not facts["host"]:
            living = [by_id.get(f"process:{pid}") for pid in facts["processes"]]
            owners = {owner.product if owner else "" for owner in (self.word(each)[0] for each in living if each)}
            # It ends with the last of these, and of its pins.
            if len(owners) == 1 and None not in living and self.own_pins(facts["pins"], *owners):
                others = living[:1]
        for other in filter(None, others):
            owner, action = self.word(other)
            ends = (Role.LIVE,) if obj.kind == "mount" else (Role.LIVE, Role.HELD)  # who holds it may have this pin
            if owner is not None and action is not None and owner.role in ends:
                reason = f"goes with {other.kind} {other.key}: {owner.reason}"
                said = (Evidence("kernel", f"goes with {other.kind} {other.key}"), *owner.evidence)
                told = replace(owner, object=obj, reason=reason, evidence=said)
                return told, replace(action, object=obj, reason=reason)
        return None, None

    def own_pins(self, pins: Sequence[str], product: str) -> bool:
        """Whether all of these paths are in directories that are proven a product's own."""
        return all(any((product, path) in self.directories for path in parents(pin)) for pin in pins)

    @cached_property
    def directories(self) -> set[tuple[str, str]]:
        words = ((str(obj.facts["path"]), self.word(obj)[0]) for obj in self.survey.listed.get("file", ()))
        return {(owner.product, path) for path, owner in words if owner is not None}

    def word(self, obj: Object) -> tuple[Claim | None, Action | None]:
        """Whose an object is by a proof, and what would be done with it."""
        present = self.survey.presence
        claims = settled(self.survey.claims.get(obj.id, {}), present, self.survey.tenants, tuple(present))
        return owner_of(claims), next(iter(decide(claims, present, False)), None)

    def declared(self, unit: Object) -> tuple[Claim | None, Action | None]:
        """Whose unit is one that stands: of the product that has declared it, if its file is of one of its packages or
        of its snap. Rules have no word for it, since nothing of an installed product's units is left."""
        for name, present in self.survey.presence.items():
            product = load(name)
            if present is not Presence.INSTALLED or not any(fnmatchcase(unit.key, form) for form in product.units):
                continue
            file = str(unit.facts["file"])
            packages = [package for package in self.packages_of(file) if package in product.packages]
            if packages or (product.snaps and unit.key.startswith(tuple(f"snap.{snap}." for snap in product.snaps))):
                said = Evidence("dpkg", f"{file} is of the package {packages[0]}") if packages else SNAPD
                claim = Claim(name, unit, Role.LIVE, True, f"a unit of {product.title}", (said,))
                return claim, Action(Verb.KEEP, unit, name, claim.reason, claim.evidence)
        return None, None

    def of_instance(self, instance: Instance) -> Answer:
        """A container itself: what it has, and how to look at it is its product's business."""
        ties = [self.relations.by_id[id] for id in instance.ties if id in self.relations.by_id]
        steps = [Step(obj, "is its own") for obj in ties]
        for id, other in self.relations.shares(self.ties).items():
            obj = self.relations.by_id[id]
            if other is instance and id not in instance.ties and obj.facts.get("type") != "loopback":
                steps.append(Step(obj, "leads to it"))
        present = self.survey.presence[instance.product]
        installed = present is Presence.INSTALLED
        state = State.IN_USE if installed else State.LEFT
        title = load(instance.product).title
        why = f"{title} is installed" if installed else f"{title} is not installed any more"
        return Answer(
            f"instance:{instance.product}/{instance.id}",
            instance.name,
            f"an instance of {title}: {about(instance)}",
            state,
            why,
            product=instance.product,
            package=self.package(instance.product),
            instance=instance,
            chain=(Evidence(instance.evidence.source, instance.evidence.text),),
            dependants=tuple(steps),
            advice="" if installed else f"leftovers clean {instance.product}",
        )

    def of_unit(self, asked: str) -> list[Answer]:
        """A unit that no product has declared: by its cgroup, and by its file."""
        name = asked if asked.endswith(UNIT_TYPES) else f"{asked}.service"
        groups = [
            group
            for group in self.survey.listed.get("cgroup", ())
            if not group.facts["hierarchy"] and group.facts["path"].rpartition("/")[2] == name
        ]
        answers = []
        for group in groups:
            answer = self.of(group)
            hints = tuple(dict.fromkeys((*self.unit_hints(name), *answer.hints)))
            said = f"the cgroup of unit {name}, {answer.what.removeprefix('a cgroup, ')}"
            answers.append(replace(answer, what=said, hints=hints if not answer.product else ()))
        file = next((path for path in (f"{base}/{name}" for base in UNITS) if self.ways.exists(path)), "")
        if not answers and file:
            why = "no product that leftovers knows has declared it, and it has no cgroup: it does not run"
            hints = tuple(self.unit_hints(name))
            answers.append(Answer(f"unit:{name}", name, f"a unit, {file}", State.UNKNOWN, why, hints=hints))
        return answers

    def of_path(self, asked: str) -> list[Answer]:
        """A path that is no object: by what covers it."""
        path = asked.rstrip("/") or "/"
        real = self.ways.real(path)
        if real == "" or not self.ways.exists(path):
            over = self.covers(path)
            if real != "" or over is None:
                return []
            return [self.covered(path, over)]
        return [self.covered(path, self.covers(real), real)]

    def of_file(self, obj: Object) -> Answer:
        """One that somebody wanted to be looked at, and nobody has a word about, is a path like any other."""
        path = str(obj.facts["path"])
        return self.of(obj) if self.survey.claims.get(obj.id) else self.covered(path, self.covers(path))

    def covers(self, path: str) -> Object | None:
        """The deepest thing that a path is in: a mount, or something of which a product has a word."""
        best: Object | None = None
        mount = covering(self.mounts, path)
        if mount is not None:
            best = self.relations.pins[mount.point]
        for kind in ("file", "cgroup"):
            fact = "path" if kind == "file" else "directory"
            for obj in self.survey.listed.get(kind, ()):
                place = str(obj.facts[fact])
                said = place != "/" and below(path, place) and self.survey.claims.get(obj.id)
                # What somebody has mounted in a product's directory is not that directory's.
                if said and (best is None or len(place) >= len(point_of(best))):
                    best = obj
        return best

    def covered(self, path: str, over: Object | None, real: str = "") -> Answer:
        place = point_of(over) if over is not None else "/"
        answer = self.of(over) if over is not None and place != "/" else None
        said = "a path"
        if over is not None and over.kind == "mount":
            said = f"a path on the {over.facts['fstype']} file system that is mounted at {place}"
        elif over is not None:
            said = f"a path in {place}"
        if real not in ("", path):
            said += f", where it leads to by a symlink ({real})"
        packages = self.packages_of(path, real)
        hints = [Evidence("dpkg", f"{package} owns it") for package in packages]
        depend = tuple(self.depend_on(path))
        if answer is not None and (answer.state is not State.UNKNOWN or answer.instance):
            chain = (Evidence("kernel", f"is in {place}"), *answer.chain)
            hints += answer.hints
            told = replace(answer, chain=chain, dependants=depend, hints=tuple(hints), advice="")
            return replace(told, id=f"path:{path}", name=path, what=said, object=None)
        of = next((name for name in self.survey.presence if set(packages) & set(load(name).packages)), "")
        if of and self.survey.presence[of] is Presence.INSTALLED:
            title = load(of).title
            return Answer(
                f"path:{path}",
                path,
                said,
                State.IN_USE,
                f"a file of the package of {title}",
                product=of,
                package=self.package(of),
                chain=tuple(hints),
                dependants=depend,
            )
        why = "nobody that leftovers knows"
        if packages:
            why = f"it belongs to the package {packages[0]}, which is no part of a product that leftovers knows"
        if answer is not None:
            hints += answer.hints
        return Answer(f"path:{path}", path, said, State.UNKNOWN, why, dependants=depend, hints=tuple(hints))

    def depend_on(self, path: str) -> Iterator[Step]:
        for point, mount in self.relations.pins.items():
            if point != path and below(point, path) and path != "/":
                yield Step(mount, "is mounted below it")
        for loop in self.survey.listed.get("loop", ()):
            if loop.facts["here"] and loop.facts["backing_file"] == path:
                yield Step(loop, "stands on it")
        for process in self.survey.listed.get("process", ()):
            if not process.facts["nested"] and process.facts["exe"] == path:
                yield Step(process, "runs it")

    # -- pieces -------------------------------------------------------------------------------------------------

    def package(self, product: str) -> str:
        """The package that holds a product's daemon, "" if none does (any more)."""
        if not product or product not in self.survey.presence:
            return ""
        description = load(product)
        if description.snaps and not description.packages:
            return f"snap {description.snaps[0]}"
        owners = self.ways.owners(description.daemons) if description.daemons else {}
        return next((names[0] for names in owners.values() if names), "")

    def packages_of(self, *paths: str) -> list[str]:
        wanted = [path for path in dict.fromkeys(paths) if path]
        # What is merged into /usr has both names, and dpkg knows the one that the package had.
        wanted += [path.removeprefix("/usr") for path in wanted if path.startswith("/usr/")]
        owners = self.ways.owners(wanted)
        return list(dict.fromkeys(name for path in wanted for name in owners.get(path, ())))

    def hints(self, obj: Object, steps: Sequence[Step], instance: Instance | None) -> Iterator[Evidence]:
        """Facts that say something of an owner, and prove nothing."""
        if instance is not None:
            yield Evidence("kernel", f"it leads to {instance.name} of {instance.product}, who has no claim on it")
        process = next((each for each in (obj, *(step.object for step in steps)) if each.kind == "process"), None)
        if process is not None:
            exe = str(process.facts["exe"]).removesuffix(" (deleted)")
            if not process.facts["nested"]:
                for package in self.packages_of(exe):
                    yield Evidence("dpkg", f"pid {called(process)} runs {exe} of the package {package}")
            unit = unit_of(str(process.facts["cgroup"]))
            if unit:
                yield Evidence("systemd", f"pid {called(process)} is in the cgroup of {unit}")
                yield from self.unit_hints(unit)
        if obj.kind == "cgroup":
            unit = unit_of(obj.key)
            yield from self.unit_hints(unit) if unit else ()
        if obj.kind == "mount" and obj.facts["configured"]:
            yield Evidence("disk", f"{obj.facts['configured']} asks for it")
        if obj.kind == "unit" and obj.facts["file"]:
            for package in self.packages_of(str(obj.facts["file"])):
                yield Evidence("dpkg", f"{obj.facts['file']} is of the package {package}")
        path = {"file": "path", "loop": "backing_file"}.get(obj.kind, "")
        for package in self.packages_of(str(obj.facts[path])) if path else ():
            yield Evidence("dpkg", f"{obj.facts[path]} is of the package {package}")
        if obj.kind == "netns" and not obj.facts["host"] and instance is None:
            yield Evidence("kernel", "no instance of a product that leftovers knows lives in it")

    def unit_hints(self, unit: str) -> Iterator[Evidence]:
        for path in (f"{base}/{unit}" for base in UNITS):
            if self.ways.exists(path):
                packages = self.packages_of(path)
                whose = f"of the package {packages[0]}" if packages else "of no package"
                yield Evidence("disk", f"{unit} has the file {path}, {whose}")
                return


# -- names --------------------------------------------------------------------------------------------------------


def names(asked: str) -> set[str]:
    """What an object may be called for somebody to mean it by `asked`."""
    said = {asked}
    kind, colon, rest = asked.partition(":")
    if colon and kind == "pid":
        said = {f"process:{rest}"}
    elif asked.startswith("net:[") and asked.endswith("]"):
        said = {f"netns:{asked[5:-1]}"}
    elif asked.startswith("nft "):
        said |= {f"nft:{asked[4:]}"}
    elif asked.startswith("chain "):
        said |= {asked[6:]}
    elif asked.startswith("iptables "):
        said |= {asked.rpartition(" ")[2]}
    return said


def own_names(obj: Object) -> set[str]:
    said = {obj.id, obj.key, f"{obj.kind} {obj.key}"}
    facts = obj.facts
    for fact in ("point", "path", "directory", "device", "unit"):
        value = facts.get(fact)
        if isinstance(value, str) and value:
            said.add(value)
    if obj.kind == "mount" and not facts["host"]:
        said.discard(str(facts["point"]))
    elif obj.kind == "link" and facts["host"]:
        said |= {str(address) for address in (facts["address"], *facts["addresses"]) if address}
    elif obj.kind == "netns":
        said |= {pin.rpartition("/")[2] for pin in facts["pins"]}
    elif obj.kind == "xtables" and facts.get("user"):
        said |= {str(facts["chain"]), f"{facts['table']}/{facts['chain']}", f"{facts['table']} {facts['chain']}"}
    elif obj.kind == "unit":
        said.add(obj.key.removesuffix(".service"))
    elif obj.kind in ("route", "address"):
        said |= {str(facts.get("dst") or facts.get("address"))} - {"default"}
    elif obj.kind in ("sysctl", "account", "pool", "ovs", "apparmor", "bpf"):
        said.add(str(facts["name"]))
    return said


def holds_chain(table: Object, asked: str) -> bool:
    """Whether a table of nft's own has a chain of that name, or of a name "TABLE/CHAIN"."""
    where, _, chain = asked.rpartition("/")
    return chain in table.facts["chains"] and where in ("", table.facts["name"], table.key)


def unit_of(cgroup: str) -> str:
    """The unit whose cgroup a path is or is in, the innermost; "" if none is (systemd's names, as it makes them)."""
    for part in reversed(cgroup.split("/")):
        if part.endswith((".service", ".scope", ".mount", ".socket")):
            return part
    return ""


def point_of(obj: Object) -> str:
    return str(obj.facts["point"] if obj.kind == "mount" else obj.facts.get("path") or obj.facts["directory"])


# -- judgements ---------------------------------------------------------------------------------------------------


def one_by_one(survey: Survey) -> list[Instance]:
    """All instances in the order of their products, without what a daemon has of its tenants' containers."""
    found: list[Instance] = []
    taken: set[str] = set()
    order = {name: number for number, name in enumerate(NAMES)}
    for product in sorted(survey.instances, key=lambda name: order.get(name.partition("@")[0], len(order))):
        landlord = bool(survey.tenants.get(product))
        own = [each for each in survey.instances[product] if not (landlord and taken.intersection(each.ties))]
        found += own
        taken.update(id for each in own for id in each.ties)
    return found


def is_host_s(obj: Object) -> bool:
    """Whether it is what every host has: its network namespace, its loopback, its root."""
    facts = obj.facts
    if obj.kind == "link":
        return bool(facts["host"]) and facts["type"] == "loopback"
    return (obj.kind == "netns" and bool(facts["host"])) or (obj.kind == "mount" and obj.key == "/")


def owner_of(claims: Mapping[str, Claim]) -> Claim | None:
    """The claim by which an object is somebody's: proven, and not only known. Of two that disagree neither is; that
    several have set what is the whole host's is no disagreement."""
    owned = [claim for claim in claims.values() if claim.proven and claim.role is not Role.ADMIN]
    own = [claim for claim in owned if claim.role is not Role.SYSTEM]
    return (own or owned)[0] if len(own) == 1 or (owned and not own) else None


def state_of(
    owner: Claim | None,
    action: Action | None,
    claims: Mapping[str, Claim],
    presence: Mapping[str, Presence],
) -> tuple[State, str]:
    if owner is None or action is None:
        known = next((claim for claim in claims.values() if claim.role is Role.ADMIN and claim.proven), None)
        if known is not None:
            return State.KEPT, f"{known.product} knows it, and it is not {known.product}'s: {known.reason}"
        if len([claim for claim in claims.values() if claim.proven]) > 1:
            return State.UNKNOWN, f"several products have it for their own: {', '.join(claims)}"
        doubt = next(iter(claims.values()), None)
        if doubt is not None:
            return State.UNKNOWN, f"not proven to be {doubt.product}'s: {doubt.reason}"
        return State.UNKNOWN, "nobody that leftovers knows has a claim on it: it is left alone"
    installed = presence[owner.product] is Presence.INSTALLED
    if owner.orphan and installed:
        return State.ORPHANED, owner.orphan
    if owner.role is Role.SYSTEM:
        return State.KEPT, action.reason
    if installed:
        return State.IN_USE, owner.reason
    if action.verb is not Verb.KEEP or action.counts:
        return State.LEFT, action.reason
    return State.KEPT, action.reason


def advice_for(state: State, product: str, action: Action | None) -> str:
    if state is State.ORPHANED:
        return f"leftovers clean --orphans {product}"
    if action is not None and action.advice:
        return action.advice
    if state is State.LEFT and action is not None:
        return f"leftovers clean {product}"
    return ""


def about(instance: Instance) -> str:
    """What is known of a container, in brackets: its image, since when, whether it runs."""
    said = [f"image {instance.image}"] if instance.image else []
    said += [f"created {instance.created[:19].replace('T', ' ')}"] if instance.created else []
    said += [instance.state] if instance.state else []
    return ", ".join(said) or "nothing more is known of it"


def says(instance: Instance) -> str:
    what = f"that is {instance.name} of {load(instance.product).title} ({about(instance)})"
    return f"{what}: {instance.evidence.text}"
