"""What a server serves under one name: the contract between the web and all kinds of repositories.

A repository is asked on behalf of a caller, whose secret is given with every question. Trouble is
raised as an error (`private_pypi.errors`), and never reported as absence.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase

from packaging.utils import NormalizedName

from private_pypi.backend import Access, Secret, Usage
from private_pypi.errors import BackendUnavailable, FileNotFound, PrivatePypiError, Unsupported
from private_pypi.index.local import ProjectLine
from private_pypi.index.looking import Look
from private_pypi.index.synchronizing import SyncCounts
from private_pypi.model import DistributionFile, ListedFile, Upload
from private_pypi.repositories.answers import Absent, Elsewhere, Found, ProjectList, ToFetch
from private_pypi.repositories.explaining import Explanation
from private_pypi.repositories.opening import Opened
from private_pypi.storage.arriving import Arriving
from private_pypi.storage.file_cache import FileCache
from private_pypi.system.background import Pending

CLOSING_SECONDS = 10.0
"""For how many seconds closing all repositories waits for calls to their storages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryState:
    """The state of a repository, for those who operate the server."""

    ready: bool  # whether it can answer
    synced_at: float | None  # unix seconds; None: never, or it is not synchronised
    error: str | None  # of the last synchronisation, or why it is not ready
    stale: str | None = None  # why a missing file may not be called absent; None: it may


class NotAtHand(BackendUnavailable):
    """The answer is not known without asking a storage, which was not allowed."""

    def __init__(self) -> None:
        super().__init__("the storage has to be asked")


class Repository(abc.ABC):
    """One repository. Its constructor opens nothing that has to be closed."""

    name: str
    type: str  # as in the configuration
    claimed: Sequence[str] = ()
    """Patterns of normalised names that belong to it, whether or not it has such a project."""
    is_mirror = False
    """Whether it is another index, read through, so that no name belongs to it."""
    max_file_bytes: int = 0  # of an upload
    opens_files_here = False  # whether files are on this machine, so that opening one is quick
    has_everything = False
    """Whether `find`, `file` and `list_projects` never ask a storage, because the local index is a
    copy of all that it has."""
    rights_per_project = False
    """Whether a secret may have different rights in each project. Then `access` without a project
    tells whether the secret is valid at all."""
    secrets_per_tenant = False  # see `Traits.secrets_per_tenant`

    # -- life ------------------------------------------------------------------------------------

    # What is kept up to date in the background overrides these.

    def start(self) -> None:  # noqa: B027
        """Start the threads of this repository."""

    def wait_until_ready(self, timeout: float) -> bool:
        """Wait until the repository can answer, at most `timeout` seconds; whether it can."""
        return True

    def begin_close(self) -> None:  # noqa: B027
        """Tell the threads of this repository to stop; does not wait for them."""

    def close(self, timeout: float = CLOSING_SECONDS) -> None:  # noqa: B027
        """Stop the threads of this repository and close its local index.

        Waits at most `timeout` seconds for calls to the storage that are running.
        """

    # -- members, which only groups have -----------------------------------------------------------

    @property
    def members(self) -> Sequence[Repository]:
        """The repositories that answer for a group, in the order in which they are asked."""
        return ()

    # -- tenants (see `tenants`), which most kinds do not have -------------------------------------

    def has_tenant(self, user: str) -> bool:
        """Whether this table has a tenant of this name (lower case)."""
        return False

    def tenant(self, user: str) -> Repository | None:
        """The tenant of this name (lower case); None: there is none.

        Call it only for secrets that the storage accepts, because each tenant takes memory.
        """
        return None

    def has_root_addresses(self) -> bool:
        """Whether tenants have addresses at the root of the server (`SupportsRootAddresses`)."""
        return False

    def tenant_at(self, host: str, path: str) -> str | None:
        """The name of the tenant with this address at the root of the server; None: there is none.

        See `SupportsRootAddresses`.
        """
        return None

    # -- rights ----------------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def is_public(self) -> bool:
        """Whether people without a secret may read."""

    @abc.abstractmethod
    def public_secret(self, *, ask: bool = True) -> Secret:
        """The secret with which people without one read a public repository.

        Raises `NotConfigured` if it does not work. Without `ask`, no storage is asked.
        """

    @abc.abstractmethod
    def access(
        self,
        secret: Secret,
        need: Access,
        *,
        project: NormalizedName | None = None,
        ask: bool = True,
        client: str = "",
    ) -> Access:
        """The rights of a secret in a project (None: in the repository), as the storage says.

        Without `ask`, the storage is not asked, and `BackendUnavailable` is raised if no answer is
        remembered. `client`: see `Credentials`.
        """

    # -- state -----------------------------------------------------------------------------------

    @abc.abstractmethod
    def require_ready(self) -> None:
        """Raise an error unless the repository can answer."""

    @abc.abstractmethod
    def state(self) -> RepositoryState:
        """The state of the repository. No storage is asked."""

    def state_for(self, secret: Secret) -> RepositoryState:
        """The state as a caller may know it, who may read the repository.

        Storages are asked only about the rights of the caller.
        """
        return self.state()

    def synced_at(self) -> float | None:
        """When it was synchronised last (unix seconds); None: never.

        Raises an error until the repository is ready.
        """
        self.require_ready()
        return self.state().synced_at

    def sync_counts(self) -> SyncCounts | None:
        """The synchronisations of this process; None if there are none."""
        return None

    def usage(self) -> Usage | None:
        """The requests to the provider of the storage, and its limits for the server's own secret.

        None if requests are not counted.
        """
        return None

    def caches(self) -> Mapping[str, FileCache]:
        """Its disk caches by name, if it needs any."""
        return {}

    @abc.abstractmethod
    def serial(self) -> int:
        """A number that grows with every change of the repository; 0 while it is empty."""

    # -- reading ---------------------------------------------------------------------------------

    @abc.abstractmethod
    def may_ask_storage(self) -> bool:
        """Whether a page may have to wait for a storage."""

    @abc.abstractmethod
    def find(
        self, project: NormalizedName, secret: Secret, *, ask: bool = True
    ) -> Found | Elsewhere | Absent:
        """A project, or whether it may be looked for elsewhere.

        Without `ask`, no storage is asked, and `BackendUnavailable` is raised if the answer is not
        known.
        """

    def begin_find(
        self, project: NormalizedName, secret: Secret, *, for_installer: bool = False
    ) -> Pending | None:
        """Begin what `find` would wait for, so that no thread has to wait.

        None: it would wait for nothing, or it is not known for what. `for_installer`: what an
        installer is likely to ask for next may be fetched ahead.
        """
        return None

    def explain(self, project: NormalizedName, secret: Secret) -> Explanation:
        """What is served of a project, what is not, and why.

        The storage is asked as `find` does, and trouble is raised in the same way. A repository
        that hides any file overrides this.
        """
        answer = self.find(project, secret)
        if not isinstance(answer, Found):
            return Explanation(project=project, is_found=False)
        return Explanation(
            project=project, is_found=True, files=answer.files(), freshness=answer.freshness
        )

    def is_at_hand(self, project: NormalizedName, secret: Secret) -> bool:
        """Whether the project can be shown without asking a storage."""
        try:
            self.find(project, secret, ask=False)
        except PrivatePypiError:
            return False
        return True

    @abc.abstractmethod
    def ever_had(self, project: NormalizedName) -> bool:
        """Whether a project belongs to this repository, because it has or had such files.

        The storage is not asked, and no rights are checked. Raises `BackendUnavailable` if that is
        not known.
        """

    @abc.abstractmethod
    def had_names(self) -> Collection[NormalizedName]:
        """The names of all projects for which `ever_had` is true, raising the same."""

    def claims(self, project: NormalizedName) -> bool:
        """Whether the configuration claims this name for the repository."""
        return any(fnmatchcase(project, pattern) for pattern in self.claimed)

    @abc.abstractmethod
    def list_projects(self, secret: Secret) -> ProjectList:
        """The projects that the caller may see."""

    @abc.abstractmethod
    def search(
        self, words: Sequence[str], secret: Secret, *, limit: int, offset: int
    ) -> tuple[int, list[ProjectLine]]:
        """How many projects have every word in their name, summary or keywords, and some of them.

        `limit` and `offset` choose these.
        """

    @abc.abstractmethod
    def newest_releases(
        self, limit: int, secret: Secret, *, once_each: bool = True
    ) -> list[ProjectLine]:
        """The releases uploaded last. `once_each`: only the newest release of each project."""

    @abc.abstractmethod
    def newest_projects(self, limit: int, secret: Secret) -> list[ProjectLine]:
        """The projects whose first upload was last."""

    @abc.abstractmethod
    def file(
        self,
        project: NormalizedName,
        filename: str,
        secret: Secret,
        need: Access = Access.READ,
    ) -> ListedFile:
        """A file of a project. Raises `FileNotFound` only if it is known to be absent."""

    def begin_look(
        self, project: NormalizedName, filename: str, secret: Secret, since: float
    ) -> Look | None:
        """Begin to look for a file that `file` did not find, and that may be new in the storage.

        None: the storage has no journal that tells what is new, such a file cannot be there, the
        file is known by now, or the storage was listed later than `since` (`time.monotonic`).
        """
        return None

    def to_fetch(
        self,
        project: NormalizedName,
        filename: str,
        secret: Secret,
        *,
        core_metadata: bool,
    ) -> ToFetch | None:
        """A file (or its core metadata) that has to be fetched before any of it can be sent.

        No storage is asked, and no file is opened. None: it is here, or only a thread that may wait
        finds out what the answer is. Raises `NotAtHand` for the same reason.
        """
        return None

    @abc.abstractmethod
    def release(
        self,
        project: NormalizedName,
        version: str,
        secret: Secret,
        need: Access = Access.READ,
    ) -> Sequence[ListedFile]:
        """The files of a version, which is compared as PEP 440 says; raises `NotFound`."""

    @abc.abstractmethod
    def open_file(
        self, file: ListedFile, secret: Secret, awaited: Arriving | None = None
    ) -> Opened:
        """The content of a file that `file` has returned.

        `awaited`: what an earlier call returned, if the caller has waited for it since.
        """

    @abc.abstractmethod
    def open_core_metadata(
        self, file: ListedFile, secret: Secret, awaited: Arriving | None = None
    ) -> Opened:
        """The core metadata as advertised, byte for byte (protocol 29)."""

    def open_alias(
        self, alias: str, filename: str, secret: Secret, awaited: Arriving | None = None
    ) -> ListedFile | Opened:
        """The file that had the address `alias` on an older server. Raises `FileNotFound`.

        This is the file of the index with this filename, if there is one. Otherwise the storage is
        asked for the alias. `awaited`: as for `open_file`.
        """
        raise FileNotFound(filename)

    @abc.abstractmethod
    def at(self, instant: datetime) -> Repository:
        """The same repository as it was at an instant (UTC), as far as upload times tell.

        Nothing can be changed in it. What was deleted since then is not brought back.
        """

    # -- changing --------------------------------------------------------------------------------

    def is_published(self, upload: Upload, secret: Secret) -> bool:
        """Whether there is a file of this name, in any spelling. Raises what `publish` raises."""
        raise self._read_only()

    def publish(self, upload: Upload, secret: Secret) -> DistributionFile:
        """Store and show a file (see `publishing.publish`)."""
        raise self._read_only()

    def yank(self, files: Sequence[ListedFile], reason: str | None, secret: Secret) -> None:
        """Yank or un-yank files (see `publishing.yank`)."""
        raise self._read_only()

    def delete(self, files: Sequence[ListedFile], secret: Secret) -> None:
        """Delete files for ever (see `publishing.delete`)."""
        raise self._read_only()

    def _read_only(self) -> Unsupported:
        return Unsupported(
            f"repository {self.name!r} is of type {self.type!r}, which cannot be changed"
        )
