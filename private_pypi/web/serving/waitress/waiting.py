"""Requests that wait without a thread, and files that still arrive, on a connection of waitress."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from waitress.buffers import ReadOnlyFileBasedBuffer

from private_pypi.web.serving.gate import Answer
from private_pypi.web.serving.growing import Callback, GrowingFile, Later

if TYPE_CHECKING:
    from private_pypi.web.serving.waitress.channel import Channel

logger = logging.getLogger(__name__)


class GrowingBuffer(ReadOnlyFileBasedBuffer):  # type: ignore[misc]
    """A `GrowingFile` as an output buffer of waitress. Its length is all that is to be sent."""

    def __init__(self, file: GrowingFile, channel: Channel) -> None:
        self._growing = file
        self._call = partial(_wake, channel, None)  # kept, because `forget` needs the same object

    @property
    def is_starved(self) -> bool:
        return self._growing.is_starved

    @property
    def is_broken(self) -> bool:
        return self._growing.is_broken

    def prepare(self, size: int | None = None) -> int:
        return len(self)

    def get(self, numbytes: int = -1, skip: bool = False) -> bytes:
        found = self._growing.peek(len(self) if numbytes < 0 else numbytes)
        if skip:
            self._growing.skip(len(found))
        if not found:
            self._growing.forget(self._call)
            self._growing.call_when_more(self._call)
        return found

    def skip(self, numbytes: int, allow_prune: bool = False) -> None:
        self._growing.skip(numbytes)

    def close(self) -> None:
        self._growing.forget(self._call)
        self._growing.close()

    def __len__(self) -> int:
        return len(self._growing)


def _wake(channel: Channel, call: Callback | None) -> None:
    """Have the loop make a call and look at the channel again."""
    # Once a connection is closed, its server may be gone too, with the trigger.
    if channel.connected:
        channel.server.trigger.pull_trigger(call)


def wrapper_for(channel: Channel) -> Callable[..., Any]:
    """The `wsgi.file_wrapper` for the answers on this channel."""

    def wrap(file: Any, block_size: int = 32768) -> Any:
        if isinstance(file, GrowingFile):
            return GrowingBuffer(file, channel)
        return ReadOnlyFileBasedBuffer(file, block_size)

    return wrap


class Parked:
    """A request that waits for its answer without a thread."""

    def __init__(self, channel: Channel, later: Later) -> None:
        self._channel = channel
        self._later = later
        self._call = self._ready  # kept, because `forget` needs the same object
        self.answer: Answer | None = None
        """What was prepared while it waited."""

    def begin(self) -> None:
        """Have the loop resume the request when the application may be able to answer."""
        self._later.call_when_ready(self._call)

    def end(self) -> None:
        """Stop waiting; for the loop."""
        self._later.forget(self._call)

    def drop(self) -> None:
        """Release what was prepared, because it is not sent."""
        answer, self.answer = self.answer, None
        if answer is not None and answer.rest is not None:
            answer.rest.close()

    def _ready(self) -> None:
        if self._later.prepare is not None and self._channel.connected:
            try:
                self.answer = self._later.prepare()
            except Exception:
                logger.exception("an answer could not be prepared")
        if self._channel.connected:
            _wake(self._channel, partial(self._channel.resume, self))
        else:
            self.drop()
