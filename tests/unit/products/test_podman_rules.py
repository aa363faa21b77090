"""Podman: its containers by the ids in its database and by what its monitors hold open; what is only called the same
stays."""

from __future__ import annotations

import json
import os
import pathlib
import pwd
from typing import Any

import pytest
from test_microk8s_rules import Machine

from leftovers.claims import Case, attribute
from leftovers.host import Host
from leftovers.kinds.kind import Look
from leftovers.model import Claim, Object, Presence, Record, Role, Scope
from leftovers.products import known, load
from leftovers.products.libpod import reading, users
from leftovers.products.libpod.names import GRAPH, STATE, TMP
from leftovers.survey import presence

ID, OTHER, POD, LAYER = "a" * 64, "b" * 64, "c" * 64, "d" * 64
PIN = "/run/netns/netns-01234567-89ab-cdef-0123-456789abcdef"
STRANGE_PIN = "/run/netns/netns-ffffffff-89ab-cdef-0123-456789abcdef"
CONMON = "/usr/bin/conmon"
STATIC = f"{GRAPH}/overlay-containers/{ID}/userdata"
SCOPE = f"/machine.slice/libpod-{ID}.scope"
FACTS: dict[str, Any] = {
    "id": ID, "name": "web", "image": "bb", "created": "2026-01-01T00:00:00Z", "state": "running", "pid": 11,
    "conmon": 10, "pod": "", "infra": False, "netns": PIN, "mount": f"{GRAPH}/overlay/{LAYER}/merged", "static": STATIC,
    "networks": ["podman"], "addresses": ["10.88.0.2"], "network_of": "", "cgroup": "machine.slice", "health": "",
}  # fmt: skip


class Podman(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.product = load("podman")
        self.presence = Presence.ABSENT

    def monitor(self, pid: int, id: str = ID) -> Object:
        held = f"{GRAPH}/overlay-containers/{id}/userdata/ctl"
        self.record("conmon", str(pid), "kernel", id=id, start=9, exit=f"{TMP}/exits", held=held, uid=0)
        return self.process(
            pid, f"{CONMON} (deleted)", CONMON, "-c", id, cgroup=f"/machine.slice/libpod-conmon-{id}.scope"
        )

    def database(self, *containers: dict[str, Any], whole: bool = True, stored: bool = True) -> None:
        self.record("podman-db", f"{GRAPH}/db.sql", "disk", whole=whole, store=GRAPH)
        self.record("podman-store", GRAPH, "disk", whole=True, images=1, volumes=0, secrets=0)
        for facts in containers:
            self.record("podman", facts["id"], "disk", **{**FACTS, **facts})
            layer = {**FACTS, **facts}["mount"].split("/")[-2]
            if stored:
                self.record(
                    "stored", facts["id"], "disk", id=facts["id"], name="", layer=layer, driver="overlay", by="podman"
                )

    def container(self) -> None:
        """A running container, on the network that Podman always has."""
        self.database({"id": ID})
        self.monitor(10)
        self.process(11, "/app", "app", ppid=10, cgroup=f"{SCOPE}/container", nested=True, netns=77, mntns=11)
        for path in (SCOPE, f"{SCOPE}/container", f"/machine.slice/libpod-conmon-{ID}.scope"):
            self.cgroup(path, populated=True)
        self.netns(77, [11], [PIN])
        self.link("veth0", peer="eth0", peer_netns=77, master="podman0")
        self.link("podman0", "bridge", addresses=["10.88.0.1"])
        self.mount(f"{GRAPH}/overlay/{LAYER}/merged", fstype="overlay", majmin="0:60")
        self.mount(f"{STATIC}/shm", majmin="0:61")
        self.table("netavark", "NETAVARK-ISOLATION-1")

    def case(self, records: list[Record] | None = None) -> Case:
        listed = {kind: tuple(objects) for kind, objects in self.listed.items()}
        return Case("podman", self.presence, listed, tuple(self.records if records is None else records))

    def ask(self, rules: Any = None, been: bool = False, recalled: Any = None) -> dict[str, Claim]:
        case = self.case()
        case.been, case.recalled = been, recalled or {}
        return attribute(case, self.product.rules, self.product.recall, None, self.product.orphans)


@pytest.fixture
def host() -> Podman:
    return Podman()


OWN = {
    *("process:10", "process:11", f"cgroup:{SCOPE}", f"cgroup:{SCOPE}/container"),
    *(f"cgroup:/machine.slice/libpod-conmon-{ID}.scope", "netns:77", "link:veth0", "link:podman0"),
    *(f"mount:{GRAPH}/overlay/{LAYER}/merged", f"mount:{STATIC}/shm", "nft:inet netavark"),
}


def test_a_container_and_all_that_hangs_on_it(host: Podman) -> None:
    host.container()
    assert host.gone() == OWN
    claims = host.ask()
    # Who would start it again ends first; asked to end, he would wait for his container.
    assert claims["process:10"].rank < claims["process:11"].rank
    assert claims["process:10"].object.facts["abrupt"] and claims["process:11"].object.facts["abrupt"]
    assert claims["process:11"].object.facts["group"] == [SCOPE, f"/sys/fs/cgroup{SCOPE}", 1]


def test_what_is_only_called_the_same_stays(host: Podman) -> None:
    host.container()
    host.process(20, "/opt/conmon", CONMON, "-c", OTHER, "--exit-dir", f"{TMP}/exits")
    host.process(21, "/app", "app", ppid=20, cgroup=f"/machine.slice/libpod-{OTHER}.scope", nested=True, netns=78)
    host.cgroup(f"/machine.slice/libpod-{OTHER}.scope", populated=True)
    # A user can make a cgroup of any name below his own.
    host.cgroup(f"/user.slice/user-1000.slice/libpod-{ID}.scope", populated=True)
    host.process(22, "/app", "app", cgroup=f"/user.slice/user-1000.slice/libpod-{ID}.scope", uid=1000)
    host.process(23, "/usr/lib/podman/aardvark-dns", "aardvark-dns", "--config", f"{STATE}/aardvark-dns", uid=1000)
    host.netns(78, [21], [STRANGE_PIN])
    host.link("veth1", peer="eth0", peer_netns=78, master="podman1")
    host.link("podman1", "bridge", addresses=["10.89.0.1"])
    host.mount(f"{GRAPH}-backup/overlay/{LAYER}/merged", fstype="overlay", majmin="0:62")
    host.mount(f"{GRAPH}/overlay-containers/{OTHER}/userdata/shm", majmin="0:63")
    host.mount(f"{GRAPH}/mine", majmin="0:64")
    host.table("netavark_admin", "NETAVARK-ISOLATION-1")
    host.table("netavark", "forward", family="ip")
    host.xtables("NETAVARKISH")
    host.file("/dev/shm/libpod_lock", "symlink", target="/etc/shadow")
    assert host.gone() == OWN


def test_cri_o_beside_it_keeps_its_own(host: Podman) -> None:
    """The same store, monitors of the same program, and the same names below /run."""
    host.container()
    host.record("stored", OTHER, "disk", id=OTHER, name="", layer="e" * 64, driver="overlay", by="crio")
    # An id that CRI-O has is never Podman's, whatever else says so.
    host.record("persist", OTHER, "disk", id=OTHER, path=f"{TMP}/persist/{OTHER}")
    host.process(30, CONMON, CONMON, "-b", f"/run/containers/storage/overlay-containers/{OTHER}/userdata", "-c", OTHER)
    host.process(31, "/pause", "pause", ppid=30, cgroup=f"/kubepods/crio-{OTHER}.scope", nested=True, netns=79)
    host.cgroup(f"/kubepods/crio-{OTHER}.scope", populated=True)
    host.mount(f"{GRAPH}/overlay", fstype="ext4", majmin="8:1", root=f"{GRAPH}/overlay")
    host.mount(f"{GRAPH}/overlay/{'e' * 64}/merged", fstype="overlay", majmin="0:62")
    host.file(GRAPH, entries=("db.sql", "overlay"))
    host.file("/run/containers/storage", entries=("overlay-containers",))
    assert host.gone() == OWN
    claims = host.ask()
    assert claims[f"file:{GRAPH}"].role is Role.ADMIN and "CRI-O" in claims[f"file:{GRAPH}"].evidence[0].text
    assert claims["file:/run/containers/storage"].role is Role.ADMIN


def test_buildah_at_work_keeps_netavark_s_table(host: Podman) -> None:
    host.container()
    host.process(40, "/usr/bin/buildah", "buildah", "bud", ".")
    assert host.gone() == OWN - {"nft:inet netavark"}


def test_a_bridge_with_somebody_s_port_is_held_and_an_unmanaged_one_is_the_administrator_s(host: Podman) -> None:
    host.container()
    host.link("tap0", "tun", master="podman0")
    facts = {"id": OTHER, "driver": "bridge", "managed": False, "subnets": ["10.77.0.0/24"], "gateways": []}
    host.record(
        "podman-network", "lan", "disk", name="lan", bridge="br-lan", path="/etc/containers/networks/lan.json", **facts
    )
    host.link("br-lan", "bridge", addresses=["10.77.0.1"])
    host.link("veth7", peer="eth1", peer_netns=77, master="br-lan")
    claims = host.ask()
    assert claims["link:podman0"].role is Role.HELD and "tap0" in claims["link:podman0"].evidence[0].text
    assert claims["link:br-lan"].role is Role.ADMIN
    assert claims["link:veth7"].role is Role.LIVE


def test_the_run_root_stays_while_buildah_has_a_container_in_the_store(host: Podman) -> None:
    """It has which layers are mounted, and how often; for `buildah mount` nothing has to run."""
    host.container()
    run = "/run/containers/storage"
    host.file(run)
    assert f"file:{run}" in host.gone()
    host.record("stored", OTHER, "disk", id=OTHER, name="", layer="e" * 64, driver="overlay", by="")
    assert f"file:{run}" in host.gone(), "podman build leaves such a one, too"
    host.file("/usr/bin/buildah", "file")
    claim = host.ask()[f"file:{run}"]
    assert claim.role is Role.ADMIN and "buildah" in claim.evidence[0].text


def test_a_bridge_that_the_administrator_had_before_is_held(host: Podman) -> None:
    """`podman network create --interface-name br-vms`: netavark adds its address to the bridge that is there."""
    host.container()
    facts = {"id": OTHER, "driver": "bridge", "managed": True, "subnets": ["10.89.0.0/24"], "gateways": []}
    host.record(
        "podman-network", "vms", "disk", name="vms", bridge="br-vms", path="/etc/containers/networks/vms.json", **facts
    )
    host.link("br-vms", "bridge", addresses=["192.0.2.1", "10.89.0.1", "fe80::1"])
    host.link("podman0", "bridge", addresses=["10.88.0.1", "fe80::2"])
    claims = host.ask()
    assert claims["link:br-vms"].role is Role.HELD and "192.0.2.1" in claims["link:br-vms"].evidence[0].text
    assert claims["link:podman0"].role is Role.LIVE


def test_what_anybody_puts_into_dev_shm_is_not_podman_s(host: Podman) -> None:
    """It is everybody's to write in: a directory of that name, or any file where no Podman has been, says nothing."""
    path = "/dev/shm/libpod_lock"
    host.file(path, "file")
    assert host.gone() == set()
    host.listed["file"] = []
    host.file(path, entries=("precious",))
    host.database({"id": ID})
    assert host.gone() == set()
    host.listed["file"] = []
    host.file(path, "file")
    assert host.gone() == {f"file:{path}"}


def test_a_podman_of_no_package_is_one(tmp_path: pathlib.Path) -> None:
    """podman-static in /usr/local has the same store and the same /run: Debian's package goes, the containers stay."""
    nobody = {"process": (), "mount": ()}
    assert presence(Host(str(tmp_path)), load("podman"), nobody)[0] is Presence.ABSENT
    (tmp_path / "usr/local/bin").mkdir(parents=True)
    (tmp_path / "usr/local/bin/podman").touch()
    assert presence(Host(str(tmp_path)), load("podman"), nobody)[0] is Presence.INSTALLED


def test_a_monitor_that_ended_leaves_its_container_known_by_the_runtime(host: Podman) -> None:
    host.database({"id": ID})
    host.record(
        "runtime", f"/run/crun/{ID}", "disk", id=ID, pid=11, start=9, bundle=STATIC, rootfs="", path=f"/run/crun/{ID}"
    )
    host.record(
        "runtime", f"/run/crun/{OTHER}", "disk", id=OTHER, pid=12, start=9, bundle=f"/srv/{OTHER}", rootfs="", path="/x"
    )
    host.process(11, "/app", "app", nested=True, netns=77, mntns=11)
    host.process(12, "/app", "app", nested=True, netns=78, mntns=12)
    host.file(f"/run/crun/{ID}", entries=("status",))
    host.file(f"/run/crun/{OTHER}", entries=("status",))
    assert host.gone() == {"process:11", f"file:/run/crun/{ID}"}


def test_the_data_is_kept_while_there_is_any(host: Podman) -> None:
    host.container()
    host.file(GRAPH, entries=("db.sql",))
    host.file("/var/lib/containers", entries=("storage",))
    claims = host.ask()
    assert claims[f"file:{GRAPH}"].role is Role.EXTERNAL and "1 container, 1 image" in claims[f"file:{GRAPH}"].reason
    assert claims["file:/var/lib/containers"].role is Role.EXTERNAL
    empty = Podman()
    empty.record("podman-db", f"{GRAPH}/db.sql", "disk", whole=True, store=GRAPH)
    empty.record("podman-store", GRAPH, "disk", whole=True, images=0, volumes=0, secrets=0)
    empty.file(GRAPH, entries=("db.sql",))
    assert empty.gone() == {f"file:{GRAPH}"}
    # Of what could not be read nobody says that it is empty.
    empty.records[-1] = Record("podman-store", GRAPH, "disk", {**empty.records[-1].facts, "whole": False})
    assert empty.gone() == set()


def test_a_store_without_podman_s_database_is_not_podman_s(host: Podman) -> None:
    host.record("podman-store", GRAPH, "disk", whole=True, images=3, volumes=0, secrets=0)
    host.file(GRAPH, entries=("overlay",))
    host.link("podman0", "bridge", addresses=["10.88.0.1"])
    host.table("netavark", "NETAVARK-ISOLATION-1")
    assert host.gone() == set()


def test_what_an_administrator_has_mounted_on_a_volume_is_his(host: Podman) -> None:
    host.database({"id": ID})
    for name, type in (("made", "tmpfs"), ("plain", "")):
        facts = {
            "path": f"{GRAPH}/volumes/{name}/_data",
            "device": type,
            "options": "",
            "type": type,
            "driver": "local",
        }
        host.record("podman-volume", name, "disk", **facts)
    for name in ("made", "plain", "unknown"):
        host.mount(f"{GRAPH}/volumes/{name}/_data", majmin="0:70")
    assert host.gone() == {f"mount:{GRAPH}/volumes/made/_data"}


def test_a_store_elsewhere_goes_only_when_there_is_nothing_else_in_it(host: Podman) -> None:
    host.record("place", GRAPH, "disk", path="/srv", why="storage.conf")
    host.record("podman-db", "/srv/db.sql", "disk", whole=True, store="/srv")
    host.record("podman-store", "/srv", "disk", whole=True, images=0, volumes=0, secrets=0)
    host.file("/srv", entries=("db.sql", "overlay", "libpod", "storage.lock"))
    assert host.gone() == {"file:/srv"}
    host.listed["file"] = []
    host.file("/srv", entries=("db.sql", "overlay", "thesis"))
    assert host.gone() == set() and not host.ask()["file:/srv"].proven


def test_copies_in_a_user_s_namespaces_are_only_told(host: Podman) -> None:
    host.container()
    copy = host.mount(f"{STATIC}/shm#copy", majmin="0:61", host=False, ns=99, pid=50)
    mount = Object("mount", f"99{STATIC}/shm", (99, 1), {**copy.facts, "point": f"{STATIC}/shm"})
    host.listed["mount"][-1] = mount
    assert mount.id in host.gone()
    host.record("copies", "99", "kernel", pid=50, uid=1000)
    assert mount.id not in host.gone() and host.ask()[mount.id].role is Role.ADMIN


# -- of a Podman that stays ------------------------------------------------------------------------------------------


def orphans(host: Podman) -> set[str]:
    host.presence = Presence.INSTALLED
    return {id for id, claim in host.ask().items() if claim.orphan}


def test_orphans_are_what_no_container_has(host: Podman) -> None:
    host.container()
    assert orphans(host) == set()
    # A monitor and a namespace of a container that is gone.
    host.monitor(20, OTHER)
    host.process(21, "/app", "app", ppid=20, cgroup=f"/machine.slice/libpod-{OTHER}.scope", nested=True, netns=78)
    host.cgroup(f"/machine.slice/libpod-{OTHER}.scope", populated=True)
    host.netns(79, [], [STRANGE_PIN])
    host.link("veth1", peer="eth0", peer_netns=79, master="podman0")
    host.netns(78, [21], [STRANGE_PIN.replace("ffff", "eeee")])
    host.link("veth2", peer="eth0", peer_netns=78, master="podman0")
    left = {"process:20", "process:21", f"cgroup:/machine.slice/libpod-{OTHER}.scope"}
    left |= {"netns:78", "link:veth2", "netns:79", "link:veth1"}
    assert orphans(host) == left
    # One that does not run has what it has.
    host.record("podman", OTHER, "disk", **{**FACTS, "id": OTHER, "netns": STRANGE_PIN, "state": "stopped"})
    assert orphans(host) == set()


def test_nothing_is_an_orphan_where_the_database_could_not_be_read(host: Podman) -> None:
    host.database({"id": ID}, whole=False)
    host.monitor(20, OTHER)
    assert "process:20" in host.gone() and orphans(host) == set()


def test_containers_of_another_graph_root_are_no_orphans(host: Podman) -> None:
    """`podman --root /srv/store run`: another database, and the same directories in /run."""
    host.container()
    argv = ("-c", OTHER, "-b", f"/srv/store/overlay-containers/{OTHER}/userdata", "--exit-dir", f"{TMP}/exits")
    host.process(20, CONMON, CONMON, *argv, cgroup=f"/machine.slice/libpod-conmon-{OTHER}.scope")
    host.process(21, "/app", "app", ppid=20, cgroup=f"/machine.slice/libpod-{OTHER}.scope", nested=True, netns=78)
    host.cgroup(f"/machine.slice/libpod-{OTHER}.scope", populated=True)
    host.netns(78, [21], [STRANGE_PIN])
    host.record("persist", OTHER, "disk", id=OTHER, path=f"{TMP}/persist/{OTHER}")
    assert "process:21" in host.gone() and orphans(host) == set()
    # Nor is it one when the monitor has ended: the runtime has where it was started.
    host.listed["process"] = [process for process in host.listed["process"] if process.key != "20"]
    assert "process:21" in orphans(host)
    path = f"/run/crun/{OTHER}"
    facts = {"id": OTHER, "pid": 21, "start": 9, "bundle": argv[3], "rootfs": "", "path": path}
    host.record("runtime", path, "disk", **facts)
    assert orphans(host) == set()


def test_a_store_on_a_server_may_have_whom_the_database_has_not(tmp_path: pathlib.Path, host: Podman) -> None:
    (tmp_path / "etc/containers").mkdir(parents=True)
    (tmp_path / "etc/containers/storage.conf").write_text('[storage]\ngraphroot = "/srv/far/store"\n')
    far = Object("mount", "/srv/far", ("/srv/far",), {"point": "/srv/far", "fstype": "virtiofs", "host": True})
    here = look(tmp_path)
    records, faults = reading.read_store(Look(here.host, here.scope, {**here.listed, "mount": (far,)}))
    assert "not read" in faults[0]
    host.database({"id": ID})
    host.monitor(20, OTHER)
    assert orphans(host) == {"process:20"}
    host.records += records
    assert orphans(host) == set()


def test_instances_have_their_ties(host: Podman) -> None:
    host.container()
    case = host.case()
    attribute(case, host.product.rules)
    assert host.product.instances is not None
    (found,) = host.product.instances(case)
    assert (found.id, found.name, found.image, found.state) == (ID, "web", "bb", "running")
    assert {"process:10", "process:11", "netns:77", f"cgroup:{SCOPE}", f"mount:{STATIC}/shm"} <= set(found.ties)


def test_a_pid_that_was_given_again_ties_to_who_has_it(host: Podman) -> None:
    host.container()
    host.record("podman", OTHER, "disk", **{**FACTS, "id": OTHER, "name": "crashed", "netns": "", "pid": 11})
    case = host.case()
    attribute(case, host.product.rules)
    assert host.product.instances is not None
    ties = {each.name: each.ties for each in host.product.instances(case)}
    assert "process:11" in ties["web"] and "process:11" not in ties["crashed"]


# -- what is read of processes and users ----------------------------------------------------------------------------


def look(root: pathlib.Path, *processes: Object) -> Look:
    mount = Object("mount", "/", ("/",), {"point": "/", "fstype": "ext4", "host": True})
    return Look(Host(str(root)), Scope(), {"process": processes, "mount": (mount,)})


def a_conmon(pid: int, exit: str = f"{TMP}/exits", **facts: Any) -> Object:
    argv = [CONMON, "--api-version", "1", "-c", ID, "-b", STATIC, "--exit-dir", exit]
    known = {"exe": CONMON, "argv": argv, "nested": False, "uid": 0, "our_mnt": True, "start": 9, **facts}
    return Object("process", str(pid), (pid, 9), {"pid": pid, **known})


def holding(root: pathlib.Path, pid: int, path: str) -> None:
    directory = root / "proc" / str(pid) / "fd"
    directory.mkdir(parents=True)
    os.symlink(path, directory / "11")


def test_a_monitor_holds_a_fifo_in_the_store_open(tmp_path: pathlib.Path) -> None:
    """Arguments alone are anybody's; CRI-O's monitors have another directory for exit files."""
    holding(tmp_path, 1, f"{STATIC}/ctl")
    holding(tmp_path, 2, f"/srv/{ID}/userdata/ctl")
    holding(tmp_path, 3, f"{STATIC}/ctl")
    holding(tmp_path, 4, f"{STATIC}/ctl")
    holding(tmp_path, 5, f"{STATIC}/{OTHER}/winsz (deleted)")
    processes = (
        a_conmon(1),
        a_conmon(2),
        a_conmon(3, "/run/crio/exits"),
        a_conmon(4, uid=1000),
        a_conmon(5),
        a_conmon(6),
    )
    records, faults = reading.read_conmons(look(tmp_path, *processes))
    assert [record.name for record in records] == ["1", "5"] and not faults


def home(root: pathlib.Path, name: str, uid: int) -> pathlib.Path:
    with open(root / "etc/passwd", "a") as file:
        file.write(f"{name}:x:{uid}:{uid}::/home/{name}:/bin/sh\n")
    return root / "home" / name


def test_users_who_have_containers_are_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "etc").mkdir()
    uid = os.geteuid() or 1000
    for name in ("alice", "mallory", "nobody", "other"):
        (home(tmp_path, name, uid if name == "alice" else 4321) / ".local/share").mkdir(parents=True)
    store = tmp_path / "home/alice/.local/share/containers/storage"
    (store / "overlay").mkdir(parents=True)
    for path in (store, store / "overlay"):
        os.chown(path, uid, -1)
    # A symlink to somebody else's is no store of one's own.
    os.symlink(tmp_path / "home/alice/.local/share/containers", tmp_path / "home/mallory/.local/share/containers")
    records, faults = users.read_users(look(tmp_path, a_conmon(7, uid=uid), a_conmon(8, uid=4322)))
    assert {record.name: (record.facts["path"], record.facts["monitors"]) for record in records} == {
        "alice": ("/home/alice/.local/share/containers/storage", ["7"]),
        "4322": ("", ["8"]),
    }
    assert not faults


def test_a_user_s_store_on_a_server_is_not_asked_for(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where his home is on one, nor where something on the way from there is: it may hang for ever."""
    (tmp_path / "etc").mkdir()
    for name in ("alice", "bob", "carol"):
        (home(tmp_path, name, 1000) / ".local/share/containers/storage/overlay").mkdir(parents=True)
    os.rename(tmp_path / "home/bob/.local", tmp_path / "home/bob/.elsewhere")
    os.symlink("/srv/far/bob", tmp_path / "home/bob/.local")
    asked: list[str] = []
    monkeypatch.setattr(users, "owner", lambda host, base, below: asked.append(base) or -1)
    for point in ("/home/alice/.local/share", "/srv/far"):
        mount = Object("mount", point, (point,), {"point": point, "fstype": "nfs4", "host": True})
        here = look(tmp_path)
        here = Look(here.host, here.scope, {**here.listed, "mount": (*here.listed["mount"], mount)})
        asked.clear()
        users.read_users(here)
        far = "alice" if "alice" in point else "bob"
        assert asked == [f"/home/{name}" for name in ("alice", "bob", "carol") if name != far]


def test_where_a_home_leads_is_not_asked_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pwd.struct_passwd(("alice", "x", 1000, 1000, "", "/nfs/far/alice", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: entry)
    monkeypatch.setattr(Host, "read_bytes", lambda *_: b"1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /nfs rw - nfs4 b rw\n")
    monkeypatch.setattr(os.path, "realpath", lambda path: pytest.fail(f"asked for {path}"))
    assert users.user_of("alice").home == "/nfs/far/alice"


def test_users_containers_are_kept_and_the_command_is_told(host: Podman) -> None:
    path = "/home/alice/.local/share/containers/storage"
    host.record("rootless", "alice", "disk", uid=1000, path=path, monitors=["50"])
    host.process(50, CONMON, CONMON, "-c", OTHER, uid=1000, mntns=5)
    host.file(path, entries=("db.sql",))
    claim = host.ask()[f"file:{path}"]
    assert host.gone() == set() and claim.role is Role.ADMIN
    assert claim.advice == "leftovers clean podman@alice"


ALICE = users.User("alice", 1000, "/home/alice", ((1000, 1000), (100000, 165535)))
OF_ALICE = f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope"
STORE = "/home/alice/.local/share/containers/storage"


class Alice(Podman):
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        monkeypatch.setattr(users, "user_of", lambda name: ALICE)
        self.product = load("podman@alice")


def test_by_name_only_what_is_the_user_s_own_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Alice(monkeypatch)
    argv = (CONMON, "-c", ID, "-b", f"{STORE}/overlay-containers/{ID}/userdata", "--exit-dir", "/run/user/1000/x")
    host.process(50, CONMON, *argv, uid=1000, mntns=5)
    host.process(51, "/app", "app", ppid=50, uid=100000, nested=True, cgroup=f"{OF_ALICE}/container", netns=7, mntns=6)
    host.process(52, "/app", "app", ppid=51, uid=100033, nested=True, cgroup=f"{OF_ALICE}/container", netns=7, mntns=6)
    host.process(53, "/usr/bin/pasta.avx2", "pasta", "--netns", "/run/user/1000/netns/netns-1", uid=1000, nested=True)
    host.process(54, "/usr/bin/catatonit", "catatonit", "-P", uid=1000, cgroup="/user.slice/podman-pause-1a2b.scope")
    host.cgroup(OF_ALICE, populated=True)
    own = {*(f"process:{pid}" for pid in range(50, 55)), f"cgroup:{OF_ALICE}"}
    # Others' processes, in whatever she has said about them or put them into.
    host.process(60, "/usr/bin/sudo", "sudo", ppid=50, uid=0, cgroup=OF_ALICE)
    host.process(61, CONMON, *argv, uid=1001)
    host.process(62, CONMON, *argv, uid=0)
    host.process(63, "/app", "app", uid=1001, cgroup="/user.slice/user-1001.slice/libpod-x.scope", nested=True)
    host.process(64, "/app", "app", uid=200000, cgroup=OF_ALICE, nested=True)
    host.process(65, "/usr/bin/pasta", "pasta", "--netns", "/run/user/1000/netns/netns-1", uid=0)
    host.process(66, "/usr/bin/vim", "vim", f"{STORE}/x", uid=1000)
    host.cgroup(OF_ALICE.replace("1000", "1001"), populated=True)
    assert host.gone() == own
    assert host.ask()[f"cgroup:{OF_ALICE}"].object.facts["only_empty"]


def test_by_name_a_directory_is_the_user_s_by_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Alice(monkeypatch)
    for path, uid in ((STORE, 1000), ("/run/user/1000/libpod", 0), ("/run/user/1000/crun", 1000)):
        host.file(path, entries=("db.sql",) if path == STORE else (ID, "mine"))
        host.record("owner", path, "disk", uid=uid)
    claims = host.ask()
    store = claims[f"file:{STORE}"]
    assert store.role is Role.EXTERNAL and store.proven
    assert store.object.facts["strict"] and store.object.facts["owners"] == [[1000, 1000], [100000, 165535]]
    assert "file:/run/user/1000/libpod" not in claims and not claims["file:/run/user/1000/crun"].proven
    host.file(STORE, "symlink", target="/srv")
    assert not host.ask()[f"file:{STORE}"].proven


def test_who_is_no_user_or_root_is_no_product() -> None:
    assert not known("podman@root") and not known("podman@no-such-user") and not known("incus@root")
    assert not known("podman@") and known("podman")
    # As scan names those whom /etc/passwd has not.
    user = pwd.getpwnam("nobody")
    assert known(f"podman@{user.pw_uid}") and users.user_of(str(user.pw_uid)).uid == user.pw_uid
    assert not known("podman@0") and not known("podman@00") and not known("podman@999999999")


def test_json_of_hostile_shape_is_no_conmon() -> None:
    for argv in ([], [CONMON, "-c"], [CONMON, "-c", "../../x", "-b", "/", "--exit-dir", "/"], ["-c", json.dumps({})]):
        process = Object("process", "1", (1, 1), {"argv": argv})
        assert reading.conmon_argv(process) == {}
