"""The contract between the core and a storage; no storage is named here.

A backend is a courier: it stores, lists and fetches. Filenames, hashes, metadata, HTML, retries,
caches and the arithmetic of the index belong to the core.
`private_pypi.testing.contract.BackendContract` is the definition of a backend; this file is its
summary.

Rules for every method of every backend:

1. It may be called from many threads at once, and by several processes at once.
2. It is atomic: nobody ever sees half a file or half an index, whatever is killed when.
3. It raises `private_pypi.errors` only: `BackendUnavailable` when asking again may help,
   `StorageFull` when there is no space, `BackendError` for other trouble. Trouble is never
   `NotFound`.
4. It does not retry (`retrying` does), and every wait for a network has a time-out.
5. It may raise `WrongSecret` when the storage has ceased to accept our secret.
"""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, runtime_checkable

from private_pypi.model import DistributionFile, Download, StoredFile, Upload

NO_INDEX = ""
"""The revision of an index document that does not exist."""

Known = Callable[[str, str], bool]
"""`known(filename, stamp)`: whether the caller has the facts of a file, as its bytes are now."""

ANY_STAMP = ""
"""For a file of which only the name can be had cheaply: `known(filename, ANY_STAMP)` is whether
the caller has facts of it at all; a `StoredFile` with this stamp says that they may stay."""


class Access(enum.IntEnum):
    """What a secret may do; each level includes those before it."""

    NONE = 0
    READ = 1
    WRITE = 2


class Secret:
    """A secret that does not show itself in a repr, a message or a log line."""

    __slots__ = ("_raw",)

    def __init__(self, raw: str) -> None:
        self._raw = raw

    def reveal(self) -> str:
        """The secret itself, for the call to the storage and nothing else."""
        return self._raw

    def __bool__(self) -> bool:
        return bool(self._raw)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._raw == other._raw

    def __hash__(self) -> int:
        return hash(self._raw)

    def __repr__(self) -> str:
        return "Secret(…)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Traits of a storage, each read by the core."""

    largest_file: int  # bytes; the default of `max_file_bytes`
    is_local: bool = False
    """Listing and asking for the index cost about nothing: every synchronisation lists."""
    needs_admin_secret: bool = True
    """Synchronising needs a secret of its own from `admin_secret.toml`."""
    rights_per_project: bool = False
    """`access(project)` may differ from `access()`: nothing kept is given to a secret that the
    provider has not confirmed for that project."""
    lists_files: bool = True
    """There is a listing of all files and an index document. False: the storage answers for one
    project at a time (`SupportsLookup`), and `list_files`, `read_index` and `write_index` raise
    `Unsupported`."""


@dataclass(frozen=True, kw_only=True)
class BackendSettings:
    """The checked fields of a repository's table; a backend's `Settings` adds its own.

    `config` fills them from TOML by their annotations. A field annotated `Secret` or
    `tuple[Secret, ...]` may also come from `<field>_env` or `<field>_file`.
    """

    name: str  # of the repository, lower case
    max_file_bytes: int


@dataclass(frozen=True, kw_only=True)
class RemoteSettings(BackendSettings):
    """What an operator may choose wherever files come over a network."""

    download: Literal["proxy", "redirect"] = "proxy"
    """Whether clients get files from us, or are sent to the storage where it can take them."""
    cache_bytes: int = 5 * 2**30
    """How much of what was proxied is kept on our disk."""

    def __post_init__(self) -> None:
        if self.cache_bytes <= 0:
            raise ValueError(f"cache_bytes: must be greater than 0, not {self.cache_bytes}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """What one repository may use below ROOT; each exists already.

    But for those of a tenant (`SupportsTenants`): `cache` and `lock` exist once its storage has
    confirmed a project, so not yet while `access` or `projects` is asked.
    """

    cache: Path  # kept between starts
    lock: Path  # for locks between the processes of this ROOT
    tmp: Path  # emptied at start


SettingsT = TypeVar("SettingsT", bound=BackendSettings)


class Backend(abc.ABC, Generic[SettingsT]):
    """One storage, seen with one secret. Construction does no I/O."""

    Settings: ClassVar[type[BackendSettings]]
    capabilities: ClassVar[Capabilities]
    location_key: ClassVar[str] = "location"
    """The key of `[[pkgs]]` in `index.toml` that bears `location`."""

    def __init__(self, settings: SettingsT, secret: Secret, folders: Folders) -> None:
        self.settings = settings
        self.secret = secret
        self.folders = folders

    @abc.abstractmethod
    def access(self, project: str | None = None) -> Access:
        """What our secret may do here, or with this project.

        The caller keeps the verdict for a while, also a refusal. Where rights differ per project,
        `access()` tells whether the secret is any good, and the project decides about the rest:
        NONE there is an absence, because the storage may not tell the two apart.
        """

    @abc.abstractmethod
    def list_files(self, known: Known | None = None) -> Iterator[StoredFile]:
        """Every published file once, in any order; paging happens inside the iterator.

        A file that was published before the call and not deleted since is always there.
        A broken record makes a `StoredFile` without a record, never an error. Where reading a
        record costs something, it is also left out for files that are `known`.
        """

    @abc.abstractmethod
    def open_file(self, file: DistributionFile) -> Download:
        """The content, or where it is. Raises `FileNotFound` when it is known to be gone."""

    @abc.abstractmethod
    def open_core_metadata(self, file: DistributionFile) -> Download:
        """The core metadata that was put with the file.

        Raises `FileNotFound` when none is stored: the core then reads it from the file itself.
        """

    @abc.abstractmethod
    def put_file(self, upload: Upload) -> StoredFile:
        """Publish a file, its core metadata and its record; visible whole, or not at all.

        Idempotent: the same bytes under the same name again return the first file. Other bytes
        raise `FileAlreadyExists`, whatever the order of two writers. `upload.content` may be gone
        afterwards, except after `BackendUnavailable`. When this returns, the file survives a power
        cut.
        """

    @abc.abstractmethod
    def read_index(self, into: Path, unless: str | None = None) -> str:
        """Write the index document into the file `into` and return its revision.

        `NO_INDEX` when there is none. Nothing is written when the revision is `NO_INDEX` or
        equals `unless`.
        """

    @abc.abstractmethod
    def write_index(self, content: Path, replaces: str) -> str:
        """Replace the document if its revision is still `replaces`; return the new revision.

        `replaces=NO_INDEX`: only if there is none. Raises `StaleIndex` otherwise.
        """


@runtime_checkable
class SupportsRecent(Protocol):
    """A storage that can tell cheaply what is new."""

    def recent_files(self, since: datetime) -> Iterator[StoredFile]:
        """At least every file published at or after `since` (UTC), newest first if possible."""


@runtime_checkable
class SupportsDelete(Protocol):
    """A storage that can forget a file."""

    def delete_file(self, file: DistributionFile) -> None:
        """Remove the file, its metadata and its record. Removing what is gone is no error."""


@runtime_checkable
class SupportsYank(Protocol):
    """A storage that keeps yanks beside its files, where they outlive the index document."""

    def yank_file(self, file: DistributionFile, reason: str | None) -> None:
        """Mark the file as yanked with a reason ("" for none given), or unmark it (None).

        Idempotent. Listings then give `StoredFile.yanked`, of every file that is marked; nothing
        else of the file changes, its stamp neither. Raises `FileNotFound`, and `NotAllowed` or
        `InvalidUpload` with what the storage refuses.
        """


@runtime_checkable
class SupportsLookup(Protocol):
    """A storage that answers for one project at a time, and may not be able to list all files."""

    def project_files(self, project: str, known: Known | None = None) -> Iterator[StoredFile]:
        """Every published file of a project (normalised name) once, newest version first.

        Raises `ProjectNotFound` when the storage shows no such project to our secret. While
        nothing changed it costs one conditional request for each page of the storage's listing.
        Files that are no distribution files, or another project's, may be among them.
        """

    def projects(self) -> Iterator[str]:
        """The projects that our secret may read, by normalised name, as far as can be told."""


@runtime_checkable
class SupportsParts(Protocol):
    """A storage of which a part of a file can be read, without the rest."""

    def read_part(self, location: str, start: int, length: int) -> bytes:
        """`length` bytes from `start` on, fewer at the end; raises `FileNotFound`."""


@runtime_checkable
class SupportsAssetIds(Protocol):
    """A storage whose older servers gave files away under identifiers of the provider."""

    def open_asset(self, asset_id: str, filename: str) -> tuple[StoredFile, Download]:
        """The file behind an identifier, as far as our secret may read it.

        Raises `FileNotFound`; the filename is what the caller believes it to be called.
        """


@runtime_checkable
class SupportsTenants(Protocol):
    """Settings of a table that serves further places, each under a user name of its own.

    `access()` of the table's own storage tells whether a secret is any good, for all of them.
    """

    def tenant(self, user: str) -> BackendSettings | None:
        """The settings of the place that this Basic user (lower case) means; None: not here.

        Equal users give equal settings. It is asked before any secret was checked: no I/O.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How much a provider lets our secret ask, as it said last."""

    resource: str  # what is limited, in the provider's words; few different ones
    limit: int  # requests
    remaining: int  # requests, until `resets_at`
    resets_at: datetime  # UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a storage's provider was asked by this process, since it started."""

    requests: Mapping[str, int]
    """With all secrets of the repository, by class of status: "2xx", "304", "3xx", "4xx", "5xx",
    and "none" where no answer came."""
    limits: Sequence[Limit] = ()


@runtime_checkable
class SupportsUsage(Protocol):
    """A storage whose provider counts requests, or should not be asked too often."""

    def usage(self) -> Usage:
        """What was asked so far; asks nobody, and takes microseconds."""


AnyBackend = Backend[Any]

__all__ = [
    "ANY_STAMP",
    "NO_INDEX",
    "Access",
    "AnyBackend",
    "Backend",
    "BackendSettings",
    "Capabilities",
    "Folders",
    "Known",
    "Limit",
    "RemoteSettings",
    "Secret",
    "SupportsAssetIds",
    "SupportsDelete",
    "SupportsLookup",
    "SupportsParts",
    "SupportsRecent",
    "SupportsTenants",
    "SupportsUsage",
    "SupportsYank",
    "Usage",
]
