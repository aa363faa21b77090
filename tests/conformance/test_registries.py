"""Every kind and every product keeps the rules of its registry; no module imports upward."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from leftovers import kinds, products
from leftovers.claims import Case
from leftovers.kinds import KINDS, Kind, survey_order
from leftovers.kinds.routes import wanted
from leftovers.model import Presence, Role, Verb
from leftovers.products import NAMES, Product, load

SOURCE = Path(inspect.getfile(kinds)).parents[1]
PRODUCTS = [load(name) for name in NAMES]
# Each room, and the rooms below it from which it may import.
FLOORS = [
    {"errors", "exits", "netlink", "syscalls"},
    {"model", "run", "host", "mountinfo"},
    {"conf", "evidence", "kinds", "ledger", "relations", "sizes", "watcher", "words"},
    {"daemons", "removal"},
    {"claims", "ways"},
    {"products"},
    {"transaction"},
    {"survey"},
    {"arrival"},
    {"plan"},
    {"inventory", "sweep", "verify", "explain"},
    {"clean", "report", "saved", "tree"},
    {"moments", "orphans", "telling"},
    {"commands", "snaps"},
    {"publisher", "snapwatch"},
    {"cli", "hook"},
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind(kind: Kind) -> None:
    assert re.fullmatch(r"[a-z]+", kind.name) and kind.title and kind.title[0].isalpha()
    assert set(kind.verbs) <= {Verb.REMOVE, Verb.RETURN}
    assert 0 <= kind.settle <= 30
    assert all(name in {other.name for other in KINDS} for name in kind.needs)
    said = f"{inspect.getdoc(type(kind))} {type(kind).survey.__doc__}"
    assert "facts" in said.lower(), "a product's rules rest on a kind's facts: they are documented"


def test_names_are_given_once() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert len(set(NAMES)) == len(NAMES)


def test_a_kind_is_listed_after_those_that_it_needs() -> None:
    seen: set[str] = set()
    for kind in survey_order():
        assert set(kind.needs) <= seen
        seen.add(kind.name)
    assert seen == {kind.name for kind in KINDS}


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.name)
def test_a_product(product: Product) -> None:
    assert re.fullmatch(r"[a-z0-9-]+", product.name) and product.title and (product.daemons or product.snaps)
    companion = any(product.name in other.companions for other in PRODUCTS)
    assert product.packages or product.snaps or product.uninstall or companion
    for path in (*product.daemons, *(directory.path for directory in product.directories)):
        assert path.startswith("/") and not path.endswith("/") and "//" not in path and ".." not in path
        assert path.count("/") >= 2, f"{path}: too near the root to be a product's"
    for directory in product.directories:
        assert directory.source and directory.role in Role
    names = {kind.name for kind in KINDS}
    assert set(product.rules) <= names and product.recall <= names
    for rules in product.rules.values():
        assert rules and all(callable(rule) for rule in rules)
    assert all(re.fullmatch(r"(user|group|subuid|subgid) \S+", account) for account in product.accounts)
    assert all(re.fullmatch(r"[a-z0-9_.]+=\S+", sysctl) for sysctl in product.sysctls)
    assert all(wanted(text) for text in product.routes)
    assert set(product.companions) <= set(NAMES) - {product.name}
    assert (product.stop is None) == (product.start is None), "what was stopped in vain is started again"


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.name)
def test_a_product_has_no_containers_on_a_host_without_any(product: Product) -> None:
    if product.instances is not None:
        assert list(product.instances(Case(product.name, Presence.INSTALLED, {}))) == []


def test_no_file_or_package_is_that_of_two_products() -> None:
    for given in ([p for product in PRODUCTS for p in each(product)] for each in (daemons, packages)):
        assert len(given) == len(set(given))


def daemons(product: Product) -> tuple[str, ...]:
    return product.daemons


def packages(product: Product) -> tuple[str, ...]:
    return product.packages


@pytest.mark.parametrize(("name", "others"), [("incus", ["incus-lxcfs", "lxcfs"]), ("lxd", ["lxcfs"])])
def test_companions_come_after_those_that_they_live_for(name: str, others: list[str]) -> None:
    assert [product.name for product in products.with_companions([name])] == [name, *others]
    for product in PRODUCTS:
        assert all(NAMES.index(product.name) < NAMES.index(companion) for companion in product.companions)
    for names in (NAMES, NAMES[::-1]):
        last = [product.name for product in products.with_companions(names)][-len(others) :]
        assert set(last) <= {"incus-lxcfs", "lxcfs"}


def imports(path: Path) -> set[str]:
    """The rooms of leftovers that a module imports from, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("leftovers"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("leftovers.")}
    return found


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_module_imports_upward(path: Path) -> None:
    relative = path.relative_to(SOURCE)
    room = relative.parts[0].removesuffix(".py")
    if room in ("__init__", "__main__"):
        return
    floor = next(number for number, rooms in enumerate(FLOORS) if room in rooms)
    allowed = {name for rooms in FLOORS[:floor] for name in rooms} | {room, "__version__"}
    assert imports(path) <= allowed, path


def code(path: Path) -> str:
    """A module without its docstrings and comments."""
    return re.sub(r'"""(.|\n)*?"""|#.*', "", path.read_text())


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_heavy_libraries_are_imported_late(path: Path) -> None:
    heavy = {"pyroute2", "psutil", "nftables", "yaml", "sqlite3", "http", "debian"}
    top = [node for node in ast.parse(path.read_text()).body if isinstance(node, (ast.Import, ast.ImportFrom))]
    for node in top:
        names = {node.module or ""} if isinstance(node, ast.ImportFrom) else {alias.name for alias in node.names}
        assert not {name.split(".")[0] for name in names} & heavy, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_root_code_runs_no_shell_and_searches_no_path(path: Path) -> None:
    text = code(path)
    for word in ("shell=True", "os.system(", "os.popen(", "shutil.rmtree", "shutil.which", "eval(", "exec("):
        assert word not in text, f"{path.name} uses {word}"
    if path.name != "run.py":
        assert "subprocess" not in text, f"{path.name} runs a program by itself"
    assert "dry_run" not in text or path.name in ("cli.py", "commands.py")


def test_kinds_know_no_product_and_products_remove_nothing() -> None:
    for path in (SOURCE / "kinds").glob("*.py"):
        assert not re.search(r"\b(incus|lxd|docker|microk8s|podman|nerdctl)", code(path).lower()), path.name
    for path in (SOURCE / "products").rglob("*.py"):
        text = code(path)
        for word in ("syscalls", "unlink(", "rmdir(", "os.kill", "subprocess", "run("):
            assert word not in text, f"{path.name}: {word}"


def test_the_shell_hooks_know_every_product() -> None:
    hooks = SOURCE.parents[1] / "hooks"
    packages = sorted({"snapd", *(package for product in PRODUCTS for package in product.packages)})
    daemons = sorted({path for product in PRODUCTS for path in product.daemons if not product.snaps})
    units = {unit for product in PRODUCTS if product.snaps for unit in product.units if unit.endswith(".service")}
    assert (hooks / "known-packages").read_text().splitlines() == packages
    assert (hooks / "known-daemons").read_text().splitlines() == daemons
    assert (hooks / "known-snap-services").read_text().splitlines() == sorted(units)


def test_an_entry_point_guards_parses_and_calls() -> None:
    from leftovers.hook import EVENTS

    hooks = SOURCE.parents[1] / "hooks"
    assert {path.stem for path in hooks.glob("*.py")} == set(EVENTS)
    for event in EVENTS:
        text = (hooks / f"{event}.py").read_text()
        assert f'main("{event}", sys.argv[1:])' in text and "geteuid" in text and len(text.splitlines()) < 15


def test_the_shell_completes_every_product() -> None:
    text = (SOURCE.parents[1] / "debian/completions/leftovers").read_text()
    said = re.search(r'local products="([^"]+)"', text)
    assert said and tuple(said[1].split()) == NAMES
