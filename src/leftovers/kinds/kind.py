"""What every kind of host object can do: list all there are, and act on many at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from leftovers.host import Host
from leftovers.model import Deadline, Listing, Object, Scope, Verb

__all__ = ["Kind", "Look"]

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the host: where it is, what products asked for, and what was already listed."""

    host: Host
    scope: Scope = Scope()
    listed: Mapping[str, tuple[Object, ...]] = field(default_factory=dict)
    memo: dict[Hashable, Any] = field(default_factory=dict, hash=False, compare=False, repr=False)

    def once(self, name: Hashable, make: Callable[[], Made]) -> Made:
        """What is the same for all who ask in this look: many products read the same files. Not to be changed."""
        if name not in self.memo:
            self.memo[name] = make()
        made: Made = self.memo[name]
        return made

    def objects(self, kind: str) -> tuple[Object, ...]:
        """What an earlier kind found. The kind must be in `needs` of the one that asks."""
        return self.listed[kind]


class Kind(ABC):
    """A kind of host object. It knows no product.

    name    what stands before the colon of an object's id
    title   the plural that people read
    needs   kinds that must be listed before this one
    settle  seconds that the kernel (or systemd) may take until a removed object is no longer listed
    limit   seconds that one batch may take in all
    lasting whether an identity still means something after a reboot
    """

    name: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    verbs: ClassVar[tuple[Verb, ...]] = (Verb.REMOVE,)
    settle: ClassVar[float] = 2.0
    limit: ClassVar[float] = 60.0
    lasting: ClassVar[bool] = False

    @abstractmethod
    def survey(self, look: Look) -> Listing:
        """Every object of this kind. Changes nothing on the host: loads no module, starts no daemon."""

    @abstractmethod
    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        """Do `verb` to all of `objects`, as one batch where the kernel has one.

        The caller has just checked the identities; what can check again atomically (a pidfd) does.
        Returns the cause for each object that failed, by object id; an object that had vanished is no failure.
        Does not wait for objects to disappear from the listing: the caller lists again.
        """
