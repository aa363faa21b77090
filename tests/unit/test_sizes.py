"""How much there is below a directory: bounded, and on one file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from leftovers import sizes


def fill(path: Path, size: int = 8192) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def test_all_files_below_count_once(tmp_path: Path) -> None:
    one = fill(tmp_path / "a/one")
    alone, whole = sizes.of([str(tmp_path)])
    assert alone >= 8192 and whole
    os.link(one, tmp_path / "a/two")
    (tmp_path / "a/link").symlink_to("/usr")
    assert sizes.of([str(tmp_path)]) == (alone, True)
    fill(tmp_path / "a/b/c/three")
    assert sizes.of([str(tmp_path)]) == (2 * alone, True)
    assert sizes.of([str(tmp_path / "a"), str(tmp_path / "not there")]) == (2 * alone, True)


def test_the_walk_ends(tmp_path: Path) -> None:
    for number in range(20):
        fill(tmp_path / str(number))
    size, whole = sizes.of([str(tmp_path)], entries=5)
    assert 0 < size <= 5 * 8192 and not whole
    assert sizes.of([str(tmp_path)], seconds=0.0) == (0, False)


@pytest.mark.parametrize(
    ("size", "whole", "text"),
    [
        (0, True, ""),
        (512, True, "512 B"),
        (1234, True, "1.2 kB"),
        (9_960_000, True, "10 MB"),
        (999_600_000, True, "1.0 GB"),
        (3_000_000_000_000_000, False, "more than 3000 TB"),
    ],
)
def test_in_words(monkeypatch: pytest.MonkeyPatch, size: int, whole: bool, text: str) -> None:
    monkeypatch.setattr(sizes, "of", lambda paths: (size, whole))
    assert sizes.words(["/x"]) == text
