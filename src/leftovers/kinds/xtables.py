"""iptables, ip6tables and ebtables: every rule and every user-defined chain, of both backends.

They are read from what the -save tools print and removed by one restore --noflush for each family and backend,
so that a batch of hundreds is one program and, for each table, one commit: all of it or nothing.

Asking must change nothing, so each family and backend is asked only when its tables exist:
- legacy: iptables-legacy would load modules and make tables. /proc/net/ip_tables_names (ip6_...) lists those that
  exist, and does not exist itself before ip_tables is loaded (net/ipv4/netfilter/ip_tables.c).
- nft: iptables-nft-save, ip6tables-nft-save and ebtables-nft-save make neither tables nor chains, not even the
  base chains that they print (tried, 1.8.9: `nft list ruleset` is empty before and after; a table with one chain
  still has one chain). They are not run all the same unless nft shows a chain in a table of their name: no time
  lost, and no module loaded.
- ebtables-legacy: /proc/modules lists ebtable_filter, ebtable_nat, ebtable_broute. Tried on recorded output only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leftovers.errors import ToolFault, ToolMissing, Unreadable
from leftovers.host import Host
from leftovers.kinds import nft
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb
from leftovers.run import find, run

__all__ = ["Rule", "Saved", "XtablesRules", "parse", "tokens"]

TOOLS = {"ip": "iptables", "ip6": "ip6tables", "bridge": "ebtables"}
TABLES = {
    "ip": ("raw", "mangle", "nat", "filter", "security"),
    "ip6": ("raw", "mangle", "nat", "filter", "security"),
    "bridge": ("broute", "nat", "filter"),
}
BUILT_IN = frozenset(("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING", "BROUTING"))
NAMES = {"ip": "/proc/net/ip_tables_names", "ip6": "/proc/net/ip6_tables_names"}

# How often a restore is tried again after something in it had vanished.
ATTEMPTS = 3
# Chains of a table that iptables-nft cannot show as a whole are asked for one by one, up to so many.
CHAINS = 256
# A restore reads its input by lines of at most 10240 bytes (iptables/xshared.h).
LINE = 8192

# Options whose value is any text, even one that looks like an option ("--log-prefix -j").
TEXTS = frozenset(
    (
        *("--comment", "--log-prefix", "--nflog-prefix", "--ulog-prefix", "--string", "--hex-string"),
        *("--name", "--hashlimit-name", "--helper", "--path", "--uid-owner", "--gid-owner"),
    )
)
INTERFACES = frozenset(
    (
        *("-i", "-o", "--in-interface", "--out-interface", "--physdev-in", "--physdev-out"),
        *("--logical-in", "--logical-out"),
    )
)
JUMPS = frozenset(("-j", "--jump", "-g", "--goto"))

QUOTED = r'"(?:[^"\\]|\\.)*"'
# A rule ends with its line, but a newline in quotes is part of a comment.
RULE = re.compile(rf'(?:[^"\n]+|{QUOTED})*', re.DOTALL)
TOKEN = re.compile(rf'(?:[^\s"]+|{QUOTED})+', re.DOTALL)
PART = re.compile(rf'{QUOTED}|[^"]+', re.DOTALL)
MAC = re.compile(r"(?:[0-9a-fA-F]{1,2}:){5}[0-9a-fA-F]{1,2}")
INCOMPATIBLE = re.compile(r"^# Table `([^']+)' is incompatible", re.MULTILINE)

Backend = tuple[str, str]  # family, backend


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as it was saved: `text` is all that comes after "-A CHAIN "."""

    table: str
    chain: str
    text: str

    @property
    def line(self) -> str:
        return f"-A {self.chain} {self.text}".rstrip(" ")


@dataclass(slots=True)
class Saved:
    """What a -save tool printed: rules in their order, user-defined chains as (table, chain), and of the built-in ones
    those with a policy other than ACCEPT as (table, chain, policy)."""

    rules: list[Rule] = field(default_factory=list)
    chains: list[tuple[str, str]] = field(default_factory=list)
    policies: list[tuple[str, str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, other: Saved) -> None:
        self.rules += other.rules
        self.chains += other.chains
        self.policies += other.policies
        self.faults += other.faults


@dataclass(slots=True)
class Batch:
    """What of an asked-for batch is there and can go; `causes` says why the rest cannot, by object id."""

    rules: list[tuple[Object, Rule]] = field(default_factory=list)
    chains: list[Object] = field(default_factory=list)
    causes: dict[str, str] = field(default_factory=dict)

    def ids(self) -> set[str]:
        return {object.id for object, _ in self.rules} | {object.id for object in self.chains}


class XtablesRules(Kind):
    """One object for each rule, each user-defined chain, and each policy of a built-in chain that is not ACCEPT.

    Identical rules are told apart by their count only: the first is n = 1, the next "#2". Any one of them that
    is removed is the first in its chain, and what is left is counted anew.
    """

    name = "xtables"
    title = "iptables rules"

    def survey(self, look: Look) -> Listing:
        """Key "FAMILY BACKEND TABLE -A CHAIN TEXT" or "... -N CHAIN" or "... -P CHAIN POLICY".

        facts of a rule: family, backend, table, chain, rule, comment, target, interfaces, macs.
        facts of a chain: family, backend, table, chain, user (true), references, rules. What a product says of a chain
        that others may use, too, stands in `only_empty`: it goes without what is in it, and only when that is nothing.
        facts of a policy: family, backend, table, chain, policy. It is never removed, for there is always one.
        """
        objects: list[Object] = []
        faults: list[str] = []
        backends = [(family, "nft") for family in in_nft(look.host)]
        backends += [(family, "legacy") for family in in_legacy(look.host)]
        for family, variant in backends:
            try:
                saved = read(look.host, (family, variant))
            except (ToolFault, Unreadable) as fault:
                faults.append(f"{TOOLS[family]} rules ({variant}): {fault}")
            else:
                objects += objects_of((family, variant), saved)
                faults += saved.faults
        return Listing(tuple(objects), tuple(faults))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        groups: dict[Backend, list[Object]] = {}
        for object in objects:
            groups.setdefault((str(object.identity[0]), str(object.identity[1])), []).append(object)
        causes: dict[str, str] = {}
        for backend, group in groups.items():
            causes.update(remove(host, backend, group, deadline))
        return causes


def in_nft(host: Host) -> Iterator[str]:
    """Families that have a chain in an nft table with a name of iptables'."""
    if not nft.in_kernel(host):
        return
    try:
        tables = nft.names_by_table("chain")
    except Unreadable:
        # Then the -save tools that are installed are asked for all they know.
        yield from (family for family in TOOLS if installed(family))
        return
    for family, names in TABLES.items():
        chains = {chain for table in names for chain in tables.get((family, table), ())}
        # A chain of that name may be nft's own: without the tool, only iptables' base chains are worth a fault.
        if chains and (installed(family) or chains & BUILT_IN):
            yield family


def installed(family: str) -> bool:
    """Whether the nft variant of a family's -save tool is there."""
    return find(f"{TOOLS[family]}-nft-save") is not None


def in_legacy(host: Host) -> Iterator[str]:
    """Families that have a table of the legacy backend."""
    for family, path in NAMES.items():
        try:
            if host.read(path).split():
                yield family
        except OSError:
            continue
    if legacy_ebtables(host):
        yield "bridge"


def legacy_ebtables(host: Host) -> list[str]:
    """The tables of legacy ebtables whose modules are loaded (as ebtables-legacy-save finds them)."""
    try:
        modules = host.read("/proc/modules")
    except OSError:
        return []
    names = (line.partition(" ")[0] for line in modules.splitlines())
    return [name.removeprefix("ebtable_") for name in names if name.startswith("ebtable_")]


def read(host: Host, backend: Backend) -> Saved:
    """What a family and backend hold. Raises ToolFault, Unreadable."""
    family, variant = backend
    if family == "bridge" and variant == "legacy":
        saved = Saved()
        for table in legacy_ebtables(host):
            listed = run(["ebtables-legacy", "-t", table, "-L"], package="ebtables").out
            saved.add(parse(as_saved(listed), family))
        return saved
    package = "iptables"
    said = run([f"{TOOLS[family]}-{variant}-save"], package=package, timeout=60.0).out
    saved = parse(said, family)
    if variant == "nft":
        for table in INCOMPATIBLE.findall(said):
            saved.add(by_chain(family, table))
    return saved


def by_chain(family: str, table: str) -> Saved:
    """The chains of a table that the -save tool refuses to show: one foreign rule spoils a table for it.

    `iptables-nft -S CHAIN` still shows every chain that holds none. Raises Unreadable.
    """
    saved, hidden = Saved(), []
    chains = nft.names_by_table("chain").get((family, table), [])
    for chain in chains[:CHAINS]:
        try:
            saved.add(parse(f"*{table}\n" + run([f"{TOOLS[family]}-nft", "-t", table, "-S", chain]).out, family))
        except ToolFault:
            hidden.append(chain)
    hidden += chains[CHAINS:]
    if hidden:
        names = ", ".join(hidden[:10]) + (" ..." if len(hidden) > 10 else "")
        saved.faults.append(
            f"{TOOLS[family]} table {table}: chains with rules that only nft can show were not read: {names}"
            f" (nft list table {family} {table})"
        )
    return saved


def as_saved(listed: str) -> str:
    """What `ebtables-legacy -L` printed, in the form of a save: what the script ebtables-legacy-save does.

    That script itself is no use: it runs `ebtables`, which is ebtables-nft wherever the alternative says so.
    """
    lines: list[str] = []
    chain = ""
    for line in listed.splitlines():
        if table := re.match(r"Bridge table: (\S+)", line):
            lines.append(f"*{table[1]}")
        elif head := re.match(r"Bridge chain: (\S+), entries: \d+, policy: (\S+)", line):
            chain = head[1]
            lines.append(f":{chain} {head[2]}")
        elif line.strip() and chain:
            lines.append(f"-A {chain} {line.strip()}")
    return "\n".join(lines) + "\n"


def parse(text: str, family: str) -> Saved:
    """The rules and user-defined chains in a save (with or without counters), or in what -S prints."""
    saved = Saved()
    table, at = "", 0
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        line = text[at:end]
        if line.startswith("["):  # "[packets:bytes] -A ..."
            at += line.find("]") + 2
            line = text[at:end]
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":"):
            name, _, policy = line[1:].partition(" ")
            # ebtables gives user-defined chains a policy, too.
            if policy.startswith("-") or (family == "bridge" and name not in BUILT_IN):
                saved.chains.append((table, name))
            elif name in BUILT_IN and policy.partition(" ")[0] != "ACCEPT":
                saved.policies.append((table, name, policy.partition(" ")[0]))
        elif line.startswith("-P ") and not line.endswith(" ACCEPT"):
            _, name, policy = [*line.split(), "", ""][:3]
            saved.policies.append((table, name, policy))
        elif line.startswith("-N "):
            saved.chains.append((table, line.split()[1]))
        elif line.startswith("-A "):
            whole = RULE.match(text, at)
            stop = whole.end() if whole else end
            if stop < len(text) and text[stop] != "\n":
                saved.faults.append(f"{TOOLS[family]} table {table}: a rule with an open quote was not read: {line}")
            else:
                chain, _, rest = text[at + len("-A ") : stop].partition(" ")
                saved.rules.append(Rule(table, chain, rest))
                end = stop
        at = end + 1
    return saved


def tokens(text: str) -> list[str]:
    """The words of a saved rule, unquoted: a double quote groups, and a backslash in it escapes (iptables-restore)."""
    return ["".join(unquoted(part) for part in PART.findall(word)) for word in TOKEN.findall(text)]


def unquoted(part: str) -> str:
    return re.sub(r"\\(.)", r"\1", part[1:-1], flags=re.DOTALL) if part.startswith('"') else part


def objects_of(backend: Backend, saved: Saved) -> Iterator[Object]:
    """Rules in their order, then chains."""
    family, variant = backend
    count: Counter[Rule] = Counter()
    references: Counter[tuple[str, str]] = Counter()
    holds: Counter[tuple[str, str]] = Counter()
    for rule in saved.rules:
        count[rule] += 1
        holds[rule.table, rule.chain] += 1
        facts = {"family": family, "backend": variant, **facts_of(rule)}
        references[rule.table, str(facts["target"])] += 1
        n = count[rule]
        key = f"{family} {variant} {rule.table} {rule.line}".replace("\n", "\\n") + (f" #{n}" if n > 1 else "")
        yield Object("xtables", key, (family, variant, rule.table, rule.line, n), facts)
    for table, chain, policy in saved.policies:
        facts = {"family": family, "backend": variant, "table": table, "chain": chain, "policy": policy}
        line = f"-P {chain} {policy}"
        yield Object("xtables", f"{family} {variant} {table} {line}", (family, variant, table, line, 1), facts)
    for table, chain in saved.chains:
        facts = {
            "family": family,
            "backend": variant,
            "table": table,
            "chain": chain,
            "user": True,
            "references": references[table, chain],
            "rules": holds[table, chain],
        }
        line = f"-N {chain}"
        yield Object("xtables", f"{family} {variant} {table} {line}", (family, variant, table, line, 1), facts)


def facts_of(rule: Rule) -> dict[str, Any]:
    """What a rule says, for those who decide whose it is. Negated ("! -i eth0") names count as named."""
    comment: str | None = None
    target = ""
    interfaces: list[str] = []
    macs: list[str] = []
    words = iter(tokens(rule.text))
    for word in words:
        if word in TEXTS:
            value = next(words, "")
            if word == "--comment" and comment is None:
                comment = value
        elif word in INTERFACES:
            value = next(words, "")
            interfaces.append(next(words, "") if value == "!" else value)  # ebtables: "-i ! eth0"
        elif word in JUMPS:
            target = next(words, "")
        else:
            macs += [full_mac(part) for part in re.split(r"[/,=]", word) if MAC.fullmatch(part)]
    return {
        "table": rule.table,
        "chain": rule.chain,
        "rule": rule.text,
        "comment": comment or "",
        "target": target,
        "interfaces": list(dict.fromkeys(interfaces)),
        "macs": list(dict.fromkeys(macs)),
    }


def full_mac(text: str) -> str:
    """Lower case, two digits each: ebtables-legacy prints "0:16:3e:..."."""
    return ":".join(f"{int(part, 16):02x}" for part in text.split(":"))


def remove(host: Host, backend: Backend, objects: Sequence[Object], deadline: Deadline) -> dict[str, str]:
    """Remove rules and chains of one family and backend. Returns causes by object id."""
    before: set[str] = set()
    batch = Batch()
    for _ in range(ATTEMPTS):
        try:
            batch = choose(read(host, backend), objects)
        except (ToolFault, Unreadable) as fault:
            return {object.id: str(fault) for object in objects}
        if not batch.ids():
            return batch.causes
        if batch.ids() == before:
            break  # nothing had vanished: one of them cannot go, and must not hinder the others
        before = batch.ids()
        try:
            restore_all(backend, batch, deadline)
            return batch.causes
        except ToolMissing as fault:
            return {object.id: str(fault) for object in objects}
        except ToolFault:
            continue
    return one_by_one(host, backend, batch, deadline)


def choose(saved: Saved, objects: Sequence[Object]) -> Batch:
    """Which of `objects` are there now and can go. What had vanished is in neither list.

    A chain that is jumped to by a rule that stays, or that holds more rules than it did when it was listed,
    stays: flushing it would take somebody else's rules. One that is `only_empty` also stays for any that stays in it.
    """
    batch = Batch()
    there = Counter((rule.table, rule.line) for rule in saved.rules)
    known = set(saved.chains)
    rules = {(rule.table, rule.line): rule for rule in saved.rules}
    going: Counter[tuple[str, str]] = Counter()
    chains: dict[tuple[str, str], Object] = {}
    for object in objects:
        table, line, n = str(object.identity[2]), str(object.identity[3]), int(object.identity[4])
        if line.startswith("-P "):
            batch.causes[object.id] = "a policy is not removed"
            continue
        if line.startswith("-N "):
            if (table, line[3:]) in known:
                chains[table, line[3:]] = object
        elif n <= there[table, line]:
            batch.rules.append((object, rules[table, line]))
            going[table, line] += 1

    holds = Counter((rule.table, rule.chain) for rule in saved.rules)
    for name, object in list(chains.items()):
        if holds[name] > int(object.facts.get("rules", holds[name])):
            batch.causes[object.id] = f"holds {holds[name]} rules now, {object.facts['rules']} when it was listed"
            del chains[name]
    leaving = Counter((rule.table, rule.chain) for _, rule in batch.rules)
    for name, object in list(chains.items()):
        if object.facts.get("only_empty") and holds[name] > leaving[name]:
            batch.causes[object.id] = f"holds {holds[name] - leaving[name]} rules that stay"
            del chains[name]

    staying = (there - going).keys() if chains else ()
    jumps = [(rules[key].table, rules[key].chain, str(facts_of(rules[key])["target"])) for key in staying]
    while True:
        # A rule that stays goes all the same when its own chain is flushed; a chain that stays keeps its rules.
        held = {(table, target): chain for table, chain, target in jumps if (table, chain) not in chains}
        stuck = [name for name in chains if name in held]
        if not stuck:
            break
        for name in stuck:
            batch.causes[chains.pop(name).id] = f"a rule of chain {held[name]} that stays jumps to it"
    batch.chains = list(chains.values())
    return batch


def restore_all(backend: Backend, batch: Batch, deadline: Deadline) -> None:
    """Remove a batch in one restore; first, by their own commands, the rules that no restore can read.

    Raises ToolFault: then, of each table in it, nothing was removed or all.
    """
    if backend == ("bridge", "legacy"):
        # ebtables-legacy-restore always flushes.
        raise ToolFault("ebtables-legacy-restore", "has no --noflush")
    # What is in a chain that is flushed goes with that: to look for each of thousands of rules in its chain is what
    # makes a restore slow.
    flushed = {chain_of(object) for object in batch.chains if not object.facts.get("only_empty")}
    rules = [rule for _, rule in batch.rules if (rule.table, rule.chain) not in flushed]
    for rule in rules:
        if not restorable(rule):
            delete_rule(backend, rule, deadline)
    lines = script([rule for rule in rules if restorable(rule)], batch.chains)
    if lines:
        restore(backend, lines, deadline)


def restorable(rule: Rule) -> bool:
    """A restore reads its input by lines, so a newline in a comment, though legal, breaks it."""
    return "\n" not in rule.text and len(rule.text) < LINE


def script(rules: Sequence[Rule], chains: Sequence[Object]) -> str:
    """The input of a restore: for each table rules, then the contents of all chains, then the chains."""
    tables: dict[str, list[str]] = {}
    for rule in rules:
        tables.setdefault(rule.table, []).append(f"-D {rule.chain} {rule.text}")
    for step in ("-F", "-X"):
        for object in chains:
            table, chain = chain_of(object)
            # Without the flush, the restore fails if there came a rule in the meantime.
            if step == "-X" or not object.facts.get("only_empty"):
                tables.setdefault(table, []).append(f"{step} {chain}")
    return "".join(f"*{table}\n" + "\n".join(lines) + "\nCOMMIT\n" for table, lines in tables.items())


def chain_of(object: Object) -> tuple[str, str]:
    return str(object.identity[2]), str(object.identity[3]).removeprefix("-N ")


def restore(backend: Backend, lines: str, deadline: Deadline) -> None:
    """Run a family's restore. Raises ToolFault."""
    family, variant = backend
    # The legacy backend has a lock (/run/xtables.lock), the nft one has transactions.
    wait = ["-w", str(max(1, int(min(5.0, deadline.left()))))] if variant == "legacy" else []
    run(
        [f"{TOOLS[family]}-{variant}-restore", *wait, "--noflush"],
        stdin=lines,
        timeout=max(1.0, deadline.left()),
        package="iptables",
    )


def delete_rule(backend: Backend, rule: Rule, deadline: Deadline) -> None:
    """Delete one rule by a command of its own. Raises ToolFault."""
    family, variant = backend
    wait = {("bridge", "nft"): [], ("bridge", "legacy"): ["--concurrent"]}.get(backend, ["-w", "5"])
    argv = [f"{TOOLS[family]}-{variant}", *wait, "-t", rule.table, "-D", rule.chain, *tokens(rule.text)]
    run(argv, timeout=max(1.0, min(10.0, deadline.left())), package="iptables")


def delete_chain(backend: Backend, object: Object, deadline: Deadline) -> None:
    """Flush and delete one chain, in one commit where there is a restore. Raises ToolFault."""
    if backend != ("bridge", "legacy"):
        restore(backend, script([], [object]), deadline)
        return
    table, chain = chain_of(object)
    for step in ("-X",) if object.facts.get("only_empty") else ("-F", "-X"):
        run(["ebtables-legacy", "--concurrent", "-t", table, step, chain], package="ebtables")


def one_by_one(host: Host, backend: Backend, batch: Batch, deadline: Deadline) -> dict[str, str]:
    """Remove each of a batch on its own, rules before chains. Returns causes by object id."""
    causes: dict[str, str] = {}
    for object, rule in batch.rules:
        try:
            if deadline.passed():
                raise ToolFault(object.key, "no time left")
            delete_rule(backend, rule, deadline)
        except ToolFault as fault:
            causes[object.id] = fault.cause
    for object in batch.chains:
        try:
            if deadline.passed():
                raise ToolFault(object.key, "no time left")
            delete_chain(backend, object, deadline)
        except ToolFault as fault:
            causes[object.id] = fault.cause
    if causes:
        try:
            present = choose(read(host, backend), [*(object for object, _ in batch.rules), *batch.chains])
            kept = present.ids() | set(present.causes)
            causes = {id: cause for id, cause in causes.items() if id in kept}
        except (ToolFault, Unreadable):
            pass  # cannot tell what had vanished: all of them are reported
    return {**batch.causes, **causes}
