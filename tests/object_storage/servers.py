"""Servers of ours over the store, as the tests of this folder open them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from private_pypi.backend import Folders, Secret
from private_pypi.testing.contract import BackendContract
from private_pypi.testing.contract.helpers import new_folders
from private_pypi_object_storage import ObjectStorageBackend, ObjectStorageSettings
from private_pypi_object_storage.backend import ObjectStorageView
from tests.object_storage.seaweed import BUCKET, WRITER


def settings_of(endpoint: str, prefix: str, **more: Any) -> ObjectStorageSettings:
    given: dict[str, Any] = {
        "name": "mine",
        "max_file_bytes": 1 << 30,
        "url": f"s3://{BUCKET}/{prefix}",
        "endpoint": endpoint,
        "access_key_id": WRITER[0],
        "secret_access_key": Secret(WRITER[1]),
        "read_secret": (Secret(BackendContract.read_secret),),
        "write_secret": (Secret(BackendContract.write_secret),),
        **more,
    }
    return ObjectStorageSettings(**given)


def backend_of(endpoint: str, prefix: str, folders: Folders, **more: Any) -> ObjectStorageBackend:
    return ObjectStorageBackend(settings_of(endpoint, prefix, **more), folders)


def server(endpoint: str, prefix: str, tmp_path: Path, **more: Any) -> ObjectStorageView:
    """A server that was just started, with the secret that may write."""
    backend = backend_of(endpoint, prefix, new_folders(tmp_path), **more)
    return ObjectStorageView(backend, Secret(BackendContract.write_secret))
