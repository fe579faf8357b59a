"""Durations and instants are read as the documents say, and mistakes are explained."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from private_pypi.backend.times import (
    parse_duration,
    parse_instant,
    parse_past_instant,
    show_instant,
)
from tests.policy.sightings import NOW, settings


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("7 days", timedelta(days=7)),
        ("1 day", timedelta(days=1)),
        ("36 hours", timedelta(hours=36)),
        (" 90 Minutes ", timedelta(minutes=90)),
        ("2weeks", timedelta(days=14)),
        ("0", timedelta()),
        ("0 days", timedelta()),
        ("36500 days", timedelta(days=36500)),
    ],
)
def test_durations(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    ["", "7", "7 d", "days", "-7 days", "1.5 days", "٣ days", "7 days!", "9" * 5000 + " days"],
)
def test_what_is_no_duration_is_explained(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration; it must be .* such as '7 days'") as e:
        parse_duration(text)
    assert repr(text) in str(e.value)


def test_a_duration_has_a_limit() -> None:
    with pytest.raises(ValueError, match="'99999999 weeks' is too long; the limit is 36500 days"):
        parse_duration("99999999 weeks")


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T12:30:00Z", datetime(2026, 11, 1, 12, 30, tzinfo=UTC)),
        ("2026-11-01 12:30", datetime(2026, 11, 1, 12, 30, tzinfo=UTC)),
        ("2026-11-01T12:30:00", datetime(2026, 11, 1, 12, 30, tzinfo=UTC)),
        ("2026-11-01T01:30:00+02:00", datetime(2026, 10, 31, 23, 30, tzinfo=UTC)),
        ("2026-11-01T12:30:00.25-05:00", datetime(2026, 11, 1, 17, 30, 0, 250000, tzinfo=UTC)),
    ],
)
def test_instants_are_in_utc(text: str, instant: datetime) -> None:
    assert parse_instant(text) == instant
    assert parse_instant(text).tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("yesterday", "is not an instant"),
        ("20261101", "is not an instant"),
        ("2026-W45-1", "is not an instant"),
        ("2026-11-01T12", "is not an instant"),
        ("", "is not an instant"),
        ("2026-02-30", "does not exist in the calendar"),
        ("0000-01-01", "does not exist in the calendar"),
        ("0001-01-01T00:00:00+02:00", "does not exist in the calendar"),
        ("2026-11-01T25:00:00Z", "does not exist in the calendar"),
    ],
)
def test_what_is_no_instant_is_explained(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"{why}; it must be like 2026-11-01 "):
        parse_instant(text)


@given(st.datetimes(timezones=st.just(UTC)))
def test_an_instant_is_read_as_it_is_shown(instant: datetime) -> None:
    assert parse_instant(show_instant(instant)) == instant.replace(microsecond=0)


def test_only_the_instant_of_an_address_must_not_be_in_the_future() -> None:
    assert parse_past_instant(show_instant(NOW), now=NOW) == NOW
    with pytest.raises(ValueError, match=r"'2026-11-30' is in the future; .* 2026-11-29T12:00:00Z"):
        parse_past_instant("2026-11-30", now=NOW)
    assert settings(as_of="2999-01-01").as_of == "2999-01-01"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"cooldown": "a week"}, "cooldown: 'a week' is not a duration"),
        ({"as_of": "soon"}, "as_of: 'soon' is not an instant"),
        ({"deny": ("demo", "x[y]")}, r"deny: entry 2, 'x\[y\]': extras are not allowed here"),
        ({"cache_bytes": 0}, "cache_bytes: must be greater than 0"),
    ],
)
def test_the_settings_of_a_mirror_are_checked(values: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}"):
        settings(**values)
