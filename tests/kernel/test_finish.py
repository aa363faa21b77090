"""hooks/finish on real objects, with no Python in its reach: what was written down goes, and nothing that only has
its place."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import incus_like
import pytest
from sandbox import private, sh
from test_clean import assert_same, settled
from test_loops import Attach, attach, backing  # noqa: F401 - attach is a fixture
from test_loops import survey as loops
from things import look, sleeper, until

from leftovers.host import Host
from leftovers.inventory import render
from leftovers.kinds import KINDS
from leftovers.model import Action, Object, Plan, Scope, Verb
from leftovers.plan import plan
from leftovers.products import with_companions
from leftovers.survey import survey

FINISH = str(Path(__file__).parents[2] / "hooks" / "finish")
INVENTORY = "/run/inventory"
ORDER = [kind.name for kind in KINDS]


@contextlib.contextmanager
def no_python() -> Iterator[None]:
    """No Python can be started as long as this lasts. Those that run go on."""
    python = os.path.realpath("/usr/bin/python3")
    sh("mount", "--bind", "/dev/null", python)
    try:
        assert subprocess.run(["/bin/sh", "-c", "/usr/bin/python3 -c 1"], capture_output=True, check=False).returncode
        yield
    finally:
        sh("umount", python)


def finish(text: str, *argv: str) -> tuple[int, int]:
    """Run it on an inventory, under an environment that helps nobody; what it says is one line, and this is how many
    objects that says are gone, and how many not."""
    incus_like.write(INVENTORY, text)
    said = run(INVENTORY, *argv)
    match = re.fullmatch(
        r"leftovers: incus: (\d+) gone without python3( \((\d+) could .+ leftovers clean incus\))?\n", said
    )
    assert match, said
    return int(match[1]), int(match[3] or 0)


def run(*argv: str) -> str:
    environment = {"PATH": "/nonexistent", "LC_ALL": "tr_TR.UTF-8", "CDPATH": "/srv", "POSIXLY_CORRECT": "1"}
    done = subprocess.run(
        [FINISH, *argv], capture_output=True, text=True, check=False, env=environment, cwd="/run", timeout=120
    )
    assert done.returncode == 0 and done.stderr == "" and done.stdout.count("\n") == 1, done
    return done.stdout


def inventory(*objects: Object, verb: Verb = Verb.REMOVE, before: Sequence[Action] = ()) -> str:
    """The inventory of a plan that removes these objects. Nothing may be left out of it."""
    actions = [Action(verb, obj, "incus", "a test", ()) for obj in objects]
    actions.sort(key=lambda action: (ORDER.index(action.object.kind), action.object.key))
    text, left_out = render(Plan(("incus",), (*before, *actions)))
    assert left_out == []
    return text


def planned() -> Plan:
    """What the engine would do now."""
    products = with_companions(["incus"])
    seen = survey(Host(), products, {})
    assert seen.faults == ()
    return plan(seen, [product.name for product in products])


def files(*paths: str) -> list[Object]:
    return list(look("file", scope=Scope(directories=paths))["file"].values())


def points() -> set[str]:
    return {obj.facts["point"] for obj in look("mount")["mount"].values() if obj.facts["host"]}


def mounts(directory: str) -> list[Object]:
    return [obj for obj in look("mount")["mount"].values() if obj.facts["point"].startswith(f"{directory}/")]


def tmpfs(point: str) -> None:
    os.makedirs(point, exist_ok=True)
    sh("mount", "-t", "tmpfs", "tmpfs", point)


def links() -> set[str]:
    return set(look("link")["link"])


# -- the whole of it


@private
def test_all_of_incus_goes_and_all_of_the_administrator_s_stays() -> None:
    incus_like.prepare()
    bystanders = incus_like.admin()
    before = settled()
    incus_like.incus(3)
    service = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sleep", "1000"])
    until(lambda: os.readlink(f"/proc/{service.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"))
    until(lambda: os.readlink(f"/proc/{service.pid}/exe").endswith("/sleep"))
    text, left_out = render(planned())
    assert left_out == [] and text.count("\n") > 40
    assert f"\t{service.pid}\t" in text, "its copies of the mounts are to go too"
    with no_python():
        gone, stays = finish(text)
    assert (gone, stays) == (text.count("\n") - 3, 0)
    assert planned().doing() == ()
    assert service.poll() is None and all(process.poll() is None for process in bystanders.values())
    with open(f"/proc/{service.pid}/mountinfo") as file:
        assert "/var/lib/incus" not in file.read()
    service.kill()
    service.wait()
    os.unlink(INVENTORY)
    assert_same(settled(), before)
    assert finish(text) == (0, 0), "a second time does nothing"


@private
def test_a_link_that_a_container_was_given_comes_home_first() -> None:
    incus_like.prepare()
    incus_like.admin()
    sh("ip", "link", "add", "phys0", "type", "veth", "peer", "name", "switch0")
    before = settled()
    incus_like.incus(1)
    lend()
    text, left_out = render(planned())
    assert left_out == [] and "\nreturn\t" in text
    assert finish(text)[1] == 0
    os.unlink(INVENTORY)
    assert_same(settled(), before)


def lend() -> str:
    pid = sh("pgrep", "-fx", "init 1000").split()[0]
    sh("ip", "link", "set", "phys0", "netns", pid)
    sh("nsenter", "-t", pid, "-n", "ip", "link", "set", "phys0", "name", "eth1")
    with open("/run/incus/c1/lxc.conf", "a") as file:
        file.write("lxc.net.1.type = phys\nlxc.net.1.name = eth1\nlxc.net.1.link = phys0\n")
    return pid


@pytest.mark.parametrize("why", ["left out", "no ip"])
@private
def test_a_link_that_cannot_come_home_keeps_its_container_alive(why: str) -> None:
    # It is the administrator's, virtual, and would be destroyed with the namespace.
    incus_like.prepare()
    incus_like.admin()
    sh("ip", "link", "add", "phys0", "type", "veth", "peer", "name", "switch0")
    incus_like.incus(1)
    pid = lend()
    text, _ = render(planned())
    if why == "left out":
        text, count = re.subn(r"\nreturn\t(\d+)\t.*\n", r"\nlent\t\1\n", text)
        assert count == 1
    else:
        sh("mount", "--bind", "/dev/null", os.path.realpath("/usr/sbin/ip"))
    gone, stays = finish(text)
    assert gone and stays
    assert (
        os.path.exists(f"/proc/{pid}/exe")
        and os.path.isdir("/var/lib/incus")
        and "switch0" in os.listdir("/sys/class/net")
    )
    assert "eth1" in sh("nsenter", "-t", pid, "-n", "cat", "/proc/net/dev")


# -- what it refuses as a whole


@private
def test_an_inventory_that_is_not_of_here_and_now_does_nothing() -> None:
    process = sleeper()
    text = inventory(look("process")["process"][str(process.pid)])
    head, *rest = text.split("\n")
    namespaces, *lines = rest
    other_boot = head.replace(Host().boot_id(), "11111111-2222-3333-4444-555555555555")
    pid, mnt, net = namespaces.split("\t")[1:]
    for bad in (
        [other_boot, *rest],
        [head.replace("inventory 1", "inventory 2"), *rest],
        [head, f"namespaces\t{int(pid) + 1}\t{mnt}\t{net}", *lines],
        [head, namespaces, *lines[:-2], ""],
        [head, namespaces, *lines[:-1], "en"],
        [head, namespaces, "process\t1\t1", *lines],
        [head],
        ["x"],
        [""],
        ["", "", ""],
        ["\0\0\n\xff"],
    ):
        incus_like.write(INVENTORY, "\n".join(bad))
        said = run(INVENTORY)
        assert "nothing was done without python3" in said and process.poll() is None, bad
    incus_like.write(INVENTORY, text)
    os.chown(INVENTORY, 65534, -1)
    assert "nothing was done" in run(INVENTORY)
    assert "nothing was done" in run("/run/not-there") and "nothing was done" in run() and "nothing" in run("-x")
    assert process.poll() is None
    os.chown(INVENTORY, 0, -1)
    assert run("inventory").startswith("leftovers: incus: 1 gone"), "its path may be relative"
    assert process.wait(5) == -9


@private
def test_seen_in_other_namespaces_nothing_of_those_is_touched() -> None:
    tmpfs("/srv/incus/a")
    os.makedirs("/run/incus")
    sh("ip", "link", "add", "br0", "type", "bridge")
    text = inventory(*mounts("/srv/incus"), look("link")["link"]["br0"], *files("/run/incus"))
    incus_like.write("/run/other", text)
    said = sh("unshare", "--net", "--mount", "--propagation", "private", FINISH, "/run/other")
    # The mount is undone where it was seen, all else would be done here.
    assert "1 gone" in said and "(2 could not" in said
    assert "br0" in links() and os.path.isdir("/run/incus") and "/srv/incus/a" not in points()


@private
def test_what_was_left_out_is_counted_as_left() -> None:
    process = sleeper()
    obj = look("process")["process"][str(process.pid)]
    profile = Object("apparmor", "profile incus-x", ("profile", "incus-x", ""))
    text, left_out = render(Plan(("incus",), tuple(Action(Verb.REMOVE, o, "incus", "", ()) for o in (obj, profile))))
    assert left_out == ["apparmor:profile incus-x"]
    assert finish(text) == (1, 1)
    assert finish(text) == (0, 1)


# -- another object in its place


@private
def test_a_pid_that_another_process_has_now_is_left_alone() -> None:
    kept, going = sleeper(), sleeper()
    found = look("process")["process"]
    text = inventory(found[str(kept.pid)], found[str(going.pid)])
    start = found[str(kept.pid)].facts["start"]
    text = text.replace(f"process\t{kept.pid}\t{start}\n", f"process\t{kept.pid}\t{start - 1}\n")
    assert finish(text) == (1, 1)
    assert kept.poll() is None and going.wait(5) == -9


@private
def test_a_process_whose_name_looks_like_the_end_of_its_name() -> None:
    program = "import ctypes, time\nctypes.CDLL(None).prctl(15, b') S 1 (\\n) 9', 0, 0, 0)\ntime.sleep(1000)"
    process = incus_like.spawn(incus_like.copy("/run/x"), ["x"], program)
    until(lambda: b") 9" in Path(f"/proc/{process.pid}/comm").read_bytes())
    assert finish(inventory(look("process")["process"][str(process.pid)])) == (1, 0)
    assert process.wait(5) == -9


@private
def test_nobody_kills_himself_or_who_waits_for_him() -> None:
    script = f"echo $$; read line; {FINISH} {INVENTORY}; echo survived"
    shell = subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert shell.stdin and shell.stdout
    pid = shell.stdout.readline().strip()
    incus_like.write(INVENTORY, inventory(look("process")["process"][pid]))
    said, _ = shell.communicate("go\n")
    assert "0 gone" in said and "survived" in said


@private
def test_a_link_made_anew_under_the_same_name_stays() -> None:
    for name in ("br0", "br1"):
        sh("ip", "link", "add", name, "type", "bridge")
    found = look("link")["link"]
    text = inventory(found["br0"], found["br1"])
    sh("ip", "link", "del", "br0")
    sh("ip", "link", "add", "br0", "type", "bridge")
    assert finish(text) == (1, 1)
    assert {"br0", "lo"} <= links() and "br1" not in links()
    assert look("link")["link"]["br0"].facts["group"] == 0, "nor was its group touched"


@private
def test_links_that_cannot_be_deleted_do_not_hinder_others_and_keep_their_group() -> None:
    sh("ip", "link", "add", "br1", "type", "bridge")
    sh("ip", "link", "set", "dev", "lo", "group", "7")
    found = look("link")["link"]
    assert finish(inventory(found["lo"], found["br1"])) == (1, 1)
    assert look("link")["link"]["lo"].facts["group"] == 7


@private
def test_links_with_odd_names() -> None:
    names = ["-x", "a*", "a#b", "a'b", 'a"b', "dev", "a;b", "a$b", "grö"]
    for name in names:
        sh("ip", "link", "add", "dev", name, "type", "bridge")
    sh("ip", "link", "add", "ab", "type", "bridge")
    found = look("link")["link"]
    assert finish(inventory(*(found[name] for name in names))) == (len(names), 0)
    assert links() == {"lo", "ab"}


@private
def test_a_table_made_anew_under_the_same_name_stays() -> None:
    for name in ("incus", "other"):
        sh("nft", "add", "table", "inet", name)
    found = look("nft")["nft"]
    text = inventory(found["inet incus"], found["inet other"])
    sh("nft", "delete", "table", "inet", "incus")
    sh("nft", "add", "table", "inet", "incus")
    sh("nft", "add", "table", "ip", "other")
    assert finish(text) == (1, 1)
    assert sh("nft", "list", "tables").split("\n")[:-1] == ["table inet incus", "table ip other"]


@private
def test_a_pinned_network_namespace_goes_and_another_one_at_the_same_pin_stays() -> None:
    for name in ("x", "y", "z"):
        sh("ip", "netns", "add", name)
    found = {obj.facts["pins"][0]: obj for obj in look("netns")["netns"].values() if obj.facts["pins"]}
    text = inventory(found["/run/netns/x"], found["/run/netns/y"])
    # Both are alive at other places then, so that no number of theirs is given again.
    for name in ("y", "z"):
        sh("mount", "--bind", f"/run/netns/{name}", incus_like_file(f"/srv/{name}"))
    sh("umount", "/run/netns/y")
    sh("mount", "--bind", "/srv/z", "/run/netns/y")
    assert finish(text) == (1, 1)
    assert sorted(os.listdir("/run/netns")) == ["y", "z"] and "/run/netns/y" in points()


def incus_like_file(path: str) -> str:
    incus_like.write(path, "")
    return path


@private
def test_a_mount_in_the_same_place_stays() -> None:
    for name in ("a", "b", "c d", "*", "-rf", "#x"):
        tmpfs(f"/srv/incus/{name}")
    found = mounts("/srv/incus")
    sh("umount", "/srv/incus/a")
    tmpfs("/srv/admin")  # takes a number, so that the new one has another
    tmpfs("/srv/incus/a")
    incus_like.write("/srv/incus/a/precious")
    assert finish(inventory(*found)) == (5, 1)
    assert {point for point in points() if point.startswith("/srv/")} == {"/srv/admin", "/srv/incus/a"}
    assert os.path.exists("/srv/incus/a/precious")


@private
def test_a_mount_over_it_or_below_it_that_stays_keeps_it() -> None:
    tmpfs("/srv/incus/a")
    tmpfs("/srv/incus/b")
    found = mounts("/srv/incus")
    tmpfs("/srv/incus/a")
    incus_like.write("/srv/incus/a/precious")
    tmpfs("/srv/incus/b/kept")
    assert finish(inventory(*found)) == (0, 2)
    assert "/srv/incus/b/kept" in points() and os.path.exists("/srv/incus/a/precious")
    assert len(mounts("/srv/incus")) == 4


@private
def test_a_mount_that_is_hidden_behind_another_directory_is_not_mistaken() -> None:
    tmpfs("/srv/incus/a/b")
    found = mounts("/srv/incus")
    # Now the same path leads to a mount of somebody else's.
    tmpfs("/srv/incus/a")
    tmpfs("/srv/incus/a/b")
    assert finish(inventory(*found)) == (0, 1)
    assert len(mounts("/srv/incus")) == 3


@private
def test_the_submounts_of_an_administrator_s_shared_tree_survive_its_bind() -> None:
    tmpfs("/srv/admin")
    sh("mount", "--make-shared", "/srv/admin")
    tmpfs("/srv/admin/sub")
    tmpfs("/srv/admin/sub/subsub")
    os.makedirs("/srv/incus/disk")
    sh("mount", "--rbind", "/srv/admin", "/srv/incus/disk")
    assert finish(inventory(*mounts("/srv/incus"))) == (3, 0)
    assert {"/srv/admin", "/srv/admin/sub", "/srv/admin/sub/subsub"} <= points() and mounts("/srv/incus") == []


@private
def test_a_mount_that_somebody_uses_stays() -> None:
    tmpfs("/srv/incus/a")
    tmpfs("/srv/incus/b")
    user = subprocess.Popen(["sleep", "1000"], cwd="/srv/incus/a")
    assert finish(inventory(*mounts("/srv/incus"))) == (1, 1)
    assert user.poll() is None and [obj.facts["point"] for obj in mounts("/srv/incus")] == ["/srv/incus/a"]


@private
def test_a_cgroup_with_its_processes_goes_and_one_made_anew_stays() -> None:
    root = "/sys/fs/cgroup"
    for path in ("/lxc.payload.c1/a b/x", "/lxc.payload.c2", "/lxc.payload.c10", "/lxc.pivot", "/full"):
        os.makedirs(root + path)
    going = [sleeper(cgroup="/lxc.payload.c1/a b/x") for _ in range(3)]
    sleeper("sh", "-c", "while :; do sleep 0.01 & done", exe="/bin/sh", cgroup="/lxc.payload.c1")
    found = look("cgroup")["cgroup"]
    # Into these somebody else comes meanwhile: a new group of that name, and one that only goes when it is empty.
    os.rmdir(f"{root}/lxc.payload.c2")
    os.mkdir(f"{root}/lxc.payload.c2")
    kept = [sleeper(cgroup=path) for path in ("/lxc.payload.c2", "/lxc.payload.c10", "/full")]
    wanted = [found[path] for path in ("/lxc.payload.c1", "/lxc.payload.c2", "/lxc.pivot")]
    full = Object("cgroup", "/full", found["/full"].identity, {**found["/full"].facts, "only_empty": True})
    assert finish(inventory(*wanted, full)) == (2, 2)
    assert {process.wait(5) for process in going} == {-9} and all(process.poll() is None for process in kept)
    assert sorted(look("cgroup")["cgroup"]) == ["/full", "/lxc.payload.c10", "/lxc.payload.c2"]


@private
def test_the_group_that_it_runs_in_itself_stays() -> None:
    os.makedirs("/sys/fs/cgroup/above/ours")
    found = look("cgroup")["cgroup"]
    incus_like.write(INVENTORY, inventory(found["/above"], found["/above/ours"]))
    enter = f"echo 0 >/sys/fs/cgroup/above/ours/cgroup.procs; {FINISH} {INVENTORY}; echo survived"
    assert "0 gone without python3 (2 " in sh("sh", "-c", enter) and os.path.isdir("/sys/fs/cgroup/above/ours")


# -- files


@private
def test_trees_sockets_symlinks_and_files_go_by_what_they_are() -> None:
    for path in ("/run/incus/a/b c/*/-x", "/run/incus-user/x", "/run/-rf x*/y"):
        incus_like.write(path)
    os.symlink("/srv/admin", "/run/incus/link")
    incus_like.write("/srv/admin/precious")
    os.symlink("/srv/admin", "/run/incus-link")
    incus_like.write("/run/incus-file")
    os.mkfifo("/run/incus-fifo")
    paths = ("/run/incus", "/run/-rf x*", "/run/incus-link", "/run/incus-file", "/run/incus-fifo")
    assert finish(inventory(*files(*paths))) == (5, 0)
    left = set(os.listdir("/run")) - {"mount"}  # mount(8)'s own
    assert left == {"incus-user", "inventory"} and os.path.exists("/srv/admin/precious")


@private
def test_another_directory_of_the_same_name_stays() -> None:
    for name in ("a", "b", "c", "d"):
        os.makedirs(f"/run/incus/{name}")
    text = inventory(*files(*(f"/run/incus/{name}" for name in ("a", "b", "c", "d"))))
    incus_like.write("/srv/admin/b/precious")
    os.rename("/run/incus/a", "/run/incus/a.old")
    incus_like.write("/run/incus/a/precious")  # another inode
    os.rename("/run/incus/b", "/run/incus/b.old")
    os.symlink("/srv/admin/b", "/run/incus/b")  # a symlink instead
    os.rename("/run/incus/c", "/run/incus/c.old")
    incus_like.write("/run/incus/c")  # a file instead
    assert finish(text) == (1, 3)
    assert os.path.exists("/run/incus/a/precious") and os.path.exists("/srv/admin/b/precious")
    assert sorted(os.listdir("/run/incus")) == ["a", "a.old", "b", "b.old", "c", "c.old"]


@private
def test_nothing_goes_through_a_symlink_among_the_parents() -> None:
    incus_like.write("/run/lxc/lock/incus/file")
    text = inventory(*files("/run/lxc/lock/incus"))
    # The very same directory, but now a symlink leads there.
    os.rename("/run/lxc", "/run/moved")
    os.symlink("/run/moved", "/run/lxc")
    assert finish(text) == (0, 1)
    assert os.path.exists("/run/moved/lock/incus/file")


@private
def test_a_mount_at_or_below_a_directory_keeps_all_of_it() -> None:
    for name in ("at", "below", "bind", "none"):
        incus_like.write(f"/run/incus/{name}/deep/own")
    incus_like.write("/run/admin/precious")
    text = inventory(*files(*(f"/run/incus/{name}" for name in ("at", "below", "bind", "none"))))
    tmpfs("/run/incus/at")
    incus_like.write("/run/incus/at/precious")
    tmpfs("/run/incus/below/deep")
    incus_like.write("/run/incus/below/deep/precious")
    # Of the same file system: rm --one-file-system would go through it.
    sh("mount", "--bind", "/run/admin", "/run/incus/bind/deep")
    assert finish(text)[0] == 1
    assert os.listdir("/run/incus/at") == os.listdir("/run/incus/below/deep") == ["precious"]
    assert os.listdir("/run/admin") == ["precious"] and os.path.exists("/run/incus/bind")
    assert not os.path.exists("/run/incus/none")


@private
def test_the_same_path_on_another_file_system_is_another_place() -> None:
    # Two fresh tmpfs number their inodes alike.
    tmpfs("/srv/data")
    incus_like.write("/srv/data/incus/file")
    (obj,) = files("/srv/data/incus")
    text = inventory(obj)
    tmpfs("/srv/data")
    incus_like.write("/srv/data/incus/precious")
    assert files("/srv/data/incus")[0].identity == obj.identity
    assert finish(text) == (0, 1)
    assert os.path.exists("/srv/data/incus/precious")


@private
def test_of_liblxc_s_lock_directory_only_what_is_empty_goes() -> None:
    os.makedirs("/run/lxc/lock/var/lib/incus")
    (obj,) = files("/run/lxc")
    text = inventory(Object("file", obj.key, obj.identity, {**obj.facts, "only_hollow": True}))
    incus_like.write("/run/lxc/lock/var/lib/lxc/file")
    assert finish(text) == (0, 1)
    assert os.path.exists("/run/lxc/lock/var/lib/lxc/file") and not os.path.exists("/run/lxc/lock/var/lib/incus")
    os.unlink("/run/lxc/lock/var/lib/lxc/file")
    assert finish(text) == (1, 0) and not os.path.exists("/run/lxc")


@private
def test_a_tree_stays_while_a_process_of_its_product_could_not_be_ended() -> None:
    incus_like.write("/run/incus/file")
    shell = subprocess.Popen(
        ["/bin/sh", "-c", f"read line; {FINISH} {INVENTORY}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    until(lambda: os.readlink(f"/proc/{shell.pid}/exe").endswith("dash"))
    incus_like.write(INVENTORY, inventory(look("process")["process"][str(shell.pid)], *files("/run/incus")))
    assert "0 gone without python3 (2 " in shell.communicate("go\n")[0]
    assert os.path.exists("/run/incus/file")


# -- what is the machine's, or not in a sandbox


@private
def test_a_loop_device_is_detached_and_one_that_was_attached_anew_is_not(attach: Attach, tmp_path: Path) -> None:  # noqa: F811
    devices = [attach(name) for name in ("going", "changed")]
    found = loops(tmp_path)
    sh("losetup", "-d", devices[1])
    until(lambda: not backing(devices[1]))
    sh("losetup", devices[1], str(tmp_path / "changed"))
    assert finish(inventory(found["going"], found["changed"])) == (1, 1)
    assert backing(devices[0]) == "" and "changed" in backing(devices[1])


SYSTEMCTL = """#!/bin/sh
# A systemd that remembers what was stopped.
verb=$1
while [ "$1" != -- ]; do shift; done
shift
echo "$verb $*" >>/run/lab/systemctl
[ "$verb" = show ] || exit 0
for name; do
    active=active
    if grep -q "^stop.* $name" /run/lab/systemctl; then active=inactive; fi
    # In an order of its own, as systemd has it.
    printf 'Id=%s\\nActiveState=%s\\nInvocationID=%s\\n' "$name" "$active" "$(cat "/run/lab/$name.id")"
    printf 'FragmentPath=%s\\nLoadState=%s\\n\\n' "/run/lab/$name" loaded
done
"""


@private
def test_a_unit_is_stopped_when_it_is_the_same_and_its_file_is_gone() -> None:
    os.makedirs("/run/systemd/system")
    incus_like.write("/run/lab/bin", SYSTEMCTL)
    os.chmod("/run/lab/bin", 0o755)
    if not os.path.exists("/usr/bin/systemctl"):
        incus_like.overlay("/usr/bin")
        incus_like.write("/usr/bin/systemctl")
    sh("mount", "--bind", "/run/lab/bin", "/usr/bin/systemctl")
    same, other = "0" * 32, "1" * 32
    units = []
    for name, invocation, file in (
        ("a.service", same, False),
        ("b.socket", same, False),
        ("restarted.service", other, False),
        ("installed.service", same, True),
    ):
        incus_like.write(f"/run/lab/{name}.id", invocation)
        if file:
            incus_like.write(f"/run/lab/{name}")
        units.append(Object("unit", name, (name, same)))
    assert finish(inventory(*units)) == (2, 2)
    with open("/run/lab/systemctl") as said:
        done = [line for line in said.read().split("\n") if line and not line.startswith("show")]
    assert done == ["stop b.socket a.service", "reset-failed b.socket a.service"]
    assert finish(inventory(*units)) == (0, 2)
