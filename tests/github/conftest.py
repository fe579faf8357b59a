"""The fixture `github`: a fake GitHub, which is empty at first."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .fake import FakeGitHub


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with FakeGitHub() as github:
        yield github
