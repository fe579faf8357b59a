# ruff: noqa: S608 - all SQL is composed of constants
"""The scratch database of one synchronisation: its tables, and the index document written into it.

A large document is parsed by a child process (`child`), which fills the database. Then the server
takes the differences in SQL (`reconciling`).
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Final

from private_pypi.index.document import IndexEntry, UnexaminedEntry
from private_pypi.index.document_reader import DocumentReader
from private_pypi.index.rows import BURNT, FACTS, FACTS_TABLE, FACTS_VALUES, burnt_row, file_row

_SOME: Final = 500  # entries that are written at a time

# What was read and what follows from it. The tables called `staged_…` have the document.
_TABLES = f"""
CREATE TABLE IF NOT EXISTS staged_document (mtime INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS staged_entries ({FACTS_TABLE});
CREATE TABLE IF NOT EXISTS staged_unexamined (
    filename TEXT PRIMARY KEY, location TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS staged_burnt (
    filename TEXT PRIMARY KEY, project TEXT, sha256 TEXT, deleted_at INTEGER
);
CREATE TABLE IF NOT EXISTS staged_former (name TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS staged_restored (filename TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS staged_skipped (filename TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS staged_problems (problem TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS listed (
    filename TEXT PRIMARY KEY, size INTEGER, location TEXT, stamp TEXT,
    modified_at INTEGER,  -- microseconds since 1970, not later than now
    yanked TEXT
);
-- Files to be opened. A size of -1 is unknown: an entry of 0.2, whose location is its stamp.
CREATE TABLE IF NOT EXISTS pending (
    id INTEGER PRIMARY KEY,
    filename TEXT UNIQUE, size INTEGER, location TEXT, stamp TEXT, project TEXT,
    uploaded_at INTEGER,  -- as the storage says, else when the file was first seen
    is_late INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS incoming ({FACTS_TABLE.replace("PRIMARY KEY", "UNIQUE")},
    documented INTEGER NOT NULL,
    id INTEGER PRIMARY KEY
);
-- Projects that stored files name and that may not be known yet, and files that are not shown.
CREATE TABLE IF NOT EXISTS named (project TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS hidden (
    project TEXT NOT NULL, filename TEXT NOT NULL, problem TEXT NOT NULL,
    PRIMARY KEY (project, filename)
);
-- The serials of this synchronisation's own transactions.
CREATE TABLE IF NOT EXISTS own (serial INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS gone (id INTEGER PRIMARY KEY, filename TEXT UNIQUE);
"""


def stage_document(document: Path, scratch: Path, *, location_key: str) -> None:
    """Write a document into a scratch database; raises `InvalidIndex`."""
    with closing(sqlite3.connect(scratch, isolation_level=None)) as connection:
        make_tables(connection, "main")
        connection.execute("BEGIN")
        reader = DocumentReader(
            document, location_key=location_key, names=NamesOnDisk(connection, "staged_names")
        )
        entries = reader.entries()
        while some := list(islice(entries, _SOME)):
            connection.executemany(
                f"INSERT INTO staged_entries ({FACTS}) VALUES ({FACTS_VALUES})",
                [file_row(each.file, each.stamp) for each in some if isinstance(each, IndexEntry)],
            )
            connection.executemany(
                "INSERT INTO staged_unexamined VALUES (?, ?)",
                [
                    (each.filename, each.location)
                    for each in some
                    if isinstance(each, UnexaminedEntry)
                ],
            )
        rest = reader.rest()
        connection.execute("INSERT INTO staged_document VALUES (?)", (rest.mtime,))
        connection.executemany(
            f"INSERT OR IGNORE INTO staged_burnt ({BURNT}) VALUES (?, ?, ?, ?)",
            map(burnt_row, rest.deleted),
        )
        for table, texts in (
            ("staged_former", rest.former_projects),
            ("staged_restored", rest.restored),
            ("staged_skipped", rest.skipped),
            ("staged_problems", reader.problems()),
        ):
            connection.executemany(
                f"INSERT OR IGNORE INTO {table} VALUES (?)", ((text,) for text in texts)
            )
        connection.execute("COMMIT")


class NamesOnDisk:
    """`Names` of a document (see `document_reader`) in a table of a database.

    The documents that we write are ordered by filename. So nearly every name comes after all names
    before it, which shows that it is new. Such names are written many at a time.
    """

    def __init__(self, connection: sqlite3.Connection, table: str) -> None:
        """`table` is made if it is missing, and has `filename` as its key."""
        self._connection = connection
        self._table = table
        self._last = ""  # of all names, in the order of their code points
        self._waiting: list[tuple[str]] = []  # names that are not in the table yet
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {table} (filename TEXT PRIMARY KEY) WITHOUT ROWID"
        )

    def add(self, filename: str) -> bool:
        """Add a filename, and return whether it is new."""
        if filename > self._last:
            self._last = filename
            self._waiting.append((filename,))
            if len(self._waiting) >= _SOME:
                self._write()
            return True
        self._write()
        return self._connection.execute(self._insert, (filename,)).rowcount == 1

    def __contains__(self, filename: object) -> bool:
        self._write()
        statement = f"SELECT 1 FROM {self._table} WHERE filename = ?"
        return bool(self._connection.execute(statement, (filename,)).fetchall())

    @property
    def _insert(self) -> str:
        return f"INSERT OR IGNORE INTO {self._table} VALUES (?)"

    def _write(self) -> None:
        if self._waiting:
            self._connection.executemany(self._insert, self._waiting)
            self._waiting.clear()


def make_tables(connection: sqlite3.Connection, database: str) -> None:
    """Make the tables, unless they are there, in a database that `connection` has open."""
    # Nobody needs the file after a crash.
    connection.executescript(
        f"PRAGMA {database}.journal_mode = OFF; PRAGMA {database}.synchronous = OFF;"
        + _TABLES.replace("IF NOT EXISTS ", f"IF NOT EXISTS {database}.")
    )
