"""The contract over a SQLite file, and what is peculiar to it."""

from pathlib import Path
from typing import Any

import pytest
from private_pypi_sqlite import SqliteBackend, SqliteSettings

from private_pypi.backend import Folders, Secret
from private_pypi.errors import BackendError
from private_pypi.testing.contract import BackendContract, DeletingContract
from private_pypi.testing.contract.helpers import new_folders


def over(path: Path, folders: Folders) -> SqliteBackend:
    settings = SqliteSettings(
        name="mine",
        max_file_bytes=1 << 30,
        path=path,
        read_secret=(Secret(BackendContract.read_secret),),
        write_secret=(Secret(BackendContract.write_secret),),
    )
    return SqliteBackend(settings, folders)


class TestSqliteBackend(BackendContract, DeletingContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        path = tmp_path / "packages.db"
        path.touch()
        return path

    def open_backend(self, place: Any, folders: Folders) -> SqliteBackend:
        return over(place, folders)

    def break_storage(self, place: Any) -> None:
        place.unlink()


def listed(path: Path, tmp_path: Path) -> list[object]:
    return list(over(path, new_folders(tmp_path)).seen_with(Secret("")).list_files())


def test_a_database_that_is_not_there_is_trouble(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="unable to open"):
        listed(tmp_path / "missing.db", tmp_path)
    assert not (tmp_path / "missing.db").exists()


def test_a_file_of_another_kind_is_trouble(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_text("This is no database. " * 100)
    with pytest.raises(BackendError, match="not a database"):
        listed(tmp_path / "other.db", tmp_path)
