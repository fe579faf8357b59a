"""The parent of several worker processes: starts them, replaces those that die, and ends them.

It knows no engine: a worker process runs a function that serves on listening sockets. The parent
opens these before, so connections that wait to be accepted are not lost with a worker that dies:
they wait in the kernel, and another worker accepts them.

Worker processes are forked, and not started anew, because they then begin to serve without
importing anything, and share the memory of what the parent has imported: a worker took 20 MiB,
instead of 45 MiB for a process that was started anew, and a killed one was replaced within 50 ms.
This is safe because the parent has one thread only, and does nothing but wait: the storages,
databases and threads of a server are opened by each worker.

A worker is told to end by a pipe that the parent closes. The kernel closes it as well if the parent
is killed, so no worker goes on without a parent. No signal is passed on: a terminal and systemd
send theirs to all processes at once, and the second signal would end a worker in mid-request.

In a container, the parent is usually the first process, so what a killed worker had started becomes
its child when it ends. As an init system does, the parent then takes its exit status, because the
process would stay in the table of the kernel otherwise.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess

from private_pypi.errors import ConfigurationError, PrivatePypiError
from private_pypi.web.serving.stopping import SIGNALS, Stop, stopped_by_signals

logger = logging.getLogger(__name__)

Run = Callable[[int, Sequence[socket.socket], Stop, Callable[[], None]], None]
"""Serves in a worker process: `run(number, sockets, stop, on_serving)`.

The number of the worker begins at 1, and a worker that replaces another one has the same. `run`
accepts connections from the sockets, which listen already. It calls `on_serving` once it does, and
returns when the stop is requested and all requests are answered. It runs in the main thread of its
process, and the signals that end a server request the stop too. It raises `PrivatePypiError` if it
cannot begin to serve.
"""

DRAIN_SECONDS = 38.0  # for workers to end: 30 for open requests, and some to stop what runs
_SHORT_LIFE = 60.0  # seconds; a worker that dies earlier is replaced after a pause
_LONGEST_PAUSE = 60.0  # seconds
_REAP_SECONDS = 60.0  # after which the parent looks for processes of dead workers that have ended


def supervise(
    run: Run,
    sockets: Sequence[socket.socket],
    count: int,
    *,
    on_serving: Callable[[], None],
    on_end: Callable[[int], None] = lambda number: None,
    stop_seconds: float = DRAIN_SECONDS,
) -> None:
    """Have `count` worker processes serve until a signal that ends a server (`stopping`).

    Closes the sockets. `on_serving` is called once, when the first worker serves, and `on_end` with
    the number of each worker that died and is to be replaced. Raises `ConfigurationError` if no
    worker can begin to serve, with the problems that a worker has told, and `PrivatePypiError` if
    workers had to be killed because they did not end. The second signal kills them at once. Must be
    called in the main thread of a process that has no other threads.
    """
    gc.collect()
    gc.freeze()  # else the first collection in each worker would copy all memory that it shares
    parent = _Parent(run, sockets, count, on_serving, on_end)
    try:
        with stopped_by_signals(parent.stop, before_the_end=parent.kill):
            parent.watch()
            parent.end(stop_seconds)
    finally:
        parent.close()
        gc.unfreeze()


@dataclass
class _Worker:
    """A worker process, or the place of one that is to be started."""

    number: int
    process: ForkProcess | None = None
    said: Connection | None = None  # which gets one message: None when it serves, or its problems
    started_at: float = 0.0
    due_at: float = 0.0  # when to start a process if there is none
    short_lives: int = 0  # of processes that died soon, one after the other


class _Parent:
    def __init__(
        self,
        run: Run,
        sockets: Sequence[socket.socket],
        count: int,
        on_serving: Callable[[], None],
        on_end: Callable[[int], None],
    ) -> None:
        self._run = run
        self._sockets = sockets
        self._workers = [_Worker(number) for number in range(1, count + 1)]
        self._on_serving = on_serving
        self._on_end = on_end
        self._is_serving = False  # whether any worker has ever served
        self._context = multiprocessing.get_context("fork")
        self.stop = Stop()
        self._woken, self._wakes = os.pipe()
        # No other process has the write end, so the kernel closes it when this process ends.
        self._gone, self._here = os.pipe()
        self.stop.wakes(self._wake)

    def _wake(self) -> None:
        os.write(self._wakes, b".")

    def watch(self) -> None:
        """Start workers, and replace those that die, until the stop is requested."""
        while not self.stop.requested:
            now = time.monotonic()
            for worker in self._workers:
                if worker.process is None and worker.due_at <= now:
                    self._start(worker)
            self._wait()
            for worker in self._workers:
                self._hear(worker)
                if worker.process is not None and not worker.process.is_alive():
                    self._died(worker, worker.process)
            self._reap_orphans()

    def end(self, seconds: float) -> None:
        """Have all workers end. Raises `PrivatePypiError` if some do not within `seconds`."""
        # So that new connections are refused as soon as no worker accepts any more. Otherwise they
        # would wait for this process.
        self._close_sockets()
        os.close(self._here)
        self._here = -1
        deadline = time.monotonic() + seconds
        while alive := self._alive():
            left = deadline - time.monotonic()
            if left <= 0:
                self.kill()
                names = ", ".join(f"{each.number} (process {_pid(each)})" for each in alive)
                raise PrivatePypiError(
                    f"workers that did not end within {seconds:g} seconds were killed: {names}"
                )
            wait([worker.process.sentinel for worker in alive if worker.process], left)

    def kill(self) -> None:
        """Kill all workers that still run."""
        for worker in self._alive():
            assert worker.process is not None
            worker.process.kill()
            worker.process.join()

    def close(self) -> None:
        """End what was not ended, after an error."""
        self.kill()
        self._close_sockets()
        self.stop.wakes(None)
        for descriptor in (self._woken, self._wakes, self._gone, self._here):
            if descriptor >= 0:
                os.close(descriptor)

    def _close_sockets(self) -> None:
        for each in self._sockets:
            each.close()

    def _alive(self) -> list[_Worker]:
        return [each for each in self._workers if each.process and each.process.is_alive()]

    def _wait(self) -> None:
        """Wait until a worker says something, dies or is due, or the stop is requested.

        Returns after a minute in any case.
        """
        now = time.monotonic()
        latest = now + _REAP_SECONDS
        watched: list[Connection | int] = [self._woken]
        due = []
        for worker in self._workers:
            if worker.process is None:
                due.append(worker.due_at)
            else:
                watched.append(worker.process.sentinel)
            if worker.said is not None:
                watched.append(worker.said)
        wait(watched, max(0.0, min([*due, latest]) - now))

    def _reap_orphans(self) -> None:
        """Take the exit status of children that are not workers."""
        if not hasattr(os, "waitid"):  # macOS, where this is never the first process
            return
        own = {_pid(worker) for worker in self._workers}
        with contextlib.suppress(ChildProcessError):  # there are no children
            # One that is a worker is left to `watch`, which comes here again afterwards.
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if found.si_pid in own:
                    return
                os.waitpid(found.si_pid, 0)

    # -- one worker ------------------------------------------------------------------------------

    def _start(self, worker: _Worker) -> None:
        said, says = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=self._work, args=(worker.number, says), name=f"worker {worker.number}"
        )
        # A signal that arrives before the worker has its own handlers must not run those of the
        # parent there.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            process.start()
        except OSError as error:  # the system has no memory or no process left
            said.close()
            problem = f"no process can be started for worker {worker.number}: {error.strerror}"
            if not self._is_serving:
                raise PrivatePypiError(problem) from error
            logger.error("%s", problem)
            worker.due_at = time.monotonic() + self._pause(worker, 0.0)
            return
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            says.close()
        worker.process, worker.said = process, said
        worker.started_at = time.monotonic()
        logger.info("worker %d is process %d", worker.number, process.pid)

    def _work(self, number: int, says: Connection) -> None:
        """What a worker process does."""
        os.close(self._here)
        stop = Stop()
        with stopped_by_signals(stop):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            waits = partial(_stop_with_parent, self._gone, stop)
            threading.Thread(target=waits, name="parent", daemon=True).start()
            try:
                self._run(number, self._sockets, stop, partial(_say, says, None))
            except PrivatePypiError as error:
                problems = error.problems if isinstance(error, ConfigurationError) else [str(error)]
                _say(says, problems)
                sys.exit(1)

    def _hear(self, worker: _Worker) -> None:
        if worker.said is None or not worker.said.poll():
            return
        try:
            problems = worker.said.recv()
        except EOFError:  # it died, which is noticed by itself
            problems = []
        worker.said.close()
        worker.said = None
        if problems is None:
            if not self._is_serving:
                self._is_serving = True
                self._on_serving()
        elif problems and not self._is_serving:
            raise ConfigurationError(*problems)
        else:
            for problem in problems:
                logger.error("worker %d cannot serve: %s", worker.number, problem)

    def _died(self, worker: _Worker, process: ForkProcess) -> None:
        process.join()
        self._hear(worker)  # why it ended, if it said so at last
        code, pid = process.exitcode, process.pid
        process.close()
        worker.process = None
        self._on_end(worker.number)
        if not self._is_serving:
            raise PrivatePypiError(f"worker {worker.number} {_end(code)} before it could serve")
        now = time.monotonic()
        pause = self._pause(worker, now - worker.started_at)
        worker.due_at = now + pause
        logger.log(
            logging.INFO if code == 0 else logging.ERROR,
            "worker %d (process %s) %s; it is replaced%s",
            *(worker.number, pid, _end(code), f" in {pause:g} seconds" if pause else ""),
        )

    @staticmethod
    def _pause(worker: _Worker, lived: float) -> float:
        """Seconds until a worker is replaced: none for the first time, then 1, 2, 4…"""
        worker.short_lives = worker.short_lives + 1 if lived < _SHORT_LIFE else 0
        doublings = worker.short_lives - 2
        return min(_LONGEST_PAUSE, 2.0 ** min(doublings, 10)) if doublings >= 0 else 0.0


def _pid(worker: _Worker) -> int | None:
    return worker.process.pid if worker.process else None


def _end(code: int | None) -> str:
    """How a process ended."""
    if code is not None and code < 0:
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"
    return f"ended with status {code}"


def _say(says: Connection, problems: Sequence[str] | None) -> None:
    with contextlib.suppress(OSError):  # the parent has died
        says.send(problems)


def _stop_with_parent(gone: int, stop: Stop) -> None:
    os.read(gone, 1)  # nothing is ever written, so this returns when the parent closes its end
    stop.request()
