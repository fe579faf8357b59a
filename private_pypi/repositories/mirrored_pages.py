"""What a mirror knows of its upstream: pages of projects and the list of them, asked for anew.

Pages are kept in the local index, and in memory until they are there (`unwritten_pages`). Trouble
of the upstream is an error, unless what was known before is young enough.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from packaging.utils import NormalizedName

from private_pypi.backend import SupportsUpstream, UpstreamPage
from private_pypi.backend.chains import (
    LONGEST,
    Chain,
    chained,
    is_pseudonym,
    new_pseudonym,
    present_chain,
)
from private_pypi.distributions.filenames import project_name
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    LoopDetected,
    ProjectNotFound,
    StorageFull,
)
from private_pypi.index.mirrored import (
    MirroredFile,
    MirroredIndex,
    NamesState,
    PageState,
    names_of_strangers,
)
from private_pypi.model import FRESH, Freshness
from private_pypi.repositories.repository import NotAtHand
from private_pypi.repositories.unwritten_pages import UnwrittenPage, UnwrittenPages
from private_pypi.storage.recent_trouble import RecentTrouble
from private_pypi.storage.token_bucket import TokenBucket
from private_pypi.system.background import Background, Pending, StillRunning
from private_pypi.system.private_files import write_private

_log = logging.getLogger(__name__)

T = TypeVar("T")

_BUDGET = 20.0  # seconds for which a request waits for a page of the upstream
_NAMES_BUDGET = 5.0  # the same for the list of projects
_ABSENT_SECONDS = 30.0  # for which it is believed that the upstream does not have a project
_RECHECK_SECONDS = 30.0  # after which a page is asked for again if it lacks a wanted file
_NAMES_SECONDS = 3600.0  # for which the list of projects is believed, which may have 40 MB
_MOST_CALLS = 64  # to the upstream at the same time, for pages; uv asks for 50
_MOST_UNKNOWN = 5000  # questions about names that nobody knows, without a pause
_UNKNOWN_PER_SECOND = 50.0  # more of them; a real project that is found does not count


class ListNotRead(BackendUnavailable):
    """The list of projects is being read from the upstream, which may take a minute."""


class MirroredPages:
    """The pages and the list of one upstream; safe for many threads."""

    def __init__(
        self,
        index: MirroredIndex,
        upstream: SupportsUpstream,
        trouble: RecentTrouble,
        *,
        name: str,
        lock: Path,
        interval: float,
        stale_for: float,
        index_bytes: int,
        lists_all: bool,
        costs_requests: bool,
        offline: bool,
    ) -> None:
        """`name` is that of the repository, for messages, and `lock` a folder for a lock between
        the processes of a ROOT.

        What the upstream said is believed for `interval` seconds, and while it is in trouble, for
        `stale_for` seconds more. Pages are removed from the index while it has more than
        `index_bytes` bytes. `lists_all`: the list of the upstream is known to have all of its
        projects; that of other indexes may lack some. `costs_requests`: questions about unknown
        projects are limited. With `offline`, the upstream is never asked.
        """
        self._index = index
        self._upstream = upstream
        self._trouble = trouble
        self._name = name
        self._lock_folder = lock
        self._interval = interval
        self._stale_for = stale_for
        self._index_bytes = index_bytes
        self._lists_all = lists_all
        self._costs_requests = costs_requests
        self._offline = offline
        self._background = Background(f"mirror {name!r}", most=_MOST_CALLS)
        self._unwritten = UnwrittenPages(index, name=name, on_written=self._make_room)
        self._unknown = TokenBucket(_MOST_UNKNOWN, per_second=_UNKNOWN_PER_SECOND)
        self.error: str | None = None
        """What was wrong when the upstream was asked last; None: nothing."""

    def begin_close(self) -> None:
        """Ask no more; does not wait for questions that run."""
        self._background.close(0)

    def close(self, timeout: float) -> None:
        """Ask no more, wait at most `timeout` seconds for questions that run, and write pages."""
        self._background.close(timeout)
        self._unwritten.close()

    # -- pages -----------------------------------------------------------------------------------

    def page(self, project: NormalizedName) -> PageState | None:
        """What is known of a page; None: it was never asked for."""
        unwritten = self._unwritten.find(project)
        if unwritten is not None and unwritten.said is not None:
            return unwritten.page  # of which the index has nothing yet
        page = self._index.page(project)
        if unwritten is None or (page is not None and page.checked_at >= unwritten.page.checked_at):
            return page
        return unwritten.page

    def files(self, project: NormalizedName, page: PageState) -> Sequence[MirroredFile]:
        """The files of a page that `look_up` has given, ordered by version, then by name."""
        unwritten = self._unwritten.find(project)
        if unwritten is not None and unwritten.page == page:
            return unwritten.files
        files = self._index.files(project)
        if not files and self._index.page(project) is None:
            raise _replaced()  # otherwise, this would be a page without files
        return files

    def file(self, project: NormalizedName, page: PageState, filename: str) -> MirroredFile | None:
        """One of these files."""
        unwritten = self._unwritten.find(project)
        if unwritten is not None and unwritten.page == page:
            return next((each for each in unwritten.files if each.filename == filename), None)
        file = self._index.file(project, filename)
        if file is None and self._index.page(project) is None:
            raise _replaced()
        return file

    def look_up(
        self, project: NormalizedName, *, ask: bool = True
    ) -> tuple[PageState | None, Freshness]:
        """What is known of a page, after asking the upstream if that is too old.

        While the upstream is in trouble, this is what was known before, with its age, or an error.
        """
        page = self.page(project)
        if page is None and project_name(project) is None:
            return None, FRESH  # no index can have it, so nothing is asked, and nothing remembered
        if self._offline:
            if page is None:
                self._require_unlisted(project)
            return page, FRESH
        if page is not None and self._is_fresh(page):
            return page, FRESH
        if (page is None or not page.is_there) and self._is_unlisted(project):
            return None, FRESH
        if not ask:
            raise NotAtHand
        chain = self._unbroken_chain()
        try:
            question = self._question(project, page, chain)
            self._background.result(("page", project, chain), question, wait=_BUDGET)
        except BackendError as error:
            age = 0.0 if page is None else time.time() - page.checked_at
            if page is not None and page.is_there and age < self._interval + self._stale_for:
                _log.info("%s: project %s is shown as it was: %s", self._name, project, error)
                return page, Freshness(max(0.0, age))
            raise
        page = self.page(project)
        if page is None:
            raise _replaced()
        return page, FRESH

    def begin(self, project: NormalizedName) -> Pending | None:
        """Begin to ask for a page, if that is too old; see `Repository.begin_find`."""
        page = self.page(project)
        is_known = project_name(project) is None if page is None else self._is_fresh(page)
        if self._offline or is_known:
            return None
        if (page is None or not page.is_there) and self._is_unlisted(project):
            return None
        chain = self._unbroken_chain()
        question = self._question(project, page, chain)
        return self._background.begin(("page", project, chain), question)

    def look_again(self, project: NormalizedName) -> PageState | None:
        """A page that lacks a file that somebody knows from somewhere else, which may be new.

        It is asked for again, unless that was a moment ago.
        """
        if not self._offline:
            chain = self._unbroken_chain()
            self._background.result(
                ("page", project, chain),
                partial(self._ask_page, project, chain, believed=_RECHECK_SECONDS),
                wait=_BUDGET,
            )
        return self.page(project)

    def _is_fresh(self, page: PageState) -> bool:
        return 0 <= time.time() - page.checked_at < self._believed(page)

    def _is_unlisted(self, project: NormalizedName) -> bool:
        """Whether a list that counts as pages do shows that the upstream has no such project."""
        if not self._lists_all:
            return False
        checked_at = self._index.names_state().checked_at
        is_young = checked_at is not None and 0 <= time.time() - checked_at < self._interval
        return is_young and not self._index.has_name(project)

    def _require_unlisted(self, project: NormalizedName) -> None:
        """Raise unless a project that was never asked for is known to be absent."""
        if self._index.names_state().generation is None or self._index.has_name(project):
            raise BackendUnavailable(
                f"this mirror is offline, and did not ask for project {project!r} before"
            )

    def _believed(self, page: PageState) -> float:
        return self._interval if page.is_there else min(self._interval, _ABSENT_SECONDS)

    def write(self) -> None:
        """Have everything in the local index that it takes, before it is changed elsewhere."""
        self._unwritten.write()

    def _question(
        self, project: NormalizedName, page: PageState | None, chain: Chain
    ) -> Callable[[], None]:
        """Asks the upstream for a page of which `page` is known.

        `chain`: through which the request for it came. What the local index says of it is found out
        here, because it would have to be opened in the thread that asks.
        """
        is_new = page is None and not self._index.has_files(project)
        is_unknown = (
            self._costs_requests
            and (page is None or not page.is_there)
            and not self._index.has_name(project)
        )
        return partial(self._ask_page, project, chain, is_new=is_new, is_unknown=is_unknown)

    def _ask_page(
        self,
        project: NormalizedName,
        chain: Chain,
        *,
        believed: float | None = None,
        is_new: bool = False,
        is_unknown: bool = False,
    ) -> None:
        """Ask the upstream for a page, unless what is known is younger than `believed` seconds.

        `is_new`: the local index has nothing of it. `is_unknown`: neither the local index nor the
        list of projects has it, so the number of such questions is limited.
        """
        is_new = is_new and self._unwritten.find(project) is None
        page = None if is_new else self.page(project)
        if page is not None:
            seconds = self._believed(page) if believed is None else believed
            if 0 <= time.time() - page.checked_at < seconds:
                return  # another process was quicker
            self._unwritten.write()  # what is new is compared with what is on the disk
        asked_at = time.time()
        # A page that is not on the disk is asked for as a whole, and perhaps kept this time.
        is_kept = page is not None and page.is_there and self._unwritten.find(project) is None
        validator = page.validator if page is not None and is_kept else ""
        question = ("page", project)
        is_unknown = is_unknown and self._trouble.find(question) is None  # else it is not asked
        if is_unknown:
            self._require_turn(project)
        try:
            found = self._ask(question, chain, partial(self._page_of_upstream, project, validator))
            is_there = True
        except ProjectNotFound:
            found, is_there = UpstreamPage(files=()), False
        except LoopDetected:
            raise  # of whoever asked, see `_ask`
        except BackendError as error:
            self.error = str(error)
            raise
        if is_unknown and is_there:
            self._unknown.give_back()
        if is_new and found is not None:
            self._unwritten.add(project, found, is_there=is_there, asked_at=asked_at)
        else:
            self._take_page(project, found, asked_at, is_there=is_there)
            if found is None and self.page(project) is None:
                self._ask_page(project, chain)  # it was removed from the index meanwhile
        self.error = None

    def _require_turn(self, project: NormalizedName) -> None:
        """Raise if too many questions were about names that neither we nor the list know.

        Otherwise whoever makes up names could have this server flood the upstream.
        """
        seconds = self._unknown.take()
        if not seconds:
            return
        with suppress(BackendError):
            self.require_names(ask=False)  # projects on the list are then asked for again at once
        raise BackendUnavailable(
            f"too many projects were asked for that the upstream of {self._name!r} is not known to "
            f"have, so it is asked later whether it has {project!r}; ask again",
            retry_after=math.ceil(seconds),
        )

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
        is_there: bool,
    ) -> None:
        """Remember what the upstream said (None: as before), in memory if the disk is full."""
        try:
            if found is None:
                self._index.confirm_page(project, asked_at=asked_at)
            else:
                self._index.take_page(project, found if is_there else None, asked_at=asked_at)
        except StorageFull as error:
            _log.warning("the page of project %s is only kept in memory: %s", project, error)
            self._remember(project, found, asked_at, is_there=is_there)
        else:
            self._unwritten.drop(project)
            self._make_room()

    def _make_room(self) -> None:
        """Begin to remove old pages if the index is too large. No request waits for that."""
        with suppress(BackendError):  # there is another chance after the next page
            if self._index.is_larger_than(self._index_bytes):
                least = self._index_bytes - self._index_bytes // 20
                self._background.begin("room", partial(self._index.make_room, least))

    def _remember(
        self,
        project: NormalizedName,
        found: UpstreamPage | None,
        asked_at: float,
        *,
        is_there: bool,
    ) -> None:
        files: Sequence[MirroredFile]
        page = self.page(project)
        if found is not None:
            page = PageState(
                # The index does not have this number, which says when it was made plus a bit.
                serial=time.time_ns() // 1_000_000,
                is_there=is_there,
                checked_at=asked_at,
                validator=found.validator,
                status=found.status,
            )
            files = self._index.files_of(project, found)
        elif page is not None:
            files = self.files(project, page)
            page = replace(page, checked_at=asked_at)
        else:
            raise _replaced()
        self._unwritten.keep(project, UnwrittenPage(page, files))

    # -- the list of projects ----------------------------------------------------------------------

    def require_names(self, *, ask: bool = True) -> None:
        """Make sure that the list of projects was read, so that `index` can be asked about names.

        Raises the trouble of the upstream, and `ListNotRead` if reading it takes long. Without
        `ask` nothing is waited for: raises `ListNotRead`, and the list is read in the background.
        """
        if ask:
            self.names()
            return
        state = self._index.names_state()
        age = None if state.checked_at is None else time.time() - state.checked_at
        is_old = age is None or not 0 <= age < max(self._interval, _NAMES_SECONDS)
        if is_old and not self._offline:
            chain = self._unbroken_chain()
            self._background.begin(("names", chain), partial(self._ask_names, chain))
        if age is None:
            raise ListNotRead("the list of projects was not read yet")

    def names(self) -> tuple[NamesState, Freshness]:
        """What is known of the list, after asking the upstream if that is too old."""
        state = self._index.names_state()
        age = None if state.checked_at is None else time.time() - state.checked_at
        seconds = max(self._interval, _NAMES_SECONDS)
        if age is not None and (0 <= age < seconds or self._offline):
            return state, FRESH
        if self._offline:
            raise BackendUnavailable("this mirror is offline, and never read the list of projects")
        chain = self._unbroken_chain()
        try:
            self._background.result(
                ("names", chain), partial(self._ask_names, chain), wait=_NAMES_BUDGET
            )
        except BackendError as error:
            if age is not None and age < seconds + self._stale_for:
                return state, Freshness(max(0.0, age))
            if isinstance(error, StillRunning):
                raise ListNotRead(
                    "the list of projects is being read from the upstream; ask again",
                    retry_after=10,
                ) from None
            raise
        return self._index.names_state(), FRESH

    def _ask_names(self, chain: Chain) -> None:
        lock = FileLock(self._lock_folder / "names.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ListNotRead(
                "another process is reading the list of projects; ask again", retry_after=10
            ) from None
        try:
            known, asked_at = self._index.names_state(), time.time()
            seconds = max(self._interval, _NAMES_SECONDS)
            if known.checked_at is not None and 0 <= asked_at - known.checked_at < seconds:
                return  # another process was quicker
            validator = known.validator
            listed = self._ask("names", chain, lambda: self._upstream.project_names(validator))
            if listed is None:
                self._index.confirm_names(asked_at=asked_at)
            else:
                self._index.take_names(
                    self._until_closed(listed.names), listed.validator, asked_at=asked_at
                )
        except LoopDetected:
            raise
        except BackendError as error:
            self.error = str(error)
            self._trouble.note("names", error)
            raise
        finally:
            lock.release()
        self.error = None

    # -- loops -------------------------------------------------------------------------------------

    @cached_property
    def _pseudonym(self) -> str:
        """The name of this mirror in chains, which all processes of the ROOT share."""
        path = self._lock_folder / "pseudonym"
        try:
            write_private(path, new_pseudonym(), replace=False)
            kept = path.read_text(encoding="ascii", errors="replace")
        except OSError as error:
            _log.warning("%s: the name of this mirror cannot be kept: %s", self._name, error)
            kept = ""
        return kept if is_pseudonym(kept) else new_pseudonym()

    def _unbroken_chain(self) -> Chain:
        """The chain of the present request, for which the upstream is to be asked.

        Raises `LoopDetected` if this mirror is in it. Requests of different chains do not wait for
        the same question, because then two mirrors of each other would wait for each other.
        """
        chain = present_chain()
        if self._pseudonym in chain or len(chain) > LONGEST:
            raise LoopDetected(
                f"mirror {self._name!r} is asked by itself, directly or through other servers: its "
                "upstream has it as a member or as its own upstream"
            )
        return chain

    def _ask(self, question: Hashable, chain: Chain, call: Callable[[], T]) -> T:
        """Ask the upstream for a request that came through this chain, or raise recent trouble.

        Raises `LoopDetected` if there is a chain, because whoever asked is a part of the loop. This
        is not remembered: anybody can send a chain of made-up mirrors, which is too long for the
        upstream, and then nobody else would get the page.
        """
        error = self._trouble.find(question)
        if error is not None:
            raise error
        try:
            with chained((*chain, self._pseudonym)):
                return call()
        except LoopDetected as met:
            if chain:
                raise
            error = BackendError(str(met))
            self._trouble.note(question, error)
            raise error from met
        except BackendError as met:
            self._trouble.note(question, met)
            raise

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


def _replaced() -> BackendUnavailable:
    return BackendUnavailable("the local index was replaced; ask again", retry_after=1)
