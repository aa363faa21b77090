"""HTTP over a Unix socket, JSON back. One request per connection, one deadline for all of it, an end to its size."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from leftovers.errors import Unreadable
from leftovers.host import Host
from leftovers.model import Deadline

__all__ = ["get", "send"]

LIMIT = 32 * 1024 * 1024
CHUNK = 65536


class DeadlineSocket(socket.socket):
    """A socket whose every wait ends when the deadline does: http.client alone would wait anew for each byte."""

    deadline: Deadline

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(remaining(self.deadline))
        return super().recv_into(*args, **kwargs)


def get(host: Host, path: str, url: str, deadline: Deadline, limit: int = LIMIT) -> Any:
    """The JSON document at `url` of the daemon that listens on the socket `path`.

    Raises Unreadable when there is none, for any status but 200, and when the answer is late, large or malformed.
    """
    return exchange(host, path, "GET", url, None, deadline, limit)


def send(host: Host, path: str, method: str, url: str, body: object, deadline: Deadline, limit: int = LIMIT) -> Any:
    """The JSON document that the daemon answers to `body`, sent as JSON by `method` (PUT, POST).

    Raises Unreadable as `get` does, but the status may also be 202: what was asked for has only begun; and 204 or 304:
    it is done, or was so before (Docker), and there is no document: None. An answer that did not come in time says
    nothing about whether it has.
    """
    return exchange(host, path, method, url, json.dumps(body).encode(), deadline, limit)


def exchange(host: Host, path: str, method: str, url: str, body: bytes | None, deadline: Deadline, limit: int) -> Any:
    """The answer to one request; without a body it is one that only reads. Raises Unreadable."""
    import http.client

    what = f"{path} {url}"
    # HTTP/1.0 asks the server to close, "Host" is what Incus' and Docker's clients send.
    head = f"{method} {url} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    try:
        with connected(host.path(path), deadline) as connection:
            connection.sendall(head.encode() + b"\r\n" + (body or b""))
            response = http.client.HTTPResponse(connection, method=method)
            try:
                response.begin()
                answer = whole(response, limit)
            finally:
                response.close()
        if body is not None and response.status in (204, 304):
            return None
        if response.status not in ((200,) if body is None else (200, 202)):
            raise Unreadable(what, f"HTTP status {response.status}{said(answer)}")
        return parse(answer)
    except TimeoutError:
        raise Unreadable(what, "no answer in time") from None
    except OSError as error:
        raise Unreadable(what, error.strerror or str(error)) from error
    except (http.client.HTTPException, ValueError, RecursionError) as error:
        raise Unreadable(what, f"malformed answer: {type(error).__name__} {str(error)[:100]}") from error


def connected(path: str, deadline: Deadline) -> DeadlineSocket:
    """A connection to the socket at `path`. Raises OSError, TimeoutError."""
    connection = DeadlineSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.deadline = deadline
    try:
        while True:
            connection.settimeout(remaining(deadline))
            try:
                connection.connect(path)
                return connection
            except BlockingIOError:
                time.sleep(0.05)  # its backlog is full: unix(7) has no wait for that with a timeout
    except BaseException:
        connection.close()
        raise


def remaining(deadline: Deadline) -> float:
    """Seconds that a wait may take. Raises TimeoutError when there are none: a timeout of 0 means something else."""
    if deadline.passed():
        raise TimeoutError
    return max(deadline.left(), 0.001)


def whole(response: Any, limit: int) -> bytes:
    """The body. Raises ValueError when it is larger than `limit`, OSError."""
    chunks: list[bytes] = []
    size = 0
    while chunk := response.read(CHUNK):
        size += len(chunk)
        if size > limit:
            raise ValueError(f"more than {limit} bytes")
        chunks.append(chunk)
    expected = response.getheader("Content-Length") or ""
    if expected.isdecimal() and len(expected) < 12 and int(expected) != size:
        raise ValueError(f"{size} bytes of {expected}")
    return b"".join(chunks)


def said(body: bytes) -> str:
    """What an error answer says, if it is one of Incus' or Docker's."""
    try:
        answer = parse(body)
    except (ValueError, RecursionError):
        return ""
    text = (answer.get("error") or answer.get("message")) if isinstance(answer, dict) else None
    # A lone surrogate ("\ud800" in JSON) could not be printed.
    return f": {text[:200].encode('utf-8', 'replace').decode()}" if isinstance(text, str) else ""


def parse(body: bytes) -> Any:
    """JSON, without numbers that take for ever or are none. Raises ValueError, RecursionError."""
    return json.loads(body.decode(), parse_int=integer, parse_constant=integer)


def integer(digits: str) -> int:
    # int() of a million digits takes hours before Python 3.10.7.
    if len(digits) > 20:
        raise ValueError("a number is too long")
    return int(digits)
