"""Byte ranges (RFC 9110 §14): which part of a file a request asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SINGLE = re.compile(r"\s*bytes\s*=\s*([0-9]{0,18})-([0-9]{0,18})\s*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A part of a file: `start` inclusive, `stop` exclusive, in bytes."""

    start: int
    stop: int


class NotSatisfiable(Exception):  # the term of RFC 9110 §15.5.17
    """The range begins after the end of the file, which is answered with 416."""


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """Parse the header `Range`; None if the whole file is to be sent.

    `size` is that of the file in bytes. A header that is malformed or has another unit is ignored,
    as §14.2 requires. A list of several ranges is ignored too, which is allowed; installers do not
    send any. Raises `NotSatisfiable`.
    """
    match = _SINGLE.fullmatch(header or "")
    first, last = match.groups() if match else ("", "")
    if not first and not last:
        return None
    # §14.1.2: a suffix that is longer than the file means all of it.
    start = int(first) if first else max(0, size - int(last))
    stop = int(last) + 1 if first and last else size
    if first and last and stop <= start:
        return None
    if start >= size:
        raise NotSatisfiable
    return ByteRange(start, min(stop, size))
