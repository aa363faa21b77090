"""The comparer sees every class of difference, and only the difference. On a real host, not on made-up snapshots."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import hoststate, incus
from lab.machine import Machine


@pytest.fixture(scope="module")
def host(shared: Machine) -> Iterator[Machine]:
    incus.admin_things(shared)
    shared.run(
        """
        # things that the scenario of the products does not need
        nft add rule inet admin fwd.incusbr0 tcp dport 99 accept
        ip neigh add proxy 10.77.0.50 dev br-lan
        systemd-run -q --unit=admin-private -p PrivateMounts=yes sh -c 'mount -t tmpfs inner /mnt/bound; sleep 1000003'
        systemd-run -q --unit=admin-port busybox nc -l -p 7777
        systemd-run -q --unit=admin-again -p Restart=always -p RestartSec=0 sleep 1000004
        setfattr -n user.label -v mine /srv/data/file
        ln /srv/data/deep/file /srv/data/deep/other
        echo 'x:1:' >/etc/admin.conf
        echo 'guest:x:4000:4000::/:/bin/sh' >>/etc/passwd
        sleep 0.3
        """
    )
    yield shared


# name, command, what must be reported; the snapshot before is the one after the test before
DIFFERENCES = [
    ("a second look", "true", []),
    ("lost nft rule", "nft flush chain inet admin fwd.incusbr0", [r"lost nft rule inet admin fwd.incusbr0: .*99"]),
    (
        "lost set element",
        "nft delete element inet admin friends '{ 10.77.0.3 }'",
        [r"lost nft set inet admin friends element"],
    ),
    (
        "lost nft table",
        "nft delete table ip incus_admin",
        [r"lost nft table ip incus_admin", r"lost nft chain ip incus_admin c"],
    ),
    ("left nft table", "nft add table netdev incus", [r"left nft table netdev incus"]),
    (
        "lost iptables rule",
        "iptables-nft -F INPUT",
        [r'lost xtables iptables-nft filter -A INPUT .*"admin: ssh"', r"lost nft rule ip filter INPUT"],
    ),
    (
        "changed policy",
        "iptables-nft -P FORWARD DROP",
        [
            r"lost xtables iptables-nft filter :FORWARD ACCEPT",
            r"left xtables iptables-nft filter :FORWARD DROP",
            r"changed nft chain ip filter FORWARD: policy",
        ],
    ),
    ("lost mount", "umount /mnt/admin", [r"lost mount /mnt/admin$", r"lost file /mnt/admin/file"]),
    (
        "lost mount below a directory",
        "umount /srv/data/sub",
        [r"lost mount /srv/data/sub", r"lost file /srv/data/sub/file"],
    ),
    ("left mount", "mount -t tmpfs t /srv/pool", [r"left mount /srv/pool", r"changed file /srv/pool: mode"]),
    ("stacked mount", "mount -t tmpfs t /srv/pool", [r"left mount /srv/pool #2"]),
    ("private instead of shared", "mount --make-private /srv/pool", [r"changed mount /srv/pool #2: sharing"]),
    (
        "lost mount in a private namespace",
        "nsenter -m -t $(pgrep -n -f '[s]leep 1000003') umount /mnt/bound",
        [r"lost mount \[mnt of \S*sh,sleep\] /mnt/bound tmpfs inner"],
    ),
    (
        "killed process",
        "systemctl kill -s KILL admin-monitor; sleep 0.3",
        [
            r"lost process \[lxc monitor\] /var/lib/incus/containers c1",
            r"lost cgroup /system.slice/admin-monitor.service",
            r"changed unit admin-monitor.service: .*failed",
        ],
    ),
    ("restarted process", "systemctl restart admin-again; sleep 0.3", [r"changed process .*sleep 1000004"]),
    (
        "killed process outside of systemd",
        "pkill -n -f '[s]leep 1000002'; sleep 0.2",
        [r"lost process sleep 1000002"],
    ),
    (
        "lost cgroup",
        "echo 1 >/sys/fs/cgroup/admin-jobs/cgroup.kill; sleep 0.2; rmdir /sys/fs/cgroup/admin-jobs",
        [r"lost cgroup /admin-jobs"],
    ),
    ("left cgroup", "mkdir /sys/fs/cgroup/lxc.monitor.c1", [r"left cgroup /lxc.monitor.c1"]),
    ("left process", "setsid sleep 7 >/dev/null 2>&1 & sleep 0.1", [r"left process sleep 7"]),
    ("changed content", "echo other >/srv/data/file", [r"changed file /srv/data/file: hash"]),
    ("changed mode", "chmod 0600 /srv/data/file", [r"changed file /srv/data/file: mode"]),
    ("changed owner", "chown 1000033 /srv/data/deep", [r"changed file /srv/data/deep: owner"]),
    ("changed attribute", "setfattr -x user.label /srv/data/file", [r"changed file /srv/data/file: xattrs"]),
    ("retargeted symlink", "ln -sfn deep /srv/data/link", [r"changed file /srv/data/link: target"]),
    ("lost file with a blank", 'rm "/srv/with space/f"', [r"lost file /srv/with space/f"]),
    (
        "lost file of a sibling directory",
        "rm -r /var/lib/incus-backup/containers",
        [r"lost file /var/lib/incus-backup/containers/c1/file"],
    ),
    ("left file", "mkdir -p /var/lib/incus/x", [r"left file /var/lib/incus$", r"left file /var/lib/incus/x"]),
    ("changed configuration", "echo 'x:2:' >/etc/admin.conf", [r"changed file /etc/admin.conf: hash"]),
    ("lost user", "sed -i /^guest/d /etc/passwd", [r"lost account passwd guest"]),
    ("changed subordinate ids", "echo root:1000000:1000000 >>/etc/subuid", [r"left account subuid root"]),
    ("lost route", "ip route del 10.78.0.0/24", [r"lost route unicast 10.78.0.0/24 via 10.77.0.2 dev br-lan"]),
    ("lost route of another table", "ip route flush table 100", [r"lost route .*10.79.0.0/24 dev br-lan table 100"]),
    ("lost policy rule", "ip rule del from 10.78.0.0/24", [r"lost rule -4 .*10.78.0.0"]),
    (
        "lost proxy neighbour",
        "ip neigh del proxy 10.77.0.50 dev br-lan",
        [r"lost neighbour proxy 10.77.0.50 dev br-lan"],
    ),
    (
        "lost bridge port",
        "ip link set vethdeadbeef nomaster",
        [r"changed link vethdeadbeef: .*master \"br-lan\" -> null"],
    ),
    ("link set down", "ip link set veth0badcafe down", [r"changed link veth0badcafe: flags"]),
    ("lost link", "ip link del vethadmin0", [r"lost link vethadmin0", r"lost link vethadmin1"]),
    ("left link", "ip link add incusbr0 type bridge", [r"left link incusbr0"]),
    ("changed MTU", "ip link set ifbadmin0 mtu 1400", [r"changed link ifbadmin0: mtu"]),
    ("renamed link", "ip link set ifbadmin0 name ifbother", [r"lost link ifbadmin0", r"left link ifbother"]),
    (
        "lost address",
        "ip addr add 10.77.1.1/24 dev br-lan; ip addr del 10.77.0.1/24 dev br-lan",
        [r"lost address 10.77.0.1/24 dev br-lan"],
    ),
    (
        "lost address in a namespace",
        "ip -n admin addr del 10.77.0.9/24 dev eth0",
        [r"lost address \[netns admin\] 10.77.0.9/24 dev eth0"],
    ),
    (
        "left nft rule in a namespace",
        "ip netns exec admin nft add table inet t",
        [r"left nft \[netns admin\] table inet t"],
    ),
    ("lost port", "systemctl stop admin-port", [r"lost port tcp \S+:7777"]),
    (
        "left abstract socket",
        "setsid python3 -c 'import socket, time; s = socket.socket(socket.AF_UNIX); s.bind(\"\\0/var/"
        "lib/incus/x\"); s.listen(); time.sleep(60)' >/dev/null 2>&1 & sleep 0.5",
        [r"left unix u_str @/var/lib/incus/x"],
    ),
    ("changed sysctl", "echo 1 >/proc/sys/net/ipv4/ip_forward", [r"changed sysctl net.ipv4.ip_forward"]),
    (
        "lost namespace",
        "systemctl stop admin-netns; ip netns del admin",
        [r"lost netns \[netns admin\]", r"lost link veth12345678"],
    ),
    (
        "left BPF pin",
        "mkdir /mnt/bpf; mount -t bpf pins /mnt/bpf; mkdir /mnt/bpf/cali_maps",
        [r"left bpf /mnt/bpf/cali_maps", r"left mount /mnt/bpf"],
    ),
    ("failed unit", "systemd-run -q --unit=bad false; sleep 0.3", [r"left unit bad.service"]),
]


@pytest.fixture(scope="module")
def taken() -> dict[str, Any]:
    """The snapshot that the last test ended with."""
    return {}


@pytest.mark.parametrize(("command", "expected"), [d[1:] for d in DIFFERENCES], ids=[d[0] for d in DIFFERENCES])
def test_sees(host: Machine, taken: dict[str, Any], command: str, expected: list[str]) -> None:
    before = taken.get("last") or host.snapshot()
    host.run(command)
    after = taken["last"] = host.snapshot()
    found = hoststate.compare(before, after)
    lines = [f"{name} {line}" for name, lines in found.items() for line in lines]
    for pattern in expected:
        assert any(re.match(pattern, line) for line in lines), f"{pattern} is not in\n" + "\n".join(lines)
    if not expected:
        assert lines == []


def test_changes_nothing(shared: Machine) -> None:
    """A snapshot does not make the tables, the sockets or the modules that it asks for."""
    look = "nft list ruleset; cat /proc/net/ip*_tables_names 2>/dev/null; ls /run /etc; ps -e | wc -l"
    before = shared.run(look).out
    shared.snapshot()
    assert shared.run(look).out == before


@pytest.mark.full
@pytest.mark.parametrize("machine", [{"loop": True}], indirect=True)
def test_sees_loop(machine: Machine) -> None:
    before = machine.snapshot()
    machine.run("truncate -s 1M /srv/disk.img; losetup -f /srv/disk.img")
    found = hoststate.compare(before, machine.snapshot())
    assert [line for line in found["left"] if line.startswith("loop")] != []


def taken_as(**state: Any) -> dict[str, Any]:
    return {"format": 1, "state": state, "unreadable": []}


def test_expressions_do_not_hide_losses() -> None:
    before, after = taken_as(link={"a": 1, "b": 1}), taken_as(link={"b": 2, "c": 1})
    assert hoststate.compare(before, after, keep=[""]) == {
        "left": [],
        "lost": ["link a"],
        "changed": ["link b: 1 -> 2"],
        "unreadable": [],
    }
    assert hoststate.count(hoststate.compare(before, after, keep=[""], changed=[""], lost=[""])) == 0


def test_namespace_counts_once() -> None:
    before = taken_as(netns={}, link={})
    after = taken_as(netns={"[net of init]": None}, link={"[net of init] eth0": 1, "[net of init] lo": 1, "eth0": 1})
    assert hoststate.compare(before, after)["left"] == ["link eth0", "netns [net of init]"]


def test_unreadable_is_a_difference() -> None:
    after = {"format": 1, "state": {}, "unreadable": ["nft: no"]}
    assert hoststate.compare(taken_as(), after)["unreadable"] == ["after: nft: no"]


def test_exit_codes(tmp_path: Path) -> None:
    for name, state in (("a", {"link": {"x": 1}}), ("b", {"link": {}})):
        (tmp_path / name).write_text(json.dumps(taken_as(**state)))

    def compare(*args: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-I", hoststate.__file__, "compare", *args]
        return subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert compare("a", "a").returncode == 0
    assert compare("a", "b").returncode == 1
    assert "lost: 1 (1 link)\n  link x" in compare("a", "b").stdout
    assert json.loads(compare("a", "b", "--json").stdout)["lost"] == ["link x"]
    assert compare("a", "b", "--lost", "^link x$").returncode == 0
    assert compare("a").returncode == 2
