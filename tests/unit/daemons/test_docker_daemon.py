"""The answers of a real Docker 28.5.2 (trimmed), and those of something else on its socket."""

from __future__ import annotations

import copy
import http.server
import json
import socketserver
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from leftovers.daemons import docker
from leftovers.evidence.docker_settings import Settings
from leftovers.host import Host
from leftovers.model import Deadline, Object, Record
from unit.evidence.bolt_file import local_kv

C1, C2, C3 = "1" * 64, "2" * 64, "3" * 64
BRIDGE, USER, MACVLAN = "a" * 64, "b" * 64, "c" * 64
SWARM = "q04rpx82b7kq8c5r5abksi9e8"
END, SWARM_END, SANDBOX = "e" * 64, "f" * 64, "d" * 64
CREATED = "2026-11-21T12:16:05.817886995Z"
NEVER = "0001-01-01T00:00:00Z"


def network(id: str, name: str, driver: str, options: dict[str, str], *pools: dict[str, str]) -> dict[str, Any]:
    said = {"Id": id, "Name": name, "Driver": driver, "Scope": "local", "Created": CREATED, "Options": options}
    return {**said, "IPAM": {"Driver": "default", "Config": list(pools)}, "Internal": False, "Ingress": False}


def joined(id: str, end: str, address: str = "", mac: str = "") -> dict[str, Any]:
    return {"NetworkID": id, "EndpointID": end, "IPAddress": address, "GlobalIPv6Address": "", "MacAddress": mac}


def inspected(
    id: str, name: str, running: bool, mode: str, networks: dict[str, Any], **settings: Any
) -> dict[str, Any]:
    state = {"Running": running, "Pid": 754 if running else 0, "StartedAt": CREATED if running else NEVER}
    return {
        "Id": id,
        "Name": f"/{name}",
        "Created": CREATED,
        "State": state,
        "Driver": "overlay2",
        "Config": {"Image": "nginx:1"},
        "HostConfig": {"NetworkMode": mode, "AutoRemove": False},
        "NetworkSettings": {"Networks": networks, **settings},
    }


RUNNING = inspected(
    C1,
    "c1",
    True,
    "bridge",
    {"bridge": joined(BRIDGE, END, "172.17.0.2", "4A:38:bc:7e:d1:bc"), "ov1": joined(SWARM, SWARM_END, "10.0.1.3")},
    SandboxID=SANDBOX,
    SandboxKey=f"/var/run/docker/netns/{SANDBOX[:12]}",
    Ports={"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]},
)
CREATED_ONLY = inspected(C2, "c2", False, "n1", {"n1": joined("", "")}, SandboxID="", SandboxKey="", Ports={})
INFO: dict[str, Any] = {
    "DockerRootDir": "/var/lib/docker",
    "LiveRestoreEnabled": True,
    "ServerVersion": "28.5.2",
    "FirewallBackend": {"Driver": "iptables"},
    "Swarm": {"LocalNodeState": "active"},
}


def listed(said: dict[str, Any], state: str) -> dict[str, Any]:
    return {
        "Id": said["Id"],
        "Names": [f"/other{said['Name']}", said["Name"]],
        "Image": "nginx:1",
        "State": state,
        "HostConfig": {"NetworkMode": said["HostConfig"]["NetworkMode"]},
        "NetworkSettings": {"Networks": said["NetworkSettings"]["Networks"]},
    }


ANSWERS: dict[str, Any] = {
    docker.INFO: INFO,
    docker.NETWORKS: [
        network(
            BRIDGE,
            "bridge",
            "bridge",
            {docker.DEFAULT_BRIDGE: "true", docker.BRIDGE_NAME: "docker0"},
            {"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"},
        ),
        network(USER, "n1", "bridge", {}, {"Subnet": "10.55.0.0/24"}, {"Subnet": "fd00:55::/64"}),
        network(MACVLAN, "m1", "macvlan", {"parent": "eth0.7"}),
        {**network(SWARM, "ov1", "overlay", {}), "Scope": "swarm"},
    ],
    docker.CONTAINERS: [listed(RUNNING, "running"), listed(CREATED_ONLY, "created")],
    f"/containers/{C1}/json": RUNNING,
    f"/containers/{C2}/json": CREATED_ONLY,
}
SETTINGS = Settings(sockets=("/s",))

Serve = Callable[..., Host]
Post = Callable[[str], int]


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass  # the client has had enough, which is what some tests want


@pytest.fixture
def serve() -> Iterator[Serve]:
    """serve(answers, post) starts a daemon at /s of the Host that it returns. Answers are documents by URL; post is
    called with the URL of a POST and returns the status."""
    servers: list[Server] = []
    with tempfile.TemporaryDirectory(prefix="l") as directory:

        def begin(answers: dict[str, Any], post: Post = lambda url: 404) -> Host:
            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    known = answers.get(self.path)
                    body = known() if callable(known) else known
                    self.reply(
                        200 if self.path in answers else 404, body if known is not None else {"message": "no\nsuch"}
                    )

                def do_POST(self) -> None:
                    assert json.loads(self.rfile.read(int(self.headers["Content-Length"]))) == {}
                    status = post(self.path)
                    self.reply(status, None if status in (204, 304) else {"message": "cannot"})

                def reply(self, status: int, body: Any) -> None:
                    data = b"" if body is None else json.dumps(body).encode()
                    self.send_response(status)
                    if data:
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

        yield begin
        for server in servers:
            server.shutdown()
            server.server_close()


def store(host: Host, records: dict[str, Any], *containers: dict[str, Any], root: str = "/var/lib/docker") -> None:
    path = Path(host.path(root)) / "network/files"
    path.mkdir(parents=True)
    (path / "local-kv.db").write_bytes(local_kv(records))
    for said in ({"Id": ""}, *containers):
        each = Path(host.path(root)) / "containers" / said["Id"]
        each.mkdir(parents=True)
        if said["Id"]:
            (each / "config.v2.json").write_text(json.dumps({**said, "ID": said["Id"]}))
            (each / "hostconfig.json").write_text(json.dumps(said["HostConfig"]))


def bridge(id: str, name: str, creator: int) -> dict[str, Any]:
    return {"ID": id, "BridgeName": name, "BridgeIfaceCreator": creator, "DefaultBridge": name == "docker0"}


STORE: dict[str, Any] = {
    f"network/{USER}": {
        "id": USER,
        "name": "n1",
        "networkType": "bridge",
        "scope": "local",
        "ipamV4Info": json.dumps([{"IPAMData": json.dumps({"Pool": "10.55.0.0/24", "Gateway": "10.55.0.1/24"})}]),
    },
    f"bridge/{BRIDGE}": bridge(BRIDGE, "docker0", 2),
    f"bridge/{USER}": bridge(USER, f"br-{USER[:12]}", 1),
    f"macvlan/network/{MACVLAN}": {"ID": MACVLAN, "Parent": "eth0.7", "CreatedSubIface": True},
    f"endpoint/{BRIDGE}/{END}": {"id": END, "name": "c1", "sandbox": SANDBOX, "ep_iface": {"srcName": "veth303d5ae"}},
}


def of(records: list[Record], type: str) -> dict[str, Record]:
    found = {record.name: record for record in records if record.type == type}
    assert len(found) == sum(record.type == type for record in records)
    return found


def info(records: list[Record]) -> dict[str, Any]:
    return dict(of(records, "docker-info")["docker"].facts)


def test_the_api_alone(serve: Serve) -> None:
    records, faults = docker.read(serve(ANSWERS), SETTINGS, True)
    assert faults == [] and {record.source for record in records} == {"api"}
    assert info(records) == {
        "root": "/var/lib/docker",
        "exec_root": "/run/docker",
        "live_restore": True,
        "answered": True,
        "whole": True,
        "swarm": True,
        "firewall": "iptables",
        "version": "28.5.2",
    }
    containers = of(records, "docker")
    assert list(containers) == [C1, C2]
    facts = containers[C1].facts
    assert (facts["name"], facts["image"], facts["created"]) == ("c1", "nginx:1", CREATED)
    assert (facts["state"], facts["pid"], facts["layer"]) == ("running", 754, "")
    assert (facts["networks"], facts["endpoints"]) == ([BRIDGE, SWARM], [END, SWARM_END])
    assert (facts["sandbox"], facts["sandbox_id"]) == (f"/run/docker/netns/{SANDBOX[:12]}", SANDBOX)
    assert facts["ports"] == [{"proto": "tcp", "host": "0.0.0.0", "port": 8080, "inner": 80}]
    assert (containers[C2].facts["state"], containers[C2].facts["networks"]) == ("created", [])
    networks = {id: record.facts for id, record in of(records, "docker-network").items()}
    assert (networks[BRIDGE]["bridge"], networks[BRIDGE]["default"], networks[BRIDGE]["creator"]) == (
        "docker0",
        True,
        0,
    )
    assert (networks[USER]["bridge"], networks[USER]["default"]) == (f"br-{USER[:12]}", False)
    assert (networks[USER]["subnets"], networks[USER]["gateways"]) == (["10.55.0.0/24", "fd00:55::/64"], [])
    assert (networks[MACVLAN]["parent"], networks[MACVLAN]["bridge"]) == ("eth0.7", "")
    assert (networks[SWARM]["scope"], networks[SWARM]["bridge"]) == ("swarm", "")
    end = of(records, "docker-endpoint")[END].facts
    assert (end["container"], end["sandbox"], end["network"]) == (C1, SANDBOX, BRIDGE)
    assert (end["address"], end["mac"], end["source_name"]) == ("172.17.0.2", "4a:38:bc:7e:d1:bc", "")


def test_the_api_with_what_only_the_store_has(serve: Serve) -> None:
    host = serve(ANSWERS)
    gone = inspected(C3, "c3", False, "n1", {})
    stale = {"id": "9" * 64, "nid": USER, "SrcName": "veth1234567"}
    store(host, {**STORE, f"bridge-endpoint/{'9' * 64}": stale, f"bridge/{'8' * 64}": bridge("8" * 64, "x", 1)}, gone)
    records, faults = docker.read(host, SETTINGS, True)
    assert faults == []
    networks = of(records, "docker-network")
    assert [networks[id].facts["creator"] for id in (BRIDGE, USER)] == [2, 1]
    assert networks[MACVLAN].facts["parent_created"] is True
    assert networks[USER].facts["gateways"] == ["10.55.0.1"] and networks[USER].source == "api"
    assert (networks["8" * 64].source, networks["8" * 64].facts["bridge"]) == ("disk", "x")
    ends = of(records, "docker-endpoint")
    assert (ends[END].source, ends[END].facts["source_name"]) == ("api", "veth303d5ae")
    assert (ends["9" * 64].source, ends["9" * 64].facts["container"]) == ("disk", "")
    assert ends[SWARM_END].facts["address"] == "10.0.1.3"
    # Its directory is there, so the daemon may only now be making it, or removing it.
    assert of(records, "docker")[C3].source == "disk"


def test_a_dead_daemon_is_not_asked(serve: Serve) -> None:
    """Its socket is there, and systemd behind it."""

    def never() -> None:
        raise AssertionError("somebody connected")

    host = serve(dict.fromkeys(ANSWERS, never))
    store(host, STORE, RUNNING)
    records, faults = docker.read(host, SETTINGS, False)
    assert faults == [] and {record.source for record in records} == {"disk"}
    assert list(of(records, "docker")) == [C1]
    assert of(records, "docker-endpoint")[SWARM_END].facts["network"] == SWARM
    assert info(records) == {
        "root": "/var/lib/docker",
        "exec_root": "/run/docker",
        "live_restore": False,
        "answered": False,
        "whole": True,
        "swarm": False,
        "firewall": "",
        "version": "",
    }


def test_without_an_answer_and_without_a_store_nothing_is_whole(serve: Serve) -> None:
    host = serve({})
    records, faults = docker.read(host, SETTINGS, True)
    assert faults == ["/s /info: HTTP status 404: no\\nsuch"]
    assert [record.type for record in records] == ["docker-info"]
    assert (info(records)["whole"], info(records)["answered"]) == (False, False)
    # A store without its list of networks, and one that cannot be read.
    (Path(host.path("/var/lib/docker/containers"))).mkdir(parents=True)
    assert info(docker.read(host, SETTINGS, True)[0])["whole"] is False
    store(host, {}, root="/srv/d")
    elsewhere = replace(SETTINGS, root="/srv/d")
    assert info(docker.read(host, elsewhere, True)[0])["whole"] is True
    Path(host.path("/srv/d/network/files/local-kv.db")).write_bytes(b"x" * 40000)
    assert info(docker.read(host, elsewhere, True)[0])["whole"] is False


def test_no_socket(tmp_path: Path) -> None:
    records, faults = docker.read(Host(str(tmp_path)), SETTINGS, True)
    assert faults == [] and info(records)["answered"] is False


def test_a_part_that_fails_does_not_take_the_rest(serve: Serve) -> None:
    host = serve({url: answer for url, answer in ANSWERS.items() if url != docker.CONTAINERS})
    records, faults = docker.read(host, SETTINGS, True)
    assert faults == [f"/s {docker.CONTAINERS}: HTTP status 404: no\\nsuch"]
    assert len(of(records, "docker-network")) == 4 and not of(records, "docker")
    assert (info(records)["answered"], info(records)["whole"], info(records)["live_restore"]) == (False, False, True)


def test_more_containers_than_any_list_is_cut_at(serve: Serve) -> None:
    ids = [f"{number:064x}" for number in range(1200)]
    answers = {**ANSWERS, docker.CONTAINERS: [{**listed(RUNNING, "running"), "Id": id} for id in ids]}
    answers |= {f"/containers/{id}/json": {**RUNNING, "Id": id} for id in ids}
    records, faults = docker.read(serve(answers), SETTINGS, True, 60)
    assert list(of(records, "docker")) == ids and faults == []


def test_who_cannot_be_inspected_is_there_as_it_is_listed(serve: Serve) -> None:
    answers = {**ANSWERS, f"/containers/{C1}/json": ["?"]}
    records, faults = docker.read(serve(answers), SETTINGS, True)
    assert faults == [f"/s /containers/{C1}/json: not an answer of its API"]
    facts = of(records, "docker")[C1].facts
    assert (facts["name"], facts["image"], facts["state"], facts["pid"]) == ("c1", "nginx:1", "running", 0)
    assert facts["endpoints"] == [END, SWARM_END]
    assert info(records)["answered"] and not info(records)["whole"], "which pin is its own was not said"
    assert of(records, "docker")[C2].facts["driver"] == "overlay2", "the next one was asked all the same"


def test_when_there_is_no_more_time_the_list_is_enough(serve: Serve) -> None:
    end = threading.Event()
    answers = {**ANSWERS, f"/containers/{C1}/json": lambda: end.wait(10)}
    records, faults = docker.read(serve(answers), SETTINGS, True, 2)
    end.set()
    assert faults == [f"/s /containers/{C1}/json: no answer in time"]
    assert [record.facts["name"] for record in of(records, "docker").values()] == ["c1", "c2"]


def test_who_is_gone_since_is_gone(serve: Serve) -> None:
    answers = {url: answer for url, answer in ANSWERS.items() if C1 not in url}
    records, faults = docker.read(serve(answers), SETTINGS, True)
    assert faults == [] and list(of(records, "docker")) == [C2]


@pytest.mark.parametrize(
    "root", ["/var/snap/docker/common/var-lib-docker", "", None, "/", "../x", "/var/lib/docker/1.1"]
)
def test_another_daemon_behind_the_socket(serve: Serve, root: Any) -> None:
    host = serve({**ANSWERS, docker.INFO: {**INFO, "DockerRootDir": root}})
    records, faults = docker.read(host, SETTINGS, True)
    assert len(faults) == 1 and "the daemon of another data-root" in faults[0]
    assert [record.type for record in records] == ["docker-info"] and not info(records)["answered"]


def test_the_data_root_of_remapped_users_and_behind_a_symlink(serve: Serve) -> None:
    root = "/srv/d/165536.165536"
    host = serve({**ANSWERS, docker.INFO: {**INFO, "DockerRootDir": root}})
    store(host, STORE, root=root)
    Path(host.path("/link")).symlink_to("srv/d")
    records, faults = docker.read(host, replace(SETTINGS, root="/link"), True)
    assert faults == [] and info(records)["root"] == root
    assert of(records, "docker-network")[USER].facts["creator"] == 1
    records, faults = docker.read(host, replace(SETTINGS, root="/srv/d"), False)
    assert faults == [] and USER in of(records, "docker-network") and info(records)["whole"]


def test_containers_on_the_host_s_network(serve: Serve) -> None:
    answers = copy.deepcopy(ANSWERS)
    answers[f"/containers/{C1}/json"]["HostConfig"]["NetworkMode"] = "host"
    answers[f"/containers/{C2}/json"]["HostConfig"]["NetworkMode"] = f"container:{C1}"
    records, _ = docker.read(serve(answers), SETTINGS, True)
    assert all(record.facts["host_network"] for record in of(records, "docker").values())


ODD: list[Any] = [
    None,
    "",
    "x" * 5000,
    "a\nb",
    "../../x",
    "\ud800",
    -1,
    1 << 70,
    1.5,
    True,
    [],
    [[]],
    {},
    {"a": []},
    [{}],
]


@pytest.mark.parametrize("odd", ODD, ids=lambda value: ascii(value)[:20])
def test_hostile(serve: Serve, odd: Any) -> None:
    """Each answer, and each value in each, in turn is something else."""
    answers = copy.deepcopy(ANSWERS)
    host = serve(answers)
    for url, answer in ANSWERS.items():
        for name in (None, *(answer if isinstance(answer, dict) else answer[0])):
            answers[url] = copy.deepcopy(answer)
            if name is None:
                answers[url] = odd
            elif isinstance(answer, dict):
                answers[url][name] = odd
            else:
                answers[url][0][name] = odd
            records, faults = docker.read(host, SETTINGS, True)
            assert of(records, "docker-info") and all("\n" not in fault for fault in faults)
            text = json.dumps([record.facts for record in records])
            assert "\\n" not in text and "\\ud800" not in text
            assert not any("../" in record.name for record in records)
        answers[url] = copy.deepcopy(answer)


def test_alive() -> None:
    facts = {"exe": "/usr/sbin/dockerd", "nested": False, "our_mnt": True, "uid": 0}

    def process(**more: Any) -> Object:
        return Object("process", "7", (7, 1), {**facts, **more})

    assert docker.alive([process(exe="/usr/bin/sleep"), process()]) == process()
    assert docker.alive([process(exe="/usr/bin/dockerd (deleted)")])
    for other in ({"exe": "/opt/dockerd"}, {"nested": True}, {"our_mnt": False}, {"uid": 1000}):
        assert docker.alive([process(**other)]) is None
    assert docker.alive([]) is None


# -- verbs ------------------------------------------------------------------------------------------------------------


class Daemon:
    """Containers that come down, or do not, when they are asked."""

    def __init__(self, **states: str) -> None:
        self.states = {name * 64: state for name, state in states.items()}
        self.posts: list[str] = []
        self.deaf: set[str] = set()
        self.removed: set[str] = set()
        self.refused: set[str] = set()
        self.slow: dict[str, int] = {}
        self.signals: dict[str, str] = {}
        self.live_restore: Any = True

    def answers(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            docker.INFO: lambda: {"LiveRestoreEnabled": self.live_restore},
            docker.CONTAINERS: self.list,
        }
        for id in self.states:
            found[f"/containers/{id}/json"] = lambda id=id: self.inspect(id)
        return found

    def list(self) -> list[dict[str, Any]]:
        for id in list(self.slow):
            self.slow[id] -= 1
            if self.slow[id] <= 0:
                del self.slow[id]
                self.states[id] = "exited"
        return [{"Id": id, "State": state} for id, state in self.states.items()]

    def inspect(self, id: str) -> dict[str, Any]:
        return {
            "Id": id,
            "State": {"Running": self.states[id] in ("running", "paused")},
            "HostConfig": {"AutoRemove": id in self.removed},
            "Config": {"StopSignal": self.signals.get(id, "")},
        }

    def post(self, url: str) -> int:
        self.posts.append(unquote(url))
        id, verb = url.split("/")[2:4]
        if id in self.refused:
            return 500
        if verb == "start":
            running = self.states[id] == "running"
            self.states[id] = "running" if id not in self.deaf else "exited"
            return 304 if running else 204
        if self.states[id] != "running":
            return 409
        if id not in self.deaf:
            self.slow[id] = 2
        return 204


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "POLL", 0.01)
    monkeypatch.setattr(docker, "SETTLE", 0.1)


def records(daemon: Daemon, **facts: Any) -> list[Record]:
    return [Record("docker", id, "api", {"state": "running", **facts}) for id in daemon.states]


def test_stop(serve: Serve) -> None:
    daemon = Daemon(a="running", b="running", c="running", d="exited", e="running", f="running")
    daemon.signals["b" * 64] = "SIGRTMIN+3"
    daemon.removed.add("c" * 64)
    daemon.refused.add("e" * 64)
    daemon.deaf.add("f" * 64)
    host = serve(daemon.answers(), daemon.post)
    other = Record("docker-network", "9" * 64, "api", {"state": "running"})
    causes = docker.stop(
        host, [*records(daemon), other, Record("docker", "0" * 64, "disk", {"state": "running"})], Deadline(2), "/s"
    )
    assert causes == {"e" * 64: "HTTP status 500: cannot", "f" * 64: "not down in time: it is running"}
    signals = {"a": "SIGTERM", "b": "SIGRTMIN+3", "e": "SIGTERM", "f": "SIGTERM"}
    assert sorted(daemon.posts) == [f"/containers/{id * 64}/kill?signal={signal}" for id, signal in signals.items()]
    assert daemon.states["c" * 64] == "running"


@pytest.mark.parametrize("live_restore", [False, None, "true"])
def test_without_live_restore_nobody_is_asked(serve: Serve, live_restore: Any) -> None:
    daemon = Daemon(a="running")
    daemon.live_restore = live_restore
    assert docker.stop(serve(daemon.answers(), daemon.post), records(daemon), Deadline(5), "/s") == {}
    assert daemon.posts == []


def test_only_running_ones_are_asked(serve: Serve) -> None:
    daemon = Daemon(a="running", b="running")
    host = serve({}, daemon.post)
    assert docker.stop(host, records(daemon, state="stopped"), Deadline(5), "/s") == {}
    assert daemon.posts == []


def test_stop_of_a_daemon_that_does_not_answer(serve: Serve) -> None:
    daemon = Daemon(a="running")
    host = serve({}, daemon.post)
    assert docker.stop(host, records(daemon), Deadline(5), "/s") == {"a" * 64: "/s /info: HTTP status 404: no\\nsuch"}


def test_who_was_asked_and_is_seen_no_more_is_not_down(serve: Serve) -> None:
    daemon = Daemon(a="running")
    answers = daemon.answers()
    del answers[docker.CONTAINERS]
    causes = docker.stop(serve(answers, daemon.post), records(daemon), Deadline(5), "/s")
    assert causes == {"a" * 64: f"/s {docker.CONTAINERS}: HTTP status 404: no\\nsuch"}
    assert len(daemon.posts) == 1


def test_start(serve: Serve) -> None:
    daemon = Daemon(a="exited", b="running", c="running", d="exited", e="exited", f="paused")
    daemon.slow["c" * 64] = 2
    daemon.refused.add("d" * 64)
    daemon.deaf.add("e" * 64)
    host = serve(daemon.answers(), daemon.post)
    causes = docker.start(host, [*daemon.states, "0" * 64, "../x"], Deadline(5), "/s")
    assert causes == {
        "d" * 64: "HTTP status 500: cannot",
        "e" * 64: "its start has ended, and it is exited",
        "0" * 64: "there is no such container",
        "../x": "there is no such container",
    }
    assert set(daemon.posts) == {f"/containers/{id * 64}/start" for id in "acde"}
    assert all(daemon.posts.count(f"/containers/{id * 64}/start") == 1 for id in "ace")
    assert [daemon.states[id * 64] for id in "abcf"] == ["running", "running", "running", "paused"]


def test_who_needs_another_is_started_after_it(serve: Serve) -> None:
    """409, "cannot join network of a non running container" (seen on 26.1.5)."""
    daemon = Daemon(a="exited", b="exited", c="exited", d="running")
    daemon.slow["d" * 64] = 2
    needs = {"a": "b", "b": "c", "c": "d"}

    def post(url: str) -> int:
        other = needs.get(url.split("/")[2][0])
        return (
            daemon.post(url)
            if not other or (daemon.states[other * 64], other * 64 in daemon.slow) == ("running", False)
            else 409
        )

    host = serve(daemon.answers(), post)
    assert docker.start(host, list(daemon.states), Deadline(5), "/s") == {}
    assert daemon.posts == [f"/containers/{id * 64}/start" for id in "dcba"]


def test_what_runs_when_the_deadline_comes_is_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "SETTLE", 1000.0)
    daemon = Daemon(a="running", b="removing")
    host = serve({docker.CONTAINERS: daemon.list}, lambda url: 409)
    causes = docker.start(host, ["a" * 64, "b" * 64], Deadline(1), "/s")
    assert causes == {"b" * 64: "HTTP status 409: cannot"}


def test_start_of_a_daemon_that_does_not_answer(serve: Serve) -> None:
    causes = docker.start(serve({}), ["a" * 64], Deadline(5), "/s")
    assert causes == {"a" * 64: f"/s {docker.CONTAINERS}: HTTP status 404: no\\nsuch"}
