"""Pages and files as HTTP content: ETags and dates, compressed or not, and parts of files.

The functions return a status line, headers and a body, which views give to Flask and `hot_path`
gives to the server. They know neither routes nor Flask.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import formatdate
from functools import partial
from typing import Any, BinaryIO

from private_pypi.errors import BackendUnavailable
from private_pypi.model import FRESH, Freshness, LocalFile, Redirect
from private_pypi.repositories import Opened
from private_pypi.storage.arriving import Arriving, ArrivingPart
from private_pypi.storage.file_cache import CachedFile
from private_pypi.web.http.page_cache import Page
from private_pypi.web.http.ranges import ByteRange, NotSatisfiable, parse_range
from private_pypi.web.serving import WAITING, Answer, Later, Waiting

PAGE_CACHE_CONTROL = "max-age=0, must-revalidate"
"""A new release is visible at once, and for an unchanged page a 304 is sent (protocol 34).

It is not `private`, because pdm does not keep private pages. A shared cache may keep the page, but
must ask here before each use, with the secret of the present client (RFC 9111 §3.5).
"""

FILE_CACHE_CONTROL = "max-age=365000000, immutable, private"
VARY = "Accept, Accept-Encoding, Authorization"
CORS = ("Access-Control-Allow-Origin", "*")
"""For what everybody may read, so that Python in a browser can fetch it (protocol 38)."""

LONGEST_KEPT = 1000
"""The longest header that is kept in a cache with its meaning; clients may send 256 KiB."""

_WORTH_STREAMING = 64 * 1024  # bytes; a smaller body is sent in one packet with its headers

# Seconds that a storage has for the first byte, if the server cannot let the request wait.
_LONGEST_WAIT = 60.0

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Conditions:
    """The headers of a request that decide which part of the content is sent, and how."""

    method: str = "GET"
    accept_encoding: str | None = None
    if_none_match: str | None = None
    if_range: str | None = None
    range: str | None = None
    if_modified_since: str | None = None
    waiting: Waiting | None = None
    """How the request has waited so far; None if the server does not support `Later`."""
    is_plain: bool = False
    """Whether the content is sent as it is, so that it can be made while the request waits."""

    @property
    def awaited(self) -> Arriving | None:
        """The file that the request has waited for."""
        awaited = None if self.waiting is None else self.waiting.awaited
        return awaited if isinstance(awaited, Arriving) else None


def conditions_of(environ: Mapping[str, Any], *, is_plain: bool = False) -> Conditions:
    """The conditions of a request, given its WSGI environment."""
    return Conditions(
        environ["REQUEST_METHOD"],
        environ.get("HTTP_ACCEPT_ENCODING"),
        environ.get("HTTP_IF_NONE_MATCH"),
        environ.get("HTTP_IF_RANGE"),
        environ.get("HTTP_RANGE"),
        environ.get("HTTP_IF_MODIFIED_SINCE"),
        environ.get(WAITING),
        is_plain,
    )


class FilePart:
    """The next `length` bytes of a file, as a file object that a server can send."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file = file
        self._end = file.tell() + length

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes; none at the end of the part."""
        left = max(0, self._end - self._file.tell())
        return self._file.read(left if size < 0 else min(size, left))

    def seek(self, offset: int, whence: int = 0) -> int:
        """Do what `seek` of the file does, but a `whence` of 2 means the end of the part."""
        if whence == 2:
            return self._file.seek(self._end + offset)
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The position in the whole file."""
        return self._file.tell()

    def seekable(self) -> bool:
        """True."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Content:
    """A whole answer. A body that is not `bytes` has to be closed after it was sent."""

    status: str
    headers: Headers
    body: bytes | FilePart | ArrivingPart = b""

    def as_answer(self) -> Answer | None:
        """The same for the loop to send; None if a thread has to send it, and then it is closed."""
        if not isinstance(self.body, bytes):
            self.body.close()
            return None
        return Answer(int(self.status[:3]), self.status[4:], self.headers, self.body)

    def as_growing_answer(self) -> Answer | None:
        """The same, with the beginning of a file that still arrives."""
        part = self.body
        if isinstance(part, ArrivingPart) and (first := part.take(_WORTH_STREAMING)):
            return Answer(int(self.status[:3]), self.status[4:], self.headers, first, part)
        return self.as_answer()


# -- pages ---------------------------------------------------------------------------------------


def page_content(
    page: Page,
    conditions: Conditions,
    *,
    public: bool,
    freshness: Freshness = FRESH,
    text_of: Callable[[Page], bytes] = Page.text,
) -> Content:
    """A page, or 304 if the client has it already in this encoding.

    Each encoding has a strong ETag of its own, which is also sent with 304 (RFC 9110 §13, protocol
    33). A client that accepts gzip may have either of them.

    If the page may be out of date because the storage is in trouble, `Cache-Status` tells its
    age (RFC 9211 §2.3).

    `text_of` gives the text for a client that does not accept gzip, unless the page `is_long`.
    """
    accepts_packed = page.is_worth_compressing and accepts_gzip(conditions.accept_encoding)
    packed = page.is_compressed and accepts_packed
    etags = (f'"{page.etag}-gzip"', f'"{page.etag}"')
    etag = etags[0 if packed else 1]
    had = None
    if conditions.if_none_match is not None:
        usable = etags if accepts_packed else etags[1:]
        had = next((each for each in usable if none_matches(conditions.if_none_match, each)), None)
        etag = had or etag
    headers = [
        ("ETag", etag),
        ("Cache-Control", PAGE_CACHE_CONTROL),
        ("Vary", VARY),
        ("X-PyPI-Last-Serial", str(page.serial)),
    ]
    if public:
        headers.append(CORS)
    if freshness.age is not None:
        age = max(1, int(freshness.age))
        headers.append(("Cache-Status", f"private-pypi; hit; ttl=-{age}"))
    if had is not None:
        return Content("304 Not Modified", headers)
    body: bytes | FilePart = page.stored
    length = len(page.stored) if packed else page.length
    if page.is_compressed and not packed:
        body = FilePart(page.open_text(), length) if page.is_long else text_of(page)
    headers += [("Content-Type", page.content_type), ("Content-Length", str(length))]
    if packed:
        headers.append(("Content-Encoding", "gzip"))
    return Content("200 OK", headers, body)


# -- files ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """What is known of a file, or of core metadata, before it is opened."""

    sha256: str | None  # None: unknown, so that the answer has no ETag
    size: int | None  # bytes; None if it is not known
    content_type: str = "application/octet-stream"
    last_modified: datetime | None = None  # UTC

    @property
    def etag(self) -> str | None:
        """The ETag of the answer, in quotes."""
        return None if self.sha256 is None else f'"{self.sha256}"'


def file_content(
    facts: FileFacts,
    open_it: Callable[[], Opened],
    conditions: Conditions,
    *,
    public: bool,
    opens_for_head: bool = True,
) -> Content:
    """A file, a part of it, a redirect to it, or 304 if the client has it already.

    Files are never compressed on the way (protocol 10).

    `open_it` is called if the answer needs the content, which may take a storage some time. Without
    `opens_for_head`, HEAD is answered from the facts alone.

    Raises `Later` if the content is still arriving and the request may wait for it. Raises
    `BackendUnavailable` if the file does not have the size that the index says: somebody has
    changed it, and the next synchronisation finds out.
    """
    headers = _headers_of_file(facts, public=public)
    if not _is_modified(facts, conditions):
        return Content("304 Not Modified", headers)
    headers.append(("Content-Type", facts.content_type))
    answer_to_head = None
    if conditions.method == "HEAD" and facts.size is not None:
        answer_to_head = Content("200 OK", [*headers, ("Content-Length", str(facts.size))])
    if answer_to_head is not None and not opens_for_head:
        return answer_to_head
    make = partial(_opened_content, facts, headers, conditions, answer_to_head)
    opened = open_it()
    if isinstance(opened, Arriving):
        prepare = partial(_prepared_answer, opened, make) if conditions.is_plain else None
        opened = outcome(opened, conditions, _first_byte(facts, conditions), prepare)
    return make(opened)


def _prepared_answer(arriving: Arriving, make: Callable[[Opened], Content]) -> Answer | None:
    """The answer with what has arrived meanwhile; None: the application has to find out."""
    if arriving.size is None or not arriving.can_be_joined:
        return None
    if arriving.size > _WORTH_STREAMING:
        return make(arriving).as_growing_answer()
    return make(arriving).as_answer() if arriving.is_whole else None


def _opened_content(
    facts: FileFacts,
    headers: Headers,
    conditions: Conditions,
    answer_to_head: Content | None,
    opened: Opened,
) -> Content:
    match opened:
        case Redirect(url=url):
            # A signed address is only valid for GET, so HEAD is answered here (protocol 37).
            redirect = Content("302 Found", [("Location", url), ("Cache-Control", "no-store")])
            return answer_to_head or redirect
        case LocalFile(file=file):
            return _sent_from(file, _checked_size(file, facts), facts, headers, conditions)
        case CachedFile(file=file, size=size):
            return _sent_from(file, size, facts, headers, conditions)
        case Arriving() as arriving:
            assert arriving.size is not None
            return _part_of(
                arriving.size,
                facts,
                headers,
                conditions,
                lambda start, stop: _while_arriving(arriving, start, stop),
            )


def _is_modified(facts: FileFacts, conditions: Conditions) -> bool:
    if conditions.if_none_match is None and conditions.if_modified_since is None:
        return True
    from werkzeug.sansio.http import is_resource_modified

    return is_resource_modified(
        http_if_none_match=conditions.if_none_match,
        http_if_modified_since=conditions.if_modified_since,
        etag=facts.etag,
        last_modified=facts.last_modified,
    )


def _headers_of_file(facts: FileFacts, *, public: bool) -> Headers:
    headers = [
        *([] if facts.etag is None else [("ETag", facts.etag)]),
        ("Cache-Control", FILE_CACHE_CONTROL),
        ("Vary", "Authorization"),
        ("Accept-Ranges", "bytes"),
        # So that no browser shows a file of a package as a page of this server.
        ("X-Content-Type-Options", "nosniff"),
    ]
    if facts.size is not None:
        headers.append(("Content-Disposition", "attachment"))
    if public:
        headers.append(CORS)
    if facts.last_modified is not None:
        headers.append(("Last-Modified", _http_date(facts.last_modified)))
    return headers


def _checked_size(file: BinaryIO, facts: FileFacts) -> int:
    size = os.fstat(file.fileno()).st_size
    if facts.size not in (None, size):
        file.close()
        raise BackendUnavailable(
            f"the storage has a file of {size} bytes where the index says {facts.size}; "
            "somebody has changed it",
            retry_after=30,
        )
    return size


def outcome(
    arriving: Arriving,
    conditions: Conditions,
    offset: int = 0,
    prepare: Callable[[], Answer | None] | None = None,
) -> Opened:
    """The file, once its byte at `offset` has arrived. Raises the error of the storage.

    Raises `Later` if the byte has not arrived and the request can wait without a thread; `prepare`
    is passed on to it.
    """
    waiting = conditions.waiting
    if not arriving.has(offset):
        if waiting is None:
            arriving.wait(offset, seconds=_LONGEST_WAIT)
        elif not waiting.is_over:
            call_when = partial(arriving.call_when, offset)
            raise Later(arriving, call_when, arriving.forget, prepare=prepare)
    if not arriving.has():
        raise BackendUnavailable("the storage takes too long to send the file")
    return arriving.outcome()


def _first_byte(facts: FileFacts, conditions: Conditions) -> int:
    """The position of the first byte that the answer needs; 0 if the size is not known."""
    try:
        part = None if facts.size is None else _part(facts.size, facts, conditions)
    except NotSatisfiable:
        return 0
    return 0 if part is None else part.start


def _while_arriving(arriving: Arriving, start: int, stop: int) -> bytes | ArrivingPart:
    part = arriving.part(start, stop)
    if stop - start > _WORTH_STREAMING or not arriving.is_whole:
        return part
    with contextlib.closing(part):
        return part.read()


def _sent_from(
    file: BinaryIO, size: int, facts: FileFacts, headers: Headers, conditions: Conditions
) -> Content:
    """The answer from an open file. The file is closed unless it becomes the body."""
    body: bytes | FilePart = b""

    def opened_at(start: int, stop: int) -> bytes | FilePart:
        nonlocal body
        file.seek(start)
        length = stop - start
        body = FilePart(file, length) if length > _WORTH_STREAMING else file.read(length)
        return body

    try:
        return _part_of(size, facts, headers, conditions, opened_at)
    except OSError as error:
        body = b""
        raise BackendUnavailable(f"the file cannot be read: {error.strerror}") from error
    finally:
        if isinstance(body, bytes):
            file.close()


def _part_of(
    size: int,
    facts: FileFacts,
    headers: Headers,
    conditions: Conditions,
    opened_at: Callable[[int, int], bytes | FilePart | ArrivingPart],
) -> Content:
    try:
        part = _part(size, facts, conditions)
    except NotSatisfiable:
        kept = [header for header in headers if header[0] not in _OF_THE_FILE]
        # `immutable` is meant for the file and not for this answer.
        refused = [("Cache-Control", "no-store"), ("Content-Range", f"bytes */{size}")]
        return Content("416 Range Not Satisfiable", [*kept, *refused])
    status, start, stop = "200 OK", 0, size
    if part is not None:
        status, start, stop = "206 Partial Content", part.start, part.stop
        headers.append(("Content-Range", f"bytes {start}-{stop - 1}/{size}"))
    headers.append(("Content-Length", str(stop - start)))
    return Content(status, headers, opened_at(start, stop))


def _part(size: int, facts: FileFacts, conditions: Conditions) -> ByteRange | None:
    """The part that the client asks for; None for the whole file (RFC 9110 §14).

    `Range` only counts for GET, and only if `If-Range`, when present, names the present file.
    """
    asked = conditions.range if conditions.method == "GET" else None
    if conditions.if_range is not None:
        date = None if facts.last_modified is None else _http_date(facts.last_modified)
        if conditions.if_range not in (facts.etag, date):
            asked = None  # §13.1.5: the file has changed, so send all of it
    return parse_range(asked, size)


_OF_THE_FILE = ("Cache-Control", "Content-Type", "ETag", "Last-Modified")


def _http_date(moment: datetime) -> str:
    return formatdate(moment.timestamp(), usegmt=True)


# -- headers of requests -------------------------------------------------------------------------


def none_matches(header: str | None, etag: str) -> bool:
    """Whether `If-None-Match` has this ETag (in quotes), as a strong or as a weak one.

    Proxies that compress turn the ETags of their answers into weak ones (RFC 9110 §13.1.2).
    """
    if header is None or header == etag:
        return header is not None
    from werkzeug.http import parse_etags

    return parse_etags(header).contains_weak(etag[1:-1])


def accepts_gzip(header: str | None) -> bool:
    """Whether `Accept-Encoding` allows gzip. Without this header nothing is compressed."""
    return header is not None and len(header) <= LONGEST_KEPT and _accepts_gzip(header)


@functools.lru_cache(maxsize=256)
def _accepts_gzip(header: str) -> bool:
    if ";" not in header:  # as installers send it; werkzeug is not needed to start a server
        codings = {coding.strip().lower() for coding in header.split(",")}
        return not codings.isdisjoint(("gzip", "*"))
    from werkzeug.http import parse_accept_header

    return parse_accept_header(header)["gzip"] > 0
