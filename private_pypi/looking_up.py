"""From a storage that answers for one project at a time to the local index, when somebody asks.

A look is whole or it is none: pages are made of the last whole look, never of half of one. It is
made with the secret of the one who asks, and what came of it serves everybody whom the storage
lets read that project (`repositories` sees to that).
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from packaging.utils import NormalizedName

from private_pypi.backend import (
    ANY_STAMP,
    AnyBackend,
    SupportsLookup,
    SupportsParts,
    SupportsYank,
)
from private_pypi.background import Background, NotStarted, StillRunning
from private_pypi.core_metadata import Examined, examine, examine_parts
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
from private_pypi.file_cache import FileCache
from private_pypi.filenames import parse_filename
from private_pypi.indexing import opened_file, temporary_folder
from private_pypi.local_index import LocalIndex, Look, version_key
from private_pypi.model import DistributionFile, StoredFile
from private_pypi.records import file_from_record
from private_pypi.remembered_facts import RememberedFacts
from private_pypi.remote_files import RemoteFile

_log = logging.getLogger(__name__)

BUDGET = 5.0
"""Seconds for which a request waits for its look, before it is told to come again."""

_READERS = 4  # threads in which one look reads files
_UPLOADS_STAY = timedelta(minutes=5)  # how late a listing may show what was uploaded through us
_TROUBLE_SECONDS = 2.0  # for which the trouble of one secret with one project is not met again
_ABSENT_SECONDS = 10.0  # the same for an absence
_MAX_REFUSALS = 10_000


Files = dict[str, tuple[DistributionFile, str]]
"""By filename, each with its stamp."""

Broken = dict[str, tuple[str, str]]
"""Filename -> stamp, and what is wrong with the file."""


@dataclass(frozen=True, slots=True)
class _Refusal:
    error: PrivatePypiError
    until: float  # time.monotonic()


class ProjectLooks:
    """Keeps the projects of one local index like those of its storage; safe for many threads.

    The processes of a ROOT share what was looked up; at worst several of them look at once.
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
        """`title` is for messages; `place` is what the stamps of the storage are of; `tmp` a folder
        for temporary files.

        A look is good for `interval`; when the storage is in trouble, for `stale_for` more. It is
        waited for at most `budget` seconds.
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
        self._refusals: OrderedDict[tuple[str, bytes], _Refusal] = OrderedDict()
        self._incomplete: set[str] = set()  # projects with new files that are being read
        self._lock = threading.Lock()  # guards both

    def is_fresh(self, project: NormalizedName) -> bool:
        """Whether the local index has the project as it was within the interval."""
        age = self._age(project)
        return age is not None and age < self._interval

    def look(self, project: NormalizedName, backend: AnyBackend, secret: bytes) -> float | None:
        """Bring the project up to date, seen with `backend`, whose secret has the key `secret`.

        None when the index has it now as it is; else the storage is in trouble, and the age of
        what the index has (seconds), which may be shown when it is marked as stale. Raises
        `ProjectNotFound` and `AccessError` as the storage does, its trouble when what the index has
        is too old, and `StillRunning` while files are read that the index is known to lack.
        """
        if self.is_fresh(project):
            return None
        error = self._refusal(project, secret)
        if error is None:
            try:
                self._join(project, backend, secret)
            except PrivatePypiError as raised:
                error = raised
            else:
                return None
        if isinstance(error, (NotFound, AccessError, Unsupported)):
            raise error
        age = self._age(project)
        if age is not None and age < self._interval:  # another one has looked meanwhile
            return None
        if age is None or age >= self._interval + self._stale_for:
            raise error
        with self._lock:
            if isinstance(error, StillRunning) and project in self._incomplete:
                raise error
        return age

    # -- one look at a time ------------------------------------------------------------------------

    def _age(self, project: str) -> float | None:
        looked_at = self._index.looked_at(project)
        # A clock that was set back makes nothing fresh.
        return None if looked_at is None else abs(time.time() - looked_at)

    def _join(self, project: NormalizedName, backend: AnyBackend, secret: bytes) -> None:
        deadline = time.monotonic() + self._budget
        while True:
            by: list[bytes] = []

            def look(by: list[bytes] = by) -> bytes:
                by.append(secret)
                self._look(project, backend, secret)
                return secret

            wait = max(0.0, deadline - time.monotonic())
            try:
                self._background.result(("look", self._place, project), look, wait=wait)
            except StillRunning as error:
                raise self._still_looked_up(project) from error
            except NotStarted:
                raise
            except PrivatePypiError as error:
                if by:
                    raise
                # What another secret met says nothing about ours.
                refusal = self._refusal(project, secret)
                if refusal is not None:
                    raise refusal from error
                if wait == 0.0:
                    raise self._still_looked_up(project) from error
            else:
                return

    def _still_looked_up(self, project: str) -> StillRunning:
        return StillRunning(
            f"project {project!r} is still being looked up; ask again", retry_after=5
        )

    def _refusal(self, project: str, secret: bytes) -> PrivatePypiError | None:
        with self._lock:
            refusal = self._refusals.get((project, secret))
        if refusal is None or time.monotonic() >= refusal.until:
            return None
        return _bare(refusal.error)

    def _refuse(self, project: str, secret: bytes, error: PrivatePypiError) -> None:
        seconds = _ABSENT_SECONDS if isinstance(error, NotFound) else _TROUBLE_SECONDS
        with self._lock:
            self._refusals[project, secret] = _Refusal(_bare(error), time.monotonic() + seconds)
            self._refusals.move_to_end((project, secret))
            while len(self._refusals) > _MAX_REFUSALS:
                self._refusals.popitem(last=False)

    def _look(self, project: NormalizedName, backend: AnyBackend, secret: bytes) -> None:
        if self.is_fresh(project):  # somebody was quicker
            return
        looked_at, begun = time.time(), self._index.serial()
        take = partial(self._take, project, looked_at=looked_at, begun=begun)
        try:
            take(*self._ask(project, backend))
        except PrivatePypiError as error:
            self._refuse(project, secret, error)
            if not isinstance(error, (NotFound, AccessError)):
                _log.warning("%s: project %s: %s", self._title, project, error)
            # Where every secret is shown the same, nobody has it any more.
            is_gone = not backend.capabilities.rights_per_project
            if isinstance(error, NotFound) and is_gone and self._index.has_files(project):
                take({}, {})
            raise
        finally:
            with self._lock:
                self._incomplete.discard(project)

    def _take(
        self,
        project: NormalizedName,
        files: Files,
        broken: Broken,
        *,
        looked_at: float,
        begun: int,
    ) -> None:
        self._index.take_look(
            Look(
                project=project,
                files=files,
                broken=broken,
                begun=begun,
                looked_at=looked_at,
                uploads_since=looked_at - _UPLOADS_STAY.total_seconds(),
            )
        )

    # -- what the storage says ---------------------------------------------------------------------

    def _ask(self, project: NormalizedName, backend: AnyBackend) -> tuple[Files, Broken]:
        """All files of the project, with their facts; raises rather than leave one out."""
        assert isinstance(backend, SupportsLookup)
        files: Files = {}
        broken: Broken = {}
        pending: list[StoredFile] = []
        had = self._index.stamped_files(project)
        burnt = self._index.burnt_names(project)

        def known(filename: str, stamp: str) -> bool:
            return filename in had and stamp in (ANY_STAMP, had[filename][1])

        seen: set[str] = set()
        for stored in backend.project_files(project, known):
            self._check_stop()
            filename = stored.filename
            if filename in seen or filename in burnt or not _is_of(project, filename):
                continue
            seen.add(filename)
            if known(filename, stored.stamp):
                file, stamp = had[filename]
                if stored.sha256 in (None, file.sha256):
                    files[filename] = _still(file, stored, backend), stamp or stored.stamp
                    continue
            found = _recorded(stored) or self._facts.find(stored, self._place)
            match found:
                case DistributionFile():
                    files[filename] = found, stored.stamp
                case InvalidUpload():
                    broken[filename] = stored.stamp, str(found)
                case None:
                    pending.append(stored)
        if pending:
            with self._lock:
                self._incomplete.add(project)
            for stored, outcome in self._examine_all(backend, pending):
                match outcome:
                    case DistributionFile():
                        files[stored.filename] = outcome, stored.stamp
                    case InvalidUpload():
                        broken[stored.filename] = stored.stamp, str(outcome)
                        _log.warning("%s: %s", self._title, outcome)
                    case None:
                        pass  # deleted since it was listed
        return files, broken

    def _check_stop(self) -> None:
        if self._background.is_closed:
            raise BackendUnavailable("the server is stopping")

    # -- what is in the files ----------------------------------------------------------------------

    def _examine_all(
        self, backend: AnyBackend, pending: Sequence[StoredFile]
    ) -> list[tuple[StoredFile, DistributionFile | InvalidUpload | None]]:
        """Read the files, newest versions first; trouble with one of them is trouble with all."""
        newest_first = sorted(pending, key=_version_key, reverse=True)
        with (
            temporary_folder(self._tmp) as folder,
            ThreadPoolExecutor(_READERS, thread_name_prefix="look") as pool,
        ):
            try:
                outcomes = list(pool.map(partial(self._examine, backend, folder), newest_first))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return list(zip(newest_first, outcomes, strict=True))

    def _examine(
        self, backend: AnyBackend, folder: Path, stored: StoredFile
    ) -> DistributionFile | InvalidUpload | None:
        """The facts of a file, remembered at once; None when it is known to be gone."""
        self._check_stop()
        try:
            try:
                examined = _examined(backend, stored, folder)
            except FileNotFound:
                # It was listed a moment ago, and providers in trouble call things absent, too:
                # believed at once, that would be a short page.
                examined = _examined(backend, stored, folder)
        except FileNotFound:
            return None
        except InvalidUpload as error:
            self._facts.keep(stored, self._place, error)
            return error
        except OSError as error:
            raise BackendError(f"{stored.filename!r} cannot be read: {error.strerror}") from error
        self._facts.keep(stored, self._place, examined.file)
        sha256, content = examined.file.core_metadata_sha256, examined.core_metadata
        if sha256 is not None and content is not None:
            with contextlib.suppress(OSError):  # a full disk: then it is read again
                self._metadata.add(sha256, iter([content]))
        return examined.file


def _bare(error: PrivatePypiError) -> PrivatePypiError:
    """The same error without its traceback, which would keep all that was being read alive."""
    bare = type(error).__new__(type(error), *error.args)
    bare.__dict__.update(error.__dict__)
    return bare


def remote_file(backend: SupportsParts, file: DistributionFile | StoredFile) -> BinaryIO:
    """A file of the storage, of which only what is needed is fetched."""
    return cast(BinaryIO, RemoteFile(file.size, partial(backend.read_part, file.location)))


def _examined(backend: AnyBackend, stored: StoredFile, folder: Path) -> Examined:
    if stored.sha256 is not None and isinstance(backend, SupportsParts):
        return examine_parts(stored, stored.sha256, remote_file(backend, stored))
    with opened_file(backend, stored, folder) as path:
        size = path.stat().st_size
        if size != stored.size:  # cut on its way
            raise BackendUnavailable(
                f"{stored.filename!r} came with {size} bytes where {stored.size} were listed"
            )
        examined = examine(stored, path)
    if stored.sha256 not in (None, examined.file.sha256):
        raise BackendError(
            f"{stored.filename!r} has sha256 {examined.file.sha256}, "
            f"the storage says {stored.sha256}"
        )
    return examined


def _recorded(stored: StoredFile) -> DistributionFile | None:
    """The file as its record says, unless the record is of other bytes."""
    file = file_from_record(stored)
    return None if file is None or stored.sha256 not in (None, file.sha256) else file


def _still(file: DistributionFile, stored: StoredFile, backend: AnyBackend) -> DistributionFile:
    """A file whose bytes are as they were, with what else the storage says of it now."""
    if stored.stamp != ANY_STAMP:
        file = replace(file, location=stored.location)
    if isinstance(backend, SupportsYank):
        file = replace(file, yanked=stored.yanked)
    return file


def _is_of(project: str, filename: str) -> bool:
    try:
        return parse_filename(filename).project == project
    except InvalidFilename:
        return False


def _version_key(stored: StoredFile) -> tuple[str, str]:
    return version_key(parse_filename(stored.filename).version), stored.filename
