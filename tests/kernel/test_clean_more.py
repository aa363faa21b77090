"""The whole way again, for what a plain purge of a few containers does not leave: machines, old firewalls, pools."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
from pathlib import Path

import incus_like
import pytest
from incus_like import INCUS, LXD
from sandbox import private, sh
from test_clean import assert_same, leftovers, plan, settled
from things import until

SAVES = (
    "iptables-nft-save",
    "iptables-legacy-save",
    "ip6tables-nft-save",
    "ip6tables-legacy-save",
    "ebtables-nft-save",
)


def rules() -> dict[str, list[str]]:
    """Every firewall's rules, without counters and the lines in which a save tells the time."""
    saved = {save: re.sub(r"\[\d+:\d+\]", "", sh(save)) for save in SAVES}
    return {save: [line for line in text.splitlines() if not line.startswith("#")] for save, text in saved.items()}


@private
def test_rules_of_the_xtables_driver_in_both_backends_and_families(capsys: pytest.CaptureFixture[str]) -> None:
    # Incus 6.0 on a host whose firewall is iptables (stable-6.0, firewall/drivers/drivers_xtables.go).
    incus_like.prepare()
    incus_like.admin()
    for tool in ("iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"):
        sh(
            tool,
            "-A",
            "INPUT",
            "-p",
            "tcp",
            "--dport",
            "22",
            "-m",
            "comment",
            "--comment",
            "admin's own",
            "-j",
            "ACCEPT",
        )
        sh(tool, "-A", "FORWARD", "-i", "incusbr0", "-j", "ACCEPT")
        sh(tool, "-A", "OUTPUT", "-o", "lo", "-j", "ACCEPT")
        sh(tool, "-A", "FORWARD", "-m", "comment", "--comment", "generated for LXD network lxdbr0", "-j", "ACCEPT")
    sh("ebtables-nft", "-A", "FORWARD", "-i", "vethdeadbeef", "-j", "ACCEPT")
    # What an emptied table leaves of itself (its name, its policies) is no rule: the tables are there from the start.
    for tool in ("iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"):
        for table in ("nat", "mangle"):
            sh(tool, "-t", table, "-A", "POSTROUTING", "-o", "admin0", "-j", "ACCEPT")
    before, firewall = settled(), rules()
    incus_like.incus(1)
    sh("nft", "delete", "table", "inet", "incus")
    for tool in ("iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"):
        mine = ("-m", "comment", "--comment", "generated for Incus network incusbr0")
        for chain, side in (("INPUT", "-i"), ("FORWARD", "-i"), ("FORWARD", "-o"), ("OUTPUT", "-o")):
            sh(tool, "-I", chain, side, "incusbr0", *mine, "-j", "ACCEPT")
        sh(tool, "-t", "nat", "-A", "POSTROUTING", *mine, "-j", "MASQUERADE")
        sh(
            tool,
            "-t",
            "mangle",
            "-A",
            "POSTROUTING",
            "-o",
            "incusbr0",
            *mine,
            "-j",
            "CHECKSUM",
            "--checksum-fill",
            check=False,
        )
        sh(tool, "-N", "incus_acl_incusbr0")
        sh(tool, "-A", "incus_acl_incusbr0", "-j", "DROP")
        sh(tool, "-I", "FORWARD", "-i", "incusbr0", *mine, "-j", "incus_acl_incusbr0")
    sh("ebtables-nft", "-A", "FORWARD", "-i", "veth00000001", "-s", "!", "10:66:6a:00:00:01", "-j", "DROP")
    assert rules() != firewall
    assert leftovers("clean", "incus", "--yes") == 0, capsys.readouterr().out
    assert rules() == firewall
    assert_same(settled(), before)
    assert leftovers("verify", "incus") == 0


@private
def test_a_virtual_machine_s_processes_and_its_tap(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    before = settled()
    incus_like.incus(1)
    hold = (
        "import fcntl, struct, time\n"
        "fd = open('/dev/net/tun', 'r+b', buffering=0)\n"
        "fcntl.ioctl(fd, 0x400454ca, struct.pack('16sH14x', b'tap00000001', 0x1002))\n"
        "fcntl.ioctl(fd, 0x400454cb, 1)\n"  # TUNSETPERSIST, as Incus makes it (network_utils.go): it outlives QEMU
        "time.sleep(1000)\n"
    )
    programs = "/usr/libexec/incus"
    machine = incus_like.spawn(
        incus_like.copy(f"{programs}/qemu-system-x86_64"), ["qemu", "-readconfig", "/run/incus/v1/qemu.conf"], hold
    )
    helpers = [
        incus_like.spawn(
            incus_like.copy(f"{programs}/virtiofsd"), ["virtiofsd", "--socket-path=/run/incus/v1/fs.sock"]
        ),
        incus_like.spawn(
            incus_like.copy(f"{programs}/swtpm"),
            ["swtpm", "socket", "--ctrl", "type=unixio,path=/var/lib/incus/devices/v1/tpm.sock"],
        ),
    ]
    bystander = incus_like.spawn(
        incus_like.copy("/run/lab/fake/qemu-system-x86_64"), ["qemu", "-readconfig", "/srv/vm"]
    )
    until(lambda: "tap00000001" in sh("ip", "-o", "link"))
    found = plan(capsys)
    assert found["link:tap00000001"]["action"] == "remove"
    assert f"pid {machine.pid}" in str(found["link:tap00000001"]["evidence"])
    assert leftovers("clean", "incus", "--yes") == 0, capsys.readouterr().out
    assert all(process.poll() is not None for process in (machine, *helpers))
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
    assert_same(settled(), before)


@private
def test_a_pool_on_a_loop_device(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    sh("truncate", "-s", "16M", "/srv/admin.img", "/srv/admin/mine.img")
    bystander = sh("losetup", "--find", "--show", "/srv/admin/mine.img").strip()
    loop = ""
    try:
        before = settled()
        incus_like.incus(1)
        os.makedirs("/var/lib/incus/disks")
        sh("truncate", "-s", "16M", "/var/lib/incus/disks/default.img")
        sh("mkfs.ext4", "-q", "/var/lib/incus/disks/default.img")
        loop = sh("losetup", "--find", "--show", "/var/lib/incus/disks/default.img").strip()
        os.makedirs("/var/lib/incus/storage-pools/default")
        sh("mount", loop, "/var/lib/incus/storage-pools/default")
        assert plan(capsys)[f"loop:{os.path.basename(loop)}"]["action"] == "remove"
        assert leftovers("clean", "incus", "--yes") == 0, capsys.readouterr().out
        listed = sh("losetup", "--list", "--noheadings", "--output", "NAME").split()
        assert loop not in listed and bystander in listed
        assert_same(settled(), before)
    finally:
        # Loop devices are the machine's, not the sandbox's: none may stay, whatever failed.
        for device in filter(None, (loop, bystander)):
            sh("umount", "-l", device, check=False)
            sh("losetup", "--detach", device, check=False)


def answered(answer: str) -> tuple[int, str]:
    """`leftovers clean incus` on a terminal, where a person gives this answer. Its status and what was shown."""
    child, terminal = pty.fork()
    if child == 0:
        source = str(Path(__file__).parents[2] / "src")
        os.execve("/usr/bin/python3", ["python3", "-m", "leftovers", "clean", "incus"], {"PYTHONPATH": source})
    shown = b""
    while select.select([terminal], [], [], 20.0)[0]:
        try:
            chunk = os.read(terminal, 65536)
        except OSError:
            break  # the other side is closed
        shown += chunk
        if b"[y/N]" in chunk:
            os.write(terminal, answer.encode())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode()


@private
def test_on_a_terminal_it_shows_the_plan_and_asks() -> None:
    incus_like.prepare()
    incus_like.admin()
    before = settled()
    incus_like.incus(1)
    standing = settled()
    for answer in ("n\n", "\n", "yess\n", "\x04"):
        status, shown = answered(answer)
        assert status == 4 and "incusbr0" in shown and "not confirmed" in shown, shown
        assert_same(settled(), standing)
    status, shown = answered("y\n")
    assert status == 0 and "gone" in shown
    assert_same(settled(), before)


@private
def test_ctrl_c_in_the_middle_and_resume() -> None:
    incus_like.prepare()
    incus_like.admin()
    before = settled()
    incus_like.incus(2)
    child = os.fork()
    if child == 0:
        from leftovers import sweep

        def interrupted(*arguments: object) -> object:
            raise KeyboardInterrupt

        original = sweep.do
        calls = []

        def do(*arguments: object) -> object:
            calls.append(1)
            return original(*arguments) if len(calls) < 4 else interrupted()

        sweep.do = do
        os._exit(leftovers("clean", "incus", "--yes"))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    assert leftovers("resume") == 0
    assert_same(settled(), before)


@private
def test_a_reader_that_goes_away_does_not_stop_a_clean() -> None:
    incus_like.prepare()
    incus_like.admin()
    before = settled()
    incus_like.incus(1)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 1)
        os.close(read)
        os.close(write)
        os._exit(leftovers("clean", "incus", "--yes"))
    os.close(write)
    os.close(read)
    os.waitpid(child, 0)
    subprocess.run(["true"], check=True)
    assert leftovers("resume") == 0
    assert leftovers("clean", "incus", "--yes") == 0
    assert_same(settled(), before)


def table(tool: str) -> str:
    return "\n".join(line for line in sh(f"{tool}-save").splitlines() if line.startswith(("-", ":", "*")))


@private
def test_rules_of_a_chain_and_of_a_device_that_went_before(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare()
    incus_like.admin()
    os.makedirs("/srv/pool/x")
    for tool in ("iptables-nft", "ebtables-nft"):
        sh(tool, "-A", "FORWARD", "-j", "ACCEPT")
    sh("iptables-nft", "-N", "incus_nic_admin")
    sh("iptables-nft", "-A", "FORWARD", "-j", "incus_nic_admin")
    comment = ("-m", "comment", "--comment")
    sh("iptables-nft", "-A", "INPUT", *comment, f"generated for Incus network {INCUS.bridge} by hand", "-j", "ACCEPT")
    sh("ebtables-nft", "-A", "INPUT", "-i", "veth0badcafe", "-s", "10:66:6a:00:00:77", "-j", "DROP")
    sh("ebtables-nft", "-A", "INPUT", "-i", "veth0b0b0b0b", "-s", "52:54:00:00:00:77", "-j", "DROP")
    sh("iptables-nft", "-A", "FORWARD", "-i", "br-lan", "-j", "incus_nic_admin")
    before = {tool: table(tool) for tool in ("iptables-nft", "ebtables-nft")}
    incus_like.incus(2, purged=False)
    sh("ebtables-nft", "-A", "INPUT", "-s", "!", f"{INCUS.mac}09", "-i", "veth00000009", "-j", "DROP")
    sh("ebtables-nft", "-A", "INPUT", "-i", "veth00000009", "-j", "DROP")
    sh("iptables-nft", "-N", "incus_acl_net2")
    sh("iptables-nft", "-A", "incus_acl_net2", "-j", "DROP")
    sh("iptables-nft", "-I", "INPUT", *comment, "generated for Incus network net2", "-j", "incus_acl_net2")
    sh("iptables-nft", "-A", "OUTPUT", "-j", "incus_acl_net2")
    incus_like.purge()
    assert leftovers("clean", "incus", "--yes") == 0, capsys.readouterr().out
    assert table("ebtables-nft") == before["ebtables-nft"]
    capsys.readouterr()
    assert leftovers("verify", "incus", "--json") == 3
    held = {item["id"]: item for item in json.loads(capsys.readouterr().out)["objects"] if item["counts"]}
    assert list(held) == ["xtables:ip nft filter -N incus_acl_net2"]
    assert held["xtables:ip nft filter -N incus_acl_net2"]["advice"].startswith(
        "iptables-nft -t filter -D OUTPUT -j incus_acl_net2 && "
    )
    sh("iptables-nft", "-D", "OUTPUT", "-j", "incus_acl_net2")
    assert leftovers("clean", "incus", "--yes") == 0
    assert table("iptables-nft") == before["iptables-nft"]
    assert leftovers("verify", "incus") == 0


@private
def test_rules_that_could_not_be_read_are_not_forgotten(capsys: pytest.CaptureFixture[str]) -> None:
    # The links are gone by the second time, and all that LXD has written down but for what is in the ledger.
    incus_like.prepare(LXD)
    incus_like.admin(LXD)
    os.makedirs("/srv/pool/x")
    sh("ebtables-nft", "-A", "FORWARD", "-j", "ACCEPT")
    before = table("ebtables-nft")
    incus_like.incus(2, purged=False, of=LXD)
    sh("ebtables-nft", "-A", "INPUT", "-s", "!", f"{LXD.mac}01", "-i", "veth00000001", "-j", "DROP")
    sh("ebtables-nft", "-A", "INPUT", "-i", "veth00000001", "-j", "DROP")
    assert leftovers("record", "lxd") == 0
    incus_like.purge(LXD)
    tools = os.path.realpath("/usr/sbin/ebtables-nft-save")
    incus_like.write("/run/lab/no-program")
    sh("mount", "--bind", "/run/lab/no-program", tools)
    assert leftovers("clean", "lxd", "--yes") == 1
    assert "(apt install iptables)" in capsys.readouterr().out
    sh("umount", tools)
    assert "veth00000001" not in sh("ip", "-o", "link") and table("ebtables-nft") != before
    assert leftovers("verify", "lxd") == 3
    assert leftovers("clean", "lxd", "--yes") == 0, capsys.readouterr().out
    assert table("ebtables-nft") == before
    assert leftovers("verify", "lxd") == 0
