"""Sign in to repositories and out of them with a browser.

What a session then allows is decided in `requests`.
"""

from __future__ import annotations

import logging

from flask import Response, current_app, request

from private_pypi.backend import Access, Secret
from private_pypi.configuration.config import is_repository_name
from private_pypi.errors import BackendUnavailable, NotAllowed, PrivatePypiError, WrongSecret
from private_pypi.repositories import Credentials
from private_pypi.web.http.answers import answer_error
from private_pypi.web.http.routes import Route
from private_pypi.web.people.rendering import send_page
from private_pypi.web.requests import client_of_request, deployment
from private_pypi.web.sessions.attempts import SignInAttempts
from private_pypi.web.sessions.browsers import is_own_form, safe_next, to_root
from private_pypi.web.sessions.request_session import (
    end_session,
    ensure_session,
    find_session,
    keep_session,
)
from private_pypi.web.sessions.sessions import LARGEST, Session, SessionTooLarge

logger = logging.getLogger(__name__)

ATTEMPTS = "private_pypi.attempts"
"""The key of the `SignInAttempts` in `Flask.extensions`."""

NAME_FIELD = "pkg_repo_name"  # both names are those of private-pypi 0.2
SECRET_FIELD = "pkg_repo_secret_raw"  # noqa: S105 - the name of a field

_MAX_FORM = 64 * 1024  # bytes
_NOT_OURS = (
    "The form was too old, or did not come from this page, so it was not used. "
    "If this happens again, allow this site to set cookies."
)


def show_sign_in() -> Response:
    """The form to sign in."""
    refused = request.args.get("refused", "")
    if not is_repository_name(refused):  # could be any text, in a link of another site
        return _form(200, "", name=_named_in(request.args.get("next")))
    notice = (
        f"The secret for {refused} is no longer accepted. Sign in with the one that is valid now."
    )
    return _form(200, notice, name=refused)


def sign_in() -> Response:
    """Add a repository to the session if its secret is right."""
    name, raw = _field(NAME_FIELD).strip(), _field(SECRET_FIELD).strip()
    session = find_session()
    if session is None or not _is_own_form(session):
        return _form(403, _NOT_OURS, name=name)
    if not name or not raw:
        return _form(400, "Give the name of a repository and its secret.", name=name)
    attempts: SignInAttempts = current_app.extensions[ATTEMPTS]
    attempt = attempts.begin(request.remote_addr, name)
    if attempt.wait is not None:
        return _refused(attempt.wait, name)
    try:
        granted = deployment().repositories.authorize(
            Credentials(name, Secret(raw), client_of_request()), name=name, need=Access.READ
        )
    except WrongSecret:
        return _failed(name)
    except PrivatePypiError as error:
        # Not a wrong secret: it is right but may not read, or the storage is in trouble.
        attempts.take_back(attempt)
        if isinstance(error, NotAllowed):
            return _form(403, f"The storage does not let you in: {error}.", name=name)
        return _trouble(error, name)
    attempts.take_back(attempt)
    try:
        keep_session(session.with_repository(granted.name, Secret(raw)))
    except SessionTooLarge:
        return _form(400, _too_large(raw, len(session.repositories)), name=name)
    logger.info("signed in to %s from %s", granted.name, request.remote_addr)
    return _go_on(_next(_field("next")) or f"/r/{granted.name}/")


def show_sign_out() -> Response:
    """The form to sign out."""
    return send_page("logout.html", message="")


def sign_out() -> Response:
    """Remove a repository from the session, or end the session."""
    session = find_session()
    if session is None:
        return _go_on("/login/")
    if not _is_own_form(session):
        return send_page("logout.html", status=403, message=_NOT_OURS)
    name = _field("repository")
    session = session.without_repository(name) if name else session
    if not name or not session.repositories:
        end_session()
        return _go_on("/login/")
    keep_session(session)
    return _go_on("/")


ROUTES = (
    Route("/login/", show_sign_in),
    Route("/login/", sign_in, ("POST",)),
    Route("/logout/", show_sign_out),
    Route("/logout/", sign_out, ("POST",)),
)


def _is_own_form(session: Session) -> bool:
    """Whether a page of this session sent the form."""
    return is_own_form(request.headers, request.host) and session.has_token(_field("token"))


def _field(name: str) -> str:
    request.max_content_length = _MAX_FORM
    return request.form.get(name, "")


def _form(
    status: int, message: str, *, name: str | None, retry_after: int | None = None
) -> Response:
    ensure_session()  # the form contains its token
    going_to = request.form.get("next") if request.method == "POST" else request.args.get("next")
    page = send_page(
        "login.html",
        status=status,
        message=message,
        name=(name or "")[:100],
        next=_next(going_to) or "",
        public=[each.name for each in deployment().repositories if each.is_public],
        configured=len(deployment().repositories) > 0,
    )
    if retry_after is not None:
        page.headers["Retry-After"] = str(retry_after)
    return page


def _failed(name: str) -> Response:
    # Without the name, because somebody may have typed the secret in its field.
    logger.warning("a sign-in failed from %s", request.remote_addr)
    # Not 401, for which browsers would open their own dialog.
    return _form(403, "There is no such repository, or this is not its secret.", name=name)


def _refused(wait: int, name: str) -> Response:
    logger.warning(
        "a sign-in was refused without a check: too many failures from %s", request.remote_addr
    )
    sentence = (
        "There were too many failed attempts to sign in from your network, so the secret was not "
        f"checked. Wait {wait} seconds before you try again."
    )
    return _form(429, sentence, name=name, retry_after=wait)


def _trouble(error: PrivatePypiError, name: str) -> Response:
    answer = answer_error(error, None)
    wait = error.retry_after if isinstance(error, BackendUnavailable) else None
    sentence = f"The secret could not be checked: {error}. Try again in a moment."
    return _form(answer.status, sentence, name=name, retry_after=wait)


def _too_large(raw: str, others: int) -> str:
    if not others:
        return (
            f"A secret of {len(raw.encode(errors='replace'))} bytes is too long for a browser's "
            f"cookie, which takes about {LARGEST * 3 // 4 - 300}. Use a shorter token to sign in; "
            "tools can use this one."
        )
    return (
        "The secrets of all repositories you are signed in to do not fit into one cookie. "
        "Sign out of a repository first."
    )


def _named_in(going_to: str | None) -> str | None:
    """The name of the repository in a path such as `/r/<repository>/project/`."""
    path = safe_next(going_to) or ""
    parts = path.partition("?")[0].split("/")
    return parts[2] if len(parts) > 3 and parts[1] == "r" else None


def _next(going_to: str | None) -> str | None:
    path = safe_next(going_to)
    return None if path is None or path.startswith(("/login", "/logout")) else path


def _go_on(path: str) -> Response:
    location = to_root(request.path) + path.removeprefix("/")
    return Response(status=303, headers={"Location": location, "Cache-Control": "no-store"})
