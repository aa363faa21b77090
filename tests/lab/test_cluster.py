"""Two hosts that are one cluster: what its other members still have of a host is told, and they are left alone."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from lab import incus, lxd
from lab.machine import RECIPES, Machine, tool
from lab.scenario import KEPT, Arrive, document, leftovers, same

pytestmark = pytest.mark.full
ADDRESSES = ("10.94.0.1", "10.94.0.2")


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Machine, Machine]]:
    """Two hosts with a cable between them: both its ends are made in the hosts, none is ever on the machine."""
    recipe = RECIPES[request.param]
    with Machine(recipe=recipe) as one, Machine(recipe=recipe) as two:
        inside = ("nsenter", f"--net=/proc/{one.init}/ns/net", "ip", "link", "add", "name", "cable", "type", "veth")
        tool(*inside, "peer", "name", "cable", "netns", str(two.init))
        for host, address in zip((one, two), ADDRESSES, strict=True):
            host.run(f"ip addr add {address}/24 dev cable; ip link set cable up")
        yield one, two


def join(one: Machine, two: Machine, client: str, daemon: str) -> None:
    """`one` makes the cluster and has a container; `two` joins it as "two", and has another."""
    one.run(f"{client} config set core.https_address {ADDRESSES[0]}:8443; {client} cluster enable one", timeout=120)
    token = one.run(f"{client} -q cluster add two").out.split()[-1]
    two.run(
        f"""
        cat >/tmp/preseed <<'P'
cluster:
  enabled: true
  server_name: two
  server_address: {ADDRESSES[1]}:8443
  cluster_token: {token}
P
        {daemon} init --preseed </tmp/preseed; rm /tmp/preseed
        """,
        timeout=120,
    )
    two.run(f"{client} -q launch bb c2 --target two; {client} -q launch bb c1 --target one", timeout=120)


@pytest.mark.parametrize("pair", ["incus-trixie"], indirect=True)
def test_incus(pair: tuple[Machine, Machine], arrive: Arrive) -> None:
    one, two = pair
    incus.install(one)
    one.run("incus admin init --minimal\n" + incus.IMAGE)
    arrive(two)
    incus.admin_things(two)
    before = two.snapshot()
    incus.install(two)
    join(one, two, "incus", "incus admin")
    instances = {o["name"] for o in document(two, "scan", "incus") if o["kind"] == "cgroup"}
    assert instances == {"/lxc.payload.c2", "/lxc.monitor.c2"}, "only this member's"
    (told,) = [o for o in document(two, "scan", "incus") if o["kind"] == "elsewhere"]
    assert (told["name"], told["action"], told["counts"]) == ("Incus cluster of one, two", "keep", False)

    done = two.run(["apt-get", "purge", "-y", "-q", *incus.PACKAGES], timeout=300)
    same(two, before, keep=KEPT, said=done.out)
    assert "Incus cluster of one, two: counts this host as its member two" in done.out
    match = re.search(r"\(on another member: ([^)]*)\)", done.out)
    assert match is not None, done.out
    leftovers(two, "verify")
    assert [o["advice"] for o in document(two, "scan", "incus") if o["kind"] == "elsewhere"] != [], "told again"

    # The other member never noticed, but for its database; what we advise is what mends that.
    assert "RUNNING" in one.run("incus list -f csv -c ns c1", timeout=120).out
    one.run(f"echo yes | {match[1]}", timeout=120)
    assert one.run("incus cluster list -f csv | cut -d, -f1").out == "one\n"
    assert one.run("incus list -f csv -c ns").out == "c1,RUNNING\n"


@pytest.mark.parametrize("pair", ["lxd-trixie"], indirect=True)
def test_lxd(pair: tuple[Machine, Machine], arrive: Arrive) -> None:
    """LXD stops in good order at its purge, and writes its database down: purged without us, it is not there; from
    one that is kept (removed, not purged) the same is read."""
    one, two = pair
    lxd.install(one)
    one.run("lxd init --auto\n" + lxd.IMAGE)
    before = two.snapshot()
    lxd.install(two)
    join(one, two, "lxc", "lxd")
    two.run(["apt-get", "remove", "-y", "-q", *lxd.PACKAGES], timeout=300)
    arrive(two)
    said = leftovers(two, "clean", "lxd", "--yes")
    assert "lxc cluster remove two --force" in said.out, said.out
    leftovers(two, "clean", "lxd", "--yes", "--data")
    lxd.purge(two)
    same(two, before, keep=lxd.KEPT, said=said.out)
    one.run("echo yes | lxc cluster remove two --force", timeout=120)
    assert one.run("lxc list -f csv -c ns").out == "c1,RUNNING\n"
