"""A repository whose projects are looked up one at a time, with the secret of the caller."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from packaging.utils import NormalizedName

from private_pypi.backend import (
    AnyBackend,
    BackendSettings,
    Folders,
    Secret,
    SupportsLookup,
    SupportsProjects,
    SupportsRootAddresses,
    SupportsTenants,
    capability,
    system_errors,
)
from private_pypi.configuration.config import RepositorySettings
from private_pypi.distributions.filenames import normalize
from private_pypi.errors import (
    BackendError,
    ProjectNotFound,
    WrongSecret,
)
from private_pypi.index.local import ProjectLine
from private_pypi.index.lookups import BUDGET, UPLOADS_STAY, ProjectLookups
from private_pypi.model import FRESH, Freshness
from private_pypi.repositories.answers import Absent, Elsewhere, Found, ProjectList
from private_pypi.repositories.identities import identity_of
from private_pypi.repositories.repository import CLOSING_SECONDS
from private_pypi.repositories.stored import StoredRepository, key_of, new_background
from private_pypi.repositories.tenants import Tenants
from private_pypi.storage.bounded import mark_used
from private_pypi.storage.remembered_facts import RememberedFacts
from private_pypi.storage.verdicts import Expiry, Question
from private_pypi.system.background import Background

_MAX_LISTS = 1_000  # lists of projects, one for each secret


@dataclass(frozen=True, slots=True)
class _Names:
    """The projects that the storage lists for one secret."""

    names: list[NormalizedName]
    digest: bytes
    asked_at: float  # time.monotonic()
    asked_time: float  # the same moment in unix seconds


class LookedUp(StoredRepository):
    """The local index has the projects that were looked up. The storage says who may see which.

    A table may have tenants (see `tenants`). They are repositories of this class, which share
    threads, remembered facts and the limits of the disk cache with the table.
    """

    def __init__(
        self,
        settings: RepositorySettings,
        backend: AnyBackend,
        *,
        index_folder: Path,
        extra_index_url: str,
        expiry: Expiry,
        table: LookedUp | None = None,
    ) -> None:
        """`table`: the repository of the table that this tenant belongs to; None: not a tenant.

        The folders of a tenant do not exist yet.
        """
        background = new_background(settings.name) if table is None else table._looked_up_in
        super().__init__(
            settings,
            backend,
            index_folder=index_folder,
            # A project that is absent for this secret may exist. So the extra index of the server
            # does not count here, only that of the repository's own table.
            extra_index_url="",
            expiry=expiry,
            background=background,
            share=None if table is None else table.opener,
            always_ready=True,
        )
        self._looked_up_in: Background = background
        self._index_folder = index_folder
        self._expiry = expiry
        self._table = table
        self._lists: OrderedDict[bytes, _Names] = OrderedDict()
        self._lists_lock = threading.Lock()
        self._facts: RememberedFacts = (
            RememberedFacts(self.folders.cache / "facts.sqlite") if table is None else table._facts
        )
        self._lookups = ProjectLookups(
            self.index,
            self._facts,
            self.opener.metadata,
            background,
            title=f"{self.name} ({settings.type})",
            place=identity_of(settings).text,
            tmp=self.folders.tmp,
            interval=settings.sync_index_interval,
            stale_for=settings.stale_for,
            budget=BUDGET,
        )
        self._tenants = Tenants(self.name, self._tenant_settings, self._make_tenant)

    # -- life ------------------------------------------------------------------------------------

    def begin_close(self) -> None:
        """Tell the threads of this repository to stop; does not wait for them."""
        if self._table is None:
            super().begin_close()

    def close(self, timeout: float = CLOSING_SECONDS) -> None:
        """Close this repository and its tenants, waiting at most `timeout` seconds for calls."""
        if self._table is None:
            self._looked_up_in.close(timeout)
            self._facts.close()
        self._tenants.close()
        self.index.close()
        self.backend.close()

    def make_folders(self) -> None:
        """Make the folders of a tenant, after the storage has confirmed a right in one of its
        projects.
        """
        if self._table is None:
            return
        with system_errors(f"the server cannot make its folders for {self.name!r}"):
            for folder in (self.folders.cache, self.folders.lock):
                folder.mkdir(parents=True, exist_ok=True)

    def has_index(self) -> bool:
        """False: the local index of this tenant is empty, and using it would make its file."""
        return self._table is None or self._index_folder.is_dir()

    def forget(self, secret: Secret) -> None:
        """Forget the rights of a secret, here and in the table."""
        super().forget(secret)
        if self._table is not None:
            self._table.forget(secret)

    # -- tenants ---------------------------------------------------------------------------------

    def has_tenant(self, user: str) -> bool:
        """Whether this table has a tenant of this name (lower case)."""
        return self._tenants.has(user)

    def tenant(self, user: str) -> LookedUp | None:
        """The tenant of this name (lower case); None: there is none."""
        return self._tenants.get(user)

    def has_root_addresses(self) -> bool:
        """Whether tenants have addresses at the root of the server (`SupportsRootAddresses`)."""
        return isinstance(self.backend, SupportsRootAddresses) and self.backend.has_root_addresses

    def tenant_at(self, host: str, path: str) -> str | None:
        """The name of the tenant with this address at the root of the server; None: there is none.

        See `SupportsRootAddresses`.
        """
        if self._table is not None or not isinstance(self.backend, SupportsRootAddresses):
            return None
        name = self.backend.tenant_at(host, path)
        return name if name is not None and self._tenants.has(name) else None

    def _tenant_settings(self, user: str) -> BackendSettings | None:
        if self._table is not None or not isinstance(self.backend, SupportsTenants):
            return None
        return self.backend.tenant_settings(user)

    def _make_tenant(self, user: str, settings: BackendSettings) -> LookedUp:
        assert isinstance(self.backend, SupportsTenants)
        folders = Folders(
            cache=self.folders.cache / "tenants" / user,
            lock=self.folders.lock / "tenants" / user,
            tmp=self.folders.tmp,
        )
        return LookedUp(
            replace(
                self.settings,
                name=user,
                backend=settings,
                anonymous_read=False,
            ),
            self.backend.tenant(settings, folders),
            index_folder=self._index_folder / "tenants" / user,
            extra_index_url="",
            expiry=self._expiry,
            table=self,
        )

    # -- reading ---------------------------------------------------------------------------------

    def may_ask_storage(self) -> bool:
        """True: a project is looked up when a caller asks for it."""
        return True

    def is_fresh(self, project: NormalizedName) -> bool:
        """Whether the project was looked up within the interval."""
        return self.has_index() and self._lookups.is_fresh(project)

    def look_up(self, project: NormalizedName, secret: Secret) -> Freshness:
        """Look up a project (see `ProjectLookups.look_up`)."""
        key = key_of(secret)
        try:
            if not self.has_index():
                self._require_project(project, secret)
            self.make_folders()
            return self._lookups.look_up(project, self.storage(secret), key)
        except WrongSecret:
            self.forget(secret)
            raise
        except ProjectNotFound:
            self._verdicts.forget_project(Question(key, project))
            raise

    def _require_project(self, project: NormalizedName, secret: Secret) -> None:
        """Raise `ProjectNotFound` if the storage lacks a project, and leave no trace then.

        A tenant without files of its own may be a name that somebody made up, and a storage may
        allow to publish there. Such names must not fill the disk or displace other tenants.
        """
        lookup = capability(self.storage(secret), SupportsLookup)
        assert lookup is not None
        self._looked_up_in.result(
            ("require", identity_of(self.settings).text, project, key_of(secret)),
            lambda: next(iter(lookup.project_files(project)), None),
            wait=BUDGET,
        )

    def _find(self, project: NormalizedName, secret: Secret) -> Found | Elsewhere | Absent:
        try:
            return super()._find(project, secret)
        except ProjectNotFound:
            # The local index may have the project, but this secret may not see it.
            return self.missing(project)

    def list_projects(self, secret: Secret) -> ProjectList:
        """The projects that the storage lists for this secret, at most one interval ago.

        Projects that were published through this server since then are included. While the storage
        is in trouble, the last list counts for `stale_for` more.
        """
        names, freshness = self._names(secret)
        # Callers with equal lists share the pages that are kept in memory.
        return ProjectList(_digest(names), 0, freshness, lambda: [(name, 0) for name in names])

    def _names(self, secret: Secret) -> tuple[list[NormalizedName], Freshness]:
        key = key_of(secret)
        with self._lists_lock:
            kept = self._lists.get(key)
        age = None if kept is None else time.monotonic() - kept.asked_at
        interval = self.settings.sync_index_interval.total_seconds()
        if (
            kept is not None
            and age is not None
            and age < interval
            and self._published_since(kept.asked_time) <= set(kept.names)
        ):
            return self._with_own(kept.names, secret), FRESH
        try:
            names = self._looked_up_in.result(
                ("projects", identity_of(self.settings).text, key),
                lambda: self._trouble.ask(("projects", key), lambda: self._ask_names(secret, key)),
                wait=BUDGET,
            )
        except WrongSecret:
            self.forget(secret)
            raise
        except BackendError:
            stale_for = self.settings.stale_for.total_seconds()
            if kept is None or age is None or age >= interval + stale_for:
                raise
            return self._with_own(kept.names, secret), Freshness(age)
        return self._with_own(names, secret), FRESH

    def _published_since(self, moment: float) -> set[NormalizedName]:
        """Projects with files that are known to this ROOT since then (unix seconds)."""
        return self.index.published_since(moment) if self.has_index() else set()

    def _with_own(self, names: list[NormalizedName], secret: Secret) -> list[NormalizedName]:
        """The names, and those that this secret may see although they are not listed yet."""
        if capability(self.storage(secret), SupportsProjects) is None:
            lately = {name for name, _ in self.index.projects()} if self.has_index() else set()
        else:
            lately = self._published_since(time.time() - UPLOADS_STAY.total_seconds())
        key = key_of(secret)
        own = {
            name for name in lately - set(names) if self._verdicts.is_granted(Question(key, name))
        }
        return sorted({*names, *own}) if own else names

    def _ask_names(self, secret: Secret, key: bytes) -> list[NormalizedName]:
        listing = capability(self.storage(secret), SupportsProjects)
        if listing is None:  # then `_with_own` gives the projects that the secret has read
            return []
        asked_at, asked_time = time.monotonic(), time.time()
        names = sorted({normalize(name) for name in listing.projects()})
        digest = _digest(names)
        with self._lists_lock:
            # Secrets with equal lists share one list in memory.
            same = (kept.names for kept in self._lists.values() if kept.digest == digest)
            names = next(same, names)
            self._lists[key] = _Names(names, digest, asked_at, asked_time)
            mark_used(self._lists, key, most=_MAX_LISTS)
        return names

    def among(self, secret: Secret) -> Collection[str] | None:
        """The projects that the storage lists for this secret."""
        return self._names(secret)[0]

    def search(
        self, words: Sequence[str], secret: Secret, *, limit: int, offset: int
    ) -> tuple[int, list[ProjectLine]]:
        """How many projects have every word in their name, summary or keywords, and some of them.

        The local index has only projects that were looked up, also such that this secret may not
        see. So the list of the storage counts, and what the index knows of its projects is added.
        """
        names = list(self._names(secret)[0])
        has_index = self.has_index()
        if words:
            known = self.index.search(words, limit=len(names), among=names)[1] if has_index else []
            found = {line.name for line in known}
            names = [
                name
                for name in names
                if name in found or all(word.lower() in name for word in words)
            ]
        part = names[offset : offset + limit]
        known = self.index.search(limit=len(part), among=part)[1] if has_index else []
        lines = {line.name: line for line in known}
        nothing_known = partial(ProjectLine, version="", summary=None, uploaded_at=None)
        return len(names), [lines.get(name) or nothing_known(name=name) for name in part]


def _digest(names: Sequence[str]) -> bytes:
    return hashlib.sha256("\n".join(names).encode()).digest()
