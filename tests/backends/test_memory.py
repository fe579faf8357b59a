"""The backend for tests keeps the contract like any other."""

from pathlib import Path
from typing import Any

import pytest

from private_pypi.backend import Access, Folders
from private_pypi.errors import BackendUnavailable
from private_pypi.model import StoredFile
from private_pypi.testing import (
    LocalMemoryBackend,
    LookupMemoryBackend,
    MemoryBackend,
    MemoryStorage,
)
from private_pypi.testing.contract import (
    AssetIdsContract,
    DeletingContract,
    PartsContract,
    RecentContract,
    RecordsContract,
    RightsPerProjectContract,
    YankingContract,
    make_upload,
)


class TestMemoryBackend(DeletingContract, RecentContract, YankingContract):
    constant_memory = False

    @pytest.fixture
    def storage(self, tmp_path: Path) -> MemoryStorage:
        return MemoryStorage(read_secret=self.read_secret, write_secret=self.write_secret)

    def open_backend(self, storage: Any, secret: str, folders: Folders) -> MemoryBackend:
        opened: MemoryBackend = storage.open(secret, folders=folders)
        return opened


class TestLookupMemoryBackend(
    RightsPerProjectContract,
    RecordsContract,
    PartsContract,
    AssetIdsContract,
    DeletingContract,
    YankingContract,
):
    constant_memory = False

    @pytest.fixture
    def storage(self, tmp_path: Path) -> MemoryStorage:
        storage = MemoryStorage(read_secret=self.read_secret, write_secret=self.write_secret)
        storage.projects.update(self.projects)
        storage.rights[self.partial_secret] = {"demo": Access.READ}
        return storage

    def open_backend(self, storage: Any, secret: str, folders: Folders) -> LookupMemoryBackend:
        opened: LookupMemoryBackend = storage.open_lookup(secret)
        return opened

    def asset_id(self, storage: Any, stored: StoredFile) -> str:
        return stored.location


def test_trouble_is_ordered_by_method_and_number(tmp_path: Path) -> None:
    storage = MemoryStorage()
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
    storage = MemoryStorage()
    backend = storage.open()
    first = backend.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"first"))
    storage.drop("demo-1.0.tar.gz", b"second")
    (dropped,) = backend.list_files()
    assert (dropped.size, dropped.record) == (6, None)
    assert dropped.stamp != first.stamp
    storage.remove("demo-1.0.tar.gz")
    assert list(backend.list_files()) == []


def test_a_local_storage_needs_no_admin_secret() -> None:
    backend = MemoryStorage().open("", backend=LocalMemoryBackend)
    assert backend.capabilities.is_local
    assert not backend.capabilities.needs_admin_secret
    assert list(backend.list_files()) == []
