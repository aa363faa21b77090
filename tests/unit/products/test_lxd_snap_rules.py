"""The lxd snap: a member of the family with paths of its own, and with the names in firewalls that Debian's LXD has.
What it has in common with the others is tested in test_incus_rules.py, the real thing in lab/test_lxd_snap.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_incus_rules import HostOf, file
from test_incus_rules import rule as rule_of
from test_lxd_rules import Plain

from leftovers import survey
from leftovers.daemons import snapd
from leftovers.evidence import snap_program
from leftovers.host import Host
from leftovers.model import Object, Presence, Role
from leftovers.products import load
from leftovers.products.lxd_snap import NAMES

DIRECTORY = "/var/snap/lxd/common/lxd"
EXE = "/snap/lxd/28637/bin/lxd"


@pytest.fixture
def host() -> Plain:
    return Plain("lxd-snap")


def container(host: HostOf, name: str, pid: int, exe: str = EXE) -> None:
    host.process(pid, exe, f"[lxc monitor] {DIRECTORY}/containers {name}", cgroup=f"/lxc.monitor.{name}")
    where = {"cgroup": f"/lxc.payload.{name}", "nested": True, "netns": 77, "mntns": pid}
    host.process(pid + 1, "/bin/init", "init", ppid=pid, **where)
    for group in ("monitor", "payload"):
        host.cgroup(f"/lxc.{group}.{name}", populated=True)


def served(host: HostOf, network: str, directory: str = DIRECTORY, pid: int = 5) -> None:
    conf = f"--conf-file={directory}/networks/{network}/dnsmasq.raw"
    host.process(pid, "/usr/sbin/dnsmasq", "dnsmasq", f"--interface={network}", conf)


def rule(host: HostOf, comment: str) -> str:
    """The id of a rule with this comment."""
    rule_of(host, comment, comment=comment)
    return f"xtables:{comment}"


def database(host: HostOf, directory: str) -> None:
    file(host, directory, entries=["database"])


def test_programs_of_any_revision_are_its_own(host: Plain) -> None:
    container(host, "c1", 10)
    for pid, exe in enumerate(("lxcfs", "qemu-system-x86_64", "ovs-vswitchd"), 20):
        host.process(pid, f"/snap/lxd/x1/bin/{exe} (deleted)", exe)
    host.process(30, "/var/lib/snapd/snap/lxd/1/bin/lxd", "lxd", "forkproxy")
    host.process(31, "/snap/lxd-mine/1/bin/lxd", "lxd")
    host.process(32, "/usr/bin/lxd", f"[lxc monitor] {DIRECTORY}/containers c1")
    host.process(33, "/snap/lxd/1/bin/lxd", "lxd", nested=True, mntns=5)
    assert host.proven() == {
        *("process:10", "process:11", "process:20", "process:21", "process:22", "process:30"),
        *("cgroup:/lxc.monitor.c1", "cgroup:/lxc.payload.c1"),
    }


def test_containers_that_outlive_the_snap(host: Plain) -> None:
    container(host, "c1", 10, "/bin/lxd")
    container(host, "c2", 20, "/bin/lxd")
    host.record("program", "10", "kernel", start=9, exe="/bin/lxd")
    host.record("program", "20", "ledger", start=9, exe="/bin/lxd")
    assert {id for id in host.proven() if id.startswith("process:")} == {"process:10", "process:11"}
    claim = host.claims()["process:10"]
    assert claim.reason == "a container's monitor" and claim.object.facts["abrupt"], "else it gives links back"


@pytest.mark.parametrize("product", ["lxd", "incus"])
def test_nothing_of_it_is_another_member_s(product: str) -> None:
    host = Plain(product)
    container(host, "c1", 10)
    served(host, "lxdbr0")
    host.process(40, EXE, "lxd", "--logfile", f"{DIRECTORY}/logs/lxd.log")
    host.link("lxdbr0", "bridge", address="00:16:3e:00:00:ff")
    host.link("veth11111111", master="lxdbr0", peer="eth0", peer_netns=77, peer_address="00:16:3e:00:00:01")
    host.table("lxd", "fwd.lxdbr0")
    rule(host, "generated for LXD network lxdbr0")
    database(host, DIRECTORY)
    file(host, "/var/snap/lxd")
    host.mount(f"{DIRECTORY}/devlxd")
    host.mount("/var/snap/lxd/common/shmounts")
    assert host.proven() == set()


def test_nothing_of_debian_s_lxd_is_its_own(host: Plain) -> None:
    host.process(10, "/usr/bin/lxd", "[lxc monitor] /var/lib/lxd/containers c1", cgroup="/lxc.monitor.c1")
    host.process(11, "/init", "init", ppid=10, nested=True, netns=77, mntns=10, cgroup="/lxc.payload.c1")
    served(host, "lxdbr0", "/var/lib/lxd")
    host.link("lxdbr0", "bridge", address="00:16:3e:00:00:ff")
    host.table("lxd", "fwd.lxdbr0")
    rule(host, "generated for LXD network lxdbr0")
    database(host, "/var/lib/lxd")
    file(host, "/var/snap/lxd")
    assert host.proven() == {"file:/var/snap/lxd"}


@pytest.mark.parametrize("sign", ["monitor", "dnsmasq", "database"])
@pytest.mark.parametrize(("product", "other"), [("lxd-snap", "/var/lib/lxd"), ("lxd", DIRECTORY)])
def test_what_both_call_the_same_is_told_while_the_other_is_there(product: str, other: str, sign: str) -> None:
    host = Plain(product)
    directory = DIRECTORY if product == "lxd-snap" else "/var/lib/lxd"
    served(host, "mine0", directory)
    host.link("mine0", "bridge", address="00:16:3e:00:00:fe")
    table = host.table("lxd", "fwd.mine0", "fwd.lxdbr0")
    own, his = (rule(host, f"generated for LXD network {name}") for name in ("mine0", "lxdbr0"))
    assert {table.id, own, his} <= host.proven(), "so it is without the other"
    if sign == "monitor":
        host.process(90, "/x", f"[lxc monitor] {other}/containers c9", cgroup="/lxc.monitor.c9")
    elif sign == "dnsmasq":
        served(host, "lxdbr0", other, 91)
    else:
        database(host, other)
    assert host.proven() >= {own, "link:mine0"} and not {table.id, his} & host.proven()
    claim = host.claims()[table.id]
    assert claim.role is Role.ADMIN and claim.advice == "nft list table inet lxd"


def test_a_network_that_debian_s_lxd_has_by_now(host: Plain) -> None:
    # Both had a lxdbr0, one after the other: Debian's has a directory for it.
    config = {"volatile.bridge.hwaddr": "00:16:3e:00:00:01"}
    host.record("network", "lxdbr0", "ledger", type="bridge", managed=True, config=config)
    host.link("lxdbr0", "bridge", address="00:16:3e:00:00:01")
    assert "link:lxdbr0" in host.proven()
    file(host, "/var/lib/lxd/networks", entries=["lxdbr0"])
    assert "link:lxdbr0" not in host.proven()


def test_mounts(host: Plain) -> None:
    for point in (
        f"{DIRECTORY}/devlxd",
        f"{DIRECTORY}/storage-pools/default",
        "/var/snap/lxd/common/ns/shmounts",
        "/var/snap/lxd/common/shmounts/lxcfs",
        "/var/snap/lxd/common/var/lib/lxcfs",
        "/var/snap/lxd/common/mine",
        "/var/snap/lxd-backup/lxd/devlxd",
        "/var/lib/lxd/devlxd",
        "/var/lib/lxcfs",
    ):
        host.mount(point)
    assert {id.partition("/common/")[2] for id in host.proven()} == {
        *("lxd/devlxd", "lxd/storage-pools/default", "ns/shmounts", "shmounts/lxcfs", "var/lib/lxcfs")
    }


def test_where_it_never_was_nothing_is_told(host: Plain) -> None:
    host.add("account", "group lxd", ("g",), type="group", name="lxd", line="lxd:x:110:ubuntu")
    host.add("sysctl", "net.ipv4.ip_forward", ("i",), name="net.ipv4.ip_forward", value="1")
    file(host, "/etc/dnsmasq.d", entries=[])
    assert host.claims() == {}
    file(host, "/var/snap/lxd")
    assert set(host.claims()) == {"account:group lxd", "sysctl:net.ipv4.ip_forward", "file:/var/snap/lxd"}


def test_it_is_asked_over_its_own_socket() -> None:
    assert NAMES.socket == f"{DIRECTORY}/unix.socket" and NAMES.comment.match("generated for LXD network lxdbr0")
    assert load("lxd-snap").stop and load("lxd-snap").start


def process(exe: str, **facts: object) -> Object:
    known = {"pid": 9, "exe": exe, "argv": [exe], "nested": False, "uid": 0, "mntns": 1, "start": 9, **facts}
    return Object("process", "9", (9, 9), known)


@pytest.mark.parametrize(
    ("exe", "there", "lxd"),
    [
        ("/snap/lxd/x1/bin/lxd", True, Presence.ABSENT),  # the other product
        ("/bin/lxd", False, Presence.ABSENT),  # of a snap that is not mounted any more
        ("/opt/mine/lxd", True, Presence.INSTALLED),
    ],
)
def test_which_lxd_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, exe: str, there: bool, lxd: Presence
) -> None:
    if there:
        Path(f"{tmp_path}{exe}").parent.mkdir(parents=True)
        Path(f"{tmp_path}{exe}").touch()
    listed = {"process": (process(exe),), "mount": ()}
    assert survey.presence(Host(str(tmp_path)), load("lxd"), listed)[0] is lxd
    (tmp_path / "usr/lib/snapd").mkdir(parents=True)
    (tmp_path / "usr/lib/snapd/snapd").touch()
    monkeypatch.setattr(snapd, "snaps", lambda *_, **__: {"lxd": snapd.Snap("lxd", True, "x1")})
    assert survey.presence(Host(str(tmp_path)), load("lxd-snap"), listed)[0] is Presence.INSTALLED


def test_a_program_is_of_the_snap_by_its_environment_and_its_mount(tmp_path: Path) -> None:
    def made(environment: str, mounts: str) -> list[str]:
        base = tmp_path / "proc/9"
        base.mkdir(parents=True, exist_ok=True)
        (base / "environ").write_text(environment)
        (base / "mountinfo").write_text(mounts)
        (base / "exe").unlink(missing_ok=True)
        (base / "exe").symlink_to("/dev/null")
        return [each.name for each in snap_program.read(Host(str(tmp_path)), "lxd", [process("/bin/lxd")])]

    here = "".join(Path("/proc/self/mountinfo").read_text())
    assert made("A=1\0SNAP=/snap/lxd/x1\0", "1 1 0:1 / / rw - tmpfs x rw\n") == ["9"]
    assert made("A=1\0SNAP=/snap/lxd/x1\0", here) == [], "what it runs is mounted"
    for environment in ("", "SNAP=/snap/lxd-mine/x1\0", "XSNAP=/snap/lxd/x1\0", "SNAP=/snap/lxd/x1/bin\0"):
        assert made(environment, "1 1 0:1 / / rw - tmpfs x rw\n") == []


def test_a_user_s_process_is_no_monitor(host: Plain) -> None:
    container(host, "c1", 10)
    for each in host.listed["process"]:
        if each.key == "10":
            each.facts["uid"] = 1000  # type: ignore[index]
    claims = host.claims()
    assert claims["process:10"].reason == "a program of LXD (snap)'s", "it ends, and no container with it at once"
    assert "abrupt" not in claims["process:10"].object.facts
