"""How a dockerd is to run: /etc/docker/daemon.json and its arguments (moby daemon/command/config_unix.go, options.go;
daemon/config/config.go: the same setting in both is an error, so that neither comes first)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from leftovers.evidence import docker_store, files, json_text
from leftovers.evidence.json_text import strings, text
from leftovers.host import Host

__all__ = ["DAEMON_JSON", "Settings", "read"]

DAEMON_JSON = "/etc/docker/daemon.json"
LIMIT = files.MIB
# What an argument is called, short or once was, to what it is called in the file.
NAMES = {
    "--data-root": "data-root",
    "--graph": "data-root",
    "-g": "data-root",
    "--exec-root": "exec-root",
    "--live-restore": "live-restore",
    "--bridge": "bridge",
    "-b": "bridge",
    "--iptables": "iptables",
    "--ip6tables": "ip6tables",
    "--firewall-backend": "firewall-backend",
    "--userns-remap": "userns-remap",
    "--host": "hosts",
    "-H": "hosts",
    "--config-file": "config-file",
}
SWITCHES = ("live-restore", "iptables", "ip6tables")


@dataclass(frozen=True, slots=True)
class Settings:
    """
    root          --data-root
    exec_root     where its sockets, pins and runc's state are
    sockets       Unix sockets that it listens on
    bridge        the default network's: "" for docker0, "none" for no such network, else the administrator's own
    live_restore  containers outlive the daemon
    iptables      it makes rules; so does ip6tables for IPv6
    firewall      "nftables", "iptables", or "" if that is left to it
    remapped      it was told to have containers' users elsewhere: its store is in ROOT/UID.GID
    """

    root: str = "/var/lib/docker"
    exec_root: str = "/run/docker"
    sockets: tuple[str, ...] = ("/run/docker.sock",)
    bridge: str = ""
    live_restore: bool = False
    iptables: bool = True
    ip6tables: bool = True
    firewall: str = ""
    remapped: bool = False


def read(host: Host, argv: Sequence[str] = (), path: str = DAEMON_JSON) -> tuple[Settings, list[str]]:
    """What the file says, and the arguments of a dockerd. What makes no sense is as if it were not said."""
    faults: list[str] = []
    given = arguments(argv)
    if json_text.is_path(given.get("config-file")):
        path = given["config-file"]
    said = json_text.read(host, *os.path.split(path), LIMIT, faults) or {}
    if "data-root" not in said and "graph" in said:
        said["data-root"] = said["graph"]  # as it was called before 17.05
    return settings({**said, **given}), faults


def settings(said: dict[str, Any]) -> Settings:
    made = Settings()
    if json_text.is_path(said.get("data-root")) and said["data-root"].count("/") >= 2:
        made = replace(made, root=said["data-root"])
    if json_text.is_path(said.get("exec-root")):
        made = replace(made, exec_root=docker_store.run_path(said["exec-root"]))
    hosts = strings(said.get("hosts"))
    # fd:// is a socket of systemd's, docker.socket.
    sockets = [docker_store.run_path(each.removeprefix("unix://")) for each in hosts if each.startswith("unix:///")]
    if hosts and not any(each.startswith("fd://") for each in hosts):
        made = replace(made, sockets=tuple(dict.fromkeys(filter(None, sockets))))
    elif hosts:
        made = replace(made, sockets=tuple(dict.fromkeys((*made.sockets, *filter(None, sockets)))))
    firewall = text(said.get("firewall-backend"))
    return replace(
        made,
        bridge=text(said.get("bridge")),
        live_restore=said.get("live-restore") is True,
        iptables=said.get("iptables") is not False,
        ip6tables=said.get("ip6tables") is not False,
        firewall=firewall if firewall in ("iptables", "nftables") else "",
        remapped=bool(text(said.get("userns-remap"))),
    )


def arguments(argv: Sequence[str]) -> dict[str, Any]:
    """Those of NAMES: "--name=value", "--name value", "-H value", "-Hvalue", and switches "--name[=false]" (pflag)."""
    found: dict[str, Any] = {}
    words = iter(argv[1:])
    for word in words:
        name, equals, value = word.partition("=")
        if not word.startswith("--") and word[:2] in NAMES and word != name[:2]:
            name, equals, value = word[:2], "=", word[2:].removeprefix("=")
        key = NAMES.get(name, "")
        if key in SWITCHES:
            found[key] = value.lower() not in ("false", "f", "0") if equals else True
        elif key:
            value = value if equals else next(words, "")
            if key == "hosts":
                found.setdefault(key, []).append(value)
            else:
                found[key] = value
    return found
