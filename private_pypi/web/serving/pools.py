"""Pools of threads for work that may have to wait.

There is a pool for each kind of work, and each pool divides its threads between the repositories.
If the storage of one repository hangs, only the threads of its share wait for it. This module knows
nothing of HTTP.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from private_pypi.web.serving.gate import Kind

logger = logging.getLogger(__name__)

_SHARES = 4  # how many of them can use all of their threads at the same time

Work = Callable[[], object]
"""A piece of work: a pool calls it once in one of its threads."""


class Pool:
    """Runs work in threads, which it starts when they are needed.

    Each piece of work belongs to a *share*. At most `threads` pieces of one share run at a time,
    and at most four times as many in all. A free thread takes the oldest work of the share that
    has the fewest pieces running.
    """

    def __init__(self, name: str) -> None:
        """`name` is used for the threads. Nothing runs before `start`."""
        self._name = name
        self._threads = 0  # of one share
        self._started = 0
        self._changed = threading.Condition()  # guards everything here
        self._idle = 0
        # Both only contain shares that have work waiting or running. In _waiting, the share of
        # which work was taken last is at the end.
        self._waiting: dict[str, deque[Work]] = {}
        self._running: dict[str, int] = {}

    def start(self, threads: int) -> None:
        """Allow this many threads for each share."""
        with self._changed:
            self._threads = threads

    def stop(self) -> None:
        """Begin no more work, and end the threads."""
        with self._changed:
            self._threads = self._idle = 0
            self._changed.notify_all()

    def add(self, work: Work, share: str = "") -> None:
        """Run this in a thread, as soon as one is free for this share."""
        with self._changed:
            self._waiting.setdefault(share, deque()).append(work)
            if self._idle:
                self._idle -= 1  # here, because more work may be added before the thread wakes up
                self._changed.notify()
            elif self._started < self._threads * _SHARES and self._next_share() is not None:
                self._started += 1
                name = f"{self._name}-{self._started}"
                threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def busy(self) -> int:
        """How many pieces of work wait or run."""
        with self._changed:
            return sum(map(len, self._waiting.values())) + sum(self._running.values())

    def _run(self) -> None:
        with self._changed:
            while self._threads:
                share = self._next_share()
                if share is None:
                    self._idle += 1
                    self._changed.wait()
                    continue
                work = self._take(share)
                self._changed.release()
                try:
                    work()
                except Exception:
                    logger.exception("%s: %r failed", self._name, work)
                finally:
                    del work  # so that a waiting thread does not keep a request in memory
                    self._changed.acquire()
                    self._ended(share)

    def _next_share(self) -> str | None:
        """The share whose work is to run next; None if no work may begin."""
        free = [share for share in self._waiting if self._running.get(share, 0) < self._threads]
        return min(free, key=lambda share: self._running.get(share, 0), default=None)

    def _take(self, share: str) -> Work:
        self._running[share] = self._running.get(share, 0) + 1
        queue = self._waiting.pop(share)
        work = queue.popleft()
        if queue:
            self._waiting[share] = queue  # at the end
        return work

    def _ended(self, share: str) -> None:
        left = self._running.pop(share) - 1
        if left:
            self._running[share] = left


class Pools:
    """The pools of a server, one for each kind of work."""

    def __init__(self) -> None:
        self.deciding = Pool("deciding")  # calls the gate for requests with a body
        self.writing = Pool("writing")  # calls the application for requests that change something
        self.receiving = Pool("receiving")  # writes forms from sockets into files, in small steps
        self.sending = Pool("sending")  # sends from files into sockets, in small steps
        self._reading = {kind: Pool(kind.name.lower()) for kind in Kind}

    def start(self, threads: int) -> None:
        """Allow this many threads for each share of each pool."""
        for pool in self._all:
            pool.start(threads)

    def stop(self) -> None:
        """Begin no more work."""
        for pool in self._all:
            pool.stop()

    @property
    def busy(self) -> bool:
        """Whether any work waits for a thread or runs in one."""
        return any(pool.busy for pool in self._all)

    def reading(self, kind: Kind) -> Pool:
        """The pool that calls the application for a GET or HEAD of this kind."""
        return self._reading[kind]

    @property
    def requests(self) -> int:
        """How many requests wait for a thread or are in one."""
        answering = (self.deciding, self.writing, *self._reading.values())
        return sum(pool.busy for pool in answering)

    @property
    def _all(self) -> tuple[Pool, ...]:
        own = (self.deciding, self.writing, self.receiving, self.sending)
        return (*own, *self._reading.values())
