"""Receive an upload form as it arrives: its fields, and one file that is written to disk.

The format is multipart/form-data: RFC 7578, which is based on RFC 2046 §5.1. Line ends must be
CRLF, as these require. A more lenient parser would cut off the end of a file that ends with LF.

This module knows neither a server nor a framework, and does not look at the content of the file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import tempfile
from collections.abc import Generator, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from private_pypi.distributions.upload import ReceivedFile
from private_pypi.errors import (
    BackendUnavailable,
    InvalidUpload,
    PrivatePypiError,
    StorageFull,
    TooLarge,
)

RECEIVED_FORM = "private_pypi.received_form"
"""The key in a WSGI environment of a form that the server has received: a `FormReceiver` with all
of its data, or the error because of which there is none."""

READ_SIZE = 256 * 1024  # bytes; so large that the time for the calls does not matter

_LONGEST_BOUNDARY = 70  # RFC 2046 §5.1.1
# Blanks may follow a boundary (RFC 2046 §5.1.1). The line end after them is not taken, so that
# headers end with an empty line even if there are none.
_AFTER_BOUNDARY = re.compile(rb"--|[ \t]{0,70}(?=\r\n)")
_AFTER_BOUNDARY_SO_FAR = re.compile(rb"-|[ \t]{0,70}\r?")
# Without anything that is written in more than one way, such as quotes in a quoted text.
_PLAIN_DISPOSITION = re.compile(
    r' form-data; name="(?P<name>[\w.:+-]+)"(?:; filename="(?P<filename>[\w.+!-]+)")?', re.ASCII
)
_LARGEST_HEADERS = 16 * 1024  # bytes of the headers of one part
_DIGEST_FIELDS = {"md5_digest": "md5", "blake2_256_digest": "blake2_256"}
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, kw_only=True)
class FormLimits:
    """The largest form that is received."""

    max_file_bytes: int
    max_field_bytes: int = 8 * 1024 * 1024  # of everything except the file
    max_parts: int = 10_000

    @property
    def max_body_bytes(self) -> int:
        """The size of the largest body. A larger one is over one of the other limits."""
        return self.max_file_bytes + self.max_field_bytes

    def for_files(self, max_file_bytes: int) -> FormLimits:
        """The same limits, but this one for the file."""
        return replace(self, max_file_bytes=max_file_bytes)


@dataclass(frozen=True, slots=True)
class ReceivedForm:
    """A complete form with its fields in order; `close` it at the end."""

    fields: tuple[tuple[str, str], ...]
    file: ReceivedFile | None

    def close(self) -> None:
        """Delete the file if it was not moved away."""
        if self.file is not None:
            self.file.path.unlink(missing_ok=True)


def receive_form(environ: dict[str, Any], folder: Path, limits: FormLimits) -> ReceivedForm:
    """The form of a request: the one that our server has received, else read from `wsgi.input`.

    The file is written below `folder`, and is removed if this raises `InvalidUpload`, `TooLarge`,
    `StorageFull` or `BackendUnavailable`.
    """
    received = environ.get(RECEIVED_FORM)
    if isinstance(received, PrivatePypiError):
        raise received
    if isinstance(received, FormReceiver):
        return received.finish()
    from werkzeug.wsgi import get_input_stream

    receiver = FormReceiver(environ.get("CONTENT_TYPE", ""), folder, limits)
    try:
        for data in iter(partial(get_input_stream(environ).read, READ_SIZE), b""):
            receiver.feed(data)
            if receiver.failed:
                break
        return receiver.finish()
    except BaseException:
        receiver.abort()
        raise


class FormReceiver:
    """Takes a form in pieces of any size, and writes its file `content` to disk as it arrives.

    It keeps the fields and one piece in memory. Not thread-safe.
    """

    def __init__(self, content_type: str, folder: Path, limits: FormLimits) -> None:
        """Raises `InvalidUpload` if `content_type` is not that of a form. Does no I/O."""
        self._delimiter = b"\r\n--" + _boundary(content_type)
        self._folder = folder
        self._limits = limits
        self._part = _Part()  # the preamble
        self._fields: list[tuple[str, str]] = []
        self._file: _FilePart | None = None
        self._parts = 0
        self._field_bytes = 0
        self._is_whole = False  # whether the last boundary has arrived
        self._error: PrivatePypiError | None = None
        self._parser = self._parse()
        next(self._parser)

    @property
    def failed(self) -> bool:
        """Whether there was an error, which `finish` will raise."""
        return self._error is not None

    def feed(self, data: bytes) -> None:
        """Take the next piece.

        Does not raise for a bad form or a full disk. Instead, it keeps the error for `finish`,
        deletes the file at once, and drops all further pieces.
        """
        if self._error is not None:
            return
        try:
            self._parser.send(data)
        except InvalidUpload as error:
            self._fail(error)
        except OSError as error:
            self._fail(_storage_error(error))

    def finish(self) -> ReceivedForm:
        """The form, with a file that belongs to the caller. Raises the error of `feed`."""
        if self._error is None and not self._is_whole:
            self._fail(InvalidUpload("the form is cut off: its final boundary did not arrive"))
        if self._error is not None:
            raise self._error
        file = None if self._file is None else self._file.received()
        return ReceivedForm(fields=tuple(self._fields), file=file)

    def abort(self) -> None:
        """Delete the file if it is still there. Nothing can be fed afterwards.

        May be called several times, and after `finish`.
        """
        self._parser.close()  # which refers to this object, and would keep it in memory
        if self._file is not None:
            self._file.delete()

    def _fail(self, error: PrivatePypiError) -> None:
        self._error = error
        self._fields.clear()
        self.abort()

    def _parse(self) -> Generator[None, bytes]:
        """Parse the form. Whenever more data is needed, it is sent to this generator."""
        data = b"\r\n"  # at the start of the form, no line end comes before the boundary
        at = 0  # the data before it is done with
        while True:
            while (end := data.find(self._delimiter, at)) < 0:
                end = len(data) - _overlap(data, at, self._delimiter)
                self._write(memoryview(data)[at:end])
                data, at = data[end:], 0
                data += yield
            self._write(memoryview(data)[at:end])
            self._part.end()
            self._spend(len(self._delimiter))
            at = end + len(self._delimiter)

            while (after := _end_of_boundary(data, at)) is None:
                data, at = data[at:], 0
                data += yield
            if data.startswith(b"--", at):
                break
            at = after

            while (end := data.find(b"\r\n\r\n", at, at + _LARGEST_HEADERS)) < 0:
                if len(data) - at >= _LARGEST_HEADERS:
                    raise InvalidUpload(
                        "the form is broken: a part has headers of more than "
                        f"{_LARGEST_HEADERS} bytes"
                    )
                data, at = data[at:], 0
                data += yield
            self._spend(end + 4 - at)
            self._part = self._begin_part(data[at:end])
            at = end + 4
        self._is_whole = True
        data = data[after:]
        while True:  # the epilogue
            self._spend(len(data))
            data = yield

    def _write(self, content: memoryview) -> None:
        if not isinstance(self._part, _FilePart):
            self._spend(len(content))
        self._part.write(content)

    def _begin_part(self, headers: bytes) -> _Part:
        self._parts += 1
        if self._parts > self._limits.max_parts:
            raise TooLarge(f"the form has more than {self._limits.max_parts} parts")
        name, filename = _disposition(headers)
        if filename is None:
            return _FieldPart(name, self._fields)
        if name != "content":
            return _Part()  # another file, such as a signature, is dropped (protocol 52)
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


class _Part:
    """A part whose content is dropped. Subclasses keep it."""

    def write(self, data: memoryview) -> None:
        pass

    def end(self) -> None:
        pass


class _Hash(Protocol):
    def update(self, data: memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...


class _FieldPart(_Part):
    """A field, which is text."""

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


class _FilePart(_Part):
    """The file, which is hashed and written as it arrives."""

    def __init__(self, folder: Path, filename: str, limit: int, digests: Iterable[str]) -> None:
        self._filename = filename
        self._limit = limit
        self._size = 0
        self._hashes: dict[str, _Hash] = {"sha256": hashlib.sha256()}
        # The other hashes are only computed if the form has them, before the file. For a field
        # after the file, the code that compares them has to read the file.
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
            os.close(descriptor)  # a network file system may report an error only here

    def received(self) -> ReceivedFile:
        return ReceivedFile(
            filename=self._filename,
            path=self._path,
            size=self._size,
            digests={name: digest.hexdigest() for name, digest in self._hashes.items()},
        )

    def delete(self) -> None:
        # If this fails, the next start removes the file.
        with contextlib.suppress(OSError):
            self.end()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def _parse_options(header: str) -> tuple[str, dict[str, str]]:
    from werkzeug.http import parse_options_header  # not needed to start a server

    return parse_options_header(header)


def _boundary(content_type: str) -> bytes:
    kind, options = _parse_options(content_type)
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
    """The name and the filename of a part (RFC 7578 §4.2)."""
    try:
        lines = headers.decode().split("\r\n")
    except UnicodeDecodeError as error:
        raise InvalidUpload("the form is broken: the headers of a part are not UTF-8") from error
    for line in lines:
        header, _, value = line.partition(":")
        if header.strip().lower() == "content-disposition":
            if plain := _PLAIN_DISPOSITION.fullmatch(value):  # parsing takes long
                return plain["name"], plain["filename"]
            kind, options = _parse_options(value)
            if kind == "form-data" and "name" in options:
                return options["name"], options.get("filename")
    raise InvalidUpload("the form is broken: a part has no name")


def _end_of_boundary(data: bytes, at: int) -> int | None:
    """The end of the blanks or hyphens after a boundary; None if more data is needed."""
    if match := _AFTER_BOUNDARY.match(data, at):
        return match.end()
    if not _AFTER_BOUNDARY_SO_FAR.fullmatch(data, at):
        raise InvalidUpload("the form is broken: a boundary is followed by something else")
    return None


def _overlap(data: bytes, start: int, delimiter: bytes) -> int:
    """How many of the last bytes may be the beginning of a delimiter."""
    at = data.find(b"\r", max(start, len(data) - len(delimiter) + 1))
    while at >= 0 and not delimiter.startswith(data[at:]):
        at = data.find(b"\r", at + 1)
    return len(data) - at if at >= 0 else 0


def _storage_error(error: OSError) -> PrivatePypiError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _NO_SPACE:
        return StorageFull(f"no space left for the upload: {reason}")
    return BackendUnavailable(f"the upload cannot be written: {reason}")
