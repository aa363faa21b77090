"""What stands in /var/lib/incus and /run/incus (LXD: /var/lib/lxd and /var/log/lxd): names, process files and
liblxc's configurations.

The poorest evidence of all, and what is left when the daemon was killed and its database never dumped.
Layout: Incus internal/server/sys/fs.go and internal/util/paths.go.
"""

from __future__ import annotations

from typing import Any

from leftovers.evidence import files, incus_records, liblxc_config, process_file
from leftovers.evidence.files import note
from leftovers.host import Host
from leftovers.model import Record

__all__ = ["read"]

# In /run/incus/<instance>/. qemu.pid is left to the one that looks at QEMU: its argv names it.
RUN_FILES = ("forkfile.pid", "lxcfs.pid")


def read(host: Host, directory: str = "/var/lib/incus", run: str = "/run/incus") -> tuple[list[Record], list[str]]:
    """Records "network", "instance", "helper" and "lxc.conf" of what has a directory or a file there.

    An instance is known by its name only: its nics and disks are empty, `running` is None; `type` is empty when
    nothing tells. A network is a bridge: only a bridge has a directory (Incus network/driver_bridge.go).
    """
    faults: list[str] = []
    records = networks(host, f"{directory}/networks", faults)
    known: dict[str, dict[str, Any]] = {}
    for kind, type_ in (("containers", "container"), ("virtual-machines", "virtual-machine")):
        for name, _ in files.entries(host, f"{directory}/{kind}", "", faults):  # symlinks to the volumes
            known.setdefault(name, blank(type_))
    devices = f"{directory}/devices"
    for name in files.directories(host, devices, "", faults):
        records += instance_devices(host, devices, name, known.setdefault(name, blank()), faults)
    for name in files.directories(host, run, "", faults):
        records += instance_run(host, run, name, known.setdefault(name, blank()), faults)
    for name, facts in sorted(known.items()):
        project, instance = incus_records.instance_parts(name)
        if files.is_name(instance):
            records.append(Record("instance", name, "disk", {"project": project, "instance": instance, **facts}))
        else:
            note(faults, directory, f"an instance has the impossible name {ascii(name)[:80]}")
    return records, faults


def blank(type_: str = "") -> dict[str, Any]:
    """The facts of an instance of which only the name is known."""
    return {"type": type_, "running": None, "ephemeral": False, "uuid": "", "nics": [], "disks": [], "proxies": []}


def networks(host: Host, base: str, faults: list[str]) -> list[Record]:
    """The bridges of networks/<name>/, each with its dnsmasq's pid and addresses when it has one."""
    records = []
    for name in files.directories(host, base, "", faults):
        facts: dict[str, Any] = {"project": "default", "type": "bridge", "managed": True, "status": ""}
        facts |= {"config": {}, "addresses": []}
        helpers = one(process_file.read(host, f"{base}/{name}/dnsmasq.pid", base), faults)
        for helper in helpers:
            args = helper.facts["args"]
            if f"--interface={name}" in args:
                listen = (incus_records.address(arg.partition("=")[2]) for arg in args if is_listen(arg))
                facts |= {"pid": helper.facts["pid"], "addresses": [each for each in listen if each]}
            else:
                note(faults, helper.name, f"is not of a dnsmasq for {name}")
        records += [Record("network", name, "disk", facts), *helpers]
    return records


def is_listen(arg: str) -> bool:
    return arg.startswith("--listen-address=")


def instance_devices(host: Host, base: str, name: str, facts: dict[str, Any], faults: list[str]) -> list[Record]:
    """The helpers of devices/<name>/; notes the proxies in the instance's facts.

    proxy.<device>, virtio-fs.<device>.pid and <device>.pid are forkproxy's, virtiofsd's and swtpm's (Incus
    device/{proxy,device_utils_disk,tpm}.go).
    """
    records = []
    for file, is_directory in files.entries(host, base, name, faults):
        if is_directory or not (file.startswith("proxy.") or file.endswith(".pid")):
            continue
        records += one(process_file.read(host, f"{base}/{name}/{file}", base), faults)
        if file.startswith("proxy."):
            facts["proxies"].append(file.removeprefix("proxy."))
    return records


def instance_run(host: Host, base: str, name: str, facts: dict[str, Any], faults: list[str]) -> list[Record]:
    """lxc.conf and the helpers of /run/incus/<name>/; the files there tell the instance's type."""
    present = {file for file, _ in files.entries(host, base, name, faults)}
    if not facts["type"]:
        facts["type"] = "container" if "lxc.conf" in present else "virtual-machine" if "qemu.conf" in present else ""
    records = []
    for file in sorted(present.intersection(RUN_FILES)):
        records += one(process_file.read(host, f"{base}/{name}/{file}", base), faults)
    if "lxc.conf" in present:
        records += one(liblxc_config.read(host, f"{base}/{name}/lxc.conf", base), faults)
    return records


def one(answer: tuple[list[Record], list[str]], faults: list[str]) -> list[Record]:
    """The records of another reader; its faults join ours."""
    for line in answer[1]:
        if len(faults) <= files.FAULTS:
            faults.append(line)
    return answer[0]
