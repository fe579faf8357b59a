"""Rebuilds the index document in the storage from what is stored, never from the local index.

`update_index` is run by a person, a workflow or cron. Uploads do not change the document. Yanks and
deletions, which are rare, edit it at once (`stored_document`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.utils import NormalizedName

from private_pypi.backend import NO_INDEX, AnyStorage, SupportsDelete, SupportsList, capability
from private_pypi.distributions.filenames import (
    file_key,
    named_projects,
    parse_filename,
    project_name,
)
from private_pypi.distributions.records import file_from_record, first_seen
from private_pypi.errors import FileNotFound, InvalidUpload, StaleIndex, Unsupported
from private_pypi.index.document import (
    EMPTY,
    IndexDocument,
    IndexEntry,
    new_entry,
    read_document,
    write_document,
)
from private_pypi.index.examining import (
    burnt_again,
    examine_all,
    find_named,
    sweep,
    temporary_folder,
    with_record,
)
from private_pypi.index.stored_document import (
    has_index,
    replace_index,
    require_index,
    until_first,
)
from private_pypi.model import DistributionFile, StoredFile, StoredName, Unlisted

Progress = Callable[[int, int | None, str], None]
"""Called with the number of files done, the number of all (None: unknown), and the activity."""

_CHECKPOINT = 20.0  # seconds after which examined files are written into the document


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
    progress: Progress | None = None,
) -> IndexUpdate:
    """Make the document say what is stored; write nothing if it does already.

    - A file is opened only if neither its record nor the document has its facts. Every twenty
      seconds the document is written with what is known by then, so that a run that is killed
      need not be repeated from its beginning.
    - Yanks stay, and yanks that the storage keeps are taken over.
    - Files under burnt names get no entry, and what an interrupted deletion left of them is
      removed.
    - A broken file gets no entry and is reported in `skipped`. After trouble with a file its entry
      stays, and after trouble with a folder all entries stay.

    `folder` is for temporary files. Raises `Unsupported` for a storage without an index.
    """
    if capability(storage, SupportsList) is None or not has_index(storage):
        raise Unsupported(
            f"a repository of type {backend_type!r} has no index: there is nothing to rebuild, "
            "because the server asks the storage itself"
        )
    with temporary_folder(folder) as temporary:
        update = _Update(storage, backend_type, temporary, progress or (lambda *_: None))
        return update.run(name)


# -- rebuilding ----------------------------------------------------------------------------------


class _Update:
    def __init__(
        self, storage: AnyStorage, backend_type: str, folder: Path, progress: Progress
    ) -> None:
        self._storage = storage
        self._index = require_index(storage, backend_type)
        self._lister = capability(storage, SupportsList)
        self._backend_type = backend_type
        self._folder = folder
        self._progress = progress
        self._begun_at = int(time.time())
        self._found: dict[str, IndexEntry] = {}
        self._in_trouble: set[str] = set()  # filenames; their entries stay as they are
        self._saw_all = True  # whether every folder of the storage could be read
        self._skipped: list[str] = []  # sentences
        self._unread: set[str] = set()  # filenames that are listed and get no entry
        self._named: set[NormalizedName] = set()  # projects of those
        # The document that was in the storage when this was last known, and its revision.
        self._current = EMPTY
        self._revision = NO_INDEX
        # Whether it has to be written although it says the same: it has broken entries, or it
        # was not made from a complete listing.
        self._mend = False
        self._skipped.extend(self._read())
        self._base = self._current  # the document before this run
        self._documented = {entry.file.filename: entry.file for entry in self._base.entries}
        self._yanks = _yanks(self._base)  # of `_base`, or of the document that this run wrote last

    def run(self, name: str) -> IndexUpdate:
        pending, leftovers = self._list()
        self._remove_leftovers(leftovers)
        self._examine(pending)
        # If a folder could not be read, all entries stay: a document may name files by paths of
        # other servers, so that it is not known which of them are in this folder.
        self._write(whole=self._saw_all)
        return self._update(name)

    def _list(self) -> tuple[list[StoredFile], list[StoredFile]]:
        """List the storage; returns the files that have to be opened, and those under burnt names.

        All other files get their entries.
        """
        entries = {entry.file.filename: entry for entry in self._base.entries}
        burnt = {burnt.filename: burnt for burnt in self._base.deleted}
        burnt_keys = {file_key(filename): burnt for filename, burnt in burnt.items()}
        documented = entries.keys() | {old.filename for old in self._base.unexamined}

        pending = []
        leftovers = []
        assert self._lister is not None
        for number, listed in enumerate(self._lister.list_files(), 1):
            if number % 1000 == 0:
                self._progress(number, None, "listing")
            if isinstance(listed, Unlisted):
                self._skipped.append(listed.problem)
                self._saw_all &= not listed.may_hold_files
                continue
            filename = listed.filename
            if isinstance(listed, StoredName):
                if filename in entries and filename not in burnt:
                    self._found[filename] = entries[filename]
                    continue
                found = find_named(self._storage, listed)
                if found is None:
                    continue  # removed since it was listed
                listed = found
            if filename in burnt:
                leftovers.append(listed)
            elif filename in entries and listed.stamp == entries[filename].stamp:
                entry = entries[filename]
                file = replace(
                    entry.file,
                    location=listed.location,
                    yanked=entry.file.yanked if listed.yanked is None else listed.yanked,
                    uploaded_at=entry.file.uploaded_at or listed.uploaded_at or first_seen(listed),
                )
                self._found[filename] = replace(entry, file=file)
            else:
                stored = with_record(self._storage, listed)
                recorded = file_from_record(stored)
                problem = burnt_again(stored, recorded, burnt_keys)
                if problem is not None and filename not in documented:
                    self._skip(stored, problem)
                elif recorded is not None:
                    self._find(stored, recorded)
                else:
                    pending.append(stored)
        sweep(self._storage)
        return pending, leftovers

    def _skip(self, stored: StoredFile, problem: str) -> None:
        """Leave a file out, and remember its name: its project belongs to the repository."""
        self._skipped.append(problem)
        self._unread.add(stored.filename)
        folder = project_name(stored.project or "")
        self._named |= named_projects(stored.filename) | ({folder} if folder else set())

    def _find(self, stored: StoredFile, file: DistributionFile) -> None:
        before = self._documented.get(stored.filename)
        if (
            before is not None
            and before.sha256 == file.sha256
            and before.uploaded_at is not None
            and file.uploaded_at is not None
        ):  # touching a file is not an upload
            file = replace(file, uploaded_at=min(before.uploaded_at, file.uploaded_at))
        self._found[stored.filename] = new_entry(file, stamp=stored.stamp, record=stored.record)

    def _examine(self, pending: Sequence[StoredFile]) -> None:
        kept_at = time.monotonic()
        for done, (stored, found) in enumerate(
            examine_all(self._storage, pending, self._folder), 1
        ):
            self._progress(done, len(pending), "examining")
            match found:
                case DistributionFile():
                    self._find(stored, found)
                case FileNotFound():
                    pass  # removed since it was listed
                case InvalidUpload():
                    self._skip(stored, str(found))
                case _:
                    self._skip(stored, str(found))
                    self._in_trouble.add(stored.filename)
            if time.monotonic() - kept_at > _CHECKPOINT:
                self._write(whole=False)
                kept_at = time.monotonic()

    def _remove_leftovers(self, leftovers: Sequence[StoredFile]) -> None:
        """Finish interrupted deletions. Other content under a burnt name is left alone."""
        deleting = capability(self._storage, SupportsDelete)
        for stored, found in examine_all(self._storage, leftovers, self._folder):
            # The name may have been restored since the listing began. Then the file is wanted.
            self._read_again()
            name = stored.filename
            burnt = {each.filename: each.sha256 for each in self._current.deleted}.get(name)
            match found:
                case FileNotFound():
                    pass
                case DistributionFile() if burnt is None:
                    self._find(stored, found)
                case DistributionFile() if found.sha256 == burnt and deleting is not None:
                    deleting.delete_file(replace(found, location=stored.location))
                case _:
                    self._skipped.append(f"{name!r} is stored under a burnt name: ignored")

    # -- the document -----------------------------------------------------------------------------

    def _read(self) -> tuple[str, ...]:
        """Read the document that is in the storage; returns a sentence for each broken entry."""
        path = self._folder / "index.toml"
        self._revision = self._index.read_index(path)
        self._current, self._mend = EMPTY, False
        if self._revision == NO_INDEX:
            return ()
        self._current, problems = read_document(
            path, location_key=self._storage.backend.location_key
        )
        self._mend = bool(problems) or self._current.mtime == 0
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

        def attempt() -> str:
            after = self._merged(whole=whole)
            if _same(after, self._current) and not self._mend:
                return self._revision
            path = self._folder / "new.toml"
            write_document(
                after,
                path,
                backend_type=self._backend_type,
                location_key=self._storage.backend.location_key,
            )
            try:
                revision = replace_index(self._storage, path, self._revision)
            except StaleIndex:
                self._read()
                raise
            self._current, self._mend = after, not whole
            self._yanks = _yanks(after)
            return revision

        self._revision = until_first(attempt)

    def _merged(self, *, whole: bool) -> IndexDocument:
        """What this run has found, together with what others wrote into the document meanwhile."""
        at_begin = _names(self._base)

        def stays(filename: str) -> bool:
            return not whole or filename in self._in_trouble or filename not in at_begin

        written = {entry.file.filename: entry for entry in self._current.entries}
        entries = {name: entry for name, entry in written.items() if stays(name)}
        for filename, entry in self._found.items():
            if filename in written:
                before = written[filename]
                yanked = before.file.yanked
                # A file is yanked if the document or the storage says so. They differ if a server
                # writes only one of them, or if a writer was killed between the two. But an edit
                # of the document that was made during this run is newer than the listing.
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
            former |= _projects(self._base) | _projects(self._current) | self._named
            former -= {entry.file.project for entry in entries.values()}
            former -= {parse_filename(filename).project for filename in unexamined}
        skipped = self._unread if whole else self._unread | set(self._current.skipped)
        burnt_names = {burnt.filename for burnt in self._current.deleted}
        return IndexDocument(
            mtime=self._begun_at if whole else self._current.mtime,
            entries=tuple(entries.values()),
            unexamined=tuple(unexamined.values()),
            deleted=self._current.deleted,
            former_projects=tuple(former),
            skipped=tuple(sorted(skipped - entries.keys() - unexamined.keys() - burnt_names)),
            restored=self._current.restored,
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
    """Whether two documents say the same, regardless of their times and order."""

    def content(document: IndexDocument) -> tuple[object, ...]:
        return (
            {entry.file.filename: entry for entry in document.entries},
            {old.filename: old for old in document.unexamined},
            {burnt.filename: burnt for burnt in document.deleted},
            set(document.former_projects),
            set(document.skipped),
            set(document.restored),
        )

    return content(one) == content(other)
