"""Remembers errors of a storage for a few seconds, so that it is not asked again at once."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeVar

from private_pypi.errors import BackendError, BackendUnavailable, PrivatePypiError, fresh
from private_pypi.storage.bounded import mark_used

LEAST = 2.0
"""The shortest time for which an error is remembered, in seconds."""

MOST = 10.0
"""The longest time, in seconds, even if the storage asks for more: it may be repaired sooner."""

_MAX_KEPT = 10_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Kept:
    error: PrivatePypiError
    version: object
    until: float  # time.monotonic()


class RecentTrouble:
    """Errors by the question that the storage was asked; safe for many threads, of limited size.

    If a request leads to the same question twice, or other requests lead to it a moment later, they
    get the error of the first question, which may have been retried. A question contains the key of
    the secret, because another secret may get another answer.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._lock = threading.Lock()  # guards _kept

    def find(self, question: Hashable, version: object = None) -> PrivatePypiError | None:
        """The error of this question, if it is remembered with an equal `version`."""
        with self._lock:
            kept = self._kept.get(question)
        left = 0.0 if kept is None else kept.until - time.monotonic()
        if kept is None or left <= 0 or kept.version != version:
            return None
        return fresh(kept.error)

    def note(
        self,
        question: Hashable,
        error: PrivatePypiError,
        *,
        seconds: float | None = None,
        version: object = None,
    ) -> None:
        """Remember an error for `seconds`; None: for its `retry_after`, from `LEAST` to `MOST`.

        A `retry_after` that is shorter is raised to that time.
        """
        if seconds is None:
            told = error.retry_after if isinstance(error, BackendUnavailable) else 0
            seconds = min(max(LEAST, told), MOST)
        if isinstance(error, BackendUnavailable):
            error.retry_after = max(error.retry_after, math.ceil(seconds))
        with self._lock:
            self._kept[question] = _Kept(fresh(error), version, time.monotonic() + seconds)
            mark_used(self._kept, question, most=_MAX_KEPT)

    def ask(self, question: Hashable, call: Callable[[], T]) -> T:
        """Make a call, unless its last error is remembered; a `BackendError` is remembered."""
        error = self.find(question)
        if error is not None:
            raise error
        try:
            return call()
        except BackendError as met:
            self.note(question, met)
            raise
