"""nft tables on a real kernel, by the library and by the tool; bystanders survive byte for byte."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from sandbox import private, sh

from leftovers.host import Host
from leftovers.kinds import nft
from leftovers.kinds.kind import Look
from leftovers.kinds.nft import NftTables
from leftovers.model import Deadline, Object, Verb

OURS = """
table inet incus {
    set hosts {
        type ipv4_addr
        elements = { 10.0.0.1, 10.0.0.2 }
    }
    chain fwd.incusbr0 {
        type filter hook forward priority 0
        ip saddr @hosts accept
    }
    chain in.incusbr0 {
        type filter hook input priority 0
        iifname "incusbr0" accept
    }
}
table bridge incus {
    chain fwd.c1.eth0 {
        type filter hook forward priority 0
        ether saddr 00:16:3e:00:00:01 drop
    }
}
table netdev incus {
    chain egress {
    }
}
"""
THEIRS = """
table inet incus2 {
    chain in.incusbr0 {
        type filter hook input priority 0
        iifname "incusbr0" accept
    }
}
table inet admin {
    chain input {
        type filter hook input priority 0
        tcp dport 22 accept comment "mine"
    }
}
table ip incus {
    chain x {
        counter
    }
}
table bridge admin {
}
table netdev admin {
}
"""


def survey() -> dict[str, Object]:
    listing = NftTables().survey(Look(Host()))
    assert listing.faults == ()
    return {object.key: object for object in listing.objects}


def act(*objects: Object) -> dict[str, str]:
    return dict(NftTables().act(Host(), Verb.REMOVE, objects, Deadline(20)))


@pytest.fixture(params=["library", "tool"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "tool":
        monkeypatch.setattr(nft, "by_library", lambda text: None)
    else:
        pytest.importorskip("nftables")
        monkeypatch.setattr(nft, "run", None)  # with the library no program is run
    return str(request.param)


@private
def test_asking_changes_nothing(way: str) -> None:
    assert survey() == {}
    assert sh("nft", "list", "ruleset") == ""


@private
def test_facts_hold_names_and_handle(way: str) -> None:
    sh("nft", "-f", "-", stdin=OURS)
    handles = {
        (entry["table"]["family"], entry["table"]["name"]): entry["table"]["handle"]
        for entry in json.loads(sh("nft", "-j", "list", "tables"))["nftables"]
        if "table" in entry
    }
    objects = survey()
    assert list(objects) == ["inet incus", "bridge incus", "netdev incus"]
    assert objects["inet incus"].facts == {
        "family": "inet",
        "name": "incus",
        "handle": handles["inet", "incus"],
        "chains": ["fwd.incusbr0", "in.incusbr0"],
        "sets": ["hosts"],
    }
    assert objects["bridge incus"].identity == ("bridge", "incus", handles["bridge", "incus"])


@private
def test_bystanders_survive(way: str) -> None:
    sh("nft", "-f", "-", stdin=THEIRS)
    sh("iptables-nft", "-A", "FORWARD", "-i", "incusbr0", "-j", "ACCEPT")
    before = sh("nft", "-a", "list", "ruleset")
    sh("nft", "-f", "-", stdin=OURS)
    objects = survey()
    assert act(*(objects[f"{family} incus"] for family in ("inet", "bridge", "netdev"))) == {}
    assert sh("nft", "-a", "list", "ruleset") == before


@private
def test_one_that_vanished_hinders_nobody(way: str) -> None:
    sh("nft", "-f", "-", stdin=OURS + THEIRS)
    objects = survey()
    sh("nft", "delete", "table", "bridge", "incus")
    assert act(*(objects[f"{family} incus"] for family in ("inet", "bridge", "netdev"))) == {}
    assert set(survey()) == {"inet incus2", "inet admin", "ip incus", "bridge admin", "netdev admin"}


@private
def test_a_table_made_anew_is_not_taken_for_the_old_one(way: str) -> None:
    sh("nft", "-f", "-", stdin=OURS)
    old = survey()["inet incus"]
    sh("nft", "delete", "table", "inet", "incus")
    sh("nft", "add", "table", "inet", "incus")
    assert act(old) == {}
    assert "inet incus" in survey()


@private
def test_one_that_cannot_go_hinders_nobody() -> None:
    """A table with an owner can only be deleted by the socket that made it (NFT_TABLE_F_OWNER)."""
    sh("nft", "-f", "-", stdin=OURS)
    owner = subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        assert owner.stdin is not None
        owner.stdin.write("add table inet owned { flags owner; }\n")
        owner.stdin.flush()
        end = time.monotonic() + 5
        while "inet owned" not in survey() and time.monotonic() < end:
            time.sleep(0.02)
        objects = survey()
        causes = act(objects["inet owned"], objects["inet incus"], objects["bridge incus"])
        assert causes == {"nft:inet owned": "Could not process rule: Operation not permitted"}
        assert set(survey()) == {"inet owned", "netdev incus"}
    finally:
        owner.kill()
        owner.wait()


@private
def test_many_rules_are_not_listed() -> None:
    rules = "".join(f"add rule inet kube c ip saddr 10.{i // 250}.{i % 250}.0/24 accept\n" for i in range(20000))
    sh("nft", "-f", "-", stdin="add table inet kube\nadd chain inet kube c\n" + rules)

    def seconds(work: Callable[[], object]) -> float:
        start = time.monotonic()
        work()
        return time.monotonic() - start

    # The first question after a large change waits for the kernel: the best of three is what asking costs.
    sparse = min(seconds(survey) for _ in range(3))
    assert sparse < seconds(lambda: sh("nft", "-j", "list", "ruleset")) / 4


SHARED = """
table ip cni_hostport {
    chain hostports {
    }
    chain prerouting {
        type nat hook prerouting priority -100
    }
}
"""


def shared() -> Object:
    """A table that all runtimes share, of which a product knows these chains."""
    found = survey()["ip cni_hostport"]
    return replace(found, facts={**found.facts, "only_chains": ["hostports", "prerouting", "another"]})


@private
def test_a_shared_table_goes_when_nothing_is_left_in_it() -> None:
    sh("nft", "-f", "-", stdin=THEIRS)
    before = sh("nft", "-a", "list", "ruleset")
    sh("nft", "-f", "-", stdin=SHARED)
    assert act(shared()) == {}
    assert sh("nft", "-a", "list", "ruleset") == before


@pytest.mark.parametrize(
    "left",
    [
        "add rule ip cni_hostport hostports accept",
        "add rule ip cni_hostport prerouting jump hostports",
        "add chain ip cni_hostport theirs",
        "add set ip cni_hostport theirs { type ipv4_addr; }",
        "add map ip cni_hostport theirs { type ipv4_addr : verdict; elements = { 10.0.0.1 : jump hostports }; }",
        "add chain ip cni_hostport theirs; add rule ip cni_hostport theirs goto hostports",
    ],
)
@private
def test_a_shared_table_in_which_something_stays(left: str) -> None:
    """Also what came after it was listed; nothing of it is touched, and other tables go."""
    sh("nft", "-f", "-", stdin=SHARED + OURS)
    asked = [shared(), survey()["inet incus"]]
    sh("nft", left)
    before = sh("nft", "-a", "list", "table", "ip", "cni_hostport")
    assert act(*asked) == {"nft:ip cni_hostport": "something that stays is in it"}
    assert sh("nft", "-a", "list", "table", "ip", "cni_hostport") == before
    assert "inet incus" not in survey()


@private
def test_a_shared_table_made_anew_or_gone() -> None:
    sh("nft", "-f", "-", stdin=SHARED)
    old = shared()
    sh("nft", "delete", "table", "ip", "cni_hostport")
    assert act(old) == {}
    sh("nft", "-f", "-", stdin=SHARED)
    before = sh("nft", "-a", "list", "ruleset")
    assert act(old) == {}
    assert sh("nft", "-a", "list", "ruleset") == before
