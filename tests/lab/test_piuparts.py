"""piuparts installs and purges our package in a chroot, and finds nothing of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.machine import mirror, tool

TOP = Path(__file__).resolve().parents[2]


@pytest.mark.full
def test_our_own_packages_leave_nothing(package: Path, tmp_path: Path) -> None:
    base = tmp_path / "base.tar.gz"
    tool("mmdebstrap", "--mode=root", "--variant=minbase", "trixie", str(base), mirror())
    for deb in sorted(package.parent.glob("*.deb")):
        done = subprocess.run(
            [
                # What piuparts mounts never meets the machine's mounts.
                *("unshare", "--mount", "--propagation=private", "piuparts", f"--basetgz={base}", "-d", "trixie"),
                *("--mirror", f"{mirror()} main", f"--tmpdir={tmp_path}", "--no-eatmydata", "--no-upgrade-test"),
                # debconf's own, and made by the first package of many that is configured: debhelper brings a dozen
                "--ignore-regex=/var/cache/debconf/tmp[.]ci.*",
                *("--skip-logrotatefiles-test", str(deb)),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0 and "PASS: All tests." in said, said[-4000:]
