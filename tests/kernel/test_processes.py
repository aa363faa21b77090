"""Real processes: what is read about them, and that a signal meets the one that was looked at and nobody else."""

from __future__ import annotations

import os
import shutil
import signal
import time
from dataclasses import replace

from sandbox import private, sh
from things import act, look, sleeper, until


@private
def test_an_executable_that_was_deleted_is_still_named() -> None:
    shutil.copy("/bin/sleep", "/srv/daemon")
    process = sleeper("daemon", "1000", exe="/srv/daemon")
    os.unlink("/srv/daemon")
    facts = look("process")["process"][str(process.pid)].facts
    assert facts["exe"] == "/srv/daemon (deleted)"
    assert facts["argv"] == ["daemon", "1000"]
    assert not facts["nested"] and not facts["self"]


@private
def test_a_title_with_blanks_is_one_argument() -> None:
    # psutil would cut it, and "[lxc monitor] /var/lib/incus/containers c1" would be five words.
    process = sleeper("[lxc monitor] /var/lib/incus/containers c1", "1000")
    assert look("process")["process"][str(process.pid)].facts["argv"][0].endswith("containers c1")


@private
def test_a_batch_ends_and_a_bystander_lives() -> None:
    going = [sleeper() for _ in range(20)]
    stubborn = sleeper("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done", exe="/bin/sh")
    bystander = sleeper()
    time.sleep(0.1)
    listed = look("process")["process"]
    assert act("process", [listed[str(process.pid)] for process in [*going, stubborn]]) == {}
    assert all(process.wait(1) == -signal.SIGTERM for process in going)
    assert stubborn.wait(1) == -signal.SIGKILL
    assert bystander.poll() is None


@private
def test_a_pid_that_another_process_has_now_is_left_alone() -> None:
    process = sleeper()
    old = look("process")["process"][str(process.pid)]
    start = old.facts["start"] - 1  # the process that we looked at began earlier and has ended since
    stale = replace(old, identity=(process.pid, start), facts={**old.facts, "start": start})
    assert act("process", [stale]) == {}
    time.sleep(0.1)
    assert process.poll() is None


@private
def test_neither_this_command_nor_its_ancestors_are_killed() -> None:
    child = os.fork()
    if child == 0:
        me = look("process")["process"][str(os.getpid())]
        os._exit(0 if "own process" in act("process", [me]).get(str(os.getpid()), "") else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert "own process" in act("process", [look("process")["process"]["1"]])["1"]


@private
def test_a_nested_pid_namespace_is_told_and_its_init_killed_at_once() -> None:
    asked = "trap 'echo > /srv/asked' TERM; sleep 1000 & wait"
    outer = sleeper("unshare", "--fork", "--pid", "--mount-proc", "sh", "-c", asked, exe="/usr/bin/unshare")
    until(lambda: any(obj.facts["nested"] for obj in look("process")["process"].values()))
    until(lambda: sum(obj.facts["nested"] for obj in look("process")["process"].values()) == 2)
    nested = [obj for obj in look("process")["process"].values() if obj.facts["nested"]]
    init = next(obj for obj in nested if obj.facts["ppid"] == outer.pid)
    leader = look("process")["process"][str(outer.pid)]  # the first in that mount namespace
    assert leader.facts["mntns"] == init.facts["mntns"] and leader.facts["mount_root"] and leader.facts["mount_devices"]
    assert act("process", [init]) == {}
    assert not os.path.exists("/srv/asked"), "SIGTERM was tried first"
    until(lambda: not any(obj.facts["nested"] for obj in look("process")["process"].values()))


@private
def test_kernel_threads_and_zombies_are_not_listed() -> None:
    process = sleeper()
    process.send_signal(signal.SIGKILL)
    until(lambda: "Z" in sh("ps", "-o", "stat=", "-p", str(process.pid)))
    assert str(process.pid) not in look("process")["process"]


# A process that forks as fast as it can: who is listed has children by the time that he is ended.
FORKS = "while :; do (sleep 0.05 & sleep 0.05 &) ; sleep 0.01; done"


def group(path: str) -> list[str | int]:
    directory = f"/sys/fs/cgroup{path}"
    return [path, directory, os.stat(directory).st_ino]


def living(path: str) -> list[str]:
    with open(f"/sys/fs/cgroup{path}/cgroup.procs") as file:
        return file.read().split()


@private
def test_all_in_a_container_s_own_cgroup_end_at_once() -> None:
    for path in ("/pod", "/pod/ours", "/pod/admin"):
        os.mkdir(f"/sys/fs/cgroup{path}")
    bystander = sleeper(cgroup="/pod/admin")
    process = sleeper("sh", "-c", FORKS, exe="/bin/sh", cgroup="/pod/ours")
    sleeping = sleeper(cgroup="/pod/ours")  # nobody lists it
    until(lambda: len(living("/pod/ours")) > 5)
    found = look("process")["process"][str(process.pid)]
    obj = replace(found, facts={**found.facts, "abrupt": True, "group": group("/pod/ours")})
    assert act("process", [obj]) == {}
    assert process.wait(5) == sleeping.wait(5) == -signal.SIGKILL
    until(lambda: living("/pod/ours") == [])
    assert bystander.poll() is None


@private
def test_a_cgroup_that_was_made_anew_is_not_killed() -> None:
    os.mkdir("/sys/fs/cgroup/ours")
    stale = group("/ours")
    os.rmdir("/sys/fs/cgroup/ours")
    os.mkdir("/sys/fs/cgroup/ours")
    bystander = sleeper(cgroup="/ours")
    process = sleeper()
    found = look("process")["process"][str(process.pid)]
    if stale == group("/ours"):
        stale = [*stale[:2], int(stale[2]) + 1]
    assert act("process", [replace(found, facts={**found.facts, "abrupt": True, "group": stale})]) == {}
    assert process.wait(5) == -signal.SIGKILL
    assert bystander.poll() is None


@private
def test_a_cgroup_that_holds_us_is_not_killed() -> None:
    for path in ("/outer", "/outer/inner"):
        os.mkdir(f"/sys/fs/cgroup{path}")
    process = sleeper(cgroup="/outer")
    child = os.fork()
    if child == 0:
        with open("/sys/fs/cgroup/outer/inner/cgroup.procs", "w") as file:
            file.write(str(os.getpid()))
        found = look("process")["process"][str(process.pid)]
        failed = act("process", [replace(found, facts={**found.facts, "abrupt": True, "group": group("/outer")})])
        os._exit(len(failed))
    assert os.waitpid(child, 0)[1] == 0
    assert process.wait(5) == -signal.SIGKILL
