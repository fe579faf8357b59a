"""A repository with a storage as it was at an instant, as far as upload times tell.

Files that were uploaded later are left out, and so are files without an upload time, because it is
unknown whether they were there. What was deleted since then is not brought back.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from packaging.utils import NormalizedName

from private_pypi.backend import Access, Secret
from private_pypi.backend.times import show_instant
from private_pypi.errors import FileHidden, Unsupported
from private_pypi.index.local import ProjectLine
from private_pypi.index.looking import Look
from private_pypi.model import ListedFile, ProjectPage
from private_pypi.policy import HiddenFile
from private_pypi.repositories.answers import Absent, Elsewhere, Found, ProjectList
from private_pypi.repositories.explaining import Explanation, ordered
from private_pypi.repositories.opening import Opened
from private_pypi.repositories.releases import files_of_release
from private_pypi.repositories.repository import Repository, RepositoryState
from private_pypi.storage.arriving import Arriving


class Frozen(Repository):
    """Nothing can be changed in it."""

    def __init__(self, repository: Repository, instant: datetime) -> None:
        self._repository = repository
        self._instant = instant
        self.name = repository.name
        self.type = repository.type
        self.claimed = repository.claimed
        self.opens_files_here = repository.opens_files_here
        self.rights_per_project = repository.rights_per_project
        self.secrets_per_tenant = repository.secrets_per_tenant

    def _has(self, file: ListedFile) -> bool:
        return file.uploaded_at is not None and file.uploaded_at <= self._instant

    def _why_not(self, file: ListedFile) -> str:
        """Why a file is left out."""
        came = (
            "its upload time is not known"
            if file.uploaded_at is None
            else f"uploaded {show_instant(file.uploaded_at)}"
        )
        return f"{came}, and this is the index of {show_instant(self._instant)}"

    @property
    def is_public(self) -> bool:
        return self._repository.is_public

    def public_secret(self, *, ask: bool = True) -> Secret:
        return self._repository.public_secret(ask=ask)

    def access(
        self,
        secret: Secret,
        need: Access,
        *,
        project: NormalizedName | None = None,
        ask: bool = True,
        client: str = "",
    ) -> Access:
        access = self._repository.access(secret, need, project=project, ask=ask, client=client)
        return min(access, Access.READ)

    def require_ready(self) -> None:
        self._repository.require_ready()

    def state(self) -> RepositoryState:
        return self._repository.state()

    def serial(self) -> int:
        return self._repository.serial()

    def may_ask_storage(self) -> bool:
        return self._repository.may_ask_storage()

    def ever_had(self, project: NormalizedName) -> bool:
        return self._repository.ever_had(project)

    def had_names(self) -> Collection[NormalizedName]:
        return self._repository.had_names()

    def is_at_hand(self, project: NormalizedName, secret: Secret) -> bool:
        return self._repository.is_at_hand(project, secret)

    def find(
        self, project: NormalizedName, secret: Secret, *, ask: bool = True
    ) -> Found | Elsewhere | Absent:
        found = self._repository.find(project, secret, ask=ask)
        if isinstance(found, Elsewhere):
            # The other index would show what it has now.
            return Absent()
        if isinstance(found, Absent):
            return found

        def read() -> ProjectPage:
            page = found.read()
            return replace(page, files=tuple(file for file in page.files if self._has(file)))

        return replace(found, kept_in=(found.kept_in, self._instant), read=read)

    def explain(self, project: NormalizedName, secret: Secret) -> Explanation:
        said = self._repository.explain(project, secret)
        if not said.is_found:
            # Without the address of another index, which would show what it has now.
            return Explanation(project=project, is_found=False)
        later = (
            HiddenFile(
                filename=file.filename,
                version=file.version,
                rule="as_of",
                reason=self._why_not(file),
            )
            for file in said.files
            if not self._has(file)
        )
        return replace(
            said,
            files=tuple(file for file in said.files if self._has(file)),
            hidden=ordered((*said.hidden, *later)),
        )

    def list_projects(self, secret: Secret) -> ProjectList:
        return self._repository.list_projects(secret)

    def search(
        self, words: Sequence[str], secret: Secret, *, limit: int, offset: int
    ) -> tuple[int, list[ProjectLine]]:
        return self._repository.search(words, secret, limit=limit, offset=offset)

    def newest_releases(
        self, limit: int, secret: Secret, *, once_each: bool = True
    ) -> list[ProjectLine]:
        return []

    def newest_projects(self, limit: int, secret: Secret) -> list[ProjectLine]:
        return []

    def file(
        self,
        project: NormalizedName,
        filename: str,
        secret: Secret,
        need: Access = Access.READ,
    ) -> ListedFile:
        if need > Access.READ:
            raise self._read_only()
        file = self._repository.file(project, filename, secret, need)
        if not self._has(file):
            raise FileHidden(filename, "as_of", self._why_not(file))
        return file

    def begin_look(
        self, project: NormalizedName, filename: str, secret: Secret, since: float
    ) -> Look | None:
        return self._repository.begin_look(project, filename, secret, since)

    def release(
        self,
        project: NormalizedName,
        version: str,
        secret: Secret,
        need: Access = Access.READ,
    ) -> Sequence[ListedFile]:
        if need > Access.READ:
            raise self._read_only()
        files = self._repository.release(project, version, secret, need)
        return files_of_release([file for file in files if self._has(file)], project, version)

    def open_file(
        self, file: ListedFile, secret: Secret, awaited: Arriving | None = None
    ) -> Opened:
        return self._repository.open_file(file, secret, awaited)

    def open_core_metadata(
        self, file: ListedFile, secret: Secret, awaited: Arriving | None = None
    ) -> Opened:
        return self._repository.open_core_metadata(file, secret, awaited)

    def at(self, instant: datetime) -> Frozen:
        return Frozen(self._repository, min(instant, self._instant))

    def _read_only(self) -> Unsupported:
        return Unsupported(
            f"this is repository {self.name!r} as it was {show_instant(self._instant)}, which "
            "cannot be changed"
        )
