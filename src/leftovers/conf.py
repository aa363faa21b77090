"""The administrator's settings: /etc/leftovers/leftovers.conf (leftovers.conf(5)).

Lines of `key = value`. A hook written in POSIX sh must see the kill switch without Python, by
    LC_ALL=C grep -qs '^[[:space:]]*enabled[[:space:]]*=[[:space:]]*no' /etc/leftovers/leftovers.conf
so this parser means exactly what that means: any such line disables, whatever follows the "no" and whatever other
lines say; blanks are those of the C locale; and where grep begins a new line (also after a NUL), one begins here.
Only what stands after the first 64 KiB is seen by grep, and not here.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from leftovers.host import Host

__all__ = ["PATH", "Settings", "read"]

PATH = "/etc/leftovers/leftovers.conf"
# Bytes that are read, and lines that are complained of: whatever the file is, hooks run in the middle of dpkg.
LIMIT = 64 * 1024
WARNINGS = 20
# isspace(3) in the C locale, without the newline.
BLANKS = " \t\v\f\r"
SECONDS = 600


@dataclass(frozen=True, slots=True)
class Settings:
    """What the administrator has set; the defaults are those of a file that is absent.

    enabled            False: hooks do nothing at all (the command `leftovers` works as ever)
    on_remove          what becomes of live objects when a package is removed, not purged: "report" or "sweep"
    stop_timeout       seconds that instances may take to shut down before a removal, all of them together
    refuse_if_running  whether a removal is refused while instances run
    arrivals           whether it is written down what stood before a product comes
    """

    enabled: bool = True
    on_remove: str = "report"
    stop_timeout: int = 30
    refuse_if_running: bool = False
    arrivals: bool = True


def read(host: Host) -> tuple[Settings, list[str]]:
    """The settings in effect, and one line for each thing in the file that was not understood, with its place.

    An absent file is the defaults, silently; so is one that cannot be read, with a line that says so. Never raises.
    """
    try:
        data = contents(host.path(PATH))
    except (FileNotFoundError, NotADirectoryError):
        return Settings(), []
    except (OSError, ValueError) as error:
        cause = (error.strerror if isinstance(error, OSError) else "") or str(error)
        return Settings(), [f"{PATH}: {cause}: the defaults are in effect"]
    return parse(data)


def contents(path: str) -> bytes:
    """The first LIMIT bytes of a regular file, and one more if there are more. Raises OSError."""
    # Not blocking: nobody writes to a FIFO, and dpkg waits for us.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    with open(fd, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(0, "not a regular file")
        data = b""
        while len(data) <= LIMIT and (chunk := file.read(LIMIT + 1 - len(data))):
            data += chunk
    return data


def parse(data: bytes) -> tuple[Settings, list[str]]:
    """The settings in the text of a file, and the warnings, as read() returns them."""
    warnings: list[str] = []
    lines = os.fsdecode(data[:LIMIT]).replace("\0", "\n").split("\n")
    if len(data) > LIMIT:
        lines.pop()  # cut in its middle: "enabled = n" and "stop_timeout = 6" might have gone on
        warnings.append(f"{PATH}: larger than {LIMIT // 1024} KiB: the rest was not read")
    found: dict[str, Any] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip(BLANKS)
        if not text:
            continue
        key, equals, value = (part.strip(BLANKS) for part in text.partition("="))
        cause = ""
        if not equals:
            cause = f"not a line of key = value: {shown(text)}"
        elif key not in KEYS:
            cause = f"unknown key {shown(key)}"
        elif key == "enabled" and value.startswith("no"):
            found[key] = False
            if value != "no":
                cause = f"enabled is neither yes nor no, taken as no: {shown(value)}"
        else:
            wanted, convert = KEYS[key]
            setting = convert(value)
            if setting is None:
                cause = f"{key} is not {wanted}, ignored: {shown(value)}"
            elif key in found and found[key] != setting:
                cause = f"{key} was set to something else above: {'no' if key == 'enabled' else 'this'} counts"
            if setting is not None and not (key == "enabled" and key in found):  # a no before it stands
                found[key] = setting
        if cause:
            warnings.append(f"{PATH}:{number}: {cause}")
    settings = Settings(**found)
    if len(warnings) > WARNINGS:
        warnings[WARNINGS:] = [f"{PATH}: and {len(warnings) - WARNINGS} more lines that were not understood"]
    return settings, warnings


def yes_or_no(value: str) -> bool | None:
    return {"yes": True, "no": False}.get(value)


def report_or_sweep(value: str) -> str | None:
    return value if value in ("report", "sweep") else None


def seconds(value: str) -> int | None:
    return int(value) if re.fullmatch(r"[0-9]{1,3}", value) and int(value) <= SECONDS else None


def shown(text: str) -> str:
    """Text of the file as a terminal and a log can bear it: escaped, not long."""
    return ascii(text if len(text) <= 40 else text[:40] + "...")


# What a key's value must be, in words, and the one who reads it: None for what it is not.
KEYS: dict[str, tuple[str, Callable[[str], bool | str | int | None]]] = {
    "enabled": ("yes or no", yes_or_no),
    "on_remove": ("report or sweep", report_or_sweep),
    "stop_timeout": (f"a number of seconds from 0 to {SECONDS}", seconds),
    "refuse_if_running": ("yes or no", yes_or_no),
    "arrivals": ("yes or no", yes_or_no),
}
