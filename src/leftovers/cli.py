"""The command, for a person."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from leftovers import __version__
from leftovers.errors import Fault, Refusal
from leftovers.exits import FAILED, INTERRUPTED, REFUSED

__all__ = ["main"]

# Longer than any runtime takes from the first of a container's objects to its record of it: containerd, dockerd and
# CNI's plugins give up on a hung step after a minute or so, and undo it.
AGE = 120.0
EXAMPLES = """\
examples:
  leftovers scan                 what is left of any product, and what is in use
  leftovers plan incus           what would be removed, what stays, and why
  leftovers clean incus          show that, ask, do it, and look again
  leftovers scan --orphans       what crashes left of products that stay installed
  leftovers verify               is anything left? (exit status 3: yes)
  leftovers explain incusbr0     whose is that bridge, and what proves it
  leftovers tree                 products, their containers, and what each of them has
  leftovers record incus         write down what is Incus' now, before removing it

exit status: 0 clean or done, 1 something failed or could not be read, 2 usage,
             3 leftovers present, 4 refused and nothing changed
"""


def parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    for flags, options in (
        (("--json",), {"action": "store_true", "help": "one JSON document on stdout"}),
        (("--color",), {"choices": ("auto", "always", "never"), "help": "colour the leading words (auto)"}),
        (("-v", "--verbose"), {"action": "store_true", "help": "every object by itself, with its evidence"}),
        (("--debug",), {"action": "store_true", "help": "a traceback for every fault"}),
    ):
        # Allowed before and after the command; the later parser must not reset what the first has set.
        common.add_argument(*flags, default=argparse.SUPPRESS, **options)
    top = argparse.ArgumentParser(
        prog="leftovers",
        description="Finds what container products left on this host, proves whose it is, and makes it go.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        parents=[common],
    )
    top.add_argument("--version", action="version", version=f"leftovers {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, help: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help, description=help, allow_abbrev=False, parents=[common])

    scan = command("scan", "list what is left of products, and what of them is in use")
    scan.add_argument("product", nargs="*")
    scan.add_argument("--exit-code", action="store_true", help="exit with 3 when anything is left")
    orphans(scan, "only what belongs to no container any more, of products that stay installed")
    show = command("plan", "show what clean would do; changes nothing")
    clean = command("clean", "remove what is left of a product")
    for sub in (show, clean):
        sub.add_argument("product", nargs="+" if sub is show else "*")
        sub.add_argument(
            "--data",
            action="store_true",
            help="also data of a package that was removed but not purged, and volumes at places outside the product's",
        )
        sub.add_argument("--force", action="store_true", help="also while the product is installed")
    show.add_argument("--exit-code", action="store_true", help="exit with 3 when anything is left")
    orphans(clean, "what belongs to no container any more, of products that stay installed")
    clean.add_argument("--yes", action="store_true", help="do not ask")
    clean.add_argument("-n", "--dry-run", action="store_true", help="the same as plan")
    verify = command("verify", "is anything left? exits with 3 if so")
    verify.add_argument("product", nargs="*")
    explain = command("explain", "say whose an object is and what proves it")
    explain.add_argument(
        "object", nargs="+", help="a link, path, pid, container, unit ... or an id such as link:incusbr0"
    )
    tree = command("tree", "show products, their containers, and what of the host each of them has")
    tree.add_argument("product", nargs="*")
    command("resume", "finish a clean that was interrupted")
    record = command("record", "write what is a product's own to the ledger; changes nothing else")
    record.add_argument("product", nargs="+")
    return top


def orphans(command: argparse.ArgumentParser, help: str) -> None:
    command.add_argument("--orphans", action="store_true", help=help)
    command.add_argument(
        "--older-than",
        type=seconds,
        metavar="SECONDS",
        default=AGE,
        help=f"with --orphans: what is younger may be in the making ({AGE:.0f})",
    )


def seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 86400:
        raise ValueError(text)
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started us: what is written goes nowhere, and stops nothing
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - for as long as we run
    arguments = parser().parse_args(argv)
    for name, default in (("json", False), ("color", "auto"), ("verbose", False), ("debug", False)):
        if not hasattr(arguments, name):
            setattr(arguments, name, default)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        check(arguments)
        from leftovers import commands

        status: int = getattr(commands, arguments.command)(arguments)
        return status
    except Refusal as fault:
        return told(fault, REFUSED, arguments)
    except Fault as fault:
        return told(fault, FAILED, arguments)
    except KeyboardInterrupt:
        advice = ": leftovers resume" if arguments.command in ("clean", "resume") else ""
        print(f"leftovers: interrupted{advice}", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if arguments.debug:
            raise
        advice = f"leftovers --debug {arguments.command} ... shows where"
        print(f"leftovers: {type(error).__name__}: {error} ({advice})".replace("\n", " "), file=sys.stderr)
        return FAILED


def interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def told(fault: Fault, status: int, arguments: argparse.Namespace) -> int:
    if arguments.debug:
        import traceback

        traceback.print_exc()
    print(f"leftovers: {fault}", file=sys.stderr)
    return status


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot work, before anything heavy is imported."""
    from leftovers.products import NAMES, known

    for name in getattr(arguments, "product", None) or ():
        if name.startswith("podman@") and not known(name):
            parser().error(f"{name}: no such user (root's containers are those of podman)")
        elif not known(name):
            parser().error(f"unknown product {name!r}: choose from {', '.join(NAMES)}")
    if arguments.command == "clean" and not arguments.product and not arguments.orphans:
        parser().error("clean: which product? (or --orphans)")
    if getattr(arguments, "orphans", False) and (
        getattr(arguments, "data", False) or getattr(arguments, "force", False)
    ):
        parser().error("--orphans is about what runs: it takes neither --data nor --force")
    if os.geteuid() != 0:
        raise Refusal(
            "leftovers", "other processes' namespaces are only open to root", f"sudo leftovers {arguments.command}"
        )
