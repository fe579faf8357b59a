"""Limit how often somebody may try to sign in before having to wait.

An attempt is counted before the storage is asked, and taken back if it was not a failure. So the
limit also holds for guesses that are sent at the same time. A right secret is limited as well:
otherwise an attacker over the limit could still find out that a guess was right.

Only the form is limited, and not the requests of tools. These send their secret each time, so a
misconfigured pipeline would lock its owner out.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from private_pypi.errors import BackendUnavailable
from private_pypi.system.transactions import transaction

FAILURES_OF_ADDRESS = 10
FAILURES_OF_REPOSITORY = 50  # more, because people share a repository
WINDOW = 300.0  # seconds in which that many failures are allowed

COST_UNDER_ATTACK = 5
"""How much a failure counts for its address while the limit of the repository is used up.

This slows down an attacker with many addresses, but does not lock others out: an address without
failures always has two attempts, whatever happens elsewhere.
"""

_MOST_KEPT = 10_000  # addresses, and as many names; those with the fewest failures are forgotten
_SWEEP_EVERY = 100  # charges
_BUSY_SECONDS = 5.0  # to wait for other processes

_ADDRESS = "address"
_REPOSITORY = "repository"
_MOST = {_ADDRESS: FAILURES_OF_ADDRESS, _REPOSITORY: FAILURES_OF_REPOSITORY}

# When all attempts of a key will be back, in seconds of the clock. Each attempt moves this time on.
_TABLE = """
CREATE TABLE IF NOT EXISTS attempts (
    kind TEXT NOT NULL,  -- "address" or "repository"
    key TEXT NOT NULL,
    free_at REAL NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID
"""


class Attempt(NamedTuple):
    """One attempt to sign in."""

    wait: int | None
    """Whole seconds to wait before the next attempt; None if this one is allowed."""
    charges: tuple[tuple[str, str, float], ...] = ()  # kind, key and seconds


class SignInAttempts:
    """Counts attempts by address and by repository, for all that use `path`; thread-safe.

    With `path`, which is an SQLite file, several processes count together, and the clock must be
    the same for all of them. Without it, the attempts are counted in memory. All methods
    raise `BackendUnavailable` if that file cannot be used.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, path: Path | None = None
    ) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards the connection and _charges
        self._charges = 0
        with _told():
            self._connection = sqlite3.connect(
                path or ":memory:",
                timeout=_BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            self._connection.execute("PRAGMA synchronous = OFF")  # it may be lost with the machine
            self._connection.execute(_TABLE)

    def begin(self, address: str | None, repository: str) -> Attempt:
        """Count an attempt. If it has `wait`, it is not allowed, and was not counted."""
        network = network_of(address)
        # Names without a repository are counted too, so that the answers are the same for both.
        name = repository.lower()[:200]
        with self._transaction():
            now = self._clock()
            is_attacked = self._wait(_REPOSITORY, name, 1, now) > 0
            cost = COST_UNDER_ATTACK if is_attacked else 1
            wait = self._wait(_ADDRESS, network, cost, now)
            if wait > 0:
                return Attempt(math.ceil(wait))
            charges = [self._charge(_ADDRESS, network, cost, now)]
            if not is_attacked:
                charges.append(self._charge(_REPOSITORY, name, 1, now))
            return Attempt(None, tuple(charges))

    def take_back(self, attempt: Attempt) -> None:
        """Do not count an attempt that was not a failure.

        That is one with a right secret, or one whose secret the storage could not check.
        """
        with self._transaction():
            for kind, key, seconds in attempt.charges:
                self._connection.execute(
                    "UPDATE attempts SET free_at = free_at - ? WHERE kind = ? AND key = ?",
                    (seconds, kind, key),
                )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, _told(), transaction(self._connection):
            yield

    def _free_at(self, kind: str, key: str, now: float) -> float:
        found = self._connection.execute(
            "SELECT free_at FROM attempts WHERE kind = ? AND key = ?", (kind, key)
        ).fetchone()
        return max(now, found[0]) if found else now

    def _wait(self, kind: str, key: str, count: int, now: float) -> float:
        """Seconds until `count` more attempts are allowed; 0 or less if they are allowed now."""
        return self._free_at(kind, key, now) - now + count * WINDOW / _MOST[kind] - WINDOW

    def _charge(self, kind: str, key: str, count: int, now: float) -> tuple[str, str, float]:
        """Use up `count` attempts. Returns what `take_back` needs."""
        seconds = count * WINDOW / _MOST[kind]
        self._connection.execute(
            "INSERT OR REPLACE INTO attempts VALUES (?, ?, ?)",
            (kind, key, self._free_at(kind, key, now) + seconds),
        )
        self._charges += 1
        if self._charges % _SWEEP_EVERY == 0:
            self._sweep(now)
        return kind, key, seconds

    def _sweep(self, now: float) -> None:
        """Forget those who have all their attempts back, and more if there are too many."""
        self._connection.execute("DELETE FROM attempts WHERE free_at <= ?", (now,))
        for kind in _MOST:
            self._connection.execute(
                "DELETE FROM attempts WHERE (kind, key) IN (SELECT kind, key FROM attempts"
                " WHERE kind = ? ORDER BY free_at DESC LIMIT -1 OFFSET ?)",
                (kind, _MOST_KEPT),
            )


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise BackendUnavailable(
            f"attempts to sign in could not be counted: {error}", retry_after=5
        ) from error


def network_of(address: str | None) -> str:
    """The address; of an IPv6 address its /64 network, which belongs to one subscriber."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
