"""What the stand-in of MicroK8s makes on a host, and what snapd's own removal leaves of it without us: the controls
that make the tests of our own part mean something."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from lab import hoststate, microk8s, snap
from lab.machine import RECIPES, Machine
from lab.microk8s import COMMON, CONTROLLERS, COREDNS, NODE, OTHER, PODS, PRECIOUS, SOCKET, WEB

TRIXIE = pytest.param({"recipe": RECIPES["snapd-trixie"]}, id="trixie")
SID = pytest.param({"recipe": RECIPES["snapd-sid"]}, id="sid")
on_trixie = pytest.mark.parametrize("machine", [TRIXIE], indirect=True)
on_both = pytest.mark.parametrize("machine", [TRIXIE, SID], indirect=True)
CONTAINERS = "pgrep -x 'pause|coredns|kube-controller|runsvdir' | sort"
SHIMS = f"pgrep -f -- 'containerd-shim-runc-v2 -namespace .* -address {SOCKET}$' | sort"


def lived(m: Machine, **how: Any) -> dict[str, Any]:
    """The administrator's things, then MicroK8s, installed and used. Returns the host as it was before MicroK8s."""
    microk8s.admin_things(m)
    before = m.snapshot()
    microk8s.install(m, **how)
    microk8s.use(m)
    return before


def found(before: dict[str, Any], after: dict[str, Any], kept: str = "file /root/snaps/") -> dict[str, list[str]]:
    return hoststate.compare(before, after, keep=[kept], changed=[kept])


def kinds(lines: list[str]) -> Counter[str]:
    return Counter(line.split(" ")[0] for line in lines)


def intact(m: Machine) -> list[str]:
    """The administrator's files in the pods' volumes that are still there."""
    return [path for path in PRECIOUS if m.run(["test", "-e", path], check=False).code == 0]


def notes(m: Machine) -> str:
    """What `snap list` notes of MicroK8s; nothing when it is not there."""
    said = re.search(r"(?m)^microk8s .* (\S+)$", m.run("snap list").out)
    return said[1] if said else ""


@pytest.mark.full
@on_trixie
def test_the_stand_in(machine: Machine) -> None:
    """It makes what MicroK8s makes, under names that can be computed, and changes nothing of the administrator's."""
    before = lived(machine)
    used = machine.snapshot()
    difference = found(before, used)
    assert difference["lost"] == difference["changed"] == difference["unreadable"] == []
    left = difference["left"]
    everything = "\n".join(left)
    for pod in PODS:
        assert f"file /run/containerd/s/{microk8s.shim_socket(SOCKET, 'k8s.io', pod.sandbox)}\n" in everything
        assert f"-namespace k8s.io -id {pod.sandbox} -address {SOCKET} exe=/snap/microk8s/x1/bin/" in everything
        assert f"file /run/containerd/runc/k8s.io/{pod.container}/state.json" in everything
        for container in (pod.sandbox, pod.container):
            assert f"cgroup /kubepods/besteffort/pod{pod.uid}/{container}\n" in everything
            rootfs = f"{COMMON}/run/containerd/io.containerd.runtime.v2.task/k8s.io/{container}/rootfs"
            assert f"mount {rootfs}\n" in everything
    shims = [line for line in left if line.startswith("process ") and "containerd-shim-runc-v2" in line]
    assert len(shims) == len(PODS), "one for each pod, not for each container"
    programs = ("/pause", "/coredns", "/usr/bin/kube-controllers", "/usr/local/bin/runsvdir", "/bin/httpd")
    running = Counter(line.split(" ")[1] for line in left if line.startswith("process ") and "/kubepods/" in line)
    assert running == {**dict.fromkeys(programs, 1), "/pause": len(PODS)}
    for pod in (COREDNS, CONTROLLERS):
        assert f"link {microk8s.cali(pod)}\n" in everything
    for pod in (COREDNS, WEB):
        # the plugins themselves made these: the computed name is the true one
        assert f"nat :{microk8s.cni_chain('CNI-DN-', pod.network, pod.sandbox)} -" in everything
    assert f"nat :{microk8s.cni_chain('CNI-', WEB.network, WEB.sandbox)} -" in everything
    for pod in (COREDNS, CONTROLLERS, WEB):
        assert f"netns [netns {pod.netns}]\n" in everything
        assert f"file /var/lib/cni/results/{pod.network}-{pod.sandbox}-eth0\n" in everything
    assert f"file /var/lib/cni/networks/{WEB.network}/{WEB.address}\n" in everything
    assert {f"mount {target}" for _, _, target in microk8s.MOUNTS} <= set(left)
    for line in (
        "link cni0",
        "link vxlan.calico",
        "ipset element cali40all-ipam-pools 10.1.0.0/16",
        "route blackhole 10.1.64.0/26 table main",
        'xtables iptables-nft filter -A FORWARD -s 10.1.0.0/16 -m comment --comment "generated for MicroK8s pods"',
        "file /var/lib/kubelet\n",
        "file /var/lib/calico\n",
        "file /etc/cni/net.d\n",
        "file /opt/cni/bin\n",
        "file /etc/sysctl.d/10-microk8s.conf",
        "snap microk8s",
    ):
        assert line in everything, line
    # and beside it the administrator's containerd has the same
    assert f"[netns {OTHER.netns}]" in before["state"]["netns"]
    microk8s.answers(machine)
    # kubelet makes its mounts again while it lives
    point = microk8s.MOUNTS[0][2]
    machine.run(["umount", point])
    machine.run(f"for i in $(seq 100); do grep -qF ' {point} ' /proc/self/mountinfo && exit; sleep 0.1; done; exit 1")


@pytest.mark.full
@on_trixie
def test_removed_without_us(machine: Machine) -> None:
    """snapd 2.68 deletes the administrator's files through the mounts, fails, and leaves a disabled snap."""
    before = lived(machine)
    shims = machine.run(SHIMS).out
    assert microk8s.remove(machine, "--purge") == 1
    assert notes(machine) == "disabled,classic"
    change = snap.changes(machine, "microk8s")[-1]
    assert (change["kind"], change["status"]) == ("remove-snap", "Error")
    assert "device or resource busy" in change["err"]
    assert intact(machine) == []
    assert machine.run(SHIMS).out == shims
    difference = found(before, machine.snapshot())
    left = kinds(difference["left"])
    assert left["mount"] > 20 and left["process"] > 12 and left["cgroup"] > 12 and left["netns"] == 3, left
    assert left["link"] == 5 and left["ipset"] == 5 and left["xtables"] > 50, left
    assert all(line.startswith(("file /srv/", "file /mnt/bound/")) for line in difference["lost"])
    microk8s.answers(machine)
    # A second one cannot either.
    assert microk8s.remove(machine, "--purge") == 1


@pytest.mark.full
@pytest.mark.parametrize("machine", [SID], indirect=True)
def test_refused_by_a_newer_snapd(machine: Machine) -> None:
    """snapd 2.77 sees the mounts, deletes nothing, and starts the snap again."""
    before = lived(machine)
    used = machine.snapshot()
    shims = machine.run(SHIMS).out
    assert microk8s.remove(machine, "--purge") == 1
    assert notes(machine) == "classic"
    change = snap.changes(machine, "microk8s")[-1]
    assert (change["kind"], change["status"]) == ("remove-snap", "Error")
    assert "unknown active mounts" in change["err"]
    assert intact(machine) == list(PRECIOUS)
    assert machine.run(SHIMS).out == shims
    assert machine.run(["systemctl", "is-active", *microk8s.SERVICES]).out == "active\nactive\n"
    assert found(before, machine.snapshot())["lost"] == []
    after = machine.snapshot()
    assert set(used["state"]["mount"]) - set(after["state"]["mount"]) == set()


@pytest.mark.full
@on_trixie
def test_devmode_removed_without_us(machine: Machine) -> None:
    """A strict snap's mounts are in its own namespace only: snapd sees none, removes its files, and what runs stays."""
    before = lived(machine, confinement="devmode")
    used = machine.snapshot()
    hosts = [point for point in used["state"]["mount"] if point.startswith(COMMON)]
    assert hosts == []
    assert [point for point in used["state"]["mount"] if f"] {COMMON}/" in point] != []
    shims = machine.run(SHIMS).out
    assert len(shims.split()) == len(PODS)
    assert microk8s.remove(machine, "--purge") == 0
    assert notes(machine) == ""
    assert machine.run(SHIMS).out == shims
    assert intact(machine) == list(PRECIOUS)
    difference = found(before, machine.snapshot())
    assert difference["lost"] == []
    left = kinds(difference["left"])
    assert left["process"] > 12 and left["cgroup"] > 12 and left["netns"] == 3 and left["link"] == 5, left
    microk8s.answers(machine)


@pytest.mark.full
@on_trixie
def test_refreshed_and_disabled(machine: Machine) -> None:
    """A refresh, a restart, and disable and enable: shims and containers live on, and so must everything of ours."""
    lived(machine)
    shims = machine.run(SHIMS).out
    containers = machine.run(CONTAINERS).out
    assert len(shims.split()) == 4 and len(containers.split()) == 9  # two pauses are the administrator's

    def alive() -> bool:
        return (machine.run(SHIMS).out, machine.run(CONTAINERS).out) == (shims, containers)

    microk8s.install(machine)
    assert snap.revision(machine, "microk8s") == "x2"
    assert snap.changes(machine, "microk8s")[-1]["kind"] == "install-snap"
    assert alive()
    assert "/snap/microk8s/x1/bin/containerd-shim-runc-v2" in machine.run("ps -eo args").out
    machine.run("snap restart microk8s")
    assert alive()
    machine.run("snap disable microk8s")
    assert notes(machine) == "disabled,classic" and alive()
    assert [s["status"] for s in snap.api(machine, "/v2/snaps?snaps=microk8s&select=all")] == ["installed"] * 2
    machine.run("snap enable microk8s")
    assert notes(machine) == "classic" and alive()
    assert intact(machine) == list(PRECIOUS)


LOOK = r"""
python3 -I - "$1" $(systemctl is-active "$1") $(test -e /var/snap/bystander/common/file && echo data) <<'P'
import http.client, json, socket, sys
def get(path):
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect("/run/snapd.socket")
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())["result"]
said = {"seen": sys.argv[1:], "changes": get("/v2/changes?select=in-progress&for=bystander"),
        "snaps": get("/v2/snaps?snaps=bystander&select=all")}
print(json.dumps(said))
P
"""


@pytest.mark.full
@on_both
def test_what_a_guard_sees(machine: Machine) -> None:
    """A guard is stopped while the service still runs, and snapd says by the change in progress what it is about."""
    service = "snap.bystander.daemon.service"
    path = snap.build(machine, "bystander", microk8s.BYSTANDER, {"run": microk8s.BYSTANDER_RUN})
    snap.install(machine, path, "--classic")
    snap.guard(machine, service, LOOK)
    steps = {
        "snap restart bystander": ("service-control", {"service-control"}),
        f"snap install --dangerous --classic {path}": ("install-snap", {"stop-snap-services", "link-snap"}),
        "snap disable bystander": ("disable-snap", {"stop-snap-services", "unlink-snap"}),
        "snap enable bystander; snap remove bystander": (
            "remove-snap",
            {"save-snapshot", "clear-snap", "discard-snap"},
        ),
        f"snap install --dangerous --classic {path}; snap remove --purge bystander": ("remove-snap", {"clear-snap"}),
    }
    for command, (kind, tasks) in steps.items():
        machine.run(f"rm -f /run/guard.log; {command}")
        (said,) = [json.loads(line) for line in machine.read("/run/guard.log").splitlines()]
        assert said["seen"] == [service, "active", "data"], command
        (change,) = said["changes"]
        assert change["kind"] == kind, command
        doing = {task["kind"] for task in change["tasks"]}
        assert tasks <= doing, command
        if kind == "remove-snap":
            assert ("save-snapshot" in doing) == ("--purge" not in command)
    assert "bystander" not in machine.run("snap list").out


@pytest.mark.full
@on_trixie
def test_a_mount_that_hangs(machine: Machine) -> None:
    """The comparer does not wait for a FUSE server that does not answer; whoever asks for its attributes does."""
    microk8s.admin_things(machine)
    microk8s.install(machine)
    microk8s.use(machine, hung=True)
    after = machine.snapshot()
    assert microk8s.HUNG in after["state"]["mount"]
    assert machine.run(["timeout", "1", "stat", microk8s.HUNG], check=False).code == 124
    assert NODE.directory in microk8s.HUNG
