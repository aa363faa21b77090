"""Incus as zabbly packages it, made of Debian's: the same programs at zabbly's paths, with units and maintainer
scripts that do what zabbly's do (zabbly/incus, debian/ and systemd/, of 2024-03; written anew, none is copied).

Different from Debian's: all programs in /opt/incus, started by scripts that find them by PATH; a lxcfs of its own
(incus-lxcfs.service, /var/lib/incus-lxcfs) in the same package; a user incus; prerm stops every unit, the startup unit
first, which shuts down the instances; postrm purge deletes with `rm -Rf`, across file systems.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from lab import incus
from lab.machine import Machine, base

PACKAGES = ("incus-base", "incus-client")
VERSION = "1:6.0.4-zabbly1"
UNITS = {
    "incus-lxcfs.service": """
[Unit]
ConditionVirtualization=!container
Before=incus.service
[Service]
EnvironmentFile=-/etc/default/incus
Environment=LD_LIBRARY_PATH=/opt/incus/lib/
ExecStartPre=-/bin/mkdir -p /var/lib/incus-lxcfs
ExecStart=/opt/incus/bin/lxcfs /var/lib/incus-lxcfs $LXCFS_OPTS
KillMode=process
Restart=on-failure
ExecStopPost=-/bin/fusermount -u /var/lib/incus-lxcfs
Delegate=yes
[Install]
WantedBy=multi-user.target
""",
    "incus.service": """
[Unit]
After=network-online.target incus-lxcfs.service incus.socket
Requires=network-online.target incus-lxcfs.service incus.socket
[Service]
EnvironmentFile=-/etc/default/incus
ExecStart=/opt/incus/lib/systemd/incusd --group incus-admin $INCUS_OPTS --logfile /var/log/incus/incusd.log
ExecStartPost=/opt/incus/lib/systemd/incusd waitready --timeout=600
KillMode=process
TimeoutStopSec=30s
Restart=on-failure
Delegate=yes
[Install]
Also=incus-startup.service incus.socket
""",
    "incus.socket": """
[Socket]
ListenStream=/var/lib/incus/unix.socket
SocketGroup=incus-admin
SocketMode=0660
Service=incus.service
[Install]
WantedBy=sockets.target
""",
    "incus-user.service": """
[Unit]
After=incus-user.socket incus.service
Requires=incus-user.socket
[Service]
ExecStart=/opt/incus/lib/systemd/incus-user --group incus
Restart=on-failure
[Install]
Also=incus-user.socket
""",
    "incus-user.socket": """
[Socket]
ListenStream=/var/lib/incus/unix.socket.user
SocketGroup=incus
SocketMode=0660
Service=incus-user.service
[Install]
WantedBy=sockets.target
""",
    "incus-startup.service": """
[Unit]
After=incus.socket incus.service
Requires=incus.socket
[Service]
Type=oneshot
ExecStart=/opt/incus/lib/systemd/incus-startup start
ExecStop=/opt/incus/lib/systemd/incus-startup stop
TimeoutStartSec=600s
TimeoutStopSec=600s
RemainAfterExit=yes
[Install]
WantedBy=multi-user.target
""",
}
ENVIRONMENT = """#!/bin/sh
set -e
export INCUS_LXC_TEMPLATE_CONFIG=/opt/incus/share/lxc/config/
export INCUS_LXC_HOOK=/opt/incus/share/lxc/hooks/
export LD_LIBRARY_PATH=/opt/incus/lib/
export PATH=/opt/incus/bin/:${PATH}
"""
SCRIPTS = {
    "incusd": 'exec incusd "$@"\n',
    "incus-user": 'exec incus-user "$@"\n',
    "incus-startup": """
active() { systemctl is-active -q incus; }
case $1 in
start) active || exec incusd activateifneeded ;;
stop) if active; then exec incusd shutdown; fi ;;
esac
""",
}
STARTED = ("incus-lxcfs.service", "incus.socket", "incus-user.socket", "incus-startup.service")
MAINTAINER = {
    # Without zabbly's settings of the kernel: they are the machine's, on which the lab's hosts run.
    "postinst": f"""#!/bin/sh
set -e
[ "$1" = configure ] || exit 0
touch /etc/subuid /etc/subgid
grep -q ^root: /etc/subuid || usermod --add-subuids 1000000-1000999999 --add-subgids 1000000-1000999999 root
systemd-sysusers incus-base.conf
systemctl daemon-reload
for unit in {" ".join(STARTED)}; do systemctl enable -q --now $unit; done
""",
    "prerm": """#!/bin/sh
set -e
[ "$1" = remove ] && [ -d /run/systemd/system ] || exit 0
systemctl disable --now incus-startup.service
systemctl disable --now incus-user.socket incus-user.service
systemctl disable --now incus.socket incus.service
systemctl disable --now incus-lxcfs.service
""",
    "postrm": """#!/bin/sh
set -e
[ "$1" = purge ] || exit 0
for path in run/lxc/lock/var/lib/incus var/cache/incus var/lib/incus var/lib/incus-lxcfs var/log/incus; do
    rm -Rf /$path || :
done
""",
}
SYSUSERS = 'g incus - -\ng incus-admin - -\nu incus - "Incus user" /var/lib/incus /usr/bin/nologin\nm incus incus\n'
CONFIGURATION = {
    "default/incus": 'INCUS_OPTS=""\nLXCFS_OPTS=""\n',
    "sysctl.d/50-incus.conf": "fs.aio-max-nr=524288\nvm.max_map_count=262144\n",
}
# What may stay on the host, and why.
KEPT = (
    r"account (group incus(-admin)?|passwd incus)$",  # accounts and ranges: something else may have come to use them
    r"account sub[ug]id root$",
    r"file /root/\.config(/incus(/.*)?)?$",  # what the command `incus` keeps for a person
    r"file /(etc(/apt/apt\.conf\.d/50|/dpkg/dpkg\.cfg\.d/|/)|(run|var/lib|var/cache)/)leftovers(/.*)?$",  # our own
)


def unpacked(m: Machine, package: str, tmp: Path) -> Path:
    (archive,) = (base(m.recipe) / "var/cache/apt/archives").glob(f"{package}_*.deb")
    subprocess.run(["dpkg-deb", "-x", archive, tmp / package], check=True)
    return tmp / package


def pack(root: Path, name: str, depends: str, tmp: Path) -> Path:
    (root / "DEBIAN").mkdir(exist_ok=True)
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {VERSION}\nArchitecture: amd64\nMaintainer: Nobody <nobody@example.invalid>\n"
        f"{depends}Description: {name} in zabbly's layout, made of Debian's by a test\n"
    )
    made = tmp / f"{name}.deb"
    subprocess.run(
        ["dpkg-deb", "-Znone", "--root-owner-group", "-b", root, made], check=True, stdout=subprocess.DEVNULL
    )
    return made


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def build(m: Machine, tmp: Path) -> list[Path]:
    """incus-base and incus-client, in this directory."""
    debian, client, lxcfs = (unpacked(m, package, tmp) for package in ("incus-base", "incus-client", "lxcfs"))
    root = tmp / "base"
    opt = root / "opt/incus"
    for directory in ("bin", "lib/systemd", "share/lxcfs"):
        (opt / directory).mkdir(parents=True)
    for program in ("incusd", "incus-user"):
        (debian / "usr/libexec/incus" / program).rename(opt / "bin" / program)
    (lxcfs / "usr/bin/lxcfs").rename(opt / "bin/lxcfs")
    (library,) = lxcfs.glob("usr/lib/*/lxcfs/liblxcfs.so")
    library.rename(opt / "lib/liblxcfs.so")
    shutil.copytree(base(m.recipe) / "usr/share/lxc", opt / "share/lxc", symlinks=True)
    hook = (lxcfs / "usr/share/lxcfs/lxc.mount.hook").read_text().replace("/var/lib/lxcfs", "/var/lib/incus-lxcfs")
    write(opt / "share/lxcfs/lxc.mount.hook", hook, 0o755)
    write(
        opt / "share/lxc/config/common.conf.d/00-lxcfs.conf",
        "lxc.hook.mount = /opt/incus/share/lxcfs/lxc.mount.hook\n",
    )
    for name, text in SCRIPTS.items():
        write(opt / "lib/systemd" / name, ENVIRONMENT + text, 0o755)
    for name, text in UNITS.items():
        write(root / "usr/lib/systemd/system" / name, text)
    write(root / "usr/lib/sysusers.d/incus-base.conf", SYSUSERS)
    for name, text in CONFIGURATION.items():
        write(root / "etc" / name, text)
    write(root / "DEBIAN/conffiles", "".join(f"/etc/{name}\n" for name in CONFIGURATION))
    for name, text in MAINTAINER.items():
        write(root / "DEBIAN" / name, text, 0o755)
    (root / "var/log/incus").mkdir(parents=True)
    made = [pack(root, "incus-base", f"Depends: incus-client (= {VERSION})\n", tmp)]

    root = tmp / "client"
    (root / "opt/incus/bin").mkdir(parents=True)
    (root / "usr/bin").mkdir(parents=True)
    (client / "usr/bin/incus").rename(root / "opt/incus/bin/incus")
    (root / "usr/bin/incus").symlink_to("/opt/incus/bin/incus")
    return [*made, pack(root, "incus-client", "", tmp)]


def install(m: Machine, packages: list[Path]) -> None:
    # Not started in a container, and to systemd this host is one; on a real host it runs.
    m.write("/run/systemd/system/incus-lxcfs.service.d/lab.conf", "[Unit]\nConditionVirtualization=\n")
    for path in packages:
        m.put(path, f"/tmp/{path.name}")
    names = " ".join(f"/tmp/{path.name}" for path in packages)
    m.run(f"apt-get install -y -q {names}; rm {names}", timeout=180)


def use(m: Machine) -> None:
    incus.use(m)
    assert re.search(r"fuse\.lxcfs", m.run("cat /proc/self/mountinfo").out)


def purge(m: Machine) -> None:
    """zabbly's own: our hooks, if they are there, keep still."""
    m.run(["env", "LEFTOVERS_SUSPEND=1", "apt-get", "purge", "-y", "-q", *PACKAGES], timeout=300)
