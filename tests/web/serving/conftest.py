"""A server for each test of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web.serving.servers import Server


@pytest.fixture
def engine() -> str:
    """The engine of the server. A module that tests both has a fixture with parameters."""
    import os; return os.environ.get("ENGINE", "waitress")


@pytest.fixture
def server(tmp_path: Path, engine: str) -> Iterator[Server]:
    folder = tmp_path / "uploads"
    folder.mkdir()
    made = Server(folder, engine)
    yield made
    made.end()
