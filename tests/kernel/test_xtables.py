"""iptables, ip6tables and ebtables rules on a real kernel, both backends; bystanders survive byte for byte.

ebtables-legacy is not tried: it needs modules that this kernel does not have.
"""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from sandbox import private, sh

from leftovers.host import Host
from leftovers.kinds import xtables
from leftovers.kinds.kind import Look
from leftovers.kinds.xtables import XtablesRules
from leftovers.model import Deadline, Object, Verb

BACKENDS = [("ip", "nft"), ("ip6", "nft"), ("ip", "legacy"), ("ip6", "legacy")]
each_backend = pytest.mark.parametrize("backend", BACKENDS, ids="-".join)

COMMENT = "generated for Incus network incusbr0"
ODD = """it's "quoted", 50% \\ back\\slash, -j DROP, ümläut\tand a tab"""


def tool(backend: tuple[str, str], *argv: str) -> str:
    return sh(f"{xtables.TOOLS[backend[0]]}-{backend[1]}", *argv)


def saved(backend: tuple[str, str]) -> str:
    """A save without what changes by itself: times and counters."""
    text = sh(f"{xtables.TOOLS[backend[0]]}-{backend[1]}-save")
    return re.sub(r"^#.*\n|\[\d+:\d+\]", "", text, flags=re.MULTILINE)


def survey(faults: tuple[str, ...] = ()) -> list[Object]:
    listing = XtablesRules().survey(Look(Host()))
    assert listing.faults == faults
    assert len({object.key for object in listing.objects}) == len(listing.objects)
    assert len({object.identity for object in listing.objects}) == len(listing.objects)
    return list(listing.objects)


def ours(objects: list[Object], word: str = "Incus") -> list[Object]:
    return [object for object in objects if word in str(object.facts.get("comment", ""))]


def act(objects: list[Object]) -> dict[str, str]:
    return dict(XtablesRules().act(Host(), Verb.REMOVE, objects, Deadline(30)))


def bystanders(backend: tuple[str, str]) -> None:
    """Somebody else's: rules that differ from ours in one word, a chain of our chain's name in another table."""
    local = "10.0.0.0/24" if backend[0] == "ip" else "fd00::/64"
    tool(backend, "-A", "FORWARD", "-i", "incusbr0", "-m", "comment", "--comment", f"{COMMENT}1", "-j", "ACCEPT")
    tool(backend, "-A", "FORWARD", "-i", "incusbr0", "-j", "ACCEPT")
    tool(backend, "-A", "FORWARD", "-o", "incusbr0", "-m", "comment", "--comment", "mine", "-j", "ACCEPT")
    tool(backend, "-A", "INPUT", "-p", "tcp", "--dport", "22", "-m", "comment", "--comment", 'my "ssh"', "-j", "ACCEPT")
    tool(backend, "-N", "ADMIN")
    tool(backend, "-A", "ADMIN", "-s", local, "-j", "RETURN")
    tool(backend, "-A", "FORWARD", "-j", "ADMIN")
    tool(backend, "-t", "mangle", "-N", "incus_acl")
    tool(backend, "-t", "mangle", "-A", "incus_acl", "-j", "RETURN")
    tool(backend, "-P", "FORWARD", "DROP")


def product(backend: tuple[str, str]) -> None:
    """What a product leaves: commented rules in two tables, before, between and after the bystanders'."""
    local = "10.0.0.0/24" if backend[0] == "ip" else "fd00::/64"
    commented = ("-m", "comment", "--comment", COMMENT)
    tool(backend, "-I", "FORWARD", "-i", "incusbr0", *commented, "-j", "ACCEPT")
    tool(backend, "-I", "FORWARD", "2", "-o", "incusbr0", *commented, "-j", "ACCEPT")
    tool(backend, "-A", "FORWARD", "-i", "incusbr0", "!", "-o", "eth0", *commented, "-j", "ACCEPT")
    tool(backend, "-t", "nat", "-A", "POSTROUTING", "-s", local, "!", "-d", local, *commented, "-j", "MASQUERADE")


@private
def test_asking_changes_nothing() -> None:
    before = [Path(path).read_text() for path in xtables.NAMES.values()]
    assert survey() == []
    assert sh("nft", "list", "ruleset") == ""
    assert [Path(path).read_text() for path in xtables.NAMES.values()] == before


@private
def test_saving_makes_no_chains() -> None:
    """What the docstring of xtables says about iptables-nft-save."""
    sh("iptables-nft", "-N", "LONE")
    sh("ebtables-nft", "-N", "LONE")
    before = sh("nft", "-a", "list", "ruleset")
    assert [object.key for object in survey()] == ["ip nft filter -N LONE", "bridge nft filter -N LONE"]
    assert sh("nft", "-a", "list", "ruleset") == before


@each_backend
@private
def test_bystanders_survive(backend: tuple[str, str]) -> None:
    bystanders(backend)
    product(backend)
    # The tables that the product made stay, empty: compare with a state that has them.
    before = [line for line in saved(backend).splitlines() if f'"{COMMENT}"' not in line]
    objects = [object for object in survey() if object.facts.get("comment") == COMMENT]
    assert len(objects) == 4
    assert act(objects) == {}
    assert saved(backend).splitlines() == before


@each_backend
@private
def test_facts(backend: tuple[str, str]) -> None:
    family, variant = backend
    product(backend)
    objects = {object.key: object for object in ours(survey())}
    key = f'{family} {variant} filter -A FORWARD -i incusbr0 ! -o eth0 -m comment --comment "{COMMENT}" -j ACCEPT'
    assert objects[key].facts == {
        "family": family,
        "backend": variant,
        "table": "filter",
        "chain": "FORWARD",
        "rule": f'-i incusbr0 ! -o eth0 -m comment --comment "{COMMENT}" -j ACCEPT',
        "comment": COMMENT,
        "target": "ACCEPT",
        "interfaces": ["incusbr0", "eth0"],
        "macs": [],
    }
    assert {object.facts["table"] for object in objects.values()} == {"filter", "nat"}


@each_backend
@private
def test_comments_of_any_kind(backend: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment with a newline cannot be in a restore's input: it goes by a command of its own, the rest does not."""
    monkeypatch.setattr(xtables, "one_by_one", None)
    for comment in (ODD, "two\nlines", "x\nCOMMIT\n-A FORWARD -j DROP", "-j", "", "a" * 250):
        tool(backend, "-A", "FORWARD", "-i", "lo", "-m", "comment", "--comment", comment, "-j", "RETURN")
    tool(backend, "-A", "FORWARD", "-i", "lo", "-m", "comment", "--comment", ODD.lower() + "x", "-j", "RETURN")
    objects = survey()
    assert [object.facts["comment"] for object in objects][:4] == [
        ODD,
        "two\nlines",
        "x\nCOMMIT\n-A FORWARD -j DROP",
        "-j",
    ]
    assert {object.facts["target"] for object in objects} == {"RETURN"}
    assert not any("\n" in object.key for object in objects)
    assert act(objects[:-1]) == {}
    assert [object.identity for object in survey()] == [objects[-1].identity]


@each_backend
@private
def test_only_as_many_duplicates_as_asked_for(backend: tuple[str, str]) -> None:
    for interface in ("lo", "eth0", "lo", "lo"):
        tool(backend, "-A", "FORWARD", "-i", interface, "-m", "comment", "--comment", "same", "-j", "ACCEPT")
    objects = survey()
    family, variant = backend
    first = f"{family} {variant} filter -A FORWARD -i lo -m comment --comment same -j ACCEPT"
    assert [object.key for object in objects if "-i lo" in object.key] == [first, f"{first} #2", f"{first} #3"]
    assert act([object for object in objects if object.key.endswith("#3")]) == {}
    assert sorted(object.key for object in survey() if "-i lo" in object.key) == [first, f"{first} #2"]
    assert act([object for object in objects if "-i lo" in object.key]) == {}
    assert [object.facts["interfaces"] for object in survey()] == [["eth0"]]


@each_backend
@private
def test_one_that_vanished_hinders_nobody(backend: tuple[str, str]) -> None:
    bystanders(backend)
    product(backend)
    objects = [object for object in survey() if object.facts.get("comment") == COMMENT]
    tool(backend, "-D", "FORWARD", "1")
    assert act(objects) == {}
    assert not [object for object in survey() if object.facts.get("comment") == COMMENT]


@each_backend
@private
def test_one_that_vanished_between_choosing_and_removing(
    backend: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The restore then fails as a whole (of one table), and the next one goes without what had vanished."""
    bystanders(backend)
    product(backend)
    objects = [object for object in survey() if object.facts.get("comment") == COMMENT]
    real, calls = xtables.restore, []

    def late(*args: object) -> None:
        if not calls:
            tool(backend, "-D", "FORWARD", "1")
        calls.append(args)
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(xtables, "restore", late)
    assert act(objects) == {}
    assert len(calls) == 2
    assert not [object for object in survey() if object.facts.get("comment") == COMMENT]
    assert f"{COMMENT}1" in saved(backend)


@each_backend
@private
def test_chains_go_after_the_rules_that_jump_to_them(backend: tuple[str, str]) -> None:
    bystanders(backend)
    before = saved(backend)
    tool(backend, "-N", "incus_acl")
    tool(backend, "-N", "incus_nic")
    tool(backend, "-A", "incus_acl", "-i", "veth1", "-g", "incus_nic")
    tool(backend, "-A", "incus_nic", "-j", "DROP")
    tool(backend, "-A", "incus_nic", "-j", "DROP")
    tool(backend, "-I", "FORWARD", "-i", "incusbr0", "-j", "incus_acl")
    objects = survey()
    chains = {object.facts["chain"]: object for object in objects if object.facts.get("user")}
    # The two of one name are in two tables.
    assert sorted(object.key.split()[2] for object in objects if object.key.endswith("-N incus_acl")) == [
        "filter",
        "mangle",
    ]
    assert (chains["incus_nic"].facts["references"], chains["incus_nic"].facts["rules"]) == (1, 2)
    mine = [
        object
        for object in objects
        if object.facts["table"] == "filter"
        and ("incus_" in str(object.facts["chain"]) or object.facts.get("target") == "incus_acl")
    ]
    assert len(mine) == 2 + 3 + 1
    assert act(mine[::-1]) == {}
    assert saved(backend) == before


@each_backend
@private
def test_a_chain_that_somebody_uses_stays(backend: tuple[str, str]) -> None:
    """Also the chain that only it jumps to; nothing of either is flushed, and the others go."""
    for chain in ("used", "below", "free"):
        tool(backend, "-N", chain)
        tool(backend, "-A", chain, "-i", "veth1", "-j", "DROP")
    tool(backend, "-A", "used", "-j", "below")
    tool(backend, "-A", "FORWARD", "-j", "used")
    tool(backend, "-A", "FORWARD", "-j", "free")
    objects = survey()
    asked = [o for o in objects if o.facts.get("user") or o.facts.get("target") == "free"]
    before = saved(backend)
    causes = act(asked)
    family, variant = backend
    assert causes == {
        f"xtables:{family} {variant} filter -N used": "a rule of chain FORWARD that stays jumps to it",
        f"xtables:{family} {variant} filter -N below": "a rule of chain used that stays jumps to it",
    }
    assert saved(backend).splitlines() == [line for line in before.splitlines() if "free" not in line]


@each_backend
@private
def test_a_chain_that_got_another_rule_stays(backend: tuple[str, str]) -> None:
    tool(backend, "-N", "incus_acl")
    tool(backend, "-A", "incus_acl", "-j", "DROP")
    objects = survey()
    tool(backend, "-I", "incus_acl", "-s", "::1" if backend[0] == "ip6" else "127.0.0.1", "-j", "ACCEPT")
    before = saved(backend)
    causes = act([object for object in objects if object.facts.get("user")])
    assert list(causes.values()) == ["holds 2 rules now, 1 when it was listed"]
    assert saved(backend) == before


@each_backend
@private
def test_one_that_cannot_go_hinders_nobody(backend: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that its own tool cannot take back: here, its text in the batch is spoiled."""
    bystanders(backend)
    product(backend)
    objects = [object for object in survey() if object.facts.get("comment") == COMMENT]
    real = xtables.choose

    def spoiled(saved: xtables.Saved, asked: list[Object]) -> xtables.Batch:
        batch = real(saved, asked)
        batch.rules = [
            (object, xtables.Rule(rule.table, rule.chain, "-i nonsense") if rule.table == "nat" else rule)
            for object, rule in batch.rules
        ]
        return batch

    restores = []
    real_restore = xtables.restore
    monkeypatch.setattr(xtables, "restore", lambda *args: restores.append(args) or real_restore(*args))
    monkeypatch.setattr(xtables, "choose", spoiled)
    causes = act(objects)
    # It is tried again only where something had vanished: filter's rules had, by the first restore.
    assert len(restores) <= 2
    assert list(causes) == [object.id for object in objects if object.facts["table"] == "nat"]
    assert all(causes.values())
    left = [object for object in survey() if object.facts.get("comment") == COMMENT]
    assert [object.facts["table"] for object in left] == ["nat"]


@each_backend
@private
def test_five_hundred_rules_in_one_restore(backend: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    bystanders(backend)
    before = saved(backend)
    rules = [f'-A FORWARD -i veth{n} -m comment --comment "{COMMENT}" -j ACCEPT' for n in range(500)]
    text = "\n".join(["*filter", *rules, "COMMIT", ""])
    sh(f"{xtables.TOOLS[backend[0]]}-{backend[1]}-restore", "--noflush", stdin=text)
    objects = [object for object in survey() if object.facts.get("comment") == COMMENT]
    assert len(objects) == 500
    programs = []
    real = xtables.run
    monkeypatch.setattr(xtables, "run", lambda argv, **options: programs.append(argv[0]) or real(argv, **options))
    start = time.monotonic()
    assert act(objects) == {}
    seconds = time.monotonic() - start
    assert saved(backend) == before
    assert [program.rpartition("-")[2] for program in programs] == ["save", "restore"]
    assert seconds < 2.0


@private
def test_all_backends_in_one_batch() -> None:
    for backend in BACKENDS:
        bystanders(backend)
        product(backend)
    sh("ebtables-nft", "-A", "FORWARD", "-i", "vethbbbb", "-j", "DROP")
    objects = [object for object in survey() if object.facts.get("comment") == COMMENT]
    assert len(objects) == 16
    ebtables = saved(("bridge", "nft"))
    assert act(objects) == {}
    for backend in BACKENDS:
        assert f'"{COMMENT}"' not in saved(backend)
        assert f"{COMMENT}1" in saved(backend)
    assert saved(("bridge", "nft")) == ebtables


@private
def test_ebtables() -> None:
    theirs = [
        "-A FORWARD -s ! 00:16:3e:00:00:01 -i vethbbbb -j DROP",
        "-t nat -A POSTROUTING -o vethbbbb -j ACCEPT",
        "-N ADMIN",
        "-A ADMIN -i vethaaaa -j CONTINUE",
        "-A FORWARD -j ADMIN",
    ]
    mine = [
        "-A FORWARD -s ! 00:16:3e:00:00:01 -i vethaaaa -j DROP",
        "-A FORWARD -p ARP -i vethaaaa --arp-mac-src ! 00:16:3e:00:00:01 -j DROP",
        "-A FORWARD -p ARP -i vethaaaa --arp-ip-src ! 10.0.0.2 -j DROP",
        "-A FORWARD -p IPv4 -i vethaaaa --ip-src 0.0.0.0 --ip-dst 255.255.255.255 --ip-proto udp -j ACCEPT",
        "-A FORWARD -p IPv6 -i vethaaaa --ip6-src ! fd00::2 -j DROP",
        "-t nat -A POSTROUTING -o vethaaaa -j snat --to-source 00:16:3e:00:00:02",
        "-t nat -A POSTROUTING -o vethaaaa -j ACCEPT",
        "-N incus_nic -P DROP",
        "-A incus_nic -i vethaaaa -j ACCEPT",
        "-A FORWARD -i vethaaaa -j incus_nic",
    ]
    sh("ebtables-nft", "-t", "nat", "-N", "KEEP")
    for line in theirs:
        sh("ebtables-nft", *line.split())
    before = saved(("bridge", "nft"))
    for line in mine:
        sh("ebtables-nft", *line.split())
    objects = survey()
    asked = [
        object
        for object in objects
        if (object.facts.get("interfaces") == ["vethaaaa"] and object.facts["chain"] != "ADMIN")
        or object.facts["chain"] == "incus_nic"
    ]
    assert len(asked) == len(mine)
    assert {mac for object in asked for mac in object.facts.get("macs", [])} == {
        "00:16:3e:00:00:01",
        "00:16:3e:00:00:02",
    }
    assert {object.facts["family"] for object in objects} == {"bridge"}
    assert act(asked) == {}
    assert saved(("bridge", "nft")) == before


@private
def test_a_foreign_rule_hides_only_its_own_chain() -> None:
    """iptables-nft-save shows nothing of a table with one rule that only nft can show; -S CHAIN shows the rest."""
    product(("ip", "nft"))
    sh("iptables-nft", "-N", "ADMIN")
    sh("nft", "add rule ip filter ADMIN ct state established tcp dport { 22, 23 } accept comment mine")
    assert "is incompatible" in sh("iptables-nft-save")
    hidden = (
        "iptables table filter: chains with rules that only nft can show were not read: ADMIN"
        " (nft list table ip filter)",
    )
    objects = ours(survey(hidden))
    assert len(objects) == 4
    assert act(objects) == {}
    assert ours(survey(hidden)) == []
    assert "dport { 22, 23 }" in sh("nft", "list", "chain", "ip", "filter", "ADMIN")


@private
def test_tables_of_nft_alone_are_no_fault() -> None:
    sh("nft", "add table ip filter")
    sh("nft", "add chain ip filter input { type filter hook input priority 0; }")
    sh("nft", "add rule ip filter input ct state established tcp dport { 22, 23 } accept")
    assert survey() == []


@private
def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    product(("ip", "nft"))
    product(("ip6", "legacy"))
    from leftovers import run

    monkeypatch.setattr(run, "DIRECTORIES", ("/nonexistent",))
    survey(
        (
            "iptables rules (nft): iptables-nft-save: not installed (apt install iptables)",
            "ip6tables rules (legacy): ip6tables-legacy-save: not installed (apt install iptables)",
        )
    )


def services(backend: tuple[str, str], count: int) -> str:
    """As kube-proxy leaves them: two chains and three rules for each service."""
    address = "10.{}.{}.1" if backend[0] == "ip" else "fd00::{}:{}"
    lines = ["*nat", ":KUBE-SERVICES - [0:0]"]
    for i in range(count):
        lines += [f":KUBE-SVC-{i:016d} - [0:0]", f":KUBE-SEP-{i:016d} - [0:0]"]
    lines.append('-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES')
    for i in range(count):
        name = f'-m comment --comment "default/service{i}"'
        lines += [
            f"-A KUBE-SERVICES -d {address.format(i // 250, i % 250)} -p tcp {name} -j KUBE-SVC-{i:016d}",
            f"-A KUBE-SVC-{i:016d} {name} -j KUBE-SEP-{i:016d}",
            f"-A KUBE-SEP-{i:016d} -p tcp {name} -j RETURN",
        ]
    return "\n".join([*lines, "COMMIT", ""])


@each_backend
@private
def test_thousands_of_chains_go_in_one_restore(backend: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    family, variant = backend
    tool(backend, "-t", "nat", "-N", "KUBE-ADMIN")
    tool(backend, "-t", "nat", "-A", "KUBE-ADMIN", "-j", "RETURN")
    tool(backend, "-t", "nat", "-A", "PREROUTING", "-i", "eth0", "-j", "KUBE-ADMIN")
    before = saved(backend)
    sh(f"{xtables.TOOLS[family]}-{variant}-restore", "--noflush", stdin=services(backend, 2500))
    objects = [object for object in survey() if "KUBE-S" in object.key]
    assert len([object for object in objects if object.facts.get("user")]) == 5001
    assert len(objects) == 5001 + 7501
    restores: list[str] = []
    real = xtables.restore

    def counted(backend: tuple[str, str], lines: str, deadline: Deadline) -> None:
        restores.append(lines)
        real(backend, lines, deadline)

    monkeypatch.setattr(xtables, "restore", counted)
    monkeypatch.setattr(xtables, "one_by_one", None)
    causes = XtablesRules().act(Host(), Verb.REMOVE, objects, Deadline(120))
    assert causes == {} and len(restores) == 1
    assert restores[0].count("\n-D ") == 1, "what is in a chain that goes needs no search of its own"
    assert saved(backend) == before


def shared(backend: tuple[str, str]) -> list[Object]:
    """The chain of all port mappings of all runtimes, with the rules of two; ours and the chain are asked for."""
    local = "10.1.0.9" if backend[0] == "ip" else "fd00::9"
    nat = ("-t", "nat")
    for chain in ("CNI-HOSTPORT-DNAT", "CNI-DN-theirs", "CNI-DN-ours"):
        tool(backend, *nat, "-N", chain)
    tool(backend, *nat, "-A", "PREROUTING", "-m", "addrtype", "--dst-type", "LOCAL", "-j", "CNI-HOSTPORT-DNAT")
    for name, port in (("ours", "80"), ("theirs", "81")):
        says = ("-m", "comment", "--comment", f'dnat name: "net" id: "{name}"')
        tool(backend, *nat, "-A", "CNI-HOSTPORT-DNAT", "-p", "tcp", *says, "--dport", port, "-j", f"CNI-DN-{name}")
        tool(backend, *nat, "-A", f"CNI-DN-{name}", "-p", "tcp", "-d", local, "-j", "RETURN")
    return [
        replace(object, facts={**object.facts, "only_empty": True})
        if object.facts["chain"] == "CNI-HOSTPORT-DNAT" and object.facts.get("user")
        else object
        for object in survey()
        if "theirs" not in object.key
    ]


@each_backend
@private
def test_a_shared_chain_loses_single_rules(backend: tuple[str, str]) -> None:
    """And stays, with the jump to it, as long as somebody else has a rule in it."""
    family, variant = backend
    asked = [object for object in shared(backend) if object.facts.get("target") != "CNI-HOSTPORT-DNAT"]
    before = saved(backend)
    key = f"xtables:{family} {variant} nat -N CNI-HOSTPORT-DNAT"
    causes = act(asked)
    assert causes == {key: "holds 1 rules that stay"}
    assert saved(backend).splitlines() == [line for line in before.splitlines() if "ours" not in line]


@each_backend
@private
def test_a_shared_chain_goes_when_it_is_empty_and_nothing_jumps_to_it(backend: tuple[str, str]) -> None:
    family, variant = backend
    shared(backend)
    for chain in ("CNI-HOSTPORT-DNAT", "CNI-DN-theirs"):
        tool(backend, "-t", "nat", "-F", chain)
    objects = [
        replace(object, facts={**object.facts, "only_empty": True}) if object.facts.get("user") else object
        for object in survey()
    ]
    key = f"xtables:{family} {variant} nat -N CNI-HOSTPORT-DNAT"
    asked = [object for object in objects if object.id == key]
    assert act(asked) == {key: "a rule of chain PREROUTING that stays jumps to it"}
    asked += [object for object in objects if object.facts["chain"] == "PREROUTING"]
    assert act(asked) == {}
    assert "HOSTPORT" not in saved(backend) and ":CNI-DN-theirs" in saved(backend)


@each_backend
@private
def test_a_shared_chain_that_gets_a_rule_under_way_stays(
    backend: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not flushed, so the restore fails as a whole, and what can go goes with the next one."""
    asked = [object for object in shared(backend) if object.facts["chain"] != "CNI-DN-ours"]
    tool(backend, "-t", "nat", "-D", "CNI-HOSTPORT-DNAT", "2")
    real, calls = xtables.restore, []

    def late(*args: object) -> None:
        if not calls:
            tool(backend, "-t", "nat", "-A", "CNI-HOSTPORT-DNAT", "-j", "CNI-DN-theirs")
        calls.append(args)
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(xtables, "restore", late)
    family, variant = backend
    assert set(act(asked)) == {f"xtables:{family} {variant} nat -N CNI-HOSTPORT-DNAT"}
    assert "-A CNI-HOSTPORT-DNAT -j CNI-DN-theirs" in saved(backend)
    assert '"ours"' not in saved(backend)
