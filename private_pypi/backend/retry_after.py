"""Reads the header Retry-After, with which a service says when to ask again."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after(text: str | None, default: int) -> int:
    """The seconds to wait: the header is a number or a date (RFC 9110, section 10.2.3).

    Returns `default` if there is no header, or if it is neither.
    """
    if text is None:
        return default
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return int(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return default
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0, math.ceil((moment - datetime.now(UTC)).total_seconds()))
