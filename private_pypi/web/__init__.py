"""The server: an application in Flask, its gate, and the engine that runs both.

Flask is imported nowhere else than in this package.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import ipaddress
import logging
import re
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from private_pypi.errors import ConfigurationError
from private_pypi.system.temporary_folder import TemporaryFolder
from private_pypi.web.deployment import Deployment
from private_pypi.web.front import HOT_PATH, Front
from private_pypi.web.http.content import LONGEST_KEPT
from private_pypi.web.http.credentials import parse_credentials
from private_pypi.web.operations.logs import Log, LogFormat, RequestLog
from private_pypi.web.operations.request_statistics import Tell
from private_pypi.web.operations.telemetry import Telemetry
from private_pypi.web.operations.worker import Shared, Worker
from private_pypi.web.options import ServerOptions
from private_pypi.web.serving import ConnectionCounts, Kind, Stop, open_listeners
from private_pypi.web.serving.engines import serve_of

if TYPE_CHECKING:
    from flask import Flask

__all__ = ["HOT_PATH", "create_app", "run_server"]

logger = logging.getLogger(__name__)

_LOADED_AFTER = 1.0  # seconds after the start in which the application is loaded in any case

_GARBAGE = 5_000  # objects that are made before garbage is looked for among them

_OF_REPOSITORY = re.compile("/r/([^/]+)/?")

_BELOW_REPOSITORY = re.compile("/r/([^/]+)/")
_START = re.compile("/r/[^/]+/")
_OF_PROJECT = re.compile("/(?:r/[^/]+/)?project/")

# They use the threads of pages, so that they are answered even if all others wait for a storage.
_AT_HAND = {"/health", "/health/", "/health/ready", "/health/ready/", "/metrics", "/metrics/"}


def run_server(options: ServerOptions, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP.

    `announce` is called with each address once it is open. Raises `ConfigurationError` for problems
    that the operator has to solve, and `PrivatePypiError` if worker processes do not end.
    """
    try:
        options.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot use {options.root} as ROOT: {error}") from error
    options = replace(options, root=options.root.resolve())

    def announce_all(addresses: list[str]) -> None:
        for address in addresses:
            announce(address)
        if not options.waitress_options.get("trusted_proxy"):
            _warn_of_plain_http(addresses)

    if options.workers == 1:
        _serve(options, announce_all)
    else:
        _serve_with_workers(options, announce_all)


def _serve_with_workers(options: ServerOptions, on_listening: Callable[[list[str]], None]) -> None:
    """Let several processes serve. This one must not start a thread, because they are forked."""
    # It imports multiprocessing, which a server of one process does not need.
    from private_pypi.web.serving.parent import DRAIN_SECONDS, supervise

    folder = TemporaryFolder(options.root)
    try:
        shared = Shared(folder=folder.folder, connections=ConnectionCounts(options.workers))
        _install_log(options, lock_path=shared.log_lock)
        # What is imported before the workers are forked is in memory only once.
        importlib.import_module("private_pypi.web.application")
        serve_of(options.used_engine)
        sockets, addresses = open_listeners(options.host, options.port, options.waitress_options)
        if options.certificate is not None:
            addresses = [re.sub("^http:", "https:", address) for address in addresses]

        def run(
            number: int,
            sockets: Sequence[socket.socket],
            stop: Stop,
            on_serving: Callable[[], None],
        ) -> None:
            worker = Worker(number=number, shared=shared)
            _serve(options, lambda _: on_serving(), worker=worker, sockets=sockets, stop=stop)

        supervise(
            run,
            sockets,
            options.workers,
            on_serving=lambda: on_listening(addresses),
            on_end=shared.connections.forget,
            stop_seconds=options.stop_delay + DRAIN_SECONDS,
        )
    finally:
        folder.close()


def _install_log(
    options: ServerOptions, *, worker: int | None = None, lock_path: Path | None = None
) -> Log:
    form: LogFormat = "json" if options.log_format == "json" else "text"
    log = Log(sys.stderr, form, worker=worker, lock_path=lock_path)
    log.install(debug=options.debug)
    return log


def _serve(
    options: ServerOptions,
    on_listening: Callable[[list[str]], None],
    *,
    worker: Worker | None = None,
    sockets: Sequence[socket.socket] = (),
    stop: Stop | None = None,
) -> None:
    """Serve in this process, which is all of a server, or one of its workers."""
    if worker is None:
        log, began, peers = _install_log(options), None, None
    else:
        shared = worker.shared
        log = _install_log(options, worker=worker.number, lock_path=shared.log_lock)
        began, peers = shared.began, shared.connections.peers_of(worker.number)
    settings = options.telemetry
    telemetry = None if settings is None else Telemetry(settings, began=began)
    served = Deployment(options, worker)
    # Keep all temporary files below ROOT: the system's folder may be small or not writable.
    tempfile.tempdir = str(served.tmp)
    request_log = RequestLog(log) if options.request_log else None
    stop = stop or Stop()
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(setattr, tempfile, "tempdir", None)
        if request_log is not None:
            cleanup.callback(request_log.close)
        cleanup.callback(served.close)
        tell = None if telemetry is None else telemetry.answered
        front = Front(served, request_log, tell, stop)
        cleanup.callback(front.close)
        if telemetry is not None:
            # Before the repositories are closed, because they are asked for their numbers. One
            # worker sends those of all.
            cleanup.callback(telemetry.close)
            telemetry.start(front.metrics() if worker is None or worker.number == 1 else None)
        # The parent of workers has imported it already, and others ask for its metrics.
        # For root addresses, the loop would have to wait until it is loaded.
        if worker is not None or served.last_repositories.have_root_addresses():
            front.application()
        # Not at once: installers that wait for the start want pages, which do not need it.
        loading = threading.Timer(_LOADED_AFTER, _load, [front])
        loading.daemon = True
        cleanup.callback(loading.cancel)

        def announce(addresses: list[str]) -> None:
            loading.start()
            on_listening(addresses)

        certificate = options.certificate
        serve_of(options.used_engine)(
            front,
            front.gate,
            host=options.host,
            port=options.port,
            options=options.waitress_options,
            sockets=sockets,
            peers=peers,
            on_listening=announce,
            leave_seconds=options.stop_delay,
            stop=stop,
            kind_of=lambda path: _kind_of(served, front.aliases.path_of(path)),
            share_of=lambda path, authorization: _share_of(
                served, front.aliases.path_of(path), authorization
            ),
            at_once=front.at_once,
            observer=front.statistics,
            **({} if certificate is None else {"certificate": certificate}),
        )


def _load(front: Front) -> None:
    """Load the application, if no request has done so, and look for no garbage in it afterwards.

    What is loaded stays until the process ends. To go through it took a tenth of the processor time
    of an installation, and up to 10 ms in which nothing else ran.
    """
    front.application()
    gc.freeze()
    gc.set_threshold(_GARBAGE)


def _warn_of_plain_http(addresses: list[str]) -> None:
    plain = [address for address in addresses if not address.startswith("https:")]
    reachable = [address for address in plain if not _is_of_this_machine(address)]
    if reachable:
        logger.warning(
            "%s is plain HTTP that other machines can reach, so secrets cross the network "
            "readable. Use --tls_cert and --tls_key, or put a proxy with TLS in front and name it "
            "with --trusted_proxy (docs/proxies.md), or listen on this machine only with "
            "--host=127.0.0.1",
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
    if path in _AT_HAND:
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
    served: Deployment,
    request_log: RequestLog | None = None,
    tell: Tell | None = None,
    stop: Stop | None = None,
) -> Flask:
    """The WSGI application for a deployment. It also runs under any other WSGI server.

    `stop` is that of our own server, which is not ready any more once it was told to stop.
    """
    return Front(served, request_log, tell, stop).application()
