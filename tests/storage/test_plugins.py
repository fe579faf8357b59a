"""Backends and commands are found by name, imported one at a time, and missing ones explained."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from private_pypi.errors import ConfigurationError
from private_pypi.storage import plugins


def backend(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, plugins.BACKENDS)


REGISTRY = (
    backend("github", "private_pypi_not_there:GitHubBackend [github]"),
    backend("file_system", "private_pypi_file_system:FileSystemBackend"),
    EntryPoint("github.init_pkg_repo", "private_pypi_not_there:init", plugins.COMMANDS),
    EntryPoint("github.print", "builtins:print", plugins.COMMANDS),
)


def refused(type_: str, *registry: EntryPoint) -> str:
    with pytest.raises(ConfigurationError) as caught:
        plugins.load_backend(type_, registry)
    return str(caught.value)


def test_types_and_commands_are_listed_without_importing_anything() -> None:
    assert plugins.backend_types(REGISTRY) == ["file_system", "github"]
    assert plugins.command_names(REGISTRY) == ["github.init_pkg_repo", "github.print"]
    assert "private_pypi_not_there" not in sys.modules


def test_the_installed_file_system_backend_is_found() -> None:
    assert "file_system" in plugins.backend_types()
    assert plugins.load_backend("file_system").__name__ == "FileSystemBackend"


def test_an_unknown_type_is_answered_with_what_is_installed() -> None:
    assert refused("ftp", *REGISTRY) == (
        "unknown backend type 'ftp'; installed: file_system, github"
    )
    assert refused("ftp") == "unknown backend type 'ftp'; installed: none"


def test_a_mistyped_type_is_answered_with_the_nearest() -> None:
    assert refused("GitHup", *REGISTRY) == (
        "unknown backend type 'GitHup'; installed: file_system, github; did you mean 'github'?"
    )


def test_a_missing_extra_is_named() -> None:
    assert refused("github", *REGISTRY) == (
        "backend type 'github' needs the extra 'github': install 'private-pypi[github]' "
        "(No module named 'private_pypi_not_there')"
    )


def test_a_module_that_cannot_be_imported_is_named() -> None:
    assert refused("other", backend("other", "private_pypi_not_there:Backend")) == (
        "backend type 'other' cannot be imported: No module named 'private_pypi_not_there'"
    )


def test_an_entry_point_that_is_no_backend_is_refused() -> None:
    assert refused("path", backend("path", "pathlib:Path")) == (
        "backend type 'path': pathlib:Path is not a subclass of private_pypi.backend.Backend"
    )
    assert refused("gone", backend("gone", "pathlib:Gone")) == (
        "backend type 'gone' cannot be loaded: module 'pathlib' has no attribute 'Gone'"
    )


def test_a_command_is_loaded_by_its_name() -> None:
    assert plugins.load_command("github.print", REGISTRY) is print


def command(value: str) -> EntryPoint:
    return EntryPoint("some.command", value, plugins.COMMANDS)


def test_the_summary_of_a_command_is_read_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_backend"
    package.mkdir()
    for name in ("__init__", "commands"):
        (package / f"{name}.py").write_text(
            "raise AssertionError('imported')\n"
            f'def run():\n    """Run {name}.\n\n    With details.\n    """\n'
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    for value, summary in (
        ("some_backend:run", "Run __init__."),
        ("some_backend.commands:run", "Run commands."),
    ):
        assert plugins.command_summary("some.command", [command(value)]) == summary


def test_the_summary_of_a_function_that_is_defined_elsewhere_is_found_by_importing() -> None:
    # Without a source in Python, and with one in another module than the named one.
    for value in ("math:floor", "json:JSONEncoder", "inspect:namedtuple"):
        assert plugins.command_summary("some.command", [command(value)])


def test_a_command_that_cannot_be_found_has_no_summary() -> None:
    for value in ("private_pypi_not_there:run", "private_pypi_not_there.commands:run"):
        with pytest.raises(ConfigurationError, match="No module named 'private_pypi_not_there'"):
            plugins.command_summary("some.command", [command(value)])
    with pytest.raises(ConfigurationError, match="unknown command"):
        plugins.command_summary("another.command", [])


def test_an_unknown_command_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError) as caught:
        plugins.load_command("github.init_repo", REGISTRY)
    assert str(caught.value) == (
        "unknown command 'github.init_repo'; did you mean 'github.init_pkg_repo'?"
    )
