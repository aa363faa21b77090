"""Docker on a throwaway host: an administrator's own things, an installation, and much use.

`admin_things` are those of lab/incus.py, and what a careless cleaner takes for Docker's: bridges and chains with its
names, a shim's title, directories beside its own.
"""

from __future__ import annotations

from lab import incus
from lab.machine import RECIPES, Machine

PACKAGES = ("docker.io", "docker-cli", "containerd", "runc")
ON_TRIXIE = {"recipe": RECIPES["docker-trixie"]}
ON_SID = {"recipe": RECIPES["docker-sid"]}

# Incus' scenario has rules of its own that name its bridge: the same for Docker's.
ADMIN = (
    incus.ADMIN.replace("/var/lib/incus-backup", "/var/lib/docker-backup")
    .replace("incusbr0", "docker0")
    .replace("incus_admin", "docker_admin")
    .replace("[lxc monitor] /var/lib/incus/containers c1", "/usr/bin/containerd-shim-runc-v2 -namespace moby -id c1")
    .replace("lxc.payload.mine", "docker-mine")
    + r"""
# Bridges and links as Docker calls its own, rules as it writes them, a chain for its users' rules.
ip link add br-0badcafe0bad type bridge
ip addr add 10.76.0.1/24 dev br-0badcafe0bad
ip link add veth0badcaf type veth peer name veth1badcaf
ip link set veth0badcaf master br-0badcafe0bad
iptables-nft -A FORWARD -i br-0badcafe0bad -o br-0badcafe0bad -j ACCEPT
mkdir -p /etc/docker-mine /srv/web /srv/bound
echo mine >/etc/docker-mine/daemon.json
echo page >/srv/web/index.html
echo precious >/srv/bound/file
chown 33:33 /srv/bound/file
"""
)

IMAGE = r"""
mkdir -p /tmp/img/bin /tmp/img/etc /tmp/img/proc /tmp/img/sys /tmp/img/dev /tmp/img/tmp /tmp/img/www
cp /bin/busybox /tmp/img/bin/busybox
for a in sh ls cat sleep ip ps kill httpd ping nc wget true; do ln -s busybox /tmp/img/bin/$a; done
echo hello >/tmp/img/www/index.html
tar -C /tmp/img -c . | docker import - bb >/dev/null
rm -r /tmp/img
"""

USE = (
    r"""
d() { docker run -d --stop-timeout 1 "$@" >/dev/null; }
"""
    + IMAGE
    + r"""
docker network create net2 --subnet 10.99.0.0/24 >/dev/null
docker network create -o com.docker.network.bridge.name=mybr0 net3 >/dev/null
docker network create -d macvlan -o parent=br-lan --subnet 10.77.1.0/24 mac1 >/dev/null
# the administrator's own bridge, that Docker is told to use
docker network create -o com.docker.network.bridge.name=br-lan --subnet 10.77.0.0/24 --gateway 10.77.0.1 lan >/dev/null
docker volume create vol >/dev/null
docker volume create -o type=none -o o=bind -o device=/srv/bound bound >/dev/null
docker volume create -o type=tmpfs -o device=tmpfs -o o=size=1m tmp

d --name web -p 8080:80 -p 127.0.0.1:8443:443 -v /srv/web:/www bb httpd -f -h /www
d --name two --network net2 --restart always -p 8081:80 -v vol:/data bb httpd -f -h /www
docker network connect net3 two
d --name bound -v bound:/bound -v tmp:/t --restart unless-stopped bb sleep 1000100
d --name host --network host --pid host bb sleep 1000101
d --name none --network none bb sleep 1000102
d --name mac --network mac1 bb sleep 1000103
d --name lan --network lan bb sleep 1000106
d --name shared --network container:web bb sleep 1000107
docker create --name stopped --network net2 bb sleep 1 >/dev/null
d --name ended bb true
docker exec -d web sleep 1000108
"""
)

RUNNING = ("web", "two", "bound", "host", "none", "mac", "lan", "shared")


def admin_things(m: Machine) -> None:
    m.run(ADMIN)


def install(m: Machine, *packages: str, config: str = "") -> None:
    if config:
        m.write("/etc/docker/daemon.json", config)
    names = packages or PACKAGES
    m.run(["apt-get", "install", "-y", "-q", "--no-download", "--no-install-recommends", *names], timeout=300)


def use(m: Machine) -> None:
    m.run(USE, timeout=180)


def purge(m: Machine, *packages: str) -> None:
    """Debian's own: our hooks, if they are there, keep still."""
    names = packages or PACKAGES
    m.run(["env", "LEFTOVERS_SUSPEND=1", "apt-get", "purge", "-y", "-q", *names], timeout=300)


def kill_daemon(m: Machine, *units: str) -> None:
    """Kill dockerd as if it had crashed, and keep systemd from starting it again."""
    for unit in units or ("docker",):
        m.write(f"/run/systemd/system/{unit}.service.d/lab.conf", "[Service]\nRestart=no\n")
        m.run(
            f"""
            systemctl daemon-reload
            systemctl kill --kill-whom=main -s KILL {unit}.service
            # after the kill: stopping the socket first would stop the service in good order
            systemctl stop {unit}.socket 2>/dev/null || :
            for i in $(seq 50); do systemctl -q is-active {unit}.service || break; sleep 0.1; done
            """
        )
