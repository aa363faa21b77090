"""What CNI's plugins have for containers that exist no more is told while the product stays; what a container has that
exists, running, stopped or in the making, is not, and what a plugin's agent collects is left to it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from test_kubernetes_rules import SHIM, SOCKET, TASKS, Kubernetes, bundle
from test_microk8s_rules import OTHER, PIN, SANDBOX, UID, Machine
from test_nerdctl_rules import ID, Nerdctl

from leftovers.claims import Case, attribute
from leftovers.evidence import cni, containerd
from leftovers.host import Host
from leftovers.kinds.kind import Look
from leftovers.model import Claim, Presence, Record, Scope, Verb
from leftovers.plan import TOO_YOUNG, orphans
from leftovers.products import load
from leftovers.products.containerd import RUNTIME as CONTAINERD
from leftovers.products.containers import reading
from leftovers.products.kubernetes import RUNTIME as KUBERNETES
from leftovers.products.nerdctl import RUNTIME as NERDCTL
from leftovers.survey import Survey
from unit.evidence.bolt_file import Writer

NETWORK = "k8s-pod-network"


def lost(host: Machine, later: Sequence[Record] | None = None) -> dict[str, Claim]:
    """The orphans that its rules find while the product is installed. `later`: what is read when all is listed."""
    listed = {kind: tuple(objects) for kind, objects in host.listed.items()}
    again = tuple(each for each in (host.records if later is None else later) if each.source != "ledger")
    case = Case(host.product.name, Presence.INSTALLED, listed, tuple(host.records), later=again)
    found = attribute(case, host.product.rules, host.product.recall, host.product.holds, host.product.orphans)
    return {id: claim for id, claim in found.items() if claim.orphan}


# -- which containers exist: what is read ---------------------------------------------------------------------------


BOOK = "io.containerd.metadata.v1.bolt/meta.db"


def book(tmp_path: Path, root: str = "var/lib/containerd", *ids: str) -> Path:
    """containerd's book of its containers."""
    path = tmp_path / root / BOOK
    path.parent.mkdir(parents=True)
    made: Any = {id.encode(): {b"createdat": b"x"} for id in ids}
    path.write_bytes(Writer().file({b"v1": {b"k8s.io": {b"containers": made}}}))
    return path


def host_of(tmp_path: Path, endpoint: str = SOCKET) -> Look:
    (tmp_path / f"var/lib/kubelet/pods/{UID}").mkdir(parents=True)
    (tmp_path / "var/lib/kubelet/config.yaml").write_text("kind: KubeletConfiguration\n")
    flags = f'KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix://{endpoint} --pod-infra-container-image=x"\n'
    (tmp_path / "var/lib/kubelet/kubeadm-flags.env").write_text(flags)
    return Look(Host(str(tmp_path)), Scope(), {"process": (), "mount": ()})


def result(tmp_path: Path, id: str, network: str = NETWORK, cri: bool = True, uid: str = UID) -> None:
    path = tmp_path / "var/lib/cni/results"
    path.mkdir(parents=True, exist_ok=True)
    arguments = [["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", "web-0"], ["K8S_POD_INFRA_CONTAINER_ID", id]]
    arguments += [["K8S_POD_UID", uid]]
    entry = {"kind": "cniCacheV1", "containerId": id, "networkName": network, "ifName": "eth0", "netns": PIN}
    entry |= {"cniArgs": arguments if cri else [], "config": "", "result": {}}
    (path / f"{network}-{id}-eth0").write_text(json.dumps(entry))
    os.utime(path / f"{network}-{id}-eth0", (1, 1))


def adrift(look: Look, runtime: Any = KUBERNETES) -> set[str]:
    return {record.name for record in reading.read_disk(runtime, look)[0] if record.type == "adrift"}


def test_a_pod_that_is_gone(tmp_path: Path) -> None:
    look = host_of(tmp_path)
    book(tmp_path, "var/lib/containerd", OTHER)
    result(tmp_path, SANDBOX)
    result(tmp_path, OTHER, cri=False)  # not CRI's
    # Podman before 4.0 calls a container of its own so (cri-o/ocicni pkg/ocicni/ocicni.go, buildCNIRuntimeConf).
    result(tmp_path, "b" * 64, "podman", uid="")
    (record,) = [each for each in reading.read_disk(KUBERNETES, look)[0] if each.type == "adrift"]
    assert record.name == SANDBOX and "default/web-0" in record.facts["why"] and record.facts["age"] > 1e9


@pytest.mark.parametrize(
    "sign",
    [
        *("bundle", "sandbox", "runc", "shim", "conmon", "book", "unreadable", "no book", "old book"),
        *("crio", "other", "endpoint"),
    ],
)
def test_one_that_exists_or_may(tmp_path: Path, sign: str) -> None:
    look = host_of(tmp_path, "/run/crio/crio.sock" if sign == "endpoint" else SOCKET)
    result(tmp_path, SANDBOX)
    root, state = tmp_path / "var/lib/containerd", tmp_path / "run/containerd"
    if sign != "no book":
        path = book(tmp_path, "var/lib/containerd", *([SANDBOX] if sign == "book" else []))
    if sign == "bundle":
        bundle(tmp_path, "k8s.io", SANDBOX, "99999999-0000-0000-0000-000000000000")  # of a pod that kubelet has not
    elif sign == "sandbox":  # stopped, after a boot
        (root / f"io.containerd.grpc.v1.cri/sandboxes/{SANDBOX}").mkdir(parents=True)
    elif sign == "runc":
        (state / f"runc/k8s.io/{SANDBOX}").mkdir(parents=True)
    elif sign == "shim":
        host = Machine()
        shim = host.process(9, SHIM, SHIM, "-namespace", "k8s.io", "-id", SANDBOX, "-address", "/run/k3s/x.sock")
        look = Look(look.host, Scope(), {"process": (shim,), "mount": ()})
    elif sign == "conmon":
        conmon = Machine().process(9, "/usr/bin/conmon", "/usr/bin/conmon", "--api-version", "1", "-c", SANDBOX)
        look = Look(look.host, Scope(), {"process": (conmon,), "mount": ()})
    elif sign == "unreadable":
        path.write_bytes(b"x" * 9000)
    elif sign == "old book":  # it was told another --root since
        process = Machine().process(9, "/usr/bin/containerd", "/usr/bin/containerd")
        look = Look(look.host, Scope(), {"process": (process,), "mount": ()})
        (tmp_path / "proc/9/fd").mkdir(parents=True)
        (tmp_path / "proc/9/fd/7").symlink_to(f"/srv/big/{BOOK}")
    elif sign == "crio":
        (tmp_path / "usr/bin").mkdir(parents=True)
        (tmp_path / "usr/bin/crio").touch()
    elif sign == "other":
        (tmp_path / "var/lib/rancher/k3s").mkdir(parents=True)
    assert adrift(look) == set()


def test_containers_of_nerdctl_by_its_networks(tmp_path: Path) -> None:
    net = tmp_path / "etc/cni/net.d"
    (net / "default").mkdir(parents=True)
    for name, path in (("bridge", "nerdctl-bridge"), ("front", "default/nerdctl-front"), ("mine", "10-mine")):
        id = hashlib.sha256(name.encode()).hexdigest() if name != "mine" else ""
        (net / f"{path}.conflist").write_text(json.dumps({"name": name, "nerdctlID": id, "plugins": []}))
    book(tmp_path)
    (tmp_path / f"var/lib/nerdctl/1935db59/containers/default/{ID}").mkdir(parents=True)
    (tmp_path / f"var/lib/nerdctl/0a0a0a0a/containers/default/{'b' * 64}").mkdir(parents=True)
    look = Look(Host(str(tmp_path)), Scope(), {"process": (), "mount": ()})
    result(tmp_path, f"default-{ID}", "bridge", cri=False)  # of one that exists
    result(tmp_path, f"default-{'b' * 64}", "bridge", cri=False)  # and of one in another containerd
    result(tmp_path, f"default-{OTHER}", "front", cri=False)
    result(tmp_path, f"default-{SANDBOX}", "mine", cri=False)  # another network's
    result(tmp_path, "default-job", "bridge", cri=False)  # ctr's
    assert adrift(look, NERDCTL) == {f"default-{OTHER}", OTHER}


@pytest.mark.parametrize("open_one", ["", "/var/lib/containerd", "/srv/big"])
def test_all_is_known_where_its_book_is(tmp_path: Path, open_one: str) -> None:
    process = Machine().process(9, "/usr/bin/containerd", "/usr/bin/containerd")
    look = Look(Host(str(tmp_path)), Scope(), {"process": (process,), "mount": ()})
    (tmp_path / "proc/9/fd").mkdir(parents=True)
    if open_one:
        (tmp_path / "proc/9/fd/7").symlink_to(f"{open_one}/{BOOK}")
        book(tmp_path)
    (record,) = [each for each in reading.read_disk(CONTAINERD, look)[0] if each.type == "whole"]
    assert record.facts["whole"] is (open_one == "/var/lib/containerd")


# -- what is told of them -------------------------------------------------------------------------------------------


def drifting(host: Machine, id: str, age: float = 500.0) -> None:
    host.record("adrift", id, "disk", why=f"{id[:12]} is of CRI's pod default/web-0", age=age)


def abandoned(host: Machine, id: str, pin: str, netns: int, link: str, *plugins: str) -> set[str]:
    """All that a pod has that is gone. Returns what is to be found of it."""
    host.netns(netns, [], [pin])
    host.link(link, peer="eth0", peer_netns=netns)
    host.file(host.result(id, netns=pin.replace("/run", "/var/run", 1), links=[link], plugins=list(plugins)), "file")
    lease = f"/var/lib/cni/networks/{NETWORK}/10.1.0.{netns}"
    host.record("lease", lease, "disk", id=id, ifname="eth0", network=NETWORK, address="10.1.0.9")
    host.file(lease, "file")
    chain = cni.chain("CNI-", NETWORK, id)
    made = [
        host.xtables(chain),
        host.xtables("POSTROUTING", f"-j {chain}", chain, f'name: "{NETWORK}" id: "{id}"'),
    ]
    files = {f"file:/var/lib/cni/results/{NETWORK}-{id}-eth0", f"file:{lease}"}
    return {f"netns:{netns}", f"link:{link}", *files, *(each.id for each in made)}


OTHER_PIN = "/run/netns/cni-bbbbbbbb-1111-2222-3333-444444444444"


def test_all_of_a_pod_that_is_gone_and_nothing_of_one_that_is_there() -> None:
    host = Kubernetes()
    host.grounds()
    host.running(10, SANDBOX, UID)
    host.result(SANDBOX, netns="/var/run/netns/cni-55555555-1111-2222-3333-444444444444", links=["veth00000001"])
    host.link("veth00000001", peer="eth0", peer_netns=77)
    host.file(f"/var/lib/cni/results/{NETWORK}-{SANDBOX}-eth0", "file")
    drifting(host, OTHER)
    wanted = abandoned(host, OTHER, OTHER_PIN, 88, "veth00000002")
    found = lost(host)
    assert found.keys() == wanted
    assert {claim.age for claim in found.values()} == {500.0}
    assert all("is gone" in claim.orphan and not claim.collector for claim in found.values())


def test_a_link_whose_other_end_is_not_to_be_seen_is_also_its_next_pod_s() -> None:
    """Calico computes a link's name of the pod's: db-0 has the same again."""
    host = Kubernetes()
    host.grounds()
    host.running(10, SANDBOX, UID)
    drifting(host, OTHER)
    for id in (SANDBOX, OTHER):
        host.result(id, links=["cali0000000000a"])
    host.link("cali0000000000a")
    assert "link:cali0000000000a" not in lost(host)
    host.records[:] = [each for each in host.records if not each.name.endswith(f"{SANDBOX}-eth0")]
    assert "link:cali0000000000a" in lost(host)


def test_what_has_come_or_cannot_be_told_any_more_when_all_is_listed_is_not_gone() -> None:
    host = Kubernetes()
    host.grounds()
    drifting(host, OTHER)
    abandoned(host, OTHER, OTHER_PIN, 88, "veth00000002")
    assert lost(host)
    assert lost(host, [each for each in host.records if each.type != "adrift"]) == {}


def test_what_only_the_ledger_remembers_to_be_gone_is_not_told() -> None:
    host = Kubernetes()
    host.grounds()
    host.record("adrift", OTHER, "ledger", why="x", age=500.0)
    abandoned(host, OTHER, OTHER_PIN, 88, "veth00000002")
    assert lost(host) == {}


def test_a_namespace_that_somebody_is_in_is_not_gone() -> None:
    host = Kubernetes()
    host.grounds()
    drifting(host, OTHER)
    host.process(50, "/usr/bin/tcpdump", "tcpdump", netns=88, our_net=False)
    abandoned(host, OTHER, OTHER_PIN, 88, "veth00000002")
    host.listed["netns"][-1].facts["processes"].append(50)
    assert not {"netns:88", "link:veth00000002"} & lost(host).keys()


def test_a_namespace_that_a_pod_is_in_is_not_gone() -> None:
    """Also when a result of one that is gone names the same."""
    host = Kubernetes()
    host.grounds()
    host.running(10, SANDBOX, UID, netns=88)
    drifting(host, OTHER)
    host.listed["netns"][-1].facts["pins"].append(OTHER_PIN)
    host.result(OTHER, netns=OTHER_PIN.replace("/run", "/var/run", 1), links=["veth00000002"])
    host.link("veth00000002", peer="eth0", peer_netns=88)
    assert lost(host) == {}


@pytest.mark.parametrize(
    ("plugin", "agent"), [("calico", "calico-node"), ("cilium-cni", "cilium-agent"), ("flannel", "flanneld")]
)
def test_what_a_living_agent_collects_is_left_to_it(plugin: str, agent: str) -> None:
    host = Kubernetes()
    host.grounds()
    drifting(host, OTHER)
    wanted = abandoned(host, OTHER, OTHER_PIN, 88, "veth00000002", plugin)
    assert {claim.collector for claim in lost(host).values()} == {""}
    host.process(60, f"/usr/bin/{agent}", agent, nested=True, netns=5, mntns=60)
    found = lost(host)
    assert found.keys() == wanted and {claim.collector for claim in found.values()} == {agent}
    plan = orphans(seen(host, found), ["kubernetes"], lambda claim: True)
    assert plan.doing() == () and all(f"left to {agent}" in action.reason for action in plan.keeping())


def test_a_card_in_the_namespace_of_a_pod_that_is_gone_goes_home() -> None:
    host = Kubernetes()
    host.grounds()
    host.running(10, SANDBOX, UID)
    drifting(host, OTHER)
    wanted = abandoned(host, OTHER, OTHER_PIN, 88, "veth00000002")
    for netns in (77, 88):
        name = f"{netns}/net1"
        host.add("link", name, (netns, 5), name="net1", netns=netns, host=False, type="", peer_netns=0, master="")
    found = lost(host)
    assert found.keys() == wanted | {"link:88/net1"}
    plan = orphans(seen(host, found), ["kubernetes"], lambda claim: True)
    assert {action.id: action.verb for action in plan.actions if action.verb is not Verb.REMOVE} == {
        "link:88/net1": Verb.RETURN
    }
    assert plan.doing()[0].id == "link:88/net1", "before the namespace ends"
    young = orphans(seen(host, found), ["kubernetes"], lambda claim: False)
    assert young.doing() == ()


def seen(host: Machine, claims: dict[str, Claim]) -> Survey:
    by_object = {id: {host.product.name: claim} for id, claim in claims.items()}
    present = {host.product.name: Presence.INSTALLED}
    return Survey("", Scope(), {}, by_object, present, {}, {}, ())


def test_what_is_young_is_looked_at_again() -> None:
    host = Kubernetes()
    host.grounds()
    drifting(host, OTHER, age=3.0)
    abandoned(host, OTHER, OTHER_PIN, 88, "veth00000002")
    found = orphans(seen(host, lost(host)), ["kubernetes"], lambda claim: claim.age > 60)
    assert found.doing() == () and all(action.reason.endswith(TOO_YOUNG) for action in found.keeping())


def test_nerdctl_s_container_that_is_gone_beside_one_that_is_stopped() -> None:
    host = Nerdctl()
    host.stored()
    host.conflist()
    host.record("nerdctl", f"default/{ID}", "disk", namespace="default", id=ID, name="web", path="x", networks=[])
    for name in (f"default-{OTHER}", OTHER):
        drifting(host, name)
    for id in (f"default-{ID}", f"default-{OTHER}"):
        host.file(host.result(id, network="bridge"), "file")
        host.xtables(cni.chain("CNI-", "bridge", id))
    for pid, id in ((50, ID), (51, OTHER)):
        process = host.process(pid, "/usr/bin/sleep", "sleep", "infinity")
        process.facts["argv"][:] = ["sleep", "infinity"]  # type: ignore[index]
        path = f"/run/nerdctl/default/{id}/port-reserver.pid"
        host.record("reserver", path, "disk", namespace="default", id=id, pid=pid, late=0)
    host.link("nerdctl0", "bridge", addresses=["10.4.0.1"])
    assert lost(host).keys() == {
        f"file:/var/lib/cni/results/bridge-default-{OTHER}-eth0",
        f"xtables:ip nft nat -N {cni.chain('CNI-', 'bridge', f'default-{OTHER}')}",
        "process:51",
    }


# -- of containerd itself -------------------------------------------------------------------------------------------


class Containerd(Machine):
    def __init__(self, whole: bool = True) -> None:
        super().__init__()
        self.product = load("containerd")
        self.record("whole", "containerd", "disk", whole=whole)

    def shim(self, pid: int, id: str, there: bool) -> None:  # type: ignore[override]
        self.process(pid, SHIM, SHIM, "-namespace", "default", "-id", id, "-address", SOCKET)
        path = f"{TASKS}/default/{id}"
        self.record("shim", str(pid), "kernel", start=9, bundle=path, namespace="default", id=id, address=SOCKET)
        if there:
            self.record("container", f"default/{id}", "disk", **{**containerd.blank("default", id), "bundle": path})


def test_a_shim_without_a_task() -> None:
    host = Containerd()
    host.shim(10, SANDBOX, there=True)
    host.shim(20, OTHER, there=False)
    host.process(30, "/usr/bin/x", "x").facts["start"] = 100009  # type: ignore[index]
    found = lost(host)
    assert found.keys() == {"process:20"} and found["process:20"].age == pytest.approx(
        100000 / os.sysconf("SC_CLK_TCK")
    )
    unread = Containerd(whole=False)
    unread.shim(20, OTHER, there=False)
    assert lost(unread) == {}


def test_a_task_that_has_come_when_all_is_listed() -> None:
    host = Containerd()
    host.shim(20, OTHER, there=False)
    host.mount(f"/run/containerd/io.containerd.grpc.v1.cri/sandboxes/{SANDBOX}/shm", fstype="tmpfs")
    host.record("container", f"k8s.io/{SANDBOX}", "disk", **containerd.blank("k8s.io", SANDBOX))
    before = tuple(host.records)
    assert len(lost(host)) == 2
    assert lost(host, [each for each in before if each.type != "whole"]) == {}
    host.record("kept", f"k8s.io/{SANDBOX}", "disk", namespace="k8s.io", id=SANDBOX)
    facts = {**containerd.blank("default", OTHER), "bundle": f"{TASKS}/default/{OTHER}"}
    host.record("container", f"default/{OTHER}", "disk", **facts)
    later, host.records[:] = tuple(host.records), before
    assert lost(host, later) == {}


@pytest.mark.parametrize("sign", ["sandbox", "socket"])
def test_a_shim_that_other_containers_have_is_no_orphan(sign: str) -> None:
    """A pod's pause process has died: containerd deletes that bundle, and the pod's other containers run on."""
    host = Containerd()
    host.shim(20, OTHER, there=False)
    facts = {**containerd.blank("default", SANDBOX), "bundle": f"{TASKS}/default/{SANDBOX}"}
    if sign == "sandbox":
        facts["sandbox"] = OTHER
    else:
        facts["socket"] = f"/run/containerd/s/{containerd.sockets(SOCKET, 'default', OTHER)[0]}"
    host.record("container", f"default/{SANDBOX}", "disk", **facts)
    assert lost(host) == {}


def test_what_cri_mounted_for_a_sandbox_that_is_gone() -> None:
    host = Containerd()
    sandboxes = "/run/containerd/io.containerd.grpc.v1.cri/sandboxes"
    for id in (SANDBOX, OTHER):
        host.mount(f"{sandboxes}/{id}/shm", fstype="tmpfs")
        host.record("container", f"k8s.io/{id}", "disk", **containerd.blank("k8s.io", id))
    host.record("kept", f"k8s.io/{SANDBOX}", "disk", namespace="k8s.io", id=SANDBOX)
    assert lost(host).keys() == {f"mount:{sandboxes}/{OTHER}/shm"}
