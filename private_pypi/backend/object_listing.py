"""Lists a whole object store, folder by folder, in parts that several threads can list at a time.

A store gives about a thousand keys with each request. So a million files take thousands of
requests, one after another. Therefore a long listing is divided between the names of its folders.

Stores list keys in one of two orders. Amazon S3 and Azure Blob Storage compare them as bytes, so
"a-b/x" comes before "a/x". SeaweedFS, and Azure with a hierarchical namespace, go through a tree:
"a" comes before "a-b". What belongs to a part does not depend on that. So a key from elsewhere is
not always the end of a part.
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
    # In a tree, these are before the first folder of the part, and by their bytes they are in it:
    # "a" if it begins with "a-b".
    apart = [start[:at] for at in range(1, len(start)) if start[at] < "/"]
    for name in apart:
        if _is_in(name, start, end):
            yield from _folders(_listing(store, f"{name}/"))
    after = _before(start) if start else ""
    for name, objects in _folders(_between(_listing(store, "", after), start, end)):
        if name not in apart:
            yield name, objects


def _listing(store: ObjectStore, prefix: str = "", after: str = "") -> Iterator[StoredObject]:
    """The objects whose keys begin with `prefix` and come after another one.

    After trouble the listing goes on where it was interrupted. Of thousands of requests some fail,
    and the core can only begin a listing again. Trouble without any progress is raised, and all
    trouble with a store that cannot begin where it was interrupted.
    """
    while True:
        reached = after
        try:
            for each in store.list(prefix, after):
                reached = each.key
                yield each
            return
        except BackendUnavailable as error:
            is_stuck = reached == after or error.retry_after > _LONGEST_WAIT
            if is_stuck or not store.lists_from_anywhere:
                raise
            after = reached
            time.sleep(max(_WAIT, error.retry_after))


def _before(start: str) -> str:
    """A key between those that begin with a name and those that do not reach it.

    It is not the name itself: SeaweedFS then leaves out a folder of just this name.
    """
    return f"{start[:-1]}{chr(ord(start[-1]) - 1)}~"


def _is_in(name: str, start: str, end: str | None) -> bool:
    """Whether a folder belongs to the part that begins with one folder and ends before another."""
    key = f"{name}/".encode()
    return (not start or key >= f"{start}/".encode()) and (end is None or key < f"{end}/".encode())


def _between(
    listing: Iterator[StoredObject], start: str, end: str | None
) -> Iterator[StoredObject]:
    """What belongs to a part in a listing that begins before it."""
    for each in listing:
        name = each.key.partition("/")[0]
        if _is_in(name, start, end):
            yield each
        # In a tree, more of this part may come after `end` ("a-b" after "a"), and what `end` begins
        # with comes before it ("a" before "a-b").
        elif end is not None and not end.startswith(name) and not _is_in(name, "", end):
            return


def _folders(listing: Iterator[StoredObject]) -> Iterator[Folder]:
    for name, objects in groupby(listing, key=lambda each: each.key.rpartition("/")[0]):
        if name and "/" not in name:
            yield name, list(objects)
