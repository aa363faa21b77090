"""What is no removal of Incus, and what was to be one and did not come to pass: containers run on, or run again.

The tests share a host, for none of them may change it; one that fails makes the next begin on a new one. The last one
purges Incus in the end, with all that the others have left of our own records.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab import hoststate, incus
from lab.conftest import FAILED
from lab.machine import Machine
from lab.scenario import KEPT, LATER, same

PERSISTENT = sorted({*incus.RUNNING} - {"eph"})
HOOKS = "/usr/share/leftovers/hooks"
INFO = "/var/lib/dpkg/info"
# Where the tests' own packages are built: hoststate.py does not look at apt's cache.
BUILD = "/var/cache/apt/lab"
# Our own records.
OURS = r"file /(run|var/lib)/leftovers"

ASKING = "leftovers: Incus: asking 9 instances to shut down, 30 s at most"
AGAIN = "leftovers: Incus was not removed: 9 instances that had been asked to shut down run again"
# How lines of ours begin; what is kept is named after this.
QUESTION = "leftovers: incus-base: this ends 10 running instances and 3 networks of Incus; kept: /srv/pool "
REMOVING = "leftovers: incus-base: removed, not purged: 10 running instances and 3 networks of Incus go on without it"

# Who lives, as "pid:start" by name: the init of each instance, the daemon, what else is Incus' own; and our processes.
LIVES = r"""
import glob, json, os
parents, words, starts = {}, {}, {}
for directory in glob.glob("/proc/[0-9]*"):
    pid = int(directory[6:])
    try:
        fields = open(directory + "/stat").read().rpartition(")")[2].split()
        line = open(directory + "/cmdline", "rb").read().decode(errors="replace")
    except OSError:
        continue
    if fields[0] not in "ZX":
        parents[pid], starts[pid], words[pid] = int(fields[1]), fields[19], line.rstrip("\0").split("\0")
found = {"ours": []}
for pid, argv in words.items():
    above = words.get(parents[pid], [""])
    if above[0].startswith("[lxc monitor] /var/lib/incus/containers "):
        found[above[0].rpartition(" ")[2]] = f"{pid}:{starts[pid]}"
    if argv[0].endswith("/incusd") and "--group" in argv:
        found["incusd"] = f"{pid}:{starts[pid]}"
    if any("/leftovers/hooks/" in word for word in argv):
        found["ours"].append(" ".join(argv)[:200])
print(json.dumps(found))
"""

# A person at a terminal: types a command, sees something, does something (or presses Ctrl-C), waits for the prompt.
TERMINAL = r"""
import json, os, pty, re, select, signal, subprocess, sys, termios, time
command, seen, action = sys.argv[1:]
pid, master = pty.fork()
if pid == 0:
    mode = termios.tcgetattr(0)
    mode[3] &= ~termios.ECHO
    termios.tcsetattr(0, termios.TCSANOW, mode)
    # Tests that run in the background of a shell have it ignored, and so would have dpkg and all below.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ["PS1"] = "<prompt $?>"
    os.execv("/bin/bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])
out, typed, acted, other, ended = "", False, 0.0, None, 0.0
until = time.time() + 100
while time.time() < until:
    if select.select([master], [], [], 0.05)[0]:
        try:
            out += os.read(master, 65536).decode(errors="replace")
        except OSError:
            break
    prompts = re.findall(r"<prompt (\d+)>", out)
    if prompts and not typed:
        os.write(master, command.encode() + b"\n")
        typed = True
    if seen in out and not acted:
        acted = time.time()
        if action == "^C":
            os.write(master, b"\x03")
        else:
            other = subprocess.run(["bash", "-c", action], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if len(prompts) > 1:
        ended = ended or time.time()
        # what goes on in the background may still want to say something
        if subprocess.run(["pgrep", "-f", "/leftovers/hooks/"], stdout=subprocess.DEVNULL).returncode:
            break
if select.select([master], [], [], 0.05)[0]:
    out += os.read(master, 65536).decode(errors="replace")
os.kill(pid, 9)
print(json.dumps({
    "out": out.replace("\r", "\n"),
    "code": int(prompts[1]) if len(prompts) > 1 else None,
    "acted": acted,
    "ended": ended,
    "other": other and {"out": other.stdout + other.stderr, "code": other.returncode},
}))
"""


@dataclass
class Site:
    """The host, as it was before Incus, and what lives on it."""

    m: Machine
    before: dict[str, Any]
    built: set[str] = field(default_factory=set)

    def lives(self) -> dict[str, Any]:
        """Once all of our own processes have ended."""
        until = time.monotonic() + 60
        while True:
            found: dict[str, Any] = self.m.run(["python3", "-I", "-"], input=LIVES).json()
            if not found.pop("ours"):
                return found
            assert time.monotonic() < until, f"hooks still run: {found}\n{self.m.run('ps axf').out}"
            time.sleep(0.1)

    def terminal(self, command: str, seen: str, action: str) -> dict[str, Any]:
        done: dict[str, Any] = self.m.run(
            ["python3", "-I", "-", command, seen, action], input=TERMINAL, timeout=150
        ).json()
        assert done["acted"], f"{seen!r} was never seen: {done}"
        assert done["code"] is not None, f"it did not end: {done}"
        return done

    def package(self, name: str, control: str = "", **scripts: str) -> str:
        """Build a package without files (once), and return its path."""
        path = f"{BUILD}/{name}.deb"
        if name not in self.built:
            directory = f"{BUILD}/{name}"
            self.m.write(
                f"{directory}/DEBIAN/control",
                f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <n@example.invalid>\n"
                f"Description: dummy\n{control}",
            )
            for script, text in scripts.items():
                self.m.write(f"{directory}/DEBIAN/{script}", f"#!/bin/sh\n{text}\n")
                self.m.run(["chmod", "755", f"{directory}/DEBIAN/{script}"])
            self.m.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", directory, path])
            self.built.add(name)
        return path

    def repacked(self, name: str, version: str, fields: str = "", preinst: str = "") -> str:
        """incus-base as another package, or another version of it."""
        path = f"{BUILD}/{name}_{version}.deb"
        if path not in self.built:
            self.m.run(
                f"""
                cd {BUILD}
                [ -d incus ] || dpkg-deb -R /var/cache/apt/archives/incus-base_*.deb incus
                cd incus/DEBIAN
                [ -e ../../control ] || cp control preinst ../..
                cp ../../control ../../preinst .
                sed -i -e 's/^Package: .*/Package: {name}/' -e 's/^Version: .*/Version: {version}/' control
                if [ {name} != incus-base ]; then sed -i '/^Conflicts: /d' control; fi
                printf '%s' {shlex.quote(fields)} >>control
                [ -z {shlex.quote(preinst)} ] || printf '#!/bin/sh\n%s\n' {shlex.quote(preinst)} >preinst
                dpkg-deb --root-owner-group -Znone -b ../../incus {path}
                """
            )
            self.built.add(path)
        return path

    def no_restarts(self) -> None:
        """Debian's postinst restarts the daemon in an upgrade, and may even shut all instances down: a restart of
        incus.socket is one of incus-startup.service too, whose ExecStop= does that when incus.service is still up."""
        self.m.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n")
        self.m.run(["chmod", "755", "/usr/sbin/policy-rc.d"])

    def restarts(self) -> None:
        self.m.run(["rm", "-f", "/usr/sbin/policy-rc.d"])


@dataclass
class Sites:
    package: Path
    site: Site | None = None

    def get(self) -> Site:
        if self.site is None:
            m = Machine()
            m.__enter__()
            try:
                m.put(self.package, f"/tmp/{self.package.name}")
                m.run(["apt-get", "install", "-y", "-q", f"/tmp/{self.package.name}"])
                m.run(["rm", f"/tmp/{self.package.name}"])
                m.run(["mkdir", "-p", BUILD])
                incus.admin_things(m)
                self.site = Site(m, m.snapshot())
                incus.install(m)
                incus.use(m)
            except BaseException:
                m.stop()
                self.site = None
                raise
        return self.site

    def drop(self) -> None:
        if self.site is not None:
            self.site.m.stop()
            self.site = None


@pytest.fixture(scope="module")
def sites(package: Path) -> Iterator[Sites]:
    found = Sites(package)
    try:
        yield found
    finally:
        found.drop()


@pytest.fixture
def site(request: pytest.FixtureRequest, sites: Sites) -> Iterator[Site]:
    here = sites.get()
    lives = here.lives()
    assert {*lives} == {*incus.RUNNING, "incusd"}, lives
    yield here
    if request.node.stash.get(FAILED, False):
        print(here.m.report())
        sites.drop()


def ours(text: str) -> list[str]:
    return re.findall(r"leftovers: [^\r\n]*", text)


def told(text: str, said: Sequence[str]) -> bool:
    """Whether our lines are these, by how they begin."""
    lines = ours(text)
    return len(lines) == len(said) and all(map(str.startswith, lines, said))


def untouched(
    site: Site,
    command: str,
    *,
    code: int | None = 0,
    says: str = "",
    said: Sequence[str] | None = (),
    daemon: bool = True,
) -> str:
    """Run a command: it ends with `code` and says `says`, we say nothing but `said`, and nobody of Incus' ends."""
    earlier = site.lives()
    done = site.m.run(f"exec 2>&1; {command}", check=False)
    now = site.lives()
    what = f"{command} ({done.code})\n{done.out}"
    assert now == earlier, what
    assert code is None or done.code == code, what
    assert says in done.out, what
    assert said is None or told(done.out, said), what
    return done.out


def unchanged(site: Site, earlier: dict[str, Any], keep: tuple[str, ...] = ()) -> None:
    found = hoststate.compare(
        earlier,
        site.m.snapshot(),
        [f"^{k}" for k in (OURS, LATER, *keep)],
    )
    assert hoststate.count(found) == 0, hoststate.render(found)


NETWORK = ("link", "address", "route", "rule", "neighbour", "netns", "nft", "xtables", "mount", "loop")


def network(site: Site) -> dict[str, Any]:
    """What of the host is left alone also by a restart of the daemon: a snapshot with less in it."""
    taken = site.m.snapshot()
    return {**taken, "state": {kind: taken["state"].get(kind, {}) for kind in NETWORK}}


def skeleton(site: Site) -> dict[str, Any]:
    """What of the host is the same when containers were started again: all outside of them, their own links by number,
    and who the administrator's processes are."""
    taken = site.m.snapshot()
    kinds = (*NETWORK, "cgroup", "unit", "port", "account", "sysctl")
    state = {kind: dict(taken["state"].get(kind, {})) for kind in kinds}
    theirs = re.compile(r"veth(?!deadbeef|0badcafe|12345678)[0-9a-f]{8}\b")
    for kind, things in state.items():
        kept: dict[str, Any] = {}
        numbers = 0
        for key, value in things.items():
            # dnsmasq also listens on link-local addresses that are there when it is started once more
            if re.search(r"^\[(net|mnt) of .*init|^(tcp|udp) \[fe80:.* dnsmasq$", key) or key == "/lxc.pivot":
                continue
            if theirs.search(key):
                numbers += 1
                key, value = theirs.sub(f"veth #{numbers}", key), None
            if kind == "link" and isinstance(value, dict) and key in ("br-lan", "myveth0"):
                value = {k: v for k, v in value.items() if k != "address"}  # a bridge has the lowest of its ports'
            kept[key] = value
        state[kind] = kept
    state["file"] = {
        key: value
        for key, value in taken["state"]["file"].items()
        if key.startswith(("/srv", "/etc", "/mnt", "/root", "/var/lib/incus-backup"))
        and not re.search("backup.yaml|^/etc/runit/", key)
    }
    state["process"] = {key: value for key, value in taken["state"]["process"].items() if "cgroup=/admin" in key}
    return {**taken, "state": state}


def again(
    site: Site,
    earlier: dict[str, Any],
    lives: dict[str, Any],
    what: object,
    *,
    daemon: bool = True,
    all_asked: bool = True,
) -> None:
    """The instances that had been asked to shut down run again, the ephemeral one and the daemon never ended; and the
    host is what it was."""
    now = site.lives()
    assert {*now} == {*lives}, what
    assert [name for name in ["eph", *["incusd"] * daemon] if now[name] != lives[name]] == [], what
    assert [name for name in PERSISTENT if now[name] == lives[name]] == [] or not all_asked, what
    found = hoststate.compare(earlier, skeleton(site), [f"^{OURS}"])
    assert hoststate.count(found) == 0, f"{hoststate.render(found)}\n{what}"
    assert site.m.run(["ls", "-A", "/run/leftovers"]).out == "", what


class failing_prerm:
    """While it lasts, incus-base's own prerm fails; and says in /run when it ran."""

    def __init__(self, site: Site, first: str = ":") -> None:
        self.m, self.first = site.m, first

    def __enter__(self) -> None:
        self.m.run(
            f"""
            cp -p {INFO}/incus-base.prerm {BUILD}/prerm
            printf '%s\\n' '#!/bin/sh' 'date +%s.%N >/run/lab-prerm' '{self.first}' 'exit 7' >{INFO}/incus-base.prerm
            """
        )

    def __exit__(self, *_: object) -> None:
        self.m.run(f"cat {BUILD}/prerm >{INFO}/incus-base.prerm; rm -f /run/lab-prerm")


def state(site: Site, package: str = "incus-base") -> str:
    return site.m.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", package], check=False).out


# As dpkg before 1.22.7 does (Debian 12, Ubuntu 24.04), which runs its hooks for simulations and for anybody.
OLD_DPKG = """
mkdir -p /var/cache/apt/lab/old; [ -e /var/cache/apt/lab/old/dpkg ] || cp /bin/bash /var/cache/apt/lab/old/dpkg
DPKG_HOOK_ACTION=purge /var/cache/apt/lab/old/dpkg -c '{hooks}/dpkg-step pre; echo hook $?' ARGUMENTS
""".replace("{hooks}", HOOKS)


def old_dpkg(*arguments: str) -> str:
    return OLD_DPKG.replace("ARGUMENTS", shlex.join(arguments))


# -- nothing happens -------------------------------------------------------------------------------------------------


def test_simulated(site: Site) -> None:
    earlier = site.m.snapshot()
    for option in ("--simulate", "--dry-run", "--no-act"):
        untouched(site, f"dpkg {option} -P incus-base", says="Would remove or purge")
        untouched(site, old_dpkg(option, "-P", "incus-base"), says="hook 0")
    untouched(site, "dpkg --simulate -r incus-base incus-client lxcfs", says="Would remove or purge")
    untouched(site, "apt-get -s purge incus-base", says="Purg incus-base", said=(QUESTION,))
    untouched(site, "apt-get -s remove incus-base", says="Remv incus-base", code=0, said=(REMOVING,))
    untouched(site, "apt-get -s -q autoremove --purge")
    # It is really asked: only "y" is a yes.
    untouched(site, "echo n | apt-get purge incus-base", code=1, says="Abort.", said=(QUESTION,))
    assert site.m.run(["ls", "-A", "/run/leftovers"]).out == ""
    unchanged(site, earlier)


# Every program of ours that a package manager runs, run by somebody else.
DIRECTLY = f"""
export DPKG_HOOK_ACTION=purge DPKG_MAINTSCRIPT_PACKAGE=incus-base DPKG_MAINTSCRIPT_NAME=prerm APT_HOOK_INFO_FD=20
for hook in "dpkg-step pre" "dpkg-step post" apt-done apt-question "maintainer prerm incus remove" \\
    "maintainer postrm incus purge" "maintainer postinst incus abort-remove"; do
    {HOOKS}/$hook </dev/null
done
printf 'VERSION 3\\n\\nincus-base 6 amd64 none > - - none **REMOVE**\\n' >$HOME/list
{HOOKS}/apt-packages 20<$HOME/list
for hook in {HOOKS}/*.py; do
    for words in "" "incus remove" "incus purge" "1"; do python3 -I $hook $words </dev/null; done
done
:
"""


def test_somebody_who_is_not_root(site: Site) -> None:
    m = site.m
    m.run("install -d -o 1000 -g 1000 /var/cache/apt/lab/home")
    user = "env HOME=/var/cache/apt/lab/home setpriv --reuid 1000 --regid 1000 --clear-groups bash -c "
    earlier = m.snapshot()
    for command in ("dpkg -P incus-base", "dpkg -r incus-base"):
        untouched(site, user + shlex.quote(command), code=2, says="requires superuser privilege")
    untouched(site, user + shlex.quote("apt-get -y purge incus-base"), code=100, says="are you root")
    m.run(old_dpkg("--version"))
    out = untouched(site, user + shlex.quote(old_dpkg("-P", "incus-base")), says="hook 0")
    assert out == "hook 0\n"
    assert untouched(site, user + shlex.quote(DIRECTLY)) == ""
    unchanged(site, earlier)


def test_other_packages(site: Site) -> None:
    """Steps of dpkg and apt that are not about Incus, and one that was selected for a purge that nobody makes."""
    m = site.m
    lone = site.package("lone")
    earlier = m.snapshot()
    untouched(site, "dpkg --configure -a")
    untouched(site, "dpkg --triggers-only -a")
    untouched(site, f"dpkg -i {lone}; dpkg -P lone")
    untouched(site, f"dpkg -i {lone}; apt-get -y -q purge lone", says="Removing lone")
    untouched(site, f"dpkg -i {lone}; apt-mark auto lone; apt-get -y -q autoremove --purge", says="Removing lone")
    # A purge of it that failed has left this selection; apt, which does something else, does not carry it out.
    m.run("echo incus-base purge | dpkg --set-selections")
    untouched(site, f"dpkg -i {lone}; apt-get -y -q purge lone", says="Removing lone")
    untouched(site, f"dpkg -i {lone}; dpkg -P lone", says="Removing lone")
    m.run("echo incus-base install | dpkg --set-selections")
    assert state(site) == "installed"
    assert m.run(["ls", "-A", "/run/leftovers"]).out == ""
    unchanged(site, earlier)


def test_another_root(site: Site) -> None:
    """A removal from a chroot, and with dpkg's own --root and --admindir: the kernel is the same, Incus is not."""
    m = site.m
    earlier = m.snapshot()
    m.run(
        """
        mkdir -p /var/cache/apt/lab/over
        mount -t tmpfs over /var/cache/apt/lab/over
        cd /var/cache/apt/lab/over
        mkdir upper work root
        mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work over root
        """
    )
    other = "/var/cache/apt/lab/over/root"
    renew = f"rm -rf {other}/var/lib/dpkg; cp -a /var/lib/dpkg {other}/var/lib/; for f in $(grep -e /usr/lib -e /etc "
    renew = f"{renew} {INFO}/incus-base.list); do [ ! -f $f ] || cp -a --parents $f {other}; done; "
    try:
        # Without /proc, as debootstrap makes it; with it; and with all that a person mounts who repairs a system.
        untouched(site, f"chroot {other} dpkg -P incus-base", says="Purging configuration files for incus-base")
        m.run(f"{renew} mount -t proc proc {other}/proc")
        untouched(site, f"chroot {other} dpkg -P incus-base", says="Purging configuration files for incus-base")
        m.run(f"{renew} umount {other}/proc; for d in proc sys dev run; do mount --rbind /$d {other}/$d; done")
        m.run(f"mount --make-rslave {other}")
        untouched(site, f"chroot {other} dpkg -P incus-base", says="Purging configuration files for incus-base")
        m.run(renew)
        untouched(
            site,
            f"chroot {other} apt-get -y -q purge incus-base",
            says="Purging configuration files for incus-base",
        )
        m.run(renew)
        untouched(site, f"dpkg --root={other} -P incus-base", says="Purging configuration files for incus-base")
        m.run(renew)
        untouched(site, f"DPKG_ROOT={other} dpkg -P incus-base", says="Purging configuration files for incus-base")
    finally:
        m.run(f"umount -l {other}; umount -l /var/cache/apt/lab/over")
    # Its files are named by nobody there: dpkg forgets the package, and the host keeps it.
    m.run(
        f"""
        cp -a /var/lib/dpkg {BUILD}/admin
        cd {BUILD}/admin/info
        rm incus-base.*
        echo /. >incus-base.list
        """
    )
    untouched(site, f"dpkg --admindir={BUILD}/admin -P incus-base", says="Removing incus-base")
    m.run(f"rm -rf {BUILD}/admin {BUILD}/over")
    assert state(site) == "installed"
    assert m.run(["ls", "-A", "/run/leftovers"]).out == ""
    unchanged(site, earlier)


@pytest.mark.full
def test_other_versions(site: Site) -> None:
    """Reinstalled, upgraded, downgraded, deconfigured."""
    m = site.m
    earlier = network(site)
    site.no_restarts()
    untouched(site, "apt-get install -y -q --reinstall --no-download incus-base")
    version = m.run(["dpkg-query", "-W", "-f", "${Version}", "incus-base"]).out
    untouched(site, f"dpkg -i {site.repacked('incus-base', f'{version}+lab1')}", says="Unpacking incus-base")
    untouched(site, f"apt-get install -y -q {site.repacked('incus-base', f'{version}+lab2')}", says="+lab2) over")
    untouched(site, f"dpkg -i {site.repacked('incus-base', f'{version}+lab1')}", says="downgrading incus-base")
    untouched(site, f"apt-get install -y -q --allow-downgrades incus-base={version}", says="downgrading incus-base")
    # abort-upgrade
    broken = site.repacked("incus-base", f"{version}+lab3", preinst="exit 3")
    untouched(site, f"dpkg -i {broken}", code=1, says="pre-installation script subprocess returned error")

    breaks = site.package("breaks", "Breaks: incus-base\n")
    untouched(site, f"dpkg -i {breaks}", code=1, says="auto-deconfigure")
    untouched(site, f"dpkg --auto-deconfigure -i {breaks}", code=1, says="De-configuring incus-base")
    assert state(site) == "unpacked" or state(site) == "half-configured"
    untouched(site, "dpkg -P breaks && dpkg --configure -a", says="Setting up incus-base")
    site.restarts()
    assert state(site) == "installed"
    assert m.run(["ls", "-A", "/run/leftovers"]).out == ""
    now = network(site)
    found = hoststate.compare(earlier, now, [LATER])
    assert hoststate.count(found) == 0, hoststate.render(found)


def test_replaced_by_a_package_of_the_same_product(site: Site) -> None:
    """As in Ubuntu 24.04, where the daemon is in `incus`; and back to Debian's."""
    m = site.m
    site.no_restarts()
    version = m.run(["dpkg-query", "-W", "-f", "${Version}", "incus-base"]).out
    fields = "Provides: incus-base\nReplaces: incus-base\nConflicts: incus-base\n"
    incus_deb = site.repacked("incus", f"{version}+lab", fields)
    earlier = network(site)
    back = "apt-get install -y -q --no-download incus-base"
    untouched(site, f"dpkg -i {incus_deb}", says="Removing incus-base")
    assert (state(site), state(site, "incus")) == ("config-files", "installed")
    untouched(site, back, says="Removing incus (")
    assert (state(site), state(site, "incus")) == ("installed", "config-files")
    # Debian's own scripts would delete Incus' data in a purge, as if nothing came in its place.
    m.run(f"sed -i 's/^ *rm --one-file-system .*/:/' {INFO}/incus-base.postrm")
    untouched(site, f"apt-get install -y -q --purge {incus_deb}", says="Purging configuration files for incus-base")
    assert state(site, "incus") == "installed"
    untouched(site, back, says="Removing incus (")
    # What is left of the one is purged while the other stands.
    m.run(f"sed -i 's/^ *rm --one-file-system .*/:/' {INFO}/incus.postrm")
    untouched(site, "dpkg -P incus", says="Purging configuration files for incus")
    m.run("dpkg -i /var/cache/apt/archives/incus-base_*.deb")  # its units are enabled no more
    site.restarts()
    assert state(site) == "installed"
    assert m.run(["ls", "-A", "/run/leftovers"]).out == ""
    found = hoststate.compare(earlier, network(site), [LATER])
    assert hoststate.count(found) == 0, hoststate.render(found)


# -- a removal that does not come to pass: before anything was stopped ----------------------------------------------


def test_refused(site: Site) -> None:
    """By a dependant, by somebody else's script that has its turn first, by a lock, by the administrator's wish."""
    m = site.m
    needs = site.package("needs", "Depends: incus-base\n")
    fails = site.package("fails", "Depends: incus-base\n", prerm='[ "$1" != remove ] || exit 5')
    alone = site.package("alone", prerm='[ "$1" != remove ] || exit 5')
    earlier = m.snapshot()

    m.run(["dpkg", "-i", needs])
    untouched(site, "dpkg -P incus-base", code=1, says="needs depends on incus-base")
    untouched(site, "dpkg -r incus-base", code=1, says="needs depends on incus-base")
    untouched(site, "dpkg -P lxcfs incus-base", code=1, says="needs depends on incus-base")
    m.run(["dpkg", "-P", "needs"])

    script = "pre-removal script subprocess returned error exit status 5"
    m.run(["dpkg", "-i", fails])
    untouched(site, "dpkg -P fails incus-base", code=1, says=script)
    untouched(site, "apt-get -y -q purge incus-base", code=100, says=script, said=(QUESTION,))
    untouched(site, "apt-get -y -q remove incus-base", code=100, says=script, said=(REMOVING,))
    m.run(f"rm {INFO}/fails.prerm; dpkg -P fails")
    m.run(["dpkg", "-i", alone])
    untouched(site, "dpkg --abort-after=1 -P alone incus-base", code=1, says=script)
    m.run(f"rm {INFO}/alone.prerm; dpkg -P alone")

    with failing_prerm(site):  # nothing is stopped for a removal that is no purge, so nothing is started
        untouched(site, "dpkg -r incus-base", code=1, says="error exit status 7")
        untouched(site, "apt-get -y -q remove incus-base", code=100, says="error exit status 7", said=(REMOVING,))
    assert state(site) == "installed"
    # which the tests before this one may have cost it, and its postinst abort-remove brings back
    unchanged(site, earlier, keep=(r"file /etc/runit/",))


# Holds dpkg's locks as dpkg does: lockf(3), which is fcntl(2)'s.
HOLD = """
import fcntl, sys, time
files = [open(f"/var/lib/dpkg/{name}", "r+") for name in sys.argv[1:]]
for file in files:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
open("/run/lab-locked", "w").close()
time.sleep(60)
"""


def test_locked(site: Site) -> None:
    m = site.m
    earlier = m.snapshot()
    m.write(f"{BUILD}/hold", HOLD)
    for names in ("lock-frontend lock", "lock"):
        holder = m.spawn(f"exec python3 {BUILD}/hold {names}")
        m.run("while [ ! -e /run/lab-locked ]; do sleep 0.05; done; rm /run/lab-locked")
        try:
            untouched(site, "dpkg -P incus-base", code=2, says="lock was locked by ")
            said = () if "-" in names else None
            untouched(site, "apt-get -y -q purge incus-base", code=100, says="lock", said=said)
        finally:
            m.run(["kill", str(holder.pid)])
            holder.outer.wait(10)
    unchanged(site, earlier)


# -- a removal that does not come to pass: when the stop had begun --------------------------------------------------


@pytest.mark.parametrize(
    "command",
    ["dpkg -P incus-base", pytest.param("apt-get -y -q purge incus-base", marks=pytest.mark.full)],
    ids=["dpkg", "apt"],
)
def test_its_own_prerm_fails(site: Site, command: str) -> None:
    earlier, lives = skeleton(site), site.lives()
    with failing_prerm(site):
        done = site.m.run(f"exec 2>&1; {command}", check=False)
    said = [QUESTION, ASKING, AGAIN] if "apt" in command else [ASKING, AGAIN]
    assert told(done.out, said), done.out
    assert done.code == (100 if "apt" in command else 1), done.out
    assert state(site) == "installed"
    again(site, earlier, lives, done.out)


@pytest.mark.full
def test_its_own_prerm_stops_the_daemon_and_fails(site: Site) -> None:
    """As the one of Incus 7.0 does; its postinst starts it again."""
    earlier, lives = skeleton(site), site.lives()
    with failing_prerm(site, "systemctl stop incus.service incus.socket"):
        done = site.m.run("exec 2>&1; dpkg -P incus-base", check=False)
    assert told(done.out, [ASKING, AGAIN]), done.out
    assert state(site) == "installed"
    again(site, earlier, lives, done.out, daemon=False)


@pytest.mark.parametrize(
    "command",
    ["dpkg -P incus-base", pytest.param("apt-get -y purge incus-base", marks=pytest.mark.full)],
    ids=["dpkg", "apt"],
)
def test_interrupted(site: Site, command: str) -> None:
    """Ctrl-C while we ask instances to shut down. apt does not care for it, and goes on: there the prerm fails, too."""
    earlier, lives = skeleton(site), site.lives()
    with failing_prerm(site) if "apt" in command else contextlib.nullcontext():
        done = site.terminal(command, ASKING, "^C")
    assert state(site) == "installed", f"{done['out']}\n{done}"
    again(site, earlier, lives, done)
    assert done["out"].count(AGAIN) == 1, done
    assert done["code"] != 0, done
    assert done["ended"] - done["acted"] < 25, done


@pytest.mark.parametrize(
    "command",
    ["dpkg -P incus-base", pytest.param("apt-get -y -q purge incus-base", marks=pytest.mark.full)],
    ids=["dpkg", "apt"],
)
def test_dpkg_is_killed(site: Site, command: str) -> None:
    earlier, lives = skeleton(site), site.lives()
    done = site.terminal(command, ASKING, "kill -9 $(pgrep -x dpkg)")
    assert state(site) == "half-configured", done
    again(site, earlier, lives, done)
    site.no_restarts()
    selections = "echo incus-base install | dpkg --set-selections"
    untouched(site, f"{selections}; dpkg --configure -a", says="Setting up incus-base")
    site.restarts()
    assert state(site) == "installed"
    assert done["out"].count(AGAIN) == 1, done


WATCHER = "pgrep -f [/]leftovers/hooks/dpkg-pre.py"  # but not what has this in its own arguments


@pytest.mark.parametrize("who", ["all", *(pytest.param(w, marks=pytest.mark.full) for w in ("guard", "worker"))])
def test_watcher_is_killed(site: Site, who: str) -> None:
    """dpkg goes on at once, and what comes after it starts again what was stopped."""
    earlier, lives = skeleton(site), site.lives()
    choose = {"all": "cat", "guard": "head -n 1", "worker": "tail -n 1"}[who]
    with failing_prerm(site):
        done = site.terminal("dpkg -P incus-base", ASKING, f"kill -9 $({WATCHER} | sort -n | {choose})")
        ran = float(site.m.read("/run/lab-prerm"))
    assert ran - done["acted"] < 1, done
    assert AGAIN in done["out"], done
    assert state(site) == "installed"
    again(site, earlier, lives, done, all_asked=False)


@pytest.mark.parametrize(
    "second",
    ["dpkg -P incus-base", pytest.param("apt-get -y -q purge incus-base", marks=pytest.mark.full)],
    ids=["dpkg", "apt"],
)
def test_two_at_once(site: Site, second: str) -> None:
    """The second is refused by a lock, and does not take the first one's removal away from it."""
    earlier, lives = skeleton(site), site.lives()
    with failing_prerm(site):
        done = site.terminal("dpkg -P incus-base", ASKING, second)
    assert done["other"]["code"] != 0 and "lock" in done["other"]["out"], done
    assert done["out"].count(AGAIN) == 1, done
    assert ours(done["other"]["out"]) == [], done
    again(site, earlier, lives, done)


# -- and in the end --------------------------------------------------------------------------------------------------


def swept(site: Site, said: str) -> None:
    same(site.m, site.before, keep=[*KEPT, r"file /srv/pool/"], said=said)
    lines = [line for line in ours(said) if line.startswith("leftovers: Incus: ") and "nothing is left" in line]
    assert len(lines) == 1, said


def test_at_last(site: Site, sites: Sites) -> None:
    """With the record of a removal that nobody finished: Incus is purged, and the host is what it was."""
    m = site.m
    try:
        # As a hook writes it, of a dpkg that is no more.
        m.run(
            """
            mkdir -p -m 0700 /run/leftovers/saved/hooks
            echo '{"owner": {"pid": 4000000, "start": 1}, "going": {"incus": {"packages": ["incus-base"],
                "sweep": true, "purge": true, "swept": true}}, "meta": {}}' >/run/leftovers/removal.json
            echo '4000000 1' >/run/leftovers/owner
            """
        )
        done = m.run(["apt-get", "purge", "-y", "-q", *incus.PACKAGES], timeout=300)
        swept(site, done.out)
    finally:
        sites.drop()


@pytest.mark.full
@pytest.mark.parametrize(
    "action",
    [f"kill -9 $({WATCHER})", "dpkg -P incus-base", "sleep 2.5; dpkg -P incus-base; :"],
    ids=["watcher-killed", "second", "later"],
)
def test_disturbed(site: Site, sites: Sites, action: str) -> None:
    """A removal that comes to pass although the watcher is killed, or somebody else tries the same meanwhile."""
    try:
        done = site.terminal("dpkg -P incus-base incus-client lxcfs", ASKING, action)
        assert done["code"] == 0, done
        assert AGAIN not in str(done), done
        swept(site, done["out"])
    finally:
        sites.drop()
