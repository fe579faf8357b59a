"""A client of an index over HTTP: requests, redirects, credentials, conditions and bodies.

The credentials are sent to the origin of the index only. Nothing is retried here, except for a
request to which a connection that was used before gave no answer at all (see `sockets`). Neither
~/.netrc nor the proxies of the environment are used.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, TypeVar

import urllib3

from private_pypi.backend import Usage, retry_after
from private_pypi.backend.chains import HEADER as CHAIN_HEADER
from private_pypi.backend.chains import present_chain
from private_pypi.errors import BackendError, BackendUnavailable, LoopDetected, cause_of
from private_pypi_mirror.addresses import Origin, origin_of, resolved, shown
from private_pypi_mirror.sockets import Proxy, Sockets, basic, is_unanswered

T = TypeVar("T")

_PIECE: Final = 128 << 10  # bytes
_MOST_REDIRECTS: Final = 5
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_MOST_STREAMS: Final = 1000  # that are compressed one by one in a body
_SMALL: Final = 64 << 10  # bytes of a body that are read so that the connection can be kept
_READS: Final = 3  # in which they have to arrive
_LONGEST_VALIDATOR: Final = 1000  # characters
_BROKEN: Final = (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)
"""What is raised if there is no connection, or if it breaks off."""
_NEVER_AGAIN: Final = urllib3.Retry(False, redirect=False)  # made once, not for each request
_NO_TUNNEL: Final = re.compile(r"Tunnel connection failed: (\d{3})")
_VALIDATORS: Final = {"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}


class Connection:
    """The sockets to an upstream and to the hosts of its files, which all views share."""

    timeout: ClassVar[urllib3.Timeout] = urllib3.Timeout(connect=10, read=60)
    """Seconds to connect, and between two packets."""

    def __init__(
        self,
        index_url: str,
        username: str,
        password: str,
        *,
        proxy: Proxy | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self._index: Origin | None = origin_of(index_url)
        self._authorization = basic(username, password) if username else None
        self._proxy = proxy
        self._sockets = Sockets(proxy, ca_file)
        self._lock = threading.Lock()  # guards everything below
        self._requests: dict[str, int] = {}

    @property
    def has_credentials(self) -> bool:
        """Whether there are credentials for the index."""
        return self._authorization is not None

    def close(self) -> None:
        """End everything that is asked for; see `Sockets.close`."""
        self._sockets.close()

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
            chain = present_chain()
            if chain:
                sent[CHAIN_HEADER] = ", ".join(chain)
            if may_have_credentials and self._authorization is not None:
                sent["Authorization"] = self._authorization
            answer = Answer(
                url=url,
                has_credentials="Authorization" in sent,
                is_conditional=bool(conditions),
                response=self._send(url, sent),
                proxy="" if self._proxy is None else self._proxy.url,
            )
            location = answer.headers.get("Location")
            if answer.status not in _REDIRECTS or location is None:
                return answer
            answer.close()
            url = _followed(url, location)
        raise BackendError(f"{shown(first)} leads to more than {_MOST_REDIRECTS} redirects")

    def _send(
        self, url: str, headers: Mapping[str, str], *, is_again: bool = False
    ) -> urllib3.BaseHTTPResponse:
        sockets = self._sockets.for_address(url, fresh=is_again)
        try:
            response = sockets.urlopen(
                "GET",
                url,
                redirect=False,
                headers=headers,
                preload_content=False,
                decode_content=False,
                retries=_NEVER_AGAIN,
                timeout=self.timeout,
            )
        except ValueError:  # also errors of urllib3 and of Unicode
            raise BackendError(f"{shown(url)} is not an address that can be used") from None
        except _BROKEN as error:
            self._count("none")
            if is_unanswered(error) and not is_again:
                return self._send(url, headers, is_again=True)
            raise self._unreachable(url, error) from None
        status = response.status
        self._count("304" if status == 304 else f"{status // 100}xx")
        if status == 407 and self._proxy is not None:
            response.close()
            raise _refused(url, self._proxy, status)
        return response

    def _unreachable(self, url: str, error: BaseException) -> BackendError:
        """The error for a request that was not answered."""
        cause, proxy = cause_of(error), self._proxy
        if proxy is None:
            return BackendUnavailable(f"{shown(url)} cannot be reached: {cause}")
        if not isinstance(error, urllib3.exceptions.ProxyError):
            return BackendUnavailable(
                f"{shown(url)} cannot be reached through the proxy {shown(proxy.url)}: {cause}"
            )
        answered = _NO_TUNNEL.match(str(error.original_error))
        if answered is not None:
            return _refused(url, proxy, int(answered[1]))
        return BackendUnavailable(
            f"{shown(url)} cannot be reached, because the proxy {shown(proxy.url)} cannot: {cause}"
        )

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
    proxy: str = ""  # the address of the proxy that was asked for it; "": there is none

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
        size, streams, stream = 0, 0, None
        try:
            for piece in pieces:
                rest = piece
                while rest:
                    if stream is None or stream.eof:
                        stream = zlib.decompressobj(wbits=47)  # gzip or zlib, as the header says
                        streams += 1
                        if streams > _MOST_STREAMS:
                            raise BackendError(
                                f"{shown(self.url)} is compressed in more than {_MOST_STREAMS} "
                                "parts"
                            )
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
        said = f"{shown(self.url)} answered {_named(status)}"
        if self.proxy and not self.url.startswith("https:"):  # it may be the proxy's own answer
            said += f" through the proxy {shown(self.proxy)}"
        if status == 508:  # RFC 5842 §7.2
            return LoopDetected(
                f"{said}: the upstream asks this mirror, directly or through other servers; change "
                "index_url, or the members of the group that the upstream is"
            )
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


def _refused(url: str, proxy: Proxy, status: int) -> BackendError:
    """The error for a proxy that refuses, or fails, to ask for an address."""
    said = f"{shown(url)} cannot be reached, because the proxy {shown(proxy.url)} answered"
    if status != 407:
        kind = BackendUnavailable if status == 429 or status >= 500 else BackendError
        return kind(f"{said} {_named(status)}")
    help_ = (
        "it refuses these credentials: proxy_username, proxy_password_env"
        if proxy.username
        else "it needs credentials; set proxy_username and proxy_password_env"
    )
    return BackendError(f"{said} {_named(status)}: {help_}")


def _named(status: int) -> str:
    name = http.client.responses.get(status, "")
    return f"{status} ({name})" if name else f"{status}"


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
