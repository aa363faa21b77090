"""The whole way, on real objects: what Incus left goes, what is the administrator's stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import incus_like
import pytest
from sandbox import private, sh
from things import until

from leftovers.cli import main


def leftovers(*argv: str) -> int:
    return main(list(argv))


def plan(capsys: pytest.CaptureFixture[str], *argv: str, product: str = "incus") -> dict[str, dict[str, object]]:
    capsys.readouterr()
    leftovers("--json", "plan", product, *argv)
    document = json.loads(capsys.readouterr().out)
    assert document["faults"] == []
    return {entry["id"]: entry for entry in document["objects"]}


def settled() -> dict[str, list[str]]:
    """The host once what was killed has been reaped."""
    time.sleep(0.05)
    return incus_like.quiet(incus_like.state())


def assert_same(now: dict[str, list[str]], before: dict[str, list[str]]) -> None:
    for what in before:
        left = [line for line in now[what] if line not in before[what]]
        lost = [line for line in before[what] if line not in now[what]]
        assert not left and not lost, f"{what}: left {left}, lost {lost}"


@pytest.mark.parametrize("of", incus_like.MEMBERS, ids=lambda of: of.name)
@private
def test_a_host_after_the_purge_is_what_it_was_before(
    of: incus_like.Member, capsys: pytest.CaptureFixture[str]
) -> None:
    incus_like.prepare(of)
    bystanders = incus_like.admin(of)
    before = settled()
    incus_like.incus(3, of=of)
    assert settled() != before
    assert leftovers("clean", of.name, "--yes") == 0, capsys.readouterr().out
    assert leftovers("verify", of.name) == 0, capsys.readouterr().out
    assert_same(settled(), before)
    assert all(process.poll() is None for process in bystanders.values())
    assert leftovers("clean", of.name, "--yes") == 0
    assert "0 to remove" in capsys.readouterr().out


@pytest.mark.parametrize("of", incus_like.MEMBERS, ids=lambda of: of.name)
@private
def test_every_object_says_why_and_by_what_evidence(of: incus_like.Member, capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare(of)
    bystanders = incus_like.admin(of)
    incus_like.incus(2, of=of)
    found = plan(capsys, product=of.name)
    for entry in found.values():
        assert entry["reason"] and entry["evidence"], entry
        assert entry["action"] in ("remove", "keep", "return")
    removed = {id for id, entry in found.items() if entry["action"] == "remove"}
    wanted = {
        *(f"link:{of.bridge}", "link:veth00000001", "link:veth00000002", f"nft:inet {of.name}"),
        *("cgroup:/lxc.payload.c1", "cgroup:/lxc.pivot", f"mount:/var/lib/{of.name}/shmounts"),
        *(
            f"mount:/var/lib/{of.name}/devices/c1/disk.data.mnt/sub",
            f"file:/var/lib/{of.name}",
            *(["file:/run/incus"] if of is incus_like.INCUS else []),
            "file:/run/lxc",
        ),
    }
    assert wanted <= removed, wanted - removed
    for process in bystanders.values():
        assert f"process:{process.pid}" not in removed
    for id in ("link:br-lan", "link:vethdeadbeef", "link:veth0badcafe", "nft:inet admin", f"nft:ip {of.name}admin",
               "mount:/srv/admin", "mount:/srv/admin/sub", "file:/srv/pool", "cgroup:/admin.slice"):  # fmt: skip
        assert id not in removed, id
    leftovers("explain", "vethdeadbeef")
    assert "leftovers leaves it alone" in capsys.readouterr().out


@pytest.mark.parametrize("of", incus_like.MEMBERS, ids=lambda of: of.name)
@private
def test_an_installed_product_is_refused_and_nothing_changes(
    of: incus_like.Member, capsys: pytest.CaptureFixture[str]
) -> None:
    incus_like.prepare(of)
    incus_like.admin(of)
    incus_like.incus(1, purged=False, of=of)
    before = settled()
    assert leftovers("clean", of.name, "--yes") == 4
    assert "is installed" in capsys.readouterr().err
    assert leftovers("verify") == 0, "what is in use is not left over"
    assert_same(settled(), before)


@private
def test_a_daemon_that_runs_from_another_place_is_an_installed_product(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.write("/var/lib/incus/database/local.db")
    before = settled()
    assert leftovers("clean", "incus", "--yes") == 0
    assert_same(settled(), before)  # its data, with a database: nobody purged that
    daemon = incus_like.spawn(incus_like.copy("/run/lab/build/incusd"), ["incusd"])
    assert leftovers("clean", "incus", "--yes", "--data") == 4
    assert f"pid {daemon.pid} runs /run/lab/build/incusd" in capsys.readouterr().err
    assert os.path.exists("/var/lib/incus/database/local.db")


@private
def test_without_a_terminal_clean_wants_yes(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1)
    before = settled()
    assert leftovers("clean", "incus") == 4
    assert leftovers("clean", "incus", "--json") == 4
    assert_same(settled(), before)
    assert leftovers("verify", "incus") == 3 and leftovers("plan", "incus") == 0
    assert leftovers("plan", "incus", "--exit-code") == 3 and leftovers("scan", "incus", "--exit-code") == 3


@pytest.mark.parametrize("of", incus_like.MEMBERS, ids=lambda of: of.name)
@private
def test_recorded_before_the_purge_then_everything_on_disk_gone(
    of: incus_like.Member, capsys: pytest.CaptureFixture[str]
) -> None:
    incus_like.prepare(of)
    incus_like.admin(of)
    before = settled()
    incus_like.incus(2, purged=False, of=of)
    assert leftovers("record", of.name) == 0, capsys.readouterr().out
    os.unlink(of.daemon)
    sh("umount", "-l", f"/var/lib/{of.name}/storage-pools/pool2")
    sh("rm", "--one-file-system", "-Rf", f"/var/log/{of.name}", f"/var/cache/{of.name}", of.run, check=False)
    assert leftovers("clean", of.name, "--yes") == 0, capsys.readouterr().out
    assert_same(settled(), before)


@pytest.mark.parametrize("of", incus_like.MEMBERS, ids=lambda of: of.name)
@private
def test_the_daemon_and_all_monitors_killed_first(of: incus_like.Member, capsys: pytest.CaptureFixture[str]) -> None:
    # Payloads without a parent, in the cgroups of liblxc, with nothing on disk any more.
    incus_like.prepare(of)
    incus_like.admin(of)
    before = settled()
    incus_like.incus(2, of=of)
    for line in sh("ps", "-eo", "pid=,args=").splitlines():
        pid, _, args = line.strip().partition(" ")
        if os.path.exists(f"/proc/{pid}/exe") and os.readlink(f"/proc/{pid}/exe").startswith(of.daemon):
            os.kill(int(pid), signal.SIGKILL)
    assert sh("pgrep", "-fx", "init 1000").split(), "the containers live on"
    assert leftovers("clean", of.name, "--yes") == 0, capsys.readouterr().out
    assert leftovers("verify", of.name) == 0, capsys.readouterr().out
    assert_same(settled(), before)


@private
def test_veths_stranded_with_both_ends_in_the_host(capsys: pytest.CaptureFixture[str]) -> None:
    # What a month-old purge looks like: no process, no file; the pairs that liblxc moved back, a bridge, a table.
    incus_like.prepare()
    incus_like.admin()
    incus_like.been()
    before = settled()
    sh("ip", "link", "add", "incusbr0", "address", "10:66:6a:11:22:33", "type", "bridge")
    sh("nft", "-f", "-", stdin="table inet incus {\n chain fwd.incusbr0 {\n }\n}\n")
    for number in range(3):
        sh("ip", "link", "add", f"veth0000000{number}", "type", "veth", "peer", "name", f"veth1000000{number}",
           "address", f"10:66:6a:00:00:0{number}")  # fmt: skip
        sh("ip", "link", "set", f"veth0000000{number}", "master", "incusbr0" if number else "br-lan")
    assert leftovers("clean", "incus", "--yes") == 0, capsys.readouterr().out
    assert_same(settled(), before)


@pytest.mark.parametrize("of", incus_like.MEMBERS, ids=lambda of: of.name)
@private
def test_the_administrator_s_link_that_a_container_was_given_comes_home(
    of: incus_like.Member, capsys: pytest.CaptureFixture[str]
) -> None:
    incus_like.prepare(of)
    incus_like.admin(of)
    sh("ip", "link", "add", "phys0", "type", "veth", "peer", "name", "switch0")
    before = settled()
    incus_like.incus(1, purged=False, of=of)
    pid = sh("pgrep", "-fx", "init 1000").split()[0]
    sh("ip", "link", "set", "phys0", "netns", pid)
    sh("nsenter", "-t", pid, "-n", "ip", "link", "set", "phys0", "name", "eth1")
    with open(f"{of.run}/c1/lxc.conf", "a") as file:
        file.write("lxc.net.1.type = phys\nlxc.net.1.name = eth1\nlxc.net.1.link = phys0\n")
    if of is incus_like.LXD:
        assert leftovers("record", "lxd") == 0  # its lxc.conf lies beside the logs, and goes with the purge
    incus_like.purge(of)
    assert leftovers("clean", of.name, "--yes") == 0, capsys.readouterr().out
    assert_same(settled(), before)


@private
def test_an_admin_s_process_in_a_container_s_namespace_survives_and_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1)
    pid = sh("pgrep", "-fx", "init 1000").split()[0]
    watcher = subprocess.Popen(["nsenter", "-t", pid, "-n", "sleep", "1000"])
    until(lambda: os.readlink(f"/proc/{watcher.pid}/ns/net") == os.readlink(f"/proc/{pid}/ns/net"))
    leftovers("clean", "incus", "--yes")
    said = capsys.readouterr().out
    assert watcher.poll() is None
    assert f"pid {watcher.pid}" in said and "somebody else uses too" in said
    assert leftovers("verify", "incus") == 3, "the namespace is Incus', and it is still there"
    assert f"end pid {watcher.pid}" in capsys.readouterr().out
    watcher.kill()
    watcher.wait()
    until(lambda: leftovers("verify", "incus") == 0)


@private
def test_a_mount_of_the_administrator_s_below_the_data_directory_stays(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1)
    os.makedirs("/var/lib/incus/mine")
    sh("mount", "--bind", "/srv/admin", "/var/lib/incus/mine")
    assert leftovers("clean", "incus", "--yes") == 1, "the directory could not go"
    assert "a mount is in the way" in capsys.readouterr().out
    assert os.path.exists("/var/lib/incus/mine/file") and os.path.exists("/srv/admin/file")
    assert leftovers("verify", "incus") == 3
    assert "umount /var/lib/incus/mine" in capsys.readouterr().out
    sh("umount", "/var/lib/incus/mine")
    assert leftovers("clean", "incus", "--yes") == 0
    assert os.path.exists("/srv/admin/file") and not os.path.exists("/var/lib/incus")


@pytest.mark.parametrize("of", incus_like.MEMBERS, ids=lambda of: of.name)
@private
def test_volumes_outside_stay_until_they_are_asked_for(
    of: incus_like.Member, capsys: pytest.CaptureFixture[str]
) -> None:
    incus_like.prepare(of)
    incus_like.admin(of)
    incus_like.incus(1, of=of)
    incus_like.volumes()
    assert plan(capsys, product=of.name)["file:/srv/pool/containers"]["action"] == "keep"
    assert leftovers("clean", of.name, "--yes") == 0
    assert os.path.exists("/srv/pool/containers/c1/rootfs/etc/hostname")
    assert plan(capsys, product=of.name)["file:/srv/pool/containers"]["advice"] == f"leftovers clean {of.name} --data"
    assert leftovers("clean", of.name, "--yes", "--data") == 0
    assert os.listdir("/srv/pool") == ["mine"]
    assert plan(capsys, product=of.name).keys() & {"file:/srv/pool", "file:/srv/pool/containers"} == set(), (
        "nothing to remember now"
    )


@private
def test_data_goes_when_it_is_asked_for_and_what_is_beside_it_stays(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1)
    incus_like.volumes()
    assert leftovers("clean", "incus", "--yes", "--data") == 0, capsys.readouterr().out
    assert os.listdir("/srv/pool") == ["mine"]


@private
def test_two_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    before = settled()
    incus_like.incus(2)
    first = os.fork()
    if first == 0:
        os._exit(leftovers("clean", "incus", "--yes"))
    statuses = {leftovers("clean", "incus", "--yes"), os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])}
    assert statuses <= {0, 4} and 0 in statuses
    assert_same(settled(), before)


@private
def test_a_full_disk_refuses_before_anything_is_removed(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1)
    os.makedirs("/var/lib/leftovers")
    sh("mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", "/var/lib/leftovers")
    before = settled()
    assert leftovers("clean", "incus", "--yes") == 4
    assert "evidence cannot be written" in capsys.readouterr().err
    assert_same(settled(), before)


@private
def test_a_ledger_that_is_garbage_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.write("/var/lib/leftovers/incus.json", "{ not json")
    assert leftovers("plan", "incus") == 1
    assert "mv /var/lib/leftovers/incus.json" in capsys.readouterr().err
