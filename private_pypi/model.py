"""The values that all parts of private_pypi exchange. They are immutable and do no I/O.

The words are those of the PyPA glossary: a *project* has *releases* (versions), a release has
*distribution files*, an *index* lists them. A *storage* is where the files are kept, for example a
folder. A *backend* is the code that accesses one kind of storage, and the *core* is all the code
that works with every backend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

from packaging.utils import NormalizedName

Record = Mapping[str, str]
"""What the core stores next to each file: a table of strings (see `distributions.records`)."""


class ShownFile(Protocol):
    """What pages for tools say of one file. The values are explained in `ListedFile`."""

    # As properties, because they are only read, and may be computed.
    @property
    def filename(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def size(self) -> int | None: ...
    @property
    def sha256(self) -> str | None: ...
    @property
    def hashes(self) -> Mapping[str, str]: ...
    @property
    def requires_python(self) -> str | None: ...
    @property
    def upload_time(self) -> str | None: ...
    @property
    def offers_core_metadata(self) -> bool: ...
    @property
    def core_metadata_sha256(self) -> str | None: ...
    @property
    def yanked(self) -> str | None: ...
    @property
    def provenance(self) -> str | None: ...
    @property
    def source(self) -> Sequence[str]: ...


def format_time(moment: datetime) -> str:
    """`yyyy-mm-ddThh:mm:ss.ffffffZ` (PEP 700), from an aware datetime."""
    in_utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return in_utc.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def format_microseconds(since_1970: int) -> str:
    """The same for a number of microseconds since 1970, in a third of the time."""
    minute, rest = divmod(since_1970, 60_000_000)
    digits = str(rest + 100_000_000)  # "1", two digits of seconds and six of microseconds
    return f"{_minute(minute)}{digits[1:3]}.{digits[3:]}Z"


@lru_cache(maxsize=4096)  # the files of a release are often uploaded in the same minute
def _minute(number: int) -> str:
    """The time without its seconds, so many minutes after 1970."""
    return format_time(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(minutes=number))[
        : len("yyyy-mm-ddThh:mm:")
    ]


class ShownColumns(NamedTuple):
    """The columns of a file in a local index that pages for tools are made of."""

    uploaded_at: int | None  # microseconds since 1970
    filename: str
    version: str
    size: int
    sha256: str
    requires_python: str | None
    yanked: str | None
    core_metadata_sha256: str | None


class ShownRow(ShownColumns):
    """The same as a `ShownFile`."""

    __slots__ = ()
    # What these files never have.
    hashes = MappingProxyType[str, str]({})
    provenance = None
    source = ()

    @property
    def upload_time(self) -> str | None:
        """See `ListedFile`."""
        return None if self.uploaded_at is None else format_microseconds(self.uploaded_at)

    @property
    def offers_core_metadata(self) -> bool:
        """See `ListedFile`."""
        return self.core_metadata_sha256 is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHandle:
    """Identifies a file in a storage."""

    project: NormalizedName
    filename: str
    size: int | None  # bytes; None: unknown
    sha256: str | None  # lower-case hex; None: unknown
    location: str  # where the storage has it; only the backend knows what it means


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedFile(FileHandle):
    """One file, with everything that a page of the simple API says about it.

    A file of another index may lack its size and its SHA-256, because that index does not say them.
    """

    version: str  # as in the filename, normalised (PEP 440)
    uploaded_at: datetime | None  # UTC; None: unknown
    requires_python: str | None
    yanked: str | None  # the reason, or "" if none was given; None: not yanked
    core_metadata_sha256: str | None
    """Lower-case hex. None: core metadata is not offered to clients, or its hash is unknown."""
    offers_unhashed_metadata: bool = False
    """Whether core metadata is offered although its hash is unknown."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """Hashes other than SHA-256, by algorithm, in lower case."""
    provenance: str | None = None  # the absolute https URL of the provenance file (PEP 740)
    source: tuple[str, ...] = ()
    """In a group, the names of the repositories that lead to the file; the last one has it."""
    # From the core metadata, on one line each. They are shown to people.
    summary: str | None = None
    published_name: str | None = None  # the project's name, if it is not spelled like `project`
    keywords: str | None = None

    @property
    def offers_core_metadata(self) -> bool:
        """Whether clients can get the core metadata without the file (PEP 658)."""
        return self.core_metadata_sha256 is not None or self.offers_unhashed_metadata

    @property
    def upload_time(self) -> str | None:
        """When it was uploaded, as pages write it (PEP 700); None: unknown."""
        return None if self.uploaded_at is None else format_time(self.uploaded_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributionFile(ListedFile):
    """One file that was published in a storage, so that its size and its SHA-256 are known."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ProjectStatus:
    """The status marker of a project (PEP 792), such as "archived" or "quarantined"."""

    status: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ProjectPage:
    """What the page of a project says (PEP 503, PEP 691)."""

    files: Sequence[ListedFile]  # ordered by version (PEP 440), then by name
    status: ProjectStatus | None = None  # None: active


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """What a storage knows about a file without opening it."""

    filename: str
    size: int  # bytes
    location: str  # where the storage has it; only the backend knows what it means
    stamp: str  # changes whenever the bytes may have changed
    record: Record | None = None
    """None: the file was not published through a server, its record was made for other bytes, or
    the record has to be requested separately (`SupportsRecords`)."""
    sha256: str | None = None  # lower-case hex, computed by the storage; None: it does not do that
    uploaded_at: datetime | None = None  # UTC, according to the storage; for files without a record
    modified_at: datetime | None = None
    """UTC; when the bytes last changed, according to the storage. The file may have come into the
    storage at another time, so this is only used if `uploaded_at` is unknown."""
    yanked: str | None = None  # the reason, if the storage itself stores yanks; None: not yanked
    project: str | None = None
    """The project of the file according to the storage, in any spelling: the name of its folder,
    for example. None: only the filename says which project it is."""


@dataclass(frozen=True, slots=True)
class StoredName:
    """A stored file in a listing that gives only its name, because more would cost a request."""

    filename: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlisted:
    """Something that a listing had to leave out.

    For example, this is a folder that cannot be read, or a file in a format that is not served.
    """

    location: str  # the `location` of every file in it begins with this
    problem: str  # a sentence for the operator: what was left out, why, and what would help
    may_hold_files: bool
    """Whether there may be distribution files in it. If so, the files that were found in it earlier
    are kept in the index, and no project can be said to have no files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A checked form and its file, ready to be stored.

    `content` is a complete file on the file system of ROOT, the folder of the server. The storage
    may move or link it instead of copying it. `file.location` is the location of a file of this
    name if one is known to exist, and empty otherwise. The project, the filename and the hash have
    been checked.
    """

    file: DistributionFile
    content: Path
    core_metadata: bytes | None
    record: Record
    warnings: tuple[str, ...] = ()  # sentences about what the publisher should correct


@dataclass(frozen=True, slots=True)
class LocalFile:
    """The content is a complete, unchanging file on this machine, open at its beginning.

    It is an open file instead of a path, because the file at a path could be replaced between the
    moment it is checked and the moment it is sent. The receiver has to close it.
    """

    file: BufferedReader


@dataclass(frozen=True, slots=True)
class Redirect:
    """The content is at `url`, which needs no credentials and works until `expires_at` (UTC)."""

    url: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Stream:
    """The content comes in chunks of at most a few MiB. Closing `chunks` ends the transfer."""

    chunks: Iterator[bytes]
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Freshness:
    """Whether the files that are shown are those that the storage has now."""

    age: float | None
    """None: they are, apart from changes since the last regular look at the storage. A number: the
    storage fails, and these are the files it had so many seconds ago. Nothing may then be reported
    as missing (404), because it may have been added since."""


FRESH = Freshness(None)

Download = LocalFile | Redirect | Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class BurntName:
    """The name of a deleted file, which may not be used again."""

    project: NormalizedName
    filename: str
    sha256: str
    deleted_at: datetime  # UTC
