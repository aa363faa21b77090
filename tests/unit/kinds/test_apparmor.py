"""AppArmor on a made-up tree, where `.remove` is a regular file. lab/test_guest.py has the kernel's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from leftovers.host import Host
from leftovers.kinds import apparmor
from leftovers.kinds.apparmor import AppArmor
from leftovers.kinds.kind import Look
from leftovers.model import Deadline, Object, Verb

BASE = "sys/kernel/security/apparmor"
C1 = "incus-c1_</var/lib/incus>"
SPACE = "incus-c1_<var-lib-incus>"
PROFILES = f"""{C1} (enforce)
{C1}//hat (enforce)
{C1}//hat//deep (complain)
incus-c10_</var/lib/incus> (enforce)
docker-default (enforce)
a b (c) (unconfined)
:{SPACE}:/usr/sbin/sshd (enforce)
:{SPACE}://old form (enforce)
"""


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def process(root: Path, pid: int, label: str, state: str = "S", where: str = "attr/apparmor/current") -> None:
    write(root, {f"proc/{pid}/{where}": f"{label}\n", f"proc/{pid}/stat": f"{pid} (a) b) {state} 1 1"})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    policy = f"{BASE}/policy/profiles/incus-c1_.var.lib.incus.12"
    write(tmp_path, {
        f"{BASE}/profiles": PROFILES,
        f"{BASE}/.remove": "",
        f"{policy}/name": f"{C1}\n",
        f"{policy}/sha1": "aaaa\n",
        f"{policy}/profiles/hat.1/name": "hat\n",
        f"{policy}/profiles/hat.1/sha256": "bbbb\n",
    })  # fmt: skip
    (tmp_path / BASE / "policy/namespaces" / SPACE).mkdir(parents=True)
    (tmp_path / BASE / "policy/namespaces/Other").mkdir()
    process(tmp_path, 1, "unconfined")
    return tmp_path


def survey(root: Path) -> dict[str, Object]:
    listing = AppArmor().survey(Look(Host(str(root))))
    assert listing.faults == ()
    return {object.key: object for object in listing.objects}


def act(root: Path, *objects: Object) -> dict[str, str]:
    return dict(AppArmor().act(Host(str(root)), Verb.REMOVE, objects, Deadline(5)))


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is written, one entry for each write(2): a name in two writes would be two names."""
    made: list[bytes] = []
    real = os.write

    def noted(fd: int, data: bytes) -> int:
        made.append(data)
        return real(fd, data)

    real_rmdir = os.rmdir

    def removed(path: str) -> None:
        made.append(b"rmdir " + os.path.basename(path).encode())
        real_rmdir(path)

    monkeypatch.setattr(apparmor.os, "write", noted)
    monkeypatch.setattr(apparmor.os, "rmdir", removed)
    return made


def test_names_and_modes(root: Path) -> None:
    objects = survey(root)
    assert list(objects) == [
        f"profile {C1}",
        f"profile {C1}//hat",
        f"profile {C1}//hat//deep",
        "profile incus-c10_</var/lib/incus>",
        "profile docker-default",
        "profile a b (c)",
        f"profile :{SPACE}:/usr/sbin/sshd",
        f"profile :{SPACE}://old form",
        "namespace Other",
        f"namespace {SPACE}",
    ]
    assert objects["profile a b (c)"].facts == {
        "type": "profile",
        "name": "a b (c)",
        "namespace": "",
        "mode": "unconfined",
        "processes": [],
    }
    assert objects[f"profile :{SPACE}:/usr/sbin/sshd"].facts["namespace"] == SPACE
    assert objects[f"namespace {SPACE}"].facts["type"] == "namespace"


def test_identities_hold_the_hash_of_the_policy(root: Path) -> None:
    objects = survey(root)
    assert objects[f"profile {C1}"].identity == ("profile", C1, "aaaa")
    assert objects[f"profile {C1}//hat"].identity == ("profile", f"{C1}//hat", "bbbb")
    assert objects["profile docker-default"].identity == ("profile", "docker-default", "")
    inode = os.stat(root / BASE / "policy/namespaces/Other").st_ino
    assert objects["namespace Other"].identity == ("namespace", "Other", inode)


def test_processes(root: Path) -> None:
    process(root, 10, f"{C1} (enforce)")
    process(root, 11, f"{C1}//hat (complain)")
    process(root, 12, f"{C1}//&:{SPACE}:unconfined (enforce)")
    process(root, 13, f"{C1}//&:{SPACE}:/usr/sbin/sshd//&x (mixed)")
    process(root, 14, "docker-default (enforce)", where="attr/current")
    process(root, 15, f"{C1} (enforce)", state="Z")
    process(root, 16, f"{C1}x (enforce)")
    process(root, 17, f":{SPACE}:old form (enforce)")
    objects = survey(root)
    assert {key: object.facts["processes"] for key, object in objects.items() if object.facts["processes"]} == {
        f"profile {C1}": [10, 11, 12, 13],
        f"profile {C1}//hat": [11],
        "profile docker-default": [14],
        f"profile :{SPACE}:/usr/sbin/sshd": [13],
        f"profile :{SPACE}://old form": [17],
        f"namespace {SPACE}": [12, 13, 17],
    }


def test_children_before_parents_before_namespaces(root: Path, writes: list[bytes]) -> None:
    objects = survey(root)
    asked = [
        objects[f"namespace {SPACE}"],
        objects["namespace Other"],
        objects[f"profile {C1}"],
        objects[f"profile {C1}//hat"],
        objects[f"profile {C1}//hat//deep"],
    ]
    assert act(root, *asked) == {}
    expected = (f"{C1}//hat//deep", f"{C1}//hat", C1, "rmdir Other", f"rmdir {SPACE}")
    assert writes == [name.encode() for name in expected]
    assert os.listdir(root / BASE / "policy/namespaces") == []


def test_trap_0_9_a_profile_in_use_is_refused(root: Path, writes: list[bytes]) -> None:
    objects = survey(root)
    # Both came after the survey: what counts is who is confined now.
    process(root, 20, f"{C1}//hat (enforce)")
    process(root, 21, f"x//&:{SPACE}:unconfined (enforce)")
    process(root, 22, f":{SPACE}:/usr/sbin/sshd (enforce)")
    asked = [objects[f"profile {C1}"], objects[f"namespace {SPACE}"], objects["profile incus-c10_</var/lib/incus>"]]
    assert act(root, *asked) == {
        f"apparmor:profile {C1}": "would leave pid 20 unconfined",
        f"apparmor:namespace {SPACE}": "would leave pid 21 and 1 more unconfined",
    }
    assert writes == [b"incus-c10_</var/lib/incus>"]
    assert (root / BASE / ".remove").read_bytes() == b"incus-c10_</var/lib/incus>"
    assert (root / BASE / "policy/namespaces" / SPACE).is_dir()


def test_no_apparmor_is_nothing(tmp_path: Path) -> None:
    assert survey(tmp_path) == {}


def test_no_permission_is_a_fault(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Host, path: str, limit: int = 0) -> str:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(Host, "read", refused)
    listing = AppArmor().survey(Look(Host(str(root))))
    assert listing.faults == ("AppArmor profiles: Permission denied (/sys/kernel/security/apparmor/profiles)",)


def test_what_had_vanished_is_no_failure(root: Path) -> None:
    space = survey(root)["namespace Other"]
    (root / BASE / "policy/namespaces/Other").rmdir()
    assert act(root, space) == {}


def test_the_kernels_refusal_is_the_cause(root: Path) -> None:
    objects = survey(root)
    write(root, {f"{BASE}/policy/namespaces/Other/file": ""})
    assert act(root, objects["namespace Other"]) == {"apparmor:namespace Other": "Directory not empty"}
