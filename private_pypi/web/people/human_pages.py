"""How a page for people is sent: its template, its frame, its headers; not what is on it."""

from __future__ import annotations

import http
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flask import Flask, Response, current_app, g, render_template, request
from jinja2 import StrictUndefined
from werkzeug.exceptions import NotFound

from private_pypi.records import format_time
from private_pypi.repositories import Grant, Repository
from private_pypi.web.answers import Answer
from private_pypi.web.content import accepts_gzip
from private_pypi.web.people import presenting
from private_pypi.web.people.assets import CACHE_CONTROL, Asset, load_assets
from private_pypi.web.people.browsers import safe_next, shown_host, to_root
from private_pypi.web.people.presenting import Place
from private_pypi.web.requests import find_session, renew_session

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
    # Not `no-referrer`: browsers would then send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "private, no-store",
}


def prepare(app: Flask) -> None:
    """Give the application templates, filters and the files that pages need."""
    assets = load_assets(Path(__file__).parent / "static")
    app.extensions[_ASSETS] = assets
    by_name = {asset.name: asset for asset in assets.values()}
    environment = app.jinja_env
    environment.undefined = StrictUndefined
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.filters.update(
        day=presenting.day_of,
        minute=presenting.minute_of,
        moment=format_time,
        kind=presenting.kind_of,
        size=presenting.size_of,
        segment=lambda text: quote(text, safe=""),
    )

    def static(name: str) -> Response:
        asset = by_name.get(name)
        if asset is None:
            raise NotFound
        return _send_asset(asset)

    app.add_url_rule("/static/<name>", endpoint="static_file", view_func=static)


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
    repository: Repository | None = None,
    **values: Any,
) -> Response:
    """A page for people; `repository` is the one that it is of."""
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


def server_address() -> str:
    """Where this server is, as this request came to it, without a final slash."""
    host = shown_host(request.host) or "localhost"
    return f"{request.scheme}://{host}{request.script_root}"


def place_of(repository: Repository) -> Place:
    """Where tools find a repository, as this request came to it."""
    return Place(
        base=server_address(),
        repository=repository.name,
        needs_secret=not repository.is_public,
    )


def to_sign_in(refused: str | None = None) -> Response:
    """To the sign-in page and back; `refused`: whose secret is no longer accepted."""
    location = f"{to_root(request.path)}login/?next={quote(_here(), safe='/')}"
    if refused is not None:
        location += f"&refused={quote(refused, safe='')}"
    return Response(
        status=302,
        headers={"Location": location, "Cache-Control": "no-store", "Vary": "Cookie"},
    )


def error_page(answer: Answer, sentence: str) -> Response:
    """An error for a person: the same status and headers as for a tool, and what to do next."""
    kept: Grant | None = g.get("grant")
    page = send_page(
        "error.html",
        status=answer.status,
        repository=None if kept is None else kept.repository,
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
