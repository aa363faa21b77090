"""k3s: what is its own among the products of containerd (containers/rancher.py). local-path's volumes and the cluster's
own data stay until they are asked for."""

from __future__ import annotations

from leftovers.products.containers.rancher import describe

PRODUCT = describe(
    "k3s",
    "k3s",
    programs=("/usr/local/bin/k3s", "/opt/bin/k3s"),
    units=("k3s.service", "k3s-agent.service"),
    directories=("/etc/systemd/system",),
)
