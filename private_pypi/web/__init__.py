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

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, InternalServerError, MethodNotAllowed, NotFound
from werkzeug.routing import RequestRedirect

from private_pypi.backend import Secret
from private_pypi.config import Source
from private_pypi.errors import ConfigurationError, PrivatePypiError
from private_pypi.verdicts import Expiry
from private_pypi.web import admin, legacy, simple
from private_pypi.web.answers import Answer, answer_error, answer_text
from private_pypi.web.content import PageCache
from private_pypi.web.deployment import Deployment
from private_pypi.web.hot_path import HotPath
from private_pypi.web.operations import health, metrics
from private_pypi.web.operations.logs import Log, RequestLog
from private_pypi.web.operations.watching import ROUTE, Watch, template
from private_pypi.web.people import human_pages, pages, sign_in
from private_pypi.web.people.attempts import FailedSignIns
from private_pypi.web.people.browsers import is_browser
from private_pypi.web.people.sessions import load_seal
from private_pypi.web.receiving import FormLimits
from private_pypi.web.requests import EXTENSION, SEAL, redirect_within, respond, send_session
from private_pypi.web.serving import serve

logger = logging.getLogger(__name__)

HOT_PATH = "private_pypi.hot_path"
"""The key of the `HotPath` in `Flask.extensions`."""

WATCH = "private_pypi.watch"
"""The key of the `Watch` there."""

# Whatever waits for a storage, those who ask how the server is do not stand behind it.
_AT_HAND = ("/health", "/health/ready", "/metrics")


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
    metrics_token: Secret | None = None
    request_log: Log | None = None  # for a line for each request


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
        metrics_token=options.metrics_token,
    )

    def announce_all(addresses: list[str]) -> None:
        for address in addresses:
            announce(address)

    # All temporary files below ROOT: the system's folder may be small, or not writable at all.
    tempfile.tempdir = str(served.tmp)
    request_log = None if options.request_log is None else RequestLog(options.request_log)
    try:
        app = create_app(served, options.limits, request_log)
        hot_path = app.extensions[HOT_PATH]
        serve(
            app,
            legacy.make_gate(served, options.limits),
            host=options.host,
            port=options.port,
            options=options.waitress_options,
            on_listening=announce_all,
            apart=lambda path: _may_wait(served, path),
            at_once=hot_path.at_once,
            watcher=app.extensions[WATCH],
        )
    finally:
        tempfile.tempdir = None
        served.close()
        if request_log is not None:
            request_log.close()


def _may_wait(served: Deployment, path: str) -> bool:
    """Pages come from the local index, or are looked up; files may wait for a storage."""
    if path.endswith(_AT_HAND):
        return False
    return not path.endswith("/") or pages.may_wait(path) or simple.may_wait(served, path)


def create_app(
    served: Deployment,
    limits: FormLimits | None = None,
    request_log: RequestLog | None = None,
) -> Flask:
    """The WSGI application over a deployment; also runs under any other WSGI server."""
    limits = limits or FormLimits(max_file_bytes=0)
    app = Flask(__name__, static_folder=None, template_folder="people/templates")
    app.extensions[EXTENSION] = served
    app.extensions[SEAL] = load_seal(served.root, served.environ)
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    page_cache = PageCache()
    watch = Watch(_finder(app), request_log)
    app.extensions[WATCH] = watch
    app.before_request(_note_route)
    app.before_request(_lead_to_slash)
    for blueprint in (
        simple.make_blueprint(page_cache),
        legacy.make_blueprint(limits),
        admin.make_blueprint(),
    ):
        app.register_blueprint(blueprint)
        app.register_blueprint(
            blueprint, name=f"{blueprint.name}_of_repository", url_prefix="/r/<repository>"
        )
    app.register_blueprint(pages.make_root_blueprint())
    app.register_blueprint(pages.make_blueprint(), url_prefix="/r/<repository>")
    app.register_blueprint(sign_in.make_blueprint(FailedSignIns()))
    human_pages.prepare(app)
    app.after_request(send_session)
    app.add_url_rule("/r/<repository>", view_func=pages.to_slash, methods=["GET"])
    for rule in ("/initialize/", "/initialize"):
        app.add_url_rule(rule, view_func=admin.initialize, methods=["POST"])
    app.register_blueprint(health.make_blueprint())
    app.register_blueprint(metrics.make_blueprint(metrics.Metrics(served, watch, page_cache)))
    app.register_error_handler(PrivatePypiError, _answer)
    app.register_error_handler(HTTPException, _answer_http)
    hot_path = HotPath(app.wsgi_app, served, page_cache)
    app.extensions[HOT_PATH] = hot_path
    app.wsgi_app = hot_path  # type: ignore[method-assign]
    return app


def _note_route() -> None:
    rule = request.url_rule
    request.environ[ROUTE] = template(None if rule is None else rule.rule)


def _lead_to_slash() -> Response | None:
    # Flask's own redirect names the scheme, host and prefix that it believes itself to have.
    if not isinstance(request.routing_exception, RequestRedirect):
        return None
    code = 301 if request.method in ("GET", "HEAD") else 308
    return redirect_within(request.path.rpartition("/")[2], "", code=code)


def _finder(app: Flask) -> Callable[[str, str], str | None]:
    """Which route a request has that was answered before the application was called."""

    def find(path: str, method: str) -> str | None:
        try:
            rule, _ = app.url_map.bind("localhost").match(path, method, return_rule=True)
        except HTTPException:
            return None
        return str(rule.rule)

    return find


def _answer(error: PrivatePypiError) -> Response:
    answer = answer_error(error, request.headers.get("Accept"))
    if answer.status >= 500:
        # As a literal: a path may hold line ends, and a log is read line by line.
        logger.warning("%s %r: %s", request.method, request.path, error)
    return _say(answer, str(error))


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
    answer = answer_text(error.code or 500, sentence, request.headers.get("Accept"), headers)
    return _say(answer, sentence)


def _say(answer: Answer, sentence: str) -> Response:
    """A sentence for a tool; for a person a page with it, or the way to sign in."""
    if not is_browser(request.headers):
        return respond(answer)
    if answer.status == 401 and g.get("asked_for_grant") and request.method in ("GET", "HEAD"):
        return human_pages.to_sign_in(refused=g.get("refused"))
    return human_pages.error_page(answer, sentence)
