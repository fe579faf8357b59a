"""Rebuilds the index document in the storage from what is stored, never from the local index.

`update_index` is run by a person, a workflow or cron. Uploads do not change the document. Yanks and
deletions, which are rare, edit it at once (`stored_document`).
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from packaging.utils import NormalizedName

from private_pypi.backend import NO_INDEX, AnyStorage, SupportsDelete, SupportsList, capability
from private_pypi.distributions.filenames import file_key, named_projects, project_name
from private_pypi.distributions.records import file_from_record, first_seen, parse_time
from private_pypi.errors import (
    FileNotFound,
    InvalidUpload,
    PrivatePypiError,
    StaleIndex,
    Unsupported,
)
from private_pypi.index.document import EMPTY, IndexDocument, new_entry, write_texts
from private_pypi.index.document_reader import read_entry
from private_pypi.index.draft import Draft, EntryRow, Merged, entry_row
from private_pypi.index.examining import burnt_again, find_named, sweep, temporary_folder
from private_pypi.index.listing import Progress, draft_of, list_all, storage_of
from private_pypi.index.readers import examine_all, take_file
from private_pypi.index.stored_document import (
    has_index,
    replace_index,
    require_index,
    until_first,
)
from private_pypi.model import BurntName, DistributionFile, StoredFile, StoredName

_CHECKPOINT: Final = 20.0  # seconds after which examined files are written into the document
_REST: Final = 20  # times what the last of these took: the shortest pause before the next
_KEPT_FOR: Final = 6 * 3600  # seconds for which an interrupted listing can be continued
_SOME: Final = 500  # entries that are put into the draft at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexUpdate:
    """What `update_index` did. As text it is a line for people."""

    name: str
    added: int
    removed: int
    changed: int
    unchanged: int
    skipped: tuple[str, ...]  # a sentence for each file, folder or entry that was left out

    def __str__(self) -> str:
        changed = f"{self.changed} changed, " if self.changed else ""
        return (
            f"{self.name}: {self.added} added, {self.removed} removed, "
            f"{changed}{self.unchanged} unchanged"
        )


def update_index(
    storage: AnyStorage,
    *,
    backend_type: str,
    name: str,
    folder: Path,
    keep: Path | None = None,
    progress: Progress | None = None,
) -> IndexUpdate:
    """Make the document say what is stored; write nothing if it does already.

    - A file is opened only if neither its record nor the document has its facts. From time to time
      the document is written with what is known by then, so that a run that is killed need not be
      repeated from its beginning.
    - A storage that is listed in parts (`SupportsListParts`) is listed by several threads. The
      parts that are done are kept in the folder `keep`, and a later run does not list them again.
    - Yanks stay, and yanks that the storage keeps are taken over.
    - Files under burnt names get no entry, and what an interrupted deletion left of them is
      removed.
    - A broken file gets no entry and is reported in `skipped`. After trouble with a file its entry
      stays, and after trouble with a folder all entries stay.

    `folder` is for temporary files. Neither listing nor document is held in memory. Raises
    `Unsupported` for a storage without an index.
    """
    if capability(storage, SupportsList) is None or not has_index(storage):
        raise Unsupported(
            f"a repository of type {backend_type!r} has no index: there is nothing to rebuild, "
            "because the server asks the storage itself"
        )
    with temporary_folder(folder) as temporary, contextlib.ExitStack() as stack:
        update = _Update(
            storage,
            backend_type,
            temporary,
            stack.enter_context(draft_of(storage, temporary, keep, backend_type=backend_type)),
            progress or (lambda *_: None),
        )
        return update.run(name)


# -- rebuilding ----------------------------------------------------------------------------------


class _Update:
    def __init__(
        self,
        storage: AnyStorage,
        backend_type: str,
        folder: Path,
        draft: Draft,
        progress: Progress,
    ) -> None:
        self._storage = storage
        self._index = require_index(storage, backend_type)
        self._backend_type = backend_type
        self._location_key = storage.backend.location_key
        self._folder = folder
        self._draft = draft
        self._progress = progress
        self._in_trouble: set[str] = set()  # filenames; their entries stay as they are
        self._skipped: list[str] = []  # sentences
        self._unread: set[str] = set()  # filenames that are listed and get no entry
        self._named: set[NormalizedName] = set()  # projects of those
        # The document that was in the storage when this was last known, without its entries, and
        # its revision.
        self._current = EMPTY
        self._revision = NO_INDEX
        # Whether it has to be written although it says the same: it has broken entries, or it
        # was not made from a complete listing.
        self._mend = False
        self._is_whole = False  # whether what was written last is all that is stored
        self._yanks: dict[str, str | None] = {}  # of the document that this run wrote last
        self._counts: Counter[str] | None = None  # of its entries, as `_counted` counts them
        self._skipped.extend(self._read())
        self._base = self._current  # the document before this run
        self._rows: list[EntryRow] = []  # entries that are not in the draft yet

    def run(self, name: str) -> IndexUpdate:
        # Of a listing that is continued, the document has the time at which it began.
        self._begun_at = self._draft.begin(
            storage_of(self._storage, self._backend_type),
            int(time.time()),
            newer_than=self._base.mtime,
            within=_KEPT_FOR,
        )
        unlisted = list_all(self._storage, self._draft, self._progress)
        self._skipped += [each.problem for each in unlisted]
        # If a folder could not be read, all entries stay: a document may name files by paths of
        # other servers, so that it is not known which of them are in this folder.
        saw_all = not any(each.may_hold_files for each in unlisted)
        self._draft.compare()
        self._take_moved()
        leftovers = list(filter(None, map(self._completed, self._draft.leftovers())))
        sweep(self._storage)
        self._remove_leftovers(leftovers)
        self._examine()
        self._write(whole=saw_all)
        return self._update(name)

    def _completed(self, listed: StoredFile | StoredName) -> StoredFile | None:
        return find_named(self._storage, listed) if isinstance(listed, StoredName) else listed

    def _take_moved(self) -> None:
        for listed, entry in self._draft.moved():
            file = replace(
                entry.file,
                location=listed.location,
                yanked=entry.file.yanked if listed.yanked is None else listed.yanked,
                uploaded_at=entry.file.uploaded_at or listed.uploaded_at or first_seen(listed),
            )
            self._rows.append(self._draft.row(replace(entry, file=file)))
            if len(self._rows) >= _SOME:
                self._flush()
        self._flush()

    def _skip(self, stored: StoredFile, problem: str) -> None:
        """Leave a file out, and remember its name: its project belongs to the repository."""
        self._skipped.append(problem)
        self._unread.add(stored.filename)
        folder = project_name(stored.project or "")
        self._named |= named_projects(stored.filename) | ({folder} if folder else set())

    def _examine(self) -> None:
        burnt_keys = {file_key(burnt.filename): burnt for burnt in self._base.deleted}
        total = self._draft.count_new()
        pause = _CHECKPOINT
        kept_at = time.monotonic()
        pending = filter(None, map(self._completed, self._draft.new()))
        for done, (stored, found) in enumerate(
            examine_all(
                self._storage,
                pending,
                self._folder,
                partial(_row_of, backend_type=self._backend_type, location_key=self._location_key),
                use_records=True,
            ),
            1,
        ):
            self._progress(done, total, "examining")
            problem = self._burnt_again(stored, burnt_keys) if burnt_keys else None
            match found:
                case _ if problem is not None:
                    self._skip(stored, problem)
                case FileNotFound():
                    pass  # removed since it was listed
                case InvalidUpload():
                    self._skip(stored, str(found))
                case PrivatePypiError():
                    self._skip(stored, str(found))
                    self._in_trouble.add(stored.filename)
                case _:
                    self._rows.append(found)
            if len(self._rows) >= _SOME:
                self._flush()
            if time.monotonic() - kept_at > pause:
                begun = time.monotonic()
                self._write(whole=False)
                kept_at = time.monotonic()
                # Writing a large document takes long, and must not take most of the time.
                pause = max(_CHECKPOINT, _REST * (kept_at - begun))
        self._flush()

    def _burnt_again(self, stored: StoredFile, burnt_keys: Mapping[str, BurntName]) -> str | None:
        if self._draft.has_entry(stored.filename):
            return None
        return burnt_again(stored, file_from_record(stored), burnt_keys)

    def _flush(self) -> None:
        """Put entries into the draft. Touching a file is not an upload: it keeps its time."""
        before = self._draft.counterparts([row[0] for row in self._rows])
        for number, row in enumerate(self._rows):
            sha256, uploaded_at = before.get(row[0], (None, None))
            if sha256 == row[3] and uploaded_at is not None and uploaded_at < (row[5] or ""):
                entry = read_entry(row[8], location_key=self._location_key)
                file = replace(entry.file, uploaded_at=parse_time(uploaded_at))
                self._rows[number] = self._draft.row(replace(entry, file=file))
        self._draft.add(self._rows)
        self._rows.clear()

    def _remove_leftovers(self, leftovers: Sequence[StoredFile]) -> None:
        """Finish interrupted deletions. Other content under a burnt name is left alone."""
        deleting = capability(self._storage, SupportsDelete)
        for stored, found in examine_all(self._storage, leftovers, self._folder, take_file):
            # The name may have been restored since the listing began. Then the file is wanted.
            self._read_again()
            name = stored.filename
            burnt = {each.filename: each.sha256 for each in self._current.deleted}.get(name)
            match found:
                case FileNotFound():
                    pass
                case DistributionFile() if burnt is None:
                    entry = new_entry(found, stamp=stored.stamp, record=stored.record)
                    self._rows.append(self._draft.row(entry))
                case DistributionFile() if found.sha256 == burnt and deleting is not None:
                    deleting.delete_file(replace(found, location=stored.location))
                case _:
                    self._skipped.append(f"{name!r} is stored under a burnt name: ignored")
        self._flush()

    # -- the document -----------------------------------------------------------------------------

    def _read(self) -> tuple[str, ...]:
        """Read the document that is in the storage; returns a sentence for each broken entry."""
        path = self._folder / "index.toml"
        self._revision = self._index.read_index(path)
        exists = self._revision != NO_INDEX
        self._current, problems = self._draft.read(path if exists else None)
        path.unlink(missing_ok=True)
        self._mend = exists and (bool(problems) or self._current.mtime == 0)
        return problems

    def _read_again(self) -> None:
        """Read the document that is in the storage, if it has changed since it was read."""
        path = self._folder / "again.toml"
        path.unlink(missing_ok=True)
        known = None if self._revision == NO_INDEX else self._revision
        if self._index.read_index(path, unless=known) != self._revision:
            self._read()

    def _write(self, *, whole: bool) -> None:
        """Write the document; `whole`: all files were listed, so that any other file is gone."""
        self._flush()
        self._is_whole = whole

        def attempt() -> str:
            rest = self._rest(whole=whole)
            self._counts = None
            if not self._mend and self._is_same(rest, whole=whole):
                return self._revision
            path = self._folder / "new.toml"
            yanks: dict[str, str | None] = {}
            counts: Counter[str] = Counter()
            merged = self._counted(self._merged(yanks, whole=whole), counts)
            write_texts(rest, ((each.filename, each.text) for each in merged), path)
            try:
                revision = replace_index(self._storage, path, self._revision)
            except StaleIndex:
                self._read()
                raise
            self._current, self._mend = rest, not whole
            self._yanks, self._counts = yanks, counts
            return revision

        self._revision = until_first(attempt)

    def _merged(self, yanks: dict[str, str | None], *, whole: bool) -> Iterator[Merged]:
        return self._draft.merged(
            whole=whole, in_trouble=self._in_trouble, written=self._yanks, yanks=yanks
        )

    def _is_same(self, rest: IndexDocument, *, whole: bool) -> bool:
        """Whether the document in the storage says the same already, apart from its time."""
        if any(
            set(getattr(rest, name)) != set(getattr(self._current, name))
            for name in ("deleted", "former_projects", "skipped", "restored")
        ) or self._draft.is_dropping(whole=whole, in_trouble=self._in_trouble):
            return False
        return not self._draft.has_found() or not any(
            each.is_changed for each in self._merged({}, whole=whole)
        )

    def _rest(self, *, whole: bool) -> IndexDocument:
        """The new document without its entries."""
        former = set(self._current.former_projects)
        if whole:
            burnt = (*self._base.deleted, *self._current.deleted)
            former |= self._draft.projects() | {each.project for each in burnt} | self._named
            former -= self._draft.projects_after(self._in_trouble)
        skipped = self._unread if whole else self._unread | set(self._current.skipped)
        has = partial(self._draft.has_after, whole=whole, in_trouble=self._in_trouble)
        return IndexDocument(
            mtime=self._begun_at if whole else self._current.mtime,
            deleted=self._current.deleted,
            former_projects=tuple(former),
            skipped=tuple(sorted(each for each in skipped if not has(each))),
            restored=self._current.restored,
        )

    def _counted(self, merged: Iterator[Merged], counts: Counter[str]) -> Iterator[Merged]:
        """The same entries; what they are is added to `counts`."""
        for each in merged:
            counts["there"] += each.was_there
            counts["added"] += not each.was_there
            counts["unchanged"] += each.is_as_before or not each.is_examined
            yield each

    def _update(self, name: str) -> IndexUpdate:
        before = self._draft.count_at_begin()
        counts = self._counts
        if counts is None:
            # The document says the same already as what is merged now.
            counts = Counter()
            if self._in_trouble or self._draft.has_found():
                for _ in self._counted(self._merged({}, whole=self._is_whole), counts):
                    pass
            else:
                counts.update(self._draft.count_documented(whole=self._is_whole))
        return IndexUpdate(
            name=name,
            added=counts["added"],
            removed=before - counts["there"],
            changed=counts["there"] - counts["unchanged"],
            unchanged=counts["unchanged"],
            skipped=tuple(self._skipped),
        )


def _row_of(
    stored: StoredFile, file: DistributionFile, *, backend_type: str, location_key: str
) -> EntryRow:
    entry = new_entry(file, stamp=stored.stamp, record=stored.record)
    return entry_row(entry, backend_type, location_key)
