"""Single rules of shared nft tables on a real kernel; those of somebody else in the same chain survive."""

from __future__ import annotations

import pytest
from sandbox import private, sh
from things import act, look

from leftovers.kinds import nft_rules
from leftovers.model import Object, Scope

ASKED = ("inet cni_plugins_masquerade", "ip cni_hostport", "ip6 cni_hostport")
POD = "a" * 64
# As portmap and the masquerading of the CNI plugins write them, in tables that every runtime shares.
THEIRS = """
table inet cni_plugins_masquerade {
    chain masq_checks {
        ip saddr 10.1.0.7 goto masq comment "1111111111111111-2222222222222222, net: other, if: eth0, id: other"
    }
    chain masq {
        ip daddr != 224.0.0.0/4 masquerade
    }
}
table ip cni_hostport {
    chain hostports {
        tcp dport 80 dnat to 10.88.0.2:80 comment "other"
    }
}
table ip admin {
    chain masq_checks {
        ip saddr 10.1.0.7 accept comment "mine"
    }
}
"""
OURS = f"""
add rule inet cni_plugins_masquerade masq_checks ip saddr 10.1.0.9 goto masq comment "5555-6666, net: k, id: {POD}"
add rule ip cni_hostport hostports tcp dport 8080 dnat to 10.1.0.9:80 comment "{POD}"
add rule ip cni_hostport hostports udp dport 53 dnat to 10.1.0.9:53 comment "{POD}"
"""


def listed() -> dict[str, Object]:
    return look("nftrule", scope=Scope(nft_tables=ASKED))["nftrule"]


def ours() -> list[Object]:
    return [obj for obj in listed().values() if POD in obj.facts["comment"]]


def ruleset() -> str:
    return sh("nft", "-a", "list", "ruleset")


@private
def test_only_tables_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert listed() == {}
    assert sh("nft", "list", "ruleset") == ""
    sh("nft", "-f", "-", stdin=THEIRS)
    assert {(obj.facts["family"], obj.facts["table"]) for obj in listed().values()} == {
        ("inet", "cni_plugins_masquerade"),
        ("ip", "cni_hostport"),
    }
    monkeypatch.setattr(nft_rules, "rules", None)
    assert look("nftrule")["nftrule"] == {}


@private
def test_facts() -> None:
    sh("nft", "-f", "-", stdin=THEIRS + OURS)
    (rule,) = [obj for obj in ours() if "udp" in obj.facts["text"]]
    assert rule.facts == {
        "family": "ip",
        "table": "cni_hostport",
        "chain": "hostports",
        "handle": rule.facts["handle"],
        "comment": POD,
        "text": f'udp dport 53 dnat to 10.1.0.9:53 comment "{POD}"',
    }
    assert f'53 comment "{POD}" # handle {rule.facts["handle"]}\n' in ruleset()
    assert rule.key == f"ip cni_hostport hostports handle {rule.facts['handle']}"


@private
def test_bystanders_survive() -> None:
    sh("nft", "-f", "-", stdin=THEIRS)
    before = ruleset()
    sh("nft", "-f", "-", stdin=OURS)
    assert len(ours()) == 3
    assert act("nftrule", ours()) == {}
    assert ruleset() == before


@private
def test_without_the_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    sh("nft", "-f", "-", stdin=THEIRS)
    before = ruleset()
    sh("nft", "-f", "-", stdin=OURS)
    monkeypatch.setattr(nft_rules, "find", lambda name: None)
    monkeypatch.setattr(nft_rules, "run", None)
    assert {obj.facts["text"] for obj in ours()} == {""}
    assert act("nftrule", ours()) == {}
    assert ruleset() == before


@private
def test_a_rule_of_a_table_made_anew_is_not_taken_for_the_old_one() -> None:
    """Handles begin anew in it, so the same table, chain and handle are somebody else's rule."""
    sh("nft", "-f", "-", stdin=THEIRS + OURS)
    old = ours()
    sh("nft", "flush", "ruleset")
    sh("nft", "-f", "-", stdin=THEIRS + OURS)
    assert [obj.key for obj in ours()] == [obj.key for obj in old]
    before = ruleset()
    assert act("nftrule", old) == {}
    assert ruleset() == before


@private
def test_nothing_is_removed_that_changed_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the transaction: the kernel refuses the generation, and we look again."""
    sh("nft", "-f", "-", stdin=THEIRS + OURS)
    asked = ours()
    before = []
    real = nft_rules.transact

    def late(generation: bytes, objects: list[Object]) -> dict[int, int]:
        if not before:
            sh("nft", "flush", "ruleset")
            sh("nft", "-f", "-", stdin=THEIRS + OURS)
            before.append(ruleset())
        return real(generation, objects)

    monkeypatch.setattr(nft_rules, "transact", late)
    assert act("nftrule", asked) == {}
    assert [ruleset()] == before


@private
def test_a_ruleset_that_never_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    sh("nft", "-f", "-", stdin=THEIRS + OURS)
    asked = ours()
    real = nft_rules.transact

    def late(generation: bytes, objects: list[Object]) -> dict[int, int]:
        sh("nft", "add", "chain", "ip", "admin", f"c{len(sh('nft', 'list', 'ruleset'))}")
        return real(generation, objects)

    monkeypatch.setattr(nft_rules, "transact", late)
    causes = act("nftrule", asked)
    assert set(causes.values()) == {"the ruleset changes faster than it can be looked at"} and len(causes) == 3
    assert len(ours()) == 3


@private
def test_one_that_vanished_hinders_nobody() -> None:
    sh("nft", "-f", "-", stdin=THEIRS + OURS)
    asked = ours()
    sh("nft", "delete", "rule", "ip", "cni_hostport", "hostports", "handle", str(asked[1].facts["handle"]))
    assert act("nftrule", asked) == {}
    assert ours() == []
    sh("nft", "delete", "table", "ip", "cni_hostport")
    assert act("nftrule", asked) == {}


@private
def test_one_that_cannot_go_hinders_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here its request is spoiled: a chain that is not there."""
    sh("nft", "-f", "-", stdin=THEIRS + OURS)
    asked = ours()
    real = nft_rules.request

    def spoiled(obj: Object) -> bytes:
        body = real(obj)
        return body.replace(b"hostports", b"hostportz") if obj.key == asked[1].key else body

    monkeypatch.setattr(nft_rules, "request", spoiled)
    monkeypatch.setattr(nft_rules.errno, "ENOENT", -1)  # else what is not there had vanished
    assert act("nftrule", asked) == {asked[1].key: "No such file or directory"}
    assert [obj.identity for obj in ours()] == [asked[1].identity]


@private
def test_thousands_in_one_transaction() -> None:
    sh("nft", "-f", "-", stdin=THEIRS)
    before = ruleset()
    many = (
        f'add rule ip cni_hostport hostports tcp dport {i + 1} dnat to 10.1.0.9:80 comment "{POD}"\n'
        for i in range(5000)
    )
    sh("nft", "-f", "-", stdin="".join(many))
    asked = ours()
    assert len(asked) == 5000
    assert act("nftrule", asked) == {}
    assert ruleset() == before


@private
def test_a_comment_that_looks_like_another_rule() -> None:
    """nft takes no newline into a comment, another program may; the text is for people, and then there is none."""
    sh("nft", "-f", "-", stdin=THEIRS)
    sh("nft", "add", "rule", "ip", "cni_hostport", "hostports", "accept", "comment", '"x # handle 2"')
    (rule,) = [obj for obj in listed().values() if obj.facts["comment"] == "x # handle 2"]
    assert rule.facts["text"] == 'accept comment "x # handle 2"'
