"""Real trees: nothing behind a mount, nothing behind a symlink, however a container arranged it."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from dataclasses import replace

from sandbox import private, sh
from things import act, look

from leftovers.model import Object, Scope


def files(*paths: str) -> dict[str, Object]:
    return look("file", scope=Scope(directories=paths))["file"]


def write(path: str, text: str = "x") -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


@private
def test_a_tree_goes_and_a_sibling_with_the_same_prefix_stays() -> None:
    write("/srv/incus/a/b/c")
    write("/srv/incus/with\nnewline/ and blank ")
    os.mkfifo("/srv/incus/fifo")
    os.symlink("/srv/incus-backup", "/srv/incus/link")
    write("/srv/incus-backup/kept")
    assert act("file", files("/srv/incus").values()) == {}
    assert not os.path.lexists("/srv/incus")
    assert os.path.exists("/srv/incus-backup/kept")


@private
def test_trap_0_4_a_bind_mount_of_the_same_file_system_is_not_crossed() -> None:
    # rm --one-file-system crosses it, shutil.rmtree and os.RemoveAll do: the administrator's files are gone then.
    write("/srv/admin/precious")
    write("/srv/incus/pool/other")
    os.makedirs("/srv/incus/pool/data")
    sh("mount", "--bind", "/srv/admin", "/srv/incus/pool/data")
    causes = act("file", files("/srv/incus").values())
    assert "a mount is in the way" in causes["/srv/incus"]
    assert os.path.exists("/srv/admin/precious")
    assert not os.path.exists("/srv/incus/pool/other"), "the rest went"


@private
def test_rm_one_file_system_would_have_crossed_it() -> None:
    # The control for the test above.
    write("/srv/admin/precious")
    os.makedirs("/srv/incus/data")
    sh("mount", "--bind", "/srv/admin", "/srv/incus/data")
    sh("rm", "--one-file-system", "-Rf", "/srv/incus", check=False)
    assert not os.path.exists("/srv/admin/precious")


@private
def test_a_file_that_is_bind_mounted_is_not_emptied_or_removed() -> None:
    write("/srv/admin/file", "precious")
    write("/srv/incus/hosts")
    sh("mount", "--bind", "/srv/admin/file", "/srv/incus/hosts")
    assert "a mount is in the way" in act("file", files("/srv/incus").values())["/srv/incus"]
    with open("/srv/admin/file") as file:
        assert file.read() == "precious"


@private
def test_directories_swapped_for_symlinks_while_we_work_lead_nowhere() -> None:
    write("/srv/admin/deep/precious")
    stop = threading.Event()

    def swap() -> None:
        # A container with a grudge: a directory that becomes a symlink to the host's files, over and over.
        while not stop.is_set():
            try:
                os.makedirs("/srv/incus/trap/deep", exist_ok=True)
                os.rename("/srv/incus/trap", "/srv/incus/gone")
                os.symlink("/srv/admin", "/srv/incus/trap")
                os.unlink("/srv/incus/trap")
                os.rename("/srv/incus/gone", "/srv/incus/trap")
            except OSError:
                pass

    os.makedirs("/srv/incus")
    thread = threading.Thread(target=swap)
    thread.start()
    for _ in range(200):
        act("file", files("/srv/incus").values(), seconds=1.0)
    stop.set()
    thread.join()
    assert os.path.exists("/srv/admin/deep/precious")


@private
def test_a_symlink_in_the_place_of_the_directory_is_unlinked_only() -> None:
    write("/srv/elsewhere/precious")
    os.symlink("/srv/elsewhere", "/srv/incus")
    found = files("/srv/incus")
    assert found["/srv/incus"].facts["type"] == "symlink" and found["/srv/incus"].facts["target"] == "/srv/elsewhere"
    assert act("file", found.values()) == {}
    assert not os.path.lexists("/srv/incus") and os.path.exists("/srv/elsewhere/precious")


@private
def test_a_directory_that_is_a_mount_point_stays_and_is_emptied_only_when_that_is_asked_for() -> None:
    os.makedirs("/srv/incus")
    sh("mount", "-t", "tmpfs", "tmpfs", "/srv/incus")
    write("/srv/incus/a/b")
    write("/srv/admin/precious")
    os.makedirs("/srv/incus/bound")
    sh("mount", "--bind", "/srv/admin", "/srv/incus/bound")
    found = files("/srv/incus")
    assert found["/srv/incus"].facts["mounted"] and found["/srv/incus"].facts["mounts"] == ["/srv/incus/bound"]
    assert "is a mount point" in act("file", found.values())["/srv/incus"]
    assert os.path.exists("/srv/incus/a/b")
    asked = [replace(obj, facts={**obj.facts, "contents": True}) for obj in found.values()]
    assert "mount is in the way" in act("file", asked)["/srv/incus"]
    assert os.listdir("/srv/incus") == ["bound"] and os.path.exists("/srv/admin/precious")


@private
def test_of_a_disk_that_is_emptied_stays_what_its_file_system_has_for_itself() -> None:
    os.makedirs("/srv/data")
    sh("mount", "-t", "tmpfs", "tmpfs", "/srv/data")
    write("/srv/data/lost+found/#12")
    write("/srv/data/overlay2/lost+found/x")
    asked = [replace(obj, facts={**obj.facts, "contents": True}) for obj in files("/srv/data").values()]
    assert act("file", asked) == {}
    assert os.listdir("/srv/data") == ["lost+found"] and os.listdir("/srv/data/lost+found") == ["#12"]


@private
def test_a_symlink_on_a_strict_way_is_refused() -> None:
    write("/srv/libvirt/images/disk")
    os.makedirs("/srv/home")
    os.symlink("/srv/libvirt", "/srv/home/pool")
    found = files("/srv/home/pool/images")
    strict = [replace(obj, facts={**obj.facts, "strict": True}) for obj in found.values()]
    assert act("file", strict) != {} and os.path.exists("/srv/libvirt/images/disk")


@private
def test_a_tree_deeper_than_files_may_be_open() -> None:
    os.makedirs("/srv/incus")
    home = os.getcwd()
    os.chdir("/srv/incus")
    for _ in range(3000):
        os.mkdir("d")
        os.chdir("d")
    os.chdir(home)
    assert act("file", files("/srv/incus").values()) == {}
    assert not os.path.exists("/srv/incus")


@private
def test_only_directories_go_where_a_product_says_so() -> None:
    os.makedirs("/srv/lxc/lock/var/lib/incus")
    found = files("/srv/lxc")
    assert found["/srv/lxc"].facts["hollow"]
    hollow = [replace(obj, facts={**obj.facts, "only_hollow": True}) for obj in found.values()]
    write("/srv/lxc/lock/var/lib/lxc/.c1")  # somebody else's lock, made meanwhile
    assert act("file", hollow) != {}
    assert os.path.exists("/srv/lxc/lock/var/lib/lxc/.c1")
    os.unlink("/srv/lxc/lock/var/lib/lxc/.c1")
    assert act("file", hollow) == {} and not os.path.exists("/srv/lxc")


@private
def test_a_deadline_ends_the_removal_of_a_tree_that_is_filled_meanwhile() -> None:
    os.makedirs("/srv/incus")
    filler = subprocess.Popen(["sh", "-c", "while :; do mkdir -p /srv/incus/$$/a; : > /srv/incus/$$/a/f; done"])
    began = time.monotonic()
    act("file", files("/srv/incus").values(), seconds=1.0)
    assert time.monotonic() - began < 3.0
    filler.kill()
    filler.wait()


@private
def test_directories_of_others_stay_where_a_user_s_own_go() -> None:
    """A user can move root's things into a directory of his own: he could not delete what is in them himself."""
    for path in ("/srv/home/store/a/file", "/srv/home/store/sub/file", "/srv/home/store/root/of/precious"):
        write(path)
    for path, uid in (("store", 1000), ("store/a", 1000), ("store/sub", 100033), ("store/root", 1000)):
        os.chown(f"/srv/home/{path}", uid, uid)
    own = {"strict": True, "owners": [[1000, 1000], [100000, 165535]]}
    asked = [replace(obj, facts={**obj.facts, **own}) for obj in files("/srv/home/store").values()]
    causes = act("file", asked)
    assert causes == {"/srv/home/store": "/srv/home/store/root/of: is of uid 0, and left alone"}
    left = [os.path.join(top, name) for top, _, names in os.walk("/srv/home") for name in names]
    assert left == ["/srv/home/store/root/of/precious"]
    # A whole directory of somebody else's in its place is not entered either.
    os.rename("/srv/home/store/root/of", "/srv/home/of")
    os.rename("/srv/home/of", "/srv/home/other")
    asked = [replace(obj, facts={**obj.facts, **own}) for obj in files("/srv/home/other").values()]
    assert "is of uid 0" in act("file", asked)["/srv/home/other"] and os.path.exists("/srv/home/other/precious")
    # Nor is a file in it, once a directory of somebody else's has come to be where a user's was.
    for name in ("containers", "aside"):
        write(f"/srv/home/{name}/storage")
    os.chown("/srv/home", 1000, 1000)
    for path in ("/srv/home/containers", "/srv/home/containers/storage"):
        os.chown(path, 1000, 1000)
    asked = [replace(obj, facts={**obj.facts, **own}) for obj in files("/srv/home/containers/storage").values()]
    os.rename("/srv/home/containers", "/srv/home/before")
    os.rename("/srv/home/aside", "/srv/home/containers")
    assert "is of uid 0" in act("file", asked)["/srv/home/containers/storage"]
    assert os.path.exists("/srv/home/containers/storage")
    # His own goes out of a directory that is root's (/dev/shm).
    os.chown("/srv/home/containers/storage", 1000, 1000)
    assert act("file", asked) == {} and not os.path.exists("/srv/home/containers/storage")
