"""What each verb of the command line does: look, decide, tell. The doing is clean.carry_out()."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial

from leftovers import report, telling
from leftovers.clean import carry_out, decided, remember, write_down
from leftovers.errors import Refusal
from leftovers.exits import DONE, FAILED, LEFT
from leftovers.explain import Explainer
from leftovers.host import Host
from leftovers.ledger import Ledger, Run, now
from leftovers.model import Plan, Presence
from leftovers.orphans import Search
from leftovers.products import NAMES, Product, known, load, with_companions
from leftovers.survey import Survey, survey
from leftovers.tree import grown
from leftovers.ways import HostWays

__all__ = ["clean", "explain", "plan", "record", "resume", "scan", "tree", "verify"]


def look(names: Sequence[str]) -> tuple[Host, Ledger, list[Product], Survey]:
    host = Host()
    ledger = Ledger(host)
    products = with_companions(names or NAMES)
    return host, ledger, products, survey(host, products, remember(ledger, products))


def show(arguments: Namespace, plan: Plan, seen: Survey) -> None:
    if arguments.json:
        report.to_stdout(report.document(arguments.command, plan, seen.presence))
        return
    colour = report.Colour(arguments.color, sys.stdout)
    text = report.plan_text(plan, seen.presence, colour, arguments.verbose)
    if text.strip():
        report.to_stdout(text.rstrip("\n"))
    report.to_stdout(report.summary(plan))


def status(plan: Plan, found: int) -> int:
    """`found` if anything is left; FAILED if we could not see everything."""
    if plan.left() and found:
        return found
    return FAILED if plan.faults else DONE


def scan(arguments: Namespace) -> int:
    if arguments.orphans:
        return orphans_of(arguments)
    _, _, products, seen = look(arguments.product)
    plan = decided(products, seen, arguments.product or NAMES)
    show(arguments, plan, seen)
    advise(arguments, plan)
    return status(plan, LEFT if arguments.exit_code else 0)


def plan(arguments: Namespace) -> int:
    _, _, products, seen = look(arguments.product)
    plan = decided(products, seen, arguments.product, data=arguments.data, force=arguments.force)
    show(arguments, plan, seen)
    advise(arguments, plan)
    return status(plan, LEFT if arguments.exit_code else 0)


def advise(arguments: Namespace, plan: Plan) -> None:
    """The next command."""
    if arguments.json or not plan.doing():
        return
    names = dict.fromkeys(action.product for action in plan.doing())
    extra = " --data" if getattr(arguments, "data", False) else ""
    extra += " --force" if getattr(arguments, "force", False) else ""
    report.to_stdout(f"next: leftovers clean {' '.join(names)}{extra}")


def verify(arguments: Namespace) -> int:
    _, _, products, seen = look(arguments.product)
    plan = decided(products, seen, arguments.product or NAMES)
    left = plan.left()
    if arguments.json:
        report.to_stdout(report.document(arguments.command, plan, seen.presence))
    elif left:
        colour = report.Colour(arguments.color, sys.stdout)
        some = Plan(plan.products, left, plan.faults)
        report.to_stdout(report.plan_text(some, seen.presence, colour, arguments.verbose))
        report.to_stdout(f"{len(left)} left")
        advise(arguments, plan)
    else:
        for fault in plan.faults:
            report.to_stdout(f"unread  {report.printable(fault)}")
        kept = f", {len(plan.keeping())} things stay on purpose (leftovers scan)" if plan.keeping() else ""
        report.to_stdout(
            f"clean{kept}" if not plan.faults else f"nothing found{kept}, but not everything could be read"
        )
    return status(plan, LEFT)


def explainer(names: Sequence[str] = ()) -> Explainer:
    """A deep look on behalf of all products: anybody may have a thing. Where users have containers of their own, they
    are asked for too."""
    host = Host()
    ledger = Ledger(host)
    products = with_companions(names or NAMES)
    seen = survey(host, products, remember(ledger, products), deep=True)
    users = {f"podman@{each.name}" for each in seen.records.get("podman", ()) if each.type == "rootless"}
    wanted = sorted(name for name in users if known(name)) if not names else ()
    if wanted:
        products = with_companions([*NAMES, *wanted])
        seen = survey(host, products, remember(ledger, products), deep=True)
    mounts = {mount.facts["point"]: mount.facts for mount in seen.listed["mount"] if mount.facts["host"]}
    return Explainer(seen, HostWays(host, mounts))


def explain(arguments: Namespace) -> int:
    asking = explainer()
    seen = asking.survey
    told = {asked: asking.explain(asked) for asked in arguments.object}
    answers = [answer for found in told.values() for answer in found]
    if arguments.json:
        actions = {answer.action.id: answer.action for answer in answers if answer.action}
        plan = Plan(tuple(seen.presence), tuple(actions.values()), seen.faults)
        more = {"answers": [said for asked, found in told.items() for said in telling.answers_json(asked, found)]}
        report.to_stdout(report.document("explain", plan, seen.presence, more=more))
    elif answers:
        colour = report.Colour(arguments.color, sys.stdout)
        report.to_stdout(telling.answers_text(answers, colour, arguments.verbose))
        for fault in seen.faults:
            report.to_stdout(f"{colour.word('unread')} {report.printable(fault)}")
    for asked, found in told.items():
        if not found:
            name = report.printable(asked)
            print(f"leftovers: {name}: no such object on this host (leftovers scan -v)", file=sys.stderr)
    return DONE if all(told.values()) else FAILED


def tree(arguments: Namespace) -> int:
    asking = explainer(arguments.product)
    seen = asking.survey
    trunks = grown(asking, arguments.product or tuple(seen.presence))
    if arguments.json:
        plan = Plan(tuple(seen.presence), (), seen.faults)
        more = {"tree": telling.tree_json(trunks)}
        report.to_stdout(report.document("tree", plan, seen.presence, more=more))
    else:
        report.to_stdout(telling.tree_text(trunks, report.utf8(), arguments.verbose) or "nothing of any product")
        for fault in seen.faults:
            report.to_stdout(f"unread  {report.printable(fault)}")
    return FAILED if seen.faults else DONE


def record(arguments: Namespace) -> int:
    host = Host()
    ledger = Ledger(host)
    with ledger.locked():
        products = with_companions(arguments.product)
        memory = remember(ledger, products)
        seen = survey(host, products, memory)
        for product in products:
            held = write_down(ledger, [product], seen, memory[product.name].run)[product.name]
            if not arguments.json and product.name in arguments.product:
                report.to_stdout(
                    f"{product.name}: {len(held.claims)} objects and {len(held.records)} records written to "
                    f"{ledger.directory}/{product.name}.json"
                )
    plan = decided(products, seen, arguments.product)
    if arguments.json:
        report.to_stdout(report.document("record", plan, seen.presence))
    for fault in () if arguments.json else plan.faults:
        report.to_stdout(f"unread  {report.printable(fault)}")
    return FAILED if plan.faults else DONE


def clean(arguments: Namespace) -> int:
    if arguments.dry_run:
        arguments.exit_code = False
        return orphans_of(arguments) if arguments.orphans else plan(arguments)
    if arguments.orphans:
        return clean_orphans(arguments)
    host = Host()
    ledger = Ledger(host)
    with ledger.locked():
        products = with_companions(arguments.product)
        seen = survey(host, products, remember(ledger, products))
        if not arguments.force:
            refuse_installed(arguments.product, products, seen)
        refuse_running(arguments.product, products, seen)
        todo = decided(products, seen, arguments.product, data=arguments.data, force=arguments.force)
        if not todo.doing():
            show(arguments, todo, seen)
            close_runs(ledger, todo.products)
            finish_with(arguments, [product for product in products if product.name in todo.products], seen)
            return status(todo, 0)
        if arguments.yes:
            if not arguments.json:
                show(arguments, todo, seen)
            return swept(arguments, host, ledger, products, seen, todo)
    # The ledger is not held while a person thinks: a purge that comes meanwhile must not wait for him.
    consent(arguments, todo, seen)
    with ledger.locked():
        seen, todo = unchanged(host, ledger, products, arguments, seen, todo)
        return swept(arguments, host, ledger, products, seen, todo)


def search(arguments: Namespace, host: Host, ledger: Ledger) -> Search:
    names = [name for name in arguments.product or NAMES if load(name).orphans]
    for name in arguments.product:
        if name not in names:
            raise Refusal(name, "of this product nothing can be told an orphan", f"leftovers scan {name}")
    return Search(host, ledger, with_companions(names), names, arguments.older_than)


def waits(arguments: Namespace) -> Callable[[int, float], None]:
    def say(number: int, seconds: float) -> None:
        print(f"leftovers: {number} may be in the making: looking again in {seconds:.0f} s", file=sys.stderr)

    return say


def orphans_of(arguments: Namespace) -> int:
    """What belongs to no container any more, of products that stay."""
    host = Host()
    looking = search(arguments, host, Ledger(host))
    seen, found = looking.find(waits(arguments))
    show(arguments, found, seen)
    if found.doing() and not arguments.json:
        names = dict.fromkeys(action.product for action in found.doing())
        report.to_stdout(f"next: leftovers clean --orphans {' '.join(names)}")
    return status(found, LEFT if arguments.exit_code else 0)


def clean_orphans(arguments: Namespace) -> int:
    """The same, and away with it. While a person thinks and while we wait, nothing is locked; what is then done was
    an orphan at each look."""
    host = Host()
    ledger = Ledger(host)
    looking = search(arguments, host, ledger)
    seen, found = looking.find(waits(arguments))
    if not found.doing():
        show(arguments, found, seen)
        return status(found, 0)
    if arguments.yes and not arguments.json:
        show(arguments, found, seen)
    elif not arguments.yes:
        consent(arguments, found, seen)
    agreed = {(action.id, action.object.identity) for action in found.doing()}
    with ledger.locked():
        seen, later = looking.again(agreed)
        names = tuple(dict.fromkeys(action.product for action in later.doing()))
        todo = Plan(names, later.doing(), later.faults)
        run = Run(now(), False, False)
        look = partial(looking.again, agreed)
        return swept(arguments, host, ledger, looking.products, seen, todo, run, look)


def refuse_installed(named: Sequence[str], products: Sequence[Product], seen: Survey) -> None:
    for product in products:
        if product.name in named and seen.presence[product.name] is Presence.INSTALLED:
            raise Refusal(
                product.name,
                f"is installed ({seen.because[product.name]}), so nothing of it is left over",
                f"{removal_of(product)}, or {stop_of(product)}leftovers clean {product.name} --force",
            )


def refuse_running(named: Sequence[str], products: Sequence[Product], seen: Survey) -> None:
    """A snap that stays installed is not swept under its running services: they would make again what has gone, or be
    started again, and what is read of them changes while it is read. Raises Refusal."""
    for product in products:
        if product.name not in named or not product.snaps or seen.presence[product.name] is not Presence.INSTALLED:
            continue
        for unit in seen.listed["unit"]:
            if unit.key in product.units and unit.facts["stands"] and unit.facts["active"] == "active":
                again = f"{stop_of(product)}leftovers clean {product.name} --force"
                raise Refusal(product.name, f"its service {unit.key} runs", again)


def stop_of(product: Product) -> str:
    """The command that stops a snap's services, before another one."""
    return f"snap stop {product.snaps[0]} && " if product.snaps and not product.packages else ""


def finish_with(arguments: Namespace, products: Sequence[Product], seen: Survey) -> None:
    """The command that takes what snapd still has of a snap, once nothing is in its way any more."""
    for product in products:
        stands = seen.presence[product.name] is not Presence.ABSENT and product.snaps and not product.packages
        if stands and not arguments.json:
            report.to_stdout(f"finish with: {removal_of(product)}")


def removal_of(product: Product) -> str:
    """The command that removes a product. A companion without a package of its own comes with the product that it
    lives for."""
    if product.snaps and not product.packages:
        return f"snap remove --purge {product.snaps[0]}"
    if product.uninstall:
        return product.uninstall
    packages = product.packages or next(
        other.packages for other in map(load, NAMES) if product.name in other.companions
    )
    return f"apt purge {packages[0]}"


def unchanged(
    host: Host, ledger: Ledger, products: list[Product], arguments: Namespace, seen: Survey, todo: Plan
) -> tuple[Survey, Plan]:
    """Look again after the question. What has gone meanwhile is no harm; anything new is. Raises Refusal."""
    later = survey(host, products, remember(ledger, products))
    plan = decided(products, later, arguments.product, data=arguments.data, force=arguments.force)
    agreed = {(action.id, action.object.identity, action.verb) for action in todo.doing()}
    news = [action for action in plan.doing() if (action.id, action.object.identity, action.verb) not in agreed]
    if news or later.presence != seen.presence:
        what = news[0].id if news else "a package"
        raise Refusal("the host", f"has changed while you were asked ({what})", "nothing was changed; run again")
    return later, plan


def consent(arguments: Namespace, todo: Plan, seen: Survey) -> None:
    """Show what is to be done and ask. Raises Refusal."""
    if arguments.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Refusal("clean", "there is no terminal to ask on", "leftovers clean --yes, or leftovers plan to look")
    show(arguments, todo, seen)
    try:
        answer = input("Do this? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise Refusal("clean", "not confirmed", "nothing was changed")


def swept(
    arguments: Namespace,
    host: Host,
    ledger: Ledger,
    products: Sequence[Product],
    seen: Survey,
    todo: Plan,
    run: Run | None = None,
    look: Callable[[], tuple[Survey, Plan]] | None = None,
) -> int:
    run = run or Run(now(), arguments.data, arguments.force)
    done = carry_out(host, ledger, products, seen, todo, run, progress=report.Bar(sys.stderr), look=look)
    left = done.after.left()
    failing = done.after.doing()
    if arguments.json:
        report.to_stdout(report.document(arguments.command, todo, seen.presence, done.outcomes, done.after))
    else:
        still = {action.id for action in done.after.doing()}
        colour = report.Colour(arguments.color, sys.stdout)
        text = report.outcome_text([out for out in done.outcomes if out.action.id in still], colour)
        if text:
            report.to_stdout(text)
        for fault in done.after.faults:
            report.to_stdout(f"{colour.word('unread')} {report.printable(fault)}")
        gone = len(done.outcomes) - sum(out.action.id in still for out in done.outcomes)
        report.to_stdout(
            f"{gone} gone, {len(done.after.keeping())} kept, {len(failing)} failed"
            + (": leftovers verify" if left else "")
        )
    if not failing:
        finish_with(arguments, [product for product in products if product.name in todo.products], done.survey)
    return FAILED if failing or done.after.faults else DONE


def close_runs(ledger: Ledger, products: Sequence[str]) -> None:
    """Nothing is to be done any more: a run that was killed at its very end is over."""
    from dataclasses import replace

    for name in products:
        held = ledger.memory(name)
        if held.run is not None:
            ledger.write(replace(held, run=None))


def started(host: Host, ledger: Ledger, name: str, arguments: Namespace) -> int:
    """A removal was killed that had asked instances to shut down, and did not come to pass: they run again."""
    if not ledger.memory(name).stopped:
        return 0
    from leftovers import moments
    from leftovers.conf import Settings

    say = (lambda text: None) if arguments.json else report.to_stdout
    scene = moments.Scene(host, ledger, Settings(), say)
    up = moments.start_again(scene, name, None)
    moments.tell_started(scene, name, up)
    return up


def resume(arguments: Namespace) -> int:
    """Finish every run that was begun; it was consented to then. One of an earlier boot, or on a host where the
    product is installed again, has no claim to be more than a plain clean."""
    host = Host()
    ledger = Ledger(host)
    again = sum(started(host, ledger, name, arguments) for name in ledger.products() if known(name))
    with ledger.locked():
        open_runs = {name: run for name in ledger.products() if known(name) and (run := ledger.memory(name).run)}
        if not open_runs and again and not arguments.json:
            return DONE
        if not open_runs:
            nothing = report.document("resume", Plan((), ()), {}) if arguments.json else "nothing to resume"
            report.to_stdout(nothing)
            return DONE
        products = with_companions(list(open_runs))
        memory = remember(ledger, products)
        seen = survey(host, products, memory)
        # The flags of an earlier boot, or of one of several runs, are not those of all.
        data = all(run.data and memory[name].boot_id == seen.boot_id for name, run in open_runs.items())
        todo = decided(products, seen, list(open_runs), data=data)
        if not todo.doing():
            show(arguments, todo, seen)
            close_runs(ledger, list(open_runs))
            for name in open_runs if not arguments.json else ():
                if seen.presence[name] is Presence.INSTALLED:
                    report.to_stdout(f"{name} is installed ({seen.because[name]}): nothing was resumed")
            return status(todo, 0)
        return swept(arguments, host, ledger, products, seen, todo, Run(now(), data, False))
