"""How long the server waits for a client, and which connections it closes when there are too many.

A client is *let in* when a secret that it sent was accepted. All other clients are *strangers*:
they get less time, and only they lose their connections when there are too many. This module
knows neither sockets nor the server, and gets all times as seconds of the monotonic clock.
"""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol, TypeVar

LOWEST_RATE = 2048
"""The slowest transfer that is accepted, in bytes per second. GPRS (20 kbit/s) is faster."""

HEAD_SECONDS = 30.0  # from the first byte of a request to the end of its head
STRANGER_SECONDS = 30.0  # over which the transfer rate of a stranger is measured
DISCARDED_SECONDS = 300.0  # for the rest of a refused body; enough for 1 GiB at 30 Mbit/s
LINGER_SECONDS = 5.0  # over which the rate of this rest is measured, once the answer was sent
FRESH_SECONDS = 2.0  # in which a new connection is not yet closed for being idle

MOST_HELD = 64 * 2**20
"""The most memory that the heads and bodies of strangers' requests may take together, in bytes."""


class Stage(enum.Enum):
    """What a connection waits for."""

    IDLE = enum.auto()  # the client has not begun a request
    HEAD = enum.auto()  # the client has to send the rest of the head of a request
    BODY = enum.auto()  # the client has to send the rest of a body
    DISCARDING = enum.auto()  # the same, but the body is dropped and then answered with an error
    SENDING = enum.auto()  # the client has to take the answer
    LINGERING = enum.auto()  # the answer was sent, and the client may still be sending a body
    SERVER = enum.auto()  # the gate, a disk or the application


class TimeLimits(NamedTuple):
    """How long the client may take in a stage."""

    longest: float = math.inf  # seconds for the whole stage
    window: float = math.inf  # seconds over which the transfer rate is measured


def time_limits(stage: Stage, *, let_in: bool, timeout: float) -> TimeLimits:
    """The limits of a stage.

    `timeout` is the option `channel_timeout`: for how many seconds a client may be silent.
    """
    window = timeout if let_in else min(timeout, STRANGER_SECONDS)
    match stage:
        case Stage.IDLE:
            return TimeLimits(longest=timeout)
        case Stage.HEAD:
            return TimeLimits(longest=min(timeout, HEAD_SECONDS))
        case Stage.BODY:
            return TimeLimits(window=window)
        case Stage.DISCARDING:
            # A client that was let in gets to know what was wrong, however slow its line is.
            return TimeLimits(math.inf if let_in else DISCARDED_SECONDS, window)
        case Stage.SENDING:
            # Strangers get the full time here, because they may read public repositories over a
            # slow line. When there are too many connections, `order_for_closing` decides.
            return TimeLimits(window=timeout)
        case Stage.LINGERING:
            return TimeLimits(DISCARDED_SECONDS, min(window, LINGER_SECONDS))
        case Stage.SERVER:
            return TimeLimits()


class Progress:
    """The stage that a connection is in, since when, and how fast its bytes move."""

    def __init__(self, now: float) -> None:
        self.stage = Stage.IDLE
        self.since = now
        self._request = 0
        self._window_began = now
        self._window_moved = 0
        self._moved = 0
        self._moved_at = now

    def observe(self, stage: Stage, request: int, moved: int, now: float) -> None:
        """Note the state of the connection.

        `request` is the number of its present request, because each request has stages of its own.
        `moved` is how many bytes the client has sent and taken since it connected.
        """
        if (stage, request) != (self.stage, self._request):
            self.stage, self._request = stage, request
            self.since = self._window_began = self._moved_at = now
            self._moved = self._window_moved = moved
        elif moved != self._moved:
            self._moved, self._moved_at = moved, now

    def is_idle(self, now: float, seconds: float) -> bool:
        """Whether there was no request, and no byte of one, for so many seconds."""
        return self.stage is Stage.IDLE and now - self._moved_at > seconds

    def is_over(self, limits: TimeLimits, now: float) -> bool:
        """Whether the client takes too long; to be called about once a second."""
        if now - self.since > limits.longest or now - self._moved_at > limits.window:
            return True
        elapsed = now - self._window_began
        if elapsed < limits.window:
            return False
        is_slow = self._moved - self._window_moved < LOWEST_RATE * elapsed
        self._window_began, self._window_moved = now, self._moved
        return is_slow


class Connection(Protocol):
    """What this module has to know of a connection."""

    progress: Progress

    @property
    def address(self) -> str:
        """The host of the other side."""

    @property
    def is_let_in(self) -> bool:
        """Whether the client of the present request was let in."""

    @property
    def held(self) -> int:
        """How much memory the heads and bodies of its requests take, in bytes."""


C = TypeVar("C", bound=Connection)


def order_for_closing(connections: Iterable[C], most: int, now: float) -> Sequence[C]:
    """The connections that may be closed when all `most` are taken, in the order to close them.

    A connection whose client was let in is never among them. If one address has more than a tenth
    of all connections, only those of such addresses are returned. Idle connections and those that
    were answered come first, then those whose client we wait for, then those that wait for us;
    within each of these groups, the one that has waited longest comes first.
    """
    strangers = [connection for connection in connections if not connection.is_let_in]
    counts = Counter(connection.address for connection in strangers)
    crowded = [each for each in strangers if counts[each.address] > most // 10]
    return sorted(crowded or strangers, key=lambda each: _rank(each.progress, now))


def connections_over_memory(connections: Iterable[C], now: float) -> Sequence[C]:
    """The connections to close so that strangers take at most `MOST_HELD` bytes of memory."""
    holding = [each for each in connections if each.held and not each.is_let_in]
    excess = sum(each.held for each in holding) - MOST_HELD
    closing = []
    if excess > 0:
        for each in sorted(holding, key=lambda each: _rank(each.progress, now)):
            if excess <= 0:
                break
            excess -= each.held
            closing.append(each)
    return closing


def _rank(progress: Progress, now: float) -> tuple[int, float]:
    is_new = now - progress.since < FRESH_SECONDS
    match progress.stage:
        case Stage.IDLE | Stage.LINGERING if not is_new:
            rank = 0
        case Stage.SERVER:
            rank = 2
        case _:
            rank = 1
    return rank, progress.since
