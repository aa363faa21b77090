"""Which processes and cgroups are Incus' own."""

from __future__ import annotations

import re

from leftovers.claims import Case, Finding, real_exe
from leftovers.model import Evidence, Object, Role
from leftovers.mountinfo import below
from leftovers.products.incus.names import CLASH, DAEMONS, DIRECTORY, MONITOR, PAYLOAD


def monitor(obj: Object, case: Case) -> Finding | None:
    """A container's monitor: a fork of incusd that liblxc gave another title. It is killed before its container:
    seeing that end, it would move the container's links back into the host, where nobody takes them away."""
    argv = obj.facts["argv"]
    if obj.facts["nested"] or real_exe(obj) not in DAEMONS or not argv or not argv[0].startswith("[lxc monitor] "):
        return None
    said = (Evidence("kernel", f"runs {obj.facts['exe']}"), Evidence("kernel", f"title {argv[0][:120]!r}"))
    return Finding("a container's monitor", said, facts={"abrupt": True})


def serves(process: Object) -> str:
    """The network that a process is Incus' dnsmasq for, by the two options that name it (driver_bridge.go); "" for
    any other process, a container's included."""
    if process.facts["nested"] or real_exe(process).rpartition("/")[2] != "dnsmasq":
        return ""
    argv = process.facts["argv"]
    networks = {argument.partition("=")[2] for argument in argv if argument.startswith("--interface=")}
    for option in ("--dhcp-hostsfile=", "--dhcp-leasefile=", "--conf-file="):
        for argument in argv:
            path = argument.removeprefix(option).split("/") if argument.startswith(option) else []
            if "/".join(path[:-2]) == f"{DIRECTORY}/networks" and path[-2] in networks:
                return str(path[-2])
    return ""


def dnsmasq(obj: Object, case: Case) -> Finding | None:
    network = serves(obj)
    if not network:
        return None
    said = (
        Evidence("kernel", f"runs {obj.facts['exe']}"),
        Evidence("kernel", f"serves {DIRECTORY}/networks/{network}"),
    )
    return Finding("the DHCP and DNS server of a network", said, rank=3)


def trace(case: Case) -> str:
    """What says that Incus has been on this host: its package's group outlives a purge. "" if nothing does."""
    if case.been:
        return "the ledger knows it on this host"
    group = next((f"{obj.id} is there" for obj in case.objects("account") if obj.key == "group incus-admin"), "")
    return group or next((f"{claim.object.id} is Incus'" for claim in case.claims.values() if claim.proven), "")


def tied_process(obj: Object, case: Case) -> Finding | None:
    """Looks like a monitor, but nothing proves it: it is shown and left alone."""
    title = " ".join(obj.facts["argv"])
    if obj.facts["nested"] or not title.startswith(f"[lxc monitor] {DIRECTORY}/"):
        return None
    said = (Evidence("kernel", f"arguments {title[:120]!r}"), Evidence("kernel", f"runs {obj.facts['exe']}"))
    reason = "has the arguments of a container's monitor, but runs another program"
    return Finding(reason, said, proven=False, role=Role.ADMIN, advice=f"kill {obj.key}")


def named_for(path: str) -> tuple[str, ...]:
    """The instances that a cgroup of liblxc may be named for, the likelier first; none for another cgroup."""
    if not re.match(PAYLOAD, path) and not re.match(MONITOR, path):
        return ()
    name = path.split(".", 2)[2]
    return tuple(dict.fromkeys((name, CLASH.sub("", name))))


def empty_cgroup(obj: Object, case: Case) -> Finding | None:
    """A cgroup without processes that is named for an instance which Incus knows, or, where Incus has been and no other
    product of liblxc is to be seen on the host, for any (lxc/src/lxc/cgroups/cgroup.h; lxc.pivot has no
    instance's name)."""
    path = obj.facts["path"]
    if obj.facts["hierarchy"] or (not named_for(path) and path != "/lxc.pivot"):
        return None
    if obj.facts["populated"]:
        return unknown_container(obj, case)
    known = {record.name: record.source for type in ("instance", "lxc.conf") for record in case.records_of(type)}
    for name in named_for(path):
        if name in known:
            knows = Evidence(known[name], f"knows an instance {name}")
            return Finding("an instance's cgroup, empty", (knows,), facts={"only_empty": True})
    other = other_liblxc(case)
    if other:
        doubt = Evidence("kernel", f"{other}: the name is liblxc's, not Incus' alone")
        return Finding("an empty cgroup of liblxc", (doubt,), proven=False, advice=f"rmdir {obj.facts['directory']}")
    been = trace(case)
    if not been:
        return None  # Incus has never been here
    alone = Evidence("kernel", f"no other product of liblxc runs or is installed, and {been}")
    said = (Evidence("kernel", "has no process, and a name that liblxc gives"), alone)
    return Finding("an instance's cgroup, empty", said, facts={"only_empty": True})


def unknown_container(obj: Object, case: Case) -> Finding | None:
    """A container's cgroup in which nothing is proven: it may be one of Incus whose monitor has ended and whose
    processes give no sign. It is shown and counts as left."""
    if not trace(case) or other_liblxc(case) or not re.match(PAYLOAD, obj.facts["path"]):
        return None
    for process in case.objects("process"):
        if process.facts["nested"] and below(process.facts["cgroup"], obj.facts["path"]):
            said = Evidence("kernel", f"holds pid {process.key}, a container's, and no other product of liblxc is here")
            advice = f"echo 1 > {obj.facts['directory']}/cgroup.kill"
            return Finding("a container's cgroup, and perhaps Incus'", (said,), proven=False, advice=advice)
    return None


def other_liblxc(case: Case) -> str:
    """Who else on this host uses liblxc: a monitor of another lxcpath, or a daemon's file. "" if nobody."""

    def make() -> str:
        for process in case.objects("process"):
            title = " ".join(process.facts["argv"])
            if title.startswith("[lxc monitor] ") and not title.startswith(f"[lxc monitor] {DIRECTORY}/"):
                return f"pid {process.key} is {title[:80]!r}"
        for file in case.objects("file"):
            if file.key in OTHERS:
                return f"{file.key} is there"
        return ""

    found: str = case.cached("incus.other_liblxc", make)
    return found


OTHERS = ("/usr/bin/lxc-start", "/usr/bin/lxd", "/usr/sbin/lxd", "/usr/libexec/lxd/lxd", "/snap/lxd/current")
