"""What tells one member of the family from another: where its things are and what they are called.

Incus is a fork of LXD, and both run their containers with liblxc: what they leave has the same shapes. Rules and
readers of the family take one of these descriptions first (`rules` binds it), and rest on nothing that two members
share: the names of links and cgroups and the old range of hardware addresses are the same for all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

from leftovers.claims import Case, Finding, Rule
from leftovers.model import Object

# What each member calls its firewall tables, and itself in the comments of firewall rules.
FAMILY = {"incus": "Incus", "lxd": "LXD"}
# The range of LXC, LXD, Xen and of Incus before 6.0.1: it only counts beside other proof.
SHARED_OUI = "00:16:3e:"
# What lxc-net gives to lxcbr0, each time it makes it (LXC 6.0, config/init/common/lxc-net.in).
LXCBR0 = "10:66:6a:00:00:00"
CHAIN = re.compile(r"(fwd|in|out|pstrt|prert|acl|aclin|aclout|aclfwd|fwdprert|fwdout|fwdpstrt|egress\.netprio)\..+\Z")
NETWORK_CHAIN = re.compile(r"(fwd|in|out|pstrt)\.(?P<network>.+)\Z")
# lxc/src/lxc/cgroups/cgroup.h; a number follows when the name was taken, and "-1" may also be of the name itself.
PAYLOAD = r"/lxc\.payload\.[^/]+\Z"
MONITOR = r"/lxc\.monitor\.[^/]+\Z"
CLASH = re.compile(r"-[0-9]{1,3}\Z")
# Where a container's root is, in the directory of all pools (internal/server/storage/drivers/volume.go).
ROOTFS = r"/[^/]+/containers/[^/]+/rootfs(/|\Z)"
QEMU = tuple(f"qemu-system-{arch}" for arch in ("x86_64", "aarch64", "arm", "ppc64", "riscv64", "s390x"))
HELPERS = ("virtiofsd", "virtfs-proxy-helper", "swtpm", "lxcfs")
HELPER = "a helper of an instance"
# What a network's own tables and sets are called (drivers_nftables_templates.go); a name always follows the dot.
SETS = re.compile(r"bridges\Z|.+_(ipv4|ipv6|eth)\Z")
# Where they mount in their directory (internal/server/sys/fs.go, storage/drivers, device/disk.go).
MOUNTED = ("shmounts", "guestapi", "devlxd", "devices", "storage-pools", "containers", "virtual-machines")
# What they make in their directory (internal/server/sys/fs.go; LXD 5.0 lxd/sys/fs.go).
LAYOUT = frozenset(
    (
        *("backups", "containers", "containers-snapshots", "database", "devices", "disks", "guestapi", "devlxd"),
        *("images", "logs", "networks", "security", "shmounts", "snapshots", "storage-pools", "virtual-machines"),
        *("virtual-machines-snapshots", "server.crt", "server.key", "server.ca", "cluster.crt", "cluster.key"),
        *("unix.socket", "unix.socket.user", "seccomp.socket"),
    )
)

# Where members have their data, and others what looks the same (containers, devices): no daemon's word makes one of
# these another's.
DIRECTORIES = (
    *("/var/lib/incus", "/var/lib/lxd", "/var/snap/lxd/common/lxd", "/var/lib/lxc", "/var/lib/lxcfs"),
    *("/var/lib/docker", "/var/lib/containers", "/var/lib/containerd", "/var/lib/kubelet", "/var/lib/machines"),
    *("/var/snap/docker", "/var/snap/microk8s", "/var/snap/k8s"),
)


@dataclass(frozen=True)
class Names:
    """
    name, title   as Product has them; the name is also in chains, tables and profiles, the title in comments
    directory     where its data is
    run           where each running instance has a directory with its lxc.conf or qemu.conf
    own           its directories besides those, with what Directory wants to know: path, whether a purge deletes it
                  (else it ends with the daemon), and whose word that is
    daemons       the daemon's file, in all layouts
    helpers       the files of its other daemons
    units         its systemd units
    variable      the environment's word for its directory
    points        where its containers have what the daemon mounts into all of them, and their part of shmounts
    ouis          ranges of hardware addresses that nobody else of the family gives out (LXC 6 gives Incus' too)
    host_names    the prefix of links named for their address (instances.nic.host_name=mac)
    accounts      what its package adds and nothing else does: it outlives a purge, and tells that it has been here
    others        files of other products of liblxc
    client        the command that a person types
    package       the package of whose maintainer scripts its rules speak
    word          what it calls itself in the names of chains, tables and profiles, and in comments with FAMILY's title;
                  "": by its name
    twins         the data directories of other members that call themselves the same: what only has that word may be
                  theirs
    snap          the snap that it comes in, "" if none: its programs run from any revision of that
    mounted       where it mounts besides its directory: a directory, and the names in it
    """

    name: str
    title: str
    directory: str
    run: str
    own: tuple[tuple[str, bool, str], ...]
    daemons: tuple[str, ...]
    helpers: tuple[str, ...]
    units: tuple[str, ...]
    variable: str
    points: tuple[str, ...]
    ouis: tuple[str, ...]
    host_names: str
    accounts: tuple[str, ...]
    others: tuple[str, ...]
    client: str
    package: str
    word: str = ""
    twins: tuple[str, ...] = ()
    snap: str = ""
    mounted: tuple[str, tuple[str, ...]] = ("", ())

    @cached_property
    def possessive(self) -> str:
        return f"{self.title}'" if self.title.endswith("s") else f"{self.title}'s"

    @cached_property
    def called(self) -> str:
        return self.word or self.name

    @cached_property
    def programs(self) -> tuple[str, ...]:
        """Where its snap is mounted: in Debian /snap leads to nowhere else, in Fedora it is a symlink."""
        return (f"/snap/{self.snap}", f"/var/lib/snapd/snap/{self.snap}") if self.snap else ()

    def is_daemon(self, exe: str) -> bool:
        """Whether a file is its daemon's, of any revision of the snap."""
        program = re.fullmatch(rf"(/var/lib/snapd)?/snap/{re.escape(self.snap)}/[^/]+/bin/lxd", exe)
        return exe in self.daemons or bool(self.snap and program)

    @cached_property
    def socket(self) -> str:
        return f"{self.directory}/unix.socket"

    @cached_property
    def transient(self) -> re.Pattern[str]:
        """Names of links that say nothing (internal/server/network/network_utils.go, RandomDevName and MACDevName)."""
        return re.compile(rf"(veth|tap|mac)[0-9a-f]{{8}}\Z|({self.host_names}|ipvl)[0-9a-f]{{10}}\Z")

    @cached_property
    def comment(self) -> re.Pattern[str]:
        """The whole comment of each of its xtables rules (drivers_xtables.go: networkIPTablesComment and the like;
        what names may be: shared/validate, IsInterfaceName and IsDeviceName). One with a word more is a person's."""
        networks = r"(?P<kind>network(-forward|-load-balancer)?) (?P<of>[-_.a-zA-Z0-9]+)"
        devices = r"(container|instance) [^\s()]+ \([-_.:/a-zA-Z0-9]+\)( rpfilter| netprio)?"
        return re.compile(rf"generated for {FAMILY[self.called]} ({networks}|{devices})\Z")

    @cached_property
    def chain(self) -> re.Pattern[str]:
        """The names of the xtables driver's own chains."""
        return re.compile(rf"{self.called}_(nic|acl)_(?P<of>.+)\Z")

    @cached_property
    def rivals(self) -> dict[str, str]:
        """FAMILY without this one."""
        return {table: title for table, title in FAMILY.items() if table != self.called}


Named = Callable[[Names, Object, Case], Finding | None]


def rules(names: Names, *functions: Named) -> tuple[Rule, ...]:
    """Rules of the family as those of one member."""
    return tuple(partial(function, names) for function in functions)
