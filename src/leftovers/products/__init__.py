"""Products: one file each, each a description. This is the closed list; a product's file is loaded when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from leftovers.products.product import Directory, Product, Reader

__all__ = ["NAMES", "Directory", "Product", "Reader", "known", "load", "with_companions"]

NAMES = (
    *("incus", "lxd", "lxd-snap", "microk8s", "docker-snap", "k8s"),
    *("docker", "nerdctl", "podman", "kubernetes", "k3s", "rke2", "crio", "containerd"),
    *("incus-lxcfs", "lxcfs"),
)


def load(name: str) -> Product:
    """The description of a product; of "podman@USER" that of a user's own Podman. Raises KeyError for a name that is
    not in NAMES, and for a user who is none."""
    base, at, user = name.partition("@")
    if at and base == "podman":
        return importlib.import_module("leftovers.products.libpod.users").product(user)  # type: ignore[no-any-return]
    if name not in NAMES:
        raise KeyError(name)
    product: Product = importlib.import_module(f"leftovers.products.{name.replace('-', '_')}").PRODUCT
    return product


def known(name: str) -> bool:
    """Whether there is a product of that name, now: a user may have gone."""
    try:
        load(name)
    except KeyError:
        return False
    return True


def with_companions(names: Sequence[str]) -> list[Product]:
    """The products asked for, each once, and after them those that only live for them. Before a product come those
    that have containers of theirs in its daemon: they are asked what of it is theirs, and nothing of them goes."""
    present = list(dict.fromkeys(names))
    for name in present:
        present += [other for other in load(name).companions if other not in present]
    for name in list(present):
        present += [tenant for tenant in load(name).tenants if tenant not in present]
    products = [load(name) for name in present]
    lived_for = {companion for product in products for companion in product.companions}
    return sorted(products, key=lambda product: (product.name in lived_for, place(product.name)))


def place(name: str) -> int:
    """Where a product stands in the list."""
    return NAMES.index(name.partition("@")[0])
