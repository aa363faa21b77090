"""Kinds of network plugins that only a kernel of its own has: what MicroK8s' leave goes, what is like it stays."""

from __future__ import annotations

import pytest

from lab import guest_networks
from lab.guest import Guest
from lab.scenario import KEPT, Arrive, document, leftovers, same

pytestmark = pytest.mark.full
# kube-proxy's, as ipvsadm -D takes them.
SERVERS = {
    *("-t 10.152.183.1:443", "-t 10.152.183.10:53", "-u 10.152.183.10:53", "-t [fd98::1]:443", "-t 10.152.183.77:80"),
    *("--sctp-service 10.152.183.77:99", "-t 192.168.77.10:30080", "-t 127.0.0.1:30080"),
}


def test_all_goes_and_what_is_like_it_stays(arrive: Arrive) -> None:
    with Guest(guest_networks.NETWORKS) as m:
        guest_networks.admin_things(m)
        m.run("until ipvsadm -S -n | grep -q 192.168.77.10:30090; do sleep 0.1; done")
        before = guest_networks.state(m)
        whole = m.snapshot()
        guest_networks.use(m)
        assert not [command for command, said in guest_networks.state(m).items() if said == before[command]]
        arrive(m)

        # Another's kubelet may have made all of it.
        m.run("cp /bin/sleep /srv/kubelet; systemd-run -q --unit=other /srv/kubelet 1000050")
        used = guest_networks.state(m)
        leftovers(m, "clean", "microk8s", "--yes")
        assert guest_networks.state(m) == used
        m.run("systemctl stop other; rm /srv/kubelet; mkdir -p /var/snap/microk8s/common")

        planned = {each["id"]: each for each in document(m, "plan", "microk8s")}
        going = {
            id.partition(":")[2] for id, each in planned.items() if each["action"] == "remove" and id[:5] == "ipvs:"
        }
        assert going == SERVERS
        # Of what is attached, an administrator's has a name of Cilium's, and uses no map of its.
        attached = {id: each for id, each in planned.items() if id.startswith(("bpf:cgroup", "bpf:tc"))}
        assert sorted(each["action"] for each in attached.values()) == ["keep", "remove", "remove"], attached
        said = leftovers(m, "clean", "microk8s", "--yes")
        after = guest_networks.state(m)
        assert after == before, said.out + said.err
        assert m.run("systemctl is-active keepalived").out == "active\n"
        leftovers(m, "verify", "microk8s")
        # To list a firewall's rules loads modules.
        own = r"(file /etc/systemd/system/.*|unit )leftovers-snaps\.(path|service)$"
        same(m, whole, keep=[*KEPT, "module ", own], said=said.out)
