"""Retries the calls of any storage; nothing else in the core retries them.

Calls that may be repeated without harm are tried again after `BackendUnavailable`. A listing that
breaks off starts again, so that it may give some files twice; leaving them out would need the names
of all of them in memory. A stream that has begun is not tried
again, because its reader has the first part already.

Writing the index document is not tried again either. If the answer was lost, it is unknown whether
the document was written. A second try would find its own document and raise `StaleIndex`, although
there was no other writer. The writer reads the document again instead.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from private_pypi.backend import STORAGE_CAPABILITIES, Access, AnyStorage, Storage
from private_pypi.errors import BackendUnavailable
from private_pypi.model import Download, FileHandle

T = TypeVar("T")

_LISTINGS = {"list_files", "list_part", "recent_files", "project_files", "projects"}
_ONCE = {"write_index", "overwrite_index", "usage"}


def retrying(
    storage: AnyStorage,
    *,
    attempts: int = 3,
    longest_wait: float = 10.0,
    patience: float = 30.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> AnyStorage:
    """A storage that tries each call of `storage` up to `attempts` times.

    The pause between two tries is the time that the storage asks for (`retry_after`) or a growing
    time, whichever is longer, and a random time more, which spreads the servers. The error is
    raised at once if the pause would be longer than `longest_wait` seconds, or would end later than
    `patience` seconds after the first failure.

    The result supports the same protocols (`private_pypi.backend.capabilities`) as `storage`.
    """
    return _Retrying(storage, partial(_Patience, attempts, longest_wait, patience, sleep, clock))


class _Retrying(Storage[Any]):
    def __init__(self, storage: AnyStorage, new_patience: Callable[[], _Patience]) -> None:
        super().__init__(storage.backend, storage.secret)
        self._storage = storage
        self._new_patience = new_patience
        self.lacks = storage.lacks
        # A protocol is recognised by its methods, so only those of `storage` may be there.
        for protocol in STORAGE_CAPABILITIES:
            if isinstance(storage, protocol):
                for name in methods_of(protocol):
                    setattr(self, name, self._with_patience(name, getattr(storage, name)))

    def access(self, project: str | None = None) -> Access:
        return self._retry(lambda: self._storage.access(project))

    def open_file(self, file: FileHandle) -> Download:
        return self._retry(lambda: self._storage.open_file(file))

    def _with_patience(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        if name in _ONCE:
            return method
        again: Callable[[Callable[[], Any]], Any] = (
            self._restart if name in _LISTINGS else self._retry
        )
        return lambda *arguments, **named: again(partial(method, *arguments, **named))

    def _retry(self, call: Callable[[], T]) -> T:
        patience = self._new_patience()
        while True:
            try:
                return call()
            except BackendUnavailable as error:
                patience.wait(error)

    def _restart(self, start: Callable[[], Iterator[T]]) -> Iterator[T]:
        patience = self._new_patience()
        furthest = 0  # items that were given in one try
        while True:
            given = 0
            try:
                for item in start():
                    given += 1
                    if given > furthest:
                        # It got further than before, so the next failure counts as the first.
                        furthest, patience = given, self._new_patience()
                    yield item
                return
            except BackendUnavailable as error:
                patience.wait(error)


def methods_of(protocol: type) -> list[str]:
    """The names of the methods of a protocol."""
    return [
        name
        for each in protocol.__mro__
        if getattr(each, "_is_protocol", False)
        for name, member in vars(each).items()
        if callable(member) and not name.startswith("_")
    ]


@dataclass
class _Patience:
    """Decides for one call whether and when it is tried again."""

    attempts: int
    longest_wait: float
    patience: float
    sleep: Callable[[float], None]
    clock: Callable[[], float]
    failures: int = 0
    deadline: float | None = None

    def wait(self, error: BackendUnavailable) -> None:
        """Sleep until the next try, or raise `error` if there is to be none."""
        if self.deadline is None:
            self.deadline = self.clock() + self.patience
        own = 0.25 * 2**self.failures
        # The random part is only added: asking earlier than the storage says is refused again.
        seconds = max(own, error.retry_after) + random.uniform(0, own)  # noqa: S311
        self.failures += 1
        if (
            self.failures >= self.attempts
            or max(own, error.retry_after) > self.longest_wait
            or self.clock() + seconds > self.deadline
        ):
            raise error
        self.sleep(seconds)
