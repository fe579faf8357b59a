"""Lists a whole object store, folder by folder; a large one with several threads.

A store gives about a thousand keys with each request. So a million files take thousands of
requests, one after another. Therefore a listing that turns out to be long is divided by the first
characters of the keys.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, groupby, islice
from typing import Final

from private_pypi.backend.object_store import ObjectStore, StoredObject
from private_pypi.errors import BackendUnavailable

Folder = tuple[str, list[StoredObject]]
"""The name of a folder at the top, and its objects in the order of their keys."""

_STARTS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"  # those of normalised project names
_SHORT: Final = 5000  # objects up to which a listing is not divided
_THREADS: Final = 8
_WAITING: Final = 64  # folders that are listed and not yet taken
_WAIT: Final = 0.2  # seconds before a listing goes on after trouble
_LONGEST_WAIT: Final = 30.0  # seconds


def list_folders(store: ObjectStore) -> Iterator[Folder]:
    """All folders at the top of the store, in any order, and the objects directly in them.

    The objects of one folder are in memory at the same time, and those of a few more.
    """
    listing = _listing(store) if store.lists_from_anywhere else store.list("")
    beginning = list(islice(listing, _SHORT))
    if len(beginning) < _SHORT or not store.lists_from_anywhere:
        yield from _folders(chain(beginning, listing))
        return
    reached = beginning[-1].key[:1]
    starts = [each for each in _STARTS if each > reached]
    first = _until(chain(beginning, listing), starts[0] if starts else None)
    rest = [
        _until(_listing(store, _before(start)), end, start)
        for start, end in zip(starts, [*starts[1:], None], strict=True)
    ]
    yield from _together([first, *rest])


def _listing(store: ObjectStore, after: str = "") -> Iterator[StoredObject]:
    """The objects after a key. After trouble the listing goes on where it was interrupted.

    Of thousands of requests some fail, and the core can only begin a listing again. Trouble without
    any progress is raised.
    """
    while True:
        reached = after
        try:
            for each in store.list("", after):
                reached = each.key
                yield each
            return
        except BackendUnavailable as error:
            if reached == after or error.retry_after > _LONGEST_WAIT:
                raise
            after = reached
            time.sleep(max(_WAIT, error.retry_after))


def _before(start: str) -> str:
    """A key between those that begin with a character and those that do not reach it.

    It is not the character itself: SeaweedFS then leaves out a folder of just this name.
    """
    return f"{chr(ord(start) - 1)}~"


def _until(
    listing: Iterator[StoredObject], end: str | None, start: str = ""
) -> Iterator[StoredObject]:
    for each in listing:
        first = each.key[:1]
        if end is not None and first >= end:
            return
        if first >= start:
            yield each


def _folders(listing: Iterator[StoredObject]) -> Iterator[Folder]:
    for name, objects in groupby(listing, key=lambda each: each.key.rpartition("/")[0]):
        if name and "/" not in name:
            yield name, list(objects)


def _together(listings: Sequence[Iterator[StoredObject]]) -> Iterator[Folder]:
    """The folders of all listings, which several threads read at the same time."""
    found: queue.Queue[Folder | Exception | None] = queue.Queue(_WAITING)
    given_up = threading.Event()

    def read(listing: Iterator[StoredObject]) -> None:
        try:
            for folder in _folders(listing):
                hand_over(folder)
                if given_up.is_set():
                    return
            hand_over(None)
        except Exception as error:
            hand_over(error)

    def hand_over(item: Folder | Exception | None) -> None:
        while not given_up.is_set():
            with contextlib.suppress(queue.Full):
                found.put(item, timeout=0.5)
                return

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="list") as pool:
        try:
            for listing in listings:
                pool.submit(read, listing)
            left = len(listings)
            while left:
                match found.get():
                    case None:
                        left -= 1
                    case Exception() as error:
                        raise error
                    case folder:
                        yield folder
        finally:
            given_up.set()
            pool.shutdown(wait=False, cancel_futures=True)
