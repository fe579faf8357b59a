"""The engines that can run a server, and which one is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from private_pypi.errors import ConfigurationError

WAITRESS = "waitress"
GRANIAN = "granian"
ENGINES = (WAITRESS, GRANIAN)
"""The values of `--engine`."""


def serve_of(engine: str) -> Callable[..., Any]:
    """The function `serve` of an engine; they all take the same arguments.

    That of granian also takes a `certificate`. Raises `ConfigurationError` if the extra of the
    engine is not installed.
    """
    # Each engine is imported only if it is used, because imports take a part of the start.
    if engine == WAITRESS:
        from private_pypi.web.serving.waitress.engine import serve

        return serve
    try:
        import granian  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"--engine {engine}, which TLS needs as well, is an extra that is not installed; "
            "install it with: pip install 'private-pypi[granian]'"
        ) from error
    from private_pypi.web.serving.granian.engine import serve as serve_granian

    return serve_granian
