"""Requests that wait for their answer, and files that are sent while they still arrive.

Neither of them holds a thread meanwhile. An application that cannot answer yet raises `Later`, and
is called again with the same request when it may be able to answer. A `GrowingFile` is a body of
which only the beginning is there: the loop sends this part, and continues when more has arrived.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from private_pypi.web.serving.gate import Answer

WAITING = "private_pypi.waiting"
"""The key of a `Waiting` in the WSGI environment. Without it, `Later` must not be raised."""

_LONGEST_WAIT = 60.0  # seconds that a request waits for the beginning of its answer

Callback = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Waiting:
    """How a request has waited for its answer so far."""

    awaited: object | None = None  # of the last `Later`; None if it did not wait yet
    is_over: bool = False  # whether it has waited too long to wait again


class Later(BaseException):
    """Raised by the application in place of an answer: call it again with the same request.

    This is not an error and must not be handled as one, so it is not an `Exception`.
    """

    def __init__(
        self,
        awaited: object,
        call_when_ready: Callable[[Callback], None],
        forget: Callable[[Callback], None],
        *,
        seconds: float | None = None,
        prepare: Callable[[], Answer | None] | None = None,
    ) -> None:
        """Wait for `awaited`, which the application then finds in its `Waiting`.

        `call_when_ready` makes the given call once, when the application may be able to answer: in
        any thread, possibly before it returns. `forget` cancels that call. After `seconds`
        of waiting (None: a minute), the application is called in any case.

        `prepare` is called in that thread, before. If it returns an answer to the GET request, it
        is sent without calling the application, which saves a change of threads. Only this answer
        may have a `rest`.
        """
        super().__init__("an answer comes later")
        self.awaited = awaited
        self.call_when_ready = call_when_ready
        self.forget = forget
        self.seconds = seconds
        self.prepare = prepare


@runtime_checkable
class GrowingFile(Protocol):
    """The rest of a body, of which some may not have arrived yet. Its methods never block."""

    def __len__(self) -> int:
        """How many bytes are left to send, including those that have not arrived."""

    @property
    def is_starved(self) -> bool:
        """Whether the next byte has not arrived yet."""

    @property
    def is_broken(self) -> bool:
        """Whether the rest will never arrive."""

    def peek(self, size: int) -> bytes:
        """At most `size` of the next bytes; empty if none of them has arrived."""

    def skip(self, size: int) -> None:
        """Go on by `size` bytes, which were sent."""

    def call_when_more(self, callback: Callback) -> None:
        """Call `callback` once, in any thread, when the file is no longer starved."""

    def forget(self, callback: Callback) -> None:
        """Cancel this call."""

    def close(self) -> None:
        """Release the file, because no more of it is wanted."""


class AnswerWait:
    """How long one request has waited for its answer."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._seconds: float | None = None
        self._awaited: object | None = None

    def begin(self, later: Later) -> None:
        """Begin to wait, or wait again."""
        self._awaited, self._seconds = later.awaited, later.seconds
        if self._since is None:
            self._since = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether the request has waited too long."""
        return self._since is not None and self.left < 0

    @property
    def left(self) -> float:
        """For how many seconds it may still wait."""
        waited = 0.0 if self._since is None else time.monotonic() - self._since
        return (_LONGEST_WAIT if self._seconds is None else self._seconds) - waited

    def so_far(self) -> Waiting:
        """What the application gets to know."""
        return Waiting(self._awaited, self.is_over)
