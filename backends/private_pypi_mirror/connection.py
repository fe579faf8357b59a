"""A client of an index over HTTP: requests, redirects, credentials, conditions and bodies.

The credentials are sent to the origin of the index only. Nothing is retried here. Neither ~/.netrc
nor the proxies of the environment are used.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import ssl
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, TypeVar

import certifi
import urllib3

from private_pypi.backend import Usage, retry_after
from private_pypi.errors import BackendError, BackendUnavailable, cause_of
from private_pypi_mirror.addresses import Origin, origin_of, resolved, shown

T = TypeVar("T")

_POOL: Final = 64  # connections to one host that are kept
_HOSTS: Final = 32  # hosts to which connections are kept
_PIECE: Final = 128 << 10  # bytes
_MOST_REDIRECTS: Final = 5
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_SMALL: Final = 64 << 10  # bytes of a body that are read so that the connection can be kept
_READS: Final = 3  # in which they have to arrive
_LONGEST_VALIDATOR: Final = 1000  # characters
_BROKEN: Final = (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)
"""What is raised if there is no connection, or if it breaks off."""
_VALIDATORS: Final = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}


class Connection:
    """The sockets to an upstream and to the hosts of its files, which all views share."""

    timeout: ClassVar[urllib3.Timeout] = urllib3.Timeout(connect=10, read=60)
    """Seconds to connect, and between two packets."""

    def __init__(self, index_url: str, username: str, password: str) -> None:
        self._index: Origin | None = origin_of(index_url)
        self._authorization: str | None = None
        if username:
            pair = base64.b64encode(f"{username}:{password}".encode("utf-8", "surrogatepass"))
            self._authorization = f"Basic {pair.decode()}"
        self._lock = threading.Lock()  # guards everything below
        self._pools: dict[bool, urllib3.PoolManager] = {}  # by whether they are encrypted
        self._requests: dict[str, int] = {}

    @property
    def has_credentials(self) -> bool:
        """Whether there are credentials for the index."""
        return self._authorization is not None

    def close(self) -> None:
        """Close the sockets that are not in use."""
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.clear()

    def usage(self) -> Usage:
        """The requests until now."""
        with self._lock:
            return Usage(requests=dict(self._requests))

    def get(self, url: str, headers: Mapping[str, str], validator: str = "") -> Answer:
        """The answer to a GET request, whatever its status, after redirects. To be closed.

        `validator`: that of an earlier answer (`Answer.validator`). It is used if the request ends
        at the same address as then.
        """
        first, may_have_credentials = url, True
        for _ in range(_MOST_REDIRECTS + 1):
            # Never again after a redirect elsewhere, which may have chosen the address.
            may_have_credentials = may_have_credentials and origin_of(url) == self._index
            conditions = _conditions(validator, url)
            sent = {"User-Agent": "private_pypi", **headers, **conditions}
            if may_have_credentials and self._authorization is not None:
                sent["Authorization"] = self._authorization
            answer = Answer(
                url=url,
                has_credentials="Authorization" in sent,
                is_conditional=bool(conditions),
                response=self._send(url, sent),
            )
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or location is None:
                return answer
            answer.close()
            url = _followed(url, location)
        raise BackendError(f"{shown(first)} leads to more than {_MOST_REDIRECTS} redirects")

    def _send(self, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        try:
            response = self._sockets(url).urlopen(
                "GET",
                url,
                redirect=False,
                headers=headers,
                preload_content=False,
                decode_content=False,
                retries=False,
                timeout=self.timeout,
            )
        except ValueError:  # also errors of urllib3 and of Unicode
            raise BackendError(f"{shown(url)} is not an address that can be used") from None
        except _BROKEN as error:
            self._count("none")
            raise BackendUnavailable(f"{shown(url)} cannot be reached: {cause_of(error)}") from None
        status = response.status
        self._count("304" if status == 304 else f"{status // 100}xx")
        return response

    def _sockets(self, url: str) -> urllib3.PoolManager:
        is_encrypted = url.startswith("https:")
        with self._lock:
            if is_encrypted not in self._pools:
                context = None
                if is_encrypted:
                    # Authorities that the operator has added to the system are trusted as well.
                    context = ssl.create_default_context()
                    context.load_verify_locations(certifi.where())
                self._pools[is_encrypted] = urllib3.PoolManager(
                    num_pools=_HOSTS, maxsize=_POOL, block=False, ssl_context=context
                )
            return self._pools[is_encrypted]

    def _count(self, kind: str) -> None:
        with self._lock:
            self._requests[kind] = self._requests.get(kind, 0) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to a request whose body is not read yet."""

    url: str  # where it is from, after redirects
    has_credentials: bool  # whether it was sent with the credentials
    is_conditional: bool  # whether the request had a condition, so that 304 is an answer to it
    response: urllib3.BaseHTTPResponse

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self.response.headers

    @property
    def media_type(self) -> str:
        """What the body is, such as "text/html"; "" if that is not said."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def length(self) -> int | None:
        """The bytes of the body as they are sent; None: it is not announced."""
        return self.response.length_remaining

    @property
    def is_delimited(self) -> bool:
        """Whether a body that is cut off can be told from a whole one."""
        is_chunked = "chunked" in self.headers.get("Transfer-Encoding", "").lower()
        return is_chunked or self.length is not None

    @property
    def encoding(self) -> str:
        """How the body is compressed; "": it is not."""
        found = self.headers.get("Content-Encoding", "").strip().lower()
        return "" if found == "identity" else found

    @property
    def validator(self) -> str:
        """What to give to `Connection.get` next time; "" if there is nothing."""
        for name in _VALIDATORS:
            value = self.headers.get(name)
            if value:
                is_usable = len(value) <= _LONGEST_VALIDATOR and value.isprintable()
                return f"{_mark(self.url)} {name} {value}" if is_usable else ""
        return ""

    def close(self) -> None:
        """End the answer. The connection is kept if hardly anything is left to read."""
        if (self.length or 0) <= _SMALL:
            with contextlib.suppress(*_BROKEN):
                for _ in range(_READS):
                    if not self.response.read1(_SMALL):
                        break
        self.response.close()

    def raw(self, most: int, seconds: float) -> Transfer[bytes]:
        """The body as it is sent. Raises `BackendUnavailable` if it is cut off.

        `most`: bytes, more are an error. `seconds`: for which the upstream may be waited for.
        """
        return Transfer(self, self._pieces(most, seconds))

    def _pieces(self, most: int, seconds: float) -> Iterator[bytes]:
        received, waited = 0, 0.0
        try:
            while True:
                since = time.monotonic()
                piece = self.response.read1(_PIECE)
                waited += time.monotonic() - since
                if not piece:
                    return
                received += len(piece)
                if received > most:
                    raise BackendError(f"{shown(self.url)} sends more than {most} bytes")
                if waited > seconds:
                    raise BackendUnavailable(f"{shown(self.url)} sends too slowly")
                yield piece
        except _BROKEN as error:
            raise BackendUnavailable(
                f"the answer of {shown(self.url)} did not arrive whole: {cause_of(error)}"
            ) from None

    def body(self, most: int, seconds: float) -> Iterator[bytes]:
        """The body, decompressed; `most` is for both forms. See `raw`. `close` ends it."""
        pieces = self._pieces(most, seconds)
        if not self.encoding:
            return pieces
        if self.encoding in ("gzip", "x-gzip", "deflate"):
            return self._decompressed(pieces, most)
        raise BackendError(
            f"{shown(self.url)} is compressed as {self.encoding[:20]!r}, which was not asked for"
        )

    def _decompressed(self, pieces: Iterator[bytes], most: int) -> Iterator[bytes]:
        size, stream = 0, None
        try:
            for piece in pieces:
                rest = piece
                while rest:
                    if stream is None or stream.eof:
                        stream = zlib.decompressobj(wbits=47)  # gzip or zlib, as the header says
                    found = stream.decompress(rest, _PIECE)
                    rest = stream.unconsumed_tail or stream.unused_data
                    size += len(found)
                    if size > most:
                        raise BackendError(f"{shown(self.url)} sends more than {most} bytes")
                    if found:
                        yield found
        except zlib.error:
            raise BackendError(f"{shown(self.url)} is not compressed as it says") from None
        if stream is not None and not stream.eof:
            raise BackendUnavailable(f"the answer of {shown(self.url)} did not arrive whole")

    def error(self, *, there_are_credentials: bool) -> BackendError:
        """The error for a status that is neither success nor absence."""
        status = self.status
        name = http.client.responses.get(status, "")
        said = f"{shown(self.url)} answered {status}{name and f' ({name})'}"
        if status == 429 or status >= 500:
            wait = min(retry_after(self.headers.get("Retry-After"), 5), 3600)
            return BackendUnavailable(said, retry_after=wait)
        if status not in (401, 403):
            return BackendError(said)
        if self.has_credentials:
            help_ = "the upstream refuses these credentials: username, password_env"
        elif there_are_credentials:
            help_ = "the credentials are only sent to the origin of index_url, which this is not"
        else:
            help_ = "if the upstream needs credentials, set username and password_env"
        return BackendError(f"{said}: {help_}")


class Transfer(Iterator[T]):
    """What arrives, in pieces. Closing it ends the transfer, also before the first piece."""

    def __init__(self, answer: Answer, pieces: Iterator[T]) -> None:
        self._answer = answer
        self._pieces = pieces

    def __next__(self) -> T:
        try:
            return next(self._pieces)
        except BaseException:  # also at the end
            self.close()
            raise

    def close(self) -> None:
        self._answer.response.close()


def _followed(url: str, location: str) -> str:
    """The address that a redirect leads to."""
    try:
        # HTTP has latin-1, and servers send UTF-8 in it.
        text = location.encode("latin-1").decode("utf-8", "replace")
    except UnicodeEncodeError:
        text = location
    try:
        target, _ = resolved(url, text)
    except ValueError:
        target = ""
    old, new = origin_of(url), origin_of(target)
    if new is None:
        raise BackendError(f"{shown(url)} redirects to what is not an http or https address")
    if old is not None and (old[0], new[0]) == ("https", "http"):
        raise BackendError(
            f"{shown(url)} redirects to {shown(target)}, which is not encrypted; it is not followed"
        )
    return target


def _mark(url: str) -> str:
    return hashlib.sha256(url.encode("utf-8", "replace")).hexdigest()[:16]


def _conditions(validator: str, url: str) -> dict[str, str]:
    """The headers with a condition for the address that a validator is from."""
    mark, _, rest = validator.partition(" ")
    name, _, value = rest.partition(" ")
    return {_VALIDATORS[name]: value} if name in _VALIDATORS and mark == _mark(url) else {}
