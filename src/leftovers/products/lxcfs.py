"""lxcfs: the FUSE file system that shows containers their own /proc. Shared by Incus, LXD, LXC and others.

zabbly's Incus brings one of its own (products/incus_lxcfs.py): the same program at another place. `product` makes the
description of either; what is said of one is not said of the other, which may run beside it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from leftovers.claims import Case, Finding, real_exe, unit_cgroup
from leftovers.model import Evidence, Object, Role
from leftovers.mountinfo import covering
from leftovers.products.product import Directory, Product

RUN = "/run/lxcfs"
PID = "/run/lxcfs.pid"
MADE = "lxcfs makes it (lxcfs src/lxcfs.c, RUNTIME_PATH)"
WRITTEN = "lxcfs writes it (lxcfs src/lxcfs.c, DEFAULT_PID_FILE)"


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


def mount(point: str, obj: Object, case: Case) -> Finding | None:
    if obj.facts["fstype"] != "fuse.lxcfs" or obj.facts["point"] != point:
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


def process(exe: str, point: str, obj: Object, case: Case) -> Finding | None:
    # Killed under a container that uses it, its files in there answer "Transport endpoint is not connected" until
    # that container is restarted (lxc/lxcfs README.md; lxc/lxcfs#193).
    if obj.facts["nested"] or real_exe(obj) != exe or point not in obj.facts["argv"]:
        return None  # one that an administrator runs at another place is his
    said = (Evidence("kernel", f"runs {obj.facts['exe']}"),)
    for claim in case.claims.values():
        if claim.object.kind == "mount" and claim.role is Role.ADMIN:
            return Finding(claim.reason, said + claim.evidence, role=Role.ADMIN)
    return Finding("lxcfs, which nobody uses any more", said, rank=9)


def unit(name: str, obj: Object, case: Case) -> Finding | None:
    # Stopping the unit would kill the process: not while somebody's containers use it.
    if obj.key != name or obj.facts.get("stands"):
        return None
    said = (Evidence("systemd", f"{obj.key} is {obj.facts['load']}, {obj.facts['active']} ({obj.facts['sub']})"),)
    for claim in case.claims.values():
        if claim.role is Role.ADMIN:
            return Finding(claim.reason, said, role=Role.ADMIN)
    return Finding("a unit of the package", said)


def run_directory(obj: Object, case: Case) -> Finding | None:
    if obj.key != RUN or any(claim.role is Role.ADMIN for claim in case.claims.values()):
        return None
    for other in case.objects("mount"):
        if other.facts["fstype"] == "fuse.lxcfs" and not (
            case.is_proven("mount", other.key) or other.id in case.elsewhere
        ):
            return None  # that of another lxcfs, who has the same directory
    return Finding("lxcfs' run directory", (Evidence("package", MADE),))


def pid_file(obj: Object, case: Case) -> Finding | None:
    """Any lxcfs writes it, and takes it away again if it is not killed."""
    if obj.key != PID or obj.facts["type"] != "file" or servers(case):
        return None
    said = Evidence("package", WRITTEN)
    return Finding("the number of an lxcfs that was killed", (said, Evidence("kernel", "no lxcfs runs")))


def directory(point: str, obj: Object, case: Case) -> Finding | None:
    if obj.key != point or obj.facts["type"] != "directory" or (obj.facts["entries"] and not obj.facts["mounted"]):
        return None
    for claim in case.claims.values():
        if claim.object.kind == "mount" and claim.role is Role.ADMIN:
            return None
    said = (Evidence("disk", f"{obj.key} is a mount point and nothing else"),)
    return Finding("lxcfs' mount point", said, facts={"only_hollow": True})


def product(exe: str, point: str, service: str, **different: Any) -> Product:
    """A lxcfs that is this program, mounted there by that unit."""
    return Product(
        daemons=(exe,),
        units=(service,),
        # The mount first: whether somebody uses it decides about all the rest.
        recall=frozenset(),
        directories=(
            Directory(point, Role.LIVE, f"made by the unit's ExecStartPre= ({service})"),
            Directory(RUN, Role.LIVE, MADE),
            Directory(PID, Role.LIVE, WRITTEN),
        ),
        rules={
            "mount": (partial(mount, point),),
            "process": (partial(process, exe, point),),
            "unit": (partial(unit, service),),
            "cgroup": (unit_cgroup(service),),
            "file": (partial(directory, point), run_directory, pid_file),
        },
        **different,
    )


PRODUCT = product("/usr/bin/lxcfs", "/var/lib/lxcfs", "lxcfs.service", name="lxcfs", title="lxcfs", packages=("lxcfs",))
