"""Rules that somebody gave to ufw: it writes each down as a line of its own words (ufw src/backend_iptables.py, tuples
in user.rules; 0.36.2), whether it is enabled or not."""

from __future__ import annotations

from leftovers.errors import Unreadable
from leftovers.evidence import files
from leftovers.evidence.files import note
from leftovers.host import Host
from leftovers.model import Record

__all__ = ["FILES", "read"]

DIRECTORY = "/etc/ufw"
FILES = (f"{DIRECTORY}/user.rules", f"{DIRECTORY}/user6.rules")
TUPLE = "### tuple ### "
ANYBODY = (("any", "any", "0.0.0.0/0", "any", "0.0.0.0/0"), ("any", "any", "::/0", "any", "::/0"))


def read(host: Host) -> tuple[list[Record], list[str]]:
    """Records "ufw", named by path, of the rules that allow all on one link. Facts: direction (in or out), link,
    remark (whether the rule has a comment: only a person gives one)."""
    faults: list[str] = []
    records = []
    for path in FILES:
        try:
            text = files.read(host, DIRECTORY, path.rpartition("/")[2], files.MIB)
        except Unreadable as error:
            note(faults, error.what, error.cause)
            continue
        for line in (text or b"").decode("utf-8", "surrogateescape").split("\n"):
            words = line.removeprefix(TUPLE).split() if line.startswith(TUPLE) else []
            if len(words) not in (7, 8) or words[0] != "allow" or tuple(words[1:6]) not in ANYBODY:
                continue
            direction, _, link = words[6].partition("_")
            if direction in ("in", "out") and files.is_name(link) and "!" not in link:
                facts = {"direction": direction, "link": link, "remark": len(words) == 8}
                records.append(Record("ufw", path, "disk", facts))
    return records, faults
