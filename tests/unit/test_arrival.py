"""What is written down when a product comes, and when nothing is. The kernel's own part is tests/kernel's."""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from leftovers import arrival
from leftovers.errors import Refusal, ToolTimeout, Unreadable
from leftovers.host import Host
from leftovers.kinds import nft
from leftovers.kinds.kind import Kind, Look
from leftovers.ledger import FORMAT, Ledger
from leftovers.model import Listing, Object, Presence
from leftovers.products import Product

BOX = Product(
    name="box",
    title="Box",
    packages=("boxd",),
    daemons=("/usr/bin/boxd",),
    accounts=("group box", "user box", "subuid root"),
    sysctls=("net.ipv4.ip_forward=1", "net.box.odd=3"),
)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    for path, text in {
        "proc/self/mountinfo": "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n",
        "proc/sys/kernel/random/boot_id": "b-o-o-t\n",
        "proc/sys/net/ipv4/ip_forward": "0\n",
        "proc/sys/kernel/keys/maxkeys": "200\n",
        "proc/modules": "veth 16384 0 - Live 0x0\nbridge 311296 1 br_netfilter, Live 0x0\n",
        "etc/group": "root:x:0:\nbox:x:990:alice\n",
        "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
        "etc/subuid": "root:100000:65536\nroot:1000000:1000000\nalice:2:3\n",
        "opt/cni/bin": "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "proc/self/ns").mkdir()
    (tmp_path / "proc/self/ns/mnt").symlink_to("mnt:[1]")
    (tmp_path / "var/lib/kubelet").mkdir(parents=True)
    (tmp_path / "var/lib/calico").symlink_to("/var/snap/microk8s/current/var/lib/calico")
    return Host(str(tmp_path))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> dict[str, Listing]:
    """What of the kernel is asked over netlink, as a test would have it."""
    said = {
        "nft": Listing((Object("nft", "ip nat", ("ip", "nat", 2)), Object("nft", "inet a", ("inet", "a", 1)))),
        "link": Listing((Object("link", "lo", (1, 1, "lo")), Object("link", "eth0", (1, 2, "eth0")))),
        "process": Listing(),
    }
    real = arrival.listed_by

    def listed_by(kind: Kind, look: Look) -> Listing:
        return said[kind.name] if kind.name in said else real(kind, look)

    monkeypatch.setattr(arrival, "listed_by", listed_by)
    # Without nf_tables in the kernel nothing is asked: that would load the module.
    monkeypatch.setattr(arrival.nft, "in_kernel", lambda host: False)
    monkeypatch.setattr(arrival.nft, "dump", lambda message: pytest.fail("nf_tables was asked"))
    return said


def observe(host: Host) -> dict[str, Any]:
    return arrival.observe(host, BOX, package="boxd", version="1.2-3")


def test_the_document(host: Host, kernel: Mapping[str, Listing]) -> None:
    seen = observe(host)
    values = seen.pop("sysctls")
    assert seen.pop("time").endswith("Z")
    assert seen == {
        "format_version": FORMAT,
        "product": "box",
        "package": "boxd",
        "version": "1.2-3",
        "boot_id": "b-o-o-t",
        "forward": dict.fromkeys(("iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy")),
        "nft": ["inet a", "ip nat"],
        "links": ["eth0", "lo"],
        "accounts": {
            "group box": ["box:x:990:alice"],
            "user box": [],
            "subuid root": ["root:100000:65536", "root:1000000:1000000"],
        },
        "modules": ["bridge", "veth"],
        "paths": {
            "/etc/cni/net.d": None,
            "/opt/cni/bin": "file",
            "/var/lib/calico": "/var/snap/microk8s/current/var/lib/calico",
            "/var/lib/kubelet": "directory",
        },
        "faults": [],
    }
    assert (values["net.ipv4.ip_forward"], values["kernel.keys.maxkeys"]) == ("0", "200")
    assert values["net.box.odd"] is None, "what the product declares is asked for"
    assert values["net.ipv6.conf.default.accept_ra"] is None
    assert set(values) == {*arrival.SYSCTLS, "kernel.keys.maxkeys", "net.box.odd"}


def test_what_cannot_be_read_is_a_fault_and_the_rest_is_told(host: Host, kernel: dict[str, Listing]) -> None:
    for path in ("proc/sys/net/ipv4/ip_forward", "etc/group", "proc/modules", "proc/sys/kernel/random/boot_id"):
        os.unlink(host.path(f"/{path}"))
        os.mkdir(host.path(f"/{path}"))
    os.unlink(host.path("/proc/self/mountinfo"))
    kernel["nft"] = Listing(faults=("nft tables: Operation not permitted",))
    seen = observe(host)
    assert len(seen["faults"]) == 6
    for word in ("ip_forward", "/etc/group", "/proc/modules", "boot_id", "mountinfo", "nft tables: Operation"):
        assert any(word in fault for fault in seen["faults"]), word
    assert seen["sysctls"]["net.ipv4.ip_forward"] is None and seen["sysctls"]["kernel.keys.maxkeys"] == "200"
    assert (seen["nft"], seen["modules"], seen["links"]) == ([], [], ["eth0", "lo"])


@pytest.mark.parametrize(
    ("saved", "wanted"),
    [
        ("*filter\n:INPUT DROP [1:2]\n:FORWARD ACCEPT [0:0]\nCOMMIT\n", "ACCEPT"),
        (":FORWARD DROP [0:0]\n", "DROP"),
        (":FORWARD - [0:0]\n", None),
        (":FORWARD2 DROP [0:0]\n-A FORWARD -j DROP\n", None),
        ("", None),
    ],
)
def test_the_policy_in_a_save(saved: str, wanted: str | None) -> None:
    assert arrival.policy(saved) == wanted


def test_legacy_is_only_asked_for_a_table_that_is_there(
    host: Host, kernel: Mapping[str, Listing], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def run(argv: list[str], **options: object) -> object:
        asked.append(argv)
        raise ToolTimeout(argv[0], "did not end within 60 s")

    monkeypatch.setattr(arrival, "run", run)
    os.mkdir(host.path("/proc/net"))
    Path(host.path("/proc/net/ip_tables_names")).write_text("nat\nmangle\n")
    assert observe(host)["faults"] == [] and asked == []
    Path(host.path("/proc/net/ip6_tables_names")).write_text("nat\nfilter\n")
    seen = observe(host)
    assert asked == [["ip6tables-legacy-save", "-t", "filter"]]
    assert (
        seen["faults"] == ["policy of FORWARD (ip6tables-legacy): ip6tables-legacy-save: did not end within 60 s"]
        and seen["forward"]["ip6tables-legacy"] is None
    )


def test_the_policies_of_nft(host: Host, kernel: Mapping[str, Listing], monkeypatch: pytest.MonkeyPatch) -> None:
    def chain(family: str, table: bytes, name: bytes, policy: bytes | None) -> tuple[str, dict[int, bytes]]:
        attributes = {nft.NFTA_CHAIN_TABLE: table + b"\0", nft.NFTA_CHAIN_NAME: name + b"\0"}
        return family, {**attributes, **({arrival.NFTA_CHAIN_POLICY: policy} if policy else {})}

    drop, accept = bytes(4), b"\0\0\0\1"
    monkeypatch.setattr(arrival.nft, "in_kernel", lambda host: True)
    chains = [
        chain("ip", b"filter", b"FORWARD", drop),
        chain("ip", b"filter", b"INPUT", accept),
        chain("ip", b"other", b"FORWARD", accept),
        chain("inet", b"filter", b"FORWARD", accept),
        chain("ip6", b"filter", b"FORWARD", None),
    ]
    monkeypatch.setattr(arrival.nft, "dump", lambda message: chains)
    assert arrival.forward_nft(host, []) == {"iptables-nft": "DROP", "ip6tables-nft": None}
    chains[4] = chain("ip6", b"filter", b"FORWARD", accept)
    assert arrival.forward_nft(host, [])["ip6tables-nft"] == "ACCEPT"


# -- note


@pytest.fixture
def ledger(host: Host) -> Ledger:
    return Ledger(host)


def come(host: Host, ledger: Ledger, version: str) -> bool:
    with ledger.locked():
        return arrival.note(host, ledger, BOX, "boxd", version)


def test_an_arrival_is_written_for_root_only(host: Host, ledger: Ledger, kernel: Mapping[str, Listing]) -> None:
    assert ledger.arrivals("box") is None
    assert come(host, ledger, "1")
    seen = ledger.arrivals("box")
    assert seen and (seen["product"], seen["version"], seen["presence"]) == ("box", "1", "absent")
    path = f"{ledger.directory}/arrivals"
    assert stat.S_IMODE(os.stat(path).st_mode) == stat.S_IMODE(os.stat(ledger.directory).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(f"{path}/box.json").st_mode) == 0o600
    assert os.listdir(path) == ["box.json"]
    assert ledger.products() == [], "an arrival is no evidence of the product"


def test_an_upgrade_is_no_arrival(host: Host, ledger: Ledger, kernel: Mapping[str, Listing]) -> None:
    assert come(host, ledger, "1")
    daemon = Path(host.path("/usr/bin/boxd"))
    daemon.parent.mkdir(parents=True)
    daemon.touch()
    assert not come(host, ledger, "2")
    seen = ledger.arrivals("box")
    assert seen and seen["version"] == "1"
    daemon.unlink()
    assert come(host, ledger, "3"), "it was gone, and comes again"
    seen = ledger.arrivals("box")
    assert seen and seen["version"] == "3"


def test_a_daemon_that_only_runs_is_installed(host: Host, ledger: Ledger, kernel: dict[str, Listing]) -> None:
    Path(host.path("/opt/x")).mkdir(parents=True)
    Path(host.path("/opt/x/boxd")).touch()
    facts = {"exe": "/opt/x/boxd", "uid": 0, "nested": False}
    kernel["process"] = Listing((Object("process", "7", (7, 1), facts),))
    kernel["mount"] = Listing()
    assert not come(host, ledger, "1") and ledger.arrivals("box") is None


def test_when_processes_cannot_be_listed_nobody_knows(host: Host, ledger: Ledger, kernel: dict[str, Listing]) -> None:
    kernel["process"] = Listing(faults=("processes: no /proc",))
    with pytest.raises(Unreadable, match="no /proc"):
        come(host, ledger, "1")
    assert ledger.arrivals("box") is None


def test_what_stood_before_a_removed_product_first_came_is_kept(
    host: Host, ledger: Ledger, kernel: Mapping[str, Listing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrival, "presence", lambda *_: (Presence.REMOVED, "dpkg has boxd as config-files"))
    assert come(host, ledger, "1"), "nothing better is known"
    seen = ledger.arrivals("box")
    assert seen and seen["presence"] == "removed"
    assert not come(host, ledger, "2")
    assert ledger.arrivals("box") == seen


@pytest.mark.parametrize("text", ["", "[]", "7", '"x"', "{}", '{"format_version": "2.0"}', "[" * 100000])
def test_a_record_that_is_none_is_told(host: Host, ledger: Ledger, text: str) -> None:
    with ledger.locked():
        ledger.arrival("box", {"format_version": FORMAT})
    Path(f"{ledger.directory}/arrivals/box.json").write_text(text)
    with pytest.raises(Unreadable, match=r"arrivals/box\.json"):
        ledger.arrivals("box")


def test_a_record_is_written_whole_or_not_at_all(host: Host, ledger: Ledger, tmp_path: Path) -> None:
    document = {"format_version": FORMAT, "links": ["odd\udcffname"]}
    with ledger.locked():
        ledger.arrival("box", document)
        victim = tmp_path / "victim"
        victim.write_text("precious")
        os.symlink(victim, f"{ledger.directory}/arrivals/box.json.new")
        with pytest.raises(Refusal):
            ledger.arrival("box", {"format_version": FORMAT})
    assert ledger.arrivals("box") == document and victim.read_text() == "precious"
    assert json.loads(Path(f"{ledger.directory}/arrivals/box.json").read_text()) == document
