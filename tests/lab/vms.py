"""What the lab's tests of virtual machines have in common: a real Incus that starts a real QEMU, virtiofsd and swtpm,
on a machine without KVM and without vhost.

Incus starts no virtual machine without /dev/kvm, without a context id from /dev/vhost-vsock, and without a vsock to
listen on, and it writes `accel = kvm` (6.0.4: Info and acquireVsockID in driver_qemu.go, endpoints/vsock.go, qemuBase
in driver_qemu_templates.go). vsock has no namespaces: what a host asks of it, the machine's own hypervisor would hear.
So
- the devices are files, and incusd's system calls about vsock are answered by a service of the lab, by seccomp's user
  notification (seccomp_unotify(2)): it gets a socket that nobody can reach;
- incusd finds a program named qemu-system-x86_64 before the real one. That changes what says KVM, takes the vsock
  device out of the configuration, and becomes the real one;
- the service also makes the /dev/tapN of a macvtap: a host of the lab has no devtmpfs, which would.
All else is Incus' own: what is started, by whom, with which arguments, files, sockets and links.
"""

from __future__ import annotations

from lab.machine import Machine

EMULATE = r"""
mkdir -p /usr/local/lib/lab
ln -s /bin/true /usr/local/lib/lab/modprobe
cat >/usr/local/lib/lab/qemu-system-x86_64 <<'P'
#!/usr/bin/python3 -I
import os, re, sys
argv = ["/usr/bin/qemu-system-x86_64", *sys.argv[1:]]
for number, argument in enumerate(argv):
    if argv[number - 1] == "-cpu":
        argv[number] = "max"
    if argv[number - 1] == "-accel":
        argv[number] = "tcg"
    if argv[number - 1] == "-readconfig":
        with open(argument) as file:
            text = file.read()
        text = re.sub(r'accel = "kvm"', 'accel = "tcg"', text)
        text = re.sub(r'\[device "qemu_vsock"\]\n([^\n]+\n)*', "", text)
        with open(argument, "w") as file:
            file.write(text)
os.execv(argv[0], argv)
P
cat >/usr/local/lib/lab/emulated <<'P'
#!/usr/bin/python3 -I
# Filter the system calls of what is executed then, and send the listener to the service that answers.
import ctypes, os, socket, struct, sys
ALLOW, NOTIFY, ANSWER_0 = 0x7FFF0000, 0x7FC00000, 0x00050000
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
def op(code, k, jt=0, jf=0):
    return struct.pack("HBBI", code, jt, jf, k)
def when(number, argument, value, action):
    # seccomp_data: the number at 0, the lower half of argument n at 16 + 8n
    return op(LOAD, 0) + op(EQUAL, number, 0, 3) + op(LOAD, 16 + 8 * argument) + op(EQUAL, value, 0, 1) + op(
        RETURN, action)
program = (
    when(16, 1, 0x4008AF60, ANSWER_0)  # ioctl VHOST_VSOCK_SET_GUEST_CID
    + when(160, 0, 8, ANSWER_0)        # setrlimit, prlimit64 RLIMIT_MEMLOCK: the machine may not allow it
    + when(302, 1, 8, ANSWER_0)
    + when(41, 0, 40, NOTIFY)          # socket AF_VSOCK
    + when(49, 2, 16, NOTIFY)          # bind, of an address as long as a sockaddr_vm
    + op(LOAD, 0) + op(EQUAL, 51, 0, 1) + op(RETURN, NOTIFY)  # getsockname
    + op(RETURN, ALLOW)
)
buffer = ctypes.create_string_buffer(program)
fprog = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
talk = socket.socket(socket.AF_UNIX)
talk.connect("/run/lab-vsock.sock")
listener = libc.syscall(317, 1, 8, fprog)  # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER
if listener < 0:
    raise OSError(ctypes.get_errno(), "seccomp")
socket.send_fds(talk, [b"x"], [listener])
os.close(listener)
talk.close()
os.environ["PATH"] = "/usr/local/lib/lab:" + os.environ["PATH"]
os.execv(sys.argv[1], sys.argv[1:])
P
cat >/usr/local/lib/lab/vsock <<'P'
#!/usr/bin/python3 -I
import fcntl, glob, os, re, socket, struct, threading, time
RECEIVE, SEND, ADDFD = 0xC0502100, 0xC0182101, 0x40182103
CONTINUE, SENDS = 1, 2
given = set()
def memory(pid, flags):
    return os.fdopen(os.open(f"/proc/{pid}/mem", flags), "r+b" if flags else "rb", buffering=0)
def answer(listener, request):
    number, pid = struct.unpack_from("QI", request)
    call, = struct.unpack_from("i", request, 16)
    fd, address, length = struct.unpack_from("QQQ", request, 32)
    if call == 41:
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        ours.bind("")  # an abstract name of the kernel's choice
        ours.listen()
        given.add(f"socket:[{os.fstat(ours.fileno()).st_ino}]")
        fcntl.ioctl(listener, ADDFD, struct.pack("QIIII", number, SENDS, ours.fileno(), 0, os.O_CLOEXEC))
        ours.close()
        return
    flags = 0 if os.readlink(f"/proc/{pid}/fd/{fd}") in given else CONTINUE
    if call == 51 and not flags:
        with memory(pid, os.O_RDWR) as file:
            os.pwrite(file.fileno(), struct.pack("HHIII", 40, 0, 4242, 2, 0), address)  # sockaddr_vm of port 4242
            os.pwrite(file.fileno(), struct.pack("I", 16), length)
    fcntl.ioctl(listener, SEND, struct.pack("QqiI", number, 0, 0, flags))
def serve(listener):
    while True:
        try:
            answer(listener, fcntl.ioctl(listener, RECEIVE, bytes(80)))
        except FileNotFoundError:
            pass  # the asker is gone; so is a listener without processes, but that nobody needs to know
def devtmpfs():
    while True:
        there = {path.split("/")[-2]: path for path in glob.glob("/sys/class/net/*/macvtap/tap*/dev")}
        for name in (name for name in os.listdir("/dev") if re.fullmatch("tap[0-9]+", name)):
            if there.pop(name, None) is None:
                os.unlink(f"/dev/{name}")
        for name, path in there.items():
            with open(path) as file:
                major, minor = file.read().split(":")
            os.mknod(f"/dev/{name}", 0o20600, os.makedev(int(major), int(minor)))
        time.sleep(0.1)
threading.Thread(target=devtmpfs, daemon=True).start()
door = socket.socket(socket.AF_UNIX)
door.bind("/run/lab-vsock.sock")
door.listen()
while True:
    talk, _ = door.accept()
    _, fds, _, _ = socket.recv_fds(talk, 1, 1)
    threading.Thread(target=serve, args=fds, daemon=True).start()
P
chmod 755 /usr/local/lib/lab/*
mkdir -p /etc/systemd/system/incus.service.d
cat >/etc/systemd/system/incus.service.d/emulate.conf <<'U'
[Service]
ExecStart=
ExecStart=/usr/local/lib/lab/emulated /usr/libexec/incus/startup
U
touch /dev/kvm /dev/vsock /dev/vhost-vsock
systemd-run -q --unit=lab-vsock /usr/local/lib/lab/vsock
for i in $(seq 100); do [ -S /run/lab-vsock.sock ] && break; sleep 0.05; done
"""


# Virtual machines of the administrator's own: with names, options and paths like those of Incus', in no directory of
# Incus', and one with its very arguments in a container of another product. They are stopped at the first instruction.
ADMIN = r"""
mkdir -p /srv/vm/tpm /run/vm
truncate -s 1M /var/lib/incus-backup/v1.img
printf '[memory]\n  size = "16M"\n' >/srv/vm/qemu.conf
ip tuntap add tap0a1b2c3d mode tap
ip link set tap0a1b2c3d master br-lan up
ip link add mac0a1b2c3d link br-lan type macvtap mode bridge
qemu="qemu-system-x86_64 -S -nodefaults -display none -machine q35,accel=tcg"
$qemu -name v1 -readconfig /srv/vm/qemu.conf -daemonize -pidfile /run/vm/qemu.pid \
    -drive file=/var/lib/incus-backup/v1.img,format=raw,if=virtio -qmp unix:/run/vm/qmp,server=on,wait=off \
    -netdev tap,id=n,ifname=tap0a1b2c3d,script=no,downscript=no -device virtio-net-pci,netdev=n
# as libvirt starts one
systemd-run -q --unit=machine-qemu-1-v1 $qemu -name guest=v1,debug-threads=on -m 16 -no-user-config \
    -chardev socket,id=charmonitor,path=/run/vm/monitor.sock,server=on,wait=off \
    -mon chardev=charmonitor,id=monitor,mode=control
systemd-run -q --unit=admin-virtiofsd /usr/lib/qemu/virtiofsd --socket-path=/run/vm/fs.sock --shared-dir=/srv/data
systemd-run -q --unit=admin-swtpm \
    swtpm socket --tpm2 --tpmstate dir=/srv/vm/tpm --ctrl type=unixio,path=/run/vm/tpm.sock
systemd-run -q --unit=other-container unshare --mount --pid --fork --kill-child sh -c "
    mount -t tmpfs other /run
    mkdir -p /run/incus/v1
    cp /srv/vm/qemu.conf /run/incus/v1
    exec $qemu -name v1 -readconfig /run/incus/v1/qemu.conf -pidfile /run/incus/v1/qemu.pid"
for i in $(seq 100); do
    [ -S /run/vm/monitor.sock ] && [ -S /run/vm/fs.sock ] && [ -S /run/vm/tpm.sock ] &&
        [ "$(pgrep -c qemu-system)" = 3 ] && break
    sleep 0.05
done
sleep 0.2
"""

# A guest of one sector. It arms the power button, says that it is up by writing itself to the third sector of its disk
# (int 0x13), and waits for the button: bit 8 (PWRBTN) of PM1_EN and of PM1_STS. Then it writes itself to the second
# sector, as if that were what it had not saved yet, and turns the machine off: SLP_EN in PM1_CNT (ACPI 6.5, 4.8.3.1; at
# 0x602, 0x600 and 0x604, where SeaBIOS puts them on a q35).
POLITE = "".join(
    rf"\x{byte:02x}"
    for byte in bytes.fromhex(
        "fb ba0206 b80001 ef"  # sti; mov dx, 0x602; mov ax, 0x100; out dx, ax
        "31c0 8ec0 bb007c b80103 b90300 ba8000 cd13"  # es:bx = 0:0x7c00; write 1 sector to 0/0/3 of disk 0x80
        "ba0006 f4 ed a90001 74f9"  # mov dx, 0x600; again: hlt; in ax, dx; test ax, 0x100; jz again
        "b80103 b90200 ba8000 cd13"  # write 1 sector to 0/0/2 of disk 0x80
        "ba0406 b80020 ef f4"  # mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt
    )
)

USE = rf"""
set -x
incus admin init --minimal
incus -q network create net2 ipv4.address=10.99.0.1/24 ipv6.address=none
incus -q storage create pool2 dir source=/srv/pool
incus -q project create proj -c features.images=false -c features.profiles=false
machine() {{
    incus -q init --empty --vm "$@" -c security.csm=true -c security.secureboot=false -c limits.memory=64MiB \
        -d root,size=1MiB
}}
polite() {{
    printf '{POLITE}' | dd of="$1" conv=notrunc status=none
    printf '\x55\xaa' | dd of="$1" conv=notrunc status=none bs=1 seek=510
}}
# v1: on the second pool, with the administrator's directory, a TPM, and his bridge twice; it hears the power button
machine v1 --storage pool2
polite /srv/pool/virtual-machines/v1/root.img
incus -q config device add v1 data disk source=/srv/data path=/mnt/data
incus -q config device add v1 tpm tpm
incus -q config device add v1 eth1 nic nictype=bridged parent=br-lan
incus -q config device add v1 eth2 nic nictype=macvlan parent=br-lan
incus -q start v1
# v2: on the second network, with volumes of the second pool and the same directory with the mount below it (Incus 6.0.4
# could not unmount that when it stops: it tries for 10 s, and leaves it); it has no system, and hears nothing
machine v2 --network net2
incus -q storage volume create pool2 vol
incus -q storage volume create pool2 block --type=block size=1MiB
incus -q storage volume attach pool2 vol v2 /mnt/vol
incus -q storage volume attach pool2 block v2
incus -q config device add v2 data disk source=/srv/data path=/mnt/data recursive=true
incus -q start v2
# v3: in a project, with a TPM of its own
machine v3 --project proj
incus -q config device add v3 tpm tpm --project proj
incus -q start v3 --project proj
# one that is stopped, and the pid file of one that crashed: its number is another's now
machine v0
mkdir -p /run/incus/v0
systemctl show -P MainPID machine-qemu-1-v1 >/run/incus/v0/qemu.pid
mkdir -p /var/lib/incus/devices/v0
printf 'name: swtpm\nargs: [socket]\napparmor: ""\npid: %s\n' "$(systemctl show -P MainPID admin-swtpm)" \
    >/var/lib/incus/devices/v0/tpm.pid
"""

RUNNING = ("v1", "v2", "proj_v3")


def emulate(m: Machine) -> None:
    """What the machine cannot do; before the first snapshot, for it stays."""
    m.run(EMULATE)


def admin_things(m: Machine) -> None:
    m.run(ADMIN)


def use(m: Machine) -> None:
    m.run(USE, timeout=180)
