"""nerdctl's containers among others in the same namespaces of one containerd, and its networks among others' of CNI."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from test_microk8s_rules import Machine

from leftovers.claims import Case, attribute
from leftovers.evidence import cni, containerd
from leftovers.host import Host
from leftovers.kinds.kind import Look
from leftovers.model import Object, Presence, Role, Scope
from leftovers.products import load, nerdctl
from leftovers.products.nerdctl import ADDRESS, DATA, NETWORKS, RUN

STORE = f"{DATA}/1935db59"
TASKS = "/run/containerd/io.containerd.runtime.v2.task/default"
SHIM = "/usr/bin/containerd-shim-runc-v2"
ID, HOSTS, CTR = "a" * 64, "b" * 64, "c" * 64
CHAIN = cni.chain("CNI-", "bridge", f"default-{ID}")
PORTS = cni.chain("CNI-DN-", "bridge", f"default-{ID}")
ISOLATION = "CNI firewall plugin rules (ingressPolicy: same-bridge)"


class Nerdctl(Machine):
    def __init__(self) -> None:
        super().__init__()
        self.product = load("nerdctl")

    def container(self, pid: int = 10, id: str = ID, netns: int = 77, own: bool = True) -> None:
        """A container; `own`: whether nerdctl has it in its store, else ctr made it."""
        self.process(pid, SHIM, SHIM, "-namespace", "default", "-id", id, "-address", ADDRESS)
        group = f"/system.slice/nerdctl-{id}.scope" if own else f"/default/{id}"
        self.cgroup(group, populated=True)
        facts = {"nested": True, "netns": netns, "mntns": pid + 1} if netns else {"nested": True, "mntns": pid + 1}
        self.process(pid + 1, "/app", "app", ppid=pid, cgroup=group, **facts)
        if netns:
            self.netns(netns, [pid + 1], [])
        if own:
            path = f"{STORE}/containers/default/{id}"
            known = {"namespace": "default", "id": id, "name": "web", "path": path, "networks": [], "started": ""}
            self.record("nerdctl", f"default/{id}", "disk", **known)
            self.record("container", f"default/{id}", "disk", **containerd.blank("default", id))
            bundle = {"bundle": f"{TASKS}/{id}", "namespace": "default", "id": id, "address": ADDRESS}
            self.record("shim", str(pid), "kernel", start=9, **bundle)

    def stored(self, volumes: tuple[str, ...] = ()) -> None:
        self.record("store", STORE, "disk", own=True, namespaces=["default"])
        for volume in volumes:
            path = f"{STORE}/volumes/default/{volume}"
            self.record("volume", path, "disk", namespace="default", volume=volume)
            self.file(path)
        for path in (DATA, STORE, *(f"{STORE}/{name}" for name in ("containers", "names", "etchosts"))):
            self.file(path)

    def conflist(self, name: str = "bridge", path: str = "", **more: Any) -> str:
        id = hashlib.sha256(name.encode()).hexdigest()
        path = path or f"{NETWORKS}/nerdctl-{name}.conflist"
        bridge = "nerdctl0" if name == "bridge" else f"br-{id[:12]}"
        facts = {"network": name, "plugins": ["bridge", "portmap", "firewall", "tuning"], "bridges": [bridge]}
        facts |= {"devices": [], "paths": [], "gateways": ["10.4.0.1"], "nerdctl": id, "within": False}
        self.record("conflist", path, "disk", **{**facts, **more})
        self.file(path, "file")
        return bridge

    def rule(self, chain: str, rule: str, comment: str = "", interfaces: tuple[str, ...] = ()) -> Object:
        made = self.xtables(chain, rule, rule.rpartition(" ")[2], comment, table="filter")
        made.facts["interfaces"].extend(interfaces)
        return made


@pytest.fixture
def host() -> Nerdctl:
    return Nerdctl()


def files(host: Nerdctl) -> dict[str, Role]:
    found = host.ask()
    return {id[5:]: claim.role for id, claim in found.items() if id.startswith("file:") and claim.proven}


# -- containers -----------------------------------------------------------------------------------------------------


def test_a_container_and_all_that_hangs_on_it_beside_one_of_ctr_s(host: Nerdctl) -> None:
    host.container()
    host.container(30, CTR, 88, own=False)
    host.link("veth00000001", peer="eth0", peer_netns=77)
    host.link("veth00000002", peer="eth0", peer_netns=88)
    scope = f"/system.slice/nerdctl-{ID}.scope"
    assert host.gone() == {"process:10", "process:11", f"cgroup:{scope}", "netns:77", "link:veth00000001"}
    assert "process:30" not in host.ask(), "not even a doubt: it is the landlord's"


def test_a_container_on_the_host_s_network_has_nothing_else(host: Nerdctl) -> None:
    host.container(id=HOSTS, netns=0)
    assert host.gone() == {"process:10", "process:11", f"cgroup:/system.slice/nerdctl-{HOSTS}.scope"}


def test_mounts_in_the_bundles_of_its_containers_only(host: Nerdctl) -> None:
    host.container()
    host.mount(f"{TASKS}/{ID}/rootfs", fstype="overlay")
    host.mount(f"{TASKS}/{CTR}/rootfs", fstype="overlay")
    host.mount(f"/run/containerd/io.containerd.runtime.v2.task/k8s.io/{ID}/rootfs", fstype="overlay")
    host.mount(f"{STORE}/containers/default/{ID}/shm", fstype="tmpfs")
    host.mount(f"{STORE}/volumes/default/data/_data", fstype="ext4")
    found = {id for id in host.gone() if id.startswith("mount:")}
    assert found == {f"mount:{TASKS}/{ID}/rootfs", f"mount:{STORE}/containers/default/{ID}/shm"}


@pytest.mark.parametrize(
    ("argv", "late", "uid", "own"),
    [
        (["sleep", "infinity"], 0, 0, True),
        (["sleep", "infinity"], 3600, 0, False),  # another process has the number by now
        (["sleep", "1000"], 0, 0, False),
        (["sleep", "infinity"], 0, 1000, False),
    ],
)
def test_who_holds_the_ports(host: Nerdctl, argv: list[str], late: int, uid: int, own: bool) -> None:
    host.container()
    process = host.process(50, "/usr/bin/sleep", *argv)
    process.facts["argv"][:] = argv  # type: ignore[index]
    process.facts["uid"] = uid  # type: ignore[index]
    facts = {"namespace": "default", "id": ID, "pid": 50, "late": late}
    host.record("reserver", f"{RUN}/default/{ID}/port-reserver.pid", "disk", **facts)
    host.process(51, "/usr/bin/sleep", "sleep", "infinity")
    assert ("process:50" in host.gone()) is own and "process:51" not in host.gone()


def test_timers_of_health_checks(host: Nerdctl) -> None:
    host.container()
    for name, file in ((ID, "/run/systemd/transient/"), (CTR, "/run/systemd/transient/"), (HOSTS, "/etc/systemd/")):
        facts = {"load": "loaded", "active": "active", "sub": "waiting", "file": f"{file}{name}.timer", "stands": True}
        host.add("unit", f"{name}.timer", (name,), unit=f"{name}.timer", cgroup="", pid=0, **facts)
    assert {id for id in host.gone() if id.startswith("unit:")} == {f"unit:{ID}.timer"}


# -- networks -------------------------------------------------------------------------------------------------------


def test_chains_leases_and_results_by_the_id_that_cni_was_told(host: Nerdctl) -> None:
    host.container()
    for id in (f"default-{ID}", ID, f"k8s.io-{ID}", f"default-{CTR}"):
        path = host.result(id, network="bridge", addresses=["10.4.0.2/24"])
        lease = f"/var/lib/cni/networks/bridge/10.4.0.{len(host.records)}"
        host.record("lease", lease, "disk", id=id, ifname="eth0", network="bridge", address=lease.rpartition("/")[2])
        host.file(path, "file")
        host.file(lease, "file")
    wanted = [each.name for each in host.records if each.facts.get("id") == f"default-{ID}" and each.type != "nerdctl"]
    wanted += [each.name for each in host.records if each.facts.get("id") == ID and each.type in ("cni", "lease")]
    host.xtables(CHAIN)
    host.xtables(PORTS)
    host.xtables(cni.chain("CNI-", "bridge", f"default-{CTR}"))
    note = f'name: "bridge" id: "default-{ID}"'
    jump = host.xtables("POSTROUTING", f"-s 10.4.0.2/32 -j {CHAIN}", CHAIN, note)
    strange = f'name: "bridge" id: "default-{CTR}"'
    host.xtables("POSTROUTING", "-s 10.4.0.3/32 -j CNI-x", cni.chain("CNI-", "bridge", f"default-{CTR}"), strange)
    gone = host.gone()
    assert {id for id in gone if id.startswith("file:")} == {f"file:{path}" for path in wanted}
    assert {id for id in gone if id.startswith("xtables:")} == {
        *(f"xtables:ip nft nat -N {chain}" for chain in (CHAIN, PORTS)),
        jump.id,
    }


def test_bridges_of_its_networks(host: Nerdctl) -> None:
    host.conflist()
    front = host.conflist("front", f"{NETWORKS}/default/nerdctl-front.conflist")
    mine = f"{NETWORKS}/10-mine.conflist"
    host.record(
        "conflist", mine, "disk", network="mine", plugins=["bridge"], bridges=["cni-mine"], paths=[], devices=[]
    )
    host.file(mine, "file")
    host.link("nerdctl0", "bridge", addresses=["10.4.0.1", "fe80::1"])
    host.link(front, "bridge")  # of which no container is left
    host.link("cni-mine", "bridge", addresses=["10.4.9.1"])
    host.link("br-0badcafe0bad", "bridge", addresses=["10.4.0.1"])
    assert {id for id in host.gone() if not id.startswith("file:/var")} == {
        *("link:nerdctl0", f"link:{front}"),
        *(f"file:{NETWORKS}/nerdctl-bridge.conflist", f"file:{NETWORKS}/default/nerdctl-front.conflist"),
    }


def test_a_configuration_without_its_id_survives_and_so_does_its_bridge(host: Nerdctl) -> None:
    host.container()
    host.conflist(nerdctl="")
    host.link("nerdctl0", "bridge", addresses=["10.4.0.1"])
    found = host.gone()
    assert "link:nerdctl0" not in found and not any("conflist" in id for id in found)


def test_a_bridge_that_is_somebody_else_s_too(host: Nerdctl) -> None:
    host.conflist()
    host.link("nerdctl0", "bridge", addresses=["10.4.0.1"])
    host.link("enp3s0", "", master="nerdctl0")
    claim = host.ask()["link:nerdctl0"]
    assert claim.role is Role.HELD and "enp3s0" in claim.evidence[0].text


def test_a_bridge_with_another_address_is_the_administrator_s(host: Nerdctl) -> None:
    host.conflist()
    host.link("nerdctl0", "bridge", addresses=["10.4.0.1", "192.168.1.1"])
    claim = host.ask()["link:nerdctl0"]
    assert not claim.proven and claim.role is Role.ADMIN and claim.advice == "ip link delete nerdctl0"


def test_rules_that_keep_its_bridges_apart(host: Nerdctl) -> None:
    host.conflist()
    host.link("nerdctl0", "bridge", addresses=["10.4.0.1"])
    for chain in ("CNI-ISOLATION-STAGE-1", "CNI-ISOLATION-STAGE-2", "CNI-ADMIN", "CNI-FORWARD"):
        host.xtables(chain, table="filter")
    own = host.rule(
        "CNI-ISOLATION-STAGE-1",
        "-i nerdctl0 ! -o nerdctl0 -j CNI-ISOLATION-STAGE-2",
        ISOLATION,
        interfaces=(
            "nerdctl0",
            "nerdctl0",
        ),
    )
    drop = host.rule("CNI-ISOLATION-STAGE-2", "-o nerdctl0 -j DROP", ISOLATION, interfaces=("nerdctl0",))
    back = host.rule("CNI-ISOLATION-STAGE-1", "-j RETURN", ISOLATION.replace("bridge)", "bridge|isolated)"))
    jump = host.rule("FORWARD", "-j CNI-ISOLATION-STAGE-1", ISOLATION)
    mine = host.rule("FORWARD", "-i nerdctl0 -j ACCEPT", "mine", interfaces=("nerdctl0",))
    gone = host.gone()
    assert {own.id, drop.id, back.id, jump.id} <= gone and mine.id not in gone
    for chain in ("CNI-ISOLATION-STAGE-1", "CNI-ISOLATION-STAGE-2", "CNI-ADMIN", "CNI-FORWARD"):
        claim = host.ask()[f"xtables:ip nft filter -N {chain}"]
        assert claim.proven and claim.role is Role.LIVE and claim.object.facts["only_empty"], chain
    # Another user of CNI has a bridge there: what is for both stays.
    other = host.rule("CNI-ISOLATION-STAGE-2", "-o cni-podman0 -j DROP", ISOLATION, interfaces=("cni-podman0",))
    gone = host.gone()
    assert {own.id, drop.id} <= gone and not {back.id, jump.id, other.id} & gone
    assert "xtables:ip nft filter -N CNI-ISOLATION-STAGE-1" not in gone


def test_the_administrator_s_rules_for_cni_stay(host: Nerdctl) -> None:
    host.container()
    host.xtables("CNI-ADMIN", table="filter")
    mine = host.rule("CNI-ADMIN", "-s 10.0.0.0/8 -j DROP")
    assert not {id for id in host.gone() if id.startswith("xtables:")}
    assert host.ask()[mine.id].role is Role.ADMIN


# -- files ----------------------------------------------------------------------------------------------------------


def test_its_store_goes_when_no_volume_is_in_it(host: Nerdctl) -> None:
    host.stored()
    host.file(RUN)
    assert files(host) == {
        **dict.fromkeys((DATA, STORE), Role.DATA),
        **{f"{STORE}/{name}": Role.DATA for name in ("containers", "names", "etchosts")},
        RUN: Role.LIVE,
    }


def test_volumes_are_kept_and_named(host: Nerdctl) -> None:
    host.stored(("data", "backup"))
    found = files(host)
    assert {path for path, role in found.items() if role is Role.EXTERNAL} == {
        *(DATA, STORE, f"{STORE}/volumes/default/data", f"{STORE}/volumes/default/backup")
    }
    assert {path for path, role in found.items() if role is Role.DATA} == {
        f"{STORE}/{name}" for name in ("containers", "names", "etchosts")
    }


def test_the_store_of_another_containerd_stays(host: Nerdctl) -> None:
    host.stored()
    other = f"{DATA}/0badcafe"
    host.record("store", other, "disk", own=False, namespaces=["default"])
    host.file(other)
    found = files(host)
    assert DATA not in found or found[DATA] is Role.ADMIN
    assert other not in found and STORE in found
    assert host.ask()[f"file:{other}"].role is Role.ADMIN


def test_its_locks_and_the_directories_of_its_namespaces(host: Nerdctl) -> None:
    host.stored()
    conflist = f"{NETWORKS}/default/nerdctl-front.conflist"
    host.conflist("front", conflist)
    for name in ("default", "mine", ".nerdctl.lock", ".cni-concurrency.lock"):
        host.record("nerdctl place", f"{NETWORKS}/{name}", "disk", networks=0, size=0)
    entries = ("default", "mine", ".nerdctl.lock", ".cni-concurrency.lock")
    host.file(NETWORKS, entries=entries)
    host.file(f"{NETWORKS}/default", entries=("nerdctl-front.conflist",))
    host.file(f"{NETWORKS}/mine")
    for name in entries[2:]:
        host.file(f"{NETWORKS}/{name}", "file")
    found = files(host)
    assert {path for path in found if path.startswith(NETWORKS)} == {
        *(conflist, f"{NETWORKS}/default", f"{NETWORKS}/.nerdctl.lock", f"{NETWORKS}/.cni-concurrency.lock")
    }


def test_what_users_have_is_only_told(host: Nerdctl) -> None:
    path = "/home/ann/.local/share/nerdctl"
    host.record("rootless", path, "disk", user="ann")
    host.file(path)
    claim = host.ask()[f"file:{path}"]
    assert not claim.proven and claim.role is Role.ADMIN and "ann" in claim.evidence[0].text
    assert claim.advice.startswith("machinectl shell ann@")


def test_the_homes_that_are_looked_into(tmp_path: Path) -> None:
    homes = {"ann": "/home/ann", "root": "/root", "bob": "/home/bob", "odd": "/home/../etc", "top": "/", "bad": "x"}
    (tmp_path / "etc").mkdir()
    lines = [f"{user}:x:1:1::{home}:/bin/sh\n" for user, home in homes.items()]
    (tmp_path / "etc/passwd").write_text("".join(lines) + "rubbish\n")
    for home in ("home/ann", "root", "etc", "."):
        (tmp_path / home / ".local/share/nerdctl").mkdir(parents=True)
    look = Look(Host(str(tmp_path)), Scope(), {"process": (), "mount": ()})
    found = {record.name: record.facts["user"] for record in nerdctl.read_homes(look)[0]}
    assert found == {"/home/ann/.local/share/nerdctl": "ann"}


def test_without_a_trace_nothing_is_its_own(host: Nerdctl) -> None:
    host.container(30, CTR, 88, own=False)
    host.record("nerdctl place", f"{NETWORKS}/default", "disk", networks=0)
    host.file(f"{NETWORKS}/default")
    host.link("nerdctl0", "bridge", addresses=["10.4.0.1"])
    host.xtables("CNI-HOSTPORT-DNAT")
    host.xtables("CNI-FORWARD", table="filter")
    assert host.ask() == {}


# -- for who asks whose a thing is ----------------------------------------------------------------------------------


def test_its_containers_by_the_names_that_it_gave_them(host: Nerdctl) -> None:
    host.container()
    host.container(30, CTR, 88, own=False)
    host.file(host.result(f"default-{ID}", network="bridge", links=["veth00000001"]), "file")
    host.link("veth00000001", peer="eth0", peer_netns=77)
    path = f"{STORE}/containers/default/{HOSTS}"
    host.record(
        "nerdctl", f"default/{HOSTS}", "disk", namespace="default", id=HOSTS, name="agent", path=path, started="2026"
    )
    listed = {kind: tuple(objects) for kind, objects in host.listed.items()}
    case = Case("nerdctl", Presence.INSTALLED, listed, tuple(host.records))
    attribute(case, host.product.rules, host.product.recall)
    assert host.product.instances is not None
    web, agent = sorted(host.product.instances(case), key=lambda each: each.id)
    assert (web.name, web.state, agent.name, agent.state) == ("web", "running", "agent", "stopped")
    assert {"process:10", "link:veth00000001", f"file:/var/lib/cni/results/bridge-default-{ID}-eth0"} <= set(web.ties)
    assert agent.ties == () and not any("30" in tie.split(":") for tie in web.ties)
