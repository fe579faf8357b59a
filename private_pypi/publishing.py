"""The changes people make to an index: publish, delete and yank.

Each is done in an order that a crash cannot hurt. Nothing here checks who may do it
(`repositories`) or what was sent (`upload`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from private_pypi.backend import AnyBackend, Folders, SupportsDelete, SupportsYank
from private_pypi.errors import BackendUnavailable, FilenameBurnt, Unsupported
from private_pypi.indexing import edit_index
from private_pypi.local_index import LocalIndex
from private_pypi.model import DistributionFile, Upload
from private_pypi.records import file_from_record


def publish(upload: Upload, *, backend: AnyBackend, index: LocalIndex) -> DistributionFile:
    """Store a file and show it: when this returns, every page of every worker has it.

    The storage comes first: a crash between the two leaves a whole file that the next
    synchronisation finds. The same bytes again return what is published; raises
    `FileAlreadyExists` for others and `FilenameBurnt` for a deleted name.
    """
    filename = upload.file.filename
    if index.burnt(filename) is not None:
        raise FilenameBurnt(filename)
    known = index.file(filename)
    if known is not None:
        # A file that somebody dropped lies where it lies, not where we would have put it.
        upload = replace(upload, file=replace(upload.file, location=known.location))
    stored = backend.put_file(upload)
    # The record is that of the first writer, whose upload time counts.
    file = file_from_record(stored) or replace(
        upload.file,
        location=stored.location,
        yanked=stored.yanked,
        # What listings will say on every server.
        uploaded_at=stored.uploaded_at or upload.file.uploaded_at,
    )
    index.add_file(file, stored.stamp)
    # Somebody may have begun the local index anew meanwhile. Until it is ready it does not know
    # every burnt name; afterwards it does.
    if not index.ready():
        raise BackendUnavailable("the local index is being rebuilt; send the file again")
    if index.burnt(filename) is not None:
        raise FilenameBurnt(filename)
    return file


def yank(
    files: Sequence[DistributionFile],
    reason: str | None,
    *,
    backend: AnyBackend,
    index: LocalIndex,
    folders: Folders,
    backend_type: str,
) -> None:
    """Yank the files with a reason ("" for none given), or un-yank them (`reason=None`).

    Reversible, and the files stay downloadable (PEP 592). Before ROOT comes the storage: first the
    files themselves, where it keeps yanks beside them (`SupportsYank`), then the document, which is
    what other servers read. A file is yanked as soon as one of the two says so. So a crash between
    them leaves a yank that the next `update_index` completes, or one that is not undone yet; the
    other order would let an `update_index` in the middle bring back what is being undone. And what
    the storage refuses is refused before anything was changed.
    """
    filenames = [file.filename for file in files]
    has_document = backend.capabilities.lists_files
    if isinstance(backend, SupportsYank):
        for file in files:
            backend.yank_file(file, reason)
    elif not has_document:
        raise Unsupported(f"a repository of type {backend_type!r} cannot yank files")
    if has_document:
        edit_index(
            backend,
            backend_type=backend_type,
            folders=folders,
            yank=dict.fromkeys(filenames, reason),
            files=files,
        )
    index.set_yanked(filenames, reason)


def delete(
    files: Sequence[DistributionFile],
    *,
    backend: AnyBackend,
    index: LocalIndex,
    folders: Folders,
    backend_type: str,
) -> None:
    """Delete the files for ever and burn their names (protocol 71).

    The names are burnt first, in the storage and here: a crash afterwards leaves bytes that nobody
    is shown, and that the next `update_index` removes. A storage without a document has no place
    for burnt names: there the files go first, so that whoever was interrupted can ask again, and
    the names are burnt here alone.
    """
    if not isinstance(backend, SupportsDelete):
        raise Unsupported(f"a repository of type {backend_type!r} cannot delete files; yank them")
    has_document = backend.capabilities.lists_files
    if has_document:
        edit_index(backend, backend_type=backend_type, folders=folders, delete=files)
    else:
        for file in files:
            backend.delete_file(file)
    index.remove_files([file.filename for file in files], burn=True, at=datetime.now(UTC))
    if has_document:
        for file in files:
            backend.delete_file(file)
