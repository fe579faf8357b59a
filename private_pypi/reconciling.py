# ruff: noqa: S608 - all SQL is composed of constants
"""What one synchronisation does to a local index, in SQL; it reads no storage.

What was read goes into a scratch database beside the index. Differences are taken in SQL, outside
the interpreter, so that requests go on, and are applied in short transactions.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from private_pypi.index_file import IndexDocument
from private_pypi.local_index import FACTS, FACTS_TABLE, SHOWN, LocalIndex, file_row, microseconds
from private_pypi.model import DistributionFile, StoredFile

_CHUNK = 500  # rows of one transaction: some milliseconds

# Tables of a database of its own that lives for one synchronisation: what was read, and what
# follows from it. The child process that parses a large document fills the first five.
_SCRATCH_TABLES = f"""
CREATE TABLE IF NOT EXISTS staged_document (mtime INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS staged_entries ({FACTS_TABLE});
CREATE TABLE IF NOT EXISTS staged_unexamined (
    filename TEXT PRIMARY KEY, location TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS staged_burnt (
    filename TEXT PRIMARY KEY, project TEXT, sha256 TEXT, deleted_at INTEGER
);
CREATE TABLE IF NOT EXISTS staged_former (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS staged_problems (problem TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS listed (
    filename TEXT PRIMARY KEY, size INTEGER, location TEXT, stamp TEXT
);
-- To be opened. A size of -1 is unknown: an entry of 0.2, whose location is its stamp.
CREATE TABLE IF NOT EXISTS pending (
    id INTEGER PRIMARY KEY,
    filename TEXT UNIQUE, size INTEGER, location TEXT, stamp TEXT
);
CREATE TABLE IF NOT EXISTS incoming ({FACTS_TABLE.replace("PRIMARY KEY", "UNIQUE")},
    documented INTEGER NOT NULL,
    id INTEGER PRIMARY KEY
);
-- The serials of this synchronisation's own transactions.
CREATE TABLE IF NOT EXISTS own (serial INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS gone (id INTEGER PRIMARY KEY, filename TEXT UNIQUE);
"""

# Nothing happened to the row since we began, but by us.
_UNTOUCHED = "(files.serial <= :begun OR files.serial IN (SELECT serial FROM own))"

_APPLY_INCOMING = f"""
INSERT INTO files ({FACTS}, documented, seen_at, serial)
SELECT {FACTS}, documented, :now, (SELECT serial FROM state)
FROM incoming
WHERE id BETWEEN :first AND :last
  AND filename NOT IN (SELECT filename FROM burnt)
  AND NOT EXISTS (
      SELECT 1 FROM removed
      WHERE removed.filename = incoming.filename AND removed.serial > :begun)
ON CONFLICT (filename) DO UPDATE SET
    size = excluded.size, uploaded_at = excluded.uploaded_at,
    requires_python = excluded.requires_python,
    -- Of files that are known the document says what is yanked, also where the storage keeps
    -- yanks (`publishing.yank` writes both): a listing may be older than an edit.
    yanked = CASE WHEN excluded.documented THEN excluded.yanked ELSE yanked END,
    stamp = CASE WHEN sha256 = excluded.sha256 THEN coalesce(excluded.stamp, stamp)
            ELSE excluded.stamp END,
    -- The documents of older writers have none.
    summary = CASE WHEN sha256 = excluded.sha256 THEN coalesce(excluded.summary, summary)
              ELSE excluded.summary END,
    sha256 = excluded.sha256,
    core_metadata_sha256 = excluded.core_metadata_sha256,
    location = excluded.location,
    documented = max(documented, excluded.documented),
    seen_at = excluded.seen_at, serial = excluded.serial
WHERE {_UNTOUCHED}
"""


class Reconciliation:
    """What one synchronisation does; a context manager, for one thread.

    Its connection sees the index and the scratch database (`scratch` is the path of a file that
    nobody keeps) together. Its counts grow while it is applied.

    `revision` and `was_ready` are what this very index said when it began: others may have replaced
    its file since a thread looked last, and a new one has to be filled whole.
    """

    def __init__(self, index: LocalIndex, scratch: Path) -> None:
        self._index = index
        self._connection = index.open_connection()
        try:
            with index.translated():
                self._connection.execute("ATTACH DATABASE ? AS scratch", (str(scratch),))
                _make_tables(self._connection, "scratch")
            state = self._rows("SELECT serial, revision, ready FROM state")[0]
        except BaseException:
            self._connection.close()
            raise
        self._begun: int = state[0]
        self.revision: str | None = state[1]
        self.was_ready = bool(state[2])
        self.added = 0
        self.changed = 0
        self.removed = 0
        self.skipped: list[str] = []  # a sentence for each file that was found to be broken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    # -- what was read ----------------------------------------------------------------------------

    def listed(self, chunk: Sequence[StoredFile]) -> list[StoredFile]:
        """Take some of the stored files; those that we know nothing of come back.

        The first of two files with one name counts.
        """
        stored_files = {stored.filename: stored for stored in reversed(chunk)}
        with self._scratch_writing():
            self._connection.executemany(
                "INSERT OR IGNORE INTO listed VALUES (?, ?, ?, ?)",
                [(s.filename, s.size, s.location, s.stamp) for s in stored_files.values()],
            )
        names = ", ".join("?" * len(stored_files))
        rows = self._rows(
            f"SELECT filename, listed.stamp FROM listed LEFT JOIN files USING (filename)"
            f" WHERE filename IN ({names})"
            "   AND listed.stamp IS NOT files.stamp"
            "   AND filename NOT IN (SELECT filename FROM burnt)"
            "   AND (filename, listed.stamp) NOT IN (SELECT filename, stamp FROM broken)",
            list(stored_files),
        )
        return [
            stored_files[filename]
            for filename, stamp in rows
            if stored_files[filename].stamp == stamp
        ]

    def postpone(self, chunk: Sequence[StoredFile]) -> None:
        """Remember files whose facts have to be found elsewhere."""
        with self._scratch_writing():
            self._connection.executemany(
                "INSERT OR IGNORE INTO pending (filename, size, location, stamp)"
                " VALUES (?, ?, ?, ?)",
                [(s.filename, s.size, s.location, s.stamp) for s in chunk],
            )

    # -- what follows -----------------------------------------------------------------------------

    def burn(self) -> None:
        """Take over the burnt names and the former projects of the document."""
        new = self._rows(
            "SELECT 1 FROM staged_burnt WHERE filename NOT IN (SELECT filename FROM burnt)"
            " OR filename IN (SELECT filename FROM files)"
            " UNION ALL"
            " SELECT 1 FROM staged_former WHERE name NOT IN (SELECT name FROM projects) LIMIT 1"
        )
        if not new:
            return
        with self._writing(durable=True) as connection:
            connection.execute(
                "INSERT OR IGNORE INTO burnt (filename, project, sha256, deleted_at)"
                " SELECT filename, project, sha256, deleted_at FROM staged_burnt"
            )
            self.removed += connection.execute(
                "DELETE FROM files WHERE filename IN (SELECT filename FROM burnt)"
            ).rowcount
            connection.execute(
                "INSERT OR IGNORE INTO projects (name, serial, files)"
                " SELECT name, (SELECT serial FROM state), 0 FROM"
                " (SELECT name FROM staged_former UNION SELECT project FROM staged_burnt)"
            )

    def take_document(self, margin: float) -> None:
        """Where the document is the listing: what it changed, and what it proves gone.

        A file that the document never had stays, unless the document was made from a listing
        clearly (`margin`, seconds) younger than the file.
        """
        with self._scratch_writing():
            self._connection.execute(
                f"INSERT OR IGNORE INTO incoming ({FACTS}, documented)"
                f" SELECT {_qualified('staged', FACTS)}, 1"
                " FROM staged_entries AS staged LEFT JOIN files USING (filename)"
                " WHERE files.filename IS NULL OR files.documented = 0"
                f" OR ({_qualified('staged', SHOWN)}) IS NOT ({_qualified('files', SHOWN)})"
                " OR coalesce(staged.summary, files.summary) IS NOT files.summary"
                " OR coalesce(staged.stamp, files.stamp) IS NOT files.stamp"
            )
            self._connection.execute(
                "INSERT OR IGNORE INTO pending (filename, size, location, stamp)"
                " SELECT filename, -1, staged.location, staged.location"
                " FROM staged_unexamined AS staged LEFT JOIN files USING (filename)"
                " WHERE staged.location IS NOT files.location"
                "   AND filename NOT IN (SELECT filename FROM burnt)"
                "   AND (filename, staged.location) NOT IN (SELECT filename, stamp FROM broken)"
            )
            self._connection.execute(
                "INSERT OR IGNORE INTO gone (filename) SELECT filename FROM files"
                " WHERE filename NOT IN (SELECT filename FROM staged_entries)"
                "   AND filename NOT IN (SELECT filename FROM staged_unexamined)"
                "   AND (documented OR seen_at < (SELECT mtime FROM staged_document) - ?)",
                (margin,),
            )
        self._apply()

    def take_documented_facts(self) -> None:
        """Facts of postponed files that the document has, taken from the same bytes."""
        with self._scratch_writing():
            self._connection.execute(
                f"INSERT OR IGNORE INTO incoming ({FACTS}, documented)"
                f" SELECT {_qualified('staged', FACTS)}, 1"
                " FROM staged_entries AS staged JOIN pending USING (filename)"
                " WHERE staged.stamp = pending.stamp AND staged.size = pending.size"
            )
            self._connection.execute(
                "UPDATE incoming SET location = pending.location FROM pending"
                " WHERE incoming.filename = pending.filename"
            )
            self._connection.execute(
                "DELETE FROM pending WHERE filename IN (SELECT filename FROM incoming)"
            )
        self._apply()

    def take_yanks(self) -> None:
        """Where the storage is the listing: the document still says what is yanked."""
        other = (
            "staged.filename = files.filename AND staged.yanked IS NOT files.yanked"
            f" AND {_UNTOUCHED}"
        )
        parameters = {"begun": self._begun}
        if not self._rows(
            f"SELECT 1 FROM files, staged_entries AS staged WHERE {other} LIMIT 1", parameters
        ):
            return
        with self._writing() as connection:
            self.changed += connection.execute(
                "UPDATE files SET yanked = staged.yanked, serial = (SELECT serial FROM state)"
                f" FROM staged_entries AS staged WHERE {other}",
                parameters,
            ).rowcount

    def drop_unlisted(self) -> None:
        """After a whole listing: stop showing what is not in it, and follow what was moved."""
        with self._scratch_writing():
            self._connection.execute(
                "INSERT OR IGNORE INTO gone (filename) SELECT filename FROM files"
                " WHERE filename NOT IN (SELECT filename FROM listed)"
            )
        self._apply()
        moved = (
            "listed.filename = files.filename AND listed.stamp = files.stamp"
            " AND listed.location IS NOT files.location"
        )
        if self._rows(f"SELECT 1 FROM files, listed WHERE {moved} LIMIT 1"):
            with self._writing() as connection:
                connection.execute(
                    f"UPDATE files SET location = listed.location FROM listed WHERE {moved}"
                )
        unlisted = "FROM broken WHERE filename NOT IN (SELECT filename FROM listed)"
        if self._rows(f"SELECT 1 {unlisted} LIMIT 1"):
            with self._writing() as connection:
                connection.execute(f"DELETE {unlisted}")

    def pending(self) -> int:
        """How many postponed files there are."""
        return int(self._rows("SELECT count(*) FROM pending")[0][0])

    def each_pending(self) -> Iterator[StoredFile]:
        """The postponed files; those of old entries without a size (-1).

        The caller may call the other methods between two of them.
        """
        after = 0
        while rows := self._rows(
            "SELECT id, filename, size, location, stamp FROM pending WHERE id > ?"
            " ORDER BY id LIMIT ?",
            (after, _CHUNK),
        ):
            for id_, filename, size, location, stamp in rows:
                yield StoredFile(
                    filename=filename, size=size, location=location, stamp=stamp, record=None
                )
                after = id_

    def add(
        self, files: Sequence[tuple[DistributionFile, str]], *, documented: bool = False
    ) -> None:
        """Show files, each with the stamp at which its facts were taken.

        `documented`: the index document has them.
        """
        if not files:
            return
        with self._scratch_writing():
            self._connection.executemany(
                f"INSERT OR REPLACE INTO incoming ({FACTS}, documented)"
                f" VALUES ({', '.join('?' * 13)}, {int(documented)})",
                [file_row(file, stamp) for file, stamp in files],
            )
        self._apply()

    def skip(self, stored: StoredFile, problem: str) -> None:
        """Do not show a file, nor look at it again before its stamp changes."""
        self.skipped.append(problem)
        with self._scratch_writing():
            self._connection.execute(
                "INSERT OR IGNORE INTO gone (filename) VALUES (?)", (stored.filename,)
            )
        self._apply()
        with self._writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO broken VALUES (?, ?, ?)",
                (stored.filename, stored.stamp, problem),
            )

    def finish(self, revision: str, *, now: float) -> None:
        """The listing is whole: say so, and of which document it is."""
        with self._index.translated():
            self._connection.execute(
                "UPDATE state SET ready = 1, synced_at = ?, error = NULL, revision = ?,"
                " index_mtime = coalesce((SELECT mtime FROM staged_document), index_mtime)",
                (now, revision),
            )
            self._connection.execute("DELETE FROM removed WHERE serial <= ?", (self._begun,))
            self._connection.execute(
                "DELETE FROM broken WHERE filename IN (SELECT filename FROM files)"
            )

    def document_mtime(self) -> int | None:
        """When the document was made: the one just staged, else the one applied before."""
        rows = self._rows(
            "SELECT coalesce((SELECT mtime FROM staged_document), index_mtime) FROM state"
        )
        return rows[0][0] if rows else None

    def document_problems(self) -> list[str]:
        """What was wrong with the document that was staged."""
        return [problem for (problem,) in self._rows("SELECT problem FROM staged_problems")]

    # -- how --------------------------------------------------------------------------------------

    def _apply(self) -> None:
        """Let `incoming` in and `gone` out, each unless something younger happened to it."""
        for first, last in self._chunks("incoming"):
            with self._writing() as connection:
                parameters = {
                    "first": first,
                    "last": last,
                    "begun": self._begun,
                    "now": time.time(),
                }
                before = connection.execute(
                    "SELECT count(*) FROM incoming JOIN files USING (filename)"
                    " WHERE id BETWEEN :first AND :last",
                    parameters,
                ).fetchone()[0]
                touched = connection.execute(_APPLY_INCOMING, parameters).rowcount
                after = connection.execute(
                    "SELECT count(*) FROM incoming JOIN files USING (filename)"
                    " WHERE id BETWEEN :first AND :last",
                    parameters,
                ).fetchone()[0]
                self.added += after - before
                self.changed += touched - (after - before)
        for first, last in self._chunks("gone"):
            with self._writing(durable=True) as connection:
                self.removed += connection.execute(
                    f"DELETE FROM files WHERE {_UNTOUCHED} AND filename IN"
                    " (SELECT filename FROM gone WHERE id BETWEEN :first AND :last)",
                    {"begun": self._begun, "first": first, "last": last},
                ).rowcount
        with self._scratch_writing():
            self._connection.execute("DELETE FROM incoming")
            self._connection.execute("DELETE FROM gone")

    def _chunks(self, table: str) -> Iterator[tuple[int, int]]:
        first, last = self._rows(f"SELECT min(id), max(id) FROM {table}")[0]
        if first is not None:
            for start in range(first, last + 1, _CHUNK):
                yield start, start + _CHUNK - 1

    @contextmanager
    def _writing(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        with self._index.writing(self._connection, durable=durable) as connection:
            connection.execute("INSERT INTO own SELECT serial FROM state")
            yield connection

    def _rows(
        self, sql: str, parameters: Sequence[object] | Mapping[str, object] = ()
    ) -> list[Any]:
        with self._index.translated():
            return self._connection.execute(sql, parameters).fetchall()

    @contextmanager
    def _scratch_writing(self) -> Iterator[None]:
        with self._index.translated():
            self._connection.execute("BEGIN")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise


def stage_document(document: IndexDocument, problems: Sequence[str], scratch: Path) -> None:
    """Write a document into a scratch database, for a `Reconciliation` of another process."""
    connection = sqlite3.connect(scratch, isolation_level=None)
    try:
        _make_tables(connection, "main")
        connection.execute("BEGIN")
        _stage(connection, document, problems)
        connection.execute("COMMIT")
    finally:
        connection.close()


def _make_tables(connection: sqlite3.Connection, schema: str) -> None:
    # Nobody needs it after a crash.
    connection.executescript(
        f"PRAGMA {schema}.journal_mode = OFF; PRAGMA {schema}.synchronous = OFF;"
        + _SCRATCH_TABLES.replace("IF NOT EXISTS ", f"IF NOT EXISTS {schema}.")
    )


def _stage(
    connection: sqlite3.Connection, document: IndexDocument, problems: Sequence[str]
) -> None:
    connection.execute("INSERT INTO staged_document VALUES (?)", (document.mtime,))
    connection.executemany(
        f"INSERT INTO staged_entries ({FACTS}) VALUES ({', '.join('?' * 13)})",
        (file_row(entry.file, entry.stamp) for entry in document.entries),
    )
    connection.executemany(
        "INSERT INTO staged_unexamined VALUES (?, ?)",
        ((entry.filename, entry.location) for entry in document.unexamined),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO staged_burnt VALUES (?, ?, ?, ?)",
        (
            (burnt.filename, burnt.project, burnt.sha256, microseconds(burnt.deleted_at))
            for burnt in document.deleted
        ),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO staged_former VALUES (?)",
        ((name,) for name in document.former_projects),
    )
    connection.executemany(
        "INSERT INTO staged_problems VALUES (?)", ((problem,) for problem in problems)
    )


def _qualified(table: str, columns: str) -> str:
    return ", ".join(f"{table}.{column.strip()}" for column in columns.split(","))
