"""What every view asks of a request: its repository, its grant; and how views answer."""

from __future__ import annotations

from urllib.parse import quote

from flask import Response, current_app, g, request

from private_pypi.backend import Access
from private_pypi.repositories import Grant
from private_pypi.web.answers import Answer
from private_pypi.web.auth import parse_credentials
from private_pypi.web.deployment import Deployment

EXTENSION = "private_pypi"
"""The key of the deployment in `Flask.extensions`."""


def deployment() -> Deployment:
    """What this application serves."""
    found: Deployment = current_app.extensions[EXTENSION]
    return found


def grant(repository: str | None, need: Access) -> Grant:
    """The caller's grant; raises what `Repositories.authorize` raises. Asked once per request."""
    kept: Grant | None = g.get("grant")
    if kept is None or kept.access < need:
        kept = deployment().repositories.authorize(
            parse_credentials(request.headers.get("Authorization")), name=repository, need=need
        )
        g.grant = kept
    return kept


def respond(answer: Answer) -> Response:
    """An answer as Flask sends it, with its reason phrase."""
    return Response(
        answer.body,
        status=f"{answer.status} {answer.reason}",
        headers=list(answer.headers),
    )


def redirect_within(*segments: str, code: int = 301) -> Response:
    """A redirect relative to the request, so that it holds behind any prefix and proxy.

    `segments` are those of a relative path, not yet percent-encoded; a final "" gives a slash.
    """
    # Encoded whole: a segment may hold "?", ":" or a line end, whatever somebody typed.
    location = "/".join(quote(segment, safe="") for segment in segments)
    if request.query_string:
        location += "?" + request.query_string.decode("latin-1")
    return Response(status=code, headers={"Location": location, "Cache-Control": "no-cache"})
