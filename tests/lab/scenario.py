"""What the lab's tests of Incus have in common: the administrator's things, Incus installed and used, and the host
compared with the host before."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from lab import hoststate, incus
from lab.machine import Completed, Machine

DONE, LEFT, REFUSED = 0, 3, 4
Arrive = Callable[[Machine], None]

# What may stay on the host, and why.
KEPT = (
    r"account group incus(-admin)?$",  # groups and ranges: something else may have come to use them
    r"account sub[ug]id root$",
    r"file /etc/dnsmasq\.d$",  # an empty directory that incus-base's postinst makes, of dnsmasq's
    r"file /run/runit(/supervise)?$",  # of runit-helper, run by postinst; gone at the next boot
    r"file /root/\.config(/incus(/.*)?)?$",  # what the command `incus` keeps for a person
    r"file /(etc(/apt/apt\.conf\.d/50|/dpkg/dpkg\.cfg\.d/|/)|(run|var/lib|var/cache)/)leftovers(/.*)?$",  # our own
    r"(file /etc/systemd/system/multi-user\.target\.wants/|unit )leftovers-snaps\.(path|service)$",
)
# What an administrator does who wants to see the last of it.
DELETE = """
umount -l /var/lib/incus/guestapi /var/lib/incus/shmounts /var/lib/incus/storage-pools/pool2
rm -rf /var/lib/incus /var/log/incus /run/incus /run/lxc
"""
# Containers that live get their addresses from Incus' dnsmasq some seconds after their start.
LATER = r"(address|route) \[net of [^]]*init"
# Incus sets these; what they were before, and who needs them now, nobody can tell.
CHANGED = (
    r"sysctl net\.ipv4\.(ip_forward|conf\.(all|default)\.forwarding):",
    r"sysctl net\.ipv6\.conf\.(all|default)\.(forwarding|accept_ra):",
    r"sysctl (fs\.inotify|fs\.aio-max-nr|kernel\.keys|net\.ipv[46]\.neigh|vm\.max_map_count)",
)


def leftovers(m: Machine, *args: str, code: int | None = DONE) -> Completed:
    done = m.run(["leftovers", *args], check=False, timeout=90)
    if code is not None and done.code != code:
        raise AssertionError(
            f"leftovers {' '.join(args)}: exit code {done.code}, not {code}\n{done.out[-6000:]}\n{done.err[-3000:]}"
        )
    return done


def document(m: Machine, *args: str, code: int | None = DONE) -> list[dict[str, Any]]:
    """The objects of a --json document, whose shape is a promise."""
    read = json.loads(leftovers(m, *args, "--json", code=code).out)
    assert read["format_version"]
    for item in read["objects"]:
        assert {"id", "kind", "product", "action", "reason", "evidence"} <= set(item)
        assert item["evidence"] and all(said["source"] and said["text"] for said in item["evidence"])
    objects: list[dict[str, Any]] = read["objects"]
    return objects


def same(
    m: Machine, before: dict[str, Any], keep: Sequence[str] = KEPT, changed: Sequence[str] = CHANGED, said: str = ""
) -> None:
    """Nothing is left but what is documented, nothing of the administrator's is lost or changed."""
    found = hoststate.compare(before, m.snapshot(), keep=[f"^{k}" for k in keep], changed=[f"^{c}" for c in changed])
    assert hoststate.count(found) == 0, f"\n{hoststate.render(found)}\n{said}"


def lived(m: Machine) -> dict[str, Any]:
    """The administrator's things, then Incus, installed and used. Returns the host as it was before Incus."""
    incus.admin_things(m)
    before = m.snapshot()
    incus.install(m)
    incus.use(m)
    return before


def clean(m: Machine, before: dict[str, Any], keep: Sequence[str] = KEPT) -> None:
    """`clean` leaves the host as it was, `verify` agrees, and a second one has nothing to do."""
    said = leftovers(m, "clean", "incus", "--yes", code=None)
    same(m, before, keep=keep, said=said.out + said.err)
    assert said.code == DONE, said.out + said.err
    leftovers(m, "verify", "incus")
    assert [o["id"] for o in document(m, "plan", "incus") if o["action"] != "keep"] == []
    leftovers(m, "clean", "incus", "--yes")
