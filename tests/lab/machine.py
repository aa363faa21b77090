"""A throwaway Debian host with a real init, up in seconds: systemd-nspawn with namespaces of its own.

    with Machine() as m:
        m.run("apt-get install -y --no-download incus-base")
        print(m.run(["ip", "-br", "link"]).out)

Links, mounts, firewall rules, cgroups and processes of the host are its own; kernel modules, some sysctls and
loop devices are the machine's. The host has no network: what tests will install has been downloaded into its
/var/cache/apt/archives when its base was built. A base is built once per recipe and kept in
$LEFTOVERS_LAB_CACHE (/var/cache/leftovers-lab); each host is a copy of it, in memory,
mounted below $LEFTOVERS_LAB_SCRATCH (/var/tmp) where only the host sees it.

`python3 -m lab.machine [RECIPE]` (with tests/ in PYTHONPATH) builds a base and says where it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from lab import hoststate

PREREQUISITES = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "nsenter": "util-linux"}
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
    "TERM": "dumb",
}


# The root is a tmpfs that only nspawn's mount namespace has: copying into it takes a fifth of the time, no fsync waits,
# and the kernel takes it away with the last process of the host, whatever became of the tests.
UNPACK = """
mode=$1 base=$2 root=$3; shift 3
[ $mode = disk ] || mount -t tmpfs -o mode=755,size=75% lab "$root"
cp -a --reflink=auto "$base/." "$root"
touch "$root.unpacked"
exec "$@"
"""


class LabError(AssertionError):
    """The lab itself, or a command in a host, did not do what it was told."""


@dataclass(frozen=True)
class Recipe:
    """What a base is made of. Change anything and its hash changes, and so the base is built anew."""

    name: str
    suite: str
    include: tuple[str, ...]
    # Each tuple is one `apt-get install --download-only --no-install-recommends`: sets that conflict are separate.
    download: tuple[tuple[str, ...], ...]
    aptopts: tuple[str, ...] = ()
    # Debian's own clockwork would change the host between two snapshots.
    mask: tuple[str, ...] = (
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "dpkg-db-backup.timer",
        "e2scrub_all.timer",
        "fstrim.timer",
        "logrotate.timer",
        "man-db.timer",
        "systemd-tmpfiles-clean.timer",
    )
    version: int = 2  # raise it when build() changes
    # A script in lab/data that the base runs when it boots for the first time: what it made is in the base.
    first_boot: str = ""

    @property
    def key(self) -> str:
        parts = [self.suite, self.include, self.download, self.aptopts, self.mask, self.version]
        text = json.dumps([*parts, *([self.script] if self.first_boot else [])])
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def script(self) -> str:
        return (Path(__file__).parent / "data" / self.first_boot).read_text()


TOOLS = (
    # a host
    *("systemd", "systemd-sysv", "dbus", "udev", "iproute2", "procps", "nftables", "iptables", "ebtables"),
    *("e2fsprogs", "btrfs-progs", "attr", "acl", "rsync", "xz-utils", "util-linux-extra"),
    # what leftovers depends on
    *("python3", "python3-nftables", "python3-pyroute2", "python3-psutil", "python3-debian", "python3-yaml"),
    # what products recommend and an administrator has: theirs, so that a purge of the product leaves them alone
    *("dnsmasq-base", "uidmap", "busybox-static", "squashfs-tools", "fuse3", "ca-certificates", "openssl"),
    # libraries of products: a purge leaves them to autoremove, and here they only cost time at each installation
    *("libcowsql0", "liblxc1t64", "liblxc-common", "squashfs-tools-ng", "runit-helper"),
)
# The libraries of LXD, where Incus' are not of the same use.
LXD = (*(tool for tool in TOOLS if tool not in ("libcowsql0", "squashfs-tools-ng")), "libdqlite0")
# What virtual machines run on: it is the administrator's, as Incus only recommends it.
VIRTUAL = ("qemu-system-x86", "qemu-system-modules-spice", "qemu-utils", "ovmf", "seabios", "swtpm", "virtiofsd")
# What the tests of code need besides what leftovers depends on.
PYTEST = (
    *(tool for tool in TOOLS if not tool.startswith(("lib", "util-linux", "squashfs", "runit"))),
    "python3-pytest",
)
# Its Release file may be expired.
SID = ('Acquire::Check-Valid-Until "false"',)
# In a container snapd mounts with squashfuse. containerd is the administrator's, and what stand-ins are made of.
SNAPD = (
    *(tool for tool in TOOLS if not tool.startswith(("lib", "runit", "squashfs-tools-ng"))),
    *("snapd", "squashfuse", "containerd", "runc", "containernetworking-plugins", "ipset"),
)
# Docker's, containerd's and Podman's packages. What rootless Podman and networks need is the administrator's.
ENGINES = (*TOOLS, "tini", "slirp4netns", "passt", "fuse-overlayfs", "iputils-ping", "dbus-user-session", "ipvsadm")
DOCKER = ("docker.io", "docker-cli", "containerd", "runc")
PODMAN = ("podman", "netavark", "aardvark-dns", "conmon", "crun", "containernetworking-plugins")
# What Podman recommends and an administrator has for his users' containers.
PODMAN_HOST = (
    *(tool for tool in TOOLS if not tool.startswith(("lib", "runit", "squashfs", "dnsmasq"))),
    *("libpam-systemd", "dbus-user-session", "passt", "slirp4netns", "fuse-overlayfs", "libgpgme11t64", "libyajl2"),
)
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("incus-trixie", "trixie", TOOLS, (("incus-base", "incus-client", "lxcfs"),)),
        Recipe("lxd-trixie", "trixie", LXD, (("lxd", "lxd-client", "lxcfs"),)),
        Recipe("incus+lxd-trixie", "trixie", TOOLS, (("incus-base", "incus-client", "lxd", "lxd-client", "lxcfs"),)),
        Recipe(
            "ovn-trixie",
            "trixie",
            (*TOOLS, "openvswitch-switch", "ovn-central", "ovn-host"),
            (("incus-base", "incus-client", "lxcfs"),),
        ),
        Recipe(
            "lxd-bookworm",
            "bookworm",
            (*(tool for tool in LXD if tool not in ("liblxc1t64", "util-linux-extra")), "liblxc1"),
            (("lxd", "lxd-client", "lxcfs"),),
        ),
        Recipe("vms-trixie", "trixie", (*TOOLS, *VIRTUAL), (("incus-base", "incus-client", "lxcfs"),)),
        # LXC's own tools and libvirt's network (without QEMU) stand on the host from the start.
        Recipe(
            "neighbours-trixie",
            "trixie",
            (*TOOLS, *("lxc", "libvirt-daemon", "libvirt-daemon-config-network", "libvirt-clients", "squashfuse")),
            (("incus-base", "incus-client", "lxd", "lxd-client", "lxcfs"),),
        ),
        # Incus 7 depends on skopeo; libfuse3-4 is lxcfs'.
        Recipe("incus-sid", "sid", (*TOOLS, "skopeo", "libfuse3-4"), (("incus-base", "incus-client", "lxcfs"),), SID),
        Recipe("podman-trixie", "trixie", PODMAN_HOST, (("podman", "netavark", "aardvark-dns", "passt", "catatonit"),)),
        Recipe(
            "podman-bookworm",
            "bookworm",
            (
                *(
                    tool
                    for tool in PODMAN_HOST
                    if tool not in ("passt", "libgpgme11t64", "util-linux-extra", "libyajl2")
                ),
                *("libgpgme11", "libyajl2"),
            ),
            (
                # Its crun wants to raise a limit that the machine has set.
                ("podman", "netavark", "aardvark-dns", "catatonit", "runc"),
            ),
        ),
        Recipe(
            "podman+incus-trixie",
            "trixie",
            (*PODMAN_HOST, *(tool for tool in TOOLS if tool.startswith(("lib", "squashfs", "runit", "dnsmasq")))),
            (("podman", "netavark", "aardvark-dns", "passt", "catatonit"), ("incus-base", "incus-client", "lxcfs")),
        ),
        Recipe("tests-sid", "sid", PYTEST, (), SID),
        Recipe("tests-trixie", "trixie", PYTEST, ()),
        Recipe("tests-bookworm", "bookworm", PYTEST, ()),
        Recipe("snapd-trixie", "trixie", SNAPD, (), first_boot="snapd.sh"),
        Recipe("snapd-sid", "sid", SNAPD, (), SID, first_boot="snapd.sh"),
        # The libraries of LXD and Incus; of LXD itself only what its package unpacks to (lab/lxd_snap.py).
        Recipe(
            "lxd-snap-trixie",
            "trixie",
            (
                *SNAPD,
                *(tool for tool in TOOLS if tool.startswith(("lib", "squashfs", "runit"))),
                "libdqlite0",
                "libfuse3-4",
            ),
            (("lxd", "lxd-client", "lxcfs"), ("incus-base", "incus-client", "lxcfs")),
            first_boot="snapd.sh",
        ),
        # None of it is installed at start: whoever tests one of them has the others beside it, or not.
        Recipe("docker-trixie", "trixie", ENGINES, (DOCKER, PODMAN)),
        Recipe("docker-sid", "sid", ENGINES, (DOCKER, PODMAN), SID),
        # All of them on one host, and Incus (test_explain.py).
        Recipe("many-trixie", "trixie", (*ENGINES, "ipset"), (("incus-base", "incus-client", "lxcfs"), DOCKER, PODMAN)),
    )
}


# -- the base --------------------------------------------------------------------------------------------------


def prerequisites() -> None:
    missing = [package for tool, package in PREREQUISITES.items() if not shutil.which(tool)]
    if missing:
        raise LabError(f"the lab needs {', '.join(missing)}: `make deps` installs them")
    if os.geteuid() != 0:
        raise LabError("the lab needs root (systemd-nspawn makes hosts with a real init)")


def deb822(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a .sources file."""
    for paragraph in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields:
            yield fields


def sources(etc: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """(uri, suites, components) of every enabled binary archive, in both of apt's formats."""
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]:
        for line in path.read_text().splitlines() if path.exists() else ():
            found = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+([^#]*)", line)
            if found:
                yield found[1], [found[2]], found[3].split()
    for path in sorted((etc / "sources.list.d").glob("*.sources")):
        for fields in deb822(path.read_text()):
            if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() not in ("no", "false"):
                for uri in fields.get("uris", "").split():
                    yield uri, fields.get("suites", "").split(), fields.get("components", "").split()


def mirror(etc: Path = Path("/etc/apt")) -> str:
    """The Debian archive that this machine itself uses. It is read here, each time, and kept nowhere."""
    chosen = os.environ.get("LEFTOVERS_LAB_MIRROR")
    if chosen:
        return chosen
    for uri, suites, components in sources(etc):
        # the main archive carries every suite; the security archive and third parties' do not
        if "main" in components and uri.rstrip("/").endswith("/debian") and not any("/" in s for s in suites):
            return uri
    raise LabError("no Debian archive in this machine's apt sources: set LEFTOVERS_LAB_MIRROR")


def cache() -> Path:
    return Path(os.environ.get("LEFTOVERS_LAB_CACHE", "/var/cache/leftovers-lab"))


def base(recipe: Recipe, make: Callable[[Recipe, Path], None] | None = None) -> Path:
    """The directory of the recipe's root file system, built if need be. Other builders wait for the first.

    `make` builds something else of the recipe (lab/guest.py: an image)."""
    prerequisites()
    target = cache() / recipe.key
    if target.is_dir():
        return target
    cache().mkdir(parents=True, exist_ok=True)
    with open(cache() / f"{recipe.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():
            return target
        half = cache() / f"{recipe.key}.tmp"
        remove_tree(half)  # of a builder that died
        try:
            (make or build)(recipe, half)
            half.rename(target)
        except BaseException:
            remove_tree(half)
            raise
        for other in cache().glob(f"{recipe.name}-*"):
            # nobody reads an old base: a host is a copy. A copy under way fails, and that test run began before.
            if other != target:
                remove_tree(other)
    return target


def build(recipe: Recipe, root: Path) -> None:
    downloads = "; ".join(
        'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get install -y -q --download-only --no-install-recommends '
        + " ".join(group)
        for group in recipe.download
    )
    tool(
        "mmdebstrap",
        "--mode=root",
        "--variant=important",
        f"--include={','.join(recipe.include)}",
        # Thousands of files that each host would copy and no test reads. The option is only mmdebstrap's: what a
        # test installs is unpacked whole.
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        *(f"--aptopt={option}" for option in recipe.aptopts),
        "--skip=cleanup/apt",
        f'--customize-hook=set -e; rm -f "$1"/var/cache/apt/archives/*.deb; {downloads or ":"}',
        recipe.suite,
        str(root),
        mirror(),
    )
    for path in (root / "etc/dpkg/dpkg.cfg.d").glob("*mmdebstrap*"):
        path.unlink()
    # A throwaway host need not survive a power cut: dpkg's fsyncs are most of the time of an installation.
    (root / "etc/dpkg/dpkg.cfg.d/lab").write_text("force-unsafe-io\n")
    # The archive of the host is the directory of what was downloaded. Without the suite's index (50 MB) apt starts
    # at once, and no mirror's name is in the base.
    archives = root / "var/cache/apt/archives"
    (archives / "Packages").write_text("".join(stanza(deb) for deb in sorted(archives.glob("*.deb"))))
    for path in [*(root / "etc/apt/sources.list.d").iterdir(), *(root / "var/lib/apt/lists").glob("*_*")]:
        path.unlink()
    for path in (root / "var/cache/apt").glob("*.bin"):
        path.unlink()
    (root / "etc/apt/sources.list").write_text("deb [trusted=yes] file:/var/cache/apt/archives ./\n")
    (root / "etc/hostname").write_text("lab\n")
    for unit in recipe.mask:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    tool("chroot", str(root), "apt-get", "-q", "update")
    if recipe.first_boot:
        with Machine(recipe, disk=True, of=root) as m:
            m.run(recipe.script, timeout=600)
            m.halt()
            remove_tree(root)
            shutil.move(m.root, root)


def stanza(deb: Path) -> str:
    control = tool("dpkg-deb", "-f", str(deb))
    digest = hashlib.sha256(deb.read_bytes()).hexdigest()
    return f"{control.rstrip()}\nFilename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n\n"


def tool(*argv: str) -> str:
    """Run a tool on the machine, in a mount namespace of its own: what it mounts never meets the machine's mounts."""
    done = subprocess.run(
        ["unshare", "--mount", "--propagation=private", *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
    )
    if done.returncode != 0:
        raise LabError(f"{argv[0]} failed ({done.returncode}):\n{tail(done.stderr)}")
    return done.stdout


def remove_tree(path: Path) -> None:
    """Delete a tree of ours, and only if nothing at all is mounted below it."""
    if not path.is_dir():
        return
    with open("/proc/self/mountinfo") as file:
        points = [hoststate.unescape(line.split()[4]) for line in file]
    for point in points:
        if point == str(path) or point.startswith(f"{path}/"):
            raise LabError(f"{point} is mounted: {path} is not removed")
    subprocess.run(["rm", "-rf", "--one-file-system", "--", str(path)], check=True)


def tail(text: str, lines: int = 40) -> str:
    return "\n".join(text.splitlines()[-lines:])


# -- the host --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Completed:
    out: str
    err: str
    code: int

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Process:
    """A process that was started in a host and not waited for. `pid` is its number in that host."""

    outer: subprocess.Popen[bytes]
    pid: int


@dataclass
class Machine:
    """A host. Use it as a context manager: it is gone at the end, whatever happened."""

    recipe: Recipe = field(default_factory=lambda: RECIPES["incus-trixie"])
    loop: bool = False  # bind the machine's loop devices into it
    disk: bool = False  # keep its root on disk (slower); so it is with loop, for a loop device outlives the memory
    of: Path | None = None  # a copy of this, not of the recipe's base
    seconds: dict[str, float] = field(default_factory=dict)  # what its making cost

    def __enter__(self) -> Machine:
        try:
            self.prepare()
            self.boot()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def prepare(self) -> None:
        """Make the scratch directory, locked for as long as this process lives. boot() puts the base into it."""
        self.base = self.of or self.find_base()
        scratch = Path(os.environ.get("LEFTOVERS_LAB_SCRATCH", "/var/tmp"))
        reap(scratch)
        self.directory = scratch / f"leftovers-lab.{secrets.token_hex(4)}"
        self.directory.mkdir(mode=0o700)
        self.lock = lock(self.directory)
        self.root = self.directory / "root"
        self.root.mkdir()

    def find_base(self) -> Path:
        return base(self.recipe)

    def boot(self) -> None:
        # A cgroup of its own: two hosts in the same one would see each other's units as strays, and kill them.
        self.cgroup = cgroup_root() / self.directory.name
        self.cgroup.mkdir()
        parent = os.getpid()

        def before_exec() -> None:
            # SIGTERM makes nspawn kill the host (--kill-signal) and clean up: also when the tests die
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
            (self.cgroup / "cgroup.procs").write_text("0")

        devices = ["/dev/fuse", "/dev/net/tun"]
        if self.loop:
            devices += ["/dev/loop-control", *sorted(str(p) for p in Path("/dev").glob("loop[0-9]*"))]
        began = time.time()
        with open(self.directory / "console", "wb") as console:
            self.nspawn = subprocess.Popen(
                [
                    *("unshare", "--mount", "--propagation=private", "sh", "-e", "-c", UNPACK, "unpack"),
                    *("disk" if self.disk or self.loop else "memory", str(self.base), str(self.root)),
                    "systemd-nspawn",
                    "--quiet",
                    f"--directory={self.root}",
                    # its own name on the machine: nspawn shares a directory in /run between hosts of one name
                    f"--machine={self.directory.name.replace('_', '-').replace('.-', '.').strip('-')}",
                    "--hostname=lab",
                    "--register=no",
                    "--keep-unit",
                    "--boot",
                    "--private-network",
                    "--capability=all",
                    "--system-call-filter=@known",
                    "--kill-signal=SIGKILL",
                    "--link-journal=no",
                    "--resolv-conf=off",
                    "--timezone=off",
                    *(f"--bind={device}" for device in devices),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                preexec_fn=before_exec,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        deadline = time.monotonic() + 60
        self.init: int | None = None
        while self.init is None:
            self.init = self.find_init()
            self.still_booting(deadline)
        self.identity = identity(self.init)
        # A login's processes live in a cgroup of the host too; what tests run would else be outside of its tree.
        self.home = self.cgroup / "payload" / "lab"
        while not self.home.is_dir():
            with contextlib.suppress(OSError):
                self.home.mkdir()
            self.still_booting(deadline)
        while True:
            state = self.run(["systemctl", "is-system-running"], check=False, timeout=10).out.strip()
            if state in ("running", "degraded"):
                break
            self.still_booting(deadline)
        # An unprivileged container may only mount a proc and a sysfs of its own where one is to be seen whole
        # (fs/namespace.c, mount_too_revealing), and nspawn of systemd 257 covers parts of both.
        self.run(
            "mkdir -p /dev/.lab/proc /dev/.lab/sys && mount -t proc proc /dev/.lab/proc && "
            "mount -t sysfs sysfs /dev/.lab/sys && mount -o remount,rw /dev/.lab/sys; "
            # as initramfs-tools mounts it on a real host
            "mount -o remount,noexec /run"
        )
        unpacked = (self.directory / "root.unpacked").stat().st_mtime
        self.seconds["unpack"] = unpacked - began
        self.seconds["boot"] = time.time() - unpacked

    def still_booting(self, deadline: float) -> None:
        if self.nspawn.poll() is not None or time.monotonic() > deadline:
            raise LabError(f"the host does not boot:\n{tail(self.console())}")
        time.sleep(0.02)

    def find_init(self) -> int | None:
        """The pid, on this machine, of the host's pid 1; None while there is none. Never 1, never our own."""
        try:
            children = Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children").read_text().split()
        except OSError:
            return None
        for child in children:
            try:
                status = Path(f"/proc/{child}/status").read_text()
                exe = os.readlink(f"/proc/{child}/exe")
                foreign = os.readlink(f"/proc/{child}/ns/pid") != os.readlink("/proc/self/ns/pid")
            except OSError:
                continue
            numbers = re.search(r"^NSpid:\s*(.*)$", status, re.M)
            # before its exec the child is still nspawn, on its way into the new root
            if foreign and numbers and numbers[1].split()[-1] == "1" and exe.endswith("/systemd"):
                return int(child)
        return None

    def enter(self) -> list[str]:
        """The words that make a command run inside. Refuses if the host's init is not, or is no more, what it was."""
        if self.init is None or self.init <= 1 or identity(self.init) != self.identity:
            raise LabError(f"the host is not running:\n{tail(self.console())}")
        assert self.identity[1] != os.readlink("/proc/self/ns/pid")
        environment = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        namespaces = ["-m", "-u", "-i", "-n", "-p", "-C", "--root"]
        return ["nsenter", "-t", str(self.init), *namespaces, "env", "-i", "-C", "/", *environment]

    def start(self, command: str | Sequence[str], stdin: Any, stdout: Any, stderr: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self.enter(), *words(command)],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=lambda: (self.home / "cgroup.procs").write_text("0"),
        )

    def run(
        self,
        command: str | Sequence[str],
        *,
        check: bool = True,
        timeout: float = 120,
        input: str | None = None,
    ) -> Completed:
        """Run argv, or text as a `bash -e` script, inside, and wait for it (not for what it put in the background)."""
        done = self.execute(command, (input or "").encode(), timeout)
        if check and done.code != 0:
            raise LabError(f"exit code {done.code}: {str(command)[:300]}\n{tail(done.out)}\n{tail(done.err)}")
        return done

    def execute(self, command: str | Sequence[str], given: bytes, timeout: float) -> Completed:
        # Files, not pipes: a daemon that a script started would keep a pipe open, and us waiting for its end.
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as stdin:
            stdin.write(given)
            stdin.seek(0)
            process = self.start(command, stdin, out, err)
            try:
                code = process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                said = f"{tail(text(out))}\n{tail(text(err))}\n{self.report()}"
                raise LabError(f"still running after {timeout} s: {str(command)[:300]}\n{said}") from None
            return Completed(text(out), text(err), code)

    def spawn(self, command: str | Sequence[str]) -> Process:
        """Start a process inside and leave it there."""
        outer = self.start(command, subprocess.DEVNULL, subprocess.DEVNULL, subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            # nsenter has to fork to be in the pid namespace: the process is its child
            with contextlib.suppress(OSError):
                for child in Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split():
                    numbers = re.search(r"^NSpid:\s*(.*)$", Path(f"/proc/{child}/status").read_text(), re.M)
                    if numbers and not os.readlink(f"/proc/{child}/exe").endswith(("/nsenter", "/env")):
                        return Process(outer, int(numbers[1].split()[-1]))
            if outer.poll() is not None:
                break
            time.sleep(0.005)
        raise LabError(f"did not start: {command}")

    def put(self, local: str | os.PathLike[str], remote: str) -> None:
        """Copy a file, or a directory's content, to the path `remote` inside."""
        local = Path(local)
        member = ["-C", str(local), "."] if local.is_dir() else ["-C", str(local.parent), local.name]
        archive = subprocess.run(["tar", "--owner=0", "--group=0", "-c", *member], stdout=subprocess.PIPE, check=True)
        script = 'mkdir -p "$1" && tar -C "$1" -x --no-same-owner'
        if not local.is_dir():
            script = 'mkdir -p "$(dirname "$1")" && tar -x -O >"$1"'
        if self.execute(["sh", "-c", script, "put", remote], archive.stdout, 60).code != 0:
            raise LabError(f"cannot put {local} to {remote}")

    def write(self, path: str, content: str) -> None:
        self.run(["sh", "-c", 'mkdir -p "$(dirname "$1")" && cat >"$1"', "write", path], input=content)

    def read(self, path: str) -> str:
        return self.run(["cat", path]).out

    def snapshot(self) -> dict[str, Any]:
        """The host's state, read by hoststate.py inside it (given on stdin: it leaves no file there)."""
        began = time.monotonic()
        program = Path(hoststate.__file__).read_text()
        state: dict[str, Any] = self.run(["python3", "-I", "-", "snapshot"], input=program).json()
        self.seconds["snapshot"] = time.monotonic() - began
        return state

    def is_up(self) -> bool:
        return self.nspawn.poll() is None

    def console(self) -> str:
        with contextlib.suppress(OSError):
            return (self.directory / "console").read_text(errors="replace")
        return ""

    def report(self) -> str:
        """What a person wants to see of the host when a test failed in it."""
        if not self.is_up():
            return f"the host is down; its console:\n{tail(self.console())}"
        looks = {
            "journal": "journalctl -q --no-pager -n 60 -o short-monotonic",
            "failed units": "systemctl --failed --no-legend --plain",
            "processes": "ps -eo pid,ppid,user,cgroup:40,args --no-headers | cut -c1-200 | tail -n 60",
            "links": "ip -br link",
        }
        parts = []
        for title, command in looks.items():
            try:
                parts.append(f"-- {title}\n{self.run(command, check=False, timeout=20).out.rstrip()}")
            except LabError as error:
                parts.append(f"-- {title}\n{error}")
        return "\n".join(parts)

    def halt(self) -> None:
        """Kill the host, without ceremony."""
        if hasattr(self, "nspawn") and self.nspawn.poll() is None:
            self.nspawn.terminate()
            try:
                self.nspawn.wait(10)
            except subprocess.TimeoutExpired:
                self.nspawn.kill()
                self.nspawn.wait()

    def stop(self) -> None:
        """Kill the host and remove its files: nothing of it is wanted any more."""
        self.halt()
        if hasattr(self, "cgroup"):
            remove_cgroup(self.cgroup)
        if hasattr(self, "directory"):
            detach_loops(self.root)
            remove_tree(self.directory)
            self.lock.close()


def words(command: str | Sequence[str]) -> list[str]:
    """A command as argv; text is a script."""
    return ["/bin/bash", "-e", "-c", command] if isinstance(command, str) else list(command)


def text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def identity(pid: int) -> tuple[str, str]:
    """(start time, pid namespace): what tells a process from a later one of the same number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[19], os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return "", ""


def lock(directory: Path) -> IO[str]:
    file = open(directory / "lock", "w")  # noqa: SIM115 - held until stop()
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file


def reap(scratch: Path) -> None:
    """Remove the hosts of test processes that were killed: their directories are there and nobody holds the lock."""
    for directory in scratch.glob("leftovers-lab.*"):
        if time.time() - directory.stat().st_mtime < 10:
            continue  # perhaps between its mkdir and its lock
        try:
            held = lock(directory)
        except OSError:
            continue
        with held:
            remove_cgroup(cgroup_root() / directory.name)
            detach_loops(directory / "root")
            remove_tree(directory)


def cgroup_root() -> Path:
    """Where this machine has its cgroup2 hierarchy."""
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            if right.split()[0] == "cgroup2":
                return Path(hoststate.unescape(left.split()[4]))
    raise LabError("this machine has no cgroup2 mounted: the lab's hosts need one")


def remove_cgroup(path: Path) -> None:
    """Kill what is in it and remove it with all below."""
    if not path.is_dir():
        return
    (path / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + 10
    while "populated 1" in (path / "cgroup.events").read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    for directory, _, _ in os.walk(path, topdown=False):
        os.rmdir(directory)


def detach_loops(root: Path) -> None:
    """Detach the loop devices whose file is below `root`: they are the machine's, and outlive the host.

    By inode: what path the kernel shows depends on who asks, and it was another mount namespace that opened the file.
    """
    listed = subprocess.run(
        ["losetup", "-J", "-l", "-O", "NAME,BACK-INO,BACK-MAJ:MIN"], capture_output=True, check=False
    )
    devices = json.loads(listed.stdout or "{}").get("loopdevices", [])
    if not devices:
        return
    ours = set()
    for directory, _, files in os.walk(root):
        for name in files:
            status = os.lstat(os.path.join(directory, name))
            ours.add((f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}", status.st_ino))
    for device in devices:
        if (device["back-maj:min"].strip(), device["back-ino"]) in ours:
            subprocess.run(["losetup", "-d", device["name"]], check=False)


if __name__ == "__main__":
    for word in sys.argv[1:] or sorted(RECIPES):
        began_at = time.monotonic()
        print(base(RECIPES[word]), f"{time.monotonic() - began_at:.1f} s")
