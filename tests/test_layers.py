"""The import directions of the design, held by reading every module's imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "private_pypi"

# From the bottom up: a module imports only modules of the rows above its own, never of its own.
LAYERS = (
    ("errors",),
    ("model", "filenames", "private_files", "zip_members", "tar_members"),
    ("background", "remote_files", "remembered_facts"),
    ("records", "archives"),
    ("core_metadata", "backend"),
    ("simple_api", "upload", "file_cache", "retrying", "plugins", "index_client", "index_file"),
    ("descriptions",),
    ("readme",),
    ("local_index", "config", "static_site"),
    ("reconciling",),
    ("index_child",),
    ("indexing",),
    ("synchronizing", "looking_up", "publishing", "verdicts"),
    ("repositories",),
    ("web",),
    ("command_line",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
RANK = {module: rank for rank, row in enumerate(LAYERS) for module in row}

# What is imported in one place only, so that it can be replaced there.
KEPT_TO = {
    "flask": "web/",
    "werkzeug": "web/",
    "waitress": "web/serving/",
    "fire": "command_line.py",
    "prometheus_client": "web/operations/metrics.py",
    "pydantic": "config.py",
    "sqlite3": ("local_index.py", "reconciling.py", "remembered_facts.py"),
    "tomli": ("config.py", "index_file.py"),
    "readme_renderer": "readme.py",
    "cryptography": "web/people/sessions.py",
}

# A backend's commands are no part of a server: they stand beside the core's own commands.
OF_COMMANDS = {
    "command_line",
    "commands",
    "config",
    "index_file",
    "indexing",
    "retrying",
    "static_site",
}

# The shipped test kit is used by tests only, and may use anything of the core.
BESIDE = {"testing", "__init__"}


def imports(path: Path) -> Iterator[str]:
    """The absolute names of all that a module imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules() -> list[Path]:
    return sorted(path for path in CORE.rglob("*.py"))


def layer(path: Path) -> str:
    first = path.relative_to(CORE).parts[0]
    return first.removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(CORE)))
def test_imports_point_down(path: Path) -> None:
    own = layer(path)
    if own in BESIDE:
        return
    assert own in RANK, f"{own} has no place in LAYERS"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "private_pypi" or parts[1] == own:
            continue
        if parts[1] == "__version__":
            continue
        assert parts[1] in RANK, f"{path.name} imports {name}, which has no place in LAYERS"
        assert RANK[parts[1]] < RANK[own], f"{path.name} imports {name}: that points up"


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
    assert readers == {"cli.py"}


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
                allowed = {"backend", "errors", "model"}
                allowed |= OF_COMMANDS if path.name == "commands.py" else set()
                assert name.split(".")[1] in allowed, f"{path}: {name}"


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
