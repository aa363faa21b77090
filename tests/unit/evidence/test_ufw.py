"""Rules as ufw writes them down (0.36.2, src/backend_iptables.py)."""

from __future__ import annotations

from pathlib import Path

from leftovers.evidence import ufw
from leftovers.host import Host

RULES = """*filter
### RULES ###

### tuple ### allow any any 0.0.0.0/0 any 0.0.0.0/0 in_vxlan.calico
-A ufw-user-input -i vxlan.calico -j ACCEPT

### tuple ### allow any any 0.0.0.0/0 any 0.0.0.0/0 out_cali+
-A ufw-user-output -o cali+ -j ACCEPT

### tuple ### allow any any 0.0.0.0/0 any 0.0.0.0/0 in_cali+ comment=6d696e65
-A ufw-user-input -i cali+ -j ACCEPT

### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in_vxlan.calico
### tuple ### allow any any 0.0.0.0/0 any 10.1.0.0/16 in_vxlan.calico
### tuple ### deny any any 0.0.0.0/0 any 0.0.0.0/0 in_vxlan.calico
### tuple ### allow any any 0.0.0.0/0 any 0.0.0.0/0 in
### tuple ### route:allow any any 0.0.0.0/0 any 0.0.0.0/0 in_cali+!out_eth0
### tuple ### allow any any 0.0.0.0/0 any 0.0.0.0/0 in_a;b`c
### tuple ###
### END RULES ###
"""


def test_who_allows_all_on_a_link(tmp_path: Path) -> None:
    for path in ufw.FILES:
        file = Path(f"{tmp_path}{path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(RULES.replace("0.0.0.0/0", "::/0") if "6" in path else RULES)
    records, faults = ufw.read(Host(str(tmp_path)))
    assert faults == []
    for path in ufw.FILES:
        own = [tuple(record.facts.values()) for record in records if record.name == path]
        assert own[:3] == [("in", "vxlan.calico", False), ("out", "cali+", False), ("in", "cali+", True)]
        assert len(own) == 4  # a strange name is a name; whose it is, a product says


def test_nothing_is_there(tmp_path: Path) -> None:
    assert ufw.read(Host(str(tmp_path))) == ([], [])
