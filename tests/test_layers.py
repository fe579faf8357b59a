"""Which module may import which: every import is read from the source."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "private_pypi"

# The layers, from the bottom up; see docs/architecture.md. A layer imports only from those in lower
# rows, and there are no circular imports inside it.
ROWS = (
    ("errors",),
    ("model",),
    ("backend",),
    ("distributions", "system"),
    ("pages", "policy", "storage"),
    ("index", "configuration"),
    ("repositories",),
    ("web.serving",),
    ("web.http",),
    ("web.operations", "web.sessions"),
    ("web.options",),
    ("web.deployment",),
    ("web.requests",),
    ("web.releases",),
    ("web.api",),
    ("web.people",),
    ("web.well_known",),
    ("web",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
ROW = {layer: number for number, layers in enumerate(ROWS) for layer in layers}

# What is imported in one place only, so that it can be replaced there.
KEPT_TO = {
    "flask": "web/",
    "werkzeug": "web/",
    "waitress": "web/serving/",
    "granian": "web/serving/",
    "uvloop": "web/serving/",
    "fire": "commands/command_line.py",
    "opentelemetry": "web/operations/telemetry.py",
    "prometheus_client": ("web/api/metrics.py", "web/api/worker_metrics.py"),
    "pydantic": "configuration/tables.py",
    "sqlite3": (
        *("index/connections.py", "index/schema.py", "index/local.py", "index/lookup_results.py"),
        *("index/mirrored.py", "index/forgotten.py", "index/draft.py", "index/listing.py"),
        *("index/reconciling.py", "index/staging.py", "storage/remembered_facts.py"),
        *("system/transactions.py", "web/sessions/attempts.py"),
    ),
    "tomli": ("configuration/tables.py", "index/document_reader.py", "policy/allowances.py"),
    "tomlkit": "policy/changing.py",
    "readme_renderer": "pages/readme.py",
    "cryptography": ("web/sessions/sessions.py", "web/serving/granian/certificates.py"),
}

# A backend's commands are no part of a server: they stand beside the core's own commands.
OF_COMMANDS = {
    *("commands", "configuration", "distributions", "index", "pages", "storage", "system"),
}

# Folders of backends that only their commands use.
MAKING = {"commands", "making"}

# The shipped test kit is used by tests only, and may use anything of the core.
BESIDE = {"testing", "pytest_plugin", "__init__"}


def imports(path: Path) -> Iterator[str]:
    """The absolute names of all that a module imports, also inside functions."""
    return names_of(ast.parse(path.read_text()))


def names_of(tree: ast.AST) -> Iterator[str]:
    """The absolute names of all that is imported in a tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import: {ast.unparse(node)}"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules() -> list[Path]:
    return sorted(path for path in CORE.rglob("*.py"))


def dotted(path: Path) -> str:
    """The name of a module below `private_pypi`; that of a package is its folder's."""
    return ".".join(path.relative_to(CORE).with_suffix("").parts).removesuffix(".__init__")


def layer_of(module: str) -> str | None:
    """The layer of a module or of a name in it; None: it has no place in ROWS."""
    while module and module not in ROW:
        module = module.rpartition(".")[0]
    return module or None


def own_imports(path: Path) -> Iterator[str]:
    """What a module imports of the core, below `private_pypi`."""
    return below(imports(path))


def below(names: Iterator[str]) -> Iterator[str]:
    """Of absolute names, those of the core, without the name of its package."""
    for name in names:
        package, _, rest = name.partition(".")
        if package == "private_pypi" and rest != "__version__":
            yield rest


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(CORE)))
def test_imports_point_down(path: Path) -> None:
    module = dotted(path)
    if module.split(".")[0] in BESIDE:
        return
    own = layer_of(module)
    assert own is not None, f"{module} has no place in ROWS"
    for name in own_imports(path):
        other = layer_of(name)
        assert other is not None, f"{module} imports {name}, which has no place in ROWS"
        assert other == own or ROW[other] < ROW[own], f"{module} imports {name}: that points up"


def test_a_server_starts_without_what_only_some_requests_need() -> None:
    """Each of these takes a good part of the time of a start."""
    program = "import private_pypi.commands.serving, private_pypi.web, sys; print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120
    )
    loaded = set(ended.stdout.split())
    assert "private_pypi.web" in loaded
    unwanted = {"bs4", "github", "opentelemetry", "pypi_simple", "readme_renderer", "requests"}
    unwanted |= {"flask", "werkzeug", "jinja2", "cryptography", "prometheus_client"}
    assert loaded & unwanted == set()


def test_there_are_no_circular_imports() -> None:
    paths = {dotted(path): path for path in modules() if dotted(path).split(".")[0] not in BESIDE}
    graph = {
        module: {
            known
            for name in at_runtime(path)
            for known in (name, name.rpartition(".")[0])
            if known in paths
        }
        - {module}
        for module, path in paths.items()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def at_runtime(path: Path) -> Iterator[str]:
    """What a module imports of the core when it runs, so not for the type checker alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    yield from below(names_of(tree))


@pytest.mark.parametrize(("engine", "other"), [("waitress", "granian"), ("granian", "waitress")])
def test_an_engine_does_not_import_the_other_one(engine: str, other: str) -> None:
    serving = CORE / "web" / "serving"
    paths = [*(serving / engine).glob("*.py")]
    assert paths
    for path in paths:
        for name in own_imports(path):
            assert not name.startswith(f"web.serving.{other}"), f"{path} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(CORE)))
def test_frameworks_stay_where_they_belong(path: Path) -> None:
    relative = path.relative_to(CORE).as_posix()
    for name in imports(path):
        places = KEPT_TO.get(name.split(".")[0], "")
        places = (places,) if isinstance(places, str) else places
        assert any(relative.startswith(place) for place in places), f"{relative} imports {name}"


def test_the_environment_is_read_at_the_command_line_only() -> None:
    readers = {
        path.relative_to(CORE).as_posix()
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
        if isinstance(node.value, ast.Name) and node.value.id == "os"
    }
    # What a child inherits is a matter of this process, not of its configuration.
    assert readers == {"system/child_environment.py", "cli.py"}


def test_the_core_knows_no_backend() -> None:
    for path in modules():
        for name in imports(path):
            assert not name.startswith("private_pypi_"), f"{path.name} imports {name}"


def test_backends_know_the_contract_only() -> None:
    paths = sorted((ROOT / "backends").glob("private_pypi_*/**/*.py"))
    assert paths
    for path in paths:
        for name in imports(path):
            if name.startswith("private_pypi."):
                is_of_commands = path.name == "commands.py" or path.parent.name in MAKING
                allowed = {"backend", "errors", "model"}
                allowed |= OF_COMMANDS if is_of_commands else set()
                is_of_names = name.startswith("private_pypi.distributions.filenames.")
                assert is_of_names or name.split(".")[1] in allowed, f"{path}: {name}"


def test_what_sets_up_is_imported_by_nothing_that_serves() -> None:
    for path in (ROOT / "backends").glob("private_pypi_*/**/*.py"):
        for name in imports(path):
            assert name.split(".")[0] != "github" or path.name == "set_up.py", f"{path}: {name}"
            if name.startswith("private_pypi_github.set_up"):
                assert path.name == "commands.py", f"{path}: {name}"


def test_every_module_says_what_it_is() -> None:
    for path in modules():
        docstring = ast.get_docstring(ast.parse(path.read_text()))
        if path.stat().st_size:
            assert docstring, f"{path} has no docstring"
            assert len(docstring.split("\n\n")[0]) > 30
