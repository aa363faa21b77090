"""nft tables: what is asked for, and how netlink's answers are read; no netlink here."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from leftovers.errors import ToolFault, ToolMissing, Unreadable
from leftovers.host import Host
from leftovers.kinds import nft
from leftovers.kinds.kind import Look
from leftovers.kinds.nft import NftTables
from leftovers.model import Deadline, Object, Verb


def attribute(type: int, value: bytes) -> bytes:
    data = struct.pack("=HH", 4 + len(value), type) + value
    return data + b"\0" * (-len(data) % 4)


def table(name: str, handle: int) -> Object:
    return Object("nft", f"inet {name}", ("inet", name, handle))


def test_attributes() -> None:
    data = attribute(1, b"incus\0") + attribute(4, (7).to_bytes(8, "big")) + attribute(0x8006, b"nested")
    assert dict(nft.attributes_of(data)) == {1: b"incus\0", 4: b"\0\0\0\0\0\0\0\7", 6: b"nested"}
    assert list(nft.attributes_of(b"\2\0\1\0rubbish")) == []


def test_names_are_read_into_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        nft.NFT_MSG_GETTABLE: [("inet", {1: b"incus\0", 4: (7).to_bytes(8, "big")}), ("ip", {1: b"old\0"})],
        nft.NFT_MSG_GETCHAIN: [("inet", {1: b"incus\0", 3: b"in.x\0"}), ("ip", {1: b"incus\0", 3: b"other\0"})],
        nft.NFT_MSG_GETSET: [
            ("inet", {1: b"incus\0", 2: b"named\0", 3: (8).to_bytes(4, "big")}),
            ("inet", {1: b"incus\0", 2: b"__set0\0", 3: (3).to_bytes(4, "big")}),
        ],
    }
    monkeypatch.setattr(nft, "dump", answers.__getitem__)
    first, second = nft.list_tables()
    assert first.facts == {"family": "inet", "name": "incus", "handle": 7, "chains": ["in.x"], "sets": ["named"]}
    assert second.identity == ("ip", "old", 0)


def test_a_table_is_named_by_its_handle_where_it_has_one() -> None:
    assert nft.address(table("incus", 7)) == {"family": "inet", "handle": 7}
    assert nft.address(table("incus", 0)) == {"family": "inet", "name": "incus"}


def test_the_kernel_is_not_asked_without_nf_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(message: int) -> list[object]:
        raise AssertionError("would load a module")

    monkeypatch.setattr(nft, "dump", never)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/modules").write_text("overlay 1 0 - Live 0x0\n")
    (tmp_path / "proc/kallsyms").write_text("0000 T nf_register\n")
    assert NftTables().survey(Look(Host(str(tmp_path)))).objects == ()


@pytest.mark.parametrize(
    "files, there",
    [
        ({"sys/module/nf_tables/refcnt": "1", "proc/modules": ""}, True),
        ({}, True),  # no modules at all: asking can load none
        ({"proc/modules": "", "builtin": "kernel/net/netfilter/nf_tables.ko\n"}, True),
        ({"proc/modules": "", "builtin": "kernel/net/ipv6/ipv6.ko\n"}, False),
        ({"proc/modules": "", "proc/kallsyms": "00 t nf_tables_newtable\n"}, True),
        ({"proc/modules": "", "proc/kallsyms": "00 t other\n"}, False),
    ],
)
def test_in_kernel(files: dict[str, str], there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in files.items():
        path = tmp_path / name
        if name == "builtin":
            import os

            path = tmp_path / "lib/modules" / os.uname().release / "modules.builtin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert nft.in_kernel(Host(str(tmp_path))) is there


def test_an_unreadable_kernel_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(message: int) -> list[object]:
        raise Unreadable("nft tables", "Operation not permitted")

    monkeypatch.setattr(nft, "dump", refused)
    assert NftTables().survey(Look(Host(str(tmp_path)))).faults == ("nft tables: Operation not permitted",)


def test_a_missing_tool_is_named_for_each_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(commands: object, timeout: float) -> None:
        raise ToolMissing("nft", "not installed", "apt install nftables")

    monkeypatch.setattr(nft, "transact", missing)
    causes = NftTables().act(Host(), Verb.REMOVE, [table("a", 1)], Deadline(5))
    assert causes == {"nft:inet a": "nft: not installed (apt install nftables)"}


def test_vanishing_tables_do_not_make_it_try_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = [table(name, handle) for handle, name in enumerate("abcdefgh", 1)]
    sizes = []

    def fails(objects: list[Object], deadline: Deadline) -> None:
        sizes.append(len(objects))
        raise ToolFault("nft", "No such file or directory")

    monkeypatch.setattr(nft, "delete", fails)
    monkeypatch.setattr(nft, "still_there", lambda objects: list(objects)[1:])
    causes = NftTables().act(Host(), Verb.REMOVE, tables, Deadline(5))
    assert sizes == [8, 7, 6, 1, 1, 1, 1, 1]
    assert list(causes) == [f"nft:inet {name}" for name in "efgh"]


def test_when_none_had_vanished_each_goes_alone_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def fails(objects: list[Object], deadline: Deadline) -> None:
        sizes.append(len(objects))
        raise ToolFault("nft", "Operation not permitted")

    monkeypatch.setattr(nft, "delete", fails)
    monkeypatch.setattr(nft, "still_there", list)
    NftTables().act(Host(), Verb.REMOVE, [table("a", 1), table("b", 2)], Deadline(5))
    assert sizes == [2, 1, 1]


def test_no_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nft, "still_there", list)
    assert nft.one_by_one([table("a", 1)], Deadline(0)) == {"nft:inet a": "no time left"}


def test_errors_are_plain() -> None:
    assert nft.plain("internal:0:0-0: Error: Could not process rule: Device or resource busy") == (
        "Could not process rule: Device or resource busy"
    )
