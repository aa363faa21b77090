"""Whether a snap that is disabled was disabled by a person, or is what a removal that failed has left (snapd 2.68).

snapd's own word is the same for both, but for the change that failed; and that it forgets after a day (overlord/
overlord.go, pruneWait). What does not come back is the data of the revision in use: a removal deletes it first
(overlord/snapstate/handlers.go, doClearSnapData), and nothing else does.
"""

from __future__ import annotations

from collections.abc import Sequence

from leftovers.daemons.snapd import Change, Snap
from leftovers.host import Host

__all__ = ["half_removed"]

# After one of these that went well an earlier removal has been got over.
STANDING = ("enable-snap", "disable-snap", "install-snap", "refresh-snap", "revert-snap", "try-snap")
DATA = "/var/snap"


def half_removed(host: Host, snap: Snap, changes: Sequence[Change]) -> str:
    """What says that a removal of this snap, which is not active, failed half-way; "" if nothing does. `changes` are
    snapd's, the latest last."""
    if any(each.whole and not each.ready for each in changes):
        return ""  # snapd is at it
    told = [each for each in changes if each.ready and (each.whole or (each.kind in STANDING and not each.status))]
    if told:
        last = told[-1]
        failed = last.whole and last.status == "Error"
        return f"the last removal of the snap {snap.name} failed (snap change {last.id})" if failed else ""
    directory = f"{DATA}/{snap.name}/{snap.revision}"
    if not snap.revision or host.exists(directory):
        return ""
    return f"a removal of the snap {snap.name} failed: it is disabled, and {directory} is gone"
