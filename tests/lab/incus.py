"""Incus on a throwaway host: an administrator's own things, an installation, much use, and Debian's purge.

`admin_things` puts beside Incus what a careless cleaner takes for Incus': names, addresses, paths and process titles of
the same shape, and things of the administrator that Incus borrows (a bridge, a network card, directories).
"""

from __future__ import annotations

from lab.machine import Machine

PACKAGES = ("incus-base", "incus-client", "lxcfs")

ADMIN = r"""
set -x
# Addresses are there at once, not when a second of duplicate detection is over: two snapshots see the same.
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
# A bridge with an address and ports of its own. One port has a name like Incus' (veth + 8 hex), and so has its peer,
# and both ends are in the host: exactly what a stranded pair of Incus looks like.
ip link add br-lan type bridge
ip addr add 10.77.0.1/24 dev br-lan
ip link set br-lan up
ip link add vethdeadbeef type veth peer name veth0badcafe
ip link set vethdeadbeef master br-lan
ip link set vethdeadbeef up
ip link set veth0badcafe up
ip link add vethadmin0 type veth peer name vethadmin1
ip link add vethphys0 type veth peer name vethphys1     # lent to a container (nictype=physical)
ip link set vethphys1 addrgenmode none                  # else it gets an address when the other end is first up
ip link set vethphys1 up
ip link add vethext0 type veth peer name vethext1       # lent to a managed bridge (bridge.external_interfaces)
ip link set vethext0 up
ip link add ifbadmin0 type ifb
ip link add vxadmin type vxlan id 42 dev br-lan dstport 4789
ip tuntap add tap0badcafe mode tap
ip route add 10.78.0.0/24 via 10.77.0.2 dev br-lan
ip route add 10.79.0.0/24 dev br-lan table 100
ip rule add from 10.78.0.0/24 table 100

# A network namespace, with one end of a pair and a process in it.
ip netns add admin
ip link add veth12345678 type veth peer name eth0 netns admin
ip link set veth12345678 master br-lan up
ip -n admin addr add 10.77.0.9/24 dev eth0
ip -n admin link set eth0 up
ip -n admin route add default via 10.77.0.1

# Files, among them the sources of disk devices, a pool's source, and a sibling of Incus' own directory.
mkdir -p /srv/data/deep "/srv/with space" /srv/pool /var/lib/incus-backup/containers/c1 /mnt/admin /mnt/bound
echo precious >/srv/data/file
echo more >/srv/data/deep/file
chmod 0640 /srv/data/file
chown 33:33 /srv/data/deep
ln -s file /srv/data/link
echo x >"/srv/with space/f"
echo copy >/var/lib/incus-backup/db.bin
echo copy >/var/lib/incus-backup/containers/c1/file
echo mine >/root/notes

# Mounts: one below what will be a disk device's source, which Incus then binds recursively.
mount -t tmpfs -o size=1m admin /mnt/admin
echo volatile >/mnt/admin/file
mkdir /srv/data/sub
mount -t tmpfs -o size=1m sub /srv/data/sub
echo below >/srv/data/sub/file
mount --bind "/srv/with space" /mnt/bound

# Firewall rules: in tables of their own, in iptables' tables, and one that names Incus' bridge and yet is not Incus'.
nft -f - <<'N'
table inet admin {
    set friends { type ipv4_addr; elements = { 10.77.0.2, 10.77.0.3 } }
    chain in {
        type filter hook input priority 5; policy accept;
        ip saddr @friends counter accept comment "friends"
    }
    chain fwd.incusbr0 {
        counter
    }
}
table ip incus_admin {
    chain c {
        counter
    }
}
N
iptables-nft -A INPUT -p tcp --dport 22 -m comment --comment "admin: ssh" -j ACCEPT
iptables-nft -A FORWARD -i incusbr0 -m comment --comment "admin: guests may go out" -j ACCEPT
iptables-nft -t nat -A POSTROUTING -s 10.77.0.0/24 '!' -d 10.77.0.0/24 -j MASQUERADE

# Processes: as services, and in cgroups of their own, one named as LXC's own tools would name it.
systemd-run -q --unit=admin-monitor bash -c 'exec -a "[lxc monitor] /var/lib/incus/containers c1" sleep 1000000'
systemd-run -q --unit=admin-netns -p NetworkNamespacePath=/run/netns/admin sleep 1000001
cat >/srv/dnsmasq.conf <<'D'
interface=br-lan
bind-interfaces
except-interface=lo
dhcp-range=10.77.0.100,10.77.0.200
dhcp-leasefile=/run/admin-dnsmasq.leases
pid-file=/run/admin-dnsmasq.pid
no-resolv
D
systemd-run -q --unit=admin-dnsmasq dnsmasq --keep-in-foreground --conf-file=/srv/dnsmasq.conf
for name in admin-jobs lxc.payload.mine; do
    mkdir /sys/fs/cgroup/$name
    setsid sh -c "echo \$\$ >/sys/fs/cgroup/$name/cgroup.procs; exec sleep 1000002" </dev/null >/dev/null 2>&1 &
done
for i in $(seq 100); do [ -s /run/admin-dnsmasq.pid ] && break; sleep 0.05; done
sleep 0.3
"""

IMAGE = r"""
mkdir -p /tmp/img/rootfs/bin /tmp/img/rootfs/sbin /tmp/img/rootfs/etc /tmp/img/rootfs/proc /tmp/img/rootfs/sys \
    /tmp/img/rootfs/dev /tmp/img/rootfs/tmp /tmp/img/rootfs/root /tmp/img/rootfs/run /tmp/img/rootfs/var
cp /bin/busybox /tmp/img/rootfs/bin/busybox
for a in sh ls cat sleep ip ps kill mount httpd ping init reboot poweroff halt; do
    ln -s busybox /tmp/img/rootfs/bin/$a
done
ln -s ../bin/busybox /tmp/img/rootfs/sbin/init
cat >/tmp/img/rootfs/etc/inittab <<'I'
::sysinit:/bin/busybox ifconfig lo up
::respawn:/bin/sleep 100000
::ctrlaltdel:/bin/busybox poweroff
I
cat >/tmp/img/metadata.yaml <<'I'
architecture: x86_64
creation_date: 1700000000
properties: {description: bb, os: busybox}
I
tar -C /tmp/img -cf /tmp/bb.tar metadata.yaml rootfs
incus -q image import /tmp/bb.tar --alias bb
rm -r /tmp/img /tmp/bb.tar
"""

USE = (
    r"""
set -x
incus admin init --minimal
"""
    + IMAGE
    + r"""
incus -q network acl create web
incus -q network acl rule add web ingress action=allow protocol=tcp destination_port=80
incus -q network create net2 ipv4.address=10.99.0.1/24 ipv6.address=none security.acls=web
incus -q network create net3 ipv4.address=10.98.0.1/24 ipv6.address=none bridge.external_interfaces=vethext0
incus -q storage create pool2 dir source=/srv/pool
incus -q network forward create net2 192.0.2.10 target_address=10.99.0.5

# c1: unprivileged, with the administrator's directory (and the mount below it) and a proxy
incus -q launch bb c1
incus -q config device add c1 data disk source=/srv/data path=/mnt/data recursive=true
incus -q config device add c1 web proxy listen=tcp:127.0.0.1:8080 connect=tcp:127.0.0.1:80
# c2: privileged, with a directory whose name has a blank
incus -q launch bb c2 -c security.privileged=true
incus -q config device add c2 sp disk "source=/srv/with space" path=/mnt/sp
# c3: on the second network; c4: on the second pool, with a volume of it
incus -q launch bb c3 --network net2
incus -q launch bb c4 --storage pool2
incus -q storage volume create pool2 vol
incus -q storage volume attach pool2 vol c4 /mnt/vol
# c5: a port on the administrator's bridge; c6: a name of its own for the host's end
incus -q init bb c5
incus -q config device add c5 eth0 nic nictype=bridged parent=br-lan
incus -q start c5
incus -q init bb c6
incus -q config device override c6 eth0 host_name=myveth0
incus -q start c6
# c7: macvlan on the administrator's bridge; c8: the administrator's network card itself
incus -q init bb c7
incus -q config device add c7 eth0 nic nictype=macvlan parent=br-lan
incus -q start c7
incus -q init bb c8
incus -q config device add c8 eth0 nic nictype=physical parent=vethphys0
incus -q start c8
# a project, a stopped instance with a snapshot, an ephemeral one
incus -q project create proj -c features.images=false -c features.profiles=false
incus -q launch bb p1 --project proj
incus -q init bb stopped
incus -q snapshot create stopped
incus -q launch bb eph --ephemeral
"""
)

# What `use` leaves running, as Incus names it on the host.
RUNNING = ("c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "eph", "proj_p1")


def admin_things(m: Machine) -> None:
    m.run(ADMIN)


def install(m: Machine) -> None:
    # Debian's unit does not start lxcfs in a container, and to systemd this host is one; on a real host it runs.
    m.write("/run/systemd/system/lxcfs.service.d/lab.conf", "[Unit]\nConditionVirtualization=\n")
    m.run(["apt-get", "install", "-y", "-q", "--no-download", "--no-install-recommends", *PACKAGES])


def use(m: Machine) -> None:
    m.run(USE, timeout=180)


def purge(m: Machine) -> None:
    """Debian's own: our hooks, if they are there, keep still."""
    m.run(["env", "LEFTOVERS_SUSPEND=1", "apt-get", "purge", "-y", "-q", *PACKAGES], timeout=300)


def kill_daemon(m: Machine) -> None:
    """Kill incusd as if it had crashed, and keep systemd from starting it again. Containers and dnsmasq go on."""
    m.write("/run/systemd/system/incus.service.d/lab.conf", "[Service]\nRestart=no\n")
    m.run(
        """
        systemctl daemon-reload
        systemctl kill --kill-whom=main -s KILL incus.service
        # after the kill: stopping the socket first would stop the service in good order
        systemctl stop incus.socket
        for i in $(seq 50); do systemctl -q is-active incus.service || break; sleep 0.1; done
        """
    )


# An image whose inits hear the request to shut down (liblxc's halt signal is SIGPWR), or do not. Start one with
# -c raw.lxc=lxc.init.cmd=/sbin/polite; where it has a directory /mnt/trace, it writes there that it came down.
INITS = (
    IMAGE.replace(
        "cat >/tmp/img/metadata.yaml",
        r"""cat >/tmp/img/rootfs/sbin/polite <<'I'
#!/bin/sh
trap 'echo "down $(busybox hostname)" >>/mnt/trace/log; exit 0' PWR
while :; do sleep 100000 & wait $!; done
I
cat >/tmp/img/rootfs/sbin/deaf <<'I'
#!/bin/sh
trap '' PWR
while :; do sleep 100000; done
I
chmod 755 /tmp/img/rootfs/sbin/polite /tmp/img/rootfs/sbin/deaf
cat >/tmp/img/metadata.yaml""",
    )
    .replace("bb.tar", "inits.tar")
    .replace("--alias bb", "--alias inits")
)
