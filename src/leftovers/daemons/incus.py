"""What a living Incus says about itself, over its REST API (doc/rest-api.yaml).

The caller has made sure that the daemon's process lives: a connection to a socket of systemd's would start it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from leftovers.daemons import unix_http
from leftovers.errors import Unreadable
from leftovers.evidence import incus_records
from leftovers.evidence.files import note
from leftovers.host import Host
from leftovers.model import Deadline, Record

__all__ = ["read"]

Make = Callable[[str, str, Mapping[str, Any], list[str]], Record | None]


def read(
    host: Host, socket: str = "/var/lib/incus/unix.socket", seconds: float = 10.0
) -> tuple[list[Record], list[str]]:
    """The daemon's networks (the host's own links among them, managed=false), pools and instances.

    `seconds` is for all the requests together. Of a cluster, only the instances that are located here.
    """
    faults: list[str] = []
    records: list[Record] = []
    if not host.exists(socket):
        return records, faults
    deadline = Deadline(seconds)
    here = ""

    def ask(url: str) -> Any:
        return metadata(unix_http.get(host, socket, url, deadline), f"{socket} {url}")

    def make_instance(source: str, what: str, data: Mapping[str, Any], faults: list[str]) -> Record | None:
        nonlocal here
        location = data.get("location")
        if location not in (None, "", "none"):
            here = here or server_name(ask("/1.0"), f"{socket} /1.0")
            if location != here:
                return None
        return incus_records.instance(source, what, data, faults, running(data.get("status")))

    sources: tuple[tuple[str, Make], ...] = (
        ("/1.0/networks?recursion=1&all-projects=true", incus_records.network),
        ("/1.0/storage-pools?recursion=1", incus_records.pool),
        ("/1.0/instances?recursion=1&all-projects=true", make_instance),
    )
    for url, make in sources:
        try:
            answer = ask(url)
            if not isinstance(answer, list) or not all(isinstance(data, dict) for data in answer):
                raise Unreadable(f"{socket} {url}", "not a list of objects")
            made = [make("api", f"{socket} {url}", data, faults) for data in answer]
        except Unreadable as error:
            note(faults, error.what, error.cause)
        else:
            records += [record for record in made if record is not None]
    return records, faults


def metadata(answer: object, what: str) -> Any:
    """What a synchronous answer carries (shared/api/response.go). Raises Unreadable for any other answer."""
    if not isinstance(answer, dict) or answer.get("type") != "sync":
        raise Unreadable(what, "not an answer of Incus")
    return answer.get("metadata")


def server_name(server: object, what: str) -> str:
    """environment.server_name of GET /1.0: what this member is called in `location`. Raises Unreadable."""
    environment = server.get("environment") if isinstance(server, dict) else None
    name = environment.get("server_name") if isinstance(environment, dict) else None
    if not isinstance(name, str) or not name:
        raise Unreadable(what, "does not say which member of the cluster this is")
    return name


def running(status: object) -> bool | None:
    """Whether an instance of this status has processes; None for one that is on its way, or in error."""
    if status in incus_records.RUNNING:
        return True
    return False if status == "Stopped" else None
