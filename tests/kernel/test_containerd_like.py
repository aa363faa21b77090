"""What is left of a product of containerd goes, on real objects, and every object of another containerd stays."""

from __future__ import annotations

import os
import shutil
import subprocess

import containerd_like as like
import pytest
from containerd_like import MICROK8S, MINE, OTHER, WEB
from sandbox import private, sh
from test_clean import assert_same, leftovers, plan, settled
from things import until


def look() -> dict[str, list[str]]:
    return {
        **settled(),
        "files": like.files(),
        "netns": sorted(sh("ip", "netns", "list").splitlines()),
        "routes": sorted(sh("ip", "route", "show", "table", "all").splitlines()),
        "addresses": sorted(line for line in sh("ip", "-4", "-o", "address").splitlines()),
    }


def clean(capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    capsys.readouterr()
    done = leftovers("clean", "microk8s", "--yes")
    said = capsys.readouterr()
    assert done == code, said
    return said.out


@private
def test_a_host_after_it_is_what_it_was_before(capsys: pytest.CaptureFixture[str]) -> None:
    like.prepare()
    bystanders = like.admin()
    before = look()
    like.microk8s()
    said = clean(capsys)
    assert_same(look(), before)
    assert all(process.poll() is None for process in bystanders.values()), said
    assert leftovers("verify", "microk8s") == 0, capsys.readouterr().out
    assert "0 to remove" in clean(capsys)


@private
def test_beside_another_containerd(capsys: pytest.CaptureFixture[str]) -> None:
    like.prepare()
    bystanders = {**like.admin(), "shim": like.start(MINE)}
    sh("ip", "link", "add", "veth00000001", "type", "veth", "peer", "name", "eth0", "netns", str(like.pid_of(MINE)))
    before = look()
    like.microk8s()
    clean(capsys)
    assert_same(look(), before)
    assert all(process.poll() is None for process in bystanders.values())
    assert like.sh("cat", f"/proc/{like.pid_of(MINE)}/comm").strip() == "sleep"
    assert "CNI-HOSTPORT-DNAT" in sh("iptables-nft", "-t", "nat", "-S")


@private
def test_after_the_bundles_were_deleted_under_its_shims(capsys: pytest.CaptureFixture[str]) -> None:
    # As its own hook does it: `rm -rf .../run/containerd/*` before anything is unmounted, then the snap's data goes.
    like.prepare()
    like.start(MINE)
    before = look()
    like.microk8s()
    for line in reversed(before_unmount()):
        sh("umount", "-l", line)
    shutil.rmtree("/var/snap/microk8s")
    found = plan(capsys, product="microk8s")
    assert found[f"process:{like.pid_of(WEB)}"]["action"] == "remove"
    leftovers("clean", "microk8s", "--yes")
    now = look()
    for what in ("processes", "netns", "links", "cgroups", "mounts"):
        assert now[what] == before[what], what
    assert like.sh("cat", f"/proc/{like.pid_of(MINE)}/comm").strip() == "sleep"


def before_unmount() -> list[str]:
    with open("/proc/self/mountinfo") as file:
        points = [line.split()[4].replace("\\040", " ") for line in file]
    return [point for point in points if point.startswith("/var/snap/microk8s/")]


@private
def test_a_kubelet_of_somebody_else_holds_what_all_kubelets_share(capsys: pytest.CaptureFixture[str]) -> None:
    like.prepare()
    like.admin()
    like.microk8s()
    kubelet = like.spawn("/run/lab/d/kubelet", "/srv", "/admin.slice", [], "import time; time.sleep(1000)")
    rules = [line for line in sh("iptables-nft-save").splitlines() if "KUBE-" in line or "cali" in line]
    clean(capsys)
    now = sh("iptables-nft-save").splitlines()
    assert all(line in now for line in rules), "another's cluster would have lost its network"
    assert "ip kube-proxy" in sh("nft", "list", "tables") and "vxlan.calico" in sh("ip", "-o", "link")
    assert WEB.link not in sh("ip", "-o", "link") and WEB.chain("CNI-") not in "\n".join(now)
    assert kubelet.poll() is None
    kubelet.kill()
    kubelet.wait()
    clean(capsys)
    assert "KUBE-SVC" not in sh("iptables-nft-save") and "vxlan.calico" not in sh("ip", "-o", "link")


@private
def test_the_administrator_s_files_behind_a_pod_s_volumes_stay(capsys: pytest.CaptureFixture[str]) -> None:
    like.prepare()
    like.microk8s()
    # A process that somebody else runs on a volume holds it: it stays mounted, and nothing behind it is deleted.
    point = f"{like.KUBELET}/pods/{WEB.uid}/volume-subpaths/data/web/0"
    holder = subprocess.Popen(["sleep", "1000"], cwd=point)
    until(lambda: os.readlink(f"/proc/{holder.pid}/cwd") == point)
    leftovers("clean", "microk8s", "--yes")
    said = capsys.readouterr().out
    assert os.path.exists("/srv/data/file") and os.path.ismount(point), said
    assert os.path.exists("/srv/with space/f") and os.path.exists("/srv/remote/share")
    holder.kill()
    holder.wait()
    clean(capsys)
    assert os.path.exists("/srv/data/file") and not os.path.exists("/var/snap/microk8s")


@private
def test_a_netns_of_the_administrator_s_that_a_pod_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    like.prepare()
    like.microk8s()
    sh("ip", "netns", "attach", "mine", str(like.pid_of(WEB)))
    clean(capsys)
    assert "mine" in sh("ip", "netns", "list").split()
    sh("ip", "netns", "exec", "mine", "ip", "link", "show", "eth0")


@private
def test_settings_that_the_administrator_added_to_its_file_stay(capsys: pytest.CaptureFixture[str]) -> None:
    like.prepare()
    like.microk8s()
    path = "/etc/sysctl.d/10-microk8s.conf"
    with open(path, "a") as file:
        file.write("vm.max_map_count=262144\n")
    said = clean(capsys)
    assert path in said and "rm " + path in said
    with open(path) as file:
        assert "vm.max_map_count" in file.read()
    assert not os.path.exists("/var/snap/microk8s")


def test_the_stand_ins_are_of_two_containerds() -> None:
    assert MICROK8S.address != OTHER.address and WEB.link == MINE.link and WEB.sandbox != MINE.sandbox
