"""Servers of ours over the store, as the tests of this folder open them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from private_pypi.backend import Folders, Secret
from private_pypi.testing.contract import BackendContract
from private_pypi.testing.contract.helpers import new_folders
from private_pypi_object_storage import ObjectStorageBackend, ObjectStorageSettings
from private_pypi_object_storage.backend import ObjectStorageView
from tests.object_storage.running import BUCKET, Running


def url_of(store: Running, prefix: str) -> str:
    """The address of a repository."""
    return f"{store.scheme}://{BUCKET}/{prefix}"


def settings_of(store: Running, prefix: str, **more: Any) -> ObjectStorageSettings:
    credentials = {
        key: Secret(value) if key in ("secret_access_key", "account_key") else value
        for key, value in store.credentials.items()
    }
    given: dict[str, Any] = {
        "name": "mine",
        "max_file_bytes": 1 << 30,
        "url": url_of(store, prefix),
        "endpoint": store.url,
        **credentials,
        "read_secret": (Secret(BackendContract.read_secret),),
        "write_secret": (Secret(BackendContract.write_secret),),
        **more,
    }
    return ObjectStorageSettings(**given)


def backend_of(store: Running, prefix: str, folders: Folders, **more: Any) -> ObjectStorageBackend:
    return ObjectStorageBackend(settings_of(store, prefix, **more), folders)


def server(store: Running, prefix: str, tmp_path: Path, **more: Any) -> ObjectStorageView:
    """A server that was just started, with the secret that may write."""
    backend = backend_of(store, prefix, new_folders(tmp_path), **more)
    return ObjectStorageView(backend, Secret(BackendContract.write_secret))
