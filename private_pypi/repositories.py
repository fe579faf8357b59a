"""The repositories of one server, and who may do what in which; knows neither HTTP nor TOML."""

from __future__ import annotations

import fnmatch
import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

from packaging.utils import NormalizedName, is_normalized_name

from private_pypi.backend import (
    Access,
    AnyBackend,
    BackendSettings,
    Folders,
    RemoteSettings,
    Secret,
)
from private_pypi.config import Configuration, RepositorySettings
from private_pypi.core_metadata import read_core_metadata
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileNotFound,
    NotAllowed,
    NotConfigured,
    NotFound,
    WrongSecret,
)
from private_pypi.file_cache import FileCache
from private_pypi.indexing import chunks_of
from private_pypi.local_index import LocalIndex
from private_pypi.model import (
    DistributionFile,
    Download,
    LocalFile,
    Redirect,
    Stream,
    Upload,
)
from private_pypi.publishing import delete, publish, yank
from private_pypi.retrying import retrying
from private_pypi.synchronizing import Synchronizer

REFUSAL_EXPIRES = 10.0
"""Seconds for which a wrong secret is remembered: long enough to cost nothing, short enough for a
secret that was just added."""

_MAX_VERDICTS = 10_000
_MAX_BACKENDS = 1_000
_MAX_ASKING = 3  # threads of one repository that may wait for a verdict of its storage at a time
_ASKING_SECONDS = 0.5  # for which a further thread waits for one of these to be done
_HANGING_SECONDS = 2.0  # for which none waits after that was in vain
_CACHE_BYTES = 5 * 2**30  # where the backend's settings do not say


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request says of itself: Basic has a user, Bearer has none."""

    user: str | None
    secret: Secret


@dataclass(frozen=True, slots=True)
class Expiry:
    """For how long a verdict of the storage is believed."""

    read: timedelta
    write: timedelta


@dataclass(frozen=True, slots=True)
class _Verdict:
    access: Access
    checked_at: float  # time.monotonic()


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
    ) -> None:
        self.settings = settings
        self.name = settings.name
        self.is_local = settings.backend_class.capabilities.is_local
        self.folders = folders
        self.index = LocalIndex(index_folder / "index.sqlite", identity=_identity(settings))
        self._extra_index_url = (
            extra_index_url if settings.extra_index_url is None else settings.extra_index_url
        )
        self._expiry = expiry
        # Keyed by a hash of the secret, so that no secret stays in memory for its own sake.
        self._verdicts: OrderedDict[bytes, _Verdict] = OrderedDict()
        self._backends: OrderedDict[bytes, AnyBackend] = OrderedDict()
        self._kept_lock = threading.Lock()  # guards _verdicts and _backends
        self._asking = threading.BoundedSemaphore(_MAX_ASKING)
        self._hanging_until = 0.0  # time.monotonic()
        cache_bytes = _cache_bytes(settings.backend)
        self.files = FileCache(folders.cache / "files", folders.tmp, max_bytes=cache_bytes)
        self.metadata = FileCache(
            folders.cache / "metadata", folders.tmp, max_bytes=cache_bytes // 10
        )
        self._synchronizer: Synchronizer | None = None
        admin = settings.admin_secret
        if admin is not None or not settings.backend_class.capabilities.needs_admin_secret:
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

    def close(self) -> None:
        """Stop synchronising and close the local index."""
        if self._synchronizer is not None:
            self._synchronizer.stop()
        self.index.close()

    def wait_until_ready(self, timeout: float) -> bool:
        """Whether the first listing is whole, waiting for it at most `timeout` seconds."""
        if self._synchronizer is None:
            return False
        return self.index.ready() or self._synchronizer.wait_until_ready(timeout)

    def synchronize(self) -> None:
        """Bring the local index up to date now, in this thread."""
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

    # -- who may ---------------------------------------------------------------------------------

    def access(self, secret: Secret, need: Access, *, ask: bool = True) -> Access:
        """The storage's verdict on a secret, asked at most once while it is fresh enough.

        Without `ask`, `BackendUnavailable` when it is not.
        """
        key = _key(secret)
        verdict = self._fresh_verdict(key, need)
        if verdict is None:
            if not ask:
                raise BackendUnavailable("the verdict of the storage is not known")
            verdict = self._ask(key, secret, need)
        return verdict.access

    def _fresh_verdict(self, key: bytes, need: Access) -> _Verdict | None:
        with self._kept_lock:
            verdict = self._verdicts.get(key)
            if verdict is None:
                return None
            self._verdicts.move_to_end(key)
        age = time.monotonic() - verdict.checked_at
        if verdict.access < need:
            return verdict if age < REFUSAL_EXPIRES else None
        expires = self._expiry.write if need is Access.WRITE else self._expiry.read
        return verdict if age < expires.total_seconds() else None

    def _ask(self, key: bytes, secret: Secret, need: Access) -> _Verdict:
        # A storage that hangs may hold a few threads, never all of them: also waiting for those
        # few is not for everybody.
        is_hanging = time.monotonic() < self._hanging_until
        if not self._asking.acquire(timeout=0 if is_hanging else _ASKING_SECONDS):
            if not is_hanging:
                self._hanging_until = time.monotonic() + _HANGING_SECONDS
            raise BackendUnavailable(
                f"the storage of repository {self.name!r} answers too slowly", retry_after=2
            )
        try:
            verdict = self._fresh_verdict(key, need)  # asked by another thread meanwhile?
            if verdict is None:
                asked_at = time.monotonic()
                verdict = _Verdict(self.backend(secret).access(), asked_at)
                self._hanging_until = 0.0
                with self._kept_lock:
                    self._verdicts[key] = verdict
                    _keep(self._verdicts, key, _MAX_VERDICTS)
            return verdict
        finally:
            self._asking.release()

    @property
    def is_public(self) -> bool:
        """Whether people without a secret may read."""
        return self.settings.anonymous_read

    # -- what is there ---------------------------------------------------------------------------

    def require_ready(self) -> None:
        """Raise unless the local index can answer: a first listing that is not whole is trouble."""
        if not self.index.ready():
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
        nothing may be called absent.
        """
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
        if self.index.project_serial(project) is not None:
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
        files = tuple(file for file in self.index.project_files(project) if file.version == version)
        if not files:
            raise NotFound(f"no release {version!r} of project {project!r} in this repository")
        return files

    def _require_configured(self) -> Synchronizer:
        if self._synchronizer is None:
            raise NotConfigured(
                f"repository {self.name!r} needs a secret of its own: add a table "
                f"[{self.name}] to admin_secret.toml"
            )
        return self._synchronizer


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

    def check_project(self, project: NormalizedName) -> None:
        """Raise `NotAllowed` where the storage has rights for each project and refuses this one."""
        if self.asks_for_projects and not self.backend.access(project):
            raise NotAllowed(f"this secret may not read project {project!r}")

    # -- reading ---------------------------------------------------------------------------------

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
        opened = self.open_file(file)
        if isinstance(opened, Redirect):
            content_there = chunks_of(opened, file.filename)
            opened = LocalFile(self.repository.files.add(file.sha256, content_there))
        content = read_core_metadata(opened.path, file.filename)
        if content is None:
            raise BackendError(f"{file.filename!r} has lost its core metadata")
        return content

    def _local(
        self, cache: FileCache, sha256: str, fetch: Callable[[], Download]
    ) -> LocalFile | Redirect:
        if self.repository.is_local:  # as near as the cache
            return _kept(cache, sha256, fetch())
        with cache.missing(sha256):
            cached = cache.find(sha256)
            if cached is not None:
                return LocalFile(cached)
            return _kept(cache, sha256, fetch())

    # -- changing --------------------------------------------------------------------------------

    def publish(self, upload: Upload) -> DistributionFile:
        """Store and show a file (see `publishing.publish`)."""
        self._refresh_burnt_names()
        return publish(upload, backend=self.backend, index=self.repository.index)

    def yank(self, files: Sequence[DistributionFile], reason: str | None) -> None:
        """Yank or un-yank files (see `publishing.yank`)."""
        yank(
            files,
            reason,
            backend=self.backend,
            index=self.repository.index,
            folders=self.repository.folders,
            backend_type=self.repository.settings.type,
        )

    def delete(self, files: Sequence[DistributionFile]) -> None:
        """Delete files for ever (see `publishing.delete`)."""
        delete(
            files,
            backend=self.backend,
            index=self.repository.index,
            folders=self.repository.folders,
            backend_type=self.repository.settings.type,
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

    def start(self, *, wait: float = 0) -> None:
        """Begin to synchronise; wait at most `wait` seconds for those that never were."""
        for repository in self:
            repository.start()
        deadline = time.monotonic() + wait
        for repository in self:
            repository.wait_until_ready(max(0.0, deadline - time.monotonic()))

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
        repository, secret = self._choose(credentials, name)
        if secret is None:
            if repository.is_public and need <= Access.READ:
                return Grant(
                    repository, Access.READ, repository.settings.admin_secret or Secret("")
                )
            raise WrongSecret("a repository name and its secret are needed (Basic authentication)")
        access = repository.access(secret, need, ask=ask) if secret else Access.NONE
        if access is Access.NONE:
            raise WrongSecret
        if access < need:
            raise NotAllowed(
                f"this secret may read repository {repository.name!r}, but not change it"
            )
        return Grant(repository, access, secret)

    def _choose(
        self, credentials: Credentials | None, name: str | None
    ) -> tuple[Repository, Secret | None]:
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
            if colon and prefix.lower() in self._repositories:
                user, secret = prefix, Secret(rest)
        named = self._repositories.get(user.lower()) if user else None
        if named is not None:
            if bound is not None and name is not None and bound is not named:
                raise WrongSecret
            return named, secret
        if bound is None:
            raise WrongSecret
        return bound, secret

    def _bound(self, name: str | None) -> Repository | None:
        """The repository that the path names, or the only one there is."""
        if name is not None:
            found = self._repositories.get(name.lower())
            if found is None:
                raise WrongSecret
            return found
        if len(self._repositories) == 1:
            return next(iter(self._repositories.values()))
        return None


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
