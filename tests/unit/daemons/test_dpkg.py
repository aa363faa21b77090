"""What maintainer scripts say that they will do."""

from __future__ import annotations

from pathlib import Path

import pytest

from leftovers.daemons import dpkg
from leftovers.host import Host

UNIT = "incus-startup.service"
STOP = f"systemctl stop {UNIT}\n"


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
        ("echo systemctl stop incus-startup.service\n", False, False),
        ("invoke-rc.d --skip-systemd-native incus stop || exit 1\n", False, False),
        ("systemctl restart x || systemctl stop incus-startup.service\n", False, False),
        ("systemctl is-active -q x || systemctl start incus-startup.service\n", False, False),
        ("systemctl --no-block stop incus-startup.service\n", False, False),
        ("systemctl stop incus-startup.service &\n", False, False),
        ("systemctl stop incus-startup.service >/dev/null 2>&1 || :\n", False, True),
        ("/bin/systemctl stop \\\n\tincus-startup.service\n", False, True),
        ("cat <<EOF\nsystemctl stop incus-startup.service\nEOF\n", False, False),
        ("say='\nsystemctl stop incus-startup.service\n'\n", False, False),
        (f'if [ "$1" = upgrade ]; then\n\t{STOP}fi\n', False, False),
        (f'if [ "$1" = upgrade ]; then\n\t:\nelse\n\t{STOP}fi\n', False, True),
        (f'if [ "$1" != remove ]; then\n\texit 0\nfi\n{STOP}', False, True),
        (f'if [ "x$1" = "xremove" ] || [ "$1" = deconfigure ]; then {STOP}fi\n', False, True),
        (f'[ "$1" = upgrade ] || exit 0\n{STOP}', False, False),
        (f'[ "$1" = upgrade ] && exit 0\n{STOP}', False, True),
        (f"[ -e /etc/keep ] || exit 0\n{STOP}", False, False),
        (f"if perhaps; then exit 0; fi\n{STOP}", False, False),
        (f"if perhaps; then {STOP}fi\n", False, False),
        (f"if systemctl is-active --quiet incus-startup.service; then {STOP}fi\n", False, True),
        (f"if command -v systemctl >/dev/null; then {STOP}fi\n", False, True),
        (f'case "$1" in\nupgrade|failed-upgrade) {STOP};;\nremove) : ;;\nesac\n', False, False),
        (f'case "$1" in\n  upgrade) : ;;\n  remove|deconfigure)\n    {STOP}    ;;\n  *) exit 1;;\nesac\n', False, True),
        (f"halt() {{\n{STOP}}}\n", False, False),
        (f"for each in x; do {STOP}done\n", False, False),
        (f"({STOP})\n", False, False),
        (f"{STOP}if unfinished; then\n", False, False),
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


# As debhelper 14 writes it for Debian's incus-base (7.0.2), and lab/zabbly.py after zabbly's.
DEBHELPER = """
if [ -z "$DPKG_ROOT" ] && [ "$1" = remove ] && [ -d /run/systemd/system ] ; then
	deb-systemd-invoke stop 'incus-startup.service' 'incus.service' 'incus.socket' >/dev/null || true
fi
# End automatically added section
if [ -z "$DPKG_ROOT" ] && [ "$1" = remove ] && [ -x "/etc/init.d/incus" ] ; then
	invoke-rc.d --skip-systemd-native incus stop || exit 1
fi
# Unlike postrm, I can be sure, that runit-helper is present on
if [ -z "${DPKG_ROOT:-}" ]  && [ -x /usr/lib/runit-helper/runit-helper ]; then
    NAME='incus' ENABLE='yes' ONUPGRADE='stop' /usr/lib/runit-helper/runit-helper prerm "$@"
fi
"""
ZABBLY = """
[ "$1" = remove ] && [ -d /run/systemd/system ] || exit 0
systemctl disable --now incus-startup.service
systemctl disable --now incus-user.socket incus-user.service
"""


@pytest.mark.parametrize("script", [DEBHELPER, ZABBLY], ids=["debhelper", "zabbly"])
def test_scripts_as_they_are(tmp_path: Path, script: str) -> None:
    info = tmp_path / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    for text, expected in ((script, True), (script.replace("= remove", "= upgrade"), False)):
        (info / "incus-base.prerm").write_text(f"#!/bin/sh\nset -e\n{text}")
        assert dpkg.stops(Host(str(tmp_path)), "incus-base", UNIT) is expected
