"""A public index of one's own, and a site to check."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .fake_index import FakeServer, running


@pytest.fixture
def public() -> Iterator[FakeServer]:
    """A public index without projects."""
    with running() as server:
        yield server
