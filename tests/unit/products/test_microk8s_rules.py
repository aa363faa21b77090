"""Whose is it? The rules of containerd's products on recorded objects, as MicroK8s has them, each beside the
look-alike that must survive (facts: kubernetes, section 8). tests/kernel has what can be had for real."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_incus_rules import HostOf

from leftovers.claims import Case, attribute
from leftovers.evidence import cni, containerd, snap_program
from leftovers.host import Host
from leftovers.kinds import KINDS
from leftovers.kinds.kind import Look
from leftovers.model import Claim, Evidence, Object, Presence, Role, Scope
from leftovers.plan import decide
from leftovers.products import load
from leftovers.products.containers import firewall, network, reading
from leftovers.products.microk8s import RUNTIME

COMMON = "/var/snap/microk8s/common"
ADDRESS = f"{COMMON}/run/containerd.sock"
TASKS = f"{COMMON}/run/containerd/io.containerd.runtime.v2.task/k8s.io"
SANDBOX, INNER, OTHER = "5" * 64, "c" * 64, "0" * 64
UID, OTHER_UID = "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"
PIN, OTHER_PIN = (
    "/run/netns/cni-aaaaaaaa-1111-2222-3333-444444444444",
    "/run/netns/cni-bbbbbbbb-1111-2222-3333-444444444444",
)
NETWORK = "k8s-pod-network"
SHIM = "/snap/microk8s/7000/bin/containerd-shim-runc-v2"
PODS = f"/kubepods/besteffort/pod{UID}"
LINK = cni.calico_link("default", "web-0")


class Machine(HostOf):
    """A host made of literal objects, on which MicroK8s was."""

    def __init__(self) -> None:
        super().__init__()
        self.product = load("microk8s")

    def shim(
        self, pid: int, id: str = SANDBOX, address: str = ADDRESS, namespace: str = "k8s.io", exe: str = SHIM
    ) -> Object:
        argv = (exe, "-namespace", namespace, "-id", id, "-address", address)
        cgroup = (
            "/system.slice/snap.microk8s.daemon-containerd.service" if address == ADDRESS else "/system.slice/x.service"
        )
        return self.process(pid, exe, *argv, cgroup=cgroup)

    def bundle(self, id: str = SANDBOX, **facts: Any) -> None:
        known = {**containerd.blank("k8s.io", id), "bundle": f"{TASKS}/{id}", "cgroup": f"{PODS}/{id}", **facts}
        self.record("container", f"k8s.io/{id}", "disk", **known)

    def pod(self) -> None:
        """A sandbox with its shim, and a container in it."""
        pod = {"pod": "web-0", "pod_namespace": "default", "pod_uid": UID, "sandbox": SANDBOX}
        self.shim(10)
        self.record(
            "shim",
            "10",
            "kernel",
            start=9,
            bundle=f"{TASKS}/{SANDBOX}",
            namespace="k8s.io",
            id=SANDBOX,
            address=ADDRESS,
        )
        self.bundle(netns=PIN.replace("/run", "/var/run", 1), **pod)
        self.bundle(INNER, **pod)
        self.process(
            11, "/pause", "/pause", ppid=10, cgroup=f"{PODS}/{SANDBOX}", nested=True, netns=77, mntns=11, pidns=11
        )
        self.process(12, "/app", "app", ppid=10, cgroup=f"{PODS}/{INNER}", nested=True, netns=77, mntns=12, pidns=12)
        self.process(13, "/app", "worker", ppid=12, cgroup=f"{PODS}/{INNER}", nested=True, netns=77, mntns=12, pidns=12)
        for path in ("/kubepods", "/kubepods/besteffort", PODS, f"{PODS}/{SANDBOX}", f"{PODS}/{INNER}"):
            self.cgroup(path, populated=True)
        self.netns(77, [11, 12, 13], [PIN])
        self.result()

    def netns(self, inode: int, processes: list[int], pins: list[str]) -> Object:
        facts = {"inode": inode, "host": False, "processes": processes, "pins": pins}
        return self.add("netns", str(inode), (inode,), **facts)

    def result(self, id: str = SANDBOX, source: str = "disk", **facts: Any) -> str:
        network = facts.pop("network", NETWORK)
        path = f"/var/lib/cni/results/{network}-{id}-eth0"
        known = {
            "id": id,
            "network": network,
            "ifname": "eth0",
            "netns": PIN if id == SANDBOX else "",
            "pod": "",
            "pod_namespace": "",
            "links": [],
            "addresses": [],
            "gateways": [],
            "plugins": [],
            "bridges": [],
            "devices": [],
            "paths": [],
        }
        self.record("cni", path, source, **{**known, **facts})
        return path

    def xtables(
        self, chain: str, rule: str = "", target: str = "", comment: str = "", table: str = "nat", **facts: Any
    ) -> Object:
        known = {"family": "ip", "backend": "nft", "table": table, "chain": chain, **facts}
        if rule or target:
            known |= {
                "rule": rule or f"-j {target}",
                "target": target,
                "comment": comment,
                "interfaces": [],
                "macs": [],
            }
            line = f"-A {chain} {known['rule']} {comment}"
        else:
            known |= {"user": True, "references": 0, "rules": 0}
            line = f"-N {chain}"
        return self.add("xtables", f"ip nft {table} {line}", ("ip", "nft", table, line, 1), **known)

    def file(
        self, path: str, type: str = "directory", entries: tuple[str, ...] = (), target: str = "", **facts: Any
    ) -> Object:
        known = {"path": path, "type": type, "target": target, "mounted": False, "mounts": [], "hollow": False}
        known |= {"entries": list(entries), **facts}
        return self.add("file", path, (path, type, 7), **known)

    def ask(
        self, rules: dict[str, Any] | None = None, been: bool = False, recalled: dict[str, Claim] | None = None
    ) -> dict[str, Claim]:
        listed = {kind: tuple(objects) for kind, objects in self.listed.items()}
        case = Case("microk8s", Presence.ABSENT, listed, tuple(self.records), recalled=recalled or {}, been=been)
        return attribute(case, {**self.product.rules, **(rules or {})}, self.product.recall)

    def gone(self, been: bool = False, rules: dict[str, Any] | None = None) -> set[str]:
        found = self.ask(rules, been).items()
        return {id for id, claim in found if claim.proven and claim.role in (Role.LIVE, Role.DATA)}


@pytest.fixture
def host() -> Machine:
    return Machine()


def later(kind: str) -> dict[str, Any]:
    """The rules of a kind, also where the registry does not have it yet."""
    some = {**network.LATER, **firewall.LATER}[kind]
    from leftovers.products.containers.names import rules

    return {kind: rules(RUNTIME, *some)}


def named(id: str, network: str = NETWORK, prefix: str = "") -> str:
    return f'{prefix}name: "{network}" id: "{id}"'


# -- processes, cgroups, network namespaces -------------------------------------------------------------------------


def test_a_pod_and_all_that_hangs_on_it(host: Machine) -> None:
    host.pod()
    host.link(LINK, peer="eth0", peer_netns=77)
    assert host.gone() == {
        *(f"process:{pid}" for pid in (10, 11, 12, 13)),
        *(
            f"cgroup:{path}"
            for path in ("/kubepods", "/kubepods/besteffort", PODS, f"{PODS}/{SANDBOX}", f"{PODS}/{INNER}")
        ),
        *("netns:77", f"link:{LINK}"),
    }
    claims = host.ask()
    assert claims["process:11"].rank < claims["process:10"].rank, "containers end before their shim"
    assert claims["cgroup:/kubepods"].object.facts["only_empty"]


def test_trap_3_names_prove_nothing(host: Machine) -> None:
    host.process(20, "/pause", "/pause", nested=True, netns=5, mntns=5)
    host.process(21, "/usr/bin/sleep", "/pause")
    host.process(22, "/usr/bin/sleep", SHIM, "1000")
    host.process(23, "/coredns", "/coredns", nested=True, netns=5, mntns=5)
    host.shim(24, OTHER, "/run/containerd/containerd.sock", exe="/usr/bin/containerd-shim-runc-v2")
    host.process(
        25,
        "/pause",
        "/pause",
        ppid=24,
        nested=True,
        netns=6,
        mntns=6,
        cgroup=f"/kubepods/besteffort/pod{OTHER_UID}/{OTHER}",
    )
    host.cgroup(f"/kubepods/besteffort/pod{OTHER_UID}/{OTHER}", populated=True)
    host.cgroup(f"/kubepods/besteffort/pod{OTHER_UID}", populated=True)
    host.cgroup("/kubepods/besteffort", populated=True)
    host.netns(6, [25], [OTHER_PIN])
    assert host.gone(been=True) == set()


def test_the_arguments_of_a_shim_alone_prove_nothing(host: Machine) -> None:
    host.process(20, "/usr/bin/sleep", "shim", "-namespace", "k8s.io", "-id", OTHER, "-address", ADDRESS)
    host.process(21, "/usr/bin/vi", "vi", "-address", ADDRESS)
    host.process(22, SHIM, "shim", "-namespace", "k8s.io", "-id", OTHER, "-address", ADDRESS, nested=True, mntns=4)
    host.process(23, "/usr/bin/sleep", "shim", "-namespace", "k8s.io", "-id", OTHER, "-address", ADDRESS)
    # Of another process that had this pid.
    host.record(
        "shim", "23", "kernel", start=8, bundle=f"{TASKS}/{OTHER}", namespace="k8s.io", id=OTHER, address=ADDRESS
    )
    claims = host.ask()
    assert set(claims) == {"process:20", "process:23"}
    assert not claims["process:20"].proven and claims["process:20"].role is Role.ADMIN
    assert not claims["process:23"].proven


def test_a_shim_of_another_name_by_its_socket_and_bundle(host: Machine) -> None:
    # spinframework/containerd-shim-spin#195: not below the product's programs.
    host.shim(30, exe="/usr/bin/containerd-shim-spin-v2 (deleted)")
    assert host.gone() == {"process:30"}, "in the cgroup of the service"
    host.listed["process"] = [each for each in host.listed["process"] if each.key != "30"]
    host.process(
        30, "/usr/bin/containerd-shim-spin-v2", "s", "-namespace", "k8s.io", "-id", SANDBOX, "-address", ADDRESS
    )
    assert host.gone() == set()
    host.record(
        "shim", "30", "kernel", start=9, bundle=f"{TASKS}/{SANDBOX}", namespace="k8s.io", id=SANDBOX, address=ADDRESS
    )
    assert host.gone() == {"process:30"}


def test_its_own_programs_and_what_is_in_its_services(host: Machine) -> None:
    host.process(40, "/snap/microk8s/7000/kubelite (deleted)", "kubelite")
    host.process(41, "/usr/bin/bash", "bash", cgroup="/system.slice/snap.microk8s.daemon-kubelite.service")
    host.process(42, "/usr/bin/bash", "bash", cgroup="/system.slice/snap.microk8s.daemon-kubelite.service.d-mine")
    host.process(43, "/snap/microk8s-mine/1/kubelite", "kubelite")
    host.process(44, "/usr/bin/bash", "bash", cgroup="/system.slice/snap.microk8s-mine.daemon.service")
    host.process(45, "/opt/kubelite", "kubelite")
    # In its own remove hook these are we.
    ours = host.process(46, "/snap/microk8s/7000/usr/bin/python3.12", "python3")
    ours.facts["self"] = True  # type: ignore[index]
    host.cgroup("/system.slice/snap.microk8s.daemon-kubelite.service", populated=True)
    assert host.gone() == {"process:40", "process:41", "cgroup:/system.slice/snap.microk8s.daemon-kubelite.service"}


def test_containers_whose_shim_has_ended(host: Machine) -> None:
    host.bundle(cgroup="")
    host.process(50, "/app", "a", nested=True, netns=7, mntns=50, cgroup=f"/kubepods/pod{UID}/{SANDBOX}")
    host.cgroup(f"/kubepods/pod{UID}/{SANDBOX}", populated=True)
    # runc knows it; its shim's namespace and cgroup say nothing.
    host.process(51, "/app", "b", nested=True, netns=8, mntns=51, cgroup="/odd")
    host.record(
        "runc",
        f"k8s.io/{INNER}",
        "disk",
        namespace="k8s.io",
        id=INNER,
        path="/run/containerd/runc/k8s.io/x",
        pid=51,
        start=9,
        bundle=f"{TASKS}/{INNER}",
        cgroups=[],
    )
    # On the file system that is mounted in a bundle.
    host.mount(f"{TASKS}/{OTHER}/rootfs", "0:99", "/", "overlay")
    host.process(
        52, "/app", "c", nested=True, netns=9, mntns=52, cgroup="/odd", mount_root=["0:99", "/"], mount_devices=[]
    )
    # The same of another containerd's, and a state that outlived its process.
    other = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"
    host.process(
        53, "/app", "d", nested=True, netns=10, mntns=53, cgroup="/odd", mount_root=["0:98", "/"], mount_devices=[]
    )
    host.mount(f"{other}/{'1' * 64}/rootfs", "0:98", "/", "overlay")
    for pid, id, start, bundle in ((54, "2" * 64, 9, other), (55, "3" * 64, 8, TASKS)):
        host.process(pid, "/app", "e", nested=True, netns=pid, mntns=pid, cgroup="/odd")
        host.record(
            "runc",
            f"k8s.io/{id}",
            "disk",
            namespace="k8s.io",
            id=id,
            path="/x",
            pid=pid,
            start=start,
            bundle=f"{bundle}/{id}",
            cgroups=[],
        )
    assert {id for id in host.gone() if id.startswith("process:")} == {"process:50", "process:51", "process:52"}


def test_a_pod_in_the_host_s_own_namespaces(host: Machine) -> None:
    host.pod()
    host.process(60, "/csi", "csi", ppid=10, cgroup=f"{PODS}/{INNER}")  # hostPID
    host.process(61, "/csi", "sh", ppid=60, cgroup=f"{PODS}/{INNER}")
    host.process(62, "/usr/bin/sh", "sh", ppid=1, cgroup="/user.slice")
    assert {"process:60", "process:61"} <= host.gone() and "process:62" not in host.gone()


def test_cgroups_by_systemd_s_driver(host: Machine) -> None:
    host.bundle(pod_uid=UID, cgroup=f"kubepods-burstable-pod{UID.replace('-', '_')}.slice:cri-containerd:{SANDBOX}")
    top = "/kubepods.slice/kubepods-burstable.slice"
    pod = f"{top}/kubepods-burstable-pod{UID.replace('-', '_')}.slice"
    for path in ("/kubepods.slice", top, pod, f"{pod}/cri-containerd-{SANDBOX}.scope"):
        host.cgroup(path)
    host.cgroup(f"/docker-{SANDBOX[:-1]}0.scope")
    assert host.gone() == {
        f"cgroup:{path}" for path in ("/kubepods.slice", top, pod, f"{pod}/cri-containerd-{SANDBOX}.scope")
    }


def test_an_id_that_a_person_chose_counts_only_where_its_bundle_says(host: Machine) -> None:
    host.bundle("job", cgroup="/k8s.io/job")
    host.cgroup("/k8s.io/job", populated=True)
    host.cgroup("/default/job", populated=True)
    host.bundle("root", cgroup="/")
    host.bundle("mine", cgroup="/mine")
    host.cgroup("/mine", populated=True)
    host.bundle("slice", cgroup="/system.slice")
    host.cgroup("/system.slice", populated=True)
    host.cgroup("/k8s.io", populated=True)
    assert host.gone() == {"cgroup:/k8s.io/job", "cgroup:/k8s.io"}


def test_another_kubelet_s_pods_keep_the_parents(host: Machine) -> None:
    host.pod()
    host.cgroup(f"/kubepods/besteffort/pod{OTHER_UID}")
    host.file("/usr/bin/kubelet", "file")
    gone = host.gone()
    assert f"cgroup:{PODS}" in gone and not gone & {
        "cgroup:/kubepods",
        "cgroup:/kubepods/besteffort",
        f"cgroup:/kubepods/besteffort/pod{OTHER_UID}",
    }
    host.listed["file"].clear()
    assert f"cgroup:/kubepods/besteffort/pod{OTHER_UID}" in host.gone(), "nobody else can have made it"


def test_a_cgroup_that_nobody_knows_keeps_its_parents(host: Machine) -> None:
    host.pod()
    host.cgroup("/kubepods/besteffort/mine")
    host.cgroup("/kubepods-mine")
    gone = host.gone()
    assert f"cgroup:{PODS}" in gone and not gone & {"cgroup:/kubepods", "cgroup:/kubepods/besteffort"}
    assert not gone & {"cgroup:/kubepods/besteffort/mine", "cgroup:/kubepods-mine"}


def test_trap_1_a_netns_named_cni(host: Machine) -> None:
    host.pod()
    host.netns(88, [], [OTHER_PIN])
    host.netns(89, [], ["/run/netns/mine"])
    assert {id for id in host.gone() if id.startswith("netns:")} == {"netns:77"}


def test_a_netns_after_its_processes_by_a_result_or_a_bundle(host: Machine) -> None:
    host.bundle(netns=f"/var{PIN}")
    host.netns(77, [], [PIN])
    host.netns(78, [], [OTHER_PIN])
    host.result(OTHER, netns=f"/var{OTHER_PIN}")
    assert host.gone() == {"netns:77"}
    # The configuration in the result names the product's own files.
    host.records.pop()
    host.result(
        OTHER, netns=f"/var{OTHER_PIN}", paths=["/var/snap/microk8s/current/args/cni-network/calico-kubeconfig"]
    )
    assert host.gone() == {"netns:77", "netns:78"}


def test_a_netns_that_somebody_else_is_in_or_holds(host: Machine) -> None:
    host.pod()
    host.process(70, "/usr/bin/tcpdump", "tcpdump", netns=77)
    host.listed["netns"][0].facts["processes"].append(70)
    host.link(LINK, peer="eth0", peer_netns=77)
    claim = host.ask()["netns:77"]
    assert claim.role is Role.HELD and "tcpdump" in claim.evidence[0].text
    assert f"link:{LINK}" not in host.gone()
    host.listed["netns"][0].facts["processes"].pop()
    host.listed["netns"][0].facts["pins"].append("/run/netns/mine")
    assert host.ask()["netns:77"].role is Role.HELD
    # A container that was given the administrator's namespace.
    host.listed["netns"][0].facts["pins"][:] = ["/run/netns/mine"]
    assert host.ask()["netns:77"].role is Role.HELD


# -- links ----------------------------------------------------------------------------------------------------------


def test_a_link_that_looks_like_a_pod_s(host: Machine) -> None:
    host.pod()
    host.link("veth12345678", peer="eth0", peer_netns=77)
    host.link("veth87654321", peer="eth0", peer_netns=88)
    host.link("br-cali0badcafe", type="bridge")
    host.link("cali0badcafe000", peer="x", peer_netns=1)
    host.link("lxc12345", peer="x", peer_netns=88)
    # A pod of the same name in another cluster: its other end is seen in somebody else's namespace.
    host.link(LINK, peer="eth0", peer_netns=88)
    assert {id for id in host.gone() if id.startswith("link:")} == {"link:veth12345678"}
    claim = host.ask()["link:cali0badcafe000"]
    assert not claim.proven and claim.role is Role.ADMIN


def test_links_by_computed_names_when_their_namespace_is_not_to_be_seen(host: Machine) -> None:
    host.bundle(pod="web-0", pod_namespace="default")
    host.result(plugins=["bandwidth"], links=["veth00000001", "cni0"], bridges=["cni0"])
    for name in (LINK, "veth00000001", "veth00000002", cni.calico_link("default", "web-1")):
        host.link(name)
    host.link(cni.ifb(NETWORK, SANDBOX), type="ifb")
    host.link(cni.ifb(NETWORK, OTHER), type="ifb")
    wanted = {f"link:{LINK}", "link:veth00000001", f"link:{cni.ifb(NETWORK, SANDBOX)}"}
    assert host.gone(been=True) == wanted
    host.file("/usr/local/bin/k3s", "file")
    assert host.gone(been=True) == {f"link:{cni.ifb(NETWORK, SANDBOX)}"}
    assert host.ask(been=True)[f"link:{LINK}"].role is Role.ADMIN


SINGLE = (("vxlan.calico", "vxlan"), ("cilium_host", "veth"), ("kube-ipvs0", "dummy"), ("wireguard.cali", "wireguard"))


@pytest.mark.parametrize(("name", "type"), SINGLE)
def test_what_each_has_once_for_the_host(host: Machine, name: str, type: str) -> None:
    host.link(name, type=type)
    assert host.gone() == set(), "it has never been here"
    assert host.gone(been=True) == {f"link:{name}"}
    host.process(80, "/usr/local/bin/k3s", "k3s", "server")
    claim = host.ask(been=True)[f"link:{name}"]
    assert claim.role is Role.ADMIN and "k3s" in claim.evidence[0].text


def test_the_same_name_on_another_type_or_the_kernel_s_own(host: Machine) -> None:
    host.link("vxlan.calico", type="bridge")
    host.link("tunl0", type="ipip")
    host.link("cilium_vxlan", type="vxlan", master="br-lan")
    assert host.gone(been=True) == set()


def test_a_kubelet_of_somebody_else_counts_where_it_can_reach(host: Machine) -> None:
    host.link("vxlan.calico", type="vxlan")
    host.process(80, "/usr/bin/kubelet", "kubelet", nested=True, netns=9, mntns=9)  # kind: a network of its own
    assert host.gone(been=True) == {"link:vxlan.calico"}
    host.process(81, "/usr/bin/kubelet", "kubelet", nested=True, mntns=9)  # a container with the host's network
    assert host.gone(been=True) == set()
    host.listed["process"].pop()
    host.file("/var/lib/kubelet", entries=("pods",))
    assert host.gone(been=True) == set(), "a kubelet that is stopped"


def test_trap_5_the_bridge_cni0(host: Machine) -> None:
    host.pod()
    host.result(network="microk8s-flannel-network", id=INNER, bridges=["cni0"], gateways=["10.1.65.1"])
    host.link("cni0", type="bridge", addresses=["10.1.65.1", "fe80::1"])
    host.link("veth12345678", master="cni0", peer="eth0", peer_netns=77)
    assert {"link:cni0", "link:veth12345678"} <= host.gone()
    host.link("eth1", type="", master="cni0")
    assert "link:cni0" not in host.gone() and host.ask()["link:cni0"].role is Role.HELD
    host.listed["link"].pop()
    host.result(OTHER, network="cbr0", bridges=["cni0"], gateways=["10.244.0.1"])
    assert host.ask()["link:cni0"].role is Role.HELD, "another's pods use it too"
    host.records.pop()
    host.listed["link"][0].facts["addresses"].append("192.168.1.2")
    assert not host.ask()["link:cni0"].proven, "an address that no plugin gave it"


def test_a_bridge_that_no_result_of_ours_names(host: Machine) -> None:
    host.pod()
    host.link("cni0", type="bridge", addresses=["10.88.0.1"])
    host.result(OTHER, bridges=["cni0"], gateways=["10.88.0.1"])
    assert "link:cni0" not in host.gone()


def test_flannel_s_tunnel_by_its_address(host: Machine) -> None:
    host.link("flannel.1", type="vxlan", addresses=["10.1.65.0"])
    host.link("flannel.2", type="vxlan", addresses=["192.168.5.1"])
    host.link("flannel.3", type="bridge", addresses=["10.1.66.0"])
    assert host.gone(been=True) == {"link:flannel.1"}
    host.xtables("FORWARD", "-s 10.200.0.0/16 -j ACCEPT", "ACCEPT", "generated for MicroK8s pods", "filter")
    assert "link:flannel.1" not in host.gone(been=True), "the pods' network is another"


def test_a_card_that_was_lent_to_a_pod_goes_home(host: Machine) -> None:
    host.pod()
    host.records.pop()
    host.result(ifname="net1", devices=["enp5s0"], plugins=["host-device"])
    host.link("net1", type="", netns=77)
    host.link("net2", type="", netns=77)
    host.link("eth0", netns=77)
    host.link("lo", type="loopback", netns=77)
    lent = {id: claim for id, claim in host.ask().items() if claim.role is Role.LENT}
    assert set(lent) == {"link:77/net1", "link:77/net2"}
    assert lent["link:77/net1"].object.facts["home_name"] == "enp5s0"
    assert "home_name" not in lent["link:77/net2"].object.facts


# -- firewall -------------------------------------------------------------------------------------------------------


def test_trap_7_the_chains_of_one_container_by_their_computed_names(host: Machine) -> None:
    host.pod()
    masquerade, published = (cni.chain(prefix, NETWORK, SANDBOX) for prefix in ("CNI-", "CNI-DN-"))
    other = cni.chain("CNI-", NETWORK, OTHER)
    for chain in (masquerade, published, other, "CNI-0badcafe0badcafe0badcafe", "CNI-ADMIN"):
        host.xtables(chain)
        host.xtables(chain, "-p tcp -j RETURN", "RETURN")
    host.xtables("POSTROUTING", "-s 10.1.0.5/32", masquerade, named(SANDBOX))
    host.xtables("POSTROUTING", "-s 10.1.0.6/32", other, named(OTHER))
    host.xtables("CNI-HOSTPORT-DNAT", "-p tcp", published, named(SANDBOX, prefix="dnat "))
    host.xtables("POSTROUTING", "-s 10.1.0.5/32 mine", "ACCEPT", named(SANDBOX))
    host.xtables("POSTROUTING", "-s 10.1.0.7/32", masquerade, named(OTHER))
    gone = {id.removeprefix("xtables:ip nft nat ") for id in host.gone() if id.startswith("xtables:")}
    wanted = {
        f"-N {masquerade}",
        f"-N {published}",
        f"-A {masquerade} -p tcp -j RETURN ",
        f"-A {published} -p tcp -j RETURN ",
    }
    wanted |= {
        f"-A POSTROUTING -s 10.1.0.5/32 {named(SANDBOX)}",
        f"-A CNI-HOSTPORT-DNAT -p tcp {named(SANDBOX, prefix='dnat ')}",
    }
    assert gone == wanted


def test_published_ports_of_another_hold_the_shared_chains(host: Machine) -> None:
    host.pod()
    host.xtables("CNI-HOSTPORT-DNAT")
    host.xtables("PREROUTING", "-m addrtype", "CNI-HOSTPORT-DNAT", "CNI portfwd requiring masquerade")
    assert len([id for id in host.gone() if id.startswith("xtables:")]) == 2
    host.xtables("CNI-HOSTPORT-DNAT", "-p tcp", "CNI-DN-x", named(OTHER, prefix="dnat "))
    held = [claim for id, claim in host.ask().items() if id.startswith("xtables:")]
    assert not [id for id in host.gone() if id.startswith("xtables:ip nft nat -N")]
    assert any(claim.role is Role.ADMIN for claim in held)


@pytest.mark.parametrize(
    "sign",
    [
        lambda host: host.shim(90, OTHER, "/run/k3s/containerd/containerd.sock", exe="/usr/bin/shim"),
        lambda host: host.result(OTHER),
        lambda host: host.record("conflist", "/etc/cni/net.d/87-podman.conflist", "disk", network="podman", paths=[]),
        lambda host: host.record("lease", "/var/lib/cni/networks/x/10.9.0.2", "disk", id=OTHER, network="x"),
        lambda host: host.process(90, "/usr/bin/crio", "crio"),
    ],
    ids=["shim", "result", "configuration", "lease", "crio"],
)
def test_every_other_user_of_cni_is_seen(host: Machine, sign: Any) -> None:
    host.xtables("CNI-HOSTPORT-MASQ")
    assert host.gone(been=True)
    sign(host)
    assert not host.gone(been=True)
    assert [claim.role for id, claim in host.ask(been=True).items() if id.startswith("xtables:")] == [Role.ADMIN]


def test_docker_s_containers_are_no_user_of_cni(host: Machine) -> None:
    host.xtables("CNI-HOSTPORT-MASQ")
    host.shim(90, OTHER, "/run/containerd/containerd.sock", "moby", exe="/usr/bin/containerd-shim-runc-v2")
    host.record("conflist", "/etc/cni/net.d/10-calico.conflist", "disk", network=NETWORK, paths=[], within=True)
    assert host.gone(been=True)


KUBE = "KUBE-SERVICES"


def test_trap_7_and_8_kube_chains_are_any_cluster_s(host: Machine) -> None:
    host.xtables(KUBE)
    host.xtables("KUBE-SVC-TCOU7JCQXEZGVUNU")
    host.xtables(KUBE, "-d 10.152.183.10/32", "KUBE-SVC-TCOU7JCQXEZGVUNU", "kube-system/kube-dns:dns cluster IP")
    host.xtables("PREROUTING", "", KUBE, "kubernetes service portals")
    host.xtables("INPUT", "", "KUBE-FIREWALL", table="filter")
    mine = [
        host.xtables("KUBE-admin"),
        host.xtables("FORWARD", "-j ACCEPT", "ACCEPT", "KUBE-SERVICES may pass", "filter"),
        host.xtables("INPUT", "-s 10.0.0.1/32", KUBE, "mine"),
        host.xtables("mychain", "", KUBE),
        host.xtables("DOCKER"),
    ]
    gone = {id for id in host.gone(been=True) if id.startswith("xtables:")}
    assert len(gone) == 5 and not gone & {each.id for each in mine}
    assert not host.gone(), "it has never been here"
    host.process(90, "/usr/bin/kubelet", "kubelet")
    assert not host.gone(been=True)


def test_felix_rules_have_its_hash(host: Machine) -> None:
    host.xtables("cali-FORWARD", table="filter")
    host.xtables("cali-FORWARD", "-i cali+", "cali-from-wl-dispatch", "cali:8ZoYfO5HKXWbB3pk", "filter")
    host.xtables("FORWARD", "-m comment", "cali-FORWARD", "cali:wUHhoiAYhphO9Mso", "filter")
    host.xtables("FORWARD", "-m mark", "ACCEPT", "cali:S93hcgKJrXEqnTfs", "filter")
    host.xtables("FORWARD", "-i cali+ -j ACCEPT", "ACCEPT", "admin: pods", "filter")
    host.xtables("california", table="filter")
    assert len(host.gone(been=True)) == 4
    host.process(90, "/usr/bin/calico-felix", "calico-felix")
    assert not host.gone(been=True)


def test_its_own_comment_and_an_administrator_s_words(host: Machine) -> None:
    host.xtables("FORWARD", "-s 10.1.0.0/16 -j ACCEPT", "ACCEPT", "generated for MicroK8s pods", "filter")
    host.xtables("FORWARD", "-s 10.3.0.0/16 -j ACCEPT", "ACCEPT", "admin: MicroK8s pods may go out", "filter")
    host.xtables("mine", "-s 10.1.0.0/16 -j ACCEPT", "ACCEPT", "generated for MicroK8s pods", "filter")
    (id,) = host.gone()
    assert id.endswith("generated for MicroK8s pods") and "-A FORWARD" in id


def test_whole_tables(host: Machine) -> None:
    host.table("kube-proxy", "services", "mark-for-masquerade", family="ip")
    host.table("kube-proxy", "mine", family="ip6")
    host.table("calico", "filter-cali-FORWARD", family="ip")
    host.table("calico-arp", family="arp")
    host.table("cni_hostport", "hostports", family="ip")
    host.table("calico", "filter-cali-FORWARD", family="inet")
    host.table("microk8s", "KUBE-SERVICES")
    assert host.gone(been=True) == {"nft:ip kube-proxy", "nft:ip calico", "nft:arp calico-arp", "nft:ip cni_hostport"}
    host.result(OTHER)
    assert host.gone(been=True) == {"nft:ip kube-proxy", "nft:ip calico", "nft:arp calico-arp"}
    host.process(90, "/usr/bin/kubelet", "kubelet")
    assert not host.gone(been=True)


def test_trap_4_the_profile_of_all_containerds(host: Machine) -> None:
    facts = {
        "type": "profile",
        "name": "cri-containerd.apparmor.d",
        "namespace": "",
        "mode": "enforce",
        "processes": [11],
    }
    host.pod()
    host.add("apparmor", "profile cri-containerd.apparmor.d", ("profile", "x", ""), **facts)
    key = "apparmor:profile cri-containerd.apparmor.d"
    assert key in host.gone()
    host.process(90, "/usr/bin/containerd", "containerd")
    claim = host.ask()[key]
    assert claim.role is Role.ADMIN and key not in host.gone()
    host.listed["process"].pop()
    host.process(90, "/pause", "/pause", nested=True, netns=5, mntns=5)
    host.listed["apparmor"][0].facts["processes"].append(90)
    assert host.ask()[key].role is Role.ADMIN


# -- kinds of another branch, against the facts that they document ---------------------------------------------------


def test_the_rules_of_later_kinds_are_registered_with_these() -> None:
    names = {kind.name for kind in KINDS}
    expected = {*network.LATER, *firewall.LATER} & names
    assert expected == set(load("microk8s").rules) & {*network.LATER, *firewall.LATER}


def test_sets(host: Machine) -> None:
    for name in (
        "cali40all-ipam-pools",
        "cali4tabc",
        "KUBE-CLUSTER-IP",
        "KUBE-6-LOOP-BACK",
        "cali-admin",
        "KUBE-mine",
        "f2b-sshd",
    ):
        host.add("ipset", name, (name,), name=name, references=0)
    wanted = {"ipset:cali40all-ipam-pools", "ipset:cali4tabc", "ipset:KUBE-CLUSTER-IP", "ipset:KUBE-6-LOOP-BACK"}
    assert host.gone(True, later("ipset")) == wanted
    host.process(90, "/usr/bin/kubelet", "kubelet")
    assert not host.gone(True, later("ipset"))


def test_routes(host: Machine) -> None:
    host.pod()
    host.link(LINK, peer="eth0", peer_netns=77)
    wanted = [
        ("10.1.0.5/32", "unicast", "boot", LINK),
        ("10.1.64.0/26", "blackhole", 80, ""),
        ("10.1.65.0/26", "blackhole", "bird", ""),
    ]
    mine = [
        ("10.1.200.0/26", "blackhole", "static", ""),
        ("10.9.0.0/16", "blackhole", 80, ""),
        ("default", "unicast", "dhcp", "eth0"),
        ("", "blackhole", 80, ""),
        ("10.0.0.0/8", "blackhole", 80, ""),
    ]
    for dst, type, protocol, dev in wanted + mine:
        host.add("route", dst, (dst,), family="ip", dst=dst, table="main", protocol=protocol, type=type, dev=dev)
    assert {id for id in host.gone(rules=later("route")) if id.startswith("route:")} == {
        f"route:{each[0]}" for each in wanted
    }


def rule(host: Machine, priority: int, table: int, mark: int = 0, mask: int = 0, **facts: Any) -> str:
    known = {"family": "ip", "from": "all", "to": "all", "iif": "", "oif": "", "not": False, "action": "lookup"}
    known |= {"priority": priority, "table": table, "fwmark": mark, "fwmask": mask, "plain": not mark, **facts}
    key = f"{known['family']} {priority}: {mark:#x}/{mask:#x} {table}{known['iif']}"
    return host.add("rule", key, (key,), **known).id


def test_trap_10_the_rule_of_the_table_local(host: Machine) -> None:
    at_100 = rule(host, 100, 255)
    other_family = rule(host, 0, 255, family="ip6")
    claim = host.ask(been=True)[at_100]
    assert (claim.proven, claim.role) == (False, Role.ADMIN), "an administrator moves it, too"
    host.link("cilium_host")
    assert at_100 in host.gone(been=True) and other_family not in host.ask(been=True)
    host.process(80, "/usr/bin/cilium-agent", "cilium-agent")
    assert host.ask(been=True)[at_100].role is Role.ADMIN
    host.listed["process"].clear()
    rule(host, 0, 255)
    assert at_100 not in host.ask(been=True), "with one at 0 nobody needs to know"


def test_policy_rules(host: Machine) -> None:
    own = {rule(host, 9, 2004, 0x200, 0xF00), rule(host, 10, 2005, 0xA00, 0xF00, family="ip6")}
    small = rule(host, 1, 200, 0xD00, 0xF00)
    like = {rule(host, 9, 2004, 0x200, 0xFF00), rule(host, 8, 2005), rule(host, 9, 2004, 0x200, 0xF00, iif="lo")}
    mine = {rule(host, 9, 2006, 0x200, 0xF00), rule(host, 100, 255, 0x1, 0x1), rule(host, 109, 254, 0x80, 0x80)}
    assert not host.ask(), "it has never been here"
    assert host.gone(been=True) == {*own, small}, "the rules of its proxy tell that Cilium was here"
    claims = host.ask(been=True)
    assert not any(claims[id].proven for id in like) and not mine & set(claims)
    host.listed["rule"] = [obj for obj in host.listed["rule"] if obj.id not in own]
    assert not host.ask(been=True), "a mark and a table of small numbers alone are anybody's"


def test_the_rule_of_calico_s_wireguard(host: Machine) -> None:
    bit = 0x100000
    own = rule(host, 99, 1, bit, bit, **{"not": True})
    for words in ((98, 1, bit, bit), (99, 1, bit, 0x300000), (99, 2004, bit, bit), (99, 1, 0x300000, 0x300000)):
        rule(host, *words, **{"not": True})
    rule(host, 99, 2, bit, bit)
    rule(host, 99, 1, bit, bit, family="ip6", **{"not": True})
    assert host.gone(been=True) == set(), "anybody encrypts in this way"
    host.link("wireguard.cali", type="wireguard")
    assert host.gone(been=True) == {own, "link:wireguard.cali"}


def test_the_route_to_the_proxy(host: Machine) -> None:
    facts = {"family": "ip", "table": 2004, "type": "local", "dst": "default", "dev": "lo", "protocol": 2}
    for key, differs in (
        ("own", {}),
        ("net", {"dst": "10.0.0.0/8"}),
        ("table", {"table": 2006}),
        ("dev", {"dev": "x"}),
    ):
        host.add("route", key, (key,), **{**facts, **differs})
    assert host.gone(been=True) == {"route:own"} and not host.ask()


def test_addresses(host: Machine) -> None:
    facts = {"family": "ip", "prefixlen": 32, "label": ""}
    host.add("address", "lo 10.0.1.1", ("a",), dev="lo", address="10.0.1.1", **{**facts, "label": "lo:microk8s"})
    host.add("address", "lo 10.0.1.2", ("b",), dev="lo", address="10.0.1.2", **{**facts, "label": "lo:mine"})
    for address, length in (("10.1.64.0", 32), ("10.1.64.0", 26), ("192.168.9.1", 32)):
        key = f"tunl0 {address}/{length}"
        host.add("address", key, (key,), dev="tunl0", address=address, **{**facts, "prefixlen": length})
    assert host.gone() == {"address:lo 10.0.1.1", "address:tunl0 10.1.64.0/32"}
    host.process(80, "/usr/bin/calico-felix", "calico-felix")
    assert host.gone() == {"address:lo 10.0.1.1"}


def virtual(host: Machine, service: str, servers: tuple[str, ...] = ("10.1.64.2:80",), forward: str = "Masq") -> str:
    place = service.partition(" ")[2]
    address, _, port = place.rpartition(":")
    facts = {"protocol": "UDP" if service.startswith("-u") else "TCP", "address": address, "port": int(port)}
    facts |= {"mark": 0, "scheduler": "rr", "servers": list(servers), "forwards": [forward] if servers else []}
    return host.add("ipvs", service, (service,), service=service, **facts).id


def test_virtual_servers(host: Machine) -> None:
    host.link("kube-ipvs0", type="dummy", addresses=["10.152.183.1", "10.152.183.2", "10.152.183.3"])
    host.link("eth0", type="", addresses=["192.168.1.5", "10.152.183.3"])
    own = {virtual(host, "-t 10.152.183.1:443"), virtual(host, "-u 10.152.183.1:53", ())}
    routed = virtual(host, "-t 10.152.183.2:80", forward="Route")
    vip = virtual(host, "-t 10.152.183.3:80")
    mine = virtual(host, "-t 192.168.1.5:80", ("192.168.1.6:80",))
    assert host.gone() == set(), "it has never been here"
    assert host.gone(been=True) - {"link:kube-ipvs0"} == own
    claims = host.ask(been=True)
    assert not claims[routed].proven and not claims[vip].proven and mine not in claims
    assert claims[vip].advice == "ipvsadm -D -t 10.152.183.3:80"
    host.process(80, "/usr/bin/kube-proxy", "kube-proxy")
    assert host.gone(been=True) == set()


def test_virtual_servers_of_a_dummy_of_somebody_s(host: Machine) -> None:
    host.link("ipvs0", type="dummy", addresses=["10.152.183.1"])
    host.link("kube-ipvs0", type="bridge", addresses=["10.152.183.1"])
    virtual(host, "-t 10.152.183.1:443")
    assert host.ask(been=True) == {}


def test_virtual_servers_of_node_ports(host: Machine) -> None:
    """They lead where the one on kube-ipvs0 leads, of the same protocol."""
    host.link("kube-ipvs0", type="dummy", addresses=["10.152.183.1"])
    own = {virtual(host, "-t 10.152.183.1:80", ("10.1.64.2:80", "10.1.64.3:80"))}
    own |= {virtual(host, f"-t {address}:30080") for address in ("192.168.1.5", "127.0.0.1")}
    shown = {
        virtual(host, "-t 192.168.1.5:80"),
        virtual(host, "-u 192.168.1.5:30080"),
        virtual(host, "-t 192.168.1.5:30081", ("10.1.64.9:80",)),
        virtual(host, "-t 192.168.1.5:30082", forward="Tunnel"),
    }
    mine = {
        virtual(host, "-t 192.168.1.5:30083", ()),
        virtual(host, "-t 192.168.1.5:30084", ("10.1.64.2:80", "192.168.1.6:80")),
    }
    assert host.gone(been=True) - {"link:kube-ipvs0"} == own
    claims = host.ask(been=True)
    assert {claims[id].role for id in shown} == {Role.ADMIN} and not mine & set(claims)


def test_nft_rules_of_one_container(host: Machine) -> None:
    host.bundle()
    note = f"0123456789abcdef-0123456789abcdef, net: n, if: eth0, id: {SANDBOX}"
    for number, (family, table, comment) in enumerate(
        [
            ("inet", "cni_plugins_masquerade", note),
            ("ip", "cni_hostport", SANDBOX),
            ("ip", "cni_hostport", OTHER),
            ("inet", "cni_plugins_masquerade", note.replace(SANDBOX, OTHER)),
            ("inet", "mine", SANDBOX),
        ]
    ):
        host.add("nftrule", str(number), (number,), family=family, table=table, chain="c", comment=comment)
    assert host.gone(rules=later("nftrule")) == {"nftrule:0", "nftrule:1"}


def pinned(host: Machine, path: str, id: int, map_type: int = 2) -> str:
    facts = {"path": path, "name": path.rpartition("/")[2], "what": "map", "id": id, "map_type": map_type, "program": 0}
    return host.add("bpf", path, (path,), mount="/sys/fs/bpf", attach="", **facts).id


def attached(host: Machine, name: str, at: str, maps: tuple[int, ...] = (), **facts: Any) -> str:
    known = {"path": "", "name": name, "what": "attachment", "id": 70, "map_type": 0, "mount": "", "attach": at}
    known |= {"maps": list(maps), "dev": "", "cgroup": "", "type": -1, "filter": [], **facts}
    return host.add("bpf", f"{at} {name}", (at, name), **known).id


TC = "/sys/fs/bpf/tc/globals"


def test_pins_of_bpf(host: Machine) -> None:
    own = {
        pinned(host, path, 7)
        for path in (
            f"{TC}/cilium_lxc",
            f"{TC}/cali_v4_nat",
            f"{TC}/calico_x",
            "/sys/fs/bpf/cilium",
            "/sys/fs/bpf/calico/a",
        )
    }
    for path in (f"{TC}/mine", f"{TC}/xcilium_x", "/sys/fs/bpf/cilium2", "/sys/fs/bpf/admin/cilium_x", "/mnt/cilium/x"):
        pinned(host, path, 8)
    assert host.gone(been=True) == own and host.ask() == {}
    assert set(host.ask(been=True)) == own
    host.process(80, "/usr/bin/cilium-agent", "cilium-agent")
    assert host.gone(been=True) == {f"bpf:{TC}/cali_v4_nat", f"bpf:{TC}/calico_x", "bpf:/sys/fs/bpf/calico/a"}


def test_attached_programs(host: Machine) -> None:
    """By a map that is pinned: a name is anybody's, and is cut off."""
    pins = {pinned(host, f"{TC}/cilium_lb4", 7)}
    pinned(host, f"{TC}/mine", 8)
    place = {"cgroup": "/sys/fs/cgroup", "type": 10}
    at = "cgroup /sys/fs/cgroup cgroup_inet4_connect"
    own = {
        attached(host, "cil_sock4_conne", at, (6, 7), **place),
        attached(host, "sock4_connect", at, (7,), **place),
        attached(host, "cil_from_netdev", "tc eth0 clsact/ingress pref 1", (7,), dev="eth0", filter=[2, 1, 3, 65539]),
    }
    named = attached(host, "cil_sock6_conne", at, (8,), **place)
    nobodys = attached(host, "sock6_connect", at, (8,), **place)
    xdp = attached(host, "cil_xdp_entry", "xdpdrv eth0", (7,), dev="eth0")
    assert host.ask() == {}
    assert host.gone(been=True) == own | pins
    claims = host.ask(been=True)
    assert (claims[named].proven, claims[named].role) == (False, Role.ADMIN) and nobodys not in claims
    assert claims[named].advice == "bpftool cgroup detach /sys/fs/cgroup cgroup_inet4_connect id 70"
    assert (claims[xdp].proven, claims[xdp].role) == (False, Role.LIVE), "it counts, and nobody but him can end it"
    assert claims[xdp].advice == "ip link set dev eth0 xdpdrv off"
    host.process(80, "/usr/bin/cilium-agent", "cilium-agent")
    assert host.gone(been=True) == set() and host.ask(been=True)[xdp].role is Role.ADMIN


def test_maps_of_programs_stay_while_one_is_attached_that_needs_them(host: Machine) -> None:
    calls = pinned(host, f"{TC}/cilium_calls", 9, firewall.PROG_ARRAY)
    host.link("cilium_host")
    attached(
        host, "cil_from_host", "tc cilium_host clsact/ingress pref 1", (9,), dev="cilium_host", filter=[2, 1, 3, 65539]
    )
    taken = attached(
        host, "cil_from_netdev", "tc eth0 clsact/ingress pref 1", (9, 7), dev="eth0", filter=[2, 1, 3, 65539]
    )
    pinned(host, f"{TC}/cilium_lb4", 7)
    assert {calls, taken} < host.gone(been=True), "one goes with its link, and one is taken off"
    attached(host, "cil_xdp_entry", "xdpdrv eth0", (9, 7), dev="eth0")
    claim = host.ask(been=True)[calls]
    assert not claim.proven and "xdpdrv eth0" in claim.evidence[0].text


# -- mounts and files -----------------------------------------------------------------------------------------------


POD = f"{COMMON}/var/lib/kubelet/pods/{UID}"
OWN_MOUNTS = (
    f"{TASKS}/{SANDBOX}/rootfs",
    f"{COMMON}/run/containerd/io.containerd.grpc.v1.cri/sandboxes/{SANDBOX}/shm",
    f"{POD}/volumes/kubernetes.io~projected/kube-api-access",
    f"{POD}/volumes/kubernetes.io~csi/pvc/mount",
    f"{POD}/volume-subpaths/with space/web/1",
    f"{COMMON}/var/lib/kubelet/plugins/kubernetes.io/csi/nfs.csi.k8s.io/{'5' * 64}/globalmount",
    f"{COMMON}/var/lib/containerd/tmpmounts/containerd-mount1",
)
OTHERS_MOUNTS = (
    f"{COMMON}/var/lib/kubelet",
    f"{COMMON}/var/lib/kubelet/pods",
    f"{COMMON}/var/lib/kubelet/pods-old/{UID}/volumes/a/b",
    f"{COMMON}/default-storage",
    f"{COMMON}/var/lib/containerd",
    "/var/snap/microk8s",
    "/var/snap/microk8s-backup",
    f"/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~secret/x",
    f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{SANDBOX}/rootfs",
)


def test_mounts_where_containerd_and_kubelet_mount(host: Machine) -> None:
    for point in (*OWN_MOUNTS, *OTHERS_MOUNTS):
        host.mount(point)
    host.mount(f"{POD}/volumes/kubernetes.io~local-volume/media", configured="/etc/fstab")
    assert host.gone() == {f"mount:{point}" for point in OWN_MOUNTS}
    shown = host.ask()
    assert shown[f"mount:{COMMON}/default-storage"].role is Role.ADMIN


def test_mounts_when_the_directory_is_on_a_bigger_disk(host: Machine) -> None:
    host.record("place", "/var/snap/microk8s", "kernel", path="/data/microk8s", why="a symlink")
    host.mount(f"/data/microk8s/common/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~secret/x")
    host.mount("/data/microk8s-mine/common/var/lib/kubelet")
    assert len(host.gone()) == 1


def test_trap_12_symlinks_only_where_they_lead_into_the_product(host: Machine) -> None:
    host.file("/var/lib/kubelet", "symlink", target=f"{COMMON}/var/lib/kubelet")
    host.file("/etc/cni/net.d", "symlink", target="/var/snap/microk8s/current/args/cni-network")
    host.file("/opt/cni/bin", "symlink", target="/srv/cni")
    host.file("/var/lib/calico", "symlink", target="/var/snap/microk8s-mine/calico")
    host.file("/etc/cni", entries=("net.d",))
    host.file("/opt/cni", entries=("bin",))
    assert host.gone() == {"file:/var/lib/kubelet", "file:/etc/cni/net.d", "file:/etc/cni"}
    assert host.ask()["file:/etc/cni"].object.facts["only_hollow"]


def test_trap_2_what_containerds_share_in_run(host: Machine) -> None:
    host.pod()
    own, debug = containerd.sockets(ADDRESS, "k8s.io", SANDBOX)
    other = containerd.sockets("/run/containerd/containerd.sock", "k8s.io", SANDBOX)[0]
    for hash in (own, debug, other):
        host.file(f"/run/containerd/s/{hash}", "socket")
        host.record("socket", f"/run/containerd/s/{hash}", "disk", hash=hash)
    host.file("/run/containerd/s", entries=(own, debug, other))
    for id, bundle in (
        (SANDBOX, f"{TASKS}/{SANDBOX}"),
        (OTHER, f"/run/containerd/{OTHER}"),
        ("job", f"{TASKS}/job"),
        ("job2", "/x/job2"),
    ):
        path = f"/run/containerd/runc/k8s.io/{id}"
        host.file(path)
        host.record(
            "runc",
            f"k8s.io/{id}",
            "disk",
            namespace="k8s.io",
            id=id,
            path=path,
            pid=0,
            start=0,
            bundle=bundle,
            cgroups=[],
        )
    host.file("/run/containerd/runc/k8s.io", entries=(SANDBOX, OTHER, "job", "job2"))
    for number, ids in (("1", [SANDBOX]), ("2", [OTHER]), ("3", [SANDBOX, OTHER]), ("4", [])):
        host.file(f"/run/containerd/fifo/{number}")
        host.record("fifo", f"/run/containerd/fifo/{number}", "disk", ids=ids)
    host.file("/run/containerd", entries=("s", "runc", "fifo", "containerd.sock"))
    gone = {id.removeprefix("file:/run/containerd/") for id in host.gone() if id.startswith("file:")}
    assert gone == {f"s/{own}", f"s/{debug}", f"runc/k8s.io/{SANDBOX}", "runc/k8s.io/job", "fifo/1"}


def test_directories_that_are_everybody_s_go_when_nothing_else_is_in_them(host: Machine) -> None:
    host.pod()
    own = containerd.sockets(ADDRESS, "k8s.io", SANDBOX)[0]
    host.file("/run/containerd", entries=("s",))
    host.file("/run/containerd/s", entries=(own,))
    host.file(f"/run/containerd/s/{own}", "socket")
    host.record("socket", f"/run/containerd/s/{own}", "disk", hash=own)
    wanted = {"file:/run/containerd", "file:/run/containerd/s", f"file:/run/containerd/s/{own}"}
    assert {id for id in host.gone() if id.startswith("file:")} == wanted
    assert all(
        host.ask()[id].object.facts.get("only_hollow") for id in ("file:/run/containerd", "file:/run/containerd/s")
    )
    host.file("/usr/bin/containerd", "file")
    assert {id for id in host.gone() if id.startswith("file:")} == {f"file:/run/containerd/s/{own}"}


def test_trap_11_cni_s_files_of_ours_alone(host: Machine) -> None:
    host.pod()
    leases = "/var/lib/cni/networks"
    paths = [
        host.result(),
        host.result(OTHER),
        f"{leases}/{NETWORK}/10.1.0.5",
        f"{leases}/{NETWORK}/10.1.0.6",
        f"{leases}/mine/10.1.0.7",
    ]
    for path, id in zip(paths[2:], (SANDBOX, OTHER, SANDBOX), strict=True):
        host.record(
            "lease", path, "disk", id=id, ifname="eth0", network=path.split("/")[5], address=path.rpartition("/")[2]
        )
    host.record("scratch", f"/var/lib/cni/flannel/{INNER}", "disk", id=INNER)
    for path in (*paths, f"/var/lib/cni/flannel/{INNER}", f"{leases}/{NETWORK}/lock", f"{leases}/mine/lock"):
        host.file(path, "file")
    host.file(f"{leases}/{NETWORK}", entries=("10.1.0.5", "10.1.0.6", "lock"))
    host.file(f"{leases}/mine", entries=("10.1.0.7", "lock"))
    gone = {id.removeprefix("file:") for id in host.gone() if id.startswith("file:")}
    assert gone == {
        paths[0],
        paths[2],
        paths[4],
        f"/var/lib/cni/flannel/{INNER}",
        f"{leases}/mine/lock",
        f"{leases}/mine",
    }


def test_a_file_of_a_shared_name_is_ours_by_its_text(host: Machine) -> None:
    path = "/etc/apparmor.d/cri-containerd.apparmor.d"
    host.file(path, "file")
    host.record("marked", path, "ledger", word="peer=snap.microk8s.", inode=7, digest="")
    claim = host.ask(been=True)[f"file:{path}"]
    assert not claim.proven and claim.role is Role.ADMIN, "what it said once is no proof of what it says now"
    host.record("marked", path, "disk", word="peer=snap.microk8s.", inode=8, digest="")
    assert not host.ask(been=True)[f"file:{path}"].proven, "another file by now"
    host.record("marked", path, "disk", word="peer=snap.microk8s.", inode=7, digest="")
    assert host.gone() == {f"file:{path}"}


def test_logs_of_its_pods(host: Machine) -> None:
    host.pod()
    entries = {
        f"/var/log/pods/default_web-0_{UID}": (UID, ""),
        f"/var/log/pods/default_web-0_{OTHER_UID}": (OTHER_UID, ""),
        f"/var/log/containers/web-0_default_main-{INNER}.log": ("", INNER),
        f"/var/log/containers/web-0_default_main-{OTHER}.log": ("", OTHER),
    }
    for path, (uid, id) in entries.items():
        host.file(path, "symlink" if id else "directory")
        host.record("log", path, "disk", uid=uid, id=id)
    gone = [id for id in host.gone() if id.startswith("file:")]
    assert sorted(gone) == sorted(f"file:{path}" for path, (uid, id) in entries.items() if uid == UID or id == INNER)


def test_what_cni_s_firewall_lets_through(host: Machine) -> None:
    host.pod()
    host.record("cni", "x", "disk", **{**cni_facts(SANDBOX), "addresses": ["10.1.65.2/24"], "plugins": ["firewall"]})
    host.record("cni", "y", "disk", **{**cni_facts(OTHER), "addresses": ["10.1.65.3/24"], "plugins": ["firewall"]})
    own = [
        host.xtables("CNI-FORWARD", rule, "ACCEPT", table="filter")
        for rule in (
            "-s 10.1.65.2/32 -j ACCEPT",
            "-d 10.1.65.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        )
    ]
    for rule in ("-s 10.1.65.3/32 -j ACCEPT", "-s 10.1.65.0/24 -j ACCEPT", "-s 10.1.65.2/32 -p tcp -j ACCEPT"):
        host.xtables("CNI-FORWARD", rule, "ACCEPT", table="filter")
    host.xtables("FORWARD", "-s 10.1.65.2/32 -j ACCEPT", "ACCEPT", table="filter")
    assert {id for id in host.gone() if id.startswith("xtables:")} == {rule.id for rule in own}
    host.record("cni", "z", "disk", **{**cni_facts(OTHER), "addresses": ["10.1.65.2/24"]})
    assert {id for id in host.gone() if id.startswith("xtables:")} == set(), "another's by now"


def cni_facts(id: str) -> dict[str, Any]:
    lists = ("links", "addresses", "gateways", "plugins", "bridges", "devices", "paths")
    facts: dict[str, Any] = {"id": id, "network": "x", "ifname": "eth0", "netns": "", "pod": "", "pod_namespace": ""}
    return facts | {name: [] for name in lists}


def test_a_container_is_ended_by_its_own_cgroup(host: Machine) -> None:
    host.pod()
    claims = host.ask()
    for pid, path in (("11", f"{PODS}/{SANDBOX}"), ("12", f"{PODS}/{INNER}"), ("13", f"{PODS}/{INNER}")):
        assert claims[f"process:{pid}"].object.facts["group"][0] == path
    assert "group" not in claims["process:10"].object.facts, "a shim is in its daemon's"


def test_logs_of_a_pod_whose_bundles_are_gone(host: Machine) -> None:
    # snapd has deleted what it could reach; the shim lives.
    host.shim(10)
    told = {"namespace": "k8s.io", "id": SANDBOX, "address": ADDRESS}
    host.record("shim", "10", "kernel", start=9, bundle=f"{TASKS}/{SANDBOX}", **told)
    logs = f"/var/log/pods/default_web-0_{UID}"
    link = f"/var/log/containers/web-0_default_main-{SANDBOX}.log"
    other = f"/var/log/containers/web-0_default_main-{OTHER}.log"
    host.file(logs)
    host.record("log", logs, "disk", uid=UID, id="")
    host.file(f"/var/log/pods/default_web-0_{OTHER_UID}")
    host.record("log", f"/var/log/pods/default_web-0_{OTHER_UID}", "disk", uid=OTHER_UID, id="")
    for path, id, uid in ((link, SANDBOX, UID), (other, OTHER, OTHER_UID)):
        host.file(path, "symlink")
        host.record("log", path, "disk", uid=uid, id=id)
    assert {id for id in host.gone() if id.startswith("file:")} == {f"file:{logs}", f"file:{link}"}


def test_a_directory_of_logs_stays_as_long_as_they_do(host: Machine) -> None:
    host.pod()
    path = f"/var/log/pods/default_web-0_{UID}"
    host.file(path)
    host.record("log", path, "disk", uid=UID, id="")
    host.file("/var/log/pods", entries=(path.rpartition("/")[2],))
    claims = host.ask(been=True)
    assert claims["file:/var/log/pods"].role is claims[f"file:{path}"].role is Role.DATA


def test_where_containerd_would_have_had_its_tools(host: Machine) -> None:
    directories = ("/opt/containerd/bin", "/opt/containerd/lib", "/opt/containerd")
    for path in directories:
        host.file(path, entries=("bin", "lib") if path == directories[-1] else ())
    assert host.gone() == set(), "it never was here"
    assert host.gone(been=True) == {f"file:{path}" for path in directories}
    host.process(90, "/usr/bin/containerd", "containerd")
    assert host.gone(been=True) == set(), "another containerd's"
    host.listed["process"].clear()
    host.listed["file"].clear()
    for path in directories:
        host.file(path, entries=("bin", "lib") if path == directories[-1] else ("tool",))
    assert host.gone(been=True) == set(), "somebody's tools are there"


def test_rules_of_ufw_are_shown(host: Machine) -> None:
    path = "/etc/ufw/user.rules"
    host.file(path, "file")
    for direction, link in (("in", "vxlan.calico"), ("out", "cali+")):
        host.record("ufw", path, "disk", direction=direction, link=link, remark=False)
    assert host.ask() == {}, "it never was here"
    claim = host.ask(been=True)[f"file:{path}"]
    assert not claim.proven and claim.role is Role.LIVE
    assert claim.advice == "ufw delete allow in on vxlan.calico; ufw delete allow out on cali+"
    host.process(90, "/usr/bin/calico-felix", "calico-felix")
    assert host.ask(been=True)[f"file:{path}"].role is Role.ADMIN, "another Calico has such links"


def test_rules_of_ufw_with_a_remark_are_a_person_s(host: Machine) -> None:
    host.file("/etc/ufw/user.rules", "file")
    host.record("ufw", "/etc/ufw/user.rules", "disk", direction="in", link="cali+", remark=True)
    assert host.ask(been=True) == {}


def test_its_own_directory(host: Machine) -> None:
    host.file("/var/snap/microk8s", entries=("common", "current"))
    assert host.ask()["file:/var/snap/microk8s"].role is Role.DATA
    host.listed["file"].clear()
    host.file("/var/snap/microk8s", mounted=True)
    assert host.gone() == set(), "the administrator's disk"
    host.listed["file"].clear()
    host.file("/var/snap/microk8s", "symlink", target="/data/microk8s")
    assert host.gone() == set(), "the administrator's symlink"


def test_plugins_directories(host: Machine) -> None:
    host.file("/run/calico")
    host.file("/var/log/calico")
    assert host.gone(been=True) == {"file:/run/calico", "file:/var/log/calico"}
    host.process(90, "/usr/bin/calico-felix", "calico-felix")
    assert host.gone(been=True) == set()


def test_while_the_snap_is_installed_all_stays(host: Machine) -> None:
    host.pod()
    for claim in host.ask().values():
        (action,) = decide({"microk8s": claim}, {"microk8s": Presence.INSTALLED}, data=True)
        assert action.verb.value == "keep" and not action.counts


def test_every_claim_says_by_what_evidence(host: Machine) -> None:
    host.pod()
    host.link("vxlan.calico", type="vxlan")
    for claim in host.ask().values():
        assert claim.reason and claim.evidence and all(said.text for said in claim.evidence)


def test_on_a_host_where_it_never_was_nothing_is_said_of_others(host: Machine) -> None:
    # Another Kubernetes' host, with all that is shared by name.
    host.shim(10, OTHER, "/run/containerd/containerd.sock", exe="/usr/bin/containerd-shim-runc-v2")
    host.process(11, "/pause", "/pause", ppid=10, nested=True, netns=6, mntns=6, cgroup=f"/kubepods/{OTHER}")
    host.process(12, "/usr/bin/kubelet", "kubelet")
    host.netns(6, [11], [OTHER_PIN])
    result = host.result(OTHER, bridges=["cni0"], gateways=["10.244.0.1"], links=["veth1"])
    for name, type in (
        ("vxlan.calico", "vxlan"),
        ("flannel.1", "vxlan"),
        ("cni0", "bridge"),
        ("cali0badcafe000", "veth"),
    ):
        host.link(name, type=type, addresses=["10.244.0.1"])
    for chain in (KUBE, "cali-FORWARD", "CNI-HOSTPORT-DNAT", cni.chain("CNI-", NETWORK, OTHER)):
        host.xtables(chain)
    host.xtables("CNI-HOSTPORT-DNAT", "-p tcp", "CNI-DN-x", named(OTHER, prefix="dnat "))
    host.table("kube-proxy", "mine", family="ip")
    host.table("calico-arp", family="arp")
    host.add("sysctl", "net.ipv4.conf.all.forwarding", ("s",), name="net.ipv4.conf.all.forwarding", value="1")
    profile = {"type": "profile", "name": "cri-containerd.apparmor.d", "processes": [11]}
    host.add("apparmor", "profile cri-containerd.apparmor.d", ("profile", "x", ""), **profile)
    shared = ("/run/containerd", "/run/containerd/s", "/var/lib/cni", "/run/calico", "/etc/cni", "/var/log/pods")
    for path in (result, *shared):
        host.file(path, entries=("x",))
    host.file("/etc/apparmor.d/cri-containerd.apparmor.d", "file")
    host.file("/var/lib/kubelet", entries=("pods",))
    for kind in (*network.LATER, *firewall.LATER):
        assert host.ask(later(kind)) == {}


def test_what_the_ledger_recalls_of_a_namespace(host: Machine) -> None:
    own = host.netns(77, [], [PIN])
    said = (Evidence("ledger", "network namespace of pid 11"),)
    recalled = {own.id: Claim("microk8s", own, Role.LIVE, True, "a pod's network namespace", said)}
    assert host.ask(recalled=recalled)[own.id].role is Role.LIVE
    host.process(70, "/usr/bin/tcpdump", "tcpdump", netns=77)
    own.facts["processes"].append(70)
    assert host.ask(recalled=recalled)[own.id].role is Role.HELD, "who has come since is asked for anew"


def test_what_is_known_to_have_been_its_own_is_held_by_another(host: Machine) -> None:
    link = host.link("vxlan.calico", type="vxlan")
    host.process(80, "/usr/bin/kubelet", "kubelet")
    recalled = {link.id: Claim("microk8s", link, Role.LIVE, True, "a link of Calico", (Evidence("ledger", "x"),))}
    assert host.ask(been=True, recalled=recalled)[link.id].role is Role.HELD
    assert host.ask(been=True)[link.id].role is Role.ADMIN
    recalled = {link.id: Claim("microk8s", link, Role.ADMIN, True, "somebody else's", (Evidence("ledger", "x"),))}
    assert host.ask(been=True, recalled=recalled)[link.id].role is Role.ADMIN, "it always was his"


# -- who is only called so in a mount namespace of his own ----------------------------------------------------------


@pytest.mark.parametrize(
    ("mounted", "here"),
    [
        ("7:3 / {top}/snap/microk8s/7 ro - squashfs x ro", True),
        ("0:99 / {top}/snap/microk8s/7 rw - tmpfs x rw", False),
        ("0:98 / {top} rw - overlay x rw", False),
        ("8:1 /snap/microk8s/7 {top}/snap/microk8s/7 rw - ext4 x rw", False),
    ],
)
def test_a_file_of_the_snap_in_another_mount_namespace(host: Machine, tmp_path: Path, mounted: str, here: bool) -> None:
    exe = tmp_path / "snap/microk8s/7/bin/x"
    process = tmp_path / "proc/9"
    for directory in (exe.parent, process):
        directory.mkdir(parents=True)
    exe.touch()
    (process / "exe").symlink_to(exe)
    (process / "environ").write_text("")
    (process / "mountinfo").write_text(f"{snap_program.mount_of(str(exe))} 1 {mounted.format(top=tmp_path)}\n")
    host.mount("/snap/microk8s/7", "7:3", "/", "squashfs")
    one = host.process(9, "/snap/microk8s/7/bin/x", "x", mntns=5)
    look = Look(Host(str(tmp_path)), Scope(), {"process": (one,), "mount": tuple(host.listed["mount"])})
    host.records += reading.read_programs(RUNTIME, look)[0]
    assert (host.gone() == {"process:9"}) is here


def test_a_program_of_the_snap_in_another_mount_namespace_by_a_record_of_this_very_process(host: Machine) -> None:
    for pid, source, start in ((40, "kernel", 9), (41, "kernel", 8), (42, "ledger", 9)):
        host.process(pid, "/snap/microk8s/7/kubelite", "kubelite", mntns=5)
        host.record("own", str(pid), source, start=start)
    host.process(43, "/snap/microk8s/7/kubelite", "kubelite", mntns=5)
    assert host.gone() == {"process:40"}


def test_scopes_of_other_engines_are_not_its_containers(host: Machine) -> None:
    host.bundle()
    for name in ("docker", "crio", "libpod"):
        host.cgroup(f"/system.slice/{name}-{SANDBOX}.scope", populated=True)
    host.cgroup(f"/system.slice/cri-containerd-{SANDBOX}.scope", populated=True)
    assert host.gone() == {f"cgroup:/system.slice/cri-containerd-{SANDBOX}.scope"}


OWN = "fs.inotify.max_user_instances=1024\n"


@pytest.mark.parametrize(
    ("text", "goes"),
    [
        (OWN, True),
        (f"fs.aio-max-nr=1048576\n{OWN}\nfs.inotify.max_user_watches=1048576", True),
        (f"{OWN}vm.max_map_count=262144\n", False),
        (f"# mine\n{OWN}", False),
        ("fs.inotify.max_user_instances=8192\n", False),
        ("", False),
    ],
)
def test_its_settings_go_while_no_administrator_has_written_a_line(
    host: Machine, tmp_path: Path, text: str, goes: bool
) -> None:
    path = "/etc/sysctl.d/10-microk8s.conf"
    (tmp_path / "etc/sysctl.d").mkdir(parents=True)
    (tmp_path / path[1:]).write_text(text)
    records, _ = reading.read_marked(RUNTIME, Look(Host(str(tmp_path)), Scope(), {}))
    host.records += records
    host.add("file", path, (path, "file", (tmp_path / path[1:]).stat().st_ino), path=path, type="file", entries=[])
    assert (host.gone(been=True) == {f"file:{path}"}) is goes
    claim = host.ask(been=True)[f"file:{path}"]
    assert claim.proven is goes and (goes or claim.advice == f"rm {path}")
