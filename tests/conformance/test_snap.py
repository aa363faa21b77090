"""What a publisher adds to a snap (snap/) fits together, and with what it carries."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

TOP = Path(__file__).resolve().parents[2]
FILE: dict[str, Any] = yaml.safe_load((TOP / "snap/leftovers.yaml").read_text())
PART = FILE["parts"]["leftovers"]
HOOK = (TOP / "snap/hooks/remove").read_text()
SHARE = "usr/share/leftovers"


def test_the_part_has_what_the_hook_calls() -> None:
    organized = PART["organize"]
    assert all((TOP / source).exists() for source in organized)
    assert organized["src/leftovers"] == f"{SHARE}/leftovers"
    for name in ("snap-remove", "snap-remove.py"):
        assert organized[f"hooks/{name}"] == f"{SHARE}/hooks/{name}"
    assert f'exec "$SNAP/{SHARE}/hooks/snap-remove" "$SNAP_NAME"' in HOOK.splitlines()
    assert '"$here/snap-remove.py"' in (TOP / "hooks/snap-remove").read_text()
    for path in ("snap/hooks/remove", "hooks/snap-remove"):
        assert os.access(TOP / path, os.X_OK), path
        assert (TOP / path).read_text().startswith("#!/bin/sh\n"), path


def test_the_part_brings_what_our_package_depends_on() -> None:
    control = re.search(r"(?ms)^Package: leftovers$.*?(?=^Description)", (TOP / "debian/control").read_text())
    assert control
    wanted = {line.strip(" ,") for line in control[0].splitlines() if re.match(r" [a-z]", line)}
    assert wanted >= {"nftables", "python3-psutil", "iptables"}
    assert wanted | {"python3"} <= set(PART["stage-packages"])


def test_everything_that_is_staged_is_primed() -> None:
    primed = PART["prime"]
    for target in (
        *PART["organize"].values(),
        "usr/bin/python3",
        "usr/lib/python3/dist-packages/psutil",
        "usr/sbin/nft",
    ):
        assert any(re.match(re.escape(pattern).replace(r"\*", "[^/]*") + r"(/|\Z)", target) for pattern in primed), (
            target
        )


def test_the_hook_ends_where_nothing_can_be_run(tmp_path: Path) -> None:
    """No Python in the snap: one line, and a status that makes snapd keep it."""
    hooks = tmp_path / f"snap/microk8s/x1/{SHARE}/hooks"
    hooks.mkdir(parents=True)
    text = (TOP / "hooks/snap-remove").read_text()
    path = tmp_path / "bin"  # no logger in it
    for old, new in (("/usr/bin/python3", "/nonexistent"), ('"$(id -u)"', "0"), ("PATH=/usr/sbin:", f"PATH={path} #")):
        assert old in text
        text = text.replace(old, new)
    (hooks / "snap-remove").write_text(text)
    path.mkdir()
    for name in ("cat", "dirname"):
        (path / name).symlink_to(f"/usr/bin/{name}")
    argv = ["/bin/sh", str(hooks / "snap-remove"), "microk8s"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == (
        "leftovers: microk8s is not cleaned up after: no Python 3.10 that runs in the snap or its base\n"
    )


def test_the_docs_name_every_plug() -> None:
    text = (TOP / "docs/publishers.md").read_text()
    assert [plug for plug in FILE["hooks"]["remove"]["plugs"] if plug not in text] == []
    assert "(../snap/leftovers.yaml)" in text and "(../snap/hooks/remove)" in text
