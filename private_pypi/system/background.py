"""Threads beside those of requests: calls that are waited for only so long, and pools.

None of these threads keeps the process from ending, so that a server whose storage hangs can be
stopped. Nothing here knows what a storage is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

from private_pypi.errors import BackendError, BackendUnavailable, PrivatePypiError

_log = logging.getLogger(__name__)

_MOST_QUEUED = 1_000  # calls that were begun and have no thread yet
_LINGER_SECONDS = 5.0  # for which a thread waits for another call
_OVERDUE_SECONDS = 0.1  # the longest wait for a call that another caller has given up

T = TypeVar("T")
P = ParamSpec("P")


class StillRunning(BackendUnavailable):
    """The call goes on. Asking again later gives its result, or finds what it has left behind."""


class NotStarted(BackendUnavailable):
    """No thread was free for the call, and none would be if it were made again at once."""


class Pending:
    """A call that runs. Nobody holds a thread to wait for it; `Background.result` gives its end."""

    def __init__(self, future: Future[Any], give_up: Callable[[], object]) -> None:
        self._future = future
        self.give_up = give_up
        """Waits no longer: `Background.result` then waits for the call only for a moment."""
        self._forgotten: set[Callable[[], object]] = set()

    def call_when_over(self, callback: Callable[[], object]) -> None:
        """Call `callback` once when the call is over: at once, or later in another thread.

        It must not block.
        """
        self._future.add_done_callback(
            lambda _: None if callback in self._forgotten else callback()
        )

    def forget(self, callback: Callable[[], object]) -> None:
        """Do not call `callback` any more. It may be running at this moment."""
        self._forgotten.add(callback)


class Background:
    """Runs calls in threads of its own, at most `most` at a time. Equal calls are run once."""

    def __init__(self, name: str, *, most: int) -> None:
        """`name` is used in messages. Nothing is started yet."""
        self._name = name
        self._most = most
        self._calls: dict[Hashable, Future[Any]] = {}  # those that run
        self._overdue: set[Future[Any]] = set()  # those of them that some caller has given up
        # Threads stay for a moment: what they have opened, such as databases, is used again.
        self._queue: deque[tuple[Hashable, Future[Any], Callable[[], Any]]] = deque()
        self._threads = 0
        self._idle = 0  # those of them that wait for the queue
        lock = threading.Lock()  # guards all of these
        self._changed = threading.Condition(lock)
        self._queued = threading.Condition(lock)
        self._closed = threading.Event()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called. Long calls check it between two steps."""
        return self._closed.is_set()

    def result(self, key: Hashable, call: Callable[[], T], *, wait: float) -> T:
        """What the running call with this key returns or raises; if none is running, `call` is run.

        Raises `StillRunning` if that takes longer than `wait` seconds, and `NotStarted` if too many
        other calls run all that time. A call that another caller has given up is waited for only a
        moment, so that a storage that hangs does not hold all threads of the server.
        """
        deadline = time.monotonic() + wait
        with self._changed:
            future = self._joined(key, call, deadline, most=self._most)
            is_overdue = future in self._overdue
        seconds = max(0.0, deadline - time.monotonic())
        try:
            result: T = future.result(min(seconds, _OVERDUE_SECONDS) if is_overdue else seconds)
        except TimeoutError:  # of this wait, because errors of a call are always `PrivatePypiError`
            self._give_up(key, future)
            raise StillRunning(
                f"{self._name}: the storage did not answer within {wait:g} seconds", retry_after=5
            ) from None
        return result

    def begin(self, key: Hashable, call: Callable[[], object]) -> Pending | None:
        """Begin a call, or join the one with this key, without waiting.

        If no thread is free, the call runs when one is. None: too many calls wait for that, or all
        threads hang. Once the call is over, what it leaves behind is there: its result is not kept.
        """
        try:
            with self._changed:
                future = self._joined(key, call, time.monotonic(), most=self._most + _MOST_QUEUED)
        except NotStarted:
            return None
        return Pending(future, partial(self._give_up, key, future))

    def _give_up(self, key: Hashable, future: Future[Any]) -> None:
        with self._changed:
            if self._calls.get(key) is future:
                self._overdue.add(future)

    def close(self, timeout: float = 5.0) -> None:
        """Start no more calls, and wait at most `timeout` seconds for those that run."""
        self._closed.set()
        with self._changed:
            dropped = [future for _, future, _ in self._queue]
            for key, _, _ in self._queue:
                del self._calls[key]
            self._queue.clear()
            self._changed.notify_all()
            self._queued.notify_all()  # idle threads end
        for future in dropped:
            future.set_exception(NotStarted("the server is stopping"))
        with self._changed:
            self._changed.wait_for(lambda: not self._calls, timeout)

    def _joined(
        self, key: Hashable, call: Callable[[], Any], deadline: float, *, most: int
    ) -> Future[Any]:
        """The running or queued call of this key; it is queued if fewer than `most` are."""
        while True:
            future = self._calls.get(key)
            if future is not None:
                return future
            if self.is_closed:
                raise NotStarted("the server is stopping")
            all_hang = len(self._overdue) >= self._most
            if len(self._calls) < most and not all_hang:
                future = self._calls[key] = Future()
                self._queue.append((key, future, call))
                if len(self._queue) <= self._idle:
                    self._queued.notify()
                elif self._threads < self._most:
                    self._threads += 1
                    threading.Thread(target=self._work, name=self._name, daemon=True).start()
                return future
            if all_hang or not self._changed.wait(deadline - time.monotonic()):
                raise NotStarted(
                    f"{self._name}: too many requests to the storage at a time", retry_after=5
                )

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._queue and not self.is_closed:
                    self._idle += 1
                    self._queued.wait(_LINGER_SECONDS)
                    self._idle -= 1
                if not self._queue:
                    self._threads -= 1
                    return
                key, future, call = self._queue.popleft()
            self._run(key, future, call)
            del future, call  # so that an idle thread keeps nothing in memory

    def _run(self, key: Hashable, future: Future[Any], call: Callable[[], Any]) -> None:
        try:
            end = partial(future.set_result, call())
        except PrivatePypiError as error:
            end = partial(future.set_exception, error)
        except BaseException as error:  # else the call would seem to run for ever
            _log.exception("%s: a call failed", self._name)
            end = partial(
                future.set_exception, BackendError(f"internal error ({type(error).__name__})")
            )
        # The call is forgotten before its result is given, so that a caller who then asks again
        # does not get the same result once more.
        with self._changed:
            del self._calls[key]
            self._overdue.discard(future)
            self._changed.notify_all()
        end()


class DaemonThreads(Executor):
    """Like `ThreadPoolExecutor`, but its threads end after a while without anything to do.

    It need not be shut down, and a process that ends does not wait for it.
    """

    def __init__(self, most: int, name: str) -> None:
        """At most `most` threads, called `name`. Nothing is started yet."""
        self._most = most
        self._name = name
        self._threads: set[threading.Thread] = set()
        self._tasks: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._idle = 0  # threads that wait for a task
        self._is_closed = False
        self._changed = threading.Condition()  # guards all of these

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function soon. Tasks are begun in the order in which they were submitted."""
        future: Future[T] = Future()
        with self._changed:
            if self._is_closed:
                raise RuntimeError("no task can be submitted after `shutdown`")
            self._tasks.append((future, partial(fn, *args, **kwargs)))
            if len(self._tasks) <= self._idle:
                self._changed.notify()
            elif len(self._threads) < self._most:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._threads.add(thread)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks, and end after those that were submitted."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            if cancel_futures:
                for future, _ in self._tasks:
                    future.cancel()
            threads = list(self._threads) if wait else []
        for thread in threads:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._tasks and not self._is_closed:
                    self._idle += 1
                    self._changed.wait(_LINGER_SECONDS)
                    self._idle -= 1
                if not self._tasks:
                    self._threads.discard(threading.current_thread())
                    return
                future, call = self._tasks.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    result = call()
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del future, call  # so that an idle thread keeps nothing in memory
