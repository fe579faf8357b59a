"""The optional abilities of a storage, with a protocol for each.

A view supports a protocol by having its methods. `capability(storage, SupportsDelete)` tells
whether it does.

Some combinations do not work, so a server refuses them (`missing_capability`). For example, a
storage needs a way to list or look up the files that were uploaded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from private_pypi.backend.settings import BackendSettings, Folders
from private_pypi.backend.storage import AnyBackend, AnyStorage, can
from private_pypi.backend.upstream import SupportsUpstream
from private_pypi.model import (
    DistributionFile,
    Download,
    FileHandle,
    Record,
    StoredFile,
    StoredName,
    Unlisted,
    Upload,
)

NO_INDEX = ""
"""The revision of an index document that does not exist."""


# -- reading -------------------------------------------------------------------------------------


@runtime_checkable
class SupportsList(Protocol):
    """A storage that can list all its files. Its repository is synchronised."""

    def list_files(self) -> Iterator[StoredFile | StoredName | Unlisted]:
        """Every published file once, in any order. Pages are fetched inside the iterator.

        All files that were published before the call, and not deleted since, must be included. For
        a place that cannot be listed, yield an `Unlisted` instead of its files. If more than the
        name of a file would cost an extra request, yield a `StoredName` (see `SupportsFind`). A
        listing does not change the storage, and does not fail because of one damaged file or
        record.
        """


@runtime_checkable
class SupportsListingMark(SupportsList, Protocol):
    """A storage that can say that nothing was added or removed, for much less than a listing."""

    def listing_mark(self) -> str | None:
        """A text that is another one after any file was added or removed; None: not known now.

        It need not change when a file is written to without being replaced: the storage is listed
        from time to time all the same.
        """


@runtime_checkable
class SupportsKeepOpen(Protocol):
    """A storage of which many files can be read in less time if it is kept open meanwhile."""

    def kept_open(self) -> AbstractContextManager[AnyStorage]:
        """A view of the same that keeps open what it opened, until the end; for one thread.

        It is used for some files that were listed a moment ago, and must not call a file gone that
        is there: something may have been moved or replaced since it was opened.
        """


@runtime_checkable
class SupportsListParts(SupportsList, Protocol):
    """A storage whose listing takes long and can be divided. Parts are listed at the same time."""

    def list_parts(self) -> Sequence[str]:
        """Names for parts of the listing: each file that may ever be stored is in one of them.

        They mean the same to every process, also hours later: a listing that was interrupted is
        continued with the parts that are left.
        """

    def list_part(self, part: str) -> Iterator[StoredFile | StoredName | Unlisted]:
        """The files in a part, as `list_files` gives them."""


@runtime_checkable
class SupportsFind(Protocol):
    """A storage whose listing gives only the names of some files (`StoredName`)."""

    def find_file(self, filename: str) -> StoredFile | None:
        """The file with this name; None if it does not exist."""


@runtime_checkable
class SupportsLookup(Protocol):
    """A storage that can list the files of one project.

    If a storage cannot list all files (`SupportsList`), the server asks it for a project each time
    that a client requests this project.
    """

    def project_files(self, project: str) -> Iterator[StoredFile]:
        """Every published file of a project (normalised name) once, newest version first.

        Raises `ProjectNotFound` if the project does not exist for the secret of the view. If
        nothing has changed, this should take one conditional request for each page of the
        storage's listing. Files of other projects, and files that are not distribution files, may
        be included: the core ignores them.
        """


@runtime_checkable
class SupportsProjects(Protocol):
    """A storage that can list its projects, without their files.

    It supports `SupportsLookup`, or `SupportsList` and may have projects that have no files. Their
    names belong to the repository as well.
    """

    def projects(self) -> Iterator[str]:
        """The normalised names of the projects that the secret of the view may read."""


@runtime_checkable
class SupportsProjectList(SupportsProjects, Protocol):
    """A storage that keeps a list of projects, because its provider may not be able to list them.

    The list is for all servers of the storage. `put_file` adds new projects to it.
    """

    def update_projects(self) -> tuple[int, int]:
        """Add all projects to the list that can be found, but are not in it.

        The command `update_index` calls this. Projects are found in what the provider lists for the
        secret of the view, and in the cache of this ROOT. Returns how many were added, and how many
        were in the list before.
        """


@runtime_checkable
class SupportsRecords(Protocol):
    """A storage whose listing does not include records, because each would cost a request."""

    def read_record(self, file: StoredFile) -> Record | None:
        """The record of a file.

        None if there is none, or if it is damaged or was made for other bytes.
        """


@runtime_checkable
class SupportsRecent(Protocol):
    """A storage that can list new files with few requests."""

    def recent_files(self, since: datetime) -> Iterator[StoredFile]:
        """Every file that was published at or after `since` (UTC), newest first if possible.

        Older files may be included. `since` is measured by the clock of the storage: it is a time
        that the storage gave earlier, minus some minutes.
        """


@runtime_checkable
class SupportsCoreMetadata(Protocol):
    """A storage that stores the core metadata of a file separately."""

    def open_core_metadata(self, file: DistributionFile) -> Download:
        """The core metadata that was stored with the file.

        Raises `FileNotFound` if there is none. The core then reads it from the file itself. It does
        the same if the hash of the returned metadata is wrong.
        """


@runtime_checkable
class SupportsParts(Protocol):
    """A storage that can return a part of a file.

    If a file has no record, the core then reads its metadata from a few parts instead of fetching
    the whole file, provided that the storage knows its SHA-256.
    """

    def read_part(self, location: str, start: int, length: int) -> bytes:
        """The `length` bytes from position `start`; fewer at the end. Raises `FileNotFound`."""


@runtime_checkable
class SupportsAliases(Protocol):
    """A storage that knows the identifiers in the download addresses of older servers."""

    def find_alias(self, alias: str, filename: str) -> StoredFile:
        """The file with such an identifier. `filename` is the name in the requested address.

        Raises `FileNotFound`, also if the secret of the view may not read the file.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicAddress:
    """Where everybody can fetch a file without a secret."""

    url: str
    """An absolute URL whose path ends in the filename, without a query, a fragment or a secret. It
    stays valid as long as the file exists."""
    has_core_metadata: bool
    """Whether the core metadata of the file is at the same URL plus `.metadata`."""


@runtime_checkable
class SupportsPublicAddresses(Protocol):
    """A storage from which everybody can fetch files, if it is public.

    Static pages of the repository then link to the files instead of having copies of them.
    """

    def public_addresses(self, files: Sequence[DistributionFile]) -> Mapping[str, PublicAddress]:
        """The addresses of those of the files that everybody can fetch now, by filename.

        It is empty if the storage is not public. The caller has checked that the files exist; this
        should take a few requests for all of them together.
        """


# -- writing -------------------------------------------------------------------------------------


@runtime_checkable
class SupportsPublish(Protocol):
    """A storage that accepts uploads."""

    def put_file(self, upload: Upload) -> StoredFile:
        """Publish a file, its core metadata and its record. They become visible together.

        The call is idempotent: the same bytes under the same name return the first file. Other
        bytes raise `FileAlreadyExists`, also if two servers publish at the same time. The storage
        may move or link `upload.content` instead of copying it. If it raises `BackendUnavailable`,
        the file must still be there, because the core may try again. When the call returns, the
        file must survive a power cut.
        """


@runtime_checkable
class SupportsDelete(Protocol):
    """A storage that can delete a file.

    The name of a deleted file is not used again: it is *burnt*. If the storage has an index
    document, the core keeps burnt names in it. A storage without one has to store burnt names
    itself, for all servers, and support `SupportsRestore`.
    """

    def delete_file(self, file: FileHandle) -> None:
        """Delete the file, its core metadata and its record, if they exist.

        A storage without an index document burns the name first. After that, listings do not
        include the file, and `put_file` raises `FilenameBurnt` for every server. If the name is
        burnt already, the deletion is completed, because it may have been interrupted.
        """


@runtime_checkable
class SupportsRestore(Protocol):
    """A storage that stores burnt names itself, and can allow one to be used again."""

    def restore_name(self, project: str, filename: str) -> Sequence[str]:
        """Allow the name of a deleted file to be used again, in any spelling.

        Returns the burnt names that are the same file to installers; an empty sequence if there are
        none. If a file of such a name is still stored, listings include it again.
        """


@runtime_checkable
class SupportsYank(Protocol):
    """A storage that stores yanks with its files, so that they survive the index document."""

    def yank_file(self, file: FileHandle, reason: str | None) -> None:
        """Mark the file as yanked with a reason ("" if none was given), or remove the mark (None).

        The call is idempotent. Listings then have the reason in `StoredFile.yanked`. Nothing else
        changes, not even the stamp of the file. Raises `FileNotFound` if the file does not exist,
        and `NotAllowed` or `InvalidUpload` if the storage refuses, with its reason.
        """


@runtime_checkable
class SupportsSweep(Protocol):
    """A storage in which a killed writer may leave incomplete files behind."""

    def sweep(self) -> None:
        """Remove what was left behind by writers that certainly no longer exist.

        This is called after each listing, with the secret that the server itself uses. It must not
        disturb a writer that is still active, even on another server. It must not fail if the
        secret may only read.
        """


# -- the index document --------------------------------------------------------------------------


@runtime_checkable
class SupportsIndex(Protocol):
    """A storage that can store the index document.

    The index document is a file in TOML format, which all servers of the storage share. It lists
    the files and the burnt names.
    """

    def read_index(self, into: Path, unless: str | None = None) -> str:
        """Write the document into the file `into`, and return its revision.

        A revision is a text that is different for each version of the document. If there is no
        document, return `NO_INDEX`. If its revision is `unless`, or there is none, nothing is
        written.
        """


@runtime_checkable
class SupportsReplaceIndex(SupportsIndex, Protocol):
    """A storage that can replace a certain revision of the document (compare and swap)."""

    def write_index(self, content: Path, replaces: str) -> str:
        """Replace the document if its revision is still `replaces`, and return the new revision.

        With `NO_INDEX`, write it only if there is no document yet. Otherwise, raise `StaleIndex`.

        The core calls this to rebuild the index, to yank and to delete, but not for uploads.
        """


@runtime_checkable
class SupportsOverwriteIndex(SupportsIndex, Protocol):
    """A storage that can only overwrite the document, such as a tag of an OCI registry.

    The core then locks out the other processes of its ROOT, reads the document again before it
    writes, and checks afterwards that its own version is there. If it is not, the core starts
    again. This does not cover the case that a server with another ROOT overwrites the document
    after this check: then yanks and burnt names of the first server are missing from it.
    """

    def overwrite_index(self, content: Path) -> str:
        """Write the document unconditionally, and return its revision."""


# -- for operators -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A rate limit, as the provider last reported it."""

    resource: str  # what is limited, in the words of the provider; there must be few of them
    limit: int  # requests
    remaining: int  # requests that are left until `resets_at`
    resets_at: datetime  # UTC


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The requests to the provider of a storage since this process started."""

    requests: Mapping[str, int]
    """The number of requests with all secrets of the repository, by status: "2xx", "304", "3xx",
    "4xx", "5xx", and "none" for those without an answer."""
    limits: Sequence[Limit] = ()


@runtime_checkable
class SupportsUsage(Protocol):
    """A storage whose provider limits requests, so that operators want to see their number."""

    def usage(self) -> Usage:
        """The requests until now. This does no I/O."""


# -- abilities of a backend ----------------------------------------------------------------------


@runtime_checkable
class SupportsTenants(Protocol):
    """A backend that serves several storages with one table of the configuration.

    Each of them is called a tenant: a GitHub account, for example. The user name of a request says
    which one is meant. `access()` of the table's own storage tells whether a secret is valid, for
    all tenants (but see `Traits.secrets_per_tenant`).
    """

    def tenant_settings(self, name: str) -> BackendSettings | None:
        """The settings of the tenant with this name (in lower case); None if there is none.

        The same name always gives the same settings. This is called before the secret is checked,
        so it must not send requests.
        """

    def tenant(self, settings: BackendSettings, folders: Folders) -> AnyBackend:
        """A backend for this tenant. It may use connections of this one, which is closed last."""


@runtime_checkable
class SupportsRootAddresses(SupportsTenants, Protocol):
    """A backend whose tenants also have addresses at the root of the server.

    They have the form `/<host>/<path>/…`, as in a system whose clients keep their addresses when
    its server is replaced.
    """

    @property
    def has_root_addresses(self) -> bool:
        """Whether there are such addresses at all, which may depend on the settings."""

    def tenant_at(self, host: str, path: str) -> str | None:
        """The name of the tenant with this address; None if there is none.

        `host` is the first segment of the address, such as "ghcr.io" or "http://127.0.0.1:5000";
        `path` is without slashes at its ends, such as "acme/python". Like `tenant_settings`, it
        must not send requests.
        """


STORAGE_CAPABILITIES: tuple[type, ...] = (
    SupportsList,
    SupportsListingMark,
    SupportsListParts,
    SupportsFind,
    SupportsLookup,
    SupportsProjects,
    SupportsProjectList,
    SupportsRecords,
    SupportsRecent,
    SupportsCoreMetadata,
    SupportsParts,
    SupportsAliases,
    SupportsPublicAddresses,
    SupportsPublish,
    SupportsDelete,
    SupportsRestore,
    SupportsYank,
    SupportsSweep,
    SupportsIndex,
    SupportsReplaceIndex,
    SupportsOverwriteIndex,
    SupportsUsage,
)
"""Every protocol that a view may support."""


def missing_capability(backend_class: type[AnyBackend], lacks: Collection[type] = ()) -> str | None:
    """Why a repository cannot work with this backend; None if it can.

    `lacks`: protocols that its storages do not support although they have the methods.
    """

    def has(*protocols: type) -> bool:
        return any(can(backend_class, protocol) and protocol not in lacks for protocol in protocols)

    if not has(SupportsList, SupportsLookup, SupportsUpstream):
        return (
            "it must be able to list all files (list_files) or the files of a project "
            "(project_files), or to read another index (project_page)"
        )
    if has(SupportsReplaceIndex, SupportsOverwriteIndex) and not has(SupportsList):
        return (
            "it has an index document, so it must be able to list all files (list_files), from "
            "which the document is made"
        )
    if has(SupportsList) and not backend_class.traits.lists_cheaply and not has(SupportsIndex):
        return (
            "listing all files is costly (traits.lists_cheaply), so it must have an index document "
            "(read_index)"
        )
    keeps_burnt_names = has(SupportsReplaceIndex, SupportsOverwriteIndex, SupportsRestore)
    if has(SupportsDelete) and not keeps_burnt_names:
        return (
            "it can delete files, so it must be able to store the names of deleted files: in an "
            "index document (write_index or overwrite_index) or in its own way (restore_name)"
        )
    return None
