"""Incus and LXD on one host: what is left of the one goes, and every object of the other stays and works."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from typing import Any

import incus_like
import pytest
from incus_like import INCUS, LXD, MEMBERS, Member
from sandbox import private, sh
from test_clean import assert_same, leftovers, plan, settled
from things import until


def other(of: Member) -> Member:
    return next(member for member in MEMBERS if member is not of)


def both(going: Member, *, installed: bool = True) -> dict[str, list[str]]:
    """Two containers of the one that stays, then two of the one that goes, of which one has a port on the other's
    bridge. Returns the host as it was before the second came."""
    staying = other(going)
    incus_like.prepare(LXD)
    incus_like.admin(staying)
    os.makedirs("/srv/pool/x")
    incus_like.incus(2, purged=False, of=staying)
    incus_like.container("c5", 5, of=staying)
    if not installed:
        incus_like.purge(staying)
    before = settled()
    incus_like.incus(2, purged=False, of=going, first=11)
    incus_like.container("c15", 15, staying.bridge, going)
    incus_like.purge(going)
    return before


def reached(pid: str, address: str) -> bool:
    """Whether a packet from a process' network gets an answer: a port on which nobody listens refuses at once."""
    program = f"import socket; s = socket.socket(); s.settimeout(2); print(s.connect_ex(('{address}', 9)))"
    return sh("nsenter", "-t", pid, "-n", "python3", "-c", program).strip() == str(errno.ECONNREFUSED)


def with_names(record: dict[str, Any], of: Member) -> None:
    """A ledger of this boot that knows more than is good."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot_id = file.read().strip()
    document = {"format_version": "1.0", "product": of.name, "boot_id": boot_id, "run": None, "objects": []}
    document |= {"records": [record], "presence": "installed", "recorded": "2020-01-01T00:00:00Z"}
    incus_like.write(f"/var/lib/leftovers/{of.name}.json", json.dumps(document))


@pytest.mark.parametrize("installed", [True, False], ids=["beside-installed", "both-purged"])
@pytest.mark.parametrize("going", MEMBERS, ids=lambda of: of.name)
@private
def test_one_goes_and_every_object_of_the_other_stays(
    going: Member, installed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    before = both(going, installed=installed)
    assert leftovers("clean", going.name, "--yes") == 0, capsys.readouterr()
    said = capsys.readouterr().out
    now = settled()
    # It was the first to come that made it, and either may need it.
    assert "/sys/fs/cgroup/lxc.pivot" in now["cgroups"], said
    # What is shared was there before; the ledger is ours.
    assert_same(now, before)
    assert leftovers("verify", going.name) == 0, capsys.readouterr().out
    staying = other(going)
    if installed:
        assert leftovers("verify", staying.name) == 0, capsys.readouterr().out
        return
    assert leftovers("verify", staying.name) == 3
    assert leftovers("clean", staying.name, "--yes") == 0, capsys.readouterr().out
    now = settled()
    assert not [line for line in now["cgroups"] if "lxc." in line], now["cgroups"]
    assert not [line for line in now["links"] if line.startswith(("incusbr", "lxdbr", "veth0000"))], now["links"]
    assert leftovers("verify") == 0, capsys.readouterr().out


@pytest.mark.parametrize("going", MEMBERS, ids=lambda of: of.name)
@private
def test_the_other_s_containers_still_reach_each_other_and_the_host(
    going: Member, capsys: pytest.CaptureFixture[str]
) -> None:
    staying = other(going)
    incus_like.prepare(LXD)
    incus_like.admin(staying)
    os.makedirs("/srv/pool/x")
    incus_like.incus(1, purged=False, of=staying)
    first = sh("pgrep", "-fx", "init 1000").split()
    second = str(incus_like.container("c2", 2, of=staying))
    sh("ip", "address", "add", "10.5.5.1/24", "dev", staying.bridge)
    for pid, address in ((first[0], "10.5.5.2"), (second, "10.5.5.3")):
        sh("nsenter", "-t", pid, "-n", "ip", "address", "add", f"{address}/24", "dev", "eth0")
        sh("nsenter", "-t", pid, "-n", "ip", "link", "set", "eth0", "up")
    incus_like.incus(2, of=going, first=11)
    assert leftovers("clean", going.name, "--yes") == 0, capsys.readouterr()
    assert reached(first[0], "10.5.5.3") and reached(second, "10.5.5.1") and reached(first[0], "10.5.5.1")
    assert reached("1", "10.5.5.2")


@private
def test_lxd_is_purged_after_lxd_to_incus(capsys: pytest.CaptureFixture[str]) -> None:
    # The tool moves networks and instances over with their names and addresses, and then purges LXD: what LXD's own
    # ledger and firewall say of lxdbr0 is true of Incus' network by now.
    incus_like.prepare(LXD)
    incus_like.admin()
    incus_like.been(LXD)
    incus_like.incus(1, purged=False)
    sh("ip", "link", "add", "lxdbr0", "address", "00:16:3e:aa:bb:cc", "type", "bridge")
    sh("ip", "address", "add", "10.9.9.1/24", "dev", "lxdbr0")
    sh("nft", "-f", "-", stdin="table inet incus {\n chain fwd.lxdbr0 {\n }\n}\n")
    config = {"ipv4.address": "10.9.9.1/24", "volatile.bridge.hwaddr": "00:16:3e:aa:bb:cc"}
    facts = {"type": "bridge", "managed": True, "config": config, "addresses": ["10.9.9.1"]}
    before = settled()
    with_names({"type": "network", "name": "lxdbr0", "source": "api", "facts": facts}, LXD)
    sh("nft", "-f", "-", stdin="table inet lxd {\n chain fwd.lxdbr0 {\n }\n chain in.lxdbr0 {\n }\n}\n")
    assert leftovers("clean", "lxd", "--yes") == 0, capsys.readouterr().out
    assert_same(settled(), before)


@private
def test_a_network_that_incus_speaks_for(capsys: pytest.CaptureFixture[str]) -> None:
    incus_like.prepare(LXD)
    incus_like.been(LXD)
    sh("ip", "link", "add", "lxdbr0", "address", "00:16:3e:aa:bb:cc", "type", "bridge")
    sh("iptables-nft", "-A", "INPUT", "-m", "comment", "--comment", "generated for Incus network lxdbr0")
    before = settled()
    sh("nft", "-f", "-", stdin="table inet lxd {\n chain fwd.lxdbr0 {\n }\n}\n")
    assert leftovers("clean", "lxd", "--yes") == 0, capsys.readouterr().out
    assert_same(settled(), before)


@private
def test_a_network_that_the_snap_speaks_for(capsys: pytest.CaptureFixture[str]) -> None:
    # Both call their table the same: while the other is there, it is as likely his, and his containers need it.
    incus_like.prepare(LXD)
    incus_like.been(LXD)
    sh("ip", "link", "add", "lxdbr0", "address", "00:16:3e:aa:bb:cc", "type", "bridge")
    server = incus_like.spawn(
        incus_like.copy("/run/lab/snap/dnsmasq"),
        ["dnsmasq", "--interface=lxdbr0", "--conf-file=/var/snap/lxd/common/lxd/networks/lxdbr0/dnsmasq.raw"],
    )
    sh("nft", "-f", "-", stdin="table inet lxd {\n chain fwd.lxdbr0 {\n }\n}\n")
    sh("iptables-nft", "-A", "INPUT", "-m", "comment", "--comment", "generated for LXD network lxdbr0")
    before = settled()
    assert leftovers("clean", "lxd", "--yes") == 0, capsys.readouterr().out
    assert_same(settled(), before)
    assert "another one" in capsys.readouterr().out
    server.kill()
    server.wait()
    assert leftovers("clean", "lxd", "--yes") == 0, capsys.readouterr().out
    assert "inet lxd" not in sh("nft", "list", "tables") and "LXD" not in sh("iptables-nft-save")


@private
def test_a_container_of_the_other_s_that_has_the_name_of_one_that_is_remembered(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # LXD knows a c1 too; the cgroup of that name was emptied by Incus' c1, whose monitor still runs.
    incus_like.prepare(LXD)
    incus_like.admin()
    incus_like.been(LXD)
    incus_like.incus(1, purged=False)
    os.makedirs("/sys/fs/cgroup/lxc.payload.c1-1")
    before = settled()
    instance = {"project": "default", "instance": "c1", "nics": [], "disks": [], "running": None, "ephemeral": False}
    with_names({"type": "instance", "name": "c1", "source": "api", "facts": instance}, LXD)
    assert leftovers("clean", "lxd", "--yes") == 0, capsys.readouterr().out
    assert_same(settled(), before)
    assert INCUS.bridge in sh("ip", "-o", "link")


SNAP = "/var/lib/snapd/snap/lxd/1/bin/lxd"


@pytest.mark.parametrize(
    ("product", "exe", "uid", "place", "goes"),
    [
        ("lxd", LXD.daemon, 65534, INCUS.directory, False),
        ("lxd", LXD.daemon, 65534, "/srv/elsewhere", False),
        ("lxd", LXD.daemon, 0, INCUS.directory, False),
        ("lxd", LXD.daemon, 0, "/srv/elsewhere", True),
        ("lxd-snap", SNAP, 65534, INCUS.directory, False),
        ("lxd-snap", SNAP, 0, INCUS.directory, False),
    ],
)
@private
def test_whose_word_says_where_the_directory_is(
    product: str, exe: str, uid: int, place: str, goes: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    incus_like.prepare(LXD)
    incus_like.admin()
    incus_like.incus(1, purged=False)
    os.chmod("/run/lab", 0o755)
    incus_like.copy(exe)
    point = f"{place}/storage-pools/default"
    incus_like.tmpfs(point)
    variables = {"PYTHONHOME": "/usr", "LXD_DIR": place}
    argv = [exe, "-S", "-c", "import time; time.sleep(1000)"]
    process = subprocess.Popen(argv, executable=exe, env=variables, user=uid, stdin=subprocess.DEVNULL)
    until(lambda: os.readlink(f"/proc/{process.pid}/exe") == exe)
    os.unlink(exe)
    found = plan(capsys, product=product)
    assert (found.get(f"mount:{point}", {"action": "keep"})["action"] == "remove") is goes
    leftovers("clean", product, "--yes")
    assert os.path.ismount(point) is not goes, capsys.readouterr().out
    assert os.path.ismount(f"{INCUS.directory}/storage-pools/pool2")


@private
def test_a_symlink_to_the_other_s_directory_makes_nothing_of_it_the_product_s(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # As who has moved from the one to the other may leave it for his scripts.
    incus_like.prepare(LXD)
    incus_like.admin()
    incus_like.incus(1, purged=False)
    os.symlink(INCUS.directory, LXD.directory)
    before = settled()
    leftovers("clean", "lxd", "--yes")
    now = settled()
    for what in ("mounts", "links", "processes", "files"):
        assert [line for line in before[what] if line not in now[what] and line != LXD.directory] == [], what
