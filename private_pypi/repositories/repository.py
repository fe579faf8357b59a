"""What both kinds of repositories have: a storage, a local index, and the rights of secrets."""

from __future__ import annotations

import abc
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TypeVar

from packaging.utils import NormalizedName
from packaging.version import Version

from private_pypi.backend import (
    Access,
    AnyBackend,
    AnyStorage,
    RemoteSettings,
    Secret,
    SupportsUsage,
    Usage,
    capability,
)
from private_pypi.configuration.config import RepositorySettings
from private_pypi.distributions.filenames import is_version
from private_pypi.errors import (
    BackendUnavailable,
    FileNotFound,
    NotFound,
    PrivatePypiError,
    WrongSecret,
)
from private_pypi.index.identity import Identity
from private_pypi.index.local import LocalIndex, ProjectLine
from private_pypi.index.lookups import BUDGET
from private_pypi.index.publishing import restore_name
from private_pypi.index.synchronizing import SyncCounts
from private_pypi.model import FRESH, DistributionFile, Freshness
from private_pypi.repositories.extra_index import ExtraIndex
from private_pypi.repositories.opening import Opened, Opener, SeenWith
from private_pypi.repositories.source import Absent, Elsewhere, Found, ProjectList
from private_pypi.storage.arriving import Arriving
from private_pypi.storage.bounded import mark_used
from private_pypi.storage.recent_trouble import RecentTrouble
from private_pypi.storage.retrying import retrying
from private_pypi.storage.verdicts import Expiry, Question, Verdicts
from private_pypi.system.background import Background

T = TypeVar("T")

CLOSING_SECONDS = 10.0
"""For how many seconds closing all repositories waits for calls to their storages."""

_MAX_STORAGES = 1_000  # views of the storage, one for each secret
_MAX_CALLS = 16  # in the background, at the same time, to the storages of a table and its tenants


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryState:
    """The state of a repository, for those who operate the server."""

    ready: bool  # whether it can answer
    synced_at: float | None  # unix seconds; None: never, or it is not synchronised
    error: str | None  # of the last synchronisation, or why it is not ready
    stale: str | None = None  # why a missing file may not be called absent; None: it may


class Repository(abc.ABC):
    """One repository: its storage, its local index, and what connects them."""

    def __init__(
        self,
        settings: RepositorySettings,
        backend: AnyBackend,
        *,
        index_folder: Path,
        extra_index_url: str,
        expiry: Expiry,
        background: Background | None,
        share: Opener | None = None,
        always_ready: bool = False,
    ) -> None:
        """`background` has the threads that ask the storage; None: the thread of each request does.

        `share`: for a tenant, the `Opener` of its table; see `Opener`. `always_ready`: see
        `LocalIndex`.
        """
        self.settings = settings
        self.name = settings.name
        self.backend = backend
        self.traits = backend.traits
        self.folders = backend.folders
        self.index = LocalIndex(
            index_folder / "index.sqlite",
            identity=identity_of(settings),
            always_ready=always_ready,
        )
        self.extra_index = ExtraIndex(
            extra_index_url if settings.extra_index_url is None else settings.extra_index_url,
            settings.claimed,
        )
        self._storages: OrderedDict[bytes, AnyStorage] = OrderedDict()  # by the keys of secrets
        self._storages_lock = threading.Lock()
        self._trouble = RecentTrouble()  # with files and with lists of projects
        self.opener = Opener(backend, trouble=self._trouble, share=share)
        self._background = background
        self._verdicts = Verdicts(self.name, expiry, background=background, wait=BUDGET)

    # -- life ------------------------------------------------------------------------------------

    # What is kept up to date in the background overrides these; a lookup needs none of them.

    def start(self) -> None:  # noqa: B027
        """Start the threads of this repository."""

    def wait_until_ready(self, timeout: float) -> bool:
        """Wait until the repository can answer, at most `timeout` seconds; whether it can."""
        return True

    def synchronize(self) -> None:  # noqa: B027
        """Bring the local index up to date now, in this thread."""

    def require_ready(self) -> None:  # noqa: B027
        """Raise an error unless the repository can answer."""

    def _stale(self) -> str | None:
        """Why a file that the local index lacks may not be called absent; None: it may."""
        return None

    def begin_close(self) -> None:
        """Tell the threads of this repository to stop; does not wait for them."""
        if self._background is not None:
            self._background.close(0)

    @abc.abstractmethod
    def close(self, timeout: float = CLOSING_SECONDS) -> None:
        """Stop the threads of this repository and close the local index.

        Waits at most `timeout` seconds for calls to the storage that are running.
        """

    def storage(self, secret: Secret) -> AnyStorage:
        """The storage as seen with a secret. Views that are in use are kept."""
        key = key_of(secret)
        with self._storages_lock:
            storage = self._storages.get(key)
            if storage is None:
                storage = self.backend.seen_with(secret)
                if not self.traits.answers_at_once:
                    storage = retrying(storage)
                self._storages[key] = storage
            mark_used(self._storages, key, most=_MAX_STORAGES)
        return storage

    def seen_with(self, secret: Secret) -> SeenWith:
        """The storage as the secret of a caller sees it, for calls of the storage."""
        return SeenWith(self.storage(secret), key_of(secret), partial(self.forget, secret))

    def make_folders(self) -> None:  # noqa: B027 - most have them already
        """Make its folders, if they are not there yet."""

    def has_tenant(self, user: str) -> bool:
        """Whether this table has a tenant of this name (lower case); see `tenants`."""
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

        The answer is remembered for a while. Without `ask`, the storage is not asked, and
        `BackendUnavailable` is raised if no answer is remembered. `client`: see `Credentials`.
        """
        if not self.backend.may_be_secret(secret):
            return Access.NONE
        call = partial(self._ask_access, secret, project) if ask else None
        # A refusal is forgotten when the project changes, such as by an upload in any process.
        version = partial(self._project_serial, project)
        try:
            return self._verdicts.access(
                Question(key_of(secret), project), need, call, client=client, version=version
            )
        except WrongSecret:
            self.forget(secret)
            raise

    def forget(self, secret: Secret) -> None:
        """Forget the rights of a secret, because the storage has refused it."""
        self._verdicts.forget(key_of(secret))

    def _ask_access(self, secret: Secret, project: str | None) -> Access:
        # The view is taken here, because this may run in another thread, long after the request.
        storage = self.storage(secret)
        return storage.access() if project is None else storage.access(project)

    def _project_serial(self, project: NormalizedName | None) -> int | None:
        if project is None or not self.has_index():
            return None
        return self.index.project_serial(project)

    def has_index(self) -> bool:
        """False: the local index is empty, and using it would make its file."""
        return True

    # -- state -----------------------------------------------------------------------------------

    def require_fresh(self) -> None:
        """Raise an error unless what the local index lacks is absent in the storage as well."""
        self.require_ready()
        stale = self._stale()
        if stale is not None:
            raise BackendUnavailable(stale, retry_after=30)

    def state(self) -> RepositoryState:
        """The state of the repository. No storage is asked."""
        try:
            self.require_ready()
            state, stale = self.index.sync_state(), self._stale()
        except PrivatePypiError as error:
            return RepositoryState(ready=False, synced_at=None, error=str(error))
        return RepositoryState(
            ready=True, synced_at=state.synced_at, error=state.error, stale=stale
        )

    def synced_at(self) -> float | None:
        """When it was synchronised last (unix seconds); None: never.

        Raises an error until the repository is ready.
        """
        self.require_ready()
        return self.index.sync_state().synced_at if self.has_index() else None

    def sync_counts(self) -> SyncCounts | None:
        """The synchronisations of this process; None if projects are looked up."""
        return None

    def usage(self) -> Usage | None:
        """The requests to the provider of the storage, and its limits for the server's own secret.

        None if the storage does not count requests.
        """
        storage = self.storage(self.settings.admin_secret or Secret(""))
        counting = capability(storage, SupportsUsage)
        return None if counting is None else counting.usage()

    @property
    def is_public(self) -> bool:
        """Whether people without a secret may read."""
        return self.settings.anonymous_read

    # -- reading ---------------------------------------------------------------------------------

    @abc.abstractmethod
    def may_ask_storage(self) -> bool:
        """Whether a page may have to wait for the storage."""

    @abc.abstractmethod
    def is_fresh(self, project: NormalizedName) -> bool:
        """Whether a page of the project can be made without asking the storage."""

    @abc.abstractmethod
    def look_up(self, project: NormalizedName, secret: Secret) -> Freshness:
        """Bring the project up to date in the local index, if projects are looked up.

        Only for a secret with the right to read the project. Raises `ProjectNotFound` and the
        errors of the storage.
        """

    @abc.abstractmethod
    def list_projects(self, secret: Secret) -> ProjectList:
        """The projects that the caller may see; see `Source`."""

    @abc.abstractmethod
    def among(self, secret: Secret) -> Collection[str] | None:
        """The projects of the local index that the caller may see; None: all of them."""

    @abc.abstractmethod
    def search(
        self, words: Sequence[str], secret: Secret, *, limit: int, offset: int
    ) -> tuple[int, list[ProjectLine]]:
        """How many projects have every word in their name, summary or keywords, and some of them.

        `limit` and `offset` choose these.
        """

    def newest_releases(
        self, limit: int, secret: Secret, *, once_each: bool = True
    ) -> list[ProjectLine]:
        """The releases uploaded last. `once_each`: only the newest release of each project."""
        if not self.has_index():
            return []
        among = self.among(secret)
        return self.index.newest_releases(limit, among=among, once_each=once_each)

    def newest_projects(self, limit: int, secret: Secret) -> list[ProjectLine]:
        """The projects whose first upload was last."""
        return (
            self.index.newest_projects(limit, among=self.among(secret)) if self.has_index() else []
        )

    def find(self, project: NormalizedName, secret: Secret) -> Found | Elsewhere | Absent:
        """A project, or whether it may be looked for elsewhere; see `Source`."""
        freshness = self.look_up(project, secret)
        serial = self.page_serial(project)
        if serial is not None:
            return Found(project, serial, freshness, self.index)
        if freshness != FRESH:
            raise BackendUnavailable(
                f"whether project {project!r} exists is not known now, because the storage is in "
                "trouble",
                retry_after=30,
            )
        self.require_fresh()
        self.require_shown(project)
        return self.missing(project)

    def missing(self, project: NormalizedName) -> Elsewhere | Absent:
        """Whether a project that is absent here may be looked for elsewhere."""
        was_ours = self.has_index() and self.index.project_serial(project) is not None
        url = self.extra_index.page_of(project, was_ours=was_ours)
        return Absent() if url is None else Elsewhere(url)

    def page_serial(self, project: NormalizedName) -> int | None:
        """The serial of a project with files; None if it has no files or the index is not ready."""
        return self.index.page_serial(project) if self.has_index() else None

    def open_file(
        self, file: DistributionFile, secret: Secret, awaited: Arriving | None = None
    ) -> Opened:
        """The content of a file; see `Source`."""
        return self.opener.open_file(file, self.seen_with(secret), awaited)

    def open_core_metadata(
        self, file: DistributionFile, secret: Secret, awaited: Arriving | None = None
    ) -> Opened:
        """The core metadata as advertised, byte for byte (protocol 29)."""
        return self.opener.open_core_metadata(file, self.seen_with(secret), awaited)

    def require_shown(self, project: NormalizedName, filename: str | None = None) -> None:
        """Raise an error if the storage has files of a project that cannot be shown.

        `filename`: only this file counts. Call it before something is called absent: a stored file
        that cannot be read, or was not read yet, is not absent.
        """
        if not self.has_index():
            return
        unshown = self.index.unshown(project)
        if filename is not None:
            unshown = {name: why for name, why in unshown.items() if name == filename}
        if unshown:
            name, problem = next(iter(unshown.items()))
            others = f" (and {len(unshown) - 1} more)" if len(unshown) > 1 else ""
            raise BackendUnavailable(
                f"project {project!r} has a file that cannot be served now, {name!r}{others}: "
                f"{problem}",
                retry_after=60,
            )

    def file(self, project: NormalizedName, filename: str) -> DistributionFile:
        """A file of the index. Raises `FileNotFound` only if it is known to be absent."""
        self.require_ready()
        file = self.index.file(filename)
        if file is None or file.project != project:
            self.require_fresh()
            self.require_shown(project, filename)
            raise FileNotFound(filename)
        return file

    def release(self, project: NormalizedName, version: str) -> tuple[DistributionFile, ...]:
        """The files of a version, which is compared as PEP 440 says; raises `NotFound`."""
        self.require_fresh()
        all_files = self.index.project_files(project)
        # If there are both 1.0 and 1.0.0, the exact spelling counts.
        files = tuple(file for file in all_files if file.version == version) or tuple(
            file for file in all_files if is_version(version, Version(file.version))
        )
        if not files:
            raise NotFound(f"no release {version!r} of project {project!r} in this repository")
        return files

    # -- changing --------------------------------------------------------------------------------

    def restore_name(self, filename: str, secret: Secret) -> list[str]:
        """Allow the name of a deleted file again (see `publishing.restore_name`).

        Not for a server, because it may take long.
        """
        return restore_name(
            filename,
            storage=self.storage(secret),
            index=self.index if self.index.exists() else None,
            backend_type=self.settings.type,
        )

    def learn_burnt_names(self, secret: Secret) -> None:  # noqa: B027 - most cannot
        """Find out which names other servers have burnt, if that is quick."""


def new_background(name: str) -> Background:
    """Threads that ask the storage of a repository, so that a request need not wait for the end."""
    return Background(f"repository {name!r}", most=_MAX_CALLS)


def key_of(secret: Secret) -> bytes:
    """A hash of a secret, which is remembered instead of the secret."""
    return hashlib.blake2b(secret.reveal().encode("utf-8", "surrogatepass")).digest()


def identity_of(settings: RepositorySettings) -> Identity:
    """What the local index is a copy of: the type and the settings of the backend.

    Without secrets and without the settings that all remote storages have, such as limits. The
    settings in `names_storage` say which storage it is, the others how it is seen.
    """
    others = {field.name for field in fields(RemoteSettings)}  # `name` and `max_file_bytes`, too
    own = [
        field
        for field in fields(settings.backend)
        if field.init and field.name not in others and "Secret" not in str(field.type)
    ]
    naming = type(settings.backend).names_storage
    return Identity(
        kind=settings.type,
        settings={field.name: _line(getattr(settings.backend, field.name)) for field in own},
        defaults={
            field.name: _line(
                field.default if field.default_factory is MISSING else field.default_factory()
            )
            for field in own
        },
        naming=[field.name for field in own if naming is None or field.name in naming],
    )


def _line(value: object) -> str:
    """A setting as one line of an identity."""
    return str(value).replace("\n", "\\n")
