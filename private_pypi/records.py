"""The facts kept beside a stored file, as private-pypi 0.2 could read them; not the index.

A record is a flat table of strings: the first value of every field of the upload form (without the
description, which the core metadata has), `distrib` and `sha256` as 0.2 added them, and three facts
of our own that 0.2 ignores: `size`, `uploaded_at` and `core_metadata_sha256`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from private_pypi.errors import InvalidFilename
from private_pypi.filenames import parse_filename
from private_pypi.model import DistributionFile, Record, StoredFile

_OWN = {
    "distrib", "sha256", "size", "uploaded_at", "requires_python", "core_metadata_sha256",
    "summary",
}  # fmt: skip
_LONGEST_SUMMARY = 512  # characters
_SHA256 = re.compile("[0-9a-f]{64}")


def make_record(file: DistributionFile, fields: Sequence[tuple[str, str]]) -> Record:
    """The record of an upload: `fields` are those of its form, in order."""
    record: dict[str, str] = {}
    for name, value in fields:
        if name not in _OWN and name != "description":
            record.setdefault(name, value)
    record["distrib"] = file.project
    record["sha256"] = file.sha256
    record["size"] = str(file.size)
    if file.uploaded_at is not None:
        record["uploaded_at"] = format_time(file.uploaded_at)
    record["requires_python"] = file.requires_python or ""
    if file.core_metadata_sha256 is not None:
        record["core_metadata_sha256"] = file.core_metadata_sha256
    if file.summary is not None:
        record["summary"] = file.summary
    return record


def file_from_record(stored: StoredFile) -> DistributionFile | None:
    """The file, without opening it; None when the record does not say enough to trust it.

    The records of 0.2 have no size and a hash that nobody checked: such files are opened once.
    """
    record = stored.record
    if record is None or record.get("size") != str(stored.size):
        return None
    core_metadata_sha256 = record.get("core_metadata_sha256")
    for digest in (record.get("sha256", ""), core_metadata_sha256):
        if digest is not None and not _SHA256.fullmatch(digest):
            return None
    try:
        parsed = parse_filename(stored.filename)
        uploaded_at = parse_time(record["uploaded_at"]) if "uploaded_at" in record else None
    except (InvalidFilename, ValueError):
        return None
    return DistributionFile(
        project=parsed.project,
        filename=stored.filename,
        version=str(parsed.version),
        size=stored.size,
        sha256=record["sha256"],
        uploaded_at=uploaded_at,
        requires_python=record.get("requires_python") or None,
        yanked=stored.yanked,
        core_metadata_sha256=core_metadata_sha256,
        location=stored.location,
        summary=one_line(record.get("summary")),
    )


def one_line(summary: str | None) -> str | None:
    """A summary as lists show it: one line, not too long; None when nothing is left of it."""
    line = " ".join((summary or "").split())
    if len(line) > _LONGEST_SUMMARY:
        line = line[: _LONGEST_SUMMARY - 1] + "…"
    return line if line not in ("", "UNKNOWN") else None


def format_time(moment: datetime) -> str:
    """`yyyy-mm-ddThh:mm:ss.ffffffZ` (PEP 700), from an aware datetime."""
    in_utc = moment.astimezone(UTC).replace(tzinfo=None)
    return in_utc.isoformat(timespec="microseconds") + "Z"


def parse_time(text: str) -> datetime:
    """The inverse of `format_time`; raises ValueError for anything else than a time with a zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time without a zone: {text!r}")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:  # the first and the last day of all
        raise ValueError(f"time out of range: {text!r}") from error
