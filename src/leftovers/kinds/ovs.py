"""Open vSwitch: bridges and ports, as its database on this host has them; removed in one transaction.

The database outlives what it describes: a bridge whose links are gone comes back with the next start of the switch,
and a port whose link is gone stays as an error. So they are removed there, and never as links.
"""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from leftovers.errors import ToolFault
from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb
from leftovers.run import find, run

__all__ = ["OpenVSwitch"]

SOCKET = "/run/openvswitch/db.sock"  # ovs-vsctl(8), --db
DATABASE = "/etc/openvswitch/conf.db"
ASLEEP = f"{DATABASE}: Open vSwitch does not run (systemctl start openvswitch-switch, and then again)"
SECONDS = 5
MAPPINGS = "ovn-bridge-mappings"  # ovn-controller(8)
# The tables and columns that are read (ovs-vswitchd.conf.db(5)).
TABLES = {
    "Open_vSwitch": "external_ids",
    "Bridge": "_uuid,name,ports",
    "Port": "_uuid,name,interfaces",
    "Interface": "_uuid,name,type,external_ids",
}
Row = dict[str, Any]


class OpenVSwitch(Kind):
    """Keys "bridge NAME" and "port BRIDGE NAME"; identity (what, _uuid). A port that is its bridge's own is not listed.

    Facts: what ("bridge" or "port"), name; of a bridge ports (names), mapped (what OVN calls the network behind it,
    ovn-controller(8), ovn-bridge-mappings), address and addresses of the link of its name; of a port bridge, type (of
    its interface: "" is a link of the host), iface_id (what OVN knows it by), here (whether a link of its name is).
    """

    name: ClassVar[str] = "ovs"
    title: ClassVar[str] = "Open vSwitch bridges and ports"
    needs: ClassVar[tuple[str, ...]] = ("link",)

    def survey(self, look: Look) -> Listing:
        if look.host.root:
            return Listing()
        try:
            if find("ovs-vsctl") is None or not answers():
                # What is in the database comes back with the switch.
                asleep = self.name in look.scope.relied and look.host.exists(DATABASE)
                return Listing(faults=(ASLEEP,) if asleep else ())
            tables = read()
        except ToolFault as fault:
            return Listing(faults=(f"Open vSwitch: {fault}",))
        links = {link.key: link.facts for link in look.objects("link") if link.facts["host"]}
        return Listing(tuple(described(tables, links)))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        """One transaction for all; one for each if that is refused."""
        # A name that would be an option; none that a product gives is one.
        odd = {obj.id: "its name cannot be given to ovs-vsctl" for obj in objects if is_option(obj)}
        wanted = [obj for obj in objects if obj.id not in odd]
        if not wanted:
            return odd
        try:
            remove(wanted, deadline)
            return odd
        except ToolFault as fault:
            cause = fault.cause
        causes = dict(odd)
        for obj in wanted:
            # One that was refused says so at once; where nobody answers, one more question is one too many.
            if len(wanted) > 1 and not deadline.passed() and not late(cause):
                try:
                    remove([obj], deadline)
                    continue
                except ToolFault as fault:
                    cause = fault.cause
            causes[obj.id] = cause
        return causes


def late(cause: str) -> bool:
    """Whether ovs-vsctl ended by its own --timeout (SIGALRM) or by ours."""
    return "did not end within" in cause or f"exit status {-signal.SIGALRM}" in cause


def answers() -> bool:
    """Whether the database's server is there: without one, ovs-vsctl would wait for it. Raises ToolFault when one is
    there that does not answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.settimeout(SECONDS)
        try:
            asked.connect(SOCKET)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return False
        except OSError as error:
            raise ToolFault(SOCKET, f"does not answer: {error.strerror or error}") from error
    return True


def read() -> dict[str, list[Row]]:
    """The tables. Raises ToolFault."""
    argv = ["ovs-vsctl", f"--timeout={SECONDS}", "--format=json", "--no-wait"]
    for table, columns in TABLES.items():
        argv += ["--", f"--columns={columns}", "list", table]
    # Only this is a line's end to ovs-vsctl: what stands in external_ids may have others of Unicode's.
    said = run(argv, timeout=SECONDS + 5).out.rstrip("\n").split("\n")
    try:
        return {table: list(rows(json.loads(line))) for table, line in zip(TABLES, said, strict=True)}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ToolFault("ovs-vsctl", f"said something else than its tables: {error}") from error


def rows(table: Mapping[str, Any]) -> Iterator[Row]:
    for row in table["data"]:
        yield {name: plain(value) for name, value in zip(table["headings"], row, strict=True)}


def plain(value: Any) -> Any:
    """A value of RFC 7047 (5.1): ["uuid", u], ["set", [...]], ["map", [[key, value], ...]] or an atom."""
    if isinstance(value, list) and len(value) == 2:
        tag, content = value
        if tag == "uuid":
            return str(content)
        if tag == "set":
            return [plain(each) for each in content]
        if tag == "map":
            return {str(key): str(each) for key, each in content}
    return value


def many(value: Any) -> list[str]:
    """A set of references: the database writes one of a single member as that member."""
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


def described(tables: Mapping[str, list[Row]], links: Mapping[str, Mapping[str, Any]]) -> Iterator[Object]:
    ports = {row["_uuid"]: row for row in tables["Port"]}
    interfaces = {row["_uuid"]: row for row in tables["Interface"]}
    mapped = mappings(tables["Open_vSwitch"])
    for row in tables["Bridge"]:
        bridge = str(row["name"])
        own = [ports[uuid] for uuid in many(row["ports"]) if uuid in ports and ports[uuid]["name"] != bridge]
        link = links.get(bridge, {})
        yield Object(
            "ovs",
            f"bridge {bridge}",
            ("bridge", row["_uuid"]),
            {
                "what": "bridge",
                "name": bridge,
                "ports": sorted(str(port["name"]) for port in own),
                "mapped": mapped.get(bridge, []),
                "address": link.get("address", ""),
                "addresses": list(link.get("addresses", ())),
            },
        )
        for port in own:
            name = str(port["name"])
            first = next((interfaces[uuid] for uuid in many(port["interfaces"]) if uuid in interfaces), {})
            yield Object(
                "ovs",
                f"port {bridge} {name}",
                ("port", port["_uuid"]),
                {
                    "what": "port",
                    "name": name,
                    "bridge": bridge,
                    "type": str(first.get("type", "")),
                    "iface_id": str(first.get("external_ids", {}).get("iface-id", "")),
                    "here": name in links,
                },
            )


def mappings(rows: Sequence[Row]) -> dict[str, list[str]]:
    """What OVN calls the networks behind bridges, by bridge: "NETWORK:BRIDGE,..."."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for pair in str(row.get("external_ids", {}).get(MAPPINGS, "")).split(","):
            network, colon, bridge = pair.strip().rpartition(":")
            if colon:
                found.setdefault(bridge, []).append(network)
    return found


def is_mapped(obj: Object) -> bool:
    return bool(obj.facts.get("mapped"))


def unmapped(bridges: Collection[str]) -> list[str]:
    """The words for ovs-vsctl that take bridges out of OVN's mappings, whose other pairs stay. Raises ToolFault."""
    if not bridges:
        return []
    said = read()["Open_vSwitch"][0]["external_ids"].get(MAPPINGS, "")
    pairs = [pair.strip() for pair in said.split(",") if pair.strip()]
    rest = [pair for pair in pairs if pair.rpartition(":")[2] not in bridges]
    if not rest:
        return ["--", "remove", "Open_vSwitch", ".", "external_ids", MAPPINGS]
    return ["--", "set", "Open_vSwitch", ".", f'external_ids:{MAPPINGS}="{",".join(rest)}"']


def is_option(obj: Object) -> bool:
    return str(obj.facts["name"]).startswith("-") or str(obj.facts.get("bridge", "")).startswith("-")


def remove(objects: Sequence[Object], deadline: Deadline) -> None:
    """Ports before bridges, and no word of these to OVN; all or nothing. Waits until the switch has done it.
    Raises ToolFault."""
    seconds = max(1, int(deadline.left()))
    argv = [
        "ovs-vsctl",
        f"--timeout={seconds}",
        *unmapped({str(obj.facts["name"]) for obj in objects if is_mapped(obj)}),
    ]
    for obj in sorted(objects, key=lambda obj: obj.facts["what"] == "bridge"):
        what = ["del-br"] if obj.facts["what"] == "bridge" else ["del-port", obj.facts["bridge"]]
        argv += ["--", "--if-exists", *what, obj.facts["name"]]
    run(argv, timeout=seconds + 5)
