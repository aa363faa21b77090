"""What Cilium leaves on a host where MicroK8s had it, made with its own names and kinds: all of it goes while the host
can reach itself all the time, and what is only like it stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import containerd_like as like
import programs
import pytest
from programs import CONNECT4, SCHED, at_cgroup, at_tc, make_map, make_program, pin
from sandbox import private, sh
from test_bpf import ROOT, mounted, tree
from test_clean import leftovers, plan
from test_containerd_like import clean
from things import until

FAMILIES = ("-4", "-6")
LOCAL = "from all lookup local"
# Connects to itself over IPv4 and IPv6 until it is told to end, and says how often, and what went wrong.
CALLER = """
import signal, socket, sys
families = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
servers = {family: socket.create_server((place, 0), family=family, backlog=100) for family, place in families.items()}
going, done, wrong = [True], 0, set()
signal.signal(signal.SIGTERM, lambda *_: going.clear())
print("ready", flush=True)
while going:
    for family, server in servers.items():
        try:
            with socket.create_connection(server.getsockname()[:2], 1):
                server.accept()[0].close()
            done += 1
        except OSError as error:
            if not wrong:
                print("noticed", flush=True)
            wrong.add(str(error))
print(done, *sorted(wrong), sep="\\n")
"""


@contextmanager
def calling(notices: bool = False) -> Iterator[Callable[[], tuple[int, list[str]]]]:
    """Somebody who calls the host by its own addresses all the time; asked how that went, he ends."""
    caller = subprocess.Popen([sys.executable, "-c", CALLER], stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None and caller.stdout.readline() == "ready\n"

    def asked() -> tuple[int, list[str]]:
        if notices:
            assert caller.stdout is not None and caller.stdout.readline() == "noticed\n"
        caller.terminate()
        done, *wrong = caller.communicate()[0].splitlines()
        return int(done), wrong

    yield asked


def rules() -> str:
    return "".join(sh("ip", option, "rule") for option in FAMILIES)


def routes() -> str:
    # Before the first route there is no such table.
    return "".join(sh("ip", option, "route", "show", "table", "2004", check=False) for option in FAMILIES)


def host() -> None:
    """The administrator's: rules, pins and programs that are like Cilium's in all but one thing."""
    mounted()
    (ROOT / "tc/globals").mkdir(parents=True)
    (ROOT / "cilium2").mkdir()
    for path in ("tc/globals/mine", "tc/globals/xcilium_x", "cilium2/map"):
        pin(make_map(), ROOT / path)
    sh("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0p")
    at_tc(make_program(SCHED, "mine"), "eth0")
    at_tc(make_program(SCHED, "cil_from_netdev"), "eth0", "ingress", "pref", "5")  # uses no map of Cilium's
    at_cgroup(make_program(CONNECT4, "mine"), "/sys/fs/cgroup", programs.MULTI)
    for option in FAMILIES:
        for words in (
            "pref 9 fwmark 0x200/0xf00 lookup 2006",
            "pref 9 fwmark 0x200/0xff00 lookup 2004",
            "pref 8 fwmark 0x200/0xf00 lookup 2004",
            "pref 1 fwmark 0xd00/0xf00 iif lo lookup 200",
            "pref 109 fwmark 0x80/0x80 lookup main",
        ):
            sh("ip", option, "rule", "add", *words.split())


def moved() -> None:
    for option in FAMILIES:
        sh("ip", option, "rule", "add", *LOCAL.split(), "pref", "100", "proto", "kernel")
        sh("ip", option, "rule", "delete", "pref", "0")


def cilium() -> None:
    moved()
    sh("ip", "link", "add", "cilium_host", "type", "veth", "peer", "name", "cilium_net")
    sh("ip", "link", "add", "cilium_vxlan", "type", "vxlan", "external", "dstport", "8472")
    for option in FAMILIES:
        sh("ip", option, "route", "add", "local", "default", "dev", "lo", "table", "2004", "proto", "kernel")
        for words in (
            "pref 9 fwmark 0x200/0xf00 lookup 2004",
            "pref 10 fwmark 0xa00/0xf00 lookup 2005",
            "pref 10 fwmark 0xb00/0xf00 lookup 2005",
            "pref 1 fwmark 0xe00/0xf00 lookup 201",
        ):
            sh("ip", option, "rule", "add", *words.split(), "proto", "kernel")
    links = ROOT / "cilium/socketlb/links/cgroup"
    links.mkdir(parents=True)
    used = make_map()
    group = os.open("/sys/fs/cgroup", os.O_RDONLY)
    pin(programs.link(make_program((18, 14, 1), "cil_sock4_sendm"), group, 14), links / "cil_sock4_sendmsg")
    os.close(group)
    at_cgroup(make_program(CONNECT4, "cil_sock4_conne", uses=used), "/sys/fs/cgroup", programs.MULTI)
    at_tc(make_program(SCHED, "cil_from_netdev", uses=used), "eth0", "ingress", "pref", "1")
    at_tc(make_program(SCHED, "cil_from_host", uses=used), "cilium_host")
    pin(used, ROOT / "tc/globals/cilium_lxc")
    pin(make_map(programs.PROG_ARRAY), ROOT / "tc/globals/cilium_calls_1")


def state() -> dict[str, str]:
    return {
        "rules": rules(),
        "routes": routes(),
        "pins": "\n".join(tree()),
        "cgroup": " ".join(attached()),
        "links": sh("ip", "-brief", "link"),
        **{way: sh("tc", "filter", "show", "dev", "eth0", way) for way in ("ingress", "egress")},
    }


def attached() -> list[str]:
    from test_bpf_attached import at

    return sorted(at("/sys/fs/cgroup", 10) + at("/sys/fs/cgroup", 14))


@private
def test_it_goes_and_the_host_is_never_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    like.prepare()
    host()
    before = state()
    like.microk8s()
    cilium()
    attached_by = {
        id: each["action"]
        for id, each in plan(capsys, product="microk8s").items()
        if id.startswith(("bpf:cgroup", "bpf:tc"))
    }
    assert attached_by == {
        "bpf:cgroup /sys/fs/cgroup cgroup_inet4_connect cil_sock4_conne": "remove",
        "bpf:tc eth0 clsact/ingress pref 1 cil_from_netdev": "remove",
        "bpf:tc eth0 clsact/ingress pref 5 cil_from_netdev": "keep",
    }, "the others go with what they hang on"
    with calling() as asked:
        said = clean(capsys)
        until(lambda: "cil_sock4_sendm" not in attached())
        done, wrong = asked()
    assert done > 100 and wrong == []
    assert state() == before, said
    left = {id: each for id, each in plan(capsys, product="microk8s").items() if each["action"] != "keep"}
    assert left == {}


@private
def test_the_caller_does_notice() -> None:
    """The control of the test above: the same without the one at 0 put back first."""
    moved()
    with calling(notices=True) as asked:
        sh("ip", "rule", "delete", "pref", "100")
        done, wrong = asked()
    assert done and wrong


@private
def test_beside_somebody_else_s_cilium(capsys: pytest.CaptureFixture[str]) -> None:
    like.prepare()
    host()
    like.microk8s()
    cilium()
    agent = like.spawn("/run/lab/d/cilium-agent", "/srv", "/admin.slice", [], "import time; time.sleep(1000)")
    before = {**state(), "links": ""}
    clean(capsys)
    assert {**state(), "links": ""} == before and "cilium_host" in sh("ip", "-brief", "link")
    agent.kill()
    agent.wait()


@private
def test_where_there_was_no_cilium(capsys: pytest.CaptureFixture[str]) -> None:
    """An administrator moves that rule as well, for his VRFs; a program and a rule may be anybody's."""
    like.prepare()
    host()
    moved()
    before = state()
    like.microk8s()
    found = plan(capsys, product="microk8s")
    kept = [found[f"rule:{family} 100: from all lookup 255"] for family in ("ip", "ip6")]
    assert {each["action"] for each in kept} == {"keep"}
    assert kept[0]["advice"].startswith(f"ip rule add {LOCAL} priority 0 && ip rule delete")
    program = found["bpf:tc eth0 clsact/ingress pref 5 cil_from_netdev"]
    assert program["action"] == "keep"
    assert program["advice"] == "tc filter delete dev eth0 ingress pref 5 handle 0x1 bpf"
    clean(capsys)
    assert state() == before
    sh("sh", "-c", program["advice"])
    assert "cil_from_netdev" not in sh("tc", "filter", "show", "dev", "eth0", "ingress")
    sh("sh", "-c", kept[0]["advice"])
    sh("sh", "-c", kept[1]["advice"])
    assert rules().count(f"0:\t{LOCAL}") == 2 and "100:\tfrom all lookup local" not in rules()


@private
def test_what_cannot_be_taken_off_keeps_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    """A program of XDP calls others through a map, and that is emptied as its last name goes."""
    like.prepare()
    host()
    like.microk8s()
    cilium()
    calls = make_map(programs.PROG_ARRAY)
    used = make_map()
    pin(make_program(programs.XDP, "cil_xdp_entry", uses=calls), ROOT / "xdp")
    sh("ip", "link", "set", "eth0p", "xdpgeneric", "pinned", str(ROOT / "xdp"))
    os.unlink(ROOT / "xdp")
    pin(calls, ROOT / "tc/globals/cilium_calls_xdp")
    pin(used, ROOT / "tc/globals/cilium_metrics")
    clean(capsys)
    assert leftovers("verify", "microk8s") == 3
    said = capsys.readouterr().out
    left = {Path(path).name for path in tree() if "cilium_" in path}
    assert left == {"cilium_calls_xdp", "xcilium_x"}, said
    advice = "ip link set dev eth0p xdpgeneric off"
    assert advice in said
    sh(*advice.split())
    said = clean(capsys)
    assert not (ROOT / "tc/globals/cilium_calls_xdp").exists(), said
