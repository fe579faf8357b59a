"""What the worker processes of one server share, apart from ROOT."""

from __future__ import annotations

import mmap
import time
from dataclasses import dataclass, field
from pathlib import Path

from private_pypi.web.serving import ConnectionCounts


class Submissions:
    """Counts the configurations that were submitted to a server, in memory that workers share.

    It is made before the workers are forked. A worker compares the count for every request, so it
    has to be cheap to read.
    """

    def __init__(self) -> None:
        self._memory = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")

    @property
    def count(self) -> int:
        """How many there were."""
        return self._memory[0]

    def note(self) -> int:
        """Count one more, and return the new count.

        Two processes must not do this at once; the caller has the lock of the configuration.
        """
        self._memory[0] += 1
        return self._memory[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all workers of a server use."""

    folder: Path  # in ROOT/tmp; removed when the server ends
    connections: ConnectionCounts
    submissions: Submissions = field(default_factory=Submissions)
    began: int = field(default_factory=time.time_ns)  # of the server; nanoseconds since the epoch

    @property
    def attempts(self) -> Path:
        """The database of the attempts to sign in."""
        return self.folder / "attempts.sqlite"

    @property
    def log_lock(self) -> Path:
        """The file that is locked while lines are written to the log."""
        return self.folder / "log.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One of several worker processes of a server."""

    number: int  # from 1; a process that replaces another one has the same number
    shared: Shared
