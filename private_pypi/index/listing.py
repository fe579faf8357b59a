"""Lists a whole storage into a draft (`draft`), in parts if the storage has them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from private_pypi.backend import AnyStorage, SupportsList, SupportsListParts, capability
from private_pypi.backend.in_parallel import in_parallel
from private_pypi.errors import BackendError
from private_pypi.index.draft import Draft
from private_pypi.model import StoredFile, StoredName, Unlisted

_SOME: Final = 1000  # files that are written at a time
_LISTING: Final = "update_index.sqlite"

Progress = Callable[[int, int | None, str], None]
"""Called with the number of files done, the number of all (None: unknown), and the activity."""

Listed = StoredFile | StoredName | Unlisted


def list_all(storage: AnyStorage, draft: Draft, progress: Progress) -> list[Unlisted]:
    """List everything, apart from the parts that the draft has; returns what was left out."""
    by_parts = capability(storage, SupportsListParts)
    if by_parts is None:
        listing = capability(storage, SupportsList)
        assert listing is not None
        chunks: Iterator[tuple[str, list[Listed], bool]] = _chunks("", listing.list_files())
    else:
        if not draft.parts():
            draft.divide(by_parts.list_parts())
        left = [part for part, is_done in draft.parts().items() if not is_done]
        chunks = in_parallel(_part(by_parts, part) for part in left)
    unlisted: dict[Unlisted, None] = {}  # a listing that was interrupted gives some of them again
    incomplete: set[str] = set()  # parts that have to be listed again in any case
    done = 0
    for part, chunk, is_end in chunks:
        left_out = [each for each in chunk if isinstance(each, Unlisted)]
        if left_out:
            unlisted.update(dict.fromkeys(left_out))
            incomplete.add(part)
        with draft.writing():
            draft.add_listed(each for each in chunk if not isinstance(each, Unlisted))
            if is_end and part not in incomplete:
                draft.finish_part(part)
        done += len(chunk)
        progress(done, None, "listing")
    return list(unlisted)


def _part(listing: SupportsListParts, part: str) -> Iterator[tuple[str, list[Listed], bool]]:
    yield from _chunks(part, listing.list_part(part))


def _chunks(part: str, listed: Iterable[Listed]) -> Iterator[tuple[str, list[Listed], bool]]:
    """The part, some of its files, and whether they are the last ones."""
    iterator = iter(listed)
    while True:
        chunk = list(islice(iterator, _SOME))
        yield part, chunk, len(chunk) < _SOME
        if len(chunk) < _SOME:
            return


@contextlib.contextmanager
def draft_of(
    storage: AnyStorage, folder: Path, keep: Path | None, *, backend_type: str
) -> Iterator[Draft]:
    """A draft for this storage. Its listing is kept in the folder `keep` if the run is interrupted.

    `folder` is for temporary files. Only one process at a time can use a kept listing; another one
    lists everything.
    """
    new = partial(
        Draft,
        scratch=folder / "scratch.sqlite",
        backend_type=backend_type,
        location_key=storage.backend.location_key,
    )
    with contextlib.ExitStack() as stack:
        path = folder / _LISTING
        if keep is not None and capability(storage, SupportsListParts) is not None:
            with contextlib.suppress(Timeout):
                lock = FileLock(storage.backend.folders.lock / "update_index.lock", timeout=0)
                stack.enter_context(lock)
                path = keep / _LISTING
        try:
            draft = new(path)
        except sqlite3.DatabaseError:  # it is damaged
            _remove(path)
            draft = new(path)
        with draft:
            try:
                yield draft
            except sqlite3.DatabaseError as error:
                where = f"the tables of update_index in {path.parent} and {folder}"
                raise BackendError(f"trouble with {where}: {error}") from error
        _remove(path)


def storage_of(storage: AnyStorage, backend_type: str) -> str:
    """Which storage it is, as text: a kept listing is only used for the same one."""
    settings = storage.backend.settings
    naming = type(settings).names_storage
    names = [field.name for field in fields(settings)] if naming is None else naming
    return "\n".join([backend_type, *(f"{name}={getattr(settings, name)!r}" for name in names)])


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
