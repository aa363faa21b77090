"""database/global/db.bin and db.bin-wal: Incus' whole database as SQLite files, as of its last clean shutdown.

Written by internal/server/cluster/gateway.go (Shutdown, Sync) from what cowsql dumps: the image of the last checkpoint
and the log since. Without the log an image can be many changes old (seen: all instances still running in it).
The tables are those of internal/server/db/cluster/schema.go. While the daemon runs the files are absent or old.

SQLite is not asked to join, sort or compute: each table is read whole and put together here. So a file made by
an enemy has no views, triggers, virtual tables, generated columns or functions to run.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from leftovers.errors import Unreadable
from leftovers.evidence import files, incus_records
from leftovers.evidence.files import note
from leftovers.host import LIMIT, Host
from leftovers.model import Deadline, Record

if TYPE_CHECKING:
    import sqlite3

__all__ = ["read"]

ROWS = 250_000  # of one table
SECONDS = 20.0
COPIES = 5  # how often a file that changes under way is read again
BYTES = 256 * files.MIB  # of text in all: rows of a broken file can share their pages
PLAIN = re.compile(r"\s*CREATE\s+TABLE\s", re.IGNORECASE)
# A journal that ends so names another one, of several databases at once; when it is rolled back SQLite deletes the file
# of that name, whatever it is (src/pager.c, readSuperJournal and pager_delsuper).
SUPER = bytes.fromhex("d9d505f920a163d7")

Row = dict[str, Any]
Tables = dict[str, list[Row]]

# The tables and columns that are read. A column with "?" may be missing, and so may all of these tables' rows.
SCHEMA: dict[str, tuple[str, ...]] = {
    "projects": ("id", "name"),
    "nodes": ("id", "name?", "address?"),
    "networks": ("id", "project_id", "name", "type", "state?"),
    "networks_config": ("network_id", "node_id", "key", "value"),
    "networks_nodes": ("network_id", "node_id", "state"),
    "storage_pools": ("id", "name", "driver", "state?"),
    "storage_pools_config": ("storage_pool_id", "node_id", "key", "value"),
    "storage_pools_nodes": ("storage_pool_id", "node_id", "state?"),
    "instances": ("id", "node_id", "name", "type", "ephemeral?", "project_id"),
    "instances_config": ("instance_id", "key", "value"),
    "instances_devices": ("id", "instance_id", "name", "type"),
    "instances_devices_config": ("instance_device_id", "key", "value"),
    "instances_profiles": ("instance_id", "profile_id", "apply_order"),
    "profiles_config": ("profile_id", "key", "value"),
    "profiles_devices": ("id", "profile_id", "name", "type"),
    "profiles_devices_config": ("profile_device_id", "key", "value"),
}
LOCAL_SCHEMA = {"config": ("key", "value")}

# internal/server/db/networks.go NetworkType and NetworkState, instancetype/instance_type.go, cluster/devices.go.
NETWORK_TYPES = {0: "bridge", 1: "macvlan", 2: "sriov", 3: "ovn", 4: "physical"}
STATES = {0: "Pending", 1: "Created", 2: "Errored"}
INSTANCE_TYPES = {0: "container", 1: "virtual-machine"}
DEVICE_TYPES = {
    0: "none", 1: "nic", 2: "disk", 3: "unix-char", 4: "unix-block", 5: "usb", 6: "gpu", 7: "infiniband",
    8: "proxy", 9: "unix-hotplug", 10: "tpm", 11: "pci",
}  # fmt: skip


def read(host: Host, path: str) -> tuple[list[Record], list[str]]:
    """The networks, pools and instances of a db.bin, e.g. /var/lib/incus/database/global/db.bin, and its cluster.

    Of a cluster's database only this member's instances and settings; which member that is stands in the
    local.db one directory above. Each record has the fact `stale`: the daemon has run since this was written.
    """
    faults: list[str] = []
    tables = load(host, path, SCHEMA, faults)
    if tables is None:
        return [], faults
    own = member(host, path, tables, faults)
    # raft's open segments are there from the daemon's start to its clean shutdown, which writes the image anew.
    beside = files.entries(host, os.path.dirname(path), "", faults)
    stale = {"stale": any(name.startswith("open-") for name, _ in beside)}
    records = [
        *cluster(path, tables, own),
        *networks(path, tables, own, faults),
        *pools(path, tables, own, faults),
        *instances(path, tables, own, faults),
    ]
    return [replace(record, facts={**record.facts, **stale}) for record in records], faults


def load(host: Host, path: str, schema: Mapping[str, tuple[str, ...]], faults: list[str]) -> Tables | None:
    """The tables of a SQLite file. None when it is absent or no database; what is missing in it goes to `faults`.

    Somebody may be in the middle of a change, or have died in it: then its journal has what was there before."""
    try:
        import sqlite3
    except ImportError:
        note(faults, path, "Python's sqlite3 is missing")
        return None
    try:
        base, name = os.path.split(path)
        for _ in range(COPIES):
            data = files.read(host, base, name, LIMIT)
            wal, journal = (files.read(host, base, f"{name}-{log}", LIMIT) or b"" for log in ("wal", "journal"))
            if files.read(host, base, name, LIMIT) == data:
                break
        else:
            raise ValueError("changes faster than it can be read")
        if data is None:
            return None
        with opened(data, wal, journal) as connection:
            return tables_of(connection, path, schema, faults)
    except Unreadable as error:
        note(faults, error.what, error.cause)
    except (sqlite3.Error, OSError, ValueError, OverflowError, MemoryError) as error:
        note(faults, path, str(error) or type(error).__name__)
    return None


@contextmanager
def opened(data: bytes, wal: bytes, journal: bytes = b"") -> Iterator[sqlite3.Connection]:
    """A connection to a private copy of the database and its log. Raises sqlite3.Error, OSError, ValueError.

    A copy, because the original may change under SQLite's feet, and because SQLite would write beside it.
    """
    import sqlite3

    if journal.endswith(SUPER):
        raise ValueError("its journal is one of several")
    with tempfile.TemporaryDirectory(prefix="leftovers-") as directory:
        path = f"{directory}/db.bin"
        for name, content in ((path, data), (f"{path}-wal", wal), (f"{path}-journal", journal)):
            with open(name, "xb") as file:
                file.write(content)
        connection = sqlite3.connect(path)
        try:
            deadline = Deadline(SECONDS)
            connection.set_progress_handler(deadline.passed, 10_000)
            connection.text_factory = lambda value: value.decode("utf-8", "replace")
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # the log's index in memory, not in a file
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("PRAGMA cell_size_check=ON")
            connection.execute("PRAGMA query_only=ON")
            # The log says how many pages there are, and SQLite bounds the length of a value by that.
            (pages,), (size,) = (connection.execute(f"PRAGMA {of}").fetchone() for of in ("page_count", "page_size"))
            if pages * size > len(data) + len(wal) + len(journal):
                raise ValueError("its log claims more pages than there are")
            yield connection
        finally:
            connection.close()


def tables_of(
    connection: sqlite3.Connection, path: str, schema: Mapping[str, tuple[str, ...]], faults: list[str]
) -> Tables:
    """Every table of `schema`, each row as a dict of the columns asked for. Raises sqlite3.Error, ValueError."""
    import sqlite3

    listed = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
    # A virtual table is of type "table" too.
    plain = {name for name, sql in listed if isinstance(sql, str) and PLAIN.match(sql)}
    size = 0
    tables: Tables = {}
    for table, columns in schema.items():
        tables[table] = []
        if table not in plain:
            note(faults, path, f"has no table {table}")
            continue
        try:
            for row in rows(connection, table, columns):
                size += sum(len(value) for value in row.values() if isinstance(value, (str, bytes)))
                if len(tables[table]) >= ROWS or size > BYTES:
                    raise ValueError("too large")
                tables[table].append(row)
        except (sqlite3.Error, ValueError) as error:
            note(faults, path, f"table {table}: {error}")
    return tables


def rows(connection: sqlite3.Connection, table: str, columns: tuple[str, ...]) -> Iterator[Row]:
    """The rows of a plain table. Raises ValueError when a column is missing that must be there, sqlite3.Error."""
    # hidden is 2 or 3 for a generated column: it would be an expression to evaluate.
    info = connection.execute(f"PRAGMA table_xinfo({table})")
    there = {name for _, name, _, _, _, _, hidden in info if hidden == 0}
    wanted = [column.rstrip("?") for column in columns]
    for column, name in zip(columns, wanted, strict=True):
        if name not in there and not column.endswith("?"):
            raise ValueError(f"no column {name}")
    names = [name for name in wanted if name in there]
    selected = ", ".join(f'"{name}"' for name in names)
    for row in connection.execute(f'SELECT {selected} FROM "{table}" NOT INDEXED'):
        yield dict(zip(names, row, strict=True))


def member(host: Host, path: str, tables: Tables, faults: list[str]) -> int | None:
    """The node_id of this host: the only one there is, or the one whose address local.db has. None: not known."""
    nodes = tables["nodes"]
    if len(nodes) <= 1:
        return number(nodes[0].get("id")) if nodes else None
    local_path = f"{os.path.dirname(os.path.dirname(path))}/local.db"
    local = load(host, local_path, LOCAL_SCHEMA, faults) or {"config": []}
    address = pairs(local["config"]).get("cluster.https_address")
    own = [number(node.get("id")) for node in nodes if address and node.get("address") == address]
    if len(own) != 1:
        note(faults, path, "of a cluster, and nothing says which member this host is")
        return None
    return own[0]


def cluster(path: str, tables: Tables, own: int | None) -> list[Record]:
    """The "cluster" Record, if there are other members."""
    names = {number(row.get("id")): row.get("name") for row in tables["nodes"]}
    return incus_records.cluster("database", names.get(own) if own is not None else "", list(names.values()))


def networks(path: str, tables: Tables, own: int | None, faults: list[str]) -> list[Record]:
    """The "network" Records: all that the database has is managed."""
    projects = {row["id"]: row["name"] for row in tables["projects"]}
    config = grouped(mine(tables["networks_config"], own), "network_id")
    states = {row["network_id"]: row["state"] for row in tables["networks_nodes"] if row["node_id"] == own}
    found = []
    for row in tables["networks"]:
        data = {
            "name": row["name"],
            "project": projects.get(row["project_id"]),
            "type": NETWORK_TYPES.get(number(row["type"]), ""),
            "managed": True,
            "number": row["id"],
            "status": STATES.get(number(states.get(row["id"], row.get("state"))), ""),
            "config": pairs(config.get(row["id"], [])),
        }
        found.append(incus_records.network("database", path, data, faults))
    return [record for record in found if record is not None]


def pools(path: str, tables: Tables, own: int | None, faults: list[str]) -> list[Record]:
    """The "pool" Records."""
    config = grouped(mine(tables["storage_pools_config"], own), "storage_pool_id")
    states = {
        row["storage_pool_id"]: row.get("state") for row in tables["storage_pools_nodes"] if row["node_id"] == own
    }
    found = []
    for row in tables["storage_pools"]:
        data = {
            "name": row["name"],
            "driver": row["driver"],
            "status": STATES.get(number(states.get(row["id"], row.get("state"))), ""),
            "config": pairs(config.get(row["id"], [])),
        }
        found.append(incus_records.pool("database", path, data, faults))
    return [record for record in found if record is not None]


def instances(path: str, tables: Tables, own: int | None, faults: list[str]) -> list[Record]:
    """The "instance" Records of this member, profiles applied in their order and the instance's own on top.

    A device of the same name replaces the profile's whole (instancetype/instance_utils.go ExpandInstanceDevices).
    """
    projects = {row["id"]: row["name"] for row in tables["projects"]}
    own_config = grouped(tables["instances_config"], "instance_id")
    profile_config = grouped(tables["profiles_config"], "profile_id")
    own_devices = devices(tables["instances_devices"], "instance_id", tables["instances_devices_config"])
    profile_devices = devices(tables["profiles_devices"], "profile_id", tables["profiles_devices_config"])
    profiles = grouped(tables["instances_profiles"], "instance_id")
    found = []
    for row in mine(tables["instances"], own):
        if row["project_id"] not in projects:
            note(faults, path, f"an instance {ascii(row['name'])[:80]} is of a project that there is not")
            continue
        expanded_config: dict[str, str] = {}
        expanded_devices: dict[str, dict[str, str]] = {}
        for each in sorted(profiles.get(row["id"], []), key=lambda each: number(each["apply_order"])):
            expanded_config |= pairs(profile_config.get(each["profile_id"], []))
            expanded_devices |= profile_devices.get(each["profile_id"], {})
        data = {
            "name": row["name"],
            "project": projects[row["project_id"]],
            "type": INSTANCE_TYPES.get(number(row["type"])),
            "ephemeral": row.get("ephemeral"),
            "expanded_config": expanded_config | pairs(own_config.get(row["id"], [])),
            "expanded_devices": expanded_devices | own_devices.get(row["id"], {}),
        }
        found.append(incus_records.instance("database", path, data, faults))
    return [record for record in found if record is not None]


def devices(rows: list[Row], owner: str, config: list[Row]) -> dict[Any, dict[str, dict[str, str]]]:
    """Devices as the API has them, by owner and name: the keys of a *_devices_config table, and their type."""
    reference = "instance_device_id" if owner == "instance_id" else "profile_device_id"
    keys = grouped(config, reference)
    result: dict[Any, dict[str, dict[str, str]]] = {}
    for row in rows:
        if isinstance(row["name"], str):
            device = pairs(keys.get(row["id"], [])) | {"type": DEVICE_TYPES.get(number(row["type"]), "")}
            result.setdefault(row[owner], {})[row["name"]] = device
    return result


def mine(rows: list[Row], own: int | None) -> list[Row]:
    """The rows that hold for every member of a cluster, and those that hold for this one."""
    return [row for row in rows if row["node_id"] is None or row["node_id"] == own]


def grouped(rows: list[Row], column: str) -> dict[Any, list[Row]]:
    """Rows by what they have in a column."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return groups


def pairs(rows: list[Row]) -> dict[str, str]:
    """key and value columns as a string map."""
    return {row["key"]: row["value"] for row in rows if isinstance(row["key"], str) and isinstance(row["value"], str)}


def number(value: object) -> int:
    """SQLite lets a column of integers hold anything: -1 for what is none."""
    return value if isinstance(value, int) else -1
