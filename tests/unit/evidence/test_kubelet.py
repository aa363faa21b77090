"""What a kubelet has in its directory. No volume is entered."""

from __future__ import annotations

import os
import pathlib

from leftovers.evidence import kubelet
from leftovers.host import Host

UID = "11111111-2222-3333-4444-555555555555"


def test_pods(tmp_path: pathlib.Path) -> None:
    pod = tmp_path / "kubelet/pods" / UID
    for path in (
        "volumes/kubernetes.io~csi/pvc/mount",
        "volumes/kubernetes.io~secret/with space",
        "volume-subpaths/data/web/0",
        "plugins/kubernetes.io~empty-dir",
        "containers/web",
    ):
        (pod / path).mkdir(parents=True)
    (tmp_path / "kubelet/pods" / ("a" * 32)).mkdir()  # a static pod
    os.symlink("kubelet", tmp_path / "link")
    records, faults = kubelet.read(Host(str(tmp_path)), "/link")
    assert faults == [] and [record.name for record in records] == [UID, "a" * 32]
    assert records[0].facts == {
        "path": f"/link/pods/{UID}",
        "volumes": ["kubernetes.io~csi/pvc", "kubernetes.io~secret/with space"],
        "subpaths": ["data/web"],
        "plugins": ["kubernetes.io~empty-dir"],
        "containers": ["web"],
    }
    assert kubelet.read(Host(str(tmp_path)), "/none") == ([], [])


def test_names_that_lie(tmp_path: pathlib.Path) -> None:
    pods = tmp_path / "kubelet/pods"
    for name in ("a b", "mine", UID[:-1], f"{UID}\n", UID.upper().replace("1", "A")):
        (pods / name).mkdir(parents=True)
    (pods / UID).write_text("")
    os.symlink("/etc", pods / UID.replace("1", "2"))
    real = pods / UID.replace("1", "3") / "volumes"
    real.mkdir(parents=True)
    os.symlink("/etc", real / "kubernetes.io~secret")
    os.mkdir(os.fsencode(real) + b"/\xff")
    records, faults = kubelet.read(Host(str(tmp_path)), "/kubelet")
    assert [record.name for record in records] == [UID.replace("1", "3")]
    assert records[0].facts["volumes"] == [] and len(faults) == 6
