"""What the storage said a secret may do, believed for a while; it knows no storage itself."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from private_pypi.backend import Access
from private_pypi.background import Background
from private_pypi.errors import BackendUnavailable

REFUSAL_EXPIRES = 10.0
"""Seconds for which a wrong secret is remembered: long enough to cost nothing, short enough for a
secret that was just added."""

_MAX_VERDICTS = 10_000
_MAX_ASKING = 3  # threads of one repository that may wait for a verdict of its storage at a time
_ASKING_SECONDS = 0.5  # for which a further thread waits for one of these to be done
_HANGING_SECONDS = 2.0  # for which none waits after that was in vain


@dataclass(frozen=True, slots=True)
class Expiry:
    """For how long a verdict of the storage is believed."""

    read: timedelta
    write: timedelta


class Asked(NamedTuple):
    """What a verdict is about."""

    secret: bytes  # a hash, so that no secret stays in memory for its own sake
    project: str | None  # None: the repository


@dataclass(frozen=True, slots=True)
class _Verdict:
    access: Access
    checked_at: float  # time.monotonic()


class Verdicts:
    """The verdicts of one repository's storage; safe for many threads, bounded."""

    def __init__(
        self,
        name: str,
        expiry: Expiry,
        *,
        background: Background | None = None,
        wait: float = 5.0,
    ) -> None:
        """`name` is that of the repository. With `background`, the storage is asked there, and
        waited for at most `wait` seconds; equal questions are one.
        """
        self._name = name
        self._expiry = expiry
        self._background = background
        self._wait = wait
        self._verdicts: OrderedDict[Asked, _Verdict] = OrderedDict()
        self._lock = threading.Lock()  # guards _verdicts
        self._asking = threading.BoundedSemaphore(_MAX_ASKING)
        self._hanging_until = 0.0  # time.monotonic()

    def access(self, asked: Asked, need: Access, ask: Callable[[], Access] | None) -> Access:
        """The verdict, for which the storage is asked at most once while it is fresh enough.

        `ask=None`: `BackendUnavailable` when it is not.
        """
        verdict = self._fresh(asked, need)
        if verdict is None:
            if ask is None:
                raise BackendUnavailable("the verdict of the storage is not known")
            if self._background is None:
                verdict = self._ask_in_turn(asked, need, ask)
            else:
                verdict = self._background.result(
                    ("access", self._name, asked),
                    lambda: self._fresh(asked, need) or self._ask(asked, ask),
                    wait=self._wait,
                )
        return verdict.access

    def forget(self, secret: bytes) -> None:
        """The storage has ceased to accept a secret: nothing that it said of it holds any more."""
        with self._lock:
            for asked in [each for each in self._verdicts if each.secret == secret]:
                del self._verdicts[asked]

    def forget_project(self, asked: Asked) -> None:
        """The storage has ceased to show a project: the next one asks what holds now."""
        with self._lock:
            self._verdicts.pop(asked, None)

    def _fresh(self, asked: Asked, need: Access) -> _Verdict | None:
        with self._lock:
            verdict = self._verdicts.get(asked)
            if verdict is None:
                return None
            self._verdicts.move_to_end(asked)
        age = time.monotonic() - verdict.checked_at
        if verdict.access < need:
            return verdict if age < REFUSAL_EXPIRES else None
        expires = self._expiry.write if need is Access.WRITE else self._expiry.read
        return verdict if age < expires.total_seconds() else None

    def _ask_in_turn(self, asked: Asked, need: Access, ask: Callable[[], Access]) -> _Verdict:
        # A storage that hangs may hold a few threads, never all of them: also waiting for those
        # few is not for everybody.
        is_hanging = time.monotonic() < self._hanging_until
        if not self._asking.acquire(timeout=0 if is_hanging else _ASKING_SECONDS):
            if not is_hanging:
                self._hanging_until = time.monotonic() + _HANGING_SECONDS
            raise BackendUnavailable(
                f"the storage of repository {self._name!r} answers too slowly", retry_after=2
            )
        try:
            verdict = self._fresh(asked, need)  # asked by another thread meanwhile?
            if verdict is None:
                verdict = self._ask(asked, ask)
                self._hanging_until = 0.0
            return verdict
        finally:
            self._asking.release()

    def _ask(self, asked: Asked, ask: Callable[[], Access]) -> _Verdict:
        asked_at = time.monotonic()
        verdict = _Verdict(ask(), asked_at)
        with self._lock:
            self._verdicts[asked] = verdict
            self._verdicts.move_to_end(asked)
            while len(self._verdicts) > _MAX_VERDICTS:
                self._verdicts.popitem(last=False)
        return verdict
