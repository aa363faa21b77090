"""/proc/net/ip_vs as the kernel prints it (net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_info_seq_show). With a real IPVS:
lab/test_guest_networks.py."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from leftovers import netlink
from leftovers.host import Host
from leftovers.kinds import ipvs
from leftovers.kinds.ipvs import VirtualServers, parse
from leftovers.kinds.kind import Look
from leftovers.model import Deadline, Verb

TABLE = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A98B701:01BB rr persistent 10800 FFFFFFFF
  -> C0A80105:192B      Masq    1      0          0
  -> C0A80106:192B      Masq    1      0          0
UDP  0A98B70A:0035 wrr ops
SCTP  C0A80001:0050 sh
TCP  [fd98:0000:0000:0000:0000:0000:0000:0001]:01BB rr
  -> [fd00:0000:0000:0000:0000:0000:0000:0005]:192B      Masq    1      0          0
FWM  0000002A lc persistent 300 FFFFFFFF
  -> C0A80001:0050      Route   1      0          0
"""


def test_virtual_servers() -> None:
    found = {obj.key: obj for obj in parse(TABLE)}
    assert list(found) == [
        "-t 10.152.183.1:443",
        "-u 10.152.183.10:53",
        "--sctp-service 192.168.0.1:80",
        "-t [fd98::1]:443",
        "-f 42",
    ]
    assert found["-t 10.152.183.1:443"].facts == {
        "protocol": "TCP",
        "address": "10.152.183.1",
        "port": 443,
        "mark": 0,
        "scheduler": "rr",
        "servers": ["192.168.1.5:6443", "192.168.1.6:6443"],
        "forwards": ["Masq"],
        "service": "-t 10.152.183.1:443",
    }
    assert found["-t [fd98::1]:443"].facts["servers"] == ["[fd00::5]:6443"]
    assert (found["-f 42"].facts["mark"], found["-f 42"].facts["address"]) == (42, "")
    assert found["-u 10.152.183.10:53"].facts["servers"] == []


@pytest.mark.parametrize(
    "text",
    ["", "TCP", "TCP  0A98:01BB rr", "TCP  [x]:01BB rr", "TCP [::1::2]:0001 rr", "FWM xyz rr", "  -> 0A98B701:01BB"],
)
def test_odd_lines(text: str) -> None:
    assert list(parse(f"{text}\n  -> C0A80105:192B Masq 1 0 0\n")) == []


def test_removed_by_address_and_never_by_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(str(tmp_path))
    assert VirtualServers().survey(Look(host)).objects == ()
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/ip_vs").write_text(TABLE)
    listing = VirtualServers().survey(Look(host))
    assert len(listing.objects) == 5 and listing.faults == ()
    sent: list[netlink.Request] = []

    def send(protocol: int, requests: list[netlink.Request]) -> list[int]:
        assert protocol == netlink.GENERIC
        sent.extend(requests)
        return [0, errno.ESRCH, errno.EPERM, 0]

    monkeypatch.setattr(ipvs, "family", lambda: 33)
    monkeypatch.setattr(netlink, "send", send)
    causes = VirtualServers().act(host, Verb.REMOVE, listing.objects, Deadline(1))
    assert causes == {
        "ipvs:-f 42": "is told by a mark, and by no address",
        "ipvs:--sctp-service 192.168.0.1:80": "Operation not permitted",
    }
    assert len(sent) == 4 and {request.type for request in sent} == {33}
    causes = VirtualServers().act(host, Verb.REMOVE, listing.objects[4:], Deadline(1))
    assert len(causes) == 1 and len(sent) == 4


def test_where_the_kernel_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(protocol: int, request: netlink.Request) -> bytes:
        raise OSError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(netlink, "ask", ask)
    (obj, *_) = parse(TABLE)
    assert VirtualServers().act(Host(), Verb.REMOVE, [obj], Deadline(1)) == {obj.id: "No such file or directory"}
