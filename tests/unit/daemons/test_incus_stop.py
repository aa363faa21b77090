"""Instances of a daemon that is as slow, as deaf and as hostile as a test wants, asked to go down and to come up."""

from __future__ import annotations

import http.server
import itertools
import json
import socketserver
import tempfile
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

from leftovers.daemons import incus
from leftovers.host import Host
from leftovers.model import Deadline, Record


@dataclass
class Daemon:
    """Incus as seen from outside: what is asked for becomes an operation, and each look lets time go on by one.

    `plans` says, by instance, what a request for its state does, at each look after it: a status, "gone", or an error
    with which the operation ends. What is not planned is done at the next look.
    """

    statuses: dict[tuple[str, str], str]
    plans: dict[tuple[str, str], list[list[str]]] = field(default_factory=dict)
    answers: dict[str, list[Any]] = field(default_factory=dict)  # by path: what is answered instead, once each
    puts: list[tuple[tuple[str, str], dict[str, Any]]] = field(default_factory=list)
    when: list[str] = field(default_factory=list)  # the status that each of these met
    paths: list[str] = field(default_factory=list)
    operations: dict[str, dict[str, Any]] = field(default_factory=dict)
    together: int = 0  # nothing happens before so many requests have come
    extensions: list[str] | None = None  # of the API; without the one for it, operations are a single project's
    ids: Iterator[int] = field(default_factory=itertools.count)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, name: tuple[str, str], description: str, steps: list[str]) -> dict[str, Any]:
        id = f"op{next(self.ids)}"
        query = f"?project={quote(name[0])}" if name[0] != "default" else ""
        resources = {"instances": [f"/1.0/instances/{quote(name[1], safe='')}{query}"]}
        operation = {"id": id, "status_code": 103, "description": description, "resources": resources, "err": ""}
        self.operations[id] = {"name": name, "steps": list(steps), "api": operation}
        return operation

    def tick(self) -> None:
        for operation in self.operations.values():
            if not operation["steps"] or len(self.puts) < self.together:
                continue
            step = operation["steps"].pop(0)
            if step == "gone":
                self.statuses.pop(operation["name"], None)
            elif step in ("Running", "Stopped", "Stopping", "Frozen", "Error"):
                self.statuses[operation["name"]] = step
            else:
                operation["api"]["err"] = step
            if not operation["steps"]:
                operation["api"]["status_code"] = 400 if operation["api"]["err"] else 200

    def answer(self, method: str, url: str, body: bytes) -> tuple[int, Any]:
        with self.lock:
            path = urlsplit(url).path
            self.paths.append(f"{method} {url}")
            if self.answers.get(path):
                answer = self.answers[path].pop(0)
                return answer if isinstance(answer, tuple) else (200, answer)
            if path == "/1.0" and self.extensions is not None:
                return 200, {"type": "sync", "metadata": {"api_extensions": self.extensions}}
            if path == "/1.0/operations":
                query = parse_qs(urlsplit(url).query)
                project = query.get("project", ["default"])[0]
                everywhere = self.extensions is None or incus.EVERYWHERE in self.extensions
                if project == "default":  # a look, not a part of one
                    self.tick()
                by_status: dict[str, list[Any]] = {}
                for each in self.operations.values():
                    if each["name"][0] != project and not everywhere:
                        continue
                    by_status.setdefault(str(each["api"]["status_code"]), []).append(each["api"])
                return 200, {"type": "sync", "metadata": by_status}
            if path == "/1.0/instances":
                made = [{"project": p, "name": n, "status": status} for (p, n), status in self.statuses.items()]
                return 200, {"type": "sync", "metadata": made}
            name = parse_qs(urlsplit(url).query)["project"][0], unquote(path.split("/")[3])
            asked = json.loads(body)
            self.puts.append((name, asked))
            self.when.append(self.statuses.get(name, ""))
            plans = self.plans.get(name)
            done = "Stopped" if asked["action"] == "stop" else "Running"
            what = "Stopping instance" if asked["action"] == "stop" else "Starting instance"
            return 202, {"type": "async", "metadata": self.begin(name, what, plans.pop(0) if plans else [done])}


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 100


Serve = Callable[[Daemon], Host]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    monkeypatch.setattr(incus, "POLL", 0.005)
    monkeypatch.setattr(incus, "SETTLE", 0.05)
    servers: list[Server] = []
    with tempfile.TemporaryDirectory(prefix="l") as directory:

        def start(daemon: Daemon) -> Host:
            class Handler(http.server.BaseHTTPRequestHandler):
                def handle_any(self) -> None:
                    assert self.command == "GET" or self.headers["Content-Type"] == "application/json"
                    body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                    status, answer = daemon.answer(self.command, self.path, body)
                    self.send_response(status)
                    self.end_headers()
                    self.wfile.write(json.dumps(answer).encode())

                do_GET = do_PUT = handle_any

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


C1, C2, P1 = ("default", "c1"), ("default", "c2"), ("proj", "p1")
NO_SUCH = "there is no such instance"


def record(name: str) -> Record:
    return Record("instance", name, "api")


def stop(host: Host, *names: str, seconds: float = 20.0) -> dict[str, str]:
    return incus.stop(host, [record(name) for name in names], Deadline(seconds), "/s")


def start(host: Host, *names: tuple[str, str], seconds: float = 20.0) -> dict[str, str]:
    return incus.start(host, names, Deadline(seconds), "/s")


# -- stop ------------------------------------------------------------------------------------------------------


def test_all_are_asked_before_any_is_waited_for(serve: Serve) -> None:
    names = [f"c{number}" for number in range(60)]
    daemon = Daemon({("default", name): "Running" for name in names}, together=60)
    assert stop(serve(daemon), *names) == {}
    assert sorted(name for (_, name), _ in daemon.puts) == sorted(names)
    assert set(daemon.statuses.values()) == {"Stopped"}


@pytest.mark.parametrize(("seconds", "least", "most"), [(0.9, 1, 1), (20.0, 19, 20)])
def test_nothing_is_forced(serve: Serve, seconds: float, least: int, most: int) -> None:
    # A timeout of 0 is Incus' word for a kill.
    daemon = Daemon({C1: "Running", P1: "Ready"})
    assert stop(serve(daemon), "c1", "proj_p1", seconds=seconds) == {}
    assert [name for name, _ in daemon.puts] == [C1, P1]
    for _, body in daemon.puts:
        assert set(body) == {"action", "timeout", "force"} and (body["action"], body["force"]) == ("stop", False)
        assert least <= body["timeout"] <= most


def test_not_even_when_the_time_runs_out_as_it_asks(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incus, "math", types.SimpleNamespace(ceil=lambda left: 0))
    daemon = Daemon({C1: "Running"})
    assert stop(serve(daemon), "c1") == {} and daemon.puts[0][1]["timeout"] == 1


def test_nobody_to_stop_asks_nothing(serve: Serve) -> None:
    daemon = Daemon({C1: "Running"})
    assert stop(serve(daemon)) == {} and daemon.paths == []


def test_one_that_does_not_hear(serve: Serve) -> None:
    daemon = Daemon({C1: "Running", C2: "Running"}, plans={C1: [["Running"] * 10000]})
    assert stop(serve(daemon), "c1", "c2", seconds=0.9) == {"c1": "not down in time: it is Running"}
    assert daemon.statuses[C2] == "Stopped" and len(daemon.puts) == 2


def test_a_deadline_that_has_passed(serve: Serve) -> None:
    daemon = Daemon({C1: "Running"})
    assert "no answer in time" in stop(serve(daemon), "c1", seconds=0.0)["c1"]
    assert daemon.puts == []


def test_what_is_down_is_not_asked(serve: Serve) -> None:
    daemon = Daemon({C1: "Stopped"})
    assert stop(serve(daemon), "c1", "never-was") == {} and daemon.puts == []


def test_what_comes_down_by_itself_is_not_asked(serve: Serve) -> None:
    daemon = Daemon({C1: "Stopping"})
    daemon.begin(C1, "no operation at all", ["Stopping", "Stopping", "Stopped"])
    assert stop(serve(daemon), "c1") == {} and daemon.puts == []


def test_an_operation_is_known_by_its_id(serve: Serve) -> None:
    daemon = Daemon({C1: "Running"})
    operation = daemon.begin(C1, "in other words", ["Running"] * 3 + ["Stopped"])
    daemon.answers["/1.0/instances/c1/state"] = [(202, {"type": "async", "metadata": operation})]
    assert stop(serve(daemon), "c1") == {}


def test_one_that_is_deleted_meanwhile(serve: Serve) -> None:
    daemon = Daemon({C1: "Running"}, plans={C1: [["Running", "gone"]]})
    assert stop(serve(daemon), "c1") == {}


def test_a_frozen_one_is_not_asked(serve: Serve) -> None:
    daemon = Daemon({C1: "Frozen", C2: "Running"})
    assert stop(serve(daemon), "c1", "c2") == {"c1": "it is frozen, and cannot shut down"}
    assert [name for name, _ in daemon.puts] == [C2]


def test_one_that_is_refused(serve: Serve) -> None:
    refusal = {"type": "error", "error": "not\nyou \ud800", "error_code": 403}
    daemon = Daemon({C1: "Running", C2: "Running"}, answers={"/1.0/instances/c1/state": [(403, refusal)]})
    causes = stop(serve(daemon), "c1", "c2")
    assert causes == {"c1": "HTTP status 403: not you ?"} and daemon.statuses[C2] == "Stopped"


def test_refused_but_down(serve: Serve) -> None:
    # The list decides: whatever was answered, it is down.
    refusal = (400, {"type": "error", "error": "The instance is already stopped"})
    daemon = Daemon({C1: "Running"}, answers={"/1.0/instances/c1/state": [refusal]})
    daemon.begin(C1, "Executing command", ["Running", "Stopped"])
    assert stop(serve(daemon), "c1") == {}


@pytest.mark.parametrize("answer", [None, [], {}, {"type": "sync", "metadata": {"id": "x"}}, {"type": "async"}, 7])
def test_a_malformed_answer_to_a_request(serve: Serve, answer: Any) -> None:
    daemon = Daemon({C1: "Running"}, answers={"/1.0/instances/c1/state": [answer]})
    assert stop(serve(daemon), "c1") == {"c1": "not an answer of its API"}


def test_an_operation_that_fails(serve: Serve) -> None:
    daemon = Daemon({C1: "Running"}, plans={C1: [["Running", "Failed\n shutting\udc00 down"]]})
    assert stop(serve(daemon), "c1") == {"c1": "Failed shutting? down"}


def test_a_shutdown_that_ends_in_a_restart(serve: Serve) -> None:
    daemon = Daemon({C1: "Running"}, plans={C1: [["Running", "Running"]]})
    assert stop(serve(daemon), "c1") == {"c1": "its shutdown has ended, and it is Running"}


def test_a_busy_one_is_asked_again(serve: Serve) -> None:
    busy = ['Instance is busy running a "update" operation']
    daemon = Daemon({C1: "Running"}, plans={C1: [busy, busy]})
    assert stop(serve(daemon), "c1") == {} and len(daemon.puts) == 3


def test_somebody_elses_shutdown_is_waited_for(serve: Serve) -> None:
    odd = ("proj &x", "\u00e4 b")
    daemon = Daemon({odd: "Running", C1: "Running"})
    daemon.begin(odd, "Stopping instance", ["Running"] * 3 + ["Stopped"])
    daemon.begin(C1, "Stopping instance", ["Running", "Failed"])
    assert stop(serve(daemon), "_".join(odd), "c1") == {}
    assert [name for name, _ in daemon.puts] == [C1], "only where the other one's had failed"


@pytest.mark.parametrize("what", ["Starting instance", "Restarting instance"])
def test_one_that_is_being_started_is_not_down(serve: Serve, what: str) -> None:
    # Incus says "Stopped" until the start has ended.
    daemon = Daemon({C1: "Stopped"})
    daemon.begin(C1, what, ["Stopped"] * 3 + ["Running"])
    assert stop(serve(daemon), "c1") == {} and len(daemon.puts) == 1


@pytest.mark.parametrize("name", ["../../x", "a b?c=d&e#f", "c1/state?project=other", "ä%2f", "x\r\nHost: y"])
def test_hostile_names_are_names(serve: Serve, name: str) -> None:
    projects = ("default", "p&project=q#/?")
    daemon = Daemon({(project, name): "Running" for project in projects} | {C1: "Running"})
    assert stop(serve(daemon), name, f"{projects[1]}_{name}") == {}
    assert [asked for asked, _ in daemon.puts] == [(project, name) for project in projects]
    assert daemon.statuses[C1] == "Running"


def test_a_name_that_cannot_be_encoded(serve: Serve) -> None:
    daemon = Daemon({("default", "c\udc00"): "Running", C1: "Running"})
    daemon.answers["/1.0/instances/c%3F/state"] = [(404, {})]
    assert stop(serve(daemon), "c\udc00", "c\udc01") == {"c\udc00": "HTTP status 404"}
    assert daemon.statuses[C1] == "Running"


OPERATIONS, INSTANCES = "/1.0/operations", "/1.0/instances"


@pytest.mark.parametrize(
    ("path", "metadata"),
    [
        *((OPERATIONS, bad) for bad in (None, [], "x", 1, {"running": 1}, {"running": [1]}, {"running": [{}]})),
        (OPERATIONS, {"running": [{"id": 1, "status_code": 103}]}),
        (OPERATIONS, {"running": [{"id": "x", "status_code": "103"}]}),
        *((INSTANCES, bad) for bad in (None, {}, "x", 1, [1], [None], [{}], [{"name": "c1"}])),
        (INSTANCES, [{"name": "c1", "project": "default", "status": 102}]),
        (INSTANCES, [{"name": "c1", "project": "default", "status": ""}]),
        (INSTANCES, [{"name": ["c1"], "project": "default", "status": "Stopped"}]),
    ],
)
def test_malformed_lists(serve: Serve, path: str, metadata: Any) -> None:
    daemon = Daemon({C1: "Running"}, answers={path: [{"type": "sync", "metadata": metadata}] * 3})
    host = serve(daemon)
    causes = stop(host, "c1", "c2")
    assert set(causes) == {"c1", "c2"} and all(cause.startswith(f"/s {path}") for cause in causes.values())
    assert daemon.puts == []
    assert stop(host, "c1") == {}, "and now that it answers well"


@pytest.mark.parametrize(
    "resources", [None, [], {"instances": None}, {"instances": [None, 1, "", "/1.0/x", "/1.0/instances/[?project"]}]
)
def test_operations_of_other_shapes_do_not_matter(serve: Serve, resources: Any) -> None:
    daemon = Daemon({C1: "Running"})
    daemon.begin(C1, "Stopping instance", ["Running"] * 10000)["resources"] = resources
    daemon.begin(C1, "x", ["Running"] * 10000)["description"] = ["unhashable"]
    assert stop(serve(daemon), "c1") == {}


def test_a_look_that_fails_is_repeated(serve: Serve) -> None:
    broken = (500, {"type": "error", "error": "database is locked"})
    well = {"type": "sync", "metadata": [{"name": "c1", "project": "default", "status": "Running"}]}
    daemon = Daemon({C1: "Running"}, answers={INSTANCES: [broken, broken, well, broken, broken]})
    assert stop(serve(daemon), "c1") == {}


@pytest.mark.usefixtures("serve")
def test_nobody_listens() -> None:
    assert "No such file" in stop(Host("/nonexistent"), "c1")["c1"]
    assert "No such file" in start(Host("/nonexistent"), P1)["proj/p1"]


# -- start -----------------------------------------------------------------------------------------------------


def test_what_is_down_is_started(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incus, "SETTLE", 60.0)
    daemon = Daemon({C1: "Stopped", C2: "Stopped", P1: "Stopped"}, together=2)
    assert start(serve(daemon), C1, P1) == {}
    assert daemon.puts == [(C1, {"action": "start"}), (P1, {"action": "start"})]
    assert daemon.statuses == {C1: "Running", C2: "Stopped", P1: "Running"}
    assert len(daemon.paths) < 20, "what was started here has nothing to prove"


def test_a_shutdown_under_way_is_waited_for(serve: Serve) -> None:
    daemon = Daemon({P1: "Running"})
    # for longer than an instance must run to count as one that stays up
    daemon.begin(P1, "Stopping instance", ["Running"] * 40 + ["Stopped"])
    assert start(serve(daemon), P1) == {}
    assert daemon.statuses == {P1: "Running"} and len(daemon.puts) == 1


def test_one_that_comes_down_late(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incus, "SETTLE", 60.0)
    daemon = Daemon({C1: "Running"})
    daemon.begin(C1, "no operation at all", ["Running", "Running", "Stopping", "Error", "Stopped"])
    assert start(serve(daemon), C1) == {} and daemon.when == ["Stopped"]


@pytest.mark.parametrize("status", ["Running", "Ready", "Frozen"])
def test_one_that_runs_on_is_up(serve: Serve, status: str) -> None:
    daemon = Daemon({C1: status})
    daemon.begin(C1, "Stopping instance", [status, "Failed shutting down instance"])
    assert start(serve(daemon), C1) == {} and daemon.puts == []


def test_one_that_runs_at_the_deadline_is_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incus, "SETTLE", 60.0)
    daemon = Daemon({C1: "Running", P1: "Running", C2: "Stopped"}, plans={C2: [["Stopped"] * 10000]})
    daemon.begin(P1, "Stopping instance", ["Running"] * 10000)
    late = ("default", "late")
    daemon.statuses[late] = "Running"
    daemon.begin(late, "no operation at all", ["Running"] * 3 + ["Stopping"])
    assert start(serve(daemon), C1, C2, P1, late, seconds=0.9) == {
        "default/c2": "not up in time: it is Stopped",
        "proj/p1": "not up in time: it is Running",
        "default/late": "not up in time: it is Stopping",
    }


def test_starts_that_fail(serve: Serve) -> None:
    daemon = Daemon(
        {C1: "Stopped", C2: "Stopped", P1: "Stopped"},
        plans={C1: [["Stopped", "no such\nbridge"]], C2: [["Running", "Stopped"]]},
        answers={"/1.0/instances/p1/state": [(500, {"error": "oops"})]},
    )
    assert start(serve(daemon), C1, C2, P1, ("x", "y")) == {
        "default/c1": "no such bridge",
        "default/c2": "its start has ended, and it is stopped",
        "proj/p1": "HTTP status 500: oops",
        "x/y": NO_SUCH,
    }


def test_a_busy_one_is_started_again(serve: Serve) -> None:
    busy = ['Failed to create instance start operation: Instance is busy running a "stop" operation']
    daemon = Daemon({C1: "Stopped"}, plans={C1: [busy, busy]})
    assert start(serve(daemon), C1) == {} and len(daemon.puts) == 3


def test_somebody_elses_start_is_waited_for(serve: Serve) -> None:
    daemon = Daemon({C1: "Stopped"})
    daemon.begin(C1, "Starting instance", ["Stopped"] * 3 + ["Running"])
    assert start(serve(daemon), C1) == {} and daemon.puts == []


@pytest.mark.parametrize("extensions", [["projects"], ["projects", incus.EVERYWHERE], []])
def test_a_daemon_that_lists_the_operations_of_one_project_only(serve: Serve, extensions: list[str]) -> None:
    # LXD 5.0.2 of bookworm: an operation in another project that is not seen would be one that has ended too early.
    names = [("default", "c1"), ("proj", "p1"), ("a b", "p2")]
    slow = [["Running", "Running", "Running", "Stopped"]]
    daemon = Daemon(dict.fromkeys(names, "Running"), plans={name: [*slow] for name in names}, extensions=extensions)
    assert stop(serve(daemon), "c1", "proj_p1", "a b_p2") == {}
    assert set(daemon.statuses.values()) == {"Stopped"}
    asked = [path for path in daemon.paths if "/1.0/operations?recursion=1&project=" in path]
    assert bool(asked) is (incus.EVERYWHERE not in extensions)
    assert not asked or {path.rpartition("=")[2] for path in asked} == {"proj", "a%20b"}


def test_nobody_is_asked_for_extensions_without_another_project(serve: Serve) -> None:
    daemon = Daemon({("default", "c1"): "Running"}, extensions=[])
    assert stop(serve(daemon), "c1") == {}
    assert "GET /1.0" not in daemon.paths
