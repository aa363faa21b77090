"""The state directory: what is written is read again, whole or not at all."""

import json
import os
import stat
from pathlib import Path

import pytest

from leftovers.errors import Refusal, Unreadable
from leftovers.host import Host
from leftovers.ledger import Ledger, Run
from leftovers.model import Action, Claim, Evidence, Object, Outcome, Presence, Record, Result, Role, Verb

PROOF = (Evidence("kernel", "seen"),)


def claim(key: str, *, role: Role = Role.LIVE, proven: bool = True) -> Claim:
    return Claim("incus", Object("link", key, (1, 2, key), {"name": key}), role, proven, "because", PROOF, 3, "ip link")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    (tmp_path / "var/lib").mkdir(parents=True)
    return Ledger(Host(str(tmp_path)))


def record(
    ledger: Ledger, *claims: Claim, boot: str = "boot", records: tuple[Record, ...] = (), run: Run | None = None
) -> None:
    ledger.record("incus", boot, Presence.ABSENT, {claim.object.id: claim for claim in claims}, records, run)


def test_what_is_written_is_read_again(ledger: Ledger) -> None:
    network = Record("network", "incusbr0", "api", {"type": "bridge"})
    with ledger.locked():
        record(ledger, claim("veth0"), claim("odd\udcffname"), records=(network,), run=Run("now", True, False))
    held = ledger.memory("incus")
    assert held.claims["link:veth0"].object == claim("veth0").object
    assert held.claims["link:veth0"].object.identity == (1, 2, "veth0")
    assert held.claims["link:veth0"].rank == 3 and held.claims["link:veth0"].advice == "ip link"
    assert "link:odd\udcffname" in held.claims
    assert held.claims["link:veth0"].evidence[0].source.startswith("ledger, 2")
    assert [(found.name, found.source) for found in held.records] == [("incusbr0", "ledger")]
    assert held.run == Run("now", True, False) and held.boot_id == "boot" and held.been
    assert ledger.products() == ["incus"]


def test_only_root_may_read_it(ledger: Ledger) -> None:
    with ledger.locked():
        record(ledger, claim("veth0"))
    assert stat.S_IMODE(os.stat(ledger.directory).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(f"{ledger.directory}/incus.json").st_mode) == 0o600


def test_a_directory_that_others_could_read_is_closed(ledger: Ledger) -> None:
    os.makedirs(ledger.directory)
    os.chmod(ledger.directory, 0o755)
    with ledger.locked():
        pass
    assert stat.S_IMODE(os.stat(ledger.directory).st_mode) == 0o700


def test_what_is_not_proven_is_not_remembered(ledger: Ledger) -> None:
    with ledger.locked():
        record(ledger, claim("veth0", proven=False))
    assert ledger.memory("incus").claims == {}


def test_evidence_of_the_same_boot_adds_up_and_that_of_another_is_dropped(ledger: Ledger) -> None:
    with ledger.locked():
        record(ledger, claim("one"), records=(Record("network", "n1", "api", {}),))
        record(ledger, claim("two"))
        assert set(ledger.memory("incus").claims) == {"link:one", "link:two"}
        record(ledger, claim("three"), boot="next")
    held = ledger.memory("incus")
    assert set(held.claims) == {"link:three"}
    assert [found.name for found in held.records] == ["n1"], "names still mean something after a reboot"


def test_the_document_has_a_version_and_a_newer_major_one_is_refused(ledger: Ledger) -> None:
    with ledger.locked():
        record(ledger, claim("one"))
    path = Path(ledger.directory, "incus.json")
    document = json.loads(path.read_text())
    assert document["format_version"] == "1.0"
    document["format_version"] = "1.7"
    path.write_text(json.dumps(document))
    assert ledger.memory("incus").claims
    document["format_version"] = "2.0"
    path.write_text(json.dumps(document))
    with pytest.raises(Unreadable, match=r"format_version 2\.0"):
        ledger.memory("incus")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"format_version": "1.0"}', "\x00", '{"format_version": "1.0", "objects": 7}']
)
def test_garbage_is_told_with_the_way_out(ledger: Ledger, text: str) -> None:
    with ledger.locked():
        Path(ledger.directory, "incus.json").write_text(text)
    with pytest.raises(Unreadable, match=r"mv .*incus\.json"):
        ledger.memory("incus")


def test_a_second_one_is_refused_and_told_whom_to_wait_for(ledger: Ledger) -> None:
    with ledger.locked(), pytest.raises(Refusal, match=f"pid {os.getpid()}"), Ledger(ledger.host).locked():
        pass
    with ledger.locked():
        pass


def test_a_symlink_in_the_place_of_a_file_is_not_followed(ledger: Ledger, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    with ledger.locked():
        os.symlink(victim, f"{ledger.directory}/incus.json.new")
        with pytest.raises(Refusal):
            record(ledger, claim("one"))
        os.symlink(victim, f"{ledger.directory}/incus.log")
        ledger.log("incus", "begin")
    assert victim.read_text() == "precious"


def test_the_log_has_a_line_for_each_outcome(ledger: Ledger) -> None:
    action = Action(Verb.REMOVE, Object("link", "new\nline", (1,)), "incus", "because", PROOF)
    other = Action(Verb.REMOVE, Object("link", "x", (1,)), "lxcfs", "because", PROOF)
    with ledger.locked():
        ledger.outcomes("incus", [Outcome(action, Result.FAILED, "busy"), Outcome(other, Result.DONE)])
    (line,) = Path(ledger.directory, "incus.log").read_text().splitlines()
    said = json.loads(line)
    assert (said["id"], said["result"], said["detail"]) == ("link:new\nline", "failed", "busy")
