"""The Debian package's own papers, read with python-debian: what they promise and what the code says agree."""

import configparser
import re
from pathlib import Path

from debian.changelog import Changelog
from debian.deb822 import Deb822, PkgRelation
from debian.debian_support import Version

import leftovers

TOP = Path(__file__).parents[2]


def control() -> list[Deb822]:
    with open(TOP / "debian/control") as file:
        return list(Deb822.iter_paragraphs(file))


def names(relations: str) -> set[str]:
    return {
        alternative["name"]
        for group in PkgRelation.parse_relations(relations)
        for alternative in group
        if not alternative["name"].startswith("$")
    }


def test_one_version_everywhere() -> None:
    with open(TOP / "debian/changelog") as file:
        newest = Changelog(file).version
    assert Version(leftovers.__version__) == Version(str(newest))
    assert str(newest) == leftovers.__version__


def test_every_library_that_is_imported_is_a_dependency() -> None:
    packages = {
        "pyroute2": "python3-pyroute2",
        "psutil": "python3-psutil",
        "yaml": "python3-yaml",
        "nftables": "python3-nftables",
    }
    depends = names(control()[1]["Depends"])
    imported = set()
    for path in (TOP / "src").rglob("*.py"):
        imported |= set(re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE))
    for module, package in packages.items():
        assert module in imported and package in depends
    # The tool without which a product's rules could not be undone, and one without which some could not.
    assert "nftables" in depends and "iptables" in names(control()[1]["Recommends"])


def test_linters_are_no_build_dependency() -> None:
    assert not names(control()[0]["Build-Depends"]) & {"ruff", "mypy", "python3-mypy", "shellcheck", "lintian"}


def test_metadata_lives_in_setup_cfg() -> None:
    parser = configparser.ConfigParser()
    parser.read(TOP / "setup.cfg")
    assert parser["metadata"]["name"] == "leftovers"
    sections = re.findall(r"^\[(.+)\]", (TOP / "pyproject.toml").read_text(), re.MULTILINE)
    assert sections == ["build-system"]
