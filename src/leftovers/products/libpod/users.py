"""Users' own containers: found beside root's and kept, unless somebody asks for them by name ("podman@alice").

All of a rootless Podman runs as the user, in namespaces of his own, and in his part of the cgroup tree (libpod/
oci_conmon_linux.go, pkg/rootless; containers/common libnetwork/internal/rootlessnetns; containers/storage pkg/unshare).
His arguments and files say whatever he likes. So a process is only ended when it has an id of his own, and what is
deleted lies, without a symlink on the way, in directories that are his: there he could delete it himself.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from leftovers.claims import Case, Finding, Rule, real_exe
from leftovers.errors import Unreadable
from leftovers.evidence import files, libpod
from leftovers.host import Host
from leftovers.kinds.files import leads_to_remote
from leftovers.kinds.kind import Look
from leftovers.model import Evidence, Instance, Object, Record, Role
from leftovers.mountinfo import below, parse
from leftovers.products.libpod.names import CGROUP, PROGRAMS
from leftovers.products.libpod.processes import CONTAINER, CONTAINERS, MONITOR, MONITORS
from leftovers.products.libpod.reading import Answer, conmon_argv, remote
from leftovers.products.product import Directory, Product

__all__ = ["kept", "kept_process", "product", "read_users"]

STORE = ".local/share/containers/storage"
USERS = 10_000  # accounts that are looked at
HELPER = "a helper of containers"
HELPERS = 2
LIMIT = 16 * files.MIB


def accounts(host: Host) -> Iterator[tuple[str, int, str]]:
    """(name, uid, home) of the accounts that /etc/passwd has: those of a directory service are not asked for, there
    may be very many. Who runs something is seen all the same."""
    try:
        lines = (files.read(host, "/etc", "passwd", LIMIT) or b"").decode("utf-8", "replace").split("\n")
    except (OSError, Unreadable):
        return
    for line in lines[:USERS]:
        fields = line.split(":")
        if len(fields) == 7 and files.is_name(fields[0]) and fields[2].isdigit() and fields[5].startswith("/"):
            yield fields[0], int(fields[2]), os.path.normpath(fields[5])


def read_users(look: Look) -> Answer:
    """Records "rootless", by user's name (or uid, for want of one), of those who have containers of their own. Facts:
    uid, path (of the store in his home; "" if there is none), monitors (pids of what looks like one)."""
    found: dict[int, tuple[str, str, list[str]]] = {}
    names: dict[int, str] = {}
    for name, uid, home in accounts(look.host):
        if not uid or home.count("/") < 1 or home == "/":
            continue
        names.setdefault(uid, name)
        if remote(look, f"{home}/{STORE}"):  # whoever mounted it, and wherever on the way: it may never answer
            continue
        if owner(look.host, home, STORE) == uid and files.entries(look.host, home, STORE, []):
            found.setdefault(uid, (name, f"{home}/{STORE}", []))
    for process in look.objects("process"):
        facts = process.facts
        if facts["uid"] > 0 and not facts["nested"] and real_exe(process).rpartition("/")[2] == "conmon":
            if not conmon_argv(process):
                continue
            uid = facts["uid"]
            found.setdefault(uid, (names.get(uid, str(uid)), "", []))[2].append(process.key)
    return [
        Record("rootless", name, "disk" if path else "kernel", {"uid": uid, "path": path, "monitors": pids})
        for uid, (name, path, pids) in sorted(found.items())
    ], []


def owner(host: Host, base: str, below: str) -> int:
    """Who owns a directory that is reached from another without a symlink; -1 if it is not there."""
    try:
        with files.reached(host, base, below) as fd:
            return os.fstat(fd).st_uid
    except OSError:
        return -1


def kept(obj: Object, case: Case) -> Finding | None:
    """A user's store: one line for each user who has containers of his own."""
    for record in case.records_of("rootless"):
        if record.source != "ledger" and record.facts["path"] == obj.key and obj.facts["type"] == "directory":
            return told(record)
    return None


def kept_process(obj: Object, case: Case) -> Finding | None:
    """The first monitor of a user who has his store somewhere else."""
    for record in case.records_of("rootless"):
        if record.source != "ledger" and not record.facts["path"] and record.facts["monitors"][:1] == [obj.key]:
            return told(record)
    return None


def told(record: Record) -> Finding:
    runs = len(record.facts["monitors"])
    said = Evidence(record.source, record.facts["path"] or f"{runs} monitors of uid {record.facts['uid']}")
    reason = f"{record.name}'s own containers (rootless, {runs or 'none'} running)"
    return Finding(reason, (said,), role=Role.ADMIN, advice=f"leftovers clean podman@{record.name}")


# -- one user, by name ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class User:
    """
    name, uid
    home      as /etc/passwd has it; symlinks above it are the administrator's
    ranges    the ids that are his: his own and his subordinate ones (subuid(5)), [first, last]
    """

    name: str
    uid: int
    home: str
    ranges: tuple[tuple[int, int], ...]

    @property
    def store(self) -> str:
        return f"{self.home}/{STORE}"

    @property
    def runtime(self) -> str:
        return f"/run/user/{self.uid}"

    def owns(self, uid: int) -> bool:
        return any(first <= uid <= last for first, last in self.ranges)


def user_of(name: str) -> User:
    """Raises KeyError if there is no such user, or it is root: his containers are those of "podman". One of a directory
    service goes by his number, too: scan has no other name for him."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        if not re.fullmatch(r"[1-9][0-9]{0,8}", name):
            raise
        entry = pwd.getpwuid(int(name))
    if not entry.pw_uid or not files.is_name(name):
        raise KeyError(name)
    home = os.path.normpath(entry.pw_dir)
    mounts = {mount.point: {"fstype": mount.fstype} for mount in parse(Host().read_bytes("/proc/self/mountinfo"))}
    if not leads_to_remote(Host(), mounts, f"{os.path.dirname(home)}/."):  # there nothing is looked at, nor deleted
        home = f"{os.path.realpath(os.path.dirname(home)).rstrip('/')}/{os.path.basename(home)}"
    ranges = [(entry.pw_uid, entry.pw_uid)]
    try:
        lines = (files.read(Host(), "/etc", "subuid", LIMIT) or b"").decode("utf-8", "replace").split("\n")
    except (OSError, Unreadable):
        lines = []
    for line in lines:
        fields = line.split(":")
        if (
            len(fields) == 3
            and fields[0] in (entry.pw_name, str(entry.pw_uid))
            and all(each.isdigit() for each in fields[1:])
        ):
            first, count = int(fields[1]), int(fields[2])
            # Ids of accounts are nobody's subordinate ones, whatever the file says.
            if first > 65535 and 0 < count < 1 << 32:
                ranges.append((first, first + count - 1))
    return User(name, entry.pw_uid, home, tuple(ranges))


def monitor(user: User, obj: Object, case: Case) -> Finding | None:
    """A conmon of the user's, by what it was told. He can write that into any process of his own, and of no other's."""
    if obj.facts["uid"] != user.uid or obj.facts["nested"] or real_exe(obj).rpartition("/")[2] != "conmon":
        return None
    given = conmon_argv(obj)
    if not given or not any(below(given["bundle"], place) for place in (user.home, user.runtime)):
        return None
    said = (Evidence("kernel", f"runs {obj.facts['exe']} as {user.name}"), Evidence("kernel", f"-c {given['id'][:12]}"))
    return Finding(MONITOR, said, rank=MONITORS, facts={"abrupt": True})


def child(user: User, obj: Object, case: Case) -> Finding | None:
    """A container's first process."""
    parent = case.process(obj.facts["ppid"])
    if parent is None or not user.owns(obj.facts["uid"]) or not case.is_proven("process", parent.key):
        return None
    if real_exe(parent).rpartition("/")[2] != "conmon":
        return None
    said = Evidence("kernel", f"child of pid {parent.key}, a monitor of {user.name}'s")
    return Finding(CONTAINER, (said,), rank=CONTAINERS, facts={"abrupt": True})


def scope(user: User, path: str) -> str:
    """The cgroup of one of the user's containers that a path is in; "" if none. Only root, for the user, makes cgroups
    in his slice, and only he and root move processes there."""
    if not below(path, f"/user.slice/user-{user.uid}.slice"):
        return ""
    return next((name for name in path.split("/") if CGROUP.match(name)), "")


def inside(user: User, obj: Object, case: Case) -> Finding | None:
    """A process in a container's cgroup in the user's slice."""
    name = scope(user, obj.facts["cgroup"])
    if not name or "conmon" in name or not user.owns(obj.facts["uid"]):
        return None
    said = Evidence("kernel", f"in {name} of {user.name}'s slice")
    return Finding(CONTAINER, (said,), rank=CONTAINERS, facts={"abrupt": True})


def helper(user: User, obj: Object, case: Case) -> Finding | None:
    """What else runs for the user's containers: networks, ports, names, the file system, who keeps his namespaces."""
    name, argv = real_exe(obj).rpartition("/")[2], obj.facts["argv"]
    if obj.facts["uid"] != user.uid or obj.facts["self"]:
        return None
    own = False
    if name.partition(".")[0] in ("pasta", "passt", "slirp4netns"):
        own = any(below(each, f"{user.runtime}/{where}") for each in argv for where in ("netns", "containers/networks"))
    elif name == "aardvark-dns":
        own = any(below(each, f"{user.runtime}/containers/networks") for each in argv)
    elif name == "fuse-overlayfs":
        own = any(f"{user.store}/" in each for each in argv)
    elif name == "rootlessport":
        own = re.match(r"/usr/lib(exec)?/podman/rootlessport\Z", real_exe(obj)) is not None
    elif name == "catatonit":
        own = argv[1:] == ["-P"] and re.search(r"/podman-pause-[0-9a-f]+\.scope\Z", obj.facts["cgroup"]) is not None
    elif real_exe(obj) in PROGRAMS:
        own = not obj.facts["nested"]
    if not own:
        return None
    said = Evidence("kernel", f"runs {obj.facts['exe']} as {user.name}: {' '.join(argv)[:120]}")
    return Finding(HELPER, (said,), rank=HELPERS, facts={"abrupt": True})


def cgroup(user: User, obj: Object, case: Case) -> Finding | None:
    """A container's cgroup in the user's slice. It goes when it is empty."""
    name = scope(user, obj.facts["path"])
    if not name or obj.facts["hierarchy"]:
        return None
    said = Evidence("kernel", f"{name} in {user.name}'s slice")
    return Finding("a container's cgroup", (said,), facts={"only_empty": True})


def directories(user: User) -> dict[str, tuple[Role, str, re.Pattern[str]]]:
    """What is looked at, and of what names the entries of each are."""
    anything, ids = re.compile(r".*", re.DOTALL), re.compile(r"[0-9a-f]{64}|\.cache")
    share = f"{user.home}/.local/share/containers"
    return {
        f"{user.runtime}/libpod": (Role.LIVE, "libpod's state", anything),
        f"{user.runtime}/containers": (Role.LIVE, "the run root of the store, and of networks", anything),
        f"{user.runtime}/crun": (Role.LIVE, "what runs, by the runtime", ids),
        f"{user.runtime}/runc": (Role.LIVE, "what runs, by the runtime", ids),
        f"{user.runtime}/netns": (Role.LIVE, "pins of network namespaces", libpod.PIN),
        f"{user.runtime}/podman": (Role.LIVE, "the socket of the API", anything),
        f"/dev/shm/libpod_rootless_lock_{user.uid}": (Role.LIVE, "libpod's locks", anything),
        f"{share}/storage": (Role.EXTERNAL, "containers, images and volumes", anything),
        f"{share}/cache": (Role.EXTERNAL, "what is known of layers", re.compile(r"blob-info-cache-.*")),
    }


def file(user: User, obj: Object, case: Case) -> Finding | None:
    """The user's store and run directories: his own by place and by owner."""
    found = directories(user).get(obj.key)
    if found is None:
        return None
    role, what, form = found
    reason, advice = f"{what} of {user.name}", f"rm -r {obj.key}"
    if obj.facts["type"] not in ("directory", "file"):
        said = Evidence("disk", f"is a {obj.facts['type']}")
        return Finding(reason, (said,), proven=False, role=Role.ADMIN, advice=f"ls -ld {obj.key}")
    if obj.facts["mounted"] or not all(form.match(name) for name in obj.facts["entries"]):
        said = Evidence("disk", "something is mounted there" if obj.facts["mounted"] else "has other things in it")
        return Finding(reason, (said,), proven=False, role=Role.ADMIN, advice=advice)
    base, name = os.path.split(obj.key)
    record = next((each for each in case.records_of("owner") if each.name == obj.key), None)
    if record is None or record.source == "ledger" or not user.owns(record.facts["uid"]):
        return None
    said = Evidence("disk", f"belongs to {user.name}, in {base}")
    facts = {"strict": True, "owners": [list(each) for each in user.ranges]}
    return Finding(reason, (said,), role=role, facts=facts)


def read_owners(user: User, look: Look) -> Answer:
    """Records "owner", by path, of who owns the user's directories at this look."""
    records = []
    for path in directories(user):
        base, name = os.path.split(path)
        if not remote(look, base):
            records.append(Record("owner", path, "disk", {"uid": owner(look.host, base, name)}))
    return records, []


def instances(user: User, case: Case) -> list[Instance]:
    """The user's containers that run, by their monitors: what is in his store is not read for him."""
    found: dict[str, Instance] = {}
    groups: dict[str, list[str]] = {}
    for group in case.proven("cgroup"):
        match = CGROUP.match(group.key.rpartition("/")[2])
        if match:
            groups.setdefault(match["id"], []).append(group.id)
    for process in case.proven("process"):
        given = conmon_argv(process) if real_exe(process).rpartition("/")[2] == "conmon" else {}
        if not given or given["id"] in found:
            continue
        id, argv = given["id"], process.facts["argv"]
        name = next((value for option, value in zip(argv, argv[1:]) if option in ("-n", "--name")), "")  # noqa: B905
        said = Evidence("kernel", f"pid {process.key} is its monitor")
        ties = (process.id, *groups.get(id, ()))
        found[id] = Instance(case.product, id, name or id[:12], said, state="running", ties=ties)
    return list(found.values())


def product(name: str) -> Product:
    """The Podman of one user. Raises KeyError."""
    user = user_of(name)
    bound: dict[str, tuple[Rule, ...]] = {
        "process": tuple(partial(rule, user) for rule in (monitor, child, inside, helper)),
        "cgroup": (partial(cgroup, user),),
        "file": (partial(file, user),),
    }
    return Product(
        name=f"podman@{name}",
        title=f"Podman of {name}",
        packages=("podman",),
        daemons=PROGRAMS,
        directories=tuple(Directory(path, role, what) for path, (role, what, _) in directories(user).items()),
        readers=(partial(read_owners, user),),
        rules=bound,
        instances=partial(instances, user),
        recall=frozenset(),
    )
