"""The session of the request that is being answered: read from its cookie, and sent back.

A changed session is kept in `flask.g` until `send_session` puts it into the response.
"""

from __future__ import annotations

import time
from dataclasses import replace

from flask import Response, current_app, g, request

from private_pypi.web.sessions.sessions import (
    COOKIE,
    IDLE,
    LONGEST,
    RENEW_AFTER,
    Session,
    SessionSeal,
    new_session,
)

SEAL = "private_pypi.seal"
"""The key of the `SessionSeal` in `Flask.extensions`."""


def find_session() -> Session | None:
    """The session of this request with its changes so far; None if it has none, or it ended."""
    if "session" not in g:
        seal: SessionSeal = current_app.extensions[SEAL]
        g.session = seal.open(request.cookies.get(COOKIE), time.time())
    found: Session | None = g.session
    return found


def ensure_session() -> None:
    """Begin a session, without any repository, if this request has none."""
    if find_session() is None:
        keep_session(new_session(time.time()))


def keep_session(session: Session) -> None:
    """Send this session to the browser. Raises `SessionTooLarge`."""
    seal: SessionSeal = current_app.extensions[SEAL]
    session = replace(session, seen_at=int(time.time()))
    g.sealed = seal.seal(session)
    g.session = session


def renew_session() -> None:
    """Restart the time after which an unused session ends, because a person uses it."""
    session = find_session()
    if session is not None and time.time() - session.seen_at > RENEW_AFTER:
        keep_session(session)


def end_session() -> None:
    """Make the browser delete the cookie."""
    g.sealed = ""
    g.session = None


def send_session(response: Response) -> Response:
    """Put the session into the response if it has changed."""
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
    return vary_by_cookie(response)


def vary_by_cookie(response: Response) -> Response:
    """Say that the response depends on the cookie, and keep it out of shared caches."""
    response.vary.add("Cookie")
    # Shared caches do not keep a response to a request with `Authorization` (RFC 9111 §3.5), but
    # to one with a cookie they would.
    if not response.cache_control.no_store:
        response.cache_control.private = True
    return response
