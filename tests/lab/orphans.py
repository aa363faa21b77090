"""A host with many healthy containers, and what crashes of Docker leave beside them.

What real Docker 26.1.5 (trixie) and 28.5.2 (sid) leave, as seen on these hosts with live-restore, when dockerd is
killed (SIGKILL) in the middle of `docker run`, has come back by systemd's Restart= and the container, which is called
created by then, was removed:

- 26, after it made the pair of links: both ends in the host's namespace, one a port of the bridge, for ever: it had not
  written them down. A little later it has, and takes them away at its next start, with the pins of sandboxes. A little
  earlier none is a port yet: then nothing but their names tells that they were Docker's, and we only tell.
- 26, when the shim's bundle is there and up to the end of `runc create`: a docker-proxy for each published port, and
  the rules of the port. The new dockerd finds the sandbox written down, and restores the ports of a container that
  never ran; `docker rm` forgets them. The port stays taken in dockerd's memory until its next start.
- 28, which makes the task before the network: the shim, "runc init" in it, its cgroup, the namespace in which that
  lives and the host's end of the pair that leads there, runc's state and containerd's bundle; killed early, the same
  without shim or network. dockerd never asks containerd about a container that it knows as created.
- both, when the task has been started: nothing, they find it again, as long as live-restore is on. Without it, whatever
  ran is stopped at the next start.
- The layer stays mounted while the container is "created", and is unmounted by `docker rm`.

When a container's first process and its shim are killed while dockerd is down, the next dockerd takes away the pin, the
links, the rules and the mounts, and with --rm the container too. What it cannot is a pair whose inner end is in a
namespace that somebody else has open: it looks for that end in the host's namespace. The host's end stays a port.

When the directory of a container is lost (/var/lib/docker/containers/ID), dockerd knows nothing of it, and all stays:
shim, processes, cgroup, link, namespace, layer's mount; only the pin, the ports and their rules go.

A pin in /run/docker/netns that no sandbox has is left alone by both. The file of a pin, empty and with nothing
mounted on it, is dockerd's to collect, once in a minute; 26 forgets those from before its start. In both the socket of
a killed shim stays in /run/containerd/s, under a name that is computed from the id of its container: when nothing else
says that id any more, nobody can tell whose it was, and it is left.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any

from lab.machine import LabError, Machine

PACKAGES = ("docker.io", "docker-cli", "containerd", "runc")

# Listed by other means than ours. All that Docker, or somebody in its manner, may have on the host; what has another
# pid after each start of dockerd is told by its arguments.
LOOK = r"""
import json, os, re, subprocess

def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

ids, proxies, loose = [], {}, []
for link in json.loads(run("ip", "-j", "link")):
    ids.append(f"link:{link['ifname']}")
    # The other end is in this namespace, too.
    if "link" in link and "link_netnsid" not in link and "master" not in link:
        loose.append((link["ifname"], link["link"]))
loose = [f"link:{one}" for one, other in loose if (other, one) in loose]
spaces, mine = {}, os.stat("/proc/self/ns/net").st_ino
for line in open("/proc/self/mountinfo"):
    words = line.split()
    point = words[4]
    if line.split(" - ")[1].split()[0] == "nsfs":
        spaces.setdefault(int(re.search(r"\[(\d+)\]", words[3])[1]), point)
    elif re.match("/(var/lib|run)/(docker|containerd)/", point):
        ids.append(f"mount:{point}")
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        exe = os.readlink(f"/proc/{pid}/exe")
        argv = open(f"/proc/{pid}/cmdline").read().replace("\0", " ")
        cgroup = open(f"/proc/{pid}/cgroup").read()
        space = os.stat(f"/proc/{pid}/ns/net").st_ino
        pidns = os.stat(f"/proc/{pid}/ns/pid").st_ino
    except OSError:
        continue
    spaces.setdefault(space, pid)
    if exe.endswith("/docker-proxy"):
        proxies[argv.partition(" ")[2]] = pid
    elif "containerd-shim" in exe or "docker-" in cgroup or pidns != os.stat("/proc/self/ns/pid").st_ino:
        ids.append(f"process:{pid}")
ids += [f"netns:{inode}" for inode in spaces if inode != mine]
for directory, inner, _ in os.walk("/sys/fs/cgroup"):
    ids += [f"cgroup:{directory}/{name}"[len("cgroup:/sys/fs/cgroup") :] for name in inner if "docker-" in name]
ids = [f"cgroup:{each}" if each.startswith("/") else each for each in ids]
for family, tool in (("ip", "iptables-nft-save"), ("ip6", "ip6tables-nft-save")):
    table = ""
    for line in run(tool).splitlines():
        table = line[1:] if line.startswith("*") else table
        ids += [f"xtables:{family} nft {table} {line}"] if line.startswith("-A") else []
for name in os.listdir("/run/docker/runtime-runc/moby"):
    ids.append(f"file:/run/docker/runtime-runc/moby/{name}")
print(json.dumps({"ids": sorted(set(ids)), "proxies": proxies, "loose": loose}))
"""

# Kill dockerd the moment something new is to be seen. The looks cost microseconds, what dockerd does milliseconds.
CRASH = r"""
import os, signal, subprocess, sys, time
when, command = sys.argv[1], sys.argv[2:]
TASKS = "/run/containerd/io.containerd.runtime.v2.task/moby"

def names(path):
    try:
        return set(os.listdir(path))
    except OSError:
        return set()

def veths():
    return {name for name in names("/sys/class/net") if name.startswith("veth")}

looks = {
    "pair": veths,
    "port": lambda: {name for name in veths() if os.path.exists(f"/sys/class/net/{name}/brport")},
    "pin": lambda: names("/run/docker/netns"),
    "bundle": lambda: names(TASKS),
    "task": lambda: {id for id in names(TASKS) if os.path.exists(f"{TASKS}/{id}/init.pid")},
    "runc": lambda: names("/run/docker/runtime-runc/moby"),
    "record": lambda: names("/var/lib/docker/containers"),
}
pid = int(open("/run/docker.pid").read())
before = looks[when]()
client = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
until = time.monotonic() + 60
while time.monotonic() < until and not looks[when]() - before:
    pass
os.kill(pid, signal.SIGKILL)
said = client.communicate()[1]
if client.returncode == 0 or time.monotonic() > until:
    sys.exit(f"dockerd was not killed half-way: {said}")
"""

UP = r"""
systemctl reset-failed docker.service 2>/dev/null || :
systemctl start docker.service
for i in $(seq 300); do docker version >/dev/null 2>&1 && break; sleep 0.1; done
"""
DOWN = r"""
mkdir -p /run/systemd/system/docker.service.d
printf '[Service]\nRestart=no\n' >/run/systemd/system/docker.service.d/lab.conf
systemctl daemon-reload
systemctl kill --kill-whom=main -s KILL docker.service
for i in $(seq 100); do systemctl -q is-active docker.service || break; sleep 0.1; done
systemctl stop docker.socket
rm /run/systemd/system/docker.service.d/lab.conf
systemctl daemon-reload
"""
IMAGE = r"""
mkdir -p /tmp/img/bin /tmp/img/www
cp /bin/busybox /tmp/img/bin/busybox
for a in sh ls cat sleep ip httpd true; do ln -s busybox /tmp/img/bin/$a; done
echo hello >/tmp/img/www/index.html
tar -C /tmp/img -c . | docker import - bb >/dev/null
rm -r /tmp/img
"""
# The administrator's own, in Docker's manner: a port of docker0 that leads to a namespace of his own, a pair with such
# names in the host's, one with both ends up, a namespace, a bridge, rules.
ADMIN = r"""
ip netns add mine
ip link add veth0badcaf type veth peer name eth9 netns mine
ip link set veth0badcaf master docker0 up
ip -n mine link set eth9 up
ip -n mine addr add 172.17.200.1/16 dev eth9
ip link add br-0badcafe0bad type bridge
ip link add veth1badcaf type veth peer name veth2badcaf
ip link set veth1badcaf master br-0badcafe0bad
ip link add veth3badcaf type veth peer name veth4badcaf
ip link set veth3badcaf up master docker0
ip link set veth4badcaf up
ip addr add 172.17.201.1/32 dev veth4badcaf
iptables -I DOCKER-USER -s 172.17.0.250 -j DROP
iptables -t nat -A POSTROUTING -s 10.9.9.9/32 -d 10.9.9.9/32 -p tcp -m tcp --dport 80 -j MASQUERADE
systemd-run -q --unit=docker-mine sleep 1000020
"""
# 50: 20 on the bridge and 12 on two networks with published ports, 4 on the host's, 4 on none, 5 stopped, 3 paused, one
# in another's network, one that was only created.
HEALTHY = r"""
docker network create one >/dev/null
docker network create --subnet 10.99.0.0/24 two >/dev/null
docker network create empty >/dev/null
web="bb httpd -f -p 80 -h /www"
{
    for i in $(seq 20); do echo "run --name b$i -p $((8000 + i)):80 $web"; done
    for i in $(seq 6); do echo "run --name o$i --network one -p $((8100 + i)):80 $web"; done
    for i in $(seq 6); do
        echo "run --name t$i --network two --ip 10.99.0.$((20 + i)) -p 127.0.0.1:$((8200 + i)):80 $web"
    done
    for i in $(seq 4); do echo "run --name h$i --network host bb sleep 1000$i"; done
    for i in $(seq 4); do echo "run --name n$i --network none bb sleep 1000$i"; done
    for i in $(seq 5); do echo "run --name s$i -p $((8300 + i)):80 bb true"; done
    for i in $(seq 3); do echo "run --name p$i --ipc shareable bb sleep 1000$i"; done
    echo "create --name c1 -p 8401:80 $web"
} | xargs -P 4 -L 1 sh -c 'w=$1; shift; [ "$w" = create ] || w="$w -d"; exec docker $w "$@" >/dev/null' sh
docker run -d --name shared --network container:b1 bb sleep 10001 >/dev/null
docker pause p1 p2 p3 >/dev/null
for i in $(seq 100); do [ "$(docker ps -q -f status=exited | wc -l)" = 5 ] && break; sleep 0.1; done
"""
PORTS = (*range(8001, 8021), *range(8101, 8107), *range(8201, 8207))
# A port that the kernel chooses: one may stay taken.
RUN = ("docker", "run", "-d", "--name", "half", "-p", "80", "bb", "httpd", "-f", "-p", "80", "-h", "/www")


def install(m: Machine) -> None:
    m.write("/etc/docker/daemon.json", '{"live-restore": true}\n')
    m.run(["apt-get", "install", "-y", "-q", "--no-download", "--no-install-recommends", *PACKAGES], timeout=300)
    m.run(UP + IMAGE, timeout=120)


def live(m: Machine) -> None:
    """Docker, much used, and the administrator's own."""
    install(m)
    m.run(HEALTHY, timeout=600)
    m.run(ADMIN)


def look(m: Machine) -> dict[str, str]:
    """The objects that there are: by what they are, their ids."""
    read: dict[str, Any] = m.run(["python3", "-I", "-"], input=LOOK).json()
    return {id: id for id in read["ids"]} | {f"proxy {argv}": f"process:{pid}" for argv, pid in read["proxies"].items()}


def loose(m: Machine) -> set[str]:
    """Ends of pairs with both ends in the host's namespace, none of them a port."""
    return set(m.run(["python3", "-I", "-"], input=LOOK).json()["loose"])


def added(before: Collection[str], now: dict[str, str]) -> set[str]:
    return {id for what, id in now.items() if what not in before}


def state(m: Machine) -> str:
    """All containers as they are: state, first process, addresses, pins."""
    form = "{{.Id}} {{.Name}} {{.State.Status}} {{.State.Pid}} {{.State.StartedAt}} {{.NetworkSettings.SandboxKey}}"
    form += "{{range .NetworkSettings.Networks}} {{.EndpointID}} {{.IPAddress}}{{end}}"
    return m.run(f"docker ps -aq --no-trunc | sort | xargs docker inspect -f '{form}'").out


def answer(m: Machine, ports: Sequence[int] = PORTS) -> None:
    """Every published port answers."""
    script = "for p in $0; do busybox wget -q -T 10 -O - http://127.0.0.1:$p/ || echo none at $p; done"
    said = m.run(["sh", "-c", script, " ".join(map(str, ports))]).out.splitlines()
    if said != ["hello"] * len(ports):
        raise LabError(f"not all ports answer: {said}")


# -- orphans ----------------------------------------------------------------------------------------------------------


def crash(m: Machine, when: str, *, remove: bool = True) -> None:
    """dockerd is killed in the middle of `docker run`, comes back, and the container is removed."""
    m.run(["python3", "-I", "-c", CRASH, when, *RUN], timeout=120)
    m.run(UP + ("docker rm -f half >/dev/null 2>&1" if remove else ""), timeout=120)


def lose(m: Machine, name: str) -> None:
    """A container's directory is lost while dockerd is down."""
    id = m.run(["docker", "inspect", "-f", "{{.Id}}", name]).out.strip()
    m.run(f"{DOWN}\nmv /var/lib/docker/containers/{id} /srv/lost-{name}\n{UP}", timeout=120)


def kill(m: Machine) -> None:
    """Containers' first processes are killed together with their shims while dockerd is down: of one with --rm, and of
    one whose network namespace somebody has open."""
    m.run(
        r"""
        docker run -d --name k1 -p 8091:80 bb httpd -f -p 80 -h /www >/dev/null
        docker run -d --rm --name k2 -p 8092:80 --network one bb httpd -f -p 80 -h /www >/dev/null
        docker run -d --name k3 --ipc shareable bb sleep 10000 >/dev/null
        pids=
        for name in k1 k2 k3; do
            pid=$(docker inspect -f '{{.State.Pid}}' $name)
            pids="$pids $pid $(awk '/^PPid/ {print $2}' /proc/$pid/status)"
        done
        # as a monitoring agent has it
        setsid sh -c "exec 9</proc/$pid/ns/net; exec sleep 1000021" </dev/null >/dev/null 2>&1 &
        for i in $(seq 50); do pgrep -x -f 'sleep 1000021' >/dev/null && break; sleep 0.1; done
        """
        + DOWN
        + "kill -9 $pids\n"
        + UP
        + """
        docker rm -f k1 k2 k3 >/dev/null 2>&1 || :
        test -z "$(docker ps -aq -f name=k1 -f name=k2 -f name=k3)"
        """,
        timeout=180,
    )


def pin(m: Machine) -> None:
    """A pin for no sandbox, with a pair that leads there."""
    m.run(
        r"""
        mkdir -p /run/docker/netns
        touch /run/docker/netns/0a1b2c3d4e5f
        unshare --net mount --bind /proc/self/ns/net /run/docker/netns/0a1b2c3d4e5f
        ip link add veth0f1e2d3 type veth peer name veth3d2e1f0
        ip link set veth0f1e2d3 master docker0 up
        nsenter --net=/run/docker/netns/0a1b2c3d4e5f sleep 1000022 &
        ip link set veth3d2e1f0 netns $!
        kill $!
        wait $! || :
        """
    )


def described(ids: Collection[str]) -> str:
    return json.dumps(sorted(ids), indent=1)


# What goes on on a busy host: containers come and go, with ports and networks of their own; one is built, slowly.
BUSY = r"""
mkdir -p /srv/busy
printf 'FROM bb\nRUN sleep 45\nRUN ls /www\n' >/srv/busy/Dockerfile
n=0
while :; do
    n=$((n + 1))
    DOCKER_BUILDKIT=0 docker build -q --no-cache /srv/busy
    sleep 1
done >/srv/busy/build.log 2>&1 &
for loop in 1 2; do
    while :; do
        docker run --rm -p 80 bb true
        docker run -d --rm --name busy$loop -p 80 bb sleep 1000 && sleep 1 && docker rm -f busy$loop
        docker network create busy$loop && docker run --rm --network busy$loop -p 80 bb true
        docker network rm busy$loop
        echo round
    done >/srv/busy/loop$loop.log 2>&1 &
done
wait
"""
LOOPS = ("/srv/busy/loop1.log", "/srv/busy/loop2.log")
