"""backup.yaml as Incus 6.0.4 wrote it (trimmed), and as nobody should."""

from __future__ import annotations

import os
import pathlib

import pytest

from leftovers.evidence import incus_backup
from leftovers.host import Host

BACKUP = """\
container:
  architecture: x86_64
  config:
    user.x: "y"
    volatile.eth0.host_name: veth3a27704b
  devices:
    data:
      path: /mnt/data
      source: /srv/data
      type: disk
  ephemeral: false
  profiles:
  - default
  stateful: false
  description: ""
  created_at: 2026-11-20T23:39:33.422153632Z
  expanded_config:
    user.x: "y"
    volatile.eth0.host_name: veth3a27704b
    volatile.eth0.hwaddr: 10:66:6a:0a:8f:ad
    volatile.eth1.host_name: vethadmin0
    volatile.eth1.last_state.created: "false"
    volatile.eth1.last_state.hwaddr: 0a:38:14:f1:d2:7d
    volatile.eth1.last_state.mtu: "1500"
    volatile.eth1.last_state.pci.slot.name: 0000:00:05.0
    volatile.idmap.current: '[{"Isuid":true,"Isgid":false,"Hostid":1000000,"Nsid":0,"Maprange":1000000000}]'
    volatile.uuid: 00d0a890-7551-453b-a3d5-f5fe4fee9dd8
  expanded_devices:
    data:
      path: /mnt/data
      source: /srv/data
      type: disk
    eth0:
      name: eth0
      network: incusbr0
      type: nic
    eth1:
      nictype: physical
      parent: vethadmin0
      vlan: "30"
      type: nic
    root:
      path: /
      pool: default
      type: disk
    web:
      connect: tcp:127.0.0.1:80
      listen: tcp:127.0.0.1:8080
      type: proxy
  name: c1
  status: Running
  status_code: 103
  location: none
  type: container
  project: default
pool:
  config:
    source: /var/lib/incus/storage-pools/default
  description: ""
  name: default
  driver: dir
  used_by: []
  status: Created
  locations:
  - none
"""
C1 = "default/containers/c1"


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    return Host(str(tmp_path))


def put(host: Host, volume: str, content: str) -> pathlib.Path:
    path = pathlib.Path(host.path(f"/var/lib/incus/storage-pools/{volume}/backup.yaml"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def test_real(host: Host) -> None:
    put(host, C1, BACKUP)
    (instance, pool), faults = incus_backup.read(host, "/var/lib/incus")
    assert faults == []
    assert (instance.type, instance.name, instance.source) == ("instance", "c1", "disk")
    no_nic = {"nictype": "", "network": "", "parent": "", "vlan": ""}
    assert instance.facts == {
        "project": "default",
        "instance": "c1",
        "type": "container",
        "running": None,
        "ephemeral": False,
        "uuid": "00d0a890-7551-453b-a3d5-f5fe4fee9dd8",
        "nics": [
            {
                **no_nic,
                "device": "eth0",
                "network": "incusbr0",
                "host_name": "veth3a27704b",
                "host_name_from": "volatile",
                "hwaddr": "10:66:6a:0a:8f:ad",
                "last_state": {},
            },
            {
                **no_nic,
                "device": "eth1",
                "nictype": "physical",
                "parent": "vethadmin0",
                "vlan": "30",
                "host_name": "vethadmin0",
                "host_name_from": "volatile",
                "hwaddr": "",
                "last_state": {
                    "created": "false",
                    "hwaddr": "0a:38:14:f1:d2:7d",
                    "mtu": "1500",
                    "pci.slot.name": "0000:00:05.0",
                },
            },
        ],
        "disks": [
            {"device": "data", "source": "/srv/data", "path": "/mnt/data", "pool": ""},
            {"device": "root", "source": "", "path": "/", "pool": "default"},
        ],
        "proxies": ["web"],
        "image": "",
        "created": "2026-11-20T23:39:33.422153632Z",
    }
    assert (pool.type, pool.name, pool.source) == ("pool", "default", "disk")
    assert pool.facts["driver"] == "dir" and pool.facts["source"] == "/var/lib/incus/storage-pools/default"


def test_names_and_types(host: Host) -> None:
    project = BACKUP.replace("  project: default", "  project: pr_oj")
    put(host, "default/virtual-machines/pr_oj_c1", project.replace("type: container", "type: virtual-machine"))
    put(host, C1, BACKUP.replace("ephemeral: false", "ephemeral: true"))
    records, faults = incus_backup.read(host, "/var/lib/incus")
    assert not faults
    assert [record.name for record in records] == ["c1", "default", "pr_oj_c1"]
    assert records[0].facts["ephemeral"] is True
    assert records[2].facts["type"] == "virtual-machine" and records[2].facts["project"] == "pr_oj"


def test_absent(host: Host) -> None:
    assert incus_backup.read(host, "/var/lib/incus") == ([], [])
    pathlib.Path(host.path(f"/var/lib/incus/storage-pools/{C1}")).mkdir(parents=True)
    assert incus_backup.read(host, "/var/lib/incus") == ([], [])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "container: []",
        "container: {}",
        "container: {name: ../c1, project: default}",
        "container: {name: c1, project: a/b}",
        "container: {name: [c1]}",
        "container: {name: c2}",
        "container: {name: c1, project: other}",
        "container: &a {name: c1}\nb: *a",
        '"container": {"name": "c1\\n"}',
        "[" * 10_000,
    ],
    ids=lambda value: str(value[:30]),
)
def test_hostile(host: Host, content: str) -> None:
    put(host, C1, content)
    records, faults = incus_backup.read(host, "/var/lib/incus")
    assert records == [] and len(faults) == 1
    assert faults[0].startswith(f"/var/lib/incus/storage-pools/{C1}/backup.yaml: ") and "\n" not in faults[0]


def test_wrong_types_inside(host: Host) -> None:
    content = """\
container:
  name: c1
  ephemeral: [1]
  expanded_config: {volatile.uuid: {a: b}, volatile.eth0.host_name: [x], volatile.eth0.hwaddr: 12}
  expanded_devices: {eth0: {type: nic, network: null, parent: [a]}, eth1: nic, eth2: {type: {}}, "a\\nb": {type: nic}}
pool: {name: default, driver: [dir], config: "x"}
"""
    put(host, C1, content)
    (instance, pool), faults = incus_backup.read(host, "/var/lib/incus")
    assert not faults
    assert instance.facts["uuid"] == "" and instance.facts["ephemeral"] is False
    (nic,) = instance.facts["nics"]
    assert (nic["device"], nic["network"], nic["parent"], nic["host_name"], nic["hwaddr"]) == ("eth0", "", "", "", "12")
    assert pool.facts["driver"] == "" and pool.facts["config"] == {}


def test_no_symlink_is_followed(host: Host) -> None:
    path = put(host, C1, BACKUP)
    path.rename(path.parent / "elsewhere.yaml")
    path.symlink_to("elsewhere.yaml")
    os.symlink("c1", path.parent.parent / "c2")
    os.symlink("default", path.parent.parent.parent.parent / "pool2")
    records, faults = incus_backup.read(host, "/var/lib/incus")
    assert records == []
    assert len(faults) == 1 and faults[0].startswith(f"/var/lib/incus/storage-pools/{C1}/backup.yaml: ")
    path.unlink()
    os.mkfifo(path)
    assert incus_backup.read(host, "/var/lib/incus")[1][0].endswith("not a regular file")


def test_time_has_an_end(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incus_backup, "SECONDS", 0.0)
    put(host, C1, BACKUP)
    records, faults = incus_backup.read(host, "/var/lib/incus")
    assert records == [] and faults == ["/var/lib/incus/storage-pools: not all read within 0 s"]
