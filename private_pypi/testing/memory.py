"""Complete backends for tests, whose storage is an object in this process.

memory = Memory()
storage = memory.open("write")
memory.fail_next("read_index", BackendUnavailable("down"))
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from private_pypi.backend import (
    NO_INDEX,
    Access,
    AnyBackend,
    Backend,
    BackendSettings,
    Folders,
    Secret,
    Storage,
    Traits,
)
from private_pypi.distributions.filenames import file_key, parse_filename
from private_pypi.errors import (
    BackendUnavailable,
    FileAlreadyExists,
    FilenameBurnt,
    FileNotFound,
    NotAllowed,
    ProjectNotFound,
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

_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class _Kept:
    """A file in the storage."""

    stored: StoredFile
    content: bytes
    core_metadata: bytes | None
    published_at: datetime  # UTC


@dataclass(frozen=True, slots=True)
class _Fault:
    error: Exception
    after: int  # how many items an iterator yields before it raises the error


class Memory:
    """The content of a storage, which several views can share. Tests can make it fail.

    `calls` counts the calls of each method, `delay` makes a method slow, and `held` stops it until
    an event is set. `gives_sha256` is whether listings include hashes.

    For `LookupMemoryStorage`, `projects` are projects that exist even without files, and `rights`
    says for some secrets what they may do in each project.
    """

    def __init__(self, *, read_secret: str = "read", write_secret: str = "write") -> None:
        self.read_secret = read_secret
        self.write_secret = write_secret
        self.calls: Counter[str] = Counter()
        self.delay: dict[str, float] = {}  # method -> seconds
        self.projects: set[str] = set()  # normalised names
        self.rights: dict[str, dict[str, Access]] = {}  # secret -> project -> access
        self.gives_sha256 = True
        self.held: dict[str, threading.Event] = {}  # method -> event
        self.broken = False  # True: all methods raise `BackendUnavailable`
        self.transfer: Callable[[bytes], Iterator[bytes]] = _chunks
        """Makes chunks of the content of a file. A test can replace it by a slow or wrong one."""
        self._lock = threading.RLock()  # guards everything below
        self._faults: dict[str, list[_Fault]] = {}
        self._files: dict[str, _Kept] = {}  # by filename, oldest first
        self._index: bytes | None = None
        self._burnt: set[str] = set()  # filenames; only used if there is no index document
        self._serial = 0  # the last number that was used in a stamp or revision
        self._index_revision = NO_INDEX

    def open(
        self,
        secret: str = "write",
        *,
        backend: type[MemoryBackend] | None = None,
        folders: Folders | None = None,
        view: type[MemoryStorage] | None = None,
    ) -> MemoryStorage:
        """A view with this secret. It does not use its folders."""
        storage = self._seen(secret, backend or MemoryBackend, folders)
        assert isinstance(storage, MemoryStorage)
        return storage if view is None else view(storage.backend, storage.secret)

    def open_lookup(self, secret: str = "write") -> LookupMemoryStorage:
        """A view of a storage that only lists the files of one project at a time."""
        storage = self._seen(secret, LookupMemoryBackend, None)
        assert isinstance(storage, LookupMemoryStorage)
        return storage

    def _seen(
        self, secret: str, backend: type[AnyBackend], folders: Folders | None
    ) -> Storage[AnyBackend]:
        nowhere = Folders(cache=Path(), lock=Path(), tmp=Path())
        settings = MemorySettings(name="mine", max_file_bytes=1 << 30, storage=self)
        return backend(settings, folders or nowhere).seen_with(Secret(secret))

    def drop(self, filename: str, content: bytes, *, record: Record | None = None) -> None:
        """Add or replace a file without a server."""
        with self._lock:
            self._keep(filename, content, core_metadata=None, record=record)

    def remove(self, filename: str) -> None:
        """Remove a file without a server."""
        with self._lock:
            del self._files[filename]

    def fail_next(self, method: str, error: Exception, *, times: int = 1, after: int = 0) -> None:
        """Make the next `times` calls of a method raise an error.

        `list_files`, `recent_files`, `project_files` and `projects` first yield `after` items.
        """
        with self._lock:
            self._faults.setdefault(method, []).extend([_Fault(error, after)] * times)

    def _enter(self, method: str) -> None:
        """Count a call, delay it, and raise the error of `fail_next`."""
        fault = self._enter_iterator(method)
        if fault is not None:
            raise fault.error

    def _enter_iterator(self, method: str) -> _Fault | None:
        with self._lock:
            self.calls[method] += 1
            if self.broken:
                return _Fault(BackendUnavailable("the storage is down"), 0)
            ordered = self._faults.get(method)
            fault = ordered.pop(0) if ordered else None
        time.sleep(self.delay.get(method, 0))
        if method in self.held:
            self.held[method].wait(60)
        return fault

    def _keep(
        self, filename: str, content: bytes, *, core_metadata: bytes | None, record: Record | None
    ) -> StoredFile:
        self._serial += 1
        stored = StoredFile(
            filename=filename,
            size=len(content),
            location=f"memory-{self._serial}",
            stamp=str(self._serial),
            record=None if record is None else dict(record),
            sha256=hashlib.sha256(content).hexdigest() if self.gives_sha256 else None,
        )
        self._files[filename] = _Kept(stored, content, core_metadata, datetime.now(UTC))
        return stored


@dataclass(frozen=True, kw_only=True)
class MemorySettings(BackendSettings):
    """Settings with the storage itself, so they cannot come from a configuration file."""

    storage: Memory = field(default_factory=Memory)


class AnyMemoryStorage(Storage[Backend[MemorySettings]]):
    """The methods that all storages in memory share."""

    def __init__(self, backend: Backend[MemorySettings], secret: Secret) -> None:
        super().__init__(backend, secret)
        self.settings = backend.settings

    def access(self, project: str | None = None) -> Access:
        self.settings.storage._enter("access")
        return self._access_of_secret()

    def _access_of_secret(self) -> Access:
        storage = self.settings.storage
        given = self.secret.reveal()
        if given and given == storage.write_secret:
            return Access.WRITE
        return Access.READ if given and given == storage.read_secret else Access.NONE

    def open_file(self, file: FileHandle) -> Download:
        return self._stream(self._kept("open_file", file).content)

    def open_core_metadata(self, file: DistributionFile) -> Download:
        content = self._kept("open_core_metadata", file).core_metadata
        if content is None:
            raise FileNotFound(f"{file.filename}.metadata")
        return self._stream(content)

    def put_file(self, upload: Upload) -> StoredFile:
        storage = self.settings.storage
        storage._enter("put_file")
        content = upload.content.read_bytes()
        filename = upload.file.filename
        with storage._lock:
            first = storage._files.get(filename)
            if first is None:
                return storage._keep(
                    filename, content, core_metadata=upload.core_metadata, record=upload.record
                )
        if first.content != content:
            raise FileAlreadyExists(filename)
        return first.stored

    def delete_file(self, file: FileHandle) -> None:
        storage = self.settings.storage
        storage._enter("delete_file")
        with storage._lock:
            storage._files.pop(file.filename, None)

    def yank_file(self, file: FileHandle, reason: str | None) -> None:
        kept = self._kept("yank_file", file)
        storage = self.settings.storage
        with storage._lock:
            stored = replace(kept.stored, yanked=reason)
            storage._files[file.filename] = replace(kept, stored=stored)

    def _stream(self, content: bytes) -> Stream:
        return Stream(self.settings.storage.transfer(content), len(content))

    def _kept(self, method: str, file: FileHandle) -> _Kept:
        storage = self.settings.storage
        storage._enter(method)
        with storage._lock:
            kept = storage._files.get(file.filename)
        if kept is None:
            raise FileNotFound(file.filename)
        return kept

    def _give(self, method: str, wanted: Callable[[_Kept], bool]) -> Iterator[StoredFile]:
        storage = self.settings.storage
        fault = storage._enter_iterator(method)
        with storage._lock:
            newest_first = [kept.stored for kept in storage._files.values() if wanted(kept)][::-1]
        for number, stored in enumerate(newest_first):
            if fault is not None and fault.after == number:
                raise fault.error
            yield stored
        if fault is not None:
            raise fault.error


class MemoryStorage(AnyMemoryStorage):
    """A storage that can list all its files and recent files, with an index document."""

    def list_files(self) -> Iterator[StoredFile]:
        return self._give("list_files", lambda kept: True)

    def recent_files(self, since: datetime) -> Iterator[StoredFile]:
        return self._give("recent_files", lambda kept: kept.published_at >= since)

    def read_index(self, into: Path, unless: str | None = None) -> str:
        storage = self.settings.storage
        storage._enter("read_index")
        with storage._lock:
            content, revision = storage._index, storage._index_revision
        if content is not None and revision != unless:
            into.write_bytes(content)
        return revision

    def write_index(self, content: Path, replaces: str) -> str:
        storage = self.settings.storage
        storage._enter("write_index")
        document = content.read_bytes()
        with storage._lock:
            if storage._index_revision != replaces:
                raise StaleIndex("the index was written by somebody else since it was read")
            storage._serial += 1
            storage._index = document
            storage._index_revision = f"{storage._serial}-{hashlib.sha256(document).hexdigest()}"
            return storage._index_revision


class MemoryBackend(Backend[MemorySettings]):
    """A backend with the traits of a remote storage, which needs an admin secret."""

    Settings = MemorySettings
    View = MemoryStorage
    traits = Traits(largest_file=1 << 30)


class LocalMemoryBackend(MemoryBackend):
    """A backend with the traits of a storage on this machine, which needs no admin secret."""

    traits = Traits(
        largest_file=1 << 30,
        lists_cheaply=True,
        opens_here=True,
        answers_at_once=True,
        answers_exactly=True,
        needs_admin_secret=False,
    )


class LookupMemoryStorage(AnyMemoryStorage):
    """A storage that lists the files of one project at a time, with rights for each project."""

    def access(self, project: str | None = None) -> Access:
        storage = self.settings.storage
        storage._enter("access" if project is None else f"access {project}")
        return self._access(project)

    def project_files(self, project: str) -> Iterator[StoredFile]:
        burnt = self.settings.storage._burnt
        files = self._give(
            "project_files",
            lambda kept: _project(kept) == project and kept.stored.filename not in burnt,
        )
        first = next(files, None)
        if not self._access(project):
            raise ProjectNotFound(project)
        if first is not None:
            yield first
            yield from files

    def projects(self) -> Iterator[str]:
        storage = self.settings.storage
        fault = storage._enter_iterator("projects")
        with storage._lock:
            names = storage.projects | {_project(kept) for kept in storage._files.values()}
        for number, name in enumerate(sorted(filter(self._access, names))):
            if fault is not None and fault.after == number:
                raise fault.error
            yield name
        if fault is not None:
            raise fault.error

    def open_file(self, file: FileHandle) -> Download:
        self._require_shown(file)
        return super().open_file(file)

    def open_core_metadata(self, file: DistributionFile) -> Download:
        self._require_shown(file)
        return super().open_core_metadata(file)

    def delete_file(self, file: FileHandle) -> None:
        self._require_right(file.project)
        storage = self.settings.storage
        with storage._lock:
            if file.filename in storage._files:
                storage._burnt.add(file.filename)
        super().delete_file(file)

    def restore_name(self, project: str, filename: str) -> list[str]:
        self.settings.storage._enter("restore_name")
        self._require_right(project)
        burnt, key = self.settings.storage._burnt, file_key(filename)
        restored = [name for name in burnt if file_key(name) == key]
        burnt.difference_update(restored)
        return restored

    def yank_file(self, file: FileHandle, reason: str | None) -> None:
        self._require_right(file.project)
        super().yank_file(file, reason)

    def put_file(self, upload: Upload) -> StoredFile:
        self._require_right(upload.file.project)
        if upload.file.filename in self.settings.storage._burnt:
            raise FilenameBurnt(upload.file.filename)
        return super().put_file(upload)

    def read_part(self, location: str, start: int, length: int) -> bytes:
        storage = self.settings.storage
        storage._enter("read_part")
        with storage._lock:
            for kept in storage._files.values():
                if kept.stored.location == location and self._access(_project(kept)):
                    return kept.content[start : start + length]
        raise FileNotFound(location)

    def find_alias(self, alias: str, filename: str) -> StoredFile:
        storage = self.settings.storage
        storage._enter("find_alias")
        with storage._lock:
            for kept in storage._files.values():
                if kept.stored.location == alias and self._access(_project(kept)):
                    return kept.stored
        raise FileNotFound(filename)

    def _require_shown(self, file: FileHandle) -> None:
        if not self._access(file.project):
            raise FileNotFound(file.filename)

    def _require_right(self, project: str) -> None:
        if self._access(project) < Access.WRITE:
            raise NotAllowed(f"this secret may not change project {project!r}")

    def _access(self, project: str | None) -> Access:
        storage = self.settings.storage
        given = self.secret.reveal()
        with storage._lock:
            names = storage.projects | {_project(kept) for kept in storage._files.values()}
            if project is not None and project not in names:
                return Access.NONE
            if given in storage.rights:
                rights = storage.rights[given]
                return Access.READ if project is None else rights.get(project, Access.NONE)
        return self._access_of_secret()


class LookupMemoryBackend(Backend[MemorySettings]):
    """The backend of `LookupMemoryStorage`."""

    Settings = MemorySettings
    View = LookupMemoryStorage
    traits = Traits(largest_file=1 << 30, needs_admin_secret=False, rights_per_project=True)


def _project(kept: _Kept) -> str:
    return parse_filename(kept.stored.filename).project


def _chunks(content: bytes) -> Iterator[bytes]:
    return (content[start : start + _CHUNK] for start in range(0, len(content), _CHUNK))
