"""Snaps made by hand, on a host whose snapd has no store (recipes snapd-trixie and snapd-sid)."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.machine import Machine

# Where the host keeps what was built, and a person what was downloaded.
SHELF = "/root/snaps"


def build(m: Machine, name: str, meta: str, files: Mapping[str, str] | None = None, script: str = "") -> str:
    """Build a snap in the host and return its path there. `meta` is its snap.yaml without the lines that all share;
    `files` gives the content of paths in it, all of them programs (so are hooks: meta/hooks/remove); `script` runs in
    its tree and adds what the host has."""
    with tempfile.TemporaryDirectory() as tree:
        for path, content in {**(files or {}), "meta/snap.yaml": snap_yaml(name, meta)}.items():
            target = Path(tree, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)
            target.chmod(0o755)
        Path(tree).chmod(0o755)
        work = f"/var/tmp/{name}.tree"
        m.put(tree, work)
    path = f"{SHELF}/{name}.snap"
    m.run(
        f"""
        cd {work}
        {script}
        mkdir -p {SHELF}
        mksquashfs . {path} -quiet -no-progress -noappend -noI -noD -noF -no-fragments -all-root >/dev/null
        rm -r {work}
        """
    )
    return path


def snap_yaml(name: str, meta: str) -> str:
    return f"name: {name}\nsummary: made by hand\ndescription: for tests\narchitectures: [all]\n{meta}"


def install(m: Machine, path: str, *how: str) -> None:
    """`how`: --classic, --devmode, --jailmode. Of a name that is installed it makes the next revision."""
    m.run(["snap", "install", "--dangerous", *how, path], timeout=120)


def api(m: Machine, path: str) -> Any:
    """What snapd answers: the `result` of a GET."""
    said = m.run(["python3", "-I", "-", path], input=ASK).json()
    return said["result"]


ASK = """
import http.client, socket, sys
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.settimeout(30)
connection.sock.connect("/run/snapd.socket")
connection.request("GET", sys.argv[1])
print(connection.getresponse().read().decode())
"""


def revision(m: Machine, name: str) -> str:
    return m.run(["readlink", f"/snap/{name}/current"]).out.strip()


def changes(m: Machine, name: str) -> list[dict[str, Any]]:
    """snapd's changes of that snap, oldest first."""
    found: list[dict[str, Any]] = api(m, f"/v2/changes?select=all&for={name}")
    return sorted(found, key=lambda change: int(change["id"]))


GUARD = """[Unit]
PartOf=%i
After=%i
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=/bin/bash /usr/local/lib/guard %i
TimeoutStopSec=5min
"""


def guard(m: Machine, service: str, script: str) -> None:
    """A unit that is stopped before a snap's service is: `script` runs then, with the service's name as $1, and what
    it says is in /run/guard.log. That is how a watcher on the host sees a removal in time."""
    m.write("/usr/local/lib/guard", f"exec >>/run/guard.log 2>&1\n{script}")
    m.write("/etc/systemd/system/guard@.service", GUARD)
    m.write(f"/etc/systemd/system/{service}.d/50-guard.conf", f"[Unit]\nWants=guard@{service}.service\n")
    m.run(["systemctl", "daemon-reload"])
    m.run(["systemctl", "start", f"guard@{service}.service"])
