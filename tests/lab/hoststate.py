"""What a host looks like, and what is different from what it was. Stands alone: python3's own library, the host's
own tools, and none of leftovers' code, so that the two cannot share a blind spot.

    hoststate.py snapshot >before.json                      in the host
    hoststate.py compare before.json after.json [--keep RE] [--changed RE] [--lost RE] [--json]

A snapshot is {class: {key: value}}: classes are the kinds of things below (link, route, mount, process ...), a key
names a thing as a person would, and says nothing that differs from one boot or start to the next (pids, handles,
counters, ids); the value is what should not change about it. A comparison has four lists, each of "class key" lines:

    left        was not there before
    lost        was there before
    changed     is there, but not what it was: other attributes, or another process of the same name
    unreadable  what a snapshot could not read: as bad as a difference, for who knows

Exit code 0: no difference that the given expressions do not cover; 1: differences; 2: wrong use.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

State = dict[str, dict[str, Any]]

# -- noise: what a Debian host changes by itself, or at any installation of any package. One reason per line. --------

NOISE_FILES = {
    r"/etc/(passwd|group|shadow|gshadow|subuid|subgid)-?": "compared line by line (class account), and a backup",
    r"/etc/\.(pwd|updated)(\.lock)?": "locks and stamps of shadow and systemd",
    r"/etc/ld\.so\.cache": "ldconfig, at any installation of a library",
    r"/etc/(mtab|resolv\.conf)": "the kernel's and the lab's",
    r"/etc/apparmor\.d/cache(\.d)?(/.*)?": "AppArmor's cache, remade at will",
    r"/run/(systemd|udev|log|dbus|user|lock/subsys|credentials|initctl|utmp)(/.*)?": "init's own",
    r"/run/(mount|shm|host|blkid|network|agetty\.reload|motd.*)(/.*)?": "of the base system, and the lab's",
    r"/run/(adduser|dpkg.*|reboot-required.*)": "of package managers",
    r"/run/(cron.*|xtables\.lock)": "a daemon's and a tool's own",
    r"/run/lvm(/.*)?": "LVM's own: what it has seen online, and locks",
    r"/var/lib/(dpkg|apt|ucf|debconf|pam|polkit-1)(/.*)?": "package managers' own",
    r"/var/lib/systemd/(catalog|timers|linger|random-seed.*|timesync)(/.*)?": "init's own",
    r"/var/lib/systemd/deb-systemd-(helper|user-helper)-(enabled|masked)": "the empty directory that the helper keeps",
    r"/var/cache/(apt|debconf|man|ldconfig|apparmor)(/.*)?": "caches of package managers",
    r"/var/backups(/.*)?": "of dpkg's database",
    r"/var/log/(journal|apt|dpkg\.log|alternatives\.log|wtmp.*|btmp.*|lastlog|faillog)(/.*)?": "logs of the host",
    r"/var/lib/snapd/(state\.json|state\.lock|system-key|maintenance\.json)": "snapd's own; snaps are a class",
    r"/var/lib/snapd/(cache|assertions|cookie|errtracker\.db|inhibit)(/.*)?": "snapd's own",
    r"/var/(log|lib)/private": "made by systemd with any DynamicUser",
    r"/var/lib/misc/dnsmasq\.leases": "written by any dnsmasq, also the administrator's",
    r"/(var/)?tmp/systemd-private-.*": "private /tmp of services that come and go",
    r"/root/\.(bash_history|cache)(/.*)?": "the person's own traces",
}
NOISE_UNITS = {
    r"(run|user)-.*\.(scope|service)|user@.*|session-.*": "of logins",
    r"(apt-.*|dpkg-db-backup|e2scrub.*|fstrim|logrotate|man-db)\.(service|timer)": "Debian's clockwork",
    r"(ldconfig|systemd-.*)\.(service|socket)": "the host's own, started once per boot or on demand",
    r".*\.target": "what others want",
    r".*\.(device|slice|swap)": "mirrors of what udev, cgroups and /proc show",
}
NOISE_CGROUPS = {
    r"/lab(/.*)?": "what the tests run",
    r"/user\.slice(/.*)?": "of logins",
    r"/system\.slice/(run-|systemd-)[^/]*": "units that come and go",
    r"/[^/]*\.mount": "systemd's, mirror of a mount",
    r"/system\.slice/[^/]*\.mount": "systemd's, mirror of a mount",
}
NOISE_PROCESSES = {
    r"systemd-(userwork|hostnamed|timedated|localed|tmpfiles|udevd: worker|executor)": "on demand",
    r"\(sd-(pam|worker|mkdcreds|close)\)|\(udev-worker\)": "systemd's children",
    r"/usr/lib/systemd/systemd-(hostnamed|timedated|localed|userwork)": "on demand",
    r"dpkg-preconfigure|/usr/bin/dbus-launch": "of package managers",
}
NOISE_UNIX = {
    r"@[0-9a-f]{5}": "names that the kernel gave",
    r"@[0-9a-f]{16}/.*": "sd-bus connections, random names",
    r"/run/(systemd|udev|dbus)/.*": "init's own",
}

# Below these a file's content is the administrator's (or a package's configuration): it is hashed.
HASHED = ("/etc", "/srv", "/opt", "/root", "/home", "/usr/local", "/var/snap")
TREES = (*(tree for tree in HASHED if tree != "/var/snap"), "/run", "/var", "/snap", "/mnt", "/media", "/tmp")
# File systems whose files are no files, or whose walk could hang or never end.
UNWALKED = """
proc sysfs cgroup cgroup2 fuse fuseblk nsfs debugfs tracefs securityfs bpf mqueue
"""
# What the products of this project are known to set.
SYSCTLS = """
fs.aio-max-nr fs.inotify.max_queued_events fs.inotify.max_user_instances fs.inotify.max_user_watches
fs.may_detach_mounts kernel.dmesg_restrict kernel.keys.maxbytes kernel.keys.maxkeys kernel.panic kernel.panic_on_oops
kernel.pid_max kernel.unprivileged_userns_clone net.bridge.bridge-nf-call-arptables
net.bridge.bridge-nf-call-ip6tables net.bridge.bridge-nf-call-iptables net.core.bpf_jit_limit net.core.rmem_max
net.core.wmem_max net.ipv4.conf.all.arp_notify net.ipv4.conf.all.forwarding net.ipv4.conf.all.proxy_arp
net.ipv4.conf.all.route_localnet net.ipv4.conf.all.rp_filter net.ipv4.conf.default.forwarding
net.ipv4.conf.default.rp_filter net.ipv4.ip_forward net.ipv4.neigh.default.gc_thresh3 net.ipv6.conf.all.accept_ra
net.ipv6.conf.all.disable_ipv6 net.ipv6.conf.all.forwarding net.ipv6.conf.all.proxy_ndp
net.ipv6.conf.default.accept_ra net.ipv6.conf.default.disable_ipv6 net.ipv6.conf.default.forwarding
net.ipv6.neigh.default.gc_thresh3 net.netfilter.nf_conntrack_max vm.max_map_count vm.overcommit_memory
"""


def noise(table: dict[str, str], name: str) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in table)


# -- reading ---------------------------------------------------------------------------------------------------------


class Reader:
    """Collects things and what could not be read."""

    def __init__(self) -> None:
        self.state: State = {}
        self.unreadable: list[str] = []

    def add(self, kind: str, key: str, value: Any = None) -> None:
        """Note a thing; a second of the same name is named #2, for two equal rules are two rules."""
        things = self.state.setdefault(kind, {})
        name, number = key, 1
        while name in things:
            number += 1
            name = f"{key} #{number}"
        things[name] = value

    def run(self, *argv: str, netns: str = "", may_fail: bool = False) -> str:
        """The output of a tool of the host; nothing, and a line in `unreadable`, when it fails."""
        enter = ["nsenter", f"--net={netns}"] if netns else []
        try:
            done = subprocess.run(
                [*enter, *argv], capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            if not may_fail:
                self.unreadable.append(f"{' '.join(argv)}: {error}")
            return ""
        if done.returncode != 0 and not may_fail:
            self.unreadable.append(f"{' '.join(argv)}: {done.stderr.decode(errors='replace').strip()}")
            return ""
        return done.stdout.decode(errors="replace")

    def json(self, *argv: str, netns: str = "", may_fail: bool = False) -> Any:
        output = self.run(*argv, netns=netns, may_fail=may_fail).strip()
        if not output:
            return []
        try:
            return json.loads(output)
        except ValueError as error:
            self.unreadable.append(f"{' '.join(argv)}: {error}")
            return []


def unescape(field: str) -> str:
    """A field of mountinfo: blanks and the like are octal."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), field)


def slurp(path: str) -> str:
    with open(path, errors="replace") as file:
        return file.read()


def without(value: Any, names: Iterable[str]) -> Any:
    """`value` without those members, at any depth."""
    names = set(names)
    if isinstance(value, dict):
        return {k: without(v, names) for k, v in value.items() if k not in names}
    if isinstance(value, list):
        return [without(v, names) for v in value]
    return value


def compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


# -- processes, and the namespaces that they hold --------------------------------------------------------------------


class Proc:
    """One process: read once, used by several classes."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        fields = slurp(f"/proc/{pid}/stat").rpartition(")")[2].split()
        self.ppid, self.start, self.zombie = int(fields[1]), fields[19], fields[0] in "ZX"
        # Of a host with a kernel of its own: they come and go, and none is anybody's.
        self.kernel = 2 in (pid, self.ppid)
        self.args = slurp(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
        lines = slurp(f"/proc/{pid}/cgroup").splitlines()
        self.cgroup = next((line[3:] for line in lines if line.startswith("0::")), "")
        self.uid = os.stat(f"/proc/{pid}").st_uid
        try:
            self.exe = os.readlink(f"/proc/{pid}/exe")
        except OSError:
            self.exe = "" if self.zombie else "?"  # a kernel thread has none
        # "unconfined", or AppArmor's profiles; EINVAL where no security module has a word for it
        self.label = slurp_or(f"/proc/{pid}/attr/current", "").rstrip("\0").strip()
        self.namespaces: dict[str, int] = {}
        for name in ("mnt", "net", "pid", "user", "cgroup", "ipc", "uts"):
            with contextlib.suppress(OSError):
                self.namespaces[name] = os.stat(f"/proc/{pid}/ns/{name}").st_ino


def processes() -> list[Proc]:
    """Every process but this one, what leads to it, and what it started."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                found.append(Proc(int(name)))
    parents = {p.pid: p.ppid for p in found}
    skip = set()
    pid = os.getpid()
    while pid > 1:
        skip.add(pid)
        pid = parents.get(pid, 0)
    return [p for p in found if p.pid not in skip and not p.kernel and parents.get(p.pid) != os.getpid()]


def namespaces(procs: list[Proc], kind: str) -> dict[int, tuple[str, str]]:
    """inode: (label, path) of each namespace that a process holds. Its label is "" for the host's own, else the
    programs in it: inodes say nothing to a person and are not the same after a service's restart."""
    own = os.stat(f"/proc/1/ns/{kind}").st_ino
    members: dict[int, list[Proc]] = collections.defaultdict(list)
    for proc in procs:
        if kind in proc.namespaces and not proc.zombie:
            members[proc.namespaces[kind]].append(proc)
    labels: dict[int, tuple[str, str]] = {own: ("", "")}
    used: collections.Counter[str] = collections.Counter()
    for inode, holders in sorted(members.items(), key=lambda item: min(int(p.start) for p in item[1])):
        if inode == own:
            continue
        programs = sorted({p.args.split(" ")[0] or p.exe for p in holders})
        programs = [program for program in programs if not noise(NOISE_PROCESSES, program)]
        if not programs:
            continue
        label = f"[{kind} of {','.join(programs)}]"
        used[label] += 1
        if used[label] > 1:
            label = f"{label[:-1]} #{used[label]}]"
        labels[inode] = (label, f"/proc/{holders[0].pid}/ns/{kind}")
    return labels


def read_processes(reader: Reader, procs: list[Proc]) -> None:
    init = next(p for p in procs if p.pid == 1)
    things: dict[str, list[str]] = collections.defaultdict(list)
    for proc in procs:
        name = proc.args or f"({slurp_or(f'/proc/{proc.pid}/comm')})"
        if proc.zombie and proc.cgroup == "/system.slice/systemd-udevd.service/udev":
            continue  # a worker of udev's that it has not waited for yet
        if (proc.exe == "" and not proc.zombie) or noise(NOISE_PROCESSES, proc.args.split(" ")[0]):
            continue
        foreign = sorted(n for n, inode in proc.namespaces.items() if init.namespaces.get(n) != inode)
        words = [name, f"exe={proc.exe}", f"cgroup={proc.cgroup}", f"uid={proc.uid}"]
        if foreign:
            words.append(f"own={','.join(foreign)}")
        if proc.label not in ("", "?", "unconfined"):
            words.append(f"label={proc.label}")
        if proc.zombie:
            words.append("zombie")
        # Not its number, but numbers and start times: another process under the same name is not the same process.
        things[" ".join(words)].append(f"{proc.pid}:{proc.start}")
    for key, numbers in things.items():
        for number in sorted(numbers):
            reader.add("process", key, number)


def slurp_or(path: str, default: str = "?") -> str:
    try:
        return slurp(path).strip()
    except OSError:
        return default


# -- network ---------------------------------------------------------------------------------------------------------

# Counters, timers, states of the moment, and numbers that the kernel gives anew. The ageing time is one of them:
# spanning tree shortens it for a while when a port comes or goes (net/bridge/br_stp.c).
VOLATILE_LINK = """
ifindex link_index link_netnsid stats stats64 xdp num_tx_queues num_rx_queues fdb_n_learned operstate qdisc allmulti
hello_timer tcn_timer topology_change_timer gc_timer hold_timer message_age_timer forward_delay_timer root_id bridge_id
root_port root_path_cost topology_change topology_change_detected topology_change_ack config_pending designated_root
designated_bridge designated_port designated_cost port_id id no state ageing_time multicast_router mcast_hash_max
"""


def read_network(reader: Reader, procs: list[Proc]) -> None:
    places: dict[str, str] = {}  # label: path
    known = {os.stat("/proc/1/ns/net").st_ino}
    for entry in reader.json("ip", "-j", "netns", "list"):
        path = f"/run/netns/{entry['name']}"
        reader.add("netns", f"[netns {entry['name']}]")
        with contextlib.suppress(OSError):
            known.add(os.stat(path).st_ino)
            places[f"[netns {entry['name']}]"] = path
    for inode, (label, path) in namespaces(procs, "net").items():
        if inode not in known:
            known.add(inode)
            reader.add("netns", label)
            places[label] = path
    for label, path in [("", ""), *places.items()]:
        prefix = f"{label} " if label else ""
        read_links(reader, prefix, path)
        read_routes(reader, prefix, path)
        read_nft(reader, prefix, path)
        read_xtables(reader, prefix, path)
        read_sets(reader, prefix, path)
        read_ports(reader, prefix, path)


def read_links(reader: Reader, prefix: str, path: str) -> None:
    for link in reader.json("ip", "-d", "-j", "link", "show", netns=path):
        value = without(link, VOLATILE_LINK.split())
        name = value.pop("ifname")
        # UP is what was set; LOWER_UP and NO-CARRIER are what the other end does
        value["flags"] = sorted(set(value.get("flags", [])) - {"LOWER_UP", "NO-CARRIER", "M-DOWN"})
        reader.add("link", prefix + name, value)
    for link in reader.json("ip", "-d", "-j", "addr", "show", netns=path):
        for address in link.get("addr_info", []):
            value = without(address, ("valid_life_time", "preferred_life_time", "tentative", "dadfailed", "label"))
            key = f"{value.pop('local', '?')}/{value.pop('prefixlen', '?')}"
            reader.add("address", f"{prefix}{key} dev {link['ifname']}", value)
    for neighbour in reader.json("ip", "-j", "neigh", "show", "nud", "permanent", netns=path, may_fail=True):
        reader.add("neighbour", f"{prefix}{neighbour.get('dst')} dev {neighbour.get('dev')}", neighbour.get("lladdr"))
    for family in ("-4", "-6"):
        for neighbour in reader.json("ip", family, "-j", "neigh", "show", "proxy", netns=path, may_fail=True):
            reader.add("neighbour", f"{prefix}proxy {neighbour.get('dst')} dev {neighbour.get('dev')}")


def read_routes(reader: Reader, prefix: str, path: str) -> None:
    for family in ("-4", "-6"):
        for route in reader.json("ip", family, "-d", "-j", "route", "show", "table", "all", netns=path, may_fail=True):
            if route.get("table") == "local":
                continue  # the kernel's mirror of addresses
            value = without(route, ("expires", "flags", "used", "age", "pref"))
            words = [value.pop("type", "unicast"), value.pop("dst", "?")]
            for name in ("gateway", "dev", "table", "metric"):
                if name in value:
                    words += [{"gateway": "via"}.get(name, name), str(value.pop(name))]
            reader.add("route", prefix + " ".join(words), value)
        for rule in reader.json("ip", family, "-d", "-j", "rule", "show", netns=path, may_fail=True):
            reader.add("rule", f"{prefix}{family} {compact(rule)}")


def read_nft(reader: Reader, prefix: str, path: str) -> None:
    ruleset = reader.json("nft", "-j", "list", "ruleset", netns=path) or {}
    for item in ruleset.get("nftables", []):
        ((kind, value),) = item.items()
        if kind == "metainfo":
            continue
        value = without(value, ("handle", "index", "packets", "bytes", "expires", "used"))
        place = " ".join(str(value.pop(name)) for name in ("family", "table") if name in value)
        if kind == "rule":
            chain = value.pop("chain")
            reader.add("nft", f"{prefix}rule {place} {chain}: {compact(value)}")
            continue
        key = f"{prefix}{kind} {place} {value.pop('name', '')}"
        for element in value.pop("elem", []) if kind in ("set", "map") else ():
            reader.add("nft", f"{key} element {compact(element)}")
        reader.add("nft", key, value)


def read_xtables(reader: Reader, prefix: str, path: str) -> None:
    # ebtables-nft and arptables-nft would make the tables that they list, and a snapshot changes nothing; what they
    # hold is in nft's list too. A legacy tool is asked only for tables that are there: it would make them, too.
    tools = ["iptables-nft", "ip6tables-nft"]
    for names, tool in LEGACY_TABLES.items():
        if reader.run("cat", names, netns=path, may_fail=True):
            tools.append(tool)
    for tool in tools:
        table = ""
        for line in reader.run(f"{tool}-save", netns=path).splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith((":", "-")):
                rule = re.sub(r"\[\d+:\d+\]", "", line).strip()
                reader.add("xtables", f"{prefix}{tool} {table} {rule}")
    # ebtables has no list of its tables, but is in nobody's way: in use, it is a module that is loaded.
    if any(line.startswith("ebtable_") for line in slurp_or("/proc/modules", "").splitlines()):
        for line in reader.run("ebtables-legacy-save", netns=path).splitlines():
            if line.startswith((":", "-")):
                reader.add("xtables", f"{prefix}ebtables-legacy {line.strip()}")


def read_sets(reader: Reader, prefix: str, path: str) -> None:
    """ipset's sets and what is in them; the tool is there where somebody uses it."""
    if not os.path.exists("/usr/sbin/ipset"):
        return
    for line in reader.run("ipset", "save", netns=path).splitlines():
        # the seed of a hash is the kernel's dice, and the sizes follow what is in it
        words = re.sub(r" (initval|hashsize|bucketsize|timeout \d+ packets) \S+", "", line).split(" ", 1)
        reader.add("ipset", f"{prefix}{words[-1]}" if words[0] == "create" else f"{prefix}element {words[-1]}")


LEGACY_TABLES = {
    "/proc/net/ip_tables_names": "iptables-legacy",
    "/proc/net/ip6_tables_names": "ip6tables-legacy",
    "/proc/net/arp_tables_names": "arptables-legacy",
}


def read_ports(reader: Reader, prefix: str, path: str) -> None:
    for line in reader.run("ss", "-H", "-l", "-n", "-t", "-u", "-w", "-p", netns=path).splitlines():
        fields = line.split(None, 6)
        users = sorted(set(re.findall(r'\("([^"]*)",pid=', fields[6] if len(fields) > 6 else "")))
        reader.add("port", f"{prefix}{fields[0]} {fields[4]} {','.join(users)}".rstrip())
    for line in reader.run("ss", "-H", "-l", "-x", netns=path).splitlines():
        fields = line.split()
        if len(fields) > 4 and fields[4] != "*" and not noise(NOISE_UNIX, fields[4]):
            reader.add("unix", f"{prefix}{fields[0]} {fields[4]}")


# -- mounts, loops, files --------------------------------------------------------------------------------------------


def mounts(pid: int | str) -> Iterator[tuple[str, dict[str, str]]]:
    for line in slurp(f"/proc/{pid}/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, rest = left.split(" "), right.split(" ")
        sharing = sorted({word.split(":")[0] for word in fields[6:] if word})
        value = {
            "type": rest[0],
            "source": unescape(rest[1]),
            "root": re.sub(r"net:\[\d+\]", "net:[]", unescape(fields[3])),
            "options": fields[5],
            # sizes of a tmpfs are a share of the memory, as it was at that moment
            "super": re.sub(r"(size|nr_inodes|fd|pgrp|pipe_ino)=[^,]*,?", "", rest[2] if len(rest) > 2 else ""),
            "sharing": ",".join(sharing),
        }
        yield unescape(fields[4]), value


def read_mounts(reader: Reader, procs: list[Proc]) -> None:
    """The host's mounts; and, of every other mount namespace, those that the host has not: a mount may be in a
    service's private namespace only."""
    host = list(mounts(1))
    for point, value in host:
        reader.add("mount", point, value)
    ours = {(point, value["type"], value["source"], value["root"]) for point, value in host}
    for label, path in namespaces(procs, "mnt").values():
        if not label:
            continue
        reader.add("mntns", label)
        try:
            others = list(mounts(path.split("/")[2]))
        except OSError:
            continue  # it ended meanwhile
        for point, value in others:
            if (point, value["type"], value["source"], value["root"]) not in ours:
                # what a service sees at which path and how is systemd's affair; that it sees it is ours
                reader.add("mount", f"{label} {point} {value['type']} {value['source']} {value['root']}")


def read_loops(reader: Reader) -> None:
    # Loop devices are the machine's: a host without the device nodes does not use them, and sees others' in /sys.
    for device in (reader.json("losetup", "-J", "-l") or {}).get("loopdevices", []):
        if os.path.exists(device["name"]):
            reader.add("loop", f"{device['name']} {device.get('back-file')}")


def read_disks(reader: Reader) -> None:
    """Block devices, and what LVM has: a volume that is not active has no device."""
    if os.path.exists("/run/host/container-manager"):
        return  # systemd-nspawn's: they are the machine's
    for device in (reader.json("lsblk", "-J", "-l", "-o", "NAME,TYPE,SIZE,RO") or {}).get("blockdevices", []):
        if device["type"] not in ("loop", "rom"):
            reader.add("disk", f"{device['name']} {device['type']}", [device["size"], device["ro"]])
    if os.path.isdir("/sys/module/dm_mod") and os.path.exists("/usr/sbin/lvs"):
        for table, tool, columns in (
            ("pv", "pvs", "pv_name,pv_uuid,vg_name,pv_size"),
            ("vg", "vgs", "vg_name,vg_uuid,vg_tags,vg_size,lv_count"),
            ("lv", "lvs", "vg_name,lv_name,lv_uuid,lv_active,lv_attr,lv_size,lv_tags"),
        ):
            options = ("--readonly", "--reportformat", "json", "-o", columns, *(("-a",) if table == "lv" else ()))
            for report in (reader.json(tool, *options) or {}).get("report", []):
                for row in report[table]:
                    key = " ".join(str(row.pop(name)) for name in ("pv_name", "vg_name", "lv_name") if name in row)
                    reader.add("lvm", f"{table} {key}", row)


def read_files(reader: Reader) -> None:
    points = {point: value["type"] for point, value in mounts("self")}
    for tree in TREES:
        for directory, names, files in os.walk(tree, followlinks=False, onerror=None):
            for name in sorted([*names, *files]):
                path = os.path.join(directory, name)
                if noise(NOISE_FILES, path):
                    if name in names:
                        names.remove(name)
                    continue
                if name in names and points.get(path, "").split(".")[0] in UNWALKED.split():
                    names.remove(name)  # the mount itself is in its class; walking it could hang or never end
                    reader.add("file", path, "mount point")
                    continue
                read_file(reader, path)


def read_file(reader: Reader, path: str) -> None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        reader.add("file", path, f"unreadable: {error.strerror}")
        return
    value: dict[str, Any] = {
        "type": stat.filemode(status.st_mode)[0],
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "owner": f"{status.st_uid}:{status.st_gid}",
    }
    if stat.S_ISLNK(status.st_mode):
        value["target"] = os.readlink(path)
    elif stat.S_ISREG(status.st_mode) and path.startswith(tuple(f"{tree}/" for tree in HASHED)):
        value["size"] = status.st_size
        with contextlib.suppress(OSError), open(path, "rb") as file:
            value["hash"] = hashlib.file_digest(file, "sha256").hexdigest()
    if path.startswith(tuple(f"{tree}/" for tree in HASHED)):
        with contextlib.suppress(OSError):
            names = os.listxattr(path, follow_symlinks=False)
            value["xattrs"] = {n: os.getxattr(path, n, follow_symlinks=False).hex() for n in names}
    reader.add("file", path, value)


# -- the rest of the host --------------------------------------------------------------------------------------------


def read_cgroups(reader: Reader) -> None:
    root = "/sys/fs/cgroup"
    for directory, names, _ in os.walk(root):
        for name in list(names):
            path = os.path.join(directory, name)[len(root) :]
            if noise(NOISE_CGROUPS, path):
                names.remove(name)
            else:
                reader.add("cgroup", path)


def read_units(reader: Reader) -> None:
    """Units that are doing something, or failed to. What systemd merely has heard of is no thing on the host."""
    for unit in reader.json("systemctl", "list-units", "--all", "--output=json"):
        if unit["active"] != "inactive" and not noise(NOISE_UNITS, unit["unit"]):
            if unit["unit"].endswith(".mount") and unit["active"] != "failed":
                continue  # mirror of a mount
            reader.add("unit", unit["unit"], f"{unit['load']} {unit['active']}")


def read_accounts(reader: Reader) -> None:
    for name in ("passwd", "group", "subuid", "subgid"):
        for line in slurp_or(f"/etc/{name}", "").splitlines():
            key, _, value = line.partition(":")
            reader.add("account", f"{name} {key}", value)


def read_sysctls(reader: Reader) -> None:
    for name in SYSCTLS.split():
        with contextlib.suppress(OSError):
            reader.add("sysctl", name, slurp(f"/proc/sys/{name.replace('.', '/')}").split())


def read_apparmor(reader: Reader) -> None:
    root = "/sys/kernel/security/apparmor"
    for line in slurp_or(f"{root}/profiles", "").splitlines():
        reader.add("apparmor", line)
    read_policy(reader, f"{root}/policy", "")


def read_policy(reader: Reader, directory: str, prefix: str) -> None:
    """What was loaded, by its hash, in this namespace and in those below it."""
    for path, names, files in os.walk(f"{directory}/profiles"):
        if "name" in files:
            value = next((slurp_or(f"{path}/{f}") for f in ("sha256", "sha1") if f in files), "")
            reader.add("apparmor", f"policy {prefix}{slurp_or(f'{path}/name')}", [value, slurp_or(f"{path}/mode")])
            names[:] = [name for name in names if name == "profiles"]
    with contextlib.suppress(OSError):
        for name in os.listdir(f"{directory}/namespaces"):
            reader.add("apparmor", f"namespace {prefix}{name}")
            read_policy(reader, f"{directory}/namespaces/{name}", f"{prefix}{name}//")


# What two snapshots can compare of Open vSwitch and OVN; every other column is a counter, a reference or a state.
SWITCHES = (
    ("ovs", "/run/openvswitch/db.sock", {"Bridge": "name datapath_type", "Interface": "name type external_ids"}),
    ("ovs", "/run/openvswitch/db.sock", {"Port": "name", "Open_vSwitch": "external_ids"}),
    ("ovn", "/run/ovn/ovnnb_db.sock", {"Logical_Switch": "name", "Logical_Router": "name", "Port_Group": "name"}),
    ("ovn", "/run/ovn/ovnnb_db.sock", {"Logical_Switch_Port": "name", "Logical_Router_Port": "name"}),
    ("ovn", "/run/ovn/ovnnb_db.sock", {"HA_Chassis_Group": "name", "Load_Balancer": "name", "Address_Set": "name"}),
    ("ovn", "/run/ovn/ovnnb_db.sock", {"DHCP_Options": "cidr", "DNS": "records", "NAT": "logical_ip"}),
)


def read_switches(reader: Reader) -> None:
    for kind, path, tables in SWITCHES:
        if not os.path.exists(path):
            continue
        database = {"ovs": "Open_vSwitch", "ovn": "OVN_Northbound"}[kind]
        for table, columns in tables.items():
            argv = ("ovsdb-client", "--format=json", "dump", f"unix:{path}", database, table, *columns.split())
            for row in (reader.json(*argv) or {}).get("data", []):
                known = re.sub(r'\["ovn-installed(-ts)?", "[^"]*"\](, )?', "", json.dumps(row))
                reader.add(kind, f"{table} {known}")


def read_snaps(reader: Reader) -> None:
    """From snapd's own file: to ask would wake it."""
    try:
        snaps = json.loads(slurp("/var/lib/snapd/state.json"))["data"].get("snaps", {})
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError) as error:
        reader.unreadable.append(f"snapd's state: {error}")
        return
    for name, value in snaps.items():
        reader.add("snap", name, {key: value.get(key) for key in ("type", "current", "active", "services-disabled")})


def read_pins(reader: Reader) -> None:
    """What is pinned in a BPF file system."""
    for point, value in mounts("self"):
        if value["type"] == "bpf":
            for directory, names, files in os.walk(point):
                for name in (*names, *files):
                    reader.add("bpf", os.path.join(directory, name))


def read_modules(reader: Reader) -> None:
    for line in slurp_or("/proc/modules", "").splitlines():
        reader.add("module", line.split()[0])


def snapshot() -> dict[str, Any]:
    reader = Reader()
    procs = processes()
    read_processes(reader, procs)
    read_network(reader, procs)
    read_mounts(reader, procs)
    read_loops(reader)
    read_disks(reader)
    read_files(reader)
    read_cgroups(reader)
    read_units(reader)
    read_accounts(reader)
    read_sysctls(reader)
    read_apparmor(reader)
    read_switches(reader)
    read_snaps(reader)
    read_pins(reader)
    read_modules(reader)
    return {"format": 1, "state": reader.state, "unreadable": sorted(set(reader.unreadable))}


# -- comparing -------------------------------------------------------------------------------------------------------


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, list[str]]:
    """The four lists, unfiltered."""
    found: dict[str, list[str]] = {"left": [], "lost": [], "changed": [], "unreadable": []}
    # What is in a namespace that came or went as a whole is not counted again.
    arrived = tuple(spaces(after) - spaces(before))
    departed = tuple(spaces(before) - spaces(after))
    for kind in sorted({*before["state"], *after["state"]}):
        old, new = before["state"].get(kind, {}), after["state"].get(kind, {})
        found["left"] += [f"{kind} {key}" for key in new if key not in old and not inside(key, arrived, kind)]
        found["lost"] += [f"{kind} {key}" for key in old if key not in new and not inside(key, departed, kind)]
        for key in old:
            if key in new and old[key] != new[key]:
                found["changed"].append(f"{kind} {key}: {change(old[key], new[key])}")
    for when, taken in (("before", before), ("after", after)):
        found["unreadable"] += [f"{when}: {line}" for line in taken["unreadable"]]
    return found


def spaces(taken: dict[str, Any]) -> set[str]:
    return {f"{key} " for kind in ("netns", "mntns") for key in taken["state"].get(kind, {})}


def inside(key: str, labels: tuple[str, ...], kind: str) -> bool:
    return kind not in ("netns", "mntns") and key.startswith(labels)


def change(old: Any, new: Any) -> str:
    """What became what, in few words."""
    if isinstance(old, dict) and isinstance(new, dict):
        parts = [
            f"{name} {compact(old.get(name))} -> {compact(new.get(name))}"
            for name in sorted({*old, *new})
            if old.get(name) != new.get(name)
        ]
        return "; ".join(parts)
    return f"{compact(old)} -> {compact(new)}"


def compare(
    before: dict[str, Any],
    after: dict[str, Any],
    keep: Iterable[str] = (),
    changed: Iterable[str] = (),
    lost: Iterable[str] = (),
) -> dict[str, list[str]]:
    """The differences that no expression covers. Each list has its own expressions, so that one written for what
    may stay never hides a loss."""
    found = difference(before, after)
    for name, patterns in (("left", list(keep)), ("changed", list(changed)), ("lost", list(lost))):
        found[name] = [line for line in found[name] if not any(re.search(pattern, line) for pattern in patterns)]
    return found


def count(found: dict[str, list[str]]) -> int:
    return sum(len(lines) for lines in found.values())


def render(found: dict[str, list[str]]) -> str:
    parts = []
    for name, lines in found.items():
        if lines:
            kinds = collections.Counter(line.split(" ")[0] for line in lines)
            parts.append(f"{name}: {len(lines)} ({', '.join(f'{n} {k}' for k, n in kinds.most_common())})")
            parts += [f"  {line[:400]}" for line in lines]
    return "\n".join(parts) or "no difference"


def main() -> int:
    parser = argparse.ArgumentParser(description="Take a host's state, or compare two.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("snapshot", allow_abbrev=False)
    comparing = commands.add_parser("compare", allow_abbrev=False)
    comparing.add_argument("before")
    comparing.add_argument("after")
    comparing.add_argument("--keep", action="append", default=[], metavar="RE", help="may be left")
    comparing.add_argument("--changed", action="append", default=[], metavar="RE", help="may be changed")
    comparing.add_argument("--lost", action="append", default=[], metavar="RE", help="may be lost")
    comparing.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.command == "snapshot":
        json.dump(snapshot(), sys.stdout, sort_keys=True)
        return 0
    with open(given.before) as old, open(given.after) as new:
        found = compare(json.load(old), json.load(new), given.keep, given.changed, given.lost)
    print(json.dumps(found, indent=1) if given.json else render(found))
    return 1 if count(found) else 0


if __name__ == "__main__":
    sys.exit(main())
