"""Debian's containerd with containers of Docker's and of a person's: what goes with Docker, what with containerd."""

from __future__ import annotations

from typing import Any

import pytest

from lab import docker
from lab.docker import ON_SID, ON_TRIXIE
from lab.machine import Machine
from lab.scenario import Arrive, document, leftovers
from lab.test_docker import same
from lab.test_triggers import lines, say

PURGE = "apt-get purge -y -q"
# The administrator's network for containers, of CNI; ctr looks for its plugins in /opt/cni/bin.
CNI = r"""
mkdir -p /opt/cni /etc/cni/net.d
ln -s /usr/lib/cni /opt/cni/bin
cat >/etc/cni/net.d/10-mine.conflist <<'C'
{"cniVersion": "0.4.0", "name": "mine", "plugins": [
    {"type": "bridge", "bridge": "cni-mine", "isGateway": true, "ipMasq": true,
     "ipam": {"type": "host-local", "subnet": "10.66.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}]}
C
"""
USE = (
    docker.IMAGE
    + r"""
docker run -d --stop-timeout 1 --name web -p 8080:80 bb httpd -f -h /www >/dev/null
docker save bb >/tmp/bb.tar
for namespace in mine default; do ctr -n $namespace images import /tmp/bb.tar >/dev/null; done
rm /tmp/bb.tar
# The lab has no controllers, so a container must not ask for shares of the processor.
start() {
    ctr oci spec | python3 -c '
import json, sys
spec = json.load(sys.stdin)
del spec["linux"]["resources"]
spec["root"] = {"path": "/srv/rootfs"}
spec["linux"]["cgroupsPath"] = f"/{sys.argv[1]}/{sys.argv[2]}"
spec["process"].update(terminal=False, args=sys.argv[4:])
if sys.argv[3] == "host":
    spec["linux"]["namespaces"] = [each for each in spec["linux"]["namespaces"] if each["type"] != "network"]
print(json.dumps(spec))' "$@" >/tmp/spec.json
    ctr -n $1 run -d --config /tmp/spec.json $([ $3 != cni ] || echo --cni) $2
    rm /tmp/spec.json
}
start mine web cni /bin/busybox httpd -f -p 8090 -h /www
start mine alone own /bin/busybox sleep 1000300
start default host host /bin/busybox httpd -f -p 8091 -h /www
"""
)
TASKS = "(ctr -n mine task ls; ctr -n default task ls) | awk '{print $1, $2, $3}' | sort"


def lived(m: Machine) -> dict[str, Any]:
    docker.admin_things(m)
    m.run("apt-get install -y -q --no-download --no-install-recommends containernetworking-plugins")
    m.run(CNI)
    # Their file system is the administrator's.
    m.run(docker.IMAGE.partition("tar -C")[0] + "mkdir /tmp/img/run; mv /tmp/img /srv/rootfs")
    before = m.snapshot()
    docker.install(m)
    m.run(USE, timeout=180)
    return before


def answers(m: Machine) -> None:
    """The other namespaces' containers run, and answer over TCP."""
    address = m.run("cat /var/lib/cni/networks/mine/last_reserved_ip.0").out.strip()
    for place in (f"{address}:8090", "127.0.0.1:8091"):
        assert m.run(f"busybox wget -q -O - http://{place}/").out == "hello\n"
    assert m.run("ctr -n mine task ls -q | sort").out == "alone\nweb\n"


@pytest.mark.full
@pytest.mark.parametrize("machine", [ON_TRIXIE, ON_SID], indirect=True, ids=["trixie", "sid"])
def test_two_namespaces(machine: Machine, arrive: Arrive) -> None:
    arrive(machine)
    before = lived(machine)
    answers(machine)
    pids = machine.run(TASKS).out
    said = say(machine, f"{PURGE} docker.io docker-cli")
    assert len(lines(said, r"^leftovers: docker\.io: this ends 1 running instance and 0 networks of Docker")) == 1, said
    answers(machine)
    assert machine.run(TASKS).out == pids
    leftovers(machine, "verify", "docker")
    assert "docker0" not in machine.run("ls /sys/class/net").out
    assert "DOCKER" not in machine.run("iptables-save").out
    machine.run("! ls -d /run/containerd/io.containerd.runtime.v2.task/moby /run/docker /run/docker.sock")
    assert [o["id"] for o in document(machine, "plan", "containerd") if o["action"] != "keep"] == []

    said = say(machine, f"{PURGE} containerd runc")
    assert len(lines(said, r"^leftovers: containerd: this ends 3 running instances")) == 1, said
    left = [r"file /var/lib/docker(/.*)?$", r"file /var/lib/containerd(/.*)?$"]
    same(machine, before, said, left)
    machine.run("test -d /var/lib/containerd/io.containerd.content.v1.content/blobs")  # images are data
    assert len(lines(said, r"^leftovers: containerd: .*; kept: /var/lib/containerd, [0-9.]+ [kM]B \(")) == 1, said
    leftovers(machine, "verify")
    said = leftovers(machine, "clean", "docker", "containerd", "--yes", "--data").out
    same(machine, before, said)


@pytest.mark.full
@pytest.mark.parametrize("machine", [ON_TRIXIE], indirect=True)
def test_both_daemons_killed_and_purged_without_us(machine: Machine, arrive: Arrive) -> None:
    before = lived(machine)
    docker.kill_daemon(machine, "docker", "containerd")
    docker.purge(machine)
    assert machine.run("pgrep -c containerd-shim").out != "0\n"
    arrive(machine)
    said = leftovers(machine, "clean", "containerd", "--yes").out
    # That is what containerd has besides Docker's, which was not asked for.
    assert machine.run("pgrep -a containerd-shim | grep -v moby", check=False).out == ""
    assert "-namespace moby" in machine.run("pgrep -a containerd-shim").out
    said += leftovers(machine, "clean", "docker", "containerd", "--yes").out
    same(machine, before, said, [r"file /var/lib/containerd(/.*)?$"])
    leftovers(machine, "verify")
