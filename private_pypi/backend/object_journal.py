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
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote, unquote

from private_pypi.backend.object_store import NO_OBJECT, RESERVED, ObjectChanged, ObjectStore
from private_pypi.model import StoredFile

JOURNAL: Final = f"{RESERVED}journal/"

_MARGIN: Final = timedelta(minutes=5)
"""How much further back entries are read than the caller asks for. The time of a file may be that
at which the store began to receive it, so that its entry appears later than entries before it."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = 10**16 - 1  # microseconds since 1970, of the year 2286
_MICROSECOND: Final = timedelta(microseconds=1)
_PAGE: Final = 1000  # entries that are removed with one call


class Journal:
    """The journal of a repository."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def add(self, file: StoredFile) -> None:
        """Note that a file was stored. `file` is as a listing gives it."""
        with contextlib.suppress(ObjectChanged):  # it was noted already
            self._store.put(_key_of(file), b"", replaces=NO_OBJECT)

    def read(self, since: datetime) -> Iterator[StoredFile]:
        """The files that were stored at or after `since`, as listings give them, newest first.

        For each name only the newest is given. Some older ones may be included.
        """
        given = set()
        for each in self._store.list(JOURNAL):
            file = _file_of(each.key)
            if file is None:
                continue
            assert file.modified_at is not None
            if file.modified_at < since - _MARGIN:
                return
            if file.location not in given:
                given.add(file.location)
                yield file

    def forget(self, location: str) -> None:
        """Remove the entries of a file that is being deleted."""
        self._remove(
            each.key
            for each in self._store.list(JOURNAL)
            if each.key.endswith(f"/{location}") and _location_of(each.key) == location
        )

    def compact(self, before: datetime) -> None:
        """Remove the entries of files that were stored earlier."""
        after = f"{JOURNAL}{_count_down(before)}"
        self._remove(each.key for each in self._store.list(JOURNAL, after) if each.key > after)

    def _remove(self, found: Iterator[str]) -> None:
        keys = list(found)
        for start in range(0, len(keys), _PAGE):
            self._store.delete(*keys[start : start + _PAGE])


def _count_down(moment: datetime) -> str:
    microseconds = (moment - _EPOCH) // _MICROSECOND
    return f"{_LAST - min(max(microseconds, 0), _LAST):016d}"


def _key_of(file: StoredFile) -> str:
    assert file.modified_at is not None
    facts = (_count_down(file.modified_at), str(file.size), file.sha256 or "", file.stamp)
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
