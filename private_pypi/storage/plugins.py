"""Finds backends and their commands through entry points, and imports them only when needed.

A distribution announces a backend in the group `private_pypi.backends`, such as `github =
"private_pypi_github:GitHubBackend [github]"`. In brackets is the extra that the import needs, if
there is one. The commands of a backend are in the group `private_pypi.commands`, such as
`"github.init_pkg_repo" = "…:function"`; `commands/command_line.py` says how such a function is
written.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import inspect
from collections.abc import Callable, Iterable
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from private_pypi.backend import AnyBackend, Backend, missing_capability
from private_pypi.errors import ConfigurationError

BACKENDS = "private_pypi.backends"
COMMANDS = "private_pypi.commands"


def backend_types(registry: Iterable[EntryPoint] | None = None) -> list[str]:
    """The types of the installed backends, sorted; nothing is imported."""
    return sorted(_named(BACKENDS, registry))


def load_backend(type_: str, registry: Iterable[EntryPoint] | None = None) -> type[AnyBackend]:
    """Import the backend of this type.

    Raises `ConfigurationError` if there is none, or if it cannot be imported or used.
    """
    announced = _named(BACKENDS, registry)
    if type_ not in announced:
        raise ConfigurationError(
            f"unknown backend type {type_!r}; installed: {', '.join(sorted(announced)) or 'none'}"
            + did_you_mean(type_, announced)
        )
    loaded = _load(f"backend type {type_!r}", announced[type_])
    if not (inspect.isclass(loaded) and issubclass(loaded, Backend)):
        raise ConfigurationError(
            f"backend type {type_!r}: {announced[type_].value} is not a subclass of "
            "private_pypi.backend.Backend"
        )
    missing = missing_capability(loaded)
    if missing is not None:
        raise ConfigurationError(f"backend type {type_!r} cannot be used: {missing}")
    return loaded


def command_names(registry: Iterable[EntryPoint] | None = None) -> list[str]:
    """The commands of the installed backends (`<type>.<command>`), sorted; nothing is imported."""
    return sorted(_named(COMMANDS, registry))


def load_command(name: str, registry: Iterable[EntryPoint] | None = None) -> Callable[..., Any]:
    """Import the function behind one of `command_names()`; raises `ConfigurationError`."""
    announced = _named(COMMANDS, registry)
    if name not in announced:
        raise ConfigurationError(f"unknown command {name!r}" + did_you_mean(name, announced))
    loaded = _load(f"command {name!r}", announced[name])
    if not callable(loaded):
        raise ConfigurationError(f"command {name!r}: {announced[name].value} is not a function")
    return loaded  # type: ignore[no-any-return]


def command_summary(name: str, registry: Iterable[EntryPoint] | None = None) -> str:
    """The first line of a command's docstring.

    It is read from the source of the command's module. Importing the modules of all commands would
    make `private_pypi --help` several times slower. A command is imported only if its function is
    not defined in that source; then `ConfigurationError` is raised as by `load_command`.
    """
    announced = _named(COMMANDS, registry)
    docstring = _docstring_in_source(announced[name]) if name in announced else None
    if docstring is None:
        docstring = inspect.getdoc(load_command(name, registry)) or ""
    return docstring.partition("\n")[0]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most similar, regardless of case; None if none is similar."""
    by_folded = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=3)
    if not near:
        return None
    # Of equally similar words, one with the same letters is better: "prot" is "port", not "root".
    letters = sorted(word.casefold())
    return by_folded[min(near, key=lambda each: sorted(each) != letters)]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'owner'?"`, or an empty text if no known word is similar."""
    near = nearest(word, known)
    return f"; did you mean {near!r}?" if near is not None else ""


def _named(group: str, registry: Iterable[EntryPoint] | None) -> dict[str, EntryPoint]:
    found = entry_points(group=group) if registry is None else registry
    return {point.name: point for point in found if point.group == group}


def _load(what: str, point: EntryPoint) -> Any:
    try:
        return point.load()
    except ImportError as error:
        if not point.extras:
            raise ConfigurationError(f"{what} cannot be imported: {error}") from error
        extras = ",".join(point.extras)
        distribution = point.dist.name if point.dist is not None else "private-pypi"
        raise ConfigurationError(
            f"{what} needs the extra {extras!r}: install '{distribution}[{extras}]' ({error})"
        ) from error
    except AttributeError as error:
        raise ConfigurationError(f"{what} cannot be loaded: {error}") from error


def _docstring_in_source(point: EntryPoint) -> str | None:
    """The docstring of the function that an entry point names; None if it is not found."""
    top, *below = point.module.split(".")
    spec = importlib.util.find_spec(top)
    for part in below:
        if spec is None:
            return None
        # Not `importlib.util.find_spec`, which imports the packages that a module is in.
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    get_source = getattr(spec and spec.loader, "get_source", None)
    source = None if get_source is None else get_source(point.module)
    for node in ast.parse(source or "").body:
        if isinstance(node, ast.FunctionDef) and node.name == point.attr:
            return ast.get_docstring(node)
    return None
