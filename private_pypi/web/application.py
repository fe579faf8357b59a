"""The application in Flask: all routes and views, and how errors are answered.

It is loaded by the first request that `hot_path` leaves to it (see `front`).
"""

from __future__ import annotations

import logging
import re

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, InternalServerError, MethodNotAllowed, NotFound
from werkzeug.routing import RequestRedirect

from private_pypi.errors import PrivatePypiError
from private_pypi.pages.readme import Readmes
from private_pypi.web.api import admin, feeds, health, legacy, legacy_json, metrics, simple
from private_pypi.web.deployment import Deployment
from private_pypi.web.http.answers import answer_error, answer_text
from private_pypi.web.http.page_cache import PageCache
from private_pypi.web.http.routes import MatchedRule, add_routes
from private_pypi.web.operations.request_statistics import ROUTE, RequestStatistics, template
from private_pypi.web.people import explain, pages, rendering, sign_in
from private_pypi.web.requests import (
    EXTENSION,
    PAGE_CACHE,
    deployment,
    redirect_within,
    respond,
)
from private_pypi.web.serving import Answer, Stop
from private_pypi.web.sessions.attempts import SignInAttempts
from private_pypi.web.sessions.browsers import is_browser
from private_pypi.web.sessions.request_session import SEAL, send_session
from private_pypi.web.sessions.sessions import SessionSeal
from private_pypi.web.well_known import ROUTES as WELL_KNOWN

logger = logging.getLogger(__name__)

REQUEST_STATISTICS = "private_pypi.request_statistics"
"""The key of the `RequestStatistics` in `Flask.extensions`."""

_AT_AN_INSTANT = re.compile("(/r/[^/]+)?/at/[^/]+(/|$)")


def make_application(
    served: Deployment,
    seal: SessionSeal,
    pages_in_memory: PageCache,
    statistics: RequestStatistics,
    stop: Stop,
) -> Flask:
    """The application for a deployment, which answers every request."""
    worker = served.worker
    app = Flask(__name__, static_folder=None, template_folder="people/templates")
    app.url_rule_class = MatchedRule
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    app.url_map.converters["version"] = pages.VersionConverter
    app.extensions |= {
        EXTENSION: served,
        SEAL: seal,
        health.STOP: stop,
        PAGE_CACHE: pages_in_memory,
        REQUEST_STATISTICS: statistics,
        metrics.METRICS: metrics.AllMetrics(served, statistics, pages_in_memory),
        pages.READMES: Readmes(),
        sign_in.ATTEMPTS: SignInAttempts(path=None if worker is None else worker.shared.attempts),
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
        WELL_KNOWN,
        health.ROUTES,
        metrics.ROUTES,
    ):
        add_routes(app, routes)
    app.register_error_handler(PrivatePypiError, _answer_error)
    app.register_error_handler(HTTPException, _answer_http_exception)
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


def find_route(app: Flask, path: str, method: str) -> str | None:
    """The route for a path and a method; None: there is none."""
    try:
        rule, _ = app.url_map.bind("localhost").match(path, method, return_rule=True)
    except HTTPException:
        return None
    return str(rule.rule)


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
