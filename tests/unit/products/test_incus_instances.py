"""Which instances are asked to shut down, and by which names they are started again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from leftovers.daemons import incus
from leftovers.host import Host
from leftovers.model import Deadline, Record
from leftovers.products import Product, load


@pytest.fixture(params=["incus", "lxd"])
def product(request: pytest.FixtureRequest) -> Product:
    return load(request.param)


def instance(name: str, source: str = "api", type: str = "instance", **facts: object) -> Record:
    return Record(type, name, source, {"running": True, "ephemeral": False, **facts})


def test_only_what_runs_and_can_be_started_again_is_asked(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Record] = []

    def stop(host: Host, instances: Sequence[Record], deadline: Deadline, socket: str) -> dict[str, str]:
        asked.extend(instances)
        assert socket == f"/var/lib/{product.name}/unix.socket"
        return {"c1": "why"}

    monkeypatch.setattr(incus, "stop", stop)
    assert product.stop
    records = [
        instance("c1"),
        instance("c1", "ledger"),
        instance("c1", "disk", running=None),
        instance("proj_p1"),
        instance("eph", ephemeral=True),
        instance("eph2"),
        instance("eph2", "database", running=None, ephemeral=True),
        instance("down", running=False),
        instance("perhaps", running=None),
        instance("odd", running="true"),
        instance("net", type="network"),
        Record("instance", "nothing", "api", {"running": True}),
    ]
    assert product.stop(Host(), records, Deadline(1)) == {"c1": "why"}
    assert [record.name for record in asked] == ["c1", "proj_p1"]


def test_names_are_those_of_records(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(host: Host, instances: Sequence[tuple[str, str]], deadline: Deadline, socket: str) -> Any:
        assert instances == [("default", "c1"), ("proj", "p1"), ("a_b", "p2")]
        return {"proj/p1": "why", "default/c1": "so"}

    monkeypatch.setattr(incus, "start", start)
    assert product.start
    assert product.start(Host(), ["c1", "proj_p1", "a_b_p2"], Deadline(1)) == {"proj_p1": "why", "c1": "so"}
