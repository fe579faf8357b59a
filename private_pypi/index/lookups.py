"""Looks up projects: from a storage that answers for one project at a time to the local index.

Finding out all that the storage has of one project is called a lookup. It is complete or it counts
for nothing: pages are made of the last complete lookup, never of a part of one. A lookup uses the
secret of the caller who asked first, and its result is shown to every caller whom the storage lets
read the project (`repositories` checks that).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from packaging.utils import NormalizedName

from private_pypi.backend import (
    AnyStorage,
    SupportsLookup,
    SupportsParts,
    SupportsYank,
    capability,
)
from private_pypi.distributions.core_metadata import Examined, examine, examine_parts
from private_pypi.distributions.filenames import (
    file_key,
    is_filename,
    named_projects,
    parse_filename,
)
from private_pypi.distributions.records import file_from_record
from private_pypi.errors import (
    AccessError,
    BackendError,
    BackendUnavailable,
    FileNotFound,
    InvalidFilename,
    InvalidUpload,
    NotFound,
    PrivatePypiError,
    Unsupported,
)
from private_pypi.index.examining import (
    burnt_again,
    opened_file,
    remote_file,
    temporary_folder,
    with_record,
)
from private_pypi.index.local import LocalIndex
from private_pypi.index.lookup_results import Lookup, take_lookup
from private_pypi.index.rows import version_key
from private_pypi.model import FRESH, DistributionFile, Freshness, StoredFile
from private_pypi.storage.file_cache import FileCache
from private_pypi.storage.recent_trouble import RecentTrouble
from private_pypi.storage.remembered_facts import RememberedFacts
from private_pypi.system.background import Background, DaemonThreads, NotStarted, StillRunning

_log = logging.getLogger(__name__)

BUDGET = 5.0
"""Seconds for which a request waits for a lookup, before it is told to come again."""

UPLOADS_STAY = timedelta(minutes=5)
"""For how long an upload through this server is shown although the storage does not list it."""

_READERS = 4  # threads in which one lookup reads files
_ABSENT_SECONDS = 10.0  # for which the absence of a project is repeated to the same secret

Outcome = DistributionFile | InvalidUpload | None
"""The facts of a stored file, or what is wrong with it; None: it is gone."""


class ProjectLookups:
    """Brings the projects of one local index up to date; safe for many threads.

    The processes of a ROOT share the results. Sometimes several of them look up one project at the
    same time.
    """

    def __init__(
        self,
        index: LocalIndex,
        facts: RememberedFacts,
        metadata: FileCache,
        background: Background,
        *,
        title: str,
        place: str,
        tmp: Path,
        interval: timedelta,
        stale_for: timedelta,
        budget: float,
    ) -> None:
        """`title` names the repository in messages; `place` identifies the storage, because stamps
        of two storages may be equal; `tmp` is a folder for temporary files.

        A lookup counts for `interval`, and while the storage is in trouble for `stale_for` more. A
        caller waits for it at most `budget` seconds.
        """
        self._index = index
        self._facts = facts
        self._metadata = metadata
        self._background = background
        self._title = title
        self._place = place
        self._tmp = tmp
        self._interval = interval.total_seconds()
        self._stale_for = stale_for.total_seconds()
        self._budget = budget
        self._refusals = RecentTrouble()
        self._incomplete: set[str] = set()  # projects with new files that are being read
        self._lock = threading.Lock()  # guards _incomplete

    def is_fresh(self, project: NormalizedName) -> bool:
        """Whether the project was looked up within the interval."""
        age = self._age(project)
        return age is not None and age < self._interval

    def look_up(self, project: NormalizedName, storage: AnyStorage, secret: bytes) -> Freshness:
        """Bring the project up to date through `storage`; `secret` is the key of its secret.

        While the storage is in trouble, the last result counts for a while; the answer says how old
        it is. Raises `ProjectNotFound` and `AccessError` as the storage does, the trouble of the
        storage when the last result is too old, and `StillRunning` while files are read that the
        index is known to lack.
        """
        if self.is_fresh(project):
            return FRESH
        try:
            refusal = self._refusal(project, secret)
            if refusal is not None:
                raise refusal
            self._join(project, storage, secret)
        except (NotFound, AccessError, Unsupported):
            raise
        except PrivatePypiError as error:
            age = self._age(project)
            if age is None or age >= self._interval + self._stale_for:
                raise
            if age >= self._interval:  # else another caller has looked it up in the meantime
                with self._lock:
                    if isinstance(error, StillRunning) and project in self._incomplete:
                        raise
                return Freshness(age)
        return FRESH

    # -- one lookup at a time ----------------------------------------------------------------------

    def _age(self, project: str) -> float | None:
        """Seconds since the last lookup; None: there was none, or the clock was set back since."""
        looked_up_at = self._index.looked_up_at(project)
        age = -1.0 if looked_up_at is None else time.time() - looked_up_at
        return None if age < 0 else age

    def _join(self, project: NormalizedName, storage: AnyStorage, secret: bytes) -> None:
        """Wait for the lookup of this project that is running, or else run one."""
        deadline = time.monotonic() + self._budget
        used_our_secret = threading.Event()

        def look_up() -> None:
            used_our_secret.set()
            self._look_up(project, storage, secret)

        while True:
            wait = max(0.0, deadline - time.monotonic())
            try:
                self._background.result(("lookup", self._place, project), look_up, wait=wait)
                return
            except StillRunning as error:
                raise self._still_looked_up(project) from error
            except NotStarted:
                raise
            except PrivatePypiError as error:
                if used_our_secret.is_set():
                    raise
                # The storage may answer differently to our secret.
                refusal = self._refusal(project, secret)
                if refusal is not None:
                    raise refusal from error
                if wait == 0.0:
                    raise self._still_looked_up(project) from error

    def _still_looked_up(self, project: str) -> StillRunning:
        return StillRunning(
            f"project {project!r} is still being looked up; ask again", retry_after=5
        )

    def _refusal(self, project: str, secret: bytes) -> PrivatePypiError | None:
        """The error that this secret met a moment ago, unless the project has changed since."""
        return self._refusals.find((project, secret), self._index.project_serial(project))

    def _look_up(self, project: NormalizedName, storage: AnyStorage, secret: bytes) -> None:
        if self.is_fresh(project):  # another process was quicker
            return
        now = time.time()
        nothing = Lookup(
            project=project,
            begun=self._index.serial(),
            looked_up_at=now,
            uploads_since=now - UPLOADS_STAY.total_seconds(),
        )
        version = self._index.project_serial(project)
        try:
            take_lookup(self._index, self._ask(project, storage, nothing))
        except PrivatePypiError as error:
            seconds = _ABSENT_SECONDS if isinstance(error, NotFound) else None
            self._refusals.note((project, secret), error, seconds=seconds, version=version)
            if not isinstance(error, (NotFound, AccessError)):
                _log.warning("%s: project %s: %s", self._title, project, error)
            # If the storage shows the same to every secret, the project is absent for all of them.
            is_gone = isinstance(error, NotFound) and not storage.backend.traits.rights_per_project
            if is_gone and self._index.has_files(project):
                take_lookup(self._index, nothing)
            raise
        finally:
            with self._lock:
                self._incomplete.discard(project)

    # -- what the storage has ----------------------------------------------------------------------

    def _ask(self, project: NormalizedName, storage: AnyStorage, nothing: Lookup) -> Lookup:
        """All files of the project with their facts; raises rather than leave a file out."""
        lookup = capability(storage, SupportsLookup)
        assert lookup is not None
        outcomes: list[tuple[StoredFile, Outcome]] = []
        pending: list[StoredFile] = []
        misnamed: dict[str, str] = {}
        had = self._index.stamped_files(project)
        burnt = self._index.burnt_names(project)
        burnt_keys = {file_key(name): each for name, each in burnt.items()}

        seen: set[str] = set()
        for stored in lookup.project_files(project):
            self._check_stop()
            filename = stored.filename
            if filename in seen or filename in burnt:
                continue
            if not _is_of(project, filename):
                if is_filename(filename) and project in named_projects(filename):
                    misnamed[filename] = "it is not named as a distribution file is"
                continue
            seen.add(filename)
            file, stamp = had.get(filename, (None, None))
            if file is not None and stamp == stored.stamp and stored.sha256 in (None, file.sha256):
                outcomes.append((stored, _unchanged(file, stored, storage)))
                continue
            stored = with_record(storage, stored)
            recorded = _recorded(stored)
            problem = burnt_again(stored, recorded, burnt_keys) if file is None else None
            if problem is not None:
                outcomes.append((stored, InvalidUpload(problem)))
                continue
            found = recorded or self._facts.find(stored, self._place)
            if found is None:
                pending.append(stored)
            else:
                outcomes.append((stored, found))
        if pending:
            with self._lock:
                self._incomplete.add(project)
            outcomes += self._examine_all(storage, pending)
        return replace(
            nothing,
            files={
                stored.filename: (found, stored.stamp)
                for stored, found in outcomes
                if isinstance(found, DistributionFile)
            },
            broken={
                stored.filename: (stored.stamp, str(problem))
                for stored, problem in outcomes
                if isinstance(problem, InvalidUpload)
            },
            misnamed=misnamed,
        )

    def _check_stop(self) -> None:
        if self._background.is_closed:
            raise BackendUnavailable("the server is stopping")

    # -- what is in the files ----------------------------------------------------------------------

    def _examine_all(
        self, storage: AnyStorage, pending: Sequence[StoredFile]
    ) -> list[tuple[StoredFile, Outcome]]:
        """Read the files, newest versions first. Trouble with one of them ends the lookup."""
        newest_first = sorted(pending, key=_version_key, reverse=True)
        with (
            temporary_folder(self._tmp) as folder,
            DaemonThreads(_READERS, "lookup") as pool,
        ):
            try:
                outcomes = list(pool.map(partial(self._examine, storage, folder), newest_first))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return list(zip(newest_first, outcomes, strict=True))

    def _examine(self, storage: AnyStorage, folder: Path, stored: StoredFile) -> Outcome:
        """Read one file and remember at once what was found."""
        self._check_stop()
        try:
            try:
                examined = _examined(storage, stored, folder)
            except FileNotFound:
                # It was listed a moment ago, and a provider in trouble may call it absent. If that
                # were believed at once, a page would lack the file.
                examined = _examined(storage, stored, folder)
        except FileNotFound:
            return None
        except InvalidUpload as error:
            _log.warning("%s: %s", self._title, error)
            self._facts.keep(stored, self._place, error)
            return error
        except OSError as error:
            raise BackendError(f"{stored.filename!r} cannot be read: {error.strerror}") from error
        self._facts.keep(stored, self._place, examined.file)
        sha256, content = examined.file.core_metadata_sha256, examined.core_metadata
        if sha256 is not None and content is not None:
            self._metadata.keep(sha256, content)
        return examined.file


def _examined(storage: AnyStorage, stored: StoredFile, folder: Path) -> Examined:
    parts = capability(storage, SupportsParts)
    if stored.sha256 is not None and parts is not None:
        return examine_parts(stored, stored.sha256, remote_file(parts, stored, stored.size))
    with opened_file(storage, stored, folder) as file:
        size = os.fstat(file.fileno()).st_size
        if size != stored.size:  # the transfer was cut off
            raise BackendUnavailable(
                f"{stored.filename!r} came with {size} bytes where {stored.size} were listed"
            )
        examined = examine(stored, file)
    if stored.sha256 not in (None, examined.file.sha256):
        raise BackendError(
            f"{stored.filename!r} has sha256 {examined.file.sha256}, "
            f"the storage says {stored.sha256}"
        )
    return examined


def _recorded(stored: StoredFile) -> DistributionFile | None:
    """The file as its record describes it, unless the record is of other bytes."""
    file = file_from_record(stored)
    return None if file is None or stored.sha256 not in (None, file.sha256) else file


def _unchanged(file: DistributionFile, stored: StoredFile, storage: AnyStorage) -> DistributionFile:
    """A file whose bytes have not changed, with what the storage says of it now."""
    file = replace(file, location=stored.location)
    if capability(storage, SupportsYank) is not None:
        file = replace(file, yanked=stored.yanked)
    return file


def _is_of(project: str, filename: str) -> bool:
    try:
        return parse_filename(filename).project == project
    except InvalidFilename:
        return False


def _version_key(stored: StoredFile) -> tuple[str, str]:
    return version_key(parse_filename(stored.filename).version), stored.filename
