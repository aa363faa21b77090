"""Users, groups and their subordinate id ranges: listed to be reported, never changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb

__all__ = ["Accounts"]

FILES = (("user", "/etc/passwd"), ("group", "/etc/group"), ("subuid", "/etc/subuid"), ("subgid", "/etc/subgid"))


class Accounts(Kind):
    """Facts: type (user, group, subuid, subgid), name, line. Asked for as "TYPE NAME". Read from the files: a
    directory service may be slow, and no package adds to one."""

    name: ClassVar[str] = "account"
    title: ClassVar[str] = "users, groups and id ranges"
    verbs: ClassVar[tuple[Verb, ...]] = ()
    lasting: ClassVar[bool] = True

    def survey(self, look: Look) -> Listing:
        objects = []
        for kind, path in FILES:
            try:
                lines = look.host.read(path).split("\n")
            except OSError:
                continue
            for line in lines:
                name = line.partition(":")[0]
                if f"{kind} {name}" in look.scope.accounts:
                    key = f"{kind} {name}" if kind in ("user", "group") else f"{kind} {line}"
                    objects.append(Object("account", key, (kind, line), {"type": kind, "name": name, "line": line}))
        return Listing(tuple(objects))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        return {obj.id: "accounts are never removed" for obj in objects}
