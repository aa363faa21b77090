"""A throwaway Debian host with a kernel of its own: QEMU, by software emulation, so that it runs everywhere.

    with Guest() as m:
        m.run("aa-status")

The same face as lab.machine.Machine, for what the machine's kernel does not have or would have to share: AppArmor,
device-mapper, kinds of links, loop devices, cgroup controllers. It has no network and no port on the machine: commands
go through a virtio port to lab/agent.py. Its network card is cut off from everything (QEMU's restrict=on).

The image is built once per recipe and booted once per version of QEMU; that state is saved, and each guest is that
one, woken up again on a disk of its own. `python3 -m lab.guest` (with tests/ in PYTHONPATH) does both and says where.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.machine import (
    ENVIRONMENT,
    LIBC,
    PR_SET_PDEATHSIG,
    TOOLS,
    Completed,
    LabError,
    Machine,
    Recipe,
    base,
    build,
    cache,
    remove_tree,
    tail,
    tool,
    words,
)

QEMU = "qemu-system-x86_64"
PREREQUISITES = {QEMU: "qemu-system-x86", "qemu-img": "qemu-utils", "mke2fs": "e2fsprogs"}
AGENT = Path(__file__).with_name("agent.py")
GUEST = Recipe(
    "guest-trixie",
    "trixie",
    (
        *TOOLS,
        *("linux-image-cloud-amd64", "initramfs-tools", "kmod", "apparmor"),
        *("lvm2", "thin-provisioning-tools"),
    ),
    (("incus-base", "incus-client", "lxcfs"), ("lxd", "lxd-client", "lxcfs")),
)
PORT = "/dev/virtio-ports/lab"
# The program comes with QEMU and is not in the image: to change it is not to build anew.
UNIT = f"""\
[Unit]
Description=what the tests run
[Service]
ExecStart=/usr/bin/python3 -I /sys/firmware/qemu_fw_cfg/by_name/opt/lab/agent/raw {PORT} \
{" ".join(f"{name}={value}" for name, value in ENVIRONMENT.items())}
OOMScoreAdjust=-1000
[Install]
WantedBy=multi-user.target
"""
MODULES = "qemu_fw_cfg\nvirtio_console\n"
COMPUTER = (
    # Debian 12's QEMU emulates cmpxchg16b in a way that a kernel of Debian 13 does not survive.
    *("-accel", "tcg,thread=multi", "-cpu", "max,-cx16"),
    *("-smp", "2", "-m", "2048", "-nographic", "-nodefaults", "-no-user-config", "-no-reboot"),
    *("-append", "root=/dev/vda rw console=ttyS0 panic=-1 quiet"),
    *("-netdev", "user,id=n0,restrict=on,ipv6=off", "-device", "virtio-net-pci,netdev=n0,romfile="),
    *("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=lab"),
    *("-fw_cfg", f"name=opt/lab/agent,file={AGENT}"),
)
# What an emulated host needs more time than the machine for, also where others keep that busy.
SLOW = 8
# Seconds: to boot and to wake up (an idle machine needs 30 and 2); and what report() gives a command.
BOOT, WAKE, LOOK = 600.0, 120.0, 20.0


class TooLong(Exception):
    """A command did not end in time; what it had said by then."""


# -- the image, and the guest that is asleep -------------------------------------------------------------------------


def prerequisites() -> None:
    missing = [package for name, package in PREREQUISITES.items() if not shutil.which(name)]
    if missing:
        raise LabError(f"the lab's guest needs {', '.join(missing)}: `make check-full` installs them")


def image_of(recipe: Recipe, directory: Path) -> None:
    """Build the recipe as an image with a kernel and an initrd beside it."""
    root = directory / "root"
    directory.mkdir()
    build(recipe, root)
    (root / "etc/systemd/system/lab.service").write_text(UNIT)
    (root / "etc/modules-load.d/lab.conf").write_text(MODULES)
    wants = root / "etc/systemd/system/multi-user.target.wants"
    (wants / "lab.service").symlink_to("../lab.service")
    # A login at the console is a process that comes late.
    (root / "etc/systemd/system/serial-getty@ttyS0.service").symlink_to("/dev/null")
    (root / "etc/fstab").write_text("/dev/vda / ext4 errors=remount-ro 0 1\n")
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy(sorted((root / "boot").glob(f"{name}-*"))[-1], directory / name)
    tool("mke2fs", "-q", "-t", "ext4", "-L", "lab", "-d", str(root), str(directory / "image.raw"), "12G")
    remove_tree(root)


def asleep(recipe: Recipe) -> Path:
    """The directory with a guest of the recipe that was saved as it had booted: "disk" and "memory"."""
    prerequisites()
    directory = base(recipe, image_of)
    version = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout
    about = json.dumps([version, COMPUTER, AGENT.read_text()])
    target = directory / f"asleep-{hashlib.sha256(about.encode()).hexdigest()[:12]}"
    with open(cache() / f"{recipe.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():
            return target
        half = directory / "asleep.tmp"
        remove_tree(half)
        half.mkdir()
        overlay(directory / "image.raw", "raw", half / "disk")
        began = time.monotonic()
        with Computer(directory, half, half / "disk") as computer:
            computer.answers(BOOT)
            computer.save(half / "memory")
        (half / "seconds").write_text(f"{time.monotonic() - began:.1f}\n")
        for other in directory.glob("asleep-*"):
            remove_tree(other)
        half.rename(target)
    return target


def overlay(below: Path, format: str, path: Path) -> None:
    # By a relative name: the directory is renamed when it is whole.
    backing = os.path.relpath(below, path.parent)
    tool("qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", format, str(path))


@dataclass
class Computer:
    """QEMU, running; `run` is the directory of its sockets and its console. A context manager."""

    image: Path
    run: Path
    disk: Path
    memory: Path | None = None  # wake up with this
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    pending: bytes = b""

    def __enter__(self) -> Computer:
        parent = os.getpid()

        def before_exec() -> None:
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

        try:
            with open(self.run / "qemu", "wb") as said:
                self.qemu = subprocess.Popen(
                    [
                        *(QEMU, *COMPUTER),
                        *("-kernel", str(self.image / "vmlinuz"), "-initrd", str(self.image / "initrd.img")),
                        *("-drive", f"file={self.disk},if=virtio,discard=unmap,cache=unsafe"),
                        *("-serial", f"file:{self.run / 'console'}"),
                        *("-chardev", f"socket,id=agent,path={self.run / 'agent'},server=on,wait=off"),
                        *("-qmp", f"unix:{self.run / 'qmp'},server=on,wait=off"),
                        *(("-incoming", f"exec:cat {shlex.quote(str(self.memory))}") if self.memory else ()),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                    preexec_fn=before_exec,
                )
            self.agent = self.connect("agent")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def connect(self, name: str) -> socket.socket:
        deadline = time.monotonic() + WAKE
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(self.run / name))
                return connection
            except OSError:
                connection.close()
                if self.qemu.poll() is not None or time.monotonic() > deadline:
                    raise LabError(f"QEMU does not start:\n{self.said()}") from None
                time.sleep(0.01)

    def answers(self, seconds: float) -> None:
        """Wait until the guest has booted, or has woken up."""
        try:
            state = self.execute(["systemctl", "is-system-running", "--wait"], b"", seconds).out.strip()
        except TooLong:
            state = "says nothing"
        if state not in ("running", "degraded"):
            raise LabError(f"the guest does not boot: it {state}\n{self.said()}")

    def execute(self, argv: Sequence[str], given: bytes, timeout: float) -> Completed:
        """Run a command in the guest and wait for it. Raises TooLong."""
        number = next(self.numbers)
        self.send({"id": number, "argv": list(argv), "stdin": base64.b64encode(given).decode()})
        answer = self.answer(number, timeout)
        late = answer is None
        if answer is None:
            self.send({"id": number, "kill": True})
            answer = self.answer(number, 30)
        if answer is None:
            raise TooLong("")
        out, err = (base64.b64decode(answer[name]).decode(errors="replace") for name in ("out", "err"))
        if late:
            raise TooLong(f"{tail(out)}\n{tail(err)}")
        return Completed(out, err, answer["code"])

    def send(self, message: dict[str, Any]) -> None:
        self.agent.settimeout(60)
        try:
            self.agent.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise LabError(f"the guest is down ({error}):\n{self.said()}") from None

    def answer(self, number: int, timeout: float) -> dict[str, Any] | None:
        deadline = time.monotonic() + timeout
        while True:
            line, newline, rest = self.pending.partition(b"\n")
            if newline:
                self.pending = rest
                message: dict[str, Any] = json.loads(line)
                if message["id"] == number:
                    return message
                continue  # of a command that was given up
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self.agent.settimeout(left)
            try:
                data = self.agent.recv(1 << 20)
            except TimeoutError:
                continue
            if not data:
                raise LabError(f"the guest is down:\n{self.said()}")
            self.pending += data

    def save(self, path: Path) -> None:
        """Write the memory to a file, and end. What the disk has then belongs to it."""
        self.execute(["sh", "-c", "sync; echo 3 >/proc/sys/vm/drop_caches"], b"", 60)
        with contextlib.closing(self.connect("qmp")) as qmp, qmp.makefile("rw") as lines:

            def ask(command: str, **arguments: Any) -> Any:
                lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
                lines.flush()
                for line in lines:
                    said = json.loads(line)
                    if "error" in said:
                        raise LabError(f"QEMU: {command}: {said['error']}")
                    if "return" in said:
                        return said["return"]
                raise LabError(f"QEMU ended at {command}:\n{self.said()}")

            ask("qmp_capabilities")
            ask("migrate", uri=f"exec:cat >{shlex.quote(str(path))}")
            while (state := ask("query-migrate")["status"]) != "completed":
                if state in ("failed", "cancelled"):
                    raise LabError(f"the guest cannot be saved: {state}\n{self.said()}")
                time.sleep(0.1)
            ask("quit")
        self.qemu.wait(60)

    def said(self) -> str:
        texts = []
        for name in ("qemu", "console"):
            with contextlib.suppress(OSError):
                texts.append(tail((self.run / name).read_text(errors="replace")))
        return "\n".join(texts)

    def stop(self) -> None:
        if hasattr(self, "qemu") and self.qemu.poll() is None:
            self.qemu.kill()
            self.qemu.wait()
        if hasattr(self, "agent"):
            self.agent.close()


# -- the host --------------------------------------------------------------------------------------------------------


@dataclass
class Guest(Machine):
    """A host with a kernel of its own. With `like`, it goes on where that one fell asleep."""

    recipe: Recipe = GUEST
    like: Guest | None = None

    def find_base(self) -> Path:
        return self.like.directory if self.like else asleep(self.recipe)

    def boot(self) -> None:
        began = time.monotonic()
        overlay(self.base / "disk", "qcow2", self.directory / "disk")
        image = base(self.recipe, image_of)
        self.computer = Computer(image, self.directory, self.directory / "disk", self.base / "memory")
        self.computer.__enter__()
        self.computer.answers(WAKE)
        self.seconds["boot"] = time.monotonic() - began
        # It slept, and its clock with it.
        self.run(["date", "-s", f"@{time.time():.0f}"])

    def sleep(self) -> None:
        """Save it as it is, for others to go on from. It does not wake up itself, and must be there as long as they."""
        self.computer.save(self.directory / "memory")

    def execute(self, command: str | Sequence[str], given: bytes, timeout: float) -> Completed:
        try:
            return self.computer.execute(words(command), given, timeout * SLOW)
        except TooLong as said:
            more = "" if timeout <= LOOK else self.report()  # which asks in this way, too
            raise LabError(f"still running after {timeout * SLOW} s: {str(command)[:300]}\n{said}\n{more}") from None

    def is_up(self) -> bool:
        return self.computer.qemu.poll() is None

    def console(self) -> str:
        return self.computer.said()

    def stop(self) -> None:
        if hasattr(self, "computer"):
            self.computer.stop()
        super().stop()


if __name__ == "__main__":
    began_at = time.monotonic()
    print(asleep(GUEST), f"{time.monotonic() - began_at:.1f} s")
