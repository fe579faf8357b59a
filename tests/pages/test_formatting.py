"""Values as text for people."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from private_pypi.pages.formatting import (
    day_of,
    kind_of,
    minute_of,
    size_of,
)
from tests.files import make_file


@pytest.mark.parametrize(
    ("filename", "kind"),
    [
        ("demo-1.0.tar.gz", "source"),
        ("demo-1.0-py3-none-any.whl", "wheel for py3"),
        ("demo-1.0-cp312-cp312-win_amd64.whl", "wheel for cp312, win_amd64"),
        ("demo-1.0-1-cp312-abi3-macosx_11_0_arm64.whl", "wheel for cp312, abi3, macosx_11_0_arm64"),
    ],
)
def test_the_kind_of_a_file(filename: str, kind: str) -> None:
    assert kind_of(make_file(filename)) == kind


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (123_456, "123 kB"),
        (5_250_000, "5.2 MB"),
        (2_000_000_000_000, "2000 GB"),
    ],
)
def test_a_size(size: int, text: str) -> None:
    assert size_of(size) == text


def test_times_are_in_utc() -> None:
    moment = datetime(2026, 1, 1, 1, 5, tzinfo=timezone(timedelta(hours=2)))
    assert (day_of(moment), minute_of(moment)) == ("31 Dec 2025", "2025-12-31 23:05 UTC")
