"""How servers learn of new files in an object store without listing all of it.

For each file there is an empty object, whose key says everything that a listing would say:

    .private_pypi/journal/<time>.<size>.<sha256>.<revision>/<project>/<filename>

The time is that of the file, by the clock of the store, so that the clocks of the servers do not
matter. It counts down, and stores list keys in order, so the newest entries come first: one request
gives everything that is new. An entry is written after its file and before the upload is
acknowledged. A writer that is killed in between leaves a file without an entry. Nobody was told
that it is published; a listing of the whole store finds it.

Entries that are older than the index document are not needed any more, because it has their files.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote, unquote

from private_pypi.backend.object_store import NO_OBJECT, RESERVED, ObjectChanged, ObjectStore
from private_pypi.model import StoredFile

JOURNAL: Final = f"{RESERVED}journal/"

_MARGIN: Final = timedelta(minutes=10)
"""How much further back entries are read than the caller asks for, which is five minutes before the
index document. Its time is that of the server that made it. S3 refuses requests of servers whose
clock differs from its own by more than fifteen minutes."""
_AGAIN: Final = timedelta(minutes=10)
"""How far before the newest entry that is known reading goes. The time of a file may be that at
which the store began to receive it, so that its entry appears after newer ones."""
_NEVER: Final = datetime.max.replace(tzinfo=UTC)
_MOST: Final = 50_000  # entries that are remembered
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = 10**16 - 1  # microseconds since 1970, of the year 2286
_MICROSECOND: Final = timedelta(microseconds=1)
_PAGE: Final = 1000  # entries that are removed with one call


class Journal:
    """The journal of a repository.

    What was read is remembered, so that the next reading takes one request, however many entries
    there are since the last index document.
    """

    def __init__(self) -> None:
        self._document: str | None = None
        self._since = _NEVER
        self._known: list[StoredFile] = []  # those stored at or after `_since`, newest first
        self._lock = threading.Lock()  # guards everything above

    def add(self, store: ObjectStore, file: StoredFile) -> None:
        """Note that a file was stored. `file` is as a listing gives it."""
        with contextlib.suppress(ObjectChanged):  # it was noted already
            store.put(_key_of(file), b"", replaces=NO_OBJECT)

    def is_of(self, document: str) -> None:
        """The index document has this revision.

        With another document, entries may have been removed, because a deletion changes both.
        """
        with self._lock:
            if document != self._document:
                self._document, self._since, self._known = document, _NEVER, []

    def read(self, store: ObjectStore, since: datetime) -> list[StoredFile]:
        """The files that were stored at or after `since`, as listings give them, newest first.

        For each name only the newest is given. Some older ones may be included.
        """
        since -= _MARGIN
        with self._lock:
            document, known = self._document, self._known if self._since <= since else []
        # What is newer than this is read again: an entry may appear later than newer ones.
        again = max(since, _time(known[0]) - _AGAIN) if known else since
        found = list(_read(store, again))
        found += (each for each in known if since <= _time(each) < again)
        with self._lock:
            if document == self._document and len(found) <= _MOST:
                self._since, self._known = since, found
        newest: dict[str, StoredFile] = {}
        for each in found:
            newest.setdefault(each.location, each)
        return list(newest.values())

    def forget(self, store: ObjectStore, location: str) -> None:
        """Remove the entries of a file that is being deleted."""
        _remove(store, [k for k in _keys(store) if _location_of(k) == location])
        with self._lock:
            self._since, self._known = _NEVER, []

    def compact(self, store: ObjectStore, before: datetime) -> None:
        """Remove the entries of files that were stored earlier."""
        _remove(store, list(_keys(store, f"{JOURNAL}{_count_down(before)}")))


def _read(store: ObjectStore, since: datetime) -> Iterator[StoredFile]:
    for key in _keys(store):
        file = _file_of(key)
        if file is not None:
            if _time(file) < since:
                return
            yield file


def _keys(store: ObjectStore, after: str = "") -> Iterator[str]:
    return (each.key for each in store.list(JOURNAL, after))


def _remove(store: ObjectStore, keys: list[str]) -> None:
    for start in range(0, len(keys), _PAGE):
        store.delete(*keys[start : start + _PAGE])


def _time(file: StoredFile) -> datetime:
    assert file.modified_at is not None
    return file.modified_at


def _count_down(moment: datetime) -> str:
    microseconds = (moment - _EPOCH) // _MICROSECOND
    return f"{_LAST - min(max(microseconds, 0), _LAST):016d}"


def _key_of(file: StoredFile) -> str:
    facts = (_count_down(_time(file)), str(file.size), file.sha256 or "", file.stamp)
    return f"{JOURNAL}{'.'.join(quote(each, safe='').replace('.', '%2E') for each in facts)}/" + (
        file.location
    )


def _location_of(key: str) -> str:
    return key.removeprefix(JOURNAL).partition("/")[2]


def _file_of(key: str) -> StoredFile | None:
    """What an entry says; None if it is not one."""
    facts, _, location = key.removeprefix(JOURNAL).partition("/")
    project, _, filename = location.partition("/")
    try:
        time, size, sha256, stamp = facts.split(".")
        modified_at = _EPOCH + (_LAST - int(time)) * _MICROSECOND
        return StoredFile(
            filename=filename,
            size=int(size),
            location=location,
            stamp=unquote(stamp),
            sha256=sha256 or None,
            modified_at=modified_at,
            project=project,
        )
    except (ValueError, OverflowError):
        return None
