"""What nerdctl leaves goes, on real objects; volumes stay, and so does all that is somebody else's in the same
containerd and the same CNI."""

from __future__ import annotations

import os
from collections.abc import Iterator

import containerd_like
import nerdctl_like as like
import pytest
from nerdctl_like import AGENT, ALL, JOB, STORE, WEB
from sandbox import private, sh
from test_clean import assert_same, leftovers, plan, settled

# All that stays of it while a volume is there, and what is data and no purge deletes.
KEPT = tuple(
    f"{STORE}/{name}".rstrip("/")
    for name in ("", "volumes", "volumes/default", "volumes/default/data", "volumes/default/data/_data")
) + ("/var/lib/nerdctl", f"{STORE}/volumes/default/data/_data/file", f"{STORE}/volumes/default/data/volume.json")
# Empty directories of its landlord's, which stays.
LANDLORD = (
    *("/run/containerd/io.containerd.runtime.v2.task/k8s.io", "/run/containerd/runc/k8s.io"),
    *("/etc/cni", "/etc/cni/net.d"),
)
PLACES = (*containerd_like.PLACES, "/var/lib/nerdctl", "/run/nerdctl")


def files() -> list[str]:
    return sorted(sh("find", *PLACES, check=False).splitlines())


def look() -> dict[str, list[str]]:
    return {**settled(), "files": files(), "netns": sorted(sh("ip", "netns", "list").splitlines())}


def clean(capsys: pytest.CaptureFixture[str], *how: str) -> str:
    capsys.readouterr()
    done = leftovers("clean", "nerdctl", "--yes", *how)
    said = capsys.readouterr()
    assert done == 0, said
    return said.out


def without(seen: dict[str, list[str]], paths: tuple[str, ...]) -> dict[str, list[str]]:
    return {**seen, "files": [path for path in seen["files"] if path not in paths]}


@pytest.fixture
def alive() -> Iterator[list[int]]:
    pids: list[int] = []
    yield pids
    assert all(os.path.exists(f"/proc/{pid}/exe") for pid in pids), "somebody else's process has ended"


@private
def test_a_host_after_it_is_what_it_was_before_but_for_its_volumes(capsys: pytest.CaptureFixture[str]) -> None:
    like.prepare()
    bystanders = like.admin()
    before = look()
    like.nerdctl()
    found = plan(capsys, product="nerdctl")
    wanted = {f"process:{like.pid_of(each)}" for each in ALL} | {f"link:{WEB.link}", "link:nerdctl0"}
    wanted |= {f"link:{like.bridge('back')}", f"file:{like.NETWORKS}/default/nerdctl-spare.conflist"}
    assert {id for id in wanted if found[id]["action"] != "remove"} == set()
    assert found[f"file:{STORE}/volumes/default/data"]["action"] == "keep"
    assert not any(f"{like.pid_of(JOB)}" == id.partition(":")[2] for id in found), "ctr's is not nerdctl's"

    said = clean(capsys)
    assert f"{STORE}/volumes/default/data" in said, "what is kept is named"
    assert_same(without(look(), (*KEPT, *LANDLORD)), before)
    assert all(process.poll() is None for process in bystanders.values()), said
    with open(f"{STORE}/volumes/default/data/_data/file") as file:
        assert file.read() == "data"
    assert leftovers("verify", "nerdctl") == 0, capsys.readouterr().out
    assert "0 to remove" in clean(capsys), "cleaning twice is silent"

    clean(capsys, "--data")
    assert_same(without(look(), LANDLORD), before)
    assert all(process.poll() is None for process in bystanders.values())


@private
def test_beside_another_user_of_cni(capsys: pytest.CaptureFixture[str]) -> None:
    """What all users of CNI share stays with him, and goes when he does."""
    like.prepare()
    bystanders = like.admin()
    like.other_cni()
    before = look()
    like.nerdctl()
    clean(capsys)
    seen = without(look(), (*KEPT, *LANDLORD, "/var/lib/cni/results"))
    left = [line for line in seen.pop("nft") if line not in before["nft"]]
    assert {word for line in left for word in line.split() if word.startswith("CNI-")} <= {"CNI-HOSTPORT-DNAT"}, left
    rules = [line for line in sh("iptables-nft", "-S").splitlines() if "CNI-ISOLATION" in line]
    assert [line for line in rules if "cni-podman" in line] and not [line for line in rules if "nerdctl0 !" in line]
    before.pop("nft")
    assert_same(seen, without(before, LANDLORD))
    assert all(process.poll() is None for process in bystanders.values())


@private
def test_a_container_without_a_network_of_its_own_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    like.prepare()
    bystander = like.start(JOB)
    before = look()
    like.start(AGENT)
    assert not os.path.exists(f"{STORE}/etchosts/default/{AGENT.id}/meta.json")
    said = clean(capsys)
    assert "warning" not in said.lower() and "could not" not in said
    assert_same(look(), before)
    assert bystander.poll() is None


@private
def test_while_it_is_installed_its_containers_live(capsys: pytest.CaptureFixture[str]) -> None:
    like.prepare()
    like.nerdctl()
    before = look()
    like.write("/usr/local/bin/nerdctl")
    assert leftovers("clean", "nerdctl", "--yes") != 0
    assert "is there" in capsys.readouterr().err
    assert_same(look(), before)


@private
def test_a_bridge_that_somebody_has_plugged_into_is_held(capsys: pytest.CaptureFixture[str]) -> None:
    like.prepare()
    like.nerdctl()
    sh("ip", "link", "add", "tap-vm", "type", "veth", "peer", "name", "tap-peer")
    sh("ip", "link", "set", "tap-vm", "master", "nerdctl0")
    leftovers("clean", "nerdctl", "--yes")
    said = capsys.readouterr().out
    assert "tap-vm" in said
    links = sh("ip", "-o", "link")
    assert "nerdctl0:" in links and like.bridge("back") not in links and WEB.link not in links
