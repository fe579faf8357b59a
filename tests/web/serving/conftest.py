"""A server for each test of the engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web.serving.servers import Server


@pytest.fixture(params=["waitress", "granian"])
def engine(request: pytest.FixtureRequest) -> str:
    """The engine of the server: both have to do the same."""
    return str(request.param)


@pytest.fixture
def server(tmp_path: Path, engine: str) -> Iterator[Server]:
    folder = tmp_path / "uploads"
    folder.mkdir()
    made = Server(folder, engine)
    yield made
    made.end()
