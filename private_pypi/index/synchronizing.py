"""From the storage to the local index, again and again; the SQL for it is in `reconciling`.

If listing the storage is cheap, every synchronisation lists it. Then the index document only says
which files are yanked and which names are burnt, and it has facts of files, which need not be
opened. Otherwise the document is the listing, and recent files of the storage are added to it.

Trouble with the storage removes nothing: it is remembered, and the storage is asked again later.

About times: a synchronisation lists names first and opens files afterwards. A name that was not
listed was absent when the listing began. `Pace` says for how long this is believed, and when the
next listing is due. A synchronisation that has many files to open ends before all of them are open,
so that names are listed again in time, and the next one goes on with the files.

A storage with a journal is also listed when somebody asks for a file that is not known
here (`looking`), because another server may have published it a moment ago.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path

from filelock import FileLock, Timeout

from private_pypi.backend import (
    NO_INDEX,
    AnyStorage,
    SupportsIndex,
    SupportsList,
    SupportsListingMark,
    SupportsProjects,
    SupportsRecent,
    SupportsRecords,
    capability,
)
from private_pypi.distributions.records import file_from_record
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileNotFound,
    InvalidUpload,
    PrivatePypiError,
)
from private_pypi.index import child as index_child
from private_pypi.index.examining import (
    UNKNOWN_SIZE,
    burnt_again,
    find_named,
    sweep,
    temporary_folder,
    with_record,
)
from private_pypi.index.local import LocalIndex
from private_pypi.index.looking import LOOK_EVERY, Look, Looks
from private_pypi.index.readers import examine_all, take_file
from private_pypi.index.reconciling import Reconciliation
from private_pypi.model import DistributionFile, StoredFile, StoredName, Unlisted
from private_pypi.system.background import DaemonThreads

_log = logging.getLogger(__name__)

_MARGIN = timedelta(minutes=5)
"""How late a file may appear in a listing, and how far clocks of two machines may differ."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CHUNK = 500  # stored files taken at a time
_READERS = 8  # records that are read at a time
_COMMIT_EVERY = 2.0  # seconds after which examined files are shown and kept
_LOG_EVERY = 10.0  # seconds
_LOCK_SECONDS = 600.0
_GRACE = 10.0  # seconds that a listing may come late
_REST = 0.25  # of the time that a listing took: the shortest pause before the next one
_LIST_EVERY = 900.0  # seconds after which a storage is listed although it has the same mark
_CHECK_EVERY = 2.0  # seconds after which the thread checks whether the local index was lost
_RETRY_SECONDS = 5.0  # after a first failure; twice as long after each further one
_TAKE_TURNS = 0.05  # seconds after which a look that waits for another process is tried again


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What one synchronisation changed in the local index."""

    added: int
    changed: int
    removed: int
    skipped: tuple[str, ...]  # a sentence for each file or entry that was found to be broken
    unlisted: tuple[Unlisted, ...]  # what the listing left out
    seconds: float


@dataclass(slots=True)
class SyncCounts:
    """The synchronisations of this process, without those of other processes of this ROOT."""

    done: int = 0
    failed: int = 0
    seconds: float = 0.0  # of all of them together


@dataclass(frozen=True, slots=True)
class Pace:
    """When a listing of the storage is due, and for how long it is believed."""

    interval: float  # seconds

    @property
    def believed_for(self) -> float:
        """For how many seconds a name that a listing lacked may be called absent."""
        return self.interval + _GRACE

    def is_believed(self, age: float | None) -> bool:
        """Whether a name that a listing lacked may be called absent.

        `age`: seconds since the listing began (see `LocalIndex.age`); None: unknown.
        """
        return age is not None and age <= self.believed_for

    def due_after(self, listing_seconds: float) -> float:
        """Seconds from the beginning of a listing that took `listing_seconds` to the next listing.

        The next listing ends within the interval, if it takes as long as this one. There is always
        a pause, so that a storage that takes longer than the interval is not listed all the time.
        A random part keeps servers from listing the storage at the same moment.
        """
        period = self.interval * random.uniform(0.8, 1.0)  # noqa: S311
        return max(period - listing_seconds, (1 + _REST) * listing_seconds)


class Synchronizer:
    """Keeps the local index of one repository like its storage, in one thread per process.

    The processes of a ROOT take turns: a process does nothing if another one has synchronised
    within the interval.
    """

    def __init__(
        self,
        storage: AnyStorage,
        index: LocalIndex,
        *,
        backend_type: str,
        name: str,
        interval: timedelta,
    ) -> None:
        """Does nothing yet. `storage` has the admin secret, if the type of storage needs one."""
        self._storage = storage
        self._index = index
        self._folders = storage.backend.folders
        self._title = f"{name} ({backend_type})"
        self.pace = Pace(interval.total_seconds())
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._woken = threading.Event()  # ends a pause of the thread
        self._looks = Looks(self._woken.set)
        self._failures = 0  # of the thread, one after another until now
        self._planned_age = math.inf  # of the last listing when the next turn is due, in seconds
        self._told: set[str] = set()  # problems with folders that were logged the last time
        self._mark: str | None = None  # of the storage when it was last listed completely
        self._marked_at = -math.inf  # time.monotonic() of that
        self.counts = SyncCounts()  # changed only while the lock is held

    # -- in the background -------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread that synchronises, unless it runs."""
        if self._thread is not None:
            return
        self._stop = threading.Event()
        self._failures = 0
        self._looks.open()
        self._thread = threading.Thread(
            target=self._run, name=f"synchronize {self._title}", daemon=True
        )
        self._thread.start()

    def begin_stop(self) -> None:
        """Tell the thread to end; does not wait for it."""
        self._stop.set()
        self._woken.set()
        self._looks.close()

    def stop(self, timeout: float = 10.0) -> None:
        """End the thread, waiting at most `timeout` seconds for it."""
        self.begin_stop()
        if self._thread is not None:
            self._thread.join(timeout)
        self._thread = None

    def wait_until_ready(self, timeout: float) -> bool:
        """Wait until the local index is ready, at most `timeout` seconds; whether it is.

        Returns as soon as a synchronisation fails.
        """
        deadline = time.monotonic() + timeout
        while not self._is_ready():
            if time.monotonic() >= deadline or self._failures:
                return False
            time.sleep(0.02)
        return True

    def look(self, since: float) -> Look | None:
        """Have the storage listed for somebody who misses a file; it begins when that one waits.

        None: a listing began later than `since` (`time.monotonic`), so what it lacks is absent, or
        no thread synchronises here.
        """
        if self._thread is None or self._listing_began() >= since:
            return None
        if self._stop.is_set():
            raise BackendUnavailable("the server is stopping")
        return Look(self._looks, since)

    def _listing_began(self) -> float:
        """When the last complete listing by any process began (`time.monotonic`), or earlier."""
        now = time.monotonic()
        age = self._index.age()
        return -math.inf if age is None else now - age

    def _before_look(self) -> float:
        """Seconds until somebody who waits for a look gets it, if this thread does not fail."""
        if not self._looks.are_wanted:
            return math.inf
        return self._listing_began() + LOOK_EVERY - time.monotonic()

    def _run(self) -> None:
        started_at: float | None = time.time()
        next_at = 0.0  # time.monotonic()
        checked = False
        while not self._stop.is_set():
            try:
                if not checked and not self._index.check():
                    _log.warning("%s: the local index was damaged: built anew", self._title)
                checked = True
                if time.monotonic() >= next_at or (not self._failures and self._is_overdue()):
                    next_at = time.monotonic() + self._turn(started_at)
                    started_at = None
                    self._failures = 0
                self._looks.end(self._listing_began())
                pause = next_at - time.monotonic()
                if not self._failures:
                    pause = min(pause, max(_TAKE_TURNS, self._before_look()))
            except PrivatePypiError as error:
                self._failures += 1
                pause = self._pause(error)
                next_at = time.monotonic() + pause
                self._looks.end()
            except Exception:
                # A bug of the core or of a backend must not end the only thread that synchronises.
                # `_pass` has noted the error.
                _log.exception("%s: synchronising failed", self._title)
                self._failures += 1
                pause = self.pace.interval
                next_at = time.monotonic() + pause
                self._looks.end()
            self._woken.wait(min(_CHECK_EVERY, max(0.01, pause)))
            self._woken.clear()

    def _is_overdue(self) -> bool:
        """Whether to synchronise now, although the next turn was planned for later.

        The reason may be that somebody waits for a look, that the local index was lost, that a
        clock was set, or that the machine was suspended.
        """
        if not self._index.ready() or self._before_look() <= 0:
            return True
        age = self._index.age()
        return age is None or age > self._planned_age + _GRACE

    def _turn(self, started_at: float | None) -> float:
        """Synchronise, unless another process does or did; seconds until the next turn.

        `started_at`: unix seconds if this process has just started, else None. At first only a
        synchronisation of another process that ended after this time counts.
        """
        age, state = self._index.age(), self._index.sync_state()
        due_after = self.pace.due_after(state.listing_seconds or 0.0)
        if (
            state.error is None
            and age is not None
            and age < due_after
            and self._before_look() > 0
            and (started_at is None or (state.synced_at or 0.0) > started_at)
        ):
            self._planned_age = due_after
            return due_after - age
        self._planned_age = math.inf
        try:
            with self._lock(timeout=0):
                self._pass(hurry=True)
        except Timeout:
            return min(self.pace.interval, _CHECK_EVERY)
        age = self._index.age()
        seconds = self._index.sync_state().listing_seconds or 0.0
        if seconds > self.pace.interval:
            _log.warning(
                "%s: listing the storage took %.0f s, which is longer than sync_index_interval "
                "(%g s): until the next listing is done, what is not known is answered with 503; "
                "a longer interval helps",
                self._title,
                seconds,
                self.pace.interval,
            )
        self._planned_age = self.pace.due_after(seconds)
        return self._planned_age - (age or 0.0)

    def _pause(self, error: PrivatePypiError) -> float:
        """Seconds until the next try after a failure."""
        pause = _RETRY_SECONDS
        if self._is_ready():  # then no caller is waiting for it
            pause *= 2 ** min(self._failures - 1, 10)
        pause = min(self.pace.interval, pause)
        return max(pause, error.retry_after) if isinstance(error, BackendUnavailable) else pause

    def _is_ready(self) -> bool:
        try:
            return self._index.ready()
        except PrivatePypiError:
            return False

    # -- now ---------------------------------------------------------------------------------------

    def synchronize(self) -> SyncReport:
        """Bring the local index up to date, in this thread, after any synchronisation that runs.

        Raises what the storage raises, and `InvalidIndex` for a document that cannot be read. Then
        the local index stays as it is.
        """
        try:
            with self._lock(timeout=_LOCK_SECONDS):
                return self._pass()
        except Timeout:
            raise BackendUnavailable(
                f"{self._title}: another process has been synchronising for long", retry_after=60
            ) from None

    def _lock(self, *, timeout: float) -> FileLock:
        # A new object for every use, because a shared one does not exclude other threads.
        return FileLock(self._folders.lock / "synchronize.lock", timeout=timeout)

    def _pass(self, *, hurry: bool = False) -> SyncReport:
        """Synchronise. `hurry`: do not list a storage that says that nothing is new."""
        begun = time.monotonic()
        try:
            with temporary_folder(self._folders.tmp) as folder:
                report = self._reconcile(folder, begun, hurry=hurry)
        except Exception as error:
            if not self._stop.is_set():
                self.counts.failed += 1
                self.counts.seconds += time.monotonic() - begun
                self._note(error)
            raise
        self.counts.done += 1
        self.counts.seconds += report.seconds
        for problem in report.skipped:
            _log.warning("%s: %s", self._title, problem)
        problems = {folder.problem for folder in report.unlisted}
        for problem in sorted(problems - self._told):
            _log.warning("%s: %s", self._title, problem)
        self._told = problems
        return report

    def _note(self, error: Exception) -> None:
        known = isinstance(error, PrivatePypiError)
        message = str(error) if known else f"internal error ({type(error).__name__})"
        _log.warning("%s: could not be synchronised: %s", self._title, message)
        with contextlib.suppress(PrivatePypiError):  # then the trouble is with the local index
            self._index.note_error(message)

    # -- one synchronisation -----------------------------------------------------------------------

    def _reconcile(self, folder: Path, begun: float, *, hurry: bool) -> SyncReport:
        scratch = folder / "scratch.sqlite"
        listed_at = time.time()
        # Changes that others make from now on win over what is read from now on.
        with Reconciliation(self._index, scratch) as changes:
            document = folder / "index.toml"
            # Only a complete synchronisation notes the revision. After any other one, the next
            # one reads the document again.
            stored_index = capability(self._storage, SupportsIndex)
            revision = (
                NO_INDEX
                if stored_index is None
                else stored_index.read_index(document, unless=changes.revision)
            )
            is_new = revision not in (NO_INDEX, changes.revision)
            marking = capability(self._storage, SupportsListingMark)
            mark = None if marking is None else marking.listing_mark()
            if self._is_unchanged(mark, changes, is_new=is_new, begun=begun, hurry=hurry):
                changes.note_unchanged(at=listed_at)
                return _report(changes, begun)
            self._mark = None
            if is_new:
                index_child.stage(
                    document, scratch, location_key=self._storage.backend.location_key
                )
                document.unlink()
                changes.skipped.extend(changes.document_problems())
                changes.burn()
            lists_cheaply = self._storage.backend.traits.lists_cheaply
            if lists_cheaply:
                self._follow_listing(changes)
            else:
                if revision == NO_INDEX and changes.revision:
                    raise BackendError(
                        "index.toml has vanished from the storage: run `update_index` to write it"
                    )
                self._follow_document(changes, is_new=is_new)
            unread = sorted(f.problem for f in changes.unlisted if f.may_hold_files)
            changes.note_names(
                at=listed_at,
                seconds=time.monotonic() - begun,
                by_document=not lists_cheaply,
                is_whole=lists_cheaply or (is_new and bool(changes.document_mtime())),
            )
            is_done = self._examine(changes, folder)
            if lists_cheaply:
                changes.take_yanks()  # of the files that were examined
            # The listing counts, but it is not known whether a file that it lacks is absent.
            changes.finish(
                revision if is_done else None,
                now=time.time(),
                error="; ".join(unread) or None,
            )
            if is_done and not unread and changes.is_settled():
                self._mark, self._marked_at = mark, begun
            return _report(changes, begun)

    def _is_unchanged(
        self, mark: str | None, changes: Reconciliation, *, is_new: bool, begun: float, hurry: bool
    ) -> bool:
        """Whether the storage has what it had when it was last listed, so that it need not be."""
        return (
            hurry
            and not is_new
            and changes.was_ready
            and mark is not None
            and mark == self._mark
            and begun - self._marked_at < _LIST_EVERY
        )

    def _follow_listing(self, changes: Reconciliation) -> None:
        self._take(changes, self._listing())
        projects = capability(self._storage, SupportsProjects)
        if projects is not None:
            changes.name_projects(projects.projects())
        changes.drop_unlisted()
        changes.take_documented_facts()
        if capability(self._storage, SupportsIndex) is None:
            changes.take_listed_yanks()
        else:
            changes.take_yanks()

    def _follow_document(self, changes: Reconciliation, *, is_new: bool) -> None:
        if is_new:
            changes.take_document(margin=_MARGIN.total_seconds())
        recent = capability(self._storage, SupportsRecent)
        if recent is not None:
            mtime = changes.document_mtime() or 0
            since = max(_EPOCH, datetime.fromtimestamp(mtime, UTC) - _MARGIN)
            self._take(changes, recent.recent_files(since))
        elif not changes.was_ready and not changes.document_mtime():
            # There is no document of a listing yet, and the storage does not tell what is new. So
            # it is listed this once.
            self._take(changes, self._listing())

    def _listing(self) -> Iterator[StoredFile | StoredName | Unlisted]:
        listing = capability(self._storage, SupportsList)
        assert listing is not None
        return listing.list_files()

    def _take(
        self, changes: Reconciliation, given: Iterable[StoredFile | StoredName | Unlisted]
    ) -> None:
        for chunk in _chunks(self._completed(changes, changes.without_unlisted(given))):
            self._check_stop()
            facts: list[tuple[DistributionFile, str]] = []
            without: list[StoredFile] = []
            for stored in _with_records(self._storage, changes.listed(chunk)):
                file = file_from_record(stored)
                problem = burnt_again(stored, file, changes.burnt_keys)
                if problem is not None and changes.is_new(stored.filename):
                    changes.skip(stored, problem)
                elif file is None:
                    without.append(stored)
                else:
                    facts.append((file, stored.stamp))
            changes.add(facts)
            changes.postpone(without)
        sweep(self._storage)

    def _completed(
        self, changes: Reconciliation, given: Iterable[StoredFile | StoredName]
    ) -> Iterator[StoredFile]:
        """The files of a listing. Unknown files that have only a name are asked for."""
        for each in given:
            if isinstance(each, StoredFile):
                yield each
            elif not changes.is_known_by_name(each):
                found = find_named(self._storage, each)
                if found is not None:
                    yield found

    def _examine(self, changes: Reconciliation, folder: Path) -> bool:
        """Open the files that have to be opened; whether all of them were.

        Files are shown every few seconds, which also keeps them if the process is killed. Once
        there is something to serve, this takes about an interval at most, because names have to be
        listed again. The next synchronisation goes on with the files that are left.
        """
        begun = time.monotonic()
        is_done = True
        total = changes.pending()
        found: list[tuple[DistributionFile, str]] = []
        documented: list[tuple[DistributionFile, str]] = []

        def commit() -> None:
            changes.add(found)
            changes.add(documented, documented=True)
            found.clear()
            documented.clear()

        committed_at = logged_at = time.monotonic()
        for done, (stored, outcome) in enumerate(
            examine_all(self._storage, changes.each_pending(), folder, take_file), 1
        ):
            self._check_stop()
            match outcome:
                case DistributionFile():
                    of_old_entry = stored.size == UNKNOWN_SIZE
                    (documented if of_old_entry else found).append((outcome, stored.stamp))
                case FileNotFound():
                    pass  # removed since it was listed
                case InvalidUpload():
                    changes.skip(stored, str(outcome))
                case _:
                    changes.pass_over(stored, str(outcome))
            now = time.monotonic()
            if now - committed_at > _COMMIT_EVERY:
                commit()
                committed_at = now
            if now - logged_at > _LOG_EVERY:
                _log.info("%s: %d of %d files examined", self._title, done, total)
                logged_at = now
            if changes.was_ready and now - begun > self.pace.interval and done < total:
                is_done = False
                break
        commit()
        return is_done

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise BackendUnavailable("the server is stopping")


def _with_records(storage: AnyStorage, listed: Sequence[StoredFile]) -> Iterator[StoredFile]:
    """The same files with their records, of which several are asked for at the same time.

    Each may cost a request. One after the other, a burst of uploads through another server would
    not be shown within the interval.
    """
    is_slow = not storage.backend.traits.answers_at_once
    if len(listed) < 2 or not is_slow or capability(storage, SupportsRecords) is None:
        yield from (with_record(storage, each) for each in listed)
        return
    with DaemonThreads(_READERS, "read records") as pool:
        try:
            yield from pool.map(partial(with_record, storage), listed)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _report(changes: Reconciliation, begun: float) -> SyncReport:
    return SyncReport(
        added=changes.added,
        changed=changes.changed,
        removed=changes.removed,
        skipped=tuple(changes.skipped),
        unlisted=tuple(changes.unlisted),
        seconds=time.monotonic() - begun,
    )


def _chunks(stored_files: Iterable[StoredFile]) -> Iterator[list[StoredFile]]:
    iterator = iter(stored_files)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
