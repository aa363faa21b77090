"""BoltDB files as bbolt writes them, and everything else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from leftovers.errors import Unreadable
from leftovers.evidence import bolt
from leftovers.host import Host
from unit.evidence.bolt_file import Tree, Writer, checksum

MANY = {f"key{number:03}".encode(): b"v" * number for number in range(100)}
TREE: Tree = {
    b"big": MANY,
    b"deep": {b"a": {b"b": {b"c": {b"k": b"v"}}}, b"z": b"last"},
    b"empty": {},
    b"large": {b"one": b"x" * 20000, b"two": b"y"},
    b"small": {b"k": b"v"},
}


def expected(tree: Tree, path: tuple[bytes, ...] = ()) -> list[bolt.Entry]:
    found: list[bolt.Entry] = []
    for key, value in sorted(tree.items()):
        found += [(path, key, value)] if isinstance(value, bytes) else expected(value, (*path, key))
    return found


def read(data: bytes) -> list[bolt.Entry]:
    return list(bolt.entries(data, "db"))


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("size", [1024, 4096, 65536])
def test_all_there_is(size: int, order: str, inline: bool) -> None:
    assert read(Writer(size, order, inline=inline).file(TREE)) == expected(TREE)


def test_checksum() -> None:
    """Known values of FNV-1a."""
    assert (bolt.fnv(b""), bolt.fnv(b"a"), bolt.fnv(b"foobar")) == (
        0xCBF29CE484222325,
        0xAF63DC4C8601EC8C,
        0x85944171F73967E8,
    )
    assert checksum(b"foobar") == bolt.fnv(b"foobar")


@pytest.mark.parametrize("number", [6, 7])
def test_the_newer_meta_page_counts_and_the_older_if_that_is_broken(number: int) -> None:
    data = bytearray(Writer().file({b"b": {b"new": b"2"}}, older={b"b": {b"old": b"1"}}, number=number))
    assert read(bytes(data)) == [((b"b",), b"new", b"2")]
    data[number % 2 * 4096 + 16 + 20] ^= 1
    assert read(bytes(data)) == [((b"b",), b"old", b"1")]
    data[(number - 1) % 2 * 4096 + 16 + 20] ^= 1
    with pytest.raises(Unreadable, match="db: not a BoltDB file"):
        read(bytes(data))


@pytest.mark.parametrize("size", [1024, 4096, 16384])
def test_the_second_meta_page_is_found_where_the_first_does_not_say_where(size: int) -> None:
    data = bytearray(Writer(size).file({b"b": {b"k": b"v"}}, number=7))
    data[:size] = bytes(size)
    assert read(bytes(data)) == [((b"b",), b"k", b"v")]


def patched(data: bytes, offset: int, form: bytes) -> bytes:
    return data[:offset] + form + data[offset + len(form) :]


def page_of(data: bytes, number: int) -> int:
    return number * 4096


def u64(value: int) -> bytes:
    return value.to_bytes(8, "little")


def u32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def u16(value: int) -> bytes:
    return value.to_bytes(2, "little")


def root_page(data: bytes) -> int:
    newest = max((0, 4096), key=lambda at: int.from_bytes(data[at + 64 : at + 72], "little"))
    return int.from_bytes(data[newest + 32 : newest + 40], "little")


# A root with one bucket whose root is a branch of leaves: page numbers in the order of their making.
BRANCHED = Writer(inline=False).file({b"b": dict(list(MANY.items())[:8])})
ROOT = root_page(BRANCHED) * 4096
TOP = (root_page(BRANCHED) - 1) * 4096


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "not a BoltDB file"),
        (b"\0" * 100_000, "not a BoltDB file"),
        (b"\xff" * 100_000, "not a BoltDB file"),
        (BRANCHED[:8192], "there is no page"),
        (BRANCHED[:-4096], "there is no page"),
        (patched(BRANCHED, ROOT, u64(99)), "says that it is page 99"),
        (patched(BRANCHED, ROOT + 8, u16(4)), "a page of the kind 0x4 in a tree"),
        (patched(BRANCHED, ROOT + 8, u16(3)), "a page of the kind 0x3 in a tree"),
        (patched(BRANCHED, ROOT + 10, u16(65535)), "more elements than have room"),
        (patched(BRANCHED, ROOT + 12, u32(1)), "has no end"),
        (patched(BRANCHED, ROOT + 12, u32(0xFFFFFFFF)), "has no end"),
        (patched(BRANCHED, ROOT + 16 + 4, u32(5000)), "outside of its page"),
        (patched(BRANCHED, ROOT + 16 + 4, u32(0)), "outside of its page"),
        (patched(BRANCHED, ROOT + 16 + 12, u32(0xFFFFFFFF)), "outside of its page"),
        (patched(BRANCHED, ROOT + 16 + 8, u32(0)), "keys that are not in order"),
        (patched(BRANCHED, ROOT + 16 + 12, u32(8)), "a bucket without a header"),
        # a branch that leads to itself, to its parent, twice to the same leaf, or out of the file
        (patched(BRANCHED, TOP + 16 + 8, u64(TOP // 4096)), "reached twice"),
        (patched(BRANCHED, TOP + 16 + 8, u64(ROOT // 4096)), "reached twice"),
        (patched(BRANCHED, TOP + 32 + 8, BRANCHED[TOP + 24 : TOP + 32]), "reached twice"),
        (patched(BRANCHED, TOP + 16 + 8, u64(0)), "there is no page 0"),
        (patched(BRANCHED, TOP + 16 + 8, u64(1 << 63)), "there is no page"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_said(data: bytes, cause: str) -> None:
    with pytest.raises(Unreadable, match=f"^db: .*{cause}") as caught:
        read(data)
    assert "\n" not in str(caught.value)


def test_elements_that_overlap_do_not_multiply() -> None:
    """Sixteen bytes each could name the same megabyte, again and again."""
    data = Writer(fan=2000).file(
        {b"b": {f"k{number:04}".encode(): b"x" for number in range(1000)} | {b"z": b"x" * 100_000}}
    )
    leaf = data.index(b"k0000x") - 16 * 1001 - 16
    for number in range(1, 1000):
        at = leaf + 16 + 16 * number
        position = int.from_bytes(data[at + 4 : at + 8], "little")
        data = patched(data, at + 12, u32(100_000 - position))
    with pytest.raises(Unreadable, match="outside of its page"):
        read(data)


def test_a_bucket_in_a_bucket_without_a_page() -> None:
    data = Writer().file({b"b": {b"k": b"v" * 40}})
    at = data.index(b"k" + b"v" * 40) - 16
    with pytest.raises(Unreadable, match="without a page of its own"):
        read(patched(data, at, u32(1)))


def test_ten_thousand_buckets_one_in_the_other() -> None:
    tree: Tree = {b"k": b"v"}
    writer = Writer(1024, inline=False)
    page = writer.bucket(tree)
    for _ in range(10_000):
        page = writer.add(2, 1, writer.leaf([(b"b", writer.pack("QQ", page, 0), 1)]))
    writer.pages[0] = writer.meta(2, page)
    writer.pages[1] = writer.meta(3, page)
    [(path, key, value)] = read(b"".join(writer.pages))
    assert (len(path), key, value) == (10_000, b"k", b"v")


def test_flipped_bytes() -> None:
    """Whatever a file holds, there is an answer, and it is no other exception."""
    numbers = random.Random(1)
    original = Writer(1024).file(TREE)
    broken = 0
    for _ in range(1500):
        data = bytearray(original)
        for _ in range(numbers.choice((1, 1, 2, 8))):
            data[numbers.randrange(len(data))] = numbers.randrange(256)
        if numbers.random() < 0.2:
            del data[numbers.randrange(len(data)) :]
        try:
            read(bytes(data))
        except Unreadable:
            broken += 1
    assert 100 < broken < 1500


def test_in_headers_only() -> None:
    """The same where it hurts most: in what leads to other places. The meta pages are made valid again."""
    numbers = random.Random(2)
    original = Writer(1024).file(TREE)
    heads = [page + at for page in range(0, len(original), 1024) for at in range(96)]
    broken = 0
    for _ in range(1500):
        data = bytearray(original)
        for _ in range(numbers.choice((1, 2, 4))):
            data[numbers.choice(heads)] = numbers.choice((0, 1, 2, 3, 16, 255, numbers.randrange(256)))
        for start in (0, 1024):
            data[start + 72 : start + 80] = checksum(bytes(data[start + 16 : start + 72])).to_bytes(8, "little")
        try:
            read(bytes(data))
        except Unreadable:
            broken += 1
    assert 100 < broken < 1500


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/db").write_bytes(Writer().file(TREE))
    host = Host(str(tmp_path))
    assert bolt.read(host, "/d", "db") == expected(TREE)
    assert bolt.read(host, "/d", "none") is None
    with pytest.raises(Unreadable, match="larger than"):
        bolt.read(host, "/d", "db", 1000)
    (tmp_path / "d/link").symlink_to("db")
    with pytest.raises(Unreadable):
        bolt.read(host, "/d", "link")


def test_a_torn_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torn, then whole, but written to while it was read, then at rest."""
    monkeypatch.setattr(bolt, "PAUSE", 0.0)
    old, new = (Writer().file({b"b": {b"k": value}}, number=number) for number, value in ((7, b"1"), (8, b"2")))
    copies = [old[:8192], old, new, new, new]
    monkeypatch.setattr(bolt.files, "read", lambda *_: copies.pop(0))
    assert bolt.read(Host(str(tmp_path)), "/d", "db") == [((b"b",), b"k", b"2")]
    assert copies == []


def test_a_file_that_is_never_at_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bolt, "PAUSE", 0.0)
    numbers = iter(range(3, 1000))
    monkeypatch.setattr(bolt.files, "read", lambda *_: Writer().file({}, number=next(numbers)))
    with pytest.raises(Unreadable, match="^/d/db: it is being written all the time"):
        bolt.read(Host(str(tmp_path)), "/d", "db")
