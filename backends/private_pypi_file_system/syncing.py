"""Syncs of files and folders, which make them survive a power cut, several at the same time."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_MOST = 16  # threads that wait for the disk


class Syncs:
    """Waits for the syncs of one storage; thread-safe.

    A file system with a journal writes one entry of it for all syncs that wait at the same moment,
    also for those of other uploads. So syncs that do not depend on each other run together: one
    after another, each would wait for an entry of its own.
    """

    def __init__(self) -> None:
        """Starts no thread yet. The threads end when nothing refers to this object any more."""
        self._begin()

    def _begin(self) -> None:
        self._threads = ThreadPoolExecutor(_MOST, thread_name_prefix="sync")
        self._process = os.getpid()

    def together(self, first: Callable[[], object], *others: Callable[[], object]) -> None:
        """Call these, and return when all of them have ended. Raises the error of one of them."""
        if self._process != os.getpid():  # after a fork, there are no threads
            self._begin()
        running = [self._threads.submit(other) for other in others]
        try:
            first()
        finally:
            # Also after an error, because the caller may close what they sync.
            errors = [other.exception() for other in running]
        for error in errors:
            if error is not None:
                raise error
