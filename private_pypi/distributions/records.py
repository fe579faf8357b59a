"""Records: what is known about a file, stored next to it so that it need not be opened again.

A record is a table of strings. It has the first value of every field of the upload form, except for
the description, which is in the core metadata. `distrib` (the project) and `sha256` are added as
private-pypi 0.2 did, which could read these records. `size`, `uploaded_at` and
`core_metadata_sha256` are new; 0.2 ignored them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.errors import MessageError
from email.header import decode_header, make_header
from itertools import islice

from packaging.utils import NormalizedName

from private_pypi.distributions.filenames import parse_filename, project_name
from private_pypi.errors import InvalidFilename
from private_pypi.model import DistributionFile, Record, StoredFile, format_time

_OWN = {
    "distrib", "sha256", "size", "uploaded_at", "requires_python", "core_metadata_sha256",
    "summary",
}  # fmt: skip
_LONGEST_SUMMARY = 512  # characters
_LONGEST_ENCODED = 16 * 1024  # characters; longer texts are not searched for encoded words
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")
_WORD = re.compile(r"\S+")
_SHA256 = re.compile("[0-9a-f]{64}")


def make_record(file: DistributionFile, fields: Sequence[tuple[str, str]]) -> Record:
    """The record of an upload. `fields` are the names and values of its form, in order."""
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
    # What the form says about these is kept as it is.
    for key, text in (("name", file.published_name), ("keywords", file.keywords)):
        if text is not None:
            record.setdefault(key, text)
    return record


def file_from_record(stored: StoredFile) -> DistributionFile | None:
    """What the record says about a file; None if the file has to be opened to find out.

    That is so if it has no record, or one that is incomplete or was made for a file of another
    size. The records of private-pypi 0.2 have no size, and their hash was never checked.
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
        published_name=published_name(record.get("name"), parsed.project),
        keywords=one_line(record.get("keywords")),
    )


def first_seen(stored: StoredFile) -> datetime:
    """A time to show as the upload time of a file whose real one is unknown.

    This is its modification time, or the current time if there is none. Files need some time,
    because installers that ignore recent files (`--exclude-newer`, `--uploaded-prior-to`) refuse
    files without one.
    """
    now = datetime.now(UTC)
    return now if stored.modified_at is None else min(stored.modified_at, now)


def one_line(summary: str | None) -> str | None:
    """A text as one line of at most 512 characters; None if there is nothing to show."""
    if not summary:
        return None
    is_line = len(summary) <= _LONGEST_SUMMARY and summary.isascii() and summary.isprintable()
    if is_line and "=?" not in summary:  # as nearly all summaries
        line = " ".join(summary.split())
        return line if line not in ("", "UNKNOWN") else None
    # No more words than fit into the line: splitting a long text would take much memory.
    words = islice(_WORD.finditer(decoded(summary)), _LONGEST_SUMMARY)
    line = printable(" ".join(word[0] for word in words))
    if len(line) > _LONGEST_SUMMARY:
        line = line[: _LONGEST_SUMMARY - 1] + "…"
    return line if line not in ("", "UNKNOWN") else None


def published_name(name: str | None, project: NormalizedName) -> str | None:
    """The name of a project as it is spelled in its metadata.

    None if it is spelled like the normalised name, or is the name of another project.
    """
    if name is None or name == project or not name.isascii():
        return None
    return name if project_name(name) == project else None


def printable(text: str) -> str:
    """A text that is safe to show in a terminal or on a page.

    Control characters other than tabs and line ends are replaced by U+FFFD.
    """
    return _CONTROL.sub("\ufffd", text)


def decoded(text: str) -> str:
    """A text with its encoded words, such as `=?utf-8?q?…?=`, decoded (RFC 2047).

    Some tools write headers of core metadata like those of an e-mail. A very long text is returned
    unchanged, because decoding takes many times its memory.
    """
    if "=?" not in text[:_LONGEST_ENCODED] or len(text) > _LONGEST_ENCODED:
        return text
    try:
        return str(make_header(decode_header(text)))
    except (MessageError, LookupError, ValueError):
        return text


def parse_time(text: str) -> datetime:
    """The inverse of `format_time`, in UTC; raises ValueError if it is not a time with a zone."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time without a time zone: {text!r}")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:  # on the first or last day that Python can represent
        raise ValueError(f"time out of range: {text!r}") from error
