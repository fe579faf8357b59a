"""A complete backend for object stores, which only needs a class with six methods for the store.

These are the keys in a repository:

    index.toml                                 the index document
    <project>/<filename>                       the file
    <project>/<filename>.<sha256>.metadata     its core metadata
    <project>/<filename>.<sha256>.record       its record, as JSON
    .private_pypi/journal/…                    what is new (`object_journal`)

The core metadata and the record are stored first. Their keys contain the hash of the file, so that
two writers with different files do not overwrite each other's. Then the file itself is stored, on
the condition that it does not exist yet; this decides which of two writers succeeds. At last it is
noted in the journal. A writer that is killed before the file is stored leaves a record or core
metadata without a file. They are not visible, and are removed after a day (`sweep`). One that is
killed after that leaves a file that is not in the journal. It is found by the next listing of the
whole store, or when it is uploaded again.

A file that did not come from a server has no record, and the record of a file whose content was
replaced is ignored. The core opens such a file once.
"""

from __future__ import annotations

import abc
import base64
import contextlib
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

from private_pypi.backend.access import Access
from private_pypi.backend.capabilities import NO_INDEX
from private_pypi.backend.object_journal import Journal
from private_pypi.backend.object_listing import Folder, divide, list_folders, list_part
from private_pypi.backend.object_store import (
    NO_OBJECT,
    PARTS,
    ObjectChanged,
    ObjectNotFound,
    ObjectStore,
    ObjectUnchanged,
    StoredObject,
)
from private_pypi.backend.settings import Folders, RemoteSettings, Secret, SecretsSettings
from private_pypi.backend.storage import Backend, Storage
from private_pypi.backend.system_errors import system_errors
from private_pypi.errors import (
    BackendError,
    FileAlreadyExists,
    FileNotFound,
    InvalidFilename,
    StaleIndex,
)
from private_pypi.model import (
    DistributionFile,
    Download,
    FileHandle,
    Record,
    StoredFile,
    Upload,
)

_INDEX = "index.toml"
_LARGEST_SIDECAR = 32 * 2**20  # bytes of a record or of core metadata
_SUFFIXES = (".whl", ".tar.gz", ".zip")
_SIDECAR = re.compile(r"(.+)\.([0-9a-f]{64}|[A-Za-z0-9_-]{43})\.(record|metadata)")
_LONGEST_SEGMENT = 255  # bytes of a key between two slashes, in stores that are folders themselves
_LONGEST_FILENAME = _LONGEST_SEGMENT - len(".metadata") - 1 - 43
_BELONGS = timedelta(days=1)
"""How much later than its record a file may be stored. A later one has replaced the first file."""
_DAY = timedelta(days=1)
_HOUR = timedelta(hours=1)
_MTIME = re.compile(rb"(?m)^mtime = ([0-9]{1,12})$")


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
        yield from self._files_in(list_folders(self._store))
        self.backend.note_listing()

    def list_parts(self) -> Sequence[str]:
        return divide(self._store)

    def list_part(self, part: str) -> Iterator[StoredFile]:
        return self._files_in(list_part(self._store, part))

    def _files_in(self, folders: Iterable[Folder]) -> Iterator[StoredFile]:
        leftovers: list[str] = []
        for _, objects in folders:
            leftovers += _leftovers(objects)
            yield from _files(objects)
        self.backend.note_leftovers(leftovers)

    def recent_files(self, since: datetime) -> Iterator[StoredFile]:
        """What the journal has; once a day also what a listing of the whole store finds."""
        yield from self.backend.journal.read(self._store, since)
        if self.backend.is_listing_due():
            yield from self.list_files()

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
        is_short = len(file.filename.encode()) <= _LONGEST_FILENAME
        if not is_short or not _is_filename(file.filename) or not _is_plain(file.project):
            raise InvalidFilename(file.filename, "this storage cannot store such a name")
        key = self._key(file.project, file.filename, file.location)
        beside = list(self._store.list(key))
        existing = _find(beside, key)
        if existing is None:
            # A writer that was killed may have left older ones, which would not belong to the file.
            self._store.delete(*_sidecars(beside, key, file.sha256, older_than=_BELONGS / 2))
            self._put_sidecars(key, upload)
            with contextlib.suppress(ObjectChanged):
                self._store.put(key, upload.content, replaces=NO_OBJECT)
                return self._stored(upload, key)
            beside = list(self._store.list(key))
            existing = _find(beside, key)
            if existing is None:
                raise BackendError(f"{file.filename!r} vanished from the storage during the upload")
        if existing.size != file.size or self._sha256(key) != file.sha256:
            # Those that we have just stored, or that an upload like this one has left.
            self._store.delete(*_sidecars(beside, key, file.sha256))
            raise FileAlreadyExists(file.filename)
        self._put_sidecars(key, upload)
        return self._stored(upload, key)

    def delete_file(self, file: FileHandle) -> None:
        key = self._key(file.project, file.filename, file.location)
        beside = list(self._store.list(key))
        # First, so that a deletion that is interrupted leaves no entry of a file that is gone.
        self.backend.journal.forget(self._store, key)
        self._store.delete(key, *_sidecars(beside, key))

    def sweep(self) -> None:
        """Remove what killed writers have left more than a day ago: records, metadata and parts.

        They were found by the last listing of the whole store. Without one, nothing is done.
        """
        leftovers = self.backend.take_leftovers()
        if leftovers is None:
            return
        for key in leftovers:
            match = _Sidecar.parse(key)
            if match is None:
                continue
            # They are looked at again: somebody may be storing the file just now.
            beside = list(self._store.list(match.file))
            if key not in _leftovers(beside):
                continue
            file = _find(beside, match.file)
            # Beside a file there may be those of a writer that lost, or was killed before.
            if file is None or match.sha256 != self._sha256(file.key):
                self._store.delete(key)
        now = datetime.now(UTC)
        parts = [each.key for each in self._store.list(PARTS) if now - each.modified_at > _DAY]
        if parts:
            self._store.delete(*parts)
        self._store.sweep()

    # -- the index document ----------------------------------------------------------------------

    def read_index(self, into: Path, unless: str | None = None) -> str:
        try:
            content, revision = self._store.get(_INDEX, unless or NO_OBJECT)
            with into.open("wb") as file:
                for chunk in content.chunks:
                    file.write(chunk)
        except ObjectNotFound:
            revision = NO_INDEX
        except ObjectUnchanged:
            revision = unless or NO_INDEX
        self.backend.journal.is_of(revision)
        return revision

    def write_index(self, content: Path, replaces: str) -> str:
        try:
            revision = self._store.put(_INDEX, content, replaces=replaces)
        except ObjectChanged:
            raise StaleIndex("the index was written by somebody else since it was read") from None
        self._tidy_up(content)
        return revision

    def _tidy_up(self, content: Path) -> None:
        """After a listing was written into the document: remove what is not needed any more."""
        with content.open("rb") as file:
            match = _MTIME.search(file.read(4096))
        listed_at = int(match[1]) if match is not None else 0
        if not self.backend.is_newer_listing(listed_at):
            return
        with contextlib.suppress(BackendError):  # the document was written all the same
            before = datetime.fromtimestamp(listed_at, UTC)
            # An hour, because servers may know only the document before this one.
            self.backend.journal.compact(self._store, before - _HOUR)

    # -- how -------------------------------------------------------------------------------------

    def _key(self, project: str, filename: str, location: str) -> str:
        """The key of a file. The location is only used if it has the right filename."""
        is_it = _is_location(location) and location.partition("/")[2] == filename
        return location if is_it else f"{project}/{filename}"

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

    def _stored(self, upload: Upload, key: str) -> StoredFile:
        """The file that was just stored, with the record of the first writer, and in the journal.

        It is as in a listing, apart from the record.
        """
        found = next(iter(_files(self._store.list(key))), None)
        if found is None or found.location != key:
            raise BackendError(f"{upload.file.filename!r} vanished from the storage")
        self.backend.journal.add(self._store, found)
        record = self._read_record(key, upload.file.sha256)
        return replace(found, record=record or upload.record)


class ObjectsBackend(Backend[ObjectsSettingsT]):
    """The base class of a backend for an object store.

    A derived class defines `open_store`, `traits`, and `Settings`, which derive from
    `ObjectsSettings`.
    """

    Settings: ClassVar[type[ObjectsSettings]] = ObjectsSettings
    View: ClassVar[type[ObjectsStorage]] = ObjectsStorage

    def __init__(self, settings: ObjectsSettingsT, folders: Folders) -> None:
        super().__init__(settings, folders)
        self.journal = Journal()
        self._store: ObjectStore | None = None
        self._leftovers: dict[str, None] | None = None  # its keys: a set with an order
        self._listed_at = 0  # of the newest document that was written here, in unix seconds
        self._lock = threading.Lock()  # guards everything above but the journal

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

    # -- listings of the whole store -------------------------------------------------------------

    def is_listing_due(self) -> bool:
        """Whether the last listing was a day ago. The first one is due a day after the first call.

        A new server does not begin with one, because the index document has the files.
        """
        noted = self.folders.cache / "object-store-listed"
        with system_errors("cannot note when the storage was listed"):
            try:
                listed_at = noted.stat().st_mtime
            except FileNotFoundError:
                noted.touch()
                return False
        return not 0 <= time.time() - listed_at < _DAY.total_seconds()

    def note_listing(self) -> None:
        """The whole store was listed."""
        with system_errors("cannot note when the storage was listed"):
            (self.folders.cache / "object-store-listed").touch()

    def note_leftovers(self, leftovers: Sequence[str]) -> None:
        """Keys that were found in a listing, or in a part of one, and that `sweep` looks at."""
        with self._lock:
            # Once each: a part that breaks off is listed again, and nobody may take them for long.
            self._leftovers = {**(self._leftovers or {}), **dict.fromkeys(leftovers)}

    def take_leftovers(self) -> Sequence[str] | None:
        """What was noted since the last call; None if nothing was listed since then."""
        with self._lock:
            found, self._leftovers = self._leftovers, None
        return None if found is None else list(found)

    def is_newer_listing(self, listed_at: int) -> bool:
        """Whether a document is of a later listing (unix seconds) than those written before."""
        with self._lock:
            is_newer = listed_at > self._listed_at
            self._listed_at = max(listed_at, self._listed_at)
        return is_newer

    def close(self) -> None:
        """Close the store, if it was opened."""
        with self._lock:
            found, self._store = self._store, None
        if found is not None:
            found.close()


def _find(objects: Iterable[StoredObject], key: str) -> StoredObject | None:
    return next((each for each in objects if each.key == key), None)


def _sidecars(
    objects: Iterable[StoredObject],
    key: str,
    sha256: str | None = None,
    *,
    older_than: timedelta = timedelta(0),
) -> list[str]:
    """The keys of the records and the core metadata of a file: of one hash, or all of them."""
    now = datetime.now(UTC)
    matches = [(each, _Sidecar.parse(each.key)) for each in objects]
    return [
        each.key
        for each, match in matches
        if match is not None
        and match.file == key
        and sha256 in (None, match.sha256)
        and (not older_than or now - each.modified_at > older_than)
    ]


def _leftovers(objects: Sequence[StoredObject]) -> list[str]:
    """The keys of records and core metadata that are a day old, and may belong to no file.

    Those without a file belong to none. Of those of several hashes beside a file, some do.
    """
    if not objects:
        return []
    now = max(datetime.now(UTC), *(each.modified_at for each in objects))
    files = {each.key for each in objects}
    hashes: dict[str, set[str]] = {}
    old: list[tuple[str, str]] = []
    for each in objects:
        match = _Sidecar.parse(each.key)
        if match is not None:
            hashes.setdefault(match.file, set()).add(match.sha256)
            if now - each.modified_at > _BELONGS:
                old.append((each.key, match.file))
    return [key for key, file in old if file not in files or len(hashes[file]) > 1]


def _files(objects: Iterable[StoredObject]) -> list[StoredFile]:
    """The files among the objects of a project.

    The hash of a file is in the key of its record. It is left out if there are several records, or
    if the file is so much newer than its record that it must have been replaced.
    """
    found: list[StoredObject] = []
    records: dict[str, list[tuple[str, datetime]]] = {}
    for each in objects:
        match = _Sidecar.parse(each.key)
        if match is None:
            if _is_location(each.key):
                found.append(each)
        elif match.kind == "record":
            records.setdefault(match.file, []).append((match.sha256, each.modified_at))
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


class _Sidecar(NamedTuple):
    """The key of a record or of core metadata, in its parts."""

    file: str  # the key of the file
    sha256: str
    kind: str

    @classmethod
    def parse(cls, key: str) -> _Sidecar | None:
        match = _SIDECAR.fullmatch(key)
        if match is None:
            return None
        file, digest, kind = match.groups()
        return cls(file, digest if len(digest) == 64 else _long(digest), kind)


def _sidecar(key: str, sha256: str, kind: str) -> str:
    """The key of a record or of core metadata. If it would be too long, the hash is in base64."""
    usual = f"{key}.{sha256}.{kind}"
    if len(usual.rpartition("/")[2].encode()) <= _LONGEST_SEGMENT:
        return usual
    short = base64.urlsafe_b64encode(bytes.fromhex(sha256)).decode().rstrip("=")
    return f"{key}.{short}.{kind}"


def _long(digest: str) -> str:
    return base64.urlsafe_b64decode(f"{digest}=").hex()


def _is_location(key: str) -> bool:
    """Whether a key has the form of that of a distribution file."""
    folder, slash, filename = key.partition("/")
    return bool(slash) and _is_plain(folder) and _is_filename(filename)


def _is_filename(name: str) -> bool:
    return _is_plain(name) and name.endswith(_SUFFIXES)


def _is_plain(name: str) -> bool:
    return bool(name) and name.isprintable() and "/" not in name and not name.startswith(".")
