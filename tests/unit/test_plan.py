"""The table of policy: what follows from a claim, the package's state and what was asked for."""

import pytest

from leftovers.model import Claim, Evidence, Object, Presence, Role, Verb
from leftovers.plan import TOO_YOUNG, decide, orphans, plan
from leftovers.survey import Survey

PROOF = (Evidence("kernel", "seen"),)


def claim(
    role: Role, *, proven: bool = True, product: str = "incus", kind: str = "link", key: str = "x", rank: int = 0
) -> Claim:
    return Claim(product, Object(kind, key, (key,)), role, proven, "because", PROOF, rank)


def verb(role: Role, presence: Presence, data: bool = False, proven: bool = True) -> Verb:
    (action,) = decide({"incus": claim(role, proven=proven)}, {"incus": presence}, data)
    return action.verb


@pytest.mark.parametrize(
    ("role", "installed", "removed", "removed_data", "absent"),
    [
        (Role.LIVE, Verb.KEEP, Verb.REMOVE, Verb.REMOVE, Verb.REMOVE),
        (Role.DATA, Verb.KEEP, Verb.KEEP, Verb.REMOVE, Verb.REMOVE),
        (Role.LENT, Verb.KEEP, Verb.RETURN, Verb.RETURN, Verb.RETURN),
        (Role.HELD, Verb.KEEP, Verb.KEEP, Verb.KEEP, Verb.KEEP),
        (Role.ADMIN, Verb.KEEP, Verb.KEEP, Verb.KEEP, Verb.KEEP),
        (Role.SYSTEM, Verb.KEEP, Verb.KEEP, Verb.KEEP, Verb.KEEP),
    ],
)
def test_the_table(role: Role, installed: Verb, removed: Verb, removed_data: Verb, absent: Verb) -> None:
    assert verb(role, Presence.INSTALLED) is installed
    assert verb(role, Presence.INSTALLED, data=True) is installed
    assert verb(role, Presence.REMOVED) is removed
    assert verb(role, Presence.REMOVED, data=True) is removed_data
    assert verb(role, Presence.ABSENT) is absent


def test_volumes_at_the_administrator_s_place_go_only_when_asked_for() -> None:
    assert verb(Role.EXTERNAL, Presence.ABSENT) is Verb.KEEP
    assert verb(Role.EXTERNAL, Presence.ABSENT, data=True) is Verb.REMOVE
    (kept,) = decide({"incus": claim(Role.EXTERNAL)}, {"incus": Presence.ABSENT}, False)
    assert kept.advice == "leftovers clean incus --data" and not kept.counts


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("presence", list(Presence))
def test_what_is_not_proven_is_never_touched(role: Role, presence: Presence) -> None:
    assert verb(role, presence, data=True, proven=False) is Verb.KEEP


def test_not_proven_counts_as_left_unless_it_is_the_administrator_s() -> None:
    (tied,) = decide({"incus": claim(Role.LIVE, proven=False)}, {"incus": Presence.ABSENT}, False)
    (admin,) = decide({"incus": claim(Role.ADMIN, proven=False)}, {"incus": Presence.ABSENT}, False)
    assert tied.counts and not admin.counts


def test_what_somebody_else_holds_stays_and_counts_as_left() -> None:
    for presence, counts in ((Presence.INSTALLED, False), (Presence.ABSENT, True)):
        (action,) = decide({"incus": claim(Role.HELD)}, {"incus": presence}, True)
        assert action.counts is counts


def test_where_products_disagree_the_object_stays() -> None:
    claims = {"incus": claim(Role.LIVE), "lxd": claim(Role.LIVE, product="lxd")}
    (action,) = decide(claims, {"incus": Presence.ABSENT, "lxd": Presence.INSTALLED}, True)
    assert action.verb is Verb.KEEP and action.product == "lxd"


def test_what_is_held_counts_also_where_its_user_knows_it_as_somebody_else_s() -> None:
    presence = {"incus": Presence.INSTALLED, "lxd": Presence.ABSENT}
    users = claim(Role.ADMIN)
    (action,) = decide({"incus": users, "lxd": claim(Role.HELD, product="lxd")}, presence, True)
    assert action.product == "lxd" and action.verb is Verb.KEEP and action.counts
    # Two that say it is theirs: it is not known to be left.
    (action,) = decide({"incus": claim(Role.LIVE), "lxd": claim(Role.HELD, product="lxd")}, presence, True)
    assert action.verb is Verb.KEEP and not action.counts


@pytest.mark.parametrize("knows", [True, False])
def test_who_is_only_connected_with_it_speaks_for_the_owner_s_object_while_he_is_installed(knows: bool) -> None:
    users = claim(Role.ADMIN, proven=knows)
    claims = {"incus": users, "lxd": claim(Role.LIVE, product="lxd")}
    for gone in (Presence.ABSENT, Presence.REMOVED):
        (action,) = decide(claims, {"incus": gone, "lxd": Presence.ABSENT}, False)
        assert (action.verb, action.product) == (Verb.REMOVE, "lxd")
    (action,) = decide(claims, {"incus": Presence.INSTALLED, "lxd": Presence.ABSENT}, False)
    assert (action.verb, action.product, action.counts) == (Verb.KEEP, "lxd", True)
    assert action.advice == "leftovers clean lxd" and "incus says: because" in action.reason
    # His own that is installed is not left, whoever knows it.
    (action,) = decide(claims, {"incus": Presence.INSTALLED, "lxd": Presence.INSTALLED}, False)
    assert (action.verb, action.counts) == (Verb.KEEP, False)


def test_what_is_lent_comes_home_whoever_knows_it() -> None:
    claims = {"incus": claim(Role.ADMIN), "lxd": claim(Role.LENT, product="lxd")}
    (action,) = decide(claims, {"incus": Presence.INSTALLED, "lxd": Presence.ABSENT}, False)
    assert action.verb is Verb.RETURN


@pytest.mark.parametrize("kind", ["process", "mount", "unit", "file", "netns", "cgroup"])
def test_what_another_says_of_other_things_than_the_network_protects_them(kind: str) -> None:
    """lxcfs, while containers of somebody else use it; a directory that is the source of another's pool."""
    claims = {"lxcfs": claim(Role.ADMIN, product="lxcfs", kind=kind), "incus": claim(Role.LIVE, kind=kind)}
    (action,) = decide(claims, {"incus": Presence.ABSENT, "lxcfs": Presence.ABSENT}, True)
    assert (action.verb, action.product, action.counts) == (Verb.KEEP, "incus", True)


def test_where_another_s_word_is_more_than_a_connection_it_stays() -> None:
    claims = {"incus": claim(Role.LIVE, proven=False), "lxd": claim(Role.LIVE, product="lxd")}
    (action,) = decide(claims, {"incus": Presence.ABSENT, "lxd": Presence.ABSENT}, True)
    assert action.verb is Verb.KEEP and action.counts


def survey(*claims: Claim, faults: tuple[str, ...] = ()) -> Survey:
    from leftovers.model import Scope

    by_object = {claim.object.id: {claim.product: claim} for claim in claims}
    return Survey("boot", Scope(), {}, by_object, {"incus": Presence.ABSENT}, {}, {"incus": ()}, faults)


def test_the_order_is_that_of_a_safe_removal_and_always_the_same() -> None:
    claims = [
        claim(Role.LIVE, kind="file", key="/var/lib/incus"),
        claim(Role.LIVE, kind="cgroup", key="/lxc.payload.c1"),
        claim(Role.LIVE, kind="mount", key="/m"),
        claim(Role.LIVE, kind="link", key="incusbr0"),
        claim(Role.LIVE, kind="nft", key="inet incus"),
        claim(Role.LIVE, kind="process", key="2", rank=3),
        claim(Role.LIVE, kind="process", key="3", rank=0),
        claim(Role.LIVE, kind="unit", key="incus.service"),
        claim(Role.LENT, kind="link", key="1/eth0"),
    ]
    wanted = ["link:1/eth0", "unit:incus.service", "process:3", "process:2", "nft:inet incus", "link:incusbr0",
              "mount:/m", "cgroup:/lxc.payload.c1", "file:/var/lib/incus"]  # fmt: skip
    for order in (claims, claims[::-1]):
        assert [action.id for action in plan(survey(*order), ["incus"]).actions] == wanted


def test_what_others_live_with_goes_after_all_of_theirs() -> None:
    from dataclasses import replace

    claims = [
        claim(Role.LIVE, kind="unit", key="lxcfs.service", product="lxcfs"),
        claim(Role.LIVE, kind="process", key="9", product="lxcfs"),
        claim(Role.LIVE, kind="file", key="/var/lib/incus"),
    ]
    presence = {"incus": Presence.ABSENT, "lxcfs": Presence.ABSENT}
    seen = replace(survey(*claims), presence=presence, last=frozenset({"lxcfs"}))
    wanted = ["file:/var/lib/incus", "unit:lxcfs.service", "process:9"]
    assert [action.id for action in plan(seen, ["incus", "lxcfs"]).actions] == wanted


def test_force_treats_an_installed_product_as_removed() -> None:
    from dataclasses import replace

    seen = replace(survey(claim(Role.LIVE), claim(Role.DATA, key="d")), presence={"incus": Presence.INSTALLED})
    assert plan(seen, ["incus"]).doing() == ()
    assert [action.id for action in plan(seen, ["incus"], force=True).doing()] == ["link:x"]
    assert [action.id for action in plan(seen, ["incus"], force=True, data=True).doing()] == ["link:d", "link:x"]


def test_what_policy_keeps_is_not_left_over() -> None:
    made = plan(survey(claim(Role.ADMIN), claim(Role.SYSTEM, key="y"), faults=("x: unreadable",)), ["incus"])
    assert made.left() == () and len(made.keeping()) == 2 and made.faults == ("x: unreadable",)


def test_other_products_than_those_asked_for_are_left_out() -> None:
    assert plan(survey(claim(Role.LIVE)), ["lxcfs"]).actions == ()


# -- tenants of a daemon, and orphans -------------------------------------------------------------------------------

TENANTS = {"containerd": ("docker", "nerdctl")}
GONE, THERE = Presence.ABSENT, Presence.INSTALLED


@pytest.mark.parametrize(
    ("docker", "containerd", "asked", "verb", "whose"),
    [
        (THERE, THERE, ["docker", "containerd"], Verb.KEEP, "docker"),
        (GONE, THERE, ["docker"], Verb.REMOVE, "docker"),  # the daemon that stays gives way
        (GONE, THERE, ["docker", "containerd"], Verb.REMOVE, "docker"),
        (THERE, GONE, ["containerd"], None, ""),  # a tenant that stays keeps his own, whatever he lives in
        (GONE, GONE, ["containerd"], Verb.REMOVE, "containerd"),  # and takes what an earlier removal left
        (GONE, GONE, ["docker"], Verb.REMOVE, "docker"),
        (GONE, GONE, ["docker", "containerd"], Verb.REMOVE, "docker"),
    ],
)
def test_a_daemon_and_its_tenant_both_know_a_container(
    docker: Presence, containerd: Presence, asked: list[str], verb: Verb | None, whose: str
) -> None:
    seen = tenanted({"docker": docker, "containerd": containerd})
    actions = plan(seen, asked).actions
    assert [(action.verb, action.product) for action in actions] == ([(verb, whose)] if verb else [])


def tenanted(presence: dict[str, Presence], **more: object) -> Survey:
    from dataclasses import replace

    both = {name: replace(claim(Role.LIVE, product=name, kind="process"), **more) for name in presence}
    seen = survey()
    return replace(seen, claims={"process:x": both}, presence=presence, tenants=TENANTS)


def test_what_a_tenant_only_knows_is_the_daemon_s() -> None:
    from dataclasses import replace

    seen = tenanted({"docker": GONE, "containerd": THERE})
    known = {**seen.claims["process:x"], "docker": claim(Role.ADMIN, product="docker", kind="process")}
    (action,) = plan(replace(seen, claims={"process:x": known}), ["docker", "containerd"]).actions
    assert action.verb is Verb.KEEP


def test_force_does_not_make_a_tenant_go() -> None:
    seen = tenanted({"docker": THERE, "containerd": THERE})
    assert [action.verb for action in plan(seen, ["containerd"], force=True).actions] == []


def orphaned(age: float = 0.0, **more: object) -> Claim:
    from dataclasses import replace

    return replace(claim(Role.LIVE, product="docker", kind="link", key="v"), orphan="it is gone", age=age, **more)


@pytest.mark.parametrize("presence", list(Presence))
def test_an_orphan_of_an_installed_product_goes_only_as_such(presence: Presence) -> None:
    from dataclasses import replace

    healthy = claim(Role.LIVE, product="docker", key="healthy")
    seen = replace(survey(orphaned(), healthy), presence={"docker": presence})
    found = orphans(seen, ["docker"], lambda claim: True)
    assert [(action.id, action.verb) for action in found.actions] == [("link:v", Verb.REMOVE)]
    assert "it is gone" in found.actions[0].reason
    assert orphans(seen, ["podman"], lambda claim: True).actions == ()
    if presence is THERE:
        assert plan(seen, ["docker"]).doing() == ()


def test_a_young_orphan_stays() -> None:
    from dataclasses import replace

    seen = replace(survey(orphaned()), presence={"docker": THERE})
    (action,) = orphans(seen, ["docker"], lambda claim: False).actions
    assert action.verb is Verb.KEEP and not action.counts and action.reason.endswith(TOO_YOUNG)


@pytest.mark.parametrize(("role", "verb"), [(Role.LIVE, Verb.KEEP), (Role.HELD, Verb.KEEP), (Role.ADMIN, Verb.REMOVE)])
def test_an_orphan_that_is_somebody_else_s_too_stays(role: Role, verb: Verb) -> None:
    from dataclasses import replace

    both = {"docker": orphaned(), "podman": claim(role, product="podman", key="v")}
    seen = replace(survey(), claims={"link:v": both}, presence={"docker": THERE, "podman": THERE})
    (action,) = orphans(seen, ["docker"], lambda claim: True).actions
    assert action.verb is verb


def test_a_tenant_s_word_is_asked_for_orphans_too() -> None:
    """docker says that its container is there; containerd alone cannot know."""
    from dataclasses import replace

    both = {"docker": claim(Role.LIVE, product="docker"), "containerd": replace(orphaned(), product="containerd")}
    seen = replace(survey(), claims={"link:v": both}, presence={"docker": THERE, "containerd": THERE}, tenants=TENANTS)
    assert orphans(seen, ["docker", "containerd"], lambda claim: True).actions == ()


def test_an_orphan_that_is_only_perhaps_the_product_s_is_told() -> None:
    from dataclasses import replace

    doubtful = replace(orphaned(), proven=False, role=Role.ADMIN, advice="ip link delete v")
    seen = replace(survey(doubtful), presence={"docker": THERE})
    (action,) = orphans(seen, ["docker"], lambda claim: True).actions
    assert action.verb is Verb.KEEP and action.reason.startswith("not proven: ") and action.advice == "ip link delete v"
    (action,) = orphans(seen, ["docker"], lambda claim: False).actions
    assert action.verb is Verb.KEEP and action.reason.endswith(TOO_YOUNG)
