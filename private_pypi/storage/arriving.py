"""A file that a storage is sending, which many callers can read while it arrives; knows no HTTP.

One thread writes what arrives into a temporary file, and any number of readers read it there. When
the disk is full, the rest goes through a window: a buffer in memory of limited size, which keeps
what the slowest reader has not read yet. The window has all of a small file.

No reader gets the last bytes of a file before its hash was checked. So a damaged file is never
given to anybody as a whole: its readers see a transfer that breaks off.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from private_pypi.errors import BackendError, BackendUnavailable, PrivatePypiError, fresh
from private_pypi.model import Redirect
from private_pypi.storage.remote_files import ReadPart

_log = logging.getLogger(__name__)

WITHHELD = 16 * 1024
"""Bytes at the end of a file that readers get after the hash was checked. Without them no installer
can use the file."""

SMALL = 64 * 1024
"""Bytes of a file that is not written to the disk while it arrives: most core metadata and many
wheels. Its readers would have to wait for most of it anyway, and get it before it is written."""

_WINDOW = 4 * 2**20  # bytes: the largest window of a file that does not fit on the disk
_SLOW_READER = 60.0  # seconds without progress, after which a reader is cut off
_NO_READER = 10.0  # seconds for which a full window waits for a reader
_SILENCE = 120.0  # seconds without a byte, after which a reader gives up; more than _SLOW_READER
_HEAD_START = 0.005  # seconds for which a transfer pauses until its first byte is passed on
_LINGER = 60.0  # seconds for which a transfer goes on although nobody waits for it
_LARGEST_UNKNOWN = 64 * 2**20  # bytes of a file whose size is not known
_LEAST_SECONDS = 600.0  # that any transfer may take
_SLOWEST = 64 * 1024  # bytes per second that a transfer must reach after these seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How a file is checked when all of it is here, if its SHA-256 may be unknown.

    Readers may read such a file while it arrives, as one with a known SHA-256.
    """

    hashes: Mapping[str, str] = field(default_factory=dict)
    """Hashes by algorithm, in lower-case hex. The strongest that is known here is compared."""
    arrived: Callable[[str, int, ReadPart | None], None]
    """Is called with the SHA-256, the size, and a function that reads parts of the file; None: it
    cannot be read, because the disk did not take it. It raises `BackendError` if the file may not
    be used."""
    largest: int  # bytes of a file whose size is not known

    def digest(self) -> tuple[str, str] | None:
        """The algorithm and the value of the hash that is compared; None: there is none."""
        known = (name for name in _STRONGEST_FIRST if name in self.hashes)
        name = next(known, None)
        return None if name is None else (name, self.hashes[name])


# Of `hashlib.algorithms_guaranteed`, which are the names that an index may use (PEP 503), those
# that are no SHA-256 and have a fixed length.
_STRONGEST_FIRST = (
    *("sha512", "sha3_512", "blake2b", "sha384", "sha3_384", "sha3_256", "blake2s"),
    *("sha224", "sha3_224", "sha1", "md5"),
)


class GivenUp(BackendUnavailable):
    """The transfer was ended here, so it must not be tried again."""


class Arriving:
    """A file that arrives: the part of it that is here, and how the transfer ended.

    The methods in the second half are for the thread that fetches. All others may be called from
    any thread.
    """

    def __init__(
        self,
        key: Hashable,
        *,
        sha256: str | None,
        size: int | None,
        asked_with: bytes = b"",
        check: Check | None = None,
    ) -> None:
        """`key` identifies the content. `size` (bytes) and `sha256` are those of the index; None:
        they are not known before the file is here.
        """
        self._check = check
        other = None if check is None or sha256 is not None else check.digest()
        self._other = (
            None if other is None else (hashlib.new(other[0], usedforsecurity=False), other[1])
        )
        self.key = key
        self.sha256 = sha256
        self.size = size
        self.asked_with = asked_with
        """The key of the secret with which the storage is asked."""
        self.refusal: OSError | None = None
        """Why a part of it could not be written to the disk."""
        self._changed = threading.Condition()  # guards everything below
        self._available = 0  # bytes that readers may read
        self._received = 0
        self._is_small = False
        self._file: int | None = None  # descriptor of the temporary file
        self._on_disk = 0  # bytes
        self._window = bytearray()  # what arrived after that and may still be read
        self._window_start = 0  # the position of the window in the file
        self._readers: set[ArrivingPart] = set()
        self._waiting: list[tuple[int, Callable[[], object]]] = []
        self._waiting_threads = 0
        self._is_read = False  # whether any reader has begun
        self._unread_since = time.monotonic()
        self._is_whole = False
        self._elsewhere: Redirect | None = None
        self._error: PrivatePypiError | None = None
        self._digest = hashlib.sha256()
        self._deadline = float("inf")

    # -- for waiting -----------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether nothing more will arrive."""
        return self._is_whole or self._elsewhere is not None or self._error is not None

    @property
    def is_whole(self) -> bool:
        """Whether all of it is here and the hash is right."""
        return self._is_whole

    @property
    def can_be_joined(self) -> bool:
        """Whether a new reader can still get all of it."""
        return (self._is_whole or not self.is_over) and self.can_serve(0)

    def has(self, offset: int = 0) -> bool:
        """Whether the byte at `offset` is here, or nothing more will arrive."""
        return self._available > offset or self.is_over

    def wait(self, offset: int = 0, *, seconds: float) -> bool:
        """Wait until `has(offset)`, at most `seconds`; whether it is so."""
        with self._changed:
            self._waiting_threads += 1
            try:
                return self._changed.wait_for(lambda: self.has(offset), seconds)
            finally:
                self._waiting_threads -= 1
                self._unread_since = time.monotonic()

    def call_when(self, offset: int, callback: Callable[[], object]) -> None:
        """Call `callback` once when `has(offset)`: at once, or later in another thread.

        It must not block.
        """
        with self._changed:
            if not self.has(offset):
                self._waiting.append((offset, callback))
                return
        callback()

    def forget(self, callback: Callable[[], object]) -> None:
        """Do not call `callback` any more. It may be running at this moment."""
        with self._changed:
            self._waiting = [entry for entry in self._waiting if entry[1] != callback]
            self._unread_since = time.monotonic()

    def wait_for_all(self) -> None:
        """Wait until nothing more will arrive; raises `BackendUnavailable` after a long silence."""
        while not self.is_over:
            if not self.wait(self._available, seconds=_SILENCE):
                raise _silent()

    def outcome(self) -> Arriving | Redirect:
        """Where the content is: here, or elsewhere. Raises the error of the storage.

        To be called when `has()` is true.
        """
        if self._error is not None:
            raise fresh(self._error)
        return self if self._elsewhere is None else self._elsewhere

    @property
    def error(self) -> PrivatePypiError | None:
        """Why it did not arrive; None: it did, or it may still arrive."""
        return self._error

    def can_serve(self, start: int) -> bool:
        """Whether a reader may still begin at this byte; not if the window has moved past it."""
        return self._window_start <= self._on_disk or start >= self._window_start

    def part(self, start: int, stop: int) -> ArrivingPart:
        """A reader of the bytes from `start` up to `stop`; the caller closes it."""
        with self._changed:
            if not self.can_serve(start):
                raise BackendUnavailable("the beginning of the file has passed by", retry_after=1)
            part = ArrivingPart(self, start, stop)
            self._readers.add(part)
        return part

    # -- for readers -----------------------------------------------------------------------------

    def peek(self, position: int, size: int) -> bytes:
        """At most `size` bytes from `position` on; fewer or none if they are not here."""
        with self._changed:
            size = min(size, self._available - position)
            if size <= 0:
                return b""
            if position >= self._on_disk:
                begin = position - self._window_start
                return b"" if begin < 0 else bytes(self._window[begin : begin + size])
            file, size = self._file, min(size, self._on_disk - position)
        assert file is not None
        return os.pread(file, size, position)

    def moved(self) -> None:
        """Note that a reader made progress."""
        if self.refusal is not None or not self._is_read:
            with self._changed:
                self._is_read = True
                self._changed.notify_all()

    def leave(self, part: ArrivingPart) -> None:
        """Note that a reader reads nothing more."""
        with self._changed:
            self._readers.discard(part)
            self._unread_since = time.monotonic()
            self._changed.notify_all()

    # -- for the thread that fetches -------------------------------------------------------------

    @property
    def is_forsaken(self) -> bool:
        """Whether it has had no readers and no waiting callers for some time."""
        is_waited_for = self._readers or self._waiting or self._waiting_threads
        return not is_waited_for and time.monotonic() - self._unread_since > _LINGER

    def begin(self, announced: int, scratch: Path) -> None:
        """Begin with a transfer of `announced` bytes (0: unknown), which are written to `scratch`.

        Raises `BackendError` if that is not the size that the index says.
        """
        if self.size is not None and announced not in (0, self.size):
            raise BackendError(
                f"the storage sends {announced} bytes where the index says {self.size}"
            )
        if self._check is not None and self.size is None and announced:
            self.size = announced
        self._deadline = time.monotonic() + _LEAST_SECONDS + (self.size or announced) / _SLOWEST
        if self.size is not None and self.size <= SMALL:
            self._is_small = True
            return
        try:
            self._file = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            self.refusal = error
        else:
            # Readers may go on after the transfer has ended.
            weakref.finalize(self, os.close, self._file)

    def feed(self, chunk: bytes) -> None:
        """Take what has arrived. Raises `BackendError` if the transfer has to end."""
        self._digest.update(chunk)
        if self._other is not None:
            self._other[0].update(chunk)
        received = self._received + len(chunk)
        unknown = _LARGEST_UNKNOWN if self._check is None else self._check.largest
        most = unknown if self.size is None else self.size
        if received > most:
            source = "allowed if the size is unknown" if self.size is None else "of the index"
            raise BackendError(f"the storage sends more than the {most} bytes {source}")
        now = time.monotonic()
        if now > self._deadline:
            raise GivenUp("the storage sends too slowly")
        # Clients that gave up often come back, so a file that is half here is fetched to its end.
        is_nearly_here = self.refusal is None and 2 * received >= (self.size or 0)
        if self.is_forsaken and not is_nearly_here:
            raise GivenUp("nobody waits for the file any more")
        rest = self._written(chunk)
        before, is_waited_for = self._available, bool(self._waiting)
        with self._changing():
            if rest:
                self._make_room(len(rest))
                self._window += rest
            self._received = received
            is_checked = self.sha256 is not None or self._check is not None
            if self.size is not None and is_checked:
                self._available = max(0, min(received, self.size - WITHHELD))
        if is_waited_for and self._available > before == 0:
            # This thread hardly ever waits for an upstream that is near, and would compete with
            # those that answer. With this pause the first byte came a fifth earlier on a busy
            # machine: after 37 ms in place of 48, the medians of 12 fetches of 256 MiB each.
            with self._changed:
                self._changed.wait_for(lambda: self._is_read, _HEAD_START)

    @property
    def is_verifiable(self) -> bool:
        """Whether a hash of it is known before it is here."""
        return self.sha256 is not None or self._other is not None

    @property
    def received(self) -> int:
        """How many bytes were fed."""
        return self._received

    @property
    def digest(self) -> str:
        """The SHA-256 of what was fed."""
        return self._digest.hexdigest()

    def finish(self) -> None:
        """End a complete transfer. Raises `BackendError` if the hash is not that of the index."""
        found = self.digest
        if self.sha256 not in (None, found):
            raise BackendError(
                f"the storage sent {self._received} bytes with sha256 {found}, "
                f"the index says {self.sha256}"
            )
        if self._other is not None and self._other[0].hexdigest() != self._other[1]:
            digest, expected = self._other
            raise BackendError(
                f"the storage sent {self._received} bytes with {digest.name} "
                f"{digest.hexdigest()}, the index says {expected}"
            )
        if self._check is not None:
            is_readable = self.refusal is None and (self._is_small or self._file is not None)
            self._check.arrived(found, self._received, self._read if is_readable else None)
        with self._changing():
            self.sha256, self.size = found, self._received
            self._available = self._received
            self._is_whole = True

    def is_elsewhere(self, place: Redirect) -> None:
        """End with the answer of the storage that the content is elsewhere."""
        with self._changing():
            self._elsewhere = place

    def fail(self, error: PrivatePypiError) -> None:
        """End with an error."""
        with self._changing():
            if not self.is_over:
                # Without its traceback, which would keep the objects of the transfer in memory.
                self._error = fresh(error)

    def mark_and_sync(self, modified: float) -> None:
        """Set the modification time of the temporary file and sync it; raises `OSError`."""
        assert self._file is not None
        os.utime(self._file, (time.time(), modified))
        os.fsync(self._file)

    @property
    def small_content(self) -> bytes | None:
        """All that has arrived of a small file; None: it is not small."""
        return bytes(self._window) if self._is_small else None

    def _read(self, start: int, length: int) -> bytes:
        """A part of what has arrived."""
        if self._is_small:
            return bytes(self._window[start : start + length])
        assert self._file is not None
        parts = []
        while length > 0 and (part := os.pread(self._file, length, start)):
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return b"".join(parts)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock for a change, then wake up all who wait.

        Callbacks are called without the lock, because they may take locks of their own.
        """
        with self._changed:
            yield
            self._changed.notify_all()
            due = [callback for offset, callback in self._waiting if self.has(offset)]
            self._waiting = [entry for entry in self._waiting if not self.has(entry[0])]
        for callback in due:
            callback()

    def _written(self, chunk: bytes) -> bytes | memoryview:
        """Write to the disk; returns the rest that it did not take."""
        rest = memoryview(chunk)
        if self.refusal is None and self._file is not None:
            try:
                while rest:
                    count = os.write(self._file, rest)
                    self._on_disk += count
                    rest = rest[count:]
            except OSError as error:
                self.refusal = error
                self._window_start = self._on_disk
        return rest

    def _make_room(self, size: int) -> None:
        """Wait until readers have read so much that the window has room for `size` bytes."""
        since = time.monotonic()
        while self._window and len(self._window) + size > _WINDOW:
            if self._drop_what_was_read():
                since = time.monotonic()
                continue
            patience = _SLOW_READER if self._readers else _NO_READER
            left = since + patience - time.monotonic()
            if left > 0:
                self._changed.wait(left)
            elif not self._readers:
                raise GivenUp("nobody waits for the file any more")
            else:
                slowest = min(part.position for part in self._readers)
                for part in [each for each in self._readers if each.position == slowest]:
                    part.cut()
                    self._readers.discard(part)
                self._changed.notify_all()
                since = time.monotonic()

    def _drop_what_was_read(self) -> bool:
        if not self._readers:
            return False
        end = self._window_start + len(self._window)
        slowest = min(min(part.position for part in self._readers), end)
        count = slowest - self._window_start
        if count <= 0:
            return False
        del self._window[:count]
        self._window_start = slowest
        return True


class ArrivingPart:
    """Reads a part of a file that may not be here yet, from a position of its own.

    For one thread at a time.
    """

    def __init__(self, arriving: Arriving, start: int, stop: int) -> None:
        self._arriving = arriving
        self._stop = stop
        self._is_cut = False
        self.position = start
        """The position of the next byte in the file."""

    def __len__(self) -> int:
        """How many bytes are left to read, whether they are here or not."""
        return self._stop - self.position

    @property
    def is_broken(self) -> bool:
        """Whether the rest will not arrive."""
        return self._is_cut or self._arriving.error is not None

    @property
    def is_starved(self) -> bool:
        """Whether the next byte is not here yet."""
        return len(self) > 0 and not self._is_cut and not self._arriving.has(self.position)

    def peek(self, size: int) -> bytes:
        """The next bytes, at most `size`, without waiting; none if they are not here."""
        if self.is_broken:
            return b""
        try:
            found = self._arriving.peek(self.position, min(size, len(self)))
        except OSError as error:
            _log.warning("a temporary file cannot be read: %s", error.strerror)
            self.cut()
            return b""
        if not found and size > 0 and len(self) and self._arriving.has(self.position):
            self.cut()  # another program has shortened the temporary file
        return found

    def take(self, size: int) -> bytes:
        """The same, and go on to the bytes after them.

        It does not count as progress, because the thread that fetches may do it for the reader.
        """
        found = self.peek(size)
        self.position += len(found)
        return found

    def skip(self, size: int) -> None:
        """Go on to the bytes after the next `size` ones."""
        self.position += size
        self._arriving.moved()

    def call_when_more(self, callback: Callable[[], object]) -> None:
        """Call `callback` once when this is no longer starved (see `Arriving.call_when`)."""
        self._arriving.call_when(self.position, callback)

    def forget(self, callback: Callable[[], object]) -> None:
        """Do not call `callback` any more."""
        self._arriving.forget(callback)

    def read(self, size: int = -1) -> bytes:
        """The next bytes, waiting for them; none at the end. Raises `BackendError`.

        `size`: at most so many; -1: all that are here.
        """
        size = len(self) if size < 0 else size
        while self.is_starved:
            if not self._arriving.wait(self.position, seconds=_SILENCE):
                raise _silent()
        found = self.peek(size)
        if self.is_broken:
            error = self._arriving.error
            raise fresh(error or BackendUnavailable("the rest did not arrive"))
        self.skip(len(found))
        return found

    def cut(self) -> None:
        """Break off: the rest will not be read."""
        self._is_cut = True

    def close(self) -> None:
        """End reading."""
        self._arriving.leave(self)


def _silent() -> BackendUnavailable:
    return BackendUnavailable("the storage has stopped sending")
