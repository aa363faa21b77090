"""Who else may live on a host with Incus: LXC's own containers on lxcbr0, which have the names that Incus gives, and
use the same liblxc and the same lxcfs; and libvirt's network with a guest's port. Recipe "neighbours-trixie" has LXC
and libvirt (without QEMU) from the start."""

from __future__ import annotations

from lab.machine import Machine

LXCFS = r"""
systemctl daemon-reload
apt-get install -y -q --no-download --no-install-recommends lxcfs
systemctl start lxcfs
"""

# c3 is unprivileged, with the range of ids that Incus then finds and takes too.
LXC = r"""
grep -q ^root: /etc/subuid || usermod --add-subuids 200000-265535 --add-subgids 200000-265535 root
for n in c1 c2 c3; do
    r=/var/lib/lxc/$n/rootfs
    mkdir -p $r/bin $r/sbin $r/etc $r/proc $r/sys $r/dev $r/tmp $r/root $r/run $r/var $r/www
    cp /bin/busybox $r/bin/
    for a in sh ls cat sleep ip ps kill mount httpd ping; do ln -s busybox $r/bin/$a; done
    ln -s ../bin/busybox $r/sbin/init
    printf '::sysinit:/bin/busybox ifconfig lo up\n::respawn:/bin/httpd -f -p 80 -h /www\n' >$r/etc/inittab
    echo lxc $n >$r/www/index.html
    cat >/var/lib/lxc/$n/config <<C
lxc.include = /usr/share/lxc/config/common.conf
lxc.uts.name = $n
lxc.rootfs.path = dir:$r
lxc.init.cmd = /sbin/init
lxc.apparmor.profile = unconfined
lxc.net.0.type = veth
lxc.net.0.link = lxcbr0
lxc.net.0.flags = up
lxc.net.0.ipv4.address = 10.0.3.1${n#c}/24
C
done
cat >>/var/lib/lxc/c3/config <<C
lxc.include = /usr/share/lxc/config/userns.conf
lxc.idmap = u 0 200000 65536
lxc.idmap = g 0 200000 65536
C
chown -R 200000:200000 /var/lib/lxc/c3/rootfs
chmod 755 /var/lib/lxc /var/lib/lxc/c3
for n in c1 c2 c3; do lxc-start -n $n; lxc-wait -n $n -s RUNNING; done
"""

# The network is the real one; the guest is a process that holds a tap, as QEMU does.
LIBVIRT = r"""
virsh -q -c network:///system net-start default
cat >/srv/guest.py <<'P'
import fcntl, signal, struct
tap = open("/dev/net/tun", "r+b", buffering=0)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH14x", b"vnet0", 0x1002))
signal.pause()
P
systemd-run -q --unit=guest bash -c 'exec -a /usr/bin/qemu-system-x86_64 python3 /srv/guest.py -name guest=vm1'
for i in $(seq 100); do ip link show vnet0 >/dev/null 2>&1 && break; sleep 0.05; done
ip link set vnet0 master virbr0 up
"""


def without_condition(m: Machine) -> None:
    """Debian's unit does not start lxcfs in a container, and to systemd this host is one."""
    m.write("/run/systemd/system/lxcfs.service.d/lab.conf", "[Unit]\nConditionVirtualization=\n")


def lxcfs(m: Machine) -> None:
    without_condition(m)
    m.run(LXCFS)


def lxc(m: Machine) -> None:
    m.run(LXC)
    for n in (1, 2, 3):  # until their httpd is there
        m.run(f"for i in $(seq 100); do busybox wget -T 1 -qO- http://10.0.3.1{n}/ && break; sleep 0.1; done")


def libvirt(m: Machine) -> None:
    m.run(LIBVIRT)


def lxc_works(m: Machine) -> None:
    """LXC's containers answer the host and each other, and read what lxcfs shows them."""
    for n in (1, 2, 3):
        assert m.run(f"busybox wget -T 5 -qO- http://10.0.3.1{n}/").out == f"lxc c{n}\n"
        m.run(f"ping -c 1 -W 5 10.0.3.1{n}")
        other = n % 3 + 1
        inside = f"busybox wget -T 5 -qO- http://10.0.3.1{other}/ && cat /proc/meminfo >/dev/null"
        assert m.run(f"lxc-attach -n c{n} -- sh -c '{inside}'").out == f"lxc c{other}\n"
        assert "lxcfs /proc/meminfo" in m.run(f"lxc-attach -n c{n} -- cat /proc/mounts").out
