"""Docker's own word for what it has, over its API, and what leftovers reads of its disk without it: the same.

What is compared is `docker inspect`, as this file reads it, with the records; and the records of the API with those of
the disk. Docker's packages are used as Debian has them; nothing of leftovers runs in the host.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from lab.machine import RECIPES, Machine
from leftovers.daemons import docker
from leftovers.errors import Unreadable
from leftovers.evidence import bolt, docker_network, docker_settings
from leftovers.host import Host
from leftovers.model import Deadline, Record

pytestmark = pytest.mark.full

TRIXIE = {"recipe": RECIPES["docker-trixie"]}
SID = {"recipe": RECIPES["docker-sid"]}
PACKAGES = ("docker.io", "docker-cli", "containerd", "runc")
USE = r"""
mkdir -p /tmp/img/bin
cp /bin/busybox /tmp/img/bin/
for a in sh sleep cat; do ln -s busybox /tmp/img/bin/$a; done
cat >/tmp/img/bin/polite <<'I'
#!/bin/sh
trap 'exit 0' TERM QUIT
while :; do sleep 100000 & wait $!; done
I
chmod 755 /tmp/img/bin/polite
tar -C /tmp/img -c . | docker import - bb:1
ip link add br-own type bridge
ip addr add 10.56.0.1/24 dev br-own
ip link set br-own up
docker network create n1
docker network create -o com.docker.network.bridge.name=mybr0 --subnet 10.55.0.0/24 --ipv6 --subnet fd00:55::/64 n2
docker network create -o com.docker.network.bridge.name=br-own --subnet 10.56.0.0/24 --gateway 10.56.0.1 n3
docker network create --internal n4
docker network create -d macvlan --subnet 10.57.0.0/24 -o parent=br-own m1
docker network create -d ipvlan --subnet 10.60.0.0/24 -o parent=mybr0 i1
docker run -d --name c1 -p 8080:80 -p 127.0.0.1:9090-9091:90-91/udp bb:1 polite
docker run -d --name c2 --network n1 --stop-signal QUIT --restart always bb:1 polite
docker network connect n2 c2
docker run -d --name host --network host bb:1 polite
docker run -d --name none --network none bb:1 polite
docker run -d --name mac --network m1 bb:1 polite
docker run -d --name own --network n3 -p 8081:80 bb:1 polite
docker run -d --name shares --network container:host bb:1 polite
docker run -d --name removed --rm bb:1 polite
docker run -d --name deaf bb:1 sleep 100000
docker run -d --name ended --network n1 bb:1 sh -c :
docker create --name created --network n2 -p 7000:7000 bb:1 polite
docker run -d --name paused -v vol:/v -v /srv:/srv bb:1 polite
docker pause paused
docker wait ended
"""
# dockerd does not come back by itself, and nothing is asked of a dead one: its socket is still systemd's.
KILL = """
mkdir -p /run/systemd/system/docker.service.d
printf '[Service]\\nRestart=no\\n' >/run/systemd/system/docker.service.d/lab.conf
systemctl daemon-reload
systemctl kill --kill-whom=main -s KILL docker.service
for i in $(seq 100); do systemctl -q is-active docker.service || break; sleep 0.1; done
systemctl is-active docker.socket
"""
Key = tuple[str, str]


def lives(m: Machine, root: str = "") -> Host:
    """Docker, installed and used. Returns the host as it is seen from here."""
    where = f', "data-root": "{root}"' if root else ""
    m.write("/etc/docker/daemon.json", f'{{"live-restore": true{where}}}')
    m.run(["apt-get", "install", "-y", "-q", "--no-download", "--no-install-recommends", *PACKAGES], timeout=300)
    m.run(USE, timeout=300)
    return Host(f"/proc/{m.init}/root")


def read(host: Host, living: bool) -> tuple[dict[Key, Record], dict[str, Any]]:
    """All records but the one about the daemon, and the facts of that."""
    settings, faults = docker_settings.read(host)
    assert not faults and settings.live_restore
    records, faults = docker.read(host, settings, living, 60)
    assert faults == []
    found = {(record.type, record.name): record for record in records}
    assert len(found) == len(records)
    info = dict(found.pop(("docker-info", "docker")).facts)
    assert info["whole"] and info["answered"] is living
    return found, info


def told(m: Machine) -> dict[Key, dict[str, Any]]:
    """What the daemon says, of those facts that it says anything of."""
    found: dict[Key, dict[str, Any]] = {}
    for said in m.run("docker network inspect $(docker network ls -q)").json():
        bridge = said["Driver"] == "bridge"
        options = said["Options"]
        found["docker-network", said["Id"]] = {
            "name": said["Name"],
            "driver": said["Driver"],
            "scope": said["Scope"],
            "created": said["Created"],
            "bridge": options.get("com.docker.network.bridge.name", f"br-{said['Id'][:12]}") if bridge else "",
            "default": options.get("com.docker.network.bridge.default_bridge") == "true",
            "subnets": sorted(pool["Subnet"] for pool in said["IPAM"]["Config"] or ()),
            "internal": said["Internal"],
            "parent": options.get("parent", ""),
        }
        for id, end in said["Containers"].items():
            found["docker-endpoint", end["EndpointID"]] = {
                "network": said["Id"],
                "container": id,
                "name": end["Name"],
                "mac": end["MacAddress"],
                "address": end["IPv4Address"].partition("/")[0],
                "address6": end["IPv6Address"].partition("/")[0],
            }
    containers = m.run("docker inspect $(docker ps -aq)").json()
    hosts = [said["Id"] for said in containers if said["HostConfig"]["NetworkMode"] == "host"]
    for said in containers:
        settings, mode, status = said["NetworkSettings"], said["HostConfig"]["NetworkMode"], said["State"]["Status"]
        ports = [
            {
                "proto": name.partition("/")[2],
                "inner": int(name.partition("/")[0]),
                "host": at["HostIp"],
                "port": at["HostPort"],
            }
            for name, places in settings["Ports"].items()
            for at in places or ()
        ]
        states = {"exited": "stopped", "paused": "running"}
        found["docker", said["Id"]] = {
            "name": said["Name"][1:],
            "image": said["Config"]["Image"],
            "created": said["Created"],
            "state": states.get(status, status),
            "pid": said["State"]["Pid"],
            "driver": said["Driver"],
            "networks": sorted(each["NetworkID"] for each in settings["Networks"].values() if each["NetworkID"]),
            "endpoints": sorted(each["EndpointID"] for each in settings["Networks"].values() if each["EndpointID"]),
            "sandbox": settings["SandboxKey"].replace("/var/run/", "/run/"),
            "network_mode": mode,
            "host_network": mode.removeprefix("container:") in ("host", *hosts),
            "layer": said["GraphDriver"]["Data"]["MergedDir"].split("/")[-2],
            "ports": sorted(({**port, "port": int(port["port"])} for port in ports), key=order),
        }
    return found


def order(port: dict[str, Any]) -> tuple[str, int, str]:
    return port["proto"], port["port"], port["host"]


def different(first: dict[Key, dict[str, Any]], records: dict[Key, Record]) -> dict[Key, Any]:
    """What the records say otherwise."""
    found: dict[Key, Any] = dict.fromkeys(first.keys() ^ records.keys(), "only one has it")
    for key in first.keys() & records.keys():
        facts = records[key].facts
        wrong = {name: (value, facts[name]) for name, value in first[key].items() if facts[name] != value}
        if wrong:
            found[key] = wrong
    return found


def facts(records: dict[Key, Record]) -> dict[Key, dict[str, Any]]:
    return {key: dict(record.facts) for key, record in records.items()}


def named(records: dict[Key, Record], type: str) -> dict[str, Record]:
    return {record.facts["name"]: record for record in records.values() if record.type == type}


@pytest.mark.parametrize("machine", [TRIXIE, SID], indirect=True, ids=["trixie", "sid"])
def test_the_store_says_what_the_api_says(machine: Machine) -> None:
    host = lives(machine, "/srv/docker" if machine.recipe.suite == "sid" else "")
    said = told(machine)
    assert len([key for key in said if key[0] == "docker"]) == 12
    assert len([key for key in said if key[0] == "docker-network"]) == 9
    assert len([key for key in said if key[0] == "docker-endpoint"]) >= 9
    live, info = read(host, True)
    stored, offline = read(host, False)
    assert not different(said, live)
    assert not different(said, stored)
    assert not different(facts(live), stored)
    assert {record.source for record in live.values()} == {"api"}
    assert {record.source for record in stored.values()} == {"disk"}
    assert info["root"] == offline["root"] == ("/srv/docker" if machine.recipe.suite == "sid" else "/var/lib/docker")
    assert info["live_restore"] and offline["live_restore"]

    networks = named(stored, "docker-network")
    assert {name: network.facts["creator"] for name, network in networks.items() if network.facts["bridge"]} == {
        "bridge": 1,
        "n1": 1,
        "n2": 1,
        "n3": 2,
        "n4": 1,
    }
    assert [name for name, network in networks.items() if network.facts["default"]] == ["bridge"]
    assert networks["n2"].facts["gateways"] and networks["bridge"].facts["gateways"] == ["172.17.0.1"]
    assert not networks["m1"].facts["parent_created"]
    # What an end is called before it goes into its container is no link of the host's any more.
    links = machine.run("ls /sys/class/net").out.split()
    ends = {record.facts["source_name"] for key, record in stored.items() if key[0] == "docker-endpoint"}
    assert len(ends) > 5 and not ends & set(links)
    pins = machine.run("ls /run/docker/netns").out.split()
    for container in named(stored, "docker").values():
        if container.facts["state"] == "running" and container.facts["sandbox"]:
            assert container.facts["sandbox"].removeprefix("/run/docker/netns/") in pins

    # dockerd dies in the middle of its life: all containers go on, and the store still says so.
    machine.run(KILL)
    stored, _ = read(host, False)
    assert not different(said, stored)
    settings, _ = docker_settings.read(host)
    assert machine.run(["systemctl", "is-active", "docker.service"], check=False).out.strip() == "failed"
    docker.read(host, settings, False)
    assert machine.run(["systemctl", "is-active", "docker.service"], check=False).out.strip() == "failed"
    # Who asks all the same starts it: this is what the caller's look for a process is for.
    docker.read(host, settings, True, 60)
    assert machine.run(["systemctl", "is-active", "docker.service"], check=False).out.strip() == "active"


@pytest.mark.parametrize("machine", [TRIXIE], indirect=True)
def test_containers_are_asked_to_stop_and_started_again(machine: Machine) -> None:
    host = lives(machine)
    records, _ = read(host, True)
    before = named(records, "docker")
    running = {name for name, record in before.items() if record.facts["state"] == "running"}
    causes = docker.stop(host, list(records.values()), Deadline(15))
    names = {record.name: name for name, record in before.items()}
    assert {names[id]: cause for id, cause in causes.items()} == {"deaf": "not down in time: it is running"}
    stopped = named(read(host, True)[0], "docker")
    assert {name for name, record in stopped.items() if record.facts["state"] == "running"} == {"deaf", "removed"}

    asked = [before[name].name for name in sorted(running - {"removed"})]
    assert docker.start(host, [*asked, "0" * 64], Deadline(60)) == {"0" * 64: "there is no such container"}
    after = named(read(host, True)[0], "docker")
    assert {name for name, record in after.items() if record.facts["state"] == "running"} == running
    # The one that ran on is the same; the others are anew.
    assert after["deaf"].facts["pid"] == before["deaf"].facts["pid"]
    assert after["c1"].facts["pid"] != before["c1"].facts["pid"]

    machine.write("/etc/docker/daemon.json", '{"live-restore": false}')
    machine.run("systemctl reload docker")
    wait(lambda: not machine.run("docker info --format json").json()["LiveRestoreEnabled"])
    assert docker.stop(host, list(read_any(host).values()), Deadline(60)) == {}
    assert {
        name for name, record in named(read_any(host), "docker").items() if record.facts["state"] == "running"
    } == running


def read_any(host: Host) -> dict[Key, Record]:
    records, faults = docker.read(host, docker_settings.read(host)[0], True, 60)
    assert not faults
    return {(record.type, record.name): record for record in records}


def wait(done: Callable[[], bool]) -> None:
    deadline = Deadline(30)
    while not done():
        assert not deadline.passed()
        time.sleep(0.1)


@pytest.mark.parametrize("machine", [TRIXIE], indirect=True)
def test_a_store_that_is_written_to_and_a_daemon_killed_while_it_makes_a_container(machine: Machine) -> None:
    host = lives(machine)
    root = "/var/lib/docker"
    numbers: list[int] = []
    looks = 0

    def work() -> None:
        machine.run(
            """
            for i in $(seq 12); do docker network create x$i; docker run --rm --network x$i bb:1 sh -c :; done
            for i in $(seq 12); do docker network rm x$i; done
            """,
            timeout=300,
        )

    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        records, faults = docker_network.read(host, root)
        assert faults == []
        numbers.append(sum(record.type == "docker-network" for record in records))
        looks += 1
    thread.join()
    assert min(numbers) == 9 and max(numbers) > 15 and looks > 20
    # A file cut in the middle, as a crash of the machine leaves it, is not the store of fewer networks.
    machine.run("mkdir /srv/cut && head -c 20000 /var/lib/docker/network/files/local-kv.db >/srv/cut/db")
    with pytest.raises(Unreadable):
        bolt.read(host, "/srv/cut", "db")

    # At whatever point it is killed, the store is whole, and an endpoint that it has belongs to a container there is.
    for number in range(6):
        machine.run(
            f"(docker run -d --name k{number} -p {8100 + number}:80 bb:1 polite & sleep 0.{number + 1}; "
            "systemctl kill --kill-whom=main -s KILL docker.service; wait) || :"
        )
        stored, info = read_offline(host)
        assert info["whole"]
        containers = {name for type, name in stored if type == "docker"}
        for (type, _), record in stored.items():
            if type == "docker-endpoint" and record.facts["container"]:
                assert record.facts["container"] in containers
                assert record.facts["network"] in {name for type, name in stored if type == "docker-network"}
        machine.run("systemctl reset-failed docker.service; systemctl start docker.service")


def read_offline(host: Host) -> tuple[dict[Key, Record], dict[str, Any]]:
    records, faults = docker.read(host, docker_settings.read(host)[0], False)
    assert faults == []
    found = {(record.type, record.name): record for record in records}
    return found, dict(found.pop(("docker-info", "docker")).facts)


@pytest.mark.parametrize("machine", [SID], indirect=True)
def test_a_swarm(machine: Machine) -> None:
    """live-restore and a swarm exclude each other."""
    machine.run(["apt-get", "install", "-y", "-q", "--no-download", "--no-install-recommends", *PACKAGES], timeout=300)
    machine.run(USE.partition("ip link add")[0])
    machine.run(
        """
        docker swarm init --advertise-addr 127.0.0.1
        docker network create -d overlay --attachable ov
        docker run -d --name on --network ov bb:1 polite
        """
    )
    host = Host(f"/proc/{machine.init}/root")
    stored, offline = read_offline(host)
    live = read_any(host)
    info = live.pop(("docker-info", "docker")).facts
    assert info["swarm"] and offline["swarm"] and info["whole"] and offline["whole"]
    networks, disk = named(live, "docker-network"), named(stored, "docker-network")
    assert set(networks) - set(disk) == {"ov", "ingress"}
    assert (networks["ov"].facts["driver"], networks["ov"].facts["scope"]) == ("overlay", "swarm")
    assert networks["ingress"].facts["ingress"] and len(networks["ov"].name) == 25
    gateway = disk["docker_gwbridge"].facts
    assert (gateway["bridge"], gateway["creator"], gateway["default"]) == ("docker_gwbridge", 1, False)
    for records in (live, stored):
        container = named(records, "docker")["on"]
        assert networks["ov"].name in container.facts["networks"]
        ends = {key[1]: record for key, record in records.items() if key[0] == "docker-endpoint"}
        assert {networks["ov"].name, disk["docker_gwbridge"].name} == {
            end.facts["network"] for end in ends.values() if end.facts["container"] == container.name
        }
        assert "ingress_sbox" in {end.facts["sandbox"] for end in ends.values()}
    assert facts(stored) == {key: value for key, value in facts(live).items() if key in stored}
