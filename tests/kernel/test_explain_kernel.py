"""explain and tree on real links, namespaces, processes and mounts: a container's are tied to it, an administrator's
are not, and looking changes nothing."""

from __future__ import annotations

import json
import os
from typing import Any

import containerd_like
import incus_like
import pytest
from sandbox import private, sh
from test_clean import assert_same, leftovers, settled
from things import sleeper

UNKNOWN = ("", "", "unknown")


def explained(capsys: pytest.CaptureFixture[str], *asked: str) -> dict[str, list[dict[str, Any]]]:
    capsys.readouterr()
    leftovers("explain", "--json", *asked)
    document = json.loads(capsys.readouterr().out)
    assert document["faults"] == []
    found: dict[str, list[dict[str, Any]]] = {each: [] for each in asked}
    for answer in document["answers"]:
        found[answer["asked"]].append(answer)
    return found


def summed(answers: list[dict[str, Any]]) -> tuple[str, str, str]:
    """The one answer, or what all of several say."""
    said = {(answer["product"], (answer["instance"] or {"name": ""})["name"], answer["state"]) for answer in answers}
    assert len(said) == 1, said
    return said.pop()


def inode(pid: int | str) -> int:
    return os.stat(f"/proc/{pid}/ns/net").st_ino


@pytest.mark.parametrize("of", incus_like.MEMBERS, ids=lambda of: of.name)
@private
def test_a_container_s_things_before_and_after_the_purge(
    of: incus_like.Member, capsys: pytest.CaptureFixture[str]
) -> None:
    incus_like.prepare(of)
    others = incus_like.admin(of)
    # The administrator's own way into a container, and his process in its network.
    incus_like.incus(2, purged=False, of=of)
    with open("/run/lab/c1.pid") as file:
        pid = file.read().strip()
    netns = inode(pid)
    sh("ip", "link", "add", "vethmine", "type", "veth", "peer", "name", "eth7", "netns", pid)
    before = settled()
    own = ("veth00000001", f"{netns}/eth0", f"net:[{netns}]", pid, "c1", "/lxc.payload.c1", "c1/eth0")
    shared = (of.bridge, f"nft inet {of.name}", f"{of.directory}/shmounts")
    foreign = ("vethdeadbeef", "br-lan", "nft inet admin", "/srv/admin", "/admin.slice", str(others["look-alike"].pid))
    for state in ("in use", "left over"):
        answers = explained(capsys, *own, *shared, *foreign, "vethmine")
        for asked in own:
            assert summed(answers[asked]) == (of.name, "c1", state), (asked, answers[asked])
        for asked in shared:
            assert summed(answers[asked]) == (of.name, "", state), (asked, answers[asked])
        for asked in foreign:
            product, instance, judged = summed(answers[asked])
            assert (product, instance) == ("", "") and judged in ("unknown", "kept"), (asked, answers[asked])
        assert summed(answers["vethmine"]) == ("", "c1", "unknown"), "it leads there, and nobody has proven it"
        chain = [said["text"] for said in answers["veth00000001"][0]["chain"]]
        assert chain[:2] == ["its other end is eth0", f"eth0 is in network namespace {netns}"]
        assert chain[2].endswith(f"lives in network namespace {netns}") and chain[3].startswith("that is c1 of ")
        capsys.readouterr()
        leftovers("tree", of.name)
        tree = capsys.readouterr().out
        assert "veth00000001 -> eth0" in tree and "vethmine -> eth7 (nobody's" in tree and "vethdeadbeef" not in tree
        if state == "in use":
            assert_same(settled(), before)
            incus_like.purge(of)
    assert answers["veth00000001"][0]["advice"] == f"leftovers clean {of.name}"
    assert all(process.poll() is None for process in others.values())


@private
def test_a_pod_s_things_and_those_of_a_pod_of_that_name_in_another_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    containerd_like.prepare()
    containerd_like.admin()
    containerd_like.start(containerd_like.MINE)
    containerd_like.microk8s()
    web, mine = containerd_like.WEB, containerd_like.MINE
    own = (
        *(web.link, f"/run/netns/{web.pin}", f"net:[{inode(containerd_like.pid_of(web))}]", web.sandbox[:12]),
        *(str(containerd_like.pid_of(web)), f"{web.cgroup}/{web.sandbox}", f"nat/{web.chain('CNI-')}"),
        f"/var/lib/cni/results/{web.of.network}-{web.sandbox}-eth0",
    )
    foreign = ("cali0badcafe000", "br-cali0", "cni-0badcafe-1111-2222-3333-444455556666", "nft inet microk8s")
    others = (f"/run/netns/{mine.pin}", str(containerd_like.pid_of(mine)), f"nat/{mine.chain('CNI-')}")
    answers = explained(capsys, *own, *foreign, *others)
    for asked in own:
        product, instance, _ = summed(answers[asked])
        assert (product, instance) == ("microk8s", "default/web-0"), (asked, answers[asked])
    for asked in foreign:
        assert summed(answers[asked]) == UNKNOWN, (asked, answers[asked])
    for asked in others:
        assert all(answer["product"] != "microk8s" for answer in answers[asked]), (asked, answers[asked])
        assert all((answer["instance"] or {"product": ""})["product"] != "microk8s" for answer in answers[asked])


@private
def test_what_is_nobody_s_is_unknown_and_told_with_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    odd = "/mnt/\x1b[2Jodd\nname"
    os.makedirs(odd)
    sh("mount", "-t", "tmpfs", "odd", odd)
    os.makedirs("/sys/fs/cgroup/admin.slice")
    for name in ("left", "right"):
        sh("ip", "netns", "add", name)
    sh("ip", "link", "add", "l0", "netns", "left", "type", "veth", "peer", "name", "r0", "netns", "right")
    sh("ip", "link", "add", "outer", "type", "veth", "peer", "name", "eth0", "netns", "left")
    sh("ip", "link", "add", "br0", "type", "bridge")
    sh("ip", "link", "set", "outer", "master", "br0")
    sh("iptables-nft", "-A", "FORWARD", "-i", "br0", "-j", "ACCEPT")
    sh("iptables-nft", "-N", "MINE")
    sh("iptables-nft", "-A", "INPUT", "-j", "MINE")
    resident = sleeper("\x1b[31mhostile\n", "1000", cgroup="/admin.slice")
    left = os.stat("/run/netns/left").st_ino
    asked = ("outer", "br0", "left", f"{left}/l0", odd, f"{odd}/", "MINE", str(resident.pid), "/admin.slice", "/srv")
    answers = explained(capsys, *asked)
    for each in asked:
        assert summed(answers[each]) == UNKNOWN, (each, answers[each])
    chain = [said["text"] for said in answers["outer"][0]["chain"]]
    assert chain == ["its other end is eth0", f"eth0 is in network namespace {left}",
                     f"network namespace {left} is pinned at /run/netns/left"]  # fmt: skip
    dependants = {each["id"]: each["text"] for each in answers["br0"][0]["dependants"]}
    assert dependants["link:outer"] == "is a port of it"
    assert any(id.startswith("xtables:") and text == "names it" for id, text in dependants.items())
    assert any("-j MINE" in each["id"] for each in answers["MINE"][0]["dependants"])
    (across,) = answers[f"{left}/l0"]
    assert across["dependants"][0]["id"].endswith("/r0")
    capsys.readouterr()
    assert leftovers("explain", *asked, "-v") == 0
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err and "hostile" in said.out
    assert leftovers("explain", "\x1b[2J", "/no/such/path", "999999999") == 1
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err and said.err.count("no such object") == 3
    assert resident.poll() is None
