"""Which containers a product has, and what is directly theirs: never another's, and never a memory of the ledger's."""

from __future__ import annotations

from typing import Any

from test_incus_rules import EXE, HostOf
from test_microk8s_rules import ADDRESS, INNER, LINK, OTHER, PIN, PODS, SANDBOX, TASKS, UID, Machine

from leftovers.claims import Case, attribute
from leftovers.evidence import cni
from leftovers.model import Claim, Instance, Presence, Role
from leftovers.products import load
from leftovers.products.containers import instances as of_containers
from leftovers.products.family import belongings


def found(host: HostOf) -> dict[str, Instance]:
    listed = {kind: tuple(objects) for kind, objects in host.listed.items()}
    case = Case(host.product.name, Presence.INSTALLED, listed, tuple(host.records))
    attribute(case, host.product.rules, host.product.recall, host.product.holds)
    assert host.product.instances is not None
    return {instance.name: instance for instance in host.product.instances(case)}


# -- a containerd ---------------------------------------------------------------------------------------------------


def test_a_pod_is_one_with_all_its_containers() -> None:
    host = Machine()
    host.pod()
    host.link(LINK, peer="eth0", peer_netns=77)
    host.mount(f"{TASKS}/{SANDBOX}/rootfs", majmin="0:61", fstype="overlay")
    host.mount(f"{TASKS}/{INNER}/rootfs", majmin="0:62", fstype="overlay")
    host.mount(PIN, "0:4", "net:[77]", "nsfs")
    (pod,) = found(host).values()
    assert (pod.name, pod.id, pod.product, pod.state) == ("default/web-0", SANDBOX, "microk8s", "running")
    assert set(pod.ties) == {
        *("process:10", "netns:77", f"mount:{PIN}", f"cgroup:{PODS}", f"cgroup:{PODS}/{SANDBOX}"),
        *(f"cgroup:{PODS}/{INNER}", f"mount:{TASKS}/{SANDBOX}/rootfs", f"mount:{TASKS}/{INNER}/rootfs"),
    }


def test_what_cni_made_for_it_is_its_own_while_that_is_proven() -> None:
    host = Machine()
    host.pod()
    result = host.result(pod="web-0", pod_namespace="default", links=["cni0", "veth5"], bridges=["cni0"], paths=[])
    host.file(result, "file")
    chain = cni.chain("CNI-", "k8s-pod-network", SANDBOX)
    other = cni.chain("CNI-", "k8s-pod-network", OTHER)
    for name in (chain, other):
        host.xtables(name)
    host.link("cni0", "bridge")
    host.link("veth5", peer="eth0", peer_netns=77)
    (pod,) = found(host).values()
    assert {f"file:{result}", f"xtables:ip nft nat -N {chain}", "link:veth5"} <= set(pod.ties)
    assert not any(other in id or "cni0" in id for id in pod.ties)


def test_another_daemon_s_containers_and_remembered_ones_are_none() -> None:
    host = Machine()
    host.shim(20, OTHER, address="/run/containerd/containerd.sock")
    host.record("runc", f"k8s.io/{OTHER}", "disk", namespace="k8s.io", id=OTHER, path="", pid=20, start=9,
                bundle="/run/containerd/io.containerd.runtime.v2.task/k8s.io/" + OTHER, cgroups=[])  # fmt: skip
    host.record("container", f"k8s.io/{INNER}", "ledger", namespace="k8s.io", id=INNER, sandbox="", pod="")
    assert found(host) == {}


def test_a_pid_that_is_only_written_down_may_be_another_process_by_now() -> None:
    host = Machine()
    host.bundle(pid=30)
    host.process(30, "/usr/bin/vim", "vim", cgroup="/user.slice", netns=5)
    host.netns(5, [30], [])
    (left,) = found(host).values()
    assert left.ties == () and left.state == "" and left.name == SANDBOX[:12]


def test_what_docker_says_of_a_container_goes_before_the_bundle() -> None:
    snap = load("docker-snap")
    host = Machine()
    host.product = snap
    facts: dict[str, Any] = {"id": SANDBOX, "networks": [], "sandbox": "", "image": "nginx:1.27", "pid": 0}
    host.record("docker", SANDBOX, "disk", **facts, name="web", created="2026-11-20T10:00:00Z", state="exited")
    host.record("docker", INNER, "disk", **{**facts, "id": INNER}, name="made", created="", state="created")
    web, made = found(host).values()
    assert (web.name, web.image, web.state, web.created) == ("web", "nginx:1.27", "stopped", "2026-11-20T10:00:00Z")
    assert web.evidence.text == "dockerd has it as web" and made.state == "created"


def test_nerdctl_s_by_its_store() -> None:
    host = Machine()
    host.product = load("nerdctl")
    facts = {
        "namespace": "default",
        "path": "/var/lib/nerdctl/1935db59/containers/default/x",
        "hosts": "",
        "networks": [],
    }
    host.record(
        "nerdctl", f"default/{SANDBOX}", "disk", **facts, id=SANDBOX, name="web", started="2026-11-20T10:00:00Z"
    )
    host.record("nerdctl", f"default/{INNER}", "disk", **facts, id=INNER, name="", started="")
    some = found(host)
    assert {name: each.state for name, each in some.items()} == {"web": "stopped", INNER[:12]: "created"}
    assert some["web"].evidence.text.endswith("is there")


def test_names_of_cgroups() -> None:
    for part, id in (
        (f"docker-{SANDBOX}.scope", SANDBOX),
        (f"cri-containerd-{INNER}.scope", INNER),
        (f"kubepods-besteffort-pod{UID.replace('-', '_')}.slice", UID),
        (f"pod{UID}", UID),
    ):
        assert of_containers.name_in(part) == id


def test_a_namespace_that_is_pinned_for_one_is_not_another_s() -> None:
    """`docker run --network container:OTHER`: both have a process in it."""
    host = Machine()
    host.pod()
    host.shim(40, OTHER)
    host.record("shim", "40", "kernel", start=9, bundle=f"{TASKS}/{OTHER}", namespace="k8s.io", id=OTHER,
                address=ADDRESS)  # fmt: skip
    host.bundle(OTHER, pid=41)
    host.process(41, "/app", "app", ppid=40, cgroup=f"/kubepods/{OTHER}", nested=True, netns=77, mntns=41, pidns=41)
    pods = found(host)
    assert "netns:77" in pods["default/web-0"].ties and "process:41" in pods[OTHER[:12]].ties
    assert "netns:77" not in pods[OTHER[:12]].ties


# -- the family -----------------------------------------------------------------------------------------------------


def test_a_container_of_the_family_by_its_monitor_and_what_the_daemon_says() -> None:
    host = HostOf("incus")
    host.container("c1", 10)
    host.instance("c1", host_name="veth1", host_name_from="volatile")
    host.instance("c2", running=False)
    host.instance("c1", source="database", running=False)
    host.link("veth1", peer="eth0", peer_netns=77)
    host.mount("/var/lib/incus/devices/c1/disk.data", majmin="0:70")
    host.mount("/var/lib/incus/shmounts", majmin="0:71")
    host.record("instance", "gone", "ledger", running=True, nics=[], disks=[])
    some = found(host)
    assert set(some) == {"c1", "c2"}
    assert some["c1"].state == "running" and some["c2"].state == "stopped" and some["c2"].ties == ()
    assert set(some["c1"].ties) == {
        *("process:10", "process:11", "cgroup:/lxc.monitor.c1", "cgroup:/lxc.payload.c1", "link:veth1"),
        "mount:/var/lib/incus/devices/c1/disk.data",
    }


def test_a_container_that_only_its_monitor_tells_of() -> None:
    host = HostOf("incus")
    host.container("proj_p1", 10)
    host.process(30, "/usr/bin/sleep", "[lxc monitor] /var/lib/incus/containers fake")
    (p1,) = found(host).values()
    assert (p1.name, p1.state, p1.evidence.text) == ("proj_p1", "running", "pid 10 runs it")


def test_a_helper_is_its_container_s_if_it_is_what_was_written_down() -> None:
    host = HostOf("incus")
    host.container("c1", 10)
    host.instance("c1")
    host.process(20, EXE, EXE, "forkproxy", "--", "1", "4")
    host.process(21, EXE, EXE, "forkproxy", "--", "1", "5")
    for pid in (20, 21):
        path = f"/var/lib/incus/devices/c1/proxy.p{pid}"
        host.record("helper", path, "disk", pid=pid, name=EXE, args=["forkproxy", "--", "1", "4", ""], apparmor="")
    ties = found(host)["c1"].ties
    assert "process:20" in ties and "process:21" not in ties, "another one has that pid by now"


def test_a_wished_name_is_not_a_container_s_link() -> None:
    """Of a device that only has it for a wish, the link of that name may be the product's, and another's."""
    host = HostOf("incus")
    host.instance("c1", host_name="veth1", host_name_from="device")
    host.instance("c2", host_name="veth2", host_name_from="volatile")
    host.instance("c3", host_name="phys0", host_name_from="volatile", nictype="physical", parent="phys0")
    names = {name: host.link(name) for name in ("veth1", "veth2", "phys0")}
    case = Case("incus", Presence.INSTALLED, {"link": tuple(names.values())}, tuple(host.records))
    for link in names.values():
        case.add(Claim("incus", link, Role.LIVE, True, "because", ()))
    records = {record.name: record for record in host.records}
    assert list(belongings.links(case, records)) == [("c2", names["veth2"])]
