"""`make demo`: the main job on a throwaway host, with real Incus. Nothing of this machine is touched.

A Debian trixie boots in namespaces of its own. Incus is installed, five containers are started, and Debian's own
`apt purge` removes it under them. Then leftovers comes: what is left, whose it is, clean, verify.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lab import incus
from lab.machine import Machine

TOP = Path(__file__).resolve().parents[2]

ADMIN = """
ip link add br-lan type bridge
ip addr add 10.77.0.1/24 dev br-lan
ip link set br-lan up
mkdir -p /srv/data /srv/pool
echo precious >/srv/data/file
"""
USE = (
    "incus admin init --minimal\n"
    + incus.IMAGE
    + """
incus -q network create net2 ipv4.address=10.99.0.1/24 ipv6.address=none
incus -q launch bb web
incus -q config device add web data disk source=/srv/data path=/mnt/data
incus -q config device add web http proxy listen=tcp:127.0.0.1:8080 connect=tcp:127.0.0.1:80
incus -q launch bb db -c security.privileged=true
incus -q launch bb cache --network net2
incus -q launch bb build --ephemeral
incus -q init bb lan
incus -q config device add lan eth0 nic nictype=bridged parent=br-lan
incus -q start lan
"""
)


class Stage:
    """Shows what is done on the throwaway host, and how long the parts took."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def tell(self, text: str) -> None:
        print(f"\n\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)

    def quietly(self, text: str, command: str) -> None:
        began = time.monotonic()
        self.machine.run(command, timeout=300)
        print(f"  {text} ({time.monotonic() - began:.1f} s)", flush=True)

    def show(self, command: str, *, cut: int = 0, status: int = 0) -> None:
        """Run a command on the host and print what it says, as a person would see it."""
        print(f"host# {command}", flush=True)
        began = time.monotonic()
        done = self.machine.run(command, check=False, timeout=300)
        lines = (done.out + done.err).rstrip("\n").split("\n")
        for line in lines[-cut:] if cut else lines:
            print(f"  {line}")
        print(f"  [exit status {done.code}, {time.monotonic() - began:.1f} s]", flush=True)
        if done.code != status:
            raise SystemExit(f"demo: {command}: exit status {done.code}, expected {status}")


def main() -> int:
    package = next((TOP / "dist").glob("leftovers_*_all.deb"), None)
    if package is None:
        raise SystemExit("demo: no package in dist/ (make deb)")
    print("Preparing a throwaway Debian trixie (the first time, it is downloaded) ...", flush=True)
    with Machine() as machine:
        stage = Stage(machine)
        stage.tell("A host with Incus on it, in use")
        stage.quietly("the administrator's own bridge and files", ADMIN)
        began = time.monotonic()
        incus.install(machine)
        print(f"  apt install incus-base ({time.monotonic() - began:.1f} s)", flush=True)
        stage.quietly("five containers, two networks, a disk, a proxy, a port on the administrator's bridge", USE)

        stage.tell("Debian's own removal, under the running containers")
        stage.show(f"apt-get -q -y purge {' '.join(incus.PACKAGES)} 2>&1 | grep -v Reading", cut=6)
        stage.show("ip -br link | grep -v ^lo; ps ax | grep -c '[l]xc monitor'; nft list tables; ls /var/lib/incus")

        stage.tell("leftovers comes")
        machine.put(package, f"/tmp/{package.name}")
        stage.quietly("apt install ./leftovers.deb", f"apt-get -q -y install /tmp/{package.name}")
        stage.show("leftovers verify incus | tail -2", status=0)
        stage.show("leftovers explain incusbr0 | grep -A9 incus")
        stage.show("leftovers clean incus --yes")
        stage.show("leftovers verify")

        stage.tell("What is there now")
        stage.show(
            "ip -br link | grep -v ^lo; ps ax | grep -c '[l]xc monitor' || true; nft list tables; cat /srv/data/file"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
