"""Limit how often somebody may try to sign in before having to wait.

An attempt is counted before the storage is asked, and taken back if it was not a failure. So the
limit also holds for guesses that are sent at the same time. A right secret is limited as well:
otherwise an attacker over the limit could still find out that a guess was right.

Only the form is limited, and not the requests of tools. These send their secret each time, so a
misconfigured pipeline would lock its owner out.
"""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

FAILURES_OF_ADDRESS = 10
FAILURES_OF_REPOSITORY = 50  # more, because people share a repository
WINDOW = 300.0  # seconds in which that many failures are allowed

COST_UNDER_ATTACK = 5
"""How much a failure counts for its address while the limit of the repository is used up.

This slows down an attacker with many addresses, but does not lock others out: an address without
failures always has two attempts, whatever happens elsewhere.
"""

_MOST_KEPT = 10_000  # addresses, and as many names; the least recently used ones are forgotten


class Attempt(NamedTuple):
    """One attempt to sign in."""

    wait: int | None
    """Whole seconds to wait before the next attempt; None if this one is allowed."""
    charges: tuple[tuple[_Limit, str, float], ...] = ()


class SignInAttempts:
    """Counts the attempts of this process by address and by repository; thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards both
        self._addresses = _Limit(FAILURES_OF_ADDRESS)
        self._repositories = _Limit(FAILURES_OF_REPOSITORY)

    def begin(self, address: str | None, repository: str) -> Attempt:
        """Count an attempt. If it has `wait`, it is not allowed, and was not counted."""
        network = network_of(address)
        # Names without a repository are counted too, so that the answers are the same for both.
        name = repository.lower()[:200]
        now = self._clock()
        with self._lock:
            is_attacked = self._repositories.wait(name, 1, now) > 0
            cost = COST_UNDER_ATTACK if is_attacked else 1
            wait = self._addresses.wait(network, cost, now)
            if wait > 0:
                return Attempt(math.ceil(wait))
            charges = [(self._addresses, network, self._addresses.charge(network, cost, now))]
            if not is_attacked:
                charges.append((self._repositories, name, self._repositories.charge(name, 1, now)))
            return Attempt(None, tuple(charges))

    def take_back(self, attempt: Attempt) -> None:
        """Do not count an attempt that was not a failure.

        That is one with a right secret, or one whose secret the storage could not check.
        """
        with self._lock:
            for limit, key, seconds in attempt.charges:
                limit.take_back(key, seconds)


class _Limit:
    """Allows `most` attempts in each window for each key. They come back one by one."""

    def __init__(self, most: int) -> None:
        self._each = WINDOW / most  # seconds until one attempt comes back
        # When all attempts of a key will be back. Each attempt moves this time on by _each.
        self._free_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._free_at)

    def wait(self, key: str, count: int, now: float) -> float:
        """Seconds until `count` more attempts are allowed; 0 or less if they are allowed now."""
        return self._free_at.get(key, now) - now + count * self._each - WINDOW

    def charge(self, key: str, count: int, now: float) -> float:
        """Use up `count` attempts. Returns the seconds that `take_back` needs."""
        seconds = count * self._each
        self._free_at[key] = max(self._free_at.get(key, now), now) + seconds
        self._free_at.move_to_end(key)
        while len(self._free_at) > _MOST_KEPT:
            self._free_at.popitem(last=False)
        return seconds

    def take_back(self, key: str, seconds: float) -> None:
        if key in self._free_at:
            self._free_at[key] -= seconds


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
