"""What network plugins leave of the kinds that only a kernel of its own has (lab/guest.py): IPVS, dummies, IPIP,
geneve, WireGuard, more types of sets; and beside each what a careless cleaner takes for it. Made by hand, with the
names, types and addresses that kube-proxy, Calico and Cilium give; the keepalived is a real one."""

from __future__ import annotations

from pathlib import Path

from lab.machine import TOOLS, Machine, Recipe

NETWORKS = Recipe(
    "guest-networks-trixie",
    "trixie",
    (
        *(tool for tool in TOOLS if not tool.startswith(("lib", "runit", "squashfs", "busybox"))),
        *("linux-image-cloud-amd64", "initramfs-tools", "kmod", "apparmor"),
        *("ipset", "ipvsadm", "keepalived", "bpftool"),
    ),
    (),
)
# Loaded before all: a module is the kernel's, and brings its own link (tunl0) and settings.
MODULES = "ip_vs ip_vs_rr ip_vs_sh ipip dummy geneve wireguard ip_set_hash_mac ip_set_hash_netnet"

ADMIN = f"""
for module in {MODULES}; do modprobe $module; done
ip link set ens2 up
ip address add 192.168.77.10/24 dev ens2

# -- IPVS: a keepalived's; and by hand, one by a mark, and one in the services' network on a dummy of his own
cat >/etc/keepalived/keepalived.conf <<'K'
virtual_server 192.168.77.10 80 {{
    lb_algo rr
    lb_kind NAT
    protocol TCP
    real_server 192.168.77.20 80 {{
        weight 1
    }}
}}
virtual_server 192.168.77.10 30090 {{
    lb_algo sh
    lb_kind DR
    protocol UDP
    real_server 192.168.77.20 53 {{
        weight 1
    }}
}}
K
systemctl start keepalived
ipvsadm -A -f 42 -s rr
ip link add kube-ipvs1 type dummy
ip address add 10.152.183.200/32 dev kube-ipvs1
ipvsadm -A -t 10.152.183.200:443 -s rr
ipvsadm -a -t 10.152.183.200:443 -r 192.168.77.20:443 -m

# -- links: a letter is other, or the type
ip link add ipvs0 type dummy
ip link add cilium_genev type geneve id 7 remote 192.168.77.30 dstport 6082
ip link add cilium_wg0 type dummy
ip link add wireguard.cal type wireguard
ip link add wg-v6.cali type bridge
ip link set wg-v6.cali addrgenmode none
ip link add tunl1 type ipip local 192.168.77.10 remote 192.168.77.31
ip address add 10.1.200.1/32 dev tunl1
ip link set tunl0 up
ip address add 192.168.99.1/32 dev tunl0
ip route add 10.1.99.0/24 via 192.168.77.20 dev ens2 proto static
ip rule add pref 99 not fwmark 0x100000/0x300000 lookup 1
ip rule add pref 98 not fwmark 0x100000/0x100000 lookup 1
ip route add 10.9.0.0/24 via 192.168.77.20 dev ens2 proto 80

# -- sets, rules; the snaps' directory is snapd's
mkdir /var/snap
for chain in INPUT FORWARD OUTPUT; do iptables -A $chain -s 192.0.2.1 -j RETURN; done
ipset create KUBE-mine hash:mac
ipset create cali-admin hash:net,net
ipset create admin list:set
"""

PLUGINS = """
set -x
mkdir -p /var/snap/microk8s/common/var/lib/kubelet
echo 7000 >/var/snap/microk8s/common/version

# -- kube-proxy, mode ipvs (pkg/proxy/ipvs): services with and without pods, and a node port on the host's addresses
ip link add kube-ipvs0 type dummy
for address in 10.152.183.1 10.152.183.10 10.152.183.77; do ip address add $address/32 dev kube-ipvs0; done
ip -6 address add fd98::1/128 dev kube-ipvs0
ipvsadm -A -t 10.152.183.1:443 -s rr -p 10800
ipvsadm -a -t 10.152.183.1:443 -r 192.168.77.10:16443 -m
ipvsadm -A -t 10.152.183.10:53 -s rr
ipvsadm -A -u 10.152.183.10:53 -s rr -o
ipvsadm -A -t '[fd98::1]:443' -s rr
ipvsadm -A --sctp-service 10.152.183.77:99 -s rr
ipvsadm -A -t 10.152.183.77:80 -s rr
for service in 10.152.183.77:80 192.168.77.10:30080 127.0.0.1:30080; do
    test $service = 10.152.183.77:80 || ipvsadm -A -t $service -s rr
    ipvsadm -a -t $service -r 10.1.64.2:80 -m
    ipvsadm -a -t $service -r 10.1.64.3:80 -m
done
for set in LOOP-BACK:hash:ip,port,ip CLUSTER-IP:hash:ip,port LOAD-BALANCER-SOURCE-CIDR:hash:ip,port,net; do
    ipset create KUBE-${set%%:*} ${set#*:}
done
ipset create KUBE-NODE-PORT-TCP bitmap:port range 0-65535
ipset create KUBE-6-CLUSTER-IP hash:ip,port family inet6
ipset add KUBE-CLUSTER-IP 10.152.183.1,tcp:443
iptables -N KUBE-SERVICES
iptables -A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT

# -- Calico: IPIP by the kernel's own link, WireGuard
ip address add 10.1.64.0/32 dev tunl0
ip route add 10.1.65.0/26 via 192.168.77.20 dev tunl0 onlink proto 80
ip route add 10.1.66.0/26 via 192.168.77.20 dev ens2 proto 80
ip route add blackhole 10.1.64.0/26 proto 80
ip link add wireguard.cali type wireguard
ip link set wireguard.cali up
ip rule add pref 99 not fwmark 0x100000/0x100000 lookup 1
ip route add 10.1.67.0/26 dev wireguard.cali table 1 proto 80
ipset create cali40all-ipam-pools hash:net
ipset create cali40this-host hash:ip

# -- Cilium
ip link add cilium_geneve type geneve external
ip link set cilium_geneve addrgenmode none up
ip link add cilium_host type veth peer name cilium_net
for option in -4 -6; do
    ip $option rule add from all lookup local pref 100 proto kernel
    ip $option rule delete pref 0
    ip $option rule add pref 9 fwmark 0x200/0xf00 lookup 2004 proto kernel
    ip $option route add local default dev lo table 2004 proto kernel
done
"""


# -- programs: an administrator's at the root cgroup and on his card; Cilium's, beside them
PROGRAMS = """
import os
from pathlib import Path
from programs import *
"""
ADMIN_PROGRAMS = (
    PROGRAMS
    + """
at_cgroup(make_program((18, 14, 1), "mine"), "/sys/fs/cgroup", MULTI, 14)
at_cgroup(make_program(CONNECT4, "cil_sock4_conne"), "/sys/fs/cgroup", MULTI)
at_tc(make_program(SCHED, "mine"), "ens2")
pin(make_map(), "/sys/fs/bpf/cilium2")
Path("/sys/fs/bpf/tc/globals").mkdir(parents=True)  # tc makes it
"""
)
CILIUM_PROGRAMS = (
    PROGRAMS
    + """
used = make_map()
Path("/sys/fs/bpf/cilium/socketlb/links/cgroup").mkdir(parents=True)
at_cgroup(make_program(CONNECT4, "cil_sock4_conne", uses=used), "/sys/fs/cgroup", MULTI)
at_tc(make_program(SCHED, "cil_from_netdev", uses=used), "ens2", "ingress", "pref", "2")
group = os.open("/sys/fs/cgroup", os.O_RDONLY)
pin(link(make_program((18, 11, 1), "cil_sock6_conne"), group, 11), "/sys/fs/bpf/cilium/socketlb/links/cgroup/cil_sock6")
pin(link(make_program(TCX_INGRESS, "cil_from_netdev", uses=used), index("ens2"), 46), "/sys/fs/bpf/cilium/tcx")
pin(used, "/sys/fs/bpf/tc/globals/cilium_lb4_services_v2")
pin(make_map(PROG_ARRAY), "/sys/fs/bpf/tc/globals/cilium_calls_hostns_02")
"""
)
TOP = Path(__file__).resolve().parents[2]


def python(m: Machine, program: str) -> None:
    """Run a program that needs kernel/programs.py. Nothing of it stays in the host."""
    for path, name in (
        ("tests/kernel/programs.py", ""),
        ("tests/kernel/sandbox.py", ""),
        ("src/leftovers/syscalls.py", "leftovers/"),
    ):
        m.write(f"/run/programs/{name}{Path(path).name}", (TOP / path).read_text())
    m.run(["env", "PYTHONPATH=/run/programs", "PYTHONDONTWRITEBYTECODE=1", "/usr/bin/python3", "-c", program])
    m.run(["rm", "-r", "/run/programs"])


def admin_things(m: Machine) -> None:
    m.run(ADMIN)
    python(m, ADMIN_PROGRAMS)


def use(m: Machine) -> None:
    m.run(PLUGINS)
    python(m, CILIUM_PROGRAMS)


def state(m: Machine) -> dict[str, str]:
    """What of these kinds there is, as their own tools tell it."""
    commands = (
        "ipvsadm -S -n",
        "ip -o -d link | sed 's/^[0-9]*: //'",
        "ip -o address | sed 's/^[0-9]*: //'",
        "ip rule; ip -6 rule",
        "ip route show table all; ip -6 route show table all",
        "ipset save",
        "bpftool cgroup show /sys/fs/cgroup",
        "bpftool net show",
        "find /sys/fs/bpf",
    )
    return {command: "\n".join(sorted(m.run(command).out.splitlines())) for command in commands}
