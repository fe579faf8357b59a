"""The changes people make to an index: publish, delete and yank.

Each is done in an order that a crash cannot hurt. Nothing here checks who may do it
(`repositories`) or what was sent (`upload`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from private_pypi.backend import AnyBackend, Folders, SupportsDelete
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
    file = file_from_record(stored) or replace(upload.file, location=stored.location)
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

    Reversible, and the files stay downloadable (PEP 592). The document in the storage comes first:
    it is what other servers read, and what survives the loss of ROOT.
    """
    filenames = [file.filename for file in files]
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
    is shown, and that the next `update_index` removes.
    """
    if not isinstance(backend, SupportsDelete):
        raise Unsupported(f"a repository of type {backend_type!r} cannot delete files; yank them")
    edit_index(backend, backend_type=backend_type, folders=folders, delete=files)
    index.remove_files([file.filename for file in files], burn=True, at=datetime.now(UTC))
    for file in files:
        backend.delete_file(file)
