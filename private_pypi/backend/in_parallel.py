"""Takes the items of several iterators that wait for a network, in several threads at a time."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_THREADS: Final = 8
_WAITING: Final = 64  # items that are there and not yet taken


@dataclass(frozen=True, slots=True)
class _Item(Generic[T]):
    value: T


def in_parallel(iterables: Iterable[Iterable[T]]) -> Iterator[T]:
    """The items of all iterables, in any order; the first error of one of them ends all."""
    found: queue.Queue[_Item[T] | Exception | None] = queue.Queue(_WAITING)
    given_up = threading.Event()

    def read(iterable: Iterable[T]) -> None:
        try:
            for item in iterable:
                hand_over(_Item(item))
                if given_up.is_set():
                    return
            hand_over(None)
        except Exception as error:
            hand_over(error)

    def hand_over(what: _Item[T] | Exception | None) -> None:
        while not given_up.is_set():
            with contextlib.suppress(queue.Full):
                found.put(what, timeout=0.5)
                return

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="list") as pool:
        try:
            left = len([pool.submit(read, each) for each in iterables])
            while left:
                match found.get():
                    case None:
                        left -= 1
                    case _Item(value):
                        yield value
                    case error:
                        raise error
        finally:
            given_up.set()
            pool.shutdown(wait=False, cancel_futures=True)
