"""The values that everybody speaks of: frozen, and without behaviour that reaches outside.

The words are those of the PyPA glossary: a *project* has *releases* (versions), a release has
*distribution files*, an *index* lists them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from packaging.utils import NormalizedName

Record = Mapping[str, str]
"""The facts that the core keeps beside a stored file: a flat table of strings (see `records`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributionFile:
    """One published file, with all that a page of the simple API says of it."""

    project: NormalizedName
    filename: str
    version: str  # as in the filename, normalised (PEP 440)
    size: int  # bytes
    sha256: str  # lower-case hex
    uploaded_at: datetime | None  # UTC; None when unknown
    requires_python: str | None
    yanked: str | None  # None: not yanked; the reason otherwise, "" when none was given
    core_metadata_sha256: str | None  # lower-case hex; None: not offered
    location: str  # the backend's own handle; opaque to everyone else
    summary: str | None = None  # one line about the project, of its core metadata; for people


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """What a backend knows of a file without opening it."""

    filename: str
    size: int  # bytes
    location: str  # the backend's own handle
    stamp: str  # changes whenever the bytes may have changed
    record: Record | None  # None: the file came by another road, or its record is of other bytes
    sha256: str | None = None  # lower-case hex, as the storage computed it; None: it did not
    uploaded_at: datetime | None = None  # UTC; as the storage says, for a file without a record
    yanked: str | None = None  # as the storage itself keeps it; None: it says nothing of a yank


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A checked form and its file, ready to be stored.

    `content` is a complete file on a local disk that belongs to the backend from now on: it may
    link or move it (and only then needs no copy). `file.location` is where a file of this name is
    known to lie, else empty.
    """

    file: DistributionFile
    content: Path
    core_metadata: bytes | None
    record: Record


@dataclass(frozen=True, slots=True)
class LocalFile:
    """The content is a file of this machine, complete and immutable under this path."""

    path: Path


@dataclass(frozen=True, slots=True)
class Redirect:
    """The content is elsewhere: `url` needs no credentials, and holds until `expires_at` (UTC)."""

    url: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Stream:
    """The content arrives in chunks of at most a few MiB; closing `chunks` ends the transfer."""

    chunks: Iterator[bytes]
    size: int  # bytes


Download = LocalFile | Redirect | Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class BurntName:
    """A filename that was deleted and is never used again (protocol 71)."""

    project: NormalizedName
    filename: str
    sha256: str
    deleted_at: datetime  # UTC
