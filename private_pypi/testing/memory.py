"""A complete backend whose storage is an object in this process, for tests; nothing is kept.

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
from private_pypi.errors import FileAlreadyExists, FileNotFound, StaleIndex
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
    An empty secret matches nobody.
    """

    def __init__(self, *, read_secret: str = "read", write_secret: str = "write") -> None:
        self.read_secret = read_secret
        self.write_secret = write_secret
        self.calls: Counter[str] = Counter()
        self.delay: dict[str, float] = {}  # method -> seconds
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

        `list_files` and `recent_files` give `after` files before they do.
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
        )
        self._files[filename] = _Kept(stored, content, core_metadata, datetime.now(UTC))
        return stored


@dataclass(frozen=True, kw_only=True)
class MemorySettings(BackendSettings):
    """The storage is handed over as an object: this backend is not for a configuration."""

    storage: MemoryStorage = field(default_factory=MemoryStorage)


class MemoryBackend(Backend[MemorySettings]):
    """A remote storage as the core sees one: it needs an admin secret, and can tell what is new."""

    Settings = MemorySettings
    capabilities = Capabilities(largest_file=1 << 30)

    def access(self, project: str | None = None) -> Access:
        storage = self.settings.storage
        storage._enter("access")
        given = self.secret.reveal()
        if given and given == storage.write_secret:
            return Access.WRITE
        return Access.READ if given and given == storage.read_secret else Access.NONE

    def list_files(self, known: Known | None = None) -> Iterator[StoredFile]:
        return self._give("list_files", lambda kept: True, known)

    def recent_files(self, since: datetime) -> Iterator[StoredFile]:
        return self._give("recent_files", lambda kept: kept.published_at >= since, None)

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


class LocalMemoryBackend(MemoryBackend):
    """The same, as a storage of this machine: synchronised by listing, without a secret."""

    capabilities = Capabilities(largest_file=1 << 30, is_local=True, needs_admin_secret=False)


def _stream(content: bytes) -> Stream:
    chunks = (content[start : start + _CHUNK] for start in range(0, len(content), _CHUNK))
    return Stream(chunks, len(content))
