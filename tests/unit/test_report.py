"""What people and programs are told."""

import io
import json

import pytest

from leftovers import report
from leftovers.model import Action, Evidence, Object, Plan, Presence, Verb

PROOF = (Evidence("kernel", "seen"), Evidence("api", "heard"))


def action(key: str, verb: Verb = Verb.REMOVE, counts: bool = False, kind: str = "link", advice: str = "") -> Action:
    return Action(verb, Object(kind, key, (key,)), "incus", "a reason", PROOF, 0, advice, counts)


def text(
    *actions: Action, presence: Presence = Presence.ABSENT, everything: bool = False, faults: tuple[str, ...] = ()
) -> str:
    plan = Plan(("incus",), actions, faults)
    return report.plan_text(plan, {"incus": presence}, report.Colour("never", io.StringIO()), everything)


def test_groups_are_counted_and_long_ones_cut() -> None:
    said = text(*(action(f"veth{number:08d}") for number in range(9)))
    names = ", ".join(f"veth{number:08d}" for number in range(5))
    assert f"remove     9 links: {names} and 4 more: a reason" in said
    assert "1 links: only: a reason" in text(action("only"))
    assert "x" * 200 in text(action("x" * 200)), "one name is always shown"


def test_everything_is_shown_with_its_evidence_when_asked_for() -> None:
    said = text(*(action(f"veth{number}") for number in range(9)), everything=True)
    assert "link veth8: a reason" in said and said.count("[kernel] seen") == 9


def test_what_stays_is_named_with_its_reason_and_the_command_that_would_remove_it() -> None:
    said = text(action("br0", Verb.KEEP, advice="ip link delete br0"))
    assert said.split("\n")[1] == "  keep       1 links: br0: a reason (seen; heard) -> ip link delete br0"


def test_what_could_not_be_read_is_said() -> None:
    assert "unread  nft: broken" in text(faults=("nft: broken",))


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", "a\rb", "\x9b31m", "\u202eabc", "\udcff", "\x00"])
def test_names_cannot_talk_to_the_terminal(name: str) -> None:
    said = text(action(name), action(name, Verb.KEEP))
    assert name not in said and all(char.isprintable() or char == "\n" for char in said)
    assert len(said.split("\n")) == 3


def test_one_json_document_with_all_that_was_promised() -> None:
    plan = Plan(("incus",), (action("a"), action("b", Verb.KEEP, counts=True), action("c", Verb.RETURN)), ("x: y",))
    document = json.loads(report.document("plan", plan, {"incus": Presence.REMOVED}))
    assert document["format_version"] == "1.1" and document["complete"] is False
    assert document["products"] == [{"name": "incus", "presence": "removed"}]
    assert [(entry["id"], entry["action"]) for entry in document["objects"]] == [
        ("link:a", "remove"), ("link:b", "keep"), ("link:c", "return")
    ]  # fmt: skip
    for entry in document["objects"]:
        assert {"id", "kind", "product", "action", "reason", "evidence"} <= entry.keys()
        assert entry["evidence"][0] == {"source": "kernel", "text": "seen"}
    assert document["summary"] == {"remove": 1, "return": 1, "keep": 1, "left": 3}


def test_a_name_that_is_not_utf8_survives_json() -> None:
    plan = Plan(("incus",), (action("odd\udcff"),))
    assert json.loads(report.document("plan", plan, {"incus": Presence.ABSENT}))["objects"][0]["name"] == "odd\udcff"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("when", "stream", "environment", "wanted"),
    [
        ("auto", Terminal(), {"TERM": "xterm"}, True),
        ("auto", io.StringIO(), {"TERM": "xterm"}, False),
        ("auto", Terminal(), {"TERM": "dumb"}, False),
        ("auto", Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        ("always", io.StringIO(), {"NO_COLOR": "1"}, True),
        ("never", Terminal(), {"TERM": "xterm"}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, when: str, stream: io.StringIO, environment: dict[str, str], wanted: bool
) -> None:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b" in report.Colour(when, stream).word("remove")) is wanted


def test_the_bar_shows_on_a_terminal_only_and_only_when_it_takes_long() -> None:
    pipe, quick, slow = io.StringIO(), Terminal(), Terminal()
    report.Bar(pipe, patience=0)("links", 1, 2)
    report.Bar(quick, patience=60)("links", 1, 2)
    bar = report.Bar(slow, patience=0)
    bar("links", 1, 2)
    bar("", 2, 2)
    assert pipe.getvalue() == quick.getvalue() == ""
    assert "1/2 links" in slow.getvalue() and slow.getvalue().endswith("\r")


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({"LANG": "de_DE.UTF-8"}, True),
        ({"LANG": "C.utf8"}, True),
        ({"LANG": "C.UTF-8", "LC_ALL": "C"}, False),
        ({"LANG": "C.UTF-8", "LC_ALL": ""}, True),
        ({"LANG": "C", "LC_CTYPE": "en_US.UTF-8"}, True),
        ({}, False),
    ],
)
def test_lines_of_a_tree_are_for_locales_that_have_them(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], wanted: bool
) -> None:
    for name in ("LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert report.utf8() is wanted
