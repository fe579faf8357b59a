"""The store of these tests, and servers of ours over it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from tests.object_storage.seaweed import Seaweed, shared


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """The store, which all workers use."""
    base = tmp_path_factory.getbasetemp()
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    with shared(base.parent if is_worker else base) as running:
        yield running


@pytest.fixture
def prefix() -> str:
    """A part of the bucket that nobody else uses."""
    return f"some/{secrets.token_hex(8)}"
