"""Open vSwitch's tables, as `ovs-vsctl --format=json list` of 3.5.0 wrote them on a host with OVN and Incus."""

from __future__ import annotations

import json
import pathlib
import signal
import socket

import pytest

from leftovers.errors import ToolFault
from leftovers.host import Host
from leftovers.kinds import ovs
from leftovers.kinds.kind import Look
from leftovers.kinds.ovs import OpenVSwitch
from leftovers.model import Deadline, Object, Scope, Verb
from leftovers.run import Completed

LINES = [
    '{"data":[[["map",[["ovn-bridge-mappings","offices:ovs1,uplink:incusovn2"],["system-id","s"]]]]],'
    '"headings":["external_ids"]}',
    '{"data":[[["uuid","b1"],"ovs1",["set",[]]],[["uuid","b2"],"incusovn2",["set",[["uuid","p1"],["uuid","p2"]]]],'
    '[["uuid","b3"],"br0",["uuid","p3"]]],"headings":["_uuid","name","ports"]}',
    '{"data":[[["uuid","p1"],"incusovn2",["uuid","i1"]],[["uuid","p2"],"incusovn2b",["uuid","i2"]],'
    '[["uuid","p3"],"veth01234567",["uuid","i3"]]],"headings":["_uuid","name","interfaces"]}',
    '{"data":[[["uuid","i1"],"incusovn2","internal",["map",[]]],[["uuid","i2"],"incusovn2b","",["map",[]]],'
    '[["uuid","i3"],"veth01234567","",["map",[["iface-id","incus-net3-instance-0-eth0"]]]]],'
    '"headings":["_uuid","name","type","external_ids"]}',
]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """ovs-vsctl answers LINES; what it was asked to change is in the list."""
    asked: list[list[str]] = []

    def run(argv: list[str], **_: object) -> Completed:
        if "list" in argv:
            return Completed(0, "\n".join(LINES) + "\n", "")
        asked.append(argv)
        if "bad" in argv:
            raise ToolFault("ovs-vsctl", "no bridge named bad")
        return Completed(0, "", "")

    monkeypatch.setattr(ovs, "run", run)
    return asked


def listed() -> dict[str, Object]:
    links = {"incusovn2": {"address": "02:00:00:00:00:01", "addresses": ["10.0.0.1"]}, "incusovn2b": {}}
    return {obj.key: obj for obj in ovs.described(ovs.read(), links)}


def test_tables(said: list[list[str]]) -> None:
    found = listed()
    assert set(found) == {
        "bridge ovs1",
        "bridge incusovn2",
        "bridge br0",
        "port incusovn2 incusovn2b",
        "port br0 veth01234567",
    }
    assert found["bridge incusovn2"].identity == ("bridge", "b2")
    assert found["bridge incusovn2"].facts["mapped"] == ["uplink"]
    assert found["bridge incusovn2"].facts["address"] == "02:00:00:00:00:01"
    assert found["bridge ovs1"].facts["ports"] == []
    assert found["port incusovn2 incusovn2b"].facts["here"]
    lost = found["port br0 veth01234567"].facts
    assert (lost["bridge"], lost["here"], lost["iface_id"]) == ("br0", False, "incus-net3-instance-0-eth0")


def test_one_transaction_and_the_other_mappings_stay(said: list[list[str]]) -> None:
    found = listed()
    objects = [found["bridge incusovn2"], found["port br0 veth01234567"]]
    assert OpenVSwitch().act(Host(), Verb.REMOVE, objects, Deadline(9)) == {}
    (argv,) = said
    assert argv[2:] == [
        *("--", "set", "Open_vSwitch", ".", 'external_ids:ovn-bridge-mappings="offices:ovs1"'),
        *("--", "--if-exists", "del-port", "br0", "veth01234567"),
        *("--", "--if-exists", "del-br", "incusovn2"),
    ]


def test_one_that_fails_does_not_keep_the_rest(said: list[list[str]]) -> None:
    found = listed()
    bad = Object("ovs", "bridge bad", ("bridge", "x"), {"what": "bridge", "name": "bad", "mapped": []})
    odd = Object("ovs", "bridge --x", ("bridge", "y"), {"what": "bridge", "name": "--x", "mapped": []})
    failed = OpenVSwitch().act(Host(), Verb.REMOVE, [bad, odd, found["bridge br0"]], Deadline(9))
    assert failed == {
        "ovs:bridge bad": "no bridge named bad",
        "ovs:bridge --x": "its name cannot be given to ovs-vsctl",
    }
    assert said[-1][2:] == ["--", "--if-exists", "del-br", "br0"]


@pytest.mark.parametrize("line", ["", "x", "{}", '{"data":[[1]],"headings":[]}', "[" * 100000])
def test_what_is_no_table(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.setattr(ovs, "run", lambda argv, **_: Completed(0, "\n".join([line, *LINES[1:]]), ""))
    with pytest.raises(ToolFault):
        ovs.read()


def test_nobody_is_asked_again_when_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(argv: list[str], **_: object) -> Completed:
        asked.append(argv)
        raise ToolFault("ovs-vsctl", f"exit status {-signal.SIGALRM}")

    monkeypatch.setattr(ovs, "run", run)
    objects = [
        Object("ovs", f"bridge b{number}", ("bridge", number), {"what": "bridge", "name": f"b{number}", "mapped": []})
        for number in range(1000)
    ]
    assert len(OpenVSwitch().act(Host(), Verb.REMOVE, objects, Deadline(9))) == 1000 and len(asked) == 1


def test_other_ends_of_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = LINES[0].replace('"s"', '"s\u2028\x85"')
    monkeypatch.setattr(ovs, "run", lambda argv, **_: Completed(0, "\n".join([odd, *LINES[1:]]) + "\n", ""))
    assert "bridge br0" in listed()


def test_a_switch_that_does_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """What is in its database comes back with it: that is a fault where a product's records speak of a switch."""
    monkeypatch.setattr(ovs, "SOCKET", str(tmp_path / "db.sock"))
    monkeypatch.setattr(ovs, "DATABASE", str(tmp_path / "conf.db"))
    monkeypatch.setattr(ovs, "find", lambda name: f"/usr/bin/{name}")

    def faults(*relied: str) -> tuple[str, ...]:
        return OpenVSwitch().survey(Look(Host(), Scope(relied=relied), {"link": ()})).faults

    assert faults("ovs") == (), "it was purged"
    (tmp_path / "conf.db").touch()
    assert faults() == () and len(faults("ovs")) == 1
    monkeypatch.setattr(ovs, "find", lambda name: None)
    assert len(faults("ovs")) == 1
    monkeypatch.setattr(ovs, "find", lambda name: f"/usr/bin/{name}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "db.sock"))
        server.listen(0)
        clients = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(2)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(str(tmp_path / "db.sock"))
        monkeypatch.setattr(ovs, "SECONDS", 0.1)
        assert "does not answer" in faults()[0], "nobody takes its calls"
        for client in clients:
            client.close()
    assert faults() == (), "its socket is all that is left of it"


def test_values() -> None:
    assert ovs.plain(json.loads('["set",[["uuid","a"],"b",1]]')) == ["a", "b", 1]
    assert ovs.mappings([{"external_ids": {"ovn-bridge-mappings": "a:b, c:b,,x"}}]) == {"b": ["a", "c"]}
