"""Real links: what ties a veth to the namespace of its other end, and that one batch takes what was named."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace

from sandbox import private, sh
from things import act, look, until

from leftovers import syscalls
from leftovers.model import Object, Verb


def links() -> dict[str, Object]:
    return look("link")["link"]


def names() -> set[str]:
    return {key for key, obj in links().items() if obj.facts["host"]}


def container() -> subprocess.Popen[bytes]:
    """A process in a network namespace of its own that nothing pins."""
    process = subprocess.Popen(["unshare", "-n", "sleep", "1000"])
    until(lambda: os.readlink(f"/proc/{process.pid}/ns/net") != os.readlink("/proc/self/ns/net"))
    return process


def veth(name: str, process: subprocess.Popen[bytes], inside: str = "eth0") -> None:
    sh("ip", "link", "add", name, "type", "veth", "peer", "name", inside, "netns", str(process.pid))


@private
def test_a_veth_is_tied_to_the_namespace_of_its_other_end_not_to_an_equal_number() -> None:
    # Every namespace counts its links from 1, so the peers of all three have the same index.
    processes = [container() for _ in range(3)]
    for number, process in enumerate(processes):
        veth(f"veth{number}", process)
    found = links()
    for number, process in enumerate(processes):
        netns = os.stat(f"/proc/{process.pid}/ns/net").st_ino
        facts = found[f"veth{number}"].facts
        assert facts["peer_netns"] == netns
        inside = found[f"{netns}/eth0"].facts
        assert facts["peer_address"] == inside["address"] and facts["peer"] == "eth0"
        assert inside["peer"] == f"veth{number}" and not inside["host"]
    assert len({found[f"veth{number}"].facts["peer_index"] for number in range(3)}) == 1


@private
def test_a_pinned_namespace_without_a_process_is_seen_too() -> None:
    sh("ip", "netns", "add", "blue")
    sh("ip", "link", "add", "veth0", "type", "veth", "peer", "name", "inside", "netns", "blue")
    found = look("link")
    blue = next(obj for obj in found["netns"].values() if obj.facts["pins"])
    assert blue.facts["pins"] == ["/run/netns/blue"]
    assert found["link"]["veth0"].facts["peer_netns"] == blue.facts["inode"]


@private
def test_a_pair_between_two_namespaces_that_are_not_the_host_s() -> None:
    for name in ("left", "right", "other"):
        sh("ip", "netns", "add", name)
    sh("ip", "link", "add", "l0", "netns", "left", "type", "veth", "peer", "name", "r0", "netns", "right")
    # The same numbers in a third one, whose other end is in the host's.
    sh("ip", "link", "add", "outer", "type", "veth", "peer", "name", "inner", "netns", "other")
    # A pair that is in one namespace has no number of another.
    sh("ip", "-n", "left", "link", "add", "a0", "type", "veth", "peer", "name", "a1")
    found = {link.facts["name"]: link.facts for link in look("link")["link"].values()}
    inode = {name: os.stat(f"/run/netns/{name}").st_ino for name in ("left", "right", "other")}
    assert (found["l0"]["peer"], found["l0"]["peer_netns"]) == ("r0", inode["right"])
    assert (found["r0"]["peer"], found["r0"]["peer_netns"]) == ("l0", inode["left"])
    assert found["r0"]["peer_address"] == found["l0"]["address"]
    assert (found["a0"]["peer"], found["a0"]["peer_netns"]) == ("a1", inode["left"])
    assert (found["inner"]["peer"], found["outer"]["peer_netns"]) == ("outer", inode["other"])


@private
def test_a_bridge_its_ports_and_a_bystander_s() -> None:
    process = container()
    sh("ip", "link", "add", "incusbr0", "type", "bridge")
    sh("ip", "link", "add", "br-lan", "type", "bridge")
    for number in range(30):
        veth(f"going{number}", process, f"eth{number}")
        sh("ip", "link", "set", f"going{number}", "master", "incusbr0")
    sh("ip", "link", "set", "going7", "master", "br-lan")
    sh("ip", "link", "add", "vethdeadbeef", "type", "veth", "peer", "name", "veth0badcafe")
    sh("ip", "link", "set", "vethdeadbeef", "master", "incusbr0")
    sh("ip", "link", "set", "veth0badcafe", "master", "br-lan")
    found = links()
    assert found["vethdeadbeef"].facts["master"] == "incusbr0" and found["incusbr0"].facts["type"] == "bridge"
    going = [obj for key, obj in found.items() if key == "incusbr0" or key.startswith("going")]
    assert act("link", going) == {}
    after = links()
    assert set(after) & {obj.key for obj in going} == set()
    assert {"br-lan", "vethdeadbeef", "veth0badcafe", "lo"} <= set(after)
    assert after["veth0badcafe"].facts["master"] == "br-lan"
    assert [key for key, obj in after.items() if not obj.facts["host"] and obj.facts["type"] == "veth"] == []


@private
def test_a_batch_is_one_deletion_and_not_one_for_each() -> None:
    # Each deletion waits for an RCU grace period: bench/ shows what that costs.
    from pyroute2 import IPRoute

    deletions = []
    link = IPRoute.link

    def counted(self: object, command: str, **facts: object) -> object:
        if command == "del":
            deletions.append(facts)
        return link(self, command, **facts)

    IPRoute.link = counted
    sh("ip", "-batch", "-", stdin="".join(
        f"link add a{number} type veth peer name b{number}\n" for number in range(60)
    ))  # fmt: skip
    assert act("link", [obj for key, obj in links().items() if key.startswith("a")]) == {}
    assert len(deletions) == 1 and names() == {"lo"}


@private
def test_a_link_that_vanished_is_no_failure_and_one_of_its_name_is_left_alone() -> None:
    sh("ip", "link", "add", "one", "type", "bridge")
    sh("ip", "link", "add", "two", "type", "bridge")
    old = links()
    sh("ip", "link", "delete", "one")
    sh("ip", "link", "delete", "two")
    sh("ip", "link", "add", "two", "type", "bridge")
    assert act("link", [old["one"], old["two"]]) == {}
    assert "two" in names()


@private
def test_an_index_with_another_name_now_is_left_alone() -> None:
    sh("ip", "link", "add", "one", "type", "bridge")
    old = links()["one"]
    sh("ip", "link", "set", "one", "name", "renamed")
    assert act("link", [old]) == {}
    assert "renamed" in names()


@private
def test_what_cannot_be_deleted_does_not_hinder_the_rest() -> None:
    sh("ip", "link", "add", "one", "type", "bridge")
    found = links()
    causes = act("link", [found["lo"], found["one"]])
    assert set(causes) == {"lo"}
    assert names() == {"lo"}
    assert links()["lo"].facts["group"] == 0


@private
def test_the_kinds_that_this_kernel_has() -> None:
    sh("ip", "link", "add", "br0", "type", "bridge")
    sh("ip", "link", "add", "br0-tun", "type", "vxlan", "id", "5", "dstport", "4789")
    sh("ip", "link", "set", "br0-tun", "master", "br0")
    sh("ip", "link", "add", "mac0", "link", "br0", "type", "macvlan")
    sh("ip", "tuntap", "add", "dev", "tap0", "mode", "tap")
    found = links()
    assert found["br0-tun"].facts["type"] == "vxlan" and found["br0-tun"].facts["master"] == "br0"
    assert found["mac0"].facts["type"] == "macvlan" and found["mac0"].facts["peer"] == "br0"
    assert found["tap0"].facts["type"] == "tun" and not found["tap0"].facts.get("holder")
    assert act("link", [found[key] for key in ("br0", "br0-tun", "mac0", "tap0")]) == {}
    assert names() == {"lo"}


@private
def test_who_holds_a_tap_open() -> None:
    program = (
        "import fcntl, struct, time\n"
        "fd = open('/dev/net/tun', 'r+b', buffering=0)\n"
        "fcntl.ioctl(fd, 0x400454ca, struct.pack('16sH14x', b'tap7', 0x1002))\n"
        "time.sleep(1000)\n"
    )
    process = subprocess.Popen(["/usr/bin/python3", "-c", program])
    until(lambda: "tap7" in sh("ip", "-o", "link"))
    assert links()["tap7"].facts["holder"] == process.pid


def holder(name: str, before: str = "", after: str = "", flags: int = 0x1002, of: str = "/dev/net/tun") -> int:
    """The pid of a process that has a tap of this name open, made in whatever namespace it is `before`."""
    program = (
        "import ctypes, fcntl, os, struct, sys, time\n"
        "libc = ctypes.CDLL(None)\n"
        f"{before}\n"
        f"fd = open('{of}', 'r+b', buffering=0)\n"
        f"fcntl.ioctl(fd, 0x400454CA, struct.pack('16sH14x', b'{name}', {flags}))\n"
        f"{after}\n"
        "print(flush=True)\n"
        "time.sleep(1000)\n"
    )
    process = subprocess.Popen(["/usr/bin/python3", "-c", program], stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.read(1) == b"\n"
    return process.pid


AWAY = "home = os.open('/proc/self/ns/net', os.O_RDONLY)\nassert libc.unshare(0x40000000) == 0"
BACK = "assert libc.setns(home, 0x40000000) == 0"


@private
def test_a_tap_of_that_name_in_another_namespace_is_another() -> None:
    """Each time with one beside it whose pid is higher, and as a string, too."""
    guest = holder("vnet0")
    for _ in range(3):
        holder("vnet0", AWAY)
        holder("vnet0", AWAY, BACK)  # it lives here, its tap does not
        holder("vnet1", AWAY)
    sh("ip", "tuntap", "add", "vnet1", "mode", "tap")
    found = links()
    assert found["vnet0"].facts["holders"] == [guest] and found["vnet0"].facts["holder"] == guest
    assert found["vnet1"].facts["holders"] == [] and found["vnet1"].facts["holder"] == 0


@private
def test_a_tap_whose_holder_lives_elsewhere_and_opened_another_node() -> None:
    os.mknod("/run/tap", 0o20600, os.makedev(10, 200))
    guest = holder("vnet0", after="assert libc.unshare(0x40000000) == 0", of="/run/tap")
    assert links()["vnet0"].facts["holders"] == [guest]


@private
def test_all_that_hold_a_tap_are_told() -> None:
    both = [holder("vnet0", flags=0x1102), holder("vnet0", flags=0x1102)]
    facts = links()["vnet0"].facts
    assert facts["holders"] == sorted(both) and facts["holder"] == min(both)


@private
def test_without_a_copy_of_the_file_who_lives_here_holds_the_tap() -> None:
    def refused(*_: int) -> int:
        raise OSError(38, "no such system call")

    syscalls.pidfd_getfd = refused
    guest = holder("vnet0", flags=0x1102)
    holder("vnet0", AWAY)
    # In a container with the host's network, whose word for it is not enough.
    holder("vnet0", "assert libc.unshare(0x20000000) == 0\nif os.fork(): os.wait()", flags=0x1102)
    assert links()["vnet0"].facts["holders"] == [guest]


@private
def test_a_tunnel_s_lower_link_is_its_peer() -> None:
    sh("ip", "link", "add", "br0", "type", "bridge")
    sh("ip", "link", "add", "vx0", "type", "vxlan", "id", "5", "dstport", "4789", "dev", "br0")
    facts = links()["vx0"].facts
    assert (facts["peer"], facts["peer_netns"]) == ("br0", facts["netns"])


@private
def test_who_holds_a_macvtap_open() -> None:
    """By the number of its device: other network namespaces have macvtaps of the same index, and so of that name."""
    sh("ip", "link", "add", "br0", "type", "bridge")
    sh("mkdir", "/run/dev")
    nodes = {}
    for name in ("mac1", "mac2"):
        sh("ip", "link", "add", name, "link", "br0", "type", "macvtap", "mode", "bridge")
        sh("ip", "link", "set", name, "up")
        index = links()[name].facts["index"]
        with open(f"/sys/class/net/{name}/tap{index}/dev") as file:
            major, minor = (int(number) for number in file.read().split(":"))
        nodes[name] = f"tap{index}", os.makedev(major, minor)
    # What each has in its /dev: mac1's device has the name of mac2's.
    for name, path in (("mac1", nodes["mac2"][0]), ("mac2", "tap99")):
        os.mknod(f"/run/dev/{path}", 0o20600, nodes[name][1])
    sh("mount", "--bind", "/run/dev", "/dev")
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", f"fd = open('/dev/{nodes['mac2'][0]}', 'rb'); import time; time.sleep(1000)"]
    )
    until(lambda: links()["mac1"].facts.get("holder"))
    found = links()
    assert found["mac1"].facts["holder"] == process.pid
    assert not found["mac2"].facts.get("holder")


@private
def test_a_lent_link_comes_home_with_its_name_mtu_and_address() -> None:
    process = container()
    sh(
        "ip",
        "link",
        "add",
        "phys0",
        "address",
        "02:00:00:00:00:01",
        "mtu",
        "1400",
        "type",
        "veth",
        "peer",
        "name",
        "other0",
    )
    sh("ip", "link", "set", "phys0", "netns", str(process.pid))
    sh("nsenter", "-t", str(process.pid), "-n", "ip", "link", "set", "phys0", "name", "eth0", "mtu", "1300", "up")
    netns = os.stat(f"/proc/{process.pid}/ns/net").st_ino
    lent = links()[f"{netns}/eth0"]
    home = {"home_name": "phys0", "home_mtu": 1400, "home_address": "02:00:00:00:00:01"}
    assert act("link", [replace(lent, facts={**lent.facts, **home})], Verb.RETURN) == {}
    process.kill()
    process.wait()
    facts = links()["phys0"].facts
    assert (facts["mtu"], facts["address"], facts["peer"]) == (1400, "02:00:00:00:00:01", "other0")


@private
def test_a_lent_link_whose_name_is_taken_comes_home_under_another() -> None:
    process = container()
    sh("ip", "link", "add", "phys0", "type", "veth", "peer", "name", "other0")
    sh("ip", "link", "set", "phys0", "netns", str(process.pid))
    sh("ip", "link", "add", "phys0", "type", "bridge")
    netns = os.stat(f"/proc/{process.pid}/ns/net").st_ino
    lent = links()[f"{netns}/phys0"]
    assert (lent.facts["peer"], lent.facts["peer_netns"]) == ("other0", os.stat("/proc/self/ns/net").st_ino)
    assert act("link", [replace(lent, facts={**lent.facts, "home_name": "phys0"})], Verb.RETURN) == {}
    found = links()
    assert found["phys0"].facts["type"] == "bridge"
    assert found["other0"].facts["peer"] == f"back{lent.facts['index']}"


@private
def test_a_lent_link_comes_home_from_a_namespace_in_which_nobody_is_any_more() -> None:
    """Its container died, and only a pin holds it; with the pin the kernel would destroy the link."""
    sh("ip", "netns", "add", "dead")
    sh("ip", "link", "add", "phys0", "mtu", "1400", "type", "veth", "peer", "name", "other0")
    sh("ip", "link", "set", "phys0", "netns", "dead")
    sh("ip", "-n", "dead", "link", "set", "phys0", "name", "eth0")
    netns = os.stat("/run/netns/dead").st_ino
    lent = links()[f"{netns}/eth0"]
    assert act("link", [replace(lent, facts={**lent.facts, "home_name": "phys0"})], Verb.RETURN) == {}
    sh("ip", "netns", "delete", "dead")
    assert links()["phys0"].facts["mtu"] == 1400


@private
def test_links_that_come_and_go_while_they_are_listed() -> None:
    churn = subprocess.Popen(
        ["sh", "-c", "while :; do ip link add c0 type veth peer name c1; ip link del c0; sleep 0.1; done"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    sh("ip", "-batch", "-", stdin="".join(f"link add a{number} type bridge\n" for number in range(100)))
    for _ in range(25):
        assert len([name for name in links() if name.startswith("a")]) == 100
    churn.kill()
    churn.wait()


@private
def test_without_the_return_a_virtual_link_dies_with_the_namespace() -> None:
    # The control for the two above: this is what happens to the administrator's link otherwise.
    process = container()
    sh("ip", "link", "add", "phys0", "type", "veth", "peer", "name", "other0")
    sh("ip", "link", "set", "phys0", "netns", str(process.pid))
    process.kill()
    process.wait()
    until(lambda: "other0" not in names())


@private
def test_undoing_a_pin_ends_a_namespace_and_leaves_the_other() -> None:
    sh("ip", "netns", "add", "blue")
    sh("ip", "netns", "add", "green")
    found = look("netns")["netns"]
    blue = next(obj for obj in found.values() if obj.facts["pins"] == ["/run/netns/blue"])
    assert act("netns", [blue]) == {}
    assert sh("ip", "netns", "list").split()[0] == "green"
    assert not os.path.exists("/run/netns/blue")
    home = next(obj for obj in found.values() if obj.facts["host"])
    assert act("netns", [home]) == {home.key: "is the host's own"}
