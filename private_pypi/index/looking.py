"""Requests that wait for a look: a listing of the storage before its interval is over.

Somebody asks for a file that the local index does not have. Another server may have published it a
moment ago, so it is not absent before the storage was listed once more. Here is who waits for that;
the thread of the `Synchronizer` lists.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

_log = logging.getLogger(__name__)

LOOK_EVERY: Final = 1.0
"""Seconds from the beginning of a listing, by any process of the ROOT, to the earliest look."""

Callback = Callable[[], object]


class Look:
    """The wait of one request. Nobody holds a thread for it, unless `wait` is called."""

    def __init__(self, looks: Looks, since: float) -> None:
        """`since`: only a listing that begins later counts (`time.monotonic`)."""
        self._looks = looks
        self.since = since

    def call_when_over(self, callback: Callback) -> None:
        """Call `callback` once when the storage was listed, or when that failed.

        It is called at once, or later in another thread, and must not block.
        """
        self._looks.add(self, callback)

    def forget(self, callback: Callback) -> None:
        """Do not call it any more. It may be running at this moment."""
        self._looks.remove(self)

    def wait(self, seconds: float) -> None:
        """Wait for the same in this thread, at most `seconds`."""
        is_over = threading.Event()
        self.call_when_over(is_over.set)
        is_over.wait(seconds)
        self.forget(is_over.set)


class Looks:
    """Those who wait for looks at one storage. Each takes memory only as long as it waits."""

    def __init__(self, wake: Callback) -> None:
        """`wake` is called when somebody waits and nobody did before."""
        self._wake = wake
        self._waiting: dict[Look, Callback] = {}
        self._is_closed = True  # until there is a thread that looks
        self._lock = threading.Lock()  # guards both

    @property
    def are_wanted(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    def add(self, look: Look, callback: Callback) -> None:
        """See `Look.call_when_over`."""
        with self._lock:
            is_closed, is_first = self._is_closed, not self._waiting
            if not is_closed:
                self._waiting[look] = callback
        if is_closed:
            callback()
        elif is_first:
            self._wake()

    def remove(self, look: Look) -> None:
        """See `Look.forget`."""
        with self._lock:
            self._waiting.pop(look, None)

    def end(self, began: float | None = None) -> None:
        """End the looks for which a listing counts that began then; None: all of them."""
        with self._lock:
            over = [each for each in self._waiting if began is None or each.since <= began]
            callbacks = [self._waiting.pop(each) for each in over]
        for callback in callbacks:
            try:
                callback()
            except Exception:  # of the server; the thread that synchronises must go on
                _log.exception("a request that waited for a look was not woken")

    def open(self) -> None:
        """From now on a thread looks."""
        with self._lock:
            self._is_closed = False

    def close(self) -> None:
        """From now on nobody looks; those who wait are called."""
        with self._lock:
            self._is_closed = True
        self.end()
