"""The stores of these tests, and servers of ours over them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.object_storage.azurite import Azurite, running_azurite
from tests.object_storage.running import Running
from tests.object_storage.seaweed import Seaweed, running_seaweed


def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers use."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A store with the API of S3."""
    with running_seaweed(_folder(tmp_path_factory)) as running:
        yield running


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """A store with the API of Azure Blob Storage."""
    with running_azurite(_folder(tmp_path_factory)) as running:
        yield running


@pytest.fixture(scope="session", params=["seaweed", "azurite"])
def each_store(request: pytest.FixtureRequest) -> Running:
    """Both, one after the other."""
    found: Running = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def prefix() -> str:
    """A part of the bucket that nobody else uses."""
    return f"some/{secrets.token_hex(8)}"
