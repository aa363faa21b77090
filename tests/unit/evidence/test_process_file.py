"""Process files as Incus 6.0.4 wrote them, and as nobody should."""

from __future__ import annotations

import os
import pathlib

import pytest

from leftovers.evidence import process_file
from leftovers.host import Host

PROXY = """\
name: /usr/libexec/incus/incusd
args: [forkproxy, --, "3263", "4", 'tcp:127.0.0.1:8080', "3417", "3", 'tcp:127.0.0.1:80',
  "", "", "0644", "", "", ""]
apparmor: incus_forkproxy-web_c1_</var/lib/incus>
cwd: ""
pid: 3549
uid: 0
gid: 0
set_groups: false
sysprocattr: null
"""


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    return Host(str(tmp_path))


def put(host: Host, content: str) -> None:
    pathlib.Path(host.path("/proxy.web")).write_text(content)


def test_real(host: Host) -> None:
    put(host, PROXY)
    (record,), faults = process_file.read(host, "/proxy.web")
    assert faults == []
    assert (record.type, record.name, record.source) == ("helper", "/proxy.web", "disk")
    assert record.facts["pid"] == 3549
    assert record.facts["name"] == "/usr/libexec/incus/incusd"
    assert record.facts["args"][:5] == ["forkproxy", "--", "3263", "4", "tcp:127.0.0.1:8080"]
    assert len(record.facts["args"]) == 14 and record.facts["args"][-1] == ""
    assert record.facts["apparmor"] == "incus_forkproxy-web_c1_</var/lib/incus>"


def test_bare_number(host: Host) -> None:
    put(host, "3900\n")  # forkfile.pid of 6.0.4
    (record,), faults = process_file.read(host, "/proxy.web")
    assert not faults
    assert record.facts == {"pid": 3900, "name": "", "args": [], "apparmor": ""}


def test_absent(host: Host) -> None:
    assert process_file.read(host, "/none/dnsmasq.pid") == ([], [])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "pid: 12",
        "pid: -1\nname: a\nargs: []",
        "pid: 0\nname: a\nargs: []",
        "pid: true\nname: a\nargs: []",
        "pid: '12'\nname: a\nargs: []",
        "pid: 99999999999\nname: a\nargs: []",
        "pid: 12\nname: [a]\nargs: []",
        "pid: 12\nname: a\nargs: b",
        "pid: 12\nname: a\nargs: [{}]",
        "pid: 12\nname: a\nargs: [null]",
        "pid: 12\nname: &a a\nargs: [*a]",
        "-5",
        pytest.param("x" * (2 << 20), id="large"),
    ],
)
def test_hostile(host: Host, content: str) -> None:
    put(host, content)
    records, faults = process_file.read(host, "/proxy.web")
    assert records == [] and len(faults) == 1 and faults[0].startswith("/proxy.web: ")


def test_fifo(host: Host) -> None:
    os.mkfifo(host.path("/proxy.web"))
    assert process_file.read(host, "/proxy.web") == ([], ["/proxy.web: not a regular file"])
