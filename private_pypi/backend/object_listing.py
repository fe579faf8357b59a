"""Lists a whole object store, folder by folder, in parts that several threads can list at a time.

A store gives about a thousand keys with each request. So a million files take thousands of
requests, one after another. Therefore a long listing is divided between the names of its folders.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import Final

from private_pypi.backend.in_parallel import in_parallel
from private_pypi.backend.object_store import ObjectStore, StoredObject
from private_pypi.errors import BackendUnavailable

Folder = tuple[str, list[StoredObject]]
"""The name of a folder at the top, and its objects in the order of their keys."""

_SHORT: Final = 5000  # objects up to which a listing is not divided
_PARTS: Final = 64  # into which a long listing is divided
_WAIT: Final = 0.2  # seconds before a listing goes on after trouble
_LONGEST_WAIT: Final = 30.0  # seconds
_WHOLE: Final = json.dumps(["", None])


def list_folders(store: ObjectStore) -> Iterator[Folder]:
    """All folders at the top of the store, in any order, and the objects directly in them.

    The objects of one folder are in memory at the same time, and those of a few more.
    """
    return in_parallel(list_part(store, part) for part in divide(store))


def divide(store: ObjectStore) -> Sequence[str]:
    """The parts of the whole listing, as `list_part` takes them; a short one is a single part.

    A part has the folders whose names are at or after a first one, and before the first one of the
    next part. So every folder is in one of them, also a folder that is made later.
    """
    is_short = len(list(islice(_listing(store), _SHORT))) < _SHORT
    if is_short or not store.lists_from_anywhere:
        return [_WHOLE]
    # Of other names, it is not known what comes before them (`_before`).
    names = [name for name in store.folders() if name.isascii() and name.isprintable()]
    names.sort(key=lambda name: f"{name}/")  # as stores list them: "a-b" comes before "a"
    step = max(1, -(-len(names) // _PARTS))
    starts = ["", *names[step::step]]
    return [
        json.dumps([start, end]) for start, end in zip(starts, [*starts[1:], None], strict=True)
    ]


def list_part(store: ObjectStore, part: str) -> Iterator[Folder]:
    """The folders in a part, and the objects directly in them."""
    start, end = json.loads(part)
    return _folders(_between(_listing(store, _before(start) if start else ""), start, end))


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
    """A key between those that begin with a name and those that do not reach it.

    It is not the name itself: SeaweedFS then leaves out a folder of just this name.
    """
    return f"{start[:-1]}{chr(ord(start[-1]) - 1)}~"


def _between(
    listing: Iterator[StoredObject], start: str, end: str | None
) -> Iterator[StoredObject]:
    for each in listing:
        key = each.key.encode()
        if end is not None and key >= f"{end}/".encode():
            return
        if not start or key >= f"{start}/".encode():
            yield each


def _folders(listing: Iterator[StoredObject]) -> Iterator[Folder]:
    for name, objects in groupby(listing, key=lambda each: each.key.rpartition("/")[0]):
        if name and "/" not in name:
            yield name, list(objects)
