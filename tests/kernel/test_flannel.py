"""What flannel leaves on a host where MicroK8s had it, made with its own names and kinds, goes; what is like it
stays."""

from __future__ import annotations

import containerd_like as like
import pytest
from sandbox import private, sh
from test_clean import plan
from test_containerd_like import clean

TABLE = "table ip flannel-ipv4 {\n chain postrtg {\n counter\n }\n}\n"
LIKE = "table ip6 flannel-ipv6 {\n chain mine {\n counter\n }\n}\ntable inet flannel-ipv4 {\n chain postrtg {\n }\n}\n"
RULES = """*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -s 10.1.0.0/16 -d 10.1.0.0/16 -m comment --comment "flanneld masq" -j RETURN
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.1.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
"""


def tunnel(name: str, number: int, address: str, dev: str = "eth0") -> None:
    sh("ip", "link", "add", name, "type", "vxlan", "id", str(number), "dev", dev, "dstport", "8472", "nolearning")
    sh("ip", "link", "set", name, "addrgenmode", "none")
    sh("ip", "link", "set", name, "up")
    sh("ip", "address", "add", address, "dev", name)


def host() -> None:
    sh("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0p")
    tunnel("flannel.2", 2, "10.9.0.0/32")  # another's network
    tunnel("flannel.mine", 3, "10.1.0.0/32")
    sh("ip", "link", "add", "flannel.4", "type", "bridge")
    sh("iptables-nft", "-A", "FORWARD", "-i", "flannel.1", "-m", "comment", "--comment", "admin", "-j", "ACCEPT")
    sh("iptables-nft", "-N", "FLANNEL-MINE")
    sh("nft", "-f", "-", stdin=LIKE)


def flannel() -> None:
    tunnel("flannel.1", 1, "10.1.64.0/32")
    sh("ip", "route", "add", "10.1.65.0/24", "via", "10.1.65.0", "dev", "flannel.1", "onlink")
    sh("iptables-nft-restore", "--noflush", stdin=RULES)
    sh("nft", "-f", "-", stdin=TABLE)


def state() -> list[str]:
    """What has flannel's name in it, also in other letters."""
    said = sh("ip", "-brief", "address") + sh("ip", "-4", "route", "show", "table", "all") + sh("nft", "list", "tables")
    said += sh("iptables-nft", "-S") + sh("iptables-nft", "-t", "nat", "-S")
    return sorted(line for line in said.splitlines() if "flannel" in line.lower())


@private
def test_it_goes_and_what_is_like_it_stays(capsys: pytest.CaptureFixture[str]) -> None:
    like.prepare()
    host()
    before = state()
    like.microk8s()
    flannel()
    assert plan(capsys, product="microk8s")["link:flannel.1"]["action"] == "remove"
    said = clean(capsys)
    assert state() == before, said


@private
def test_beside_somebody_else_s_flannel(capsys: pytest.CaptureFixture[str]) -> None:
    like.prepare()
    host()
    like.microk8s()
    flannel()
    agent = like.spawn("/run/lab/d/flanneld", "/srv", "/admin.slice", [], "import time; time.sleep(1000)")
    before = state()
    clean(capsys)
    assert state() == before and any("flannel.1" in line for line in before)
    agent.kill()
    agent.wait()
