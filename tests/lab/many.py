"""One host on which all make containers: Incus, Docker, Podman, a containerd with a pod as a Kubernetes has them; and
the administrator, with things of every kind that look like theirs. For questions about whose a thing is."""

from __future__ import annotations

from lab import incus, microk8s, podman
from lab.machine import RECIPES, Machine
from lab.microk8s import Pod

ON_MANY = {"recipe": RECIPES["many-trixie"], "loop": True}
POD = Pod("shop-0", "/bin/httpd -f -p 80 -h /etc/www", "prod", "10.88.7.2", "cluster", 8070)
BATCH = Pod("batch", "/bin/sleep 1000040", "prod")  # in the host's network
ID = "f" * 64

ADMIN = r"""
set -x
echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad
# A bridge with a port; both ends of the pair are on the host, and have names as Docker and Incus give them.
ip link add br-lan type bridge
ip addr add 10.77.0.1/24 dev br-lan
ip link set br-lan up
ip link add vethdeadbeef type veth peer name veth0badcaf
ip link set vethdeadbeef master br-lan up
# A pair between two namespaces, of which one has a process of a service; and a namespace that nobody is in.
ip netns add left
ip netns add right
ip netns add empty
ip link add across0 netns left type veth peer name across1 netns right
ip -n left link set across0 up
ip -n right link set across1 up
systemd-run -q --unit=admin-netns -p NetworkNamespacePath=/run/netns/left sleep 1000001
# One end in such a namespace, the other a port of the bridge.
ip link add vethleft0 type veth peer name eth0 netns left
ip link set vethleft0 master br-lan up
ip link add ifbadmin0 type ifb
ip link add vxadmin type vxlan id 42 dev br-lan dstport 4789

mkdir -p /srv/data /srv/web /mnt/admin /mnt/bound /var/lib/docker-backup/overlay2 /etc/docker-mine
echo precious >/srv/data/file
echo page >/srv/web/index.html
mount -t tmpfs -o size=1m admin /mnt/admin
echo volatile >/mnt/admin/file
mount --bind /srv/data /mnt/bound
truncate -s 2M /srv/disk.img
losetup -f /srv/disk.img

nft -f - <<'N'
table inet admin {
    set friends { type ipv4_addr; elements = { 10.77.0.2 } }
    chain guard {
        type filter hook input priority 5; policy accept;
        ip saddr @friends accept comment "friends"
    }
}
N
iptables-nft -N ADMIN-IN
iptables-nft -A ADMIN-IN -p tcp --dport 22 -j ACCEPT
iptables-nft -A INPUT -i br-lan -j ADMIN-IN
ipset create admin-set hash:ip
iptables-nft -A ADMIN-IN -m set --match-set admin-set src -j RETURN
ip route add 10.79.0.0/24 dev br-lan table 100
ip rule add from 10.78.0.0/24 table 100

systemd-run -q --unit=admin-job sleep 1000002
systemd-run -q --unit=admin-shim bash -c \
    'exec -a "/usr/bin/containerd-shim-runc-v2 -namespace moby -id c1 -address /run/containerd/containerd.sock" \
    sleep 1000003'
for name in admin-jobs lxc.payload.mine; do
    mkdir /sys/fs/cgroup/$name
    setsid sh -c "echo \$\$ >/sys/fs/cgroup/$name/cgroup.procs; exec sleep 1000004" </dev/null >/dev/null 2>&1 &
done
systemd-run -q --unit=admin-socket busybox nc -l -k -s 127.0.0.1 -p 4711
sleep 0.3
"""

ROOTFS = r"""
mkdir -p /opt/rootfs/bin /opt/rootfs/proc /opt/rootfs/sys /opt/rootfs/dev /opt/rootfs/tmp /opt/rootfs/www
cp /bin/busybox /opt/rootfs/bin/
for tool in sh sleep httpd ls ip cat; do ln -sf busybox /opt/rootfs/bin/$tool; done
echo hello >/opt/rootfs/www/index.html
tar -C /opt/rootfs -cf /opt/image.tar .
rm -r /opt/rootfs
"""

INCUS = f"""
set -x
incus admin init --minimal
{incus.IMAGE}
incus -q launch bb c1
incus -q config device add c1 data disk source=/srv/data path=/mnt/data
incus -q config device add c1 web proxy listen=tcp:127.0.0.1:8060 connect=tcp:127.0.0.1:80
incus -q init bb c5
incus -q config device add c5 eth0 nic nictype=bridged parent=br-lan
incus -q start c5
incus -q init bb rests
"""
DOCKER = """
set -x
systemctl is-active docker || systemctl start docker
docker import /opt/image.tar bb >/dev/null
docker network create net2 --subnet 10.99.0.0/24 >/dev/null
docker run -d --name web -p 8080:80 -v /srv/web:/www bb httpd -f -h /www >/dev/null
docker run -d --name two --network net2 -v vol:/data bb sleep 1000101 >/dev/null
docker run -d --name host --network host bb sleep 1000102 >/dev/null
docker run -d --name shared --network container:web bb sleep 1000103 >/dev/null
docker create --name rests bb sleep 1 >/dev/null
iptables-nft -I DOCKER-USER -s 192.0.2.7 -j DROP
"""
PODMAN = """
set -x
mkdir -p /etc/containers
# This machine's cgroup controllers are not the host's: without a limit Podman needs none.
printf '[containers]\\npids_limit = 0\\n' >/etc/containers/containers.conf
podman import -q /opt/image.tar bb
podman network create n1
podman run -d --name cast --network n1 -p 8090:80 bb httpd -f -h /www
podman run -d --name plain bb sleep 1000201
"""


def admin_things(m: Machine) -> None:
    m.run(ADMIN)
    m.run(ROOTFS)


def install(m: Machine, *packages: str) -> None:
    m.run(["apt-get", "install", "-y", "-q", "--no-download", "--no-install-recommends", *packages], timeout=300)


def prepare(m: Machine) -> None:
    admin_things(m)
    incus.install(m)
    m.run(INCUS, timeout=180)
    install(m, "docker.io", "docker-cli", "containerd", "runc", "containernetworking-plugins")
    m.run(DOCKER, timeout=180)
    microk8s.make_image(m)
    script = f"set -x\nctr --namespace k8s.io images import /root/snaps/bb.tar >/dev/null\nip netns add {POD.netns}\n"
    script += microk8s.attach(POD, microk8s.bridge(POD.network, "cni0", "10.88.7.0/24"), "/usr/lib/cni") + "\n"
    script += microk8s.run_pod(POD, "/run/containerd/containerd.sock")
    script += microk8s.run_pod(BATCH, "/run/containerd/containerd.sock")
    m.run(script, timeout=180)
    install(m, "podman", "netavark", "aardvark-dns", "conmon")
    m.run(PODMAN, timeout=180)
    m.run(podman.ROOTLESS, timeout=180)
