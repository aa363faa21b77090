"""What dockerd has written down of its containers: CONTAINER/config.v2.json below its --data-root (moby
daemon/container/container.go, toDisk). It is there while the container is, running or not."""

from __future__ import annotations

from leftovers.evidence import containerd, files, json_text
from leftovers.evidence.json_text import mapping, text
from leftovers.host import Host
from leftovers.model import Record

__all__ = ["read"]

LIMIT = 16 * files.MIB


def read(host: Host, root: str) -> tuple[list[Record], list[str]]:
    """Records "docker", named by id. Facts: id, name, networks (ids of those that it is in), sandbox (the pin of its
    network namespace)."""
    faults: list[str] = []
    records = []
    for id in filter(containerd.is_unique, files.directories(host, root, "containers", faults)):
        said = json_text.read(host, root, f"containers/{id}/config.v2.json", LIMIT, faults) or {}
        if said.get("ID") != id:
            continue
        settings = mapping(said.get("NetworkSettings"))
        networks = {text(mapping(each).get("NetworkID")) for each in mapping(settings.get("Networks")).values()}
        sandbox = settings.get("SandboxKey")
        facts = {
            "id": id,
            "name": text(said.get("Name")).strip("/"),
            "networks": sorted(filter(containerd.is_unique, networks)),
            "sandbox": sandbox if json_text.is_path(sandbox) else "",
        }
        records.append(Record("docker", id, "disk", facts))
    return records, faults
