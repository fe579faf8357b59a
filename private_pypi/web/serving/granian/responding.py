"""Call the application, and take its answer in a form that can be sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from private_pypi.web.serving.growing import Callback, GrowingFile
from private_pypi.web.serving.receiving import READ_SIZE

LARGE = 64 * 1024
"""Bytes; a body of this size or more goes through a pipe. It is the size of the pipe as well."""

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Broken(Exception):
    """The rest of a body will not arrive."""


class Source(Protocol):
    """Where a body comes from. For one thread at a time."""

    def read(self, size: int) -> bytes | None:
        """The next bytes; none at the end; None if they are not here yet. Raises `Broken`."""

    def call_when_more(self, callback: Callback) -> None:
        """Call `callback` once, in any thread, when there is more."""

    def forget(self, callback: Callback) -> None:
        """Cancel this call."""

    def close(self) -> None:
        """Release it."""


class _AtHand:
    """A source that never waits."""

    def call_when_more(self, callback: Callback) -> None:
        callback()

    def forget(self, callback: Callback) -> None:
        pass


class _Pieces(_AtHand):
    """What an application yields."""

    def __init__(self, iterable: Iterable[bytes]) -> None:
        self._iterable = iterable
        self._pieces: Iterator[bytes] = iter(iterable)

    def read(self, size: int) -> bytes | None:
        return next((piece for piece in self._pieces if piece), b"")

    def close(self) -> None:
        close = getattr(self._iterable, "close", None)
        if close is not None:
            close()


class _File(_AtHand):
    """A file that is here."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int) -> bytes | None:
        return self._file.read(size)

    def close(self) -> None:
        self._file.close()


class _Growing:
    """A file of which some may not have arrived yet."""

    def __init__(self, file: GrowingFile) -> None:
        self._file = file

    def read(self, size: int) -> bytes | None:
        if not len(self._file):
            return b""
        found = self._file.peek(size)
        if found:
            self._file.skip(len(found))
            return found
        if self._file.is_broken:
            raise Broken
        return None

    def call_when_more(self, callback: Callback) -> None:
        self._file.call_when_more(callback)

    def forget(self, callback: Callback) -> None:
        self._file.forget(callback)

    def close(self) -> None:
        self._file.close()


class FileBody:
    """The `wsgi.file_wrapper`. A server that does not know it reads blocks of it."""

    def __init__(self, file: Any, block_size: int = READ_SIZE) -> None:
        self._file = file
        self._block_size = block_size

    def __iter__(self) -> Iterator[bytes]:
        while block := self._file.read(self._block_size):
            yield block

    def source(self) -> Source:
        """Where the server reads it from."""
        return _Growing(self._file) if isinstance(self._file, GrowingFile) else _File(self._file)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(slots=True)
class Response:
    """An answer of the application, with the beginning of its body."""

    status: int
    headers: list[tuple[str, str]]
    pieces: list[bytes]  # of the body, so far
    source: Source | None  # of the rest; None: there is none
    size: int = 0  # bytes of the pieces

    def fill(self) -> None:
        """Read on until the body is over `LARGE`, has ended, or more of it has to be waited for.

        Raises `Broken`.
        """
        while self.source is not None and self.size <= LARGE:
            piece = self.source.read(LARGE)
            if piece is None:
                return
            if piece:
                self.pieces.append(piece)
                self.size += len(piece)
            else:
                self.close()

    @property
    def is_long(self) -> bool:
        """Whether it has to go through a pipe."""
        return self.size > LARGE

    def close(self) -> None:
        """Release the rest, because it has ended or is not wanted."""
        source, self.source = self.source, None
        if source is not None:
            source.close()


def call(application: Application, environ: dict[str, Any]) -> Response:
    """The answer of the application; called in a worker. Raises what the application raises."""
    started: list[tuple[str, Sequence[tuple[str, str]]]] = []

    def start_response(
        status: str, headers: Sequence[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if started and exc_info is None:
            raise RuntimeError("start_response was called twice")
        started[:] = [(status, headers)]
        return _write

    iterable = application(environ, start_response)
    source = iterable.source() if isinstance(iterable, FileBody) else _Pieces(iterable)
    response = Response(500, [], [], source)
    try:
        response.fill()
        if not started:
            raise RuntimeError("the application did not call start_response")
    except BaseException:
        response.close()
        raise
    status, headers = started[0]
    response.status, response.headers = int(status[:3]), list(headers)
    if environ["REQUEST_METHOD"] == "HEAD":
        response.close()
        response.pieces.clear()
        response.size = 0
    return response


def _write(data: bytes) -> None:
    raise NotImplementedError("the body of an answer is what the application returns")
