"""explain and tree on hosts with real containers. One has everybody's on it, and things of the administrator's that
look like theirs: each answer is written down here, from what the products and the kernel say of themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab import hoststate, incus, many
from lab.machine import RECIPES, Machine
from lab.scenario import Arrive, leftovers

IN_USE, LEFT, KEPT, UNKNOWN = "in use", "left over", "kept", "unknown"
OURS = [r"^file /(run|var/lib|var/cache)/leftovers", r"^file /root/snaps"]

# Where what is asked about is on this host, by means of the products and of the kernel alone.
WHERE = r"""
set -u
inside() { nsenter -t "$1" -n ip -o link show eth0 | sed -n 's/^[0-9]*: eth0@if\([0-9]*\):.*/\1/p'; }
outer() { ip -o link | sed -n "s/^$(inside "$1"): \([^@:]*\).*/\1/p"; }
netns() { stat -L -c %i "/proc/$1/ns/net"; }
say() { printf '%s\t%s\n' "$1" "$2"; }
for name in web two host shared; do
    pid=$(docker inspect -f '{{.State.Pid}}' $name)
    say $name.pid "$pid"
    say $name.id "$(docker inspect -f '{{.Id}}' $name)"
    say $name.shim "$(ps -o ppid= -p "$pid" | tr -d ' ')"
    say $name.merged "$(docker inspect -f '{{.GraphDriver.Data.MergedDir}}' $name)"
done
for name in web two; do
    say $name.pin "$(docker inspect -f '{{.NetworkSettings.SandboxKey}}' $name | sed s:/var/run:/run:)"
    pid=$(docker inspect -f '{{.State.Pid}}' $name)
    say $name.veth "$(outer "$pid")"
    say $name.netns "$(netns "$pid")"
done
say net2 "br-$(docker network inspect -f '{{.Id}}' net2 | cut -c1-12)"
say proxy "$(pgrep -o docker-proxy)"
say dockerd "$(pgrep -xo dockerd)"
say volume "$(docker volume inspect -f '{{.Mountpoint}}' vol)"
for name in c1 c5; do
    pid=$(incus info $name | sed -n 's/^PID: //p')
    say $name.pid "$pid"
    say $name.monitor "$(ps -o ppid= -p "$pid" | tr -d ' ')"
    say $name.veth "$(incus config get $name volatile.eth0.host_name)"
    say $name.netns "$(netns "$pid")"
done
say forkproxy "$(pgrep -of 'forkproxy --')"
say dnsmasq "$(pgrep -of 'dnsmasq.*--interface=incusbr0')"
for name in cast plain; do
    pid=$(podman inspect -f '{{.State.Pid}}' $name)
    say $name.pid "$pid"
    say $name.id "$(podman inspect -f '{{.Id}}' $name)"
    say $name.conmon "$(podman inspect -f '{{.State.ConmonPid}}' $name)"
    say $name.veth "$(outer "$pid")"
    say $name.netns "$(netns "$pid")"
    say $name.pin "$(podman inspect -f '{{.NetworkSettings.SandboxKey}}' $name)"
done
for name in r1 r2; do
    say $name.pid "$(/opt/as-alice podman inspect -f '{{.State.Pid}}' $name)"
    say $name.id "$(/opt/as-alice podman inspect -f '{{.Id}}' $name)"
    say $name.conmon "$(/opt/as-alice podman inspect -f '{{.State.ConmonPid}}' $name)"
done
say r1.netns "$(netns "$(/opt/as-alice podman inspect -f '{{.State.Pid}}' r1)")"
say aardvark "$(pgrep -o -u root aardvark-dns)"
say shop.pid "$(ctr -n k8s.io tasks ls | awk -v id=SANDBOX '$1 == id {print $2}')"
say shop.httpd "$(ctr -n k8s.io tasks ls | awk -v id=CONTAINER '$1 == id {print $2}')"
say batch.pid "$(ctr -n k8s.io tasks ls | awk -v id=BATCH '$1 == id {print $2}')"
say shop.veth "$(outer "$(ctr -n k8s.io tasks ls | awk -v id=SANDBOX '$1 == id {print $2}')")"
say containerd "$(pgrep -xo containerd)"
say left "$(stat -L -c %i /run/netns/left)"
say right "$(stat -L -c %i /run/netns/right)"
say job "$(pgrep -of 'sleep 1000002')"
say fake "$(pgrep -of 'namespace moby -id c1 ')"
say mine "$(cat /sys/fs/cgroup/lxc.payload.mine/cgroup.procs | tail -n1)"
say home "$(stat -L -c %i /proc/1/ns/net)"
say loop "$(losetup -n -O NAME -j /srv/disk.img | head -n1)"
""".replace("SANDBOX", many.POD.sandbox)
WHERE = WHERE.replace("CONTAINER", many.POD.container).replace("BATCH", many.BATCH.container)

SHOP, BATCH = "prod/shop-0", "prod/batch"
# What is asked, with {names} of WHERE; whose it is; the container that it leads to; its state.
TABLE = (
    # Docker
    ("{web.veth}", "docker", "web", IN_USE),
    ("link:{two.veth}", "docker", "two", IN_USE),
    ("{web.netns}/eth0", "docker", "web", IN_USE),
    ("net:[{web.netns}]", "docker", "web", IN_USE),
    ("{two.netns}", "docker", "two", IN_USE),
    ("{web.pid}", "docker", "web", IN_USE),
    ("pid:{web.shim}", "docker", "web", IN_USE),
    ("process:{host.pid}", "docker", "host", IN_USE),
    ("{shared.pid}", "docker", "shared", IN_USE),
    ("{two.pin}", "docker", "two", IN_USE),
    ("{two.merged}", "docker", "two", IN_USE),
    ("{two.merged}/www/index.html", "docker", "two", IN_USE),
    ("/system.slice/docker-{two.id}.scope", "docker", "two", IN_USE),
    ("/sys/fs/cgroup/system.slice/docker-{web.id}.scope", "docker", "web", IN_USE),
    ("{web.id}", "docker", "web", IN_USE),
    ("two", "docker", "two", IN_USE),
    ("docker0", "docker", "", IN_USE),
    ("{net2}", "docker", "", IN_USE),
    ("nat/DOCKER", "docker", "", IN_USE),
    ("DOCKER-USER", "", "", KEPT),
    ("{proxy}", "docker", "", IN_USE),
    ("{dockerd}", "docker", "", IN_USE),
    ("docker.service", "docker", "", IN_USE),
    ("/run/docker.sock", "docker", "", IN_USE),
    ("{volume}", "docker", "", IN_USE),
    ("/usr/sbin/dockerd", "docker", "", IN_USE),
    # Incus
    ("{c1.veth}", "incus", "c1", IN_USE),
    ("{c5.veth}", "incus", "c5", IN_USE),
    ("{c1.netns}/eth0", "incus", "c1", IN_USE),
    ("{c1.netns}", "incus", "c1", IN_USE),
    ("{c1.pid}", "incus", "c1", IN_USE),
    ("{c5.monitor}", "incus", "c5", IN_USE),
    ("{forkproxy}", "incus", "c1", IN_USE),
    ("{dnsmasq}", "incus", "", IN_USE),
    ("/lxc.payload.c1", "incus", "c1", IN_USE),
    ("incusbr0", "incus", "", IN_USE),
    ("nft inet incus", "incus", "", IN_USE),
    ("/var/lib/incus/shmounts", "incus", "", IN_USE),
    ("/var/lib/incus/storage-pools/default", "incus", "", IN_USE),
    ("c5", "incus", "c5", IN_USE),
    ("incus.service", "incus", "", IN_USE),
    # Podman
    ("{cast.veth}", "podman", "cast", IN_USE),
    ("{plain.netns}/eth0", "podman", "plain", IN_USE),
    ("{cast.netns}", "podman", "cast", IN_USE),
    ("{cast.pin}", "podman", "cast", IN_USE),
    ("{plain.pid}", "podman", "plain", IN_USE),
    ("{cast.conmon}", "podman", "cast", IN_USE),
    ("cast", "podman", "cast", IN_USE),
    ("podman1", "podman", "", IN_USE),
    ("nft inet netavark", "podman", "", IN_USE),
    ("{aardvark}", "podman", "", IN_USE),
    # a user's own
    ("{r1.pid}", "podman@alice", "r1", IN_USE),
    ("{r2.conmon}", "podman@alice", "r2", IN_USE),
    ("{r2.id}", "podman@alice", "r2", IN_USE),
    ("net:[{r1.netns}]", "podman@alice", "r1", IN_USE),
    ("/home/alice/.local/share/containers/storage/overlay", "podman@alice", "", IN_USE),
    # a pod in containerd
    ("{shop.veth}", "containerd", SHOP, IN_USE),
    ("{shop.pid}", "containerd", SHOP, IN_USE),
    ("{shop.httpd}", "containerd", SHOP, IN_USE),
    ("{batch.pid}", "containerd", BATCH, IN_USE),
    (f"/run/netns/{many.POD.netns}", "containerd", SHOP, IN_USE),
    (f"/kubepods/besteffort/pod{many.POD.uid}", "containerd", SHOP, IN_USE),
    (many.POD.sandbox[:12], "containerd", SHOP, IN_USE),
    ("/var/lib/cni/networks/cluster/10.88.7.2", "containerd", SHOP, IN_USE),
    ("{containerd}", "containerd", "", IN_USE),
    # the administrator's
    ("vethdeadbeef", "", "", UNKNOWN),
    ("vethleft0", "", "", UNKNOWN),
    ("{left}/across0", "", "", UNKNOWN),
    ("right", "", "", UNKNOWN),
    ("empty", "", "", UNKNOWN),
    ("/run/netns/left", "", "", UNKNOWN),
    ("ifbadmin0", "", "", UNKNOWN),
    ("vxadmin", "", "", UNKNOWN),
    ("nft inet admin", "", "", UNKNOWN),
    ("guard", "", "", UNKNOWN),
    ("ADMIN-IN", "", "", UNKNOWN),
    ("ipset:admin-set", "", "", UNKNOWN),
    ("/mnt/admin", "", "", UNKNOWN),
    ("/mnt/admin/file", "", "", UNKNOWN),
    ("/mnt/bound", "", "", UNKNOWN),
    ("{loop}", "", "", UNKNOWN),
    ("/srv/disk.img", "", "", UNKNOWN),
    ("admin-job.service", "", "", UNKNOWN),
    ("{job}", "", "", UNKNOWN),
    ("{fake}", "", "", UNKNOWN),
    ("{mine}", "", "", UNKNOWN),
    ("/lxc.payload.mine", "", "", UNKNOWN),
    ("/var/lib/docker-backup/overlay2", "", "", UNKNOWN),
    ("/etc/docker-mine", "", "", UNKNOWN),
    ("/etc/passwd", "", "", UNKNOWN),
    ("1", "", "", UNKNOWN),
    # what is told by two words of one name, or is known to somebody, or is every host's
    ("net:[{home}]", "", "", KEPT),
    ("lo", "", "", KEPT),
    ("/srv/data", "", "", KEPT),
)


def where(m: Machine) -> dict[str, str]:
    lines = m.run(["bash", "-c", WHERE], timeout=120).out.splitlines()
    found = dict(line.split("\t", 1) for line in lines)
    assert all(found.values()), found
    return found


def explained(m: Machine, *asked: str) -> dict[str, list[dict[str, Any]]]:
    """The answers, by what was asked."""
    done = leftovers(m, "explain", "--json", *asked, code=None)
    document = json.loads(done.out)
    assert document["format_version"] and document["faults"] == [], document["faults"]
    found: dict[str, list[dict[str, Any]]] = {each: [] for each in asked}
    for answer in document["answers"]:
        found[answer["asked"]].append(answer)
    assert done.code == (0 if all(found.values()) else 1), done.err
    return found


def summed(answer: dict[str, Any]) -> tuple[str, str, str]:
    instance = answer["instance"]
    return answer["product"], instance["name"] if instance else "", answer["state"]


def filled(text: str, names: dict[str, str]) -> str:
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    assert "{" not in text, text
    return text


@pytest.mark.full
@pytest.mark.parametrize("machine", [many.ON_MANY], indirect=True)
def test_every_answer_is_right_and_none_is_guessed(machine: Machine, arrive: Arrive) -> None:
    many.prepare(machine)
    arrive(machine)
    before = machine.snapshot()
    names = where(machine)
    rows = [(filled(asked, names), *expected) for asked, *expected in TABLE]
    assert len(rows) >= 40 and len({row[0] for row in rows}) == len(rows)
    answers = explained(machine, *(row[0] for row in rows))
    wrong = [
        f"{asked}: {[(*summed(answer), answer['id'], answer['why']) for answer in answers[asked]]}, not {expected}"
        for asked, *expected in rows
        if not answers[asked] or any(summed(answer) != tuple(expected) for answer in answers[asked])
    ]
    assert wrong == [], "\n".join(wrong)

    # Whatever leads to a container says how; whatever is somebody's says what proves it.
    for asked, product, instance, _ in rows:
        for answer in answers[asked]:
            assert not product or answer["package"] or product == "lxcfs", answer
            assert not instance or answer["chain"][-1]["text"], answer
    chain = " ".join(said["text"] for said in answers[filled("{web.veth}", names)][0]["chain"])
    assert f"network namespace {names['web.netns']}" in chain and f"pid {names['web.pid']} (httpd)" in chain
    assert "that is web of Docker (image bb, created 20" in chain and "running" in chain
    (across,) = answers[filled("{left}/across0", names)]
    assert across["dependants"][0]["id"] == f"link:{names['right']}/across1"
    (bridge,) = answers["docker0"]
    assert f"link:{names['web.veth']}" in [each["id"] for each in bridge["dependants"]]

    # One name, several things: a container of each product, and an end of a link in each of two namespaces.
    both = explained(machine, "rests", "net:[1]", "vethnone", "/nowhere/at/all")
    assert sorted(answer["product"] for answer in both["rests"]) == ["docker", "incus"]
    assert both["net:[1]"] == both["vethnone"] == both["/nowhere/at/all"] == []

    # The tree has each object once, and nothing of the administrator's.
    tree = json.loads(leftovers(machine, "tree", "--json").out)["tree"]
    owners: dict[str, list[str]] = {}
    for trunk in tree:
        for instance in trunk["instances"]:
            for id in instance["objects"]:
                owners.setdefault(id, []).append(f"{trunk['product']}/{instance['name']}")
        for id in trunk["besides"]:
            owners.setdefault(id, []).append(trunk["product"])
    assert {id: names for id, names in owners.items() if len(names) > 1} == {}
    for asked, product, name, _ in rows:
        for answer in answers[asked]:
            if answer["kind"] not in ("path", "instance", "unit"):
                assert owners.get(answer["id"], [""])[0] == (f"{product}/{name}" if name else product), answer["id"]
    found = {trunk["product"]: {each["name"]: each["state"] for each in trunk["instances"]} for trunk in tree}
    assert found["docker"] == {
        "web": "running", "two": "running", "host": "running", "shared": "running", "rests": "created"
    }  # fmt: skip
    assert found["incus"] == {"c1": "running", "c5": "running", "rests": "stopped"}
    assert found["podman@alice"] == {"r1": "running", "r2": "running"}
    assert found["podman"] == {"cast": "running", "plain": "running"}
    assert found["containerd"] == {SHOP: "running", BATCH: "running"}
    said = leftovers(machine, "tree", "docker").out
    assert "web" in said and "shop-0" not in said and "incus" not in said

    # Looking has changed nothing; netavark's helper ends by itself when it has nothing to do.
    changes = hoststate.compare(before, machine.snapshot(), keep=OURS, lost=[r"netavark.dhcp-proxy"])
    assert hoststate.count(changes) == 0, hoststate.render(changes)

    # Docker is purged without us: what is left of it is left over, and the others' answers are what they were.
    machine.run("env LEFTOVERS_SUSPEND=1 apt-get purge -y -q docker.io docker-cli", timeout=300)
    after = explained(machine, "docker0", "nat/DOCKER", names["c1.veth"], names["cast.veth"], names["shop.veth"])
    for asked in ("docker0", "nat/DOCKER"):
        (answer,) = after[asked]
        assert summed(answer) == ("docker", "", LEFT) and answer["advice"] == "leftovers clean docker", answer
    for asked in (names["c1.veth"], names["cast.veth"], names["shop.veth"]):
        assert summed(after[asked][0]) == summed(answers[asked][0])


@pytest.mark.parametrize("machine", [{"recipe": RECIPES["incus-trixie"]}], indirect=True)
def test_a_veth_of_incus_and_one_of_the_administrator_s(machine: Machine, arrive: Arrive) -> None:
    """What an administrator sees who looks at a host for the first time."""
    machine.run(
        """
        ip link add vethdeadbeef type veth peer name veth0badcaf
        systemd-run -q --unit=admin-job sleep 1000002
        """
    )
    incus.install(machine)
    machine.run(f"incus admin init --minimal\n{incus.IMAGE}\nincus -q launch bb c1", timeout=180)
    arrive(machine)
    veth = machine.run("incus config get c1 volatile.eth0.host_name").out.strip()
    pid = machine.run("incus info c1 | sed -n 's/^PID: //p'").out.strip()
    netns = machine.run(f"stat -L -c %i /proc/{pid}/ns/net").out.strip()
    answers = explained(machine, veth, f"{netns}/eth0", pid, "incusbr0", "vethdeadbeef", "admin-job", "c1")
    for asked, *expected in (
        (veth, "incus", "c1", IN_USE),
        (f"{netns}/eth0", "incus", "c1", IN_USE),
        (pid, "incus", "c1", IN_USE),
        ("c1", "incus", "c1", IN_USE),
        ("incusbr0", "incus", "", IN_USE),
        ("vethdeadbeef", "", "", UNKNOWN),
        ("admin-job", "", "", UNKNOWN),
    ):
        assert [summed(answer) for answer in answers[asked]] == [tuple(expected)], asked
    said = leftovers(machine, "explain", veth).out
    assert f"eth0 is in network namespace {netns}" in said and "that is c1 of Incus (image bb" in said, said
    tree = leftovers(machine, "tree").out
    assert f"{veth} -> eth0" in tree and "incusbr0" in tree and "vethdeadbeef" not in tree, tree
    said = leftovers(machine, "explain", "no\x1bthing", code=1).err
    assert "\x1b" not in said and "no such object" in said
