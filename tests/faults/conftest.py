"""The servers of a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.servers import Servers, servers_below


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with servers_below(tmp_path) as servers:
        yield servers


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"
