"""AppArmor profiles and policy namespaces that are loaded in the kernel.

The forms below were read in the kernel's security/apparmor/{apparmorfs,label,lib,policy}.c. Tried on Linux 6.12 with
real containers in the lab's guest (tests/lab/test_guest.py); the other tests use a recorded tree.

Removing a profile leaves the processes that it confines unconfined, so one that confines a living process is
refused. `aa-remove-unknown` is never called: it drops every profile that has no file in /etc/apparmor.d, and
those of all other container products have none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from leftovers.errors import Unreadable
from leftovers.host import Host
from leftovers.kinds.kind import Kind, Look
from leftovers.model import Deadline, Listing, Object, Verb

__all__ = ["AppArmor"]

ROOT = "/sys/kernel/security/apparmor"
# "NAME (mode)": the name may hold spaces and parentheses, so the mode is the last pair of them.
LINE = re.compile(r"(?P<name>.+) \((?P<mode>[a-z]+)\)")
MODE = re.compile(r" \([a-z]+\)$")
# A name in another namespace is ":NS:NAME", on kernels before 4.13 ":NS://NAME"; .remove takes both.
QUALIFIED = re.compile(r":(?P<namespace>[^:]*):(?://)?(?P<name>.*)", re.DOTALL)

Label = tuple[str, str]  # namespace ("" is ours), profile


class AppArmor(Kind):
    """One object for each profile that we can see, and for each policy namespace directly below ours."""

    name = "apparmor"
    title = "AppArmor profiles"
    lasting = False

    def survey(self, look: Look) -> Listing:
        """Keys "profile NAME", "namespace NAME"; facts type, name, namespace, mode, processes (pids).

        identity ("profile", name, hash of the policy or "") or ("namespace", name, inode).
        """
        host = look.host
        try:
            profiles = host.read(f"{ROOT}/profiles")
        except (FileNotFoundError, NotADirectoryError):
            return Listing()  # no AppArmor, or no securityfs mounted
        except OSError as error:
            return Listing(faults=(f"AppArmor profiles: {error.strerror} ({ROOT}/profiles)",))
        labels = confined(host)
        hashes = dict(policy_hashes(host, f"{ROOT}/policy/profiles", ""))
        objects = [profile(line, hashes, labels) for line in profiles.splitlines() if LINE.fullmatch(line)]
        try:
            names = host.listdir(f"{ROOT}/policy/namespaces")
        except Unreadable as fault:
            return Listing(tuple(objects), (f"AppArmor namespaces: {fault}",))
        for name in names:
            try:
                inode = os.lstat(host.path(f"{ROOT}/policy/namespaces/{name}")).st_ino
            except OSError:
                continue  # removed as we looked
            facts = {
                "type": "namespace",
                "name": name,
                "namespace": name,
                "mode": "",
                "processes": in_namespace(name, labels),
            }
            objects.append(Object("apparmor", f"namespace {name}", ("namespace", name, inode), facts))
        return Listing(tuple(objects))

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        """Children go before their parents, profiles before namespaces."""
        labels = confined(host)
        causes: dict[str, str] = {}
        for object in sorted(objects, key=order):
            pids = users(object, labels)
            if pids:
                more = f" and {len(pids) - 1} more" if len(pids) > 1 else ""
                causes[object.id] = f"would leave pid {pids[0]}{more} unconfined"
                continue
            try:
                remove(host, object)
            except FileNotFoundError:
                pass  # it had vanished, or went with its parent
            except OSError as error:
                causes[object.id] = error.strerror or str(error)
        return causes


def profile(line: str, hashes: Mapping[str, str], labels: Mapping[int, Sequence[Label]]) -> Object:
    """One line of the file `profiles`."""
    match = LINE.fullmatch(line)
    assert match is not None
    name, mode = match["name"], match["mode"]
    namespace, plain = qualified(name)
    facts = {
        "type": "profile",
        "name": name,
        "namespace": namespace,
        "mode": mode,
        "processes": in_profile(namespace, plain, labels),
    }
    return Object("apparmor", f"profile {name}", ("profile", name, hashes.get(name, "")), facts)


def qualified(name: str) -> Label:
    """A name as (namespace, profile)."""
    match = QUALIFIED.fullmatch(name)
    return (match["namespace"], match["name"]) if match else ("", name)


def policy_hashes(host: Host, path: str, parent: str) -> Iterator[tuple[str, str]]:
    """Names of our namespace's profiles with the hash of what was loaded; none where the kernel keeps none.

    A directory is called NAME.NUMBER with changed characters, its file `name` has the real one, and children are
    in its directory `profiles` (apparmorfs.c, __aafs_profile_mkdir). The hash was sha1 up to 6.7, sha256 since.
    """
    try:
        entries = host.listdir(path)
    except Unreadable:
        return
    for entry in entries:
        base = f"{path}/{entry}"
        name = read_line(host, f"{base}/name")
        if not name:
            continue
        # A child's own name is printed with or without its parent's.
        full = name if not parent or name.startswith(f"{parent}//") else f"{parent}//{name}"
        yield full, read_line(host, f"{base}/sha1") or read_line(host, f"{base}/sha256")
        yield from policy_hashes(host, f"{base}/profiles", full)


def read_line(host: Host, path: str) -> str:
    """A file of one line; "" when it cannot be read."""
    try:
        return host.read(path).rstrip("\n")
    except OSError:
        return ""


def confined(host: Host) -> dict[int, list[Label]]:
    """The labels of all processes that AppArmor confines, by pid."""
    found: dict[int, list[Label]] = {}
    for entry in host.listdir("/proc"):
        if not entry.isdigit():
            continue
        text = label(host, f"/proc/{entry}")
        if text and text != "unconfined" and not zombie(host, f"/proc/{entry}"):
            found[int(entry)] = list(parts(text))
    return found


def label(host: Host, process: str) -> str:
    """What a process is confined by. attr/current may be another security module's, attr/apparmor is ours (5.8)."""
    for name in ("attr/apparmor/current", "attr/current"):
        try:
            return host.read(f"{process}/{name}").rstrip("\0\n")
        except OSError:
            continue
    return ""


def zombie(host: Host, process: str) -> bool:
    """Whether a process is dead already and only waits for its parent (proc(5), stat: state after the comm)."""
    state = read_line(host, f"{process}/stat").rpartition(") ")[2][:1]
    return state in ("Z", "X")


def parts(text: str) -> Iterator[Label]:
    """A label such as "a//&:ns:b (enforce)": what is stacked, each as (namespace, profile).

    A namespace is printed only where it changes, and holds for those after it (label.c, aa_label_snxprint).
    """
    namespace = ""
    for part in MODE.sub("", text).split("//&"):
        part = MODE.sub("", part)
        match = QUALIFIED.fullmatch(part)
        if match:
            namespace = match["namespace"]
        yield (namespace, match["name"] if match else part)


def in_profile(namespace: str, name: str, labels: Mapping[int, Iterable[Label]]) -> list[int]:
    """Processes that a profile or a child of it confines: children go with their parent."""
    return sorted(
        pid
        for pid, stacked in labels.items()
        if any(space == namespace and (one == name or one.startswith(f"{name}//")) for space, one in stacked)
    )


def in_namespace(name: str, labels: Mapping[int, Iterable[Label]]) -> list[int]:
    """Processes with a label in a namespace or in one below it, "unconfined" in there included."""
    return sorted(
        pid
        for pid, stacked in labels.items()
        if any(space == name or space.startswith(f"{name}//") for space, _ in stacked)
    )


def users(object: Object, labels: Mapping[int, Iterable[Label]]) -> list[int]:
    """Processes that would lose their confinement with an object."""
    name = str(object.identity[1])
    return in_namespace(name, labels) if object.identity[0] == "namespace" else in_profile(*qualified(name), labels)


def order(object: Object) -> tuple[bool, int, str]:
    """Profiles first, and of these the most deeply nested."""
    name = str(object.identity[1])
    return object.identity[0] == "namespace", -name.count("//"), name


def remove(host: Host, object: Object) -> None:
    """Unload a profile, or remove a namespace with all that is loaded in it. Raises OSError."""
    name = str(object.identity[1])
    if object.identity[0] == "namespace":
        os.rmdir(host.path(f"{ROOT}/policy/namespaces/{name}"))  # apparmorfs.c, ns_rmdir_op
        return
    # One write is one name, and a newline would be part of it (apparmorfs.c, profile_remove).
    fd = os.open(host.path(f"{ROOT}/.remove"), os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, os.fsencode(name))
    finally:
        os.close(fd)
