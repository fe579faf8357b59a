"""A thin client of GitHub's REST interface: a request, and its answer or one of our errors.

It knows neither releases nor indexes, never retries, and follows no redirect. What GitHub says
about its limits travels in the error.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import http.cookiejar
import json
import os
import re
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO, ClassVar
from urllib.parse import parse_qs, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from private_pypi.backend import Limit, Secret, Usage
from private_pypi.errors import BackendError, BackendUnavailable, NotAllowed, cause_of

JSON = "application/vnd.github+json"
OBJECT = "application/vnd.github.object+json"
RAW = "application/vnd.github.raw+json"
CONTENT = "application/octet-stream"

_VERSION = "2022-11-28"  # of the interface, supported by GitHub Enterprise Server as well
_CHUNK = 1 << 20  # bytes
_PART = 3 << 16  # bytes that are sent at once: each is given the time-out of connecting
_POOL = 32  # connections to one host that are kept
_ETAGS_BYTES = 32 << 20  # of packed answers that are kept for conditional requests
_MAX_ADDRESSES = 20_000
_MAX_LIMITS = 1_000  # tokens whose limits are kept
_MARGIN = 15.0  # seconds before its end at which a signed address is not given away any more
_NO_LONGER_HOLDS = (400, 401, 403, 404, 410)  # what storages answer for an address that ended
_WAIT_UNTOLD = 60  # seconds; what GitHub asks for when a secondary limit names no time
_SECONDARY = re.compile("secondary rate limit|abuse detection|login attempts", re.IGNORECASE)


class BadToken(BackendError):
    """GitHub does not accept the token, or no longer does (401)."""


class NoSuchNode(BackendError):
    """A query asked for something that GitHub does not show to the token."""


class Moved(BackendError):
    """The repository was renamed or transferred (301, 307, 308)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What GitHub said; the body is complete."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_new: bool = True  # False: kept from before, and confirmed by GitHub now

    def json(self) -> Any:
        """The body as JSON; raises `BackendError` when it is none."""
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise BackendError("GitHub answered something that is no JSON") from error

    def member(self, *path: str, default: object = None) -> Any:
        """A member of the JSON object, or of an object in it.

        Raises `BackendError` when it is missing and there is no default.
        """
        value = self.json()
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None and default is None:
            raise BackendError(f"GitHub answered something without {'.'.join(path)!r}")
        return default if value is None else value

    def objects(self, *path: str) -> list[dict[str, Any]]:
        """The JSON list, or that in a member, of objects; raises `BackendError` when it is none."""
        value = self.member(*path) if path else self.json()
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise BackendError("GitHub answered no list where it lists")
        return value

    @property
    def date(self) -> datetime:
        """When GitHub said so, by its own clock (UTC)."""
        return _date(self.headers)

    @property
    def next_page(self) -> str | None:
        """The whole address of the next page of a listing (RFC 8288)."""
        for link in requests.utils.parse_header_links(self.headers.get("Link", "")):
            if link.get("rel") == "next":
                return str(link["url"])
        return None

    @property
    def has_next(self) -> bool:
        """Whether a listing has a further page."""
        return self.next_page is not None


@dataclass(frozen=True, slots=True)
class Address:
    """A signed address of some content; it is a secret in itself."""

    url: str
    expires_at: datetime | None  # UTC; None: not said
    kept_until: float  # time.monotonic()


class Connection:
    """What all backend objects of one repository share: sockets, ETags and signed addresses.

    What was answered to one token is kept for that token alone.
    """

    timeout: ClassVar[tuple[float, float]] = (10, 60)
    """Seconds to connect or to send a part, and between two packets."""
    upload_timeout: ClassVar[tuple[float, float]] = (10, 300)
    """The same; the digest of 2 GiB is computed before the answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards everything below
        self._session: requests.Session | None = None
        self._pid = 0
        self._answers: OrderedDict[tuple[bytes, str], Answer] = OrderedDict()
        self._answers_bytes = 0
        self._addresses: OrderedDict[tuple[int, bytes], Address] = OrderedDict()
        self._asking: dict[tuple[int, bytes], threading.Event] = {}  # set when it is done
        self._absent: set[str] = set()
        self._requests: dict[str, int] = {}  # by class of status
        self._limits: OrderedDict[bytes, dict[str, Limit]] = OrderedDict()

    def session(self) -> requests.Session:
        """The sockets of this process; those of before a fork belong to the parent."""
        with self._lock:
            if self._session is None or self._pid != os.getpid():
                self._session, self._pid = _new_session(), os.getpid()
            return self._session

    def answer(self, owner: bytes, url: str) -> Answer | None:
        """The last answer that had an ETag."""
        with self._lock:
            kept = self._answers.get((owner, url))
            if kept is None:
                return None
            self._answers.move_to_end((owner, url))
        return replace(kept, body=zlib.decompress(kept.body))

    def keep_answer(self, owner: bytes, url: str, answer: Answer) -> None:
        # A page of a listing may have megabytes, and shrinks to a fifteenth.
        packed = replace(answer, body=zlib.compress(answer.body, 1))
        with self._lock:
            self._forget_answer((owner, url))
            self._answers[(owner, url)] = packed
            self._answers_bytes += _size(packed)
            while self._answers_bytes > _ETAGS_BYTES:
                self._forget_answer(next(iter(self._answers)))

    def forget_answer(self, owner: bytes, url: str) -> bool:
        """Whether there was one."""
        with self._lock:
            is_known = (owner, url) in self._answers
            self._forget_answer((owner, url))
            return is_known

    def _forget_answer(self, key: tuple[bytes, str]) -> None:
        answer = self._answers.pop(key, None)
        if answer is not None:
            self._answers_bytes -= _size(answer)

    def address(self, owner: bytes, number: int) -> Address | None:
        """The signed address of an asset, while it holds."""
        with self._lock:
            address = self._addresses.get((number, owner))
        return address if address and time.monotonic() < address.kept_until else None

    def keep_address(self, owner: bytes, number: int, address: Address) -> None:
        with self._lock:
            self._addresses[(number, owner)] = address
            self._addresses.move_to_end((number, owner))
            while len(self._addresses) > _MAX_ADDRESSES:
                self._addresses.popitem(last=False)

    @contextlib.contextmanager
    def turn(self, owner: bytes, number: int) -> Iterator[None]:
        """To ask for a signed address, or to look whether another thread, which asked, has got it.

        Nobody waits for more than one other.
        """
        key, done = (number, owner), threading.Event()
        with self._lock:
            asking = self._asking.setdefault(key, done)
        try:
            if asking is not done:
                asking.wait(sum(self.timeout))
            yield
        finally:
            done.set()
            with self._lock:
                if self._asking.get(key) is done:
                    del self._asking[key]

    def request(
        self, method: str, url: str, *, owner: bytes | None = None, **arguments: Any
    ) -> requests.Response:
        """One request, counted; the answer's limit is kept for `owner`, its body is not read."""
        try:
            response = self.session().request(
                method, url, stream=True, allow_redirects=False, **arguments
            )
        except requests.RequestException:
            self._count("none")
            raise
        status = response.status_code
        self._count("304" if status == 304 else f"{status // 100}xx")
        limit = None if owner is None else _told_limit(response.headers)
        if owner is not None and limit is not None:
            with self._lock:
                self._limits.setdefault(owner, {})[limit.resource] = limit
                self._limits.move_to_end(owner)
                while len(self._limits) > _MAX_LIMITS:
                    self._limits.popitem(last=False)
        return response

    def _count(self, kind: str) -> None:
        with self._lock:
            self._requests[kind] = self._requests.get(kind, 0) + 1

    def usage(self, owner: bytes) -> Usage:
        """What was asked with all tokens, and the limits of one of them."""
        with self._lock:
            limits = tuple(self._limits.get(owner, {}).values())
            return Usage(requests=dict(self._requests), limits=limits)

    def is_absent(self, path: str) -> bool:
        """Whether a path was known to be absent when somebody looked last."""
        with self._lock:
            return path in self._absent

    def note_absent(self, path: str, absent: bool) -> None:
        """Remember whether a path is known to be absent."""
        with self._lock:
            (self._absent.add if absent else self._absent.discard)(path)

    def forget_addresses(self, numbers: Collection[int]) -> None:
        """Assets that are gone, for every token."""
        with self._lock:
            for key in [key for key in self._addresses if key[0] in numbers]:
                del self._addresses[key]


def _size(packed: Answer) -> int:
    """About how many bytes of memory a kept answer takes."""
    return len(packed.body) + 4096  # its headers


class Client:
    """GitHub as one token sees it. `api_url` has no final slash."""

    def __init__(self, connection: Connection, api_url: str, token: Secret) -> None:
        self._connection = connection
        self._api_url = api_url
        self._token = token
        self._owner = hashlib.sha256(token.reveal().encode("utf-8", "surrogatepass")).digest()

    def usage(self) -> Usage:
        """What GitHub was asked with all tokens of the repository, and the limits of ours."""
        return self._connection.usage(self._owner)

    def get(
        self,
        path: str,
        *,
        accept: str = JSON,
        expected: Collection[int] = (200,),
        conditional: bool = False,
    ) -> Answer:
        """GET a path below the API; a status that is not `expected` raises.

        `conditional`: the answer is kept, and asked for again only if it changed; what GitHub
        answers by 304 does not count against the limits.
        """
        kept = self._connection.answer(self._owner, path) if conditional else None
        headers = {"Accept": accept}
        if kept is not None:
            headers["If-None-Match"] = kept.headers["ETag"]
        also = {304} if kept is not None else set()
        answer = self.request("GET", path, headers=headers, expected={*expected, *also})
        if answer.status == 304 and kept is not None:
            told = CaseInsensitiveDict({**kept.headers, **answer.headers})
            return replace(kept, headers=told, is_new=False)
        if conditional and answer.status == 200 and "ETag" in answer.headers:
            self._connection.keep_answer(self._owner, path, answer)
        return answer

    def forget(self, path: str) -> bool:
        """Forget what was answered for a path; whether anything was known."""
        return self._connection.forget_answer(self._owner, path)

    def send(
        self,
        method: str,
        path: str,
        value: object = None,
        *,
        expected: Collection[int],
    ) -> Answer:
        """POST, PATCH, PUT or DELETE with a value that becomes JSON.

        A refusal of the token (403) raises `NotAllowed`.
        """
        headers = {"Accept": JSON}
        data: bytes | None = None
        if value is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(value).encode()
        return self.request(method, path, headers=headers, data=data, expected=expected)

    def put_base64(
        self, path: str, value: Mapping[str, str], content: BinaryIO, *, expected: Collection[int]
    ) -> Answer:
        """PUT an object whose member `content` is a file in base64, without holding it."""
        headers = {"Accept": JSON, "Content-Type": "application/json"}
        return self.request(
            "PUT", path, headers=headers, data=_Base64Body(value, content), expected=expected
        )

    def graphql(self, query: str, variables: Mapping[str, object]) -> dict[str, Any]:
        """The `data` that answers a query; any error in the answer raises.

        It counts against a limit of its own ("Rate limits and query limits for the GraphQL API").
        """
        # "https://HOST/api/graphql" on GitHub Enterprise Server, beside "https://HOST/api/v3".
        url = f"{self._api_url.removesuffix('/v3')}/graphql"
        answer = self.send("POST", url, {"query": query, "variables": variables}, expected=(200,))
        errors = answer.member("errors", default=[])
        said = message_of(answer)
        # A secondary limit may come with status 200, too, and in the form of REST.
        if _SECONDARY.search(said):
            wait = _limit(answer, said) or _WAIT_UNTOLD
            raise BackendUnavailable(f"GitHub's limit is reached: {said}", retry_after=wait)
        if errors:
            if all(isinstance(e, dict) and e.get("type") == "NOT_FOUND" for e in errors):
                raise NoSuchNode(f"GitHub knows nothing like that: {said}")
            if any(isinstance(e, dict) and e.get("type") == "RATE_LIMITED" for e in errors):
                wait = _limit(answer, said) or _WAIT_UNTOLD
                raise BackendUnavailable(f"GitHub's limit is reached: {said}", retry_after=wait)
            if "something went wrong" in said.lower():  # what GitHub says of its own time-outs
                raise BackendUnavailable(f"GitHub is in trouble: {said}")
            raise BackendError(f"GitHub does not answer a query: {said}")
        data = answer.member("data")
        if not isinstance(data, dict):
            raise BackendError("GitHub answered a query with something that is no object")
        return data

    def upload(
        self,
        url: str,
        content: BinaryIO | bytes,
        *,
        expected: Collection[int],
        deadline: float | None = None,
    ) -> Answer:
        """POST a file to a whole address that GitHub gave.

        Raises `BackendUnavailable` when a part of it is still to be sent at `deadline`
        (`time.monotonic()`).
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
    ) -> Answer:
        """One request; the whole answer, or an error when its status is not `expected`."""
        with (
            self._opened(method, path, headers=headers, data=data, timeout=timeout) as response,
            _trouble(f"{method} {_path(path)}"),
        ):
            body = response.content
        return _checked(
            method, path, Answer(response.status_code, response.headers, body), expected
        )

    def get_blob(self, path: str, into: Path, unless: str | None) -> str | None:
        """GET a file of a branch into `into`; its git id, or None when there is none.

        Nothing is written when the id is `unless`, which costs nothing if this process saw it.
        """
        key = f"blob {path}"
        kept = self._connection.answer(self._owner, key) if unless else None
        headers = {"Accept": RAW}
        if kept is not None and kept.body.decode() == unless:
            headers["If-None-Match"] = kept.headers["ETag"]
        with self._opened("GET", path, headers=headers) as response:
            if response.status_code != 200:
                with _trouble(f"GET {_path(path)}"):
                    answer = Answer(response.status_code, response.headers, response.content)
                _checked("GET", path, answer, (304, 404))
                return unless if answer.status == 304 else None
            part = into.with_name(f"{into.name}.part")
            with part.open("wb") as file:
                for chunk in Chunks(response):
                    file.write(chunk)
        revision = _git_id(part)
        if "ETag" in response.headers:
            kept = Answer(200, response.headers, revision.encode())
            self._connection.keep_answer(self._owner, key, kept)
        if revision == unless:
            part.unlink()
        else:
            part.replace(into)
        return revision

    def content(self, path: str, number: int) -> Address | Chunks | None:
        """Where the content of asset `number` at `path` is, or the content; None: no such asset.

        The address is asked for once while it holds.
        """
        address = self._connection.address(self._owner, number)
        if address is not None:
            return address
        with self._connection.turn(self._owner, number):
            return self._connection.address(self._owner, number) or self._ask(path, number)

    def _ask(self, path: str, number: int) -> Address | Chunks | None:
        response = self._open("GET", path, headers={"Accept": CONTENT})
        try:
            status, headers = response.status_code, response.headers
            if status == 200:  # GitHub Enterprise Server may send it itself
                return _chunks(path, response)
            with _trouble(f"GET {_path(path)}"):
                body = response.content
        except BaseException:
            response.close()
            raise
        _checked("GET", path, Answer(status, headers, body), (302, 404))
        if status == 404:
            return None
        address = _address(headers)
        self._connection.keep_address(self._owner, number, address)
        return address

    def fetch(self, address: Address) -> Chunks | None:
        """The content at a signed address, without our token; None when it does not hold (4xx)."""
        response = self._fetch(address, {})
        if response.status_code in _NO_LONGER_HOLDS:
            response.close()
            return None
        return _chunks("the content of an asset", response)

    def fetch_part(self, address: Address, start: int, length: int) -> bytes | None:
        """`length` bytes from `start` on, fewer at the end; None when the address does not hold."""
        wanted = {"Range": f"bytes={start}-{start + length - 1}"}
        response = self._fetch(address, wanted)
        if response.status_code in _NO_LONGER_HOLDS:
            response.close()
            return None
        if response.status_code == 416:  # there is nothing from `start` on
            response.close()
            return b""
        if response.status_code == 206:
            told = response.headers.get("Content-Range", "")
            if not told.startswith(f"bytes {start}-"):
                response.close()
                raise BackendError("GitHub's storage sent another part than was asked for")
            return Chunks(response).part(0, length)
        return _chunks("the content of an asset", response).part(start, length)

    def _fetch(self, address: Address, headers: Mapping[str, str]) -> requests.Response:
        with _trouble("the content of an asset"):
            return self._connection.request(
                "GET",
                address.url,
                headers={"Accept-Encoding": "identity", **headers},
                timeout=self._connection.timeout,
                auth=_no_credentials,
            )

    def forget_address(self, number: int) -> None:
        """The signed address of an asset, which did not hold any more, is asked for anew."""
        self._connection.forget_addresses({number})

    @contextlib.contextmanager
    def _opened(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        data: Any = None,
        timeout: tuple[float, float] | None = None,
    ) -> Iterator[requests.Response]:
        response = self._open(method, path, headers=headers, data=data, timeout=timeout)
        try:
            yield response
        finally:
            response.close()

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
        with _trouble(f"{method} {_path(path)}"):
            return self._connection.request(
                method,
                url,
                owner=self._owner,
                headers={**headers, "X-GitHub-Api-Version": _VERSION},
                data=data,
                timeout=timeout or self._connection.timeout,
                auth=self._authorize,
            )

    def _authorize(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        # As `auth`, because a header of ours would give way to what ~/.netrc says.
        request.headers["Authorization"] = f"Bearer {self._token.reveal()}"
        return request


class Chunks:
    """A body that is not read yet, in parts; `close` gives it up, at any time."""

    def __init__(self, response: requests.Response) -> None:
        self._response = response
        self._parts = response.iter_content(_CHUNK)

    @property
    def size(self) -> int | None:
        """Bytes, as announced."""
        headers = self._response.headers
        length = "" if "Content-Encoding" in headers else headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None

    def part(self, start: int, length: int) -> bytes:
        """`length` bytes from `start` on, fewer at the end; the rest is not waited for."""
        skip, found = start, bytearray()
        try:
            for chunk in self:
                found += chunk[skip : skip + length - len(found)]
                skip = max(0, skip - len(chunk))
                if len(found) == length:
                    break
        finally:
            self.close()
        return bytes(found)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            with _trouble("a body"):
                part: bytes = next(self._parts)
        except BaseException:
            self.close()
            raise
        return part

    def close(self) -> None:
        self._response.close()


def is_token(secret: Secret) -> bool:
    """Whether a secret can be sent as a token at all."""
    raw = secret.reveal()
    return bool(raw) and raw.isascii() and raw.isprintable() and " " not in raw


def message_of(answer: Answer) -> str:
    """What GitHub said in words, on one line."""
    try:
        value = json.loads(answer.body)
    except ValueError:
        return f"status {answer.status}"
    if not isinstance(value, dict):
        return f"status {answer.status}"
    parts = [str(value.get("message", f"status {answer.status}"))]
    errors = value.get("errors")
    for error in errors if isinstance(errors, list) else [errors]:
        if isinstance(error, dict):
            said = error.get("message") or f"{error.get('field')} {error.get('code')}"
            parts.append(str(said))
        elif isinstance(error, str):
            parts.append(error)
    return " ".join("; ".join(parts).split())[:500]


def _checked(method: str, path: str, answer: Answer, expected: Collection[int]) -> Answer:
    """The answer, or the error that it is. Limits come first: they are no verdict on a token."""
    status, said = answer.status, message_of(answer)
    what = f"{method} {_path(path)}"
    if status in (403, 429):
        wait = _limit(answer, said)
        if wait is not None:
            raise BackendUnavailable(f"GitHub's limit is reached: {said}", retry_after=wait)
    if status in expected:
        return answer
    if status >= 500 or status == 408:
        raise BackendUnavailable(
            f"GitHub is in trouble ({status} for {what})",
            retry_after=_seconds(answer.headers.get("Retry-After"), 5),
        )
    if status in (301, 307, 308):
        raise Moved(
            f"GitHub has moved what {what} asks for: the repository was renamed or transferred; "
            "change `owner` and `repo`"
        )
    if status == 401:
        raise BadToken(f"GitHub does not accept the token (any more): {said}")
    if status == 403 and method != "GET":
        raise NotAllowed(f"GitHub does not allow this token to {what}: {said}")
    raise BackendError(f"GitHub answered {status} to {what}: {said}")


def _limit(answer: Answer, said: str) -> int | None:
    """Seconds until a limit is over; None when no limit is meant.

    REST documentation, "Rate limits for the REST API": `retry-after` first, then
    `x-ratelimit-reset` when nothing remains, else at least one minute.
    """
    if "Retry-After" in answer.headers:
        return _seconds(answer.headers["Retry-After"], _WAIT_UNTOLD)
    if answer.headers.get("X-RateLimit-Remaining") == "0":
        reset = _seconds(answer.headers.get("X-RateLimit-Reset"), 0)
        return max(1, reset - int(answer.date.timestamp()) + 1) if reset else _WAIT_UNTOLD
    if answer.status == 429 or _SECONDARY.search(said):
        return _WAIT_UNTOLD
    return None


def _told_limit(headers: Mapping[str, str]) -> Limit | None:
    """What an answer says of the primary limit of its token ("Checking the status of your rate
    limit" in the REST documentation); GitHub Enterprise Server may have none."""
    try:
        return Limit(
            resource=headers.get("X-RateLimit-Resource", "core"),
            limit=int(headers["X-RateLimit-Limit"]),
            remaining=int(headers["X-RateLimit-Remaining"]),
            resets_at=datetime.fromtimestamp(int(headers["X-RateLimit-Reset"]), UTC),
        )
    except (KeyError, ValueError, OverflowError, OSError):
        return None


def _seconds(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdecimal() else default


def _chunks(path: str, response: requests.Response) -> Chunks:
    if response.status_code != 200:
        try:
            with _trouble(_path(path)):
                body = response.content
        finally:
            response.close()
        _checked("GET", path, Answer(response.status_code, response.headers, body), (200,))
    return Chunks(response)


def _path(path: str) -> str:
    """What may be said of an address: no host, and nothing that was signed."""
    return urlsplit(path).path


@contextlib.contextmanager
def _trouble(what: str) -> Iterator[None]:
    """Whatever happens on the way is worth another try; its text may hold a signed address."""
    try:
        yield
    except requests.Timeout:
        raise BackendUnavailable(f"GitHub took too long for {what}") from None
    except requests.RequestException as error:
        raise BackendUnavailable(
            f"the connection to GitHub failed: {cause_of(error)} ({what})"
        ) from None


def _date(headers: Mapping[str, str]) -> datetime:
    try:
        return parsedate_to_datetime(headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return datetime.now(UTC)


# Signed addresses.


def _address(headers: Mapping[str, str]) -> Address:
    url = headers.get("Location", "")
    if not url.startswith(("https:", "http:")):
        raise BackendError("GitHub redirected the content of an asset to nowhere")
    expires_at = _expiry(url)
    holds = 0.0 if expires_at is None else (expires_at - _date(headers)).total_seconds()
    return Address(url, expires_at, time.monotonic() + holds - _MARGIN)


def _expiry(url: str) -> datetime | None:
    """The earliest end that a signed address names; None when it names none.

    `se` is of a shared access signature, `X-Amz-*` and `Expires` are of S3, `jwt` bears `exp`.
    """
    query = {key.lower(): values[0] for key, values in parse_qs(urlsplit(url).query).items()}
    ends: list[datetime] = []
    with contextlib.suppress(KeyError, ValueError):
        ends.append(datetime.fromisoformat(query["se"]))
    with contextlib.suppress(KeyError, ValueError):
        signed_at = datetime.strptime(query["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        ends.append(signed_at + timedelta(seconds=int(query["x-amz-expires"])))
    with contextlib.suppress(KeyError, ValueError, OverflowError):
        ends.append(datetime.fromtimestamp(int(query["expires"]), UTC))
    with contextlib.suppress(KeyError, ValueError, IndexError, TypeError, binascii.Error):
        claims = query["jwt"].split(".")[1]
        decoded = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        ends.append(datetime.fromtimestamp(int(decoded["exp"]), UTC))
    return min((end for end in ends if end.tzinfo is not None), default=None)


# Requests.


def _git_id(path: Path) -> str:
    """The id that git gives to a file (a blob)."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _new_session() -> requests.Session:
    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=8, pool_maxsize=_POOL, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    session.headers["User-Agent"] = "private_pypi"
    # Sessions are shared by tokens, so nothing of one may reach another.
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    return session


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    # Otherwise `requests` would add those of ~/.netrc, and a signed address refuses them.
    return request


class _TimedBody:
    """A file that is sent from its beginning, and gives up when that takes too long."""

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
    """`{…, "content": "<base64 of a file>"}` in parts, of known length."""

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
