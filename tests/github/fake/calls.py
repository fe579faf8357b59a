"""What all REST operations need: a request that was understood, its answer, and errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from .shapes import JSON, Shapes
from .state import (
    Account,
    Hub,
    Repository,
    Role,
    Token,
)


class Refusal(Exception):
    """An answer that is not a success."""

    def __init__(
        self,
        status: int,
        message: str,
        errors: Sequence[Mapping[str, object]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = list(errors)
        self.headers = dict(headers or {})

    def body(self) -> JSON:
        """As GitHub writes it."""
        shape: JSON = {
            "message": self.message,
            "documentation_url": "https://docs.github.com/rest",
            "status": str(self.status),
        }
        return {**shape, "errors": self.errors} if self.errors else shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, understood."""

    hub: Hub
    shapes: Shapes
    storage: str  # address of the host that keeps assets
    token: Token | None
    parameters: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    accept: str
    url: str  # of the request, without its query

    @property
    def actor(self) -> Account:
        """Who does it: the user, or the bot of the installation."""
        if self.token is None:
            raise Refusal(401, "Requires authentication")
        return self.token.user or self.hub.account("github-actions[bot]", "Bot")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A success. `content` is sent as it is, `body` as JSON."""

    status: int = 200
    body: Any = None
    content: bytes | None = None
    content_type: str = "application/json; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Call], Answer]

REPO = "/repos/{owner}/{repo}"


def find_repository(
    hub: Hub, token: Token | None, owner: str, name: str, need: Role = Role.READ
) -> Repository:
    """The repository, when the token may do what is needed with it; else GitHub's refusal."""
    repository = hub.repositories.get(f"{owner}/{name}".lower())
    role = hub.role_of(token, repository) if repository else Role.NONE
    if repository is None or role < Role.METADATA:
        raise Refusal(404, "Not Found")
    if role < need:
        if token is None:
            raise Refusal(401, "Requires authentication")
        if token.user is None:
            raise Refusal(403, "Resource not accessible by integration")
        if token.fine_grained:
            raise Refusal(403, "Resource not accessible by personal access token")
        if need == Role.ADMIN:
            raise Refusal(403, "Must have admin rights to Repository.")
        raise Refusal(404, "Not Found")
    return repository


def find(call: Call, need: Role = Role.READ) -> Repository:
    parameters = call.parameters
    return find_repository(call.hub, call.token, parameters["owner"], parameters["repo"], need)


def shown_role(call: Call, repository: Repository) -> Role | None:
    # `permissions` are those of the user, not of the token, and there are none without a user.
    if call.token is None:
        return None
    if call.token.user is None:
        return Role.NONE
    return call.hub.role_of_user(call.token.user, repository)


def invalid(resource: str, name: str) -> Refusal:
    errors = [{"resource": resource, "code": "invalid", "field": name}]
    return Refusal(422, "Validation Failed", errors)


# Pages of listings


def page_of(
    call: Call, items: Sequence[Any], *, limit: int | None = None
) -> tuple[Sequence[Any], dict[str, str]]:
    """The items of the page asked for, and the Link header.

    "Only the first 10000 results are available." is what GitHub answers (422) beyond `limit`.
    """
    size = min(max(int(call.query.get("per_page", 30)), 1), 100)
    number = max(int(call.query.get("page", 1)), 1)
    if limit is not None and (number - 1) * size >= limit:
        raise Refusal(422, f"Only the first {limit} results are available.")
    available = items[:limit] if limit is not None else items
    last = max(-(-len(available) // size), 1)
    links: dict[str, int] = {}
    if number > 1:
        links |= {"prev": number - 1}
    if number < last:
        links |= {"next": number + 1, "last": last}
    if number > 1:
        links |= {"first": 1}
    text = ", ".join(
        f'<{call.url}?{urlencode({**call.query, "page": page}, quote_via=quote)}>; rel="{rel}"'
        for rel, page in links.items()
    )
    start = (number - 1) * size
    return available[start : start + size], {"Link": text} if text else {}
