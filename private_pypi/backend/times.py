"""Durations and instants as people write them in settings and flags: "7 days", "2026-11-01".

All functions raise `ValueError` with a sentence that says what was wrong and what would be right.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

_DURATION: Final = re.compile(r"([0-9]{1,8})\s*(minute|hour|day|week)s?", re.IGNORECASE)
_LONGEST: Final = timedelta(days=36500)  # so that sums with times of this century are dates
_DATE: Final = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME: Final = r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?"
_INSTANT: Final = re.compile(rf"{_DATE}([T ]{_TIME}(Z|[+-][0-9]{{2}}:[0-9]{{2}})?)?")


def parse_duration(text: str) -> timedelta:
    """A duration such as "90 minutes", "36 hours", "7 days" or "2 weeks"; "0" is none at all."""
    stripped = text.strip()
    if stripped == "0":
        return timedelta()
    found = _DURATION.fullmatch(stripped)
    if found is None:
        raise ValueError(
            f"{text!r} is not a duration; it must be a whole number of minutes, hours, days or "
            "weeks, such as '7 days'"
        )
    duration = timedelta(**{f"{found[2].lower()}s": int(found[1])})
    if duration > _LONGEST:
        raise ValueError(f"{text!r} is too long; the limit is {_LONGEST.days} days")
    return duration


def parse_instant(text: str) -> datetime:
    """An instant in UTC, such as "2026-11-01T12:30:00Z" or "2026-11-01" (RFC 3339).

    A date is its beginning, 00:00 UTC. A time without an offset is in UTC; one with another offset
    is converted.
    """
    right = "it must be like 2026-11-01 (00:00 UTC of that day) or 2026-11-01T12:30:00Z"
    stripped = text.strip()
    if not _INSTANT.fullmatch(stripped):
        raise ValueError(f"{text!r} is not an instant; {right}")
    try:
        return in_utc(datetime.fromisoformat(stripped))
    except (ValueError, OverflowError):  # such as the 30th of February
        raise ValueError(f"{text!r} does not exist in the calendar; {right}") from None


def parse_past_instant(text: str, *, now: datetime) -> datetime:
    """The same for the address of a frozen index, which cannot show what will be."""
    instant = parse_instant(text)
    if instant > now:
        raise ValueError(
            f"{text!r} is in the future; it must not be later than now, {show_instant(now)}"
        )
    return instant


def in_utc(moment: datetime) -> datetime:
    """The same moment in UTC, in which one without an offset is.

    Raises `OverflowError` if that is before the year 1 or after the year 9999.
    """
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def show_instant(instant: datetime) -> str:
    """An instant of UTC as "2026-11-01T12:30:00Z"; fractions of a second are not shown."""
    return f"{instant.isoformat()[:19]}Z"
