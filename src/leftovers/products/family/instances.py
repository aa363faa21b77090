"""Instances are asked to shut down before a removal, and started again when it did not come to it.

Only through the daemon: QEMU's own monitor would take the request too, but what came down without the daemon could not
be started again, and it has one client at a time, the daemon while that lives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leftovers.evidence.incus_records import instance_parts
from leftovers.host import Host
from leftovers.model import Deadline, Record
from leftovers.products.family.names import Names


def stop(names: Names, host: Host, records: Sequence[Record], deadline: Deadline) -> Mapping[str, str]:
    """Product.stop: the running instances among `records`, but for the ephemeral ones. They are deleted when they
    stop (internal/server/instance/drivers/driver_lxc.go, onStop), and the removal may still fail.

    An instance is only asked if a record that says that it runs also says that it is not ephemeral.
    """
    from leftovers.daemons import incus

    instances = [record for record in records if record.type == "instance"]
    ephemeral = {record.name for record in instances if record.facts.get("ephemeral")}
    persistent = {
        record.name: record
        for record in instances
        if record.facts.get("running") is True
        and record.facts.get("ephemeral") is False
        and record.name not in ephemeral
    }
    return incus.stop(host, list(persistent.values()), deadline, names.socket)


def start(names: Names, host: Host, instances: Sequence[str], deadline: Deadline) -> Mapping[str, str]:
    """Product.start: the names are those of records, "c1" or "proj_p1"."""
    from leftovers.daemons import incus

    parts = {"/".join(instance_parts(name)): name for name in instances}
    causes = incus.start(host, [instance_parts(name) for name in instances], deadline, names.socket)
    return {parts[key]: cause for key, cause in causes.items()}
