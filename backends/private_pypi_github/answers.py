"""Answers of GitHub's REST and GraphQL interfaces, and the errors that they stand for."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests

from private_pypi.backend import Limit, retry_after
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    NotAllowed,
    WrongSecret,
    cause_of,
)

DEFAULT_WAIT = 60  # seconds; what GitHub recommends if a secondary limit names no time
SECONDARY_LIMIT = re.compile("secondary rate limit|abuse detection|login attempts", re.IGNORECASE)


class NoSuchNode(BackendError):
    """A GraphQL query asked for something that does not exist, or that the token may not see."""


class Moved(BackendError):
    """The repository was renamed or transferred (301, 307, 308)."""


@dataclass(frozen=True, slots=True)
class GitHubAnswer:
    """An answer of GitHub with its complete body."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_new: bool = True  # False: an earlier answer, of which GitHub says that it has not changed

    def json(self) -> Any:
        """The body as JSON; raises `BackendError` if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise BackendError("GitHub's answer is not JSON") from error

    def member(self, *path: str, default: object = None) -> Any:
        """A member of the JSON object, or of an object in it.

        Raises `BackendError` if it is missing and there is no default.
        """
        value = self.json()
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None and default is None:
            raise BackendError(f"GitHub's answer has no {'.'.join(path)!r}")
        return default if value is None else value

    def objects(self, *path: str) -> list[dict[str, Any]]:
        """A list of JSON objects: the body, or a member. Raises `BackendError` if it is not one."""
        value = self.member(*path) if path else self.json()
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise BackendError("GitHub's answer is not a list of objects")
        return value

    @property
    def date(self) -> datetime:
        """The time of the answer by GitHub's clock (UTC)."""
        return date_of(self.headers)

    @property
    def next_page(self) -> str | None:
        """The full address of the next page of a listing (RFC 8288); None on the last page."""
        for link in requests.utils.parse_header_links(self.headers.get("Link", "")):
            if link.get("rel") == "next":
                return str(link["url"])
        return None


def message_of(answer: GitHubAnswer) -> str:
    """GitHub's message in an answer, on one line."""
    try:
        value = json.loads(answer.body)
    except ValueError:
        value = None
    return message_in(value, f"status {answer.status}")


def message_in(value: object, default: str) -> str:
    """GitHub's message in the JSON of an answer, on one line; `default` if there is none."""
    if not isinstance(value, dict):
        return default
    parts = [str(value.get("message") or default)]
    errors = value.get("errors")
    for error in errors if isinstance(errors, list) else [errors]:
        if isinstance(error, dict):
            said = error.get("message") or f"{error.get('field')} {error.get('code')}"
            parts.append(str(said))
        elif isinstance(error, str):
            parts.append(error)
    return " ".join("; ".join(parts).split())[:500]


def check(method: str, path: str, answer: GitHubAnswer, expected: Collection[int]) -> GitHubAnswer:
    """The same answer, if its status is `expected`; otherwise raise the error that it stands for.

    Limits are looked for first, because GitHub also answers 403 when a limit is reached.
    """
    status, said = answer.status, message_of(answer)
    what = f"{method} {path_of(path)}"
    if status in (403, 429):
        wait = limit_of(answer, said)
        if wait is not None:
            raise BackendUnavailable(f"GitHub's limit is reached: {said}", retry_after=wait)
    if status in expected:
        return answer
    if status >= 500 or status == 408:
        raise BackendUnavailable(
            f"GitHub is in trouble ({status} for {what})",
            retry_after=retry_after(answer.headers.get("Retry-After"), 5),
        )
    if status in (301, 307, 308):
        raise Moved(
            f"GitHub has moved what {what} asks for: the repository was renamed or transferred; "
            "change `owner` and `repo`"
        )
    if status == 401:
        raise WrongSecret(f"GitHub does not accept the token: {said}")
    if status == 403 and method != "GET":
        raise NotAllowed(f"GitHub does not allow this token to {what}: {said}")
    raise BackendError(f"GitHub answered {status} to {what}: {said}")


def read_answer(
    method: str, path: str, response: requests.Response, expected: Collection[int]
) -> GitHubAnswer:
    """Read the body of a response and close it; raises an error as `check` does."""
    with response, network_errors(f"{method} {path_of(path)}"):
        body = response.content
    return check(method, path, GitHubAnswer(response.status_code, response.headers, body), expected)


def limit_of(answer: GitHubAnswer, said: str) -> int | None:
    """Seconds until a limit is over; None if the answer is not about a limit.

    From the REST documentation, "Rate limits for the REST API": `retry-after` comes first, then
    `x-ratelimit-reset` if no requests remain, otherwise wait for at least one minute.
    """
    if "Retry-After" in answer.headers:
        return retry_after(answer.headers["Retry-After"], DEFAULT_WAIT)
    if answer.headers.get("X-RateLimit-Remaining") == "0":
        told = answer.headers.get("X-RateLimit-Reset", "")
        reset = int(told) if told.isdecimal() else 0
        return max(1, reset - int(answer.date.timestamp()) + 1) if reset else DEFAULT_WAIT
    if answer.status == 429 or SECONDARY_LIMIT.search(said):
        return DEFAULT_WAIT
    return None


def told_limit(headers: Mapping[str, str]) -> Limit | None:
    """The primary limit of a token, from the headers of an answer; None if there are none.

    See "Checking the status of your rate limit" in the REST documentation. On GitHub Enterprise
    Server, limits may be switched off.
    """
    try:
        return Limit(
            resource=headers.get("X-RateLimit-Resource", "core"),
            limit=int(headers["X-RateLimit-Limit"]),
            remaining=int(headers["X-RateLimit-Remaining"]),
            resets_at=datetime.fromtimestamp(int(headers["X-RateLimit-Reset"]), UTC),
        )
    except (KeyError, ValueError, OverflowError, OSError):
        return None


def date_of(headers: Mapping[str, str]) -> datetime:
    try:
        return parsedate_to_datetime(headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return datetime.now(UTC)


def path_of(path: str) -> str:
    """The part of an address that may be in an error message: no host, and no signature."""
    return urlsplit(path).path


@contextlib.contextmanager
def network_errors(what: str) -> Iterator[None]:
    """Turn errors of `requests` into `BackendUnavailable`.

    Their text is left out, because it may contain a signed address. `what` describes the request.
    """
    try:
        yield
    except requests.Timeout:
        raise BackendUnavailable(f"GitHub took too long for {what}") from None
    except requests.RequestException as error:
        raise BackendUnavailable(
            f"the connection to GitHub failed: {cause_of(error)} ({what})"
        ) from None
