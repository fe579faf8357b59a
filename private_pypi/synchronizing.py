"""From the storage to the local index, again and again; the SQL of it is in `reconciling`.

A storage of this machine is listed at every synchronisation; the index document says only what is
yanked and burnt, and saves opening files. Elsewhere the document is the listing, and what the
storage calls recent is added to it.

Trouble with the storage never removes anything: it is remembered, and tried again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from filelock import FileLock, Timeout

from private_pypi import index_child
from private_pypi.backend import NO_INDEX, AnyBackend, Folders, SupportsRecent
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileNotFound,
    InvalidUpload,
    PrivatePypiError,
)
from private_pypi.indexing import UNKNOWN_SIZE, examine_all, temporary_folder
from private_pypi.local_index import LocalIndex
from private_pypi.model import DistributionFile, StoredFile
from private_pypi.reconciling import Reconciliation
from private_pypi.records import file_from_record

_log = logging.getLogger(__name__)

_MARGIN = timedelta(minutes=5)
"""How late a file may appear in a listing, and how wrong the clock of another machine may be."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CHUNK = 500  # stored files taken at a time
_COMMIT_EVERY = 2.0  # seconds of examining after which what was found is shown and kept
_LOG_EVERY = 10.0  # seconds
_LOCK_SECONDS = 600.0
_SHARE = 20  # a synchronisation takes at most one part in so many of the time
_LOOK_EVERY = 2.0  # seconds: whether we are stopped, or the local index was lost
_RETRY_SECONDS = 5.0  # after a failure, while there is nothing to serve


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What one synchronisation changed in the local index."""

    added: int
    changed: int
    removed: int
    skipped: tuple[str, ...]  # a sentence for each file or entry newly found to be broken
    seconds: float


@dataclass(slots=True)
class SyncCounts:
    """The synchronisations of this process; those of others of the same ROOT are not among them."""

    done: int = 0
    failed: int = 0
    seconds: float = 0.0  # that all of them took


class Synchronizer:
    """Keeps the local index of one repository like its storage, from one thread per process.

    The processes of a ROOT take turns: who finds that another one synchronised within the interval
    does nothing.
    """

    def __init__(
        self,
        backend: AnyBackend,
        index: LocalIndex,
        folders: Folders,
        *,
        backend_type: str,
        name: str,
        interval: timedelta,
    ) -> None:
        """Does nothing yet. `backend` bears the admin secret, where the type needs one."""
        self._backend = backend
        self._index = index
        self._folders = folders
        self._title = f"{name} ({backend_type})"
        self._interval = interval.total_seconds()
        self._thread: threading.Thread | None = None
        self._thread_pid = 0
        self._stop = threading.Event()
        self._failed = False  # whether the last turn of the thread did
        self.counts = SyncCounts()  # written while the lock is held

    # -- in the background -------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to synchronise in a thread of this process; in a forked process call it again."""
        if self._thread is not None and self._thread_pid == os.getpid():
            return
        self._stop = threading.Event()
        self._failed = False
        self._thread_pid = os.getpid()
        self._thread = threading.Thread(
            target=self._run, name=f"synchronize {self._title}", daemon=True
        )
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """End the thread; waits at most `timeout` seconds for what it is at."""
        self._stop.set()
        if self._thread is not None and self._thread_pid == os.getpid():
            self._thread.join(timeout)
        self._thread = None

    def wait_until_ready(self, timeout: float) -> bool:
        """Whether the local index is ready, waiting for it at most `timeout` seconds.

        Returns at once when the thread fails meanwhile.
        """
        deadline = time.monotonic() + timeout
        while not self._has_something():
            if time.monotonic() >= deadline or self._failed:
                return False
            time.sleep(0.02)
        return True

    def _run(self) -> None:
        begun_at = time.time()
        next_at = 0.0
        checked = False
        while not self._stop.is_set():
            try:
                if not checked and not self._index.check():
                    _log.warning("%s: the local index was damaged: built anew", self._title)
                checked = True
                if time.time() >= next_at or not (self._failed or self._index.ready()):
                    next_at = self._turn(begun_at)
                    self._failed = False
            except PrivatePypiError as error:
                next_at = time.time() + self._pause(error)
                self._failed = True
            except Exception:
                # A mistake of ours or of a backend must not end the only thread that could mend
                # things; `_pass` has told those who ask.
                _log.exception("%s: synchronising failed", self._title)
                next_at = time.time() + self._interval
                self._failed = True
            self._stop.wait(min(_LOOK_EVERY, max(0.01, next_at - time.time())))

    def _turn(self, begun_at: float) -> float:
        """Synchronise, unless another process does or did; the time of the next turn."""
        period = self._interval * random.uniform(0.8, 1.0)  # noqa: S311 - spreads servers
        state = self._index.sync_state()
        if (
            state.error is None
            and state.synced_at is not None
            and state.synced_at > max(begun_at, time.time() - period / 2)
        ):
            return state.synced_at + period
        try:
            with self._lock(timeout=0):
                seconds = self._pass().seconds
        except Timeout:
            return time.time() + min(period, _LOOK_EVERY)
        return time.time() + max(period, _SHARE * seconds)

    def _pause(self, error: PrivatePypiError) -> float:
        """Seconds until the next try after a failure."""
        pause = self._interval if self._has_something() else min(self._interval, _RETRY_SECONDS)
        return max(pause, error.retry_after) if isinstance(error, BackendUnavailable) else pause

    def _has_something(self) -> bool:
        try:
            return self._index.ready()
        except PrivatePypiError:
            return False

    # -- now ---------------------------------------------------------------------------------------

    def synchronize(self) -> SyncReport:
        """Bring the local index up to date, in this thread; waits for who is at it already.

        Raises what the storage raises, and `InvalidIndex` for a document that cannot be read;
        what was served before is served on.
        """
        try:
            with self._lock(timeout=_LOCK_SECONDS):
                return self._pass()
        except Timeout:
            raise BackendUnavailable(
                f"{self._title}: another process has been synchronising for long", retry_after=60
            ) from None

    def _lock(self, *, timeout: float) -> FileLock:
        # A new object for every use: one that is shared does not exclude threads.
        return FileLock(self._folders.lock / "synchronize.lock", timeout=timeout)

    def _pass(self) -> SyncReport:
        begun = time.monotonic()
        try:
            with temporary_folder(self._folders.tmp) as folder:
                report = self._reconcile(folder, begun)
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
        return report

    def _note(self, error: Exception) -> None:
        known = isinstance(error, PrivatePypiError)
        message = str(error) if known else f"internal error ({type(error).__name__})"
        _log.warning("%s: could not be synchronised: %s", self._title, message)
        with contextlib.suppress(PrivatePypiError):  # then the local index is the trouble
            self._index.note_error(message)

    # -- one synchronisation -----------------------------------------------------------------------

    def _reconcile(self, folder: Path, begun: float) -> SyncReport:
        scratch = folder / "scratch.sqlite"
        # What is younger than this moment wins over all that is read from now on.
        with Reconciliation(self._index, scratch) as changes:
            document = folder / "index.toml"
            # The revision is noted by a whole synchronisation only: one that was broken off
            # is followed by one that reads the document again.
            revision = self._backend.read_index(document, unless=changes.revision)
            is_new = revision not in (NO_INDEX, changes.revision)
            if is_new:
                index_child.stage(document, scratch, location_key=self._backend.location_key)
                document.unlink()
                changes.skipped.extend(changes.document_problems())
                changes.burn()
            if self._backend.capabilities.is_local:
                self._follow_listing(changes, folder)
            else:
                if revision == NO_INDEX and changes.revision:
                    raise BackendError(
                        "index.toml has vanished from the storage: run `update_index` to write it"
                    )
                self._follow_document(changes, folder, is_new=is_new)
            changes.finish(revision, now=time.time())
            return SyncReport(
                added=changes.added,
                changed=changes.changed,
                removed=changes.removed,
                skipped=tuple(changes.skipped),
                seconds=time.monotonic() - begun,
            )

    def _follow_listing(self, changes: Reconciliation, folder: Path) -> None:
        self._take(changes, self._backend.list_files(self._index.knows))
        changes.drop_unlisted()
        changes.take_documented_facts()
        changes.take_yanks()
        self._examine(changes, folder)
        changes.take_yanks()  # of the files that were examined

    def _follow_document(self, changes: Reconciliation, folder: Path, *, is_new: bool) -> None:
        if is_new:
            changes.take_document(margin=_MARGIN.total_seconds())
        if isinstance(self._backend, SupportsRecent):
            mtime = changes.document_mtime() or 0
            since = max(_EPOCH, datetime.fromtimestamp(mtime, UTC) - _MARGIN)
            self._take(changes, self._backend.recent_files(since))
        elif not changes.was_ready and not changes.document_mtime():
            # No document of a listing yet, and nobody to ask what is new: list this once.
            self._take(changes, self._backend.list_files(self._index.knows))
        self._examine(changes, folder)

    def _take(self, changes: Reconciliation, stored_files: Iterable[StoredFile]) -> None:
        for chunk in _chunks(stored_files):
            self._check_stop()
            facts: list[tuple[DistributionFile, str]] = []
            without: list[StoredFile] = []
            for stored in changes.listed(chunk):
                file = file_from_record(stored)
                if file is None:
                    without.append(stored)
                else:
                    facts.append((file, stored.stamp))
            if facts:
                changes.add(facts)
            if without:
                changes.postpone(without)

    def _examine(self, changes: Reconciliation, folder: Path) -> None:
        """Open what has to be opened; shown and kept as it is found, should we be killed."""
        total = changes.pending()
        found: list[tuple[DistributionFile, str]] = []
        documented: list[tuple[DistributionFile, str]] = []
        committed_at = logged_at = time.monotonic()
        for done, (stored, outcome) in enumerate(
            examine_all(self._backend, changes.each_pending(), folder), 1
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
                    changes.skipped.append(str(outcome))  # maybe better next time
            now = time.monotonic()
            if now - committed_at > _COMMIT_EVERY:
                changes.add(found)
                changes.add(documented, documented=True)
                found, documented = [], []
                committed_at = now
            if now - logged_at > _LOG_EVERY:
                _log.info("%s: %d of %d files examined", self._title, done, total)
                logged_at = now
        changes.add(found)
        changes.add(documented, documented=True)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise BackendUnavailable("the server is stopping")


def _chunks(stored_files: Iterable[StoredFile]) -> Iterator[list[StoredFile]]:
    iterator = iter(stored_files)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk
