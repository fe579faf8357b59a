"""Divides new connections between worker processes that accept from the same sockets.

The kernel wakes all workers when a connection arrives, and the first one gets it. Clients keep
their connections, so by chance one worker could have all of them while another one has nothing to
do: when 8 connections arrived together, one of two workers often got all of them. A worker that has
more connections than another one therefore lets the others go first, but only for a few
milliseconds, so that a connection is not left waiting if they are busy or hang.
"""

from __future__ import annotations

import mmap

_GONE = 2**32 - 1  # connections of a worker that accepts no more


class ConnectionCounts:
    """How many connections each worker has, in memory that is shared by forked processes."""

    def __init__(self, workers: int) -> None:
        self._counts = memoryview(mmap.mmap(-1, 4 * workers)).cast("I")

    def forget(self, number: int) -> None:
        """Do not wait for this worker, which has ended."""
        self._counts[number - 1] = _GONE

    def peers_of(self, number: int) -> Peers:
        """The other workers, as the one with this number (from 1) sees them."""
        return Peers(self._counts, number - 1)


class Peers:
    """The other workers."""

    def __init__(self, counts: memoryview[int], own: int) -> None:
        self._counts = counts
        self._own = own

    def tell(self, connections: int) -> None:
        """Let the others know how many connections this worker has."""
        self._counts[self._own] = connections

    def leave(self) -> None:
        """Let the others know that this worker accepts no more connections."""
        self._counts[self._own] = _GONE

    def have_fewer(self) -> bool:
        """Whether another worker has fewer connections than this one."""
        return min(self._counts) < self._counts[self._own]
