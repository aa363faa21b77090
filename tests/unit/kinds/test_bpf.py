"""What bpftool prints of attached programs: recorded with 7.1.0 on Linux 6.18, from programs attached to two veths and
to the root cgroup. That version shows no tcx; the one line of it was written after bpftool's source (net.c)."""

from __future__ import annotations

import pytest

from leftovers.errors import ToolFault
from leftovers.host import Host
from leftovers.kinds import bpf
from leftovers.kinds.bpf import BpfObjects, attachments
from leftovers.kinds.kind import Look
from leftovers.model import Deadline, Object, Scope, Verb
from leftovers.run import Completed

PROGRAMS = (
    '[{"id":41655,"type":"cgroup_skb","name":"sd_fw_ingress","tag":"772db7720b2728e9","uid":0},'
    '{"id":41682,"type":"cgroup_device","tag":"d308771cba365368","uid":0},'
    '{"id":42031,"type":"xdp","name":"cil_x"},{"id":42032,"type":"xdp","name":"mine"},'
    '{"id":42033,"type":"cgroup_sock_addr","name":"cil_sock4_conne"},'
    '{"id":42034,"type":"sched_cls","name":"cil_from_netdev"},{"id":42035,"type":"sched_cls","name":"cil_to_netdev"}]'
)
NET = (
    '[{"xdp":[{"devname":"eth0","ifindex":3,"mode":"generic","id":42031},'
    '{"devname":"eth1","ifindex":5,"mode":"generic","id":42032}],'
    '"tc":[{"devname":"eth1","ifindex":5,"kind":"clsact/ingress","name":"cls:[*fsobj]","id":42034},'
    '{"devname":"eth1","ifindex":5,"kind":"tcx/egress","name":"cil_to_netdev","prog_id":42035,"prog_flags":[]}],'
    '"flow_dissector":[]}]'
)
CGROUP = (
    '[{"cgroup":"/sys/fs/cgroup","programs":[{"id":42033,"attach_type":"cgroup_inet4_connect","attach_flags":"multi",'
    '"name":"cil_sock4_conne"},{"id":41655,"attach_type":"cgroup_inet_ingress","attach_flags":"multi",'
    '"name":"sd_fw_ingress"}]}]'
)
MOUNT = Object(
    "mount", "/sys/fs/cgroup", (1,), {"host": True, "fstype": "cgroup2", "root": "/", "point": "/sys/fs/cgroup"}
)


def survey(monkeypatch: pytest.MonkeyPatch, said: dict[str, str], *asked: str) -> tuple[list[Object], tuple[str, ...]]:
    def run(argv: list[str], **_: object) -> Completed:
        assert argv[:2] == ["bpftool", "-j"]
        return Completed(0, said[" ".join(argv[2:])], "")

    monkeypatch.setattr(bpf, "run", run)
    monkeypatch.setattr(bpf, "find", lambda name: f"/usr/sbin/{name}")
    listing = BpfObjects().survey(Look(Host(), Scope(bpf=asked), {"mount": (MOUNT,)}))
    return list(listing.objects), listing.faults


def test_attachments_are_listed_by_their_programs_names(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"prog show": PROGRAMS, "net show": NET, "cgroup tree /sys/fs/cgroup": CGROUP}
    objects, faults = survey(monkeypatch, said, "cil_*")
    assert faults == ()
    assert [obj.key for obj in objects] == [
        "xdp eth0 cil_x",
        "tc eth1 clsact/ingress cil_from_netdev",
        "tc eth1 tcx/egress cil_to_netdev",
        "cgroup /sys/fs/cgroup cgroup_inet4_connect cil_sock4_conne",
    ]
    assert objects[1].facts == {
        "path": "",
        "name": "cil_from_netdev",
        "what": "attachment",
        "id": 42034,
        "map_type": 0,
        "mount": "",
        "attach": "tc eth1 clsact/ingress",
    }
    causes = BpfObjects().act(Host(), Verb.REMOVE, objects, Deadline(1))
    assert set(causes.values()) == {"an attached program is not taken off"} and len(causes) == 4


def test_nothing_more_is_asked_when_no_such_program_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert survey(monkeypatch, {"prog show": PROGRAMS}, "cali_*") == ([], ())
    assert survey(monkeypatch, {}, "/sys/fs/bpf/cilium") == ([], ())


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "7", '[7,{"xdp":7}]', '[{"tc":[7,{"id":"x"},{}]}]', '[{"error":"x"}]']
)
def test_odd_answers(text: str) -> None:
    assert list(attachments(text, {7: "cil_x"}, ["*x*"])) == []


def test_an_answer_that_is_no_json(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolFault):
        list(attachments("can't find program", {}, ["*"]))
    objects, faults = survey(monkeypatch, {"prog show": "[" * 100_000}, "cil_*")
    assert objects == [] and faults[0].startswith("BPF programs: bpftool: said something that is not JSON")
