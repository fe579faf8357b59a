"""Edits and replaces the index document in the storage, safely with several writers.

A writer reads the document, makes a new one, and replaces the one that it has read. If another
writer was quicker, it begins again with the newer document (compare and swap). If a storage can
only overwrite the document (`SupportsOverwriteIndex`), this is made as safe as possible.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

from private_pypi.backend import (
    NO_INDEX,
    AnyStorage,
    SupportsIndex,
    SupportsOverwriteIndex,
    SupportsReplaceIndex,
    capability,
)
from private_pypi.errors import StaleIndex, Unsupported
from private_pypi.index import child as index_child
from private_pypi.index.document import IndexEdit
from private_pypi.index.document_reader import read_document
from private_pypi.index.examining import temporary_folder
from private_pypi.model import BurntName

_ATTEMPTS = 20


def has_index(storage: AnyStorage) -> bool:
    """Whether the storage keeps an index document that can be changed."""
    return any(
        capability(storage, protocol) is not None
        for protocol in (SupportsReplaceIndex, SupportsOverwriteIndex)
    )


def require_index(storage: AnyStorage, backend_type: str) -> SupportsIndex:
    """The storage as one with a document. Raises `Unsupported`."""
    index = capability(storage, SupportsIndex)
    if index is None or not has_index(storage):
        raise Unsupported(f"a repository of type {backend_type!r} has no index document")
    return index


def replace_index(storage: AnyStorage, content: Path, replaces: str) -> str:
    """Replace the document if its revision is still `replaces`; returns the new revision.

    Otherwise raises `StaleIndex`. `content` is in a folder for temporary files.
    """
    index = capability(storage, SupportsReplaceIndex)
    if index is not None:
        return index.write_index(content, replaces)
    overwriting = capability(storage, SupportsOverwriteIndex)
    assert overwriting is not None
    probe = content.with_name(f"{content.name}.before")
    stale = StaleIndex("another writer has replaced index.toml since it was read")
    with FileLock(storage.backend.folders.lock / "write_index.lock"):
        try:
            if overwriting.read_index(probe, unless=replaces or None) != replaces:
                raise stale
            revision = overwriting.overwrite_index(content)
            # A server with another ROOT may have written at the same moment.
            if overwriting.read_index(probe, unless=revision) != revision:
                raise stale
        finally:
            probe.unlink(missing_ok=True)
    return revision


def edit_index(storage: AnyStorage, change: IndexEdit, *, backend_type: str) -> str:
    """Change some entries of the document; returns its revision.

    All other entries stay, and so does `mtime`, because an edit is not a listing. Raises
    `StaleIndex` if other writers are quicker again and again.
    """
    index, folders = require_index(storage, backend_type), storage.backend.folders
    with (
        temporary_folder(folders.tmp) as temporary,
        # Writers of this ROOT wait for each other here, those of other ROOTs in `until_first`.
        FileLock(folders.lock / "edit_index.lock"),
    ):
        document, edited = temporary / "index.toml", temporary / "edited.toml"

        def attempt() -> str:
            document.unlink(missing_ok=True)
            edited.unlink(missing_ok=True)
            revision = index.read_index(document)
            index_child.edit(
                document,
                change,
                edited,
                backend_type=backend_type,
                location_key=storage.backend.location_key,
            )
            return replace_index(storage, edited, revision) if edited.exists() else revision

        return until_first(attempt)


def burnt_in_document(storage: AnyStorage) -> Sequence[BurntName]:
    """The burnt names of the document, which is read in this process even if it is large."""
    index = capability(storage, SupportsIndex)
    with temporary_folder(storage.backend.folders.tmp) as temporary:
        path = temporary / "index.toml"
        if index is None or index.read_index(path) == NO_INDEX:
            return ()
        return read_document(path, location_key=storage.backend.location_key)[0].deleted


def until_first(attempt: Callable[[], str]) -> str:
    """Call `attempt` until it raises no `StaleIndex`, at most 20 times."""
    for number in range(1, _ATTEMPTS):
        try:
            return attempt()
        except StaleIndex:
            time.sleep(random.uniform(0, 0.05 * number))  # noqa: S311 - not for security
    return attempt()
