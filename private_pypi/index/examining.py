"""Finds out the facts of stored files, from their records or by opening the files.

Facts are what pages say of a file: hashes, the version, what its core metadata says.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from private_pypi.backend import (
    AnyStorage,
    SupportsFind,
    SupportsParts,
    SupportsRecords,
    SupportsSweep,
    capability,
    system_errors,
)
from private_pypi.distributions.core_metadata import examine
from private_pypi.distributions.filenames import file_key, parse_filename
from private_pypi.errors import (
    AccessError,
    BackendError,
    BackendUnavailable,
    FileNotFound,
    InvalidUpload,
    PrivatePypiError,
    StorageFull,
)
from private_pypi.model import (
    BurntName,
    DistributionFile,
    FileHandle,
    LocalFile,
    Redirect,
    StoredFile,
    StoredName,
    Stream,
)
from private_pypi.storage.remote_files import RemoteFile

if TYPE_CHECKING:
    import requests

_log = logging.getLogger(__name__)

UNKNOWN_SIZE = -1
"""The size of a `StoredFile` that was made from an entry of version 0.2."""

_FETCH_TIMEOUT = (10, 60)  # seconds to connect, and between two chunks
_FETCH_CHUNK = 1 << 20  # bytes


def examine_stored(
    storage: AnyStorage, stored: StoredFile, folder: Path
) -> DistributionFile | PrivatePypiError:
    """Open one file and find out its facts. Returns and raises errors as `readers.examine_all`."""
    try:
        with opened_file(storage, stored, folder) as file:
            size = os.fstat(file.fileno()).st_size
            if stored.size == UNKNOWN_SIZE:
                stored = replace(stored, size=size)
            elif stored.size != size:  # the transfer was cut off, or it is still being copied
                return BackendError(
                    f"{stored.filename!r} has {size} bytes where {stored.size} were listed"
                )
            return examine(stored, file).file
    except (BackendUnavailable, StorageFull):
        raise
    except (InvalidUpload, FileNotFound, BackendError) as error:
        return error
    except OSError as error:
        return BackendError(f"{stored.filename!r} cannot be read: {error.strerror}")


@contextmanager
def opened_file(storage: AnyStorage, stored: StoredFile, folder: Path) -> Iterator[BufferedReader]:
    """The file, open. A file that is elsewhere is fetched into `folder` for that time."""
    download = storage.open_file(handle_of(stored))
    if isinstance(download, LocalFile):
        with download.file as file:
            yield file
        return
    with tempfile.NamedTemporaryFile(prefix="examine-", dir=folder) as copy:
        with system_errors(f"cannot fetch {stored.filename!r} to examine it"):
            for chunk in chunks_of(download, stored.filename):
                copy.write(chunk)
            copy.flush()
        copy.seek(0)
        yield cast(BufferedReader, copy)


def chunks_of(download: Redirect | Stream, filename: str) -> Iterator[bytes]:
    """The content of a file that is elsewhere; raises `BackendUnavailable` if it is cut off."""
    if isinstance(download, Stream):
        yield from download.chunks
        return
    import requests  # slow to import, and many servers never need it

    # The address may contain a secret, so no message mentions it.
    try:
        with requests.get(
            download.url, stream=True, timeout=_FETCH_TIMEOUT, auth=_without_credentials
        ) as answer:
            if answer.status_code != requests.codes.ok:
                raise BackendUnavailable(
                    f"the storage answered {answer.status_code} for the content of {filename!r}"
                )
            yield from answer.iter_content(_FETCH_CHUNK)
    except requests.RequestException as error:
        raise BackendUnavailable(
            f"the content of {filename!r} did not arrive: {type(error).__name__}"
        ) from None


def _without_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    # Otherwise `requests` would add credentials from ~/.netrc, which signed addresses refuse.
    return request


def handle_of(stored: StoredFile) -> FileHandle:
    """The handle that opens a listed file. Raises `InvalidFilename`."""
    return FileHandle(
        project=parse_filename(stored.filename).project,
        filename=stored.filename,
        size=None if stored.size == UNKNOWN_SIZE else stored.size,
        sha256=stored.sha256,
        location=stored.location,
    )


def with_record(storage: AnyStorage, stored: StoredFile) -> StoredFile:
    """A listed file with its record. The storage is asked for a record that the listing lacks."""
    if stored.record is not None:
        return stored
    records = capability(storage, SupportsRecords)
    record = None if records is None else records.read_record(stored)
    return stored if record is None else replace(stored, record=record)


def remote_file(storage: SupportsParts, file: FileHandle | StoredFile, size: int) -> BinaryIO:
    """A file of the storage, opened so that only the parts that are read are fetched."""
    return cast(BinaryIO, RemoteFile(size, partial(storage.read_part, file.location)))


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A folder that is removed afterwards. Errors of the disk are raised as `BackendError`."""
    with (
        system_errors(f"trouble with a file below {parent}"),
        tempfile.TemporaryDirectory(prefix="index-", dir=parent) as folder,
    ):
        yield Path(folder)


def find_named(storage: AnyStorage, named: StoredName) -> StoredFile | None:
    """Ask the storage about a file that a listing gave by name; None if it is gone."""
    finding = capability(storage, SupportsFind)
    if finding is None:
        raise BackendError(f"the storage lists {named.filename!r} by name and cannot find it")
    return finding.find_file(named.filename)


def sweep(storage: AnyStorage) -> None:
    """Remove what writers that were killed have left in the storage. Trouble is only logged."""
    sweeping = capability(storage, SupportsSweep)
    if sweeping is None:
        return
    try:
        sweeping.sweep()
    except (BackendError, AccessError) as error:
        _log.warning("what killed writers left could not be removed: %s", error)


def burnt_again(
    stored: StoredFile, recorded: DistributionFile | None, burnt_keys: Mapping[str, BurntName]
) -> str | None:
    """What is wrong with a new file whose name was burnt in another spelling; None: nothing.

    `recorded` is the file as its record describes it, `burnt_keys` has burnt names by their
    `file_key`. A file that was uploaded before the deletion stays: it was published beside the
    deleted one when servers did not compare spellings yet. Without a time it counts as later.
    """
    burnt = burnt_keys.get(file_key(stored.filename)) if burnt_keys else None
    uploaded_at = (recorded or stored).uploaded_at
    if burnt is None or (uploaded_at is not None and uploaded_at <= burnt.deleted_at):
        return None
    return (
        f"{stored.filename!r} is not shown: it is the same to installers as {burnt.filename!r}, "
        "which was deleted; use a different version"
    )
