"""A repository that is another index, the *upstream*, read through.

Pages are asked for when a client needs them, kept in the local index, and believed for
`sync_index_interval`. Files go through the disk cache. While the upstream is in trouble, what is
known counts for `stale_for` more; what is not known is trouble, and never called absent.

The policy (`private_pypi.policy`) says which of the files are let through. It is applied to what
the local index has, when a page or a file is asked for, so a change of it counts at once.
"""

from __future__ import annotations

import copy
import itertools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from filelock import FileLock, Timeout
from packaging.utils import NormalizedName

from private_pypi.backend import (
    Access,
    AnyBackend,
    MirrorSettings,
    Secret,
    SupportsParts,
    SupportsUpstream,
    SupportsUsage,
    UpstreamPage,
    Usage,
    capability,
)
from private_pypi.backend.times import show_instant
from private_pypi.configuration.config import RepositorySettings, normalized_patterns
from private_pypi.distributions.core_metadata import (
    LARGEST_METADATA,
    require_release,
    require_sound,
)
from private_pypi.distributions.filenames import project_name
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileHidden,
    FileNotFound,
    InvalidUpload,
    ProjectNotFound,
    StorageFull,
    Unsupported,
)
from private_pypi.index.examining import remote_file
from private_pypi.index.identity import Identity
from private_pypi.index.local import ProjectLine
from private_pypi.index.mirrored import (
    MirroredFile,
    MirroredIndex,
    NamesState,
    PageState,
    names_of_strangers,
)
from private_pypi.model import (
    FRESH,
    Download,
    Freshness,
    ListedFile,
    ProjectPage,
    Redirect,
    Stream,
)
from private_pypi.policy import FILENAME as ALLOWANCES
from private_pypi.policy import AllowanceFile, HiddenFile, Judged, Policy, Sighting, make_policy
from private_pypi.repositories.answers import Absent, Elsewhere, Found, ProjectList
from private_pypi.repositories.explaining import Explanation, hidden_file, ordered
from private_pypi.repositories.opening import Opened, core_metadata_in, whole
from private_pypi.repositories.releases import files_of_release
from private_pypi.repositories.repository import (
    CLOSING_SECONDS,
    NotAtHand,
    Repository,
    RepositoryState,
)
from private_pypi.storage.arriving import Arriving, Check
from private_pypi.storage.bounded import mark_used
from private_pypi.storage.file_cache import FileCache
from private_pypi.storage.recent_trouble import RecentTrouble
from private_pypi.storage.remote_files import ReadPart, RemoteFile
from private_pypi.system.background import Background, Pending, StillRunning

_log = logging.getLogger(__name__)

_BUDGET = 20.0  # seconds for which a request waits for a page of the upstream
_ABSENT_SECONDS = 30.0  # for which it is believed that the upstream does not have a project
_RECHECK_SECONDS = 30.0  # after which a page is asked for again if it lacks a wanted file
_NAMES_SECONDS = 3600.0  # for which the list of projects is believed, which may have 40 MB
_MOST_CALLS = 64  # to the upstream at the same time, for pages; uv asks for 50
_MOST_FETCHES = 32  # files that are fetched at the same time
_MOST_JUDGED = 10_000  # pages, and frozen views, whose judgement is remembered
_MOST_FROZEN = 100
_MOST_UNKEPT = 20_000  # files on pages that are in memory because the disk is full
_LARGEST_UNKNOWN = 8 * 2**30  # bytes of a file whose size the upstream does not say

_NEVER = datetime.max.replace(tzinfo=UTC)

_keys = itertools.count()  # of judgements, for the cache of rendered pages


class ListNotRead(BackendUnavailable):
    """The list of projects is being read from the upstream, which may take a minute."""


NoteAllowance = Callable[[str, Mapping[str, object]], None]
"""Is told of each use of an allowance: the name of the repository, and a part of an audit line."""


@dataclass(frozen=True, slots=True)
class _Judgement:
    """The result of the policy for one page, without the files."""

    of: tuple[int, Hashable]  # the serial of the page, and the generation of the policy
    changes_at: datetime | None
    key: int  # for the cache of rendered pages


@dataclass(slots=True)
class _Health:
    """How the upstream is, which frozen views share."""

    error: str | None = None  # of the last question, if it had one


@dataclass(frozen=True, slots=True)
class _Unkept:
    """A page that the disk did not take."""

    page: PageState
    files: Sequence[MirroredFile]


class Mirror(Repository):
    """Another index, read through."""

    is_mirror = True

    def __init__(
        self,
        settings: RepositorySettings,
        backend: AnyBackend,
        *,
        root: Path,
        index_folder: Path,
        note_allowance: NoteAllowance | None = None,
    ) -> None:
        assert isinstance(backend.settings, MirrorSettings)
        self.settings = settings
        self.name = settings.name
        self.type = settings.type
        self.backend = backend
        self._own = backend.settings
        self._only, self._without = map(normalized_patterns, (self._own.only, self._own.except_))
        self._folders = backend.folders
        self.index = MirroredIndex(index_folder / "index.sqlite", identity=_identity_of(settings))
        # Not retried: clients retry themselves, and meanwhile others get what is known.
        storage = backend.seen_with(Secret(""))
        upstream = capability(storage, SupportsUpstream)
        assert upstream is not None
        self._storage, self._upstream = storage, upstream
        self._policy: Policy = make_policy(self._own, allowances=AllowanceFile(root / ALLOWANCES))
        self._note_allowance = note_allowance
        self._interval = settings.sync_index_interval.total_seconds()
        self._stale_for = settings.stale_for.total_seconds()
        self._files = FileCache(
            self._folders.cache / "files",
            self._folders.tmp,
            max_bytes=self._own.cache_bytes,
            most_fetches=_MOST_FETCHES,
        )
        self._metadata = FileCache(
            self._folders.cache / "metadata",
            self._folders.tmp,
            max_bytes=self._own.cache_bytes // 10,
            most_fetches=_MOST_FETCHES,
        )
        self._trouble = RecentTrouble()
        self._health = _Health()
        self._background = Background(f"mirror {self.name!r}", most=_MOST_CALLS)
        self._instant: datetime | None = None  # of a frozen view
        self._lock = threading.Lock()  # guards these, which frozen views share
        self._judged: OrderedDict[Hashable, _Judgement] = OrderedDict()
        self._frozen: OrderedDict[datetime, Mirror] = OrderedDict()
        self._unkept: OrderedDict[str, _Unkept] = OrderedDict()

    # -- life ------------------------------------------------------------------------------------

    def begin_close(self) -> None:
        """Tell the threads of this repository to stop; does not wait for them."""
        self._background.close(0)

    def close(self, timeout: float = CLOSING_SECONDS) -> None:
        """Stop the threads and close the local index, waiting at most `timeout` seconds."""
        self._background.close(timeout)
        self.index.close()
        self.backend.close()

    # -- rights ----------------------------------------------------------------------------------

    @property
    def is_public(self) -> bool:
        """Whether people without a secret may read."""
        return self.settings.anonymous_read

    def public_secret(self, *, ask: bool = True) -> Secret:
        """An empty secret: nobody's secret reaches the upstream."""
        return Secret("")

    def access(
        self,
        secret: Secret,
        need: Access,
        *,
        project: NormalizedName | None = None,
        ask: bool = True,
        client: str = "",
    ) -> Access:
        """`Access.READ` for the secrets in the table; see `Repository`."""
        return self._own.access_of(secret)

    # -- state -----------------------------------------------------------------------------------

    def require_ready(self) -> None:
        """Do nothing: a mirror can always answer."""

    def state(self) -> RepositoryState:
        """Ready, with the error that the upstream gave last, if it has not answered since."""
        return RepositoryState(ready=True, synced_at=None, error=self._health.error)

    def usage(self) -> Usage | None:
        """The requests to the upstream."""
        counting = capability(self._storage, SupportsUsage)
        return None if counting is None else counting.usage()

    def caches(self) -> Mapping[str, FileCache]:
        """The disk caches of files and of core metadata."""
        return {"files": self._files, "metadata": self._metadata}

    def serial(self) -> int:
        """A number that grows with every change of what is known of the upstream."""
        return self.index.serial()

    # -- pages -----------------------------------------------------------------------------------

    def may_ask_storage(self) -> bool:
        """True: a page is asked for when a client needs it."""
        return True

    def ever_had(self, project: NormalizedName) -> bool:
        """False: no name belongs to a mirror."""
        return False

    def had_names(self) -> Collection[NormalizedName]:
        """None, as `ever_had`."""
        return ()

    def mirrors(self, project: NormalizedName) -> bool:
        """Whether the configuration lets the mirror have a project of this name."""
        only, without = self._only, self._without
        return (not only or _matches(project, only)) and not _matches(project, without)

    def find(
        self, project: NormalizedName, secret: Secret, *, ask: bool = True
    ) -> Found | Elsewhere | Absent:
        """A project of the upstream; see `Repository`."""
        if not self.mirrors(project):
            return Absent()
        page, freshness = self._look_up(project, ask=ask)
        if page is None or not page.is_there:
            return Absent()
        if self._lets_all_through(page):
            read = partial(self._whole_page, project, page)
            return Found(project, page.serial, freshness, self.index, read)
        key, judged = self._judgement(project, page)
        return Found(
            project,
            page.serial,
            freshness,
            (self.index, key),
            partial(self._judged_page, project, page, judged),
        )

    def begin_find(self, project: NormalizedName, secret: Secret) -> Pending | None:
        """Begin to ask the upstream for a page, if it has to be asked."""
        if self._own.offline or not self.mirrors(project):
            return None
        page = self._page(project)
        if page is not None and 0 <= time.time() - page.checked_at < self._believed(page):
            return None
        if page is None and project_name(project) is None:
            return None
        return self._background.begin(("page", project), partial(self._ask_page, project))

    def _lets_all_through(self, page: PageState) -> bool:
        return self._policy.is_trivial and page.status is None and not self._own.offline

    def _page(self, project: NormalizedName) -> PageState | None:
        """What is known of a page; None: it was never asked for."""
        page, unkept = self.index.page(project), self._unkept.get(project)
        if unkept is None or (page is not None and page.checked_at >= unkept.page.checked_at):
            return page
        return unkept.page

    def _files_of(self, project: NormalizedName, page: PageState) -> Sequence[MirroredFile]:
        unkept = self._unkept.get(project)
        if unkept is not None and unkept.page == page:
            return unkept.files
        files = self.index.files(project)
        if not files and self.index.page(project) is None:
            raise _replaced()  # otherwise, this would be a page without files
        return files

    def _file_of(
        self, project: NormalizedName, page: PageState, filename: str
    ) -> MirroredFile | None:
        unkept = self._unkept.get(project)
        if unkept is not None and unkept.page == page:
            return next((each for each in unkept.files if each.filename == filename), None)
        file = self.index.file(project, filename)
        if file is None and self.index.page(project) is None:
            raise _replaced()
        return file

    def _whole_page(self, project: NormalizedName, page: PageState) -> ProjectPage:
        return ProjectPage(self._files_of(project, page), page.status)

    def _judged_page(
        self, project: NormalizedName, page: PageState, judged: Judged | None
    ) -> ProjectPage:
        if judged is None:
            judged = self._judge(project, page, self._files_of(project, page))
        return ProjectPage(judged.files, page.status)

    def _judgement(
        self, project: NormalizedName, page: PageState
    ) -> tuple[Hashable, Judged | None]:
        """A key for the page as the policy has it now, and the result if it was made anew."""
        of = (page.serial, self._policy.generation())
        question = (self._instant, project)
        kept = self._judged.get(question)
        if kept is not None and kept.of == of and not self._own.offline:
            ends_at = kept.changes_at or _NEVER
            if datetime.now(UTC) < ends_at:
                return kept.key, None
        judged = self._judge(project, page, self._files_of(project, page))
        made = _Judgement(of, judged.changes_at, next(_keys))
        with self._lock:
            self._judged[question] = made
            mark_used(self._judged, question, most=_MOST_JUDGED)
        return made.key, judged

    def _judge(
        self, project: NormalizedName, page: PageState, files: Sequence[MirroredFile]
    ) -> Judged:
        judged = self._policy.judge(
            project,
            (Sighting(file=file, first_seen_at=file.first_seen_at) for file in files),
            status=page.status,
            now=datetime.now(UTC),
        )
        if not self._own.offline:
            return judged
        here = tuple(file for file in judged.files if self._is_kept(file))
        names = {file.filename for file in here}
        missing = tuple(
            HiddenFile(
                filename=file.filename,
                version=file.version,
                rule="offline",
                reason="this mirror is offline, and the file was not downloaded before",
            )
            for file in judged.files
            if file.filename not in names
        )
        return replace(judged, files=here, hidden=(*judged.hidden, *missing))

    def _is_kept(self, file: ListedFile) -> bool:
        return file.sha256 is not None and self._files.has(file.sha256)

    def explain(self, project: NormalizedName, secret: Secret) -> Explanation:
        """What is served of a project, and the files that the upstream has and a rule hides."""
        notes = [] if self._policy.problem is None else [self._policy.problem]
        if not self.mirrors(project):
            key = "only" if self._only and not _matches(project, self._only) else "except"
            notes.append(
                f"this mirror has no project of this name, because of `{key}` in its table"
            )
            return Explanation(project=project, is_found=False, notes=notes)
        if self._own.offline:
            page, freshness = self._page(project), FRESH
            notes.append("this mirror is offline: it shows what the upstream had before")
        else:
            page, freshness = self._look_up(project)
        denied = self._policy.denied_project(project)
        if denied is not None:
            notes.append(denied)
        if page is None or not page.is_there:
            notes.append(
                "the upstream is not known to have such a project"
                if page is None
                else "the upstream has no such project"
            )
            return Explanation(project=project, is_found=False, notes=notes, freshness=freshness)
        if page.status is not None:
            why = f": {page.status.reason}" if page.status.reason else ""
            notes.append(f"the upstream says that this project is {page.status.status}{why}")
        judged = self._judge(project, page, self._files_of(project, page))
        others = self.index.others(project)
        return Explanation(
            project=project,
            is_found=True,
            files=judged.files,
            hidden=ordered(
                (*judged.hidden, *(hidden_file(name, "filename", why) for name, why in others))
            ),
            exceptions={
                filename: f"{each.by} has allowed {each.subject} until {show_instant(each.until)}: "
                f"{each.why}"
                for filename, each in judged.allowed.items()
            },
            notes=notes,
            freshness=freshness,
        )

    @property
    def policy(self) -> Policy:
        """What is let through."""
        return self._policy

    def _look_up(
        self, project: NormalizedName, *, ask: bool = True
    ) -> tuple[PageState | None, Freshness]:
        """What is known of a page, after asking the upstream if that is too old.

        While the upstream is in trouble, this is what was known before, with its age, or an error.
        """
        page = self._page(project)
        if page is None and project_name(project) is None:
            return None, FRESH  # no index can have it, so nothing is asked, and nothing remembered
        if self._own.offline:
            if page is None:
                self._require_unlisted(project)
            return page, FRESH
        age = None if page is None else time.time() - page.checked_at
        if page is not None and age is not None and 0 <= age < self._believed(page):
            return page, FRESH
        if not ask:
            raise NotAtHand
        try:
            self._background.result(
                ("page", project), partial(self._ask_page, project), wait=_BUDGET
            )
        except BackendError as error:
            is_usable = page is not None and page.is_there and age is not None
            if is_usable and age is not None and age < self._interval + self._stale_for:
                _log.info("%s: project %s is shown as it was: %s", self.name, project, error)
                return page, Freshness(max(0.0, age))
            raise
        page = self._page(project)
        if page is None:
            raise _replaced()
        return page, FRESH

    def _require_unlisted(self, project: NormalizedName) -> None:
        """Raise unless a project that was never asked for is known to be absent."""
        if self.index.names_state().generation is None or self.index.has_name(project):
            raise BackendUnavailable(
                f"this mirror is offline, and did not ask for project {project!r} before"
            )

    def _believed(self, page: PageState) -> float:
        return self._interval if page.is_there else min(self._interval, _ABSENT_SECONDS)

    def _ask_page(self, project: NormalizedName, *, believed: float | None = None) -> None:
        """Ask the upstream for a page, unless what is known is younger than `believed` seconds."""
        page = self._page(project)
        if page is not None:
            seconds = self._believed(page) if believed is None else believed
            if 0 <= time.time() - page.checked_at < seconds:
                return  # another process was quicker
        asked_at = time.time()
        # A page that is not on the disk is asked for as a whole, and perhaps kept this time.
        is_kept = page is not None and page.is_there and project not in self._unkept
        validator = page.validator if page is not None and is_kept else ""
        try:
            found = self._trouble.ask(
                ("page", project), partial(self._page_of_upstream, project, validator)
            )
        except ProjectNotFound:
            self._take_page(project, UpstreamPage(files=()), asked_at, is_there=False)
        except BackendError as error:
            self._health.error = str(error)
            raise
        else:
            self._take_page(project, found, asked_at)
        self._health.error = None

    def _page_of_upstream(self, project: NormalizedName, validator: str) -> UpstreamPage | None:
        page = self._upstream.project_page(project, validator)
        strangers = [] if page is None else names_of_strangers(project, page.files)
        if strangers:
            raise BackendError(
                f"the page of project {project!r} at the upstream has only files of other "
                f"projects, such as {strangers[0]!r}"
            )
        return page

    def _take_page(
        self,
        project: NormalizedName,
        found: UpstreamPage | None,
        asked_at: float,
        *,
        is_there: bool = True,
    ) -> None:
        """Remember what the upstream said (None: as before), in memory if the disk is full."""
        try:
            if found is None:
                self.index.confirm_page(project, asked_at=asked_at)
            else:
                self.index.take_page(project, found if is_there else None, asked_at=asked_at)
        except StorageFull as error:
            _log.warning("the page of project %s is only kept in memory: %s", project, error)
            self._remember(project, found, asked_at, is_there=is_there)
        else:
            with self._lock:
                self._unkept.pop(project, None)

    def _remember(
        self,
        project: NormalizedName,
        found: UpstreamPage | None,
        asked_at: float,
        *,
        is_there: bool,
    ) -> None:
        files: Sequence[MirroredFile]
        page = self._page(project)
        if found is not None:
            page = PageState(
                # The index does not have this number, which says when it was made plus a bit.
                serial=time.time_ns() // 1_000_000,
                is_there=is_there,
                checked_at=asked_at,
                validator=found.validator,
                status=found.status,
            )
            files = self.index.files_of(project, found)
        elif page is not None:
            files = self._files_of(project, page)
            page = replace(page, checked_at=asked_at)
        else:
            raise _replaced()
        with self._lock:
            self._unkept[project] = _Unkept(page, files)
            self._unkept.move_to_end(project)
            while len(self._unkept) > 1 and self._unkept_size() > _MOST_UNKEPT:
                self._unkept.popitem(last=False)

    def _unkept_size(self) -> int:
        return sum(1 + len(each.files) for each in self._unkept.values())

    # -- the list of projects ----------------------------------------------------------------------

    def list_projects(self, secret: Secret) -> ProjectList:
        """The projects of the upstream that this mirror may have."""
        state, freshness = self._names()
        assert state.generation is not None
        kept_in = (self.index, "names", self._only, self._without)
        return ProjectList(kept_in, state.generation, freshness, self._read_names)

    def _read_names(self) -> Iterator[tuple[NormalizedName, int]]:
        return ((name, 0) for name in self.index.names() if self.mirrors(name))

    def _names(self) -> tuple[NamesState, Freshness]:
        state = self.index.names_state()
        age = None if state.checked_at is None else time.time() - state.checked_at
        seconds = max(self._interval, _NAMES_SECONDS)
        if age is not None and (0 <= age < seconds or self._own.offline):
            return state, FRESH
        if self._own.offline:
            raise BackendUnavailable("this mirror is offline, and never read the list of projects")
        try:
            self._background.result("names", self._ask_names, wait=5.0)
        except BackendError as error:
            if age is not None and age < seconds + self._stale_for:
                return state, Freshness(max(0.0, age))
            if isinstance(error, StillRunning):
                raise ListNotRead(
                    "the list of projects is being read from the upstream; ask again",
                    retry_after=10,
                ) from None
            raise
        return self.index.names_state(), FRESH

    def _ask_names(self) -> None:
        lock = FileLock(self._folders.lock / "names.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ListNotRead(
                "another process is reading the list of projects; ask again", retry_after=10
            ) from None
        try:
            known, asked_at = self.index.names_state(), time.time()
            seconds = max(self._interval, _NAMES_SECONDS)
            if known.checked_at is not None and 0 <= asked_at - known.checked_at < seconds:
                return  # another process was quicker
            validator = known.validator
            listed = self._trouble.ask("names", lambda: self._upstream.project_names(validator))
            if listed is None:
                self.index.confirm_names(asked_at=asked_at)
            else:
                self.index.take_names(
                    self._until_closed(listed.names), listed.validator, asked_at=asked_at
                )
        except BackendError as error:
            self._health.error = str(error)
            self._trouble.note("names", error)
            raise
        finally:
            lock.release()
        self._health.error = None

    def _until_closed(self, names: Iterator[str]) -> Iterator[str]:
        try:
            for name in names:
                if self._background.is_closed:
                    raise BackendUnavailable("the server is stopping")
                yield name
        finally:
            close = getattr(names, "close", None)
            if close is not None:
                close()

    def known_names(self, names: Sequence[NormalizedName]) -> set[NormalizedName]:
        """Those of the names that the upstream has, as its list says; waits as the list does."""
        self._names()
        return {name for name in self.index.names_among(names) if self.mirrors(name)}

    # -- what the upstream has, whatever the configuration lets through ---------------------------

    def require_names(self, *, ask: bool = True) -> None:
        """Make sure that the list of projects was read, so that `index` can be asked about names.

        Raises the trouble of the upstream, and `ListNotRead` if reading it takes long. Without
        `ask` nothing is waited for: raises `ListNotRead`, and the list is read in the background.
        """
        if ask:
            self._names()
            return
        state = self.index.names_state()
        age = None if state.checked_at is None else time.time() - state.checked_at
        is_old = age is None or not 0 <= age < max(self._interval, _NAMES_SECONDS)
        if is_old and not self._own.offline:
            self._background.begin("names", self._ask_names)
        if age is None:
            raise ListNotRead("the list of projects was not read yet")

    def upstream_files(
        self, project: NormalizedName, *, ask: bool = True
    ) -> Sequence[MirroredFile] | None:
        """The files on the page of the upstream, also those that are hidden here; ordered.

        None if the upstream has no such project. Without `ask` nothing is waited for: raises
        `NotAtHand` if the page is not known, and it is read in the background.
        """
        if not ask:
            page = self.index.page(project)
            if page is None:
                if not self._own.offline:
                    self._background.begin(("page", project), partial(self._ask_page, project))
                raise NotAtHand
        else:
            page, _ = self._look_up(project)
        if page is None:
            raise BackendUnavailable(
                f"this mirror is offline, and never read the page of {project!r}"
            )
        return self.index.files(project) if page.is_there else None

    def search(
        self, words: Sequence[str], secret: Secret, *, limit: int, offset: int
    ) -> tuple[int, list[ProjectLine]]:
        """How many projects have every word in their name, and some of them.

        No upstream is waited for: raises `ListNotRead`, and the list is read in the background.
        """
        self.require_names(ask=False)
        total, names = self.index.search(
            words, limit=limit, offset=offset, only=self._only, without=self._without
        )
        return total, [
            ProjectLine(name=name, version="", summary=None, uploaded_at=None) for name in names
        ]

    def newest_releases(
        self, limit: int, secret: Secret, *, once_each: bool = True
    ) -> list[ProjectLine]:
        """None: a mirror knows only the pages that somebody asked for."""
        return []

    def newest_projects(self, limit: int, secret: Secret) -> list[ProjectLine]:
        """None, as `newest_releases`."""
        return []

    # -- files -----------------------------------------------------------------------------------

    def file(
        self,
        project: NormalizedName,
        filename: str,
        secret: Secret,
        need: Access = Access.READ,
    ) -> MirroredFile:
        """A file that is let through; raises `FileHidden` with the rule for one that is not."""
        if need > Access.READ:
            raise self._read_only()
        page, freshness = self._look_up(project) if self.mirrors(project) else (None, FRESH)
        file = None
        if page is not None and page.is_there:
            file = self._file_of(project, page, filename)
            if file is None and freshness == FRESH and not self._own.offline:
                # It may be new. Who asks for it knows it from somewhere else.
                self._background.result(
                    ("page", project),
                    partial(self._ask_page, project, believed=_RECHECK_SECONDS),
                    wait=_BUDGET,
                )
                page = self._page(project)
                if page is not None and page.is_there:
                    file = self._file_of(project, page, filename)
        if page is None or file is None:
            if freshness != FRESH:
                raise BackendUnavailable(
                    f"whether {filename!r} exists is not known now, because the upstream is in "
                    "trouble",
                    retry_after=30,
                )
            raise FileNotFound(filename)
        if self._lets_all_through(page):
            return file
        judged = self._judge(project, page, [file])
        if judged.hidden:
            raise FileHidden(filename, judged.hidden[0].rule, judged.hidden[0].reason)
        allowance = judged.allowed.get(filename)
        return file if allowance is None else replace(file, allowance=allowance.entry())

    def release(
        self,
        project: NormalizedName,
        version: str,
        secret: Secret,
        need: Access = Access.READ,
    ) -> Sequence[ListedFile]:
        """The files of a version that are let through; see `Repository`."""
        if need > Access.READ:
            raise self._read_only()
        found = self.find(project, secret)
        if not isinstance(found, Found):
            raise ProjectNotFound(project)
        return files_of_release(found.files(), project, version)

    def open_file(
        self, file: ListedFile, secret: Secret, awaited: Arriving | None = None
    ) -> Opened:
        """The content of a file, from the disk cache or from the upstream."""
        assert isinstance(file, MirroredFile)
        if file.allowance is not None and awaited is None and self._note_allowance is not None:
            self._note_allowance(self.name, {"filename": file.filename, **file.allowance})
        return self._fetched(file, awaited)

    def _fetched(self, file: MirroredFile, awaited: Arriving | None) -> Opened:
        def ask(arriving: Arriving) -> Download:
            self._require_online(file.filename)
            try:
                return self._storage.open_file(file)
            except FileNotFound:
                raise _gone(file) from None

        key: Hashable = file.sha256 or ("file", file.location)
        return self._files.fetch(
            key,
            lambda arriving: self._trouble.ask(("file", key), lambda: ask(arriving)),
            sha256=file.sha256,
            size=file.size,
            awaited=awaited,
            check=Check(
                hashes=file.hashes,
                arrived=partial(self._learn_file, file) if file.sha256 is None else _accept,
                largest=_LARGEST_UNKNOWN,
            ),
        )

    def _learn_file(
        self, file: MirroredFile, sha256: str, size: int, read: ReadPart | None
    ) -> None:
        """Remember the hash of a file that is what its name says."""
        if read is None:
            _log.warning("the hash of %s is not remembered: the disk is full", file.filename)
            return
        try:
            require_sound(cast(BinaryIO, RemoteFile(size, read)), file.filename)
        except InvalidUpload as error:
            raise BackendError(f"the upstream sent a damaged file: {error}") from None
        self._learn(file, self.index.learn_file, sha256, size)

    def open_core_metadata(
        self, file: ListedFile, secret: Secret, awaited: Arriving | None = None
    ) -> Opened:
        """The core metadata, from the disk cache, from the upstream, or read from the wheel."""
        assert isinstance(file, MirroredFile)
        sha256 = file.core_metadata_sha256

        def ask(arriving: Arriving) -> Download:
            if file.has_upstream_metadata and not self._own.offline:
                try:
                    return self._upstream.open_metadata(file)
                except FileNotFound:
                    if not file.filename.endswith(".whl"):
                        raise BackendError(
                            f"the upstream announces core metadata of {file.filename!r}, and then "
                            "says that they do not exist"
                        ) from None
            content = self._core_metadata_in(file)
            return Stream(iter([content]), len(content))

        def learn(digest: str, size: int, read: ReadPart | None) -> None:
            if read is None:
                return  # the disk is full
            try:
                require_release(read(0, size), file.filename)
            except InvalidUpload as error:
                raise BackendError(f"the upstream has wrong core metadata: {error}") from None
            self._learn(file, self.index.learn_metadata, digest, size)

        key: Hashable = sha256 or ("metadata", file.location)
        return self._metadata.fetch(
            key,
            lambda arriving: self._trouble.ask(("metadata", key), lambda: ask(arriving)),
            sha256=sha256,
            size=None,
            awaited=awaited,
            check=Check(
                arrived=learn if sha256 is None else _accept,
                largest=LARGEST_METADATA,
            ),
        )

    def _core_metadata_in(self, file: MirroredFile) -> bytes:
        """The core metadata from the file, of which only some parts are fetched if possible."""
        kept = None if file.sha256 is None else self._files.find(file.sha256, file.size)
        if kept is not None:
            return core_metadata_in(kept.file, file.filename)
        self._require_online(file.filename)
        parts = capability(self._storage, SupportsParts)
        try:
            size = self._upstream.file_size(file) if file.size is None else file.size
            if parts is not None and size is not None:
                return core_metadata_in(remote_file(parts, file, size), file.filename)
        except Unsupported:
            pass
        except FileNotFound:
            raise _gone(file) from None
        opened = whole(self._fetched(file, None))
        assert not isinstance(opened, Redirect)
        return core_metadata_in(opened, file.filename)

    def _require_online(self, filename: str) -> None:
        if self._own.offline:
            raise BackendUnavailable(
                f"this mirror is offline, and {filename!r} was not downloaded before"
            )

    def _learn(
        self,
        file: MirroredFile,
        learn: Callable[[ListedFile, str, int], str],
        sha256: str,
        size: int,
    ) -> None:
        """Remember a hash that the upstream does not say. Raises if another one is remembered."""
        try:
            counts = learn(file, sha256, size)
        except StorageFull as error:
            _log.warning("the hash of %s is not remembered: %s", file.filename, error)
            return
        if counts != sha256:
            raise BackendError(
                f"{file.filename!r} has sha256 {sha256}, but when it was downloaded first, it had "
                f"{counts}: the upstream, which does not tell hashes, has replaced it"
            )

    # -- at an instant -----------------------------------------------------------------------------

    def at(self, instant: datetime) -> Mirror:
        """This mirror with only the files that the upstream had at an instant (UTC)."""
        if self._instant is not None:
            instant = min(instant, self._instant)
        with self._lock:
            frozen = self._frozen.get(instant)
            if frozen is None:
                frozen = copy.copy(self)
                frozen._policy = self._policy.at(instant)
                frozen._instant = instant
                self._frozen[instant] = frozen
            mark_used(self._frozen, instant, most=_MOST_FROZEN)
        return frozen


def _matches(project: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(project, pattern) for pattern in patterns)


def _identity_of(settings: RepositorySettings) -> Identity:
    """Which upstream the local index is of. The policy is applied to it later."""
    own = settings.backend
    naming = type(own).names_storage or ()
    return Identity(settings.type, {name: str(getattr(own, name)) for name in naming})


def _accept(sha256: str, size: int, read: ReadPart | None) -> None:
    """What is known already was compared."""


def _replaced() -> BackendUnavailable:
    return BackendUnavailable("the local index was replaced; ask again", retry_after=1)


def _gone(file: MirroredFile) -> BackendError:
    return BackendError(
        f"the upstream lists {file.filename!r}, and then says that it does not exist"
    )
