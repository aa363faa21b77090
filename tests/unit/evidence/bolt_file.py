"""Writes a BoltDB file as bbolt does (internal/common/{meta,page,inode,bucket}.go), for the tests of its reader."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, Union

Tree = Mapping[bytes, Union[bytes, "Tree"]]
BRANCH, LEAF, META, FREELIST = 1, 2, 4, 16


def checksum(data: bytes) -> int:
    value = 14695981039346656037
    for byte in data:
        value = (value ^ byte) * 1099511628211 % (1 << 64)
    return value


class Writer:
    """`fan` is how many elements a page has at most; `inline` whether small buckets are stored in their element."""

    def __init__(self, size: int = 4096, order: str = "<", fan: int = 4, inline: bool = True) -> None:
        self.size, self.order, self.fan, self.inline = size, order, fan, inline
        self.pages: list[bytes] = [b"", b""]
        self.add(FREELIST, 0, b"")

    def pack(self, form: str, *values: int) -> bytes:
        return struct.pack(self.order + form, *values)

    def add(self, flags: int, count: int, body: bytes) -> int:
        number = len(self.pages)
        pages = -(-(16 + len(body)) // self.size)
        whole = (self.pack("QHHI", number, flags, count, pages - 1) + body).ljust(pages * self.size, b"\0")
        self.pages += [whole[start : start + self.size] for start in range(0, len(whole), self.size)]
        return number

    def leaf(self, items: list[tuple[bytes, bytes, int]]) -> bytes:
        heads, data = b"", b""
        for number, (key, value, flags) in enumerate(items):
            position = (len(items) - number) * 16 + len(data)
            heads += self.pack("IIII", flags, position, len(key), len(value))
            data += key + value
        return heads + data

    def branch(self, items: list[tuple[bytes, int]]) -> bytes:
        heads, data = b"", b""
        for number, (key, page) in enumerate(items):
            heads += self.pack("IIQ", (len(items) - number) * 16 + len(data), len(key), page)
            data += key
        return heads + data

    def bucket(self, tree: Tree) -> int:
        """The number of its root page."""
        items = [
            (key, self.nested(value), 1) if isinstance(value, Mapping) else (key, value, 0)
            for key, value in sorted(tree.items())
        ]
        groups = [items[start : start + self.fan] for start in range(0, len(items), self.fan)] or [[]]
        level = [(group[0][0] if group else b"", self.add(LEAF, len(group), self.leaf(group))) for group in groups]
        while len(level) > 1:
            parts = [level[start : start + self.fan] for start in range(0, len(level), self.fan)]
            level = [(part[0][0], self.add(BRANCH, len(part), self.branch(part))) for part in parts]
        return level[0][1]

    def nested(self, tree: Tree) -> bytes:
        plain = [(key, value, 0) for key, value in sorted(tree.items()) if isinstance(value, bytes)]
        body = self.leaf(plain)
        if self.inline and len(plain) == len(tree) and len(body) < self.size // 4:
            return self.pack("QQ", 0, 0) + self.pack("QHHI", 0, LEAF, len(plain), 0) + body
        return self.pack("QQ", self.bucket(tree), 0)

    def meta(self, number: int, root: int) -> bytes:
        body = self.pack("4I6Q", 0xED0CDAED, 2, self.size, 0, root, 0, 2, len(self.pages), number, 0)[:56]
        page = self.pack("QHHI", number % 2, META, 0, 0) + body + self.pack("Q", checksum(body))
        return page.ljust(self.size, b"\0")

    def file(self, tree: Tree, older: Tree | None = None, number: int = 7) -> bytes:
        """A file whose last transaction made it `tree`, and the one before it `older`."""
        first = self.bucket(older or {})
        root = self.bucket(tree)
        metas = sorted(((number - 1) % 2, number % 2))
        roots = {(number - 1) % 2: (number - 1, first), number % 2: (number, root)}
        self.pages[0], self.pages[1] = (self.meta(*roots[each]) for each in metas)
        return b"".join(self.pages)


def local_kv(records: Mapping[str, Any]) -> bytes:
    """libnetwork's store: values by key, without what all keys begin with."""
    tree = {
        f"docker/network/v1.0/{key}/".encode(): bytes(8) + (b"" if value is None else json.dumps(value).encode())
        for key, value in records.items()
    }
    return Writer().file({b"libnetwork": tree})
