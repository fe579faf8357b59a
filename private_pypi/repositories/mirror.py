"""A repository that is another index, the *upstream*, read through.

Pages are asked for when a client needs them, kept in the local index, and believed for
`sync_index_interval` (`mirrored_pages`). Files go through the disk cache (`mirrored_files`). While
the upstream is in trouble, what is known counts for `stale_for` more; what is not known is trouble,
and never called absent.

The policy (`private_pypi.policy`) says which of the files are let through. It is applied to what
the local index has, when a page or a file is asked for, so a change of it counts at once.
"""

from __future__ import annotations

import copy
import itertools
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from packaging.utils import NormalizedName

from private_pypi.backend import (
    Access,
    AnyBackend,
    MirrorSettings,
    Secret,
    SupportsUpstream,
    SupportsUsage,
    Usage,
    capability,
)
from private_pypi.backend.times import show_instant
from private_pypi.configuration.config import RepositorySettings, normalized_patterns
from private_pypi.errors import (
    BackendUnavailable,
    FileHidden,
    FileNotFound,
    PrivatePypiError,
    ProjectNotFound,
)
from private_pypi.index.identity import Identity
from private_pypi.index.local import ProjectLine
from private_pypi.index.mirrored import (
    MirroredFile,
    MirroredIndex,
    PageState,
)
from private_pypi.model import (
    FRESH,
    ListedFile,
    ProjectPage,
)
from private_pypi.policy import FILENAME as ALLOWANCES
from private_pypi.policy import AllowanceFile, HiddenFile, Judged, Policy, Sighting, make_policy
from private_pypi.repositories.answers import Absent, Elsewhere, Found, ProjectList, ToFetch
from private_pypi.repositories.explaining import Explanation, KeptExplanations, hidden_file, ordered
from private_pypi.repositories.fetching_ahead import likely_wanted
from private_pypi.repositories.mirrored_files import MirroredFiles
from private_pypi.repositories.mirrored_pages import MirroredPages
from private_pypi.repositories.opening import Opened
from private_pypi.repositories.releases import files_of_release
from private_pypi.repositories.repository import (
    CLOSING_SECONDS,
    NotAtHand,
    Repository,
    RepositoryState,
)
from private_pypi.storage.arriving import Arriving
from private_pypi.storage.bounded import mark_used
from private_pypi.storage.file_cache import FileCache
from private_pypi.storage.recent_trouble import RecentTrouble
from private_pypi.system.background import Pending

_log = logging.getLogger(__name__)

_MOST_JUDGED = 10_000  # pages, and frozen views, whose judgement is remembered
_MOST_FROZEN = 100

_ENDING_SECONDS = 2.0
"""For which threads may go on when their connections are closed, such as to write what has come."""

_NEVER = datetime.max.replace(tzinfo=UTC)

_keys = itertools.count()  # of judgements, for the cache of rendered pages


NoteAllowance = Callable[[str, Mapping[str, object]], None]
"""Is told of each use of an allowance: the name of the repository, and a part of an audit line."""


@dataclass(frozen=True, slots=True)
class _Judgement:
    """The result of the policy for one page, without the files."""

    of: tuple[int, Hashable]  # the serial of the page, and the generation of the policy
    changes_at: datetime | None
    key: int  # for the cache of rendered pages


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
        self.index = MirroredIndex(index_folder / "index.sqlite", identity=_identity_of(settings))
        # Not retried: clients retry themselves, and meanwhile others get what is known.
        storage = backend.seen_with(Secret(""))
        upstream = capability(storage, SupportsUpstream)
        assert upstream is not None
        self._storage = storage
        self._policy: Policy = make_policy(self._own, allowances=AllowanceFile(root / ALLOWANCES))
        self._note_allowance = note_allowance
        trouble = RecentTrouble()
        self._pages = MirroredPages(
            self.index,
            upstream,
            trouble,
            name=self.name,
            lock=backend.folders.lock,
            interval=settings.sync_index_interval.total_seconds(),
            stale_for=settings.stale_for.total_seconds(),
            index_bytes=self._own.index_bytes,
            lists_all=self._own.reads_public_index,
            costs_requests=self._own.costs_requests,
            offline=self._own.offline,
        )
        self._files = MirroredFiles(
            self.index,
            storage,
            upstream,
            trouble,
            folders=backend.folders,
            cache_bytes=self._own.cache_bytes,
            offline=self._own.offline,
            write_pages=self._pages.write,
        )
        self._instant: datetime | None = None  # of a frozen view
        self._lock = threading.Lock()  # guards these, which frozen views share
        self._judged: OrderedDict[Hashable, _Judgement] = OrderedDict()
        self._explained = KeptExplanations()  # which frozen views share, too
        self._frozen: OrderedDict[datetime, Mirror] = OrderedDict()

    # -- life ------------------------------------------------------------------------------------

    def begin_close(self) -> None:
        """Tell the threads of this repository to stop; does not wait for them."""
        self._pages.begin_close()

    def close(self, timeout: float = CLOSING_SECONDS) -> None:
        """Stop the threads and close the local index, waiting at most `timeout` seconds.

        No request waits any more for what still arrives, so it is broken off.
        """
        self._pages.begin_close()
        self.backend.close()
        self._pages.close(min(timeout, _ENDING_SECONDS))
        self.index.close()

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
        return RepositoryState(ready=True, synced_at=None, error=self._pages.error)

    def usage(self) -> Usage | None:
        """The requests to the upstream."""
        counting = capability(self._storage, SupportsUsage)
        return None if counting is None else counting.usage()

    def caches(self) -> Mapping[str, FileCache]:
        """The disk caches of files and of core metadata."""
        return self._files.caches()

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
        page, freshness = self._pages.look_up(project, ask=ask)
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

    def begin_find(
        self, project: NormalizedName, secret: Secret, *, for_installer: bool = False
    ) -> Pending | None:
        """Begin to ask the upstream for a page, if it has to be asked.

        For an installer, core metadata are fetched after the page (see `fetching_ahead`).
        """
        pending = self._pages.begin(project) if self.mirrors(project) else None
        if pending is not None and for_installer:
            pending.call_when_over(partial(self._fetch_ahead, project))
        return pending

    def _fetch_ahead(self, project: NormalizedName) -> None:
        """Begin to fetch core metadata that are likely to be wanted. What is hidden is not."""
        try:
            page, freshness = self._pages.look_up(project, ask=False)
            if page is None or not page.is_there or page.status is not None or freshness != FRESH:
                return
            for file in likely_wanted(self._pages.files(project, page)):
                if self._policy.is_trivial or not self._judge(project, page, [file]).hidden:
                    self._files.fetch_core_metadata(file)
                    return
        except PrivatePypiError as error:
            _log.debug("%s: nothing was fetched ahead for %s: %s", self.name, project, error)

    def _lets_all_through(self, page: PageState) -> bool:
        return self._policy.is_trivial and page.status is None and not self._own.offline

    def _whole_page(self, project: NormalizedName, page: PageState) -> ProjectPage:
        return ProjectPage(self._pages.files(project, page), page.status)

    def _judged_page(
        self, project: NormalizedName, page: PageState, judged: Judged | None
    ) -> ProjectPage:
        if judged is None:
            judged = self._judge(project, page, self._pages.files(project, page))
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
        judged = self._judge(project, page, self._pages.files(project, page))
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
        here = tuple(file for file in judged.files if self._files.is_kept(file))
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
            page, freshness = self._pages.page(project), FRESH
            notes.append("this mirror is offline: it shows what the upstream had before")
        else:
            page, freshness = self._pages.look_up(project)
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
        return replace(self._explained_files(project, page), notes=notes, freshness=freshness)

    def _explained_files(self, project: NormalizedName, page: PageState) -> Explanation:
        """What is to be said of the files of a page; kept until the page or the policy changes."""
        of = (page.serial, self._policy.generation())
        question = (self._instant, project)
        kept = self._explained.find(question, of, now=datetime.now(UTC))
        if kept is not None:
            return kept
        judged = self._judge(project, page, self._pages.files(project, page))
        self._pages.write()
        others = self.index.others(project)
        hidden = (*judged.hidden, *(hidden_file(name, "filename", why) for name, why in others))
        said = Explanation(
            project=project,
            is_found=True,
            files=judged.files,
            hidden=ordered(hidden) if others else hidden,
            exceptions={
                filename: f"{each.by} has allowed {each.subject} until {show_instant(each.until)}: "
                f"{each.why}"
                for filename, each in judged.allowed.items()
            },
        )
        if not self._own.offline:  # else it depends on what is in the disk cache
            self._explained.keep(question, of, said, until=judged.changes_at or _NEVER)
        return said

    @property
    def policy(self) -> Policy:
        """What is let through."""
        return self._policy

    # -- the list of projects ----------------------------------------------------------------------

    def list_projects(self, secret: Secret) -> ProjectList:
        """The projects of the upstream that this mirror may have."""
        state, freshness = self._pages.names()
        assert state.generation is not None
        kept_in = (self.index, "names", self._only, self._without)
        return ProjectList(kept_in, state.generation, freshness, self._read_names)

    def _read_names(self) -> Iterator[tuple[NormalizedName, int]]:
        return ((name, 0) for name in self.index.names() if self.mirrors(name))

    def known_names(self, names: Sequence[NormalizedName]) -> set[NormalizedName]:
        """Those of the names that the upstream has, as its list says; waits as the list does."""
        self._pages.names()
        return {name for name in self.index.names_among(names) if self.mirrors(name)}

    # -- what the upstream has, whatever the configuration lets through ---------------------------

    def require_names(self, *, ask: bool = True) -> None:
        """Make sure that the list of projects was read; see `MirroredPages.require_names`."""
        self._pages.require_names(ask=ask)

    def upstream_files(
        self, project: NormalizedName, *, ask: bool = True
    ) -> Sequence[MirroredFile] | None:
        """The files on the page of the upstream, also those that are hidden here; ordered.

        None if the upstream has no such project. Without `ask` nothing is waited for: raises
        `NotAtHand` if the page is not known, and it is read in the background.
        """
        if ask:
            page, _ = self._pages.look_up(project)
        else:
            page = self._pages.page(project)
            if page is None:
                self._pages.begin(project)
                raise NotAtHand
        if page is None:
            if not self._own.offline:
                return None
            raise BackendUnavailable(
                f"this mirror is offline, and never read the page of {project!r}"
            )
        return self._pages.files(project, page) if page.is_there else None

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
        page, freshness = self._pages.look_up(project) if self.mirrors(project) else (None, FRESH)
        file = None
        if page is not None and page.is_there:
            file = self._pages.file(project, page, filename)
            if file is None and freshness == FRESH:
                page = self._pages.look_again(project)
                if page is not None and page.is_there:
                    file = self._pages.file(project, page, filename)
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

    def to_fetch(
        self,
        project: NormalizedName,
        filename: str,
        secret: Secret,
        *,
        core_metadata: bool,
    ) -> ToFetch | None:
        """A file that is let through and not in the disk cache; see `Repository`."""
        if self._own.offline or not self.mirrors(project):
            return None
        page, _ = self._pages.look_up(project, ask=False)
        if page is None or not page.is_there:  # of such a project, files may still be known
            return None
        file = self._pages.file(project, page, filename)
        if file is None or not self._files.has_to_fetch(file, core_metadata):
            return None
        if not self._lets_all_through(page):
            judged = self._judge(project, page, [file])
            if judged.hidden or judged.allowed:  # a use of an allowance is written down
                return None
        open_it = self._files.open_core_metadata if core_metadata else self._files.open_file
        return ToFetch(file, partial(open_it, file, None))

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
        return self._files.open_file(file, awaited)

    def open_core_metadata(
        self, file: ListedFile, secret: Secret, awaited: Arriving | None = None
    ) -> Opened:
        """The core metadata, from the disk cache, from the upstream, or read from the wheel."""
        assert isinstance(file, MirroredFile)
        return self._files.open_core_metadata(file, awaited)

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
