"""Whether docker.io's own purge deletes /var/lib/docker: its postrm says so itself, as it stands on this host.

Up to trixie's it does so without a question (contrib/nuke-graph-directory.sh), from sid's 28.5 on where
docker.io/purge-data was answered with yes: its prerm then leaves a file there, and until that has run debconf knows.
docker-ce's postrm deletes nothing.
"""

from __future__ import annotations

from leftovers.errors import Unreadable
from leftovers.evidence import files
from leftovers.host import Host

__all__ = ["STORE", "deletes"]

STORE = "/var/lib/docker"
SCRIPTS = "/var/lib/dpkg/info"
SENTINEL = ".purge_sentinel"
LIMIT = 64 * files.MIB


def deletes(host: Host) -> tuple[str, ...]:
    """The directories that the purge of docker.io is about to delete: () for none, and where that cannot be read."""
    script = text_of(host, SCRIPTS, "docker.io.postrm")
    if "nuke-graph-directory.sh" not in script:
        return ()
    if SENTINEL in script and not (host.exists(f"{STORE}/{SENTINEL}") or asked_for(host)):
        return ()
    return (STORE,)


def asked_for(host: Host) -> bool:
    """Whether debconf has yes for the question (debconf-devel(7); the database's own format is deb822-like)."""
    for paragraph in text_of(host, "/var/cache/debconf", "config.dat").split("\n\n"):
        lines = paragraph.split("\n")
        if "Name: docker.io/purge-data" in lines:
            return "Value: true" in lines
    return False


def text_of(host: Host, base: str, name: str) -> str:
    try:
        return (files.read(host, base, name, LIMIT) or b"").decode(errors="replace")
    except Unreadable:
        return ""
