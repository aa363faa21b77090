"""HTTP over a real Unix socket, from servers that answer and from servers that should not."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from leftovers.daemons import unix_http
from leftovers.errors import Unreadable
from leftovers.host import Host
from leftovers.model import Deadline

Serve = Callable[[Callable[[socket.socket, bytes], None]], Host]
OK = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"


@pytest.fixture
def serve() -> Iterator[Serve]:
    """serve(answer) starts a server at /s of the Host that it returns; answer(connection, request) is its behaviour."""
    # Not tmp_path: a socket's path has room for 107 bytes.
    with tempfile.TemporaryDirectory(prefix="l") as directory:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"{directory}/s")
        listener.listen()

        def start(answer: Callable[[socket.socket, bytes], None]) -> Host:
            def loop() -> None:
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    with connection:
                        try:
                            answer(connection, connection.recv(65536))
                        except OSError:
                            pass  # the client has had enough, which is what some tests want

            threading.Thread(target=loop, daemon=True).start()
            return Host(directory)

        yield start
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def get(host: Host, seconds: float = 5.0) -> object:
    return unix_http.get(host, "/s", "/1.0", Deadline(seconds))


def test_get(serve: Serve) -> None:
    requests: list[bytes] = []

    def answer(connection: socket.socket, request: bytes) -> None:
        requests.append(request)
        connection.sendall(OK + b'{"a": [1, "\xc3\xa4"]}')

    assert get(serve(answer)) == {"a": [1, "\u00e4"]}
    assert requests[0].startswith(b"GET /1.0 HTTP/1.0\r\nHost: localhost\r\n")


def send(host: Host, seconds: float = 5.0) -> object:
    return unix_http.send(host, "/s", "PUT", "/1.0/x", {"a": "\u00e4", "b": [True]}, Deadline(seconds))


@pytest.mark.parametrize("status", [b"200 OK", b"202 Accepted"])
def test_send(serve: Serve, status: bytes) -> None:
    requests: list[bytes] = []

    def answer(connection: socket.socket, request: bytes) -> None:
        requests.append(request)
        connection.sendall(b"HTTP/1.0 " + status + b"\r\n\r\n[1]")

    assert send(serve(answer)) == [1]
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"PUT /1.0/x HTTP/1.0\r\nHost: localhost\r\n")
    assert b"Content-Type: application/json" in head and f"Content-Length: {len(body)}".encode() in head
    assert json.loads(body) == {"a": "\u00e4", "b": [True]}


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_send_without_a_document_in_the_answer(serve: Serve, status: bytes) -> None:
    assert send(serve(lambda connection, _: connection.sendall(b"HTTP/1.0 " + status + b"\r\n\r\n"))) is None
    with pytest.raises(Unreadable, match=f"HTTP status {status[:3].decode()}"):
        get(serve(lambda connection, _: connection.sendall(b"HTTP/1.0 " + status + b"\r\n\r\n")))


def test_what_only_begins_is_no_answer_to_get(serve: Serve) -> None:
    with pytest.raises(Unreadable, match="HTTP status 202"):
        get(serve(lambda connection, _: connection.sendall(b"HTTP/1.0 202 Accepted\r\n\r\n[]")))


def test_send_keeps_the_guarantees(serve: Serve) -> None:
    answers = [
        lambda c: c.sendall(b"HTTP/1.0 409 Conflict\r\n\r\n" + b'{"error": "busy \\ud800"}'),
        lambda c: c.sendall(OK + b"{"),
        lambda c: c.sendall(OK + b" " * 40_000_000),
        lambda c: c.recv(1),
    ]
    host = serve(lambda connection, _: answers.pop(0)(connection))
    for cause in (r"HTTP status 409: busy \?$", "malformed answer", "more than 33554432 bytes", "no answer in time"):
        with pytest.raises(Unreadable, match=cause):
            send(host, 0.3 if cause.startswith("no") else 5.0)


def test_chunked(serve: Serve) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert get(serve(lambda c, _: c.sendall(head + b"2\r\n[1\r\n3\r\n,2]\r\n0\r\n\r\n"))) == [1, 2]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (b"HTTP/1.0 404 Not Found\r\n\r\n" + b'{"error": "no\\nsuch"}', r"HTTP status 404: no\\nsuch"),
        (b"HTTP/1.0 500 Internal\r\n\r\noops", "HTTP status 500"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 99\r\n\r\n[]", "malformed answer"),
        (OK, "malformed answer"),
        (OK + b"{", "malformed answer"),
        (OK + b"\xff", "malformed answer"),
        (OK + b"[" * 1_000_000, "malformed answer"),
        (OK + b"[" + b"9" * 1_000_000 + b"]", "malformed answer"),
        (OK + b"[NaN]", "malformed answer"),
        (b"", "without response"),
        (b"\x00" * 100_000, "malformed answer"),
        (b"HTTP/1.0 200 OK\r\n" + b"X: y\r\n" * 1000 + b"\r\n[]", "malformed answer"),
        (b"HTTP/1.0 200 OK\r\nX: " + b"y" * 100_000, "malformed answer"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_answers(serve: Serve, text: bytes, cause: str) -> None:
    host = serve(lambda connection, _: connection.sendall(text))
    with pytest.raises(Unreadable, match=cause) as raised:
        get(host)
    assert raised.value.what == "/s /1.0" and "\n" not in str(raised.value)


def test_size_has_an_end(serve: Serve) -> None:
    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall(OK)
        while True:
            connection.sendall(b" " * 65536)

    host = serve(answer)
    with pytest.raises(Unreadable, match="more than 1000000 bytes"):
        unix_http.get(host, "/s", "/1.0", Deadline(5), limit=1_000_000)


def silent(connection: socket.socket, _: bytes) -> None:
    connection.recv(1)


def trickling_head(connection: socket.socket, _: bytes) -> None:
    while True:
        connection.sendall(b"H")
        time.sleep(0.02)


def trickling_body(connection: socket.socket, _: bytes) -> None:
    connection.sendall(OK + b"[")
    while True:
        connection.sendall(b" ")
        time.sleep(0.02)


def endless_100(connection: socket.socket, _: bytes) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


@pytest.mark.parametrize("answer", [silent, trickling_head, trickling_body, endless_100])
def test_the_deadline_is_for_the_whole_request(serve: Serve, answer: Callable[[socket.socket, bytes], None]) -> None:
    host = serve(answer)
    start = time.monotonic()
    # From 3.14 on, http.client itself has enough of endless interim answers.
    with pytest.raises(Unreadable, match="no answer in time|interim responses"):
        get(host, 0.3)
    assert time.monotonic() - start < 2


def test_a_stopped_daemon_with_a_full_backlog(tmp_path: pathlib.Path) -> None:
    with tempfile.TemporaryDirectory(prefix="l") as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{directory}/s")
        listener.listen(0)
        waiting = []
        try:
            while True:
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(f"{directory}/s")
        except BlockingIOError:
            pass
        start = time.monotonic()
        with pytest.raises(Unreadable, match="no answer in time"):
            get(Host(directory), 0.3)
        assert time.monotonic() - start < 2
        for each in waiting:
            each.close()


def test_a_deadline_that_has_passed(serve: Serve) -> None:
    host = serve(lambda connection, _: connection.sendall(OK + b"[]"))
    with pytest.raises(Unreadable, match="no answer in time"):
        get(host, 0.0)


def test_nobody_listens() -> None:
    with tempfile.TemporaryDirectory(prefix="l") as directory:
        with pytest.raises(Unreadable, match="No such file"):
            get(Host(directory))
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(f"{directory}/s")
        with pytest.raises(Unreadable, match="refused"):
            get(Host(directory))
        os.unlink(f"{directory}/s")
        with pytest.raises(Unreadable, match="too long"):
            unix_http.get(Host(directory), "/" + "s" * 200, "/1.0", Deadline(1))
