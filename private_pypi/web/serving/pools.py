"""Threads that keep apart what waits for others and what does not; they know no HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from waitress.task import ThreadedTaskDispatcher

if TYPE_CHECKING:
    from private_pypi.web.serving.channel import Channel


class Pool(ThreadedTaskDispatcher):  # type: ignore[misc]
    """waitress' threads, without its warning for every task that has to wait."""

    def add_task(self, task: Any) -> None:
        with self.lock:
            self.queue.append(task)
            self.queue_cv.notify()

    @property
    def busy(self) -> int:
        """How many tasks wait or are being done."""
        with self.lock:
            return len(self.queue) + int(self.active_count)


class Pools:
    """What may wait for somebody never takes the thread of what does not."""

    def __init__(self, apart: Callable[[str], bool]) -> None:
        self._apart = apart
        self._pages = Pool()  # GET and HEAD
        self._files = Pool()  # those that are apart
        self.writes = Pool()  # other methods, bodies, and the gate
        self.receiving = Pool()  # from sockets into files, in small steps
        self.sending = Pool()  # from files into sockets, likewise

    def start(self, threads: int) -> None:
        for pool in self._all:
            pool.set_thread_count(threads)

    def stop(self) -> None:
        for pool in self._all:
            pool.set_thread_count(0)

    @property
    def busy(self) -> bool:
        return any(pool.busy for pool in self._all)

    def add_task(self, channel: Channel) -> None:
        """waitress' way to say that the first request of a channel is to be answered."""
        request = channel.requests[0]
        if request.command not in ("GET", "HEAD") or request.body_rcv is not None:
            self.writes.add_task(channel)
        elif self._apart(request.path):
            self._files.add_task(channel)
        else:
            self._pages.add_task(channel)

    @property
    def requests(self) -> int:
        """How many requests wait for a thread, or are in one."""
        return self._pages.busy + self._files.busy + self.writes.busy

    @property
    def _all(self) -> tuple[Pool, ...]:
        return (self._pages, self._files, self.writes, self.receiving, self.sending)
