"""nerdctl's store and networks, as version 2 writes them; and what others have put there instead."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from typing import Any

import pytest

from leftovers.evidence import cni, nerdctl
from leftovers.host import Host

ADDRESS = "/run/containerd/containerd.sock"
STORE = "/var/lib/nerdctl/1935db59"
ID, HOSTS = "a" * 64, "b" * 64  # the second on the host's network


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    return Host(str(tmp_path))


def write(host: Host, path: str, content: Any = "") -> None:
    target = pathlib.Path(host.path(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content if isinstance(content, str) else json.dumps(content))


def network(name: str, more: dict[str, Any] | None = None) -> dict[str, Any]:
    """As generateNetworkConfig does it."""
    id = hashlib.sha256(name.encode()).hexdigest()
    bridge = "nerdctl0" if name == "bridge" else f"br-{id[:12]}"
    ipam = {"type": "host-local", "ranges": [[{"gateway": "10.4.0.1", "subnet": "10.4.0.0/24"}]]}
    plugins = [
        {"type": "bridge", "bridge": bridge, "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall", "ingressPolicy": "same-bridge"},
        {"type": "tuning"},
    ]
    known = {"cniVersion": "1.0.0", "name": name, "nerdctlID": id, "nerdctlLabels": {}, "plugins": plugins}
    return {**known, **(more or {})}


def container(host: Host, namespace: str, id: str, name: str, networks: tuple[str, ...] = ()) -> None:
    below = f"{STORE}/containers/{namespace}/{id}"
    write(host, f"{below}/lifecycle.json", {"started_at": "2026-11-21T12:00:00.5Z", "create_error": False})
    write(host, f"{below}/network-config.json", {"portMappings": []})
    write(host, f"{below}/log-config.json", {"driver": "json-file"})
    write(host, f"{STORE}/names/{namespace}/{name}", id)
    write(host, f"{STORE}/etchosts/{namespace}/{id}/hosts", "127.0.0.1 localhost\n")
    if networks:
        meta = {"ID": id, "Networks": {each: {"cniVersion": "1.0.0"} for each in networks}, "Name": name}
        write(host, f"{STORE}/etchosts/{namespace}/{id}/meta.json", meta)


def test_the_store_s_name_is_that_of_the_socket() -> None:
    assert nerdctl.store(ADDRESS) == "1935db59"  # as nerdctl's documentation has it


def test_containers_on_any_network(host: Host) -> None:
    container(host, "default", ID, "web", ("bridge",))
    container(host, "k8s.io", HOSTS, "agent")
    write(host, f"{STORE}/volumes/default/data/volume.json", {"labels": {}})
    write(host, f"{STORE}/volumes/default/data/_data/file")
    records, faults = nerdctl.read(host, ADDRESS)
    assert faults == []
    found = {record.name: record.facts for record in records if record.type == "nerdctl"}
    assert found == {
        f"default/{ID}": {
            "namespace": "default",
            "id": ID,
            "name": "web",
            "path": f"{STORE}/containers/default/{ID}",
            "hosts": f"{STORE}/etchosts/default/{ID}",
            "networks": ["bridge"],
            "started": "2026-11-21T12:00:00.5Z",
        },
        f"k8s.io/{HOSTS}": {
            "namespace": "k8s.io",
            "id": HOSTS,
            "name": "agent",
            "path": f"{STORE}/containers/k8s.io/{HOSTS}",
            "hosts": f"{STORE}/etchosts/k8s.io/{HOSTS}",
            "networks": [],
            "started": "2026-11-21T12:00:00.5Z",
        },
    }
    assert [record.name for record in records if record.type == "volume"] == [f"{STORE}/volumes/default/data"]
    (store,) = [record for record in records if record.type == "store"]
    assert store.name == STORE and store.facts["own"] and store.facts["namespaces"] == ["default", "k8s.io"]
    assert store.facts["ids"] == sorted(record.facts["id"] for record in records if record.type == "nerdctl")


def test_the_store_of_another_containerd_has_no_container_of_ours(host: Host) -> None:
    write(host, f"/var/lib/nerdctl/0badcafe/containers/default/{ID}/lifecycle.json", {})
    records, _ = nerdctl.read(host, ADDRESS)
    assert [(record.type, record.facts["own"]) for record in records] == [("store", False)]


def test_what_is_no_container(host: Host) -> None:
    for path in (f"{STORE}/containers/default/mine/x", f"{STORE}/containers/..bad/{ID}/x", "/var/lib/nerdctl/mine/x"):
        write(host, path)
    os.symlink("/", host.path(f"{STORE}/containers/default/{ID}"))
    write(host, f"{STORE}/names/default/web", "../../etc")
    records, _ = nerdctl.read(host, ADDRESS)
    assert [record for record in records if record.type == "nerdctl"] == []


def test_nothing_at_all(host: Host) -> None:
    assert nerdctl.read(host, ADDRESS) == ([], [])
    assert nerdctl.read_networks(host) == ([], []) and nerdctl.read_reservers(host, {}) == ([], [])


def test_networks_of_all_namespaces_and_of_one(host: Host) -> None:
    write(host, "/etc/cni/net.d/nerdctl-bridge.conflist", network("bridge"))
    write(host, "/etc/cni/net.d/default/nerdctl-front.conflist", network("front"))
    write(host, "/etc/cni/net.d/default/10-mine.conflist", {"name": "mine", "plugins": [{"type": "bridge"}]})
    for name in nerdctl.LOCKS:
        write(host, f"/etc/cni/net.d/{name}")
    (common,), _ = cni.read_conf(host, "/etc/cni/net.d")
    assert common.facts["nerdctl"] == hashlib.sha256(b"bridge").hexdigest()
    assert common.facts["bridges"] == ["nerdctl0"] and common.facts["gateways"] == ["10.4.0.1"]
    records, faults = nerdctl.read_networks(host)
    assert faults == []
    assert {record.name for record in records} == {
        *("/etc/cni/net.d/default", "/etc/cni/net.d/default/nerdctl-front.conflist"),
        *(f"/etc/cni/net.d/{name}" for name in nerdctl.LOCKS),
    }


@pytest.mark.parametrize(
    "more",
    [{"nerdctlID": None}, {"nerdctlID": "f" * 64}, {"nerdctlID": 0}, {"name": "other"}, {"nerdctlID": ["x"]}],
    ids=str,
)
def test_a_configuration_without_its_id_is_another_s(host: Host, more: dict[str, Any]) -> None:
    write(host, "/etc/cni/net.d/nerdctl-bridge.conflist", network("bridge", more))
    (record,), _ = cni.read_conf(host, "/etc/cni/net.d")
    assert record.facts["nerdctl"] == ""


def test_who_holds_the_ports(host: Host) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    write(host, "/proc/stat", "cpu 1 2\nbtime 1000000\n")
    path = f"/run/nerdctl/default/{ID}/port-reserver.pid"
    write(host, path, "4711")
    os.utime(host.path(path), (1000102, 1000102))
    (record,), _ = nerdctl.read_reservers(host, {"4711": 100 * ticks})
    assert record.facts == {"namespace": "default", "id": ID, "pid": 4711, "late": 2}
    assert nerdctl.read_reservers(host, {"4712": 100 * ticks}) == ([], [])


def test_cni_knows_its_containers_with_their_namespace(host: Host) -> None:
    """A namespace may have 76 characters: more than an id of containerd's."""
    for namespace in ("default", "n" * 76):
        write(host, f"/var/lib/cni/networks/bridge/10.4.0.{len(namespace)}", f"{namespace}-{ID}\r\neth0")
    records, faults = cni.read_leases(host)
    assert faults == []
    assert {record.facts["id"] for record in records} == {f"default-{ID}", f"{'n' * 76}-{ID}"}
