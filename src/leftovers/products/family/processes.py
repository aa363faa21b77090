"""Which processes and cgroups are a member's own."""

from __future__ import annotations

import re
from shlex import quote

from leftovers.claims import Case, Finding, real_exe
from leftovers.model import Evidence, Object, Record, Role
from leftovers.mountinfo import below
from leftovers.products.family.names import CLASH, HELPER, HELPERS, MONITOR, PAYLOAD, Names


def monitor(names: Names, obj: Object, case: Case) -> Finding | None:
    """A container's monitor: a fork of the daemon that liblxc gave another title. It is killed before its container:
    seeing that end, it would move the container's links back into the host, where nobody takes them away."""
    argv = obj.facts["argv"]
    if (
        obj.facts["nested"]
        or obj.facts["uid"] != 0  # anybody may run the file
        or not is_program(names, obj, case, "lxd")
        or not argv
        or not argv[0].startswith("[lxc monitor] ")
    ):
        return None
    said = (Evidence("kernel", f"runs {obj.facts['exe']}"), Evidence("kernel", f"title {argv[0][:120]!r}"))
    return Finding("a container's monitor", said, facts={"abrupt": True})


def is_program(names: Names, process: Object, case: Case, program: str) -> bool:
    """Whether a process runs its daemon's file, or this program of its snap, after that was unmounted."""
    if program == "lxd" and names.is_daemon(real_exe(process)):
        return True
    return unmounted(process, case) == f"/bin/{program}"


def unmounted(process: Object, case: Case) -> str:
    """The file in the snap that a process runs, if the snap is not mounted any more; else ""."""
    table: dict[str, Record] = case.cached(
        "family.programs", lambda: {record.name: record for record in case.records_of("program")}
    )
    record = table.get(process.key)
    live = record is not None and record.source != "ledger" and record.facts["start"] == process.facts["start"]
    return str(record.facts["exe"]) if record is not None and live else ""


def program(names: Names, obj: Object, case: Case) -> Finding | None:
    """Whatever else its snap brings and runs: lxcfs, dnsmasq, QEMU, Open vSwitch, the command of an administrator."""
    exe = real_exe(obj)
    if not names.snap or obj.facts["nested"] or obj.facts["self"]:
        return None
    if any(below(exe, path) for path in names.programs):
        return Finding(f"a program of {names.possessive}", (Evidence("kernel", f"runs {obj.facts['exe']}"),), rank=3)
    inner = unmounted(obj, case)
    if not inner:
        return None
    said = Evidence("kernel", f"runs {inner} of a file system that is not mounted any more")
    told = Evidence("kernel", f"its environment says that it was the snap {names.snap}")
    return Finding(f"a program of {names.possessive}", (said, told), rank=0 if inner == "/bin/lxd" else 3)


def twin(names: Names, case: Case) -> str:
    """What says that another member which calls itself the same is on this host, or was: its containers or a server of
    its networks run, or its database is there. "" if nothing does. Which of its firewall is whose is not written on
    it, then."""

    def make() -> str:
        for process in case.objects("process"):
            directory, network = serves(process)
            if directory in names.twins:
                return f"pid {process.key} serves {directory}/networks/{network}"
        for pid, title in other_monitors(names, case).items():
            if any(title.startswith(f"[lxc monitor] {directory}/") for directory in names.twins):
                return f"pid {pid} is {title[:80]!r}"
        for file in case.objects("file"):
            if file.key in names.twins and "database" in file.facts["entries"]:
                return f"{file.key}/database is there"
        return ""

    found: str = case.cached("family.twin", make) if names.twins else ""
    return found


def serves(process: Object) -> tuple[str, str]:
    """The directory and the network that a process is a family member's dnsmasq for, by the two options that name
    them (driver_bridge.go); ("", "") for any other process, a container's included."""
    if process.facts["nested"] or real_exe(process).rpartition("/")[2] != "dnsmasq":
        return "", ""
    argv = process.facts["argv"]
    networks = {argument.partition("=")[2] for argument in argv if argument.startswith("--interface=")}
    for option in ("--dhcp-hostsfile=", "--dhcp-leasefile=", "--conf-file="):
        for argument in argv:
            path = argument.removeprefix(option).split("/") if argument.startswith(option) else []
            if path[-3:-2] == ["networks"] and path[-2] in networks:
                return "/".join(path[:-3]), str(path[-2])
    return "", ""


def dnsmasq(names: Names, obj: Object, case: Case) -> Finding | None:
    directory, network = serves(obj)
    if not network or directory != names.directory:
        return None
    said = (
        Evidence("kernel", f"runs {obj.facts['exe']}"),
        Evidence("kernel", f"serves {directory}/networks/{network}"),
    )
    return Finding("the DHCP and DNS server of a network", said, rank=3)


def helper_child(names: Names, obj: Object, case: Case) -> Finding | None:
    """What a helper runs in namespaces of its own: virtiofsd serves its directory from such a sandbox."""
    parent = case.process(obj.facts["ppid"])
    if not obj.facts["nested"] or parent is None or parent.facts["nested"]:
        return None
    if real_exe(parent).rpartition("/")[2] not in HELPERS or not case.is_proven("process", parent.key):
        return None
    # Not the whole path: from within, the kernel tells it from the top of a mount that is not reachable any more.
    if real_exe(obj).rpartition("/")[2] != real_exe(parent).rpartition("/")[2]:
        return None
    said = Evidence("kernel", f"child of pid {parent.key}, runs the same file")
    return Finding(HELPER, (said,), rank=3)


def trace(names: Names, case: Case) -> str:
    """What says that the product has been on this host: its package's accounts outlive a purge. "" if nothing does."""
    if case.been:
        return "the ledger knows it on this host"
    account = next((f"{obj.id} is there" for obj in case.objects("account") if obj.key in names.accounts), "")
    if account:
        return account
    # A setting or a range of ids that it would have made too says nothing.
    own = (Role.LIVE, Role.DATA, Role.EXTERNAL, Role.HELD)
    claims = (claim for claim in case.claims.values() if claim.proven and claim.role in own)
    return next((f"{claim.object.id} is {names.possessive}" for claim in claims), "")


def tied_process(names: Names, obj: Object, case: Case) -> Finding | None:
    """Looks like a monitor, but nothing proves it: it is shown and left alone."""
    title = " ".join(obj.facts["argv"])
    if obj.facts["nested"] or not title.startswith(f"[lxc monitor] {names.directory}/"):
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


def empty_cgroup(names: Names, obj: Object, case: Case) -> Finding | None:
    """A cgroup without processes that is named for an instance which the product knows, or, where it has been and no
    other product of liblxc is to be seen on the host, for any (lxc/src/lxc/cgroups/cgroup.h; lxc.pivot has no
    instance's name)."""
    path = obj.facts["path"]
    if obj.facts["hierarchy"] or (not named_for(path) and path != "/lxc.pivot"):
        return None
    if obj.facts["populated"]:
        return unknown_container(names, obj, case)
    known = {record.name: record.source for type in ("instance", "lxc.conf") for record in case.records_of(type)}
    for name in named_for(path):
        if name in known and name not in others_containers(names, case):
            knows = Evidence(known[name], f"knows an instance {name}")
            return Finding("an instance's cgroup, empty", (knows,), facts={"only_empty": True})
    been = trace(names, case)
    if not been:
        return None  # it has never been here
    other = other_liblxc(names, case)
    if other:
        doubt = Evidence("kernel", f"{other}: the name is liblxc's, not {names.possessive} alone")
        advice = f"rmdir {quote(obj.facts['directory'])}"
        # As likely in use by the other one, who needs lxc.pivot for as long as he runs: it does not count as left.
        return Finding("an empty cgroup of liblxc", (doubt,), proven=False, role=Role.ADMIN, advice=advice)
    alone = Evidence("kernel", f"no other product of liblxc runs or is installed, and {been}")
    said = (Evidence("kernel", "has no process, and a name that liblxc gives"), alone)
    return Finding("an instance's cgroup, empty", said, facts={"only_empty": True})


def unknown_container(names: Names, obj: Object, case: Case) -> Finding | None:
    """A container's cgroup in which nothing is proven: it may be one whose monitor has ended and whose
    processes give no sign. It is shown and counts as left."""
    if not trace(names, case) or other_liblxc(names, case) or not re.match(PAYLOAD, obj.facts["path"]):
        return None
    for process in case.objects("process"):
        if process.facts["nested"] and below(process.facts["cgroup"], obj.facts["path"]):
            said = Evidence("kernel", f"holds pid {process.key}, a container's, and no other product of liblxc is here")
            advice = f"echo 1 > {quote(obj.facts['directory'] + '/cgroup.kill')}"
            return Finding(
                f"a container's cgroup, and perhaps {names.possessive}", (said,), proven=False, advice=advice
            )
    return None


def other_monitors(names: Names, case: Case) -> dict[str, str]:
    """The titles of the monitors of other products' containers ("[lxc monitor] LXCPATH NAME"), by pid. Whatever file
    it runs, a monitor has a container, or is in a cgroup of liblxc's. Who only calls himself so has neither."""

    def make() -> dict[str, str]:
        found = {}
        processes = case.objects("process")
        parents = {process.facts["ppid"] for process in processes if process.facts["nested"]}
        for process in processes:
            title = process.facts["argv"][0] if process.facts["argv"] else ""
            if not title.startswith("[lxc monitor] ") or title.startswith(f"[lxc monitor] {names.directory}/"):
                continue
            if process.facts["pid"] in parents or "/lxc.monitor" in process.facts["cgroup"]:
                found[process.key] = title
        return found

    found: dict[str, str] = case.cached("family.other_monitors", make)
    return found


def others_containers(names: Names, case: Case) -> set[str]:
    """The names of other products' running containers: what is named for one of them is not ours, though we know an
    instance of that name."""
    return {title.rpartition(" ")[2] for title in other_monitors(names, case).values()}


def other_liblxc(names: Names, case: Case) -> str:
    """Who else on this host uses liblxc: a monitor of another lxcpath, or a daemon's file. "" if nobody."""

    def make() -> str:
        for pid, title in other_monitors(names, case).items():
            return f"pid {pid} is {title[:80]!r}"
        for file in case.objects("file"):
            if file.key in names.others:
                return f"{file.key} is there"
        return ""

    found: str = case.cached("family.other_liblxc", make)
    return found
