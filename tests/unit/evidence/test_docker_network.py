"""local-kv.db as Docker 26.1.5 wrote it (trimmed), and what else could stand there."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from leftovers.evidence import docker_network
from leftovers.host import Host
from leftovers.model import Record
from unit.evidence.bolt_file import Writer, local_kv

DEFAULT, USER, OWN, MACVLAN, HOST = ("60cfa56c7a1f", "077024ddd94b", "4dd972522576", "e5af7b5ed0a3", "4d94b69daabf")
END, MACVLAN_END, HOST_END = "7f95e6fb6bf4", "6e59943f5507", "ddb18d9270f9"
SANDBOX, MACVLAN_SANDBOX, HOST_SANDBOX = "2eff4a32f853", "39c68d8bc2ac", "973890536f73"
CONTAINER = "e2a0f617ad2b"


def id(short: str) -> str:
    return short.ljust(64, "0")


def network(short: str, name: str, driver: str, *pools: tuple[str, str, str]) -> dict[str, Any]:
    said: dict[str, Any] = {"id": id(short), "name": name, "networkType": driver, "scope": "local", "persist": True}
    said |= {"created": "2026-11-21T12:02:11.729028135Z", "internal": False, "ingress": False}
    for key, pool, gateway in pools:
        data = json.dumps({"AddressSpace": "LocalDefault", "Gateway": gateway, "Pool": pool})
        said[key] = json.dumps([{"IPAMData": data, "PoolID": f"LocalDefault/{pool}"}])
    return said


def bridge(short: str, name: str, creator: int, default: bool = False) -> dict[str, Any]:
    return {"ID": id(short), "BridgeName": name, "BridgeIfaceCreator": creator, "DefaultBridge": default, "Mtu": 0}


def endpoint(short: str, name: str, sandbox: str, **interface: Any) -> dict[str, Any]:
    interface = {"dstPrefix": "eth", "routes": None, "srcName": "", **interface}
    return {"id": id(short), "name": name, "sandbox": id(sandbox), "ep_iface": interface}


RECORDS: dict[str, Any] = {
    "network": None,
    f"network/{id(DEFAULT)}": network(DEFAULT, "bridge", "bridge", ("ipamV4Info", "172.17.0.0/16", "172.17.0.1/16")),
    f"network/{id(USER)}": network(
        USER,
        "n1",
        "bridge",
        ("ipamV4Info", "172.18.0.0/16", "172.18.0.1/16"),
        ("ipamV6Info", "fd00:55::/64", "fd00:55::1/64"),
    ),
    f"network/{id(OWN)}": network(OWN, "n3", "bridge"),
    f"network/{id(MACVLAN)}": network(MACVLAN, "m1", "macvlan", ("ipamV4Info", "10.57.0.0/24", "10.57.0.1/24")),
    f"network/{id(HOST)}": network(HOST, "host", "host"),
    f"bridge/{id(DEFAULT)}": bridge(DEFAULT, "docker0", 2, default=True),
    f"bridge/{id(USER)}": bridge(USER, f"br-{USER}", 1),
    f"bridge/{id(OWN)}": bridge(OWN, "br-own", 2),
    f"macvlan/network/{id(MACVLAN)}": {
        "ID": id(MACVLAN),
        "Parent": "dm-e5af7b5ed0a3",
        "CreatedSubIface": True,
        "MacvlanMode": "bridge",
    },
    f"endpoint/{id(USER)}/{id(END)}": endpoint(
        END, "c2", SANDBOX, addr="172.18.0.2/16", addrv6="fd00:55::2/64", mac="02:42:AC:12:00:02", srcName="veth8a5eb85"
    ),
    f"endpoint/{id(MACVLAN)}/{id(MACVLAN_END)}": endpoint(MACVLAN_END, "cmac", MACVLAN_SANDBOX),
    f"endpoint/{id(HOST)}/{id(HOST_END)}": endpoint(HOST_END, "chost", HOST_SANDBOX),
    f"bridge-endpoint/{id(END)}": {"id": id(END), "nid": id(USER), "Addr": "172.18.0.2/16", "SrcName": "veth8a5eb85"},
    f"macvlan/endpoint/{id(MACVLAN_END)}": {
        "id": id(MACVLAN_END),
        "nid": id(MACVLAN),
        "Addr": "10.57.0.2/24",
        "MacAddress": "02:42:0a:39:00:02",
        "SrcName": "vethb9ac3e2",
    },
    f"sandbox/{id(SANDBOX)}": {"ID": id(SANDBOX), "Cid": id(CONTAINER), "Eps": []},
    f"endpoint_count/{id(USER)}": {"Count": 1},
}


def read(tmp_path: Path, records: dict[str, Any]) -> tuple[dict[str, Record], list[str]]:
    path = tmp_path / "d/network/files/local-kv.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(local_kv(records))
    found, faults = docker_network.read(Host(str(tmp_path)), "/d")
    assert all(record.source == "disk" for record in found)
    assert len({record.name for record in found}) == len(found)
    return {record.name: record for record in found}, faults


def test_networks(tmp_path: Path) -> None:
    found, faults = read(tmp_path, RECORDS)
    assert not faults
    assert found[id(USER)].type == "docker-network"
    assert found[id(USER)].facts == {
        "id": id(USER),
        "name": "n1",
        "driver": "bridge",
        "scope": "local",
        "created": "2026-11-21T12:02:11.729028135Z",
        "bridge": f"br-{USER}",
        "default": False,
        "creator": 1,
        "subnets": ["172.18.0.0/16", "fd00:55::/64"],
        "gateways": ["172.18.0.1", "fd00:55::1"],
        "parent": "",
        "parent_created": False,
        "internal": False,
        "ingress": False,
    }
    default, own, macvlan, host = (found[id(each)].facts for each in (DEFAULT, OWN, MACVLAN, HOST))
    assert (default["name"], default["bridge"], default["default"], default["creator"]) == (
        "bridge",
        "docker0",
        True,
        2,
    )
    assert (own["bridge"], own["default"], own["creator"]) == ("br-own", False, 2)
    assert (macvlan["driver"], macvlan["parent"], macvlan["parent_created"]) == ("macvlan", "dm-e5af7b5ed0a3", True)
    assert (host["driver"], host["bridge"], host["creator"]) == ("host", "", 0)


def test_endpoints(tmp_path: Path) -> None:
    found, _ = read(tmp_path, RECORDS)
    assert found[id(END)].type == "docker-endpoint"
    assert found[id(END)].facts == {
        "id": id(END),
        "name": "c2",
        "network": id(USER),
        "sandbox": id(SANDBOX),
        "container": id(CONTAINER),
        "address": "172.18.0.2",
        "address6": "fd00:55::2",
        "source_name": "veth8a5eb85",
        "mac": "02:42:ac:12:00:02",
    }
    # What only the driver says is there too; the sandbox of this one is not written down.
    macvlan = found[id(MACVLAN_END)].facts
    assert (macvlan["name"], macvlan["address"], macvlan["mac"]) == ("cmac", "10.57.0.2", "02:42:0a:39:00:02")
    assert (macvlan["source_name"], macvlan["sandbox"], macvlan["container"]) == (
        "vethb9ac3e2",
        id(MACVLAN_SANDBOX),
        "",
    )


def test_what_only_a_driver_has_any_more(tmp_path: Path) -> None:
    """dockerd was killed between the two records."""
    records = {key: value for key, value in RECORDS.items() if not key.startswith(("network/", "endpoint/"))}
    found, faults = read(tmp_path, records)
    assert not faults
    assert {each.facts["driver"] for each in found.values() if each.type == "docker-network"} == {"bridge", "macvlan"}
    assert found[id(USER)].facts["bridge"] == f"br-{USER}" and not found[id(USER)].facts["name"]
    end = found[id(END)].facts
    assert (end["network"], end["source_name"], end["sandbox"], end["name"]) == (id(USER), "veth8a5eb85", "", "")


def test_no_store(tmp_path: Path) -> None:
    assert docker_network.read(Host(str(tmp_path)), "/d") == ([], [])
    path = tmp_path / "d/network/files/local-kv.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\0" * 32768)
    records, faults = docker_network.read(Host(str(tmp_path)), "/d")
    assert not records and faults == [
        "/d/network/files/local-kv.db: not a BoltDB file, or one without a valid meta page"
    ]


def test_of_other_buckets_and_keys(tmp_path: Path) -> None:
    value = bytes(8) + json.dumps(network(USER, "n1", "bridge")).encode()
    key = f"docker/network/v1.0/network/{id(USER)}/".encode()
    path = tmp_path / "d/network/files/local-kv.db"
    path.parent.mkdir(parents=True)
    path.write_bytes(
        Writer().file(
            {
                b"other": {key: value},
                b"libnetwork": {b"x": value, key[:-10]: value, b"\xff": value, key[7:]: value, b"n": {key: value}},
            }
        )
    )
    assert docker_network.read(Host(str(tmp_path)), "/d") == ([], [])


def test_who_says_another_id_is_not_believed(tmp_path: Path) -> None:
    records = {
        f"network/{id(USER)}": network(OWN, "n3", "bridge"),
        f"bridge/{id(USER)}": {**bridge(OWN, "br-lan", 1)},
        f"endpoint/{id(USER)}/{id(END)}": endpoint(MACVLAN_END, "c2", SANDBOX),
        "network/../../x": {**network(OWN, "n3", "bridge"), "id": "../../x"},
        "bridge/br-lan": {**bridge(OWN, "br-lan", 1), "ID": "br-lan"},
    }
    assert read(tmp_path, records) == ({}, [])


ODD: list[Any] = [None, "", "x" * 300, "a\nb", "../x", "a/b", "\ud800", -1, 1 << 70, 1.5, True, [], [[]], {}, {"a": []}]


@pytest.mark.parametrize("odd", ODD, ids=lambda value: ascii(value)[:20])
def test_hostile_values(tmp_path: Path, odd: Any) -> None:
    """Each value of each record in turn is something else."""
    records: dict[str, Any] = {}
    for key, said in RECORDS.items():
        for name in said or ():
            if name not in ("id", "ID"):
                short = f"{len(records):012x}"
                own = copy.deepcopy({**said, name: odd})
                own["ID" if "ID" in own else "id"] = id(short)
                records[f"{key.rpartition('/')[0]}/{id(short)}"] = own
    found, faults = read(tmp_path, records)
    assert not faults and len(found) > 40
    for record in found.values():
        text = json.dumps(record.facts)
        assert "\\n" not in text and "\\ud800" not in text
        assert "../" not in text.replace(str(record.facts["name"]), "")
        for name in ("bridge", "parent", "source_name"):
            assert len(record.facts.get(name, "")) < 16
        assert record.facts.get("creator", 0) in (0, 1, 2)
        assert type(record.facts.get("creator", 0)) is int


def test_values_that_are_no_json(tmp_path: Path) -> None:
    path = tmp_path / "d/network/files/local-kv.db"
    path.parent.mkdir(parents=True)
    bad = [b"", b"x", b"12345678", b"12345678{", b"12345678[]", b"12345678" + b"[" * 100_000, b"12345678\xff"]
    tree = {f"docker/network/v1.0/network/{number:064x}/".encode(): value for number, value in enumerate(bad)} | {
        f"docker/network/v1.0/network/{id(USER)}/".encode(): bytes(8) + json.dumps(network(USER, "n1", "x")).encode()
    }
    path.write_bytes(Writer().file({b"libnetwork": tree}))
    records, faults = docker_network.read(Host(str(tmp_path)), "/d")
    assert [record.name for record in records] == [id(USER)]
    assert len(faults) == 4 and all("not JSON" in fault and "\n" not in fault for fault in faults)
