"""`GET /health/` (whether the server runs) and `GET /health/ready` (whether it can be used).

Both work without a secret, and then answer with one word. With the token of an operator, the second
one also says for each repository when it was synchronised and what is wrong. With the secret of a
repository, it says this about that repository only.
"""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Response, current_app, jsonify, request

from private_pypi.backend import Access
from private_pypi.errors import AccessError
from private_pypi.repositories import RepositoryState
from private_pypi.web.http.routes import Route
from private_pypi.web.requests import credentials_of_request, deployment
from private_pypi.web.serving import Stop

STOP = "private_pypi.stop"
"""The key of the `Stop` of the server in `Flask.extensions`."""


def live() -> Response:
    """200 as long as the process runs."""
    return _answer(200, "ok")


def ready() -> Response:
    """200 if every repository that the caller asks about can answer, else 503.

    A repository that was synchronised once answers from its local index, so it is ready even while
    its storage is in trouble. A server without repositories is not ready, and neither is one that
    was told to stop, so that load balancers leave it before it closes.
    """
    states, in_detail = _asked_for()
    stop: Stop = current_app.extensions[STOP]
    if stop.requested:
        return _answer(503, "stopping", states if in_detail else {})
    is_ready = bool(states) and all(state.ready for state in states.values())
    return _answer(
        200 if is_ready else 503, "ready" if is_ready else "not ready", states if in_detail else {}
    )


ROUTES = (
    Route("/health/", live),
    Route("/health", live),
    Route("/health/ready", ready),
    Route("/health/ready/", ready),
)


def _asked_for() -> tuple[dict[str, RepositoryState], bool]:
    """The states of the repositories that the caller asks about, and whether to say more of each.

    Raises `AccessError` for a secret that is neither an operator's nor a repository's.
    """
    served = deployment()
    credentials = credentials_of_request()
    if credentials is not None:
        try:
            served.require_operator(credentials)
        except AccessError:
            granted = served.repositories.authorize(credentials, name=None, need=Access.READ)
            return {granted.name: granted.state}, True
    states = {repository.name: repository.state() for repository in served.repositories}
    return states, credentials is not None


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
        "stale": state.stale is not None,
    }


def _as_line(name: str, state: RepositoryState) -> str:
    words = [f"{name}: {'ready' if state.ready else 'not ready'}"]
    if state.synced_at is not None:
        words.append(f"synchronised at {_time(state)}")
    if state.stale is not None:
        words.append("stale: names that it does not have are answered with 503")
    problem = state.error or state.stale
    if problem is not None:
        words.append(" ".join(problem.split()))
    return ", ".join(words)


def _time(state: RepositoryState) -> str | None:
    if state.synced_at is None:
        return None
    at = datetime.fromtimestamp(state.synced_at, UTC)
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
