"""A storage folder, and helpers for tests with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from private_pypi.backend import Folders, Secret
from private_pypi.index.examining import with_record
from private_pypi.model import StoredFile, Unlisted
from private_pypi.testing.contract.helpers import make_upload
from private_pypi_file_system import FileSystemBackend
from private_pypi_file_system.backend import FileSystemSettings, FileSystemStorage


def leftovers(storage: Path) -> list[str]:
    """Stages of writers, and records or metadata without a file."""
    staged = [str(path) for path in (storage / ".private_pypi" / "tmp").iterdir()]
    orphans = [
        str(path)
        for suffix in (".meta", ".metadata")
        for path in storage.rglob(f"*{suffix}")
        if not os.path.lexists(str(path).removesuffix(suffix))
    ]
    return staged + orphans


def refusing(number: int) -> Callable[..., None]:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def over(
    path: Path | None, folders: Folders, secret: str = "", **secrets: tuple[Secret, ...]
) -> FileSystemStorage:
    table = FileSystemSettings(name="mine", max_file_bytes=1 << 30, path=path, **secrets)
    storage = FileSystemBackend(table, folders).seen_with(Secret(secret))
    assert isinstance(storage, FileSystemStorage)
    return storage


def listed(backend: FileSystemStorage) -> dict[str, StoredFile]:
    """What a listing gives, with records, after which leftovers are swept."""
    given = list(backend.list_files())
    assert [each for each in given if isinstance(each, Unlisted)] == []
    files = [with_record(backend, each) for each in given if isinstance(each, StoredFile)]
    backend.sweep()
    return {each.filename: each for each in files}


def use(backend: FileSystemStorage, tmp_path: Path) -> None:
    backend.put_file(make_upload(tmp_path, "demo-1.0.tar.gz", b"content"))
