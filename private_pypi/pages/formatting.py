"""Values as text for people, without markup: kinds of files, sizes and times."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

from private_pypi.distributions.filenames import parse_filename
from private_pypi.errors import InvalidFilename
from private_pypi.model import ListedFile, format_time

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def kind_of(file: ListedFile) -> str:
    """The kind of a file, such as "source" or "wheel for py3"."""
    try:
        parsed = parse_filename(file.filename)
    except InvalidFilename:
        return "file"
    if parsed.kind == "sdist":
        return "source"
    python, abi, platform = file.filename.removesuffix(".whl").rsplit("-", 3)[1:]
    tags = dict.fromkeys((python, abi, platform))  # the first two are often the same
    return "wheel for " + ", ".join(tag for tag in tags if tag not in ("none", "any"))


def size_of(size: int) -> str:
    """A number of bytes in decimal units, such as "1.5 MB"."""
    amount = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "bytes" or amount >= 100 else f"{amount:.1f} {unit}"


def day_of(moment: datetime) -> str:
    """A day in UTC, such as "3 Jan 2026"."""
    in_utc = moment.astimezone(UTC)
    return f"{in_utc.day} {_MONTHS[in_utc.month - 1]} {in_utc.year}"


def minute_of(moment: datetime) -> str:
    """A time to the minute, such as "2026-01-03 12:30 UTC"."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "day": day_of,
    "minute": minute_of,
    "moment": format_time,
    "kind": kind_of,
    "size": size_of,
    "segment": lambda text: quote(text, safe=""),
}
"""The filters of all templates."""
