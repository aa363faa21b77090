"""Incus 7 on a throwaway host: the scenario of Incus (lab/incus.py), and what only 7 has or does."""

from __future__ import annotations

from lab import incus
from lab.machine import Machine

PACKAGES = incus.PACKAGES

# A second card of the administrator's, lent to a network of type physical.
CARD = """
ip link add vethphys2 type veth peer name vethphys3
ip link set vethphys3 addrgenmode none
ip link set vethphys3 up
"""

# An application container: a config.json of the OCI runtime beside the root file system is what makes it one
# (internal/server/instance/drivers/driver_lxc.go, startCommon). Incus runs its DHCP client (`forknet dhcp`).
APPLICATION = r"""
mkdir -p /tmp/app/rootfs/bin /tmp/app/rootfs/etc /tmp/app/rootfs/proc /tmp/app/rootfs/sys /tmp/app/rootfs/dev \
    /tmp/app/rootfs/tmp /tmp/app/rootfs/run
cp /bin/busybox /tmp/app/rootfs/bin/busybox
ln -s busybox /tmp/app/rootfs/bin/sleep
cat >/tmp/app/metadata.yaml <<'I'
architecture: x86_64
creation_date: 1700000000
properties: {description: app, os: busybox, type: oci}
I
cat >/tmp/app/config.json <<'I'
{"ociVersion": "1.0.0", "hostname": "app", "root": {"path": "rootfs"}, "linux": {}, "process": {"user": {"uid": 0,
 "gid": 0}, "args": ["/bin/sleep", "1000000"], "env": ["PATH=/bin"], "cwd": "/"}}
I
tar -C /tmp/app -cf /tmp/app.tar metadata.yaml config.json rootfs
incus -q image import /tmp/app.tar --alias app
rm -r /tmp/app /tmp/app.tar
"""

USE = (
    # 7 takes one path alone for the device's name
    incus.USE.replace("attach pool2 vol c4 /mnt/vol", "attach pool2 vol c4 vol /mnt/vol")
    + r"""
# phy: a network of type physical whose parent is a bridge (a veth of Incus' own, a port on it); card: one whose parent
# is a card (the card itself)
incus -q network create lan --type=physical parent=br-lan
incus -q init bb phy --network lan
incus -q start phy
incus -q network create wire --type=physical parent=vethphys2
incus -q init bb card --network wire
incus -q start card
incus -q network address-set create friends
incus -q network address-set add friends 10.9.9.9
incus -q network acl rule add web ingress action=allow source='$friends'
# own: a lxcfs of its own; app: that, and a DHCP client of Incus'
incus -q config set instances.lxcfs.per_instance=true
incus -q launch bb own
"""
    + APPLICATION
    + r"""
incus -q launch app app
for i in $(seq 100); do pgrep -f '/exe forknet dhcp ' >/dev/null && break; sleep 0.05; done
pgrep -f '/exe forknet dhcp ' && pgrep -f 'lxcfs -f -p /run/incus/own/'
"""
)

RUNNING = (*incus.RUNNING, "phy", "card", "own", "app")


def admin_things(m: Machine) -> None:
    incus.admin_things(m)
    m.run(CARD)


def use(m: Machine) -> None:
    m.run(USE, timeout=180)
