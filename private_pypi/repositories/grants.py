"""A repository together with the rights of one caller: what the web works with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from packaging.utils import NormalizedName

from private_pypi.backend import Access, Secret
from private_pypi.index.local import ProjectLine
from private_pypi.index.looking import Look
from private_pypi.model import DistributionFile, ListedFile, Upload
from private_pypi.repositories.answers import Absent, Elsewhere, Found, ProjectList, ToFetch
from private_pypi.repositories.explaining import Explanation
from private_pypi.repositories.opening import Opened
from private_pypi.repositories.repository import Repository, RepositoryState
from private_pypi.storage.arriving import Arriving
from private_pypi.system.background import Pending


@dataclass(frozen=True, slots=True)
class Grant:
    """What one caller may see and do in a repository.

    If the storage has rights for each project, they are checked before anything of a project is
    shown or changed.
    """

    repository: Repository
    access: Access
    secret: Secret

    @property
    def name(self) -> str:
        """The name of the repository."""
        return self.repository.name

    @property
    def is_public(self) -> bool:
        """Whether anybody may read without a secret."""
        return self.repository.is_public

    @property
    def max_file_bytes(self) -> int:
        """The size of the largest file that may be published (bytes)."""
        return self.repository.max_file_bytes

    @property
    def opens_files_here(self) -> bool:
        """Whether files are on this machine, so that opening one is quick."""
        return self.repository.opens_files_here

    @property
    def has_everything(self) -> bool:
        """Whether all answers but the content of files are in the local index."""
        return self.repository.has_everything

    @property
    def state(self) -> RepositoryState:
        """The state of the repository, as the caller may know it."""
        return self.repository.state_for(self.secret)

    def at(self, instant: datetime) -> Grant:
        """The same right in the repository as it was at an instant (UTC); see `Repository.at`."""
        return replace(self, repository=self.repository.at(instant))

    def is_at_hand(self, project: NormalizedName) -> bool:
        """Whether the project can be shown without asking the storage."""
        return self.repository.is_at_hand(project, self.secret)

    # -- reading ---------------------------------------------------------------------------------

    def require_ready(self) -> None:
        """Raise an error unless the repository can answer."""
        self.repository.require_ready()

    def synced_at(self) -> float | None:
        """When it was synchronised last (unix seconds); None: never.

        Raises an error until the repository is ready.
        """
        return self.repository.synced_at()

    def list_projects(self) -> ProjectList:
        """The projects that the caller may see."""
        return self.repository.list_projects(self.secret)

    def search(
        self, words: Sequence[str], *, limit: int, offset: int
    ) -> tuple[int, list[ProjectLine]]:
        """How many projects have every word in their name, summary or keywords, and some of them.

        `limit` and `offset` choose these.
        """
        return self.repository.search(words, self.secret, limit=limit, offset=offset)

    def newest_releases(self, limit: int, *, once_each: bool = True) -> list[ProjectLine]:
        """The releases uploaded last. `once_each`: only the newest release of each project."""
        return self.repository.newest_releases(limit, self.secret, once_each=once_each)

    def newest_projects(self, limit: int) -> list[ProjectLine]:
        """The projects whose first upload was last."""
        return self.repository.newest_projects(limit, self.secret)

    def serial(self) -> int:
        """A number that grows with every change of the repository; 0 while it is empty."""
        return self.repository.serial()

    def find(self, project: NormalizedName, *, ask: bool = True) -> Found | Elsewhere | Absent:
        """A project, or whether it may be looked for elsewhere; trouble is raised as an error.

        Without `ask`, no storage is asked, and `BackendUnavailable` is raised if the answer is not
        known.
        """
        return self.repository.find(project, self.secret, ask=ask)

    def begin_find(self, project: NormalizedName, *, for_installer: bool = False) -> Pending | None:
        """Begin what `find` would wait for; see `Repository.begin_find`."""
        return self.repository.begin_find(project, self.secret, for_installer=for_installer)

    def explain(self, project: NormalizedName) -> Explanation:
        """What is served of a project, what is not, and why; trouble is raised as an error."""
        return self.repository.explain(project, self.secret)

    def has_files(self, project: NormalizedName) -> bool:
        """Whether the project has files that the caller may see."""
        return isinstance(self.find(project), Found)

    def file(
        self, project: NormalizedName, filename: str, need: Access = Access.READ
    ) -> ListedFile:
        """A file of a project. Raises `FileNotFound` only if it is known to be absent."""
        return self.repository.file(project, filename, self.secret, need)

    def begin_look(self, project: NormalizedName, filename: str, since: float) -> Look | None:
        """Begin to look for a file that `file` did not find; see `Repository`."""
        return self.repository.begin_look(project, filename, self.secret, since)

    def to_fetch(
        self, project: NormalizedName, filename: str, *, core_metadata: bool
    ) -> ToFetch | None:
        """A file that has to be fetched before any of it can be sent; see `Repository`."""
        return self.repository.to_fetch(project, filename, self.secret, core_metadata=core_metadata)

    def release(
        self, project: NormalizedName, version: str, need: Access = Access.READ
    ) -> Sequence[ListedFile]:
        """The files of a version, which is compared as PEP 440 says; raises `NotFound`."""
        return self.repository.release(project, version, self.secret, need)

    def open_file(self, file: ListedFile, awaited: Arriving | None = None) -> Opened:
        """The content of a file. Files of remote storages go through the disk cache.

        `awaited`: what an earlier call returned, if the caller has waited for it since.
        """
        return self.repository.open_file(file, self.secret, awaited)

    def open_core_metadata(self, file: ListedFile, awaited: Arriving | None = None) -> Opened:
        """The core metadata as advertised, byte for byte (protocol 29)."""
        return self.repository.open_core_metadata(file, self.secret, awaited)

    def open_alias(
        self, alias: str, filename: str, awaited: Arriving | None = None
    ) -> ListedFile | Opened:
        """The file that had the address `alias` on an older server; see `Repository`."""
        return self.repository.open_alias(alias, filename, self.secret, awaited)

    # -- changing --------------------------------------------------------------------------------

    def is_published(self, upload: Upload) -> bool:
        """Whether there is a file of this name, in any spelling. Raises what `publish` raises."""
        return self.repository.is_published(upload, self.secret)

    def publish(self, upload: Upload) -> DistributionFile:
        """Store and show a file (see `publishing.publish`)."""
        return self.repository.publish(upload, self.secret)

    def yank(self, files: Sequence[ListedFile], reason: str | None) -> None:
        """Yank or un-yank files (see `publishing.yank`)."""
        self.repository.yank(files, reason, self.secret)

    def delete(self, files: Sequence[ListedFile]) -> None:
        """Delete files for ever (see `publishing.delete`)."""
        self.repository.delete(files, self.secret)
