"""The server: an application in Flask, its gate, and the engine that runs both.

The only package that imports Flask.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, InternalServerError, MethodNotAllowed, NotFound

from private_pypi.backend import Secret
from private_pypi.config import Source
from private_pypi.errors import ConfigurationError, PrivatePypiError
from private_pypi.repositories import Expiry
from private_pypi.web import admin, legacy, pages, simple
from private_pypi.web.answers import answer_error, answer_text
from private_pypi.web.content import PageCache
from private_pypi.web.deployment import Deployment
from private_pypi.web.hot_path import HotPath
from private_pypi.web.receiving import FormLimits
from private_pypi.web.requests import EXTENSION, respond
from private_pypi.web.serving import serve

logger = logging.getLogger(__name__)

HOT_PATH = "private_pypi.hot_path"
"""The key of the `HotPath` in `Flask.extensions`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """All that `private_pypi server` is told."""

    root: Path
    config: Source | None
    admin_secret: Source | None
    auth_read_expires: timedelta
    auth_write_expires: timedelta
    extra_index_url: str  # "": none
    debug: bool
    host: str
    port: int
    admin_token: Secret | None
    allowed_env: frozenset[str]
    waitress_options: Mapping[str, Any]
    environ: Mapping[str, str]
    limits: FormLimits = field(default_factory=lambda: FormLimits(max_file_bytes=0))


def run_server(options: ServerOptions, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `announce` gets each address once it is open.

    Raises `ConfigurationError` for what only the operator can mend.
    """
    try:
        options.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot use {options.root} as ROOT: {error}") from error
    served = Deployment(
        options.root.resolve(),
        config=options.config,
        admin_secret=options.admin_secret,
        expiry=Expiry(options.auth_read_expires, options.auth_write_expires),
        extra_index_url=options.extra_index_url,
        admin_token=options.admin_token,
        allowed_env=options.allowed_env,
        environ=options.environ,
    )

    def announce_all(addresses: list[str]) -> None:
        for address in addresses:
            announce(address)

    # All temporary files below ROOT: the system's folder may be small, or not writable at all.
    tempfile.tempdir = str(served.tmp)
    app = create_app(served, options.limits)
    hot_path = app.extensions[HOT_PATH]
    try:
        serve(
            app,
            legacy.make_gate(served, options.limits),
            host=options.host,
            port=options.port,
            options=options.waitress_options,
            on_listening=announce_all,
            # Pages come from the local index; files may wait for a storage.
            apart=lambda path: not path.endswith("/"),
            at_once=hot_path.at_once,
        )
    finally:
        tempfile.tempdir = None
        served.close()


def create_app(served: Deployment, limits: FormLimits | None = None) -> Flask:
    """The WSGI application over a deployment; also runs under any other WSGI server."""
    limits = limits or FormLimits(max_file_bytes=0)
    app = Flask(__name__, static_folder=None)
    app.extensions[EXTENSION] = served
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    page_cache = PageCache()
    for blueprint in (
        pages.make_blueprint(),
        simple.make_blueprint(page_cache),
        legacy.make_blueprint(limits),
        admin.make_blueprint(),
    ):
        app.register_blueprint(blueprint)
        app.register_blueprint(
            blueprint, name=f"{blueprint.name}_of_repository", url_prefix="/r/<repository>"
        )
    app.add_url_rule("/r/<repository>", view_func=pages.to_slash, methods=["GET"])
    for rule in ("/initialize/", "/initialize"):
        app.add_url_rule(rule, view_func=admin.initialize, methods=["POST"])
    app.register_error_handler(PrivatePypiError, _answer)
    app.register_error_handler(HTTPException, _answer_http)
    hot_path = HotPath(app.wsgi_app, served, page_cache)
    app.extensions[HOT_PATH] = hot_path
    app.wsgi_app = hot_path  # type: ignore[method-assign]
    return app


def _answer(error: PrivatePypiError) -> Response:
    answer = answer_error(error, request.headers.get("Accept"))
    if answer.status >= 500:
        # As a literal: a path may hold line ends, and a log is read line by line.
        logger.warning("%s %r: %s", request.method, request.path, error)
    return respond(answer)


def _answer_http(error: HTTPException) -> Response:
    headers = []
    sentence = error.description or error.name
    if isinstance(error, NotFound):
        sentence = (
            f"nothing is at {request.path!r}; an index is at /simple/ and /r/<repository>/simple/"
        )
    elif isinstance(error, InternalServerError):
        sentence = "the server failed; its log says why"
    elif isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        headers.append(("Allow", allowed))
        sentence = f"{request.method} is not possible here (but {allowed})"
        if request.method == "POST":
            sentence += "; uploads go to /simple/ or /legacy/, not to a project's page"
    return respond(answer_text(error.code or 500, sentence, request.headers.get("Accept"), headers))
