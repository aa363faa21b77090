"""lxc.conf as Incus 6.0.4 wrote it, and as nobody should."""

from __future__ import annotations

import os
import pathlib

import pytest

from leftovers.evidence import liblxc_config
from leftovers.host import Host

CONF = """\
lxc.log.file = /var/log/incus/c6/lxc.log
lxc.mount.auto = proc:rw sys:rw cgroup:rw:force
lxc.include = /usr/share/lxc/config/common.conf.d/
lxc.hook.post-stop = /usr/libexec/incus/incusd callhook /var/lib/incus "default" "c6" stop
lxc.uts.name = c6
lxc.idmap = u 0 1000000 1000000000
lxc.net.0.type = phys
lxc.net.0.name = eth0
lxc.net.0.flags = up
lxc.net.0.link = veth6dfb4f3d
lxc.net.0.hwaddr = 10:66:6a:f2:65:d2
lxc.rootfs.path = dir:/var/lib/incus/storage-pools/default/containers/c6/rootfs
lxc.rootfs.options = idmap=container
"""


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    (tmp_path / "run/incus/c6").mkdir(parents=True)
    return Host(str(tmp_path))


def put(host: Host, content: bytes) -> str:
    pathlib.Path(host.path("/run/incus/c6/lxc.conf")).write_bytes(content)
    return "/run/incus/c6/lxc.conf"


def test_real(host: Host) -> None:
    path = put(host, CONF.encode())
    (record,), faults = liblxc_config.read(host, path)
    assert faults == []
    assert (record.type, record.name, record.source) == ("lxc.conf", "c6", "disk")
    assert record.facts == {
        "nics": [
            {"index": 0, "link": "veth6dfb4f3d", "name": "eth0", "hwaddr": "10:66:6a:f2:65:d2", "type": "phys"},
        ],
        "rootfs": "/var/lib/incus/storage-pools/default/containers/c6/rootfs",
        "path": path,
    }


def test_odd_lines(host: Host) -> None:
    text = "lxc.net.2.link=b=c\n#lxc.net.0.link = x\nlxc.net.x.link = y\nlxc.net.1.link\n\nlxc.net.1.type =\n=\n"
    (record,), faults = liblxc_config.read(host, put(host, text.encode()))
    assert not faults
    assert [(nic["index"], nic["link"]) for nic in record.facts["nics"]] == [(1, ""), (2, "b=c")]


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"x" * (2 << 20), b"".join(b"lxc.net.%d.link = x\n" % number for number in range(2000))],
    ids=lambda value: str(value[:30]),
)
def test_hostile(host: Host, content: bytes) -> None:
    path = put(host, content)
    records, faults = liblxc_config.read(host, path)
    assert records == [] and len(faults) == 1 and faults[0].startswith(f"{path}: ")


def test_absent_and_no_file(host: Host) -> None:
    assert liblxc_config.read(host, "/run/incus/none/lxc.conf") == ([], [])
    os.mkfifo(host.path("/run/incus/c6/lxc.conf"))
    assert liblxc_config.read(host, "/run/incus/c6/lxc.conf")[1] == ["/run/incus/c6/lxc.conf: not a regular file"]
    os.symlink("c6", host.path("/run/incus/c7"))
    assert liblxc_config.read(host, "/run/incus/c7/lxc.conf", "/run/incus")[1]
