"""Virtual servers of IPVS (ipvsadm(8)): listed, and only reported.

The table belongs to the whole host and says nothing about who made an entry; a load balancer of the administrator's
(keepalived) has its own in it. Only tried on recorded data: the layout is that of ip_vs_info_seq_show in the kernel's
net/netfilter/ipvs/ip_vs_ctl.c.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb

__all__ = ["VirtualServers", "parse"]

TABLE = "/proc/net/ip_vs"  # not there before the module is loaded
V6 = re.compile(r"\[([0-9a-fA-F:.]+)\]:([0-9A-F]{4})\Z")
V4 = re.compile(r"([0-9A-F]{8}):([0-9A-F]{4})\Z")
OPTIONS = {"TCP": "-t", "UDP": "-u", "SCTP": "--sctp-service"}


class VirtualServers(Kind):
    """Facts: protocol (TCP, UDP, SCTP, FWM), address, port, mark (of an FWM), scheduler, servers ("ADDRESS:PORT" of
    the real servers), service (as ipvsadm -D wants it: "-t ADDRESS:PORT", "-f MARK").

    Keys as ipvsadm takes them. Never removed.
    """

    name: ClassVar[str] = "ipvs"
    title: ClassVar[str] = "virtual servers"
    verbs: ClassVar[tuple[Verb, ...]] = ()

    def survey(self, look: Look) -> Listing:
        try:
            text = look.host.read(TABLE)
        except FileNotFoundError:
            return Listing()
        except OSError as error:
            return Listing(faults=(f"{TABLE}: {error.strerror or error}",))
        return Listing(tuple(parse(text)))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        return {obj.id: "virtual servers are never removed: the table is the whole host's" for obj in objects}


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
