# ruff: noqa: S608 - all SQL is composed of constants
"""The tables in which `rebuilding` makes a new index document, on disk and not in memory.

It reads no storage. An entry is kept as the text that it has in a document, so that comparing and
writing entries takes no more than comparing and copying texts.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

from packaging.utils import NormalizedName

from private_pypi.distributions.filenames import parse_filename
from private_pypi.index.document import (
    EMPTY,
    IndexDocument,
    IndexEntry,
    UnexaminedEntry,
    entry_text,
)
from private_pypi.index.document_reader import DocumentReader, read_entry
from private_pypi.index.exact_entries import ExactEntries, ExactEntry
from private_pypi.index.rows import from_microseconds, microseconds
from private_pypi.index.staging import NamesOnDisk
from private_pypi.model import DistributionFile, StoredFile, StoredName
from private_pypi.system.transactions import transaction

_SOME: Final = 500  # rows that are read or written at a time
_CACHE: Final = 16_000  # KiB of each of the two files in memory

_ENTRY: Final = """
    filename TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    stamp TEXT,  -- NULL: unknown, also in all entries that are not examined
    sha256 TEXT,  -- NULL: the entry is not examined
    location TEXT NOT NULL,
    uploaded_at TEXT,
    yanked TEXT,
    facts BLOB,  -- a hash of what pages show; NULL: the entry is not examined
    text TEXT NOT NULL
"""
_SCRATCH: Final = f"""
-- The entries of the document that is in the storage, as it is known now.
CREATE TABLE scratch.documented ({_ENTRY});
-- Entries of files that are stored and that the document lacks, or has otherwise.
CREATE TABLE scratch.found ({_ENTRY});
-- Files that are stored and that the document has just so.
CREATE TABLE scratch.kept (filename TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE scratch.burnt (filename TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_LISTING: Final = """
CREATE TABLE IF NOT EXISTS run (begun_at INTEGER NOT NULL, storage TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS parts (part TEXT PRIMARY KEY, is_done INTEGER NOT NULL);
-- The document before the run.
CREATE TABLE IF NOT EXISTS at_begin (
    filename TEXT PRIMARY KEY, project TEXT NOT NULL, yanked TEXT, facts BLOB
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS listed (
    filename TEXT PRIMARY KEY,
    size INTEGER,  -- NULL: the listing has only the name
    location TEXT,
    stamp TEXT,
    record TEXT,
    sha256 TEXT,
    uploaded_at INTEGER,
    modified_at INTEGER,
    yanked TEXT,
    project TEXT
);
"""
_LISTED: Final = (
    "filename, size, location, stamp, record, sha256, uploaded_at, modified_at, yanked, project"
)
_UNCHANGED: Final = """
    listed.stamp = documented.stamp
    AND listed.location = documented.location
    AND (listed.yanked IS NULL OR listed.yanked IS documented.yanked)
    AND documented.uploaded_at IS NOT NULL
"""

_STAYS: Final = (
    "(filename IN (SELECT filename FROM found) OR filename IN (SELECT filename FROM kept)"
    " OR filename NOT IN (SELECT filename FROM at_begin))"
)

EntryRow = tuple[str, str, str | None, str | None, str, str | None, str | None, bytes | None, str]
"""The columns of an entry."""


@dataclass(frozen=True, slots=True)
class Merged:
    """An entry of the new document."""

    filename: str
    project: str
    text: str
    is_changed: bool  # whether the document in the storage has another one, or none
    is_examined: bool
    was_there: bool  # whether the document had one of this name when the run began
    is_as_before: bool  # whether pages say the same of it as then


def entry_row(
    entry: IndexEntry | UnexaminedEntry | ExactEntry, backend_type: str, location_key: str
) -> EntryRow:
    """The columns of an entry."""
    if isinstance(entry, ExactEntry):
        return (
            entry.filename,
            entry.project,
            entry.stamp,
            entry.sha256,
            entry.location,
            entry.uploaded_at,
            entry.yanked,
            _facts(entry, entry.uploaded_at, entry.size),
            entry.text,
        )
    text = entry_text(entry, backend_type=backend_type, location_key=location_key)
    if isinstance(entry, UnexaminedEntry):
        project = parse_filename(entry.filename).project
        return entry.filename, project, None, None, entry.location, None, None, None, text
    file = entry.file
    at = file.upload_time
    return (
        file.filename,
        file.project,
        entry.stamp,
        file.sha256,
        file.location,
        at,
        file.yanked,
        _facts(file, at, str(file.size)),
        text,
    )


_shown_of = attrgetter(
    "sha256",
    "requires_python",
    "yanked",
    "core_metadata_sha256",
    "summary",
    "published_name",
    "keywords",
)


def _facts(file: DistributionFile | ExactEntry, uploaded_at: str | None, size: str) -> bytes:
    """A hash of what pages show of a file, apart from where it is and what its name says."""
    shown = repr((uploaded_at, size, _shown_of(file)))
    return hashlib.blake2b(shown.encode(), digest_size=16).digest()


class Draft:
    """The new document, and what it is made from; a context manager, for one thread.

    The listing is in a file of its own, so that a later run can go on with it (`begin`).
    """

    def __init__(
        self, listing: Path, scratch: Path, *, backend_type: str, location_key: str
    ) -> None:
        """Open the file `listing`, or make it; `scratch` is a new file, only for this run."""
        self._backend_type = backend_type
        self._location_key = location_key
        self._connection = sqlite3.connect(listing, isolation_level=None)
        self._connection.execute("ATTACH DATABASE ? AS scratch", (str(scratch),))
        self._connection.executescript(
            # After a power cut, the listing may lack what was written last, but is not damaged.
            "PRAGMA main.journal_mode = WAL; PRAGMA main.synchronous = NORMAL;"
            "PRAGMA scratch.journal_mode = OFF; PRAGMA scratch.synchronous = OFF;"
            f"PRAGMA main.cache_size = -{_CACHE}; PRAGMA scratch.cache_size = -{_CACHE};"
            "PRAGMA temp_store = FILE;" + _LISTING + _SCRATCH
        )
        self._has_read = False

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    # -- the run ---------------------------------------------------------------------------------

    def begin(self, storage: str, begun_at: int, *, newer_than: int, within: int) -> int:
        """Go on with the listing of an earlier run, or begin a new one; returns when it began.

        `storage` says which storage it is of. All times are in unix seconds. A listing that began
        at `newer_than` or earlier, or more than `within` seconds ago, is not used.
        """
        rows = self._rows("SELECT begun_at FROM run WHERE storage = ?", (storage,))
        if rows and newer_than < rows[0][0] and 0 <= begun_at - rows[0][0] <= within:
            return int(rows[0][0])
        with self.writing():
            for table in ("run", "parts", "at_begin", "listed"):
                self._connection.execute(f"DELETE FROM {table}")
            self._connection.execute(
                "INSERT INTO at_begin SELECT filename, project, yanked, facts FROM documented"
            )
            self._connection.execute("INSERT INTO run VALUES (?, ?)", (begun_at, storage))
        return begun_at

    # -- the document in the storage -------------------------------------------------------------

    def read(self, path: Path | None) -> tuple[IndexDocument, tuple[str, ...]]:
        """Take the document at `path`; None: there is none.

        Returns everything but the entries, and a sentence for each broken entry. Raises
        `InvalidIndex`.
        """
        with self.writing():
            if self._has_read:  # another writer has changed the document since
                self._connection.execute(
                    "INSERT OR IGNORE INTO found SELECT documented.* FROM kept"
                    " JOIN documented USING (filename)"
                )
                for table in ("kept", "documented", "burnt"):
                    self._connection.execute(f"DELETE FROM {table}")
            self._has_read = True
            if path is None:
                return EMPTY, ()
            self._connection.execute("DROP TABLE IF EXISTS scratch.names")
            reader = DocumentReader(
                path,
                location_key=self._location_key,
                names=NamesOnDisk(self._connection, "scratch.names"),
            )
            exact = ExactEntries(self._backend_type, self._location_key)
            entries = reader.entries_or_exact(exact)
            while some := list(islice(entries, _SOME)):
                self._put("documented", [self.row(entry) for entry in some])
            rest = reader.rest()
            self._connection.execute("DROP TABLE scratch.names")
            self._connection.executemany(
                "INSERT OR IGNORE INTO burnt VALUES (?)", ((b.filename,) for b in rest.deleted)
            )
            return rest, reader.problems()

    def row(self, entry: IndexEntry | UnexaminedEntry | ExactEntry) -> EntryRow:
        """The columns of an entry."""
        return entry_row(entry, self._backend_type, self._location_key)

    def has_entry(self, filename: str) -> bool:
        """Whether the document has an entry of this name."""
        return bool(self._rows("SELECT 1 FROM documented WHERE filename = ?", (filename,)))

    def counterparts(self, filenames: Sequence[str]) -> dict[str, tuple[str, str]]:
        """The hashes and the times of those examined entries of the document, by filename."""
        marks = ", ".join("?" * len(filenames))
        rows = self._rows(
            "SELECT filename, sha256, uploaded_at FROM documented"
            f" WHERE filename IN ({marks}) AND sha256 IS NOT NULL AND uploaded_at IS NOT NULL",
            filenames,
        )
        return {filename: (sha256, at) for filename, sha256, at in rows}

    # -- the listing -----------------------------------------------------------------------------

    def parts(self) -> dict[str, bool]:
        """The parts of the listing, and whether each of them is done; empty: not known yet."""
        return {part: bool(done) for part, done in self._rows("SELECT part, is_done FROM parts")}

    def divide(self, parts: Iterable[str]) -> None:
        """The listing has these parts."""
        with self.writing():
            self._connection.executemany(
                "INSERT OR IGNORE INTO parts VALUES (?, 0)", ((part,) for part in parts)
            )

    def finish_part(self, part: str) -> None:
        """Everything in this part is listed. Call it inside `writing`, with the last of it."""
        self._connection.execute("UPDATE parts SET is_done = 1 WHERE part = ?", (part,))

    def add_listed(self, listed: Iterable[StoredFile | StoredName]) -> None:
        """Take files of the listing. Call it inside `writing`. The first of a name counts."""
        marks = ", ".join("?" * len(_LISTED.split(",")))
        self._connection.executemany(
            f"INSERT OR IGNORE INTO listed ({_LISTED}) VALUES ({marks})",
            map(_listed_row, listed),
        )

    def compare(self) -> None:
        """Find out which listed files the document has just as they are."""
        with self.writing():
            self._connection.execute(
                "INSERT OR IGNORE INTO kept"
                " SELECT filename FROM listed JOIN documented USING (filename)"
                f" WHERE ({_UNCHANGED} OR listed.size IS NULL AND documented.sha256 IS NOT NULL)"
                " AND filename NOT IN (SELECT filename FROM burnt)"
            )

    def moved(self) -> Iterator[tuple[StoredFile, IndexEntry]]:
        """Files whose bytes are those of their entries, but of which something else is new."""
        for *row, text in self._each(
            f"SELECT {_qualified('listed', _LISTED)}, documented.text FROM listed"
            " JOIN documented USING (filename) WHERE listed.stamp = documented.stamp"
            " AND filename NOT IN (SELECT filename FROM kept)"
            " AND filename NOT IN (SELECT filename FROM burnt)",
            "listed.filename",
        ):
            stored = _listed_from_row(row)
            assert isinstance(stored, StoredFile)
            yield stored, read_entry(text, location_key=self._location_key)

    def leftovers(self) -> Iterator[StoredFile | StoredName]:
        """Files that are stored under burnt names."""
        for row in self._each(
            f"SELECT {_LISTED} FROM listed WHERE filename IN (SELECT filename FROM burnt)",
            "filename",
        ):
            yield _listed_from_row(row)

    _NEW: Final = (
        "FROM listed WHERE filename NOT IN (SELECT filename FROM burnt)"
        " AND filename NOT IN (SELECT filename FROM kept)"
        " AND filename NOT IN (SELECT filename FROM found)"
    )

    def count_new(self) -> int:
        """How many listed files have no entry yet."""
        return int(self._rows(f"SELECT count(*) {self._NEW}")[0][0])

    def new(self) -> Iterator[StoredFile | StoredName]:
        """The listed files that have no entry yet. Entries may be added meanwhile."""
        for row in self._each(f"SELECT {_LISTED} {self._NEW}", "filename"):
            yield _listed_from_row(row)

    # -- entries ---------------------------------------------------------------------------------

    def add(self, rows: Sequence[EntryRow]) -> None:
        """Take entries of files that are stored."""
        with self.writing():
            self._put("found", rows)

    def merged(
        self,
        *,
        whole: bool,
        in_trouble: Collection[str],
        written: Mapping[str, str | None],
        yanks: dict[str, str | None],
    ) -> Iterator[Merged]:
        """The entries of the new document, ordered by filename.

        They are what was found, together with what others wrote into the document meanwhile.
        `whole`: all files were listed, so that any other file is gone, except for those
        `in_trouble`. `written`: how those files of which the storage keeps yanks were yanked in the
        document that this run wrote last. What is to be written of them now is put into `yanks`.
        """
        for filename, is_burnt, *columns in self._merging():
            new, old = columns[:4], columns[4:8]
            is_kept, was_there, yanked_before, facts_before = columns[8:]
            if is_burnt:
                continue
            if new[3] is None:
                if whole and not is_kept and was_there and filename not in in_trouble:
                    continue
                project, _, facts, text = old
            else:
                project, yanked, facts, text = new
                keeps = yanked is not None
                if old[2] is not None and text != old[3]:  # the document has other facts
                    # A file is yanked if the document or the storage says so. They differ if a
                    # server writes only one of them, or if a writer was killed between the two. But
                    # an edit of the document that was made during this run is newer than the
                    # listing.
                    known = filename in written or was_there
                    if not keeps or not known or old[1] != written.get(filename, yanked_before):
                        yanked = old[1]
                    facts, text = self._with_old(text, old[3], yanked)
                if keeps:
                    yanks[filename] = yanked
            yield Merged(
                filename=filename,
                project=project,
                text=text,
                is_changed=text != old[3],
                is_examined=facts is not None,
                was_there=bool(was_there),
                is_as_before=facts is not None and facts == facts_before,
            )

    def _merging(self) -> Iterator[Any]:
        after = ""
        while rows := self._rows(
            "SELECT filename, filename IN (SELECT filename FROM burnt),"
            " found.project, found.yanked, found.facts, found.text,"
            " documented.project, documented.yanked, documented.facts, documented.text,"
            " kept.filename IS NOT NULL,"
            " at_begin.filename IS NOT NULL, at_begin.yanked, at_begin.facts"
            " FROM (SELECT filename FROM documented WHERE filename > ?1"
            " UNION SELECT filename FROM found WHERE filename > ?1"
            f" ORDER BY filename LIMIT {_SOME}) AS names"
            " LEFT JOIN found USING (filename) LEFT JOIN documented USING (filename)"
            " LEFT JOIN kept USING (filename) LEFT JOIN at_begin USING (filename)"
            " ORDER BY filename",
            (after,),
        ):
            yield from rows
            after = rows[-1][0]

    def _with_old(self, text: str, old: str, yanked: str | None) -> tuple[bytes | None, str]:
        """The facts and the text of an entry that replaces another one."""
        entry = read_entry(text, location_key=self._location_key)
        before = read_entry(old, location_key=self._location_key)
        row = self.row(replace(entry, file=replace(entry.file, yanked=yanked), extra=before.extra))
        return row[7], row[8]

    def has_found(self) -> bool:
        """Whether any entry was found that the document lacked, or had otherwise."""
        return bool(self._rows("SELECT 1 FROM found LIMIT 1"))

    def is_dropping(self, *, whole: bool, in_trouble: Collection[str]) -> bool:
        """Whether an entry of the document is not in the new one."""
        if self._rows(
            "SELECT 1 FROM documented WHERE filename IN (SELECT filename FROM burnt) LIMIT 1"
        ):
            return True
        gone = self._each(f"SELECT filename FROM documented WHERE NOT {_STAYS}", "filename")
        return whole and any(filename not in in_trouble for (filename,) in gone)

    def projects(self) -> set[NormalizedName]:
        """Every project that has entries in the document, or had them when the run began."""
        rows = self._rows("SELECT project FROM documented UNION SELECT project FROM at_begin")
        return {project for (project,) in rows}

    def projects_after(self, in_trouble: Collection[str]) -> set[NormalizedName]:
        """Every project that has entries in the new document, if all files were listed."""
        rows = self._rows(
            "SELECT project FROM found WHERE filename NOT IN (SELECT filename FROM burnt)"
            " UNION SELECT project FROM documented"
            f" WHERE filename NOT IN (SELECT filename FROM burnt) AND {_STAYS}"
        )
        in_trouble = [each for each in in_trouble if self.has_entry(each)]
        return {project for (project,) in rows} | {
            parse_filename(filename).project for filename in in_trouble
        }

    def has_after(self, filename: str, *, whole: bool, in_trouble: Collection[str]) -> bool:
        """Whether the new document has an entry of this name, or a burnt name."""
        stays = _STAYS if whole and filename not in in_trouble else "1"
        return bool(
            self._rows(
                "SELECT filename FROM burnt WHERE filename = ?1"
                " UNION ALL SELECT filename FROM found WHERE filename = ?1"
                f" UNION ALL SELECT filename FROM documented WHERE filename = ?1 AND {stays}",
                (filename,),
            )
        )

    def count_at_begin(self) -> int:
        """How many entries the document had when the run began."""
        return int(self._rows("SELECT count(*) FROM at_begin")[0][0])

    def count_documented(self, *, whole: bool) -> dict[str, int]:
        """How many entries the new document has if nothing was found, by what they are.

        `there`: the document had one of this name when the run began; `added`: it had none;
        `unchanged`: pages say the same of it as then, or it is not examined.
        """
        [(there, entries, unchanged)] = self._rows(
            "SELECT count(at_begin.filename), count(*),"
            " coalesce(sum(documented.facts IS NULL OR documented.facts IS at_begin.facts), 0)"
            " FROM documented LEFT JOIN at_begin USING (filename) LEFT JOIN kept USING (filename)"
            " WHERE filename NOT IN (SELECT filename FROM burnt)"
            " AND (NOT ? OR kept.filename IS NOT NULL OR at_begin.filename IS NULL)",
            (whole,),
        )
        return {"there": there, "added": entries - there, "unchanged": unchanged}

    # -- statements ------------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction."""
        with transaction(self._connection):
            yield

    def _put(self, table: str, rows: Sequence[EntryRow]) -> None:
        marks = ", ".join("?" * 9)
        self._connection.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", rows)

    def _rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Any]:
        return self._connection.execute(sql, parameters).fetchall()

    def _each(self, sql: str, key: str) -> Iterator[Any]:
        """The rows of a query, ordered by `key`, which is their first column; a few at a time.

        Other statements may be executed between two rows.
        """
        after = ""
        joined = " AND " if " WHERE " in sql else " WHERE "
        while rows := self._rows(f"{sql}{joined}{key} > ? ORDER BY {key} LIMIT {_SOME}", (after,)):
            yield from rows
            after = rows[-1][0]


def _listed_row(listed: StoredFile | StoredName) -> tuple[object, ...]:
    if isinstance(listed, StoredName):
        return (listed.filename, *[None] * 9)
    return (
        listed.filename,
        listed.size,
        listed.location,
        listed.stamp,
        None if listed.record is None else json.dumps(dict(listed.record)),
        listed.sha256,
        None if listed.uploaded_at is None else microseconds(listed.uploaded_at),
        None if listed.modified_at is None else microseconds(listed.modified_at),
        listed.yanked,
        listed.project,
    )


def _listed_from_row(row: Sequence[Any]) -> StoredFile | StoredName:
    filename, size, location, stamp, record, sha256, uploaded_at, modified_at, yanked, project = row
    if size is None:
        return StoredName(filename)
    return StoredFile(
        filename=filename,
        size=size,
        location=location,
        stamp=stamp,
        record=None if record is None else json.loads(record),
        sha256=sha256,
        uploaded_at=from_microseconds(uploaded_at),
        modified_at=from_microseconds(modified_at),
        yanked=yanked,
        project=project,
    )


def _qualified(table: str, columns: str) -> str:
    return ", ".join(f"{table}.{column.strip()}" for column in columns.split(","))
