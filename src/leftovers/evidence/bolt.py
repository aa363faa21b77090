"""What is in a BoltDB file: keys and values, by bucket (bbolt internal/common; db.go, getPageSize; bucket.go).

Only read, and without its lock, which the daemon that has it open never gives up. bbolt writes pages that its last
committed meta page does not reach, and then the older of the two meta pages; so a copy is one state of the database if
the meta pages are the same before and after it was made. The file is hostile input: no page is visited twice, and
nothing is taken from outside of its page.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from leftovers.errors import Unreadable
from leftovers.evidence import files
from leftovers.host import Host

__all__ = ["Entry", "entries", "read"]

LIMIT = 64 * files.MIB
LOOKS = 5  # copies that are made of a file that is being written
PAUSE = 0.05
MAGIC = 0xED0CDAED
VERSION = 2
HEADER = 16  # of a page: id, flags, count, overflow; of a bucket: its root page, its sequence; and of an element
META = 64
BRANCH, LEAF = 0x01, 0x02
BUCKET = 0x01  # the flag of a leaf's element that is a bucket
SIZES = tuple(1024 << shift for shift in range(15))

# The names of the buckets that lead there, the key, the value.
Entry = tuple[tuple[bytes, ...], bytes, bytes]


@dataclass(frozen=True, slots=True)
class Meta:
    order: str  # of bytes: that of the machine which made the file
    size: int  # of a page
    root: int  # the page of the outermost bucket
    end: int  # one more than the last page that was ever used
    number: int  # of the transaction that wrote it


def read(host: Host, base: str, below: str, limit: int = LIMIT) -> list[Entry] | None:
    """All that is in a file, in order; None when it is absent. Raises Unreadable, also for one that is being written
    all the time."""
    what = f"{base.rstrip('/')}/{below}"
    for look in range(LOOKS):
        if look:
            time.sleep(PAUSE)
        data = files.read(host, base, below, limit)
        if data is None:
            return None
        try:
            found = list(entries(data, what))
        except Unreadable as error:
            cause = error.cause
            continue
        if metas(files.read(host, base, below, limit) or b"") == metas(data):
            return found
        cause = "it is being written all the time"
    raise Unreadable(what, cause)


def entries(data: bytes, what: str) -> Iterator[Entry]:
    """All that is in the bytes of a file, in order. Raises Unreadable, at whatever point it finds a fault."""
    known = metas(data)
    if not known:
        raise Unreadable(what, "not a BoltDB file, or one without a valid meta page")
    try:
        yield from Reader(data, max(known, key=lambda meta: meta.number)).walk()
    except Broken as error:
        raise Unreadable(what, f"not a whole BoltDB file: {error}") from None


class Broken(Exception):
    """What is wrong with a file."""


def metas(data: bytes) -> list[Meta]:
    """The valid ones of the two meta pages. Where the first is not, the second is looked for at all sizes of pages."""
    first = meta(data, 0)
    sizes = [first.size] if first else SIZES
    second = next((found for size in sizes if (found := meta(data, size)) and found.size == size), None)
    return [each for each in (first, second) if each is not None]


def meta(data: bytes, offset: int) -> Meta | None:
    body = data[offset + HEADER : offset + HEADER + META]
    if len(body) < META:
        return None
    for order in "<>":
        magic, version, size, _, root, _, _, end, number, checksum = struct.unpack(f"{order}4I6Q", body)
        if magic == MAGIC and version == VERSION and size in SIZES and checksum == fnv(body[: META - 8]):
            return Meta(order, size, root, end, number)
    return None


def fnv(data: bytes) -> int:
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


class Reader:
    """One walk through all pages of a file."""

    def __init__(self, data: bytes, meta: Meta) -> None:
        self.data = data
        self.meta = meta
        self.seen: set[int] = set()
        # Elements may not overlap, so that all of them together are no larger than the file: twice, for what is in a
        # bucket that is stored within its own element.
        self.left = 2 * len(data)

    def walk(self) -> Iterator[Entry]:
        # A stack and no recursion: how deep pages and buckets go is the file's to say.
        stack: list[tuple[tuple[bytes, ...], Iterator[tuple[int, bytes, bytes | int]]]] = [
            ((), self.elements(self.page(self.meta.root)))
        ]
        while stack:
            path, rest = stack[-1]
            element = next(rest, None)
            if element is None:
                stack.pop()
                continue
            flags, key, value = element
            if isinstance(value, int):
                stack.append((path, self.elements(self.page(value))))
            elif not flags & BUCKET:
                yield path, key, value
            else:
                if len(value) < HEADER:
                    raise Broken("a bucket without a header")
                (root,) = struct.unpack_from(f"{self.meta.order}Q", value)
                # A small bucket has its only page in itself (bucket.go, inlineable): then it has no bucket in it.
                inner = self.page(root) if root else value[HEADER:]
                stack.append(((*path, key), self.elements(inner, inline=not root)))

    def page(self, number: int) -> bytes:
        """A page with those that it overflows into."""
        size = self.meta.size
        if not 2 <= number < min(self.meta.end, len(self.data) // size):
            raise Broken(f"there is no page {number}")
        said, _, _, overflow = self.header(self.data[number * size : number * size + HEADER])
        if said != number:
            raise Broken(f"page {number} says that it is page {said}")
        numbers = range(number, number + overflow + 1)
        if numbers[-1] >= min(self.meta.end, len(self.data) // size):
            raise Broken(f"page {number} has no end")
        if not self.seen.isdisjoint(numbers):
            raise Broken(f"page {number} is reached twice")
        self.seen.update(numbers)
        return self.data[number * size : (number + overflow + 1) * size]

    def header(self, page: bytes) -> tuple[int, int, int, int]:
        if len(page) < HEADER:
            raise Broken("a page without a header")
        id, flags, count, overflow = struct.unpack_from(f"{self.meta.order}QHHI", page)
        return id, flags, count, overflow

    def elements(self, page: bytes, inline: bool = False) -> Iterator[tuple[int, bytes, bytes | int]]:
        """(flags, key, value) of a leaf, (0, key, page) of a branch."""
        _, kind, count, _ = self.header(page)
        if kind not in (BRANCH, LEAF) or (inline and kind != LEAF):
            raise Broken(f"a page of the kind {kind:#x} in a tree")
        if HEADER * (count + 1) > len(page):
            raise Broken("a page with more elements than have room in it")
        last = b""
        for start in range(HEADER, HEADER * (count + 1), HEADER):
            if kind == LEAF:
                flags, position, key_size, value_size = struct.unpack_from(f"{self.meta.order}4I", page, start)
                child = 0
            else:
                position, key_size, child = struct.unpack_from(f"{self.meta.order}IIQ", page, start)
                flags = value_size = 0
            begin = start + position
            end = begin + key_size + value_size
            self.left -= key_size + value_size
            if begin < HEADER * (count + 1) or end > len(page) or self.left < 0:
                raise Broken("an element outside of its page")
            key = page[begin : begin + key_size]
            if key <= last:
                raise Broken("keys that are not in order")
            last = key
            if inline and flags & BUCKET:
                raise Broken("a bucket in a bucket without a page of its own")
            yield flags, key, page[begin + key_size : end] if kind == LEAF else child
