"""What repositories with a storage have: a backend, a local index, and the rights of secrets."""

from __future__ import annotations

import abc
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from packaging.utils import NormalizedName

from private_pypi.backend import (
    Access,
    AnyBackend,
    AnyStorage,
    Secret,
    SupportsAliases,
    SupportsUsage,
    Usage,
    capability,
)
from private_pypi.configuration.config import RepositorySettings
from private_pypi.distributions.filenames import parse_filename
from private_pypi.errors import (
    BackendUnavailable,
    FileNotFound,
    InvalidFilename,
    NotAllowed,
    NotConfigured,
    NotFound,
    PrivatePypiError,
    ProjectNotFound,
    WrongSecret,
)
from private_pypi.index.local import LocalIndex, ProjectLine
from private_pypi.index.lookups import BUDGET
from private_pypi.index.publishing import delete, publish, restore_name, yank
from private_pypi.model import (
    FRESH,
    DistributionFile,
    Freshness,
    ListedFile,
    Upload,
)
from private_pypi.repositories.answers import Absent, Elsewhere, Found, StoredPage
from private_pypi.repositories.explaining import Explanation, hidden_file, ordered
from private_pypi.repositories.extra_index import ExtraIndex
from private_pypi.repositories.frozen import Frozen
from private_pypi.repositories.identities import identity_of
from private_pypi.repositories.opening import Opened, Opener, SeenWith
from private_pypi.repositories.releases import files_of_release
from private_pypi.repositories.repository import NotAtHand, Repository, RepositoryState
from private_pypi.storage.arriving import Arriving
from private_pypi.storage.bounded import mark_used
from private_pypi.storage.file_cache import FileCache
from private_pypi.storage.recent_trouble import RecentTrouble
from private_pypi.storage.retrying import retrying
from private_pypi.storage.verdicts import Expiry, Question, Verdicts
from private_pypi.system.background import Background

T = TypeVar("T")

_MAX_STORAGES = 1_000  # views of the storage, one for each secret
_MAX_CALLS = 16  # in the background, at the same time, to the storages of a table and its tenants


class _NothingShown(BackendUnavailable):
    """The storage has files of a project, and none of them can be shown."""


class StoredRepository(Repository):
    """A repository with a storage: that, its local index, and what connects them."""

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
        self.type = settings.type
        self.claimed = settings.claimed
        self.max_file_bytes = settings.max_file_bytes
        self.backend = backend
        self.traits = backend.traits
        self.opens_files_here = self.traits.opens_here
        self.rights_per_project = self.traits.rights_per_project
        self.secrets_per_tenant = self.traits.secrets_per_tenant
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

    def synchronize(self) -> None:
        """Bring the local index up to date now, in this thread."""

    def require_ready(self) -> None:
        """Raise an error unless the repository can answer."""

    def _stale(self) -> str | None:
        """Why a file that the local index lacks may not be called absent; None: it may."""
        return None

    def begin_close(self) -> None:
        """Tell the threads of this repository to stop; does not wait for them."""
        if self._background is not None:
            self._background.close(0)

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

    def make_folders(self) -> None:
        """Make its folders, if they are not there yet."""

    def tenant(self, user: str) -> StoredRepository | None:
        """The tenant of this name (lower case); None: there is none."""
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
        question = Question(key_of(secret), project)
        known = self._verdicts.known(question, need)
        if known is not None:
            return known
        # A storage on this machine compares secrets, which takes no longer than to remember them.
        may_ask = ask or self._background is None
        call = partial(self._ask_access, secret, project) if may_ask else None
        # A refusal is forgotten when the project changes, such as by an upload in any process.
        version = partial(self._project_serial, project)
        try:
            return self._verdicts.access(question, need, call, client=client, version=version)
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

    @property
    def is_public(self) -> bool:
        """Whether people without a secret may read."""
        return self.settings.anonymous_read

    def public_secret(self, *, ask: bool = True) -> Secret:
        """The server's own secret, if there is one.

        Lookups use it, and see what it may see. So it has to work.
        """
        secret = self.settings.admin_secret or Secret("")
        if self.may_ask_storage() and not (secret and self.access(secret, Access.READ, ask=ask)):
            raise NotConfigured(
                f"repository {self.name!r} is open to everybody, but the storage does not "
                f"accept its own secret: the table [{self.name}] of admin_secret.toml gives it"
            )
        return secret

    def check_project(
        self,
        project: NormalizedName,
        secret: Secret,
        need: Access = Access.READ,
        *,
        ask: bool = True,
    ) -> None:
        """Raise an error unless a secret has the right `need` in this project.

        Only for storages with rights for each project. `ProjectNotFound`: the project is absent or
        the secret may not see it, which the storage does not distinguish. `NotAllowed`: it may read
        only. Without `ask`, the storage is not asked, and `BackendUnavailable` is raised if the
        answer is not known.
        """
        if not self.rights_per_project:
            return
        access = self.access(secret, need, project=project, ask=ask)
        if access is Access.NONE:
            # Publishers need a hint about what may be wrong.
            hint = "the storage has no place for it, or does not show it to this secret"
            raise ProjectNotFound(project, hint if need > Access.READ else "")
        if access < need:
            raise NotAllowed(f"this secret may read project {project!r}, but not change it")

    # -- state -----------------------------------------------------------------------------------

    def require_fresh(self) -> None:
        """Raise an error unless what the local index lacks is absent in the storage as well."""
        self.require_ready()
        self._require_believed(self._stale())

    def _require_believed(self, stale: str | None) -> None:
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

    def usage(self) -> Usage | None:
        """The requests to the provider of the storage, and its limits for the server's own secret.

        None if the storage does not count requests.
        """
        storage = self.storage(self.settings.admin_secret or Secret(""))
        counting = capability(storage, SupportsUsage)
        return None if counting is None else counting.usage()

    def caches(self) -> Mapping[str, FileCache]:
        """Its disk caches by name, if it needs any."""
        if self.opens_files_here:
            return {}
        return {"files": self.opener.files, "metadata": self.opener.metadata}

    def serial(self) -> int:
        """A number that grows with every change of the repository; 0 while it is empty."""
        return self.index.serial() if self.has_index() else 0

    # -- reading ---------------------------------------------------------------------------------

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
    def among(self, secret: Secret) -> Collection[str] | None:
        """The projects of the local index that the caller may see; None: all of them."""

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

    def find(
        self, project: NormalizedName, secret: Secret, *, ask: bool = True
    ) -> Found | Elsewhere | Absent:
        """A project, or whether it may be looked for elsewhere; see `Repository`."""
        try:
            self.check_project(project, secret, ask=ask)
        except ProjectNotFound:
            self.require_fresh()
            return self.missing(project)
        if not ask and not self.is_fresh(project):
            raise NotAtHand
        return self._find(project, secret)

    def explain(self, project: NormalizedName, secret: Secret) -> Explanation:
        """What is served of a project, and the files of the storage that cannot be shown."""
        answer: Found | Elsewhere | Absent | None
        try:
            answer = self.find(project, secret)
        except _NothingShown:
            answer = None
        stale = self._stale()
        notes = [] if stale is None else [stale]
        if isinstance(answer, (Elsewhere, Absent)):
            elsewhere = answer.url if isinstance(answer, Elsewhere) else None
            return Explanation(project=project, is_found=False, notes=notes, elsewhere=elsewhere)
        unshown = self.index.unshown(project) if self.has_index() else {}
        return Explanation(
            project=project,
            is_found=True,
            files=() if answer is None else answer.files(),
            hidden=ordered(hidden_file(name, "unusable", why) for name, why in unshown.items()),
            notes=notes,
            freshness=FRESH if answer is None else answer.freshness,
        )

    def is_at_hand(self, project: NormalizedName, secret: Secret) -> bool:
        """Whether the project can be shown without asking the storage."""
        try:
            self.check_project(project, secret, ask=False)
        except PrivatePypiError:
            return False
        return self.is_fresh(project)

    def _find(self, project: NormalizedName, secret: Secret) -> Found | Elsewhere | Absent:
        freshness = self.look_up(project, secret)
        listed = self.index.page_of(project) if self.has_index() else None
        if listed is not None:
            serial, count = listed
            read = StoredPage(self.index, project)
            return Found(project, serial, freshness, self.index, read, count)
        if freshness != FRESH:
            raise BackendUnavailable(
                f"whether project {project!r} exists is not known now, because the storage is in "
                "trouble",
                retry_after=30,
            )
        self.require_fresh()
        self.require_shown(project)
        return self.missing(project)

    def ever_had(self, project: NormalizedName) -> bool:
        """Whether a project belongs to this repository, because it has or had such files."""
        if not self.has_index():
            return False
        if self.index.project_serial(project) is not None:
            return True
        self.require_fresh()
        return False

    def had_names(self) -> Collection[NormalizedName]:
        """The names of all projects for which `ever_had` is true."""
        if not self.has_index():
            return ()
        self.require_fresh()
        return self.index.had_names()

    def missing(self, project: NormalizedName) -> Elsewhere | Absent:
        """Whether a project that is absent here may be looked for elsewhere."""
        if not self.extra_index.url:
            return Absent()
        was_ours = self.has_index() and self.index.project_serial(project) is not None
        url = self.extra_index.page_of(project, was_ours=was_ours)
        return Absent() if url is None else Elsewhere(url)

    def open_file(
        self, file: ListedFile, secret: Secret, awaited: Arriving | None = None
    ) -> Opened:
        """The content of a file. Files of remote storages go through the disk cache."""
        assert isinstance(file, DistributionFile)
        return self.opener.open_file(file, self.seen_with(secret), awaited)

    def open_core_metadata(
        self, file: ListedFile, secret: Secret, awaited: Arriving | None = None
    ) -> Opened:
        """The core metadata as advertised, byte for byte (protocol 29)."""
        assert isinstance(file, DistributionFile)
        return self.opener.open_core_metadata(file, self.seen_with(secret), awaited)

    def open_alias(
        self, alias: str, filename: str, secret: Secret, awaited: Arriving | None = None
    ) -> ListedFile | Opened:
        """The file that had the address `alias` on an older server; see `Repository`."""
        seen = self.seen_with(secret)
        aliases = capability(seen.storage, SupportsAliases)
        if aliases is None:
            raise FileNotFound(filename)
        try:
            return self.file(parse_filename(filename).project, filename, secret)
        except InvalidFilename:
            raise FileNotFound(filename) from None
        except NotFound:
            return self.opener.open_alias(alias, filename, aliases, seen, awaited)

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
            raise _NothingShown(
                f"project {project!r} has a file that cannot be served now, {name!r}{others}: "
                f"{problem}",
                retry_after=60,
            )

    def file(
        self,
        project: NormalizedName,
        filename: str,
        secret: Secret,
        need: Access = Access.READ,
    ) -> DistributionFile:
        """A file of the index. Raises `FileNotFound` only if it is known to be absent."""
        self.check_project(project, secret, need)
        freshness = self.look_up(project, secret)
        file = self.index.file_if_ready(filename) if self.has_index() else None
        if file is not None and file.project == project:
            return file
        with _as_of(freshness, filename):
            self.require_fresh()
            self.require_shown(project, filename)
            raise FileNotFound(filename)

    def release(
        self,
        project: NormalizedName,
        version: str,
        secret: Secret,
        need: Access = Access.READ,
    ) -> Sequence[DistributionFile]:
        """The files of a version, which is compared as PEP 440 says; raises `NotFound`."""
        self.check_project(project, secret, need)
        freshness = self.look_up(project, secret)
        with _as_of(freshness, f"{project} {version}"):
            self.require_fresh()
            return files_of_release(self.index.project_files(project), project, version)

    def at(self, instant: datetime) -> Frozen:
        """The same repository as it was at an instant (UTC); see `Repository.at`."""
        return Frozen(self, instant)

    # -- changing --------------------------------------------------------------------------------

    def is_published(self, upload: Upload, secret: Secret) -> bool:
        """Whether the local index has a file of this name, in any spelling."""
        self.check_project(upload.file.project, secret, Access.WRITE)
        self.make_folders()
        return bool(self.index.same_files(upload.file.filename))

    def publish(self, upload: Upload, secret: Secret) -> DistributionFile:
        """Store and show a file (see `publishing.publish`)."""
        self.check_project(upload.file.project, secret, Access.WRITE)
        self.make_folders()
        self.learn_burnt_names(secret)
        return self._change(publish, secret, upload)

    def yank(self, files: Sequence[ListedFile], reason: str | None, secret: Secret) -> None:
        """Yank or un-yank files (see `publishing.yank`)."""
        self._change(yank, secret, files, reason)

    def delete(self, files: Sequence[ListedFile], secret: Secret) -> None:
        """Delete files for ever (see `publishing.delete`)."""
        self._change(delete, secret, files)

    def _change(self, change: Callable[..., T], secret: Secret, *arguments: object) -> T:
        """Call one of the functions of `publishing`."""
        seen = self.seen_with(secret)
        return seen.ask(
            lambda: change(
                *arguments, storage=seen.storage, index=self.index, backend_type=self.type
            )
        )

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

    def learn_burnt_names(self, secret: Secret) -> None:
        """Find out which names other servers have burnt, if that is quick."""


@contextmanager
def _as_of(freshness: Freshness, what: str) -> Iterator[None]:
    """Unless a project was brought up to date, `NotFound` becomes trouble."""
    try:
        yield
    except NotFound as error:
        if freshness == FRESH:
            raise
        raise BackendUnavailable(
            f"whether {what!r} exists is not known now, because the storage is in trouble",
            retry_after=30,
        ) from error


def new_background(name: str) -> Background:
    """Threads that ask the storage of a repository, so that a request need not wait for the end."""
    return Background(f"repository {name!r}", most=_MAX_CALLS)


def key_of(secret: Secret) -> bytes:
    """A hash of a secret, which is remembered instead of the secret."""
    return secret.digest
