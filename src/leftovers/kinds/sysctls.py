"""Kernel settings that products change for the whole host: listed to be reported, never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb

__all__ = ["Sysctls"]


class Sysctls(Kind):
    """Facts: name, value. Asked for as "NAME=VALUE": listed only while it has the value that a product gives it."""

    name: ClassVar[str] = "sysctl"
    title: ClassVar[str] = "kernel settings"
    verbs: ClassVar[tuple[Verb, ...]] = ()

    def survey(self, look: Look) -> Listing:
        objects = []
        for wanted in look.scope.sysctls:
            name, _, value = wanted.partition("=")
            try:
                present = look.host.read(f"/proc/sys/{name.replace('.', '/')}", 4096).strip()
            except OSError:
                continue
            if present == value:
                objects.append(Object("sysctl", name, (name, value), {"name": name, "value": value}))
        return Listing(tuple(objects))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        return {obj.id: "kernel settings are never changed back" for obj in objects}
