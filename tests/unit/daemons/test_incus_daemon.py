"""The answers of a real Incus 6.0.4 (trimmed), and those of something else on its socket."""

from __future__ import annotations

import copy
import http.server
import json
import os
import socketserver
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from leftovers.daemons import incus
from leftovers.host import Host
from leftovers.model import Record

CLUSTER = "/1.0/cluster"
NETWORKS = "/1.0/networks?recursion=1&all-projects=true"
POOLS = "/1.0/storage-pools?recursion=1"
INSTANCES = "/1.0/instances?recursion=1&all-projects=true"

ANSWERS: dict[str, Any] = {
    CLUSTER: {"server_name": "", "enabled": False, "member_config": []},
    NETWORKS: [
        {
            "config": {"ipv4.address": "10.153.142.1/24", "ipv4.nat": "true", "ipv6.address": "none"},
            "description": "",
            "locations": ["none"],
            "managed": True,
            "name": "incusbr0",
            "project": "default",
            "status": "Created",
            "type": "bridge",
            "used_by": ["/1.0/profiles/default"],
        },
        {"config": {"parent": "br-lan"}, "managed": True, "name": "mv", "status": "Created", "type": "macvlan"},
        {"config": {}, "locations": None, "managed": False, "name": "lo", "status": "", "type": "loopback"},
        {"config": {}, "locations": None, "managed": False, "name": "br-lan", "status": "", "type": "bridge"},
    ],
    POOLS: [
        {
            "config": {"source": "/srv/pool"},
            "description": "",
            "driver": "dir",
            "locations": ["none"],
            "name": "pool2",
            "status": "Created",
            "used_by": ["/1.0/instances/c4"],
        }
    ],
    INSTANCES: [
        {
            "architecture": "x86_64",
            "config": {"volatile.eth0.host_name": "veth3a27704b"},
            "ephemeral": False,
            "expanded_config": {
                "volatile.eth0.host_name": "veth3a27704b",
                "volatile.eth0.hwaddr": "10:66:6a:0a:8f:ad",
                "volatile.uuid": "00d0a890-7551-453b-a3d5-f5fe4fee9dd8",
            },
            "expanded_devices": {
                "data": {"path": "/mnt/data", "source": "/srv/data", "type": "disk"},
                "eth0": {"name": "eth0", "network": "incusbr0", "type": "nic"},
                "root": {"path": "/", "pool": "default", "type": "disk"},
                "web": {"connect": "tcp:127.0.0.1:80", "listen": "tcp:127.0.0.1:8080", "type": "proxy"},
            },
            "location": "none",
            "name": "c1",
            "project": "default",
            "status": "Running",
            "status_code": 103,
            "type": "container",
        },
        {
            "ephemeral": True,
            "expanded_config": {},
            "expanded_devices": {
                "eth0": {"name": "eth0", "nictype": "bridged", "parent": "br-lan", "host_name": "my0", "type": "nic"}
            },
            "location": "none",
            "name": "p1",
            "project": "proj",
            "status": "Stopped",
            "status_code": 102,
            "type": "virtual-machine",
        },
    ],
}

Serve = Callable[[dict[str, Any]], Host]


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@pytest.fixture
def serve() -> Iterator[Serve]:
    """serve(answers) starts a daemon at /s of the Host that it returns; answers are metadata by URL."""
    servers: list[Server] = []
    with tempfile.TemporaryDirectory(prefix="l") as directory:

        def start(answers: dict[str, Any]) -> Host:
            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    known = self.path in answers
                    body = {"type": "sync", "status": "Success", "status_code": 200, "metadata": answers.get(self.path)}
                    if not known:
                        body = {"type": "error", "error": "not found", "error_code": 404}
                    data = json.dumps(body).encode()
                    self.send_response(200 if known else 404)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

                def log_message(self, *_: object) -> None:
                    pass

                def address_string(self) -> str:
                    return ""

            servers.append(Server(f"{directory}/s", Handler))
            threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
            return Host(directory)

        yield start
        for server in servers:
            server.shutdown()
            server.server_close()


def of(records: list[Record], type_: str) -> dict[str, Record]:
    return {record.name: record for record in records if record.type == type_}


def test_real(serve: Serve) -> None:
    records, faults = incus.read(serve(ANSWERS), "/s")
    assert faults == []
    assert all(record.source == "api" for record in records)
    networks = of(records, "network")
    assert {name: record.facts["managed"] for name, record in networks.items()} == {
        "incusbr0": True,
        "mv": True,
        "lo": False,
        "br-lan": False,
    }
    assert networks["incusbr0"].facts["addresses"] == ["10.153.142.1"]
    assert networks["mv"].facts["config"] == {"parent": "br-lan"}
    assert of(records, "pool")["pool2"].facts["source"] == "/srv/pool"
    instances = of(records, "instance")
    assert list(instances) == ["c1", "proj_p1"]
    c1, p1 = instances["c1"].facts, instances["proj_p1"].facts
    assert (c1["running"], c1["ephemeral"], c1["type"], c1["proxies"]) == (True, False, "container", ["web"])
    assert c1["uuid"] == "00d0a890-7551-453b-a3d5-f5fe4fee9dd8"
    assert c1["nics"][0]["host_name"] == "veth3a27704b" and c1["nics"][0]["network"] == "incusbr0"
    assert (p1["running"], p1["ephemeral"], p1["type"], p1["project"]) == (False, True, "virtual-machine", "proj")
    assert (p1["nics"][0]["host_name"], p1["nics"][0]["host_name_from"]) == ("my0", "device")


@pytest.mark.parametrize(
    ("status", "running"),
    [("Running", True), ("Frozen", True), ("Stopped", False), ("Error", None), ("Starting", None), (103, None)],
)
def test_running(status: object, running: bool | None) -> None:
    assert incus.running(status) is running


def test_absent() -> None:
    assert incus.read(Host("/nonexistent")) == ([], [])


def test_a_part_that_fails_does_not_take_the_rest(serve: Serve) -> None:
    answers = {url: answer for url, answer in ANSWERS.items() if url != POOLS}
    records, faults = incus.read(serve(answers), "/s")
    assert faults == [f"/s {POOLS}: HTTP status 404: not found"]
    assert of(records, "network") and of(records, "instance")


def test_of_a_cluster_only_what_is_here(serve: Serve) -> None:
    answers = copy.deepcopy(ANSWERS)
    for instance, location in zip(answers[INSTANCES], ("a", "b"), strict=True):
        instance["location"] = location
    del answers[CLUSTER]
    host = serve(answers)
    records, faults = incus.read(host, "/s")
    assert not of(records, "instance") and faults == [f"/s {CLUSTER}: HTTP status 404: not found"]
    answers[CLUSTER] = {"server_name": "", "enabled": True}
    assert "which member" in incus.read(host, "/s")[1][0]
    answers[CLUSTER] = {"server_name": "b", "enabled": True}
    records, faults = incus.read(host, "/s")
    assert faults == [f"/s {CLUSTER}/members: HTTP status 404: not found"]
    assert list(of(records, "instance")) == ["proj_p1"], "who the others are is not needed to know what is here"
    answers[f"{CLUSTER}/members"] = ["/1.0/cluster/members/a", "/1.0/cluster/members/b", "/1.0/cluster/members/c"]
    records, faults = incus.read(host, "/s")
    assert not faults and list(of(records, "instance")) == ["proj_p1"]
    assert {name: record.facts for name, record in of(records, "cluster").items()} == {
        "b": {"members": ["a", "b", "c"]}
    }
    answers[f"{CLUSTER}/members"] = ["/1.0/cluster/members/b"]
    records, faults = incus.read(host, "/s")
    assert not of(records, "cluster"), "nobody else counts on this host"
    assert list(of(records, "instance")) == ["proj_p1"]


def test_the_number_of_an_ovn_network(serve: Serve) -> None:
    """In its router's name, which its state has; what is no such name, or no answer, is no number."""
    answers = {**ANSWERS, NETWORKS: [{"name": "o n", "type": "ovn", "managed": True, "project": "p", "config": {}}]}
    url = "/1.0/networks/o%20n/state?project=p"
    host = serve(answers)
    for router, number in (("incus-net7-lr", 7), ("lxd-net12-lr", 12), ("incus-net0-lr", 0), ("x; reboot", 0), (3, 0)):
        answers[url] = {"ovn": {"logical_router": router}}
        records, faults = incus.read(host, "/s")
        assert not faults and of(records, "network")["o n"].facts["number"] == number
    del answers[url]
    records, faults = incus.read(host, "/s")
    assert not faults and of(records, "network")["o n"].facts["number"] == 0


@pytest.mark.parametrize("answer", [None, {}, [1], "x", [[]], [{}], [{"name": "../x"}], [{"name": "a\ud800"}]])
def test_hostile(serve: Serve, answer: Any) -> None:
    records, faults = incus.read(serve(dict.fromkeys(ANSWERS, answer)), "/s")
    assert records == [] and len(faults) == 4
    assert all("\n" not in fault for fault in faults)


def test_lone_surrogates_in_values_do_not_reach_a_record(serve: Serve) -> None:
    answers = {**ANSWERS, POOLS: [{"name": "p", "driver": "dir", "config": {"source": "/srv/\ud800"}}]}
    records, faults = incus.read(serve(answers), "/s")
    assert not faults
    os.fsencode(of(records, "pool")["p"].facts["source"])


def test_not_incus(serve: Serve) -> None:
    host = serve({})
    records, faults = incus.read(host, "/s")
    assert records == [] and len(faults) == 4
