"""A folder with packages, and the `file_system` backend over it."""

from __future__ import annotations

from pathlib import Path

import pytest

from private_pypi.backend import Folders
from private_pypi.testing.contract.helpers import new_folders
from private_pypi_file_system.backend import FileSystemStorage
from tests.backends.folders import over


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    path = tmp_path / "storage"
    path.mkdir()
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return new_folders(tmp_path)


@pytest.fixture
def backend(storage: Path, folders: Folders) -> FileSystemStorage:
    return over(storage, folders)
