"""What can only be shown on a host with a kernel of its own: AppArmor, LVM, VLANs, tunnels and cgroup limits of a real
Incus, each beside the administrator's. One guest is brought to the point before the purge; each test goes on there."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import hoststate, incus, lxd, own_kernel
from lab.conftest import FAILED
from lab.guest import Guest
from lab.machine import LabError
from lab.own_kernel import NAMESPACES, POLICY, PROFILES
from lab.scenario import CHANGED, DONE, KEPT, Arrive, document, leftovers, same

pytestmark = pytest.mark.full
FAILED_TO = 1

# A module is the kernel's, and others may have come to use it. Of LVM: its daemon, which it starts for thin pools.
STAYS = (
    *KEPT,
    r"module |sysctl net\.netfilter\.",
    r"(process|unit|cgroup|unix|file|port) .*dm-?event",
    r"file /etc/lvm(/.*)?",
)
# lxcfs mounts cgroup2 once more as it starts, without nsdelegate and memory_recursiveprot, and the kernel takes that
# for the host's own mount as well. systemd sets them again at the next boot.
OTHER = (*CHANGED, r"mount /sys/fs/cgroup: super", r"file /etc/lvm/backup/admin:")
# What a pool had in the administrator's volume group is data at a place of his, and he is told how to be rid of it.
VOLUMES = (r"disk admin-(containers|images)_", r"lvm lv admin (containers_c2|images_[0-9a-f]{64})")
GROUP = (r"lvm vg admin: lv_count .*vg_tags",)


@dataclass
class Lived:
    """A guest that sleeps with Incus in full use, and what it was before Incus came."""

    guest: Guest
    before: dict[str, Any]


@pytest.fixture(scope="module")
def lived() -> Iterator[Lived]:
    with Guest() as m:
        own_kernel.admin_things(m)
        before = m.snapshot()
        incus.install(m)
        own_kernel.use(m)
        m.sleep()
        yield Lived(m, before)


@pytest.fixture
def guest(request: pytest.FixtureRequest, lived: Lived) -> Iterator[Guest]:
    with Guest(like=lived.guest) as m:
        yield m
        if request.node.stash.get(FAILED, False):
            print(m.report())


def profiles(m: Guest) -> set[str]:
    return {line.rpartition(" ")[0] for line in m.read("/sys/kernel/security/apparmor/profiles").splitlines()}


def namespaces(m: Guest) -> set[str]:
    return set(m.run(["ls", f"{POLICY}/namespaces"]).out.splitlines())


def ours(names: set[str], product: str = "incus") -> set[str]:
    """Those of the product's own directory."""
    return {name for name in names if name.endswith((f"</var/lib/{product}>", f"<var-lib-{product}>"))} - {
        *PROFILES,
        *NAMESPACES,
    }


def label(m: Guest, program: str) -> str:
    return m.run(f"cat /proc/$(pgrep -o -x -f '{program}')/attr/current").out.strip("\0\n")


def done_in_order(m: Guest, product: str = "incus") -> list[str]:
    """The kinds of what a run removed, in the order in which the ledger has them."""
    log = [json.loads(line) for line in m.read(f"/var/lib/leftovers/{product}.log").splitlines()]
    return [entry["id"].partition(":")[0] for entry in log if entry.get("result") == "done"]


def test_purged_without_us(guest: Guest, lived: Lived, arrive: Arrive) -> None:
    """All goes but what is nobody's proven own; a process that somebody put under a profile of Incus' keeps that."""
    stranger = "sleep 1000030"
    guest.run(f"systemd-run -q --unit=admin-stranger aa-exec -p 'incus-c1_</var/lib/incus>' -- {stranger}")
    confined = label(guest, stranger)
    assert confined == "incus-c1_</var/lib/incus> (enforce)"
    incus.purge(guest)
    left = ours(profiles(guest)), ours(namespaces(guest))
    assert {f"incus-{name}_</var/lib/incus>" for name in own_kernel.RUNNING} < left[0]
    assert {"incus_forkproxy-web_c1_</var/lib/incus>", "incus_dnsmasq-net2_</var/lib/incus>"} < left[0]
    assert left[1] == {f"incus-{name}_<var-lib-incus>" for name in own_kernel.RUNNING}
    assert "fast-containers_c1" in guest.run("dmsetup ls").out
    arrive(guest)

    planned = document(guest, "plan", "incus")
    assert {"apparmor", "pool", "loop", "link", "cgroup"} <= {o["kind"] for o in planned if o["action"] == "remove"}
    group = next(o for o in planned if o["id"] == "pool:lvm admin")
    assert group["action"] == "keep" and "lvremove admin/containers_c2" in group["advice"], group
    said = leftovers(guest, "clean", "incus", "--yes", code=FAILED_TO)
    assert "incus-c1_</var/lib/incus>: would leave pid " in said.out + said.err, said.out
    assert label(guest, stranger) == confined
    assert ours(profiles(guest)) == {"incus-c1_</var/lib/incus>"} and not ours(namespaces(guest))
    kinds = done_in_order(guest)
    assert "apparmor" not in kinds[: len(kinds) - kinds[::-1].index("process")], kinds

    guest.run("systemctl stop admin-stranger")
    said = leftovers(guest, "clean", "incus", "--yes", code=None)
    # Without Incus' word nobody knows who made a VLAN or a tunnel.
    nobodys = r"(link|address|route) .*\b(ens2\.3[012]|net2-(east|west))\b|port udp 0\.0\.0\.0:8472$"
    same(guest, lived.before, keep=[*STAYS, *VOLUMES, nobodys], changed=[*OTHER, *GROUP], said=said.out + said.err)
    assert said.code == DONE, said.out + said.err
    leftovers(guest, "verify")
    assert guest.read("/mnt/vol/file") == "keep\n"


def test_purged_with_the_hooks(guest: Guest, lived: Lived, arrive: Arrive) -> None:
    """Incus tells by itself which VLANs it has made; they go as well."""
    arrive(guest)
    done = guest.run(f"apt-get purge -y -q {' '.join(incus.PACKAGES)} 2>&1", timeout=300)
    assert "Traceback" not in done.out, done.out
    same(guest, lived.before, keep=[*STAYS, *VOLUMES], changed=[*OTHER, *GROUP], said=done.out)
    assert not ours(profiles(guest)) and not ours(namespaces(guest))
    leftovers(guest, "verify")
    group = next(o for o in document(guest, "plan", "incus") if o["id"] == "pool:lvm admin")
    assert group["advice"].startswith("lvs admin") and group["advice"].endswith("vgchange --deltag incus_pool admin")
    guest.run("lvremove -q -q -y admin/containers_c2; vgchange -q -q --deltag incus_pool admin")
    same(guest, lived.before, keep=STAYS, changed=OTHER, said=group["advice"])


def test_lxd(arrive: Arrive) -> None:
    with Guest() as m:
        m.run(
            """
            echo 'profile "lxd-c1_</srv/other>" { file, }' | apparmor_parser -a
            mkdir '/sys/kernel/security/apparmor/policy/namespaces/lxd-c1_<srv-other>'
            """
        )
        before = m.snapshot()
        lxd.install(m)
        m.run(f"lxd init --auto\n{lxd.IMAGE}\nlxc -q launch bb c1 -c limits.memory=64MiB", timeout=180)
        m.run("lxc -q config device add c1 web proxy listen=tcp:127.0.0.1:8080 connect=tcp:127.0.0.1:80")
        lxd.purge(m)
        assert {"lxd-c1_</var/lib/lxd>", "lxd_forkproxy-web_c1_</var/lib/lxd>"} < ours(profiles(m), "lxd")
        assert ours(namespaces(m), "lxd") == {"lxd-c1_<var-lib-lxd>"}
        arrive(m)
        said = leftovers(m, "clean", "lxd", "--yes")
        same(m, before, keep=[*STAYS, *lxd.KEPT], changed=OTHER, said=said.out)
        leftovers(m, "verify")


# -- the guest itself ------------------------------------------------------------------------------------------------


def test_commands_and_files(tmp_path: Path) -> None:
    with Guest() as m:
        done = m.run("echo out; echo err >&2; exit 3", check=False)
        assert (done.out, done.err, done.code) == ("out\n", "err\n", 3)
        assert m.run(["cat"], input="given").out == "given"
        assert m.run("sleep 60 & echo started").out == "started\n"
        with pytest.raises(LabError, match=r"(?s)still running.*so far"):
            m.run("echo so far; exec sleep 600", timeout=0.2)
        (tmp_path / "tree/sub").mkdir(parents=True)
        (tmp_path / "tree/sub/file").write_bytes(b"\0\1" * 100_000)
        m.put(tmp_path / "tree", "/srv/tree")
        assert m.run("stat -c %u:%g:%s /srv/tree/sub/file").out == "0:0:200000\n"
        m.write("/srv/new dir/a", "text\n")
        assert m.read("/srv/new dir/a") == "text\n"
        directory = m.directory
        # Its kernel is not the machine's, and what listens on the machine is not to be reached.
        assert m.run("uname -r").out.strip() != os.uname().release
        m.run("ip link set ens2 up; ip addr add 10.0.2.15/24 dev ens2; ip route add default via 10.0.2.2")
        with socket.create_server(("127.0.0.1", 0)) as server:
            connect = f"import socket; socket.create_connection(('10.0.2.2', {server.getsockname()[1]}), 2)"
            assert m.run(["python3", "-c", connect], check=False).err.strip().endswith(("timed out", "refused"))
    assert not directory.exists()


def test_sleeps_and_wakes_up() -> None:
    with Guest() as one:
        one.run("echo said >/run/word; echo done >/srv/deed; ip link add one type dummy")
        one.sleep()
        for word in ("first", "second"):
            with Guest(like=one) as other:
                assert other.run("cat /run/word /srv/deed; ip -br link show one").out.startswith("said\ndone\none ")
                other.run(f"! test -e /srv/mine; echo {word} >/srv/mine")
        with pytest.raises(LabError, match="is down"):
            one.run("true")


def test_dies_with_its_tests() -> None:
    program = (
        "import time\nfrom lab.guest import Guest\n"
        "with Guest() as m:\n    print(m.computer.qemu.pid, flush=True)\n    time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}"}
    run = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    assert run.stdout is not None
    qemu = int(run.stdout.readline())
    assert b"qemu" in Path(f"/proc/{qemu}/cmdline").read_bytes()
    run.send_signal(signal.SIGKILL)
    run.wait()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{qemu}").exists():
        assert time.monotonic() < deadline, "the guest outlived its tests"
        time.sleep(0.1)


def test_a_snapshot_sees_what_only_a_guest_has() -> None:
    """Each of these makes a difference, and nothing else does."""
    with Guest() as m:
        m.run(
            f"""
            echo 'profile a {{ file, }}' | apparmor_parser -a
            echo 'profile b {{ file, }}' | apparmor_parser -a
            mkdir {POLICY}/namespaces/n
            systemd-run -q --unit=x aa-exec -p a -- sleep 1000040
            truncate -s 100M /var/pv
            vgcreate -q -q g "$(losetup -f --show /var/pv)"
            lvcreate -q -q -y -n v -L 8M g
            """
        )
        before = m.snapshot()
        assert hoststate.count(hoststate.compare(before, m.snapshot())) == 0
        m.run(
            f"""
            echo 'profile b {{ capability, }}' | apparmor_parser -r
            rmdir {POLICY}/namespaces/n
            printf a >/sys/kernel/security/apparmor/.remove
            vgchange -q -q --addtag t g
            udevadm settle
            lvchange -an g/v
            """
        )
        found = hoststate.compare(before, m.snapshot())
        lines = [f"{name} {line.partition(':')[0]}" for name, lines in found.items() for line in lines]
        for line in (
            "lost apparmor a (enforce)",
            "lost apparmor policy a",
            "lost apparmor namespace n",
            "changed apparmor policy b",
            "lost disk g-v lvm",
            "changed lvm vg g",
        ):
            assert line in lines, f"{line} is not in\n" + "\n".join(lines)
        # The process that the profile confined is there, and confined no more.
        assert [line for line in lines if line.startswith("lost process sleep 1000040 ") and "label=a" in line], lines
