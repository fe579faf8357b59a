# ruff: noqa: S608 - all SQL is composed of constants
"""The scratch database of one synchronisation: its tables, and the index document written into it.

A large document is parsed by a child process (`child`), which fills the database. Then the server
takes the differences in SQL (`reconciling`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from private_pypi.index.document import IndexDocument
from private_pypi.index.rows import BURNT, FACTS, FACTS_TABLE, FACTS_VALUES, burnt_row, file_row

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


def stage_document(document: IndexDocument, problems: Sequence[str], scratch: Path) -> None:
    """Write a document into a scratch database; `problems`: what was wrong with its entries."""
    with closing(sqlite3.connect(scratch, isolation_level=None)) as connection:
        make_tables(connection, "main")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO staged_document VALUES (?)", (document.mtime,))
        connection.executemany(
            f"INSERT INTO staged_entries ({FACTS}) VALUES ({FACTS_VALUES})",
            (file_row(entry.file, entry.stamp) for entry in document.entries),
        )
        connection.executemany(
            "INSERT INTO staged_unexamined VALUES (?, ?)",
            ((entry.filename, entry.location) for entry in document.unexamined),
        )
        connection.executemany(
            f"INSERT OR IGNORE INTO staged_burnt ({BURNT}) VALUES (?, ?, ?, ?)",
            map(burnt_row, document.deleted),
        )
        for table, texts in (
            ("staged_former", document.former_projects),
            ("staged_restored", document.restored),
            ("staged_skipped", document.skipped),
            ("staged_problems", problems),
        ):
            connection.executemany(
                f"INSERT OR IGNORE INTO {table} VALUES (?)", ((text,) for text in texts)
            )
        connection.execute("COMMIT")


def make_tables(connection: sqlite3.Connection, database: str) -> None:
    """Make the tables, unless they are there, in a database that `connection` has open."""
    # Nobody needs the file after a crash.
    connection.executescript(
        f"PRAGMA {database}.journal_mode = OFF; PRAGMA {database}.synchronous = OFF;"
        + _TABLES.replace("IF NOT EXISTS ", f"IF NOT EXISTS {database}.")
    )
