"""nerdctl: the containers that it has in the host's containerd, whatever their namespace, and its networks.

It is in no package of Debian's: its file is in /usr/local/bin (or /usr/bin), and when that is gone `leftovers clean
nerdctl` takes what it has left. It runs no daemon: its hooks did what is to be done when a container ends, and nobody
can run these any more. Its containers are those in its own store (evidence/nerdctl.py); CNI knows them as NAMESPACE-ID
(pkg/ocihook/ocihook.go). Volumes are people's data, and stay. Sources: containerd/nerdctl 2.x
pkg/{netutil,ocihook,defaults,healthcheck}.
"""

from __future__ import annotations

from dataclasses import replace

from leftovers.claims import Case, Finding
from leftovers.errors import Unreadable
from leftovers.evidence import nerdctl
from leftovers.kinds.kind import Look
from leftovers.model import Evidence, Object, Record, Role
from leftovers.mountinfo import below
from leftovers.products.containers import Runtime, product
from leftovers.products.containers.known import containers, trace
from leftovers.products.containers.names import rules
from leftovers.products.containers.orphans import orphans
from leftovers.products.containers.processes import CONTAINERS, SHIM
from leftovers.products.containers.reading import Answer, places, remote
from leftovers.products.product import Directory

DATA, RUN, NETWORKS = nerdctl.DATA, nerdctl.RUN, nerdctl.NETWORKS
ADDRESS = "/run/containerd/containerd.sock"
FILES = ("/usr/local/bin/nerdctl", "/usr/bin/nerdctl")
# Of a store: what is kept of containers. pkg/{logging,namestore,dnsutil/hostsstore}.
KEPT = ("containers", "names", "etchosts")
ROOTLESS = ".local/share/nerdctl"
# Seconds from the start of the process that holds a container's ports to the writing down of its pid; the clock that
# says when the host was booted is set in between.
SOON = range(-5, 60)


def read(look: Look) -> Answer:
    if remote(look, DATA):
        return [], [f"{DATA}: not read, it is on a network or FUSE file system"]
    records, faults = nerdctl.read(look.host, ADDRESS)
    for found, said in (
        nerdctl.read_reservers(look.host, {process.key: process.facts["start"] for process in look.objects("process")}),
        nerdctl.read_networks(look.host) if not remote(look, NETWORKS) else ([], []),
    ):
        records += found
        faults += said
    return records, faults


def read_homes(look: Look) -> Answer:
    """Records "rootless", named by path, of what users have of their own. Facts: user."""
    records = []
    try:
        lines = look.host.read("/etc/passwd").splitlines()
    except (OSError, Unreadable):
        return [], []
    for line in lines:
        fields = line.split(":")
        if len(fields) != 7 or not fields[5].startswith("/") or fields[5].count("/") < 2 or "/.." in fields[5]:
            continue
        path = f"{fields[5].rstrip('/')}/{ROOTLESS}"
        if not remote(look, path) and look.host.exists(path):
            records.append(Record("rootless", path, "disk", {"user": fields[0]}))
    return records, []


def looked_at(runtime: Runtime, records: tuple[Record, ...]) -> tuple[str, ...]:
    found = list(places(runtime, records))
    for record in records:
        if record.type == "store":
            found += [record.name, *(f"{record.name}/{name}" for name in KEPT)]
        elif record.type in ("volume", "rootless", "nerdctl place") or record.facts.get("nerdctl"):
            found.append(record.name)
    return tuple(dict.fromkeys(found))


# -- processes and units --------------------------------------------------------------------------------------------


def reserver(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The process that holds a container's published ports open, so that nobody else takes them: `sleep infinity`,
    started by the hook, which wrote its pid down just then. The number alone may be another process' by now."""
    if obj.facts["nested"] or obj.facts["uid"] != 0 or obj.facts["argv"] != ["sleep", "infinity"]:
        return None
    for record in case.records_of("reserver"):
        if record.facts["pid"] != obj.facts["pid"] or record.source == "ledger":
            continue
        if record.facts["id"] in containers(runtime, case) and record.facts["late"] in SOON:
            said = (Evidence("disk", f"{record.name} names it"), containers(runtime, case)[record.facts["id"]])
            return Finding("holds a container's ports open", said, rank=CONTAINERS)
    return None


def check(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The timer of a container's health check, and the service that it starts: named for the container."""
    said = containers(runtime, case).get(obj.key.partition(".")[0])
    if said is None or not obj.facts["file"].startswith("/run/systemd/transient/"):
        return None
    return Finding("of a container's health check", (said,))


# -- networks -------------------------------------------------------------------------------------------------------


def bridge(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """The bridge of one of its networks: its configuration has nerdctl's id of the network in it, the bridge the name
    that nerdctl computes of that, and the gateway's address. One of that name with another address is somebody's."""
    facts = obj.facts
    if not facts["host"] or facts["type"] != "bridge":
        return None
    record = next((each for each in case.records_of("conflist") if named(each) == obj.key), None)
    if record is None:
        return None
    advice, reason = f"ip link delete {obj.key}", f"the bridge of nerdctl's network {record.facts['network']}"
    said = Evidence(record.source, f"{record.name} asks for it")
    strange = [
        address
        for address in facts["addresses"]
        if address not in record.facts["gateways"] and not address.lower().startswith("fe80:")
    ]
    if strange:
        doubt = Evidence("kernel", f"has the address {strange[0]}, which is not that network's")
        return Finding(reason, (doubt, said), proven=False, role=Role.ADMIN, advice=advice)
    user = user_of(case, obj, record)
    if user is not None:
        return Finding(f"{reason}, which somebody else uses too", (user, said), role=Role.HELD, advice=advice)
    return Finding(reason, (said,))


def named(record: Record) -> str:
    """The bridge that nerdctl makes for a network, "" if it is not nerdctl's or not so (cni_plugin_unix.go)."""
    id = record.facts.get("nerdctl", "")
    name = "nerdctl0" if record.facts["network"] == "bridge" else f"br-{id[:12]}"
    return name if id and record.facts["bridges"] == [name] else ""


def user_of(case: Case, obj: Object, record: Record) -> Evidence | None:
    """Who else uses a bridge."""
    for link in case.objects("link"):
        if link.facts["host"] and link.facts["master"] == obj.key and not case.is_proven("link", link.key):
            return Evidence("kernel", f"has the port {link.key}, which is not nerdctl's")
    for other in case.records_of("conflist"):
        if other.source != "ledger" and obj.key in other.facts["bridges"] and not other.facts.get("nerdctl"):
            return Evidence("disk", f"{other.name} asks for it too")
    return None


# -- files ----------------------------------------------------------------------------------------------------------


def stored(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """What is in its store. All of it goes, unless volumes are there, or what belongs to another containerd."""
    if not below(obj.key, DATA):
        return None
    if obj.facts["type"] != "directory" or obj.facts["mounted"]:
        there = "something is mounted there" if obj.facts["mounted"] else f"a {obj.facts['type']} is there"
        return Finding("nerdctl's data", (Evidence("kernel", there),), proven=False, role=Role.ADMIN, advice=ls(obj))
    stores = {record.name: record for record in case.records_of("store") if record.source != "ledger"}
    volumes = [record.name for record in case.records_of("volume") if record.source != "ledger"]
    others = [path for path, record in stores.items() if not record.facts["own"]]
    said = (Evidence("disk", "nerdctl's --data-root"),)
    if obj.key in volumes:
        return Finding("a volume of nerdctl's", said, role=Role.EXTERNAL)
    if obj.key == DATA and others:
        doubt = Evidence("disk", f"{others[0]} is of a containerd at another socket")
        return Finding("nerdctl's data, also of another containerd", (doubt, *said), False, Role.ADMIN, advice=ls(obj))
    if obj.key in others:
        doubt = Evidence("disk", f"{obj.key} is not named for {ADDRESS}")
        return Finding("nerdctl's data of another containerd", (doubt, *said), False, Role.ADMIN, advice=ls(obj))
    if obj.key == DATA or obj.key in stores:
        if any(below(volume, obj.key) for volume in volumes):
            return Finding("nerdctl's data, with volumes", said, role=Role.EXTERNAL)
        return Finding("nerdctl's data", said, role=Role.DATA)
    base, _, name = obj.key.rpartition("/")
    if base in stores and stores[base].facts["own"] and name in KEPT:
        return Finding(f"nerdctl's data of {name}", said, role=Role.DATA)
    return None


def ls(obj: Object) -> str:
    return f"ls -A {obj.key}"


def place(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A lock of its, or a directory for the networks of a namespace that it has in its store, with nothing else in it:
    nobody but nerdctl has either in CNI's directory (pkg/netutil/store.go)."""
    record = next((each for each in case.records_of("nerdctl place") if each.name == obj.key), None)
    if record is None or record.source == "ledger" or not trace(runtime, case):
        return None
    name = obj.key.rpartition("/")[2]
    if obj.facts["type"] == "file" and name in nerdctl.LOCKS and record.facts.get("size") == 0:
        said = Evidence("disk", "has the name of its lock, and is empty")
        return Finding("a lock of nerdctl's", (said,), role=Role.DATA)
    known = {each.facts["namespace"] for type in ("nerdctl", "volume") for each in case.records_of(type)}
    known |= {space for each in case.records_of("store") for space in each.facts["namespaces"]}
    if obj.facts["type"] != "directory" or obj.facts["mounted"] or name not in known:
        return None
    if any(not case.is_proven("file", f"{obj.key}/{entry}") for entry in obj.facts["entries"]):
        return None
    said = Evidence("disk", f"nerdctl has the namespace {name}, and nothing of anybody else's is in it")
    return Finding("made for nerdctl's networks", (said,), role=Role.DATA, facts={"only_hollow": True})


def rootless(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """What a user has of his own: his containers run in his namespaces, and he alone can end them well."""
    for record in case.records_of("rootless"):
        if record.name == obj.key and record.source != "ledger":
            said = (Evidence("disk", f"in the home of {record.facts['user']}"),)
            advice = (
                f"machinectl shell {record.facts['user']}@ /usr/local/bin/containerd-rootless-setuptool.sh uninstall"
            )
            return Finding("nerdctl's data of a user", said, proven=False, role=Role.ADMIN, advice=advice)
    return None


UNIT = "[0-9a-f]" * 64
RUNTIME = Runtime(
    name="nerdctl",
    title="nerdctl",
    directory=DATA,
    beside=(RUN,),
    address=ADDRESS,
    state="/run/containerd",
    root="/var/lib/containerd",
    shares=True,
    known="nerdctl",
    reads=read,
    kubelet="",
    programs="",
    executables=FILES,
    services=r"(?!)",  # it has none
    own=((RUN, Role.LIVE, "pkg/ocihook/ocihook.go, portReserverPidFilePath"),),
    parents=(NETWORKS, "/etc/cni"),
    conf="",
    brings=("cni", "nerdctl"),
    mounts=((DATA, r"[0-9a-f]{8}/containers/[^/]+/[0-9a-f]{64}/shm\Z", "a container's shared memory"),),
    profile=("nerdctl-default", "nerdctl"),
)
_FAMILY = product(
    RUNTIME,
    packages=(),
    daemons=FILES,
    uninstall=f"rm {FILES[0]}",
    units=(f"{UNIT}.timer", f"{UNIT}.service"),
    nft_tables=("inet cni_plugins_masquerade", "ip cni_hostport", "ip6 cni_hostport"),
    companions=("containerd",),
    instance_processes=(SHIM,),
    orphans=orphans(RUNTIME),
)
PRODUCT = replace(
    _FAMILY,
    directories=(*_FAMILY.directories, Directory(DATA, Role.EXTERNAL, "nerdctl's --data-root")),
    readers=(*_FAMILY.readers, read_homes),
    places=lambda records: looked_at(RUNTIME, records),
    rules={
        **_FAMILY.rules,
        "unit": rules(RUNTIME, check),
        "process": (*rules(RUNTIME, reserver), *_FAMILY.rules["process"]),
        "link": (*rules(RUNTIME, bridge), *_FAMILY.rules["link"]),
        "file": (*rules(RUNTIME, stored, place, rootless), *_FAMILY.rules["file"]),
    },
)
