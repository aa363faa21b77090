"""Whose a thing is, what state it is in and what to do: on literal objects, claims and containers; and that what cannot
be known is unknown."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence

import pytest
from test_relations import HOME, Things

from leftovers import telling
from leftovers.explain import Answer, Explainer, State
from leftovers.host import Host
from leftovers.model import Claim, Evidence, Instance, Object, Presence, Role, Scope
from leftovers.report import Colour
from leftovers.survey import Survey
from leftovers.ways import HostWays, Ways

PROOF = (Evidence("kernel", "seen to be so"),)
ID = "ab" * 32


class Paths(Ways):
    """A host on which these paths are, some of them of packages and some behind symlinks."""

    def __init__(self, *there: str, owned: Mapping[str, str] | None = None, leads: Mapping[str, str] | None = None):
        self.owned, self.leads = owned or {}, leads or {}
        self.there = {*there, *self.owned, *self.leads}

    def real(self, path: str) -> str:
        return self.leads.get(path, path)

    def exists(self, path: str) -> bool:
        return path in self.there

    def owners(self, paths: Sequence[str]) -> Mapping[str, Sequence[str]]:
        return {path: [self.owned[path]] for path in paths if path in self.owned}


class Scene(Things):
    """Objects, whose they are, and the containers that products have."""

    def __init__(self) -> None:
        super().__init__()
        self.netns(HOME, 1)
        self.mount("/", fstype="ext4", majmin="8:1", id=1, parent=0)
        self.claims: dict[str, dict[str, Claim]] = {}
        self.presence = {"incus": Presence.INSTALLED, "docker": Presence.INSTALLED, "containerd": Presence.INSTALLED}
        self.instances: dict[str, tuple[Instance, ...]] = {}
        self.ways: Ways = Paths(owned={"/usr/sbin/dockerd": "docker.io"})

    def own(self, obj: Object, product: str = "docker", role: Role = Role.LIVE, **more: object) -> Object:
        known = {"proven": True, "reason": "because", "evidence": PROOF, **more}
        self.claims.setdefault(obj.id, {})[product] = Claim(product, obj, role, **known)  # type: ignore[arg-type]
        return obj

    def instance(self, name: str, *ties: str, product: str = "docker", id: str = "", state: str = "running") -> None:
        said = Evidence("api", f"{product} has it as {name}")
        found = Instance(product, id or name, name, said, "nginx:1.27", "2026-11-20T10:11:12.3Z", state, ties)
        self.instances[product] = (*self.instances.get(product, ()), found)

    def explainer(self) -> Explainer:
        listed = {kind: tuple(objects) for kind, objects in self.listed.items()}
        tenants = {"containerd": ("docker",)}
        seen = Survey(
            "boot", Scope(), listed, self.claims, self.presence, {}, {}, (), frozenset(), tenants, self.instances
        )
        return Explainer(seen, self.ways)

    def ask(self, asked: str) -> list[Answer]:
        return self.explainer().explain(asked)

    def one(self, asked: str) -> Answer:
        (answer,) = self.ask(asked)
        return answer

    def text(self, asked: str, verbose: bool = False) -> str:
        return telling.answers_text(self.ask(asked), Colour("never", io.StringIO()), verbose)


@pytest.fixture
def scene() -> Scene:
    """A container of Docker's with all of its things, and a bridge; an administrator's pair beside it."""
    scene = Scene()
    group = scene.container(1, 77, ("/run/docker/netns/aa",))
    scene.own(scene.link("docker0", "bridge"))
    scene.listed["link"][0].facts["master"] = "docker0"
    for objects in list(scene.listed.values()):
        for obj in objects:
            if obj.key in ("1001", "77", "veth1", "/system.slice/docker-1.scope", "/run/docker/netns/aa"):
                scene.own(obj)
    scene.instance("web", "process:1001", group, "netns:77", id=ID)
    scene.link("vethdeadbeef", peer="veth0badcaf", peer_netns=HOME)
    scene.link("veth0badcaf", peer="vethdeadbeef", peer_netns=HOME)
    return scene


def test_a_veth_its_chain_to_the_container_its_product_and_its_package(scene: Scene) -> None:
    answer = scene.one("veth1")
    assert (answer.state, answer.product, answer.package) == (State.IN_USE, "docker", "docker.io")
    assert answer.instance is not None and answer.instance.name == "web"
    assert [said.text for said in answer.chain] == [
        "its other end is eth0",
        "eth0 is in network namespace 77",
        "pid 1001 (nginx) lives in network namespace 77",
        "that is web of Docker (image nginx:1.27, created 2026-11-20 10:11:12, running): docker has it as web",
    ]
    assert [step.object.id for step in answer.dependants] == ["link:77/eth0"]
    said = scene.text("veth1")
    assert "in use, Docker's (package docker.io): because" in said and "to do: nothing, it is in use by web" in said


@pytest.mark.parametrize(
    ("asked", "id"),
    [
        ("veth1", "link:veth1"),
        ("link:veth1", "link:veth1"),
        ("link veth1", "link:veth1"),
        ("/sys/class/net/veth1", "link:veth1"),
        ("1001", "process:1001"),
        ("pid:1001", "process:1001"),
        ("process:1001", "process:1001"),
        ("/proc/1001", "process:1001"),
        ("77", "netns:77"),
        ("net:[77]", "netns:77"),
        ("aa", "netns:77"),
        ("77/eth0", "link:77/eth0"),
        ("eth0", "link:77/eth0"),
        ("web/eth0", "link:77/eth0"),
        ("/system.slice/docker-1.scope", "cgroup:/system.slice/docker-1.scope"),
        ("/sys/fs/cgroup/system.slice/docker-1.scope/", "cgroup:/system.slice/docker-1.scope"),
        ("docker-1.scope", "cgroup:/system.slice/docker-1.scope"),
        ("web", f"instance:docker/{ID}"),
        ("container:web", f"instance:docker/{ID}"),
        (ID, f"instance:docker/{ID}"),
        (ID[:12], f"instance:docker/{ID}"),
        ("docker/web", f"instance:docker/{ID}"),
    ],
)
def test_what_a_thing_is_called(scene: Scene, asked: str, id: str) -> None:
    answer = scene.one(asked)
    assert answer.id == id and answer.product == "docker" and answer.state is State.IN_USE
    assert answer.instance is not None and answer.instance.name == "web"


def test_a_container_is_told_with_all_that_is_its_own_or_leads_to_it(scene: Scene) -> None:
    scene.link("lo", "loopback", netns=77)
    steps = {step.object.id: step.text for step in scene.one("web").dependants}
    assert steps == {
        **dict.fromkeys(("process:1001", "cgroup:/system.slice/docker-1.scope", "netns:77"), "is its own"),
        **dict.fromkeys(("link:veth1", "link:77/eth0", "mount:/run/docker/netns/aa"), "leads to it"),
    }
    assert scene.text("web").endswith("to do: nothing, it is in use")


@pytest.mark.parametrize(
    "asked", ["", "veth", "veth11", "77/eth1", "xyz/eth0", "abab", "lo", "/nowhere", "unit:x", ":", "/"]
)
def test_what_is_not_there_is_not_made_up(scene: Scene, asked: str) -> None:
    scene.link("lo", "loopback", netns=77)
    assert scene.ask(asked) == [] or asked == "/"


def test_several_things_of_a_name_have_several_answers(scene: Scene) -> None:
    scene.link("web", "bridge")
    scene.add("ipset", "web", name="web", type="hash:ip", size=0, references=0)
    assert [answer.id for answer in scene.ask("web")] == ["link:web", "ipset:web", f"instance:docker/{ID}"]
    # The pin of a namespace is a mount, and the namespace.
    assert {answer.id for answer in scene.ask("/run/docker/netns/aa")} == {"mount:/run/docker/netns/aa", "netns:77"}


def test_the_beginning_of_an_id_only_where_there_is_one(scene: Scene) -> None:
    scene.instance("two", id=ID[:14] + "c" * 50)
    assert scene.ask(ID[:12]) == []
    assert [answer.name for answer in scene.ask(ID[:15])] == ["web"]
    scene.instance("three", id="1234567" + "d" * 57)
    assert scene.ask("1234567") == [], "may be a pid"
    assert [answer.name for answer in scene.ask("container:1234567")] == ["three"]


def test_links_that_many_namespaces_have_are_told_up_to_a_number(scene: Scene) -> None:
    for number in range(200, 230):
        scene.link("eth9", netns=number)
    assert len(scene.ask("eth9")) == 8
    scene.link("eth9", "")
    assert [answer.id for answer in scene.ask("eth9")] == ["link:eth9"], "the host's own first"


def test_an_administrator_s_pair_is_unknown_whatever_it_is_called(scene: Scene) -> None:
    answer = scene.one("vethdeadbeef")
    assert (answer.state, answer.product, answer.instance, answer.chain) == (State.UNKNOWN, "", None, ())
    assert "leftovers leaves it alone" in scene.text("vethdeadbeef")


def test_an_administrator_s_link_into_a_container_leads_there_and_is_not_docker_s(scene: Scene) -> None:
    scene.pair("vethmine", "eth7", 77)
    answer = scene.one("vethmine")
    assert (answer.state, answer.product) == (State.UNKNOWN, "")
    assert answer.instance is not None and answer.instance.name == "web"
    assert "who has no claim on it" in answer.hints[0].text
    # Its end in the container goes with that, whoever made it.
    assert scene.one("77/eth7").product == "docker"
    # A card that somebody has put there goes home.
    scene.link("enp3s0", "", netns=77)
    assert scene.one("77/enp3s0").product == ""


def test_what_ends_with_another_is_its_owner_s(scene: Scene) -> None:
    scene.cgroup("/system.slice/docker-1.scope/init")
    for asked in ("77/eth0", "/system.slice/docker-1.scope/init"):
        answer = scene.one(asked)
        assert answer.product == "docker" and answer.why.startswith("goes with "), asked


def test_a_namespace_ends_with_who_lives_there(scene: Scene) -> None:
    scene.own(scene.process(60, "app", netns=88))
    scene.process(61, "tcpdump", netns=88)
    scene.netns(88, 60, 61)
    assert scene.one("88").product == "", "somebody else keeps it too"
    scene.own(scene.process(62, "app", netns=89))
    scene.netns(89, 62)
    assert scene.one("89").product == "docker"
    scene.own(scene.process(63, "app", netns=90))
    scene.netns(90, 63, pins=("/run/netns/mine",))
    assert scene.one("90").product == "", "a pin keeps it"
    scene.own(file(scene, "/run/netns"))
    assert scene.one("90").product == "docker", "a pin of its own"


def test_an_orphan_and_what_is_left_over(scene: Scene) -> None:
    link = scene.own(scene.link("veth9"), orphan="its container 12ab is gone")
    answer = scene.one("veth9")
    assert (answer.state, answer.why) == (State.ORPHANED, "its container 12ab is gone")
    assert answer.advice == "leftovers clean --orphans docker"
    scene.presence["docker"] = Presence.ABSENT
    answer = scene.one("veth9")
    assert (answer.state, answer.advice, answer.product) == (State.LEFT, "leftovers clean docker", "docker")
    scene.own(link, role=Role.EXTERNAL)
    assert scene.one("veth9").state is State.KEPT
    scene.own(link, role=Role.HELD, advice="end pid 7")
    assert (scene.one("veth9").state, scene.one("veth9").advice) == (State.LEFT, "end pid 7")


def test_what_a_product_only_knows_or_cannot_prove(scene: Scene) -> None:
    scene.own(scene.link("br-lan", "bridge"), "incus", Role.ADMIN, reason="a bridge that c5 is on")
    answer = scene.one("br-lan")
    assert (answer.state, answer.product) == (State.KEPT, "") and "not incus's" in answer.why
    scene.own(scene.link("odd0", "bridge"), "incus", proven=False, reason="has its shape", advice="ip link delete odd0")
    answer = scene.one("odd0")
    assert (answer.state, answer.product) == (State.UNKNOWN, "") and answer.advice == "ip link delete odd0"


def test_of_two_that_have_it_for_their_own_neither_is_believed(scene: Scene) -> None:
    both = scene.link("both0")
    scene.own(both, "docker")
    scene.own(both, "incus")
    answer = scene.one("both0")
    assert (answer.state, answer.product) == (State.UNKNOWN, "") and "several products" in answer.why


def test_a_tenant_s_word_goes_before_the_landlord_s(scene: Scene) -> None:
    obj = scene.own(scene.link("shared0"), "docker")
    scene.own(obj, "containerd")
    assert scene.one("shared0").product == "docker"
    scene.instance("moby", "process:1001", product="containerd", id=ID + "x")
    scene.instance("job", "process:55", product="containerd")
    names = [instance.name for instance in scene.explainer().instances]
    assert names == ["web", "job"], "what the daemon has of a tenant's container is told once"


def test_a_process_of_nobody_is_told_with_its_package_and_its_unit(scene: Scene) -> None:
    scene.ways = Paths("/etc/systemd/system/job.service", owned={"/usr/bin/sleep": "coreutils"})
    scene.process(500, "/usr/bin/sleep", cgroup="/system.slice/job.service")
    scene.cgroup("/system.slice/job.service")
    answer = scene.one("500")
    assert answer.state is State.UNKNOWN and answer.product == ""
    assert [said.text for said in answer.hints] == [
        "pid 500 (sleep) runs /usr/bin/sleep of the package coreutils",
        "pid 500 (sleep) is in the cgroup of job.service",
        "job.service has the file /etc/systemd/system/job.service, of no package",
    ]
    assert "cgroup of unit job.service" in scene.one("job").what
    assert scene.one("unit:job.service").dependants[0].object.key == "500"


def test_a_unit_that_stands_is_that_of_the_package_that_has_its_file(scene: Scene) -> None:
    facts = {"load": "loaded", "active": "active", "sub": "running", "stands": True, "cgroup": "", "pid": 0}
    for name, file in (
        ("docker.service", "/lib/systemd/system/docker.service"),
        ("docker.socket", "/etc/docker.socket"),
    ):
        scene.add("unit", name, unit=name, file=file, **facts)
    scene.ways = Paths(owned={"/lib/systemd/system/docker.service": "docker.io"})
    assert (scene.one("docker").product, scene.one("docker").state) == ("docker", State.IN_USE)
    assert scene.one("docker.socket").product == "", "the administrator's own file"


def test_the_host_s_own(scene: Scene) -> None:
    scene.link("lo", "loopback")
    for asked in ("net:[1]", "lo"):
        answer = scene.one(asked)
        assert (answer.state, answer.why) == (State.KEPT, "it is the host's own")


# -- paths --------------------------------------------------------------------------------------------------------


def file(scene: Scene, path: str, type: str = "directory") -> Object:
    return scene.add("file", path, path=path, type=type, target="", mounted=False, mounts=[], hollow=False, entries=[])


def test_a_path_is_told_by_what_covers_it(scene: Scene) -> None:
    scene.own(file(scene, "/var/lib/docker"), role=Role.EXTERNAL)
    scene.mount("/var/lib/docker/volumes/x", fstype="ext4", majmin="8:9")
    scene.ways = Paths(
        *("/var/lib/docker/image/a", "/var/lib/docker/volumes/x/file", "/srv/mine", "/var/lib/docker-backup/file"),
        owned={"/usr/sbin/dockerd": "docker.io", "/etc/hosts": "netbase", "/bin/ls": "coreutils"},
    )
    answer = scene.one("/var/lib/docker/image/a")
    assert (answer.product, answer.state) == ("docker", State.IN_USE)
    assert answer.chain[0].text == "is in /var/lib/docker"
    for path in ("/var/lib/docker/volumes/x/file", "/srv/mine", "/var/lib/docker-backup/file", "/etc/hosts"):
        assert (scene.one(path).state, scene.one(path).product) == (State.UNKNOWN, ""), path
    assert scene.one("/srv/mine").why == "nobody that leftovers knows"
    assert "package netbase" in scene.one("/etc/hosts").why
    assert scene.one("/usr/sbin/dockerd").product == "docker"


def test_a_path_in_a_container_s_file_system_is_the_container_s(scene: Scene) -> None:
    scene.own(scene.mount("/var/lib/docker/overlay2/l/merged", fstype="overlay"))
    scene.instances = {}
    scene.instance("web", "mount:/var/lib/docker/overlay2/l/merged")
    scene.ways = Paths("/var/lib/docker/overlay2/l/merged/etc/passwd")
    answer = scene.one("/var/lib/docker/overlay2/l/merged/etc/passwd")
    assert answer.instance is not None and (answer.instance.name, answer.product) == ("web", "docker")


def test_a_path_behind_a_symlink_and_one_that_nobody_may_ask_for(scene: Scene) -> None:
    scene.own(file(scene, "/var/lib/docker"))
    scene.ways = Paths("/var/lib/docker/x", leads={"/srv/link": "/var/lib/docker/x", "/net/x": ""})
    assert (
        scene.one("/srv/link").product == "docker" and "by a symlink (/var/lib/docker/x)" in scene.one("/srv/link").what
    )
    scene.mount("/net", fstype="nfs4")
    assert scene.one("/net/x").state is State.UNKNOWN


def test_what_depends_on_a_path(scene: Scene) -> None:
    scene.add("loop", "loop3", device="/dev/loop3", backing_file="/srv/disk", majmin="7:3", here=True, deleted=False)
    scene.add("loop", "loop4", device="/dev/loop4", backing_file="/srv/disk", majmin="7:4", here=False, deleted=False)
    scene.mount("/srv/dir/sub")
    scene.ways = Paths("/srv/disk", "/srv/dir")
    assert [step.object.key for step in scene.one("/srv/disk").dependants] == ["loop3"]
    assert [step.object.key for step in scene.one("/srv/dir").dependants] == ["/srv/dir/sub"]
    assert scene.one("/dev/loop3").id == "loop:loop3"


def test_a_route_and_an_address_by_what_they_are_for(scene: Scene) -> None:
    facts = {"family": "ip", "dev": "veth1", "gateway": "", "hops": [], "metric": 0, "protocol": 4, "type": "unicast"}
    scene.add("route", "ip table 254 10.1.64.2/32 metric 0", dst="10.1.64.2/32", table=254, **facts)
    scene.add("route", "ip table 254 default metric 0", dst="default", table=254, **facts)
    scene.add("address", "lo 10.0.1.1/32", dev="lo", address="10.0.1.1", label="lo:x", family="ip")
    answer = scene.one("10.1.64.2/32")
    assert answer.instance is not None and answer.instance.name == "web" and answer.product == ""
    assert answer.chain[0].text == "it is on link veth1"
    assert scene.one("10.0.1.1").id == "address:lo 10.0.1.1/32" and scene.ask("default") == []


# -- firewall -----------------------------------------------------------------------------------------------------


def test_chains_and_tables_by_their_names(scene: Scene) -> None:
    for table in ("nat", "filter"):
        where = {"family": "ip", "backend": "nft", "table": table, "chain": "DOCKER"}
        scene.own(scene.add("xtables", f"ip nft {table} -N DOCKER", **where, user=True, references=1, rules=0))
    scene.add("nft", "inet incus", family="inet", name="incus", handle=1, chains=["fwd.br0"], sets=[])
    assert len(scene.ask("DOCKER")) == 2
    assert [answer.name for answer in scene.ask("nat/DOCKER")] == ["ip nft nat -N DOCKER"]
    assert [answer.name for answer in scene.ask("chain DOCKER")] == ["ip nft nat -N DOCKER", "ip nft filter -N DOCKER"]
    for asked in ("nft inet incus", "inet incus", "nft:inet incus", "fwd.br0", "incus/fwd.br0", "inet incus/fwd.br0"):
        assert scene.one(asked).id == "nft:inet incus", asked
    assert scene.ask("other/fwd.br0") == []


# -- telling ------------------------------------------------------------------------------------------------------

HOSTILE = "\x1b[2J\n\r\x9b31m\u202e"


def test_what_no_file_can_be_called_is_not_there(scene: Scene) -> None:
    scene.ways = HostWays(Host(), {})
    asking = scene.explainer()
    for asked in ("/" + "a" * 300, "a" * 300, "/a" * 3000, "/\N{PILE OF POO}" * 64 + "\N{PILE OF POO}" * 64):
        assert asking.explain(asked) == [], asked


def test_a_path_that_may_not_be_asked_for_is_told_by_what_it_is_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/proc/PID/root of a process that may not be traced: realpath(3) raises, and that was a traceback."""

    def refused(path: str) -> str:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os.path, "realpath", refused)
    scene.ways = HostWays(Host(), {})
    (answer,) = scene.explainer().explain("/etc/x")
    assert answer.state is State.UNKNOWN or answer.state is State.KEPT


def test_names_cannot_talk_to_the_terminal_nor_make_lines() -> None:
    scene = Scene()
    scene.process(700, HOSTILE, cgroup=f"/{HOSTILE}", exe=f"/x/{HOSTILE}")
    scene.own(scene.cgroup(f"/{HOSTILE}"), reason=HOSTILE, evidence=(Evidence("kernel", HOSTILE),), advice=HOSTILE)
    scene.link(HOSTILE, "bridge")
    scene.link("p0", master=HOSTILE)
    scene.instance(HOSTILE, f"cgroup:/{HOSTILE}")
    plain = Scene()
    plain.process(700, "name", cgroup="/group", exe="/x/y")
    plain.own(plain.cgroup("/group"), reason="r", evidence=(Evidence("kernel", "e"),), advice="a")
    plain.link("name", "bridge")
    plain.link("p0", master="name")
    plain.instance("other", "cgroup:/group")
    for asked, same in (("700", "700"), (HOSTILE, "name"), (f"cgroup:/{HOSTILE}", "cgroup:/group")):
        said = scene.text(asked, verbose=True)
        assert said and all(char.isprintable() or char == "\n" for char in said), asked
        if asked != HOSTILE:
            assert len(said.split("\n")) == len(plain.text(same, verbose=True).split("\n")), said


def test_the_json_has_it_all(scene: Scene) -> None:
    (said,) = json.loads(json.dumps(telling.answers_json("veth1", scene.ask("veth1"))))
    assert said["state"] == "in use" and said["product"] == "docker" and said["package"] == "docker.io"
    assert said["instance"]["image"] == "nginx:1.27" and said["instance"]["id"] == ID
    assert said["chain"][0] == {"source": "kernel", "text": "its other end is eth0"}
    assert said["claims"][0] == {
        "product": "docker", "proven": True, "role": "live", "reason": "because",
        "evidence": [{"source": "kernel", "text": "seen to be so"}],
    }  # fmt: skip
    assert said["dependants"] == [{"id": "link:77/eth0", "text": "is its other end and goes with it"}]
    assert said["dependants_total"] == 1 and said["action"] == "keep"
    (said,) = telling.answers_json("vethdeadbeef", scene.ask("vethdeadbeef"))
    assert said["instance"] is None and said["action"] == "" and said["state"] == "unknown"


def test_many_that_depend_in_one_way_are_one_line() -> None:
    scene = Scene()
    scene.link("br0", "bridge")
    for number in range(300):
        scene.link(f"p{number}", master="br0")
    said = scene.text("br0")
    assert "    300 links p0, p1, " in said and said.count("\n") < 6
    assert "are ports of it" not in said and "are a port of it" in said
    assert scene.text("br0", verbose=True).count("is a port of it") == 300
