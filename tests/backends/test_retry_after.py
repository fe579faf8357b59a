"""The header Retry-After."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from private_pypi.backend import retry_after


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, 5), ("", 5), ("7", 7), (" 120 ", 120), ("-1", 5), ("1.5", 5), ("soon", 5), ("²", 5)],
)
def test_a_number_or_the_default(text: str | None, seconds: int) -> None:
    assert retry_after(text, 5) == seconds


def test_a_number_of_any_length_is_bounded() -> None:
    assert retry_after("9" * 5000, 5) == 999_999_999


@pytest.mark.parametrize(("offset", "least", "most"), [(90, 85, 90), (-90, 0, 0)])
def test_a_date(offset: int, least: int, most: int) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=offset)
    assert least <= retry_after(format_datetime(moment, usegmt=True), 5) <= most
