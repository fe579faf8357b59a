"""The contract over SeaweedFS and over Azurite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

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
from tests.object_storage.running import Running
from tests.object_storage.servers import backend_of

pytestmark = pytest.mark.needs("weed", "azurite")


Place = tuple[Running, str]
"""Where a repository is, as other processes reach it."""


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
    def place(self, each_store: Running, prefix: str) -> Iterator[Place]:
        with relay(each_store.url) as between:
            self.between: Relay = between
            yield replace(each_store, url=between.url), prefix

    def open_backend(self, place: Any, folders: Folders) -> ObjectStorageBackend:
        return backend_of(*place, folders)

    def break_storage(self, place: Any) -> None:
        self.between.cut()
