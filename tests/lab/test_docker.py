"""Docker of Debian: installed, used and purged on a real host, then compared with the host before.

Whether anything is left, lost or changed is hoststate.py's to say, which shares no code with leftovers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from lab import docker, hoststate
from lab.docker import ON_SID, ON_TRIXIE
from lab.machine import Machine
from lab.scenario import CHANGED, LEFT, Arrive, document, leftovers
from lab.test_triggers import lines, say

ALL = " ".join(docker.PACKAGES)
# What may stay on the host, and why.
KEPT = (
    r"account group docker$",  # somebody may have come to use it
    r"file /(etc(/apt/apt\.conf\.d/50|/dpkg/dpkg\.cfg\.d/|/)|(run|var/lib|var/cache)/)leftovers(/.*)?$",  # our own
    r"(file /etc/systemd/system/multi-user\.target\.wants/|unit )leftovers-snaps\.(path|service)$",
    r"file /run/runit(/supervise)?$",
    r"file /root/\.docker(/.*)?$",  # of the command `docker`, a person's
    # What stood before is not known; it is told, with the command that takes it back.
    r"xtables ip6?tables-(nft|legacy) filter :FORWARD DROP$",
    # Of a bridge that the administrator gave Docker he may have the very same rules.
    r"xtables iptables-nft filter -A FORWARD (-i br-lan( !)? -o br-lan|-o br-lan -m conntrack .*) -j ACCEPT$",
    r"xtables iptables-nft nat -A POSTROUTING -s 10\.77\.0\.0/24 ! -o br-lan -j MASQUERADE$",
    r'nft rule ip (filter FORWARD|nat POSTROUTING): .*"br-lan".*',
    # Of the tools iptables-nft and ip6tables-nft: what they make for any rule stays, empty.
    r"nft (chain|table) ip6? (nat|raw|filter)( (PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING))?$",
    r"xtables ip6?tables-(nft|legacy) (nat|raw|filter) :[A-Z]+ ACCEPT$",
)
POLICY = r'nft chain ip6? filter FORWARD: policy "accept" -> "drop"$'
LOST = (r"xtables ip6?tables-(nft|legacy) filter :FORWARD ACCEPT$",)
SUMMARY = r"^leftovers: Docker: [1-9]\d* gone in [\d.]+ s \(.*nothing is left$"
STORE = r"file /var/lib/docker$"
# Docker's --data-root where a test has it elsewhere.
PLACE = "/srv/big"


def same(m: Machine, before: dict[str, Any], said: str = "", left: Sequence[str] = ()) -> None:
    """Nothing is left but what is documented, nothing of the administrator's is lost or changed."""
    found = hoststate.compare(
        before,
        m.snapshot(),
        keep=[f"^{each}" for each in (*KEPT, *left)],
        changed=[f"^{each}" for each in (*CHANGED, POLICY)],
        lost=[f"^{each}" for each in LOST],
    )
    assert hoststate.count(found) == 0, f"\n{hoststate.render(found)}\n{said}"


def lived(m: Machine, config: str = "") -> dict[str, Any]:
    """The administrator's things, then Docker, installed and used. Returns the host as it was before Docker."""
    docker.admin_things(m)
    if config:
        m.write("/etc/docker/daemon.json", config)
    before = m.snapshot()
    docker.install(m)
    docker.use(m)
    return before


def clean(m: Machine, before: dict[str, Any], left: Sequence[str] = (), data: bool = False) -> None:
    """`clean` leaves the host as it was, `verify` agrees, and a second one has nothing to do."""
    words = ["clean", "docker", "containerd", "--yes", *(["--data"] if data else [])]
    said = leftovers(m, *words)
    same(m, before, said.out + said.err, left)
    leftovers(m, "verify", "docker", "containerd")
    assert [o["id"] for o in document(m, "plan", "docker", "containerd") if o["action"] != "keep"] == []


@pytest.mark.parametrize("machine", [ON_TRIXIE], indirect=True)
def test_apt_purge(machine: Machine, arrive: Arrive) -> None:
    arrive(machine)
    before = lived(machine)
    done = machine.run(["apt-get", "purge", "-q", *docker.PACKAGES], input="y\n", timeout=300)
    said = done.out + done.err
    same(machine, before, said)
    ends = r"^leftovers: docker\.io: this ends 8 running instances and 4 networks of Docker; its own purge deletes "
    assert len(lines(said, ends + r"/var/lib/docker, [0-9.]+ [kM]B")) == 1, said
    assert lines(said, r"^leftovers: containerd: this ends") == [], said  # what is in it is Docker's
    assert len(lines(said, SUMMARY)) == 1, said
    leftovers(machine, "verify")
    # The administrator's files that were in volumes and in containers.
    assert machine.read("/srv/bound/file") == "precious\n" and machine.read("/srv/web/index.html") == "page\n"
    policy = [o for o in document(machine, "scan", "docker") if o["id"].endswith("-P FORWARD DROP")]
    assert len(policy) == 1 and policy[0]["advice"] == "iptables-nft -P FORWARD ACCEPT"
    machine.run(policy[0]["advice"])
    assert ":FORWARD ACCEPT" in machine.run("iptables-nft-save -t filter").out


@pytest.mark.full
@pytest.mark.parametrize("machine", [ON_SID], indirect=True)
def test_apt_purge_keeps_data_as_its_own_does(machine: Machine, arrive: Arrive) -> None:
    """In sid docker.io asks whether data is to go, and the default is no: it is named, with its size."""
    arrive(machine)
    before = lived(machine)
    said = say(machine, f"apt-get purge -y -q {ALL}")
    same(machine, before, said, left=[r"file /var/lib/docker(/.*)?$"])
    assert len(lines(said, r"; kept: /var/lib/docker, [0-9.]+ [kM]B \(")) == 1, said
    machine.run("test -d /var/lib/docker/overlay2")
    leftovers(machine, "verify")
    clean(machine, before, data=True)


@pytest.mark.full
@pytest.mark.parametrize("machine", [ON_TRIXIE, ON_SID], indirect=True, ids=["trixie", "sid"])
def test_purged_without_us(machine: Machine, arrive: Arrive) -> None:
    """Docker's own scripts stop the containers, and leave its network. Without its store nobody says any more who made
    a bridge to which a user has given a name."""
    before = lived(machine)
    docker.purge(machine)
    stays = machine.run("test -d /var/lib/docker/network", check=False).code == 0
    arrive(machine)
    purged = machine.snapshot()
    assert len(hoststate.compare(before, purged, keep=KEPT)["left"]) > 50
    leftovers(machine, "verify", "docker", code=LEFT)
    left = [r"file /var/lib/docker(/.*)?$"] if stays else [r".*\bmybr0\b.*"]
    clean(machine, before, left)
    if stays:
        clean(machine, before, data=True)


@pytest.mark.full
@pytest.mark.parametrize("machine", [ON_TRIXIE, ON_SID], indirect=True, ids=["trixie", "sid"])
@pytest.mark.parametrize("ours", [True, False], ids=["with us", "without us"])
def test_live_restore_with_the_daemon_killed(machine: Machine, arrive: Arrive, ours: bool) -> None:
    """Shims and containers outlive both daemons."""
    if ours:
        arrive(machine)
    before = lived(machine, '{"live-restore": true}')
    docker.kill_daemon(machine, "docker", "containerd")
    said = ""
    if ours:
        said = say(machine, f"apt-get purge -y -q {ALL}")
    else:
        docker.purge(machine)
        assert "containerd-shim" in machine.run("ps -eo args").out
        arrive(machine)
    left = [r"file /etc/docker(/daemon\.json)?$", r"file /var/lib/docker(/.*)?$"]
    stays = machine.run("test -d /var/lib/docker/network", check=False).code == 0
    if not ours:
        clean(machine, before, left if stays else [*left, r".*\bmybr0\b.*"])
    same(machine, before, said, left if stays or ours else [*left, r".*\bmybr0\b.*"])
    leftovers(machine, "verify", "docker", "containerd")
    assert machine.read("/srv/bound/file") == "precious\n"


@pytest.mark.full
@pytest.mark.parametrize("machine", [ON_TRIXIE], indirect=True)
def test_data_elsewhere_on_its_own_disk(machine: Machine, arrive: Arrive) -> None:
    """What docker.io's postrm never finds is kept and named; with --data it goes, and the mount point stays."""
    arrive(machine)
    machine.run(f"mkdir {PLACE}; mount -t tmpfs -o size=200m,mode=710 big {PLACE}")
    before = lived(machine, f'{{"data-root": "{PLACE}"}}')
    said = say(machine, f"apt-get purge -y -q {ALL}")
    assert len(lines(said, rf"; kept: {PLACE}, [0-9.]+ [kM]B \(")) == 1, said
    same(machine, before, said, left=[rf"file {PLACE}/.*"])
    machine.run(f"test -d {PLACE}/overlay2")
    clean(machine, before, data=True)
    assert machine.run(f"ls -A {PLACE}; mountpoint {PLACE}").out == f"{PLACE} is a mountpoint\n"


@pytest.mark.full
@pytest.mark.parametrize("machine", [ON_TRIXIE], indirect=True)
@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_the_user_s_own_rules_for_docker(machine: Machine, arrive: Arrive, backend: str) -> None:
    """What is in DOCKER-USER is the administrator's, and so are the chain and the jump to it."""
    arrive(machine)
    machine.run(f"update-alternatives --set iptables /usr/sbin/iptables-{backend}")
    machine.run(f"update-alternatives --set ip6tables /usr/sbin/ip6tables-{backend}")
    before = machine.snapshot()
    docker.install(machine)
    machine.run(docker.IMAGE + "docker run -d --name web -p 8080:80 bb httpd -f -h /www")
    machine.run(f"iptables-{backend} -I DOCKER-USER -s 192.0.2.0/24 -m comment --comment mine -j DROP")
    assert "172.17.0.2" in machine.run(f"iptables-{backend}-save").out
    said = say(machine, f"apt-get purge -y -q {ALL}")
    saved = machine.run(f"iptables-{backend}-save").out
    rules = [line for line in saved.splitlines() if line.startswith("-A") or re.match(":DOCKER", line)]
    mine = "-A DOCKER-USER -s 192.0.2.0/24 -m comment --comment mine -j DROP"
    expected = [":DOCKER-USER - [0:0]", "-A FORWARD -j DOCKER-USER", mine, "-A DOCKER-USER -j RETURN"]
    assert [re.sub(r"\[.*", "[0:0]", rule) for rule in rules] == expected, saved
    same(machine, before, said, left=[r".*DOCKER-USER.*", rf"(nft|xtables) .*{backend}? .*DOCKER-USER.*", r"nft .*"])


# -- another package of the same product ----------------------------------------------------------------------------

REPLACE = r"""
mkdir -p /tmp/ce/DEBIAN /tmp/ce/usr/bin /tmp/ce/usr/lib/systemd/system
cp -a /usr/sbin/dockerd /usr/sbin/docker-proxy /tmp/ce/usr/bin/
sed 's|/usr/sbin/dockerd|/usr/bin/dockerd|' /usr/lib/systemd/system/docker.service \
    >/tmp/ce/usr/lib/systemd/system/docker.service
cp /usr/lib/systemd/system/docker.socket /tmp/ce/usr/lib/systemd/system/
cat >/tmp/ce/DEBIAN/control <<'C'
Package: docker-ce
Version: 5:29.0.0-1
Architecture: amd64
Maintainer: Nobody <nobody@example.invalid>
Conflicts: docker.io
Replaces: docker.io
Description: made by a test
C
printf '#!/bin/sh\nsystemctl daemon-reload\nsystemctl start docker.service\n' >/tmp/ce/DEBIAN/postinst
printf '#!/bin/sh\n[ "$1" != remove ] || systemctl stop docker.service docker.socket\n' >/tmp/ce/DEBIAN/prerm
chmod 755 /tmp/ce/DEBIAN/postinst /tmp/ce/DEBIAN/prerm
dpkg-deb -Znone -b /tmp/ce /tmp/docker-ce.deb >/dev/null
rm -r /tmp/ce
"""
PIDS = "docker inspect -f '{{.Name}} {{.State.Pid}}' $(docker ps -q) | sort"


@pytest.mark.full
@pytest.mark.parametrize("machine", [ON_TRIXIE], indirect=True)
@pytest.mark.parametrize("live", [True, False], ids=["live-restore", "plain"])
@pytest.mark.parametrize("tool", ["apt-get install -y -q", "dpkg -i --auto-deconfigure -B"], ids=["apt", "dpkg"])
def test_replaced_by_another_package(machine: Machine, arrive: Arrive, live: bool, tool: str) -> None:
    """docker.io to docker-ce is no removal: nothing is removed, and with live-restore all runs on."""
    arrive(machine)
    before = lived(machine, '{"live-restore": true}' if live else "")
    machine.run(REPLACE)
    pids = machine.run(PIDS).out
    assert pids.count("\n") == 8
    links = machine.run("ls /sys/class/net").out.split()
    said = say(machine, f"{tool} /tmp/docker-ce.deb")
    assert lines(said) == [], said
    assert "docker-ce" in machine.run("dpkg-query -S /usr/bin/dockerd").out
    machine.run("systemctl is-active docker && docker version >/dev/null")
    if live:
        assert machine.run(PIDS).out == pids
    here = machine.run("ls /sys/class/net").out.split()
    assert {link for link in links if not link.startswith("veth")} <= set(here)
    assert len(machine.run("docker ps -aq").out.split()) == 10
    # And it is Docker still: it goes with that package.
    machine.run("rm /tmp/docker-ce.deb")
    said = say(machine, "apt-get purge -y -q docker-ce docker.io docker-cli containerd runc")
    left = [r"file /etc/docker(/daemon\.json)?$", r"file /var/lib/docker(/.*)?$"]
    same(machine, before, said, left)
    leftovers(machine, "verify", "docker", "containerd")
