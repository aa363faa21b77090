"""What stands in /var/lib/incus and /run/incus."""

from __future__ import annotations

import os
import pathlib

import pytest

from leftovers.evidence import incus_directory
from leftovers.host import Host
from leftovers.model import Record

DNSMASQ = """\
name: dnsmasq
args: [--keep-in-foreground, --strict-order, --bind-interfaces, --except-interface=lo,
  --pid-file=, --no-ping, --interface=incusbr0, --dhcp-rapid-commit, --no-negcache,
  --quiet-dhcp, --quiet-dhcp6, --quiet-ra, --listen-address=10.153.142.1, --dhcp-no-override,
  --dhcp-authoritative, --dhcp-leasefile=/var/lib/incus/networks/incusbr0/dnsmasq.leases,
  --dhcp-hostsfile=/var/lib/incus/networks/incusbr0/dnsmasq.hosts, --dhcp-range, '10.153.142.2,10.153.142.254,1h',
  '--listen-address=fd42:e5c8:7aca:cfc6::1', --enable-ra, --dhcp-range, '::,constructor:incusbr0,ra-stateless,ra-names',
  -s, incus, --interface-name, '_gateway.incus,incusbr0', -S, /incus/,
  --conf-file=/var/lib/incus/networks/incusbr0/dnsmasq.raw,
  -u, nobody, -g, incus]
apparmor: incus_dnsmasq-incusbr0_</var/lib/incus>
cwd: ""
pid: 3321
uid: 0
gid: 0
set_groups: false
sysprocattr: null
"""


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    for directory in (
        "var/lib/incus/networks/incusbr0/dnsmasq.hosts",
        "var/lib/incus/networks/net4",
        "var/lib/incus/containers",
        "var/lib/incus/virtual-machines",
        "var/lib/incus/devices/c1/disk.data.mnt-data",
        "var/lib/incus/devices/proj_p1",
        "run/incus/c1",
        "run/incus/v2",
    ):
        (tmp_path / directory).mkdir(parents=True)
    lib, run = tmp_path / "var/lib/incus", tmp_path / "run/incus"
    (lib / "networks/incusbr0/dnsmasq.pid").write_text(DNSMASQ)
    (lib / "devices/c1/proxy.web").write_text("name: /usr/libexec/incus/incusd\nargs: [forkproxy]\npid: 3549\n")
    (lib / "devices/c1/virtio-fs.data.sock").write_text("")
    (lib / "containers/c1").symlink_to("/var/lib/incus/storage-pools/default/containers/c1")
    (lib / "virtual-machines/v1").symlink_to("/nowhere")
    (run / "c1/lxc.conf").write_text("lxc.net.0.type = phys\nlxc.net.0.link = vethbe716e3c\n")
    (run / "c1/forkfile.pid").write_text("3900\n")
    (run / "v2/qemu.conf").write_text("")
    (run / "seccomp.socket").write_text("")
    return Host(str(tmp_path))


def of(records: list[Record], type_: str) -> dict[str, Record]:
    return {record.name: record for record in records if record.type == type_}


def test_real(host: Host) -> None:
    records, faults = incus_directory.read(host)
    assert faults == []
    networks = of(records, "network")
    assert list(networks) == ["incusbr0", "net4"]
    assert networks["incusbr0"].facts["addresses"] == ["10.153.142.1", "fd42:e5c8:7aca:cfc6::1"]
    assert networks["incusbr0"].facts["pid"] == 3321
    assert networks["net4"].facts["addresses"] == [] and "pid" not in networks["net4"].facts
    assert all(record.facts["type"] == "bridge" and record.facts["managed"] is True for record in networks.values())
    assert {name: record.facts["pid"] for name, record in of(records, "helper").items()} == {
        "/var/lib/incus/networks/incusbr0/dnsmasq.pid": 3321,
        "/var/lib/incus/devices/c1/proxy.web": 3549,
        "/run/incus/c1/forkfile.pid": 3900,
    }
    instances = of(records, "instance")
    assert {name: record.facts["type"] for name, record in instances.items()} == {
        "c1": "container",
        "proj_p1": "",
        "v1": "virtual-machine",
        "v2": "virtual-machine",
    }
    assert instances["c1"].facts["proxies"] == ["web"] and instances["c1"].facts["running"] is None
    assert (instances["proj_p1"].facts["project"], instances["proj_p1"].facts["instance"]) == ("proj", "p1")
    (conf,) = of(records, "lxc.conf").values()
    assert conf.name == "c1" and conf.facts["nics"][0]["link"] == "vethbe716e3c"


def test_absent(tmp_path: pathlib.Path) -> None:
    assert incus_directory.read(Host(str(tmp_path))) == ([], [])


def test_virtiofsd_and_swtpm(host: Host) -> None:
    devices = pathlib.Path(host.path("/var/lib/incus/devices/c1"))
    for name in ("virtio-fs.data.pid", "tpm0.pid"):
        (devices / name).write_text("name: x\nargs: []\npid: 7\n")
    helpers = of(incus_directory.read(host)[0], "helper")
    assert "/var/lib/incus/devices/c1/virtio-fs.data.pid" in helpers
    assert "/var/lib/incus/devices/c1/tpm0.pid" in helpers


def test_a_dnsmasq_of_another_network_tells_nothing(host: Host) -> None:
    path = pathlib.Path(host.path("/var/lib/incus/networks/net4/dnsmasq.pid"))
    path.write_text(DNSMASQ)
    records, faults = incus_directory.read(host)
    assert of(records, "network")["net4"].facts["addresses"] == []
    assert "/var/lib/incus/networks/net4/dnsmasq.pid: is not of a dnsmasq for net4" in faults


def test_hostile(host: Host) -> None:
    lib = pathlib.Path(host.path("/var/lib/incus"))
    os.mkdir(lib / "networks/evil\n0")
    os.symlink("/", lib / "networks/link")
    os.mkdir(lib / "devices/proj_")
    os.symlink("c1", host.path("/run/incus/link"))
    os.remove(lib / "networks/incusbr0/dnsmasq.pid")
    os.mkfifo(lib / "networks/incusbr0/dnsmasq.pid")
    os.remove(lib / "devices/c1/proxy.web")
    os.symlink("/etc/shadow", lib / "devices/c1/proxy.web")
    records, faults = incus_directory.read(host)
    assert list(of(records, "network")) == ["incusbr0", "net4"]
    assert "link" not in of(records, "instance") and "proj_" not in of(records, "instance")
    assert len(faults) == 4
    assert all("\n" not in fault for fault in faults)
