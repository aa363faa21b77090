"""docker.io gives way to a package that owns docker-ce's paths, and comes back: we do nothing.

With live-restore all containers run on under the same pids. Without it Debian's prerm stops the daemon, which stops
them; all else is there as it was, and they start again.
"""

from __future__ import annotations

import pytest

from lab import orphans
from lab.docker import ON_SID, ON_TRIXIE
from lab.machine import Machine
from lab.scenario import Arrive, leftovers
from lab.test_triggers import lines, say

BUILD = "/var/cache/apt/lab"
# Of Docker's own packages: the paths, the relations, the units and what dh_installsystemd makes of them
# (docker-ce-packaging, deb/common/control, docker-ce.{docker.service,docker.socket,postinst}). Its programs: Debian's.
PACKAGES = r"""
mkdir -p {build}/ce/DEBIAN {build}/ce/usr/bin {build}/ce/usr/lib/systemd/system
cd {build}
cp /usr/sbin/dockerd ce/usr/bin/dockerd
cp /usr/sbin/docker-proxy ce/usr/bin/docker-proxy
cat >ce/DEBIAN/control <<'C'
Package: docker-ce
Version: 5:29.0.0-1~lab
Architecture: all
Maintainer: Nobody <n@example.invalid>
Depends: {containerd}
Breaks: docker.io
Conflicts: docker, docker.io
Replaces: docker.io
Description: dummy
C
cat >ce/usr/lib/systemd/system/docker.service <<'C'
[Unit]
After=network-online.target containerd.service
Wants=containerd.service
Requires=docker.socket
[Service]
Type=notify
ExecStart=/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock
Restart=always
RestartSec=2
Delegate=yes
KillMode=process
[Install]
WantedBy=multi-user.target
C
cat >ce/usr/lib/systemd/system/docker.socket <<'C'
[Socket]
ListenStream=/run/docker.sock
SocketMode=0660
SocketUser=root
SocketGroup=docker
[Install]
WantedBy=sockets.target
C
cat >ce/DEBIAN/postinst <<'C'
#!/bin/sh
set -e
getent group docker >/dev/null || groupadd --system docker
systemctl daemon-reload
systemctl enable -q docker.socket docker.service
systemctl start docker.socket docker.service
C
cat >ce/DEBIAN/prerm <<'C'
#!/bin/sh
set -e
[ "$1" != remove ] || systemctl stop docker.socket docker.service
C
cat >ce/DEBIAN/postrm <<'C'
#!/bin/sh
set -e
systemctl daemon-reload || :
C
chmod 755 ce/DEBIAN/p*
dpkg-deb --root-owner-group -Znone -b ce docker-ce.deb
"""
CONTAINERD_IO = r"""
mkdir -p {build}/io/DEBIAN {build}/io/usr/bin {build}/io/usr/lib/systemd/system
cd {build}
cp /usr/bin/containerd /usr/bin/containerd-shim-runc-v2 /usr/bin/ctr io/usr/bin/
cp "$(command -v runc)" io/usr/bin/runc
cp /usr/lib/systemd/system/containerd.service io/usr/lib/systemd/system/
cat >io/DEBIAN/control <<'C'
Package: containerd.io
Version: 2.9.9-1~lab
Architecture: all
Maintainer: Nobody <n@example.invalid>
Provides: containerd, runc
Conflicts: containerd, runc
Replaces: containerd, runc
Description: dummy
C
cat >io/DEBIAN/postinst <<'C'
#!/bin/sh
set -e
systemctl daemon-reload
systemctl enable -q containerd.service
systemctl restart containerd.service
C
cat >io/DEBIAN/prerm <<'C'
#!/bin/sh
set -e
[ "$1" != remove ] || systemctl stop containerd.service
C
chmod 755 io/DEBIAN/p*
dpkg-deb --root-owner-group -Znone -b io containerd.io.deb
"""
USE = r"""
docker network create one >/dev/null
docker volume create data >/dev/null
web="bb httpd -f -p 80 -h /www"
docker run -d --stop-timeout 1 --name b1 -p 8001:80 -v data:/data $web >/dev/null
docker run -d --stop-timeout 1 --name o1 --network one -p 8002:80 $web >/dev/null
docker run -d --stop-timeout 1 --name h1 --network host bb sleep 10001 >/dev/null
docker run -d --stop-timeout 1 --name n1 --network none bb sleep 10001 >/dev/null
docker create --name c1 $web >/dev/null
echo precious >/var/lib/docker/volumes/data/_data/file
"""
# Neither containers, nor what they are made of and what they write: what nobody's scripts may take.
THERE = r"""
docker ps -aq --no-trunc | sort
docker images -q --no-trunc | sort
docker network ls -q --no-trunc | xargs docker network inspect -f '{{.Name}} {{.Driver}} {{.IPAM.Config}}' | sort
docker volume ls -q
cat /var/lib/docker/volumes/data/_data/file
ip -br link | awk '/^(docker0|br-)/ {print $1}'
"""
PORTS = (8001, 8002)


def live(m: Machine, restore: bool) -> None:
    m.write("/etc/docker/daemon.json", f'{{"live-restore": {str(restore).lower()}}}\n')
    m.run(
        ["apt-get", "install", "-y", "-q", "--no-download", "--no-install-recommends", *orphans.PACKAGES], timeout=300
    )
    m.run(orphans.UP + orphans.IMAGE + USE, timeout=180)


def there(m: Machine) -> str:
    return m.run(THERE).out


def replaced(m: Machine, command: str) -> None:
    """A package manager's command that we have nothing to do and nothing to say at."""
    said = say(m, f"exec 2>&1; {command}", timeout=600)
    assert lines(said, "leftovers: ") == [], said
    m.run("for i in $(seq 100); do docker version >/dev/null 2>&1 && exit; sleep 0.1; done; exit 1")
    m.run("ls -A /run/leftovers 2>/dev/null | grep -v lock || :")


def ways(m: Machine, containerd: str) -> tuple[str, str]:
    """To docker-ce and back."""
    m.run(PACKAGES.replace("{build}", BUILD).replace("{containerd}", containerd))
    files = f"{BUILD}/docker-ce.deb"
    back = "docker.io"
    if containerd == "containerd.io":
        m.run(CONTAINERD_IO.replace("{build}", BUILD))
        files += f" {BUILD}/containerd.io.deb"
        back += " containerd runc"
    options = "-y -q --no-install-recommends"
    return f"apt-get install {options} {files}", f"apt-get install {options} --no-download {back}"


@pytest.mark.full
@pytest.mark.parametrize("containerd", ["containerd", "containerd.io"])
@pytest.mark.parametrize("machine", [ON_TRIXIE, ON_SID], indirect=True, ids=["trixie", "sid"])
def test_with_live_restore_all_run_on(machine: Machine, arrive: Arrive, containerd: str) -> None:
    m = machine
    arrive(m)
    live(m, True)
    before, made, rest = orphans.state(m), set(orphans.look(m)), there(m)
    for command, program in zip(ways(m, containerd), ("/usr/bin/dockerd", "/usr/sbin/dockerd"), strict=True):
        replaced(m, command)
        assert m.run("readlink /proc/$(cat /run/docker.pid)/exe").out.strip() == program
        assert orphans.state(m) == before, command
        assert set(orphans.look(m)) == made and there(m) == rest
        orphans.answer(m, PORTS)
        leftovers(m, "verify")
    m.run("docker stop -t 1 b1 o1 h1 n1 && docker start b1 o1 h1 n1", timeout=180)
    orphans.answer(m, PORTS)


@pytest.mark.full
@pytest.mark.parametrize("machine", [ON_TRIXIE, ON_SID], indirect=True, ids=["trixie", "sid"])
def test_without_it_only_docker_s_own_scripts_stop_them(machine: Machine, arrive: Arrive) -> None:
    m = machine
    arrive(m)
    live(m, False)
    rest = there(m)
    for command in ways(m, "containerd"):
        replaced(m, command)
        assert there(m) == rest, command
        assert m.run("docker ps -q").out == "", "nobody has started them again: they have no restart policy"
        m.run("docker start b1 o1 h1 n1", timeout=180)
        orphans.answer(m, PORTS)
        leftovers(m, "verify")
