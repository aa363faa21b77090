"""Single rules of nft tables that several products share: listed and removed over nfnetlink, many in one transaction.

Only tables that a product asks for are read (rules are not what nft.py lists: there may be tens of thousands). A rule's
handle counts within its table, so a table that was made anew counts from the start; and the kernel removes by the
table's name. So a removal names the generation of the ruleset that was looked at, and the kernel refuses it when
anything has changed since (linux/netfilter/nfnetlink.h, NFNL_BATCH_GENID).
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from leftovers import netlink
from leftovers.errors import ToolFault, Unreadable
from leftovers.host import Host
from leftovers.kinds import nft
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb
from leftovers.run import find, run

__all__ = ["NftRules", "comment", "texts"]

SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
GETRULE, DELRULE, GETGEN = 7, 8, 16
TABLE, CHAIN, HANDLE, USERDATA = 1, 2, 3, 7  # NFTA_RULE_*
GEN_ID, BATCH_GENID = 1, 1  # NFTA_GEN_ID, NFNL_BATCH_GENID
BATCH_BEGIN, BATCH_END = 16, 17
NUMBERS = {name: number for number, name in nft.FAMILIES.items()}
# How often a transaction is tried again after the ruleset had changed under way.
ATTEMPTS = 20
# What `nft -a list table` ends a rule with.
NUMBERED = re.compile(r"\s*(.*?) # handle (\d+)\Z")


class NftRules(Kind):
    """Facts: family, table, chain, handle, comment ("" if none), text (as nft prints it, for people; "" where that is
    not installed).

    Keys "FAMILY TABLE CHAIN handle N"; the identity has the table's handle and the comment besides.
    """

    name: ClassVar[str] = "nftrule"
    title: ClassVar[str] = "nft rules"
    needs: ClassVar[tuple[str, ...]] = ("nft",)

    def survey(self, look: Look) -> Listing:
        objects: list[Object] = []
        faults = []
        asked = set(look.scope.nft_tables)
        for table in look.objects("nft"):
            if table.key not in asked:
                continue
            family, name, handle = table.facts["family"], table.facts["name"], table.facts["handle"]
            try:
                found = rules(family, name, handle)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    faults.append(f"nft rules of {table.key}: {error.strerror or error}")
                continue
            said = texts(family, name) if found else {}
            objects += (
                Object(obj.kind, obj.key, obj.identity, {**obj.facts, "text": said.get(obj.facts["handle"], "")})
                for obj in found
            )
        return Listing(tuple(objects), tuple(faults))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        """One transaction for all; what the kernel names as the cause of its refusal stays, and the rest is tried
        again."""
        causes: dict[str, str] = {}
        try:
            for _ in range(ATTEMPTS):
                left = [obj for obj in objects if obj.id not in causes]
                generation = generation_id()
                left = still_there(left)
                said = transact(generation, left)
                if not said:
                    return causes
                if said.get(-1, errno.ERESTART) != errno.ERESTART:
                    raise OSError(said[-1], os.strerror(said[-1]))
                causes.update(
                    {
                        left[place].id: os.strerror(code)
                        for place, code in said.items()
                        if 0 <= place < len(left) and code not in (errno.ERESTART, errno.ENOENT)
                    }
                )
        except (OSError, Unreadable) as error:
            cause = str(error) if isinstance(error, Unreadable) else error.strerror or str(error)
            return {obj.id: cause for obj in objects}
        return {obj.id: causes.get(obj.id, "the ruleset changes faster than it can be looked at") for obj in left}


def rules(family: str, table: str, handle: int) -> list[Object]:
    """The rules of one table. Raises OSError."""
    body = netlink.NFNETLINK.pack(NUMBERS.get(family, 0), 0, 0) + netlink.attribute(TABLE, os.fsencode(table) + b"\0")
    found = []
    for said in netlink.dump(netlink.NETFILTER, netlink.Request(SUBSYSTEM | GETRULE, body)):
        got = netlink.attributes(said, netlink.NFNETLINK.size)
        # A kernel before 4.8 does not filter.
        if nft.FAMILIES.get(said[0]) != family or netlink.text(got, TABLE) != table:
            continue
        number = int.from_bytes(got.get(HANDLE, b""), "big")
        chain, says = netlink.text(got, CHAIN), comment(got.get(USERDATA, b""))
        facts = {"family": family, "table": table, "chain": chain, "handle": number, "comment": says, "text": ""}
        key = f"{family} {table} {chain} handle {number}"
        found.append(Object("nftrule", key, (family, table, handle, chain, number, says), facts))
    return found


def comment(data: bytes) -> str:
    """The comment in a rule's user data: type, length and value of each part; 0 is the comment (libnftnl, udata.h)."""
    at = 0
    while at + 2 <= len(data):
        type, length = data[at], data[at + 1]
        if type == 0:
            return os.fsdecode(data[at + 2 : at + 2 + length].partition(b"\0")[0])
        at += 2 + length
    return ""


def texts(family: str, table: str) -> dict[int, str]:
    """How nft prints the rules of a table, by handle. A comment may hold what looks like another line; then there are
    two of one handle, and neither is believed."""
    if find("nft") is None or table.startswith("-"):
        return {}
    try:
        lines = run(["nft", "-a", "list", "table", family, table]).out.split("\n")
    except ToolFault:
        return {}  # it is only for people
    found: dict[int, str | None] = {}
    for line in lines:
        match = NUMBERED.match(line)
        if match and not line.rstrip().endswith("{") and not match[1].endswith("{"):
            handle = int(match[2])
            found[handle] = None if handle in found else match[1]
    return {handle: text for handle, text in found.items() if text is not None}


def still_there(objects: Sequence[Object]) -> list[Object]:
    """Those that are there with the same identity. Raises OSError, Unreadable."""
    wanted = {(str(obj.facts["family"]), str(obj.facts["table"])) for obj in objects}
    present: set[object] = set()
    for table in nft.list_tables() if wanted else ():
        family, name = table.facts["family"], table.facts["name"]
        if (family, name) in wanted:
            try:
                present |= {obj.identity for obj in rules(family, name, table.facts["handle"])}
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
    return [obj for obj in objects if obj.identity in present]


def generation_id() -> bytes:
    """The number of the ruleset's generation, as the kernel tells it. Raises OSError."""
    request = netlink.Request(SUBSYSTEM | GETGEN, netlink.NFNETLINK.pack(0, 0, 0))
    found = netlink.attributes(netlink.ask(netlink.NETFILTER, request), netlink.NFNETLINK.size)
    return found.get(GEN_ID, b"")


def transact(generation: bytes, objects: Sequence[Object]) -> dict[int, int]:
    """Remove rules in one transaction: all, or none. Returns error numbers by place, -1 for the transaction itself.
    Raises OSError."""
    if not objects:
        return {}
    subsystem = struct.pack("!H", SUBSYSTEM >> 8)
    begin = struct.pack("=BB", 0, 0) + subsystem
    requests = [netlink.Request(BATCH_BEGIN, begin + netlink.attribute(BATCH_GENID, generation))]
    requests += (netlink.Request(SUBSYSTEM | DELRULE, request(obj)) for obj in objects)
    requests.append(netlink.Request(BATCH_END, begin))
    return {place - 1: code for place, code in netlink.batch(requests).items()}


def request(obj: Object) -> bytes:
    facts = obj.facts
    names: Iterable[tuple[int, str]] = ((TABLE, facts["table"]), (CHAIN, facts["chain"]))
    body = netlink.NFNETLINK.pack(NUMBERS[facts["family"]], 0, 0)
    body += b"".join(netlink.attribute(type, os.fsencode(name) + b"\0") for type, name in names)
    return body + netlink.attribute(HANDLE, int(facts["handle"]).to_bytes(8, "big"))
