"""CRI-O: its containers by what containers.json says of them and by what its monitors hold open; Podman's, containerd's
and what is only called the same stay."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import pytest
from test_microk8s_rules import Machine

from leftovers.claims import Case, attribute
from leftovers.evidence import cni, containerd
from leftovers.host import Host
from leftovers.kinds.kind import Look
from leftovers.model import Claim, Object, Presence, Role, Scope
from leftovers.products import load
from leftovers.products.crio import reading
from leftovers.products.crio.names import GRAPH, RUN, STATE

SANDBOX, ID, OTHER, LAYER = "5" * 64, "c" * 64, "0" * 64, "d" * 64
UUID = "01234567-89ab-cdef-0123-456789abcdef"
PIN, IPC = f"/run/netns/{UUID}", f"/run/ipcns/{UUID}"
STRANGE_PIN = "/run/netns/ffffffff-89ab-cdef-0123-456789abcdef"
CONMON = "/usr/bin/crio-conmon"
PODS = "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice"
SHM = f"{RUN}/overlay-containers/{SANDBOX}/userdata/shm"
MERGED = f"{GRAPH}/overlay/{LAYER}/merged"


class Crio(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.product = load("crio")
        self.presence = Presence.ABSENT

    def stored(self, id: str, by: str, layer: str = "") -> None:
        self.record("stored", id, "disk", id=id, name="", layer=layer, driver="overlay", by=by, graph=GRAPH)

    def known(self, id: str, source: str = "disk", **facts: Any) -> None:
        more = {"why": "containers.json has it", "name": f"k8s_{id[:2]}", "layer": "", "driver": "overlay", "pins": []}
        self.record("container", id, source, **{**containerd.blank("", id), **more, **facts})

    def conmon(self, pid: int, id: str, held: bool = True, exe: str = CONMON, **facts: Any) -> Object:
        if held:
            path = f"{RUN}/overlay-containers/{id}/userdata/ctl"
            self.record("conmon", str(pid), "kernel", id=id, start=9, exit=f"{STATE}/exits", held=path)
        known = {"cgroup": f"{PODS}/crio-conmon-{id}.scope", **facts}
        return self.process(pid, exe, exe, "-b", "/x", "-c", id, "--exit-dir", f"{STATE}/exits", **known)

    def sandbox(self) -> None:
        """A pod whose sandbox has no process of its own (drop_infra_ctr), and a container in it."""
        self.stored(SANDBOX, "crio")
        self.stored(ID, "crio", LAYER)
        pod = {"pod": "web-0", "pod_namespace": "default"}
        self.known(SANDBOX, pins=[IPC, PIN], sandbox=SANDBOX, **pod)
        self.known(ID, layer=LAYER, pins=[IPC, PIN], sandbox=SANDBOX, **pod)
        self.conmon(10, ID)
        scope = f"{PODS}/crio-{ID}.scope"
        self.process(11, "/app", "app", ppid=10, cgroup=f"{scope}/container", nested=True, netns=77, mntns=11)
        self.process(12, "/app", "worker", ppid=11, cgroup=f"{scope}/container", nested=True, netns=77, mntns=11)
        for path in (scope, f"{scope}/container", f"{PODS}/crio-conmon-{ID}.scope", PODS):
            self.cgroup(path, populated=True)
        self.netns(77, [11, 12], [PIN])
        self.link("veth0", peer="eth0", peer_netns=77, master="cni0")
        self.link("cni0", "bridge", addresses=["10.85.0.1"])
        self.mount(MERGED, fstype="overlay", majmin="0:60")
        self.mount(SHM, majmin="0:61")
        self.mount(IPC, fstype="nsfs", majmin="0:4", root="ipc:[4026532000]")
        self.result(
            SANDBOX, network="crio", netns=f"/var{PIN}", bridges=["cni0"], gateways=["10.85.0.1"], links=["veth0"]
        )
        path = "/var/lib/cni/networks/crio/10.85.0.2"
        self.record("lease", path, "disk", id=SANDBOX, ifname="eth0", network="crio", address="10.85.0.2")
        facts = {"network": "crio", "plugins": ["bridge"], "bridges": ["cni0"], "paths": [], "gateways": []}
        name = "/etc/cni/net.d/11-crio-ipv4-bridge.conflist"
        self.record("conflist", name, "disk", devices=[], nerdctl="", within=True, **facts)
        self.file(path, "file")
        self.file(f"/var/lib/cni/results/crio-{SANDBOX}-eth0", "file")
        self.xtables(cni.chain("CNI-", "crio", SANDBOX))
        for path in (STATE, f"{RUN}/overlay-containers/{ID}"):
            self.file(path, entries=("x",))

    def ask(self, rules: Any = None, been: bool = False, recalled: Any = None) -> dict[str, Claim]:
        case = self.case()
        case.been, case.recalled = been, recalled or {}
        return attribute(case, self.product.rules, self.product.recall, None, self.product.orphans)

    def case(self) -> Case:
        listed = {kind: tuple(objects) for kind, objects in self.listed.items()}
        return Case("crio", self.presence, listed, tuple(self.records))


@pytest.fixture
def host() -> Crio:
    return Crio()


OWN = {
    *("process:10", "process:11", "process:12", "netns:77", "link:veth0", "link:cni0"),
    *(f"cgroup:{PODS}/crio-{ID}.scope", f"cgroup:{PODS}/crio-{ID}.scope/container"),
    *(f"cgroup:{PODS}/crio-conmon-{ID}.scope", f"mount:{MERGED}", f"mount:{SHM}", f"mount:{IPC}"),
    *("file:/var/lib/cni/networks/crio/10.85.0.2", f"file:/var/lib/cni/results/crio-{SANDBOX}-eth0"),
    *(f"xtables:ip nft nat -N {cni.chain('CNI-', 'crio', SANDBOX)}", f"file:{STATE}"),
    f"file:{RUN}/overlay-containers/{ID}",
}


def test_a_pod_and_all_that_hangs_on_it(host: Crio) -> None:
    host.sandbox()
    assert host.gone() == OWN
    claims = host.ask()
    # Who would end his container first, and wait for that, ends first.
    assert claims["process:10"].rank < claims["process:11"].rank and claims["process:10"].object.facts["abrupt"]
    scope = f"{PODS}/crio-{ID}.scope"
    assert claims["process:11"].object.facts["group"] == [scope, f"/sys/fs/cgroup{scope}", 1]


def test_the_pod_for_who_asks_whose_a_thing_is(host: Crio) -> None:
    host.sandbox()
    case = host.case()
    attribute(case, host.product.rules)
    assert host.product.instances is not None
    (pod,) = host.product.instances(case)
    assert (pod.id, pod.name, pod.state) == (SANDBOX, "default/web-0", "running")
    assert {"process:10", "process:11", "netns:77", f"mount:{MERGED}", f"mount:{IPC}"} <= set(pod.ties)


def test_podman_beside_it_keeps_its_own(host: Crio) -> None:
    """The same store, a monitor of the same program, and even CRI-O's words for it."""
    host.sandbox()
    host.stored(OTHER, "podman", "e" * 64)
    # Somebody's word that it is CRI-O's, from another day.
    host.known(OTHER, "ledger", layer="e" * 64, pins=[STRANGE_PIN])
    path = f"/machine.slice/libpod-{OTHER}.scope"
    host.process(30, "/usr/bin/conmon", "conmon", "-c", OTHER, cgroup=f"/machine.slice/libpod-conmon-{OTHER}.scope")
    host.process(31, "/app", "app", ppid=30, cgroup=path, nested=True, netns=79)
    host.cgroup(path, populated=True)
    host.cgroup(f"/machine.slice/crio-{OTHER}.scope", populated=True)
    host.netns(79, [31], [STRANGE_PIN])
    host.link("veth9", peer="eth0", peer_netns=79, master="podman0")
    host.link("podman0", "bridge", addresses=["10.88.0.1"])
    host.mount(f"{GRAPH}/overlay", fstype="ext4", majmin="8:1", root=f"{GRAPH}/overlay")
    host.mount(f"{GRAPH}/overlay/{'e' * 64}/merged", fstype="overlay", majmin="0:62")
    host.mount(f"{RUN}/overlay-containers/{OTHER}/userdata/shm", majmin="0:63")
    for path in (GRAPH, RUN, f"{RUN}/overlay-containers/{OTHER}", f"/run/crun/{OTHER}"):
        host.file(path, entries=("x",))
    assert host.gone() == OWN
    claims = host.ask()
    assert claims[f"file:{GRAPH}"].role is Role.ADMIN and "with 2 of CRI-O's" in claims[f"file:{GRAPH}"].reason
    assert claims[f"file:{RUN}"].role is Role.ADMIN and claims[f"mount:{GRAPH}/overlay"].role is Role.HELD


@pytest.mark.parametrize("path", ["/usr/bin/podman", "/usr/bin/buildah", f"{GRAPH}/db.sql"])
def test_the_store_stays_and_its_run_root_goes_when_nobody_else_has_one(host: Crio, path: str) -> None:
    host.sandbox()
    host.mount(f"{GRAPH}/overlay", fstype="ext4", majmin="8:1", root=f"{GRAPH}/overlay")
    host.file(GRAPH, entries=("overlay",))
    host.file(RUN, entries=("overlay-containers",))
    alone = {f"file:{RUN}", f"mount:{GRAPH}/overlay"}
    assert host.gone() == OWN | alone
    claim = host.ask()[f"file:{GRAPH}"]
    assert claim.role is Role.ADMIN and claim.advice == f"rm -r {GRAPH}"
    host.file(path, "file")
    assert host.gone() == OWN
    assert "rm" not in host.ask()[f"file:{GRAPH}"].advice


def test_a_store_that_cannot_be_read_may_be_anybody_s(host: Crio) -> None:
    host.sandbox()
    host.mount(f"{GRAPH}/overlay", fstype="ext4", majmin="8:1", root=f"{GRAPH}/overlay")
    host.file(RUN, entries=("overlay-containers",))
    host.record("store", GRAPH, "disk", whole=False)
    assert host.gone() == OWN


def test_what_is_only_called_the_same_stays(host: Crio) -> None:
    host.sandbox()
    # CRI-O's arguments, but no fifo; another process' number; a user's; one in a container.
    host.conmon(20, OTHER, held=False)
    host.process(21, "/app", "app", ppid=20, cgroup=f"{PODS}/crio-{OTHER}.scope", nested=True, netns=78)
    host.cgroup(f"{PODS}/crio-{OTHER}.scope", populated=True)
    host.conmon(22, ID, cgroup="/").facts["start"] = 8  # type: ignore[index]
    host.conmon(23, ID, held=False, uid=1000)
    host.conmon(24, ID, held=False, nested=True, cgroup="/")
    host.process(25, "/usr/bin/sleep", CONMON, cgroup=f"{PODS}/crio-conmon-{ID}.scope")
    # A user can make a cgroup of any name below his own.
    user = f"/user.slice/user-1000.slice/crio-{ID}.scope"
    host.cgroup(user, populated=True)
    host.process(26, "/app", "app", cgroup=user, uid=1000)
    host.cgroup(f"/x/crio-{ID}.scope.d")
    host.cgroup(f"/x/mycrio-{ID}.scope")
    host.process(27, "/usr/bin/crio-conmonrs", "conmonrs", "--runtime-dir", f"{RUN}/overlay-containers/{ID}/userdata")
    host.netns(78, [21], [STRANGE_PIN])
    host.link("veth1", peer="eth0", peer_netns=78, master="cni0")
    host.mount(f"{GRAPH}-backup/overlay/{LAYER}/merged", fstype="overlay", majmin="0:62")
    host.mount(f"{GRAPH}/overlay/{LAYER}/merged/srv", majmin="0:64")
    host.mount(f"{GRAPH}/overlay-containers/{OTHER}/userdata/shm", majmin="0:63")
    host.mount(f"/run/utsns/{UUID}", fstype="nsfs", majmin="0:4", root="uts:[4026532001]")
    host.result(OTHER, network="crio", netns=STRANGE_PIN)
    host.file(f"/var/lib/cni/results/crio-{OTHER}-eth0", "file")
    host.file("/etc/crio")
    host.file("/etc/cni/net.d/11-crio-ipv4-bridge.conflist", "file")
    host.file(f"/run/crun/{OTHER}")
    assert host.gone() == OWN - {"link:cni0"}
    claims = host.ask()
    assert claims["link:cni0"].role is Role.HELD, "another's veth is its port"
    assert not claims["process:27"].proven
    assert "file:/etc/crio" not in claims


def test_a_layer_that_another_s_container_has_too_is_not_its_own(host: Crio) -> None:
    host.sandbox()
    host.stored(OTHER, "", LAYER)
    assert host.gone() == OWN - {f"mount:{MERGED}"}


def test_where_it_never_was_nothing_is_its_own(host: Crio) -> None:
    """A host of Podman's and of another cluster's, which all products are asked about."""
    host.stored(OTHER, "podman", LAYER)
    host.process(30, "/usr/bin/conmon", "conmon", "-c", OTHER, cgroup=f"/machine.slice/libpod-conmon-{OTHER}.scope")
    host.mount(MERGED, fstype="overlay", majmin="0:60")
    host.mount(f"{GRAPH}/overlay", fstype="ext4", majmin="8:1", root=f"{GRAPH}/overlay")
    host.netns(79, [], [STRANGE_PIN])
    host.result(OTHER, network="crio", netns=STRANGE_PIN, bridges=["cni0"], gateways=["10.85.0.1"])
    host.link("cni0", "bridge", addresses=["10.85.0.1"])
    for chain in ("CNI-HOSTPORT-DNAT", "KUBE-HOSTPORTS", "CRIO-HOSTPORTS-MASQ"):
        host.xtables(chain)
    host.table("crio-hostports", "hostports", family="ip")
    for path in (GRAPH, RUN, "/run/containers", "/run/crun", "/run/netns", "/var/lib/cni", "/var/lib/cni/results"):
        host.file(path)
    assert host.ask() == {}


def test_a_monitor_is_known_by_its_cgroup_too(host: Crio) -> None:
    host.sandbox()
    host.conmon(20, SANDBOX, held=False, exe="/usr/bin/conmon (deleted)")
    host.process(21, "/pause", "pause", ppid=20, cgroup="/odd", nested=True, netns=77)
    assert {"process:20", "process:21"} <= host.gone()


def test_beside_containerd_s_pods_what_all_of_cni_share_stays(host: Crio) -> None:
    host.sandbox()
    host.shim(40, OTHER, "/run/containerd/containerd.sock", exe="/usr/bin/containerd-shim-runc-v2")
    host.process(41, "/pause", "pause", ppid=40, cgroup=f"{PODS}/cri-containerd-{OTHER}.scope", nested=True, netns=80)
    host.cgroup(f"{PODS}/cri-containerd-{OTHER}.scope", populated=True)
    host.netns(80, [41], [STRANGE_PIN])
    host.result(OTHER, network="cbr0", netns=STRANGE_PIN, bridges=["cni0"])
    host.file(f"/var/lib/cni/results/cbr0-{OTHER}-eth0", "file")
    host.xtables(cni.chain("CNI-", "cbr0", OTHER))
    host.xtables("CNI-HOSTPORT-DNAT")
    host.xtables("KUBE-HOSTPORTS")
    host.xtables("CRIO-HOSTPORTS-MASQ")
    assert host.gone() == OWN - {"link:cni0"} | {"xtables:ip nft nat -N CRIO-HOSTPORTS-MASQ"}
    claims = host.ask()
    assert claims["link:cni0"].role is Role.HELD
    assert claims["xtables:ip nft nat -N KUBE-HOSTPORTS"].role is Role.ADMIN


def test_ports_of_pods_go_where_nobody_else_is(host: Crio) -> None:
    host.sandbox()
    for chain in ("CNI-HOSTPORT-DNAT", "KUBE-HOSTPORTS", "KUBE-HP-ABCDEFGHIJKLMNOP", "CRIO-MASQ-ABCDEFGHIJKLMNOP"):
        host.xtables(chain)
    host.xtables("PREROUTING", target="KUBE-HOSTPORTS", comment="kube hostport portals")
    host.xtables("PREROUTING", target="KUBE-HOSTPORTS", comment="mine")
    host.table("crio-hostports", "hostports", "prerouting", family="ip")
    host.table("crio-hostports", "mine", family="ip6")
    host.table("crio-hostports", "hostports", family="inet")
    gone = host.gone() - OWN
    assert {id.split("nat ")[-1].strip() for id in gone} == {
        *("-N CNI-HOSTPORT-DNAT", "-N KUBE-HOSTPORTS", "-N KUBE-HP-ABCDEFGHIJKLMNOP"),
        *("-N CRIO-MASQ-ABCDEFGHIJKLMNOP", "nft:ip crio-hostports"),
        "-A PREROUTING -j KUBE-HOSTPORTS kube hostport portals",
    }
    # A kubelet is who else may have made some of them.
    host.process(50, "/usr/bin/kubelet", "kubelet")
    gone = host.gone() - OWN
    assert {id.split("nat ")[-1] for id in gone} == {"-N CRIO-MASQ-ABCDEFGHIJKLMNOP", "nft:ip crio-hostports"}


def test_somebody_in_a_pod_s_network_holds_it(host: Crio) -> None:
    host.sandbox()
    host.process(60, "/usr/sbin/tcpdump", "tcpdump", netns=77)
    host.listed["netns"][0].facts["processes"].append(60)
    claim = host.ask()["netns:77"]
    assert claim.role is Role.HELD and "tcpdump" in claim.evidence[0].text
    host.listed["netns"] = []
    host.netns(77, [11, 12], [PIN, "/run/netns/mine"])
    claim = host.ask()["netns:77"]
    assert claim.role is Role.HELD and "/run/netns/mine" in claim.evidence[0].text


def test_another_crio_of_somebody_s_has_the_directories(host: Crio) -> None:
    host.sandbox()
    host.process(70, "/opt/bin/crio", "crio")
    host.file("/var/lib/crio", entries=("clean.shutdown",))
    host.table("crio-hostports", "hostports", family="ip")
    claims = host.ask()
    for id in (f"file:{STATE}", "file:/var/lib/crio", "nft:ip crio-hostports"):
        assert claims[id].role is Role.ADMIN, id
    assert "process:70" not in claims


def test_its_daemon_and_its_own_directories(host: Crio) -> None:
    host.process(80, "/usr/bin/crio (deleted)", "crio")
    host.process(81, "/usr/bin/crio", "crio", uid=1000)
    host.process(82, "/usr/bin/crio", "crio", nested=True, mntns=5)
    host.file("/var/lib/crio", entries=("clean.shutdown", "version"))
    assert host.gone() == {"process:80", "file:/var/lib/crio"}
    host.listed["file"] = []
    host.file("/var/lib/crio", entries=("clean.shutdown", "keys"))
    assert not host.ask()["file:/var/lib/crio"].proven
    host.listed["file"] = []
    host.file(STATE, mounted=True)
    assert not host.ask()[f"file:{STATE}"].proven


def test_the_profile_of_containers(host: Crio) -> None:
    host.sandbox()
    facts = {"type": "profile", "name": "crio-default", "namespace": "", "mode": "enforce"}
    host.add("apparmor", "crio-default", ("crio-default",), processes=[11], **facts)
    assert host.gone() == OWN | {"apparmor:crio-default"}
    host.process(90, "/usr/bin/mine", "mine")
    host.listed["apparmor"][0].facts["processes"].append(90)
    assert host.gone() == OWN


# -- readers --------------------------------------------------------------------------------------------------------


def look(root: pathlib.Path, *processes: Object) -> Look:
    mount = Object("mount", "/", ("/",), {"point": "/", "fstype": "ext4", "host": True})
    return Look(Host(str(root)), Scope(), {"process": processes, "mount": (mount,)})


def a_conmon(pid: int, exit: str = f"/var{STATE}/exits", id: str = ID, **facts: Any) -> Object:
    bundle = f"{RUN}/overlay-containers/{id}/userdata"
    argv = [CONMON, "-b", bundle, "-c", id, "--exit-dir", exit, "--socket-dir-path", f"/var{STATE}", "-u", id]
    known = {"exe": CONMON, "argv": argv, "nested": False, "uid": 0, "our_mnt": True, "start": 9, **facts}
    return Object("process", str(pid), (pid, 9), {"pid": pid, **known})


def holding(root: pathlib.Path, pid: int, path: str) -> None:
    directory = root / "proc" / str(pid) / "fd"
    directory.mkdir(parents=True)
    os.symlink(path, directory / "11")


def write(root: pathlib.Path, path: str, value: Any) -> None:
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(value if isinstance(value, str) else json.dumps(value))


def test_a_monitor_holds_a_fifo_in_the_bundle_open(tmp_path: pathlib.Path) -> None:
    """Arguments alone are anybody's; Podman's have their fifos in the graph root and other exit files."""
    bundle = f"{RUN}/overlay-containers/{ID}/userdata"
    holding(tmp_path, 1, f"{bundle}/ctl")
    holding(tmp_path, 2, f"{GRAPH}/overlay-containers/{ID}/userdata/ctl")
    holding(tmp_path, 3, f"{bundle}/ctl")
    holding(tmp_path, 4, f"{bundle}/winsz")
    holding(tmp_path, 5, f"{bundle}/ctl (deleted)")
    holding(tmp_path, 7, f"{bundle.replace(ID, OTHER)}/ctl")
    processes = (
        *(a_conmon(1), a_conmon(2), a_conmon(3, "/run/libpod/exits"), a_conmon(4, uid=1000)),
        *(a_conmon(5, f"{STATE}/exits"), a_conmon(6), a_conmon(7), a_conmon(8, exe="/usr/bin/sleep")),
    )
    records, faults = reading.read_conmons(look(tmp_path, *processes))
    assert [record.name for record in records] == ["1", "5"] and not faults


def test_what_it_wrote_down_of_its_containers(tmp_path: pathlib.Path) -> None:
    def entry(id: str, **said: Any) -> dict[str, Any]:
        return {"id": id, "layer": LAYER, "metadata": json.dumps(said)}

    stored = [
        entry(ID, **{"pod-name": "web", "pod-id": SANDBOX, "name": "k8s_web"}),
        entry(OTHER, **{"image-id": "x", "name": "podman's"}),
        entry("e" * 64),
        {"id": "../../etc", "metadata": '{"pod-id": "x"}'},
    ]
    write(tmp_path, f"{GRAPH}/overlay-containers/containers.json", stored)
    spaces = [
        {"type": "network", "path": f"/var{PIN}"},
        {"type": "ipc", "path": IPC},
        {"type": "uts", "path": "/run/utsns/../../etc/passwd"},
        {"type": "mount"},
        {"type": "user", "path": 7},
    ]
    notes = {"io.kubernetes.cri-o.SandboxID": SANDBOX, "io.kubernetes.pod.name": "web-0"}
    config = {"linux": {"namespaces": spaces}, "annotations": notes}
    write(tmp_path, f"{RUN}/overlay-containers/{ID}/userdata/config.json", config)
    # A monitor of one that the store has no more, and one that says so of Podman's.
    for pid, id in ((1, SANDBOX), (2, OTHER)):
        holding(tmp_path, pid, f"{RUN}/overlay-containers/{id}/userdata/ctl")
    write(tmp_path, f"{RUN}/overlay-containers/{SANDBOX}/userdata/config.json", "[1")
    records, faults = reading.read_containers(look(tmp_path, a_conmon(1, id=SANDBOX), a_conmon(2, id=OTHER)))
    assert [record.name for record in records] == [ID, SANDBOX]
    facts = records[0].facts
    assert facts["pins"] == [IPC, PIN] and facts["layer"] == LAYER
    assert (facts["sandbox"], facts["pod"], facts["pod_namespace"]) == (SANDBOX, "web-0", "")
    assert records[1].facts["pins"] == [] and len(faults) == 1 and "config.json" in faults[0]


@pytest.mark.parametrize(("text", "whole"), [("[]", True), ("[{", False)])
def test_whether_all_of_the_store_was_read(tmp_path: pathlib.Path, text: str, whole: bool) -> None:
    write(tmp_path, f"{GRAPH}/overlay-containers/containers.json", text)
    records, faults = reading.read_store(look(tmp_path))
    assert [(each.type, each.facts["whole"]) for each in records] == [("store", whole)]
    assert bool(faults) is not whole


def test_its_package_s_configuration_tells_of_nobody_else(tmp_path: pathlib.Path) -> None:
    for name, network in (("11-crio-ipv4-bridge", "crio"), ("10-crio-bridge", "mine"), ("87-mine", "crio")):
        write(tmp_path, f"/etc/cni/net.d/{name}.conflist", {"name": network, "plugins": [{"type": "bridge"}]})
    records, _ = reading.read_cni(look(tmp_path))
    assert {os.path.basename(each.name): each.facts["within"] for each in records} == {
        "10-crio-bridge.conflist": False,
        "11-crio-ipv4-bridge.conflist": True,
        "87-mine.conflist": False,
    }
