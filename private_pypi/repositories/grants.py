"""A repository together with the rights of one caller: what the web works with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from packaging.utils import NormalizedName

from private_pypi.backend import Access, Secret, SupportsAliases, capability
from private_pypi.distributions.filenames import parse_filename
from private_pypi.errors import (
    BackendUnavailable,
    FileNotFound,
    InvalidFilename,
    NotAllowed,
    NotFound,
    PrivatePypiError,
    ProjectNotFound,
)
from private_pypi.index.local import ProjectLine
from private_pypi.index.publishing import delete, publish, yank
from private_pypi.model import FRESH, DistributionFile, Freshness, Upload
from private_pypi.repositories.opening import Opened
from private_pypi.repositories.repository import Repository, RepositoryState
from private_pypi.repositories.source import Absent, Elsewhere, Found, ProjectList
from private_pypi.storage.arriving import Arriving

T = TypeVar("T")


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
        return self.repository.settings.max_file_bytes

    @property
    def opens_files_here(self) -> bool:
        """Whether files are on this machine, so that opening one is quick."""
        return self.repository.traits.opens_here

    @property
    def state(self) -> RepositoryState:
        """The state of the repository. No storage is asked."""
        return self.repository.state()

    def check_project(
        self, project: NormalizedName, need: Access = Access.READ, *, ask: bool = True
    ) -> None:
        """Raise an error unless the caller has the right `need` in this project.

        Only for storages with rights for each project. `ProjectNotFound`: the project is absent or
        the secret may not see it, which the storage does not distinguish. `NotAllowed`: it may read
        only. Without `ask`, the storage is not asked, and `BackendUnavailable` is raised if the
        answer is not known.
        """
        if not self.repository.traits.rights_per_project:
            return
        access = self.repository.access(self.secret, need, project=project, ask=ask)
        if access is Access.NONE:
            # Publishers need a hint about what may be wrong.
            hint = "the storage has no place for it, or does not show it to this secret"
            raise ProjectNotFound(project, hint if need > Access.READ else "")
        if access < need:
            raise NotAllowed(f"this secret may read project {project!r}, but not change it")

    def is_at_hand(self, project: NormalizedName) -> bool:
        """Whether the project can be shown without asking the storage."""
        try:
            self.check_project(project, ask=False)
        except PrivatePypiError:
            return False
        return self.repository.is_fresh(project)

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
        return self.repository.index.serial() if self.repository.has_index() else 0

    def find(self, project: NormalizedName) -> Found | Elsewhere | Absent:
        """A project, or whether it may be looked for elsewhere; trouble is raised as an error."""
        try:
            self.check_project(project)
        except ProjectNotFound:
            self.repository.require_fresh()
            return self.repository.missing(project)
        return self.repository.find(project, self.secret)

    def find_at_hand(self, project: NormalizedName) -> Found | None:
        """The project, if it has files and the storage need not be asked about it; else None."""
        if not self.is_at_hand(project):
            return None
        serial = self.repository.page_serial(project)
        return None if serial is None else Found(project, serial, FRESH, self.repository.index)

    def has_files(self, project: NormalizedName) -> bool:
        """Whether the project has files that the caller may see."""
        try:
            self._look_up(project)
        except ProjectNotFound:
            return False
        return self.repository.page_serial(project) is not None

    def _look_up(self, project: NormalizedName, need: Access = Access.READ) -> Freshness:
        self.check_project(project, need)
        return self.repository.look_up(project, self.secret)

    def file(
        self, project: NormalizedName, filename: str, need: Access = Access.READ
    ) -> DistributionFile:
        """A file of a project. Raises `FileNotFound` only if it is known to be absent."""
        with self._looked_up(project, need, filename):
            return self.repository.file(project, filename)

    def release(
        self, project: NormalizedName, version: str, need: Access = Access.READ
    ) -> tuple[DistributionFile, ...]:
        """The files of a version, which is compared as PEP 440 says; raises `NotFound`."""
        with self._looked_up(project, need, f"{project} {version}"):
            return self.repository.release(project, version)

    @contextmanager
    def _looked_up(self, project: NormalizedName, need: Access, what: str) -> Iterator[None]:
        """Bring the project up to date; unless that succeeds, `NotFound` becomes trouble."""
        freshness = self._look_up(project, need)
        try:
            yield
        except NotFound as error:
            if freshness == FRESH:
                raise
            raise BackendUnavailable(
                f"whether {what!r} exists is not known now, because the storage is in trouble",
                retry_after=30,
            ) from error

    def open_file(self, file: DistributionFile, awaited: Arriving | None = None) -> Opened:
        """The content of a file. Files of remote storages go through the disk cache.

        `awaited`: what an earlier call returned, if the caller has waited for it since.
        """
        return self.repository.open_file(file, self.secret, awaited)

    def open_core_metadata(self, file: DistributionFile, awaited: Arriving | None = None) -> Opened:
        """The core metadata as advertised, byte for byte (protocol 29)."""
        return self.repository.open_core_metadata(file, self.secret, awaited)

    def open_alias(
        self, alias: str, filename: str, awaited: Arriving | None = None
    ) -> DistributionFile | Opened:
        """The file that had the address `alias` on an older server. Raises `FileNotFound`.

        This is the file of the index with this filename, if there is one. Otherwise the storage is
        asked for the alias. `awaited`: as for `open_file`.
        """
        seen = self.repository.seen_with(self.secret)
        aliases = capability(seen.storage, SupportsAliases)
        if aliases is None:
            raise FileNotFound(filename)
        try:
            return self.file(parse_filename(filename).project, filename)
        except InvalidFilename:
            raise FileNotFound(filename) from None
        except NotFound:
            return self.repository.opener.open_alias(alias, filename, aliases, seen, awaited)

    # -- changing --------------------------------------------------------------------------------

    def is_published(self, upload: Upload) -> bool:
        """Whether the local index has a file of this name, in any spelling.

        Raises what `publish` raises.
        """
        self.check_project(upload.file.project, Access.WRITE)
        self.repository.make_folders()
        return bool(self.repository.index.same_files(upload.file.filename))

    def publish(self, upload: Upload) -> DistributionFile:
        """Store and show a file (see `publishing.publish`)."""
        self.check_project(upload.file.project, Access.WRITE)
        self.repository.make_folders()
        self.repository.learn_burnt_names(self.secret)
        return self._change(publish, upload)

    def yank(self, files: Sequence[DistributionFile], reason: str | None) -> None:
        """Yank or un-yank files (see `publishing.yank`)."""
        self._change(yank, files, reason)

    def delete(self, files: Sequence[DistributionFile]) -> None:
        """Delete files for ever (see `publishing.delete`)."""
        self._change(delete, files)

    def _change(self, change: Callable[..., T], *arguments: object) -> T:
        """Call one of the functions of `publishing`."""
        repository, seen = self.repository, self.repository.seen_with(self.secret)
        return seen.ask(
            lambda: change(
                *arguments,
                storage=seen.storage,
                index=repository.index,
                backend_type=repository.settings.type,
            )
        )
