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
