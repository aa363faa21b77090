"""mountinfo as the kernel writes it, and paths in terms of it."""

from leftovers import mountinfo

TEXT = rb"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 27 254:0 /srv/pool /var/lib/incus/storage-pools/pool2 rw shared:1 - ext4 /dev/vda rw
31 27 0:53 / /var/lib/incus/with\040space\012and\134back rw,relatime shared:74 master:3 x:2 - tmpfs tm\040pfs rw
32 27 254:0 /srv/gone//deleted /mnt rw - ext4 /dev/vda rw
nonsense
33 27 0:x rw
"""


def test_a_file_of_the_kernel() -> None:
    mounts = mountinfo.parse(TEXT)
    assert [mount.id for mount in mounts] == [22, 27, 30, 31, 32]
    odd = mounts[3]
    assert odd.point == "/var/lib/incus/with space\nand\\back"
    assert (odd.shared, odd.master, odd.fstype, odd.source, odd.majmin) == (74, 3, "tmpfs", "tm pfs", "0:53")
    assert mounts[1].shared == 1 and mounts[0].shared == 0


def test_below_is_by_components() -> None:
    assert mountinfo.below("/var/lib/incus", "/var/lib/incus")
    assert mountinfo.below("/var/lib/incus/x", "/var/lib/incus/")
    assert not mountinfo.below("/var/lib/incus-backup", "/var/lib/incus")
    assert not mountinfo.below("/var/lib", "/var/lib/incus")
    assert mountinfo.below("/anything", "/")
    assert not mountinfo.below("/anything", "")


def test_places_and_host_paths_are_inverse() -> None:
    mounts = mountinfo.parse(TEXT)
    assert mountinfo.place(mounts, "/srv/pool/x") == ("254:0", "/srv/pool/x")
    assert mountinfo.place(mounts, "/var/lib/incus/storage-pools/pool2/c1") == ("254:0", "/srv/pool/c1")
    assert mountinfo.place(mounts, "/proc/1") == ("0:21", "/1")
    assert mountinfo.host_path(mounts, "254:0", "/srv/pool", avoid="/var/lib/incus") == "/srv/pool"
    assert mountinfo.host_path(mounts, "7:7", "/x") is None


def test_the_root_of_a_host_that_stands_in_a_directory() -> None:
    mounts = mountinfo.parse(b"27 1 254:0 /var/lib/machines/lab / rw - ext4 /dev/vda rw\n")
    assert mountinfo.place(mounts, "/") == ("254:0", "/var/lib/machines/lab")
    assert mountinfo.place(mounts, "/srv") == ("254:0", "/var/lib/machines/lab/srv")
    assert mountinfo.host_path(mounts, "254:0", "/var/lib/machines/lab/srv") == "/srv"


def test_a_source_that_is_a_file_system_of_its_own() -> None:
    mounts = mountinfo.parse(
        b"27 1 254:0 / / rw - ext4 /dev/vda rw\n"
        b"28 27 8:16 / /srv/pool rw - ext4 /dev/sdb rw\n"
        b"29 27 8:16 / /var/lib/incus/storage-pools/p rw - ext4 /dev/sdb rw\n"
    )
    assert mountinfo.host_path(mounts, "8:16", "/", avoid="/var/lib/incus") == "/srv/pool"


def test_the_last_of_two_mounts_on_one_point_covers() -> None:
    mounts = mountinfo.parse(b"1 0 8:1 / / rw - ext4 a rw\n2 1 0:5 / / rw - tmpfs b rw\n")
    covering = mountinfo.covering(mounts, "/etc")
    assert covering is not None and covering.id == 2
