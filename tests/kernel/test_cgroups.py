"""Real cgroups: a tree with its processes goes, the one beside it stays."""

from __future__ import annotations

import os
import resource
import signal
import time
from dataclasses import replace

from sandbox import private
from things import act, look, sleeper

ROOT = "/sys/fs/cgroup"


@private
def test_trap_0_10_a_tree_with_processes_goes_and_its_neighbour_stays() -> None:
    for path in ("/lxc.payload.c1/init.scope", "/lxc.payload.c1/system.slice/a.service", "/lxc.payload.c10"):
        os.makedirs(ROOT + path)
    going = [sleeper(cgroup="/lxc.payload.c1/init.scope") for _ in range(5)]
    bystander = sleeper(cgroup="/lxc.payload.c10")
    found = look("cgroup")["cgroup"]
    assert found["/lxc.payload.c1"].facts["populated"] and found["/lxc.payload.c10"].facts["populated"]
    assert look("process")["process"][str(going[0].pid)].facts["cgroup"] == "/lxc.payload.c1/init.scope"
    assert act("cgroup", [found["/lxc.payload.c1"]]) == {}
    assert {process.wait(1) for process in going} == {-signal.SIGKILL}
    after = look("cgroup")["cgroup"]
    assert not [path for path in after if path.startswith("/lxc.payload.c1/") or path == "/lxc.payload.c1"]
    assert bystander.poll() is None and "/lxc.payload.c10" in after


@private
def test_a_group_that_forks_all_the_time_is_emptied() -> None:
    os.mkdir(f"{ROOT}/busy")
    sleeper("sh", "-c", "while :; do sleep 0.01 & done", exe="/bin/sh", cgroup="/busy")
    assert act("cgroup", [look("cgroup")["cgroup"]["/busy"]], seconds=10.0) == {}
    assert not os.path.exists(f"{ROOT}/busy")


@private
def test_the_group_that_we_are_in_is_refused_and_so_are_those_above() -> None:
    os.makedirs(f"{ROOT}/above/ours")
    child = os.fork()
    if child == 0:
        with open(f"{ROOT}/above/ours/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
        found = look("cgroup")["cgroup"]
        causes = act("cgroup", [found["/above"], found["/above/ours"]])
        os._exit(0 if set(causes) == {"/above", "/above/ours"} else 1)
    assert os.waitpid(child, 0)[1] == 0


@private
def test_an_empty_group_goes_at_once() -> None:
    os.mkdir(f"{ROOT}/lxc.pivot")
    began = time.monotonic()
    assert act("cgroup", [look("cgroup")["cgroup"]["/lxc.pivot"]]) == {}
    assert time.monotonic() - began < 1.0 and not os.path.exists(f"{ROOT}/lxc.pivot")


@private
def test_a_group_that_was_empty_is_never_killed() -> None:
    os.mkdir(f"{ROOT}/lxc.payload.web")
    empty = look("cgroup")["cgroup"]["/lxc.payload.web"]
    process = sleeper(cgroup="/lxc.payload.web")
    now = look("cgroup")["cgroup"]["/lxc.payload.web"]
    only = replace(now, facts={**empty.facts, **now.facts, "only_empty": True})
    assert act("cgroup", [only], seconds=1.0) == {"/lxc.payload.web": "has a process by now"}
    assert process.poll() is None


@private
def test_groups_nested_deeper_than_a_path_may_be_long() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    os.makedirs(f"{ROOT}/lxc.payload.c1")
    os.makedirs(f"{ROOT}/lxc.payload.c10")
    home = os.getcwd()
    os.chdir(f"{ROOT}/lxc.payload.c1")
    for _ in range(40):
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    os.chdir(home)
    assert act("cgroup", [look("cgroup")["cgroup"]["/lxc.payload.c1"]]) == {}
    assert not os.path.exists(f"{ROOT}/lxc.payload.c1") and os.path.exists(f"{ROOT}/lxc.payload.c10")
