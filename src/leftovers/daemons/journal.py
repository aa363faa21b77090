"""systemd's journal, told directly: what a hook prints, snapd drops, and where it runs there may be no logger(1)."""

from __future__ import annotations

import socket

from leftovers.host import Host

__all__ = ["tell"]

# systemd.io/JOURNAL_NATIVE_PROTOCOL. A confined snap may write to it, too (snapd, interfaces/apparmor/template.go).
SOCKET = "/run/systemd/journal/socket"
NOTICE = 5


def tell(host: Host, text: str) -> bool:
    """One line of ours, without control characters. Returns whether somebody took it."""
    line = f"MESSAGE={text}\nPRIORITY={NOTICE}\nSYSLOG_IDENTIFIER=leftovers\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as journal:
            journal.settimeout(2.0)
            journal.sendto(line.encode("utf-8", "backslashreplace"), host.path(SOCKET))
    except OSError:
        return False
    return True
