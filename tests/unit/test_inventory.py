"""What a shell is told, and what it is not: only what it can be sure of, and no name that could be more than a name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from leftovers.inventory import Here, render
from leftovers.model import Action, Identity, Object, Plan, Verb
from leftovers.mountinfo import Mount

BOOT = "11111111-2222-3333-4444-555555555555"
MOUNTS = (
    Mount(20, 1, "8:1", "/", "/", "rw", 1, 0, "ext4", "/dev/sda1"),
    Mount(21, 20, "0:20", "/", "/run", "rw", 2, 0, "tmpfs", "tmpfs"),
    Mount(22, 21, "0:21", "/", "/run/user", "rw", 3, 0, "tmpfs", "tmpfs"),
)
HERE = Here(BOOT, 100, 200, 300, MOUNTS)


def action(obj: Object, verb: Verb = Verb.REMOVE, rank: int = 0, product: str = "incus") -> Action:
    return Action(verb, obj, product, "because", (), rank)


def lines(*actions: Action, around: Here = HERE) -> list[list[str]]:
    """The lines between the head and the end, in fields; the end must count them."""
    text, left_out = render(Plan(("incus",), actions), around)
    assert text.endswith("\n")
    first, second, *rest, end = text.removesuffix("\n").split("\n")
    assert first.startswith(f"leftovers-inventory 1 {BOOT} ") and second == "namespaces\t100\t200\t300"
    assert end == f"end\t{len(rest)}\t{len(left_out)}"
    assert len([a for a in actions if a.verb is not Verb.KEEP]) == len(left_out) + len(
        [line for line in rest if not line.startswith("lent\t")]
    )
    return [line.split("\t") for line in rest]


def left_out(*actions: Action) -> list[str]:
    return render(Plan(("incus",), actions), HERE)[1]


def process(pid: int = 7, **facts: Any) -> Object:
    return Object("process", str(pid), (pid, 99), {"pid": pid, "self": False, **facts})


def link(name: str, **facts: Any) -> Object:
    facts = {"host": True, "group": 0, "pid": 0, "index": 5, "netns": 300, "name": name, **facts}
    return Object("link", name, (facts["netns"], facts["index"], name), facts)


def mount(point: str, root: str = "/", ns: int = 200, pid: int = 0) -> Object:
    return Object("mount", point, (ns, 55, "0:99", root, point), {"pid": pid})


def file(path: str, kind: str = "directory", **facts: Any) -> Object:
    return Object("file", path, (path, kind, 4711), {"path": path, "mounted": False, **facts})


def cgroup(path: str, **facts: Any) -> Object:
    directory = f"/sys/fs/cgroup{path}"
    return Object("cgroup", path, (path, 42), {"path": path, "directory": directory, "hierarchy": "", **facts})


def nft(name: str, handle: int = 3) -> Object:
    return Object("nft", f"inet {name}", ("inet", name, handle))


def unit(name: str = "incus.service", invocation: str = "0123456789abcdef" * 2) -> Object:
    return Object("unit", name, (name, invocation))


def loop(*identity: str | int) -> Object:
    return Object("loop", "loop5", identity, {"majmin": "7:5"})


def netns(inode: int = 400, **facts: Any) -> Object:
    return Object("netns", str(inode), (inode,), {"inode": inode, "host": False, "pins": [], **facts})


def test_a_line_of_each_kind_holds_the_whole_identity() -> None:
    back = link(
        "eth1", host=False, netns=400, pid=8, home_name="enp3s0", home_mtu=9000, home_address="02:00:00:00:00:01"
    )
    assert lines(
        action(back, Verb.RETURN),
        action(unit()),
        action(process()),
        action(nft("incus")),
        action(link("incusbr0", group=4)),
        action(netns(pins=["/run/netns/x"])),
        action(mount("/var/lib/incus/shmounts", "/a b")),
        action(loop("loop5", 17)),
        action(cgroup("/lxc.payload.c1")),
        action(file("/run/incus")),
    ) == [
        ["return", "400", "5", "8", "enp3s0", "9000", "02:00:00:00:00:01", "eth1"],
        ["unit", "0123456789abcdef" * 2, "incus.service"],
        ["process", "7", "99"],
        ["nft", "3", "inet", "incus"],
        ["link", "300", "5", "4", "incusbr0"],
        ["netns", "400", "/run/netns/x"],
        ["mount", "200", "55", "0:99", "0", "/a b", "/var/lib/incus/shmounts"],
        ["loop", "17", "7:5", "loop5"],
        ["cgroup", "42", "kill", "-", "/sys/fs/cgroup/lxc.payload.c1", "/lxc.payload.c1"],
        ["file", "directory", "tree", "4711", "21", "0:20", "/run/incus"],
    ]


def test_nothing_to_do_is_an_inventory_too() -> None:
    assert lines() == []
    assert lines(action(process(), Verb.KEEP)) == []


def test_the_products_are_those_that_something_is_done_for() -> None:
    text, _ = render(Plan(("incus", "lxcfs"), (action(process(), product="lxcfs"),)), HERE)
    assert text.split("\n")[0].endswith(f" {BOOT} lxcfs")
    assert render(Plan(("incus", "lxcfs"), ()), HERE)[0].split("\n")[0].endswith(f" {BOOT} incus lxcfs")


@pytest.mark.parametrize("bad", ["\t", "\n", "\\", "\r", "\x1b[2J", "\x7f", "\u2028", "\u202e", "\udcff", "\u00a0"])
def test_a_name_that_may_be_more_than_a_name_is_left_out(bad: str) -> None:
    for obj in (
        link(f"v{bad}"),
        mount(f"/var/lib/incus/{bad}"),
        mount("/var/lib/incus/x", root=f"/{bad}"),
        file(f"/run/incus{bad}"),
        cgroup(f"/lxc.payload.{bad}"),
        nft(f"in{bad}"),
        unit(f"incus{bad}.service"),
        netns(pins=[f"/run/netns/{bad}"]),
    ):
        assert lines(action(obj)) == [], obj
        assert left_out(action(obj)) == [obj.id]


@pytest.mark.parametrize(
    "name", [" ", "a b", "*", "?", "[a]", "-rf", "--", "$(id)", "`id`", "'", '"', "#", "ü", ";", "&"]
)
def test_a_name_that_is_only_odd_is_in(name: str) -> None:
    for obj in (link(name), mount(f"/srv/{name}"), file(f"/srv/{name}"), cgroup(f"/{name}")):
        (line,) = lines(action(obj))
        assert line[-1].endswith(name)


@pytest.mark.parametrize("name", ["a;flush ruleset", "a b", "1a", "-x", "a{", "$x", '"a"', "a#"])
def test_a_table_s_name_that_nft_would_read_is_left_out(name: str) -> None:
    assert left_out(action(nft(name)))


def test_what_has_no_certain_identity_is_left_out() -> None:
    for obj in (
        unit(invocation=""),
        nft("incus", handle=0),
        loop("loop5", "/var/lib/incus/disks/default.img", 0),
        Object("pool", "zfs tank", ("zfs", "tank", "1")),
        Object("xtables", "x", ("x",)),
        Object("apparmor", "profile incus-x", ("profile", "incus-x", "")),
        Object("account", "group incus", ("group", "incus")),
        netns(pins=["/run/netns/a", "/run/netns/b"]),
        netns(host=True),
        link("eth0", host=False, netns=400),
        link("eth0", netns=301),
        link("a@b"),
        mount("/var/lib/incus/x//deleted"),
        cgroup("/"),
        process(self=True),
        process(1),
    ):
        assert left_out(action(obj)) == [obj.id], obj


def test_of_files_only_what_is_plainly_the_product_s() -> None:
    for obj in (
        file("/srv/pool/containers", strict=True),
        file("/var/lib/incus", mounted=True, contents=True),
        file("/var/lib/incus", mounted=True),
        file("/var/lib/incus", kind="remote"),
        file("/var/lib/incus", kind="other"),
        file("/var"),
        file("/var/lib/../etc"),
        file("/var//lib"),
        file("/var/lib/"),
    ):
        assert left_out(action(obj)) == [obj.id], obj
    assert lines(action(file("/run/lxc", only_hollow=True)))[0][:3] == ["file", "directory", "hollow"]
    assert lines(action(file("/run/x/sock", kind="socket")))[0][:3] == ["file", "socket", "one"]
    assert left_out(action(file("/run/incus"))) == []
    no_mounts = replace(HERE, mounts=())
    assert render(Plan(("incus",), (action(file("/run/incus")),)), no_mounts)[1] == ["file:/run/incus"]


def test_the_mount_that_a_path_lies_on_is_part_of_what_it_is() -> None:
    for path, number, majmin in (
        ("/var/lib/incus", "20", "8:1"),
        ("/run/incus", "21", "0:20"),
        ("/run/user/x", "22", "0:21"),
    ):
        assert lines(action(file(path)))[0][4:6] == [number, majmin]


def test_a_cgroup_in_which_nobody_may_be_killed() -> None:
    assert lines(action(cgroup("/lxc.pivot", only_empty=True)))[0][2] == "empty"
    assert lines(action(cgroup("/x", hierarchy="memory")))[0][2:4] == ["empty", "memory"]


def test_inner_directories_and_cgroups_come_first_and_the_plan_s_order_is_kept() -> None:
    found = lines(
        action(process(9)),
        action(process(8), rank=1),
        action(cgroup("/a")),
        action(cgroup("/a/b")),
        action(file("/run/lxc", only_hollow=True)),
        action(file("/run/lxc/lock/var/lib/incus")),
    )
    assert [line[-1] if line[0] != "process" else line[1] for line in found] == [
        *("9", "8", "/a/b", "/a", "/run/lxc/lock/var/lib/incus", "/run/lxc"),
    ]


def test_a_lent_link_that_cannot_go_home_by_this_is_still_told() -> None:
    # Whoever kills the last process of its namespace destroys it.
    for name, facts in (("eth\n1", {"pid": 8}), ("eth1", {"pid": 0}), ("eth1", {"pid": 8, "home_name": "a\tb"})):
        obj = link(name, host=False, netns=400, **facts)
        assert lines(action(obj, Verb.RETURN), action(process())) == [["lent", "400"], ["process", "7", "99"]]
        assert left_out(action(obj, Verb.RETURN)) == [obj.id]
    unnamed = link("eth1", host=False, netns=400, pid=8)
    assert lines(action(unnamed, Verb.RETURN))[0] == ["return", "400", "5", "8", "back5", "-", "-", "eth1"]


def test_an_identity_is_never_written_in_pieces() -> None:
    identity: Identity = ("x", "")
    assert left_out(action(Object("unit", "x", identity))) == ["unit:x"]
    assert left_out(action(replace(mount("/x"), identity=(200, 1, "0:1", "", "/x")))) == ["mount:/x"]
