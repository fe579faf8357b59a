"""Decides when a storage is asked about an unknown secret: a few at a time, and fairly by client.

Anybody may send made-up secrets, and only the storage can tell that they are wrong. A client that
sends many of them must not delay the first request of others. Nor may it use up the requests that
the provider of the storage allows to this server. Nothing here knows a storage or HTTP.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from private_pypi.errors import BackendUnavailable
from private_pypi.storage.bounded import mark_used

WRONG_SECRETS = 20
"""How many different wrong secrets of one client the storage is asked about without a pause. After
that it is asked about one more every `REFILL_SECONDS`."""

REFILL_SECONDS = 15.0
"""Seconds after which the storage may be asked about one more wrong secret of a client."""

_MOST = 3  # questions at the same time
_MOST_WAITING = 4  # callers that wait for one of these to end; each holds a thread of the server
_WAIT_SECONDS = 1.0  # for which a caller waits
_HANGING_SECONDS = 1.0  # in which no question ends: then the storage hangs, and no caller waits
_MAX_CLIENTS = 10_000


class _Waiting:
    def __init__(self, client: str) -> None:
        self.client = client
        self.may_go = threading.Event()


class Strangers:
    """The questions about unknown secrets of one repository; thread-safe, of limited size.

    A client is a text that the caller chooses, such as the network of an IP address.
    """

    def __init__(self, name: str) -> None:
        """`name` is that of the repository; it is used in messages."""
        self._name = name
        self._lock = threading.Lock()  # guards everything below
        self._asking: Counter[str] = Counter()  # by client
        self._waiting: list[_Waiting] = []  # in the order in which they came
        self._moved_at = 0.0  # time.monotonic(), when the last question began or ended
        # By client: when all its wrong secrets are forgiven (time.monotonic()). Each wrong secret
        # moves that by `REFILL_SECONDS`.
        self._free_at: OrderedDict[str, float] = OrderedDict()

    @contextmanager
    def turn(self, client: str) -> Iterator[None]:
        """A context in which the storage may be asked; raises `BackendUnavailable` if it may not.

        The next turn goes to the client with the fewest questions at this moment. So a client that
        sends many waits behind the others.
        """
        self._enter(client)
        try:
            yield
        finally:
            self._leave(client)

    def note_wrong(self, client: str) -> None:
        """Count a secret of this client that the storage has just refused for the first time."""
        now = time.monotonic()
        with self._lock:
            self._free_at[client] = max(self._free_at.get(client, now), now) + REFILL_SECONDS
            mark_used(self._free_at, client, most=_MAX_CLIENTS)

    def _enter(self, client: str) -> None:
        with self._lock:
            now = time.monotonic()
            over = self._free_at.get(client, 0.0) - now - (WRONG_SECRETS - 1) * REFILL_SECONDS
            if over > 0:
                raise BackendUnavailable(
                    f"too many wrong secrets for repository {self._name!r} came from this address; "
                    "the storage is asked about another one later",
                    retry_after=math.ceil(over),
                )
            if self._asking.total() < _MOST:
                self._begin(client)
                return
            is_hanging = now - self._moved_at > _HANGING_SECONDS
            is_full = len(self._waiting) >= _MOST_WAITING
            if is_hanging or is_full or any(each.client == client for each in self._waiting):
                raise self._too_slow()
            waiting = _Waiting(client)
            self._waiting.append(waiting)
        if not waiting.may_go.wait(_WAIT_SECONDS):
            with self._lock:
                if not waiting.may_go.is_set():  # else its turn came at the last moment
                    self._waiting.remove(waiting)
                    raise self._too_slow()

    def _leave(self, client: str) -> None:
        with self._lock:
            self._asking[client] -= 1
            if not self._asking[client]:
                del self._asking[client]
            self._moved_at = time.monotonic()
            if self._waiting:
                # Among equal ones, `min` takes the one that came first.
                chosen = min(self._waiting, key=lambda each: self._asking[each.client])
                self._waiting.remove(chosen)
                self._begin(chosen.client)
                chosen.may_go.set()

    def _begin(self, client: str) -> None:
        self._asking[client] += 1
        self._moved_at = time.monotonic()

    def _too_slow(self) -> BackendUnavailable:
        return BackendUnavailable(
            f"the storage of repository {self._name!r} is asked about too many unknown secrets",
            retry_after=2,
        )
