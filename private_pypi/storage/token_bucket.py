"""A token bucket: how often something may be done in the long run, and how often at once."""

from __future__ import annotations

import threading
import time


class TokenBucket:
    """At most `most` tokens, which come back one after the other; thread-safe."""

    def __init__(self, most: int, *, per_second: float) -> None:
        """It is full at first."""
        self._seconds = 1 / per_second  # for one token
        self._all = most * self._seconds  # for all of them
        self._full_at = 0.0  # time.monotonic(); each token that is taken moves it
        self._lock = threading.Lock()  # guards _full_at

    def take(self) -> float:
        """Take a token. Returns 0.0, or if there is none, the seconds until there is one."""
        with self._lock:
            now = time.monotonic()
            full_at = max(self._full_at, now) + self._seconds
            missing = full_at - now - self._all
            if missing > 1e-6:  # of the rounding of floats
                return missing
            self._full_at = full_at
            return 0.0

    def give_back(self) -> None:
        """Put back a token that was taken for something that does not count."""
        with self._lock:
            self._full_at -= self._seconds
