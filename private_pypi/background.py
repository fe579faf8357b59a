"""Calls that somebody waits for only so long, and that go on without him; it knows no storage."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from private_pypi.errors import BackendError, BackendUnavailable, PrivatePypiError

_log = logging.getLogger(__name__)

_OVERDUE_SECONDS = 0.5  # for which a call is waited for that somebody gave up already

T = TypeVar("T")


class StillRunning(BackendUnavailable):
    """The call goes on; asking again later finds its result, or what it left behind."""


class NotStarted(BackendUnavailable):
    """There was no thread for the call; asking again at once would find none either."""


class Background:
    """Runs calls in threads of its own, at most `most` at a time, equal ones once.

    The threads do not keep a process from ending.
    """

    def __init__(self, name: str, *, most: int) -> None:
        """`name` is shown in messages; nothing is started yet."""
        self._name = name
        self._most = most
        self._calls: dict[Hashable, _Call] = {}
        self._changed = threading.Condition()  # guards _calls
        self._closed = threading.Event()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called; long calls look at it between two steps."""
        return self._closed.is_set()

    def result(self, key: Hashable, call: Callable[[], T], *, wait: float) -> T:
        """What the call under this key returns or raises: the one that runs, else this one.

        Raises `StillRunning` when that takes longer than `wait` seconds, `NotStarted` when too many
        others run all that time. A call that somebody gave up already is waited for only a
        moment, so that a storage that hangs does not hold every thread.
        """
        deadline = time.monotonic() + wait
        with self._changed:
            running = self._joined(key, call, deadline)
        seconds = max(0.0, deadline - time.monotonic())
        if running.is_overdue:
            seconds = min(seconds, _OVERDUE_SECONDS)
        if not running.done.wait(seconds):
            running.is_overdue = True
            raise StillRunning(
                f"{self._name}: the storage did not answer within {wait:g} seconds", retry_after=5
            )
        if running.error is not None:
            raise running.error
        result: T = running.result
        return result

    def close(self, timeout: float = 5.0) -> None:
        """Start nothing any more, and wait at most `timeout` seconds for what runs."""
        self._closed.set()
        deadline = time.monotonic() + timeout
        with self._changed:
            running = list(self._calls.values())
            self._changed.notify_all()
        for call in running:
            call.done.wait(max(0.0, deadline - time.monotonic()))

    def _joined(self, key: Hashable, call: Callable[[], Any], deadline: float) -> _Call:
        while True:
            running = self._calls.get(key)
            if running is not None:
                return running
            if self.is_closed:
                raise NotStarted("the server is stopping")
            if len(self._calls) < self._most:
                running = self._calls[key] = _Call()
                threading.Thread(
                    target=self._run, args=(key, running, call), name=self._name, daemon=True
                ).start()
                return running
            is_hanging = all(each.is_overdue for each in self._calls.values())
            if is_hanging or not self._changed.wait(deadline - time.monotonic()):
                raise NotStarted(
                    f"{self._name}: too much is asked of the storage at once", retry_after=5
                )

    def _run(self, key: Hashable, running: _Call, call: Callable[[], Any]) -> None:
        try:
            running.result = call()
        except PrivatePypiError as error:
            running.error = error
        except Exception as error:
            _log.exception("%s: a call failed", self._name)
            running.error = BackendError(f"internal error ({type(error).__name__})")
        finally:
            with self._changed:
                self._calls.pop(key, None)
                self._changed.notify_all()
            running.done.set()


class _Call:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.is_overdue = False
        self.result: Any = None
        self.error: PrivatePypiError | None = None
