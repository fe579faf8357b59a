"""What every view needs from a request, and how views answer it.

A *view* is the function that answers requests for an address. A *grant* is a repository together
with what the caller may do there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import quote

from flask import Response, after_this_request, current_app, g, request

from private_pypi.backend import Access, Secret
from private_pypi.errors import NotAllowed, WrongSecret
from private_pypi.repositories import Credentials, Grant
from private_pypi.web.deployment import Deployment
from private_pypi.web.http.credentials import parse_credentials
from private_pypi.web.http.page_cache import PageCache
from private_pypi.web.operations.changes import Change, Requester
from private_pypi.web.operations.request_statistics import REPOSITORY
from private_pypi.web.serving import LET_IN, REQUEST_ID, Answer
from private_pypi.web.sessions.attempts import network_of
from private_pypi.web.sessions.browsers import is_own_form, shown_host
from private_pypi.web.sessions.request_session import find_session, keep_session, vary_by_cookie
from private_pypi.web.sessions.sessions import Session

EXTENSION = "private_pypi"
"""The key of the `Deployment` in `Flask.extensions`."""

PAGE_CACHE = "private_pypi.page_cache"
"""The key of the `PageCache` there."""


def deployment() -> Deployment:
    """What this application serves."""
    found: Deployment = current_app.extensions[EXTENSION]
    return found


def page_cache() -> PageCache:
    """The rendered pages of this application."""
    found: PageCache = current_app.extensions[PAGE_CACHE]
    return found


# -- the caller ----------------------------------------------------------------------------------


def grant(repository: str | None, need: Access) -> Grant:
    """The caller's grant, which is remembered while the request is answered.

    `repository` is the name in the address; without one, the credentials or the session say which
    repository is meant. A session can take the place of credentials, but only for reading.
    Raises what `Repositories.authorize` raises.
    """
    g.asked_for_grant = True  # if it fails, a person in a browser is sent to sign in
    kept: Grant | None = g.get("grant")
    if kept is None or kept.access < need:
        kept = None
        if need <= Access.READ:
            kept = _grant_of_session(repository)
        if kept is None:
            kept = deployment().repositories.authorize(
                credentials_of_request(), name=repository, need=need
            )
            request.environ[LET_IN] = bool(request.headers.get("Authorization"))
        g.grant = kept
    request.environ[REPOSITORY] = kept.name
    return kept


def credentials_of_request() -> Credentials | None:
    """The credentials of this request, with the network that it comes from."""
    return parse_credentials(request.headers.get("Authorization"), client_of_request())


def client_of_request() -> str:
    """The network that this request comes from (see `network_of`)."""
    return network_of(request.remote_addr)


def _grant_of_session(repository: str | None) -> Grant | None:
    """What the session allows to read; None if it says nothing about this repository."""
    # Browsers send our cookie when somebody follows a link on another site, but not with a form of
    # another site. So a session only allows to read.
    if request.headers.get("Authorization") or request.method not in ("GET", "HEAD"):
        return None
    session = find_session()
    if session is None:
        return None
    name = session.current_name if repository is None else repository.lower()
    if name is None:
        return None
    secret = session.repositories.get(name)
    after_this_request(vary_by_cookie)
    if secret is None:
        if repository is not None:
            return None
        return deployment().repositories.authorize(None, name=name, need=Access.READ)
    granted = _authorize_session(session, name, secret)
    return None if granted is None else replace(granted, access=Access.READ)


def _authorize_session(session: Session, name: str, secret: Secret) -> Grant | None:
    """Check a secret as that of a tool is checked. If it is wrong, remove it from the session."""
    try:
        granted = deployment().repositories.authorize(
            Credentials(name, secret, client_of_request()), name=name, need=Access.READ
        )
    except WrongSecret:
        g.refused = name
        keep_session(session.without_repository(name))
        return None
    request.environ[LET_IN] = True
    return granted


# -- changes -------------------------------------------------------------------------------------


@contextlib.contextmanager
def noted(action: str) -> Iterator[Change]:
    """Note how a change ends; the view adds to the `Change` what it knows (see `changes`)."""
    change = Change(action=action)
    changes = deployment().changes
    try:
        yield change
    except Exception as error:
        changes.note(change, _requester(), error)
        raise
    changes.note(change, _requester())


def grant_change(change: Change, repository: str | None) -> Grant:
    """The caller's grant to write. Raises what `grant` and `require_own_form` raise."""
    try:
        granted = grant(repository, Access.WRITE)
    except NotAllowed:
        credentials = credentials_of_request()
        change.refuse(deployment().repositories.meant(credentials, name=repository))
        raise
    change.let_in(granted.name, granted.secret)
    require_own_form()
    return granted


def require_own_form() -> None:
    """Raise `NotAllowed` if a page of another site sent this request.

    A browser in which a user and a password were typed for this server sends them with every
    request to it, even if another site made the form.
    """
    if not is_own_form(request.headers, request.host):
        raise NotAllowed("a page of another site sent this request, so it was not carried out")


def _requester() -> Requester:
    return Requester(
        address=request.remote_addr or "",
        user_agent=request.headers.get("User-Agent", ""),
        request_id=request.environ.get(REQUEST_ID, ""),
    )


# -- answers -------------------------------------------------------------------------------------


def server_address() -> str:
    """The address of this server as the client of this request knows it, without a final slash."""
    host = shown_host(request.host) or "localhost"
    return f"{request.scheme}://{host}{request.script_root}"


def respond(answer: Answer) -> Response:
    """An answer as a response of Flask, with its own reason phrase."""
    return Response(
        answer.body,
        status=f"{answer.status} {answer.reason}",
        headers=list(answer.headers),
    )


def redirect_within(*segments: str, code: int = 301) -> Response:
    """A redirect to an address relative to the request, so that it is right behind any proxy.

    `segments` are those of the relative path, not yet percent-encoded. If the last one is "", the
    path ends with a slash. The query of the request is kept.
    """
    # Everything is encoded, because a segment of the request may hold "?", ":" or a line end.
    location = "/".join(quote(segment, safe="") for segment in segments)
    if request.query_string:
        location += "?" + request.query_string.decode("latin-1")
    return Response(status=code, headers={"Location": location, "Cache-Control": "no-cache"})
