"""Containers as Docker 26.1.5 writes them down (trimmed), and how its daemon is told to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from leftovers.evidence import docker_settings, docker_store
from leftovers.evidence.docker_settings import Settings
from leftovers.host import Host
from leftovers.model import Record

ID, OTHER, THIRD = "a" * 64, "b" * 64, "c" * 64
NETWORK, END, SANDBOX, LAYER = ("1" * 64, "2" * 64, "3" * 64, "4" * 64)
NEVER = "0001-01-01T00:00:00Z"
CREATED = "2026-11-21T12:02:12.420161478Z"


def config(id: str = ID, **said: Any) -> dict[str, Any]:
    state = {"Running": True, "Paused": False, "Restarting": False, "Dead": False, "Pid": 749, "StartedAt": CREATED}
    joined = {"NetworkID": NETWORK, "EndpointID": END, "IPAddress": "172.18.0.2", "MacAddress": "02:42:AC:12:00:02"}
    settings = {
        "SandboxID": SANDBOX,
        "SandboxKey": f"/var/run/docker/netns/{SANDBOX[:12]}",
        "Networks": {"n1": joined},
        "Ports": {"80/tcp": [{"HostIp": "::", "HostPort": "8080"}, {"HostIp": "0.0.0.0", "HostPort": "8080"}]},
    }
    whole = {"ID": id, "Name": "/web", "Created": CREATED, "State": state, "Image": "sha256:1", "Driver": "overlay2"}
    return {**whole, "Config": {"Image": "nginx:1"}, "NetworkSettings": settings, **said}


def write(tmp_path: Path, said: Any, mode: str = "n1", id: str = ID, **host_config: Any) -> Path:
    path = tmp_path / f"d/containers/{id}"
    path.mkdir(parents=True)
    (path / "config.v2.json").write_text(said if isinstance(said, str) else json.dumps(said))
    (path / "hostconfig.json").write_text(json.dumps({"NetworkMode": mode, "AutoRemove": False, **host_config}))
    return path


def read(tmp_path: Path) -> tuple[dict[str, Record], list[str]]:
    records, faults = docker_store.read(Host(str(tmp_path)), "/d")
    return {record.name: record for record in records}, faults


def test_a_container(tmp_path: Path) -> None:
    write(tmp_path, config())
    mount = tmp_path / f"d/image/overlay2/layerdb/mounts/{ID}"
    mount.mkdir(parents=True)
    (mount / "mount-id").write_text(LAYER)
    found, faults = read(tmp_path)
    assert not faults
    assert (found[ID].type, found[ID].source) == ("docker", "disk")
    assert found[ID].facts == {
        "id": ID,
        "name": "web",
        "image": "nginx:1",
        "created": CREATED,
        "state": "running",
        "pid": 749,
        "auto_remove": False,
        "driver": "overlay2",
        "networks": [NETWORK],
        "endpoints": [END],
        "ends": [{"id": END, "network": NETWORK, "address": "172.18.0.2", "address6": "", "mac": "02:42:ac:12:00:02"}],
        "sandbox_id": SANDBOX,
        "sandbox": f"/run/docker/netns/{SANDBOX[:12]}",
        "network_mode": "n1",
        "host_network": False,
        "shares": "",
        "ports": [
            {"proto": "tcp", "host": "0.0.0.0", "port": 8080, "inner": 80},
            {"proto": "tcp", "host": "::", "port": 8080, "inner": 80},
        ],
        "layer": LAYER,
    }


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"Running": True, "Paused": True}, "running"),
        ({"Running": True, "Restarting": True}, "running"),
        ({"Running": False, "StartedAt": NEVER}, "created"),
        ({"Running": False, "StartedAt": NEVER, "Dead": True}, "stopped"),
        ({"Running": False, "StartedAt": CREATED}, "stopped"),
        ({}, "stopped"),
        (None, "stopped"),
    ],
)
def test_states(tmp_path: Path, state: Any, expected: str) -> None:
    write(tmp_path, config(State=state))
    assert read(tmp_path)[0][ID].facts["state"] == expected


def test_whose_network_it_is(tmp_path: Path) -> None:
    write(tmp_path, config(), "host")
    write(tmp_path, config(OTHER, NetworkSettings={"Networks": {}}), f"container:{ID}", id=OTHER, AutoRemove=True)
    write(tmp_path, config(THIRD), f"container:{OTHER}", id=THIRD)
    lone, round1, round2 = ("d" * 64, "e" * 64, "f" * 64)
    write(tmp_path, config(lone), "container:web", id=lone)
    write(tmp_path, config(round1), f"container:{round2}", id=round1)
    write(tmp_path, config(round2), f"container:{round1}", id=round2)
    found, _ = read(tmp_path)
    assert [name for name, record in found.items() if record.facts["host_network"]] == [ID, OTHER, THIRD]
    assert (found[OTHER].facts["shares"], found[OTHER].facts["auto_remove"]) == (ID, True)
    assert found[OTHER].facts["networks"] == [] and found[OTHER].facts["sandbox"] == ""
    assert (found[lone].facts["shares"], found[lone].facts["network_mode"]) == ("", "container:web")


def test_in_containerd_s_image_store_there_is_no_layer(tmp_path: Path) -> None:
    write(tmp_path, config(Driver="overlayfs"))
    found, faults = read(tmp_path)
    assert (found[ID].facts["driver"], found[ID].facts["layer"], faults) == ("overlayfs", "", [])


ODD: list[Any] = [
    None,
    "",
    "x" * 5000,
    "a\nb",
    "../../x",
    "\ud800",
    -1,
    1 << 70,
    1.5,
    True,
    [],
    [[]],
    {},
    {"a": []},
    [{}],
]


@pytest.mark.parametrize("odd", ODD, ids=lambda value: ascii(value)[:20])
def test_hostile_values(tmp_path: Path, odd: Any) -> None:
    whole = config()
    places = [(name, "") for name in whole if name != "ID"]
    places += [(outer, name) for outer in ("State", "NetworkSettings", "Config") for name in whole[outer]]
    for number, (outer, name) in enumerate(places):
        id = f"{number:064x}"
        said = config(id)
        if name:
            said[outer][name] = odd
        else:
            said[outer] = odd
        write(tmp_path, said, id=id)
    deep = {
        "Networks": {"n": {"NetworkID": odd, "EndpointID": odd}},
        "Ports": {"80/tcp": odd, "x": odd, "1/tcp": [{"HostPort": odd}]},
    }
    write(tmp_path, config("9" * 64, NetworkSettings=deep), id="9" * 64)
    found, faults = read(tmp_path)
    assert not faults and len(found) == len(places) + 1
    for record in found.values():
        text = json.dumps(record.facts)
        assert "\\n" not in text and "\\ud800" not in text
        facts = record.facts
        assert facts["state"] in ("running", "stopped", "created") and 0 <= facts["pid"] < 1 << 63
        assert type(facts["pid"]) is int and "/" not in facts["driver"]
        assert set(facts["networks"]) <= {NETWORK} and set(facts["endpoints"]) <= {END}


def test_a_layer_is_an_id(tmp_path: Path) -> None:
    mount = tmp_path / f"d/image/overlay2/layerdb/mounts/{ID}"
    mount.mkdir(parents=True)
    for said in (b"", b"../../../etc", LAYER.upper().replace("4", "A").encode(), LAYER.encode() + b"\n", b"\xff" * 64):
        (mount / "mount-id").write_bytes(said)
        assert docker_store.layer(Host(str(tmp_path)), "/d", "overlay2", ID, []) == ""
    (mount / "mount-id").unlink()
    (mount / "mount-id").mkdir()
    faults: list[str] = []
    assert docker_store.layer(Host(str(tmp_path)), "/d", "overlay2", ID, faults) == ""
    assert len(faults) == 1 and "not a regular file" in faults[0]


def test_roots(tmp_path: Path) -> None:
    for name in ("165536.165536", "containers", "1.2.3", "overlay2"):
        (tmp_path / "d" / name).mkdir(parents=True)
    (tmp_path / "d/1.1").symlink_to("/")
    assert docker_store.roots(Host(str(tmp_path)), "/d") == ["/d", "/d/165536.165536"]
    assert docker_store.roots(Host(str(tmp_path)), "/none") == ["/none"]


# -- settings ---------------------------------------------------------------------------------------------------------


def settings(tmp_path: Path, said: Any, *argv: str) -> tuple[Settings, list[str]]:
    path = tmp_path / "etc/docker/daemon.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(said if isinstance(said, str) else json.dumps(said))
    return docker_settings.read(Host(str(tmp_path)), ("/usr/sbin/dockerd", *argv))


def test_settings(tmp_path: Path) -> None:
    assert docker_settings.read(Host(str(tmp_path))) == (Settings(), [])
    said = {
        "data-root": "/srv/docker",
        "exec-root": "/var/run/other",
        "hosts": ["unix:///var/run/other.sock", "tcp://127.0.0.1:2375"],
        "bridge": "br-lan",
        "live-restore": True,
        "iptables": False,
        "ip6tables": False,
        "firewall-backend": "nftables",
        "userns-remap": "default",
    }
    expected = Settings(
        root="/srv/docker",
        exec_root="/run/other",
        sockets=("/run/other.sock",),
        bridge="br-lan",
        live_restore=True,
        iptables=False,
        ip6tables=False,
        firewall="nftables",
        remapped=True,
    )
    assert settings(tmp_path, said) == (expected, [])
    assert settings(tmp_path, {"graph": "/srv/old"})[0].root == "/srv/old"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("-H", "fd://", "--containerd=/run/containerd/containerd.sock"), Settings()),
        (("-H", "fd://", "-Hunix:///run/x.sock"), Settings(sockets=("/run/docker.sock", "/run/x.sock"))),
        (("--host", "tcp://0.0.0.0:2375"), Settings(sockets=())),
        (("-H=unix:///run/x.sock",), Settings(sockets=("/run/x.sock",))),
        (("--data-root", "/srv/d", "--live-restore"), Settings(root="/srv/d", live_restore=True)),
        (("--data-root=/srv/d", "--live-restore=false"), Settings(root="/srv/d")),
        (("-g/srv/d", "-b", "none"), Settings(root="/srv/d", bridge="none")),
        (("--iptables=false", "--live-restore=1"), Settings(iptables=False, live_restore=True)),
        (("--data-root",), Settings()),
        (("--data-root=relative", "--exec-root=/a/../b"), Settings()),
        (("--data-root=/",), Settings()),
        (("-D", "--debug", "--", "data-root"), Settings()),
    ],
)
def test_arguments(tmp_path: Path, argv: tuple[str, ...], expected: Settings) -> None:
    assert settings(tmp_path, {}, *argv) == (expected, [])


def test_another_file(tmp_path: Path) -> None:
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv/d.json").write_text('{"live-restore": true}')
    assert settings(tmp_path, {}, "--config-file=/srv/d.json")[0].live_restore


@pytest.mark.parametrize("text", ["{", "[]", "", '"x"', "[" * 100_000, "\0"])
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    found, faults = settings(tmp_path, text)
    assert found == Settings() and len(faults) == 1 and faults[0].startswith("/etc/docker/daemon.json: not")


@pytest.mark.parametrize("odd", ODD, ids=lambda value: ascii(value)[:20])
def test_hostile_settings(tmp_path: Path, odd: Any) -> None:
    names = ("data-root", "exec-root", "hosts", "bridge", "live-restore", "iptables", "firewall-backend", "graph")
    found, faults = settings(tmp_path, dict.fromkeys(names, odd))
    assert not faults
    assert (found.root, found.exec_root, found.sockets) == ("/var/lib/docker", "/run/docker", ("/run/docker.sock",))
    assert found.live_restore is (odd is True) and found.iptables and "\n" not in found.bridge
