"""What CNI's library and plugins write down, and the names that they compute."""

from __future__ import annotations

import base64
import json
import os
import pathlib
from typing import Any

import pytest

from leftovers.evidence import cni
from leftovers.host import Host

ID = "5" * 64
CONFLIST = {
    "name": "k8s-pod-network",
    "cniVersion": "0.3.1",
    "plugins": [
        {
            "type": "calico",
            "kubernetes": {"kubeconfig": "/var/snap/microk8s/current/args/cni-network/calico-kubeconfig"},
        },
        {"type": "bandwidth"},
        {"type": "portmap"},
    ],
}
ENTRY = {
    "kind": "cniCacheV1",
    "containerId": ID,
    "config": base64.b64encode(json.dumps(CONFLIST).encode()).decode(),
    "ifName": "eth0",
    "networkName": "k8s-pod-network",
    "netns": "/var/run/netns/cni-1",
    "cniArgs": [["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "web-0"]],
    "capabilityArgs": {},
    "result": {
        "interfaces": [{"name": "cali12345678901"}, {"name": "eth0", "sandbox": "/var/run/netns/cni-1"}],
        "ips": [{"address": "10.1.64.2/32", "gateway": "10.1.64.1"}],
    },
}
NAME = f"k8s-pod-network-{ID}-eth0"


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    return Host(str(tmp_path))


def write(host: Host, path: str, content: Any) -> None:
    target = pathlib.Path(host.path(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(
        content
        if isinstance(content, bytes)
        else (content if isinstance(content, str) else json.dumps(content)).encode()
    )


def test_names_that_are_computed() -> None:
    assert cni.chain("CNI-DN-", "net", "id") == "CNI-DN-" + cni.digest("net", "id")[:21]
    assert len(cni.chain("CNI-", "k8s-pod-network", ID)) == 28 and len(cni.ifb("n", "i")) == 15
    # As sha1sum(1), sha512sum(1) and sha256sum(1) tell them.
    assert cni.calico_link("default", "web-0") == "cali0d7763386da"
    assert cni.chain("CNI-", "net", "id") == "CNI-30e7440e95deb2a63c98a3df"
    assert "lxc03ac674216f3" in cni.cilium_links() and len(cni.cilium_links()) == 65536


def test_a_result_as_it_is(host: Host) -> None:
    write(host, f"/var/lib/cni/results/{NAME}", ENTRY)
    (record,), faults = cni.read_results(host)
    assert faults == [] and record.name == f"/var/lib/cni/results/{NAME}"
    assert record.facts == {
        "id": ID,
        "network": "k8s-pod-network",
        "ifname": "eth0",
        "netns": "/var/run/netns/cni-1",
        "pod": "web-0",
        "pod_namespace": "default",
        "pod_uid": "",
        "sandbox": "",
        "links": ["cali12345678901"],
        "addresses": ["10.1.64.2/32"],
        "gateways": ["10.1.64.1"],
        "plugins": ["calico", "bandwidth", "portmap"],
        "bridges": [],
        "devices": [],
        "paths": ["/var/snap/microk8s/current/args/cni-network/calico-kubeconfig"],
    }


def test_configurations_of_other_plugins() -> None:
    assert cni.described({"type": "bridge"})["bridges"] == ["cni0"]
    assert cni.described({"plugins": [{"type": "flannel", "delegate": {"isDefaultGateway": True}}]})["bridges"] == [
        "cni0"
    ]
    assert cni.described({"plugins": [{"type": "bridge", "bridge": "br0"}]})["bridges"] == ["br0"]
    assert cni.described({"plugins": [{"type": "host-device", "device": "eth1"}]})["devices"] == ["eth1"]


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"containerId": "../x"},
        {"containerId": "1" * 64},  # the file is named for another
        {"networkName": 3},
        {"ifName": "eth1"},
    ],
    ids=str,
)
def test_a_result_that_is_none(host: Host, change: dict[str, Any]) -> None:
    write(host, f"/var/lib/cni/results/{NAME}", {**ENTRY, **change})
    assert cni.read_results(host)[0] == []


@pytest.mark.parametrize(
    "change",
    [
        {"config": "!!", "netns": "/run/../x", "cniArgs": {"K8S_POD_NAME": "x"}, "result": []},
        {"config": base64.b64encode(b"[" * 100000).decode(), "netns": 3, "cniArgs": [[1, 2], ["a"], "x"], "result": 3},
        {"config": None, "netns": "x", "cniArgs": None, "result": {"interfaces": {}, "ips": [{"address": "rm -rf /"}]}},
        {
            "config": base64.b64encode(b"\xff").decode(),
            "netns": "/a\nb",
            "cniArgs": [],
            "result": {"interfaces": [{"name": "a\nb"}]},
        },
    ],
    ids=range(4),
)
def test_a_result_that_lies(host: Host, change: dict[str, Any]) -> None:
    write(host, f"/var/lib/cni/results/{NAME}", {**ENTRY, **change})
    (record,), _ = cni.read_results(host)
    empty = {name: value for name, value in record.facts.items() if name not in ("id", "network", "ifname")}
    assert not any(empty.values()), empty


def test_files_that_are_none(host: Host) -> None:
    write(host, "/var/lib/cni/results/a", "{")
    os.symlink("/etc/passwd", host.path("/var/lib/cni/results/b"))
    os.mkfifo(host.path("/var/lib/cni/results/c"))
    os.mkdir(host.path("/var/lib/cni/results/d"))
    with open(host.path("/var/lib/cni/results/e"), "wb") as file:
        file.truncate(1 << 40)
    write(host, "/var/lib/cni/results/f", {"cniVersion": "0.3.1", "ips": []})  # before libcni 0.8
    records, faults = cni.read_results(host)
    assert records == [] and len(faults) == 4


def test_leases(host: Host) -> None:
    base = "/var/lib/cni/networks"
    write(host, f"{base}/k8s-pod-network/10.1.64.2", f"{ID}\r\neth0")
    write(host, f"{base}/k8s-pod-network/10.1.64.3", ID)
    write(host, f"{base}/k8s-pod-network/fd00::3", f"{ID}\r\neth0")
    write(host, f"{base}/k8s-pod-network/10.1.64.4", "../../x\r\neth0")
    write(host, f"{base}/k8s-pod-network/10.1.64.5", b"\xff")
    write(host, f"{base}/k8s-pod-network/10.1.64.6", "a\nb\nc\nd")
    write(host, f"{base}/k8s-pod-network/last_reserved_ip.0", "10.1.64.3")
    write(host, f"{base}/k8s-pod-network/lock", "")
    write(host, f"{base}/file", "")
    records, faults = cni.read_leases(host)
    assert {(record.facts["address"], record.facts["id"], record.facts["ifname"]) for record in records} == {
        ("10.1.64.2", ID, "eth0"),
        ("10.1.64.3", ID, ""),
        ("fd00::3", ID, "eth0"),
    }
    assert len(faults) == 3


def test_scratch_files_of_flannel(host: Host) -> None:
    write(host, f"/var/lib/cni/flannel/{ID}", "{}")
    write(host, "/var/lib/cni/flannel/a b", "{}")
    assert [record.facts["id"] for record in cni.read_scratch(host)[0]] == [ID]


def test_configurations(host: Host) -> None:
    write(host, "/srv/real/10-calico.conflist", CONFLIST)
    write(host, "/srv/real/99-broken.conf", "{")
    write(host, "/srv/real/calico-kubeconfig", "apiVersion: v1")
    os.symlink("real", host.path("/srv/net.d"))
    records, faults = cni.read_conf(host, "/srv/net.d")
    assert [(record.name, record.facts["network"]) for record in records] == [
        ("/srv/net.d/10-calico.conflist", "k8s-pod-network"),
        ("/srv/net.d/99-broken.conf", ""),
    ]
    assert len(faults) == 1 and cni.read_conf(host, "/none") == ([], [])
