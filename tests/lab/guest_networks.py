"""What network plugins leave of the kinds that only a kernel of its own has (lab/guest.py): IPVS, dummies, IPIP,
geneve, WireGuard, kinds of sets, programs at the root cgroup; and beside each what a careless cleaner takes for it."""

from __future__ import annotations

from lab.machine import TOOLS, Recipe

NETWORKS = Recipe(
    "guest-networks-trixie",
    "trixie",
    (
        *(tool for tool in TOOLS if not tool.startswith(("lib", "runit", "squashfs", "busybox"))),
        *("linux-image-cloud-amd64", "initramfs-tools", "kmod", "apparmor"),
        *("ipset", "ipvsadm", "keepalived", "bpftool"),
    ),
    (),
)
