"""The rules of the house (DESIGN, section 5), read from the source and from what importing it does.

- A module imports only from its own floor and the ones below, and the modules that import each other form no circle.
- Packages side by side on floor 2 do not import each other.
- The package never imports ``tasks`` or ``remote``; up to the dispatch of an attempt it imports neither Celery nor Redis.
- Importing any module has no side effect.
- What a module offers is in its ``__all__``; what it is stands in its first line.
"""

import ast
import graphlib
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = {
    "packetfs_compute": 0,
    "packetfs_compute.affinity": 0,
    "packetfs_compute.deadline": 0,
    "packetfs_compute.errors": 0,
    "packetfs_compute.kernels": 0,
    "packetfs_compute.names": 0,
    "packetfs_compute.parsers": 0,
    "packetfs_compute.presigned": 0,
    "packetfs_compute.places": 0,
    "packetfs_compute.program": 0,
    "packetfs_compute.result": 0,
    "packetfs_compute.retry_after": 0,
    "packetfs_compute.settings": 0,
    "packetfs_compute.signature": 0,
    "packetfs_compute.validation": 0,
    "packetfs_compute.wire": 0,
    "packetfs_compute.executor": 1,
    "packetfs_compute.http_server": 1,
    "packetfs_compute.job": 1,
    "packetfs_compute.resp": 1,
    "packetfs_compute.routing": 1,
    "packetfs_compute.serving": 1,
    "packetfs_compute.sources": 1,
    "packetfs_compute.state": 1,
    "packetfs_compute.attempt": 2,
    "packetfs_compute.cache": 2,
    "packetfs_compute.conform": 2,
    "packetfs_compute.fleet": 2,
    "packetfs_compute.simulator": 2,
    "packetfs_compute.substrates": 2,
    "packetfs_compute.verifying": 2,
    "packetfs_compute.volunteers": 2,
    "packetfs_compute.broker": 3,
    "packetfs_compute.celery": 3,
    "packetfs_compute.desk": 3,
    "packetfs_compute.dispatch": 3,
    "packetfs_compute.hatch": 3,
    "packetfs_compute.journal": 3,
    "packetfs_compute.metrics": 3,
    "packetfs_compute.overview": 3,
    "packetfs_compute.publish": 3,
    "packetfs_compute.router": 3,
    "packetfs_compute.scanning": 3,
    "packetfs_compute.standing": 3,
    "packetfs_compute.upkeep": 3,
    "packetfs_compute.worker": 3,
    "tasks": 3,
    "packetfs_compute.__main__": 4,
    "packetfs_compute.cli": 4,
    "packetfs_compute.embedded": 4,
    "packetfs_compute.gateway": 4,
    "packetfs_compute.intake": 4,
}
"""Where a module stands, or the package that it is in. A new one must be entered here."""

QUEUEING = {"celery", "kombu", "redis"}
"""What a Lambda's zip has not got."""

MAY_QUEUE = {"packetfs_compute.broker", "packetfs_compute.cache", "packetfs_compute.celery", "packetfs_compute.cli",
             "packetfs_compute.desk",
             "packetfs_compute.embedded", "packetfs_compute.gateway", "packetfs_compute.intake", "packetfs_compute.fleet",
             "packetfs_compute.journal", "packetfs_compute.metrics", "packetfs_compute.scanning", "packetfs_compute.state",
             "packetfs_compute.upkeep", "packetfs_compute.volunteers", "packetfs_compute.worker", "tasks"}  # fmt: skip
"""Who may import it: floors 3 and 4, what connects to it, and the cache, fleet and volunteers, whose state is there."""

LATE_IMPORTS = {
    ("packetfs_compute.cli.run", "packetfs_compute.cli.submit"): "with --inline, Celery need not be loaded",
    ("packetfs_compute.cli.scan", "packetfs_compute.cli.submit_scan"): "with --inline, nothing is submitted",
    ("packetfs_compute.cli.submit_scan", "packetfs_compute.cli.desk_scan"): "Celery, which the hatch does without",
    ("packetfs_compute.cli.scan", "packetfs_compute.scanning.here"): "who submits need not load what reads",
    ("packetfs_compute.cli.scan", "packetfs_compute.cli.bar"): "rich, which takes longer to load than some scans do",
    ("packetfs_compute.worker", "packetfs_compute.metrics"): "a publisher needs none, nor prometheus_client",
    ("packetfs_compute.kernels._fallback", "crc32c"): "needed only where there is no C extension",
    (
        "packetfs_compute.sources.http",
        "packetfs_compute.sources.dial",
    ): "urllib3; a dispatcher that presigns needs none",
    ("packetfs_compute.substrates.aws_lambda", "boto3"): "300 ms, and only who runs attempts needs it",
    ("packetfs_compute.substrates.aws_lambda", "botocore"): "comes with boto3",
    ("packetfs_compute.sources.s3", "boto3"): "optional, and 300 ms",
    ("packetfs_compute.sources.s3", "botocore"): "comes with boto3",
}
"""Imports inside functions, each with its reason. Circles are no reason."""

NO_ALL = {
    "packetfs_compute.names": "is nothing but public names",
    "packetfs_compute.__main__": "is run, not imported",
}

MAX_LINES = 400


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    tree: ast.Module

    @property
    def home(self) -> str:
        """The entry of ``FLOORS`` that holds the module."""
        return ".".join(self.name.split(".")[: 1 if self.name.startswith("tasks") else 2])

    @property
    def floor(self) -> int:
        return FLOORS[self.home]

    def imports(self) -> Iterator[tuple[str, bool]]:
        """Yield every module that this one imports, and whether it does so inside a function."""
        late = {
            inner
            for outer in ast.walk(self.tree)
            if isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef))
            for inner in ast.walk(outer)
        }
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, node in late
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.name} imports relatively"
                base = node.module or ""
                for alias in node.names:
                    full = f"{base}.{alias.name}"
                    yield (full if full in MODULE_NAMES else base), node in late


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = sorted([*ROOT.glob("packetfs_compute/**/*.py"), *ROOT.glob("tasks/**/*.py")])
MODULE_NAMES = {_name(path) for path in PATHS}
MODULES = [Module(_name(path), path, ast.parse(path.read_text("utf-8"))) for path in PATHS]
PACKAGE = [module for module in MODULES if not module.name.startswith("tasks")]


def by_name(modules: list[Module]) -> Callable[[Callable[[Module], None]], Callable[[], None]]:
    """One test of all these modules, which names each that fails: a test a module would take longer than its check."""

    def decorate(check: Callable[[Module], None]) -> Callable[[], None]:
        def test() -> None:
            wrong = []
            for module in modules:
                try:
                    check(module)
                except AssertionError as error:
                    wrong.append(f"{module.name}: {error}")
            assert not wrong, "\n".join(wrong)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate


def ours(module: Module) -> list[str]:
    return [name for name, _ in module.imports() if name in MODULE_NAMES]


def home_of(name: str) -> str:
    return next(module for module in MODULES if module.name == name).home


def test_the_walls_are_where_they_are_thought_to_be() -> None:
    assert len(MODULES) > 40
    edges = {(module.name, name) for module in MODULES for name in ours(module)}
    assert ("packetfs_compute.executor", "packetfs_compute.sources") in edges
    assert ("packetfs_compute.executor", "packetfs_compute.kernels") in edges
    assert ("tasks.base", "packetfs_compute.worker") in edges


@by_name(MODULES)
def test_a_module_stands_on_a_floor_and_imports_from_no_higher_one(module: Module) -> None:
    assert module.home in FLOORS, "say in FLOORS where it stands"
    assert {name for name in ours(module) if FLOORS[home_of(name)] > module.floor} == set()


@by_name([module for module in MODULES if module.home in FLOORS and module.floor == 2])
def test_siblings_on_floor_2_do_not_know_each_other(module: Module) -> None:
    assert {name for name in ours(module) if FLOORS[home_of(name)] == 2 and home_of(name) != module.home} == set()


def test_modules_import_each_other_in_no_circle() -> None:
    graph = {module.name: set(ours(module)) - {module.name} for module in MODULES}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, naming the circle


@by_name(PACKAGE)
def test_the_package_knows_nothing_of_what_is_built_on_it(module: Module) -> None:
    assert {name for name, _ in module.imports() if name.split(".")[0] in ("tasks", "remote", "tests")} == set()


@by_name([module for module in MODULES if module.home not in MAY_QUEUE])
def test_no_queue_below_the_application(module: Module) -> None:
    assert {name for name, _ in module.imports() if name.split(".")[0] in QUEUEING} == set()


def late_imports(module: Module) -> set[tuple[str, str]]:
    late = {name for name, inside in module.imports() if inside}
    return {(module.name, name if name in MODULE_NAMES else name.split(".")[0]) for name in late}


@by_name(MODULES)
def test_an_import_inside_a_function_has_its_reason(module: Module) -> None:
    assert late_imports(module) <= set(LATE_IMPORTS)


def test_no_reason_has_outlived_its_import() -> None:
    assert set().union(*map(late_imports, MODULES)) == set(LATE_IMPORTS)
    assert set(NO_ALL) <= MODULE_NAMES


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", textwrap.dedent(code)],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "name", ["executor", "serving", "substrates.local", "substrates.fly", "substrates.aws_lambda", "fleet", "dispatch"]
)
def test_running_an_attempt_needs_neither_queue_nor_boto3(name: str) -> None:
    loaded = run(f"import sys, packetfs_compute.{name}; print(*sorted(sys.modules))").split()
    assert f"packetfs_compute.{name}" in loaded
    assert {*QUEUEING, "boto3", "botocore", "click", "rich"} & set(loaded) == set()


def test_submitting_a_scan_loads_nothing_that_it_can_do_without() -> None:
    """Each of these takes longer to load than all that it is loaded for: a command that submits is measured by it."""
    names = "cli.main", "cli.scan", "cli.submit_scan"
    loaded = run(f"import sys, {', '.join(f'packetfs_compute.{name}' for name in names)}; print(*sorted(sys.modules))")
    ours = {"packetfs_compute.kernels", "packetfs_compute.sources", "tasks"}
    heavy = {*QUEUEING, *ours, "asyncio", "boto3", "h11", "requests", "rich", "ssl", "urllib3"}
    assert heavy & set(loaded.split()) == set()


WATCH = """
    import importlib, json, os, sys, threading
    theirs, ours = json.loads({names!r})
    for name in theirs:
        importlib.import_module(name)

    seen = []
    def watch(event, args):
        if not watching or event in ("socket.__new__", "socket.gethostname"):
            return
        if event == "open":
            path, mode, flags = args
            writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
            if flags is not None and flags & writes or flags is None and set(mode or "") & set("wax+"):
                seen.append(f"open {{path}}")
        elif event.startswith(("socket.", "subprocess.", "os.", "shutil.", "tempfile.", "urllib.", "http.", "sqlite3.",
                               "_thread.start", "signal.", "syslog.", "fcntl.", "glob.")):
            if event not in ("os.listdir", "os.scandir"):  # how the import system looks for modules
                seen.append(f"{{event}} {{args}}")

    def asked_by_us(frame):
        while frame.f_globals["__name__"] in ("os", "collections.abc", "_collections_abc"):
            frame = frame.f_back
        return frame.f_globals["__name__"] in [*ours, "__main__"]

    class Environ(type(os.environ)):
        def __getitem__(self, key):
            if watching and asked_by_us(sys._getframe(1)):
                seen.append(f"environ {{key}}")
            return super().__getitem__(key)

    os.environ.__class__ = Environ
    before = set(threading.enumerate())
    watching = True
    sys.addaudithook(watch)
    {act}
    watching = False
    seen += [str(thread) for thread in set(threading.enumerate()) - before]
    print(json.dumps(seen))
"""


def watched(act: str) -> list[str]:
    """Run ``act`` with every module of others loaded already, and return what it does to the world."""
    imported = {name for module in MODULES for name, late in module.imports() if not late} - MODULE_NAMES
    theirs = sorted(imported - {"packetfs_compute.kernels._native", "typing_extensions"})
    names = json.dumps([theirs, sorted(MODULE_NAMES - {"packetfs_compute.__main__"})])
    seen: list[str] = json.loads(run(WATCH.format(names=names, act=act)))
    return seen


def test_importing_any_module_has_no_side_effect() -> None:
    assert watched("[importlib.import_module(name) for name in ours]") == []


SIGNS = {
    "open(os.devnull, 'w').close()": "open /dev/null",
    "os.close(os.open('/dev/zero', os.O_RDWR))": "open /dev/zero",
    "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.close()": "socket.bind",
    "os.system('true')": "os.system",
    "import subprocess; subprocess.run(['true'])": "subprocess.Popen",
    "os.putenv('X', 'x')": "os.putenv",
    "os.environ.get('HOME')": "environ HOME",
    "threading.Timer(0.2, print).start()": "<Timer",
}


def test_the_watch_would_see_one() -> None:
    seen = watched("; ".join(SIGNS))
    assert {act for act, sign in SIGNS.items() if not any(entry.startswith(sign) for entry in seen)} == set()


@by_name(MODULES)
def test_a_module_says_first_what_it_is(module: Module) -> None:
    first = (ast.get_docstring(module.tree) or "").partition("\n")[0]
    assert re.search(r"[.:]$", first), "the docstring's first line is no sentence"
    assert len(first) > 20


def _public(tree: ast.Module) -> set[str]:
    """The functions and classes of a module whose names are public."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")}


def _declared(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def _as_ruff_sorts(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest (ruff's RUF022)."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2), name


@by_name([module for module in MODULES if module.name not in NO_ALL])
def test_what_a_module_offers_is_declared(module: Module) -> None:
    declared = _declared(module.tree)
    assert declared is not None, "it has no __all__"
    assert declared == sorted(set(declared), key=_as_ruff_sorts)
    imported = __import__(module.name, fromlist=["*"])
    assert [name for name in declared if not hasattr(imported, name)] == []


@by_name(MODULES)
def test_no_module_reaches_for_what_another_keeps_to_itself(module: Module) -> None:
    private = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("packetfs_compute", "tasks"))
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    }
    assert {name for name in private if not name.startswith(f"{module.name}.")} == set()


SHIPPED = [
    *PATHS,
    ROOT / "setup.py",
    *(path for folder in ("benchmarks", "deploy", "monitoring") for path in (ROOT / folder).rglob("*.py")),
    *(path for folder in (ROOT / "remote").iterdir() if folder.name != "node_modules" for path in folder.rglob("*.py")),
]
"""To look for them in node_modules too would take a second."""


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_is_longer_than_can_be_read(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MAX_LINES


def test_what_the_fast_tests_do_not_look_at_is_marked() -> None:
    """`make test-fast` collects neither folder: an unmarked test in one would be run by nobody."""
    modules = [path for folder in ("integration", "chaos") for path in (ROOT / "tests" / folder).glob("test_*.py")]
    assert len(modules) > 30
    marked = re.compile(r"^pytestmark = .*pytest\.mark\.integration", re.MULTILINE)
    assert [path.name for path in modules if not marked.search(path.read_text("utf-8"))] == []
