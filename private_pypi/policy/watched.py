"""A small text file that operators change while the server runs; what it says is kept in memory."""

from __future__ import annotations

import hashlib
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

T = TypeVar("T")

LARGEST: Final = 4 << 20  # bytes; a larger file is wrong

_EVERY: Final = 1.0  # seconds between two looks
_COARSE: Final = 2_000_000_000
"""Nanoseconds within which a file system may give two changes the same time."""

_Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class State(Generic[T]):
    """What a file says, or why that is unknown."""

    generation: str  # differs between two states; the same text is the same state
    value: T | None  # None: see `problem`
    problem: str | None = None
    """A sentence about what is wrong, without the path of the file; None: nothing is."""


class WatchedFile(Generic[T]):
    """A file that is read again when it has changed. Thread-safe.

    `parse` gets the text, and raises `ValueError` with a sentence if it is wrong. `missing` is the
    value if there is no file; without one, a missing file is a problem. `report` is called with
    each new state, also the first.
    """

    def __init__(
        self,
        path: Path,
        parse: Callable[[str], T],
        *,
        missing: T | None = None,
        report: Callable[[State[T]], None] = lambda state: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._parse = parse
        self._missing = missing
        self._report = report
        self._clock = clock
        self._lock = threading.Lock()  # guards everything below
        self._state: State[T] | None = None
        self._stamp: _Stamp | None = None  # None: the file has to be read again
        self._next_look = 0.0

    def state(self) -> State[T]:
        """What the file says now; one `stat` at most once a second, unless it has changed."""
        state = self._state
        if state is not None and self._clock() < self._next_look:
            return state
        with self._lock:
            if self._state is None or self._clock() >= self._next_look:
                self._state = self._look(self._state)
                # Last, because other threads look at it first and without the lock.
                self._next_look = self._clock() + _EVERY
            return self._state

    def _look(self, known: State[T] | None) -> State[T]:
        stamp, self._stamp = self._stamp, None
        try:
            found = self.path.stat()
            now = (found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev)
            if known is not None and now == stamp:
                self._stamp = stamp
                return known
            if not stat.S_ISREG(found.st_mode):  # reading a pipe could wait for ever
                return self._changed(known, "", "it is not a regular file")
            looked_at = time.time_ns()
            with self.path.open("rb") as file:
                content = file.read(LARGEST + 1)
        except FileNotFoundError:
            # A missing file is an empty one only where that is said.
            if self._missing is None:
                return self._changed(known, "", "it does not exist")
            return self._changed(known, None, None)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            return self._changed(known, "", f"it cannot be read: {why}")
        if found.st_mtime_ns < looked_at - _COARSE:
            # Otherwise, a change after this would not be seen, so the next look reads it again.
            self._stamp = now
        if len(content) > LARGEST:
            return self._changed(known, "", f"it is larger than {LARGEST >> 20} MiB")
        try:
            return self._changed(known, content.decode("utf-8-sig"), None)
        except UnicodeDecodeError:
            return self._changed(known, "", "it is not UTF-8")

    def _changed(self, known: State[T] | None, text: str | None, problem: str | None) -> State[T]:
        """The state after a look; `known` itself if nothing has changed. `text` None: no file."""
        digest = hashlib.sha256(f"{text is None} {problem} {text}".encode())
        generation = digest.hexdigest()[:32]
        if known is not None and known.generation == generation:
            return known
        value = None
        if problem is None:
            try:
                value = self._missing if text is None else self._parse(text)
            except ValueError as error:
                problem = str(error)
        state = State(generation, value, problem)
        self._report(state)
        return state
