"""The contract over SeaweedFS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from private_pypi.backend import Folders
from private_pypi.testing.contract import (
    BackendContract,
    DeletingContract,
    ListPartsContract,
    PartsContract,
    RecentContract,
    RecordsContract,
    RemoteContract,
    SweepContract,
)
from private_pypi_object_storage import ObjectStorageBackend
from tests.object_storage.relay import Relay, relay
from tests.object_storage.seaweed import Seaweed
from tests.object_storage.servers import backend_of

pytestmark = pytest.mark.needs("weed")


class Place(NamedTuple):
    """Where a repository is, as other processes reach it."""

    url: str
    prefix: str


class TestObjectStorage(
    BackendContract,
    DeletingContract,
    RecordsContract,
    ListPartsContract,
    RecentContract,
    PartsContract,
    SweepContract,
    RemoteContract,
):
    @pytest.fixture
    def place(self, seaweed: Seaweed, prefix: str, tmp_path: Path) -> Iterator[Place]:
        with relay(seaweed.url) as between:
            self.between: Relay = between
            yield Place(between.url, prefix)

    def open_backend(self, place: Any, folders: Folders) -> ObjectStorageBackend:
        return backend_of(place.url, place.prefix, folders)

    def break_storage(self, place: Any) -> None:
        self.between.cut()
