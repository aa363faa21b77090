"""db.bin with the tables of Incus 6.0.4, and with what an enemy would put there."""

from __future__ import annotations

import os
import pathlib
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator

import pytest

from leftovers.evidence import incus_database
from leftovers.host import Host
from leftovers.model import Record

PATH = "/var/lib/incus/database/global/db.bin"

# `SELECT sql FROM sqlite_master` of a real 6.0.4, the tables that are read.
SCHEMA = """
CREATE TABLE "projects" (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT NOT NULL, description TEXT NOT NULL, UNIQUE (name)
);
CREATE TABLE "nodes" (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT NOT NULL, description TEXT NOT NULL,
    address TEXT NOT NULL, schema INTEGER NOT NULL, api_extensions INTEGER NOT NULL,
    heartbeat DATETIME DEFAULT CURRENT_TIMESTAMP, state INTEGER NOT NULL DEFAULT 0,
    arch INTEGER NOT NULL DEFAULT 0 CHECK (arch > 0), UNIQUE (name), UNIQUE (address)
);
CREATE TABLE "networks" (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, project_id INTEGER NOT NULL, name TEXT NOT NULL,
    description TEXT NOT NULL, state INTEGER NOT NULL DEFAULT 0, type INTEGER NOT NULL DEFAULT 0,
    UNIQUE (project_id, name), FOREIGN KEY (project_id) REFERENCES "projects" (id) ON DELETE CASCADE
);
CREATE TABLE "networks_config" (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, network_id INTEGER NOT NULL, node_id INTEGER,
    key TEXT NOT NULL, value TEXT NOT NULL, UNIQUE (network_id, node_id, key)
);
CREATE TABLE "networks_nodes" (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, network_id INTEGER NOT NULL, node_id INTEGER NOT NULL,
    state INTEGER NOT NULL DEFAULT 0, UNIQUE (network_id, node_id)
);
CREATE TABLE "storage_pools" (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT NOT NULL, driver TEXT NOT NULL,
    description TEXT NOT NULL, state INTEGER NOT NULL DEFAULT 0, UNIQUE (name)
);
CREATE TABLE "storage_pools_config" (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, storage_pool_id INTEGER NOT NULL, node_id INTEGER,
    key TEXT NOT NULL, value TEXT NOT NULL, UNIQUE (storage_pool_id, node_id, key)
);
CREATE TABLE "storage_pools_nodes" (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, storage_pool_id INTEGER NOT NULL, node_id INTEGER NOT NULL,
    state INTEGER NOT NULL DEFAULT 0, UNIQUE (storage_pool_id, node_id)
);
CREATE TABLE "instances" (
    id INTEGER primary key AUTOINCREMENT NOT NULL, node_id INTEGER NOT NULL, name TEXT NOT NULL,
    architecture INTEGER NOT NULL, type INTEGER NOT NULL, ephemeral INTEGER NOT NULL DEFAULT 0,
    creation_date DATETIME NOT NULL DEFAULT 0, stateful INTEGER NOT NULL DEFAULT 0, last_use_date DATETIME,
    description TEXT NOT NULL, project_id INTEGER NOT NULL, expiry_date DATETIME, UNIQUE (project_id, name)
);
CREATE TABLE "instances_config" (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, instance_id INTEGER NOT NULL, key TEXT NOT NULL,
    value TEXT NOT NULL, UNIQUE (instance_id, key)
);
CREATE TABLE "instances_devices" (
    id INTEGER primary key AUTOINCREMENT NOT NULL, instance_id INTEGER NOT NULL, name TEXT NOT NULL,
    type INTEGER NOT NULL default 0, UNIQUE (instance_id, name)
);
CREATE TABLE "instances_devices_config" (
    id INTEGER primary key AUTOINCREMENT NOT NULL, instance_device_id INTEGER NOT NULL, key TEXT NOT NULL,
    value TEXT NOT NULL, UNIQUE (instance_device_id, key)
);
CREATE TABLE "instances_profiles" (
    id INTEGER primary key AUTOINCREMENT NOT NULL, instance_id INTEGER NOT NULL, profile_id INTEGER NOT NULL,
    apply_order INTEGER NOT NULL default 0, UNIQUE (instance_id, profile_id)
);
CREATE TABLE "profiles" (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, name TEXT NOT NULL, description TEXT NOT NULL,
    project_id INTEGER NOT NULL, UNIQUE (project_id, name)
);
CREATE TABLE "profiles_config" (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, profile_id INTEGER NOT NULL, key TEXT NOT NULL,
    value TEXT NOT NULL, UNIQUE (profile_id, key)
);
CREATE TABLE "profiles_devices" (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, profile_id INTEGER NOT NULL, name TEXT NOT NULL,
    type INTEGER NOT NULL default 0, UNIQUE (profile_id, name)
);
CREATE TABLE "profiles_devices_config" (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, profile_device_id INTEGER NOT NULL, key TEXT NOT NULL,
    value TEXT NOT NULL, UNIQUE (profile_device_id, key)
);
"""

# A trimmed real host: c1 of profile default, q1 of profiles default and extra, p1 in a project of its own.
CONTENT = """
INSERT INTO projects VALUES (1, 'default', 'Default Incus project'), (2, 'proj', '');
INSERT INTO nodes VALUES (1, 'none', '', '0.0.0.0', 73, 450, '2026-11-20 23:39:23', 0, 2);
INSERT INTO networks VALUES (1, 1, 'incusbr0', '', 1, 0), (4, 1, 'mv', '', 1, 1), (6, 1, 'uplink', '', 0, 4);
INSERT INTO networks_config VALUES (1, 1, NULL, 'ipv4.address', '10.153.142.1/24'), (2, 1, NULL, 'ipv4.nat', 'true'),
    (3, 1, NULL, 'ipv6.address', 'fd42:e5c8:7aca:cfc6::1/64'), (4, 1, 1, 'bridge.external_interfaces', 'admin0'),
    (5, 4, 1, 'parent', 'br-lan'), (6, 6, 1, 'parent', 'eno2'), (7, 6, 1, 'volatile.last_state.created', 'false');
INSERT INTO networks_nodes VALUES (1, 1, 1, 1), (4, 4, 1, 1);
INSERT INTO storage_pools VALUES (1, 'default', 'dir', '', 1), (2, 'pool2', 'dir', '', 1);
INSERT INTO storage_pools_config VALUES (1, 1, 1, 'source', '/var/lib/incus/storage-pools/default'),
    (2, 2, 1, 'source', '/srv/pool');
INSERT INTO storage_pools_nodes VALUES (1, 1, 1, 1), (2, 2, 1, 1);
INSERT INTO instances VALUES
    (1, 1, 'c1', 2, 0, 0, '2026-11-20 23:39:33+00:00', 0, NULL, '', 1, '0001-01-01 00:00:00+00:00'),
    (2, 1, 'q1', 2, 1, 0, 0, 0, NULL, '', 1, NULL),
    (3, 1, 'p1', 2, 0, 1, 0, 0, NULL, '', 2, NULL);
INSERT INTO instances_config VALUES (1, 1, 'volatile.uuid', '00d0a890-7551-453b-a3d5-f5fe4fee9dd8'),
    (2, 1, 'volatile.eth0.host_name', 'veth3a27704b'), (3, 1, 'volatile.eth0.hwaddr', '10:66:6a:0a:8f:ad'),
    (4, 2, 'volatile.eth9.hwaddr', '10:66:6a:7d:2e:59'), (5, 2, 'volatile.eth9.last_state.created', 'false');
INSERT INTO instances_devices VALUES (1, 1, 'data', 2), (2, 1, 'web', 8);
INSERT INTO instances_devices_config VALUES (1, 1, 'source', '/srv/data'), (2, 1, 'path', '/mnt/data'),
    (3, 1, 'type', 'disk'), (4, 2, 'listen', 'tcp:127.0.0.1:8080'), (5, 2, 'type', 'proxy');
INSERT INTO profiles VALUES (1, 'default', '', 1), (3, 'extra', '', 1);
INSERT INTO profiles_config VALUES (1, 1, 'volatile.uuid', 'from the profile');
INSERT INTO profiles_devices VALUES (1, 1, 'eth0', 1), (2, 1, 'root', 2), (4, 3, 'eth9', 1), (5, 3, 'eth0', 0);
INSERT INTO profiles_devices_config VALUES (1, 1, 'name', 'eth0'), (2, 1, 'network', 'incusbr0'), (3, 1, 'type', 'nic'),
    (4, 2, 'path', '/'), (5, 2, 'pool', 'default'), (6, 2, 'type', 'disk'), (7, 4, 'nictype', 'bridged'),
    (8, 4, 'parent', 'br-lan'), (9, 4, 'host_name', 'xx9'), (10, 4, 'vlan', '7'), (11, 5, 'type', 'none');
INSERT INTO instances_profiles VALUES (1, 1, 1, 1), (2, 2, 3, 2), (3, 2, 1, 1), (4, 3, 1, 1);
"""


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    (tmp_path / "var/lib/incus/database/global").mkdir(parents=True)
    return Host(str(tmp_path))


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The private copies are gone after every test."""
    directory = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    yield
    assert os.listdir(directory) == []


def make(host: Host, *scripts: str, path: str = PATH) -> None:
    with sqlite3.connect(host.path(path)) as connection:
        for script in scripts:
            connection.executescript(script)
    connection.close()


def of(records: list[Record], type_: str) -> dict[str, Record]:
    return {record.name: record for record in records if record.type == type_}


def test_networks_and_pools(host: Host) -> None:
    make(host, SCHEMA, CONTENT)
    records, faults = incus_database.read(host, PATH)
    assert faults == []
    assert all(record.source == "database" and record.facts["stale"] is False for record in records)
    networks = of(records, "network")
    assert networks["incusbr0"].facts == {
        "project": "default",
        "type": "bridge",
        "managed": True,
        "number": 1,
        "status": "Created",
        "config": {
            "ipv4.address": "10.153.142.1/24",
            "ipv4.nat": "true",
            "ipv6.address": "fd42:e5c8:7aca:cfc6::1/64",
            "bridge.external_interfaces": "admin0",
        },
        "addresses": ["10.153.142.1", "fd42:e5c8:7aca:cfc6::1"],
        "stale": False,
    }
    assert (networks["mv"].facts["type"], networks["mv"].facts["config"]) == ("macvlan", {"parent": "br-lan"})
    assert (networks["uplink"].facts["type"], networks["uplink"].facts["status"]) == ("physical", "Pending")
    pool = of(records, "pool")["pool2"].facts
    assert (pool["driver"], pool["source"], pool["config"]) == ("dir", "/srv/pool", {"source": "/srv/pool"})


def test_a_cluster(host: Host) -> None:
    make(host, SCHEMA, CONTENT)
    assert of(incus_database.read(host, PATH)[0], "cluster") == {}, "one member has nobody else"
    assert of(incus_database.read(host, PATH)[0], "network")["uplink"].facts["number"] == 6
    path = host.path(PATH)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE nodes SET name = 'b', address = '10.0.0.2:8443'")
        connection.execute("INSERT INTO nodes VALUES (2, 'a', '', '10.0.0.1:8443', 73, 450, '2026-11-20', 0, 2)")
    connection.close()
    local = "CREATE TABLE config (id INTEGER, key TEXT, value TEXT);"
    address = "INSERT INTO config VALUES (1, 'cluster.https_address', '10.0.0.2:8443')"
    make(host, local, address, path="/var/lib/incus/database/local.db")
    assert {n: r.facts["members"] for n, r in of(incus_database.read(host, PATH)[0], "cluster").items()} == {
        "b": ["a", "b"]
    }
    with sqlite3.connect(host.path("/var/lib/incus/database/local.db")) as connection:
        connection.execute("UPDATE config SET value = '10.0.0.9:8443'")
    connection.close()
    records, faults = incus_database.read(host, PATH)
    assert list(of(records, "cluster")) == [""] and faults


def test_instances(host: Host) -> None:
    make(host, SCHEMA, CONTENT)
    instances = of(incus_database.read(host, PATH)[0], "instance")
    assert list(instances) == ["c1", "q1", "proj_p1"]
    c1, q1, p1 = (instances[name].facts for name in instances)
    assert c1["uuid"] == "00d0a890-7551-453b-a3d5-f5fe4fee9dd8"
    assert (c1["type"], c1["running"], c1["ephemeral"], c1["proxies"]) == ("container", None, False, ["web"])
    (nic,) = c1["nics"]
    assert (nic["network"], nic["host_name"], nic["host_name_from"]) == ("incusbr0", "veth3a27704b", "volatile")
    assert [disk["device"] for disk in c1["disks"]] == ["data", "root"]
    assert (p1["project"], p1["instance"], p1["ephemeral"], p1["uuid"]) == ("proj", "p1", True, "from the profile")
    # The second profile in apply_order takes the first one's eth0 away.
    assert q1["type"] == "virtual-machine"
    assert q1["nics"] == [
        {
            "device": "eth9",
            "nictype": "bridged",
            "network": "",
            "parent": "br-lan",
            "vlan": "7",
            "host_name": "xx9",
            "host_name_from": "device",
            "hwaddr": "10:66:6a:7d:2e:59",
            "last_state": {"created": "false"},
        }
    ]


def test_the_log_is_part_of_it(host: Host) -> None:
    make(host, "PRAGMA journal_mode=WAL;", SCHEMA, CONTENT)
    connection = sqlite3.connect(host.path(PATH))
    connection.execute("DELETE FROM networks WHERE name = 'mv'")
    connection.commit()
    for suffix in ("", "-wal"):
        shutil.copy(host.path(PATH + suffix), host.path(PATH + ".copy" + suffix))
    connection.close()
    before = sorted(os.listdir(os.path.dirname(host.path(PATH))))
    records, faults = incus_database.read(host, PATH + ".copy")
    assert not faults and "mv" not in of(records, "network")
    os.remove(host.path(PATH + ".copy-wal"))
    records, faults = incus_database.read(host, PATH + ".copy")
    assert not faults and "mv" in of(records, "network")
    before.remove("db.bin.copy-wal")
    assert sorted(os.listdir(os.path.dirname(host.path(PATH)))) == before


def test_a_journal_has_no_file_of_the_host_s_deleted(host: Host, tmp_path: pathlib.Path) -> None:
    """One of several databases' (SQLite's pager.c, writeSuperJournal): who rolls it back deletes what it names."""
    make(host, SCHEMA, CONTENT)
    path = pathlib.Path(host.path(PATH))
    victim = tmp_path / "victim"
    victim.write_text("precious")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size=1")
    connection.execute("CREATE TABLE more (text)")
    connection.executemany("INSERT INTO more VALUES (?)", [("x" * 900,)] * 400)
    connection.execute("BEGIN")
    connection.execute("UPDATE more SET text = 'y' || text")
    name = os.fsencode(victim)
    tail = struct.pack(">II", len(name), sum(name)) + bytes.fromhex("d9d505f920a163d7")
    journal = pathlib.Path(f"{path}-journal").read_bytes() + struct.pack(">I", 0x40000000 // 4096 + 1) + name + tail
    copy = path.read_bytes()
    connection.close()
    path.write_bytes(copy)
    pathlib.Path(f"{path}-journal").write_bytes(journal)
    records, faults = incus_database.read(host, PATH)
    assert victim.read_text() == "precious"
    assert not records and "journal" in faults[0]


def test_stale(host: Host) -> None:
    make(host, SCHEMA, CONTENT)
    pathlib.Path(host.path(os.path.dirname(PATH)), "open-1").write_text("")
    assert all(record.facts["stale"] is True for record in incus_database.read(host, PATH)[0])


CLUSTER = """
INSERT INTO nodes VALUES (2, 'b', '', '192.0.2.2:8443', 73, 450, '', 0, 2);
UPDATE nodes SET name = 'a', address = '192.0.2.1:8443' WHERE id = 1;
INSERT INTO instances VALUES (9, 2, 'far', 2, 0, 0, 0, 0, NULL, '', 1, NULL);
INSERT INTO networks_config VALUES (99, 4, 2, 'parent', 'eno9');
INSERT INTO networks_nodes VALUES (99, 4, 2, 0);
"""
LOCAL = "CREATE TABLE config (id INTEGER PRIMARY KEY, key TEXT NOT NULL, value TEXT NOT NULL, UNIQUE (key));"


@pytest.mark.parametrize(("number", "parent", "status"), [(1, "br-lan", "Created"), (2, "eno9", "Pending")])
def test_member_of_a_cluster(host: Host, number: int, parent: str, status: str) -> None:
    make(host, SCHEMA, CONTENT, CLUSTER)
    address = f"INSERT INTO config VALUES (1, 'cluster.https_address', '192.0.2.{number}:8443');"
    make(host, LOCAL, address, path="/var/lib/incus/database/local.db")
    records, faults = incus_database.read(host, PATH)
    assert not faults
    assert list(of(records, "instance")) == (["c1", "q1", "proj_p1"] if number == 1 else ["far"])
    network = of(records, "network")["mv"].facts
    assert (network["config"], network["status"]) == ({"parent": parent}, status)


def test_member_not_known(host: Host) -> None:
    make(host, SCHEMA, CONTENT, CLUSTER)
    records, faults = incus_database.read(host, PATH)
    assert faults == [f"{PATH}: of a cluster, and nothing says which member this host is"]
    assert of(records, "instance") == {} and "incusbr0" in of(records, "network")


def test_absent(host: Host) -> None:
    assert incus_database.read(host, PATH) == ([], [])
    assert incus_database.read(host, "/none/db.bin") == ([], [])


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 5000], ids=len)
def test_no_database(host: Host, content: bytes) -> None:
    pathlib.Path(host.path(PATH)).write_bytes(content)
    records, faults = incus_database.read(host, PATH)
    assert records == [] and faults and all(fault.startswith(f"{PATH}: ") for fault in faults)


def test_cut_at_every_page_and_broken_in_every_page(host: Host) -> None:
    make(host, SCHEMA, CONTENT)
    file = pathlib.Path(host.path(PATH))
    whole = file.read_bytes()
    for offset in range(0, len(whole), 4096):
        file.write_bytes(whole[:offset])
        incus_database.read(host, PATH)
        file.write_bytes(whole[: offset + 8] + b"\xff" * 64 + whole[offset + 72 :])
        incus_database.read(host, PATH)


def test_no_file(host: Host) -> None:
    os.mkfifo(host.path(PATH))
    assert incus_database.read(host, PATH) == ([], [f"{PATH}: not a regular file"])


def test_missing_tables_and_columns(host: Host) -> None:
    make(host, SCHEMA, CONTENT, "DROP TABLE networks_config; ALTER TABLE networks DROP COLUMN state;")
    make(host, "DROP TABLE networks_nodes; DROP TABLE storage_pools; CREATE TABLE storage_pools (id, name);")
    records, faults = incus_database.read(host, PATH)
    assert faults == [
        f"{PATH}: has no table networks_config",
        f"{PATH}: has no table networks_nodes",
        f"{PATH}: table storage_pools: no column driver",
    ]
    assert of(records, "network")["incusbr0"].facts["status"] == ""
    assert len(of(records, "instance")) == 3 and not of(records, "pool")


def test_only_plain_tables_are_read(host: Host) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
    make(
        host,
        SCHEMA,
        CONTENT,
        "DROP TABLE instances; DROP TABLE projects; DROP TABLE nodes;",
        f"CREATE VIEW instances AS {endless} SELECT i id, 1 node_id, 'x' name, 0 type, 1 project_id FROM n;",
        "CREATE TABLE projects (id, name TEXT AS (hex(zeroblob(100000000))));",
        "PRAGMA writable_schema = ON;",
        "INSERT INTO sqlite_master VALUES ('table', 'nodes', 'nodes', 0, 'CREATE VIRTUAL TABLE nodes USING fts5(id)');",
    )
    records, faults = incus_database.read(host, PATH)
    assert of(records, "instance") == {}
    assert f"{PATH}: has no table instances" in faults
    assert f"{PATH}: has no table nodes" in faults
    assert f"{PATH}: table projects: no column name" in faults


def test_rows_have_an_end(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incus_database, "ROWS", 2)
    make(host, SCHEMA, CONTENT)
    assert f"{PATH}: table networks: too large" in incus_database.read(host, PATH)[1]
    monkeypatch.undo()
    monkeypatch.setattr(incus_database, "BYTES", 100)
    assert f"{PATH}: table networks_config: too large" in incus_database.read(host, PATH)[1]


def test_time_has_an_end(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incus_database, "SECONDS", 0.0)
    many = "INSERT INTO instances_config SELECT NULL, i, 'k', 'v' FROM n;"
    numbers = "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)"
    make(host, SCHEMA, CONTENT, f"{numbers} {many}")
    assert f"{PATH}: table instances_config: interrupted" in incus_database.read(host, PATH)[1]


def test_wrong_values(host: Host) -> None:
    make(
        host,
        SCHEMA,
        CONTENT,
        "UPDATE instances SET name = '../c1' WHERE id = 1;",
        "UPDATE instances SET name = x'ff00' WHERE id = 2;",
        "UPDATE instances SET name = CAST(x'61ff0a62' AS TEXT), type = 'x' WHERE id = 3;",
        "UPDATE networks SET name = 'evil\n0', type = x'00' WHERE id = 1;",
        "UPDATE networks SET type = 77, project_id = 'none' WHERE id = 4;",
        "UPDATE instances_profiles SET apply_order = 'x';",
        "UPDATE profiles_devices SET name = x'00', type = 1e300 WHERE id = 1;",
    )
    make(host, "INSERT INTO instances VALUES (4, 1, 'c1', 2, 0, 0, 0, 0, NULL, '', 77, NULL);")
    records, faults = incus_database.read(host, PATH)
    # The last one is of a project that there is not: it must not pass for one of project default.
    assert of(records, "instance") == {} and len(faults) == 5
    assert of(records, "network")["mv"].facts["type"] == ""
    assert all("\n" not in fault for fault in faults)
