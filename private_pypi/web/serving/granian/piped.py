"""Send a long body through a pipe, which granian reads like a file.

A body that is streamed to granian piece by piece would be kept in its memory until the client takes
it. A file is read only as fast as the client takes it, and that is true of a pipe as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import select
from collections.abc import Callable

from private_pypi.errors import ConfigurationError
from private_pypi.web.serving.granian.responding import LARGE, Broken, Response
from private_pypi.web.serving.pools import Work
from private_pypi.web.serving.receiving import READ_SIZE

logger = logging.getLogger(__name__)

_TURN = 4 * 2**20  # bytes that are sent to one client before the next one has its turn
_LARGER_PIPE = 512 * 1024  # bytes
_PATIENCE = 5  # milliseconds for which a worker waits for the pipe, which saves changes of threads


def folder_of_files() -> str:
    """The folder with the open files of this process by number.

    Raises `ConfigurationError` if this process can open none of them again.
    """
    ends = os.pipe()
    try:
        for folder in ("/proc/self/fd", "/dev/fd"):
            with contextlib.suppress(OSError):
                os.close(os.open(f"{folder}/{ends[0]}", os.O_RDONLY | os.O_NONBLOCK))
                return folder
    finally:
        for end in ends:
            os.close(end)
    raise ConfigurationError(
        "--engine granian has to open pipes in /proc/self/fd or /dev/fd, which is not possible "
        "on this system; use --engine waitress"
    )


class Piped:
    """One body on its way. All methods but `_step` run in the loop."""

    def __init__(
        self, response: Response, add: Callable[[Work], None], folder: str, opened: set[Piped]
    ) -> None:
        """`add` runs a piece of work in a thread. The response `is_long`.

        This is in `opened` until both ends of the pipe are closed here.
        """
        # A pipe holds no more than `LARGE`. So granian has opened it when more has been written.
        assert response.size > LARGE
        self._source = response.source
        self._pieces = [memoryview(piece) for piece in reversed(response.pieces)]
        self._add = add
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[bool] = self._loop.create_future()
        self._out, self._in = os.pipe()
        self._opened = opened
        opened.add(self)
        os.set_blocking(self._in, False)
        self.path = f"{folder}/{self._out}"
        """What granian is to open."""
        self._is_stopped = False
        self._call = self._continue_soon  # kept, because `forget` needs the same object
        self.moved = 0
        """Bytes that the pipe took."""
        self.waits_for_client = False
        """Whether the pipe is full."""

    async def send(self) -> bool:
        """Send all of it; returns whether it could be. The rest of the source is released."""
        self._continue()
        try:
            return await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self.stop()
            raise

    def stop(self) -> None:
        """Give up, because the client has gone or the server ends."""
        self._is_stopped = True
        self._continue_soon()

    def _continue_soon(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._continue)

    def _continue(self) -> None:
        if not self._ended.done():
            self._loop.remove_writer(self._in)
            if self._source is not None:
                self._source.forget(self._call)
            self.waits_for_client = False
            self._add(self._step)

    def _wait_for_client(self) -> None:
        self.waits_for_client = True
        if self._is_stopped:
            self._continue()
        else:
            self._loop.add_writer(self._in, self._continue)

    def _wait_for_source(self) -> None:
        if self._is_stopped:
            self._continue()
        elif self._source is not None:
            self._source.call_when_more(self._call)

    def _end(self, is_whole: bool) -> None:
        os.close(self._in)
        self._close_out(is_open=True)
        self._opened.discard(self)
        if not self._ended.done():
            self._ended.set_result(is_whole)

    def _step(self) -> None:
        """Move some of the body into the pipe, in a worker."""
        try:
            then = self._move()
        except Exception:
            logger.exception("the rest of an answer could not be sent")
            then = self._end_with(False)
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(then)

    def _move(self) -> Callable[[], None]:
        """Move some of it; returns what the loop has to do next."""
        turn = _TURN
        while turn > 0:
            if self._is_stopped:
                return self._end_with(False)
            if not self._pieces:
                try:
                    piece = b"" if self._source is None else self._source.read(READ_SIZE)
                except Broken:
                    return self._end_with(False)
                if piece is None:
                    return self._wait_for_source
                if not piece:
                    return self._end_with(True)
                self._pieces = [memoryview(piece)]
            try:
                written = os.write(self._in, self._pieces[-1])
            except BlockingIOError:
                if not _is_writable(self._in, _PATIENCE):
                    return self._wait_for_client
            except BrokenPipeError:
                return self._end_with(False)
            else:
                rest = self._pieces.pop()[written:]
                if rest:
                    self._pieces.append(rest)
                self.moved += written
                self._close_out(is_open=self.moved > LARGE)
                turn -= written
        return self._continue

    def _close_out(self, *, is_open: bool) -> None:
        """Close our copy of the end that granian reads, if granian has opened it.

        As long as there is a copy, nobody notices that granian has closed its own.
        """
        if is_open and self._out >= 0:
            # A larger pipe takes fewer changes of threads. The system may have no room for it.
            with contextlib.suppress(OSError, AttributeError):
                fcntl.fcntl(self._out, fcntl.F_SETPIPE_SZ, _LARGER_PIPE)
            os.close(self._out)
            self._out = -1

    def _end_with(self, is_whole: bool) -> Callable[[], None]:
        self._pieces.clear()
        if self._source is not None:
            self._source.close()
        return lambda: self._end(is_whole)


def _is_writable(descriptor: int, milliseconds: int) -> bool:
    """Whether a pipe takes data or has lost its reader, after waiting for at most so long."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(milliseconds))
