"""A plan as a text that hooks/finish can carry out when there is no Python on the host any more.

A removal may take python3 and this package away before the product's own purge has ended. What was seen by then is
written down here in lines that a POSIX shell can check object by object. Only what it can check with certainty is in
it: what is not, is counted, and told to the administrator.

    leftovers-inventory 1 BOOT_ID PRODUCT...
    namespaces  PID  MNT  NET                       inodes of those that this was seen in
    lent        NETNS                               a link that is to go home, and cannot by this: nobody is killed
    return      NETNS  INDEX  PID  HOME  MTU  ADDRESS  NAME
    unit        INVOCATION  NAME
    process     PID  START
    nft         HANDLE  FAMILY  NAME
    link        NETNS  INDEX  GROUP  NAME
    netns       INODE  PIN
    mount       NS  ID  MAJMIN  PID  ROOT  POINT
    loop        DISKSEQ  MAJMIN  NAME
    cgroup      INODE  kill|empty  HIERARCHY  DIRECTORY  PATH
    file        TYPE  tree|hollow|one  INODE  MOUNT  MAJMIN  PATH
    end         LINES  LEFT_OUT

Fields are separated by one tab and are never empty: "-" stands for nothing. The last line says that the rest is whole.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from leftovers import mountinfo
from leftovers.host import Host
from leftovers.kinds.processes import namespace
from leftovers.model import Action, Object, Plan, Verb
from leftovers.mountinfo import Mount

__all__ = ["Here", "here", "render"]

NOTHING = "-"
# nft joins its arguments to one text and parses that: what is no plain word could be a command.
NFT_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
Field = str | int


@dataclass(frozen=True, slots=True)
class Here:
    """Where a plan's identities mean something: this boot, these namespaces (inodes), these mounts."""

    boot_id: str
    pid: int
    mnt: int
    net: int
    mounts: tuple[Mount, ...]


def here(host: Host) -> Here:
    """What we see around us. Raises OSError, Unreadable."""
    return Here(
        host.boot_id(),
        namespace(host, "self", "pid"),
        namespace(host, "self", "mnt"),
        namespace(host, "self", "net"),
        tuple(mountinfo.parse(host.read_bytes("/proc/self/mountinfo"))),
    )


def render(plan: Plan, around: Here | None = None) -> tuple[str, list[str]]:
    """The inventory of what a plan would do, and the ids of the objects that are not in it.

    To be called right after the survey that the plan was made from. Raises OSError, Unreadable when `around` is not
    given and /proc cannot be read.
    """
    around = around or here(Host())
    products = list(dict.fromkeys(action.product for action in plan.doing())) or list(plan.products)
    lines: list[str] = []
    left_out: list[str] = []
    for (verb, kind, _), group in itertools.groupby(plan.doing(), lambda a: (a.verb, a.object.kind, a.rank)):
        for action in in_order(kind, tuple(group)):
            fields = fields_of(verb, action.object, around)
            if fields is not None and all(safe(str(field)) for field in fields):
                lines.append("\t".join(str(field) for field in fields))
                continue
            left_out.append(action.id)
            if verb is Verb.RETURN:
                lines.append(f"lent\t{int(action.object.facts['netns'])}")
    head = [
        f"leftovers-inventory 1 {around.boot_id} {' '.join(products)}",
        f"namespaces\t{around.pid}\t{around.mnt}\t{around.net}",
    ]
    return "\n".join([*head, *lines, f"end\t{len(lines)}\t{len(left_out)}", ""]), left_out


def safe(field: str) -> bool:
    """Whether a field stays what it is in a line of text, in a shell, and in what tools print: no tab, newline or
    other control character, no backslash (the kernel and systemd escape with it), nothing that is not UTF-8."""
    return bool(field) and field.isprintable() and "\\" not in field


def in_order(kind: str, batch: Sequence[Action]) -> Sequence[Action]:
    """A batch in the order in which its kind acts: of directories and cgroups the inner ones first."""
    if kind == "file":
        return sorted(batch, key=lambda action: str(action.object.facts["path"]), reverse=True)
    if kind == "cgroup":
        return sorted(batch, key=lambda action: -str(action.object.facts["path"]).count("/"))
    return batch


def fields_of(verb: Verb, obj: Object, around: Here) -> Sequence[Field] | None:
    """The fields of an object's line; None when a shell cannot be sure of it."""
    if verb is Verb.RETURN:
        return lent_link(obj) if obj.kind == "link" else None
    describe = KINDS.get(obj.kind)
    return describe(obj, around) if describe else None


def lent_link(obj: Object) -> Sequence[Field] | None:
    facts = obj.facts
    home = facts.get("home_name") or f"back{facts['index']}"
    if not facts["pid"] or "@" in facts["name"] + home or NOTHING in (facts["name"], home):
        return None
    mtu, address = facts.get("home_mtu") or NOTHING, facts.get("home_address") or NOTHING
    return ("return", facts["netns"], facts["index"], facts["pid"], home, mtu, address, facts["name"])


def unit(obj: Object, around: Here) -> Sequence[Field] | None:
    name, invocation = obj.identity
    # One that systemd gave no invocation (a failed load) has nothing that tells it from a later one.
    return ("unit", invocation, name) if re.fullmatch(r"[0-9a-f]{32}", str(invocation)) else None


def process(obj: Object, around: Here) -> Sequence[Field] | None:
    if obj.facts.get("self") or obj.facts["pid"] == 1:
        return None
    return ("process", *obj.identity)


def nft(obj: Object, around: Here) -> Sequence[Field] | None:
    family, name, handle = obj.identity
    if not handle or not NFT_WORD.fullmatch(str(name)) or not str(family).isalnum():
        return None
    return ("nft", handle, family, name)


def link(obj: Object, around: Here) -> Sequence[Field] | None:
    netns, index, name = obj.identity
    # "@" is what `ip` puts between a link's name and its peer's.
    if not obj.facts["host"] or netns != around.net or "@" in str(name):
        return None
    return ("link", netns, index, obj.facts["group"], name)


def netns(obj: Object, around: Here) -> Sequence[Field] | None:
    pins = obj.facts["pins"]
    if obj.facts["host"] or len(pins) > 1:
        return None
    return ("netns", obj.facts["inode"], pins[0] if pins else NOTHING)


def mount(obj: Object, around: Here) -> Sequence[Field] | None:
    ns, number, majmin, root, point = obj.identity
    # What a mount point was called before it was deleted leads nowhere.
    if str(point).endswith("//deleted"):
        return None
    return ("mount", ns, number, majmin, obj.facts["pid"], root, point)


def loop(obj: Object, around: Here) -> Sequence[Field] | None:
    # Before Linux 5.15 there is no number that counts what is attached, and a file's name proves too little.
    if len(obj.identity) != 2:
        return None
    name, diskseq = obj.identity
    return ("loop", diskseq, obj.facts["majmin"], name)


def cgroup(obj: Object, around: Here) -> Sequence[Field] | None:
    facts = obj.facts
    if facts["path"] == "/" or not facts["path"].startswith("/"):
        return None
    how = "empty" if facts.get("only_empty") or facts["hierarchy"] else "kill"
    return ("cgroup", obj.identity[1], how, facts["hierarchy"] or NOTHING, facts["directory"], facts["path"])


def file(obj: Object, around: Here) -> Sequence[Field] | None:
    """Not volumes at places outside (strict), nor what is a mount point (contents), nor what another machine serves.
    The mount that a path lies on is part of the line: on another one the same inode number is another file."""
    facts, (path, kind, inode) = obj.facts, obj.identity
    path = str(path)
    if facts["mounted"] or facts.get("contents") or facts.get("strict"):
        return None
    if kind not in ("directory", "symlink", "socket", "file", "fifo") or path.count("/") < 2 or path.endswith("/"):
        return None
    if any(part in ("", ".", "..") for part in path.split("/")[1:]):
        return None
    on = mountinfo.covering(around.mounts, path)
    if on is None:
        return None
    how = "one"
    if kind == "directory":
        how = "hollow" if facts.get("only_hollow") else "tree"
    return ("file", kind, how, inode, on.id, on.majmin, path)


KINDS: dict[str, Callable[[Object, Here], Sequence[Field] | None]] = {
    "unit": unit,
    "process": process,
    "nft": nft,
    "link": link,
    "netns": netns,
    "mount": mount,
    "loop": loop,
    "cgroup": cgroup,
    "file": file,
}
