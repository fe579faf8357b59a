"""The repositories of one server, and who may do what in which; knows neither HTTP nor TOML."""

from __future__ import annotations

import fnmatch
import hashlib
import logging
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from packaging.utils import NormalizedName, is_normalized_name
from packaging.version import Version

from private_pypi.backend import (
    Access,
    AnyBackend,
    BackendSettings,
    Folders,
    RemoteSettings,
    Secret,
    SupportsAssetIds,
    SupportsLookup,
    SupportsParts,
    SupportsTenants,
    SupportsUsage,
    Usage,
)
from private_pypi.background import Background
from private_pypi.config import Configuration, RepositorySettings
from private_pypi.core_metadata import read_core_metadata
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileNotFound,
    InvalidFilename,
    InvalidUpload,
    NotAllowed,
    NotConfigured,
    NotFound,
    PrivatePypiError,
    ProjectNotFound,
    WrongSecret,
)
from private_pypi.file_cache import FileCache
from private_pypi.filenames import is_version, normalize, parse_filename
from private_pypi.indexing import chunks_of
from private_pypi.local_index import LocalIndex
from private_pypi.looking_up import BUDGET, ProjectLooks, remote_file
from private_pypi.model import (
    DistributionFile,
    Download,
    LocalFile,
    Redirect,
    StoredFile,
    Stream,
    Upload,
)
from private_pypi.publishing import delete, publish, yank
from private_pypi.remembered_facts import RememberedFacts
from private_pypi.retrying import retrying
from private_pypi.synchronizing import SyncCounts, Synchronizer
from private_pypi.verdicts import Asked, Expiry, Verdicts

T = TypeVar("T")

_log = logging.getLogger(__name__)

_QUIET = 1.0  # seconds that a start waits without a word
_MAX_BACKENDS = 1_000
_MAX_LISTS = 1_000  # of projects, one for each secret
# A name is a part of paths: nothing that leads elsewhere.
_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_CACHE_BYTES = 5 * 2**30  # where the backend's settings do not say

_MAX_CALLS = 16  # to the storages of a table and its tenants, that go on beside the requests
_MAX_TENANTS = 32  # of one table that are open at a time
_TENANT_REQUESTS = 60.0  # seconds after which the requests of a tenant have ended


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request says of itself: Basic has a user, Bearer has none."""

    user: str | None
    secret: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryState:
    """How a repository is, for those who operate the server."""

    ready: bool  # whether it can answer
    synced_at: float | None  # seconds since the epoch; None: never, or it is not synchronised
    error: str | None  # of the last synchronisation, or why it is not ready


@dataclass(frozen=True, slots=True)
class _Shared:
    """What the tenants of a table have in common."""

    background: Background
    facts: RememberedFacts
    verdicts: Verdicts  # of the table: whether a secret is any good
    files: FileCache  # of the table: whose limit is for all
    metadata: FileCache  # likewise


@dataclass(slots=True)
class _Tenant:
    repository: Repository
    used_at: float  # time.monotonic()


@dataclass(frozen=True, slots=True)
class _ProjectList:
    names: list[NormalizedName]
    asked_at: float  # time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """A file that was asked for by an identifier of the storage."""

    sha256: str | None  # lower-case hex; None: it is elsewhere, and nobody knows
    size: int  # bytes
    opened: LocalFile | Redirect


class Repository:
    """One repository: its storage, its local index, its thread that keeps them together."""

    def __init__(
        self,
        settings: RepositorySettings,
        *,
        folders: Folders,
        index_folder: Path,
        extra_index_url: str,
        expiry: Expiry,
        shared: _Shared | None = None,
    ) -> None:
        """`shared`: what a tenant has in common with its table; its folders are not made yet."""
        capabilities = settings.backend_class.capabilities
        self.settings = settings
        self.name = settings.name
        self.is_local = capabilities.is_local
        self.looks_up = not capabilities.lists_files
        """Whether there is nothing to synchronise: the storage is asked for each project."""
        self.folders = folders
        self.index = LocalIndex(
            index_folder / "index.sqlite",
            identity=_identity(settings),
            always_ready=self.looks_up,
        )
        self._index_folder = index_folder
        self._extra_index_url = (
            # Absent may be what this secret may not see: nobody is sent elsewhere for that unasked.
            ("" if self.looks_up else extra_index_url)
            if settings.extra_index_url is None
            else settings.extra_index_url
        )
        self._expiry = expiry
        self._backends: OrderedDict[bytes, AnyBackend] = OrderedDict()  # by hashes of secrets
        self._lists: OrderedDict[bytes, _ProjectList] = OrderedDict()
        self._kept_lock = threading.Lock()  # guards both
        cache_bytes = _cache_bytes(settings.backend)
        # Owners may be many: what the table may keep is for all of them together.
        self.files = FileCache(
            folders.cache / "files",
            folders.tmp,
            max_bytes=cache_bytes,
            others="tenants/*/files",
            of=None if shared is None else shared.files,
        )
        self.metadata = FileCache(
            folders.cache / "metadata",
            folders.tmp,
            max_bytes=cache_bytes // 10,
            others="tenants/*/metadata",
            of=None if shared is None else shared.metadata,
        )
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()
        self._tenants_lock = threading.Lock()  # guards _tenants
        self._looks: ProjectLooks | None = None
        self._shared = shared
        self._is_tenant = shared is not None
        background = shared.background if shared is not None else None
        if self.looks_up and background is None:
            background = Background(f"repository {self.name!r}", most=_MAX_CALLS)
        self._verdicts = Verdicts(self.name, expiry, background=background, wait=BUDGET)
        if background is not None:
            if self._shared is None:
                facts = RememberedFacts(folders.cache / "facts.sqlite")
                self._shared = _Shared(background, facts, self._verdicts, self.files, self.metadata)
            self._looks = ProjectLooks(
                self.index,
                self._shared.facts,
                self.metadata,
                background,
                title=f"{self.name} ({settings.type})",
                place=_identity(settings),
                tmp=folders.tmp,
                interval=settings.sync_index_interval,
                stale_for=settings.stale_for,
                budget=BUDGET,
            )
        self._synchronizer: Synchronizer | None = None
        admin = settings.admin_secret
        if not self.looks_up and (admin is not None or not capabilities.needs_admin_secret):
            self._synchronizer = Synchronizer(
                self.backend(admin or Secret("")),
                self.index,
                folders,
                backend_type=settings.type,
                name=settings.name,
                interval=settings.sync_index_interval,
            )

    # -- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to synchronise in the background."""
        if self._synchronizer is not None:
            self._synchronizer.start()
        elif not self.looks_up:
            _log.warning("%s", self._without_secret())

    def close(self) -> None:
        """Stop synchronising and close the local index."""
        if self._synchronizer is not None:
            self._synchronizer.stop()
        if self._shared is not None and not self._is_tenant:
            self._shared.background.close()
            self._shared.facts.close()
        with self._tenants_lock:
            tenants = [tenant.repository for tenant in self._tenants.values()]
            self._tenants.clear()
        for tenant in tenants:
            tenant.close()
        self.index.close()

    def wait_until_ready(self, timeout: float) -> bool:
        """Whether the first listing is whole, waiting for it at most `timeout` seconds."""
        if self._synchronizer is None:
            return self.looks_up
        return self.index.ready() or self._synchronizer.wait_until_ready(timeout)

    def synchronize(self) -> None:
        """Bring the local index up to date now, in this thread; nothing where it looks up."""
        if not self.looks_up:
            self._require_configured().synchronize()

    def backend(self, secret: Secret) -> AnyBackend:
        """The storage as seen with a secret: the same object for it again, while it is in use."""
        key = _key(secret)
        with self._kept_lock:
            backend = self._backends.get(key)
            if backend is None:
                backend = self.settings.backend_class(self.settings.backend, secret, self.folders)
                if not self.is_local:
                    backend = retrying(backend)
                self._backends[key] = backend
            _keep(self._backends, key, _MAX_BACKENDS)
        return backend

    def make_folders(self) -> None:
        """Those of a tenant are made once the storage has let somebody into a project of it."""
        if self._is_tenant:
            for folder in (self.folders.cache, self.folders.lock):
                folder.mkdir(parents=True, exist_ok=True)

    # -- who may ---------------------------------------------------------------------------------

    def access(
        self, secret: Secret, need: Access, *, project: str | None = None, ask: bool = True
    ) -> Access:
        """The storage's verdict on a secret, here or for a project.

        The storage is asked at most once while it is fresh enough; without `ask`,
        `BackendUnavailable` when it is not.
        """
        call = partial(self._ask_access, secret, project) if ask else None
        try:
            return self._verdicts.access(Asked(_key(secret), project), need, call)
        except WrongSecret:
            self.forget(secret)
            raise

    def forget(self, secret: Secret) -> None:
        """The storage has ceased to accept a secret."""
        self._verdicts.forget(_key(secret))
        if self._shared is not None:
            self._shared.verdicts.forget(_key(secret))

    def _ask_access(self, secret: Secret, project: str | None) -> Access:
        # In this order, because the call may be made in another thread, long after.
        backend = self.backend(secret)
        return backend.access() if project is None else backend.access(project)

    def tenant(self, user: str) -> Repository | None:
        """The place of this table that a Basic user (lower case) means; None: not here.

        To be asked for secrets that the storage accepts only: each tenant takes memory.
        """
        settings = self._tenant_settings(user)
        if settings is None or self._shared is None:
            return None
        with self._tenants_lock:
            tenant = self._tenants.get(user)
            if tenant is None:
                self._make_room()
                tenant = _Tenant(self._make_tenant(user, settings, self._shared), 0.0)
                self._tenants[user] = tenant
            tenant.used_at = time.monotonic()
            self._tenants.move_to_end(user)
        return tenant.repository

    def has_tenant(self, user: str) -> bool:
        """Whether a Basic user (lower case) means a place of this table; makes nothing."""
        return self._tenant_settings(user) is not None

    def _tenant_settings(self, user: str) -> BackendSettings | None:
        table = self.settings.backend
        if self._is_tenant or not isinstance(table, SupportsTenants):
            return None
        return table.tenant(user) if _TENANT.fullmatch(user) else None

    def _make_tenant(self, user: str, settings: BackendSettings, shared: _Shared) -> Repository:
        return Repository(
            replace(self.settings, name=user, backend=settings, anonymous_read=False),
            folders=Folders(
                cache=self.folders.cache / "tenants" / user,
                lock=self.folders.lock / "tenants" / user,
                tmp=self.folders.tmp,
            ),
            index_folder=self._index_folder / "tenants" / user,
            extra_index_url="",
            expiry=self._expiry,
            shared=shared,
        )

    def _make_room(self) -> None:
        while len(self._tenants) >= _MAX_TENANTS:
            over = time.monotonic() - _TENANT_REQUESTS
            # The one not used for the longest. Where nobody was let in yet, nothing is lost, also
            # to a request that is on its way: whoever makes names up keeps nobody out.
            ended = (
                user
                for user, tenant in self._tenants.items()
                if tenant.used_at <= over or not tenant.repository.has_index()
            )
            user = next(ended, None)
            if user is None:
                raise BackendUnavailable(
                    f"too many tenants of {self.name!r} at once", retry_after=30
                )
            self._tenants.pop(user).repository.close()

    # -- looking up --------------------------------------------------------------------------------

    def is_fresh(self, project: NormalizedName) -> bool:
        """Whether the local index has a project as it is, as far as one interval goes."""
        return self._looks is None or (self.has_index() and self._looks.is_fresh(project))

    def look(self, project: NormalizedName, secret: Secret) -> float | None:
        """Look a project up, where that is how it is done (see `ProjectLooks.look`).

        Only for a secret that the storage has confirmed for this project.
        """
        if self._looks is None:
            return None
        self.make_folders()
        key = _key(secret)
        try:
            return self._looks.look(project, self.backend(secret), key)
        except WrongSecret:
            self.forget(secret)
            raise
        except ProjectNotFound:
            self._verdicts.forget_project(Asked(key, project))
            raise

    def projects(self, secret: Secret) -> tuple[list[NormalizedName], float | None]:
        """The projects that this secret may see, by name, as they were within one interval.

        While the storage is in trouble, as they were before, for as long as `stale_for` allows,
        and how many seconds ago that was.
        """
        assert self._shared is not None
        key = _key(secret)
        with self._kept_lock:
            kept = self._lists.get(key)
        age = None if kept is None else time.monotonic() - kept.asked_at
        interval = self.settings.sync_index_interval.total_seconds()
        if kept is not None and age is not None and age < interval:
            return kept.names, None
        try:
            names = self._shared.background.result(
                ("projects", _identity(self.settings), key),
                lambda: self._ask_projects(secret, key),
                wait=BUDGET,
            )
        except WrongSecret:
            self.forget(secret)
            raise
        except BackendError:
            stale_for = self.settings.stale_for.total_seconds()
            if kept is None or age is None or age >= interval + stale_for:
                raise
            return kept.names, age
        return names, None

    def _ask_projects(self, secret: Secret, key: bytes) -> list[NormalizedName]:
        backend = self.backend(secret)
        assert isinstance(backend, SupportsLookup)
        asked_at = time.monotonic()
        # One string for all the lists that have it: there is a list for each secret.
        unique = {sys.intern(normalize(name)) for name in backend.projects()}
        names = [NormalizedName(name) for name in sorted(unique)]
        with self._kept_lock:
            self._lists[key] = _ProjectList(names, asked_at)
            _keep(self._lists, key, _MAX_LISTS)
        return names

    def has_index(self) -> bool:
        """Whether there may be something in the local index; asking it would make its file."""
        return not self._is_tenant or self._index_folder.is_dir()

    # -- how it is -------------------------------------------------------------------------------

    def state(self) -> RepositoryState:
        """What the local index says of itself; no storage is asked."""
        try:
            self.require_ready()
            state = self.index.sync_state()
        except PrivatePypiError as error:
            return RepositoryState(ready=False, synced_at=None, error=str(error))
        return RepositoryState(ready=True, synced_at=state.synced_at, error=state.error)

    def sync_counts(self) -> SyncCounts | None:
        """The synchronisations of this process; None where nothing is synchronised."""
        return None if self._synchronizer is None else self._synchronizer.counts

    def usage(self) -> Usage | None:
        """What the provider of the storage was asked, its limits being those of our own secret."""
        backend = self.backend(self.settings.admin_secret or Secret(""))
        return backend.usage() if isinstance(backend, SupportsUsage) else None

    @property
    def is_public(self) -> bool:
        """Whether people without a secret may read."""
        return self.settings.anonymous_read

    # -- what is there ---------------------------------------------------------------------------

    def require_ready(self) -> None:
        """Raise unless the local index can answer: a first listing that is not whole is trouble.

        Where projects are looked up there is none to wait for.
        """
        if not self.looks_up and not self.index.ready():
            self._require_configured()
            error = self.index.sync_state().error
            raise BackendUnavailable(
                f"repository {self.name!r} is not yet synchronised"
                + (f": {error}" if error else ""),
                retry_after=5,
            )

    def require_fresh(self) -> None:
        """Raise unless an absence in the local index is an absence in the storage.

        While the last synchronisation failed, or is long overdue, what we have is served, but
        nothing may be called absent. What is looked up is as fresh as its look (`Grant.look`).
        """
        if self.looks_up:
            return
        self.require_ready()
        state = self.index.sync_state()
        overdue = 5 * self.settings.sync_index_interval.total_seconds() + 60
        if state.error or state.synced_at is None or time.time() - state.synced_at > overdue:
            raise BackendUnavailable(
                f"repository {self.name!r} could not be synchronised"
                + (f": {state.error}" if state.error else " for some time"),
                retry_after=30,
            )

    def extra_index_url(self, project: NormalizedName) -> str | None:
        """Where a project that we do not have may be looked for; None: nowhere.

        A name that is claimed or that we ever had never leaves the house: the public index may
        have somebody else's project of that name. What is no name is nowhere: the address that it
        makes there could be that of another project, or of none.
        """
        if not self._extra_index_url or self.is_claimed(project) or not is_normalized_name(project):
            return None
        if self.has_index() and self.index.project_serial(project) is not None:
            return None
        return f"{self._extra_index_url}{project}/"

    def is_claimed(self, project: NormalizedName) -> bool:
        """Whether the configuration keeps this name for us."""
        return any(fnmatch.fnmatchcase(project, pattern) for pattern in self.settings.claimed)

    def file(self, project: NormalizedName, filename: str) -> DistributionFile:
        """A file of the index; raises `FileNotFound` only for a known absence."""
        self.require_ready()
        file = self.index.file(filename)
        if file is None or file.project != project:
            self.require_fresh()
            raise FileNotFound(filename)
        return file

    def release(self, project: NormalizedName, version: str) -> tuple[DistributionFile, ...]:
        """The files of a version (compared as PEP 440 does); raises `NotFound`."""
        self.require_fresh()
        all_files = self.index.project_files(project)
        # Where somebody has both 1.0 and 1.0.0, it is the one that was named.
        files = tuple(file for file in all_files if file.version == version) or tuple(
            file for file in all_files if is_version(version, Version(file.version))
        )
        if not files:
            raise NotFound(f"no release {version!r} of project {project!r} in this repository")
        return files

    def _require_configured(self) -> Synchronizer:
        if self._synchronizer is None:
            raise NotConfigured(self._without_secret())
        return self._synchronizer

    def _without_secret(self) -> str:
        return (
            f"repository {self.name!r} needs a secret of its own: add a table "
            f"[{self.name}] to admin_secret.toml"
        )


@dataclass(frozen=True, slots=True)
class Grant:
    """A repository, together with what one caller may do in it."""

    repository: Repository
    access: Access
    secret: Secret

    @property
    def backend(self) -> AnyBackend:
        """The storage as the caller sees it."""
        return self.repository.backend(self.secret)

    @property
    def asks_for_projects(self) -> bool:
        """Whether the storage has rights for each project, and is asked about them."""
        return self.repository.settings.backend_class.capabilities.rights_per_project

    def check_project(
        self, project: NormalizedName, need: Access = Access.READ, *, ask: bool = True
    ) -> None:
        """Raise unless the storage, where it has rights for each project, lets us into this one.

        `ProjectNotFound` where it shows none, because it does not tell a project that is not there
        from one that this secret may not see; else `NotAllowed`. Without `ask`,
        `BackendUnavailable` when the verdict is not known.
        """
        if not self.asks_for_projects:
            return
        access = self.repository.access(self.secret, need, project=project, ask=ask)
        if access is Access.NONE:
            # Whoever publishes needs to be told what else may be wrong.
            hint = "the storage has no place for it, or does not show it to this secret"
            raise ProjectNotFound(project, hint if need > Access.READ else "")
        if access < need:
            raise NotAllowed(f"this secret may read project {project!r}, but not change it")

    def look(self, project: NormalizedName, need: Access = Access.READ) -> float | None:
        """Check the right to a project, and look it up where that is how it is done.

        To be called before anything of the project is shown. None when the local index has it as
        it is; else the storage is in trouble, and this is the age of what we have (seconds), which
        may be shown, but in which nothing may be called absent. Raises `ProjectNotFound` and all
        that a storage in trouble raises.
        """
        self.check_project(project, need)
        return self.repository.look(project, self.secret)

    def is_at_hand(self, project: NormalizedName) -> bool:
        """Whether `look` would ask nobody."""
        try:
            self.check_project(project, ask=False)
        except PrivatePypiError:
            return False
        return self.repository.is_fresh(project)

    # -- reading ---------------------------------------------------------------------------------

    def projects(self) -> list[tuple[NormalizedName, int]]:
        """Every project that the caller may see, by name, with its serial (0: it has none)."""
        return self.list_projects()[0]

    def list_projects(self) -> tuple[list[tuple[NormalizedName, int]], float | None]:
        """The same, and the age of the list (seconds) when the storage is in trouble."""
        if not self.repository.looks_up:
            return self.repository.index.projects(), None
        names, stale = self.repository.projects(self.secret)
        return [(name, 0) for name in names], stale

    def file(
        self, project: NormalizedName, filename: str, need: Access = Access.READ
    ) -> DistributionFile:
        """A file as the storage has it now; raises `FileNotFound` only for a known absence."""
        stale = self.look(project, need)
        try:
            return self.repository.file(project, filename)
        except NotFound as error:
            if stale is not None:
                raise _not_known(filename) from error
            raise

    def release(
        self, project: NormalizedName, version: str, need: Access = Access.READ
    ) -> tuple[DistributionFile, ...]:
        """The files of a version (compared as PEP 440 does); raises `NotFound`."""
        stale = self.look(project, need)
        try:
            return self.repository.release(project, version)
        except NotFound as error:
            if stale is not None:
                raise _not_known(f"{project} {version}") from error
            raise

    def open_asset(self, asset_id: str, filename: str) -> Asset:
        """A file under the identifier that an older server gave it; raises `FileNotFound`.

        What has this name in its project is that file; else the storage is asked for the
        identifier.
        """
        backend = self.backend
        if not isinstance(backend, SupportsAssetIds):
            raise FileNotFound(filename)
        try:
            file = self.file(parse_filename(filename).project, filename)
        except InvalidFilename:
            raise FileNotFound(filename) from None
        except NotFound:
            # The storage shows it to this secret, or it does not.
            return self._asset(*backend.open_asset(asset_id, filename))
        return Asset(sha256=file.sha256, size=file.size, opened=self.open_file(file))

    def _asset(self, stored: StoredFile, opened: Download) -> Asset:
        cache, sha256 = self.repository.files, stored.sha256
        if isinstance(opened, Stream):
            path = None if sha256 is None else cache.find(sha256)
            if path is None:
                sha256, path = cache.take(sha256, opened.chunks)
            else:
                close_stream(opened)
            opened = LocalFile(path)
        return Asset(sha256=sha256, size=stored.size, opened=opened)

    # -- files -----------------------------------------------------------------------------------

    def open_file(self, file: DistributionFile) -> LocalFile | Redirect:
        """The content of a file: here, or elsewhere; what streams goes through the disk cache."""
        return self._local(self.repository.files, file.sha256, lambda: self.backend.open_file(file))

    def open_core_metadata(self, file: DistributionFile) -> LocalFile | Redirect:
        """The core metadata as advertised, byte for byte (protocol 29).

        A file that came by another road has none in the storage: it is read from the file.
        """
        sha256 = file.core_metadata_sha256
        if sha256 is None:
            raise FileNotFound(file.filename + ".metadata")
        cache = self.repository.metadata
        try:
            return self._local(cache, sha256, lambda: self.backend.open_core_metadata(file))
        except FileNotFound:
            cached = cache.find(sha256)
            if cached is None:
                cached = cache.add(sha256, iter([self._read_core_metadata(file)]))
            return LocalFile(cached)

    def _read_core_metadata(self, file: DistributionFile) -> bytes:
        try:
            content = read_core_metadata(self._opened(file), file.filename)
        except InvalidUpload as error:
            raise BackendError(str(error)) from error
        if content is None:
            raise BackendError(f"{file.filename!r} has lost its core metadata")
        return content

    def _opened(self, file: DistributionFile) -> Path | BinaryIO:
        """The file here; elsewhere a few parts of it are enough, where the storage gives parts."""
        backend = self.backend
        if isinstance(backend, SupportsParts):
            return self.repository.files.find(file.sha256) or remote_file(backend, file)
        opened = self.open_file(file)
        if isinstance(opened, LocalFile):
            return opened.path
        return self.repository.files.add(file.sha256, chunks_of(opened, file.filename))

    def _local(
        self, cache: FileCache, sha256: str, fetch: Callable[[], Download]
    ) -> LocalFile | Redirect:
        if self.repository.is_local:  # as near as the cache
            return _kept(cache, sha256, fetch())
        with cache.missing(sha256):
            cached = cache.find(sha256)
            if cached is not None:
                return LocalFile(cached)
            return _kept(cache, sha256, self._ask(fetch))

    def _ask(self, call: Callable[[], T]) -> T:
        """A call of the storage; what was believed of a secret ends when the storage refuses it."""
        try:
            return call()
        except WrongSecret:
            self.repository.forget(self.secret)
            raise

    # -- changing --------------------------------------------------------------------------------

    def is_published(self, upload: Upload) -> bool:
        """Whether a file of this name is known here already; raises what `publish` raises."""
        self.check_project(upload.file.project, Access.WRITE)
        self.repository.make_folders()
        return self.repository.index.file(upload.file.filename) is not None

    def publish(self, upload: Upload) -> DistributionFile:
        """Store and show a file (see `publishing.publish`)."""
        self.check_project(upload.file.project, Access.WRITE)
        self.repository.make_folders()
        self._refresh_burnt_names()
        return self._ask(lambda: publish(upload, backend=self.backend, index=self.repository.index))

    def yank(self, files: Sequence[DistributionFile], reason: str | None) -> None:
        """Yank or un-yank files (see `publishing.yank`)."""
        self._ask(
            lambda: yank(
                files,
                reason,
                backend=self.backend,
                index=self.repository.index,
                folders=self.repository.folders,
                backend_type=self.repository.settings.type,
            )
        )

    def delete(self, files: Sequence[DistributionFile]) -> None:
        """Delete files for ever (see `publishing.delete`)."""
        self._ask(
            lambda: delete(
                files,
                backend=self.backend,
                index=self.repository.index,
                folders=self.repository.folders,
                backend_type=self.repository.settings.type,
            )
        )

    def _refresh_burnt_names(self) -> None:
        # Another server of this storage may have burnt the name a moment ago. Where asking costs
        # about nothing we ask; elsewhere the name is known burnt within one interval.
        repository = self.repository
        if not repository.is_local:
            return
        probe = repository.folders.tmp / f"index-{threading.get_ident()}"
        known = repository.index.sync_state().revision
        try:
            changed = self.backend.read_index(probe, unless=known) != (known or "")
        finally:
            probe.unlink(missing_ok=True)
        if changed:
            repository.synchronize()


class Repositories:
    """All repositories of a server; immutable: a new configuration makes a new one."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        root: Path,
        tmp: Path,
        expiry: Expiry,
        extra_index_url: str,
    ) -> None:
        """`tmp`: a folder of this process alone, on the file system of `root`."""
        self._repositories: Mapping[str, Repository] = {
            name: Repository(
                settings,
                folders=make_folders(root, name, tmp),
                index_folder=_made(root / "index" / name),
                extra_index_url=extra_index_url,
                expiry=expiry,
            )
            for name, settings in configuration.repositories.items()
        }

    def __iter__(self) -> Iterator[Repository]:
        return iter(self._repositories.values())

    def __len__(self) -> int:
        return len(self._repositories)

    def may_look_up(self, name: str | None) -> bool:
        """Whether a page of a repository (None: of any) may have to wait for its storage."""
        table = None if name is None else self._repositories.get(name.lower())
        return any(each.looks_up for each in (self if table is None else (table,)))

    def start(self, *, wait: float = 0) -> None:
        """Begin to synchronise; wait at most `wait` seconds for those that never were."""
        for repository in self:
            repository.start()
        deadline = time.monotonic() + wait
        for repository in self:
            told_at = min(deadline, time.monotonic() + _QUIET)
            if repository.wait_until_ready(max(0.0, told_at - time.monotonic())):
                continue
            left = deadline - time.monotonic()
            if told_at <= time.monotonic() < deadline:  # else its thread has told why
                _log.info("waiting %.0f s at most for repository %r", left, repository.name)
            repository.wait_until_ready(max(0.0, left))

    def close(self) -> None:
        """Stop everything; the files stay."""
        for repository in self:
            repository.close()

    def authorize(
        self, credentials: Credentials | None, *, name: str | None, need: Access, ask: bool = True
    ) -> Grant:
        """The grant for a request; `name` is the repository in its path, if there is one.

        Raises `WrongSecret` (also for an unknown repository) or `NotAllowed`.
        """
        place, secret = self._choose(credentials, name)
        table = place.table
        if secret is None:
            # Whatever owner a stranger names: nobody fetches that with the server's own secret.
            if not table.is_public or place.user is not None or need > Access.READ:
                raise WrongSecret(
                    "a repository name and its secret are needed (Basic authentication)"
                )
            secret = table.settings.admin_secret or Secret("")
            # There the storage is asked with it for each project, and says only what it may see.
            if table.looks_up and not (secret and table.access(secret, Access.READ, ask=ask)):
                raise NotConfigured(
                    f"repository {table.name!r} is open to everybody, but the storage does not "
                    f"accept its own secret: the table [{table.name}] of admin_secret.toml gives it"
                )
            return Grant(_repository_at(place), Access.READ, secret)
        by_project = table.settings.backend_class.capabilities.rights_per_project
        asked = min(need, Access.READ) if by_project else need
        access = table.access(secret, asked, ask=ask) if secret else Access.NONE
        if access is Access.NONE:
            raise WrongSecret
        if by_project:  # each project decides about more (`check_project`)
            access = Access.WRITE
        if access < need:
            raise NotAllowed(f"this secret may read repository {table.name!r}, but not change it")
        return Grant(_repository_at(place), access, secret)

    def meant(
        self, credentials: Credentials | None, *, name: str | None
    ) -> tuple[Repository, Secret | None] | None:
        """The repository and the secret of a request, without asking whether that may be.

        For records of what was tried; None when no repository is meant.
        """
        try:
            place, secret = self._choose(credentials, name)
        except WrongSecret:
            return None
        return place.table, secret

    def _choose(
        self, credentials: Credentials | None, name: str | None
    ) -> tuple[_Place, Secret | None]:
        bound = self._bound(name)
        if credentials is None:
            if bound is None:
                raise WrongSecret(
                    "a repository name and its secret are needed (Basic authentication)"
                )
            return bound, None
        user, secret = credentials.user, credentials.secret
        if user is None:  # Bearer: the bare secret, or `name:secret`
            prefix, colon, rest = secret.reveal().partition(":")
            if colon and self._find(prefix) is not None:
                user, secret = prefix, Secret(rest)
        named = self._find(user) if user else None
        if named is None:
            if bound is None:
                raise WrongSecret
            return bound, secret
        if name is None or bound is None:
            return named, secret
        # Both say where: one may be more exact than the other.
        if bound.table is not named.table or len({bound.user, named.user, None}) > 2:
            raise WrongSecret
        return (named if bound.user is None else bound), secret

    def _bound(self, name: str | None) -> _Place | None:
        """The repository that the path names, or the only one there is."""
        if name is not None:
            found = self._find(name)
            if found is None:
                raise WrongSecret
            return found
        if len(self._repositories) == 1:
            return _Place(next(iter(self._repositories.values())), None)
        return None

    def _find(self, name: str) -> _Place | None:
        """What a name means: a table before a tenant of one."""
        name = name.lower()
        table = self._repositories.get(name)
        if table is not None:
            return _Place(table, None)
        for table in self._repositories.values():
            if table.has_tenant(name):
                return _Place(table, name)
        return None


class _Place(NamedTuple):
    """What a request means, before its secret was checked."""

    table: Repository
    user: str | None  # lower case; None: the table itself


def _repository_at(place: _Place) -> Repository:
    if place.user is None:
        return place.table
    tenant = place.table.tenant(place.user)
    if tenant is None:
        raise WrongSecret
    return tenant


def _not_known(what: str) -> BackendUnavailable:
    return BackendUnavailable(
        f"{what!r} is not among what was known before the storage was in trouble", retry_after=30
    )


def close_stream(opened: Stream) -> None:
    """End a transfer that nobody will read."""
    close = getattr(opened.chunks, "close", None)
    if close is not None:
        close()


def _kept(cache: FileCache, sha256: str, opened: Download) -> LocalFile | Redirect:
    match opened:
        case Stream(chunks=chunks):
            return LocalFile(cache.add(sha256, chunks))
        case LocalFile() | Redirect() as direct:
            return direct


def _key(secret: Secret) -> bytes:
    return hashlib.blake2b(secret.reveal().encode("utf-8", "surrogatepass")).digest()


def _keep(kept: OrderedDict[bytes, Any], key: bytes, most: int) -> None:
    """Mark an entry as used last, and drop those that were not used for the longest."""
    kept.move_to_end(key)
    while len(kept) > most:
        kept.popitem(last=False)


def make_folders(root: Path, name: str, tmp: Path) -> Folders:
    """The folders of one repository below ROOT (DESIGN: "State on disk")."""
    return Folders(
        cache=_made(root / "cache" / name), lock=_made(root / "lock" / name), tmp=_made(tmp)
    )


def has_state(root: Path, name: str) -> bool:
    """Whether a repository of this name left a store or an index below ROOT."""
    return any((root / folder / name).exists() for folder in ("cache", "index"))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _identity(settings: RepositorySettings) -> str:
    """What the local index is a copy of: the type and all fields but secrets, limits and ways."""
    others = {"max_file_bytes", *(field.name for field in fields(RemoteSettings))} - {"name"}
    parts = [settings.type]
    for field in fields(settings.backend):
        value = getattr(settings.backend, field.name)
        if field.name in others or not field.init or _holds_secret(value):
            continue
        parts.append(f"{field.name}={value}")
    return "\n".join(parts)


def _cache_bytes(settings: BackendSettings) -> int:
    return settings.cache_bytes if isinstance(settings, RemoteSettings) else _CACHE_BYTES


def _holds_secret(value: object) -> bool:
    if isinstance(value, tuple):
        return any(_holds_secret(item) for item in value)
    return isinstance(value, Secret)
