"""From the bytes of an upload form, as they arrive, to its fields and one file on disk.

Knows no server and no framework, and checks nothing that only the content can tell.

The format is multipart/form-data: RFC 7578 on top of RFC 2046 §5.1. Line ends are CRLF, as these
require: a file that ends in a bare line end is never cut by a lenient reading of its boundary.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from werkzeug.http import parse_options_header

from private_pypi.errors import (
    BackendUnavailable,
    InvalidUpload,
    PrivatePypiError,
    StorageFull,
    TooLarge,
)
from private_pypi.upload import ReceivedFile

RECEIVED_FORM = "private_pypi.received_form"
"""The key of a WSGI environment under which a server leaves a form that it received itself:
a `FormReceiver` that was fed, or the error that kept it from making one."""

READ_SIZE = 256 * 1024  # bytes; large enough that hashing and writing outweigh the calls

_LONGEST_BOUNDARY = 70  # RFC 2046 §5.1.1
_LARGEST_HEADERS = 16 * 1024  # bytes of the headers of one part
_DIGEST_FIELDS = {"md5_digest": "md5", "blake2_256_digest": "blake2_256"}
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True, kw_only=True)
class FormLimits:
    """What a form may weigh."""

    max_file_bytes: int
    max_field_bytes: int = 8 * 1024 * 1024  # all but the file
    max_parts: int = 10_000

    @property
    def max_body_bytes(self) -> int:
        """What a body may have in all; a longer one is over one of the two."""
        return self.max_file_bytes + self.max_field_bytes

    def for_files(self, max_file_bytes: int) -> FormLimits:
        """The same limits with another one for the file."""
        return replace(self, max_file_bytes=max_file_bytes)


@dataclass(frozen=True, slots=True)
class ReceivedForm:
    """A complete form, fields in order; `close` it when it is dealt with."""

    fields: tuple[tuple[str, str], ...]
    file: ReceivedFile | None

    def close(self) -> None:
        """Delete the file, unless somebody took it away."""
        if self.file is not None:
            self.file.path.unlink(missing_ok=True)


def receive_form(environ: dict[str, Any], folder: Path, limits: FormLimits) -> ReceivedForm:
    """The form of a request: as our server received it, else read from `wsgi.input`.

    The file is written below `folder`, and nothing is left there when this raises:
    `InvalidUpload` (`TooLarge`), `StorageFull`, `BackendUnavailable`.
    """
    received = environ.get(RECEIVED_FORM)
    if isinstance(received, PrivatePypiError):
        raise received
    if isinstance(received, FormReceiver):
        return received.finish()
    receiver = FormReceiver(environ.get("CONTENT_TYPE", ""), folder, limits)
    try:
        for data in _read_input(environ):
            receiver.feed(data)
            if receiver.failed:
                break
        return receiver.finish()
    except BaseException:
        receiver.abort()
        raise


class _Expects(enum.Enum):
    CONTENT = enum.auto()  # of a part, or the preamble; up to the next boundary
    END_OF_BOUNDARY = enum.auto()  # "--" after the last, else a line end
    HEADERS = enum.auto()
    EPILOGUE = enum.auto()


class FormReceiver:
    """Takes a form in pieces of any size and writes its file part `content` while it arrives.

    Not for several threads at once. Memory: the fields and one piece.
    """

    def __init__(self, content_type: str, folder: Path, limits: FormLimits) -> None:
        """Raises `InvalidUpload` when `content_type` is not that of a form; does no I/O."""
        self._delimiter = b"\r\n--" + _boundary(content_type)
        self._folder = folder
        self._limits = limits
        self._expects = _Expects.CONTENT
        self._rest = b"\r\n"  # the first boundary, at the very start, lacks the line end before it
        self._part: _Part = _Ignored()
        self._fields: list[tuple[str, str]] = []
        self._file: _FilePart | None = None
        self._parts = 0
        self._field_bytes = 0
        self._error: PrivatePypiError | None = None

    @property
    def failed(self) -> bool:
        """Whether `finish` can only raise, whatever else arrives."""
        return self._error is not None

    def feed(self, data: bytes) -> None:
        """Take the next piece.

        Raises nothing for a bad form or a full disk: the first error is kept for `finish`, the
        file is deleted at once, and what follows is dropped.
        """
        if self._error is not None:
            return
        try:
            self._parse(self._rest + data if self._rest else data)
        except InvalidUpload as error:
            self._fail(error)
        except OSError as error:
            self._fail(_storage_error(error))

    def finish(self) -> ReceivedForm:
        """The form, whose file belongs to the caller; raises the first error that was met."""
        if self._error is None and self._expects is not _Expects.EPILOGUE:
            self._fail(InvalidUpload("the form is cut: its final boundary did not arrive"))
        if self._error is not None:
            raise self._error
        file = None if self._file is None else self._file.received()
        return ReceivedForm(fields=tuple(self._fields), file=file)

    def abort(self) -> None:
        """Delete what was written and is still there; also again, and after `finish`."""
        if self._file is not None:
            self._file.delete()

    def _fail(self, error: PrivatePypiError) -> None:
        self._error = error
        self._rest = b""
        self._fields.clear()
        self.abort()

    def _parse(self, data: bytes) -> None:
        """Go as far as `data` reaches and keep the rest, a few bytes, for the next time."""
        view = memoryview(data)
        at = 0
        before: tuple[int, _Expects] | None = None
        while (at, self._expects) != before:
            before = (at, self._expects)
            match self._expects:
                case _Expects.CONTENT:
                    at = self._read_content(data, view, at)
                case _Expects.END_OF_BOUNDARY:
                    at = self._read_end_of_boundary(data, at)
                case _Expects.HEADERS:
                    at = self._read_headers(data, at)
                case _Expects.EPILOGUE:
                    self._spend(len(data) - at)
                    at = len(data)
        self._rest = data[at:]

    # Each reads at `at` as much as is decided, and returns where the next one reads.

    def _read_content(self, data: bytes, view: memoryview, at: int) -> int:
        end = data.find(self._delimiter, at)
        is_whole = end >= 0
        if not is_whole:
            end = len(data) - _overlap(data, at, self._delimiter)
        if end > at:
            if not isinstance(self._part, _FilePart):
                self._spend(end - at)
            self._part.write(view[at:end])
        if not is_whole:
            return end
        self._part.end()
        self._spend(len(self._delimiter))
        self._expects = _Expects.END_OF_BOUNDARY
        return end + len(self._delimiter)

    def _read_end_of_boundary(self, data: bytes, at: int) -> int:
        if len(data) - at < 2:
            return at
        if data.startswith(b"--", at):
            self._expects = _Expects.EPILOGUE
            return at + 2
        # RFC 2046 §5.1.1: blanks may follow a boundary, then the line ends.
        end = data.find(b"\r\n", at)
        blanks = data[at:end] if end >= 0 else data[at:].removesuffix(b"\r")
        if blanks.strip(b" \t") or len(blanks) > _LONGEST_BOUNDARY:
            raise InvalidUpload("the form is broken: a boundary is followed by something else")
        if end < 0:
            return at
        self._expects = _Expects.HEADERS
        return end  # with this line end, the headers end in an empty line even when there are none

    def _read_headers(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n\r\n", at, at + _LARGEST_HEADERS)
        if end < 0:
            if len(data) - at >= _LARGEST_HEADERS:
                raise InvalidUpload(
                    f"the form is broken: a part has headers of more than {_LARGEST_HEADERS} bytes"
                )
            return at
        self._spend(end + 4 - at)
        self._part = self._begin_part(data[at:end])
        self._expects = _Expects.CONTENT
        return end + 4

    def _begin_part(self, headers: bytes) -> _Part:
        self._parts += 1
        if self._parts > self._limits.max_parts:
            raise TooLarge(f"the form has more than {self._limits.max_parts} parts")
        name, filename = _disposition(headers)
        if filename is None:
            return _FieldPart(name, self._fields)
        if name != "content":
            return _Ignored()  # a signature, say: protocol 52
        if self._file is not None:
            raise InvalidUpload("the form has more than one file named 'content'")
        given = {_DIGEST_FIELDS[field] for field, _ in self._fields if field in _DIGEST_FIELDS}
        self._file = _FilePart(self._folder, filename, self._limits.max_file_bytes, given)
        return self._file

    def _spend(self, size: int) -> None:
        self._field_bytes += size
        if self._field_bytes > self._limits.max_field_bytes:
            raise TooLarge(
                "the fields of the form are larger together than the limit of "
                f"{self._limits.max_field_bytes} bytes"
            )


class _Part(Protocol):
    """Where the content of a part goes."""

    def write(self, data: memoryview) -> None: ...
    def end(self) -> None: ...


class _Hash(Protocol):
    def update(self, data: memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


class _Ignored:
    """The preamble, and files that nobody asked for."""

    def write(self, data: memoryview) -> None:
        pass

    def end(self) -> None:
        pass


class _FieldPart:
    """A field: text."""

    def __init__(self, name: str, fields: list[tuple[str, str]]) -> None:
        self._name = name
        self._fields = fields
        self._value = bytearray()

    def write(self, data: memoryview) -> None:
        self._value += data

    def end(self) -> None:
        try:
            self._fields.append((self._name, self._value.decode()))
        except UnicodeDecodeError as error:
            raise InvalidUpload(f"the field {self._name!r} of the form is not UTF-8") from error


class _FilePart:
    """The file: hashed and written once."""

    def __init__(self, folder: Path, filename: str, limit: int, digests: Iterable[str]) -> None:
        self._filename = filename
        self._limit = limit
        self._size = 0
        self._hashes: dict[str, _Hash] = {"sha256": hashlib.sha256()}
        # Those that the form wants compared; fields that come after the file are left to whoever
        # compares them.
        if "md5" in digests:
            self._hashes["md5"] = hashlib.md5(usedforsecurity=False)
        if "blake2_256" in digests:
            self._hashes["blake2_256"] = hashlib.blake2b(digest_size=32)
        descriptor, path = tempfile.mkstemp(prefix="upload-", dir=folder)
        self._descriptor: int | None = descriptor
        self._path = Path(path)

    def write(self, data: memoryview) -> None:
        self._size += len(data)
        if self._size > self._limit:
            raise TooLarge(
                f"the file {self._filename!r} is larger than the limit of {self._limit} bytes"
            )
        for digest in self._hashes.values():
            digest.update(data)
        while data and self._descriptor is not None:
            data = data[os.write(self._descriptor, data) :]

    def end(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)  # an error of a network file system may show only here

    def received(self) -> ReceivedFile:
        return ReceivedFile(
            filename=self._filename,
            path=self._path,
            size=self._size,
            digests={name: digest.hexdigest() for name, digest in self._hashes.items()},
        )

    def delete(self) -> None:
        # Temporary files are also removed at start: nothing is lost when this disk is in trouble.
        with contextlib.suppress(OSError):
            self.end()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    if kind.lower() != "multipart/form-data":
        raise InvalidUpload(
            f"an upload is a multipart/form-data form, not {repr(kind) if kind else 'nothing'}"
        )
    boundary = options.get("boundary", "")
    if not 1 <= len(boundary) <= _LONGEST_BOUNDARY or not boundary.isascii():
        raise InvalidUpload(
            f"the boundary of a form has 1 to {_LONGEST_BOUNDARY} ASCII characters, "
            f"not {boundary[:100]!r}"
        )
    return boundary.encode()


def _disposition(headers: bytes) -> tuple[str, str | None]:
    """Name and filename of a part (RFC 7578 §4.2)."""
    try:
        lines = headers.decode().split("\r\n")
    except UnicodeDecodeError as error:
        raise InvalidUpload("the form is broken: the headers of a part are not UTF-8") from error
    for line in lines:
        header, _, value = line.partition(":")
        if header.strip().lower() == "content-disposition":
            kind, options = parse_options_header(value)
            if kind == "form-data" and "name" in options:
                return options["name"], options.get("filename")
    raise InvalidUpload("the form is broken: a part has no name")


def _overlap(data: bytes, start: int, delimiter: bytes) -> int:
    """How many of the last bytes may begin a delimiter that the next piece completes."""
    at = data.find(b"\r", max(start, len(data) - len(delimiter) + 1))
    while at >= 0 and not delimiter.startswith(data[at:]):
        at = data.find(b"\r", at + 1)
    return len(data) - at if at >= 0 else 0


def _storage_error(error: OSError) -> PrivatePypiError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _NO_SPACE:
        return StorageFull(f"no space left for the upload: {reason}")
    return BackendUnavailable(f"the upload cannot be written: {reason}")


def _read_input(environ: dict[str, Any]) -> Iterator[bytes]:
    """The body of a request, no further than it is said to reach."""
    stream = environ["wsgi.input"]
    until_end = sys.maxsize if environ.get("wsgi.input_terminated") else 0
    left = int(environ.get("CONTENT_LENGTH") or until_end)
    while left > 0 and (data := stream.read(min(READ_SIZE, left))):
        left -= len(data)
        yield data
