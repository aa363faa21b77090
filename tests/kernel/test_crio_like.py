"""What CRI-O leaves goes, on real objects; what is in the store stays, and so do Podman's container beside it and the
administrator's look-alikes."""

from __future__ import annotations

import os

import crio_like as like
import pytest
from crio_like import DB, GRAPH, MINE, RUN, WEB
from incus_like import overlay, write
from sandbox import private, sh
from test_clean import assert_same, leftovers, plan, settled

PLACES = ("/run/crio", "/var/lib/crio", "/var/lib/cni", "/run/netns", "/run/ipcns", RUN, GRAPH, "/etc/crio", "/srv")


def look() -> dict[str, list[str]]:
    found = sh("find", *PLACES, "-not", "-path", f"{GRAPH}/overlay/*", check=False).splitlines()
    return {**settled(), "files": sorted(found), "netns": sorted(sh("ip", "netns", "list").splitlines())}


@private
def test_beside_podman_its_pods_go_and_the_store_stays(capsys: pytest.CaptureFixture[str]) -> None:
    like.prepare()
    bystanders = like.admin()
    before = look()
    monitors = like.crio(MINE)
    found = plan(capsys, product="crio")
    for each, monitor in zip((WEB, DB), monitors):  # noqa: B905 - as many
        wanted = {f"process:{like.pid_of(each)}", f"process:{monitor.pid}", f"link:{each.link}"}
        wanted |= {f"cgroup:{path}" for path in each.cgroups} | {f"mount:{GRAPH}/overlay/{each.layer}/merged"}
        wanted |= {f"mount:/run/ipcns/{each.uuid}", f"file:/var/lib/cni/results/crio-{each.sandbox}-eth0"}
        assert {id for id in wanted if found[id]["action"] != "remove"} == set()
    assert found[f"file:{GRAPH}"]["action"] == "keep"
    assert f"process:{like.pid_of(MINE)}" not in found

    capsys.readouterr()
    assert leftovers("clean", "crio", "--yes", "--data") == 0, capsys.readouterr()
    said = capsys.readouterr().out
    assert GRAPH in said, "what is kept is named"
    assert_same(look(), before)
    for each in (WEB, DB, MINE):
        assert os.path.exists(f"{GRAPH}/overlay/{each.layer}/diff/file"), "the store is nobody's to delete"
    assert all(process.poll() is None for process in bystanders.values()), said
    assert all(process.poll() is not None for process in monitors)
    assert leftovers("verify", "crio") == 0, capsys.readouterr().out


@private
def test_alone_only_the_store_stays(capsys: pytest.CaptureFixture[str]) -> None:
    like.prepare()
    before = look()
    like.crio()
    assert leftovers("clean", "crio", "--yes") == 0, capsys.readouterr()
    now = look()
    now["files"] = [path for path in now["files"] if not path.startswith(GRAPH)]
    assert_same(now, before)
    assert os.path.exists(f"{GRAPH}/overlay/{WEB.layer}/diff/file")
    assert os.path.exists(f"{GRAPH}/overlay-containers/containers.json")
    capsys.readouterr()
    assert leftovers("clean", "crio", "--yes") == 0
    assert "0 to remove" in capsys.readouterr().out


@private
def test_while_it_is_installed_its_pods_live(capsys: pytest.CaptureFixture[str]) -> None:
    like.prepare()
    overlay("/usr/local")
    monitors = like.crio()
    before = look()
    write("/usr/local/bin/crio")
    assert leftovers("clean", "crio", "--yes") != 0
    assert "is there" in capsys.readouterr().err
    for id in (f"process:{like.pid_of(WEB)}", f"link:{WEB.link}"):
        assert leftovers("explain", id) == 0
        said = capsys.readouterr().out
        assert "default/web of CRI-O (running)" in said, said
    assert_same(look(), before)
    assert all(process.poll() is None for process in monitors)
