"""Addresses that programs ask every server for: `robots.txt`, an icon, `security.txt`."""

from __future__ import annotations

from flask import Response
from werkzeug.exceptions import NotFound

from private_pypi.web.http.routes import Route
from private_pypi.web.people.rendering import send_asset_named
from private_pypi.web.requests import deployment

_ROBOTS = "User-agent: *\nDisallow: /\n"
_DAY = "public, max-age=86400"


def robots() -> Response:
    """Keep search engines away, also from an index that everybody may read."""
    return _text(_ROBOTS)


def favicon() -> Response:
    """The icon. Our pages name it themselves, but not everything reads them."""
    response = send_asset_named("logo.svg")
    response.headers["Cache-Control"] = _DAY  # this address does not change with the content
    return response


def security_txt() -> Response:
    """The text that the operator gave for `security.txt` (RFC 9116); 404 without one."""
    text = deployment().options.security_txt
    if text is None:
        raise NotFound
    return _text(text)


ROUTES = (
    Route("/robots.txt", robots),
    Route("/favicon.ico", favicon),
    Route("/.well-known/security.txt", security_txt),
)


def _text(content: str) -> Response:
    return Response(
        content, content_type="text/plain; charset=utf-8", headers={"Cache-Control": _DAY}
    )
