"""The lxd snap on a throwaway host: real LXD in a snap made by hand.

Its tree is what Debian's packages of LXD, its client and lxcfs unpack to, under the names that they have in the snap;
none of these packages is installed, only their libraries. What the snap's daemon does around LXD is done in its order
(canonical/lxd-pkg-snap snapcraft/commands/{daemon.start,daemon.stop}, snapcraft/hooks/remove): it leaves its unit's
cgroup, binds its directories on themselves, mounts shmounts, and starts lxcfs and LXD. Built as a classic snap,
all that it mounts is to be seen in the host's mount namespace; as a devmode one only in its own, as with the real snap.
"""

from __future__ import annotations

from lab import lxd, snap
from lab.machine import Machine

COMMON = "/var/snap/lxd/common"
DIRECTORY = f"{COMMON}/lxd"
SERVICE = "snap.lxd.daemon.service"
META = """version: "5.0.2"
confinement: {confinement}
plugs:
  network-bind:
apps:
  daemon:
    command: commands/daemon.start
    stop-command: commands/daemon.stop
    stop-timeout: 600s
    restart-condition: on-failure
    daemon: simple
    plugs: [network-bind]
    sockets:
      unix:
        listen-stream: $SNAP_COMMON/lxd/unix.socket
        socket-mode: 0660
  lxc:
    command: commands/lxc
  lxd:
    command: commands/lxd
"""
ENVIRONMENT = """#!/bin/bash
set -eu
here=/snap/lxd/current
export LXD_DIR="$SNAP_COMMON/lxd/" PATH="$here/bin:$PATH" LD_LIBRARY_PATH="$here/lib"
export LXD_LXC_TEMPLATE_CONFIG=$here/lxc/config/ LXD_LXC_HOOK=$here/lxc/hooks/ LXD_EXEC_PATH=$here/bin/lxd
"""
# A strict snap sees the core snap, which has nothing that LXD needs: the host's programs are put in its place.
ENVIRONMENT += r"""
host=/var/lib/snapd/hostfs
if [ -e $host/usr/bin/dpkg ] && [ ! -e /usr/bin/dpkg ]; then
    mount --bind $host/usr /usr
    for name in bin sbin lib lib64; do mount --bind $host/usr/$name /$name; done
fi
"""
START = (
    ENVIRONMENT
    + r"""
: >"$SNAP_COMMON/state"
echo $$ >/sys/fs/cgroup/cgroup.procs
mkdir -p "$SNAP_COMMON/lxd/logs" "$SNAP_COMMON/var/lib" "$SNAP_COMMON/shmounts" "$SNAP_COMMON/ns"
chmod 0711 "$SNAP_COMMON/lxd"
for name in storage-pools devices; do
    mkdir -p "$SNAP_COMMON/lxd/$name"
    if ! grep -qF " $SNAP_COMMON/lxd/$name " /proc/self/mountinfo; then
        mount --bind "$SNAP_COMMON/lxd/$name" "$SNAP_COMMON/lxd/$name"
        # In the strict snap's own namespace these are nobody's peers; here they would be those of the root's mount.
        mount --make-private "$SNAP_COMMON/lxd/$name"
        mount --make-rshared "$SNAP_COMMON/lxd/$name"
    fi
done
if ! grep -qF " $SNAP_COMMON/shmounts " /proc/self/mountinfo; then
    mount -t tmpfs -o size=1M,mode=0711 tmpfs "$SNAP_COMMON/ns"
    mount -t tmpfs -o size=1M,mode=0711 tmpfs "$SNAP_COMMON/shmounts"
    mkdir -p "$SNAP_COMMON/shmounts/instances" "$SNAP_COMMON/shmounts/lxcfs"
    rm -rf "$SNAP_COMMON/lxd/shmounts" "$SNAP_COMMON/var/lib/lxcfs"
    ln -s "$SNAP_COMMON/shmounts/instances" "$SNAP_COMMON/lxd/shmounts"
    ln -s "$SNAP_COMMON/shmounts/lxcfs" "$SNAP_COMMON/var/lib/lxcfs"
fi
if ! { [ -e "$SNAP_COMMON/lxcfs.pid" ] && kill -0 "$(cat "$SNAP_COMMON/lxcfs.pid")"; }; then
    rm -f "$SNAP_COMMON/lxcfs.pid"
    # The strict snap has a /run of its own.
    mkdir -p "$SNAP_COMMON/run"
    lxcfs --runtime-dir="$SNAP_COMMON/run" "$SNAP_COMMON/var/lib/lxcfs" -p "$SNAP_COMMON/lxcfs.pid" &
fi
(
    read -r LISTEN_PID _ </proc/self/stat
    export LISTEN_PID
    [ -e $host/usr/bin/dpkg ] || unset SNAP_NAME # else it looks for the host there, as it is for a strict snap
    exec lxd --logfile "$SNAP_COMMON/lxd/logs/lxd.log" --group root
) &
pid=$!
echo $pid >"$SNAP_COMMON/lxd.pid"
lxd waitready
if wait $pid; then echo shutdown; else echo crashed; fi >"$SNAP_COMMON/state"
"""
)
STOP = (
    ENVIRONMENT
    + r"""
[ ! -s "$SNAP_COMMON/state" ] || exit 0
gone() { for i in $(seq 600); do kill -0 "$1" 2>/dev/null || return 0; sleep 0.1; done; kill -9 "$1"; }
kind=$(python3 -I - <<'P'
import http.client, json, socket
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect("/run/snapd.socket")
connection.request("GET", "/v2/changes?select=in-progress&for=lxd")
changes = json.loads(connection.getresponse().read())["result"]
print(changes[0]["kind"] if changes else "")
P
)
read -r pid <"$SNAP_COMMON/lxd.pid"
case $kind in
*refresh* | install-snap)
    kill "$pid"
    gone "$pid"
    exit 0
    ;;
esac
echo host-shutdown >"$SNAP_COMMON/state"
kill -PWR "$pid"
gone "$pid"
read -r pid <"$SNAP_COMMON/lxcfs.pid"
kill "$pid"
gone "$pid"
fusermount3 -u "$SNAP_COMMON/shmounts/lxcfs" || :
rm -f "$SNAP_COMMON/lxcfs.pid" "$SNAP_COMMON/lxd.pid"
umount -l "$SNAP_COMMON/ns" || :
"""
)
REMOVE = r"""#!/bin/sh
for path in "$SNAP_COMMON/ns/shmounts" "$SNAP_COMMON/ns/mntns" "$SNAP_COMMON/ns" "$SNAP_COMMON/var/lib/lxcfs/" \
    "$SNAP_COMMON/shmounts"; do
    umount -l "$path" >/dev/null 2>&1 || true
done
# In the strict snap these are in its own namespace alone. Not lazily: what is mounted in them is the host's, too.
umount "$SNAP_COMMON/lxd/storage-pools" "$SNAP_COMMON/lxd/devices" >/dev/null 2>&1 || true
exit 0
"""
COMMAND = ENVIRONMENT + 'exec "$here/bin/NAME" "$@"\n'
TREE = r"""
mkdir /var/tmp/debs
for name in lxd lxd-client lxcfs; do dpkg -x /var/cache/apt/archives/"$name"_*.deb /var/tmp/debs; done
mkdir -p bin lib lxc/config lxc/hooks
for name in lxd lxc lxcfs; do
    path=$(find /var/tmp/debs -type f -name "$name" -perm /111 | head -n1)
    cp "$path" bin/
done
cp /usr/sbin/dnsmasq bin/
find /var/tmp/debs -name 'liblxcfs.so' -exec cp {} lib/ ';'
cp -rL /usr/share/lxc/config/. lxc/config/
cp -rL /usr/share/lxc/hooks/. lxc/hooks/
for name in 00-lxcfs.conf lxc.mount.hook lxc.reboot.hook; do
    sed 's,/usr/share/lxcfs,/snap/lxd/current/lxc/hooks,; s,/var/lib/lxcfs,/var/snap/lxd/common/var/lib/lxcfs,' \
        "$(find /var/tmp/debs -name $name)" >lxc/hooks/$name
    chmod 755 lxc/hooks/$name
done
mv lxc/hooks/00-lxcfs.conf lxc/config/common.conf.d/
rm -r /var/tmp/debs
"""


def build(m: Machine, confinement: str = "classic") -> str:
    files = {
        "commands/daemon.start": START,
        "commands/daemon.stop": STOP,
        "commands/lxc": COMMAND.replace("NAME", "lxc"),
        "commands/lxd": COMMAND.replace("NAME", "lxd"),
        "meta/hooks/remove": REMOVE,
    }
    return snap.build(m, "lxd", META.format(confinement=confinement), files, TREE)


def install(m: Machine, confinement: str = "classic") -> None:
    snap.install(m, build(m, confinement), f"--{confinement}")
    # By systemd: snap-confine makes the snap's mount namespace, and cannot from the shell of a test.
    m.run(["systemctl", "start", SERVICE])
    m.run("for i in $(seq 600); do /snap/bin/lxd waitready --timeout 1 && exit; sleep 0.1; done; exit 1")
    m.run("snap alias lxd.lxc lxc")


def of_the_snap(script: str) -> str:
    """A script of lab/lxd.py with the snap's paths and commands."""
    script = script.replace("/var/lib/lxd-backup", "/var/snap/lxd-backup").replace("/var/lib/lxd/", f"{DIRECTORY}/")
    return f"PATH=/snap/bin:$PATH\n{script}"


def admin_things(m: Machine) -> None:
    # The host's newuidmap(1) asks; the snap, with another root, has none.
    m.run("for id in uid gid; do echo root:1000000:1000000000 >>/etc/sub$id; done")
    m.run(of_the_snap(lxd.ADMIN))


def use(m: Machine) -> None:
    m.run(of_the_snap(lxd.USE), timeout=240)


def crash(m: Machine) -> None:
    """Kill lxd. From then on the snap's stop command does nothing: by its own note it has crashed."""
    m.write(f"/run/systemd/system/{SERVICE}.d/lab.conf", "[Service]\nRestart=no\n")
    m.run(
        f"""
        systemctl daemon-reload
        kill -9 "$(cat {COMMON}/lxd.pid)"
        for i in $(seq 100); do systemctl -q is-active {SERVICE} || break; sleep 0.1; done
        grep -q crashed {COMMON}/state
        rm -r /run/systemd/system/{SERVICE}.d
        systemctl daemon-reload
        """
    )


def start_two(m: Machine, net: str) -> None:
    """Two containers on a bridge of its own, which answer on port 80."""
    m.run(f"PATH=/snap/bin:$PATH\nlxd init --auto\n{lxd.IMAGE}", timeout=240)
    m.run(f"/snap/bin/lxc -q network create snapbr0 ipv4.address={net}.1/24 ipv6.address=none")
    for number in (1, 2):
        m.run(f"/snap/bin/lxc -q launch bb c{number} --network snapbr0")
