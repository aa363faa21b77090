"""lxcfs: the FUSE file system that shows containers their own /proc. Shared by Incus, LXD, LXC and others."""

from __future__ import annotations

from leftovers.claims import Case, Finding, real_exe
from leftovers.model import Evidence, Object, Role
from leftovers.mountinfo import covering
from leftovers.products.product import Directory, Product

POINTS = ("/var/lib/lxcfs", "/var/lib/incus-lxcfs")
RUN = "/run/lxcfs"
PID = "/run/lxcfs.pid"
EXES = ("/usr/bin/lxcfs", "/opt/incus/bin/lxcfs")


def users(case: Case, majmin: str) -> list[str]:
    """Processes in containers that have lxcfs mounted and that are not about to go with their product. Services on
    the host's own root (PrivateTmp= and the like) see it too, in their copy of all mounts: they do not use it."""
    root = covering(case.mounts(), "/")
    home = [root.majmin, root.root] if root else []
    return [
        f"pid {process.key} ({real_exe(process)}, in cgroup {process.facts['cgroup']})"
        for process in case.objects("process")
        if majmin in process.facts.get("mount_devices", ())
        and process.facts["mount_root"] != home
        and process.id not in case.elsewhere
    ]


def servers(case: Case) -> list[Object]:
    """Every lxcfs on the host, of whatever path: an administrator may have his own."""
    return [
        process
        for process in case.objects("process")
        if not process.facts["nested"] and real_exe(process).rpartition("/")[2] == "lxcfs"
    ]


def mount(obj: Object, case: Case) -> Finding | None:
    if obj.facts["fstype"] != "fuse.lxcfs" or obj.facts["point"] not in POINTS:
        return None
    said = [Evidence("kernel", f"mounted at {obj.facts['point']} (fuse.lxcfs)")]
    if not any(obj.facts["point"] in server.facts["argv"] for server in servers(case)):
        # "Transport endpoint is not connected", here and in containers: to them it makes no difference whether this
        # one, on the host, is there.
        said.append(Evidence("kernel", "no process serves it any more"))
        return Finding("a mount of lxcfs, which has ended", tuple(said))
    using = users(case, obj.facts["majmin"])
    if using:
        said += [Evidence("kernel", f"mounted in the container of {user}") for user in using[:5]]
        return Finding("containers of somebody else use lxcfs", tuple(said), role=Role.ADMIN)
    return Finding("lxcfs, which nobody uses any more", tuple(said))


def process(obj: Object, case: Case) -> Finding | None:
    # Killed under a container that uses it, its files in there answer "Transport endpoint is not connected" until
    # that container is restarted (lxc/lxcfs README.md; lxc/lxcfs#193).
    if obj.facts["nested"] or real_exe(obj) not in EXES or not set(obj.facts["argv"]) & set(POINTS):
        return None  # one that an administrator runs at another place is his
    said = (Evidence("kernel", f"runs {obj.facts['exe']}"),)
    for claim in case.claims.values():
        if claim.object.kind == "mount" and claim.role is Role.ADMIN:
            return Finding(claim.reason, said + claim.evidence, role=Role.ADMIN)
    return Finding("lxcfs, which nobody uses any more", said, rank=9)


def unit(obj: Object, case: Case) -> Finding | None:
    # Stopping the unit would kill the process: not while somebody's containers use it.
    if obj.key != "lxcfs.service":
        return None
    said = (Evidence("systemd", f"{obj.key} is {obj.facts['load']}, {obj.facts['active']} ({obj.facts['sub']})"),)
    for claim in case.claims.values():
        if claim.role is Role.ADMIN:
            return Finding(claim.reason, said, role=Role.ADMIN)
    return Finding("a unit of the package", said)


def run_directory(obj: Object, case: Case) -> Finding | None:
    if obj.key != RUN or any(claim.role is Role.ADMIN for claim in case.claims.values()):
        return None
    return Finding("lxcfs' run directory", (Evidence("package", "lxcfs makes it (lxcfs src/lxcfs.c, RUNTIME_PATH)"),))


def pid_file(obj: Object, case: Case) -> Finding | None:
    """Any lxcfs writes it, and takes it away again if it is not killed."""
    if obj.key != PID or obj.facts["type"] != "file" or servers(case):
        return None
    said = Evidence("package", "lxcfs writes it (lxcfs src/lxcfs.c, DEFAULT_PID_FILE)")
    return Finding("the number of an lxcfs that was killed", (said, Evidence("kernel", "no lxcfs runs")))


def directory(obj: Object, case: Case) -> Finding | None:
    if obj.key not in POINTS or obj.facts["type"] != "directory" or (obj.facts["entries"] and not obj.facts["mounted"]):
        return None
    for claim in case.claims.values():
        if claim.object.kind == "mount" and claim.role is Role.ADMIN:
            return None
    said = (Evidence("disk", f"{obj.key} is a mount point and nothing else"),)
    return Finding("lxcfs' mount point", said, facts={"only_hollow": True})


PRODUCT = Product(
    name="lxcfs",
    title="lxcfs",
    packages=("lxcfs", "incus-lxcfs"),
    daemons=EXES,
    units=("lxcfs.service",),
    directories=tuple(
        Directory(point, Role.LIVE, "made by the unit's ExecStartPre= (lxcfs.service)") for point in (*POINTS, RUN, PID)
    ),
    # The mount first: whether somebody uses it decides about all the rest.
    recall=frozenset(),
    rules={"mount": (mount,), "process": (process,), "unit": (unit,), "file": (directory, run_directory, pid_file)},
)
