"""Virtual servers of IPVS (ipvsadm(8)): listed from /proc, removed many at once over generic netlink.

The table belongs to the whole host and says nothing about who made an entry; a load balancer of the administrator's
(keepalived) has its own in it. The layout is that of ip_vs_info_seq_show, and what a request to remove one holds that
of ip_vs_genl_parse_service, both in the kernel's net/netfilter/ipvs/ip_vs_ctl.c.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from leftovers import netlink
from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb

__all__ = ["VirtualServers", "parse"]

TABLE = "/proc/net/ip_vs"  # not there before the module is loaded
V6 = re.compile(r"\[([0-9a-fA-F:.]+)\]:([0-9A-F]{4})\Z")
V4 = re.compile(r"([0-9A-F]{8}):([0-9A-F]{4})\Z")
OPTIONS = {"TCP": "-t", "UDP": "-u", "SCTP": "--sctp-service"}
PROTOCOLS = {"TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP, "SCTP": socket.IPPROTO_SCTP}
# linux/genetlink.h: struct genlmsghdr (cmd, version, reserved), the family that tells of families, and what to ask it.
GENERIC = struct.Struct("=BBH")
CONTROL, GETFAMILY, FAMILY_ID, FAMILY_NAME = 16, 3, 1, 2
# linux/ip_vs.h: IPVS_CMD_DEL_SERVICE, IPVS_CMD_ATTR_SERVICE, IPVS_SVC_ATTR_*
DEL_SERVICE, SERVICE, AF, PROTOCOL, ADDR, PORT = 3, 1, 1, 2, 3, 4
NESTED = 0x8000


class VirtualServers(Kind):
    """Facts: protocol (TCP, UDP, SCTP, FWM), address, port, mark (of an FWM), scheduler, servers ("ADDRESS:PORT" of
    the real servers), forwards (how packets get there: Masq, Route, Tunnel, Local; each once), service (as ipvsadm -D
    wants it: "-t ADDRESS:PORT", "-f MARK").

    Keys as ipvsadm takes them. One goes with its real servers, whichever these are by then.
    """

    name: ClassVar[str] = "ipvs"
    title: ClassVar[str] = "virtual servers"

    def survey(self, look: Look) -> Listing:
        try:
            text = look.host.read(TABLE)
        except FileNotFoundError:
            return Listing()
        except OSError as error:
            return Listing(faults=(f"{TABLE}: {error.strerror or error}",))
        return Listing(tuple(parse(text)))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        # The table does not tell whether a mark is one of IPv4's or of IPv6's.
        causes = {obj.id: "is told by a mark, and by no address" for obj in objects if obj.facts["protocol"] == "FWM"}
        going = [obj for obj in objects if obj.id not in causes]
        if not going:
            return causes
        try:
            number = family()
            said = netlink.send(netlink.GENERIC, [netlink.Request(number, request(obj.facts)) for obj in going])
        except OSError as error:
            return {**causes, **{obj.id: error.strerror or str(error) for obj in going}}
        for obj, code in zip(going, said, strict=True):
            if code not in (0, errno.ESRCH):
                causes[obj.id] = os.strerror(code)
        return causes


def family() -> int:
    """The number that generic netlink gives IPVS. Only asked once its table is there: to ask loads a module. Raises
    OSError."""
    asked = GENERIC.pack(GETFAMILY, 1, 0) + netlink.attribute(FAMILY_NAME, b"IPVS\0")
    body = netlink.ask(netlink.GENERIC, netlink.Request(CONTROL, asked))
    return netlink.number(netlink.attributes(body, GENERIC.size), FAMILY_ID)


def request(facts: Mapping[str, Any]) -> bytes:
    """A request to remove a virtual server that has an address."""
    number = socket.AF_INET6 if ":" in facts["address"] else socket.AF_INET
    said = netlink.attribute(AF, struct.pack("=H", number))
    said += netlink.attribute(PROTOCOL, struct.pack("=H", PROTOCOLS[facts["protocol"]]))
    said += netlink.attribute(ADDR, socket.inet_pton(number, facts["address"]).ljust(16, b"\0"))
    said += netlink.attribute(PORT, struct.pack("!H", facts["port"]))
    return GENERIC.pack(DEL_SERVICE, 1, 0) + netlink.attribute(SERVICE | NESTED, said)


def parse(text: str) -> Iterator[Object]:
    """The virtual servers in /proc/net/ip_vs, each with its real ones. A line that is not understood is left out."""
    facts: dict[str, Any] | None = None
    objects: dict[str, Object] = {}
    for line in text.split("\n"):
        words = line.split()
        if len(words) >= 3 and words[0] in (*OPTIONS, "FWM"):
            facts = service(words)
            if facts is not None:
                key = str(facts["service"])
                objects[key] = Object("ipvs", key, (key, str(facts["scheduler"])), facts)
        elif len(words) >= 2 and words[0] == "->" and facts is not None:
            server = place(words[1])
            if server:
                facts["servers"].append(joined(*server))
                if len(words) >= 3 and words[2] not in facts["forwards"]:
                    facts["forwards"].append(words[2])
        else:
            facts = None
    yield from objects.values()


def service(words: Sequence[str]) -> dict[str, Any] | None:
    if words[0] == "FWM":
        try:
            mark = int(words[1], 16)
        except ValueError:
            return None
        return {
            "protocol": "FWM",
            "address": "",
            "port": 0,
            "mark": mark,
            "scheduler": words[2],
            "servers": [],
            "forwards": [],
            "service": f"-f {mark}",
        }
    server = place(words[1])
    if server is None:
        return None
    return {
        "protocol": words[0],
        "address": server[0],
        "port": server[1],
        "mark": 0,
        "scheduler": words[2],
        "servers": [],
        "forwards": [],
        "service": f"{OPTIONS[words[0]]} {joined(*server)}",
    }


def place(text: str) -> tuple[str, int] | None:
    """ "0A98B701:01BB" or "[fd00:...]:01BB"."""
    if match := V4.match(text):
        return socket.inet_ntop(socket.AF_INET, bytes.fromhex(match[1])), int(match[2], 16)
    if match := V6.match(text):
        try:
            packed = socket.inet_pton(socket.AF_INET6, match[1])
        except OSError:
            return None
        return socket.inet_ntop(socket.AF_INET6, packed), int(match[2], 16)
    return None


def joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
