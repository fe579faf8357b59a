"""Complete backends whose storage is an object in this process, for tests; nothing is kept.

storage = MemoryStorage()
backend = storage.open("write")
storage.fail_next("read_index", BackendUnavailable("down"))
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
    Backend,
    BackendSettings,
    Capabilities,
    Folders,
    Known,
    Secret,
)
from private_pypi.errors import (
    FileAlreadyExists,
    FileNotFound,
    NotAllowed,
    ProjectNotFound,
    StaleIndex,
    Unsupported,
)
from private_pypi.filenames import parse_filename
from private_pypi.model import DistributionFile, Download, Record, StoredFile, Stream, Upload

_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class _Kept:
    """All that the storage has of one file."""

    stored: StoredFile
    content: bytes
    core_metadata: bytes | None
    published_at: datetime  # UTC


@dataclass(frozen=True, slots=True)
class _Fault:
    error: Exception
    after: int  # items that an iterator gives before it raises


class MemoryStorage:
    """What several `MemoryBackend`s share, and where tests make trouble.

    `calls` counts the calls of every method; `delay` has seconds that a method takes.
    An empty secret matches nobody. What follows is for `LookupMemoryBackend`: `projects` exist,
    with files or without; a secret in `rights` may do in each project what stands there, and
    nothing in others; `gives_sha256` is whether listings have digests; `held` keeps a method from
    going on until the event is set.
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
        self._lock = threading.RLock()  # guards everything below
        self._faults: dict[str, list[_Fault]] = {}
        self._files: dict[str, _Kept] = {}  # by filename, oldest first
        self._index: bytes | None = None
        self._serial = 0  # of stamps and revisions: never used twice
        self._index_revision = NO_INDEX

    def open(
        self,
        secret: str = "write",
        *,
        backend: type[MemoryBackend] | None = None,
        folders: Folders | None = None,
        name: str = "mine",
        max_file_bytes: int = 1 << 30,
    ) -> MemoryBackend:
        """A backend over this storage, seen with `secret`; it never touches its folders."""
        nowhere = Folders(cache=Path(), lock=Path(), tmp=Path())
        settings = MemorySettings(name=name, max_file_bytes=max_file_bytes, storage=self)
        return (backend or MemoryBackend)(settings, Secret(secret), folders or nowhere)

    def open_lookup(self, secret: str = "write") -> LookupMemoryBackend:
        """A backend over this storage that answers for one project at a time."""
        nowhere = Folders(cache=Path(), lock=Path(), tmp=Path())
        settings = MemorySettings(name="mine", max_file_bytes=1 << 30, storage=self)
        return LookupMemoryBackend(settings, Secret(secret), nowhere)

    def drop(self, filename: str, content: bytes, *, record: Record | None = None) -> None:
        """Put a file, or other bytes under its name, by another road than the server."""
        with self._lock:
            self._keep(filename, content, core_metadata=None, record=record)

    def remove(self, filename: str) -> None:
        """Remove a file by another road than the server."""
        with self._lock:
            del self._files[filename]

    def fail_next(self, method: str, error: Exception, *, times: int = 1, after: int = 0) -> None:
        """Let the next `times` calls of `method` raise `error`.

        `list_files`, `recent_files`, `project_files` and `projects` give `after` items before they
        do.
        """
        with self._lock:
            self._faults.setdefault(method, []).extend([_Fault(error, after)] * times)

    def _enter(self, method: str) -> None:
        """Count a call, take its time, and raise what a test ordered."""
        fault = self._enter_iterator(method)
        if fault is not None:
            raise fault.error

    def _enter_iterator(self, method: str) -> _Fault | None:
        with self._lock:
            self.calls[method] += 1
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
    """The storage is handed over as an object: this backend is not for a configuration."""

    storage: MemoryStorage = field(default_factory=MemoryStorage)


class AnyMemoryBackend(Backend[MemorySettings]):
    """What every storage in memory can, however it lists."""

    Settings = MemorySettings

    def access(self, project: str | None = None) -> Access:
        storage = self.settings.storage
        storage._enter("access")
        given = self.secret.reveal()
        if given and given == storage.write_secret:
            return Access.WRITE
        return Access.READ if given and given == storage.read_secret else Access.NONE

    def open_file(self, file: DistributionFile) -> Download:
        return _stream(self._kept("open_file", file).content)

    def open_core_metadata(self, file: DistributionFile) -> Download:
        content = self._kept("open_core_metadata", file).core_metadata
        if content is None:
            raise FileNotFound(f"{file.filename}.metadata")
        return _stream(content)

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

    def delete_file(self, file: DistributionFile) -> None:
        storage = self.settings.storage
        storage._enter("delete_file")
        with storage._lock:
            storage._files.pop(file.filename, None)

    def yank_file(self, file: DistributionFile, reason: str | None) -> None:
        kept = self._kept("yank_file", file)
        storage = self.settings.storage
        with storage._lock:
            stored = replace(kept.stored, yanked=reason)
            storage._files[file.filename] = replace(kept, stored=stored)

    def _kept(self, method: str, file: DistributionFile) -> _Kept:
        storage = self.settings.storage
        storage._enter(method)
        with storage._lock:
            kept = storage._files.get(file.filename)
        if kept is None:
            raise FileNotFound(file.filename)
        return kept

    def _give(
        self, method: str, wanted: Callable[[_Kept], bool], known: Known | None
    ) -> Iterator[StoredFile]:
        storage = self.settings.storage
        fault = storage._enter_iterator(method)
        with storage._lock:
            newest_first = [kept.stored for kept in storage._files.values() if wanted(kept)][::-1]
        for number, stored in enumerate(newest_first):
            if fault is not None and fault.after == number:
                raise fault.error
            if known is not None and known(stored.filename, stored.stamp):
                yield replace(stored, record=None)
            else:
                yield stored
        if fault is not None:
            raise fault.error


class MemoryBackend(AnyMemoryBackend):
    """A remote storage as the core sees one: it needs an admin secret, and can tell what is new."""

    capabilities = Capabilities(largest_file=1 << 30)

    def list_files(self, known: Known | None = None) -> Iterator[StoredFile]:
        return self._give("list_files", lambda kept: True, known)

    def recent_files(self, since: datetime) -> Iterator[StoredFile]:
        return self._give("recent_files", lambda kept: kept.published_at >= since, None)

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


class LocalMemoryBackend(MemoryBackend):
    """The same, as a storage of this machine: synchronised by listing, without a secret."""

    capabilities = Capabilities(largest_file=1 << 30, is_local=True, needs_admin_secret=False)


class LookupMemoryBackend(AnyMemoryBackend):
    """A storage that answers for one project at a time, with rights for each."""

    capabilities = Capabilities(
        largest_file=1 << 30, needs_admin_secret=False, rights_per_project=True, lists_files=False
    )

    def access(self, project: str | None = None) -> Access:
        storage = self.settings.storage
        storage._enter("access" if project is None else f"access {project}")
        return self._access(project)

    def project_files(self, project: str, known: Known | None = None) -> Iterator[StoredFile]:
        files = self._give("project_files", lambda kept: _project(kept) == project, known)
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

    def open_file(self, file: DistributionFile) -> Download:
        self._require_shown(file)
        return super().open_file(file)

    def open_core_metadata(self, file: DistributionFile) -> Download:
        self._require_shown(file)
        return super().open_core_metadata(file)

    def delete_file(self, file: DistributionFile) -> None:
        self._require_right(file)
        super().delete_file(file)

    def yank_file(self, file: DistributionFile, reason: str | None) -> None:
        self._require_right(file)
        super().yank_file(file, reason)

    def put_file(self, upload: Upload) -> StoredFile:
        self._require_right(upload.file)
        return super().put_file(upload)

    def read_part(self, location: str, start: int, length: int) -> bytes:
        storage = self.settings.storage
        storage._enter("read_part")
        with storage._lock:
            for kept in storage._files.values():
                if kept.stored.location == location and self._access(_project(kept)):
                    return kept.content[start : start + length]
        raise FileNotFound(location)

    def open_asset(self, asset_id: str, filename: str) -> tuple[StoredFile, Download]:
        storage = self.settings.storage
        storage._enter("open_asset")
        with storage._lock:
            for kept in storage._files.values():
                if kept.stored.location == asset_id and self._access(_project(kept)):
                    return kept.stored, _stream(kept.content)
        raise FileNotFound(filename)

    def list_files(self, known: Known | None = None) -> Iterator[StoredFile]:
        raise Unsupported("this storage has no listing of all files")

    def read_index(self, into: Path, unless: str | None = None) -> str:
        raise Unsupported("this storage has no index document")

    def write_index(self, content: Path, replaces: str) -> str:
        raise Unsupported("this storage has no index document")

    def _require_shown(self, file: DistributionFile) -> None:
        if not self._access(file.project):
            raise FileNotFound(file.filename)

    def _require_right(self, file: DistributionFile) -> None:
        if self._access(file.project) < Access.WRITE:
            raise NotAllowed(f"this secret may not change project {file.project!r}")

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
        if given and given == storage.write_secret:
            return Access.WRITE
        return Access.READ if given and given == storage.read_secret else Access.NONE


def _project(kept: _Kept) -> str:
    return parse_filename(kept.stored.filename).project


def _stream(content: bytes) -> Stream:
    chunks = (content[start : start + _CHUNK] for start in range(0, len(content), _CHUNK))
    return Stream(chunks, len(content))
