"""Docker beside another dockerd, beside words that are out of date, and beside things of others that only look like
its own: what must survive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_docker_rules import ADDRESS, GONE, ID, TASKS, Docker
from test_docker_snap_rules import Docker as Snap

from leftovers.claims import Case, attribute
from leftovers.evidence import containerd
from leftovers.host import Host
from leftovers.kinds.kind import Look
from leftovers.model import Claim, Presence, Role, Scope
from leftovers.products.containers import reading
from leftovers.products.docker import RUNTIME
from unit.evidence.bolt_file import Writer


def orphans(host: Docker) -> dict[str, Claim]:
    """What is told an orphan while Docker is installed."""
    listed = {kind: tuple(objects) for kind, objects in host.listed.items()}
    case = Case("docker", Presence.INSTALLED, listed, tuple(host.records))
    claims = attribute(case, host.product.rules, host.product.recall, None, host.product.orphans)
    return {id: claim for id, claim in claims.items() if claim.orphan}


@pytest.fixture
def host() -> Docker:
    return Docker()


def test_chains_that_two_dockerds_share_do_not_say_whose_a_bridge_is() -> None:
    """The snap goes; Debian's stays, with a network that no container is in now, and a published port."""
    for other in (True, False):
        host = Snap()
        host.container()
        host.link("br-0badcafe0bad", "bridge", addresses=["172.19.0.1"])
        host.rule("DOCKER-ISOLATION-STAGE-2", "-o br-0badcafe0bad -j DROP")
        host.rule("DOCKER", "! -i docker0 -p tcp -m tcp --dport 80 -j DNAT --to-destination 172.17.0.2:80", "nat")
        hairpin = host.rule(
            "POSTROUTING", "-s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE", "nat"
        )
        if other:
            host.process(30, "/usr/sbin/dockerd", "dockerd")
        assert ({"link:br-0badcafe0bad", hairpin.id} <= host.gone()) is not other
        assert bool({"link:br-0badcafe0bad", hairpin.id} & host.gone()) is not other


def test_a_network_that_is_written_down_is_its_own_also_beside_another_dockerd(host: Docker) -> None:
    host.file("/run/docker")
    host.file("/snap/docker/current")
    host.network("br-1234567890ab")
    host.link("br-1234567890ab", "bridge")
    host.link("br-0badcafe0bad", "bridge")
    host.rule("DOCKER-ISOLATION-STAGE-2", "-o br-1234567890ab -j DROP")
    host.rule("DOCKER-ISOLATION-STAGE-2", "-o br-0badcafe0bad -j DROP")
    assert {id for id in host.gone() if "link:" in id} == {"link:br-1234567890ab"}
    assert host.ask()["link:br-0badcafe0bad"].role is Role.ADMIN


def test_a_name_that_people_give_is_only_docker_s_with_docker_s_address(host: Docker) -> None:
    """docker-ce's purge keeps its store; after a boot somebody has made bridges of such names for himself."""
    host.file("/run/docker")
    for number, name in enumerate(("mybr0", "mybr1", "mybr2", "mybr3")):
        host.network(name, id=f"{number}" * 64, subnets=[f"172.2{number}.0.0/16", f"fd00:{number}::/64"])
    host.network("docker0", id="e" * 64, default=True, subnets=["172.17.0.0/16"])
    host.network("mybr4", "api", id="4" * 64, subnets=["172.24.0.0/16"])  # of no address: --internal, isolated
    host.link("mybr0", "bridge", addresses=["172.20.0.1", "fd00:0::1", "fe80::1"])
    host.link("mybr1", "bridge", addresses=["192.0.2.1"])
    host.link("mybr2", "bridge", addresses=["172.22.0.1", "192.0.2.2"])
    host.link("mybr3", "bridge")
    host.link("mybr4", "bridge")
    host.link("docker0", "bridge", addresses=["172.17.0.1", "192.0.2.3"])
    assert {id for id in host.gone() if "link:" in id} == {"link:mybr0", "link:mybr4"}
    claims = host.ask()
    assert claims["link:docker0"].role is Role.HELD
    assert claims["link:mybr1"].advice == "ip link delete mybr1" and not claims["link:mybr3"].proven


def test_a_store_that_lacks_who_lives_is_not_the_whole_truth(host: Docker, tmp_path: Path) -> None:
    """dockerd died, with live-restore; its unit told it a data-root, and the store at the usual place is an old one."""
    store = tmp_path / "var/lib/docker"
    (store / "network/files").mkdir(parents=True)
    (store / "network/files/local-kv.db").write_bytes(Writer().file({}))
    known = store / "containers" / ID
    known.mkdir(parents=True)
    (known / "config.v2.json").write_text(json.dumps({"ID": ID, "Name": "/web"}))
    host.shim(10)
    for stranger, namespace, whole in (("", "", True), (GONE, "plugins.moby", True), (GONE, "moby", False)):
        if stranger:
            host.shim(12, stranger, namespace=namespace)
        look = Look(Host(str(tmp_path)), Scope(), {"process": tuple(host.listed["process"]), "mount": ()})
        records, faults = reading.read_disk(RUNTIME, look)
        infos = [each for each in records if each.type == "docker-info"]
        assert faults == [] and [each.facts["whole"] for each in infos] == [whole], namespace


@pytest.mark.parametrize(
    ("line", "daemon", "unit", "role"),
    [
        ("00000002 00000000 00010000 0001 01 4711 /run/docker.sock", False, False, Role.HELD),
        ("00000002 00000000 00010000 0001 01 4711 /var/run/docker.sock", False, False, Role.HELD),
        ("00000002 00000000 00010000 0001 01 4711 /run/docker.sock", True, False, Role.LIVE),
        ("00000002 00000000 00010000 0001 01 4711 /run/docker.sock", False, True, Role.LIVE),  # docker.socket
        ("00000003 00000000 00000000 0001 03 4711 /run/docker.sock", False, False, Role.LIVE),  # a dead connection
        ("00000002 00000000 00010000 0001 01 4711 /run/docker.sock2", False, False, Role.LIVE),
        ("00000002 00000000 garbage", False, False, Role.LIVE),
    ],
)
def test_a_socket_that_somebody_else_serves_by_now_stays(
    host: Docker, tmp_path: Path, line: str, daemon: bool, unit: bool, role: Role
) -> None:
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/unix").write_text(f"Num RefCount Protocol Flags Type St Inode Path\n0000: {line}\n")
    look = Look(Host(str(tmp_path)), Scope(), {"process": (), "mount": ()})
    host.records += reading.read_listeners(RUNTIME, look)[0]
    host.process(20, "/usr/bin/dockerd" if daemon else "/usr/bin/socat", "dockerd")
    if unit:
        facts = {"unit": "docker.socket", "load": "not-found", "active": "active", "sub": "listening", "file": ""}
        host.add("unit", "docker.socket", ("docker.socket",), **facts, stands=False, cgroup="", pid=0)
    host.file("/run/docker.sock", "socket")
    assert host.ask()["file:/run/docker.sock"].role is role


def test_a_plugin_is_no_container_and_no_orphan(host: Docker) -> None:
    """Docker lists no plugin among its containers; runc's default for its cgroup is the plugin's id."""
    host.info()
    host.container()
    host.docker()
    plugin = "d" * 64
    bundle = f"{TASKS}/plugins.moby/{plugin}"
    said = {"namespace": "plugins.moby", "id": plugin, "address": ADDRESS}
    host.shim(30, plugin, namespace="plugins.moby")
    host.record("shim", "30", "kernel", start=9, bundle=bundle, **said)
    known = {**containerd.blank("plugins.moby", plugin), "bundle": bundle}
    host.record("container", f"plugins.moby/{plugin}", "disk", **known)
    path = f"/run/docker/runtime-runc/plugins.moby/{plugin}"
    facts = {"path": path, "pid": 31, "start": 9, "bundle": bundle, "cgroups": [], "created": ""}
    host.record("runc", f"plugins.moby/{plugin}", "disk", namespace="plugins.moby", id=plugin, **facts)
    host.process(31, "/plugin", "plugin", ppid=30, cgroup=f"/system.slice/{plugin}", nested=True, netns=66, mntns=31)
    host.cgroup(f"/system.slice/{plugin}", populated=True)
    host.netns(66, [31], [])
    host.file(path)
    assert {"process:31", f"cgroup:/system.slice/{plugin}", f"file:{path}", "netns:66"} <= host.gone()
    assert orphans(host) == {}


@pytest.mark.parametrize(
    ("argv", "facts", "answered", "told"),
    [
        (["dockerd"], {}, True, True),
        (["dockerd"], {}, False, False),  # it lives and does not answer: what looks half-made it may be making
        (["libnetwork-setkey"], {}, True, True),  # a helper, of the same file
        (["dockerd"], {"exe": "/opt/docker/dockerd"}, True, False),  # another one, in the same containerd
        (["dockerd"], {"exe": "/snap/docker/3000/bin/dockerd"}, True, False),  # in the same chains
        (["dockerd"], {"exe": "/usr/bin/dockerd", "uid": 1000, "netns": 5}, True, True),  # a user's own
        (["dockerd"], {"exe": "/usr/bin/dockerd", "nested": True, "netns": 5}, True, True),  # in a container
    ],
)
def test_who_is_gone_only_one_dockerd_can_say_and_it_must_answer(
    host: Docker, argv: list[str], facts: dict[str, Any], answered: bool, told: bool
) -> None:
    host.info(answered=answered)
    host.process(5, "/usr/sbin/dockerd", "dockerd", "-H", "fd://")
    if answered:
        host.process(6, facts.pop("exe", "/usr/sbin/dockerd"), *argv, **facts) if facts or argv != ["dockerd"] else None
    host.container(id=GONE)
    assert ("process:10" in orphans(host)) is told


def test_an_old_store_of_no_dockerd_does_not_silence_the_one_that_lives(host: Docker) -> None:
    host.info()
    host.record("docker-info", "docker", "disk", whole=False, answered=False, swarm=False)
    host.process(5, "/usr/sbin/dockerd", "dockerd", "-H", "fd://")
    host.container(id=GONE)
    assert "process:10" in orphans(host)


@pytest.mark.parametrize(
    ("owner", "sandbox", "orphan"),
    [(ID, "5" * 64, False), ("", "5" * 64, False), (GONE, "5" * 64, True), ("", "", True)],
)
def test_a_pair_on_its_way_into_a_container_is_no_orphan(host: Docker, owner: str, sandbox: str, orphan: bool) -> None:
    """runc may take minutes to make the container (a slow volume); dockerd has the pair written down by then."""
    host.file("/run/docker")
    host.info()
    host.docker(state="created", sandbox="")
    host.network("docker0", "api", default=True)
    host.endpoint("172.17.0.2", owner, source_name="veth7777777", sandbox=sandbox)
    host.link("veth6666666", peer="veth7777777", peer_netns=1, master="docker0")
    host.link("veth7777777", peer="veth6666666", peer_netns=1)
    host.link("docker0", "bridge")
    assert ({"link:veth6666666", "link:veth7777777"} <= set(orphans(host))) is orphan
    assert bool({"link:veth6666666", "link:veth7777777"} & set(orphans(host))) is orphan


def test_a_rule_for_an_address_of_no_network_of_docker_s_is_no_orphan(host: Docker) -> None:
    """An administrator's, in dockerd's chain: it goes with that, and not before."""
    host.file("/run/docker")
    host.info()
    host.docker()
    host.network("docker0", "api", default=True, subnets=["172.17.0.0/16"])
    host.link("docker0", "bridge")
    to = "-p tcp -m tcp --dport {} -j DNAT --to-destination {}:80"
    mine = host.rule("DOCKER", to.format(443, "10.0.0.5"), "nat")
    lost = host.rule("DOCKER", f"! -i docker0 {to.format(80, '172.17.0.9')}", "nat")
    assert set(orphans(host)) == {lost.id} and mine.id in host.ask()


@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("/run/docker/plugins/rexray.sock", Role.HELD),
        ("/var/run/docker/plugins/rexray/rexray.sock", Role.HELD),
        (f"/run/docker/plugins/{ID}/convoy.sock", Role.LIVE),  # a managed one's
        ("/run/docker/libnetwork/0123456789ab.sock", Role.LIVE),
        ("/srv/run/docker/plugins/rexray.sock", Role.LIVE),
    ],
)
def test_a_daemon_that_waits_for_docker_keeps_its_socket(host: Docker, tmp_path: Path, path: str, role: Role) -> None:
    (tmp_path / "proc/net").mkdir(parents=True)
    (tmp_path / "proc/net/unix").write_text(f"Num\n0000: 00000002 00000000 00010000 0001 01 4711 {path}\n")
    look = Look(Host(str(tmp_path)), Scope(), {"process": (), "mount": ()})
    host.records += reading.read_listeners(RUNTIME, look)[0]
    host.file("/run/docker", entries=("plugins", "netns"))
    assert host.ask()["file:/run/docker"].role is role
