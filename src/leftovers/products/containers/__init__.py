"""Products that bring a containerd of their own, and mostly a Kubernetes: their leftovers have the same shapes.

`product` makes a product's description from its Runtime and from what else is different. Sources: containerd, runc,
containernetworking/{cni,plugins}, kubernetes, projectcalico/calico, cilium, flannel; each rule names its own.
"""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Any

from leftovers import claims
from leftovers.claims import Case, Finding, Rule
from leftovers.kinds import KINDS
from leftovers.model import Object
from leftovers.products.containers import docker, firewall, instances, network, processes, reading, storage
from leftovers.products.containers.known import trace
from leftovers.products.containers.names import Marker, Runtime, rules
from leftovers.products.product import Product

__all__ = ["Marker", "Runtime", "product"]

# What kinds list only where a product asks for it.
ASKED = {
    "routes": ("protocol 80", "protocol 12 type blackhole", "table 2004"),
    "addresses": ("tunl0",),
    "nft_tables": ("inet cni_plugins_masquerade", "ip cni_hostport", "ip6 cni_hostport"),
    "bpf": (
        *("/sys/fs/bpf/tc/globals/cali_*", "/sys/fs/bpf/tc/globals/cilium_*"),
        *("/sys/fs/bpf/tc/globals/calico_*", "/sys/fs/bpf/tc/globals/xdp_cali_*"),
        *("/sys/fs/bpf/calico", "/sys/fs/bpf/cilium", "cali_*", "cil_*"),
        # Of Cilium before 1.12.
        *("sock[46]_*", "from_netdev", "to_netdev", "handle_*"),
    ),
}


def setting(runtime: Runtime, obj: Object, case: Case) -> Finding | None:
    """A setting of the whole host; other products set the same."""
    if not trace(runtime, case):
        return None
    return claims.reported(f"{runtime.title} sets it; what stood before is not known")(obj, case)


def product(runtime: Runtime, **different: Any) -> Product:
    """The description of a product. `different` has what Runtime has no word for: snaps, packages, units ...; its
    readers are asked after those that all have."""
    kinds = {kind.name for kind in KINDS}
    units: tuple[str, ...] = different.get("units", ())
    by_kind: dict[str, tuple[Rule, ...]] = {
        "unit": (claims.declared_unit(*units),),
        "process": rules(runtime, *processes.PROCESSES),
        "cgroup": rules(runtime, *processes.CGROUPS),
        "netns": rules(runtime, processes.netns),
        "mount": rules(runtime, storage.mount),
        "link": rules(runtime, *network.LINKS, *docker.LINKS),
        "xtables": rules(runtime, *firewall.XTABLES, *docker.XTABLES),
        "nft": rules(runtime, firewall.table),
        "loop": tuple(
            claims.backed_below(path, "", "the device of a volume") for path in (runtime.directory, *runtime.beside)
        ),
        "apparmor": rules(runtime, firewall.profile),
        "file": rules(runtime, *storage.RULES, *docker.FILES),
        "account": (claims.reported(f"made for {runtime.title}"),),
        "sysctl": rules(runtime, setting),
    }
    by_kind |= {kind: rules(runtime, *some) for kind, some in {**network.LATER, **firewall.LATER}.items()}
    known = {field.name for field in fields(Product)}
    asked: dict[str, Any] = {name: what for name, what in ASKED.items() if name in known and "kube" in runtime.brings}
    return Product(
        name=runtime.name,
        title=runtime.title,
        directories=storage.directories(runtime),
        readers=tuple(
            partial(reader, runtime)
            for reader in (
                reading.read_places,
                reading.read_listeners,
                reading.read_grounds,
                reading.read_programs,
                reading.read_shims,
                reading.read_disk,
                reading.read_shared,
                reading.read_cni,
                reading.read_marked,
                reading.read_ufw,
                reading.read_logs,
            )
        )
        + tuple(different.pop("readers", ())),
        places=partial(reading.places, runtime),
        rules={kind: some for kind, some in by_kind.items() if kind in kinds},
        instances=partial(instances.instances, runtime),
        # Not of what all share by name: another may have taken it over, as it is.
        recall=frozenset({"process", "mount", "loop"}),
        **asked,
        **different,
    )
