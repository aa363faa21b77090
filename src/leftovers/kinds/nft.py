"""nft tables: listed by name and handle, deleted many in one transaction.

They are listed over nfnetlink: tables, chains and sets, never rules or elements. `nft list tables` reads the whole
ruleset for its answer (nft 1.0.6 with a table of 20000 rules: 0.35 s, this: 1 ms), and a Kubernetes host has tens of
thousands of them. So listing needs no tool. They are deleted by libnftables (python3-nftables) or, where that is not
installed, by `nft -j`: the same JSON either way (libnftables-json(5)).
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from leftovers import netlink
from leftovers.errors import ToolFault, ToolMissing, Unreadable
from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb
from leftovers.run import run

__all__ = ["NftTables", "in_kernel", "names_by_table"]

# linux/netfilter.h, NFPROTO_*
FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
# linux/netfilter/nf_tables.h and linux/netlink.h
NETLINK_NETFILTER = 12
NFNL_SUBSYS_NFTABLES = 10
NFT_MSG_GETTABLE, NFT_MSG_DELTABLE, NFT_MSG_GETCHAIN, NFT_MSG_DELCHAIN, NFT_MSG_GETSET = 1, 2, 4, 5, 10
NFNL_BATCH = (16, 17)  # NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END
NLM_F_NONREC = 0x100
NFTA_TABLE_NAME, NFTA_TABLE_HANDLE = 1, 4
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME = 1, 3
NFTA_SET_TABLE, NFTA_SET_NAME, NFTA_SET_FLAGS = 1, 2, 3
NFT_SET_ANONYMOUS = 1
NLM_F_REQUEST, NLM_F_DUMP, NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
NLMSG_ERROR, NLMSG_DONE = 2, 3
HEADER, GENERIC, ATTRIBUTE = struct.Struct("=LHHLL"), struct.Struct("=BBH"), struct.Struct("=HH")

# How often a transaction is tried again after one of its tables had vanished.
ATTEMPTS = 3

Table = tuple[str, str]  # family, name


class NftTables(Kind):
    """One object for each table of each family, those of iptables-nft included."""

    name = "nft"
    title = "nft tables"

    def survey(self, look: Look) -> Listing:
        """Key "FAMILY NAME"; identity (family, name, handle); facts family, name, handle, chains, sets.

        What a product says of a table that others may use, too, stands in `only_chains`: it goes when no rule is left
        in it, and no set, and no chain but these.
        """
        if not in_kernel(look.host):
            return Listing()
        try:
            objects = tuple(list_tables())
        except Unreadable as fault:
            return Listing(faults=(str(fault),))
        return Listing(objects)

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        shared = [object for object in objects if "only_chains" in object.facts]
        causes = {object.id: cause for object in shared if (cause := delete_empty(object))}
        return {**causes, **delete_all([object for object in objects if "only_chains" not in object.facts], deadline)}


def delete_all(objects: Sequence[Object], deadline: Deadline) -> dict[str, str]:
    """Delete tables with all that is in them. Returns causes by object id."""
    left = list(objects)
    for _ in range(ATTEMPTS):
        if not left:
            return {}
        try:
            delete(left, deadline)
            return {}
        except ToolMissing as fault:
            return {object.id: str(fault) for object in left}
        except ToolFault:
            present = still_there(left)
            if len(present) == len(left):
                break  # none had vanished: one of them cannot be deleted, and must not hinder the others
            left = present
    return one_by_one(left, deadline)


def delete_empty(object: Object) -> str:
    """Delete a table that nobody uses any more, and its chains, in one transaction. With NLM_F_NONREC the kernel itself
    refuses a chain with rules in it or jumps to it, and a table with other chains or sets (Linux 4.18). Returns the
    cause of a failure, or ""."""
    family, name, handle = str(object.identity[0]), str(object.identity[1]), int(object.identity[2])
    number = next(number for number, known in FAMILIES.items() if known == family)
    head, subsystem = GENERIC.pack(number, 0, 0), NFNL_SUBSYS_NFTABLES << 8
    bound = struct.pack("=BB", 0, 0) + struct.pack("!H", NFNL_SUBSYS_NFTABLES)
    table = os.fsencode(name) + b"\0"
    requests = [netlink.Request(NFNL_BATCH[0], bound)]
    try:
        for chain in names_by_table("chain").get((family, name), ()):
            if chain in object.facts["only_chains"]:
                body = netlink.attribute(NFTA_CHAIN_TABLE, table)
                body += netlink.attribute(NFTA_CHAIN_NAME, os.fsencode(chain) + b"\0")
                requests.append(netlink.Request(subsystem | NFT_MSG_DELCHAIN, head + body, NLM_F_NONREC))
        body = netlink.attribute(NFTA_TABLE_HANDLE, handle.to_bytes(8, "big"))
        requests.append(netlink.Request(subsystem | NFT_MSG_DELTABLE, head + body, NLM_F_NONREC))
        said = set(netlink.batch([*requests, netlink.Request(NFNL_BATCH[1], bound)]).values())
        if not said or not still_there([object]):
            return ""
    except Unreadable as fault:
        return str(fault)
    except OSError as error:
        return error.strerror or str(error)
    return "something that stays is in it" if errno.EBUSY in said else os.strerror(min(said))


def one_by_one(objects: Sequence[Object], deadline: Deadline) -> dict[str, str]:
    """Delete each table in its own transaction. Returns the causes of those that are still there."""
    causes: dict[str, str] = {}
    for object in objects:
        if deadline.passed():
            causes[object.id] = "no time left"
            continue
        try:
            delete([object], deadline)
        except ToolFault as fault:
            causes[object.id] = fault.cause
    if not causes:
        return causes
    present = {object.id for object in still_there(objects)}
    return {id: cause for id, cause in causes.items() if id in present}


def list_tables() -> Iterator[Object]:
    """An object for each table. Raises Unreadable."""
    chains = names_by_table("chain")
    sets = names_by_table("set")
    for family, attributes in dump(NFT_MSG_GETTABLE):
        name = text(attributes, NFTA_TABLE_NAME)
        handle = int.from_bytes(attributes.get(NFTA_TABLE_HANDLE, b""), "big")
        facts = {
            "family": family,
            "name": name,
            "handle": handle,
            "chains": chains.get((family, name), []),
            "sets": sets.get((family, name), []),
        }
        yield Object("nft", f"{family} {name}", (family, name, handle), facts)


def names_by_table(what: str) -> dict[Table, list[str]]:
    """The names of all chains, or all named sets and maps ("chain", "set"), by their tables. Raises Unreadable."""
    if what == "chain":
        message, table, name = NFT_MSG_GETCHAIN, NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME
    else:
        message, table, name = NFT_MSG_GETSET, NFTA_SET_TABLE, NFTA_SET_NAME
    names: dict[Table, list[str]] = {}
    for family, attributes in dump(message):
        flags = int.from_bytes(attributes.get(NFTA_SET_FLAGS, b""), "big") if what == "set" else 0
        if not flags & NFT_SET_ANONYMOUS:
            names.setdefault((family, text(attributes, table)), []).append(text(attributes, name))
    return names


def dump(message: int) -> list[tuple[str, dict[int, bytes]]]:
    """All objects of one sort as (family, attributes), over nfnetlink. Raises Unreadable."""
    try:
        for _ in range(ATTEMPTS):
            answer, whole = ask(message)
            if whole:
                break
    except OSError as error:
        raise Unreadable("nft tables", error.strerror or str(error)) from error
    return answer


def ask(message: int) -> tuple[list[tuple[str, dict[int, bytes]]], bool]:
    """One dump, and whether nothing changed while it was made (netlink(7), NLM_F_DUMP_INTR). Raises OSError."""
    found: list[tuple[str, dict[int, bytes]]] = []
    whole = True
    kind = NFNL_SUBSYS_NFTABLES << 8 | message
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as netlink:
        netlink.settimeout(10.0)
        netlink.bind((0, 0))
        size = HEADER.size + GENERIC.size
        netlink.send(HEADER.pack(size, kind, NLM_F_REQUEST | NLM_F_DUMP, 1, 0) + GENERIC.pack(0, 0, 0))
        while True:
            data = netlink.recv(1 << 18)
            at = 0
            while at + HEADER.size <= len(data):
                length, type, flags, _, _ = HEADER.unpack_from(data, at)
                body = data[at + HEADER.size : at + length]
                whole = whole and not flags & NLM_F_DUMP_INTR
                if type in (NLMSG_DONE, NLMSG_ERROR):
                    error = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                    if error > 0:
                        raise OSError(error, os.strerror(error))
                    return found, whole
                family = FAMILIES.get(body[0], str(body[0]))
                found.append((family, dict(attributes_of(body[GENERIC.size :]))))
                at += (length + 3) & ~3


def attributes_of(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The netlink attributes in a message, those of the first level (netlink(7), rtnetlink(3))."""
    at = 0
    while at + ATTRIBUTE.size <= len(data):
        length, type = ATTRIBUTE.unpack_from(data, at)
        if length < ATTRIBUTE.size:
            return
        yield type & 0x3FFF, data[at + ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def text(attributes: Mapping[int, bytes], attribute: int) -> str:
    return os.fsdecode(attributes.get(attribute, b"").rstrip(b"\0"))


def still_there(objects: Sequence[Object]) -> list[Object]:
    """Those of `objects` that a new listing shows; all of them when it fails."""
    try:
        present = {object.identity for object in list_tables()}
    except Unreadable:
        return list(objects)
    return [object for object in objects if object.identity in present]


def delete(objects: Sequence[Object], deadline: Deadline) -> None:
    """Delete tables in one transaction: all of them go, or none. Raises ToolFault."""
    transact([{"delete": {"table": address(object)}} for object in objects], timeout=max(1.0, deadline.left()))


def address(object: Object) -> dict[str, str | int]:
    """How a table is named in JSON. By its handle a table that was made anew under the old name is not hit.

    Kernels before 4.16 give tables no handle.
    """
    family, name, handle = object.identity
    return {"family": family, "handle": handle} if handle else {"family": family, "name": name}


def transact(commands: Sequence[Mapping[str, Any]], timeout: float) -> None:
    """Hand libnftables-json(5) commands over as one transaction.

    Raises ToolMissing when there is neither the library nor the tool, ToolFault when it refuses.
    """
    json_text = json.dumps({"nftables": list(commands)})
    if by_library(json_text):
        return
    try:
        run(["nft", "-j", "-f", "-"], stdin=json_text, timeout=timeout, package="nftables")
    except ToolMissing:
        raise
    except ToolFault as fault:
        raise ToolFault("nft", plain(fault.cause)) from fault


def by_library(json_text: str) -> bool:
    """The same by libnftables, in our process; False when it is not installed. Raises ToolFault."""
    try:
        import nftables

        context = nftables.Nftables()
        context.set_json_output(True)
    except (ImportError, OSError, AttributeError):
        return False  # no module; a module without its library; one that does not fit its library
    code, _, error = context.cmd(json_text)
    if code != 0:
        raise ToolFault("nft", plain(next((line for line in str(error).splitlines() if line), f"error {code}")))
    return True


def plain(cause: str) -> str:
    """An error of nft without the position that JSON input does not have ("internal:0:0-0: Error: ...")."""
    _, found, rest = cause.partition("Error: ")
    return rest if found else cause


def in_kernel(host: Host) -> bool:
    """Whether the running kernel has nf_tables, loaded or built in: to ask an absent one would load the module.

    Opening an nfnetlink socket makes the kernel request nfnetlink and nf_tables (net/netfilter/nfnetlink.c).
    A built-in nf_tables has no directory in /sys/module as it has no parameters: modules.builtin tells, and
    where that file is missing (a container, a kernel without modules) the kernel's own symbols do.
    """
    if host.exists("/sys/module/nf_tables"):
        return True
    if not host.exists("/proc/modules"):
        return True  # a kernel that cannot load modules: asking changes nothing
    for source, sign in (
        (f"/lib/modules/{os.uname().release}/modules.builtin", b"/nf_tables.ko"),
        ("/proc/kallsyms", b" nf_tables_newtable"),
    ):
        try:
            return sign in host.read_bytes(source)
        except OSError:
            continue
    return True
