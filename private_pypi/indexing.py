"""The index document in the storage: rebuilt from what is stored, or edited; never the local index.

`update_index` is run by a person, a workflow or cron; uploads never do. Yanks and deletes, which
are rare, edit the document at once. Both write by compare-and-swap, and begin again from the newer
document when somebody was quicker.
"""

from __future__ import annotations

import errno
import os
import random
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import requests
from filelock import FileLock
from packaging.utils import NormalizedName

from private_pypi import index_child
from private_pypi.backend import ANY_STAMP, NO_INDEX, AnyBackend, Folders, SupportsDelete
from private_pypi.core_metadata import examine
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileNotFound,
    InvalidUpload,
    PrivatePypiError,
    StaleIndex,
    StorageFull,
    Unsupported,
)
from private_pypi.filenames import parse_filename
from private_pypi.index_file import (
    EMPTY,
    IndexDocument,
    IndexEdit,
    IndexEntry,
    new_entry,
    read_document,
    write_document,
)
from private_pypi.model import DistributionFile, LocalFile, Redirect, StoredFile, Stream
from private_pypi.records import file_from_record

Progress = Callable[[int, int | None, str], None]
"""Called with: how many, of how many (None: unknown), what is being done."""

UNKNOWN_SIZE = -1
"""The size of a `StoredFile` that was made from an entry of 0.2."""

_CHECKPOINT = 20.0  # seconds of examining after which what is known is kept
_ATTEMPTS = 20
_THREADS = min(8, 2 * (os.cpu_count() or 2))  # hashing leaves the interpreter, networks wait
_FETCH_TIMEOUT = (10, 60)  # seconds to connect, and between two chunks
_FETCH_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexUpdate:
    """What `update_index` did; its text is a line for people."""

    name: str
    added: int
    removed: int
    changed: int
    unchanged: int
    skipped: tuple[str, ...]  # a sentence for each file or entry that was passed over

    def __str__(self) -> str:
        changed = f"{self.changed} changed, " if self.changed else ""
        return (
            f"{self.name}: {self.added} added, {self.removed} removed, "
            f"{changed}{self.unchanged} unchanged"
        )


def update_index(
    backend: AnyBackend,
    *,
    backend_type: str,
    name: str,
    folder: Path,
    progress: Progress | None = None,
) -> IndexUpdate:
    """Make the document say what is stored; write nothing when it does already.

    A file is opened only when neither its record nor the document has its facts; what was found
    out is kept every twenty seconds, so that a run that was killed is not begun anew. Yanks stay,
    and those that the storage keeps are taken over; burnt names win: what a broken delete left of
    them is removed. A broken file is reported in `skipped` and left out; trouble with one file
    keeps the entry that it has.

    `folder` is for temporary files. Raises `Unsupported` for a storage without an index.
    """
    if not backend.capabilities.lists_files:
        raise Unsupported(
            f"a repository of type {backend_type!r} has no index: there is nothing to rebuild, "
            "the server asks the storage for each project"
        )
    with temporary_folder(folder) as temporary:
        update = _Update(backend, backend_type, temporary, progress or (lambda *_: None))
        return update.run(name)


def edit_index(
    backend: AnyBackend,
    *,
    backend_type: str,
    folders: Folders,
    yank: Mapping[str, str | None] | None = None,
    delete: Sequence[DistributionFile] = (),
    files: Sequence[DistributionFile] = (),
) -> str:
    """Yank (filename -> reason, None to un-yank) or burn files in the document; its revision.

    `files` are facts for entries that the document may not have yet. What it does not say anew is
    kept, also `mtime`: an edit is no listing. Raises `StaleIndex` when others write all the time.
    """
    change = IndexEdit(
        at=datetime.now(UTC), yank=dict(yank or {}), delete=tuple(delete), files=tuple(files)
    )
    with (
        temporary_folder(folders.tmp) as temporary,
        # Writers of this ROOT queue here; those of others meet in the storage.
        FileLock(folders.lock / "edit_index.lock"),
    ):
        document, edited = temporary / "index.toml", temporary / "edited.toml"

        def attempt() -> str:
            document.unlink(missing_ok=True)
            edited.unlink(missing_ok=True)
            revision = backend.read_index(document)
            index_child.edit(
                document,
                change,
                edited,
                backend_type=backend_type,
                location_key=backend.location_key,
            )
            return backend.write_index(edited, revision) if edited.exists() else revision

        return _until_first(attempt)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A folder that is gone afterwards; what the disk below it refuses is a `BackendError`."""
    try:
        with tempfile.TemporaryDirectory(prefix="index-", dir=parent) as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"no space left in {parent}") from error
        raise BackendError(f"trouble with a file below {parent}: {error}") from error


def _until_first(attempt: Callable[[], str]) -> str:
    """Try a compare-and-swap until nobody was quicker."""
    for number in range(1, _ATTEMPTS):
        try:
            return attempt()
        except StaleIndex:
            time.sleep(random.uniform(0, 0.05 * number))  # noqa: S311 - spreads writers
    return attempt()


# -- rebuilding ----------------------------------------------------------------------------------


class _Update:
    def __init__(
        self, backend: AnyBackend, backend_type: str, folder: Path, progress: Progress
    ) -> None:
        self._backend = backend
        self._backend_type = backend_type
        self._folder = folder
        self._progress = progress
        self._begun_at = int(time.time())
        self._found: dict[str, IndexEntry] = {}
        self._in_trouble: set[str] = set()  # filenames whose entries stay as they are
        self._skipped: list[str] = []
        # The document that is in the storage, as far as we know, and its revision.
        self._current = EMPTY
        self._revision = NO_INDEX
        # Whether it has to be written although it says the same: it has broken entries, or is
        # of no whole listing (a checkpoint, an edit of nothing).
        self._mend = False
        self._skipped.extend(self._read())
        self._base = self._current  # what our listing is compared with
        self._yanks = _yanks(self._base)  # what the document said when we last knew it

    def run(self, name: str) -> IndexUpdate:
        pending, leftovers = self._list()
        self._remove_leftovers(leftovers)
        self._examine(pending)
        self._write(whole=True)
        return self._update(name)

    def _list(self) -> tuple[list[StoredFile], list[StoredFile]]:
        """Take what needs no opening; the files that do, and those under burnt names."""
        entries = {entry.file.filename: entry for entry in self._base.entries}
        burnt = {burnt.filename for burnt in self._base.deleted}

        def known(filename: str, stamp: str) -> bool:
            return filename in entries and stamp in (ANY_STAMP, entries[filename].stamp)

        pending = []
        leftovers = []
        for number, stored in enumerate(self._backend.list_files(known), 1):
            if number % 1000 == 0:
                self._progress(number, None, "listing")
            filename = stored.filename
            if filename in burnt:
                leftovers.append(stored)
            elif known(filename, stored.stamp):
                entry = entries[filename]
                if stored.stamp != ANY_STAMP:
                    yanked = entry.file.yanked if stored.yanked is None else stored.yanked
                    file = replace(entry.file, location=stored.location, yanked=yanked)
                    entry = replace(entry, file=file)
                self._found[filename] = entry
            elif (recorded := file_from_record(stored)) is not None:
                self._find(stored, recorded)
            else:
                pending.append(stored)
        return pending, leftovers

    def _find(self, stored: StoredFile, file: DistributionFile) -> None:
        self._found[stored.filename] = new_entry(file, stamp=stored.stamp, record=stored.record)

    def _examine(self, pending: Sequence[StoredFile]) -> None:
        kept_at = time.monotonic()
        for done, (stored, found) in enumerate(
            examine_all(self._backend, pending, self._folder), 1
        ):
            self._progress(done, len(pending), "examining")
            match found:
                case DistributionFile():
                    self._find(stored, found)
                case FileNotFound():
                    pass  # removed since it was listed
                case InvalidUpload():
                    self._skipped.append(str(found))
                case _:
                    self._skipped.append(str(found))
                    self._in_trouble.add(stored.filename)
            if time.monotonic() - kept_at > _CHECKPOINT:
                self._write(whole=False)
                kept_at = time.monotonic()

    def _remove_leftovers(self, leftovers: Sequence[StoredFile]) -> None:
        """Finish deletes that were broken off, and touch no other bytes under a burnt name."""
        burnt = {name.filename: name for name in self._base.deleted}
        for stored, found in examine_all(self._backend, leftovers, self._folder):
            if (
                isinstance(found, DistributionFile)
                and found.sha256 == burnt[stored.filename].sha256
                and isinstance(self._backend, SupportsDelete)
            ):
                self._backend.delete_file(replace(found, location=stored.location))
            elif not isinstance(found, FileNotFound):
                self._skipped.append(f"{stored.filename!r} is stored under a burnt name: ignored")

    # -- the document -----------------------------------------------------------------------------

    def _read(self) -> tuple[str, ...]:
        """Take the document that is in the storage; sentences about its broken entries."""
        path = self._folder / "index.toml"
        self._revision = self._backend.read_index(path)
        self._current, self._mend = EMPTY, False
        if self._revision == NO_INDEX:
            return ()
        self._current, problems = read_document(path, location_key=self._backend.location_key)
        self._mend = bool(problems) or self._current.mtime == 0
        return problems

    def _write(self, *, whole: bool) -> None:
        """Write what was found; `whole`: everything was, so that what was not found is gone."""

        def attempt() -> str:
            after = self._merged(whole=whole)
            if _same(after, self._current) and not self._mend:
                return self._revision
            path = self._folder / "new.toml"
            write_document(
                after,
                path,
                backend_type=self._backend_type,
                location_key=self._backend.location_key,
            )
            try:
                revision = self._backend.write_index(path, self._revision)
            except StaleIndex:
                self._read()
                raise
            self._current, self._mend = after, not whole
            self._yanks = _yanks(after)
            return revision

        self._revision = _until_first(attempt)

    def _merged(self, *, whole: bool) -> IndexDocument:
        """What we found, and what others wrote into the document since we read it."""
        at_begin = _names(self._base)

        def stays(filename: str) -> bool:
            return not whole or filename in self._in_trouble or filename not in at_begin

        written = {entry.file.filename: entry for entry in self._current.entries}
        entries = {name: entry for name, entry in written.items() if stays(name)}
        for filename, entry in self._found.items():
            if filename in written:
                before = written[filename]
                yanked = before.file.yanked
                # A file is yanked as soon as the document or the storage says so: the one may be
                # of a server that does not write the other, or of a writer that was killed in
                # between. But what somebody wrote since we read the document is younger than
                # what we were listed.
                is_edited = filename not in self._yanks or yanked != self._yanks[filename]
                if entry.file.yanked is not None and not is_edited:
                    yanked = entry.file.yanked
                file = replace(entry.file, yanked=yanked)
                entry = replace(entry, file=file, extra=before.extra)
            entries[filename] = entry
        for burnt in self._current.deleted:
            entries.pop(burnt.filename, None)
        unexamined = {
            old.filename: old
            for old in self._current.unexamined
            if stays(old.filename) and old.filename not in entries
        }
        former = set(self._current.former_projects)
        if whole:
            former |= _projects(self._base) | _projects(self._current)
            former -= {entry.file.project for entry in entries.values()}
            former -= {parse_filename(filename).project for filename in unexamined}
        return IndexDocument(
            mtime=self._begun_at if whole else self._current.mtime,
            entries=tuple(entries.values()),
            unexamined=tuple(unexamined.values()),
            deleted=self._current.deleted,
            former_projects=tuple(former),
        )

    def _update(self, name: str) -> IndexUpdate:
        before = {entry.file.filename: entry.file for entry in self._base.entries}
        names_before, names_after = _names(self._base), _names(self._current)
        unchanged = sum(
            entry.file.filename in before
            and replace(before[entry.file.filename], location=entry.file.location) == entry.file
            for entry in self._current.entries
        ) + len(self._current.unexamined)
        return IndexUpdate(
            name=name,
            added=len(names_after - names_before),
            removed=len(names_before - names_after),
            changed=len(names_after & names_before) - unchanged,
            unchanged=unchanged,
            skipped=tuple(self._skipped),
        )


def _names(document: IndexDocument) -> set[str]:
    return {entry.file.filename for entry in document.entries} | {
        old.filename for old in document.unexamined
    }


def _yanks(document: IndexDocument) -> dict[str, str | None]:
    return {entry.file.filename: entry.file.yanked for entry in document.entries}


def _projects(document: IndexDocument) -> set[NormalizedName]:
    """Every project that has or had files, as far as the document knows."""
    return (
        {entry.file.project for entry in document.entries}
        | {parse_filename(old.filename).project for old in document.unexamined}
        | {burnt.project for burnt in document.deleted}
    )


def _same(one: IndexDocument, other: IndexDocument) -> bool:
    """Whether two documents say the same, at whatever time and in whatever order."""

    def content(document: IndexDocument) -> tuple[object, ...]:
        return (
            {entry.file.filename: entry for entry in document.entries},
            {old.filename: old for old in document.unexamined},
            {burnt.filename: burnt for burnt in document.deleted},
            set(document.former_projects),
        )

    return content(one) == content(other)


# -- opening files -------------------------------------------------------------------------------


def examine_all(
    backend: AnyBackend, stored_files: Iterable[StoredFile], folder: Path
) -> Iterator[tuple[StoredFile, DistributionFile | PrivatePypiError]]:
    """Open files, a few at a time, and find out their facts, in the order given.

    With each file comes its facts or what is wrong with it: `FileNotFound` when it is gone,
    `InvalidUpload` when it is broken, `BackendError` for trouble with this file alone. Raises
    `BackendUnavailable` and `StorageFull`: the others would not fare better.
    """
    waiting: deque[tuple[StoredFile, Future[DistributionFile | PrivatePypiError]]] = deque()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="examine") as pool:
        try:
            for stored in stored_files:
                waiting.append((stored, pool.submit(_examine, backend, stored, folder)))
                if len(waiting) > 4 * _THREADS:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _examine(
    backend: AnyBackend, stored: StoredFile, folder: Path
) -> DistributionFile | PrivatePypiError:
    try:
        with opened_file(backend, stored, folder) as path:
            size = path.stat().st_size
            if stored.size == UNKNOWN_SIZE:
                stored = replace(stored, size=size)
            elif stored.size != size:  # cut on its way, or still being copied into its place
                return BackendError(
                    f"{stored.filename!r} has {size} bytes where {stored.size} were listed"
                )
            return examine(stored, path).file
    except (BackendUnavailable, StorageFull):
        raise
    except (InvalidUpload, FileNotFound, BackendError) as error:
        return error
    except OSError as error:
        return BackendError(f"{stored.filename!r} cannot be read: {error.strerror}")


@contextmanager
def opened_file(backend: AnyBackend, stored: StoredFile, folder: Path) -> Iterator[Path]:
    """The file on a local disk, fetched into `folder` for a while when it is elsewhere."""
    download = backend.open_file(_handle(stored))
    if isinstance(download, LocalFile):
        try:
            yield download.path
        except FileNotFoundError as error:
            raise FileNotFound(stored.filename) from error
        return
    with tempfile.NamedTemporaryFile(prefix="examine-", dir=folder) as copy:
        try:
            for chunk in chunks_of(download, stored.filename):
                copy.write(chunk)
            copy.flush()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(f"no space left to examine {stored.filename!r}") from error
            raise
        yield Path(copy.name)


def chunks_of(download: Redirect | Stream, filename: str) -> Iterator[bytes]:
    """The content of something that is elsewhere; raises `BackendUnavailable` when it breaks."""
    if isinstance(download, Stream):
        yield from download.chunks
        return
    # The address may be a secret in itself, so no message has it.
    try:
        with requests.get(
            download.url, stream=True, timeout=_FETCH_TIMEOUT, auth=_without_credentials
        ) as answer:
            if answer.status_code != requests.codes.ok:
                raise BackendUnavailable(
                    f"the storage answered {answer.status_code} for the content of {filename!r}"
                )
            yield from answer.iter_content(_FETCH_CHUNK)
    except requests.RequestException as error:
        raise BackendUnavailable(
            f"the content of {filename!r} did not arrive: {type(error).__name__}"
        ) from None


def _without_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    # Otherwise `requests` would add those of ~/.netrc, and a signed address refuses them.
    return request


def _handle(stored: StoredFile) -> DistributionFile:
    """What `open_file` needs; raises `InvalidFilename`."""
    parsed = parse_filename(stored.filename)
    return DistributionFile(
        project=parsed.project,
        filename=stored.filename,
        version=str(parsed.version),
        size=stored.size,
        sha256="",
        uploaded_at=None,
        requires_python=None,
        yanked=None,
        core_metadata_sha256=None,
        location=stored.location,
    )
