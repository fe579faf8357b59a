"""Byte ranges (RFC 9110 §14): what part of a file a request asks for; sends nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SINGLE = re.compile(r"([0-9]{0,18})-([0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A satisfiable part: `start` inclusive, `stop` exclusive, in bytes."""

    start: int
    stop: int


class NotSatisfiable(Exception):  # the term of RFC 9110 §15.5.17
    """The range begins behind the end of the file: 416."""


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The one range that is asked for; None when the whole file is to be sent.

    A header that is malformed or names another unit is ignored, as §14.2 says; so is a list of
    several ranges, which a server may do and no installer sends.
    """
    if header is None:
        return None
    unit, equals, ranges = header.partition("=")
    match = _SINGLE.fullmatch(ranges.strip())
    if unit.strip().lower() != "bytes" or not equals or match is None:
        return None
    first, last = match.groups()
    if not first:
        if not last:
            return None
        if int(last) == 0 or size == 0:
            raise NotSatisfiable
        # §14.1.2: a suffix longer than the representation is the whole of it.
        return ByteRange(max(0, size - int(last)), size)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise NotSatisfiable
    return ByteRange(start, min(int(last) + 1, size) if last else size)
