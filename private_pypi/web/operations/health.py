"""`GET /health/` (whether the server lives) and `GET /health/ready` (whether it can be used).

Nobody's secret is needed. A stranger learns a word; who operates the server learns of each
repository when it was synchronised and what is wrong, and the secret of a repository opens the same
about that one alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from flask import Blueprint, Response, jsonify, request

from private_pypi.backend import Access
from private_pypi.errors import AccessError
from private_pypi.repositories import Repository, RepositoryState
from private_pypi.web.auth import parse_credentials
from private_pypi.web.requests import deployment


def make_blueprint() -> Blueprint:
    """The routes, with and without a final slash."""
    blueprint = Blueprint("health", __name__)
    for rule in ("/health/", "/health"):
        blueprint.add_url_rule(rule, view_func=live, methods=["GET"], strict_slashes=True)
    for rule in ("/health/ready", "/health/ready/"):
        blueprint.add_url_rule(rule, view_func=ready, methods=["GET"], strict_slashes=True)
    return blueprint


def live() -> Response:
    """200 as long as the process serves."""
    return _answer(200, "ok")


def ready() -> Response:
    """200 when every repository can answer, or the caller's own; else 503.

    A repository that could be synchronised before answers from what it has, so it is ready also
    while its storage is in trouble. Without a repository there is nothing to use.
    """
    repositories, in_detail = _asked_for()
    states = {repository.name: repository.state() for repository in repositories}
    is_ready = bool(states) and all(state.ready for state in states.values())
    return _answer(
        200 if is_ready else 503, "ready" if is_ready else "not ready", states if in_detail else {}
    )


def _asked_for() -> tuple[Iterable[Repository], bool]:
    """The repositories that the caller asks about, and whether he is told of each.

    Raises `AccessError` for a secret that is neither an operator's nor a repository's.
    """
    served = deployment()
    credentials = parse_credentials(request.headers.get("Authorization"))
    if credentials is None:
        return served.repositories, False
    try:
        served.require_operator(credentials)
    except AccessError:
        granted = served.repositories.authorize(credentials, name=None, need=Access.READ)
        return [granted.repository], True
    return served.repositories, True


def _answer(status: int, word: str, states: dict[str, RepositoryState] | None = None) -> Response:
    headers = {"Cache-Control": "no-store", "Vary": "Accept, Authorization"}
    if status == 503:
        headers["Retry-After"] = "5"
    best = request.accept_mimetypes.best_match(["text/plain", "application/json"])
    if best == "application/json":
        value: dict[str, object] = {"status": word}
        if states:
            value["repositories"] = {name: _as_json(state) for name, state in states.items()}
        response = jsonify(value)
        response.status_code = status
        response.headers.extend(headers)
        return response
    lines = [word, *(_as_line(name, state) for name, state in (states or {}).items())]
    text = "".join(f"{line}\n" for line in lines)
    return Response(text, status, headers, content_type="text/plain; charset=utf-8")


def _as_json(state: RepositoryState) -> dict[str, object]:
    return {
        "ready": state.ready,
        "synchronized_at": _time(state),
        "error": state.error,
    }


def _as_line(name: str, state: RepositoryState) -> str:
    words = [f"{name}: {'ready' if state.ready else 'not ready'}"]
    if state.synced_at is not None:
        words.append(f"synchronised at {_time(state)}")
    if state.error is not None:
        words.append(" ".join(state.error.split()))
    return ", ".join(words)


def _time(state: RepositoryState) -> str | None:
    if state.synced_at is None:
        return None
    at = datetime.fromtimestamp(state.synced_at, UTC)
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
