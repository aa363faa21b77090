"""Netlink without a library: what a dump answers, and many requests at once (netlink(7), rtnetlink(7)).

For what there may be a hundred thousand of: a host that speaks BGP has that many routes, and a parsed object for each
attribute of each of them takes minutes. Nothing is decided here.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "CREATE",
    "GENERIC",
    "NETFILTER",
    "NFNETLINK",
    "ROUTE",
    "Request",
    "ask",
    "attribute",
    "attributes",
    "batch",
    "dump",
    "number",
    "send",
    "text",
]

ROUTE, NETFILTER, GENERIC = 0, 12, 16
REQUEST, ACK, DUMP, DUMP_INTR, CREATE = 0x1, 0x4, 0x300, 0x10, 0x400
ERROR, DONE = 2, 3
SOL_NETLINK, CAP_ACK, GET_STRICT_CHK, SO_SNDBUFFORCE, SO_RCVBUFFORCE = 270, 10, 12, 32, 33
HEADER, ATTRIBUTE = struct.Struct("=LHHLL"), struct.Struct("=HH")
NFNETLINK = struct.Struct("=BBH")  # linux/netfilter/nfnetlink.h, struct nfgenmsg; the last in network byte order
# Requests that go into one datagram: their answers must fit into the socket's buffer.
CHUNK = 100
# How often a dump that changed under way is asked for again.
DUMPS = 20
SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Request:
    """A message's type, its flags besides NLM_F_REQUEST, and all that follows its header."""

    type: int
    body: bytes
    flags: int = 0


def attribute(type: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(value), type) + value + b"\0" * (-len(value) % 4)


def attributes(data: bytes, at: int = 0) -> dict[int, bytes]:
    """The attributes in a message from a place on, those of the first level; of two of one type the last."""
    found = {}
    size = ATTRIBUTE.size
    while at + size <= len(data):
        length, type = ATTRIBUTE.unpack_from(data, at)
        if length < size:
            break
        found[type & 0x3FFF] = data[at + size : at + length]
        at += (length + 3) & ~3
    return found


def number(found: Mapping[int, bytes], type: int, default: int = 0) -> int:
    """An attribute that is a number in the host's byte order."""
    value = found.get(type)
    return default if value is None else int.from_bytes(value, "little" if struct.pack("=H", 1)[0] else "big")


def text(found: Mapping[int, bytes], type: int) -> str:
    return os.fsdecode(found.get(type, b"").partition(b"\0")[0])


def opened(protocol: int) -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    netlink.settimeout(SECONDS)
    netlink.setsockopt(SOL_NETLINK, CAP_ACK, 1)  # an error does not come with all that it was about
    netlink.bind((0, 0))
    return netlink


def packed(request: Request, flags: int, sequence: int) -> bytes:
    size = HEADER.size + len(request.body)
    head = HEADER.pack(size, request.type, request.flags | flags | REQUEST, sequence, 0)
    return head + request.body + b"\0" * (-len(request.body) % 4)


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The messages in a datagram: type, flags, sequence number, body."""
    at = 0
    while at + HEADER.size <= len(data):
        length, type, flags, sequence, _ = HEADER.unpack_from(data, at)
        if length < HEADER.size:
            return
        yield type, flags, sequence, data[at + HEADER.size : at + length]
        at += (length + 3) & ~3


def code(body: bytes) -> int:
    """The error number of an answer, 0 when it is none."""
    return -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0


def dump(protocol: int, request: Request, *, strict: bool = False) -> list[bytes]:
    """The bodies of all that a dump answers with. `strict` has the kernel filter by what the request holds
    (NETLINK_GET_STRICT_CHK, Linux 4.20); an older one answers with more than was asked for. Raises OSError."""
    for _ in range(DUMPS):
        found, whole = once(protocol, request, strict)
        if whole:
            return found
    raise OSError(errno.EAGAIN, "changes faster than it can be listed")


def once(protocol: int, request: Request, strict: bool) -> tuple[list[bytes], bool]:
    """One dump, and whether nothing changed while it was made."""
    found: list[bytes] = []
    whole = True
    with opened(protocol) as netlink:
        if strict:
            try:
                netlink.setsockopt(SOL_NETLINK, GET_STRICT_CHK, 1)
            except OSError:
                pass  # the caller looks at what it gets
        netlink.send(packed(request, DUMP, 1))
        while True:
            for type, flags, _, body in messages(netlink.recv(1 << 18)):
                whole = whole and not flags & DUMP_INTR
                if type in (ERROR, DONE):
                    if code(body) > 0:
                        raise OSError(code(body), os.strerror(code(body)))
                    return found, whole
                found.append(body)


def ask(protocol: int, request: Request) -> bytes:
    """The body of the one answer to a request. Raises OSError."""
    with opened(protocol) as netlink:
        netlink.send(packed(request, 0, 1))
        while True:
            for type, _, sequence, body in messages(netlink.recv(1 << 16)):
                if sequence == 1 and type == ERROR:
                    raise OSError(code(body), os.strerror(code(body)))
                if sequence == 1:
                    return body


def send(protocol: int, requests: Sequence[Request]) -> list[int]:
    """Make requests in their order; an error of one hinders no other. Returns for each its error number, or 0.
    Raises OSError when the kernel does not answer."""
    said = [0] * len(requests)
    with opened(protocol) as netlink:
        for start in range(0, len(requests), CHUNK):
            part = requests[start : start + CHUNK]
            netlink.send(b"".join(packed(request, ACK, start + place + 1) for place, request in enumerate(part)))
            waited = set(range(start + 1, start + len(part) + 1))
            while waited:
                for type, _, sequence, body in messages(netlink.recv(1 << 18)):
                    if type == ERROR and sequence in waited:
                        waited.discard(sequence)
                        said[sequence - 1] = code(body)
    return said


def batch(requests: Sequence[Request]) -> dict[int, int]:
    """Hand requests over in one datagram, for nfnetlink's transactions. Returns the error numbers, by the place of the
    request; empty when all was done. The kernel works while we send, so all its answers are there when that returns.
    Raises OSError."""
    data = b"".join(packed(request, 0, place + 1) for place, request in enumerate(requests))
    said: dict[int, int] = {}
    with opened(NETFILTER) as netlink:
        netlink.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 2 * len(data) + (1 << 16))
        netlink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        netlink.send(data)
        netlink.setblocking(False)
        while True:
            try:
                answer = netlink.recv(1 << 18)
            except BlockingIOError:
                return said
            for type, _, sequence, body in messages(answer):
                if type == ERROR and code(body) > 0 and 0 < sequence <= len(requests):
                    said[sequence - 1] = code(body)
