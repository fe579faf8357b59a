"""The options of both engines, which are those of waitress, and what follows from them."""

from __future__ import annotations

import errno
import logging
import resource
from collections.abc import Callable, Mapping
from typing import Any

from waitress.adjustments import Adjustments
from waitress.proxy_headers import proxy_headers_middleware

from private_pypi.errors import ConfigurationError

logger = logging.getLogger(__name__)

DEFAULTS: Mapping[str, Any] = {
    "threads": 8,  # for each share of each pool
    "connection_limit": 1000,
    "asyncore_use_poll": True,  # select() cannot handle more than 1024 files
    "cleanup_interval": 1,
    "ident": "private_pypi",
    # At the first limit a worker waits for the client. At the second one waitress would make a
    # temporary file, which is never reached: the temporary folder may be full or missing.
    "outbuf_high_watermark": 4 * 1024 * 1024,
    "outbuf_overflow": 8 * 1024 * 1024,
}

WHERE = {"listen", "unix_socket", "sockets"}  # options that are used instead of host and port
_OTHER_FILES = 256  # open files that do not belong to connections


def option_names() -> frozenset[str]:
    """The `options` of `serve` that can be given as text."""
    return frozenset(_casts()) - {"sockets"}


def _casts() -> dict[str, Callable[[Any], Any]]:
    return dict(Adjustments._params)


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of waitress; raises `ConfigurationError` for a wrong one."""
    casts = _casts()
    problems = []
    for name, value in options.items():
        if name not in casts:
            problems.append(f"--{name}: the server has no such option")
            continue
        try:
            number = casts[name](value)
        except (TypeError, ValueError):
            wanted = "an octal number" if name == "unix_socket_perms" else "a whole number"
            problems.append(f"--{name} {value}: not {wanted}")
        else:
            if name == "threads" and number < 1:
                problems.append(f"--{name} {value}: at least 1 is needed")
    if problems:
        raise ConfigurationError(*problems)
    return dict(options)


def bind_refusal(error: ValueError, host: str, port: int, options: Mapping[str, Any]) -> str:
    """What is wrong with options that contradict each other, or with an unknown host."""
    if not WHERE & options.keys() and "host/port" in str(error):
        return (
            f"cannot listen on host {host!r}, port {port}: no such address; "
            "choose others with --host and --port"
        )
    given = " ".join(f"--{name} {options[name]}" for name in options)
    return f"{error} (given: {given})"


def bind_problem(error: OSError, host: str, port: int, options: Mapping[str, Any]) -> str:
    """Why it is not possible to listen there."""
    for name in ("listen", "unix_socket"):
        if name in options:
            return f"--{name} {options[name]}: {error.strerror or error}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} on {host} is in use; choose another with --port"
        case errno.EACCES | errno.EPERM:
            return f"port {port} on {host} needs a privileged user; choose another with --port"
        case errno.EADDRNOTAVAIL:
            return f"{host} is not an address of this machine; choose another with --host"
    return f"cannot listen on port {port} of {host}: {error.strerror or error}"


def find_client_of(adj: Any) -> Callable[[dict[str, Any]], bool]:
    """How to put into a WSGI environment what a trusted proxy says: the client and the host.

    The result is false if that cannot be understood; the application is not called then. waitress
    itself does this only when it calls the application. To do it again changes nothing.
    """
    if not adj.trusted_proxy:
        return lambda environ: True
    understood: list[bytes] = []
    translate = proxy_headers_middleware(
        lambda environ, start_response: understood,
        trusted_proxy=adj.trusted_proxy,
        trusted_proxy_count=adj.trusted_proxy_count,
        trusted_proxy_headers=adj.trusted_proxy_headers,
        clear_untrusted=False,
    )

    def find(environ: dict[str, Any]) -> bool:
        return translate(environ, lambda status, headers: None) is understood

    return find


def possible_connections(wanted: int, *, files: int = 3) -> int:
    """The number of connections to serve: `wanted`, or less if the system allows fewer files.

    Raises the limit of open files first, to `files` for each connection if possible: the socket,
    the file that it sends or receives, what else the engine needs, and a spare one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = files * wanted + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    # A connection needs a file even to be refused, so there must be one.
    possible = max(1, min(wanted, (limit - _OTHER_FILES) // (files - 1)))
    if possible < wanted:
        logger.warning(
            "the system allows %d open files, so at most %d connections are served, not %d",
            *(limit, possible, wanted),
        )
    return possible
