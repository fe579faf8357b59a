"""A public index of one's own, and a site to check."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator

import pytest

from .fake_index import FakeServer, running


@pytest.fixture(autouse=True)
def _seen_again() -> Iterator[None]:
    """A build hides its process from others for good (`source_builds`); here it goes on."""
    yield
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE


@pytest.fixture
def public() -> Iterator[FakeServer]:
    """A public index without projects."""
    with running() as server:
        yield server
