"""Who is about to go together with whom, as products that are asked later are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from leftovers import survey as survey_module
from leftovers.claims import Case, Finding
from leftovers.host import Host
from leftovers.kinds import Look
from leftovers.kinds.kind import Kind
from leftovers.model import Deadline, Evidence, Listing, Object, Presence, Record, Role, Verb
from leftovers.products import Product

LINK = Object("link", "veth0", ("veth0",))


class Few(Kind):
    """A kind of which the host has these objects."""

    def __init__(self, name: str, *objects: Object) -> None:
        self.name = self.title = name  # type: ignore[misc]
        self.objects = objects

    def survey(self, look: Look) -> Listing:
        return Listing(self.objects)

    def act(self, host: Host, verb: Verb, objects: Sequence[Object], deadline: Deadline) -> Mapping[str, str]:
        raise AssertionError("only looked at")


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("proven", [True, False])
@pytest.mark.parametrize("present", [Presence.ABSENT, Presence.INSTALLED])
def test_only_its_own_goes_with_a_product(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, role: Role, proven: bool, present: Presence
) -> None:
    """Not what is only connected with it, held by somebody, given back, or its administrator's data."""
    told: list[bool] = []

    def first(obj: Object, case: Case) -> Finding:
        return Finding("its", (Evidence("kernel", "seen"),), proven=proven, role=role)

    def second(obj: Object, case: Case) -> None:
        told.append(obj.id in case.elsewhere)

    products = [Product(name, name, (name,), (f"/{name}",), rules={"link": (rule,)})
                for name, rule in (("first", first), ("second", second))]  # fmt: skip
    if present is Presence.INSTALLED:
        (tmp_path / "first").touch()
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("boot\n")
    monkeypatch.setattr(survey_module, "survey_order", lambda: [Few("process"), Few("mount"), Few("link", LINK)])
    survey_module.survey(Host(str(tmp_path)), products, {})
    assert told == [proven and role in (Role.LIVE, Role.DATA) and present is Presence.ABSENT]


def test_whose_hook_we_run_in_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A confined hook cannot ask snapd; and not to be told must not be taken for gone, with which data goes."""
    product = Product("microk8s", "MicroK8s", packages=(), snaps=("microk8s",))
    host = Host(str(tmp_path))
    (tmp_path / "snap/microk8s/x1").mkdir(parents=True)
    (tmp_path / "snap/other/x1").mkdir(parents=True)
    found = []
    for snap in ("/snap/microk8s/x1", "/snap/microk8s/x2", "/snap/other/x1", ""):
        monkeypatch.setattr(survey_module, "SNAP", snap)
        found.append(survey_module.presence(host, product, {"process": (), "mount": ()})[0])
    assert found == [Presence.INSTALLED, *[Presence.ABSENT] * 3]


def test_a_deep_look_asks_again_when_all_is_listed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A container that came meanwhile is there then: its things are no orphans."""
    said: list[str] = []

    class Stub:
        def __init__(self, name: str) -> None:
            self.name = self.title = name

        def survey(self, look: Look) -> Listing:
            said.append(self.name)
            return Listing((Object(self.name, "x", ("x",), {}),) if self.name == "link" else ())

    def reader(look: Look) -> tuple[list[Record], list[str]]:
        said.append("read")
        return [Record("container", str(said.count("read")), "api")], []

    def later(obj: Object, case: Case) -> Finding:
        both = [record.name for record in (*case.records, *case.later)]
        return Finding(" ".join(both), (Evidence("api", "asked"),))

    product = Product("x", "X", packages=(), readers=(reader,), rules={"link": (later,)}, orphans={"link": (later,)})
    monkeypatch.setattr(survey_module, "survey_order", lambda: [Stub(name) for name in ("process", "mount", "link")])
    monkeypatch.setattr(survey_module, "presence", lambda *some: (Presence.INSTALLED, ""))
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("boot\n")
    seen = survey_module.survey(Host(str(tmp_path)), [product], {}, deep=True)
    assert said == ["process", "mount", "read", "link", "read"]
    assert seen.claims["link:x"]["x"].orphan == "1 2"
    said.clear()
    assert survey_module.survey(Host(str(tmp_path)), [product], {}).claims["link:x"]["x"].reason == "1"
    assert said.count("read") == 1
