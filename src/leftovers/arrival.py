"""What stood before a product came: written down while it can still be seen, since nothing tells it afterwards.

A setting of the host that a product changes (a sysctl, the policy of FORWARD) and a thing that may have been there
before it (a group, a symlink) prove nothing when the product goes. This record does.
Only the host's own things are read: no other namespace, no process. Looking changes nothing: no table is made and no
module loaded (see kinds/nft.py and kinds/xtables.py for how each is asked).
"""

from __future__ import annotations

import re
from typing import Any

from leftovers.errors import Fault, Unreadable
from leftovers.host import Host
from leftovers.kinds import KINDS, Look, nft, survey_order, xtables
from leftovers.kinds.accounts import FILES
from leftovers.ledger import FORMAT, Ledger, now
from leftovers.model import Listing, Object, Presence, Scope
from leftovers.products import Product
from leftovers.run import run
from leftovers.survey import listed_by, presence

__all__ = ["note", "observe"]

# What container products set for the whole host, besides what a product declares itself: Incus' and LXD's
# driver_bridge.go and nic_routed.go (forwarding, accept_ra), Docker's setup_ip_forwarding.go, kube-proxy's proxier.go
# (route_localnet, bridge-nf-call-*), MicroK8s' run-kubelite-with-args and utils.sh (fs.aio-max-nr, fs.inotify.*),
# what zabbly's Incus brings (etc/sysctl.d/50-incus.conf), and what manuals ask administrators to raise.
SYSCTLS = (
    "fs.aio-max-nr",
    "fs.inotify.max_queued_events",
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
    "net.bridge.bridge-nf-call-ip6tables",
    "net.bridge.bridge-nf-call-iptables",
    "net.ipv4.ip_forward",
    "net.ipv4.conf.all.forwarding",
    "net.ipv4.conf.all.route_localnet",
    "net.ipv4.conf.default.forwarding",
    "net.ipv4.conf.default.route_localnet",
    "net.ipv4.fib_sync_mem",
    "net.ipv4.neigh.default.gc_thresh3",
    "net.ipv6.conf.all.accept_ra",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.default.accept_ra",
    "net.ipv6.conf.default.forwarding",
    "net.ipv6.neigh.default.gc_thresh3",
    "vm.max_map_count",
)
KEYS = "/proc/sys/kernel/keys"
# MicroK8s makes symlinks of these where there is nothing (canonical/microk8s snap/hooks/install and configure), and
# its remove hook unlinks them whatever they point to.
PLACES = ("/etc/cni/net.d", "/opt/cni/bin", "/var/lib/calico", "/var/lib/kubelet")
# linux/netfilter/nf_tables.h: of base chains only. linux/netfilter.h: NF_DROP, NF_ACCEPT.
NFTA_CHAIN_POLICY = 5
POLICIES = {0: "DROP", 1: "ACCEPT"}


def note(host: Host, ledger: Ledger, product: Product, package: str, version: str) -> bool:
    """Write down what stands before a product comes as this version of this package; says whether it was written.

    Nothing is when it is no arrival: the product is installed (an upgrade, a reinstallation), or it was removed and
    not purged, and it is known what stood before it first came. The caller holds the ledger's lock.
    Raises Refusal when it cannot be written, Unreadable or ToolFault when nobody can say whether it is an arrival.
    """
    # Processes are only listed when the files and dpkg do not say it already: this runs in the middle of dpkg.
    found, _ = presence(host, product, {"process": (), "mount": ()})
    if found is not Presence.INSTALLED:
        found, _ = presence(host, product, processes_and_mounts(host))
    if found is Presence.INSTALLED:
        return False
    if found is Presence.REMOVED and ledger.arrivals(product.name) is not None:
        return False
    document = observe(host, product, package=package, version=version)
    ledger.arrival(product.name, {**document, "presence": found.value})
    return True


def processes_and_mounts(host: Host) -> dict[str, tuple[Object, ...]]:
    """These two kinds, listed. Raises Unreadable: with a part of them a product that runs might look absent."""
    listed: dict[str, tuple[Object, ...]] = {}
    for kind in survey_order():
        if kind.name in ("process", "mount"):
            listing = listed_by(kind, Look(host, Scope(), listed))
            if listing.faults:
                raise Unreadable(kind.title, listing.faults[0])
            listed[kind.name] = listing.objects
    return listed


def observe(host: Host, product: Product, *, package: str, version: str) -> dict[str, Any]:
    """What stands on the host now, as the JSON document that docs/ledger.md describes ("arrivals").

    `package` and `version` are those that are about to come. What could not be read is null or left out, and there
    is a line about it in "faults". Never raises.
    """
    faults: list[str] = []
    document: dict[str, Any] = {
        "format_version": FORMAT,
        "product": product.name,
        "package": package,
        "version": version,
        "time": now(),
        "boot_id": "",
        "sysctls": sysctls(host, product, faults),
        "forward": {**forward_nft(host, faults), **forward_legacy(host, faults)},
        "nft": sorted(obj.key for obj in kind("nft", Look(host), faults)),
        # No other network namespace and no other mount namespace: none is listed for these to look into.
        "links": sorted(obj.key for obj in kind("link", Look(host, Scope(), {"netns": ()}), faults)),
        "accounts": accounts(host, product, faults),
        "modules": modules(host, faults),
        "paths": paths(host, faults),
    }
    try:
        document["boot_id"] = host.boot_id()
    except Unreadable as fault:
        faults.append(str(fault))
    return {**document, "faults": faults}


def kind(name: str, look: Look, faults: list[str]) -> tuple[Object, ...]:
    """The objects of one kind; what it could not read goes to `faults`."""
    listing: Listing = listed_by(next(kind for kind in KINDS if kind.name == name), look)
    faults += listing.faults
    return listing.objects


def sysctls(host: Host, product: Product, faults: list[str]) -> dict[str, str | None]:
    """Values by name; null for one that this kernel, or this network namespace, does not have."""
    names = {*SYSCTLS, *(wanted.partition("=")[0] for wanted in product.sysctls)}
    try:
        names |= {f"kernel.keys.{name}" for name in host.listdir(KEYS)}
    except Unreadable as fault:
        faults.append(str(fault))
    values: dict[str, str | None] = dict.fromkeys(sorted(names))
    for name in values:
        path = f"/proc/sys/{name.replace('.', '/')}"
        try:
            values[name] = host.read(path, 4096).strip()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            faults.append(f"{path}: {error.strerror or error}")
    return values


def forward_nft(host: Host, faults: list[str]) -> dict[str, str | None]:
    """The policy of FORWARD as iptables-nft and ip6tables-nft have it: of the base chain FORWARD in nft's tables
    `ip filter` and `ip6 filter`. Asked over nfnetlink, so that no tool can make the chain by listing it."""
    tools = {"ip": "iptables-nft", "ip6": "ip6tables-nft"}
    found: dict[str, str | None] = dict.fromkeys(tools.values())
    try:
        chains = nft.dump(nft.NFT_MSG_GETCHAIN) if nft.in_kernel(host) else []
    except Unreadable as fault:
        faults.append(f"policy of FORWARD: {fault}")
        return found
    for family, attributes in chains:
        table, chain = nft.text(attributes, nft.NFTA_CHAIN_TABLE), nft.text(attributes, nft.NFTA_CHAIN_NAME)
        if family in tools and (table, chain) == ("filter", "FORWARD") and NFTA_CHAIN_POLICY in attributes:
            found[tools[family]] = POLICIES.get(int.from_bytes(attributes[NFTA_CHAIN_POLICY], "big"))
    return found


def forward_legacy(host: Host, faults: list[str]) -> dict[str, str | None]:
    """The same of iptables-legacy and ip6tables-legacy, which are run only where their table is there already: they
    would make it."""
    found: dict[str, str | None] = {}
    for family, path in xtables.NAMES.items():
        tool = f"{xtables.TOOLS[family]}-legacy"
        found[tool] = None
        try:
            if "filter" not in host.read(path).split():
                continue
            # -save and not -S: that one would take, and make, /run/xtables.lock.
            said = run([f"{tool}-save", "-t", "filter"], package="iptables", timeout=60.0).out
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, Fault) as error:
            faults.append(f"policy of FORWARD ({tool}): {error}")
            continue
        found[tool] = policy(said)
    return found


def policy(saved: str) -> str | None:
    """The policy of FORWARD in what an iptables-save printed: ":FORWARD DROP [0:0]"."""
    found = re.search(r"^:FORWARD (\S+)", saved, re.MULTILINE)
    return found[1] if found and found[1] != "-" else None


def accounts(host: Host, product: Product, faults: list[str]) -> dict[str, list[str]]:
    """For each user, group and id range that the product's packages add, the lines that there are of it already."""
    for _, path in FILES:
        try:
            host.read_bytes(path, 1)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:  # the kind takes an unreadable file for an empty one
            faults.append(f"{path}: {error.strerror or error}")
    lines: dict[str, list[str]] = {wanted: [] for wanted in product.accounts}
    for obj in kind("account", Look(host, Scope(accounts=product.accounts)), faults):
        lines[f"{obj.facts['type']} {obj.facts['name']}"].append(str(obj.facts["line"]))
    return lines


def modules(host: Host, faults: list[str]) -> list[str]:
    """The kernel modules that are loaded (/proc/modules, proc(5)); a kernel without modules has none."""
    try:
        return sorted(line.partition(" ")[0] for line in host.read("/proc/modules").splitlines())
    except FileNotFoundError:
        return []
    except OSError as error:
        faults.append(f"/proc/modules: {error.strerror or error}")
        return []


def paths(host: Host, faults: list[str]) -> dict[str, str | None]:
    """What stands at PLACES: the target of a symlink, as it was written; else the type; null when there is nothing."""
    found: dict[str, str | None] = dict.fromkeys(PLACES)
    mounts = kind("mount", Look(host, Scope(), {"process": ()}), faults)
    for obj in kind("file", Look(host, Scope(directories=PLACES), {"mount": mounts}), faults):
        found[obj.key] = str(obj.facts["target"] if obj.facts["type"] == "symlink" else obj.facts["type"])
    return found
