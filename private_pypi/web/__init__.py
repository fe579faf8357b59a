"""The server: an application in Flask, its gate, and the engine that runs both.

Flask is imported nowhere else than in this package.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from private_pypi.errors import ConfigurationError
from private_pypi.web.deployment import Deployment
from private_pypi.web.front import HOT_PATH, Front
from private_pypi.web.http.content import LONGEST_KEPT
from private_pypi.web.http.credentials import parse_credentials
from private_pypi.web.operations.logs import Log, RequestLog
from private_pypi.web.operations.request_statistics import Tell
from private_pypi.web.operations.telemetry import Telemetry
from private_pypi.web.options import ServerOptions
from private_pypi.web.serving import Kind, serve

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["HOT_PATH", "create_app", "run_server"]

logger = logging.getLogger(__name__)

_LOADED_AFTER = 1.0  # seconds after the start in which the application is loaded in any case

_OF_REPOSITORY = re.compile("/r/([^/]+)/?")

_BELOW_REPOSITORY = re.compile("/r/([^/]+)/")
_START = re.compile("/r/[^/]+/")
_OF_PROJECT = re.compile("/(?:r/[^/]+/)?project/")

# They use the threads of pages, so that they are answered even if all others wait for a storage.
_AT_HAND = ("/health", "/health/", "/health/ready", "/health/ready/", "/metrics", "/metrics/")


def run_server(options: ServerOptions, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `announce` is called with each address once it is open.

    Raises `ConfigurationError` for problems that the operator has to solve.
    """
    try:
        options.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot use {options.root} as ROOT: {error}") from error
    log = Log(sys.stderr, "json" if options.log_format == "json" else "text")
    log.install(debug=options.debug)
    settings = options.telemetry
    telemetry = None if settings is None else Telemetry(settings)
    served = Deployment(replace(options, root=options.root.resolve()))

    def announce_all(addresses: list[str]) -> None:
        loading.start()
        for address in addresses:
            announce(address)
        if not options.waitress_options.get("trusted_proxy"):
            _warn_of_plain_http(addresses)

    # Keep all temporary files below ROOT: the system's folder may be small or not writable.
    tempfile.tempdir = str(served.tmp)
    request_log = RequestLog(log) if options.request_log else None
    # Not at once: installers that wait for the start want pages, which do not need it.
    loading = threading.Timer(_LOADED_AFTER, lambda: front.application())
    loading.daemon = True
    try:
        front = Front(served, request_log, None if telemetry is None else telemetry.answered)
        if telemetry is not None:
            from private_pypi.web.api.metrics import METRICS

            telemetry.start(front.application().extensions[METRICS])
        serve(
            front,
            front.gate,
            host=options.host,
            port=options.port,
            options=options.waitress_options,
            on_listening=announce_all,
            kind_of=lambda path: _kind_of(served, front.aliases.path_of(path)),
            share_of=lambda path, authorization: _share_of(
                served, front.aliases.path_of(path), authorization
            ),
            at_once=front.at_once,
            observer=front.statistics,
        )
    finally:
        loading.cancel()
        tempfile.tempdir = None
        if telemetry is not None:
            telemetry.close()  # while the repositories can still be asked for their numbers
        served.close()
        if request_log is not None:
            request_log.close()


def _warn_of_plain_http(addresses: list[str]) -> None:
    reachable = [address for address in addresses if not _is_of_this_machine(address)]
    if reachable:
        logger.warning(
            "%s is plain HTTP that other machines can reach, so secrets cross the network "
            "readable. Put a proxy with TLS in front and name it with --trusted_proxy "
            "(docs/proxies.md), or listen on this machine only with --host=127.0.0.1",
            " and ".join(reachable),
        )


def _is_of_this_machine(address: str) -> bool:
    """Whether only this machine can reach an announced address; a Unix socket has no host."""
    host = urlsplit(address).hostname
    if host is None:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _kind_of(served: Deployment, path: str) -> Kind:
    """What the answer to a GET may have to wait for (see `Kind`)."""
    if path.endswith(_AT_HAND):
        return Kind.PAGES
    if _OF_PROJECT.match(path) or _START.fullmatch(path):
        return Kind.PEOPLE  # perhaps with a README
    match = _BELOW_REPOSITORY.match(path)
    if not path.endswith("/") or served.last_repositories.may_look_up(match[1] if match else None):
        return Kind.FILES
    return Kind.PAGES


def _share_of(served: Deployment, path: str, authorization: str | None) -> str:
    """The name of the repository that a request is for; "" if there is no such repository."""
    match = _OF_REPOSITORY.match(path)
    credentials = None
    if match is None and authorization is not None and len(authorization) <= LONGEST_KEPT:
        credentials = parse_credentials(authorization)
    meant = served.last_repositories.meant(credentials, name=match[1] if match else None)
    return "" if meant is None else meant[0].name


def create_app(
    served: Deployment, request_log: RequestLog | None = None, tell: Tell | None = None
) -> Flask:
    """The WSGI application for a deployment. It also runs under any other WSGI server."""
    return Front(served, request_log, tell).application()
