"""Podman on a throwaway host: an administrator's own things, an installation, much use, and Debian's purge."""

from __future__ import annotations

from lab.machine import Machine

PACKAGES = ("podman", "netavark", "aardvark-dns", "conmon")

# What looks like Podman's and is not, and what Podman borrows.
ADMIN = r"""
set -x
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
# Bridges: one with a name of Podman's shape, one that a network with mode=unmanaged will use.
ip link add podman9 type bridge
ip addr add 10.99.0.1/24 dev podman9
ip link set podman9 up
ip link add veth90 type veth peer name veth91
ip link set veth90 master podman9 up
ip link add br-lan type bridge
ip link set br-lan address 02:00:00:00:00:77  # else it takes that of a port
ip link set br-lan addrgenmode none
ip link add vethlan0 type veth peer name vethlan1
ip link set vethlan0 master br-lan up
ip link set vethlan1 up
ip addr add 10.77.0.1/24 dev br-lan
ip link set br-lan up

# Files: a sibling of the store, the source of a volume and of a bind mount, with a mount in it.
mkdir -p /srv/data/sub /srv/volume /var/lib/containers-backup/storage /etc/containers
echo precious >/srv/data/file
echo precious >/srv/volume/file
echo copy >/var/lib/containers-backup/storage/db.sql
mount -t tmpfs -o size=1m sub /srv/data/sub
echo below >/srv/data/sub/file
# This machine's cgroup controllers are not the host's: without a limit Podman needs none.
printf '[containers]\npids_limit = 0\n' >/etc/containers/containers.conf

# Firewall rules with names of the same shape.
nft -f - <<'N'
table inet netavark_admin {
    chain NETAVARK-ISOLATION-1 {
        counter
    }
}
N
iptables -N NETAVARKISH
iptables -A NETAVARKISH -s 10.99.0.0/24 -j RETURN
iptables -A FORWARD -i podman9 -j ACCEPT
for chain in PREROUTING OUTPUT POSTROUTING; do iptables -t nat -A $chain -s 10.99.0.0/24 -j RETURN; done

# A program of the administrator's that is called and titled as a monitor, and a cgroup named as a container's.
mkdir -p /opt/admin
cp /usr/bin/sleep /opt/admin/conmon
id=$(printf 'ab%.0s' $(seq 32))
mkdir -p /sys/fs/cgroup/admin.slice/libpod-$id.scope
title="/usr/bin/conmon -c $id --exit-dir /run/libpod/exits"
bash -c 'exec -a "$0" /opt/admin/conmon infinity' "$title" </dev/null >/dev/null 2>&1 &
echo $! >/sys/fs/cgroup/admin.slice/libpod-$id.scope/cgroup.procs
"""
# Network namespaces of the administrator's: with a name of his, and with one as Podman's.
PINNED = """
ip netns add admin
ip netns add netns-01234567-89ab-cdef-0123-456789abcdef
ip link add veth92 type veth peer name eth0 netns netns-01234567-89ab-cdef-0123-456789abcdef
ip link set veth92 master podman9 up
"""
IMAGE = r"""
set -e
for name in bin proc sys dev etc tmp www; do mkdir -p /opt/rootfs/$name; done
cp /bin/busybox /opt/rootfs/bin/
for tool in sh sleep httpd ls nslookup wget ip cat; do ln -sf busybox /opt/rootfs/bin/$tool; done
echo hello >/opt/rootfs/www/index.html
tar -C /opt/rootfs -cf /opt/image.tar .
rm -r /opt/rootfs
"""
SERVE = "bb httpd -f -h /www"
# Two containers: the default network, and one of the user's with a name server and a published port.
SOME = f"""
podman import -q /opt/image.tar bb
podman run -d --name c1 {SERVE}
podman network create n1
podman run -d --name c2 --network n1 -p 8080:80 -v vol1:/vol -v /srv/data:/data --restart=always {SERVE}
"""
MUCH = (
    SOME
    + f"""
podman run -d --name hosted --network host bb sleep 1000
podman run -d --name alone --network none bb sleep 1000
podman run -d --name shares --pid host bb sleep 1000
podman run --name ended bb ls /www
podman pod create --name p1 -p 8081:80
podman run -d --pod p1 --name inpod {SERVE}
podman volume create --opt type=none --opt o=bind --opt device=/srv/volume bound
podman volume create --opt type=tmpfs --opt device=tmpfs memory
printf secret | podman secret create s -
podman run -d --name volumes --network n1 --secret s -v bound:/b -v memory:/m bb sleep 1000
podman network create --opt mode=unmanaged --interface-name br-lan --ipam-driver none --disable-dns lan
podman run -d --name onlan --network lan bb sleep 1000
podman run -d --name healthy --health-cmd 'ls /' --health-interval 300s bb sleep 1000
podman exec -d healthy sleep 1000
podman run -d --name mapped --userns=auto bb sleep 1000 || true
podman exec c2 nslookup volumes
podman exec volumes wget -T 5 -qO- http://c2/
"""
)
# A user's own.
ROOTLESS = f"""
id alice 2>/dev/null || useradd -m -s /bin/bash alice
loginctl enable-linger alice
for i in $(seq 100); do systemctl -q is-active user@$(id -u alice) && break; sleep 0.1; done
cat >/opt/as-alice <<'A'
#!/bin/sh
cd /home/alice
exec setpriv --reuid alice --regid alice --init-groups env -i HOME=/home/alice USER=alice PATH=/usr/bin:/bin \\
    XDG_RUNTIME_DIR=/run/user/$(id -u alice) DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$(id -u alice)/bus "$@"
A
chmod 755 /opt/as-alice
/opt/as-alice podman import -q /opt/image.tar bb
/opt/as-alice podman run -d --name r1 -p 9090:80 {SERVE}
/opt/as-alice podman network create un
/opt/as-alice podman run -d --name r2 --network un -p 9091:80 -v own:/own {SERVE}
"""
# What may stay on the host, and why.
KEPT = (
    # Podman takes the machine's hierarchy "systemd" of cgroup v1, which the host has not, for a part of v2.
    r"cgroup /systemd(/machine\.slice)?$",
    r"(cgroup /|unit )machine\.slice$",  # systemd's own slice for all containers
    r"file /(etc(/apt/apt\.conf\.d/50|/dpkg/dpkg\.cfg\.d/|/)|(run|var/lib|var/cache)/)leftovers(/.*)?$",  # our own
    r"file /etc/containers/(registries|policy|storage)[^/]*(/.*)?$",  # of packages that stay
    r"file /opt/(image\.tar|as-alice)$",
    r"(file /etc/systemd/system/multi-user\.target\.wants/|unit )leftovers-snaps\.(path|service)$",
)
# What a login and her own configuration leave.
SESSION = (r"file /home/alice/\.(local|cache|config)(/share|/state|/containers)*(/short-name-aliases\.conf\.lock)?$",)
DATA = (
    r"file /var/lib/containers(/(storage|cache)(/.*)?)?$",
    r"file /etc/containers/networks(/.*)?$",
)
CHANGED = (r"sysctl net\.ipv[46]\.(ip_forward|conf\.(all|default)\.(forwarding|accept_ra)):",)


def admin_things(m: Machine, pinned: bool = True) -> None:
    m.run(ADMIN + (PINNED if pinned else ""))
    if m.recipe.suite == "bookworm":
        m.run("printf '[engine]\\nruntime = \"runc\"\\n' >>/etc/containers/containers.conf")
    m.run(IMAGE)


def install(m: Machine) -> None:
    more = ["catatonit", "runc"] if m.recipe.suite == "bookworm" else ["catatonit"]
    m.run(["apt-get", "install", "-y", "-q", "--no-download", "--no-install-recommends", *PACKAGES, *more])
    # It ends by itself after 30 idle seconds, whenever these are over.
    m.run("systemctl stop netavark-dhcp-proxy.service || true")


def use(m: Machine, what: str = MUCH) -> None:
    m.run(what, timeout=240)


def purge(m: Machine) -> str:
    """Debian's own: our hooks, if they are there, keep still."""
    return m.run(["env", "LEFTOVERS_SUSPEND=1", "apt-get", "purge", "-y", "-q", *PACKAGES], timeout=300).out
