"""rke2: what is its own among the products of containerd (containers/rancher.py). It has the socket and the --state of
k3s', and takes the host's /etc/cni/net.d and /opt/cni/bin."""

from __future__ import annotations

from leftovers.products.containers.rancher import describe

PRODUCT = describe(
    "rke2",
    "RKE2",
    programs=("/usr/local/bin/rke2", "/opt/rke2/bin/rke2"),
    units=("rke2-server.service", "rke2-agent.service"),
    directories=("/usr/local/lib/systemd/system", "/etc/systemd/system"),
)
