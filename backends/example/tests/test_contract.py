"""The contract over a SQLite file, and what is peculiar to it."""

from pathlib import Path
from typing import Any

import pytest
from private_pypi_sqlite import SqliteBackend, SqliteSettings

from private_pypi.backend import Folders, Secret
from private_pypi.errors import BackendError
from private_pypi.testing.contract import BackendContract, DeletingContract, new_folders


def over(path: Path, folders: Folders, secret: str = "") -> SqliteBackend:
    settings = SqliteSettings(
        name="mine",
        max_file_bytes=1 << 30,
        path=path,
        read_secret=(Secret(BackendContract.read_secret),),
        write_secret=(Secret(BackendContract.write_secret),),
    )
    return SqliteBackend(settings, Secret(secret), folders)


class TestSqliteBackend(BackendContract, DeletingContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Path:
        path = tmp_path / "packages.db"
        path.touch()
        return path

    def open_backend(self, storage: Any, secret: str, folders: Folders) -> SqliteBackend:
        return over(storage, folders, secret)


def test_a_database_that_is_not_there_is_trouble(tmp_path: Path) -> None:
    backend = over(tmp_path / "missing.db", new_folders(tmp_path))
    with pytest.raises(BackendError, match="unable to open"):
        list(backend.list_files())
    assert not (tmp_path / "missing.db").exists()


def test_a_file_of_another_kind_is_trouble(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_text("This is no database. " * 100)
    backend = over(tmp_path / "other.db", new_folders(tmp_path))
    with pytest.raises(BackendError, match="not a database"):
        list(backend.list_files())
