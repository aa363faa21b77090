"""Evidence that was true once: ledgers of other boots, plans that a person looked at for a while, places that lead
elsewhere by now. What stands there today is not Incus' because of it."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import incus_like
import pytest
from sandbox import private, sh
from test_clean import assert_same, leftovers, plan, settled
from things import sleeper, until

LEDGER = "/var/lib/leftovers/incus.json"
BEGUN = {"started": "2020-01-01T00:00:00Z", "data": False, "force": False}
HOLIDAY = "images/holiday.jpg"


def this_boot() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def ledger(boot_id: str = "another", **parts: Any) -> None:
    """A ledger as an earlier look has left it."""
    empty = {"run": None, "objects": [], "records": [], "presence": "absent", "recorded": "2020-01-01T00:00:00Z"}
    document = {"format_version": "1.0", "product": "incus", "boot_id": boot_id, **empty, **parts}
    incus_like.write(LEDGER, json.dumps(document))


def record(type: str, name: str, /, **facts: Any) -> dict[str, Any]:
    return {"type": type, "name": name, "source": "api", "facts": facts}


def asked(meanwhile: Callable[[], None]) -> tuple[int, str]:
    """`leftovers clean incus` on a terminal; `meanwhile` happens while it asks, then a person says yes. Its status and
    what was shown."""
    child, terminal = pty.fork()
    if child == 0:
        source = str(Path(__file__).parents[2] / "src")
        os.execve("/usr/bin/python3", ["python3", "-m", "leftovers", "clean", "incus"], {"PYTHONPATH": source})
    shown, answered = b"", False
    while select.select([terminal], [], [], 30.0)[0]:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:
            break  # the other side is closed
        shown += chunk
        if b"[y/N]" in shown and not answered:
            answered = True
            meanwhile()
            os.write(terminal, b"y\n")
    assert answered, shown.decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode(errors="replace")


# -- ledgers --------------------------------------------------------------------------------------------------------


@private
def test_a_network_of_another_boot_s_ledger_proves_no_bridge_of_today(capsys: pytest.CaptureFixture[str]) -> None:
    # One is LXD's by now, and has an address of the range that Incus once shared with it; the other has even the IP
    # address that Incus' bridge of that name had.
    incus_like.prepare()
    incus_like.admin()
    given = {"type": "bridge", "managed": True}
    ledger(
        records=[
            record("network", "lxdbr0", **given, config={}, addresses=[]),
            record("network", "br0", **given, config={"ipv4.address": "10.9.9.1/24"}, addresses=["10.9.9.1"]),
        ]
    )
    sh("ip", "link", "add", "lxdbr0", "address", "00:16:3e:aa:bb:cc", "type", "bridge")
    sh("ip", "link", "add", "br0", "address", "52:54:00:aa:bb:cc", "type", "bridge")
    sh("ip", "address", "add", "10.9.9.1/24", "dev", "br0")
    before = settled()
    leftovers("clean", "incus", "--yes")
    said = capsys.readouterr().out
    links = sh("ip", "-o", "link")
    assert "lxdbr0" in links and " br0:" in links, said
    assert_same(settled(), before)


@private
def test_a_pool_of_another_boot_s_ledger_proves_no_volumes_of_today(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    ledger(records=[record("pool", "p", driver="dir", source="/srv/pool", config={})])
    incus_like.write("/srv/pool/containers/lxd-has-it-now/rootfs/precious")
    before = settled()
    leftovers("clean", "incus", "--yes", "--data")
    assert_same(settled(), before)


@private
def test_resume_does_not_delete_the_data_that_was_asked_to_go_at_another_boot(
    capsys: pytest.CaptureFixture[str],
) -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1)
    ledger(presence="removed", run={**BEGUN, "data": True})
    incus_like.write("/var/lib/incus/database/local.db", "made since\n")
    leftovers("resume")
    assert os.path.exists("/var/lib/incus/database/local.db"), capsys.readouterr().out
    assert os.path.exists("/srv/pool/mine")


@pytest.mark.parametrize("rebooted", [False, True])
@private
def test_resume_does_not_force_what_is_installed_by_now(rebooted: bool, capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1, purged=False)
    before = settled()
    ledger("another" if rebooted else this_boot(), run={**BEGUN, "force": True})
    leftovers("resume")
    assert_same(settled(), before)
    assert leftovers("verify", "incus") == 0, capsys.readouterr().out


# -- at the prompt --------------------------------------------------------------------------------------------------


@private
def test_installed_again_while_it_asks(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1)
    before = settled()

    def install() -> None:
        incus_like.copy(incus_like.INCUSD)
        incus_like.write("/var/lib/incus/database/global/db.bin", "new\n")

    status, shown = asked(install)
    assert status == 4, shown
    assert os.path.exists("/var/lib/incus/database/global/db.bin"), shown
    now = settled()
    assert_same(now, {what: lines for what, lines in before.items() if what != "files"})
    assert not set(before["files"]) - set(now["files"])


@private
def test_somebody_enters_an_empty_cgroup_while_it_asks() -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1)
    os.makedirs("/sys/fs/cgroup/lxc.payload.web")
    entered: list[subprocess.Popen[bytes]] = []
    _, shown = asked(lambda: entered.append(sleeper("sleep", "1000", cgroup="/lxc.payload.web")))
    assert "lxc.payload.web" in shown and entered[0].poll() is None, shown


# -- where pools had their sources ----------------------------------------------------------------------------------


@private
def test_a_pool_s_source_that_was_replaced_since_is_not_emptied(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1, purged=False)
    incus_like.write("/srv/pool/containers/c1/rootfs/etc/hostname")
    assert leftovers("record", "incus") == 0
    os.unlink(incus_like.INCUSD)
    sh("umount", "-l", "/var/lib/incus/storage-pools/pool2")
    os.rename("/srv/pool", "/srv/pool.old")
    incus_like.write(f"/srv/pool/{HOLIDAY}")
    leftovers("clean", "incus", "--yes", "--data")
    said = capsys.readouterr().out
    assert os.path.exists(f"/srv/pool/{HOLIDAY}") and os.path.exists("/srv/pool.old/mine"), said


@pytest.mark.parametrize("propagated", [True, False])
@private
def test_a_disk_that_covers_a_pool_s_source_since_is_not_emptied(
    propagated: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1)
    if not propagated:
        sh("mount", "--make-private", "/srv")
    over = "/srv/pool" if propagated else "/srv"
    sh("mount", "-t", "tmpfs", "tmpfs", over)
    assert os.path.exists("/var/lib/incus/storage-pools/pool2/mine") is not propagated
    incus_like.write(f"/srv/pool/{HOLIDAY}")
    leftovers("clean", "incus", "--yes", "--data")
    assert os.path.exists(f"/srv/pool/{HOLIDAY}"), capsys.readouterr().out
    sh("umount", over)
    assert os.path.exists("/srv/pool/mine")


@private
def test_a_pool_s_source_that_a_user_made_a_symlink_is_not_followed(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    incus_like.write("/srv/libvirt/images/vm.qcow2")
    os.makedirs("/srv/home/alice")
    incus_like.write(
        "/var/lib/incus/storage-pools/p/containers/c1/backup.yaml",
        "container:\n  name: c1\n  project: default\n"
        "pool:\n  name: p\n  driver: dir\n  config:\n    source: /srv/home/alice/pool\n",
    )
    os.symlink("/srv/libvirt", "/srv/home/alice/pool")
    leftovers("clean", "incus", "--yes", "--data")
    said = capsys.readouterr().out
    assert os.path.exists("/srv/libvirt/images/vm.qcow2"), said
    assert os.path.islink("/srv/home/alice/pool"), said


@private
def test_a_pool_that_is_only_written_down_keeps_its_volumes(capsys: pytest.CaptureFixture[str]) -> None:
    # Nothing was ever mounted from there: the words alone do not say that today's directory is the one that was meant.
    incus_like.prepare()
    incus_like.admin()
    incus_like.write(
        "/var/lib/incus/storage-pools/p/containers/c1/backup.yaml",
        "container:\n  name: c1\n  project: default\n"
        "pool:\n  name: p\n  driver: dir\n  config:\n    source: /srv/pool\n",
    )
    incus_like.write("/srv/pool/containers/c1/rootfs/precious")
    found = plan(capsys, "--data")
    assert found.get("file:/srv/pool/containers", {"action": "keep"})["action"] == "keep"
    leftovers("clean", "incus", "--yes", "--data")
    said = capsys.readouterr().out
    assert os.path.exists("/srv/pool/containers/c1/rootfs/precious") and os.path.exists("/srv/pool/mine"), said


# -- while it works -------------------------------------------------------------------------------------------------


@private
def test_a_disk_that_fills_up_midway_is_a_failure_and_no_refusal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # "Refused" promises that nothing was changed. In the second round something was.
    from leftovers import clean

    incus_like.prepare()
    incus_like.admin()
    incus_like.incus(1)
    os.makedirs("/var/lib/leftovers")
    sh("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/var/lib/leftovers")
    sweep = clean.sweep

    def swept(*arguments: Any, **options: Any) -> Any:
        outcomes = sweep(*arguments, **options)
        with open("/var/lib/leftovers/full", "wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass  # now it is
        sh("nft", "add", "table", "inet", "incus")  # something for a second round
        return outcomes

    monkeypatch.setattr(clean, "sweep", swept)
    status = leftovers("clean", "incus", "--yes")
    assert status in (0, 1), capsys.readouterr()
    assert "incusbr0" not in sh("ip", "-o", "link"), "the first round was done"
    assert "br-lan" in sh("ip", "-o", "link") and os.path.exists("/srv/admin/file")
    monkeypatch.undo()
    os.unlink("/var/lib/leftovers/full")
    assert leftovers("clean", "incus", "--yes") == 0, capsys.readouterr()
    until(lambda: leftovers("verify", "incus") == 0)
