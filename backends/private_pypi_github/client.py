"""A thin client of GitHub's REST interface: it sends one request and returns the answer.

It knows nothing about releases or indexes. It never retries, and follows no redirect. When a limit
of GitHub is reached, the error says how long to wait.

The token is sent only to the host of the interface and to the host that takes uploads, even if an
answer names another address (see `Client._require_ours`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import SplitResult, urlsplit

import requests
from requests.structures import CaseInsensitiveDict

from private_pypi.backend import Secret, Usage
from private_pypi.errors import BackendError, BackendUnavailable
from private_pypi_github.answers import (
    DEFAULT_WAIT,
    SECONDARY_LIMIT,
    GitHubAnswer,
    NoSuchNode,
    limit_of,
    message_of,
    network_errors,
    path_of,
    read_answer,
)
from private_pypi_github.connection import Connection
from private_pypi_github.downloads import Chunks, SignedAddress, chunks_of, signed_address

T = TypeVar("T")

JSON = "application/vnd.github+json"
OBJECT = "application/vnd.github.object+json"
RAW = "application/vnd.github.raw+json"
CONTENT = "application/octet-stream"

_VERSION = "2022-11-28"  # of the interface; GitHub Enterprise Server supports it as well
_CHUNK = 1 << 20  # bytes
_PART = 3 << 16  # bytes that are sent at once, each with the time-out for connecting
_EXPIRED = (400, 401, 403, 404, 410)  # the status of a signed address that has expired
_TOKEN = re.compile(r"[A-Za-z0-9_.-]{20,2000}")


class Client:
    """Requests to GitHub with one token. `api_url` has no slash at the end.

    Methods take a path below `api_url`, or a full address from an answer.
    """

    def __init__(self, connection: Connection, api_url: str, token: Secret) -> None:
        self._connection = connection
        self._api_url = api_url
        self._token = token
        self._token_hash = hashlib.sha256(token.reveal().encode("utf-8", "surrogatepass")).digest()

    def usage(self) -> Usage:
        """How many requests were made with all tokens, and the limits of this one."""
        return self._connection.usage(self._token_hash)

    def get(
        self, path: str, *, accept: str = JSON, expected: Collection[int] = (200,)
    ) -> GitHubAnswer:
        """GET a path; raises an error if the status is not `expected`."""
        return self.request("GET", path, headers={"Accept": accept}, expected=expected)

    def get_kept(
        self,
        path: str,
        understand: Callable[[GitHubAnswer], T],
        *,
        expected: Collection[int] = (200,),
    ) -> tuple[GitHubAnswer, T | None]:
        """GET a path with the ETag of the last answer, so that only changes are transferred.

        Returns the answer, and the result of `understand` for it if the status is 200, else None.
        If nothing has changed, GitHub answers 304, which does not count against the limits.

        If `understand` raises, the answer is forgotten. Its body may have been cut on the way, and
        as it has the right ETag, GitHub would confirm it as long as nothing changes.
        """
        kept = self._connection.answer(self._token_hash, path)
        headers = {"Accept": JSON}
        if kept is not None:
            headers["If-None-Match"] = kept.headers["ETag"]
        also = {304} if kept is not None else set()
        answer = self.request("GET", path, headers=headers, expected={*expected, *also})
        if answer.status == 304 and kept is not None:
            told = CaseInsensitiveDict({**kept.headers, **answer.headers})
            answer = replace(kept, headers=told, is_new=False)
        if answer.status == 404:
            self._connection.forget_answer(self._token_hash, path)
        if answer.status != 200:
            return answer, None
        try:
            understood = understand(answer)
        except BaseException:
            self._connection.forget_answer(self._token_hash, path)
            raise
        if answer.is_new and "ETag" in answer.headers:
            self._connection.keep_answer(self._token_hash, path, answer)
        return answer, understood

    def send(
        self,
        method: str,
        path: str,
        value: object = None,
        *,
        expected: Collection[int],
    ) -> GitHubAnswer:
        """POST, PATCH, PUT or DELETE with a value that is sent as JSON.

        Raises `NotAllowed` if the token may not do this (403).
        """
        headers = {"Accept": JSON}
        data: bytes | None = None
        if value is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(value).encode()
        return self.request(method, path, headers=headers, data=data, expected=expected)

    def put_base64(
        self, path: str, value: Mapping[str, str], content: BinaryIO, *, expected: Collection[int]
    ) -> GitHubAnswer:
        """PUT a JSON object whose member `content` is a file in base64, sent in small parts."""
        headers = {"Accept": JSON, "Content-Type": "application/json"}
        return self.request(
            "PUT", path, headers=headers, data=_Base64Body(value, content), expected=expected
        )

    def graphql(self, query: str, variables: Mapping[str, object]) -> dict[str, Any]:
        """The `data` in the answer to a query. Raises an error if the answer has any errors.

        Queries have their own limit ("Rate limits and query limits for the GraphQL API").
        """
        # "https://HOST/api/graphql" on GitHub Enterprise Server, beside "https://HOST/api/v3".
        url = f"{self._api_url.removesuffix('/v3')}/graphql"
        answer = self.send("POST", url, {"query": query, "variables": variables}, expected=(200,))
        errors = answer.member("errors", default=[])
        types = [error.get("type") if isinstance(error, dict) else None for error in errors]
        said = message_of(answer)
        # GitHub may report a secondary limit with status 200, in the form of the REST interface.
        if SECONDARY_LIMIT.search(said) or "RATE_LIMITED" in types:
            wait = limit_of(answer, said) or DEFAULT_WAIT
            raise BackendUnavailable(f"GitHub's limit is reached: {said}", retry_after=wait)
        if errors and all(each == "NOT_FOUND" for each in types):
            raise NoSuchNode(f"GitHub found nothing for a query: {said}")
        if errors and "something went wrong" in said.lower():  # a time-out at GitHub
            raise BackendUnavailable(f"GitHub is in trouble: {said}")
        if errors:
            raise BackendError(f"GitHub refuses a query: {said}")
        data = answer.member("data")
        if not isinstance(data, dict):
            raise BackendError("the data in GitHub's answer to a query are not an object")
        return data

    def upload(
        self,
        url: str,
        content: BinaryIO | bytes,
        *,
        expected: Collection[int],
        deadline: float | None = None,
    ) -> GitHubAnswer:
        """POST a file to an address that GitHub gave.

        Raises `BackendUnavailable` if it is not sent at `deadline`, a time of `time.monotonic()`.
        """
        headers = {"Accept": JSON, "Content-Type": CONTENT}
        return self.request(
            "POST",
            url,
            headers=headers,
            data=content if isinstance(content, bytes) else _TimedBody(content, deadline),
            expected=expected,
            timeout=self._connection.upload_timeout,
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        expected: Collection[int],
        data: Any = None,
        timeout: tuple[float, float] | None = None,
    ) -> GitHubAnswer:
        """Send a request and read the answer; raises an error if its status is not `expected`."""
        response = self._open(method, path, headers=headers, data=data, timeout=timeout)
        return read_answer(method, path, response, expected)

    def get_blob(self, path: str, into: Path, unless: str | None) -> str | None:
        """Download a file of a branch; returns its git id, or None if there is no such file.

        Nothing is written to `into` if the id is `unless`. If this process has downloaded that
        version before, the request does not count against the limits.
        """
        key = f"blob {path}"
        kept = self._connection.answer(self._token_hash, key) if unless else None
        headers = {"Accept": RAW}
        if kept is not None and kept.body.decode() == unless:
            headers["If-None-Match"] = kept.headers["ETag"]
        with self._open("GET", path, headers=headers) as response:
            if response.status_code != 200:
                answer = read_answer("GET", path, response, (304, 404))
                return unless if answer.status == 304 else None
            part = into.with_name(f"{into.name}.part")
            with part.open("wb") as file:
                for chunk in Chunks(response):
                    file.write(chunk)
        revision = _git_id(part)
        if "ETag" in response.headers:
            kept = GitHubAnswer(200, response.headers, revision.encode())
            self._connection.keep_answer(self._token_hash, key, kept)
        if revision == unless:
            part.unlink()
        else:
            part.replace(into)
        return revision

    def content(self, path: str, number: int) -> SignedAddress | Chunks | None:
        """The content of asset `number` at `path`, or its address; None if there is no such asset.

        GitHub is asked for an address only after the last one has expired.
        """
        address = self._connection.address(self._token_hash, number)
        if address is not None:
            return address
        with self._connection.turn(self._token_hash, number):
            # GitHub sometimes answers 404 when it is in trouble, so it is asked twice.
            return (
                self._connection.address(self._token_hash, number)
                or self._ask(path, number)
                or self._ask(path, number)
            )

    def _ask(self, path: str, number: int) -> SignedAddress | Chunks | None:
        response = self._open("GET", path, headers={"Accept": CONTENT})
        if response.status_code == 200:  # GitHub Enterprise Server may send the content itself
            return Chunks(response)
        answer = read_answer("GET", path, response, (302, 404))
        if answer.status == 404:
            return None
        address = signed_address(answer.headers)
        self._connection.keep_address(self._token_hash, number, address)
        return address

    def fetch(self, address: SignedAddress) -> Chunks | None:
        """The content at a signed address, fetched without the token; None if it has expired."""
        response = self._fetch(address, {})
        return None if response is None else chunks_of("the content of an asset", response)

    def fetch_part(self, address: SignedAddress, start: int, length: int) -> bytes | None:
        """`length` bytes from `start` on, or fewer at the end; None if the address has expired."""
        wanted = {"Range": f"bytes={start}-{start + length - 1}"}
        response = self._fetch(address, wanted)
        if response is None:
            return None
        if response.status_code == 416:  # `start` is behind the end
            response.close()
            return b""
        if response.status_code == 206:
            told = response.headers.get("Content-Range", "")
            if not told.startswith(f"bytes {start}-"):
                response.close()
                raise BackendError("GitHub's storage sent another part of a file than requested")
            return Chunks(response).part(0, length)
        return chunks_of("the content of an asset", response).part(start, length)

    def _fetch(
        self, address: SignedAddress, headers: Mapping[str, str]
    ) -> requests.Response | None:
        """The response of a storage provider; None if it does not accept the address any more."""
        with network_errors("the content of an asset"):
            response = self._connection.request(
                "GET",
                address.url,
                headers={"Accept-Encoding": "identity", **headers},
                timeout=self._connection.timeout,
                auth=_no_credentials,
            )
        if response.status_code in _EXPIRED:
            response.close()
            return None
        return response

    def forget_address(self, number: int) -> None:
        """Ask GitHub for a new signed address of an asset next time."""
        self._connection.forget_addresses({number})

    def _open(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        data: Any = None,
        timeout: tuple[float, float] | None = None,
    ) -> requests.Response:
        url = path if path.startswith(("http:", "https:")) else self._api_url + path
        if not url.startswith(f"{self._api_url}/"):  # an address from an answer
            self._require_ours(method, url)
        with network_errors(f"{method} {path_of(path)}"):
            return self._connection.request(
                method,
                url,
                token_hash=self._token_hash,
                headers={**headers, "X-GitHub-Api-Version": _VERSION},
                data=data,
                timeout=timeout or self._connection.timeout,
                auth=self._authorize,
            )

    def _require_ours(self, method: str, url: str) -> None:
        """Raise unless this is an address of the same GitHub, to which the token may be sent.

        Assets are sent to a different host. On github.com and ghe.com, it begins with `uploads.`
        where the host of the interface begins with `api.`. On an Enterprise server it is the same
        host, perhaps with another port.
        """
        api, named = urlsplit(self._api_url), _split(url)
        if named is not None and "@" not in named.netloc and named.scheme == api.scheme:
            api_host, host = api.hostname or "", named.hostname or ""
            if (host, _port(named)) == (api_host, _port(api)):
                return
            if method == "POST" and host == api_host:
                return
            is_beside = api_host.startswith("api.") and _port(named) == _port(api)
            if method == "POST" and is_beside and host == f"uploads.{api_host[4:]}":
                return
        raise BackendError(
            f"an answer of {api.hostname!r} names an address on another host "
            f"({'unreadable' if named is None else repr(named.hostname)}); "
            "the token is not sent there"
        )

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # This is passed as `auth`, because `requests` would replace a header by credentials from
        # ~/.netrc.
        request.headers["Authorization"] = f"Bearer {self._token.reveal()}"
        return request


def is_token(secret: Secret) -> bool:
    """Whether a secret can be sent in a header, as tokens are."""
    raw = secret.reveal()
    return bool(raw) and raw.isascii() and raw.isprintable() and " " not in raw


def has_form_of_token(secret: Secret) -> bool:
    """Whether a secret can be a token of GitHub.

    Tokens have 40 hexadecimal digits, or a prefix such as `ghp_` or `github_pat_`. The prefix is
    not checked, because GitHub may introduce new ones.
    """
    return _TOKEN.fullmatch(secret.reveal()) is not None


def _split(url: str) -> SplitResult | None:
    """The parts of an address; None if they are ambiguous."""
    # Other programs may read such an address in another way, and find another host in it.
    if not url.isascii() or not url.isprintable() or "\\" in url or " " in url:
        return None
    try:
        parts = urlsplit(url)
        _port(parts)
    except ValueError:
        return None
    return parts


def _port(parts: SplitResult) -> int | None:
    return parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def _git_id(path: Path) -> str:
    """The id of a file in git."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    # Without this, `requests` would add credentials from ~/.netrc, which a signed address refuses.
    return request


class _TimedBody:
    """The body of an upload: a file, with an error if sending it takes too long."""

    def __init__(self, content: BinaryIO, deadline: float | None) -> None:
        content.seek(0)
        self._content = content
        self._deadline = deadline

    def __len__(self) -> int:
        return os.fstat(self._content.fileno()).st_size

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self._content.read(_PART):
            if self._deadline is not None and time.monotonic() > self._deadline:
                raise BackendUnavailable("sending the file to GitHub takes too long")
            yield chunk


class _Base64Body:
    """The body `{…, "content": "<base64 of a file>"}`, in parts and with a known length."""

    def __init__(self, value: Mapping[str, str], content: BinaryIO) -> None:
        members = json.dumps({**value, "content": ""}).encode()
        self._head, self._tail = members[:-2], members[-2:]
        self._content = content
        size = os.fstat(content.fileno()).st_size
        self._length = len(members) + 4 * ((size + 2) // 3)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        self._content.seek(0)
        yield self._head
        while chunk := self._content.read(_PART):  # a multiple of three
            yield base64.b64encode(chunk)
        yield self._tail
