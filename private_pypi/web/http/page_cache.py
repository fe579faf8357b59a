"""Rendered pages, and which of them are kept in memory. How they are sent is in `content`."""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import BinaryIO, NamedTuple, cast

from private_pypi.pages.simple_api import Representation
from private_pypi.storage.bounded import BoundedBytes

BLOCK = 256 * 1024
"""How many bytes are read from a file at a time."""

_PAGES_BYTES = 32 * 2**20
_TEXTS_BYTES = 8 * 2**20
_GZIP = 31  # for zlib: the gzip format, with a header and a checksum
# Bytes. With its headers, such a page fits into the ten packets that are sent on a new connection
# before the first one is confirmed (RFC 6928), so compression saves no round trip.
_SHORT_PAGE = 14_000
_WORTH_COMPRESSING = 600  # bytes; for less, the header costs more than compression saves
_QUICK_TEXT = 64 * 1024  # bytes; a shorter text is unpacked in less time than it takes to send
_ETAG = 32  # digits of the hash
_LONG_TEXT = 4 * 2**20  # bytes; a longer text is unpacked while it is sent


class PageKey(NamedTuple):
    """Everything that the text of a page depends on."""

    local_index: object  # of the repository
    project: str | None  # None: the list of projects
    serial: int
    representation: Representation | str  # of the simple API, or the name of another kind of page
    base: str  # of the addresses in the page


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered page."""

    stored: bytes  # compressed with gzip if `is_compressed`
    is_compressed: bool
    length: int  # of the uncompressed text, in bytes
    etag: str  # a hash of the uncompressed text, without quotes
    content_type: str
    serial: int

    @property
    def size(self) -> int:
        """Roughly how much memory it takes, in bytes."""
        return len(self.stored) + 500

    @property
    def is_worth_compressing(self) -> bool:
        """Whether it is sent compressed, if not this time, then later."""
        return self.length > _WORTH_COMPRESSING

    @property
    def is_long(self) -> bool:
        """Whether its text is too long to be in memory as a whole."""
        return self.length > _LONG_TEXT

    def text(self) -> bytes:
        """Its text, unpacked each time."""
        packed = self.stored
        return zlib.decompress(packed, _GZIP, self.length) if self.is_compressed else packed

    def open_text(self) -> BinaryIO:
        """Its text, which is unpacked while it is read. The page is compressed."""
        return cast(BinaryIO, gzip.GzipFile(fileobj=io.BytesIO(self.stored)))

    def compressed(self) -> Page:
        """The same page in the form in which it is kept once it was asked for again."""
        if self.is_compressed or not self.is_worth_compressing:
            return self
        # The best compression takes as long as everything else together, and saves 3 % of the bytes
        # of a short page.
        return replace(self, stored=zlib.compress(self.stored, 1, _GZIP), is_compressed=True)


class PageCache:
    """Rendered pages in memory, the least recently used ones dropped above a limit of bytes.

    A key contains the serial number of the index, so old pages need not be removed on a change.

    Most pages are short. To compress one takes as long as to render it, and many are asked for only
    once until they change. So a short page is compressed when it is asked for again.

    A page with many files is only kept compressed. If clients ask for it without compression, its
    text is kept as well, because to unpack it takes longer than to send it.
    """

    def __init__(self, max_bytes: int = _PAGES_BYTES) -> None:
        self._pages: BoundedBytes[Page] = BoundedBytes(max_bytes)
        self._texts: BoundedBytes[bytes] = BoundedBytes(_TEXTS_BYTES)  # by the ETag of the page
        self.sent_again = 0
        """How many pages were sent as before without being looked for here (see `api.asked`)."""

    @property
    def hits(self) -> int:
        """How many pages were found, or sent again."""
        return self._pages.hits + self.sent_again

    @property
    def misses(self) -> int:
        """How many pages were rendered."""
        return self._pages.added

    @property
    def size(self) -> int:
        """Roughly how much memory the pages take, in bytes."""
        return self._pages.size + self._texts.size

    def find(self, key: PageKey) -> Page | None:
        """The page with this key; None if it is not in memory."""
        page = self._pages.find(key)
        if page is None or page.is_compressed or not page.is_worth_compressing:
            return page
        page = page.compressed()
        self._pages.keep(key, page, page.size)
        return page

    def get(self, key: PageKey, render: Callable[[], Page]) -> Page:
        """The page with this key, which is rendered if it is not in memory."""
        page = self.find(key)
        if page is None:
            page = render()
            self._pages.keep(key, page, page.size)
        return page

    def find_text(self, page: Page) -> bytes | None:
        """The text of a page that is not `is_long`; None if it would take long to unpack it."""
        return page.text() if page.length <= _QUICK_TEXT else self._texts.find(page.etag)

    def text(self, page: Page) -> bytes:
        """The text of a page that is not `is_long`."""
        text = self.find_text(page)
        if text is None:
            text = page.text()
            self._texts.keep(page.etag, text, len(text))
        return text


def make_page(text: str | Iterable[str], content_type: str, serial: int) -> Page:
    """Encode and hash a rendered page, and compress it unless it is short (see `PageCache`).

    Its text may come in pieces, if it may be too long to be in memory as a whole.
    """
    blocks = iter([text.encode()]) if isinstance(text, str) else _blocks_of(text)
    first = next(blocks, b"")
    if len(first) <= _SHORT_PAGE:  # then it is the only block
        etag = hashlib.sha256(first).hexdigest()[:_ETAG]
        return Page(first, False, len(first), etag, content_type, serial)
    # All installers accept gzip. For other clients it is decompressed, which is fast. The header
    # has neither a name nor a time, so the same page has the same bytes on every server.
    compressor = zlib.compressobj(6, wbits=_GZIP)
    digest, length, packed = hashlib.sha256(), 0, list[bytes]()
    for block in chain([first], blocks):
        digest.update(block)
        length += len(block)
        packed.append(compressor.compress(block))
    packed.append(compressor.flush())
    return Page(b"".join(packed), True, length, digest.hexdigest()[:_ETAG], content_type, serial)


def _blocks_of(pieces: Iterable[str]) -> Iterator[bytes]:
    """The encoded pieces, joined to blocks of at least `BLOCK` bytes, except for the last one."""
    waiting: list[str] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= BLOCK:
            yield "".join(waiting).encode()
            waiting, size = [], 0
    if waiting:
        yield "".join(waiting).encode()
