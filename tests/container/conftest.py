"""The image of this checkout, and machines to run it on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .engine import Engine, Machine, machine_in, make_engine


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return make_engine(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="session")
def image(engine: Engine) -> str:
    """The name of the image, built from this checkout."""
    return engine.build()


@pytest.fixture
def machine(engine: Engine, image: str, tmp_path: Path) -> Iterator[Machine]:
    """An empty machine that has the image."""
    with machine_in(engine, tmp_path) as made:
        yield made
