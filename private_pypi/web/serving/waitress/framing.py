"""Find out where a request ends: strict parsing of its head and of a chunked body (RFC 9112).

A request that two programs could understand differently is refused, and its connection is closed.
Otherwise a proxy in front of the server could take a part of the body for the next request, or the
next request for a part of the body ("request smuggling"). This module knows neither sockets nor the
server.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import BinaryIO, Protocol

from private_pypi.web.serving.heads import HOST, BadFraming

LONGEST_LINE = 4096
"""The longest line before a chunk, in bytes: its size and extensions, which nobody uses."""

LARGEST_TRAILERS = 16 * 1024
"""The most bytes of fields after the last chunk. They are read and dropped."""

_MOST_EMPTY_LINES = 4  # before a request; RFC 9112 §2.2 requires that one is ignored
_LONGEST_NUMBER = 18  # digits of a length; far more than any body needs

_START_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e\x80-\xff]+) HTTP/(\d)\.(\d)")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)", re.IGNORECASE)
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")


class Head:
    """Collects the head of a request as it arrives."""

    def __init__(self, largest: int) -> None:
        """A head of `largest` bytes or more is refused."""
        self._largest = largest
        self._data = bytearray()
        self._empty_lines = 0

    @property
    def has_begun(self) -> bool:
        """Whether anything but empty lines has arrived."""
        return bool(self._data) and self._data != b"\r"

    @property
    def held(self) -> int:
        """How much memory it takes, in bytes."""
        return len(self._data)

    def feed(self, data: bytes) -> tuple[int, bytes | None]:
        """Take the next data. Raises `BadFraming`.

        Returns how many bytes of it belong to the head, and the whole head if it ends there.
        """
        before = len(self._data)
        self._data += data
        skipped = 0
        while self._data.startswith(b"\r\n"):
            del self._data[:2]
            skipped += 2
            self._empty_lines += 1
            if self._empty_lines > _MOST_EMPTY_LINES:
                raise BadFraming("There are empty lines where a request should begin")
        # Search the new part only, because a head may arrive byte by byte.
        end = self._data.find(b"\r\n\r\n", max(0, before - skipped - 3))
        if end < 0:
            if len(self._data) >= self._largest:
                raise self._too_large()
            return len(data), None
        if end + 4 >= self._largest:
            raise self._too_large()
        taken = len(data) - (len(self._data) - end - 4)
        return taken, bytes(self._data[: end + 4])

    def _too_large(self) -> BadFraming:
        sentence = f"The head must have less than {self._largest} bytes, but it is larger"
        return BadFraming(sentence, 431)


def check_head(head: bytes) -> bytes | None:
    """Check that it is clear where the request ends and for which host it is.

    Returns the host of an absolute address in the first line, which replaces the field `Host` (RFC
    9112 §3.2.2); None for any other address. Raises `BadFraming`.
    """
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    start = _START_LINE.fullmatch(first)
    if start is None:
        raise BadFraming("The first line is not of the form 'GET /address HTTP/1.1'")
    version = (start[3], start[4])
    if version not in ((b"1", b"0"), (b"1", b"1")):
        raise BadFraming("This server only supports HTTP/1.1 and HTTP/1.0", 505)
    fields: dict[bytes, list[bytes]] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise BadFraming(_what_is_wrong(line))
        fields.setdefault(field[1].lower(), []).append(field[2].rstrip(b" \t"))
    _check_length(fields, is_old=version == (b"1", b"0"))
    hosts = fields.get(b"host", [])
    if len(hosts) > 1:
        raise BadFraming("There is more than one field Host")
    if not hosts and version == (b"1", b"1"):
        raise BadFraming("The field Host is missing")
    if hosts and not HOST.fullmatch(hosts[0]):
        raise BadFraming("The field Host is not a host, with or without a port")
    return _check_target(start[1], start[2])


def _what_is_wrong(line: bytes) -> str:
    if line[:1] in (b" ", b"\t"):
        return "A field of the head is folded into several lines"
    if b"\r" in line or b"\n" in line:
        return "A line of the head ends with CR or LF alone; it must end with both"
    if re.match(rb"[^:]*[ \t]+:", line):
        return "There is a space before the colon of a field of the head"
    return "A line of the head is not of the form 'Name: value', or has control characters"


def _check_length(fields: dict[bytes, list[bytes]], *, is_old: bool) -> None:
    """Check the fields that say where the body ends, more strictly than RFC 9112 §6 requires."""
    if b"transfer_encoding" in fields or b"content_length" in fields:
        raise BadFraming("Transfer-Encoding and Content-Length are written with a hyphen")
    lengths = fields.get(b"content-length", [])
    codings = fields.get(b"transfer-encoding", [])
    if codings and lengths:
        raise BadFraming("There are both Transfer-Encoding and Content-Length; send only one")
    if codings and is_old:
        raise BadFraming("HTTP/1.0 has no Transfer-Encoding")
    if len(lengths) > 1 or b"," in b"".join(lengths):
        raise BadFraming("There is more than one Content-Length")
    if lengths and not re.fullmatch(rb"[0-9]{1,%d}" % _LONGEST_NUMBER, lengths[0]):
        raise BadFraming("Content-Length is not a number of bytes")
    if codings:
        names = [name.strip(b" \t").lower() for name in b",".join(codings).split(b",")]
        if any(not re.fullmatch(rb"[a-z0-9-]+", name) for name in names):
            raise BadFraming("Transfer-Encoding cannot be read")
        if names.count(b"chunked") > 1 or (names[-1] != b"chunked" and b"chunked" in names):
            raise BadFraming("'chunked' must be the last in Transfer-Encoding, and only once")
        if names != [b"chunked"]:
            raise BadFraming("The only supported Transfer-Encoding is 'chunked'", 501)


def _check_target(method: bytes, target: bytes) -> bytes | None:
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return None
    absolute = _ABSOLUTE.match(target)
    if absolute is None:
        raise BadFraming("The address of a request begins with '/', 'http://' or 'https://'")
    if not absolute[1] or not HOST.fullmatch(absolute[1]):
        raise BadFraming("The address of the request has no valid host")
    return absolute[1]


class Buffer(Protocol):
    """Takes the content of a body."""

    def append(self, data: bytes, /) -> None: ...
    def __len__(self) -> int: ...
    def getfile(self) -> BinaryIO: ...
    def close(self) -> None: ...


_Read = Callable[[bytes, int, list[bytes]], int | None]


class ChunkedBody:
    """Parses a chunked body (RFC 9112 §7.1). Time and memory are proportional to its size.

    waitress uses the attributes `received`, `completed`, `error`, `getfile` and `getbuf`.
    """

    def __init__(self, buffer: Buffer) -> None:
        self.buf = buffer
        self.completed = False
        self.error: BadFraming | None = None
        self.left = 0  # bytes of the present chunk that have not arrived
        self._read: _Read = self._read_size_line
        self._rest = b""  # the beginning of a line or of the trailers

    def __len__(self) -> int:
        return len(self.buf)

    def getbuf(self) -> Buffer:
        """The buffer with the content."""
        return self.buf

    def getfile(self) -> BinaryIO:
        """The content as a file."""
        return self.buf.getfile()

    def received(self, data: bytes) -> int:
        """Take the beginning of `data` that belongs to this body, and return its length."""
        if self.completed or self.error is not None:
            return 0
        kept = len(self._rest)
        whole = self._rest + data if kept else data
        content: list[bytes] = []
        at = 0
        try:
            while (end := self._read(whole, at, content)) is not None:
                at = end
        except BadFraming as error:
            self.error = error
        if content:
            self.buf.append(content[0] if len(content) == 1 else b"".join(content))
        if self._read == self._read_nothing:
            self.completed = True
            return at - kept
        self._rest = b"" if self.error else whole[at:]
        return len(data)

    # Each of these methods reads one element that begins at `at`, and returns the position after
    # it; None if more data is needed.

    def _read_size_line(self, data: bytes, at: int, content: list[bytes]) -> int | None:
        end = data.find(b"\n", at, at + LONGEST_LINE)
        if end < 0:
            if len(data) - at >= LONGEST_LINE:
                raise BadFraming("The line before a chunk is too long")
            return None
        line = _SIZE_LINE.fullmatch(data, at, max(at, end - 1))
        if line is None or data[end - 1] != 0x0D:
            raise BadFraming("A chunk does not begin with its size and CRLF")
        self.left = int(line[1], 16)
        self._read = self._read_content if self.left else self._read_trailers
        return end + 1

    def _read_content(self, data: bytes, at: int, content: list[bytes]) -> int | None:
        piece = data[at : at + self.left]
        if not piece:
            return None
        content.append(piece)
        self.left -= len(piece)
        if not self.left:
            self._read = self._read_end_of_chunk
        return at + len(piece)

    def _read_end_of_chunk(self, data: bytes, at: int, content: list[bytes]) -> int | None:
        end = data[at : at + 2]
        if not b"\r\n".startswith(end):
            raise BadFraming("A chunk is not followed by CRLF")
        if len(end) < 2:
            return None
        self._read = self._read_size_line
        return at + 2

    def _read_trailers(self, data: bytes, at: int, content: list[bytes]) -> int | None:
        if data.startswith(b"\r\n", at):
            self._read = self._read_nothing
            return at + 2
        end = data.find(b"\r\n\r\n", at, at + LARGEST_TRAILERS)
        if end < 0:
            if len(data) - at >= LARGEST_TRAILERS:
                raise BadFraming("The fields after the last chunk are too long")
            return None
        for line in data[at:end].split(b"\r\n"):
            if _FIELD.fullmatch(line) is None:
                raise BadFraming("After the last chunk comes something that is not a field")
        self._read = self._read_nothing
        return end + 4

    def _read_nothing(self, data: bytes, at: int, content: list[bytes]) -> int | None:
        """After the end."""
        return None
