# shellcheck shell=bash
# Run once, when a base with snapd is built: no store, and the two snaps that all others need, made by hand.
#
# What they need to be is in snapd's source: cmd/snap-confine/mount-support.c (the directories that are mounted over),
# overlord/snapstate/check_snap.go (a snap without `base:` has the base core), snapdtool/info_file.go (the file info).
set -e
# Nobody listens there. What takes half a minute is the list of the store's snaps: snapd asks for it when it starts, and
# does nothing else until it gave up; not if the list that it has is new (snapstate/catalogrefresh.go).
mkdir -p /etc/systemd/system/snapd.service.d
cat >/etc/systemd/system/snapd.service.d/lab.conf <<'D'
[Service]
ExecStartPre=/bin/sh -c 'mkdir -p /var/cache/snapd && touch /var/cache/snapd/names'
Environment=SNAPPY_FORCE_API_URL=http://127.0.0.1:9/ SNAPPY_FORCE_SAS_URL=http://127.0.0.1:9/
Environment=SNAP_REEXEC=0
D
# snap-confine of 2.77 refuses to run where CAP_SYS_RESOURCE is not to be had, as on a machine that is itself a guest of
# few rights. A classic snap is in the host's namespaces anyway, and no test looks at its confinement.
if [ ! -u /usr/lib/snapd/snap-confine ] && ! (($((0x$(sed -n 's/^CapBnd:\t//p' /proc/self/status))) >> 24 & 1)); then
    rm /usr/lib/snapd/snap-confine
    cat >/usr/lib/snapd/snap-confine <<'C'
#!/bin/bash
while [[ $1 == --* ]]; do
    case $1 in
        --classic) shift ;;
        --base) shift 2 ;;
        *) echo "the lab's snap-confine cannot do $*" >&2; exit 1 ;;
    esac
done
shift
exec "$@"
C
    chmod 755 /usr/lib/snapd/snap-confine
fi
systemctl daemon-reload
systemctl restart snapd.service
snap wait system seed.loaded

# The administrator's containerd makes its configuration's directory, and MicroK8s its link only where none is.
sed -i 's,"/etc/cni/net.d","/srv/cni/net.d",' /etc/containerd/config.toml
systemctl restart containerd.service
rm -r /etc/cni

cd /var/tmp
mkdir -p core/{bin,dev,etc/alternatives,etc/ssl,home,lib/modules,lib/firmware,lib64,media,meta,mnt,proc,root,run,sbin} \
    core/{snap,srv,sys,tmp,opt,usr/bin,usr/lib/snapd,usr/sbin,usr/share,usr/src,var/cache,var/lib/extrausers} \
    core/{var/lib/snapd/hostfs,var/log,var/snap,var/tmp}
ln -s ../run core/var/run
for name in $(busybox --list); do ln -s busybox "core/bin/$name"; done
rm -f core/bin/busybox
cp /bin/busybox core/bin/busybox
# A strict or devmode snap sees this tree and not the host's: the programs of the stand-ins, and their libraries.
for program in bash nsenter unshare mount umount; do
    rm -f "core/bin/$program"
    cp "$(command -v "$program")" "core/bin/$program"
done
for program in core/bin/{bash,nsenter,mount} /usr/bin/{containerd,containerd-shim-runc-v2,ctr} /usr/sbin/runc; do
    for library in $(ldd "$program" | grep -o '/[^ ]*' || :); do
        mkdir -p "core$(dirname "$library")"
        cp -n "$library" "core$library"
    done
done
cp /usr/lib/snapd/snap-exec core/usr/lib/snapd/
# Older than the host's: snapd does not execute itself out of the snap.
echo VERSION=2.50 >core/usr/lib/snapd/info
cat >core/meta/snap.yaml <<'Y'
name: core
version: "16"
type: os
summary: made by hand
description: a busybox
architectures: [all]
Y
mkdir -p snapd/meta snapd/usr/lib/snapd
cp core/usr/lib/snapd/info snapd/usr/lib/snapd/
sed 's/^name: .*/name: snapd/; s/^type: .*/type: snapd/' core/meta/snap.yaml >snapd/meta/snap.yaml
for name in core snapd; do
    mksquashfs $name $name.snap -quiet -no-progress -noappend -comp gzip -no-fragments -all-root
    snap install --dangerous ./$name.snap
    snap wait system seed.loaded
done
rm -r core snapd core.snap snapd.snap
snap list
# Its state is on disk when it has ended.
systemctl stop snapd.socket snapd.service
journalctl --rotate -q && journalctl --vacuum-time=1s -q
