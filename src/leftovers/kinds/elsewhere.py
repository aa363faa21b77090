"""What is not on this host: a cluster that counts it as a member, pools and networks that other machines hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb

__all__ = ["Elsewhere"]


class Elsewhere(Kind):
    """Facts: text. Nobody can list it: each is what a product's records speak of, and is only ever reported."""

    name: ClassVar[str] = "elsewhere"
    title: ClassVar[str] = "things on other machines"
    verbs: ClassVar[tuple[Verb, ...]] = ()
    lasting: ClassVar[bool] = True

    def survey(self, look: Look) -> Listing:
        texts = dict.fromkeys(look.scope.elsewhere)
        return Listing(tuple(Object("elsewhere", text, (text,), {"text": text}) for text in texts))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        return {obj.id: "it is not on this host" for obj in objects}
