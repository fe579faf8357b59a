"""One sync of a file for all threads that wait for one."""

from __future__ import annotations

import errno
import os
import threading


class SharedSync:
    """Makes what was written to one open file survive a power cut; thread-safe.

    A sync that has begun may not cover what was written since. So a thread that comes while one is
    running waits for the next one, which is for all threads that came meanwhile. The system tells
    an error to one sync only; here, all threads that waited for it are told.
    """

    def __init__(self, descriptor: int) -> None:
        """The descriptor belongs to this object from now on."""
        self.descriptor = descriptor
        self._changed = threading.Condition()  # guards everything below
        self.users = 0  # threads that hold the file; only read it elsewhere
        self._begun = 0  # how many syncs have begun
        self._ended = 0  # how many have ended; they run one after another
        self._failed: tuple[int, OSError] | None = None  # the number of the last one that failed
        self._is_closed = False

    def hold(self) -> None:
        """Keep the file open until this thread has called `sync`. Call it once before each."""
        with self._changed:
            self.users += 1

    def sync(self) -> None:
        """Return when all that was written before this call is on the disk; raises `OSError`."""
        with self._changed:
            own = self._begun + 1
            try:
                while self._ended < own:
                    if self._begun == self._ended:
                        self._begin()
                    else:
                        self._changed.wait()
                if self._failed is not None and self._failed[0] >= own:
                    error = self._failed[1]
                    raise OSError(error.errno, error.strerror) from error
            finally:
                self.users -= 1
                self._close_unused()

    def close(self) -> None:
        """Close the file, as soon as no thread holds it."""
        with self._changed:
            self._is_closed = True
            self._close_unused()

    def _begin(self) -> None:
        """Sync in this thread, without the lock."""
        self._begun += 1
        self._changed.release()
        failed: OSError | None = InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
        try:
            os.fsync(self.descriptor)
            failed = None
        except OSError as error:
            failed = error
        finally:
            self._changed.acquire()
            self._ended = self._begun
            if failed is not None:
                self._failed = self._ended, failed
            self._changed.notify_all()

    def _close_unused(self) -> None:
        if self._is_closed and not self.users and self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1  # a number that is free again
