"""What stands on a real host before a product comes; and looking at it makes nothing."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from sandbox import private, sh
from things import HOST, sleeper

from leftovers import arrival
from leftovers.ledger import Ledger
from leftovers.products import Product, load

INCUS = load("incus")
# Of a name that no machine has, so that the test needs no product to be absent from this one.
BOX = Product(name="box", title="Box", packages=("leftovers-test-boxd",), daemons=("/mnt/bin/boxd",))
NAMES = ("/proc/net/ip_tables_names", "/proc/net/ip6_tables_names")


def observe() -> dict[str, Any]:
    seen = arrival.observe(HOST, INCUS, package="incus-base", version="6.0.4-2")
    assert seen["faults"] == []
    assert json.loads(json.dumps(seen)) == seen
    return seen


def settings(*patterns: str) -> str:
    """Not `sysctl -a`: sid's fails when one of them cannot be read."""
    found = ""
    for path in sorted(path for pattern in patterns for path in Path("/proc/sys").glob(pattern)):
        with contextlib.suppress(OSError):  # one that has no value (stable_secret), or can only be written
            found += f"{path} {path.read_text()}"
    assert len(found.splitlines()) > 50
    return found


def state() -> dict[str, str]:
    """All that looking could have made."""
    found = {path: Path(path).read_text() for path in (*NAMES, "/proc/modules") if os.path.exists(path)}
    return {
        **found,
        "nft": sh("nft", "-a", "list", "ruleset"),
        "links": sh("ip", "-o", "link"),
        "sysctls": settings("net/ipv4/ip_forward", "net/*/conf/*/*", "net/bridge/*", "vm/max_map*", "fs/inotify/*"),
        "/run": " ".join(sorted(os.listdir("/run"))),
    }


@private
def test_looking_at_an_empty_host_makes_nothing() -> None:
    before = state()
    seen = observe()
    assert state() == before and before["nft"] == ""
    assert (seen["nft"], seen["links"]) == ([], ["lo"])
    assert seen["forward"] == dict.fromkeys(("iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"))
    assert (seen["product"], seen["package"], seen["version"]) == ("incus", "incus-base", "6.0.4-2")
    assert seen["boot_id"] == HOST.boot_id()


@private
def test_looking_at_a_host_with_rules_and_links_makes_nothing() -> None:
    sh("iptables-nft", "-N", "LONE")  # a table of iptables' name, without its base chains
    sh("iptables-legacy", "-t", "nat", "-N", "LONE")  # legacy, without a table filter
    sh("nft", "add", "table", "inet", "admin")
    sh("ip", "link", "add", "br-admin", "type", "bridge")
    before = state()
    seen = observe()
    assert state() == before
    assert seen["nft"] == ["inet admin", "ip filter"]
    assert seen["links"] == ["br-admin", "lo"]
    assert set(seen["forward"].values()) == {None}, "no base chain is no policy"
    assert Path(NAMES[0]).read_text() == "nat\n"


@pytest.mark.parametrize("tool", ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"])
@private
def test_the_policy_of_forward(tool: str) -> None:
    others = {other: None for other in observe()["forward"] if other != tool}
    for policy in ("DROP", "ACCEPT"):
        sh(tool, "-P", "FORWARD", policy)
        sh(tool, "-P", "INPUT", "ACCEPT" if policy == "DROP" else "DROP")
        before = state()
        assert observe()["forward"] == {**others, tool: policy}
        assert state() == before


@private
def test_a_chain_of_that_name_elsewhere_is_not_it() -> None:
    hook = "{ type filter hook forward priority 0; policy drop; }"
    for table, chain, base in (
        ("inet filter", "FORWARD", hook),
        ("ip nat", "FORWARD", hook),
        ("ip filter", "FORWARD", ""),
        ("ip filter", "forward", hook),
        ("ip6 filter", "FORWARD2", hook),
    ):
        sh("nft", f"add table {table}; add chain {table} {chain} {base}")
    assert set(observe()["forward"].values()) == {None}


@private
def test_sysctls_are_those_of_this_namespace() -> None:
    for value in ("0", "1"):
        Path("/proc/sys/net/ipv4/conf/all/forwarding").write_text(value)
        Path("/proc/sys/net/ipv6/conf/default/accept_ra").write_text(value)
        seen = observe()["sysctls"]
        assert seen["net.ipv4.conf.all.forwarding"] == seen["net.ipv6.conf.default.accept_ra"] == value
        assert seen["net.ipv4.ip_forward"] == value
    assert int(seen["kernel.keys.maxkeys"]) > 0
    bridges = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    assert seen["net.bridge.bridge-nf-call-iptables"] == (bridges.read_text().strip() if bridges.exists() else None)


@private
def test_links_of_other_namespaces_are_not_the_hosts() -> None:
    sh("ip", "netns", "add", "other")
    sh("ip", "link", "add", "vetha", "type", "veth", "peer", "name", "vethb", "netns", "other")
    assert observe()["links"] == ["lo", "vetha"]


@private
def test_what_stands_where_microk8s_makes_symlinks() -> None:
    for directory in ("/etc", "/opt", "/var/lib"):
        sh("mount", "-t", "tmpfs", "tmpfs", directory)
    os.makedirs("/etc/cni")
    os.makedirs("/opt/cni/bin")
    os.symlink("/var/snap/microk8s/common/var/lib/kubelet", "/var/lib/kubelet")  # leads nowhere
    os.symlink("../../srv", "/etc/cni/net.d")
    Path("/etc/group").write_text("incus-admin:x:997:alice\nincus-adm:x:996:\n")
    Path("/etc/subuid").write_text("root:1000000:1000000000\n")
    seen = observe()
    assert seen["paths"] == {
        "/etc/cni/net.d": "../../srv",
        "/opt/cni/bin": "directory",
        "/var/lib/calico": None,
        "/var/lib/kubelet": "/var/snap/microk8s/common/var/lib/kubelet",
    }
    assert seen["accounts"] == {
        "group incus": [],
        "group incus-admin": ["incus-admin:x:997:alice"],
        "user incus": [],
        "subuid root": ["root:1000000:1000000000"],
        "subgid root": [],
    }


@private
def test_an_arrival_is_noted_once_and_an_upgrade_is_not() -> None:
    sh("mount", "-t", "tmpfs", "tmpfs", "/var/lib")
    os.makedirs("/var/lib/dpkg")
    Path("/var/lib/dpkg/status").touch()
    ledger = Ledger(HOST)
    sh("iptables-nft", "-P", "FORWARD", "ACCEPT")

    def come(version: str) -> bool:
        with ledger.locked():
            return arrival.note(HOST, ledger, BOX, "boxd", version)

    assert come("1")
    sh("iptables-nft", "-P", "FORWARD", "DROP")
    os.mkdir("/mnt/bin")
    sh("cp", "/bin/sleep", "/mnt/bin/boxd")
    assert not come("2"), "its daemon's file is there"
    running = sleeper("boxd", "1000", exe="/mnt/bin/boxd")
    os.unlink("/mnt/bin/boxd")
    os.mkdir("/mnt/elsewhere")
    sh("cp", "/bin/sleep", "/mnt/elsewhere/boxd")
    other = sleeper("boxd", "1000", exe="/mnt/elsewhere/boxd")
    assert not come("3"), "a daemon of that name runs"
    seen = ledger.arrivals("box")
    assert seen and (seen["version"], seen["presence"], seen["forward"]["iptables-nft"]) == ("1", "absent", "ACCEPT")
    for process in (running, other):
        process.kill()
        process.wait()
    assert come("4")
    seen = ledger.arrivals("box")
    assert seen and (seen["version"], seen["forward"]["iptables-nft"]) == ("4", "DROP")
