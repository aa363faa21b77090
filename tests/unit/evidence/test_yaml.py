"""YAML of strangers."""

from __future__ import annotations

import pytest

from leftovers.evidence import yaml


def test_types_are_those_of_json() -> None:
    text = (
        b'a: {b: [1, "1", true, "true", null, "", -7, 0x10, 1.5, yes]}\nd: 2026-11-20T23:39:33.422153632Z\ne: |\n  x\n'
    )
    assert yaml.load(text) == {
        "a": {"b": [1, "1", True, "true", None, "", -7, "0x10", "1.5", "yes"]},
        "d": "2026-11-20T23:39:33.422153632Z",
        "e": "x\n",
    }


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (b"a: &x [1]\nb: *x\n", "anchor or alias"),
        (b"a: &x 1\n", "anchor or alias"),
        (b"a: !!python/object/apply:os.system [id]\n", "tag"),
        (b"a: !!binary aGk=\n", "tag"),
        (b"[" * 100_000, "too deep|not valid YAML"),
        (b"- " * 100_000, "too deep|not valid YAML"),
        (b"{a: " * 500, "too deep"),
        (b"? [a]\n: b\n", "a key is not a string"),
        (b"1: b\n", "a key is not a string"),
        (b"a: 1\na: 2\n", "a key is there twice"),
        (b"a: 1\n---\nb: 2\n", "not one document"),
        (b"", "not one document"),
        (b"# nothing\n", "not one document"),
        (b"a: [1\n", "not valid YAML"),
        (b"a: 'x\n", "not valid YAML"),
        (b"\t- a: b: c", "not valid YAML"),
        (b"a: \x00\n", "not valid YAML"),
        (b"a: \xff\n", "not valid UTF-8"),
        ("a: b".encode("utf-16"), "not valid UTF-8"),
    ],
    ids=lambda value: str(value[:30]),
)
def test_refused(text: bytes, cause: str) -> None:
    with pytest.raises(ValueError, match=cause) as raised:
        yaml.load(text)
    assert "\n" not in str(raised.value)


def test_a_number_of_a_million_digits_is_text() -> None:
    assert yaml.load(b"a: " + b"9" * 1_000_000) == {"a": "9" * 1_000_000}


def test_events_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml, "EVENTS", 100)
    with pytest.raises(ValueError, match="too large"):
        yaml.load(b"- a\n" * 200)


def test_time_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml, "SECONDS", 0.0)
    with pytest.raises(ValueError, match="too large"):
        yaml.load(b"- a\n" * 200)


def test_without_the_c_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    pyyaml = pytest.importorskip("yaml")
    monkeypatch.delattr(pyyaml, "CSafeLoader", raising=False)
    assert yaml.load(b'a: "1"\nb: [1, null]\n') == {"a": "1", "b": [1, None]}
    with pytest.raises(ValueError):
        yaml.load(b"[" * 5000)


def test_without_pyyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(ValueError, match="python3-yaml"):
        yaml.load(b"a: 1")
