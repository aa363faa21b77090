"""A package manager's removal of Incus, with our package on the host: what each way of removing it sets off.

What must not set anything off is in test_no_removal.py.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import Any

import pytest

from lab import hoststate, incus
from lab.machine import Completed, Machine
from lab.scenario import CHANGED, KEPT, LEFT, Arrive, leftovers, lived, same

# Volumes in a pool whose source is the administrator's: they go with --data only.
POOL = r"file /srv/pool/"
CONF = "/etc/leftovers/leftovers.conf"
ALL = " ".join(incus.PACKAGES)
PYTHON = "python3 python3-minimal python3.13 python3.13-minimal libpython3.13-minimal libpython3.13-stdlib"

STOPPING = r"^leftovers: Incus: asking \d+ instances? to shut down, \d+ s at most$"
SUMMARY = r"^leftovers: Incus: [1-9]\d* gone in [\d.]+ s \(.*; nothing is left$"
KEEPS_POOL = r"; kept: /srv/pool\b"


def say(m: Machine, command: str | Sequence[str], *, code: int = 0, timeout: float = 300) -> str:
    """Run a package manager's command, and return all that a person sees."""
    done: Completed = m.run(command, check=False, timeout=timeout)
    said = done.out + done.err
    assert done.code == code, f"exit code {done.code}, not {code}: {command}\n{said}"
    assert "Traceback" not in said, said
    return said


def lines(said: str, pattern: str = r"^leftovers: ") -> list[str]:
    return [line for line in said.splitlines() if re.search(pattern, line)]


def purged(m: Machine, before: dict[str, Any], said: str) -> None:
    """The host is what it was, the administrator's pool has its volumes, and one line says all that."""
    same(m, before, keep=[*KEPT, POOL], said=said)
    pool_is_whole(m)
    summary = lines(said, SUMMARY)
    assert len(summary) == 1 and re.search(KEEPS_POOL, summary[0]), said
    assert len(lines(said, r"^leftovers: \w+: \d+ gone in .* LEFT")) == 0, said
    leftovers(m, "verify")
    assert m.run("ls -A /run/leftovers").out == ""


def pool_is_whole(m: Machine) -> None:
    """Debian's own postrm empties it through the mount, when that is still there."""
    assert m.run("ls /srv/pool/containers").out == "c4\n"
    m.run("test -x /srv/pool/containers/c4/rootfs/bin/busybox && test -d /srv/pool/custom/default_vol")


def alive(m: Machine) -> str:
    """The processes of all containers, by cgroup."""
    return m.run("cd /sys/fs/cgroup; find -path './lxc.*' -name cgroup.procs | sort | xargs grep -H .").out


def small(m: Machine, *names: str, options: str = "") -> None:
    """Incus with a few containers, where the whole scenario would say no more."""
    incus.install(m)
    m.run("incus admin init --minimal\n" + incus.IMAGE, timeout=180)
    for name in names:
        m.run(f"incus -q launch bb {name} {options}")


def setting(m: Machine, text: str) -> None:
    m.run(["sh", "-c", f'printf "%s\\n" "$1" >>{CONF}', "set", text])


def build(m: Machine, package: str, depends: str = "", version: str = "1") -> str:
    """A package without files, as a .deb in the host."""
    m.run(
        f"""
        mkdir -p /tmp/build/DEBIAN
        cat >/tmp/build/DEBIAN/control <<'C'
Package: {package}
Version: {version}
Architecture: all
Maintainer: Nobody <nobody@example.invalid>
Depends: {depends}
Description: made by a test
C
        {"" if depends else "sed -i /^Depends:/d /tmp/build/DEBIAN/control"}
        dpkg-deb -b /tmp/build /tmp/{package}.deb >/dev/null
        rm -r /tmp/build
        """
    )
    return f"/tmp/{package}.deb"


# -- a purge, in every way


def test_apt_purge(machine: Machine, arrive: Arrive) -> None:
    """With the question, and all of what is told, in order."""
    arrive(machine)
    before = lived(machine)
    done = machine.run(["apt-get", "purge", "-q", *incus.PACKAGES], input="y\n", timeout=300)
    said = done.out + done.err
    purged(machine, before, said)
    order = [
        r"^leftovers: incus-base: this ends 10 running instances and 3 networks of Incus; kept: /srv/pool",
        r"^Do you want to continue\?",
        r"^Removing incus-base ",
        r"^leftovers: Incus: asking 9 instances to shut down",  # not the ephemeral one: it would be deleted
        r"^Purging configuration files for incus-base ",
        SUMMARY,
    ]
    found = [[n for n, line in enumerate(done.out.splitlines()) if re.search(pattern, line)] for pattern in order]
    assert [len(each) for each in found] == [1] * len(order), said
    assert found == sorted(found), said
    # One line for each product at most: lxcfs went in the same run.
    assert len(lines(said, r"^leftovers: lxcfs: ")) <= 1, said
    assert len(lines(said)) <= 4, said


def test_dpkg_purge(machine: Machine, arrive: Arrive) -> None:
    arrive(machine)
    before = lived(machine)
    said = say(machine, f"dpkg -P {ALL}")
    purged(machine, before, said)
    assert len(lines(said, STOPPING)) == 1, said
    assert len(lines(said)) <= 3, said


@pytest.mark.full
def test_autoremove_purge(machine: Machine, arrive: Arrive) -> None:
    """Nobody named Incus: it was installed for another package, which goes."""
    arrive(machine)
    before = lived(machine)
    machine.run(f"dpkg -i {build(machine, 'my-cloud', 'incus-base, incus-client')}; rm /tmp/my-cloud.deb")
    machine.run(f"apt-mark auto {ALL}")
    running = alive(machine)
    assert lines(say(machine, "dpkg -P my-cloud")) == []
    assert alive(machine) == running
    purged(machine, before, say(machine, "apt-get autoremove --purge -y -q"))


@pytest.mark.full
def test_purge_by_selection(machine: Machine, arrive: Arrive) -> None:
    """As dselect does it: dpkg has no package in its arguments."""
    arrive(machine)
    before = lived(machine)
    selection = "".join(f"{package} purge\n" for package in incus.PACKAGES)
    machine.run(["dpkg", "--set-selections"], input=selection)
    purged(machine, before, say(machine, "dpkg --purge --pending"))


@pytest.mark.full
@pytest.mark.parametrize("remove, purge", [("dpkg -r", "dpkg -P"), ("apt-get remove -y -q", "apt-get purge -y -q")])
def test_remove_and_then_purge(machine: Machine, arrive: Arrive, remove: str, purge: str) -> None:
    """Nobody's containers end with a plain removal. The purge of what is there with its configuration only sweeps."""
    arrive(machine)
    before = lived(machine)
    running = alive(machine)
    said = say(machine, f"{remove} {ALL}")
    assert alive(machine) == running
    told = r"^leftovers: Incus is removed, not purged: 10 instances still run, \d+ objects of it are left; "
    assert len(lines(said, told + r"sweep them with: leftovers clean incus$")) == 1, said
    assert lines(said, STOPPING) == [] and lines(said, SUMMARY) == [], said
    leftovers(machine, "verify", code=LEFT)
    purged(machine, before, say(machine, f"{purge} {ALL}"))


@pytest.mark.full
def test_remove_sweeps_if_configured(machine: Machine, arrive: Arrive) -> None:
    """on_remove = sweep: what lives goes with the package, data stays for the purge."""
    arrive(machine)
    setting(machine, "on_remove = sweep")
    before = lived(machine)
    said = say(machine, f"apt-get remove -y -q {ALL}")
    assert len(lines(said, r"^leftovers: Incus: \d+ gone in ")) == 1 and len(lines(said, STOPPING)) == 1, said
    conffiles = [*KEPT, r"file /etc/", POOL]
    same(machine, before, keep=[*conffiles, r"file /var/(lib|cache|log)/(incus|runit)"], said=said)
    machine.run("test -e /var/lib/incus/database/global/db.bin")
    say(machine, f"apt-get purge -y -q {ALL}")
    same(machine, before, keep=[*KEPT, POOL])
    pool_is_whole(machine)
    leftovers(machine, "verify")


# The killer comes after us: dpkg reads its configuration in the order of names.
KILLER = "pre-invoke=pkill -KILL -f 'hooks/dpkg-pre[.]py' || :\n"


@pytest.mark.full
@pytest.mark.parametrize("command", ["dpkg -P", "apt-get purge -y -q"])
def test_watcher_killed(machine: Machine, arrive: Arrive, command: str) -> None:
    """dpkg does not wait for the dead, and what is left is swept when it is done."""
    arrive(machine)
    machine.write("/etc/dpkg/dpkg.cfg.d/zz-killer", KILLER)
    before = lived(machine)
    said = say(machine, f"{command} {ALL}")
    assert lines(said, STOPPING) == [], said
    if command == "dpkg -P":
        # There is no moment between the removal and the purge: Debian's postrm has been in the pool, as without us.
        same(machine, before, keep=[*KEPT, POOL], said=said)
        assert len(lines(said, SUMMARY)) == 1, said
        leftovers(machine, "verify")
    else:
        purged(machine, before, said)


# -- ourselves, and what we need, in the same run


def we_are_gone(m: Machine) -> None:
    """Nothing of leftovers is left, and dpkg and apt work without it."""
    paths = m.run("find / -xdev -path '*leftovers*' -not -path '/var/cache/apt/*' -not -path '/proc/*'").out
    assert paths == ""
    m.run("! find /run /dev -path '*leftovers*' | grep .")
    said = say(m, f"dpkg -i {build(m, 'dummy')}; rm /tmp/dummy.deb; apt-get purge -y -q dummy; dpkg --audit")
    assert "leftovers" not in said


@pytest.mark.full
@pytest.mark.parametrize(
    "command",
    [f"apt-get purge -y -q {ALL} leftovers", f"dpkg -P leftovers {ALL}", f"dpkg -P {ALL} leftovers"],
    ids=["apt", "dpkg-first", "dpkg-last"],
)
def test_purged_with_us(machine: Machine, arrive: Arrive, command: str) -> None:
    arrive(machine)
    before = lived(machine)
    said = say(machine, command)
    summary = lines(said, SUMMARY)
    assert len(summary) == 1 and re.search(KEEPS_POOL, summary[0]), said
    as_if_never_there(machine, before, said)


def as_if_never_there(m: Machine, before: dict[str, Any], said: str, *lost: str, left: Sequence[str] = ()) -> None:
    """The host is what it was but for ourselves, who were there already, and what went with us."""
    lost = (r"file /etc/leftovers", r"file /etc/(apt/apt.conf.d/50|dpkg/dpkg.cfg.d/)leftovers$", *lost)
    found = hoststate.compare(
        before,
        m.snapshot(),
        keep=[f"^{each}" for each in (*KEPT[:-1], POOL, *left)],
        changed=[f"^{each}" for each in CHANGED],
        lost=[f"^{each}" for each in lost],
    )
    assert hoststate.count(found) == 0, f"\n{hoststate.render(found)}\n{said}"
    pool_is_whole(m)
    we_are_gone(m)


# Where a second Python is, for hoststate.py.
LAB_PYTHON = "/usr/lib/lab-python"
KEEP_PYTHON = f"""
mkdir -p {LAB_PYTHON}/bin {LAB_PYTHON}/lib
cp -a /usr/bin/python3.13 {LAB_PYTHON}/bin/python3
cp -a /usr/lib/python3.13 {LAB_PYTHON}/lib
cp -a /usr/lib/x86_64-linux-gnu/libexpat.so* /usr/lib/x86_64-linux-gnu/libffi.so* {LAB_PYTHON}/lib
{LAB_PYTHON}/bin/python3 -I -c 'import json; assert json.__file__.startswith("{LAB_PYTHON}/")'
"""


@pytest.mark.full
@pytest.mark.parametrize("killed", [False, True], ids=["watched", "watcher-killed"])
def test_purged_with_python(machine: Machine, arrive: Arrive, killed: bool) -> None:
    """python3, our dependencies and we ourselves go in the same run. Who waits has it all in memory; if that one is
    killed, hooks/finish does it in POSIX sh."""
    machine.run(KEEP_PYTHON)
    arrive(machine)
    if killed:
        machine.write("/etc/dpkg/dpkg.cfg.d/zz-killer", KILLER)
    before = lived(machine)
    said = say(machine, f"apt-get purge --autoremove -y -q {ALL} leftovers {PYTHON}")
    machine.run("! command -v python3 && ! ls /usr/bin/python3* /usr/lib/python3.13/os.py 2>/dev/null")
    machine.run(f"ln -s {LAB_PYTHON}/bin/python3 /usr/bin/python3")
    if killed:
        assert len(lines(said, r"^leftovers: incus: [1-9]\d* gone without python3")) == 1, said
        # What was still in use, or not Incus' alone, when it was recorded: units, lxcfs. But nothing runs any more.
        later: tuple[str, ...] = (r"(unit|cgroup|process|mount|file) .*(incus|lxcfs)",)
    else:
        assert len(lines(said, STOPPING)) == 1, said
        later = ()
    said_later = say(machine, f"dpkg -i {build(machine, 'dummy')}; apt-get purge -y -q dummy; rm /tmp/dummy.deb")
    assert lines(said_later) == [], said_later
    went = (r"file /(etc|var/lib|usr/local/lib)/python", r"file /etc/mime.types$")
    as_if_never_there(machine, before, said, *went, left=later)
    assert machine.run("pgrep -x incusd", check=False).out == ""


# -- metapackage or daemon


def test_metapackage(machine: Machine, arrive: Arrive) -> None:
    """In Debian `incus` only depends on the daemon. Whoever purges it is told so."""
    arrive(machine)
    small(machine, "c1")
    machine.run(f"dpkg -i {build(machine, 'incus', 'incus-base', '1:7')}")
    running = alive(machine)
    told = (
        "leftovers: incus is a metapackage: Incus itself is in incus-base, which stays as it is; "
        "to remove it too: apt purge incus-base"
    )
    said = say(machine, "apt-get purge -y -q incus")
    assert lines(said) and set(lines(said)) == {told}, said
    assert alive(machine) == running
    machine.run("dpkg -i /tmp/incus.deb")
    assert lines(say(machine, "dpkg -P incus")) == [told]
    assert alive(machine) == running
    machine.run("dpkg -i /tmp/incus.deb")
    # Both at once: then it is no news.
    said = say(machine, f"apt-get purge -y -q incus {ALL}")
    assert told not in said and len(lines(said, SUMMARY)) == 1, said
    # Nothing is kept that the packages' own purge removes.
    assert len(lines(said, r"^leftovers: incus-base: this ends 1 running instance and 1 network of Incus$")) == 1, said
    leftovers(machine, "verify")


@pytest.mark.full
@pytest.mark.parametrize("command", ["apt-get purge -y -q", "dpkg -P"])
def test_daemon_in_a_package_of_that_name(machine: Machine, arrive: Arrive, command: str) -> None:
    """In Ubuntu `incus` is the daemon itself."""
    machine.run(
        """
        dpkg-deb -R /var/cache/apt/archives/incus-base_*.deb /srv/repacked
        sed -i -e 's/^Package: .*/Package: incus/' -e '/^Conflicts:/d' /srv/repacked/DEBIAN/control
        dpkg-deb -Znone -b /srv/repacked /srv/incus.deb
        rm -r /srv/repacked
        """
    )
    arrive(machine)
    incus.admin_things(machine)
    before = machine.snapshot()
    machine.write("/run/systemd/system/lxcfs.service.d/lab.conf", "[Unit]\nConditionVirtualization=\n")
    machine.run("apt-get install -y -q --no-download incus-client lxcfs; dpkg -i /srv/incus.deb", timeout=180)
    incus.use(machine)
    said = say(machine, f"{command} incus incus-client lxcfs")
    purged(machine, before, said)
    if command.startswith("apt"):
        assert len(lines(said, r"^leftovers: incus: this ends 10 running instances")) == 1, said


# -- asking nicely


def test_instances_shut_down(machine: Machine, arrive: Arrive) -> None:
    """Who hears the request comes down by itself; who does not is killed, and all of them have the same seconds."""
    arrive(machine)
    setting(machine, "stop_timeout = 4")
    small(machine)
    machine.run("mkdir -m 1777 /srv/trace\n" + incus.INITS)
    for name, init in (("p1", "polite"), ("p2", "polite"), ("d1", "deaf"), ("d2", "deaf"), ("d3", "deaf")):
        machine.run(
            f"incus -q init inits {name} -c raw.lxc=lxc.init.cmd=/sbin/{init}\n"
            f"incus -q config device add {name} trace disk source=/srv/trace path=/mnt/trace\n"
            f"incus -q start {name}"
        )
    time.sleep(0.5)  # their shells have set their traps
    began = time.monotonic()
    said = say(machine, f"dpkg -P {ALL}")
    took = time.monotonic() - began
    assert sorted(machine.read("/srv/trace/log").splitlines()) == ["down p1", "down p2"], said
    assert len(lines(said, r"^leftovers: Incus: asking 5 instances to shut down, 4 s at most$")) == 1, said
    late = lines(said, r"^leftovers: Incus: 3 did not come down, and will be killed: ")
    assert len(late) == 1 and {"d1", "d2", "d3"} == set(re.findall(r"\b[dp]\d\b", late[0])), said
    assert len(lines(said, SUMMARY)) == 1, said
    assert 4 < took < 15, took
    leftovers(machine, "verify")


# -- where fanotify is not to be had

NO_FANOTIFY = (
    "systemd-run --quiet --pipe --wait -E DEBIAN_FRONTEND=noninteractive -E LC_ALL=C.UTF-8 "
    "-p SystemCallFilter=~fanotify_init -p SystemCallErrorNumber=EPERM "
)


@pytest.mark.full
@pytest.mark.parametrize("command", ["dpkg -P", "apt-get purge -y -q"])
def test_no_fanotify(machine: Machine, arrive: Arrive, command: str) -> None:
    arrive(machine)
    before = lived(machine)
    refused = "import ctypes; l = ctypes.CDLL(None, use_errno=True); assert l.fanotify_init(0, 0) == -1"
    machine.run([*NO_FANOTIFY.split(), "python3", "-c", f"{refused}; assert ctypes.get_errno() == 1"])
    said = say(machine, NO_FANOTIFY + f"{command} {ALL}")
    purged(machine, before, said)


# -- our package, or its host, is broken


HOOKS = "/usr/share/leftovers/hooks"
BREAK = {
    # name: how it is broken, how it is repaired
    "no-python": ("mv /usr/bin/python3 /usr/bin/python3.away", "mv /usr/bin/python3.away /usr/bin/python3"),
    "python-not-executable": ("chmod a-x /usr/bin/python3.13", "chmod a+x /usr/bin/python3.13"),
    "syntax-error": (
        "cp -a /usr/share/leftovers/leftovers/hook.py /root/; echo 'def (' >>/usr/share/leftovers/leftovers/hook.py",
        "mv /root/hook.py /usr/share/leftovers/leftovers/",
    ),
    "no-pyroute2": (
        "mv /usr/lib/python3/dist-packages/pyroute2 /usr/lib/python3/pyroute2.away",
        "mv /usr/lib/python3/pyroute2.away /usr/lib/python3/dist-packages/pyroute2",
    ),
    "full-disk": (
        "mount -t tmpfs -o size=4k none /var/lib/leftovers; head -c 8192 /dev/zero >/var/lib/leftovers/full || :",
        "umount /var/lib/leftovers",
    ),
    "read-only": (
        "mount --bind /var/lib/leftovers /var/lib/leftovers; mount -o remount,bind,ro /var/lib/leftovers",
        "umount /var/lib/leftovers",
    ),
    "run-is-a-file": ("rm -rf /run/leftovers; touch /run/leftovers", "rm /run/leftovers"),
    "run-is-full": (
        "mkdir -p /run/leftovers; mount -t tmpfs -o size=4k none /run/leftovers; "
        "head -c 8192 /dev/zero >/run/leftovers/full || :",
        "umount /run/leftovers",
    ),
    "no-launch": (f"mv {HOOKS}/launch /root/", f"mv /root/launch {HOOKS}/"),
    "no-hooks": (f"mv {HOOKS} /root/", f"mv /root/hooks {HOOKS}"),
}


@pytest.mark.full
@pytest.mark.parametrize("purge", ["apt-get purge -y -q", "dpkg -P"], ids=["apt", "dpkg"])
@pytest.mark.parametrize("how", BREAK)
def test_broken(shared: Machine, arrive: Arrive, how: str, purge: str) -> None:
    """dpkg and apt go on as if we were not there; and one line says what was not cleaned."""
    m = shared
    broken, repaired = BREAK[how]
    if m.run("dpkg-query -s leftovers", check=False).code != 0:
        arrive(m)
    small(m, "c1", "c2")
    dummy = build(m, "dummy")
    m.run(broken)
    try:
        # A package that is nobody's: not a word of ours, whether it comes or goes.
        unrelated = say(m, f"dpkg -i {dummy}; {purge} dummy")
        said = say(m, f"{purge} {ALL}")
    finally:
        m.run(repaired)
    installed = m.run(f"dpkg-query -W {ALL}", check=False).out
    leftovers(m, "clean", "incus", "--yes")
    leftovers(m, "clean", "lxcfs", "--yes")
    leftovers(m, "verify")
    m.run("! pgrep -f 'lxc monitor|incusd'; rm -rf /run/leftovers/*; rm -f /tmp/dummy.deb")
    assert installed == ""
    assert lines(unrelated) == [] and "leftovers" not in unrelated, unrelated
    faults = lines(said, r"^leftovers: .*(nothing is cleaned|will not be cleaned|not all was cleaned)")
    if how == "no-pyroute2":  # what can be listed without it goes, and the rest is told with each product
        assert faults == [] and lines(said, r"^leftovers: Incus: .*NOT ALL could be read: leftovers scan incus$"), said
        return
    if lines(said, SUMMARY):  # it was swept all the same: then nothing else may be claimed
        assert faults == [], said
    elif how not in ("no-hooks", "no-launch"):  # without them nobody is there to say anything
        # Where nothing can be written in /run, apt's second dpkg cannot know what was said in the first.
        assert len(faults) == 1 or (how.startswith("run-is") and len(faults) == 2), said
        assert re.search(r"leftovers (clean|scan)", faults[-1]), said


# -- what stood before


def test_arrival(machine: Machine, arrive: Arrive) -> None:
    record = "/var/lib/leftovers/arrivals/incus.json"
    arrive(machine)
    machine.run("nft add table ip mine; sysctl -q -w net.ipv6.conf.default.accept_ra=0; ln -s /srv /var/lib/calico")
    incus.install(machine)
    first = machine.read(record)
    seen = json.loads(first)
    assert (seen["product"], seen["package"], seen["presence"]) == ("incus", "incus-base", "absent")
    assert seen["version"] == machine.run("dpkg-query -W -f '${Version}' incus-base").out
    assert seen["sysctls"]["net.ipv6.conf.default.accept_ra"] == "0" and seen["sysctls"]["net.ipv4.ip_forward"] == "0"
    assert "ip mine" in seen["nft"] and "incusbr0" not in seen["links"]
    assert seen["paths"]["/var/lib/calico"] == "/srv" and seen["accounts"]["group incus"] == []
    assert seen["faults"] == []

    # It is no arrival when it is there already, in any way.
    machine.run("sysctl -q -w net.ipv6.conf.default.accept_ra=1; incus admin init --minimal", timeout=60)
    debs = "/var/cache/apt/archives/{incus-base,incus-client,lxcfs}_*.deb"
    for again in ("apt-get install -y -q --reinstall --no-download incus-base", f"dpkg -i {debs}"):
        say(machine, again)
        assert machine.read(record) == first, again
    say(machine, f"dpkg -r {ALL}; dpkg -i {debs}")
    assert machine.read(record) == first

    # After a purge it is one, by bare dpkg too.
    say(machine, f"dpkg -P {ALL}")
    machine.run("nft add table ip mine2; sysctl -q -w net.ipv6.conf.default.accept_ra=2")
    say(machine, f"dpkg -i {debs}")
    seen = json.loads(machine.read(record))
    assert seen["sysctls"]["net.ipv6.conf.default.accept_ra"] == "2" and "ip mine2" in seen["nft"]
    assert (seen["package"], seen["presence"]) == ("incus-base", "absent"), seen


# -- switched off, and refused


@pytest.mark.full
def test_switched_off(machine: Machine, arrive: Arrive) -> None:
    """Then a purge does what it does without us, and says nothing of us."""
    arrive(machine)
    small(machine, "c1")
    for off in ("environment", "configuration"):
        if off == "configuration":
            setting(machine, "enabled = no")
            small(machine, "c1")
            machine.run("! grep -q c1 /var/lib/leftovers/packages 2>/dev/null")
        running = alive(machine)
        prefix = "LEFTOVERS_SUSPEND=1 " if off == "environment" else ""
        purge = "apt-get purge -y -q" if off == "environment" else "dpkg -P"
        said = say(machine, f"{prefix}{purge} {ALL}")
        assert "leftovers:" not in said, said
        assert running and alive(machine) == running, said
        assert machine.run("ls -A /run/leftovers", check=False).out == ""
        leftovers(machine, "clean", "incus", "--yes")
        leftovers(machine, "clean", "lxcfs", "--yes")


def test_refused_while_instances_run(machine: Machine, arrive: Arrive) -> None:
    arrive(machine)
    setting(machine, "refuse_if_running = yes")
    small(machine, "c1", "c2")
    running = alive(machine)
    state = "dpkg-query -W -f '${Package} ${Status}\\n' " + ALL
    installed = machine.run(state).out
    taken = machine.snapshot()
    for command, code in ((f"apt-get purge -y -q {ALL}", 100), (f"dpkg -P {ALL}", 2), (f"dpkg -r {ALL}", 2)):
        said = say(machine, command, code=code)
        refused = r"^leftovers: refused: Incus: 2 instances run, .*refuse_if_running = yes"
        assert len(lines(said, refused)) == 1, said
        assert len(lines(said, r"^leftovers: (?!incus-base: )")) == 1, said
        assert alive(machine) == running and machine.run(state).out == installed
    later = [r"file /(run|var/lib)/leftovers", r"(address|route) \[net of [^]]*init"]
    same(machine, taken, keep=later, changed=())
    machine.run("incus list -f csv -c ns; incus stop -f c1 c2")
    said = say(machine, f"apt-get purge -y -q {ALL}")
    assert len(lines(said, SUMMARY)) == 1 and "refused" not in said, said
    leftovers(machine, "verify")
