"""What maintainer scripts say that they will do."""

from __future__ import annotations

from pathlib import Path

import pytest

from leftovers.daemons import dpkg
from leftovers.host import Host

UNIT = "incus-startup.service"


@pytest.mark.parametrize(
    ("prerm", "policy", "expected"),
    [
        ("\tdeb-systemd-invoke stop 'incus-startup.service' 'incus.service' >/dev/null || true\n", False, True),
        ("\tdeb-systemd-invoke stop 'incus-startup.service' 'incus.service' >/dev/null || true\n", True, False),
        ("        systemctl disable --now incus-startup.service\n", True, True),
        ("systemctl stop incus-startup.service;\n", False, True),
        ("systemctl disable incus-startup.service\n", False, False),
        ("systemctl stop incus.service\n", False, False),
        ("# systemctl stop incus-startup.service\n", False, False),
        ("echo stop incus-startup.service\n", False, False),
        ("invoke-rc.d --skip-systemd-native incus stop || exit 1\n", False, False),
        (None, False, False),
    ],
)
def test_who_stops_a_unit(tmp_path: Path, prerm: str | None, policy: bool, expected: bool) -> None:
    for name in ("a", "b:amd64"):
        info = tmp_path / name / "var/lib/dpkg/info"
        info.mkdir(parents=True)
        (info / "incus-base-extra.prerm").write_text("systemctl stop incus-startup.service\n")
        if prerm is not None:
            (info / f"incus-base{name[1:]}.prerm").write_text(f"#!/bin/sh\nset -e\n{prerm}")
        if policy:
            (tmp_path / name / "usr/sbin").mkdir(parents=True)
            (tmp_path / name / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
        assert dpkg.stops(Host(str(tmp_path / name)), "incus-base", UNIT) is expected
