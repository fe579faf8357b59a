"""Pages and files as HTTP content: validators, encodings and parts; knows neither routes nor Flask.

What is answered here is a status line, headers and a body, which the views hand to Flask and
`hot_path` to the server.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from werkzeug.http import http_date, parse_accept_header, parse_etags

from private_pypi.errors import BackendUnavailable
from private_pypi.model import DistributionFile, LocalFile, Redirect
from private_pypi.simple_api import Representation
from private_pypi.web.ranges import NotSatisfiable, parse_range

PAGE_CACHE_CONTROL = "max-age=0, must-revalidate"
"""A new release is visible at once, and a page that did not change costs a 304 (protocol 34).

Not `private`: a shared cache may keep the page, but every use of it is checked here, with the
secret of the one who asks (RFC 9111 §3.5). pdm keeps nothing that is private.
"""

FILE_CACHE_CONTROL = "max-age=365000000, immutable, private"
VARY = "Accept, Accept-Encoding, Authorization"
CORS = ("Access-Control-Allow-Origin", "*")
"""With pages and files that anybody may read: Python in a browser fetches them (protocol 38)."""

BLOCK = 256 * 1024
"""Bytes that leave a file at a time."""

LONGEST_KEPT = 1000
"""Characters of a header that is remembered with what it means; clients may send 256 KiB."""

_CACHE_BYTES = 32 * 2**20
_WORTH_COMPRESSING = 600  # bytes; below, the header costs more than it saves
_WORTH_STREAMING = 64 * 1024  # bytes; what is smaller leaves with its headers in one packet

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Conditions:
    """The headers of a request that decide what of the content is sent."""

    method: str = "GET"
    accept_encoding: str | None = None
    if_none_match: str | None = None
    if_range: str | None = None
    range: str | None = None


class FilePart:
    """The next `length` bytes of a file, with all that servers ask of a file."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file = file
        self._end = file.tell() + length

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes, none at the end of the part."""
        left = max(0, self._end - self._file.tell())
        return self._file.read(left if size < 0 else min(size, left))

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of the file; 2 counts from the end of the part."""
        if whence == 2:
            return self._file.seek(self._end + offset)
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of the file."""
        return self._file.tell()

    def seekable(self) -> bool:
        """It is."""
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Content:
    """A whole answer; whoever sends a `FilePart` closes it."""

    status: str
    headers: Headers
    body: bytes | FilePart = b""


# -- pages ---------------------------------------------------------------------------------------


class PageKey(NamedTuple):
    """What decides about the text of a page."""

    local_index: object  # that of the repository
    project: str | None  # None: the list of projects
    serial: int
    representation: Representation
    base: str


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered page, kept in one encoding, with what its validators are made of."""

    stored: bytes  # gzip if `is_compressed`
    is_compressed: bool
    etag: str  # without quotes; of the text, whatever the encoding
    content_type: str
    serial: int

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        return len(self.stored) + 500


class PageCache:
    """Rendered pages, the least recently used ones dropped above a limit of bytes.

    Keys bear the serial, so nothing needs to be invalidated.
    """

    def __init__(self, max_bytes: int = _CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._pages: OrderedDict[PageKey, Page] = OrderedDict()
        self._lock = threading.Lock()  # guards what is above and below
        self.hits = 0
        """Pages that were there."""
        self.misses = 0
        """Pages that were rendered."""

    @property
    def size(self) -> int:
        """Bytes of memory, about."""
        return self._bytes

    def find(self, key: PageKey) -> Page | None:
        """The page of this key, when it is there."""
        with self._lock:
            page = self._pages.get(key)
            if page is not None:
                self._pages.move_to_end(key)
                self.hits += 1
        return page

    def get(self, key: PageKey, render: Callable[[], Page]) -> Page:
        """The page of this key, rendered when it is not there."""
        page = self.find(key)
        if page is not None:
            return page
        page = render()
        with self._lock:
            self.misses += 1
            replaced = self._pages.pop(key, None)
            self._bytes += page.size - (replaced.size if replaced else 0)
            self._pages[key] = page
            while self._bytes > self._max_bytes and len(self._pages) > 1:
                _, dropped = self._pages.popitem(last=False)
                self._bytes -= dropped.size
        return page


def make_page(text: str, representation: Representation, serial: int) -> Page:
    """Encode, hash and compress a rendered page, once."""
    body = text.encode()
    is_compressed = len(body) > _WORTH_COMPRESSING
    return Page(
        # Every installer takes gzip: for those who do not, unpacking costs a few microseconds.
        # mtime 0: the same page is the same bytes on every server.
        stored=gzip.compress(body, compresslevel=6, mtime=0) if is_compressed else body,
        is_compressed=is_compressed,
        etag=hashlib.sha256(body).hexdigest()[:32],
        content_type=representation.content_type,
        serial=serial,
    )


def page_content(
    page: Page, conditions: Conditions, *, public: bool, stale: float | None = None
) -> Content:
    """A page, or 304 when the client has it in this encoding.

    RFC 9110 §13, and protocol 33: a strong ETag for each encoding, the same with 304. `stale`: the
    storage is in trouble, and the page is of so many seconds ago, which RFC 9211 §2.3 has a word
    for.
    """
    packed = page.is_compressed and accepts_gzip(conditions.accept_encoding)
    etag = f'"{page.etag}-gzip"' if packed else f'"{page.etag}"'
    headers = [
        ("ETag", etag),
        ("Cache-Control", PAGE_CACHE_CONTROL),
        ("Vary", VARY),
        ("X-PyPI-Last-Serial", str(page.serial)),
    ]
    if public:
        headers.append(CORS)
    if stale is not None:
        headers.append(("Cache-Status", f"private-pypi; hit; ttl=-{max(1, int(stale))}"))
    if none_matches(conditions.if_none_match, etag):
        return Content("304 Not Modified", headers)
    body = page.stored
    if page.is_compressed and not packed:
        body = gzip.decompress(body)
    headers += [("Content-Type", page.content_type), ("Content-Length", str(len(body)))]
    if packed:
        headers.append(("Content-Encoding", "gzip"))
    return Content("200 OK", headers, body)


# -- files ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What the index says of a file or of its core metadata."""

    sha256: str
    size: int | None  # bytes; None: not known before it is open
    content_type: str
    last_modified: str | None  # a date of HTTP


def distribution_file(file: DistributionFile) -> Served:
    """The file itself; never compressed, whatever the client accepts (protocol 10)."""
    return Served(
        sha256=file.sha256,
        size=file.size,
        content_type="application/octet-stream",
        last_modified=http_date(file.uploaded_at) if file.uploaded_at else None,
    )


def core_metadata(file: DistributionFile) -> Served:
    """The core metadata of a file that offers it."""
    return Served(
        sha256=file.core_metadata_sha256 or "",
        size=None,
        content_type="text/plain; charset=utf-8",
        last_modified=http_date(file.uploaded_at) if file.uploaded_at else None,
    )


def file_content(
    served: Served, opened: LocalFile | Redirect, conditions: Conditions, *, public: bool
) -> Content:
    """A file, a part of it, or the way to it."""
    etag = f'"{served.sha256}"'
    headers = [
        ("ETag", etag),
        ("Cache-Control", FILE_CACHE_CONTROL),
        ("Vary", "Authorization"),
        ("Accept-Ranges", "bytes"),
        # Nothing that a package holds runs as a page of ours.
        ("X-Content-Type-Options", "nosniff"),
    ]
    if served.size is not None:
        headers.append(("Content-Disposition", "attachment"))
    if public:
        headers.append(CORS)
    if served.last_modified is not None:
        headers.append(("Last-Modified", served.last_modified))
    if none_matches(conditions.if_none_match, etag):
        return Content("304 Not Modified", headers)
    headers.append(("Content-Type", served.content_type))
    match opened:
        case Redirect(url=url):
            if conditions.method == "HEAD" and served.size is not None:
                # A signed address is for one method; this one we can answer (protocol 37).
                return Content("200 OK", [*headers, ("Content-Length", str(served.size))])
            return Content("302 Found", [("Location", url), ("Cache-Control", "no-store")])
        case LocalFile(path=path):
            return _local_content(path, served, headers, conditions)


def _local_content(path: Path, served: Served, headers: Headers, conditions: Conditions) -> Content:
    """RFC 9110 §14: `Range` is for GET, and `If-Range` must name what is there."""
    try:
        file = path.open("rb")
    except OSError as error:  # it was there a moment ago
        raise BackendUnavailable(f"{path.name!r} cannot be opened: {error.strerror}") from error
    try:
        size = path.stat().st_size
        asked = conditions.range if conditions.method == "GET" else None
        if conditions.if_range not in (None, f'"{served.sha256}"', served.last_modified):
            asked = None  # §13.1.5: it changed, so send the whole
        try:
            part = parse_range(asked, size)
        except NotSatisfiable:
            file.close()
            kept = [header for header in headers if header[0] not in _OF_THE_FILE]
            # What is immutable is the file, not this answer.
            refused = [("Cache-Control", "no-store"), ("Content-Range", f"bytes */{size}")]
            return Content("416 Range Not Satisfiable", [*kept, *refused])
        status, length = "200 OK", size
        if part is not None:
            status, length = "206 Partial Content", part.stop - part.start
            file.seek(part.start)
            headers.append(("Content-Range", f"bytes {part.start}-{part.stop - 1}/{size}"))
        headers.append(("Content-Length", str(length)))
        if length > _WORTH_STREAMING:
            return Content(status, headers, FilePart(file, length))
        body = file.read(length)
    except BaseException:
        file.close()
        raise
    file.close()
    return Content(status, headers, body)


_OF_THE_FILE = ("Cache-Control", "Content-Type", "ETag", "Last-Modified")


# -- what both ask -------------------------------------------------------------------------------


def none_matches(header: str | None, etag: str) -> bool:
    """Whether `If-None-Match` has this strong ETag (quoted)."""
    return header is not None and (header == etag or parse_etags(header).contains(etag[1:-1]))


def accepts_gzip(header: str | None) -> bool:
    """Whether `Accept-Encoding` lets us compress; a client that says nothing gets plain text."""
    return header is not None and len(header) <= LONGEST_KEPT and _accepts_gzip(header)


@functools.lru_cache(maxsize=256)
def _accepts_gzip(header: str) -> bool:
    return parse_accept_header(header)["gzip"] > 0
