"""Podman, of Debian (5.4.2; the file's place is the same since 3.0): what is its own."""

from __future__ import annotations

from leftovers.products.libpod import PODMAN_PRODUCT

PRODUCT = PODMAN_PRODUCT
