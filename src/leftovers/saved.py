"""A copy of ourselves in /run, for when our own package, or Python, goes in the same run as the product.

/run/leftovers/saved: hooks/ and leftovers/ as they are installed, and for each product NAME.inventory (what
hooks/finish removes without Python) and NAME.daemons (while one of these files is there, it does not).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from leftovers import inventory, removal
from leftovers.daemons import snapd
from leftovers.errors import Refusal, Unreadable
from leftovers.host import Host
from leftovers.kinds.files import Tree
from leftovers.model import Deadline, Plan
from leftovers.products import load

__all__ = ["MODULES", "SAVED", "forget", "is_copy", "save"]

SAVED = f"{removal.DIRECTORY}/saved"
MODULES = os.path.dirname(os.path.abspath(__file__))


def is_copy() -> bool:
    """Whether it is the copy that runs."""
    return MODULES.startswith(f"{SAVED}/")


def save(host: Host, plans: Mapping[str, Plan]) -> None:
    """Copy ourselves, and write down what is to go of each product. Raises Refusal when that cannot be written."""
    hooks = os.path.join(os.path.dirname(MODULES), "hooks")
    if is_copy() or not os.path.isdir(hooks):
        return
    target = host.path(SAVED)
    forget(host)
    try:
        for source in (MODULES, hooks):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, f"{target}/{os.path.basename(source)}", ignore=ignored)
        for name, plan in plans.items():
            text, _ = inventory.render(plan)
            daemons = "".join(f"{path}\n" for path in (snapd.PROGRAMS if load(name).snaps else load(name).daemons))
            for file_name, content in ((f"{name}.inventory", text), (f"{name}.daemons", daemons)):
                with open(f"{target}/{file_name}", "w", encoding="utf-8", errors="surrogateescape") as file:
                    file.write(content)
    except (OSError, Unreadable) as error:
        said = error.cause if isinstance(error, Unreadable) else error.strerror
        raise Refusal(SAVED, f"cannot be written: {said}", "make room in /run") from error


def forget(host: Host) -> None:
    """Remove the copy."""
    Tree(Deadline(30)).remove(host.path(SAVED))
