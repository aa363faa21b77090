"""What docker.io's own purge deletes, by its postrm as three releases have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from leftovers.evidence.docker_purge import STORE, deletes
from leftovers.host import Host

NUKE = "/var/lib/docker/nuke-graph-directory.sh"
NUKES = f"#!/bin/sh\nif [ -x {NUKE} ]; then\n\t{NUKE} /var/lib/docker\nfi\n"
ASKS = f"#!/bin/sh\nif [ -e /var/lib/docker/.purge_sentinel ]; then\n{NUKES}fi\n"
OTHER = "Name: docker.io/restart\nTemplate: docker.io/restart\nValue: true\nOwners: docker.io\n"


def question(value: str) -> str:
    asked = f"Name: docker.io/purge-data\nTemplate: docker.io/purge-data\nValue: {value}\nOwners: docker.io\n"
    return f"{OTHER}\n{asked}\n{OTHER}"


@pytest.mark.parametrize(
    ("script", "debconf", "sentinel", "deleted"),
    [
        ("", "", False, False),
        ("#!/bin/sh\nexit 0\n", "", True, False),
        (NUKES, "", False, True),
        (NUKES, question("false"), False, True),
        (ASKS, "", False, False),
        (ASKS, OTHER, False, False),
        (ASKS, question("false"), False, False),
        (ASKS, question("true"), False, True),
        (ASKS, "", True, True),
    ],
)
def test_as_it_stands(tmp_path: Path, script: str, debconf: str, sentinel: bool, deleted: bool) -> None:
    for path, text in (
        ("var/lib/dpkg/info/docker.io.postrm", script),
        ("var/cache/debconf/config.dat", debconf),
        ("var/lib/docker/.purge_sentinel", "" if sentinel else None),
    ):
        if text or text == "":
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
    assert deletes(Host(str(tmp_path))) == ((STORE,) if deleted else ())


def test_nothing_there() -> None:
    assert deletes(Host("/nowhere")) == ()
