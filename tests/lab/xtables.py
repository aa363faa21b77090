"""Incus and LXD on a host whose firewall is iptables: then their "xtables" driver writes rules into the tables that are
everybody's. They take it where there is no nft (internal/server/firewall/firewall_load.go, Incus 6.0 and LXD 5.0)."""

from __future__ import annotations

from lab.machine import Machine

# An administrator's firewall with names and comments of the shape of Incus'. BACKEND is iptables' own word for it.
ADMIN = r"""
set -x
for t in iptables ip6tables; do
    update-alternatives --set $t /usr/sbin/$t-BACKEND
    $t -N incus_nic_admin
    $t -A incus_nic_admin -i br-lan -j RETURN
    $t -A FORWARD -i br-lan -j incus_nic_admin
    $t -A FORWARD -i br-lan -m comment --comment "generated for Incus network br-lan by hand" -j ACCEPT
    $t -A INPUT -i br-lan -m comment --comment "generated for Incus container web (eth0), and mine" -j ACCEPT
    $t -A INPUT -i incusbr0 -p tcp --dport 53 -j ACCEPT
    $t -t nat -A POSTROUTING -o br-lan -m comment --comment "not generated for Incus network br-lan" -j MASQUERADE
done
# The kernel's bridges have one firewall for both of iptables' backends, where ebtables' own is not built any more.
ebtables -N incus_nic_admin
ebtables -A FORWARD -i vethdeadbeef -s '!' 00:16:3e:00:00:01 -j DROP
ebtables -A FORWARD -i vethdeadbeef -j incus_nic_admin
ebtables -A INPUT -i '!' vethdeadbeef -p ARP -j ACCEPT
# What an instance's IPv6 filter needs.
echo 1 >/proc/sys/net/bridge/bridge-nf-call-ip6tables
"""

# After lab/incus.py's: every rule that the driver knows (the priority of packets it does not).
USE = r"""
set -x
incus info | grep -q 'firewall: xtables'
incus -q network set incusbr0 ipv4.address=10.97.0.1/24 ipv6.address=fd42:77::1/64 ipv6.dhcp.stateful=true
incus -q network forward port add net2 192.0.2.10 tcp 8080 10.99.0.6 80
incus -q network acl rule add web egress action=drop protocol=udp destination_port=99
incus -q init bb f1
incus -q config device override f1 eth0 ipv4.address=10.97.0.21 ipv6.address=fd42:77::21 \
    security.mac_filtering=true security.ipv4_filtering=true security.ipv6_filtering=true
incus -q config device add f1 natted proxy nat=true listen=tcp:192.0.2.20:80 connect=tcp:10.97.0.21:80
incus -q config device add f1 natted6 proxy nat=true 'listen=tcp:[2001:db8::20]:80' 'connect=tcp:[fd42:77::21]:80'
incus -q start f1
incus -q init bb f2 --network net2
incus -q config device set f2 eth0 security.mac_filtering=true
incus -q start f2
incus -q init bb r1
incus -q config device add r1 eth0 nic nictype=routed ipv4.address=10.77.0.50
incus -q start r1
"""

# Tables and their own chains, which iptables makes when it is first asked for them, for everybody and for ever.
EMPTY = (
    r"nft (table|chain) (ip6?|bridge) (filter|nat|mangle|raw)( [A-Z]+)?$",
    r"xtables ip6?tables-(nft|legacy) (filter|nat|mangle|raw) :[A-Z]+ ACCEPT$",
)


def of_lxd(script: str) -> str:
    """The same with LXD's names."""
    script = script.replace("incus info", "lxc info").replace("incus -q", "lxc -q")
    return script.replace("Incus", "LXD").replace("incus", "lxd")


def hide(m: Machine, *names: str) -> None:
    """As on a host without the package of these programs of /usr/sbin."""
    for name in names:
        m.run(["mv", f"/usr/sbin/{name}", f"/opt/{name}"])


def show(m: Machine, *names: str) -> None:
    for name in names:
        m.run(["mv", f"/opt/{name}", f"/usr/sbin/{name}"])
