"""Render and send pages for people: templates, static files and headers."""

from __future__ import annotations

import http
from typing import Any
from urllib.parse import quote

from flask import Flask, Response, current_app, g, render_template, request
from jinja2 import ChoiceLoader, FileSystemLoader, StrictUndefined
from werkzeug.exceptions import NotFound

from private_pypi.distributions.filenames import normalize
from private_pypi.pages import formatting
from private_pypi.pages.assets import (
    CACHE_CONTROL,
    STATIC,
    TEMPLATES,
    Asset,
    load_assets,
)
from private_pypi.repositories import Grant
from private_pypi.web.http.content import accepts_gzip
from private_pypi.web.http.routes import Route
from private_pypi.web.people.tool_settings import ToolSettings
from private_pypi.web.requests import server_address
from private_pypi.web.serving import Answer
from private_pypi.web.sessions.browsers import safe_next, to_root
from private_pypi.web.sessions.request_session import find_session, renew_session

_ASSETS = "private_pypi.assets"

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`, with which browsers would send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "private, no-store",
}


def prepare(app: Flask) -> None:
    """Give an application the template filters and static files that the pages need."""
    app.extensions[_ASSETS] = load_assets(STATIC)
    environment = app.jinja_env
    assert app.jinja_loader is not None
    environment.loader = ChoiceLoader([app.jinja_loader, FileSystemLoader(TEMPLATES)])
    environment.undefined = StrictUndefined
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters.update(formatting.FILTERS)


def static_file(name: str) -> Response:
    """A file of the folder `static` under the name that contains its hash."""
    for asset in current_app.extensions[_ASSETS].values():
        if asset.name == name:
            return _send_asset(asset)
    raise NotFound


ROUTES = (Route("/static/<name>", static_file),)


def send_asset_named(name: str) -> Response:
    """A file of the folder `static` under its own name, such as `logo.svg`."""
    return _send_asset(current_app.extensions[_ASSETS][name])


def _send_asset(asset: Asset) -> Response:
    packed = accepts_gzip(request.headers.get("Accept-Encoding"))
    response = Response(
        asset.compressed if packed else asset.content, content_type=asset.content_type
    )
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    response.headers["Cache-Control"] = CACHE_CONTROL
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.vary.add("Accept-Encoding")
    return response


def send_page(
    template: str,
    *,
    status: int = 200,
    repository: Grant | None = None,
    **values: Any,
) -> Response:
    """A page for people. `repository` is the repository that the page belongs to."""
    renew_session()
    session = find_session()
    root = to_root(request.path)
    text = render_template(
        template,
        root=root,
        asset=lambda name: f"{root}static/{current_app.extensions[_ASSETS][name].name}",
        repository=None if repository is None else repository.name,
        is_public=repository is not None and repository.is_public,
        signed_in=() if session is None else tuple(sorted(session.repositories)),
        token="" if session is None else session.token,
        here=_here(),
        **values,
    )
    response = Response(text, status=status, content_type="text/html; charset=utf-8")
    response.headers.update(_HEADERS)
    return response


def _here() -> str:
    path = quote(request.path)
    if request.query_string:
        path += "?" + request.query_string.decode("latin-1")
    return safe_next(path) or "/"


def tool_settings(repository: Grant) -> ToolSettings:
    """The settings for tools, with the server's address as this client knows it."""
    return ToolSettings(
        base=server_address(),
        repository=repository.name,
        needs_secret=not repository.is_public,
    )


def to_sign_in(refused: str | None = None) -> Response:
    """Redirect to the sign-in page, which leads back to this page.

    `refused` is the name of a repository whose secret is no longer accepted.
    """
    location = f"{to_root(request.path)}login/?next={quote(_here(), safe='/')}"
    if refused is not None:
        location += f"&refused={quote(refused, safe='')}"
    return Response(
        status=302,
        headers={"Location": location, "Cache-Control": "no-store", "Vary": "Cookie"},
    )


def error_page(answer: Answer, sentence: str) -> Response:
    """An error page: the status and headers that a tool would get, and what to do next."""
    kept: Grant | None = g.get("grant")
    asked = request.view_args or {}
    page = send_page(
        "error.html",
        status=answer.status,
        repository=kept,
        # A page of a project, whose absence can be explained.
        project=normalize(asked["name"]) if kept is not None and "name" in asked else None,
        code=answer.status,
        phrase=_phrase(answer.status),
        sentence=sentence,
    )
    for name, value in answer.headers:
        if name not in ("Content-Type", "Content-Length", "Cache-Control", "Vary"):
            page.headers[name] = value
    return page


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"
