"""What every view asks of a request: its repository, its session, its grant; how views answer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import quote

from flask import Response, after_this_request, current_app, g, request

from private_pypi.backend import Access, Secret
from private_pypi.errors import NotAllowed, WrongSecret
from private_pypi.repositories import Credentials, Grant
from private_pypi.web.answers import Answer
from private_pypi.web.auth import parse_credentials
from private_pypi.web.deployment import Deployment
from private_pypi.web.operations.changes import Asker, Change
from private_pypi.web.operations.watching import REPOSITORY
from private_pypi.web.people.browsers import is_own_form
from private_pypi.web.people.sessions import (
    COOKIE,
    IDLE,
    LONGEST,
    RENEW_AFTER,
    Session,
    SessionSeal,
    new_session,
)
from private_pypi.web.serving import REQUEST_ID

EXTENSION = "private_pypi"
"""The key of the deployment in `Flask.extensions`."""

SEAL = "private_pypi.seal"
"""The key of the `SessionSeal` there."""


def deployment() -> Deployment:
    """What this application serves."""
    found: Deployment = current_app.extensions[EXTENSION]
    return found


def grant(repository: str | None, need: Access) -> Grant:
    """The caller's grant; raises what `Repositories.authorize` raises. Asked once per request.

    A session stands in for credentials where a browser reads, and nowhere else.
    """
    g.asked_for_grant = True  # so a person who may not is helped by signing in
    kept: Grant | None = g.get("grant")
    if kept is None or kept.access < need:
        kept = None
        if need <= Access.READ:
            kept = _grant_of_session(repository)
        if kept is None:
            kept = deployment().repositories.authorize(
                parse_credentials(request.headers.get("Authorization")), name=repository, need=need
            )
        g.grant = kept
    request.environ[REPOSITORY] = kept.repository.name
    return kept


@contextlib.contextmanager
def noted(action: str) -> Iterator[Change]:
    """Note what becomes of a change; whoever makes it tells it what is known (see `changes`)."""
    change = Change(action=action)
    changes = deployment().changes
    try:
        yield change
    except Exception as error:
        changes.note(change, _asker(), error)
        raise
    changes.note(change, _asker())


def grant_change(change: Change, repository: str | None) -> Grant:
    """The caller's grant to write; raises as `grant` does."""
    try:
        granted = grant(repository, Access.WRITE)
    except NotAllowed:
        credentials = parse_credentials(request.headers.get("Authorization"))
        change.refuse(deployment().repositories.meant(credentials, name=repository))
        raise
    change.let_in(granted.repository.name, granted.secret)
    require_own_form()
    return granted


def require_own_form() -> None:
    """Raise when a page of another site sent this request.

    A browser that was told a user and a password sends them along, whoever made the form.
    """
    if not is_own_form(request.headers, request.host):
        raise NotAllowed("a page of another site sent this, so it was not used")


def _asker() -> Asker:
    return Asker(
        address=request.remote_addr or "",
        user_agent=request.headers.get("User-Agent", ""),
        request_id=request.environ.get(REQUEST_ID, ""),
    )


def _grant_of_session(repository: str | None) -> Grant | None:
    """What the session lets its person read; None: it says nothing about this repository."""
    # A form of another site sends no cookie of ours, but its links do: so reading is all it does.
    if request.headers.get("Authorization") or request.method not in ("GET", "HEAD"):
        return None
    session = find_session()
    if session is None:
        return None
    name = session.current_name if repository is None else repository.lower()
    if name is None:
        return None
    secret = session.repositories.get(name)
    after_this_request(_vary_by_cookie)
    if secret is None:
        if repository is not None:
            return None
        return deployment().repositories.authorize(None, name=name, need=Access.READ)
    granted = authorize_session(session, name, secret)
    return None if granted is None else replace(granted, access=Access.READ)


def authorize_session(session: Session, name: str, secret: Secret) -> Grant | None:
    """Ask the storage again, as for every request of a tool; what it refuses leaves the session."""
    try:
        return deployment().repositories.authorize(
            Credentials(name, secret), name=name, need=Access.READ
        )
    except WrongSecret:
        g.refused = name
        keep_session(session.without_repository(name))
        return None


def _vary_by_cookie(response: Response) -> Response:
    response.vary.add("Cookie")
    # A shared cache keeps nothing that came for credentials (RFC 9111 §3.5), but cookies are none.
    if not response.cache_control.no_store:
        response.cache_control.private = True
    return response


# -- sessions ------------------------------------------------------------------------------------


def find_session() -> Session | None:
    """The session of this request as it is now, when there is one that has not ended."""
    if "session" not in g:
        seal: SessionSeal = current_app.extensions[SEAL]
        g.session = seal.open(request.cookies.get(COOKIE), time.time())
    found: Session | None = g.session
    return found


def some_session() -> Session:
    """The session of this request; a new one, of nobody, when there is none."""
    session = find_session()
    if session is None:
        session = new_session(time.time())
        keep_session(session)
    return session


def keep_session(session: Session) -> None:
    """Send this session to the browser; raises `SessionTooLarge`."""
    seal: SessionSeal = current_app.extensions[SEAL]
    session = replace(session, seen_at=int(time.time()))
    g.sealed = seal.seal(session)
    g.session = session


def renew_session() -> None:
    """A person is here: the time without a request begins anew."""
    session = find_session()
    if session is not None and time.time() - session.seen_at > RENEW_AFTER:
        keep_session(session)


def end_session() -> None:
    """Have the browser forget it."""
    g.sealed = ""
    g.session = None


def send_session(response: Response) -> Response:
    """Put the session into the response, if it changed."""
    sealed: str | None = g.get("sealed")
    if sealed is None:
        return response
    session: Session | None = g.session
    left = 0 if session is None else session.began_at + LONGEST - session.seen_at
    response.set_cookie(
        COOKIE,
        sealed,
        max_age=min(IDLE, left),
        path=request.script_root + "/",
        secure=request.is_secure,
        httponly=True,
        samesite="Lax",
    )
    _vary_by_cookie(response)
    return response


# -- answers -------------------------------------------------------------------------------------


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
