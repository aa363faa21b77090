"""What Incus leaves only on a host with a kernel of its own (lab/guest.py): AppArmor's profiles and policy namespaces,
LVM, VLANs, tunnels, cgroup limits; and beside each what a careless cleaner takes for it."""

from __future__ import annotations

from lab import incus
from lab.machine import Machine

POLICY = "/sys/kernel/security/apparmor/policy"
# What the administrator has loaded: with names of the shape of Incus', but for other directories. The last is of an
# Incus of his own in /var/lib-incus: its namespace is called as that of /var/lib/incus.
PROFILES = (
    "admin-own",
    "incus-c1_</srv/other>",
    "incus_dnsmasq-incusbr0_</var/lib/incus-backup>",
    "xincus-c1_</var/lib/incus>",
    "incus-c1",
    "incus-old_</var/lib-incus>",
)
NAMESPACES = ("admin", "incus-c1_<srv-other>", "incus-old_<var-lib-incus>")

ADMIN = (
    incus.ADMIN
    + rf"""
# -- AppArmor
cat >/etc/apparmor.d/admin <<'P'
{chr(10).join(f'profile "{name}" {{ file, signal, network, capability, unix, }}' for name in PROFILES)}
P
apparmor_parser -a /etc/apparmor.d/admin
for n in {" ".join(f"'{name}'" for name in NAMESPACES)}; do mkdir "{POLICY}/namespaces/$n"; done
echo 'profile inside {{ file, signal, capability, }}' | apparmor_parser -n admin -a
systemd-run -q --unit=admin-confined aa-exec -p admin-own -- sleep 1000020
systemd-run -q --unit=admin-shaped aa-exec -p 'incus-c1_</srv/other>' -- sleep 1000021
systemd-run -q --unit=admin-namespace aa-exec -n admin -p inside -- sleep 1000022

# -- LVM: a group with a volume in use, on a loop device whose file has the name of a pool's; another without. Not in
# /srv: there a snapshot reads every byte.
mkdir -p /var/disks /mnt/vol
truncate -s 700M /var/disks/fast.img
truncate -s 100M /var/disks/idle.img
loop=$(losetup -f --show /var/disks/fast.img)
vgcreate -q -q admin "$loop"
vgcreate -q -q fast-old "$(losetup -f --show /var/disks/idle.img)"
lvcreate -q -q -y -n data -L 40M admin
lvcreate -q -q -y -n containers_mine -L 12M admin
mkfs.ext4 -q /dev/admin/data
mount /dev/admin/data /mnt/vol
echo keep >/mnt/vol/file

# -- links: of a card, VLANs; tunnels and dummies with names like those of a managed bridge
ip link set ens2 up
ip link add link ens2 name ens2.40 type vlan id 40      # given to a container (vlan=40): Incus finds it there
ip link add link ens2 name ens2.41 type vlan id 41
ip link add link br-lan name br-lan.30 type vlan id 30
ip link add gradmin type gretap local 10.77.0.1 remote 10.77.0.3
ip link add net2-mine type dummy
ip link add net2-gre type gretap local 10.77.0.1 remote 10.77.0.4
ip link add incusbr0-mtu type dummy                     # incusbr0 has no mtu of its own
udevadm settle
"""
)

USE = (
    r"""
set -x
incus admin init --minimal
"""
    + incus.IMAGE
    + r"""
incus -q network create net2 ipv4.address=10.99.0.1/24 ipv6.address=none bridge.mtu=1400 \
    tunnel.west.protocol=gre tunnel.west.local=10.77.0.1 tunnel.west.remote=10.77.0.2 \
    tunnel.east.protocol=vxlan tunnel.east.id=7 tunnel.east.local=10.77.0.1 tunnel.east.remote=10.77.0.2
incus -q network create cable --type=physical parent=ens2 vlan=32
incus -q storage create fast lvm size=1GiB volume.size=128MiB
incus -q storage create shared lvm source=admin lvm.vg.force_reuse=true lvm.use_thinpool=false volume.size=64MiB

# c1: in a thin pool on a loop device of Incus', with a proxy and limits
incus -q launch bb c1 --storage fast --network net2 -c limits.memory=64MiB -c limits.processes=100
incus -q config device add c1 web proxy listen=tcp:127.0.0.1:8080 connect=tcp:127.0.0.1:80
# c2: in the administrator's volume group; it may nest; on a VLAN that Incus makes, and on one of the administrator's
incus -q init bb c2 --storage shared -c security.privileged=true -c security.nesting=true
incus -q config device add c2 eth0 nic nictype=macvlan parent=ens2 vlan=30
incus -q config device add c2 eth1 nic nictype=macvlan parent=ens2 vlan=40
incus -q start c2
# p1: in a project, on a VLAN that Incus makes and moves into it
incus -q project create proj -c features.images=false -c features.profiles=false
incus -q init bb p1 --project proj
incus -q config device add p1 eth0 nic nictype=physical parent=ens2 vlan=31 --project proj
incus -q start p1 --project proj
# The administrator puts a link of his own on Incus' bridge.
ip link set net2-mine master net2
"""
)
RUNNING = ("c1", "c2", "proj_p1")


def admin_things(m: Machine) -> None:
    m.run(ADMIN)


def use(m: Machine) -> None:
    m.run(USE, timeout=180)
