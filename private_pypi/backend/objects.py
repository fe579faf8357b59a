"""A complete backend for object stores, which only needs a class with six methods for the store.

An object has a key, content, a revision and a time. These are the keys in a repository:

    index.toml                                 the index document
    <project>/<filename>                       the file
    <project>/<filename>.<sha256>.metadata     its core metadata
    <project>/<filename>.<sha256>.record       its record, as JSON

The core metadata and the record are stored first. Their keys contain the hash of the file, so that
two writers with different files do not overwrite each other's. Then the file itself is stored, on
the condition that it does not exist yet; this decides which of two writers succeeds. A writer that
is killed in between leaves a record or core metadata without a file. They are not visible, and are
removed after a day (`sweep`).

A file that did not come from a server has no record, and the record of a file whose content was
replaced is ignored. The core opens such a file once.
"""

from __future__ import annotations

import abc
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from private_pypi.backend.access import Access
from private_pypi.backend.capabilities import NO_INDEX
from private_pypi.backend.settings import Folders, RemoteSettings, Secret, SecretsSettings
from private_pypi.backend.storage import Backend, Storage
from private_pypi.errors import (
    BackendError,
    FileAlreadyExists,
    FileNotFound,
    InvalidFilename,
    NotFound,
    StaleIndex,
)
from private_pypi.model import (
    DistributionFile,
    Download,
    FileHandle,
    Record,
    StoredFile,
    Stream,
    Upload,
)

NO_OBJECT = ""
"""The revision of an object that does not exist."""

_INDEX = "index.toml"
_LARGEST_SIDECAR = 32 * 2**20  # bytes of a record or of core metadata
_SUFFIXES = (".whl", ".tar.gz", ".zip")
_SIDECAR = re.compile(r"(?P<filename>.+)\.(?P<sha256>[0-9a-f]{64})\.(?P<kind>record|metadata)")
_BELONGS = timedelta(days=1)
"""How much later than its record a file may be stored. A later one has replaced the first file."""


class ObjectNotFound(NotFound):
    """There is no object with this key. Do not raise it for failures such as a missing bucket."""


class ObjectChanged(Exception):
    """The object was not replaced, because it no longer has the expected revision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """An object in a listing."""

    key: str
    size: int  # bytes
    revision: str  # a different one for each content; never `NO_OBJECT`
    modified_at: datetime  # UTC, by the clock of the store


class ObjectStore(abc.ABC):
    """An object store. Its methods raise the same errors as a `Storage`, and do not retry."""

    @abc.abstractmethod
    def get(self, key: str) -> tuple[Stream, str]:
        """The content of an object and its revision. Raises `ObjectNotFound`."""

    @abc.abstractmethod
    def get_part(self, key: str, start: int, length: int) -> bytes:
        """The `length` bytes from position `start`; fewer at the end. Raises `ObjectNotFound`."""

    @abc.abstractmethod
    def put(self, key: str, content: Path | bytes, *, replaces: str) -> str:
        """Store an object if its revision is still `replaces`, and return the new revision.

        With `NO_OBJECT`, store it only if there is no such object. Otherwise, raise
        `ObjectChanged`. When the call returns, the object must survive a power cut.
        """

    @abc.abstractmethod
    def list(self, prefix: str) -> Iterator[StoredObject]:
        """The objects whose keys begin with `prefix`, ordered by their keys as bytes."""

    @abc.abstractmethod
    def delete(self, key: str) -> None:
        """Delete an object if it exists."""

    @abc.abstractmethod
    def link(self, key: str, filename: str) -> Download | None:
        """An address where clients can fetch an object without credentials; None if impossible.

        The answer there should have the name `filename` in Content-Disposition.
        """

    def close(self) -> None:  # noqa: B027 - most stores have nothing to close
        """Close all connections."""


@dataclass(frozen=True, kw_only=True)
class ObjectsSettings(RemoteSettings, SecretsSettings):
    """The settings of every backend for an object store."""


ObjectsSettingsT = TypeVar("ObjectsSettingsT", bound=ObjectsSettings)


class ObjectsStorage(Storage["ObjectsBackend[Any]"]):
    """The view of a repository in an object store."""

    def __init__(self, backend: ObjectsBackend[Any], secret: Secret) -> None:
        super().__init__(backend, secret)
        self._store = backend.store

    def access(self, project: str | None = None) -> Access:
        settings: ObjectsSettings = self.backend.settings
        return settings.access_of(self.secret)

    # -- reading ---------------------------------------------------------------------------------

    def list_files(self) -> Iterator[StoredFile]:
        for folder, objects in groupby(self._store.list(""), key=_folder):
            if folder:
                yield from _files(objects)

    def read_record(self, file: StoredFile) -> Record | None:
        key = self._key(file.project or "", file.filename, file.location)
        found = next(iter(_files(self._store.list(key))), None)
        if found is None or found.stamp != file.stamp or found.sha256 is None:
            return None
        record = self._read_record(key, found.sha256)
        return record if record is not None and record.get("size") == str(file.size) else None

    def open_file(self, file: FileHandle) -> Download:
        key = self._key(file.project, file.filename, file.location)
        with _absent_file(file.filename):
            if self.backend.settings.download == "redirect":
                self._store.get_part(key, 0, 1)  # raises an error if there is no such object
                link = self._store.link(key, file.filename)
                if link is not None:
                    return link
            return self._store.get(key)[0]

    def open_core_metadata(self, file: DistributionFile) -> Download:
        key = self._key(file.project, file.filename, file.location)
        with _absent_file(f"{file.filename}.metadata"):
            self._store.get_part(key, 0, 1)
            return self._store.get(_sidecar(key, file.sha256, "metadata"))[0]

    def read_part(self, location: str, start: int, length: int) -> bytes:
        if not _is_location(location):
            raise FileNotFound(location)
        with _absent_file(location):
            return self._store.get_part(location, start, length)

    # -- writing ---------------------------------------------------------------------------------

    def put_file(self, upload: Upload) -> StoredFile:
        file = upload.file
        if not _is_filename(file.filename) or not _is_plain(file.project):
            raise InvalidFilename(file.filename, "this storage cannot store such a name")
        key = self._key(file.project, file.filename, file.location)
        existing = self._stat(key)
        if existing is None:
            # A writer that was killed may have left older ones, which would not belong to the file.
            self._remove_sidecars(key, file.sha256, older_than=_BELONGS / 2)
            self._put_sidecars(key, upload)
            with contextlib.suppress(ObjectChanged):
                revision = self._store.put(key, upload.content, replaces=NO_OBJECT)
                return self._stored(upload, key, revision)
            existing = self._stat(key)
            if existing is None:
                raise BackendError(f"{file.filename!r} vanished from the storage during the upload")
        if existing.size != file.size or self._sha256(key) != file.sha256:
            self._remove_sidecars(key, file.sha256)  # those that we have just stored
            raise FileAlreadyExists(file.filename)
        self._put_sidecars(key, upload)
        return self._stored(upload, key, existing.revision)

    def delete_file(self, file: FileHandle) -> None:
        key = self._key(file.project, file.filename, file.location)
        self._store.delete(key)
        self._remove_sidecars(key)

    def sweep(self) -> None:
        """Remove records and metadata whose file was not stored within a day."""
        for folder, objects in groupby(self._store.list(""), key=_folder):
            if not folder:
                continue
            found = list(objects)
            files = {each.key: each for each in found}
            now = max(datetime.now(UTC), *(each.modified_at for each in found))
            for each in found:
                match = _SIDECAR.fullmatch(each.key)
                if match is None or now - each.modified_at <= _BELONGS:
                    continue
                file = files.get(match["filename"])
                # Beside a file there may be those of a writer that lost, or was killed before.
                if file is None or (
                    len(_hashes(found, file.key)) > 1 and match["sha256"] != self._sha256(file.key)
                ):
                    self._store.delete(each.key)

    # -- the index document ----------------------------------------------------------------------

    def read_index(self, into: Path, unless: str | None = None) -> str:
        try:
            content, revision = self._store.get(_INDEX)
        except ObjectNotFound:
            return NO_INDEX
        if revision != unless:
            with into.open("wb") as file:
                for chunk in content.chunks:
                    file.write(chunk)
        return revision

    def write_index(self, content: Path, replaces: str) -> str:
        try:
            return self._store.put(_INDEX, content, replaces=replaces)
        except ObjectChanged:
            raise StaleIndex("the index was written by somebody else since it was read") from None

    # -- how -------------------------------------------------------------------------------------

    def _key(self, project: str, filename: str, location: str) -> str:
        """The key of a file. The location is only used if it has the right filename."""
        is_it = _is_location(location) and location.partition("/")[2] == filename
        return location if is_it else f"{project}/{filename}"

    def _stat(self, key: str) -> StoredObject | None:
        first = next(self._store.list(key), None)
        return first if first is not None and first.key == key else None

    def _put_sidecars(self, key: str, upload: Upload) -> None:
        """Store the core metadata and the record of a file, unless they exist already."""
        record = json.dumps(dict(upload.record)).encode()
        for kind, content in (("metadata", upload.core_metadata), ("record", record)):
            if content is not None:
                with contextlib.suppress(ObjectChanged):
                    sidecar = _sidecar(key, upload.file.sha256, kind)
                    self._store.put(sidecar, content, replaces=NO_OBJECT)

    def _read(self, key: str) -> bytes | None:
        with contextlib.suppress(ObjectNotFound):
            stream, _ = self._store.get(key)
            if stream.size <= _LARGEST_SIDECAR:
                return b"".join(stream.chunks)
        return None

    def _read_record(self, key: str, sha256: str) -> Record | None:
        content = self._read(_sidecar(key, sha256, "record"))
        try:
            found = None if content is None else json.loads(content)
        except ValueError:
            return None
        if not isinstance(found, dict):
            return None
        return {str(name): value for name, value in found.items() if isinstance(value, str)}

    def _sha256(self, key: str) -> str:
        stream, _ = self._store.get(key)
        digest = hashlib.sha256()
        for chunk in stream.chunks:
            digest.update(chunk)
        return digest.hexdigest()

    def _stored(self, upload: Upload, key: str, revision: str) -> StoredFile:
        """The file that was just stored, with the record of the first writer."""
        found = next(iter(_files(self._store.list(key))), None)
        if found is None or found.location != key:
            raise BackendError(f"{upload.file.filename!r} vanished from the storage")
        record = self._read_record(key, upload.file.sha256)
        return replace(found, stamp=revision, record=record or upload.record)

    def _remove_sidecars(
        self, key: str, sha256: str | None = None, *, older_than: timedelta = timedelta(0)
    ) -> None:
        prefix = f"{key}." if sha256 is None else f"{key}.{sha256}."
        now = datetime.now(UTC)
        for each in list(self._store.list(prefix)):
            match = _SIDECAR.fullmatch(each.key)
            is_old = not older_than or now - each.modified_at > older_than
            if match is not None and match["filename"] == key and is_old:
                self._store.delete(each.key)


class ObjectsBackend(Backend[ObjectsSettingsT]):
    """The base class of a backend for an object store.

    A derived class defines `open_store`, `traits`, and `Settings`, which derive from
    `ObjectsSettings`.
    """

    Settings = ObjectsSettings
    View = ObjectsStorage

    def __init__(self, settings: ObjectsSettingsT, folders: Folders) -> None:
        super().__init__(settings, folders)
        self._store: ObjectStore | None = None
        self._lock = threading.Lock()  # guards _store

    @property
    def store(self) -> ObjectStore:
        """The store. It is opened when it is needed for the first time."""
        with self._lock:
            if self._store is None:
                self._store = self.open_store()
            return self._store

    @abc.abstractmethod
    def open_store(self) -> ObjectStore:
        """Create the store from the settings. This does no I/O."""

    def close(self) -> None:
        """Close the store, if it was opened."""
        with self._lock:
            found, self._store = self._store, None
        if found is not None:
            found.close()


def _hashes(objects: Iterable[StoredObject], key: str) -> set[str]:
    """The hashes for which there is a record or core metadata of a file."""
    matches = (_SIDECAR.fullmatch(each.key) for each in objects)
    return {match["sha256"] for match in matches if match is not None and match["filename"] == key}


def _files(objects: Iterable[StoredObject]) -> list[StoredFile]:
    """The files among the objects of a project.

    The hash of a file is in the key of its record. It is left out if there are several records, or
    if the file is so much newer than its record that it must have been replaced.
    """
    found: list[StoredObject] = []
    records: dict[str, list[tuple[str, datetime]]] = {}
    for each in objects:
        match = _SIDECAR.fullmatch(each.key)
        if match is None:
            if _is_location(each.key):
                found.append(each)
        elif match["kind"] == "record":
            records.setdefault(match["filename"], []).append((match["sha256"], each.modified_at))
    files = []
    for each in found:
        known = records.get(each.key, [])
        belongs = len(known) == 1 and each.modified_at - known[0][1] <= _BELONGS
        project, _, filename = each.key.partition("/")
        files.append(
            StoredFile(
                filename=filename,
                size=each.size,
                location=each.key,
                stamp=each.revision,
                sha256=known[0][0] if belongs else None,
                modified_at=each.modified_at,
                project=project,
            )
        )
    return files


@contextlib.contextmanager
def _absent_file(filename: str) -> Iterator[None]:
    try:
        yield
    except ObjectNotFound:
        raise FileNotFound(filename) from None


def _sidecar(key: str, sha256: str, kind: str) -> str:
    return f"{key}.{sha256}.{kind}"


def _folder(each: StoredObject) -> str:
    folder, slash, rest = each.key.partition("/")
    return folder if slash and "/" not in rest and _is_plain(folder) else ""


def _is_location(key: str) -> bool:
    """Whether a key has the form of that of a distribution file."""
    folder, slash, filename = key.partition("/")
    return bool(slash) and _is_plain(folder) and _is_filename(filename)


def _is_filename(name: str) -> bool:
    return _is_plain(name) and name.endswith(_SUFFIXES)


def _is_plain(name: str) -> bool:
    return bool(name) and name.isprintable() and "/" not in name and not name.startswith(".")
