"""The changes that people make to an index: publish, yank and delete files, and restore names.

The steps of each change are in an order in which a crash does no harm. If the storage refuses a
step, the steps before it are undone, so that after an error nothing has changed. Nothing here
checks who may make a change (`repositories`) or what was uploaded (`distributions/upload`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from filelock import FileLock, Timeout

from private_pypi.backend import (
    AnyStorage,
    Folders,
    SupportsDelete,
    SupportsPublish,
    SupportsRestore,
    SupportsYank,
    capability,
    system_errors,
)
from private_pypi.distributions.filenames import file_key, parse_filename
from private_pypi.distributions.records import file_from_record
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileAlreadyExists,
    FilenameBurnt,
    PrivatePypiError,
    Unsupported,
)
from private_pypi.index.document import IndexEdit
from private_pypi.index.examining import with_record
from private_pypi.index.local import LocalIndex
from private_pypi.index.stored_document import burnt_in_document, edit_index, has_index
from private_pypi.model import DistributionFile, Stream, Upload, format_time
from private_pypi.storage.file_cache import close_stream

_LOCK_SECONDS = 60.0
_LOCK_DIGITS = 3  # of a hash in hex: 4096 locks, so that two filenames seldom share one


def publish(
    upload: Upload, *, storage: AnyStorage, index: LocalIndex, backend_type: str
) -> DistributionFile:
    """Store a file and show it. When this returns, the pages of all processes have it.

    The file is stored first: after a crash between the two steps, the next synchronisation finds
    it. If the same bytes are published already, that file is returned. Raises `FileAlreadyExists`
    if other bytes are, and `FilenameBurnt` for a deleted name.

    A name in another spelling is the same name (`ParsedFilename.key`), because installers do not
    tell the two apart. The processes of a ROOT publish a name one after another. A storage compares
    filenames exactly. So if a server with another ROOT has just published the name in another
    spelling, and the local index does not have it yet, both files are served.
    """
    publishing = capability(storage, SupportsPublish)
    if publishing is None:
        raise Unsupported(f"this repository of type {backend_type!r} takes no uploads")
    filename = upload.file.filename
    with _alone(filename, storage.backend.folders):
        same = index.same_files(filename)
        known = next((file for file in same if file.filename == filename), None)
        if known is None:
            for file in same:
                if file.sha256 == upload.file.sha256:
                    return file
            burnt = index.burnt(filename)
            if burnt is not None:
                raise FilenameBurnt(filename, deleted=burnt.filename)
            if same:
                raise FileAlreadyExists(filename, published=same[0].filename)
        else:
            # A file that somebody put into the storage need not be where uploads are put.
            upload = replace(upload, file=replace(upload.file, location=known.location))
            if known.sha256 == upload.file.sha256 and known.uploaded_at is not None:
                upload = _uploaded_at(known.uploaded_at, upload)
        stored = with_record(storage, publishing.put_file(upload))
        # If two servers store the same file, the record has the upload time of the first one.
        file = file_from_record(stored) or replace(
            upload.file,
            location=stored.location,
            yanked=stored.yanked,
            # As in listings, so that all servers show the same time.
            uploaded_at=stored.uploaded_at or upload.file.uploaded_at,
        )
        traits = storage.backend.traits
        is_listed = traits.lists_cheaply and traits.answers_exactly
        index.add_file(file, stored.stamp, is_listed=is_listed)
    # The local index may have been replaced by a new one meanwhile, which does not know every burnt
    # name until it is ready.
    if not index.ready():
        raise BackendUnavailable("the local index is being rebuilt; send the file again")
    burnt = index.burnt(filename)
    if burnt is not None and (known is None or burnt.filename == filename):
        raise FilenameBurnt(filename, deleted=burnt.filename)
    return file


def _uploaded_at(moment: datetime, upload: Upload) -> Upload:
    """The same upload with another time: that of the file that is published already."""
    return replace(
        upload,
        file=replace(upload.file, uploaded_at=moment),
        record={**upload.record, "uploaded_at": format_time(moment)},
    )


@contextmanager
def _alone(filename: str, folders: Folders) -> Iterator[None]:
    """Exclude other uploads of this filename, in any spelling, in all processes of this ROOT."""
    digest = hashlib.sha256(file_key(filename).encode()).hexdigest()
    # A new object for every use, because a shared one does not exclude other threads.
    lock = FileLock(folders.lock / f"publish-{digest[:_LOCK_DIGITS]}.lock")
    with system_errors(f"cannot lock {filename!r} in {folders.lock}"):
        try:
            lock.acquire(timeout=_LOCK_SECONDS, poll_interval=0.01)
        except Timeout:
            raise BackendUnavailable(
                f"another upload of {filename!r} has been going on for long; send it again"
            ) from None
    try:
        yield
    finally:
        lock.release()


def yank(
    files: Sequence[DistributionFile],
    reason: str | None,
    *,
    storage: AnyStorage,
    index: LocalIndex,
    backend_type: str,
) -> None:
    """Yank the files with a reason ("": none was given), or un-yank them (`reason=None`).

    This can be undone, and the files can still be downloaded (PEP 592). The steps are:

    1. yank the files in the storage, if it keeps yanks beside them (`SupportsYank`),
    2. edit the document, which other servers read,
    3. change the local index.

    A file is yanked if the storage or the document says so. So after a crash between the first two
    steps, a file is yanked that the next `update_index` adds to the document, or a file is not yet
    un-yanked. In the other order, an `update_index` between the steps could yank files again that
    are being un-yanked.

    If the storage refuses a step, the steps before it are undone.
    """
    filenames = [file.filename for file in files]
    has_document = has_index(storage)
    done: list[DistributionFile] = []
    try:
        yanking = capability(storage, SupportsYank)
        if yanking is not None:
            for file in files:
                yanking.yank_file(file, reason)
                done.append(file)
        elif not has_document:
            raise Unsupported(f"a repository of type {backend_type!r} cannot yank files")
        if has_document:
            change = IndexEdit(yank=dict.fromkeys(filenames, reason), files=files)
            edit_index(storage, change, backend_type=backend_type)
    except PrivatePypiError as error:
        if done and not isinstance(error, BackendError):
            _undo_yanks(done, error, storage=storage)
        raise
    index.set_yanked(filenames, reason)


def _undo_yanks(
    files: Sequence[DistributionFile], error: PrivatePypiError, *, storage: AnyStorage
) -> None:
    """Yank the files in the storage as they were before. If that fails, `error` says so."""
    yanking = capability(storage, SupportsYank)
    assert yanking is not None
    for number, file in enumerate(files):
        try:
            yanking.yank_file(file, file.yanked)
        except PrivatePypiError as further:
            _add(
                error,
                f"it was done for {_names(files[number:])} before that, and could not be undone: "
                f"{further}",
            )
            return


def delete(
    files: Sequence[DistributionFile],
    *,
    storage: AnyStorage,
    index: LocalIndex,
    backend_type: str,
) -> None:
    """Delete the files for ever and burn their names (protocol 71).

    With a document, the names are burnt first, in the document and in the local index. A crash
    after that leaves files that are not shown, and that the next `update_index` removes. If the
    storage refuses to delete a file, its name is restored, also in the document, which other
    servers may have read meanwhile, and the file is served as before.

    A storage without a document burns names itself when it deletes files (`SupportsDelete`). Then
    the local index comes last, so that an interrupted deletion can be repeated. The names are burnt
    there too, because a listing may still have a deleted file.

    If only a part was done, the text of the error says what.
    """
    deleting = capability(storage, SupportsDelete)
    if deleting is None:
        raise Unsupported(f"a repository of type {backend_type!r} cannot delete files; yank them")
    has_document = has_index(storage)
    if has_document:
        # The document must have files whose names differ only in their spelling: its entries show
        # that these were published before the deletion.
        change = IndexEdit(delete=files, files=_others(files, index))
        edit_index(storage, change, backend_type=backend_type)
        index.remove_files([file.filename for file in files], burn=True, at=datetime.now(UTC))
    gone: list[DistributionFile] = []
    try:
        for file in files:
            deleting.delete_file(file)
            gone.append(file)
    except PrivatePypiError as error:
        left = files[len(gone) :]
        if gone:
            _add(error, f"deleted before that: {_names(gone)}")
        if has_document and not _is_refusal(error, left[0], storage):
            _add(
                error,
                f"no longer served, and burnt, but maybe still stored: {_names(left)}; the next "
                "`update_index` removes what is left",
            )
        elif has_document:
            try:
                edit_index(storage, IndexEdit(restore=left), backend_type=backend_type)
                index.restore_files(left)
            except PrivatePypiError as further:
                _add(
                    error,
                    f"no longer served, and burnt, but still stored: {_names(left)}, because that "
                    f"could not be undone: {further}",
                )
        raise
    finally:
        if not has_document and gone:
            index.remove_files([file.filename for file in gone], burn=True, at=datetime.now(UTC))


def restore_name(
    filename: str,
    *,
    storage: AnyStorage,
    index: LocalIndex | None,
    backend_type: str,
) -> list[str]:
    """Allow the name of a deleted file again, in any spelling.

    Returns the names as they were spelled when they were deleted; none if no such name is burnt.
    What the storage has under such a name is shown again. `index` is the local index of the server,
    which may know names that the storage has lost; None: there is none yet. It is changed last, so
    that an interrupted command can be repeated. The document is read in this process, which can
    take long and should therefore not be a server.
    """
    parsed = parse_filename(filename)
    has_document = has_index(storage)
    burnt = [] if index is None else list(index.burnt_names(parsed.project).values())
    if has_document:
        burnt += burnt_in_document(storage)
    burnt = [name for name in burnt if file_key(name.filename) == parsed.key]
    names = {name.filename for name in burnt}
    if has_document and burnt:
        edit_index(storage, IndexEdit(lift=burnt), backend_type=backend_type)
    elif (restoring := capability(storage, SupportsRestore)) is not None:
        names.update(restoring.restore_name(parsed.project, filename))
    elif not has_document:
        raise Unsupported(f"a repository of type {backend_type!r} cannot restore names")
    if index is not None and names:
        index.restore_names(sorted(names))
    return sorted(names)


def _others(files: Sequence[DistributionFile], index: LocalIndex) -> list[DistributionFile]:
    """Published files that differ from these only in the spelling of their names; they stay."""
    same = {one.filename: one for file in files for one in index.same_files(file.filename)}
    return [one for name, one in same.items() if name not in {file.filename for file in files}]


def _is_refusal(error: PrivatePypiError, file: DistributionFile, storage: AnyStorage) -> bool:
    """Whether it is known that a failed deletion has changed nothing.

    After trouble with the storage this is unknown, unless its answers are exact and it has the
    file.
    """
    if not isinstance(error, BackendError):
        return True
    if isinstance(error, BackendUnavailable) or not storage.backend.traits.answers_exactly:
        return False
    try:
        opened = storage.open_file(file)
    except PrivatePypiError:
        return False
    if isinstance(opened, Stream):
        close_stream(opened)
    return True


def _add(error: PrivatePypiError, sentence: str) -> None:
    """Add a sentence to an error. Its type stays, as the status of the answer depends on it."""
    error.args = (f"{error}; {sentence}",)


def _names(files: Sequence[DistributionFile]) -> str:
    return ", ".join(file.filename for file in files)
