"""What it costs to tell whose everything is, with a thousand containers of Docker's on the host: literal objects, so
that only our own rules count, and not a kernel that makes a thousand namespaces.

One container's share at a thousand is set against its share at a hundred: a rule that goes through all objects for each
object shows as a ratio of ten.
"""

from __future__ import annotations

import gc
import hashlib
import statistics
import time
from collections.abc import Iterator
from typing import Any

from leftovers.claims import Case, attribute
from leftovers.evidence import containerd, docker_network, docker_store
from leftovers.explain import Explainer
from leftovers.kinds import KINDS
from leftovers.model import Claim, Instance, Object, Presence, Record, Scope
from leftovers.products import NAMES, load
from leftovers.survey import Survey, by_object
from leftovers.tree import grown

SOCKET = "/run/containerd/containerd.sock"
TASKS = "/run/containerd/io.containerd.runtime.v2.task/moby"
SHIM = "/usr/bin/containerd-shim-runc-v2"
NETWORK = "a" * 64
REPEATS = 3
HOST = 1


def cost() -> list[dict[str, Any]]:
    """Seconds for all products' claims and orphans, for a tree of all, and for one question, by number of containers;
    and how one container's share grows from the smaller number to the larger."""
    small, large = 100, 1000
    rows = {name: {"name": name} for name in ("claims of all products", "a tree of all", "one question")}
    for size in (small, large):
        seconds: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(REPEATS):
            for name, took in timed(size):
                seconds[name].append(took)
        for name, row in rows.items():
            row[str(size)] = statistics.median(seconds[name])
    for row in rows.values():
        row["share"] = row[str(large)] / row[str(small)] * small / large
    return list(rows.values())


def timed(size: int) -> Iterator[tuple[str, float]]:
    listed, records = host(size)
    gc.collect()
    began = time.perf_counter()
    claims: dict[str, dict[str, Claim]] = {}
    instances: dict[str, tuple[Instance, ...]] = {}
    for name in NAMES:
        product = load(name)
        own = tuple(records) if name in ("docker", "containerd") else ()
        case = Case(name, Presence.INSTALLED, listed, own)
        claims[name] = attribute(case, product.rules, product.recall, product.holds, product.orphans)
        instances[name] = tuple(product.instances(case)) if product.instances else ()
    yield "claims of all products", time.perf_counter() - began
    assert len(claims["docker"]) > 7 * size and not any(claim.orphan for claim in claims["docker"].values())
    present = dict.fromkeys(NAMES, Presence.INSTALLED)
    tenants = {name: load(name).tenants for name in NAMES if load(name).tenants}
    seen = Survey(
        "boot", Scope(), listed, by_object(claims), present, dict.fromkeys(NAMES, ""), dict.fromkeys(NAMES, ()), (),
        tenants=tenants, instances=instances,
    )  # fmt: skip
    began = time.perf_counter()
    assert grown(Explainer(seen), NAMES)
    yield "a tree of all", time.perf_counter() - began
    began = time.perf_counter()
    assert Explainer(seen).explain(f"veth{size // 2:07x}")
    yield "one question", time.perf_counter() - began


def host(size: int) -> tuple[dict[str, tuple[Object, ...]], list[Record]]:
    """So many containers on docker0, each with a published port: what the kinds list, and what Docker has written."""
    listed: dict[str, list[Object]] = {kind.name: [] for kind in KINDS}
    facts = {**docker_network.blank_network(NETWORK), "driver": "bridge", "bridge": "docker0", "creator": 1}
    records = [
        Record("docker-network", NETWORK, "api", {**facts, "subnets": ["172.16.0.0/12"]}),
        Record("docker-info", "docker", "api", {"answered": True, "whole": True, "swarm": False}),
    ]

    def add(kind: str, key: str, identity: tuple[str | int, ...], **facts: Any) -> None:
        listed[kind].append(Object(kind, key, identity, facts))

    def process(pid: int, exe: str, *argv: str, ppid: int, cgroup: str, ns: int = HOST) -> None:
        add(
            "process", str(pid), (pid, 9), pid=pid, ppid=ppid, start=9, exe=exe, argv=list(argv), cgroup=cgroup, uid=0,
            nested=ns != HOST, netns=ns, mntns=ns, pidns=ns, our_net=ns == HOST, our_mnt=ns == HOST, self=False,
            mount_root=[f"0:{ns}", "/"], mount_points=[],
        )  # fmt: skip

    def link(name: str, type: str, netns: int, index: int, **facts: Any) -> None:
        add(
            "link", name if netns == HOST else f"{netns}/{name}", (netns, index, name), name=name, index=index,
            type=type, netns=netns, host=netns == HOST, **{"address": "", "addresses": [], "mtu": 1500, "master": "",
            "peer": "", "peer_netns": 0, "peer_index": 0, "peer_address": "", "vlan": 0, "up": True, "group": 0,
            "pid": 0, **facts},
        )  # fmt: skip

    def mount(point: str, majmin: str, root: str, fstype: str, number: int) -> None:
        add(
            "mount", point, (HOST, number), id=number, parent=1, majmin=majmin, root=root, point=point, fstype=fstype,
            options="rw", shared=1, master=0, source=fstype, ns=HOST, pid=0, host=True, configured="", pin="",
        )  # fmt: skip

    mount("/", "8:1", "/", "ext4", 1)
    link("docker0", "bridge", HOST, 1, addresses=["172.17.0.1"])
    for number in range(size):
        id = hashlib.sha256(str(number).encode()).hexdigest()
        end = hashlib.sha256(id.encode()).hexdigest()
        pid, ns, group = 10000 + 2 * number, 100000 + number, f"/system.slice/docker-{id}.scope"
        veth, address = f"veth{number:07x}", f"172.17.{number // 250}.{number % 250 + 2}"
        process(pid, SHIM, SHIM, "-namespace", "moby", "-id", id, "-address", SOCKET, ppid=1, cgroup="/system.slice")
        process(pid + 1, "/bin/httpd", "httpd", ppid=pid, cgroup=group, ns=ns)
        add(
            "cgroup",
            group,
            (group, number),
            path=group,
            directory=f"/sys/fs/cgroup{group}",
            hierarchy="",
            populated=True,
        )
        pin = f"/run/docker/netns/{id[:12]}"
        add("netns", str(ns), (ns,), inode=ns, host=False, processes=[pid + 1], pins=[pin])
        link(veth, "veth", HOST, 2 * number + 2, peer="eth0", peer_netns=ns, peer_index=2, master="docker0")
        link("eth0", "veth", ns, 2, peer=veth, peer_netns=HOST, peer_index=2 * number + 2)
        mount(f"/var/lib/docker/overlay2/{id}/merged", f"0:{ns}", "/", "overlay", 2 * number + 10)
        mount(pin, "0:4", f"net:[{ns}]", "nsfs", 2 * number + 11)
        port = 10000 + number
        for table, text in (
            ("nat", f"! -i docker0 -p tcp -m tcp --dport {port} -j DNAT --to-destination {address}:80"),
            ("filter", f"-d {address}/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT"),
        ):
            add(
                "xtables", f"nft ip {table} DOCKER {text}", (table, text), family="ip", backend="nft", table=table,
                chain="DOCKER", rule=text, target=text.split("-j ")[1].split()[0], comment="", user=False,
                interfaces=[],
            )  # fmt: skip
        told = {"namespace": "moby", "id": id}
        known = docker_store.blank(id) | {"name": f"c{number}", "state": "running", "layer": id, "endpoints": [end]}
        known |= {"ports": [{"proto": "tcp", "host": "0.0.0.0", "port": port, "inner": 80}], "sandbox": pin}
        known |= {"networks": [NETWORK], "sandbox_id": id}
        records += [
            Record("container", f"moby/{id}", "disk", {**containerd.blank("moby", id), "bundle": f"{TASKS}/{id}"}),
            Record("shim", str(pid), "kernel", {"start": 9, "bundle": f"{TASKS}/{id}", "address": SOCKET, **told}),
            Record("docker", id, "api", known),
            Record("docker-endpoint", end, "api", {**docker_network.blank_endpoint(end), "network": NETWORK,
                   "container": id, "sandbox": id, "address": address, "name": f"c{number}"}),
        ]  # fmt: skip
    return {kind: tuple(objects) for kind, objects in listed.items()}, records
