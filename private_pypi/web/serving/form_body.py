"""The body of an upload form, on its way from the loop to a thread that writes it to disk."""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Callable
from io import BytesIO

from private_pypi.errors import BackendError
from private_pypi.web.serving.pools import Work
from private_pypi.web.serving.receiving import FormReceiver

logger = logging.getLogger(__name__)

_MOST_QUEUED = 512 * 1024  # bytes of one upload between the socket and the disk


class _State(enum.IntEnum):
    """How far a form has come. The state only ever grows."""

    ARRIVING = enum.auto()
    ARRIVED = enum.auto()  # the loop has queued all of it
    FAILED = enum.auto()  # no more of it can be received
    DROPPED = enum.auto()  # the request is answered, or its client has gone


class FormBody:
    """A queue from the loop to the thread that feeds a `FormReceiver`.

    For waitress it is also the buffer in which it keeps the bytes of a body.
    """

    def __init__(
        self, receiver: FormReceiver, add: Callable[[Work], None], tell: Callable[[], object]
    ) -> None:
        """`add` runs work in a thread of the pool for forms. `tell` is called in such a thread.

        It has to make the loop look at this object, because there is room again or it has settled.
        """
        self._receiver = receiver
        self._add = add
        self._tell = tell
        self.error: BackendError | None = None
        """Why the form could not be received, if that is neither its own fault nor the disk's."""
        self._lock = threading.Lock()  # guards everything below
        self._state = _State.ARRIVING
        self._chunks: list[bytes] = []
        self._queued = 0  # bytes in _chunks, and in the thread
        self._total = 0  # bytes
        self._is_scheduled = False

    # Called by the loop. The first four methods are those of a buffer of waitress.

    def append(self, data: bytes) -> None:
        with self._lock:
            self._chunks.append(data)
            self._queued += len(data)
            self._total += len(data)
            self._schedule()

    def __len__(self) -> int:
        return self._total

    def getfile(self) -> BytesIO:
        return BytesIO()

    def close(self) -> None:
        """Drop what is left. The worker that answers the request calls this as well."""
        with self._lock:
            self._state = _State.DROPPED
            self._chunks.clear()
            self._schedule()

    def end(self) -> None:
        """Say that the form has arrived. The channel is told when all of it is written."""
        with self._lock:
            self._state = max(self._state, _State.ARRIVED)
            self._schedule()

    @property
    def is_full(self) -> bool:
        return self._queued >= _MOST_QUEUED

    @property
    def is_settled(self) -> bool:
        """Whether the application can be called: all is written, or no more can be."""
        with self._lock:
            return self._has_settled()

    def _has_settled(self) -> bool:
        return self._state >= _State.FAILED or (self._state is _State.ARRIVED and not self._queued)

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._add(self._feed)

    # Called by a worker: one step, so that other uploads have their turn after it.

    def _feed(self) -> None:
        with self._lock:
            chunks, self._chunks = self._chunks, []
            is_dropped = self._state is _State.DROPPED
        if is_dropped:
            self._receiver.abort()
            return
        is_broken = False
        try:
            for chunk in chunks:
                self._receiver.feed(chunk)
        except Exception:
            logger.exception("an upload could not be received")
            self.error = BackendError("the upload could not be received")
            is_broken = True
        with self._lock:
            was_full = self.is_full
            self._queued -= sum(map(len, chunks))
            if is_broken or self._receiver.failed:
                self._state = max(self._state, _State.FAILED)
            self._is_scheduled = False
            if self._chunks or self._state is _State.DROPPED:
                self._schedule()
            is_news = was_full or self._has_settled()
        if is_news:
            self._tell()
