"""What Podman and its libraries write down: as it is, and as somebody would like us to read it."""

from __future__ import annotations

import json
import os
import pathlib
import sqlite3
from typing import Any

import pytest

from leftovers.evidence import libpod
from leftovers.host import Host
from leftovers.model import Record
from unit.evidence.bolt_file import Tree, Writer

GRAPH = "/var/lib/containers/storage"
ID, INFRA, POD, LAYER = "a" * 64, "b" * 64, "c" * 64, "d" * 64
PIN = "/run/netns/netns-01234567-89ab-cdef-0123-456789abcdef"
# As Podman 5.4.2 makes them, without what is not read.
TABLES = """
CREATE TABLE DBConfig(ID INTEGER PRIMARY KEY NOT NULL, SchemaVersion INTEGER NOT NULL, OS TEXT NOT NULL,
    StaticDir TEXT NOT NULL, TmpDir TEXT NOT NULL, GraphRoot TEXT NOT NULL, RunRoot TEXT NOT NULL,
    GraphDriver TEXT NOT NULL, VolumeDir TEXT NOT NULL, CHECK (ID IN (1)));
CREATE TABLE ContainerConfig(ID TEXT PRIMARY KEY NOT NULL, Name TEXT UNIQUE NOT NULL, PodID TEXT, JSON TEXT NOT NULL);
CREATE TABLE ContainerState(ID TEXT PRIMARY KEY NOT NULL, State INTEGER NOT NULL, ExitCode INTEGER, JSON TEXT NOT NULL);
CREATE TABLE PodConfig(ID TEXT PRIMARY KEY NOT NULL, Name TEXT UNIQUE NOT NULL, JSON TEXT NOT NULL);
CREATE TABLE VolumeConfig(Name TEXT PRIMARY KEY NOT NULL, StorageID TEXT, JSON TEXT NOT NULL);
"""
CONFIG = {
    "id": ID,
    "name": "web",
    "rootfsImageName": "localhost/bb:latest",
    "createdTime": "2026-01-01T00:00:00Z",
    "staticDir": f"{GRAPH}/overlay-containers/{ID}/userdata",
    "newNetworks": {"n1": {"interface_name": "eth0"}},
    "netNsCtr": INFRA,
    "cgroupParent": "machine.slice",
    "pod": POD,
}
STATE = {
    "state": 3,
    "pid": 11,
    "conmonPid": 10,
    "netns": PIN,
    "mountPoint": f"{GRAPH}/overlay/{LAYER}/merged",
    "networkStatus": {"n1": {"interfaces": {"eth0": {"subnets": [{"ipnet": "10.89.0.2/24"}]}}}},
}


class Disk:
    def __init__(self, root: pathlib.Path) -> None:
        self.root, self.host = root, Host(str(root))

    def path(self, path: str) -> pathlib.Path:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def write(self, path: str, content: Any) -> None:
        self.path(path).write_text(content if isinstance(content, str) else json.dumps(content))

    def database(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path(f"{GRAPH}/db.sql"))
        connection.executescript(TABLES)
        settings = (
            1,
            1,
            "linux",
            f"{GRAPH}/libpod",
            "/run/libpod",
            GRAPH,
            "/run/containers/storage",
            "",
            f"{GRAPH}/volumes",
        )
        connection.execute(f"INSERT INTO DBConfig VALUES ({','.join('?' * 9)})", settings)
        # Podman's driver writes a []byte: what is read is a blob.
        self.container(connection, ID, "web", CONFIG, STATE)
        connection.execute("INSERT INTO PodConfig VALUES (?, 'p1', '{}')", (POD,))
        volume = {"mountPoint": f"{GRAPH}/volumes/v/_data", "volumeOptions": {"o": "bind", "device": "/srv"}}
        connection.execute("INSERT INTO VolumeConfig VALUES ('v', NULL, ?)", (json.dumps(volume).encode(),))
        connection.commit()
        return connection

    def container(self, connection: sqlite3.Connection, id: Any, name: str, config: Any, state: Any) -> None:
        rows = (id, name, POD, json.dumps(config).encode()), (id, 1, json.dumps(state).encode())
        connection.execute("INSERT INTO ContainerConfig VALUES (?, ?, ?, ?)", rows[0])
        connection.execute("INSERT INTO ContainerState VALUES (?, ?, 0, ?)", rows[1])

    def read(self) -> tuple[dict[str, Record], list[str]]:
        records, faults = libpod.read_database(self.host, GRAPH)
        return {f"{record.type} {record.name}": record for record in records}, faults


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Disk:
    return Disk(tmp_path)


def test_containers_pods_and_volumes(disk: Disk) -> None:
    disk.database().close()
    records, faults = disk.read()
    assert not faults and set(records) == {
        f"podman {ID}",
        f"podman-pod {POD}",
        "podman-volume v",
        f"podman-db {GRAPH}/db.sql",
    }
    assert records[f"podman {ID}"].facts == {
        "id": ID, "name": "web", "image": "localhost/bb:latest", "created": "2026-01-01T00:00:00Z", "state": "running",
        "pid": 11, "conmon": 10, "pod": POD, "infra": False, "netns": PIN, "mount": STATE["mountPoint"],
        "static": CONFIG["staticDir"], "networks": ["n1"], "addresses": ["10.89.0.2"], "network_of": INFRA,
        "cgroup": "machine.slice", "health": "",
    }  # fmt: skip
    assert records["podman-volume v"].facts["device"] == "/srv"
    assert records[f"podman-db {GRAPH}/db.sql"].facts["whole"]


def test_the_database_of_before(disk: Disk) -> None:
    """Podman 4.3 in bookworm; one that began with it goes on with it."""
    config, state = json.dumps(CONFIG).encode(), json.dumps({**STATE, "netns": None}).encode()
    tree: Tree = {
        b"ctr": {
            ID.encode(): {b"config": config, b"state": state, b"netns": PIN.encode(), b"dependencies": {}},
            b"../x": {b"config": config},
        },
        b"pod": {POD.encode(): {b"config": b'{"name": "p1"}'}},
        b"vol": {b"v": {b"config": b'{"mountPoint": "/v", "volumeOptions": {"type": "tmpfs"}}'}},
        b"name-registry": {b"web": ID.encode()},
    }
    path = f"{GRAPH}/libpod/bolt_state.db"
    disk.path(path).write_bytes(Writer().file(tree))
    old, faults = disk.read()
    assert len(faults) == 1 and "impossible id" in faults[0]
    assert set(old) == {f"podman {ID}", f"podman-pod {POD}", "podman-volume v", f"podman-db {path}"}
    disk.path(path).unlink()
    disk.database().close()
    new, faults = disk.read()
    assert not faults and old[f"podman {ID}"] == new[f"podman {ID}"]


def test_nothing_is_there(disk: Disk) -> None:
    assert disk.read() == ({}, [])
    for read in (
        libpod.read_store,
        libpod.read_persistent,
        libpod.read_networks,
        libpod.read_firewall,
        libpod.read_states,
    ):
        assert read(disk.host, "/nowhere") == ([], [])


def test_what_a_container_is_now_is_in_the_json(disk: Disk) -> None:
    """The column stays at what it was when it was made (seen on 5.4.2)."""
    connection = disk.database()
    connection.execute("UPDATE ContainerState SET State = 1")
    connection.commit()
    connection.close()
    records, faults = disk.read()
    assert not faults and records[f"podman {ID}"].facts["state"] == "running"


def test_a_change_that_was_not_finished_is_not_read(disk: Disk) -> None:
    """Podman killed in the middle of a commit leaves its journal: what was there before counts."""
    connection = disk.database()
    connection.execute("PRAGMA cache_size=1")
    connection.execute("PRAGMA cache_spill=1")
    for number in range(400):
        disk.container(connection, f"{number:064x}", f"n{number}", {**CONFIG, "x": "x" * 2000}, STATE)
    assert os.path.getsize(disk.path(f"{GRAPH}/db.sql-journal"))
    assert os.path.getsize(disk.path(f"{GRAPH}/db.sql")) > 1_000_000, "pages were written that are not committed"
    # As the disk would be after a kill: SQLite's lock is gone, the journal is not.
    copy = Disk(disk.root / "copy")
    for name in ("db.sql", "db.sql-journal"):
        copy.path(f"{GRAPH}/{name}").write_bytes(disk.path(f"{GRAPH}/{name}").read_bytes())
    connection.rollback()
    connection.close()
    records, faults = copy.read()
    assert not faults and [name for name in records if name.startswith("podman ")] == [f"podman {ID}"]


def test_a_database_of_an_enemy_s(disk: Disk) -> None:
    connection = disk.database()
    disk.container(connection, "../../etc", "out", CONFIG, STATE)
    disk.container(
        connection, "e" * 64, "\x1b[31mred", {"staticDir": "../x", "newNetworks": [1], "pause": "yes"}, {"pid": -1}
    )
    connection.execute("UPDATE ContainerConfig SET JSON = '[]' WHERE Name = 'web'")
    connection.execute("INSERT INTO VolumeConfig VALUES ('../up', NULL, '{}')")
    connection.commit()
    connection.close()
    records, faults = disk.read()
    assert [name for name in records if name.startswith("podman ")] == [f"podman {ID}", f"podman {'e' * 64}"]
    strange = records[f"podman {'e' * 64}"].facts
    assert (strange["name"], strange["static"], strange["networks"], strange["pid"], strange["infra"]) == (
        "",
        "",
        [],
        0,
        False,
    )
    assert records[f"podman {ID}"].facts["image"] == "" and "podman-volume ../up" not in records
    assert len(faults) == 1 and "impossible id" in faults[0]
    assert not records[f"podman-db {GRAPH}/db.sql"].facts["whole"]


def test_no_database_and_half_of_one(disk: Disk) -> None:
    disk.write(f"{GRAPH}/db.sql", "not a database" * 100)
    records, faults = disk.read()
    assert not records and len(faults) == 1
    disk.path(f"{GRAPH}/db.sql").unlink()
    os.symlink("/etc/passwd", disk.path(f"{GRAPH}/db.sql"))
    records, faults = disk.read()
    assert not records and len(faults) == 1


def test_the_store_tells_whose_a_container_is(disk: Disk) -> None:
    def entry(id: str, **metadata: str) -> dict[str, Any]:
        return {"id": id, "layer": LAYER, "metadata": json.dumps(metadata) if metadata else ""}

    of_podman = entry(ID, **{"image-id": "x", "name": "web"})
    of_crio = entry(INFRA, **{"image-id": "x", "pod-id": POD, "pod-name": "p"})
    of_buildah = entry(POD)
    disk.write(f"{GRAPH}/overlay-containers/containers.json", [of_podman, of_crio, {"id": "../x"}])
    disk.write(f"{GRAPH}/overlay-containers/volatile-containers.json", [of_buildah])
    disk.write(f"{GRAPH}/overlay-images/images.json", [{"names": ["localhost/podman-pause:5.4"]}, {"names": []}, {}])
    disk.path(f"{GRAPH}/volumes/v").mkdir(parents=True)
    records, faults = libpod.read_store(disk.host, GRAPH)
    assert {record.name: record.facts["by"] for record in records[:-1]} == {ID: "podman", INFRA: "crio", POD: ""}
    assert records[0].facts["layer"] == LAYER
    assert not faults and records[-1].facts == {"whole": True, "images": 2, "volumes": 1, "secrets": 0}
    for broken in ("{", "{}", "[1]", '[], "x": [1]'):
        disk.write(f"{GRAPH}/overlay-containers/containers.json", broken)
        records, faults = libpod.read_store(disk.host, GRAPH)
        assert len(faults) == 1 and not records[-1].facts["whole"], broken


def test_networks_and_what_netavark_has_set_up(disk: Disk) -> None:
    network = {"name": "n1", "id": ID, "driver": "bridge", "network_interface": "podman1"}
    subnets = [{"subnet": "10.89.0.0/24", "gateway": "10.89.0.1"}]
    disk.write("/etc/containers/networks/n1.json", {**network, "subnets": subnets})
    disk.write("/etc/containers/networks/lan.json", {**network, "name": "lan", "options": {"mode": "unmanaged"}})
    disk.write("/etc/containers/networks/x.json", network)  # of another name
    records, faults = libpod.read_networks(disk.host, "/etc/containers/networks")
    assert [(r.name, r.facts["managed"], r.facts["subnets"]) for r in records] == [
        ("lan", False, []),
        ("n1", True, ["10.89.0.0/24"]),
    ]
    state = {"subnets": ["10.89.0.0/24"], "bridge_name": "podman1", "network_id": ID, "network_hash_name": "1D87"}
    disk.write(f"/run/n/networks/{ID}", state)
    disk.write(f"/run/n/networks/{POD}", state)
    disk.write(f"/run/n/ports/{ID}_{POD}", {})
    records, more = libpod.read_firewall(disk.host, "/run/n")
    assert [(r.type, r.name) for r in records] == [("netavark", ID), ("port", f"/run/n/ports/{ID}_{POD}")]
    assert records[0].facts["bridge"] == "podman1" and not faults and not more


def test_what_the_runtimes_say(disk: Disk) -> None:
    bundle = f"{GRAPH}/overlay-containers/{ID}/userdata"
    disk.write(f"/run/crun/{ID}/status", {"pid": 11, "process-start-time": 99, "bundle": bundle})
    state = {"init_process_pid": 12, "init_process_start": 98, "config": {"labels": [f"bundle={bundle}"]}}
    disk.write(f"/run/crun/{POD}/state.json", state)
    disk.write(f"/run/crun/{INFRA}/status", {"pid": "11", "process-start-time": -1, "bundle": "../x"})
    disk.write("/run/crun/.cache/status", {})
    records, faults = libpod.read_states(disk.host, "/run/crun")
    assert records[0].facts["rootfs"] == ""
    assert {r.facts["id"]: (r.facts["pid"], r.facts["start"], r.facts["bundle"]) for r in records} == {
        ID: (11, 99, bundle),
        POD: (12, 98, bundle),
        INFRA: (0, 0, ""),
    }
    assert not faults
