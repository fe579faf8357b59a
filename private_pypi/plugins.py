"""Finding backends and their commands through entry points; imports one only when it is asked for.

A distribution announces a backend in the group `private_pypi.backends` (`github =
"private_pypi_github:GitHubBackend [github]"`, the extra in brackets being what the import needs)
and its commands in the group `private_pypi.commands` (`"github.init_pkg_repo" = "…:function"`);
such a function is written as `command_line` says.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from private_pypi.backend import AnyBackend, Backend
from private_pypi.errors import ConfigurationError

BACKENDS = "private_pypi.backends"
COMMANDS = "private_pypi.commands"


def backend_types(registry: Iterable[EntryPoint] | None = None) -> list[str]:
    """The types of the installed backends, sorted; nothing is imported."""
    return sorted(_named(BACKENDS, registry))


def load_backend(type_: str, registry: Iterable[EntryPoint] | None = None) -> type[AnyBackend]:
    """Import the backend of this type.

    Raises `ConfigurationError` when there is none, or when it cannot be imported.
    """
    announced = _named(BACKENDS, registry)
    if type_ not in announced:
        raise ConfigurationError(
            f"unknown backend type {type_!r}; installed: {', '.join(sorted(announced)) or 'none'}"
            + did_you_mean(type_, announced)
        )
    loaded = _load(f"backend type {type_!r}", announced[type_])
    # The contract is a class; whether its methods are there, its abstractness says.
    if not (inspect.isclass(loaded) and issubclass(loaded, Backend)):
        raise ConfigurationError(
            f"backend type {type_!r}: {announced[type_].value} is no private_pypi.backend.Backend"
        )
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
        raise ConfigurationError(f"command {name!r}: {announced[name].value} is no function")
    return loaded  # type: ignore[no-any-return]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant, whatever its case; None when none is near."""
    by_folded = {each.casefold(): each for each in known}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=3)
    if not near:
        return None
    # Of equally near words the one with the same letters: "prot" is "port", not "root".
    letters = sorted(word.casefold())
    return by_folded[min(near, key=lambda each: sorted(each) != letters)]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'owner'?"`, or nothing when no known word is near."""
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
