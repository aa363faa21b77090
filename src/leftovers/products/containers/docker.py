"""What dockerd has besides its containers: bridges and other links of networks, rules, proxies, volumes."""

from __future__ import annotations

__all__ = ["mounts"]


def mounts(store: str) -> tuple[tuple[str, str, str], ...]:
    """Where it mounts in its --data-root: daemon/daemon_linux.go, getCleanPatterns; graph drivers;
    volume/local/local_unix.go; daemon/snapshotter/mount.go."""
    return (
        (
            store,
            r"(overlay2|fuse-overlayfs|btrfs/subvolumes|zfs/graph|rootfs/[a-z0-9-]+)/[0-9a-z-]+(/.*)?\Z",
            "a container's file system",
        ),
        (store, r"containers/[0-9a-f]{64}/mounts/.+", "a container's shared memory, or a secret of it"),
        (store, r"(plugins/[0-9a-f]{64}|buildkit/executor/[^/]+|tmp/[^/]+)(/.*)?\Z", "a mount of dockerd's"),
        (store, r"volumes/[^/]+/_data\Z", "a volume"),
    )
