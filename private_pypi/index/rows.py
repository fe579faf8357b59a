"""Files and other values as rows of SQLite tables, and back; it runs no SQL itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any

from packaging.version import Version

from private_pypi.model import BurntName, DistributionFile, ShownRow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# The columns of a file have the names of the fields of `DistributionFile`.
FOR_PEOPLE = ("summary", "published_name", "keywords")
_SHOWN = (
    *("project", "filename", "version", "size", "sha256", "requires_python", "yanked"),
    *("core_metadata_sha256", "location"),
)
_UNCHANGED = (*_SHOWN, *FOR_PEOPLE)  # all columns that have the value of the field

SHOWN = ", ".join(("uploaded_at", *_SHOWN))
"""What pages for tools are made of."""
_COLUMNS = ("uploaded_at", *_UNCHANGED)
FILE = ", ".join(_COLUMNS)
"""All columns of a `DistributionFile`, in the order of `file_from_row`."""
FACTS = f"{FILE}, version_key, stamp"
"""All columns of a file and of its stamp, in the order of `file_row`."""
FACTS_VALUES = ", ".join("?" * len(FACTS.split(",")))
FACTS_TABLE = """
    filename TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    version TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    uploaded_at INTEGER,  -- microseconds since 1970
    requires_python TEXT,
    yanked TEXT,
    core_metadata_sha256 TEXT,
    location TEXT NOT NULL,
    summary TEXT,
    published_name TEXT,
    keywords TEXT,
    version_key TEXT NOT NULL,
    stamp TEXT
"""
BURNT = "filename, project, sha256, deleted_at"
"""All columns of a `BurntName`, in the order of `burnt_row` and `burnt_from_row`."""

_unchanged_of = attrgetter(*_UNCHANGED)


def file_row(file: DistributionFile, stamp: str | None) -> tuple[object, ...]:
    """The columns `FACTS`; `stamp` is that of the storage when the facts were taken."""
    return (
        None if file.uploaded_at is None else microseconds(file.uploaded_at),
        *_unchanged_of(file),
        _key_of(file.version),
        stamp,
    )


def file_from_row(row: Sequence[Any]) -> DistributionFile:
    """The file of a row that begins with the columns `FILE`."""
    # Not strict: a row may have further columns.
    fields = dict(zip(_COLUMNS, row, strict=False))
    if row[0] is not None:
        fields["uploaded_at"] = from_microseconds(row[0])
    return DistributionFile(**fields)


SHOWN_ROW = ", ".join(ShownRow._fields)
"""All columns of a `ShownRow`, in the order of its fields."""


def burnt_row(burnt: BurntName) -> tuple[object, ...]:
    """The columns `BURNT`."""
    return burnt.filename, burnt.project, burnt.sha256, microseconds(burnt.deleted_at)


def burnt_from_row(row: Sequence[Any]) -> BurntName:
    """The inverse of `burnt_row`."""
    filename, project, sha256, deleted_at = row
    return BurntName(
        project=project,
        filename=filename,
        sha256=sha256,
        deleted_at=_EPOCH + deleted_at * _MICROSECOND,
    )


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970, as in the columns for times."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(number: int | None) -> datetime | None:
    """The inverse of `microseconds`, in UTC; None stays None."""
    return None if number is None else _EPOCH + number * _MICROSECOND


@lru_cache(maxsize=4096)  # most files of a large index share their version with other files
def _key_of(version: str) -> str:
    return version_key(Version(version))


def file_order(version: str | None, filename: str) -> tuple[str, str]:
    """The place of a file among others: by version (PEP 440), unknown ones first, then by name."""
    return _key_of(version) if version else "", filename


def version_key(version: Version) -> str:
    """A text that sorts (by code point) as PEP 440 orders versions."""

    def number(value: int) -> str:
        digits = str(value)
        return f"{len(digits):03d}{digits}"  # a longer number is a larger one

    release = version.release
    while len(release) > 1 and release[-1] == 0:
        release = release[:-1]
    # "!" ends a part and sorts before everything that could follow instead.
    key = number(version.epoch) + "".join(f".{number(part)}" for part in release) + "!"
    if version.pre is not None:
        key += version.pre[0][0] + number(version.pre[1])  # a, b, r(c)
    elif version.post is None and version.dev is not None:
        key += "0"  # 1.0.dev1 comes before 1.0a1
    else:
        key += "~"
    key += "!" if version.post is None else f"1{number(version.post)}"
    key += "~" if version.dev is None else f"0{number(version.dev)}"
    if version.local is not None:
        for part in version.local.split("."):
            key += f".1{number(int(part))}" if part.isdigit() else f".0{part}!"
    return key + "!"
