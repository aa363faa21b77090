"""What of an installed Docker's belongs to no container any more, made for real beside fifty healthy containers."""

from __future__ import annotations

import pytest

from lab import docker
from lab.docker import ON_TRIXIE
from lab.machine import Machine
from lab.scenario import Arrive, document, leftovers

HEALTHY = 50
FIFTY = (
    docker.IMAGE
    + f"""
docker network create net2 >/dev/null
for i in $(seq {HEALTHY}); do
    case $((i % 5)) in
    0) more="--network net2" ;;
    1) more="-p $((8000 + i)):80" ;;
    2) more="--network none" ;;
    3) more="--network host" ;;
    *) more= ;;
    esac
    docker run -d --name c$i $more bb sleep 1000400 >/dev/null
done
docker create --name created bb sleep 1 >/dev/null
docker run --name ended -p 7999:80 bb true
"""
)
# dockerd is killed at many points of a `docker run`, and started again.
CRASHES = r"""
for delay in 0.10 0.15 0.2 0.25 0.3 0.4 0.5 0.6; do
    (docker run -d --rm -p $(awk "BEGIN{print 9000+100*$delay}"):80 bb sleep 1000401 >/dev/null 2>&1 || :) &
    sleep $delay
    kill -9 $(pidof dockerd)
    wait
    systemctl reset-failed docker docker.socket || :
    systemctl start docker
done
"""
# What it leaves then differs: this is the same each time.
BY_HAND = r"""
set -x
# a pair that was made, and never came into a container
ip link add veth1234567 type veth peer name veth89abcde
ip link set veth1234567 master docker0
# a namespace that is pinned for nobody, with the end of another pair in it
ip netns add tmp
touch /run/docker/netns/0123456789ab
mount --bind /run/netns/tmp /run/docker/netns/0123456789ab
umount /run/netns/tmp
rm /run/netns/tmp
ip link add veth2345678 type veth peer name eth9
ip link set veth2345678 master docker0
ip link set eth9 netns /run/docker/netns/0123456789ab
# rules and a proxy for an address that nobody has
iptables -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 9999 -j DNAT --to-destination 172.17.200.2:80
iptables -A DOCKER -d 172.17.200.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
systemd-run -q --unit=stray bash -c 'exec 3>/dev/null; exec /usr/sbin/docker-proxy -proto tcp -host-ip 0.0.0.0 \
    -host-port 9999 -container-ip 172.17.200.2 -container-port 80'
"""
STATES = "docker inspect -f '{{.Name}} {{.State.Pid}} {{.State.Running}}' $(docker ps -aq) | sort"


def plan(m: Machine) -> dict[str, str]:
    found = document(m, "scan", "--orphans", "docker", "--older-than", "2")
    return {each["id"]: each["reason"] for each in found if each["action"] == "remove"}


@pytest.mark.full
@pytest.mark.parametrize("machine", [ON_TRIXIE], indirect=True)
def test_all_orphans_and_only_they(machine: Machine, arrive: Arrive) -> None:
    arrive(machine)
    docker.admin_things(machine)
    docker.install(machine, config='{"live-restore": true}')
    machine.run(FIFTY, timeout=300)
    assert plan(machine) == {}
    healthy = machine.run(STATES).out
    assert healthy.count(" true\n") == HEALTHY
    links = machine.run("ls /sys/class/net").out

    machine.run(BY_HAND, timeout=120)
    lost = machine.run("docker run -d --name lost bb sleep 1000402").out.strip()
    pins = set(machine.run("ls /run/docker/netns").out.split())
    # Its record is gone with the daemon that was killed: shim, init, namespace, mount, cgroup and runc's state are not.
    docker.kill_daemon(machine, "docker")
    machine.run(f"rm -r /var/lib/docker/containers/{lost}")
    found = plan(machine)
    kinds = {id.partition(":")[0] for id in found}
    assert kinds == {"process", "link", "netns", "mount", "cgroup", "file", "xtables"}, found
    expected = {
        *("link:veth1234567", "link:veth89abcde", "link:veth2345678"),
        f"cgroup:/system.slice/docker-{lost}.scope",
        "xtables:ip nft nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 9999 -j DNAT --to-destination 172.17.200.2:80",
        f"file:/run/docker/runtime-runc/moby/{lost}",
    }
    assert expected <= set(found), found
    shim = machine.run(f"pgrep -f -- '-id {lost} '").out.strip()
    init = machine.run("pgrep -f 'sleep 1000402'").out.strip().split()[-1]
    proxy = machine.run("systemctl show -P MainPID stray").out.strip()
    assert {f"process:{pid}" for pid in (shim, init, proxy)} == {id for id in found if id.startswith("process:")}

    said = leftovers(machine, "clean", "--orphans", "docker", "--yes", "--older-than", "2").out
    assert plan(machine) == {}, said
    machine.run("rm -r /run/systemd/system/docker.service.d; systemctl daemon-reload; systemctl start docker")
    assert machine.run(STATES).out == healthy, said
    assert machine.run("ls /sys/class/net").out == links
    assert set(machine.run("ls /run/docker/netns").out.split()) <= pins
    assert machine.run("iptables-save").out.count("172.17.200.2") == 0
    assert machine.run("ps -eo args | grep -c '[s]leep 1000402'", check=False).out == "0\n"
    # dockerd, started again, takes down what it remembers of it, and leaves a file. Cleaning twice is silent.
    leftovers(machine, "clean", "--orphans", "docker", "--yes", "--older-than", "2")
    assert "0 to remove" in leftovers(machine, "clean", "--orphans", "docker", "--yes", "--older-than", "2").out


@pytest.mark.full
@pytest.mark.parametrize("machine", [ON_TRIXIE], indirect=True)
def test_a_daemon_killed_in_the_middle(machine: Machine, arrive: Arrive) -> None:
    """Whatever it leaves at whatever point: after a clean nothing is there but what the healthy ones have."""
    arrive(machine)
    docker.install(machine, config='{"live-restore": true}')
    machine.run(docker.IMAGE)
    machine.run("for i in 1 2 3; do docker run -d --name c$i -p 800$i:80 bb sleep 1000400; done")
    links = machine.run("ls /sys/class/net").out
    healthy = machine.run(STATES).out
    rules = machine.run("iptables-save | grep -v '^[#:]' | sort").out
    pins = machine.run("grep -c /run/docker/netns /proc/self/mountinfo").out
    machine.run(CRASHES, timeout=300)
    machine.run("docker ps -aq --filter status=created | xargs -r docker rm -f; sleep 1")
    machine.run(
        "for i in $(docker ps -aq); do docker inspect -f '{{.Name}}' $i | grep -q '^/c[123]$' || docker rm -f $i; done"
    )
    found = plan(machine)
    assert found, "eight crashes left nothing: there is nothing to show"
    said = leftovers(machine, "clean", "--orphans", "docker", "--yes", "--older-than", "2").out
    assert machine.run(STATES).out == healthy, said
    assert machine.run("ls /sys/class/net").out == links, said
    assert machine.run("iptables-save | grep -v '^[#:]' | sort").out == rules, said
    assert machine.run("grep -c /run/docker/netns /proc/self/mountinfo").out == pins, said
    assert len(machine.run("ls /run/docker/netns").out.split()) == 3
