"""The server: an application in Flask, its gate, and the engine that runs both.

Flask is imported nowhere else than in this package.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, InternalServerError, MethodNotAllowed, NotFound
from werkzeug.routing import RequestRedirect

from private_pypi.backend.chains import chained, parse_chain
from private_pypi.errors import ConfigurationError, PrivatePypiError
from private_pypi.pages.readme import Readmes
from private_pypi.web import well_known
from private_pypi.web.api import admin, feeds, health, legacy, legacy_json, metrics, simple
from private_pypi.web.api.hot_path import HotPath
from private_pypi.web.deployment import Deployment
from private_pypi.web.http.answers import answer_error, answer_text
from private_pypi.web.http.content import LONGEST_KEPT, PageCache
from private_pypi.web.http.credentials import parse_credentials
from private_pypi.web.http.routes import MatchedRule, add_routes
from private_pypi.web.operations.logs import Log, RequestLog
from private_pypi.web.operations.request_statistics import ROUTE, RequestStatistics, Tell, template
from private_pypi.web.operations.telemetry import Telemetry
from private_pypi.web.options import ServerOptions
from private_pypi.web.people import explain, pages, rendering, sign_in
from private_pypi.web.requests import (
    EXTENSION,
    PAGE_CACHE,
    deployment,
    redirect_within,
    respond,
)
from private_pypi.web.root_addresses import RootAddresses
from private_pypi.web.serving import Answer, Kind, serve
from private_pypi.web.sessions.attempts import SignInAttempts
from private_pypi.web.sessions.browsers import is_browser
from private_pypi.web.sessions.request_session import SEAL, send_session
from private_pypi.web.sessions.sessions import load_seal

logger = logging.getLogger(__name__)

HOT_PATH = "private_pypi.hot_path"
"""The key of the `HotPath` in `Flask.extensions`."""

ROOT_ADDRESSES = "private_pypi.root_addresses"
"""The key of the `RootAddresses` there."""

REQUEST_STATISTICS = "private_pypi.request_statistics"
"""The key of the `RequestStatistics` there."""

_OF_REPOSITORY = re.compile("/r/([^/]+)/?")

_AT_AN_INSTANT = re.compile("(/r/[^/]+)?/at/[^/]+(/|$)")

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
        for address in addresses:
            announce(address)
        if not options.waitress_options.get("trusted_proxy"):
            _warn_of_plain_http(addresses)

    # Keep all temporary files below ROOT: the system's folder may be small or not writable.
    tempfile.tempdir = str(served.tmp)
    request_log = RequestLog(log) if options.request_log else None
    try:
        app = create_app(served, request_log, None if telemetry is None else telemetry.answered)
        if telemetry is not None:
            telemetry.start(app.extensions[metrics.METRICS])
        hot_path: HotPath = app.extensions[HOT_PATH]
        aliases: RootAddresses = app.extensions[ROOT_ADDRESSES]
        gate = legacy.make_gate(served)

        def at_once(environ: dict[str, Any]) -> Answer | None:
            aliases.translate(environ)
            return hot_path.at_once(environ)

        serve(
            app,
            lambda head: gate(aliases.of_head(head)),
            host=options.host,
            port=options.port,
            options=options.waitress_options,
            on_listening=announce_all,
            kind_of=lambda path: _kind_of(served, aliases.path_of(path)),
            share_of=lambda path, authorization: _share_of(
                served, aliases.path_of(path), authorization
            ),
            at_once=at_once,
            observer=app.extensions[REQUEST_STATISTICS],
        )
    finally:
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
    if pages.may_wait(path):
        return Kind.PEOPLE
    if not path.endswith("/") or simple.may_wait(served, path):
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
    app = Flask(__name__, static_folder=None, template_folder="people/templates")
    app.url_rule_class = MatchedRule
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    app.url_map.converters["version"] = pages.VersionConverter
    pages_in_memory = PageCache()
    statistics = RequestStatistics(_route_finder(app), request_log, tell)
    app.extensions |= {
        EXTENSION: served,
        SEAL: load_seal(served.root, served.environ),
        PAGE_CACHE: pages_in_memory,
        REQUEST_STATISTICS: statistics,
        metrics.METRICS: metrics.make_registry(served, statistics, pages_in_memory),
        pages.READMES: Readmes(),
        sign_in.ATTEMPTS: SignInAttempts(),
    }
    rendering.prepare(app)
    app.before_request(_note_route)
    app.before_request(_check_host)
    app.before_request(_redirect_to_slash)
    app.after_request(send_session)
    for module in (simple, legacy, legacy_json, feeds, admin, explain):
        add_routes(app, module.ROUTES)
        add_routes(app, module.ROUTES, "/r/<repository>")
    add_routes(app, pages.ROUTES, "/r/<repository>")
    add_routes(app, pages.SERVER_ROUTES)
    for routes in (
        legacy_json.SERVER_ROUTES,
        admin.SERVER_ROUTES,
        sign_in.ROUTES,
        rendering.ROUTES,
        well_known.ROUTES,
        health.ROUTES,
        metrics.ROUTES,
    ):
        add_routes(app, routes)
    app.register_error_handler(PrivatePypiError, _answer_error)
    app.register_error_handler(HTTPException, _answer_http_exception)
    app.extensions[HOT_PATH] = hot_path = HotPath(app.wsgi_app, served, pages_in_memory)
    own = {rule.rule.split("/")[1] for rule in app.url_map.iter_rules()}
    app.extensions[ROOT_ADDRESSES] = aliases = RootAddresses(served, own)

    def translated(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        aliases.translate(environ)
        if "HTTP_CDN_LOOP" not in environ:
            return hot_path(environ, start_response)
        with chained(parse_chain(environ["HTTP_CDN_LOOP"])):
            return hot_path(environ, start_response)

    app.wsgi_app = translated  # type: ignore[method-assign]
    return app


def _note_route() -> None:
    rule = request.url_rule
    request.environ[ROUTE] = template(None if rule is None else rule.rule)


def _check_host() -> None:
    deployment().require_served(request.headers.get("Host"))


def _redirect_to_slash() -> Response | None:
    # Flask's own redirect is absolute, and behind a proxy it may name the wrong scheme or host.
    if not isinstance(request.routing_exception, RequestRedirect):
        return None
    code = 301 if request.method in ("GET", "HEAD") else 308
    return redirect_within(request.path.rpartition("/")[2], "", code=code)


def _route_finder(app: Flask) -> Callable[[str, str], str | None]:
    """A function that finds the route of a request that did not get to the application."""

    def find(path: str, method: str) -> str | None:
        try:
            rule, _ = app.url_map.bind("localhost").match(path, method, return_rule=True)
        except HTTPException:
            return None
        return str(rule.rule)

    return find


def _answer_error(error: PrivatePypiError) -> Response:
    answer = answer_error(error, request.headers.get("Accept"))
    if answer.status >= 500:
        # With %r, because a path may contain line ends.
        logger.warning("%s %r: %s", request.method, request.path, error)
    return _respond_with(answer, str(error))


def _answer_http_exception(error: HTTPException) -> Response:
    headers = []
    sentence = error.description or error.name
    if isinstance(error, NotFound):
        sentence = (
            f"nothing is at {request.path!r}; an index is at /simple/ and /r/<repository>/simple/"
        )
        if _AT_AN_INSTANT.match(request.path):
            sentence += ", and that of an earlier day at /r/<repository>/at/<instant>/simple/"
    elif isinstance(error, InternalServerError):
        sentence = "the server failed; its log says why"
    elif isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(error.valid_methods or ()))
        headers.append(("Allow", allowed))
        sentence = f"{request.method} is not possible here; use one of {allowed}"
        if request.method == "POST":
            sentence += (
                "; an index of an earlier day cannot be changed: upload to /r/<repository>/"
                if _AT_AN_INSTANT.match(request.path)
                else "; uploads go to /r/<repository>/, not to the page of a project"
            )
    answer = answer_text(error.code or 500, sentence, request.headers.get("Accept"), headers)
    return _respond_with(answer, sentence)


def _respond_with(answer: Answer, sentence: str) -> Response:
    """The answer for a tool; for a browser an error page, or a redirect to the sign-in page."""
    if not is_browser(request.headers):
        return respond(answer)
    if answer.status == 401 and g.get("asked_for_grant") and request.method in ("GET", "HEAD"):
        return rendering.to_sign_in(refused=g.get("refused"))
    return rendering.error_page(answer, sentence)
