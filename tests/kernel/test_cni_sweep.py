"""What a network plugin leaves, all kinds at once, by one sweep: in an order in which each can go."""

from __future__ import annotations

from pathlib import Path

import test_bpf
from sandbox import private, sh
from things import HOST, look, until

from leftovers.model import Action, Deadline, Evidence, Object, Outcome, Plan, Result, Scope, Verb
from leftovers.plan import order
from leftovers.sweep import sweep

SCOPE = Scope(
    routes=("protocol 80", "table 2004"),
    nft_tables=("inet cni_plugins_masquerade",),
    bpf=("/sys/fs/bpf/cilium",),
)
KINDS = ("xtables", "nftrule", "nft", "ipset", "bpf", "rule", "route", "address", "link", "netns")
MASQUERADE = "table inet cni_plugins_masquerade {\n chain masq_checks {\n }\n}\n"


def host() -> None:
    """An administrator's own, of each kind."""
    test_bpf.mounted()
    (test_bpf.ROOT / "admin").mkdir()
    test_bpf.pin(test_bpf.make_map(), test_bpf.ROOT / "admin/map")
    sh("ip", "link", "add", "br0", "type", "bridge")
    sh("ip", "link", "set", "br0", "addrgenmode", "none", "up")
    sh("ip", "address", "add", "192.168.7.1/24", "dev", "br0", "label", "br0:admin")
    sh("ip", "route", "add", "10.7.0.0/24", "via", "192.168.7.2", "proto", "static")
    sh("ip", "rule", "add", "pref", "50", "fwmark", "0x1", "lookup", "77")
    sh("ipset", "create", "admin", "hash:ip")
    sh("iptables-legacy", "-A", "INPUT", "-m", "set", "--match-set", "admin", "src", "-j", "ACCEPT")
    sh("nft", "-f", "-", stdin=MASQUERADE)
    sh("nft", "add", "rule", "inet", "cni_plugins_masquerade", "masq_checks", "accept", "comment", "admin")
    sh("ip", "netns", "add", "admin")


def plugin() -> None:
    sh("ip", "netns", "add", "cni-1")
    sh("ip", "link", "add", "cali1", "type", "veth", "peer", "eth0", "netns", "cni-1")
    sh("ip", "link", "set", "cali1", "addrgenmode", "none", "up")
    sh("ip", "route", "add", "10.1.0.7", "dev", "cali1", "proto", "80")
    sh("ip", "route", "add", "blackhole", "10.1.0.0/26", "proto", "80")
    sh("ip", "route", "add", "local", "default", "dev", "lo", "table", "2004")
    sh("ip", "rule", "add", "pref", "9", "fwmark", "0x200/0xf00", "lookup", "2004")
    for option in ("-4", "-6"):
        sh("ip", option, "rule", "add", "pref", "100", "lookup", "local", "proto", "kernel")
        sh("ip", option, "rule", "delete", "pref", "0")
    sh("ip", "address", "add", "10.0.1.1/32", "dev", "lo", "label", "lo:plugin")
    for name in ("cali40a", "cali40b"):
        sh("ipset", "create", name, "hash:net")
    sh("ipset", "create", "cali40all", "list:set")
    sh("ipset", "add", "cali40all", "cali40b")
    sh("iptables-legacy", "-N", "cali-x")
    sh("iptables-legacy", "-A", "cali-x", "-m", "set", "--match-set", "cali40a", "src", "-j", "ACCEPT")
    sh("iptables-legacy", "-A", "INPUT", "-m", "comment", "--comment", "cali:x", "-j", "cali-x")
    sh("nft", "add", "rule", "inet", "cni_plugins_masquerade", "masq_checks", "drop", "comment", "plugin")
    (test_bpf.ROOT / "cilium").mkdir()
    test_bpf.pin(test_bpf.make_map(), test_bpf.ROOT / "cilium/map")


def state() -> dict[str, str]:
    # The kernel adds a route of its own for an address of IPv6 when it knows that nobody else has it.
    until(lambda: "tentative" not in sh("ip", "-6", "address"), 20.0)
    said = {
        " ".join(argv): sh(*argv)
        for argv in (
            *(("ip", option, "rule") for option in ("-4", "-6")),
            *(("ip", option, "route", "show", "table", "all") for option in ("-4", "-6")),
            *(("ip", "-brief", "address"), ("ip", "netns"), ("ipset", "save"), ("nft", "-a", "list", "ruleset")),
            ("iptables-legacy", "-S"),
        )
    }
    return {**said, "pins": " ".join(test_bpf.tree())}


def listed() -> dict[str, Object]:
    found = look(*KINDS, scope=SCOPE)
    return {obj.id: obj for kind in KINDS for obj in found[kind].values()}


def swept(plan: Plan) -> list[Outcome]:
    return sweep(HOST, plan, SCOPE, Deadline(60), note=lambda outcomes: None)


@private
def test_all_kinds_in_one_sweep() -> None:
    host()
    before, theirs = state(), listed()
    plugin()
    asked = [
        obj
        for id, obj in listed().items()
        if id not in theirs and obj.kind != "nft" and (obj.kind != "link" or obj.facts["host"])
    ]
    assert {obj.kind for obj in asked} == set(KINDS) - {"nft"}
    said = (Evidence("kernel", "made by this test"),)
    actions = [Action(Verb.REMOVE, obj, "plugin", "left", said) for obj in asked]
    plan = Plan(("plugin",), tuple(sorted(actions, key=order)))
    outcomes = swept(plan)
    assert [(outcome.action.id, outcome.detail) for outcome in outcomes if outcome.result is Result.FAILED] == []
    assert len(outcomes) == len(asked) >= 17
    # The kernel took the route of a link's along with it, if that went first: gone, as was wanted.
    assert {outcome.result for outcome in outcomes} <= {Result.DONE, Result.GONE}
    assert state() == before
    assert {outcome.result for outcome in swept(plan)} == {Result.GONE}
    assert state() == before


@private
def test_one_made_anew_is_said_to_be_another() -> None:
    host()
    sh("ipset", "create", "cali40a", "hash:net")
    sh("ip", "route", "add", "blackhole", "10.1.0.0/26", "proto", "80")
    asked = [obj for id, obj in listed().items() if id in ("ipset:cali40a", "route:ip table 254 10.1.0.0/26")]
    assert len(asked) == 2
    sh("ipset", "destroy", "cali40a")
    sh("ipset", "create", "cali40a", "hash:net")
    sh("ip", "route", "replace", "10.1.0.0/26", "via", "192.168.7.2", "proto", "80")
    before = state()
    actions = [Action(Verb.REMOVE, obj, "plugin", "left", ()) for obj in asked]
    assert [outcome.result for outcome in swept(Plan(("plugin",), tuple(actions)))] == [Result.CHANGED] * 2
    assert state() == before
    assert Path("/sys/fs/bpf/admin/map").exists()
