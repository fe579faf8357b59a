"""The backend for tests keeps the contract like any other."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

import pytest

from private_pypi.backend import Access, AnyBackend, Folders
from private_pypi.errors import BackendUnavailable
from private_pypi.model import Record, StoredFile, StoredName, Upload
from private_pypi.testing import (
    LocalMemoryBackend,
    LookupMemoryBackend,
    Memory,
    MemoryBackend,
    MemorySettings,
    MemoryStorage,
)
from private_pypi.testing.contract import (
    AliasesContract,
    BurningContract,
    CoreMetadataContract,
    DeletingContract,
    FindContract,
    InProcessContract,
    KeptRecordsContract,
    ListContract,
    OverwriteIndexContract,
    PartsContract,
    ProjectsContract,
    PublishContract,
    RecentContract,
    RecordsContract,
    RightsPerProjectContract,
    StorageContract,
    YankingContract,
)
from private_pypi.testing.contract.helpers import make_upload
from private_pypi.testing.memory import AnyMemoryStorage


def over(memory: Memory, backend: type[AnyBackend], folders: Folders) -> AnyBackend:
    settings = MemorySettings(name="mine", max_file_bytes=1 << 30, storage=memory)
    return backend(settings, folders)


class OverwritingMemoryStorage(AnyMemoryStorage):
    """A storage that lists, and can only overwrite its index document."""

    list_files = MemoryStorage.list_files
    recent_files = MemoryStorage.recent_files
    read_index = MemoryStorage.read_index
    _write = MemoryStorage.write_index

    def overwrite_index(self, content: Path) -> str:
        with self.settings.storage._lock:
            return self._write(content, self.settings.storage._index_revision)


class OverwritingMemoryBackend(MemoryBackend):
    View = OverwritingMemoryStorage


class NamingMemoryStorage(MemoryStorage):
    """A storage whose listing gives names alone, as GitHub's does beyond its end."""

    def list_files(self) -> Iterator[StoredFile | StoredName]:
        return (StoredName(stored.filename) for stored in super().list_files())

    def find_file(self, filename: str) -> StoredFile | None:
        self.settings.storage._enter("find_file")
        kept = self.settings.storage._files.get(filename)
        return None if kept is None else kept.stored


class NamingMemoryBackend(MemoryBackend):
    View = NamingMemoryStorage


class AskedMemoryStorage(MemoryStorage):
    """A storage that gives records only when it is asked for them."""

    def list_files(self) -> Iterator[StoredFile]:
        return (replace(stored, record=None) for stored in super().list_files())

    def put_file(self, upload: Upload) -> StoredFile:
        return replace(super().put_file(upload), record=None)

    def recent_files(self, since: datetime) -> Iterator[StoredFile]:
        return (replace(stored, record=None) for stored in super().recent_files(since))

    def read_record(self, file: StoredFile) -> Record | None:
        self.settings.storage._enter("read_record")
        kept = self.settings.storage._files.get(file.filename)
        is_it = kept is not None and kept.stored.stamp == file.stamp
        return kept.stored.record if kept is not None and is_it else None


class AskedMemoryBackend(MemoryBackend):
    View = AskedMemoryStorage


class InMemory(StorageContract):
    constant_memory = False
    backend_class: ClassVar[type[AnyBackend]] = MemoryBackend

    @pytest.fixture
    def place(self, tmp_path: Path) -> Memory:
        return Memory(read_secret=self.read_secret, write_secret=self.write_secret)

    def open_backend(self, place: Any, folders: Folders) -> AnyBackend:
        return over(place, self.backend_class, folders)

    def break_storage(self, place: Any) -> None:
        place.broken = True


class TestMemoryBackend(
    InMemory, InProcessContract, DeletingContract, RecentContract, YankingContract
):
    pass


class TestOverwritingMemoryBackend(
    InMemory,
    ListContract,
    PublishContract,
    CoreMetadataContract,
    KeptRecordsContract,
    OverwriteIndexContract,
    DeletingContract,
    RecentContract,
    YankingContract,
):
    backend_class = OverwritingMemoryBackend


class TestNamingMemoryBackend(
    InMemory, FindContract, InProcessContract, DeletingContract, RecentContract, YankingContract
):
    backend_class = NamingMemoryBackend


class TestAskedMemoryBackend(
    InMemory, RecordsContract, InProcessContract, DeletingContract, RecentContract, YankingContract
):
    backend_class = AskedMemoryBackend


class TestLookupMemoryBackend(
    InMemory,
    RightsPerProjectContract,
    ProjectsContract,
    PublishContract,
    CoreMetadataContract,
    KeptRecordsContract,
    PartsContract,
    AliasesContract,
    BurningContract,
    YankingContract,
):
    backend_class = LookupMemoryBackend

    @pytest.fixture
    def place(self, tmp_path: Path) -> Memory:
        memory = Memory(read_secret=self.read_secret, write_secret=self.write_secret)
        memory.projects.update(self.projects)
        memory.rights[self.partial_secret] = {"demo": Access.READ}
        return memory

    def alias(self, place: Any, stored: StoredFile) -> str:
        return stored.location


def test_trouble_is_ordered_by_method_and_number(tmp_path: Path) -> None:
    storage = Memory()
    backend = storage.open()
    for name in ("demo-1.0.tar.gz", "demo-2.0.tar.gz"):
        backend.put_file(make_upload(tmp_path, name))
    storage.fail_next("list_files", BackendUnavailable("down"), times=2, after=1)
    for _ in range(2):
        listing = backend.list_files()
        assert next(listing).filename == "demo-2.0.tar.gz"
        with pytest.raises(BackendUnavailable, match="down"):
            next(listing)
    assert len(list(backend.list_files())) == 2
    assert storage.calls["list_files"] == 3


def test_a_file_that_was_dropped_has_no_record_and_a_new_stamp(tmp_path: Path) -> None:
    storage = Memory()
    backend = storage.open()
    first = backend.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"first"))
    storage.drop("demo-1.0.tar.gz", b"second")
    (dropped,) = backend.list_files()
    assert (dropped.size, dropped.record) == (6, None)
    assert dropped.stamp != first.stamp
    storage.remove("demo-1.0.tar.gz")
    assert list(backend.list_files()) == []


def test_a_local_storage_needs_no_admin_secret() -> None:
    backend = Memory().open("", backend=LocalMemoryBackend)
    assert backend.backend.traits.lists_cheaply
    assert not backend.backend.traits.needs_admin_secret
    assert list(backend.list_files()) == []
