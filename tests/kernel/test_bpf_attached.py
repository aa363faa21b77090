"""Real programs at a cgroup, in filters of tc, at tcx and XDP, those of a plugin beside those of others: taken off, or
listed with what tells whose they are."""

from __future__ import annotations

import os
from pathlib import Path

import programs
import pytest
from programs import CONNECT4, MULTI, SCHED, TCX_INGRESS, XDP, at_cgroup, at_tc, make_map, make_program, pin
from sandbox import private, sh
from test_bpf import ROOT, mounted
from things import act, look, until

from leftovers import syscalls
from leftovers.kinds import bpf_attached
from leftovers.model import Object, Scope

ASKED = ("/sys/fs/bpf/cilium", "/sys/fs/bpf/tc/globals/cilium_*", "cil_*")
CGROUP = "/sys/fs/cgroup"


def listed() -> dict[str, Object]:
    return look("bpf", scope=Scope(bpf=ASKED))["bpf"]


def at(where: str, type: int) -> list[str]:
    """The names of what is attached to a cgroup, as the kernel tells it."""
    fd = os.open(where, os.O_RDONLY)
    try:
        return [bpf_attached.told(id)[0] for id in syscalls.bpf_prog_query(fd, type)]
    finally:
        os.close(fd)


def card(name: str = "eth0") -> None:
    sh("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")


@pytest.mark.parametrize("flags", [0, MULTI])
@private
def test_taken_off_the_root_cgroup(flags: int) -> None:
    mounted()
    os.mkdir(f"{CGROUP}/admin")
    for where, name in ((f"{CGROUP}/admin", "cil_sock4_conne"), (CGROUP, "mine")):
        if flags or where != CGROUP:
            at_cgroup(make_program(CONNECT4, name), where, flags)
    at_cgroup(make_program((18, 14, 1), "mine_too"), CGROUP, flags, 14)
    used = make_map()
    at_cgroup(make_program(CONNECT4, "cil_sock4_conne", uses=used), CGROUP, flags)
    pin(used, ROOT / "map")
    found = listed()
    (obj,) = found.values()
    assert obj.key == f"cgroup {CGROUP} cgroup_inet4_connect cil_sock4_conne"
    assert obj.facts["maps"] == [look("bpf", scope=Scope(bpf=(f"{ROOT}/map",)))["bpf"][f"{ROOT}/map"].facts["id"]]
    assert act("bpf", [obj]) == {}
    assert listed() == {} and act("bpf", [obj]) == {}
    assert at(CGROUP, 10) == (["mine"] if flags else []) and at(CGROUP, 14) == ["mine_too"]
    assert at(f"{CGROUP}/admin", 10) == ["cil_sock4_conne"], "a container's, or a service's, is not the host's"


@private
def test_another_that_took_its_place_stays() -> None:
    """A cgroup that takes one only has the old one replaced; the kernel does not ask which is to go."""
    program = make_program(CONNECT4, "cil_sock4_conne")
    at_cgroup(os.dup(program), CGROUP)
    (obj,) = listed().values()
    at_cgroup(make_program(CONNECT4, "mine"), CGROUP)
    assert act("bpf", [obj]) == {}
    assert at(CGROUP, 10) == ["mine"]
    os.close(program)


@private
def test_one_that_hangs_on_a_pinned_link_ends_with_that() -> None:
    mounted()
    (ROOT / "cilium/socketlb/links/cgroup").mkdir(parents=True)
    fd = os.open(CGROUP, os.O_RDONLY)
    for name, path in (("cil_sock4_conne", "cilium/socketlb/links/cgroup/cil_sock4_connect"), ("mine", "mine")):
        pin(programs.link(make_program(CONNECT4, name), fd, 10), ROOT / path)
    os.close(fd)
    found = listed()
    attached = [obj for obj in found.values() if obj.facts["what"] == "attachment"]
    assert [obj.facts["name"] for obj in attached] == ["cil_sock4_conne"]
    assert act("bpf", attached) == {} and sorted(at(CGROUP, 10)) == ["cil_sock4_conne", "mine"], "its link holds it"
    assert act("bpf", found.values()) == {}
    until(lambda: at(CGROUP, 10) == ["mine"])
    assert listed() == {}


@private
def test_filters_of_tc() -> None:
    """By its own preference and handle, of those that hold a program of one name on one card."""
    mounted()
    card()
    at_tc(make_program(SCHED, "mine"), "eth0")
    at_tc(make_program(SCHED, "cil_from_netdev"), "eth0", "ingress", "pref", "7")
    at_tc(make_program(SCHED, "mine"), "eth0", "ingress", "pref", "7", "handle", "5")
    at_tc(make_program(SCHED, "mine"), "eth0", "egress")
    sh("tc", "filter", "add", "dev", "eth0", "ingress", "pref", "8", "matchall", "action", "pass", check=False)
    before = [sh("tc", "filter", "show", "dev", "eth0", way) for way in ("ingress", "egress")]
    at_tc(make_program(SCHED, "cil_from_netdev"), "eth0", "ingress", "pref", "7", "handle", "9")
    at_tc(make_program(SCHED, "cil_to_netdev"), "eth0", "egress", "pref", "3")
    found = listed()
    assert list(found) == [
        "tc eth0 clsact/ingress pref 7 cil_from_netdev",
        "tc eth0 clsact/ingress pref 7 cil_from_netdev #2",
        "tc eth0 clsact/egress pref 3 cil_to_netdev",
    ]
    asked = [obj for obj in found.values() if obj.facts["filter"][1] == 9 or obj.facts["name"] == "cil_to_netdev"]
    assert len(asked) == 2
    assert act("bpf", asked) == {}
    assert [sh("tc", "filter", "show", "dev", "eth0", way) for way in ("ingress", "egress")] == before
    sh("ip", "link", "delete", "eth0")
    assert act("bpf", found.values()) == {}


@private
def test_of_xdp_and_tcx_by_name() -> None:
    """What a link of BPF without a name holds is somebody's who runs; XDP has no place but one."""
    mounted()
    card()
    held = programs.link(make_program(TCX_INGRESS, "cil_from_netdev"), programs.index("eth0"), 46)
    pin(make_program(XDP, "cil_xdp_entry"), ROOT / "xdp")
    sh("ip", "link", "set", "eth0", "xdpgeneric", "pinned", str(ROOT / "xdp"))
    found = listed()
    assert list(found) == ["xdpgeneric eth0 cil_xdp_entry", "tc eth0 tcx/ingress cil_from_netdev"]
    assert set(act("bpf", found.values())) == set(found)
    assert set(listed()) == set(found)
    os.close(held)
    until(lambda: list(listed()) == ["xdpgeneric eth0 cil_xdp_entry"])


@private
def test_programs_are_not_cut_off_from_each_other() -> None:
    """While one stays attached, the maps of programs keep their pins."""
    mounted()
    card()
    (ROOT / "cilium").mkdir()
    pin(make_map(programs.PROG_ARRAY), ROOT / "cilium/calls")
    pin(make_map(), ROOT / "cilium/map")
    pin(make_program(XDP, "cil_xdp_entry"), ROOT / "xdp")
    sh("ip", "link", "set", "eth0", "xdpgeneric", "pinned", str(ROOT / "xdp"))
    causes = act("bpf", listed().values())
    assert causes[f"{ROOT}/cilium/calls"] == "xdpgeneric eth0 cil_xdp_entry may need it"
    assert Path(ROOT / "cilium/calls").exists() and not Path(ROOT / "cilium/map").exists()
