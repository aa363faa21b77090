"""Products, their containers and what each has, as a tree: who is where, nobody twice, and linear in their number."""

from __future__ import annotations

import json

from test_explain import HOSTILE, Scene
from test_relations import HOME

from leftovers import telling
from leftovers.model import Presence, Role
from leftovers.tree import Trunk, grown


def trunks(scene: Scene, *names: str) -> dict[str, Trunk]:
    return {trunk.name: trunk for trunk in grown(scene.explainer(), names or tuple(scene.presence))}


def many(number: int) -> Scene:
    """So many containers of Docker's on a bridge, and things of nobody beside them."""
    scene = Scene()
    scene.own(scene.link("docker0", "bridge"))
    scene.own(scene.process(900, "/usr/sbin/dockerd"))
    for each in range(1, number + 1):
        group = scene.container(each, 1000 + each)
        scene.own(scene.listed["cgroup"][-1])
        scene.own(scene.listed["netns"][-1])
        scene.own(scene.listed["process"][-1])
        scene.own(scene.listed["link"][-2])
        scene.link("lo", "loopback", netns=1000 + each)
        scene.instance(f"c{each}", f"process:{1000 + each}", group)
    scene.link("vethdead", peer="vethbeef", peer_netns=HOME)
    scene.process(8000, "sleep")
    return scene


def test_each_object_is_its_container_s_or_shared_and_nobody_s_is_nowhere() -> None:
    scene = many(3)
    scene.own(scene.add("account", "group docker", name="docker", type="group", line="x"), role=Role.SYSTEM)
    (docker,) = trunks(scene).values()
    assert [branch.instance.name for branch in docker.branches] == ["c1", "c2", "c3"]
    assert {obj.id for obj in docker.branches[1].objects} == {
        "cgroup:/system.slice/docker-2.scope", "process:1002", "netns:1002", "link:veth2", "link:1002/eth0"
    }  # fmt: skip
    assert {claim.object.id for claim in docker.shared} == {"link:docker0", "process:900"}
    ids = [obj.id for branch in docker.branches for obj in branch.objects]
    assert len(ids) == len(set(ids))


def test_what_goes_with_another_is_told_as_itself() -> None:
    scene = many(0)
    scene.own(scene.process(60, "aardvark-dns", netns=88))
    scene.netns(88, 60)
    assert [claim.object.id for claim in trunks(scene)["docker"].shared].count("process:60") == 1
    assert "netns:88" in {claim.object.id for claim in trunks(scene)["docker"].shared}


def test_an_administrator_s_link_in_a_container_is_shown_and_told_apart() -> None:
    scene = many(1)
    scene.pair("vethmine", "eth7", 1001)
    # A rule that names the container's link, and that nobody has proven, is the administrator's.
    scene.add(
        "xtables", "r", family="ip", backend="nft", table="filter", chain="F", interfaces=["veth1"], target="", rule=""
    )
    (docker,) = trunks(scene).values()
    assert docker.branches[0].others == {"link:vethmine"}
    assert not any(obj.kind == "xtables" for obj in docker.branches[0].objects)
    assert "vethmine -> eth7 (nobody's that leftovers knows)" in telling.tree_text([docker], True, False)


def test_a_container_that_does_not_run_has_a_branch_and_a_product_without_anything_none() -> None:
    scene = many(0)
    scene.instance("rests", state="stopped")
    assert [branch.instance.name for branch in trunks(scene)["docker"].branches] == ["rests"]
    assert set(trunks(scene)) == {"docker"} and trunks(scene, "incus") == {}


def test_a_daemon_s_tree_has_not_what_is_its_tenants() -> None:
    scene = many(2)
    scene.instance("moby-1", "process:1001", product="containerd")
    scene.own(scene.process(950, "/usr/bin/containerd"), "containerd")
    scene.own(scene.listed["cgroup"][0], "containerd")
    found = trunks(scene)
    assert found["containerd"].branches == []
    assert [claim.object.key for claim in found["containerd"].shared] == ["950"]


def test_as_text_with_lines_or_without() -> None:
    scene = many(2)
    scene.instance("rests", state="created")
    scene.presence["docker"] = Presence.ABSENT
    found = list(trunks(scene).values())
    assert telling.tree_text(found, False, False).split("\n") == [
        "docker: Docker, not installed",
        "|- c1: image nginx:1.27, created 2026-11-20 10:11:12, running",
        "|  |- processes: 1001 nginx",
        "|  |- links: veth1 -> eth0",
        "|  |- network namespaces: 1001",
        "|  `- cgroups: /system.slice/docker-1.scope",
        "|- c2: image nginx:1.27, created 2026-11-20 10:11:12, running",
        "|  |- processes: 1002 nginx",
        "|  |- links: veth2 -> eth0",
        "|  |- network namespaces: 1002",
        "|  `- cgroups: /system.slice/docker-2.scope",
        "|- rests: image nginx:1.27, created 2026-11-20 10:11:12, created",
        "`- besides",
        "   |- processes: 900 dockerd",
        "   `- links: docker0",
    ]
    assert telling.tree_text(found, True, False).split("\n")[1].startswith("├─ c1")
    verbose = telling.tree_text(found, False, True)
    assert "|  |- link 1001/eth0 -> veth1" in verbose and "   |- process 900 dockerd" in verbose


def test_as_json() -> None:
    (docker,) = json.loads(json.dumps(telling.tree_json(list(trunks(many(1)).values()))))
    assert (docker["product"], docker["presence"]) == ("docker", "installed")
    (c1,) = docker["instances"]
    assert c1["name"] == "c1" and c1["evidence"] == {"source": "api", "text": "docker has it as c1"}
    assert "link:1001/eth0" in c1["objects"] and c1["unclaimed"] == []
    assert set(docker["besides"]) == {"link:docker0", "process:900"}


def test_names_cannot_talk_to_the_terminal_nor_make_lines() -> None:
    scene = Scene()
    scene.own(scene.cgroup(f"/{HOSTILE}"))
    scene.own(scene.link(HOSTILE, "bridge"))
    scene.instance(HOSTILE, f"cgroup:/{HOSTILE}")
    for verbose in (False, True):
        said = telling.tree_text(list(trunks(scene).values()), False, verbose)
        assert all(char.isprintable() or char == "\n" for char in said)
        assert len(said.split("\n")) == 5


def test_a_thousand_containers_cost_a_thousand_times_one() -> None:
    """Counted, not timed: how often an object is asked where it leads."""
    counts = []
    for number in (10, 100, 1000):
        scene = many(number)
        explainer = scene.explainer()
        asked = 0
        leads = explainer.relations.leads

        def counting(obj: object, leads: object = leads) -> object:
            nonlocal asked
            asked += 1
            return leads(obj)  # type: ignore[operator]

        explainer.relations.leads = counting  # type: ignore[method-assign,assignment]
        (docker,) = grown(explainer, ["docker"])
        assert len(docker.branches) == number
        explainer.explain(f"veth{number}")
        counts.append(asked / number)
    assert counts[2] < 2 * counts[0], counts
