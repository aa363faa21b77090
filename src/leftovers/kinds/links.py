"""Links: what rtnetlink lists in the host's and in every other network namespace; removed as one group."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

from leftovers import syscalls
from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.kinds.processes import namespace
from leftovers.model import Deadline, Listing, Object, Verb

__all__ = ["Links"]

# How often a listing that changed under way is asked for again.
DUMPS = 20
# Of so many namespaces one is asked whether the other end of a pair may be there.
CANDIDATES = 64
# The device of /dev/net/tun (Linux Documentation/admin-guide/devices.txt).
TUN = os.makedev(10, 200)


class Links(Kind):
    """Facts of a link:

    name, index, netns (inode), host (in the namespace we run in), type (rtnl kind: bridge, veth, ...; "" is
    hardware), up, address (MAC), addresses (IP, host's namespace only), mtu, group, master (name), peer (name of the
    other veth end or lower link, if known), peer_index, peer_netns (inode, or 0 if unknown), vlan (id, 0 if none),
    pid (a process that lives in its namespace, 0 if none does, and for the host's), pins (of another's namespace, as
    the kind netns has them), holders (of a tun, tap or macvtap: the
    processes that have it open), holder (the first of these, 0 if none).
    What a product says about a link that is to be RETURNed stands in home_name, home_address, home_mtu.
    Keys: the name in the host's namespace, INODE/NAME in others.
    """

    name: ClassVar[str] = "link"
    title: ClassVar[str] = "links"
    needs: ClassVar[tuple[str, ...]] = ("netns",)
    verbs: ClassVar[tuple[Verb, ...]] = (Verb.RETURN, Verb.REMOVE)
    settle: ClassVar[float] = 5.0

    def survey(self, look: Look) -> Listing:
        from pyroute2 import IPRoute

        objects: list[dict[str, Any]] = []
        faults = []
        nsids: dict[int, int] = {}
        home = namespace(look.host, "self", "net")
        with IPRoute() as route:
            objects += dump(route, home, home, 0)
            for netns in look.objects("netns"):
                inode = netns.facts["inode"]
                if inode == home:
                    continue
                try:
                    with opened(look.host, netns) as fd:
                        nsid = nsid_of(route, fd)
                        if nsid is not None:
                            nsids[nsid] = inode
                        pid = (netns.facts["processes"] or [0])[0]
                        with opened_home() as home_fd, entered(fd), IPRoute() as inside:
                            found = [{**facts, "pins": netns.facts["pins"]} for facts in dump(inside, inode, home, pid)]
                            # Asked afterwards: a namespace gives the host a number when one of its links needs it.
                            home_nsid = nsid_of(inside, home_fd)
                            objects += [{**facts, "home_nsid": home_nsid} for facts in found]
                except FileNotFoundError:
                    continue  # its last process has ended meanwhile
                except OSError as error:
                    faults.append(f"netns {inode}: cannot list its links: {error.strerror or error}")
        across = [(facts, facts["nsid"]) for facts in objects if leads_across(facts)]
        tie_peers(objects, home, nsids)
        tie_across(look.host, {netns.facts["inode"]: netns for netns in look.objects("netns")}, across)
        hold_taps(look.host, objects, home)
        return Listing(
            tuple(
                Object(
                    "link",
                    facts["name"] if facts["host"] else f"{facts['netns']}/{facts['name']}",
                    (facts["netns"], facts["index"], facts["name"]),
                    facts,
                )
                for facts in objects
            ),
            tuple(faults),
        )

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        if verb is Verb.RETURN:
            return {obj.id: cause for obj in objects if (cause := give_back(host, obj))}
        inside = [obj for obj in objects if not obj.facts["host"]]
        failed = {obj.id: "is in another network namespace: it goes with that" for obj in inside}
        failed.update(delete([obj for obj in objects if obj.facts["host"]], deadline))
        return failed


def nsid_of(route: Any, fd: int) -> int | None:
    """The number by which the namespace of an IPRoute knows another one, if it does (RTM_GETNSID)."""
    answer = route.get_netnsid(fd=fd)
    nsid = answer.get("nsid") if isinstance(answer, dict) else None
    return nsid if isinstance(nsid, int) and nsid >= 0 else None


def text(name: Any) -> str:
    """A link's name: pyroute2 leaves it as bytes when it is not UTF-8, and a container may call a link anything."""
    return os.fsdecode(name) if isinstance(name, bytes) else str(name)


def whole(ask: Callable[[], Iterable[Any]]) -> list[Any]:
    """The answer to a dump, asked again while the kernel says that it changed under way (NLM_F_DUMP_INTR).

    On a host where links come and go, which is what we look at, that happens. Raises OSError."""
    for _ in range(DUMPS):
        try:
            return list(ask())
        except Exception as error:
            if type(error).__name__ != "NetlinkDumpInterrupted":
                raise
    raise OSError(errno.EAGAIN, "the links change faster than they can be listed")


def dump(route: Any, netns: int, home: int, pid: int) -> list[dict[str, Any]]:
    """All links of the namespace that an IPRoute stands in, as facts."""
    addresses: dict[int, list[str]] = {}
    if netns == home:
        for message in whole(route.get_addr):
            addresses.setdefault(message["index"], []).append(message.get_attr("IFA_ADDRESS"))
    found = []
    for link in whole(route.get_links):
        info = link.get_attr("IFLA_LINKINFO")
        data = info.get_attr("IFLA_INFO_DATA") if info else None
        has = data.get_attr if data is not None and hasattr(data, "get_attr") else {}.get
        vlan = has("IFLA_VLAN_ID")
        loopback = bool(link["flags"] & 0x8)
        found.append(
            {
                "name": text(link.get_attr("IFLA_IFNAME")),
                "index": link["index"],
                "netns": netns,
                "host": netns == home,
                "type": "loopback" if loopback else (info.get_attr("IFLA_INFO_KIND") if info else "") or "",
                "up": bool(link["flags"] & 0x1),
                "address": link.get_attr("IFLA_ADDRESS") or "",
                "addresses": addresses.get(link["index"], []),
                "mtu": link.get_attr("IFLA_MTU") or 0,
                "group": link.get_attr("IFLA_GROUP") or 0,
                "master_index": link.get_attr("IFLA_MASTER") or 0,
                "peer_index": link.get_attr("IFLA_LINK") or has("IFLA_VXLAN_LINK") or 0,
                "nsid": link.get_attr("IFLA_LINK_NETNSID"),
                "vlan": vlan or 0,
                "pid": pid,
            }
        )
    names = {facts["index"]: facts["name"] for facts in found}
    for facts in found:
        facts["master"] = names.get(facts.pop("master_index"), "")
    return found


def tie_peers(objects: list[dict[str, Any]], home: int, nsids: Mapping[int, int]) -> None:
    """Name the other end of each link, within its namespace or, from the host's, across namespaces.

    IFLA_LINK is an index in the namespace that IFLA_LINK_NETNSID names, and both are relative to the namespace
    that was asked (rtnetlink(7)); an index alone proves nothing, since every namespace counts from 1.
    """
    index = {(facts["netns"], facts["index"]): facts for facts in objects}
    for facts in objects:
        nsid, home_nsid = facts.pop("nsid"), facts.pop("home_nsid", None)
        if not facts["peer_index"]:
            netns = 0
        elif nsid is None:
            netns = facts["netns"]
        elif facts["host"]:
            netns = nsids.get(nsid, 0)
        else:
            netns = home if nsid == home_nsid else 0
        other = index.get((netns, facts["peer_index"]))
        facts["peer_netns"] = netns
        facts["peer"] = other["name"] if other else ""
        facts["peer_address"] = other["address"] if other else ""


def leads_across(facts: Mapping[str, Any]) -> bool:
    """Whether a link's other end is in another namespace, and neither end is in the host's."""
    nsid = facts["nsid"]
    return not facts["host"] and facts["peer_index"] and nsid is not None and nsid != facts["home_nsid"]


def tie_across(host: Host, spaces: Mapping[int, Object], across: Sequence[tuple[dict[str, Any], int]]) -> None:
    """Name the other ends of pairs between two namespaces that are not the host's. Which of the others one namespace
    means by a number only it can tell, so it is asked about those that have a link with these two numbers the other
    way round, and never about all."""
    from pyroute2 import IPRoute

    turned: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for facts, _ in across:
        turned.setdefault((facts["peer_index"], facts["index"]), []).append(facts)
    ends: dict[int, list[tuple[dict[str, Any], int]]] = {}
    for facts, nsid in across:
        if turned.get((facts["index"], facts["peer_index"])):
            ends.setdefault(facts["netns"], []).append((facts, nsid))
    for inode, found in ends.items():
        others: dict[int, None] = {}
        for facts, _ in found:
            for other in turned[facts["index"], facts["peer_index"]][:CANDIDATES]:
                others.setdefault(other["netns"])
        with suppress(OSError), opened(host, spaces[inode]) as fd, entered(fd), IPRoute() as inside:
            numbers: dict[int, int] = {}
            for each in others:
                with suppress(OSError), opened(host, spaces[each]) as candidate:
                    number = nsid_of(inside, candidate)
                    if number is not None:
                        numbers[number] = each
            for facts, nsid in found:
                for other in turned[facts["index"], facts["peer_index"]]:
                    if numbers.get(nsid) == other["netns"]:
                        facts.update(peer_netns=other["netns"], peer=other["name"], peer_address=other["address"])


def hold_taps(host: Host, objects: Sequence[dict[str, Any]], home: int) -> None:
    """Say which processes have each tun, tap or macvtap of the host open. Of the first two fdinfo has the name
    (drivers/net/tun.c, tun_chr_show_fdinfo), which a tun of another namespace may have too; a macvtap is a device of
    its own, /dev/tapINDEX, whose number is in sysfs (drivers/net/macvtap.c, macvtap_device_event)."""
    taps = {facts["name"]: facts for facts in objects if facts["host"] and facts["type"] == "tun"}
    nodes = {}
    for facts in objects:
        if facts["host"] and facts["type"] == "macvtap":
            with suppress(OSError):
                number = host.read(f"/sys/class/net/{facts['name']}/tap{facts['index']}/dev", 64)
                nodes[number.strip()] = facts
    if not taps and not nodes:
        return
    holders: dict[tuple[int, str], set[int]] = {}
    for pid in host.listdir("/proc"):
        directory = f"/proc/{pid}/fd"
        if not pid.isdigit():
            continue
        try:
            fds = os.listdir(host.path(directory))
        except OSError:
            continue
        for fd in fds:
            try:
                target = os.readlink(host.path(f"{directory}/{fd}"))
                # The number, and not the path: other network namespaces have links of the same index.
                if nodes and target.startswith("/dev/tap"):
                    device = os.stat(host.path(f"{directory}/{fd}")).st_rdev
                    held = nodes.get(f"{os.major(device)}:{os.minor(device)}")
                # No other file but tun's says so, wherever its node is; to ask for the number of each file that
                # somebody has open could wait for a file server of his for ever.
                else:
                    held = taps.get(tun_name(host, pid, fd)) if taps and target.startswith("/") else None
                    if held is not None and not is_of(host, pid, fd, home):
                        continue
            except OSError:
                continue
            if held is not None:
                holders.setdefault((held["netns"], held["name"]), set()).add(int(pid))
    for facts in (*taps.values(), *nodes.values()):
        found = sorted(holders.get((facts["netns"], facts["name"]), ()))
        facts.update(holders=found, holder=found[0] if found else 0)


def tun_name(host: Host, pid: str, fd: str) -> str:
    """The link that a process' open /dev/net/tun is for, in whatever namespace; "" if the file is another one."""
    for line in host.read(f"/proc/{pid}/fdinfo/{fd}", 4096).split("\n"):
        if line.startswith("iff:"):
            return line.removeprefix("iff:").strip()
    return ""


def is_of(host: Host, pid: str, fd: str, home: int) -> bool:
    """Whether a process' open tun is for a link of this network namespace: anybody may have one of the same name in a
    namespace of his own. The kernel tells it of a copy; where that is not to be had, it is so of a process of the host
    that lives there itself. Raises OSError."""
    try:
        pidfd = os.pidfd_open(int(pid))
        try:
            copy = syscalls.pidfd_getfd(pidfd, int(fd))
        finally:
            os.close(pidfd)
        try:
            if os.fstat(copy).st_rdev != TUN:
                return False
            netns = syscalls.tun_netns(copy)
        finally:
            os.close(copy)
        try:
            return os.fstat(netns).st_ino == home
        finally:
            os.close(netns)
    except OSError:
        if os.stat(host.path(f"/proc/{pid}/fd/{fd}")).st_rdev != TUN or namespace(host, pid, "net") != home:
            return False
        return namespace(host, pid, "pid") == namespace(host, "self", "pid")


@contextmanager
def opened(host: Host, netns: Object) -> Iterator[int]:
    """A file descriptor of a network namespace, checked to be the one that was listed. Raises OSError."""
    places = [f"/proc/{pid}/ns/net" for pid in netns.facts["processes"]] + list(netns.facts["pins"])
    for place in places:
        try:
            fd = os.open(host.path(place), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if os.fstat(fd).st_ino == netns.facts["inode"]:
                yield fd
                return
        finally:
            os.close(fd)
    raise FileNotFoundError(2, "no process and no pin is left", f"netns {netns.key}")


@contextmanager
def opened_home() -> Iterator[int]:
    """A file descriptor of the network namespace that the calling thread is in."""
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def entered(fd: int) -> Iterator[None]:
    """The calling thread in another network namespace, and back again whatever happens."""
    with opened_home() as home:
        syscalls.setns(fd, syscalls.CLONE_NEWNET)
        try:
            yield
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)


def delete(objects: Sequence[Object], deadline: Deadline) -> dict[str, str]:
    """Delete links of the host's namespace: all into one group that nobody uses, then that group at once.

    A deletion waits for an RCU grace period, a group of any size waits once (net/core/rtnetlink.c,
    rtnl_group_dellink): 500 veths go in 0.2 s instead of 10 s. When the kernel refuses the group (a member that
    cannot be deleted), its members go one by one, each with its own verdict.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    failed: dict[str, str] = {}
    with IPRoute() as route:
        links = {link["index"]: link for link in whole(route.get_links)}
        used = {link.get_attr("IFLA_GROUP") for link in links.values()}
        group = next(number for number in iter(lambda: random.randrange(1 << 20, 1 << 31), None) if number not in used)
        grouped = []
        for obj in objects:
            index = obj.facts["index"]
            present = links.get(index)
            if present is None or text(present.get_attr("IFLA_IFNAME")) != obj.facts["name"]:
                continue
            try:
                route.link("set", index=index, group=group)
                grouped.append(obj)
            except NetlinkError as error:
                if error.code != errno.ENODEV:  # a veth may have gone with its peer
                    failed[obj.id] = f"cannot be put into a group: {error}"
        if not grouped:
            return failed
        try:
            route.link("del", index=0, group=group)
        except NetlinkError:
            for obj in grouped:
                if deadline.passed():
                    failed[obj.id] = "out of time"
                    continue
                try:
                    route.link("del", index=obj.facts["index"])
                except NetlinkError as error:
                    if error.code != errno.ENODEV:
                        failed[obj.id] = str(error)
                        ungroup(route, obj)
    return failed


def ungroup(route: Any, obj: Object) -> None:
    """A link that stays gets back the group that it had."""
    try:
        route.link("set", index=obj.facts["index"], group=obj.facts["group"])
    except OSError:
        pass  # it went after all


def give_back(host: Host, obj: Object) -> str:
    """Move a link that was lent to a container back to the host, under the name that it had; where nobody knows
    that, or it is taken, under one that says where it comes from. Returns the cause of a failure, or "".

    A physical link would come back by itself when the namespace ends, though under its name in there; a virtual
    one would be destroyed with it (net/core/dev.c, default_device_exit_net), and it is the administrator's.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    facts = obj.facts
    spare = f"back{facts['index']}"
    wanted = facts.get("home_name") or spare
    try:
        with opened(host, space(facts)) as netns, opened_home() as home, entered(netns), IPRoute() as inside:
            inside.link("set", index=facts["index"], state="down")
            try:
                inside.link("set", index=facts["index"], net_ns_fd=home, ifname=wanted)
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise
                wanted = spare
                inside.link("set", index=facts["index"], net_ns_fd=home, ifname=wanted)
        with IPRoute() as route:
            index = route.link_lookup(ifname=wanted)[0]
            if facts.get("home_mtu"):
                route.link("set", index=index, mtu=facts["home_mtu"])
            if facts.get("home_address"):
                route.link("set", index=index, address=facts["home_address"])
    except FileNotFoundError:
        return ""  # its process has ended, no pin holds it, and the namespace went with that
    except (OSError, NetlinkError, IndexError) as error:
        return f"cannot be given back: {error}"
    return ""


def space(facts: Mapping[str, Any]) -> Object:
    """The namespace that a link is in, as far as a link knows it."""
    known = {
        "inode": facts["netns"],
        "processes": [facts["pid"]] if facts["pid"] else [],
        "pins": facts.get("pins", []),
    }
    return Object("netns", str(facts["netns"]), (facts["netns"],), known)
