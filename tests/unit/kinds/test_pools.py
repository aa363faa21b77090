"""Storage pools on recorded output, through tools that only print and note how they were called.

vgs: LVM 2.03.16, two physical volumes on loop devices. zpool: put together after OpenZFS 2.2's print_list_stats(),
for want of a kernel that has it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from leftovers import run
from leftovers.host import Host
from leftovers.kinds.kind import Look
from leftovers.kinds.pools import StoragePools, vdevs_by_pool
from leftovers.model import Deadline, Object, Verb

VGS = """  {
      "report": [
          {
              "vg": [
                  {"vg_name":"leftvg", "vg_uuid":"lo7bMM-sdX8-f5p3-ckfk-nufp-BrkW-WvudSu", "pv_name":"/dev/loop0", "vg_tags":"incus_pool,b"},
                  {"vg_name":"leftvg", "vg_uuid":"lo7bMM-sdX8-f5p3-ckfk-nufp-BrkW-WvudSu", "pv_name":"/dev/loop1", "vg_tags":"incus_pool,b"},
                  {"vg_name":"idle", "vg_uuid":"abcdef-sdX8-f5p3-ckfk-nufp-BrkW-WvudSu", "pv_name":"/dev/vdb", "vg_tags":""}
              ]
          }
      ]
  }
"""  # noqa: E501
UUID = "lo7bMM-sdX8-f5p3-ckfk-nufp-BrkW-WvudSu"
DM = f"LVM-{UUID.replace('-', '')}wCBeLJ3orst60qf4sB2MhceLvNDZ9s9v"[:68]

ZPOOL_V = (
    "default\t28.5G\t1.02G\t27.5G\t-\t-\t0%\t3%\t1.00x\tONLINE\t-\n"
    "\t/var/lib/incus/disks/de fault.img\t29.0G\t1.02G\t27.5G\t-\t-\t0%\t3.57%\t-\tONLINE\n"
    "tank\t3.62T\t1.0T\t2.6T\t-\t-\t1%\t27%\t1.00x\tONLINE\t-\n"
    "\tmirror-0\t3.62T\t1.0T\t2.6T\t-\t-\t1%\t27.6%\t-\tONLINE\n"
    "\t/dev/loop7p1\t3.64T\t-\t-\t-\t-\t-\t-\t-\tONLINE\n"
    "\t/dev/sdb1\t3.64T\t-\t-\t-\t-\t-\t-\t-\tONLINE\n"
    "logs                              -      -      -        -         -      -      -      -         -\n"
    "\t/dev/nvme0n1p2\t8G\t0\t7.5G\t-\t-\t0%\t0.00%\t-\tONLINE\n"
)
ZPOOL = "default\t9170462391063543111\ntank\t123\n"

TOOL = """#!/bin/sh
printf '%s\\n' "${0##*/} $*" >> "$(dirname "$0")/calls"
if [ -n "$(cat "$(dirname "$0")/error" 2>/dev/null)" ]; then
    case "$1" in export|--activate) cat "$(dirname "$0")/error" >&2; exit 1;; esac
fi
case "${0##*/} $*" in
    "zpool list -v"*) cat "$(dirname "$0")/zpool-v";;
    "zpool list"*) cat "$(dirname "$0")/zpool-list";;
    vgs*) cat "$(dirname "$0")/vgs-json";;
esac
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "tools"
    directory.mkdir()
    for name in ("zpool", "vgs", "vgchange"):
        (directory / name).write_text(TOOL)
        (directory / name).chmod(0o755)
    (directory / "zpool-v").write_text(ZPOOL_V)
    (directory / "zpool-list").write_text(ZPOOL)
    (directory / "vgs-json").write_text(VGS)
    (directory / "calls").write_text("")
    monkeypatch.setattr(run, "DIRECTORIES", (str(directory),))
    return directory


@pytest.fixture
def host(tmp_path: Path) -> Host:
    root = tmp_path / "root"
    (root / "sys/module/zfs").mkdir(parents=True)
    (root / "sys/block/dm-0/dm").mkdir(parents=True)
    (root / "sys/block/dm-0/dm/uuid").write_text(f"{DM}\n")
    (root / "sys/block/dm-0/dm/name").write_text("leftvg-containers_a----b\n")
    (root / "sys/block/dm-0/dev").write_text("253:0\n")
    return Host(str(root))


def survey(host: Host) -> dict[str, Object]:
    loops = [
        Object("loop", name, (name, 1), {"device": f"/dev/{name}", "backing_file": f"/var/lib/incus/disks/{name}.img"})
        for name in ("loop0", "loop1", "loop7")
    ]
    listing = StoragePools().survey(Look(host, listed={"loop": tuple(loops)}))
    assert listing.faults == ()
    return {object.key: object for object in listing.objects}


def calls(tools: Path) -> list[str]:
    return (tools / "calls").read_text().splitlines()


def test_facts(host: Host, tools: Path) -> None:
    objects = survey(host)
    # The group "idle" has no active volume: it holds nothing in the kernel.
    assert list(objects) == ["zfs default", "zfs tank", "lvm leftvg"]
    assert objects["zfs default"].facts == {
        "type": "zfs",
        "name": "default",
        "guid": "9170462391063543111",
        "devices": ["/var/lib/incus/disks/de fault.img"],
        "backing": ["/var/lib/incus/disks/de fault.img"],
        "tags": [],
        "volumes": {},
    }
    assert objects["zfs tank"].facts["devices"] == ["/dev/loop7p1", "/dev/sdb1", "/dev/nvme0n1p2"]
    assert objects["zfs tank"].facts["backing"] == ["/var/lib/incus/disks/loop7.img"]
    assert objects["lvm leftvg"].identity == ("lvm", "leftvg", UUID)
    assert objects["lvm leftvg"].facts["devices"] == ["/dev/loop0", "/dev/loop1"]
    assert objects["lvm leftvg"].facts["tags"] == ["incus_pool", "b"]
    assert objects["lvm leftvg"].facts["volumes"] == {"253:0": "containers_a--b"}
    assert objects["lvm leftvg"].facts["backing"] == [
        "/var/lib/incus/disks/loop0.img",
        "/var/lib/incus/disks/loop1.img",
    ]


def test_nothing_is_run_without_the_kernel_side(tmp_path: Path, tools: Path) -> None:
    assert survey(Host(str(tmp_path / "bare"))) == {}
    assert calls(tools) == []


def test_a_missing_tool_is_nothing(host: Host, tools: Path) -> None:
    for name in ("zpool", "vgs"):
        (tools / name).unlink()
    assert survey(host) == {}


def test_they_are_exported_and_deactivated(host: Host, tools: Path) -> None:
    objects = survey(host)
    (tools / "calls").write_text("")
    asked = [objects["zfs default"], objects["lvm leftvg"]]
    assert StoragePools().act(host, Verb.REMOVE, asked, Deadline(10)) == {}
    acts = [call for call in calls(tools) if " list " not in call and not call.startswith("vgs")]
    assert acts == ["zpool export default", f"vgchange --activate n --select vg_uuid={UUID}"]


def test_a_pool_of_that_name_with_another_guid_is_left_alone(host: Host, tools: Path) -> None:
    objects = survey(host)
    (tools / "zpool-list").write_text("default\t42\n")
    (tools / "vgs-json").write_text(VGS.replace("lo7bMM", "XXXXXX"))
    asked = [objects["zfs default"], objects["lvm leftvg"]]
    assert StoragePools().act(host, Verb.REMOVE, asked, Deadline(10)) == {}
    assert not [call for call in calls(tools) if "export" in call or "vgchange" in call]


def test_what_the_tool_says_is_the_cause(host: Host, tools: Path) -> None:
    objects = survey(host)
    (tools / "error").write_text("cannot export 'default': pool is busy\n")
    assert StoragePools().act(host, Verb.REMOVE, [objects["zfs default"]], Deadline(10)) == {
        "pool:zfs default": "cannot export 'default': pool is busy"
    }


def test_a_report_that_is_none_is_a_fault(host: Host, tools: Path) -> None:
    (tools / "vgs-json").write_text("  Devices file not found\n")
    listing = StoragePools().survey(Look(host, listed={"loop": ()}))
    assert [object.key for object in listing.objects] == ["zfs default", "zfs tank"]
    assert listing.faults[0].startswith("storage pools: vgs: said something else than a report")


def test_headings_are_no_vdevs() -> None:
    assert vdevs_by_pool(ZPOOL_V) == {
        "default": ["/var/lib/incus/disks/de fault.img"],
        "tank": ["/dev/loop7p1", "/dev/sdb1", "/dev/nvme0n1p2"],
    }
