"""Signing in and out of repositories with a browser; what a session then may is in `requests`."""

from __future__ import annotations

import logging

from flask import Blueprint, Response, request

from private_pypi.backend import Access, Secret
from private_pypi.config import is_repository_name
from private_pypi.errors import BackendUnavailable, NotAllowed, PrivatePypiError, WrongSecret
from private_pypi.repositories import Credentials
from private_pypi.web.answers import answer_error
from private_pypi.web.people.attempts import FailedSignIns
from private_pypi.web.people.browsers import is_own_form, safe_next, to_root
from private_pypi.web.people.human_pages import send_page
from private_pypi.web.people.sessions import LARGEST, SessionTooLarge
from private_pypi.web.requests import (
    deployment,
    end_session,
    find_session,
    keep_session,
    some_session,
)

logger = logging.getLogger(__name__)

NAME_FIELD = "pkg_repo_name"  # as private-pypi 0.2 had them
SECRET_FIELD = "pkg_repo_secret_raw"  # noqa: S105 - the name of a field

_MAX_FORM = 64 * 1024  # bytes
_NOT_OURS = (
    "The form was too old, or did not come from this page; it was not used. "
    "If this happens again, allow this site to set cookies."
)


def make_blueprint(failures: FailedSignIns) -> Blueprint:
    """`/login/` and `/logout/`, relative to the root."""
    blueprint = Blueprint("sign_in", __name__)

    def login() -> Response:
        refused = request.args.get("refused", "")
        notice = ""
        if not is_repository_name(refused):  # a sentence, which somebody else would have us say
            refused = ""
        else:
            notice = (
                f"The secret for {refused} is no longer accepted. "
                "Sign in with the one that is valid now."
            )
        return _form(200, notice, name=refused or _named_in(request.args.get("next")))

    def sign_in() -> Response:
        name, raw = _field(NAME_FIELD).strip(), _field(SECRET_FIELD).strip()
        session = find_session()
        own = is_own_form(request.headers, request.host)
        if session is None or not own or not session.has_token(_field("token")):
            return _form(403, _NOT_OURS, name=name)
        if not name or not raw:
            return _form(400, "Give the name of a repository and its secret.", name=name)
        try:
            granted = deployment().repositories.authorize(
                Credentials(name, Secret(raw)), name=name, need=Access.READ
            )
        except NotAllowed as error:
            # The storage knows the secret, and a reason that this person can do something about.
            return _form(403, f"The storage does not let you in: {error}.", name=name)
        except WrongSecret:
            return _failed(failures, name)
        except PrivatePypiError as error:
            # Trouble of the storage says nothing about the secret.
            return _trouble(error, name)
        try:
            keep_session(session.with_repository(granted.repository.name, Secret(raw)))
        except SessionTooLarge:
            return _form(400, _too_large(raw, len(session.repositories)), name=name)
        logger.info("signed in to %s from %s", granted.repository.name, request.remote_addr)
        return _go_on(_next(_field("next")) or f"/r/{granted.repository.name}/")

    def logout() -> Response:
        return send_page("logout.html", message="")

    def sign_out() -> Response:
        session = find_session()
        if session is None:
            return _go_on("/login/")
        own = is_own_form(request.headers, request.host)
        if not own or not session.has_token(_field("token")):
            return send_page("logout.html", status=403, message=_NOT_OURS)
        name = _field("repository")
        session = session.without_repository(name) if name else session
        if not name or not session.repositories:
            end_session()
            return _go_on("/login/")
        keep_session(session)
        return _go_on("/")

    for rule, get, post in (("/login/", login, sign_in), ("/logout/", logout, sign_out)):
        blueprint.add_url_rule(rule, view_func=get, methods=["GET"])
        blueprint.add_url_rule(rule, view_func=post, methods=["POST"])
    return blueprint


def _field(name: str) -> str:
    request.max_content_length = _MAX_FORM
    return request.form.get(name, "")


def _form(
    status: int, message: str, *, name: str | None, retry_after: int | None = None
) -> Response:
    some_session()  # whose token the form bears
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


def _failed(failures: FailedSignIns, name: str) -> Response:
    wait = failures.add(request.remote_addr, name)
    # Not the name: somebody may have typed the secret there.
    logger.warning("a sign-in failed from %s", request.remote_addr)
    if wait is not None:
        sentence = f"There were too many failed attempts. Wait {wait} seconds before you try again."
        return _form(429, sentence, name=name, retry_after=wait)
    # 403, because a 401 that browsers can answer would open a dialog of theirs.
    return _form(403, "There is no such repository, or this is not its secret.", name=name)


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
            "tools take this one."
        )
    return (
        "The secrets of all repositories you are signed in to do not fit into one cookie. "
        "Sign out of a repository first."
    )


def _named_in(going_to: str | None) -> str | None:
    """The repository of the page that a person came from."""
    path = safe_next(going_to) or ""
    parts = path.partition("?")[0].split("/")
    return parts[2] if len(parts) > 3 and parts[1] == "r" else None


def _next(going_to: str | None) -> str | None:
    path = safe_next(going_to)
    return None if path is None or path.startswith(("/login", "/logout")) else path


def _go_on(path: str) -> Response:
    location = to_root(request.path) + path.removeprefix("/")
    return Response(status=303, headers={"Location": location, "Cache-Control": "no-store"})
